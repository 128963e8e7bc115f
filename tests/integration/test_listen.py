#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Where the broker listens: several addresses."""
import re
import subprocess

import tap


def sluice(address, *args):
    return subprocess.run(
        [tap.program("client/cli/sluice"), "--address", address, "--timeout", "5s", *args],
        capture_output=True,
        text=True,
        timeout=30,
    )


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


tap.main(globals())
