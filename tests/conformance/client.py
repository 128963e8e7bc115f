# SPDX-License-Identifier: Apache-2.0
"""A second client, written from protocol/SPEC.md and protocol/sluice.proto alone; blocking, one
thread.

It shares no code with the broker or libsluice: a disagreement is a fault of one of them or of
SPEC.md. protoc makes the protobuf module in a temporary directory each time. Every read has
a deadline (SECONDS); frames that no call has waited for are kept in order in Connection.kept, where
a test may search for them later.
"""
import atexit
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

import msgpack
import zstandard

SECONDS = 30
NONE = 2**64 - 1
HELLO, REQUEST, PUBLISH, ACK, CREDIT, PING, GOODBYE = range(1, 8)
WELCOME, REPLY, PUBLISHED, DELIVER, NOTICE, PONG, ERROR, ACKED = range(65, 73)
TO_SUBJECT, TO_QUEUE, TO_STREAM = range(3)
DONE, NACK, EXTEND, REJECT, RENEW = range(5)
RELEASE, BEGUN = 5, 6
GIVE_BACK = RELEASE  # release: no attempt is counted

Frame = namedtuple("Frame", "type correlation body")
Answer = namedtuple("Answer", "code first_seq count index offset flags text")
Acked = namedtuple("Acked", "code index affected text")
Event = namedtuple("Event", "number time_ms body key id headers subject priority attempts")
Deliver = namedtuple("Deliver", "subscription kind codec base token lease_ms numbers events jobs")


def load_proto():
    """Makes sluice_pb2 with protoc from the repository's sluice.proto; returns the module."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "protocol")
    made = tempfile.mkdtemp(prefix="sluice-proto-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    subprocess.run(
        ["protoc", f"--proto_path={source}", f"--python_out={made}", "sluice.proto"], check=True
    )
    sys.path.insert(0, made)
    import sluice_pb2

    return sluice_pb2


pb = load_proto()


class Closed(Exception):
    """The broker closed the connection; .failure is the Failure of its ERROR frame, or None."""

    def __init__(self, failure=None):
        super().__init__(
            f"closed: {failure.code} {failure.text}" if failure else "closed without a frame"
        )
        self.failure = failure


class Refused(Exception):
    """A code other than 0; .reply is the whole Reply."""

    def __init__(self, reply):
        super().__init__(f"{reply.code}: {reply.text}")
        self.reply = reply
        self.code = reply.code


def envelope(body, key=None, id=None, headers=None, subject=None, priority=None, delta=0):
    """Section 5: trailing empty elements are omitted."""
    row = [delta, body, key, id, headers, subject, priority]
    while len(row) > 2 and row[-1] is None:
        row.pop()
    return msgpack.packb(row, use_bin_type=True)


def frame(kind, body=b"", correlation=0, flags=0):
    return struct.pack(">IBBI", 6 + len(body), kind, flags, correlation) + body


def publish_body(
    envelopes,
    subject="",
    target=TO_SUBJECT,
    name="",
    producer=0,
    epoch=0,
    seq=0,
    settled=0,
    zstd=False,
    mandatory=False,
    relaxed=False,
    time_ms=0,
    count=None,
):
    payload = b"".join(envelopes)
    raw_bytes = len(payload)
    if zstd:
        payload = zstandard.ZstdCompressor().compress(payload)
    subject, name = subject.encode(), name.encode()
    return (
        struct.pack(
            ">BBBBQIQQIQIHH",
            target,
            relaxed,
            zstd,
            mandatory,
            producer,
            epoch,
            seq,
            settled,
            len(envelopes) if count is None else count,
            time_ms,
            raw_bytes,
            len(subject),
            len(name),
        )
        + subject
        + name
        + payload
    )


def ack_body(subscription, token, runs, operation=DONE, value_ms=0, reason=b""):
    head = struct.pack(">IBQIHH", subscription, operation, token, value_ms, len(reason), len(runs))
    return head + b"".join(struct.pack(">QI", first, count) for first, count in runs) + reason


def parse_published(body):
    (answers,), at, rows = struct.unpack_from(">H", body), 2, []
    for _ in range(answers):
        *fixed, length = struct.unpack_from(">iQIQQBH", body, at)
        at += 35
        rows.append(Answer(*fixed, body[at : at + length].decode()))
        at += length
    assert at == len(body), "PUBLISHED has bytes after its last answer"
    return rows


def parse_acked(body):
    code, index, affected, length = struct.unpack_from(">iQIH", body)
    assert len(body) == 18 + length, "ACKED has the length in its head"
    return Acked(code, index, affected, body[18:].decode())


def parse_deliver(body):
    sub, kind, codec, base, token, count, lease_ms, time_ms, raw_bytes, runs, length = (
        struct.unpack_from(">IBBQQIIQIHH", body)
    )
    at, numbers = 46, []
    for _ in range(runs):
        first, many = struct.unpack_from(">QI", body, at)
        at += 12
        numbers += range(first, first + many)
    subject, payload = body[at : at + length].decode(), body[at + length :]
    if codec == 1:
        payload = zstandard.ZstdDecompressor().decompress(payload)
    assert len(payload) == raw_bytes, "raw_bytes is the payload's length"
    if kind == 2:
        jobs = list(pb.JobDeliveries.FromString(payload).jobs)
        assert len(jobs) == count, "count is the number of jobs"
        return Deliver(sub, kind, codec, base, token, lease_ms, [], [], jobs)
    if not numbers:
        numbers = list(range(base, base + count))
    assert len(numbers) == count, "count is the number of items in the runs"
    events = list(parse_events(payload, kind, numbers, time_ms, subject))
    return Deliver(sub, kind, codec, base, token, lease_ms, numbers, events, [])


def parse_events(payload, kind, numbers, time_ms, subject):
    at = 0
    for number in numbers:
        attempts = 0
        if kind == 1:
            attempts, time_ms = struct.unpack_from(">HQ", payload, at)
            at += 10
        reader = msgpack.Unpacker(raw=False, max_buffer_size=0)
        reader.feed(payload[at:])
        row = reader.unpack()
        at += reader.tell()
        row += [None] * (7 - len(row))
        yield Event(
            number,
            time_ms + row[0],
            row[1],
            row[2],
            row[3],
            row[4] or {},
            row[5] or subject,
            row[6] or 0,
            attempts,
        )
    assert at == len(payload), "the payload ends with its last envelope"


class Connection:
    """One connection; opened with HELLO unless hello=False. Keyword arguments are fields of
    Hello."""

    def __init__(self, port, hello=True, **fields):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.kept = []
        self.correlation = 0
        self.seq = 0
        if hello:
            self.welcome = self.hello(**fields)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def hello(self, **fields):
        self.send(
            HELLO,
            pb.Hello(
                **{
                    "version_min": 1,
                    "version_max": 1,
                    "client": "conformance",
                    "features": ["zstd"],
                    **fields,
                }
            ).SerializeToString(),
        )
        return pb.Welcome.FromString(self.wait(WELCOME).body)

    def next_correlation(self):
        self.correlation += 1
        return self.correlation

    def send(self, kind, body=b"", correlation=0, flags=0):
        self.sock.sendall(frame(kind, body, correlation, flags))

    def read(self, seconds=SECONDS):
        """The next frame from the socket; TimeoutError at the deadline, Closed at its end
        or ERROR."""
        deadline = time.monotonic() + seconds
        while True:
            if len(self.buffer) >= 4:
                length = struct.unpack_from(">I", self.buffer)[0]
                if len(self.buffer) >= 4 + length:
                    kind, flags, correlation = struct.unpack_from(">BBI", self.buffer, 4)
                    body = bytes(self.buffer[10 : 4 + length])
                    del self.buffer[: 4 + length]
                    assert flags == 0, "flags are 0 in version 1"
                    if kind == ERROR:
                        raise Closed(pb.Failure.FromString(body))
                    return Frame(kind, correlation, body)
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no frame before the deadline")
            self.sock.settimeout(left)
            try:
                got = self.sock.recv(1 << 18)
            except ConnectionError:
                got = b""
            if not got:
                raise Closed()
            self.buffer += got

    def wait(self, kind, correlation=None, want=lambda frame: True, seconds=SECONDS):
        """The first frame of that type (and correlation, and predicate), kept or new; keeps the
        others."""

        def fits(one):
            return one.type == kind and correlation in (None, one.correlation) and want(one)

        for at, one in enumerate(self.kept):
            if fits(one):
                return self.kept.pop(at)
        deadline = time.monotonic() + seconds
        while True:
            one = self.read(max(0, deadline - time.monotonic()))
            if fits(one):
                return one
            self.kept.append(one)

    def ask(self, op, message=None, **fields):
        """Sends a request and returns its correlation."""
        request = pb.Request()
        slot = getattr(request, op)
        slot.SetInParent()
        slot.MergeFrom(message if message is not None else type(slot)(**fields))
        correlation = self.next_correlation()
        self.send(REQUEST, request.SerializeToString(), correlation)
        return correlation

    def reply(self, correlation, seconds=SECONDS):
        return pb.Reply.FromString(self.wait(REPLY, correlation, seconds=seconds).body)

    def try_call(self, op, message=None, **fields):
        return self.reply(self.ask(op, message, **fields))

    def call(self, op, message=None, **fields):
        reply = self.try_call(op, message, **fields)
        if reply.code:
            raise Refused(reply)
        return reply

    def publish(self, envelopes, subject="", **how):
        """One PUBLISH without producer, or with one (producer, epoch, seq); returns its Answer."""
        correlation = self.next_correlation()
        self.send(PUBLISH, publish_body(envelopes, subject, **how), correlation)
        if not how.get("producer"):
            return parse_published(self.wait(PUBLISHED, correlation).body)[0]
        seq = how["seq"]
        got = self.wait(
            PUBLISHED, want=lambda one: any(a.first_seq == seq for a in parse_published(one.body))
        )
        return next(a for a in parse_published(got.body) if a.first_seq == seq)

    def deliver(self, subscription, seconds=SECONDS):
        return parse_deliver(
            self.wait(
                DELIVER,
                want=lambda one: one.body[:4] == struct.pack(">I", subscription),
                seconds=seconds,
            ).body
        )

    def notice(self, kind, seconds=SECONDS):
        number = pb.NoticeKind.Value("NOTICE_" + kind)
        return pb.Notice.FromString(
            self.wait(
                NOTICE,
                want=lambda one: pb.Notice.FromString(one.body).kind == number,
                seconds=seconds,
            ).body
        )

    def events(self, subscription, count):
        """The next `count` events of a subscription, from one or more DELIVER frames."""
        got = []
        while len(got) < count:
            got += self.deliver(subscription).events
        assert len(got) == count, f"{len(got)} events instead of {count}"
        return got

    def ack(self, subscription, token, runs, operation=DONE, value_ms=0, reason=b""):
        correlation = self.next_correlation()
        self.send(
            ACK, ack_body(subscription, token, runs, operation, value_ms, reason), correlation
        )
        return parse_acked(self.wait(ACKED, correlation).body)

    def credit(self, subscription, more):
        self.send(CREDIT, struct.pack(">II", subscription, more))

    def ping(self, seconds=SECONDS):
        """When it returns, the broker has handled all frames sent before."""
        correlation = self.next_correlation()
        self.send(PING, b"", correlation)
        self.wait(PONG, correlation, seconds=seconds)
