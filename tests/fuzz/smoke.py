#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs each fuzz target on its seeds, for a few seconds or, with SLUICE_TEST_LONG=1, for 3 minutes
from a seed that it prints; TAP. A finding fails, is shown in hex and kept in the build directory.

usage: smoke.py [--build DIR] [--seconds N] [--seed N] [TARGET...] --build: a directory that is
configured with -Dfuzz=true; without it one is made (build-fuzz beside the sources) and built."""
import argparse
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "support"))
import tap  # noqa: E402

INPUT_BYTES_MAX = 4096
MEMORY_MB_MAX = 1024
ONE_INPUT_SECONDS_MAX = 10
PROGRAM = "int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { return 0; }"


def compiler():
    for name in ("clang", "clang-14"):
        if shutil.which(name):
            return name
    return None


def missing():
    """Why fuzzing is not possible here; None: it is."""
    clang = compiler()
    if clang is None:
        return "clang is not installed"
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(
            [clang, "-fsanitize=fuzzer", "-x", "c", "-", "-o", f"{folder}/f"],
            input=PROGRAM,
            text=True,
            capture_output=True,
            check=False,
        )
    return (
        None if made.returncode == 0 else "clang's libFuzzer is not installed (libclang-rt-*-dev)"
    )


def built(build):
    """Builds the targets of a fuzz build directory, which is configured first if it is not
    there."""
    if not (build / "build.ninja").exists():
        subprocess.run(
            [
                "meson",
                "setup",
                str(build),
                str(TOP),
                "-Dfuzz=true",
                "-Db_sanitize=address,undefined",
                "-Db_lundef=false",
            ],
            env={**os.environ, "CC": compiler()},
            stdout=sys.stderr,
            check=True,
        )
    subprocess.run(["ninja", "-C", str(build), "fuzz"], stdout=sys.stderr, check=True)


def smoke(program, folder, options):
    """One target; `folder` gets what it finds."""
    target = program.name[len("fuzz_") :]
    corpus = folder / "corpus" / target
    if (HERE / "corpus" / target).is_dir():
        shutil.copytree(HERE / "corpus" / target, corpus, dirs_exist_ok=True)
    tap.check(corpus.is_dir() and any(corpus.iterdir()), f"{target} has a seed corpus")
    findings = folder / "findings"
    findings.mkdir(exist_ok=True)
    command = [
        str(program),
        f"-max_total_time={options.seconds}",
        f"-seed={options.seed}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        f"-timeout={ONE_INPUT_SECONDS_MAX}",
        f"-artifact_prefix={findings}/{target}-",
        "-print_final_stats=1",
        str(corpus),
    ]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=options.seconds + 4 * ONE_INPUT_SECONDS_MAX,
    )
    if ran.returncode != 0:
        shown = [
            f"{found.name}: {found.read_bytes()[:256].hex()}"
            for found in sorted(findings.glob(f"{target}-*"))
        ]
        raise tap.Failed("\n".join(["a finding:", *shown, *ran.stderr.splitlines()[-40:]]))
    done = [
        line.split()[-1]
        for line in ran.stderr.splitlines()
        if "stat::number_of_executed_units" in line
    ]
    tap.check(done and int(done[0]) > 100, f"{target} ran more than its seeds")
    print(f"{target}: {done[0]} inputs in {options.seconds} s, seed {options.seed}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path)
    parser.add_argument(
        "--seconds",
        type=int,
        default=int(os.environ.get("SLUICE_FUZZ_SECONDS", "180" if tap.LONG else "3")),
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31) if tap.LONG else 1)
    parser.add_argument("targets", nargs="*")
    options = parser.parse_args()
    wanted = options.targets or sorted(f.stem[len("fuzz_") :] for f in HERE.glob("fuzz_*.c"))
    reason = missing()
    if reason:
        sys.exit(tap.run([(name, lambda: tap.skip(reason)) for name in wanted]))
    build = (options.build or TOP / "build-fuzz").resolve()
    if options.build is None:
        built(build)
    folder = build / "tests" / "fuzz" / "smoke"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run(
        [sys.executable, str(HERE / "make_corpus.py"), str(folder / "corpus")], check=True
    )
    tests = []
    for name in wanted:
        program = build / "tests" / "fuzz" / ("fuzz_" + name)
        tests.append((name, lambda program=program: smoke(program, folder, options)))
    sys.exit(tap.run(tests, seconds=options.seconds + 5 * ONE_INPUT_SECONDS_MAX))


if __name__ == "__main__":
    main()
