#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A session that holds more than fits into one delivery: after a cut and a resume all of it is
redelivered, once each."""
import collections
import os
import sys
import tempfile

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import Connection, envelope, pb  # noqa: E402

HELD = 3000
LARGE, LARGE_BYTES = 40, 400_000
FRAME_BYTES = 4 << 20  # no delivery is larger: protocol's FRAME_BYTES_MAX is far above


def put(one, queue, bodies):
    for at in range(0, len(bodies), 500):
        answer = one.publish(
            [envelope(body) for body in bodies[at : at + 500]],
            "put",
            target=client.TO_QUEUE,
            name=queue,
        )
        tap.equal(answer.code, 0, f"put: {answer.text}")


def again(broker, one):
    """The connection breaks without GOODBYE, and its session is resumed."""
    one.close()
    back = Connection(
        broker.port, session_id=one.welcome.session_id, session_secret=one.welcome.session_secret
    )
    tap.equal(back.welcome.resumed, True, "the session is resumed")
    return back


def items(one, subscription, count):
    """(token, number) of the next items, at least count of them."""
    got = []
    while len(got) < count:
        delivery = one.deliver(subscription)
        got += [(delivery.token, number) for number in delivery.numbers]
    return got


def jobs(one, subscription, count):
    got = []
    while len(got) < count:
        got += [(job.job, job.token) for job in one.deliver(subscription).jobs]
    return got


def no_more(one, subscription, what):
    """After two round trips through the engine all frames in flight have arrived."""
    for name in ("first", "second"):
        one.call(
            "queue_create",
            pb.QueueCreate(
                config=pb.QueueConfig(name=f"{name}-{subscription}"), if_not_exists=True
            ),
        )
    extra = [
        kept
        for kept in one.kept
        if kept.type == client.DELIVER and int.from_bytes(kept.body[:4], "big") == subscription
    ]
    tap.equal(len(extra), 0, what)


def once_each(held, back, what):
    doubled = [key for key, count in collections.Counter(back).items() if count > 1]
    tap.equal(doubled, [], f"{what}: delivered twice")
    tap.equal(sorted(back), sorted(held), f"{what}: the redeliveries are what was held")


def test_thousands_of_held_items_come_again_once_each():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        one.call("queue_create", pb.QueueCreate(config=pb.QueueConfig(name="work")))
        put(one, "work", [b"%d" % i for i in range(HELD + 10)])
        one.call("consume_open", queue="work", credit=HELD, lease_ms=600000, subscription=1)
        held = items(one, 1, HELD)
        tap.equal(len(held), HELD, "held")
        one = again(broker, one)
        one.call("consume_open", queue="work", credit=HELD + 5, resume=True, subscription=2)
        back = items(one, 2, HELD + 5)
        once_each(held, back[:HELD], "items")
        tap.equal(len(back), HELD + 5, "and the remaining credit is used for new ones, after them")
        no_more(one, 2, "nothing beyond the credit")


def test_thousands_of_held_jobs_come_again_once_each():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        for queue in ("runs", "others"):
            one.call(
                "queue_create",
                pb.QueueCreate(config=pb.QueueConfig(name=queue, kind=pb.QUEUE_JOBS)),
            )
        # Jobs of another queue are between them: a step that meets only those must continue, too.
        asked = [
            one.ask("job_submit", job=f"{queue}-{i}", queue=queue)
            for i in range(HELD)
            for queue in ("runs", "others")
        ]
        for correlation in asked:
            tap.equal(one.reply(correlation).code, 0, "submitted")
        one.call("consume_open", queue="others", credit=HELD, subscription=1)
        one.call("consume_open", queue="runs", credit=HELD, subscription=2)
        held = jobs(one, 2, HELD)
        tap.equal(len(jobs(one, 1, HELD)), HELD, "held of the other queue")
        one = again(broker, one)
        one.call("consume_open", queue="runs", credit=HELD, resume=True, subscription=3)
        once_each(held, jobs(one, 3, HELD), "jobs")
        no_more(one, 3, "nothing twice, and nothing of the other queue")


def test_large_held_items_come_again_in_bounded_deliveries_after_a_restart():
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data) as broker:
            one = Connection(broker.port)
            one.call("queue_create", pb.QueueCreate(config=pb.QueueConfig(name="work")))
            for i in range(LARGE):
                put(one, "work", [b"%03d" % i + bytes(LARGE_BYTES)])
            one.call("consume_open", queue="work", credit=LARGE, lease_ms=600000, subscription=1)
            held = items(one, 1, LARGE)
            broker.kill()
        with tap.Broker(data=data) as broker:
            one = again(broker, one)
            one.call("consume_open", queue="work", credit=LARGE, resume=True, subscription=2)
            back = []
            while len(back) < LARGE:
                delivery = one.deliver(2)
                tap.check(
                    sum(len(event.body) for event in delivery.events) < FRAME_BYTES,
                    "a delivery is bounded",
                )
                back += [(delivery.token, number) for number in delivery.numbers]
            once_each(held, back, "large items")


tap.main(globals())
