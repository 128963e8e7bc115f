#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""No line is wider than 100 columns: code, comments, scripts and prose.

usage: columns.py [--self-test]

Excepted are tables of Markdown and its blocks of code, lines without a blank to break at, strings
of several lines in Python that are not documentation, the tables in
.def files, and data of tests.
"""
import ast
import os
import re
import subprocess
import sys

COLUMNS_MAX = 100
SUFFIXES = (".c", ".h", ".cc", ".py", ".sh", ".md", ".proto", ".build")
# By name: scripts without a suffix.
NAMES = ("dev", ".ci/run")
EXCEPTED = re.compile(r"^(tests/data/|LICENSE)")


def data_lines(text):
    """Numbers of the lines of Python in which a text of several lines lies."""
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(n.body[0].value)
        for n in ast.walk(tree)
        if isinstance(n, documented) and n.body and isinstance(n.body[0], ast.Expr)
    }
    lines = set()
    for node in ast.walk(tree):
        text_of_lines = isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        if text_of_lines and node.end_lineno > node.lineno and id(node) not in docs:
            lines.update(range(node.lineno, node.end_lineno + 1))
    return lines


def wide(path, text):
    """[(line number, columns)] of the lines that are too wide."""
    found, code = [], False
    data = data_lines(text) if path.endswith(".py") else ()
    for number, line in enumerate(text.split("\n"), 1):
        columns = len(line.expandtabs(8))
        if path.endswith(".md"):
            if line.lstrip().startswith("```"):
                code = not code
            if code or line.startswith("    ") or line.lstrip().startswith("|"):
                continue
        if columns <= COLUMNS_MAX or number in data:
            continue
        # An address or a path cannot be broken.
        if " " not in line.strip().lstrip("*-#/ "):
            continue
        found.append((number, columns))
    return found


def self_test():
    text = "word " * 30
    wrong = [("a.c", "/* " + text + "*/"), ("a.py", "# " + text), ("a.md", text), ("dev", text)]
    right = [
        ("a.c", "int a;"),
        ("a.md", "| " + text),
        ("a.md", "```\n" + text + "\n```"),
        ("a.md", "x" * 200),
    ]
    failures = [row for row in wrong if not wide(*row)] + [row for row in right if wide(*row)]
    print(f"self-test: {len(wrong)} wide lines planted, {len(failures)} checked wrongly")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = ["git", "-c", "safe.directory=*", "-C", root, "ls-files"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    files = [p for p in listed if (p.endswith(SUFFIXES) or p in NAMES) and not EXCEPTED.match(p)]
    wrong = 0
    for path in files:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            for number, columns in wide(path, file.read()):
                wrong += 1
                print(f"{path}:{number}: {columns} columns")
    print(f"columns: {len(files)} files, {wrong} lines wider than {COLUMNS_MAX}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
