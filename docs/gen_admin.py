#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the table of settings in docs/admin.md from broker/admin/config.def. usage: gen_admin.py
[--check]"""
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE / "admin.md"
TABLE = HERE.parent / "broker/admin/config.def"
BEGIN, END = "<!-- generated: settings -->\n", "<!-- end -->\n"
ROW = re.compile(r'^(TEXT|NUMBER|FLAG|LIST)\((\w+), (.*), "((?:[^"\\]|\\.)*)"\)$')


def row(line):
    match = ROW.match(line)
    if match is None:
        raise SystemExit(f"{TABLE.name}: not understood: {line}")
    kind, key, values, text = match.groups()
    values = [value.strip().strip('"') for value in values.split(",")]
    if kind == "NUMBER":
        default, least, most, unit = values
        values = [default, f"{least} to {most} {unit}"]
    elif kind == "FLAG":
        values = ["yes" if values[0] == "true" else "no", "yes, no"]
    elif kind == "LIST":
        values = [values[0], f"text, up to {values[1]} times"]
    else:
        values = [values[0] or "none", "text"]
    return f"| `{key}` | {values[0]} | {values[1]} | {text} |"


def table():
    # A row may be broken over several lines.
    text = re.sub(r"/\*.*?\*/", "", TABLE.read_text(), flags=re.S)
    rows = [
        row(re.sub(r'"\s+"', "", " ".join(part.split())))
        for part in re.split(r"\n(?=\w)", text)
        if part.strip()
    ]
    return (
        "\n".join(["| setting | default | values | meaning |", "| --- | --- | --- | --- |", *rows])
        + "\n"
    )


def main():
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    new = head + BEGIN + table() + END + rest.split(END, 1)[1]
    if "--check" in sys.argv[1:]:
        return 0 if new == page else 1
    PAGE.write_text(new)
    return 0


sys.exit(main())
