#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""System calls that fail while the broker runs, as on an overloaded machine or with a full or
broken disk. Each failure is logged or answered with its cause, operations that do not need the call
continue, and all continue when it works again. Only a store whose writes cannot be relied on ends
the broker."""
import contextlib
import errno
import os
import re
import sys

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import TO_QUEUE, Connection, envelope  # noqa: E402

NO_SPACE, INTERNAL = -22, -60


class Gate:
    """A broker whose calls fail while shut(CALL, ERRNO)."""

    def __init__(self, args=()):
        tap.not_sanitized("the preloaded library would come before the sanitizer's")
        self.top = tap.Scratch()
        self.file = os.path.join(self.top.name, "gate")
        library = tap.plain(os.path.join(tap.BUILD, "tests/integration/fail_gate.so"))
        self.broker = tap.Broker(args=args, env={"LD_PRELOAD": library, "FAIL_GATE": self.file})
        with Connection(self.broker.port) as one:
            one.call("queue_create", config={"name": "work"})

    def __enter__(self):
        self.broker.__enter__()
        return self

    def __exit__(self, *args):
        self.broker.__exit__(*args)
        self.top.cleanup()

    @contextlib.contextmanager
    def shut(self, call, number):
        with open(self.file + ".new", "w", encoding="ascii") as file:
            file.write(f"{call} {number}")
        os.rename(self.file + ".new", self.file)
        try:
            yield
        finally:
            os.unlink(self.file)

    def lines(self, one):
        return [
            line
            for line in self.broker.text().decode(errors="replace").splitlines()
            if f" id={one} " in line
        ]


def put(one, size=10):
    return one.publish([envelope(bytes(size))], "x", target=TO_QUEUE, name="work")


def test_a_log_that_cannot_be_written_stops_nothing_and_says_later_what_is_missing():
    with Gate(["--set", "log_level=debug"]) as gate, Connection(gate.broker.port) as one:
        for n, number in enumerate(
            (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPIPE, errno.EAGAIN, errno.EFBIG), 1
        ):
            before = len(gate.lines("net.accepted"))
            with gate.shut("log", number):
                with Connection(gate.broker.port) as other:
                    other.ping()
                tap.equal(put(one).code, 0, f"{errno.errorcode[number]}: it serves")
            tap.equal(len(gate.lines("net.accepted")), before, "it was not logged")
            with Connection(gate.broker.port) as other:
                other.ping()
            tap.wait_until(
                lambda: len(gate.lines("log.lost")) == n,
                20,
                f"{errno.errorcode[number]}: the log reports the missing lines",
            )
            tap.check(
                int(re.search(r" lines=(\d+)", gate.lines("log.lost")[-1]).group(1)) > 0,
                "and how many",
            )
            tap.check(len(gate.lines("net.accepted")) > before, "and writes its log again")


def test_without_room_for_a_connection_it_waits():
    for number, name in (
        (errno.ENFILE, "net.descriptors"),
        (errno.EMFILE, "net.descriptors"),
        (errno.ENOMEM, "net.accept"),
        (errno.ENOBUFS, "net.accept"),
    ):
        with Gate() as gate, Connection(gate.broker.port) as one:
            with gate.shut("accept", number):
                later = Connection(gate.broker.port, hello=False)
                later.send(
                    client.HELLO, client.pb.Hello(version_min=1, version_max=1).SerializeToString()
                )
                row = tap.wait_until(
                    lambda: gate.lines(name), 20, f"{errno.errorcode[number]} is logged"
                )[0]
                tap.check(os.strerror(number) in row, f"with its cause: {row}")
                tap.equal(put(one).code, 0, "those that are there are served")
            later.wait(client.WELCOME)
            tap.equal(put(later).code, 0, f"{errno.errorcode[number]}: it is accepted later")
            later.close()


def test_a_connection_that_the_loop_cannot_watch_is_closed_and_the_others_stay():
    for number in (errno.ENOSPC, errno.ENOMEM):
        with Gate() as gate, Connection(gate.broker.port) as one:
            with gate.shut("epoll_ctl", number):
                refused = Connection(gate.broker.port, hello=False)
                refused.sock.settimeout(20)
                try:
                    tap.equal(refused.sock.recv(1000), b"", "it is closed")
                except ConnectionResetError:
                    pass
                refused.close()
                tap.equal(
                    put(one).code, 0, f"{errno.errorcode[number]}: those that are there are served"
                )
            with Connection(gate.broker.port) as other:
                tap.equal(put(other).code, 0, "and the next ones")


def test_without_random_numbers_no_session_opens_and_the_others_stay():
    with Gate() as gate, Connection(gate.broker.port) as one:
        with gate.shut("getrandom", errno.EAGAIN):
            closed = tap.raises(
                client.Closed, lambda: Connection(gate.broker.port), "a session needs a secret"
            )
            tap.equal(closed.failure.code, INTERNAL, "the code of the refusal")
            tap.equal(put(one).code, 0, "those that are there are served")
        with Connection(gate.broker.port) as other:
            tap.equal(put(other).code, 0, "and the next ones")


def test_an_error_of_a_socket_ends_its_connection_and_no_other():
    for number in (errno.ECONNRESET, errno.ETIMEDOUT, errno.EIO, errno.ENOMEM):
        with Gate() as gate, Connection(gate.broker.port) as one, Connection(
            gate.broker.port
        ) as idle:
            one.sock.settimeout(20)
            with gate.shut("socket", number):
                one.send(client.PING, b"")
                try:
                    tap.equal(one.sock.recv(1000), b"", f"{errno.errorcode[number]}: it is closed")
                except ConnectionResetError:
                    pass
            tap.equal(put(idle).code, 0, "one that was idle meanwhile is served")


def test_a_disk_without_room_refuses_what_needs_some_and_goes_on_when_it_has():
    for number in (errno.ENOSPC, errno.EDQUOT):
        with Gate(["--set", "reserve_mib=4"]) as gate, Connection(gate.broker.port) as one:
            with gate.shut("room", number):
                answers = []
                while len(answers) < 1000 and (not answers or answers[-1].code == 0):
                    answers.append(put(one, 300_000))
                tap.equal(
                    answers[-1].code, NO_SPACE, f"{errno.errorcode[number]}: it ends with a refusal"
                )
                tap.check(
                    "the disk is full" in answers[-1].text
                    and os.strerror(number) in answers[-1].text,
                    f"that names what is full: {answers[-1].text}",
                )
                one.call("queue_purge", name="work")
            tap.wait_until(lambda: put(one).code == 0, 30, "publishes are taken again")


def test_a_store_that_cannot_be_written_for_sure_ends_the_broker_with_its_cause():
    for call in ("fdatasync", "pwrite"):
        gate = Gate()
        one = Connection(gate.broker.port)
        with gate.shut(call, errno.EIO):
            asked = one.ask("queue_create", config={"name": "more"})
            tap.check(gate.broker.wait(60) > 0, "it exits with a code")
        tap.check(
            any(os.strerror(errno.EIO) in line for line in gate.lines("engine.fail_stop")),
            f"{call}: and says why: {gate.broker.tail()}",
        )
        tap.raises((client.Closed, OSError), lambda: one.reply(asked, 5), "nothing is acknowledged")
        gate.broker.kill()
        with tap.Broker(data=gate.broker.data) as again, Connection(again.port) as other:
            tap.equal(put(other).code, 0, "after the next start all acknowledged data is there")
        gate.broker.remove()
        gate.top.cleanup()


tap.main(globals())
