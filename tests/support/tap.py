# SPDX-License-Identifier: Apache-2.0
"""For tests in Python: TAP on standard output, waiting with a deadline, a broker to talk to.

    import tap

    def test_publish_is_followed():
        with tap.Broker() as broker:
            tap.equal(do_something(broker.port), "expected", "what it should be")

    tap.main(globals())

Each function whose name begins with `test_` is one test. It fails if it raises or overruns its
deadline, it is skipped by `tap.skip(reason)`; what it prints goes to standard error, so that it
cannot be taken for a result. A test without one check (tap.check, equal, wait_until or a broker's
clean end) is a failure: it would prove nothing.
"""
import atexit
import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

BUILD = os.environ.get("SLUICE_BUILD", "build")
# The long forms of tests, hours instead of seconds, run by hand: SLUICE_TEST_LONG=1.
LONG = os.environ.get("SLUICE_TEST_LONG", "") not in ("", "0")
TEST_SECONDS_MAX = 120
READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60

SANITIZER_REPORT = re.compile(
    rb"(ERROR|WARNING|FATAL): \w+Sanitizer|: runtime error: |Sanitizer:DEADLYSIGNAL|Assertion `.*'"
    rb" failed"
)

_checks = 0
_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


class Skip(Exception):
    """Ends a test as skipped; the text is the reason."""


class Failed(AssertionError):
    """Ends a test as failed; the text says what was expected and what was found."""


def skip(reason):
    raise Skip(reason)


def check(condition, what):
    """Fails the test unless the condition holds; `what` says what is true if it does."""
    global _checks
    _checks += 1
    if not condition:
        raise Failed(f"not so: {what}")


def equal(got, expected, what):
    global _checks
    _checks += 1
    if got != expected:
        raise Failed(f"{what}: got {got!r}, expected {expected!r}")


def raises(kind, call, what):
    """Fails unless call() raises `kind`; returns the exception."""
    global _checks
    _checks += 1
    try:
        call()
    except kind as error:
        return error
    raise Failed(f"{what}: {kind.__name__} was not raised")


def wait_until(condition, seconds, what, interval=0.02):
    """Calls condition() until it is true and returns its value; fails after `seconds`."""
    global _checks
    _checks += 1
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(interval)


class Scratch(tempfile.TemporaryDirectory):
    """A folder in which processes that a test has ended may still write their last file, as a
    shepherd does."""

    def __init__(self):
        super().__init__(prefix="sluice-test-")

    def cleanup(self):
        wait_until(self._is_gone, 30, f"{self.name} can be removed")
        self._finalizer.detach()

    def _is_gone(self):
        shutil.rmtree(self.name, ignore_errors=True)
        return not os.path.exists(self.name)


def free_port():
    """A loopback port that nobody listens on now. Prefer port 0 where a program can report what it
    got."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def program(path):
    """The path of a program of the build; the test is skipped by its name if it is not built."""
    found = os.path.join(BUILD, path)
    if not os.access(found, os.X_OK):
        skip(f"{path} is not built")
    return found


def plain(path):
    """The same file under a path without spaces and colons, through a link: LD_PRELOAD splits at
    them, and `sluiced --plugin` at spaces that are not quoted."""
    path = os.path.abspath(path)
    if not re.search(r"[\s:]", path):
        return path
    folder = tempfile.mkdtemp(prefix="sluice-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # The whole folder, because the file may need others beside it.
    os.symlink(os.path.dirname(path), os.path.join(folder, "beside"))
    return os.path.join(folder, "beside", os.path.basename(path))


def not_sanitized(reason):
    """Skips the test, for the reason, when the broker is built with a sanitizer."""
    with open(program("broker/sluiced"), "rb") as file:
        built = file.read()
    if b"__asan_init" in built or b"__tsan_init" in built:
        skip(reason)


def _end_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child in a process group of its own, its output in a file; ended by its pid, never by name.
    It ends with the test, also when the test is killed; start it from the test's main thread."""

    def __init__(self, args, ready=None, env=None, cwd=None):
        """Starts it and, if `ready` (a regular expression, bytes) is given, waits until its output
        matches; .ready is the match."""
        self.output = tempfile.TemporaryFile()
        self.args = args
        self.child = subprocess.Popen(
            args,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        self.pid = self.child.pid
        self.ready = None
        if ready is not None:
            try:
                self.ready = wait_until(
                    lambda: self._is_ready(ready), READY_SECONDS_MAX, f"{args[0]} is ready"
                )
            except BaseException:
                self.kill()
                raise

    def _is_ready(self, ready):
        found = re.search(ready, self.text(), re.M)
        if not found and self.child.poll() is not None:
            raise Failed(
                f"{self.args[0]} ended with {self.child.returncode} before it was"
                f" ready:\n{self.tail()}"
            )
        return found

    def text(self):
        """Its output so far, bytes."""
        size = os.fstat(self.output.fileno()).st_size
        return os.pread(self.output.fileno(), size, 0)

    def tail(self, lines=25):
        return "\n".join(self.text().decode(errors="replace").splitlines()[-lines:])

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, seconds):
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"{self.args[0]} did not end within {seconds} s:\n{self.tail()}") from None

    def kill(self):
        """SIGKILL to the child and to its process group; reaps the child."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.child.wait()

    def stop(self, code=0, seconds=STOP_SECONDS_MAX):
        """SIGTERM; fails unless it ends with `code` and without a sanitizer's report."""
        if self.child.poll() is None:
            self.signal(signal.SIGTERM)
        got = self.wait(seconds)
        self.kill()
        if SANITIZER_REPORT.search(self.text()):
            raise Failed(f"{self.args[0]}: a report:\n{self.tail(200)}")
        equal(got, code, f"exit code of {self.args[0]}\n{self.tail()}")


class Broker(Process):
    """A broker on a free loopback port with a data directory of its own (or the given one, which
    then stays).

    .port, .address ("127.0.0.1:PORT"), .data. Leaving the `with` block stops it and checks its end;
    after .kill() nothing is checked. path: the program, below the build.
    """

    def __init__(self, data=None, port=0, args=(), env=None, path="broker/sluiced"):
        self.own = data is None
        self.data = data if data is not None else tempfile.mkdtemp(prefix="sluice-test-")
        self.killed = False
        sluiced = program(path)
        try:
            super().__init__(
                [sluiced, "--data", self.data, "--listen", f"127.0.0.1:{port}", *args],
                ready=rb"^ready (\S+):(\d+)",
                env=env,
            )
        except BaseException:
            self.remove()
            raise
        self.port = int(self.ready.group(2))
        self.address = f"127.0.0.1:{self.port}"

    def kill(self):
        self.killed = True
        super().kill()

    def stop(self, code=0, seconds=STOP_SECONDS_MAX):
        if not self.killed:
            super().stop(code, seconds)

    def remove(self):
        if self.own:
            shutil.rmtree(self.data, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                self.stop()
            else:
                self.kill()
                sys.stderr.write(f"--- the broker's last lines\n{self.tail()}\n")
        finally:
            self.remove()


def _print(line):
    os.write(_print.fd, (line + "\n").encode(errors="replace"))


_print.fd = 1


def _diagnose(text):
    for line in text.rstrip().splitlines():
        _print("# " + line)


def _overrun(number, frame):
    raise Failed(f"overran its deadline of {_overrun.seconds} s")


def _ended(number, frame):
    # Not an Exception: it ends the run, and the tests' `with` blocks are left in order.
    raise SystemExit(128 + number)


def run(tests, seconds=TEST_SECONDS_MAX):
    """Runs [(name, function)], prints TAP, returns the exit code. `seconds` bounds each test."""
    global _checks
    failed = 0
    _overrun.seconds = seconds
    # Results go to the real standard output, all else that is printed to standard error.
    sys.stdout.flush()
    _print.fd = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGALRM, _overrun)
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(ending) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(ending, _ended)
    _print("TAP version 13")
    _print(f"1..{len(tests)}")
    for number, (name, function) in enumerate(tests, 1):
        _checks = 0
        name = name.replace("#", " ")
        try:
            signal.alarm(seconds)
            function()
            signal.alarm(0)
            if _checks == 0:
                raise Failed("checked nothing")
            _print(f"ok {number} - {name}")
        except Skip as reason:
            signal.alarm(0)
            _print(f"ok {number} - {name} # SKIP {reason}")
        except Exception as error:
            signal.alarm(0)
            failed += 1
            _print(f"not ok {number} - {name}")
            _diagnose(str(error) if isinstance(error, Failed) else traceback.format_exc())
    return 1 if failed else 0


def main(namespace, seconds=TEST_SECONDS_MAX):
    """Runs the functions of a module whose names begin with test_, in their order, or those named
    as arguments."""
    tests = [
        (name[len("test_") :].replace("_", " "), value)
        for name, value in namespace.items()
        if name.startswith("test_") and callable(value)
    ]
    wanted = sys.argv[1:]
    if wanted:
        tests = [
            (name, value) for name, value in tests if any(word in value.__name__ for word in wanted)
        ]
    if not tests:
        sys.exit(f"no test has {' or '.join(map(repr, wanted)) or 'a name'} in its name")
    sys.exit(run(tests, seconds))
