/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of the held jobs, by id and attempt, and the time of each job's next step.
 *
 * Owns every struct job. Invariant: a job with calls under way (`calls` > 0) stays in the table,
 * marked as dropped, until the last of them is answered.
 */
#ifndef SLUICE_LOCAL_JOB_TABLE_H
#define SLUICE_LOCAL_JOB_TABLE_H

#include "state.h"

/* A new entry, CLAIMED, owned by the table; NULL: no memory. */
struct job *job_new(struct service *service, const sluice_delivery_view *delivery);
/* Stops watching it, and frees it unless calls are under way. */
void job_free(struct job *job);
/* One call of the job was answered. Frees a dropped job after the last one. */
void job_call_ended(struct job *job);

/* The job of this attempt (0: of any) that is not dropped; NULL: none. */
struct job *job_find(const struct service *service, const char *id, uint32_t attempt);
/* Also true for a dropped job whose last answer is still awaited. */
bool job_in_table(struct service *service, const char *id, uint32_t attempt);

/* jobs_due() continues with the job after this pause. */
void job_again(struct job *job, uint64_t pause_ms);
/* The same, after a pause that doubles with each call, from 1 to 16 s. */
void job_again_later(struct job *job);
/* Closes the shepherd's pipe and the pidfd. */
void job_unwatch(struct job *job);
/* Empties the list of stale attempts. */
void stale_attempts_free(struct job *job);

#endif
