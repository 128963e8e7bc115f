/* SPDX-License-Identifier: Apache-2.0
 * Functions of the harness for drivers: servers as processes, started on loopback, ended by pid. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

enum { LINE_MS_MAX = 120000, STOP_MS_MAX = 30000 };

/* In the child: nothing but async-signal-safe calls, since the harness has threads. */
static void become(const char *as, const char *const argv[], int log, int out, unsigned conns)
{
	const char *args[64] = {as != NULL ? as : argv[0]};
	int null_fd = open("/dev/null", O_RDONLY);
	struct rlimit files;

	for (unsigned i = 1; i < 63 && argv[i - 1] != NULL; i++)
		args[i] = argv[i];
	/* It is killed when the harness ends, even by SIGKILL. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)setpgid(0, 0); /* the harness handles Ctrl-C */
	if (conns > 0 && getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)dup2(null_fd, STDIN_FILENO);
	(void)dup2(out >= 0 ? out : log, STDOUT_FILENO);
	(void)dup2(log, STDERR_FILENO);
	(void)execvp(argv[0], (char *const *)(uintptr_t)args);
	_exit(127);
}

int bench_spawn(const struct bench_server_spec *spec, const char *as, const char *const argv[],
		pid_t *ret_pid, int *ret_out)
{
	int pipe_fds[2] = {-1, -1},
	    log = open(spec->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	pid_t pid;

	if (log < 0)
		return bench_error("open %s: %s", spec->log, strerror(errno));
	if (ret_out != NULL && pipe2(pipe_fds, O_CLOEXEC) != 0) {
		(void)close(log);
		return bench_error("pipe: %s", strerror(errno));
	}
	pid = fork();
	if (pid == 0)
		become(as, argv, log, pipe_fds[1], spec->conns);
	(void)close(log);
	if (pipe_fds[1] >= 0)
		(void)close(pipe_fds[1]);
	if (pid < 0) {
		if (pipe_fds[0] >= 0)
			(void)close(pipe_fds[0]);
		return bench_error("fork: %s", strerror(errno));
	}
	*ret_pid = pid;
	if (ret_out != NULL)
		*ret_out = pipe_fds[0];
	return 0;
}

int bench_await_line(int fd, const char *prefix, char *ret, size_t ret_bytes)
{
	uint64_t until = bench_now_ns() + LINE_MS_MAX * 1000000ull;
	size_t len = 0;

	for (;;) {
		struct pollfd waits = {.fd = fd, .events = POLLIN};
		uint64_t now = bench_now_ns();
		char byte;

		if (now >= until || interrupted)
			return bench_error("the server printed no line '%s...' within %d s", prefix,
					   LINE_MS_MAX / 1000);
		if (poll(&waits, 1, (int)((until - now) / 1000000) + 1) <= 0)
			continue;
		if (read(fd, &byte, 1) != 1)
			return bench_error("the server ended before its line '%s...'", prefix);
		if (byte != '\n') {
			if (len + 1 < ret_bytes)
				ret[len++] = byte;
			continue;
		}
		ret[len] = 0;
		if (strncmp(ret, prefix, strlen(prefix)) == 0)
			return 0;
		len = 0;
	}
}

int bench_free_port(int *ret)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rc = 0;

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) != 0)
		rc = bench_error("no free port: %s", strerror(errno));
	if (fd >= 0)
		(void)close(fd);
	*ret = ntohs(at.sin_port);
	return rc;
}

void bench_stop(struct bench_server *server, int signal)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	if (server->pid <= 0)
		return;
	(void)kill(server->pid, signal);
	for (unsigned ms = 0; waitpid(server->pid, NULL, WNOHANG) == 0; ms++) {
		if (ms == STOP_MS_MAX)
			(void)kill(server->pid, SIGKILL);
		(void)nanosleep(&pause, NULL);
	}
	server->pid = 0;
}

void bench_command(struct bench_server *server, const char *as, const char *const argv[])
{
	size_t at = 0;

	server->command[0] = 0;
	for (unsigned i = 0; argv[i] != NULL && at < sizeof(server->command); i++) {
		const char *word = i == 0 && as != NULL ? as : argv[i];
		bool plain = word[0] != 0 && strpbrk(word, " '\"$\\") == NULL;

		at += (size_t)snprintf(server->command + at, sizeof(server->command) - at,
				       plain ? "%s%s" : "%s'%s'", i > 0 ? " " : "", word);
	}
}

int bench_connect(int port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons((uint16_t)port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (fd < 0)
		return bench_error("socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
	    fcntl(fd, F_SETFL, O_NONBLOCK) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0) {
		(void)bench_error("connect to port %d: %s", port, strerror(errno));
		(void)close(fd);
		return -1;
	}
	return fd;
}
