/* SPDX-License-Identifier: Apache-2.0
 *
 * audit: proves that no job is lost. Every open job has a queue entry, a lease (also an orphaned
 * one), or a timer; every ended job has none. A violation is a finding, as text. One call checks
 * AUDIT_JOBS_MAX jobs and returns where to continue; the counters can only be checked by a call
 * that saw all jobs at one index: when it took several turns and the index changed meanwhile, they
 * are not checked.
 *
 * A damaged record is a finding, too, and the audit continues after it. Of open jobs it reads all
 * records that a delivery needs.
 *
 * A job that makes no progress is a finding as well: a lease without a report for longer than
 * silent_ms (on the job or, once it was begun, from the source that judges it), a lease whose
 * source another session speaks for, and an orphan that waits for longer than orphan_ms; orphans of
 * one source are one finding. That costs a read of the newest history row, and for jobs with a
 * source of its cell.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/age.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/number.h"
#include "broker/core/base/reply.h"
#include "broker/core/base/timer.h"
#include "broker/core/job/history.h"
#include "broker/core/job/source.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/record.h"
#include "broker/core/session/session.h"
#include "protocol/text.h"

enum { AUDIT_JOBS_MAX = 20000, FINDINGS_MAX = 200, FINDING_BYTES = 600 };
#define SILENT_MS_DEFAULT UINT64_C(86400000)
#define ORPHAN_MS_DEFAULT UINT64_C(3600000)

struct audit {
	struct query *q;
	Sluice__Audited *result;
	struct lifecycle *lifecycle; /* of the last job */
	uint64_t silent_ms, orphan_ms;
	int rc;
};

static void finding(struct audit *audit, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void finding(struct audit *audit, const char *format, ...)
{
	Sluice__Audited *result = audit->result;
	char text[FINDING_BYTES];
	va_list args;

	if (audit->rc != 0 || result->n_findings == FINDINGS_MAX)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	text_repair(text);
	va_end(args);
	result->findings[result->n_findings] = strdup(text);
	if (result->findings[result->n_findings] == NULL)
		audit->rc = SLUICE_E_NOMEM;
	else
		result->n_findings++;
}

static int exists(struct audit *audit, enum store_table table, const struct key *key, bool *ret)
{
	struct sluice_slice value;
	int rc = store_get(audit->q->txn, table, key_slice(key), &value);

	*ret = rc == 0;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int check_ready(struct audit *audit, uint64_t number, const struct job_live *live)
{
	struct queue_item item;
	uint64_t named;
	int rc = queue_item_get(audit->q->txn, audit->q->gateway, live->queue, live->entry, &item);

	if (rc == SLUICE_E_NOT_FOUND)
		finding(audit, "job %llu is ready but has no entry %llu in queue %llu",
			(unsigned long long)number, (unsigned long long)live->entry,
			(unsigned long long)live->queue);
	else if (rc == 0 && (!number_read(item.body, &named) || named != number))
		finding(audit, "job %llu: entry %llu of queue %llu names another job",
			(unsigned long long)number, (unsigned long long)live->entry,
			(unsigned long long)live->queue);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* ---- jobs without progress ---- */

static uint64_t since(const struct audit *audit, uint64_t wall_ms)
{
	return audit->q->clock.wall_ms > wall_ms ? audit->q->clock.wall_ms - wall_ms : 0;
}

/* Taken over with an intent and without a source, and not reported on since: the new holder may not
 * know the state of the work. */
static int check_taken_over(struct audit *audit, uint64_t number, const struct job_live *live,
			    uint64_t age_ms)
{
	Sluice__JobHistoryRow *row;
	char age[AGE_BYTES];
	int rc;

	if (live->source != 0 || !(live->flags & JOB_INTENT) || age_ms < audit->orphan_ms ||
	    age_ms >= audit->silent_ms)
		return 0;
	rc = job_history_load(audit->q->txn, audit->q->gateway, live->hist_last, &row);
	if (rc != 0)
		return rc;
	if (strcmp(row->event, "takeover") == 0)
		finding(audit,
			"job %llu was taken over by session %llu %s ago, which has not "
			"reported on it since: it may not know the state of the work",
			(unsigned long long)number, (unsigned long long)live->holder,
			job_age(age, age_ms));
	sluice__job_history_row__free_unpacked(row, NULL);
	return 0;
}

static int check_silent(struct audit *audit, uint64_t number, const struct job_live *live)
{
	struct job_history_brief last;
	struct source source = {0};
	char age[AGE_BYTES];
	uint64_t age_ms;
	int rc = job_history_brief(audit->q->txn, audit->q->gateway, live->hist_last, &last);

	if (rc != 0)
		return 0; /* check_job finds that the row is missing */
	age_ms = since(audit, last.time_ms);
	if (live->source != 0)
		rc = source_get(audit->q->txn, audit->q->gateway, live->source, &source);
	if (rc != 0)
		return rc;
	if (live->source != 0 && source.session != live->holder && age_ms >= audit->orphan_ms) {
		finding(audit,
			"job %llu is leased to session %llu, but session %llu represents "
			"source %.*s, which judges it: its holder cannot",
			(unsigned long long)number, (unsigned long long)live->holder,
			(unsigned long long)source.session, (int)source.name.len,
			(const char *)source.name.data);
		return 0;
	}
	/* A source that is polled covers its begun jobs, however long they take. */
	if (live->flags & JOB_INTENT && live->source != 0 && since(audit, source.seen_ms) < age_ms)
		age_ms = since(audit, source.seen_ms);
	if (age_ms >= audit->silent_ms)
		finding(audit,
			"job %llu is leased to session %llu, which has not reported on it "
			"for %s",
			(unsigned long long)number, (unsigned long long)live->holder,
			job_age(age, age_ms));
	return check_taken_over(audit, number, live, age_ms);
}

/* One finding for all orphans that wait for one source. */
static void find_away(struct audit *audit, const struct source *source)
{
	char text[FINDING_BYTES], waiting[AGE_BYTES], seen[AGE_BYTES];
	int head = snprintf(text, sizeof(text), "source %.*s: ", (int)source->name.len,
			    (const char *)source->name.data);

	for (size_t i = 0; i < audit->result->n_findings; i++)
		if (strncmp(audit->result->findings[i], text, (size_t)head) == 0)
			return;
	finding(audit,
		"%s%llu orphaned jobs wait for it, since %s; its last heartbeat "
		"was %s ago, from session %llu, and no other source can judge "
		"them",
		text, (unsigned long long)source->orphans,
		job_age(waiting, since(audit, source->waiting_ms)),
		job_age(seen, since(audit, source->seen_ms)), (unsigned long long)source->session);
}

static int check_waiting(struct audit *audit, uint64_t number, const struct job_live *live)
{
	struct job_history_brief last;
	struct source source;
	char age[AGE_BYTES];
	int rc;

	if (job_orphan_source(live) != 0) {
		rc = source_get(audit->q->txn, audit->q->gateway, live->source, &source);
		if (rc == 0 && since(audit, source.waiting_ms) >= audit->orphan_ms)
			find_away(audit, &source);
		return rc;
	}
	rc = job_history_brief(audit->q->txn, audit->q->gateway, live->hist_last, &last);
	if (rc == 0 && since(audit, last.time_ms) >= audit->orphan_ms)
		finding(audit, "job %llu is orphaned, and no consumer has taken it for %s",
			(unsigned long long)number, job_age(age, since(audit, last.time_ms)));
	return 0;
}

/* ---- findings ---- */

static int check_leased(struct audit *audit, uint64_t number, const struct job_live *live)
{
	struct sluice_slice entry;
	struct owned_value value;
	struct key key;
	bool owned, session, bad;
	int rc;

	key_owned(&key, audit->q->gateway, live->holder, OWNED_JOB, number);
	rc = store_get(audit->q->txn, STORE_OWNED, key_slice(&key), &entry);
	owned = rc == 0;
	bad = rc == SLUICE_E_CORRUPT || (owned && !owned_value_decode(entry, &value));
	rc = bad || rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	key_one(&key, audit->q->gateway, live->holder);
	if (rc == 0)
		rc = exists(audit, STORE_SESSION, &key, &session);
	if (rc == 0 && !session)
		finding(audit, "job %llu is leased to session %llu, which does not exist",
			(unsigned long long)number, (unsigned long long)live->holder);
	else if (rc == 0 && bad)
		finding(audit, "job %llu: the entry of session %llu that holds it is damaged",
			(unsigned long long)number, (unsigned long long)live->holder);
	else if (rc == 0 && !owned)
		finding(audit, "job %llu is leased to session %llu, which has no entry for it",
			(unsigned long long)number, (unsigned long long)live->holder);
	else if (rc == 0)
		rc = check_silent(audit, number, live);
	return rc;
}

static int check_orphaned(struct audit *audit, uint64_t number, const struct job_live *live)
{
	struct key key;
	bool found;
	int rc;

	job_key_orphan(&key, audit->q->gateway, live->queue, job_orphan_source(live), number);
	rc = exists(audit, STORE_OWNED, &key, &found);
	if (rc == 0 && !found)
		finding(audit, "job %llu is orphaned but is not among the orphans of queue %llu",
			(unsigned long long)number, (unsigned long long)live->queue);
	return rc != 0 ? rc : check_waiting(audit, number, live);
}

/* While the clock is in doubt, another timer is set: job_release_due_fire. */
static int held_by_doubt(struct audit *audit, uint64_t due_mono_ms, bool *ret)
{
	struct age age;
	int rc = age_read(audit->q->txn, &age);

	*ret = rc == 0 && age_may_hold(&age, audit->q->clock.mono_ms, due_mono_ms);
	return rc;
}

static int check_gated(struct audit *audit, uint64_t number, const struct job_live *live)
{
	struct key key;
	bool found;
	int rc;

	key_timer(&key, audit->q->gateway, live->due_mono_ms, TIMER_JOB_RELEASE_DUE, number,
		  live->attempt);
	rc = exists(audit, STORE_TIMER, &key, &found);
	if (rc == 0 && !found)
		rc = held_by_doubt(audit, live->due_mono_ms, &found);
	if (rc == 0 && !found)
		finding(audit, "job %llu waits for a time but has no timer",
			(unsigned long long)number);
	return rc;
}

static int check_open(struct audit *audit, uint64_t number, const struct job_live *live)
{
	Sluice__Audited *result = audit->result;

	result->open++;
	switch ((enum job_claim)live->claim) {
	case JOB_READY:
		result->ready++;
		return check_ready(audit, number, live);
	case JOB_LEASED:
		result->leased++;
		return check_leased(audit, number, live);
	case JOB_ORPHANED:
		result->orphaned++;
		return check_orphaned(audit, number, live);
	case JOB_GATED:
		result->gated++;
		return check_gated(audit, number, live);
	case JOB_HELD:
		result->held++;
		return 0;
	case JOB_NONE:
	case JOB_CLAIM_COUNT:
		break;
	}
	finding(audit, "job %llu is %s and has neither a lease, a gate, a timer nor a queue entry",
		(unsigned long long)number, lifecycle_state_name(audit->lifecycle, live->state));
	return 0;
}

static int check_lifecycle(struct audit *audit, uint64_t id)
{
	if (audit->lifecycle != NULL && audit->lifecycle->id == id)
		return 0;
	lifecycle_free(audit->lifecycle);
	audit->lifecycle = NULL;
	return lifecycle_load(audit->q->txn, audit->q->gateway, id, &audit->lifecycle);
}

static int check_last_row(struct audit *audit, uint64_t number, const struct job_live *live)
{
	struct job_history_row row;
	int rc = job_history_get(audit->q->txn, audit->q->gateway, live->hist_last, &row);

	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && row.job != number))
		finding(audit, "job %llu: its last history row %llu is missing",
			(unsigned long long)number, (unsigned long long)live->hist_last);
	else if (rc == SLUICE_E_CORRUPT)
		finding(audit, "job %llu: its history row %llu is damaged",
			(unsigned long long)number, (unsigned long long)live->hist_last);
	return rc == SLUICE_E_NOT_FOUND || rc == SLUICE_E_CORRUPT ? 0 : rc;
}

static int check_job(struct audit *audit, uint64_t number, const struct job_live *live)
{
	int rc = check_lifecycle(audit, live->lifecycle);

	audit->result->jobs++;
	if (rc == 0 && live->state >= audit->lifecycle->state_count)
		rc = store_damaged("its content is not valid");
	if (rc != 0)
		return rc;
	if (!lifecycle_is_terminal(audit->lifecycle, live->state))
		rc = check_open(audit, number, live);
	else if (live->claim != JOB_NONE)
		finding(audit, "job %llu is %s and still %s", (unsigned long long)number,
			lifecycle_state_name(audit->lifecycle, live->state),
			job_claim_name(live->claim));
	return rc == 0 && live->hist_last != 0 ? check_last_row(audit, number, live) : rc;
}

/* The records that a delivery or job_show reads. */
static int check_records(struct audit *audit, uint64_t number, const struct job_live *live)
{
	const uint64_t rows[] = {live->hist_intent, live->hist_ref, live->hist_report};
	Sluice__JobSubmit *meta = NULL;
	struct job_record record;
	int rc = job_record_get(audit->q->txn, audit->q->gateway, number, &record);

	if (rc == 0)
		rc = job_record_meta(&record, &meta);
	sluice__job_submit__free_unpacked(meta, NULL);
	if (rc == SLUICE_E_CORRUPT || rc == SLUICE_E_NOT_FOUND)
		finding(audit, "job %llu: its submission is %s, so it cannot be delivered",
			(unsigned long long)number,
			rc == SLUICE_E_CORRUPT ? "damaged" : "not there");
	else if (rc != 0)
		return rc;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		Sluice__JobHistoryRow *row = NULL;

		if (rows[i] == live->hist_last) /* check_last_row */
			continue;
		rc = job_history_load(audit->q->txn, audit->q->gateway, rows[i], &row);
		sluice__job_history_row__free_unpacked(row, NULL);
		if (rc == SLUICE_E_CORRUPT)
			finding(audit, "job %llu: its history row %llu is damaged",
				(unsigned long long)number, (unsigned long long)rows[i]);
		else if (rc != 0)
			return rc;
	}
	return 0;
}

/* A damaged record is a finding, and the audit continues with the next job. value: NULL when it
 * cannot be read. */
static int check_value(struct audit *audit, uint64_t number, const struct sluice_slice *value)
{
	size_t findings = audit->result->n_findings;
	uint64_t open = audit->result->open;
	struct job_live live;
	int rc = value != NULL ? job_live_decode(*value, &live) : SLUICE_E_CORRUPT;

	if (rc == SLUICE_E_CORRUPT) {
		audit->result->jobs++;
		audit->q->at.other++;
		finding(audit,
			"job %llu: its live record is damaged, so no operation on it is "
			"possible",
			(unsigned long long)number);
		return 0;
	}
	rc = check_job(audit, number, &live);
	audit->q->at.other += rc == SLUICE_E_CORRUPT && audit->result->open == open;
	if ((rc == 0 || rc == SLUICE_E_CORRUPT) && live.claim != JOB_NONE) {
		int records_err = check_records(audit, number, &live);

		rc = records_err != 0 ? records_err : rc;
	}
	if (rc == SLUICE_E_CORRUPT && audit->result->n_findings == findings)
		finding(audit, "job %llu: a record that it needs is damaged",
			(unsigned long long)number);
	return rc == SLUICE_E_CORRUPT ? 0 : rc;
}

/* From q->at.number on. q->at.other counts the jobs that may be open or not. */
static int audit_jobs(struct audit *audit)
{
	struct query *q = audit->q;
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct key from;
	int rc;

	key_one(&from, q->gateway, q->at.number);
	rc = store_scan_begin(audit->q->txn, STORE_LIVE, key_slice(&from), &scan);
	if (rc != 0)
		return rc;
	while (rc == 0 && !q->again) {
		uint64_t number;
		bool readable;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		readable = rc == 0;
		rc = 0;
		if (!key_one_in(found, q->gateway, &number))
			break;
		if (audit->result->jobs == AUDIT_JOBS_MAX) {
			audit->result->next_number = number;
			break;
		}
		rc = check_value(audit, number, readable ? &value : NULL);
		q->at.number = number + 1;
		q->again = rc == 0 && query_spent(q);
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int audit_counters(struct audit *audit)
{
	uint64_t jobs, open;
	int rc = counter_get(audit->q->txn, audit->q->gateway, COUNTER_JOBS, &jobs);

	if (rc == 0)
		rc = counter_get(audit->q->txn, audit->q->gateway, COUNTER_JOBS_OPEN, &open);
	if (rc != 0)
		return rc;
	if (jobs != audit->result->jobs)
		finding(audit, "the counter of jobs is %llu, but %llu exist",
			(unsigned long long)jobs, (unsigned long long)audit->result->jobs);
	if (open < audit->result->open || open > audit->result->open + audit->q->at.other)
		finding(audit, "the counter of open jobs is %llu, but %llu exist",
			(unsigned long long)open, (unsigned long long)audit->result->open);
	return 0;
}

static int audit_begin(struct query *q, uint64_t after)
{
	Sluice__Audited *result = malloc(sizeof(*result));

	if (result == NULL)
		return SLUICE_E_NOMEM;
	sluice__audited__init(result);
	q->reply->audited = result;
	result->findings = calloc(FINDINGS_MAX, sizeof(*result->findings));
	q->at.number = after;
	return result->findings != NULL ? 0 : SLUICE_E_NOMEM;
}

int audit_query(struct query *q, const Sluice__Audit *m)
{
	struct audit audit = {.q = q,
			      .silent_ms = m->silent_ms != 0 ? m->silent_ms : SILENT_MS_DEFAULT,
			      .orphan_ms = m->orphan_ms != 0 ? m->orphan_ms : ORPHAN_MS_DEFAULT};
	uint64_t index = 0;
	int rc = q->reply->audited == NULL ? audit_begin(q, m->after_number) : 0;

	audit.result = q->reply->audited;
	if (rc == 0)
		rc = audit_jobs(&audit);
	if (rc == 0 && !q->again && m->after_number == 0 && audit.result->next_number == 0) {
		rc = core_index_read(q->txn, q->gateway, &index);
		if (rc == 0 && index == q->reply->index)
			rc = audit_counters(&audit);
	}
	lifecycle_free(audit.lifecycle);
	return rc != 0 ? rc : audit.rc;
}
