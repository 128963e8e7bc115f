#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `sluice` command: its exit codes and messages, and that every command has help."""
import json
import re
import shutil
import subprocess
import tempfile

import tap

from cli_rig import Cli


def test_exit_codes_and_messages_name_what_was_wrong():
    with tap.Broker() as broker:
        cli = Cli(broker)
        for args, code, words in [
            (["bogus"], 2, "unknown command 'bogus'"),
            (["job", "submit", "x"], 2, "--queue is missing"),
            (["stream", "show", "nothing"], 4, "'nothing' does not exist"),
            (["job", "show", "nothing"], 4, "nothing"),
            (["stream", "create", "bad", "--subject", "a..b"], 2, "empty token"),
            (["follow", "nothing", "--from", "yesterday"], 2, "expected first, last, new"),
            (["put", "nowhere", "s", "b"], 4, "nowhere"),
            (["pub", "a b", "x"], 2, "subject 'a b'"),
            (["pub", "a", "x", "--key", "k" * 256], 2, "the key has 256 bytes; at most 255"),
            (["pub", "a", "@/"], 11, "/: Is a directory"),
            (["pub", "a", "x", "--lines"], 2, "with --lines"),
            (["put", "", "s", "b"], 2, "the name is empty"),
            (["job ls"], 2, "unknown command 'job ls'"),
            (
                ["job", "ls", "--claim", "stolen"],
                2,
                "expected none, ready, leased, orphaned, gated or held",
            ),
            (["follow", "nothing"], 4, "stream 'nothing' does not exist"),
            (["claim", "nothing"], 4, "queue 'nothing' does not exist"),
            (["claim", "dead-letter", "--lease", "1ms"], 2, "lease_ms is 1"),
            (["claim", "dead-letter", "--count", "0"], 2, "expected a number from 1 to 1000000"),
            (
                ["queue", "peek", "dead-letter", "--max", "1001"],
                2,
                "expected a number from 1 to 1000",
            ),
            (["--gateway", "nowhere", "status"], 4, "gateway 'nowhere' does not exist"),
            (["--gateway", "\udcff", "status"], 3, "not valid UTF-8"),
            (["--address=127.0.0.1:99999", "status"], 2, "expected host:port"),
            (["--timeout=never", "status"], 2, "expected a duration"),
            (["pub", "a", "-x"], 2, "-x is unknown"),
            (["pub", "a", "x", "--lines=3"], 2, "takes no value"),
            (["pub", "a", "--key"], 2, "needs a value"),
            (["pub"], 2, "an argument is missing"),
            (["pub", "a", "b", "c"], 2, "unexpected argument 'c'"),
            (["put", "q", "a", "b", "--priority", "256"], 2, "expected a number from 0 to 255"),
            (["--timeout", "0", "status"], 2, "expected a duration"),
            (["-o", "xml", "status"], 2, "expected table or json"),
            (["claim", "dead-letter", "--wait", "100ms"], 9, "no item arrived"),
            (["queue", "create", "q", "--lease", "1ms"], 2, "lease_ms is 1"),
            (["lifecycle", "create", "/no/such/file"], 4, "/no/such/file"),
        ]:
            done = cli.run(*args)
            tap.equal(done.returncode, code, f"exit code of {args}: {done.stderr}")
            tap.check(words in done.stderr, f"{args} says {words!r}: {done.stderr!r}")
            tap.equal(done.stdout, "", f"{args} prints no data")
        bad = cli.run(
            "lifecycle",
            "create",
            "-",
            stdin="lifecycle m\nstate A -> B\nterminal B\ncancelled B\nfailed B\nnonsense x\n",
        )
        tap.check(
            bad.returncode == 2 and "line 6" in bad.stderr,
            f"a lifecycle's error has its line: {bad.stderr}",
        )
        stuck = cli.run(
            "lifecycle",
            "create",
            "-",
            stdin="lifecycle m\nstate A -> B, C\nstate C\nterminal B\ncancelled B\nfailed B\n",
        )
        tap.check(
            stuck.returncode != 0 and "C" in stuck.stderr,
            f"a state without exit is refused, and named: {stuck.stderr}",
        )
    gone = subprocess.run(
        [
            tap.program("client/cli/sluice"),
            "--address",
            broker.address,
            "--timeout",
            "1s",
            "status",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    tap.equal(gone.returncode, 10, "no broker")
    tap.check(broker.address in gone.stderr, "and the path that was tried")


def test_messages_are_json_when_json_is_asked_for():
    with tap.Broker() as broker:
        cli = Cli(broker)
        for args, error in [
            (["stream", "show", 'a"b'], "NOT_FOUND"),
            (["bogus", "\udcff"], "INVAL"),
            ([], "INVAL"),
            (["pub", "a..b", "x"], "INVAL"),
            (["claim", "dead-letter", "--wait", "0"], "TIMEOUT"),
            (["--address", "127.0.0.1:1", "--timeout", "100ms", "status"], "DISCONNECTED"),
            (["follow", "nothing"], "NOT_FOUND"),
            (["job", "wait"], "INVAL"),
            (["pub", "a", "@/no/such"], "NOT_FOUND"),
        ]:
            for words in (["-o", "json", *args], [*args, "-o=json"]):
                done = cli.run(*words)
                said = [json.loads(line) for line in done.stderr.splitlines()]
                tap.equal(
                    [row.get("error") for row in said],
                    [error],
                    f"{words} says why in one document: {done.stderr!r}",
                )
                tap.equal(said[0]["exit"], done.returncode, f"{words}: its exit code")
                tap.equal(done.stdout, "", f"{words} prints no data")
        tap.equal(
            json.loads(cli.run("-o", "json", "status", "-v").stderr).get("notice", "")[:12],
            "connected to",
            "-v is JSON, too",
        )


def test_a_closed_standard_output_is_no_socket():
    with tap.Broker() as broker:
        cli = Cli(broker)
        cli.ok("stream", "create", "events", "--subject", "ev.>")
        cli.ok("queue", "create", "work")
        cli.ok("pub", "ev.a", "x")
        cli.ok("put", "work", "a", "--lines", stdin="one\ntwo\nthree")
        sluice = f"{tap.program('client/cli/sluice')} --address {broker.address}"
        for args, code in (
            ("follow events --from first --until-caught-up", 11),
            ("claim work --ack", 11),
            ("status", 11),
            ("stream show nothing", 4),
        ):
            for closed in (">&-", "<&- >&-", "<&- >&- 2>&-"):
                done = subprocess.run(
                    ["/bin/sh", "-c", f"exec {sluice} {args} {closed}"],
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=60,
                )
                tap.equal(done.returncode, code, f"sluice {args} {closed}: {done.stderr}")
                tap.check(
                    "2>" in closed or code == 4 or "standard output" in done.stderr,
                    f"it says what failed: {done.stderr}",
                )
        for args in ("pub ev.a -", "pub ev.a --lines"):
            done = subprocess.run(
                ["/bin/sh", "-c", f"exec {sluice} {args} <&-"],
                capture_output=True,
                text=True,
                timeout=60,
            )
            tap.check(
                done.returncode == 11 and "standard input" in done.stderr,
                f"sluice {args} <&-: {done.returncode} {done.stderr}",
            )
        tap.equal(
            json.loads(cli.ok("-o", "json", "stream", "show", "events"))["streams"][0]["events"],
            1,
            "nothing was published",
        )
        tap.equal(
            json.loads(cli.ok("-o", "json", "queue", "show", "work"))["queues"][0].get("acked", 0),
            0,
            "nothing was acked",
        )


def test_a_follower_says_that_it_waits_for_the_broker():
    data = tempfile.mkdtemp(prefix="sluice-test-")
    port = tap.free_port()
    with tap.Broker(data=data, port=port) as broker:
        Cli(broker).ok("stream", "create", "events", "--subject", "ev.>")
        Cli(broker).ok("pub", "ev.a", "before")
        follower = tap.Process(
            [
                tap.program("client/cli/sluice"),
                "--address",
                broker.address,
                "follow",
                "events",
                "--from",
                "first",
                "--count",
                "2",
            ],
            ready=rb"before",
        )
        broker.kill()
        tap.wait_until(lambda: b"is lost" in follower.text(), 30, "the lost connection is reported")
    with tap.Broker(data=data, port=port) as broker:
        tap.wait_until(
            lambda: b" again" in follower.text().replace(b"trying again", b""),
            30,
            "and that it is back",
        )
        Cli(broker).ok("pub", "ev.a", "after")
        tap.equal(follower.wait(30), 0, "it goes on")
        tap.check(
            follower.text().count(b"before") == 1 and b"after" in follower.text(),
            f"each event once: {follower.text()}",
        )
    shutil.rmtree(data)


def test_a_publish_that_reaches_nothing_fails():
    with tap.Broker() as broker:
        cli = Cli(broker)
        done = cli.run("pub", "ev.a", "x")
        tap.equal(
            (done.returncode, "nothing is bound to subject 'ev.a'" in done.stderr),
            (4, True),
            f"it says so: {done.stderr}",
        )
        cli.ok("pub", "ev.a", "x", "--allow-unrouted")
        cli.ok("stream", "create", "s", "--subject", "ev.>")
        cli.ok("pub", "ev.a", "x")
        for _ in range(2):
            cli.ok("pub", "ev.a", "y", "--id", "same")
        tap.equal(
            json.loads(cli.ok("-o", "json", "stream", "show", "s"))["streams"][0]["next_offset"],
            3,
            "an id is not compared",
        )
        tap.check("not compare" in cli.ok("pub", "--help"), "which the help says")
        cli.ok("stream", "create", "s", "--subject", "ev.>", "--if-not-exists")
        done = cli.run("stream", "create", "s", "--max-events", "7", "--if-not-exists")
        tap.equal(
            (done.returncode, "max_events 0; given was 7" in done.stderr),
            (5, True),
            f"another configuration: {done.stderr}",
        )


def test_every_command_has_help():
    sluice = tap.program("client/cli/sluice")
    text = subprocess.run([sluice, "--help"], capture_output=True, text=True, timeout=60).stdout
    names = re.findall(r"^  ((?:[a-z]+ )?[a-z]+) {2,}\S", text, re.M)
    tap.check(len(names) > 20, f"commands are listed: {names}")
    listed = text.split("\n\n")[1].split("\n")
    tap.equal([line for line in listed if not line.startswith("  ")], [], "each has one line")
    for name in names:
        done = subprocess.run(
            [sluice, *name.split(), "--help"], capture_output=True, text=True, timeout=60
        )
        tap.equal(done.returncode, 0, f"sluice {name} --help")
        tap.check(done.stdout.startswith(f"usage: sluice {name}"), f"help of {name}")


tap.main(globals())
