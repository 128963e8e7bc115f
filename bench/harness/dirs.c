/* SPDX-License-Identifier: Apache-2.0
 * Scratch directories: created, emptied, copied and removed with their contents. */
#include "dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"

int dir_make(const char *path)
{
	struct stat made;

	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return bench_error("mkdir %s: %s", path, strerror(errno));
	if (stat(path, &made) == 0 && !S_ISDIR(made.st_mode))
		return bench_error("%s is not a directory", path);
	return 0;
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *at)
{
	(void)stat;
	(void)type;
	(void)at;
	return remove(path);
}

int dir_remove(const char *path)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
		return bench_error("remove %s: %s", path, strerror(errno));
	return 0;
}

int dir_empty(const char *path)
{
	return dir_remove(path) != 0 ? -1 : dir_make(path);
}

void dir_sync(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)syncfs(fd);
	(void)close(fd);
}

int dir_copy(const char *from, const char *to)
{
	const char *argv[] = {"cp", "-a", "--sparse=always", from, to, NULL};
	int status = 0;
	pid_t pid;

	if (posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ) != 0 ||
	    waitpid(pid, &status, 0) != pid || status != 0)
		return bench_error("cannot copy %s to %s", from, to);
	return 0;
}
