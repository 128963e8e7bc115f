#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The programs of client/examples: each compiles with the command in its head and the project's
warnings, and does what its head says."""
import contextlib
import glob
import json
import os
import re
import signal
import subprocess
import tempfile

import tap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLES = os.path.join(ROOT, "client/examples")
LIBRARY = os.path.join(os.path.abspath(tap.BUILD), "client")


def warnings_of_the_project():
    """The options that begin with -W, as the build compiles the library."""
    with open(os.path.join(tap.BUILD, "compile_commands.json"), encoding="utf-8") as file:
        command = next(
            entry["command"]
            for entry in json.load(file)
            if entry["file"].endswith("client/client.c")
        )
    found = [word for word in command.split() if re.fullmatch(r"-W[a-z][\w=-]*", word)]
    tap.check("-Wall" in found and "-Wextra" in found, f"the project's warnings are known: {found}")
    return [*found, "-Werror"]


def compiled(name, top):
    """The program of an example, compiled below `top` with the library of the build."""
    with open(os.path.join(LIBRARY, "libsluice.so"), "rb") as file:
        image = file.read()
    if b"__tsan_init" in image:
        tap.skip("a program without TSan cannot load a library with it")
    (path,) = glob.glob(os.path.join(EXAMPLES, name + ".*"))
    if path.endswith(".cc"):
        words = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    else:
        words = ["cc", "-std=gnu17", *warnings_of_the_project()]
    if "libevent" in name:
        words += subprocess.run(
            ["pkg-config", "--cflags", "libevent_core"], capture_output=True, text=True, check=True
        ).stdout.split()
    words += ["-fsanitize=address"] if b"__asan_init" in image else []
    words += [
        "-I",
        os.path.join(ROOT, "include"),
        path,
        "-L",
        LIBRARY,
        "-lsluice",
        f"-Wl,-rpath,{LIBRARY}",
        "-o",
        os.path.join(top, name),
    ]
    words += ["-levent_core"] if "libevent" in name else []
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    tap.equal(done.returncode, 0, f"{name} compiles without a warning: {done.stderr}")
    return os.path.join(top, name)


class Place:
    """A broker, the command, and the program of one example."""

    def __init__(self, broker, program):
        self.broker, self.path = broker, program

    def sluice(self, *words, code=0):
        done = subprocess.run(
            [tap.program("client/cli/sluice"), "--address", self.broker.address, *words],
            capture_output=True,
            text=True,
            timeout=60,
        )
        tap.equal(done.returncode, code, f"sluice {' '.join(words)}: {done.stderr}")
        return done.stdout

    def row(self, kind, *words):
        """The only row of a reply, from its JSON."""
        (row,) = json.loads(self.sluice(*words, "-o", "json"))[kind]
        return row

    def run(self, *words, code=0):
        """Runs the program and returns its lines."""
        done = subprocess.run(
            [self.path, self.broker.address, *words],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        tap.equal(done.returncode, code, f"the exit code ({done.stdout}{done.stderr})")
        self.errors = done.stderr
        return done.stdout.splitlines()


@contextlib.contextmanager
def place(name):
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as top:
        program = compiled(name, top)
        with tap.Broker() as broker:
            yield Place(broker, program)


def test_publisher():
    with place("publisher") as here:
        tap.equal(here.run("2000"), ["2000 stored, 0 failed"], "what it prints")
        tap.equal(
            here.row("streams", "stream", "show", "events")["next_offset"],
            2000,
            "events in the stream",
        )
        tap.equal(
            here.sluice("follow", "events", "--from", "1999", "--count", "1").split("  ")[2:],
            ["demo.count", "event 2000\n"],
            "the last event",
        )


def test_publisher_says_what_is_refused():
    with place("publisher") as here:
        here.sluice("stream", "create", "events", "--max-age", "1h")
        tap.equal(here.run("10", code=5), ["0 stored, 0 failed"], "nothing is published")
        tap.check("max_age_ms" in here.errors, f"it says what differs: {here.errors}")


def test_worker():
    with place("worker") as here:
        here.sluice("queue", "create", "work", "--max-attempts", "2")
        for body in ("first", "fail", "second"):
            here.sluice("put", "work", "s", body)
        tap.equal(here.run("2"), ["first is done", "second is done"], "what it prints")
        queue = here.row("queues", "queue", "show", "work")
        tap.equal(
            (queue.get("ready", 0), queue.get("leased", 0), queue["acked"], queue["dead_lettered"]),
            (0, 0, 2, 1),
            "ready, leased, acked, dead",
        )
        tap.check(
            "invalid argument" in here.sluice("-o", "json", "queue", "peek", "dead-letter"),
            "the dead item has the reason",
        )


def test_worker_ends_on_a_signal():
    with place("worker") as here:
        here.sluice("queue", "create", "work")
        worker = tap.Process([here.path, here.broker.address, "1000"])
        try:
            here.sluice("put", "work", "s", "last")
            tap.wait_until(
                lambda: here.row("queues", "queue", "show", "work").get("acked") == 1,
                30,
                "the item is acknowledged",
            )
            worker.signal(signal.SIGTERM)
            tap.equal(worker.wait(30), 0, "its exit code")
            tap.equal(worker.text(), b"last is done\n", "what it printed")
        finally:
            worker.kill()


def test_libevent_loop():
    with place("libevent_loop") as here:
        tap.equal(here.run(code=4), [], "without a stream")
        here.sluice("stream", "create", "events", "--subject", "demo.>", "--max-events", "2")
        for body in ("one", "two", "three"):
            here.sluice("pub", "demo.x", body)
        tap.equal(here.run(), ["demo.x: two", "demo.x: three"], "what it prints")


def test_poll_loop():
    with place("poll_loop") as here:
        here.sluice("queue", "create", "work")
        with subprocess.Popen(
            [here.path, here.broker.address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            try:
                for body in ("one", "two"):
                    here.sluice("put", "work", "s", body)
                tap.wait_until(
                    lambda: here.row("queues", "queue", "show", "work").get("acked") == 2,
                    30,
                    "both are acknowledged",
                )
                tap.equal(
                    program.communicate(timeout=30)[0],
                    "s: one\ns: two\n",
                    "what it prints until its input is closed",
                )
            finally:
                program.kill()
        tap.equal(program.returncode, 0, "its exit code")


def test_transaction():
    with place("transaction") as here:
        here.sluice("queue", "create", "finished")
        here.sluice("queue", "create", "runs", "--jobs")
        here.sluice("stream", "create", "archive", "--subject", "archive.>")
        here.sluice("job", "submit", "--queue", "runs", "--id", "j1", "x")
        here.sluice("put", "finished", "s", "3", "--key", "j1")
        tap.equal(here.run(), ["j1 is archived"], "what it prints")
        job = here.row("jobs", "job", "show", "j1")
        tap.equal(
            (job["state"], job["exit_code"], job["source"]), ("FAILED", 3, "archiver"), "the job"
        )
        tap.equal(
            here.row("queues", "queue", "show", "finished")["acked"], 1, "acknowledged notices"
        )
        tap.equal(here.row("streams", "stream", "show", "archive")["next_offset"], 1, "events")


def test_a_refused_transaction_does_nothing():
    with place("transaction") as here:
        here.sluice("queue", "create", "finished")
        here.sluice("queue", "create", "runs", "--jobs")
        here.sluice("stream", "create", "archive", "--subject", "archive.>")
        here.sluice("job", "submit", "--queue", "runs", "--id", "j1", "x")
        here.sluice("job", "report", "j1", "--state", "FAILED", "--source", "somebody")
        here.sluice("put", "finished", "s", "0", "--key", "j1")
        tap.equal(here.run(code=6), [], "what it prints")
        tap.check(
            "operation 3" in here.errors, f"it says which operation was refused: {here.errors}"
        )
        queue = here.row("queues", "queue", "show", "finished")
        tap.equal(
            (queue["ready"], queue.get("acked", 0)), (1, 0), "the notice is back: ready, acked"
        )
        tap.equal(
            here.row("streams", "stream", "show", "archive").get("next_offset", 0), 0, "events"
        )
        tap.equal(
            here.row("jobs", "job", "show", "j1")["source"], "somebody", "whose report the job has"
        )


def test_cplusplus():
    with place("cplusplus") as here:
        tap.equal(here.run(), ["demo.cplusplus: it works"], "what it prints")
        tap.equal(here.run(), ["demo.cplusplus: it works"] * 2, "what it prints the second time")


def test_no_example_is_left_out():
    names = {
        os.path.splitext(name)[0] for name in os.listdir(EXAMPLES) if name.endswith((".c", ".cc"))
    }
    tap.equal(
        sorted(name for name in names if f"test_{name}" not in globals()),
        [],
        "examples without a test",
    )


tap.main(globals())
