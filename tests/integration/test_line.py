#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The line face in the tests' broker (tests/line): every call of the door, every refusal by its
code, a peer that leaves and a broker that stops at every step."""
import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import Closed as Ended  # noqa: E402
from client import Connection, envelope, pb  # noqa: E402

QUEUE, DONE, NACK, RELEASE = 1, 0, 1, 5
SESSION_MS = 1000  # limit: SESSION_TIMEOUT_MS_MIN
BUSY, TIMEOUT, NOMEM = -23, -40, -50
SESSION_LEASE = 4
ATTACH, EPHEMERAL = 1, 2


class Closed(Exception):
    pass


class Line:
    """One connection. ask() returns (code, the rest of the answer)."""

    def __init__(self, port, gateway="default"):
        self.sock = socket.create_connection(("127.0.0.1", port), 30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.tag = b"", 0
        self.answers, self.effects = {}, []
        if gateway:
            tap.equal(self.ask(f"enter {gateway}"), ("OK", ""), "enter")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, text, after=b""):
        self.sock.sendall(text.encode() + b"\n" + after)
        self.tag += 1
        return self.tag

    def line(self, seconds=30):
        self.sock.settimeout(seconds)
        while b"\n" not in self.buffer:
            try:
                got = self.sock.recv(1 << 16)
            except ConnectionError:
                got = b""
            if not got:
                raise Closed
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def take(self, seconds=30):
        line = self.line(seconds)
        if line.startswith("* "):
            self.effects.append(line[2:])
        elif line[:1].isdigit():
            tag, code, *rest = line.split(" ", 2)
            self.answers[int(tag)] = (code, rest[0] if rest else "")

    def answer(self, tag):
        while tag not in self.answers:
            self.take()
        return self.answers.pop(tag)

    def take_all(self, *tags):
        """The answers of these lines, in the order in which they come."""
        order = []
        while len(order) < len(tags):
            while not self.answers:
                self.take()
            order += [tag for tag in self.answers if tag in tags]
            self.answers.clear()
        return order

    def ask(self, text, after=b""):
        return self.answer(self.send(text, after))

    def facts(self, text="facts"):
        code, rest = self.ask(text)
        tap.equal(code, "OK", text)
        return dict(pair.split("=", 1) for pair in rest.split())

    def effect(self, pattern):
        """The first effect that matches; it and those before it are removed."""
        while True:
            for i, effect in enumerate(self.effects):
                found = re.match(pattern, effect)
                if found:
                    del self.effects[: i + 1]
                    return found
            try:
                self.take()
            except (Closed, TimeoutError):
                raise tap.Failed(f"no {pattern!r} in {self.effects}") from None

    def is_closed(self):
        """Whether the broker ends the connection, after what it has sent."""
        with contextlib.suppress(Closed):
            while True:
                self.take()
        return True

    def request(self, op, lane="control", session=0, **fields):
        request = pb.Request()
        slot = getattr(request, op)
        slot.SetInParent()
        slot.MergeFrom(type(slot)(**fields))
        packed = request.SerializeToString()
        return self.send(f"request {lane} {session} {len(packed)}", packed)

    def call(self, op, **fields):
        return self.answer(self.request(op, **fields))

    def read(self, op, **fields):
        code, rest = self.call(op, **fields)
        tap.equal(code, "OK", op)
        return pb.Reply.FromString(bytes.fromhex(rest))

    def waited(self, tag):
        """(code, the Reply or None, the text) of a wait for a job"""
        code, rest = self.answer(tag)
        reply, _, text = rest.partition(" ")
        return code, None if reply == "-" else pb.Reply.FromString(bytes.fromhex(reply)), text

    def submit(self, job):
        """The number of a new job."""
        config = {"name": "runs", "kind": "QUEUE_JOBS"}
        tap.equal(self.call("queue_create", config=config, if_not_exists=True)[0], "OK", "runs")
        code, rest = self.call("job_submit", job=job, queue="runs")
        tap.equal(code, "OK", f"job_submit {job}")
        return int(re.search(r"id=(\d+)", rest).group(1))

    def publishing(self, name, *bodies, kind=0, session=0):
        events = b"".join(envelope(body) for body in bodies)
        return self.send(f"publish {kind} {name} {len(bodies)} {session} {len(events)}", events)

    def publish(self, name, *bodies, **how):
        return self.answer(self.publishing(name, *bodies, **how))

    def open(self, name="-", timeout=60000, flags=ATTACH, more=""):
        return self.facts(f"open {name} {timeout} {flags} {more}")

    def topology_of(self, queue):
        tap.equal(self.call("queue_create", config={"name": queue})[0], "OK", queue)

    def topology(self):
        for op, config in [
            ("queue_create", {"name": "work"}),
            ("stream_create", {"name": "events", "subjects": ["ev.>"]}),
        ]:
            tap.equal(self.call(op, config=config, if_not_exists=True)[0], "OK", op)


@contextlib.contextmanager
def line_broker(data=None, args=(), **env):
    """(broker, the port of the line face)"""
    with tap.Broker(
        data=data,
        args=["--plugin", "line kind=face port=0", *args],
        env=env,
        path="tests/line/sluiced-line",
    ) as broker:
        found = re.search(rb"^listener line 127\.0\.0\.1:(\d+)", broker.text(), re.M)
        yield broker, int(found.group(1))


def connections(broker):
    """How many there are besides this native one."""
    with Connection(broker.port) as native:
        return native.call("status_get").status.connections - 1


def sessions(one):
    """How many the line face has opened."""
    return sum(row.client == "line" for row in one.read("session_list").sessions)


# ---- what the calls do ----


def test_a_broker_without_the_face_refuses_its_port():
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        done = subprocess.run(
            [
                *(tap.program("broker/sluiced"), "--data", data, "--listen", "127.0.0.1:0"),
                *("--plugin", "line kind=face"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
    tap.equal(done.returncode, 4, "its exit code")
    tap.check("plugin line: this broker has no such face" in done.stderr, done.stderr)


def test_sessions_are_opened_and_resumed():
    with line_broker() as (_, port), Line(port) as one:
        session = one.open("named")
        tap.equal(session["timeout"], "60000", "its timeout")
        tap.equal(one.facts()["session"], session["session"], "it is attached")
        with Line(port) as two:
            facts = two.facts(f"resume {session['session']} {session['secret']} {ATTACH}")
            tap.equal(facts, session, "the same session, by its secret")
            tap.check(one.is_closed(), "the connection that had it is closed")
            with Line(port) as three:
                three.open("named")
                two.effect(f"ended {session['session']}$")
                tap.equal(two.facts()["session"], "0", "another session took its name")


def test_a_connection_holds_several_sessions():
    with line_broker() as (broker, port), Line(port) as one, Line(port) as two:
        one.topology()
        own, free = one.open()["session"], one.open(flags=0)
        brief = one.open(flags=ATTACH | EPHEMERAL)["session"]
        number = free["session"]
        for session in (0, int(own), int(number), int(brief)):
            put = one.publish("work", b"%d" % session, kind=QUEUE, session=session)
            tap.equal(put[0], "OK", "a command of each of them")
        tap.equal(one.facts(f"consume 1 work 2 0 0 - 0 {number}")["kind"], "0", "a consumer of one")
        token, seq = one.effect(r"item 1 (\d+) (\d+) 0 0$").groups()
        tap.equal(one.ask(f"ack 1 {token} {seq} 1 {DONE}")[0], "OK", "is settled by it")
        tap.equal(one.ask(f"touch {number}")[0], "OK", "touch")

        # Sessions that another connection holds.
        for session in (own, number, brief):
            foreign = int(session)
            tap.equal(two.publish("ev.a", b"x", session=foreign)[0], "DENIED", "publish")
            tap.equal(two.call("queue_purge", name="work", session=foreign)[0], "DENIED", "command")
            tap.equal(two.ask(f"consume 1 work 1 0 0 - 0 {foreign}")[0], "DENIED", "consume")
            tap.equal(two.ask(f"touch {foreign}")[0], "SESSION_GONE", "touch")
            tap.equal(two.ask(f"drop {foreign}")[0], "SESSION_GONE", "drop")
        tap.equal(two.ask(f"use {number} 0")[0], "OK", "one of this face, by its number")
        with Connection(broker.port) as native:
            opened = native.welcome.session_id
            tap.equal(two.ask(f"use {opened} 0")[0], "DENIED", "not one of another face")
        tap.equal(two.ask("use 999 0")[0], "SESSION_GONE", "one that is not there")
        tap.equal(two.publish("ev.a", b"x", session=int(number))[0], "OK", "then it is held")
        tap.equal(two.ask(f"drop {number}")[0], "OK", "drop")
        tap.equal(two.publish("ev.a", b"x", session=int(number))[0], "DENIED", "no more")
        tap.equal(one.ask(f"drop {brief}")[0], "OK", "an ephemeral one")
        tap.wait_until(lambda: sessions(two) == 2, 30, "is closed")
        one.sock.close()
        tap.equal(two.ask(f"use {number} 0")[0], "OK", "a free one outlives its connection")


def test_sessions_that_a_connection_holds_are_bounded():
    with line_broker() as (_, port), Line(port) as one:
        tags = [one.send(f"open - 60000 {EPHEMERAL}") for _ in range(65)]
        codes = [one.answer(tag)[0] for tag in tags]
        # limit: HELD_SESSIONS_MAX
        tap.equal(codes, ["OK"] * 64 + ["LIMIT"], "64, and one more")
        tap.wait_until(lambda: sessions(one) == 64, 30, "the one that is not held is closed")
        one.sock.close()
        with Line(port) as two:
            tap.wait_until(lambda: sessions(two) == 0, 30, "they end with their connection")


def test_attempts_of_one_client_are_taken_in_their_order():
    with line_broker() as (_, port), Line(port) as one, Line(port) as two, Line(port) as three:
        me = "00112233445566778899aabbccddeeff"
        one.open(more=f"{me} 2")
        for late in (two.ask(f"open - 1000 1 {me} 2"), two.ask(f"resume 1 00 1 {me} 1")):
            tap.equal(late[0], "STALE_ATTEMPT", "an attempt that is not new")
            tap.check("abandoned" in late[1] or late[1], f"and why: {late}")
        three.open(more=f"{me} 3")


def test_items_are_consumed_and_settled():
    with line_broker() as (_, port), Line(port) as one:
        one.topology()
        one.open()
        tap.equal(one.publish("work", *(b"%d" % i for i in range(4)), kind=QUEUE)[0], "OK", "put")
        opened = one.facts("consume 7 work 2 5000")
        tap.equal(opened["lease"], "5000", "the lease")
        first = one.effect(r"item 7 (\d+) (\d+) 0 0$")
        second = one.effect(r"item 7 (\d+) (\d+) 0 1$")
        tap.equal(one.effects, [], "no more than the credit")
        token, seq = first.group(1), first.group(2)
        tap.equal(one.ask(f"ack 7 {token} {seq} 1 {DONE}")[0], "OK", "done")
        tap.equal(one.ask(f"ack 7 {token} {seq} 1 {DONE}")[0], "STALE_TOKEN", "twice")
        one.send(f"ack 7 {second.group(1)} {second.group(2)} 1 {NACK} quiet")
        quiet = one.send(f"ack 7 {second.group(1)} 99 1 {DONE} quiet")
        tap.equal(one.answer(quiet)[0], "STALE_TOKEN", "a quiet one is answered when refused")
        tap.equal(one.ask("credit 7 3"), ("OK", ""), "credit")
        again = one.effect(r"item 7 (\d+) (\d+) 1 1$")
        tap.equal(again.group(2), second.group(2), "the item came back, after one attempt")
        tap.equal(one.ask("unsubscribe 7"), ("OK", ""), "unsubscribe")
        tap.equal(one.facts("sub 7")["closed"], "1", "a closed consumer is known for a while")
        tap.equal(
            one.ask(f"ack 7 {again.group(1)} {again.group(2)} 1 {RELEASE}")[0],
            "OK",
            "and its items may be settled",
        )
        one.facts("items 8 work")


def test_events_are_followed_from_every_place():
    with line_broker() as (_, port), Line(port) as one:
        one.topology()
        tap.equal(one.publish("ev.a", b"0", b"1", b"2")[0], "OK", "publish")
        tap.equal(one.publish("ev.b", b"3")[0], "OK", "publish")
        code = one.call("cursor_set", stream="events", cursor="mine", offset=1)
        tap.equal(code[0], "OK", "cursor_set")
        for number, (start, at, first) in enumerate(
            [
                (pb.FROM_FIRST, "-", 0),
                (pb.FROM_LAST, "-", 3),
                (pb.FROM_OFFSET, "2", 2),
                (pb.FROM_TIME, "0", 0),
                (pb.FROM_CURSOR, "mine", 1),
                (pb.FROM_CURSOR, "none", 0),
                (pb.FROM_NEW, "-", 4),
            ],
            1,
        ):
            opened = one.facts(f"follow {number} events 10 {start} {at} -")
            tap.equal(int(opened["start"]), first, f"where {start} begins")
            for offset in range(first, 4):
                one.effect(rf"event {number} {offset} ev\.. {offset}$")
            one.effect(rf"caught_up {number} 4$")
        one.facts("follow 20 events 1 1 - ev.b")
        one.effect(r"event 20 3 ev.b 3$")
        tap.equal(one.facts("sub 20")["credit"], "0", "its credit is used")
        tap.equal(one.ask("credit 20 5")[0], "OK", "credit")
        one.facts(f"follow 21 events 10 {pb.FROM_FIRST} - - raw")
        one.effect(r"raw 21 0 3 0$")
        tap.equal(one.call("stream_delete", name="events")[0], "OK", "stream_delete")
        one.effect(r"end \d+ NOT_FOUND")


def test_reads_see_the_commands_before_them():
    with line_broker() as (_, port), Line(port) as one:
        one.topology()
        tags = [one.publishing("work", b"x", kind=QUEUE) for _ in range(50)]
        read = one.request("queue_show", name="work")
        for tag in tags:
            tap.equal(one.answer(tag)[0], "OK", "put")
        code, reply = one.answer(read)
        shown = pb.Reply.FromString(bytes.fromhex(reply))
        tap.equal((code, shown.queues[0].ready), ("OK", 50), "the read came behind them")


def test_the_status_is_the_same_by_every_protocol():
    def fixed(status):
        return {
            name: getattr(status, name)
            for name in ("server", "version", "durability", "headroom", "headroom_text")
            + ("connections", "commits", "streams", "queues", "store_map_bytes")
        }

    with line_broker() as (broker, port), Line(port) as one:
        with Connection(broker.port) as native:
            mine, its = one.read("status_get").status, native.call("status_get").status
        tap.equal(fixed(mine), fixed(its), "the facts of the engine are in both")
        tap.equal((mine.server, mine.headroom, mine.connections), ("sluiced", "ok", 2), "facts")
        tap.check(mine.commits > 0 and mine.store_used_bytes > 0 and mine.wall_time_ms > 0, mine)


def test_a_wait_ends_with_its_job_or_in_time():
    with line_broker() as (_, port), Line(port) as one, Line(port) as two:
        number = one.submit("j")
        tap.equal(one.read("job_show", job="j").jobs[0].number, number, "its number")
        late = one.waited(one.send("wait j 0 30"))
        tap.equal((late[0], late[1].code), ("TIMEOUT", TIMEOUT), "it has not ended in time")
        tap.equal((late[1].jobs[0].state, late[2]), ("SUBMITTED", late[1].text), "as it is")
        tap.check("has not ended in time" in late[2], late[2])
        tags = [
            *(one.send(f"wait j {of} {ms}") for of in (0, number) for ms in (0, 600000)),
            one.request("job_wait", job="j", number=number),
        ]
        tap.equal(one.ask("facts")[0], "OK", "the connection goes on")
        tap.equal(one.answers, {}, "and none has ended")
        cancel = two.request("job_cancel", job="j")
        for tag in tags:
            code, reply, text = one.waited(tag)
            tap.equal((code, text, reply.code), ("OK", "", 0), "the job ended")
            tap.equal((reply.jobs[0].number, reply.jobs[0].terminal), (number, True), "this one")
        tap.equal(two.answer(cancel)[0], "OK", "job_cancel")
        tap.equal(one.waited(one.send(f"wait j {number} 0"))[1].jobs[0].terminal, True, "at once")


def test_a_wait_sees_the_commands_before_it():
    with line_broker() as (_, port), Line(port) as one:
        one.submit("j")
        cancel = one.request("job_cancel", job="j")
        tags = [
            one.request("job_wait", job="j"),
            one.request("job_show", job="j"),
            one.request("job_wait", job="none"),
        ]
        tap.equal(one.take_all(cancel, *tags), [cancel, *tags], "in this order")


def test_a_wait_is_for_the_job_with_that_number():
    with line_broker() as (_, port), Line(port) as one:
        first = one.submit("j")
        waiting = one.send(f"wait j {first} 0")
        tap.equal(one.call("job_cancel", job="j")[0], "OK", "job_cancel")
        tap.equal(one.waited(waiting)[0], "OK", "it has ended")
        tap.equal(one.call("job_retention", keep_ms=1)[0], "OK", "job_retention")
        tap.wait_until(lambda: one.read("job_show", job="j").code != 0, 30, "it is forgotten")
        code, reply, text = one.waited(one.send("wait j 0 0"))
        tap.equal((code, reply.text), ("NOT_FOUND", text), f"there is none: {text}")
        tap.equal(one.call("job_retention", keep_ms=86400000)[0], "OK", "job_retention")
        second = one.submit("j")
        for tag in (
            one.send(f"wait j {first} 0"),
            one.request("job_wait", job="j", number=first),
            one.send(f"wait none {first} 0"),
        ):
            code, reply, text = one.waited(tag)
            tap.equal((code, reply), ("NOT_FOUND", None), "the number of a forgotten one")
            tap.check(f"of number {first} was forgotten" in text, text)
        tap.equal(one.waited(one.send(f"wait j {second} 20"))[0], "TIMEOUT", "the new one")


def test_waits_are_bounded():
    most = 4096  # limit: INFLIGHT_REQUESTS_MAX
    with line_broker() as (_, port), Line(port) as one, Line(port) as two:
        one.submit("j")
        tags = [one.send("wait j 0 0") for _ in range(most + 1)]
        code, reply, text = one.waited(tags.pop())
        tap.equal((code, reply), ("BUSY", None), "one more than the maximum")
        tap.check(f"waits for {most} jobs" in text, text)
        tap.equal(two.waited(two.send("wait j 0 10"))[0], "TIMEOUT", "another connection may wait")
        tap.equal(one.call("job_cancel", job="j")[0], "OK", "job_cancel")
        tap.equal({one.waited(tag)[0] for tag in tags}, {"OK"}, "all are answered")


def test_a_connection_that_ends_while_it_waits_leaves_nothing_behind():
    ways = [lambda sock: sock.close(), reset, lambda sock: sock.shutdown(socket.SHUT_WR)]
    with line_broker() as (broker, port), Line(port) as watcher:
        watcher.submit("j")
        gone = []
        for way in (*ways, None):
            one = Line(port)
            tags = [one.send(f"wait j 0 {ms}") for ms in (0, 600000, 60)]
            tap.equal(one.waited(tags[2])[0], "TIMEOUT", "it waits")
            if way is None:
                one.send("close")
                tap.equal((one.is_closed(), one.answers.keys() & tags), (True, set()), "closed")
            else:
                way(one.sock)
            gone.append(one)
        tap.wait_until(lambda: connections(broker) == 1, 30, "they are gone")
        waiting = watcher.send("wait j 0 0")
        tap.equal(watcher.call("job_cancel", job="j")[0], "OK", "job_cancel")
        tap.equal(watcher.waited(waiting)[0], "OK", "who is there is answered")
        for one in gone:
            one.sock.close()


def test_a_broker_stops_while_connections_wait():
    with tap.Scratch() as data:
        with line_broker(data) as (broker, port), Line(port) as one, Line(port) as two:
            one.submit("j")
            tags = [each.send(f"wait j 0 {ms}") for each in (one, two) for ms in (0, 600000)]
            for each in (one, two):
                tap.equal(each.ask("facts")[0], "OK", "it waits")
            busy = Line(port)
            busy.submit("k")
            waiting = busy.send("wait k 0 0")
            puts = [busy.publishing("runs", b"x") for _ in range(500)]
            cancel = busy.request("job_cancel", lane="data", job="k")
            busy.answer(puts[0])
            broker.stop()
            tap.check(busy.is_closed(), "the connection ends")
            busy.sock.close()
            tap.equal(
                waiting in busy.answers, cancel in busy.answers, "a job that ended has no waits"
            )
            for each in (one, two):
                tap.check(each.is_closed(), "the connection ends")
                tap.check(not each.answers.keys() & set(tags), f"no wait ended: {each.answers}")
                tap.equal([e.split()[0] for e in each.effects], ["stop"], "it was told")
        with line_broker(data) as (_, port), Line(port) as one:
            tap.equal(one.waited(one.send("wait j 0 10"))[0], "TIMEOUT", "the job is still open")


def test_a_connection_that_holds_goes_on_with_the_next_answer():
    with line_broker() as (_, port), Line(port) as one:
        one.topology()
        put = one.publishing("work", b"x", kind=QUEUE)
        hold, last = one.send("hold"), one.send("facts")
        order = one.take_all(put, hold, last)
        tap.equal(order[-1], last, f"nothing behind it is parsed before: {order}")


def test_time_is_kept_for_a_connection():
    with line_broker() as (_, port), Line(port) as one, Line(port) as two:
        tap.equal(one.ask("timer 3600000")[0], "OK", "timer")
        tap.equal(one.ask("timer 20")[0], "OK", "another time")
        one.effect("timer$")
        tap.equal(one.ask("timer 20")[0], "OK", "timer")
        tap.equal(one.ask("timer 0")[0], "OK", "never")
        tap.equal(two.ask("idle 200")[0], "OK", "idle")
        tap.check(two.is_closed(), "a silent peer is closed")
        tap.equal(one.effects, [], "a timer that was taken back")


def test_a_held_connection_ends_with_its_peer():
    with line_broker() as (broker, port):
        one = Line(port)
        tap.equal(one.ask("hold")[0], "OK", "hold, with nothing under way")
        one.sock.sendall(b"facts\n" * 100)
        one.sock.close()
        tap.wait_until(lambda: connections(broker) == 0, 30, "its end is seen")


def test_bytes_in_pieces_are_one_command():
    with line_broker() as (_, port), Line(port) as one:
        one.topology()
        body = os.urandom(300000)
        events = envelope(body)
        whole = f"publish 1 work 1 0 {len(events)}\n".encode() + events
        one.tag += 1
        for i in range(0, len(whole), 70001):
            one.sock.sendall(whole[i : i + 70001])
        tap.equal(one.answer(one.tag)[0], "OK", "a command in pieces")
        for byte in b"facts\n":
            one.sock.sendall(bytes([byte]))
        one.tag += 1
        tap.equal(one.answer(one.tag)[0], "OK", "and a line byte by byte")


def test_output_is_bounded():
    with line_broker() as (_, port), Line(port) as one:
        one.send("write 1000")
        tap.equal(one.line(), "x" * 1000, "it is sent")
        one.send(f"write {80 << 20}")
        with contextlib.suppress(Closed):
            while True:
                one.sock.recv(1 << 20) or (_ for _ in ()).throw(Closed)
        tap.check(Line(port).facts(), "beyond the bound the connection is closed, not the broker")


# ---- refusals ----


def test_each_refusal_has_its_code():
    """By the state of a connection: before it has entered, without a session, with one."""
    with line_broker() as (_, port), Line(port, gateway=None) as one:
        event = envelope(b"x")
        publish = f"publish 0 ev.a 1 0 {len(event)}"

        def refused(text, code, says="", after=b""):
            got = one.ask(text, after)
            tap.check(got[0] == code and says in got[1], f"{text!r}: {got}, expected {code}")

        # Nothing is possible before `enter`.
        refused("open - 1000 1", "WRONG_STATE")
        refused("resume 1 00", "WRONG_STATE")
        refused(publish, "WRONG_STATE", after=event)
        refused("consume 1 work 1", "WRONG_STATE", "needs a gateway")
        refused("follow 1 events 1 1 - -", "WRONG_STATE", "needs a gateway")
        refused("ack 1 1 1 1 0", "WRONG_STATE")
        refused("wait j 0 0", "WRONG_STATE")
        tap.equal(one.call("queue_create", config={"name": "work"})[0], "WRONG_STATE", "a command")
        tap.equal(one.call("queue_show", name="work")[0], "WRONG_STATE", "a read")
        refused("enter nowhere", "NOT_FOUND")
        refused("enter -", "NOT_FOUND")
        refused("enter default", "OK")
        refused("enter default", "OK")
        refused("enter nowhere", "NOT_FOUND")
        one.topology()
        tap.equal(one.call("gateway_create", name="other")[0], "OK", "another gateway")

        # Without a session.
        refused("consume 1 work 1", "WRONG_STATE", "needs a session")
        refused("resume 1 00", "SESSION_GONE")
        refused("enter other", "OK")
        refused("enter default", "OK")
        refused("follow 1 nothing 1 1 - -", "NOT_FOUND", "'nothing'")
        refused("follow 1 events 1 99 - -", "INVAL")
        refused("follow 1 events 1 1 - a..b", "INVAL", "filter")
        refused("follow 0 events 1 1 - -", "INVAL", "number 0")
        refused("follow 1 events 1000001 1 - -", "LIMIT", "credit of 1000001")
        refused("follow 1 events 1000000 1 - -", "OK")  # limit: CREDIT_MAX
        refused("follow 1 events 1 1 - -", "EXISTS", "in use")
        refused("enter other", "WRONG_STATE")
        refused("credit 1 1000001", "LIMIT")
        refused("credit 2 1", "NOT_FOUND")
        refused("unsubscribe 2", "NOT_FOUND")
        refused("sub 2", "NOT_FOUND")
        refused("ack 1 1 1 1 0", "NOT_FOUND")
        refused("unsubscribe 1", "OK")
        refused("enter other", "OK")
        refused("enter default", "OK")

        # With one.
        one.open()
        refused("enter other", "WRONG_STATE")
        refused("consume 1 nothing 1", "NOT_FOUND", "'nothing'")
        refused("consume 1 work 1 99", "LIMIT", "lease_ms is 99")
        refused("consume 1 work 1 0 0 - 999", "NOT_FOUND", "deleted and created again")
        refused("consume 1 work 1 100 1 nobody", "BUSY", "'nobody'")
        refused("consume 1 work 1 100", "OK")
        refused("consume 1 work 1 100", "EXISTS", "in use")
        refused("ack 1 77 1 1 0", "STALE_TOKEN")
        refused("ack 1 77 1 1 9", "PROTOCOL")
        tap.equal(
            one.call("queue_create", config={"name": "runs", "kind": "QUEUE_JOBS"})[0], "OK", ""
        )
        refused("items 2 runs", "UNSUPPORTED", "holds jobs")

        # Input that is wrong.
        refused("nonsense", "UNKNOWN_TYPE")
        refused("", "UNKNOWN_TYPE")
        refused("publish 0 ev.* 1 0 9", "INVAL", after=b"123456789")
        refused("publish 0 ev.a 1 0 3", "PROTOCOL", after=b"abc")
        refused("publish 0 ev.a 0 0 0", "PROTOCOL", "no events")
        refused("publish 9 ev.a 1 0 %d" % len(event), "PROTOCOL", "target kind", event)
        refused("publish 1 - 1 0 %d" % len(event), "PROTOCOL", "target name", event)
        many = envelope(b"") * 10001
        refused("publish 1 work 10001 0 %d" % len(many), "LIMIT", "BATCH_EVENTS_MAX", many)
        refused("publish 1 nothing 1 0 %d" % len(event), "NOT_FOUND", after=event)
        refused("request data 0 3", "PROTOCOL", after=b"abc")
        refused("request data 0 0", "UNSUPPORTED")
        refused("wait none 0 0", "NOT_FOUND", "none")
        refused("wait - 0 0", "NOT_FOUND")
        refused(f"wait {'j' * 255} 0 0", "NOT_FOUND")  # limit: NAME_BYTES_MAX
        refused(f"wait {'j' * 256} 0 0", "LIMIT", "has 256 bytes")
        one.sock.sendall(b"wait j\xff 0 0\n")
        one.tag += 1
        tap.equal(one.answer(one.tag)[0], "INVAL", "an id that is no text")
        refused("facts", "OK")


def test_subscriptions_are_bounded():
    with line_broker() as (_, port), Line(port) as one:
        one.topology()
        tags = [one.send(f"follow {i} events 0 1 - -") for i in range(1, 1026)]
        codes = [one.answer(tag)[0] for tag in tags]
        # limit: SUBSCRIPTIONS_MAX
        tap.equal(codes, ["OK"] * 1024 + ["LIMIT"], "1024, and one more")
        tap.equal(one.ask("unsubscribe 1")[0], "OK", "one is ended")
        tap.equal(one.ask("follow 1025 events 0 1 - -")[0], "OK", "then there is room")


def test_input_that_is_too_large_ends_its_connection():
    with line_broker() as (_, port):
        for text in (
            b"x" * 4096,
            b"request data 0 99999999999\n",
            b"publish 1 work 1 0 17825793\n",
        ):
            with Line(port) as one:
                one.sock.sendall(text)
                one.tag += 1
                tap.equal(one.answer(one.tag)[0], "LIMIT", f"{text[:40]!r}")
                tap.check(one.is_closed(), "and the connection is closed")
        with Line(port) as one:
            tap.equal(one.ask("x" * 4094)[0], "UNKNOWN_TYPE", "the longest line is one command")


def test_a_session_of_another_needs_its_secret():
    with line_broker() as (_, port), Line(port) as one, Line(port) as two:
        own = one.open()
        for session, secret in [
            (own["session"], "-"),
            (own["session"], own["secret"][:-2]),
            (own["session"], own["secret"][:-1] + ("0" if own["secret"][-1] != "0" else "1")),
            (int(own["session"]) + 1, own["secret"]),
            (0, own["secret"]),
        ]:
            tap.equal(two.ask(f"resume {session} {secret}")[0], "SESSION_GONE", f"{session}")
        tap.equal(two.facts()["session"], "0", "it holds none")
        tap.equal(two.ask("consume 1 work 1")[0], "WRONG_STATE", "and is given nothing")
        tap.equal(one.ask("facts")[0], "OK", "the owner keeps it")
        tap.equal(two.call("gateway_create", name="other")[0], "OK", "gateway_create")
        tap.equal(two.ask("enter other")[0], "OK", "in another gateway")
        tap.equal(
            two.ask(f"resume {own['session']} {own['secret']}")[0],
            "SESSION_GONE",
            "the secret is of no use",
        )


DENIED = {
    "session": ["open - 1000 1", "resume 1 00 1", "use 1 1"],
    "publish": ["publish 0 ev.a 1 0 {}"],
    "stream.read": ["follow 1 events 1 1 - -"],
    "queue.claim": ["consume 1 work 1"],
    "queue.create": [],
    "queue.show": [],
    "job.show": ["wait j 0 0"],
}


def test_a_rule_refuses_by_permission_and_object():
    event = envelope(b"x")
    with tap.Scratch() as data:
        with line_broker(data) as (_, port), Line(port) as one:
            one.topology()
            one.topology_of("free")
        for permission, texts in DENIED.items():
            with line_broker(data, LINE_DENY=permission) as (_, port), Line(port) as one:
                if permission != "session":
                    one.open()
                for text in texts:
                    code = one.ask(
                        text.format(len(event)), event if text.startswith("publish") else b""
                    )
                    tap.equal(code[0], "DENIED", f"{text} without {permission}")
                if permission == "queue.create":
                    code = one.call("queue_create", config={"name": "more"})
                    tap.equal(code[0], "DENIED", permission)
                if permission == "queue.show":
                    tap.equal(one.call("queue_show", name="work")[0], "DENIED", permission)
                tap.equal(one.ask("facts")[0], "OK", "the connection stays")
        with line_broker(data, LINE_DENY="publish:ev.secret,queue.claim:work") as (_, port):
            with Line(port) as one:
                one.open()
                tap.equal(one.publish("ev.a", b"x")[0], "OK", "another subject")
                tap.equal(one.publish("ev.secret", b"x")[0], "DENIED", "this one")
                tap.equal(one.publish("ev.a", b"x")[0], "OK", "another subject, again")
                tap.equal(one.ask("consume 1 work 1")[0], "DENIED", "a queue")
                tap.equal(one.ask("consume 1 free 1")[0], "OK", "another queue")


# ---- a peer that leaves, a broker that stops, a bound that is met, at each step ----


def consume(one):
    one.facts(f"consume 1 work 1 0 {SESSION_LEASE}")
    one.token, one.seq = one.effect(r"item 1 (\d+) (\d+) ").groups()


def settle(one):
    tap.equal(one.ask(f"ack 1 {one.token} {one.seq} 1 {DONE}")[0], "OK", "ack")


def follow(one):
    one.facts("follow 2 events 1 0 - -")
    one.effect("event 2 0 ")


def publish(one):
    tap.equal(one.publish("ev.a", b"x")[0], "OK", "publish")


def put(one):
    tap.equal(one.publish("work", b"1", b"2", b"3", kind=QUEUE)[0], "OK", "put")


def ok(text):
    def step(one):
        tap.equal(one.ask(text)[0], "OK", text)

    step.__name__ = text.split()[0]
    return step


def hold(one):
    put_tag, hold_tag = one.publishing("work", b"4", kind=QUEUE), one.send("hold")
    tap.equal([one.answer(tag)[0] for tag in (put_tag, hold_tag)], ["OK"] * 2, "hold")


# Each needs the ones before it.
STEPS = [
    ok("facts"),
    ok("enter default"),
    ok(f"open - {SESSION_MS} {ATTACH}"),
    publish,
    put,
    consume,
    ok("credit 1 1"),
    settle,
    follow,
    ok("credit 2 5"),
    lambda one: one.read("queue_show", name="work"),
    lambda one: tap.equal(
        one.call("cursor_delete", cursor="no", stream="events")[0], "NOT_FOUND", ""
    ),
    hold,
]


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_peer_that_leaves_at_any_step_leaves_nothing_behind():
    ways = [lambda sock: sock.close(), reset, lambda sock: sock.shutdown(socket.SHUT_WR)]
    with line_broker() as (broker, port), Line(port) as watcher:
        watcher.topology()
        watcher.open(timeout=600000)
        gone = []
        for count in range(len(STEPS) + 1):
            for way in ways:
                one = Line(port, gateway=None)
                for step in STEPS[:count]:
                    step(one)
                way(one.sock)
                gone.append(one)
                # And one whose last command is under way.
                if 1 < count < len(STEPS):
                    two = Line(port)
                    two.send(f"open - {SESSION_MS} {ATTACH}")
                    two.send("consume 1 work 1 1000")
                    two.send("follow 2 events 100 0 - -")
                    two.publishing("work", b"9", kind=QUEUE)
                    two.request("queue_show", name="work")
                    way(two.sock)
                    gone.append(two)
        tap.wait_until(lambda: connections(broker) == 1, 30, "the broker knows that they have gone")
        tap.wait_until(lambda: sessions(watcher) == 1, 30, "their sessions expire")

        def queue():
            return watcher.read("queue_show", name="work").queues[0]

        tap.wait_until(lambda: queue().leased == 0, 30, "nothing is held")
        before = queue()
        put(watcher)
        after = queue()
        tap.equal((after.ready, after.leased), (before.ready + 3, 0), "nobody consumes")
        for one in gone:
            one.sock.close()


def test_a_broker_that_stops_at_any_step_says_so_and_loses_nothing():
    with tap.Scratch() as data:
        with line_broker(data) as (broker, port):
            all_of = []
            with Line(port) as one:
                one.topology()
            for count in range(len(STEPS) + 1):
                one = Line(port, gateway=None)
                for step in STEPS[:count]:
                    step(one)
                all_of.append(one)
            busy = Line(port)
            tags = [busy.publishing("work", b"last", kind=QUEUE) for _ in range(500)]
            tap.equal(busy.answer(tags[0])[0], "OK", "it has begun")
            broker.stop()
            for one in (*all_of, busy):
                tap.check(one.is_closed(), "the connection ends")
                one.sock.close()
                tap.equal(
                    [effect.split()[0] for effect in one.effects if "stop" in effect],
                    ["stop"],
                    "after it was told",
                )
            stored = 1 + sum(code == "OK" for code, _ in busy.answers.values())
        with line_broker(data) as (_, port), Line(port) as one:
            one.topology()
            got = one.read("queue_peek", name="work", max=1000).items
            tap.equal(
                sum(item.body == b"last" for item in got), stored, "what it answered is stored"
            )


def with_faults(plan, steps):
    """steps(one) with a broker of which calls fail by the plan; its topology is there."""
    with tap.Scratch() as data:
        with line_broker(data) as (_, port), Line(port) as one:
            one.topology()
            publish(one)
            put(one)
        with line_broker(data, LINE_FAIL=plan) as (broker, port), Line(port, gateway=None) as one:
            steps(one)
            tap.check(b"plan: " in broker.text(), f"the plan {plan} was used")


def test_a_bound_that_is_met_at_any_step_delays_it():
    """Every other submission and credit finds the broker at its bound, beginning with the first."""

    def steps(one):
        for step in STEPS:
            step(one)

    with_faults(f"engine_submit_quietly:{BUSY}:1:2,engine_consumer_credit:{BUSY}:1:2", steps)


def test_a_small_inbox_delays_and_refuses_nothing():
    body = os.urandom(1 << 18)
    with line_broker(args=["--set", "inbox_mib=1"]) as (_, port):
        lines = [Line(port) for _ in range(4)]
        lines[0].topology()
        tags = [[one.publishing("work", body, kind=QUEUE) for _ in range(12)] for one in lines]
        for one, mine in zip(lines, tags):
            tap.equal([one.answer(tag)[0] for tag in mine], ["OK"] * 12, "all are taken")
            one.sock.close()


def test_memory_that_is_missing_at_any_step_refuses_it():
    """The calls that need memory fail once; the same line is taken afterwards."""

    def twice(one, text, code="NOMEM"):
        tap.equal(one.ask(text)[0], code, f"{text}: refused")
        got = one.ask(text)
        tap.equal(got[0], "OK", f"{text}: afterwards")
        return got[1]

    def attach(one):
        ok("enter default")(one)
        session = twice(one, f"open - {SESSION_MS} {ATTACH}").split()
        tap.wait_until(lambda: sessions(one) == 1, 30, "the one that was lost ends")
        tap.check(one.facts()["session"] in session[0], "the other one is attached")

    def resume(one):
        ok("enter default")(one)
        own = one.open(timeout=600000)
        port = one.sock.getpeername()[1]
        with Line(port) as two:
            twice(two, f"resume {own['session']} {own['secret']} {ATTACH}")

    def consumer(one):
        ok("enter default")(one)
        ok("open - 600000 1")(one)
        twice(one, "consume 1 work 1")
        one.effect("item 1 ")

    def store(text, before):
        def step(one):
            for line in before:
                ok(line)(one)
            twice(one, text)

        return step

    def wait(one):
        ok("enter default")(one)
        tap.equal(one.waited(one.send("wait none 0 0"))[:2], ("NOMEM", None), "wait: refused")
        tap.equal(one.waited(one.send("wait none 0 0"))[0], "NOT_FOUND", "wait: afterwards")

    with_faults(f"engine_session_attach:{NOMEM}:1:1000", attach)
    with_faults(f"engine_session_attach:{NOMEM}:2:1000", resume)
    with_faults(f"engine_read_begin:{NOMEM}:3:1000", wait)
    with_faults(f"engine_consumer_open:{NOMEM}:1:1000", consumer)
    entered, opened = "enter default", "open - 600000 1"
    for number, text, before in [
        (2, entered, []),  # the first one is made at the start
        (3, "follow 2 events 1 0 - -", [entered]),
        (3, "consume 1 work 1", [entered, opened]),
    ]:
        with_faults(f"engine_read_begin:{NOMEM}:{number}:1000", store(text, before))


def test_a_session_that_could_not_be_resumed_is_not_lost():
    """Of the native protocol, which opens another one when its session has ended."""
    for plan in (f"engine_session_attach:{NOMEM}:2:1000", f"engine_read_begin:{NOMEM}:5:1000"):
        with line_broker(LINE_FAIL=plan) as (broker, _):
            with Connection(broker.port, client="one") as one:
                session = {
                    "session_id": one.welcome.session_id,
                    "session_secret": one.welcome.session_secret,
                }
            try:
                with Connection(broker.port, **session):
                    raise tap.Failed(f"{plan}: it was not used")
            except Ended as closed:
                tap.equal(closed.failure.code, BUSY, f"{plan}: it may be tried again")
            with Connection(broker.port, **session) as one:
                tap.check(one.welcome.resumed, "and is resumed then")


# ---- memory ----

CONNECTIONS = 1000000 if tap.LONG else 20000
AT_ONCE = 50
# The cache of the store keeps what it knows of sessions that have ended: 175 bytes each, up to
# 200,000 of them. 10^6 connections here open 30,000 sessions.
GROWTH_BYTES = 8 << 20


def anonymous(broker):
    """Bytes of the process's own memory: without the map of the store."""
    with open(f"/proc/{broker.pid}/status", encoding="utf-8") as file:
        return int(re.search(r"RssAnon:\s+(\d+)", file.read()).group(1)) << 10


def parts_of(number):
    """What a connection may do, in this order."""
    event = envelope(b"x" * 100)
    return [
        b"enter default\n",
        b"follow 2 events 100 6 - -\n",
        b"publish 0 ev.a 1 0 %d\n" % len(event) + event,
        b"open - 1000 %d\n" % (1 + number % 3),
        b"consume 1 work 100\n",
        b"ack 1 1 1 1 0\n",
        b"unsubscribe 2\n",
        b"nonsense\n",
        b"hold\n",
    ]


def passing(port, numbers):
    """Connections that do a part of what there is to do, and leave in one of four ways."""
    socks = []
    for number in numbers:
        parts = parts_of(number)
        # Few of them have a session: each is a commit.
        count = number % 3 if number % 20 else number // 20 % (len(parts) + 1)
        sock = socket.create_connection(("127.0.0.1", port), 30)
        sock.sendall(b"".join(parts[:count]))
        socks.append((number, count, sock))
    for number, count, sock in socks:
        way, answers = number % 4, 0
        while way < 2 and answers < min(count, 3):
            answers += sock.recv(1 << 16).count(b"\n")
        if way == 0:
            sock.close()
        elif way == 1:
            sock.sendall(b"close\n")
            sock.close()
        else:
            reset(sock)


def test_many_connections_leave_no_memory_behind():
    with line_broker() as (broker, port), Line(port) as watcher:
        watcher.topology()
        watcher.open(timeout=86400000)
        seen = []
        for first in range(0, CONNECTIONS, AT_ONCE):
            passing(port, range(first, first + AT_ONCE))
            if first % (CONNECTIONS // 10) == 0:
                tap.equal(watcher.ask("facts")[0], "OK", "the broker serves others")
                seen.append(anonymous(broker))
        tap.wait_until(lambda: connections(broker) == 1, 60, "all have gone")
        seen.append(anonymous(broker))
    print("MiB of memory:", *(f"{bytes_ / (1 << 20):.1f}" for bytes_ in seen))
    tap.not_sanitized("a sanitizer keeps freed memory")
    # A tenth is the warm-up.
    tap.check(seen[-1] - seen[2] <= GROWTH_BYTES, f"flat: {seen}")


tap.main(globals(), 7200 if tap.LONG else 120)
