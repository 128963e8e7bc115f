#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A client of a broker that stops: what it calls from then on waits for the next connection, and
nothing is done twice or has an unknown outcome that the broker never had."""
import contextlib
import os
import signal
import sys

import tap
from frame_proxy import FrameProxy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import Connection, pb  # noqa: E402

CALLS = ("publish", "create", "ack", "transaction")


def notice(kind, **fields):
    body = pb.Notice(kind=kind, **fields).SerializeToString()
    return (len(body) + 6).to_bytes(4, "big") + bytes([client.NOTICE]) + bytes(5) + body


class Stopping(FrameProxy):
    """On the first connection: instead of the answer to the frame with b"outstanding" it tells the
    client that the broker stops, and then keeps from the broker what the client still sends
    (`late`). With `drop` it keeps everything from the broker (`dropped`)."""

    def __init__(self, port):
        super().__init__(port)
        self.links, self.frames = 0, []
        self.corr, self.stopped, self.withheld = None, None, []
        self.drop, self.late, self.dropped = False, [], []
        self.client_left = False

    def connected(self):
        self.links += 1
        return self.links

    def take(self, source, sink, name, frame, link):
        if name == "client":
            self.frames.append((link, frame))
        if link == 1 and name == "client" and self.stopped is not None:
            self.late.append(frame)
            return
        if link == 1 and name == "client" and self.drop:
            self.dropped.append(frame)
            return
        if link == 1 and name == "client" and b"outstanding" in frame:
            self.corr = frame[6:10]
        elif link == 1 and self.corr is not None and frame[6:10] == self.corr:
            self.withheld.append(frame)
            self.stopped = sink
            frame = notice(pb.NOTICE_SHUTDOWN, offset=60000) + notice(
                pb.NOTICE_JOB_CANCEL, job="none"
            )
        sink.sendall(frame)

    def pass_on(self, source, sink, name, link):
        super().pass_on(source, sink, name, link)
        if link == 1 and name == "client":
            self.client_left = True

    def release(self):
        with self.lock:
            self.stopped.sendall(b"".join(self.withheld))

    def sent(self, link, *texts):
        """How many of the client's frames on that connection have one of the texts."""
        with self.lock:
            return sum(
                number == link and any(text in frame for text in texts)
                for number, frame in self.frames
            )


def probe_of(proxy, mode):
    return tap.Process(
        [tap.program("tests/integration/drain_probe"), proxy.address, mode], ready=rb"ready"
    )


def outcomes(process, expected):
    """How the calls ended, and that the session was resumed once."""
    tap.equal(process.wait(60), 0, f"exit code of the probe: {process.tail()}")
    said = [line.split(" ", 1) for line in process.text().decode().splitlines() if " " in line]
    tap.equal(dict(said), expected, f"how the calls ended: {process.tail()}")


def stored(port, events):
    with Connection(port) as one:
        tap.equal(
            one.call("stream_show", name="s").streams[0].next_offset, events, "events in the stream"
        )
        queue = one.call("queue_show", name="q").queues[0]
        tap.equal((queue.ready, queue.leased), (0, 0), "items that are left: ready, leased")
        one.call("queue_show", name="new")


def told(mode, end, expected):
    """`end` makes the connection end, after the calls."""
    with tap.Broker() as broker, contextlib.closing(Stopping(broker.port)) as proxy:
        process = probe_of(proxy, mode)
        try:
            process.signal(signal.SIGUSR1)
            tap.wait_until(lambda: b"asked" in process.text(), 30, "the calls were made")
            tap.equal(
                (proxy.links, proxy.client_left), (1, False), "it waits for the answer that lacks"
            )
            end(proxy)
            outcomes(process, {**{call: "OK" for call in CALLS}, "outstanding": expected})
            tap.equal(len(proxy.late), 0, "frames that it sent to a broker that stops")
            tap.equal(proxy.links, 2, "connections")
            tap.equal(proxy.sent(2, b"kept"), 1, "the publish was sent")
            tap.equal(proxy.sent(2, b"in a transaction"), 1, "the transaction was sent")
        finally:
            process.kill()
        stored(broker.port, 4 + (mode == "publish"))
        tap.equal(
            proxy.sent(2, b"outstanding"),
            int(mode == "publish" and end is cut),
            "what had no answer, on the new connection",
        )


def closes(proxy):
    """(connection, subscription) of each close that the client has sent."""
    with proxy.lock:
        requests = [
            (link, pb.Request.FromString(frame[10:]))
            for link, frame in proxy.frames
            if frame[4] == client.REQUEST
        ]
    return [
        (link, request.subscription_close.subscription)
        for link, request in requests
        if request.HasField("subscription_close")
    ]


def leave(proxy):
    """With the last answer the client leaves by itself."""
    proxy.release()
    tap.wait_until(lambda: proxy.client_left, 30, "the client leaves the broker that stops")


def cut(proxy):
    proxy.cut()


def test_a_client_leaves_a_broker_that_stops_with_the_last_answer():
    told("publish", leave, "OK")


def test_a_request_is_answered_before_its_client_leaves():
    told("request", leave, "OK")


def test_a_publish_without_an_answer_is_settled_after_the_stop():
    told("publish", cut, "OK duplicate")


def test_only_what_the_broker_had_is_unknown_if_it_stops_without_an_answer():
    told("request", cut, "UNKNOWN")


def test_what_a_stopped_broker_has_not_taken_is_sent_to_the_next():
    """The calls are sent, but do not reach the broker before it stops."""
    with tap.Scratch() as data, contextlib.ExitStack() as stack:
        broker = tap.Broker(data)
        proxy = stack.enter_context(contextlib.closing(Stopping(broker.port)))
        process = probe_of(proxy, "untaken")
        stack.callback(process.kill)
        proxy.drop = True
        process.signal(signal.SIGUSR1)
        for text in (b"kept", b"\x03new", b"in a transaction"):
            tap.wait_until(lambda text=text: proxy.sent(1, text) == 1, 30, f"{text} is on its way")
        tap.wait_until(
            lambda: any(frame[4] == client.ACK for frame in proxy.dropped) and closes(proxy) != [],
            30,
            "an ack and the close of a subscription are on their way",
        )
        proxy.refuse = True
        broker.stop()
        with tap.Broker(data, port=broker.port) as again:
            proxy.refuse = False
            outcomes(process, {call: "OK" for call in CALLS})
            tap.equal(proxy.sent(2, b"kept"), 1, "the publish was sent")
            stored(again.port, 4)
            (first, number), *others = closes(proxy)
            tap.check(
                first == 1 and number not in [other for _, other in others],
                f"a close is not repeated on another connection: {closes(proxy)}",
            )


if __name__ == "__main__":
    tap.main(globals())
