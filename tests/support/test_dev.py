#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`./dev` says what was wrong with its arguments, and what was expected, before it installs, builds or changes anything."""
import os
import subprocess
import tempfile

import tap

DEV = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "dev")


def dev(*args, folder=None, build=None):
    with tempfile.TemporaryDirectory() as top:
        return subprocess.run([DEV, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, cwd=folder or top,
                              env={**os.environ, "SLUICE_BUILD": build or os.path.join(top, "build")})


def test_wrong_arguments_are_named_with_what_was_expected():
    for args, code, words in (
            (["nonsense"], 2, ["'nonsense'", "usage: ./dev COMMAND"]),
            (["--kill"], 2, ["'--kill'", "usage: ./dev COMMAND"]),
            (["test", "--slow"], 1, ["'--slow'", "--quick", "--suite NAME"]),
            (["test", "--suite"], 1, ["--suite ''", "integration"]),
            (["test", "--suite", "units"], 1, ["'units'", "unit", "faults"]),
            (["check", "tidy", "tidyness"], 1, ["'tidyness'", "includes_selftest"]),
            (["fmt", "dev"], 1, ["'dev'", "no arguments"]),
    ):
        done = dev(*args)
        tap.equal(done.returncode, code, f"exit code of {args}: {done.stderr}")
        for word in words:
            tap.check(word in done.stderr, f"{args} says {word!r}: {done.stderr!r}")
        tap.equal(done.stdout, "", f"{args} does nothing before")


def test_help_is_the_usage_from_any_folder():
    for args in ([], ["help"], ["--help"], ["-h"]):
        done = dev(*args, folder="/")
        tap.equal((done.returncode, done.stderr), (0, ""), f"./dev {args}")
        tap.check(done.stdout.startswith("usage: ./dev COMMAND"), "it is the usage")


def test_a_build_folder_that_cannot_be_written_is_named():
    with tempfile.TemporaryDirectory() as top:
        file = os.path.join(top, "a file")
        with open(file, "w", encoding="ascii"):
            pass
        done = dev("serve", build=os.path.join(file, "build"))
        tap.equal(done.returncode, 1, "exit code")
        tap.check(f"cannot make the directory {file}/build" in done.stderr, f"the folder is named: {done.stderr!r}")


tap.main(globals())
