/* SPDX-License-Identifier: Apache-2.0
 *
 * LD_PRELOAD: while the file that FAIL_GATE names exists, the calls that it names fail. It contains
 * "CALL ERRNO TEXT": calls with a path fail only if the path contains TEXT. For errors that
 * otherwise only a full disk, missing rights or an overloaded machine cause.
 */
/* open() and open64() are both defined here, so the header must not map one to the other. */
#undef _FILE_OFFSET_BITS

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* Not by open(), which is defined below. */
static bool fails(const char *call, const char *path)
{
	char text[256], name[32] = "", part[200] = "";
	const char *gate = getenv("FAIL_GATE");
	int fd = gate != NULL ? (int)syscall(SYS_openat, AT_FDCWD, gate, O_RDONLY | O_CLOEXEC) : -1;
	int error = 0;
	ssize_t got;

	if (fd < 0)
		return false;
	got = read(fd, text, sizeof(text) - 1);
	(void)close(fd);
	if (got <= 0)
		return false;
	text[got] = 0;
	if (sscanf(text, "%31s %d %199s", name, &error, part) < 2 || strcmp(name, call) != 0 ||
	    (path != NULL && strstr(path, part) == NULL))
		return false;
	errno = error;
	return true;
}

#define OPEN(NAME, PARAMS, AT_FD, MORE_FLAGS)                                           \
	EXPORTED int NAME PARAMS                                                        \
	{                                                                               \
		va_list args;                                                           \
		mode_t mode;                                                            \
                                                                                        \
		va_start(args, flags);                                                  \
		mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;               \
		va_end(args);                                                           \
		if (fails("open", path))                                                \
			return -1;                                                      \
		return (int)syscall(SYS_openat, AT_FD, path, flags | MORE_FLAGS, mode); \
	}
OPEN(open, (const char *path, int flags, ...), AT_FDCWD, 0)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, O_LARGEFILE)
OPEN(openat, (int at_fd, const char *path, int flags, ...), at_fd, 0)
OPEN(openat64, (int at_fd, const char *path, int flags, ...), at_fd, O_LARGEFILE)

EXPORTED int mkdirat(int at_fd, const char *path, mode_t mode)
{
	return fails("mkdir", path) ? -1 : (int)syscall(SYS_mkdirat, at_fd, path, mode);
}

EXPORTED int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	return fails("link", to) ? -1 : (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

EXPORTED int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return fails("rename", to) ? -1 : (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
}

EXPORTED int unlinkat(int at_fd, const char *path, int flags)
{
	return fails("unlinkat", path) ? -1 : (int)syscall(SYS_unlinkat, at_fd, path, flags);
}

EXPORTED int fsync(int fd)
{
	return fails("fsync", NULL) ? -1 : (int)syscall(SYS_fsync, fd);
}

EXPORTED int fdatasync(int fd)
{
	return fails("fdatasync", NULL) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

/* Only what goes to standard error, which is the log. */
EXPORTED ssize_t write(int fd, const void *bytes, size_t len)
{
	return fd == STDERR_FILENO && fails("log", NULL) ? -1 : syscall(SYS_write, fd, bytes, len);
}

/* "room": only space that is already allocated can be written. */
static bool write_fails(int fd, off64_t at, size_t len)
{
	struct stat about;

	if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode))
		return fails("socket", NULL);
	return fails("pwrite", NULL) ||
	       ((uint64_t)at + len > (uint64_t)about.st_blocks * 512 && fails("room", NULL));
}

EXPORTED ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at)
{
	return write_fails(fd, at, len) ? -1 : syscall(SYS_pwrite64, fd, bytes, len, at);
}

EXPORTED ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at)
{
	return write_fails(fd, at, len) ? -1 : syscall(SYS_pwrite64, fd, bytes, len, at);
}

EXPORTED ssize_t writev(int fd, const struct iovec *parts, int count)
{
	off64_t at = lseek64(fd, 0, SEEK_CUR);
	size_t len = 0;

	for (int i = 0; i < count; i++)
		len += parts[i].iov_len;
	return write_fails(fd, at, len) ? -1 : syscall(SYS_writev, fd, parts, count);
}

EXPORTED int fallocate(int fd, int mode, off_t at, off_t len)
{
	return fails("room", NULL) ? -1 : (int)syscall(SYS_fallocate, fd, mode, at, len);
}

EXPORTED int fallocate64(int fd, int mode, off64_t at, off64_t len)
{
	return fails("room", NULL) ? -1 : (int)syscall(SYS_fallocate, fd, mode, at, len);
}

EXPORTED ssize_t readv(int fd, const struct iovec *parts, int count)
{
	return fails("socket", NULL) ? -1 : syscall(SYS_readv, fd, parts, count);
}

EXPORTED ssize_t recv(int fd, void *bytes, size_t len, int flags)
{
	return fails("socket", NULL) ? -1
				     : syscall(SYS_recvfrom, fd, bytes, len, flags, NULL, NULL);
}

EXPORTED int accept4(int fd, __SOCKADDR_ARG peer, socklen_t *restrict len, int flags)
{
	return fails("accept", NULL) ? -1
				     : (int)syscall(SYS_accept4, fd, peer.__sockaddr__, len, flags);
}

EXPORTED int epoll_ctl(int epoll_fd, int what, int fd, struct epoll_event *event)
{
	if (what == EPOLL_CTL_ADD && fails("epoll_ctl", NULL))
		return -1;
	return (int)syscall(SYS_epoll_ctl, epoll_fd, what, fd, event);
}

EXPORTED ssize_t getrandom(void *bytes, size_t len, unsigned flags)
{
	return fails("getrandom", NULL) ? -1 : syscall(SYS_getrandom, bytes, len, flags);
}

EXPORTED int pipe2(int fds[2], int flags)
{
	return fails("pipe2", NULL) ? -1 : (int)syscall(SYS_pipe2, fds, flags);
}

EXPORTED int kill(pid_t pid, int sig)
{
	return sig != 0 && fails("kill", NULL) ? -1 : (int)syscall(SYS_kill, pid, sig);
}

/* Only in a program whose name contains the text, such as the shepherd. */
EXPORTED pid_t fork(void)
{
	return fails("fork", program_invocation_short_name) ? -1 : _Fork();
}

EXPORTED int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
			 const posix_spawnattr_t *attributes, char *const argv[], char *const env[])
{
	return fails("posix_spawn", path) ? errno
					  : posix_spawnp(pid, path, actions, attributes, argv, env);
}
