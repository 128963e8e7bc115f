/* SPDX-License-Identifier: Apache-2.0
 * See tree.h. Two directories are open at most, besides the parent: the root, and one that lies in
 * it. */
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "attempt.h"
#include "sluice/error.h"

enum { NAME_BYTES = 256, MOVED_BYTES = 32, PREFIX_BYTES = 18 };
enum { ENTRIES_PER_LOOK = 64 }; /* at the clock */

struct tree {
	int parent_fd;
	char name[NAME_BYTES];
	DIR *root, *below; /* below: NULL or open, and being emptied */
	char below_name[NAME_BYTES];
	char prefix[PREFIX_BYTES]; /* of the names that this object gives */
	uint64_t moved;
	bool progress; /* since the root was last read from its beginning */
	int error;     /* the first that was met in that time; 0: none */
	const char *step;
	char failed[NAME_BYTES];
};

static void failed(struct tree *tree, const char *step, const char *name)
{
	if (tree->error != 0)
		return;
	tree->error = errno;
	tree->step = step;
	(void)snprintf(tree->failed, sizeof(tree->failed), "%s", name);
}

/* A bind mount has the device number of what it shows: the kernel has an attribute for it. Kernels
 * before 5.8 have not; there the device number is all there is. */
static bool is_mount(int fd)
{
	struct statx about = {0};

	return statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &about) == 0 &&
	       (about.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

/* A directory of this mount, with rights that let its owner empty it. NULL: errno. */
static DIR *directory_open(int at_fd, const char *name)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	struct stat above, about;
	int fd = openat(at_fd, name, flags), error;
	DIR *dir = NULL;

	if (fd < 0 && errno == EACCES && fchmodat(at_fd, name, S_IRWXU, AT_SYMLINK_NOFOLLOW) == 0)
		fd = openat(at_fd, name, flags);
	if (fd < 0)
		return NULL;
	errno = EXDEV;
	if (fstat(at_fd, &above) == 0 && fstat(fd, &about) == 0 && about.st_dev == above.st_dev &&
	    !is_mount(fd)) {
		if ((about.st_mode & S_IRWXU) != S_IRWXU)
			(void)fchmod(fd, S_IRWXU); /* without it unlinkat() says why */
		dir = fdopendir(fd);
	}
	error = errno;
	if (dir == NULL)
		(void)close(fd);
	errno = error;
	return dir;
}

int tree_open(int parent_fd, const char *name, struct tree **ret)
{
	struct tree *tree = calloc(1, sizeof(*tree));
	uint64_t random = 0;

	if (tree == NULL)
		return SLUICE_E_NOMEM;
	(void)snprintf(tree->name, sizeof(tree->name), "%s", name);
	tree->parent_fd = openat(parent_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (tree->parent_fd >= 0)
		tree->root = directory_open(tree->parent_fd, name);
	if (tree->root == NULL ||
	    getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
		(void)attempt_fail("open the directory", name);
		tree_close(tree);
		return SLUICE_E_IO;
	}
	(void)snprintf(tree->prefix, sizeof(tree->prefix), "%016" PRIx64 ".", random);
	*ret = tree;
	return 0;
}

void tree_close(struct tree *tree)
{
	if (tree == NULL)
		return;
	if (tree->below != NULL)
		(void)closedir(tree->below);
	if (tree->root != NULL)
		(void)closedir(tree->root);
	if (tree->parent_fd >= 0)
		(void)close(tree->parent_fd);
	free(tree);
}

/* Into the root, under a name of its own there. */
static bool move_up(struct tree *tree, int from_fd, const char *name, char ret_name[MOVED_BYTES])
{
	int root_fd = dirfd(tree->root);
	int rc;

	(void)snprintf(ret_name, MOVED_BYTES, "%s%" PRIx64, tree->prefix, ++tree->moved);
	rc = renameat(from_fd, name, root_fd, ret_name);
	/* A directory that gets another parent has to be writable itself. */
	if (rc != 0 && (errno == EACCES || errno == EPERM) &&
	    fchmodat(from_fd, name, S_IRWXU, AT_SYMLINK_NOFOLLOW) == 0)
		rc = renameat(from_fd, name, root_fd, ret_name);
	if (rc != 0)
		failed(tree, "move directory", name);
	return rc == 0;
}

/* A directory that is not empty, in the root: to be emptied next, where it is. */
static void enter(struct tree *tree, const char *name)
{
	(void)snprintf(tree->below_name, sizeof(tree->below_name), "%s", name);
	tree->below = directory_open(dirfd(tree->root), name);
	if (tree->below == NULL)
		failed(tree, "open directory", name);
}

/* Deletes what is no directory, or an empty one. False: it is a directory that may have
 * something in it. */
static bool entry_delete(struct tree *tree, int dir_fd, const struct dirent *entry)
{
	bool is_dir = entry->d_type == DT_DIR;
	struct stat about;

	if (entry->d_type == DT_UNKNOWN &&
	    fstatat(dir_fd, entry->d_name, &about, AT_SYMLINK_NOFOLLOW) == 0)
		is_dir = S_ISDIR(about.st_mode);
	if (unlinkat(dir_fd, entry->d_name, is_dir ? AT_REMOVEDIR : 0) == 0)
		tree->progress = true;
	else if (is_dir)
		return errno != ENOTEMPTY && errno != EEXIST &&
		       (failed(tree, "delete", entry->d_name), true);
	else
		failed(tree, "delete", entry->d_name);
	return true;
}

static bool is_self(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static void step_below(struct tree *tree)
{
	const struct dirent *entry = readdir(tree->below);
	char moved[MOVED_BYTES];

	if (entry == NULL) {
		(void)closedir(tree->below);
		tree->below = NULL;
		if (unlinkat(dirfd(tree->root), tree->below_name, AT_REMOVEDIR) == 0)
			tree->progress = true;
		else
			failed(tree, "delete directory", tree->below_name);
		return;
	}
	if (!is_self(entry->d_name) && !entry_delete(tree, dirfd(tree->below), entry) &&
	    move_up(tree, dirfd(tree->below), entry->d_name, moved))
		tree->progress = true;
}

/* The root was read to its end. As tree_step(). */
static int pass_end(struct tree *tree)
{
	if (unlinkat(tree->parent_fd, tree->name, AT_REMOVEDIR) == 0)
		return 0;
	if (!tree->progress) {
		failed(tree, "delete directory", tree->name);
		errno = tree->error;
		return attempt_fail(tree->step, tree->failed);
	}
	tree->progress = false;
	tree->error = 0;
	rewinddir(tree->root);
	return 1;
}

int tree_step(struct tree *tree, unsigned entries)
{
	int rc = 1;

	for (unsigned n = 0; n < entries && rc == 1; n++) {
		const struct dirent *entry;

		if (tree->below != NULL) {
			step_below(tree);
			continue;
		}
		entry = readdir(tree->root);
		if (entry == NULL)
			rc = pass_end(tree);
		else if (!is_self(entry->d_name) && !entry_delete(tree, dirfd(tree->root), entry))
			enter(tree, entry->d_name);
	}
	return rc;
}

static uint64_t boot_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int tree_delete(int parent_fd, const char *name, uint64_t ms_max)
{
	const uint64_t end_ms = boot_ms() + ms_max;
	struct tree *tree;
	int rc = tree_open(parent_fd, name, &tree);

	if (rc != 0)
		return rc;
	do
		rc = tree_step(tree, ENTRIES_PER_LOOK);
	while (rc > 0 && boot_ms() < end_ms);
	tree_close(tree);
	return rc;
}
