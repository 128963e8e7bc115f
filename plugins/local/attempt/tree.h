/* SPDX-License-Identifier: Apache-2.0
 *
 * Deleting a directory tree that a job had in its hands, some entries at a time.
 *
 * What a job can make is expected in it: symbolic links, directories without rights, mount points,
 * a depth beyond any path and any number of descriptors, a million files, and processes that still
 * change it.
 *
 * A directory below the root's own that is not empty is renamed into the root of the tree and
 * emptied there: its depth costs nothing, and an interrupted deletion continues with what it finds.
 * The kernel refuses to delete or rename a mount point, and each directory that is opened is
 * checked for being one, so nothing on another mount is reached.
 * Names are looked up in open directories only, and never through a symbolic link.
 */
#ifndef SLUICE_LOCAL_TREE_H
#define SLUICE_LOCAL_TREE_H

#include <stdint.h>

struct tree;
/* The directory `name` in the directory parent_fd, which is borrowed and may be AT_FDCWD; owned:
 * tree_close. IO (attempt_error() says why), NOMEM. */
int tree_open(int parent_fd, const char *name, struct tree **ret);
/* Visits at most `entries` entries. 0: all of it is gone. 1: more is left to do. IO: something
 * stays that cannot be deleted, with the directories above it; attempt_error() names the first
 * one. */
int tree_step(struct tree *tree, unsigned entries);
void tree_close(struct tree *tree); /* NULL: nothing happens */
/* All of it in one call, for about ms_max at most: while a process keeps creating files in it,
 * deleting would not end. As tree_step(); 1: the time was not enough. */
int tree_delete(int parent_fd, const char *name, uint64_t ms_max);
/* What the directory `name` of parent_fd and all below it take of its disk; changes nothing. Takes
 * at most about so long: of a tree that is too large for that a part is measured. 0: it is not
 * there. */
uint64_t tree_bytes(int parent_fd, const char *name, uint64_t ms_max);

#endif
