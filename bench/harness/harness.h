/* SPDX-License-Identifier: Apache-2.0
 *
 * Types of the harness: a scenario, the result of a trial, the rows of the report. Reading order:
 * driver.h, this file, scenarios.c (the table), load.c (how load is generated), plan.c (servers,
 * warm-up, interleaved repeats), report*.c.
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>

#include "driver.h"
#include "hist.h"

/* Sizes that the targets are defined for; a smaller run has no verdict. */
enum { STORED_DEFAULT = 10000000, IDLE_DEFAULT = 10000, ACTIVE_DEFAULT = 5000 };
/* Reported percentiles: p50, p99, p99.9. */
enum { LATENCIES = 3 };
enum { REPEATS_MAX = 100, ROWS_MAX = 512, PATTERNS_MAX = 32 };

struct options {
	bool quick, list;
	/* a test of the program, not of a system: set by SLUICE_BENCH_SMOKE in the environment */
	bool smoke;
	const char *only[PATTERNS_MAX];	   /* scenarios, shell patterns */
	const char *systems[PATTERNS_MAX]; /* systems, shell patterns */
	unsigned only_count, system_count;
	const char *json, *svg, *dir, *bin;
	unsigned repeats;
	unsigned slice_ms;    /* measured time of a timed trial */
	unsigned warm_ms;     /* load before the clock starts, in each trial */
	uint64_t preload_max; /* items or events made before a drain or a replay */
	uint64_t stored;      /* events of start-stored */
	unsigned idle;	      /* connections of idle */
	unsigned job_warm, job_lives, jobs_active;
};

/* What one trial measured. NaN: not applicable. */
struct sample {
	double value; /* in the scenario's unit */
	double ops;   /* number of operations that the CPU figures are divided by */
	double server_cpu_s, client_cpu_s;
	double rss_anon; /* peak of the trial, bytes */
	double offered, achieved;
	struct hist *hist; /* where latencies are added */
};

struct scenario;

struct trial {
	const struct options *options;
	const struct scenario *scenario;
	const struct bench_system *system;
	struct bench_server_spec spec;
	struct bench_server server; /* running, except in scenarios that start it themselves */
	unsigned number;	    /* 0: warm-up, not counted */
	double *state;		    /* 8 numbers of the row, kept over its trials, 0 at first */
	struct sample *sample;
};

struct scenario {
	const char *name, *what, *unit;
	const char *systems; /* names, separated by blanks */
	const char *floor;   /* the baseline system; "a+b": one after the other; NULL: none */
	bool lower;	     /* less is better */
	bool aged;	     /* also on an aged store, for systems that can age */
	bool queue;	     /* of a queue, which the scenario creates: not all systems have one */
	bool stored;	     /* state[0] counts the stored records */
	bool own_server;     /* starts and stops the server itself */
	bool slow_peers;     /* peers take part in the long form only */
	int (*run)(struct trial *trial);
	const void *arg;
	/* Targets, of the system sluice: a ratio to the floor and to a peer; 0: none. For
	 * lower-is-better the ratio must be at most this. */
	double floor_ratio, peer_ratio;
	const char *peer;
	double absolute;	     /* in the unit; 0: none */
	double p50_ratio, p99_ratio; /* of latencies, at most this times the floor's */
};

extern const struct scenario scenarios[];
extern const unsigned scenario_count;

/* One line of the report. */
struct row {
	char scenario[64];
	const struct scenario *of;
	const struct bench_system *system;
	bool aged, failed;
	char error[512];
	double values[REPEATS_MAX], server_cpu[REPEATS_MAX], client_cpu[REPEATS_MAX],
		offered[REPEATS_MAX], achieved[REPEATS_MAX];
	unsigned count;
	double latency[LATENCIES][REPEATS_MAX]; /* us; per run, because one disturbed run would
						   determine a common p99.9 */
	double rss_peak;
	double state[8];
	char command[BENCH_COMMAND_MAX];
	/* The plan's: */
	struct bench_server server;
	char dir[BENCH_PATH_MAX], log[BENCH_PATH_MAX];
};

struct results {
	struct row *rows[ROWS_MAX];
	unsigned count;
	double seconds;
};

/* ---- run.c ---- */
/* Set by a handler, read by all threads. SIGINT, SIGTERM: end soon, stop all servers, remove all
 * data. */
extern atomic_bool interrupted;

/* ---- systems.c ---- */
const struct bench_system *system_at(unsigned i); /* NULL after the last */
bool word_in(const char *words, const char *word);

/* ---- options.c ---- */
/* 0; 1: the requested text (help, list) was printed, exit with 0; 2: a bad option, reported on
 * standard error. */
int options_parse(struct options *options, int argc, char **argv);

/* ---- load.c: all of these count into trial->sample ---- */
struct publish_load {
	enum bench_role role;
	unsigned window, batch; /* units in flight; bodies per unit */
	size_t body_bytes;
};
/* Closed loop: up to `window` units in flight, for warm_ms and then slice_ms. sample->value: bodies
 * answered per second. */
int load_publish(struct trial *trial, const struct publish_load *load);
/* The same without measuring: until `bodies` are answered or `ms` have passed; *ret: the number
 * answered. */
int load_fill(struct trial *trial, const struct publish_load *load, uint64_t bodies, unsigned ms,
	      uint64_t *ret);
/* `count` bodies published by one thread and received (WORK: settled) by `readers` connections of
 * another; *ret_s: first send to last. Latencies from send to receipt, of all readers. Role of the
 * readers: BENCH_FOLLOW_NEW or BENCH_WORK. */
int load_through(struct trial *trial, const struct publish_load *load, enum bench_role role,
		 unsigned readers, uint64_t count, double *ret_s);
/* Open loop: `rate` units per second for slice_ms, latencies from the scheduled time of each to its
 * receipt by a follower (its answer, for systems without followers). */
int load_rate(struct trial *trial, const struct publish_load *load, double rate, unsigned ms);
/* One reader receives `count` stored bodies; *ret_s: from before its open to the last. No
 * latencies: stamps are those of the preload. */
int load_read(struct trial *trial, enum bench_role role, unsigned window, size_t body_bytes,
	      uint64_t count, double *ret_s);

/* ---- measure.c ---- */
struct meter {
	double server_cpu, client_cpu;
	pid_t pid;
};
void meter_start(struct meter *meter, const struct bench_server *server);
/* Sets sample->server_cpu_s, client_cpu_s. */
void meter_stop(struct meter *meter, struct sample *sample);
double rss_anon_bytes(pid_t pid); /* now; NaN if it cannot be read */
/* Starts a thread that samples every 10 ms and keeps the peak. */
void peak_start(pid_t pid);
double peak_stop(void);

/* ---- plan.c ---- */
int plan_run(const struct options *options, struct results *results);

/* ---- report ---- */
double median_of(const double *values, unsigned count); /* NaN for none */
double row_median(const struct row *row);
/* Least and most of the runs; NaN for none. */
void row_range(const struct row *row, double *ret_low, double *ret_high);
double row_latency(const struct row *row,
		   unsigned which); /* median of the runs' percentiles, us; NaN: none */
/* Three digits with a unit: "123 k", "1.23 M"; "-" for NaN. Returns text. */
const char *amount_format(char *text, size_t bytes, double value);
/* Parameters of a figure besides the scenario: "5000 active"; "" if none. */
const char *row_detail(const struct row *row, const struct options *options, char *text,
		       size_t bytes);
/* The floor's figure for a row, in its unit; NaN: none measured. */
double row_floor(const struct results *results, const struct row *row);
void report_table(FILE *out, const struct results *results, const struct options *options);
int report_json(const char *path, const struct results *results, const struct options *options);
int report_svg(const char *dir, const struct results *results);

#endif
