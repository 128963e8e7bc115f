#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of the broker under load, repeatedly; afterwards no acknowledged event is lost, none
is stored twice, and their order is the producer's. Short here; `SLUICE_TEST_LONG=1` makes it 1,000
cycles."""
import os
import random
import sys
import tempfile
import time

import load
import tap

CYCLES = 1000 if tap.LONG else 12


def test_nothing_acknowledged_is_lost_doubled_or_out_of_order():
    seed = int(os.environ.get("SLUICE_SEED", random.randrange(1 << 30)))
    rng = random.Random(seed)
    print(f"seed {seed}, {CYCLES} cycles", file=sys.stderr)
    with tempfile.TemporaryDirectory() as top:
        data = os.path.join(top, "data")
        port = tap.free_port()
        feed = broker = None
        try:
            for cycle in range(CYCLES):
                broker = tap.Broker(data=data, port=port)
                if feed is None:
                    feed = load.Load(broker.address, os.path.join(top, "acks"))
                before = feed.bytes()
                tap.wait_until(
                    lambda: feed.bytes() > before, 30, f"the load continues in cycle {cycle}"
                )
                time.sleep(rng.uniform(0.0, 0.12))
                broker.kill()
        finally:
            for process in (broker, feed):
                if process is not None:
                    process.kill()
        acknowledged = feed.acknowledged()
        with tap.Broker(data=data, port=port) as broker:
            stream = load.read_stream(broker.address)
        lost, doubled, disordered = load.verdict(acknowledged, stream)
        print(
            f"{CYCLES} kills, {len(acknowledged)} acknowledged, {len(stream)} in the stream",
            file=sys.stderr,
        )
        tap.check(len(acknowledged) > CYCLES, "the load published events")
        tap.equal(
            (lost, doubled, disordered), (0, 0, 0), f"(lost, doubled, disordered) with seed {seed}"
        )


def test_the_checker_sees_what_is_planted():
    tap.equal(load.verdict([1, 2, 3], [1, 3]), (1, 0, 0), "a lost event")
    tap.equal(load.verdict([1, 2], [1, 2, 2]), (0, 1, 1), "a doubled event")
    tap.equal(load.verdict([1, 2, 3], [1, 3, 2]), (0, 0, 1), "a disordered event")
    tap.equal(load.verdict([1], [1, 2]), (0, 0, 0), "an event of unknown outcome may be stored")


tap.main(globals(), 3600 if tap.LONG else 120)
