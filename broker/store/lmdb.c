/* SPDX-License-Identifier: Apache-2.0
 *
 * The LMDB implementation, and the only file that knows LMDB. One environment, one named database per
 * table, full sync on every commit (no NOSYNC, NOMETASYNC, WRITEMAP, MAPASYNC). Read transactions are
 * pooled and renewed, so a snapshot costs no allocation in LMDB.
 *
 * Put in key order is the common case of logs, items and histories: those are tried with MDB_APPEND, which
 * refuses a key that is not the largest, and then put as any other.
 */
#include <errno.h>
#include <inttypes.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/store/store_impl.h"
#include "broker/util/bytes.h"
#include "broker/util/clock.h"

enum { READERS_MAX = 126, APPEND_PAUSE = 64, FACTS_AGE_MS = 500, FULL_BELOW_BYTES = 1 << 20, FREE_DBI = 0 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const uint64_t map_bytes_default = 1ull << 30; /* TSan's shadow cannot take more */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
static const uint64_t map_bytes_default = 1ull << 30;
#else
static const uint64_t map_bytes_default = 64ull << 30;
#endif
#else
static const uint64_t map_bytes_default = 64ull << 30;
#endif

static const struct sluice_slice schema_key = {"store_schema", 12};

struct lmdb;
struct lmdb_txn {
	struct lmdb *lmdb;
	MDB_txn *txn;
	bool write;
	MDB_cursor *cursors[STORE_TABLE_COUNT]; /* write: one for puts and look-ups */
	_Atomic uint64_t since_ms;		/* read: 0 while in the pool */
	_Atomic uint64_t snapshot;  /* read: the commit that it sees; UINT64_MAX while in the pool */
	struct lmdb_txn *pool_next; /* free ones */
	struct lmdb_txn *all_next;
};

struct lmdb {
	MDB_env *env;
	MDB_dbi dbis[STORE_TABLE_COUNT];
	uint8_t append_pause[STORE_TABLE_COUNT];
	char *dir;
	int lock_fd;
	pthread_mutex_t lock; /* pool */
	struct lmdb_txn *pool, *all_readers;
	struct lmdb_txn writer;
	uint64_t map_bytes;
	uint64_t reserved_end; /* the file has disk up to here */
	size_t page_bytes;
	_Atomic uint64_t commits;
	_Atomic uint64_t used_bytes, facts_ms;
	bool read_only;
};

static MDB_val val(struct sluice_slice bytes)
{
	return (MDB_val){bytes.len, (void *)(uintptr_t)bytes.data};
}

static struct sluice_slice slice(MDB_val bytes)
{
	return (struct sluice_slice){bytes.mv_data, bytes.mv_size};
}

static int map_error(const struct lmdb *lmdb, int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return SLUICE_E_NOT_FOUND;
	case MDB_MAP_FULL:
	case MDB_TXN_FULL:
		return store_fail(SLUICE_E_NO_SPACE, "%s", mdb_strerror(rc));
	case ENOSPC:
	case EDQUOT:
		return store_fail(SLUICE_E_NO_SPACE, "%s", strerror(rc));
	case EIO:
		/* LMDB answers a short write with EIO, which is what a full disk looks like. */
		if (dir_disk_free(lmdb->dir) < FULL_BELOW_BYTES)
			return store_fail(SLUICE_E_NO_SPACE, "the disk is full");
		return store_fail(SLUICE_E_IO, "%s", strerror(rc));
	case ENOMEM:
		return SLUICE_E_NOMEM;
	case MDB_READERS_FULL:
		return store_fail(SLUICE_E_BUSY, "%d read transactions are open", READERS_MAX);
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
		return store_fail(SLUICE_E_CORRUPT, "the database file: %s", mdb_strerror(rc));
	case MDB_BAD_VALSIZE:
		return store_fail(SLUICE_E_LIMIT, "a key is empty or longer than 511 bytes");
	default:
		return store_fail(SLUICE_E_IO, "%s", mdb_strerror(rc));
	}
}

/* ---- transactions ---- */

static void reader_return(struct lmdb *lmdb, struct lmdb_txn *txn)
{
	atomic_store(&txn->since_ms, 0);
	atomic_store(&txn->snapshot, UINT64_MAX);
	(void)pthread_mutex_lock(&lmdb->lock);
	txn->pool_next = lmdb->pool;
	lmdb->pool = txn;
	(void)pthread_mutex_unlock(&lmdb->lock);
}

static int reader_take(struct lmdb *lmdb, struct lmdb_txn **ret)
{
	struct lmdb_txn *txn;
	int rc;

	(void)pthread_mutex_lock(&lmdb->lock);
	txn = lmdb->pool;
	if (txn != NULL)
		lmdb->pool = txn->pool_next;
	(void)pthread_mutex_unlock(&lmdb->lock);
	if (txn != NULL) {
		rc = mdb_txn_renew(txn->txn);
		if (rc != 0) {
			reader_return(lmdb, txn);
			return map_error(lmdb, rc);
		}
	} else {
		txn = calloc(1, sizeof(*txn));
		if (txn == NULL)
			return SLUICE_E_NOMEM;
		txn->lmdb = lmdb;
		rc = mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &txn->txn);
		if (rc != 0) {
			free(txn);
			return map_error(lmdb, rc);
		}
		atomic_init(&txn->snapshot, UINT64_MAX);
		(void)pthread_mutex_lock(&lmdb->lock);
		txn->all_next = lmdb->all_readers;
		lmdb->all_readers = txn;
		(void)pthread_mutex_unlock(&lmdb->lock);
	}
	atomic_store(&txn->snapshot, mdb_txn_id(txn->txn));
	atomic_store(&txn->since_ms, clock_mono_ns() / 1000000 + 1);
	*ret = txn;
	return 0;
}

static int lmdb_begin(void *impl, bool write, void **ret)
{
	struct lmdb *lmdb = impl;
	struct lmdb_txn *txn = NULL;
	int rc;

	if (!write) {
		rc = reader_take(lmdb, &txn);
		*ret = txn;
		return rc;
	}
	if (lmdb->read_only)
		return store_fail(SLUICE_E_DENIED, "the store was opened to be read only");
	txn = &lmdb->writer;
	rc = mdb_txn_begin(lmdb->env, NULL, 0, &txn->txn);
	if (rc != 0)
		return map_error(lmdb, rc);
	memset(txn->cursors, 0, sizeof(txn->cursors));
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
	struct lmdb *lmdb = txn->lmdb;

	if (txn->write) {
		cursors_close(txn);
		mdb_txn_abort(txn->txn);
		return;
	}
	mdb_txn_reset(txn->txn);
	reader_return(lmdb, txn);
}

/* Until the meta page is touched, a failed commit is as if it had not been tried. When writing that page
 * failed, LMDB refuses all further transactions, and only that tells the two apart. */
static int commit_error(struct lmdb *lmdb, int rc)
{
	MDB_txn *probe = NULL;

	if (mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &probe) != 0)
		return store_fail(SLUICE_E_IO, "the meta page could not be written: %s", mdb_strerror(rc));
	mdb_txn_abort(probe);
	return map_error(lmdb, rc);
}

static int lmdb_commit(void *handle)
{
	struct lmdb_txn *txn = handle;
	int rc;

	cursors_close(txn);
	rc = mdb_txn_commit(txn->txn);
	if (rc != 0)
		return commit_error(txn->lmdb, rc);
	atomic_fetch_add(&txn->lmdb->commits, 1);
	return 0;
}

/* ---- records ---- */

static int write_cursor(struct lmdb_txn *txn, enum store_table table, MDB_cursor **ret)
{
	int rc = 0;

	if (txn->cursors[table] == NULL)
		rc = mdb_cursor_open(txn->txn, txn->lmdb->dbis[table], &txn->cursors[table]);
	*ret = txn->cursors[table];
	return rc;
}

/* The writer's cursor stays where the last call left it, which is near the next key more often than not. */
static int lmdb_get(void *handle, enum store_table table, struct sluice_slice key, struct sluice_slice *ret)
{
	struct lmdb_txn *txn = handle;
	MDB_val k = val(key), v;
	MDB_cursor *cursor;
	int rc;

	if (txn->write) {
		rc = write_cursor(txn, table, &cursor);
		if (rc == 0)
			rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_KEY);
	} else {
		rc = mdb_get(txn->txn, txn->lmdb->dbis[table], &k, &v);
	}
	if (rc == 0)
		*ret = slice(v);
	return map_error(txn->lmdb, rc);
}

static bool appends(enum store_table table)
{
	return table == STORE_LOG || table == STORE_ITEM || table == STORE_HIST || table == STORE_JOB ||
	       table == STORE_QUAR || table == STORE_CHANGE;
}

static int lmdb_put(void *handle, enum store_table table, struct sluice_slice key, size_t len, void **ret)
{
	struct lmdb_txn *txn = handle;
	struct lmdb *lmdb = txn->lmdb;
	MDB_val k = val(key), v = {len, NULL};
	MDB_cursor *cursor;
	int rc = write_cursor(txn, table, &cursor);

	if (rc != 0)
		return map_error(lmdb, rc);
	rc = MDB_KEYEXIST;
	if (appends(table)) {
		if (lmdb->append_pause[table] > 0)
			lmdb->append_pause[table]--;
		else if ((rc = mdb_cursor_put(cursor, &k, &v, MDB_RESERVE | MDB_APPEND)) == MDB_KEYEXIST)
			lmdb->append_pause[table] = APPEND_PAUSE;
	}
	if (rc == MDB_KEYEXIST) {
		k = val(key);
		v = (MDB_val){len, NULL};
		rc = mdb_cursor_put(cursor, &k, &v, MDB_RESERVE);
	}
	if (rc == 0)
		*ret = v.mv_data;
	return map_error(lmdb, rc);
}

static int lmdb_del(void *handle, enum store_table table, struct sluice_slice key)
{
	struct lmdb_txn *txn = handle;
	MDB_val k = val(key), v;
	MDB_cursor *cursor;
	int rc = write_cursor(txn, table, &cursor);

	if (rc == 0)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_KEY);
	if (rc == 0)
		rc = mdb_cursor_del(cursor, 0);
	return map_error(txn->lmdb, rc);
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
	MDB_val k, v;
	int rc = txn->write ? write_cursor(txn, table, &cursor)
			    : mdb_cursor_open(txn->txn, txn->lmdb->dbis[table], &cursor);

	if (rc != 0)
		return map_error(txn->lmdb, rc);
	rc = seek(cursor, key, &k, &v);
	if (rc == MDB_NOTFOUND)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
	else if (rc == 0 && (k.mv_size != key.len || memcmp(k.mv_data, key.data, key.len) != 0))
		rc = mdb_cursor_get(cursor, &k, &v, MDB_PREV);
	if (!txn->write)
		mdb_cursor_close(cursor);
	if (rc == 0) {
		*ret_key = slice(k);
		*ret_value = slice(v);
	}
	return map_error(txn->lmdb, rc);
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
	rc = mdb_cursor_open(txn->txn, txn->lmdb->dbis[table], &cursor->cursor);
	if (rc != 0) {
		free(cursor);
		return map_error(txn->lmdb, rc);
	}
	*ret = cursor;
	return 0;
}

static int lmdb_cursor_seek(void *handle, struct sluice_slice key, struct sluice_slice *ret_key,
			    struct sluice_slice *ret_value)
{
	struct lmdb_cursor *cursor = handle;
	MDB_val k, v;
	int rc = seek(cursor->cursor, key, &k, &v);

	if (rc == 0) {
		*ret_key = slice(k);
		*ret_value = slice(v);
	}
	return map_error(cursor->lmdb, rc);
}

static int lmdb_cursor_next(void *handle, struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	struct lmdb_cursor *cursor = handle;
	MDB_val k, v;
	int rc = mdb_cursor_get(cursor->cursor, &k, &v, MDB_NEXT);

	if (rc == 0) {
		*ret_key = slice(k);
		*ret_value = slice(v);
	}
	return map_error(cursor->lmdb, rc);
}

static int lmdb_cursor_del(void *handle)
{
	struct lmdb_cursor *cursor = handle;

	return map_error(cursor->lmdb, mdb_cursor_del(cursor->cursor, 0));
}

static void lmdb_cursor_close(void *handle)
{
	struct lmdb_cursor *cursor = handle;

	mdb_cursor_close(cursor->cursor);
	free(cursor);
}

/* ---- facts ---- */

/* The oldest commit that a snapshot sees; pages freed since cannot be used again yet. Counts late what
 * begins just now, which is no harm. */
static uint64_t oldest_snapshot(struct lmdb *lmdb)
{
	uint64_t oldest = UINT64_MAX;

	(void)pthread_mutex_lock(&lmdb->lock);
	for (const struct lmdb_txn *txn = lmdb->all_readers; txn != NULL; txn = txn->all_next) {
		uint64_t snapshot = atomic_load(&txn->snapshot);

		if (snapshot < oldest)
			oldest = snapshot;
	}
	(void)pthread_mutex_unlock(&lmdb->lock);
	return oldest;
}

/* Pages in use = pages ever used - free ones that no snapshot needs. The free list is itself a table: by
 * commit, lists that begin with their length. */
static uint64_t used_bytes(struct lmdb *lmdb)
{
	uint64_t free_pages = 0, pages, oldest = oldest_snapshot(lmdb);
	struct lmdb_txn *txn;
	MDB_cursor *cursor;
	MDB_envinfo info;
	MDB_val k, v;

	(void)mdb_env_info(lmdb->env, &info);
	pages = info.me_last_pgno + 1;
	if (reader_take(lmdb, &txn) != 0)
		return pages * lmdb->page_bytes;
	if (mdb_cursor_open(txn->txn, FREE_DBI, &cursor) == 0) {
		while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
			size_t commit, count;

			memcpy(&commit, k.mv_data, sizeof(commit));
			memcpy(&count, v.mv_data, sizeof(count));
			if (commit >= oldest)
				break;
			free_pages += count;
		}
		mdb_cursor_close(cursor);
	}
	lmdb_abort(txn);
	return (pages > free_pages ? pages - free_pages : 0) * lmdb->page_bytes;
}

static void lmdb_facts(void *impl, struct store_facts *ret)
{
	struct lmdb *lmdb = impl;
	uint64_t now = clock_mono_ns() / 1000000 + 1, oldest = 0;
	struct stat st;
	int fd = -1;

	if (atomic_load(&lmdb->facts_ms) + FACTS_AGE_MS < now) {
		atomic_store(&lmdb->used_bytes, used_bytes(lmdb));
		atomic_store(&lmdb->facts_ms, now);
	}
	ret->used_bytes = atomic_load(&lmdb->used_bytes);
	ret->map_bytes = lmdb->map_bytes;
	ret->disk_free_bytes = dir_disk_free(lmdb->dir);
	ret->file_bytes =
		mdb_env_get_fd(lmdb->env, &fd) == 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
	ret->commits = atomic_load(&lmdb->commits);
	(void)pthread_mutex_lock(&lmdb->lock);
	for (const struct lmdb_txn *txn = lmdb->all_readers; txn != NULL; txn = txn->all_next) {
		uint64_t since = atomic_load(&txn->since_ms);

		if (since != 0 && since < now && now - since > oldest)
			oldest = now - since;
	}
	(void)pthread_mutex_unlock(&lmdb->lock);
	ret->oldest_reader_ms = oldest;
}

static int lmdb_reserve_disk(void *impl, uint64_t bytes)
{
	struct lmdb *lmdb = impl;
	struct stat st;
	int fd = -1;
	uint64_t end;

	if (lmdb->read_only)
		return store_fail(SLUICE_E_DENIED, "the store was opened to be read only");
	if (mdb_env_get_fd(lmdb->env, &fd) != 0 || fstat(fd, &st) != 0)
		return store_fail(SLUICE_E_IO, "%s", strerror(errno));
	/* Free pages inside the file count, so this may ask for nothing; used_bytes is not free, so first
	 * the cheap question. */
	end = (uint64_t)st.st_size + bytes;
	if (end > lmdb->reserved_end)
		end = used_bytes(lmdb) + bytes;
	if (end < (uint64_t)st.st_size)
		end = (uint64_t)st.st_size;
	return dir_reserve(fd, end, &lmdb->reserved_end);
}

/* ---- life ---- */

static void lmdb_close(void *impl)
{
	struct lmdb *lmdb = impl;

	while (lmdb->all_readers != NULL) {
		struct lmdb_txn *txn = lmdb->all_readers;

		lmdb->all_readers = txn->all_next;
		mdb_txn_abort(txn->txn);
		free(txn);
	}
	if (lmdb->env != NULL)
		mdb_env_close(lmdb->env);
	if (lmdb->lock_fd >= 0)
		(void)close(lmdb->lock_fd);
	(void)pthread_mutex_destroy(&lmdb->lock);
	free(lmdb->dir);
	free(lmdb);
}

static const struct raw_ops lmdb_ops = {
	.begin = lmdb_begin,
	.commit = lmdb_commit,
	.abort = lmdb_abort,
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
	.close = lmdb_close,
};

/* For a store's start: a failure that no one will see again through store_last_error. */
static int open_failed(const struct lmdb *lmdb, int rc, const char **ret_why)
{
	rc = map_error(lmdb, rc);
	*ret_why = store_last_error();
	return rc;
}

static int env_open(struct lmdb *lmdb, const char **ret_why)
{
	unsigned flags = MDB_NOTLS | (lmdb->read_only ? MDB_RDONLY : 0u);
	MDB_stat stat;
	int dead, fd, rc = mdb_env_create(&lmdb->env);

	if (rc == 0)
		rc = mdb_env_set_mapsize(lmdb->env, lmdb->map_bytes);
	if (rc == 0)
		rc = mdb_env_set_maxdbs(lmdb->env, STORE_TABLE_COUNT);
	if (rc == 0)
		rc = mdb_env_set_maxreaders(lmdb->env, READERS_MAX);
	if (rc == 0)
		rc = mdb_env_open(lmdb->env, lmdb->dir, flags, 0600);
	if (rc == 0)
		rc = mdb_env_get_fd(lmdb->env, &fd);
	/* LMDB opens its file twice without close-on-exec: a child must not inherit a writable store. */
	if (rc == 0)
		dir_close_on_exec(fd);
	if (rc == 0)
		rc = mdb_reader_check(lmdb->env, &dead);
	if (rc == 0)
		rc = mdb_env_stat(lmdb->env, &stat);
	if (rc != 0)
		return open_failed(lmdb, rc, ret_why);
	lmdb->page_bytes = stat.ms_psize;
	return 0;
}

/* Opens tables first to last (not included) that exist, without a write. NOT_FOUND when one does not. */
static int tables_open(struct lmdb *lmdb, int first, int last, const char **ret_why)
{
	MDB_txn *txn = NULL;
	int rc = mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &txn);

	for (int i = first; rc == 0 && i < last; i++)
		rc = mdb_dbi_open(txn, store_table_name((enum store_table)i), 0, &lmdb->dbis[i]);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else if (txn != NULL)
		mdb_txn_abort(txn);
	if (rc == MDB_NOTFOUND) {
		*ret_why = "there is no store in the directory, or a table of it is missing";
		return SLUICE_E_NOT_FOUND;
	}
	return rc == 0 ? 0 : open_failed(lmdb, rc, ret_why);
}

/* The schema's version is written by the commit that makes the tables, so one without the other is damage. */
static int schema_check(struct store *store, const char **ret_why)
{
	struct sluice_slice value;
	struct store_txn *txn = NULL;
	int rc = store_begin_read(store, &txn);

	if (rc == 0)
		rc = store_get(txn, STORE_META, schema_key, &value);
	if (rc == SLUICE_E_NOT_FOUND)
		rc = store_fail(SLUICE_E_CORRUPT,
				"the record of the schema's version is missing from table meta");
	else if (rc == 0 && (value.len != 4 || get_be32(value.data) != STORE_SCHEMA_VERSION))
		rc = store_fail(SLUICE_E_SCHEMA,
				"the store has schema version %" PRIu32
				" and this program knows %d; see broker/store/README.md",
				value.len == 4 ? get_be32(value.data) : 0, STORE_SCHEMA_VERSION);
	store_abort(txn);
	if (rc != 0)
		*ret_why = store_last_error();
	return rc;
}

/* Makes what tables are missing; all of them and the schema's version when the store is fresh. One commit,
 * or none. */
static int tables_create(struct lmdb *lmdb, struct store *store, bool fresh, const char **ret_why)
{
	struct store_txn *txn = NULL;
	uint8_t version[4];
	int rc = store_begin(store, &txn);

	if (rc != 0) {
		*ret_why = store_last_error();
		return rc;
	}
	for (int i = 0; rc == 0 && i < STORE_TABLE_COUNT; i++)
		rc = map_error(lmdb, mdb_dbi_open(lmdb->writer.txn, store_table_name((enum store_table)i),
						  MDB_CREATE, &lmdb->dbis[i]));
	put_be32(version, STORE_SCHEMA_VERSION);
	if (rc == 0 && fresh)
		rc = store_put(txn, STORE_META, schema_key, (struct sluice_slice){version, sizeof(version)});
	if (rc == 0)
		rc = store_commit(txn);
	else
		store_abort(txn);
	if (rc != 0)
		*ret_why = store_last_error();
	return rc;
}

/* Nothing is written before the schema's version is known to be ours. */
static int contents_open(struct lmdb *lmdb, struct store *store, bool create, const char **ret_why)
{
	int rc = tables_open(lmdb, STORE_META, STORE_META + 1, ret_why);

	if (rc == SLUICE_E_NOT_FOUND && create && !lmdb->read_only)
		return tables_create(lmdb, store, true, ret_why);
	if (rc == 0)
		rc = schema_check(store, ret_why);
	if (rc != 0)
		return rc;
	if (lmdb->read_only)
		return tables_open(lmdb, 0, STORE_TABLE_COUNT, ret_why);
	return tables_create(lmdb, store, false, ret_why);
}

int store_open_lmdb(const char *dir, const struct store_options *options, struct store **ret,
		    const char **ret_why)
{
	struct lmdb *lmdb = calloc(1, sizeof(*lmdb));
	struct store *store = NULL;
	const char *why = "";
	bool present = false;
	int rc;

	if (ret_why == NULL)
		ret_why = &why;
	*ret_why = "out of memory";
	if (lmdb == NULL)
		return SLUICE_E_NOMEM;
	lmdb->lock_fd = -1;
	lmdb->map_bytes = options->map_bytes != 0 ? options->map_bytes : map_bytes_default;
	lmdb->read_only = options->read_only;
	lmdb->writer.lmdb = lmdb;
	lmdb->writer.write = true;
	lmdb->dir = strdup(dir);
	(void)pthread_mutex_init(&lmdb->lock, NULL);
	rc = lmdb->dir == NULL ? SLUICE_E_NOMEM
			       : dir_check(dir, options->create && !options->read_only, &present, ret_why);
	if (rc == 0 && !present && (!options->create || options->read_only)) {
		*ret_why = "there is no store in the directory";
		rc = SLUICE_E_NOT_FOUND;
	}
	if (rc == 0)
		rc = dir_lock(dir, options->read_only, &lmdb->lock_fd, ret_why);
	if (rc == 0)
		rc = env_open(lmdb, ret_why);
	if (rc != 0) {
		lmdb_close(lmdb);
		return rc;
	}
	rc = store_wrap(&lmdb_ops, lmdb, options, &store);
	if (rc == 0)
		rc = contents_open(lmdb, store, options->create, ret_why);
	if (rc != 0) {
		store_close(store);
		return rc;
	}
	*ret_why = "";
	*ret = store;
	return 0;
}
