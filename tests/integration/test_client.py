#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""libsluice from outside: the documented first program, and that nothing asynchronous blocks on a stopped broker."""
import os
import re
import signal
import subprocess
import tempfile
import time

import tap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def compile_program(source, top):
    path = os.path.join(top, "program.c")
    with open(path, "w", encoding="utf-8") as file:
        file.write(source)
    library = os.path.join(os.path.abspath(tap.BUILD), "client")
    sanitize = ["-fsanitize=address"] if os.path.exists(os.path.join(library, "libsluice.so")) and b"__asan_init" in open(
        os.path.join(library, "libsluice.so"), "rb").read() else []
    done = subprocess.run(["cc", "-std=c17", "-Wall", "-Wextra", "-Werror", *sanitize, "-I", os.path.join(ROOT, "include"), path, "-L", library,
                           "-lsluice", f"-Wl,-rpath,{library}", "-o", os.path.join(top, "program")], capture_output=True, text=True, timeout=120)
    tap.equal(done.returncode, 0, f"it compiles without a warning: {done.stderr}")
    return os.path.join(top, "program")


def test_the_first_program_of_the_README_runs():
    with open(os.path.join(ROOT, "client/README.md"), encoding="utf-8") as file:
        found = re.search(r"```c\n(.*?)```", file.read(), re.S)
    tap.check(found is not None, "client/README.md has a program")
    if "tsan" in subprocess.run(["ldd", os.path.join(tap.BUILD, "client/libsluice.so")], capture_output=True, text=True).stdout:
        tap.skip("a program without TSan cannot load a library with it")
    with tempfile.TemporaryDirectory() as top, tap.Broker() as broker:
        program = compile_program(found.group(1), top)
        done = subprocess.run([program, broker.address], capture_output=True, text=True, timeout=60)
        tap.equal(done.stdout, "hello.world: it works\n", f"what it prints ({done.stderr})")
        tap.equal(done.returncode, 0, "its exit code")


def test_the_library_exports_its_own_names_only():
    library = os.path.join(tap.BUILD, "client/libsluice.so")
    names = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, timeout=60).stdout.split("\n")
    ours = [line.split()[-1].split("@")[0] for line in names if line]
    foreign = [name for name in ours if not re.fullmatch(r"sluice_[a-z0-9_]+|SLUICE_0|__asan_\w+|__odr_asan\w*|___asan\w*", name)]
    tap.equal(foreign, [], "names that are not the library's")
    tap.check("sluice_publish" in ours and not any(name.startswith("sluice__") for name in ours), "public ones are there, generated ones are not")


def promise(name):
    """One scenario of api_probe.c against a broker of its own."""
    def test():
        with tap.Broker() as broker:
            process = tap.Process([tap.program("tests/integration/api_probe"), broker.address, name])
            tap.equal(process.wait(100), 0, f"the header holds: {process.tail(100)}")
            tap.check(not tap.SANITIZER_REPORT.search(process.text()), f"no sanitizer reports: {process.tail(200)}")
    return test


for scenario in ("callbacks_may_close", "subscriptions_may_be_closed_by_the_end", "close_ends_blocking_calls_of_other_threads",
                 "closing_a_subscription_ends_its_next", "the_first_connection_is_no_resumption", "open_calls_nobody_back",
                 "a_session_name_that_is_taken_over_is_said", "a_refused_hello_is_final", "asynchronous_opens_are_answered_once", "refusals_say_why",
                 "no_reply_is_out_of_memory", "the_allocator_gets_back_what_it_gave", "descriptors_are_close_on_exec"):
    globals()["test_header_" + scenario] = promise(scenario)


def test_every_scenario_of_the_probe_is_a_test():
    listed = subprocess.run([tap.program("tests/integration/api_probe"), "--list"], capture_output=True, text=True, timeout=60).stdout.split()
    tap.equal([name for name in listed if "test_header_" + name not in globals()], [], "scenarios that no test runs")


def test_asynchronous_calls_do_not_block_on_a_stopped_broker():
    probe = tap.program("tests/integration/async_probe")
    with tap.Broker() as broker:
        process = tap.Process([probe, broker.address], ready=rb"connected")
        broker.signal(signal.SIGSTOP)
        try:
            process.signal(signal.SIGUSR1)
            tap.wait_until(lambda: b"calls took" in process.text(), 30, "all calls returned while the broker was stopped")
            took = int(re.search(rb"calls took (\d+) ms", process.text()).group(1))
            tap.check(took < 2000, f"1,000 asynchronous calls of each kind and a process turn took {took} ms against a stopped broker")
            tap.wait_until(lambda: b"deadline: TIMEOUT" in process.text(), 30, "a blocking call ends at its deadline")
            tap.wait_until(lambda: b"closed" in process.text(), 30, "close ends at its deadline")
        finally:
            broker.signal(signal.SIGCONT)
        tap.equal(process.wait(30), 0, "the probe's exit code")
        time.sleep(0)


def test_a_client_resumes_its_session_over_a_restart():
    probe = tap.program("tests/integration/resume_probe")
    data = tempfile.mkdtemp(prefix="sluice-test-")
    port = tap.free_port()
    broker = tap.Broker(data=data, port=port)
    process = tap.Process([probe, broker.address], ready=rb"holding")
    try:
        broker.kill()
        with tap.Broker(data=data, port=port):
            process.signal(signal.SIGUSR1)
            tap.equal(process.wait(60), 0, f"the lease was kept and its ack was taken: {process.tail()}")
            tap.check(b"resumed" in process.text(), "the callback told of it")
    finally:
        process.kill()


tap.main(globals())
