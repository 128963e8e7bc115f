/* SPDX-License-Identifier: Apache-2.0
 * Replies that wait for a release. For conn.c, io/io.c, and the protocols
 * (answer_when_released). */
#ifndef SLUICE_NET_ANSWER_H
#define SLUICE_NET_ANSWER_H

#include <stddef.h>
#include <stdint.h>

struct conn;
struct io;

struct answer {
	struct answer *prev, *next;
	struct answer *conn_prev, *conn_next; /* of its connection */
	uint64_t sequence;		      /* sent when this release was handled */
	struct conn *conn;
	uint32_t corr;
	uint8_t *bytes; /* the packed Reply */
	size_t len;
};

/* Passes a packed Reply to conn->protocol->answer, now or when the release `sequence` has been
 * handled. takes reply. */
void answer_when_released(struct conn *conn, uint32_t corr, uint8_t *reply, size_t len,
			  uint64_t sequence);
void answers_flush(struct io *io); /* those whose release was handled */
void answers_drop(struct conn *conn);

#endif
