#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `local` scheduler after a reset by force: an attempt and the next one never run together."""
import contextlib
import os
import re
import signal
import subprocess

import tap

from local_rig import attempt, ended, lives, outside, run, shepherds, shown, sluice, submit

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


tap.main(globals())
