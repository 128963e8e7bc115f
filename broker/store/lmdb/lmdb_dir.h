/* SPDX-License-Identifier: Apache-2.0
 * The data directory and its file system, without LMDB. *ret_why is set to store_last_error(): step
 * and cause, for "data directory DIR: ...". */
#ifndef SLUICE_STORE_LMDB_DIR_H
#define SLUICE_STORE_LMDB_DIR_H

#include <stdbool.h>
#include <stdint.h>

#include "sluice/error.h"

enum { DIR_PATH_BYTES_MAX = 4096 };

/* Sets that text; returns code. */
int dir_fail(int code, const char **ret_why, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Removes what a failed start created: the store's files, and the directory if it was created for
 * them. The directory must be locked. */
void dir_discard(const char *dir, bool made);
/* Makes dir/name. LIMIT when it is too long. */
int dir_path(char path[DIR_PATH_BYTES_MAX], const char *dir, const char *name,
	     const char **ret_why) SLUICE_MUST_USE;
/* Returns 0 also when there is no such file. */
int dir_remove(const char *path, const char **ret_why) SLUICE_MUST_USE;
/* Renames the file at path to dir/name; durable on return. */
int dir_rename(const char *dir, const char *path, const char *name,
	       const char **ret_why) SLUICE_MUST_USE;

/* Free bytes of the file system under dir, for any user; UINT64_MAX when not known. */
uint64_t dir_disk_free(const char *dir);
/* Creates the directory when asked (*ret_made: it did not exist); UNSUPPORTED on a network file
 * system; *ret_store: whether a store's file exists. */
int dir_check(const char *dir, bool create, bool *ret_store, bool *ret_made,
	      const char **ret_why) SLUICE_MUST_USE;
/* Locks the directory against other processes until *ret_fd is closed (-1 on a read-only file
 * system, where nobody can write). LOCKED when another process has the lock. */
int dir_lock(const char *dir, bool read_only, int *ret_fd, const char **ret_why) SLUICE_MUST_USE;
/* Size limit of files of this process (RLIMIT_FSIZE); UINT64_MAX: none. Writes above it fail with
 * EFBIG; the last one before it is cut short. */
uint64_t dir_file_bytes_max(void);
/* Why `bytes` at offset `from`, behind the end of a file, cannot be written: an errno; 0: they can,
 * and may have disk afterwards. The file's size does not change. */
int dir_room_error(int fd, uint64_t from, uint64_t bytes);
/* Sets close-on-exec on every descriptor of this process for the same file as fd. */
void dir_close_on_exec(int fd);
/* Allocates disk for the first `most` bytes of the file, at least for `least`; the file's size does
 * not change. *io_done: allocated before, and now. NO_SPACE: less than `least`, as far as the disk
 * allows. IO; UNSUPPORTED by the file system. */
int dir_reserve(int fd, uint64_t least, uint64_t most, uint64_t *io_done) SLUICE_MUST_USE;

#endif
