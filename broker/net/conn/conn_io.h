/* SPDX-License-Identifier: Apache-2.0
 * The socket of a connection. For conn.c, io/io.c, and the protocols (conn_parse, after an answer
 * that held back the input). */
#ifndef SLUICE_NET_CONN_IO_H
#define SLUICE_NET_CONN_IO_H

#include "sluice/error.h"
#include "sluice/types.h"

struct conn;
struct io;

int conn_open(struct conn *conn) SLUICE_MUST_USE; /* over conn->fd; conn_shut is due in any case */
void conn_shut(struct conn *conn);		  /* closes the socket, drops unsent output */
/* Passes buffered bytes to the protocol, unless the connection is held, blocked or dead. */
void conn_parse(struct conn *conn);
/* It was blocked: the bytes, or what its protocol keeps, are tried again. */
void conn_unblocked(struct conn *conn);
/* Calls the protocol's `timer` at this time, monotone; 0: never. */
void conn_timer(struct conn *conn, uint64_t at_ms);
void conn_flow(struct conn *conn); /* reading on or off, by pending commands and unsent output */
/* All is written: tells the peer the end, and reads and drops what it still sends, until its end.
 */
void conn_linger(struct conn *conn);
/* Continues one of the TLS handshakes that may continue; the others in the next rounds. */
void conns_handshake(struct io *io);
void conns_resume(struct io *io); /* those that wait for memory, as far as there is some */
/* Closes the connections that are held and not read, and whose peers have closed them. Called
 * often. */
void conns_ended(struct io *io);
/* Ends the turns of the connections that were given bytes (`round`), wakes the engine if the round
 * submitted commands, and sends the output that it wrote: every callback of the loop ends with it.
 */
void conns_flush(struct io *io);

#endif
