#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A wall clock that is wrong by years: at a start, while the broker runs, and at the very first
start. Data that is kept for a week is still there when the clock is right again, and everything
continues. """
import os
import re
import subprocess

import tap

YEARS = 20 * 365 * 86400


def sluice(broker, *args, body=None):
    done = subprocess.run(
        [tap.program("client/cli/sluice"), "--address", broker.address, *args],
        capture_output=True,
        text=True,
        timeout=60,
        input=body,
    )
    tap.equal(done.returncode, 0, f"sluice {' '.join(args)}: {done.stderr}")
    return done.stdout


def events(broker):
    return int(
        re.search(
            r'"events":(\d+)', sluice(broker, "stream", "show", "s", "-o", "json") + '"events":0'
        )[1]
    )


class World:
    """A data directory and a clock for the brokers on it."""

    def __init__(self, top):
        tap.not_sanitized("a sanitizer's library must be the first that is preloaded")
        self.data, self.file = os.path.join(top, "data"), os.path.join(top, "clock")
        self.env = {
            "LD_PRELOAD": tap.plain(os.path.join(tap.BUILD, "tests/support/false_clock.so")),
            "FALSE_CLOCK": self.file,
        }

    def clock(self, seconds, boot):
        with open(self.file + ".new", "w") as file:
            file.write(f"{seconds} {boot}\n")
        os.rename(self.file + ".new", self.file)

    def broker(self):
        return tap.Broker(data=self.data, env=self.env)


def fill(broker):
    sluice(broker, "stream", "create", "s", "--subject", "ev.>", "--max-age", "7d")
    sluice(broker, "pub", "ev.a", "--lines", body="".join(f"{n}\n" for n in range(100)))
    tap.equal(events(broker), 100, "events before")


def starts(first, second, boots):
    """The clock is wrong by `first` at the first start, by `second` at the next, and right at the
    last."""
    with tap.Scratch() as top:
        world = World(top)
        world.clock(first, boots[0])
        with world.broker() as broker:
            fill(broker)
        world.clock(second, boots[1])
        with world.broker() as broker:
            sluice(broker, "pub", "ev.a", "late")
            tap.equal(events(broker), 101, f"wrong by {second} s: nothing is forgotten")
        world.clock(0, boots[2])
        with world.broker() as broker:
            sluice(broker, "pub", "ev.a", "again")
            tap.equal(events(broker), 102, "right: nothing is forgotten")
            tap.check(
                "again" in sluice(broker, "follow", "s", "--from", "last", "--until-caught-up"),
                "and the stream continues",
            )


def test_a_start_with_a_clock_ahead_by_years():
    starts(0, YEARS, ["a1", "a2", "a3"])
    starts(0, YEARS, ["a1", "a1", "a1"])


def test_a_start_with_a_clock_behind_by_years():
    starts(0, -YEARS, ["a1", "a2", "a3"])


def test_a_first_start_with_a_clock_behind_by_years():
    starts(-YEARS, 0, ["a1", "a2", "a3"])
    starts(-YEARS, 0, ["a1", "a1", "a1"])


def test_a_clock_that_jumps_while_the_broker_runs():
    for seconds in (YEARS, -YEARS):
        with tap.Scratch() as top:
            world = World(top)
            world.clock(0, "a1")
            with world.broker() as broker:
                fill(broker)
                world.clock(seconds, "a1")
                sluice(broker, "pub", "ev.a", "late")
                tap.equal(events(broker), 101, "nothing is forgotten")
                world.clock(0, "a1")
                sluice(broker, "pub", "ev.a", "again")
                tap.equal(events(broker), 102, "nothing is forgotten when it is right again")


tap.main(globals())
