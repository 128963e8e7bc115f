/* SPDX-License-Identifier: Apache-2.0
 * A job while one command works on it: see job.h. */
#include "broker/core/base/age.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/timer.h"
#include "broker/core/job/history.h"
#include "broker/core/job/source.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/queue.h"
#include "broker/core/session/session.h"
#include "broker/util/invariant.h"

int job_find(struct apply *a, const char *id, struct job *ret, struct outcome *out)
{
	size_t len = strlen(id);
	uint64_t number;
	int rc;

	if (len == 0 || len > JOB_ID_BYTES_MAX)
		return refuse(out, SLUICE_E_INVAL, "a job id has 1 to %d bytes, this one has %zu",
			      JOB_ID_BYTES_MAX, len);
	rc = name_find(a->txn, a->gateway, NAME_JOB, (struct sluice_slice){id, len}, &number);
	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, SLUICE_E_NOT_FOUND, "job %s does not exist", id);
	if (rc == 0)
		rc = job_load(a, number, ret);
	if (rc == 0)
		ret->id = id;
	return rc;
}

int job_load(struct apply *a, uint64_t number, struct job *ret)
{
	int rc = job_live_get(a->txn, a->gateway, number, &ret->live);
	const char *fault = rc == 0 ? job_live_fault(&ret->live) : NULL;

	ret->number = number;
	ret->id = NULL;
	if (fault != NULL)
		return store_damaged(fault);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	rc = lifecycle_get(a, ret->live.lifecycle, &ret->lifecycle);
	if (rc != 0 || ret->live.state < ret->lifecycle->state_count)
		return rc;
	/* read last, so that store_last_error() names it */
	rc = job_live_get(a->txn, a->gateway, number, &ret->live);
	return rc != 0 ? rc : store_damaged("its state is not one of its lifecycle");
}

int job_store(struct apply *a, const struct job *job)
{
	invariant(job->live.state < job->lifecycle->state_count, "job %llu: state %u of %u",
		  ULL(job->number), job->live.state, (unsigned)job->lifecycle->state_count);
	invariant(job_is_terminal(job) == (job->live.claim == JOB_NONE),
		  "job %llu is %s, with claim %u", ULL(job->number), job_state_name(job),
		  job->live.claim);
	invariant(job->live.token <= a->index, "job %llu: token %llu at index %llu",
		  ULL(job->number), ULL(job->live.token), ULL(a->index));
	return job_live_put(a, job->number, &job->live);
}

void job_outcome(const struct job *job, enum outcome_kind kind, struct outcome *out)
{
	out->kind = (uint16_t)kind;
	out->attempt = job->live.attempt;
	out->terminal = job_is_terminal(job);
	out->id = job->number;
	memccpy(out->state, job_state_name(job), '\0', sizeof(out->state) - 1); /* out is zeroed */
}

int job_note(struct apply *a, struct job *job, const struct job_fact *fact)
{
	return job_history_append(a, job, "", fact);
}

static int end_job(struct apply *a, struct job *job, bool notify_holder)
{
	struct effect effect = {.kind = FX_JOB_TERMINAL,
				.command = a->position,
				.gateway = a->gateway,
				.id = job->number};
	int rc = job_claim_end(a, job, notify_holder);

	if (rc == 0 && job->id != NULL) {
		size_t len = strlen(job->id);
		void *copy = effects_alloc(a->effects, len);

		if (copy == NULL)
			return SLUICE_E_NOMEM;
		effect.name = (struct sluice_slice){memcpy(copy, job->id, len), len};
	}
	if (rc == 0)
		rc = counter_add(a, COUNTER_JOBS_OPEN, -1);
	job->live.due_mono_ms = age_now(a);
	if (rc == 0)
		rc = job_retention_arm(a, job);
	return rc != 0 ? rc : effects_add(a->effects, &effect);
}

int job_move(struct apply *a, struct job *job, uint32_t state, const struct job_fact *fact,
	     bool notify_holder)
{
	const char *from = job_state_name(job);
	int rc;

	invariant(state < job->lifecycle->state_count, "job %llu moves to state %u of %u",
		  ULL(job->number), state, (unsigned)job->lifecycle->state_count);
	invariant(!job_is_terminal(job) || !lifecycle_is_terminal(job->lifecycle, state),
		  "job %llu moves from end to end: %u to %u", ULL(job->number), job->live.state,
		  state);
	job->live.state = (uint8_t)state;
	invariant(state < 64, "job %llu moves to state %u, which `seen` has no bit for",
		  ULL(job->number), state);
	if (job->live.seen != 0)
		job->live.seen |= UINT64_C(1) << state;
	job->live.changed_ms = a->wall_ms;
	rc = job_history_append(a, job, from, fact);
	if (rc == 0)
		rc = job_event_publish(a, job, from, fact);
	if (rc == 0 && job_is_terminal(job))
		rc = end_job(a, job, notify_holder);
	return rc;
}

/* ---- claims ---- */

/* Delayed jobs count as delayed in their queue, so that the queue cannot be deleted before they are
 * due. */
static int count_delayed(struct apply *a, uint64_t queue, int64_t delta)
{
	struct queue_cell cell;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	if (rc != 0)
		return rc;
	cell.delayed += (uint64_t)delta;
	return queue_cell_put(a, queue, &cell);
}

static int drop_orphan(struct apply *a, struct job *job)
{
	uint64_t source = job_orphan_source(&job->live);
	struct key key;
	int rc;

	job_key_orphan(&key, a->gateway, job->live.queue, source, job->number);
	rc = store_del(a->txn, STORE_OWNED, key_slice(&key));
	/* The entry is missing if a claim has skipped it (job_orphan_skip): it is still counted. */
	if (rc == 0 || rc == SLUICE_E_NOT_FOUND)
		rc = queue_job_count(a, job->live.queue, 0, -1);
	return rc == 0 && source != 0 ? source_orphans_add(a, source, -1) : rc;
}

static int drop_lease(struct apply *a, struct job *job, bool notify_holder)
{
	int rc = session_disown(a, job->live.holder, OWNED_JOB, job->number);

	if (rc == 0)
		rc = queue_job_count(a, job->live.queue, -1, 0);
	if (rc == 0 && notify_holder)
		rc = job_notify_holder(a, job, FX_LEASE_LOST);
	return rc;
}

int job_claim_end(struct apply *a, struct job *job, bool notify_holder)
{
	int rc = 0;

	switch ((enum job_claim)job->live.claim) {
	case JOB_READY:
		rc = queue_job_remove(a, job->live.queue, job->live.entry, job->live.priority);
		break;
	case JOB_LEASED:
		rc = drop_lease(a, job, notify_holder);
		break;
	case JOB_ORPHANED:
		rc = drop_orphan(a, job);
		break;
	case JOB_GATED: /* its timer will find nothing to do */
		rc = count_delayed(a, job->live.queue, -1);
		break;
	case JOB_NONE:
	case JOB_HELD:
	case JOB_CLAIM_COUNT:
		break;
	}
	job->live.claim = JOB_NONE;
	job->live.entry = 0;
	job->live.due_mono_ms = 0;
	return rc;
}

int job_make_ready(struct apply *a, struct job *job)
{
	int rc = queue_job_put(a, job->live.queue, job->number, job->live.priority,
			       &job->live.entry);

	invariant(job->live.claim == JOB_NONE, "job %llu: claim %u is not ended", ULL(job->number),
		  job->live.claim);
	job->live.claim = JOB_READY;
	job->live.holder = 0;
	job->live.source = 0;
	return rc;
}

int job_make_delayed(struct apply *a, struct job *job, uint64_t due_mono_ms)
{
	int rc = timer_set(a, due_mono_ms, TIMER_JOB_RELEASE_DUE, job->number, job->live.attempt);

	invariant(job->live.claim == JOB_NONE, "job %llu: claim %u is not ended", ULL(job->number),
		  job->live.claim);
	job->live.claim = JOB_GATED;
	job->live.due_mono_ms = due_mono_ms;
	job->live.holder = 0;
	job->live.source = 0;
	return rc != 0 ? rc : count_delayed(a, job->live.queue, 1);
}

int job_make_orphan(struct apply *a, struct job *job)
{
	struct key key;
	int rc;

	invariant(job->live.claim == JOB_NONE || job->live.claim == JOB_LEASED,
		  "job %llu: claim %u is not ended", ULL(job->number), job->live.claim);
	job->live.source = job_orphan_source(&job->live);
	job_key_orphan(&key, a->gateway, job->live.queue, job->live.source, job->number);
	rc = store_put(a->txn, STORE_OWNED, key_slice(&key), (struct sluice_slice){"", 0});
	if (rc == 0)
		rc = queue_job_count(a, job->live.queue, 0, 1);
	if (rc == 0 && job->live.source != 0)
		rc = source_orphans_add(a, job->live.source, 1);
	/* holder and token stay: the last holder, and the token that a takeover must exceed */
	job->live.claim = JOB_ORPHANED;
	return rc != 0 ? rc : queue_orphan_effect(a, job->live.queue, job->live.source);
}

int job_make_leased(struct apply *a, struct job *job, uint64_t source)
{
	int rc = session_own(a, a->session, OWNED_JOB, job->number, job->live.queue);

	invariant(job->live.claim == JOB_NONE || job->live.claim == JOB_READY,
		  "job %llu: claim %u is not ended", ULL(job->number), job->live.claim);
	if (rc == 0)
		rc = queue_job_count(a, job->live.queue, 1, 0);
	job->live.claim = JOB_LEASED;
	job->live.entry = 0;
	job->live.holder = a->session;
	job->live.token = a->index;
	if (!(job->live.flags & JOB_INTENT))
		job->live.source = source;
	return rc;
}

static int id_copy(struct apply *a, const char *id, struct sluice_slice *ret)
{
	size_t len = strlen(id);
	void *copy = effects_alloc(a->effects, len + 1);

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	*ret = (struct sluice_slice){memcpy(copy, id, len), len};
	return 0;
}

/* For a job that was found by its number. */
static int id_of_record(struct apply *a, uint64_t number, struct sluice_slice *ret)
{
	Sluice__JobSubmit *meta = NULL;
	struct job_record record;
	int rc = job_record_get(a->txn, a->gateway, number, &record);

	if (rc == 0)
		rc = job_record_meta(&record, &meta);
	if (rc == 0)
		rc = id_copy(a, meta->job, ret);
	sluice__job_submit__free_unpacked(meta, NULL);
	return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
}

int job_notify_holder(struct apply *a, const struct job *job, enum effect_kind kind)
{
	struct effect effect = {.kind = kind,
				.command = a->position,
				.gateway = a->gateway,
				.id = job->number,
				.session = job->live.holder,
				.token = job->live.token};
	struct outcome gone = {0};
	int rc;

	if (job->live.holder == 0)
		return 0;
	rc = session_check(a, job->live.holder, &gone);
	if (rc != 0 || refused(&gone))
		return rc;
	rc = job->id != NULL ? id_copy(a, job->id, &effect.name)
			     : id_of_record(a, job->number, &effect.name);
	return rc != 0 ? rc : effects_add(a->effects, &effect);
}
