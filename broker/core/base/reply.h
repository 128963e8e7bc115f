/* SPDX-License-Identifier: Apache-2.0
 *
 * Parts of every read. Each noun answers its own reads into the reply: fields are allocated with
 * malloc and freed by the free_unpacked call of the caller.
 *
 * A read that reaches the bound of a turn after a record notes in q->at where to continue, sets
 * q->again and returns 0; the rows so far stay in q->reply.
 */
#ifndef SLUICE_CORE_BASE_REPLY_H
#define SLUICE_CORE_BASE_REPLY_H

#include "broker/core/base/name.h"

struct query_at {
	uint32_t phase;
	uint64_t number, other;
	uint64_t of; /* the number that the rows belong to, if any */
	char name[LIMIT_SIZE(NAME_BYTES_MAX) + 1];
	void *state; /* further state; owned */
	void (*state_free)(void *state);
};
struct query {
	struct store_txn *txn;
	uint32_t gateway;
	struct query_clock clock;
	Sluice__Reply *reply; /* code, text, rows: those of all turns so far */
	uint64_t cost_max;    /* of txn: the turn ends at this cost */
	/* the answer is incomplete: another turn follows, on another snapshot */
	bool again;
	struct query_at at; /* where the next turn continues; zero in the first */
};
/* To be called after each record, so that each turn makes progress. */
bool query_spent(const struct query *q);
/* Maximum of rows for a list that asks for max; 0: the broker's default. */
static inline uint32_t rows_max(uint32_t max)
{
	return max == 0 || max > LIMIT_LIST_ROWS_MAX ? (uint32_t)LIMIT_LIST_ROWS_MAX : max;
}
/* Calls each with the numbers of the names after `after`, in name order, at most rows_max(max)
 * times, then sets q->reply->more when there are others. A result of each other than 0 ends the
 * walk; it must not be NOT_FOUND. */
int name_each(struct query *q, enum name_kind kind, const char *after, uint32_t max,
	      int (*each)(struct query *q, uint64_t id, void *user), void *user) SLUICE_MUST_USE;
/* A text for a row of a reply, by text_make() (protocol/text.h): for any stored bytes the result is
 * valid UTF-8. Terminated, malloc'd. NULL: out of memory. */
char *query_text(struct sluice_slice text);
int query_refuse(struct query *q, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif
