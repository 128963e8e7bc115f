/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading an attempt's files: the start mark, the status in both of its formats, and the judgement
 * over them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attempt.h"
#include "proc.h"
#include "sluice/error.h"

static const char *const end_words[] =
	{[END_EXIT] = "exit",	    [END_SIGNAL] = "signal", [END_NOEXEC] = "noexec",
	 [END_TIMEOUT] = "timeout", [END_OUTPUT] = "output", [END_WORK] = "work",
	 [END_NEVER] = NULL};
static const char *const step_words[] =
	{[STEP_NONE] = "-",	 [STEP_PAYLOAD] = "payload", [STEP_OUTPUT] = "output",
	 [STEP_STDIN] = "stdin", [STEP_CWD] = "cwd",	     [STEP_EXEC] = "exec"};

/* The index of a word in a list that may have gaps; -1: none. */
static int word_find(const char *const *words, size_t count, const char *word)
{
	for (size_t i = 0; i < count; i++)
		if (words[i] != NULL && strcmp(words[i], word) == 0)
			return (int)i;
	return -1;
}

/* False: damaged. */
static bool read_start(const char *text, struct attempt_view *view)
{
	char boot[17], now[17];
	uint64_t start = 0, shepherd_start = 0;
	int pid = 0, shepherd = 0, end = 0;

	if (sscanf(text, "%9d %19" SCNu64 " %9d %19" SCNu64 " %16[0-9a-f]%n", &pid, &start,
		   &shepherd, &shepherd_start, boot, &end) != 5 ||
	    pid < 0 || shepherd < 0 || strcmp(text + end, "\n") != 0)
		return false;
	view->pid = pid;
	view->shepherd = shepherd;
	boot_id(now);
	if (strcmp(boot, now) != 0)
		return true; /* of an earlier boot: none of its processes lives */
	view->process_lives = start != 0 && process_start_time(pid) == start;
	view->shepherd_lives =
		shepherd_start != 0 && process_start_time(shepherd) == shepherd_start;
	return true;
}

/* Format 1: "WORD NUMBER ENDED_MS\n". */
static bool status_read_1(const char *text, struct attempt_view *view)
{
	uint64_t ended_ms = 0;
	int value = 0, len = 0, end;
	char word[16];

	if (sscanf(text, "%15s %9d %19" SCNu64 "%n", word, &value, &ended_ms, &len) != 3 ||
	    strcmp(text + len, "\n") != 0)
		return false;
	end = word_find(end_words, sizeof(end_words) / sizeof(end_words[0]), word);
	if (end < 0 || end == END_OUTPUT || end == END_WORK)
		return false;
	view->end = (enum attempt_end)end;
	view->value = value;
	view->ended_ms = ended_ms;
	return true;
}

/* Format 2, see attempt_status(). */
static bool status_read_2(const char *text, struct attempt_view *view)
{
	struct attempt_view read = *view;
	char word[16], step_word[16], left_end[8];
	int len = 0, end, step;

	if (sscanf(text,
		   "2 %15s %9d %19" SCNu64 " %19" SCNu64 " %19" SCNu64 " %19" SCNu64
		   " %15s %9u %7s %199s%n",
		   word, &read.value, &read.ended_ms, &read.started_ms, &read.wall_ms,
		   &read.memory_peak_bytes, step_word, &read.left, left_end, read.left_names,
		   &len) != 10 ||
	    strcmp(text + len, "\n") != 0)
		return false;
	end = word_find(end_words, sizeof(end_words) / sizeof(end_words[0]), word);
	step = word_find(step_words, sizeof(step_words) / sizeof(step_words[0]), step_word);
	if (end < 0 || step < 0 ||
	    (strcmp(left_end, "ended") != 0 && strcmp(left_end, "live") != 0))
		return false;
	read.end = (enum attempt_end)end;
	read.step = (enum attempt_step)step;
	read.left_ended = strcmp(left_end, "ended") == 0;
	*view = read;
	return true;
}

/* False: damaged. */
static bool read_status(const char *text, struct attempt_view *view)
{
	return strncmp(text, "2 ", 2) == 0 ? status_read_2(text, view) : status_read_1(text, view);
}

size_t attempt_status(const struct attempt_view *view, char ret[ATTEMPT_STATUS_BYTES])
{
	int len = snprintf(ret, ATTEMPT_STATUS_BYTES,
			   "2 %s %d %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s %u %s %s\n",
			   end_words[view->end], view->value, view->ended_ms, view->started_ms,
			   view->wall_ms, view->memory_peak_bytes, step_words[view->step],
			   view->left, view->left_ended ? "ended" : "live",
			   view->left_names[0] != 0 ? view->left_names : "-");

	return len > 0 && len < ATTEMPT_STATUS_BYTES ? (size_t)len : 0;
}

static void judge(bool has_start, bool start_good, bool has_status, bool status_good,
		  struct attempt_view *view)
{
	if (!status_good)
		view->fault = "its file `status` is damaged; expected '2 WORD NUMBER ...' or 'WORD "
			      "NUMBER MS'";
	else if (!start_good)
		view->fault = "its file `start` is damaged; expected 'PID TIME SHEPHERD TIME BOOT'";
	if (has_status && status_good) {
		view->state = ATTEMPT_ENDED;
	} else if (!has_start && !has_status) {
		view->state = ATTEMPT_NOT_STARTED;
	} else if (has_start && start_good && view->pid == 0 && !has_status) {
		view->state = ATTEMPT_ENDED;
		view->end = END_NEVER;
	} else {
		view->state = view->process_lives || view->shepherd_lives ? ATTEMPT_RUNNING
									  : ATTEMPT_LOST;
	}
}

/* When the start mark was made: its file is written just before it gets its name. 0: not known. */
static uint64_t marked_ms(int fd)
{
	struct stat info;

	if (fstatat(fd, "start", &info, AT_SYMLINK_NOFOLLOW) != 0 || info.st_mtim.tv_sec < 0)
		return 0;
	return (uint64_t)info.st_mtim.tv_sec * 1000 + (uint64_t)info.st_mtim.tv_nsec / 1000000;
}

/* What its shepherd found in its place. */
static void read_replaced(int fd, struct attempt_view *view)
{
	char target[sizeof(view->replaced) - 32];
	ssize_t len = readlinkat(fd, ATTEMPT_REPLACED, target, sizeof(target));

	if (len >= 0)
		(void)snprintf(view->replaced, sizeof(view->replaced), "a symbolic link to %.*s",
			       (int)len, target);
	else if (errno == EINVAL)
		(void)snprintf(view->replaced, sizeof(view->replaced), "a file");
}

int attempt_inspect_at(int fd, const char *dir, struct attempt_view *ret)
{
	char start[256], status[ATTEMPT_STATUS_BYTES], nothing[8];
	bool start_good = true, status_good = true;
	struct attempt_view view = {0};
	int has_start, has_status;

	/* The start mark and its processes first, the status after them: a shepherd writes the
	 * status before it ends, so what ends in between is seen as ended, not as lost. */
	has_start = attempt_read_at(fd, dir, "start", start, sizeof(start));
	if (has_start == 0)
		start_good = read_start(start, &view);
	has_status = attempt_read_at(fd, dir, "status", status, sizeof(status));
	if (has_start == SLUICE_E_IO || has_status == SLUICE_E_IO)
		return SLUICE_E_IO;
	if (has_status == 0)
		status_good = read_status(status, &view);
	view.cancelled = attempt_read_at(fd, dir, "cancel", nothing, sizeof(nothing)) == 0;
	if (has_start == 0 && view.started_ms == 0)
		view.started_ms = marked_ms(fd);
	judge(has_start == 0, start_good, has_status == 0, status_good, &view);
	read_replaced(fd, &view);
	*ret = view;
	return 0;
}

int attempt_inspect(const char *dir, struct attempt_view *ret)
{
	int fd = attempt_open(dir), rc;

	if (fd >= 0) {
		rc = attempt_inspect_at(fd, dir, ret);
		(void)close(fd);
		return rc;
	}
	if (attempt_errno() != ENOENT && attempt_errno() != ENOTDIR)
		return SLUICE_E_IO;
	*ret = (struct attempt_view){.state = ATTEMPT_NOT_STARTED};
	if (attempt_errno() == ENOTDIR) {
		ret->state = ATTEMPT_LOST;
		ret->no_directory = true;
		ret->fault = "a link or a file is in the place of its attempt's directory";
	}
	return 0;
}
