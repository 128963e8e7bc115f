#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""libsluice from outside: the documented first program, calls that do not block while the broker is
stopped, leases and acks across reconnects."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import tap
from frame_proxy import FrameProxy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import TO_QUEUE, Connection, envelope, pb  # noqa: E402

ACK, REPLY, DELIVER, NOTICE, ACKED = 4, 66, 68, 69, 72  # types of frames
RESUMED = 12  # kind of a NOTICE
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def compile_program(source, top):
    path = os.path.join(top, "program.c")
    with open(path, "w", encoding="utf-8") as file:
        file.write(source)
    library = os.path.join(os.path.abspath(tap.BUILD), "client")
    sanitize = (
        ["-fsanitize=address"]
        if os.path.exists(os.path.join(library, "libsluice.so"))
        and b"__asan_init" in open(os.path.join(library, "libsluice.so"), "rb").read()
        else []
    )
    done = subprocess.run(
        [
            "cc",
            "-std=c17",
            "-Wall",
            "-Wextra",
            "-Werror",
            *sanitize,
            "-I",
            os.path.join(ROOT, "include"),
            path,
            "-L",
            library,
            "-lsluice",
            f"-Wl,-rpath,{library}",
            "-o",
            os.path.join(top, "program"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    tap.equal(done.returncode, 0, f"it compiles without a warning: {done.stderr}")
    return os.path.join(top, "program")


def test_the_first_program_of_the_README_runs():
    with open(os.path.join(ROOT, "client/README.md"), encoding="utf-8") as file:
        found = re.search(r"```c\n(.*?)```", file.read(), re.S)
    tap.check(found is not None, "client/README.md has a program")
    if (
        "tsan"
        in subprocess.run(
            ["ldd", os.path.join(tap.BUILD, "client/libsluice.so")], capture_output=True, text=True
        ).stdout
    ):
        tap.skip("a program without TSan cannot load a library with it")
    with tempfile.TemporaryDirectory() as top, tap.Broker() as broker:
        program = compile_program(found.group(1), top)
        done = subprocess.run([program, broker.address], capture_output=True, text=True, timeout=60)
        tap.equal(done.stdout, "hello.world: it works\n", f"what it prints ({done.stderr})")
        tap.equal(done.returncode, 0, "its exit code")


def test_the_library_exports_its_own_names_only():
    library = os.path.join(tap.BUILD, "client/libsluice.so")
    names = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, timeout=60
    ).stdout.split("\n")
    ours = [line.split()[-1].split("@")[0] for line in names if line]
    foreign = [
        name
        for name in ours
        if not re.fullmatch(
            r"sluice_[a-z0-9_]+|SLUICE_0\.\d+|__asan_\w+|__odr_asan\w*|___asan\w*", name
        )
    ]
    tap.equal(foreign, [], "names without the library's prefix")
    tap.check(
        "sluice_publish" in ours and not any(name.startswith("sluice__") for name in ours),
        "public ones are there, generated ones are not",
    )


def promise(name, probe="api_probe"):
    """One scenario of a probe against a broker of its own."""

    def test():
        with tap.Broker() as broker:
            process = tap.Process([tap.program("tests/integration/" + probe), broker.address, name])
            tap.equal(process.wait(100), 0, f"the header holds: {process.tail(100)}")
            tap.check(
                not tap.SANITIZER_REPORT.search(process.text()),
                f"no sanitizer reports: {process.tail(200)}",
            )

    return test


for scenario in (
    "callbacks_may_close",
    "subscriptions_may_be_closed_by_the_end",
    "close_ends_blocking_calls_of_other_threads",
    "closing_a_subscription_ends_its_next",
    "the_first_connection_is_no_resumption",
    "open_calls_nobody_back",
    "a_session_name_that_is_taken_over_is_said",
    "a_refused_hello_is_final",
    "asynchronous_opens_are_answered_once",
    "refusals_say_why",
    "why_it_is_not_connected_is_not_kept",
    "leases_are_extended_while_items_are_held",
    "no_reply_is_out_of_memory",
    "the_allocator_gets_back_what_it_gave",
    "descriptors_are_close_on_exec",
):
    globals()["test_header_" + scenario] = promise(scenario)


for scenario in (
    "no_call_is_a_call_that_waits",
    "a_quiet_worker_stays_connected",
    "a_quiet_worker_stays_connected_in_its_own_loop",
    "a_lease_that_is_not_extended_is_told_when_it_ends",
    "a_hung_worker_loses_its_lease_and_is_told",
    "an_extension_by_the_application_is_a_sign_of_life",
    "a_lease_that_the_broker_took_is_told",
    "what_was_not_delivered_goes_with_its_lease",
    "peek_shows_for_how_long_leases_are_extended",
    "a_rejected_item_is_a_dead_letter_with_its_reason",
):
    globals()["test_header_" + scenario] = promise(scenario, "hold_probe")


class NoReject(FrameProxy):
    """The broker seems to be one that does not know the feature."""

    def take(self, source, sink, name, frame, link):
        sink.sendall(frame.replace(b"reject-renew", b"other-things"))


def test_header_an_older_broker_rejects_nothing_and_stays_connected():
    with tap.Broker() as broker:
        process = tap.Process(
            [
                tap.program("tests/integration/hold_probe"),
                NoReject(broker.port).address,
                "an_older_broker_rejects_nothing_and_stays_connected",
            ]
        )
        tap.equal(process.wait(100), 0, f"the library refuses it: {process.tail(100)}")


def without_memory(mode, first, step, width):
    """Runs of a client in which allocations fail; oom_probe.c has the conditions."""

    def test():
        with tempfile.TemporaryDirectory(
            prefix="sluice-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None
        ) as data, tap.Broker(data=data) as broker:
            process = tap.Process(
                [
                    tap.program("tests/integration/oom_probe"),
                    broker.address,
                    mode,
                    str(first),
                    str(step),
                    str(width),
                ]
            )
            tap.equal(process.wait(110), 0, f"every life succeeds: {process.tail(50)}")
            lives = int(re.search(rb"(\d+) lives", process.text()).group(1))
            tap.check(lives > 300 / step, f"allocations failed in {lives} lives")
            tap.check(
                not tap.SANITIZER_REPORT.search(process.text()),
                f"no sanitizer reports: {process.tail(200)}",
            )

    return test


# Each allocation in the loop mode that always allocates in the same order; in the other mode in
# steps, which are smaller in the long form.
for mode, width, step in (
    ("caller-loop", 1, 1),
    ("own-thread", 1, 1 if tap.LONG else 3),
    ("caller-loop", 40, 1 if tap.LONG else 7),
    ("own-thread", 40, 1 if tap.LONG else 7),
):
    globals()[f"test_no_life_ends_for_{width}_failed_allocations_in_{mode}".replace("-", "_")] = (
        without_memory(mode, 1, step, width)
    )


def with_a_stopped_broker(name):
    """One scenario of stopped_probe.c, which stops or kills its broker by its pid."""

    def test():
        with tap.Broker() as broker:
            process = tap.Process(
                [
                    tap.program("tests/integration/stopped_probe"),
                    broker.address,
                    name,
                    str(broker.pid),
                ]
            )
            tap.equal(process.wait(100), 0, f"the header holds: {process.tail(100)}")
            tap.check(
                not tap.SANITIZER_REPORT.search(process.text()),
                f"no sanitizer reports: {process.tail(200)}",
            )
            if "killed" in name:
                broker.kill()

    return test


for scenario in (
    "every_call_ends_at_its_deadline",
    "the_publish_buffer_has_a_bound",
    "a_killed_broker_is_told_in_order",
    "one_descriptor_is_enough",
):
    globals()["test_header_" + scenario] = with_a_stopped_broker(scenario)


def test_every_scenario_of_the_probe_is_a_test():
    for probe in ("api_probe", "hold_probe"):
        listed = subprocess.run(
            [tap.program("tests/integration/" + probe), "--list"],
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.split()
        tap.check(listed, f"{probe} lists its scenarios")
        tap.equal(
            [name for name in listed if "test_header_" + name not in globals()],
            [],
            f"scenarios of {probe} that no test runs",
        )


def test_asynchronous_calls_do_not_block_on_a_stopped_broker():
    probe = tap.program("tests/integration/async_probe")
    with tap.Broker() as broker:
        process = tap.Process([probe, broker.address], ready=rb"connected")
        broker.signal(signal.SIGSTOP)
        try:
            process.signal(signal.SIGUSR1)
            said = tap.wait_until(
                lambda: re.search(rb"calls waited (\d+) times, (\w+)\n", process.text()),
                30,
                "all calls returned meanwhile",
            )
            tap.equal(said.group(2), b"OK", "and none was refused")
            # Not 0: a page of memory may have to be waited for. But fewer than one in ten of 3,000
            # calls.
            tap.check(
                int(said.group(1)) < 300,
                (
                    "1,000 asynchronous calls of each kind and as many turns waited"
                    f" {said.group(1)} times"
                ),
            )
            tap.wait_until(
                lambda: b"deadline: TIMEOUT" in process.text(),
                30,
                "a blocking call ends at its deadline",
            )
            tap.wait_until(lambda: b"closed" in process.text(), 30, "close ends at its deadline")
        finally:
            broker.signal(signal.SIGCONT)
        tap.equal(process.wait(30), 0, "the probe's exit code")


def test_a_client_resumes_its_session_over_a_restart():
    probe = tap.program("tests/integration/resume_probe")
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        broker = tap.Broker(data=data)
        try:
            process = tap.Process([probe, broker.address], ready=rb"holding")
        finally:
            broker.kill()
        try:
            with tap.Broker(data=data, port=broker.port):
                process.signal(signal.SIGUSR1)
                tap.equal(
                    process.wait(60),
                    0,
                    f"the lease was kept and its ack was taken: {process.tail()}",
                )
                tap.check(b"resumed" in process.text(), "the callback reported it")
        finally:
            process.kill()


class Proxy(FrameProxy):
    """Holds frames of the types in `hold`, and everything that the broker sends after them, until
    release(). After the first frame of the types in `spoil` it sends, in the same piece, bytes that
    are no frame."""

    def __init__(self, port):
        super().__init__(port)
        self.seen, self.held = [], []
        self.hold, self.spoil = set(), set()

    def take(self, source, sink, name, frame, link):
        """Frames are listed when they have been forwarded or are held."""
        frame = self.change(name, frame)
        if name == "broker" and frame[4] in self.spoil:
            self.spoil = set()
            frame += bytes(32)
        if name == "broker" and (self.held or frame[4] in self.hold):
            self.held.append((sink, frame))
        else:
            sink.sendall(frame)
        self.seen.append((name, frame[4]))

    def change(self, _name, frame):
        """Handles a frame; here it does nothing."""
        return frame

    def at_cut(self):
        self.seen.clear()

    def has_seen(self, name, kind):
        with self.lock:
            return (name, kind) in self.seen

    def release(self):
        with self.lock:
            self.hold = set()
            for sink, frame in self.held:
                sink.sendall(frame)
            self.held.clear()


class Refusing(Proxy):
    """Replaces by BUSY the answer to the second extension of a lease of LONG_MS: the library's,
    which follows the application's own."""

    LONG_MS, EXTEND, BUSY = 8000, 2, -23

    def __init__(self, port):
        super().__init__(port)
        self.extensions, self.refused = [], 0

    def change(self, name, frame):
        if (
            name == "client"
            and frame[4] == ACK
            and frame[14] == self.EXTEND
            and int.from_bytes(frame[23:27], "big") == self.LONG_MS
        ):
            self.extensions.append(frame[6:10])
        if name == "broker" and frame[4] == ACKED and frame[6:10] in self.extensions[1:2]:
            self.refused += 1
            return frame[:10] + self.BUSY.to_bytes(4, "big", signed=True) + frame[14:]
        return frame


def test_header_a_refused_extension_delays_no_other():
    with tap.Broker() as broker, contextlib.closing(Refusing(broker.port)) as proxy:
        process = tap.Process(
            [
                tap.program("tests/integration/hold_probe"),
                proxy.address,
                "a_refused_extension_delays_no_other",
            ]
        )
        tap.equal(process.wait(100), 0, f"the other lease continues: {process.tail(100)}")
        tap.equal(proxy.refused, 1, "and one extension was refused")


class Before(Proxy):
    """Imitates an older broker: it gives no queue numbers, and closes the connection on an unknown
    operation of ACK."""

    def __init__(self, port):
        super().__init__(port)
        self.unknown = 0

    def change(self, name, frame):
        if name == "client" and frame[4] == ACK and frame[14] > 2:
            self.unknown += 1
        if name == "broker" and frame[4] == REPLY:
            reply = pb.Reply.FromString(frame[10:])
            if reply.HasField("consume_opened"):
                reply.consume_opened.queue_id = 0
                body = reply.SerializeToString()
                return (len(body) + 6).to_bytes(4, "big") + frame[4:10] + body
        return frame


def test_a_broker_of_before_is_not_told_of_what_is_begun_or_released():
    with tap.Broker() as broker, contextlib.closing(Before(broker.port)) as proxy, Connection(
        broker.port
    ) as one:
        one.call("queue_create", config={"name": "q"})
        for _ in range(3):
            one.publish([envelope(b"x")], "x", target=1, name="q")
        done = subprocess.run(
            [
                tap.program("client/cli/sluice"),
                "--address",
                proxy.address,
                "claim",
                "q",
                "--count",
                "2",
                "--ack",
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        tap.equal(
            (done.returncode, done.stdout.count("\n"), done.stderr),
            (0, 2, ""),
            "items come, and are acked",
        )
        tap.equal(proxy.unknown, 0, "operations that it does not know")
        done = subprocess.run(
            [
                tap.program("client/cli/sluice"),
                "--address",
                proxy.address,
                "claim",
                "q",
                "--release",
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        tap.check(
            done.returncode == 3 and "knows no release" in done.stderr,
            f"a release is refused here: {done}",
        )
        tap.equal(proxy.unknown, 0, "operations that it does not know")


def put_back(come):
    """A follower of a stream with three events, whose broker restarts with a copy of the store from
    before these events."""
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as top, contextlib.ExitStack() as stack:
        data, copy = os.path.join(top, "data"), os.path.join(top, "copy")
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            one.call("stream_create", config={"name": "x", "subjects": ["x.>"]})
        shutil.copytree(data, copy)
        proxy = stack.enter_context(contextlib.closing(Proxy(broker.port)))
        with tap.Broker(data=data, port=broker.port), Connection(broker.port) as one:
            tap.equal(
                one.publish([envelope(b"old")] * 3, "x.a").code, 0, "events that will be lost"
            )
            process = tap.Process(
                [
                    tap.program("client/cli/sluice"),
                    "--address",
                    proxy.address,
                    "follow",
                    "x",
                    "--from",
                    come,
                ]
            )
            stack.callback(process.kill)
            tap.wait_until(lambda: proxy.has_seen("broker", NOTICE), 30, "it has caught up")
            proxy.refuse = True
            proxy.cut()
        with tap.Broker(data=copy, port=broker.port):
            proxy.refuse = False
            tap.equal(process.wait(60), 4, f"it ends: {process.tail()}")
            tap.check(b"older one" in process.text(), f"and reports why: {process.tail()}")


def test_a_follower_is_told_that_the_store_was_put_back():
    put_back("first")


def test_a_follower_of_what_is_new_is_told_that_the_store_was_put_back():
    put_back("new")


def crossing(*mode):
    """After a reconnect the broker redelivers the items that the session holds, while their ack is
    in flight."""
    probe = tap.program("tests/integration/resume_probe")
    with tap.Broker() as broker, contextlib.closing(Proxy(broker.port)) as proxy:
        process = tap.Process([probe, proxy.address, *mode], ready=rb"holding")
        try:
            proxy.hold = {DELIVER}
            proxy.cut()
            tap.wait_until(
                lambda: proxy.has_seen("broker", DELIVER),
                30,
                "the broker delivers again after the reconnect",
            )
            process.signal(signal.SIGUSR1)
            tap.wait_until(lambda: proxy.has_seen("client", ACK), 30, "the client acks its items")
            proxy.release()
            tap.equal(process.wait(60), 0, f"the item comes no second time: {process.tail()}")
        finally:
            process.kill()


def made_anew(kind, *command):
    """The stream or queue that the command reads is deleted and created again while it is
    disconnected."""
    with tap.Broker() as broker, contextlib.closing(Proxy(broker.port)) as proxy, Connection(
        broker.port
    ) as one:
        one.call(f"{kind}_create", config={"name": "x", "subjects": ["x.>"]})
        tap.equal(one.publish([envelope(b"old")], "x.a").code, 0, "the first")
        process = tap.Process(
            [tap.program("client/cli/sluice"), "--address", proxy.address, *command]
        )
        try:
            tap.wait_until(lambda: b"old" in process.text(), 30, "it came")
            proxy.refuse = True
            proxy.cut()
            one.call(f"{kind}_delete", name="x")
            one.call(f"{kind}_create", config={"name": "x", "subjects": ["x.>"]})
            for _ in range(3):
                tap.equal(one.publish([envelope(b"new")], "x.a").code, 0, "of the other one")
            proxy.refuse = False
            tap.equal(
                process.wait(60),
                4,
                f"it ends, as if it were deleted while connected: {process.tail()}",
            )
            tap.check(b"deleted and created again" in process.text(), "and says why")
            tap.check(b"new" not in process.text(), "nothing of the new object is delivered")
        finally:
            process.kill()


def test_a_follower_is_told_that_its_stream_was_made_anew():
    made_anew("stream", "follow", "x", "--from", "first")


def test_a_consumer_is_told_that_its_queue_was_made_anew():
    made_anew("queue", "claim", "x", "--count", "9", "--wait", "60s")


def test_an_item_does_not_come_again_while_its_ack_is_on_the_way():
    crossing()


def test_an_item_does_not_come_again_while_an_ack_that_nobody_waits_for_is_on_the_way():
    crossing("fire")


def with_items(broker, *queues):
    for queue, bodies in queues:
        for args in (["queue", "create", queue], *(["put", queue, "x", body] for body in bodies)):
            done = subprocess.run(
                [tap.program("client/cli/sluice"), "--address", broker.address, *args],
                capture_output=True,
                text=True,
                timeout=60,
            )
            tap.equal(done.returncode, 0, f"{args}: {done.stderr}")


def items_of(process):
    return [
        line.split()[1] for line in process.text().decode().splitlines() if line.startswith("item ")
    ]


def test_a_consumer_that_is_opened_while_the_connection_breaks_is_opened_once():
    """Its request was made but not sent: after the reconnect a new one is made, and the broker
    would refuse a second."""
    with tap.Broker() as broker, contextlib.closing(Proxy(broker.port)) as proxy:
        with_items(broker, ("first", ["a"]), ("second", ["b"]))
        proxy.spoil = {DELIVER}
        process = tap.Process([tap.program("tests/integration/late_probe"), proxy.address])
        try:
            tap.equal(process.wait(60), 0, f"the probe succeeds: {process.tail()}")
            tap.equal(proxy.spoil, set(), "the connection broke")
            tap.equal(items_of(process), ["a", "b"], "both consumers got their items")
            tap.check(
                b"end " not in process.text().split(b"done")[0],
                f"and neither was ended: {process.tail()}",
            )
        finally:
            process.kill()


def test_what_was_told_as_not_sent_is_not_sent():
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data) as broker:
            cli = tap.program("client/cli/sluice")
            subprocess.run(
                [cli, "--address", broker.address, "stream", "create", "s", "--subject", "s.>"],
                check=True,
                timeout=30,
            )
        process = tap.Process(
            [tap.program("tests/integration/unsent_probe"), broker.address], ready=rb"waiting"
        )
        try:
            with tap.Broker(data=data, port=broker.port):
                tap.equal(
                    process.wait(60),
                    0,
                    f"the others, in their order, and they alone are stored: {process.tail()}",
                )
        finally:
            process.kill()


def test_what_a_callback_begins_ends_by_its_own_deadline_in_a_loop_of_the_application():
    process = tap.Process(
        [tap.program("tests/integration/chain_probe"), f"127.0.0.1:{tap.free_port()}"]
    )
    try:
        tap.equal(process.wait(110), 0, f"the probe's failures: {process.tail()}")
    finally:
        process.kill()


def test_two_consumers_of_one_queue_are_not_given_each_others_items_after_a_restart():
    probe = tap.program("tests/integration/pair_probe")
    port = tap.free_port()
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        with tap.Broker(data=data, port=port) as broker:
            process = tap.Process([probe, broker.address], ready=rb"holding")
            broker.kill()
        try:
            with tap.Broker(data=data, port=port):
                process.signal(signal.SIGUSR1)
                tap.wait_until(
                    lambda: b"\nall\n" in process.text(),
                    60,
                    f"all items have come: {process.tail()}",
                )
                bodies = sorted(
                    int(line.split()[1])
                    for line in process.text().splitlines()
                    if line.startswith(b"item ")
                )
                tap.equal(bodies, list(range(12)), "each item came once")
                before = process.text().split(b"resumed")[0]
                tap.equal(before.count(b"item "), 10, "and never more than the credit")
        finally:
            process.kill()


class Behind(Proxy):
    """Holds the frames of some subscriptions and no others: the broker redelivers each subscription
    in a turn of its own."""

    numbers = frozenset()

    @staticmethod
    def of(frame):
        """The subscription that a frame of the broker is for."""
        if frame[4] == DELIVER:
            return int.from_bytes(frame[10:14], "big")
        return pb.Notice.FromString(frame[10:]).subscription if frame[4] == NOTICE else None

    def take(self, source, sink, name, frame, link):
        if name == "broker" and self.of(frame) in self.numbers:
            self.held.append((sink, frame))
        else:
            sink.sendall(frame)
        self.seen.append((name, frame[4]))

    def at_cut(self):
        super().at_cut()
        self.held.clear()

    def holds(self, kind, number):
        with self.lock:
            return any(frame[4] == kind and self.of(frame) == number for _, frame in self.held)

    def holds_all(self, number):
        """All redeliveries have arrived, and RESUMED, which marks their end."""
        with self.lock:
            return any(
                self.of(frame) == number
                and frame[4] == NOTICE
                and pb.Notice.FromString(frame[10:]).kind == RESUMED
                for _, frame in self.held
            )

    def pass_on_to(self, number):
        with self.lock:
            self.numbers = self.numbers - {number}
            for sink, frame in self.held:
                if self.of(frame) == number:
                    sink.sendall(frame)
            self.held = [(sink, frame) for sink, frame in self.held if self.of(frame) != number]


def test_what_comes_again_late_to_another_consumer_of_the_queue_is_no_new_item():
    """The other consumer has acked it meanwhile, without waiting for the answer."""
    with tap.Broker() as broker, contextlib.closing(Behind(broker.port)) as proxy:
        process = tap.Process(
            [tap.program("tests/integration/pair_probe"), proxy.address], ready=rb"holding"
        )
        try:
            proxy.numbers = {1}
            proxy.cut()
            process.signal(signal.SIGUSR1)
            # Two are new: to the second consumer, which has acked its five.
            tap.wait_until(
                lambda: process.text().count(b"item ") >= 12,
                60,
                f"the rest has arrived: {process.tail()}",
            )
            tap.check(proxy.held, "the redeliveries to the first have not arrived")
            proxy.pass_on_to(1)
            tap.wait_until(
                lambda: b"\nall\n" in process.text(), 60, f"all items have come: {process.tail()}"
            )
            subprocess.run(
                [
                    tap.program("client/cli/sluice"),
                    "--address",
                    broker.address,
                    "put",
                    "work",
                    "x",
                    "12",
                ],
                check=True,
                timeout=60,
            )
            tap.wait_until(
                lambda: b"item 12 " in process.text(),
                60,
                f"the consumers continue: {process.tail()}",
            )
            bodies = sorted(
                int(line.split()[1])
                for line in process.text().splitlines()
                if line.startswith(b"item ")
            )
            tap.equal(bodies, list(range(13)), "each item came once")
        finally:
            process.kill()


def left_behind(fill, put):
    """A consumer is closed while another consumer of the queue is about to get the redeliveries of
    the session: returned items come once, as new, and the item that the application holds does not
    come."""
    with tap.Broker() as broker, contextlib.closing(Behind(broker.port)) as proxy, Connection(
        broker.port
    ) as one:
        fill(one)
        for n in range(12):
            put(one, n)
        process = tap.Process(
            [tap.program("tests/integration/leave_probe"), proxy.address], ready=rb"holding"
        )
        try:
            proxy.numbers = {2}
            proxy.cut()
            tap.wait_until(
                lambda: proxy.holds_all(2), 60, "the redeliveries to the second are in flight"
            )
            process.signal(signal.SIGUSR1)
            tap.wait_until(
                lambda: b"closed\n" in process.text(), 60, f"the first is closed: {process.tail()}"
            )
            proxy.pass_on_to(2)
            tap.wait_until(
                lambda: process.text().count(b"item ") >= 11,
                60,
                f"the returned items come: {process.tail()}",
            )
            put(one, 12)
            tap.wait_until(
                lambda: b"item 12\n" in process.text(), 60, f"the second goes on: {process.tail()}"
            )
            tap.check(b"hand 0\n" in process.text(), "the application holds one item of the first")
            tap.equal(
                sorted(int(of) for of in items_of(process)),
                list(range(1, 13)),
                "each other one came once",
            )
        finally:
            process.kill()


def test_items_of_a_consumer_that_was_closed_come_once_to_one_that_resumes():
    left_behind(
        lambda one: one.call("queue_create", config={"name": "work"}),
        lambda one, n: one.publish([envelope(b"%d" % n)], "x", target=TO_QUEUE, name="work"),
    )


def test_jobs_of_a_consumer_that_was_closed_come_once_to_one_that_resumes():
    left_behind(
        lambda one: one.call(
            "queue_create", config={"name": "work", "kind": pb.QUEUE_JOBS, "lifecycle": "airavata"}
        ),
        lambda one, n: one.call("job_submit", job=str(n), queue="work"),
    )


def test_items_that_come_to_a_consumer_when_it_is_closed_come_once_to_one_that_resumes():
    with tap.Broker() as broker, contextlib.closing(Behind(broker.port)) as proxy, Connection(
        broker.port
    ) as one:

        def put(n):
            one.publish([envelope(b"%d" % n)], "x", target=TO_QUEUE, name="work")

        one.call("queue_create", config={"name": "work"})
        proxy.numbers = {1, 2}
        process = tap.Process(
            [tap.program("tests/integration/leave_probe"), proxy.address, "unseen"],
            ready=rb"holding",
        )
        try:
            for n in range(5):
                put(n)
            tap.wait_until(
                lambda: proxy.holds(DELIVER, 1),
                60,
                "they belong to the first, which has not received them",
            )
            tap.wait_until(
                lambda: one.call("queue_show", name="work").queues[0].leased == 5, 60, "all of them"
            )
            proxy.cut()
            for number in (1, 2):
                tap.wait_until(lambda of=number: proxy.holds_all(of), 60, "they come again")
            process.signal(signal.SIGUSR1)
            tap.wait_until(
                lambda: b"closed\n" in process.text(), 60, f"the first is closed: {process.tail()}"
            )
            proxy.pass_on_to(1)
            proxy.pass_on_to(2)
            process.signal(signal.SIGUSR1)
            put(5)
            tap.wait_until(
                lambda: b"item 5\n" in process.text(), 60, f"the second goes on: {process.tail()}"
            )
            tap.equal(sorted(int(of) for of in items_of(process)), list(range(6)), "each came once")
        finally:
            process.kill()


def test_leases_that_ran_out_without_a_connection_give_no_credit_back():
    probe = tap.program("tests/integration/credit_probe")

    def leased():
        shown = subprocess.run(
            [
                tap.program("client/cli/sluice"),
                "--address",
                broker.address,
                "-o",
                "json",
                "queue",
                "show",
                "work",
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return json.loads(shown.stdout)["queues"][0].get("leased", 0)

    with tap.Broker() as broker, contextlib.closing(Proxy(broker.port)) as proxy:
        process = tap.Process([probe, proxy.address], ready=rb"holding")
        try:
            proxy.refuse = True
            proxy.cut()
            tap.wait_until(lambda: leased() == 0, 60, "its leases run out")
            proxy.refuse = False
            process.signal(signal.SIGUSR1)
            tap.wait_until(
                lambda: b"stale " in process.text(),
                60,
                f"its acks of them are refused: {process.tail()}",
            )
            resumed, count = (
                int(re.search(word + rb" (\d+)", process.text()).group(1))
                for word in (rb"resumed", rb"stale")
            )
            tap.equal(process.wait(60), 0, f"all items are acked in the end: {process.tail()}")
            tap.equal(
                resumed, 5, "held items count against the credit, although their leases have ended"
            )
            tap.equal(count, 10, "5 more, for those that were acked")
        finally:
            process.kill()


tap.main(globals())
