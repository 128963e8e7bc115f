#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A disk that fails, and one that is full. After EIO the broker acknowledges nothing more
and exits; what it acknowledged is stored. On a full disk or map it refuses publishes with their own
error, accepts commands that free room, and accepts publishes again when there is room."""
import contextlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time

import load
import powercut_disk
import subjects
import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import TO_QUEUE, Connection, envelope  # noqa: E402

MIB = 1 << 20


def lmdb_stops(spoil, size, why):
    """Bare LMDB on a disk that spoil() makes fail: it stops with `why`, and all that it
    acknowledged is stored after a power cut."""
    with tempfile.TemporaryDirectory() as top, subjects.disk(top, size) as power:
        subject = subjects.Lmdb("sync")
        try:
            subject.start(power.mnt)
            tap.wait_until(lambda: len(subject.acknowledged()) > 20, 60, "commits are acknowledged")
            spoil(power)
            code = subject.process.wait(200)
        finally:
            subject.kill()
        tap.equal(code, 1, "a commit fails")
        tap.check(
            re.search(why, subject.process.text()), f"it says {why}: {subject.process.tail(1)}"
        )
        acknowledged = subject.acknowledged()
        power.cut()
        power.remount()
        found = subject.recover(power.mnt)
        print(
            f"bare LMDB, {why}: {len(acknowledged)} acknowledged, {len(found)} found",
            file=sys.stderr,
        )
        tap.equal(load.verdict(acknowledged, found), (0, 0, 0), "(lost, doubled, disordered)")


def test_control_lmdb_after_eio_loses_nothing():
    lmdb_stops(
        lambda power: power.fail_writes(True),
        128 * MIB,
        rb"Input/output error|Read-only file system",
    )


def test_control_lmdb_on_a_full_disk_loses_nothing():
    # LMDB reports EIO for a write that is cut short by the end of the disk.
    lmdb_stops(lambda power: None, 10 * MIB, rb"No space left on device|Input/output error")


def test_after_eio_nothing_more_is_acknowledged_and_nothing_is_lost():
    with tempfile.TemporaryDirectory() as top, subjects.disk(top, 256 * MIB) as power:
        subject = subjects.Broker(top)
        try:
            subject.start(power.mnt)
            tap.wait_until(lambda: len(subject.acknowledged()) > 200, 60, "events are acknowledged")
            time.sleep(random.uniform(0.0, 0.3))  # a random moment, not a wait
            power.fail_writes(True)
            tap.wait_until(
                lambda: subject.broker.child.poll() is not None, 60, "the broker exits by itself"
            )
            tap.check(
                subject.broker.child.returncode > 0, "its exit code says that something failed"
            )
            tap.check(b"engine.fail_stop" in subject.broker.text(), "its log says why")
        finally:
            subject.kill()
        power.cut()
        power.remount()
        acknowledged, found = subject.acknowledged(), subject.recover(power.mnt)
        print(
            f"broker after EIO: {len(acknowledged)} acknowledged, {len(found)} in the stream",
            file=sys.stderr,
        )
        tap.equal(load.verdict(acknowledged, found), (0, 0, 0), "(lost, doubled, disordered)")


def result_of(text):
    return dict(word.split("=") for word in text.split())


def fill(broker, megabytes):
    """Puts 64 KiB items until one is refused or that much is stored; the last line of output has
    the result."""
    done = subprocess.run(
        [tap.program("tests/faults/fill_queue"), broker.address, str(megabytes)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    tap.equal(done.returncode, 0, f"fill_queue ends well: {done.stderr}")
    return result_of(done.stdout)


def all_acked(first):
    put, unknown, acked = (int(first[word]) for word in ("put", "unknown", "acked"))
    tap.check(
        put <= acked <= put + unknown,
        f"all stored items can be claimed and acked while there is no room: {first}",
    )


def full_and_back(broker):
    first = fill(broker, 400)
    print(first, file=sys.stderr)
    tap.equal(first["refused"], "NO_SPACE", "publishes are refused with their own error")
    all_acked(first)
    tap.equal(
        first["again"], "OK", "publishes are accepted again when there is room, without a restart"
    )


def test_a_full_map_refuses_publishes_and_clears_by_itself():
    with tempfile.TemporaryDirectory() as top, tap.Broker(
        data=os.path.join(top, "data"), args=["--set", "map_mib=64"]
    ) as broker:
        full_and_back(broker)


def test_a_full_disk_refuses_publishes_and_clears_by_itself():
    with tempfile.TemporaryDirectory() as top, subjects.disk(top, 192 * MIB) as power:
        broker = tap.Broker(data=os.path.join(power.mnt, "data"), args=["--set", "map_mib=2048"])
        try:
            full_and_back(broker)
            broker.stop()
        finally:
            broker.kill()


def fill_disk(directory):
    """Another program's file takes all free space at once. Returns its path."""
    path = os.path.join(directory, "ballast")
    with open(path, "wb") as ballast:
        with contextlib.suppress(OSError):
            while True:
                room = os.statvfs(directory)
                at = os.fstat(ballast.fileno()).st_size
                os.posix_fallocate(ballast.fileno(), at, max(1, room.f_bavail // 2) * room.f_frsize)
    return path


def test_a_disk_that_another_program_fills_loses_nothing_acknowledged():
    """From half empty to full between two commits, so that no threshold is noticed in time. The
    broker refuses publishes by the room that it has allocated, does not end, continues when there
    is room, and what it acknowledged survives a power cut."""
    with tempfile.TemporaryDirectory() as top, subjects.disk(top, 256 * MIB) as power:
        subject = subjects.Broker(top)
        subject.ARGS = [*subject.ARGS, "--set", "reserve_mib=2"]
        try:
            subject.start(power.mnt)
            tap.wait_until(lambda: len(subject.acknowledged()) > 200, 60, "events are acknowledged")
            ballast = fill_disk(power.mnt)
            tap.wait_until(
                lambda: subject.broker.child.poll() is not None
                or b"engine.headroom" in subject.broker.text(),
                60,
                "publishes are refused on the full disk",
            )
            os.unlink(ballast)
            before = subject.feed.bytes()
            # The client tries a refused batch again until its deadline, so the load continues by
            # itself if the broker is up.
            tap.wait_until(
                lambda: subject.broker.child.poll() is not None or subject.feed.bytes() > before,
                60,
                "publishes are accepted again",
            )
            tap.equal(subject.broker.child.poll(), None, "the broker stays up")
        finally:
            subject.kill()
        power.cut()
        power.remount()
        acknowledged, found = subject.acknowledged(), subject.recover(power.mnt)
        print(
            f"disk filled under load: {len(acknowledged)} acknowledged, {len(found)} in the stream",
            file=sys.stderr,
        )
        tap.equal(load.verdict(acknowledged, found), (0, 0, 0), "(lost, doubled, disordered)")


@contextlib.contextmanager
def filled_by_another(top):
    """A broker with items, on a disk that another program has filled: (power, broker, filler,
    ballast)."""
    with subjects.disk(top, 256 * MIB) as power:
        broker = tap.Broker(data=os.path.join(power.mnt, "data"), args=["--set", "map_mib=2048"])
        used, filler = power.used(), None
        try:
            filler = tap.Process([tap.program("tests/faults/fill_queue"), broker.address, "400"])
            # More than what is allocated ahead at first, so that the file grows.
            tap.wait_until(lambda: power.used() > used + 16 * MIB, 60, "items are put")
            yield power, broker, filler, fill_disk(power.mnt)
        finally:
            if filler:
                filler.kill()
            broker.kill()


def test_a_disk_that_another_program_fills_refuses_publishes_and_clears_by_itself():
    """Commands that free room use room that is allocated ahead (DESIGN: headroom by class)."""
    with tempfile.TemporaryDirectory() as top, filled_by_another(top) as (
        _,
        broker,
        filler,
        ballast,
    ):
        tap.wait_until(
            lambda: filler.child.poll() is not None or broker.child.poll() is not None,
            60,
            "the load ends",
        )
        tap.equal(broker.child.poll(), None, "the broker stays up")
        first = result_of(filler.text().decode())
        print(first, file=sys.stderr)
        tap.equal(first["refused"], "NO_SPACE", "publishes are refused with their own error")
        all_acked(first)
        os.unlink(ballast)
        tap.wait_until(
            lambda: fill(broker, 1)["refused"] == "OK",
            60,
            "publishes are accepted again, without a restart",
        )
        broker.stop()


def test_a_broker_that_starts_on_a_full_disk_still_has_its_reserve():
    with tempfile.TemporaryDirectory() as top, filled_by_another(top) as (
        power,
        broker,
        filler,
        ballast,
    ):
        filler.kill()
        broker.kill()
        # Room that the end of a process may have freed.
        with open(ballast, "ab") as more, contextlib.suppress(OSError):
            while True:
                more.write(bytes(4096))
                more.flush()
        with tap.Broker(data=broker.data, args=["--set", "map_mib=2048"]) as again:
            first = fill(again, 400)
            print(first, file=sys.stderr)
            tap.equal(first["refused"], "NO_SPACE", "publishes are refused with their own error")
            tap.check(
                int(first["acked"]) > int(first["put"]),
                "items put before the restart can be claimed and acked",
            )
            os.unlink(ballast)
            tap.wait_until(
                lambda: fill(again, 1)["refused"] == "OK",
                60,
                "publishes are accepted again, without a restart",
            )


def test_classes_stop_in_order_on_a_disk_that_another_program_fills():
    """For every size of a burst: publishes are refused while reports still have all their room, and
    commands that free room are never refused."""
    for size, at_once in ((900_000, 8), (60_000, 100), (3_000, 300)):
        with tempfile.TemporaryDirectory() as top, subjects.disk(top, 256 * MIB) as power:
            broker = tap.Broker(
                data=os.path.join(power.mnt, "data"), args=["--set", "map_mib=2048"]
            )
            try:
                with Connection(broker.port) as one:
                    one.call("queue_create", config={"name": "fill"})
                    for _ in range(3):
                        one.publish(
                            [envelope(bytes(900_000))] * 8, "x", target=TO_QUEUE, name="fill"
                        )
                    fill_disk(power.mnt)
                    codes = [
                        one.publish(
                            [envelope(bytes(size))] * at_once, "x", target=TO_QUEUE, name="fill"
                        ).code
                        for _ in range(60)
                    ]
                    tap.check(
                        -22 in codes,
                        f"publishes of {at_once} times {size} bytes are refused: {codes}",
                    )
                    # "ok" if only a burst of that size is too large.
                    tap.check(
                        one.call("status_get").status.headroom != "report-stopped",
                        "and only publishes",
                    )
                    for n in range(20):
                        one.call("queue_create", config={"name": f"report{n}"})
                with Connection(broker.port) as admin:
                    admin.call("job_retention", keep_ms=1000)
                    admin.call("queue_purge", name="fill")
                broker.stop()
            finally:
                broker.kill()


powercut_disk.handle_signals()
tap.main(globals(), 300)
