#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A refused start names the step that failed, its object, the cause and the setting, and leaves
none of the files that it made."""
import errno
import os
import socket
import subprocess

import tap

# call, errno, part of its path, words of the message beside the errno's text and the data directory
# (or the address)
PLANTED = [
    ("mkdir", errno.EACCES, "data", ["mkdir"]),
    ("statfs", errno.EIO, "data", ["statfs"]),
    ("open", errno.EACCES, "sluice.lock", ["sluice.lock"]),
    ("flock", errno.ENOLCK, "", ["sluice.lock", "lock"]),
    ("open", errno.EMFILE, "data.mdb", ["data.mdb"]),
    ("open", errno.EACCES, "lock.mdb", ["lock.mdb"]),
    ("mmap", errno.ENOMEM, "", ["data.mdb", "map_mib", "65536"]),
    ("write", errno.ENOSPC, "", ["data.mdb"]),
    ("write", errno.EDQUOT, "", ["data.mdb", "quota"]),
    ("write", errno.EFBIG, "", ["data.mdb", "ulimit -f"]),
    ("write", errno.EIO, "", ["data.mdb"]),
    ("fdatasync", errno.EIO, "", ["data.mdb"]),
    ("rename", errno.EROFS, "data.mdb", ["data.mdb", "renamed"]),
    ("fsync", errno.EIO, "", ["fsync"]),
    ("fallocate", errno.EIO, "", ["allocating ahead"]),
    ("socket", errno.EAFNOSUPPORT, "", ["socket", "listen = 127.0.0.1:"]),
    ("bind", errno.EADDRNOTAVAIL, "", ["bind", "listen = 127.0.0.1:"]),
    ("bind", errno.EACCES, "", ["bind", "listen = 127.0.0.1:"]),
    ("listen", errno.EADDRINUSE, "", ["listen", "listen = 127.0.0.1:"]),
    # "#N": the N-th call. The first are those of the signals, before anything is made.
    ("eventfd", errno.EMFILE, "#1", ["signals"]),
    ("eventfd", errno.EMFILE, "#2", ["event loops", "io_threads", "ulimit -n"]),
    ("pthread_create", errno.EAGAIN, "#1", ["signals"]),
    ("pthread_create", errno.EAGAIN, "#2", ["engine", "ulimit -u"]),
    ("pthread_create", errno.EAGAIN, "#3", ["I/O", "ulimit -u"]),
    ("getrandom", errno.ENOSYS, "", ["random numbers", "getrandom"]),
]
# Errors of the process, not of its data or address.
WITHOUT_THING = ("eventfd", "pthread_create", "getrandom")


def start(data, *args, env=None):
    """A start that has to fail."""
    done = subprocess.run(
        [
            tap.program("broker/sluiced"),
            "--data",
            data,
            "--listen",
            f"127.0.0.1:{tap.free_port()}",
            *args,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
    )
    tap.check(done.returncode > 0, f"it is refused: {done.returncode}, {done.stdout}")
    return done.stderr


def test_each_failure_of_a_start_has_step_thing_and_cause_and_leaves_nothing():
    tap.not_sanitized("a sanitizer's library must be the first that is preloaded")
    plant = tap.plain(os.path.join(tap.BUILD, "tests/support/plant_errno.so"))
    for call, number, part, words in PLANTED:
        for existed in (False, True):
            if existed and call == "mkdir":
                continue
            with tap.Scratch() as top:
                data = os.path.join(top, "data")
                if existed:
                    os.mkdir(data)
                said = start(data, env={"LD_PRELOAD": plant, "PLANT": f"{call} {number} {part}"})
                what = f"{call}, {errno.errorcode[number]}: {said!r}"
                tap.check(os.strerror(number) in said, f"the cause is named: {what}")
                for word in words:
                    tap.check(word in said, f"{word!r} is named: {what}")
                tap.check(
                    call in WITHOUT_THING or "listen =" in said or data in said,
                    f"the object is named: {what}",
                )
                tap.equal(
                    os.listdir(top),
                    ["data"] if existed else [],
                    f"the directory is as it was: {what}",
                )
                tap.equal(os.listdir(data) if existed else [], [], f"and nothing is in it: {what}")


def test_a_store_that_was_there_stays_when_a_start_fails():
    with tap.Scratch() as top, socket.create_server(("127.0.0.1", 0)) as taken:
        data = os.path.join(top, "data")
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        said = start(data, "--listen", busy)
        tap.check("Address already in use" in said and busy in said, f"the port is taken: {said}")
        tap.check(not os.path.exists(data), "and no fresh store is left")
        with tap.Broker(data=data):
            pass
        with open(os.path.join(data, "data.mdb"), "rb") as file:
            before = file.read()
        start(data, "--listen", busy)
        tap.check(
            sorted(os.listdir(data)) == ["data.mdb", "lock.mdb", "sluice.lock"] and before,
            "an old store is",
        )
        with tap.Broker(data=data):
            start(data)
        with tap.Broker(data=data):
            tap.check(True, "and serves")


def test_localhost_is_loopback_and_what_looks_like_it_is_not():
    with tap.Scratch() as top:
        with tap.Broker(args=["--listen", "localhost:0"]) as broker:
            tap.check(broker.port > 0, "it listens")
        for listen in (
            "0.0.0.0:0",
            "127.example.org:0",
            "10.0.0.1:0",
            "[::]:0",
            "localhost.example:0",
        ):
            said = start(f"{top}/b", "--listen", listen)
            tap.check(
                listen in said and ("insecure" in said or "numeric" in said),
                f"{listen} is refused: {said}",
            )
            tap.check(not os.path.exists(f"{top}/b"), "and leaves nothing")


def test_stops_that_are_not_in_order_are_refused():
    with tap.Scratch() as top:
        said = start(f"{top}/a", "--set", "publish_stop_percent=95")
        tap.check("publish_stop_percent" in said and "report_stop_percent" in said, said)


tap.main(globals())
