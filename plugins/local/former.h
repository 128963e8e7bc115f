/* SPDX-License-Identifier: Apache-2.0
 *
 * Attempts that a reset ended in the broker's books, and that may still run here. All return at once;
 * jobs_due() continues with what has to be waited for.
 */
#ifndef SLUICE_LOCAL_FORMER_H
#define SLUICE_LOCAL_FORMER_H

#include "state.h"

/* Before the intent: true while an earlier attempt of the job may run, or is not known. */
bool former_wait(struct job *job);
/* The job's lease was lost: it becomes FORMER. */
void former_let_go(struct job *job);
/* The next step of a FORMER job. */
void former_go_on(struct job *job);
/* A running attempt that a reset has ended, found by the sweep: it is FORMER from now on. */
void former_found(struct service *service, const char *id, uint32_t attempt, const char *life);

#endif
