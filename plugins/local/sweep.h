/* SPDX-License-Identifier: Apache-2.0
 *
 * Deleting the files of attempts that are not needed any more.
 */
#ifndef SLUICE_LOCAL_SWEEP_H
#define SLUICE_LOCAL_SWEEP_H

#include "state.h"

/* A part of the work; reads directories, does not sync. */
void sweep_turn(struct service *service, uint64_t now_ms);
/* A directory is being deleted: the next turn should come soon. */
bool sweep_is_busy(const struct service *service);
void sweep_end(struct service *service);

#endif
