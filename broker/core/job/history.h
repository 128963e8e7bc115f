/* SPDX-License-Identifier: Apache-2.0
 * History of jobs: rows of all jobs in order of arrival, each linked to the previous row of its
 * job. */
#ifndef SLUICE_CORE_JOB_HISTORY_H
#define SLUICE_CORE_JOB_HISTORY_H

#include "broker/core/job/job.h"

/* ---- history_pack.c ---- */
/* The row as protobuf; buf has room for job_history_pack_max() bytes. Returns the bytes written.
 * Pure. */
enum { JOB_HISTORY_FIXED_MAX = 19 * (2 + 10) };
size_t job_history_pack_max(const Sluice__JobHistoryRow *row);
size_t job_history_pack(uint8_t *buf, const Sluice__JobHistoryRow *row);

/* ---- history.c ---- */
/* Appends a row and links it; from is "" where no state changed. */
int job_history_append(struct apply *a, struct job *job, const char *from,
		       const struct job_fact *fact) SLUICE_MUST_USE;
struct job_history_row {
	uint64_t job;
	uint64_t previous;	 /* n of the job's previous row; 0: none */
	struct sluice_slice row; /* protobuf JobHistoryRow */
};
/* The part of fixed size; the row follows it. */
enum { JOB_HISTORY_HEAD_BYTES = 8 + 8 };
void job_history_head_encode(uint8_t head[JOB_HISTORY_HEAD_BYTES], uint64_t job, uint64_t previous);
int job_history_decode(struct sluice_slice value,
		       struct job_history_row *ret) SLUICE_MUST_USE; /* CORRUPT */
int job_history_get(struct store_txn *txn, uint32_t gateway, uint64_t n,
		    struct job_history_row *ret) SLUICE_MUST_USE;
/* Over all jobs: the last row at or before *io_n, which is set to its number, also for a damaged
 * row (CORRUPT; 0 if the damage is not in a row). NOT_FOUND: there is none. */
int job_history_at_or_before(struct store_txn *txn, uint32_t gateway, uint64_t *io_n,
			     struct job_history_row *ret) SLUICE_MUST_USE;
/* Fields of a row, read without parsing all of it; 0: absent. */
struct job_history_brief {
	uint64_t time_ms, started_time_ms, memory_peak_bytes;
};
int job_history_brief(struct store_txn *txn, uint32_t gateway, uint64_t n,
		      struct job_history_brief *ret) SLUICE_MUST_USE;
/* Owned, parsed row; NULL in *ret for n = 0. */
int job_history_load(struct store_txn *txn, uint32_t gateway, uint64_t n,
		     Sluice__JobHistoryRow **ret) SLUICE_MUST_USE;

#endif
