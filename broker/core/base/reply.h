/* SPDX-License-Identifier: Apache-2.0
 *
 * Parts of every read. Each noun answers its own reads into the reply: fields are allocated with malloc
 * and freed by the free_unpacked call of the caller.
 *
 * A read that meets the bound of a turn behind a record notes in q->at where it goes on, sets q->again
 * and returns 0; the rows so far stay in q->reply.
 */
#ifndef SLUICE_CORE_BASE_REPLY_H
#define SLUICE_CORE_BASE_REPLY_H

#include "broker/core/base/name.h"

struct query_at {
	uint32_t phase;
	uint64_t number, other;
	uint64_t of; /* whose rows they are, where that is a number */
	char name[LIMIT_SIZE(NAME_BYTES_MAX) + 1];
	void *state; /* more than that; owned */
	void (*state_free)(void *state);
};
struct query {
	struct store_txn *txn;
	uint32_t gateway;
	struct query_clock clock;
	Sluice__Reply *reply; /* code, text, rows: those of all turns so far */
	uint64_t cost_max;    /* of txn: beyond it the turn ends */
	bool again;	      /* the answer is not complete: another turn, on another snapshot */
	struct query_at at;   /* where that one goes on; zero in the first */
};
/* To be asked behind each record: so each turn gets on. */
bool query_spent(const struct query *q);
/* How many rows a list that asks for max gives: 0 is the broker's choice. */
static inline uint32_t rows_max(uint32_t max)
{
	return max == 0 || max > LIMIT_LIST_ROWS_MAX ? (uint32_t)LIMIT_LIST_ROWS_MAX : max;
}
/* Calls each with the numbers of the names after `after`, in name order, at most rows_max(max) times, and then
 * q->reply->more when there are others. What each returns ends it; NOT_FOUND may not be that. */
int name_each(struct query *q, enum name_kind kind, const char *after, uint32_t max,
	      int (*each)(struct query *q, uint64_t id, void *user), void *user) SLUICE_MUST_USE;
/* A text of a reply row, by text_make() (protocol/text.h): whatever bytes are stored, a reader can decode the row.
 * Terminated, malloc'd. NULL: out of memory. */
char *query_text(struct sluice_slice text);
int query_refuse(struct query *q, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
