#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Where the broker listens: several addresses, unix sockets."""
import os
import re
import socket
import stat
import subprocess

import tap

from listen_rig import a_session_is_resumed, sluice


def listeners(broker):
    """The addresses besides the first."""
    return re.findall(r"^listener native (\S+)$", broker.text().decode(), re.M)


def test_every_address_serves_the_same_broker():
    with tap.Broker(args=["--listen", "127.0.0.2:0", "--listen", "127.0.0.1:0"]) as broker:
        others = listeners(broker)
        tap.equal(len(others), 2, f"the other addresses are printed: {others}")
        tap.equal(sluice(broker.address, "queue", "create", "work").returncode, 0, "queue create")
        for address in others:
            done = sluice(address, "queue", "ls")
            tap.check("work" in done.stdout, f"{address} serves it: {done}")


# ---- unix sockets ----


def started(data, path):
    """A start that may be refused: (exit code, what it said)."""
    done = subprocess.run(
        [tap.program("broker/sluiced"), "--data", data, "--listen", f"unix:{path}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_unix_socket_serves_its_group_and_goes_with_the_broker():
    with tap.Scratch() as top:
        path = f"{top}/s.sock"
        with tap.Broker(args=["--listen", f"unix:{path}"]) as broker:
            tap.equal(listeners(broker), [f"unix:{path}"], "it is printed")
            mode = os.lstat(path).st_mode
            tap.check(stat.S_ISSOCK(mode), "it is a socket")
            tap.equal(stat.S_IMODE(mode), 0o660, "of user and group")
            done = sluice(f"unix:{path}", "queue", "create", "work")
            tap.equal(done.returncode, 0, f"the command serves itself of it: {done.stderr}")
            done = sluice(broker.address, "queue", "ls")
            tap.check("work" in done.stdout, "it is the same broker")
            done = sluice(f"unix:{path}", "session", "ls")
            tap.check(
                f"uid:{os.getuid()}" in done.stdout,
                f"the address of its session is the user: {done.stdout}",
            )
            done = sluice(f"unix:{path}.absent,unix:{path}", "queue", "ls")
            tap.check("work" in done.stdout, f"addresses are tried in turn: {done}")
        tap.check(not os.path.exists(path), "the file goes with the broker")


def test_a_unix_socket_may_be_the_only_address():
    with tap.Scratch() as top:
        path = f"{top}/only.sock"
        broker = tap.Process(
            [tap.program("broker/sluiced"), "--data", f"{top}/data", "--listen", f"unix:{path}"],
            ready=rb"^ready (\S+) pid=",
        )
        try:
            tap.equal(broker.ready.group(1).decode(), f"unix:{path}", "its address")
            tap.equal(sluice(f"unix:{path}", "queue", "ls").returncode, 0, "it is served")
        finally:
            broker.stop()


def test_a_stale_socket_is_replaced_and_a_live_one_is_not():
    with tap.Scratch() as top:
        path = f"{top}/s.sock"
        with tap.Broker(args=["--listen", f"unix:{path}"]) as broker:
            code, said = started(f"{top}/other", path)
            tap.check(code > 0 and "a process listens on it" in said, f"another broker: {said}")
            tap.equal(sluice(f"unix:{path}", "queue", "ls").returncode, 0, "the first serves")
            broker.kill()
        tap.check(os.path.exists(path), "a killed broker leaves its file")
        with tap.Broker(args=["--listen", f"unix:{path}"]):
            tap.equal(sluice(f"unix:{path}", "queue", "ls").returncode, 0, "the next one serves")


def test_a_file_that_is_no_socket_stays():
    with tap.Scratch() as top:
        path = f"{top}/s.sock"
        with open(path, "w") as file:
            file.write("mine")
        code, said = started(f"{top}/data", path)
        tap.check(code > 0 and "not a socket" in said and path in said, f"refused: {said}")
        with open(path) as file:
            tap.equal(file.read(), "mine", "it is as it was")
        os.unlink(path)
        os.symlink(f"{top}/elsewhere", path)
        code, said = started(f"{top}/data", path)
        tap.check(code > 0 and "not a socket" in said, f"a link is refused: {said}")
        tap.check(not os.path.exists(f"{top}/data"), "and a fresh store is not left")


def test_a_directory_that_others_can_write_is_refused():
    with tap.Scratch() as top:
        inner = f"{top}/inner"
        os.mkdir(inner)
        for folder, mode in ((inner, 0o777), (inner, 0o770), (inner, 0o1777), (top, 0o777)):
            os.chmod(folder, mode)
            code, said = started(f"{top}/data", f"{inner}/s.sock")
            tap.check(
                code > 0 and "other users can write its directory" in said,
                f"{folder} with mode {mode:o}: {said}",
            )
            os.chmod(folder, 0o755)
        os.chmod(top, 0o1777)
        with tap.Broker(args=["--listen", f"unix:{inner}/s.sock"]):
            tap.check(True, "below a directory with a sticky bit it is opened")
        os.chmod(top, 0o755)
        if os.getuid() == 0:
            os.chown(inner, 12345, 12345)
            code, said = started(f"{top}/data", f"{inner}/s.sock")
            tap.check(code > 0 and "other users" in said, f"another user's directory: {said}")


def test_a_user_that_is_not_mapped_is_refused():
    if os.getuid() != 0:
        tap.skip("only root becomes the overflow user")
    with open("/proc/sys/kernel/overflowuid") as file:
        overflow = int(file.read())
    with tap.Scratch() as top:
        os.chmod(top, 0o755)
        path = f"{top}/s.sock"

        def connect(uid):
            """Whether a HELLO of that user, of the socket's group, is answered."""
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.setresuid(uid, uid, uid)
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(20)
                    sock.connect(path)
                    try:
                        sock.sendall(bytes([0, 0, 0, 10, 1, 0, 0, 0, 0, 0, 8, 1, 16, 1]))
                        os.write(write, b"y" if sock.recv(1) else b"n")
                    except OSError:
                        os.write(write, b"n")
                os._exit(0)
            os.waitpid(child, 0)
            os.close(write)
            with os.fdopen(read, "rb") as answers:
                return answers.read()

        with tap.Broker(args=["--listen", f"unix:{path}"]) as broker:
            tap.equal(connect(12345), b"y", "a user of the group is served")
            tap.equal(connect(overflow), b"n", "the overflow user is not")
            tap.check(b"net.overflow_uid" in broker.text(), "and the log says so")


def test_a_session_is_resumed_over_a_unix_socket():
    with tap.Scratch() as top:
        path = f"{top}/s.sock"
        a_session_is_resumed(f"{top}/data", ["--listen", f"unix:{path}"], f"unix:{path}")


tap.main(globals())
