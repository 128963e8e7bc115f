/* SPDX-License-Identifier: Apache-2.0
 * Shared by the files of the LMDB implementation. The sections below are in the order of the files:
 * each file calls only sections before its own. */
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
	/* one each for puts and lookups; none in the pool */
	MDB_cursor *cursors[STORE_TABLE_COUNT];
	uint32_t touched;	   /* write: bits of the tables that may have changed */
	_Atomic uint64_t since_ms; /* read: 0 while in the pool */
	/* read: the commit of its snapshot; UINT64_MAX while in the pool */
	_Atomic uint64_t snapshot;
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
	/* the file has disk allocated up to here; set by the thread that reserves */
	_Atomic uint64_t reserved_end;
	size_t page_bytes;
	uintptr_t map_base; /* address of the file's first byte; 0: not known */
	/* read only: why a table's tree must not be followed; NULL: it is intact */
	char *damage[STORE_TABLE_COUNT];
	_Atomic uint64_t commits;
	/* of each table's tree, as of the last commit; for the writer */
	uint64_t pages[STORE_TABLE_COUNT];
	_Atomic uint64_t tree_bytes; /* sum of all tables */
	/* other pages in use: of snapshots, of the free list; updated now and then */
	_Atomic uint64_t other_bytes;
	_Atomic uint64_t facts_ms;
	bool read_only;
	bool made_dir, made_store; /* by this start */
	bool discard;		   /* at close: remove what was created */
};

/* ---- lmdb_error.c ---- */

/* The error code of SLUICE_E_* for a number of LMDB or the system; sets store_last_error(). May
 * allocate up to 1 MiB of disk ahead to find out why a write was cut short. */
int lmdb_error(const struct lmdb *lmdb, int rc);
/* For a store's start: the step, and the reason of LMDB or the system. Returns as lmdb_error. */
int lmdb_step_failed(const struct lmdb *lmdb, int rc, const char *step, const char **ret_why);

/* ---- lmdb_reader.c: any thread ---- */

/* Takes a snapshot from the pool; lmdb_reader_return gives it back. */
int lmdb_reader_take(struct lmdb *lmdb, struct lmdb_txn **ret) SLUICE_MUST_USE;
/* The cursors must be closed. */
void lmdb_reader_return(struct lmdb_txn *txn);
/* The oldest commit that a snapshot uses; pages freed since cannot be reused yet. A snapshot that
 * begins meanwhile may be missed, which does no harm. UINT64_MAX: there is no snapshot. */
uint64_t lmdb_readers_oldest_snapshot(struct lmdb *lmdb);
/* Age of the oldest snapshot; 0: there is none. */
uint64_t lmdb_readers_oldest_ms(struct lmdb *lmdb);
/* At close: frees all; none may be in use. */
void lmdb_readers_free(struct lmdb *lmdb);

/* ---- lmdb_space.c: as of store_facts_get, store_reserve_disk and store_txn_growth ---- */

/* Counts the pages of all tables, once they are open. */
int lmdb_pages_init(struct lmdb *lmdb) SLUICE_MUST_USE;
/* Counts the pages of the tables that the write transaction has touched; ret_pages NULL: only the
 * sum. Returns the growth in bytes since the last commit. */
int64_t lmdb_pages(struct lmdb_txn *txn, uint64_t *ret_pages);
/* Keeps the counts of lmdb_pages as those of the commit. */
void lmdb_pages_keep(struct lmdb_txn *txn, const uint64_t *pages, int64_t growth);
void lmdb_facts(void *impl, struct store_facts *ret);
int lmdb_reserve_disk(void *impl, uint64_t bytes, struct store_room *ret) SLUICE_MUST_USE;

/* ---- lmdb_env.c ---- */

/* To be closed with lmdb_close, which frees it. */
int lmdb_new(const char *dir, const struct store_options *options,
	     struct lmdb **ret) SLUICE_MUST_USE;
/* path: the directory, or the file if more_flags has MDB_NOSUBDIR. */
int lmdb_env_open(struct lmdb *lmdb, const char *path, unsigned more_flags,
		  const char **ret_why) SLUICE_MUST_USE;
/* Finds the address of the map: LMDB does not report it, but a page holds its own number, and the
 * record of meta_key in table meta lies in a page. */
int lmdb_map_find(struct lmdb *lmdb, struct sluice_slice meta_key) SLUICE_MUST_USE;
void lmdb_discard(void *impl);
void lmdb_close(void *impl);

/* ---- lmdb.c ---- */

extern const struct raw_ops lmdb_ops;

#endif
