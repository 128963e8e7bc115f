/* SPDX-License-Identifier: Apache-2.0
 *
 * sluice-shepherd DIR [FD]: runs the job of one attempt directory and writes how it ended. It leaves its starter's session at once and
 * keeps nothing of it open, so it survives the scheduler's death.
 *
 * The job's process takes the start mark itself, before exec; if the mark is there already, nothing is run. FD is a pipe to the
 * starter: "started\n" when the mark was taken, "taken\n" when it was there.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attempt.h"
#include "payload.h"

/* What the child tells its parent over a close-on-exec pipe before exec ends it. */
enum { TOLD_TAKEN = 1, TOLD_NOEXEC = 2, TOLD_STARTED = 3 };
struct told {
	int what;
	int error;
};

static void report_status(const char *dir, const char *word, int value)
{
	char line[128];
	struct timespec now;
	int len;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	len = snprintf(line, sizeof(line), "%s %d %" PRIu64 "\n", word, value, (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
	/* A full disk must not lose the end of a job: it is tried until there is room. */
	while (attempt_write(dir, "status", line, (size_t)len) != 0)
		(void)sleep(1);
}

static int redirect(const char *dir, const char *name, int to)
{
	char path[ATTEMPT_PATH_MAX + 16];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	return dup2(fd, to) == to ? 0 : -1;
}

static int take_start_mark(const char *dir)
{
	char path[ATTEMPT_PATH_MAX + 16], line[256], boot[17];
	int fd, dir_fd, len, rc;

	(void)snprintf(path, sizeof(path), "%s/start", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? TOLD_TAKEN : TOLD_NOEXEC;
	boot_id(boot);
	len = snprintf(line, sizeof(line), "%d %" PRIu64 " %d %" PRIu64 " %s\n", (int)getpid(), process_start_time(getpid()), (int)getppid(),
		       process_start_time(getppid()), boot);
	rc = write(fd, line, (size_t)len) == len && fsync(fd) == 0 ? 0 : TOLD_NOEXEC;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || fsync(dir_fd) != 0)
		rc = TOLD_NOEXEC;
	(void)close(fd);
	return rc;
}

static void tell(int fd, int what, int error)
{
	struct told told = {what, error};

	(void)!write(fd, &told, sizeof(told));
}

static void child(const char *dir, const struct payload *payload, int tell_fd)
{
	sigset_t none;
	int rc;

	(void)setpgid(0, 0);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	rc = take_start_mark(dir);
	if (rc != 0) {
		tell(tell_fd, rc, errno);
		_exit(126);
	}
	tell(tell_fd, TOLD_STARTED, 0);
	if (redirect(dir, "out", STDOUT_FILENO) != 0 || redirect(dir, "err", STDERR_FILENO) != 0 ||
	    (payload->cwd != NULL && chdir(payload->cwd) != 0)) {
		tell(tell_fd, TOLD_NOEXEC, errno);
		_exit(126);
	}
	for (size_t i = 0; i < payload->env_count; i++)
		(void)putenv(payload->env[i]);
	(void)execvp(payload->argv[0], payload->argv);
	tell(tell_fd, TOLD_NOEXEC, errno);
	_exit(126);
}

static void say(int fd, const char *text)
{
	if (fd >= 0) {
		(void)!write(fd, text, strlen(text));
		(void)close(fd);
	}
}

static int herd(const char *dir, const struct payload *payload, int starter_fd)
{
	struct told told;
	bool started = false, noexec = false;
	int pipe_fds[2], status = 0;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) != 0)
		return 1;
	pid = fork();
	if (pid == 0)
		child(dir, payload, pipe_fds[1]);
	(void)close(pipe_fds[1]);
	while (pid > 0 && read(pipe_fds[0], &told, sizeof(told)) == (ssize_t)sizeof(told)) {
		if (told.what == TOLD_STARTED) {
			started = true;
			say(starter_fd, "started\n");
			starter_fd = -1;
		} else if (told.what == TOLD_NOEXEC) {
			noexec = true;
		}
	}
	(void)close(pipe_fds[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (!started && !noexec) {
		say(starter_fd, "taken\n"); /* another one has the mark; its shepherd writes the status */
		return 0;
	}
	if (noexec)
		report_status(dir, "noexec", told.error);
	else if (WIFSIGNALED(status))
		report_status(dir, "signal", WTERMSIG(status));
	else
		report_status(dir, "exit", WEXITSTATUS(status));
	say(starter_fd, "ended\n");
	return 0;
}

static int load(const char *dir, struct payload *ret, char *why, size_t why_bytes)
{
	char path[ATTEMPT_PATH_MAX + 16];
	json_t *json;
	char *text;
	int rc;

	(void)snprintf(path, sizeof(path), "%s/job.json", dir);
	json = json_load_file(path, 0, NULL);
	if (json == NULL) {
		(void)snprintf(why, why_bytes, "%s cannot be read", path);
		return 1;
	}
	text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	rc = text == NULL ? 1 : payload_parse(text, strlen(text), ret, why, why_bytes);
	free(text);
	return rc;
}

int main(int argc, char **argv)
{
	int starter_fd = argc > 2 ? atoi(argv[2]) : -1, null_fd;
	struct payload payload;
	char why[ATTEMPT_PATH_MAX + 64];

	if (argc < 2) {
		(void)fprintf(stderr, "usage: sluice-shepherd ATTEMPT_DIR [FD]\n");
		return 2;
	}
	/* Away from the starter: own session, not its child, nothing of it open (LMDB's descriptors would be inherited). */
	if (fork() != 0)
		_exit(0);
	(void)setsid();
	(void)signal(SIGPIPE, SIG_IGN);
	if (starter_fd > 3) {
		(void)dup2(starter_fd, 3);
		starter_fd = 3;
	}
	(void)syscall(SYS_close_range, starter_fd >= 0 ? 4 : 3, ~0u, 0);
	if (starter_fd >= 0)
		(void)fcntl(starter_fd, F_SETFD, FD_CLOEXEC);
	null_fd = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3 && null_fd >= 0; fd++)
		(void)dup2(null_fd, fd);
	if (load(argv[1], &payload, why, sizeof(why)) != 0) {
		report_status(argv[1], "noexec", EINVAL);
		say(starter_fd, "ended\n");
		return 1;
	}
	return herd(argv[1], &payload, starter_fd);
}
