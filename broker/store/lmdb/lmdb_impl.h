/* SPDX-License-Identifier: Apache-2.0
 * Shared by the files of the LMDB implementation: lmdb.c (transactions, records, scans), lmdb_space.c (facts, room), lmdb_open.c (life). */
#ifndef SLUICE_STORE_LMDB_IMPL_H
#define SLUICE_STORE_LMDB_IMPL_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "broker/store/store_impl.h"

enum { LMDB_READERS_MAX = 126 };

struct lmdb;
struct lmdb_txn {
	struct lmdb *lmdb;
	MDB_txn *txn;
	bool write;
	MDB_cursor *cursors[STORE_TABLE_COUNT]; /* one each for puts and look-ups; none in the pool */
	uint32_t touched;			/* write: bits of the tables that may have changed */
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
	_Atomic uint64_t reserved_end; /* the file has disk up to here; set by the thread that reserves */
	size_t page_bytes;
	uintptr_t map_base; /* where the file's first byte is in memory; 0: not known */
	char *damage
		[STORE_TABLE_COUNT]; /* read only: why a table's tree is not to be followed; NULL: it is whole */
	_Atomic uint64_t commits;
	uint64_t pages[STORE_TABLE_COUNT]; /* of each table's tree, as of the last commit; the writer's */
	_Atomic uint64_t tree_bytes;	   /* all of them */
	_Atomic uint64_t
		other_bytes; /* what else is in use: snapshots' pages, free list; looked at now and then */
	_Atomic uint64_t facts_ms;
	bool read_only;
	bool made_dir, made_store; /* by this start */
	bool forget;		   /* at close: take away what was made */
};

extern const struct raw_ops lmdb_ops;

/* ---- lmdb.c ---- */

/* LMDB's or the system's number as ours, with its text in store_last_error(). */
int lmdb_error(const struct lmdb *lmdb, int rc);
/* A snapshot from the pool; lmdb_abort gives it back. Any thread. */
int lmdb_reader_take(struct lmdb *lmdb, struct lmdb_txn **ret) SLUICE_MUST_USE;
void lmdb_abort(void *handle);

/* ---- lmdb_space.c: as of store_facts_get, store_reserve_disk and store_txn_growth ---- */
/* Counts the pages of all tables, once they are open. */
int lmdb_pages_init(struct lmdb *lmdb) SLUICE_MUST_USE;
/* Of the tables that the write transaction has touched; ret_pages NULL: only the sum. Bytes more than at the last commit. */
int64_t lmdb_pages(struct lmdb_txn *txn, uint64_t *ret_pages);
/* What lmdb_pages counted is committed. */
void lmdb_pages_keep(struct lmdb_txn *txn, const uint64_t *pages, int64_t growth);
void lmdb_facts(void *impl, struct store_facts *ret);
int lmdb_reserve_disk(void *impl, uint64_t bytes, struct store_room *ret) SLUICE_MUST_USE;

/* LMDB returns EIO for a write that was cut short, which is what the end of the disk, of a quota, or of the limit of file sizes looks like.
 * Whether it was one of these: then store_last_error() says which. Allocates up to 1 MiB of disk ahead to find out. Writer's thread. */
bool lmdb_short_write(const struct lmdb *lmdb);
int lmdb_no_space(int error); /* NO_SPACE, with the text of ENOSPC, EDQUOT or EFBIG */

/* ---- lmdb_open.c ---- */
void lmdb_close(void *impl);
void lmdb_forget(void *impl);

#endif
