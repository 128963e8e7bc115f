/* SPDX-License-Identifier: Apache-2.0
 * Measures the phases of a commit and logs a slow one with its slow phase. Nothing depends on
 * it. */
#ifndef SLUICE_ENGINE_COMMIT_WATCH_H
#define SLUICE_ENGINE_COMMIT_WATCH_H

#include "broker/engine/engine_internal.h"

/* Slower commits are logged, at most one per second. */
enum { SLOW_COMMIT_MS = 500 };

struct commit_watch {
	uint64_t began_ns, applied_ns;
};
void commit_watch_begin(struct commit_watch *watch);
/* Everything is applied; the commit with its sync begins */
void commit_watch_applied(struct commit_watch *watch);
/* The commit returned rc. engine->batch still is the batch that was committed. */
void commit_watch_end(const struct commit_watch *watch, const struct engine *engine, int rc);

#endif
