#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Notifications of the ledger to a holder (cancel, reset, lost lease, takeover) reach it despite
broken connections: at the resume it gets the state, wherever between two frames the connection
breaks."""
import contextlib
import os
import subprocess
import sys
import tempfile

import tap
from frame_proxy import FrameProxy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import Connection, envelope, pb  # noqa: E402
import client  # noqa: E402

CUTS = 16  # more frames than a client needs to resume and get its jobs again


class Link(FrameProxy):
    """A proxy between one client and the broker. After a cut no connection is accepted until it is
    repaired; `cut_after`: the next connection breaks after that number of frames, in both
    directions together."""

    def __init__(self, port):
        super().__init__(port)
        self.cut_after = None
        self.made = self.cuts = 0

    def connected(self):
        left, self.cut_after = [self.cut_after], None
        self.made += 1
        return left

    def take(self, source, sink, name, frame, link):
        frame = self.change(frame)
        if link[0] == 0:
            self.cuts += 1
            raise OSError("cut")
        if link[0] is not None:
            link[0] -= 1
        sink.sendall(frame)

    def change(self, frame):
        """Handles a frame; here it does nothing."""
        return frame

    def at_cut(self):
        self.refuse = True

    def mend(self, cut_after=None):
        with self.lock:
            self.cut_after, self.refuse = cut_after, False


class Probe:
    def __init__(self, link, source, *more):
        self.process = tap.Process(
            [tap.program("tests/integration/held_probe"), link.address, source, *more],
            ready=rb"^session (\d+)$",
        )
        self.session = int(self.process.ready.group(1))

    def lines(self, *words):
        """The lines that begin with these words, split."""
        return [
            line.split()
            for line in self.process.text().decode().splitlines()
            if line.split()[: len(words)] == list(words)
        ]

    def says(self, *words):
        tap.wait_until(lambda: self.lines(*words), 60, f"the probe says {words}")
        return self.lines(*words)

    def kill(self):
        self.process.kill()


@contextlib.contextmanager
def held(source="local:one"):
    with tap.Broker() as broker, contextlib.closing(Link(broker.port)) as link, Connection(
        broker.port
    ) as admin:
        admin.call(
            "queue_create", pb.QueueCreate(config=pb.QueueConfig(name="runs", kind=pb.QUEUE_JOBS))
        )
        admin.call("queue_create", pb.QueueCreate(config=pb.QueueConfig(name="work")))
        probe = Probe(link, source)
        try:
            yield broker, link, admin, probe
        finally:
            probe.kill()


def intended(admin, probe, job):
    admin.call("job_submit", job=job, queue="runs")
    token = probe.says("job", job)[-1][2]
    tap.wait_until(lambda: show(admin, job).intent, 60, f"{job} is intended")
    return token


def show(admin, job):
    return admin.call("job_show", job=job).jobs[0]


class Before(Link):
    """Imitates a broker that knows no sources: the operation gets an unknown number, and unknown
    members are removed."""

    asked = 0

    def change(self, frame):
        if frame[4] == 2 and frame[10:12] == bytes([0xB2, 0x09]):  # REQUEST, source_seen = 150
            self.asked += 1
            return frame[:10] + bytes([0xBA, 0x3E]) + frame[12:]  # 999
        return frame


def test_a_broker_that_knows_no_sources_gives_jobs_all_the_same():
    with tap.Broker() as broker, contextlib.closing(Before(broker.port)) as link, Connection(
        broker.port
    ) as admin:
        admin.call(
            "queue_create", pb.QueueCreate(config=pb.QueueConfig(name="runs", kind=pb.QUEUE_JOBS))
        )
        admin.call("queue_create", pb.QueueCreate(config=pb.QueueConfig(name="work")))
        # An older broker ignores the source of a consumer; this one must know it.
        admin.call("source_seen", source="local:one", ok=True)
        probe = Probe(link, "local:one")
        try:
            intended(admin, probe, "one")
            tap.check(link.asked >= 1, "the source was announced")
            tap.equal(probe.lines("gone"), [], "no subscription ended")
        finally:
            probe.kill()


def over_every_cut(source):
    with held(source) as (broker, link, admin, probe):
        for n in range(CUTS):
            jobs = {what: f"{what}-{n}" for what in ("cancel", "reset", "ended", "kept")}
            tokens = {what: intended(admin, probe, job) for what, job in jobs.items()}
            link.cut()
            admin.call("job_cancel", job=jobs["cancel"])
            admin.call("job_reset", job=jobs["reset"], force=True)
            admin.call(
                "job_report", job=jobs["ended"], attempt=1, state="COMPLETE", source="somebody else"
            )
            link.mend(cut_after=n)
            tap.equal(
                probe.says("cancel", jobs["cancel"])[0][2], tokens["cancel"], f"cut {n}: the cancel"
            )
            tap.equal(
                probe.says("lost", jobs["reset"])[0][2], tokens["reset"], f"cut {n}: the reset"
            )
            tap.equal(
                probe.says("lost", jobs["ended"])[0][2],
                tokens["ended"],
                f"cut {n}: the end that another one reported",
            )
            tap.wait_until(
                lambda: show(admin, jobs["cancel"]).state == "CANCELED",
                60,
                f"cut {n}: the holder ends what was cancelled",
            )
            again = probe.lines("job", jobs["reset"])
            tap.wait_until(
                lambda: len(probe.lines("job", jobs["reset"])) == 2,
                60,
                f"cut {n}: the new attempt comes",
            )
            tap.check(
                int(probe.lines("job", jobs["reset"])[1][2]) > int(again[0][2]),
                "under another token",
            )
            tap.equal(
                len(probe.lines("job", jobs["kept"])), 1, f"cut {n}: held jobs do not come again"
            )
            for what in ("cancel", "lost"):
                tap.equal(
                    probe.lines(what, jobs["kept"]), [], f"cut {n}: no notice of unchanged jobs"
                )
            tap.equal(len(probe.lines("lost", jobs["reset"])), 1, f"cut {n}: once")
        tap.check(
            link.cuts >= 6,
            f"the connection was cut between the frames of the resume, {link.cuts} times",
        )


def test_a_cancel_a_reset_and_an_end_reach_a_holder_over_every_cut():
    over_every_cut("local:one")


def test_and_one_without_a_source():
    over_every_cut("")


def test_a_lost_lease_of_an_item_is_told_after_the_resume():
    with held() as (broker, link, admin, probe):
        answer = admin.publish([envelope(b"1")], "put", target=client.TO_QUEUE, name="work")
        tap.equal(answer.code, 0, "put")
        token = probe.says("item")[0][2]
        link.cut()
        tap.wait_until(
            lambda: admin.call("queue_show", name="work").queues[0].ready == 1,
            60,
            "its lease has run out",
        )
        link.mend()
        tap.equal(probe.says("lost", "-")[0][2], token, "the lease")
        tap.wait_until(
            lambda: len(probe.lines("item")) == 2,
            60,
            "and the item comes again, since the lost one was acked",
        )


def damage(data, table, *key):
    done = subprocess.run(
        [tap.program("tests/integration/damage"), data, table, "/".join(str(part) for part in key)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    tap.equal(done.returncode, 0, f"damaged {table} {key}: {done.stderr}")


def test_one_damaged_thing_hides_no_other_lost_lease():
    """A damaged record is named and stays held; all other leases that were lost meanwhile are
    reported."""
    with tempfile.TemporaryDirectory(
        prefix="sluice-test-"
    ) as data, contextlib.ExitStack() as stack:
        with tap.Broker(data=data) as broker, Connection(broker.port) as admin:
            link = stack.enter_context(contextlib.closing(Link(broker.port)))
            admin.call(
                "queue_create",
                pb.QueueCreate(config=pb.QueueConfig(name="runs", kind=pb.QUEUE_JOBS)),
            )
            admin.call("queue_create", pb.QueueCreate(config=pb.QueueConfig(name="work")))
            work = admin.call("queue_show", name="work").queues[0].id
            probe = Probe(link, "local:one", "two")
            stack.callback(probe.kill)
            tokens, jobs = {}, ("bad", "lost", "kept")
            for job in jobs:
                tokens[job] = intended(admin, probe, job)
            number = show(admin, "bad").number
            items = []
            for body in (b"1", b"2"):
                tap.equal(
                    admin.publish(
                        [envelope(body)], "put", target=client.TO_QUEUE, name="work"
                    ).code,
                    0,
                    "put",
                )
                tap.wait_until(
                    lambda: len(probe.lines("item")) == len(items) + 1, 60, "the item comes"
                )
                items.append(probe.lines("item")[-1][2])
            first = min(row.seq for row in admin.call("queue_peek", name="work").items)
            link.cut()
            broker.kill()
        damage(data, "item", 1, work, first)
        damage(data, "job", 1, number)
        with tap.Broker(data=data) as broker, Connection(broker.port) as admin:
            tap.wait_until(
                lambda: admin.call("queue_show", name="work").queues[0].leased == 1,
                60,
                "the second item's lease has expired",
            )
            admin.call(
                "job_report", job="lost", attempt=1, state="COMPLETE", source="somebody else"
            )
            link.port_of_broker = broker.port
            link.mend()
            tap.equal(
                probe.says("lost", "lost")[0][2], tokens["lost"], "the job that another one ended"
            )
            tap.equal(probe.says("lost", "-")[0][2], items[1], "the item whose lease expired")
            tap.equal(
                probe.lines("lost", "bad") + probe.lines("lost", "kept"),
                [],
                "damaged or kept jobs are not lost",
            )
            tap.equal(len(probe.lines("lost", "-")), 1, "nor is the damaged item")


def test_an_answer_that_was_lost_does_not_make_a_lost_lease():
    """A job that its holder has ended does not come again: the report is answered, and nothing
    else."""
    with held() as (broker, link, admin, probe):
        for n in range(8):
            job = f"j{n}"
            intended(admin, probe, job)
            link.cut()
            admin.call("job_cancel", job=job)
            link.mend()
            tap.wait_until(
                lambda: probe.lines("cancel", job), 60, "it is cancelled, and its end is on the way"
            )
            link.cut()
            link.mend()
            tap.wait_until(lambda: len(probe.lines("ended")) == n + 1, 60, "its end is answered")
            tap.equal(probe.lines("lost", job), [], "no lost lease")


def test_two_machines_on_one_queue():
    """An orphan waits for its own source, takes no slot of another machine, and its own source gets
    it with its intent."""
    with held("local:one") as (broker, link, admin, probe):
        intended(admin, probe, "running")
        link.cut()
        sessions = admin.call("session_list").sessions
        tap.check(any(one.id == probe.session for one in sessions), "its session lives")
        probe.kill()
        with contextlib.closing(Link(broker.port)) as other_link:
            two = Probe(other_link, "local:two")
            try:
                tap.wait_until(
                    lambda: show(admin, "running").claim == "orphaned", 90, "its session has ended"
                )
                intended(admin, two, "next")
                tap.equal(two.lines("again", "running"), [], "another source does not get it")
                lines = admin.call("job_explain", job="running").explained.lines
                tap.check(
                    any("local:one" in line for line in lines),
                    f"explain says for whom it waits: {lines}",
                )
                link.mend()
                one = Probe(link, "local:one")
                try:
                    one.says("again", "running")
                    tap.equal(show(admin, "running").judge, "local:one", "its own takes it over")
                finally:
                    one.kill()
            finally:
                two.kill()


def test_a_source_is_made_known_before_it_consumes():
    with tap.Broker() as broker, Connection(broker.port) as one, Connection(broker.port) as two:
        one.call(
            "queue_create", pb.QueueCreate(config=pb.QueueConfig(name="runs", kind=pb.QUEUE_JOBS))
        )
        tap.equal(
            one.try_call("consume_open", queue="runs", source="s", subscription=1).code,
            -23,
            "unknown: try again",
        )
        one.call("source_seen", source="s", ok=True, text="here")
        one.call("consume_open", queue="runs", source="s", subscription=1, resume=True)
        one.notice("RESUMED")
        tap.equal(
            two.try_call("source_seen", source="s").code, -12, "another session represents it"
        )
        two.call("source_seen", source="s", take=True)
        tap.equal(
            one.try_call("source_seen", source="s").code, -12, "and now it is the other way round"
        )


tap.main(globals())
