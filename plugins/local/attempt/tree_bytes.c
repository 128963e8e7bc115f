/* SPDX-License-Identifier: Apache-2.0
 *
 * What a directory tree takes of its disk, see tree.h. A tree of any depth takes OPEN_MAX
 * descriptors: of the directories above those only their place is kept, and they are opened again
 * from below. A directory that was moved meanwhile, so that it is not the one from before, ends the
 * measuring with what was found.
 */
#include "tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { OPEN_MAX = 16, ENTRIES_PER_LOOK = 64 /* at the clock */ };

/* A directory that is being read, below the one before it. */
struct level {
	DIR *dir; /* NULL: closed, to be read on from `at` */
	long at;
	ino_t inode;
};

struct sum {
	uint64_t bytes;
	dev_t device;
	struct level *levels;
	size_t depth, capacity;
};

static const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

static uint64_t boot_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Takes fd, which is below 0 if there is none. NULL: it cannot be read, or is on another disk. */
static DIR *directory(int fd, dev_t device, ino_t *ret_inode)
{
	struct stat about;
	DIR *dir = NULL;

	if (fd >= 0 && fstat(fd, &about) == 0 && about.st_dev == device)
		dir = fdopendir(fd);
	if (dir == NULL && fd >= 0)
		(void)close(fd);
	if (dir != NULL)
		*ret_inode = about.st_ino;
	return dir;
}

/* What cannot be read, or has no room in memory, is left out. */
static void level_push(struct sum *sum, int fd)
{
	struct level *level;

	if (sum->depth == sum->capacity) {
		size_t capacity = sum->capacity == 0 ? 64 : 2 * sum->capacity;

		level = realloc(sum->levels, capacity * sizeof(*level));
		if (level == NULL) {
			if (fd >= 0)
				(void)close(fd);
			return;
		}
		sum->levels = level;
		sum->capacity = capacity;
	}
	level = &sum->levels[sum->depth];
	level->dir = directory(fd, sum->device, &level->inode);
	if (level->dir == NULL)
		return;
	sum->depth++;
	if (sum->depth <= OPEN_MAX)
		return;
	level = &sum->levels[sum->depth - 1 - OPEN_MAX];
	if (level->dir != NULL) {
		level->at = telldir(level->dir);
		(void)closedir(level->dir);
		level->dir = NULL;
	}
}

static void level_pop(struct sum *sum)
{
	struct level *level = &sum->levels[--sum->depth], *above = level - 1;
	ino_t inode = 0;

	if (sum->depth > 0 && above->dir == NULL) {
		above->dir = directory(openat(dirfd(level->dir), "..", flags), sum->device, &inode);
		if (above->dir != NULL && inode == above->inode) {
			seekdir(above->dir, above->at);
		} else {
			if (above->dir != NULL)
				(void)closedir(above->dir);
			sum->depth = 0; /* those above it are closed, too */
		}
	}
	(void)closedir(level->dir);
}

static void entry_add(struct sum *sum, const struct dirent *entry)
{
	int fd = dirfd(sum->levels[sum->depth - 1].dir);
	struct stat about;

	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
	    fstatat(fd, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) != 0 ||
	    about.st_dev != sum->device)
		return;
	/* Of several names of a file each has its part. */
	if (!S_ISDIR(about.st_mode) && about.st_nlink > 0)
		sum->bytes += (uint64_t)about.st_blocks * 512 / about.st_nlink;
	else
		sum->bytes += (uint64_t)about.st_blocks * 512;
	if (S_ISDIR(about.st_mode))
		level_push(sum, openat(fd, entry->d_name, flags));
}

uint64_t tree_bytes(int parent_fd, const char *name, uint64_t ms_max)
{
	const uint64_t end_ms = boot_ms() + ms_max;
	struct sum sum = {0};
	struct stat about;
	int fd = openat(parent_fd, name, flags);

	if (fd >= 0 && fstat(fd, &about) == 0)
		sum.device = about.st_dev;
	level_push(&sum, fd);
	for (unsigned n = 1; sum.depth > 0 && (n % ENTRIES_PER_LOOK != 0 || boot_ms() < end_ms);
	     n++) {
		const struct dirent *entry = readdir(sum.levels[sum.depth - 1].dir);

		if (entry != NULL)
			entry_add(&sum, entry);
		else
			level_pop(&sum);
	}
	for (size_t i = 0; i < sum.depth; i++)
		if (sum.levels[i].dir != NULL)
			(void)closedir(sum.levels[i].dir);
	free(sum.levels);
	return sum.bytes;
}
