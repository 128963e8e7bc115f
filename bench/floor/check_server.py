#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""sluice-floor-server as a program: what it has acknowledged is there after a restart and after
SIGKILL, in order and byte for byte.

Usage: check_server.py PATH_OF_SLUICE_FLOOR_SERVER
"""
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv.pop()
PUBLISH, PUT, FOLLOW_NEW, FOLLOW_ALL, WORK = range(1, 6)
UNIT_BYTES_MAX = 17 << 20


def body(number, size=100):
    return (b"%010d " % number * (size // 11 + 1))[:size]


class Conn:
    def __init__(self, port, role, name=b"main", body_bytes=100, window_bytes=1 << 30):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.reads = role >= FOLLOW_NEW
        self.sock.sendall(struct.pack("=IIQ48s", role, body_bytes, window_bytes, name))
        self.buf = b""
        first = self.record() if self.reads else self.count()
        assert first == (("ack", 0) if self.reads else 0), first

    def take(self, size):
        while len(self.buf) < size:
            more = self.sock.recv(1 << 20)
            if not more:
                raise EOFError
            self.buf += more
        got, self.buf = self.buf[:size], self.buf[size:]
        return got

    def count(self):
        return struct.unpack("=Q", self.take(8))[0]

    def record(self):
        (size,) = struct.unpack("=I", self.take(4))
        return self.take(size) if size else ("ack", self.count())

    def send(self, *units):
        self.sock.sendall(b"".join(struct.pack("=I", len(u)) + u for u in units))

    def await_count(self, count):
        got = -1
        while got < count:
            last, got = got, self.count()
            assert last < got <= count, (last, got, count)

    def publish(self, *units):
        """Only on a new connection, whose answers count from 0."""
        self.send(*units)
        self.await_count(len(units))

    def records(self, count):
        return [self.record() for _ in range(count)]

    def ack(self, size):
        self.sock.sendall(struct.pack("=Q", size))

    def close(self):
        self.sock.close()


class Server(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.dir = scratch.name
        self.child = None
        self.conns = []

    def tearDown(self):
        self.stop(signal.SIGKILL)

    def start(self, mode="record", files=None, before=()):
        self.log = open(os.path.join(self.dir, "log"), "ab")
        self.child = subprocess.Popen(
            [*before, PROGRAM, "--dir", self.dir, "--listen-port", "0", "--mode", mode],
            stdout=subprocess.PIPE,
            stderr=self.log,
            preexec_fn=files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, files)),
        )
        line = self.child.stdout.readline().split()
        self.assertEqual(line[0], b"ready")
        self.port = int(line[1])

    def stop(self, number=signal.SIGTERM):
        for conn in self.conns:
            conn.close()
        self.conns = []
        if self.child:
            self.child.send_signal(number)
            self.child.wait(30)
            self.child.stdout.close()
            self.log.close()
            self.child = None

    def conn(self, *args, **kwargs):
        self.conns.append(Conn(self.port, *args, **kwargs))
        return self.conns[-1]

    def said(self):
        with open(os.path.join(self.dir, "log")) as f:
            return f.read()

    def refused(self, conn):
        with self.assertRaises((EOFError, ConnectionResetError)):
            conn.take(1)

    def test_records_are_there_after_a_restart(self):
        self.start()
        sent = [body(n) for n in range(5000)]
        self.conn(PUBLISH).publish(*sent)
        # A unit of a hundred is cut into a hundred records.
        self.conn(PUBLISH).publish(b"".join(body(n) for n in range(5000, 5100)))
        sent += [body(n) for n in range(5000, 5100)]
        self.conn(PUBLISH, b"other").publish(body(1))
        self.stop()
        self.start()
        self.assertEqual(self.conn(FOLLOW_ALL).records(len(sent)), sent)
        # Records stored after the restart follow those from before.
        follower = self.conn(FOLLOW_ALL)
        self.conn(PUBLISH).publish(body(7777))
        self.assertEqual(follower.records(len(sent) + 1)[-1], body(7777))

    def test_segments_are_one_record_a_unit(self):
        self.start("segment")
        sent = [b"".join(body(100 * n + k) for k in range(100)) for n in range(60)]
        self.conn(PUBLISH).publish(*sent)
        self.stop()
        self.start("segment")
        self.assertEqual(self.conn(FOLLOW_ALL).records(len(sent)), sent)

    def test_units_of_all_sizes_survive_cuts_anywhere(self):
        self.start("segment")
        sent = [
            body(n, size)
            for n, size in enumerate((1, 3, 5000, 300000, 2, 1 << 20, 7, UNIT_BYTES_MAX, 11))
        ]
        publisher = self.conn(PUBLISH)
        wire = b"".join(struct.pack("=I", len(u)) + u for u in sent)
        # The first bytes one by one, then in pieces of odd sizes: lengths and units are cut
        # anywhere.
        at = 0
        for size in [1] * 40 + [4099] * 100:
            publisher.sock.sendall(wire[at : at + size])
            at += size
        publisher.sock.sendall(wire[at:])
        publisher.await_count(len(sent))
        self.assertEqual(self.conn(FOLLOW_ALL).records(len(sent)), sent)

    def test_echo_answers_and_stores_nothing(self):
        self.start("echo")
        self.conn(PUBLISH).publish(*[body(n) for n in range(1000)])
        self.assertEqual(os.listdir(self.dir), ["log"])

    def test_new_followers_get_what_comes_after_them(self):
        self.start()
        self.conn(PUBLISH).publish(body(1))
        followers = [self.conn(FOLLOW_NEW) for _ in range(10)]
        sent = [body(n) for n in range(10, 3010)]
        self.conn(PUBLISH).publish(*sent)
        for follower in followers:
            self.assertEqual(follower.records(len(sent)), sent)

    def test_a_follower_that_reads_late_gets_all_of_it(self):
        self.start()
        follower = self.conn(FOLLOW_NEW, body_bytes=10000)
        # 40 MB: more than the sockets hold.
        sent = [body(n, 10000) for n in range(4000)]
        self.conn(PUBLISH, body_bytes=10000).publish(*sent)
        self.assertEqual(follower.records(len(sent)), sent)

    def test_acked_items_do_not_come_back_and_the_others_do(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            with self.subTest(number):
                self.start()
                name = b"queue%d" % number
                self.conn(PUT, name).publish(*[body(n) for n in range(1000)])
                worker = self.conn(WORK, name)
                self.assertEqual(worker.records(1000), [body(n) for n in range(1000)])
                worker.ack(400 * 100)
                self.assertEqual(worker.record(), ("ack", 40000))
                self.stop(number)
                self.start()
                worker = self.conn(WORK, name)
                self.assertEqual(worker.records(600), [body(n) for n in range(400, 1000)])
                worker.ack(600 * 100)
                self.assertEqual(worker.record(), ("ack", 60000))
                self.stop(number)
                self.start()
                worker = self.conn(WORK, name)
                self.conn(PUT, name).publish(body(5))
                self.assertEqual(worker.record(), body(5))
                self.stop()

    def test_a_worker_holds_no_more_than_its_window(self):
        self.start()
        self.conn(PUT).publish(*[body(n) for n in range(100)])
        first = self.conn(WORK, window_bytes=1000)
        self.assertEqual(first.records(10), [body(n) for n in range(10)])
        # The next item goes to another worker, so the first one got no more.
        second = self.conn(WORK, window_bytes=1000)
        self.assertEqual(second.records(10), [body(n) for n in range(10, 20)])
        first.ack(300)
        self.assertEqual(first.records(4), [("ack", 300)] + [body(n) for n in range(20, 23)])
        # Items held by a worker that disconnects go to the other workers.
        second.ack(1000)
        self.assertEqual(second.records(11), [("ack", 1000)] + [body(n) for n in range(23, 33)])
        first.close()
        second.ack(2000)
        self.assertEqual(
            second.records(11), [("ack", 2000)] + [body(n) for n in [*range(3, 10), 20, 21, 22]]
        )

    def test_what_was_answered_survives_sigkill(self):
        self.start()
        publisher, putter = self.conn(PUBLISH), self.conn(PUT)
        answered = {}
        for conn in (publisher, putter):
            conn.send(*[body(n) for n in range(20000)])
            answered[conn] = conn.count()
        # Most likely in the middle of it: the rest may be there or not, but only in order.
        self.child.kill()
        for conn in (publisher, putter):
            try:
                while True:
                    answered[conn] = conn.count()
            except (EOFError, ConnectionResetError):
                pass
        self.assertGreater(min(answered.values()), 0)
        counts = [answered[publisher], answered[putter]]
        self.stop(signal.SIGKILL)
        self.start()
        follower, worker = self.conn(FOLLOW_ALL), self.conn(WORK)
        self.assertEqual(follower.records(counts[0]), [body(n) for n in range(counts[0])])
        self.assertEqual(worker.records(counts[1]), [body(n) for n in range(counts[1])])

    def test_each_answer_comes_after_a_sync(self):
        strace = shutil.which("strace")
        if strace is None:
            self.skipTest("strace is not installed")
        trace = os.path.join(self.dir, "trace")
        self.start(before=(strace, "-D", "-f", "-o", trace, "-e", "trace=fdatasync,sendto"))
        publisher = self.conn(PUBLISH)
        for n in range(20):
            publisher.send(body(n))
            publisher.await_count(n + 1)
        putter, worker = self.conn(PUT), self.conn(WORK)
        putter.publish(body(1))
        self.assertEqual(worker.record(), body(1))
        worker.ack(100)
        self.assertEqual(worker.record(), ("ack", 100))
        # strace may not have written the last answer yet, but it has written all before it.
        publisher.send(body(20))
        publisher.await_count(21)
        with open(trace) as f:
            calls = [line.split()[1].split("(")[0] for line in f if "(" in line]
        # Answers to hellos need no sync, except where the table is new: main as a log, main as a
        # queue.
        synced = [
            i for i, call in enumerate(calls) if call == "sendto" and calls[i - 1] == "fdatasync"
        ]
        self.assertGreaterEqual(len(synced), 1 + 20 + 1 + 1 + 1, calls)
        self.assertLessEqual(calls.count("sendto") - len(synced), 2, calls)

    def test_what_is_malformed_ends_only_its_connection(self):
        self.start()
        other = self.conn(PUBLISH)
        for data, words in (
            (
                struct.pack("=I", UNIT_BYTES_MAX + 1),
                "a unit of 17825793 bytes; 1 to 17825792 are allowed",
            ),
            (struct.pack("=I", 0), "a unit of 0 bytes"),
            (
                struct.pack("=I", 150) + bytes(150),
                "a unit of 150 bytes, which is not a multiple of the bodies' 100",
            ),
        ):
            conn = self.conn(PUBLISH)
            conn.sock.sendall(data)
            self.refused(conn)
            self.assertIn(words, self.said())
        conn = self.conn(FOLLOW_ALL)
        conn.ack(1)
        self.refused(conn)
        self.assertIn("bytes from a follower", self.said())
        self.conn(PUT).publish(body(0))
        for size in (50, 1000):
            worker = self.conn(WORK)
            self.assertEqual(worker.record(), body(0))
            worker.ack(size)
            self.refused(worker)
            self.assertIn("an ack of %d bytes" % size, self.said())
        # Neither ack has deleted anything.
        self.assertEqual(self.conn(WORK).record(), body(0))
        for hello, words in (
            (struct.pack("=IIQ48s", 9, 100, 0, b"x"), "a hello with role 9"),
            (struct.pack("=IIQ48s", 1, 100, 0, b"x" * 48), "a hello without a name of 1 to 47"),
        ):
            raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            raw.sendall(hello)
            self.assertEqual(raw.recv(1), b"")
            raw.close()
            self.assertIn(words, self.said())
        other.publish(body(1), body(2))

    def test_connections_up_to_the_hard_limit_and_then_one_waits_for_another(self):
        self.start(files=(20, 100))
        conns = [self.conn(FOLLOW_NEW) for _ in range(80)]
        self.conn(PUBLISH).publish(body(1))
        self.assertEqual([conn.record() for conn in conns], [body(1)] * 80)

        def more():
            sock = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            sock.sendall(struct.pack("=IIQ48s", PUBLISH, 100, 0, b"main"))
            self.addCleanup(sock.close)
            return sock

        while "Too many open files" not in self.said():
            self.assertEqual(more().recv(8), bytes(8))
        # The kernel takes this one, the server cannot yet.
        last = more()
        conns[0].close()
        self.assertEqual(last.recv(8), bytes(8))

    def test_an_aged_store_is_served_like_a_fresh_one(self):
        got = subprocess.run(
            [PROGRAM, "--dir", self.dir, "--age", "100"], capture_output=True, text=True, timeout=60
        )
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertRegex(
            got.stdout, r"^aged: file \d+ bytes, live \d+, free pages [1-9]\d* in [1-9]\d* runs\n$"
        )
        self.start()
        sent = [body(n) for n in range(1000)]
        self.conn(PUBLISH).publish(*sent)
        self.assertEqual(self.conn(FOLLOW_ALL).records(1000), sent)

    def test_bad_options_are_named(self):
        for args, words in (
            (["--mode", "fast"], "--mode fast"),
            (["--listen-port", "70000"], "0 to 65535"),
            (["--age", "0"], "--age 0"),
            (["--dir", self.dir], "usage"),
            ([], "usage"),
            (["--dir", self.dir, "--listen-port", "0", "--age", "1"], "usage"),
        ):
            got = subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=30)
            self.assertEqual(got.returncode, 2, args)
            self.assertIn(words, got.stderr)
        got = subprocess.run(
            [PROGRAM, "--dir", os.path.join(self.dir, "absent"), "--listen-port", "0"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        self.assertEqual(got.returncode, 1)
        self.assertIn("absent", got.stderr)


if __name__ == "__main__":
    unittest.main()
