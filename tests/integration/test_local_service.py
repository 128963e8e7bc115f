#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `local` scheduler as a service: what it waits for, what ends it, its messages, and that
notifications of the ledger reach it despite broken connections."""
import contextlib
import errno
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
    run,
    shepherds,
    shown,
    sluice,
    submit,
)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import DELIVER, NOTICE  # noqa: E402


def waits(process, text):
    tap.wait_until(lambda: text.encode() in process.text(), 30, f"the log says: {text}")


def queue(broker, *args, name="runs"):
    done = sluice(broker, "queue", "create", name, "--jobs", *args)
    tap.equal(done.returncode, 0, f"queue create: {done.stderr}")


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


# ---- evidence ----


def ends_unheard(broker, top):
    """Job `one` ends with 9 while its scheduler is away: the spool, and the job's status file."""
    queue(broker)
    spool, go = os.path.join(top, "spool"), os.path.join(top, "go")
    with outside(broker, spool):
        submit(broker, "one", "sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done; exit 9")
        tap.wait_until(lambda: shown(broker, "one")["state"] == "ACTIVE", 30, "it runs")
    open(go, "wb").close()
    status = os.path.join(attempt(spool, "one"), "status")
    tap.wait_until(lambda: os.path.exists(status), 30, "it ends")
    return spool, status


def test_an_end_that_is_heard_late_has_its_own_times():
    """The scheduler is not running when the job ends; its later report has the time of the end, not
    of the report."""
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, status = ends_unheard(broker, top)
        # As if it had ended an hour ago, after ten minutes.
        with open(status, encoding="ascii") as file:
            words = file.read().split(" ")
        ended_ms = int(words[3]) - 3600_000
        words[3], words[4] = str(ended_ms), str(ended_ms - 600_000)
        with open(status, "w", encoding="ascii") as file:
            file.write(" ".join(words))
        with outside(broker, spool):
            tap.equal(ended(broker, "one"), "FAILED", "its state")
        one = shown(broker, "one")
        tap.equal(
            [int(one[key]) for key in ("ended_time_ms", "started_time_ms", "exit_code")],
            [ended_ms, ended_ms - 600_000, 9],
            "when and how it ended",
        )
        tap.check(
            one.get("exited") is True and int(one["memory_peak_bytes"]) > 100_000,
            f"it exited, and its memory: {one}",
        )


def test_an_exit_code_is_given_only_by_what_exited():
    with tap.Scratch() as spool, tap.Broker() as broker:
        queue(broker)
        with outside(broker, spool):
            for name, argv, exited, sig in (
                ("exits", ["sh", "-c", "exit 3"], True, 0),
                ("killed", ["sh", "-c", "kill -9 $$"], False, 9),
                ("never", ["/no/such/program"], False, 0),
            ):
                tap.equal(run(broker, name, *argv), "FAILED", f"state of {name}")
                one = shown(broker, name)
                tap.equal(
                    (one.get("exited", False), int(one.get("signal", 0)), "exit_code" in one),
                    (exited, sig, exited),
                    f"{name}: {one}",
                )


def test_a_lost_job_names_and_ends_what_it_left():
    with tap.Scratch() as top, tap.Broker() as broker:
        queue(broker)
        spool, mark = os.path.join(top, "spool"), os.path.join(top, "left")
        with outside(broker, spool):
            submit(
                broker,
                "one",
                "sh",
                "-c",
                f"setsid sh -c 'echo $$ >{mark}; exec sleep 1000' & sleep 1000",
            )
            tap.wait_until(
                lambda: shown(broker, "one")["state"] == "ACTIVE"
                and os.path.exists(mark)
                and os.path.getsize(mark) > 0,
                30,
                "it runs",
            )
            with open(os.path.join(attempt(spool, "one"), "start"), encoding="ascii") as file:
                pid, _, shepherd, _ = file.read().split(" ", 3)
            os.kill(int(shepherd), signal.SIGKILL)
            os.killpg(int(pid), signal.SIGKILL)
            tap.equal(ended(broker, "one"), "FAILED", "its state")
            with open(mark, encoding="ascii") as file:
                left = int(file.read())
            evidence = shown(broker, "one")["evidence"]
            tap.check(
                evidence.startswith("lost: ") and f"sleep({left})" in evidence,
                f"evidence: {evidence}",
            )
            tap.wait_until(lambda: not lives(left), 30, "and it is ended")


def test_a_job_whose_shepherd_is_killed_goes_on_and_its_end_says_so():
    with tap.Scratch() as top, tap.Broker() as broker:
        queue(broker)
        spool, go = os.path.join(top, "spool"), os.path.join(top, "go")

        def shepherd_dies(name):
            with open(os.path.join(attempt(spool, name), "start"), encoding="ascii") as file:
                os.kill(int(file.read().split(" ", 3)[2]), signal.SIGKILL)

        with outside(broker, spool) as process:
            # A child in its group, one that left it, and itself.
            script = (
                "echo $$ >pids; sleep 1000 & echo $! >>pids; setsid sh -c 'echo $$ >>pids; exec"
                " sleep 1000' & "
            )
            for name, more, timeout_ms in (
                ("ends", f"until [ -e {go} ]; do sleep 0.05; done", 0),
                ("late", "trap '' TERM; while :; do sleep 0.05; done", 1500),
                ("cancelled", "sleep 1000", 0),
            ):
                payload = {
                    "argv": [
                        "sh",
                        "-c",
                        script
                        + "until [ $(wc -l <pids) = 3 ]; do sleep 0.05; done; echo >ready; "
                        + more,
                    ]
                }
                payload.update({"timeout_ms": timeout_ms} if timeout_ms else {})
                done = sluice(
                    broker, "job", "submit", "--id", name, "--queue", "runs", json.dumps(payload)
                )
                tap.equal(done.returncode, 0, f"submit: {done.stderr}")
            for name, word in (("late", "FAILED"), ("ends", "FAILED"), ("cancelled", "CANCELED")):
                tap.wait_until(
                    lambda: attempt(spool, name)
                    and os.path.exists(os.path.join(attempt(spool, name), "work/ready")),
                    30,
                    f"{name} runs",
                )
                with open(
                    os.path.join(attempt(spool, name), "work/pids"), encoding="ascii"
                ) as file:
                    pids = file.read().split()
                shepherd_dies(name)
                tap.wait_until(
                    lambda: "its shepherd was killed: its process continues"
                    in shown(broker, name)["evidence"],
                    30,
                    "it is told",
                )
                tap.equal(shown(broker, name)["state"], "ACTIVE", "and the job goes on")
                if name == "ends":
                    open(go, "wb").close()
                elif name == "cancelled":
                    tap.equal(sluice(broker, "job", "cancel", name).returncode, 0, "cancel")
                tap.equal(ended(broker, name), word, f"state of {name}")
                evidence = shown(broker, name)["evidence"]
                tap.check(
                    evidence.startswith(
                        "lost: it was started, its shepherd was killed, its process is gone and its"
                        " exit status is not known"
                    ),
                    evidence,
                )
                tap.check(
                    ("timeout of 1500 ms (timeout_ms of its payload)" in evidence)
                    == (name == "late"),
                    f"{name}: {evidence}",
                )
                tap.check(
                    ("cancel was requested" in evidence) == (name == "cancelled"),
                    f"{name}: {evidence}",
                )
                tap.wait_until(
                    lambda: not any(lives(pid) for pid in pids),
                    30,
                    f"none of its processes is left: {pids}",
                )
                tap.equal(
                    shown(broker, name).get("exited", False), False, "and there is no exit code"
                )
            tap.equal(process.text().count(b"id=local.shepherd"), 3, "each is logged once")


def test_a_job_that_stops_its_shepherd_ends_all_the_same():
    with tap.Scratch() as spool, tap.Broker() as broker:
        queue(broker)
        with outside(broker, spool, compare_ms=300):
            tap.equal(
                run(broker, "ends", "sh", "-c", "kill -STOP $PPID; exit 3"), "FAILED", "its state"
            )
            tap.equal(shown(broker, "ends")["exit_code"], 3, "its exit code")


def parent_and_session(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        words = file.read().rsplit(")", 1)[1].split()
    return int(words[1]), int(words[3])


def test_a_shepherd_that_is_killed_before_the_start_mark_is_there_starts_nothing():
    """Its child then gets another parent, which would be taken for a shepherd that never ends."""
    tap.not_sanitized("the preloaded library would come before the sanitizer's")
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, gate, ran = (os.path.join(top, name) for name in ("spool", "gate", "ran"))
        queue(broker)
        # The mark cannot be made: the job's process tries that again for some seconds.
        with open(gate, "w", encoding="ascii") as file:
            file.write(f"link {errno.ENOSPC} start")
        env = {
            **os.environ,
            "LD_PRELOAD": os.path.join(tap.BUILD, "tests/integration/fail_gate.so"),
            "FAIL_GATE": gate,
        }
        with outside(broker, spool, env=env):
            submit(broker, "one", "sh", "-c", f"echo x >>{ran}")

            def shepherd():
                """Both are session leaders, unlike the process that started the shepherd."""
                found = {}
                for pid in shepherds(spool):
                    with contextlib.suppress(OSError):
                        found[pid] = parent_and_session(pid)
                return [
                    above
                    for pid, (above, session) in found.items()
                    if session == pid and found.get(above, (0, 0))[1] == above
                ]

            pid = tap.wait_until(shepherd, 30, "shepherd and child are there")[0]
            os.kill(pid, signal.SIGKILL)
            os.unlink(gate)
            # Started again; or lost, if the shepherd was killed while the mark was made.
            state = ended(broker, "one")
            tap.check(state in ("COMPLETE", "FAILED"), f"it ends: {state}")
            with open(ran, encoding="ascii") as file:
                tap.equal(file.read(), "x\n", "it ran once")


def test_the_signal_that_ended_a_job_is_said_once():
    with tap.Scratch() as spool, tap.Broker() as broker:
        queue(broker)
        with outside(broker, spool):
            submit(broker, "one", "sleep", "1000")
            tap.wait_until(lambda: shown(broker, "one")["state"] == "ACTIVE", 30, "it runs")
            tap.equal(sluice(broker, "job", "cancel", "one").returncode, 0, "cancel")
            tap.equal(ended(broker, "one"), "CANCELED", "its state")
            tap.equal(
                shown(broker, "one")["evidence"],
                "ended by SIGTERM (Terminated), cancel was requested",
                "its evidence",
            )
            text = sluice(broker, "job", "explain", "one").stdout
            tap.equal(text.count("signal 15"), 1, f"explain: {text}")


def test_a_wall_clock_that_is_set_while_a_job_runs_keeps_its_times_in_order():
    tap.not_sanitized("a sanitizer's library must be the first that is preloaded")
    hour, timeout_ms = 3600, 1500
    with tap.Scratch() as top, tap.Broker() as broker:
        queue(broker)
        clock, go = os.path.join(top, "clock"), os.path.join(top, "go")
        env = {
            **os.environ,
            "LD_PRELOAD": tap.plain(os.path.join(tap.BUILD, "tests/support/false_clock.so")),
            "FALSE_CLOCK": clock,
        }

        def set_clock(seconds):
            with open(clock + ".new", "w", encoding="ascii") as file:
                file.write(f"{seconds} 0\n")
            os.rename(clock + ".new", clock)

        set_clock(0)
        with outside(broker, os.path.join(top, "spool"), env=env):
            for name, seconds in (("back", -hour), ("on", hour)):
                set_clock(0 if seconds < 0 else -2 * hour)
                if os.path.exists(go):
                    os.unlink(go)
                submit(broker, name, "sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done")
                done = sluice(
                    broker,
                    "job",
                    "submit",
                    "--id",
                    name + "-late",
                    "--queue",
                    "runs",
                    json.dumps({"argv": ["sleep", "1000"], "timeout_ms": timeout_ms}),
                )
                tap.equal(done.returncode, 0, "submit")
                for job in (name, name + "-late"):
                    tap.wait_until(
                        lambda: shown(broker, job)["state"] == "ACTIVE", 30, f"{job} runs"
                    )
                set_clock(seconds if seconds < 0 else -hour)
                open(go, "wb").close()
                tap.equal(
                    [ended(broker, name), ended(broker, name + "-late")],
                    ["COMPLETE", "FAILED"],
                    "their states",
                )
                for job in (name, name + "-late"):
                    one = shown(broker, job)
                    ran_ms = int(one["ended_time_ms"]) - int(one["started_time_ms"])
                    tap.check(0 <= ran_ms < 60000, f"{job} ran for {ran_ms} ms")
                    if job != name:
                        tap.check(
                            ran_ms >= timeout_ms and "ended by its timeout" in one["evidence"],
                            f"its timeout is measured by a clock that cannot be set: {one}",
                        )


def test_the_end_of_a_job_that_filled_the_disk_is_reported():
    """No new file can be created then: the room for its status was allocated before the start."""
    tap.not_sanitized("the preloaded library would come before the sanitizer's")
    with tap.Scratch() as top, tap.Broker() as broker:
        gate, go = os.path.join(top, "gate"), os.path.join(top, "go")
        queue(broker)
        env = {
            **os.environ,
            "LD_PRELOAD": os.path.join(tap.BUILD, "tests/integration/fail_gate.so"),
            "FAIL_GATE": gate,
        }
        with outside(broker, os.path.join(top, "spool"), env=env):
            submit(broker, "one", "sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done; exit 5")
            tap.wait_until(lambda: shown(broker, "one")["state"] == "ACTIVE", 30, "it runs")
            with open(gate, "w", encoding="ascii") as file:
                file.write(f"open {errno.ENOSPC} status.")
            open(go, "wb").close()
            tap.equal(ended(broker, "one"), "FAILED", "its state")
            tap.equal(shown(broker, "one")["exit_code"], 5, "and its exit code")


def test_a_cause_whose_report_was_refused_is_reported_again():
    """The report of the reason why it waits is lost together with its lease: it is repeated under
    the next lease."""
    tap.not_sanitized("the preloaded library would come before the sanitizer's")
    with tap.Scratch() as top, tap.Broker() as broker:
        queue(broker)
        gate = os.path.join(top, "gate")
        with open(gate, "w", encoding="ascii") as file:
            file.write(f"posix_spawn {errno.EAGAIN} sluice-shepherd")
        proxy = LosingProxy(
            broker.port,
            lambda request: request.WhichOneof("op") == "job_report"
            and "not started yet" in request.job_report.evidence,
        )
        env = {
            **os.environ,
            "LD_PRELOAD": os.path.join(tap.BUILD, "tests/integration/fail_gate.so"),
            "FAIL_GATE": gate,
        }
        with contextlib.closing(proxy.listener), outside(
            proxy, os.path.join(top, "spool"), env=env, session_timeout_ms=1000
        ) as process:
            submit(broker, "one", "true")
            tap.check(proxy.lost.wait(30), "the report is lost")
            tap.wait_until(
                lambda: shown(broker, "one")["claim"] == "orphaned", 60, "and its session ends"
            )
            proxy.open.set()
            waits(process, "id=local.report_refused")
            tap.wait_until(
                lambda: "cannot start the shepherd" in shown(broker, "one").get("evidence", ""),
                60,
                "why it waits is known",
            )
            os.unlink(gate)
            tap.equal(ended(broker, "one"), "COMPLETE", "its state")


def test_output_beyond_the_setting_ends_a_job_with_the_reason():
    with tap.Scratch() as spool, tap.Broker() as broker:
        queue(broker)
        with outside(broker, spool, output_max_kib=64):
            tap.equal(run(broker, "loud", "yes"), "FAILED", "its state")
            evidence = shown(broker, "loud")["evidence"]
            tap.check(
                "output exceeded 64 KiB" in evidence and "output_max_kib" in evidence,
                f"evidence: {evidence}",
            )
            tap.equal(
                os.path.getsize(os.path.join(attempt(spool, "loud"), "out")),
                65536,
                "remaining bytes of its output",
            )


def test_a_job_that_filled_the_spools_disk_is_ended_with_the_reason():
    """What the shepherd measures and does is in tests/unit/test_shepherd_job.c; here a status file
    stands for the shepherd."""
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, status = ends_unheard(broker, top)
        with open(status, encoding="ascii") as file:
            text = file.read()
        with open(status, "w", encoding="ascii") as file:
            file.write(text.replace("2 exit 9 ", "2 work 2048 "))
        with outside(broker, spool):
            tap.equal(ended(broker, "one"), "FAILED", "its state")
        evidence = shown(broker, "one")["evidence"]
        tap.check(
            "its working directory had 2048 KiB and the spool's disk was nearly full; the directory"
            " was deleted"
            in evidence,
            f"evidence: {evidence}",
        )
        tap.check("exit_code" not in shown(broker, "one"), "it has no exit code of its own")


def test_a_job_knows_who_it_is_and_nothing_of_the_service_manager():
    with tap.Scratch() as spool, tap.Broker() as broker:
        queue(broker)
        names = (
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "WATCHDOG_USEC",
            "INVOCATION_ID",
            "JOURNAL_STREAM",
            "CREDENTIALS_DIRECTORY",
            "SLUICE_NOFILE_SOFT",
        )
        with outside(broker, spool, env={**os.environ, **{name: "1" for name in names}}):
            tap.equal(run(broker, "who", "env"), "COMPLETE", "its state")
            with open(os.path.join(attempt(spool, "who"), "out"), encoding="utf-8") as file:
                env = dict(line.split("=", 1) for line in file.read().splitlines() if "=" in line)
            tap.equal([name for name in names if name in env], [], "which of these it inherits")
            tap.equal(
                [env.get("SLUICE_JOB"), env.get("SLUICE_ATTEMPT")],
                ["who", "1"],
                "its id and attempt",
            )
            tap.equal(env.get("SLUICE_TAG"), shown(broker, "who")["tag"], "its tag")


# ---- each failing step is named, with the cause ----

STEPS = [
    ("getrandom", errno.EAGAIN, "", "read random bytes"),
    ("mkdir", errno.ENOSPC, "one", "create directory"),
    ("mkdir", errno.EROFS, "one", "create directory"),
    ("mkdir", errno.ENOSPC, "work", "create directory"),
    ("open", errno.ENOSPC, "reserve", "create"),
    ("open", errno.EACCES, "job.json", "create"),
    ("open", errno.EMFILE, "job.json", "create"),
    ("rename", errno.EIO, "job.json", "rename to"),
    ("link", errno.ENOSPC, "start", "link"),
    ("fsync", errno.EIO, "", "sync"),
    ("pipe2", errno.EMFILE, "", "create a pipe to the shepherd"),
    ("posix_spawn", errno.EAGAIN, "sluice-shepherd", "start the shepherd"),
    ("posix_spawn", errno.ENOEXEC, "sluice-shepherd", "start the shepherd"),
    ("fork", errno.EAGAIN, "sluice-shepherd", "the shepherd cannot fork"),
    ("open", errno.ENFILE, "/dev/null", "the shepherd cannot open /dev/null"),
]


def test_a_step_that_fails_is_named_with_its_cause_and_tried_again():
    gate_so = os.path.join(tap.BUILD, "tests/integration/fail_gate.so")
    tap.not_sanitized("the preloaded library would come before the sanitizer's")
    with tap.Scratch() as top, tap.Broker() as broker:
        gate = os.path.join(top, "gate")
        queue(broker)
        env = {**os.environ, "LD_PRELOAD": gate_so, "FAIL_GATE": gate}
        with outside(broker, os.path.join(top, "spool"), env=env) as process:
            waits(process, "id=local.ready")
            for number, (call, code, part, text) in enumerate(STEPS):
                name = f"one{number}"
                with open(gate + ".new", "w", encoding="ascii") as file:
                    file.write(f"{call} {code} {part}")
                os.rename(gate + ".new", gate)
                submit(broker, name, "true")

                def told():
                    evidence = shown(broker, name).get("evidence", "")
                    return text in evidence and f"({errno.errorcode[code]})" in evidence

                tap.wait_until(
                    told,
                    30,
                    (
                        f"{call} {errno.errorcode[code]} is reported as '{text}':"
                        f" {process.text().decode()[-600:]}"
                    ),
                )
                os.unlink(gate)
                tap.equal(ended(broker, name), "COMPLETE", f"{name} runs when {call} works again")
                tap.check(f"{name}: ".encode() in process.text(), "the log has it, too")


def test_a_process_that_cannot_be_ended_is_told_and_tried_again():
    tap.not_sanitized("the preloaded library would come before the sanitizer's")
    with tap.Scratch() as top, tap.Broker() as broker:
        gate = os.path.join(top, "gate")
        queue(broker)
        env = {
            **os.environ,
            "LD_PRELOAD": os.path.join(tap.BUILD, "tests/integration/fail_gate.so"),
            "FAIL_GATE": gate,
        }
        with outside(broker, os.path.join(top, "spool"), env=env) as process:
            submit(broker, "one", "sleep", "1000")
            tap.wait_until(lambda: shown(broker, "one")["state"] == "ACTIVE", 30, "it runs")
            with open(gate, "w", encoding="ascii") as file:
                file.write(f"kill {errno.EPERM}")
            tap.equal(sluice(broker, "job", "cancel", "one").returncode, 0, "cancel")
            tap.wait_until(
                lambda: "it is not ended: cannot signal the processes of"
                in shown(broker, "one")["evidence"],
                30,
                "it is told",
            )
            tap.check("(EPERM)" in shown(broker, "one")["evidence"], "with the cause")
            waits(process, "id=local.stubborn")
            os.unlink(gate)
            tap.equal(ended(broker, "one"), "CANCELED", "its state, when it can be ended")


def test_programs_that_cannot_be_run_say_why():
    with tap.Scratch() as top, tap.Broker() as broker:
        queue(broker)
        alien = os.path.join(top, "alien")
        with open(alien, "wb") as file:
            file.write(b"\x7fELF\0\1")
        os.chmod(alien, 0o700)
        with outside(broker, os.path.join(top, "spool")):
            for number, (payload, text) in enumerate(
                (
                    (
                        {"argv": ["/no/such/program"]},
                        (
                            "not started: the program /no/such/program: No such file or directory"
                            " (ENOENT)"
                        ),
                    ),
                    (
                        {"argv": ["/etc/passwd"]},
                        "not started: the program /etc/passwd: Permission denied (EACCES)",
                    ),
                    (
                        {"argv": [alien]},
                        f"not started: the program {alien}: Exec format error (ENOEXEC)",
                    ),
                    ({"argv": ["/" + "x" * 300]}, "File name too long (ENAMETOOLONG)"),
                    (
                        {"argv": ["true"], "cwd": "/no/such/place"},
                        (
                            "not started: its working directory /no/such/place: No such file or"
                            " directory (ENOENT)"
                        ),
                    ),
                    (
                        {"argv": ["true"], "stdin": "/no/such/input"},
                        (
                            "not started: its standard input /no/such/input: No such file or"
                            " directory (ENOENT)"
                        ),
                    ),
                    ({"argv": ["true"], "args": 1}, "unknown member 'args'"),
                )
            ):
                done = sluice(
                    broker,
                    "job",
                    "submit",
                    "--id",
                    f"no{number}",
                    "--queue",
                    "runs",
                    json.dumps(payload),
                )
                tap.equal(done.returncode, 0, "submit")
                tap.equal(ended(broker, f"no{number}"), "FAILED", "its state")
                evidence = shown(broker, f"no{number}")["evidence"]
                tap.check(text in evidence, f"evidence '{evidence}' has '{text}'")


def test_arguments_that_are_too_long_are_refused_with_the_bound_and_what_sets_it():
    with tap.Scratch() as top, tap.Broker() as broker:
        queue(broker)
        payload = os.path.join(top, "payload")
        with open(payload, "w", encoding="ascii") as file:
            json.dump({"argv": ["/bin/true", *["w" * 60000] * 4]}, file)
        with outside(
            broker,
            os.path.join(top, "spool"),
            before=("sh", "-c", 'ulimit -Ss 512 && exec "$@"', "sh"),
        ):
            done = sluice(broker, "job", "submit", "--id", "long", "--queue", "runs", "@" + payload)
            tap.equal(done.returncode, 0, f"submit: {done.stderr}")
            tap.equal(ended(broker, "long"), "FAILED", "its state")
            evidence = shown(broker, "long")["evidence"]
            for part in (
                "not started: the program /bin/true: Argument list too long (E2BIG)",
                "argv and env of the payload have 240014 bytes",
                "a quarter of the stack limit, which is 512 KiB (ulimit -s of the scheduler)",
            ):
                tap.check(part in evidence, f"evidence '{evidence}' has '{part}'")
            tap.equal(run(broker, "short", "true"), "COMPLETE", "another one runs")


tap.main(globals())
