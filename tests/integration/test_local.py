#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `local` scheduler beside others: processes and files with which it shares a broker and a
disk."""
import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import tap

from local_rig import (
    LosingProxy,
    attempt,
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


def age(path, days):
    then = time.time() - days * 86400
    os.utime(path, (then, then))


def test_files_of_ended_jobs_go_and_those_of_running_ones_stay():
    with tap.Scratch() as spool, inside(spool, keep_ms=0) as broker:
        tap.equal(
            sluice(
                broker,
                "job",
                "submit",
                "--id",
                "long",
                "--queue",
                "runs",
                json.dumps({"argv": ["sleep", "1000"]}),
            ).returncode,
            0,
            "submit",
        )
        tap.wait_until(
            lambda: attempt(spool, "long")
            and os.path.exists(os.path.join(attempt(spool, "long"), "start")),
            30,
            "the long one runs",
        )
        names = ["short", "x" * 250, ("dots. and / and % " * 12).strip(), "failed"]
        for name in names:
            run(broker, name, "false" if name == "failed" else "true")
        tap.wait_until(lambda: len(attempts(spool)) == 1, 60, "the files of ended jobs are deleted")
        tap.check(attempt(spool, "long"), "those of the running one are kept")
        tap.wait_until(
            lambda: all(
                os.listdir(os.path.join(spool, bucket)) in ([], ["long"])
                for bucket in os.listdir(spool)
                if bucket != "id"
            ),
            30,
            "and the directories of the others are deleted",
        )
        tap.equal(sluice(broker, "job", "cancel", "long").returncode, 0, "cancel")
        tap.wait_until(lambda: attempts(spool) == [], 60, "then they go as well")


def test_what_a_job_leaves_in_its_own_directory_goes_with_its_output():
    """Without a cwd it has one below its attempt. Links in it are not followed, and the scheduler's
    own directory is left alone."""
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, outside_file, stands = (
            os.path.join(top, name) for name in ("spool", "outside", "stands")
        )
        with open(outside_file, "wb"):
            os.mkdir(stands)
        tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        with outside(broker, spool, cwd=stands) as process:
            # Guarded: without a directory of its own it would delete the directory in which the
            # test runs.
            tap.equal(
                run(
                    broker,
                    "itself",
                    "sh",
                    "-c",
                    'case $PWD in */work) rm -rf "$PWD";; *) exit 9;; esac',
                ),
                "COMPLETE",
                "a job that deletes its directory",
            )
            tap.equal(
                run(
                    broker,
                    "leaves",
                    "sh",
                    "-c",
                    (
                        f"mkdir -p a/b/c; echo x >a/b/c/x; ln -s {top} a/b/c/up; ln -s"
                        f" {outside_file} a/file; chmod 0 a/b/c; chmod 0 a"
                    ),
                ),
                "COMPLETE",
                "a job that leaves something",
            )
            tap.check(
                os.path.islink(os.path.join(attempt(spool, "leaves"), "work/a/file")),
                "it is kept as long as its output",
            )
        tap.check(process.text().count(b"local.sweep ") == 0, "nothing is told")
        with outside(broker, spool, keep_ms=0, cwd=stands) as process:
            tap.wait_until(
                lambda: b"2 old attempts were deleted" in process.text(), 60, "both are swept"
            )
            tap.equal(
                [name for name in os.listdir(spool) if name.startswith("gone.")],
                [],
                "and nothing is left of them",
            )
        tap.check(
            os.path.exists(outside_file) and os.path.isdir(stands),
            "the targets of the links are there, and the scheduler's directory",
        )


def test_a_link_that_a_job_put_in_the_place_of_its_attempt_goes_and_what_it_names_stays():
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, named = os.path.join(top, "spool"), os.path.join(top, "named")
        os.makedirs(os.path.join(named, "folder"))
        with open(os.path.join(named, "file"), "wb"):
            tap.equal(
                sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create"
            )
        with outside(broker, spool, keep_ms=1000, cwd=top) as process:
            # Guarded: elsewhere it would rename the directory in which the test runs.
            script = (
                'case $PWD in */work) cd ..; p=$PWD; cd ..; n=0; until [ -L "$p" ]; do n=$((n+1));'
                f' mv "$p" {top}/moved$n; ln -s {named} "$p"; done;; *) exit 9;; esac'
            )
            tap.equal(run(broker, "swaps", "sh", "-c", script), "COMPLETE", "its state")
            why = (
                f"in the place of its attempt's directory was a symbolic link to {named}, which was"
                " not followed"
            )
            tap.check(
                why in shown(broker, "swaps")["evidence"],
                f"its evidence: {shown(broker, 'swaps')['evidence']}",
            )
            tap.wait_until(
                lambda: b"1 old attempts were deleted" in process.text(), 60, "its attempt is swept"
            )
            tap.equal(
                [name for name in os.listdir(spool) if name.startswith("gone.")],
                [],
                "and the link is gone",
            )
            tap.check(
                b"id=local.sweep " not in process.text(),
                f"nothing is logged of that: {process.tail()}",
            )
            tap.equal(process.text().count(why.encode()), 1, "but of the link")
        tap.equal(
            sorted(os.listdir(named)), ["file", "folder"], "nothing was written where it points"
        )


def attempt_mark(spool):
    """Whether an attempt's directory in the spool has its start mark."""
    return any(
        "start" in files and re.search("/1\\.[0-9a-f]{24}$", path)
        for path, _, files in os.walk(spool)
    )


def test_a_directory_that_its_job_moved_within_the_spool_is_deleted_and_what_is_anothers_stays():
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, go = os.path.join(top, "spool"), os.path.join(top, "go")
        tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        places = {
            "root": f"{spool}/else where",
            "sibling": "$q/1.kept",
            "bucket": "${q%/*}/name",
            "unlike": "${q%/*}/not.a.job",
            "job": "${q%/*}/other/1.0123456789abcdef01234567",
            "hidden": f"{spool}/.hidden",
        }
        with outside(broker, spool, keep_ms=1000) as process:
            for name, place in places.items():
                script = (
                    'case $PWD in */work) cd ..; p=$PWD; q=${p%/*}; cd /; mkdir -p "$(dirname'
                    f' "{place}")"; mv "$p" "{place}";; *) exit 9;; esac'
                )
                script += (
                    f"; until [ -e {go} ] || ! [ -e {spool} ]; do sleep 0.05; done"
                    if name == "root"
                    else ""
                )
                submit(broker, name, "sh", "-c", script)
            for name in places:
                tap.equal(
                    name == "root" or ended(broker, name) == "COMPLETE", True, f"state of {name}"
                )
            for bucket in (spool, os.path.join(spool, "00")):
                os.makedirs(os.path.join(bucket, "my own", "1.0123456789abcdef01234567"))
                age(os.path.join(bucket, "my own"), 1)
            with open(os.path.join(spool, "notes.txt"), "wb"):
                os.mkdir(os.path.join(spool, "lost+found"))
            left = ["00/my own", "my own", "notes.txt"]
            tap.wait_until(
                lambda: sorted(told(process)) == left,
                30,
                f"remaining files are named: {process.tail()}",
            )
            tap.wait_until(
                lambda: attempts(spool) == [f"{spool}/else where"],
                60,
                (
                    f"all but that of the one that runs are deleted: {attempts(spool)},"
                    f" {process.tail()}"
                ),
            )
            open(go, "wb").close()
            tap.wait_until(
                lambda: attempts(spool) == [], 60, f"and then that one: {process.tail()}"
            )
            swept = process.text().count(b"id=local.swept")
            tap.equal(run(broker, "next", "true"), "COMPLETE", "another one")
            tap.wait_until(lambda: process.text().count(b"id=local.swept") > swept, 30, "is swept")
            tap.equal(sorted(told(process)), left, "each is named once")
        tap.equal(
            sorted(name for name in os.listdir(spool) if len(name) > 2),
            ["lost+found", "my own", "notes.txt"],
            "files of others are kept",
        )
        tap.equal(
            os.listdir(os.path.join(spool, "00/my own")),
            ["1.0123456789abcdef01234567"],
            "all of it",
        )


def told(process):
    """The names of entries that belong to no attempt, according to the log."""
    return [
        name.decode()
        for name in re.findall(
            rb'id=local.sweep msg="(.*) is in the spool and belongs to no attempt', process.text()
        )
    ]


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


def test_what_cannot_be_deleted_is_logged_once_each_and_holds_up_nothing():
    tap.not_sanitized("the preloaded library would come before the sanitizer's")
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, gate = os.path.join(top, "spool"), os.path.join(top, "gate")
        tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        with open(gate, "w", encoding="ascii") as file:
            file.write(f"unlinkat {errno.EPERM} stubborn")
        env = {
            **os.environ,
            "LD_PRELOAD": os.path.join(tap.BUILD, "tests/integration/fail_gate.so"),
            "FAIL_GATE": gate,
        }
        with outside(broker, spool, env=env, keep_ms=0) as process:
            for name in ("one", "two"):
                tap.equal(
                    run(broker, name, "sh", "-c", "mkdir a; echo x >a/stubborn; echo x >a/other"),
                    "COMPLETE",
                    "its state",
                )
            why = (
                b"cannot be deleted from the spool: delete stubborn: Operation not permitted"
                b" (EPERM)"
            )
            tap.wait_until(lambda: process.text().count(why) == 2, 30, "both are logged")
            for number in range(3):
                before = process.text().count(b"id=local.swept")
                tap.equal(run(broker, f"next{number}", "true"), "COMPLETE", "others run")
                tap.wait_until(
                    lambda: process.text().count(b"id=local.swept") > before, 30, "and are swept"
                )
            tap.equal(process.text().count(b"cannot be deleted"), 2, "each is logged once")
            with open(gate + ".new", "w", encoding="ascii") as file:
                file.write(f"unlinkat {errno.EBUSY} stubborn")
            os.rename(gate + ".new", gate)
            tap.wait_until(
                lambda: process.text().count(b"delete stubborn: Device or resource busy (EBUSY)")
                == 2,
                30,
                "and again when the cause changes",
            )
            os.unlink(gate)
            tap.wait_until(
                lambda: not [name for name in os.listdir(spool) if name.startswith("gone.")],
                30,
                "and it is deleted when that is possible",
            )


def test_a_wall_clock_that_is_set_deletes_nothing_early():
    tap.not_sanitized("a sanitizer's library must be the first that is preloaded")
    with tap.Scratch() as top, tap.Broker() as broker:
        spool, clock = os.path.join(top, "spool"), os.path.join(top, "clock")
        tap.equal(sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        env = {
            **os.environ,
            "LD_PRELOAD": tap.plain(os.path.join(tap.BUILD, "tests/support/false_clock.so")),
            "FALSE_CLOCK": clock,
        }
        # Sweeps come every second; files are kept for ten.
        with outside(broker, spool, env=env, keep_ms=10000) as process:
            tap.equal(
                [run(broker, name, "true") for name in ("young", "old")], ["COMPLETE"] * 2, "states"
            )
            tap.wait_until(
                lambda: all(
                    os.path.exists(os.path.join(path, "reported")) for path in attempts(spool)
                ),
                30,
                "both are reported",
            )
            with open(clock + ".new", "w", encoding="ascii") as file:
                file.write(f"{30 * 86400} 0\n")
            os.rename(clock + ".new", clock)
            then = time.time() + 3600
            # so that it stays young for as long as this test may take
            os.utime(attempt(spool, "young"), (then, then))
            age(attempt(spool, "old"), 1)
            tap.wait_until(
                lambda: b"1 old attempts were deleted" in process.text(), 60, "what is old goes"
            )
            tap.check(
                attempt(spool, "young"), "files that are old only by the changed clock are kept"
            )


def test_files_stay_for_the_time_that_is_set():
    with tap.Scratch() as spool, inside(spool) as broker:
        tap.equal(
            [
                run(broker, name, "true")
                for name in ("old", "young", "stranger", "other", "unreported", "again")
            ],
            ["COMPLETE"] * 6,
            "states",
        )
        tap.wait_until(
            lambda: all(os.path.exists(os.path.join(path, "reported")) for path in attempts(spool)),
            30,
            "all are reported",
        )
        # As after SIGKILL between report and mark; one of a job that the broker never had; and one
        # whose job has not ended.
        os.unlink(os.path.join(attempt(spool, "unreported"), "reported"))
        for name, other in (("stranger", "nobody"), ("other", "waiting")):
            os.unlink(os.path.join(attempt(spool, name), "reported"))
            os.unlink(os.path.join(attempt(spool, name), "tag"))
            job = os.path.dirname(attempt(spool, name))
            os.rename(job, os.path.join(os.path.dirname(job), other))
        tap.equal(
            sluice(broker, "queue", "create", "later", "--jobs").returncode, 0, "queue create"
        )
        tap.equal(
            sluice(broker, "job", "submit", "--id", "waiting", "--queue", "later", "{}").returncode,
            0,
            "submit",
        )
        tap.equal(sluice(broker, "job", "reset", "again").returncode, 0, "reset")
        tap.wait_until(lambda: len(attempts(spool)) == 7, 30, "a reset job has a second attempt")
        sluice(broker, "job", "wait", "again", "--timeout", "30s")
        for name in ("old", "unreported", "nobody", "waiting", "again"):
            age(attempt(spool, name), 8)
        with outside(broker, spool) as process:
            tap.wait_until(lambda: b"id=local.swept" in process.text(), 60, "a pass is over")
            left = sorted(
                "/".join(path.split("/")[-2:]).rsplit(".", 1)[0] for path in attempts(spool)
            )
            tap.equal(left, ["again/2", "nobody/1", "waiting/1", "young/1"], "what is left")
            tap.check(b"3 old attempts were deleted" in process.text(), "and the log says so")


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


# Writes the pid of each start, and OVERLAP if an earlier one is alive then (a zombie is not).
STARTS = (
    "trap '' TERM; for pid in $(cat {mark} 2>/dev/null); do grep -qs 'State:.[RSDT]'"
    " /proc/$pid/status && echo OVERLAP >>{mark}; done; echo $$ >>{mark}; until [ -e {go} ]; do"
    " sleep 0.05; done"
)


class Reset:
    """A broker, a spool, and the job `one`, which runs, ignores SIGTERM and ends when the test
    asks; to be reset by force."""

    def __init__(self):
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        self.top = self.stack.enter_context(tap.Scratch())
        self.broker = self.stack.enter_context(tap.Broker())
        self.spool, self.mark, self.go = (
            os.path.join(self.top, name) for name in ("spool", "ran", "go")
        )
        self.stack.callback(self.end)
        tap.equal(
            sluice(self.broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create"
        )
        return self

    def __exit__(self, *why):
        return self.stack.__exit__(*why)

    def scheduler(self, **settings):
        return self.stack.enter_context(outside(self.broker, self.spool, **settings))

    def submit(self):
        submit(self.broker, "one", "sh", "-c", STARTS.format(mark=self.mark, go=self.go))

    def runs(self, number):
        def there():
            one = shown(self.broker, "one")
            return (
                one["state"] == "ACTIVE" and one["attempt"] == number and os.path.exists(self.mark)
            )

        tap.wait_until(there, 30, f"attempt {number} runs")

    def reset(self):
        tap.equal(sluice(self.broker, "job", "reset", "one", "--force").returncode, 0, "reset")

    def starts(self):
        with open(self.mark, encoding="ascii") as file:
            return file.read().split()

    def end(self):
        open(self.go, "wb").close()

    def ends(self, starts):
        self.end()
        tap.equal(ended(self.broker, "one"), "COMPLETE", "its state")
        tap.equal(
            len(self.starts()),
            starts,
            f"the number of starts, none beside another: {self.starts()}",
        )


def test_after_a_reset_by_force_the_stale_attempt_is_ended_before_the_next_starts():
    for survives in (True, False):
        with Reset() as job:
            process = job.scheduler()
            job.submit()
            job.runs(1)
            if not survives:
                process.kill()
            job.reset()
            if not survives:
                job.scheduler()
            job.runs(2)
            job.ends(2)


def test_after_a_reset_by_force_what_left_a_lost_attempt_is_ended_before_the_next_starts():
    """Scheduler, shepherd and process were killed: only the environment identifies the remaining
    process."""
    script = (
        "for pid in $(cat {mark} 2>/dev/null); do grep -qs 'State:.[RSDT]' /proc/$pid/status &&"
        " echo OVERLAP >>{mark}; done; setsid sh -c 'echo $$ >>{mark}; exec sleep 1000' & until ["
        " -e {go} ]; do sleep 0.05; done"
    )
    with Reset() as job:
        process = job.scheduler()
        submit(job.broker, "one", "sh", "-c", script.format(mark=job.mark, go=job.go))
        job.runs(1)
        tap.wait_until(
            lambda: len(job.starts()) == 1, 30, "the process that it started has left its group"
        )
        process.kill()
        with open(os.path.join(attempt(job.spool, "one"), "start"), encoding="ascii") as file:
            pid, _, shepherd, _ = file.read().split(" ", 3)
        os.kill(int(shepherd), signal.SIGKILL)
        os.killpg(int(pid), signal.SIGKILL)
        job.reset()
        job.scheduler()
        job.runs(2)
        tap.wait_until(lambda: len(job.starts()) >= 2, 30, "the next one has started its own")
        job.ends(2)


def test_after_a_reset_by_force_the_stale_attempt_is_ended_also_without_a_next_one():
    for scheduler in ("hears of it", "is started later", "lost its session"):
        with Reset() as job:
            process = job.scheduler(slots=1, session_timeout_ms=1000, keep_ms=1000)
            job.submit()
            job.runs(1)
            if scheduler == "hears of it":
                submit(job.broker, "next", "sleep", "1000")
            elif scheduler == "is started later":
                process.kill()
            else:
                os.kill(process.pid, signal.SIGSTOP)
                tap.wait_until(
                    lambda: shown(job.broker, "one")["claim"] == "orphaned", 60, "its session ends"
                )
            job.reset()
            tap.equal(sluice(job.broker, "job", "cancel", "one").returncode, 0, "and cancel")
            tap.equal(ended(job.broker, "one"), "CANCELED", "its state")
            if scheduler == "is started later":
                job.scheduler()
            elif scheduler == "lost its session":
                os.kill(process.pid, signal.SIGCONT)
            tap.wait_until(
                lambda: not lives(job.starts()[0]),
                30,
                f"its process is ended by a scheduler that {scheduler}",
            )
            if scheduler == "hears of it":
                sluice(job.broker, "job", "cancel", "next")
                ended(job.broker, "next")


def test_a_scheduler_killed_while_it_ends_a_stale_attempt_leaves_that_to_the_next_one():
    with Reset() as job:
        process = job.scheduler()
        job.submit()
        job.runs(1)
        job.reset()
        tap.wait_until(
            lambda: os.path.exists(os.path.join(attempt(job.spool, "one"), "cancel")),
            30,
            "it is asked to end",
        )
        process.kill()
        job.scheduler()
        job.runs(2)
        job.ends(2)


def test_a_stale_attempt_whose_pid_is_another_process_now_has_ended():
    with Reset() as job, subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        process = job.scheduler()
        job.submit()
        job.runs(1)
        process.kill()
        start = os.path.join(attempt(job.spool, "one"), "start")
        with open(start, encoding="ascii") as file:
            pid, time_started, shepherd, rest = file.read().split(" ", 3)
        # As after SIGKILL of both, when the pids are used again.
        for number in (shepherd, pid):
            os.kill(int(number), signal.SIGKILL)
        tap.wait_until(lambda: not lives(pid) and not lives(shepherd), 30, "they are gone")
        with open(start, "w", encoding="ascii") as file:
            file.write(f"{stranger.pid} {time_started} {stranger.pid} {rest}")
        job.reset()
        job.scheduler()
        job.runs(2)
        tap.equal(stranger.poll(), None, "the stranger lives")
        job.ends(2)
        stranger.kill()


def test_the_next_attempt_waits_for_a_stale_one_that_cannot_be_inspected():
    with Reset() as job:
        process = job.scheduler()
        job.submit()
        job.runs(1)
        process.kill()
        start = os.path.join(attempt(job.spool, "one"), "start")
        os.rename(start, start + ".away")
        while not os.path.isdir(start):  # it cannot be read, as on a bad disk
            with contextlib.suppress(FileNotFoundError):
                os.unlink(start)  # which its shepherd has restored
            with contextlib.suppress(FileExistsError):
                os.mkdir(start)
        job.reset()
        process = job.scheduler()
        # The line is logged before the pause of each check: after the second one, a check has
        # started nothing.
        tap.wait_until(lambda: process.text().count(b"one: cannot ") >= 2, 30, "it is told")
        tap.equal(len(job.starts()), 1, "and nothing is started")
        os.rmdir(start)
        os.rename(start + ".away", start)
        job.runs(2)
        job.ends(2)


def test_a_scheduler_that_stopped_after_its_intent_starts_nothing_beside_the_next_attempt():
    for has_files in (True, False):
        with Reset() as job:
            stopped = job.scheduler(pause="intent", session="first", session_timeout_ms=1000)
            job.submit()
            tap.wait_until(
                lambda: os.path.exists(os.path.join(job.spool, "paused")),
                30,
                "it stopped after its intent",
            )
            job.reset()
            folder = [
                path
                for path, _, _ in os.walk(job.spool)
                if re.search(r"/one/1\.[0-9a-f]{24}$", path)
            ][0]
            if not has_files:
                os.rmdir(folder)  # what a sweep does with an empty one
            job.scheduler(session="second")
            job.runs(2)
            os.kill(stopped.pid, signal.SIGCONT)
            # It has finished what it was about to do when it sends again.
            tap.wait_until(
                lambda: os.path.exists(os.path.join(folder, "job.json"))
                and re.search(rb"id=local.(report_refused|source_taken)", stopped.text()),
                30,
                "it continues, or ends because another one has its source",
            )
            # The remaining ones belong to the attempt that runs.
            tap.wait_until(
                lambda: len(shepherds(job.spool)) == 1,
                30,
                "the processes that it started have ended",
            )
            job.ends(1)


def test_a_job_that_another_scheduler_took_over_is_not_ended_by_the_one_that_lost_it():
    with Reset() as job:
        first = job.scheduler(session="first", session_timeout_ms=1000)
        job.submit()
        job.runs(1)
        os.kill(first.pid, signal.SIGSTOP)
        job.scheduler(session="second")
        tap.wait_until(
            lambda: shown(job.broker, "one")["claim"] == "leased"
            and b"takeover" in sluice(job.broker, "job", "history", "one").stdout.encode(),
            60,
            "another has it",
        )
        os.kill(first.pid, signal.SIGCONT)
        tap.wait_until(
            lambda: b"id=local.lease_lost" in first.text()
            or b"id=local.session_lost" in first.text(),
            30,
            "the first one knows",
        )
        folder = attempt(job.spool, "one")
        job.ends(1)
        tap.check(not os.path.exists(os.path.join(folder, "cancel")), "no end was requested")


def test_two_brokers_that_share_a_spool_do_not_delete_each_others_attempts():
    """They should not do that; but a forgotten attempt is started again."""
    with tap.Scratch() as top, tap.Broker() as other:
        spool, mark, data = (
            os.path.join(top, "spool"),
            os.path.join(top, "ran"),
            os.path.join(top, "data"),
        )
        go = os.path.join(top, "go")
        tap.equal(sluice(other, "queue", "create", "runs", "--jobs").returncode, 0, "queue create")
        with tap.Broker(data=data) as broker:
            tap.equal(
                sluice(broker, "queue", "create", "runs", "--jobs").returncode, 0, "queue create"
            )
            with outside(broker, spool, keep_ms=0):
                submit(
                    broker,
                    "same",
                    "sh",
                    "-c",
                    f"echo x >>{mark}; until [ -e {go} ]; do sleep 0.05; done",
                )
                tap.wait_until(lambda: os.path.exists(mark), 30, "it runs")
        open(go, "wb").close()
        tap.wait_until(
            lambda: os.path.exists(os.path.join(attempt(spool, "same"), "status")),
            30,
            "it ends while its broker is away",
        )
        with outside(other, spool, keep_ms=0) as process:
            for attempts_of_it in (1, 2):
                tap.equal(run(other, "same", "true"), "COMPLETE", "the other's job of that id")
                tap.wait_until(
                    lambda: process.text().count(b"id=local.swept") >= attempts_of_it,
                    30,
                    "its files go",
                )
                tap.equal(
                    sluice(other, "job", "reset", "same").returncode,
                    0,
                    "and it is at a later attempt then",
                )
        with tap.Broker(data=data) as broker, outside(broker, spool):
            tap.equal(ended(broker, "same"), "COMPLETE", "its state")
            with open(mark, encoding="ascii") as file:
                tap.equal(file.read(), "x\n", "it ran once")


def test_a_wrong_time_to_keep_is_refused():
    with tap.Scratch() as spool, tap.Broker() as broker, outside(
        broker, spool, keep_ms="soon"
    ) as process:
        tap.check(process.wait(30) != 0, "it ends")
        tap.check(
            b"setting keep_ms is 'soon'; expected a whole number" in process.text(),
            "and says what was expected",
        )


tap.main(globals())
