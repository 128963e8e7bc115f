/* SPDX-License-Identifier: Apache-2.0
 * LD_PRELOAD: every sync says that it is done and does nothing. The planted bug of the power-cut rig: with it the broker must lose
 * what it acknowledged, else the rig sees nothing. */
#include <fcntl.h>
#include <stddef.h>
#include <sys/types.h>

#define SHOWN __attribute__((visibility("default")))
SHOWN int fsync(int fd);
SHOWN int fdatasync(int fd);
SHOWN int msync(void *address, size_t len, int flags);

int fsync(int fd)
{
	(void)fd;
	return 0;
}

int fdatasync(int fd)
{
	(void)fd;
	return 0;
}

int msync(void *address, size_t len, int flags)
{
	(void)address;
	(void)len;
	(void)flags;
	return 0;
}

SHOWN int sync_file_range(int fd, off_t offset, off_t len, unsigned flags)
{
	(void)fd;
	(void)offset;
	(void)len;
	(void)flags;
	return 0;
}
