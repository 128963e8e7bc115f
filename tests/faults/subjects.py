# SPDX-License-Identifier: Apache-2.0
"""The subjects of the power-cut rig: each works on the disk under load, reports what it
acknowledged, and afterwards what it finds.

A subject has four calls. start(mnt): starts its work below mnt. acknowledged(): the numbers that it
acknowledged so far, from a file or pipe that keeps its power. kill(): SIGKILL, also twice, also
before start. recover(mnt): the numbers found there, in order; Damaged when the store cannot be
read. Numbers count from 1 without gaps, so the found numbers must be a prefix of those that were
sent.
"""
import os
import subprocess

import load
import powercut_disk
import tap


class Damaged(Exception):
    """The store does not open or contradicts itself; the text says how."""


class Lmdb:
    """Bare LMDB: the losses of each mode are known, so it shows whether the rig detects them. mode:
    sync, nosync or nometasync."""

    def __init__(self, mode):
        self.name = f"bare LMDB, {mode}"
        self.mode = mode
        self.program = tap.program("tests/faults/lmdb_subject")
        self.process = None

    def start(self, mnt):
        place = os.path.join(mnt, "db")
        os.mkdir(place)
        # The creation of the directory is not tested here.
        os.sync()
        self.process = tap.Process([self.program, "write", place, self.mode])

    def acknowledged(self):
        # Its last output is among the numbers.
        return (
            [int(line) for line in self.process.text().split(b"\n")[:-1] if line.isdigit()]
            if self.process
            else []
        )

    def kill(self):
        if self.process:
            self.process.kill()

    def recover(self, mnt):
        done = subprocess.run(
            [self.program, "read", os.path.join(mnt, "db")],
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise Damaged(done.stderr.strip() or f"the reader ended with {done.returncode}")
        return list(range(1, int(done.stdout) + 1))


class Broker:
    """sluiced with its data on the disk, a publishing load beside it. env: LD_PRELOAD of a planted
    bug, in the first life only."""

    ARGS = ["--set", "map_mib=256"]

    def __init__(self, top, env=None):
        self.name = "broker with a planted bug" if env else "broker"
        self.acks = os.path.join(top, "acks")
        self.env = env
        self.port = tap.free_port()
        self.broker = self.feed = None

    def start(self, mnt):
        self.broker = tap.Broker(
            data=os.path.join(mnt, "data"), port=self.port, args=self.ARGS, env=self.env
        )
        if self.feed is None:
            self.feed = load.Load(self.broker.address, self.acks)

    def start_blind(self, mnt):
        """Starts it without waiting: the cut may come while it recovers."""
        self.broker = tap.Process(
            [
                tap.program("broker/sluiced"),
                "--data",
                os.path.join(mnt, "data"),
                "--listen",
                f"127.0.0.1:{self.port}",
                *self.ARGS,
            ]
        )

    def acknowledged(self):
        return self.feed.acknowledged() if self.feed else []

    def kill(self):
        self.kill_broker()
        if self.feed:
            self.feed.kill()

    def kill_broker(self):
        if self.broker:
            self.broker.kill()

    def recover(self, mnt):
        try:
            with tap.Broker(data=os.path.join(mnt, "data"), args=self.ARGS) as again:
                return load.read_stream(again.address)
        except tap.Failed as error:
            raise Damaged(str(error)) from error


class Account:
    """before: acknowledged when the power was cut; acknowledged: all, also those that arrived just
    after; found: numbers that survived."""

    def __init__(self, before, acknowledged, found, damage=None):
        self.before, self.acknowledged, self.found, self.damage = (
            before,
            acknowledged,
            found,
            damage,
        )

    def lost(self):
        """How many of those that were acknowledged before the cut are lost."""
        return len(set(self.before) - set(self.found))

    def text(self):
        rest = f", damaged: {self.damage.splitlines()[0]}" if self.damage else ""
        lost = len(set(self.acknowledged) - set(self.found))
        return f"{len(self.acknowledged)} acknowledged, {len(self.found)} found, {lost} lost{rest}"


def disk(top, size=powercut_disk.SIZE_DEFAULT):
    """A disk whose power can be cut, up, below top; for `with`. Skips the test where it cannot be
    made."""
    lacking = powercut_disk.missing()
    if lacking:
        tap.skip(lacking)
    return powercut_disk.Disk(os.path.join(top, "disk"), size=size)


def cut(power, subject, pause, at_least=50):
    """One cut under load: starts the subject, waits for at_least acknowledgements, calls pause(),
    cuts, remounts, and reads what survived."""
    try:
        subject.start(power.mnt)
        tap.wait_until(
            lambda: len(subject.acknowledged()) >= at_least,
            60,
            f"{subject.name} acknowledges something",
        )
        pause()
        before = subject.acknowledged()
        power.kill_power()
    finally:
        subject.kill()
    power.stop()
    acknowledged = subject.acknowledged()
    power.remount()
    try:
        return Account(before, acknowledged, subject.recover(power.mnt))
    except Damaged as error:
        return Account(before, acknowledged, [], str(error))
