/* SPDX-License-Identifier: Apache-2.0
 *
 * Family publish: events of 100 bytes appended to a log, as one record each or as segments of many.
 *
 * A record costs a key, a node header and a search; a segment costs one of each for all its events,
 * but lies on overflow pages of its own.
 */
#include "floor.h"

#include <stdlib.h>
#include <string.h>

enum {
	EVENT_BYTES = 100,
	SEGMENT_HEADER_BYTES = 64,
	SEGMENT_EVENTS_MAX = 100,
	EVENTS_MAX = 500000, /* a repeat ends at this size, which fits into the free pages of an
				aged store */
};

struct publish_arg {
	unsigned batch;	     /* events per commit */
	unsigned per_record; /* events per record */
};

struct publish_state {
	MDB_dbi dbi;
	uint64_t offset;
	uint8_t event[EVENT_BYTES];
};

static void publish_setup(struct floor_run *run)
{
	struct publish_state *st = run->state = floor_alloc(1, sizeof(*st));
	MDB_txn *txn = floor_begin(run->store);
	st->dbi = floor_table(txn, "log");
	floor_commit(txn);
	floor_fill(st->event, sizeof(st->event), 1);
}

static void publish_fini(struct floor_run *run)
{
	free(run->state);
}

/* Append one batch. A segment is assembled event by event, as a broker would copy what it
 * received. */
static void publish_batch(struct floor_run *run, const struct publish_arg *arg)
{
	struct publish_state *st = run->state;
	uint8_t key[12], segment[SEGMENT_HEADER_BYTES + SEGMENT_EVENTS_MAX * EVENT_BYTES] = {0};
	MDB_txn *txn = floor_begin(run->store);
	MDB_cursor *cursor = floor_cursor(txn, st->dbi);

	floor_be32(key, 7);
	for (unsigned n = 0; n < arg->batch; n += arg->per_record) {
		size_t bytes = 0;
		if (arg->per_record > 1)
			bytes = SEGMENT_HEADER_BYTES;
		for (unsigned e = 0; e < arg->per_record; e++) {
			floor_be64(st->event, st->offset + e);
			memcpy(segment + bytes, st->event, EVENT_BYTES);
			bytes += EVENT_BYTES;
		}
		floor_be64(key + 4, st->offset);
		floor_cursor_put(cursor, key, sizeof(key), segment, bytes);
		st->offset += arg->per_record;
	}
	floor_commit(txn);
}

static void publish_step(struct floor_run *run, double *values)
{
	struct publish_state *st = run->state;
	const struct publish_arg *arg = run->scenario->arg;
	uint64_t first = st->offset, start = floor_now_ns(), now;

	do {
		publish_batch(run, arg);
		now = floor_now_ns();
	} while (now - start < run->slice_ns && st->offset < EVENTS_MAX);

	/* The table's contents, not the growth of the file: an aged file has free pages to fill
	 * first. */
	MDB_txn *txn = floor_begin(run->store);
	MDB_stat stat;
	floor_must(mdb_stat(txn, st->dbi, &stat), "mdb_stat");
	mdb_txn_abort(txn);
	uint64_t pages = stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
	values[0] = (double)(st->offset - first) * 1e9 / (double)(now - start);
	values[1] = (double)(pages * stat.ms_psize) / (double)st->offset;
}

static const struct publish_arg record_1k = {1000, 1};
static const struct publish_arg record_10k = {10000, 1};
static const struct publish_arg segment_1k = {1000, SEGMENT_EVENTS_MAX};
static const struct publish_arg segment_10k = {10000, SEGMENT_EVENTS_MAX};

#define PUBLISH(NAME, WHAT, ARG)                                                                 \
	{                                                                                        \
		.name = NAME, .what = WHAT, .units = {"events/s", "stored bytes/event"},         \
		.store_each = true, .arg = &(ARG), .setup = publish_setup, .step = publish_step, \
		.fini = publish_fini                                                             \
	}

static const struct floor_scenario scenarios[] = {
	PUBLISH("publish-record-1k", "one record per event, 1,000 per commit", record_1k),
	PUBLISH("publish-record-10k", "one record per event, 10,000 per commit", record_10k),
	PUBLISH("publish-segment-1k", "100 events per record, 1,000 per commit", segment_1k),
	PUBLISH("publish-segment-10k", "100 events per record, 10,000 per commit", segment_10k),
};

const struct floor_family floor_family_publish = {
	"publish",
	scenarios,
	sizeof(scenarios) / sizeof(scenarios[0]),
};
