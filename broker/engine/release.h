/* SPDX-License-Identifier: Apache-2.0
 * The effects of a batch on their way to the sinks, reference-counted, and the last event of a
 * consumer. For release.c, lag.c, batch.c and engine.c. */
#ifndef SLUICE_ENGINE_RELEASE_H
#define SLUICE_ENGINE_RELEASE_H

#include "broker/engine/engine.h"

struct release_impl {
	struct engine_release public;
	atomic_int refs;
	struct origin *origins;
};
int release_new(struct release_impl **ret) SLUICE_MUST_USE; /* with one reference */
void release_unref(struct release_impl *release);	    /* accepts NULL */
/* The consumer's sink is told that nothing more comes for it. */
void release_consumer_closed(struct engine_sink *sink, uint64_t tag);

#endif
