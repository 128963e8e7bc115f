/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies between the socket of a connection and its protocol: plain bytes, or TLS. One table
 * each; conn_io.c calls it by conn->wire. All calls run on the connection's thread and do not
 * block.
 */
#ifndef SLUICE_NET_WIRE_H
#define SLUICE_NET_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "sluice/error.h"

struct conn;

struct wire_ops {
	const char *name; /* for the log */
	/* Of a new connection, before anything else. NOMEM. */
	int (*open)(struct conn *conn);
	/* Bytes from the peer into the rooms, in their order. How many; 0: the peer has ended; -1:
	 * errno, EAGAIN when there are none now. */
	ssize_t (*read)(struct conn *conn, struct iovec *rooms, int count);
	/* Sends bytes of the pieces, in their order. How many; -1: errno, EAGAIN when none are
	 * taken now. What was not taken is given again, at the beginning of the next call. */
	ssize_t (*write)(struct conn *conn, struct iovec *pieces, int count);
	/* Bytes wait for `read` and the socket does not announce them. */
	bool (*pending)(const struct conn *conn);
	/* No more is written: tells the peer. */
	void (*end)(struct conn *conn);
	void (*close)(struct conn *conn); /* frees what open made, at any time */
};

extern const struct wire_ops wire_plain;
extern const struct wire_ops wire_tls; /* tls.c */

#endif
