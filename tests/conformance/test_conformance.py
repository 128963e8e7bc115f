# SPDX-License-Identifier: Apache-2.0
"""Tests the promises of protocol/SPEC.md on a running broker, with the client of this folder.
Section numbers are SPEC.md's."""
import os
import re
import struct
import time

import tap
import client
from client import (
    Connection,
    Closed,
    Refused,
    ack_body,
    envelope,
    frame,
    parse_published,
    pb,
    publish_body,
)


def status_codes():
    """Name to number, from the table of section 14."""
    page = os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "..", "protocol", "SPEC.md"
    )
    with open(page, encoding="utf-8") as file:
        rows = re.findall(r"^\| (-?\d+) \| ([A-Z_]+) \|", file.read(), re.M)
    return {name: int(number) for number, name in rows}


CODE = status_codes()


def refused(code, call, what):
    """Fails unless call() is refused with the code of that name and a text; returns the reply."""
    error = tap.raises(Refused, call, what)
    tap.equal(error.code, CODE[code], f"code: {what} ({error})")
    tap.check(error.reply.text, f"the refusal has a text: {what}")
    return error.reply


def closed(code, connection, what):
    """Fails unless the broker sends ERROR with that code and closes."""

    def read_to_end():
        while True:
            connection.read()

    error = tap.raises(Closed, read_to_end, what)
    tap.check(error.failure is not None, f"ERROR is sent before the close: {what}")
    tap.equal(error.failure.code, CODE[code], f"code: {what} ({error})")
    tap.check(error.failure.text, f"ERROR has a text: {what}")
    connection.close()


def stream(connection, name="s", subjects=("s.>",)):
    connection.call(
        "stream_create", pb.StreamCreate(config=pb.StreamConfig(name=name, subjects=subjects))
    )


def queue(connection, name="q", **config):
    connection.call("queue_create", pb.QueueCreate(config=pb.QueueConfig(name=name, **config)))


def put(connection, bodies, name="q"):
    answer = connection.publish(
        [envelope(body) for body in bodies], "put", target=client.TO_QUEUE, name=name
    )
    tap.equal(answer.code, 0, f"put: {answer.text}")
    return answer


def consume(connection, name="q", credit=10, subscription=1, **how):
    return connection.call(
        "consume_open", queue=name, credit=credit, subscription=subscription, **how
    ).consume_opened


# ---- 1, 2: bytes and a connection's life
# ------------------------------------------------------------------


def test_hello_is_welcomed():
    with tap.Broker() as broker, Connection(broker.port) as one:
        welcome = one.welcome
        tap.equal(welcome.version, 1, "version")
        tap.equal(list(welcome.features), ["zstd"], "features of both")
        tap.check(welcome.session_id != 0, "a session has a number")
        tap.equal(len(welcome.session_secret), 16, "bytes of the secret")
        tap.equal(welcome.resumed, False, "a new session is not resumed")
        tap.equal(welcome.session_timeout_ms, 30000, "default timeout")
        tap.equal(welcome.heartbeat_ms, 10000, "a third of the timeout")
        tap.check(abs(welcome.wall_time_ms / 1000 - time.time()) < 60, "the broker's clock")
        one.ping()
        with Connection(broker.port, features=["zstd", "of-the-future"]) as other:
            tap.equal(list(other.welcome.features), ["zstd"], "an unknown feature is not used")
        with Connection(broker.port, features=["reject-renew"]) as other:
            tap.equal(list(other.welcome.features), ["reject-renew"], "and this one is")
        with Connection(broker.port, version_max=9) as newer:
            tap.equal(newer.welcome.version, 1, "the highest version that both speak")


def test_hello_is_refused():
    with tap.Broker() as broker:
        for code, fields in (
            ("VERSION", {"version_min": 2, "version_max": 3}),
            ("NOT_FOUND", {"gateway": "nowhere"}),
            ("LIMIT", {"client": "x" * 1025}),
            ("LIMIT", {"session_name": "x" * 256}),
        ):
            one = Connection(broker.port, hello=False)
            one.send(
                client.HELLO,
                pb.Hello(**{"version_min": 1, "version_max": 1, **fields}).SerializeToString(),
            )
            closed(code, one, f"HELLO with {list(fields)}")


def test_frames_before_the_welcome():
    with tap.Broker() as broker:
        early = Connection(broker.port, hello=False)
        early.sock.sendall(
            frame(client.HELLO, pb.Hello(version_min=1, version_max=1).SerializeToString())
            + frame(client.PING, b"", 5)
        )
        tap.equal(
            [early.read().type, early.read().type],
            [client.WELCOME, client.PONG],
            "frames sent after HELLO wait for its answer",
        )
        early.close()
        for kind in (client.PING, client.REQUEST, client.PUBLISH, 99):
            first = Connection(broker.port, hello=False)
            first.send(kind, b"", 1)
            closed("PROTOCOL", first, f"type {kind} before HELLO")
        big = Connection(broker.port, hello=False)
        big.sock.sendall(struct.pack(">IBBI", 65537, client.HELLO, 0, 0))
        closed("LIMIT", big, "a first frame that is too long")


def test_invalid_frames_close_their_connection_and_no_other():
    with tap.Broker() as broker, Connection(broker.port) as witness:
        stream(witness)
        tap.equal(witness.publish([envelope(b"kept")], "s.a").code, 0, "publish")
        hello = pb.Hello(version_min=1, version_max=1).SerializeToString()
        good = publish_body([envelope(b"x")], "s.a")
        status = pb.Request(status_get=pb.StatusGet()).SerializeToString()
        cases = [
            ("PROTOCOL", struct.pack(">I", 5) + b"\x06" * 6, "a length below 6"),
            ("PROTOCOL", frame(client.PING, b"", 1, flags=1), "flags"),
            (
                "LIMIT",
                struct.pack(">IBBI", 17825793, client.PUBLISH, 0, 1),
                "a frame that is too long",
            ),
            ("PROTOCOL", frame(client.HELLO, hello), "HELLO twice"),
            ("PROTOCOL", frame(client.REQUEST, status, 0), "REQUEST with correlation 0"),
            ("PROTOCOL", frame(client.PUBLISH, good[:20], 1), "a truncated PUBLISH"),
            ("PROTOCOL", frame(client.PUBLISH, b"\x09" + good[1:], 1), "an impossible target kind"),
            (
                "PROTOCOL",
                frame(client.PUBLISH, good[:3] + b"\x80" + good[4:], 1),
                "unknown PUBLISH flags",
            ),
            ("PROTOCOL", frame(client.CREDIT, b"\0\0\0", 0), "a truncated CREDIT"),
            ("PROTOCOL", frame(client.ACK, ack_body(1, 1, [(1, 1)])[:-1], 3), "a truncated ACK"),
            (
                "PROTOCOL",
                frame(client.ACK, ack_body(1, 1, [(1, 1)], operation=7), 3),
                "an impossible operation",
            ),
        ]
        for code, data, what in cases:
            one = Connection(broker.port)
            one.sock.sendall(data)
            closed(code, one, what)
        cut = Connection(broker.port)
        cut.sock.sendall(frame(client.PUBLISH, good, 1)[:-1])
        cut.close()
        tap.equal(
            witness.call("stream_show", name="s").streams[0].events,
            1,
            "events: none lost, none added",
        )


def test_refusals_of_one_frame_leave_the_connection():
    with tap.Broker() as broker, Connection(broker.port) as one:
        stream(one)
        one.send(50, b"anything", 77)
        tap.equal(one.reply(77).code, CODE["UNKNOWN_TYPE"], "an unknown frame type")
        one.send(client.REQUEST, b"", 78)
        tap.check(one.reply(78).code < 0, "a request without operation")
        one.send(client.REQUEST, b"\xff\xff\xff", 79)
        tap.equal(one.reply(79).code, CODE["PROTOCOL"], "a request that is no protobuf")
        one.send(client.REQUEST, b"\xa2\x3f\x00", 80)
        tap.equal(one.reply(80).code, CODE["UNKNOWN_TYPE"], "an operation of the future")
        bad = [
            b"\x91\x00",
            b"\xc1",
            b"\x93\x00\xc4\x00\xc0",
            b"\x92\xcc\x01\xc4\x00",
            b"\x92\x00\xa1a",
            b"\x92\x00\xc4\x05ab",
        ]
        for data in bad:
            tap.equal(one.publish([data], "s.a").code, CODE["PROTOCOL"], f"envelope {data.hex()}")
        tap.equal(
            one.publish([envelope(b"x")], "s.a", count=2).code,
            CODE["PROTOCOL"],
            "fewer events than its count",
        )
        tap.equal(
            one.publish([envelope(b"x")] * 2, "s.a", count=1).code,
            CODE["PROTOCOL"],
            "more events than its count",
        )
        tap.equal(
            one.publish([envelope(b"x", subject="s.b")], "s.a").code,
            CODE["PROTOCOL"],
            "two subjects",
        )
        tap.equal(one.publish([envelope(b"x")]).code, CODE["INVAL"], "no subject")
        for subject in ("s..a", ".", "s.*", "s.>", "a b"):
            tap.check(
                one.publish([envelope(b"x")], subject).code < 0, f"subject {subject!r} is refused"
            )
        tap.equal(
            one.publish([envelope(b"x" * 256)], "s.a", zstd=True).code,
            0,
            "the connection still works",
        )
        tap.equal(
            one.call("stream_show", name="s").streams[0].events, 1, "only the good one is stored"
        )


# ---- 3: sessions
# -------------------------------------------------------------------------------------------


def test_a_session_is_resumed_with_what_it_holds():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        queue(one)
        put(one, [b"a", b"b", b"c"])
        consume(one, credit=2)
        held = one.deliver(1)
        tap.equal([e.body for e in held.events], [b"a", b"b"], "two by credit")
        again = Connection(
            broker.port,
            session_id=one.welcome.session_id,
            session_secret=one.welcome.session_secret,
        )
        tap.equal(
            (again.welcome.resumed, again.welcome.session_id),
            (True, one.welcome.session_id),
            "resumed",
        )
        tap.raises(Closed, lambda: one.read(), "the older connection is closed")
        consume(again, credit=10, subscription=4, resume=True)
        redelivered = again.deliver(4)
        tap.equal(
            (redelivered.token, redelivered.numbers),
            (held.token, held.numbers),
            "the same grant again",
        )
        tap.equal([e.body for e in again.deliver(4).events], [b"c"], "then new items")
        tap.equal(
            again.ack(4, held.token, [(held.numbers[0], 2)]).affected,
            2,
            "acked under the old token",
        )
        wrong = Connection(
            broker.port, session_id=one.welcome.session_id, session_secret=b"\0" * 16
        )
        tap.equal(wrong.welcome.resumed, False, "a wrong secret opens a new session")
        tap.check(wrong.welcome.session_id != one.welcome.session_id, "with another number")
        again.ping()


def test_a_session_survives_a_kill_of_the_broker():
    broker = tap.Broker()
    try:
        one = Connection(broker.port)
        queue(one)
        put(one, [b"a"])
        consume(one)
        held = one.deliver(1)
        broker.kill()
        with tap.Broker(data=broker.data) as second:
            again = Connection(
                second.port,
                session_id=one.welcome.session_id,
                session_secret=one.welcome.session_secret,
            )
            tap.equal(again.welcome.resumed, True, "resumed")
            consume(again, resume=True)
            tap.equal(again.deliver(1).token, held.token, "the token of the grant")
            tap.equal(again.ack(1, held.token, [(held.numbers[0], 1)]).code, 0, "ack")
    finally:
        broker.remove()


def test_a_session_name_is_taken_over_and_a_session_is_closed():
    with tap.Broker() as broker:
        old = Connection(broker.port, session_name="worker")
        new = Connection(broker.port, session_name="worker")
        closed("SESSION_GONE", old, "the older holder of the name")
        new.ask("session_close")
        closed("SESSION_GONE", new, "after session_close")
        back = Connection(
            broker.port,
            session_id=new.welcome.session_id,
            session_secret=new.welcome.session_secret,
        )
        tap.equal(back.welcome.resumed, False, "a closed session is not resumed")
        for asked, got in ((1, 1000), (5000, 5000), (2**32 - 1, 86400000)):
            with Connection(broker.port, session_timeout_ms=asked) as other:
                tap.equal(other.welcome.session_timeout_ms, got, f"timeout {asked}")


def pipeline(connection, parts):
    """Sends requests (op, fields) and bodies of PUBLISH in one write; returns their
    correlations."""
    frames, correlations = b"", []
    for part in parts:
        correlation = connection.next_correlation()
        if isinstance(part, bytes):
            frames += frame(client.PUBLISH, part, correlation)
        else:
            op, fields = part
            request = pb.Request()
            getattr(request, op).MergeFrom(type(getattr(request, op))(**fields))
            frames += frame(client.REQUEST, request.SerializeToString(), correlation)
        correlations.append(correlation)
    connection.sock.sendall(frames)
    return correlations


def test_a_purge_behind_publishes_of_its_connection():
    """Section 12. With LANE_DATA a create and a purge keep their places among the publishes."""
    rounds, before, after = 40, 3, 2
    with tap.Broker() as broker:
        with Connection(broker.port, lane=pb.LANE_DATA, features=["lane"]) as one:
            tap.equal(list(one.welcome.features), ["lane"], "features of both")
            for n in range(rounds):
                name = f"q{n}"
                put = publish_body([envelope(b"x")], "put", target=client.TO_QUEUE, name=name)
                sent = pipeline(
                    one,
                    [("queue_create", {"config": pb.QueueConfig(name=name)})]
                    + [put] * before
                    + [("queue_purge", {"name": name})]
                    + [put] * after,
                )
                tap.equal(one.reply(sent[0]).code, 0, "create")
                for number in sent[1 : 1 + before] + sent[2 + before :]:
                    answer = parse_published(one.wait(client.PUBLISHED, number).body)[0]
                    tap.equal(answer.code, 0, f"a publish behind the create: {answer.text}")
                purged = one.reply(sent[1 + before])
                tap.equal((purged.code, purged.affected), (0, before), "what was before it")
                info = one.call("queue_show", name=name).queues[0]
                tap.equal(info.ready, after, "what came behind it stays")
        other = Connection(broker.port, hello=False)
        other.send(client.HELLO, pb.Hello(version_min=1, version_max=1, lane=7).SerializeToString())
        closed("INVAL", other, "a lane that does not exist")


def test_silence_and_goodbye_close_the_connection():
    with tap.Broker() as broker:
        silent = Connection(broker.port, session_timeout_ms=1000)
        tap.raises(
            Closed, lambda: silent.read(), "a connection is closed after its timeout without a byte"
        )
        polite = Connection(broker.port)
        polite.send(client.GOODBYE)
        error = tap.raises(Closed, lambda: polite.read(), "GOODBYE is answered by the end")
        tap.equal(error.failure, None, "without ERROR")
        back = Connection(
            broker.port,
            session_id=polite.welcome.session_id,
            session_secret=polite.welcome.session_secret,
        )
        tap.equal(back.welcome.resumed, True, "the session stays after GOODBYE")


# ---- 4: requests and replies
# -------------------------------------------------------------------------------


def test_lists_have_pages():
    with tap.Broker() as broker, Connection(broker.port) as one:
        names = [f"list-{n:02}" for n in range(7)]
        for name in names:
            queue(one, name)
        got, after, pages = [], "", 0
        while True:
            reply = one.call("queue_list", after=after, max=3)
            tap.check(len(reply.queues) <= 3, "no more rows than requested")
            got += [row.config.name for row in reply.queues]
            pages += 1
            if not reply.more:
                break
            after = got[-1]
        tap.equal(sorted(got), sorted(names + ["dead-letter"]), "each once")
        tap.equal(pages, 3, "pages of 8 rows by 3")
        refused("EXISTS", lambda: queue(one, names[0]), "a name that is taken")
        refused(
            "NOT_FOUND", lambda: one.call("queue_show", name="nowhere"), "show of a missing stream"
        )
        refused("LIMIT", lambda: queue(one, "x" * 256), "a name that is too long")
        refused("INVAL", lambda: queue(one, " x"), "a name with a space at its end")
        last = one.call("queue_delete", name=names[0]).index
        tap.check(one.call("status_get").index >= last, "a read sees earlier commands")


# ---- 5, 6: events, batches, producers
# ----------------------------------------------------------------------


def test_a_batch_is_delivered_as_it_was_published():
    with tap.Broker() as broker, Connection(broker.port) as one:
        stream(one)
        hoisted = [
            envelope(b"a", key=b"k", id=b"i", headers={"h": "v", "g": ""}, delta=-5),
            envelope(b"", priority=200),
            envelope(b"c"),
        ]
        own = [
            envelope(b"d", subject="s.x"),
            envelope(b"e", subject="t.y"),
            envelope(b"f", subject="s.z", delta=7),
        ]
        packed = [envelope(b"hello hello hello %d" % n) for n in range(100)]
        tap.equal(
            one.publish(hoisted, "s.h", time_ms=1700000000000)[:5:2],
            (0, 3, 0),
            "code, count, offset",
        )
        tap.equal(one.publish(own, time_ms=1700000001000).code, 0, "own subjects")
        tap.equal(one.publish(packed, "s.p", zstd=True).code, 0, "zstd")
        opened = one.call("follow_open", stream="s", credit=1000, subscription=1).follow_opened
        tap.equal(
            (opened.first_offset, opened.next_offset, opened.start_offset),
            (0, 105, 0),
            "a stream of 105",
        )
        events = one.events(1, 105)
        first = events[0]
        tap.equal(
            (first.time_ms, first.body, first.key, first.id, first.headers, first.subject),
            (1699999999995, b"a", b"k", b"i", {"h": "v", "g": ""}, "s.h"),
            "first event",
        )
        tap.equal(
            [e.subject for e in events[:5]],
            ["s.h"] * 3 + ["s.x", "s.z"],
            "subjects; t.y reached nothing",
        )
        tap.equal(
            (events[1].priority, events[4].time_ms), (200, 1700000001007), "priority and time"
        )
        tap.equal(
            [e.body for e in events[5:]],
            [b"hello hello hello %d" % n for n in range(100)],
            "compressed ones",
        )
        tap.equal([e.number for e in events], list(range(105)), "offsets")
        tap.equal(one.notice("CAUGHT_UP").offset, 105, "caught up")
        one.call("follow_open", stream="s", credit=1000, subscription=2, raw=True)
        tap.equal(
            [e.body for e in one.events(2, 105)],
            [e.body for e in events],
            "raw is the same after decompression",
        )


def test_the_targets_of_a_publish():
    with tap.Broker() as broker, Connection(broker.port) as one:
        stream(one)
        queue(one, "q", subjects=["s.*"])
        tap.equal(
            one.publish([envelope(b"x")], "nowhere").offset,
            client.NONE,
            "nothing reached: no offset",
        )
        tap.equal(
            one.publish([envelope(b"x")], "nowhere", mandatory=True).code,
            CODE["NO_ROUTE"],
            "mandatory",
        )
        mixed = [envelope(b"x", subject="s.a"), envelope(b"x", subject="nowhere")]
        tap.equal(
            one.publish(mixed, mandatory=True).code, CODE["NO_ROUTE"], "mandatory is for each event"
        )
        tap.equal(
            one.publish([envelope(b"x")], "t", target=client.TO_STREAM, name="none").code,
            CODE["NOT_FOUND"],
            "no such stream",
        )
        tap.equal(one.publish([envelope(b"x")], "s.a").code, 0, "one event to both")
        tap.equal(one.publish([envelope(b"x")], "s.a.b").code, 0, "s.* is one token")
        tap.equal(
            one.publish([envelope(b"y")], "other", target=client.TO_STREAM, name="s").code,
            0,
            "straight to the stream",
        )
        tap.equal(one.call("stream_show", name="s").streams[0].events, 3, "events")
        tap.equal(one.call("queue_show", name="q").queues[0].ready, 1, "items")


def test_a_retry_has_the_first_answer_also_after_a_kill():
    broker = tap.Broker()
    try:
        one = Connection(broker.port)
        stream(one)
        p = one.call("producer_open", name="prod").producer_opened
        tap.equal(p.last_seq, 0, "a new producer")
        how = {"producer": p.producer, "epoch": p.epoch}
        batch = [envelope(b"a"), envelope(b"b")]
        first = one.publish(batch, "s.a", seq=1, **how)
        tap.equal((first.code, first.flags & 1), (0, 0), "first")
        again = one.publish(batch, "s.a", seq=1, **how)
        tap.equal(again, first._replace(flags=first.flags | 1), "the first answer, as duplicate")
        tap.equal(
            one.publish(batch, "s.a", seq=4, **how).code,
            CODE["SEQUENCE_GAP"],
            "a number is missing",
        )
        tap.equal(
            one.publish(batch[:1], "s.a", seq=1, **how).code, CODE["CONFLICT"], "another count"
        )
        tap.equal(one.publish([envelope(b"c")], "s.a", seq=3, settled=2, **how).code, 0, "the next")
        broker.kill()
        with tap.Broker(data=broker.data) as second:
            stranger = Connection(second.port)
            for seq in (3, 4):
                tap.equal(
                    stranger.publish([envelope(b"x")], "s.a", seq=seq, settled=2, **how).code,
                    CODE["OWNED"],
                    "another session's",
                )
            refused(
                "OWNED",
                lambda: stranger.call("producer_close", producer=p.producer, epoch=p.epoch),
                "nor closes it",
            )
            two = Connection(
                second.port,
                session_id=one.welcome.session_id,
                session_secret=one.welcome.session_secret,
            )
            answer = two.publish([envelope(b"c")], "s.a", seq=3, settled=2, **how)
            tap.equal(
                (answer.code, answer.flags & 1, answer.offset),
                (0, 1, 2),
                "duplicate after the kill",
            )
            tap.equal(
                two.publish(batch, "s.a", seq=1, **how).code,
                CODE["CONFLICT"],
                "a settled answer is not kept",
            )
            fresh = two.call("producer_open", name="prod").producer_opened
            tap.equal(
                (fresh.producer, fresh.last_seq),
                (p.producer, 3),
                "a name keeps number and sequence",
            )
            tap.check(fresh.epoch > p.epoch, "and raises the epoch")
            tap.equal(
                two.publish([envelope(b"d")], "s.a", seq=4, **how).code,
                CODE["PRODUCER_FENCED"],
                "the older epoch",
            )
            tap.equal(
                two.publish([envelope(b"d")], "s.a", seq=4, producer=10**9, epoch=1).code,
                CODE["PRODUCER_EVICTED"],
                "unknown",
            )
            tap.equal(two.call("stream_show", name="s").streams[0].events, 3, "each event once")
            two.call("producer_close", producer=fresh.producer, epoch=fresh.epoch)
            tap.equal(
                two.publish(
                    [envelope(b"d")], "s.a", seq=4, producer=fresh.producer, epoch=fresh.epoch
                ).code,
                CODE["PRODUCER_EVICTED"],
                "closed",
            )
            mine = two.call("producer_open").producer_opened
            tap.equal(
                two.publish(
                    [envelope(b"e")], "s.a", seq=1, producer=mine.producer, epoch=mine.epoch
                ).code,
                0,
                "an unnamed one",
            )
            refused(
                "OWNED",
                lambda: stranger.call(
                    "producer_open", expect_producer=mine.producer, secret=mine.secret ^ 1
                ),
                "a wrong secret",
            )
            taken = stranger.call(
                "producer_open", expect_producer=mine.producer, secret=mine.secret
            ).producer_opened
            tap.equal(
                (taken.producer, taken.last_seq, taken.epoch > mine.epoch),
                (mine.producer, 1, True),
                "taken over by its secret",
            )
            answer = stranger.publish(
                [envelope(b"e")], "s.a", seq=1, producer=taken.producer, epoch=taken.epoch
            )
            tap.equal((answer.code, answer.flags & 1), (0, 1), "and requests in flight are settled")
    finally:
        broker.remove()


# ---- 7: following
# ------------------------------------------------------------------------------------------


def test_a_follower_starts_at_the_requested_event():
    with tap.Broker() as broker, Connection(broker.port) as one:
        stream(one)
        for n in range(10):
            one.publish(
                [envelope(b"%d" % n)], "s.odd" if n % 2 else "s.even", time_ms=1000000 + n * 1000
            )
        one.call("cursor_set", stream="s", cursor="c", offset=4)
        number = 0
        for how, start in (
            ({}, 0),
            ({"from": pb.FROM_LAST}, 9),
            ({"from": pb.FROM_OFFSET, "offset": 6}, 6),
            ({"from": pb.FROM_TIME, "time_ms": 1002500}, 3),
            ({"from": pb.FROM_CURSOR, "cursor": "c"}, 4),
            ({"from": pb.FROM_CURSOR, "cursor": "none"}, 0),
            ({"from": pb.FROM_NEW}, 10),
        ):
            number += 1
            opened = one.call(
                "follow_open", stream="s", credit=100, subscription=number, **how
            ).follow_opened
            tap.equal(opened.start_offset, start, f"start of {how}")
            tap.equal(
                [e.number for e in one.events(number, 10 - start)] if start < 10 else [],
                list(range(start, 10)),
                f"{how}",
            )
            tap.equal(one.notice("CAUGHT_UP").subscription, number, "caught up")
        one.call("follow_open", stream="s", filter="s.odd", credit=3, subscription=20)
        tap.equal(
            [e.body for e in one.events(20, 3)],
            [b"1", b"3", b"5"],
            "matching events, up to the credit",
        )
        one.ping()
        tap.check(not any(f.type == client.DELIVER for f in one.kept), "no more than the credit")
        one.credit(20, 10)
        tap.equal([e.body for e in one.events(20, 2)], [b"7", b"9"], "the rest")
        tap.equal(one.notice("CAUGHT_UP").subscription, 20, "caught up")
        one.publish([envelope(b"live")], "s.odd")
        tap.equal(one.events(20, 1)[0].body, b"live", "events published later")
        refused(
            "NOT_FOUND",
            lambda: one.call("follow_open", stream="none", subscription=30),
            "no such stream",
        )
        tap.check(
            one.try_call("follow_open", stream="s", subscription=20).code < 0, "a number in use"
        )
        tap.check(one.try_call("follow_open", stream="s", subscription=0).code < 0, "the number 0")
        one.call("stream_delete", name="s")
        tap.equal(
            one.notice("SUBSCRIPTION_END").code, CODE["NOT_FOUND"], "the end of a deleted stream"
        )


def test_a_filter_checks_each_event_of_a_batch():
    with tap.Broker() as broker, Connection(broker.port) as one:
        stream(one)
        mixed = [envelope(b"%d" % n, subject="s.odd" if n % 2 else "s.even") for n in range(8)]
        tap.equal(one.publish(mixed).code, 0, "a batch of two subjects")
        tap.equal(one.publish(mixed, zstd=True).code, 0, "and a compressed one")
        one.call("follow_open", stream="s", filter="s.odd", credit=3, subscription=1)
        tap.equal(
            [(e.number, e.body, e.subject) for e in one.events(1, 3)],
            [(n, b"%d" % n, "s.odd") for n in (1, 3, 5)],
            "up to the credit",
        )
        one.ping()
        tap.check(
            not any(f.type in (client.DELIVER, client.NOTICE) for f in one.kept),
            "no more than the credit, and not at the end",
        )
        one.credit(1, 100)
        tap.equal(
            [(e.number, e.body) for e in one.events(1, 5)],
            [(7, b"7"), (9, b"1"), (11, b"3"), (13, b"5"), (15, b"7")],
            "the rest, and nothing else",
        )
        tap.equal(
            one.notice("CAUGHT_UP").offset, 16, "caught up, past the events that do not match"
        )
        for number, pattern in enumerate(("s.odd.more", "s.od", "s", "t.>", "*.odd.*"), 2):
            one.call("follow_open", stream="s", filter=pattern, credit=100, subscription=number)
            notice = one.notice("CAUGHT_UP")
            tap.equal(
                (notice.subscription, notice.offset),
                (number, 16),
                f"{pattern} matches none of them",
            )
        tap.check(
            not any(f.type == client.DELIVER for f in one.kept), "nothing was delivered for them"
        )
        one.call("follow_open", stream="s", filter="*.even", credit=100, subscription=9)
        tap.equal(
            [e.number for e in one.events(9, 8)], list(range(0, 16, 2)), "a star is one token"
        )


def test_a_gap_is_reported():
    with tap.Broker() as broker, Connection(broker.port) as one:
        one.call(
            "stream_create",
            pb.StreamCreate(config=pb.StreamConfig(name="s", subjects=["s.>"], max_events=3)),
        )
        for n in range(8):
            one.publish([envelope(b"%d" % n)], "s.a")
        tap.wait_until(
            lambda: one.call("stream_show", name="s").streams[0].first_offset == 5,
            20,
            "three are kept",
        )
        one.call(
            "follow_open",
            pb.FollowOpen(
                **{
                    "stream": "s",
                    "from": pb.FROM_OFFSET,
                    "offset": 1,
                    "credit": 9,
                    "subscription": 1,
                }
            ),
        )
        gap = one.notice("GAP")
        tap.equal((gap.offset, gap.to_offset), (1, 5), "the gap")
        tap.equal([e.number for e in one.events(1, 3)], [5, 6, 7], "then the kept events")


# ---- 8: queues
# ---------------------------------------------------------------------------------------------


def test_items_are_delivered_by_credit_and_acked_in_runs():
    with tap.Broker() as broker, Connection(broker.port) as one:
        queue(one)
        tap.equal(consume(one, credit=3).kind, pb.QUEUE_ITEMS, "kind")
        put(one, [b"%d" % n for n in range(8)])
        grant = one.deliver(1)
        tap.equal(len(grant.numbers), 3, "a grant takes what the credit allows")
        tap.check(grant.lease_ms > 0, "timed")
        tap.equal(
            [(e.body, e.attempts, e.subject) for e in grant.events],
            [(b"%d" % n, 0, "put") for n in range(3)],
            "items",
        )
        one.ping()
        tap.check(not any(f.type == client.DELIVER for f in one.kept), "no more than the credit")
        a, b, c = grant.numbers
        tap.equal(one.ack(1, grant.token, [(a, 1), (c, 1)])[::2], (0, 2), "two runs")
        tap.equal(
            one.ack(1, grant.token, [(a, 3)])[::2], (0, 1), "items that are not held are skipped"
        )
        tap.equal(one.ack(1, grant.token, [(a, 3)]).code, CODE["STALE_TOKEN"], "none is held")
        one.send(client.ACK, ack_body(1, grant.token, [(b, 1)]))
        tap.equal(
            client.parse_acked(one.wait(client.ACKED, 0).body).code,
            CODE["STALE_TOKEN"],
            "correlation 0: only the refusal",
        )
        one.credit(1, 5)
        rest = []
        while len(rest) < 5:
            got = one.deliver(1)
            rest += got.events
            tap.check(got.token > grant.token, "tokens grow")
            one.send(client.ACK, ack_body(1, got.token, [(n, 1) for n in got.numbers]))
        tap.equal([e.body for e in rest], [b"%d" % n for n in range(3, 8)], "the others")
        info = tap.wait_until(
            lambda: (lambda q: q if q.leased == 0 else None)(
                one.call("queue_show", name="q").queues[0]
            ),
            20,
            "all acked",
        )
        tap.equal((info.ready, info.put, info.acked), (0, 8, 8), "ready, put, acked")


def test_rejected_items_are_dead_letters_and_renewed_ones_have_another_token():
    with tap.Broker() as broker, Connection(broker.port, features=["reject-renew"]) as one:
        queue(one, lease_ms=60000, max_attempts=3)
        put(one, [b"a", b"b", b"c"])
        consume(one, credit=10)
        grant = one.deliver(1)
        first, second, third = [(number, 1) for number in grant.numbers]
        tap.equal(
            one.ack(1, grant.token, [first], client.REJECT, reason=b"not a PDF")[::2],
            (0, 1),
            "reject",
        )
        tap.equal(
            one.ack(1, grant.token, [first], client.REJECT).code,
            CODE["STALE_TOKEN"],
            "it is not held any more",
        )
        dead = one.call("queue_peek", name="dead-letter").items[0]
        tap.equal((dead.last_reason, dead.dead_from), ("not a PDF", "q"), "reason and origin")
        renewed = one.ack(1, grant.token, [second], client.RENEW, 3600000)
        tap.equal((renewed.code, renewed.affected), (0, 1), "renew")
        tap.check(renewed.index > grant.token, "the index is the new token")
        left = {row.seq: row.lease_left_ms for row in one.call("queue_peek", name="q").items}
        tap.check(left[second[0]] > 60000 >= left[third[0]], "only its lease is longer")
        tap.equal(
            one.ack(1, grant.token, [second]).code, CODE["STALE_TOKEN"], "under the old token"
        )
        tap.equal(one.ack(1, renewed.index, [second]).code, 0, "under the new one")
        one.send(client.ACK, client.ack_body(1, grant.token, [third], client.RENEW), 0)
        tap.equal(
            client.parse_acked(one.wait(client.ACKED, 0).body).code,
            CODE["INVAL"],
            "nobody would get the token",
        )
        tap.equal(one.ack(1, grant.token, [third]).code, 0, "and it is held as before")
        consume(one, name="dead-letter", subscription=2, credit=1)
        grant = one.deliver(2)
        tap.equal(
            one.ack(2, grant.token, [(grant.numbers[0], 1)], client.REJECT).code,
            CODE["WRONG_STATE"],
            "there is no further dead-letter queue",
        )


def test_nack_extend_and_the_end_of_a_lease():
    with tap.Broker() as broker, Connection(broker.port) as one, Connection(broker.port) as other:
        queue(one, lease_ms=60000, max_attempts=3)
        put(one, [b"a"])
        consume(one, credit=10)
        first = one.deliver(1)
        tap.equal(first.lease_ms, 60000, "the queue's lease")
        tap.equal(
            other.try_call("consume_open", queue="q", subscription=1, lease_ms=99).code,
            CODE["LIMIT"],
            "too short a lease",
        )
        consume(other, credit=0)
        tap.equal(
            other.ack(1, first.token, [(first.numbers[0], 1)]).code,
            CODE["STALE_TOKEN"],
            "another session's token",
        )
        sent = time.monotonic()
        tap.equal(
            one.ack(1, first.token, [(first.numbers[0], 1)], client.NACK, 300, b"no disk")[::2],
            (0, 1),
            "nack",
        )
        second = one.deliver(1)
        tap.check(time.monotonic() - sent >= 0.3, "not before its delay")
        tap.equal(second.events[0].attempts, 1, "attempts counted")
        tap.equal(
            one.ack(1, first.token, [(first.numbers[0], 1)]).code,
            CODE["STALE_TOKEN"],
            "the older token",
        )
        tap.equal(one.ack(1, second.token, [], client.EXTEND, 3600000).code, 0, "extend")
        item = one.call("queue_peek", name="q").items[0]
        tap.check(item.lease_left_ms > 60000, "the lease is longer")
        tap.equal((item.state, item.last_reason), ("leased", "no disk"), "state and reason")
        tap.equal(
            one.ack(1, second.token, [], client.EXTEND, 100).code, 0, "extend to a shorter one"
        )
        third = one.deliver(1)
        tap.equal(third.events[0].attempts, 2, "expiry is a failed attempt")
        tap.equal(
            one.ack(1, second.token, [], client.EXTEND).code,
            CODE["STALE_TOKEN"],
            "the lease has ended",
        )
        tap.equal(
            one.ack(1, third.token, [(third.numbers[0], 1)], client.NACK, 0, b"for ever").code,
            0,
            "the last attempt",
        )
        dead = one.call("queue_peek", name="dead-letter").items
        tap.equal(
            [(d.body, d.dead_from, d.last_reason) for d in dead],
            [(b"a", "q", "for ever")],
            "dead-lettered with its origin",
        )


def test_session_leases_end_with_the_session():
    with tap.Broker() as broker, Connection(broker.port) as other:
        one = Connection(broker.port, session_name="holder")
        queue(one)
        put(one, [b"a"])
        consume(one, session_lease=True)
        grant = one.deliver(1)
        tap.equal(grant.lease_ms, 0, "as long as the session")
        tap.equal(
            one.ack(1, grant.token, [], client.EXTEND).code, 0, "extend does nothing and succeeds"
        )
        consume(other)
        one.ask("session_close")
        tap.equal(
            [(e.body, e.attempts) for e in other.deliver(1).events], [(b"a", 1)], "given to another"
        )


# ---- 9, 10: jobs, transactions
# -----------------------------------------------------------------------------


def job_queue(connection):
    queue(connection, "jobs", kind=pb.QUEUE_JOBS)


def report(connection, job, attempt, state, **more):
    return connection.call(
        "job_report", job=job, attempt=attempt, source="test", state=state, **more
    ).job_reported


def test_a_job_from_submit_to_its_end():
    with tap.Broker() as broker, Connection(broker.port) as one:
        job_queue(one)
        stream(one, "events", ["job.>"])
        job = {"job": "j.1", "queue": "jobs", "payload": b"echo", "owner": "ada"}
        tap.equal(one.call("job_submit", **job).job_submitted.duplicate, False, "new")
        tap.equal(one.call("job_submit", **job).job_submitted.duplicate, True, "again")
        refused(
            "CONFLICT",
            lambda: one.call("job_submit", **{**job, "payload": b"other"}),
            "other content",
        )
        consume(one, "jobs", credit=1)
        got = one.deliver(1).jobs[0]
        tap.equal(
            (got.job, got.payload, got.state, got.attempt, got.orphan, got.intent),
            ("j.1", b"echo", "SUBMITTED", 1, False, False),
            "claimed",
        )
        one.call("job_intent", job="j.1", token=got.token, attempt=1, tag="t1")
        one.call("job_intent", job="j.1", token=got.token, attempt=1, tag="t1")
        refused(
            "CONFLICT",
            lambda: one.call("job_intent", job="j.1", token=got.token, attempt=1, tag="t2"),
            "another tag",
        )
        refused(
            "WRONG_STATE",
            lambda: one.call("job_release", job="j.1", token=got.token),
            "release after intent",
        )
        tap.equal(
            report(one, "j.1", 1, "ACTIVE", token=got.token).disposition, pb.APPLIED, "active"
        )
        tap.equal(
            report(one, "j.1", 1, "ACTIVE", token=got.token).disposition,
            pb.DUPLICATE,
            "active again",
        )
        tap.equal(report(one, "j.1", 2, "COMPLETE").disposition, pb.QUARANTINED, "another attempt")
        tap.equal(
            report(one, "none", 1, "ACTIVE").disposition, pb.PARKED, "a job that does not exist yet"
        )
        refused(
            "STALE_TOKEN",
            lambda: report(one, "j.1", 1, "COMPLETE", token=got.token + 1),
            "a wrong token",
        )
        waiting = one.ask("job_wait", job="j.1", timeout_ms=60000)
        refused("TIMEOUT", lambda: one.call("job_wait", job="j.1", timeout_ms=50), "wait")
        tap.equal(report(one, "j.1", 1, "COMPLETE", token=got.token).terminal, True, "complete")
        done = one.reply(waiting).jobs[0]
        tap.equal((done.state, done.terminal), ("COMPLETE", True), "the wait ends")
        tap.equal(
            report(one, "j.1", 1, "FAILED").disposition, pb.QUARANTINED, "the job is finished"
        )
        kept = one.call("quarantine_list").quarantine
        tap.equal(
            [(row.job, row.attempt, row.state) for row in kept],
            [("j.1", 2, "COMPLETE"), ("none", 1, "ACTIVE"), ("j.1", 1, "FAILED")],
            "reports that were not applied",
        )
        tap.check(all(row.reason for row in kept), "with reasons")
        one.call("follow_open", stream="events", credit=100, subscription=9)
        tap.equal(
            [e.subject for e in one.events(9, 3)],
            ["job.j%2E1.submitted", "job.j%2E1.active", "job.j%2E1.complete"],
            "events",
        )
        tap.equal(list(one.call("audit").audited.findings), [], "the audit finds nothing")


def test_a_wait_and_a_report_are_for_the_job_with_that_number():
    with tap.Broker() as broker, Connection(broker.port) as one:
        job_queue(one)
        first = one.call("job_submit", job="j", queue="jobs").job_submitted.number
        waiting = one.ask("job_wait", job="j", number=first, timeout_ms=60000)
        report(one, "j", 1, "COMPLETE")
        tap.equal(one.reply(waiting).jobs[0].state, "COMPLETE", "the wait ends")
        one.call("job_retention", keep_ms=1)
        tap.wait_until(lambda: one.try_call("job_show", job="j").code != 0, 30, "it is forgotten")
        one.call("job_retention", keep_ms=86400000)
        second = one.call("job_submit", job="j", queue="jobs").job_submitted.number
        tap.check(second != first, "another number")
        refused(
            "NOT_FOUND",
            lambda: one.call("job_wait", job="j", number=first, timeout_ms=60000),
            "a wait for the forgotten one",
        )
        refused(
            "NOT_FOUND",
            lambda: one.call(
                "job_report", job="j", number=first, attempt=1, state="FAILED", source="late"
            ),
            "a late report",
        )
        refused(
            "TIMEOUT",
            lambda: one.call("job_wait", job="j", number=second, timeout_ms=50),
            "a wait for the new one",
        )
        tap.equal(one.call("job_show", job="j").jobs[0].state, "SUBMITTED", "it received no report")


def test_cancel_and_orphans():
    with tap.Broker() as broker, Connection(broker.port) as other:
        one = Connection(broker.port)
        job_queue(one)
        for name in ("early", "late"):
            one.call("job_submit", job=name, queue="jobs")
        cancelled = one.call("job_cancel", job="early").job_cancelled
        tap.equal(
            (cancelled.terminal, cancelled.state),
            (True, "CANCELED"),
            "before intent it ends at once",
        )
        consume(one, "jobs", credit=1)
        got = one.deliver(1).jobs[0]
        tap.equal(got.job, "late", "the other job")
        one.call("job_intent", job="late", token=got.token, attempt=1, tag="tag")
        tap.equal(
            other.call("job_cancel", job="late").job_cancelled.terminal,
            False,
            "after intent it is notified",
        )
        told = one.notice("JOB_CANCEL")
        tap.equal((told.job, told.token), ("late", got.token), "the holder is notified")
        again = Connection(
            broker.port,
            session_id=one.welcome.session_id,
            session_secret=one.welcome.session_secret,
        )
        consume(again, "jobs", resume=True)
        back = again.deliver(1).jobs[0]
        tap.equal(
            (back.job, back.token, back.redelivered, back.cancel),
            ("late", got.token, True, True),
            "resumed",
        )
        again.ask("session_close")
        closed("SESSION_GONE", again, "session closed")
        consume(other, "jobs", credit=5, orphans=True)
        orphan = other.deliver(1).jobs[0]
        tap.equal(
            (orphan.job, orphan.orphan, orphan.intent, orphan.tag, orphan.cancel),
            ("late", True, True, "tag", True),
            "taken over",
        )
        tap.check(orphan.token > got.token, "with a higher token")
        refused(
            "STALE_TOKEN",
            lambda: report(other, "late", 1, "CANCELED", token=got.token),
            "the old token",
        )
        tap.equal(
            report(other, "late", 1, "CANCELED", token=orphan.token).terminal, True, "reported"
        )
        tap.equal(other.call("job_reset", job="late").job_reset.attempt, 2, "a new attempt")


def test_a_transaction_is_applied_completely_or_not_and_once():
    with tap.Broker() as broker, Connection(broker.port) as one:
        stream(one)
        queue(one)
        job_queue(one)
        put(one, [b"a"])
        consume(one)
        grant = one.deliver(1)

        def ops(token):
            return [
                pb.TxnOp(publish=pb.TxnPublish(subject="s.a", body=b"x")),
                pb.TxnOp(job_submit=pb.JobSubmit(job="j", queue="jobs")),
                pb.TxnOp(
                    ack=pb.TxnAck(queue="q", token=token, first_seq=grant.numbers[0], count=1)
                ),
            ]

        reply = refused(
            "STALE_TOKEN", lambda: one.call("txn", ops=ops(grant.token + 1)), "a wrong token"
        )
        tap.equal(reply.txn_done.failed_op, 3, "which operation")
        tap.equal(one.call("stream_show", name="s").streams[0].events, 0, "nothing was published")
        refused("NOT_FOUND", lambda: one.call("job_show", job="j"), "no job")
        p = one.call("producer_open").producer_opened
        whole = pb.Txn(producer=p.producer, epoch=p.epoch, seq=1, ops=ops(grant.token))
        first = one.call("txn", whole)
        tap.equal(first.txn_done.duplicate, False, "done")
        again = one.call("txn", whole)
        tap.equal((again.txn_done.duplicate, again.index), (True, first.index), "the first answer")
        tap.equal(one.call("stream_show", name="s").streams[0].events, 1, "once")
        tap.equal(one.call("queue_show", name="q").queues[0].acked, 1, "acked")
        tap.equal(one.call("job_show", job="j").jobs[0].state, "SUBMITTED", "submitted")


# ---- 15: limits that need a live connection; tests/integration has the others
# -------------------------------


def test_a_new_stream_or_queue_with_an_old_name_has_a_new_number():
    with tap.Broker() as broker, Connection(broker.port) as one:
        for kind in ("stream", "queue"):
            one.call(f"{kind}_create", config={"name": "x"})
        follow = one.call("follow_open", stream="x", subscription=1).follow_opened
        consume = one.call("consume_open", queue="x", subscription=2).consume_opened
        tap.check(follow.stream_id != 0 and consume.queue_id != 0, "both have a number")
        ids = {"stream": follow.stream_id, "queue": consume.queue_id}
        for name in ("same", "other"):
            codes = [
                one.try_call(
                    "follow_open", stream="x", subscription=3, stream_id=ids["stream"]
                ).code,
                one.try_call("consume_open", queue="x", subscription=4, queue_id=ids["queue"]).code,
                one.try_call(
                    "cursor_set", stream="x", cursor="c", offset=0, stream_id=ids["stream"]
                ).code,
            ]
            tap.equal(codes, [0 if name == "same" else CODE["NOT_FOUND"]] * 3, f"the {name} ones")
            for kind in ("stream", "queue"):
                one.call(f"{kind}_delete", name="x")
                one.call(f"{kind}_create", config={"name": "x"})
        again = one.call("follow_open", stream="x", subscription=5).follow_opened
        tap.check(again.stream_id > follow.stream_id, "no number is used twice")
        tap.equal(
            one.call("stream_show", name="x").streams[0].id,
            again.stream_id,
            "it is that of stream_show",
        )
        tap.equal(
            len(one.call("stream_show", name="x").streams[0].cursors),
            0,
            "it has no cursor of the former stream",
        )


def test_limits_of_subscriptions():
    with tap.Broker() as broker, Connection(broker.port) as one:
        stream(one)
        asked = [one.ask("follow_open", stream="s", subscription=n) for n in range(1, 1026)]
        codes = [one.reply(correlation).code for correlation in asked]
        # limit: SUBSCRIPTIONS_MAX
        tap.equal(
            (codes[:1024], codes[1024]),
            ([0] * 1024, CODE["LIMIT"]),
            "1,024 subscriptions and one more",
        )
        one.call("subscription_close", subscription=7)
        # limit: CREDIT_MAX
        one.call("follow_open", stream="s", subscription=7, credit=1000000)
        one.call("subscription_close", subscription=7)
        tap.equal(
            one.try_call("follow_open", stream="s", subscription=7, credit=1000001).code,
            CODE["LIMIT"],
            "too much credit",
        )
        one.credit(1, 1000001)
        closed("LIMIT", one, "CREDIT of too much")


def test_limits_of_jobs_and_lifecycles():
    with tap.Broker() as broker, Connection(broker.port) as one:
        job_queue(one)
        # limit: JOB_PAYLOAD_BYTES_MAX
        one.call("job_submit", job="j", queue="jobs", payload=b"x" * 1048576)
        refused(
            "LIMIT",
            lambda: one.call("job_submit", job="k", queue="jobs", payload=b"x" * 1048577),
            "payload",
        )
        # limit: EVIDENCE_BYTES_MAX
        report(one, "j", 1, "ACTIVE", evidence="x" * 4096)
        report(one, "j", 1, "QUEUED", evidence="x" * 4095 + "\u20ac")
        tap.equal(
            one.call("job_show", job="j").jobs[0].evidence,
            "x" * 4095,
            "longer evidence is cut between two characters",
        )

        def lifecycle(name, states):
            rows = [pb.LifecycleState(name=f"S{n}", next=[f"S{n + 1}"]) for n in range(states - 2)]
            rows += [
                pb.LifecycleState(name=f"S{states - 2}", next=["C"]),
                pb.LifecycleState(name="C", terminal=True),
            ]
            return pb.LifecycleCreate(
                config=pb.LifecycleConfig(name=name, states=rows, cancelled="C", failed="C")
            )

        # limit: LIFECYCLE_STATES_MAX
        one.call("lifecycle_create", lifecycle("most", 64))
        refused("LIMIT", lambda: one.call("lifecycle_create", lifecycle("over", 65)), "states")


def test_more_requests_than_may_be_unanswered_are_all_answered():
    with tap.Broker() as broker, Connection(broker.port) as one:
        stream(one)
        # limit: INFLIGHT_REQUESTS_MAX
        one.sock.sendall(
            b"".join(
                frame(client.PUBLISH, publish_body([envelope(b"x")], "s.a"), n)
                for n in range(1, 6001)
            )
        )
        answers = {}
        while len(answers) < 6000:
            got = one.wait(client.PUBLISHED)
            answers[got.correlation] = parse_published(got.body)[0].code
        tap.equal(set(answers.values()), {0}, "codes of 6,000 publishes sent at once")
        tap.equal(one.call("stream_show", name="s").streams[0].events, 6000, "events")


def test_a_follower_that_does_not_read_delays_no_other():
    tap.not_sanitized("a sanitizer keeps freed memory: its size says nothing")
    with tap.Broker() as broker, Connection(broker.port) as one, Connection(broker.port) as deaf:
        stream(one)
        deaf.ask("follow_open", stream="s", credit=1000000, subscription=1)
        before = resident_anonymous(broker.pid)
        for n in range(100):
            tap.equal(
                one.publish([envelope(bytes([n]) * (1 << 20))], "s.a").code, 0, "publish of 1 MiB"
            )
        one.ping()  # answered, although the other connection does not read
        # limit: OUTBOX_BYTES_MAX
        tap.check(
            not any(f.type == client.DELIVER for f in one.kept), "no frame for the other connection"
        )
        grown = resident_anonymous(broker.pid) - before
        tap.check(grown < 2 * 33554432, "the broker holds no more than an outbox and one delivery")
        tap.equal(
            [e.number for e in deaf.events(1, 100)],
            list(range(100)),
            "everything is delivered when it reads",
        )


def resident_anonymous(pid):
    """Resident bytes that are not a file's pages: the store's map does not count."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"^RssAnon:\s+(\d+) kB", file.read(), re.M).group(1)) * 1024


def test_quarantine_drops_its_oldest_row():
    with tap.Broker() as broker, Connection(broker.port) as one:
        job_queue(one)
        one.call("job_submit", job="j", queue="jobs")

        # limit: QUARANTINE_ROWS_MAX
        def ask(first):
            """Each report differs: a repeated report makes no second row."""
            return [
                one.ask("job_report", job="j", attempt=9 + n, source="test", state="ACTIVE")
                for n in range(first, first + 1000)
            ]

        asked = ask(0)
        for turn in range(1, 10):
            for correlation in asked:
                tap.equal(
                    one.reply(correlation).job_reported.disposition,
                    pb.QUARANTINED,
                    "a stale report",
                )
            asked = ask(1000 * turn)
        for correlation in asked:
            one.reply(correlation)
        tap.equal(
            one.call("quarantine_list", max=1).quarantine[0].n,
            1,
            "10,000 rows: the first is stored",
        )
        report(one, "j", 9 + 9999, "ACTIVE")
        tap.equal(
            one.call("quarantine_list", max=1).quarantine[0].n, 1, "one of them again: no new row"
        )
        report(one, "j", 8, "ACTIVE")
        tap.equal(
            one.call("quarantine_list", max=1).quarantine[0].n, 2, "one more: the oldest is dropped"
        )


tap.main(globals())
