#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Bytes of a connection that a client has abandoned reach the broker late, because a proxy kept
them. They take nothing from the connection that the client made afterwards."""
import os
import signal
import socket
import sys
import threading

import tap

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "conformance"))
import client  # noqa: E402
from client import Connection, pb  # noqa: E402

STALE_ATTEMPT = -15


class Tunnel:
    """Keeps the bytes of its first connections without forwarding them; connects the others to the
    broker."""

    def __init__(self, port, kept):
        self.port, self.left = port, kept
        self.kept = []  # bytes of each
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                down = self.listener.accept()[0]
            except OSError:
                return
            self.sockets.append(down)
            if self.left > 0:
                self.left -= 1
                self.kept.append(bytearray())
                threading.Thread(target=self.keep, args=(down, self.kept[-1]), daemon=True).start()
                continue
            up = socket.create_connection(("127.0.0.1", self.port))
            self.sockets.append(up)
            for one, other in ((down, up), (up, down)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    @staticmethod
    def keep(sock, into):
        try:
            while data := sock.recv(65536):
                into += data
        except OSError:
            pass

    @staticmethod
    def carry(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.close()
        for sock in self.sockets:
            sock.close()


def late(port, data):
    """The broker's answer to bytes that arrive late."""
    conn = Connection(port, hello=False)
    conn.sock.sendall(bytes(data))
    try:
        frame = conn.read(20)
    except client.Closed as closed:
        return closed.failure
    raise AssertionError(f"a frame of type {frame.type} instead of an ERROR")


def test_given_up_connections_take_nothing_from_the_next_one():
    probe = tap.program("tests/integration/ghost_probe")
    with tap.Broker() as broker:
        tunnel = Tunnel(broker.port, kept=2)
        process = tap.Process([probe, tunnel.address, "scheduler"], ready=rb"connected")
        try:
            tap.equal(len(tunnel.kept), 2, "two attempts were abandoned")
            one = Connection(broker.port)
            before = [
                (row.id, row.name)
                for row in one.call("session_list").sessions
                if row.name == "scheduler"
            ]
            tap.equal(len(before), 1, "its session")
            for data in tunnel.kept:
                tap.check(len(data) > 0, "the HELLO that was kept")
                failure = late(broker.port, data)
                tap.equal(failure.code, STALE_ATTEMPT, failure.text)
                tap.check(
                    "attempt" in failure.text and "late" in failure.text,
                    f"the refusal says why: {failure.text}",
                )
            after = [
                (row.id, row.name)
                for row in one.call("session_list").sessions
                if row.name == "scheduler"
            ]
            tap.equal(after, before, "the session is the same")
            process.signal(signal.SIGUSR1)
            tap.equal(process.wait(30), 0, process.tail())
            tap.check(
                b"alive, 1 connected, 0 others" in process.text(),
                f"nothing changed for it: {process.tail()}",
            )
        finally:
            process.kill()
            tunnel.close()


def test_another_client_takes_a_name_over():
    probe = tap.program("tests/integration/ghost_probe")
    with tap.Broker() as broker:
        first = tap.Process([probe, broker.address, "scheduler"], ready=rb"connected")
        second = tap.Process([probe, broker.address, "scheduler"], ready=rb"connected")
        try:
            first.signal(signal.SIGUSR1)
            tap.equal(first.wait(30), 1, "the first has lost the name")
            tap.check(b"SESSION_GONE" in first.text(), f"and was notified: {first.tail()}")
            second.signal(signal.SIGUSR1)
            tap.equal(second.wait(30), 0, second.tail())
        finally:
            first.kill()
            second.kill()


tap.main(globals())
