#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sessions: who leaves without having done anything costs little, who holds something is seen by name and address, and an operator can end it."""
import json
import os
import subprocess
import sys

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import HELLO, WELCOME, Connection, envelope, pb  # noqa: E402

UNUSED_MAX = 1000  # limit: SESSIONS_UNUSED_MAX


def sluice(broker, *words):
    return subprocess.run([tap.program("client/cli/sluice"), "--address", f"127.0.0.1:{broker.port}", *words],
                          capture_output=True, text=True, timeout=60)


def hello(broker, **members):
    one = Connection(broker.port, hello=False)
    one.send(HELLO, pb.Hello(version_min=1, version_max=1, session_timeout_ms=86400000, **members).SerializeToString())
    return one


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
        tap.wait_until(lambda: sessions(watcher) <= UNUSED_MAX + 3, 60, "the oldest that did nothing end")
        names = {row.name for row in watcher.call("session_list").sessions}
        tap.check("kept" in names, "one with a name is kept")
        back = Connection(broker.port, session_id=welcome.session_id, session_secret=welcome.session_secret)
        tap.equal(back.welcome.resumed, True, "one that did something is resumed")


def test_sessions_are_listed_and_closed_by_the_cli():
    with tap.Broker() as broker:
        holder = Connection(broker.port, session_name="gpu-7")
        holder.call("queue_create", config=dict(name="work", max_attempts=7, max_items=50))
        holder.publish([envelope(b"one"), envelope(b"two")], "put", target=client.TO_QUEUE, name="work")
        holder.call("consume_open", queue="work", subscription=1, credit=1, session_lease=True)
        holder.deliver(1)
        listed = json.loads(sluice(broker, "session", "ls", "-o", "json").stdout)["sessions"]
        mine = [row for row in listed if row.get("name") == "gpu-7"]
        tap.equal([row.get("address") for row in mine], ["127.0.0.1"], "with its address")
        tap.check("gpu-7" in sluice(broker, "session", "ls").stdout, "in a table, too")
        item = json.loads(sluice(broker, "queue", "peek", "work", "--state", "leased", "-o", "json").stdout)["items"][0]
        tap.equal((item["holder"], item["holder_address"]), ("gpu-7", "127.0.0.1"), "peek says who holds it")
        shown = sluice(broker, "queue", "peek", "work").stdout
        tap.check("gpu-7" in shown and "its session's end" in shown, f"and until when: {shown}")
        tap.equal(sluice(broker, "session", "close", "nobody").returncode, 4, "a name that is not there")
        tap.equal(sluice(broker, "session", "close", "gpu-7").returncode, 0, "closed by name")
        watcher = Connection(broker.port)
        tap.equal(watcher.call("queue_show", name="work").queues[0].leased, 0, "what it held goes back")
        tap.raises(Exception, lambda: holder.call("status_get"), "its connection is closed")


def test_queues_are_altered_and_purged_by_the_cli():
    with tap.Broker() as broker:
        one = Connection(broker.port)
        one.call("queue_create", config=dict(name="dead"))
        one.call("queue_create", config=dict(name="work", max_attempts=7, max_items=50, dead_letter="dead", priority=True, description="of the lab"))
        run = sluice(broker, "queue", "alter", "work", "--lease", "90s", "--max-items", "60")
        tap.equal(run.returncode, 0, run.stderr)
        config = one.call("queue_show", name="work").queues[0].config
        tap.equal((config.lease_ms, config.max_items, config.max_attempts, config.dead_letter, config.priority, config.description),
                  (90000, 60, 7, "dead", True, "of the lab"), "what was not said stays")
        tap.check(sluice(broker, "queue", "alter", "nothing", "--lease", "9s").returncode != 0, "there must be one")
        one.call("queue_create", config=dict(name="runs", kind=pb.QUEUE_JOBS, machine="airavata"))
        run = sluice(broker, "queue", "alter", "runs", "--lease", "90s")
        tap.equal(run.returncode, 0, f"one of jobs stays one of jobs: {run.stderr}")
        config = one.call("queue_show", name="runs").queues[0].config
        tap.equal((config.lease_ms, config.kind, config.machine), (90000, pb.QUEUE_JOBS, "airavata"), "and has what was said")
        one.publish([envelope(b"%d" % n) for n in range(5)], "put", target=client.TO_QUEUE, name="work")
        tap.check(sluice(broker, "queue", "purge", "work").returncode != 0, "without a terminal it wants --yes")
        tap.equal(one.call("queue_show", name="work").queues[0].ready, 5, "nothing was purged")
        run = sluice(broker, "--yes", "queue", "purge", "work")
        tap.equal((run.returncode, run.stdout), (0, "5\n"), f"it says how many: {run.stderr}")
        tap.equal(one.call("queue_show", name="work").queues[0].ready, 0, "purged")


tap.main(globals())
