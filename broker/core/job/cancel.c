/* SPDX-License-Identifier: Apache-2.0
 *
 * JOB_CANCEL and JOB_RESET. A cancel is a write to the record, so it overtakes the queue: before
 * intent it ends the job at once; after intent it sets the flag and notifies the holder, and
 * evidence ends the job. A takeover delivers the flag again.
 *
 * A reset opens a new attempt; it is the only way out of a terminal state.
 */
#include "broker/core/base/counter.h"
#include "broker/core/base/text.h"
#include "broker/core/job/history.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/queue.h"
#include "protocol/limits.h"

static int cancel_now(struct apply *a, struct job *job, const struct job_fact *fact)
{
	int rc = job->live.claim == JOB_LEASED ? job_notify_holder(a, job, FX_JOB_CANCEL) : 0;

	return rc != 0 ? rc : job_move(a, job, job->lifecycle->cancelled, fact, true);
}

int job_cancel_apply(struct apply *a, const Sluice__JobCancel *m, struct outcome *out)
{
	const struct job_fact fact = job_fact("cancel", JOB_SOURCE_BROKER, m->reason);
	struct job job;
	bool asked;
	int rc = job_text_check(out, "reason", m->reason, LIMIT_TEXT_BYTES_MAX);

	if (rc == 0 && !refused(out))
		rc = job_find(a, m->job, &job, out);
	if (rc != 0 || refused(out))
		return rc;
	asked = (job.live.flags & JOB_CANCEL) != 0;
	if (job_is_terminal(&job)) {
		job_outcome(&job, OUT_CANCELLED, out);
		out->duplicate = asked;
		return 0;
	}
	job.live.flags |= JOB_CANCEL;
	if (!(job.live.flags & JOB_INTENT) &&
	    lifecycle_allows(job.lifecycle, job.live.state, job.lifecycle->cancelled)) {
		rc = cancel_now(a, &job, &fact);
	} else {
		/* A repeated cancel notifies the holder again: the first notice may have been lost
		 * with its connection. */
		if (!asked)
			rc = job_note(a, &job, &fact);
		if (rc == 0 && job.live.claim == JOB_LEASED)
			rc = job_notify_holder(a, &job, FX_JOB_CANCEL);
	}
	if (rc == 0)
		rc = job_store(a, &job);
	if (rc == 0) {
		job_outcome(&job, OUT_CANCELLED, out);
		out->duplicate = asked;
	}
	return rc;
}

int job_reset_apply(struct apply *a, const Sluice__JobReset *m, struct outcome *out)
{
	const struct job_fact fact = job_fact("reset", JOB_SOURCE_BROKER, m->reason);
	const char *from;
	struct job job;
	bool terminal;
	int rc = job_text_check(out, "reason", m->reason, LIMIT_TEXT_BYTES_MAX);

	if (rc == 0 && !refused(out))
		rc = job_find(a, m->job, &job, out);
	if (rc != 0 || refused(out))
		return rc;
	from = job_state_name(&job);
	terminal = job_is_terminal(&job);
	if (!terminal && !m->force)
		return refuse(out, SLUICE_E_WRONG_STATE,
			      "job %s is %s in attempt %u; only a finished job is reset without "
			      "force",
			      m->job, from, job.live.attempt);
	if (job.live.attempt == UINT32_MAX)
		return refuse(out, SLUICE_E_LIMIT, "job %s cannot have another attempt", m->job);
	if (terminal)
		rc = queue_room_check(a, job.live.queue, SLUICE__QUEUE_KIND__QUEUE_JOBS, 1, out);
	if (rc != 0 || refused(out))
		return rc;
	rc = job_claim_end(a, &job, true);
	if (rc != 0)
		return rc;
	job.live.attempt++;
	job.live.state = 0;
	job.live.seen = 1;
	job.live.source = 0;
	job.live.flags = 0;
	job.live.token = 0;
	job.live.holder = 0;
	job.live.hist_intent = job.live.hist_ref = job.live.hist_report = 0;
	job.live.changed_ms = a->wall_ms;
	rc = job_history_append(a, &job, from, &fact);
	if (rc == 0)
		rc = job_make_ready(a, &job);
	if (rc == 0)
		rc = job_event_publish(a, &job, from, &fact);
	if (rc == 0 && terminal)
		rc = counter_add(a, COUNTER_JOBS_OPEN, 1);
	if (rc == 0)
		rc = job_store(a, &job);
	if (rc == 0)
		job_outcome(&job, OUT_RESET, out);
	return rc;
}
