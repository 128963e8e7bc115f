# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of the `sluice` command."""
import subprocess

import tap


class Cli:
    def __init__(self, broker):
        self.address = broker.address

    def run(self, *args, stdin=""):
        return subprocess.run(
            [tap.program("client/cli/sluice"), "--address", self.address, *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def ok(self, *args, stdin=""):
        done = self.run(*args, stdin=stdin)
        tap.equal(done.returncode, 0, f"sluice {' '.join(args)}: {done.stderr}")
        return done.stdout
