/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_DIRS_H
#define BENCH_DIRS_H

/* Those that return int: 0, or -1 after bench_error(). */
int dir_make(const char *path);
int dir_empty(const char *path); /* removes what is in it, and keeps it */
int dir_remove(const char *path);
void dir_sync(
	const char *
		path); /* writes out all that its file system holds back; blocks, and cannot fail in a way that matters */
int dir_copy(const char *from, const char *to); /* `to` is made */

#endif
