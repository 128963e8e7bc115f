/* SPDX-License-Identifier: Apache-2.0
 *
 * Parts of the sluice driver, shared by its files: clients of libsluice in caller-loop mode, so
 * that the thread that uses a connection is the whole client, as with the other drivers. No retry
 * and no reconnect: a failure ends the run with an error.
 *
 * Errors: 0, or -1 after bench_error().
 */
#ifndef BENCH_DRIVERS_SLUICE_DRIVER_H
#define BENCH_DRIVERS_SLUICE_DRIVER_H

#include "bench/harness/driver.h"
#include "sluice/client.h"

/* Subject of all messages: the broker requires one, and a batch has it once. */
#define BENCH_SUBJECT "bench"

enum { SLUICE_FAULT_BYTES = 320 };

/* The first failure of a client, recorded by its callbacks, which cannot return it. */
struct sluice_fault {
	char text[SLUICE_FAULT_BYTES]; /* empty: none */
};
void sluice_fault_set(struct sluice_fault *, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* 0, or -1 with the fault as the error. */
int sluice_fault_check(const struct sluice_fault *);
/* The client's event callback; user is its fault. A broken connection, or a refused ack, is a
 * failure. */
void sluice_fault_on_notice(sluice_client *client, const sluice_notice *notice, void *user);

/* An additional setting. A NULL key ends a list. */
struct sluice_setting {
	const char *key;
	uint64_t value;
};

/* A connected client, owned (sluice_client_end). fault outlives it. Blocks. */
int sluice_client_begin(const struct bench_server *, const struct sluice_setting *settings,
			struct sluice_fault *fault, sluice_client **ret);
void sluice_client_end(sluice_client *); /* ends its session too; accepts NULL */
/* The result of a blocking call; frees its reply. 0, or -1 with an error that has the request and
 * the answer. */
int sluice_outcome(int rc, sluice_reply *reply, const char *what, const char *name);

int sluice_driver_start(const struct bench_system *, const struct bench_server_spec *,
			struct bench_server *ret);
int sluice_driver_age(const struct bench_system *, const struct bench_server_spec *);
int sluice_driver_idle(const struct bench_server *, unsigned count, int **ret_fds);
int sluice_driver_jobs(const struct bench_server *, const struct bench_jobs_spec *,
		       struct bench_jobs_result *ret);

/* Creates streams and queues unless they exist; subjects: NULL, or the edges from the default
 * router. */
int sluice_stream_make(sluice_client *, const char *name, const char *const *subjects);
int sluice_queue_make(sluice_client *, const char *name, bool jobs);

#endif
