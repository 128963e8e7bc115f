/* SPDX-License-Identifier: Apache-2.0
 * Applies the parked reports of a job that was submitted, some at once, the rest by TICK
 * (quarantine.c explains parking). */
#include "broker/core/base/name.h"
#include "broker/core/base/timer.h"
#include "broker/core/base/topo.h"
#include "broker/core/job/quarantine.h"

enum { UNPARK_AT_ONCE = 64, CHECKS_PER_WORK = 16 };

/* A parked report has no lease: its token, from before the job, is ignored. */
static int unpark_one(struct apply *a, struct job *job, uint64_t n)
{
	struct outcome ignored = {0};
	Sluice__JobReport *report = NULL;
	struct quarantine_value value;
	struct key key;
	int rc = quarantine_value_get(a, n, &value);

	if (rc == 0)
		report = record_unpack(&sluice__job_report__descriptor, value.report, &rc);
	if (rc != 0)
		return rc;
	report->token = 0;
	report->release = false;
	key_one(&key, a->gateway, n);
	rc = store_del(a->txn, STORE_QUAR, key_slice(&key));
	if (rc == 0)
		rc = quarantine_row_gone(a, n, true, report->job);
	if (rc == 0)
		rc = job_report_on(a, job, report, &ignored);
	sluice__job_report__free_unpacked(report, NULL);
	return rc;
}

int quarantine_unpark(struct apply *a, struct job *job)
{
	uint64_t n, numbers[UNPARK_AT_ONCE];
	size_t count = 0;
	int rc = quarantine_parked_newest(a, job->id, &n);

	/* Newest first. */
	while (rc == 0 && n != 0) {
		struct quarantine_value value;

		rc = quarantine_value_get(a, n, &value);
		if (rc != 0 && rc != SLUICE_E_CORRUPT)
			break;
		/* The chain ends at a damaged row: TICK finds the rows before it. */
		if (count == UNPARK_AT_ONCE || rc == SLUICE_E_CORRUPT)
			return timer_set(a, a->mono_ms, TIMER_UNPARK, job->number, 0);
		numbers[count++] = n;
		n = value.previous;
	}
	if (rc == SLUICE_E_NOT_FOUND)
		rc = 0;
	while (rc == 0 && count > 0)
		rc = unpark_one(a, job, numbers[--count]);
	return rc;
}

/* The next parked rows of the job from *io_from on, oldest first; *io_from: where to continue, 0
 * when there are no more. */
static int parked_next(struct apply *a, const char *id, uint64_t *io_from,
		       uint64_t numbers[UNPARK_AT_ONCE], size_t *ret_count, uint32_t *io_work)
{
	bool full = false;
	struct store_scan *scan;
	struct key key;
	int rc;

	*ret_count = 0;
	key_one(&key, a->gateway, *io_from);
	rc = store_scan_begin(a->txn, STORE_QUAR, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	for (uint32_t checked = 1; rc == 0 && !full; checked++) {
		Sluice__QuarantineRow *row;
		bool parked;

		rc = quarantine_scan_row(a, scan, io_from, &parked, &row);
		full = *ret_count == UNPARK_AT_ONCE || *io_work == 0;
		if (rc == 0 && !full && parked && strcmp(row->job, id) == 0) {
			numbers[(*ret_count)++] = *io_from;
			--*io_work;
		} else if (rc == 0 && !full && checked % CHECKS_PER_WORK == 0) {
			--*io_work;
		}
		sluice__quarantine_row__free_unpacked(row, NULL);
	}
	store_scan_end(scan);
	if (rc == SLUICE_E_NOT_FOUND)
		*io_from = 0;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int unpark_some(struct apply *a, struct job *job, uint64_t *io_from, uint32_t *io_work)
{
	uint64_t numbers[UNPARK_AT_ONCE], newest;
	size_t count = 0;
	int rc = quarantine_parked_newest(a, job->id, &newest);

	if (rc != 0 || newest == 0) {
		*io_from = 0;
		return rc;
	}
	rc = parked_next(a, job->id, io_from, numbers, &count, io_work);
	for (size_t i = 0; rc == 0 && i < count; i++)
		rc = unpark_one(a, job, numbers[i]);
	if (rc == 0 && *io_from == 0)
		rc = quarantine_parked_newest(a, job->id, &newest);
	/* All readable reports are applied: they do not wait for a damaged one. */
	if (rc == 0 && *io_from == 0 && newest != 0)
		rc = name_del(a, NAME_PARKED, slice_text(job->id));
	return rc == 0 && count > 0 ? job_store(a, job) : rc;
}

int quarantine_unpark_fire(struct apply *a, uint64_t number, uint64_t from, uint32_t *io_work)
{
	struct job_record record;
	Sluice__JobSubmit *meta;
	struct job job;
	int rc = job_live_get(a->txn, a->gateway, number, &job.live);

	/* Deleted meanwhile: the remaining rows wait for the next job with this id. */
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	rc = job_load(a, number, &job);
	if (rc == 0)
		rc = job_record_get(a->txn, a->gateway, number, &record);
	if (rc == 0)
		rc = job_record_meta(&record, &meta);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	job.id = meta->job;
	rc = unpark_some(a, &job, &from, io_work);
	sluice__job_submit__free_unpacked(meta, NULL);
	return rc == 0 && from != 0 ? timer_set(a, a->mono_ms, TIMER_UNPARK, number, from) : rc;
}
