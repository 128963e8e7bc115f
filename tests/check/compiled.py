#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the project's C files that a build directory compiles, one a line, once each; generated
files are left out.

usage: compiled.py BUILD_DIRECTORY
"""
import json
import os
import sys


def main():
    build = os.path.abspath(sys.argv[1])
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        entries = json.load(file)
    files = {os.path.normpath(os.path.join(entry["directory"], entry["file"])) for entry in entries}
    for path in sorted(files):
        inside = os.path.relpath(path, root)
        if not inside.startswith("..") and not path.startswith(build + os.sep):
            print(inside)
    return 0


if __name__ == "__main__":
    sys.exit(main())
