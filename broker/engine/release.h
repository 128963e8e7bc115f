/* SPDX-License-Identifier: Apache-2.0
 * What a batch said, on its way to the sinks: counted by references.
 * For release.c, lag.c and batch.c. */
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

#endif
