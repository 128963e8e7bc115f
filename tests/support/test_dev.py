#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`./dev` says what was wrong with its arguments, and what was expected, before it installs, builds
or changes anything."""
import contextlib
import os
import subprocess
import tempfile

import tap

DEV = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "dev"
)


def dev(*args, folder=None, build=None):
    with tempfile.TemporaryDirectory() as top:
        return subprocess.run(
            [DEV, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=folder or top,
            env={**os.environ, "SLUICE_BUILD": build or os.path.join(top, "build")},
        )


def test_wrong_arguments_are_named_with_what_was_expected():
    for args, code, words in (
        (["nonsense"], 2, ["'nonsense'", "usage: ./dev COMMAND"]),
        (["--kill"], 2, ["'--kill'", "usage: ./dev COMMAND"]),
        (["test", "--slow"], 1, ["'--slow'", "--quick", "--suite NAME"]),
        (["test", "--suite"], 1, ["--suite ''", "integration"]),
        (["test", "--suite", "units"], 1, ["'units'", "unit", "faults"]),
        (["check", "tidy", "tidyness"], 1, ["'tidyness'", "includes_selftest"]),
        (["fmt", "dev"], 1, ["'dev'", "no arguments"]),
    ):
        done = dev(*args)
        tap.equal(done.returncode, code, f"exit code of {args}: {done.stderr}")
        for word in words:
            tap.check(word in done.stderr, f"{args} says {word!r}: {done.stderr!r}")
        tap.equal(done.stdout, "", f"{args} does nothing before")


def test_help_is_the_usage_from_any_folder():
    for args in ([], ["help"], ["--help"], ["-h"]):
        done = dev(*args, folder="/")
        tap.equal((done.returncode, done.stderr), (0, ""), f"./dev {args}")
        tap.check(done.stdout.startswith("usage: ./dev COMMAND"), "it is the usage")


def test_a_build_folder_that_cannot_be_written_is_named():
    with tempfile.TemporaryDirectory() as top:
        file = os.path.join(top, "a file")
        with open(file, "w", encoding="ascii"):
            pass
        done = dev("serve", build=os.path.join(file, "build"))
        tap.equal(done.returncode, 1, "exit code")
        tap.check(
            f"cannot make the directory {file}/build" in done.stderr,
            f"the folder is named: {done.stderr!r}",
        )


# Substitutes for the programs that ./dev calls, so that no test installs or builds anything. Each
# call is a line of $CALLS; the packages in $ABSENT are not installed, and cannot be. A build
# directory has the last value of the option that meson was given, as meson writes it.
STANDINS = {
    "dpkg-query": """case " $ABSENT " in *" ${@: -1} "*) exit 1 ;; *) printf installed ;; esac""",
    "apt-get": """exit 100""",
    "sudo": """exit 1""",
    "ninja": """exit 0""",
    "meson": """
        for word in "$@"; do case $word in -Dpeers=*) peers=${word#*=} ;; */build) dir=$word ;; esac; done
        mkdir -p "$dir/meson-info" "$dir/bench/harness" "$dir/bench/floor"
        : >"$dir/build.ninja"
        printf '[{"name": "peers", "value": %s, "section": "user"}]' "${peers:-false}" >"$dir/meson-info/intro-buildoptions.json"
        for program in harness/sluice-bench floor/sluice-floor; do
            printf '#!/bin/sh\\necho "$0 $*" >>"$CALLS"\\n' >"$dir/bench/$program"
            chmod +x "$dir/bench/$program"
        done""",
}


@contextlib.contextmanager
def standins():
    """Yields a function that calls ./dev among them: (what subprocess.run returned, the calls of
    this time)."""
    with tempfile.TemporaryDirectory() as top:
        top = os.path.realpath(top)
        calls, folder, build = (os.path.join(top, name) for name in ("calls", "bin", "build"))
        os.mkdir(folder)
        for name, text in STANDINS.items():
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                file.write(f'#!/bin/bash\necho "{name} $*" >>"$CALLS"\n{text}\n')
            os.chmod(file.name, 0o755)

        def call(*args, absent=""):
            with open(calls, "w", encoding="ascii"):
                pass
            done = subprocess.run(
                [DEV, *args],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                cwd=top,
                env={
                    **os.environ,
                    "PATH": f"{folder}:{os.environ['PATH']}",
                    "SLUICE_BUILD": build,
                    "SLUICE_MESON_ARGS": "",
                    "CALLS": calls,
                    "ABSENT": absent,
                },
            )
            with open(calls, encoding="ascii") as file:
                return done, file.read().replace(build, "BUILD").splitlines()

        yield call


def mesons(calls):
    return [line for line in calls if line.startswith("meson ")]


def test_bench_runs_the_harness_with_the_peers():
    with standins() as call:
        done, calls = call("bench", "--quick", "--only", "publish")
        tap.equal(
            (done.returncode, done.stdout),
            (0, ""),
            "exit code, and standard output is the harness's",
        )
        tap.equal(
            mesons(calls), ["meson setup BUILD -Dtests=false -Dpeers=true"], "a fresh directory"
        )
        tap.equal(
            calls[-1],
            "BUILD/bench/harness/sluice-bench --bin BUILD --quick --only publish",
            "the harness",
        )
        done, calls = call("bench")
        tap.equal((done.returncode, mesons(calls)), (0, []), "no setup the second time")


def test_bench_goes_on_without_a_peer_that_cannot_be_installed():
    with standins() as call:
        done, calls = call("bench", absent="libhiredis-dev")
        tap.equal(done.returncode, 0, f"exit code: {done.stderr}")
        tap.check(
            "without the peer redis; missing: libhiredis-dev" in done.stderr,
            f"the peer is named: {done.stderr!r}",
        )
        tap.equal(
            mesons(calls), ["meson setup BUILD -Dtests=false -Dpeers=false"], "set up without it"
        )
        tap.equal(calls[-1], "BUILD/bench/harness/sluice-bench --bin BUILD", "the harness runs")
        done, calls = call("bench")
        tap.equal(
            mesons(calls),
            ["meson setup --reconfigure BUILD -Dpeers=true"],
            "a peer that was installed since is found",
        )
        done, calls = call("bench", absent="libhiredis-dev")
        tap.equal(
            mesons(calls),
            ["meson setup --reconfigure BUILD -Dpeers=false"],
            "and one that was removed is left out",
        )


def test_bench_does_not_go_on_without_what_it_is_built_with():
    with standins() as call:
        done, calls = call("bench", absent="liblmdb-dev")
        tap.equal(done.returncode, 1, "exit code")
        tap.check("liblmdb-dev" in done.stderr, f"the package is named: {done.stderr!r}")
        tap.equal(mesons(calls), [], "nothing is built")


def test_bench_floor_runs_the_floor_and_needs_no_peer():
    with standins() as call:
        done, calls = call("bench", "--floor", "--quick", absent="redis-tools libhiredis-dev")
        tap.equal((done.returncode, done.stderr), (0, ""), "exit code")
        tap.check("peer" not in done.stdout, f"no peer is mentioned: {done.stdout!r}")
        tap.equal(
            calls[-1], "BUILD/bench/floor/sluice-floor --dir BUILD/bench-data --quick", "the floor"
        )


tap.main(globals())
