/* SPDX-License-Identifier: Apache-2.0
 * Attempts as files, see attempt.h. */
#include "attempt.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proc.h"
#include "sluice/error.h"

int attempt_life(const char spool_id[ATTEMPT_SPOOL_BYTES], char ret[ATTEMPT_LIFE_BYTES])
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return attempt_fail("read", "random bytes");
	(void)snprintf(ret, ATTEMPT_LIFE_BYTES, "%s%016" PRIx64, spool_id, random);
	return 0;
}

bool attempt_life_is_of(const char life[ATTEMPT_LIFE_BYTES],
			const char spool_id[ATTEMPT_SPOOL_BYTES])
{
	return memcmp(life, spool_id, ATTEMPT_SPOOL_BYTES - 1) == 0;
}

void attempt_tag(const char *job, uint32_t attempt, const char *life, char ret[ATTEMPT_TAG_MAX])
{
	(void)snprintf(ret, ATTEMPT_TAG_MAX, "%s#%" PRIu32 ".%s", job, attempt, life);
}

int attempt_life_of(const char *tag, const char *job, uint32_t attempt,
		    char ret[ATTEMPT_LIFE_BYTES])
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

/* dir_fd, which need not be readable, names the directory. */
static int sync_at(int dir_fd, const char *path)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

	if (fd < 0)
		return attempt_fail("open directory", path);
	rc = fsync(fd) == 0 ? 0 : attempt_fail("sync directory", path);
	(void)close(fd);
	return rc;
}

static int sync_dir(const char *path)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), rc;

	if (fd < 0)
		return attempt_fail("open directory", path);
	rc = sync_at(fd, path);
	(void)close(fd);
	return rc;
}

/* The attempt's directory and those above it, up to the spool: without them a power cut takes the
 * mark away, and the attempt would run a second time. */
static int sync_chain(int dir_fd, const char *dir)
{
	const size_t spool_len = attempt_spool_len(dir);
	char path[ATTEMPT_PATH_MAX];
	int rc = sync_at(dir_fd, dir);

	(void)snprintf(path, sizeof(path), "%s", dir);
	while (rc == 0 && strlen(path) > spool_len) {
		*strrchr(path, '/') = 0;
		rc = sync_dir(path);
	}
	return rc;
}

/* As attempt_fail(), of a file in a directory. */
static int fail_at(const char *step, const char *dir, const char *name)
{
	char path[ATTEMPT_PATH_MAX + 64];
	int error = errno;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	errno = error;
	return attempt_fail(step, path);
}

int attempt_read_at(int dir_fd, const char *dir, const char *name, char *buf, size_t buf_bytes)
{
	/* The job may have put anything in the place of a file: nothing is followed or waited
	 * for. */
	int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	ssize_t got;

	if (fd < 0 && errno == ENOENT)
		return SLUICE_E_NOT_FOUND;
	if (fd < 0 && errno != ELOOP)
		return fail_at("open", dir, name);
	got = fd < 0 ? 0 : read(fd, buf, buf_bytes - 1);
	if (got < 0)
		(void)fail_at("read", dir, name);
	if (fd >= 0)
		(void)close(fd);
	if (got < 0)
		return SLUICE_E_IO;
	buf[got] = 0;
	return 0;
}

/* A new file with these bytes, synced. */
static int write_new(int dir_fd, const char *dir, const char *name, const void *bytes, size_t len)
{
	int fd, rc = 0;

	/* Never into an old file of the name: it may be the one that a mark is linked to. */
	if (unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT)
		return fail_at("remove", dir, name);
	fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail_at("create", dir, name);
	for (size_t done = 0; rc == 0 && done < len;) {
		ssize_t put = write(fd, (const char *)bytes + done, len - done);

		if (put > 0)
			done += (size_t)put;
		else if (put == 0 || errno != EINTR)
			rc = fail_at("write", dir, name);
	}
	if (rc == 0 && fsync(fd) != 0)
		rc = fail_at("sync", dir, name);
	(void)close(fd);
	if (rc != 0)
		(void)unlinkat(dir_fd, name, 0);
	return rc;
}

static int spool_read(const char *spool, char ret[ATTEMPT_SPOOL_BYTES])
{
	const size_t digits = ATTEMPT_SPOOL_BYTES - 1;
	char text[32];
	int fd = open(spool, O_PATH | O_DIRECTORY | O_CLOEXEC), rc;

	if (fd < 0)
		return errno == ENOENT ? SLUICE_E_NOT_FOUND : attempt_fail("open directory", spool);
	rc = attempt_read_at(fd, spool, "id", text, sizeof(text));
	(void)close(fd);
	if (rc != 0)
		return rc;
	if (strspn(text, "0123456789abcdef") != digits || strcmp(text + digits, "\n") != 0)
		return SLUICE_E_CORRUPT;
	text[digits] = 0;
	memcpy(ret, text, ATTEMPT_SPOOL_BYTES);
	return 0;
}

/* Makes its file `id`. Of two schedulers that make it at once both read the first one's. */
static int spool_name(int fd, const char *spool)
{
	char temporary[32], line[16];
	uint32_t random;
	int rc, len;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return attempt_fail("read", "random bytes");
	len = snprintf(line, sizeof(line), "%08" PRIx32 "\n", random);
	(void)snprintf(temporary, sizeof(temporary), "id.%d", (int)gettid());
	rc = write_new(fd, spool, temporary, line, (size_t)len);
	if (rc != 0)
		return rc;
	if (linkat(fd, temporary, fd, "id", 0) != 0 && errno != EEXIST)
		rc = fail_at("link", spool, "id");
	(void)unlinkat(fd, temporary, 0);
	return rc != 0 ? rc : sync_at(fd, spool);
}

int attempt_spool(const char *spool, char ret[ATTEMPT_SPOOL_BYTES])
{
	char path[ATTEMPT_PATH_MAX];
	int rc = spool_read(spool, ret), fd;

	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	fd = open(spool, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return attempt_fail("open directory", spool);
	rc = spool_name(fd, spool);
	(void)close(fd);
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

static int write_at(int dir_fd, const char *dir, const char *name, const void *bytes, size_t len)
{
	char temporary[64];
	int rc;

	(void)snprintf(temporary, sizeof(temporary), "%s.%d", name, (int)gettid());
	rc = write_new(dir_fd, dir, temporary, bytes, len);
	if (rc == 0 && renameat(dir_fd, temporary, dir_fd, name) != 0) {
		rc = fail_at("rename to", dir, name);
		(void)unlinkat(dir_fd, temporary, 0);
	}
	return rc != 0 ? rc : sync_at(dir_fd, dir);
}

int attempt_write(const char *dir, const char *name, const void *bytes, size_t len)
{
	int fd = attempt_open(dir), rc;

	if (fd < 0)
		return SLUICE_E_IO;
	rc = write_at(fd, dir, name, bytes, len);
	(void)close(fd);
	return rc;
}

static const char tag_file[] = "tag";

/* Not synced: without it a directory that was moved is only not deleted. */
void attempt_write_tag(const char *dir, const char *tag)
{
	const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	int dir_fd = attempt_open(dir),
	    fd = dir_fd < 0 ? -1 : openat(dir_fd, tag_file, flags, 0600);

	if (fd >= 0) {
		(void)dprintf(fd, "%s\n", tag);
		(void)close(fd);
	}
	if (dir_fd >= 0)
		(void)close(dir_fd);
}

int attempt_read_tag(int dir_fd, const char spool_id[ATTEMPT_SPOOL_BYTES],
		     char ret_job[ATTEMPT_JOB_MAX + 1], uint32_t *ret_attempt,
		     char ret_life[ATTEMPT_LIFE_BYTES])
{
	char text[ATTEMPT_TAG_MAX + 2], *number, *end;
	unsigned long attempt;
	size_t len;

	if (attempt_read_at(dir_fd, "", tag_file, text, sizeof(text)) != 0)
		return SLUICE_E_NOT_FOUND;
	len = strlen(text);
	number = strrchr(text, '#');
	if (number == NULL || number - text > ATTEMPT_JOB_MAX || text[len - 1] != '\n')
		return SLUICE_E_NOT_FOUND;
	text[len - 1] = 0;
	memcpy(ret_job, text, (size_t)(number - text));
	ret_job[number - text] = 0;
	attempt = strtoul(number + 1, &end, 10);
	*ret_attempt = (uint32_t)attempt;
	if (attempt == 0 || attempt > UINT32_MAX ||
	    attempt_life_of(text, ret_job, *ret_attempt, ret_life) != 0 ||
	    !attempt_life_is_of(ret_life, spool_id))
		return SLUICE_E_NOT_FOUND;
	return 0;
}

void attempt_work(const char *dir, char ret[ATTEMPT_WORK_MAX])
{
	(void)snprintf(ret, ATTEMPT_WORK_MAX, "%s/work", dir);
}

int attempt_make_work(const char *dir)
{
	int fd = attempt_open(dir), rc;

	if (fd < 0)
		return SLUICE_E_IO;
	rc = mkdirat(fd, "work", 0700) == 0 || errno == EEXIST
		     ? 0
		     : fail_at("create directory", dir, "work");
	(void)close(fd);
	return rc;
}

/* ---- the status on a disk that is full by then ---- */

static const char reserve[] = "reserve";

int attempt_reserve(const char *dir)
{
	int dir_fd = attempt_open(dir), fd, rc;

	if (dir_fd < 0)
		return SLUICE_E_IO;
	fd = openat(dir_fd, reserve, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
		    0600);
	if (fd < 0) {
		rc = fail_at("create", dir, reserve);
	} else {
		errno = posix_fallocate(fd, 0, ATTEMPT_STATUS_BYTES);
		rc = errno == 0 ? 0 : fail_at("reserve room in", dir, reserve);
		(void)close(fd);
	}
	(void)close(dir_fd);
	return rc;
}

static int write_reserved(int dir_fd, const char *dir, const char *line, size_t len)
{
	int fd = openat(dir_fd, reserve, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return fail_at("open", dir, reserve);
	/* In place first: to cut a file gives its room to others. */
	if (pwrite(fd, line, len, 0) != (ssize_t)len || ftruncate(fd, (off_t)len) != 0 ||
	    fsync(fd) != 0)
		rc = fail_at("write", dir, reserve);
	(void)close(fd);
	if (rc == 0 && renameat(dir_fd, reserve, dir_fd, "status") != 0)
		rc = fail_at("rename to", dir, "status");
	return rc != 0 ? rc : sync_at(dir_fd, dir);
}

static int write_status(const char *dir, const char *line, size_t len)
{
	int fd = attempt_open(dir), rc;

	if (fd < 0)
		return SLUICE_E_IO;
	rc = write_at(fd, dir, "status", line, len);
	if (rc == 0)
		(void)unlinkat(fd, reserve, 0);
	else if (attempt_errno() != ENOENT && attempt_errno() != EACCES)
		rc = write_reserved(fd, dir, line, len);
	(void)close(fd);
	return rc;
}

int attempt_write_status(const char *dir, const char *line, size_t len)
{
	int rc = write_status(dir, line, len);

	if (rc == 0 || attempt_restore(dir) != 0)
		return rc;
	return write_status(dir, line, len);
}

static int take_at(int dir_fd, const char *dir, pid_t pid, pid_t shepherd)
{
	char temporary[32], line[256], boot[17];
	int rc, len;

	boot_id(boot);
	len = snprintf(line, sizeof(line), "%d %" PRIu64 " %d %" PRIu64 " %s\n", (int)pid,
		       process_start_time(pid), (int)shepherd, process_start_time(shepherd), boot);
	(void)snprintf(temporary, sizeof(temporary), "start.%d", (int)gettid());
	rc = write_new(dir_fd, dir, temporary, line, (size_t)len);
	if (rc != 0)
		return rc;
	if (linkat(dir_fd, temporary, dir_fd, "start", 0) != 0)
		rc = errno == EEXIST ? SLUICE_E_EXISTS : fail_at("link", dir, "start");
	(void)unlinkat(dir_fd, temporary, 0);
	return rc != 0 ? rc : sync_chain(dir_fd, dir);
}

int attempt_take(const char *dir, pid_t pid, pid_t shepherd)
{
	int fd = attempt_open(dir), rc;

	if (fd < 0)
		return SLUICE_E_IO;
	rc = take_at(fd, dir, pid, shepherd);
	(void)close(fd);
	return rc;
}

void attempt_restore_mark(const char *dir, pid_t pid, pid_t shepherd)
{
	int fd = attempt_open(dir);
	bool there = fd >= 0 && faccessat(fd, "start", F_OK, AT_SYMLINK_NOFOLLOW) == 0;

	if (fd >= 0)
		(void)close(fd);
	if (there || attempt_restore(dir) != 0)
		return;
	(void)attempt_reserve(dir);
	(void)attempt_take(dir, pid, shepherd);
}

int attempt_forbid(const char *dir)
{
	return attempt_take(dir, 0, 0);
}
