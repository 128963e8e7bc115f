/* SPDX-License-Identifier: Apache-2.0
 *
 * Starting a job's shepherd, and watching the shepherd and the job's process. An event of a watched
 * descriptor carries the address of its job; service.c calls job.c with it.
 *
 * Inside the broker other plugins have children, too: only those that were started here are reaped.
 */
#ifndef SLUICE_LOCAL_JOB_SPAWN_H
#define SLUICE_LOCAL_JOB_SPAWN_H

#include "state.h"
#include "attempt/attempt.h"

/* Starts the shepherd: the job becomes SPAWNED, and its pipe is watched. 0, or an errno; *ret_step
 * says what failed. */
int job_spawn(struct job *job, const char **ret_step);
/* Watches the shepherd, or the job's process if the shepherd is gone. Without effect if one is
 * watched already. If neither can be watched, jobs_due() checks the job again. */
void job_watch(struct job *job, const struct attempt_view *view);
/* Reaps the shepherds' first processes that have ended; flags are those of waitpid(). */
void service_children_reap(struct service *service, int flags);

#endif
