/* SPDX-License-Identifier: Apache-2.0
 * The floor as a measured system: sluice-floor-server in its three modes, and bare commits without
 * a server. The first hello creates the table, so prepare() has nothing to do. */
#include "floor.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Churn that leaves about 100 MiB of free pages in short runs, as the broker's own ageing does. The
 * bench gives each repeat a copy. See ../floor/store.c. */
enum { AGE_ROUNDS = 400 };

static const char *const mode_names[] = {"record", "segment", "echo"};

static int program(const struct bench_server_spec *spec, char ret[BENCH_PATH_MAX])
{
	int n = snprintf(ret, BENCH_PATH_MAX, "%s/bench/floor/sluice-floor-server", spec->bin);
	return n > 0 && n < BENCH_PATH_MAX
		       ? 0
		       : bench_error("the name of the build directory is too long");
}

static int start(const struct bench_system *system, const struct bench_server_spec *spec,
		 struct bench_server *ret)
{
	char path[BENCH_PATH_MAX], line[64];
	if (program(spec, path) < 0)
		return -1;
	const char *const argv[] =
		{path, "--dir", spec->dir, "--listen-port", "0", "--mode", mode_names[system->mode],
		 NULL};
	struct bench_server server = {.system = system};
	snprintf(server.dir, sizeof(server.dir), "%s", spec->dir);
	bench_command(&server, NULL, argv);
	int out;
	if (bench_spawn(spec, NULL, argv, &server.pid, &out) < 0)
		return -1;
	int rc = bench_await_line(out, "ready ", line, sizeof(line));
	close(out);
	if (rc == 0) {
		server.port = atoi(line + strlen("ready "));
		*ret = server;
		return 0;
	}
	bench_stop(&server, SIGKILL);
	return bench_error("sluice-floor-server did not become ready; its log is %s", spec->log);
}

static int age(const struct bench_system *system, const struct bench_server_spec *spec)
{
	char path[BENCH_PATH_MAX], line[128];
	if (program(spec, path) < 0)
		return -1;
	char rounds[16];
	const char *const argv[] = {path, "--dir", spec->dir, "--age", rounds, NULL};
	pid_t pid;
	int out, status;
	(void)snprintf(rounds, sizeof(rounds), "%u", AGE_ROUNDS * spec->age_percent / 100);
	if (bench_spawn(spec, NULL, argv, &pid, &out) < 0)
		return -1;
	int rc = bench_await_line(out, "aged: ", line, sizeof(line));
	close(out);
	if (rc < 0)
		kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid || status || rc < 0)
		return bench_error("sluice-floor-server --age failed; its log is %s", spec->log);
	return 0;
}

static int prepare(const struct bench_server *server, enum bench_role role, const char *name)
{
	return 0;
}

static int idle(const struct bench_server *server, unsigned count, int **ret_fds)
{
	int *fds = malloc((count ? count : 1) * sizeof(*fds));
	if (!fds)
		return bench_error("out of memory for %u connections", count);
	const struct bench_conn_spec spec = {.role = BENCH_PUBLISH, .name = "idle", .batch = 1};
	for (unsigned i = 0; i < count; i++) {
		fds[i] = floor_wire_connect(server->port, &spec);
		if (fds[i] >= 0)
			continue;
		while (i > 0)
			close(fds[--i]);
		free(fds);
		return -1;
	}
	*ret_fds = fds;
	return 0;
}

/* Without a server. */
static int start_nothing(const struct bench_system *system, const struct bench_server_spec *spec,
			 struct bench_server *ret)
{
	*ret = (struct bench_server){.system = system};
	snprintf(ret->dir, sizeof(ret->dir), "%s", spec->dir);
	snprintf(ret->command, sizeof(ret->command), "(mdb_txn_commit in the harness)");
	return 0;
}

static int idle_nothing(const struct bench_server *server, unsigned count, int **ret_fds)
{
	return bench_error("floor-commit has no server, so no connections");
}

static int fd_nothing(const struct bench_conn *c)
{
	return -1;
}

#define WIRE                                                                         \
	.name = "floor", .kind = BENCH_FLOOR, .start = start, .prepare = prepare,    \
	.open = floor_wire_open, .close = floor_wire_close, .send = floor_wire_send, \
	.poll = floor_wire_poll, .fd = floor_wire_fd, .idle = idle

static const struct bench_driver driver_wire = {WIRE, .age = age};
static const struct bench_driver driver_echo = {WIRE, .answers_only = true};
static const struct bench_driver driver_commit = {
	.name = "floor",
	.kind = BENCH_FLOOR,
	.answers_only = true,
	.start = start_nothing,
	.age = age,
	.prepare = prepare,
	.open = floor_commit_open,
	.close = floor_commit_close,
	.send = floor_commit_send,
	.poll = floor_commit_poll,
	.fd = fd_nothing,
	.idle = idle_nothing,
};

const struct bench_system bench_floor_systems[] = {
	{"floor-record", "fsync before the reply",
	 "bare LMDB behind bare sockets, a record for each body", &driver_wire, FLOOR_RECORD},
	{"floor-segment", "fsync before the reply",
	 "bare LMDB behind bare sockets, a record for each batch", &driver_wire, FLOOR_SEGMENT},
	{"floor-echo", "nothing is stored", "bare sockets: each unit is answered at once",
	 &driver_echo, FLOOR_ECHO},
	{"floor-commit", "fsync", "bare LMDB in the harness, a record for each body",
	 &driver_commit, FLOOR_COMMIT},
	{NULL, NULL, NULL, NULL, 0},
};
