/* SPDX-License-Identifier: Apache-2.0
 * Of the LMDB implementation: how much is in use, and disk allocated ahead of need. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/store/lmdb_impl.h"
#include "broker/util/clock.h"

enum { FACTS_AGE_MS = 500, FREE_DBI = 0 };

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
	if (lmdb_reader_take(lmdb, &txn) != 0)
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

void lmdb_facts(void *impl, struct store_facts *ret)
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

int lmdb_reserve_disk(void *impl, uint64_t bytes)
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
