/* SPDX-License-Identifier: Apache-2.0
 *
 * Lifecycles: a table of states and legal transitions per kind of job, loaded by a command.
 * Compiled to bit masks (one per state) and cached in the core's RAM; the cache has nothing that is
 * not in the store and is dropped on abort and on every change.
 *
 * A job's record refers to its state by position in the table, so LIFECYCLE_ALTER may add states
 * only at the end.
 */
#ifndef SLUICE_CORE_LIFECYCLE_H
#define SLUICE_CORE_LIFECYCLE_H

#include "broker/core/base/reply.h"

enum {
	LIFECYCLE_STATES_CAP = 64, /* LIMIT_LIFECYCLE_STATES_MAX: a mask has a bit per state */
	LIFECYCLE_STATE_NAME_BYTES_MAX = 63, /* fits struct outcome's state */
	LIFECYCLE_WHY_BYTES = 200,
};

#define LIFECYCLE_DEFAULT_NAME "airavata"

struct lifecycle {
	uint32_t gateway;
	uint64_t id;
	uint32_t state_count;
	uint32_t cancelled;		     /* state after a cancel before intent */
	uint32_t failed;		     /* state for failures found by the broker */
	uint64_t terminal;		     /* bit s: state s is terminal */
	uint64_t next[LIFECYCLE_STATES_CAP]; /* bit t of next[s]: s -> t is legal */
	Sluice__LifecycleConfig *config;     /* owned; the names */
};

/* ---- lifecycle.c: pure, thread-safe ---- */
/* 0, or INVAL / LIMIT with a text that names the state. `why` has LIFECYCLE_WHY_BYTES bytes. */
int lifecycle_check(const Sluice__LifecycleConfig *config, char *why) SLUICE_MUST_USE;
/* While jobs use the lifecycle, an alter may not remove, reorder or re-type a state, nor remove a
 * transition. 0 or IN_USE. */
int lifecycle_check_alter(const Sluice__LifecycleConfig *before,
			  const Sluice__LifecycleConfig *after, char *why) SLUICE_MUST_USE;
/* The same checks; on 0 `ret` is complete and takes the config. */
int lifecycle_compile(struct lifecycle *ret, uint32_t gateway, uint64_t id,
		      Sluice__LifecycleConfig *config, char *why) SLUICE_MUST_USE;
/* Position of a state; false: the lifecycle has no such state. */
bool lifecycle_state_find(const struct lifecycle *lifecycle, const char *name, uint32_t *ret);
static inline const char *lifecycle_state_name(const struct lifecycle *lifecycle, uint32_t state)
{
	return lifecycle->config->states[state]->name;
}
static inline bool lifecycle_is_terminal(const struct lifecycle *lifecycle, uint32_t state)
{
	return lifecycle->terminal >> state & 1;
}
static inline bool lifecycle_allows(const struct lifecycle *lifecycle, uint32_t from, uint32_t to)
{
	return lifecycle->next[from] >> to & 1;
}

/* ---- default.c: Airavata's job table with exits added ---- */
/* The config; it borrows static, immutable storage: it must not be freed or changed. */
void lifecycle_default(Sluice__LifecycleConfig *ret);
/* Installs the default lifecycle in a new gateway. */
int lifecycle_install_default(struct apply *a) SLUICE_MUST_USE;

/* ---- cache.c: from the store ---- */
struct lifecycle_cache;
int lifecycle_cache_create(struct lifecycle_cache **ret) SLUICE_MUST_USE;
void lifecycle_cache_destroy(struct lifecycle_cache *cache); /* accepts NULL */
void lifecycle_cache_drop(
	struct lifecycle_cache *cache); /* on abort, and after any change of a lifecycle */
/* The compiled lifecycle, borrowed until the next lifecycle_get or drop. CORRUPT when the ledger
 * refers to a missing one. */
int lifecycle_get(struct apply *a, uint64_t id, const struct lifecycle **ret) SLUICE_MUST_USE;
/* The same without the cache, for queries: owned, lifecycle_free. */
int lifecycle_load(struct store_txn *txn, uint32_t gateway, uint64_t id,
		   struct lifecycle **ret) SLUICE_MUST_USE;
void lifecycle_free(struct lifecycle *lifecycle); /* accepts NULL */

/* Number of jobs that use the lifecycle. */
int lifecycle_jobs_read(struct store_txn *txn, uint32_t gateway, uint64_t id,
			uint64_t *ret) SLUICE_MUST_USE;
int lifecycle_jobs_add(struct apply *a, uint64_t id, int64_t delta) SLUICE_MUST_USE;

int lifecycle_query(struct query *q,
		    const Sluice__Request *request); /* lifecycle_show, lifecycle_list */

#endif
