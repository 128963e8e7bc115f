/* SPDX-License-Identifier: Apache-2.0
 * Of the LMDB implementation: pages in use, and disk allocated ahead. */
#include <string.h>
#include <sys/stat.h>

#include "broker/store/lmdb/lmdb_dir.h"
#include "broker/store/lmdb/lmdb_impl.h"
#include "broker/util/clock.h"

enum { FACTS_AGE_MS = 500, FREE_DBI = 0, INSIDE_TIMES = 4 };

static uint64_t end_bytes(const struct lmdb *lmdb)
{
	MDB_envinfo info;

	(void)mdb_env_info(lmdb->env, &info);
	return (info.me_last_pgno + 1) * lmdb->page_bytes;
}

/* Pages that a commit may reuse: in the free list, and no snapshot needs them. Stops counting when
 * there are enough. The list is a table: by commit, lists that begin with their length. */
static uint64_t free_bytes(struct lmdb *lmdb, uint64_t enough)
{
	uint64_t free_pages = 0, oldest = lmdb_readers_oldest_snapshot(lmdb);
	struct lmdb_txn *txn;
	MDB_cursor *cursor;
	MDB_val k, v;

	if (lmdb_reader_take(lmdb, &txn) != 0)
		return 0;
	if (mdb_cursor_open(txn->txn, FREE_DBI, &cursor) == 0) {
		while (free_pages < enough / lmdb->page_bytes &&
		       mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
			size_t commit, count;

			memcpy(&commit, k.mv_data, sizeof(commit));
			memcpy(&count, v.mv_data, sizeof(count));
			if (commit >= oldest)
				break;
			free_pages += count;
		}
		mdb_cursor_close(cursor);
	}
	lmdb_reader_return(txn);
	return free_pages * lmdb->page_bytes;
}

/* ---- pages of the tables: LMDB counts them, which saves a walk at every commit ---- */

static uint64_t table_pages(struct lmdb_txn *txn, int table)
{
	MDB_stat stat;

	if (mdb_stat(txn->txn, txn->lmdb->dbis[table], &stat) != 0)
		return txn->lmdb->pages[table];
	return stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
}

int lmdb_pages_init(struct lmdb *lmdb)
{
	struct lmdb_txn *txn;
	uint64_t sum = 0;
	int rc = lmdb_reader_take(lmdb, &txn);

	if (rc != 0)
		return rc;
	for (int i = 0; i < STORE_TABLE_COUNT; i++) {
		lmdb->pages[i] = table_pages(txn, i);
		sum += lmdb->pages[i];
	}
	lmdb_reader_return(txn);
	atomic_store(&lmdb->tree_bytes, sum * lmdb->page_bytes);
	return 0;
}

int64_t lmdb_pages(struct lmdb_txn *txn, uint64_t *ret_pages)
{
	const struct lmdb *lmdb = txn->lmdb;
	int64_t growth = 0;

	for (int i = 0; i < STORE_TABLE_COUNT; i++) {
		uint64_t pages;

		if ((txn->touched & 1u << i) == 0)
			continue;
		pages = table_pages(txn, i);
		if (ret_pages != NULL)
			ret_pages[i] = pages;
		growth += (int64_t)pages - (int64_t)lmdb->pages[i];
	}
	return growth * (int64_t)lmdb->page_bytes;
}

void lmdb_pages_keep(struct lmdb_txn *txn, const uint64_t *pages, int64_t growth)
{
	struct lmdb *lmdb = txn->lmdb;

	for (int i = 0; i < STORE_TABLE_COUNT; i++)
		if ((txn->touched & 1u << i) != 0)
			lmdb->pages[i] = pages[i];
	atomic_store(&lmdb->tree_bytes,
		     (uint64_t)((int64_t)atomic_load(&lmdb->tree_bytes) + growth));
}

/* Pages in use beside the tables, by a walk through the free list, now and then. The result is
 * inexact for a commit meanwhile until the next walk. */
static uint64_t used_bytes(struct lmdb *lmdb)
{
	uint64_t now = clock_mono_ns() / 1000000 + 1;

	if (atomic_load(&lmdb->facts_ms) + FACTS_AGE_MS < now) {
		uint64_t trees = atomic_load(&lmdb->tree_bytes), end = end_bytes(lmdb),
			 unused = free_bytes(lmdb, UINT64_MAX);

		atomic_store(&lmdb->other_bytes, end > unused + trees ? end - unused - trees : 0);
		atomic_store(&lmdb->facts_ms, now);
	}
	return atomic_load(&lmdb->tree_bytes) + atomic_load(&lmdb->other_bytes);
}

/* Allocated behind the last page that was ever used. */
static uint64_t ahead_bytes(const struct lmdb *lmdb, uint64_t end)
{
	uint64_t reserved = atomic_load(&lmdb->reserved_end);

	if (reserved > lmdb->map_bytes)
		reserved = lmdb->map_bytes;
	return reserved > end ? reserved - end : 0;
}

void lmdb_facts(void *impl, struct store_facts *ret)
{
	struct lmdb *lmdb = impl;
	struct stat st;
	int fd = -1;

	ret->used_bytes = used_bytes(lmdb);
	ret->map_bytes = lmdb->map_bytes;
	ret->disk_free_bytes = dir_disk_free(lmdb->dir);
	ret->file_bytes = mdb_env_get_fd(lmdb->env, &fd) == 0 && fstat(fd, &st) == 0
				  ? (uint64_t)st.st_size
				  : 0;
	ret->ahead_bytes = ahead_bytes(lmdb, end_bytes(lmdb));
	ret->commits = atomic_load(&lmdb->commits);
	ret->oldest_reader_ms = lmdb_readers_oldest_ms(lmdb);
}

/* Behind end: `bytes` and half of that more, so that a growing file does not allocate at every
 * commit. */
static int allocate_ahead(struct lmdb *lmdb, uint64_t end, uint64_t bytes)
{
	uint64_t map = lmdb->map_bytes, done = atomic_load(&lmdb->reserved_end), least, most;
	int fd, rc;

	least = map > end && map - end > bytes ? end + bytes : map;
	most = map > end && map - end > bytes + bytes / 2 ? end + bytes + bytes / 2 : map;
	if (mdb_env_get_fd(lmdb->env, &fd) != 0)
		return store_fail(SLUICE_E_IO, "the database file is not open");
	rc = dir_reserve(fd, least, most, &done);
	atomic_store(&lmdb->reserved_end, done);
	return rc;
}

int lmdb_reserve_disk(void *impl, uint64_t bytes, struct store_room *ret)
{
	struct lmdb *lmdb = impl;
	uint64_t end = end_bytes(lmdb), disk;
	int rc;

	if (lmdb->read_only)
		return store_fail(SLUICE_E_DENIED, "the store was opened to be read only");
	*ret = (struct store_room){.used_bytes = atomic_load(&lmdb->tree_bytes) +
						 atomic_load(&lmdb->other_bytes),
				   .ahead_bytes = ahead_bytes(lmdb, end)};
	if (ret->ahead_bytes >= bytes)
		return 0;
	rc = allocate_ahead(lmdb, end, bytes);
	if (rc == SLUICE_E_UNSUPPORTED) {
		disk = dir_disk_free(lmdb->dir);
		ret->ahead_bytes = lmdb->map_bytes > end ? lmdb->map_bytes - end : 0;
		if (disk < ret->ahead_bytes)
			ret->ahead_bytes = disk;
	} else if (rc == 0 || rc == SLUICE_E_NO_SPACE) {
		ret->ahead_bytes = ahead_bytes(lmdb, end);
	} else {
		return rc;
	}
	if (ret->ahead_bytes < bytes) {
		/* Called at each batch while room is short; the walk through a large list is
		 * bounded. */
		ret->inside_bytes = free_bytes(lmdb, INSIDE_TIMES * bytes + lmdb->page_bytes);
		if (rc == 0)
			rc = store_fail(SLUICE_E_NO_SPACE, "allocating ahead: the map ends");
	}
	return rc;
}
