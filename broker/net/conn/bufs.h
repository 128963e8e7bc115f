/* SPDX-License-Identifier: Apache-2.0
 *
 * Counted memory: what a connection has received and not parsed yet, and what its protocol keeps of
 * it (door.h). It counts for its connection (LIMIT_CONN_PENDING_BYTES_MAX, together with its
 * commands) and for all connections together (input_bytes_max of struct net_config), from the
 * moment it is given to a connection until the last reference is dropped, also after the
 * connection's end. What counts is the memory, not the bytes used of it.
 *
 * A buf belongs to one thread. For the files of conn/; protocols use the functions of door.h.
 */
#ifndef SLUICE_NET_BUFS_H
#define SLUICE_NET_BUFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/net/conn/door.h"

struct conn;
struct io;

struct door_buf {
	struct io *io;
	struct conn *conn;	      /* counts it; NULL: none, or it was closed */
	struct door_buf *prev, *next; /* in conn->bufs */
	size_t capacity;	      /* of bytes */
	uint32_t refs;
	bool counted; /* for all connections together */
	uint8_t bytes[];
};

/* Of what is kept of its input, and of its requests that wait, a connection may always have this
 * much, so that requests of the
 * usual size arrive whatever other connections hold. */
enum { INPUT_FAIR_BYTES = 1 << 14 };

/* Of the buffer that a thread reads sockets into. */
enum { NET_READ_BYTES = 1 << 18 };
/* NULL: no memory. The two do not ask input_room. */
struct door_buf *buf_new(struct conn *conn, size_t bytes);
/* Enlarges a buf of which there is one reference. NULL: no memory, the old one is unchanged. */
struct door_buf *buf_grow(struct door_buf *buf, size_t bytes);
/* NET_READ_BYTES, for the thread; not counted. NULL: no memory. */
struct door_buf *buf_fresh(struct io *io);
struct door_buf *buf_ref(struct door_buf *buf);

/* ---- input that is given to a protocol ---- */
/* From here to bufs_given_end, door_buf_take takes input, which is `bytes` of it. fresh: it is the
 * thread's, which has none when it was taken. */
void bufs_give(struct conn *conn, struct door_buf *input, const uint8_t *bytes, size_t len,
	       bool fresh);
void bufs_given_end(struct io *io);

void bufs_drop(struct conn *conn); /* at its end: what is still referenced counts for all only */
void bufs_fini(struct io *io);

#endif
