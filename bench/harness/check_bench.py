#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""sluice-bench as a program: every scenario on every system with small numbers, the form of the
report, clear errors, and no processes or files left. It does not test speed.

Usage: check_bench.py PATH_OF_SLUICE_BENCH BUILD_DIRECTORY
"""
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import unittest
import xml.dom.minidom

BUILD = sys.argv.pop()
PROGRAM = sys.argv.pop()

# Fewer repeats than a report may have: these runs test the program, not a system.
ENV = dict(os.environ, SLUICE_BENCH_SMOKE="1")
SMALL = ["--quick", "--slice", "20", "--stored", "5000", "--idle", "60", "--active", "50"]
FIELDS = {
    "scenario",
    "system",
    "durability",
    "unit",
    "median",
    "min",
    "max",
    "runs",
    "p50_us",
    "p99_us",
    "p999_us",
    "server_cpu_s_per_million",
    "client_cpu_s_per_million",
    "rss_anon_peak_bytes",
}


def run(*args, bin_dir=BUILD, env=ENV):
    return subprocess.run(
        [PROGRAM, "--bin", bin_dir, *args], capture_output=True, text=True, timeout=240, env=env
    )


def listed():
    scenarios, systems, now = [], [], None
    for line in run("--list").stdout.splitlines():
        if not line.startswith("  "):
            now = systems if line.startswith("systems") else scenarios
            continue
        name = line.split()[0]
        now.append(name.rstrip("*"))
        if name.endswith("*") or line.split()[1].startswith("*"):
            now.append(name.rstrip("*") + "-aged")
    return scenarios, systems


def children_of(pid):
    """The child processes of a process."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    if int(stat.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(entry))
            except OSError:
                pass
    return found


def ticks_of(pid, name):
    """Processor time of a process in ticks; 0 if it has another name."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            before, after = stat.read().rsplit(")", 1)
    except OSError:
        return 0
    return sum(map(int, after.split()[11:13])) if before.split("(", 1)[1] == name else 0


class Bench(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.dir = os.path.join(self.temporary.name, "data")
        self.json = os.path.join(self.temporary.name, "out.json")

    def small(self, *args, **more):
        return run(*SMALL, "--dir", self.dir, "--json", self.json, *args, **more)

    def rows(self):
        with open(self.json) as file:
            return json.load(file)

    def assert_nothing_left(self):
        self.assertEqual([name for name in os.listdir(self.dir) if not name.endswith(".log")], [])

    def test_every_scenario_measures_every_system_that_takes_part(self):
        got = self.small("--repeats", "1", "--svg", os.path.join(self.temporary.name, "svg"))
        self.assertEqual(got.returncode, 0, got.stderr + got.stdout)
        rows = self.rows()
        scenarios, systems = listed()
        self.assertEqual({row["scenario"] for row in rows}, set(scenarios))
        self.assertEqual({row["system"] for row in rows}, set(systems))
        self.assertEqual(len({(row["scenario"], row["system"]) for row in rows}), len(rows))
        for row in rows:
            self.assertLessEqual(FIELDS, set(row))
            self.assertEqual(len(row["runs"]), 1, row)
            self.assertGreater(row["median"], 0, row)
            if row["system"] == "sluice":
                self.assertEqual(row["durability"], "fsync before the reply")
            if row["scenario"].startswith(("publish", "latency")):
                self.assertGreater(row["p50_us"], 0, row)
                self.assertLessEqual(row["p50_us"], row["p99_us"])
                self.assertLessEqual(row["p99_us"], row["p999_us"])
            if row["scenario"].startswith("publish") and row["system"] != "floor-commit":
                self.assertGreater(row["server_cpu_s_per_million"], 0, row)
                self.assertGreater(row["rss_anon_peak_bytes"], 0, row)
        for name in scenarios:
            self.assertIn(f"\n{name} (", got.stdout)
            xml.dom.minidom.parse(os.path.join(self.temporary.name, "svg", name + ".svg"))
        self.assert_nothing_left()

    def test_the_figures_of_a_row_belong_together(self):
        got = self.small(
            "--repeats",
            "4",
            "--only",
            "publish-1k",
            "--system",
            "sluice",
            "--system",
            "floor-record",
        )
        self.assertEqual(got.returncode, 0, got.stderr)
        rows = self.rows()
        self.assertEqual([row["system"] for row in rows], ["sluice", "floor-record"])
        for row in rows:
            self.assertEqual(len(row["runs"]), 4)
            self.assertAlmostEqual(
                row["median"], statistics.median(row["runs"]), delta=row["median"] * 1e-6
            )
            self.assertAlmostEqual(row["min"], min(row["runs"]), delta=row["median"] * 1e-6)
            self.assertAlmostEqual(row["max"], max(row["runs"]), delta=row["median"] * 1e-6)
        self.assertAlmostEqual(
            rows[0]["of_floor"], rows[0]["median"] / rows[1]["median"], delta=1e-4
        )
        self.assertEqual(rows[0]["floor"], "floor-record")

    def test_standard_output_is_the_json_alone_if_it_is_to_be(self):
        got = self.small(
            "--json", "-", "--repeats", "1", "--only", "publish-1k", "--system", "floor-record"
        )
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual([row["system"] for row in json.loads(got.stdout)], ["floor-record"])
        self.assertIn("publish-1k (events/s)", got.stderr)

    def test_a_pattern_that_names_nothing_is_refused(self):
        for names in (
            ["--only", "publish-2"],
            ["--only", "publish-1", "--only", "publish-2"],
            ["--system", "sluic"],
            ["--only", "jobs", "--system", "floor-echo"],
        ):
            got = self.small(*names)
            self.assertEqual(got.returncode, 2)
            self.assertIn("--list", got.stderr)
            self.assert_nothing_left()

    def test_bad_options_are_named(self):
        for args, word in (
            (["--repeats", "4"], "from 5"),
            (["--slice", "x"], "--slice 'x'"),
            (["extra"], "'extra'"),
            (["--idle", "0"], "from 1"),
            (["--bin", "/nonexistent"], "/nonexistent"),
            (["--json", "/nonexistent/a.json"], "/nonexistent/a.json"),
            (["--svg", PROGRAM], PROGRAM),
        ):
            got = subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=20)
            self.assertEqual(got.returncode, 2, args)
            self.assertIn(word, got.stderr)

    def test_a_server_that_does_not_start_fails_its_row_and_no_other(self):
        broken = os.path.join(self.temporary.name, "broken")
        os.makedirs(os.path.join(broken, "broker"))
        os.symlink(os.path.join(BUILD, "bench"), os.path.join(broken, "bench"))
        with open(os.path.join(broken, "broker", "sluiced"), "w") as script:
            script.write("#!/bin/sh\necho no store today >&2\nexit 1\n")
        os.chmod(script.name, 0o755)
        got = self.small("--repeats", "1", "--only", "publish-1k", bin_dir=broken)
        self.assertEqual(got.returncode, 1)
        self.assertIn("publish-1k, sluice:", got.stderr)
        by_system = {row["system"]: row for row in self.rows()}
        self.assertIsNone(by_system["sluice"]["median"])
        self.assertTrue(by_system["sluice"]["error"])
        self.assertGreater(by_system["floor-record"]["median"], 0)
        with open(os.path.join(self.dir, "sluice.log")) as log:
            self.assertIn("no store today", log.read())
        self.assert_nothing_left()

    def test_a_server_that_dies_under_load_fails_its_row_and_no_other(self):
        args = [
            *SMALL,
            "--dir",
            self.dir,
            "--json",
            self.json,
            "--only",
            "publish-1k",
            "--system",
            "sluice",
            "--system",
            "floor-record",
            "--slice",
            "1000",
            "--repeats",
            "1",
        ]
        child = subprocess.Popen(
            [PROGRAM, "--bin", BUILD, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENV,
        )
        self.addCleanup(child.kill)
        until, broker = time.monotonic() + 60, None
        while broker is None and time.monotonic() < until:
            broker = next(
                (pid for pid in children_of(child.pid) if ticks_of(pid, "sluiced") > 2), None
            )
            time.sleep(0.01)
        self.assertIsNotNone(broker, "no broker had work")
        os.kill(broker, signal.SIGKILL)
        table, said = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 1, said)
        self.assertIn("publish-1k, sluice:", said)
        self.assertNotIn("reached publish", table)
        by_system = {row["system"]: row for row in self.rows()}
        self.assertIn("connection", by_system["sluice"]["error"])
        self.assertGreater(by_system["floor-record"]["median"], 0)
        self.assert_nothing_left()

    def test_a_ctrl_c_stops_the_servers_and_removes_the_data(self):
        child = subprocess.Popen(
            [
                PROGRAM,
                "--bin",
                BUILD,
                "--dir",
                self.dir,
                "--only",
                "publish-1k",
                "--slice",
                "60000",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=ENV,
        )
        self.addCleanup(child.kill)
        until = time.monotonic() + 60
        while len(children_of(child.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        servers = children_of(child.pid)
        self.assertGreaterEqual(len(servers), 2)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 130)
        self.assertIn("interrupted", said)
        for pid in servers:
            self.assertFalse(os.path.exists(f"/proc/{pid}"))
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
