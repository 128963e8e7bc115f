/* SPDX-License-Identifier: Apache-2.0
 *
 * Family ledger: events of jobs, in two layouts, and the map from names to numbers.
 *
 * split: a live record of 90 bytes per active job, rewritten by each event; a history record of 60
 * bytes appended by each; name and job records written when a job is submitted, the job's again at
 * its end, when live goes. A job has six events. One operation is one event, submits and ends
 * included.
 *
 * whole: one record of 300 bytes per job, active or not, rewritten in place by each event.
 */
#include "floor.h"

#include <stdlib.h>
#include <string.h>

enum {
	LIVE_BYTES = 90,
	HIST_BYTES = 60,
	JOB_BYTES = 300,
	WHOLE_BYTES = 300,
	NAME_BYTES = 17, /* kind and a 128-bit id */
	EVENTS_PER_JOB = 6,
	PRELOAD_BATCH = 50000,
	ACTIVE_FEW = 1000,
	ACTIVE_MANY = 20000,
};

struct ledger_arg {
	uint64_t active; /* split: jobs that are alive; whole: rows, 0 for --records */
	bool random_ids;
};

struct active_job {
	uint64_t number;
	uint64_t last_hist;
	unsigned events;
};

struct ledger_state {
	MDB_dbi name, live, hist, job, whole;
	struct active_job *jobs;
	uint64_t next_job, next_hist, rows;
	uint8_t buffer[WHOLE_BYTES];
};

struct ledger_txn {
	MDB_txn *txn;
	MDB_cursor *name, *live, *hist, *job;
};

/* A name for job number n: begins with a clock, or is random like a UUID of version 4. */
static void name_make(uint8_t name[NAME_BYTES], uint64_t n, bool random)
{
	uint64_t seed = n;
	name[0] = 'j';
	floor_be64(name + 1, random ? floor_random(&seed) : 1700000000000u + n);
	floor_be64(name + 9, floor_random(&seed));
}

/* --records names already known. Random ones are made in sorted order (the same distribution: one
 * in each of --records equal parts of the key space), because only the state after the preload
 * matters. */
static void name_preload(struct floor_run *run, bool random)
{
	struct ledger_state *st = run->state;
	uint64_t count = run->opt->records, part = UINT64_MAX / count;
	uint8_t name[NAME_BYTES], number[8];

	for (uint64_t i = 0; i < count;) {
		MDB_txn *txn = floor_begin(run->store);
		MDB_cursor *cursor = floor_cursor(txn, st->name);
		for (uint64_t end = i + PRELOAD_BATCH; i < end && i < count; i++) {
			name_make(name, i, random);
			if (random)
				floor_be64(name + 1, i * part + floor_random(&run->rng) % part);
			floor_be64(number, i);
			floor_cursor_put(cursor, name, sizeof(name), number, sizeof(number));
		}
		floor_commit(txn);
	}
	st->next_job = count;
}

static struct ledger_txn ledger_begin(struct floor_run *run)
{
	struct ledger_state *st = run->state;
	MDB_txn *txn = floor_begin(run->store);
	return (struct ledger_txn){
		.txn = txn,
		.name = floor_cursor(txn, st->name),
		.live = floor_cursor(txn, st->live),
		.hist = floor_cursor(txn, st->hist),
		.job = floor_cursor(txn, st->job),
	};
}

static void hist_append(struct ledger_state *st, struct ledger_txn *l, struct active_job *job)
{
	uint8_t key[8], event[HIST_BYTES];
	memcpy(event, st->buffer, sizeof(event));
	floor_be64(event, job->number);
	floor_be64(event + 8, job->last_hist);
	floor_be64(key, st->next_hist);
	floor_cursor_put(l->hist, key, sizeof(key), event, sizeof(event));
	job->last_hist = st->next_hist++;
}

static void job_submit(struct ledger_state *st, struct ledger_txn *l, struct active_job *job,
		       bool random)
{
	uint8_t name[NAME_BYTES], key[8];
	*job = (struct active_job){.number = st->next_job++, .events = 1};
	name_make(name, job->number, random);
	floor_be64(key, job->number);
	floor_cursor_put(l->name, name, sizeof(name), key, sizeof(key));
	floor_cursor_put(l->job, key, sizeof(key), st->buffer, JOB_BYTES);
	hist_append(st, l, job);
	floor_cursor_put(l->live, key, sizeof(key), st->buffer, LIVE_BYTES);
}

/* One event of a random active job. The last event of a job ends it; the next event in its place
 * submits another job. */
static void job_event(struct floor_run *run, struct ledger_txn *l, const struct ledger_arg *arg)
{
	struct ledger_state *st = run->state;
	struct active_job *job = &st->jobs[floor_random(&run->rng) % arg->active];
	uint8_t key[8], live[LIVE_BYTES];

	if (job->events == EVENTS_PER_JOB) {
		job_submit(st, l, job, arg->random_ids);
		return;
	}
	job->events++;
	floor_be64(key, job->number);
	MDB_val v = floor_cursor_set(l->live, key, sizeof(key));
	memcpy(live, v.mv_data, sizeof(live));
	hist_append(st, l, job);
	if (job->events < EVENTS_PER_JOB) {
		floor_be64(live, job->last_hist);
		MDB_val k = {sizeof(key), key};
		v = (MDB_val){sizeof(live), live};
		floor_must(mdb_cursor_put(l->live, &k, &v, MDB_CURRENT), "live");
		return;
	}
	floor_must(mdb_cursor_del(l->live, 0), "live");
	floor_cursor_put(l->job, key, sizeof(key), st->buffer, JOB_BYTES);
}

static void ledger_setup(struct floor_run *run)
{
	struct ledger_state *st = run->state = floor_alloc(1, sizeof(*st));
	floor_fill(st->buffer, sizeof(st->buffer), 1);
	MDB_txn *txn = floor_begin(run->store);
	st->name = floor_table(txn, "name");
	st->live = floor_table(txn, "live");
	st->hist = floor_table(txn, "hist");
	st->job = floor_table(txn, "job");
	st->whole = floor_table(txn, "whole");
	floor_commit(txn);
}

static void ledger_fini(struct floor_run *run)
{
	struct ledger_state *st = run->state;
	free(st->jobs);
	free(st);
}

static void split_setup(struct floor_run *run)
{
	const struct ledger_arg *arg = run->scenario->arg;
	ledger_setup(run);
	struct ledger_state *st = run->state;
	st->jobs = floor_alloc(arg->active, sizeof(*st->jobs));

	floor_store_preload(run->store, true);
	name_preload(run, arg->random_ids);
	struct ledger_txn l = ledger_begin(run);
	for (uint64_t i = 0; i < arg->active; i++) {
		job_submit(st, &l, &st->jobs[i], arg->random_ids);
		/* Gives the jobs different ages: otherwise all jobs of a short run would be equally
		 * young. */
		st->jobs[i].events = 1 + (unsigned)(i % (EVENTS_PER_JOB - 1));
	}
	floor_commit(l.txn);
	floor_store_preload(run->store, false);
}

static void split_step(struct floor_run *run, double *values)
{
	uint64_t start = floor_now_ns(), now, events = 0;
	do {
		struct ledger_txn l = ledger_begin(run);
		for (int i = 0; i < FLOOR_BATCH; i++)
			job_event(run, &l, run->scenario->arg);
		floor_commit(l.txn);
		events += FLOOR_BATCH;
		now = floor_now_ns();
	} while (now - start < run->slice_ns);
	values[0] = (double)events * 1e9 / (double)(now - start);
}

static void whole_setup(struct floor_run *run)
{
	const struct ledger_arg *arg = run->scenario->arg;
	ledger_setup(run);
	struct ledger_state *st = run->state;
	st->rows = arg->active ? arg->active : run->opt->records;
	uint8_t key[8];

	floor_store_preload(run->store, true);
	for (uint64_t i = 0; i < st->rows;) {
		MDB_txn *txn = floor_begin(run->store);
		MDB_cursor *cursor = floor_cursor(txn, st->whole);
		for (uint64_t end = i + PRELOAD_BATCH; i < end && i < st->rows; i++) {
			floor_be64(key, i);
			floor_cursor_put(cursor, key, sizeof(key), st->buffer, WHOLE_BYTES);
		}
		floor_commit(txn);
	}
	floor_store_preload(run->store, false);
}

static void whole_step(struct floor_run *run, double *values)
{
	struct ledger_state *st = run->state;
	uint8_t key[8], record[WHOLE_BYTES];
	uint64_t start = floor_now_ns(), now, events = 0;
	do {
		MDB_txn *txn = floor_begin(run->store);
		MDB_cursor *cursor = floor_cursor(txn, st->whole);
		for (int i = 0; i < FLOOR_BATCH; i++) {
			floor_be64(key, floor_random(&run->rng) % st->rows);
			MDB_val k = {sizeof(key), key};
			MDB_val v = floor_cursor_set(cursor, key, sizeof(key));
			memcpy(record, v.mv_data, sizeof(record));
			floor_be64(record, events + (uint64_t)i);
			v = (MDB_val){sizeof(record), record};
			floor_must(mdb_cursor_put(cursor, &k, &v, MDB_CURRENT), "whole");
		}
		floor_commit(txn);
		events += FLOOR_BATCH;
		now = floor_now_ns();
	} while (now - start < run->slice_ns);
	values[0] = (double)events * 1e9 / (double)(now - start);
}

static void name_setup(struct floor_run *run)
{
	const struct ledger_arg *arg = run->scenario->arg;
	ledger_setup(run);
	floor_store_preload(run->store, true);
	name_preload(run, arg->random_ids);
	floor_store_preload(run->store, false);
}

static void name_step(struct floor_run *run, double *values)
{
	const struct ledger_arg *arg = run->scenario->arg;
	struct ledger_state *st = run->state;
	uint8_t name[NAME_BYTES], number[8];
	uint64_t first = st->next_job, start = floor_now_ns(), now;
	do {
		struct ledger_txn l = ledger_begin(run);
		for (int i = 0; i < FLOOR_BATCH; i++) {
			name_make(name, st->next_job, arg->random_ids);
			floor_be64(number, st->next_job++);
			floor_cursor_put(l.name, name, sizeof(name), number, sizeof(number));
		}
		floor_commit(l.txn);
		now = floor_now_ns();
	} while (now - start < run->slice_ns);
	values[0] = (double)(st->next_job - first) * 1e9 / (double)(now - start);
}

static const struct ledger_arg few = {ACTIVE_FEW, false};
static const struct ledger_arg many = {ACTIVE_MANY, false};
static const struct ledger_arg few_random = {ACTIVE_FEW, true};
static const struct ledger_arg many_random = {ACTIVE_MANY, true};
static const struct ledger_arg large = {0, false};
static const struct ledger_arg large_random = {0, true};

#define LEDGER(NAME, WHAT, UNIT, ARG, KIND)                                                        \
	{                                                                                          \
		.name = NAME, .what = WHAT, .units = {UNIT}, .arg = &(ARG), .setup = KIND##_setup, \
		.step = KIND##_step, .fini = ledger_fini                                           \
	}

static const struct floor_scenario scenarios[] = {
	LEDGER("ledger-split-1k", "live + history, 1,000 active, ordered ids", "events/s", few,
	       split),
	LEDGER("ledger-split-20k", "live + history, 20,000 active, ordered ids", "events/s", many,
	       split),
	LEDGER("ledger-split-1k-random", "as ledger-split-1k, random ids", "events/s", few_random,
	       split),
	LEDGER("ledger-split-20k-random", "as ledger-split-20k, random ids", "events/s",
	       many_random, split),
	LEDGER("ledger-whole-20k", "whole records in place, 20,000 rows", "events/s", many, whole),
	LEDGER("ledger-whole-all", "whole records in place, --records rows", "events/s", large,
	       whole),
	LEDGER("name-ordered", "names to numbers, time-ordered, beside --records", "names/s", large,
	       name),
	LEDGER("name-random", "names to numbers, random, beside --records", "names/s", large_random,
	       name),
};

const struct floor_family floor_family_ledger = {
	"ledger",
	scenarios,
	sizeof(scenarios) / sizeof(scenarios[0]),
};
