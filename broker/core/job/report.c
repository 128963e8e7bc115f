/* SPDX-License-Identifier: Apache-2.0
 *
 * JOB_REPORT: an observation of a job. A holder reports with its token, others with the attempt
 * alone.
 *
 * The result of a report, the first row that applies:
 *   job unknown                            PARKED until it is submitted; with a token or the job's
 *                                          number it existed once: STALE_TOKEN, NOT_FOUND
 *   number is not the job's                refused NOT_FOUND: the intended job was deleted
 *   parked ones are still being applied    without a token PARKED behind them
 *   token is not the current one           refused STALE_TOKEN
 *   cannot be applied, for one of the      DUPLICATE
 *     reasons below, and was recorded
 *     before
 *   attempt is not the current one         quarantined
 *   no state                               evidence or reference recorded, unless equal to the
 *                                          last one recorded
 *   the job's current state                DUPLICATE, nothing written, unless it has a new
 *                                          scheduler reference
 *   no such state, or no such transition   quarantined (a terminal state is a sink)
 *   else                                   APPLIED
 * Quarantined and parked reports succeed; the disposition says which, and text has the reason. A
 * retry of one that is in quarantine adds no second row. But it is applied if that is possible now:
 * a holder repeats the report of an end until it is accepted.
 */
#include <stdio.h>

#include "broker/core/base/name.h"
#include "broker/core/base/text.h"
#include "broker/core/job/history.h"
#include "broker/core/job/quarantine.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/pick.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "protocol/text.h"

enum { RETRY_ROWS_MAX = 64 };

static int report_check(const Sluice__JobReport *m, struct outcome *out)
{
	const char *why;
	int code = name_check(slice_text(m->job), &why), rc;

	if (code != 0)
		return refuse(out, code, "job id: %s", why);
	if (m->attempt == 0 && m->token == 0)
		return refuse(out, SLUICE_E_INVAL,
			      "the attempt is missing; a report without a token must give it");
	if (m->release && m->token == 0)
		return refuse(out, SLUICE_E_INVAL,
			      "only a holder can release: the token is missing");
	if (m->state[0] == '\0' && m->evidence[0] == '\0' && m->scheduler_ref[0] == '\0' &&
	    !m->release)
		return refuse(out, SLUICE_E_INVAL,
			      "nothing is reported: expected a state, evidence or a scheduler "
			      "reference");
	rc = job_text_check(out, "source", m->source, LIMIT_TEXT_BYTES_MAX);
	if (rc == 0 && !refused(out))
		rc = job_text_check(out, "state", m->state, LIFECYCLE_STATE_NAME_BYTES_MAX);
	if (rc == 0 && !refused(out))
		rc = job_text_check(out, "scheduler reference", m->scheduler_ref,
				    LIMIT_TEXT_BYTES_MAX);
	/* Cut, not refused: an end must not be lost because of a scheduler's long output. */
	text_cut(m->evidence, LIMIT_EVIDENCE_BYTES_MAX);
	if (rc == 0 && !refused(out))
		rc = job_text_check(out, "evidence", m->evidence, LIMIT_EVIDENCE_BYTES_MAX);
	return rc;
}

static void answer(const struct job *job, enum _Sluice__Disposition disposition,
		   struct outcome *out)
{
	job_outcome(job, OUT_REPORTED, out);
	out->disposition = (uint8_t)disposition;
	out->duplicate = disposition == SLUICE__DISPOSITION__DUPLICATE;
}

static int put_in_quarantine(struct apply *a, const struct job *job, const Sluice__JobReport *m,
			     char *reason, struct outcome *out)
{
	char first[JOB_REASON_BYTES];
	bool again;
	int rc = quarantine_find(a, m, first, &again);

	if (rc != 0)
		return rc;
	answer(job, SLUICE__DISPOSITION__QUARANTINED, out);
	text_repair(reason);
	snprintf(out->text, sizeof(out->text), "%s", again ? first : reason);
	return again ? 0 : quarantine_put(a, m, reason);
}

static bool token_is_current(const struct job *job, uint64_t token)
{
	/* After the end the token still identifies the last holder: its retry must get the same
	 * answer. */
	return token == job->live.token &&
	       (job->live.claim == JOB_LEASED || job->live.claim == JOB_ORPHANED ||
		job->live.claim == JOB_NONE);
}

/* A source's clock may be fast: a time after the batch's is replaced by the batch's. 0: not
 * given. */
static uint64_t at_most(uint64_t time_ms, uint64_t wall_ms)
{
	return time_ms < wall_ms ? time_ms : wall_ms;
}

/* A damaged row of a job's history does not block its reports: it stays, is reported, and counts as
 * a row without data. */
static int row_unread(struct apply *a, const struct job *job, int rc)
{
	return rc == SLUICE_E_CORRUPT ? claim_report_damaged(a, job->live.queue, job->number) : rc;
}

/* Data of an earlier report of the attempt that this report lacks is copied into its row, so that
 * the newest row is complete. At the job's end that includes how it ended: evidence may arrive
 * after it. */
static int fact_carry(struct apply *a, const struct job *job, struct job_fact *fact)
{
	struct job_history_brief last = {0};
	Sluice__JobHistoryRow *row;
	int rc = 0;

	if (job->live.hist_report == 0)
		return 0;
	if (!job_is_terminal(job)) {
		if (!(job->live.flags & JOB_MEASURED) ||
		    (fact->started_time_ms != 0 && fact->memory_peak_bytes != 0))
			return 0;
		rc = job_history_brief(a->txn, a->gateway, job->live.hist_report, &last);
		if (rc != 0)
			return row_unread(a, job, rc);
	} else {
		rc = job_history_load(a->txn, a->gateway, job->live.hist_report, &row);
		if (rc != 0)
			return row_unread(a, job, rc);
		last.started_time_ms = row->started_time_ms;
		last.memory_peak_bytes = row->memory_peak_bytes;
		fact->ended_time_ms =
			fact->ended_time_ms != 0 ? fact->ended_time_ms : row->ended_time_ms;
		fact->class = fact->class != 0 ? fact->class : row->class_;
		if (fact->exit_code == 0 && !fact->exited && fact->signal == 0) {
			fact->exit_code = row->exit_code;
			fact->exited = row->exited;
			fact->signal = row->signal;
		}
		sluice__job_history_row__free_unpacked(row, NULL);
	}
	if (fact->started_time_ms == 0)
		fact->started_time_ms = last.started_time_ms;
	if (fact->memory_peak_bytes == 0)
		fact->memory_peak_bytes = last.memory_peak_bytes;
	return 0;
}

/* ends: by this report. The time of the end is given by the evidence, or else the time when it was
 * seen. */
static int fact_of(struct apply *a, const struct job *job, const Sluice__JobReport *m, bool ends,
		   struct job_fact *ret)
{
	*ret = (struct job_fact){.event = "report",
				 .source = m->source,
				 .evidence = m->evidence,
				 .scheduler_ref = m->scheduler_ref,
				 .exit_code = m->exit_code,
				 .seen_time_ms = at_most(m->seen_time_ms, a->wall_ms),
				 .started_time_ms = at_most(m->started_time_ms, a->wall_ms),
				 .ended_time_ms = at_most(m->ended_time_ms, a->wall_ms),
				 .memory_peak_bytes = m->memory_peak_bytes,
				 .signal = m->signal,
				 .class = m->class_,
				 .exited = m->exited};
	if (ends && ret->ended_time_ms == 0)
		ret->ended_time_ms = ret->seen_time_ms != 0 ? ret->seen_time_ms : a->wall_ms;
	return fact_carry(a, job, ret);
}

static bool same_ref(const Sluice__JobHistoryRow *row, const Sluice__JobReport *m)
{
	return m->scheduler_ref[0] == '\0' || strcmp(row->scheduler_ref, m->scheduler_ref) == 0;
}

static bool same_time(uint64_t stored, uint64_t reported, const Sluice__JobHistoryRow *row)
{
	return reported == 0 || stored == at_most(reported, row->time_ms);
}

/* Compares only what the report gives. The row may have more: see fact_carry(). */
static bool same_report(const Sluice__JobHistoryRow *row, const Sluice__JobReport *m)
{
	return same_ref(row, m) && strcmp(row->evidence, m->evidence) == 0 &&
	       strcmp(row->source, m->source) == 0 &&
	       (row->exit_code == m->exit_code || (m->exit_code == 0 && !m->exited)) &&
	       row->seen_time_ms == at_most(m->seen_time_ms, row->time_ms) &&
	       same_time(row->started_time_ms, m->started_time_ms, row) &&
	       same_time(row->ended_time_ms, m->ended_time_ms, row) &&
	       (m->memory_peak_bytes == 0 || row->memory_peak_bytes == m->memory_peak_bytes) &&
	       (m->signal == 0 || row->signal == m->signal) &&
	       (m->class_ == 0 || row->class_ == m->class_) && (!m->exited || row->exited);
}

/* Whether row `n` has the same data. */
static int row_matches(struct apply *a, const struct job *job, uint64_t n,
		       const Sluice__JobReport *m, bool ref_only, bool *ret)
{
	Sluice__JobHistoryRow *row;
	int rc = job_history_load(a->txn, a->gateway, n, &row);

	*ret = false;
	if (rc != 0 || row == NULL)
		return row_unread(a, job, rc);
	*ret = ref_only ? same_ref(row, m) : same_report(row, m);
	sluice__job_history_row__free_unpacked(row, NULL);
	return 0;
}

/* ---- retries of a report ---- */

/* A row of the same report: its state, and its holder's token. */
static bool row_is(const Sluice__JobHistoryRow *row, const Sluice__JobReport *m, uint32_t attempt)
{
	return row->attempt == attempt && strcmp(row->event, "report") == 0 &&
	       (m->state[0] == '\0' ? row->from_state[0] == '\0'
				    : strcmp(row->state, m->state) == 0) &&
	       (m->token == 0 || row->token == m->token) && same_report(row, m);
}

/* A report whose answer was lost is sent again, possibly after others that were recorded meanwhile.
 * It gets the answer of the first: no new information. *ret is its row, owned; NULL: none among the
 * newest RETRY_ROWS_MAX of the job. Equal state and evidence alone do not make it a retry, since a
 * job may return to a state; so the caller asks only when the report could not be applied, or has a
 * seen time. */
static int find_first(struct apply *a, const struct job *job, const Sluice__JobReport *m,
		      uint32_t attempt, Sluice__JobHistoryRow **ret)
{
	uint64_t n = job->live.hist_last;

	*ret = NULL;
	for (int rows = 0; n != 0 && rows < RETRY_ROWS_MAX; rows++) {
		struct job_history_row at;
		Sluice__JobHistoryRow *row;
		int rc = job_history_get(a->txn, a->gateway, n, &at);

		if (rc == 0)
			rc = job_history_load(a->txn, a->gateway, n, &row);
		if (rc == SLUICE_E_NOT_FOUND)
			rc = store_damaged("it is missing");
		/* Rows before a damaged one cannot be found. */
		if (rc != 0)
			return row_unread(a, job, rc);
		if (row_is(row, m, attempt)) {
			*ret = row;
			return 0;
		}
		n = row->attempt < attempt ? 0 : at.previous;
		sluice__job_history_row__free_unpacked(row, NULL);
	}
	return 0;
}

/* Whether a report that changes no state has data that is not recorded yet. */
static int is_new_information(struct apply *a, const struct job *job, const Sluice__JobReport *m,
			      bool *ret)
{
	bool known = true;
	int rc = 0;

	if (m->state[0] == '\0' && (m->evidence[0] != '\0' || m->scheduler_ref[0] != '\0'))
		rc = row_matches(a, job, job->live.hist_report, m, false, &known);
	else if (m->scheduler_ref[0] != '\0')
		rc = row_matches(a, job, job->live.hist_ref, m, true, &known);
	*ret = !known;
	return rc;
}

static void note_pointers(struct job *job, const Sluice__JobReport *m, const struct job_fact *fact)
{
	if (fact->started_time_ms != 0 || fact->memory_peak_bytes != 0)
		job->live.flags |= JOB_MEASURED;
	job->live.hist_report = job->live.hist_last;
	if (m->scheduler_ref[0] != '\0')
		job->live.hist_ref = job->live.hist_last;
}

/* The holder releases the lease and the job has not ended: before intent it can be claimed again;
 * after intent the state of its work has to be found first. */
static int release_lease(struct apply *a, struct job *job)
{
	const struct job_fact fact =
		job_fact("release", JOB_SOURCE_BROKER, "released by its holder");
	const struct job_fact orphan =
		job_fact("orphan", JOB_SOURCE_BROKER, "released by its holder after intent");
	int rc;

	if (!(job->live.flags & JOB_INTENT))
		return job_give_back(a, job, 0, &fact);
	rc = job_note(a, job, &orphan);
	if (rc == 0)
		rc = job_claim_end(a, job, false);
	return rc != 0 ? rc : job_make_orphan(a, job);
}

/* Evidence that is recorded already, though other evidence followed. */
static int is_retry(struct apply *a, const struct job *job, const Sluice__JobReport *m, bool *ret)
{
	Sluice__JobHistoryRow *first = NULL;
	int rc = m->seen_time_ms != 0 ? find_first(a, job, m, job->live.attempt, &first) : 0;

	*ret = first != NULL;
	sluice__job_history_row__free_unpacked(first, NULL);
	return rc;
}

static int report_note(struct apply *a, struct job *job, const Sluice__JobReport *m,
		       struct outcome *out)
{
	struct job_fact fact;
	bool is_new, again = false, release = m->release && job->live.claim == JOB_LEASED;
	int rc = is_new_information(a, job, m, &is_new);

	if (rc == 0 && is_new)
		rc = is_retry(a, job, m, &again);
	is_new = is_new && !again;
	if (rc == 0 && is_new)
		rc = fact_of(a, job, m, false, &fact);
	if (rc == 0 && is_new) {
		rc = job_note(a, job, &fact);
		note_pointers(job, m, &fact);
	}
	if (rc == 0 && release)
		rc = release_lease(a, job);
	if (rc == 0)
		answer(job,
		       is_new || release ? SLUICE__DISPOSITION__APPLIED
					 : SLUICE__DISPOSITION__DUPLICATE,
		       out);
	return rc;
}

static int report_move(struct apply *a, struct job *job, const Sluice__JobReport *m, uint32_t state,
		       struct outcome *out)
{
	struct job_fact fact;
	int rc = fact_of(a, job, m, lifecycle_is_terminal(job->lifecycle, state), &fact);

	if (rc == 0)
		rc = job_move(a, job, state, &fact, m->token == 0);
	if (rc == 0)
		note_pointers(job, m, &fact);
	if (rc == 0 && m->release && job->live.claim == JOB_LEASED)
		rc = release_lease(a, job);
	if (rc == 0)
		answer(job, SLUICE__DISPOSITION__APPLIED, out);
	return rc;
}

/* The report cannot be applied. If it was recorded before, the answer says so, with the job's state
 * now, or, for an earlier attempt, with the state in which that ended. A previous holder whose
 * report did not end the attempt must be notified that its lease has ended. */
static int answer_again(struct apply *a, const struct job *job, const Sluice__JobReport *m,
			uint32_t attempt, struct outcome *out, bool *ret)
{
	bool stale =
		attempt != job->live.attempt || (m->token != 0 && !token_is_current(job, m->token));
	Sluice__JobHistoryRow *first;
	uint32_t state;
	int rc = find_first(a, job, m, attempt, &first);

	*ret = false;
	if (rc != 0 || first == NULL)
		return rc;
	*ret = !stale || m->token == 0 ||
	       (lifecycle_state_find(job->lifecycle, first->state, &state) &&
		lifecycle_is_terminal(job->lifecycle, state));
	if (*ret)
		answer(job, SLUICE__DISPOSITION__DUPLICATE, out);
	if (*ret && stale) {
		out->attempt = first->attempt;
		out->terminal = lifecycle_state_find(job->lifecycle, first->state, &state) &&
				lifecycle_is_terminal(job->lifecycle, state);
		memset(out->state, 0, sizeof(out->state));
		memccpy(out->state, first->state, '\0', sizeof(out->state) - 1);
	}
	sluice__job_history_row__free_unpacked(first, NULL);
	return 0;
}

/* Whether a report on the current attempt can be applied; buf gets the reason if not. */
static bool is_legal(const struct job *job, const Sluice__JobReport *m, char buf[JOB_REASON_BYTES],
		     uint32_t *ret_state)
{
	if (!lifecycle_state_find(job->lifecycle, m->state, ret_state)) {
		snprintf(buf, JOB_REASON_BYTES, "state %s is not one of lifecycle %s", m->state,
			 job->lifecycle->config->name);
		return false;
	}
	if (lifecycle_allows(job->lifecycle, job->live.state, *ret_state))
		return true;
	snprintf(buf, JOB_REASON_BYTES,
		 job_is_terminal(job) ? "%s is terminal, %s was reported"
				      : "%s -> %s is not a legal transition",
		 job_state_name(job), m->state);
	return false;
}

/* A state that this attempt was in before, with a seen time: it may be a retry, although it could
 * be applied. */
static bool may_be_retry(const struct job *job, const Sluice__JobReport *m, uint32_t state)
{
	return m->seen_time_ms != 0 &&
	       (job->live.seen == 0 || job->live.seen & UINT64_C(1) << state);
}

int job_report_on(struct apply *a, struct job *job, const Sluice__JobReport *m, struct outcome *out)
{
	uint32_t attempt = m->attempt != 0 ? m->attempt : job->live.attempt, state = 0;
	bool stale = m->token != 0 && !token_is_current(job, m->token), again = false,
	     legal = false;
	char reason[JOB_REASON_BYTES];
	int rc;

	if (!stale && attempt == job->live.attempt) {
		if (m->state[0] == '\0' || strcmp(m->state, job_state_name(job)) == 0)
			return report_note(a, job, m, out);
		legal = is_legal(job, m, reason, &state);
		if (legal && !may_be_retry(job, m, state))
			return report_move(a, job, m, state, out);
	}
	rc = answer_again(a, job, m, attempt, out, &again);
	if (rc != 0 || again)
		return rc;
	if (stale)
		return refuse(out, SLUICE_E_STALE_TOKEN,
			      "job %s: token %llu is not the current one", m->job,
			      (unsigned long long)m->token);
	if (attempt != job->live.attempt) {
		snprintf(reason, sizeof(reason), "attempt %u %s: attempt %u is the current one",
			 attempt, attempt < job->live.attempt ? "is over" : "has not begun",
			 job->live.attempt);
		return put_in_quarantine(a, job, m, reason, out);
	}
	return legal ? report_move(a, job, m, state, out)
		     : put_in_quarantine(a, job, m, reason, out);
}

/* There is no such job, or another one than intended: a token or a number proves that it
 * existed. */
static void refuse_forgotten(const Sluice__JobReport *m, struct outcome *out)
{
	if (m->number != 0)
		(void)refuse(out, SLUICE_E_NOT_FOUND,
			     "job %s with number %llu was forgotten or never existed", m->job,
			     (unsigned long long)m->number);
	else
		(void)refuse(out, SLUICE_E_STALE_TOKEN,
			     "job %s: token %llu belongs to no lease: the job was forgotten",
			     m->job, (unsigned long long)m->token);
}

static int park(struct apply *a, const Sluice__JobReport *m, struct outcome *out)
{
	out->kind = OUT_REPORTED;
	out->disposition = SLUICE__DISPOSITION__PARKED;
	out->attempt = m->attempt;
	snprintf(out->text, sizeof(out->text), "parked until the job is submitted");
	return quarantine_park(a, m);
}

int job_report_apply(struct apply *a, const Sluice__JobReport *m, struct outcome *out)
{
	uint64_t number;
	struct job job;
	bool waits;
	int rc = report_check(m, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = name_find(a->txn, a->gateway, NAME_JOB, slice_text(m->job), &number);
	if (rc == SLUICE_E_NOT_FOUND && m->number == 0 && m->token == 0)
		return park(a, m, out);
	if (rc == SLUICE_E_NOT_FOUND) {
		refuse_forgotten(m, out);
		return 0;
	}
	if (rc == 0)
		rc = job_load(a, number, &job);
	if (rc != 0)
		return rc;
	job.id = m->job;
	if (m->number != 0 && m->number != number) {
		refuse_forgotten(m, out);
		return 0;
	}
	rc = quarantine_waits(a, m->job, &waits);
	if (rc == 0 && waits && m->token == 0)
		return park(a, m, out);
	if (rc == 0)
		rc = job_report_on(a, &job, m, out);
	if (rc == 0 && !refused(out) && out->disposition == SLUICE__DISPOSITION__APPLIED)
		rc = job_store(a, &job);
	return rc;
}
