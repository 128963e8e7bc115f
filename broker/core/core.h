/* SPDX-License-Identifier: Apache-2.0
 *
 * The rules. core applies commands to a store transaction and says what follows as data (effects).
 * No I/O, clock, threads or randomness: time comes with the batch, random numbers with the command.
 * The same batches in the same order give the same database; a batch may be aborted and replayed at
 * any point.
 *
 * Life of a batch (the engine, or the simulator):
 *     store_begin -> core_batch_begin(clock) -> core_apply * n -> core_batch_end -> store_commit ->
 *       release effects
 *     on any failure: store_abort, core_batch_abort, effects_clear
 * Nothing but caches derived from the store is kept in RAM between batches; core_batch_abort drops
 * them.
 *
 * Thread: one writer thread calls everything but core_query, which any thread may call with its own
 * read transaction.
 */
#ifndef SLUICE_CORE_CORE_H
#define SLUICE_CORE_CORE_H

#include "broker/core/command.h"
#include "broker/core/effects.h"
#include "broker/store/store.h"

struct core;

int core_create(struct core **ret) SLUICE_MUST_USE;
void core_destroy(struct core *core); /* accepts NULL */

struct batch_clock {
	uint64_t mono_ms; /* durable monotone clock: durations, leases, delays, sessions; never goes
			     back */
	uint64_t wall_ms; /* since 1970 UTC: event times */
};

/* Nothing is written but by commands; COMMAND_BOOT is the first after each start. On an empty store
 * it makes schema, clocks, gateway "default" (number 1) with its "dead-letter" queue and lifecycle
 * "airavata". On every store it gives sessions and timed leases at least one full timeout from the
 * batch's clock. It uses no index of a gateway. */

/* The newest level of rules that this version knows: levels.def. */
enum core_level {
	CORE_LEVEL_BEFORE = -1,
#define LEVEL(number, text) CORE_LEVEL_##number,
#include "broker/core/levels.def"
#undef LEVEL
	CORE_LEVEL_AFTER,
	CORE_LEVEL = CORE_LEVEL_AFTER - 1
};
/* Whether this version can apply commands to the store. SCHEMA: it has another format, or a level
 * above CORE_LEVEL. An empty store can be begun. Read or write transaction. */
int core_store_check(struct store_txn *txn) SLUICE_MUST_USE;
/* The level whose rules apply; 0 in a store from before levels, until LEVEL_RAISE. */
int core_level_read(struct store_txn *txn, uint32_t *ret) SLUICE_MUST_USE;

/* The clocks as of the last commit; 0 in a fresh store. */
int core_clock_read(struct store_txn *txn, struct batch_clock *ret) SLUICE_MUST_USE;
/* The number of the batch whose commit this transaction shows: 0 before the first one, and in a
 * store of a version without such numbers. In the batch's own transaction: its own number. Each
 * committed batch has a larger one than the one before it, also over restarts; numbers may be
 * skipped. An aborted batch's number is used again. Any thread. */
int core_batch_read(struct store_txn *txn, uint64_t *ret) SLUICE_MUST_USE;
/* The clocks with which the only broker of a store takes the lead: *ret is the body of BOOT, and
 * the batch's monotone clock is the process's + ret->offset_ms. process: the process's clocks;
 * boot_id: as in cmd_boot. age.h explains the time while the broker was stopped. Reads; read or
 * write transaction. */
int core_boot_clock(struct store_txn *txn, struct batch_clock process, uint64_t boot_id,
		    struct cmd_boot *ret) SLUICE_MUST_USE;

/* All three: 0, or an environment failure (NO_SPACE, IO, CORRUPT, NOMEM; SCHEMA: LEVEL_RAISE to a
 * level above CORE_LEVEL, of a newer version): the batch must be aborted. A refusal is not a
 * failure: it is an outcome in a FX_REPLY effect. core_apply always adds exactly one FX_REPLY per
 * command (after its other effects), except for TICK, which adds none. */
int core_batch_begin(struct core *core, struct store_txn *txn,
		     struct batch_clock clock) SLUICE_MUST_USE;
/* The number of the open batch, or of the last one: core_batch_read() in a snapshot of its commit
 * returns this. */
uint64_t core_batch_number(const struct core *core);
int core_apply(struct core *core, struct store_txn *txn, const struct command *command,
	       struct effects *effects) SLUICE_MUST_USE;
/* The next command of the batch was refused before core saw it: it has a position (effect.command)
 * like the others, and no index. */
void core_skip(struct core *core);
int core_batch_end(struct core *core, struct store_txn *txn,
		   struct effects *effects) SLUICE_MUST_USE;
void core_batch_abort(struct core *core);

/* Work of the open batch so far: items, segments and grants' items, and their bytes; and the steps
 * of routing its events. Used to bound a commit; an aborted batch begins at 0. */
struct core_work {
	uint64_t records;
	uint64_t bytes;
	uint64_t steps;
};
struct core_work core_batch_work(const struct core *core);

/* After a TICK that failed, and before the next command: the key of the timer whose work failed,
 * for cmd_tick.put_off; empty when no timer failed. Borrowed from core. */
struct sluice_slice core_tick_timer(const struct core *core);
/* Decodes such a key, for logs; false: it is not a timer's key. */
struct timer_ref {
	uint32_t gateway;
	uint8_t kind; /* timers.def, as id and sub */
	uint64_t id, sub;
};
bool core_timer_read(struct sluice_slice key, struct timer_ref *ret) SLUICE_MUST_USE;

/* Earliest due time on the monotone clock over all gateways; UINT64_MAX when there is none. */
int core_next_deadline(struct core *core, struct store_txn *txn,
		       uint64_t *ret_mono_ms) SLUICE_MUST_USE;

/* Gateway name -> number; NOT_FOUND. Read or write transaction. */
int core_gateway_find(struct store_txn *txn, struct sluice_slice name,
		      uint32_t *ret) SLUICE_MUST_USE;
/* The applied index of a gateway (0: none yet). */
int core_index_read(struct store_txn *txn, uint32_t gateway, uint64_t *ret) SLUICE_MUST_USE;

/* What a record contributes to a dump or a digest: its value without what depends on how commands
 * were put into batches (the number of the batch). Borrowed from value. Any thread. */
struct sluice_slice core_record_data(enum store_table table, struct sluice_slice key,
				     struct sluice_slice value);

/* --- reads, any thread, read transaction --- */
/* Answers a read request (…_show, …_list, job_history, job_explain, audit, quarantine_list,
 * queue_peek, session_list and the core part of status_get) into a Reply, packed into *ret
 * (malloc'd, owned). Refusals are inside the Reply. UNSUPPORTED (returned): the request is not a
 * read. */
struct query_clock {
	uint64_t mono_ms;
	uint64_t wall_ms;
};
int core_query(struct store_txn *txn, uint32_t gateway, struct query_clock clock,
	       const Sluice__Request *request, uint8_t **ret, size_t *ret_bytes) SLUICE_MUST_USE;
bool core_request_is_query(const Sluice__Request *request);
/* The same in turns, so that one read holds neither its thread nor a snapshot for long: each turn
 * reads from its own snapshot and continues where the last one stopped. The reply's index is the
 * first turn's: its data are at least that new. core_read_begin: borrows request until
 * core_read_end. UNSUPPORTED: it is not a read. core_read_turn: reads until txn has read cost_max
 * more (store_txn_read_cost), at least one record. *ret_done false: another turn is due; true: *ret
 * is the packed Reply (owned). An error ends it, too. */
struct core_read;
int core_read_begin(uint32_t gateway, const Sluice__Request *request,
		    struct core_read **ret) SLUICE_MUST_USE;
int core_read_turn(struct core_read *read, struct store_txn *txn, struct query_clock clock,
		   uint64_t cost_max, bool *ret_done, uint8_t **ret,
		   size_t *ret_bytes) SLUICE_MUST_USE;
/* The code in the reply so far; *ret_text is borrowed from read. */
int core_read_code(const struct core_read *read, const char **ret_text);
void core_read_end(struct core_read *read); /* accepts NULL */

/* Names -> numbers for subscriptions. */
struct queue_ref {
	uint64_t id;
	uint32_t kind; /* Sluice__QueueKind */
	uint32_t lease_ms;
};
struct stream_ref {
	uint64_t id;
	uint64_t log;
	uint64_t first_offset;
	uint64_t next_offset;
};
int core_queue_find(struct store_txn *txn, uint32_t gateway, struct sluice_slice name,
		    struct queue_ref *ret) SLUICE_MUST_USE;
/* Number of a source that has been seen (SOURCE_SEEN). */
int core_source_find(struct store_txn *txn, uint32_t gateway, struct sluice_slice name,
		     uint64_t *ret) SLUICE_MUST_USE;
int core_stream_find(struct store_txn *txn, uint32_t gateway, struct sluice_slice name,
		     struct stream_ref *ret) SLUICE_MUST_USE;
int core_cursor_find(struct store_txn *txn, uint32_t gateway, uint64_t stream,
		     struct sluice_slice name, uint64_t *ret_offset) SLUICE_MUST_USE;
/* First offset whose event time is >= time_ms (next_offset when none). */
int core_stream_seek_time(struct store_txn *txn, uint32_t gateway, uint64_t log, uint64_t time_ms,
			  uint64_t *ret_offset) SLUICE_MUST_USE;
struct session_ref {
	uint8_t secret[16];
	uint32_t timeout_ms;
	uint8_t flags; /* enum session_flag */
	uint8_t face;  /* enum session_face */
};
int core_session_find(struct store_txn *txn, uint32_t gateway, uint64_t session,
		      struct session_ref *ret) SLUICE_MUST_USE;
/* The open session with this name; *ret is 0: none, or the name is empty. */
int core_session_named(struct store_txn *txn, uint32_t gateway, struct sluice_slice name,
		       uint64_t *ret) SLUICE_MUST_USE;
/* Whether the session holds a job, a session lease, or another entry that ends with it. */
int core_session_owns(struct store_txn *txn, uint32_t gateway, uint64_t session,
		      bool *ret) SLUICE_MUST_USE;
struct session_row {
	uint32_t gateway;
	uint64_t session;
	uint32_t timeout_ms;
	uint8_t flags;		     /* enum session_flag */
	struct sluice_slice address; /* borrowed for the call */
};
/* Calls each for every session of the store (the engine's boot: it keeps their timers). Stops at a
 * non-zero return. */
int core_session_each(struct store_txn *txn, int (*each)(void *user, const struct session_row *row),
		      void *user) SLUICE_MUST_USE;

/* One stored segment, decoded; slices borrow from the transaction. */
struct segment {
	uint64_t base; /* offset of its first event */
	uint64_t last; /* of its last */
	uint32_t count;
	uint64_t time_ms; /* base of its events' times */
	uint64_t time_max_ms;
	uint8_t codec;
	uint32_t raw_bytes;
	uint64_t producer;
	uint32_t epoch;
	uint64_t first_seq;
	struct sluice_slice subject; /* empty: per event */
	struct sluice_slice payload;
};
/* The segment that holds offset, or the next one after it. NOT_FOUND at the end; CORRUPT when the
 * segment or its checksum is wrong, or when it is missing although the log's head covers it. */
int core_segment_read(struct store_txn *txn, uint32_t gateway, uint64_t log, uint64_t offset,
		      struct segment *ret) SLUICE_MUST_USE;

#endif
