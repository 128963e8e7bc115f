/* SPDX-License-Identifier: Apache-2.0
 *
 * Attempts that a reset ended in the broker's books, and that may still run here. All return at
 * once; jobs_due() continues with what has to be waited for.
 */
#ifndef SLUICE_LOCAL_STALE_H
#define SLUICE_LOCAL_STALE_H

#include "state.h"

/* Before the intent: true while an earlier attempt of the job may run, or is not known. */
bool stale_wait(struct job *job);
/* The job's lease was lost: it becomes STALE. */
void stale_release(struct job *job);
/* The next step of a STALE job. */
void stale_continue(struct job *job);
/* A running attempt that a reset has ended, found by the sweep: it is STALE from now on. */
void stale_adopt(struct service *service, const char *id, uint32_t attempt, const char *life);

#endif
