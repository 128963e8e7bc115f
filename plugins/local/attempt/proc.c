/* SPDX-License-Identifier: Apache-2.0
 * See proc.h. */
#include "proc.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct stat_line {
	char name[16], state;
	pid_t parent, group;
	uint64_t start_time;
};

static ssize_t read_proc(pid_t pid, const char *name, char *buf, size_t buf_bytes)
{
	char path[64];
	ssize_t got;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	got = read(fd, buf, buf_bytes - 1);
	(void)close(fd);
	if (got >= 0)
		buf[got] = 0;
	return got;
}

static void plain_name(const char *from, size_t len, char ret[16])
{
	size_t used = 0;

	for (size_t i = 0; i < len && used < 15; i++)
		ret[used++] = from[i] > ' ' && from[i] < 127 && strchr(",()", from[i]) == NULL
				      ? from[i]
				      : '_';
	ret[used] = 0;
}

static bool stat_read(pid_t pid, struct stat_line *ret)
{
	char line[1024], *open_at, *at;

	if (pid <= 0 || read_proc(pid, "stat", line, sizeof(line)) <= 0)
		return false;
	/* The name in parentheses may hold anything: fields are counted after its end. */
	open_at = strchr(line, '(');
	at = strrchr(line, ')');
	if (open_at == NULL || at == NULL || at[1] == 0 || at[2] == 0)
		return false;
	plain_name(open_at + 1, (size_t)(at - open_at - 1), ret->name);
	ret->state = at[2];
	ret->parent = ret->group = 0;
	ret->start_time = 0;
	for (int field = 3; field <= 22 && at != NULL; field++) {
		at = strchr(at + 1, ' ');
		if (at != NULL && field == 4)
			ret->parent = (pid_t)strtol(at + 1, NULL, 10);
		else if (at != NULL && field == 5)
			ret->group = (pid_t)strtol(at + 1, NULL, 10);
		else if (at != NULL && field == 22)
			ret->start_time = strtoull(at + 1, NULL, 10);
	}
	return at != NULL;
}

static bool is_alive(const struct stat_line *line)
{
	return line->state != 'Z' && line->state != 'X';
}

uint64_t process_start_time(pid_t pid)
{
	struct stat_line line;

	return stat_read(pid, &line) && is_alive(&line) ? line.start_time : 0;
}

uint64_t process_age_ms(pid_t pid)
{
	const uint64_t start = process_start_time(pid), ticks = (uint64_t)sysconf(_SC_CLK_TCK);
	struct timespec now;
	uint64_t now_ms;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	return start != 0 && now_ms > start * 1000 / ticks ? now_ms - start * 1000 / ticks : 0;
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
		if (*at != '-' && *at != '\n')
			ret[len++] = *at;
	ret[len] = 0;
}

/* ---- leftovers ---- */

static size_t leftover_add(struct leftover *ret, size_t count, pid_t pid,
			   const struct stat_line *line)
{
	ret[count] = (struct leftover){.pid = pid, .start_time = line->start_time};
	memcpy(ret[count].name, line->name, sizeof(ret[count].name));
	return count + 1;
}

/* The kernel's list of children, so that the end of a job without leftovers does not read all of
 * /proc. False: this kernel has no such list. */
static bool has_children(pid_t pid, const pid_t *except, bool *ret)
{
	char name[48], list[512], *at = list, *end;
	pid_t child;

	(void)snprintf(name, sizeof(name), "task/%d/children", (int)pid);
	if (read_proc(pid, name, list, sizeof(list)) < 0)
		return false;
	*ret = false;
	for (;; at = end) {
		child = (pid_t)strtol(at, &end, 10);
		if (end == at)
			return true;
		if (child != *except)
			*ret = true;
	}
}

struct seen {
	pid_t pid;
	struct stat_line line;
};

static size_t read_all(struct seen **ret)
{
	DIR *dir = opendir("/proc");
	const struct dirent *entry;
	size_t count = 0, capacity = 0;

	*ret = NULL;
	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		if (count == capacity) {
			size_t more = capacity == 0 ? 256 : capacity * 2;
			struct seen *grown = realloc(*ret, more * sizeof(*grown));

			if (grown == NULL)
				break;
			*ret = grown;
			capacity = more;
		}
		(*ret)[count].pid = (pid_t)strtol(entry->d_name, NULL, 10);
		if (stat_read((*ret)[count].pid, &(*ret)[count].line))
			count++;
	}
	if (dir != NULL)
		(void)closedir(dir);
	return count;
}

static const struct seen *seen_find(const struct seen *all, size_t count, pid_t pid)
{
	for (size_t i = 0; i < count; i++)
		if (all[i].pid == pid)
			return &all[i];
	return NULL;
}

static bool descends(const struct seen *all, size_t count, const struct seen *from, pid_t root)
{
	/* Bounded: /proc is not read at one moment, so parents may form a circle. */
	for (size_t steps = 0; from != NULL && steps < count; steps++) {
		if (from->line.parent == root)
			return true;
		from = from->line.parent > 1 ? seen_find(all, count, from->line.parent) : NULL;
	}
	return false;
}

size_t leftovers_below(pid_t root, pid_t group, struct leftover ret[LEFTOVERS_MAX])
{
	struct seen *all;
	size_t found = 0, count;
	bool some;

	if (has_children(root, &group, &some) && !some)
		return 0;
	count = read_all(&all);
	for (size_t i = 0; i < count && found < LEFTOVERS_MAX; i++)
		if (is_alive(&all[i].line) && (group == 0 || all[i].line.group != group) &&
		    descends(all, count, &all[i], root))
			found = leftover_add(ret, found, all[i].pid, &all[i].line);
	free(all);
	return found;
}

static bool is_marked(pid_t pid, const char *mark, char *buf, size_t buf_bytes)
{
	ssize_t got = read_proc(pid, "environ", buf, buf_bytes);
	const char *at = buf;

	while (got > 0 && at < buf + got) {
		if (strcmp(at, mark) == 0)
			return true;
		at += strlen(at) + 1;
	}
	return false;
}

size_t leftovers_marked(const char *mark, struct leftover ret[LEFTOVERS_MAX])
{
	enum { ENVIRON_BYTES = 256 * 1024 };
	char *environ_text = malloc(ENVIRON_BYTES);
	struct seen *all;
	size_t found = 0, count;

	if (environ_text == NULL)
		return 0;
	count = read_all(&all);
	for (size_t i = 0; i < count && found < LEFTOVERS_MAX; i++)
		if (is_alive(&all[i].line) &&
		    is_marked(all[i].pid, mark, environ_text, ENVIRON_BYTES))
			found = leftover_add(ret, found, all[i].pid, &all[i].line);
	free(all);
	free(environ_text);
	return found;
}

void leftover_kill(const struct leftover *left)
{
	if (process_start_time(left->pid) == left->start_time)
		(void)kill(left->pid, SIGKILL);
}

void leftovers_names(const struct leftover *left, size_t count, char ret[LEFTOVER_NAMES_BYTES])
{
	size_t len = 0;

	(void)snprintf(ret, LEFTOVER_NAMES_BYTES, "-");
	for (size_t i = 0; i < count; i++) {
		char one[32];
		int one_len = snprintf(one, sizeof(one), "%s%s(%d)", i > 0 ? "," : "", left[i].name,
				       (int)left[i].pid);

		if (len + (size_t)one_len >= LEFTOVER_NAMES_BYTES)
			return;
		memcpy(ret + len, one, (size_t)one_len + 1);
		len += (size_t)one_len;
	}
}

/* ---- what is not inherited ---- */

void process_default_signals(void)
{
	/* The kernel's struct, all zero. libc refuses the two signals that it uses itself, which
	 * may be ignored, too. */
	const unsigned long defaults[8] = {0};
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)syscall(SYS_rt_sigaction, sig, defaults, NULL, (size_t)(NSIG - 1) / 8);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* As plugin.h has it: the host raised it for itself. */
void process_restore_files(void)
{
	const char *text = getenv("SLUICE_NOFILE_SOFT");
	struct rlimit limit;

	if (text != NULL && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		rlim_t soft = strtoull(text, NULL, 10);

		limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	(void)unsetenv("SLUICE_NOFILE_SOFT");
}

void process_reset_oom_score(void)
{
	char text[32];
	int fd;

	if (read_proc(getpid(), "oom_score_adj", text, sizeof(text)) <= 0 || text[0] != '-')
		return;
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, "0\n", 2);
		(void)close(fd);
	}
}
