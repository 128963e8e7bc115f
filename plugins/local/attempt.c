/* SPDX-License-Identifier: Apache-2.0
 * Attempts as files, see attempt.h. */
#include "attempt.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sluice/error.h"

/* Letters, digits, '-' and '_' stay; any other byte becomes %XX: different ids get different names, none is "." or has a '/'. */
static int escape(const char *job, char *buf, size_t buf_bytes)
{
	size_t len = 0;

	for (const unsigned char *at = (const unsigned char *)job; *at != 0; at++) {
		if (len + 4 > buf_bytes)
			return SLUICE_E_LIMIT;
		if (isalnum(*at) || *at == '-' || *at == '_')
			buf[len++] = (char)*at;
		else
			len += (size_t)snprintf(buf + len, 4, "%%%02X", *at);
	}
	buf[len] = 0;
	return len == 0 ? SLUICE_E_INVAL : 0;
}

/* File names end at 255 bytes: a longer escaped id keeps its first 200 and a hash of all. */
static void shorten(char *name)
{
	uint64_t hash = 1469598103934665603u;

	if (strlen(name) <= 240)
		return;
	for (const char *at = name; *at != 0; at++)
		hash = (hash ^ (unsigned char)*at) * 1099511628211u;
	(void)snprintf(name + 200, 20, "%%%016" PRIx64, hash);
}

static unsigned bucket(const char *name)
{
	unsigned hash = 5381;

	while (*name != 0)
		hash = hash * 33 + (unsigned char)*name++;
	return hash & 0xff;
}

static int make_dir(const char *path)
{
	return mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : SLUICE_E_IO;
}

int attempt_dir(const char *spool, const char *job, uint32_t attempt, bool make, char ret[ATTEMPT_PATH_MAX])
{
	char name[3 * 255 + 1];
	int len, rc = escape(job, name, sizeof(name));

	if (rc != 0)
		return rc;
	shorten(name);
	len = snprintf(ret, ATTEMPT_PATH_MAX, "%s/%02x", spool, bucket(name));
	if (len < 0 || (size_t)len + strlen(name) + 14 > ATTEMPT_PATH_MAX)
		return SLUICE_E_LIMIT;
	rc = make ? make_dir(ret) : 0;
	len += snprintf(ret + len, ATTEMPT_PATH_MAX - (size_t)len, "/%s", name);
	if (rc == 0 && make)
		rc = make_dir(ret);
	(void)snprintf(ret + len, ATTEMPT_PATH_MAX - (size_t)len, "/%" PRIu32, attempt);
	if (rc == 0 && make)
		rc = make_dir(ret);
	return rc;
}

static int read_file(const char *dir, const char *name, char *buf, size_t buf_bytes)
{
	char path[ATTEMPT_PATH_MAX + 16];
	ssize_t got;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? SLUICE_E_NOT_FOUND : SLUICE_E_IO;
	got = read(fd, buf, buf_bytes - 1);
	(void)close(fd);
	if (got < 0)
		return SLUICE_E_IO;
	buf[got] = 0;
	return 0;
}

int attempt_write(const char *dir, const char *name, const void *bytes, size_t len)
{
	char path[ATTEMPT_PATH_MAX + 16], temporary[ATTEMPT_PATH_MAX + 40];
	int fd, dir_fd, rc = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)snprintf(temporary, sizeof(temporary), "%s/%s.%d", dir, name, (int)getpid());
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return SLUICE_E_IO;
	if (write(fd, bytes, len) != (ssize_t)len || fsync(fd) != 0)
		rc = SLUICE_E_IO;
	(void)close(fd);
	if (rc == 0 && rename(temporary, path) != 0)
		rc = SLUICE_E_IO;
	if (rc != 0) {
		(void)unlink(temporary);
		return rc;
	}
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || fsync(dir_fd) != 0)
		rc = SLUICE_E_IO;
	if (dir_fd >= 0)
		(void)close(dir_fd);
	return rc;
}

uint64_t process_start_time(pid_t pid)
{
	char path[64], line[1024], *at;
	uint64_t start = 0;
	ssize_t got;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	got = read(fd, line, sizeof(line) - 1);
	(void)close(fd);
	if (got <= 0)
		return 0;
	line[got] = 0;
	/* The name in parentheses may hold anything: fields are counted behind its end. */
	at = strrchr(line, ')');
	if (at == NULL || at[1] == 0 || at[2] == 'Z' || at[2] == 'X')
		return 0; /* a zombie has ended */
	for (int field = 2; field < 22 && at != NULL; field++)
		at = strchr(at + 1, ' ');
	if (at != NULL)
		start = strtoull(at + 1, NULL, 10);
	return start;
}

void boot_id(char ret[17])
{
	char text[64] = "";
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	size_t len = 0;

	if (fd >= 0) {
		ssize_t got = read(fd, text, sizeof(text) - 1);

		text[got > 0 ? got : 0] = 0;
		(void)close(fd);
	}
	for (const char *at = text; *at != 0 && len < 16; at++)
		if (isxdigit((unsigned char)*at))
			ret[len++] = *at;
	ret[len] = 0;
}

static void look_at_start(const char *text, struct attempt_view *view)
{
	char boot[17], now[17];
	long pid = 0, shepherd = 0;
	uint64_t start = 0, shepherd_start = 0;

	boot_id(now);
	if (sscanf(text, "%ld %" SCNu64 " %ld %" SCNu64 " %16s", &pid, &start, &shepherd, &shepherd_start, boot) != 5)
		return;
	view->pid = (pid_t)pid;
	view->shepherd = (pid_t)shepherd;
	if (strcmp(boot, now) != 0)
		return;
	view->process_lives = start != 0 && process_start_time(view->pid) == start;
	view->shepherd_lives = shepherd_start != 0 && process_start_time(view->shepherd) == shepherd_start;
}

static bool look_at_status(const char *text, struct attempt_view *view)
{
	static const char *const words[] = {[END_EXIT] = "exit", [END_SIGNAL] = "signal", [END_NOEXEC] = "noexec"};
	char word[16];

	if (sscanf(text, "%15s %d %" SCNu64, word, &view->value, &view->ended_ms) != 3)
		return false;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(word, words[i]) != 0)
			continue;
		view->end = (enum attempt_end)i;
		return true;
	}
	return false;
}

int attempt_look(const char *dir, struct attempt_view *ret)
{
	char start[256], status[256];
	int has_start, has_status;

	memset(ret, 0, sizeof(*ret));
	/* The start mark first, the status last: what ends in between is then seen as ended, not as lost. */
	has_start = read_file(dir, "start", start, sizeof(start));
	if (has_start == 0)
		look_at_start(start, ret);
	has_status = read_file(dir, "status", status, sizeof(status));
	ret->cancelled = read_file(dir, "cancel", (char[8]){0}, 8) == 0;
	if (has_start == SLUICE_E_IO || has_status == SLUICE_E_IO)
		return SLUICE_E_IO;
	if (has_status == 0 && look_at_status(status, ret))
		ret->state = ATTEMPT_ENDED;
	else if (has_start != 0)
		ret->state = ATTEMPT_NOT_STARTED;
	else
		ret->state = ret->process_lives || ret->shepherd_lives ? ATTEMPT_RUNNING : ATTEMPT_LOST;
	return 0;
}

int attempt_cancel(const char *dir, int signal)
{
	struct attempt_view view;
	int rc = attempt_write(dir, "cancel", "1\n", 2);

	if (rc == 0)
		rc = attempt_look(dir, &view);
	if (rc != 0 || signal == 0)
		return rc;
	/* The job leads a process group of its own. */
	if (view.state == ATTEMPT_RUNNING && view.process_lives && kill(-view.pid, signal) != 0 && errno != ESRCH)
		return SLUICE_E_IO;
	return 0;
}
