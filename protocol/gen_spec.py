#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the generated parts of SPEC.md: limits from limits.def, status codes from error.h, byte
examples from tests/data/protocol (the unit tests hold the codecs to the same files). With --check:
writes nothing, ends with 1 when SPEC.md is not what it would write."""
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
SPEC = HERE / "SPEC.md"
BLOCK = re.compile(r"(<!-- generated: ([^>]*?) -->\n)(.*?)(<!-- end -->)", re.S)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def limits():
    text = re.sub(r'"\n\s+"', "", (HERE / "limits.def").read_text())
    rows = re.findall(r'^LIMIT\((\w+), (\d+), "([^"]*)",\s+"([^"]*)"\)$', text, re.M)
    if len(rows) != len(re.findall(r"^LIMIT\(", text, re.M)):
        sys.exit('limits.def: a row is not in the form LIMIT(NAME, value, "unit", "text")')
    return table(
        ["limit", "value", "unit", "bounds; beyond it"],
        [[f"`{n}`", f"{int(v):,}", u, t] for n, v, u, t in rows],
    )


def errors():
    text = (HERE.parent / "include" / "sluice" / "error.h").read_text()
    text = text.replace("\\\n", "\n")  # the formatter breaks a row that is too wide
    rows = re.findall(r'^\tX\((\w+), (-\d+), (\d+), (true|false),\s*"([^"]*)"\)', text, re.M)
    if len(rows) != len(re.findall(r"^\tX\(", text, re.M)):
        sys.exit('error.h: a row is not in the form X(name, code, exit, retriable, "text")')
    return table(
        ["code", "name", "try again", "text"],
        [["0", "OK", "", "done"]]
        + [[c, n, "yes" if r == "true" else "no", t] for n, c, _, r, t in rows],
    )


def example(name):
    return (
        "```\n"
        + (HERE.parent / "tests" / "data" / "protocol" / (name + ".hex")).read_text()
        + "```\n"
    )


def part(name):
    if name == "limits":
        return limits()
    if name == "status codes":
        return errors()
    if name.startswith("example "):
        return example(name.split()[1])
    sys.exit(f"SPEC.md: no generator for '{name}'")


def main():
    old = SPEC.read_text()
    new = BLOCK.sub(lambda m: m[1] + part(m[2]) + m[4], old)
    if sys.argv[1:] == ["--check"]:
        if new != old:
            sys.exit("SPEC.md is not up to date: run protocol/gen_spec.py")
        return
    if sys.argv[1:]:
        sys.exit("usage: gen_spec.py [--check]")
    SPEC.write_text(new)


if __name__ == "__main__":
    main()
