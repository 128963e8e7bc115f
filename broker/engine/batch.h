/* SPDX-License-Identifier: Apache-2.0
 * The batch at hand. For batch.c, engine.c, headroom.c and struct engine. */
#ifndef SLUICE_ENGINE_BATCH_H
#define SLUICE_ENGINE_BATCH_H

#include "broker/engine/demand.h"
#include "broker/engine/release.h"

struct batch {
	bool ended_early;		 /* the commit was ended for its work, with more left */
	struct submission **submissions; /* of this batch, in order */
	size_t count, capacity;
	size_t first, end; /* those of them that are committed together; mostly all */
	size_t part_max;   /* so many at most */
	size_t reapplied;  /* commands that were undone and applied again for the damage that others met */
	uint64_t bytes;
	uint64_t work;		      /* of the commands of this run, in records; about a microsecond each */
	struct release_impl *release; /* being filled */
	struct origin *origins;
	size_t origin_count, origin_capacity;
	struct claim_note *claims; /* of this run */
	size_t claim_count, claim_capacity;
	size_t claim_max;	      /* of this run; the rest is served by the next batch */
	unsigned claim_failures;      /* claims that met damage when they wrote */
	struct consumer_key *refused; /* consumers that met a damaged record in this batch */
	size_t refused_count, refused_capacity;
	size_t scanned; /* effects that demand was given */
	size_t replies; /* among them */
	uint64_t commands;
};

/* Applies what was chosen into engine->batch in one transaction and commits. 0 or a failure that
 * stops the engine. */
int batch_run(struct engine *engine, struct batch_clock clock) SLUICE_MUST_USE;
void batch_release_all(struct engine *engine);
void batch_fini(struct batch *batch);

#endif
