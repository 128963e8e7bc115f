#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Thousands of clients that each send a part of a large frame: the broker's memory stays below its
bound, and another client publishes meanwhile. When they have gone, whole frames are answered."""
import errno
import multiprocessing
import os
import re
import resource
import socket
import struct
import sys
import time

import tap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HELLO, PUBLISH, WELCOME, PUBLISHED = 1, 3, 65, 67
MIB = 1 << 20
INPUT_MIB = 64
# What each may keep beyond the bound (INPUT_FAIR_BYTES), and what the allocator adds.
FAIR_BYTES = 16384 + 8192


def frame(kind, corr, body):
    return struct.pack(">IBBI", len(body) + 6, kind, 0, corr) + body


# version_min and version_max 1, the longest session timeout
HELLO_FRAME = frame(HELLO, 0, b"\x08\x01\x10\x01\x40\x80\xb8\x99\x29")


def publish(corr, body):
    """Into the queue dead-letter."""
    envelope = b"\x92\x00\xc6" + struct.pack(">I", len(body)) + body
    if len(body) < 256:
        envelope = b"\x92\x00\xc4" + bytes([len(body)]) + body
    subject, name = b"a.b", b"dead-letter"
    head = struct.pack(
        ">BBBBQIQQIQIHH", 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, len(envelope), len(subject), len(name)
    )
    return frame(PUBLISH, corr, head + subject + name + envelope)


def read_frame(sock):
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
        got = sock.recv(65536)
        if not got:
            raise tap.Failed("the broker closed the connection")
        data += got
    return data[4], data[10:]


def memory_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"RssAnon:\s+(\d+) kB", file.read()).group(1)) * 1024


def publisher(port, pipe):
    """A process of its own: publishes single events when it is told to, and gives the times."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(60)
    sock.sendall(HELLO_FRAME)
    good = read_frame(sock)[0] == WELCOME
    while True:
        count = pipe.recv()
        if count == 0:
            return
        times = []
        for n in range(count):
            began = time.monotonic()
            sock.sendall(publish(n + 1, b"x" * 100))
            kind, body = read_frame(sock)
            good = good and kind == PUBLISHED and body[2:6] == b"\0\0\0\0"
            times.append(time.monotonic() - began)
        pipe.send((good, sorted(times)))


def measured(pipe, what):
    good, times = pipe.recv()
    tap.check(good, f"{what}: {len(times)} events are published")
    half, most = times[len(times) // 2], times[len(times) * 99 // 100]
    print(f"{what}: p50 {half * 1e3:.2f} ms, p99 {most * 1e3:.2f} ms", file=sys.stderr)


def opened(port, count):
    socks = []
    for n in range(count):
        sock = socket.socket()
        # What waits in the client is of no use here.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", port))
        sock.sendall(HELLO_FRAME)
        socks.append(sock)
    for sock in socks:
        if read_frame(sock)[0] != WELCOME:
            raise tap.Failed("no WELCOME")
        sock.setblocking(False)
    return socks


def send_on(socks, sent, upto, data):
    """Each socket takes what it takes now; returns how many bytes in all."""
    moved = 0
    for n, sock in enumerate(socks):
        if sent[n] is None or sent[n] >= upto:
            continue
        try:
            got = sock.send(data[sent[n] : min(upto, sent[n] + 65536)])
        except BlockingIOError:
            continue
        except OSError as error:
            tap.check(
                error.errno in (errno.EPIPE, errno.ECONNRESET), f"it may be closed, not: {error}"
            )
            sent[n] = None
            continue
        sent[n] += got
        moved += got
    return moved


def test_half_sent_frames_of_many_stay_under_the_bound():
    tap.not_sanitized("a sanitizer keeps freed memory: its size says nothing")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10000, hard - 500)
    # The whole of an event of 16 MiB; its first half is sent.
    data = memoryview(publish(1, bytes(16 * MIB)))
    half = len(data) // 2
    with tap.Broker(args=["--set", f"input_mib={INPUT_MIB}"]) as broker:
        ours, theirs = multiprocessing.Pipe()
        other = multiprocessing.Process(target=publisher, args=(broker.port, theirs), daemon=True)
        other.start()
        ours.send(300)
        measured(ours, "alone")
        socks = opened(broker.port, count)
        base = memory_bytes(broker.pid)
        sent, most, quiet = [0] * count, base, 0
        ours.send(300)
        publishing = True
        # Until the broker takes no more of them, and the other has published.
        until = time.monotonic() + 90
        while (quiet < 5 or publishing) and time.monotonic() < until:
            quiet = 0 if send_on(socks, sent, half, data) > MIB else quiet + 1
            most = max(most, memory_bytes(broker.pid))
            if publishing and ours.poll():
                measured(ours, f"beside {count} half-sent frames")
                publishing = False
        tap.check(not publishing, "the other is served")
        taken = sum(n for n in sent if n is not None)
        bound = INPUT_MIB * MIB + count * FAIR_BYTES + 2 * 17 * MIB
        print(
            (
                f"{count} connections sent {taken // MIB} MiB; the broker grew by"
                f" {(most - base) // MIB} MiB from {base // MIB}; bound {bound // MIB} MiB"
            ),
            file=sys.stderr,
        )
        tap.check(taken > 2 * INPUT_MIB * MIB, "they sent more than the broker may keep")
        tap.check(
            most - base < bound, f"{(most - base) // MIB} MiB of memory for {count} half frames"
        )
        # Their memory is given back, and large frames are taken again. Together they are less than
        # the bound, above which one that sends slowly may be closed. Reset: otherwise the kernel
        # goes on to send what it has of them, about 1.6 GiB on both sides, which is above its own
        # pressure mark on a machine with 24 GiB; then it drops packets and tries for minutes.
        for sock in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        socks, sent = opened(broker.port, 2), [0] * 2
        tap.wait_until(
            lambda: send_on(socks, sent, len(data), data) == 0 and sent == [len(data)] * 2,
            60,
            "whole frames are taken",
        )
        for sock in socks:
            sock.settimeout(60)
            tap.equal(read_frame(sock)[0], PUBLISHED, "and they are answered")
        ours.send(0)
        other.join()


tap.main(globals())
