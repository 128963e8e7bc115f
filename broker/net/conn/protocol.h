/* SPDX-License-Identifier: Apache-2.0
 *
 * What a protocol does for its connections: one table each, filled by native/ and by foreign/ (for
 * the listeners of plugins). conn/ and io/ call a protocol through conn->protocol and know nothing
 * else of it. For the files of broker/net that call the table, and for those that fill it. The
 * protocol's own calls are in door.h.
 *
 * All functions run on the thread of the connection. A connection that is dead or closing still
 * receives effects; its protocol then ignores them.
 */
#ifndef SLUICE_NET_PROTOCOL_H
#define SLUICE_NET_PROTOCOL_H

#include "broker/core/core.h"
#include "broker/net/conn/door.h"

struct conn;
struct sub;

/* How a read of door_read has ended. */
struct read_result {
	const Sluice__Request *request;
	int rc;		  /* not 0: there is no reply */
	int code;	  /* rc, or else the one in the reply */
	const char *text; /* of the code; borrowed for the call */
	uint8_t *reply;	  /* a packed Reply; malloc'd, the protocol's now */
	size_t len;
	uint64_t number; /* as of engine_read_begin; 0: no snapshot */
};

/* How a wait of door_job_wait has ended. All of it is borrowed for the call. */
struct job_waited {
	/* 0: the job has ended. TIMEOUT: it has not, in time. NOT_FOUND: there is none of this id,
	 * or not of this number any more. BUSY: the connection waits for INFLIGHT_REQUESTS_MAX jobs
	 * already. LIMIT, INVAL: it is no id. NOMEM, CORRUPT and others: it could not be read. */
	int code;
	const char *text;     /* of the code */
	const uint8_t *reply; /* a packed Reply as to job_show, with code and text; NULL: none */
	size_t len;
};

struct protocol_ops {
	/* ---- the connection ---- */
	const char *(*name)(const struct conn *conn); /* for the log */
	/* A new connection, with conn->listener; sets conn->state. Not 0: the connection is closed,
	 * and `closed` is called only if the state was set. */
	int (*accept)(struct conn *conn);
	/* Returns how many bytes were consumed, or a negative number to close the connection. */
	long (*bytes)(struct conn *conn, const void *bytes, size_t len);
	/* The turn's input is used up: after its last `bytes`. For what `bytes` has gathered.
	 * NULL: not needed. */
	void (*round)(struct conn *conn);
	/* OUTPUT: it has drained to its low mark after door_write returned BUSY. INBOX:
	 * after a command or memory was refused with BUSY in another call than `bytes`, it may be
	 * tried again. NULL: not needed. */
	void (*ready)(struct conn *conn, enum door_ready what);
	void (*timer)(struct conn *conn); /* of door_timer; NULL: the protocol does not call it */
	/* The broker stops: what it has read is answered, then it closes the connection, within so
	 * many ms. No `bytes` follows. NULL: not told. */
	void (*stop)(struct conn *conn, uint64_t within_ms);
	/* What it has read is answered; all that is not is of no effect. NULL: not told. */
	void (*drained)(struct conn *conn);
	void (*closed)(struct conn *conn); /* the last call: frees the state */

	/* ---- commands and reads ---- */
	/* The answer of a command. The payload is that of the REPLY effect, borrowed for the call.
	 */
	void (*reply)(struct conn *conn, uint64_t tag, const struct outcome *outcome,
		      struct sluice_slice payload);
	/* What a CLAIM gives that the protocol has submitted itself: GRANT, JOBS, RESUMED,
	 * ITEM_DAMAGED, in order, before its reply. Another command may give ITEM_DAMAGED.
	 * NULL: the protocol submits no CLAIM. */
	void (*claimed)(struct conn *conn, uint64_t tag, const struct effect *effect);
	/* The answer of door_session that opened a session; code 0: it is attached. text: borrowed.
	 */
	void (*session)(struct conn *conn, uint64_t tag, int code, const char *text,
			const struct door_session *session);
	/* A request of door_in_order has its turn. rc NOMEM: it was lost. The call may take *block,
	 * which holds request. bytes: of the packed request. NULL: the protocol has none. */
	void (*request)(struct conn *conn, uint64_t tag, int rc, const Sluice__Request *request,
			struct message_block **block, size_t bytes);
	/* A read of door_read has ended, in that call or in a later round. */
	void (*read_done)(struct conn *conn, uint64_t corr, const struct read_result *result);
	/* What door_answer was given, in its turn. */
	void (*answer)(struct conn *conn, uint64_t corr, int code, const uint8_t *reply,
		       size_t len);
	/* A wait of door_job_wait has ended, in that call or later; in its turn, as `answer`. NULL:
	 * the protocol has no waits. */
	void (*waited)(struct conn *conn, uint64_t tag, const struct job_waited *result);

	/* ---- subscriptions and sessions ---- */
	/* sub: of the connection: GRANT, JOBS, RESUMED, ITEM_DAMAGED. NULL: JOB_CANCEL, LEASE_LOST,
	 * SESSION_ENDED of its session. */
	void (*effect)(struct conn *conn, struct sub *sub, const struct effect *effect);
	/* Delivers the part of a segment from the follower's `next` on, says so by door_delivered,
	 * and subtracts the cost from the budget. Not 0: the connection is closed. */
	int (*deliver_segment)(struct sub *sub, const struct segment *segment, uint64_t *io_budget);
	/* gap: retention removed the events before to_offset. caught_up: the follower has received
	 * all events. NULL: not reported. */
	void (*gap)(struct sub *sub, uint64_t to_offset);
	void (*caught_up)(struct sub *sub);
	/* The broker ends the subscription after this call: its stream or queue was deleted
	 * (NOT_FOUND), or a record that it needs is damaged (CORRUPT). */
	void (*subscription_end)(struct sub *sub, int code, const char *text);
};

#endif
