/* SPDX-License-Identifier: Apache-2.0
 *
 * For the implementations: raw ordered tables under one write transaction and read snapshots. Framing,
 * cells, savepoints and faults are above this, once for all implementations. Values are whole records as
 * they are on disk. Keys have 1 to 511 bytes: checked above. Only one write transaction is begun at a
 * time: locked above.
 */
#ifndef SLUICE_STORE_STORE_IMPL_H
#define SLUICE_STORE_STORE_IMPL_H

#include "broker/store/store.h"

struct raw_ops {
	/* Transactions. */
	int (*begin)(void *impl, bool write, void **ret_txn);
	int (*commit)(void *txn); /* gone in any case */
	void (*abort)(void *txn);
	int64_t (*growth)(void *txn); /* write: as of store_txn_growth */
	/* Records. Returned slices are valid until the transaction's next write or its end. */
	int (*get)(void *txn, enum store_table table, struct sluice_slice key, struct sluice_slice *ret);
	/* Makes room for a value of len bytes and returns where to write it. */
	int (*put)(void *txn, enum store_table table, struct sluice_slice key, size_t len, void **ret_value);
	int (*del)(void *txn, enum store_table table, struct sluice_slice key);
	/* The last record at or before key. */
	int (*at_or_before)(void *txn, enum store_table table, struct sluice_slice key,
			    struct sluice_slice *ret_key, struct sluice_slice *ret_value);
	/* A cursor for scans: seek gives the first record at or after key (of no bytes: of all), then next. */
	int (*cursor_open)(void *txn, enum store_table table, void **ret_cursor);
	int (*cursor_seek)(void *cursor, struct sluice_slice key, struct sluice_slice *ret_key,
			   struct sluice_slice *ret_value);
	int (*cursor_next)(void *cursor, struct sluice_slice *ret_key, struct sluice_slice *ret_value);
	int (*cursor_del)(
		void *cursor); /* what seek or next gave last; the next next gives what was behind it */
	void (*cursor_close)(void *cursor);
	void (*facts)(void *impl, struct store_facts *ret);
	int (*reserve_disk)(void *impl, uint64_t bytes, struct store_room *ret);
	void (*forget)(void *impl); /* NULL: nothing is kept anyway; close comes next */
	void (*close)(void *impl);
};

/* lmdb_file.c: whether data.mdb is what LMDB would believe it to be. Reads only; no process may write to it meanwhile. Blocks for reads.
 * CORRUPT: the file is damaged or cut off; IO: it cannot be read, or is no regular file; NOMEM. store_last_error() tells what was found. */
int lmdb_file_check(const char *path) SLUICE_MUST_USE;
/* Looks at each page of one table's tree: takes as long as the table is large. As above, of a file that is well so far; a table that is not
 * there is well. */
int lmdb_file_check_table(const char *path, const char *table) SLUICE_MUST_USE;

/* lmdb_dir.c: the data directory, without LMDB. *ret_why gets store_last_error(): step and cause, for "data directory DIR: ...". */

enum { DIR_PATH_BYTES_MAX = 4096 };
/* Sets that text; returns code. */
int dir_fail(int code, const char **ret_why, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Takes away what a start made that failed: the store's files, and the directory if it was made for them. The directory is locked. */
void dir_forget(const char *dir, bool made);
/* dir/name. LIMIT when that is too long. */
int dir_path(char path[DIR_PATH_BYTES_MAX], const char *dir, const char *name,
	     const char **ret_why) SLUICE_MUST_USE;
/* 0 also when there is no such file. */
int dir_remove(const char *path, const char **ret_why) SLUICE_MUST_USE;
/* The file at path becomes dir/name, on disk when this returns. */
int dir_rename(const char *dir, const char *path, const char *name, const char **ret_why) SLUICE_MUST_USE;

/* The bytes of the file system under dir that are free for all; UINT64_MAX when it does not say. */
uint64_t dir_disk_free(const char *dir);
/* Makes the directory when asked (*ret_made: it was not there); UNSUPPORTED on a network file system; *ret_store: whether a store's file
 * is there. */
int dir_check(const char *dir, bool create, bool *ret_store, bool *ret_made,
	      const char **ret_why) SLUICE_MUST_USE;
/* Keeps other processes out until *ret_fd is closed (-1 on a read-only file system, where nobody can
 * write). LOCKED when one is in. */
int dir_lock(const char *dir, bool read_only, int *ret_fd, const char **ret_why) SLUICE_MUST_USE;
/* How large this process may make a file (RLIMIT_FSIZE); UINT64_MAX: no limit. Above it writes fail with EFBIG, the last one before it is
 * cut short. */
uint64_t dir_file_bytes_max(void);
/* Why `bytes` at offset `from`, behind the end of a file, cannot be written: an errno; 0: they can, and may have disk afterwards. The file's
 * size stays. */
int dir_room_error(int fd, uint64_t from, uint64_t bytes);
/* Sets close-on-exec on every descriptor of this process for the same file as fd. */
void dir_close_on_exec(int fd);
/* Allocates disk so that the file's first `least` bytes can be written, or rather `most`; the file's size stays. *io_done: how far it got
 * before, and now. NO_SPACE: not to `least`, but as far as the disk goes. IO, UNSUPPORTED by the file system. */
int dir_reserve(int fd, uint64_t least, uint64_t most, uint64_t *io_done) SLUICE_MUST_USE;

/* store.c: puts the common layer over an implementation. takes impl (closed on error too). */
int store_wrap(const struct raw_ops *ops, void *impl, const struct store_options *options,
	       struct store **ret) SLUICE_MUST_USE;
/* Sets the thread's store_last_error() text; returns code. */
int store_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
