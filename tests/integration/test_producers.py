#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Producers that the broker does not know any more: messages that were certainly not applied are
sent under another producer, the outcome of others is reported as unknown. Also the error for many
messages to a full queue. A proxy makes the broker's refusals, because a producer is evicted only
after a day."""
import contextlib
import json
import subprocess

import tap
from frame_proxy import FrameProxy

REQUEST, PUBLISH, PUBLISHED, REPLY = 2, 3, 67, 66
EVICTED, FENCED = -19, -20
TXN_TAG = 80 << 3 | 2
CLI = "client/cli/sluice"


def frame(kind, correlation, body):
    return (
        (6 + len(body)).to_bytes(4, "big")
        + bytes([kind, 0])
        + correlation.to_bytes(4, "big")
        + body
    )


def varint(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def refused(message, code):
    """The broker's answer to a publish or a transaction that it refuses because of its producer,
    and so does not apply."""
    correlation = int.from_bytes(message[6:10], "big")
    if message[4] == PUBLISH:
        first, count = message[26:34], message[42:46]
        entry = (
            code.to_bytes(4, "big", signed=True)
            + first
            + count
            + bytes(8)
            + b"\xff" * 8
            + b"\0"
            + (6).to_bytes(2, "big")
            + b"a test"
        )
        return frame(PUBLISHED, correlation, (1).to_bytes(2, "big") + entry)
    text = b"a test"
    return frame(
        REPLY, correlation, b"\x08" + varint(-2 * code - 1) + b"\x12" + varint(len(text)) + text
    )


class Proxy(FrameProxy):
    """The next `lost` publishes and transactions do not reach the broker: they are answered with
    `code`. With `cut_after` the connection is cut instead of passing on the answer to the next
    publish, which is refused when it is sent again."""

    def __init__(self, port):
        super().__init__(port)
        self.lost, self.code, self.cut_after = 0, EVICTED, False

    def takes(self, name, frame):
        """Whether the proxy answers the frame itself; and the answer."""
        of_producer = frame[4] == PUBLISH or (
            frame[4] == REQUEST and frame[10:].startswith(varint(TXN_TAG))
        )
        if name == "client" and of_producer and self.lost > 0:
            self.lost -= 1
            return refused(frame, self.code)
        return None

    def take(self, source, sink, name, frame, link):
        if name == "broker" and self.cut_after and frame[4] == PUBLISHED:
            self.cut_after, self.lost = False, 1
            raise OSError("cut")
        answer = self.takes(name, frame)
        (source if answer else sink).sendall(answer or frame)


class Publisher:
    """producer_probe, line by line."""

    def __init__(self, address, *named):
        self.child = subprocess.Popen(
            [tap.program("tests/integration/producer_probe"), address, *named],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        tap.equal(self.child.stdout.readline(), "connected\n", "the publisher is connected")

    def ask(self, line, answers=1):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return [self.child.stdout.readline().strip() for _ in range(answers)]

    def close(self):
        self.child.stdin.close()
        tap.equal(self.child.wait(60), 0, f"the publisher's end: {self.child.stdout.read()}")


def sluice(broker, *args, **options):
    return subprocess.run(
        [tap.program(CLI), "--address", broker.address, *args],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def events(broker):
    return json.loads(sluice(broker, "-o", "json", "stream", "show", "p").stdout)["streams"][0].get(
        "events", 0
    )


@contextlib.contextmanager
def world(*named):
    with tap.Broker() as broker, contextlib.closing(Proxy(broker.port)) as proxy:
        tap.equal(
            sluice(broker, "stream", "create", "p", "--subject", "p.>").returncode, 0, "a stream"
        )
        with contextlib.closing(Publisher(proxy.address, *named)) as publisher:
            yield broker, proxy, publisher


def test_an_evicted_producer_with_nothing_under_way_is_opened_anew():
    with world() as (broker, proxy, publisher):
        tap.equal(publisher.ask("publish"), ["publish OK"], "the first")
        for lost in (1, 2):
            proxy.lost = lost
            tap.equal(publisher.ask("publish"), ["publish OK"], f"after {lost} evictions")
        proxy.lost = 2
        tap.equal(
            publisher.ask("two", 3),
            ["done OK", "done OK", "flush OK"],
            "two that were sent together",
        )
        tap.equal(events(broker), 5, "each is stored once")


def test_a_producer_of_a_session_that_is_gone_is_opened_anew_too():
    """No other client can have fenced a producer without a name: the broker answers that it is not
    this session's."""
    with world() as (broker, proxy, publisher):
        tap.equal(publisher.ask("publish"), ["publish OK"], "the first")
        proxy.lost, proxy.code = 1, FENCED
        tap.equal(publisher.ask("publish"), ["publish OK"], "the next")
        tap.equal(events(broker), 2, "each is stored once")


def test_what_may_have_been_applied_before_the_eviction_is_told_and_not_sent_again():
    with world() as (broker, proxy, publisher):
        tap.equal(publisher.ask("publish"), ["publish OK"], "the first")
        proxy.cut_after = True
        answer = publisher.ask("publish")
        tap.equal(answer, ["publish PRODUCER_EVICTED"], "whether it was applied is not known")
        tap.equal(publisher.ask("publish"), ["publish OK"], "the next goes under another producer")
        tap.equal(events(broker), 3, "what was applied is there once")


def test_a_fenced_producer_with_a_name_ends_for_good_and_says_so():
    with world("mine") as (broker, proxy, publisher):
        tap.equal(publisher.ask("publish"), ["publish OK"], "the first")
        with contextlib.closing(Publisher(broker.address, "mine")) as other:
            tap.equal(other.ask("publish"), ["publish OK"], "another client takes the name")
            for _ in range(2):
                tap.equal(
                    publisher.ask("publish"),
                    ["publish PRODUCER_FENCED"],
                    "this one reports it, and does not take the name back",
                )
            tap.equal(other.ask("publish"), ["publish OK"], "the other goes on")
        tap.equal(events(broker), 3, "what was refused is not stored")


def test_a_transaction_goes_under_another_producer_too():
    with world() as (broker, proxy, publisher):
        tap.equal(publisher.ask("txn"), ["txn OK"], "the first")
        proxy.lost = 1
        tap.equal(publisher.ask("txn"), ["txn OK"], "after an eviction")
        tap.equal(events(broker), 2, "each is stored once")


def test_lines_for_a_full_queue_say_the_cause_and_how_many_were_taken():
    with tap.Broker() as broker:
        tap.equal(
            sluice(broker, "queue", "create", "q", "--max-items", "5").returncode,
            0,
            "a queue for five",
        )
        done = sluice(
            broker,
            "put",
            "q",
            "s",
            "--lines",
            "--timeout",
            "1s",
            input="".join(f"{i}\n" for i in range(20)),
        )
        tap.check(
            "QUEUE_FULL" in done.stderr and "5 of 20" in done.stderr,
            f"the cause and the number: {done.stderr}",
        )
        tap.equal(done.returncode, 7, "the exit code is that of the cause")
        claimed = sluice(broker, "claim", "q", "--count", "5", "--ack")
        tap.equal(
            [line.split()[-1] for line in claimed.stdout.splitlines()],
            ["0", "1", "2", "3", "4"],
            "the first five, in order",
        )


def test_the_first_lasting_failure_stops_the_input():
    """The input has no end: reading stops."""
    with tap.Broker() as broker:
        tap.equal(
            sluice(broker, "queue", "create", "q", "--max-items", "5").returncode,
            0,
            "a queue for five",
        )
        child = subprocess.Popen(
            [
                tap.program(CLI),
                "--address",
                broker.address,
                "put",
                "q",
                "s",
                "--lines",
                "--timeout",
                "1s",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = 0

        def feed():
            nonlocal lines
            with contextlib.suppress(OSError):
                child.stdin.write(f"{lines}\n")
                child.stdin.flush()
                lines += 1
            return child.poll() is not None

        tap.wait_until(feed, 60, "it ends although there is more input")
        error = child.stderr.read()
        tap.check("QUEUE_FULL" in error and "5 of " in error, f"and says why: {error}")


tap.main(globals())
