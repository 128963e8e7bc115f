/* SPDX-License-Identifier: Apache-2.0
 *
 * The directory of an attempt: its name, and the way to it.
 *
 * A job can rename, delete and replace its attempt's directory and those above it. What lies below
 * the spool is therefore opened step by step and never through a symbolic link; the spool's own
 * path may have some.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attempt.h"
#include "sluice/error.h"

enum { MAKE_TRIES = 4, COMPONENT_MAX = 240, ID_WORST = 3 * ATTEMPT_JOB_MAX, NAME_BYTES = 256 };
/* Of its path below the spool: xx, JOB (without the parts before its last), ATTEMPT.LIFE. */
enum { LEVELS = 3 };

static bool plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_';
}

/* Letters, digits, '-' and '_' stay; any other byte becomes %XX: different ids get different names,
 * none is "." or has a '/'. File names end at 255 bytes: longer ones go on in a directory below,
 * and '~', which no escaped byte has, ends the parts before the last. */
static int escape(const char *job, char *buf, size_t buf_bytes)
{
	size_t len = 0, part = 0;

	if (job[0] == 0)
		return SLUICE_E_INVAL;
	if (strlen(job) > ATTEMPT_JOB_MAX)
		return SLUICE_E_LIMIT;
	for (const unsigned char *at = (const unsigned char *)job; *at != 0; at++) {
		if (len + 8 > buf_bytes)
			return SLUICE_E_LIMIT;
		if (part + 4 > COMPONENT_MAX) {
			buf[len++] = '~';
			buf[len++] = '/';
			part = 0;
		}
		if (plain(*at)) {
			buf[len++] = (char)*at;
			part++;
		} else {
			len += (size_t)snprintf(buf + len, 4, "%%%02X", *at);
			part += 3;
		}
	}
	buf[len] = 0;
	return 0;
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int attempt_job_part(const char *name, char job[ATTEMPT_JOB_MAX + 1], size_t job_len,
		     size_t *ret_len)
{
	size_t len = job_len;

	for (const char *at = name; *at != 0; at++) {
		char c = *at;

		if (c == '~' && at[1] == 0)
			break;
		if (c == '%') {
			if (hex(at[1]) < 0 || hex(at[2]) < 0)
				return SLUICE_E_INVAL;
			c = (char)(hex(at[1]) << 4 | hex(at[2]));
			at += 2;
			if (c == 0)
				return SLUICE_E_INVAL;
		} else if (!plain((unsigned char)c)) {
			return SLUICE_E_INVAL;
		}
		if (len == ATTEMPT_JOB_MAX)
			return SLUICE_E_INVAL;
		job[len++] = c;
	}
	job[len] = 0;
	*ret_len = len;
	return len > job_len ? 0 : SLUICE_E_INVAL;
}

static unsigned bucket(const char *name)
{
	unsigned hash = 5381;

	while (*name != 0)
		hash = hash * 33 + (unsigned char)*name++;
	return hash & 0xff;
}

size_t attempt_spool_len(const char *dir)
{
	size_t len = strlen(dir);

	for (int left = LEVELS; left > 0;) {
		const char *slash = memrchr(dir, '/', len);

		if (slash == NULL || slash == dir)
			break;
		len = (size_t)(slash - dir);
		if (left == 1 || dir[len - 1] != '~')
			left--;
	}
	return len;
}

/* The next component behind `at`, and its end in the path; 0: there is none. */
static size_t component(const char *dir, size_t at, char ret[NAME_BYTES])
{
	size_t len;

	at += strspn(dir + at, "/");
	len = strcspn(dir + at, "/");
	if (len == 0 || len >= NAME_BYTES)
		return 0;
	memcpy(ret, dir + at, len);
	ret[len] = 0;
	return at + len;
}

/* The directory, behind the first `at` bytes of its path not through a link; each one made that is
 * not there. -1: attempt_error(). */
static int walk(const char *dir, size_t at, bool make)
{
	const int flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
	char path[ATTEMPT_PATH_MAX], name[NAME_BYTES];
	int fd, below, error;

	(void)snprintf(path, sizeof(path), "%.*s", (int)at, dir);
	fd = open(path, flags);
	if (fd < 0)
		(void)attempt_fail("open directory", path);
	while (fd >= 0 && (at = component(dir, at, name)) > 0) {
		bool made = !make || mkdirat(fd, name, S_IRWXU) == 0 || errno == EEXIST;

		below = made ? openat(fd, name, flags | O_NOFOLLOW) : -1;
		error = errno;
		(void)close(fd);
		fd = below;
		errno = error;
		(void)snprintf(path, sizeof(path), "%.*s", (int)at, dir);
		if (fd < 0)
			(void)attempt_fail(!made	      ? "create directory"
					   : error == ENOTDIR ? "open directory (a link or a file "
								"is in its place)"
							      : "open directory",
					   path);
	}
	return fd;
}

int attempt_open(const char *dir)
{
	return walk(dir, attempt_spool_len(dir), false);
}

int attempt_open_in(const char *spool, const char *path)
{
	return walk(path, strlen(spool), false);
}

int attempt_dir(const char *spool, const char *job, uint32_t attempt, const char *life, bool make,
		char ret[ATTEMPT_PATH_MAX])
{
	char name[ID_WORST + 16], path[ATTEMPT_PATH_MAX];
	int len, rc = escape(job, name, sizeof(name));

	if (rc != 0)
		return rc;
	len = snprintf(path, sizeof(path), "%s/%02x/%s/%" PRIu32 ".%s", spool, bucket(name), name,
		       attempt, life);
	if (len < 0 || (size_t)len >= sizeof(path)) {
		errno = ENAMETOOLONG;
		(void)attempt_fail("form the name of the attempt below", spool);
		return SLUICE_E_LIMIT;
	}
	if (make) {
		int fd = -1;

		/* Another scheduler's sweep may take one away meanwhile. */
		for (int tries = 0; fd < 0 && tries < MAKE_TRIES; tries++) {
			fd = walk(path, strlen(spool), true);
			if (fd < 0 && attempt_errno() != ENOENT)
				break;
		}
		rc = fd < 0 ? SLUICE_E_IO : 0;
		if (fd >= 0)
			(void)close(fd);
	}
	if (rc == 0)
		memcpy(ret, path, (size_t)len + 1);
	return rc;
}

/* Restores one directory of the path. An entry in its place is moved to `aside`. */
static int level_restore(const char *path, char aside[ATTEMPT_PATH_MAX + 16])
{
	struct stat about;
	int rc = fstatat(AT_FDCWD, path, &about, AT_SYMLINK_NOFOLLOW);

	if (rc == 0 && S_ISDIR(about.st_mode)) {
		if ((about.st_mode & S_IRWXU) != S_IRWXU)
			(void)fchmodat(AT_FDCWD, path, S_IRWXU, AT_SYMLINK_NOFOLLOW);
		return 0;
	}
	if (rc == 0) {
		(void)snprintf(aside, ATTEMPT_PATH_MAX + 16, "%s.%s", path, ATTEMPT_REPLACED);
		if (rename(path, aside) != 0)
			return attempt_fail("rename to", aside);
	}
	return mkdir(path, S_IRWXU) == 0 || errno == EEXIST
		       ? 0
		       : attempt_fail("create directory", path);
}

int attempt_restore(const char *dir)
{
	char path[ATTEMPT_PATH_MAX], aside[ATTEMPT_PATH_MAX + 16] = "", name[NAME_BYTES];
	size_t at = attempt_spool_len(dir);
	int rc = 0, fd;

	while (rc == 0 && (at = component(dir, at, name)) > 0) {
		(void)snprintf(path, sizeof(path), "%.*s", (int)at, dir);
		rc = level_restore(path, aside);
	}
	fd = rc == 0 ? attempt_open(dir) : -1;
	if (fd < 0)
		return SLUICE_E_IO;
	/* The evidence. */
	if (aside[0] != 0)
		(void)renameat(AT_FDCWD, aside, fd, ATTEMPT_REPLACED);
	(void)close(fd);
	return 0;
}
