/* SPDX-License-Identifier: Apache-2.0
 *
 * What the broker promised, as a naive model that shares nothing with it: a stream is a list, a queue is a list with holders, a
 * job is a record. It is told what clients asked, what they were answered and what reads show. "Unknown" is what was
 * sent and not answered. The first broken promise is kept as a text. One thread; never blocks; all arrays have fixed bounds.
 */
#ifndef SLUICE_TESTS_SIM_ORACLE_H
#define SLUICE_TESTS_SIM_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

enum { ORACLE_EVENTS_MAX = 16384, ORACLE_ITEMS_MAX = 16384, ORACLE_JOBS_MAX = 64, ORACLE_PRODUCERS_MAX = 4 };

struct oracle;

struct oracle *oracle_create(uint32_t lease_ms, uint32_t attempts_max); /* owned; NULL: out of memory */
void oracle_destroy(struct oracle *oracle);				/* accepts NULL */
const char *oracle_why(const struct oracle *oracle);			/* NULL: all promises were kept */
uint64_t oracle_hash(const struct oracle *oracle);	  /* of all that it was told, in order */
void oracle_time(struct oracle *oracle, uint64_t now_ms); /* before the other calls of a step */

/* Producers write their own numbers 1, 2, 3 ... as bodies. */
void oracle_published(struct oracle *oracle, int producer, uint64_t seq, uint32_t count, uint64_t offset);
void oracle_read_begin(struct oracle *oracle);
void oracle_read(struct oracle *oracle, uint64_t offset, int producer, uint64_t seq);
void oracle_read_end(struct oracle *oracle, uint64_t sent_max[ORACLE_PRODUCERS_MAX]);

/* Items are named by their sequence in the queue. crashes: how many there were between the first sending of the put and its answer. */
void oracle_put(struct oracle *oracle, uint64_t item, uint64_t body, uint32_t crashes);
void oracle_granted(struct oracle *oracle, uint64_t item, uint64_t body, uint64_t token);
enum oracle_settle { ORACLE_ACK, ORACLE_NACK, ORACLE_EXTEND };
void oracle_settled(struct oracle *oracle, uint64_t item, uint64_t token, enum oracle_settle how,
		    uint32_t value_ms, bool applied);
void oracle_settle_unknown(struct oracle *oracle, uint64_t item, uint64_t token, enum oracle_settle how,
			   uint32_t value_ms);
struct oracle_counts {
	uint64_t put, ready, leased, delayed, acked, dead;
};
void oracle_counts(struct oracle *oracle, const struct oracle_counts *shown, uint64_t put_unknown);
void oracle_drained(struct oracle *oracle,
		    const struct oracle_counts *shown); /* after all came due and was acked */

void oracle_job_submitted(struct oracle *oracle, int job);
void oracle_job_claimed(struct oracle *oracle, int job, uint64_t token, uint32_t attempt, bool orphan);
void oracle_job_reported(struct oracle *oracle, int job, uint64_t token, uint32_t attempt, const char *state,
			 bool applied);
void oracle_job_cancelled(struct oracle *oracle, int job, bool terminal);
void oracle_job_reset(struct oracle *oracle, int job, uint32_t attempt);
void oracle_job_unknown(struct oracle *oracle, int job);
void oracle_job_shown(struct oracle *oracle, int job, bool exists, const char *state, bool terminal,
		      uint32_t attempt, uint64_t token, const char *claim);

/* The broker crashed: leases may run a whole lease longer, and grants may have been made that nobody heard of. */
void oracle_crashed(struct oracle *oracle);

#endif
