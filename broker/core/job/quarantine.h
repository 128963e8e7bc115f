/* SPDX-License-Identifier: Apache-2.0
 * Reports that could not be applied, and reports that arrived before their job ("parked"). */
#ifndef SLUICE_CORE_JOB_QUARANTINE_H
#define SLUICE_CORE_JOB_QUARANTINE_H

#include "broker/core/job/job.h"

int quarantine_put(struct apply *a, const Sluice__JobReport *m, const char *reason) SLUICE_MUST_USE;
/* Whether this report is a retry of one that is in quarantine, among the newest of its job. If so,
 * buf gets the reason. */
int quarantine_find(struct apply *a, const Sluice__JobReport *m, char buf[JOB_REASON_BYTES],
		    bool *ret) SLUICE_MUST_USE;
/* Deletes the rows of a job that is deleted: they must not be attributed to a later job with this
 * id. */
int quarantine_delete(struct apply *a, const char *id) SLUICE_MUST_USE;
/* Parks a report until its job is submitted; once, also for retries. */
int quarantine_park(struct apply *a, const Sluice__JobReport *m) SLUICE_MUST_USE;
/* Whether parked reports of the job are still to be applied. */
int quarantine_waits(struct apply *a, const char *id, bool *ret) SLUICE_MUST_USE;
int quarantine_list(struct query *q, const Sluice__QuarantineList *m) SLUICE_MUST_USE;

/* ---- for unpark.c ---- */
struct quarantine_value {
	uint64_t previous; /* previous row of the same job and kind; 0: none */
	struct sluice_slice row, report;
};
/* The part of fixed size; row and report follow it. */
enum { QUARANTINE_HEAD_BYTES = 8 + 4 };
void quarantine_head_encode(uint8_t head[QUARANTINE_HEAD_BYTES], uint64_t previous,
			    size_t row_bytes);
int quarantine_value_decode(struct sluice_slice value,
			    struct quarantine_value *ret) SLUICE_MUST_USE; /* CORRUPT */
int quarantine_value_get(struct apply *a, uint64_t n, struct quarantine_value *ret) SLUICE_MUST_USE;
/* The newest parked row of the job; 0: none. */
int quarantine_parked_newest(struct apply *a, const char *id, uint64_t *ret) SLUICE_MUST_USE;
/* The next row of a scan: its number, its kind, the row (owned; NULL for a damaged row, which is
 * reported). */
int quarantine_scan_row(struct apply *a, struct store_scan *scan, uint64_t *ret_n, bool *ret_parked,
			Sluice__QuarantineRow **ret) SLUICE_MUST_USE;
/* Row n of the job was deleted: updates counts and names. */
int quarantine_row_gone(struct apply *a, uint64_t n, bool parked, const char *id) SLUICE_MUST_USE;

/* ---- unpark.c ---- */
/* Applies the parked reports of a job that was just submitted, in order of arrival, and removes
 * them: a few at once, more by TICK. */
int quarantine_unpark(struct apply *a, struct job *job) SLUICE_MUST_USE;
int quarantine_unpark_fire(struct apply *a, uint64_t job, uint64_t from,
			   uint32_t *io_work); /* TIMER_UNPARK */

#endif
