#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A full store: an administrator can connect with a new session, see what is full, and free room;
refused clients get the cause, not "no broker"."""
import os
import socket
import struct
import subprocess
import sys
import threading

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import ERROR, TO_QUEUE, Connection, Refused, envelope, pb  # noqa: E402

NO_SPACE = -22


def sluice(address, *args, seconds="5s"):
    return subprocess.run(
        [tap.program("client/cli/sluice"), "--address", address, "--timeout", seconds, *args],
        capture_output=True,
        text=True,
        timeout=60,
    )


def put(one, count, size=300_000, at_once=1):
    """Publishes, one by one, until one is refused; returns the number accepted and the text of the
    refusal."""
    for n in range(count):
        answer = one.publish([envelope(bytes(size))] * at_once, "x", target=TO_QUEUE, name="filler")
        if answer.code != 0:
            tap.equal(answer.code, NO_SPACE, "the code of the refusal")
            return n, answer.text
    return count, ""


def filled(top):
    """A data directory whose map of 16 MiB is filled above the limits of the next start: beyond 21
    %."""
    data = os.path.join(top, "data")
    with tap.Broker(data=data, args=["--set", "map_mib=16"]) as broker, Connection(
        broker.port
    ) as one:
        for name, kind in (("runs", 1), ("filler", 0), ("spare", 0)):
            one.call("queue_create", config={"name": name, "kind": kind})
        one.call("stream_create", config={"name": "s", "subjects": ["ev.>"]})
        one.call("job_submit", job="j0", queue="runs", payload=b"{}")
        put(one, 16)
    return data


def test_whoever_frees_room_gets_in_above_every_stop():
    stops = [
        "--set",
        "map_mib=16",
        "--set",
        "publish_stop_percent=20",
        "--set",
        "report_stop_percent=21",
    ]
    with tap.Scratch() as top:
        with tap.Broker(data=filled(top), args=stops) as broker:
            status = sluice(broker.address, "status")
            tap.check(
                status.returncode == 0 and "report-stopped" in status.stdout,
                f"status: {status.stdout}{status.stderr}",
            )
            for word in (
                "job submits and reports",
                "the map is full",
                "of 16 MiB",
                "raise map_mib",
            ):
                tap.check(
                    word in status.stdout,
                    (
                        f"it says what is refused, what is full, and what to do, {word}:"
                        f" {status.stdout}"
                    ),
                )
            for words in (
                ["job", "ls"],
                ["queue", "ls"],
                ["audit"],
                ["queue", "peek", "filler"],
                ["job", "cancel", "j0"],
                ["queue", "rm", "spare", "--yes"],
                ["stream", "rm", "s", "--yes"],
            ):
                done = sluice(broker.address, *words)
                tap.equal(done.returncode, 0, f"sluice {' '.join(words)}: {done.stderr}")
            with Connection(broker.port) as one:
                taken, text = put(one, 1)
                tap.equal(taken, 0, "a publish is refused")
                for word in ("map", "16 MiB", "map_mib", "purge"):
                    tap.check(word in text, f"it says what is full and what to do, {word}: {text}")
                one.call("job_retention", keep_ms=1000)
                one.call("queue_alter", config={"name": "filler", "max_attempts": 3})
                error = tap.raises(
                    Refused,
                    lambda: one.call("queue_create", config={"name": "more"}),
                    "what grows the store is refused",
                )
                tap.equal(error.reply.code, NO_SPACE, "its code")
                one.call("queue_purge", name="filler")
                tap.wait_until(
                    lambda: one.call("status_get").status.headroom == "ok",
                    30,
                    "there is room again",
                )
                tap.equal(one.call("status_get").status.headroom_text, "", "and no more to say")
            tap.equal(
                sluice(broker.address, "put", "filler", "x", "body").returncode,
                0,
                "and publishes are accepted",
            )


def test_publishes_stop_where_the_setting_says():
    for size, at_once in ((300, 3_000), (3_000, 300), (60_000, 5), (900_000, 1)):
        with tap.Broker(args=["--set", "map_mib=32"]) as broker, Connection(broker.port) as one:
            one.call("queue_create", config={"name": "filler"})
            taken, text = put(one, 1_000, size, at_once)
            status = one.call("status_get").status
            percent = 100 * status.store_used_bytes / status.store_map_bytes
            tap.check(
                percent < 81, f"{taken} of {at_once} times {size} bytes: {percent:.1f} % are used"
            )
            tap.check("80 %" in text, f"the text has the limit: {text}")
            one.call("queue_create", config={"name": "more"})


class Refusing:
    """A server that answers every HELLO with an ERROR."""

    def __init__(self, code, text):
        body = pb.Failure(code=code, text=text).SerializeToString()
        self.frame = struct.pack(">IBBI", len(body) + 6, ERROR, 0, 0) + body
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                one = self.listener.accept()[0]
            except OSError:
                return
            with one:
                one.recv(65536)
                one.sendall(self.frame)
                one.recv(65536)


def test_a_refused_hello_is_not_a_broker_that_is_not_there():
    refusing = Refusing(NO_SPACE, "the map is full: 9 of 9 MiB are used")
    done = sluice(refusing.address, "status", seconds="1s")
    tap.equal(done.returncode, 7, f"exit code of a store that is full: {done.stderr}")
    tap.check(
        "the map is full" in done.stderr and "NO_SPACE" in done.stderr,
        f"what the broker said: {done.stderr}",
    )
    tap.check("is it running" not in done.stderr, f"and nothing else: {done.stderr}")
    refusing.listener.close()
    done = sluice(f"127.0.0.1:{tap.free_port()}", "status", seconds="1s")
    tap.check(
        "is it running" in done.stderr and done.returncode == 10,
        f"without a broker: {done.returncode}, {done.stderr}",
    )


tap.main(globals())
