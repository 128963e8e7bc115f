#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The installed tree: staged (DESTDIR) and straight into a prefix, moved elsewhere, without access
to the build tree."""
import contextlib
import glob
import os
import re
import shutil
import subprocess

import tap

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STAGED_PREFIX = "/opt/sluice-test"
INSTALLED = [
    "bin/sluice",
    "bin/sluiced",
    "bin/sluice-plugin",
    "bin/sluice-replay",
    "lib*/**/sluice/local.so",
    "lib*/**/libsluice.so",
    "lib*/**/pkgconfig/sluice.pc",
    "libexec/sluice/sluice-shepherd",
    "include/sluice/client.h",
    "include/sluice/plugin.h",
    "share/sluice/excerpt.swf",
    "share/doc/sluice/examples/worker.c",
    "share/doc/sluice/examples/cplusplus.cc",
]


def run(words, seconds=300, **more):
    return subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        **more,
    )


def install(*args):
    tap.not_sanitized("the installed tree is built without")
    done = run(
        [os.path.join(TOP, "dev"), "install", *args],
        seconds=900,
        env={**os.environ, "SLUICE_BUILD": tap.BUILD},
    )
    tap.equal(done.returncode, 0, f"./dev install {' '.join(args)}: {done.stdout[-2000:]}")


def one(tree, pattern):
    found = glob.glob(os.path.join(tree, pattern), recursive=True)
    tap.check(found, f"{pattern} is installed below {tree}")
    return found[0]


def hidden():
    """How to run a command to which the source and the build tree are empty folders; or the test is
    skipped."""
    script = (
        'mount -t tmpfs none "$1" || exit 99; if [ -d "$2" ]; then mount -t tmpfs none "$2" || exit'
        ' 99; fi; shift 2; exec "$@"'
    )
    for unshare in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        words = [*unshare, "sh", "-c", script, "sh", TOP, tap.BUILD]
        if run([*words, "test", "!", "-e", os.path.join(TOP, "dev")]).returncode == 0:
            return words
    tap.skip("no mount namespace can be made here, so the build tree cannot be hidden")


def first_program(folder):
    with open(os.path.join(TOP, "client/README.md"), encoding="utf-8") as file:
        source = re.search(r"```c\n(.*?)```", file.read(), re.DOTALL).group(1)
    path = os.path.join(folder, "hello.c")
    with open(path, "w", encoding="utf-8") as file:
        file.write(source)
    return path


def words_of(tree, *options, **env):
    pkg_config = os.path.dirname(one(tree, "lib*/**/pkgconfig/sluice.pc"))
    done = subprocess.run(
        ["pkg-config", *options, "sluice"],
        capture_output=True,
        text=True,
        env={**os.environ, "PKG_CONFIG_PATH": pkg_config, **env},
    )
    tap.equal(done.returncode, 0, f"pkg-config: {done.stderr}")
    return done.stdout.split()


@contextlib.contextmanager
def broker_of(tree, data, hide, *args):
    """The broker of the tree; see .address."""
    os.mkdir(data)
    broker = tap.Process(
        [
            *hide,
            os.path.join(tree, "bin/sluiced"),
            "--data",
            data,
            "--listen",
            "127.0.0.1:0",
            *args,
        ],
        ready=rb"^ready (\S+):(\d+)",
    )
    broker.address = f"127.0.0.1:{int(broker.ready.group(2))}"
    try:
        yield broker
        broker.stop()
    finally:
        broker.kill()


def says_hello(tree, words, folder, hide):
    """The first program, compiled with these words and run against the tree's own broker."""
    program, library = os.path.join(folder, "hello"), os.path.dirname(
        one(tree, "lib*/**/libsluice.so")
    )
    done = run(["cc", first_program(folder), *words, "-o", program])
    tap.equal(done.returncode, 0, f"cc {' '.join(words)}: {done.stdout}")
    with broker_of(tree, os.path.join(folder, "data"), hide) as broker:
        done = run([*hide, program, broker.address], env={**os.environ, "LD_LIBRARY_PATH": library})
        tap.equal((done.returncode, done.stdout), (0, "hello.world: it works\n"), "what it prints")


def runs_a_job(tree, folder, hide):
    """With the scheduler inside the broker, named as an installed one."""
    spool = os.path.join(folder, "job-spool")
    with broker_of(
        tree, os.path.join(folder, "job-data"), hide, "--plugin", f"local spool={spool}"
    ) as broker:
        sluice = [*hide, os.path.join(tree, "bin/sluice"), "--address", broker.address]
        for words in (
            ["queue", "create", "runs", "--jobs"],
            ["job", "submit", "--id", "one", "--queue", "runs", '{"argv":["true"]}'],
            ["job", "wait", "one", "--timeout", "30s"],
        ):
            done = run([*sluice, *words])
            tap.equal(
                done.returncode, 0, f"{' '.join(words)}: {done.stdout} {broker.text().decode()}"
            )


def test_a_staged_tree_works_from_another_place_without_the_build_tree():
    with tap.Scratch() as top:
        install("--prefix", STAGED_PREFIX, "--destdir", os.path.join(top, "stage"))
        staged = os.path.join(top, "stage") + STAGED_PREFIX
        for pattern in INSTALLED:
            one(staged, pattern)
        # As a package builder compiles against it.
        words = words_of(
            staged, "--cflags", "--libs", PKG_CONFIG_SYSROOT_DIR=os.path.join(top, "stage")
        )
        tap.check(f"-I{staged}/include" in words, f"the staged headers are named: {words}")
        moved = os.path.join(top, "moved")
        shutil.move(staged, moved)
        hide = hidden()
        says_hello(
            moved,
            words_of(moved, f"--define-variable=prefix={moved}", "--cflags", "--libs"),
            top,
            hide,
        )
        runs_a_job(moved, top, hide)
        done = run(
            [
                *hide,
                os.path.join(moved, "bin/sluice-replay"),
                "--no-stay",
                "--jobs",
                "60",
                "--speedup",
                "50000",
            ],
            env={**os.environ, "TMPDIR": top},
        )
        tap.equal(done.returncode, 0, f"the main job: {done.stdout[-2000:]}")
        tap.check("They agree" in done.stdout, "its four accounts agree")


def test_a_tree_in_its_prefix_is_known_to_pkg_config():
    with tap.Scratch() as top:
        prefix = os.path.join(top, "prefix")
        install("--prefix", prefix)
        tap.equal(
            words_of(prefix, "--variable=plugindir"),
            [os.path.dirname(one(prefix, "lib*/**/sluice/local.so"))],
            "plugindir",
        )
        says_hello(prefix, words_of(prefix, "--cflags", "--libs"), top, [])
        source = os.path.join(top, "hello.cpp")
        with open(source, "w", encoding="utf-8") as file:
            file.write(
                "#include <sluice/client.h>\n#include <sluice/plugin.h>\nint main() { return"
                " sluice_version()[0] == 0; }\n"
            )
        if shutil.which("c++"):
            words = words_of(prefix, "--cflags", "--libs")
            done = run(["c++", source, *words, "-o", os.path.join(top, "hello-cpp")])
            tap.equal(done.returncode, 0, f"c++: {done.stdout}")
            library = os.path.dirname(one(prefix, "lib*/**/libsluice.so"))
            tap.equal(
                run(
                    [os.path.join(top, "hello-cpp")], env={**os.environ, "LD_LIBRARY_PATH": library}
                ).returncode,
                0,
                "it runs",
            )


def test_a_wrong_word_is_refused():
    for words in (["--prefx", "/x"], ["--prefix"], ["somewhere"]):
        done = run([os.path.join(TOP, "dev"), "install", *words])
        tap.check(done.returncode == 1 and "dev: " in done.stdout, f"{words}: {done.stdout}")


tap.main(globals(), seconds=1200)
