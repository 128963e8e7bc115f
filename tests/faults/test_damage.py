#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A data.mdb that is damaged or cut off, under sluiced and under `sluiced --dump`. They
refuse it with what was found and what was expected, exit with a code above 0 and leave the file
unchanged; or they serve the undamaged records. They never end by a signal and never show bytes that
were not published.

tests/unit/test_store_damage.c tests the bits, roots and lengths one by one; this test runs the
programs. `SLUICE_TEST_LONG=1`: 400 flips. `SLUICE_SEED=N` repeats the flips of a run, which prints
its seed; the store differs in each run."""
import os
import random
import struct
import subprocess
import sys
import tempfile

import load
import tap

SEED = int(os.environ.get("SLUICE_SEED", random.randrange(1 << 30)))
RNG = random.Random(SEED)
ARGS = ["--set", "map_mib=64", "--set", "reserve_mib=1"]
PAGE = 4096
EVENTS = 3000
FLIPS = 400 if tap.LONG else 30
EXIT_CORRUPT, EXIT_IO = 12, 11


def published(top):
    """(data directory, bytes of its data.mdb, lines of its dump) after a clean end."""
    data = os.path.join(top, "data")
    with tap.Broker(data=data, args=ARGS) as broker:
        tap.equal(
            load.Load(broker.address, os.path.join(top, "acks"), EVENTS).wait(60),
            0,
            "the load ends",
        )
    with open(os.path.join(data, "data.mdb"), "rb") as file:
        whole = file.read()
    code, lines, said = dump(data)
    tap.equal(code, 0, f"it is whole: {said}")
    return data, whole, lines


def dump(data):
    done = subprocess.run(
        [tap.program("broker/sluiced"), "--dump", data], capture_output=True, timeout=60
    )
    return (
        done.returncode,
        done.stdout.decode(errors="replace").splitlines(),
        done.stderr.decode(errors="replace"),
    )


def serve(data):
    """(exit code, or None if it is up; what it said; the process)."""
    port = tap.free_port()
    broker = tap.Process(
        [tap.program("broker/sluiced"), "--data", data, "--listen", f"127.0.0.1:{port}", *ARGS]
    )
    broker.address = f"127.0.0.1:{port}"
    tap.wait_until(
        lambda: broker.child.poll() is not None or b"ready " in broker.text(),
        60,
        "it is ready or has ended",
    )
    return broker.child.poll(), broker.text().decode(errors="replace"), broker


def write(data, content):
    with open(os.path.join(data, "data.mdb"), "wb") as file:
        file.write(content)


def read(data):
    with open(os.path.join(data, "data.mdb"), "rb") as file:
        return file.read()


def refused(data, content, code, word):
    """Both refuse content as data.mdb with that code and word, and do not change it."""
    write(data, content)
    got, _, said = dump(data)
    tap.equal(got, code, f"--dump's exit code: {said}")
    tap.check(word in said, f"--dump says {word!r}: {said}")
    got, said, broker = serve(data)
    broker.kill()
    tap.equal(got, code, f"sluiced's exit code: {said}")
    tap.check(word in said, f"sluiced says {word!r}: {said}")
    tap.check(read(data) == content, "the file is unchanged")


def newest_meta(whole):
    """(offset of the newest meta page's contents, its last page, its commit)"""
    metas = [
        (struct.unpack_from("<QQ", whole, i * PAGE + 16 + 120), i * PAGE + 16) for i in range(2)
    ]
    (last, commit), at = max(metas, key=lambda meta: meta[0][1])
    return at, last, commit


def test_a_file_that_was_cut_off_is_refused_by_name():
    with tempfile.TemporaryDirectory() as top:
        data, whole, _ = published(top)
        for size, word in (
            (0, "data.mdb ends at byte 0"),
            (100, "data.mdb ends at byte 100"),
            (PAGE, "expected at least 2 pages"),
            (2 * PAGE, "is beyond its end"),
            (len(whole) // 2, "is beyond its end"),
            (len(whole) // 2 + 1, "is beyond its end"),
        ):
            refused(data, whole[:size], EXIT_CORRUPT, word)


def test_what_is_no_file_is_refused_by_name():
    with tempfile.TemporaryDirectory() as top:
        data, _, _ = published(top)
        os.unlink(os.path.join(data, "data.mdb"))
        os.mkdir(os.path.join(data, "data.mdb"))
        for code, said in ((dump(data)[0], dump(data)[2]), serve(data)[:2]):
            tap.equal(code, EXIT_IO, f"its exit code: {said}")
            tap.check("is a directory; expected a regular file" in said, f"it says so: {said}")


def test_a_damaged_meta_page_is_refused_by_name():
    with tempfile.TemporaryDirectory() as top:
        data, whole, _ = published(top)
        at, last, commit = newest_meta(whole)
        for offset, value, word in (
            (0, struct.pack("<I", 0xBEEFC0DF), "magic number"),
            (4, struct.pack("<I", 2), "version 2"),
            (128, struct.pack("<Q", commit ^ 8), "expected consecutive commits"),
            (120, struct.pack("<Q", last ^ (1 << 40)), "of those beyond its end are in use"),
            (24 + 48 + 40, struct.pack("<Q", last + 5), "main tree begins at page"),
            (24 + 40, struct.pack("<Q", 1 << 50), "free list begins at page"),
        ):
            bad = bytearray(whole)
            bad[at + offset : at + offset + len(value)] = value
            refused(data, bytes(bad), EXIT_CORRUPT, word)


def test_a_file_that_is_cut_short_under_a_broker_ends_it_by_name():
    with tempfile.TemporaryDirectory() as top:
        data, _, _ = published(top)
        code, said, broker = serve(data)
        try:
            tap.equal(code, None, f"it is up: {said}")
            os.truncate(os.path.join(data, "data.mdb"), 2 * PAGE)
            # The next operation may be answered from memory, or may fault in the map.
            subprocess.run(
                [tap.program("tests/faults/pub_check"), broker.address],
                capture_output=True,
                timeout=60,
            )
            tap.equal(broker.wait(60), EXIT_CORRUPT, "it ends with a code, not by a signal")
            tap.check(
                b"the store's file cannot be read or is damaged" in broker.text(),
                f"it says why: {broker.tail()}",
            )
        finally:
            broker.kill()


def flip(whole, last):
    """Flips a bit of a used or free page, half of the time near the page's beginning, where its
    structure is."""
    at = RNG.randrange(min(last + 1, len(whole) // PAGE)) * PAGE + (
        RNG.randrange(PAGE) if RNG.random() < 0.5 else RNG.randrange(64)
    )
    bad = bytearray(whole)
    bad[at] ^= 1 << RNG.randrange(8)
    return bytes(bad), f"byte {at % PAGE} of page {at // PAGE} (seed {SEED})"


def value_of(line):
    return line.rsplit(" ", 1)[1]


def dump_is_honest(data, lines, what):
    code, found, said = dump(data)
    tap.check(code in (0, EXIT_CORRUPT), f"{what}: --dump ends with a code: {code}, {said}")
    good = set(lines) | {value_of(line) for line in lines if line.startswith("log ")}
    # A segment's checksum does not cover its key.
    other = [
        line
        for line in found
        if line not in good
        and not line.startswith("! ")
        and not (line.startswith("log ") and value_of(line) in good)
    ]
    tap.check(not other, f"{what}: --dump shows nothing that was not stored: {other[:2]}")
    tap.check(
        code != 0 or len(found) == len(lines), f"{what}: --dump omits nothing without a message"
    )
    return code != 0


def broker_is_honest(data, what):
    """Whether it refused to start, or to read."""
    code, said, broker = serve(data)
    try:
        if code is not None:
            tap.equal(code, EXIT_CORRUPT, f"{what}: it refuses with a code: {said}")
            return True
        done = subprocess.run(
            [tap.program("tests/faults/pub_check"), broker.address],
            capture_output=True,
            text=True,
            timeout=60,
        )
        found = [int(line) for line in done.stdout.split()]
        tap.equal(
            found, list(range(1, len(found) + 1)), f"{what}: what is read is what was published"
        )
        tap.check(
            len(found) == EVENTS or done.returncode != 0,
            f"{what}: nothing is omitted without an error: {len(found)} events",
        )
        broker.stop()
        return done.returncode != 0
    finally:
        broker.kill()


def test_a_flipped_bit_is_named_or_harmless():
    with tempfile.TemporaryDirectory() as top:
        data, whole, lines = published(top)
        _, last, _ = newest_meta(whole)
        named_by_dump = named_by_broker = 0
        for _ in range(FLIPS):
            bad, what = flip(whole, last)
            write(data, bad)
            named_by_dump += dump_is_honest(data, lines, what)
            write(data, bad)
            named_by_broker += broker_is_honest(data, what)
        print(
            (
                f"{FLIPS} flips: --dump named {named_by_dump}, sluiced {named_by_broker}; the"
                " others had no effect"
            ),
            file=sys.stderr,
        )
        tap.check(named_by_dump > 0, "some flips were detected")


print(f"seed {SEED}", file=sys.stderr)
tap.main(globals(), 1800 if tap.LONG else 120)
