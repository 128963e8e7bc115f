/* SPDX-License-Identifier: Apache-2.0
 * Reads in turns. For conn_io.c, conn.c, door.c and io/io.c. */
#ifndef SLUICE_NET_READING_H
#define SLUICE_NET_READING_H

#include "broker/net/conn/wait.h"
#include "protocol/message_block.h"
#include "sluice.pb-c.h"
#include "sluice/error.h"

struct conn;
struct io;
struct reading;

/* Answers a read, now or in turns: conn->protocol->read_done is called once. takes block, which
 * holds request. corr: the protocol's. NOMEM: it is not answered. */
int reading_start(struct conn *conn, uint64_t corr, struct message_block **block,
		  const Sluice__Request *request, size_t bytes) SLUICE_MUST_USE;
/* Begins a wait (wait.h) in its turn among the reads. spec is borrowed for the call. NOMEM: it is
 * not answered. */
int reading_wait(struct conn *conn, uint64_t tag, const struct wait_spec *spec) SLUICE_MUST_USE;
void readings_run(struct io *io);	 /* once a round */
void readings_resume(struct conn *conn); /* its output has drained */
void readings_drop(struct conn *conn);

#endif
