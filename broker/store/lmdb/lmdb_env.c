/* SPDX-License-Identifier: Apache-2.0
 * Of the LMDB implementation: one environment, from lmdb_new to lmdb_close, and the address of its
 * map. lmdb_open.c knows its directory and contents. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/store/lmdb/lmdb_dir.h"
#include "broker/store/lmdb/lmdb_impl.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const uint64_t map_bytes_default = 1ull << 30; /* limit of TSan's shadow memory */
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

/* Of the store that was opened last, for a signal handler. */
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

void lmdb_discard(void *impl)
{
	struct lmdb *lmdb = impl;

	lmdb->discard = lmdb->lock_fd >= 0 && (lmdb->made_store || lmdb->made_dir);
	/* Refused before the lock was taken: remove only the directory. */
	if (lmdb->made_dir && lmdb->lock_fd < 0)
		(void)rmdir(lmdb->dir);
}

void lmdb_close(void *impl)
{
	struct lmdb *lmdb = impl;

	lmdb_readers_free(lmdb);
	if (lmdb->env != NULL) {
		if (atomic_load(&map_first) == lmdb->map_base)
			atomic_store(&map_bytes, 0);
		mdb_env_close(lmdb->env);
	}
	if (lmdb->discard)
		dir_discard(lmdb->dir, lmdb->made_dir);
	for (int i = 0; i < STORE_TABLE_COUNT; i++)
		free(lmdb->damage[i]);
	if (lmdb->lock_fd >= 0)
		(void)close(lmdb->lock_fd);
	(void)pthread_mutex_destroy(&lmdb->lock);
	free(lmdb->dir);
	free(lmdb);
}

/* The used part of the file must be below the limit of file sizes: no page above it can be written.
 * Growth is bounded by the map, which is never above the limit. */
static int limit_check(struct lmdb *lmdb, const char **ret_why)
{
	uint64_t max = dir_file_bytes_max();
	MDB_envinfo info;

	(void)mdb_env_info(lmdb->env, &info);
	/* LMDB raises it to the end of the used pages. */
	lmdb->map_bytes = info.me_mapsize;
	if (lmdb->read_only || (info.me_last_pgno + 1) * lmdb->page_bytes <= max)
		return 0;
	(void)store_fail(SLUICE_E_NO_SPACE,
			 "%" PRIu64
			 " bytes of data.mdb are in use, and the limit of file sizes is %" PRIu64
			 "; raise it (ulimit -f, LimitFSIZE=)",
			 (uint64_t)(info.me_last_pgno + 1) * lmdb->page_bytes, max);
	*ret_why = store_last_error();
	return SLUICE_E_NO_SPACE;
}

int lmdb_env_open(struct lmdb *lmdb, const char *path, unsigned more_flags, const char **ret_why)
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
	/* LMDB opens its file twice without close-on-exec: a child must not inherit a writable
	 * store. */
	if (rc == 0)
		dir_close_on_exec(fd);
	if (rc == 0)
		rc = mdb_reader_check(lmdb->env, &dead);
	if (rc == 0)
		rc = mdb_env_stat(lmdb->env, &stat);
	if (rc != 0)
		return lmdb_step_failed(lmdb, rc, "opening data.mdb and lock.mdb", ret_why);
	lmdb->page_bytes = stat.ms_psize;
	return limit_check(lmdb, ret_why);
}

int lmdb_map_find(struct lmdb *lmdb, struct sluice_slice meta_key)
{
	MDB_val key = {meta_key.len, (void *)(uintptr_t)meta_key.data}, value;
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
	return rc != 0 ? lmdb_error(lmdb, rc) : 0;
}

int lmdb_new(const char *dir, const struct store_options *options, struct lmdb **ret)
{
	struct lmdb *lmdb = calloc(1, sizeof(*lmdb));

	if (lmdb == NULL)
		return SLUICE_E_NOMEM;
	lmdb->lock_fd = -1;
	lmdb->map_bytes = options->map_bytes != 0 ? options->map_bytes : map_bytes_default;
	/* A file that reaches the limit then is a full map, and publishes stop before it. */
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
