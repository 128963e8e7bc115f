/* SPDX-License-Identifier: Apache-2.0
 * The batch at hand. For batch.c, engine.c, headroom.c and struct engine. */
#ifndef SLUICE_ENGINE_BATCH_H
#define SLUICE_ENGINE_BATCH_H

#include "broker/engine/demand.h"
#include "broker/engine/release.h"

struct batch {
	/* the commit was ended by the limit of its work, or of what submitted claims deliver;
	 * commands are left */
	bool ended_early;
	struct submission **submissions; /* of this batch, in order */
	size_t count, capacity;
	size_t first, end; /* range that is committed together; usually all */
	size_t expired;	   /* so many at its front are expiries of sessions */
	size_t part_max;   /* maximum size of that range */
	/* commands that were undone and applied again because others met damage */
	size_t reapplied;
	uint64_t bytes;
	/* done by this run's commands, in records; about a microsecond each */
	uint64_t work;
	struct release_impl *release; /* being filled */
	struct origin *origins;
	size_t origin_count, origin_capacity;
	struct claim_note *claims; /* of this run */
	size_t claim_count, claim_capacity;
	size_t claim_max;	      /* in this run; the next batch serves the others */
	unsigned claim_failures;      /* claims that met damage on a write */
	struct consumer_key *refused; /* consumers that met a damaged record in this batch */
	size_t refused_count, refused_capacity;
	size_t scanned; /* effects that demand has processed */
	size_t replies; /* replies among the effects */
	uint64_t commands;
	/* CORRUPT answers of the run that is committed: it may have done what a store without this
	 * damage would not */
	uint64_t damaged;
};

/* Applies the commands in engine->batch in one transaction and commits. Returns 0 or a failure that
 * stops the engine. */
int batch_run(struct engine *engine, struct batch_clock clock) SLUICE_MUST_USE;
void batch_release_all(struct engine *engine);
void batch_fini(struct batch *batch);

#endif
