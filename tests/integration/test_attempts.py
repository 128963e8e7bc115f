#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An item that was never begun has no failed attempt: not if its worker stops in an orderly way, is
killed, or is killed by another item."""
import os
import subprocess
import sys

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import Connection, envelope  # noqa: E402

RELEASE, BEGUN = 5, 6
ITEMS = 10


def queue(one, name="work", **options):
    one.call("queue_create", config=dict(name=name, **options))


def put(one, count=ITEMS, at_once=True):
    bodies = [envelope(b"%d" % n) for n in range(count)]
    for batch in [bodies] if at_once else [[body] for body in bodies]:
        tap.equal(one.publish(batch, "put", target=client.TO_QUEUE, name="work").code, 0, "put")


def show(one, name="work"):
    return one.call("queue_show", name=name).queues[0]


def attempts(one):
    return {item.seq: item.attempts for item in one.call("queue_peek", name="work", max=1000).items}


def worker(broker, credit, end, **environment):
    probe = tap.program("tests/integration/worker_probe")
    return subprocess.Popen(
        [probe, f"127.0.0.1:{broker.port}", "work", str(credit), end],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def ended(process, what):
    out, _ = process.communicate(timeout=60)
    return dict(line.rsplit(" ", 1) for line in out.splitlines()), process.returncode, what


def idle(one):
    tap.wait_until(lambda: show(one).leased == 0, 60, "no item is leased any more")


def test_orderly_restarts_use_up_no_attempts():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        queue(one, max_attempts=3)
        put(one)
        for number, end in enumerate(("close", "leave", "callback", "close", "leave", "callback")):
            said, code, _ = ended(worker(broker, 100, end), end)
            tap.equal(code, 0, f"{end}: {said}")
            tap.wait_until(
                lambda: show(one).leased == 0,
                60,
                f"{end}: it returns the items that it did not begin",
            )
            tap.equal(show(one).acked, number + 1, "it acked the one that it began")
        info = show(one)
        tap.equal((info.dead_lettered, info.ready), (0, ITEMS - 6), "all others are there")
        tap.equal(set(attempts(one).values()), {0}, "and no attempt was counted")


def test_a_killed_worker_counts_what_it_began():
    for at_once, grants in ((True, "one grant"), (False, "a grant for each")):
        with tap.Broker() as broker:
            one = Connection(broker.port)
            queue(one, max_attempts=3)
            process = None
            if not at_once:
                process = worker(broker, ITEMS, "die", READY=str(ITEMS))
                tap.equal(process.stdout.readline(), "open 0\n", "it consumes")
            put(one, at_once=at_once)
            process = process or worker(broker, ITEMS, "die", READY=str(ITEMS))
            said, code, _ = ended(process, "die")
            tap.equal(code, -9, f"{grants}: killed: {said}")
            idle(one)
            counted = attempts(one)
            tap.equal(len(counted), ITEMS, f"{grants}: nothing is lost")
            tap.equal(
                {seq for seq, n in counted.items() if n > 0},
                {int(said["begun"])},
                f"{grants}: one is counted",
            )


def test_a_killed_worker_with_callbacks_counts_what_it_reported():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        queue(one, max_attempts=3)
        put(one)
        said, code, _ = ended(worker(broker, ITEMS, "begin"), "begin")
        tap.equal(code, -9, f"killed: {said}")
        idle(one)
        tap.equal(
            {seq for seq, n in attempts(one).items() if n > 0},
            {int(said["begun"])},
            "the third is counted",
        )


def test_a_worker_killed_between_two_items_counts_nothing():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        queue(one, max_attempts=3)
        put(one)
        said, code, _ = ended(worker(broker, ITEMS, "ack-die", READY=str(ITEMS)), "ack-die")
        tap.equal(code, -9, f"killed: {said}")
        idle(one)
        tap.equal(
            set(attempts(one).values()),
            {0},
            "the items that it took were acked, and no other was begun",
        )


def test_a_drain_works_off_what_is_there_and_takes_nothing_new():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        queue(one, max_attempts=3)
        put(one, 2 * ITEMS)
        said, code, _ = ended(worker(broker, ITEMS, "drain", READY=str(ITEMS)), "drain")
        tap.equal(code, 0, f"drained: {said}")
        info = show(one)
        tap.equal(info.leased, 0, "nothing is held")
        tap.check(
            ITEMS - 1 <= int(said["drained"]) <= ITEMS,
            f"the available items were delivered: {said}",
        )
        tap.equal(
            (info.acked, info.ready),
            (1 + int(said["drained"]), 2 * ITEMS - 1 - int(said["drained"])),
            "and no more",
        )
        tap.equal(set(attempts(one).values()), {0}, "nothing was counted")


def test_what_a_closed_consumer_holds_can_be_settled_and_what_comes_late_goes_back():
    with tap.Broker() as broker:
        one, other = Connection(broker.port), Connection(broker.port)
        queue(one)
        put(one, 3)
        one.call("consume_open", queue="work", subscription=7, credit=3)
        got = one.deliver(7)
        one.call("subscription_close", subscription=7)
        tap.equal(
            one.ack(7, got.token, [(got.numbers[0], 1)]).code, 0, "an ack names the closed one"
        )
        tap.equal(one.ack(7, got.token, [], operation=RELEASE).affected, 2, "and so does a release")
        tap.equal(
            one.ack(8, got.token, [(1, 1)]).code,
            -10,
            "a subscription that never existed does not count",
        )
        # A number may be used again.
        for number in [7, 7] + list(range(10, 40)):
            one.call("consume_open", queue="work", subscription=number, credit=1)
            one.call("subscription_close", subscription=number)
        tap.wait_until(
            lambda: show(other).ready + show(other).leased == 2, 10, "both are accounted for"
        )
        # Grants to a consumer whose end the engine did not know yet go back, without a notice.
        held = {
            n
            for kept in one.kept
            if kept.type == client.DELIVER
            for n in client.parse_deliver(kept.body).numbers
        }
        tap.wait_until(
            lambda: show(other).leased <= len(held), 10, "undelivered items are not leased"
        )
        tap.equal(set(attempts(other).values()), {0}, "nothing was counted")


def test_a_release_by_the_cli():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        queue(one, max_attempts=2)
        put(one, 3)
        cli = [tap.program("client/cli/sluice"), "--address", f"127.0.0.1:{broker.port}"]
        for _ in range(4):
            run = subprocess.run(
                [*cli, "claim", "work", "--count", "3", "--release"],
                capture_output=True,
                text=True,
                timeout=60,
            )
            tap.equal(run.returncode, 0, run.stderr)
            tap.equal(len(run.stdout.splitlines()), 3, "all three are printed")
        tap.equal(set(attempts(one).values()), {0}, "nothing was counted")
        tap.equal(show(one).leased, 0, "and nothing is held")


tap.main(globals())
