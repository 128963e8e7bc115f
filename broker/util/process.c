/* SPDX-License-Identifier: Apache-2.0
 * The state that a daemon inherits and passes on, see process.h. */
#include "broker/util/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/util/log.h"

enum { FIRST_OTHER = 3, LISTEN_FDS_MAX = 4096, DESCRIPTORS_MAX = 65536, SIGNAL_EXIT = 128 };

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

/* Sockets from the service manager are descriptors 3 to passed_end - 1. */
static unsigned passed_end = FIRST_OTHER;

/* ---- descriptors ---- */

static void open_standard(void)
{
	for (int fd = 0; fd < FIRST_OTHER; fd++) {
		int got;

		if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
			continue;
		/* open() returns the lowest free number, the missing one. Without /dev any file
		 * whose writes fail is enough. */
		got = open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
		if (got < 0)
			got = open("/", O_PATH | O_DIRECTORY);
		if (got >= 0 && got != fd) {
			(void)dup2(got, fd);
			(void)close(got);
		}
	}
}

static void fd_end(int fd, bool close_it)
{
	if (close_it)
		(void)close(fd);
	else
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* Closes descriptors from `from` on, or sets close-on-exec. Kernels before 5.9 (5.11 for
 * close-on-exec) have no system call for it. */
static void end_from(unsigned from, bool close_them)
{
	struct dirent *entry;
	DIR *dir;
	long max;

	if (syscall(SYS_close_range, from, ~0u, close_them ? 0 : CLOSE_RANGE_CLOEXEC) == 0)
		return;
	dir = opendir("/proc/self/fd");
	if (dir == NULL) {
		max = sysconf(_SC_OPEN_MAX);
		for (int fd = (int)from;
		     fd < (max > 0 && max < DESCRIPTORS_MAX ? max : DESCRIPTORS_MAX); fd++)
			fd_end(fd, close_them);
		return;
	}
	while ((entry = readdir(dir)) != NULL) {
		long fd = strtol(entry->d_name, NULL, 10);

		if (fd >= (long)from && fd != dirfd(dir))
			fd_end((int)fd, close_them);
	}
	(void)closedir(dir);
}

/* LISTEN_FDS counts only when LISTEN_PID is this process. */
static unsigned passed_count(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	long fds;

	if (pid == NULL || count == NULL || strtol(pid, NULL, 10) != (long)getpid())
		return 0;
	fds = strtol(count, NULL, 10);
	return fds > 0 && fds <= LISTEN_FDS_MAX ? (unsigned)fds : 0;
}

/* ---- environment ---- */

static void environment_clean(void)
{
	static const char *const names[] = {
		/* communication with the service manager, and who started this process */
		"NOTIFY_SOCKET",
		"WATCHDOG_USEC",
		"WATCHDOG_PID",
		"LISTEN_FDS",
		"LISTEN_PID",
		"LISTEN_PIDFDID",
		"LISTEN_FDNAMES",
		"FDSTORE",
		"MAINPID",
		"MANAGERPID",
		"MANAGERPIDFDID",
		"SYSTEMD_EXEC_PID",
		"INVOCATION_ID",
		"JOURNAL_STREAM",
		"MEMORY_PRESSURE_WATCH",
		"MEMORY_PRESSURE_WRITE",
		/* resources of this service */
		"CREDENTIALS_DIRECTORY",
		"RUNTIME_DIRECTORY",
		"STATE_DIRECTORY",
		"CACHE_DIRECTORY",
		"LOGS_DIRECTORY",
		"CONFIGURATION_DIRECTORY",
		/* results of the main process, for programs that run at its end */
		"MONITOR_SERVICE_RESULT",
		"MONITOR_EXIT_CODE",
		"MONITOR_EXIT_STATUS",
		"MONITOR_INVOCATION_ID",
		"MONITOR_UNIT",
		/* set when a job of another broker starts this broker */
		PROCESS_FILES_ENV,
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		(void)unsetenv(names[i]);
}

/* ---- signals ---- */

static void stop_signals(sigset_t *ret)
{
	(void)sigemptyset(ret);
	(void)sigaddset(ret, SIGTERM);
	(void)sigaddset(ret, SIGINT);
	(void)sigaddset(ret, SIGHUP);
	(void)sigaddset(ret, SIGUSR1);
	(void)sigaddset(ret, SIGUSR2);
}

static void signals_known(void)
{
	static const int ignored[] = {SIGPIPE, SIGXFSZ, SIGTTOU};
	struct sigaction action;
	sigset_t blocked;

	/* Only SIG_IGN survives exec; a handler is of this process (a sanitizer's, a preloaded
	 * library's) and stays. libc keeps two real-time signals for itself and refuses them
	 * here. */
	for (int number = 1; number < NSIG; number++)
		if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
			(void)signal(number, SIG_DFL);
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		(void)signal(ignored[i], SIG_IGN);
	stop_signals(&blocked);
	(void)sigprocmask(SIG_SETMASK, &blocked, NULL);
}

void process_inherit(void)
{
	open_standard();
	passed_end = FIRST_OTHER + passed_count();
	end_from(FIRST_OTHER, false);
	signals_known();
	environment_clean();
	(void)prctl(PR_SET_CHILD_SUBREAPER, 0);
}

/* ---- process 1 ---- */

static int exit_code_of(const siginfo_t *info)
{
	return info->si_code == CLD_EXITED ? info->si_status : SIGNAL_EXIT + info->si_status;
}

static _Noreturn void reap_for(pid_t child)
{
	siginfo_t info, ended;
	sigset_t all;

	end_from(FIRST_OTHER, true);
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	for (;;) {
		/* Waits for all children that have ended: pending SIGCHLD are merged into one. */
		for (memset(&ended, 0, sizeof(ended));
		     waitid(P_ALL, 0, &ended, WEXITED | WNOHANG) == 0 && ended.si_pid != 0;
		     memset(&ended, 0, sizeof(ended)))
			if (ended.si_pid == child)
				_exit(exit_code_of(&ended));
		if (sigwaitinfo(&all, &info) < 0)
			continue;
		switch (info.si_signo) {
		case SIGTERM:
		case SIGINT:
		case SIGHUP:
		case SIGQUIT:
		case SIGUSR1:
		case SIGUSR2:
			(void)kill(child, info.si_signo);
			break;
		default:
			break;
		}
	}
}

int process_isolate(void)
{
	pid_t child;

	end_from(passed_end, true);
	if (getpid() != 1)
		return 0;
	child = fork();
	if (child < 0)
		return -1;
	if (child > 0)
		reap_for(child);
	return 0;
}

/* ---- limits ---- */

static struct rlimit files_before;

/* Runs in the child of a fork(): async-signal-safe calls only. */
static void files_restore(void)
{
	struct rlimit now;

	if (getrlimit(RLIMIT_NOFILE, &now) != 0)
		return;
	now.rlim_cur = files_before.rlim_cur < now.rlim_max ? files_before.rlim_cur : now.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &now);
}

void process_files_raise(void)
{
	struct rlimit limit;
	char text[24];

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max)
		return;
	files_before = limit;
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)limit.rlim_cur);
	/* A limit that could not be restored in children is not raised. */
	if (setenv(PROCESS_FILES_ENV, text, 1) != 0 ||
	    pthread_atfork(NULL, NULL, files_restore) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- the end ---- */

static int stop_event = -1;

static void *signals_run(void *unused)
{
	const uint64_t one = 1;
	sigset_t signals;
	siginfo_t info;

	(void)unused;
	stop_signals(&signals);
	for (;;) {
		if (sigwaitinfo(&signals, &info) < 0)
			continue;
		if (info.si_signo == SIGTERM || info.si_signo == SIGINT)
			(void)!write(stop_event, &one, sizeof(one));
		else
			log_line(LOG_LEVEL_WARN,
				 log_id("process.signal",
					"this signal changes nothing: configuration cannot be "
					"reloaded, and the log is not reopened; restart to apply a "
					"change"),
				 log_str("signal", info.si_signo == SIGHUP    ? "SIGHUP"
						   : info.si_signo == SIGUSR1 ? "SIGUSR1"
									      : "SIGUSR2"),
				 log_i64("from_pid", info.si_pid));
	}
	return NULL;
}

int process_stop_fd(void)
{
	pthread_t thread;
	int rc;

	stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (stop_event < 0)
		return -1;
	rc = pthread_create(&thread, NULL, signals_run, NULL);
	if (rc != 0) {
		(void)close(stop_event);
		stop_event = -1;
		errno = rc;
		return -1;
	}
	(void)pthread_detach(thread);
	return stop_event;
}

void process_stop_wait(int fd)
{
	struct pollfd stop = {.fd = fd, .events = POLLIN};

	while (poll(&stop, 1, -1) <= 0)
		continue;
}
