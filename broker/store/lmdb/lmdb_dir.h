/* SPDX-License-Identifier: Apache-2.0
 * The data directory and its file system, without LMDB. *ret_why gets store_last_error(): step and cause,
 * for "data directory DIR: ...". */
#ifndef SLUICE_STORE_LMDB_DIR_H
#define SLUICE_STORE_LMDB_DIR_H

#include <stdbool.h>
#include <stdint.h>

#include "sluice/error.h"

enum { DIR_PATH_BYTES_MAX = 4096 };

/* Sets that text; returns code. */
int dir_fail(int code, const char **ret_why, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Removes what a failed start made: the store's files, and the directory if it was made for them. The
 * directory is locked. */
void dir_discard(const char *dir, bool made);
/* dir/name. LIMIT when that is too long. */
int dir_path(char path[DIR_PATH_BYTES_MAX], const char *dir, const char *name,
	     const char **ret_why) SLUICE_MUST_USE;
/* 0 also when there is no such file. */
int dir_remove(const char *path, const char **ret_why) SLUICE_MUST_USE;
/* The file at path becomes dir/name, on disk when this returns. */
int dir_rename(const char *dir, const char *path, const char *name, const char **ret_why) SLUICE_MUST_USE;

/* The bytes of the file system under dir that are free for all; UINT64_MAX when it does not say. */
uint64_t dir_disk_free(const char *dir);
/* Makes the directory when asked (*ret_made: it was not there); UNSUPPORTED on a network file system;
 * *ret_store: whether a store's file is there. */
int dir_check(const char *dir, bool create, bool *ret_store, bool *ret_made,
	      const char **ret_why) SLUICE_MUST_USE;
/* Keeps other processes out until *ret_fd is closed (-1 on a read-only file system, where nobody can
 * write). LOCKED when another process holds it. */
int dir_lock(const char *dir, bool read_only, int *ret_fd, const char **ret_why) SLUICE_MUST_USE;
/* How large this process may make a file (RLIMIT_FSIZE); UINT64_MAX: no limit. Above it writes fail with
 * EFBIG, the last one before it is cut short. */
uint64_t dir_file_bytes_max(void);
/* Why `bytes` at offset `from`, behind the end of a file, cannot be written: an errno; 0: they can, and may
 * have disk afterwards. The file's size stays. */
int dir_room_error(int fd, uint64_t from, uint64_t bytes);
/* Sets close-on-exec on every descriptor of this process for the same file as fd. */
void dir_close_on_exec(int fd);
/* Allocates disk so that the file's first `least` bytes can be written, or rather `most`; the file's size
 * stays. *io_done: how far it got before, and now. NO_SPACE: not to `least`, but as far as the disk goes.
 * IO, UNSUPPORTED by the file system. */
int dir_reserve(int fd, uint64_t least, uint64_t most, uint64_t *io_done) SLUICE_MUST_USE;

#endif
