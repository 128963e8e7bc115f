/* SPDX-License-Identifier: Apache-2.0
 * Attempts as files, see attempt.h. */
#include "attempt.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proc.h"
#include "sluice/error.h"

enum { MAKE_TRIES = 4, COMPONENT_MAX = 240, ID_WORST = 3 * ATTEMPT_JOB_MAX, PATH_SHOWN = 300 };

static _Thread_local char error_text[ATTEMPT_ERROR_BYTES];
static _Thread_local int error_number;

const char *attempt_error(void)
{
	return error_text;
}

int attempt_errno(void)
{
	return error_number;
}

const char *attempt_errno_name(int error)
{
	const char *name = strerrorname_np(error);

	return name != NULL ? name : "unknown";
}

int attempt_fail(const char *step, const char *path)
{
	size_t len = strlen(path);
	int error = errno;

	error_number = error;
	(void)snprintf(error_text, sizeof(error_text), "%s %s%s: %s (%s)", step,
		       len > PATH_SHOWN ? "..." : "", len > PATH_SHOWN ? path + len - PATH_SHOWN : path,
		       strerror(error), attempt_errno_name(error));
	return SLUICE_E_IO;
}

static bool plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
	       c == '_';
}

/* Letters, digits, '-' and '_' stay; any other byte becomes %XX: different ids get different names, none is
 * "." or has a '/'. File names end at 255 bytes: longer ones go on in a directory below, and '~', which no
 * escaped byte has, ends the parts before the last. */
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

int attempt_job_part(const char *name, char job[ATTEMPT_JOB_MAX + 1], size_t job_len, size_t *ret_len)
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

/* Every directory from the spool down to path. NOT_FOUND: another scheduler's sweep took one away meanwhile. */
static int make_dirs(char *path, size_t spool_len)
{
	for (char *at = path + spool_len + 1;; at++) {
		bool last = *at == 0, made;
		int rc;

		if (!last && *at != '/')
			continue;
		*at = 0;
		made = mkdir(path, 0700) == 0 || errno == EEXIST;
		rc = made ? 0 : errno == ENOENT ? SLUICE_E_NOT_FOUND : SLUICE_E_IO;
		if (!made)
			(void)attempt_fail("create directory", path);
		if (!last)
			*at = '/';
		if (rc != 0)
			return rc;
		if (last)
			return 0;
	}
}

int attempt_life(const char spool_id[ATTEMPT_SPOOL_BYTES], char ret[ATTEMPT_LIFE_BYTES])
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return attempt_fail("read", "random bytes");
	(void)snprintf(ret, ATTEMPT_LIFE_BYTES, "%s%016" PRIx64, spool_id, random);
	return 0;
}

bool attempt_life_is_of(const char life[ATTEMPT_LIFE_BYTES], const char spool_id[ATTEMPT_SPOOL_BYTES])
{
	return memcmp(life, spool_id, ATTEMPT_SPOOL_BYTES - 1) == 0;
}

void attempt_tag(const char *job, uint32_t attempt, const char *life, char ret[ATTEMPT_TAG_MAX])
{
	(void)snprintf(ret, ATTEMPT_TAG_MAX, "%s#%" PRIu32 ".%s", job, attempt, life);
}

int attempt_life_of(const char *tag, const char *job, uint32_t attempt, char ret[ATTEMPT_LIFE_BYTES])
{
	const char *life = strrchr(tag, '.');
	char expected[ATTEMPT_TAG_MAX];

	if (life == NULL || strlen(life + 1) != ATTEMPT_LIFE_BYTES - 1 ||
	    strspn(life + 1, "0123456789abcdef") != ATTEMPT_LIFE_BYTES - 1)
		return SLUICE_E_INVAL;
	attempt_tag(job, attempt, life + 1, expected);
	if (strcmp(tag, expected) != 0)
		return SLUICE_E_INVAL;
	memcpy(ret, life + 1, ATTEMPT_LIFE_BYTES);
	return 0;
}

int attempt_dir(const char *spool, const char *job, uint32_t attempt, const char *life, bool make,
		char ret[ATTEMPT_PATH_MAX])
{
	char name[ID_WORST + 16], path[ATTEMPT_PATH_MAX];
	int len, rc = escape(job, name, sizeof(name));

	if (rc != 0)
		return rc;
	len = snprintf(path, sizeof(path), "%s/%02x/%s/%" PRIu32 ".%s", spool, bucket(name), name, attempt,
		       life);
	if (len < 0 || (size_t)len >= sizeof(path)) {
		errno = ENAMETOOLONG;
		(void)attempt_fail("form the name of the attempt below", spool);
		return SLUICE_E_LIMIT;
	}
	if (make) {
		rc = SLUICE_E_NOT_FOUND;
		for (int tries = 0; tries < MAKE_TRIES && rc == SLUICE_E_NOT_FOUND; tries++)
			rc = make_dirs(path, strlen(spool));
	}
	if (rc == SLUICE_E_NOT_FOUND)
		rc = SLUICE_E_IO;
	if (rc == 0)
		memcpy(ret, path, (size_t)len + 1);
	return rc;
}

static int sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

	if (fd < 0)
		return attempt_fail("open directory", path);
	rc = fsync(fd) == 0 ? 0 : attempt_fail("sync directory", path);
	(void)close(fd);
	return rc;
}

/* The attempt's directory and those above it, down from the spool: without them a power cut takes the mark
 * away, and the attempt would run a second time. */
static int sync_chain(const char *dir)
{
	char path[ATTEMPT_PATH_MAX], *slash;
	int rc = sync_dir(dir);

	(void)snprintf(path, sizeof(path), "%s", dir);
	/* Left to do: JOB (all its parts), xx, the spool. */
	for (int left = 3; rc == 0 && left > 0 && (slash = strrchr(path, '/')) != NULL && slash != path;) {
		*slash = 0;
		rc = sync_dir(path);
		if (left == 1 || path[strlen(path) - 1] != '~')
			left--;
	}
	return rc;
}

int attempt_read(const char *dir, const char *name, char *buf, size_t buf_bytes)
{
	char path[ATTEMPT_PATH_MAX + 16];
	ssize_t got;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return SLUICE_E_NOT_FOUND;
	if (fd < 0)
		return attempt_fail("open", path);
	got = read(fd, buf, buf_bytes - 1);
	if (got < 0)
		(void)attempt_fail("read", path);
	(void)close(fd);
	if (got < 0)
		return SLUICE_E_IO;
	buf[got] = 0;
	return 0;
}

/* A new file with these bytes, synced. */
static int write_new(const char *path, const void *bytes, size_t len)
{
	int fd, rc = 0;

	/* Never into an old file of the name: it may be the one that a mark is linked to. */
	if (unlink(path) != 0 && errno != ENOENT)
		return attempt_fail("remove", path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return attempt_fail("create", path);
	for (size_t done = 0; rc == 0 && done < len;) {
		ssize_t put = write(fd, (const char *)bytes + done, len - done);

		if (put > 0)
			done += (size_t)put;
		else if (put == 0 || errno != EINTR)
			rc = attempt_fail("write", path);
	}
	if (rc == 0 && fsync(fd) != 0)
		rc = attempt_fail("sync", path);
	(void)close(fd);
	if (rc != 0)
		(void)unlink(path);
	return rc;
}

static int spool_read(const char *spool, char ret[ATTEMPT_SPOOL_BYTES])
{
	const size_t digits = ATTEMPT_SPOOL_BYTES - 1;
	char text[32];
	int rc = attempt_read(spool, "id", text, sizeof(text));

	if (rc != 0)
		return rc;
	if (strspn(text, "0123456789abcdef") != digits || strcmp(text + digits, "\n") != 0)
		return SLUICE_E_CORRUPT;
	text[digits] = 0;
	memcpy(ret, text, ATTEMPT_SPOOL_BYTES);
	return 0;
}

int attempt_spool(const char *spool, char ret[ATTEMPT_SPOOL_BYTES])
{
	char path[ATTEMPT_PATH_MAX], temporary[ATTEMPT_PATH_MAX + 32], line[16];
	int rc = spool_read(spool, ret), len;
	uint32_t random;

	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return attempt_fail("read", "random bytes");
	len = snprintf(line, sizeof(line), "%08" PRIx32 "\n", random);
	(void)snprintf(path, sizeof(path), "%s/id", spool);
	(void)snprintf(temporary, sizeof(temporary), "%s.%d", path, (int)gettid());
	rc = write_new(temporary, line, (size_t)len);
	if (rc != 0)
		return rc;
	/* Of two that make it at once both read the first one's. */
	if (link(temporary, path) != 0 && errno != EEXIST)
		rc = attempt_fail("link", path);
	(void)unlink(temporary);
	if (rc == 0)
		rc = sync_dir(spool);
	(void)snprintf(path, sizeof(path), "%s/..", spool);
	if (rc == 0)
		rc = sync_dir(path);
	return rc != 0 ? rc : spool_read(spool, ret);
}

int attempt_spool_check(const char *spool, const char id[ATTEMPT_SPOOL_BYTES])
{
	char now[ATTEMPT_SPOOL_BYTES];
	int rc = spool_read(spool, now);

	if (rc == 0 && strcmp(now, id) == 0)
		return 0;
	if (rc == SLUICE_E_IO)
		return rc;
	errno = rc == SLUICE_E_NOT_FOUND ? ENOENT : rc == SLUICE_E_CORRUPT ? EBADMSG : ESTALE;
	return attempt_fail(rc == 0 ? "use the spool, whose file `id` is another one now,"
				    : "read the file `id` of the spool",
			    spool);
}

int attempt_write(const char *dir, const char *name, const void *bytes, size_t len)
{
	char path[ATTEMPT_PATH_MAX + 16], temporary[ATTEMPT_PATH_MAX + 40];
	int rc;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)snprintf(temporary, sizeof(temporary), "%s/%s.%d", dir, name, (int)gettid());
	rc = write_new(temporary, bytes, len);
	if (rc == 0 && rename(temporary, path) != 0) {
		rc = attempt_fail("rename to", path);
		(void)unlink(temporary);
	}
	return rc != 0 ? rc : sync_dir(dir);
}

void attempt_work(const char *dir, char ret[ATTEMPT_WORK_MAX])
{
	(void)snprintf(ret, ATTEMPT_WORK_MAX, "%s/work", dir);
}

int attempt_make_work(const char *dir)
{
	char path[ATTEMPT_WORK_MAX];

	attempt_work(dir, path);
	return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : attempt_fail("create directory", path);
}

/* ---- the status on a disk that is full by then ---- */

int attempt_reserve(const char *dir)
{
	char path[ATTEMPT_PATH_MAX + 16];
	int fd, rc;

	(void)snprintf(path, sizeof(path), "%s/reserve", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return attempt_fail("create", path);
	errno = posix_fallocate(fd, 0, ATTEMPT_STATUS_BYTES);
	rc = errno == 0 ? 0 : attempt_fail("reserve room in", path);
	(void)close(fd);
	return rc;
}

static int write_reserved(const char *dir, const char *line, size_t len)
{
	char path[ATTEMPT_PATH_MAX + 16], status[ATTEMPT_PATH_MAX + 16];
	int fd, rc = 0;

	(void)snprintf(path, sizeof(path), "%s/reserve", dir);
	(void)snprintf(status, sizeof(status), "%s/status", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return attempt_fail("open", path);
	/* In place first: to cut a file gives its room to others. */
	if (pwrite(fd, line, len, 0) != (ssize_t)len || ftruncate(fd, (off_t)len) != 0 || fsync(fd) != 0)
		rc = attempt_fail("write", path);
	(void)close(fd);
	if (rc == 0 && rename(path, status) != 0)
		rc = attempt_fail("rename to", status);
	return rc != 0 ? rc : sync_dir(dir);
}

/* What a job can take away from its attempt, and its shepherd cannot do without. */
static void dir_bring_back(const char *dir, int error)
{
	char above[ATTEMPT_PATH_MAX], *slash;

	if (error == EACCES)
		(void)chmod(dir, 0700);
	if (error != ENOENT || mkdir(dir, 0700) == 0)
		return;
	(void)snprintf(above, sizeof(above), "%s", dir);
	slash = strrchr(above, '/');
	if (slash != NULL)
		*slash = 0;
	(void)mkdir(above, 0700);
	(void)mkdir(dir, 0700);
}

int attempt_write_status(const char *dir, const char *line, size_t len)
{
	char path[ATTEMPT_PATH_MAX + 16];
	int rc = attempt_write(dir, "status", line, len);

	if (rc != 0 && (attempt_errno() == ENOENT || attempt_errno() == EACCES)) {
		dir_bring_back(dir, attempt_errno());
		rc = attempt_write(dir, "status", line, len);
	}
	if (rc != 0)
		return write_reserved(dir, line, len);
	(void)snprintf(path, sizeof(path), "%s/reserve", dir);
	(void)unlink(path);
	return 0;
}

int attempt_take(const char *dir, pid_t pid, pid_t shepherd)
{
	char path[ATTEMPT_PATH_MAX + 16], temporary[ATTEMPT_PATH_MAX + 40], line[256], boot[17];
	int rc, len;

	boot_id(boot);
	len = snprintf(line, sizeof(line), "%d %" PRIu64 " %d %" PRIu64 " %s\n", (int)pid,
		       process_start_time(pid), (int)shepherd, process_start_time(shepherd), boot);
	(void)snprintf(path, sizeof(path), "%s/start", dir);
	(void)snprintf(temporary, sizeof(temporary), "%s/start.%d", dir, (int)gettid());
	rc = write_new(temporary, line, (size_t)len);
	if (rc != 0)
		return rc;
	if (link(temporary, path) != 0)
		rc = errno == EEXIST ? SLUICE_E_EXISTS : attempt_fail("link", path);
	(void)unlink(temporary);
	return rc != 0 ? rc : sync_chain(dir);
}

int attempt_forbid(const char *dir)
{
	return attempt_take(dir, 0, 0);
}

int attempt_signal(const char *dir, int signal)
{
	struct attempt_view view;

	if (attempt_look(dir, &view) != 0)
		return SLUICE_E_IO;
	/* The job leads a process group of its own. */
	if (view.state == ATTEMPT_RUNNING && view.process_lives && kill(-view.pid, signal) != 0 &&
	    errno != ESRCH)
		return attempt_fail("signal the processes of", dir);
	return 0;
}

int attempt_cancel(const char *dir, int signal)
{
	int rc = attempt_write(dir, "cancel", "1\n", 2);

	if (signal != 0 && attempt_signal(dir, signal) != 0)
		rc = SLUICE_E_IO;
	return rc;
}
