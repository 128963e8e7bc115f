/* SPDX-License-Identifier: Apache-2.0
 *
 * The store against a model that is nothing but an array: random operations, savepoints, aborts,
 * restarts and failures at each call, on both implementations with the same seeds. The results of
 * calls, scans and reads must equal the model's.
 *
 * SLUICE_STORE_SEED=N runs one seed; each failure names its own.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/store/store.h"

enum { MEM, LMDB, KINDS };
enum { KEYS = 200, VALUE_BYTES_MAX = 6000, SEEDS = 6, ROUNDS = 25, STEPS = 120 };

/* A record is the number of its value; 0: there is none. Length and bytes follow from it. */
struct model {
	uint32_t records[STORE_TABLE_COUNT][KEYS];
};

struct world {
	int kind;
	unsigned seed, dice;
	struct store *store;
	struct store_txn *txn;
	bool savepoint;
	bool faulty;	 /* failures are injected */
	uint32_t values; /* values used so far */
	struct model committed, at_savepoint, now;
	char dir[64];
};

static uint8_t key_bytes[KEYS][STORE_KEY_BYTES_MAX];
static size_t key_lens[KEYS];

static const char *where(const struct world *world)
{
	static char text[96];

	snprintf(text, sizeof(text), "%s, SLUICE_STORE_SEED=%u",
		 world->kind == MEM ? "mem" : "lmdb", world->seed);
	return text;
}

#define CHECK(world, condition) cr_assert((condition), "%s: %s", where(world), #condition)

static unsigned roll(struct world *world, unsigned sides)
{
	return (unsigned)rand_r(&world->dice) % sides;
}

static int key_compare(const void *a, const void *b)
{
	size_t i = *(const size_t *)a, j = *(const size_t *)b,
	       len = key_lens[i] < key_lens[j] ? key_lens[i] : key_lens[j];
	int order = memcmp(key_bytes[i], key_bytes[j], len);

	return order != 0 ? order : (key_lens[i] > key_lens[j]) - (key_lens[i] < key_lens[j]);
}

/* Keys in order: short, long, prefixes of others, with zero bytes. */
static void keys_make(void)
{
	static uint8_t sorted[KEYS][STORE_KEY_BYTES_MAX];
	size_t lens[KEYS], order[KEYS];

	for (size_t i = 0; i < KEYS; i++) {
		order[i] = i;
		key_lens[i] = i % 50 == 7 ? STORE_KEY_BYTES_MAX : 3 + i % 4 * 6;
		memset(key_bytes[i], i % 3 == 0 ? 0 : 'x', sizeof(key_bytes[i]));
		key_bytes[i][0] = (uint8_t)(i / 40);
		key_bytes[i][1] = (uint8_t)(i % 10);
		key_bytes[i][2] = (uint8_t)i;
	}
	qsort(order, KEYS, sizeof(order[0]), key_compare);
	for (size_t i = 0; i < KEYS; i++) {
		memcpy(sorted[i], key_bytes[order[i]], sizeof(sorted[i]));
		lens[i] = key_lens[order[i]];
	}
	memcpy(key_bytes, sorted, sizeof(sorted));
	memcpy(key_lens, lens, sizeof(lens));
}

static struct sluice_slice key_of(size_t key)
{
	return (struct sluice_slice){key_bytes[key], key_lens[key]};
}

static struct sluice_slice value_of(uint32_t number)
{
	static uint8_t bytes[VALUE_BYTES_MAX];
	size_t len = number % 11 == 0	? number * 37 % VALUE_BYTES_MAX
		     : number % 13 == 0 ? 0
					: number * 7 % 150;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(number * 31 + i);
	return (struct sluice_slice){bytes, len};
}

static bool same(struct sluice_slice a, struct sluice_slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static void world_open(struct world *world)
{
	/* A small cache, so that cells are dropped and read again. */
	const struct store_options options = {.map_bytes = 256u << 20,
					      .create = true,
					      .cell_cache_max = 30};
	const char *why = "";

	if (world->kind == MEM)
		cr_assert_eq(store_open_mem(&options, &world->store), 0);
	else
		cr_assert_eq(store_open_lmdb(world->dir, &options, &world->store, &why), 0, "%s",
			     why);
}

static struct world *world_new(int kind, unsigned seed)
{
	struct world *world = calloc(1, sizeof(*world));

	cr_assert_not_null(world);
	*world = (struct world){.kind = kind,
				.seed = seed,
				.dice = seed,
				.dir = "/tmp/sluice-model-XXXXXX"};
	if (kind == LMDB)
		cr_assert_not_null(mkdtemp(world->dir));
	world_open(world);
	return world;
}

static void world_free(struct world *world)
{
	static const char *const files[] = {"data.mdb", "lock.mdb", "sluice.lock"};
	char path[96];

	store_close(world->store);
	for (size_t i = 0; world->kind == LMDB && i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", world->dir, files[i]);
		cr_assert_eq(unlink(path), 0);
	}
	if (world->kind == LMDB)
		cr_assert_eq(rmdir(world->dir), 0);
	free(world);
}

/* ---- the content ---- */

struct walk {
	const struct world *world;
	const struct model *model;
	int table;
	size_t key; /* the next record that may be returned */
};

/* Moves on to the next record of the model; false: there is none. */
static bool walk_next(struct walk *walk)
{
	for (; walk->table < STORE_TABLE_COUNT; walk->table++, walk->key = 0) {
		for (; walk->key < KEYS; walk->key++) {
			if (walk->model->records[walk->table][walk->key] != 0)
				return true;
		}
	}
	return false;
}

static int visit(void *user, enum store_table table, struct sluice_slice key,
		 struct sluice_slice value, int code)
{
	struct walk *walk = user;

	cr_assert_eq(code, 0, "%s: %s", where(walk->world), store_last_error());
	if (table == STORE_META && key.len == 12 && memcmp(key.data, "store_schema", 12) == 0)
		return 0; /* lmdb's own */
	CHECK(walk->world, walk_next(walk));
	CHECK(walk->world, (int)table == walk->table);
	CHECK(walk->world, same(key, key_of(walk->key)));
	CHECK(walk->world, same(value, value_of(walk->model->records[table][walk->key])));
	walk->key++;
	return 0;
}

static void expect_all(struct world *world, struct store_txn *txn, const struct model *model)
{
	struct walk walk = {world, model, 0, 0};

	cr_assert_eq(store_walk(txn, visit, &walk), 0);
	CHECK(world, !walk_next(&walk));
}

static void expect_committed(struct world *world)
{
	struct store_txn *txn = NULL;

	cr_assert_eq(store_begin_read(world->store, &txn), 0);
	expect_all(world, txn, &world->committed);
	store_abort(txn);
}

/* ---- one step; 0 or the injected failure ---- */

static bool hot(enum store_table table)
{
	return table == STORE_HOT || table == STORE_GRANT || table == STORE_LIVE ||
	       table == STORE_SESSION;
}

static int step_put(struct world *world, enum store_table table, size_t key)
{
	uint32_t number = ++world->values;
	struct sluice_slice value = value_of(number);
	struct iovec parts[3] = {{(void *)(uintptr_t)value.data, value.len / 3},
				 {NULL, 0},
				 {NULL, 0}};
	int rc;

	parts[2].iov_base = (uint8_t *)(uintptr_t)value.data + value.len / 3;
	parts[2].iov_len = value.len - value.len / 3;
	if (!hot(table) && roll(world, 2) == 0)
		rc = store_putv(world->txn, table, key_of(key), parts, 3);
	else
		rc = store_put(world->txn, table, key_of(key), value);
	if (rc == 0)
		world->now.records[table][key] = number;
	return rc;
}

static int step_del(struct world *world, enum store_table table, size_t key)
{
	bool there = world->now.records[table][key] != 0;
	int rc = store_del(world->txn, table, key_of(key));

	if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
		return rc;
	CHECK(world, (rc == 0) == there);
	world->now.records[table][key] = 0;
	return 0;
}

static int step_get(struct world *world, enum store_table table, size_t key)
{
	uint32_t number = world->now.records[table][key];
	struct sluice_slice value;
	int rc = store_get(world->txn, table, key_of(key), &value);

	if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
		return rc;
	CHECK(world, (rc == 0) == (number != 0));
	if (rc == 0)
		CHECK(world, same(value, value_of(number)));
	return 0;
}

static int step_last_le(struct world *world, enum store_table table, size_t key)
{
	struct sluice_slice found, value;
	size_t prefix = roll(world, 3), want = key + 1;
	int rc;

	if (table == STORE_META)
		table = STORE_OWNED;
	rc = store_last_le(world->txn, table, key_of(key), prefix, &found, &value);

	if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
		return rc;
	while (want > 0 && world->now.records[table][want - 1] == 0)
		want--;
	if (want > 0 && memcmp(key_bytes[want - 1], key_bytes[key], prefix) != 0)
		want = 0;
	CHECK(world, (rc == 0) == (want > 0));
	if (rc == 0) {
		CHECK(world, same(found, key_of(want - 1)));
		CHECK(world, same(value, value_of(world->now.records[table][want - 1])));
	}
	return 0;
}

/* A scan of a part of a table from a key on, with deletes; other tables are written during it. */
static int step_scan(struct world *world, enum store_table table, size_t key)
{
	enum store_table other = (enum store_table)(
		(table + 1 + roll(world, STORE_TABLE_COUNT - 1)) % STORE_TABLE_COUNT);
	unsigned left = roll(world, 40), deletes = roll(world, 3);
	struct sluice_slice found, value;
	struct store_scan *scan = NULL;
	int rc;

	if (table == STORE_META)
		table = STORE_OWNED; /* lmdb has a record of its own in meta */
	rc = store_scan_begin(world->txn, table, key_of(key), &scan);

	for (; rc == 0 && left > 0; left--) {
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
			break;
		while (key < KEYS && world->now.records[table][key] == 0)
			key++;
		CHECK(world, (rc == 0) == (key < KEYS));
		if (rc != 0)
			break;
		CHECK(world, same(found, key_of(key)));
		CHECK(world, same(value, value_of(world->now.records[table][key])));
		if (deletes > 0 && roll(world, 3) < deletes) {
			rc = store_scan_del(scan);
			if (rc == 0)
				world->now.records[table][key] = 0;
		} else if (roll(world, 8) == 0) {
			rc = step_put(world, other, roll(world, KEYS));
		}
		key++;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int step_savepoint(struct world *world)
{
	int rc = 0;

	if (!world->savepoint) {
		rc = store_savepoint(world->txn);
		world->at_savepoint = world->now;
	} else if (roll(world, 2) == 0) {
		store_release(world->txn);
	} else {
		rc = store_rollback(world->txn);
		if (rc == 0)
			world->now = world->at_savepoint;
	}
	world->savepoint = !world->savepoint;
	return rc;
}

static int step(struct world *world, unsigned tables)
{
	enum store_table table = (enum store_table)(roll(world, tables) * 5 % STORE_TABLE_COUNT);
	/* Often in order, as queues and logs are. */
	size_t key = roll(world, 3) == 0 ? roll(world, KEYS) : world->values % KEYS;

	switch (roll(world, 12)) {
	case 0:
	case 1:
		return step_del(world, table, key);
	case 2:
	case 3:
		return step_get(world, table, key);
	case 4:
		return step_last_le(world, table, key);
	case 5:
		return step_scan(world, table, key);
	case 6:
		return step_savepoint(world);
	default:
		return step_put(world, table, key);
	}
}

/* A transaction; 0 or the injected failure, after which everything is as before. */
static int batch(struct world *world, unsigned tables)
{
	bool keep = roll(world, 4) != 0;
	int rc = store_begin(world->store, &world->txn);

	if (rc != 0)
		return rc;
	world->now = world->committed;
	world->savepoint = false;
	for (int i = 0; rc == 0 && i < STEPS; i++)
		rc = step(world, tables);
	if (rc == 0 && keep) {
		rc = store_commit(world->txn);
		if (rc == 0)
			world->committed = world->now;
		return rc;
	}
	if (world->kind == LMDB && !world->faulty)
		expect_committed(world); /* a snapshot beside the writer */
	store_abort(world->txn);
	return rc;
}

static void run_seed(int kind, unsigned seed)
{
	struct world *world = world_new(kind, seed);

	for (int round = 0; round < ROUNDS; round++) {
		/* Few tables: full ones, with pages that split and merge. */
		cr_assert_eq(batch(world, seed % 2 == 0 ? 3 : STORE_TABLE_COUNT), 0, "%s: %s",
			     where(world), store_last_error());
		expect_committed(world);
		if (kind == LMDB && roll(world, 5) == 0) {
			store_close(world->store);
			world_open(world);
			expect_committed(world);
		}
	}
	world_free(world);
}

static unsigned first_seed(unsigned *ret_count)
{
	const char *only = getenv("SLUICE_STORE_SEED");

	*ret_count = only == NULL ? SEEDS : 1;
	return only == NULL ? 1 : (unsigned)strtoul(only, NULL, 10);
}

Test(store_model, mem_equals_an_array)
{
	unsigned count, first = first_seed(&count);

	keys_make();
	for (unsigned seed = first; seed < first + count; seed++)
		run_seed(MEM, seed);
}

Test(store_model, lmdb_equals_an_array)
{
	unsigned count, first = first_seed(&count);

	keys_make();
	for (unsigned seed = first; seed < first + count; seed++)
		run_seed(LMDB, seed);
}

/* ---- failures ---- */

struct fault {
	int left;
	char operation[16];
};

static int fail_at(void *user, const char *operation)
{
	struct fault *fault = user;

	if (--fault->left != 0)
		return 0;
	snprintf(fault->operation, sizeof(fault->operation), "%s", operation);
	return SLUICE_E_NO_SPACE;
}

/* The same batch fails at its first call, its second ... and each time leaves what was
 * committed. */
static void fail_everywhere(int kind, unsigned seed)
{
	struct world *world = world_new(kind, seed);
	bool failed = true;
	int seen = 0;

	for (int i = 0; i < 3; i++)
		cr_assert_eq(batch(world, 4), 0);
	for (int k = 1; failed; k += 1 + k / 40) {
		struct fault fault = {.left = k};
		unsigned dice = world->dice, values = world->values;
		int rc;

		world->faulty = true;
		store_fault_set(world->store, fail_at, &fault);
		rc = batch(world, 4);
		store_fault_set(world->store, NULL, NULL);
		world->faulty = false;
		failed = fault.left <= 0;
		cr_assert_eq(rc, failed ? SLUICE_E_NO_SPACE : 0, "%s: call %d, %s: code %d",
			     where(world), k, fault.operation, rc);
		expect_committed(world);
		seen += failed;
		if (failed) {
			world->dice = dice;
			world->values = values;
		}
	}
	cr_assert_gt(seen, 50, "%s", where(world));
	world_free(world);
}

Test(store_model, a_failure_at_each_call_leaves_what_was_committed)
{
	keys_make();
	for (int kind = 0; kind < KINDS; kind++)
		fail_everywhere(kind, 3);
}

static int fail_operation(void *user, const char *operation)
{
	return strcmp(operation, user) == 0 ? SLUICE_E_NO_SPACE : 0;
}

Test(store_model, a_half_done_transaction_can_only_be_aborted)
{
	static const char *const operations[] = {"put", "del", "rollback"};

	keys_make();
	for (int kind = 0; kind < KINDS; kind++) {
		struct world *world = world_new(kind, 1);

		for (int hot_table = 0; hot_table < 2; hot_table++) {
			enum store_table table = hot_table ? STORE_HOT : STORE_NAME;

			for (size_t i = 0; i < 3; i++) {
				char *operation = (char *)(uintptr_t)operations[i];

				cr_assert_eq(store_begin(world->store, &world->txn), 0);
				cr_assert_eq(store_put(world->txn, table, key_of(0), value_of(1)),
					     0);
				cr_assert_eq(store_savepoint(world->txn), 0);
				cr_assert_eq(store_put(world->txn, table, key_of(1), value_of(1)),
					     0);
				store_fault_set(world->store, fail_operation, operation);
				if (i == 0)
					cr_assert_eq(store_put(world->txn, table, key_of(2),
							       value_of(1)),
						     SLUICE_E_NO_SPACE);
				else if (i == 1)
					cr_assert_eq(store_del(world->txn, table, key_of(1)),
						     SLUICE_E_NO_SPACE);
				else
					cr_assert_eq(store_rollback(world->txn), SLUICE_E_NO_SPACE);
				store_fault_set(world->store, NULL, NULL);
				cr_expect_eq(store_put(world->txn, table, key_of(3), value_of(1)),
					     SLUICE_E_NO_SPACE);
				cr_expect_eq(store_del(world->txn, table, key_of(0)),
					     SLUICE_E_NO_SPACE);
				if (i != 2)
					cr_expect_eq(store_rollback(world->txn), SLUICE_E_NO_SPACE);
				cr_expect_eq(store_commit(world->txn), SLUICE_E_NO_SPACE);
				expect_committed(world);
			}
		}
		world_free(world);
	}
}
