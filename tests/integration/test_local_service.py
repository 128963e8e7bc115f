#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `local` scheduler as a service: what it waits for, what ends it, and that notifications of
the ledger reach it despite broken connections."""
import contextlib
import json
import os
import signal
import subprocess
import sys

import tap

from local_rig import (
    LosingProxy,
    attempt,
    ended,
    inside,
    lives,
    outside,
    queue,
    run,
    shown,
    sluice,
    submit,
    waits,
)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import DELIVER, NOTICE  # noqa: E402


def lifecycle(broker, text):
    done = subprocess.run(
        [tap.program("client/cli/sluice"), "--address", broker.address, "lifecycle", "create", "-"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    tap.equal(done.returncode, 0, f"lifecycle create: {done.stderr}")


def ends(process, code, text):
    """With this exit code, and the text in its log."""
    tap.equal(process.wait(30), code, f"its exit code; {process.text().decode()}")
    tap.check(text.encode() in process.text(), f"and says {text}: {process.text().decode()}")


# ---- missing resources ----


def test_a_queue_that_comes_later_is_waited_for():
    with tap.Scratch() as spool, tap.Broker() as broker, outside(broker, spool) as process:
        waits(process, "queue 'runs' does not exist")
        queue(broker)
        tap.equal(run(broker, "one", "true"), "COMPLETE", "its state")


def test_inside_the_broker_a_queue_that_comes_later_is_waited_for():
    with tap.Scratch() as spool, inside(spool, queue="later") as broker:
        tap.wait_until(
            lambda: b"queue 'later' does not exist" in broker.text(),
            30,
            "the log says what is missing",
        )
        queue(broker, name="later")
        tap.wait_until(lambda: b"id=local.ready" in broker.text(), 30, "it begins")
        tap.equal(
            sluice(
                broker, "job", "submit", "--id", "one", "--queue", "later", '{"argv":["true"]}'
            ).returncode,
            0,
            "submit",
        )
        tap.equal(ended(broker, "one"), "COMPLETE", "its state")


def test_a_queue_that_is_deleted_and_made_again_is_worked_again():
    with tap.Scratch() as spool, tap.Broker() as broker:
        queue(broker)
        with outside(broker, spool) as process:
            tap.equal(run(broker, "before", "true"), "COMPLETE", "its state")
            done = sluice(broker, "queue", "rm", "runs", "--yes")
            tap.equal(done.returncode, 0, f"queue rm: {done.stderr}")
            waits(process, "id=local.waiting")
            queue(broker)
            tap.equal(run(broker, "after", "true"), "COMPLETE", "its state")


def test_a_broker_that_comes_later_and_goes_away_is_waited_for():
    with tap.Scratch() as spool, tap.Scratch() as data:
        with tap.Broker(data=data) as broker:
            queue(broker)
            address, port = broker.address, broker.port

        class Away:
            pass

        Away.address = address
        with outside(Away, spool) as process:
            waits(process, "id=local.waiting")
            for name in ("first", "second"):
                with tap.Broker(data=data, port=port) as broker:
                    tap.equal(run(broker, name, "true"), "COMPLETE", "its state")


def test_a_host_that_has_no_address_yet_is_waited_for():
    class Nowhere:
        address = "no-such-host.invalid:7584"

    with tap.Scratch() as spool, outside(Nowhere, spool, give_up_ms=1000) as process:
        waits(process, "id=local.waiting")
        tap.check(process.wait(60) != 0, "it ends with a failure")
        tap.check(b"stopped after give_up_ms" in process.text(), "and says so")


def test_it_gives_up_with_a_failure_that_names_the_cause():
    with tap.Scratch() as spool, tap.Broker() as broker, outside(
        broker, spool, give_up_ms=300
    ) as process:
        ends(process, 4, "stopped after give_up_ms: the queue: queue 'runs' does not exist")


def test_a_session_that_another_instance_took_ends_it_with_a_failure():
    with tap.Scratch() as spool, tap.Broker() as broker:
        queue(broker)
        with outside(broker, spool) as process:
            waits(process, "id=local.ready")
            with outside(broker, spool) as second:
                waits(second, "id=local.ready")
                ends(process, 6, "another client opened the session 'local'")
                tap.equal(run(broker, "one", "true"), "COMPLETE", "the second one works")


def test_a_queue_of_items_is_refused():
    with tap.Scratch() as spool, tap.Broker() as broker:
        tap.equal(sluice(broker, "queue", "create", "runs").returncode, 0, "queue create")
        with outside(broker, spool) as process:
            ends(
                process,
                2,
                "setting queue is 'runs', which is a queue of items; expected one of jobs",
            )


def test_settings_that_are_wrong_are_refused_by_name():
    with tap.Scratch() as top, tap.Broker() as broker:
        spool = os.path.join(top, "spool")
        for key, value, text in (
            ("slots", "0", "setting slots is '0'; expected a whole number from 1 to"),
            ("slots", "8x", "setting slots is '8x'"),
            ("compare_ms", "-1", "setting compare_ms is '-1'"),
            ("output_max_kib", "1e9", "setting output_max_kib is '1e9'"),
            ("leftovers", "kill", "setting leftovers is 'kill'; expected one of: end, leave"),
            ("pause", "often", "setting pause is 'often'"),
            ("queue", "q" * 256, "setting queue has 256 bytes; expected at most 255"),
            ("spool", "/" + "s" * 512, "setting spool has 513 bytes; expected at most 511"),
            (
                "spool",
                "/dev/null/spool",
                "cannot create directory /dev/null/spool: Not a directory (ENOTDIR)",
            ),
            ("spool", "/tmp/" + "s" * 300, "File name too long (ENAMETOOLONG)"),
            (
                "shepherd",
                "/no/such/shepherd",
                "setting shepherd is '/no/such/shepherd': No such file or directory",
            ),
        ):
            settings = {"spool": spool, key: value}
            with outside(broker, settings.pop("spool"), **settings) as process:
                tap.check(process.wait(30) != 0, f"{key}={value[:20]} ends it")
                tap.check(text.encode() in process.text(), f"{text}: {process.text().decode()}")


def test_a_spool_whose_place_is_not_mounted_yet_is_waited_for():
    with tap.Scratch() as top, tap.Broker() as broker:
        queue(broker)
        with outside(broker, os.path.join(top, "mount", "spool")) as process:
            waits(process, "No such file or directory (ENOENT)")
            os.mkdir(os.path.join(top, "mount"))
            tap.equal(run(broker, "one", "true"), "COMPLETE", "its state")


# ---- lifecycles ----

GATEWAY = """lifecycle gateway
state SUBMITTED -> RUNNING, DONE, FAILED, CANCELED
state RUNNING -> DONE, FAILED, CANCELED
terminal DONE
terminal FAILED
terminal CANCELED
cancelled CANCELED
failed FAILED
"""


# An end is legal only after running; two states can mean running, and two a good end.
WIDE = """lifecycle wide
state NEW -> STAGING, BUSY, DEAD
state STAGING -> BUSY, DEAD
state BUSY -> GOOD, BETTER, BAD, DEAD
terminal GOOD
terminal BETTER
terminal BAD
terminal DEAD
cancelled DEAD
failed BAD
"""


def test_a_lifecycle_with_other_names_is_worked():
    with tap.Scratch() as spool, tap.Broker() as broker:
        lifecycle(broker, GATEWAY)
        queue(broker, "--lifecycle", "gateway")
        with outside(broker, spool):
            tap.equal(
                [run(broker, "good", "true"), run(broker, "bad", "false")],
                ["DONE", "FAILED"],
                "their states",
            )
            submit(broker, "long", "sleep", "1000")
            tap.wait_until(lambda: shown(broker, "long")["state"] == "RUNNING", 30, "it runs")
            tap.equal(sluice(broker, "job", "cancel", "long").returncode, 0, "cancel")
            tap.equal(ended(broker, "long"), "CANCELED", "its state")
        tap.check("0 findings" in sluice(broker, "audit").stdout, "audit")


def test_a_lifecycle_that_is_ambiguous_is_refused_until_it_is_mapped():
    with tap.Scratch() as spool, tap.Broker() as broker:
        lifecycle(broker, WIDE)
        queue(broker, "--lifecycle", "wide")
        with outside(broker, spool) as process:
            ends(process, 2, "setting state_active is not set: the lifecycle 'wide' of the queue")
            tap.check(
                b"expected one of: STAGING, BUSY" in process.text(), "the legal states are named"
            )
        with outside(broker, spool, state_active="BUSY", state_complete="GONE") as process:
            ends(process, 2, "setting state_complete is 'GONE'")
        with outside(broker, spool, state_active="BUSY", state_complete="BETTER"):
            tap.equal(
                [
                    run(broker, "good", "true"),
                    run(broker, "bad", "false"),
                    run(broker, "none", "/no/such/program"),
                ],
                ["BETTER", "BAD", "BAD"],
                "their states",
            )
            rows = json.loads(sluice(broker, "-o", "json", "job", "history", "none").stdout)[
                "history"
            ]
            tap.check(
                "BUSY" in [row.get("state") for row in rows],
                "its lifecycle lets it end only after it was active",
            )
        tap.check("0 findings" in sluice(broker, "audit").stdout, "audit")


def test_a_job_of_another_lifecycle_than_the_queues_ends_too():
    with tap.Scratch() as spool, tap.Broker() as broker:
        lifecycle(broker, GATEWAY)
        queue(broker)
        with outside(broker, spool) as process:
            done = sluice(
                broker,
                "job",
                "submit",
                "--id",
                "other",
                "--queue",
                "runs",
                "--lifecycle",
                "gateway",
                '{"argv":["true"]}',
            )
            tap.equal(done.returncode, 0, f"submit: {done.stderr}")
            tap.equal(ended(broker, "other"), "DONE", "its state")
            tap.check(
                b"id=local.report_quarantined" in process.text(), "the first report was logged"
            )


def test_an_end_that_stays_in_quarantine_is_told_and_kept():
    with tap.Scratch() as spool, tap.Broker() as broker:
        lifecycle(broker, WIDE)
        queue(broker)
        with outside(broker, spool) as process:
            done = sluice(
                broker,
                "job",
                "submit",
                "--id",
                "odd",
                "--queue",
                "runs",
                "--lifecycle",
                "wide",
                '{"argv":["true"]}',
            )
            tap.equal(done.returncode, 0, f"submit: {done.stderr}")
            tap.wait_until(
                lambda: process.text().count(b"id=local.report_quarantined") >= 2,
                60,
                "it is reported again and again",
            )
            waits(process, "odd: setting state_active is not set: the lifecycle 'wide'")
            tap.equal(shown(broker, "odd")["claim"], "leased", "it is in hand")
            tap.check(
                not os.path.exists(os.path.join(attempt(spool, "odd"), "reported")),
                "and its files do not count as reported",
            )


# ---- notifications of the ledger despite broken connections ----


def notices_are_lost(how):
    """The scheduler gets no notice; only its comparison with the ledger finds the change."""
    with tap.Scratch() as top, tap.Broker() as broker:
        queue(broker)
        proxy = LosingProxy(broker.port, lambda request: False, drops=lambda kind: kind == NOTICE)
        mark = os.path.join(top, "pid")
        with contextlib.closing(proxy.listener), outside(
            proxy, os.path.join(top, "spool"), compare_ms=300
        ):
            submit(broker, "one", "sh", "-c", f"echo $$ >>{mark}; exec sleep 1000")
            tap.wait_until(
                lambda: shown(broker, "one")["state"] == "ACTIVE" and os.path.exists(mark),
                30,
                "it runs",
            )
            with open(mark, encoding="ascii") as file:
                pid = int(file.read().split()[0])
            for words in how:
                tap.equal(sluice(broker, "job", *words).returncode, 0, " ".join(words))
            tap.wait_until(lambda: not lives(pid), 30, "its process is ended")
            tap.wait_until(
                lambda: shown(broker, "one")["state"] == "CANCELED", 30, "and it is cancelled"
            )


def test_a_cancel_whose_notice_is_lost_is_found_by_comparison():
    notices_are_lost((("cancel", "one"),))


def test_a_reset_whose_notice_is_lost_is_found_by_comparison():
    notices_are_lost((("reset", "one", "--force"), ("cancel", "one")))


def test_a_delivery_that_is_lost_is_found_by_comparison():
    lost = []

    def first_delivery(kind):
        if kind == DELIVER and not lost:
            lost.append(kind)
            return True
        return False

    with tap.Scratch() as spool, tap.Broker() as broker:
        queue(broker)
        proxy = LosingProxy(broker.port, lambda request: False, drops=first_delivery)
        with contextlib.closing(proxy.listener), outside(proxy, spool, compare_ms=300) as process:
            waits(process, "id=local.ready")
            tap.equal(run(broker, "one", "true"), "COMPLETE", "its state")
            tap.equal(len(lost), 1, "its delivery was lost")


def test_a_lost_delivery_that_is_taken_in_keeps_its_lifecycle_and_the_ledger_is_asked_for_our_own():
    """The queue's settings do not fit 'wide', so the scheduler knows no state of it; it learned
    those of 'gateway' by the first job."""
    lists, deliveries = [], []

    def second_delivery(kind):
        deliveries.extend([kind] if kind == DELIVER else [])
        return kind == DELIVER and len(deliveries) == 2

    def watch(request):
        if request.WhichOneof("op") == "job_list":
            lists.append(request.job_list.holder_session)
        return False

    with tap.Scratch() as spool, tap.Broker() as broker:
        lifecycle(broker, GATEWAY)
        queue(broker)
        proxy = LosingProxy(broker.port, watch, drops=second_delivery)
        with contextlib.closing(proxy.listener), outside(proxy, spool, compare_ms=300) as process:
            waits(process, "id=local.ready")
            for name in ("first", "second"):
                done = sluice(
                    broker,
                    "job",
                    "submit",
                    "--id",
                    name,
                    "--queue",
                    "runs",
                    "--lifecycle",
                    "gateway",
                    '{"argv":["true"]}',
                )
                tap.equal(done.returncode, 0, f"submit: {done.stderr}")
                tap.equal(ended(broker, name), "DONE", "its state")
            waits(process, "id=local.compare")
            tap.equal(
                process.text().count(b"id=local.report_quarantined"),
                1,
                "the second one's end was reported in its own states at once",
            )
        tap.check(lists and 0 not in lists, f"each list is of what the session holds: {lists[:5]}")


def test_a_cancel_while_the_scheduler_is_cut_off_ends_the_job_after_the_resume():
    with tap.Scratch() as top, tap.Scratch() as data:
        mark = os.path.join(top, "pid")
        with tap.Broker(data=data) as broker:
            queue(broker)
            port = broker.port
            stack = contextlib.ExitStack()
            process = stack.enter_context(
                outside(broker, os.path.join(top, "spool"), session_timeout_ms=60000)
            )
            submit(broker, "one", "sh", "-c", f"echo $$ >>{mark}; exec sleep 1000")
            tap.wait_until(
                lambda: shown(broker, "one")["state"] == "ACTIVE" and os.path.exists(mark),
                30,
                "it runs",
            )
            os.kill(process.pid, signal.SIGSTOP)
        with stack, tap.Broker(data=data, port=port) as broker:
            tap.equal(sluice(broker, "job", "cancel", "one").returncode, 0, "cancel")
            os.kill(process.pid, signal.SIGCONT)
            tap.equal(ended(broker, "one"), "CANCELED", "its state")


# ---- sources ----


def test_a_job_goes_back_to_the_machine_that_can_judge_it():
    """Two machines on one queue, a spool each: the one that is away for longer than its session's
    timeout finds its jobs again."""
    with tap.Scratch() as top, tap.Broker() as broker:
        queue(broker)
        go = os.path.join(top, "go")
        first = {
            "spool": os.path.join(top, "first"),
            "session": "first",
            "session_timeout_ms": 1000,
        }
        second = {"spool": os.path.join(top, "second"), "session": "second", "slots": 1}
        with outside(broker, **first):
            for name in ("good", "bad"):
                submit(
                    broker,
                    name,
                    "sh",
                    "-c",
                    f"until [ -e {go} ]; do sleep 0.05; done; [ $SLUICE_JOB = good ]",
                )
                tap.wait_until(lambda: shown(broker, name)["state"] == "ACTIVE", 30, f"{name} runs")
        with outside(broker, **second) as other:
            for name in ("good", "bad"):
                tap.wait_until(
                    lambda: shown(broker, name)["claim"] == "orphaned", 60, f"{name} is an orphan"
                )
            tap.equal(
                run(broker, "its-own", "true"),
                "COMPLETE",
                "the second machine has its slot free for a job of its own",
            )
            tap.equal(
                [shown(broker, name)["claim"] for name in ("good", "bad")],
                ["orphaned", "orphaned"],
                "and did not get a job of the other",
            )
            tap.check(b"id=local.foreign_intent" not in other.text(), "nor asked about one")
            open(go, "wb").close()
            with outside(broker, **first):
                tap.equal(
                    [ended(broker, name) for name in ("good", "bad")],
                    ["COMPLETE", "FAILED"],
                    "the first one reports their ends",
                )
        tap.check("0 findings" in sluice(broker, "audit").stdout, "audit")


def test_a_source_may_be_named():
    with tap.Scratch() as spool, tap.Broker() as broker:
        queue(broker)
        with outside(broker, spool, source="local:node-7"):
            tap.equal(run(broker, "one", "true"), "COMPLETE", "its state")
            tap.equal(shown(broker, "one")["source"], "local:node-7", "who said so")


tap.main(globals())
