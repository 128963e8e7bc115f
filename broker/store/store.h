/* SPDX-License-Identifier: Apache-2.0
 *
 * The store: ordered tables of small records under one write transaction at a time and any number
 * of short read snapshots. The only folder that knows LMDB. Two implementations behind this one
 * interface: lmdb (store_open_lmdb) and mem (store_open_mem; for the simulator and unit tests; same
 * semantics, nothing durable).
 *
 * Records. store_put frames a value with a format version and a CRC-32C over key and value;
 * store_get checks both and answers SLUICE_E_CORRUPT (naming table and key through
 * store_last_error) rather than hand out a bad one. Tables marked "self" hold values that carry
 * their own CRC (log segments): the store adds nothing and checks nothing.
 *
 * Hot tables. Tables marked "hot" go through an overlay of cells: puts and dels stay in memory
 * until commit, when each dirty cell is written once; abort drops them. A scan of a hot table first
 * writes its dirty cells through, so it sees everything. Clean cells stay cached (bounded) between
 * transactions. Read snapshots see the committed state only.
 *
 * Savepoints. store_savepoint / store_rollback / store_release, one level: an undo log over cells
 * and tables alike.
 *
 * Threads: a write transaction belongs to one thread. A read transaction belongs to the thread that
 * began it, must be short (no I/O, no callback that waits), and may run beside the writer. Slices
 * returned are borrowed: valid until the next call that writes in the same transaction, or its end.
 *
 * Errors: 0, SLUICE_E_NOT_FOUND, SLUICE_E_CORRUPT, SLUICE_E_NO_SPACE (map or disk full),
 * SLUICE_E_IO, SLUICE_E_NOMEM, SLUICE_E_LIMIT (a key that is empty or longer than 511 bytes),
 * SLUICE_E_INTERNAL (a call that the contract forbids). Any other failure of a write than
 * NOT_FOUND, LIMIT and INTERNAL leaves the transaction half-done: later writes, a rollback and the
 * commit answer the same, and abort ends it.
 */
#ifndef SLUICE_STORE_STORE_H
#define SLUICE_STORE_STORE_H

#include <stdbool.h>
#include <sys/uio.h>

#include "sluice/error.h"
#include "sluice/types.h"

/* X(NAME, name, hot, self-checked) */
#define STORE_TABLES(X)                                                                     \
	X(META, "meta", false, false) /* schema, clocks, applied; no gateway in its keys */ \
	X(HOT, "hot", true, false)    /* heads, counters, producers, cursors */             \
	X(NAME, "name", false, false)                                                       \
	X(TOPO, "topo", false,                                                              \
	  false) /* definitions of streams, queues, routers, edges, lifecycles */           \
	X(LOG, "log", false, true)                                                          \
	X(ITEM, "item", false, false)                                                       \
	X(READY, "ready", false, false)                                                     \
	X(GRANT, "grant", true, false)                                                      \
	X(TIMER, "timer", false, false)                                                     \
	X(LIVE, "live", true, false)                                                        \
	X(JOB, "job", false, false)                                                         \
	X(HIST, "hist", false, false)                                                       \
	X(GATE, "gate", false, false)                                                       \
	X(SESSION, "session", true, false)                                                  \
	X(OWNED, "owned", false, false)                                                     \
	X(QUAR, "quar", false, false) /* quarantined and parked reports */                  \
	X(NODE, "node", false, false)                                                       \
	X(CHILD, "child", false, false)                                                     \
	X(NHIST, "nhist", false, false)                                                     \
	X(CHANGE, "change", false, false)                                                   \
	X(BLOB, "blob", false, true)

enum store_table {
#define STORE_TABLE_ENUM(NAME, name, hot, self) STORE_##NAME,
	STORE_TABLES(STORE_TABLE_ENUM)
#undef STORE_TABLE_ENUM
		STORE_TABLE_COUNT
};

const char *store_table_name(enum store_table table);

enum { STORE_KEY_BYTES_MAX = 511, STORE_SCHEMA_VERSION = 1 };

struct store;
struct store_txn;
struct store_scan;

struct store_options {
	/* lmdb; 0: 64 GiB (less under sanitizers); at most the limit of file sizes */
	uint64_t map_bytes;
	size_t cell_cache_max; /* clean cells kept; 0: 200,000 */
	/* lmdb: a file up to this size is checked page by page, and not opened when a tree is
	 * damaged */
	uint64_t check_bytes;
	bool create;	/* create a store when the directory has none */
	bool read_only; /* for --dump: no write transaction ever begins */
};

/* Both return an owned store. open_lmdb: creates dir (0700) when asked, refuses network file
 * systems and a second process (SLUICE_E_LOCKED), checks the schema version (SLUICE_E_SCHEMA)
 * before it writes anything, clears dead readers. *ret_why, when not NULL, is set to a text that is
 * valid until this thread's next call of the store. */
int store_open_lmdb(const char *dir, const struct store_options *options, struct store **ret,
		    const char **ret_why) SLUICE_MUST_USE;
int store_open_mem(const struct store_options *options, struct store **ret) SLUICE_MUST_USE;
void store_close(struct store *store); /* accepts NULL */
/* Closes the store and removes what its opening created: files, directory. A store that existed
 * before stays. Accepts NULL. */
void store_discard(struct store *store);

/* Text about the last SLUICE_E_CORRUPT / IO of this thread: table, key in hex, what was expected.
 * Never NULL. */
const char *store_last_error(void);
/* The caller cannot decode the record that this thread read last, or misses one that must exist:
 * names its key in store_last_error() with the text `what`, and returns SLUICE_E_CORRUPT. */
int store_damaged(const char *what) SLUICE_MUST_USE;

/* --- transactions --- */
int store_begin(struct store *store, struct store_txn **ret)
	SLUICE_MUST_USE; /* write; blocks while another thread's is open */
int store_begin_read(struct store *store,
		     struct store_txn **ret) SLUICE_MUST_USE; /* snapshot of the last commit */
/* Writes dirty cells, commits with full sync. Frees the transaction in any case. 0: durable.
 * SLUICE_E_IO: unknown; the process must stop acknowledging and exit. Others (SLUICE_E_NO_SPACE
 * ...): nothing was applied. */
int store_commit(struct store_txn *txn) SLUICE_MUST_USE;
void store_abort(struct store_txn *txn); /* accepts NULL; also ends a read transaction */
/* Bytes of the records that this write transaction has put so far, without hot cells: a lower bound
 * for its commit. */
uint64_t store_txn_bytes(const struct store_txn *txn);
/* Cost of this transaction's reads so far: the bytes of its records, and STORE_READ_COST for each.
 * For readers that work in turns. */
enum { STORE_READ_COST = 128 };
uint64_t store_txn_read_cost(const struct store_txn *txn);
/* How many times this thread was answered CORRUPT since the transaction began, by the store or
 * through store_damaged(). More than 0: what the transaction writes may depend on damage that only
 * this disk has, also when no operation failed. In the transaction's thread. */
uint64_t store_txn_damaged(const struct store_txn *txn);
/* Growth of the tables' pages in bytes (may be negative) since the last commit, by this write
 * transaction so far: exact for plain tables, an upper bound for hot cells. Costs as much as a few
 * lookups. mem: bytes of values. */
int64_t store_txn_growth(const struct store_txn *txn);

/* --- records --- */
int store_get(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	      struct sluice_slice *ret) SLUICE_MUST_USE;
int store_put(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	      struct sluice_slice value) SLUICE_MUST_USE;
/* Gathers the value from parts; not for hot tables. */
int store_putv(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	       const struct iovec *parts, int part_count) SLUICE_MUST_USE;
int store_del(struct store_txn *txn, enum store_table table,
	      struct sluice_slice key) SLUICE_MUST_USE; /* NOT_FOUND when absent */

/* --- scans, in key order --- Between begin and end of a scan other tables may be written; the
 * scanned table only through store_scan_del. One scan per table and transaction at a time. */
int store_scan_begin(struct store_txn *txn, enum store_table table, struct sluice_slice from,
		     struct store_scan **ret) SLUICE_MUST_USE;
/* 0 with the next record at or after the position; SLUICE_E_NOT_FOUND at the end of the table.
 * SLUICE_E_CORRUPT: *ret_key is the damaged record's, *ret_value is untouched, and the next call
 * continues after it. */
int store_scan_next(struct store_scan *scan, struct sluice_slice *ret_key,
		    struct sluice_slice *ret_value) SLUICE_MUST_USE;
/* Deletes the record that next returned last; the next call continues after it */
int store_scan_del(struct store_scan *scan) SLUICE_MUST_USE;
void store_scan_end(struct store_scan *scan);
/* The last record whose key is <= key and starts with prefix (its first prefix_bytes bytes of key);
 * NOT_FOUND otherwise. */
int store_last_le(struct store_txn *txn, enum store_table table, struct sluice_slice key,
		  size_t prefix_bytes, struct sluice_slice *ret_key,
		  struct sluice_slice *ret_value) SLUICE_MUST_USE;

/* --- walk --- every record of every table, in table and key order, from one transaction; damaged
 * ones are reported and skipped. visit is called with code 0 and a record, or with SLUICE_E_CORRUPT
 * and a damaged record's key (empty: the table's pages are damaged, and the walk continues with the
 * next table); the value is then empty, and store_last_error() has the details. Slices are borrowed
 * for the call. A result of visit other than 0 ends the walk. visit checks self-checked values.
 * Returns 0, CORRUPT when the store found damage, or the result of visit that ended it. */
typedef int (*store_visit_fn)(void *user, enum store_table table, struct sluice_slice key,
			      struct sluice_slice value, int code);
int store_walk(struct store_txn *txn, store_visit_fn visit, void *user) SLUICE_MUST_USE;

/* --- savepoint (one level) --- */
int store_savepoint(struct store_txn *txn) SLUICE_MUST_USE;
int store_rollback(struct store_txn *txn) SLUICE_MUST_USE; /* back to the savepoint; removes it */
void store_release(struct store_txn *txn); /* keeps the changes since the savepoint; removes it */

/* --- facts --- */
struct store_facts {
	/* pages in use, as of the last commit; pages held by snapshots are updated every half
	 * second */
	uint64_t used_bytes;
	uint64_t map_bytes;
	uint64_t file_bytes;
	uint64_t disk_free_bytes;
	uint64_t ahead_bytes;	   /* as of struct store_room, after the last commit */
	uint64_t oldest_reader_ms; /* age of the oldest open read transaction */
	uint64_t commits;
};
void store_facts_get(struct store *store, struct store_facts *ret); /* any thread */
/* Disk that only this store can use. */
struct store_room {
	uint64_t used_bytes;  /* as of store_facts_get */
	uint64_t ahead_bytes; /* allocated behind the last page in use, and within the map */
	/* free pages inside the file; counted only when ahead is short, else 0, and only up to
	 * about four times the request */
	uint64_t inside_bytes;
};
/* Allocates `bytes` behind the last page, so that they can be written when another program fills
 * the disk suddenly; as much as the disk has. Costs a comparison while they are allocated; else
 * fallocate (blocks) of somewhat more than requested; when the disk or the map has no more, a walk
 * of the free list. One thread at a time. *ret is set for the first three results: 0: ahead is
 * `bytes` or more; NO_SPACE: it is less; UNSUPPORTED: the file system cannot allocate ahead, and
 * ahead is its free space now. IO, DENIED (read only). mem: unlimited. */
int store_reserve_disk(struct store *store, uint64_t bytes, struct store_room *ret) SLUICE_MUST_USE;

/* Whether an address is in the map of the LMDB store that was opened last, and in which page: a
 * fault there means a damaged file or an unreadable disk, not a bug. Async-signal-safe. */
bool store_map_page(const void *address, uint64_t *ret_page);

/* --- faults, for tests --- the hook is called before every operation that can fail ("begin",
 * "begin_read", "get", "put", "del", "scan", "next", "last_le", "rollback", "commit"); a non-zero
 * return becomes the operation's result. After a failed put, del or rollback the transaction can
 * only be aborted, as after a real failure. NULL removes the hook. */
typedef int (*store_fault_fn)(void *user, const char *operation);
void store_fault_set(struct store *store, store_fault_fn fn, void *user);

#endif
