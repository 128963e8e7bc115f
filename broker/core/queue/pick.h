/* SPDX-License-Identifier: Apache-2.0
 * Selects the ready entries of a claim: exceptions first, since they are older, then from head
 * on. */
#ifndef SLUICE_CORE_QUEUE_PICK_H
#define SLUICE_CORE_QUEUE_PICK_H

#include "broker/core/queue/record.h"

/* Limit on the size of a delivery; one item is always granted. Keeps frames far below
 * FRAME_BYTES_MAX. */
enum { CLAIM_BYTES_MAX = 1 << 20, DELIVER_ITEM_PREFIX_BYTES = 2 + 8 };
/* Damaged items that one claim skips. */
enum { SET_ASIDE_MAX = 64 };
/* A step of RESUME checks at most this many of a session's jobs or of a queue's grants of any
 * session. */
enum { RESUME_CHECK_MAX = 4096 };

struct picked {
	uint64_t seq[LIMIT_SIZE(GRANT_ITEMS_MAX)];
	uint32_t count;
	uint64_t bytes; /* of the payload */
	uint32_t set_aside;
	uint32_t dropped; /* purged items that were not swept yet */
	/* steps over delayed items that lie in place, in a store of an older version */
	uint32_t stepped;
};

static inline uint32_t claim_max(const struct cmd_claim *m)
{
	return m->max < LIMIT_GRANT_ITEMS_MAX ? m->max : (uint32_t)LIMIT_GRANT_ITEMS_MAX;
}

void picked_clear(struct picked *picked);
/* Whether the claim picked, skipped or dropped an entry: the next claim continues there. */
bool picked_progressed(const struct picked *picked, uint32_t taken);
/* Both add to *picked, up to max entries in all, and change the cell, which the caller stores. */
int pick_exceptions(struct apply *a, uint64_t queue, struct queue_cell *cell, uint32_t max,
		    struct picked *picked) SLUICE_MUST_USE;
int pick_in_order(struct apply *a, uint64_t queue, struct queue_cell *cell, uint32_t max,
		  struct picked *picked) SLUICE_MUST_USE;

/* Reports that an item, a lease or a job of the queue is damaged and stays as it is: for a CLAIM to
 * its consumer, for other commands to the broker's log. store_last_error() must name the record. */
int claim_report_damaged(struct apply *a, uint64_t queue, uint64_t seq) SLUICE_MUST_USE;
/* The same for an entry that a consumer resumes under a token; seq is the token itself when the
 * grant is damaged. */
int claim_report_damaged_grant(struct apply *a, uint64_t queue, uint64_t seq,
			       uint64_t token) SLUICE_MUST_USE;

#endif
