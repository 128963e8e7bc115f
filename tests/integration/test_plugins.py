#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The plugin interface: a foreign listener that includes include/sluice only, and what the ABI
checks refuse, naming the cause."""
import os
import re
import socket
import subprocess
import tempfile

import tap

PLUGINS = os.path.join(tap.BUILD, "tests/integration")


def plugin(name):
    path = os.path.join(PLUGINS, name + ".so")
    if not os.path.exists(path):
        tap.skip(f"{name}.so is not built")
    return tap.plain(path)


class Line:
    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        self.buffer = b""

    def ask(self, text):
        self.send(text)
        return self.read()

    def send(self, text):
        self.sock.sendall(text.encode() + b"\n")

    def read(self, seconds=10):
        """The next line; None when none comes in time, "" at the end of the connection."""
        self.sock.settimeout(seconds)
        while b"\n" not in self.buffer:
            try:
                got = self.sock.recv(65536)
            except TimeoutError:
                return None
            except ConnectionResetError:
                got = b""
            if not got:
                return ""
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def silent(self, seconds=0.3):
        """True if nothing arrives: shows that the credit is not exceeded."""
        line = self.read(seconds)
        return line is None


def sluice(broker, *args):
    cli = tap.program("client/cli/sluice")
    return subprocess.run(
        [cli, "--address", broker.address, *args], capture_output=True, text=True, timeout=30
    )


def with_line(test):
    with tap.Broker(args=["--plugin", f"{plugin('line')} kind=listener port=0"]) as broker:
        found = re.search(rb"^listener line 127\.0\.0\.1:(\d+)", broker.text(), re.M)
        tap.check(found is not None, "the broker says where the line listener is")
        test(broker, int(found.group(1)))


def test_a_foreign_listener_publishes_and_receives_with_credit():
    def test(broker, port):
        tap.equal(sluice(broker, "queue", "create", "work").returncode, 0, "queue create")
        line = Line(port)
        for i in range(5):
            tap.check(line.ask(f"PUT work body {i}").startswith("+OK"), f"put {i}")
        tap.equal(line.ask("GET work 2").split()[0], "+OK", "consume")
        first, second = line.read().split(" ", 4), line.read().split(" ", 4)
        tap.equal([first[0], first[3], first[4]], ["ITEM", "line.item", "body 0"], "the first item")
        tap.equal(second[4], "body 1", "the second item")
        tap.check(line.silent(), "never more than the credit")
        tap.check(line.ask(f"ACK {first[1]} {first[2]}").startswith("+OK"), "ack")
        tap.check(
            line.ask(f"ACK {first[1]} {first[2]}") == "-ERR STALE_TOKEN",
            "a second ack is refused with its code",
        )
        tap.equal(line.ask("MORE 1").split()[0], "+OK", "credit")
        tap.equal(line.read().split(" ", 4)[4], "body 2", "one more item for one more credit")

    with_line(test)


def test_a_foreign_follower_reads_what_native_clients_publish():
    def test(broker, port):
        tap.equal(
            sluice(broker, "stream", "create", "events", "--subject", "ev.>").returncode,
            0,
            "stream create",
        )
        line = Line(port)
        tap.equal(line.ask("FOLLOW events 0 2").split()[0], "+OK", "follow")
        for i in range(3):
            tap.equal(sluice(broker, "pub", "ev.x", f"number {i}").returncode, 0, "pub by the CLI")
        tap.equal(line.read(), "EVENT 0 ev.x number 0", "the first event")
        tap.equal(line.read(), "EVENT 1 ev.x number 1", "the second event")
        tap.check(line.silent(), "credit limits a follower, too")
        tap.equal(
            line.ask("PUB ev.y from the line"), "+OK 3", "what it publishes goes to the same stream"
        )
        shown = sluice(broker, "follow", "events", "--from", "3", "--until-caught-up")
        tap.check(
            "ev.y  from the line" in shown.stdout, f"and native clients read it: {shown.stdout}"
        )

    with_line(test)


def test_a_listener_has_a_bound_of_its_own_on_connections():
    line = f"{plugin('line')} kind=listener port=0 connections_max=1"
    with tap.Broker(args=["--plugin", line]) as broker:
        port = int(re.search(rb"^listener line 127\.0\.0\.1:(\d+)", broker.text(), re.M).group(1))
        first = Line(port)
        tap.check(first.ask("ACK 1 1").startswith("-ERR"), "the first is served")
        with socket.create_connection(("127.0.0.1", port)) as second:
            tap.equal(second.recv(1), b"", "the second is closed")
        tap.equal(sluice(broker, "queue", "ls").returncode, 0, "native clients are served")


def test_bad_lines_get_an_error_and_the_broker_stays_up():
    def test(broker, port):
        line = Line(port)
        for text in ["NONSENSE x", "PUB", "GET nowhere 1", "ACK 1 1", "PUB bad..subject x"]:
            tap.check(line.ask(text).startswith("-ERR"), f"{text!r} is refused")
        line.sock.sendall(b"x" * 5000)
        tap.equal(line.read(), "", "an endless line closes its connection")
        tap.check(Line(port).ask("ACK 1 1").startswith("-ERR"), "others go on")

    with_line(test)


def start(*args):
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as data:
        return subprocess.run(
            [tap.program("broker/sluiced"), "--data", data, "--listen", "127.0.0.1:0", *args],
            capture_output=True,
            text=True,
            timeout=60,
        )


def refused(name, text):
    path = plugin(name)
    broker = start("--plugin", f"{path} kind=listener port=0")
    tap.check(broker.returncode != 0, f"{name} is refused")
    tap.check(
        path in broker.stderr and text in broker.stderr,
        f"the refusal names {name} and says {text!r}: {broker.stderr}",
    )


def test_a_wrong_major_is_refused():
    refused("line_major", "plugin ABI 99.1")


def test_a_newer_minor_is_refused():
    refused("line_minor", "plugin ABI 1.99")


def test_a_short_struct_is_refused():
    refused("line_short", "bytes")


def test_a_missing_symbol_is_refused():
    refused("line_nosymbol", "does not export sluice_plugin_v1")


def test_a_missing_callback_is_refused():
    refused("line_noaccept", "its ops have no accept")


def started_with(line):
    """The error of a broker that is started with this plugin and must refuse it."""
    done = subprocess.run(
        [
            tap.program("broker/sluiced"),
            "--data",
            os.path.join(tap.BUILD, "no-such-data"),
            "--listen",
            "127.0.0.1:0",
            "--plugin",
            line,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    tap.check(
        done.returncode not in (0, 134, 139) and done.returncode > 0,
        f"{line!r} is refused: {done.returncode} {done.stderr}",
    )
    return done.stderr


def test_wrong_plugins_are_refused_by_name():
    path = plugin("service_good")
    for line, words in [
        (plugin("service_no_run"), "its ops have no run"),
        (plugin("service_init_fails"), "its init failed: not permitted (DENIED)"),
        (plugin("service_init_positive"), "its init failed: internal error (INTERNAL)"),
        ("/no/such.so", "/no/such.so: there is no such readable file"),
        (tap.plain(os.path.abspath(__file__)), "it cannot be loaded"),
        (tap.plain(tap.BUILD), "it cannot be loaded"),
        (f"{path} word", "'word'; expected KEY=VALUE"),
        (f"{path} =x", "expected KEY=VALUE"),
        (f"{path} kind=other", "expected listener or service"),
        (f"{path} stop_ms=soon", "stop_ms is 'soon'"),
        (
            f"{plugin('line')} kind=listener port=99999",
            "port is '99999'; expected a number from 0 to 65535",
        ),
        (f"{plugin('line')} kind=listener port=x", "port is 'x'"),
        (f"{plugin('line')}", "expected service"),
        (" ", "the file is missing"),
    ]:
        said = started_with(line)
        tap.check(words in said, f"{line!r} says {words!r}: {said}")
        tap.check(
            line.split(" ")[0] in said or "port" in words or "stop_ms" in words,
            f"and which plugin: {said}",
        )
    outside = subprocess.run(
        [tap.program("broker/plugin/sluice-plugin"), plugin("service_no_run")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    tap.check(
        outside.returncode == 3 and "its ops have no run" in outside.stderr,
        f"outside, too: {outside.stderr}",
    )


def test_a_file_in_the_working_directory_is_found():
    path = plugin("service_ends")
    done = subprocess.run(
        [os.path.abspath(tap.program("broker/plugin/sluice-plugin")), os.path.basename(path)],
        cwd=os.path.dirname(path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    tap.equal(done.returncode, 0, f"a name without a slash is a file here: {done.stderr}")


def test_a_service_may_be_given_twice_and_log_from_any_thread():
    line = plugin("service_good")
    with tap.Broker(
        args=["--plugin", f"{line} name=one", "--plugin", f"{line} name=two"]
    ) as broker:
        for name in (b"one", b"two"):
            tap.wait_until(
                lambda name=name: re.search(rb"id=service.runs msg=" + name, broker.text()),
                30,
                f"{name} runs with a setting of its own",
            )
        tap.check(b"init 2" in broker.text(), "one init for each")
        broker.stop()
        tap.check(b"fini 2" in broker.text(), f"one fini for each: {broker.tail()}")
        tap.check(
            len(re.findall(rb"id=plugin.ended .*result=OK", broker.text())) == 2,
            "and their ends are logged",
        )


def test_a_file_and_settings_with_spaces_are_quoted():
    """On the command line and in a file; wrong quotes are refused."""
    path = plugin("service_good")
    with tempfile.TemporaryDirectory(prefix="sluice test ") as folder:
        spaced = os.path.join(folder, 'a "b" c.so')
        os.symlink(path, spaced)
        quoted = '"' + spaced.replace('"', '""') + '"'
        line = f'  {quoted}  name="one two"  other=a"" "third=x y" '
        file = os.path.join(folder, "conf")
        with open(file, "w", encoding="utf-8") as to:
            to.write(f"plugin = {line}\n")
        for option in (["--plugin", line], ["--config", file]):
            with tap.Broker(args=option) as broker:
                tap.wait_until(
                    lambda: re.search(rb'id=service.runs msg="one two"', broker.text()),
                    30,
                    f"it runs with its setting: {option}",
                )
    for wrong, words in [
        ('"/a b', "is not closed"),
        (f'{path} name="a b', "is not closed"),
        ('""', "the file is missing"),
        (f'{path} "a b"', "'a b'; expected KEY=VALUE"),
    ]:
        said = started_with(wrong)
        tap.check(words in said, f"{wrong!r} says {words!r}: {said}")


def test_a_service_that_does_not_stop_is_left_behind_by_name():
    with tap.Broker(
        args=["--plugin", f"{plugin('service_never_stops')} name=deaf stop_ms=200"]
    ) as broker:
        tap.wait_until(lambda: b"id=service.runs" in broker.text(), 30, "it runs")
        tap.equal(
            sluice(broker, "queue", "create", "work").returncode, 0, "the broker serves meanwhile"
        )
        broker.stop()
        found = re.search(rb"id=plugin.stuck .*plugin=service", broker.text())
        tap.check(
            found is not None,
            f"the broker ends, and names the service that it abandoned: {broker.tail()}",
        )


def test_a_service_is_no_listener():
    path = tap.plain(os.path.join(tap.BUILD, "plugins/local/local.so"))
    broker = start("--plugin", f"{path} kind=listener")
    tap.check(
        "expected listener" in broker.stderr, f"the refusal says what was expected: {broker.stderr}"
    )


def test_settings_that_cannot_be_read_are_refused_by_name():
    line = plugin("line")
    for setting, text in [
        ("port", "'port'; expected KEY=VALUE"),
        ("=1", "'=1'; expected KEY=VALUE"),
        ("port=abc", "port is 'abc'; expected a number from 0 to 65535"),
        ("port=70000", "port is '70000'; expected"),
        ("port=-1", "port is '-1'; expected"),
        (" ".join(f"k{n}=v" for n in range(33)), "at most 32 of them"),
    ]:
        broker = start("--plugin", f"{line} kind=listener {setting}")
        tap.equal(broker.returncode, 2, f"{setting!r} is refused")
        tap.check(text in broker.stderr, f"the refusal says {text!r}: {broker.stderr}")
    broker = start("--plugin", " ")
    tap.check(
        'expected "PATH KEY=VALUE' in broker.stderr, f"an empty plugin is refused: {broker.stderr}"
    )


def test_the_local_scheduler_is_the_same_inside_and_outside():
    local = os.path.join(tap.BUILD, "plugins/local/local.so")
    if not os.path.exists(local):
        tap.skip("local.so is not built")
    local = tap.plain(local)
    for inside in (True, False):
        with tempfile.TemporaryDirectory() as spool, tempfile.TemporaryDirectory() as data:
            args = ["--plugin", f"{local} spool={spool}"] if inside else []
            # The queue must be there before a scheduler inside consumes from it.
            with tap.Broker(data=data) as broker:
                tap.equal(
                    sluice(broker, "queue", "create", "runs", "--jobs").returncode,
                    0,
                    "queue create",
                )
            with tap.Broker(data=data, args=args) as broker:
                outside = None
                if not inside:
                    outside = tap.Process(
                        [
                            tap.program("broker/plugin/sluice-plugin"),
                            "--set",
                            f"spool={spool}",
                            local,
                        ],
                        env={**os.environ, "SLUICE_ADDRESS": broker.address},
                    )
                job = sluice(
                    broker, "job", "submit", "--id", "j1", "--queue", "runs", '{"argv":["true"]}'
                )
                tap.equal(job.returncode, 0, f"submit: {job.stderr}")
                done = sluice(broker, "job", "wait", "j1", "--timeout", "20s")
                tap.equal(
                    done.returncode, 0, f"wait ({'inside' if inside else 'outside'}): {done.stderr}"
                )
                shown = sluice(broker, "-o", "json", "job", "show", "j1")
                tap.check("COMPLETE" in shown.stdout, f"it ran: {shown.stdout}")
                if outside is not None:
                    outside.stop()


tap.main(globals())
