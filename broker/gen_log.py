#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the table of log lines in broker/LOG.md from the calls of log_id() in broker/. usage:
gen_log.py [--check]"""
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE / "LOG.md"
BEGIN, END = "<!-- generated: lines -->\n", "<!-- end -->\n"
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
LEVELS = {"ERROR": "error", "WARN": "warn", "INFO": "info", "DEBUG": "debug"}
# Lines whose level and text a plugin gives, so that the source has neither.
GIVEN = {
    "plugin.says": (["error"], ["a message of a plugin without an id; level and text are its own"])
}


def call_end(source, at):
    """The place behind the parenthesis that closes the one at `at`."""
    depth, inside = 0, False
    for i in range(at, len(source)):
        char = source[i]
        if char == '"' and source[i - 1] != "\\":
            inside = not inside
        if not inside:
            depth += (char == "(") - (char == ")")
            if depth == 0:
                return i + 1
    raise SystemExit(f"unbalanced: {source[at:at + 60]}")


def texts(arguments):
    """The texts of an argument: one, or those of a choice. Adjacent literals are joined."""
    joined = re.sub(r'"\s+"', "", arguments)
    return TEXT.findall(joined)


def lines():
    found = {}
    for path in sorted(HERE.rglob("*.c")):
        source = path.read_text()
        for match in re.finditer(r"\blog_id\(", source):
            words = texts(source[match.end() : call_end(source, match.end() - 1) - 1])
            if not words or not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)+", words[0]):
                continue  # of a plugin: its own
            level = re.findall(
                r"LOG_LEVEL_(\w+)", source[max(0, match.start() - 300) : match.start()]
            )
            row = found.setdefault(words[0], ([], []))
            for list_, values in (
                (row[0], [LEVELS[level[-1]]] if level else []),
                (row[1], words[1:]),
            ):
                list_ += [value for value in values if value not in list_]
    return {one: GIVEN.get(one, row) for one, row in found.items()}


def table():
    rows = [
        f"| `{one}` | {', '.join(level)} | {'; '.join(text)} |"
        for one, (level, text) in sorted(lines().items())
    ]
    return "\n".join(["| id | level | text |", "| --- | --- | --- |", *rows]) + "\n"


def main():
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    new = head + BEGIN + table() + END + rest.split(END, 1)[1]
    if "--check" in sys.argv[1:]:
        return 0 if new == page else 1
    PAGE.write_text(new)
    return 0


sys.exit(main())
