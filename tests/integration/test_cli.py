#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `sluice` command: what it prints, its JSON against golden files (tests/data/cli, volatile fields masked; UPDATE=1 writes them), its
exit codes, and that every command has help."""
import json
import os
import re
import subprocess

import tap

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data", "cli")
VOLATILE = {"index", "time_ms", "submit_time_ms", "change_time_ms", "put_time_ms", "first_time_ms", "last_time_ms", "token", "wall_time_ms", "uptime_ms",
            "commits", "commands", "store_used_bytes", "store_map_bytes", "disk_free_bytes", "oldest_reader_ms", "holder_session", "lease_left_ms", "version"}
MACHINE = """machine small
state NEW -> DONE, GONE, BAD   # the first is the initial one
terminal DONE
terminal GONE
terminal BAD
cancelled GONE
failed BAD
"""


class Cli:
    def __init__(self, broker):
        self.address = broker.address

    def run(self, *args, stdin=""):
        return subprocess.run([tap.program("client/cli/sluice"), "--address", self.address, *args], input=stdin, capture_output=True, text=True,
                              timeout=60)

    def ok(self, *args, stdin=""):
        done = self.run(*args, stdin=stdin)
        tap.equal(done.returncode, 0, f"sluice {' '.join(args)}: {done.stderr}")
        return done.stdout


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
        cli.ok("machine", "create", "-", stdin=MACHINE)
        golden("pub", cli.ok("-o", "json", "pub", "ev.a", "hello", "--key", "k", "--header", "a=b"))
        golden("follow", cli.ok("-o", "json", "follow", "events", "--from", "first", "--until-caught-up"))
        cli.ok("put", "work", "w.x", "body", "--id", "1")
        golden("queue_peek", cli.ok("-o", "json", "queue", "peek", "work"))
        golden("claim", cli.ok("-o", "json", "claim", "work", "--ack"))
        golden("stream_show", cli.ok("-o", "json", "stream", "show", "events"))
        golden("stream_ls", cli.ok("-o", "json", "stream", "ls"))
        golden("queue_ls", cli.ok("-o", "json", "queue", "ls"))
        golden("machine_show", cli.ok("-o", "json", "machine", "show", "small"))
        golden("job_submit", cli.ok("-o", "json", "job", "submit", "--queue", "runs", "--id", "j1", "--owner", "me", '{"argv":["true"]}'))
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
        tap.check(re.fullmatch(r"j[0-9a-f]{12}-[0-9a-f]{16}", name) is not None, "an id is made when none is given")
        rows = cli.ok("job", "ls").splitlines()
        tap.equal(len(rows), 2, "a head and a row")
        tap.check(rows[0].startswith("JOB ") and name in rows[1], "what is in them")
        tap.check("audit" not in cli.ok("audit") and "0 findings" in cli.ok("audit"), "the audit says what it found")


def test_exit_codes_and_messages_name_what_was_wrong():
    with tap.Broker() as broker:
        cli = Cli(broker)
        for args, code, words in [
                (["bogus"], 2, "no command"),
                (["job", "submit", "x"], 2, "--queue is missing"),
                (["stream", "show", "nothing"], 4, "'nothing' does not exist"),
                (["job", "show", "nothing"], 4, "nothing"),
                (["stream", "create", "bad", "--subject", "a..b"], 2, "empty token"),
                (["follow", "nothing", "--from", "yesterday"], 2, "expected first, last, new"),
                (["put", "nowhere", "s", "b"], 4, "nowhere"),
                (["pub", "a b", "x"], 2, "invalid argument"),
                (["-o", "xml", "status"], 2, "expected table or json"),
                (["claim", "dead-letter", "--wait", "100ms"], 9, "nothing came"),
                (["queue", "create", "q", "--lease", "1ms"], 2, "lease_ms is 1"),
                (["machine", "create", "/no/such/file"], 4, "/no/such/file"),
        ]:
            done = cli.run(*args)
            tap.equal(done.returncode, code, f"exit code of {args}: {done.stderr}")
            tap.check(words in done.stderr, f"{args} says {words!r}: {done.stderr!r}")
            tap.equal(done.stdout, "", f"{args} prints no data")
        bad = cli.run("machine", "create", "-", stdin="machine m\nstate A -> B\nterminal B\ncancelled B\nfailed B\nnonsense x\n")
        tap.check(bad.returncode == 2 and "line 6" in bad.stderr, f"a machine's error has its line: {bad.stderr}")
        stuck = cli.run("machine", "create", "-", stdin="machine m\nstate A -> B, C\nstate C\nterminal B\ncancelled B\nfailed B\n")
        tap.check(stuck.returncode != 0 and "C" in stuck.stderr, f"a state without exit is refused by name: {stuck.stderr}")
    gone = subprocess.run([tap.program("client/cli/sluice"), "--address", broker.address, "--timeout", "1s", "status"], capture_output=True, text=True, timeout=60)
    tap.equal(gone.returncode, 10, "no broker")
    tap.check(broker.address in gone.stderr, "and where it was looked for")


def test_every_command_has_help():
    sluice = tap.program("client/cli/sluice")
    text = subprocess.run([sluice, "--help"], capture_output=True, text=True, timeout=60).stdout
    names = re.findall(r"^  ((?:[a-z]+ )?[a-z]+) {2,}\S", text, re.M)
    tap.check(len(names) > 20, f"commands are listed: {names}")
    for name in names:
        done = subprocess.run([sluice, *name.split(), "--help"], capture_output=True, text=True, timeout=60)
        tap.equal(done.returncode, 0, f"sluice {name} --help")
        tap.check(done.stdout.startswith(f"usage: sluice {name}"), f"help of {name}")


tap.main(globals())
