/* SPDX-License-Identifier: Apache-2.0
 * A release on an I/O thread: each effect goes to the connection that sent the command, to the
 * connections of a session, or to the subscriptions of a stream or queue. The answers of reads that
 * show the same commit follow, before the next release. */
#include "broker/net/io/release.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/net/conn/answer.h"
#include "broker/net/conn/conn.h"
#include "broker/net/conn/door_session.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/order.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/under_way.h"
#include "broker/net/conn/sessions.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/conn/wait.h"
#include "broker/util/invariant.h"

static void reply(struct conn *conn, const struct pending *pending, const struct effect *effect)
{
	if (pending->opening != NULL)
		door_session_opened(conn, pending, effect->outcome, effect->payload);
	else if (!pending->quiet || effect->outcome->code != 0)
		conn->protocol->reply(conn, pending->tag, effect->outcome, effect->payload);
}

static void reply_one(struct io *io, const struct origin *origin, const struct effect *effect)
{
	struct pending *pending = (struct pending *)(uintptr_t)origin->tag;
	struct conn *conn = pending->conn;

	invariant(pending->prev != NULL &&
			  (conn == NULL || (conn->io == io && conn->pending_count > 0 &&
					    conn->pending_bytes >= pending->bytes)),
		  "an answer for connection %llu, which has %llu commands of %llu bytes under way",
		  conn != NULL ? (unsigned long long)conn->id : 0,
		  conn != NULL ? (unsigned long long)conn->pending_count : 0,
		  conn != NULL ? (unsigned long long)conn->pending_bytes : 0);
	io->pendings--;
	under_way_done(io, pending->security);
	if (conn == NULL) {
		DL_DELETE(io->orphans, pending);
		if (pending->opening != NULL)
			door_session_unclaimed(io, pending, effect->outcome);
	} else {
		DL_DELETE(conn->pendings, pending);
		conn->pending_count--;
		conn->pending_bytes -= pending->bytes;
		subs_end_of(conn);
		reply(conn, pending, effect);
		order_due(conn);
	}
	pending_free(pending);
}

/* What a CLAIM gives to a connection that is closed stays leased until its lease or its session
 * ends. As for consumers, its output counts as deliveries: it cannot be recalled. */
static void claimed_one(const struct origin *origin, const struct effect *effect)
{
	const struct pending *pending = (const struct pending *)(uintptr_t)origin->tag;
	struct conn *conn = pending->conn;

	if (conn == NULL || conn->protocol->claimed == NULL)
		return;
	subs_end_of(conn);
	conn->delivering = effect->kind == FX_GRANT || effect->kind == FX_JOBS;
	conn->protocol->claimed(conn, pending->tag, effect);
	conn->delivering = false;
}

static void end(struct sub *sub, int code, const char *text)
{
	sub_end_notify(sub, code, text);
	sub_drop(sub);
}

static void consumer_one(struct io *io, const struct origin *origin, const struct effect *effect)
{
	struct conn *conn;
	struct sub *sub;

	HASH_FIND(hh_tag, io->subs, &origin->tag, sizeof(origin->tag), sub);
	if (sub == NULL)
		return;
	conn = sub->conn;
	if (effect->kind == FX_REPLY) {
		/* Of a CLAIM, a command of the engine itself. A damaged record in the queue stops
		 * the deliveries. */
		if (effect->outcome->code == SLUICE_E_CORRUPT && !sub->closed)
			end(sub, SLUICE_E_CORRUPT, effect->outcome->text);
		return;
	}
	/* The broker stops granting long before its output is too large; a grant that was made
	 * cannot be recalled. */
	conn->delivering = effect->kind == FX_GRANT || effect->kind == FX_JOBS;
	conn->protocol->effect(conn, sub, effect);
	conn->delivering = false;
	subs_pause_if_full(conn);
}

static void to_session(struct io *io, const struct effect *effect, uint64_t session)
{
	struct held_session *held;

	/* A protocol may let go of this one or of others meanwhile. */
	for (held = *sessions_list(io, session); held != NULL; held = io->next_held) {
		struct conn *conn = held->conn;

		io->next_held = held->list_next;
		if (held->session != session || conn->gateway != effect->gateway)
			continue;
		subs_end_of(conn);
		if (!conn->dead)
			conn->protocol->effect(conn, NULL, effect);
		if (effect->kind != FX_SESSION_ENDED)
			continue;
		held = session_held(conn, session);
		if (held != NULL)
			session_let_go(held, true);
		if (!conn->dead)
			conn_life_set(conn);
	}
}

static void dispatch(struct io *io, const struct engine_release *release,
		     const struct effect *effect)
{
	const struct origin *origin;

	switch (effect->kind) {
	case FX_REPLY:
	case FX_GRANT:
	case FX_JOBS:
	case FX_RESUMED:
	case FX_ITEM_DAMAGED:
		invariant(effect->command < release->origin_count, "an effect of command %u of %zu",
			  effect->command, release->origin_count);
		origin = &release->origins[effect->command];
		if (origin->sink != &io->sink)
			return;
		if (origin->kind == ORIGIN_CONSUMER)
			consumer_one(io, origin, effect);
		else if (effect->kind == FX_REPLY)
			reply_one(io, origin, effect);
		else
			claimed_one(origin, effect);
		return;
	case FX_LOG_GROWN:
		subs_log_grown(io, effect->gateway, effect->id, effect->offset);
		return;
	case FX_STREAM_DELETED:
		subs_deleted(io, DOOR_FOLLOW, effect->gateway, effect->id);
		return;
	case FX_QUEUE_DELETED:
		subs_deleted(io, DOOR_CONSUME, effect->gateway, effect->id);
		return;
	case FX_JOB_CANCEL:
	case FX_LEASE_LOST:
		to_session(io, effect, effect->session);
		return;
	case FX_SESSION_ENDED:
		to_session(io, effect, effect->id);
		return;
	case FX_JOB_TERMINAL:
		waits_job_ended(io, effect);
		return;
	case FX_QUEUE_READY:
	case FX_LOG_TRIMMED:
	case FX_SESSION_OPENED:
	case FX_SESSION_ALTERED:
	case FX_TOPOLOGY:
		return;
	}
}

void release_handle(struct io *io, struct engine_release *release)
{
	size_t count = effects_count(release->effects);

	invariant(release->number > io->released, "release %llu comes behind %llu",
		  (unsigned long long)release->number, (unsigned long long)io->released);
	for (size_t i = 0; i < count; i++)
		dispatch(io, release, effects_at(release->effects, i));
	io->released = release->number;
	subs_end(io);
	answers_flush(io);
	engine_release_done(io->engine, &io->sink, release);
}
