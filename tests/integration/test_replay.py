#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The runner of the main job: errors for wrong options and traces, planted faults are found, and
nothing is left when it is interrupted."""
import glob
import gzip
import os
import signal
import subprocess
import tempfile

import tap

# Status 1: each job runs for as long as a job may, which is 2 s.
LINE = "{n} {n} 5 1000000 4 -1 -1 4 -1 -1 1 7 -1 -1 -1 -1 -1 -1\n"


def trace(top, count):
    path = os.path.join(top, "a trace.swf")
    with open(path, "w", encoding="ascii") as file:
        file.write("; Version: 2.2\n" + "".join(LINE.format(n=n) for n in range(1, count + 1)))
    return path


def build_below(top):
    """A build directory of its own for everything that the runner writes."""
    path = os.path.join(top, "a build")
    os.mkdir(path)
    for name in ("broker", "client", "plugins", "bench"):
        os.symlink(os.path.join(os.path.abspath(tap.BUILD), name), os.path.join(path, name))
    return path


def replay(*args, cwd=None):
    return subprocess.run(
        [tap.program("bench/replay/sluice-replay"), *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=cwd,
    )


def test_wrong_options_are_named_with_what_was_expected():
    for args, words in (
        (["--jobs", "0"], "--jobs is '0'; expected a number from 1"),
        (["--jobs", "-1"], "--jobs is '-1'; expected a number from 1"),
        (["--jobs", "abc"], "--jobs is 'abc'; expected a number from 1"),
        (["--jobs", "3x"], "--jobs is '3x'; expected a number from 1"),
        (["--jobs", "4294967296"], "expected a number from 1 to 4294967295"),
        (["--speedup", "0"], "--speedup is '0'; expected a number above 0"),
        (["--speedup", "abc"], "--speedup is 'abc'; expected a number above 0"),
        (["--speedup", "inf"], "--speedup is 'inf'; expected a number above 0"),
        (["--speedup"], "--speedup needs a value; expected a number above 0"),
        (["--kills", "10001"], "--kills is '10001'; expected a number from 1 to 10000"),
        (["--seed", "0"], "--seed is '0'; expected a number from 1"),
        (["--plant", "x"], "--plant is 'x'; expected lost, double or wrong"),
        (["--trace"], "--trace needs a value; expected a file"),
        (["--trace", ""], "--trace is ''; expected a file"),
        (["--nonsense"], "'--nonsense' is unknown"),
        (["word", "word"], "'word' is unknown"),
    ):
        done = replay("--bin", tap.BUILD, *args)
        tap.equal(done.returncode, 2, f"exit code of {args}: {done.stderr}")
        tap.check(words in done.stderr, f"{args} says {words!r}: {done.stderr!r}")
        tap.equal(done.stdout, "", f"{args} begins nothing")


def test_wrong_traces_are_named_before_anything_is_started():
    with tempfile.TemporaryDirectory() as top:
        build = build_below(top)
        whole = gzip.compress(LINE.format(n=1).encode() * 1000)
        damaged = bytearray(whole)
        damaged[-6] ^= 0xFF  # of its CRC
        for name, data, words in (
            ("missing", None, "No such file or directory"),
            ("empty", b"", "no jobs in it"),
            ("header only", b"; Version: 2.2\n", "no jobs in it"),
            ("cut.gz", whole[: len(whole) // 2], "damaged or cut gzip data"),
            ("damaged.gz", bytes(damaged), "damaged or cut gzip data"),
            ("binary", bytes(range(256)) * 20, "line 1"),
            ("short", b"; h\n1 2 3\n", "line 2: 3 columns; expected 18"),
        ):
            path = os.path.join(top, name)
            if data is not None:
                with open(path, "wb") as file:
                    file.write(data)
            done = replay("--bin", build, "--trace", path)
            tap.equal(done.returncode, 1, f"exit code of {name}: {done.stderr}")
            tap.check(
                path in done.stderr and words in done.stderr,
                f"{name} says {words!r}: {done.stderr!r}",
            )
        done = replay("--bin", build, "--trace", top)
        tap.check(
            done.returncode == 1 and "Is a directory" in done.stderr, f"a folder: {done.stderr!r}"
        )
        tap.equal(glob.glob(os.path.join(glob.escape(build), "run-*")), [], "no run was begun")


def test_planted_faults_are_found_and_a_sound_run_agrees():
    with tempfile.TemporaryDirectory() as top:
        build, path = build_below(top), trace(top, 3)
        for args, code, words in (
            ([], 0, "They agree"),
            (
                ["--plant", "lost"],
                1,
                (
                    "DISAGREE: 1 lost, 0 with two terminal states, 0 started twice, 0 with another"
                    " outcome"
                ),
            ),
            (
                ["--plant", "double"],
                1,
                (
                    "DISAGREE: 0 lost, 0 with two terminal states, 1 started twice, 0 with another"
                    " outcome"
                ),
            ),
            (
                ["--plant", "wrong"],
                1,
                (
                    "DISAGREE: 0 lost, 0 with two terminal states, 0 started twice, 1 with another"
                    " outcome"
                ),
            ),
        ):
            done = replay("--bin", build, "--trace", path, "--speedup", "1000000000", *args)
            tap.equal(done.returncode, code, f"exit code with {args}: {done.stdout}{done.stderr}")
            tap.check(words in done.stdout, f"{args} ends with {words!r}: {done.stdout}")


def command_lines():
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                yield file.read()
        except OSError:
            pass


def test_an_interrupted_run_leaves_no_process_and_no_folder():
    with tempfile.TemporaryDirectory() as top:
        path = trace(top, 40)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with tempfile.TemporaryDirectory() as parent:
                build = build_below(parent)
                runner = tap.Process(
                    [
                        tap.program("bench/replay/sluice-replay"),
                        "--bin",
                        build,
                        "--trace",
                        path,
                        "--speedup",
                        "1",
                    ]
                )
                try:
                    tap.wait_until(
                        lambda: [
                            f
                            for f in glob.glob(f"{glob.escape(build)}/run-*/starts")
                            if os.path.getsize(f) > 0
                        ],
                        60,
                        "a job has started",
                    )
                    runner.signal(number)
                    tap.equal(
                        runner.wait(60),
                        128 + number,
                        f"exit code after {number.name}: {runner.tail()}",
                    )
                finally:
                    runner.kill()
                left = [line for line in command_lines() if os.fsencode(build + "/run-") in line]
                tap.equal(left, [], f"processes after {number.name}")
                tap.equal(
                    glob.glob(f"{glob.escape(build)}/run-*"), [], f"folders after {number.name}"
                )
                tap.check(
                    b"Interrupted" in runner.text() and b"DISAGREE" not in runner.text(),
                    f"it says what happened: {runner.tail()}",
                )


tap.main(globals())
