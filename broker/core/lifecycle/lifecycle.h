/* SPDX-License-Identifier: Apache-2.0
 *
 * Machines: a table of states and legal transitions per kind of job, loaded by a command. Compiled to bit
 * masks (one per state) and cached in the core's RAM; the cache holds nothing that is not in the store and is
 * dropped on abort and on every change.
 *
 * A job's record names its state by position in the table, so MACHINE_ALTER may add states only at the end.
 */
#ifndef SLUICE_CORE_MACHINE_H
#define SLUICE_CORE_MACHINE_H

#include "broker/core/base/reply.h"

enum {
	MACHINE_STATES_CAP = 64,	   /* LIMIT_MACHINE_STATES_MAX: a mask has a bit per state */
	MACHINE_STATE_NAME_BYTES_MAX = 63, /* fits struct outcome's state */
	MACHINE_WHY_BYTES = 200,
};

#define MACHINE_DEFAULT_NAME "airavata"

struct machine {
	uint32_t gateway;
	uint64_t id;
	uint32_t state_count;
	uint32_t cancelled;		   /* state of a cancel before intent */
	uint32_t failed;		   /* state of the broker's own verdicts */
	uint64_t terminal;		   /* bit s: state s is terminal */
	uint64_t next[MACHINE_STATES_CAP]; /* bit t of next[s]: s -> t is legal */
	Sluice__MachineConfig *config;	   /* owned; the names */
};

/* ---- lifecycle.c: pure, thread-safe ---- */
/* 0, or INVAL / LIMIT with a text that names the state. `why` has MACHINE_WHY_BYTES bytes. */
int machine_check(const Sluice__MachineConfig *config, char *why) SLUICE_MUST_USE;
/* What an alter may not do while jobs use the machine: remove, reorder or re-type a state, remove a
 * transition. 0 or IN_USE. */
int machine_check_alter(const Sluice__MachineConfig *before, const Sluice__MachineConfig *after,
			char *why) SLUICE_MUST_USE;
/* Checks likewise; on 0 `ret` has all of it and takes the config. */
int machine_compile(struct machine *ret, uint32_t gateway, uint64_t id, Sluice__MachineConfig *config,
		    char *why) SLUICE_MUST_USE;
/* Position of a state; false: the machine has no such state. */
bool machine_state_find(const struct machine *machine, const char *name, uint32_t *ret);
static inline const char *machine_state_name(const struct machine *machine, uint32_t state)
{
	return machine->config->states[state]->name;
}
static inline bool machine_is_terminal(const struct machine *machine, uint32_t state)
{
	return machine->terminal >> state & 1;
}
static inline bool machine_allows(const struct machine *machine, uint32_t from, uint32_t to)
{
	return machine->next[from] >> to & 1;
}

/* ---- default.c: Airavata's job table with exits added ---- */
/* The config; it borrows static, immutable storage: not to be freed or changed. */
void machine_default(Sluice__MachineConfig *ret);
/* For a new gateway. */
int machine_install_default(struct apply *a) SLUICE_MUST_USE;

/* ---- cache.c: from the store ---- */
struct machine_cache;
int machine_cache_create(struct machine_cache **ret) SLUICE_MUST_USE;
void machine_cache_destroy(struct machine_cache *cache); /* accepts NULL */
void machine_cache_drop(struct machine_cache *cache);	 /* on abort, and after any change of a machine */
/* The compiled machine, borrowed until the next machine_get or drop. CORRUPT when the ledger names one that
 * is not there. */
int machine_get(struct apply *a, uint64_t id, const struct machine **ret) SLUICE_MUST_USE;
/* The same without the cache, for queries: owned, machine_free. */
int machine_load(struct store_txn *txn, uint32_t gateway, uint64_t id, struct machine **ret) SLUICE_MUST_USE;
void machine_free(struct machine *machine); /* accepts NULL */

/* How many jobs use the machine. */
int machine_jobs_read(struct store_txn *txn, uint32_t gateway, uint64_t id, uint64_t *ret) SLUICE_MUST_USE;
int machine_jobs_add(struct apply *a, uint64_t id, int64_t delta) SLUICE_MUST_USE;

int machine_query(struct query *q, const Sluice__Request *request); /* machine_show, machine_list */

#endif
