#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A broker without file descriptors for new connections: they wait, it does not use the processor
meanwhile, and they are served when others have closed."""
import os
import resource
import sys
import time

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import Connection, pb  # noqa: E402

FREE, MORE = 10, 15


def hello(port):
    """A connection that has sent HELLO and waits for the answer."""
    one = Connection(port, hello=False)
    one.send(
        client.HELLO,
        pb.Hello(version_min=1, version_max=1, client="descriptors").SerializeToString(),
    )
    return one


def welcomed(one):
    """Whether WELCOME has arrived."""
    one.sock.setblocking(False)
    try:
        one.buffer += one.sock.recv(65536)
    except (BlockingIOError, ConnectionResetError):
        pass
    return len(one.buffer) > 5 and one.buffer[4] == client.WELCOME


def refusals(broker):
    return broker.text().count(b"id=net.descriptors")


def test_connections_beyond_the_descriptors_wait_and_are_served_later():
    with tap.Broker() as broker:
        used = len(os.listdir(f"/proc/{broker.pid}/fd"))
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (used + FREE, used + FREE))
        began = time.monotonic()
        conns = [hello(broker.port) for _ in range(FREE + MORE)]
        tap.wait_until(
            lambda: sum(welcomed(one) for one in conns) == FREE,
            30,
            "as many as there are descriptors are served",
        )
        tap.wait_until(lambda: refusals(broker) >= 3, 30, "the broker tries again")
        # On a slow machine there are fewer; a loop without a pause would log thousands per second.
        tap.check(
            refusals(broker) <= 2 * (time.monotonic() - began) + 2,
            f"but not all the time ({refusals(broker)} times)",
        )
        tap.equal(sum(welcomed(one) for one in conns), FREE, "the others wait")
        served = [one for one in conns if welcomed(one)]
        served[0].sock.setblocking(True)
        served[0].ping()
        for one in served:
            one.close()
        waiting = [one for one in conns if one not in served]
        tap.wait_until(
            lambda: sum(welcomed(one) for one in waiting) == FREE,
            30,
            "when those have closed the next are served",
        )
        for one in waiting:
            one.close()
        with Connection(broker.port) as last:
            last.ping()


tap.main(globals())
