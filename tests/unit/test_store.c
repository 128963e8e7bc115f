/* SPDX-License-Identifier: Apache-2.0
 * The store, on both implementations: records, cells, savepoints, scans, aborts, faults; and what
 * only LMDB can show: damage (T2), snapshots beside the writer, a second process, another schema
 * (T14). */
#include <criterion/criterion.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/store/store.h"

enum { MEM, LMDB, KINDS };

struct rig {
	struct store *store;
	char dir[64];
};

static const struct store_options options = {.map_bytes = 64u << 20, .create = true};

static struct rig rig_open(int kind)
{
	struct rig rig = {.dir = "/tmp/sluice-store-XXXXXX"};
	const char *why = "";

	if (kind == MEM) {
		cr_assert_eq(store_open_mem(&options, &rig.store), 0);
	} else {
		cr_assert_not_null(mkdtemp(rig.dir));
		cr_assert_eq(store_open_lmdb(rig.dir, &options, &rig.store, &why), 0, "%s", why);
	}
	return rig;
}

static void rig_close(struct rig *rig, int kind)
{
	char command[128];

	store_close(rig->store);
	if (kind == MEM)
		return;
	snprintf(command, sizeof(command), "rm -rf %s", rig->dir);
	cr_assert_eq(system(command), 0);
}

static struct sluice_slice text(const char *value)
{
	return (struct sluice_slice){value, strlen(value)};
}

static void put(struct store_txn *txn, enum store_table table, const char *key, const char *value)
{
	cr_assert_eq(store_put(txn, table, text(key), text(value)), 0);
}

/* The value, or "-" when there is none. */
static const char *get(struct store_txn *txn, enum store_table table, const char *key)
{
	static char value[64];
	struct sluice_slice found;
	int rc = store_get(txn, table, text(key), &found);

	if (rc == SLUICE_E_NOT_FOUND)
		return "-";
	cr_assert_eq(rc, 0);
	snprintf(value, sizeof(value), "%.*s", (int)found.len, (const char *)found.data);
	return value;
}

static struct store_txn *begin(struct store *store)
{
	struct store_txn *txn = NULL;

	cr_assert_eq(store_begin(store, &txn), 0);
	return txn;
}

/* All keys and values of a table, "k=v k=v ". */
static const char *all(struct store_txn *txn, enum store_table table)
{
	static char line[4096];
	struct store_scan *scan = NULL;
	struct sluice_slice key, value;
	size_t len = 0;

	line[0] = 0;
	cr_assert_eq(store_scan_begin(txn, table, text(""), &scan), 0);
	while (store_scan_next(scan, &key, &value) == 0)
		len += (size_t)snprintf(line + len, sizeof(line) - len, "%.*s=%.*s ", (int)key.len,
					(const char *)key.data, (int)value.len,
					(const char *)value.data);
	store_scan_end(scan);
	return line;
}

static const enum store_table tables[] = {STORE_NAME /* plain */, STORE_HOT /* cells */};

Test(store, commits_stay_and_aborts_leave_nothing)
{
	for (int kind = 0; kind < KINDS; kind++) {
		struct rig rig = rig_open(kind);

		for (int t = 0; t < 2; t++) {
			struct store_txn *txn = begin(rig.store);

			put(txn, tables[t], "a", "1");
			put(txn, tables[t], "b", "2");
			cr_assert_eq(store_commit(txn), 0);
			txn = begin(rig.store);
			put(txn, tables[t], "a", "x");
			cr_assert_eq(store_del(txn, tables[t], text("b")), 0);
			put(txn, tables[t], "c", "3");
			cr_expect_str_eq(all(txn, tables[t]), "a=x c=3 ");
			store_abort(txn);
			txn = begin(rig.store);
			cr_expect_str_eq(all(txn, tables[t]), "a=1 b=2 ");
			cr_expect_eq(store_del(txn, tables[t], text("nothing")),
				     SLUICE_E_NOT_FOUND);
			store_abort(txn);
		}
		rig_close(&rig, kind);
	}
}

Test(store, a_rollback_goes_back_to_the_savepoint_cells_and_tables_alike)
{
	for (int kind = 0; kind < KINDS; kind++) {
		struct rig rig = rig_open(kind);

		for (int t = 0; t < 2; t++) {
			struct store_txn *txn = begin(rig.store);

			put(txn, tables[t], "a", "1");
			put(txn, tables[t], "b", "2");
			cr_assert_eq(store_savepoint(txn), 0);
			put(txn, tables[t], "a", "x");
			put(txn, tables[t], "a", "y");
			cr_assert_eq(store_del(txn, tables[t], text("b")), 0);
			put(txn, tables[t], "c", "3");
			/* A scan in between writes cells through: the rollback must reach that,
			 * too. */
			cr_expect_str_eq(all(txn, tables[t]), "a=y c=3 ");
			cr_assert_eq(store_rollback(txn), 0);
			cr_expect_str_eq(all(txn, tables[t]), "a=1 b=2 ");
			cr_assert_eq(store_savepoint(txn), 0);
			put(txn, tables[t], "a", "kept");
			store_release(txn);
			cr_assert_eq(store_commit(txn), 0);
			txn = begin(rig.store);
			cr_expect_str_eq(all(txn, tables[t]), "a=kept b=2 ");
			store_abort(txn);
		}
		rig_close(&rig, kind);
	}
}

Test(store, scans_delete_as_they_go)
{
	for (int kind = 0; kind < KINDS; kind++) {
		struct rig rig = rig_open(kind);

		for (int t = 0; t < 2; t++) {
			struct store_txn *txn = begin(rig.store);
			struct store_scan *scan = NULL;
			struct sluice_slice key, value;
			char name[8];

			for (int i = 0; i < 50; i++) {
				snprintf(name, sizeof(name), "k%02d", i);
				put(txn, tables[t], name, name);
			}
			cr_assert_eq(store_scan_begin(txn, tables[t], text("k10"), &scan), 0);
			for (int i = 0; store_scan_next(scan, &key, &value) == 0; i++)
				if (i % 2 == 0)
					cr_assert_eq(store_scan_del(scan), 0);
			store_scan_end(scan);
			cr_expect_str_eq(get(txn, tables[t], "k10"), "-");
			cr_expect_str_eq(get(txn, tables[t], "k11"), "k11");
			cr_expect_str_eq(get(txn, tables[t], "k48"), "-");
			cr_assert_eq(store_commit(txn), 0);
			txn = begin(rig.store);
			cr_expect_str_eq(get(txn, tables[t], "k12"), "-");
			cr_expect_str_eq(get(txn, tables[t], "k13"), "k13");
			cr_assert_eq(store_last_le(txn, tables[t], text("k48"), 1, &key, &value),
				     0);
			cr_expect_eq(memcmp(key.data, "k47", 3), 0);
			cr_expect_eq(store_last_le(txn, tables[t], text("a"), 1, &key, &value),
				     SLUICE_E_NOT_FOUND);
			store_abort(txn);
		}
		rig_close(&rig, kind);
	}
}

static int fail_at(void *user, const char *operation)
{
	int *left = user;

	(void)operation;
	return --*left == 0 ? SLUICE_E_NO_SPACE : 0;
}

Test(store, a_failure_at_any_call_leaves_what_was_committed)
{
	for (int kind = 0; kind < KINDS; kind++) {
		struct rig rig = rig_open(kind);
		struct store_txn *txn = begin(rig.store);
		bool failed = true;

		put(txn, STORE_HOT, "h", "0");
		put(txn, STORE_NAME, "n", "0");
		cr_assert_eq(store_commit(txn), 0);
		for (int k = 1; failed; k++) {
			int left = k, rc;

			store_fault_set(rig.store, fail_at, &left);
			txn = NULL;
			rc = store_begin(rig.store, &txn);
			if (rc == 0)
				rc = store_put(txn, STORE_HOT, text("h"), text("1"));
			if (rc == 0)
				rc = store_put(txn, STORE_NAME, text("n"), text("1"));
			if (rc == 0)
				rc = store_commit(txn);
			else if (txn != NULL)
				store_abort(txn);
			store_fault_set(rig.store, NULL, NULL);
			failed = rc != 0;
			txn = begin(rig.store);
			cr_expect_str_eq(get(txn, STORE_HOT, "h"), failed ? "0" : "1");
			cr_expect_str_eq(get(txn, STORE_NAME, "n"), failed ? "0" : "1");
			store_abort(txn);
			cr_assert_lt(k, 10);
		}
		rig_close(&rig, kind);
	}
}

Test(store, both_implementations_do_the_same)
{
	struct rig rigs[KINDS] = {rig_open(MEM), rig_open(LMDB)};
	unsigned seed = 7;

	for (int round = 0; round < 40; round++) {
		struct store_txn *txns[KINDS] = {begin(rigs[MEM].store), begin(rigs[LMDB].store)};
		bool keep = rand_r(&seed) % 3 != 0;

		for (int i = 0; i < 30; i++) {
			enum store_table table =
				(enum store_table)(rand_r(&seed) % STORE_TABLE_COUNT);
			char key[8], value[8];
			bool del = rand_r(&seed) % 3 == 0;

			if (table == STORE_META)
				continue;
			snprintf(key, sizeof(key), "k%d", rand_r(&seed) % 20);
			snprintf(value, sizeof(value), "v%d", i);
			for (int kind = 0; kind < KINDS; kind++) {
				if (del)
					(void)!store_del(txns[kind], table, text(key));
				else
					put(txns[kind], table, key, value);
			}
		}
		for (int kind = 0; kind < KINDS; kind++) {
			if (keep)
				cr_assert_eq(store_commit(txns[kind]), 0);
			else
				store_abort(txns[kind]);
		}
	}
	for (int table = 1; table < STORE_TABLE_COUNT; table++) {
		char mem[4096];
		struct store_txn *txn = begin(rigs[MEM].store);

		snprintf(mem, sizeof(mem), "%s", all(txn, (enum store_table)table));
		store_abort(txn);
		txn = begin(rigs[LMDB].store);
		cr_expect_str_eq(mem, all(txn, (enum store_table)table), "table %s",
				 store_table_name((enum store_table)table));
		store_abort(txn);
	}
	for (int kind = 0; kind < KINDS; kind++)
		rig_close(&rigs[kind], kind);
}

/* ---- LMDB only ---- */

static void *write_beside(void *user)
{
	struct store_txn *txn = begin(user);

	put(txn, STORE_NAME, "a", "new");
	cr_assert_eq(store_commit(txn), 0);
	return NULL;
}

Test(store, a_snapshot_does_not_change_while_another_thread_commits)
{
	struct rig rig = rig_open(LMDB);
	struct store_txn *txn = begin(rig.store), *snapshot = NULL;
	pthread_t thread;

	put(txn, STORE_NAME, "a", "old");
	cr_assert_eq(store_commit(txn), 0);
	cr_assert_eq(store_begin_read(rig.store, &snapshot), 0);
	cr_assert_eq(pthread_create(&thread, NULL, write_beside, rig.store), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_str_eq(get(snapshot, STORE_NAME, "a"), "old");
	store_abort(snapshot);
	cr_assert_eq(store_begin_read(rig.store, &snapshot), 0);
	cr_expect_str_eq(get(snapshot, STORE_NAME, "a"), "new");
	store_abort(snapshot);
	rig_close(&rig, LMDB);
}

Test(store, a_second_open_is_refused)
{
	struct rig rig = rig_open(LMDB);
	struct store *second = NULL;
	const char *why = "";

	cr_expect_eq(store_open_lmdb(rig.dir, &options, &second, &why), SLUICE_E_LOCKED);
	cr_expect_str_neq(why, "");
	rig_close(&rig, LMDB);
}

/* Changes one byte of a stored record without the store. at < 0: cuts the last byte off. */
static void damage(const char *dir, const char *table, const char *key, int at)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_val k = {strlen(key), (void *)(uintptr_t)key}, v;
	uint8_t bytes[256];

	cr_assert_eq(mdb_env_create(&env), 0);
	cr_assert_eq(mdb_env_set_maxdbs(env, 64), 0);
	cr_assert_eq(mdb_env_set_mapsize(env, 64u << 20), 0);
	cr_assert_eq(mdb_env_open(env, dir, 0, 0600), 0);
	cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
	cr_assert_eq(mdb_dbi_open(txn, table, 0, &dbi), 0);
	cr_assert_eq(mdb_get(txn, dbi, &k, &v), 0);
	memcpy(bytes, v.mv_data, v.mv_size);
	v.mv_data = bytes;
	if (at < 0)
		v.mv_size--;
	else
		bytes[(size_t)at % v.mv_size] ^= 0x10;
	cr_assert_eq(mdb_put(txn, dbi, &k, &v, 0), 0);
	cr_assert_eq(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static void damaged_is_named(enum store_table table, int at)
{
	struct rig rig = rig_open(LMDB);
	struct store_txn *txn = begin(rig.store);
	struct sluice_slice value;
	const char *why = "";

	put(txn, table, "bad", "some value");
	put(txn, table, "good", "another");
	cr_assert_eq(store_commit(txn), 0);
	store_close(rig.store);
	damage(rig.dir, store_table_name(table), "bad", at);
	cr_assert_eq(store_open_lmdb(rig.dir, &options, &rig.store, &why), 0, "%s", why);
	txn = begin(rig.store);
	cr_expect_eq(store_get(txn, table, text("bad"), &value), SLUICE_E_CORRUPT,
		     "table %s, byte %d", store_table_name(table), at);
	cr_expect_not_null(strstr(store_last_error(), store_table_name(table)),
			   "the error names the table: %s", store_last_error());
	cr_expect_not_null(strstr(store_last_error(), "626164"), "and the key in hex: %s",
			   store_last_error());
	cr_expect_str_eq(get(txn, table, "good"), "another", "all others are served");
	store_abort(txn);
	rig_close(&rig, LMDB);
}

Test(store, each_damaged_byte_is_found_and_named_in_every_framed_table)
{
	for (int table = 0; table < STORE_TABLE_COUNT; table++) {
		if (table == STORE_LOG || table == STORE_BLOB)
			continue; /* their values check themselves */
		damaged_is_named((enum store_table)table, table % 15);
	}
	for (int at = -1; at < 15; at++)
		damaged_is_named(STORE_ITEM, at);
}

Test(store, another_schema_is_refused_and_not_changed)
{
	struct rig rig = rig_open(LMDB);
	struct store_txn *txn = begin(rig.store);
	struct store *newer = NULL;
	uint8_t version[4] = {0, 0, 0, 99};
	const char *why = "";

	cr_assert_eq(store_put(txn, STORE_META, text("store_schema"),
			       (struct sluice_slice){version, 4}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
	store_close(rig.store);
	rig.store = NULL;
	cr_expect_eq(store_open_lmdb(rig.dir, &options, &newer, &why), SLUICE_E_SCHEMA);
	cr_expect_not_null(strstr(why, "schema"));
	rig_close(&rig, LMDB);
}

/* At both edges, in tables and cells alike, for every call that takes a key. */
Test(store, keys_have_bounds)
{
	static const size_t bad[] = {0, STORE_KEY_BYTES_MAX + 1, 4000};
	static char key[4000];

	memset(key, 'k', sizeof(key));
	for (int kind = 0; kind < KINDS; kind++) {
		struct rig rig = rig_open(kind);

		for (int t = 0; t < 2; t++) {
			struct store_txn *txn = begin(rig.store);
			struct sluice_slice longest = {key, STORE_KEY_BYTES_MAX}, found, value;
			struct store_scan *scan = NULL;

			cr_expect_eq(store_put(txn, tables[t], longest, text("v")), 0);
			cr_expect_eq(store_last_le(txn, tables[t], longest, STORE_KEY_BYTES_MAX,
						   &found, &value),
				     0);
			for (size_t i = 0; i < 3; i++) {
				struct sluice_slice wrong = {key, bad[i]};

				cr_expect_eq(store_put(txn, tables[t], wrong, text("v")),
					     SLUICE_E_LIMIT);
				cr_expect_eq(store_get(txn, tables[t], wrong, &value),
					     SLUICE_E_LIMIT);
				cr_expect_eq(store_del(txn, tables[t], wrong), SLUICE_E_LIMIT);
				cr_expect_eq(store_last_le(txn, tables[t], wrong, 0, &found,
							   &value),
					     SLUICE_E_LIMIT);
				if (bad[i] > 0)
					cr_expect_eq(store_scan_begin(txn, tables[t], wrong, &scan),
						     SLUICE_E_LIMIT);
			}
			cr_expect_eq(store_commit(txn), 0, "a refused key changes nothing");
			txn = begin(rig.store);
			cr_expect_eq(store_get(txn, tables[t], longest, &value), 0);
			store_abort(txn);
		}
		rig_close(&rig, kind);
	}
}

/* T2 under a savepoint: a damaged record can be deleted, comes back with a rollback as it was, and
 * a scan skips it. */
static int count_damaged(void *user, enum store_table table, struct sluice_slice key,
			 struct sluice_slice value, int code)
{
	int *counts = user;

	if (table != STORE_ITEM)
		return 0;
	counts[code == 0 ? 0 : 1]++;
	if (code != 0) {
		cr_expect_eq(code, SLUICE_E_CORRUPT);
		cr_expect(key.len == 3 && memcmp(key.data, "bad", 3) == 0);
		cr_expect_eq(value.len, 0);
	}
	return 0;
}

Test(store, a_damaged_record_can_be_deleted_and_its_rollback_keeps_it)
{
	struct rig rig = rig_open(LMDB);
	struct store_txn *txn = begin(rig.store);
	int counts[2] = {0, 0};
	struct sluice_slice value;

	put(txn, STORE_ITEM, "a", "1");
	put(txn, STORE_ITEM, "bad", "2");
	put(txn, STORE_ITEM, "c", "3");
	cr_assert_eq(store_commit(txn), 0);
	store_close(rig.store);
	damage(rig.dir, "item", "bad", 5);
	cr_assert_eq(store_open_lmdb(rig.dir, &options, &rig.store, NULL), 0);
	txn = begin(rig.store);
	cr_expect_eq(store_walk(txn, count_damaged, counts), SLUICE_E_CORRUPT);
	cr_expect_eq(counts[0], 2);
	cr_expect_eq(counts[1], 1);
	cr_assert_eq(store_savepoint(txn), 0);
	cr_expect_eq(store_del(txn, STORE_ITEM, text("bad")), 0);
	cr_expect_eq(store_get(txn, STORE_ITEM, text("bad"), &value), SLUICE_E_NOT_FOUND);
	cr_expect_eq(store_rollback(txn), 0);
	cr_expect_eq(store_get(txn, STORE_ITEM, text("bad"), &value), SLUICE_E_CORRUPT);
	cr_expect_eq(store_del(txn, STORE_ITEM, text("bad")), 0);
	cr_assert_eq(store_commit(txn), 0);
	counts[0] = counts[1] = 0;
	txn = begin(rig.store);
	cr_expect_eq(store_walk(txn, count_damaged, counts), 0);
	cr_expect_eq(counts[0], 2);
	store_abort(txn);
	rig_close(&rig, LMDB);
}

/* Every way to an answer counts, in the transaction that got it. */
static void damage_is_counted(enum store_table table)
{
	struct rig rig = rig_open(LMDB);
	struct store_txn *txn = begin(rig.store);
	struct sluice_slice key, value;
	struct store_scan *scan;

	put(txn, table, "a", "1");
	put(txn, table, "bad", "2");
	cr_assert_eq(store_commit(txn), 0);
	store_close(rig.store);
	damage(rig.dir, store_table_name(table), "bad", 5);
	cr_assert_eq(store_open_lmdb(rig.dir, &options, &rig.store, NULL), 0);
	txn = begin(rig.store);
	cr_expect_eq(store_get(txn, table, text("a"), &value), 0);
	cr_expect_eq(store_get(txn, table, text("no"), &value), SLUICE_E_NOT_FOUND);
	cr_expect_eq(store_txn_damaged(txn), 0);
	cr_expect_eq(store_get(txn, table, text("bad"), &value), SLUICE_E_CORRUPT);
	cr_expect_eq(store_txn_damaged(txn), 1);
	cr_expect_eq(store_last_le(txn, table, text("bad"), 1, &key, &value), SLUICE_E_CORRUPT);
	cr_expect_eq(store_txn_damaged(txn), 2);
	cr_assert_eq(store_scan_begin(txn, table, text("b"), &scan), 0);
	cr_expect_eq(store_scan_next(scan, &key, &value), SLUICE_E_CORRUPT);
	store_scan_end(scan);
	cr_expect_eq(store_txn_damaged(txn), 3);
	cr_expect_eq(store_damaged("of its caller"), SLUICE_E_CORRUPT);
	cr_expect_eq(store_txn_damaged(txn), 4);
	store_abort(txn);
	txn = begin(rig.store);
	cr_expect_eq(store_txn_damaged(txn), 0, "the next one begins anew");
	store_abort(txn);
	rig_close(&rig, LMDB);
}

Test(store, damage_that_a_transaction_meets_is_counted)
{
	damage_is_counted(STORE_ITEM);
	damage_is_counted(STORE_GRANT);
}

static int corrupt_get(void *user, const char *operation)
{
	(void)user;
	return strcmp(operation, "get") == 0 ? SLUICE_E_CORRUPT : 0;
}

static void *meet_damage(void *user)
{
	struct sluice_slice value;
	struct store_txn *txn;

	cr_assert_eq(store_begin_read(user, &txn), 0);
	cr_assert_eq(store_get(txn, STORE_ITEM, text("a"), &value), SLUICE_E_CORRUPT);
	cr_expect_eq(store_txn_damaged(txn), 1);
	store_abort(txn);
	return NULL;
}

Test(store, damage_that_another_thread_meets_is_not_counted)
{
	struct rig rig = rig_open(LMDB);
	struct store_txn *txn = begin(rig.store);
	pthread_t thread;

	store_fault_set(rig.store, corrupt_get, NULL);
	cr_assert_eq(pthread_create(&thread, NULL, meet_damage, rig.store), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect_eq(store_txn_damaged(txn), 0);
	store_abort(txn);
	rig_close(&rig, LMDB);
}
