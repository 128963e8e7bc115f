/* SPDX-License-Identifier: Apache-2.0
 *
 * A core for tests: one store, a clock that the test moves, one committed batch per command, and a
 * record of every command.
 *
 * Closing a world proves what every command promises, over all that the test did: each record is of
 * a kind that records.def has; its encoding is canonical; and the same commands give an equal
 * database when every batch is aborted and applied again, when they are put into other batches, and
 * on the other kind of store.
 *
 * SLUICE_JOURNAL=PATH appends the commands of each world that is closed to that file, with the
 * digest of the database (tests/data/README.md has the form, test_core_journal.c reads it).
 *
 * Failures of the environment fail the test at once; refusals are outcomes.
 */
#ifndef SLUICE_TESTS_CORE_WORLD_H
#define SLUICE_TESTS_CORE_WORLD_H

#include <string.h>

#include "broker/core/base/state.h"
#include "broker/core/core.h"

enum world_store { WORLD_MEM, WORLD_LMDB };

struct world_step;

struct world {
	enum world_store kind;
	char dir[64]; /* of an lmdb store */
	struct store *store;
	struct core *core;
	struct effects *effects; /* of the last batch */
	struct batch_clock clock;
	uint32_t level; /* with which it began */
	uint32_t gateway;
	Sluice__Reply *reply; /* of the last query */
	uint64_t turns;	      /* of all queries, one record at a time */
	struct world_step *steps;
	size_t step_count, step_capacity;
};

void world_open(struct world *world, enum world_store kind);
/* The same at an older level of the rules: levels.def. */
void world_open_at(struct world *world, enum world_store kind, uint32_t level);
void world_close(struct world *world); /* with the proofs */
/* Of all records, in order, but for what is not part of the data (core_record_data). */
uint32_t world_digest(struct store *store);
void world_discard(struct world *world); /* without the proofs: for a test that damaged the store */
void world_restart(
	struct world *world); /* another core on the same store; the lmdb store is opened anew */
void world_wait(struct world *world, uint64_t ms); /* moves both clocks and does not tick */
size_t world_ticks(struct world *world,
		   uint32_t work_max); /* ticks until nothing is due; returns the number of ticks */

/* One command in its own batch. */
struct outcome world_apply(struct world *world, uint16_t type, uint64_t session, const void *body);
/* The same, which must succeed. */
struct outcome world_must(struct world *world, uint16_t type, uint64_t session, const void *body);
/* Applied, aborted and not recorded: for commands that the codec refuses. */
struct outcome world_try(struct world *world, uint16_t type, const void *body);
const Sluice__Reply *world_query(struct world *world, const Sluice__Request *request);
size_t world_effects(const struct world *world, enum effect_kind kind); /* of the last batch */
const struct effect *world_effect(const struct world *world,
				  enum effect_kind kind); /* the first; NULL: none */

/* Shorthands; each must succeed unless it returns an outcome. NULL or 0 leaves a field out. */
uint64_t world_session(struct world *world, const char *name);
struct outcome world_stream(struct world *world, const char *name, const char *pattern,
			    uint64_t max_events, uint64_t max_bytes, uint64_t max_age_ms);
struct outcome world_queue(struct world *world, const char *name, const char *pattern,
			   uint64_t max_items);
struct outcome world_bind(struct world *world, const char *router, const char *pattern,
			  uint32_t target_kind, const char *target);
struct outcome world_publish(struct world *world, const char *subject, const char *body);

/* A batch for PUBLISH: envelopes one after the other. */
struct world_batch {
	uint8_t bytes[64 * 1024];
	size_t used;
	uint32_t count;
};
void world_batch_add(struct world_batch *batch, const char *subject, const char *body,
		     int64_t time_delta_ms);
struct frame_publish world_batch_publish(const struct world_batch *batch, const char *subject);

struct stream_ref world_stream_ref(struct world *world, const char *name);
struct queue_ref world_queue_ref(struct world *world, const char *name);
/* Events of a stream as "subject=body subject=body ..." from its first offset on. */
const char *world_events(struct world *world, const char *name);
size_t world_segments(struct world *world, const char *name); /* the number of stored segments */
uint64_t world_ready(struct world *world, const char *queue);
uint64_t world_records(struct world *world, enum store_table table); /* of all gateways */

static inline struct sluice_slice world_text(const char *text)
{
	return (struct sluice_slice){text, text == NULL ? 0 : strlen(text)};
}

#endif
