/* SPDX-License-Identifier: Apache-2.0
 * Releases that sinks have not handled. For lag.c, engine.c and batch.c. */
#ifndef SLUICE_ENGINE_LAG_H
#define SLUICE_ENGINE_LAG_H

#include "broker/engine/release.h"

/* Checks each sink, between two batches or two parts of one. True: a sink lags so far that no batch
 * may begin. */
bool lag_check(struct engine *engine);
bool lag_submit_busy(const struct submission *submission);
/* Gives a release to all sinks; takes the caller's reference. */
void lag_post(struct engine *engine, struct release_impl *release);

#endif
