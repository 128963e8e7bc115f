/* SPDX-License-Identifier: Apache-2.0
 *
 * The LMDB implementation, and the only file that knows LMDB. One environment, one named database per table, full sync on every commit
 * (no NOSYNC, NOMETASYNC, WRITEMAP, MAPASYNC). Read transactions are pooled and renewed, so a snapshot costs no allocation in LMDB.
 *
 * Put in key order is the common case of logs, items and histories: those are tried with MDB_APPEND, which refuses a key that is not
 * the largest, and then put as any other.
 */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "broker/store/store_impl.h"
#include "broker/util/bytes.h"
#include "broker/util/clock.h"

enum { READERS_MAX = 126, APPEND_PAUSE = 64, FACTS_AGE_MS = 500 };

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

struct lmdb;
struct lmdb_txn {
	struct lmdb *lmdb;
	MDB_txn *txn;
	bool write;
	MDB_cursor *cursors[STORE_TABLE_COUNT]; /* write: one for puts and look-ups */
	_Atomic uint64_t since_ms;		 /* read: 0 while in the pool */
	struct lmdb_txn *pool_next;		 /* free ones */
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

static uint64_t disk_free(const struct lmdb *lmdb)
{
	struct statvfs fs;

	if (statvfs(lmdb->dir, &fs) != 0)
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize;
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
		if (disk_free(lmdb) < 1u << 20)
			return store_fail(SLUICE_E_NO_SPACE, "the disk is full");
		return store_fail(SLUICE_E_IO, "%s", strerror(rc));
	case ENOMEM:
		return SLUICE_E_NOMEM;
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

static int reader_take(struct lmdb *lmdb, struct lmdb_txn **ret)
{
	struct lmdb_txn *txn;
	int rc = 0;

	(void)pthread_mutex_lock(&lmdb->lock);
	txn = lmdb->pool;
	if (txn != NULL)
		lmdb->pool = txn->pool_next;
	(void)pthread_mutex_unlock(&lmdb->lock);
	if (txn != NULL) {
		rc = mdb_txn_renew(txn->txn);
		if (rc == 0) {
			atomic_store(&txn->since_ms, clock_mono_ns() / 1000000 + 1);
			*ret = txn;
			return 0;
		}
		(void)pthread_mutex_lock(&lmdb->lock);
		txn->pool_next = lmdb->pool;
		lmdb->pool = txn;
		(void)pthread_mutex_unlock(&lmdb->lock);
		return map_error(lmdb, rc);
	}
	txn = calloc(1, sizeof(*txn));
	if (txn == NULL)
		return SLUICE_E_NOMEM;
	txn->lmdb = lmdb;
	rc = mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &txn->txn);
	if (rc != 0) {
		free(txn);
		return map_error(lmdb, rc);
	}
	atomic_store(&txn->since_ms, clock_mono_ns() / 1000000 + 1);
	(void)pthread_mutex_lock(&lmdb->lock);
	txn->all_next = lmdb->all_readers;
	lmdb->all_readers = txn;
	(void)pthread_mutex_unlock(&lmdb->lock);
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
	atomic_store(&txn->since_ms, 0);
	(void)pthread_mutex_lock(&lmdb->lock);
	txn->pool_next = lmdb->pool;
	lmdb->pool = txn;
	(void)pthread_mutex_unlock(&lmdb->lock);
}

static int lmdb_commit(void *handle)
{
	struct lmdb_txn *txn = handle;
	int rc;

	cursors_close(txn);
	rc = mdb_txn_commit(txn->txn);
	if (rc == 0)
		atomic_fetch_add(&txn->lmdb->commits, 1);
	return map_error(txn->lmdb, rc);
}

/* ---- records ---- */

static int lmdb_get(void *handle, enum store_table table, struct sluice_slice key, struct sluice_slice *ret)
{
	struct lmdb_txn *txn = handle;
	MDB_val k = val(key), v;
	int rc = mdb_get(txn->txn, txn->lmdb->dbis[table], &k, &v);

	if (rc == 0)
		*ret = slice(v);
	return map_error(txn->lmdb, rc);
}

static int write_cursor(struct lmdb_txn *txn, enum store_table table, MDB_cursor **ret)
{
	int rc = 0;

	if (txn->cursors[table] == NULL)
		rc = mdb_cursor_open(txn->txn, txn->lmdb->dbis[table], &txn->cursors[table]);
	*ret = txn->cursors[table];
	return rc;
}

static bool appends(enum store_table table)
{
	return table == STORE_LOG || table == STORE_ITEM || table == STORE_HIST || table == STORE_JOB || table == STORE_QUAR || table == STORE_CHANGE;
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
	MDB_val k = val(key);

	return map_error(txn->lmdb, mdb_del(txn->txn, txn->lmdb->dbis[table], &k, NULL));
}

static int seek(MDB_cursor *cursor, struct sluice_slice key, MDB_val *ret_key, MDB_val *ret_value)
{
	if (key.len == 0)
		return mdb_cursor_get(cursor, ret_key, ret_value, MDB_FIRST);
	*ret_key = val(key);
	return mdb_cursor_get(cursor, ret_key, ret_value, MDB_SET_RANGE);
}

static int find(struct lmdb_txn *txn, enum store_table table, struct sluice_slice key, bool before, struct sluice_slice *ret_key,
		struct sluice_slice *ret_value)
{
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc = mdb_cursor_open(txn->txn, txn->lmdb->dbis[table], &cursor);

	if (rc != 0)
		return map_error(txn->lmdb, rc);
	rc = seek(cursor, key, &k, &v);
	if (before && rc == MDB_NOTFOUND)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
	else if (before && rc == 0 && (k.mv_size != key.len || memcmp(k.mv_data, key.data, key.len) != 0))
		rc = mdb_cursor_get(cursor, &k, &v, MDB_PREV);
	mdb_cursor_close(cursor);
	if (rc == 0) {
		*ret_key = slice(k);
		*ret_value = slice(v);
	}
	return map_error(txn->lmdb, rc);
}

static int lmdb_at_or_after(void *handle, enum store_table table, struct sluice_slice key, struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	return find(handle, table, key, false, ret_key, ret_value);
}

static int lmdb_at_or_before(void *handle, enum store_table table, struct sluice_slice key, struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	return find(handle, table, key, true, ret_key, ret_value);
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

static int lmdb_cursor_seek(void *handle, struct sluice_slice key, struct sluice_slice *ret_key, struct sluice_slice *ret_value)
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

/* Pages in use = pages ever used - free ones; the free list is itself a table of lists that begin with their length. */
static uint64_t used_bytes(struct lmdb *lmdb)
{
	MDB_envinfo info;
	struct lmdb_txn *txn;
	MDB_cursor *cursor;
	MDB_val k, v;
	uint64_t free_pages = 0;

	(void)mdb_env_info(lmdb->env, &info);
	if (reader_take(lmdb, &txn) != 0)
		return (info.me_last_pgno + 1) * lmdb->page_bytes;
	if (mdb_cursor_open(txn->txn, 0, &cursor) == 0) {
		while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
			size_t count;

			memcpy(&count, v.mv_data, sizeof(count));
			free_pages += count;
		}
		mdb_cursor_close(cursor);
	}
	lmdb_abort(txn);
	return (info.me_last_pgno + 1 > free_pages ? info.me_last_pgno + 1 - free_pages : 0) * lmdb->page_bytes;
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
	ret->disk_free_bytes = disk_free(lmdb);
	ret->file_bytes = mdb_env_get_fd(lmdb->env, &fd) == 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
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

	if (mdb_env_get_fd(lmdb->env, &fd) != 0 || fstat(fd, &st) != 0)
		return store_fail(SLUICE_E_IO, "%s", strerror(errno));
	/* Behind the file's end, without moving it: LMDB takes its size from its own pages. */
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, st.st_size, (off_t)bytes) != 0) {
		if (errno == EOPNOTSUPP)
			return 0;
		return store_fail(errno == ENOSPC ? SLUICE_E_NO_SPACE : SLUICE_E_IO, "%s", strerror(errno));
	}
	return 0;
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
	.at_or_after = lmdb_at_or_after,
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

static int dir_check(const char *dir, bool create, const char **ret_why)
{
	/* f_type of file systems on which locks and mapped files cannot be trusted: NFS, SMB, SMB2, CIFS, AFS, Ceph. */
	static const uint32_t network[] = {0x6969, 0x517b, 0xfe534d42, 0xff534d42, 0x5346414f, 0x00c36400};
	struct statfs fs;

	if (create && mkdir(dir, 0700) != 0 && errno != EEXIST) {
		*ret_why = strerror(errno);
		return SLUICE_E_IO;
	}
	if (statfs(dir, &fs) != 0) {
		*ret_why = strerror(errno);
		return errno == ENOENT ? SLUICE_E_NOT_FOUND : SLUICE_E_IO;
	}
	for (size_t i = 0; i < sizeof(network) / sizeof(network[0]); i++) {
		if ((uint32_t)fs.f_type == network[i]) {
			*ret_why = "the directory is on a network file system; expected a local one";
			return SLUICE_E_UNSUPPORTED;
		}
	}
	return 0;
}

static int lock_take(struct lmdb *lmdb, const char **ret_why)
{
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/sluice.lock", lmdb->dir);
	lmdb->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lmdb->lock_fd < 0) {
		*ret_why = strerror(errno);
		return SLUICE_E_IO;
	}
	if (flock(lmdb->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		*ret_why = "another process has the store open";
		return SLUICE_E_LOCKED;
	}
	return 0;
}

static int env_open(struct lmdb *lmdb, bool create, const char **ret_why)
{
	unsigned flags = MDB_NOTLS | (lmdb->read_only ? MDB_RDONLY : 0u);
	MDB_txn *txn = NULL;
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
		rc = mdb_reader_check(lmdb->env, &dead);
	if (rc == 0)
		rc = mdb_env_stat(lmdb->env, &stat);
	/* LMDB opens it without close-on-exec: a child must not inherit a writable store. */
	if (rc == 0 && mdb_env_get_fd(lmdb->env, &fd) == 0)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (rc == 0)
		lmdb->page_bytes = stat.ms_psize;
	if (rc == 0)
		rc = mdb_txn_begin(lmdb->env, NULL, flags & MDB_RDONLY, &txn);
	for (int i = 0; rc == 0 && i < STORE_TABLE_COUNT; i++)
		rc = mdb_dbi_open(txn, store_table_name((enum store_table)i), create && !lmdb->read_only ? MDB_CREATE : 0, &lmdb->dbis[i]);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else if (txn != NULL)
		mdb_txn_abort(txn);
	if (rc == 0)
		return 0;
	if (rc == MDB_NOTFOUND || rc == ENOENT) {
		*ret_why = "there is no store in the directory";
		return SLUICE_E_NOT_FOUND;
	}
	rc = map_error(lmdb, rc);
	*ret_why = store_last_error();
	return rc;
}

static int schema_check(struct store *store, bool read_only, const char **ret_why)
{
	struct sluice_slice key = {"store_schema", 12}, value;
	struct store_txn *txn = NULL;
	uint8_t version[4];
	int rc = store_begin_read(store, &txn);

	if (rc != 0)
		return rc;
	rc = store_get(txn, STORE_META, key, &value);
	if (rc == 0 && (value.len != 4 || get_be32(value.data) != STORE_SCHEMA_VERSION))
		rc = SLUICE_E_SCHEMA;
	store_abort(txn);
	if (rc == SLUICE_E_SCHEMA)
		*ret_why = "the store has another schema version than this program; see broker/store/README.md";
	else if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
		*ret_why = store_last_error();
	if (rc != SLUICE_E_NOT_FOUND || read_only)
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	put_be32(version, STORE_SCHEMA_VERSION);
	rc = store_begin(store, &txn);
	if (rc != 0)
		return rc;
	rc = store_put(txn, STORE_META, key, (struct sluice_slice){version, sizeof(version)});
	if (rc != 0) {
		store_abort(txn);
		return rc;
	}
	return store_commit(txn);
}

int store_open_lmdb(const char *dir, const struct store_options *options, struct store **ret, const char **ret_why)
{
	struct lmdb *lmdb = calloc(1, sizeof(*lmdb));
	struct store *store = NULL;
	const char *why = "out of memory";
	int rc;

	if (ret_why == NULL)
		ret_why = &why;
	*ret_why = why;
	if (lmdb == NULL)
		return SLUICE_E_NOMEM;
	lmdb->lock_fd = -1;
	lmdb->map_bytes = options->map_bytes != 0 ? options->map_bytes : map_bytes_default;
	lmdb->read_only = options->read_only;
	lmdb->writer.lmdb = lmdb;
	lmdb->writer.write = true;
	lmdb->dir = strdup(dir);
	(void)pthread_mutex_init(&lmdb->lock, NULL);
	rc = lmdb->dir == NULL ? SLUICE_E_NOMEM : dir_check(dir, options->create, ret_why);
	if (rc == 0)
		rc = lock_take(lmdb, ret_why);
	if (rc == 0)
		rc = env_open(lmdb, options->create, ret_why);
	if (rc != 0) {
		lmdb_close(lmdb);
		return rc;
	}
	rc = store_wrap(&lmdb_ops, lmdb, options, &store);
	if (rc != 0)
		return rc;
	rc = schema_check(store, options->read_only, ret_why);
	if (rc != 0) {
		store_close(store);
		return rc;
	}
	*ret = store;
	return 0;
}
