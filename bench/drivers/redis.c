/* SPDX-License-Identifier: Apache-2.0
 *
 * Redis Streams as a peer: starts the server and prepares it. redis_conn.c has the load.
 *
 * Two systems. redis-always (appendfsync always) writes and fsyncs its log before it sends the
 * replies of one round of its event loop: the durability that the broker promises. redis-everysec
 * fsyncs once a second, so a power cut loses up to a second; it is measured because most
 * installations use it.
 *
 * The server is Debian's, with its defaults except:
 *
 *   --save ""                        no snapshots: a fork and a second copy during a measurement
 *   --auto-aof-rewrite-percentage 0  no rewriting of the log, for the same reason
 *   --maxclients                     only if the scenario needs more than 10,000 connections
 *
 * The first two favour Redis. The package redis-tools contains the whole server as redis-check-rdb,
 * which acts as the server when its argv[0] is redis-server. It is used when redis-server is not in
 * PATH, because the package of that name also installs and starts a service.
 *
 * Streams and queues are both Redis streams. Acked entries stay in the stream: XACK only removes
 * them from the group's pending entries. XDEL beside each XACK would free the memory, at the cost
 * of another command and another log record per item. Redis' documentation does not ask for it, so
 * it is left out, in favour of Redis. Memory and log grow during a run; a scenario that must not
 * have that starts a server of its own.
 */
#include "bench/drivers/redis.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MODE_ALWAYS, MODE_EVERYSEC };

enum {
	READY_SECONDS_MAX = 120,
	HELLO_MS_MAX = 10000,
	CLIENTS_DEFAULT = 10000, /* Redis' limit without --maxclients */
	CLIENTS_SPARE = 32,	 /* besides the idle ones: load, queries */
};

/* Whether a directory of PATH has the program. */
static bool program_found(const char *name)
{
	const char *at = getenv("PATH");

	while (at && *at) {
		size_t len = strcspn(at, ":");
		char path[BENCH_PATH_MAX];
		int wrote = snprintf(path, sizeof(path), "%.*s/%s", (int)len, at, name);

		if (wrote > 0 && (size_t)wrote < sizeof(path) && access(path, X_OK) == 0)
			return true;
		at += len + (at[len] == ':');
	}
	return false;
}

/* Waits for the answer on fd; its first line without the end. -1: none, and *ret is "". */
static int read_line(int fd, char *ret, size_t ret_bytes, int timeout_ms)
{
	uint64_t end = bench_now_ns() + (uint64_t)timeout_ms * 1000000;
	size_t len = 0;

	*ret = 0;
	for (;;) {
		ssize_t got = recv(fd, ret + len, ret_bytes - 1 - len, 0);
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		uint64_t now = bench_now_ns();
		char *eol;

		if (got > 0) {
			len += (size_t)got;
			ret[len] = 0;
			eol = strpbrk(ret, "\r\n");
			if (eol)
				*eol = 0;
			if (eol || len == ret_bytes - 1)
				return 0;
			continue;
		}
		if (got == 0 || (errno != EAGAIN && errno != EINTR) || now >= end)
			return -1;
		(void)poll(&wait, 1, (int)((end - now) / 1000000) + 1);
	}
}

/* Sends PING and reads the answer. 1: PONG; 0: another answer, in `reply`, or none; -1: no
 * listener. */
static int ping(int fd, char *reply, size_t reply_bytes)
{
	static const char command[] = "*1\r\n$4\r\nPING\r\n";

	if (send(fd, command, sizeof(command) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(command) - 1)
		return -1;
	if (read_line(fd, reply, reply_bytes, HELLO_MS_MAX))
		return -1;
	return strcmp(reply, "+PONG") == 0;
}

/* Whether the process has ended. It stays a zombie until bench_stop() waits for it. */
static bool has_ended(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == pid;
}

/* While a server loads its log it accepts connections and answers -LOADING, so only PONG means
 * ready. Nothing but the server's output, which goes to the harness' log file, reports that moment,
 * so PING is repeated. */
static int await_ready(const struct bench_server *server)
{
	uint64_t end = bench_now_ns() + (uint64_t)READY_SECONDS_MAX * 1000000000;
	const struct timespec pause = {.tv_nsec = 200000};
	char reply[256] = "";
	int fd = -1;
	int rc = 0;

	while (rc != 1) {
		if (has_ended(server->pid)) {
			rc = bench_error("redis: the server ended before it was ready (%s): %s",
					 reply, server->command);
			break;
		}
		if (bench_interrupted()) {
			rc = bench_error("interrupted");
			break;
		}
		if (bench_now_ns() > end) {
			rc = bench_error("redis: not ready within %d s (%s): %s", READY_SECONDS_MAX,
					 reply, server->command);
			break;
		}
		if (fd < 0)
			fd = bench_connect(server->port);
		if (fd >= 0) {
			rc = ping(fd, reply, sizeof(reply));
			if (rc < 0) {
				close(fd);
				fd = -1;
			}
		}
		if (rc != 1)
			(void)nanosleep(&pause, NULL);
	}
	if (fd >= 0)
		close(fd);
	return rc == 1 ? 0 : -1;
}

static int start(const struct bench_system *system, const struct bench_server_spec *spec,
		 struct bench_server *ret)
{
	bool whole = program_found("redis-server");
	const char *as = whole ? NULL : "redis-server";
	char port[16], clients[16];
	const char *argv[32] = {whole ? "redis-server" : "redis-check-rdb",
				"--port",
				port,
				"--bind",
				"127.0.0.1",
				"--dir",
				spec->dir,
				"--daemonize",
				"no",
				"--appendonly",
				"yes",
				"--appendfsync",
				system->mode == MODE_ALWAYS ? "always" : "everysec",
				"--save",
				"",
				"--auto-aof-rewrite-percentage",
				"0"};
	size_t argc = 17;

	if (!whole && !program_found("redis-check-rdb"))
		return bench_error("redis: neither redis-server nor redis-check-rdb is in PATH "
				   "(Debian: redis-tools)");
	*ret = (struct bench_server){.system = system};
	if (bench_free_port(&ret->port))
		return -1;
	(void)snprintf(ret->dir, sizeof(ret->dir), "%s", spec->dir);
	(void)snprintf(port, sizeof(port), "%d", ret->port);
	if (spec->conns + CLIENTS_SPARE > CLIENTS_DEFAULT) {
		(void)snprintf(clients, sizeof(clients), "%u", spec->conns + CLIENTS_SPARE);
		argv[argc++] = "--maxclients";
		argv[argc++] = clients;
	}
	bench_command(ret, as, argv);
	if (bench_spawn(spec, as, argv, &ret->pid, NULL))
		return -1;
	if (await_ready(ret)) {
		bench_stop(ret, SIGKILL);
		return -1;
	}
	return 0;
}

/* The first XADD creates a stream; a queue needs its group from the first entry on. */
static int prepare(const struct bench_server *server, enum bench_role role, const char *name)
{
	const char *const argv[] = {"XGROUP", "CREATE", name, REDIS_GROUP, "0", "MKSTREAM"};
	redisReply *reply;
	int rc = 0;

	if (role != BENCH_PUT && role != BENCH_WORK)
		return 0;
	if (redis_command(server->port, 6, argv, &reply))
		return -1;
	/* BUSYGROUP: it is there already. */
	if (reply->type == REDIS_REPLY_ERROR && strncmp(reply->str, "BUSYGROUP", 9) != 0)
		rc = bench_error("redis: XGROUP CREATE %s: %s", name, reply->str);
	freeReplyObject(reply);
	return rc;
}

static int idle(const struct bench_server *server, unsigned count, int **ret_fds)
{
	int *fds = calloc(count ? count : 1, sizeof(*fds));
	unsigned made;

	if (!fds)
		return bench_error("redis: no memory for %u connections", count);
	for (made = 0; made < count; made++) {
		char reply[256] = "";
		int fd = bench_connect(server->port);

		if (fd < 0)
			break;
		fds[made] = fd;
		if (ping(fd, reply, sizeof(reply)) != 1) {
			(void)bench_error("redis: PING on connection %u of %u: '%s'", made + 1,
					  count, reply);
			close(fd);
			break;
		}
	}
	if (made == count) {
		*ret_fds = fds;
		return 0;
	}
	while (made > 0)
		close(fds[--made]);
	free(fds);
	return -1;
}

static const struct bench_driver driver = {
	.name = "redis",
	.kind = BENCH_PEER,
	.start = start,
	.prepare = prepare,
	.open = redis_conn_open,
	.close = redis_conn_close,
	.send = redis_conn_send,
	.poll = redis_conn_poll,
	.fd = redis_conn_fd,
	.idle = idle,
};

const struct bench_system bench_redis_systems[] = {
	{"redis-always", "fsync before the reply", "Redis Streams, appendfsync always", &driver,
	 MODE_ALWAYS},
	{"redis-everysec", "fsync once a second", "Redis Streams, appendfsync everysec", &driver,
	 MODE_EVERYSEC},
	{0},
};
