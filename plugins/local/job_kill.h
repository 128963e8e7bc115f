/* SPDX-License-Identifier: Apache-2.0
 *
 * Signals to the processes of held jobs: SIGTERM, SIGKILL when that had its time, and what an
 * attempt left behind.
 */
#ifndef SLUICE_LOCAL_JOB_KILL_H
#define SLUICE_LOCAL_JOB_KILL_H

#include "state.h"
#include "attempt/proc.h"

/* Leaves the cancel mark, and sends SIGTERM to a running job. job_kill_due() follows. */
void job_terminate(struct job *job);
/* Sends SIGKILL 2 s after the last signal, again and again. A process that stays all the same (the
 * kernel does not release it, or it belongs to another user now) is logged and reported. */
void job_kill_due(struct job *job, uint64_t now_ms);
/* Continues a shepherd that its job stopped, which would see no end and hold no timeout. */
void job_wake_shepherd(const struct job *job);
/* Finds the processes of an attempt that has neither process nor status any more, by their
 * environment, and kills them unless the setting `leftovers` is `leave`. Returns their number.
 * Reads all of /proc. */
size_t job_leftovers(const struct job *job, uint32_t attempt, const char *life,
		     char ret_names[LEFTOVER_NAMES_BYTES]);

#endif
