#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `local` scheduler beside others: processes and attempts with which it shares a broker."""
import contextlib
import errno
import itertools
import json
import os
import shutil
import signal
import sys

import tap

from local_rig import (
    LosingProxy,
    attempt,
    attempt_mark,
    attempts,
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
from client import TO_QUEUE, Connection, envelope  # noqa: E402


def zombies(pid):
    """Children of a process that have ended and were not waited for."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{int(name)}/stat", encoding="utf-8") as file:
                state, parent = file.read().rsplit(")", 1)[1].split()[:2]
            if int(parent) == pid and state == "Z":
                found.append(int(name))
    return found


def test_children_of_other_plugins_are_left_to_them():
    child = os.path.join(tap.BUILD, "tests/integration/child.so")
    with tap.Scratch() as top:
        ask = os.path.join(top, "ask")
        with inside(os.path.join(top, "spool"), f"{child} ask={ask}") as broker:
            tap.wait_until(
                lambda: b"id=child.ended" in broker.text(), 30, "the other plugin's child has ended"
            )
            # While these run, the scheduler's loop runs and waits for the processes that it
            # started.
            for name in ("a", "b", "c"):
                tap.equal(run(broker, name, "true"), "COMPLETE", f"job {name}")
            open(ask, "wb").close()
            tap.wait_until(
                lambda: b"id=child.kept" in broker.text() or b"id=child.taken" in broker.text(),
                30,
                "the other plugin has checked",
            )
            tap.check(
                b"id=child.kept" in broker.text(), "its child was not waited for by the scheduler"
            )
            tap.wait_until(
                lambda: zombies(broker.pid) == [],
                30,
                "and the scheduler waited for its own processes",
            )


# What a job may do to the directory of its attempt ($p) while it runs. The shepherd may restore the
# directory between two commands.
AGAIN = "n=0; until [ {what} ]; do n=$((n+1)); mv {path} {{top}}/moved$n; {put}; done"
TAKES = [
    AGAIN.format(what="-L $p", path="$p", put="ln -s {named} $p"),
    AGAIN.format(what="-f $p", path="$p", put="echo >$p"),
    AGAIN.format(what="-L $q", path="$q", put="ln -s {named} $q"),
    "rm -rf $p",
    "rm -f $p/start",
]


def test_an_attempt_whose_directory_its_job_took_away_runs_once_and_can_be_cancelled():
    for number, take in enumerate(TAKES):
        with tap.Scratch() as top, tap.Broker() as broker:
            spool, named, ran = (os.path.join(top, name) for name in ("spool", "named", "ran"))
            os.mkdir(named)
            tap.equal(
                sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create"
            )
            script = (
                f"echo x >>{ran}; case $PWD in */work) cd ..; p=$PWD; q=${{p%/*}}; cd /;"
                f" {take.format(top=top, named=named)};; *) exit 9;; esac; echo y >>{ran}; exec"
                " sleep 1000"
            )
            with outside(broker, spool, keep_ms=604800000) as process:
                submit(broker, "takes", "sh", "-c", script)
                tap.wait_until(
                    lambda: os.path.exists(ran) and open(ran, encoding="ascii").read() == "x\ny\n",
                    30,
                    "it runs",
                )
                tap.wait_until(lambda: attempt_mark(spool), 30, f"its mark comes back after {take}")
                process.kill()
            with outside(broker, spool) as process:
                tap.wait_until(
                    lambda: b"id=local.ready" in process.text(), 30, "another one is there"
                )
                tap.wait_until(
                    lambda: shown(broker, "takes")["claim"] == "leased", 30, "and has it"
                )
                tap.equal(sluice(broker, "job", "cancel", "takes").returncode, 0, "cancel")
                tap.equal(
                    ended(broker, "takes"), "CANCELED", f"its state after {take}: {process.tail()}"
                )
                tap.equal(
                    "was not followed" in shown(broker, "takes")["evidence"],
                    number < 3,
                    f"its evidence: {shown(broker, 'takes')['evidence']}",
                )
            with open(ran, encoding="ascii") as file:
                tap.equal(file.read(), "x\ny\n", "it ran once")
            tap.equal(os.listdir(named), [], "nothing was written where a link points")


def test_a_job_that_takes_its_mark_away_before_that_was_seen_runs_once():
    """The scheduler is stopped from before the mark is made until it has been removed."""
    tap.not_sanitized("the preloaded library would come before the sanitizer's")
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, ran, gate = (os.path.join(top, name) for name in ("spool", "ran", "gate"))
        tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        env = {
            **os.environ,
            "LD_PRELOAD": tap.plain(os.path.join(tap.BUILD, "tests/integration/fail_gate.so")),
            "FAIL_GATE": gate,
        }
        with outside(broker, spool, env=env) as process:
            tap.wait_until(lambda: b"id=local.ready" in process.text(), 30, "it is there")
            with open(gate, "w", encoding="ascii") as file:
                file.write(f"link {errno.ENOSPC} start")
            submit(
                broker,
                "one",
                "sh",
                "-c",
                f"echo x >>{ran}; cd ..; rm -f start; echo y >>{ran}; exec sleep 1000",
            )
            tap.wait_until(
                lambda: shepherds(spool),
                30,
                "its shepherd runs, and the job waits for room for its mark",
            )
            os.kill(process.pid, signal.SIGSTOP)
            os.unlink(gate)
            tap.wait_until(
                lambda: os.path.exists(ran) and open(ran, encoding="ascii").read() == "x\ny\n",
                30,
                "it has taken the mark and removed it",
            )
            os.kill(process.pid, signal.SIGCONT)
            tap.wait_until(
                lambda: shown(broker, "one")["state"] == "ACTIVE", 30, f"it runs: {process.tail()}"
            )
            tap.equal(sluice(broker, "job", "cancel", "one").returncode, 0, "cancel")
            tap.equal(ended(broker, "one"), "CANCELED", f"its state: {process.tail()}")
        with open(ran, encoding="ascii") as file:
            tap.equal(file.read(), "x\ny\n", "it ran once")


def test_a_scheduler_that_takes_over_a_job_without_its_mark_does_not_start_it_again():
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, ran = os.path.join(top, "spool"), os.path.join(top, "ran")
        tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        with outside(broker, spool) as process:
            submit(broker, "one", "sh", "-c", f"echo x >>{ran}; exec sleep 1000")
            tap.wait_until(
                lambda: shown(broker, "one")["state"] == "ACTIVE" and os.path.exists(ran),
                30,
                "it runs",
            )
            process.kill()
        shepherd = shepherds(spool)[0]
        os.kill(shepherd, signal.SIGSTOP)
        os.unlink(os.path.join(attempt(spool, "one"), "start"))
        with outside(broker, spool) as process:
            tap.wait_until(lambda: b"id=local.ready" in process.text(), 30, "another one is there")
            tap.wait_until(lambda: shown(broker, "one")["claim"] == "leased", 30, "and has it")
            os.kill(shepherd, signal.SIGCONT)
            tap.wait_until(lambda: attempt_mark(spool), 30, "the mark comes back")
            tap.equal(sluice(broker, "job", "cancel", "one").returncode, 0, "cancel")
            tap.equal(ended(broker, "one"), "CANCELED", f"its state: {process.tail()}")
        with open(ran, encoding="ascii") as file:
            tap.equal(file.read(), "x\n", "it ran once")


def test_a_link_that_stays_because_its_shepherd_was_killed_ends_the_job_as_lost():
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, named = os.path.join(top, "spool"), os.path.join(top, "named")
        os.mkdir(named)
        tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        with outside(broker, spool, keep_ms=0) as process:
            submit(broker, "one", "sh", "-c", "exec sleep 1000")
            tap.wait_until(lambda: attempt(spool, "one") and shepherds(spool), 30, "it runs")
            tap.wait_until(lambda: shown(broker, "one")["state"] == "ACTIVE", 30, "and is reported")
            folder = attempt(spool, "one")
            with open(os.path.join(folder, "start"), encoding="ascii") as file:
                pid = int(file.read().split()[0])
            for one in shepherds(spool):
                os.kill(one, signal.SIGSTOP)
            os.rename(folder, os.path.join(top, "moved"))
            os.symlink(named, folder)
            for one in shepherds(spool):
                os.kill(one, signal.SIGKILL)
            tap.equal(ended(broker, "one"), "FAILED", f"its state: {process.tail()}")
            why = "a link or a file is in the place of its attempt's directory"
            tap.check(
                why in shown(broker, "one")["evidence"],
                f"its evidence: {shown(broker, 'one')['evidence']}",
            )
            tap.check(
                f"open directory (a link or a file is in its place) {folder}".encode()
                in process.text(),
                f"the log names it: {process.tail()}",
            )
            tap.wait_until(lambda: not lives(pid), 30, "its process is ended")
            tap.equal(os.listdir(named), [], "nothing was written where it points")


def test_an_id_that_comes_again_in_a_new_store_runs_again():
    with tap.Scratch() as spool:
        mark = os.path.join(spool, "ran")
        for times in (1, 2):
            with inside(spool) as broker:
                tap.equal(
                    run(broker, "same", "sh", "-c", f"echo x >>{mark}"),
                    "COMPLETE",
                    f"its state, time {times}",
                )
                with open(mark, encoding="ascii") as file:
                    tap.equal(
                        len(file.readlines()),
                        times,
                        "it ran, and the first attempt's files do not end it",
                    )


def test_an_intent_of_another_scheduler_is_left_alone():
    with tap.Scratch() as spool, tap.Broker() as broker:
        with Connection(broker.port) as other:
            other.call("queue_create", config={"name": "runs", "kind": 1})
            other.call("job_submit", job="theirs", queue="runs", payload=b'{"argv":["true"]}')
            other.call("consume_open", queue="runs", credit=1, subscription=1)
            job = other.deliver(1).jobs[0]
            other.call(
                "job_intent", job="theirs", token=job.token, attempt=job.attempt, tag="slurm:theirs"
            )
            # its reply and the end of the connection may come in either order
            other.ask("session_close")
        with outside(broker, spool) as process:
            tap.wait_until(
                lambda: b"id=local.foreign_intent" in process.text(), 30, "it is told by name"
            )
            tap.equal(run(broker, "ours", "true"), "COMPLETE", "others run")
            tap.equal(
                [os.path.basename(os.path.dirname(path)) for path in attempts(spool)],
                ["ours"],
                "and it was not begun",
            )


def test_a_spool_that_is_not_the_one_of_the_start_starts_nothing_again():
    """Without the files it is unknown whether the attempt has started; it has, and runs."""
    for what in ("deleted", "another"):
        with tap.Scratch() as top, tap.Broker() as broker:
            spool, mark = os.path.join(top, "spool"), os.path.join(top, "ran")
            tap.equal(
                sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create"
            )
            with outside(broker, spool):
                argv = ["sh", "-c", f"echo $$ >>{mark}; exec sleep 1000"]
                tap.equal(
                    sluice(
                        broker,
                        "job",
                        "submit",
                        "--id",
                        "one",
                        "--queue",
                        "runs",
                        json.dumps({"argv": argv}),
                    ).returncode,
                    0,
                    "submit",
                )
                tap.wait_until(
                    lambda: os.path.exists(mark)
                    and open(mark, encoding="ascii").read().endswith("\n"),
                    30,
                    "it runs",
                )
            if what == "deleted":
                shutil.rmtree(spool)
            # Its intent names the spool as its source, so the new spool never gets it.
            with outside(broker, spool if what == "deleted" else os.path.join(top, "other")):
                tap.wait_until(
                    lambda: shown(broker, "one")["claim"] == "orphaned", 60, "its session ended"
                )
                tap.equal(run(broker, "next", "true"), "COMPLETE", "others run")
                tap.equal(
                    shown(broker, "one")["claim"],
                    "orphaned",
                    f"it is kept for a spool that is {what}",
                )
            with open(mark, encoding="ascii") as file:
                pids = file.read().split()
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)
            tap.equal(len(pids), 1, f"times that it was started, with a spool that is {what}")


def test_a_damaged_name_of_the_spool_is_refused():
    with tap.Scratch() as spool, tap.Broker() as broker:
        with open(os.path.join(spool, "id"), "wb") as file:
            file.write(b"what?")
        with outside(broker, spool) as process:
            tap.check(process.wait(30) != 0, "it ends")
            tap.check(
                b"`id` is damaged; expected 8 hex digits" in process.text(),
                "and says what was expected",
            )


def test_jobs_claimed_while_the_spool_has_no_room_run_when_it_has():
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, away = os.path.join(top, "spool"), os.path.join(top, "away")
        tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        with outside(broker, spool) as process:
            tap.equal(run(broker, "before", "true"), "COMPLETE", "state")
            # Nothing can be created below a file; an empty directory may be the mount point of an
            # unmounted disk.
            for name, make, unmake in (
                ("file", lambda path: open(path, "wb").close(), os.unlink),
                ("folder", os.mkdir, os.rmdir),
            ):
                os.rename(spool, away)
                make(spool)
                submit(broker, name, "true")
                tap.wait_until(
                    lambda: f"{name}: cannot ".encode() in process.text(), 30, "it is told"
                )
                unmake(spool)  # nothing was made in it
                os.rename(away, spool)
                tap.equal(ended(broker, name), "COMPLETE", "it runs without a restart")


def test_a_cancel_ends_a_job_also_when_its_mark_has_no_room():
    with tap.Scratch() as spool, inside(spool) as broker:
        mark = os.path.join(spool, "deaf")
        submit(
            broker,
            "deaf",
            "sh",
            "-c",
            f"trap '' TERM; echo x >{mark}; while :; do sleep 0.05; done",
        )
        submit(broker, "soft", "sleep", "1000")
        for name in ("deaf", "soft"):
            tap.wait_until(lambda: shown(broker, name)["state"] == "ACTIVE", 30, f"{name} runs")
            # No file of that name can be created, as on a full disk.
            os.makedirs(os.path.join(attempt(spool, name), "cancel", "full"))
        tap.wait_until(lambda: os.path.exists(mark), 30, "it ignores SIGTERM")
        for name in ("soft", "deaf"):
            tap.equal(sluice(broker, "job", "cancel", name).returncode, 0, f"cancel {name}")
            tap.equal(ended(broker, name), "CANCELED", f"state of {name}")


def test_an_end_that_the_broker_has_no_room_for_is_reported_when_it_has():
    port, small = tap.free_port(), ["--set", "map_mib=16"]
    full = [*small, "--set", "publish_stop_percent=20", "--set", "report_stop_percent=21"]
    with tap.Scratch() as top:
        go, data = os.path.join(top, "go"), os.path.join(top, "data")
        with contextlib.ExitStack() as scheduler:
            with tap.Broker(data=data, port=port, args=small) as broker, Connection(port) as one:
                for name, kind in (("runs", 1), ("filler", 0)):
                    one.call("queue_create", config={"name": name, "kind": kind})
                process = scheduler.enter_context(outside(broker, os.path.join(top, "spool")))
                submit(broker, "late", "sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done")
                tap.wait_until(lambda: shown(broker, "late")["state"] == "ACTIVE", 30, "it runs")
                for _ in range(3):
                    one.publish([envelope(bytes(500_000))] * 3, "x", target=TO_QUEUE, name="filler")
            # Publishes stop before reports do: only a store that is fuller than they may make it
            # stops both.
            with tap.Broker(data=data, port=port, args=full), Connection(port) as one:
                tap.equal(
                    one.call("status_get").status.headroom,
                    "report-stopped",
                    "the broker takes no reports any more",
                )
                open(go, "wb").close()
                tap.wait_until(
                    lambda: b"id=local.report_refused" in process.text(), 30, "its end is refused"
                )
                one.call("queue_delete", name="filler")
                tap.equal(
                    one.call("job_wait", job="late", timeout_ms=30000).jobs[0].state,
                    "COMPLETE",
                    "and reported later",
                )
                scheduler.close()


def taken_over_by_itself(loses, last_events):
    """The session ends before a request arrives, and the same scheduler gets the job again before
    the answer."""
    with tap.Scratch() as top, tap.Broker() as broker:
        mark = os.path.join(top, "ran")
        tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        proxy = LosingProxy(broker.port, loses)
        with contextlib.closing(proxy.listener), outside(
            proxy, os.path.join(top, "spool"), session_timeout_ms=1000
        ):
            submit(broker, "one", "sh", "-c", f"echo x >>{mark}")
            tap.check(proxy.lost.wait(30), "the request is lost")
            tap.wait_until(
                lambda: shown(broker, "one")["claim"] == "orphaned", 60, "and its session ends"
            )
            proxy.open.set()
            tap.equal(ended(broker, "one"), "COMPLETE", "its state")
            tap.check(
                proxy.delivered.is_set(), "it was delivered again before the request was answered"
            )
            events = json.loads(sluice(broker, "-o", "json", "job", "history", "one").stdout)[
                "history"
            ]
            # A job that ends before it is inspected has one report, not two.
            kinds = [kind for kind, _ in itertools.groupby(row["event"] for row in events)]
            tap.equal(kinds[-len(last_events) :], last_events, "the last of its history")
            with open(mark, encoding="ascii") as file:
                tap.equal(file.read(), "x\n", "it ran once")


def test_a_job_taken_over_before_its_intent_was_heard_starts_under_an_intent():
    taken_over_by_itself(
        lambda request: request.WhichOneof("op") == "job_intent", ["intent", "report"]
    )


def test_a_job_taken_over_before_its_end_was_heard_is_reported_under_its_new_lease():
    taken_over_by_itself(
        lambda request: request.WhichOneof("op") == "job_report"
        and request.job_report.state == "COMPLETE",
        ["takeover", "report"],
    )


tap.main(globals())
