/* SPDX-License-Identifier: Apache-2.0
 * Where the time of a commit goes: a slow one is logged with its slow part. It only measures; nothing
 * depends on it. */
#ifndef SLUICE_ENGINE_COMMIT_WATCH_H
#define SLUICE_ENGINE_COMMIT_WATCH_H

#include "broker/engine/engine_internal.h"

/* Commits that take longer are logged, at most one a second. */
enum { SLOW_COMMIT_MS = 500 };

struct commit_watch {
	uint64_t began_ns, applied_ns;
};
void commit_watch_begin(struct commit_watch *watch);
void commit_watch_applied(struct commit_watch *watch); /* all is applied, the commit with its sync begins */
/* The commit has returned rc; the batch at hand is what it was of. */
void commit_watch_end(const struct commit_watch *watch, const struct engine *engine, int rc);

#endif
