/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_DIRS_H
#define BENCH_DIRS_H

/* All return 0, or -1 after bench_error(). */
int dir_make(const char *path);
int dir_empty(const char *path); /* removes what is in it, and keeps it */
int dir_remove(const char *path);
int dir_copy(const char *from, const char *to); /* `to` is made */

#endif
