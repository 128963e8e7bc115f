/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_DIRS_H
#define BENCH_DIRS_H

/* Functions that return int: 0, or -1 after bench_error(). */
int dir_make(const char *path);
int dir_empty(const char *path); /* removes its contents */
int dir_remove(const char *path);
void dir_sync(const char *path); /* writes all pending data of its file system; blocks; errors are
				    ignored */
int dir_copy(const char *from, const char *to); /* `to` is made */

#endif
