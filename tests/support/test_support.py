#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The test tools themselves: planted faults are found, sums are right.

usage: test_support.py PLANTED_PROGRAM SANITIZERS ("none" or meson's b_sanitize)
"""
import os
import re
import signal
import subprocess
import sys
import tempfile

import tally
import tap

PLANTED, SANITIZERS = sys.argv[1:3]
del sys.argv[1:3]


def verdict(name):
    """(passed, the whole output) of one planted test."""
    run = subprocess.run(
        [PLANTED, "--filter", f"planted::{name}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=100,
    )
    text = run.stdout.decode(errors="replace")
    lines = re.findall(rf"^(?:not )?ok \d+ - planted::{name}\b.*$", text, re.M)
    tap.check(len(lines) == 1, f"one line for {name} in:\n{text}")
    tap.equal(run.returncode, int(lines[0].startswith("not ")), f"exit code after: {lines[0]}")
    return not lines[0].startswith("not "), text


def fails(name, reason):
    passed, text = verdict(name)
    tap.check(not passed and reason in text, f"{name} fails with '{reason}':\n{text}")


def test_a_good_test_passes():
    tap.check(verdict("passes")[0], "it passes")


def test_a_test_without_assertion_is_noted():
    tap.check("passed without one assertion" in verdict("asserts_nothing")[1], "there is a note")


def test_a_skipped_test_says_why():
    passed, text = verdict("is_skipped")
    tap.check(passed and "# SKIP for this reason" in text, text)


def test_a_failed_assertion():
    fails("fails", "assertion failed: one is 1")


def test_a_failed_expectation_is_not_forgotten():
    fails("fails_and_goes_on", "assertion failed")


def test_a_failure_in_cleanup():
    fails("fails_in_cleanup", "assertion failed")


def test_an_early_exit():
    fails("leaves_early", "ended its process before it returned")


def test_a_crash():
    fails("aborts", "Aborted")


def test_an_announced_signal():
    tap.check(verdict("aborts_as_announced")[0], "it passes")


def test_an_overrun_ends_the_whole_group():
    fails("overruns", "timed out")


def test_a_process_left_behind():
    fails("leaves_a_process", "left processes behind")


def test_what_the_sanitizers_of_this_build_report():
    faults = {"address": ["leaks", "overflows"], "undefined": ["is_undefined"], "thread": ["races"]}
    for sanitizer in SANITIZERS.split(","):
        for name in faults.get(sanitizer, []):
            fails(name, "sanitizer report")
    tap.check(
        SANITIZERS == "none" or set(SANITIZERS.split(",")) <= set(faults),
        f"{SANITIZERS} have planted faults",
    )


XML = """<?xml version='1.0' encoding='utf-8'?><testsuites>
<testsuite name="p.p:unit / a"><testcase name="1 - x::y (0.01s)"/>
<testcase name="2 z"><failure/></testcase>
<testcase name="3 - w"><skipped/><system-out>no fuse</system-out></testcase></testsuite>
<testsuite name="p.p:unit / crashed"><testcase name="1 - fine"/></testsuite>
<testsuite name="p"><testcase name="plain"/></testsuite></testsuites>"""
JSON = """{"name": "p:unit / a", "result": "FAIL", "stdout": "the last words"}
{"name": "p:unit / crashed", "result": "ERROR", "stdout": ""}
{"name": "p:unit / plain", "result": "OK"}
{"name": "p:unit / late", "result": "TIMEOUT"}
{"name": "p:unit / all skipped", "result": "SKIP", "stdout": "1..0 # SKIP no loop device"}
"""


def test_sums_are_of_single_tests():
    with tempfile.TemporaryDirectory() as logs:
        for name, text in (("testlog.junit.xml", XML), ("testlog.json", JSON)):
            with open(os.path.join(logs, name), "w", encoding="utf-8") as file:
                file.write(text)
        run = subprocess.run(
            [sys.executable, tally.__file__, logs], stdout=subprocess.PIPE, timeout=60
        )
    text = run.stdout.decode()
    tap.equal(run.returncode, 1, "exit code")
    tap.equal(text.splitlines()[-1], "3 passed, 3 failed, 2 skipped", "the last line")
    for part in (
        "FAILED unit / a",
        "    z",
        "| the last words",
        "the program itself (error)",
        "the program itself (timeout)",
        "SKIPPED unit / a: w (no fuse)",
        "SKIPPED unit / all skipped (no loop device)",
    ):
        tap.check(part in text, f"'{part}' is in:\n{text}")


def test_no_test_at_all_is_a_failure():
    with tempfile.TemporaryDirectory() as logs:
        for name, text in (("testlog.junit.xml", "<testsuites/>"), ("testlog.json", "")):
            with open(os.path.join(logs, name), "w", encoding="utf-8") as file:
                file.write(text)
        run = subprocess.run(
            [sys.executable, tally.__file__, logs], stdout=subprocess.PIPE, timeout=60
        )
    tap.equal(run.returncode, 1, "exit code")


def test_a_python_test_that_checks_nothing_fails():
    script = (
        "import tap\ndef test_nothing(): print('not ok 7 - taken for a"
        " result')\ntap.main(globals())"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
    tap.equal(
        run.stdout.decode().splitlines(),
        ["TAP version 13", "1..1", "not ok 1 - nothing", "# checked nothing"],
        "TAP",
    )
    tap.equal(run.returncode, 1, "exit code")


HOLDER = """
import signal, sys, tempfile, time
import tap
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    # a shell's background job, or nohup, has some of them ignored
    signal.signal(number, signal.SIG_DFL)
def test_holds():
    with tempfile.TemporaryDirectory(prefix="sluice-test-"):
        child = tap.Process(["/bin/sleep", "600"])
        tap.check(True, "it runs")
        print(f"holds {child.pid}", flush=True)
        time.sleep(600)
tap.main(globals())
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_what_a_test_started_ends_with_it_whatever_ends_the_test():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        with tempfile.TemporaryDirectory() as top:
            holder = tap.Process(
                [sys.executable, "-c", HOLDER], ready=rb"^holds (\d+)$", env={"TMPDIR": top}
            )
            child = int(holder.ready.group(1))
            tap.check(is_running(child), "the child runs while the test does")
            holder.signal(number)
            holder.wait(30)
            tap.wait_until(lambda: not is_running(child), 30, f"the child ends after {number.name}")
            if number != signal.SIGKILL:
                tap.equal(os.listdir(top), [], f"its folders are gone after {number.name}")


def test_a_name_that_no_test_has_is_a_failure():
    script = "import tap\ndef test_one(): tap.check(True, 'so')\ntap.main(globals())"
    run = subprocess.run(
        [sys.executable, "-c", script, "another"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    tap.equal((run.returncode, run.stdout), (1, b""), "exit code and output")
    tap.check(b"'another'" in run.stderr, "it says which")


def test_waiting_has_a_deadline():
    error = tap.raises(
        tap.Failed, lambda: tap.wait_until(lambda: False, 0.05, "never"), "a wait for nothing"
    )
    tap.check("never" in str(error), "it says what did not come")


tap.main(globals())
