/* SPDX-License-Identifier: Apache-2.0
 * When a finished job is to be deleted. Separate from retention.c, because the ledger sets the
 * timer and retention.c uses the ledger. */
#include "broker/core/base/age.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/timer.h"
#include "broker/core/job/job.h"

/* UINT64_MAX: for ever. */
int job_retention_keep_ms(struct apply *a, uint64_t *ret)
{
	uint64_t stored;
	int rc = counter_get(a->txn, a->gateway, COUNTER_JOB_KEEP_MS, &stored);

	*ret = stored == 0 ? JOB_KEEP_MS_DEFAULT : stored == 1 ? UINT64_MAX : stored - 1;
	return rc;
}

/* The job's end plus keep, on the monotone clock. */
uint64_t job_retention_due(const struct apply *a, const struct job_live *live, uint64_t keep_ms)
{
	uint64_t age = age_of(a, live->due_mono_ms != 0 ? live->due_mono_ms : live->changed_ms);
	uint64_t left = age < keep_ms ? keep_ms - age : 0;

	return left < UINT64_MAX - a->mono_ms ? a->mono_ms + left : UINT64_MAX - 1;
}

int job_retention_arm(struct apply *a, const struct job *job)
{
	uint64_t keep_ms;
	int rc = job_retention_keep_ms(a, &keep_ms);

	if (rc != 0 || keep_ms == UINT64_MAX)
		return rc;
	return timer_set(a, job_retention_due(a, &job->live, keep_ms), TIMER_JOB_RETENTION,
			 job->number, job->live.attempt);
}
