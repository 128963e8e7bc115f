#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""TLS: what is served, what is refused, and what an unfinished handshake may hold."""
import contextlib
import os
import re
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time

import tap

from listen_rig import a_session_is_resumed, sluice

HELLO = bytes([0, 0, 0, 10, 1, 0, 0, 0, 0, 0, 8, 1, 16, 1])
WELCOME = 65
HELLO_BYTES_MAX = 16384
HANDSHAKES_MAX = 1000


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=60)


class Certificates(tap.Scratch):
    """A CA, and files for a broker at 127.0.0.1: {name}.pem and {name}.key."""

    def __init__(self):
        super().__init__()
        self.ca("ca")
        self.make("broker", "IP:127.0.0.1,IP:0.0.0.0,DNS:localhost")

    def __enter__(self):
        return self

    def file(self, name):
        return os.path.join(self.name, name)

    def ca(self, name):
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", self.file(name + ".key"), "-out", self.file(name + ".pem")),
            *("-subj", f"/CN={name}", "-days", "2"),
        )

    def make(self, name, names, days=2, ca="ca", subject="/CN=127.0.0.1"):
        request = self.file(name + ".csr")
        openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", self.file(name + ".key"), "-out", request, "-subj", subject),
            *(("-addext", f"subjectAltName={names}") if names else ()),
        )
        openssl(
            *("x509", "-req", "-in", request, "-copy_extensions", "copy", "-days", str(days)),
            *("-CA", self.file(ca + ".pem"), "-CAkey", self.file(ca + ".key")),
            *("-out", self.file(name + ".pem")),
        )

    def args(self, name="broker", key=None):
        return [
            *("--set", f"tls_cert={self.file(name + '.pem')}"),
            *("--set", f"tls_key={self.file((key or name) + '.key')}"),
        ]

    def context(self):
        return ssl.create_default_context(cafile=self.file("ca.pem"))


class Broker(tap.Broker):
    """Plain at .address, TLS at .tls (with the prefix) and .tls_port."""

    def __init__(self, certificates, *args, name="broker", **more):
        listen = ("--listen", "tls:127.0.0.1:0")
        super().__init__(args=[*listen, *certificates.args(name), *args], **more)
        found = re.search(rb"^listener native (tls:127\.0\.0\.1:(\d+))$", self.text(), re.M)
        self.tls = found.group(1).decode()
        self.tls_port = int(found.group(2))


def connect(port, source="127.0.0.1"):
    sock = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
    sock.settimeout(20)
    return sock


def receive(sock):
    """What comes next; b"" at the end of the connection, None when nothing comes."""
    try:
        return sock.recv(65536)
    except TimeoutError:
        return None
    except ConnectionError:
        return b""


def is_open(sock):
    readable, _, _ = select.select([sock], [], [], 0)
    return not readable


def greets(sock):
    sock.sendall(HELLO)
    got = receive(sock)
    return bool(got) and got[4] == WELCOME


# ---- what is served ----


def test_the_command_is_served_over_tls():
    with Certificates() as top, Broker(top) as broker:
        ca = top.file("ca.pem")
        done = sluice(broker.tls, "queue", "create", "work", ca=ca)
        tap.equal(done.returncode, 0, f"queue create: {done.stderr}")
        done = sluice(f"localhost:{broker.tls_port}", "--tls", "verify-full", "queue", "ls", ca=ca)
        tap.check("work" in done.stdout, f"by a name, asked for by --tls: {done}")
        env = {**os.environ, "SLUICE_TLS_CA": ca, "SLUICE_ADDRESS": broker.tls}
        done = subprocess.run(
            [tap.program("client/cli/sluice"), "queue", "ls"],
            capture_output=True,
            text=True,
            timeout=60,
            env=env,
        )
        tap.check("work" in done.stdout, f"by the environment: {done}")
        tap.check("work" in sluice(broker.address, "queue", "ls").stdout, "it is the same broker")


def test_large_frames_go_both_ways():
    with Certificates() as top, Broker(top) as broker:
        ca = top.file("ca.pem")
        body = top.file("body")
        with open(body, "wb") as file:
            file.write(os.urandom(6 << 20).hex().encode())
        sluice(broker.tls, "stream", "create", "e", "--subject", "e.>", ca=ca)
        done = sluice(broker.tls, "pub", "e.x", "@" + body, ca=ca)
        tap.equal(done.returncode, 0, f"12 MiB are published: {done.stderr}")
        done = sluice(broker.tls, "follow", "e", "--from", "0", "--until-caught-up", ca=ca)
        with open(body, encoding="ascii") as file:
            tap.check(file.read() in done.stdout, "and come back as they were")


def test_a_peer_that_does_not_read_delays_nobody_and_gets_all():
    with Certificates() as top, Broker(top) as broker:
        ca = top.file("ca.pem")
        body = top.file("body")
        with open(body, "w", encoding="ascii") as file:
            file.write("x" * (1 << 20))
        sluice(broker.tls, "stream", "create", "e", "--subject", "e.>", ca=ca)
        follower = tap.Process(
            [
                *(tap.program("client/cli/sluice"), "--address", broker.tls, "--tls-ca", ca),
                *("follow", "e", "--from", "0"),
            ]
        )
        try:
            sluice(broker.tls, "pub", "e.x", "first", ca=ca)
            tap.wait_until(lambda: b"first" in follower.text(), 20, "it follows")
            follower.signal(signal.SIGSTOP)
            for n in range(40):
                done = sluice(broker.tls, "pub", "e.x", "@" + body, ca=ca)
                tap.equal(done.returncode, 0, f"publish {n}: {done.stderr}")
            follower.signal(signal.SIGCONT)
            tap.wait_until(
                lambda: follower.text().count(b"x" * (1 << 20)) == 40, 60, "all 40 have come"
            )
        finally:
            follower.kill()


def test_a_session_is_resumed_over_tls():
    with Certificates() as top:
        address = f"tls:127.0.0.1:{tap.free_port()}"
        listen = ["--listen", address, *top.args()]
        a_session_is_resumed(top.file("data"), listen, address, "--tls-ca", top.file("ca.pem"))


def test_a_replaced_ca_holds_from_the_next_connection():
    names = "IP:127.0.0.1"
    with Certificates() as top, contextlib.ExitStack() as stack:
        ca, data, port = top.file("trusted.pem"), top.file("data"), tap.free_port()
        top.ca("new")
        top.make("new-broker", names, ca="new")
        shutil.copy(top.file("ca.pem"), ca)

        def serve(name):
            listen = ("--listen", f"tls:127.0.0.1:{port}", *top.args(name))
            broker = tap.Broker(data=data, args=listen)
            stack.callback(broker.kill)
            return broker

        def passes(text):
            sluice(broker.address, "pub", "e.x", text)
            tap.wait_until(lambda: text.encode() in follower.text(), 30, f"event {text}")

        broker = serve("broker")
        sluice(broker.address, "stream", "create", "e", "--subject", "e.>")
        follower = tap.Process(
            [
                *(tap.program("client/cli/sluice"), "--tls-ca", ca),
                *("--address", f"tls:127.0.0.1:{port}", "follow", "e", "--from", "0"),
            ]
        )
        stack.callback(follower.kill)
        passes("first")
        broker.kill()
        shutil.copy(top.file("new.pem"), ca + "~")
        os.replace(ca + "~", ca)
        broker = serve("broker")
        tap.wait_until(lambda: b"id=net.handshake " in broker.text(), 30, "a handshake has failed")
        tap.check(b"connected to" not in follower.text(), "the old CA is not trusted any more")
        broker.kill()
        broker = serve("new-broker")
        passes("second")
        # Somebody removes the file before the new one is there.
        os.remove(ca)
        broker.kill()
        broker = serve("new-broker")
        passes("third")
        broker.stop()


def test_only_1_2_and_1_3_and_nothing_is_resumed():
    with Certificates() as top, Broker(top) as broker:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = top.context()
            context.minimum_version = context.maximum_version = version
            session = None
            for attempt in range(2):
                with context.wrap_socket(
                    connect(broker.tls_port), server_hostname="127.0.0.1", session=session
                ) as sock:
                    tap.check(greets(sock), f"{version.name}: HELLO is answered")
                    tap.check(not sock.session_reused, f"{version.name}: not resumed")
                    tap.check(sock.compression() is None, f"{version.name}: not compressed")
                    session = sock.session
        context = top.context()
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        tap.raises(
            OSError,
            lambda: context.wrap_socket(connect(broker.tls_port), server_hostname="127.0.0.1"),
            "TLS 1.1 is refused",
        )


def test_a_listener_of_a_plugin_has_the_tls_of_the_first_address():
    line = tap.plain(tap.program("tests/integration/line.so"))
    with Certificates() as top:
        broker = tap.Process(
            [
                *(tap.program("broker/sluiced"), "--data", top.file("data")),
                *("--listen", "tls:127.0.0.1:0", *top.args()),
                *("--plugin", f"{line} kind=listener port=0"),
            ],
            ready=rb"^ready tls:127\.0\.0\.1:\d+ pid",
        )
        try:
            port = int(re.search(rb"^listener line \S+:(\d+)$", broker.text(), re.M).group(1))
            context = top.context()
            with context.wrap_socket(connect(port), server_hostname="127.0.0.1") as sock:
                sock.sendall(b"ACK 1 1\n")
                tap.check(receive(sock).startswith(b"-ERR"), "it answers over TLS")
            broker.stop()
        finally:
            broker.kill()


# ---- what a client refuses ----


def test_a_client_refuses_a_broker_that_it_cannot_verify():
    with Certificates() as top:
        own = top
        own.ca("other")
        own.make("named", "IP:127.0.0.9,DNS:elsewhere")
        own.make("common", None)  # the address in the subject only
        own.make("old", "IP:127.0.0.1", days=-1)
        for name, ca, words in (
            ("broker", own.file("other.pem"), "unable to get local issuer certificate"),
            ("broker", None, "unable to get local issuer certificate"),
            ("named", own.file("ca.pem"), "IP address mismatch"),
            ("common", own.file("ca.pem"), "IP address mismatch"),
            ("old", own.file("ca.pem"), "certificate has expired"),
            ("broker", own.file("broker.key"), "no certificate"),
        ):
            with Broker(own, name=name) as broker:
                done = sluice(broker.tls, "queue", "create", "work", ca=ca, timeout="2s")
                tap.check(
                    done.returncode != 0 and words in done.stderr, f"{name}, {ca}: {done.stderr}"
                )
                done = sluice(broker.address, "queue", "ls", "-o", "json")
                tap.check("work" not in done.stdout, "and nothing was sent")
        with Broker(own, name="broker") as broker:
            address = f"tls:localhost:{broker.tls_port}"
            tap.equal(sluice(address, "queue", "ls", ca=own.file("ca.pem")).returncode, 0, "a name")


def test_beyond_loopback_a_client_wants_tls():
    with Certificates() as top, Broker(top) as broker:
        # Linux connects 0.0.0.0 to loopback; by its text it is not.
        plain = f"0.0.0.0:{broker.port}"
        done = sluice(plain, "queue", "ls", timeout="2s")
        tap.check("does not speak TLS" in done.stderr, f"a plain port is refused: {done.stderr}")
        done = sluice(plain, "--tls", "off", "queue", "ls")
        tap.equal(done.returncode, 0, f"unless TLS is off: {done.stderr}")
        done = sluice(f"0.0.0.0:{broker.tls_port}", "queue", "ls", ca=top.file("ca.pem"))
        tap.equal(done.returncode, 0, f"without a word TLS is used: {done.stderr}")
        done = sluice(broker.address, "--tls", "on", "queue", "ls")
        tap.check("verify-full" in done.stderr, f"a wrong value: {done.stderr}")


# ---- what the broker refuses ----


def started(*args):
    with tap.Scratch() as top:
        data = os.path.join(top, "data")
        done = subprocess.run(
            [tap.program("broker/sluiced"), "--data", data, *args],
            capture_output=True,
            text=True,
            timeout=60,
        )
        tap.check(done.returncode > 0, f"it is refused: {args}, {done.stdout}")
        tap.check(not os.path.exists(data), "and leaves nothing")
    return done.stderr


def test_a_start_with_a_wrong_key_or_certificate_is_refused():
    with Certificates() as top:
        own = top
        listen = ("--listen", "tls:127.0.0.1:0")
        said = started(*listen)
        tap.check("tls_cert and tls_key" in said, f"none: {said}")
        for mode in (0o604, 0o602, 0o620, 0o644):
            os.chmod(own.file("broker.key"), mode)
            said = started(*listen, *own.args())
            tap.check("other users can read the key" in said, f"mode {mode:o}: {said}")
        os.chmod(own.file("broker.key"), 0o640)
        with Broker(own):
            tap.check(True, "a group may read it")
        own.make("second", "IP:127.0.0.1")
        said = started(*listen, *own.args("broker", "second"))
        tap.check("second.key" in said and "mismatch" in said, f"another key: {said}")
        said = started(*listen, *own.args("absent"))
        tap.check("absent.pem" in said and "No such file" in said, f"no file: {said}")
        openssl(
            *("ec", "-aes128", "-passout", "pass:secret", "-in", own.file("second.key")),
            *("-out", own.file("locked.key")),
        )
        said = started(*listen, *own.args("second", "locked"))
        tap.check("locked.key" in said and "password" in said, f"with a password: {said}")
        openssl(
            *("req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", own.file("weak.key")),
            *("-out", own.file("weak.pem"), "-subj", "/CN=127.0.0.1", "-days", "2"),
        )
        said = started(*listen, *own.args("weak"))
        tap.check("weak.pem" in said and "key too small" in said, f"a weak key: {said}")


def test_a_certificate_that_clients_refuse_is_said_at_the_start():
    with Certificates() as own:
        own.make("old", "IP:127.0.0.1", days=-1)
        for name, says in (("old", True), ("broker", False)):
            with Broker(own, name=name) as broker:
                tap.equal(b"id=net.certificate" in broker.text(), says, name)


def test_tls_alone_opens_nothing_beyond_loopback():
    with Certificates() as top:
        said = started("--listen", "tls:0.0.0.0:0", *top.args())
        tap.check("no authentication" in said and "insecure" in said, said)
        said = started("--listen", "tls:unix:/x", *top.args())
        tap.check("expected" in said, said)


def test_other_bytes_on_each_port():
    with Certificates() as top, Broker(top) as broker:
        for said in (HELLO, b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\x80" * 64):
            with connect(broker.tls_port) as sock:
                sock.sendall(said)
                got = receive(sock)
                while got:  # an alert
                    got = receive(sock)
                tap.equal(got, b"", f"{said[:8]} ends the connection")
        context = top.context()
        tap.raises(
            OSError,
            lambda: context.wrap_socket(connect(broker.port), server_hostname="127.0.0.1"),
            "TLS on the plain port",
        )
        with context.wrap_socket(connect(broker.tls_port), server_hostname="127.0.0.1") as sock:
            tap.check(greets(sock), "others are served")
        tap.check(b"net.handshake" in broker.text(), "the log has them")


# ---- unfinished handshakes ----


def client_hello():
    """The body of a ClientHello, as Python makes it."""
    context = ssl.create_default_context()
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(received, sent, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return sent.read()[9:]


def extensions_of(body):
    """(what is before them, [(type, bytes)])"""
    at = 34 + 1 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    head, at, rows = body[:at], at + 2, []
    while at < len(body):
        kind, size = struct.unpack(">HH", body[at : at + 4])
        rows.append((kind, body[at + 4 : at + 4 + size]))
        at += 4 + size
    return head, rows


def with_extensions(head, rows):
    block = b"".join(struct.pack(">HH", kind, len(data)) + data for kind, data in rows)
    return head + struct.pack(">H", len(block)) + block


def records(body):
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    pieces = [message[at : at + 16384] for at in range(0, len(message), 16384)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(p)) + p for p in pieces)


def padded(size):
    head, rows = extensions_of(client_hello())
    rows = [row for row in rows if row[0] != 21]
    rest = size - len(with_extensions(head, rows)) - 4
    return with_extensions(head, [*rows, (21, bytes(rest))])


# limit: TLS_HELLO_BYTES_MAX
def test_a_client_hello_has_a_bound():
    with Certificates() as top, Broker(top) as broker:
        for size, answer in ((HELLO_BYTES_MAX, True), (HELLO_BYTES_MAX + 1, False)):
            with connect(broker.tls_port) as sock:
                body = padded(size)
                tap.equal(len(body), size, "the length")
                sock.sendall(records(body))
                got = receive(sock)
                tap.equal(got[:1] == b"\x16", answer, f"{size} bytes: {got[:8]}")
        with connect(broker.tls_port) as sock:
            said = broker.text().count(b"too long")
            sock.sendall(b"\x16\x03\x01\x00\x06\x01\x01\xff\xff\x03\x03")
            tap.wait_until(
                lambda: broker.text().count(b"too long") > said, 20, "what is announced is enough"
            )
            tap.equal(receive(sock), b"", "it is closed")


def test_a_second_client_hello_has_the_same_bound():
    with Certificates() as top, Broker(top) as broker:
        head, rows = extensions_of(client_hello())
        # Without a share of a key the broker asks for another ClientHello.
        rows = [(kind, b"\0\0" if kind == 51 else data) for kind, data in rows]
        with connect(broker.tls_port) as sock:
            sock.sendall(records(with_extensions(head, rows)))
            got = receive(sock)
            tap.check(got[:1] == b"\x16" and got[5] == 2, f"it asks for another: {got[:8]}")
            sock.sendall(b"\x14\x03\x03\x00\x01\x01")
            sock.sendall(b"\x16\x03\x03\x00\x06\x01\x01\xff\xff\x03\x03")
            tap.wait_until(lambda: b"too long" in broker.text(), 20, "which is too long")
            tap.equal(receive(sock), b"", "it is closed")


# limit: HANDSHAKES_MAX
def test_unfinished_handshakes_have_a_bound():
    half = records(client_hello())[:200]
    with Certificates() as top, Broker(top) as broker:
        with open(f"/proc/{broker.pid}/statm", encoding="ascii") as file:
            before = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        first = connect(broker.tls_port, "127.0.0.2")
        first.sendall(half)
        socks = []
        try:
            for _ in range(HANDSHAKES_MAX - 1):
                socks.append(connect(broker.tls_port))
                socks[-1].sendall(half)
            context = top.context()
            tap.check(all(is_open(sock) for sock in [first, *socks]), f"{HANDSHAKES_MAX} stay open")
            socks.append(connect(broker.tls_port))
            tap.equal(receive(socks[0]), b"", "one more ends the oldest of the address")
            tap.check(is_open(first), "and not an older one of another address")
            tap.check(all(is_open(sock) for sock in socks[1:]), "and no other")
            for _ in range(500):
                socks.append(connect(broker.tls_port))
                socks[-1].sendall(half)
            tap.equal(receive(socks[500]), b"", "500 more end 500")
            with context.wrap_socket(connect(broker.tls_port), server_hostname="127.0.0.1") as sock:
                tap.check(greets(sock), "who finishes is served")
                tap.equal(receive(socks[501]), b"", "it has taken the place of one")
            tap.check(is_open(first), "the other address has its own")
            with open(f"/proc/{broker.pid}/statm", encoding="ascii") as file:
                after = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
            tap.check(b"net.handshakes" in broker.text(), "the log says so")
            tap.not_sanitized("a sanitizer keeps freed memory")
            tap.check(after - before < 128 << 20, f"they hold {(after - before) >> 20} MiB")
        finally:
            for sock in [first, *socks]:
                sock.close()


def test_the_time_before_login_begins_at_accept():
    """Bytes that drip in do not extend it."""
    with Certificates() as top, Broker(top) as broker:
        hello = records(client_hello())
        left = {connect(broker.tls_port): hello, connect(broker.port): HELLO[:8] + bytes(200)}
        ended = []
        for at in range(120):
            for sock, said in list(left.items()):
                try:
                    sock.send(said[at : at + 1])
                except ConnectionError:
                    pass
                if not is_open(sock):
                    ended.append(at)
                    del left[sock]
                    sock.close()
            if not left:
                break
            time.sleep(0.5)
        tap.equal(len(ended), 2, f"both have ended, after bytes {ended}")


tap.main(globals())
