/* SPDX-License-Identifier: Apache-2.0
 *
 * The interface between the harness (scenarios, load, statistics) and the drivers (the protocol of
 * one server each). A scenario uses only this header, so every system gets the same load: the same
 * bodies, window, batch and order. A driver adds nothing of its own: no retry, no pacing, no thread
 * that publishes. Batching and buffering that its client library does by itself belong to the
 * system and are measured with it.
 *
 * Threads: one thread at a time uses a connection; two threads may use two connections at once.
 * Servers are other processes. A system without a server (bare commits) has `pid` 0.
 *
 * Errors: a function of a driver returns 0, or -1 after bench_error() with what was tried and what
 * the server answered. No call succeeds if the server refused it.
 *
 * Ownership: strings and bodies are borrowed for the call. A connection ends before its server.
 */
#ifndef BENCH_DRIVER_H
#define BENCH_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { BENCH_PATH_MAX = 512, BENCH_COMMAND_MAX = 1024 };

/* ---- servers ---- */

struct bench_server_spec {
	const char *dir; /* where its data goes: empty, or left by an earlier server of the same
			    system */
	const char *bin; /* the build directory, where the project's programs are */
	const char *log; /* the server's output is appended to it */
	unsigned conns;	 /* connections that it must be able to accept; 0: its default */
	unsigned age_percent; /* age(): amount of churn, 25 to 100 (normal); less than 100 only to
				 test the program */
};

struct bench_server {
	const struct bench_system *system;
	pid_t pid; /* 0: no server; the system works inside the harness */
	int port;
	char dir[BENCH_PATH_MAX];
	char command[BENCH_COMMAND_MAX]; /* the command line, in shell form; for the report */
};

/* ---- connections ---- */

enum bench_role {
	BENCH_PUBLISH,	  /* publishes into the stream `name` */
	BENCH_PUT,	  /* puts into the queue `name` */
	BENCH_FOLLOW_NEW, /* events published to the stream `name` after open() has returned */
	BENCH_FOLLOW_ALL, /* the stream `name` from its first event */
	BENCH_WORK,	  /* takes items of the queue `name` and acks each; `window` held at most */
};

/* Called from poll(), for each body that arrives. */
typedef void bench_body_fn(void *user, const void *body, size_t len);

struct bench_conn_spec {
	enum bench_role role;
	const char *name;	/* stream or queue, made by prepare() */
	unsigned batch;		/* PUBLISH, PUT: bodies in a unit; 1: a unit is one message */
	size_t body_bytes;	/* of every body */
	unsigned window;	/* limit on units in flight; the scenario observes it */
	bench_body_fn *on_body; /* FOLLOW, WORK: or NULL */
	void *user;
};

struct bench_conn; /* the driver's own */

struct bench_progress {
	uint64_t answered; /* PUBLISH, PUT: units that the server has confirmed under its
			      durability, in the order of send() */
	uint64_t received; /* FOLLOW, WORK: bodies */
	uint64_t settled;  /* WORK: acks that the server has confirmed under its durability; if a
			      system does not answer acks, what settled() below reports */
};

/* ---- complete lives of jobs, for systems with jobs ---- */

struct bench_jobs_spec {
	unsigned active; /* lives that are under way at any time */
	uint64_t lives;	 /* to begin and to end; the count of a run */
	uint64_t warm;	 /* lives to end before the clock starts */
	unsigned payload_bytes;
	void (*started)(void *user); /* the clock starts */
	void (*stopped)(void *user); /* it stops; ending the remaining lives is not measured */
	void *user;
};

struct bench_jobs_result {
	uint64_t lives;	 /* ended since `started` */
	uint64_t events; /* of the job stream, received by its follower, over all lives */
	uint64_t events_expected;
	double seconds; /* from `started` to the last durable end */
};

/* ---- the table of a driver ---- */

/* The part of a driver's systems in the report and the plan. */
enum bench_kind { BENCH_OURS, BENCH_FLOOR, BENCH_PEER };

struct bench_driver {
	const char *name; /* drivers of one name share an aged store */
	enum bench_kind kind;
	bool answers_only; /* published bodies cannot be read: no FOLLOW, no WORK; latencies end at
			      the answer */
	/* Starts the server and returns as soon as it accepts connections, because this call
	 * measures the start-up time. Fills *ret. On failure nothing is left running. */
	int (*start)(const struct bench_system *, const struct bench_server_spec *,
		     struct bench_server *ret);
	/* Makes an aged store in spec->dir: random-key churn and long-lived items first
	 * (bench/README.md says how much), through the system's own interface; no server is left
	 * running. NULL: the system cannot be aged. */
	int (*age)(const struct bench_system *, const struct bench_server_spec *);
	/* Creates the stream or queue (by role) if it does not exist. */
	int (*prepare)(const struct bench_server *, enum bench_role, const char *name);

	int (*open)(const struct bench_server *, const struct bench_conn_spec *,
		    struct bench_conn **ret);
	void (*close)(struct bench_conn *); /* accepts NULL */
	/* One unit: spec.batch bodies, one after the other. Copies what it keeps; never waits for
	 * an answer. May buffer until poll(). */
	int (*send)(struct bench_conn *, const void *bodies);
	/* Sends buffered output and handles available input. If there is none, waits up to
	 * timeout_us for input (0: does not wait; may be rounded up to a millisecond).
	 * Adds to *io. */
	int (*poll)(struct bench_conn *, int timeout_us, struct bench_progress *io);
	/* Readable when poll() has input; for waiting on several connections. */
	int (*fd)(const struct bench_conn *);
	/* WORK: acks of this queue accepted since open(), as the server reports; NULL: use poll's
	 * `settled`. */
	int (*settled)(struct bench_conn *, uint64_t *ret);

	/* Opens `count` connections that have sent their hello and then are silent; *ret_fds
	 * (owned, count long) are closed by the caller. */
	int (*idle)(const struct bench_server *, unsigned count, int **ret_fds);
	/* NULL: the system has no jobs. */
	int (*jobs)(const struct bench_server *, const struct bench_jobs_spec *,
		    struct bench_jobs_result *ret);
};

/* One row of what can be measured: a driver in one mode. */
struct bench_system {
	const char *name;	/* "sluice", "floor-record", "redis-always": the JSON's `system` */
	const char *durability; /* "fsync before the reply": the JSON's `durability` */
	const char *what;	/* one line for --list */
	const struct bench_driver *driver;
	int mode; /* the driver's own */
};

/* Each driver's file exports its rows; harness/systems.c lists them. A NULL name ends them. */
extern const struct bench_system bench_sluice_systems[];
extern const struct bench_system bench_floor_systems[];
extern const struct bench_system bench_redis_systems[];

/* ---- functions of the harness for drivers ---- */

/* Records the error; the harness prints the last one with scenario and system. Returns -1. */
int bench_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *bench_last_error(void);

/* Whether the run was interrupted (Ctrl-C): a driver's call that may take seconds then fails. */
bool bench_interrupted(void);

uint64_t bench_now_ns(void); /* CLOCK_MONOTONIC, which all processes of a machine share */

/* Starts argv[0] (found as execvp does), which is killed when the harness ends; argv[0] of the
 * process is `as` if not NULL. Output goes to spec->log; with ret_out not NULL standard output goes
 * to that pipe instead (close it after the ready line). 0 or -1. */
int bench_spawn(const struct bench_server_spec *, const char *as, const char *const argv[],
		pid_t *ret_pid, int *ret_out);
/* Waits for a line that begins with `prefix`, from *fd, at most 120 s; copies it. -1: the end of
 * output, time over. */
int bench_await_line(int fd, const char *prefix, char *ret, size_t ret_bytes);
/* A free loopback port, bound and released again: for servers that cannot take port 0. */
int bench_free_port(int *ret);
/* Signal, then wait (SIGKILL after 30 s); pid becomes 0. */
void bench_stop(struct bench_server *, int signal);
/* argv as one line into server->command. */
void bench_command(struct bench_server *, const char *as, const char *const argv[]);
/* Connects to 127.0.0.1:port, TCP_NODELAY set, non-blocking; the descriptor, or -1. */
int bench_connect(int port);

#endif
