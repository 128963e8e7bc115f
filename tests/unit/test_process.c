/* SPDX-License-Identifier: Apache-2.0
 *
 * broker/util/process: the daemon does not keep signal settings of its starter, and its children do
 * not inherit what the daemon changes. Each test runs in a process of its own.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/util/log.h"
#include "broker/util/process.h"

static bool ignores(int number)
{
	struct sigaction action;

	cr_assert_eq(sigaction(number, NULL, &action), 0);
	return action.sa_handler == SIG_IGN;
}

Test(process, inherited_ignored_and_blocked_signals_are_reset)
{
	sigset_t all, now;

	(void)sigfillset(&all);
	cr_assert_eq(sigprocmask(SIG_SETMASK, &all, NULL), 0);
	for (int number = 1; number < NSIG; number++)
		if (number != SIGKILL && number != SIGSTOP && number < 32)
			cr_assert_neq(signal(number, SIG_IGN), SIG_ERR, "signal %d", number);
	process_inherit();
	cr_assert_eq(sigprocmask(SIG_BLOCK, NULL, &now), 0);
	for (int number = 1; number < 32; number++) {
		bool ignored = number == SIGPIPE || number == SIGXFSZ || number == SIGTTOU;
		bool blocked = number == SIGTERM || number == SIGINT || number == SIGHUP ||
			       number == SIGUSR1 || number == SIGUSR2;

		cr_expect_eq(ignores(number), ignored, "signal %d", number);
		cr_expect_eq(sigismember(&now, number), blocked, "signal %d", number);
	}
}

static int returns_seven(void)
{
	pid_t pid = fork();
	int status = -1;

	if (pid == 0)
		_exit(7);
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -errno;
}

/* "Ignored" is inherited over exec, and would reap every child before its parent can wait for
 * it. */
Test(process, children_can_be_waited_for_although_the_starter_ignored_sigchld)
{
	cr_assert_neq(signal(SIGCHLD, SIG_IGN), SIG_ERR);
	cr_assert_eq(returns_seven(), -ECHILD, "it was ignored before");
	process_inherit();
	cr_assert_eq(returns_seven(), 7);
}

Test(process, variables_of_the_service_manager_are_not_inherited)
{
	static const char *const names[] = {"NOTIFY_SOCKET", "LISTEN_FDS",
					    "LISTEN_PID",    "WATCHDOG_USEC",
					    "INVOCATION_ID", "CREDENTIALS_DIRECTORY",
					    "JOURNAL_STREAM"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		cr_assert_eq(setenv(names[i], "x", 1), 0);
	cr_assert_eq(setenv("SITE_SETTING", "kept", 1), 0);
	process_inherit();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		cr_expect_null(getenv(names[i]), "%s", names[i]);
	cr_assert_str_eq(getenv("SITE_SETTING"), "kept");
	cr_assert_not_null(getenv("PATH"));
}

static rlim_t soft_files(void)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	return limit.rlim_cur;
}

static void lower_soft_files(rlim_t soft)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_assert_gt(limit.rlim_max, soft);
	limit.rlim_cur = soft;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

Test(process, the_raised_limit_of_files_ends_with_fork)
{
	pid_t pid;
	int status;

	lower_soft_files(200);
	process_files_raise();
	cr_assert_gt(soft_files(), 200);
	pid = fork();
	if (pid == 0)
		_exit(soft_files() == 200 ? 0 : 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0, "the child has the limit that the process was started with");
}

/* A child of posix_spawn restores it by the variable. */
Test(process, the_original_limit_of_files_is_in_the_environment)
{
	cr_assert_null(getenv(PROCESS_FILES_ENV));
	lower_soft_files(321);
	process_files_raise();
	cr_assert_str_eq(getenv(PROCESS_FILES_ENV), "321");
	/* A broker that is started by a job of another broker. */
	process_inherit();
	cr_assert_null(getenv(PROCESS_FILES_ENV));
}

static bool readable(int fd, int wait_ms)
{
	struct pollfd in = {.fd = fd, .events = POLLIN};

	return poll(&in, 1, wait_ms) == 1;
}

/* The signals thread has logged it; the lines go to a pipe. */
static void await_line(int fd, const char *signal_name)
{
	char line[LOG_LINE_BYTES_MAX + 1], wanted[64];
	ssize_t got = read(fd, line, sizeof(line) - 1);

	cr_assert_gt(got, 0);
	line[got] = 0;
	(void)snprintf(wanted, sizeof(wanted), "signal=%s", signal_name);
	cr_assert_not_null(strstr(line, "id=process.signal"), "%s", line);
	cr_assert_not_null(strstr(line, wanted), "%s", line);
}

static void stops_at(int number)
{
	int pipe_fds[2], fd;

	cr_assert_eq(pipe(pipe_fds), 0);
	log_configure(pipe_fds[1], LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	process_inherit();
	fd = process_stop_fd();
	cr_assert_geq(fd, 0);
	cr_assert_eq(kill(getpid(), SIGHUP), 0);
	await_line(pipe_fds[0], "SIGHUP");
	cr_assert_eq(kill(getpid(), SIGUSR1), 0);
	await_line(pipe_fds[0], "SIGUSR1");
	cr_assert_eq(kill(getpid(), SIGUSR2), 0);
	await_line(pipe_fds[0], "SIGUSR2");
	cr_assert_not(readable(fd, 0), "none of these ends the process");
	cr_assert_eq(kill(getpid(), number), 0);
	process_stop_wait(fd);
	cr_assert(readable(fd, 0), "and it stays readable");
}

Test(process, hangup_is_logged_and_changes_nothing_and_sigterm_ends_it)
{
	stops_at(SIGTERM);
}

Test(process, sigint_ends_it_too)
{
	stops_at(SIGINT);
}

/* Without a free number 0 to 2 nothing of ours can be taken for standard error. */
Test(process, closed_standard_descriptors_are_opened_on_null)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		int fd;

		(void)close(0);
		(void)close(1);
		(void)close(2);
		process_inherit();
		fd = open("/", O_RDONLY | O_DIRECTORY);
		_exit(fd > 2 && write(1, "x", 1) == 1 && write(2, "x", 1) == 1 &&
				      read(0, &status, 1) == 0
			      ? 0
			      : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

/* In a child, because this process has descriptors of the test's runner. 0: as expected. */
static int isolate_with(bool for_us, int lock, int passed)
{
	char pid[24];
	int low = dup2(passed, 3);

	(void)snprintf(pid, sizeof(pid), "%d", (int)getpid() + (for_us ? 0 : 1));
	(void)setenv("LISTEN_PID", pid, 1);
	(void)setenv("LISTEN_FDS", "1", 1);
	process_inherit();
	if (fcntl(lock, F_GETFD) != FD_CLOEXEC || fcntl(low, F_GETFD) != FD_CLOEXEC)
		return 1; /* still open: arguments may name /dev/fd/N */
	if (process_isolate() != 0)
		return 2;
	if (fcntl(lock, F_GETFD) >= 0 || errno != EBADF)
		return 3;
	return (fcntl(low, F_GETFD) >= 0) == for_us ? 0 : 4;
}

Test(process, inherited_descriptors_are_closed_but_for_passed_sockets)
{
	for (int for_us = 0; for_us < 2; for_us++) {
		pid_t pid = fork();
		int status;

		if (pid == 0)
			_exit(isolate_with(for_us == 1, dup2(1, 77), 1));
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(status, 0, "meant for this process: %d", for_us);
	}
}
