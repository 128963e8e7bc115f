#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sessions: an unused session that disconnects costs little, a session that holds something is
shown with name and address, and an operator can end it."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import tap
from frame_proxy import FrameProxy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import HELLO, WELCOME, Closed, Connection, Refused, envelope, pb  # noqa: E402

UNUSED_MAX = 1000  # limit: SESSIONS_UNUSED_MAX


def sluice(broker, *words):
    return subprocess.run(
        [tap.program("client/cli/sluice"), "--address", f"127.0.0.1:{broker.port}", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )


def hello(broker, **members):
    one = Connection(broker.port, hello=False)
    one.send(
        HELLO,
        pb.Hello(
            version_min=1, version_max=1, session_timeout_ms=86400000, **members
        ).SerializeToString(),
    )
    return one


class Before:
    """A proxy that imitates a broker without the feature: WELCOME does not name it."""

    def __init__(self, port):
        self.to, self.changed = port, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                near, far = self.listener.accept()[0], socket.create_connection(
                    ("127.0.0.1", self.to)
                )
                threading.Thread(target=self.pass_on, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self.pass_on, args=(far, near, True), daemon=True).start()

    def pass_on(self, source, sink, hide):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if hide and b"session-close" in data:
                    self.changed += 1
                    data = data.replace(b"session-close", b"not-so-called")
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()


class Switch(FrameProxy):
    """With `before`, the broker is one without the feature; with `hold`, its replies wait for
    release()."""

    REQUEST, REPLY = 2, 66

    def __init__(self, port):
        super().__init__(port)
        self.before, self.hold, self.held, self.asked = False, False, [], 0

    def take(self, source, sink, name, frame, link):
        if name == "broker" and frame[4] == WELCOME and self.before:
            frame = frame.replace(b"session-close", b"not-so-called")
        if name == "client" and frame[4] == self.REQUEST:
            self.asked += pb.Request.FromString(frame[10:]).WhichOneof("op") == "session_close"
        if name == "broker" and frame[4] == self.REPLY and self.hold:
            self.held.append((sink, frame))
        else:
            sink.sendall(frame)

    def release(self):
        with self.lock:
            self.hold = False
            for sink, frame in self.held:
                sink.sendall(frame)


def sessions(one):
    return one.call("status_get").status.sessions


def test_who_comes_and_goes_leaves_a_bounded_number_of_sessions():
    with tap.Broker() as broker:
        watcher = Connection(broker.port)
        named = hello(broker, session_name="kept")
        named.wait(WELCOME)
        named.close()
        worker = hello(broker)
        welcome = pb.Welcome.FromString(worker.wait(WELCOME).body)
        worker.call("queue_create", config=dict(name="work"))
        worker.close()
        for _ in range(6):
            many = [hello(broker, client="x" * 500) for _ in range(200)]
            for one in many:
                one.wait(WELCOME)
            for one in many:
                one.close()
        tap.wait_until(
            lambda: sessions(watcher) <= UNUSED_MAX + 3, 60, "the oldest unused ones end"
        )
        rows = {row.name: row for row in watcher.call("session_list").sessions}
        tap.check("kept" in rows, "one with a name is kept")
        tap.equal(
            (rows["kept"].face, rows["kept"].address, rows["kept"].principal),
            (pb.FACE_NATIVE, "127.0.0.1", ""),
            "how it came, from where, and that nobody was authenticated",
        )
        tap.equal(rows["kept"].ephemeral, False, "it outlives its connection")
        back = Connection(
            broker.port, session_id=welcome.session_id, session_secret=welcome.session_secret
        )
        tap.equal(back.welcome.resumed, True, "one that did something is resumed")


def test_another_session_is_not_closed_where_the_broker_would_close_the_callers():
    """An older broker does not know the number in session_close: the library finds that by its
    features, and does not send the request."""
    with tap.Broker() as broker, Connection(broker.port, session_name="gpu-7") as holder:
        with contextlib.closing(Before(broker.port)) as link:
            for which in ("gpu-7", str(holder.welcome.session_id)):
                done = sluice(link, "session", "close", which)
                tap.equal(done.returncode, 3, f"unsupported: {done.stderr}")
                tap.check("older" in done.stderr, f"and the reason: {done.stderr}")
            tap.check(link.changed >= 2, "the feature was hidden")
            tap.equal(holder.call("status_get").code, 0, "it lives")
        tap.equal(sluice(broker, "session", "close", "gpu-7").returncode, 0, "this one can")


def closer(link, how, ready):
    return tap.Process(
        [tap.program("tests/integration/closer_probe"), link.address, how], ready=ready
    )


def test_a_close_of_another_session_has_one_deadline():
    """Of the call, also when it waits for the connection first."""
    with tap.Broker() as broker, contextlib.closing(Switch(broker.port)) as link:
        link.refuse = link.hold = True
        process = closer(link, "first", rb"waiting")
        try:
            link.refuse = False
            tap.wait_until(
                lambda: b"deadline" in process.text(), 60, f"the request is made: {process.tail()}"
            )
            link.release()
            tap.equal(process.wait(60), 0, process.tail())
            tap.equal(
                process.text().split(b"\n")[1:3],
                [b"deadline kept", b"SESSION_GONE"],
                "the time for the connection counts",
            )
        finally:
            process.kill()


def test_a_close_of_another_session_is_not_sent_to_an_older_broker_after_a_reconnect():
    """The first broker supports the request; the one after the reconnect would close the caller's
    own session."""
    with tap.Broker() as broker, contextlib.closing(Switch(broker.port)) as link:
        process = closer(link, "again", rb"connected")
        try:
            link.refuse = link.before = True
            link.cut()
            tap.wait_until(
                lambda: b"asked" in process.text(), 60, f"the request is made: {process.tail()}"
            )
            link.refuse = False
            tap.equal(process.wait(60), 0, process.tail())
            tap.check(
                b"\nUNSUPPORTED\n" in process.text(), f"refused by the library: {process.tail()}"
            )
            tap.equal(link.asked, 1, "no such request except at the probe's own end")
        finally:
            process.kill()


def test_sessions_are_listed_and_closed_by_the_cli():
    with tap.Broker() as broker:
        holder = Connection(broker.port, session_name="gpu-7")
        holder.call("queue_create", config=dict(name="work", max_attempts=7, max_items=50))
        holder.publish(
            [envelope(b"one"), envelope(b"two")], "put", target=client.TO_QUEUE, name="work"
        )
        holder.call("consume_open", queue="work", subscription=1, credit=1, session_lease=True)
        holder.deliver(1)
        listed = json.loads(sluice(broker, "session", "ls", "-o", "json").stdout)["sessions"]
        mine = [row for row in listed if row.get("name") == "gpu-7"]
        tap.equal([row.get("address") for row in mine], ["127.0.0.1"], "with its address")
        tap.check("gpu-7" in sluice(broker, "session", "ls").stdout, "in a table, too")
        item = json.loads(
            sluice(broker, "queue", "peek", "work", "--state", "leased", "-o", "json").stdout
        )["items"][0]
        tap.equal(
            (item["holder"], item["holder_address"]),
            ("gpu-7", "127.0.0.1"),
            "peek shows the holder",
        )
        tap.wait_until(
            lambda: holder.call("queue_peek", name="work", state="leased").items[0].held_ms > 0,
            30,
            "it is held for some time",
        )
        item = json.loads(
            sluice(broker, "queue", "peek", "work", "--state", "leased", "-o", "json").stdout
        )["items"][0]
        tap.check(int(item["held_ms"]) > 0, "peek shows since when it is held")
        shown = sluice(broker, "queue", "peek", "work").stdout
        tap.equal(
            len(
                re.findall(
                    r"\d\d:\d\d:\d\d", [line for line in shown.splitlines() if "gpu-7" in line][0]
                )
            ),
            2,
            f"put, and held since: {shown}",
        )
        tap.check("gpu-7" in shown and "its session's end" in shown, f"and until when: {shown}")
        tap.equal(
            sluice(broker, "session", "close", "nobody").returncode, 4, "a name that does not exist"
        )
        tap.equal(sluice(broker, "session", "close", "gpu-7").returncode, 0, "closed by name")
        watcher = Connection(broker.port)
        tap.equal(watcher.call("queue_show", name="work").queues[0].leased, 0, "its items go back")
        other = Connection(broker.port)
        number = str(other.welcome.session_id)
        digits = Connection(broker.port, session_name=number)
        tap.equal(sluice(broker, "session", "close", number).returncode, 0, "a name of digits")
        tap.raises(Exception, lambda: digits.call("status_get"), "means that session")
        other.call("status_get")
        tap.equal(
            sluice(broker, "session", "close", number).returncode,
            0,
            "and the number, if no session has that name",
        )
        tap.raises(Exception, lambda: other.call("status_get"), "means the other one")
        tap.raises(Exception, lambda: holder.call("status_get"), "its connection is closed")


def test_the_limit_of_automatic_extension_is_shown_by_the_cli_over_a_resume():
    with tap.Broker() as broker:
        one = Connection(broker.port, session_name="worker")
        one.call("queue_create", config=dict(name="work"))
        one.publish(
            [envelope(b"limited"), envelope(b"silent")], "put", target=client.TO_QUEUE, name="work"
        )
        one.call(
            "consume_open",
            queue="work",
            subscription=1,
            credit=1,
            lease_ms=600000,
            extend_max_ms=43200000,
        )
        one.deliver(1)
        one.call("consume_open", queue="work", subscription=2, credit=1, lease_ms=600000)
        one.deliver(2)

        def items():
            return json.loads(sluice(broker, "queue", "peek", "work", "-o", "json").stdout)["items"]

        def column(line, head, name):
            return line[head.index(name) : head.index("UNTIL")].strip()

        tap.equal(
            [int(item.get("extend_max_ms", 0)) for item in items()],
            [43200000, 0],
            "the consumer that gives a limit has it, the other none",
        )
        head, *rows = sluice(broker, "queue", "peek", "work").stdout.splitlines()
        tap.equal(
            [column(row, head, "EXTEND MAX") for row in rows],
            ["12h", "-"],
            f"in the table: {head} {rows}",
        )
        tap.check(
            "SINCE" in head
            and head.index("SINCE") < head.index("EXTEND MAX") < head.index("UNTIL"),
            "beside since when it is held",
        )
        for limit in (43200000, 0):
            again = Connection(
                broker.port,
                session_id=one.welcome.session_id,
                session_secret=one.welcome.session_secret,
            )
            again.call(
                "consume_open",
                queue="work",
                subscription=1,
                credit=10,
                resume=True,
                extend_max_ms=limit,
            )
            again.deliver(1)
            again.deliver(1)
            head, *rows = sluice(broker, "queue", "peek", "work").stdout.splitlines()
            tap.equal(
                [column(row, head, "EXTEND MAX") for row in rows],
                ["12h", "12h"],
                f"after a resume that says {limit}: {rows}",
            )
        again.call(
            "consume_open",
            queue="work",
            subscription=2,
            credit=1,
            lease_ms=600000,
            extend_max_ms=90500,
        )
        again.publish([envelope(b"odd")], "put", target=client.TO_QUEUE, name="work")
        again.deliver(2)
        head, *rows = sluice(broker, "queue", "peek", "work").stdout.splitlines()
        tap.equal(column(rows[2], head, "EXTEND MAX"), "90500ms", "a limit of no whole seconds")


def test_queues_are_altered_and_purged_by_the_cli():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        one.call("queue_create", config=dict(name="dead"))
        one.call(
            "queue_create",
            config=dict(
                name="work",
                max_attempts=7,
                max_items=50,
                dead_letter="dead",
                priority=True,
                description="of the lab",
            ),
        )
        run = sluice(broker, "queue", "alter", "work", "--lease", "90s", "--max-items", "60")
        tap.equal(run.returncode, 0, run.stderr)
        config = one.call("queue_show", name="work").queues[0].config
        tap.equal(
            (
                config.lease_ms,
                config.max_items,
                config.max_attempts,
                config.dead_letter,
                config.priority,
                config.description,
            ),
            (90000, 60, 7, "dead", True, "of the lab"),
            "settings that were not given stay",
        )
        tap.check(
            sluice(broker, "queue", "alter", "nothing", "--lease", "9s").returncode != 0,
            "there must be one",
        )
        one.call("queue_create", config=dict(name="runs", kind=pb.QUEUE_JOBS, lifecycle="airavata"))
        run = sluice(broker, "queue", "alter", "runs", "--lease", "90s")
        tap.equal(run.returncode, 0, f"one of jobs stays one of jobs: {run.stderr}")
        config = one.call("queue_show", name="runs").queues[0].config
        tap.equal(
            (config.lease_ms, config.kind, config.lifecycle),
            (90000, pb.QUEUE_JOBS, "airavata"),
            "and has what was said",
        )
        one.publish(
            [envelope(b"%d" % n) for n in range(5)], "put", target=client.TO_QUEUE, name="work"
        )
        tap.check(
            sluice(broker, "queue", "purge", "work").returncode != 0,
            "without a terminal it requires --yes",
        )
        tap.equal(one.call("queue_show", name="work").queues[0].ready, 5, "nothing was purged")
        run = sluice(broker, "--yes", "queue", "purge", "work")
        tap.equal((run.returncode, run.stdout), (0, "5\n"), f"it says how many: {run.stderr}")
        tap.equal(one.call("queue_show", name="work").queues[0].ready, 0, "purged")


def lapse(broker, gate):
    """Resumes a named session while the commit that ends it for its timeout is held; returns the
    ERROR's code, or None if another commit was held."""
    one = Connection(broker.port, session_name="scheduler", session_timeout_ms=1000)
    kept = dict(session_id=one.welcome.session_id, session_secret=one.welcome.session_secret)
    with open(gate, "wb"):
        pass
    one.close()
    tap.wait_until(lambda: os.path.exists(gate + ".held"), 30, "a commit is held")
    back = Connection(broker.port, session_name="scheduler", session_timeout_ms=1000, **kept)
    tap.equal(back.welcome.resumed, True, "a session whose end is not on disk has not ended")
    os.unlink(gate)
    os.unlink(gate + ".held")
    try:
        back.call("queue_create", config=dict(name="work"), if_not_exists=True)
        back.close()
    except Closed as closed:
        return closed.failure.code
    except Refused as refused:
        tap.equal(refused.code, -24, "a command of the session that has ended is refused")
        try:
            back.read()
        except Closed as closed:
            return closed.failure.code
    return None


def test_a_name_is_not_lost_to_nobody():
    tap.not_sanitized("a sanitizer wants to be the first library")
    with tempfile.TemporaryDirectory() as top:
        gate = os.path.join(top, "gate")
        env = {"LD_PRELOAD": tap.program("tests/integration/sync_gate.so"), "SYNC_GATE": gate}
        with tap.Broker(env=env) as broker:
            codes = []
            while len(codes) < 10 and not (codes and codes[-1] is not None):
                codes.append(lapse(broker, gate))
            tap.equal(codes[-1], -40, "TIMEOUT: SESSION_GONE says that another client has the name")
            holder = Connection(broker.port, session_name="scheduler")
            Connection(broker.port, session_name="scheduler").close()
            try:
                holder.read()
                tap.check(False, "its session was taken over")
            except Closed as closed:
                tap.equal(closed.failure.code, -24, "a name that another client opened")


def clients(one):
    """The clients of all sessions, of a broker that has many."""
    names, after = [], 0
    while True:
        reply = one.call("session_list", after=after, max=1000)
        names += [row.client for row in reply.sessions]
        if not reply.more:
            return names
        after = reply.sessions[-1].id


def test_no_ephemeral_session_survives_a_start():
    with tap.Scratch() as data:
        with tap.Broker(data=data) as broker, Connection(broker.port) as one:
            one.call("queue_create", config=dict(name="work"))
            one.publish(
                [envelope(b"%d" % n) for n in range(7)], "put", target=client.TO_QUEUE, name="work"
            )
        left = subprocess.run(
            [tap.program("tests/integration/leave_sessions"), data, "work", "3000"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        tap.equal((left.returncode, left.stdout), (0, "7\n"), f"what it holds: {left.stderr}")
        with tap.Broker(data=data) as broker, Connection(broker.port, client="first") as one:
            names = clients(one)
            tap.equal(names.count("ephemeral"), 0, "the first that comes finds none")
            tap.equal(names.count("free"), 1, "the others are still there")
            tap.equal(
                one.call("queue_show", name="work").queues[0].ready, 7, "what it held is ready"
            )


STOPPED_SECONDS, STOPPED_TIMEOUT_MS = 14, 10000


def test_no_session_ends_by_time_in_which_the_broker_is_stopped():
    with tap.Broker() as broker:
        attached = Connection(broker.port, session_timeout_ms=STOPPED_TIMEOUT_MS)
        waiting = Connection(broker.port, hello=False)  # it has not said HELLO
        gone = Connection(broker.port, session_name="gone", session_timeout_ms=STOPPED_TIMEOUT_MS)
        gone.close()
        tap.wait_until(
            lambda: attached.call("status_get").status.connections == 2, 30, "it is gone"
        )
        broker.signal(signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        broker.signal(signal.SIGCONT)
        tap.equal(
            attached.call("queue_create", config=dict(name="work")).code,
            0,
            "one with a connection that was silent",
        )
        back = Connection(
            broker.port,
            session_id=gone.welcome.session_id,
            session_secret=gone.welcome.session_secret,
        )
        tap.equal(back.welcome.resumed, True, "one without a connection")
        tap.check(waiting.hello().session_id != 0, "a connection before its HELLO")


tap.main(globals())
