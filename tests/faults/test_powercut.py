#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The power is cut under load. The broker loses nothing that it acknowledged; and the rig's
controls must lose, because a rig that does not detect a planted bug proves nothing. Short here;
`SLUICE_TEST_LONG=1` makes it 50 cuts (or SLUICE_CUTS=N)."""
import os
import random
import sys
import tempfile
import time

import load
import powercut_disk
import subjects
import tap

CUTS = int(os.environ.get("SLUICE_CUTS", 50 if tap.LONG else 2))
CONTROL_CUTS = max(1, CUTS // 10)
METASYNC_CUTS_MAX = 20
SEED = int(os.environ.get("SLUICE_SEED", random.randrange(1 << 30)))
RNG = random.Random(SEED)


def say(text):
    print(text, file=sys.stderr)


def random_moment():
    time.sleep(RNG.uniform(0.0, 0.8))


def cut_once(make_subject, pause=random_moment):
    """make_subject(top) on a new disk; one cut."""
    with tempfile.TemporaryDirectory() as top, subjects.disk(top) as power:
        subject = make_subject(top)
        account = subjects.cut(power, subject, pause)
        say(f"{subject.name}: {account.text()}")
        return account


def check_sound(account):
    tap.equal(account.damage, None, f"the store is undamaged (seed {SEED})")
    tap.equal(
        load.verdict(account.acknowledged, account.found),
        (0, 0, 0),
        f"(lost, doubled, disordered) with seed {SEED}",
    )
    tap.equal(
        account.found,
        list(range(1, len(account.found) + 1)),
        f"the numbers found are a prefix of those sent (seed {SEED})",
    )


def preload():
    path = os.path.join(tap.BUILD, "tests/faults/fsync_none.so")
    if not os.path.exists(path):
        tap.skip("fsync_none.so is not built")
    return {"LD_PRELOAD": tap.plain(path)}


def test_control_lmdb_with_full_sync_loses_nothing():
    for _ in range(CUTS):
        check_sound(cut_once(lambda top: subjects.Lmdb("sync")))


def test_control_lmdb_without_sync_loses_what_it_acknowledged():
    for _ in range(CONTROL_CUTS):
        account = cut_once(lambda top: subjects.Lmdb("nosync"))
        tap.check(
            account.lost() > 0, f"the rig detects a planted loss: {account.text()} (seed {SEED})"
        )


def test_control_lmdb_without_metasync_loses_one_commit():
    """The smallest possible loss: the last acknowledged commit, unless the next one's sync had
    begun already."""
    for _ in range(METASYNC_CUTS_MAX):
        account = cut_once(lambda top: subjects.Lmdb("nometasync"))
        gone = len(account.acknowledged) - len(account.found)
        tap.equal(account.damage, None, f"the store is undamaged (seed {SEED})")
        tap.check(gone <= 1, f"not more than one commit is lost: {account.text()} (seed {SEED})")
        if gone == 1:
            return
    raise tap.Failed(
        f"no cut of {METASYNC_CUTS_MAX} lost a commit: the rig does not detect the smallest loss"
        f" (seed {SEED})"
    )


def test_control_broker_without_fsync_loses_what_it_acknowledged():
    for _ in range(CONTROL_CUTS):
        account = cut_once(lambda top: subjects.Broker(top, preload()))
        tap.check(
            account.lost() > 0,
            f"the rig detects the broker's planted loss: {account.text()} (seed {SEED})",
        )


def test_control_broker_whose_syncs_end_loses_the_rest():
    """Less than everything must be seen, too: all is on disk at one moment, and the
    acknowledgements after it are not."""

    def pause():
        os.sync()
        random_moment()
        time.sleep(0.2)

    account = cut_once(lambda top: subjects.Broker(top, preload()), pause)
    tap.check(
        account.lost() > 0,
        f"the rig detects the broker's planted loss: {account.text()} (seed {SEED})",
    )


def test_broker_loses_nothing_that_it_acknowledged():
    for _ in range(CUTS):
        check_sound(cut_once(subjects.Broker))


def test_broker_loses_nothing_when_the_power_fails_again_and_again():
    """One disk, one store that grows older, one load that reconnects and retries; some cuts come
    while the broker recovers."""
    with tempfile.TemporaryDirectory() as top, subjects.disk(top) as power:
        subject = subjects.Broker(top)
        blind = 0
        try:
            for n in range(max(4, CUTS)):
                if n > 0 and RNG.random() < 0.4:
                    blind += 1
                    subject.start_blind(power.mnt)
                    time.sleep(RNG.uniform(0.0, 0.08))
                else:
                    before = subject.feed.bytes() if subject.feed else 0
                    subject.start(power.mnt)
                    tap.wait_until(
                        lambda: subject.feed.bytes() > before, 60, f"the load goes on after cut {n}"
                    )
                    time.sleep(RNG.uniform(0.0, 0.4))
                power.kill_power()
                subject.kill_broker()
                power.stop()
                power.remount()
        finally:
            subject.kill()
        acknowledged = subject.acknowledged()
        account = subjects.Account(acknowledged, acknowledged, subject.recover(power.mnt))
        say(f"{n + 1} cuts of one store, {blind} while it started: {account.text()}")
        check_sound(account)


powercut_disk.handle_signals()
say(f"seed {SEED}, {CUTS} cuts")
tap.main(globals(), 3600 if tap.LONG else 180)
