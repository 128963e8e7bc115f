#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""T17, T16: a disk that fails, and one that is full. After EIO the broker acknowledges nothing more and exits; what it acknowledged is
there afterwards. A full disk or map refuses publishes with their own error, lets what frees room through, and clears by itself."""
import os
import random
import subprocess
import sys
import tempfile
import time

import load
import powercut_disk
import tap


def disk(top, size):
    lacking = powercut_disk.missing()
    if lacking:
        tap.skip(lacking)
    power = powercut_disk.Disk(os.path.join(top, "disk"), size=size)
    try:
        power.make()
    except BaseException:
        power.teardown()
        raise
    return power


def test_after_eio_nothing_more_is_acknowledged_and_nothing_is_lost():
    with tempfile.TemporaryDirectory() as top, disk(top, 256 << 20) as power:
        data = os.path.join(top, "disk", "mnt", "data")
        broker = tap.Broker(data=data, args=["--set", "map_mib=128"])
        feed = load.Load(broker.address, os.path.join(top, "acks"))
        try:
            tap.wait_until(lambda: len(feed.acknowledged()) > 200, 60, "events are acknowledged")
            time.sleep(random.uniform(0.0, 0.3))
            power.fail_writes(True)
            tap.wait_until(lambda: broker.child.poll() is not None, 60, "the broker exits by itself")
            tap.check(broker.child.returncode != 0, "its exit code says that something failed")
            tap.check(b"engine.fail_stop" in broker.text(), "its log says why")
        finally:
            broker.kill()
            feed.kill()
        power.kill_power()
        power.stop()
        power.remount()
        with tap.Broker(data=data, args=["--set", "map_mib=128"]) as again:
            stream = load.read_stream(again.address)
        acknowledged = feed.acknowledged()
        print(f"{len(acknowledged)} acknowledged, {len(stream)} in the stream", file=sys.stderr)
        tap.equal(load.verdict(acknowledged, stream), (0, 0, 0), "(lost, doubled, disordered)")


def fill(broker, megabytes):
    """Puts 64 KiB items until one is refused or that much is there; the last line of output says what came."""
    done = subprocess.run([tap.program("tests/faults/fill_queue"), broker.address, str(megabytes)], capture_output=True, text=True, timeout=300)
    tap.equal(done.returncode, 0, f"fill_queue ends well: {done.stderr}")
    return dict(word.split("=") for word in done.stdout.split())


def full_and_back(broker):
    first = fill(broker, 400)
    print(first, file=sys.stderr)
    tap.equal(first["refused"], "NO_SPACE", "publishes are refused with their own error")
    tap.check(int(first["acked"]) > 0, "acks go on when the store is full")
    tap.equal(first["again"], "OK", "publishes are taken again once there is room, without a restart")


def test_a_full_map_refuses_publishes_and_clears_by_itself():
    with tempfile.TemporaryDirectory() as top, tap.Broker(data=os.path.join(top, "data"), args=["--set", "map_mib=64"]) as broker:
        full_and_back(broker)


def test_a_full_disk_refuses_publishes_and_clears_by_itself():
    with tempfile.TemporaryDirectory() as top, disk(top, 192 << 20) as power:
        data = os.path.join(top, "disk", "mnt", "data")
        broker = tap.Broker(data=data, args=["--set", "map_mib=2048"])
        try:
            full_and_back(broker)
            broker.stop()
        finally:
            broker.kill()
        power.stop()


tap.main(globals(), 300)
