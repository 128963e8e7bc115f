/* SPDX-License-Identifier: Apache-2.0
 *
 * A second database, which applies every committed command once, as from a command log: encoded,
 * in order, with its clock, and each in a batch of its own, the start's too. The same commands
 * give the same database: so nothing may be written beside commands, an aborted batch may leave
 * nothing in core or the store, no stored data may depend on the distribution of commands over
 * batches, and both stores must agree. Actions of the engine are observed by the linker's --wrap.
 * One at a time; not thread-safe.
 */
#ifndef SLUICE_TESTS_SIM_SHADOW_H
#define SLUICE_TESTS_SIM_SHADOW_H

#include "broker/store/store.h"

void shadow_begin(void);
void shadow_end(void);
/* The engine committed a write transaction. */
void shadow_committed(void);
/* For writes outside of the engine's batches, which must be made in both databases. NULL: there is
 * no second database. */
struct store *shadow_store(void);
void shadow_pause(bool paused);
bool shadow_replays(void); /* what is called now is the shadow's, not the engine's */
/* Of all stored data, in order; of the shadow itself with NULL. */
uint64_t shadow_digest(struct store *store);

#endif
