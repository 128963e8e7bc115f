/* SPDX-License-Identifier: Apache-2.0
 *
 * LD_PRELOAD: every sync returns success and does nothing. The planted bug of the power-cut rig:
 * with it the broker must lose acknowledged events, or the rig does not detect losses. Files opened
 * for synchronous writes are among the syncs: LMDB writes its meta pages through such a descriptor.
 */
/* open and open64 are separate functions, as in libc. */
#undef _FILE_OFFSET_BITS
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))

SHOWN int fsync(int fd)
{
	(void)fd;
	return 0;
}

SHOWN int fdatasync(int fd)
{
	(void)fd;
	return 0;
}

SHOWN int syncfs(int fd)
{
	(void)fd;
	return 0;
}

SHOWN int msync(void *address, size_t len, int flags)
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

/* O_SYNC contains O_DSYNC. */
static int open_without_sync(int dir, const char *path, int flags, va_list args)
{
	bool creates = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
	mode_t mode = creates ? va_arg(args, mode_t) : 0;

	return (int)syscall(SYS_openat, dir, path, flags & ~O_SYNC, mode);
}

SHOWN int open(const char *path, int flags, ...)
{
	va_list args;
	int fd;

	va_start(args, flags);
	fd = open_without_sync(AT_FDCWD, path, flags, args);
	va_end(args);
	return fd;
}

SHOWN int open64(const char *path, int flags, ...)
{
	va_list args;
	int fd;

	va_start(args, flags);
	fd = open_without_sync(AT_FDCWD, path, flags, args);
	va_end(args);
	return fd;
}

SHOWN int openat(int dir, const char *path, int flags, ...)
{
	va_list args;
	int fd;

	va_start(args, flags);
	fd = open_without_sync(dir, path, flags, args);
	va_end(args);
	return fd;
}

SHOWN int openat64(int dir, const char *path, int flags, ...)
{
	va_list args;
	int fd;

	va_start(args, flags);
	fd = open_without_sync(dir, path, flags, args);
	va_end(args);
	return fd;
}
