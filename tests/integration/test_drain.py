#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A broker that is stopped under load: what it has taken it answers, what it has stored it has
answered, and its clients are told."""
import os
import signal
import sys
import threading
import time

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
from client import Closed, Connection, envelope, frame, publish_body  # noqa: E402
import client  # noqa: E402

CLIENTS = 4
AHEAD = 200  # publishes of one client without an answer


def publisher(port, subject, stop_at, result):
    """Publishes until the broker closes the connection; result: answered, told, and how many were
    answered when it said that all is."""
    answered, sent, told, drained = 0, 0, False, None
    with Connection(port) as link:
        try:
            while True:
                while sent - answered < AHEAD and not told:
                    body = publish_body([envelope(b"%d" % sent)], subject=subject)
                    link.send(client.PUBLISH, body, correlation=sent + 1)
                    sent += 1
                one = link.read(30)
                kind, correlation, body = one.type, one.correlation, one.body
                if kind == client.PUBLISHED:
                    tap.equal(client.parse_published(body)[0].code, 0, "the code of a publish")
                    tap.equal(correlation, answered + 1, "answers come in order")
                    answered += 1
                    if answered == stop_at:
                        result["ready"].set()
                elif kind == client.NOTICE:
                    notice = client.pb.Notice()
                    notice.ParseFromString(body)
                    told = told or notice.kind == client.pb.NOTICE_SHUTDOWN
                    if notice.kind == client.pb.NOTICE_DRAINED:
                        drained = answered
        except (Closed, OSError):
            pass
    result.update(answered=answered, sent=sent, told=told, drained=drained)


def test_a_stop_under_load_answers_all_that_is_stored():
    with tap.Scratch() as data:
        with tap.Broker(data) as broker:
            with Connection(broker.port) as link:
                for i in range(CLIENTS):
                    link.call("stream_create", config={"name": f"s{i}", "subjects": [f"s{i}.x"]})
            results = [{"ready": threading.Event()} for _ in range(CLIENTS)]
            threads = [
                threading.Thread(target=publisher, args=(broker.port, f"s{i}.x", 300, results[i]))
                for i in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            for result in results:
                tap.check(result["ready"].wait(60), "each client is publishing")
            broker.signal(signal.SIGTERM)
            for thread in threads:
                thread.join(60)
            broker.wait(60)
        for i, result in enumerate(results):
            tap.check(result["told"], f"client {i} was told: {result}")
            tap.equal(result["drained"], result["answered"], f"client {i} was told of the end")
        with tap.Broker(data) as broker, Connection(broker.port) as link:
            for i, result in enumerate(results):
                shown = link.call("stream_show", name=f"s{i}").streams[0]
                tap.equal(
                    shown.next_offset,
                    result["answered"],
                    f"client {i}: events that are stored, and those that were answered",
                )


def test_a_stop_does_not_wait_for_a_client_that_does_not_read():
    with tap.Broker(args=("--set", "drain_ms=60000")) as broker:
        link = Connection(broker.port)
        link.call("stream_create", config={"name": "s", "subjects": ["s.x"]})
        for _ in range(40):
            link.publish([envelope(b"x" * 250000)], subject="s.x")
        link.call("follow_open", stream="s", credit=100000, subscription=1)
        time.sleep(0.5)  # its deliveries fill the socket
        at = time.monotonic()
        broker.stop(seconds=30)
        tap.check(time.monotonic() - at < 30, "the broker has stopped")
        link.close()


def test_nor_for_one_that_asks_and_does_not_read():
    """Its requests wait until it reads the answers to those before them."""
    with tap.Broker(args=("--set", "drain_ms=60000")) as broker, Connection(broker.port) as link:
        for i in range(500):
            link.call("queue_create", config={"name": f"{i:0100}"})
        request = client.pb.Request()
        request.queue_list.max = 500
        with Connection(broker.port) as silent:
            packed = request.SerializeToString()
            asked = [frame(client.REQUEST, packed, correlation=i + 1) for i in range(900)]
            silent.sock.sendall(b"".join(asked))
            time.sleep(0.5)  # its answers fill the socket, and then the bound
            at = time.monotonic()
            broker.stop(seconds=30)
            tap.check(time.monotonic() - at < 30, "the broker has stopped")


def test_nothing_is_granted_while_the_broker_stops():
    """The items of a consumer with credit stay ready: a grant would wait out its lease."""
    with tap.Scratch() as data:
        with tap.Broker(data) as broker:
            with Connection(broker.port) as link, Connection(broker.port) as other:
                link.call("queue_create", config={"name": "q", "subjects": ["q.x"]})
                link.call("consume_open", queue="q", credit=1000, subscription=1)
                sent = b"".join(
                    frame(
                        client.PUBLISH,
                        publish_body([envelope(b"x")], subject="q.x"),
                        correlation=i + 1,
                    )
                    for i in range(50)
                )
                other.sock.sendall(sent)
                broker.signal(signal.SIGTERM)
                grants = []
                try:
                    while True:
                        one = link.read(30)
                        if one.type == client.DELIVER:
                            grants.append(client.parse_deliver(one.body))
                except (Closed, OSError):
                    pass
            broker.wait(60)
        with tap.Broker(data) as broker, Connection(broker.port) as link:
            shown = link.call("queue_show", name="q").queues[0]
            delivered = sum(len(grant.numbers) for grant in grants)
            tap.equal(shown.leased, delivered, "each item that is leased has reached its consumer")


if __name__ == "__main__":
    tap.main(globals())
