#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""EIO at each write call in turn. For each call of the store, in each commit: the broker logs
the failure, exits with a code that is not 0, and loses nothing that it acknowledged; a store whose
creation failed does not prevent the next start.

The store lies on the power-cut disk, and the power is cut after the broker's exit: data that a
failed sync left in the page cache is lost then, so a wrong acknowledgement shows as a loss. strace
makes the calls fail. In the control each sync returns success and does nothing: that must lose.
`SLUICE_TEST_LONG=1` goes through the first 60 of each call instead of a few."""
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

import load
import powercut_disk
import subjects
import tap

SEED = int(os.environ.get("SLUICE_SEED", random.randrange(1 << 30)))
RNG = random.Random(SEED)
ARGS = ["--set", "map_mib=64"]
ACKS_MIN = 50
# While it runs: fail-stop in the log. While it starts: the refusal on standard error. Both with the
# system's text for EIO.
WHY = re.compile(rb"(engine\.fail_stop|sluiced: ).*[Ii]nput/output error")
# From this call on the start has ended and the load has acknowledgements.
STARTED_BY = 30


def numbers():
    return (
        range(1, 61)
        if tap.LONG
        else sorted({1, 2, RNG.randrange(3, 12), RNG.randrange(STARTED_BY, 60)})
    )


def injected(top, data, rule):
    """The broker under strace with a rule such as fdatasync:error=EIO:when=3; strace counts the
    calls of each thread apart."""
    strace = shutil.which("strace")
    if strace is None:
        tap.skip("strace is not installed")
    trace = os.path.join(top, "trace")
    if (
        subprocess.run(
            [strace, "-o", trace, "-e", "trace=none", "true"], capture_output=True
        ).returncode
        != 0
    ):
        tap.skip("strace may not trace here")
    # LeakSanitizer cannot work under ptrace and would fail the process for that.
    asan = os.environ.get("ASAN_OPTIONS", "")
    address = f"127.0.0.1:{tap.free_port()}"
    broker = tap.Process(
        [
            strace,
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-o",
            trace,
            "-e",
            "trace=" + rule.split(":")[0],
            "-e",
            "inject=" + rule,
            tap.program("broker/sluiced"),
            "--data",
            data,
            "--listen",
            address,
            *ARGS,
        ],
        env={"ASAN_OPTIONS": asan + ":detect_leaks=0"},
    )
    broker.address = address
    return broker


def was_injected(top):
    with open(os.path.join(top, "trace"), encoding="utf-8", errors="replace") as trace:
        return "(INJECTED)" in trace.read()


def made(power, name):
    """A store that was created and synced by an undisturbed broker."""
    data = os.path.join(power.mnt, name)
    with tap.Broker(data=data, args=ARGS):
        pass
    os.sync()
    return data


def under_load(top, data, rule, until):
    """Runs the injected broker with a load until until(broker, feed) is true; returns (broker,
    acknowledged). It may end before it is ready."""
    broker = injected(top, data, rule)
    feed = load.Load(broker.address, os.path.join(top, "acks-" + os.path.basename(data)))
    try:
        tap.wait_until(lambda: until(broker, feed), 60, f"the end of the broker with {rule}")
    finally:
        broker.kill()
        feed.kill()
    return broker, feed.acknowledged()


def after_cut(power, data):
    power.cut()
    power.remount()
    with tap.Broker(data=data, args=ARGS) as again:
        return load.read_stream(again.address)


def fail_in_turn(call):
    with tempfile.TemporaryDirectory() as top, subjects.disk(top) as power:
        total, tried = 0, numbers()
        for n in tried:
            rule = f"{call}:error=EIO:when={n}"
            data = made(power, f"{call}-{n}")
            broker, acknowledged = under_load(
                top, data, rule, lambda broker, feed: broker.child.poll() is not None
            )
            tap.check(was_injected(top), f"the failure came: {rule}")
            tap.check(
                broker.child.returncode > 0,
                (
                    f"{rule}: it exits with a code, not by a signal or with 0:"
                    f" {broker.child.returncode}"
                ),
            )
            tap.check(WHY.search(broker.text()), f"{rule}: it says why: {broker.tail()}")
            tap.check(n < STARTED_BY or len(acknowledged) > 0, f"{rule}: it failed under load")
            found = after_cut(power, data)
            tap.equal(
                load.verdict(acknowledged, found),
                (0, 0, 0),
                f"{rule}: (lost, doubled, disordered) (seed {SEED})",
            )
            total += len(acknowledged)
            shutil.rmtree(data)
        failed = tried if len(tried) < 9 else (tried[0], "...", tried[-1])
        print(
            f"{call} number {', '.join(map(str, failed))} failed: {total} acknowledged, none lost",
            file=sys.stderr,
        )


def test_a_failed_write_stops_the_broker_and_loses_nothing():
    fail_in_turn("pwrite64")


def test_a_failed_sync_stops_the_broker_and_loses_nothing():
    fail_in_turn("fdatasync")


def test_control_a_skipped_sync_loses_what_was_acknowledged():
    with tempfile.TemporaryDirectory() as top, subjects.disk(top) as power:
        data = made(power, "lies")
        _, acknowledged = under_load(
            top,
            data,
            "fdatasync:retval=0:when=1+",
            lambda broker, feed: len(feed.acknowledged()) > ACKS_MIN,
        )
        tap.check(was_injected(top), "the sync was skipped")
        try:
            found = after_cut(power, data)
        except tap.Failed:
            found = []  # the store's meta page is newer than its pages
        lost = load.verdict(acknowledged, found)[0]
        print(f"control: {len(acknowledged)} acknowledged, {lost} lost", file=sys.stderr)
        tap.check(lost > 0, "the rig detects an acknowledgement without a sync")


def test_a_store_whose_creation_failed_does_not_prevent_a_start():
    with tempfile.TemporaryDirectory() as top, subjects.disk(top) as power:
        for call, most in (("pwrite64", 3), ("fdatasync", 2), ("ftruncate", 1)):
            for n in range(1, most + 1):
                rule = f"{call}:error=EIO:when={n}"
                data = os.path.join(power.mnt, f"new-{call}-{n}")
                broker = injected(top, data, rule)
                try:
                    code = broker.wait(60)
                finally:
                    broker.kill()
                tap.check(was_injected(top), f"the failure came: {rule}")
                tap.check(code > 0, f"{rule}: it exits with a code: {code}")
                tap.check(WHY.search(broker.text()), f"{rule}: it says why: {broker.tail()}")
                with tap.Broker(data=data, args=ARGS):
                    pass


powercut_disk.handle_signals()
print(f"seed {SEED}", file=sys.stderr)
tap.main(globals(), 3600 if tap.LONG else 180)
