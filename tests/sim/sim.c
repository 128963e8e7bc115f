/* SPDX-License-Identifier: Apache-2.0
 * The seeded simulator: runs, by hand or as a test. All that is decided comes from the seed. See README.md. */
#include "tests/sim/sim.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "broker/util/log.h"
#include "tests/sim/plants.h"

enum { STEPS = 300, CLOSE_LOOK_EVERY = 16, DRAIN_ROUNDS_MAX = 60, PLANT_SEEDS = 5 };

void must(int rc, const char *what)
{
	if (rc == 0)
		return;
	fprintf(stderr, "sluice-sim: %s: %s: %s\n", what, sluice_error_name(rc), store_last_error());
	exit(2);
}

uint64_t roll(struct sim *s, uint64_t n)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (s->random >> 11) % n;
}

struct sluice_slice text(const char *t)
{
	return (struct sluice_slice){t, strlen(t)};
}

static void on_kick(struct engine_sink *sink, uint64_t tag)
{
	(void)sink, (void)tag;
}

/* ---- a run ---- */

static void pass(struct sim *s, uint64_t ms)
{
	s->now.mono_ms += ms, s->now.wall_ms += ms;
	oracle_time(s->oracle, s->now.mono_ms);
}

/* Mostly a moment; now and then longer than a lease, or than a session's timeout. */
static uint64_t some_time(struct sim *s)
{
	uint64_t what = roll(s, 120);

	if (what == 0)
		return SESSION_MS + roll(s, SESSION_MS);
	return what < 4 ? LEASE_MS + roll(s, LEASE_MS) : roll(s, 200);
}

static void act(struct sim *s)
{
	int client = (int)roll(s, CLIENTS);
	uint64_t what = roll(s, 60);

	if (what < 1)
		reopen(s, (int)roll(s, PRODUCERS));
	else if (what < 22)
		publish(s, (int)roll(s, PRODUCERS));
	else if (what < 36)
		settle(s);
	else if (what < 46)
		job_do(s);
	else if (what < 50)
		transact(s);
	else if (what < 51)
		cursor_do(s);
	else if (what < 56)
		credit(s, client, 2);
	else if (what < 59)
		client_connect(s, client);
	else if (roll(s, 4) == 0)
		purge(s);
	else if (roll(s, 3) == 0)
		client_close(s, client);
	else
		client_leave(s, client);
}

/* Drives the broker until it rests; one that died is booted and driven again. */
static void settle_down(struct sim *s)
{
	if (!drive(s) || s->kill)
		crash(s);
	faults_off(s);
	for (int i = 0; i < CLIENTS; i++) {
		if (s->clients[i].deaf)
			client_break(s, i);
	}
	if (!drive(s))
		crash(s);
}

static void one_step(struct sim *s)
{
	uint64_t actions = 1 + roll(s, 6);

	pass(s, some_time(s));
	for (uint64_t i = 0; i < actions; i++)
		act(s);
	faults_plan(s);
	settle_down(s);
	(void)look(s, s->step % CLOSE_LOOK_EVERY == 0);
}

/* No more faults, and nobody acks: all comes due, is given out, and expires until it is a dead letter. The client that holds what it has as
 * long as it lives has to go for that. */
static void drain(struct sim *s)
{
	struct oracle_counts shown = {.ready = 1};

	for (int i = 0; i < DRAIN_ROUNDS_MAX && oracle_why(s->oracle) == NULL &&
			shown.ready + shown.leased + shown.delayed > 0;
	     i++) {
		pass(s, 2 * LEASE_MS);
		client_leave(s, CLIENTS - 1);
		for (int c = 0; c < CLIENTS - 1; c++) {
			client_connect(s, c);
			credit(s, c, 512);
		}
		if (!drive(s))
			must(SLUICE_E_INTERNAL, "drain");
		shown = look(s, true);
	}
	oracle_drained(s->oracle, &shown);
}

static void result(const struct sim *s, uint64_t seed, int plant, bool good)
{
	printf("# seed %" PRIu64 " store %s plant %s: %s at step %" PRIu64 " hash %016" PRIx64 "\n", seed,
	       s->lmdb ? "lmdb" : "mem", plants_name(plant), good ? "kept" : oracle_why(s->oracle), s->step,
	       oracle_hash(s->oracle));
}

static bool trace; /* --trace */

/* In memory, if that can be: a kill of the simulated broker does not ask the disk. */
static bool dir_make(struct sim *s)
{
	const char *const places[] = {getenv("TMPDIR"), "/dev/shm", "/tmp"};

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (places[i] == NULL)
			continue;
		snprintf(s->dir, sizeof(s->dir), "%.40s/sluice-sim.XXXXXX", places[i]);
		if (mkdtemp(s->dir) != NULL)
			return true;
	}
	return false;
}

static bool run(uint64_t seed, uint64_t steps, bool lmdb, int plant)
{
	struct oracle_rules rules = {.lease_ms = LEASE_MS,
				     .attempts_max = ATTEMPTS,
				     .session_ms = SESSION_MS,
				     .streams = {{0, 0}, {BOUNDED_EVENTS, 0}, {0, BOUNDED_MS}, {0, 0}}};
	struct sim *s = calloc(1, sizeof(*s));
	char command[96];
	bool good;

	if (s == NULL)
		must(SLUICE_E_NOMEM, "run");
	s->sink.post = on_post, s->sink.kick = on_kick;
	s->random = seed * 0x9e3779b97f4a7c15u ^ 0x2545f4914f6cdd1du;
	s->lmdb = lmdb;
	s->now = (struct batch_clock){1000, 1700000000000};
	s->priority = roll(s, 3) == 0;
	rules.fifo = !s->priority;
	s->oracle = oracle_create(&rules);
	if (s->oracle == NULL || (lmdb && !dir_make(s)))
		must(SLUICE_E_IO, "run");
	if (trace)
		oracle_trace(s->oracle);
	plants_set(plant);
	pass(s, 0);
	boot(s);
	world_make(s);
	for (s->step = 0; s->step < steps && oracle_why(s->oracle) == NULL; s->step++)
		one_step(s);
	if (oracle_why(s->oracle) == NULL)
		drain(s);
	good = oracle_why(s->oracle) == NULL;
	result(s, seed, plant, good);
	shut(s);
	plants_set(0);
	if (lmdb) {
		snprintf(command, sizeof(command), "rm -r %s", s->dir);
		if (system(command) != 0)
			must(SLUICE_E_IO, command);
	}
	oracle_destroy(s->oracle);
	free(s);
	return good;
}

/* ---- as a test ---- */

static bool caught(int plant, bool lmdb)
{
	for (uint64_t seed = 1; seed <= PLANT_SEEDS; seed++) {
		if (!run(seed, STEPS, lmdb, plant))
			return true;
	}
	return false;
}

static int tap(void)
{
	int n = 0, failed = 0;

	for (int lmdb = 0; lmdb < 2; lmdb++) {
		for (int plant = 0; plants_name(plant) != NULL; plant++) {
			bool ok = true;

			for (uint64_t seed = 1; plant == 0 && seed <= (lmdb ? 5 : 20); seed++)
				ok &= run(seed, STEPS, lmdb, 0);
			if (plant != 0)
				ok = caught(plant, lmdb);
			failed += !ok;
			printf("%s %d - %s: %s\n", ok ? "ok" : "not ok", ++n, lmdb ? "lmdb" : "mem",
			       plant == 0 ? "seeds without a plant" : plants_name(plant));
		}
	}
	printf("1..%d\n", n);
	return failed != 0;
}

static void plants_list(void)
{
	for (int i = 1; plants_name(i) != NULL; i++)
		printf("%-20s %s\n", plants_name(i), plants_text(i));
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", 1, NULL, 's'},	 {"steps", 1, NULL, 'n'},
						{"store", 1, NULL, 'd'}, {"seeds", 1, NULL, 'm'},
						{"plant", 1, NULL, 'p'}, {"list-plants", 0, NULL, 'l'},
						{"tap", 0, NULL, 't'},	 {"trace", 0, NULL, 'v'},
						{NULL, 0, NULL, 0}};
	uint64_t seed = 0, steps = STEPS, seeds = 1;
	bool lmdb = false, good = true;
	int plant = 0, c;

	log_configure(2, LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
	if (getrandom(&seed, 4, 0) != 4)
		return 2;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			steps = strtoull(optarg, NULL, 10);
		else if (c == 'm')
			seeds = strtoull(optarg, NULL, 10);
		else if (c == 'd')
			lmdb = strcmp(optarg, "lmdb") == 0;
		else if (c == 't')
			return tap();
		else if (c == 'p')
			plant = plants_find(optarg);
		else if (c == 'v')
			trace = true;
		else if (c == 'l')
			plants_list();
		if (c == 'l')
			return 0;
		if (c == '?' || plant < 0)
			return 2;
	}
	for (uint64_t i = 0; i < seeds; i++)
		good &= run(seed + i, steps, lmdb, plant);
	return good ? 0 : 1;
}
