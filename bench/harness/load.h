/* SPDX-License-Identifier: Apache-2.0
 * Internal to load.c: a pump publishes within its window, a reader receives. Both belong to one
 * thread at a time. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "harness.h"

#define BENCH_STREAM "bench-stream"
#define BENCH_QUEUE "bench-queue"

enum { BURST_BODIES = 1000, READERS_MAX = 64 };

struct stamp {
	uint64_t ns, units;
};

struct pump {
	const struct bench_driver *driver;
	const struct publish_load *load;
	struct bench_conn *conn;
	uint8_t *unit;
	struct stamp *stamps; /* a ring: one for each run of units with the same time */
	uint64_t stamp_head, stamp_tail, stamp_count;
	uint64_t inflight, sent, answered, answered_ns; /* units; when the last answer was taken */
	struct hist *hist;				/* send to answer; NULL: not counted */
};

/* The caller calls pump_close() in any case. stamps: runs that may be in flight at once. */
int pump_open(struct pump *pump, struct trial *trial, const struct publish_load *load,
	      unsigned stamps);
void pump_close(struct pump *pump);
int pump_send(struct pump *pump, unsigned units, uint64_t stamp_ns);
int pump_take(struct pump *pump, int timeout_us);
int pump_drain(struct pump *pump); /* until nothing is in flight */

struct reader {
	const struct bench_driver *driver;
	struct bench_conn *conn;
	enum bench_role role;
	struct bench_progress progress;
	uint64_t now_ns, done_ns;
	struct hist *hist; /* from the stamp in the body to its receipt; kept by reader_open() */
};

int reader_open(struct reader *reader, struct trial *trial, enum bench_role role, unsigned window,
		size_t body_bytes);
int reader_take(struct reader *reader, int timeout_us);
void reader_body(void *user, const void *body, size_t len);

#endif
