/* SPDX-License-Identifier: Apache-2.0
 *
 * Hot cells save reads and writes: a store implementation that counts its calls proves it. One
 * table of a few records, no transactions.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/store/store_impl.h"

enum { RECORDS_MAX = 64, VALUE_MAX = 64 };

struct counted {
	int gets, puts, dels, commits;
	bool damaged; /* the pages after the last record cannot be read */
	size_t at;    /* the cursor */
	size_t count;
	struct record {
		uint8_t key[16], value[VALUE_MAX];
		size_t key_len, len;
	} records[RECORDS_MAX]; /* not in order; len of a deleted one: SIZE_MAX */
	char order[256];	/* keys as they were put since the last reset, "a b " */
};

static struct record *find(struct counted *counted, struct sluice_slice key)
{
	for (size_t i = 0; i < counted->count; i++) {
		struct record *record = &counted->records[i];

		if (record->key_len == key.len && memcmp(record->key, key.data, key.len) == 0)
			return record;
	}
	return NULL;
}

static int counted_begin(void *impl, bool write, void **ret)
{
	(void)write;
	*ret = impl;
	return 0;
}

static int counted_commit(void *txn)
{
	((struct counted *)txn)->commits++;
	return 0;
}

static void counted_abort(void *txn)
{
	(void)txn;
}

static int counted_get(void *txn, enum store_table table, struct sluice_slice key,
		       struct sluice_slice *ret)
{
	struct counted *counted = txn;
	struct record *record = find(counted, key);

	(void)table;
	counted->gets++;
	if (record == NULL || record->len == SIZE_MAX)
		return SLUICE_E_NOT_FOUND;
	*ret = (struct sluice_slice){record->value, record->len};
	return 0;
}

static int counted_put(void *txn, enum store_table table, struct sluice_slice key, size_t len,
		       void **ret)
{
	struct counted *counted = txn;
	struct record *record = find(counted, key);

	(void)table;
	counted->puts++;
	cr_assert_leq(len, VALUE_MAX);
	if (record == NULL) {
		cr_assert_lt(counted->count, RECORDS_MAX);
		record = &counted->records[counted->count++];
		memcpy(record->key, key.data, key.len);
		record->key_len = key.len;
	}
	record->len = len;
	*ret = record->value;
	if (strlen(counted->order) + key.len + 2 < sizeof(counted->order)) {
		strncat(counted->order, key.data, key.len);
		strcat(counted->order, " ");
	}
	return 0;
}

static int counted_del(void *txn, enum store_table table, struct sluice_slice key)
{
	struct counted *counted = txn;
	struct record *record = find(counted, key);

	(void)table;
	counted->dels++;
	if (record == NULL || record->len == SIZE_MAX)
		return SLUICE_E_NOT_FOUND;
	record->len = SIZE_MAX;
	return 0;
}

static int counted_last(void *txn, enum store_table table, struct sluice_slice key,
			struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	struct record *record = find(txn, key);

	(void)table;
	if (record == NULL || record->len == SIZE_MAX)
		return SLUICE_E_NOT_FOUND;
	*ret_key = key;
	*ret_value = (struct sluice_slice){record->value, record->len};
	return 0;
}

/* A cursor visits the records in the order of insertion; one table, one scan at a time. */
static int counted_open(void *txn, enum store_table table, void **ret)
{
	struct counted *counted = txn;

	(void)table;
	counted->at = 0;
	*ret = txn;
	return 0;
}

static int counted_next(void *cursor, struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	struct counted *counted = cursor;

	while (counted->at < counted->count && counted->records[counted->at].len == SIZE_MAX)
		counted->at++;
	if (counted->at == counted->count)
		return counted->damaged ? SLUICE_E_CORRUPT : SLUICE_E_NOT_FOUND;
	*ret_key = (struct sluice_slice){counted->records[counted->at].key,
					 counted->records[counted->at].key_len};
	*ret_value = (struct sluice_slice){counted->records[counted->at].value,
					   counted->records[counted->at].len};
	counted->at++;
	return 0;
}

static int counted_seek(void *cursor, struct sluice_slice key, struct sluice_slice *ret_key,
			struct sluice_slice *ret_value)
{
	cr_assert_eq(key.len, 0);
	return counted_next(cursor, ret_key, ret_value);
}

static int counted_cursor_del(void *cursor)
{
	struct counted *counted = cursor;

	counted->dels++;
	counted->records[counted->at - 1].len = SIZE_MAX;
	return 0;
}

static void counted_close(void *impl)
{
	(void)impl;
}

static const struct raw_ops counted_ops = {
	.begin = counted_begin,
	.commit = counted_commit,
	.abort = counted_abort,
	.get = counted_get,
	.put = counted_put,
	.del = counted_del,
	.at_or_before = counted_last,
	.cursor_open = counted_open,
	.cursor_seek = counted_seek,
	.cursor_next = counted_next,
	.cursor_del = counted_cursor_del,
	.cursor_close = counted_close,
	.close = counted_close,
};

static struct store *store_over(struct counted *counted, size_t cache_max)
{
	struct store_options options = {.cell_cache_max = cache_max};
	struct store *store = NULL;

	memset(counted, 0, sizeof(*counted));
	cr_assert_eq(store_wrap(&counted_ops, counted, &options, &store), 0);
	return store;
}

static struct sluice_slice text(const char *value)
{
	return (struct sluice_slice){value, strlen(value)};
}

static struct store_txn *begin(struct store *store)
{
	struct store_txn *txn = NULL;

	cr_assert_eq(store_begin(store, &txn), 0);
	return txn;
}

static void put(struct store_txn *txn, const char *key, const char *value)
{
	cr_assert_eq(store_put(txn, STORE_HOT, text(key), text(value)), 0);
}

static void expect(struct store_txn *txn, const char *key, const char *value)
{
	struct sluice_slice found;
	int rc = store_get(txn, STORE_HOT, text(key), &found);

	if (value == NULL) {
		cr_assert_eq(rc, SLUICE_E_NOT_FOUND, "%s", key);
		return;
	}
	cr_assert_eq(rc, 0, "%s", key);
	cr_assert(found.len == strlen(value) && memcmp(found.data, value, found.len) == 0,
		  "%s is %s", key, value);
}

Test(store_cells, a_cell_is_written_once_a_commit_and_in_key_order)
{
	static struct counted counted;
	struct store *store = store_over(&counted, 0);
	struct store_txn *txn = begin(store);
	char value[16];

	for (int i = 0; i < 100; i++) {
		snprintf(value, sizeof(value), "%d", i);
		put(txn, "c", value);
		put(txn, "a", value);
		put(txn, "b", value);
	}
	cr_expect_eq(counted.puts, 0, "nothing is written before the commit");
	cr_assert_eq(store_commit(txn), 0);
	cr_expect_eq(counted.puts, 3);
	cr_expect_str_eq(counted.order, "a b c ");
	txn = begin(store);
	put(txn, "b", "x");
	cr_assert_eq(store_commit(txn), 0);
	cr_expect_eq(counted.puts, 4, "clean cells are not written again");
	cr_assert_eq(store_commit(begin(store)), 0);
	cr_expect_eq(counted.puts, 4);
	store_close(store);
}

Test(store_cells, a_cached_cell_is_not_read_again_nor_one_that_is_known_to_be_missing)
{
	static struct counted counted;
	struct store *store = store_over(&counted, 0);
	struct store_txn *txn = begin(store);

	expect(txn, "none", NULL);
	expect(txn, "none", NULL);
	cr_expect_eq(counted.gets, 1);
	put(txn, "a", "1");
	cr_assert_eq(store_commit(txn), 0);
	counted.gets = 0;
	for (int i = 0; i < 3; i++) {
		txn = begin(store);
		expect(txn, "a", "1");
		expect(txn, "none", NULL);
		store_abort(txn);
	}
	cr_expect_eq(counted.gets, 0);
	store_close(store);
}

Test(store_cells, an_abort_drops_what_was_changed)
{
	static struct counted counted;
	struct store *store = store_over(&counted, 0);
	struct store_txn *txn = begin(store);

	put(txn, "a", "1");
	put(txn, "b", "1");
	cr_assert_eq(store_commit(txn), 0);
	counted.puts = counted.dels = 0;
	txn = begin(store);
	put(txn, "a", "2");
	cr_assert_eq(store_del(txn, STORE_HOT, text("b")), 0);
	put(txn, "c", "2");
	store_abort(txn);
	cr_expect_eq(counted.puts + counted.dels, 0);
	txn = begin(store);
	expect(txn, "a", "1");
	expect(txn, "b", "1");
	expect(txn, "c", NULL);
	cr_assert_eq(store_commit(txn), 0);
	cr_expect_eq(counted.puts + counted.dels, 0);
	store_close(store);
}

Test(store_cells, a_scan_of_the_table_writes_its_changed_cells_and_no_others)
{
	static struct counted counted;
	struct store *store = store_over(&counted, 0);
	struct store_txn *txn = begin(store);
	struct sluice_slice key, value;

	put(txn, "a", "1");
	put(txn, "b", "1");
	cr_assert_eq(store_put(txn, STORE_LIVE, text("other"), text("1")), 0);
	cr_assert_eq(store_last_le(txn, STORE_HOT, text("a"), 1, &key, &value), 0);
	cr_expect_eq(counted.puts, 2, "cells of other tables stay");
	put(txn, "b", "2");
	cr_assert_eq(store_last_le(txn, STORE_HOT, text("b"), 1, &key, &value), 0);
	cr_expect_eq(counted.puts, 3);
	cr_expect_eq(memcmp(value.data, "2", 1), 0);
	cr_assert_eq(store_commit(txn), 0);
	cr_expect_eq(counted.puts, 4);
	store_close(store);
}

Test(store_cells, a_cell_made_and_deleted_in_one_batch_writes_nothing)
{
	static struct counted counted;
	struct store *store = store_over(&counted, 0);
	struct store_txn *txn = begin(store);

	put(txn, "a", "1");
	cr_assert_eq(store_del(txn, STORE_HOT, text("a")), 0);
	cr_expect_eq(store_del(txn, STORE_HOT, text("a")), SLUICE_E_NOT_FOUND);
	cr_assert_eq(store_commit(txn), 0);
	cr_expect_eq(counted.puts, 0);
	txn = begin(store);
	expect(txn, "a", NULL);
	store_abort(txn);
	store_close(store);
}

Test(store_cells, a_scans_delete_is_written_once)
{
	static struct counted counted;
	struct store *store = store_over(&counted, 0);
	struct store_txn *txn = begin(store);
	struct store_scan *scan = NULL;
	struct sluice_slice key, value;

	put(txn, "a", "1");
	put(txn, "b", "1");
	cr_assert_eq(store_commit(txn), 0);
	counted.puts = 0;
	txn = begin(store);
	cr_assert_eq(store_scan_begin(txn, STORE_HOT, text(""), &scan), 0);
	cr_assert_eq(store_scan_next(scan, &key, &value), 0);
	cr_assert_eq(store_scan_del(scan), 0);
	store_scan_end(scan);
	expect(txn, "a", NULL);
	expect(txn, "b", "1");
	cr_assert_eq(store_commit(txn), 0);
	cr_expect_eq(counted.dels, 1);
	cr_expect_eq(counted.puts, 0);
	store_close(store);
}

static int count_codes(void *user, enum store_table table, struct sluice_slice key,
		       struct sluice_slice value, int code)
{
	int *counts = user;

	if (table == STORE_HOT)
		counts[code == 0 ? 0 : 1]++;
	if (code != 0)
		cr_expect(key.len == 0 && value.len == 0);
	return 0;
}

/* A scan cannot continue after damaged pages; a scan that skipped damage would meet them without an
 * end. */
Test(store_cells, a_scan_ends_at_damaged_pages, .timeout = 10)
{
	static struct counted counted;
	struct store *store = store_over(&counted, 0);
	struct store_txn *txn = begin(store);
	int counts[2] = {0, 0};

	put(txn, "a", "1");
	put(txn, "b", "1");
	cr_assert_eq(store_commit(txn), 0);
	counted.damaged = true;
	txn = begin(store);
	cr_expect_eq(store_walk(txn, count_codes, counts), SLUICE_E_CORRUPT);
	cr_expect_eq(counts[0], 2);
	cr_expect_eq(counts[1], 1, "reported once");
	store_abort(txn);
	store_close(store);
}

Test(store_cells, the_cache_keeps_its_bound_and_used_cells)
{
	static struct counted counted;
	struct store *store = store_over(&counted, 8);
	struct store_txn *txn;
	char key[16];

	for (int i = 0; i < 40; i++) {
		snprintf(key, sizeof(key), "k%02d", i);
		txn = begin(store);
		put(txn, key, "1");
		put(txn, "used", key);
		cr_assert_eq(store_commit(txn), 0);
	}
	counted.gets = 0;
	txn = begin(store);
	expect(txn, "used", "k39");
	cr_expect_eq(counted.gets, 0, "what every batch uses stays");
	for (int i = 0; i < 40; i++) {
		snprintf(key, sizeof(key), "k%02d", i);
		expect(txn, key, "1");
	}
	cr_expect_eq(counted.gets, 40 - 7, "of the others, as many as the bound leaves");
	store_abort(txn);
	store_close(store);
}
