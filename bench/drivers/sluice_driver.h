/* SPDX-License-Identifier: Apache-2.0
 *
 * The sluice driver's own parts, shared by its files: clients of libsluice in caller-loop mode, so that the thread that uses a connection is
 * the whole client, as it is with the other drivers. No retry and no reconnect: what breaks ends the run with an error.
 *
 * Errors: 0, or -1 after bench_error().
 */
#ifndef BENCH_DRIVERS_SLUICE_DRIVER_H
#define BENCH_DRIVERS_SLUICE_DRIVER_H

#include "bench/harness/driver.h"
#include "sluice/client.h"

/* Subject of all that is published: the broker wants one, and has it once in a batch. */
#define BENCH_SUBJECT "bench"

enum { SLUICE_FAULT_BYTES = 320 };

/* The first thing that went wrong on a client, as its callbacks saw it; they cannot return it. */
struct sluice_fault {
	char text[SLUICE_FAULT_BYTES]; /* empty: nothing */
};
void sluice_fault_set(struct sluice_fault *, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* 0, or -1 with the fault as the error. */
int sluice_fault_check(const struct sluice_fault *);
/* The client's event callback; user is its fault. Any break, and any ack that was refused, is one. */
void sluice_fault_on_notice(sluice_client *client, const sluice_notice *notice, void *user);

/* A setting beyond the common ones. A NULL key ends a list. */
struct sluice_setting {
	const char *key;
	uint64_t value;
};

/* A connected client, owned (sluice_client_end). fault outlives it. Blocks. */
int sluice_client_begin(const struct bench_server *, const struct sluice_setting *settings,
			struct sluice_fault *fault, sluice_client **ret);
void sluice_client_end(sluice_client *); /* ends its session too; accepts NULL */
/* The outcome of a blocking call, whose reply it frees: 0, or -1 which says what was tried and what was answered. */
int sluice_outcome(int rc, sluice_reply *reply, const char *what, const char *name);

int sluice_driver_start(const struct bench_system *, const struct bench_server_spec *,
			struct bench_server *ret);
int sluice_driver_age(const struct bench_system *, const struct bench_server_spec *);
int sluice_driver_idle(const struct bench_server *, unsigned count, int **ret_fds);
int sluice_driver_jobs(const struct bench_server *, const struct bench_jobs_spec *,
		       struct bench_jobs_result *ret);

/* Streams and queues, made if they are not there; subjects: NULL, or what the default router sends there. */
int sluice_stream_make(sluice_client *, const char *name, const char *const *subjects);
int sluice_queue_make(sluice_client *, const char *name, bool jobs);

#endif
