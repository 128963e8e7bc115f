/* SPDX-License-Identifier: Apache-2.0
 * Answers that show a commit. For conn.c, door.c, wait.c and io/release.c. */
#ifndef SLUICE_NET_ANSWER_H
#define SLUICE_NET_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;
struct io;
struct job_waited; /* protocol.h */

struct answer {
	struct answer *prev, *next;
	struct answer *conn_prev, *conn_next; /* of its connection */
	uint64_t number;		      /* given when this release was handled */
	struct conn *conn;
	uint64_t security; /* of under_way_add */
	uint64_t corr;
	int code;
	uint8_t *bytes; /* a packed Reply; NULL: none */
	size_t len;
	const char *text; /* of a wait, in bytes behind the Reply; NULL: of something else */
	size_t cost;	  /* memory */
};

/* What an answer that shows this commit has to wait for: also for the connection's answers before
 * it. number: of engine_read_begin; 0: it shows none. */
uint64_t answer_number(const struct conn *conn, uint64_t number);
bool answer_is_due(const struct conn *conn, uint64_t number); /* it does not have to wait */
/* Passes an answer to conn->protocol->answer: now, or behind the last effect of release `number`
 * and before the next release. Those of one connection come in the order of these calls. takes
 * reply. */
void answer_when_released(struct conn *conn, uint64_t corr, int code, uint8_t *reply, size_t len,
			  uint64_t number);
/* The same for conn->protocol->waited; waited is borrowed. */
void answer_wait(struct conn *conn, uint64_t tag, const struct job_waited *waited, uint64_t number);
void answers_flush(struct io *io); /* those whose release was handled */
void answers_drop(struct conn *conn);

#endif
