/* SPDX-License-Identifier: Apache-2.0
 * Life of a connection and its commands. For io/ and the calls of a protocol (door.h). */
#ifndef SLUICE_NET_CONN_H
#define SLUICE_NET_CONN_H

#include "broker/engine/engine.h"
#include "broker/net/conn/door.h"

struct arrival;
struct conn;
struct io;
struct opening;
struct net;

/* One command on its way to the engine. */
struct pending {
	struct conn *conn; /* NULL: it was closed meanwhile */
	uint64_t ordinal;  /* of its connection's commands */
	uint64_t bytes;
	uint64_t tag;		 /* the protocol's */
	bool quiet;		 /* answered only when refused */
	uint64_t security;	 /* of under_way_add */
	struct opening *opening; /* of a SESSION_OPEN: door_session.c's; owned */
	struct door_buf *buf;	 /* holds a part of it, and counts for itself; NULL: none */
	struct pending *prev, *next;
};

/* ---- life ---- */
/* takes the arrival's descriptor. NULL: closed already. */
struct conn *conn_create(struct io *io, const struct arrival *arrival);
/* Closes it without a connection. takes its descriptor. */
void arrival_drop(struct net *net, const struct arrival *arrival);
void conns_reap(struct io *io); /* frees those that are dead */
/* Its time limit has changed or begins. */
void conn_life_set(struct conn *conn);
/* What it did not do in time; NULL: nothing. */
const char *conn_overdue(const struct conn *conn, uint64_t now_ms);

/* ---- commands ---- */
/* Copies the slice to *io_at, which it moves behind the copy; returns the copy. For the memory of a
 * command. */
struct sluice_slice block_put(uint8_t **io_at, struct sluice_slice slice);
/* Sends a command to the engine for this connection. takes block (also on error), which holds the
 * slices and the struct or message of command. BUSY: the connection is blocked and will receive the
 * same bytes again. */
int conn_submit(struct conn *conn, const struct command *command, struct door_block block,
		size_t bytes, bool control, uint64_t tag, bool quiet) SLUICE_MUST_USE;
void pending_free(struct pending *pending); /* unlisted: it is answered, or never will be */

#endif
