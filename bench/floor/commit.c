/* SPDX-License-Identifier: Apache-2.0
 *
 * Family commit: the price of a commit, of each scattered page that it writes, and of each tree.
 *
 * LMDB writes every dirty page with its own write unless pages are adjacent. A commit therefore
 * costs a fixed part (sync of data, then of the meta page) plus an amount per page.
 */
#include "floor.h"

#include <stdlib.h>
#include <string.h>

enum {
	SCATTER_RECORDS = 200000,
	SCATTER_RECORDS_QUICK = 60000,
	SCATTER_BYTES = 300,
	TREES = 12,
	TREE_RECORDS = 20000,
};

struct commit_state {
	MDB_dbi dbi;
	MDB_dbi trees[TREES];
	uint64_t next;
	uint64_t records;
};

static void commit_setup(struct floor_run *run)
{
	struct commit_state *st = run->state = floor_alloc(1, sizeof(*st));
	MDB_txn *txn = floor_begin(run->store);
	st->dbi = floor_table(txn, "commit");
	floor_commit(txn);
}

static void commit_fini(struct floor_run *run)
{
	free(run->state);
}

static void put_step(struct floor_run *run, double *values)
{
	struct commit_state *st = run->state;
	uint8_t key[8], value[100];
	uint64_t start = floor_now_ns(), now, commits = 0;

	floor_fill(value, sizeof(value), 1);
	do {
		MDB_txn *txn = floor_begin(run->store);
		floor_be64(key, st->next++);
		floor_put(txn, st->dbi, key, sizeof(key), value, sizeof(value));
		floor_commit(txn);
		commits++;
		now = floor_now_ns();
	} while (now - start < run->slice_ns);
	values[0] = (double)(now - start) / 1e3 / (double)commits;
}

static void scatter_setup(struct floor_run *run)
{
	commit_setup(run);
	struct commit_state *st = run->state;
	st->records = run->opt->quick ? SCATTER_RECORDS_QUICK : SCATTER_RECORDS;

	uint8_t key[8], value[SCATTER_BYTES];
	floor_fill(value, sizeof(value), 1);
	floor_store_preload(run->store, true);
	MDB_txn *txn = floor_begin(run->store);
	MDB_cursor *cursor = floor_cursor(txn, st->dbi);
	for (uint64_t i = 0; i < st->records; i++) {
		floor_be64(key, i);
		floor_cursor_put(cursor, key, sizeof(key), value, sizeof(value));
	}
	floor_commit(txn);
	floor_store_preload(run->store, false);
}

/* us per commit, if each rewrites n records that are spread so that no two share a page. */
static double scatter(struct floor_run *run, uint64_t n)
{
	struct commit_state *st = run->state;
	uint8_t key[8], value[SCATTER_BYTES];
	uint64_t start = floor_now_ns(), now, commits = 0;
	uint64_t stride = st->records / n;

	floor_fill(value, sizeof(value), start);
	do {
		MDB_txn *txn = floor_begin(run->store);
		for (uint64_t i = 0; i < n; i++) {
			floor_be64(key, i * stride + floor_random(&run->rng) % stride);
			floor_put(txn, st->dbi, key, sizeof(key), value, sizeof(value));
		}
		floor_commit(txn);
		commits++;
		now = floor_now_ns();
	} while (now - start < run->slice_ns);
	return (double)(now - start) / 1e3 / (double)commits;
}

static void scatter_step(struct floor_run *run, double *values)
{
	values[0] = scatter(run, 1);
	values[1] = scatter(run, 100);
	values[2] = scatter(run, 1000);
	values[3] = (values[2] - values[0]) / 999;
}

/* Record n of group g: the group is a tree of its own, or a prefix in the one tree. */
static void group_put(struct commit_state *st, MDB_txn *txn, uint32_t g, uint64_t n, bool prefix)
{
	uint8_t key[12], value[100];
	floor_fill(value, sizeof(value), n);
	floor_be32(key, g);
	floor_be64(key + 4, n);
	floor_put(txn, prefix ? st->dbi : st->trees[g], key, sizeof(key), value, sizeof(value));
}

static void trees_setup(struct floor_run *run)
{
	commit_setup(run);
	struct commit_state *st = run->state;
	MDB_txn *txn = floor_begin(run->store);
	for (unsigned g = 0; g < TREES; g++) {
		char name[] = {'t', 'r', 'e', 'e', (char)('a' + g), '\0'};
		st->trees[g] = floor_table(txn, name);
	}
	floor_commit(txn);
	floor_store_preload(run->store, true);
	txn = floor_begin(run->store);
	for (unsigned g = 0; g < TREES; g++) {
		for (st->next = 0; st->next < TREE_RECORDS; st->next++) {
			group_put(st, txn, g, st->next, true);
			group_put(st, txn, g, st->next, false);
		}
	}
	floor_commit(txn);
	floor_store_preload(run->store, false);
}

/* us per commit, if each appends one record to each group. */
static double trees(struct floor_run *run, unsigned groups, bool prefix)
{
	struct commit_state *st = run->state;
	uint64_t start = floor_now_ns(), now, commits = 0;
	do {
		MDB_txn *txn = floor_begin(run->store);
		for (unsigned g = 0; g < groups; g++)
			group_put(st, txn, g, st->next, prefix);
		st->next++;
		floor_commit(txn);
		commits++;
		now = floor_now_ns();
	} while (now - start < run->slice_ns);
	return (double)(now - start) / 1e3 / (double)commits;
}

static void trees_step(struct floor_run *run, double *values)
{
	values[0] = trees(run, 1, false);
	values[1] = trees(run, TREES, false);
	values[2] = trees(run, TREES, true);
}

static const struct floor_scenario scenarios[] = {
	{
		.name = "commit-put",
		.what = "one 100-byte put in key order per commit",
		.units = {"us/commit"},
		.setup = commit_setup,
		.step = put_step,
		.fini = commit_fini,
	},
	{
		.name = "commit-scatter",
		.what = "1, 100 and 1,000 scattered records of 300 bytes rewritten per commit",
		.units = {"us/commit of 1", "us/commit of 100", "us/commit of 1000", "us/page"},
		.setup = scatter_setup,
		.step = scatter_step,
		.fini = commit_fini,
	},
	{
		.name = "commit-trees",
		.what = "a put in one tree, in each of 12, and under 12 prefixes of one, per "
			"commit",
		.units = {"us/1 tree", "us/12 trees", "us/12 prefixes"},
		.setup = trees_setup,
		.step = trees_step,
		.fini = commit_fini,
	},
};

const struct floor_family floor_family_commit = {
	"commit",
	scenarios,
	sizeof(scenarios) / sizeof(scenarios[0]),
};
