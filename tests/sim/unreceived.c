/* SPDX-License-Identifier: Apache-2.0
 * A command whose answer no client will receive, because the broker crashes or the connection
 * breaks first. Whether it was applied is unknown, and the oracle gets that as the
 * result. */
#include "tests/sim/sim.h"

void forget(struct sim *s, struct op *op)
{
	op->open = false;
	if (op->wild || op->lost || (op->type == COMMAND_PUBLISH && op->flag) ||
	    (op->type == COMMAND_SESSION_CLOSE && op->number < 0)) {
		return; /* for the oracle it was not sent, or nobody waits for it */
	} else if (op->type == COMMAND_SESSION_OPEN && op->number >= CLIENTS) {
		s->frees[op->number - CLIENTS].opening = false;
	} else if (op->type == COMMAND_SESSION_CLOSE && op->number >= CLIENTS) {
		s->frees[op->number - CLIENTS].closing = false;
		oracle_session_close_unknown(s->oracle, s->frees[op->number - CLIENTS].session);
	} else if (op->type == COMMAND_PUBLISH || op->type == COMMAND_PRODUCER_OPEN) {
		s->publishers[op->number].in_flight = false;
	} else if (op->type == COMMAND_ACK) {
		oracle_settle_unknown(s->oracle, &op->settle);
	} else if (op->type == COMMAND_TXN) {
		s->txn.in_flight = false;
		s->txn.was_unknown = true;
		if (s->txn.settle.token != 0)
			oracle_settle_unknown(s->oracle, &s->txn.settle);
		if (s->txn.job >= 0)
			oracle_job_unknown(s->oracle, s->txn.job);
	} else if (op->type == COMMAND_QUEUE_PURGE) {
		oracle_purge_unknown(s->oracle);
	} else if (op->type == COMMAND_CURSOR_SET) {
		oracle_cursor_unknown(s->oracle, op->offset, op->flag);
	} else if (op->type == COMMAND_SESSION_OPEN) {
		s->clients[op->number].opening = false;
	} else if (op->type == COMMAND_SESSION_CLOSE) {
		s->clients[op->number].closing = false;
		oracle_session_close_unknown(s->oracle, s->clients[op->number].session);
	} else if (op->type == COMMAND_SOURCE_SEEN) {
		oracle_source_unknown(s->oracle, s->clients[op->number].source, op->seq);
	} else if (op->type >= COMMAND_JOB_SUBMIT) {
		oracle_job_unknown(s->oracle, op->number);
	}
}
