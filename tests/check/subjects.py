#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Commit subjects: `area: imperative`, at most 72 columns, from the commit on that added this
check.

usage: subjects.py [--self-test]

Prints each wrong subject, and exits with 1 if there is one. Where that commit is not in the history
(a shallow clone, an archive), the last commit is checked, or nothing.
"""
import re
import subprocess
import sys

FIRST = "1b6d30a"  # "check: show where files call each other in a circle"
COLUMNS_MAX = 72
FORM = re.compile(r"[a-z0-9_./+-]+(, [a-z0-9_./+-]+)*: [a-z]")
# Endings of words that are not imperatives, and the exceptions.
ENDINGS = re.compile(r"(ed|ing)$")
LOOK_SO = {
    "bring",
    "embed",
    "feed",
    "need",
    "ping",
    "seed",
    "shed",
    "speed",
    "string",
    "proceed",
    "exceed",
}


def fault(subject):
    """What is wrong with a subject, or None."""
    if len(subject) > COLUMNS_MAX:
        return f"{len(subject)} columns; at most {COLUMNS_MAX}"
    if not FORM.match(subject):
        return "expected `area: imperative`, in lower case"
    word = subject.split(": ", 1)[1].split()[0]
    if ENDINGS.search(word) and word not in LOOK_SO:
        return f"'{word}' is no imperative"
    return None


def subjects():
    def git(*args):
        return subprocess.run(
            ["git", "-c", "safe.directory=*", *args], capture_output=True, text=True, check=False
        )

    if git("merge-base", "--is-ancestor", FIRST, "HEAD").returncode == 0:
        return git("log", "--format=%h %s", f"{FIRST}~..HEAD").stdout.splitlines()
    return git("log", "-1", "--format=%h %s").stdout.splitlines()


def self_test():
    wrong = [
        "Area: do it",
        "no area",
        "core: Added a thing",
        "core: added a thing",
        "core: fixing it",
        "core: " + "x" * 70,
    ]
    right = ["core: add a thing", "engine, net: split the loop", "tests/sim: feed the oracle"]
    failures = [s for s in wrong if fault(s) is None] + [s for s in right if fault(s) is not None]
    for subject in failures:
        print(f"self-test: checked wrongly: {subject}")
    print(f"self-test: {len(wrong)} wrong subjects planted, {len(failures)} checked wrongly")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    lines = subjects()
    found = [(line, fault(line.split(" ", 1)[1])) for line in lines]
    for line, why in found:
        if why is not None:
            print(f"{line}: {why}")
    print(f"subjects: {len(lines)} commits, {sum(why is not None for _, why in found)} wrong")
    return 1 if any(why is not None for _, why in found) else 0


if __name__ == "__main__":
    sys.exit(main())
