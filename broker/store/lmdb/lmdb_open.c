/* SPDX-License-Identifier: Apache-2.0
 *
 * Of the LMDB implementation: a store's life. A directory without data.mdb gets one whole, tables and schema record included, by a
 * rename; so what is there and has none of that is damage, never a fresh store.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/store/lmdb/lmdb_impl.h"
#include "broker/util/bytes.h"

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

enum { MAP_STEP_BYTES = 65536 }; /* a multiple of every page size */

static const struct sluice_slice schema_key = {"store_schema", 12};

/* Of the store that was opened last, for a handler of signals. */
static _Atomic uintptr_t map_first;
static _Atomic uint64_t map_bytes, map_page_bytes;

bool store_map_page(const void *address, uint64_t *ret_page)
{
	uintptr_t at = (uintptr_t)address - atomic_load(&map_first);

	if (at >= atomic_load(&map_bytes))
		return false;
	*ret_page = at / atomic_load(&map_page_bytes);
	return true;
}

void lmdb_forget(void *impl)
{
	struct lmdb *lmdb = impl;

	lmdb->forget = lmdb->lock_fd >= 0 && (lmdb->made_store || lmdb->made_dir);
	/* Refused before it was locked: the directory alone. */
	if (lmdb->made_dir && lmdb->lock_fd < 0)
		(void)rmdir(lmdb->dir);
}

void lmdb_close(void *impl)
{
	struct lmdb *lmdb = impl;

	while (lmdb->all_readers != NULL) {
		struct lmdb_txn *txn = lmdb->all_readers;

		lmdb->all_readers = txn->all_next;
		mdb_txn_abort(txn->txn);
		free(txn);
	}
	if (lmdb->env != NULL) {
		if (atomic_load(&map_first) == lmdb->map_base)
			atomic_store(&map_bytes, 0);
		mdb_env_close(lmdb->env);
	}
	if (lmdb->forget)
		dir_forget(lmdb->dir, lmdb->made_dir);
	for (int i = 0; i < STORE_TABLE_COUNT; i++)
		free(lmdb->damage[i]);
	if (lmdb->lock_fd >= 0)
		(void)close(lmdb->lock_fd);
	(void)pthread_mutex_destroy(&lmdb->lock);
	free(lmdb->dir);
	free(lmdb);
}

/* For a store's start: the step, and why LMDB or the system refused it. */
static int open_failed(const struct lmdb *lmdb, int rc, const char *step, const char **ret_why)
{
	int code = lmdb_error(lmdb, rc);
	char cause[300];

	(void)snprintf(cause, sizeof(cause), "%s",
		       code == SLUICE_E_NOMEM || code == SLUICE_E_NOT_FOUND ? mdb_strerror(rc)
									    : store_last_error());
	if (rc == ENOMEM)
		return dir_fail(code, ret_why,
				"%s: %s; a map of %" PRIu64 " MiB may be too large (map_mib, ulimit -v)",
				step, cause, lmdb->map_bytes >> 20);
	return dir_fail(code, ret_why, "%s: %s", step, cause);
}

/* What is in use already must lie below the limit of file sizes: no page above it can be written. The rest is for the map's bound, which is
 * never above the limit. */
static int limit_check(struct lmdb *lmdb, const char **ret_why)
{
	uint64_t max = dir_file_bytes_max();
	MDB_envinfo info;

	(void)mdb_env_info(lmdb->env, &info);
	/* LMDB does not let it end before what is in use. */
	lmdb->map_bytes = info.me_mapsize;
	if (lmdb->read_only || (info.me_last_pgno + 1) * lmdb->page_bytes <= max)
		return 0;
	(void)store_fail(SLUICE_E_NO_SPACE,
			 "%" PRIu64 " bytes of data.mdb are in use, and the limit of file sizes is %" PRIu64
			 "; raise it (ulimit -f, LimitFSIZE=)",
			 (uint64_t)(info.me_last_pgno + 1) * lmdb->page_bytes, max);
	*ret_why = store_last_error();
	return SLUICE_E_NO_SPACE;
}

static int env_open(struct lmdb *lmdb, const char *path, unsigned more_flags, const char **ret_why)
{
	unsigned flags = MDB_NOTLS | (lmdb->read_only ? MDB_RDONLY : 0u) | more_flags;
	MDB_stat stat;
	int dead, fd, rc = mdb_env_create(&lmdb->env);

	if (rc == 0)
		rc = mdb_env_set_mapsize(lmdb->env, lmdb->map_bytes);
	if (rc == 0)
		rc = mdb_env_set_maxdbs(lmdb->env, STORE_TABLE_COUNT);
	if (rc == 0)
		rc = mdb_env_set_maxreaders(lmdb->env, LMDB_READERS_MAX);
	if (rc == 0)
		rc = mdb_env_open(lmdb->env, path, flags, 0600);
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
		return open_failed(lmdb, rc, "opening data.mdb and lock.mdb", ret_why);
	lmdb->page_bytes = stat.ms_psize;
	return limit_check(lmdb, ret_why);
}

/* Opens tables first to last (not included) that exist, without a write. CORRUPT when one does not. */
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
		*ret_why = "the database file has no table meta, or lacks another one that a reader needs";
		return SLUICE_E_CORRUPT;
	}
	return rc == 0 ? 0 : open_failed(lmdb, rc, "opening the tables of data.mdb", ret_why);
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
		rc = lmdb_error(lmdb, mdb_dbi_open(lmdb->writer.txn, store_table_name((enum store_table)i),
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

/* Learns where the map is: LMDB does not tell, but a page knows its number, and the schema's record lies in one. */
static int map_find(struct lmdb *lmdb)
{
	MDB_val key = {schema_key.len, (void *)(uintptr_t)schema_key.data}, value;
	MDB_txn *txn = NULL;
	int rc = mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &txn);
	uint64_t page;

	if (rc == 0)
		rc = mdb_get(txn, lmdb->dbis[STORE_META], &key, &value);
	if (rc == 0 && lmdb->page_bytes <= (size_t)sysconf(_SC_PAGESIZE)) {
		uintptr_t at = (uintptr_t)value.mv_data & ~(uintptr_t)(lmdb->page_bytes - 1);

		memcpy(&page, (const void *)at, sizeof(page));
		lmdb->map_base = at - page * lmdb->page_bytes;
		atomic_store(&map_first, lmdb->map_base);
		atomic_store(&map_page_bytes, lmdb->page_bytes);
		atomic_store(&map_bytes, lmdb->map_bytes);
	}
	mdb_txn_abort(txn);
	return rc == 0 ? 0 : lmdb_error(lmdb, rc);
}

static uint64_t file_bytes(const struct lmdb *lmdb)
{
	struct stat st;
	int fd;

	return mdb_env_get_fd(lmdb->env, &fd) == 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size : UINT64_MAX;
}

/* Looks at each page of each table. A reader of everything can afford that; it goes round the tables that cannot be followed. */
static int tables_check(struct lmdb *lmdb, const char **ret_why)
{
	char path[DIR_PATH_BYTES_MAX];
	int rc = dir_path(path, lmdb->dir, "data.mdb", ret_why);

	for (int i = 0; rc == 0 && i < STORE_TABLE_COUNT; i++) {
		rc = lmdb_file_check_table(path, store_table_name((enum store_table)i));
		if (rc != SLUICE_E_CORRUPT)
			continue;
		lmdb->damage[i] = strdup(store_last_error());
		rc = lmdb->damage[i] == NULL ? SLUICE_E_NOMEM : 0;
	}
	if (rc != 0)
		*ret_why = store_last_error();
	return rc;
}

/* Nothing is written before the schema's version is known to be ours. */
static int contents_open(struct lmdb *lmdb, struct store *store, uint64_t check_bytes, const char **ret_why)
{
	int rc = tables_open(lmdb, STORE_META, STORE_META + 1, ret_why);

	if (rc == 0)
		rc = schema_check(store, ret_why);
	if (rc == 0) {
		rc = map_find(lmdb);
		*ret_why = store_last_error();
	}
	if (rc != 0)
		return rc;
	if (lmdb->read_only) {
		rc = tables_open(lmdb, 0, STORE_TABLE_COUNT, ret_why);
		return rc == 0 ? tables_check(lmdb, ret_why) : rc;
	}
	if (file_bytes(lmdb) <= check_bytes)
		rc = tables_check(lmdb, ret_why);
	for (int i = 0; rc == 0 && i < STORE_TABLE_COUNT; i++)
		if (lmdb->damage[i] != NULL) {
			rc = store_fail(SLUICE_E_CORRUPT, "table %s: %s",
					store_table_name((enum store_table)i), lmdb->damage[i]);
			*ret_why = store_last_error();
		}
	if (rc != 0)
		return rc;
	return tables_create(lmdb, store, false, ret_why);
}

/* Closed with lmdb_close. */
static int lmdb_new(const char *dir, const struct store_options *options, struct lmdb **ret)
{
	struct lmdb *lmdb = calloc(1, sizeof(*lmdb));

	if (lmdb == NULL)
		return SLUICE_E_NOMEM;
	lmdb->lock_fd = -1;
	lmdb->map_bytes = options->map_bytes != 0 ? options->map_bytes : map_bytes_default;
	/* Then a file that reaches the limit is a full map, and publishes stop before it. */
	if (!options->read_only && dir_file_bytes_max() < lmdb->map_bytes)
		lmdb->map_bytes = dir_file_bytes_max() / MAP_STEP_BYTES * MAP_STEP_BYTES;
	lmdb->read_only = options->read_only;
	lmdb->writer.lmdb = lmdb;
	lmdb->writer.write = true;
	(void)pthread_mutex_init(&lmdb->lock, NULL);
	lmdb->dir = strdup(dir);
	if (lmdb->dir == NULL) {
		lmdb_close(lmdb);
		return SLUICE_E_NOMEM;
	}
	*ret = lmdb;
	return 0;
}

/* A fresh store under a name of its own, which becomes data.mdb when all of it is on disk. What a creation that was cut off left is
 * made anew. The directory is locked. */
static int store_make(const char *dir, const struct store_options *options, const char **ret_why)
{
	struct lmdb *lmdb = NULL;
	struct store *store = NULL;
	char path[DIR_PATH_BYTES_MAX];
	int rc = dir_path(path, dir, "data.mdb.new", ret_why);

	if (rc == 0)
		rc = dir_remove(path, ret_why);
	if (rc == 0)
		rc = lmdb_new(dir, options, &lmdb);
	if (rc != 0)
		return rc;
	rc = env_open(lmdb, path, MDB_NOSUBDIR | MDB_NOLOCK, ret_why);
	if (rc != 0) {
		lmdb_close(lmdb);
		return rc;
	}
	rc = store_wrap(&lmdb_ops, lmdb, options, &store);
	if (rc == 0)
		rc = tables_create(lmdb, store, true, ret_why);
	store_close(store);
	return rc == 0 ? dir_rename(dir, path, "data.mdb", ret_why) : rc;
}

/* The directory is locked: what is in the file before LMDB believes it. */
static int file_check(const char *dir, const char **ret_why)
{
	char path[DIR_PATH_BYTES_MAX];
	int rc = dir_path(path, dir, "data.mdb", ret_why);

	if (rc != 0)
		return rc;
	rc = lmdb_file_check(path);
	if (rc != 0)
		*ret_why = rc == SLUICE_E_NOMEM ? "out of memory" : store_last_error();
	return rc;
}

static int directory_open(struct lmdb *lmdb, const struct store_options *options, const char **ret_why)
{
	bool create = options->create && !options->read_only, present = false, made = false;
	int rc = dir_check(lmdb->dir, create, &present, &lmdb->made_dir, ret_why);

	if (rc == 0 && !present && !create) {
		*ret_why = "there is no store in the directory";
		rc = SLUICE_E_NOT_FOUND;
	}
	if (rc == 0)
		rc = dir_lock(lmdb->dir, options->read_only, &lmdb->lock_fd, ret_why);
	/* Asked again, now that no other process makes one. */
	if (rc == 0 && !present)
		rc = dir_check(lmdb->dir, false, &present, &made, ret_why);
	lmdb->made_store = rc == 0 && !present;
	if (rc == 0 && !present)
		rc = store_make(lmdb->dir, options, ret_why);
	if (rc == 0)
		rc = file_check(lmdb->dir, ret_why);
	return rc == 0 ? env_open(lmdb, lmdb->dir, 0, ret_why) : rc;
}

int store_open_lmdb(const char *dir, const struct store_options *options, struct store **ret,
		    const char **ret_why)
{
	struct lmdb *lmdb = NULL;
	struct store *store = NULL;
	const char *why = "";
	int rc;

	if (ret_why == NULL)
		ret_why = &why;
	*ret_why = "out of memory";
	rc = lmdb_new(dir, options, &lmdb);
	if (rc != 0)
		return rc;
	rc = directory_open(lmdb, options, ret_why);
	if (rc != 0) {
		lmdb_forget(lmdb);
		lmdb_close(lmdb);
		return rc;
	}
	rc = store_wrap(&lmdb_ops, lmdb, options, &store);
	if (rc == 0)
		rc = contents_open(lmdb, store, options->check_bytes, ret_why);
	if (rc == 0) {
		rc = lmdb_pages_init(lmdb);
		*ret_why = store_last_error();
	}
	if (rc != 0) {
		store_forget(store);
		return rc;
	}
	*ret_why = "";
	*ret = store;
	return 0;
}
