/* SPDX-License-Identifier: Apache-2.0
 *
 * The mem implementation, for the simulator and unit tests: one red-black tree per table, an undo
 * list for abort. Nothing is durable and nothing is shared between threads: a read transaction sees
 * the committed state because its user begins it between write transactions.
 */
#define __unused __attribute__((__unused__)) /* a BSD macro that tree.h expects */
#include <bsd/sys/tree.h>
#include <stdlib.h>
#include <string.h>

#include "broker/store/store_impl.h"

struct record {
	RB_ENTRY(record) entry;
	size_t key_len, len;
	uint8_t *value;
	uint8_t key[];
};

static int record_compare(const struct record *a, const struct record *b)
{
	size_t len = a->key_len < b->key_len ? a->key_len : b->key_len;
	int order = memcmp(a->key, b->key, len);

	return order != 0 ? order : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

RB_HEAD(record_tree, record);
RB_GENERATE_STATIC(record_tree, record, entry, record_compare)

/* State of a record before the open transaction changed it. */
struct before {
	struct before *next;
	enum store_table table;
	struct record *old; /* NULL: it did not exist */
	size_t key_len;
	uint8_t key[];
};

struct mem {
	struct record_tree tables[STORE_TABLE_COUNT];
	struct before *undo;
	uint64_t bytes, committed_bytes, commits;
	uint64_t map_bytes; /* reported in facts only; not a bound */
};

struct mem_txn {
	struct mem *mem;
	bool write;
};

static struct record *record_new(struct sluice_slice key, size_t len)
{
	struct record *record = malloc(sizeof(*record) + key.len);

	if (record == NULL)
		return NULL;
	record->value = malloc(len + 1);
	if (record->value == NULL) {
		free(record);
		return NULL;
	}
	record->key_len = key.len;
	record->len = len;
	memcpy(record->key, key.data, key.len);
	return record;
}

static void record_free(struct record *record)
{
	if (record == NULL)
		return;
	free(record->value);
	free(record);
}

/* A record to search with; NULL: no memory. */
static struct record *record_find(struct mem *mem, enum store_table table, struct sluice_slice key,
				  bool exact)
{
	union {
		struct record record;
		uint8_t room[sizeof(struct record) + STORE_KEY_BYTES_MAX];
	} wanted;

	wanted.record.key_len = key.len;
	if (key.len > 0)
		memcpy(wanted.room + offsetof(struct record, key), key.data, key.len);
	return exact ? RB_FIND(record_tree, &mem->tables[table], &wanted.record)
		     : RB_NFIND(record_tree, &mem->tables[table], &wanted.record);
}

static int before_note(struct mem *mem, enum store_table table, struct sluice_slice key,
		       struct record *old)
{
	struct before *before = malloc(sizeof(*before) + key.len);

	if (before == NULL)
		return SLUICE_E_NOMEM;
	before->next = mem->undo;
	before->table = table;
	before->old = old;
	before->key_len = key.len;
	memcpy(before->key, key.data, key.len);
	mem->undo = before;
	return 0;
}

static int mem_begin(void *impl, bool write, void **ret)
{
	struct mem *mem = impl;
	struct mem_txn *txn;

	txn = malloc(sizeof(*txn));
	if (txn == NULL)
		return SLUICE_E_NOMEM;
	*txn = (struct mem_txn){mem, write};
	*ret = txn;
	return 0;
}

static int mem_commit(void *handle)
{
	struct mem_txn *txn = handle;
	struct mem *mem = txn->mem;

	while (mem->undo != NULL) {
		struct before *before = mem->undo;

		mem->undo = before->next;
		record_free(before->old);
		free(before);
	}
	mem->commits++;
	mem->committed_bytes = mem->bytes;
	free(txn);
	return 0;
}

static void mem_abort(void *handle)
{
	struct mem_txn *txn = handle;
	struct mem *mem = txn->mem;

	while (txn->write && mem->undo != NULL) {
		struct before *before = mem->undo;
		struct record *now =
			record_find(mem, before->table,
				    (struct sluice_slice){before->key, before->key_len}, true);

		if (now != NULL) {
			(void)RB_REMOVE(record_tree, &mem->tables[before->table], now);
			mem->bytes -= now->len;
			record_free(now);
		}
		if (before->old != NULL) {
			(void)RB_INSERT(record_tree, &mem->tables[before->table], before->old);
			mem->bytes += before->old->len;
		}
		mem->undo = before->next;
		free(before);
	}
	free(txn);
}

static int64_t mem_growth(void *handle)
{
	const struct mem_txn *txn = handle;

	return (int64_t)txn->mem->bytes - (int64_t)txn->mem->committed_bytes;
}

static int mem_get(void *handle, enum store_table table, struct sluice_slice key,
		   struct sluice_slice *ret)
{
	struct mem_txn *txn = handle;
	struct record *record = record_find(txn->mem, table, key, true);

	if (record == NULL)
		return SLUICE_E_NOT_FOUND;
	*ret = (struct sluice_slice){record->value, record->len};
	return 0;
}

static int mem_put(void *handle, enum store_table table, struct sluice_slice key, size_t len,
		   void **ret)
{
	struct mem_txn *txn = handle;
	struct mem *mem = txn->mem;
	struct record *old, *record;
	int rc;

	record = record_new(key, len);
	if (record == NULL)
		return SLUICE_E_NOMEM;
	old = record_find(mem, table, key, true);
	rc = before_note(mem, table, key, old);
	if (rc != 0) {
		record_free(record);
		return rc;
	}
	if (old != NULL) {
		(void)RB_REMOVE(record_tree, &mem->tables[table], old);
		mem->bytes -= old->len;
	}
	(void)RB_INSERT(record_tree, &mem->tables[table], record);
	mem->bytes += len;
	*ret = record->value;
	return 0;
}

static int mem_del(void *handle, enum store_table table, struct sluice_slice key)
{
	struct mem_txn *txn = handle;
	struct record *old = record_find(txn->mem, table, key, true);
	int rc;

	if (old == NULL)
		return SLUICE_E_NOT_FOUND;
	rc = before_note(txn->mem, table, key, old);
	if (rc != 0)
		return rc;
	(void)RB_REMOVE(record_tree, &txn->mem->tables[table], old);
	txn->mem->bytes -= old->len;
	return 0;
}

static int give(struct record *record, struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	if (record == NULL)
		return SLUICE_E_NOT_FOUND;
	*ret_key = (struct sluice_slice){record->key, record->key_len};
	*ret_value = (struct sluice_slice){record->value, record->len};
	return 0;
}

static int mem_at_or_before(void *handle, enum store_table table, struct sluice_slice key,
			    struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	struct mem *mem = ((struct mem_txn *)handle)->mem;
	struct record *record = record_find(mem, table, key, false);

	if (record == NULL)
		record = RB_MAX(record_tree, &mem->tables[table]);
	else if (record->key_len != key.len || memcmp(record->key, key.data, key.len) != 0)
		record = RB_PREV(record_tree, &mem->tables[table], record);
	return give(record, ret_key, ret_value);
}

/* ---- scans: the position is a key, so that writes and deletes elsewhere do not matter ---- */

struct mem_cursor {
	struct mem_txn *txn;
	enum store_table table;
	size_t len;
	uint8_t key[STORE_KEY_BYTES_MAX];
};

static int mem_cursor_open(void *handle, enum store_table table, void **ret)
{
	struct mem_cursor *cursor = calloc(1, sizeof(*cursor));

	if (cursor == NULL)
		return SLUICE_E_NOMEM;
	cursor->txn = handle;
	cursor->table = table;
	*ret = cursor;
	return 0;
}

static int cursor_at(struct mem_cursor *cursor, struct record *record, struct sluice_slice *ret_key,
		     struct sluice_slice *ret_value)
{
	if (record == NULL)
		return SLUICE_E_NOT_FOUND;
	cursor->len = record->key_len;
	memcpy(cursor->key, record->key, record->key_len);
	return give(record, ret_key, ret_value);
}

static int mem_cursor_seek(void *handle, struct sluice_slice key, struct sluice_slice *ret_key,
			   struct sluice_slice *ret_value)
{
	struct mem_cursor *cursor = handle;

	return cursor_at(cursor, record_find(cursor->txn->mem, cursor->table, key, false), ret_key,
			 ret_value);
}

static int mem_cursor_next(void *handle, struct sluice_slice *ret_key,
			   struct sluice_slice *ret_value)
{
	struct mem_cursor *cursor = handle;
	struct record *record = record_find(cursor->txn->mem, cursor->table,
					    (struct sluice_slice){cursor->key, cursor->len}, false);

	if (record != NULL && record->key_len == cursor->len &&
	    memcmp(record->key, cursor->key, cursor->len) == 0)
		record = RB_NEXT(record_tree, &cursor->txn->mem->tables[cursor->table], record);
	return cursor_at(cursor, record, ret_key, ret_value);
}

static int mem_cursor_del(void *handle)
{
	struct mem_cursor *cursor = handle;

	return mem_del(cursor->txn, cursor->table, (struct sluice_slice){cursor->key, cursor->len});
}

static void mem_cursor_close(void *handle)
{
	free(handle);
}

static void mem_facts(void *impl, struct store_facts *ret)
{
	const struct mem *mem = impl;

	*ret = (struct store_facts){.used_bytes = mem->bytes,
				    .map_bytes = mem->map_bytes,
				    .file_bytes = 0,
				    .disk_free_bytes = UINT64_MAX,
				    .ahead_bytes = UINT64_MAX,
				    .commits = mem->commits};
}

static int mem_reserve_disk(void *impl, uint64_t bytes, struct store_room *ret)
{
	const struct mem *mem = impl;

	(void)bytes;
	*ret = (struct store_room){.used_bytes = mem->bytes, .ahead_bytes = UINT64_MAX};
	return 0;
}

static void mem_close(void *impl)
{
	struct mem *mem = impl;

	for (int i = 0; i < STORE_TABLE_COUNT; i++) {
		struct record *record, *next;

		RB_FOREACH_SAFE(record, record_tree, &mem->tables[i], next) {
			(void)RB_REMOVE(record_tree, &mem->tables[i], record);
			record_free(record);
		}
	}
	free(mem);
}

static const struct raw_ops mem_ops = {
	.begin = mem_begin,
	.commit = mem_commit,
	.abort = mem_abort,
	.growth = mem_growth,
	.get = mem_get,
	.put = mem_put,
	.del = mem_del,
	.at_or_before = mem_at_or_before,
	.cursor_open = mem_cursor_open,
	.cursor_seek = mem_cursor_seek,
	.cursor_next = mem_cursor_next,
	.cursor_del = mem_cursor_del,
	.cursor_close = mem_cursor_close,
	.facts = mem_facts,
	.reserve_disk = mem_reserve_disk,
	.close = mem_close,
};

int store_open_mem(const struct store_options *options, struct store **ret)
{
	struct mem *mem = calloc(1, sizeof(*mem));

	if (mem == NULL)
		return SLUICE_E_NOMEM;
	mem->map_bytes = options->map_bytes != 0 ? options->map_bytes : UINT64_MAX / 256;
	for (int i = 0; i < STORE_TABLE_COUNT; i++)
		RB_INIT(&mem->tables[i]);
	return store_wrap(&mem_ops, mem, options, ret);
}
