/* SPDX-License-Identifier: Apache-2.0
 * Waits for the end of a job. For reading.c, conn.c and io/. */
#ifndef SLUICE_NET_WAIT_H
#define SLUICE_NET_WAIT_H

#include <stdint.h>

#include "sluice/types.h"

struct conn;
struct effect;
struct io;

/* As the arguments of door_job_wait. */
struct wait_spec {
	struct sluice_slice job;
	uint64_t number, timeout_ms;
};

/* The wait has its turn: conn->protocol->waited is called once, now or later, unless the connection
 * ends before. spec is borrowed for the call. */
void wait_begin(struct conn *conn, uint64_t tag, const struct wait_spec *spec);
void waits_job_ended(struct io *io, const struct effect *effect);
void waits_due(struct io *io, uint64_t now_ms);
void waits_check(struct conn *conn); /* the rules have changed: ends those that lost their right */
void waits_drop(struct conn *conn);

#endif
