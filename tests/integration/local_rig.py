# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of the `local` scheduler: brokers and schedulers, jobs, attempts, and a proxy
that loses frames."""
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import DELIVER, REQUEST, pb  # noqa: E402

LOCAL = os.path.join(tap.BUILD, "plugins/local/local.so")


def sluice(broker, *args):
    return subprocess.run(
        [tap.program("client/cli/sluice"), "--address", broker.address, *args],
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextlib.contextmanager
def inside(spool, *plugins, **settings):
    """A broker with the scheduler, and other plugins, inside."""
    if not os.path.exists(LOCAL):
        tap.skip("local.so is not built")
    with tap.Scratch() as data:
        # The queue must exist before a scheduler inside the broker consumes from it.
        with tap.Broker(data=data) as broker:
            tap.equal(
                sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create"
            )
        words = [
            f'"{LOCAL}" "spool={spool}"'
            + "".join(f" {key}={value}" for key, value in settings.items()),
            *plugins,
        ]
        with tap.Broker(
            data=data, args=[word for plugin in words for word in ("--plugin", plugin)]
        ) as broker:
            yield broker


@contextlib.contextmanager
def outside(broker, spool, env=None, cwd=None, before=(), **settings):
    """The scheduler as a process of its own, started through the command `before`; it takes over
    the session of an earlier one."""
    words = [
        word
        for key, value in {"spool": spool, **settings}.items()
        for word in ("--set", f"{key}={value}")
    ]
    program = os.path.abspath(tap.program("broker/plugin/sluice-plugin"))
    process = tap.Process(
        [*before, program, "--address", broker.address, *words, os.path.abspath(LOCAL)],
        env=env,
        cwd=cwd,
    )
    try:
        yield process
    finally:
        process.kill()


def submit(broker, name, *argv):
    done = sluice(
        broker, "job", "submit", "--id", name, "--queue", "runs", json.dumps({"argv": argv})
    )
    tap.equal(done.returncode, 0, f"submit {name}: {done.stderr}")


def shown(broker, name):
    return json.loads(sluice(broker, "-o", "json", "job", "show", name).stdout)["jobs"][0]


def ended(broker, name):
    """The state of a job when it has ended, or after 30 s."""
    sluice(broker, "job", "wait", name, "--timeout", "30s")
    return shown(broker, name)["state"]


def run(broker, name, *argv):
    """Submits a job, waits for its end and returns its state."""
    submit(broker, name, *argv)
    return ended(broker, name)


def attempts(spool):
    """The attempt directories of a spool."""
    return [path for path, folders, files in os.walk(spool) if "job.json" in files]


def attempt(spool, name):
    """The directory of a job's first attempt, or None; the id must not need escapes."""
    found = [
        path
        for path in attempts(spool)
        if re.search(f"/{re.escape(name)}/1\\.[0-9a-f]{{24}}$", path)
    ]
    return found[0] if found else None


def lives(pid):
    """False for a zombie: which process waits for it depends on the machine."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def shepherds(spool):
    """Processes whose arguments name a directory of the spool."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if any(word.startswith(spool.encode() + b"/") for word in file.read().split(b"\0")):
                    found.append(int(name))
    return found


class LosingProxy:
    """A proxy between scheduler and broker. The first request that `loses` selects never arrives:
    the connection ends there, and no other is accepted before `open`. A later request is forwarded
    only after a delivery, as if it had been slower. Frames of a type that `drops` selects are
    dropped."""

    def __init__(self, port, loses, drops=lambda kind: False):
        self.port, self.loses, self.drops = port, loses, drops
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.sending = threading.Lock()
        self.lost, self.open, self.delivered = (
            threading.Event(),
            threading.Event(),
            threading.Event(),
        )
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client = self.listener.accept()[0]
                if self.lost.is_set() and not self.open.is_set():
                    client.close()
                    continue
                broker = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                return
            for source, sink in ((client, broker), (broker, client)):
                threading.Thread(target=self.pass_on, args=(source, sink), daemon=True).start()

    def send(self, sink, frame):
        with self.sending, contextlib.suppress(OSError):
            sink.sendall(frame)

    def pass_later(self, sink, frame):
        self.delivered.wait(30)
        self.send(sink, frame)

    def pass_on(self, source, sink):
        with source.makefile("rb") as file:
            while len(head := file.read(4)) == 4:
                frame = head + file.read(int.from_bytes(head, "big"))
                if frame[4] == REQUEST and self.loses(pb.Request.FromString(frame[10:])):
                    if not self.lost.is_set():
                        self.lost.set()
                        break
                    threading.Thread(
                        target=self.pass_later, args=(sink, frame), daemon=True
                    ).start()
                    continue
                if self.drops(frame[4]):
                    continue
                self.send(sink, frame)
                if frame[4] == DELIVER and self.open.is_set():
                    self.delivered.set()
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def attempt_mark(spool):
    """Whether an attempt's directory in the spool has its start mark."""
    return any(
        "start" in files and re.search("/1\\.[0-9a-f]{24}$", path)
        for path, _, files in os.walk(spool)
    )


def waits(process, text):
    tap.wait_until(lambda: text.encode() in process.text(), 30, f"the log says: {text}")


def queue(broker, *args, name="runs"):
    done = sluice(broker, "queue", "create", name, "--jobs", *args)
    tap.equal(done.returncode, 0, f"queue create: {done.stderr}")
