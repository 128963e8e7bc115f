/* SPDX-License-Identifier: Apache-2.0
 * One run of the simulator: steps, then a drain. All decisions come from the seed. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/plants.h"
#include "tests/sim/shadow.h"
#include "tests/sim/thread.h"

enum { CLOSE_INSPECT_EVERY = 16, DRAIN_ROUNDS_MIN = 4, DRAIN_ROUNDS_MAX = 60 };

/* A connection is notified that it lost its session. */
static void on_kick(struct engine_sink *sink, uint64_t tag)
{
	struct sim *s = (struct sim *)sink;

	for (int i = 0; i < CLIENTS; i++) {
		s->clients[i].stale_kicked |= s->clients[i].stale == tag;
		if (s->clients[i].connection == tag)
			oracle_blame(s->oracle, "a connection that lost no session is kicked", i,
				     0);
	}
}

/* ---- a run ---- */

enum { SOME_MS = 500 };

/* stopped: the process does not run meanwhile. */
static void pass(struct sim *s, uint64_t ms, bool stopped)
{
	for (uint64_t left = ms, some; left > 0; left -= some) {
		some = stopped || left < SOME_MS ? left : SOME_MS;
		s->now.mono_ms += some, s->now.wall_ms += some;
		report_running(s);
	}
	oracle_time(s->oracle, s->now.mono_ms);
	if (stopped)
		oracle_stopped(s->oracle, ms);
}

/* Usually a few milliseconds; sometimes most of a lease's term, or longer than a lease or a
 * session's timeout. */
static uint64_t some_time(struct sim *s)
{
	uint64_t what = roll(s, 120);

	if (what == 0)
		return SESSION_MS + roll(s, SESSION_MS);
	if (what < 4)
		return LEASE_MS + roll(s, LEASE_MS);
	return roll(s, what < 12 ? LEASE_MS : 200);
}

static void client_come(struct sim *s, int client)
{
	client_connect(s, client);
	if (roll(s, 4) == 0)
		client_return(s, client);
}

static void act(struct sim *s)
{
	int client = (int)roll(s, CLIENTS);
	uint64_t what = roll(s, 87);

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
		credit(s, client, some_credit(s));
	else if (what < 59)
		client_come(s, client);
	else if (what < 61)
		client_slow(s, client, !s->clients[client].slow);
	else if (what < 64)
		wild_put(s);
	else if (what < 67)
		wild_settle(s);
	else if (what < 72)
		source_send(s, client);
	else if (what < 78 && roll(s, 8) == 0)
		wild_job_damage(s);
	else if (what < 78 && roll(s, 48) == 0)
		owned_grant_damage(s);
	else if (what < 78)
		wild_job_do(s);
	else if (what >= 84)
		take(s, client);
	else if (what >= 79 && what < 81)
		client_return(s, client);
	else if (what >= 81 && what < 83)
		stale_act(s, client);
	else if (what >= 83)
		stale_free(s, client);
	else if (roll(s, 4) == 0)
		purge(s);
	else if (roll(s, 4) == 0)
		flood(s);
	else if (roll(s, 4) == 0)
		wild_damage(s);
	else if (roll(s, 3) == 0)
		client_close(s, client);
	else
		client_leave(s, client);
}

/* Drives the broker until it is idle; one that died is booted and driven again. */
static void settle_down(struct sim *s)
{
	if (!drive(s) || s->kill)
		crash(s);
	faults_off(s);
	for (int i = 0; i < CLIENTS; i++) {
		if (s->clients[i].cut_off)
			client_break(s, i);
		s->clients[i].cut = 0;
	}
	if (!drive(s))
		crash(s);
	for (int i = 0; i < CLIENTS; i++) {
		if (s->clients[i].stale != 0 && !s->clients[i].stale_kicked)
			oracle_blame(s->oracle,
				     "a connection is not notified that it lost its session", i, 0);
	}
}

enum { STOPPED_MIN_MS = 1200, STOPPED_MAX_MS = 60000 };

static void one_step(struct sim *s)
{
	uint64_t actions = 1 + roll(s, 6);

	if (roll(s, 40) == 0)
		pass(s, STOPPED_MIN_MS + roll(s, STOPPED_MAX_MS), true);
	else
		pass(s, some_time(s), false);
	for (uint64_t i = 0; i < actions; i++)
		act(s);
	for (int i = 0; i < FREE; i++) {
		if (roll(s, 6) == 0)
			free_do(s, i);
	}
	thread_turn(s);
	faults_plan(s);
	settle_down(s);
	(void)inspect(s, s->step % CLOSE_INSPECT_EVERY == 0);
}

/* Without faults and acks, until every item is a dead letter: each becomes due, is delivered and
 * expires. The session of the client that holds items until its session ends has to be closed for
 * that; its jobs go to other clients. */
static void drain(struct sim *s)
{
	struct oracle_counts shown = {.ready = 1};

	s->drains = true;
	for (int c = 0; c < CLIENTS; c++) {
		client_leave(s, c);
		stale_free(s, c);
	}
	if (!drive(s))
		must(SLUICE_E_INTERNAL, "drain");
	for (int i = 0; i < DRAIN_ROUNDS_MAX && oracle_why(s->oracle) == NULL &&
			(i < DRAIN_ROUNDS_MIN || shown.ready + shown.leased + shown.delayed > 0);
	     i++) {
		pass(s, 2 * LEASE_MS, false);
		client_leave(s, CLIENTS - 1);
		for (int c = 0; c < CLIENTS - 1; c++) {
			client_connect(s, c);
			client_slow(s, c, false);
			credit(s, c, 64);
		}
		if (!drive(s))
			must(SLUICE_E_INTERNAL, "drain");
		/* Items that were not begun would be returned uncounted each time, and never become
		 * dead letters. */
		begin_all(s);
		if (!drive(s))
			must(SLUICE_E_INTERNAL, "drain");
		shown = inspect(s, true);
	}
	oracle_drained(s->oracle, &shown);
	oracle_jobs_drained(s->oracle);
}

/* In memory if possible: a kill of the simulated broker does not involve the disk. */
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

static void dir_drop(const struct sim *s)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -r %s", s->dir);
	must(system(command) != 0 ? SLUICE_E_IO : 0, command);
}

static struct sim *sim_create(const struct sim_spec *spec)
{
	struct oracle_rules rules =
		{.lease_ms = LEASE_MS,
		 .attempts_max = ATTEMPTS,
		 .session_ms = SESSION_MS,
		 .job_keep_ms = JOB_KEEP_MS,
		 .streams = {{0, 0}, {BOUNDED_EVENTS, 0}, {0, BOUNDED_MS}, {0, 0}}};
	struct sim *s = calloc(1, sizeof(*s));

	must(s == NULL ? SLUICE_E_NOMEM : 0, "run");
	s->spec = *spec;
	s->sink.post = on_post, s->sink.kick = on_kick;
	s->sink.consumer_closed = on_consumer_closed;
	s->random = spec->seed * 0x9e3779b97f4a7c15u ^ 0x2545f4914f6cdd1du;
	s->now = (struct batch_clock){1000, 1700000000000};
	s->priority = roll(s, 3) == 0;
	s->sourced = roll(s, 4) != 0;
	s->clients[1].ephemeral = roll(s, 2) == 0;
	rules.fifo = !s->priority;
	s->oracle = oracle_create(&rules);
	if (s->oracle == NULL || (spec->lmdb && !dir_make(s)))
		must(SLUICE_E_IO, "run");
	if (spec->trace)
		oracle_trace(s->oracle);
	return s;
}

/* The second database, with the whole record where only the broker's is damaged, has to do the same
 * but in a batch that met damage, and then that was counted. */
static void compare(struct sim *s)
{
	uint64_t type, damaged;

	if (!shadow_differs(&type, &damaged) || oracle_why(s->oracle) != NULL)
		return;
	if (damaged == 0)
		oracle_blame(s->oracle,
			     "a command writes something else in another database, and no damage "
			     "was counted",
			     (int64_t)type, 0);
	else if (!s->one_sided || plants_one_sided(s->spec.plant))
		oracle_blame(s->oracle, "a command writes something else in another database",
			     (int64_t)type, (int64_t)damaged);
}

bool sim_run(const struct sim_spec *spec, uint64_t *ret_hash)
{
	struct sim *s = sim_create(spec);
	const bool shadowed = spec->plant == 0 || plants_shadowed(spec->plant);
	uint64_t stored;
	bool good;

	plants_set(spec->plant);
	s->one_sided = plants_one_sided(spec->plant) || (spec->plant == 0 && spec->seed % 4 == 0);
	if (shadowed)
		shadow_begin();
	pass(s, 0, false);
	boot(s);
	world_make(s);
	for (s->step = 0; s->step < spec->steps && oracle_why(s->oracle) == NULL; s->step++)
		one_step(s), compare(s);
	if (oracle_why(s->oracle) == NULL)
		drain(s), compare(s);
	good = oracle_why(s->oracle) == NULL;
	stored = shadow_digest(s->store);
	if (good && shadowed && !s->one_sided && stored != shadow_digest(NULL))
		oracle_blame(s->oracle,
			     "the same commands, each applied once, give another database", 0, 0);
	good = oracle_why(s->oracle) == NULL;
	*ret_hash = oracle_hash(s->oracle) ^ stored;
	printf("# seed %" PRIu64 " store %s plant %s: %s at step %" PRIu64 " hash %016" PRIx64 "\n",
	       spec->seed, spec->lmdb ? "lmdb" : "mem", plants_name(spec->plant),
	       good ? "kept" : oracle_why(s->oracle), s->step, *ret_hash);
	shut(s);
	if (shadowed)
		shadow_end();
	plants_set(0);
	if (spec->lmdb)
		dir_drop(s);
	oracle_destroy(s->oracle);
	free(s);
	return good;
}
