# SPDX-License-Identifier: Apache-2.0
"""A publishing load: the acknowledged numbers, the numbers in the stream, and the verdict on both.
"""
import os
import subprocess

import tap

COUNT_ENDLESS = 100_000_000


class Load:
    """pub_load in the background; its acknowledgements are in a file on a disk that keeps its
    power."""

    def __init__(self, address, acks, count=COUNT_ENDLESS, window=200):
        self.acks = acks
        self.process = tap.Process(
            [tap.program("tests/faults/pub_load"), address, acks, str(count), str(window)]
        )

    def acknowledged(self):
        try:
            with open(self.acks, encoding="ascii") as file:
                # The last line may be cut when the load was killed.
                return [int(line) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def bytes(self):
        """The size of the acknowledgements, without reading them; it grows with each."""
        try:
            return os.path.getsize(self.acks)
        except FileNotFoundError:
            return 0

    def kill(self):
        self.process.kill()

    def wait(self, seconds):
        return self.process.wait(seconds)


def read_stream(address):
    done = subprocess.run(
        [tap.program("tests/faults/pub_check"), address],
        capture_output=True,
        text=True,
        timeout=120,
    )
    tap.equal(done.returncode, 0, f"the stream is read to its end: {done.stderr}")
    return [int(line) for line in done.stdout.split()]


def verdict(acknowledged, stream):
    """(lost, doubled, disordered): each must be 0. Numbers that were never acknowledged may be
    stored once, or not."""
    seen = set(stream)
    lost = len(set(acknowledged) - seen)
    disordered = sum(1 for a, b in zip(stream, stream[1:]) if b <= a)
    return lost, len(stream) - len(seen), disordered
