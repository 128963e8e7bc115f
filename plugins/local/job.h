/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens to one job: taken, started, cancelled, ended, lost.
 */
#ifndef SLUICE_LOCAL_JOB_H
#define SLUICE_LOCAL_JOB_H

#include "state.h"

/* Handles a delivery. A job that is held already gets the new token. */
void job_handle_delivery(struct service *service, const sluice_delivery_view *delivery);
/* The shepherd's pipe is readable or closed. */
void job_handle_starter(struct job *job);
/* The watched process, the shepherd or the job's own, has ended. */
void job_handle_exit(struct job *job);
/* A cancel was requested; token 0: whatever lease the job has. */
void job_cancel(struct service *service, const char *id, sluice_token token);
void job_lease_lost(struct service *service, const char *id, sluice_token token);
/* The next step of each job whose time has come. */
void jobs_due(struct service *service, uint64_t now_ms);

#endif
