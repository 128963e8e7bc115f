#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What a client notices while others press on the broker: the p99 of its events, without and with
each pressure in turn, and the memory of the broker.

usage: pressure.py [--only NAME]... [--rounds N] [--seconds S] [--dir DIR] BUILD

BUILD is the folder of a build. The client publishes single events at a fixed rate to a stream and
follows it. Times are measured from the scheduled time of each event, so that a stall counts for
every event that it delayed. README.md says what each pressure is.
"""
import argparse
import contextlib
import ctypes
import gc
import multiprocessing
import os
import re
import resource
import select
import shutil
import signal
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HELLO, REQUEST, PUBLISH, CREDIT, WELCOME, REPLY, PUBLISHED, DELIVER = 1, 2, 3, 5, 65, 66, 67, 68
MIB = 1 << 20
THREADS = 2
INPUT_MIB = OUTBOX_MIB = 64
EVENTS_PER_SECOND = 500
DESCRIPTORS_LEFT = 500  # of the limit, for all but the connections of a pressure
# More than 1 is worse; what is above this is named in the last column.
RATIO_MAX = 1.10


# ---- frames ----


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


# version_min and version_max 1; the session ends an hour after its connection
HELLO_FRAME = frame(HELLO, 0, field(1, 1) + field(2, 1) + field(8, 3600000))


def publish(corr, stream, body):
    size = len(body)
    length = b"\xc4" + bytes([size]) if size < 256 else b"\xc6" + struct.pack(">I", size)
    if 256 <= size < 65536:
        length = b"\xc5" + struct.pack(">H", size)
    envelope = b"\x92\x00" + length + body
    subject, name = b"a.b", stream.encode()
    head = struct.pack(
        ">BBBBQIQQIQIHH", 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, len(envelope), len(subject), len(name)
    )
    return frame(PUBLISH, corr, head + subject + name + envelope)


def follow(stream, subscription, credit, newest=True):
    where = field(2, 5) if newest else b""
    return field(52, field(1, stream) + where + field(7, credit) + field(8, subscription))


def consume(queue, subscription):
    return field(53, field(1, queue) + field(4, subscription))


def stream_create(name, bytes_max):
    return field(10, field(1, field(1, name) + field(4, bytes_max)) + field(2, 1))


def queue_create(name):
    return field(20, field(1, field(1, name)) + field(2, 1))


def published(body):
    """How many answers are in the frame."""
    if body[2:6] != bytes(4):
        raise RuntimeError(f"an event was refused: {body[:200]!r}")
    return int.from_bytes(body[:2], "big")


def welcomed(sock):
    """Nothing follows WELCOME unasked."""
    got = sock.recv(4096)
    if len(got) < 5 or got[4] != WELCOME:
        raise RuntimeError("the broker did not answer HELLO with WELCOME")


class Client:
    """A connection after WELCOME."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""
        self.corr = 0
        sock.sendall(HELLO_FRAME)
        welcomed(sock)

    def frames(self):
        """The frames that are complete: (type, correlation, body). They are taken."""
        at, found = 0, []
        while len(self.buffer) - at >= 4:
            length = int.from_bytes(self.buffer[at : at + 4], "big")
            if len(self.buffer) - at < 4 + length:
                break
            head = self.buffer[at + 4 : at + 10]
            body = self.buffer[at + 10 : at + 4 + length]
            at += 4 + length
            found.append((head[0], int.from_bytes(head[2:6], "big"), body))
        self.buffer = self.buffer[at:]
        return found

    def receive(self):
        got = self.sock.recv(1 << 18)
        if not got:
            raise RuntimeError("the broker closed a connection")
        self.buffer += got

    def ask(self, request):
        """Waits for its REPLY; other frames are dropped. Codes other than 0 are errors."""
        self.corr += 1
        self.sock.sendall(frame(REQUEST, self.corr, request))
        while True:
            self.receive()
            for kind, corr, body in self.frames():
                if kind == REPLY and body.startswith(b"\x08"):
                    raise RuntimeError(f"a request was refused: {body[:200]!r}")
                if kind == REPLY and corr == self.corr:
                    return

    def answers(self, count):
        """Waits for so many answers to PUBLISH."""
        while count > 0:
            self.receive()
            count -= sum(published(body) for kind, _, body in self.frames() if kind == PUBLISHED)


# ---- the broker ----


class Broker:
    def __init__(self, build, folder, *settings):
        self.folder = tempfile.mkdtemp(prefix="pressure-", dir=folder)
        self.log = os.path.join(self.folder, "log")
        options = [f"io_threads={THREADS}", f"input_mib={INPUT_MIB}", f"outbox_mib={OUTBOX_MIB}"]
        args = [os.path.join(build, "broker/sluiced"), "--data", os.path.join(self.folder, "data")]
        args += ["--listen", "127.0.0.1:0"]
        for option in [*options, *settings]:
            args += ["--set", option]
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self.child.pid
        self.accepted = 0
        self.aside = []
        self.port = int(self._said(rb"^ready \S+:(\d+)").group(1))

    def _said(self, pattern):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with open(self.log, "rb") as log:
                found = re.search(pattern, log.read(), re.M)
            if found:
                return found
            if self.child.poll() is not None:
                break
            time.sleep(0.02)
        with open(self.log, "rb") as log:
            raise RuntimeError(f"the broker did not start: {log.read()[-2000:].decode()}")

    def tls_port(self):
        return int(self._said(rb"^listener native tls:127\.0\.0\.1:(\d+)$").group(1))

    def connect(self, thread=None, receive_bytes=None, send_bytes=None):
        """Connections are given to the threads in turn: one for another thread is left aside."""
        while thread is not None and self.accepted % THREADS != thread:
            self.aside.append(self.connect())
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if send_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", self.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted += 1
        return sock

    def client(self, thread=None, **sizes):
        return Client(self.connect(thread, **sizes))

    def memory(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            return int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)) * 1024

    def ticks(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as file:
            row = file.read().rpartition(")")[2].split()
        return int(row[11]) + int(row[12])

    def rest(self):
        """Until it uses hardly any processor time, at most 10 s."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            before = self.ticks()
            time.sleep(0.25)
            if self.ticks() - before <= 2:
                return

    def threads(self):
        """Of the I/O threads, in their order: the process starts the engine's first."""
        return sorted(int(task) for task in os.listdir(f"/proc/{self.pid}/task"))[-THREADS:]

    def end(self):
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


# ---- the client whose times are measured ----


class Bystander:
    """A process of its own; both its connections are on the first I/O thread."""

    STREAM = "bystander"

    def __init__(self, broker):
        self.publisher = broker.client(0)
        self.publisher.ask(stream_create(self.STREAM, 4 * MIB))
        self.follower = broker.client(0)
        self.follower.ask(follow(self.STREAM, 1, 1000000))
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self._serve, args=(theirs,), daemon=True)
        self.process.start()
        self.publisher.sock.close()
        self.follower.sock.close()

    def begin(self, seconds):
        self.ours.send(int(seconds * EVENTS_PER_SECOND))

    def result(self):
        """[answers, events], each sorted, in seconds; None until there is one."""
        if not self.ours.poll():
            return None
        got = self.ours.recv()
        if isinstance(got, str):
            raise RuntimeError(got)
        return got

    def end(self):
        self.ours.send(0)
        self.process.join(10)

    def _serve(self, pipe):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.disable()
        try:
            while True:
                count = pipe.recv()
                if count == 0:
                    return
                pipe.send(self._run(count))
                gc.collect()
        except (RuntimeError, OSError) as error:
            pipe.send(f"the bystander: {error}")

    def _run(self, count):
        answers, events, sent = [], [], 0
        socks = [self.publisher.sock, self.follower.sock]
        begins = time.monotonic() + 0.02
        data = publish(7, self.STREAM, b"x" * 100)
        while len(answers) < count or len(events) < count:
            now = time.monotonic()
            while sent < count and begins + sent / EVENTS_PER_SECOND <= now:
                self.publisher.sock.sendall(data)
                sent += 1
            wait = begins + sent / EVENTS_PER_SECOND - now if sent < count else 20
            ready = select.select(socks, [], [], max(wait, 0))[0]
            if not ready and sent == count:
                raise RuntimeError(f"{len(answers)} answers and {len(events)} events of {count}")
            now = time.monotonic()
            if socks[0] in ready:
                self.publisher.receive()
                for kind, _, body in self.publisher.frames():
                    for _ in range(published(body) if kind == PUBLISHED else 0):
                        answers.append(now - begins - len(answers) / EVENTS_PER_SECOND)
            if socks[1] in ready:
                self.follower.receive()
                for kind, _, body in self.follower.frames():
                    for _ in range(int.from_bytes(body[22:26], "big") if kind == DELIVER else 0):
                        events.append(now - begins - len(events) / EVENTS_PER_SECOND)
        self.follower.sock.sendall(frame(CREDIT, 0, struct.pack(">II", 1, count)))
        return [sorted(answers), sorted(events)]


# ---- the pressures ----


class Pressure:
    """What is the same in rounds with it and without: prepare(), during(). set() and unset() are
    around each round with it."""

    settings = ()

    def __init__(self, broker):
        self.broker = broker

    def prepare(self):
        pass

    def set(self):
        pass

    def unset(self):
        pass

    def during(self, on, elapsed):
        """Called every 10 ms of a round."""

    def note(self):
        return ""


class Stopped(Pressure):
    """The second I/O thread does not run. Its clients are not the others."""

    name = "stopped"
    SEIZE, INTERRUPT, DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000

    def prepare(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.libc.ptrace.restype = ctypes.c_long
        self.thread = self.broker.threads()[1]
        self.clients = [self.broker.client(1) for _ in range(10)]
        self.clients[0].ask(stream_create("other", MIB))
        for client in self.clients:
            client.ask(follow(Bystander.STREAM, 1, 100))

    def _ptrace(self, what):
        if self.libc.ptrace(what, self.thread, None, None) != 0:
            raise RuntimeError(f"ptrace: {os.strerror(ctypes.get_errno())}")

    def set(self):
        self._ptrace(self.SEIZE)
        self._ptrace(self.INTERRUPT)
        os.waitpid(self.thread, self.WALL)
        # None of these is answered before it runs again.
        for client in self.clients:
            client.sock.sendall(publish(9, "other", b"late"))

    def unset(self):
        for client in self.clients:
            client.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.receive()
            if any(kind == PUBLISHED for kind, _, _ in client.frames()):
                raise RuntimeError("a thread that is stopped has answered")
            client.sock.settimeout(60)
        self._ptrace(self.DETACH)
        for client in self.clients:
            client.answers(1)

    def ceiling(self):
        return 2 * 64 * MIB  # twice RELEASE_LAG_BYTES_MAX

    def note(self):
        return "one of two threads; releases that wait for it"


class Slow(Pressure):
    """Eight followers that do not read, on the second thread; their stream is filled in each
    round."""

    name = "slow"
    COUNT, EVENT, PER_SECOND = 8, 32768, 100

    def prepare(self):
        self.filler = self.broker.client(1)
        self.filler.ask(stream_create("big", 48 * MIB))
        self.data = publish(3, "big", bytes(self.EVENT))
        for _ in range(32 * MIB // self.EVENT // 16):
            self.filler.sock.sendall(self.data * 16)
            self.filler.answers(16)
        self.readers = []

    def set(self):
        for _ in range(self.COUNT):
            reader = self.broker.client(1, receive_bytes=4096)
            reader.sock.sendall(frame(REQUEST, 1, follow("big", 1, 1000000, newest=False)))
            self.readers.append(reader)

    def unset(self):
        for reader in self.readers:
            reader.sock.close()
        self.readers = []

    def during(self, on, elapsed):
        if elapsed == 0:
            self.filled = 0
        due = int(elapsed * self.PER_SECOND) - self.filled
        for _ in range(due):
            self.filler.sock.sendall(self.data)
        self.filled += max(due, 0)
        ready = select.poll()
        ready.register(self.filler.sock, select.POLLIN)
        if ready.poll(0):
            self.filler.receive()
            for _ in self.filler.frames():
                pass

    def ceiling(self):
        return OUTBOX_MIB * MIB + self.COUNT * (256 * 1024 + MIB)

    def note(self):
        return f"{self.COUNT} readers; outbox_mib {OUTBOX_MIB}"


class Half(Pressure):
    """Frames of 16 MiB of which a part was sent; each round has new connections, and they go on
    sending a little."""

    name = "half"
    COUNT = 10000

    def prepare(self):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.count = min(self.COUNT, limit - DESCRIPTORS_LEFT)
        self.socks, self.closed, self.at = [], 0, 0
        self.first = struct.pack(">I", 6 + 16 * MIB) + publish(1, "s", bytes(20000))[4:20000]

    def set(self):
        for _ in range(self.count // 100):
            some = []
            for _ in range(100):
                sock = self.broker.connect(send_bytes=16384)
                sock.sendall(HELLO_FRAME)
                some.append(sock)
            for sock in some:
                welcomed(sock)
                sock.setblocking(False)
            self.socks += some
        for sock in self.socks:
            self._send(sock, self.first)
        self.broker.rest()

    def _send(self, sock, data):
        try:
            sock.send(data)
        except BlockingIOError:
            pass
        except OSError:
            self.closed += 1

    def during(self, on, elapsed):
        if not on:
            return
        for _ in range(20):
            self.at = (self.at + 1) % len(self.socks)
            self._send(self.socks[self.at], bytes(4096))

    def unset(self):
        for sock in self.socks:
            sock.close()
        self.socks = []

    def ceiling(self):
        # Each may keep 16 KiB beyond input_mib, and is a connection; one of each thread may have a
        # whole frame, and twice that while it grows.
        return INPUT_MIB * MIB + self.count * (16384 + 8192) + THREADS * 2 * 17 * MIB

    def note(self):
        return f"{self.count} connections; input_mib {INPUT_MIB}"


class Subscriptions(Pressure):
    """100,352 subscriptions, half of one stream and half of one queue; both are deleted after a
    quarter of the round. Without: the same deletion, and no subscription."""

    name = "subs"
    CONNECTIONS, EACH = 98, 1024

    def prepare(self):
        self.control = self.broker.client(1)
        self.socks, self.deleted = [], False

    def _make(self):
        self.control.ask(stream_create("many", MIB))
        self.control.ask(queue_create("many"))
        self.deleted = False

    def set(self):
        self._make()
        half = self.EACH // 2
        requests = b"".join(
            frame(REQUEST, n, follow("many", n, 10) if n <= half else consume("many", n))
            for n in range(1, self.EACH + 1)
        )
        for _ in range(self.CONNECTIONS):
            client = self.broker.client()
            client.sock.sendall(requests)
            self.socks.append(client)
        for client in self.socks:
            left = self.EACH
            while left > 0:
                client.receive()
                for kind, _, body in client.frames():
                    if kind == REPLY and body.startswith(b"\x08"):
                        raise RuntimeError(f"a subscription was refused: {body[:200]!r}")
                    left -= kind == REPLY
        self.broker.rest()

    def during(self, on, elapsed):
        if elapsed == 0 and not on:
            self._make()
        if elapsed < 1 or self.deleted:
            return
        self.deleted = True
        for request in (field(12, field(1, "many")), field(22, field(1, "many"))):
            self.control.sock.sendall(frame(REQUEST, 1, request))

    def unset(self):
        for client in self.socks:
            client.sock.close()
        self.socks = []

    def ceiling(self):
        return self.CONNECTIONS * self.EACH * 1536

    def note(self):
        return f"{self.CONNECTIONS * self.EACH} on {self.CONNECTIONS} connections, deleted"


class Handshakes(Pressure):
    """Bursts of TLS handshakes from one address: every half second 200 peers send a ClientHello at
    once and nothing more. A peer needs no work for it; the broker signs with RSA."""

    name = "handshakes"
    COUNT = 200

    @classmethod
    def files(cls, folder):
        names = [os.path.join(folder, "tls.pem"), os.path.join(folder, "tls.key")]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
            + ["-subj", "/CN=127.0.0.1", "-out", names[0], "-keyout", names[1]],
            check=True,
            capture_output=True,
        )
        cls.settings = ("listen=tls:127.0.0.1:0", f"tls_cert={names[0]}", f"tls_key={names[1]}")

    def prepare(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        said = ssl.MemoryBIO()
        client = context.wrap_bio(ssl.MemoryBIO(), said)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        self.hello = said.read()
        self.port = self.broker.tls_port()
        self.socks, self.bursts = [], 0

    def set(self):
        self.bursts = 0

    def during(self, on, elapsed):
        if not on or elapsed < self.bursts * 0.5:
            return
        self.bursts += 1
        self.unset()
        for _ in range(self.COUNT):
            sock = socket.create_connection(("127.0.0.1", self.port))
            self.broker.accepted += 1
            self.socks.append(sock)
        for sock in self.socks:
            with contextlib.suppress(OSError):
                sock.send(self.hello)

    def unset(self):
        for sock in self.socks:
            sock.close()
        self.socks = []

    def ceiling(self):
        return 1000 * 128 * 1024  # HANDSHAKES_MAX

    def note(self):
        return f"{self.COUNT} ClientHello at once, every 0.5 s, from one address"


PRESSURES = [Stopped, Slow, Half, Subscriptions, Handshakes]


# ---- rounds ----


def quantile(times, part):
    return times[min(len(times) - 1, int(len(times) * part))]


class Rows:
    """Of one kind of round: the quantiles of each."""

    def __init__(self):
        self.p50, self.p99, self.most = [], [], []

    def add(self, times):
        self.p50.append(quantile(times, 0.5))
        self.p99.append(quantile(times, 0.99))
        self.most.append(times[-1])


def one_round(broker, bystander, pressure, on, seconds):
    """[answers, events] and the largest memory of the broker."""
    if on:
        pressure.set()
    else:
        broker.rest()
    most = broker.memory()
    bystander.begin(seconds)
    began, looked, elapsed = time.monotonic(), 0, 0
    while True:
        pressure.during(on, elapsed)
        result = bystander.result()
        if result is not None:
            break
        if elapsed - looked > 0.2:
            looked, most = elapsed, max(most, broker.memory())
        time.sleep(0.01)
        elapsed = time.monotonic() - began
        if elapsed > seconds + 90:
            raise RuntimeError("the bystander has no result")
    most = max(most, broker.memory())
    if on:
        pressure.unset()
    return result, most


def measure(kind, build, folder, rounds, seconds):
    broker = Broker(build, folder, *kind.settings)
    try:
        bystander = Bystander(broker)
        pressure = kind(broker)
        pressure.prepare()
        one_round(broker, bystander, pressure, False, 1)  # not counted
        broker.rest()
        base, grown = broker.memory(), 0
        rows = {False: (Rows(), Rows()), True: (Rows(), Rows())}
        for n in range(rounds):
            # Without, with, with, without: a machine that becomes slower harms neither more.
            for on in (False, True) if n % 2 == 0 else (True, False):
                result, most = one_round(broker, bystander, pressure, on, seconds)
                for of, times in zip(rows[on], result):
                    of.add(times)
                grown = max(grown, most - base) if on else grown
        bystander.end()
        return pressure, rows, base, grown
    finally:
        broker.end()


HEAD = (
    f"{'pressure':<11} {'of':<7} {'p50 ms':>15} {'p99 ms':>15} {'p99':>6} {'range of p99 ms':>24}"
    f" {'longest ms':>15}"
)


def pair(a, b):
    return f"{statistics.median(a) * 1e3:.2f} {statistics.median(b) * 1e3:.2f}"


def report(pressure, rows, base, grown):
    bad = []
    for at, of in enumerate(("answers", "events")):
        without, under = rows[False][at], rows[True][at]
        ratio = statistics.median(under.p99) / statistics.median(without.p99)
        if ratio > RATIO_MAX:
            bad.append(of)
        spread = " ".join(
            f"{min(each.p99) * 1e3:.2f}-{max(each.p99) * 1e3:.2f}" for each in (without, under)
        )
        print(
            f"{pressure.name:<11} {of:<7} {pair(without.p50, under.p50):>15}"
            f" {pair(without.p99, under.p99):>15} {ratio:>5.2f}x {spread:>24}"
            f" {pair(without.most, under.most):>15}"
        )
    ceiling = pressure.ceiling()
    print(
        (
            f"{'':<11} {pressure.note()}; memory {base // MIB} MiB, grown by {grown // MIB} of at"
            " most"
            f" {ceiling // MIB} MiB; p99 {'worse for ' + ', '.join(bad) if bad else 'within 10 %'}"
            f"{'; MEMORY ABOVE ITS BOUND' if grown > ceiling else ''}"
        ),
        flush=True,
    )


def main():
    names = [kind.name for kind in PRESSURES]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("build", help="the folder of a build")
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="with each pressure, and without")
    parser.add_argument("--seconds", type=float, default=3, help="of a round; at least 2")
    parser.add_argument("--dir", help="for the stores; the measurement depends on its disk")
    options = parser.parse_args()
    if options.dir is not None and not os.path.isdir(options.dir):
        parser.error(f"--dir {options.dir}: expected a directory that exists")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = tempfile.mkdtemp(prefix="sluice-pressure-", dir=options.dir)
    failed = 0
    print(
        (
            f"{EVENTS_PER_SECOND} events/s of 100 bytes for {options.seconds:g} s, {options.rounds}"
            f" rounds each; medians of the rounds, without and with the pressure\n{HEAD}"
        ),
        flush=True,
    )
    try:
        for kind in PRESSURES:
            if options.only and kind.name not in options.only:
                continue
            try:
                if hasattr(kind, "files"):
                    kind.files(folder)
                report(
                    *measure(kind, options.build, folder, options.rounds, max(options.seconds, 2))
                )
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                failed = 1
                print(f"{kind.name}: not measured: {error}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
