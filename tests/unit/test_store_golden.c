/* SPDX-License-Identifier: Apache-2.0
 *
 * The format on disk never changes: the bytes of a record, and a whole store as a program of schema
 * version 1 left it.
 *
 * SLUICE_STORE_GOLDEN=PATH writes such a store's data file there instead, for `zstd -19 PATH` to
 * pack: only when the schema's version was raised, and beside the old ones, which must still open.
 */
#include <criterion/criterion.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "broker/store/store.h"

enum { PACKED_MAX = 1 << 20, UNPACKED_MAX = 4 << 20, LONG_VALUE = 5000, RECORDS = 3 };

static const struct store_options options = {.map_bytes = 64u << 20, .create = true};

static struct sluice_slice text(const char *value)
{
	return (struct sluice_slice){value, strlen(value)};
}

static void dir_make(char dir[64])
{
	strcpy(dir, "/tmp/sluice-golden-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
}

static void dir_remove(const char *dir)
{
	static const char *const files[] = {"data.mdb", "lock.mdb", "sluice.lock"};
	char path[96];

	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		cr_assert_eq(unlink(path), 0);
	}
	cr_assert_eq(rmdir(dir), 0);
}

static struct store *open_store(const char *dir)
{
	struct store *store = NULL;
	const char *why = "";

	cr_assert_eq(store_open_lmdb(dir, &options, &store, &why), 0, "%s", why);
	return store;
}

Test(store_golden, a_record_is_version_crc_of_key_and_value_then_the_value)
{
	static const uint8_t expected[] = {0x01, 0xE8, 0x00, 0x89, 0x44, 'v', 'a', 'l', 'u', 'e'};
	struct store_txn *txn = NULL;
	struct store *store;
	MDB_env *env;
	MDB_txn *raw;
	MDB_dbi name, log;
	MDB_val key = {3, (void *)(uintptr_t) "key"}, value;
	char dir[64];

	dir_make(dir);
	store = open_store(dir);
	cr_assert_eq(store_begin(store, &txn), 0);
	cr_assert_eq(store_put(txn, STORE_NAME, text("key"), text("value")), 0);
	cr_assert_eq(store_put(txn, STORE_LOG, text("key"), text("value")), 0);
	cr_assert_eq(store_commit(txn), 0);
	store_close(store);
	cr_assert_eq(mdb_env_create(&env), 0);
	cr_assert_eq(mdb_env_set_maxdbs(env, 64), 0);
	cr_assert_eq(mdb_env_open(env, dir, MDB_RDONLY, 0600), 0);
	cr_assert_eq(mdb_txn_begin(env, NULL, MDB_RDONLY, &raw), 0);
	cr_assert_eq(mdb_dbi_open(raw, "name", 0, &name), 0);
	cr_assert_eq(mdb_dbi_open(raw, "log", 0, &log), 0);
	cr_assert_eq(mdb_get(raw, name, &key, &value), 0);
	cr_assert_eq(value.mv_size, sizeof(expected));
	cr_expect_arr_eq(value.mv_data, expected, sizeof(expected));
	cr_assert_eq(mdb_get(raw, log, &key, &value), 0);
	cr_expect(value.mv_size == 5 && memcmp(value.mv_data, "value", 5) == 0,
		  "a segment is stored as it is");
	mdb_txn_abort(raw);
	mdb_env_close(env);
	dir_remove(dir);
}

/* What is in the golden store: in each table a short value, an empty one, one that has pages of its
 * own. */
static struct sluice_slice golden_key(int table, int record, char buf[32])
{
	snprintf(buf, 32, "%s-%d", store_table_name((enum store_table)table), record);
	return text(buf);
}

static struct sluice_slice golden_value(int table, int record)
{
	static uint8_t bytes[LONG_VALUE];
	size_t len = record == 0 ? 20 : record == 1 ? 0 : LONG_VALUE;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(table * 7 + record + i);
	return (struct sluice_slice){bytes, len};
}

static void golden_write(const char *to)
{
	struct store_txn *txn = NULL;
	struct store *store;
	char dir[64], path[96], key[32];

	dir_make(dir);
	store = open_store(dir);
	cr_assert_eq(store_begin(store, &txn), 0);
	for (int table = 0; table < STORE_TABLE_COUNT; table++) {
		for (int record = 0; record < RECORDS; record++)
			cr_assert_eq(store_put(txn, (enum store_table)table,
					       golden_key(table, record, key),
					       golden_value(table, record)),
				     0);
	}
	cr_assert_eq(store_commit(txn), 0);
	store_close(store);
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	cr_assert_eq(link(path, to), 0);
	dir_remove(dir);
}

static void golden_unpack(const char *dir)
{
	static char packed[PACKED_MAX], bytes[UNPACKED_MAX];
	char path[96];
	size_t len;
	FILE *file = fopen(STORE_DATA "/schema-1.mdb.zst", "rb");

	cr_assert_not_null(file);
	len = fread(packed, 1, sizeof(packed), file);
	(void)fclose(file);
	len = ZSTD_decompress(bytes, sizeof(bytes), packed, len);
	cr_assert(!ZSTD_isError(len));
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	file = fopen(path, "wb");
	cr_assert_not_null(file);
	cr_assert_eq(fwrite(bytes, 1, len, file), len);
	cr_assert_eq(fclose(file), 0);
}

Test(store_golden, a_store_of_schema_version_1_opens_and_has_all_its_records)
{
	const char *to = getenv("SLUICE_STORE_GOLDEN");
	struct store_txn *txn = NULL;
	struct sluice_slice value;
	struct store *store;
	char dir[64], key[32];

	if (to != NULL) {
		golden_write(to);
		cr_skip_test("a store was written instead of the test");
		return;
	}
	dir_make(dir);
	golden_unpack(dir);
	store = open_store(dir);
	cr_assert_eq(store_begin(store, &txn), 0);
	for (int table = 0; table < STORE_TABLE_COUNT; table++) {
		for (int record = 0; record < RECORDS; record++) {
			struct sluice_slice expected = golden_value(table, record);

			cr_assert_eq(store_get(txn, (enum store_table)table,
					       golden_key(table, record, key), &value),
				     0, "%s", key);
			cr_assert_eq(value.len, expected.len, "%s", key);
			cr_assert_eq(memcmp(value.data, expected.data, value.len), 0, "%s", key);
		}
	}
	store_abort(txn);
	store_close(store);
	dir_remove(dir);
}
