/* SPDX-License-Identifier: Apache-2.0
 *
 * What struct core holds: caches that are derived from the store and dropped on abort, and scratch memory.
 * Between two commands nothing here matters to what apply does; `pending` is empty then.
 */
#ifndef SLUICE_CORE_CORE_INTERNAL_H
#define SLUICE_CORE_CORE_INTERNAL_H

#include "broker/core/base/age.h"
#include "broker/core/base/apply.h"

struct machine_cache; /* machine.h */
struct router_cache;  /* router.h */

/* A growable buffer that is kept between commands. */
struct scratch {
	uint8_t *data;
	size_t capacity;
};
int scratch_reserve(struct scratch *scratch, size_t bytes) SLUICE_MUST_USE; /* keeps the content; NOMEM */

enum { PENDING_LOGS_MAX = 4, PENDING_EVENTS_MAX = 1000, PENDING_BYTES_MAX = 256 * 1024 };
/* Events from inside core (publish_internal) that wait for the end of their command, to be stored as one
 * segment per log. Their offsets are given already. */
struct pending_log {
	uint32_t gateway;
	uint64_t stream;
	uint64_t base;
	uint32_t count; /* 0: free */
	size_t bytes;
	struct scratch envelopes;
};

struct grown_log {
	uint32_t gateway;
	uint64_t stream;
};

struct core {
	struct batch_clock clock; /* of the open batch */
	struct age age;		  /* as of the open batch; read anew at its beginning */
	uint32_t position;	  /* of the next command in it */
	struct machine_cache *machines;
	struct router_cache *routers;
	struct effects *bootstrap_effects; /* of core_bootstrap and core_boot: nobody hears them */
	struct pending_log pending[PENDING_LOGS_MAX];
	uint8_t firing[TIMER_KEY_BYTES]; /* the timer that is being fired, or failed */
	bool fires;
	struct grown_log *grown; /* logs that grew in this batch; may have doubles */
	size_t grown_count, grown_capacity;
	struct core_work work;	 /* of the open batch */
	struct core_work begun;	 /* work, when the command at hand began */
	struct scratch envelope; /* re-encoded events of a run */
	struct scratch targets;	 /* route targets of a run */
	struct scratch puts;	 /* the run's events, for queues */
	struct scratch answers;	 /* a producer's cell */
};

/* Counts a record that is put or deleted, where its size may be anything; an undone write stays counted. */
static inline void core_worked(struct core *core, size_t bytes)
{
	core->work.records++;
	core->work.bytes += bytes;
}
/* What the command at hand has written so far. */
static inline struct core_work core_command_work(const struct core *core)
{
	return (struct core_work){core->work.records - core->begun.records,
				  core->work.bytes - core->begun.bytes, core->work.steps - core->begun.steps};
}

/* The context of a command. */
void apply_init(struct apply *a, struct core *core, struct store_txn *txn, struct effects *effects,
		uint32_t gateway);

/* gateway.c: everything that a new gateway has. a->gateway is its number. */
int gateway_install(struct apply *a, struct sluice_slice name) SLUICE_MUST_USE;

/* session.c: the rest of an ended session; by sweep_fire. */
int session_sweep(struct apply *a, uint64_t session, uint32_t *io_work, bool *ret_done) SLUICE_MUST_USE;
/* stream_retention.c: the rest of a deleted stream. */
int stream_sweep(struct apply *a, uint64_t stream, uint32_t *io_work, bool *ret_done) SLUICE_MUST_USE;

/* publish_internal.c */
int pending_flush(struct apply *a) SLUICE_MUST_USE;
/* Before another append to the same log. */
int pending_flush_log(struct apply *a, uint64_t stream) SLUICE_MUST_USE;
void pending_drop(struct core *core); /* a refused transaction, an aborted batch */

/* stream.c */
int stream_grown(struct apply *a, uint64_t stream) SLUICE_MUST_USE; /* notes it for the batch's end */
int stream_grown_emit(struct core *core, struct store_txn *txn, struct effects *effects) SLUICE_MUST_USE;

#endif
