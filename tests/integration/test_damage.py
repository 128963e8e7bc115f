#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Records of a queue that are damaged on disk: the consumer is notified with the key, and undamaged
items are delivered."""
import contextlib
import os
import subprocess
import sys
import tempfile

import tap
from frame_proxy import FrameProxy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import Connection, envelope, pb  # noqa: E402

CORRUPT = -52


def damage(data, table, *key):
    done = subprocess.run(
        [tap.program("tests/integration/damage"), data, table, "/".join(str(part) for part in key)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    tap.equal(done.returncode, 0, f"damaged {table} {key}: {done.stderr}")


def put(one, bodies, priority=None):
    answer = one.publish(
        [envelope(body, priority=priority) for body in bodies],
        "put",
        target=client.TO_QUEUE,
        name="work",
    )
    tap.equal(answer.code, 0, f"put: {answer.text}")


def create(one, name="work", **config):
    one.call("queue_create", pb.QueueCreate(config=pb.QueueConfig(name=name, **config)))
    return queue(one, name).id


def queue(one, name="work"):
    return one.call("queue_show", name=name).queues[0]


def lines(process, *expected):
    """Waits until the probe has printed these lines, in any order, and no others of their kind."""
    wanted = sorted(expected)

    def seen():
        return sorted(
            line.decode()
            for line in process.text().splitlines()
            if line.split()[0] in (b"item", b"job", b"end", b"error")
        )

    tap.wait_until(lambda: len(seen()) >= len(wanted), 30, f"{wanted} is printed: {process.tail()}")
    for line, want in zip(seen(), wanted):
        tap.check(line.startswith(want), f"{line!r} begins with {want!r}")
    tap.equal(len(seen()), len(wanted), "nothing else is printed")


def probe(broker, name="work"):
    return tap.Process(
        [tap.program("tests/integration/damage_probe"), broker.address, name], ready=rb"consuming"
    )


def test_a_damaged_item_is_named_and_the_others_are_delivered():
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            number = create(one)
            put(one, [b"a", b"b", b"c", b"d", b"e"])
        first = first_item(data, number)
        for which in (0, 2):
            damage(data, "item", 1, number, first + which)
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            process = probe(broker)
            try:
                lines(
                    process,
                    "item b",
                    "item d",
                    "item e",
                    (
                        f"error CORRUPT number {first} of queue work is damaged and not delivered:"
                        " table item, key "
                    ),
                    (
                        f"error CORRUPT number {first + 2} of queue work is damaged and not"
                        " delivered: table item, key "
                    ),
                )
                put(one, [b"f"])
                tap.wait_until(lambda: b"item f\n" in process.text(), 30, "the consumer goes on")
                tap.wait_until(lambda: queue(one).leased == 0, 30, "all are acked")
                tap.equal((queue(one).ready, queue(one).acked), (0, 4), "ready and acked")
            finally:
                process.kill()
            tap.equal(broker.text().count(b"id=store.corrupt"), 2, "the broker's log has both")
            damaged = one.call("status_get").status.commits_damaged
            tap.check(1 <= damaged <= 2, f"{damaged} commits met them, as the status says")
            tap.equal(broker.text().count(b"id=engine.damaged"), 1, "which is logged once")


def first_item(data, number):
    """The first item number of a queue, from the dump of a store that no broker has open."""
    done = subprocess.run(
        [tap.program("broker/sluiced"), "--dump", data], capture_output=True, text=True, timeout=60
    )
    found = [
        int(line.split()[1].split("/")[2])
        for line in done.stdout.splitlines()
        if line.startswith(f"item 1/{number}/")
    ]
    tap.check(found, "the queue has items")
    return min(found)


def test_damage_among_requeued_items_is_named_and_passed_by():
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            number = create(one)
            put(one, [b"a", b"b", b"c"])
            one.call("consume_open", queue="work", credit=2, subscription=1)
            got = one.deliver(1)
            one.ack(1, got.token, [(got.numbers[0], 2)], client.NACK)
        first = first_item(data, number)
        damage(data, "item", 1, number, first)
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            one.call("consume_open", queue="work", credit=5, subscription=1)
            told = one.notice("DAMAGED")
            tap.equal(
                (told.subscription, told.code, told.offset),
                (1, CORRUPT, first),
                "the notice names subscription, code and item",
            )
            tap.equal([event.body for event in one.events(1, 2)], [b"b", b"c"], "the others come")
            tap.equal((queue(one).ready, queue(one).leased), (0, 2), "ready and leased")


def test_a_resumed_session_is_told_which_of_its_items_is_damaged():
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data) as broker:
            one = Connection(broker.port)
            number = create(one)
            put(one, [b"a", b"b", b"c"])
            one.call("consume_open", queue="work", credit=3, lease_ms=600000, subscription=1)
            got = one.deliver(1)
            broker.kill()
        damage(data, "item", 1, number, got.numbers[1])
        with tap.Broker(data=data) as broker:
            again = Connection(
                broker.port,
                session_id=one.welcome.session_id,
                session_secret=one.welcome.session_secret,
            )
            again.call("consume_open", queue="work", credit=3, resume=True, subscription=1)
            tap.equal(again.notice("DAMAGED").offset, got.numbers[1], "the notice names the item")
            back = again.deliver(1)
            tap.equal(
                (back.token, [event.body for event in back.events]),
                (got.token, [b"a", b"c"]),
                "the others come again",
            )
            tap.equal(
                again.ack(1, back.token, [(back.numbers[0], 1), (back.numbers[1], 1)]).affected,
                2,
                "and are acked",
            )


def test_a_damaged_job_is_named_and_the_others_are_delivered():
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            create(one, "runs", kind=pb.QUEUE_JOBS)
            create(one, "others", kind=pb.QUEUE_JOBS)
            numbers = [
                one.call("job_submit", job=name, queue="runs").job_submitted.number
                for name in ("a", "b", "c", "d", "e")
            ]
            one.call("job_submit", job="other", queue="others")
        damage(data, "job", 1, numbers[3])
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            process = probe(broker, "runs")
            other = probe(broker, "others")
            try:
                lines(
                    process,
                    "job a",
                    "job b",
                    "job c",
                    "job e",
                    (
                        f"error CORRUPT number {numbers[3]} of queue runs is damaged and not"
                        " delivered: table job, key "
                    ),
                )
                lines(other, "job other")
            finally:
                process.kill()
                other.kill()
            tap.equal(broker.text().count(b"id=store.corrupt"), 1, "the broker's log has it")
            shown = queue(one, "runs")
            tap.equal(
                (shown.ready, shown.delayed, shown.leased + shown.orphaned),
                (0, 1, 4),
                "it is open, and has no holder",
            )
            one.call("consume_open", queue="runs", credit=5, orphans=True, subscription=1)
            tap.equal(
                [len(one.deliver(1).jobs), queue(one, "runs").delayed],
                [4, 1],
                "it does not delay the next consumer either",
            )
            tap.equal(one.call("job_cancel", job="d").code, 0, "it can be cancelled")
            tap.equal(queue(one, "runs").delayed, 0, "and is not counted any more")


def test_a_resumed_session_is_told_of_jobs_before_it_is_told_of_entries():
    """An entry may have the number of a job that the session held, but must not be taken for that
    job, whose lease was lost meanwhile."""
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data) as broker, Connection(broker.port) as other:
            one = Connection(broker.port)
            number = create(other, "runs", kind=pb.QUEUE_JOBS)
            jobs = [
                other.call("job_submit", job=name, queue="runs").job_submitted.number
                for name in ("a", "b", "c")
            ]
            one.call("consume_open", queue="runs", credit=2, subscription=1)
            one.deliver(1)
            tap.wait_until(lambda: queue(other, "runs").leased == 2, 30, "two are held")
            one.close()
            other.call("job_reset", job="a", force=True)  # its new entry is the fourth
            other.call("job_submit", job="d", queue="runs")
        entry = first_item(data, number)
        for which in (0, 1, 2):
            damage(data, "item", 1, number, entry + which)
        with tap.Broker(data=data) as broker:
            again = Connection(
                broker.port,
                session_id=one.welcome.session_id,
                session_secret=one.welcome.session_secret,
            )
            again.call("consume_open", queue="runs", credit=9, resume=True, subscription=1)
            told = []
            while len(told) < 4:
                frame = again.wait(client.NOTICE)
                told.append(pb.Notice.FromString(frame.body))
            tap.equal(
                [pb.NoticeKind.Name(notice.kind) for notice in told],
                ["NOTICE_RESUMED"] + 3 * ["NOTICE_DAMAGED"],
                "the order",
            )
            tap.check(
                {notice.offset for notice in told[1:]} & set(jobs),
                "an entry has the number of a job",
            )


def test_a_lease_of_a_damaged_item_runs_out_and_other_timers_go_on():
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data) as broker:
            one = Connection(broker.port)
            number = create(one)
            create(one, "other")
            put(one, [b"a", b"b", b"c"])
            one.publish([envelope(b"x")], "put", target=client.TO_QUEUE, name="other")
            one.call("consume_open", queue="work", credit=3, lease_ms=3000, subscription=1)
            got = one.deliver(1)
            one.call("consume_open", queue="other", credit=1, lease_ms=3000, subscription=2)
            one.deliver(2)
            broker.kill()
        damage(data, "item", 1, number, got.numbers[1])
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            tap.wait_until(
                lambda: queue(one).leased == 0 and queue(one, "other").leased == 0,
                30,
                "both leases run out",
            )
            tap.equal((queue(one).ready, queue(one, "other").ready), (2, 1), "what is ready again")
            tap.wait_until(lambda: b"id=store.corrupt" in broker.text(), 30, "the damage is logged")
            one.call("consume_open", queue="work", credit=5, subscription=1)
            tap.equal([event.body for event in one.events(1, 2)], [b"a", b"c"], "the others come")


class Joined(FrameProxy):
    """Forwards everything from the answer to a follow to the end of the subscription in one
    piece."""

    def __init__(self, port):
        super().__init__(port)
        self.pieces, self.kinds = b"", []

    def take(self, source, sink, name, frame, link):
        opened = (
            name == "broker"
            and frame[4] == client.REPLY
            and pb.Reply.FromString(frame[10:]).HasField("follow_opened")
        )
        if name != "broker" or not (opened or self.pieces):
            sink.sendall(frame)
            return
        self.pieces += frame
        self.kinds.append(frame[4])
        if (
            frame[4] == client.NOTICE
            and pb.Notice.FromString(frame[10:]).kind == pb.NOTICE_SUBSCRIPTION_END
        ):
            sink.sendall(self.pieces)
            self.pieces = b""


def test_a_follower_has_the_events_before_a_damaged_segment():
    """Even if the end arrives before sluice_follow() has returned."""
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            one.call("stream_create", config={"name": "s", "subjects": ["s.>"]})
            for body in (b"a", b"b", b"c"):
                tap.equal(one.publish([envelope(body)], "s.x").code, 0, "published")
        done = subprocess.run(
            [tap.program("broker/sluiced"), "--dump", data],
            capture_output=True,
            text=True,
            timeout=60,
        )
        segments = [
            line.split()[1] for line in done.stdout.splitlines() if line.startswith("log 1/")
        ]
        tap.equal(len(segments), 3, f"each publish made a segment: {done.stdout}")
        damage(data, "log", *segments[-1].split("/"))
        with tap.Broker(data=data) as broker, contextlib.closing(Joined(broker.port)) as proxy:
            done = subprocess.run(
                [
                    tap.program("client/cli/sluice"),
                    "--address",
                    proxy.address,
                    "follow",
                    "s",
                    "--from",
                    "first",
                ],
                capture_output=True,
                text=True,
                timeout=60,
            )
            tap.check(
                client.DELIVER in proxy.kinds and proxy.pieces == b"",
                f"events and the end came: {proxy.kinds}",
            )
            tap.equal(
                [line.split()[-1] for line in done.stdout.splitlines()],
                ["a", "b"],
                f"undamaged events are printed: {done}",
            )
            tap.check(
                "ended: " in done.stderr and "CORRUPT" in done.stderr,
                f"and the reason for the end: {done.stderr}",
            )
            tap.check(done.returncode != 0, "its exit code")


tap.main(globals())
