#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sums the results of `meson test` in its log folder: single tests, not programs.

usage: tally.py [--broken N] MESON_LOGS_FOLDER...

Reads testlog.junit.xml (one case per line of TAP) and testlog.json (the programs and their output).
Lists the failures with the end of their output and the skipped tests with their reasons. --broken
adds failures that left no log, for example a build that failed. The last line is `N passed, N
failed, N skipped`. Exits with 1 if anything failed or if there was no test at all.
"""
import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

BAD = ("FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS")
SHOWN_LINES = 40


class Program:
    """One `test()` of a meson.build: the single tests in it, or itself if it prints no TAP."""

    def __init__(self, name, result, output):
        self.name = name
        self.result = result
        self.output = output
        self.passed, self.failed, self.skipped = [], [], []

    def settle(self):
        """What meson found wrong with the program beyond its lines of TAP (a crash, a wrong plan,
        no end) is a failure too."""
        if self.result in BAD and not self.failed:
            self.failed.append(f"the program itself ({self.result.lower()})")
        elif not (self.passed or self.failed or self.skipped):
            if self.result == "SKIP":
                self.skipped.append(("", skip_reason(self.output)))
            else:
                self.passed.append("")


def skip_reason(output):
    """A program skips as a whole with `1..0 # SKIP reason`, or with exit code 77 and a last
    line."""
    found = re.search(r"^1\.\.0\s*#\s*SKIP\S*\s*(.*)$", output, re.M | re.I)
    lines = output.strip().splitlines()
    return found.group(1) if found else lines[-1] if lines else "no reason given"


def read_programs(logs):
    programs = {}
    with open(os.path.join(logs, "testlog.json"), encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            output = row.get("stdout", "") + row.get("stderr", "")
            # "sluice:unit / util" is shown as "unit / util".
            programs[row["name"]] = Program(
                row["name"].partition(":")[2] or row["name"], row["result"], output
            )
    for suite in (
        ElementTree.parse(os.path.join(logs, "testlog.junit.xml")).getroot().iter("testsuite")
    ):
        name = suite.get("name", "").partition(".")[2]  # "sluice." and the same name
        if name not in programs:
            continue  # the collection of programs without TAP; their own result counts
        for case in suite.iter("testcase"):
            text = re.sub(r"^\d+\s*-?\s*|\s*\(\d+\.\d+s\)$", "", case.get("name", "").strip())
            if case.find("skipped") is not None:
                programs[name].skipped.append(
                    (text, case.findtext("system-out") or "no reason given")
                )
            elif case.find("failure") is not None or case.find("error") is not None:
                programs[name].failed.append(text)
            else:
                programs[name].passed.append(text)
    for program in programs.values():
        program.settle()
    return list(programs.values())


def show(programs):
    for program in programs:
        if program.failed:
            print(f"FAILED {program.name}")
            for name in program.failed:
                print(f"    {name}")
            lines = [
                line for line in program.output.rstrip().splitlines() if not line.startswith("ok ")
            ]
            for line in lines[-SHOWN_LINES:]:
                print(f"    | {line}")
        for line in re.findall(r"^# note: (.*)$", program.output, re.M):
            print(f"note {program.name}: {line}")
    for program in programs:
        for name, reason in program.skipped:
            print(f"SKIPPED {program.name}{': ' if name else ''}{name} ({reason})")


def main():
    args = sys.argv[1:]
    broken = 0
    if args[:1] == ["--broken"] and len(args) > 1:
        broken, args = int(args[1]), args[2:]
    if not args and not broken:
        print(__doc__, file=sys.stderr)
        return 2
    programs = []
    for logs in args:
        try:
            programs += read_programs(logs)
        except (OSError, ValueError, ElementTree.ParseError) as error:
            print(f"FAILED {logs}: meson left no readable result: {error}")
            broken += 1
    show(programs)
    passed, failed, skipped = (
        sum(len(getattr(p, kind)) for p in programs) for kind in ("passed", "failed", "skipped")
    )
    failed += broken
    if passed + failed + skipped == 0:
        print("no test was found")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or passed + failed + skipped == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
