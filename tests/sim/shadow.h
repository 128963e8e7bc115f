/* SPDX-License-Identifier: Apache-2.0
 *
 * A second database, which gets every committed command once, as a log of commands would hand it on: encoded, in order, with its clock, and
 * each in a batch of its own. The same commands give the same database: so nothing of an aborted batch may be left in core or the store,
 * nothing that is stored may depend on how commands were put into batches, and both stores must agree.
 * What the engine does is listened to by the linker's --wrap. One at a time; not thread-safe.
 */
#ifndef SLUICE_TESTS_SIM_SHADOW_H
#define SLUICE_TESTS_SIM_SHADOW_H

#include "broker/store/store.h"

void shadow_begin(void);
void shadow_end(void);
/* A write transaction of the engine's was committed. */
void shadow_committed(void);
/* For writes that are no batch of the engine's: they are made here too. NULL: there is no second database. */
struct store *shadow_store(void);
void shadow_pause(bool paused);
/* Of all that is stored, in order; of the shadow itself with NULL. */
uint64_t shadow_digest(struct store *store);

#endif
