/* SPDX-License-Identifier: Apache-2.0
 * Timers of sessions without a connection; the bounds on the number of sessions. For heartbeat.c,
 * engine.c, batch.c and struct engine. */
#ifndef SLUICE_ENGINE_HEARTBEAT_H
#define SLUICE_ENGINE_HEARTBEAT_H

#include "broker/engine/demand.h"

struct opening { /* sessions opened by the current batch */
	uint64_t batch, count;
};
struct tenant {
	uint64_t gateway;
	uint64_t sessions, expiring;
	struct opening opening;
	UT_hash_handle hh;
};
struct peer { /* an address that sessions were opened from */
	uint64_t sessions, expiring;
	struct opening opening;
	struct session_timer *unused; /* without a connection, never used; the oldest first */
	uint64_t unused_count;
	UT_hash_handle hh;
	char address[];
};
struct session_timer {
	struct session_key key;
	uint32_t timeout_ms;
	uint64_t deadline_ms;	  /* of engine.live_ms; while it has a place */
	size_t place;		  /* in the heap; SIZE_MAX: none */
	struct engine_sink *sink; /* of its connection; NULL: it has none */
	uint64_t tag;
	bool used;     /* named, resumed, or its connection did more than open it */
	bool expiring; /* SESSION_EXPIRE is in the current batch */
	bool in_unused;
	bool awaited;	    /* its first connection has not attached it yet */
	bool standing;	    /* it has no deadline */
	bool ends;	    /* it ends with the start of the broker, and is due */
	uint64_t opened_ms; /* while awaited */
	uint64_t replaced;  /* 1 + the batch that opens a session with the same name; 0: none */
	struct tenant *tenant;
	struct peer *peer;		   /* NULL: its address is not known */
	struct session_timer *prev, *next; /* in detached */
	struct session_timer *unused_prev, *unused_next;
	UT_hash_handle hh;
};
struct heartbeats {
	struct session_timer *timers;
	struct session_timer **heap; /* by deadline_ms */
	size_t heap_count, heap_capacity;
	uint64_t next_ms; /* the earliest deadline */
	/* ordered by loss of connection or last sign of life, the oldest first; without the
	 * standing ones */
	struct session_timer *detached;
	uint64_t ending; /* that have `ends` */
	uint64_t checks; /* of sessions that may give way, in the current batch */
	struct peer *peers;
	struct tenant *tenants;
	uint64_t batch;
};
struct session_seen {
	uint32_t gateway;
	uint64_t session;
	uint32_t timeout_ms;
	bool named, used;
	bool standing;		     /* lives until it is closed */
	bool ends;		     /* due at once: an ephemeral one of before the start */
	bool opened;		     /* now: its connection is about to attach it */
	struct sluice_slice address; /* empty: not known */
};
/* Adds a session that has no connection yet. NOMEM: it was not added. */
int heartbeats_add(struct heartbeats *heartbeats, const struct session_seen *seen,
		   uint64_t now_ms) SLUICE_MUST_USE;
/* The session has another timeout, or its client another address. It counts as used: it did more
 * than open. NOMEM: nothing was changed. */
int heartbeats_alter(struct heartbeats *heartbeats, const struct session_seen *seen,
		     uint64_t now_ms) SLUICE_MUST_USE;
void heartbeats_remove(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session);
/* True: the session was another connection's, which is kicked, and named in *ret_lost. */
bool heartbeats_attach(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		       struct engine_sink *sink, uint64_t tag, struct consumer_key *ret_lost);
void heartbeats_detach(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		       struct engine_sink *sink, uint64_t tag, uint32_t idle_ms, bool used,
		       uint64_t now_ms);
/* A sign of life at at_ms of a session that has no connection. Nothing if it has one, or none is
 * there. */
void heartbeats_touch(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		      uint64_t at_ms);
/* A session that has expired, now marked expiring; NULL: none. */
struct session_timer *heartbeats_due(struct heartbeats *heartbeats, uint64_t now_ms);
/* After a SESSION_EXPIRE that was refused because of damage: the session is still there, and is due
 * again at due_ms. */
void heartbeats_again(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		      uint64_t due_ms);
enum session_bound { BOUND_NONE, BOUND_ADDRESS, BOUND_GATEWAY };
/* Begins a batch. Sessions that the last one opened were counted by heartbeats_add(). */
void heartbeats_batch(struct heartbeats *heartbeats);
/* Whether one more session may be opened; if so, it is counted in the current batch. replaced: the
 * session that ends by it, 0: none; where that one was counted, the new one is not. */
enum session_bound heartbeats_admit(struct heartbeats *heartbeats, uint32_t gateway,
				    struct sluice_slice address, uint64_t replaced);
/* The session without a connection that gives way at a bound, now marked expiring: the oldest that
 * was never used, else the oldest that owns nothing. address: empty: any. Checks a bounded number
 * of sessions. NULL: none. */
struct session_timer *heartbeats_oldest(
	struct heartbeats *heartbeats, uint32_t gateway, struct sluice_slice address,
	bool (*owns)(void *user, uint32_t gateway, uint64_t session), void *user);
void heartbeats_fini(struct heartbeats *heartbeats);

#endif
