/* SPDX-License-Identifier: Apache-2.0
 *
 * The calls of a protocol: gateways and sessions. A session is opened by a command, so its answer
 * follows the commit; one that exists is resumed at once, from a snapshot. A client that counts its
 * attempts to connect has them handled in their order (instance.h).
 */
#include "broker/net/conn/door_session.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/conn.h"
#include "broker/net/conn/instance.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/sessions.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

/* ---- gateways ---- */

int door_enter(struct conn *conn, struct sluice_slice gateway)
{
	struct store_txn *txn = NULL;
	uint64_t commit;
	uint32_t number = 0;
	int rc;

	if (conn->dead || conn->closing)
		return SLUICE_E_CLOSED;
	rc = engine_read_begin(conn->io->engine, &txn, &commit);
	if (rc == 0)
		rc = core_gateway_find(txn, gateway, &number);
	store_abort(txn);
	if (rc != 0)
		return rc;
	if (conn->gateway != 0 && conn->gateway != number) {
		/* A consumer that is closed can still settle, by the number of its queue. */
		if (conn->sessions != NULL || conn->subs != NULL || conn->closed != NULL ||
		    conn->pending_count != 0 || conn->waiter_count != 0)
			return SLUICE_E_WRONG_STATE;
		while (conn->ended != NULL)
			sub_drop(conn->ended);
		conn->granted.permission = NULL;
	}
	conn->gateway = number;
	conn_life_set(conn);
	return 0;
}

/* ---- sessions ---- */

static int hold(struct conn *conn, uint64_t session, uint32_t timeout_ms, uint8_t flags)
{
	int rc = session_hold(conn, session, timeout_ms, flags);

	if (rc == 0)
		conn_life_set(conn);
	return rc;
}

static uint32_t timeout_bounded(uint32_t timeout_ms)
{
	if (timeout_ms < LIMIT_SESSION_TIMEOUT_MS_MIN)
		return (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MIN;
	if (timeout_ms > LIMIT_SESSION_TIMEOUT_MS_MAX)
		return (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MAX;
	return timeout_ms;
}

/* A SESSION_OPEN under way. */
struct opening {
	uint32_t gateway;
	uint32_t timeout_ms;
	uint8_t flags;
};

struct open_block {
	struct cmd_session_open open;
	uint8_t bytes[];
};

static int session_open(struct conn *conn, uint64_t tag, const struct door_session_spec *spec)
{
	const struct sluice_slice address = {conn->address, strlen(conn->address)};
	const size_t bytes =
		sizeof(struct open_block) + spec->name.len + spec->client.len + address.len;
	struct open_block *block = calloc(1, bytes);
	struct opening *opening = calloc(1, sizeof(*opening));
	struct command command = {.type = COMMAND_SESSION_OPEN};
	uint8_t *at;
	int rc;

	if (block == NULL || opening == NULL) {
		free(block);
		free(opening);
		return SLUICE_E_NOMEM;
	}
	at = block->bytes;
	if (getrandom(block->open.secret, sizeof(block->open.secret), 0) !=
	    (ssize_t)sizeof(block->open.secret)) {
		free(block);
		free(opening);
		return SLUICE_E_INTERNAL;
	}
	opening->gateway = conn->gateway;
	opening->flags = spec->flags;
	opening->timeout_ms = timeout_bounded(spec->timeout_ms);
	block->open.name = block_put(&at, spec->name);
	block->open.client = block_put(&at, spec->client);
	block->open.address = block_put(&at, address);
	block->open.face = spec->face;
	block->open.flags = (spec->flags & DOOR_SESSION_EPHEMERAL) != 0 ? SESSION_EPHEMERAL : 0;
	block->open.timeout_ms = opening->timeout_ms;
	command.body = &block->open;
	rc = admit_command(conn, &command);
	if (rc != 0) {
		free(block);
		free(opening);
		return rc;
	}
	rc = conn_submit(conn, &command, (struct door_block){.plain = block}, bytes, true, tag,
			 false);
	if (rc == 0)
		conn->pendings->prev->opening = opening; /* the last one */
	else
		free(opening);
	return rc;
}

void door_session_opened(struct conn *conn, const struct pending *pending,
			 const struct outcome *outcome, struct sluice_slice secret)
{
	const struct opening *opening = pending->opening;
	struct door_session session = {.session = outcome->id, .timeout_ms = opening->timeout_ms};
	int code = outcome->code;

	invariant(code != 0 || secret.len == sizeof(session.secret), "a secret of %zu bytes",
		  secret.len);
	if (code == 0)
		memcpy(session.secret, secret.data, sizeof(session.secret));
	if (code == 0)
		code = hold(conn, session.session, session.timeout_ms, opening->flags);
	/* What this connection cannot hold nobody holds. */
	if (code != 0 && outcome->code == 0)
		door_session_unclaimed(conn->io, pending, outcome);
	conn->protocol->session(conn, pending->tag, code,
				code == outcome->code ? outcome->text : sluice_error_text(code),
				&session);
}

void door_session_unclaimed(struct io *io, const struct pending *pending,
			    const struct outcome *outcome)
{
	if (outcome->code == 0 && (pending->opening->flags & DOOR_SESSION_EPHEMERAL) != 0)
		session_close_later(io, pending->opening->gateway, outcome->id);
}

/* Compares all bytes, also after a difference: the time reveals nothing about the secret. */
static bool secret_equal(const uint8_t a[16], struct sluice_slice b)
{
	const uint8_t *bytes = b.data;
	unsigned difference = b.len != 16;

	for (size_t i = 0; i < 16 && i < b.len; i++)
		difference |= (unsigned)(a[i] ^ bytes[i]);
	return difference == 0;
}

static int session_resume(struct conn *conn, const struct door_session_spec *spec,
			  struct door_session *ret)
{
	struct store_txn *txn = NULL;
	struct session_ref session;
	uint64_t commit;
	int rc = admit(conn, "session", (struct sluice_slice){"", 0}, spec->session);

	if (rc == 0)
		rc = engine_read_begin(conn->io->engine, &txn, &commit);
	if (rc == 0)
		rc = core_session_find(txn, conn->gateway, spec->session, &session);
	store_abort(txn);
	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && spec->how == DOOR_SESSION_RESUME &&
					 !secret_equal(session.secret, spec->secret)))
		return SLUICE_E_SESSION_GONE;
	/* By the number alone only what the same kind of client has opened. */
	if (rc == 0 && spec->how == DOOR_SESSION_USE && session.face != spec->face)
		return SLUICE_E_DENIED;
	if (rc != 0)
		return rc;
	rc = hold(conn, spec->session, session.timeout_ms,
		  (uint8_t)(spec->flags & DOOR_SESSION_ATTACH));
	if (rc == SLUICE_E_BUSY)
		conn_block(conn);
	if (rc != 0)
		return rc;
	session_held(conn, spec->session)->used = true;
	ret->session = spec->session;
	ret->timeout_ms = session.timeout_ms;
	memcpy(ret->secret, session.secret, sizeof(ret->secret));
	return 0;
}

static int session_take(struct conn *conn, uint64_t tag, const struct door_session_spec *spec,
			struct door_session *ret)
{
	return spec->how == DOOR_SESSION_OPEN ? session_open(conn, tag, spec)
					      : session_resume(conn, spec, ret);
}

int door_session(struct conn *conn, uint64_t tag, const struct door_session_spec *spec,
		 struct door_session *ret, const char **ret_why)
{
	static _Thread_local char late[192];
	struct instances *instances = conn->io->net->instances;
	struct instance *instance = NULL;
	uint64_t last = 0;
	int rc;

	static_assert((int)DOOR_INSTANCE_BYTES == (int)INSTANCE_BYTES, "instance_enter reads it");
	*ret_why = "a session could not be opened";
	rc = conn_may_begin(conn);
	if (rc != 0)
		return rc;
	if (spec->instance.len == 0)
		return session_take(conn, tag, spec, ret);
	rc = instance_enter(instances, spec->instance.data, spec->attempt, &instance, &last);
	if (rc == SLUICE_E_WRONG_STATE) {
		(void)snprintf(late, sizeof(late),
			       "attempt %llu of this client is late: its attempt %llu was "
			       "accepted before; the client has abandoned this connection",
			       (unsigned long long)spec->attempt, (unsigned long long)last);
		*ret_why = late;
		return SLUICE_E_STALE_ATTEMPT;
	}
	if (rc != 0)
		return rc;
	rc = session_take(conn, tag, spec, ret);
	instance_leave(instances, instance, spec->attempt, rc == 0);
	if (rc == 0) {
		instance_unref(instances, conn->instance); /* of a session before this one */
		conn->instance = instance;
	}
	return rc;
}

int door_touch(struct conn *conn, uint64_t session)
{
	struct held_session *held = session_held(conn, session);

	if (held == NULL)
		return SLUICE_E_SESSION_GONE;
	session_touch(held);
	return 0;
}

int door_session_drop(struct conn *conn, uint64_t session)
{
	struct held_session *held = session_held(conn, session);

	if (held == NULL)
		return SLUICE_E_SESSION_GONE;
	session_let_go(held, false);
	if (!conn->dead)
		conn_life_set(conn);
	return 0;
}
