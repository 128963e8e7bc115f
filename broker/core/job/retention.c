/* SPDX-License-Identifier: Apache-2.0
 *
 * How long finished jobs and their history are kept. Each end sets a timer; firing checks the
 * record, so a job that was reset, or a longer retention, only sets it again. A new retention walks
 * all jobs by TICK (the timer with job 0), a few at a time.
 *
 * A deleted job leaves nothing: its id may be submitted again as a new job. Its history is a chain
 * from the newest row back, which a damaged row breaks: the rows before it are searched for when
 * the job is gone, by timers of the job's number whose sub is the row to continue at
 * (job_retention_fire).
 */
#include "broker/core/base/age.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/timer.h"
#include "broker/core/job/history.h"
#include "broker/core/job/quarantine.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/pick.h"

enum {
	SWEEP_JOBS_AT_ONCE = 64,
	ROWS_MIN = 16, /* removed under any budget, so that every firing makes progress */
	CHECKS_PER_WORK = 16,
};

int job_retention_apply(struct apply *a, const Sluice__JobRetention *m, struct outcome *out)
{
	uint64_t keep_ms = m->keep_ms < UINT64_MAX / 2 ? m->keep_ms : UINT64_MAX / 2;
	int rc = counter_set(a, COUNTER_JOB_KEEP_MS, keep_ms + 1);

	(void)out;
	return rc == 0 && keep_ms != 0 ? timer_set(a, a->mono_ms, TIMER_JOB_RETENTION, 0, 1) : rc;
}

static int row_del(struct apply *a, uint64_t n, uint32_t *io_work)
{
	struct key key;

	if (*io_work > 0)
		--*io_work;
	key_one(&key, a->gateway, n);
	return store_del(a->txn, STORE_HIST, key_slice(&key));
}

static int search_before(struct apply *a, uint64_t number, uint64_t n)
{
	return n > 1 ? timer_set(a, a->mono_ms, TIMER_JOB_RETENTION, number, n - 1) : 0;
}

/* The row that live->hist_last points at cannot be read: the row before it is not known. */
static int delete_damaged(struct apply *a, uint64_t number, const struct job_live *live,
			  uint32_t *io_work)
{
	int rc = claim_report_damaged(a, live->queue, number);

	if (rc == 0)
		rc = row_del(a, live->hist_last, io_work);
	if (rc == SLUICE_E_NOT_FOUND) /* it is missing */
		rc = 0;
	return rc == 0 && live->hist_count > 1 ? search_before(a, number, live->hist_last) : rc;
}

/* Deletes history rows from the newest back, within the budget; live->hist_last stays at the first
 * remaining one. */
static int delete_history(struct apply *a, uint64_t number, struct job_live *live,
			  uint32_t *io_work)
{
	for (uint32_t rows = 0; live->hist_last != 0 && (rows < ROWS_MIN || *io_work > 0); rows++) {
		struct job_history_row row = {0};
		int rc = job_history_get(a->txn, a->gateway, live->hist_last, &row);

		if (rc == SLUICE_E_NOT_FOUND)
			rc = store_damaged("it is missing");
		if (rc == 0)
			rc = row_del(a, live->hist_last, io_work);
		else if (rc == SLUICE_E_CORRUPT)
			rc = delete_damaged(a, number, live, io_work);
		if (rc != 0)
			return rc;
		live->hist_last = row.previous;
		live->hist_count = row.previous == 0	  ? 0
				   : live->hist_count > 1 ? live->hist_count - 1
							  : 1;
	}
	live->hist_intent = live->hist_ref = live->hist_report =
		0; /* may be deleted; the job is being removed */
	return 0;
}

/* Deletes the rows of a removed job, from row n back: by their chain, once one of them is found.
 * Damaged rows stay: their job is not known. */
static int delete_orphaned_rows(struct apply *a, uint64_t number, uint64_t n, uint32_t *io_work)
{
	for (uint32_t checked = 1; n != 0; checked++) {
		struct job_history_row row;
		int rc;

		if (checked % CHECKS_PER_WORK == 0 && *io_work == 0)
			return timer_set(a, a->mono_ms, TIMER_JOB_RETENTION, number, n);
		if (checked % CHECKS_PER_WORK == 0)
			--*io_work;
		rc = job_history_at_or_before(a->txn, a->gateway, &n, &row);
		if (rc == 0 && row.job == number) {
			rc = row_del(a, n, io_work);
			n = row.previous;
		} else if (rc == 0 || (rc == SLUICE_E_CORRUPT && n != 0)) {
			rc = 0;
			n--;
		}
		if (rc != 0)
			return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	}
	return 0;
}

/* What leads to the job by its id. A job record that cannot be read leaves its id unknown: that
 * stays taken, which is logged, and its rows in the quarantine stay, too. */
static int delete_names(struct apply *a, uint64_t number, const struct job_live *live)
{
	struct job_record record;
	Sluice__JobSubmit *meta;
	int rc = job_record_get(a->txn, a->gateway, number, &record);

	if (rc == 0)
		rc = job_record_meta(&record, &meta);
	if (rc == SLUICE_E_CORRUPT || rc == SLUICE_E_NOT_FOUND) {
		rc = store_damaged(
			"it cannot be read; its job is forgotten, the job's id stays taken");
		return rc == SLUICE_E_CORRUPT ? claim_report_damaged(a, live->queue, number) : rc;
	}
	if (rc != 0)
		return rc;
	rc = name_del(a, NAME_JOB, slice_text(meta->job));
	if (rc == 0)
		rc = quarantine_delete(a, meta->job);
	sluice__job_submit__free_unpacked(meta, NULL);
	return rc;
}

static int delete_records(struct apply *a, uint64_t number, const struct job_live *live)
{
	struct key key;
	int rc = delete_names(a, number, live);

	key_one(&key, a->gateway, number);
	if (rc == 0)
		rc = store_del(a->txn, STORE_JOB, key_slice(&key));
	if (rc == SLUICE_E_NOT_FOUND) /* it is missing, and that was reported */
		rc = 0;
	if (rc == 0)
		rc = store_del(a->txn, STORE_LIVE, key_slice(&key));
	if (rc == 0)
		rc = lifecycle_jobs_add(a, live->lifecycle, -1);
	return rc != 0 ? rc : counter_add(a, COUNTER_JOBS, -1);
}

/* One finished job: deletes it when it is due, else sets its timer. */
static int retire(struct apply *a, struct job *job, uint64_t keep_ms, uint32_t *io_work)
{
	uint64_t due;
	int rc;

	if (!job_is_terminal(job) || keep_ms == UINT64_MAX)
		return 0;
	due = job_retention_due(a, &job->live, keep_ms);
	if (due <= a->mono_ms && age_doubt(a) != 0)
		due = age_doubt(a);
	if (due > a->mono_ms)
		return timer_set(a, due, TIMER_JOB_RETENTION, job->number, job->live.attempt);
	rc = delete_history(a, job->number, &job->live, io_work);
	if (rc == 0 && job->live.hist_last == 0)
		return delete_records(a, job->number, &job->live);
	if (rc == 0)
		rc = job_store(a, job);
	return rc != 0 ? rc
		       : timer_set(a, a->mono_ms, TIMER_JOB_RETENTION, job->number,
				   job->live.attempt);
}

/* The numbers of the next jobs from `from` on; *ret_next is 0 at the end. */
static int next_jobs(struct apply *a, uint64_t from, uint64_t *numbers, uint32_t max,
		     uint32_t *ret_count, uint64_t *ret_next)
{
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct key key;
	int rc;

	*ret_count = 0;
	*ret_next = 0;
	key_one(&key, a->gateway, from);
	rc = store_scan_begin(a->txn, STORE_LIVE, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		uint64_t number;

		if (!key_one_in(found, a->gateway, &number))
			break;
		if (*ret_count == max) {
			*ret_next = number;
			break;
		}
		numbers[(*ret_count)++] = number;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int sweep(struct apply *a, uint64_t from, uint64_t keep_ms, uint32_t *io_work)
{
	uint64_t numbers[SWEEP_JOBS_AT_ONCE];
	uint32_t count = 0, done;

	while (from != 0 && *io_work > 0) {
		uint64_t next;
		int rc = next_jobs(a, from, numbers, SWEEP_JOBS_AT_ONCE, &count, &next);

		for (done = 0; rc == 0 && *io_work > 0 && done < count; done++) {
			struct job job;

			--*io_work;
			rc = job_load(a, numbers[done], &job);
			if (rc == 0)
				rc = retire(a, &job, keep_ms, io_work);
		}
		if (rc != 0)
			return rc;
		from = done < count ? numbers[done] : next;
	}
	return from != 0 ? timer_set(a, a->mono_ms, TIMER_JOB_RETENTION, 0, from) : 0;
}

/* Job 0: the sweep after a new retention; `sub` is where it continues. Else `sub` is the attempt
 * whose end set the timer; for a removed job, the history row from which to search for its
 * remaining rows (a timer that outlived its job has an attempt there, and checks the first rows in
 * vain). */
int job_retention_fire(struct apply *a, uint64_t number, uint64_t sub, uint32_t *io_work)
{
	struct job job;
	uint64_t keep_ms;
	int rc = job_retention_keep_ms(a, &keep_ms);

	if (rc != 0)
		return rc;
	if (number == 0)
		return keep_ms == UINT64_MAX ? 0 : sweep(a, sub, keep_ms, io_work);
	rc = job_live_get(a->txn, a->gateway, number, &job.live);
	if (rc == SLUICE_E_NOT_FOUND)
		return delete_orphaned_rows(a, number, sub, io_work);
	if (rc != 0)
		return rc;
	rc = job_load(a, number, &job);
	return rc == 0 && job.live.attempt == sub ? retire(a, &job, keep_ms, io_work) : rc;
}
