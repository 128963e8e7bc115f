#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `local` scheduler as a neighbour: what it does with processes and files that it shares a broker and a disk with."""
import contextlib
import json
import os
import subprocess
import tempfile

import tap

LOCAL = os.path.join(tap.BUILD, "plugins/local/local.so")


def sluice(broker, *args):
    return subprocess.run([tap.program("client/cli/sluice"), "--address", broker.address, *args], capture_output=True, text=True, timeout=60)


@contextlib.contextmanager
def inside(spool, *plugins, **settings):
    """A broker with the scheduler, and other plugins, inside."""
    if not os.path.exists(LOCAL):
        tap.skip("local.so is not built")
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        # The queue must be there before a scheduler inside consumes from it.
        with tap.Broker(data=data) as broker:
            tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        words = [f"{LOCAL} spool={spool}" + "".join(f" {key}={value}" for key, value in settings.items()), *plugins]
        with tap.Broker(data=data, args=[word for plugin in words for word in ("--plugin", plugin)]) as broker:
            yield broker


def run(broker, name, *argv):
    """Submits a job, waits for its end and returns its state."""
    done = sluice(broker, "job", "submit", "--id", name, "--queue", "runs", json.dumps({"argv": argv}))
    tap.equal(done.returncode, 0, f"submit {name}: {done.stderr}")
    sluice(broker, "job", "wait", name, "--timeout", "30s")
    return json.loads(sluice(broker, "-o", "json", "job", "show", name).stdout)["jobs"][0]["state"]


def zombies(pid):
    """Children of a process that have ended and were not waited for."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{int(name)}/stat", encoding="utf-8") as file:
                state, parent = file.read().rsplit(")", 1)[1].split()[:2]
            if int(parent) == pid and state == "Z":
                found.append(int(name))
    return found


def test_children_of_other_plugins_are_left_to_them():
    child = os.path.join(tap.BUILD, "tests/integration/child.so")
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as top:
        ask = os.path.join(top, "ask")
        with inside(os.path.join(top, "spool"), f"{child} ask={ask}") as broker:
            tap.wait_until(lambda: b"id=child.ended" in broker.text(), 30, "the other plugin's child has ended")
            # While these run the scheduler's loop turns, and waits for what it started.
            for name in ("a", "b", "c"):
                tap.equal(run(broker, name, "true"), "COMPLETE", f"job {name}")
            open(ask, "wb").close()
            tap.wait_until(lambda: b"id=child.kept" in broker.text() or b"id=child.taken" in broker.text(), 30, "the other plugin has looked")
            tap.check(b"id=child.kept" in broker.text(), "its child was left to it")
            tap.wait_until(lambda: zombies(broker.pid) == [], 30, "and what the scheduler started is waited for")


tap.main(globals())
