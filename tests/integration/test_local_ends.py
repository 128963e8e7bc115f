#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The `local` scheduler and the end of a job: what is reported as its cause, and messages for steps
that fail."""
import contextlib
import errno
import json
import os
import signal

import tap

from local_rig import (
    LosingProxy,
    attempt,
    ended,
    lives,
    outside,
    queue,
    run,
    shepherds,
    shown,
    sluice,
    submit,
    waits,
)


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
