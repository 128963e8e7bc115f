/* SPDX-License-Identifier: Apache-2.0
 *
 * The LMDB implementation: transactions, records, scans, and the table of operations. One
 * environment, one named database per table, full sync on every commit (no NOSYNC, NOMETASYNC,
 * WRITEMAP, MAPASYNC).
 *
 * Puts in key order are the common case of logs, items and histories: for those MDB_APPEND is tried
 * first, which refuses a key that is not the largest, and then a normal put.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/store/lmdb/lmdb_impl.h"

enum { APPEND_PAUSE = 64, PAGE_HEAD_BYTES = 16, VALUE_BYTES_MAX = 64 << 20 };

static_assert(STORE_TABLE_COUNT <= 32, "touched tables are bits of an u32");

static MDB_val val(struct sluice_slice bytes)
{
	return (MDB_val){bytes.len, (void *)(uintptr_t)bytes.data};
}

static struct sluice_slice slice(MDB_val bytes)
{
	return (struct sluice_slice){bytes.mv_data, bytes.mv_size};
}

/* ---- transactions ---- */

static int lmdb_begin(void *impl, bool write, void **ret)
{
	struct lmdb *lmdb = impl;
	struct lmdb_txn *txn = NULL;
	int rc;

	if (!write) {
		rc = lmdb_reader_take(lmdb, &txn);
		*ret = txn;
		return rc;
	}
	if (lmdb->read_only)
		return store_fail(SLUICE_E_DENIED, "the store was opened to be read only");
	txn = &lmdb->writer;
	rc = mdb_txn_begin(lmdb->env, NULL, 0, &txn->txn);
	if (rc != 0)
		return lmdb_error(lmdb, rc);
	memset(txn->cursors, 0, sizeof(txn->cursors));
	txn->touched = 0;
	*ret = txn;
	return 0;
}

static void cursors_close(struct lmdb_txn *txn)
{
	for (int i = 0; i < STORE_TABLE_COUNT; i++) {
		if (txn->cursors[i] != NULL)
			mdb_cursor_close(txn->cursors[i]);
		txn->cursors[i] = NULL;
	}
}

static void lmdb_abort(void *handle)
{
	struct lmdb_txn *txn = handle;

	cursors_close(txn);
	if (txn->write)
		mdb_txn_abort(txn->txn);
	else
		lmdb_reader_return(txn);
}

/* Before the meta page is written, a failed commit has no effect. After a failed write of the meta
 * page LMDB refuses all further transactions; only that distinguishes the two. */
static int commit_error(struct lmdb *lmdb, int rc)
{
	MDB_txn *probe = NULL;

	if (mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &probe) != 0)
		return store_fail(SLUICE_E_IO, "the meta page could not be written: %s",
				  mdb_strerror(rc));
	mdb_txn_abort(probe);
	return lmdb_error(lmdb, rc);
}

static int lmdb_commit(void *handle)
{
	struct lmdb_txn *txn = handle;
	uint64_t pages[STORE_TABLE_COUNT];
	int64_t growth;
	int rc;

	growth = lmdb_pages(txn, pages);
	cursors_close(txn);
	rc = mdb_txn_commit(txn->txn);
	if (rc != 0)
		return commit_error(txn->lmdb, rc);
	lmdb_pages_keep(txn, pages, growth);
	atomic_fetch_add(&txn->lmdb->commits, 1);
	return 0;
}

static int64_t lmdb_growth(void *handle)
{
	return lmdb_pages(handle, NULL);
}

/* ---- records ---- */

/* LMDB does not check the length of a record that is stored in a page. */
static bool inside(const struct lmdb *lmdb, MDB_val bytes)
{
	uintptr_t at = (uintptr_t)bytes.mv_data - lmdb->map_base;
	MDB_envinfo info;
	size_t in_page;

	/* Pages that this transaction has changed are in memory. */
	if (lmdb->map_base == 0 || at >= lmdb->map_bytes)
		return bytes.mv_size <= VALUE_BYTES_MAX;
	in_page = at & (lmdb->page_bytes - 1);
	if (bytes.mv_size <= lmdb->page_bytes - in_page)
		return true;
	(void)mdb_env_info(lmdb->env, &info);
	return in_page == PAGE_HEAD_BYTES &&
	       bytes.mv_size <= (info.me_last_pgno + 1) * lmdb->page_bytes - at;
}

/* Returns the record that LMDB found after a check of its bounds. ret_key may be NULL. */
static int record_out(const struct lmdb *lmdb, int rc, MDB_val key, MDB_val value,
		      struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	if (rc != 0)
		return lmdb_error(lmdb, rc);
	if (key.mv_size == 0 || key.mv_size > STORE_KEY_BYTES_MAX || !inside(lmdb, key) ||
	    !inside(lmdb, value))
		return store_fail(SLUICE_E_CORRUPT,
				  "the database file: a record with a key of %zu and a value of "
				  "%zu bytes goes beyond its page",
				  key.mv_size, value.mv_size);
	if (ret_key != NULL)
		*ret_key = slice(key);
	*ret_value = slice(value);
	return 0;
}

static int table_cursor(struct lmdb_txn *txn, enum store_table table, MDB_cursor **ret)
{
	int rc = 0;

	txn->touched |= 1u << table;
	if (txn->cursors[table] == NULL)
		rc = mdb_cursor_open(txn->txn, txn->lmdb->dbis[table], &txn->cursors[table]);
	*ret = txn->cursors[table];
	return rc;
}

/* The cursor stays at its last position, which is usually near the next key. */
static int lmdb_get(void *handle, enum store_table table, struct sluice_slice key,
		    struct sluice_slice *ret)
{
	struct lmdb_txn *txn = handle;
	MDB_val k = val(key), v = {0, NULL};
	MDB_cursor *cursor;
	int rc;

	if (txn->write) {
		rc = table_cursor(txn, table, &cursor);
		if (rc == 0)
			rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_KEY);
	} else {
		rc = mdb_get(txn->txn, txn->lmdb->dbis[table], &k, &v);
	}
	return record_out(txn->lmdb, rc, val(key), v, NULL, ret);
}

static bool appends(enum store_table table)
{
	return table == STORE_LOG || table == STORE_ITEM || table == STORE_HIST ||
	       table == STORE_JOB || table == STORE_QUAR || table == STORE_CHANGE;
}

static int lmdb_put(void *handle, enum store_table table, struct sluice_slice key, size_t len,
		    void **ret)
{
	struct lmdb_txn *txn = handle;
	struct lmdb *lmdb = txn->lmdb;
	MDB_val k = val(key), v = {len, NULL};
	MDB_cursor *cursor;
	int rc = table_cursor(txn, table, &cursor);

	if (rc != 0)
		return lmdb_error(lmdb, rc);
	rc = MDB_KEYEXIST;
	if (appends(table)) {
		if (lmdb->append_pause[table] > 0) {
			lmdb->append_pause[table]--;
		} else {
			rc = mdb_cursor_put(cursor, &k, &v, MDB_RESERVE | MDB_APPEND);
			if (rc == MDB_KEYEXIST)
				lmdb->append_pause[table] = APPEND_PAUSE;
		}
	}
	if (rc == MDB_KEYEXIST) {
		k = val(key);
		v = (MDB_val){len, NULL};
		rc = mdb_cursor_put(cursor, &k, &v, MDB_RESERVE);
	}
	if (rc == 0)
		*ret = v.mv_data;
	return lmdb_error(lmdb, rc);
}

static int lmdb_del(void *handle, enum store_table table, struct sluice_slice key)
{
	struct lmdb_txn *txn = handle;
	MDB_val k = val(key), v = {0, NULL};
	MDB_cursor *cursor;
	int rc = table_cursor(txn, table, &cursor);

	if (rc == 0)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_KEY);
	if (rc == 0)
		rc = mdb_cursor_del(cursor, 0);
	return lmdb_error(txn->lmdb, rc);
}

static int seek(MDB_cursor *cursor, struct sluice_slice key, MDB_val *ret_key, MDB_val *ret_value)
{
	if (key.len == 0)
		return mdb_cursor_get(cursor, ret_key, ret_value, MDB_FIRST);
	*ret_key = val(key);
	return mdb_cursor_get(cursor, ret_key, ret_value, MDB_SET_RANGE);
}

static int lmdb_at_or_before(void *handle, enum store_table table, struct sluice_slice key,
			     struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	struct lmdb_txn *txn = handle;
	MDB_cursor *cursor;
	MDB_val k = {0, NULL}, v = {0, NULL};
	int rc = table_cursor(txn, table, &cursor);

	if (rc != 0)
		return lmdb_error(txn->lmdb, rc);
	rc = seek(cursor, key, &k, &v);
	if (rc == MDB_NOTFOUND)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
	else if (rc == 0 && (k.mv_size != key.len || memcmp(k.mv_data, key.data, key.len) != 0))
		rc = mdb_cursor_get(cursor, &k, &v, MDB_PREV);
	return record_out(txn->lmdb, rc, k, v, ret_key, ret_value);
}

/* ---- scans ---- */

struct lmdb_cursor {
	struct lmdb *lmdb;
	MDB_cursor *cursor;
};

static int lmdb_cursor_open(void *handle, enum store_table table, void **ret)
{
	struct lmdb_txn *txn = handle;
	struct lmdb_cursor *cursor = malloc(sizeof(*cursor));
	int rc;

	if (cursor == NULL)
		return SLUICE_E_NOMEM;
	cursor->lmdb = txn->lmdb;
	if (txn->lmdb->damage[table] != NULL) {
		free(cursor);
		return store_fail(SLUICE_E_CORRUPT, "table %s: %s", store_table_name(table),
				  txn->lmdb->damage[table]);
	}
	txn->touched |= 1u << table;
	rc = mdb_cursor_open(txn->txn, txn->lmdb->dbis[table], &cursor->cursor);
	if (rc != 0) {
		free(cursor);
		return lmdb_error(txn->lmdb, rc);
	}
	*ret = cursor;
	return 0;
}

static int lmdb_cursor_seek(void *handle, struct sluice_slice key, struct sluice_slice *ret_key,
			    struct sluice_slice *ret_value)
{
	struct lmdb_cursor *cursor = handle;
	MDB_val k = {0, NULL}, v = {0, NULL};
	int rc = seek(cursor->cursor, key, &k, &v);

	return record_out(cursor->lmdb, rc, k, v, ret_key, ret_value);
}

static int lmdb_cursor_next(void *handle, struct sluice_slice *ret_key,
			    struct sluice_slice *ret_value)
{
	struct lmdb_cursor *cursor = handle;
	MDB_val k = {0, NULL}, v = {0, NULL};
	int rc = mdb_cursor_get(cursor->cursor, &k, &v, MDB_NEXT);

	return record_out(cursor->lmdb, rc, k, v, ret_key, ret_value);
}

static int lmdb_cursor_del(void *handle)
{
	struct lmdb_cursor *cursor = handle;

	return lmdb_error(cursor->lmdb, mdb_cursor_del(cursor->cursor, 0));
}

static void lmdb_cursor_close(void *handle)
{
	struct lmdb_cursor *cursor = handle;

	mdb_cursor_close(cursor->cursor);
	free(cursor);
}

const struct raw_ops lmdb_ops = {
	.begin = lmdb_begin,
	.commit = lmdb_commit,
	.abort = lmdb_abort,
	.growth = lmdb_growth,
	.get = lmdb_get,
	.put = lmdb_put,
	.del = lmdb_del,
	.at_or_before = lmdb_at_or_before,
	.cursor_open = lmdb_cursor_open,
	.cursor_seek = lmdb_cursor_seek,
	.cursor_next = lmdb_cursor_next,
	.cursor_del = lmdb_cursor_del,
	.cursor_close = lmdb_cursor_close,
	.facts = lmdb_facts,
	.reserve_disk = lmdb_reserve_disk,
	.discard = lmdb_discard,
	.close = lmdb_close,
};
