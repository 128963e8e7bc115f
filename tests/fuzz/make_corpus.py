#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seed corpus into DIR/<target>/: the byte vectors of the protocol, cut to the part that
each target reads, and some written here.

usage: make_corpus.py DIR"""
import contextlib
import pathlib
import ssl
import sys

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "data" / "protocol"
HEADER_BYTES = 10


def vector(name):
    lines = (VECTORS / (name + ".hex")).read_text().splitlines()
    return bytes.fromhex("".join(line.split("#")[0] for line in lines))


def parts(folder):
    """The parts of tests/data/FOLDER, in order: tests/unit/golden.h."""
    found = []
    for path in sorted((VECTORS.parent / folder).glob("*.hex")):
        for line in path.read_text().splitlines():
            if line.startswith(">"):
                found.append(b"")
            elif found:
                found[-1] += bytes.fromhex(line.split("#")[0])
    return found


def body(name):
    return vector(name)[HEADER_BYTES:]


def publish_as_batch(name):
    """u8 flags (1 zstd, 2 subject), u16 count, u32 raw bytes, payload: what fuzz_batch.c reads."""
    b = body(name)
    subject, target = int.from_bytes(b[48:50], "big"), int.from_bytes(b[50:52], "big")
    flags = b[2] | (2 if subject else 0)
    return bytes([flags]) + b[34:36] + b[44:48] + b[52 + subject + target :]


def command(number, payload):
    """u16 type, u8 version, u32 gateway, u64 session, u64 random, u32 body bytes, body."""
    return (
        number.to_bytes(2, "big") + b"\x01" + bytes(20) + len(payload).to_bytes(4, "big") + payload
    )


ENVELOPES = ["envelope_min", "envelope_full", "envelope_nil"]
PUBLISHES = ["publish", "publish_batch", "publish_zstd"]
# Which of fuzz_message.c's messages, and its bytes.
MESSAGES = [
    (0, "request"),
    (1, "hello"),
    (2, "reply"),
    (2, "reply_error"),
    (3, "welcome"),
    (4, "notice"),
]
REQUESTS = [
    "82050b2a090a073a050a01611200",  # txn with a publish with a header
    "a201050a030a0177",  # queue_create
    "a203100a0e0a016d12050a0153120012020a00",
    "e203040a026a31",
]
SUBJECTS = [
    "job.>\njob.4711.active",
    "*.b.*\na.b.c",
    "a\na",
    ">\nx",
    "a..b\n.",
    "a*.b\n\xc3\xa4.\xf0\x9f\x9a\xb0",
]


def record(kind, *pieces):
    return b"".join(bytes([kind, 3, 3]) + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def client_hello():
    sent = ssl.MemoryBIO()
    one = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="a.example")
    with contextlib.suppress(ssl.SSLWantReadError):
        one.do_handshake()
    return sent.read()


def hellos():
    """u8 encrypts, u8 size of the pieces, the bytes: what fuzz_hello.c reads."""
    message = b"\1\0\0\4" + b"abcd"
    encrypted = record(22, message) + record(20, b"\1") + record(22, b"\x09\xff\xff\xff\7")
    return [
        b"\0\x10" + client_hello(),
        b"\0\1" + record(22, message[:2], message[2:7], message[7:]),
        b"\0\4" + record(22, b"\1\0\x40\0", b"") + record(22, bytes(100)),
        b"\0\3" + record(22, b"\1\0\x40\1"),
        b"\0\5" + encrypted,
        b"\1\5" + encrypted,
        b"\0\2GET / HTTP/1.1\r\n",
    ]


def seeds():
    """target -> list of inputs. A new target with generated seeds needs a line here."""
    deliver = body("deliver_jobs")
    return {
        "ack": [
            body(n)
            for n in (
                "ack",
                "ack_nack",
                "ack_extend",
                "ack_reject",
                "ack_renew",
                "acked",
                "acked_error",
                "credit",
            )
        ],
        "batch": [publish_as_batch(n) for n in PUBLISHES],
        "command": (
            [command(62, body(n)) for n in PUBLISHES]
            + [command(71, bytes(14) + bytes([1]) + bytes(12))]
            + [command(80, b"\x0a\x02j1\x12\x04runs")]
            + [head + body for head, body in zip(parts("commands")[::2], parts("commands")[1::2])]
        ),
        "deliver": [body(n) for n in ("deliver_events", "deliver_items", "deliver_jobs")],
        "envelope": (
            [vector(n) for n in ENVELOPES]
            + [b"".join(vector(n) for n in ENVELOPES)]
            + [bytes(range(7)) + b"\x07\x09\x01k\x02id\x01s\x01h\x00\x02vvbody"]
        ),
        "hello": hellos(),
        "message": (
            [bytes([which]) + body(n) for which, n in MESSAGES]
            + [b"\0" + bytes.fromhex(r) for r in REQUESTS]
            + [b"\5" + deliver[52:]]
        ),
        "publish": [vector(n) for n in PUBLISHES],
        "published": [body("published"), body("published_duplicate")],
        "record": [bytes(28) + b"body", bytes(29) + b"\0\x08\0\x01" + b"\x01", bytes(90)] + parts(
            "records"
        ),
        # A reason in Latin-1; a report whose evidence is cut inside a character; a client that is
        # no text.
        "reply": [
            b"\0\0\5caf\xe9 ",
            b"\1\0\x15" + (82).to_bytes(2, "big") + b"\x0a\x03job\x10\x01\x22\x06FAILED:\x02a\xe2",
            b"\2\0\3\xff\0\x1b" + b"\0\0\2\xe2\x82",
        ],
        "text": [
            b"0listen=127.0.0.1:1",
            b"0map_mib=99",
            b"1lifecycle m\nstate A -> B\nterminal B\ncancelled B\nfailed B\n",
            b'2{"argv":["a"],"env":{"A":"b"},"cwd":"/"}',
        ],
        "subject": [s.encode("latin-1") for s in SUBJECTS],
    }


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for target, inputs in seeds().items():
        folder = pathlib.Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for i, data in enumerate(inputs):
            (folder / f"seed-{i:02}").write_bytes(data)


if __name__ == "__main__":
    main()
