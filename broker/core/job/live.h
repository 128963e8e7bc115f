/* SPDX-License-Identifier: Apache-2.0
 *
 * A job's live record: the state that changes during its life, in 136 fixed bytes, so that a
 * transition rewrites one small cell and appends one history row. Texts (tag, scheduler reference,
 * evidence) are in history rows that the record points at. Records of format 1 (90 bytes) are read,
 * and rewritten as format 2 when their job changes; the length distinguishes them.
 *
 * Invariants: claim is NONE exactly when the state is terminal. READY has a queue entry; LEASED has
 * `holder` and an `owned` entry of that session; ORPHANED has an OWNED_ORPHAN entry; GATED has a
 * timer at `due_mono_ms`. `token` keeps its value after the lease ended, so that a retry of the
 * previous holder is recognised.
 */
#ifndef SLUICE_CORE_JOB_LIVE_H
#define SLUICE_CORE_JOB_LIVE_H

#include "broker/core/base/apply.h"

enum job_claim {
	JOB_NONE = 0,
	JOB_READY,
	JOB_LEASED,
	JOB_ORPHANED,
	JOB_GATED,
	JOB_HELD,
	JOB_CLAIM_COUNT
};
/* 4, 8, 16 and 32 are reserved: an array, hold, reset when ended, watched by gates. */
enum job_flag {
	JOB_CANCEL = 1, /* requested */
	JOB_INTENT = 2, /* recorded in this attempt */
	/* the last report's row has a start time or peak memory, which the next row repeats */
	JOB_MEASURED = 64,
	JOB_FLAGS_ALL = JOB_CANCEL | JOB_INTENT | JOB_MEASURED
};
enum { JOB_LIVE_1_BYTES = 90, JOB_LIVE_BYTES = 136 };

struct job_live {
	uint8_t state; /* position in its lifecycle */
	uint8_t claim; /* enum job_claim */
	uint8_t flags; /* enum job_flag */
	uint8_t priority;
	uint32_t attempt; /* from 1 */
	uint32_t lifecycle;
	uint64_t queue;
	uint64_t token;
	uint64_t holder; /* session; of an orphan: the last holder */
	uint64_t entry;	 /* READY: sequence number in its queue */
	/* GATED; of an ended job: its end, a stamp of age.h, 0 in stores of older versions */
	uint64_t due_mono_ms;
	/* that can judge this attempt: of the intent; before one, of the lease; 0: any */
	uint64_t source;
	uint64_t seen; /* bit n: state n was entered in this attempt; 0: not known (format 1) */
	uint64_t hist_last;   /* newest history row */
	uint64_t hist_intent; /* of this attempt: its evidence is the tag; 0: none */
	uint64_t hist_ref;    /* of this attempt: the row with the scheduler reference; 0: none */
	uint64_t hist_report; /* of this attempt: the last report; 0: none */
	uint64_t changed_ms;  /* wall time of the last change of state */
	/* 0 until gates, shares and limits exist. */
	uint32_t gates_unmet, gates_open;
	uint64_t share_tag, waits_in;
	uint32_t hist_count;
};

/* Thread-safe. get: NOT_FOUND, CORRUPT. */
int job_live_get(struct store_txn *txn, uint32_t gateway, uint64_t job,
		 struct job_live *ret) SLUICE_MUST_USE;
int job_live_put(struct apply *a, uint64_t job, const struct job_live *live) SLUICE_MUST_USE;
int job_live_decode(struct sluice_slice value, struct job_live *ret) SLUICE_MUST_USE;
/* Why a decoded record cannot have been written by core, as a text; NULL: it is valid. */
const char *job_live_fault(const struct job_live *live);
void job_live_encode(uint8_t *buf, const struct job_live *live); /* JOB_LIVE_BYTES */
const char *job_claim_name(uint8_t claim);			 /* as in JobInfo.claim */

/* The job record: written at submit. Borrowed until the next write. */
struct job_record {
	uint64_t submit_ms;	  /* wall */
	uint64_t index;		  /* of the submit */
	struct sluice_slice meta; /* protobuf JobSubmit without its payload */
	struct sluice_slice payload;
};
/* The part of fixed size; meta and payload follow it. */
enum { JOB_RECORD_HEAD_BYTES = 8 + 8 + 4 };
void job_record_head_encode(uint8_t head[JOB_RECORD_HEAD_BYTES], const struct job_record *record);
int job_record_decode(struct sluice_slice value,
		      struct job_record *ret) SLUICE_MUST_USE; /* CORRUPT */
int job_record_get(struct store_txn *txn, uint32_t gateway, uint64_t job,
		   struct job_record *ret) SLUICE_MUST_USE;
int job_record_put(struct apply *a, uint64_t job, const Sluice__JobSubmit *submit) SLUICE_MUST_USE;
/* The parsed meta: owned, sluice__job_submit__free_unpacked. CORRUPT. */
int job_record_meta(const struct job_record *record, Sluice__JobSubmit **ret) SLUICE_MUST_USE;

#endif
