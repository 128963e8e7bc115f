/* SPDX-License-Identifier: Apache-2.0
 * Requests that wait for the commands before them: a connection reads its own writes. For door.c,
 * conn.c, and what answers commands (order_due). */
#ifndef SLUICE_NET_ORDER_H
#define SLUICE_NET_ORDER_H

#include "protocol/message_block.h"
#include "sluice.pb-c.h"
#include "sluice/error.h"
#include "sluice/types.h"

struct conn;

/* Gives the request to conn->protocol->request, now or when the commands before it are answered.
 * body: the packed request. takes block, which holds request. NOMEM. */
int order_request(struct conn *conn, uint64_t tag, struct sluice_slice body,
		  const Sluice__Request *request, struct message_block **block) SLUICE_MUST_USE;
/* Commands of the connection were answered, or its output has drained. */
void order_due(struct conn *conn);
void order_drop(struct conn *conn);

#endif
