#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The limits and step sizes on which results depend are those of the level.

usage: levels.py [--write]

Compares the constants of broker/core, and the rows of protocol/limits.def that core uses, with
tests/data/levels/N, where N is the newest level (broker/core/levels.def). A value that is new, gone
or changed is shown, and the exit code is 1. --write writes the file: for a level that no version
has yet, and for a constant on which no result depends. A changed value on which one depends is a
new level.
"""
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LEVEL = re.compile(r"^LEVEL\((\d+),", re.M)
LIMIT = re.compile(r"^LIMIT\(\s*([A-Z][A-Z0-9_]*)\s*,\s*([^,]+),", re.M)
USED = re.compile(r"\bLIMIT_(?:SIZE\()?([A-Z][A-Z0-9_]*)")
ENUM = re.compile(r"\benum(?: \w+)? \{([^}]*)\}")
COMMENT = re.compile(r"/\*.*?\*/", re.S)
# How the names of bounds, steps and durations end; sizes of records are in tests/data/records.
BOUND = re.compile(r"_(MAX|MIN|MS|ONCE|ENOUGH|WORK|DIVISOR|RECORDS|PER_[A-Z]+)$|^STEP_")


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def constants():
    """{"file NAME": value as it is written}"""
    limits = dict(LIMIT.findall(text_of(os.path.join(ROOT, "protocol/limits.def"))))
    found = {}
    for path in sorted(glob.glob(os.path.join(ROOT, "broker/core/**/*.[ch]"), recursive=True)):
        name = os.path.relpath(path, os.path.join(ROOT, "broker/core"))
        text = COMMENT.sub("", text_of(path))
        for used in USED.findall(text):
            if used in limits:
                found[f"limits.def {used}"] = limits[used].strip()
        for block in ENUM.findall(text):
            for row in block.split(","):
                key, equals, value = (part.strip() for part in row.partition("="))
                if equals and BOUND.search(key):
                    found[f"{name} {key}"] = " ".join(value.split())
    return found


def recorded(path):
    rows = [line.split(" ", 2) for line in text_of(path).splitlines()]
    return {f"{row[0]} {row[1]}": row[2] for row in rows}


def main():
    level = max(
        int(n) for n in LEVEL.findall(text_of(os.path.join(ROOT, "broker/core/levels.def")))
    )
    path = os.path.join(ROOT, f"tests/data/levels/{level}")
    now = constants()
    if "--write" in sys.argv[1:]:
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{key} {now[key]}\n" for key in sorted(now))
        return 0
    if not os.path.isfile(path):
        print(f"levels: level {level} has no file tests/data/levels/{level}: --write")
        return 1
    was = recorded(path)
    wrong = 0
    for key in sorted(set(now) | set(was)):
        if now.get(key) != was.get(key):
            wrong += 1
            print(f"levels: {key} was {was.get(key, 'not there')}, is {now.get(key, 'gone')}")
    if wrong:
        print(
            f"levels: if a result depends on it, level {level} becomes {level + 1}: CONTRIBUTING.md"
        )
    print(f"levels: {len(now)} values at level {level}, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
