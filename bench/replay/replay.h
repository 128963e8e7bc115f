/* SPDX-License-Identifier: Apache-2.0
 *
 * The main test: a trace of a real supercomputer goes through Sluice, job by job, as processes, and
 * at the end four records of it ("accounts") are compared: the ledger, the event stream, the
 * records of the processes themselves, and the trace. Uses the public client only.
 *
 * Threads: main, and libsluice's (callbacks). `lock` guards shared members.
 */
#ifndef SLUICE_REPLAY_REPLAY_H
#define SLUICE_REPLAY_REPLAY_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "sluice/client.h"
#include "swf.h"

enum { PATH_BYTES = 1024, ID_BYTES = 64, WINDOWS = 3 };
enum expect { EXPECT_COMPLETE, EXPECT_FAILED, EXPECT_CANCELED_WAITING, EXPECT_CANCELED_RUNNING };
enum plant { PLANT_NONE, PLANT_LOST, PLANT_DOUBLE, PLANT_WRONG };

struct plan {
	char id[ID_BYTES];
	enum expect expect;
	uint32_t run_ms;
	uint64_t at_ms; /* when it is submitted, from the start */
	/* seen, under the lock */
	bool submit_failed, cancel_sent;
	uint32_t terminal_events, active_events;
	char stream_state[24]; /* of the last terminal event */
	/* from the ledger */
	char ledger_state[24];
	bool ledger_terminal;
	uint32_t ledger_rows;
	/* from the processes */
	uint32_t starts;
};

struct options {
	const char *trace, *bin;
	char trace_path[PATH_BYTES];
	size_t jobs;
	double speedup;
	bool kill;
	uint32_t kills; /* of each, at least */
	uint64_t seed;
	enum plant plant;
	bool stay; /* on a terminal: leave the broker running */
};

struct counts {
	size_t submitted, active, complete, failed, canceled, terminal;
	uint64_t events;
};

struct replay {
	void (*stop)(
		struct replay *replay); /* ends all processes of the run; NULL: there are none */
	struct options options;
	bool installed; /* options.bin is a prefix and not a build directory */
	char dir[PATH_BYTES], data[PATH_BYTES], spool[PATH_BYTES], starts[PATH_BYTES],
		self[PATH_BYTES], log[PATH_BYTES];
	struct swf swf;
	struct plan *plans;
	size_t plan_count;
	/* processes */
	pid_t broker, scheduler;
	char address[64];
	uint64_t broker_kills, scheduler_kills, window_kills[WINDOWS];
	/* client */
	sluice_client *client;
	sluice_sub *sub;
	pthread_mutex_t lock;
	struct counts counts;
	bool tty;
	uint64_t begin_ms, drawn_ms;
	long starts_pos; /* read so far */
	uint64_t quarantined, findings;
	char sample[ID_BYTES];
};

/* ---- in the order of the files: each calls only those above it, and main.c calls all ---- */

/* run.c */
extern volatile sig_atomic_t interrupted; /* the signal that requested the end; 0: none */
uint64_t mono_ms(void);
uint64_t rand_next(struct replay *replay); /* from the seed */
/* Ends the program with a message, after replay->stop. */
void fail(struct replay *replay, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/* plan.c */
void plan_make(struct replay *replay);
struct plan *plan_find(struct replay *replay, const char *id);
const char *expect_state(enum expect expect);
/* The process of a job: what `sluice-replay --job ...` does. */
int job_main(int argc, char **argv);

/* procs.c */
void broker_start(struct replay *replay);
void broker_kill(struct replay *replay);
void scheduler_start(struct replay *replay, const char *pause); /* NULL: none */
void scheduler_kill(struct replay *replay);
bool scheduler_paused(struct replay *replay);
void procs_stop(struct replay *replay, bool keep_broker);
/* Ends remaining processes of this run's jobs, which outlive their scheduler by design. After
 * procs_stop(). */
void jobs_end(struct replay *replay);
extern const char *const window_names[WINDOWS];

/* starts.c */
/* Reads the starts written since the last call; updates the plans */
void starts_read(struct replay *replay);

/* feed.c: submits, follows, cancels */
void feed_open(struct replay *replay);
bool feed_submit(struct replay *replay, struct plan *plan); /* false: not accepted now, try again */
void feed_cancels(struct replay *replay);
void feed_close(struct replay *replay);

/* verify.c: reads ledger, starts, audit and quarantine; fills the plans */
void verify_read(struct replay *replay);

/* chaos.c */
void chaos_turn(struct replay *replay, uint64_t now); /* makes the kills that are due */
bool chaos_done(const struct replay *replay);
bool chaos_kills_done(const struct replay *replay); /* possibly not in each window: too few jobs */
double chaos_share(const struct replay *replay);    /* part of the planned kills, 0 to 1 */

/* view.c */
void view_progress(struct replay *replay, bool last);
bool view_summary(struct replay *replay); /* true: all agree */
void view_explain(struct replay *replay);

#endif
