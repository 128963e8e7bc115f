/* SPDX-License-Identifier: Apache-2.0
 *
 * The sessions that a connection holds. An attached one does not expire while it is held, and an
 * older connection that had it is closed; a free one lives by signs of life (sessions_touch). An
 * ephemeral one is closed when its connection ends. For conn.c, door_session.c and io/.
 */
#ifndef SLUICE_NET_SESSIONS_H
#define SLUICE_NET_SESSIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "sluice/error.h"

struct conn;
struct io;

struct held_session {
	struct conn *conn;
	uint64_t session;
	uint32_t timeout_ms;
	uint8_t flags;			  /* enum door_session_flag */
	bool used;			  /* it did more than open */
	bool touched;			  /* in io->touched: a sign of life to be given */
	struct held_session *prev, *next; /* of its connection; free ones: the least recently
					     used first */
	struct held_session *list_prev, *list_next; /* of sessions_list() */
	struct held_session *touch_prev, *touch_next;
};

/* Adds a session that is open. flags: ATTACH attaches it at the engine. Above
 * LIMIT_HELD_SESSIONS_MAX the least used free session without a consumer is let go. LIMIT: there is
 * none; NOMEM. */
int session_hold(struct conn *conn, uint64_t session, uint32_t timeout_ms,
		 uint8_t flags) SLUICE_MUST_USE;
struct held_session *session_held(const struct conn *conn, uint64_t session); /* NULL: not held */
/* An ephemeral one is closed, unless it has ended. */
void session_let_go(struct held_session *held, bool has_ended);
void sessions_let_go(struct conn *conn); /* all: the connection ends */
/* It was opened for a connection that is gone: it is closed by a command, which waits while the
 * inbox is full. */
void session_close_later(struct io *io, uint32_t gateway, uint64_t session);
void sessions_close_due(struct io *io); /* once a round */
void sessions_fini(struct io *io);	/* those that were not closed: the next start does it */
/* It is used: others are let go before it. */
void session_use(struct held_session *held);
/* A sign of life of a free session, given to the engine with the others of the thread. */
void session_touch(struct held_session *held);
void sessions_touch_due(struct io *io); /* with io->timer */
/* Of this hash; listed by list_next. */
struct held_session **sessions_list(struct io *io, uint64_t session);

#endif
