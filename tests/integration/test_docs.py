#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Commands in documents: the commands of ```console blocks run, in order, against a fresh broker,
and print what the document shows.

A line that begins with `$ ` is a command (with a here-document, the lines up to END are its input),
the others are its output. `...` in a line stands for anything, a line `...` for any lines. Dates,
durations, tokens and other numbers that differ between runs are not compared. """
import contextlib
import os
import re
import shutil
import sys

import tap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MARK = "=== command "
DIFFERS = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
    (r"\d+(\.\d+)? s\b", "N s"),
    (r'"(token|time_ms|index)":\d+', r'"\1":N'),
    (r"\b(token|session|pid) \d+", r"\1 N"),
    (r"\blocal:[0-9a-f]{8}\b", "local:ID"),
    (r"#(\d+)\.[0-9a-f]{24}", r"#\1.ID"),
    (r"^\d+(?= +local +local scheduler)", "N"),
    (r"\d+ bytes at most", "N bytes at most"),
    (r"(uptime_ms|wall_time_ms|index|disk_\w+|store_used_bytes|commits|commands) +\d+", r"\1 N"),
]


def blocks(path):
    """[(command, its input, lines of its output), ...] of all ```console blocks of a document."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        text = file.read()
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S):
        lines = block.splitlines()
        while lines:
            command, given, shown = lines.pop(0), [], []
            tap.check(
                command.startswith("$ "), f"{path}: {command!r} begins a block with a command"
            )
            while "<<'END'" in command and lines and given[-1:] != ["END"]:
                given.append(lines.pop(0))
            while lines and not lines[0].startswith("$ "):
                shown.append(lines.pop(0))
            found.append((command[2:], given, shown))
    return found


def plain(line):
    for pattern, instead in DIFFERS:
        line = re.sub(pattern, instead, line)
    return re.sub(r" {2,}", "  ", line).rstrip()


def matches(shown, got):
    pattern = "".join(
        (
            "(?:.*\n)*?"
            if line == "..."
            else re.escape(plain(line)).replace(re.escape("..."), ".*") + "\n"
        )
        for line in shown
    )
    return re.fullmatch(pattern, "".join(plain(line) + "\n" for line in got)) is not None


def programs(folder):
    """The commands of an installed tree, from the build; the plugin has its installed name, and
    each broker listens at the test's address."""
    sluice, runner, local = (
        os.path.abspath(tap.program(path))
        for path in ("client/cli/sluice", "broker/plugin/sluice-plugin", "plugins/local/local.so")
    )
    os.symlink(sluice, os.path.join(folder, "sluice"))
    with open(os.path.join(folder, "sluice-plugin"), "w", encoding="utf-8") as file:
        file.write(
            f'#!/bin/bash\n[ "${{@: -1}}" = local ] && set -- "${{@:1:$#-1}}" \'{local}\'\n'
            f'exec \'{runner}\' --address "$SLUICE_ADDRESS" "$@"\n'
        )
    with open(os.path.join(folder, "sluiced"), "w", encoding="utf-8") as broker:
        broker.write(
            '#!/bin/bash\n[ "$1" = --dump ] || set -- "$@" --listen "$SLUICE_ADDRESS"\n'
            f'exec \'{os.path.abspath(tap.program("broker/sluiced"))}\' "$@"\n'
        )
    for name in (file.name, broker.name):
        os.chmod(name, 0o755)


def run(commands, address, top):
    """Runs them in one shell; [[line of output, ...], ...]."""
    os.mkdir(os.path.join(top, "bin"))
    os.mkdir(os.path.join(top, "here"))
    programs(os.path.join(top, "bin"))
    script = os.path.join(top, "script")
    with open(script, "w", encoding="utf-8") as file:
        for command, given, _ in commands:
            file.write(f"echo '{MARK}'\n{command}\n" + "".join(line + "\n" for line in given))
        file.write(f"echo '{MARK}'\n")
    shell = tap.Process(
        ["/bin/bash", script],
        cwd=os.path.join(top, "here"),
        env={
            "SLUICE_ADDRESS": address,
            "PATH": os.path.join(top, "bin") + ":" + os.environ["PATH"],
        },
    )
    try:
        shell.wait(100)
        parts = shell.text().decode().split(MARK + "\n")
    finally:
        shell.kill()
    tap.equal(len(parts), len(commands) + 2, f"all commands ran: {shell.tail()}")
    # Without the shell's own messages about its jobs: "Killed".
    return [
        [line for line in part.splitlines() if not line.startswith(script + ": line ")]
        for part in parts[1:-1]
    ]


def document(path, starts_brokers=False):
    def test():
        commands = blocks(path)
        tap.check(commands, f"{path} has commands")
        if (
            any(command.startswith("mdb_copy ") for command, _, _ in commands)
            and shutil.which("mdb_copy") is None
        ):
            tap.skip("there is no mdb_copy (lmdb-utils)")
        with tap.Scratch() as top, (
            contextlib.nullcontext() if starts_brokers else tap.Broker()
        ) as broker:
            address = f"127.0.0.1:{tap.free_port()}" if starts_brokers else broker.address
            for (command, _, shown), got in zip(commands, run(commands, address, top)):
                print(f"$ {command}", *got, sep="\n", file=sys.stderr)
                tap.check(
                    matches(shown, got),
                    "`{}` prints\n{}\nand {} says\n{}".format(
                        command, "\n".join(got), path, "\n".join(shown)
                    ),
                )

    test.__name__ = path
    return test


test_readme = document("README.md")
test_concepts = document("docs/concepts.md")
test_admin = document("docs/admin.md", starts_brokers=True)


def test_admin_has_each_line_of_the_log_that_needs_an_action():
    def ids(path, pattern):
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            return sorted(re.findall(pattern, file.read(), re.M))

    tap.equal(
        ids("docs/admin.md", r"^\| `([a-z]+\.[a-z_]+)` \|"),
        ids("broker/LOG.md", r"^\| `([a-z_.]+)` \| (?:warn|error) \|"),
        "ids of the table",
    )


def test_functions_that_documents_name_are_in_the_headers():
    headers = ""
    for name in os.listdir(os.path.join(ROOT, "include/sluice")):
        with open(os.path.join(ROOT, "include/sluice", name), encoding="utf-8") as file:
            headers += file.read()
    for path in ("README.md", "docs/concepts.md", "docs/admin.md"):
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            named = set(re.findall(r"\bsluice_[a-z_]+", file.read()))
        tap.equal(
            sorted(name for name in named if not re.search(rf"\b{name}\b", headers)),
            [],
            f"{path}: names that no header has",
        )


def test_the_transaction_of_the_README_is_that_of_the_example():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        (shown,) = re.findall(r"^```c\n(.*?)^```$", file.read(), re.M | re.S)
    with open(os.path.join(ROOT, "client/examples/transaction.c"), encoding="utf-8") as file:
        tap.check(shown in file.read(), "client/examples/transaction.c has these lines")


def test_the_comparison_finds_what_differs():
    tap.check(
        matches(
            ["a  2026-12-01 09:48:55  x", "...", "z"], ["a     2026-01-01 00:00:00  x", "q", "z"]
        ),
        "dates, blanks and left-out lines may differ",
    )
    for shown, got in (
        (["a"], ["b"]),
        (["a"], ["a", "b"]),
        (["a", "b"], ["a"]),
        (["a 1"], ["a 2"]),
        (["a...c"], ["abd"]),
    ):
        tap.check(not matches(shown, got), f"{got} is not {shown}")


if __name__ == "__main__":
    tap.main(globals())
