#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every row of the table of limits has a test at its edge.

usage: limits.py [ROOT]

A test says which rows it covers in a comment: `limit: NAME` or `limit: NAME, NAME`, in a file below
tests/ with code in it. Exits with 1 and a list if a row has none, if a test names a row that does
not exist, or if the table is missing.
"""
import os
import re
import sys

TABLE = "protocol/limits.def"
ROW = re.compile(r"^\s*LIMIT\(\s*([A-Z][A-Z0-9_]*)\s*,")
NAMED = re.compile(r"\blimit:[ \t]*([A-Z][A-Z0-9_]*(?:[ \t]*,[ \t]*[A-Z][A-Z0-9_]*)*)")
CODE = (".c", ".h", ".py", ".sh")
# The checks mention limits without testing one.
NOT_TESTS = ["tests/check", "tests/support"]


def rows_of(path):
    with open(path, encoding="utf-8") as file:
        return [found.group(1) for found in map(ROW.match, file) if found]


def named_below(root):
    """{row: [file:line, ...]}"""
    named = {}
    for folder, names, files in os.walk(os.path.join(root, "tests")):
        here = os.path.relpath(folder, root)
        names[:] = sorted(
            n for n in names if os.path.join(here, n) not in NOT_TESTS and not n.startswith(".")
        )
        for name in sorted(files):
            if not name.endswith(CODE):
                continue
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8", errors="replace") as file:
                for number, line in enumerate(file, 1):
                    for found in NAMED.finditer(line):
                        for row in re.split(r"[ \t]*,[ \t]*", found.group(1)):
                            named.setdefault(row, []).append(
                                f"{os.path.relpath(path, root)}:{number}"
                            )
    return named


def main():
    root = (
        sys.argv[1]
        if len(sys.argv) > 1
        else os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    )
    table = os.path.join(root, TABLE)
    if not os.path.isfile(table):
        print(f"limits: the table {TABLE} does not exist")
        return 1
    rows = rows_of(table)
    named = named_below(root)
    wrong = 0
    for row in rows:
        if row not in named:
            wrong += 1
            print(f"{TABLE}: {row} has no test (a comment `limit: {row}` in the test at its edge)")
    for row, places in sorted(named.items()):
        if row not in rows:
            wrong += 1
            print(f"{places[0]}: {row} is not in {TABLE}")
    if not rows:
        wrong += 1
        print(f"limits: no LIMIT(...) row in {TABLE}")
    print(f"limits: {len(rows)} rows, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
