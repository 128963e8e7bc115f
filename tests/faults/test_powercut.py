#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""T1: the power is cut under load. The broker loses nothing that it acknowledged; and the rig's controls lose what they must, for a
rig that cannot see a planted bug proves nothing. Short here; `SLUICE_TEST_LONG=1` makes it 50 cuts."""
import os
import random
import subprocess
import sys
import tempfile
import time

import load
import powercut_disk
import tap

CUTS = 50 if tap.LONG else 2
SEED = int(os.environ.get("SLUICE_SEED", random.randrange(1 << 30)))
RNG = random.Random(SEED)


def disk(top):
    lacking = powercut_disk.missing()
    if lacking:
        tap.skip(lacking)
    power = powercut_disk.Disk(os.path.join(top, "disk"))
    try:
        power.make()
    except BaseException:
        power.teardown()
        raise
    return power


def cut_lmdb(mode):
    """(acknowledged, recovered) of a bare LMDB whose power is cut while it commits."""
    subject = tap.program("tests/faults/lmdb_subject")
    with tempfile.TemporaryDirectory() as top, disk(top) as power:
        place = os.path.join(top, "disk", "mnt", "db")
        os.mkdir(place)
        os.sync()
        process = tap.Process([subject, "write", place, mode])
        tap.wait_until(lambda: process.text().count(b"\n") > 50, 30, "commits are acknowledged")
        time.sleep(RNG.uniform(0.1, 0.6))
        power.kill_power()
        process.kill()
        power.stop()
        acknowledged = process.text().count(b"\n")
        power.remount()
        found = subprocess.run([subject, "read", place], capture_output=True, text=True, timeout=60)
        return acknowledged, int(found.stdout or 0)


def cut_broker(env=None):
    with tempfile.TemporaryDirectory() as top, disk(top) as power:
        data = os.path.join(top, "disk", "mnt", "data")
        broker = tap.Broker(data=data, args=["--set", "map_mib=256"], env=env)
        feed = load.Load(broker.address, os.path.join(top, "acks"))
        try:
            tap.wait_until(lambda: len(feed.acknowledged()) > 200, 60, "events are acknowledged")
            time.sleep(RNG.uniform(0.1, 0.8))
            power.kill_power()
        finally:
            broker.kill()
            feed.kill()
        power.stop()
        acknowledged = feed.acknowledged()
        power.remount()
        try:
            with tap.Broker(data=data, args=["--set", "map_mib=256"]) as again:
                return acknowledged, load.read_stream(again.address)
        except tap.Failed:
            if env is None:
                raise
            return acknowledged, []  # the control may well lose the whole store


def test_control_lmdb_with_full_sync_loses_nothing():
    for _ in range(CUTS):
        acknowledged, found = cut_lmdb("sync")
        print(f"bare LMDB, sync: {acknowledged} acknowledged, {found} found", file=sys.stderr)
        tap.check(found >= acknowledged, f"all {acknowledged} acknowledged commits are there, found {found} (seed {SEED})")


def test_control_lmdb_without_sync_loses_what_it_acknowledged():
    acknowledged, found = cut_lmdb("nosync")
    print(f"bare LMDB, no sync: {acknowledged} acknowledged, {found} found", file=sys.stderr)
    tap.check(found < acknowledged, f"the rig sees a planted loss: {acknowledged} acknowledged, {found} found")


def test_broker_loses_nothing_that_it_acknowledged():
    for _ in range(CUTS):
        acknowledged, stream = cut_broker()
        print(f"broker: {len(acknowledged)} acknowledged, {len(stream)} in the stream", file=sys.stderr)
        tap.equal(load.verdict(acknowledged, stream), (0, 0, 0), f"(lost, doubled, disordered) with seed {SEED}")


def test_control_broker_without_fsync_loses_what_it_acknowledged():
    preload = os.path.join(os.path.abspath(tap.BUILD), "tests/faults/fsync_none.so")
    if not os.path.exists(preload):
        tap.skip("fsync_none.so is not built")
    acknowledged, stream = cut_broker({"LD_PRELOAD": preload})
    print(f"broker without fsync: {len(acknowledged)} acknowledged, {len(stream)} in the stream", file=sys.stderr)
    tap.check(load.verdict(acknowledged, stream)[0] > 0, "the rig sees the broker's planted loss")


tap.main(globals(), 3600 if tap.LONG else 180)
