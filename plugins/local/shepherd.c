/* SPDX-License-Identifier: Apache-2.0
 *
 * sluice-shepherd DIR [FD]: runs the job of one attempt directory and writes how it ended. It leaves its
 * starter's session at once and keeps nothing of it open, so it survives the scheduler's death.
 *
 * The job's process takes the start mark itself, before exec; if the mark is there already, nothing is run.
 * FD is a pipe to the starter: "started\n" when the mark was taken, "taken\n" when it was there; it closes
 * when there is no more to say. Who waits for the end watches the shepherd's process: the status is there
 * before it is gone.
 *
 * A job is its process: when that ends, what is left of its process group is killed before the status is
 * written. Invariants: only the shepherd of the process that has the mark writes a status; the process stays
 * a zombie until then, so its pid cannot be another's when the group is signalled.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attempt.h"
#include "payload.h"
#include "sluice/error.h"

enum { TIMEOUT_GRACE_MS = 2000, RETRY_S = 1, TAKE_TRIES = 30 };

/* What the child tells its parent over a close-on-exec pipe before exec ends it. */
enum { TOLD_NOEXEC = 1, TOLD_STARTED = 2 };
struct told {
	int what;
	int error;
};

static void write_status(const char *dir, const char *word, int64_t value)
{
	char line[128];
	struct timespec now;
	int len;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	len = snprintf(line, sizeof(line), "%s %" PRId64 " %" PRIu64 "\n", word, value,
		       (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
	/* A full disk must not lose the end of a job: it is tried until there is room. */
	while (attempt_write(dir, "status", line, (size_t)len) != 0)
		(void)sleep(RETRY_S);
}

/* ---- the job's process ---- */

static int redirect(const char *path, int flags, int to)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		return -1;
	return dup2(fd, to) == to ? 0 : -1;
}

static int redirect_all(const char *dir, const struct payload *payload)
{
	char path[ATTEMPT_PATH_MAX + 16];

	(void)snprintf(path, sizeof(path), "%s/err", dir);
	if (redirect(path, O_WRONLY | O_CREAT | O_APPEND, STDERR_FILENO) != 0)
		return -1;
	(void)snprintf(path, sizeof(path), "%s/out", dir);
	if (redirect(path, O_WRONLY | O_CREAT | O_APPEND, STDOUT_FILENO) != 0)
		return -1;
	return payload->stdin_path != NULL ? redirect(payload->stdin_path, O_RDONLY, STDIN_FILENO) : 0;
}

static void tell(int fd, int what, int error)
{
	struct told told = {what, error};

	(void)!write(fd, &told, sizeof(told));
}

/* Nothing of the shepherd's or the scheduler's way with signals goes on into the job. */
static void signals_to_default(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			(void)signal(sig, SIG_DFL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void give_up(int tell_fd, const char *what, const char *name)
{
	int error = errno;

	/* err may not be open yet: then it goes to /dev/null, and the status has the number. */
	(void)dprintf(STDERR_FILENO, "sluice-shepherd: %s %s: %s\n", what, name, strerror(error));
	tell(tell_fd, TOLD_NOEXEC, error);
	_exit(126);
}

static _Noreturn void child(const char *dir, const struct payload *payload, int tell_fd)
{
	struct attempt_view view;
	int rc = SLUICE_E_IO;

	(void)setsid();
	signals_to_default();
	/* The mark decides; this is for a status without one, which only damage can leave. */
	if (attempt_look(dir, &view) == 0 && view.state != ATTEMPT_NOT_STARTED)
		_exit(126);
	for (int tries = 0; tries < TAKE_TRIES && rc == SLUICE_E_IO; tries++) {
		if (tries > 0)
			(void)sleep(RETRY_S); /* a full disk passes */
		rc = attempt_take(dir, getpid(), getppid());
	}
	if (rc != 0)
		_exit(126);
	tell(tell_fd, TOLD_STARTED, 0);
	if (redirect_all(dir, payload) != 0)
		give_up(tell_fd, "input or output of", payload->argv[0]);
	if (payload->cwd != NULL && chdir(payload->cwd) != 0)
		give_up(tell_fd, "directory", payload->cwd);
	for (size_t i = 0; i < payload->env_count; i++)
		(void)putenv(payload->env[i]);
	(void)execvp(payload->argv[0], payload->argv);
	give_up(tell_fd, "program", payload->argv[0]);
}

/* ---- the shepherd ---- */

static void say(int fd, const char *text)
{
	if (fd >= 0) {
		(void)!write(fd, text, strlen(text));
		(void)close(fd);
	}
}

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* True: it has ended. A pidfd of -1 (no descriptors left) waits without an end. */
static bool wait_until(pid_t pid, int pid_fd, int64_t until_ms)
{
	struct pollfd end = {.fd = pid_fd, .events = POLLIN};
	siginfo_t info;

	while (pid_fd >= 0) {
		int64_t left = until_ms - now_ms();
		/* Some of it at a time: an int of milliseconds ends after 24 days. */
		int got = poll(&end, 1, left <= 0 ? 0 : left > 1000000 ? 1000000 : (int)left);

		if (got > 0)
			break;
		if (got == 0 && left <= 0)
			return false;
	}
	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR)
		continue;
	return true;
}

/* Until it has ended or shall, and its group with it; the process itself stays a zombie. True: the timeout ended it. */
static bool await_end(pid_t pid, int64_t timeout_ms)
{
	int pid_fd = timeout_ms > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	bool timed_out = !wait_until(pid, pid_fd, now_ms() + timeout_ms);

	if (timed_out) {
		(void)kill(-pid, SIGTERM);
		(void)wait_until(pid, pid_fd, now_ms() + TIMEOUT_GRACE_MS);
	}
	(void)kill(-pid, SIGKILL);
	if (pid_fd >= 0)
		(void)close(pid_fd);
	return timed_out;
}

static bool has_mark(const char *dir, pid_t pid)
{
	struct attempt_view view;

	return attempt_look(dir, &view) == 0 && view.pid == pid && view.shepherd == getpid() &&
	       view.shepherd_lives; /* of this boot */
}

/* Reads what the child tells until exec or its end closes the pipe. Ret: whether it has the mark; the errno
 * of no exec. */
static bool hear(int fd, int *io_starter_fd, int *ret_error)
{
	struct told told;
	bool started = false;

	while (read(fd, &told, sizeof(told)) == (ssize_t)sizeof(told)) {
		if (told.what == TOLD_STARTED) {
			started = true;
			say(*io_starter_fd, "started\n");
			*io_starter_fd = -1;
		} else {
			*ret_error = told.error;
		}
	}
	return started;
}

static void record_end(const char *dir, const struct payload *payload, pid_t pid, int error)
{
	bool timed_out = await_end(pid, payload->timeout_ms);
	siginfo_t info = {0};

	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR)
		continue;
	if (error != 0)
		write_status(dir, "noexec", error);
	else if (timed_out)
		write_status(dir, "timeout", (payload->timeout_ms + 999) / 1000);
	else
		write_status(dir, info.si_code == CLD_EXITED ? "exit" : "signal", info.si_status);
}

static int herd(const char *dir, const struct payload *payload, int starter_fd)
{
	int pipe_fds[2], error = 0;
	struct attempt_view view;
	bool started;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC) != 0)
		return 1;
	pid = fork();
	if (pid == 0)
		child(dir, payload, pipe_fds[1]);
	(void)close(pipe_fds[1]);
	if (pid < 0)
		return 1; /* the starter's pipe closes without a word: nothing was started */
	started = hear(pipe_fds[0], &starter_fd, &error);
	(void)close(pipe_fds[0]);
	/* Killed between the mark and its word: the mark says whose it is. */
	if (started || has_mark(dir, pid)) {
		record_end(dir, payload, pid, error);
		say(starter_fd, "ended\n");
		return 0;
	}
	(void)waitpid(pid, NULL, 0);
	if (attempt_look(dir, &view) == 0 && view.state != ATTEMPT_NOT_STARTED)
		say(starter_fd, "taken\n"); /* another one's; its shepherd writes the status */
	return 0;
}

static int load(const char *dir, struct payload *ret, char *why, size_t why_bytes)
{
	char path[ATTEMPT_PATH_MAX + 16], *text = NULL;
	struct stat about;
	int fd, rc = 1;
	ssize_t len = -1;

	(void)snprintf(path, sizeof(path), "%s/job.json", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	/* As it came: a JSON parser would not let bytes through that are no characters. */
	if (fd >= 0 && fstat(fd, &about) == 0)
		text = malloc((size_t)about.st_size + 1);
	if (text != NULL)
		len = read(fd, text, (size_t)about.st_size + 1);
	if (len >= 0)
		rc = payload_parse(text, (size_t)len, ret, why, why_bytes);
	else
		(void)snprintf(why, why_bytes, "job.json cannot be read: %s", strerror(errno));
	if (fd >= 0)
		(void)close(fd);
	free(text);
	return rc;
}

/* Nothing can be run: that is how the attempt ends, unless somebody has started it. */
static int refuse(const char *dir, const char *why, int starter_fd)
{
	char path[ATTEMPT_PATH_MAX + 16];
	int rc = attempt_take(dir, getpid(), getpid());

	if (rc != 0) {
		if (rc == SLUICE_E_EXISTS)
			say(starter_fd, "taken\n");
		return 1;
	}
	(void)snprintf(path, sizeof(path), "%s/err", dir);
	if (redirect(path, O_WRONLY | O_CREAT | O_APPEND, STDERR_FILENO) == 0)
		(void)dprintf(STDERR_FILENO, "sluice-shepherd: %s\n", why);
	write_status(dir, "noexec", EINVAL);
	say(starter_fd, "ended\n");
	return 1;
}

/* Away from the starter: own session, not its child, nothing of it open (LMDB's descriptors would be
 * inherited), deaf to what ends a service. Ret: where the starter's pipe is now. */
static int detach(int starter_fd)
{
	static const int deaf_to[] = {SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
	int null_fd;

	(void)setsid();
	(void)signal(SIGCHLD, SIG_DFL); /* ignored by the starter, it would lose us the job's end */
	for (size_t i = 0; i < sizeof(deaf_to) / sizeof(deaf_to[0]); i++)
		(void)signal(deaf_to[i], SIG_IGN);
	if (starter_fd > 3) {
		(void)dup2(starter_fd, 3);
		starter_fd = 3;
	}
	(void)syscall(SYS_close_range, starter_fd == 3 ? 4 : 3, ~0u, 0);
	if (starter_fd == 3)
		(void)fcntl(starter_fd, F_SETFD, FD_CLOEXEC);
	null_fd = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3 && null_fd >= 0; fd++)
		if (null_fd != fd)
			(void)dup2(null_fd, fd);
	if (null_fd > 2)
		(void)close(null_fd);
	return starter_fd;
}

int main(int argc, char **argv)
{
	int starter_fd = argc > 2 ? atoi(argv[2]) : -1;
	struct payload payload;
	char why[256] = "out of memory";
	pid_t pid;
	int rc;

	if (argc < 2 || (argc > 2 && starter_fd < 3) || strlen(argv[1]) >= ATTEMPT_PATH_MAX) {
		(void)fprintf(stderr, "usage: sluice-shepherd ATTEMPT_DIR [FD from 3]\n");
		return 2;
	}
	pid = fork();
	if (pid != 0)
		_exit(pid > 0 ? 0 : 1);
	starter_fd = detach(starter_fd);
	if (load(argv[1], &payload, why, sizeof(why)) != 0)
		return refuse(argv[1], why, starter_fd);
	rc = herd(argv[1], &payload, starter_fd);
	payload_free(&payload);
	return rc;
}
