# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of addresses and TLS: the command, and a session that outlives its broker."""
import subprocess

import tap


def sluice(address, *args, ca=None, timeout="10s", **more):
    return subprocess.run(
        [
            *(tap.program("client/cli/sluice"), "--address", address, "--timeout", timeout),
            *(("--tls-ca", ca) if ca else ()),
            *args,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


def a_session_is_resumed(data, listen, address, *options):
    """A follower at this address of a broker that is killed and started again."""
    broker = tap.Broker(data=data, args=listen)
    try:
        done = sluice(broker.address, "stream", "create", "e", "--subject", "e.>")
        tap.equal(done.returncode, 0, "stream create")
        follower = tap.Process(
            [
                *(tap.program("client/cli/sluice"), *options),
                *("--address", address, "follow", "e", "--from", "0"),
            ]
        )
        try:
            sluice(broker.address, "pub", "e.x", "first")
            tap.wait_until(lambda: b"first" in follower.text(), 20, "the first event")
            broker.kill()
            broker = tap.Broker(data=data, args=listen)
            tap.wait_until(lambda: b"again" in follower.text(), 30, "it is connected again")
            tap.check(b"the session had ended" not in follower.text(), "with the same session")
            sluice(broker.address, "pub", "e.x", "second")
            tap.wait_until(lambda: b"second" in follower.text(), 20, "the second event")
        finally:
            follower.kill()
        broker.stop()
    finally:
        broker.kill()
