/* SPDX-License-Identifier: Apache-2.0
 *
 * Family values: values of many sizes in FIFO order, whole or split in pages, and their effect on
 * the file.
 *
 * A value of more than about 2,000 bytes lies on a contiguous run of overflow pages, which LMDB
 * must find in its free list; split, each part takes any one page. A few items that stay long are
 * the difficult case: they break the runs. So each scenario reports, besides the speed, the size of
 * the file relative to the live bytes, and its growth in the second half of the run: 0 means that
 * the file stopped growing.
 */
#include "floor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
	PART_BYTES = 4080, /* with LMDB's page header, one page of 4,096 */
	BATCH_BYTES = 4 << 20,
	BATCH_ITEMS = FLOOR_BATCH,
	VALUE_BYTES_MAX = 1 << 20,
	LONG_EVERY = 50, /* one item in LONG_EVERY stays long */
	LONG_COUNT = 64, /* number of those that are live */
	RING_ITEMS = 1 << 16,
	LIVE_BYTES = 32 << 20,
	LIVE_BYTES_QUICK = 8 << 20,
	FIXED_BYTES = 10000,
};

struct values_arg {
	size_t min, max; /* sizes are spread evenly over their logarithm */
	bool split;
	bool long_lived;
};

struct value {
	uint64_t id;
	size_t bytes;
};

struct values_state {
	MDB_dbi dbi;
	uint64_t next, first; /* ids; the ring holds [first, next) */
	uint64_t live_bytes, put_bytes;
	uint64_t deleted_items;
	struct value ring[RING_ITEMS];
	struct value stay[LONG_COUNT]; /* bytes 0: no item there yet */
	uint64_t stay_count;
	uint8_t body[VALUE_BYTES_MAX];
};

static void values_setup(struct floor_run *run)
{
	struct values_state *st = run->state = floor_alloc(1, sizeof(*st));
	floor_fill(st->body, sizeof(st->body), 1);
	MDB_txn *txn = floor_begin(run->store);
	st->dbi = floor_table(txn, "values");
	floor_commit(txn);
}

static void values_fini(struct floor_run *run)
{
	free(run->state);
}

static void part_key(uint8_t key[12], uint64_t id, uint32_t part)
{
	floor_be64(key, id);
	floor_be32(key + 8, part);
}

static void value_put(struct values_state *st, MDB_cursor *cursor, const struct values_arg *arg,
		      const struct value *value)
{
	uint8_t key[12];
	size_t step = arg->split ? PART_BYTES : value->bytes;
	uint32_t part = 0;
	for (size_t at = 0; at < value->bytes; at += step) {
		part_key(key, value->id, part++);
		floor_cursor_put(cursor, key, 12, st->body + at,
				 value->bytes - at < step ? value->bytes - at : step);
	}
	st->live_bytes += value->bytes;
	st->put_bytes += value->bytes;
}

static void value_del(struct values_state *st, MDB_cursor *cursor, const struct values_arg *arg,
		      const struct value *value)
{
	uint8_t key[12];
	size_t parts = arg->split ? (value->bytes + PART_BYTES - 1) / PART_BYTES : 1;
	for (uint32_t part = 0; part < parts; part++) {
		part_key(key, value->id, part);
		floor_cursor_del_key(cursor, key, 12);
	}
	st->live_bytes -= value->bytes;
	st->deleted_items++;
}

/* Take the oldest out of the ring: delete it, or keep it and delete the oldest kept one. */
static void value_retire(struct values_state *st, MDB_cursor *cursor, const struct values_arg *arg)
{
	struct value oldest = st->ring[st->first++ % RING_ITEMS];
	if (arg->long_lived && oldest.id % LONG_EVERY == 0) {
		struct value *slot = &st->stay[st->stay_count++ % LONG_COUNT];
		if (slot->bytes)
			value_del(st, cursor, arg, slot);
		*slot = oldest;
		return;
	}
	value_del(st, cursor, arg, &oldest);
}

static size_t value_size(struct floor_run *run, const struct values_arg *arg)
{
	if (arg->min == arg->max)
		return arg->min;
	double u = (double)(floor_random(&run->rng) >> 11) / (double)(1ull << 53);
	return (size_t)((double)arg->min * exp(u * log((double)arg->max / (double)arg->min)));
}

/* One transaction: puts up to BATCH_BYTES or BATCH_ITEMS, and deletes as much of the oldest. */
static void values_batch(struct floor_run *run, const struct values_arg *arg, uint64_t live_target)
{
	struct values_state *st = run->state;
	MDB_txn *txn = floor_begin(run->store);
	MDB_cursor *put = floor_cursor(txn, st->dbi);
	MDB_cursor *del = floor_cursor(txn, st->dbi);
	uint64_t end = st->put_bytes + BATCH_BYTES;

	for (int n = 0; n < BATCH_ITEMS && st->put_bytes < end; n++) {
		struct value value = {st->next, value_size(run, arg)};
		st->ring[st->next++ % RING_ITEMS] = value;
		value_put(st, put, arg, &value);
		while ((st->live_bytes > live_target && st->first + 1 < st->next) ||
		       st->next - st->first == RING_ITEMS)
			value_retire(st, del, arg);
	}
	floor_commit(txn);
}

/* Not timed by the slice: reaching a plateau needs a number of turnovers. */
static void values_step(struct floor_run *run, double *values)
{
	const struct values_arg *arg = run->scenario->arg;
	struct values_state *st = run->state;
	uint64_t live_target = run->opt->quick ? LIVE_BYTES_QUICK : LIVE_BYTES;
	uint64_t total = live_target * run->opt->turnover, file_half = 0;
	uint64_t start = floor_now_ns();

	while (st->put_bytes < total) {
		values_batch(run, arg, live_target);
		if (!file_half && st->put_bytes >= total / 2)
			file_half = floor_store_file_bytes(run->store);
	}
	uint64_t ns = floor_now_ns() - start, file = floor_store_file_bytes(run->store);
	values[0] = (double)st->put_bytes * 1e3 / (double)ns;
	values[1] = (double)st->deleted_items * 1e9 / (double)ns;
	values[2] = (double)file / (double)(st->live_bytes + run->store->age.live_bytes);
	values[3] = 100.0 * ((double)file / (double)file_half - 1);
}

static const struct values_arg fixed_whole = {FIXED_BYTES, FIXED_BYTES, false, false};
static const struct values_arg fixed_split = {FIXED_BYTES, FIXED_BYTES, true, false};
static const struct values_arg mixed_whole = {10, VALUE_BYTES_MAX, false, false};
static const struct values_arg mixed_split = {10, VALUE_BYTES_MAX, true, false};
static const struct values_arg long_whole = {10, VALUE_BYTES_MAX, false, true};
static const struct values_arg long_split = {10, VALUE_BYTES_MAX, true, true};

#define VALUES(NAME, WHAT, ARG)                                                                \
	{                                                                                      \
		.name = NAME, .what = WHAT,                                                    \
		.units = {"MB/s", "put+delete/s", "file/live", "% late growth"},               \
		.store_each = true, .arg = &(ARG), .setup = values_setup, .step = values_step, \
		.fini = values_fini                                                            \
	}

static const struct floor_scenario scenarios[] = {
	VALUES("values-10k-whole", "10 KB values, FIFO put + delete", fixed_whole),
	VALUES("values-10k-split", "10 KB values in parts of a page", fixed_split),
	VALUES("values-mixed-whole", "10 bytes to 1 MiB, FIFO put + delete", mixed_whole),
	VALUES("values-mixed-split", "10 bytes to 1 MiB in parts of a page", mixed_split),
	VALUES("values-long-whole", "values-mixed-whole, one in 50 stays long", long_whole),
	VALUES("values-long-split", "values-mixed-split, one in 50 stays long", long_split),
};

const struct floor_family floor_family_values = {
	"values",
	scenarios,
	sizeof(scenarios) / sizeof(scenarios[0]),
};
