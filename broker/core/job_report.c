/* SPDX-License-Identifier: Apache-2.0
 *
 * JOB_REPORT: what somebody saw of a job. A holder reports with its token, anybody else with the attempt
 * alone.
 *
 * What a report can come to, in this order:
 *   job unknown                           PARKED until it is submitted
 *   token given and not the current one   refused STALE_TOKEN
 *   attempt not the current one           quarantined
 *   no state                              evidence or reference recorded, unless it is what was recorded last
 *   the state that it is in               DUPLICATE, nothing written, unless it brings a new scheduler
 * reference no such state, or no such transition  quarantined (a terminal state is a sink) else APPLIED
 * Quarantined and parked reports succeed; the disposition says what became of them, and text why.
 */
#include "broker/core/job_ledger.h"

#include <stdio.h>

#include "protocol/envelope.h"
#include "protocol/limits.h"

static int report_check(const Sluice__JobReport *m, struct outcome *out)
{
	const char *why;
	int code = name_check(slice_text(m->job), &why), err;

	if (code != 0)
		return refuse(out, code, "job id: %s", why);
	if (m->attempt == 0 && m->token == 0)
		return refuse(out, SLUICE_E_INVAL, "a report without a token names its attempt");
	if (m->release && m->token == 0)
		return refuse(out, SLUICE_E_INVAL, "only a holder can release: the token is missing");
	if (m->state[0] == '\0' && m->evidence[0] == '\0' && m->scheduler_ref[0] == '\0' && !m->release)
		return refuse(out, SLUICE_E_INVAL,
			      "nothing is reported: expected a state, evidence or a scheduler reference");
	err = job_text_check(out, "source", m->source, LIMIT_TEXT_BYTES_MAX);
	if (err == 0 && !refused(out))
		err = job_text_check(out, "state", m->state, MACHINE_STATE_NAME_BYTES_MAX);
	if (err == 0 && !refused(out))
		err = job_text_check(out, "scheduler reference", m->scheduler_ref, LIMIT_TEXT_BYTES_MAX);
	/* Cut, not refused: an end must not be lost for what a scheduler printed with it. */
	text_cut(m->evidence, LIMIT_EVIDENCE_BYTES_MAX);
	if (err == 0 && !refused(out))
		err = job_text_check(out, "evidence", m->evidence, LIMIT_EVIDENCE_BYTES_MAX);
	return err;
}

static void answer(const struct job *job, enum _Sluice__Disposition disposition, struct outcome *out)
{
	job_outcome(job, OUT_REPORTED, out);
	out->disposition = (uint8_t)disposition;
	out->duplicate = disposition == SLUICE__DISPOSITION__DUPLICATE;
}

static int put_in_quarantine(struct apply *a, const struct job *job, const Sluice__JobReport *m, char *reason,
			     struct outcome *out)
{
	answer(job, SLUICE__DISPOSITION__PUT_IN_QUARANTINE, out);
	text_mend(reason);
	snprintf(out->text, sizeof(out->text), "%s", reason);
	return quarantine_put(a, m, reason);
}

static bool token_is_current(const struct job *job, uint64_t token)
{
	/* After the end the token still names who held it last: its retry must get the same answer. */
	return token == job->live.token && (job->live.claim == JOB_LEASED ||
					    job->live.claim == JOB_ORPHANED || job->live.claim == JOB_NONE);
}

static struct job_fact fact_of(const Sluice__JobReport *m)
{
	return (struct job_fact){.event = "report",
				 .source = m->source,
				 .evidence = m->evidence,
				 .scheduler_ref = m->scheduler_ref,
				 .exit_code = m->exit_code,
				 .seen_time_ms = m->seen_time_ms};
}

/* Whether the row `n` says the same (only what the report gives is compared). */
static int row_says(struct apply *a, uint64_t n, const Sluice__JobReport *m, bool ref_only, bool *ret)
{
	Sluice__JobHistoryRow *row;
	int err = job_history_load(a->txn, a->gateway, n, &row);

	*ret = false;
	if (err != 0 || row == NULL)
		return err;
	*ret = m->scheduler_ref[0] == '\0' || strcmp(row->scheduler_ref, m->scheduler_ref) == 0;
	if (!ref_only)
		*ret = *ret && strcmp(row->evidence, m->evidence) == 0 &&
		       strcmp(row->source, m->source) == 0 && row->exit_code == m->exit_code &&
		       row->seen_time_ms == m->seen_time_ms;
	sluice__job_history_row__free_unpacked(row, NULL);
	return 0;
}

/* A report that changes no state: is there anything in it that is not recorded yet? */
static int brings_news(struct apply *a, const struct job *job, const Sluice__JobReport *m, bool *ret)
{
	bool known = true;
	int err = 0;

	if (m->state[0] == '\0' && (m->evidence[0] != '\0' || m->scheduler_ref[0] != '\0'))
		err = row_says(a, job->live.hist_report, m, false, &known);
	else if (m->scheduler_ref[0] != '\0')
		err = row_says(a, job->live.hist_ref, m, true, &known);
	*ret = !known;
	return err;
}

static void note_pointers(struct job *job, const Sluice__JobReport *m)
{
	job->live.hist_report = job->live.hist_last;
	if (m->scheduler_ref[0] != '\0')
		job->live.hist_ref = job->live.hist_last;
}

/* The holder gives the lease up and the job is not at its end: before intent it can be claimed again, after
 * it somebody has to find out what became of it. */
static int give_up(struct apply *a, struct job *job)
{
	const struct job_fact fact = job_fact("release", JOB_SOURCE_BROKER, "given up by its holder");
	const struct job_fact orphan =
		job_fact("orphan", JOB_SOURCE_BROKER, "given up by its holder after intent");
	int err;

	if (!(job->live.flags & JOB_INTENT))
		return job_give_back(a, job, 0, &fact);
	err = job_note(a, job, &orphan);
	if (err == 0)
		err = job_claim_end(a, job, false);
	return err == 0 ? job_make_orphan(a, job) : err;
}

static int report_note(struct apply *a, struct job *job, const Sluice__JobReport *m, struct outcome *out)
{
	const struct job_fact fact = fact_of(m);
	bool news, release = m->release && job->live.claim == JOB_LEASED;
	int err = brings_news(a, job, m, &news);

	if (err == 0 && news) {
		err = job_note(a, job, &fact);
		note_pointers(job, m);
	}
	if (err == 0 && release)
		err = give_up(a, job);
	if (err == 0)
		answer(job, news || release ? SLUICE__DISPOSITION__APPLIED : SLUICE__DISPOSITION__DUPLICATE,
		       out);
	return err;
}

static int report_move(struct apply *a, struct job *job, const Sluice__JobReport *m, uint32_t state,
		       struct outcome *out)
{
	const struct job_fact fact = fact_of(m);
	int err = job_move(a, job, state, &fact, m->token == 0);

	note_pointers(job, m);
	if (err == 0 && m->release && job->live.claim == JOB_LEASED)
		err = give_up(a, job);
	if (err == 0)
		answer(job, SLUICE__DISPOSITION__APPLIED, out);
	return err;
}

int job_report_on(struct apply *a, struct job *job, const Sluice__JobReport *m, struct outcome *out)
{
	uint32_t attempt = m->attempt != 0 ? m->attempt : job->live.attempt, state;
	char reason[JOB_REASON_BYTES];

	if (m->token != 0 && !token_is_current(job, m->token))
		return refuse(out, SLUICE_E_STALE_TOKEN, "job %s: token %llu is not the current one", m->job,
			      (unsigned long long)m->token);
	if (attempt != job->live.attempt) {
		snprintf(reason, sizeof(reason), "attempt %u %s: attempt %u is the current one", attempt,
			 attempt < job->live.attempt ? "is over" : "has not begun", job->live.attempt);
		return put_in_quarantine(a, job, m, reason, out);
	}
	if (m->state[0] == '\0' || strcmp(m->state, job_state_name(job)) == 0)
		return report_note(a, job, m, out);
	if (!machine_state_find(job->machine, m->state, &state)) {
		snprintf(reason, sizeof(reason), "state %s is not one of machine %s", m->state,
			 job->machine->config->name);
		return put_in_quarantine(a, job, m, reason, out);
	}
	if (!machine_allows(job->machine, job->live.state, state)) {
		snprintf(reason, sizeof(reason),
			 job_is_terminal(job) ? "%s is terminal, %s was reported"
					      : "%s -> %s is not a legal transition",
			 job_state_name(job), m->state);
		return put_in_quarantine(a, job, m, reason, out);
	}
	return report_move(a, job, m, state, out);
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
	int err = report_check(m, out);

	if (err != 0 || refused(out))
		return err;
	err = name_find(a->txn, a->gateway, NAME_JOB, slice_text(m->job), &number);
	if (err == SLUICE_E_NOT_FOUND)
		return park(a, m, out);
	if (err == 0)
		err = job_load(a, number, &job);
	if (err != 0)
		return err;
	job.id = m->job;
	err = job_report_on(a, &job, m, out);
	if (err == 0 && !refused(out) && out->disposition == SLUICE__DISPOSITION__APPLIED)
		err = job_store(a, &job);
	return err;
}
