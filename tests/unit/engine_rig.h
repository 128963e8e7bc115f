/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine without its thread on a store in memory, with one sink that counts what it receives.
 * Shared by the tests of the engine. Failures of the rig fail the test at once. */
#ifndef SLUICE_TESTS_ENGINE_RIG_H
#define SLUICE_TESTS_ENGINE_RIG_H

#include "broker/core/base/apply.h"
#include "broker/engine/engine.h"

struct rig {
	struct engine_sink sink; /* first */
	struct store *store;
	struct engine *engine;
	struct batch_clock now;
	unsigned releases, replies, grants, items, kicked;
	unsigned ended; /* consumers that damage ended */
	unsigned sessions_ended, sessions_ended_at_once;
	unsigned jobs;	   /* delivered */
	uint64_t jobs_tag; /* the consumer of the last delivery */
	unsigned refused;  /* answers with CORRUPT */
	unsigned singles;  /* publishes of one event that were answered */
	struct outcome last;
	int failed; /* the arguments of fail_stop */
};

struct own {
	struct submission submission;
	union {
		struct cmd_session_open open;
		struct frame_publish publish;
	};
	uint8_t bytes[];
};

void rig_open(struct rig *rig, bool abort_every_batch);
/* The same on rig->store, with all else 0. */
void rig_start(struct rig *rig, bool abort_every_batch);
/* Opened only: the test takes the lead. */
void rig_start_open(struct rig *rig, const struct engine_config *config);
void rig_close(struct rig *rig);
/* Until the engine has nothing to do, or stops. */
void rig_step(struct rig *rig);
/* A submission for engine_submit(), with room for a body and `bytes` bytes after it. */
struct own *rig_own(struct rig *rig, uint16_t type, uint64_t session, size_t bytes);
/* Opens a session of 5 s and steps. */
uint64_t rig_session(struct rig *rig);
/* Submits one item for the dead-letter queue, which every gateway has. */
int rig_put(struct rig *rig, size_t body_bytes);
/* The same; counted_bytes is the size that the engine counts. */
int rig_put_counted(struct rig *rig, size_t body_bytes, uint64_t counted_bytes);
uint64_t rig_dead_letter(struct rig *rig);
/* A consumer of the dead-letter queue, with tag 7. */
void rig_consume(struct rig *rig, uint64_t session, uint32_t credit);
/* Submits a copy of a command's body. */
void rig_send(struct rig *rig, uint16_t type, uint64_t session, const void *body);
/* Creates a queue; returns its number. */
uint64_t rig_queue(struct rig *rig, const char *name, bool jobs, bool priority);

#endif
