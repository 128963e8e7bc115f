#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""libsluice's publishing, against a broker that the test imitates: the test decides what is
refused, applied and lost."""
import os
import socket
import struct
import sys

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import Connection, pb  # noqa: E402

BUSY, PRODUCER_EVICTED = -23, -19


class Client(Connection):
    """The broker's end of a connection."""

    def __init__(self, listener):
        listener.settimeout(client.SECONDS)
        self.sock, _ = listener.accept()
        self.buffer, self.kept, self.correlation, self.seq = bytearray(), [], 0, 0

    def welcome_it(self, resumed=False):
        self.wait(client.HELLO)
        self.send(
            client.WELCOME,
            pb.Welcome(
                version=1,
                server="played",
                session_id=7,
                session_secret=b"0" * 16,
                resumed=resumed,
                heartbeat_ms=10000,
            ).SerializeToString(),
        )

    def published(self):
        """The next PUBLISH: correlation, first sequence number, and the bytes behind the fixed
        fields."""
        one = self.wait(client.PUBLISH)
        return one.correlation, struct.unpack_from(">BBBBQIQ", one.body)[6], one.body[42:]

    def answer(self, correlation, code, first_seq, flags=0):
        self.send(
            client.PUBLISHED,
            struct.pack(">HiQIQQBH", 1, code, first_seq, 1, 1, first_seq - 1, flags, 0),
            correlation,
        )


def test_a_batch_that_was_refused_and_then_lost_its_answer_keeps_its_numbers():
    listener = socket.create_server(("127.0.0.1", 0))
    process = tap.Process(
        [tap.program("tests/integration/publish_probe"), f"127.0.0.1:{listener.getsockname()[1]}"]
    )
    try:
        one = Client(listener)
        one.welcome_it()
        request = one.wait(client.REQUEST)
        one.send(
            client.REPLY,
            pb.Reply(
                producer_opened=pb.ProducerOpened(producer=5, epoch=1, last_seq=0)
            ).SerializeToString(),
            request.correlation,
        )
        correlation, seq, body = one.published()
        tap.check(seq == 1 and b"first" in body, "the first message has number 1")
        one.answer(correlation, BUSY, seq)
        correlation, seq, body = one.published()
        tap.check(
            seq == 1 and b"first" in body, "temporarily refused, it comes again with its number"
        )
        # It is applied, but the answer is lost, and the client can connect again only after the
        # message's deadline.
        one.close()
        one = Client(listener)
        tap.wait_until(lambda: b"first " in process.text(), 30, "the first message ends")
        tap.equal(
            process.text(),
            b"first UNKNOWN\n",
            "as unknown: it may be applied, the refusal was of an earlier try",
        )
        one.welcome_it(resumed=True)
        correlation, seq, body = one.published()
        tap.check(
            seq == 1 and b"first" in body,
            "it is still settled under its number, which no other message gets",
        )
        one.answer(correlation, 0, seq, flags=1)
        correlation, seq, body = one.published()
        tap.check(seq == 2 and b"second" in body, "the next message has the next number")
        one.answer(correlation, 0, seq)
        tap.wait_until(
            lambda: b"second OK\n" in process.text(), 30, f"and is acknowledged: {process.tail()}"
        )
        tap.equal(process.wait(30), 0, "the probe's exit code")
    finally:
        process.kill()


def opening(one, **reply):
    """The next request, which opens a producer; answered. Its message."""
    request = one.wait(client.REQUEST)
    asked = pb.Request.FromString(request.body)
    tap.equal(asked.WhichOneof("op"), "producer_open", "the request")
    one.send(
        client.REPLY,
        pb.Reply(producer_opened=pb.ProducerOpened(**reply)).SerializeToString(),
        request.correlation,
    )
    return asked.producer_open


def test_a_client_that_lost_its_session_takes_its_producers_with_it():
    """The numbers belong to the session that opened the producers; messages in flight are still
    settled under the same numbers."""
    listener = socket.create_server(("127.0.0.1", 0))
    process = tap.Process(
        [tap.program("tests/integration/lost_probe"), f"127.0.0.1:{listener.getsockname()[1]}"]
    )
    try:
        one = Client(listener)
        one.welcome_it()
        asked = opening(one, producer=5, epoch=1, last_seq=0, secret=77)
        tap.equal(
            (asked.name, asked.expect_producer, asked.secret), ("", 0, 0), "a producer of its own"
        )
        tap.equal(one.published()[1], 1, "the message")
        one.close()
        one = Client(listener)
        one.welcome_it(resumed=False)
        asked = opening(one, producer=5, epoch=2, last_seq=1, secret=77)
        tap.equal((asked.expect_producer, asked.secret), (5, 77), "the same producer again")
        again = one.wait(client.PUBLISH)
        producer, epoch, seq = struct.unpack_from(">BBBBQIQ", again.body)[4:]
        tap.equal(
            (producer, epoch, seq), (5, 2, 1), "sent again under its number, in the new epoch"
        )
        one.answer(again.correlation, 0, 1, flags=1)
        asked = opening(one, producer=6, epoch=1, last_seq=0, secret=88)
        request = one.wait(client.REQUEST)
        txn = pb.Request.FromString(request.body).txn
        tap.equal((txn.producer, txn.epoch, txn.seq), (6, 1, 1), "the transaction")
        one.close()
        one = Client(listener)
        one.welcome_it(resumed=False)
        asked = opening(one, producer=6, epoch=2, last_seq=1, secret=88)
        tap.equal((asked.expect_producer, asked.secret), (6, 88), "its producer, too")
        request = one.wait(client.REQUEST)
        txn = pb.Request.FromString(request.body).txn
        tap.equal((txn.producer, txn.epoch, txn.seq), (6, 2, 1), "under the same number")
        one.send(
            client.REPLY,
            pb.Reply(txn_done=pb.TxnDone(duplicate=True)).SerializeToString(),
            request.correlation,
        )
        # Nothing is in flight, and the broker has forgotten the producer meanwhile: another one is
        # opened.
        one.close()
        one = Client(listener)
        one.welcome_it(resumed=False)
        request = one.wait(client.REQUEST)
        tap.equal(
            pb.Request.FromString(request.body).producer_open.expect_producer,
            5,
            "asks for the same",
        )
        one.send(
            client.REPLY, pb.Reply(code=PRODUCER_EVICTED).SerializeToString(), request.correlation
        )
        asked = opening(one, producer=9, epoch=1, last_seq=0, secret=99)
        tap.equal(asked.expect_producer, 0, "then for any")
        correlation, seq, _ = one.published()
        tap.equal(seq, 1, "whose numbers begin anew")
        one.answer(correlation, 0, seq)
        tap.equal(process.wait(60), 0, "the probe's exit code")
        tap.equal(process.text(), b"publish OK\ntransaction OK\npublish OK\n", "each ended well")
    finally:
        process.kill()


def many_as_one(mode):
    """batch_probe.c against a broker of its own."""

    def test():
        with tap.Broker() as broker:
            process = tap.Process(
                [tap.program("tests/integration/batch_probe"), broker.address, mode]
            )
            tap.equal(process.wait(100), 0, f"the header holds: {process.tail(100)}")
            tap.check(
                not tap.SANITIZER_REPORT.search(process.text()),
                f"no sanitizer reports: {process.tail(200)}",
            )

    return test


test_many_messages_are_one_with_a_thread = many_as_one("own-thread")
test_many_messages_are_one_in_the_callers_loop = many_as_one("caller-loop")

tap.main(globals())
