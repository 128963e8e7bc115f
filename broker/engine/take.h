/* SPDX-License-Identifier: Apache-2.0
 * What enters the next batch. For engine.c. Errors are failures of the environment. */
#ifndef SLUICE_ENGINE_TAKE_H
#define SLUICE_ENGINE_TAKE_H

#include "broker/engine/inbox.h"

struct engine;

/* The expiries of the sessions that are due, as far as one batch may have. */
int take_expired(struct engine *engine) SLUICE_MUST_USE;
/* Commands of the lane. bytes_max: of the whole batch. One that is refused enters with its code
 * (forced_code). */
int take_lane(struct engine *engine, struct lane *lane, uint64_t bytes_max) SLUICE_MUST_USE;

#endif
