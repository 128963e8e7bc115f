/* SPDX-License-Identifier: Apache-2.0
 *
 * sluice-floor: runs each chosen scenario on a fresh and on an aged store and reports medians.
 *
 * This file owns the order of the run, the scratch directory and the small helpers; the families
 * own what is measured. Everything lives in one directory that is made here and removed at the end,
 * also after an error or a signal.
 */
#include "floor.h"

#include <errno.h>
#include <fnmatch.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { TMPFS_TYPE = 0x01021994 };

static const struct floor_family *const families[] = {
	&floor_family_commit, &floor_family_publish, &floor_family_queue,
	&floor_family_ledger, &floor_family_values,
};

enum { FAMILY_COUNT = sizeof(families) / sizeof(families[0]) };

/* Filled before a signal can come, and only read after: the handler may use them. */
enum { SCRATCH_FILES = 6 };

static char scratch_dir[FLOOR_PATH_MAX];
static char scratch_files[SCRATCH_FILES][FLOOR_PATH_MAX + 32];

static void scratch_remove(void)
{
	if (!scratch_dir[0])
		return;
	for (size_t i = 0; i < SCRATCH_FILES; i++)
		(void)unlink(scratch_files[i]);
	(void)rmdir(scratch_dir);
}

static void on_signal(int number)
{
	scratch_remove();
	_exit(128 + number);
}

static bool name_matches(const struct floor_family *family, const struct floor_scenario *scenario,
			 const char *name)
{
	return strcmp(name, family->name) == 0 || fnmatch(name, scenario->name, 0) == 0;
}

static bool chosen(const struct floor_options *opt, const struct floor_family *family,
		   const struct floor_scenario *scenario)
{
	for (unsigned i = 0; i < opt->only_count; i++) {
		if (name_matches(family, scenario, opt->only[i]))
			return true;
	}
	return opt->only_count == 0;
}

static void list_scenarios(FILE *out)
{
	for (size_t f = 0; f < FAMILY_COUNT; f++) {
		fprintf(out, "%s\n", families[f]->name);
		for (size_t s = 0; s < families[f]->count; s++)
			fprintf(out, "  %-26s %s\n", families[f]->scenarios[s].name,
				families[f]->scenarios[s].what);
	}
}

/* Every --only must choose something; otherwise a typing error would look like a short, successful
 * run. */
static int check_only(const struct floor_options *opt)
{
	for (unsigned i = 0; i < opt->only_count; i++) {
		bool known = false;
		for (size_t f = 0; f < FAMILY_COUNT; f++) {
			for (size_t s = 0; s < families[f]->count; s++)
				known |= name_matches(families[f], &families[f]->scenarios[s],
						      opt->only[i]);
		}
		if (!known) {
			fprintf(stderr,
				"sluice-floor: --only %s: no such scenario or family; these "
				"exist:\n",
				opt->only[i]);
			list_scenarios(stderr);
			return 2;
		}
	}
	return 0;
}

/* The directory of the program, so that by default the stores are on the build's disk. */
static const char *default_parent(void)
{
	static char self[PATH_MAX];
	const char *tmp = getenv("TMPDIR");
	if (tmp && *tmp)
		return tmp;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	return n > 0 ? dirname(self) : ".";
}

static void scratch_make(const struct floor_options *opt)
{
	static const char *const names[SCRATCH_FILES] = {
		"aged.mdb",	"aged.mdb-lock", "run.mdb",
		"run.mdb-lock", "probe.mdb",	 "probe.mdb-lock",
	};
	char dir[FLOOR_PATH_MAX];
	int n = snprintf(dir, sizeof(dir), "%s/sluice-floor-XXXXXX",
			 opt->dir ? opt->dir : default_parent());
	if (n < 0 || (size_t)n >= sizeof(dir) - 32)
		floor_die("the directory's name is too long");
	if (!mkdtemp(dir))
		floor_die("cannot make %s: %s", dir, strerror(errno));
	for (size_t i = 0; i < SCRATCH_FILES; i++)
		snprintf(scratch_files[i], sizeof(scratch_files[i]), "%s/%s", dir, names[i]);
	memcpy(scratch_dir, dir, sizeof(dir));

	floor_at_death(scratch_remove);
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);

	struct statfs fs;
	if (statfs(dir, &fs) == 0 && fs.f_type == TMPFS_TYPE)
		fprintf(stderr,
			"sluice-floor: %s is in memory (tmpfs): a sync costs nothing there, "
			"use --dir\n",
			dir);
}

/* State of the harness for every scenario. The stores are open (probe) and closed (aged). */
struct bench {
	const struct floor_options *opt;
	struct floor_report *report;
	struct floor_store aged, probe;
};

static void store_open(struct floor_store *store, const struct floor_options *opt,
		       const struct floor_store *aged)
{
	if (aged)
		floor_store_clone(store, aged, scratch_files[2]);
	else
		floor_store_create(store, scratch_files[2], opt->sync);
}

static void run_scenario(struct bench *bench, const struct floor_scenario *scenario,
			 const struct floor_store *aged)
{
	const struct floor_options *opt = bench->opt;
	double values[FLOOR_METRICS_MAX][FLOOR_REPEATS_MAX] = {{0}};
	double probes[FLOOR_REPEATS_MAX];
	struct floor_store store = {0};
	struct floor_run run = {.opt = opt, .scenario = scenario, .store = &store};

	for (unsigned r = 0; r < opt->repeats; r++) {
		double got[FLOOR_METRICS_MAX] = {0};
		if (r == 0 || scenario->store_each) {
			run.rng = r + 1;
			store_open(&store, opt, aged);
			scenario->setup(&run);
		}
		if (r == 0 && !scenario->store_each) {
			run.slice_ns = opt->slice_ms * 250000u;
			scenario->step(&run, got);
		}
		run.slice_ns = opt->slice_ms * 1000000u;
		double before = floor_store_probe(&bench->probe);
		scenario->step(&run, got);
		probes[r] = (before + floor_store_probe(&bench->probe)) / 2;
		for (size_t m = 0; m < FLOOR_METRICS_MAX; m++)
			values[m][r] = got[m];
		if (r + 1 == opt->repeats || scenario->store_each) {
			scenario->fini(&run);
			floor_store_close(&store);
		}
	}
	for (size_t m = 0; m < FLOOR_METRICS_MAX && scenario->units[m]; m++) {
		struct floor_row row = {.scenario = scenario->name,
					.store = aged ? "aged" : "fresh",
					.unit = scenario->units[m],
					.count = opt->repeats,
					.probe_us = floor_median(probes, opt->repeats)};
		memcpy(row.values, values[m], sizeof(row.values));
		floor_report_add(bench->report, &row);
	}
}

static void run_all(struct bench *bench)
{
	bool progress = isatty(STDERR_FILENO);
	for (size_t f = 0; f < FAMILY_COUNT; f++) {
		for (size_t s = 0; s < families[f]->count; s++) {
			const struct floor_scenario *scenario = &families[f]->scenarios[s];
			if (!chosen(bench->opt, families[f], scenario))
				continue;
			for (int old = 0; old < 2; old++) {
				if (progress)
					fprintf(stderr, "\r\033[K%s, %s store", scenario->name,
						old ? "aged" : "fresh");
				run_scenario(bench, scenario, old ? &bench->aged : NULL);
			}
		}
	}
	if (progress)
		fputs("\r\033[K", stderr);
}

static void print_head(const struct floor_options *opt, const struct floor_age *age)
{
	printf("LMDB %d.%d.%d, durability %s, slice %u ms, %u repeats; ", MDB_VERSION_MAJOR,
	       MDB_VERSION_MINOR, MDB_VERSION_PATCH, opt->sync ? "sync" : "none", opt->slice_ms,
	       opt->repeats);
	printf("aged store: file %.0f MiB, free %.0f %% in runs of %.1f pages on average\n\n",
	       (double)age->file_bytes / (1 << 20),
	       100.0 * (double)(age->file_bytes - age->live_bytes) / (double)age->file_bytes,
	       (double)age->free_pages / (double)(age->free_runs ? age->free_runs : 1));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct floor_options opt;
	int rc = floor_options_parse(&opt, argc, argv);
	if (rc)
		return rc;
	if (opt.help) {
		floor_options_usage();
		return 0;
	}
	if (opt.list) {
		list_scenarios(stdout);
		return 0;
	}
	rc = check_only(&opt);
	if (rc)
		return rc;

	uint64_t start = floor_now_ns();
	scratch_make(&opt);
	static struct floor_report report;
	struct bench bench = {.opt = &opt, .report = &report};
	floor_store_create(&bench.aged, scratch_files[0], opt.sync);
	floor_store_age(&bench.aged, opt.age_rounds);
	floor_store_close(&bench.aged);
	print_head(&opt, &bench.aged.age);
	floor_store_create(&bench.probe, scratch_files[4], opt.sync);

	run_all(&bench);
	floor_store_close(&bench.probe);
	floor_report_print(&report);
	printf("\n%.1f s\n", (double)(floor_now_ns() - start) / 1e9);
	if (opt.json_path)
		floor_report_json(&report, &opt, &bench.aged.age, opt.json_path);
	scratch_remove();
	return 0;
}
