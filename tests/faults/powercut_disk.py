#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A disk with a volatile write cache, whose power can be cut.

    disk.img <- nbdkit (cache filter, write-back) <- nbdfuse <- loop device <- ext4 <- DIR/mnt

Data that the file system has not flushed is in the nbdkit process only, so kill -9 of that process
is a power cut: the image keeps the flushed data and nothing else.  As a library this is class Disk;
from a shell the same as commands, with the state kept in DIR/state.json:

    powercut_disk.py make DIR [--size BYTES]   make DIR/disk.img and mount it at DIR/mnt
    powercut_disk.py cut DIR                   cut the power and unmount the dead file system
    powercut_disk.py remount DIR               mount what survived, through a fresh cache
    powercut_disk.py teardown DIR              unmount, stop, and check that nothing is left
    powercut_disk.py check DIR                 exit 1 if a mount or a loop device is left

Owns: two processes (nbdkit, nbdfuse), one loop device, two mounts, all recorded in the state file.
Signals go to these two pids only, and only while their start time is the recorded one.
The program under test belongs to the caller: end it after cut(), when its file system is dead.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

TOOLS = ("nbdkit", "nbdfuse", "fusermount3", "losetup", "mkfs.ext4", "mount", "umount")
SIZE_DEFAULT = 512 << 20
DEADLINE_S = 20.0
SBIN = os.pathsep.join(("/usr/local/sbin", "/usr/sbin", "/sbin"))
ENV = dict(os.environ, PATH=os.environ.get("PATH", "/usr/bin:/bin") + os.pathsep + SBIN, LC_ALL="C")


class DiskError(Exception):
    """The rig itself failed, which is no result about the program under test."""


def missing():
    """What this machine lacks for the disk, as one line, or None when it can be built."""
    if os.geteuid() != 0:
        return "needs root (loop device, mount)"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=ENV["PATH"]) is None]
    if lacking:
        return "not installed: %s (Debian: nbdkit libnbd-bin fuse3 e2fsprogs)" % " ".join(lacking)
    for device in ("/dev/fuse", "/dev/loop-control"):
        try:
            os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return "cannot open %s: %s" % (device, error.strerror)
    return None


def run(*argv, check=True):
    """Runs a short command; returns its stdout. DiskError with its stderr when it fails."""
    try:
        done = subprocess.run(
            argv,
            env=ENV,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DiskError("%s: no end after %d s" % (" ".join(argv), error.timeout)) from error
    if check and done.returncode != 0:
        raise DiskError("%s: %s" % (" ".join(argv), done.stderr.strip() or done.returncode))
    return done.stdout


def until(condition, what, deadline_s=DEADLINE_S):
    """Polls until condition() is true; DiskError when that takes longer than deadline_s."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise DiskError("%s: not within %.0f s" % (what, deadline_s))
        time.sleep(0.01)


def start_ticks(pid):
    """Start time of a process (clock ticks since boot); None when it has ended or is a zombie."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def unescape(path):
    """A path as /proc/self/mounts and sysfs write it, with \\040 for a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), path)


def mounts_below(top):
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
        points = [unescape(line.split()[1]) for line in mounts]
    return [point for point in points if point == top or point.startswith(top + "/")]


def loops_below(top):
    """Loop devices whose backing file is below top, deleted or not (`losetup -a`)."""
    found = []
    for line in run(
        "losetup", "--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"
    ).splitlines():
        name, _, back = line.partition(" ")
        if unescape(back.replace("\\x20", " ")).startswith(top + "/"):
            found.append(name)
    return found


class Disk:
    """One disk in one directory. Not thread-safe. Every method blocks, at most DEADLINE_S a step.

    State: 'down' (image only) or 'up' (mounted). make: none -> up; cut: up -> down; remount: down
    -> up; stop: up -> down, clean; teardown: any -> down, then checks. teardown may be repeated.
    """

    def __init__(self, top, size=SIZE_DEFAULT, log=None):
        self.top = os.path.realpath(top)
        self.size = size
        self.log = log or (lambda text: None)
        self.mnt = os.path.join(self.top, "mnt")
        self.image = os.path.join(self.top, "disk.img")
        self.errors = os.path.join(self.top, "errors-on")
        self.file = os.path.join(self.top, "fuse", "disk")
        self.socket = os.path.join(self.top, "nbd.sock")
        self.pidfile = os.path.join(self.top, "nbdkit.pid")
        self.state_path = os.path.join(self.top, "state.json")
        self.state = {}
        self.children = {}
        if os.path.exists(self.state_path):
            with open(self.state_path, encoding="utf-8") as state:
                self.state = json.load(state)

    def __enter__(self):
        """Creates the disk if it is new. A `with` takes the disk down however the block ends."""
        try:
            if not os.path.exists(self.image):
                self.make()
        except BaseException:
            self.teardown()
            raise
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.teardown()
        except BaseException:
            # A deadline or a signal may have interrupted a step; each step is idempotent.
            self.teardown()
            raise

    def make(self):
        """A new, empty file system, mounted at self.mnt. DiskError when the directory holds one
        already."""
        if os.path.exists(self.image):
            raise DiskError("%s exists" % self.image)
        os.makedirs(self.mnt, exist_ok=True)
        os.makedirs(os.path.dirname(self.file), exist_ok=True)
        with open(self.image, "wb") as image:
            image.truncate(self.size)
        # No lazy initialisation: the kernel would write during the test.
        run(
            "mkfs.ext4",
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
            self.image,
        )
        self._attach()

    def remount(self):
        """Mounts what survived (ext4 replays its journal). DiskError when the file system is not
        mountable."""
        if self.state:
            raise DiskError("%s: still up" % self.top)
        self._attach()

    def cut(self):
        """Cuts the power, and unmounts the dead file system as far as its users allow."""
        self.kill_power()
        self.stop()

    def kill_power(self):
        """Only the cut, at once: SIGKILL of nbdkit. stop() must follow, after the users were
        ended."""
        self._signal("nbdkit", signal.SIGKILL)

    def fail_writes(self, on):
        """From now on each write to the disk fails with EIO (on), or works again (off)."""
        if on:
            with open(self.errors, "wb"):
                pass
        elif os.path.exists(self.errors):
            os.unlink(self.errors)

    def used(self):
        """Bytes that are used on the mounted file system."""
        room = os.statvfs(self.mnt)
        return (room.f_blocks - room.f_bfree) * room.f_frsize

    def stop(self):
        """Unmounts and stops, cleanly if the power is on. Idempotent. DiskError when something is
        left."""
        if self.mnt in mounts_below(self.top):
            self._unmount(self.mnt)
        for loop in loops_below(self.top):
            run("losetup", "-d", loop, check=False)
        until(lambda: not loops_below(self.top), "detach of the loop device")
        fuse = os.path.dirname(self.file)
        if fuse in mounts_below(self.top):
            self._unmount(fuse)
        for name in ("nbdfuse", "nbdkit"):
            self._signal(name, signal.SIGTERM)
            try:
                until(lambda name=name: not self._alive(name), "end of " + name, 5.0)
            except DiskError:
                self._signal(name, signal.SIGKILL)
                until(lambda name=name: not self._alive(name), "end of " + name)
        self.children.clear()
        self._save({})
        if os.path.exists(self.socket):
            os.unlink(self.socket)

    def teardown(self):
        """stop(), then check(): raises DiskError, which names what is left."""
        self.stop()
        left = self.check()
        if left:
            raise DiskError("left behind: " + ", ".join(left))

    def check(self):
        """Mounts, loop devices and processes of this disk that still exist, as a list of texts."""
        left = ["mount " + point for point in mounts_below(self.top)]
        left += ["loop device " + loop for loop in loops_below(self.top)]
        left += [
            "process %s %d" % (name, self.state[name][0])
            for name in self.state
            if self._alive(name)
        ]
        return left

    def _attach(self):
        self.fail_writes(False)
        try:
            # cache= makes writes volatile; the error filter is nearest to the client and is
            # off. As a daemon, because in the foreground nbdkit 1.32 ends together with the process
            # that started it.
            self._daemon(
                "nbdkit",
                "nbdkit",
                "--pidfile",
                self.pidfile,
                "--unix",
                self.socket,
                "--filter=error",
                "--filter=cache",
                "file",
                self.image,
                "cache=writeback",
                "cache-min-block-size=4096",
                "error=EIO",
                "error-pwrite-rate=100%",
                "error-pwrite-file=" + self.errors,
            )
            self._spawn("nbdfuse", "nbdfuse", "-C", "1", self.file, "--unix", self.socket)
            until(lambda: os.path.exists(self.file) or self._ended("nbdfuse"), "file of nbdfuse")
            loop = run("losetup", "--find", "--show", self.file).strip()
            run("mount", "-t", "ext4", "-o", "noatime", loop, self.mnt)
        except BaseException:
            self.stop()
            raise

    def _ended(self, name):
        """False while the program runs; DiskError with its output when it has ended."""
        if name in self.children and self.children[name].poll() is None:
            return False
        with open(os.path.join(self.top, name + ".log"), encoding="utf-8", errors="replace") as log:
            raise DiskError("%s ended: %s" % (name, log.read().strip()))

    def _daemon(self, name, *argv):
        """A program that puts itself into the background when it is ready, its pid in
        self.pidfile."""
        if self._log_run(name, *argv).wait(DEADLINE_S) != 0:
            self._ended(name)
        until(
            lambda: os.path.exists(self.pidfile) and os.path.getsize(self.pidfile) > 0,
            "pid of " + name,
        )
        with open(self.pidfile, encoding="ascii") as pidfile:
            pid = int(pidfile.read())
        os.unlink(self.pidfile)
        self._save(dict(self.state, **{name: [pid, start_ticks(pid)]}))

    def _spawn(self, name, *argv):
        child = self.children[name] = self._log_run(name, *argv)
        self._save(dict(self.state, **{name: [child.pid, start_ticks(child.pid)]}))

    def _log_run(self, name, *argv):
        # A session of its own: Ctrl-C must reach the rig, which tears down in order, not these two.
        with open(os.path.join(self.top, name + ".log"), "wb") as log:
            return subprocess.Popen(
                argv,
                env=dict(ENV, TMPDIR=self.top),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _save(self, state):
        self.state = state
        if not os.path.isdir(self.top):
            return
        with open(self.state_path + ".new", "w", encoding="utf-8") as out:
            json.dump(state, out)
        os.replace(self.state_path + ".new", self.state_path)

    def _alive(self, name):
        child = self.children.get(name)
        if child is not None:
            return child.poll() is None
        pid, ticks = self.state.get(name, (0, None))
        return pid > 0 and ticks is not None and start_ticks(pid) == ticks

    def _signal(self, name, number):
        if self._alive(name):
            os.kill(self.state[name][0], number)

    def _unmount(self, point):
        end = time.monotonic() + DEADLINE_S
        while point in mounts_below(self.top):
            run("umount", point, check=False)
            if point in mounts_below(self.top) and time.monotonic() > end:
                # A process still uses it: detaches it from the tree; the caller's check names the
                # loop device.
                self.log("%s is busy, unmounted lazily" % point)
                run("umount", "-l", point)
            elif point in mounts_below(self.top):
                time.sleep(0.02)


def on_signal(number, frame):
    """SIGINT, SIGTERM and SIGHUP become an exception, so that every `with Disk()` takes itself
    down."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def handle_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("make", "cut", "remount", "teardown", "check"))
    parser.add_argument("dir")
    parser.add_argument("--size", type=int, default=SIZE_DEFAULT, help="bytes (%(default)d)")
    args = parser.parse_args()
    why = missing()
    if why:
        sys.exit("powercut_disk: " + why)
    handle_signals()
    if args.verb == "make":
        os.makedirs(args.dir, exist_ok=True)
    disk = Disk(args.dir, args.size, log=lambda text: print(text, file=sys.stderr))
    try:
        if args.verb == "check":
            left = disk.check()
            if left:
                raise DiskError("left behind: " + ", ".join(left))
        else:
            getattr(disk, args.verb)()
    except DiskError as error:
        sys.exit("powercut_disk: %s" % error)


if __name__ == "__main__":
    main()
