#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Limits that need a connection, tested at the limit: subscriptions, credit, unanswered requests,
unread output."""
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time

import tap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HELLO, REQUEST, CREDIT, WELCOME, REPLY, DELIVER, ERROR = 1, 2, 5, 65, 66, 68, 71


def limit(name):
    with open(os.path.join(ROOT, "protocol/limits.def"), encoding="utf-8") as file:
        return int(re.search(rf"LIMIT\({name}, (\d+)", file.read()).group(1))


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    """A protobuf field: bytes or text as length-delimited, numbers as varints."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def frame(kind, corr, body):
    return struct.pack(">IBBI", len(body) + 6, kind, 0, corr) + body


def consume(sub, credit):
    return field(53, field(1, "dead-letter") + field(2, credit) + field(4, sub))


STATUS = field(91, b"")


class Conn:
    def __init__(self, broker, receive_bytes=None, timeout_ms=3600000):
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.connect(("127.0.0.1", broker.port))
        self.sock.settimeout(60)
        self.buffer = b""
        self.sock.sendall(
            frame(HELLO, 0, field(1, 1) + field(2, 1) + field(3, "limits") + field(8, timeout_ms))
        )
        tap.equal(self.read()[0], WELCOME, "welcome")

    def read(self):
        while (
            len(self.buffer) < 4 or len(self.buffer) < 4 + struct.unpack(">I", self.buffer[:4])[0]
        ):
            got = self.sock.recv(1 << 20)
            if not got:
                raise tap.Failed("the broker closed the connection")
            self.buffer += got
        length, kind, _, corr = struct.unpack(">IBBI", self.buffer[:10])
        body, self.buffer = self.buffer[10 : 4 + length], self.buffer[4 + length :]
        return kind, corr, body

    def ask_body(self, request):
        self.sock.sendall(frame(REQUEST, 1, request))
        return self.read()[2]

    def ask(self, request, corr=1):
        self.sock.sendall(frame(REQUEST, corr, request))
        while True:
            kind, got, body = self.read()
            if kind == REPLY and got == corr:
                # Reply.code is field 1, sint32: absent is 0.
                return 0 if not body.startswith(b"\x08") else -((body[1] + 1) >> 1)


# limit: SUBSCRIPTIONS_MAX
def test_subscriptions():
    with tap.Broker() as broker:
        conn = Conn(broker)
        most = limit("SUBSCRIPTIONS_MAX")
        conn.sock.sendall(b"".join(frame(REQUEST, n, consume(n, 0)) for n in range(1, most + 1)))
        for n in range(1, most + 1):
            kind, corr, body = conn.read()
            tap.check(
                kind == REPLY and corr == n and not body.startswith(b"\x08"),
                f"subscription {n} of {most} is taken",
            )
        tap.equal(conn.ask(consume(most + 1, 0), most + 1), -4, "one more is refused with LIMIT")
        tap.equal(conn.ask(STATUS, 99999), 0, "and the connection goes on")


# limit: CREDIT_MAX
def test_credit():
    with tap.Broker() as broker:
        conn = Conn(broker)
        most = limit("CREDIT_MAX")
        tap.equal(conn.ask(consume(1, most)), 0, "the largest credit is accepted")
        tap.equal(conn.ask(consume(2, most + 1)), -4, "one more is refused with LIMIT")
        conn.sock.sendall(frame(CREDIT, 0, struct.pack(">II", 1, most + 1)))
        tap.equal(conn.read()[0], ERROR, "a CREDIT frame beyond it is an error")


def memory_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)) * 1024


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def memory_settled(pid):
    """The largest memory of the process until it is idle: until neither its size nor its CPU time
    changes in 20 consecutive checks. A broker that continued to fill its memory would not be
    idle."""
    most, last, same = 0, None, 0

    def at_rest():
        nonlocal most, last, same
        now = (memory_bytes(pid), cpu_ticks(pid))
        same = same + 1 if now == last else 0
        most, last = max(most, now[0]), now
        return same >= 20

    tap.wait_until(at_rest, 60, "the broker is at rest")
    return most


def unread_bytes(broker, conn):
    """The bytes that arrived at the broker's end of the connection and were not read by it."""
    ours = f"0100007F:{conn.sock.getsockname()[1]:04X}"
    with open("/proc/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file]
    found = [row[4] for row in rows if row[1] == f"0100007F:{broker.port:04X}" and row[2] == ours]
    tap.equal(len(found), 1, "the connection is in /proc/net/tcp")
    return int(found[0].split(":")[1], 16)


# limit: INFLIGHT_REQUESTS_MAX
def test_unanswered_requests():
    tap.not_sanitized("a sanitizer wants to be the first library")
    gate_library = tap.plain(os.path.join(tap.BUILD, "tests/integration/sync_gate.so"))
    with tempfile.TemporaryDirectory() as top:
        gate = os.path.join(top, "gate")
        with tap.Broker(env={"LD_PRELOAD": gate_library, "SYNC_GATE": gate}) as broker:
            most = limit("INFLIGHT_REQUESTS_MAX")
            # Commands, not reads: each waits for its commit, and no commit ends before the gate is
            # opened.
            request = field(50, b"")
            for beyond in (0, 30000):
                conn = Conn(broker)
                with open(gate, "wb"):
                    pass
                conn.sock.sendall(
                    b"".join(frame(REQUEST, n, request) for n in range(1, most + beyond + 1))
                )
                memory_settled(broker.pid)
                unread = unread_bytes(broker, conn)
                os.unlink(gate)
                if beyond == 0:
                    tap.equal(unread, 0, "requests up to the limit are all read")
                else:
                    tap.check(
                        unread > 0,
                        f"requests far beyond it are not read: {unread} bytes wait in the socket",
                    )
                answered = [conn.read()[:2] for _ in range(most + beyond)]
                tap.equal(
                    sorted(answered),
                    [(REPLY, n) for n in range(1, most + beyond + 1)],
                    "all are answered in the end",
                )


def connections_told(reply):
    """Status.connections (field 9) of Reply.status (field 31)."""
    _, at = read_varint(reply, reply.index(varint(31 << 3 | 2)) + 2)
    while at < len(reply):
        key, at = read_varint(reply, at)
        value, at = read_varint(reply, at)
        if key == 9 << 3:
            return value
        if key & 7 == 2:
            at += value
    raise tap.Failed("no connections in the status")


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def test_one_connection_does_not_hold_up_the_others_with_many_small_requests():
    with tap.Broker() as broker:
        many, other = Conn(broker), Conn(broker)
        many.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        before = connections_told(many.ask_body(STATUS))
        os.kill(broker.pid, signal.SIGSTOP)
        one = frame(REQUEST, 1, STATUS)
        many.sock.settimeout(0.2)
        sent = 0
        try:
            while sent < 4 << 20:
                sent += many.sock.send(one * 1000)
        except TimeoutError:
            pass
        there = unread_bytes(broker, many) // len(one)
        other.sock.close()
        os.kill(broker.pid, signal.SIGCONT)
        many.sock.settimeout(60)
        answered = 0
        while connections_told(many.read()[2]) >= before:
            answered += 1
        tap.check(
            answered < there / 2,
            f"{answered} of {there} requests were answered before another connection was served",
        )


# limit: OUTBOX_BYTES_MAX
def test_unread_output():
    tap.not_sanitized("a sanitizer keeps freed memory: its size says nothing")
    with tap.Broker() as broker:
        cli = [tap.program("client/cli/sluice"), "--address", broker.address]
        tap.equal(
            subprocess.run(
                [*cli, "stream", "create", "big", "--subject", "big.>"], timeout=60
            ).returncode,
            0,
            "stream create",
        )
        most = limit("OUTBOX_BYTES_MAX")
        line = b"x" * 60000 + b"\n"
        count = 2 * most // len(line)
        done = subprocess.run(
            [*cli, "pub", "big.x", "--lines"], input=line * count, capture_output=True, timeout=120
        )
        tap.equal(done.returncode, 0, f"twice the limit is published: {done.stderr}")
        before = memory_bytes(broker.pid)
        slow = Conn(broker, receive_bytes=4096)
        follow = field(52, field(1, "big") + field(7, 1000000) + field(8, 1))
        slow.sock.sendall(frame(REQUEST, 1, follow))
        grown = memory_settled(broker.pid) - before
        tap.check(
            grown < 1.5 * most,
            f"a client that does not read costs at most the limit: {grown} bytes",
        )
        tap.equal(Conn(broker).ask(STATUS), 0, "others are answered meanwhile")
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        got = 0
        while got < count:
            kind, _, body = slow.read()
            got += struct.unpack(">I", body[22:26])[0] if kind == DELIVER else 0
        tap.equal(got, count, "when it reads, it gets everything, once")


# limit: OUTBOX_BYTES_MAX (replies)
def test_unread_replies():
    tap.not_sanitized("a sanitizer keeps freed memory: its size says nothing")
    with tap.Broker() as broker:
        conn = Conn(broker)
        for n in range(200):
            create = field(20, field(1, field(1, f"queue-{n}") + field(9, "d" * 1000)))
            tap.equal(conn.ask(create, n + 1), 0, "queue create")
        before = memory_bytes(broker.pid)
        slow = Conn(broker, receive_bytes=4096)
        count = 2000
        slow.sock.sendall(
            b"".join(frame(REQUEST, n, field(24, field(2, 1000))) for n in range(1, count + 1))
        )
        grown = memory_settled(broker.pid) - before
        tap.check(
            grown < 5 * limit("OUTBOX_BYTES_MAX"),
            f"replies that nobody reads are bounded: {grown} bytes of 400,000,000",
        )
        tap.equal(
            [slow.read()[1] for _ in range(count)],
            list(range(1, count + 1)),
            "and all come when they are read",
        )


# limit: INFLIGHT_REQUESTS_MAX (waits)
def test_waits_are_bounded():
    with tap.Broker() as broker:
        conn = Conn(broker)
        tap.equal(conn.ask(field(20, field(1, field(1, "jobs") + field(2, 1)))), 0, "queue create")
        tap.equal(conn.ask(field(60, field(1, "j") + field(2, "jobs"))), 0, "job submit")
        most = limit("INFLIGHT_REQUESTS_MAX")
        conn.sock.sendall(
            b"".join(frame(REQUEST, n, field(67, field(1, "j"))) for n in range(1, most + 2))
        )
        kind, corr, body = conn.read()
        tap.equal(
            (kind, corr, body[:2]), (REPLY, most + 1, b"\x08\x2d"), "one more is refused with BUSY"
        )
        tap.equal(conn.ask(field(64, field(1, "j")), most + 2), 0, "and the connection goes on")


# limit: OUTBOX_BYTES_MAX (deliveries of a queue)
def test_unread_deliveries():
    tap.not_sanitized("a sanitizer keeps freed memory: its size says nothing")
    with tap.Broker() as broker:
        cli = [tap.program("client/cli/sluice"), "--address", broker.address]
        conn = Conn(broker)
        tap.equal(
            conn.ask(field(20, field(1, field(1, "big") + field(3, "big.>")))), 0, "queue create"
        )
        most = limit("OUTBOX_BYTES_MAX")
        line = b"x" * 60000 + b"\n"
        count = 8 * most // len(line)
        done = subprocess.run(
            [*cli, "pub", "big.x", "--lines"], input=line * count, capture_output=True, timeout=120
        )
        tap.equal(done.returncode, 0, f"eight times the limit is published: {done.stderr}")
        before = memory_bytes(broker.pid)
        slow = Conn(broker, receive_bytes=4096)
        slow.sock.sendall(
            frame(REQUEST, 1, field(53, field(1, "big") + field(2, 1000000) + field(4, 1)))
        )
        grown = memory_settled(broker.pid) - before
        tap.check(
            grown < 5 * most,
            f"a consumer that does not read costs little more than the bound: {grown} bytes",
        )
        slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        got = 0
        while got < count:
            kind, _, body = slow.read()
            got += struct.unpack(">I", body[22:26])[0] if kind == DELIVER else 0
        tap.equal(got, count, "and when it reads, it gets everything")


def test_unread_output_of_all_connections():
    tap.not_sanitized("a sanitizer keeps freed memory: its size says nothing")
    with tap.Broker(args=["--set", "outbox_mib=32"]) as broker:
        cli = [tap.program("client/cli/sluice"), "--address", broker.address]
        conn = Conn(broker)
        tap.equal(conn.ask(field(10, field(1, field(1, "big")))), 0, "stream create")
        line = b"x" * 100000 + b"\n"
        for n in range(20):
            done = subprocess.run(
                [*cli, "pub", "big.x", "--stream", "big", "--lines"],
                input=line * 10,
                capture_output=True,
                timeout=120,
            )
            tap.equal(done.returncode, 0, f"20 MB are published: {done.stderr}")
        before = memory_bytes(broker.pid)
        slow = [Conn(broker, receive_bytes=4096) for _ in range(40)]
        for one in slow:
            one.sock.sendall(
                frame(REQUEST, 1, field(52, field(1, "big") + field(7, 1000000) + field(8, 1)))
            )
        # Each could have 16 MiB; together they have the limit, and each a little more.
        sizes = [0]
        tap.wait_until(
            lambda: sizes.append(memory_bytes(broker.pid))
            or sizes[-1] == sizes[-2] > before + (24 << 20),
            30,
            "their output has grown and then stopped growing",
            0.5,
        )
        tap.check(
            sizes[-1] - before < (32 << 20) + 40 * (2 << 20),
            (
                "40 that do not read cost the configured limit and a little each:"
                f" {sizes[-1] - before} bytes"
            ),
        )
        tap.equal(Conn(broker).ask(STATUS), 0, "others are answered meanwhile")
        for one in (slow[0], slow[-1]):
            one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            got = 0
            while got < 19000000:
                got += len(one.read()[2])
            tap.check(got > 0, "and a client that reads gets everything")


# limit: OUTBOX_BYTES_MAX (a slow line)
def test_a_slow_reader_that_reads_is_not_silent():
    with tap.Broker() as broker:
        cli = [tap.program("client/cli/sluice"), "--address", broker.address]
        conn = Conn(broker)
        tap.equal(conn.ask(field(10, field(1, field(1, "big")))), 0, "stream create")
        most = limit("OUTBOX_BYTES_MAX")
        for n in range(4):
            done = subprocess.run(
                [*cli, "pub", "big.x", "--stream", "big", "-"],
                input=b"x" * (most * 9 // 20),
                capture_output=True,
                timeout=120,
            )
            tap.equal(
                done.returncode, 0, f"an event of nearly half the bound is published: {done.stderr}"
            )
        # The shortest timeout: the broker checks it several times while it does not read from this
        # connection.
        slow = Conn(broker, receive_bytes=4096, timeout_ms=limit("SESSION_TIMEOUT_MS_MIN"))
        slow.sock.sendall(
            frame(REQUEST, 1, field(52, field(1, "big") + field(7, 1000000) + field(8, 1)))
        )
        got = 0
        for n in range(60):
            # PING, which is not read while the output is full
            slow.sock.sendall(frame(6, n + 1, b""))
            part = slow.sock.recv(60000)
            tap.check(part != b"", f"after {got} bytes the connection is still open")
            got += len(part)
            time.sleep(0.1)  # how slow it is, not a wait


tap.main(globals())
