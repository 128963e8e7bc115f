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
/* The engine commits a write transaction in which it met so many damaged records. */
void shadow_commits(uint64_t damaged);
/* And has committed it: the same here. */
void shadow_committed(void);
/* What core asked of the store, in order: compared command by command. Key or value may be empty.
 */
void shadow_wrote(char operation, enum store_table table, struct sluice_slice key,
		  struct sluice_slice value);
/* The first command that wrote something else here. From it on the second database stays as it is.
 * False: none. *ret_damaged: records that were damaged for the engine in its batch. */
bool shadow_differs(uint64_t *ret_type, uint64_t *ret_damaged);
/* For writes outside of the engine's batches, which must be made in both databases. NULL: there is
 * no second database. */
struct store *shadow_store(void);
void shadow_pause(bool paused);
bool shadow_replays(void); /* what is called now is the shadow's, not the engine's */
/* Of all stored data, in order; of the shadow itself with NULL. */
uint64_t shadow_digest(struct store *store);

#endif
