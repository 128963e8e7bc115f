/* SPDX-License-Identifier: Apache-2.0
 * The simulator's command line and test. See README.md. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/util/log.h"
#include "tests/sim/plants.h"
#include "tests/sim/sim.h"

enum { PLACE_BYTES = 40, STEPS = 300, MEM_SEEDS = 20, LMDB_SEEDS = 5, PLANT_SEEDS = 24 };

/* ---- as a test ---- */

static int count, failed;

static void report(bool ok, const char *what, const char *store)
{
	failed += !ok;
	printf("%s %d - %s: %s\n", ok ? "ok" : "not ok", ++count, store, what);
}

static bool all_kept(bool lmdb, uint64_t seeds)
{
	bool good = true;

	for (uint64_t seed = 1; seed <= seeds; seed++) {
		struct sim_spec spec = {.seed = seed, .steps = STEPS, .lmdb = lmdb};
		uint64_t hash;

		good &= sim_run(&spec, &hash);
	}
	return good;
}

/* Two runs that must have the same output and stored state. */
static bool same(struct sim_spec a, struct sim_spec b)
{
	uint64_t hash_a, hash_b;
	bool good = sim_run(&a, &hash_a);

	return sim_run(&b, &hash_b) && good && hash_a == hash_b;
}

static bool stores_agree(void)
{
	bool good = true;

	for (uint64_t seed = 1; seed <= LMDB_SEEDS; seed++)
		good &= same((struct sim_spec){.seed = seed, .steps = STEPS},
			     (struct sim_spec){.seed = seed, .steps = STEPS, .lmdb = true});
	return good;
}

/* In a process of its own: a plant may break an invariant of the broker, which then aborts. */
static bool run_catches(const struct sim_spec *spec)
{
	static const struct rlimit no_core = {0, 0};
	uint64_t hash;
	int status = 0;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		(void)setrlimit(RLIMIT_CORE, &no_core);
		bool kept = sim_run(spec, &hash);

		fflush(stdout);
		_exit(kept ? 0 : 1);
	}
	must(child < 0 || waitpid(child, &status, 0) != child ? SLUICE_E_INTERNAL : 0, "fork");
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
		return true;
	must(!WIFEXITED(status) || WEXITSTATUS(status) > 1 ? SLUICE_E_INTERNAL : 0,
	     "a run with a plant");
	return WEXITSTATUS(status) == 1;
}

static bool caught(int plant, bool lmdb)
{
	for (uint64_t seed = 1; seed <= PLANT_SEEDS; seed++) {
		struct sim_spec spec = {.seed = seed, .steps = STEPS, .lmdb = lmdb, .plant = plant};

		if (run_catches(&spec))
			return true;
	}
	return false;
}

/* Files of an aborted run are removed with it. */
static void place_make(char place[PLACE_BYTES])
{
	const char *const places[] = {getenv("TMPDIR"), "/dev/shm", "/tmp"};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (places[i] == NULL)
			continue;
		snprintf(place, PLACE_BYTES, "%.20s/sim.XXXXXX", places[i]);
		if (mkdtemp(place) != NULL && setenv("TMPDIR", place, 1) == 0)
			return;
	}
	must(SLUICE_E_IO, "a directory");
}

static void place_drop(const char *place)
{
	char command[PLACE_BYTES + 8];

	snprintf(command, sizeof(command), "rm -r %s", place);
	must(system(command) != 0 ? SLUICE_E_IO : 0, command);
}

static int tap(void)
{
	char place[PLACE_BYTES];

	place_make(place);
	report(all_kept(false, MEM_SEEDS), "seeds without a plant", "mem");
	report(stores_agree(), "both runs print and store the same", "mem and lmdb");
	for (int lmdb = 0; lmdb < 2; lmdb++) {
		for (int plant = 1; plants_name(plant) != NULL; plant++)
			report(caught(plant, lmdb), plants_name(plant), lmdb ? "lmdb" : "mem");
	}
	place_drop(place);
	printf("1..%d\n", count);
	return failed != 0;
}

/* ---- by hand ---- */

static void plants_list(void)
{
	for (int i = 1; plants_name(i) != NULL; i++)
		printf("%-20s %s\n", plants_name(i), plants_text(i));
}

int main(int argc, char **argv)
{
	static const struct option options[] =
		{{"seed", 1, NULL, 's'},  {"steps", 1, NULL, 'n'}, {"store", 1, NULL, 'd'},
		 {"seeds", 1, NULL, 'm'}, {"plant", 1, NULL, 'p'}, {"list-plants", 0, NULL, 'l'},
		 {"tap", 0, NULL, 't'},	  {"trace", 0, NULL, 'v'}, {NULL, 0, NULL, 0}};
	struct sim_spec spec = {.steps = STEPS};
	uint64_t seeds = 1, hash;
	bool good = true;
	int c;

	log_configure(2, LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
	if (getrandom(&spec.seed, 4, 0) != 4)
		return 2;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			spec.seed = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			spec.steps = strtoull(optarg, NULL, 10);
		else if (c == 'm')
			seeds = strtoull(optarg, NULL, 10);
		else if (c == 'd')
			spec.lmdb = strcmp(optarg, "lmdb") == 0;
		else if (c == 't')
			return tap();
		else if (c == 'p')
			spec.plant = plants_find(optarg);
		else if (c == 'v')
			spec.trace = true;
		else if (c == 'l')
			plants_list();
		if (c == 'l')
			return 0;
		if (c == '?' || spec.plant < 0)
			return 2;
	}
	for (uint64_t i = 0; i < seeds; i++, spec.seed++)
		good &= sim_run(&spec, &hash);
	return good ? 0 : 1;
}
