#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The power-cut disk itself: it keeps what was flushed and nothing else, works from a shell, and
leaves nothing behind, whatever ends it."""
import os
import signal
import subprocess
import sys
import tempfile

import powercut_disk
import subjects
import tap

HERE = os.path.dirname(os.path.abspath(__file__))


def write(path, data, sync):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def test_a_cut_keeps_what_was_flushed_and_nothing_else():
    flushed, bare = os.urandom(3 << 20), os.urandom(3 << 20)
    with tempfile.TemporaryDirectory() as top, subjects.disk(top) as power:
        for n in range(3):
            kept, gone = (os.path.join(power.mnt, f"{word}-{n}") for word in ("kept", "gone"))
            write(kept, flushed, sync=True)
            # The entry is durable and the content is not: more than a lost directory must be seen.
            write(gone, b"", sync=True)
            write(gone, bare, sync=False)
            power.cut()
            power.remount()
            with open(kept, "rb") as file:
                tap.equal(file.read() == flushed, True, "what was flushed is there to the byte")
            with open(gone, "rb") as file:
                tap.equal(file.read(), b"", "what was not flushed is gone")


def test_a_write_that_fails_is_told_to_who_syncs():
    with tempfile.TemporaryDirectory() as top, subjects.disk(top) as power:
        power.fail_writes(True)
        error = tap.raises(
            OSError,
            lambda: write(os.path.join(power.mnt, "file"), b"x" * 65536, sync=True),
            "the write fails",
        )
        tap.check(
            "Input/output" in str(error) or "Read-only" in str(error),
            f"with EIO, or EROFS after it: {error}",
        )


def verb(name, top):
    done = subprocess.run(
        [sys.executable, os.path.join(HERE, "powercut_disk.py"), name, top],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stderr.strip()


def test_the_verbs_work_from_a_shell():
    with tempfile.TemporaryDirectory() as parent:
        lacking = powercut_disk.missing()
        if lacking:
            tap.skip(lacking)
        top = os.path.join(parent, "disk")
        try:
            tap.equal(verb("make", top), (0, ""), "make")
            write(os.path.join(top, "mnt", "kept"), b"x", sync=True)
            write(os.path.join(top, "mnt", "gone"), b"x", sync=False)
            tap.equal(verb("cut", top), (0, ""), "cut")
            tap.equal(verb("check", top), (0, ""), "nothing is left after the cut")
            tap.equal(verb("remount", top), (0, ""), "remount")
            tap.equal(
                sorted(os.listdir(os.path.join(top, "mnt"))),
                ["kept", "lost+found"],
                "what survived",
            )
            code, text = verb("check", top)
            tap.check(
                code == 1 and "loop device" in text and "nbdkit" in text,
                f"check names what is up: {text}",
            )
            tap.equal(verb("remount", top)[0], 1, "a disk that is up is not mounted twice")
        finally:
            tap.equal(verb("teardown", top), (0, ""), "teardown")
        tap.equal(verb("check", top), (0, ""), "nothing is left")
        tap.equal(verb("teardown", top), (0, ""), "teardown may be repeated")


HOLDER = """
import sys, time
import powercut_disk
powercut_disk.handle_signals()
with powercut_disk.Disk(sys.argv[1]) as power:
    print("up", flush=True)
    time.sleep(600)
"""


def test_a_signal_leaves_nothing_behind():
    lacking = powercut_disk.missing()
    if lacking:
        tap.skip(lacking)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with tempfile.TemporaryDirectory() as parent:
            top = os.path.join(parent, "disk")
            holder = tap.Process(
                [sys.executable, "-c", HOLDER, top], ready=rb"^up$", env={"PYTHONPATH": HERE}
            )
            try:
                holder.signal(number)
                code = holder.wait(60)
            finally:
                holder.kill()
                left = powercut_disk.Disk(top).check()
                powercut_disk.Disk(top).teardown()
            tap.equal(code, 128 + number, f"{number.name} ends it: {holder.tail()}")
            tap.equal(left, [], f"nothing is left after {number.name}")


def test_a_killed_rig_can_be_taken_down_by_its_state():
    """SIGKILL cannot be handled; the state file knows what to take down."""
    lacking = powercut_disk.missing()
    if lacking:
        tap.skip(lacking)
    with tempfile.TemporaryDirectory() as parent:
        top = os.path.join(parent, "disk")
        holder = tap.Process(
            [sys.executable, "-c", HOLDER, top], ready=rb"^up$", env={"PYTHONPATH": HERE}
        )
        holder.kill()
        power = powercut_disk.Disk(top)
        left = power.check()
        power.teardown()
        tap.check(any("loop device" in text for text in left), f"the kill left it: {left}")
        tap.equal(power.check(), [], "nothing is left")


powercut_disk.handle_signals()
tap.main(globals())
