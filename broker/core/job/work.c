/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands of a holder: INTENT before it starts the work, RELEASE before intent. And a
 * transaction's check of a job.
 *
 * INTENT is the point of no return: from then on only evidence may end the attempt, since the work
 * may exist.
 */
#include "broker/core/base/text.h"
#include "broker/core/job/history.h"
#include "broker/core/job/source.h"
#include "protocol/limits.h"

static int refuse_stale(const struct job *job, uint64_t token, struct outcome *out)
{
	if (token != job->live.token || token == 0)
		return refuse(out, SLUICE_E_STALE_TOKEN,
			      "job %s: token %llu is not the current one", job->id,
			      (unsigned long long)token);
	return refuse(out, SLUICE_E_STALE_TOKEN,
		      "job %s: the lease of token %llu has ended (%s, claim %s)", job->id,
		      (unsigned long long)token, job_state_name(job),
		      job_claim_name(job->live.claim));
}

static int intent_again(struct apply *a, const struct job *job, const Sluice__JobIntent *m,
			struct outcome *out)
{
	Sluice__JobHistoryRow *row;
	int rc = job_history_load(a->txn, a->gateway, job->live.hist_intent, &row);
	bool same;

	if (rc != 0 || row == NULL)
		return rc != 0 ? rc : store_damaged("its content is not valid");
	same = strcmp(row->evidence, m->tag) == 0;
	sluice__job_history_row__free_unpacked(row, NULL);
	if (!same)
		return refuse(out, SLUICE_E_CONFLICT,
			      "job %s: attempt %u has an intent with another tag; search for "
			      "that tag first",
			      m->job, job->live.attempt);
	out->duplicate = true;
	return 0;
}

int job_intent_apply(struct apply *a, const Sluice__JobIntent *m, struct outcome *out)
{
	struct job_fact fact = job_fact("intent", "", m->tag);
	char source[SOURCE_NAME_BYTES];
	struct job job;
	int rc = job_text_check(out, "tag", m->tag, LIMIT_TEXT_BYTES_MAX);

	if (rc == 0 && !refused(out) && m->tag[0] == '\0')
		return refuse(out, SLUICE_E_INVAL, "an intent needs a tag to find the work by");
	if (rc == 0 && !refused(out))
		rc = job_find(a, m->job, &job, out);
	if (rc != 0 || refused(out))
		return rc;
	out->attempt = job.live.attempt;
	if (m->token == 0 || m->token != job.live.token)
		return refuse_stale(&job, m->token, out);
	/* A retry whose first answer was lost is answered as held, also when a cancel came in
	 * between: the cancel reaches the holder. */
	if (job.live.claim == JOB_LEASED && m->attempt == job.live.attempt &&
	    (job.live.flags & JOB_INTENT))
		return intent_again(a, &job, m, out);
	if (job.live.flags & JOB_CANCEL)
		return refuse(out, SLUICE_E_CANCELLED, "job %s was cancelled", m->job);
	if (job.live.claim != JOB_LEASED)
		return refuse_stale(&job, m->token, out);
	if (m->attempt != job.live.attempt)
		return refuse(out, SLUICE_E_STALE_ATTEMPT,
			      "job %s: attempt %u is the current one, not %u", m->job,
			      job.live.attempt, m->attempt);
	if (job.live.source != 0) {
		rc = source_name_get(a->txn, a->gateway, job.live.source, source);
		fact.source = source;
	}
	if (rc != 0)
		return rc;
	job.live.flags |= JOB_INTENT;
	rc = job_note(a, &job, &fact);
	job.live.hist_intent = job.live.hist_last;
	return rc != 0 ? rc : job_store(a, &job);
}

int job_release_apply(struct apply *a, const Sluice__JobRelease *m, struct outcome *out)
{
	const struct job_fact fact = job_fact("release", "", m->reason);
	struct job job;
	int rc = job_text_check(out, "reason", m->reason, LIMIT_TEXT_BYTES_MAX);

	if (rc == 0 && !refused(out))
		rc = job_find(a, m->job, &job, out);
	if (rc != 0 || refused(out))
		return rc;
	if (m->token == 0 || m->token != job.live.token)
		return refuse_stale(&job, m->token, out);
	if (job.live.claim == JOB_READY || job.live.claim == JOB_GATED) {
		/* the token of the last lease, which this command released */
		out->duplicate = true;
		return 0;
	}
	if (job.live.claim != JOB_LEASED)
		return refuse_stale(&job, m->token, out);
	if (job.live.flags & JOB_INTENT)
		return refuse(out, SLUICE_E_WRONG_STATE,
			      "job %s: an intent is recorded, so only a report can end attempt %u",
			      m->job, job.live.attempt);
	rc = job_give_back(a, &job, m->delay_ms, &fact);
	return rc != 0 ? rc : job_store(a, &job);
}

int job_check_apply(struct apply *a, const Sluice__TxnCheckJob *m, struct outcome *out)
{
	struct job job;
	int rc = job_find(a, m->job, &job, out);

	if (rc != 0 || refused(out))
		return rc;
	if (m->state[0] != '\0' && strcmp(m->state, job_state_name(&job)) != 0)
		return refuse(out, SLUICE_E_WRONG_STATE, "job %s is %s, not %.63s", m->job,
			      job_state_name(&job), m->state);
	if (m->attempt != 0 && m->attempt != job.live.attempt)
		return refuse(out, SLUICE_E_WRONG_STATE,
			      "job %s: attempt %u is the current one, not %u", m->job,
			      job.live.attempt, m->attempt);
	return 0;
}
