/* SPDX-License-Identifier: Apache-2.0
 *
 * Reports of a job to the broker: that it runs, that it waits and for what, and how it ended. All
 * return at once; the answers are handled in report.c.
 */
#ifndef SLUICE_LOCAL_REPORT_H
#define SLUICE_LOCAL_REPORT_H

#include "state.h"
#include "attempt/attempt.h"
#include "lifecycle.h"

/* The job's process runs: it becomes RUNNING. Once; repeated calls have no effect. */
void report_running(struct job *job, const struct attempt_view *view);
/* The end of the job's process, from its files. */
void report_end(struct job *job, const struct attempt_view *view);
/* An end without a process: the state's role, and the reason. */
void report_final(struct job *job, enum role role, const char *evidence);
/* Evidence that the job waits, and for what. Each cause is reported once. */
void report_waiting(struct job *job, const char *cause);
/* The spool cannot be used now: logs and reports the cause (NULL: attempt_error()), and tries the
 * job again after job_again_later()'s pause. */
void report_spool_failure(struct job *job, const char *cause);

#endif
