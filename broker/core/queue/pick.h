/* SPDX-License-Identifier: Apache-2.0
 *
 * Which ready entries a claim takes: exceptions first, since they are older, then head onward.
 */
#ifndef SLUICE_CORE_QUEUE_PICK_H
#define SLUICE_CORE_QUEUE_PICK_H

#include "broker/core/queue/record.h"

/* A delivery grows to this before it is cut; one item is always granted. Keeps frames far below
 * FRAME_BYTES_MAX. */
enum { CLAIM_BYTES_MAX = 1 << 20, DELIVER_ITEM_PREFIX_BYTES = 2 + 8 };
/* Damaged items that one claim skips. */
enum { SET_ASIDE_MAX = 64 };
/* A step of RESUME checks so many of a session's jobs or of a queue's grants, whosever they are. */
enum { RESUME_CHECK_MAX = 4096 };

struct picked {
	uint64_t seq[LIMIT_SIZE(GRANT_ITEMS_MAX)];
	uint32_t count;
	uint64_t bytes; /* of the payload */
	uint32_t set_aside;
	uint32_t dropped; /* what was purged and not swept yet */
	uint32_t stepped; /* over what is delayed and lies in place, in a store of before */
};

static inline uint32_t claim_max(const struct cmd_claim *m)
{
	return m->max < LIMIT_GRANT_ITEMS_MAX ? m->max : (uint32_t)LIMIT_GRANT_ITEMS_MAX;
}

void picked_clear(struct picked *picked);
/* Whether it got on, whether it picked something or not: the next claim goes on there. */
bool picked_got_on(const struct picked *picked, uint32_t taken);
/* Both add to *picked, up to max entries in all, and change the cell, which the caller stores. */
int pick_exceptions(struct apply *a, uint64_t queue, struct queue_cell *cell, uint32_t max,
		    struct picked *picked) SLUICE_MUST_USE;
int pick_in_order(struct apply *a, uint64_t queue, struct queue_cell *cell, uint32_t max,
		  struct picked *picked) SLUICE_MUST_USE;

/* Tells that an item, a lease or a job of the queue is damaged and left as it is: a CLAIM the consumer that it is for, any other command
 * the broker's log. store_last_error() has just named the record. */
int claim_report_damaged(struct apply *a, uint64_t queue, uint64_t seq) SLUICE_MUST_USE;
/* The same of what a consumer resumes under a token; seq is the token itself where the grant is damaged. */
int claim_report_damaged_grant(struct apply *a, uint64_t queue, uint64_t seq, uint64_t token) SLUICE_MUST_USE;

#endif
