/* SPDX-License-Identifier: Apache-2.0
 *
 * The contents of struct core: caches that are derived from the store and dropped on abort, and
 * scratch memory. Between two commands nothing here affects the results of apply; `pending` is
 * empty then.
 */
#ifndef SLUICE_CORE_BASE_STATE_H
#define SLUICE_CORE_BASE_STATE_H

#include "broker/core/base/age.h"
#include "broker/core/base/apply.h"

struct lifecycle_cache; /* lifecycle/cache.c */
struct router_cache;	/* router/image.c */
struct owned_ops;	/* session/session.h */

/* A growable buffer that is kept between commands. */
struct scratch {
	uint8_t *data;
	size_t capacity;
};
int scratch_reserve(struct scratch *scratch,
		    size_t bytes) SLUICE_MUST_USE; /* keeps the content; NOMEM */

enum { PENDING_LOGS_MAX = 4, PENDING_EVENTS_MAX = 1000, PENDING_BYTES_MAX = 256 * 1024 };
/* Events of core (publish_internal) that are stored at the end of their command, as one segment per
 * log. Their offsets are assigned already. */
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
	uint64_t batch;		  /* its number */
	struct age age;		  /* as of the open batch; read anew at its beginning */
	bool aged;		  /* age_batch() was called in it */
	uint32_t level;		  /* of the rules; as age */
	uint32_t position;	  /* of the next command in it */
	struct lifecycle_cache *lifecycles;
	struct router_cache *routers;
	const struct owned_ops *owned; /* by enum owned_kind; dispatch/session_end.c */
	struct pending_log pending[PENDING_LOGS_MAX];
	uint8_t firing[TIMER_KEY_BYTES]; /* the timer that is firing, or that failed */
	bool fires;
	struct grown_log *grown; /* logs that grew in this batch; may contain duplicates */
	size_t grown_count, grown_capacity;
	struct core_work work;	 /* of the open batch */
	struct core_work begun;	 /* work at the beginning of the current command */
	struct scratch envelope; /* re-encoded events of a run */
	struct scratch targets;	 /* route targets of a run */
	struct scratch puts;	 /* the run's events, for queues */
	struct scratch answers;	 /* a producer's cell */
};

/* Counts a record of variable size that is put or deleted; an undone write stays counted. */
static inline void core_worked(struct core *core, size_t bytes)
{
	core->work.records++;
	core->work.bytes += bytes;
}
/* Whether the rules of a level apply: levels.def. */
static inline bool level_is(const struct apply *a, uint32_t level)
{
	return a->core->level >= level;
}
/* Work of the current command so far. */
static inline struct core_work core_command_work(const struct core *core)
{
	return (struct core_work){core->work.records - core->begun.records,
				  core->work.bytes - core->begun.bytes,
				  core->work.steps - core->begun.steps};
}

#endif
