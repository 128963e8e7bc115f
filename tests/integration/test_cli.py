#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `sluice` command: what it prints, and its JSON against golden files (tests/data/cli, volatile
fields masked; UPDATE=1 writes them)."""
import base64
import concurrent.futures
import json
import os
import pty
import re
import subprocess
import sys
import time

import tap

from cli_rig import Cli

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import Connection  # noqa: E402

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "cli")
VOLATILE = {
    "index",
    "time_ms",
    "submit_time_ms",
    "change_time_ms",
    "put_time_ms",
    "first_time_ms",
    "last_time_ms",
    "token",
    "wall_time_ms",
    "uptime_ms",
    "commits",
    "commands",
    "store_used_bytes",
    "store_map_bytes",
    "disk_free_bytes",
    "disk_ahead_bytes",
    "oldest_reader_ms",
    "holder_session",
    "lease_left_ms",
    "version",
    "started_time_ms",
    "ended_time_ms",
    "seen_time_ms",
}
LIFECYCLE = """lifecycle small
state NEW -> DONE, GONE, BAD   # the first is the initial one
terminal DONE
terminal GONE
terminal BAD
cancelled GONE
failed BAD
"""


def masked(value):
    if isinstance(value, dict):
        return {name: "*" if name in VOLATILE else masked(member) for name, member in value.items()}
    if isinstance(value, list):
        return [masked(member) for member in value]
    if isinstance(value, str):
        return re.sub(r"\d+\.\d s", "* s", value)
    return value


def golden(name, output):
    got = [masked(json.loads(line)) for line in output.splitlines()]
    path = os.path.join(GOLDEN, name + ".json")
    if os.environ.get("UPDATE"):
        with open(path, "w", encoding="utf-8") as file:
            json.dump(got, file, indent=1, sort_keys=True)
            file.write("\n")
    with open(path, encoding="utf-8") as file:
        tap.equal(got, json.load(file), f"{name} against its golden file")


def test_json_shapes_are_the_documented_ones():
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("stream", "create", "events", "--subject", "ev.>", "--max-age", "7d")
        cli.ok("queue", "create", "work", "--lease", "20s", "--max-attempts", "3")
        cli.ok("queue", "create", "runs", "--jobs")
        cli.ok("lifecycle", "create", "-", stdin=LIFECYCLE)
        golden("pub", cli.ok("-o", "json", "pub", "ev.a", "hello", "--key", "k", "--header", "a=b"))
        golden(
            "follow",
            cli.ok("-o", "json", "follow", "events", "--from", "first", "--until-caught-up"),
        )
        cli.ok("put", "work", "w.x", "body", "--id", "1")
        golden("queue_peek", cli.ok("-o", "json", "queue", "peek", "work"))
        golden("claim", cli.ok("-o", "json", "claim", "work", "--ack"))
        golden("stream_show", cli.ok("-o", "json", "stream", "show", "events"))
        golden("stream_ls", cli.ok("-o", "json", "stream", "ls"))
        golden("queue_ls", cli.ok("-o", "json", "queue", "ls"))
        golden("lifecycle_ls", cli.ok("-o", "json", "lifecycle", "ls"))
        golden("lifecycle_show", cli.ok("-o", "json", "lifecycle", "show", "small"))
        golden(
            "job_submit",
            cli.ok(
                "-o",
                "json",
                "job",
                "submit",
                "--queue",
                "runs",
                "--id",
                "j1",
                "--owner",
                "me",
                '{"argv":["true"]}',
            ),
        )
        golden("job_show", cli.ok("-o", "json", "job", "show", "j1", "--payload"))
        golden("job_cancel", cli.ok("-o", "json", "job", "cancel", "j1"))
        golden("job_history", cli.ok("-o", "json", "job", "history", "j1"))
        golden("job_explain", cli.ok("-o", "json", "job", "explain", "j1"))
        golden("job_ls", cli.ok("-o", "json", "job", "ls"))
        golden("quarantine_ls", cli.ok("-o", "json", "quarantine", "ls"))
        golden("audit", cli.ok("-o", "json", "audit"))
        golden("status", cli.ok("-o", "json", "status"))


def test_tables_are_for_people():
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("queue", "create", "runs", "--jobs")
        name = cli.ok("job", "submit", "--queue", "runs", "{}").strip()
        tap.check(
            re.fullmatch(r"j[0-9a-f]{12}-[0-9a-f]{16}", name) is not None,
            "without --id the command makes an id",
        )
        rows = cli.ok("job", "ls").splitlines()
        tap.equal(len(rows), 2, "a head and a row")
        tap.check(rows[0].startswith("JOB ") and name in rows[1], "what is in them")
        tap.equal(
            cli.ok("audit"),
            "1 jobs, 1 open: 1 ready, 0 leased, 0 orphaned, 0 gated, 0 held; 0 findings\n",
            "what the audit found",
        )
        cli.ok("lifecycle", "create", "-", stdin=LIFECYCLE)
        tap.equal(
            [row.split() for row in cli.ok("lifecycle", "ls").splitlines() if "small" in row],
            [["small", "NEW", "4", "GONE", "BAD", "0"]],
            "a lifecycle is a row",
        )
        tap.equal(
            cli.ok("lifecycle", "show", "small"),
            (
                "STATE  NEXT             IS\n"
                "NEW    DONE, GONE, BAD  initial\n"
                "DONE   -                terminal\n"
                "GONE   -                terminal, when cancelled\n"
                "BAD    -                terminal, when failed\n"
            ),
            "a state is a row",
        )
        cli.ok("queue", "create", "work")
        cli.ok("put", "work", "a.b", "line\n\x1b[2J\ttab", "--key=k")
        row = cli.ok("queue", "peek", "work").splitlines()
        tap.equal(len(row), 2, "an item is one row, whatever its content")
        tap.check(
            "line??[2J?tab" in row[1] and " a.b " in row[1],
            f"control characters are masked: {row[1]!r}",
        )
        status = dict(line.split(None, 1) for line in cli.ok("status").splitlines())
        tap.equal(
            (status["server"], status["gateway"], status["headroom"]),
            ("sluiced", "default", "ok"),
            "the status, one line per member",
        )


def test_a_list_of_many_pages_is_one_document():
    # page of client/cli is 500 rows; 501 are one more.
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("queue", "create", "runs", "--jobs")
        cli.ok("stream", "create", "events", "--subject", "ev.>")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            names = sorted(
                pool.map(
                    lambda n: cli.ok(
                        "job", "submit", "--queue", "runs", "--id", f"job-{n:04}", "{}"
                    ).strip(),
                    range(501),
                )
            )
            list(pool.map(lambda n: cli.ok("queue", "create", f"q-{n:04}"), range(499)))
        document = json.loads(cli.ok("-o", "json", "job", "ls"))
        tap.equal(sorted(row["job"] for row in document["jobs"]), names, "each job once")
        tap.equal(len(cli.ok("job", "ls").splitlines()), 502, "and a row in the table")
        tap.equal(
            len(json.loads(cli.ok("-o", "json", "job", "ls", "--max", "7"))["jobs"]),
            7,
            "--max bounds it",
        )
        queues = [
            row["config"]["name"]
            for row in json.loads(cli.ok("-o", "json", "queue", "ls"))["queues"]
        ]
        tap.equal(
            sorted(queues),
            sorted(["dead-letter", "runs", *[f"q-{n:04}" for n in range(499)]]),
            "each queue once",
        )
        tap.equal(
            json.loads(cli.ok("-o", "json", "job", "ls", "--state", "COMPLETE"))["jobs"],
            [],
            "none is an empty list",
        )


def test_follow_begins_and_ends_where_it_is_told():
    with tap.Broker() as broker:
        cli = Cli(broker)

        def bodies(*args):
            return [
                json.loads(line)["body"]
                for line in cli.ok("-o", "json", "follow", "events", *args).splitlines()
            ]

        cli.ok("stream", "create", "events", "--subject", "ev.>")
        tap.equal(
            cli.ok("pub", "ev.a", "--lines", stdin="0\n1\n\n3"),
            "4 lines\n",
            "each line is an event, also the last one",
        )
        cli.ok("pub", "ev.b", "4")
        tap.equal(
            bodies("--from", "first", "--until-caught-up"),
            ["0", "1", "", "3", "4"],
            "from the first to the end",
        )
        tap.equal(bodies("--from", "3", "--until-caught-up"), ["3", "4"], "from an offset")
        tap.equal(bodies("--from", "first", "--count", "2"), ["0", "1"], "as many as asked for")
        tap.equal(bodies("--from=last", "--count=1"), ["4"], "the last one")
        tap.equal(
            bodies("--from", "-1h", "--filter", "ev.b", "--until-caught-up"),
            ["4"],
            "from an hour ago, filtered",
        )
        tap.equal(bodies("--from", "2020-01-01T00:00Z", "--count", "1"), ["0"], "from a time")
        tap.equal(
            bodies(
                "--from",
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + 3600)),
                "--until-caught-up",
            ),
            [],
            "from a local time in the future",
        )
        tap.equal(bodies("--from", "new", "--until-caught-up"), [], "nothing is newer than now")
        done = cli.run("follow", "events", "--from", "99999999999999999999")
        tap.check(
            done.returncode == 2 and "expected first, last" in done.stderr,
            f"an offset beyond 64 bits is refused: {done.stderr}",
        )


def test_bytes_that_are_no_text_stay_whole():
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("queue", "create", "work")
        sent = [
            bytes(range(256)),
            "caf\u00e9 \u4e2d \U0001f600".encode(),
            b"\xed\xa0\x80",
            b"\xc0\xaf",
            b"\xff",
            b"ab\xf4\x90\x80\x80",
            b"ab\xe4\xb8",
            b"\xc3",
            b"",
        ]
        for body in sent:
            subprocess.run(
                [
                    tap.program("client/cli/sluice"),
                    "--address",
                    broker.address,
                    "put",
                    "work",
                    "x",
                    "-",
                ],
                input=body,
                check=True,
                capture_output=True,
                timeout=60,
            )
        got = []
        for line in cli.ok(
            "-o", "json", "claim", "work", "--count", str(len(sent)), "--ack"
        ).splitlines():
            item = json.loads(line)
            got.append(
                base64.b64decode(item["body_base64"])
                if "body_base64" in item
                else item["body"].encode()
            )
        tap.equal(got, sent, "the claimed bodies equal those that were put")


def test_an_item_that_could_not_be_printed_is_not_acked():
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("queue", "create", "work")
        cli.ok("put", "work", "x", "precious")
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run(
                [
                    tap.program("client/cli/sluice"),
                    "--address",
                    broker.address,
                    "claim",
                    "work",
                    "--ack",
                ],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
            )
        tap.equal(done.returncode, 11, "its exit code is that of IO")
        tap.check("standard output" in done.stderr, f"it says what failed: {done.stderr}")
        queue = json.loads(cli.ok("-o", "json", "queue", "show", "work"))["queues"][0]
        tap.equal(
            (queue.get("acked", 0), queue.get("ready", 0) + queue.get("leased", 0)),
            (0, 1),
            "the item is still there",
        )


def on_terminal(broker, answer, *args):
    """Runs the command on a terminal of its own, types the answer; (exit code, what the terminal
    showed)."""
    control, terminal = pty.openpty()
    child = subprocess.Popen(
        [tap.program("client/cli/sluice"), "--address", broker.address, *args],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    os.write(control, answer)
    shown = b""
    try:
        while part := os.read(control, 4096):
            shown += part
    except OSError:
        pass  # the other side is closed: everything was read
    os.close(control)
    return child.wait(60), shown.decode(errors="replace")


def test_rm_asks_on_a_terminal_only():
    with tap.Broker() as broker:
        cli = Cli(broker)

        def is_there(name):
            return cli.run("queue", "show", name).returncode == 0

        for name in ("a", "b", "c"):
            cli.ok("queue", "create", name)
        code, shown = on_terminal(broker, b"n\n", "queue", "rm", "a")
        tap.check(
            code == 2 and "Delete queue 'a'" in shown and "nothing was deleted" in shown,
            f"'n' deletes nothing: {code} {shown!r}",
        )
        tap.check(is_there("a"), "it is still there")
        code, shown = on_terminal(broker, b"y\n", "queue", "rm", "a")
        tap.check(code == 0 and not is_there("a"), f"'y' deletes it: {code} {shown!r}")
        code, shown = on_terminal(broker, b"", "queue", "rm", "b", "--yes")
        tap.check(
            code == 0 and "Delete" not in shown and not is_there("b"),
            f"--yes answers: {code} {shown!r}",
        )
        done = cli.run("queue", "rm", "c")
        tap.check(
            done.returncode == 2 and "expected --yes" in done.stderr,
            f"without a terminal it cannot ask: {done.returncode} {done.stderr}",
        )
        tap.check(is_there("c"), "so nothing is deleted")
        tap.equal(cli.ok("queue", "rm", "c", "--yes"), "", "with --yes it prints nothing")
        tap.check(not is_there("c"), "and it is gone")


def test_a_terminal_gets_nothing_that_moves_it():
    hostile = "\x1b]0;title\x07 \x1b[2J \u009b31m \u202e"
    shown_as = "\\x1b]0;title\\x07 \\x1b[2J \\u009b31m \\u202e"
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("stream", "create", "s", "--subject", "e.>")
        cli.ok("queue", "create", "q")
        cli.ok("queue", "create", "j", "--jobs")
        cli.ok("pub", "e.x", hostile)
        cli.ok("put", "q", "work", hostile)
        cli.ok("job", "submit", "--queue", "j", "--id", "odd", hostile)
        cli.ok("job", "report", "odd", "--evidence", hostile)
        for words in (
            ("follow", "s", "--from", "first", "--until-caught-up"),
            ("claim", "q"),
            ("job", "show", "odd", "--payload"),
        ):
            code, shown = on_terminal(broker, b"", *words)
            tap.check(
                code == 0 and shown_as in shown and "\x1b" not in shown and "\u009b" not in shown,
                f"{words}: {code} {shown!r}",
            )
        tap.check(
            hostile in cli.ok("follow", "s", "--from", "first", "--until-caught-up"),
            "a pipe gets every byte as it is",
        )


def test_a_noun_shows_its_verbs():
    run = lambda *words: subprocess.run(
        [tap.program("client/cli/sluice"), *words], capture_output=True, text=True, timeout=60
    )  # noqa: E731
    for noun, verb in (("job", "job submit"), ("queue", "queue peek"), ("stream", "stream ls")):
        for word in ("--help", "-h", "help"):
            done = run(noun, word)
            tap.check(
                done.returncode == 0 and verb in done.stdout and "status" not in done.stdout,
                f"sluice {noun} {word}: {done}",
            )
        done = run(noun)
        tap.check(done.returncode == 2 and verb in done.stderr, f"sluice {noun}: {done}")
        done = run(noun, "fly")
        tap.check(
            done.returncode == 2
            and f"unknown command '{noun} fly'" in done.stderr
            and f"sluice {noun} --help" in done.stderr,
            f"{done}",
        )


def test_a_job_is_reported_and_released_by_hand():
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("queue", "create", "j", "--jobs")
        cli.ok("job", "submit", "--queue", "j", "--id", "a", "{}")
        connection = Connection(broker.port)
        connection.call("consume_open", queue="j", subscription=1, credit=1)
        tap.equal(connection.deliver(1).jobs[0].job, "a", "somebody holds it")
        done = cli.run("job", "release", "a", "--token", "1")
        tap.check(
            done.returncode == 6 and "token 1 is not the current one" in done.stderr,
            f"a stale token is refused: {done}",
        )
        cli.ok("job", "release", "a", "--reason", "its shell is dead")
        tap.check(
            json.loads(cli.ok("job", "show", "a", "-o", "json"))["jobs"][0]["claim"]
            in ("ready", "leased"),
            "it went back",
        )
        tap.check("its shell is dead" in cli.ok("job", "history", "a"), "with the reason")
        tap.equal(
            cli.ok(
                "job",
                "report",
                "a",
                "--state",
                "ACTIVE",
                "--evidence",
                "a mail said so",
                "--reference",
                "4711",
                "--seen",
                "2026-11-24T10:30:00+01:00",
            ),
            "ACTIVE\n",
            "a report is taken",
        )
        shown = json.loads(cli.ok("job", "show", "a", "-o", "json"))["jobs"][0]
        tap.equal(
            (shown["state"], shown["evidence"], shown["scheduler_ref"]),
            ("ACTIVE", "a mail said so", "4711"),
            "and is in the ledger",
        )
        done = cli.run("job", "report", "a", "--state", "ACTIVE", "--seen", "2026-02-30T00:00Z")
        tap.check(
            done.returncode == 2 and "a time that exists" in done.stderr,
            f"30 February is refused: {done}",
        )
        done = cli.run("job", "report", "none", "--state", "ACTIVE")
        tap.check(
            done.returncode == 4 and "job none does not exist" in done.stderr,
            f"a job that is not there: {done}",
        )
        done = cli.run("job", "report", "none", "--attempt", "1", "--state", "ACTIVE")
        tap.equal((done.returncode, done.stdout), (0, ""), f"it has no state yet: {done}")
        tap.check("parked until the job is submitted" in done.stderr, f"and this is said: {done}")
        done = cli.run("job", "report", "a", "--state", "NO_SUCH_STATE")
        tap.check(
            done.returncode == 5 and done.stdout == "" and "put into quarantine: " in done.stderr,
            f"one that changes nothing fails: {done}",
        )


def test_lists_go_on_after_a_row():
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("queue", "create", "q")
        cli.ok("queue", "create", "j", "--jobs")
        for number in range(1, 6):
            cli.ok("put", "q", "work", f"item {number}")
            cli.ok("job", "submit", "--queue", "j", "--id", f"job{number}", "{}")
            tap.equal(
                cli.run(
                    "job", "report", f"job{number}", "--attempt", "7", "--state", "ACTIVE"
                ).returncode,
                5,
                "a report into quarantine",
            )
        rows = json.loads(cli.ok("queue", "peek", "q", "--after", "3", "-o", "json"))["items"]
        tap.equal([row["seq"] for row in rows], [4, 5], "items")
        rows = json.loads(cli.ok("job", "ls", "--after", "3", "-o", "json"))["jobs"]
        tap.equal([row["number"] for row in rows], [4, 5], "jobs")
        rows = json.loads(cli.ok("quarantine", "ls", "-o", "json"))["quarantine"]
        rest = json.loads(cli.ok("quarantine", "ls", "--after", str(rows[2]["n"]), "-o", "json"))[
            "quarantine"
        ]
        tap.equal([row["n"] for row in rest], [row["n"] for row in rows[3:]], "quarantined reports")


def test_jobs_are_waited_for_and_reset():
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("queue", "create", "runs", "--jobs")
        cli.ok("job", "submit", "--queue", "runs", "--id", "j", "{}")
        done = cli.run("--timeout", "2s", "job", "wait", "j")
        tap.check(
            done.returncode == 9 and "j is still SUBMITTED" in done.stderr,
            f"a wait with a timeout: {done.returncode} {done.stderr}",
        )
        tap.check(
            done.stdout.startswith("job        j "),
            f"and the present state of the job: {done.stdout}",
        )
        tap.equal(
            cli.run("job", "reset", "j").returncode, 5, "an open job is not reset without --force"
        )
        cli.ok("job", "cancel", "j", "--reason", "a test")
        tap.check("(ended)" in cli.ok("job", "wait", "j"), "it has ended")
        tap.equal(
            cli.run("job", "submit", "--queue", "runs", "--id", "j", "other").returncode,
            5,
            "the same id with another payload",
        )
        tap.equal(
            cli.ok("job", "submit", "--queue", "runs", "--id", "j", "{}"),
            "j\n",
            "the same again succeeds",
        )


tap.main(globals())
