#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `local` scheduler and its spool: which files are deleted, when, and which stay."""
import errno
import json
import os
import re
import time

import tap

from local_rig import attempt, attempts, ended, inside, outside, run, shown, sluice, submit


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
