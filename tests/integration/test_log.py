#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The log lines of connections, sessions, refusals and slow commits, and how many of them peers can
cause."""
import os
import re
import sys
import tempfile

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import Connection, pb  # noqa: E402

DEBUG = ("--set", "log_level=debug")


def lines(broker, one):
    """The lines of an id, each as a dict."""
    found = []
    for line in broker.text().decode(errors="replace").splitlines():
        fields = dict(re.findall(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)', line))
        if fields.get("id") == one:
            found.append({key: value.strip('"') for key, value in fields.items()})
    return found


def wait_line(broker, one, count=1):
    return tap.wait_until(
        lambda: lines(broker, one) if len(lines(broker, one)) >= count else None,
        20,
        f"{count} lines {one}",
    )


def refused(port, **hello):
    try:
        Connection(port, **hello)
    except client.Closed as closed:
        return closed.failure.code
    raise AssertionError("it was not refused")


def test_a_run_is_told_from_its_beginning_to_its_end():
    with tap.Broker(args=DEBUG) as broker:
        one = Connection(broker.port, session_name="scheduler", client="a test")
        try:
            one.call("queue_show", name="nothing")
        except client.Refused:
            pass
        session = one.welcome.session_id
        back = Connection(
            broker.port, session_id=session, session_secret=one.welcome.session_secret
        )
        tap.equal(back.welcome.resumed, True, "resumed")
        back.ask("session_close")
        opened = wait_line(broker, "session.opened")[0]
        tap.equal(
            (opened["level"], opened["session"], opened["name"], opened["client"]),
            ("debug", str(session), "scheduler", "a test"),
            "the session that was opened",
        )
        tap.equal(wait_line(broker, "session.resumed")[0]["session"], str(session), "and resumed")
        tap.equal(
            [row["session"] for row in wait_line(broker, "session.ended")],
            [str(session)],
            "and ended, once",
        )
        accepted = [
            row
            for row in wait_line(broker, "net.accepted", 2)
            if (row["thread"], row["conn"]) == (opened["thread"], opened["conn"])
        ]
        tap.equal(len(accepted), 1, "its connection")
        tap.check(
            re.fullmatch(r"127\.0\.0\.1:\d+", accepted[0]["peer"]),
            f"with its address: {accepted[0]['peer']}",
        )
        closed = [
            row
            for row in wait_line(broker, "net.closed", 2)
            if row["conn"] == opened["conn"] and row["thread"] == opened["thread"]
        ]
        tap.equal(
            [row["reason"] for row in closed],
            ["its session moved to another connection"],
            "why it ended",
        )
        refusals = wait_line(broker, "request.refused")
        tap.equal([row["code"] for row in refusals], ["NOT_FOUND"], "the request that was refused")


def test_a_refused_connection_is_told_without_debug():
    with tap.Broker(args=("--set", "connections_max=3")) as broker:
        refused(broker.port, gateway="nowhere")
        row = wait_line(broker, "net.refused")[0]
        tap.equal((row["level"], row["code"]), ("warn", "NOT_FOUND"), "its code")
        tap.check("nowhere" in row["text"], row["text"])
        held = [Connection(broker.port) for _ in range(3)]
        try:
            Connection(broker.port)
        except (client.Closed, OSError):
            pass
        tap.check(
            wait_line(broker, "net.connections_max")[0]["peer"].startswith("127.0.0.1:"),
            "beyond connections_max",
        )
        tap.equal(len(held), 3, "those before it stay")
        tap.equal(held[0].call("status_get").status.connections, 3, "and are all that is counted")
        tap.equal(lines(broker, "net.accepted"), [], "nothing of debug")


def test_a_flood_of_refusals_is_a_few_lines():
    with tap.Broker(args=DEBUG) as broker:
        one = Connection(broker.port)
        raw = pb.Request(queue_show=pb.QueueShow(name="nothing")).SerializeToString()
        for _ in range(5000):
            one.send(client.REQUEST, raw, one.next_correlation())
        one.ping(60)
        told = wait_line(broker, "request.refused", 20)
        tap.check(len(told) < 2000, f"{len(told)} lines for 5,000 refusals")


def test_a_slow_commit_says_what_was_slow():
    tap.not_sanitized("a sanitizer refuses a library that is loaded before its own")
    gate_library = tap.program("tests/integration/sync_gate.so")
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as there:
        gate = os.path.join(there, "gate")
        with tap.Broker(
            env={**os.environ, "LD_PRELOAD": gate_library, "SYNC_GATE": gate}
        ) as broker:
            one = Connection(broker.port)
            tap.equal(lines(broker, "engine.slow_commit"), [], "none so far")
            with open(gate, "w", encoding="ascii"):
                pass
            asked = one.ask("queue_create", config={"name": "work"})
            try:
                one.reply(asked, 1)
                raise AssertionError("it was answered before its commit")
            except TimeoutError:
                pass
            os.unlink(gate)
            tap.equal(one.reply(asked, 30).code, 0, "the commit")
            row = wait_line(broker, "engine.slow_commit")[0]
            tap.equal(
                (row["level"], row["largest"]), ("warn", "queue_create"), "its largest command"
            )
            tap.check(
                int(row["sync_ms"]) >= 500 > int(row["apply_ms"]), f"the sync was slow: {row}"
            )
            tap.equal(row["commands"], "1", "its commands")


tap.main(globals())
