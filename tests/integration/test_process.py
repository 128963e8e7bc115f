#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""sluiced as a process: it serves whatever it inherits, closes descriptors that are not meant for
it, and as process 1 leaves no zombies."""
import fcntl
import itertools
import os
import re
import signal
import subprocess
import tempfile

import tap

ALL_CLOSED = [how for size in (1, 2, 3) for how in itertools.combinations((0, 1, 2), size)]


def sluice(port, *args, expect=0):
    cli = tap.program("client/cli/sluice")
    done = subprocess.run(
        [cli, "--address", f"127.0.0.1:{port}", *args], capture_output=True, text=True, timeout=60
    )
    if expect is not None:
        tap.equal(done.returncode, expect, f"sluice {' '.join(args)}: {done.stderr}")
    return done


class Bare:
    """A broker that is known only by its pid, port and data directory: its output may be closed."""

    def __init__(self, data, port, prepare=None, args=(), env=None, before=(), pass_fds=()):
        self.port = port
        self.child = subprocess.Popen(
            [
                *before,
                tap.program("broker/sluiced"),
                "--data",
                data,
                "--listen",
                f"127.0.0.1:{port}",
                *args,
            ],
            preexec_fn=prepare,
            env={**os.environ, **(env or {})},
            pass_fds=pass_fds,
        )
        self.pid = self.child.pid
        tap.wait_until(self._answers, 60, "the broker answers")

    def _answers(self):
        if self.child.poll() is not None:
            raise tap.Failed(f"the broker ended with {self.child.returncode}")
        return sluice(self.port, "status", expect=None).returncode == 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None:
            self.child.kill()
        elif self.child.poll() is None:
            self.child.terminate()
        got = self.child.wait(60)
        if kind is None:
            tap.equal(got, 0, "exit code of the broker")


def test_closed_standard_descriptors_do_not_reach_the_store():
    for how in ALL_CLOSED:
        with tap.Scratch() as data:
            port = tap.free_port()

            def close():
                for fd in how:
                    os.close(fd)

            with Bare(data, port, prepare=close) as broker:
                for fd in range(3):
                    where = os.readlink(f"/proc/{broker.pid}/fd/{fd}")
                    tap.check(
                        not where.startswith(data), f"{how} closed: descriptor {fd} is {where}"
                    )
                sluice(port, "queue", "create", "q")
                sluice(port, "put", "q", "s", "body")
            with Bare(data, port):
                sluice(port, "claim", "q", "--count", "1", "--ack")


def test_inherited_descriptors_are_not_held():
    with tap.Scratch() as folder:
        lock = os.open(f"{folder}/lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with Bare(f"{folder}/data", tap.free_port(), pass_fds=[lock]):
            os.close(lock)
            again = os.open(f"{folder}/lock", os.O_RDWR)
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
            tap.check(True, "a lock of the starter ends with the starter")
            os.close(again)


def test_a_configuration_may_come_through_an_inherited_descriptor():
    with tap.Scratch() as folder, tempfile.TemporaryFile() as file:
        file.write(b"io_threads = 1\n")
        file.flush()
        file.seek(0)
        with Bare(
            f"{folder}/data",
            tap.free_port(),
            args=["--config", f"/dev/fd/{file.fileno()}"],
            pass_fds=[file.fileno()],
        ):
            pass


def test_signals_that_mean_nothing_yet_are_logged_and_change_nothing():
    def ignoring():
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())

    for prepare in (None, ignoring):
        with tap.Scratch() as folder, open(f"{folder}/log", "wb+") as log:

            def start():
                os.dup2(log.fileno(), 2)
                if prepare is not None:
                    prepare()

            with Bare(f"{folder}/data", tap.free_port(), prepare=start) as broker:
                for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"):
                    os.kill(broker.pid, getattr(signal, name))
                    tap.wait_until(
                        lambda: re.search(
                            rb"level=warn id=process.signal .*signal=" + name.encode(),
                            open(f"{folder}/log", "rb").read(),
                        ),
                        30,
                        f"{name} is logged",
                    )
                sluice(broker.port, "status")


def process_one(folder, *args):
    """A broker as process 1 of a namespace of its own, seen from outside."""
    probe = subprocess.run(
        ["unshare", "--fork", "--pid", "--mount-proc", "true"], capture_output=True, text=True
    )
    if probe.returncode != 0:
        tap.skip(f"no namespace of processes can be made here: {probe.stderr.strip()}")
    return Bare(
        f"{folder}/data",
        tap.free_port(),
        args=args,
        before=["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"],
    )


def children(pid):
    return [
        int(one)
        for one in subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True
        ).stdout.split()
    ]


def states(pid):
    return subprocess.run(
        ["ps", "-o", "stat=", "--ppid", str(pid)], capture_output=True, text=True
    ).stdout.split()


def test_process_one_reaps_orphans_and_leaves_the_children_of_others():
    with tap.Scratch() as folder:
        plugin = tap.plain(os.path.join(tap.BUILD, "tests/integration/child.so"))
        with process_one(
            folder, "--plugin", f"{plugin} ask={folder}/ask", "--set", "log_level=info"
        ) as broker:
            one = children(broker.pid)[0]
            [two] = children(one)
            for _ in range(20):
                # A process of the namespace whose parent ends first: it becomes a child of process
                # 1, and ends.
                subprocess.run(
                    [
                        "nsenter",
                        "-t",
                        str(one),
                        "-p",
                        "-m",
                        "sh",
                        "-c",
                        "sh -c 'sleep 0.05' & exit 0",
                    ],
                    check=True,
                )
            tap.wait_until(
                lambda: children(one) == [two],
                30,
                "all orphans are reaped, and the broker itself stays",
            )
            tap.equal(
                [s[0] for s in states(two)],
                ["Z"],
                "the ended child of the plugin waits for the plugin",
            )
            os.kill(one, signal.SIGHUP)
            sluice(broker.port, "status")
            os.kill(one, signal.SIGTERM)
            tap.equal(
                broker.child.wait(60),
                0,
                "SIGTERM is forwarded, and process 1 ends with the broker's exit code",
            )


def test_process_one_ends_with_the_code_of_the_broker():
    with tap.Scratch() as folder:
        with process_one(folder) as broker:
            [two] = children(children(broker.pid)[0])
            os.kill(two, signal.SIGKILL)
            tap.equal(broker.child.wait(60), 128 + signal.SIGKILL, "killed: 128 and the number")
            broker.child.returncode = 0
        done = subprocess.run(
            [
                "unshare",
                "--fork",
                "--pid",
                "--mount-proc",
                "--kill-child",
                tap.program("broker/sluiced"),
                "--data",
                f"{folder}/data",
                "--listen",
                "127.0.0.1:99999",
            ],
            capture_output=True,
        )
        tap.equal(done.returncode, 2, "a refused start")


tap.main(globals())
