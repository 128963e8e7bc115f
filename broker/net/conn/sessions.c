/* SPDX-License-Identifier: Apache-2.0
 * The sessions that connections hold, and what is due for them. */
#include "broker/net/conn/sessions.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/net/conn/conn.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/under_way.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "broker/util/memory.h"
#include "protocol/limits.h"

struct held_session **sessions_list(struct io *io, uint64_t session)
{
	return &io->sessions[session % SESSION_LISTS];
}

struct held_session *session_held(const struct conn *conn, uint64_t session)
{
	struct held_session *held;

	DL_FOREACH(conn->sessions, held)
		if (held->session == session)
			return held;
	return NULL;
}

/* ---- holding ---- */

void session_use(struct held_session *held)
{
	struct conn *conn = held->conn;

	/* To the end of the list, whose first free one is let go. */
	if (held->next == NULL)
		return;
	DL_DELETE(conn->sessions, held);
	DL_APPEND(conn->sessions, held);
}

/* What is granted to a consumer can be settled only while its session is held. */
static bool has_consumer(const struct conn *conn, uint64_t session)
{
	struct sub *sub, *next;

	HASH_ITER(hh_number, conn->subs, sub, next) {
		if (sub->kind == DOOR_CONSUME && sub->session == session)
			return true;
	}
	return false;
}

/* Room for one more. */
static int make_room(struct conn *conn)
{
	struct held_session *held;

	if (conn->session_count < LIMIT_HELD_SESSIONS_MAX)
		return 0;
	DL_FOREACH(conn->sessions, held) {
		if ((held->flags & (DOOR_SESSION_ATTACH | DOOR_SESSION_EPHEMERAL)) != 0 ||
		    has_consumer(conn, held->session))
			continue;
		session_let_go(held, false);
		return 0;
	}
	return SLUICE_E_LIMIT;
}

int session_hold(struct conn *conn, uint64_t session, uint32_t timeout_ms, uint8_t flags)
{
	struct held_session *held = session_held(conn, session);
	const bool is_new = held == NULL;
	int rc = 0;

	if (is_new) {
		rc = make_room(conn);
		if (rc != 0)
			return rc;
		held = calloc(1, sizeof(*held));
		if (held == NULL)
			return SLUICE_E_NOMEM;
		held->conn = conn;
		held->session = session;
		DL_APPEND(conn->sessions, held);
		DL_APPEND2(*sessions_list(conn->io, session), held, list_prev, list_next);
		conn->session_count++;
	}
	held->timeout_ms = timeout_ms;
	if ((flags & DOOR_SESSION_ATTACH) != 0 && (held->flags & DOOR_SESSION_ATTACH) == 0)
		rc = engine_session_attach(conn->io->engine, conn->gateway, session,
					   &conn->io->sink, conn->id);
	if (rc != 0) {
		if (is_new)
			session_let_go(held, false);
		return rc;
	}
	held->flags |= flags & (DOOR_SESSION_ATTACH | DOOR_SESSION_EPHEMERAL);
	if (conn->own == NULL && (held->flags & DOOR_SESSION_ATTACH) != 0)
		conn->own = held;
	return 0;
}

/* What is left to do for a session whose connection let it go. */
struct closing {
	struct closing *prev, *next;
	uint32_t gateway;
	uint64_t session;
	uint64_t conn;	/* id of the connection; 0: none held it */
	uint64_t share; /* the connection's: the close stays behind its commands */
	bool attached;	/* to be detached after its close */
	bool used;
	uint64_t idle_ms;
};

static void detach(struct io *io, const struct closing *closing)
{
	if (engine_session_detach(io->engine, closing->gateway, closing->session, &io->sink,
				  closing->conn, (uint32_t)closing->idle_ms, closing->used) != 0)
		log_line(LOG_LEVEL_ERROR, log_id("net.no_memory", "no memory to detach a session"),
			 log_u64("session", closing->session));
}

static void close_add(struct io *io, const struct closing *closing)
{
	struct closing *copy = malloc(sizeof(*copy));

	/* The session would live, with all that it holds, until the next start. */
	if (copy == NULL)
		memory_fail_stop("the end of an ephemeral session");
	*copy = *closing;
	DL_APPEND(io->closings, copy);
	io_again(io);
}

/* Its commands and its silence are the next one's, which it would carry for ever. */
static void own_next(struct conn *conn)
{
	struct held_session *next = conn->sessions;

	while (next != NULL && (next->flags & DOOR_SESSION_ATTACH) == 0)
		next = next->next;
	conn->own = next;
}

void session_let_go(struct held_session *held, bool has_ended)
{
	struct conn *conn = held->conn;
	struct closing closing;
	bool ephemeral;

	invariant(conn->session_count > 0 && held->list_prev != NULL,
		  "session %llu is not listed by connection %llu", ULL(held->session),
		  ULL(conn->id));
	if (held->touched)
		DL_DELETE2(conn->io->touched, held, touch_prev, touch_next);
	if (conn->io->next_held == held)
		conn->io->next_held = held->list_next;
	DL_DELETE(conn->sessions, held);
	DL_DELETE2(*sessions_list(conn->io, held->session), held, list_prev, list_next);
	conn->session_count--;
	if (conn->own == held)
		own_next(conn);
	closing = (struct closing){.gateway = conn->gateway,
				   .session = held->session,
				   .conn = conn->id,
				   .share = conn->share,
				   .attached = (held->flags & DOOR_SESSION_ATTACH) != 0,
				   .used = held->used,
				   .idle_ms = io_now_ms() - conn->active_ms};
	ephemeral = (held->flags & DOOR_SESSION_EPHEMERAL) != 0 && !has_ended;
	free(held);
	if (conn->io->engine_gone)
		return;
	/* Closed, then detached: until then the engine knows whether it moved to another
	 * connection, and does not close it there. */
	if (ephemeral)
		close_add(conn->io, &closing);
	else if (closing.attached)
		detach(conn->io, &closing);
}

void sessions_let_go(struct conn *conn)
{
	while (conn->sessions != NULL)
		session_let_go(conn->sessions, false);
}

/* ---- ephemeral sessions whose connection is gone ---- */

void session_close_later(struct io *io, uint32_t gateway, uint64_t session)
{
	close_add(io, &(struct closing){.gateway = gateway, .session = session});
}

struct close_submission {
	struct submission submission;
	Sluice__SessionClose close;
};

static void close_destroy(struct submission *submission)
{
	free(submission);
}

/* Without a connection: its answer finds nobody. */
static int close_submit(struct io *io, const struct closing *closing)
{
	struct close_submission *own = calloc(1, sizeof(*own));
	struct pending *pending = calloc(1, sizeof(*pending));
	int rc;

	if (own == NULL || pending == NULL) {
		free(own);
		free(pending);
		return SLUICE_E_NOMEM;
	}
	sluice__session_close__init(&own->close);
	own->submission.command = (struct command){.type = COMMAND_SESSION_CLOSE,
						   .gateway = closing->gateway,
						   .session = closing->session,
						   .random = random_u64(io),
						   .message = &own->close.base};
	own->submission.bytes = sizeof(*own);
	own->submission.sink = &io->sink;
	own->submission.tag = (uint64_t)(uintptr_t)pending;
	own->submission.control = true;
	own->submission.conn = closing->conn;
	own->submission.share = closing->share;
	own->submission.by_sink = true;
	own->submission.destroy = close_destroy;
	rc = engine_submit_quietly(io->engine, &own->submission);
	if (rc != 0) {
		free(own);
		free(pending);
		return rc;
	}
	DL_APPEND(io->orphans, pending);
	io->pendings++;
	pending->security = under_way_add(io);
	io->submitted = true;
	return 0;
}

void sessions_close_due(struct io *io)
{
	while (io->closings != NULL) {
		struct closing *closing = io->closings;

		if (close_submit(io, closing) != 0)
			return; /* with the next round */
		if (closing->attached)
			detach(io, closing);
		DL_DELETE(io->closings, closing);
		free(closing);
	}
}

void sessions_fini(struct io *io)
{
	struct closing *closing, *next;

	DL_FOREACH_SAFE(io->closings, closing, next)
		free(closing);
	io->closings = NULL;
}

/* ---- signs of life ---- */

void session_touch(struct held_session *held)
{
	struct conn *conn = held->conn;

	session_use(held);
	if (held->touched || (held->flags & DOOR_SESSION_ATTACH) != 0)
		return;
	held->touched = true;
	DL_APPEND2(conn->io->touched, held, touch_prev, touch_next);
}

/* In parts, so that the list needs no memory. A part that the engine does not take waits for the
 * next time. */
void sessions_touch_due(struct io *io)
{
	struct session_number numbers[256];
	struct held_session *held, *next;
	size_t count;

	while (io->touched != NULL) {
		count = 0;
		DL_FOREACH2(io->touched, held, touch_next)
		{
			if (count == sizeof(numbers) / sizeof(numbers[0]))
				break;
			numbers[count++] =
				(struct session_number){held->conn->gateway, held->session};
		}
		if (engine_session_touch(io->engine, numbers, count, io_now_ms()) != 0)
			return;
		DL_FOREACH_SAFE2(io->touched, held, next, touch_next)
		{
			if (count-- == 0)
				break;
			held->touched = false;
			DL_DELETE2(io->touched, held, touch_prev, touch_next);
		}
	}
}
