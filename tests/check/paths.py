#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""No tracked file names a path of the machine that it was written on.

usage: paths.py [ROOT]

Wrong are the path of the working copy itself, folders beside it, home directories and work folders
at the root. Paths of Debian's own layout and of an example's making (/srv, /var, /etc, /tmp/NAME)
are allowed.
"""
import os
import re
import subprocess
import sys

HOMES = re.compile(
    rb"(?<![\w./-])/(?:home|Users|work|workspace)/[\w.-]+|(?<![\w./-])/root/[\w.-]+|(?<![\w./-])/tmp/b-[\w-]+"
)
BESIDE = re.compile(rb"(?<![\w./])\.\./shared\b")
TEXT_BYTES_MAX = 2 << 20


def main():
    root = os.path.abspath(
        sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..", "..")
    )
    here = re.compile(re.escape(root.encode()) + rb"(?![\w-])")
    names = subprocess.run(
        ["git", "-c", f"safe.directory={root}", "-C", root, "ls-files", "-z"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    wrong = count = 0
    for name in filter(None, names.decode().split("\0")):
        path = os.path.join(root, name)
        # This file contains the paths that it searches for.
        if name == "tests/check/paths.py" or not os.path.isfile(path) or os.path.islink(path):
            continue
        with open(path, "rb") as file:
            data = file.read(TEXT_BYTES_MAX)
        count += 1
        if b"\0" in data:
            continue
        for number, line in enumerate(data.splitlines(), 1):
            for pattern in (here, HOMES, BESIDE):
                found = pattern.search(line)
                if found:
                    wrong += 1
                    print(f"{name}:{number}: {found.group(0).decode(errors='replace')}")
                    break
    print(f"paths: {count} files, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
