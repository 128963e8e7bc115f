/* SPDX-License-Identifier: Apache-2.0
 *
 * A preload: a system call fails. PLANT is "CALL ERRNO [PART]": calls of that name fail with that
 * errno; if the call has a path or a name, only those that contain PART.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#define INTERPOSED __attribute__((visibility("default")))

/* 0 or the number. */
static int planted(const char *call, const char *name)
{
	const char *plan = getenv("PLANT");
	char wanted[32] = "", part[64] = "";
	int number = 0;

	if (plan == NULL || sscanf(plan, "%31s %d %63s", wanted, &number, part) < 2 ||
	    strcmp(wanted, call) != 0 ||
	    (part[0] != 0 && (name == NULL || strstr(name, part) == NULL)))
		return 0;
	errno = number;
	return number;
}

static void *real(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

static unsigned eventfds, threads;

/* "#N": its N-th call. */
static const char *nth(unsigned *count)
{
	static char text[16];

	(void)snprintf(text, sizeof(text), "#%u", ++*count);
	return text;
}

#define OPEN(NAME)                                                                    \
	INTERPOSED int taken_##NAME(const char *path, int flags, ...) __asm__(#NAME); \
	int taken_##NAME(const char *path, int flags, ...)                            \
	{                                                                             \
		int (*next)(const char *, int, ...);                                  \
		va_list args;                                                         \
		mode_t mode;                                                          \
                                                                                      \
		va_start(args, flags);                                                \
		mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;             \
		va_end(args);                                                         \
		*(void **)&next = real(#NAME);                                        \
		return planted("open", path) != 0 ? -1 : next(path, flags, mode);     \
	}
OPEN(open)
OPEN(open64)

#define CALL(TYPE, NAME, SYMBOL, PLANTED, WHAT, FAILED, PARAMS, ARGS)    \
	INTERPOSED TYPE taken_##SYMBOL PARAMS __asm__(#SYMBOL);          \
	TYPE taken_##SYMBOL PARAMS                                       \
	{                                                                \
		TYPE(*next) PARAMS;                                      \
                                                                         \
		*(void **)&next = real(#SYMBOL);                         \
		return planted(PLANTED, WHAT) != 0 ? FAILED : next ARGS; \
	}
CALL(int, mkdir, mkdir, "mkdir", path, -1, (const char *path, mode_t mode), (path, mode))
CALL(int, statfs, statfs, "statfs", path, -1, (const char *path, struct statfs *fs), (path, fs))
CALL(int, statfs, statfs64, "statfs", path, -1, (const char *path, struct statfs *fs), (path, fs))
CALL(int, flock, flock, "flock", NULL, -1, (int fd, int how), (fd, how))
CALL(int, rename, rename, "rename", to, -1, (const char *from, const char *to), (from, to))
CALL(int, fsync, fsync, "fsync", NULL, -1, (int fd), (fd))
CALL(int, fdatasync, fdatasync, "fdatasync", NULL, -1, (int fd), (fd))
CALL(int, fallocate, fallocate, "fallocate", NULL, -1, (int fd, int how, off_t at, off_t len),
     (fd, how, at, len))
CALL(int, fallocate, fallocate64, "fallocate", NULL, -1, (int fd, int how, off_t at, off_t len),
     (fd, how, at, len))
CALL(ssize_t, pwrite, pwrite, "write", NULL, -1, (int fd, const void *bytes, size_t len, off_t at),
     (fd, bytes, len, at))
CALL(ssize_t, pwrite, pwrite64, "write", NULL, -1,
     (int fd, const void *bytes, size_t len, off_t at), (fd, bytes, len, at))
CALL(ssize_t, writev, writev, "write", NULL, -1, (int fd, const struct iovec *parts, int count),
     (fd, parts, count))
CALL(int, socket, socket, "socket", NULL, -1, (int domain, int type, int protocol),
     (domain, type, protocol))
CALL(int, bind, bind, "bind", NULL, -1, (int fd, const struct sockaddr *to, socklen_t len),
     (fd, to, len))
CALL(int, listen, listen, "listen", NULL, -1, (int fd, int backlog), (fd, backlog))
CALL(int, eventfd, eventfd, "eventfd", nth(&eventfds), -1, (unsigned from, int flags),
     (from, flags))
CALL(int, epoll_create1, epoll_create1, "epoll_create1", NULL, -1, (int flags), (flags))
CALL(ssize_t, getrandom, getrandom, "getrandom", NULL, -1, (void *buf, size_t len, unsigned flags),
     (buf, len, flags))

/* This function returns the error and does not set errno. */
CALL(int, pthread_create, pthread_create, "pthread_create", nth(&threads), errno,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*run)(void *), void *user),
     (thread, attr, run, user))

/* LMDB's map is the only large mapping of a file. */
#define MAP(SYMBOL)                                                                           \
	INTERPOSED void *taken_##SYMBOL(void *at, size_t len, int prot, int flags, int fd,    \
					off_t offset) __asm__(#SYMBOL);                       \
	void *taken_##SYMBOL(void *at, size_t len, int prot, int flags, int fd, off_t offset) \
	{                                                                                     \
		void *(*next)(void *, size_t, int, int, int, off_t);                          \
                                                                                              \
		*(void **)&next = real(#SYMBOL);                                              \
		if (fd >= 0 && len >= 16u << 20 && planted("mmap", NULL) != 0)                \
			return MAP_FAILED;                                                    \
		return next(at, len, prot, flags, fd, offset);                                \
	}
MAP(mmap)
MAP(mmap64)
