#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""sluice-floor as a program: results in both forms, clear errors, and no files left.

Usage: check_floor.py PATH_OF_SLUICE_FLOOR
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = sys.argv.pop()


def run(*args):
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=60)


class Floor(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def left(self):
        return os.listdir(self.dir.name)

    def quick(self, *args):
        return run(
            "--quick",
            "--slice",
            "10",
            "--age",
            "100",
            "--records",
            "2000",
            "--backlog",
            "2000",
            "--turnover",
            "2",
            "--dir",
            self.dir.name,
            *args
        )

    def test_every_scenario_reports_positive_numbers_on_both_stores(self):
        path = os.path.join(self.dir.name, "out.json")
        got = self.quick("--repeats", "1", "--json", path)
        self.assertEqual(got.returncode, 0, got.stderr)
        with open(path) as f:
            rows = json.load(f)["rows"]
        names = {
            line.split()[0] for line in run("--list").stdout.splitlines() if line.startswith("  ")
        }
        self.assertGreater(len(names), 20)
        for store in ("fresh", "aged"):
            self.assertEqual({r["scenario"] for r in rows if r["store"] == store}, names)
        for row in rows:
            self.assertEqual(len(row["values"]), 1)
            self.assertGreater(row["probe_us"], 0)
            if "growth" not in row["unit"] and row["unit"] != "us/page":
                self.assertGreater(row["median"], 0, row)
            self.assertIn(row["scenario"], got.stdout)
        self.assertEqual(self.left(), ["out.json"])

    def test_median_lies_between_min_and_max(self):
        path = os.path.join(self.dir.name, "out.json")
        self.assertEqual(
            self.quick("--only", "commit-put", "--repeats", "4", "--json", path).returncode, 0
        )
        with open(path) as f:
            rows = json.load(f)["rows"]
        self.assertEqual(len(rows), 2)
        for row in rows:
            ordered = sorted(row["values"])
            self.assertEqual((row["min"], row["max"]), (ordered[0], ordered[3]))
            self.assertAlmostEqual(
                row["median"], (ordered[1] + ordered[2]) / 2, delta=row["median"] * 1e-4
            )

    def test_only_takes_a_family_or_a_pattern(self):
        out = self.quick("--only", "commit", "--only", "queue-*-churn", "--repeats", "1").stdout
        for name in ("commit-put", "commit-scatter", "queue-fifo-churn", "queue-trees-churn"):
            self.assertIn(name, out)
        self.assertNotIn("ledger", out)
        self.assertNotIn("backlog", out)

    def test_bad_options_are_named_and_nothing_is_run(self):
        for args, words in (
            (["--only", "nonsense"], "nonsense"),
            (["--repeats", "0"], "from 1 to 25"),
            (["--repeats", "26"], "from 1 to 25"),
            (["--slice", "many"], "whole number"),
            (["--backlog", "-5"], "--backlog -5"),
            (["--durability", "maybe"], "sync or none"),
            (["--frobnicate"], "frobnicate"),
            (["stray"], "stray"),
        ):
            got = run(*args)
            self.assertEqual(got.returncode, 2, args)
            self.assertIn(words, got.stderr)
            self.assertEqual(got.stdout, "")

    def test_a_directory_that_is_not_there_is_an_error(self):
        got = run("--quick", "--dir", os.path.join(self.dir.name, "absent"))
        self.assertEqual(got.returncode, 1)
        self.assertIn("absent", got.stderr)

    def test_a_signal_leaves_no_scratch_directory(self):
        child = subprocess.Popen([PROGRAM, "--dir", self.dir.name], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self.left() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertTrue(self.left())
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(20), 128 + signal.SIGTERM)
        self.assertEqual(self.left(), [])


if __name__ == "__main__":
    unittest.main()
