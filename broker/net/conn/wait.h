/* SPDX-License-Identifier: Apache-2.0
 * Waits for the end of a job. For conn.c, io/, and the protocols (job_show, wait_add). */
#ifndef SLUICE_NET_WAIT_H
#define SLUICE_NET_WAIT_H

#include "broker/core/core.h"
#include "broker/net/conn/wheel.h"

struct conn;
struct io;
struct job_shown; /* protocol.h */
struct waited;	  /* a job and its waiters */

struct waiter {
	struct wheel_entry due; /* first member: the wheel returns it */
	struct waiter *prev, *next;
	struct waiter *conn_prev, *conn_next;
	struct waited *waited;
	struct conn *conn;
	uint32_t corr;
	uint64_t number; /* of the job: the id may belong to another job when the answer is made */
};

/* The job as in a snapshot taken now; ret->reply is the caller's. */
void job_show(struct conn *conn, const char *job, struct job_shown *ret);
/* conn->protocol->job_ended or wait_timeout is called once, unless the connection ends before.
 * number: of the job. timeout_ms 0: none. NOMEM. */
int wait_add(struct conn *conn, uint32_t corr, const char *job, uint64_t number,
	     uint64_t timeout_ms) SLUICE_MUST_USE;
const char *wait_job(const struct waiter *waiter); /* id of the job */
void waits_job_ended(struct io *io, const struct effect *effect);
void waits_due(struct io *io, uint64_t now_ms);
void waits_drop(struct conn *conn);

#endif
