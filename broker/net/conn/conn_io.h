/* SPDX-License-Identifier: Apache-2.0
 * The socket of a connection. For conn.c, io/io.c, and the protocols (conn_parse, after an answer
 * that held the input back). */
#ifndef SLUICE_NET_CONN_IO_H
#define SLUICE_NET_CONN_IO_H

#include "sluice/error.h"

struct conn;
struct io;

enum { NET_READ_BYTES = 1 << 18 };
int conn_open(struct conn *conn) SLUICE_MUST_USE; /* over conn->fd; conn_shut is due whatever it returns */
void conn_shut(struct conn *conn);		  /* closes the socket, drops what was not sent */
/* Gives the protocol the bytes that are buffered, unless the connection is held, blocked or
 * dead. */
void conn_parse(struct conn *conn);
void conn_flow(struct conn *conn);   /* reading on or off, by what is pending and unsent */
void conn_shrink(struct conn *conn); /* frees the buffer of input if it is empty */
/* Wakes the engine for what the round submitted, and sends what it wrote: every callback of the
 * loop ends with it. */
void conns_flush(struct io *io);

#endif
