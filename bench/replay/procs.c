/* SPDX-License-Identifier: Apache-2.0
 * Broker and scheduler as processes: started, killed by pid, started again. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "replay.h"

const char *const window_names[WINDOWS] = {"intent", "start", "record"};
enum { READY_MS_MAX = 20000, STOP_MS_MAX = 10000 };

static pid_t spawn(struct replay *replay, const char *const argv[], int out_fd)
{
	pid_t pid = fork();

	if (pid < 0)
		fail(replay, "fork: %s", strerror(errno));
	if (pid > 0)
		return pid;
	{
		int log = open(replay->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		int null_fd = open("/dev/null", O_RDONLY);

		/* It is killed when this process ends, even by SIGKILL. */
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
		(void)setpgid(0, 0); /* this process handles Ctrl-C */
		(void)dup2(null_fd, STDIN_FILENO);
		(void)dup2(out_fd >= 0 ? out_fd : log, STDOUT_FILENO);
		(void)dup2(log, STDERR_FILENO);
		(void)execv(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
}

/* Waits for the broker's "ready HOST:PORT ..." line, or for an interruption. */
static void await_ready(struct replay *replay, int fd)
{
	char text[256];
	size_t len = 0;
	uint64_t until = mono_ms() + READY_MS_MAX;

	while (len + 1 < sizeof(text)) {
		struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
		uint64_t now = mono_ms();
		ssize_t got;

		if (interrupted)
			return;
		if (now >= until)
			fail(replay, "the broker was not ready within %d s; its log is %s",
			     READY_MS_MAX / 1000, replay->log);
		if (poll(&poll_fd, 1, (int)(until - now)) <= 0)
			continue; /* a signal, or a timeout */
		got = read(fd, text + len, sizeof(text) - 1 - len);
		if (got <= 0)
			fail(replay, "the broker exited during its start; its log is %s",
			     replay->log);
		len += (size_t)got;
		text[len] = 0;
		if (strchr(text, '\n') != NULL)
			break;
	}
	if (sscanf(text, "ready %63s", replay->address) != 1)
		fail(replay, "the broker wrote '%.60s'; expected 'ready HOST:PORT'", text);
}

void broker_start(struct replay *replay)
{
	char path[PATH_BYTES + 32], listen[80];
	const char *argv[] = {path, "--data", replay->data, "--listen", listen, NULL};
	int pipe_fds[2];

	(void)snprintf(path, sizeof(path), "%s/%s/sluiced", replay->options.bin,
		       replay->installed ? "bin" : "broker");
	/* A free port at first, the same one after a kill. */
	(void)snprintf(listen, sizeof(listen), "%s",
		       replay->address[0] != 0 ? replay->address : "127.0.0.1:0");
	if (pipe2(pipe_fds, O_CLOEXEC) != 0)
		fail(replay, "pipe: %s", strerror(errno));
	replay->broker = spawn(replay, argv, pipe_fds[1]);
	(void)close(pipe_fds[1]);
	await_ready(replay, pipe_fds[0]);
	(void)close(pipe_fds[0]);
}

static void kill_hard(pid_t *pid)
{
	if (*pid <= 0)
		return;
	(void)kill(*pid, SIGKILL);
	(void)waitpid(*pid, NULL, 0);
	*pid = 0;
}

void broker_kill(struct replay *replay)
{
	kill_hard(&replay->broker);
}

void scheduler_start(struct replay *replay, const char *pause)
{
	char program[PATH_BYTES + 32], plugin[PATH_BYTES + 32], spool[PATH_BYTES + 16], paused[64],
		note[PATH_BYTES + 16];
	const char *argv[16] = {program, "--address", replay->address, "--set", spool,
				"--set", "slots=64",  plugin,	       NULL};

	(void)snprintf(program, sizeof(program), "%s/%s/sluice-plugin", replay->options.bin,
		       replay->installed ? "bin" : "broker/plugin");
	/* An installed plugin is found by its name. */
	if (replay->installed)
		(void)snprintf(plugin, sizeof(plugin), "local");
	else
		(void)snprintf(plugin, sizeof(plugin), "%s/plugins/local/local.so",
			       replay->options.bin);
	(void)snprintf(spool, sizeof(spool), "spool=%s", replay->spool);
	(void)snprintf(note, sizeof(note), "%s/paused", replay->spool);
	(void)unlink(note);
	if (pause != NULL) {
		(void)snprintf(paused, sizeof(paused), "pause=%s", pause);
		argv[7] = "--set";
		argv[8] = paused;
		argv[9] = plugin;
	}
	replay->scheduler = spawn(replay, argv, -1);
}

void scheduler_kill(struct replay *replay)
{
	kill_hard(&replay->scheduler);
}

bool scheduler_paused(struct replay *replay)
{
	char note[PATH_BYTES + 16];

	(void)snprintf(note, sizeof(note), "%s/paused", replay->spool);
	return access(note, F_OK) == 0;
}

static void stop_softly(pid_t *pid)
{
	uint64_t until = mono_ms() + STOP_MS_MAX;

	if (*pid <= 0)
		return;
	(void)kill(*pid, SIGCONT);
	(void)kill(*pid, SIGTERM);
	while (waitpid(*pid, NULL, WNOHANG) == 0) {
		if (mono_ms() > until) {
			kill_hard(pid);
			return;
		}
		(void)nanosleep(&(struct timespec){0, 5000000}, NULL);
	}
	*pid = 0;
}

void procs_stop(struct replay *replay, bool keep_broker)
{
	stop_softly(&replay->scheduler);
	if (!keep_broker)
		stop_softly(&replay->broker);
}

/* ---- what outlives the scheduler ---- */

enum { ARGUMENTS_MAX = 3, JOBS_END_MS_MAX = 5000 };

/* The first arguments of a process; "" if it has ended. */
static void arguments(pid_t pid, char *buf, size_t bytes, const char *ret[ARGUMENTS_MAX])
{
	char path[32];
	ssize_t len = -1;
	size_t at = 0;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		len = read(fd, buf, bytes - 1);
		(void)close(fd);
	}
	buf[len > 0 ? len : 0] = 0;
	for (int i = 0; i < ARGUMENTS_MAX; i++) {
		ret[i] = at < (size_t)(len > 0 ? len : 0) ? buf + at : "";
		at += strlen(ret[i]) + 1;
	}
}

/* The arguments of a job name the file of starts of this run, those of its shepherd a directory of
 * this run's spool. */
static bool is_job(const struct replay *replay, const char *const argv[ARGUMENTS_MAX])
{
	return strcmp(argv[1], "--job") == 0 && strcmp(argv[2], replay->starts) == 0;
}

static bool is_shepherd(const struct replay *replay, const char *const argv[ARGUMENTS_MAX])
{
	size_t len = strlen(replay->spool);

	return strncmp(argv[1], replay->spool, len) == 0 && argv[1][len] == '/';
}

/* Sends SIGKILL to each job's process; returns the number of jobs and shepherds. A shepherd ends
 * with its job. */
static size_t jobs_kill(const struct replay *replay)
{
	char buf[4 * PATH_BYTES];
	const char *argv[ARGUMENTS_MAX];
	DIR *proc = opendir("/proc");
	const struct dirent *entry;
	size_t count = 0;

	while (proc != NULL && (entry = readdir(proc)) != NULL) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (pid <= 0 || pid == getpid())
			continue;
		arguments(pid, buf, sizeof(buf), argv);
		if (is_job(replay, argv))
			(void)kill(pid, SIGKILL);
		else if (!is_shepherd(replay, argv))
			continue;
		count++;
	}
	if (proc != NULL)
		(void)closedir(proc);
	return count;
}

void jobs_end(struct replay *replay)
{
	uint64_t until = mono_ms() + JOBS_END_MS_MAX;
	size_t left;

	if (replay->starts[0] == 0)
		return; /* not even prepared */
	while ((left = jobs_kill(replay)) > 0 && mono_ms() < until)
		(void)nanosleep(&(struct timespec){0, 5000000}, NULL);
	if (left > 0)
		(void)fprintf(stderr, "sluice-replay: %zu processes of jobs did not end in %d s\n",
			      left, JOBS_END_MS_MAX / 1000);
}
