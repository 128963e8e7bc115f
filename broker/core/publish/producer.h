/* SPDX-License-Identifier: Apache-2.0
 *
 * Producers: exactly-once on retry. One hot cell keeps epoch, last sequence and the answers that
 * the client has not settled.
 *
 * The next sequence number is max(last, settled) + 1: numbers that the client has settled are not
 * missing, even when admission refused them before. An answer is kept when it is final: done, or a
 * refusal that a retry would meet again. A refusal that may clear by itself (QUEUE_FULL, BUSY)
 * leaves the sequence number free.
 *
 * A producer belongs to the session that opened it: numbers start at 1, and with another's number a
 * session would record answers for the owner's events. It changes its owner by its name, or by the
 * secret from its opening, and then gets a new epoch; unsettled answers stay, so that a client that
 * lost its session can settle its events.
 */
#ifndef SLUICE_CORE_PRODUCER_H
#define SLUICE_CORE_PRODUCER_H

#include "broker/core/base/state.h"

struct producer_call {
	uint64_t producer; /* 0: no deduplication */
	uint32_t epoch;
	uint64_t first_seq;
	uint32_t count; /* sequence numbers; a transaction uses one */
	uint64_t settled_seq;
};

/* Refuses, or fills out with the first answer (out->duplicate), or leaves out unchanged: a new
 * call, to be ended with producer_end. */
int producer_begin(struct apply *a, const struct producer_call *call,
		   struct outcome *out) SLUICE_MUST_USE;
int producer_end(struct apply *a, const struct producer_call *call,
		 const struct outcome *out) SLUICE_MUST_USE;

/* TIMER_PRODUCER_IDLE. */
int producer_idle_fire(struct apply *a, uint64_t producer, uint64_t sub, uint32_t *io_work);

#endif
