/* SPDX-License-Identifier: Apache-2.0
 *
 * Opens, alters and ends sessions. The end is passed to the noun of each entry that the session
 * owns, which removes the entry: some at once, the rest by TICK. From its end on the session is not
 * visible, although entries are still to be swept. Heartbeats are the engine's: it issues
 * SESSION_EXPIRE.
 */
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/timer.h"
#include "broker/core/dispatch/dispatch.h"
#include "broker/core/job/job.h"
#include "broker/core/queue/queue.h"
#include "broker/core/session/session.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

enum {
	/* Of one session. Many sessions may end in one batch, and others wait for it: the rest is
	 * done by TICK. Not a budget of the batch, because the database must not depend on
	 * batches. */
	END_AT_ONCE = 128,
	DEFAULT_TIMEOUT_MS = 30000
};

const struct owned_ops session_owned_ops[OWNED_KIND_COUNT] = {
#define OWNED(NAME, number, find, end, text) [number] = {find, end},
#include "broker/core/owned.def"
#undef OWNED
};

/* Ends one entry, or a part of it, within *io_work, which is at least 1: items count, and so does
 * the entry. */
static int entry_end(struct apply *a, uint64_t session, const struct owned_entry *entry,
		     uint32_t *io_work, bool *ret_done)
{
	const struct owned_ops *ops = owned_ops_of(a, entry->kind);
	uint32_t left = *io_work;
	int rc;

	*ret_done = true;
	if (ops == NULL)
		return store_damaged("its content is not valid");
	rc = ops->end(a, session, entry->sub, entry->id, &left, ret_done);
	*io_work = left < *io_work ? left : *io_work - 1;
	if (rc != 0 || !*ret_done)
		return rc;
	return session_disown(a, session, (enum owned_kind)entry->kind, entry->id);
}

/* Ends the entries of an ended session, within the budget; its record is removed with the last
 * entry. */
int session_sweep(struct apply *a, uint64_t session, uint32_t *io_work, bool *ret_done)
{
	struct owned_entry entries[OWNED_AT_ONCE];
	struct key key;

	*ret_done = false;
	while (*io_work > 0) {
		size_t count = 0, ended = 0;
		bool done = true;
		int rc;

		key_one(&key, a->gateway, session);
		rc = session_owned_gather(a, &key, 0, entries, OWNED_AT_ONCE, &count);
		while (rc == 0 && done && ended < count && *io_work != 0) {
			rc = entry_end(a, session, &entries[ended], io_work, &done);
			ended += done;
		}
		if (rc != 0)
			return rc;
		if (count < OWNED_AT_ONCE && ended == count) {
			*ret_done = true;
			rc = store_del(a->txn, STORE_SESSION, key_slice(&key));
			return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
		}
	}
	return 0;
}

/* The session must be open. */
static int session_end(struct apply *a, uint64_t id, bool lapsed)
{
	struct effect effect = {.kind = FX_SESSION_ENDED,
				.command = a->position,
				.gateway = a->gateway,
				.id = id,
				.lapsed = lapsed};
	uint32_t work = END_AT_ONCE;
	struct session session;
	struct key key;
	bool done;
	int rc = session_get(a->txn, a->gateway, id, &session);

	if (rc == 0 && session.name.len > 0) {
		/* The name is borrowed from the store: it is copied into a key before anything is
		 * written. */
		key_name(&key, a->gateway, NAME_SESSION, session.name);
		rc = store_del(a->txn, STORE_NAME, key_slice(&key));
	}
	session.ended = true;
	session.name = session.client = (struct sluice_slice){NULL, 0};
	session.principal = session.via = session.address = session.name;
	if (rc == 0)
		rc = session_put(a, id, &session);
	if (rc == 0)
		rc = counter_add(a, COUNTER_SESSIONS, -1);
	if (rc == 0)
		rc = session_sweep(a, id, &work, &done);
	if (rc == 0 && !done)
		rc = timer_set(a, a->mono_ms, TIMER_SWEEP, id, SWEEP_SESSION);
	return rc != 0 ? rc : effects_add(a->effects, &effect);
}

int session_close_apply(struct apply *a, const Sluice__SessionClose *m, struct outcome *out)
{
	uint64_t session = m->session != 0 ? m->session : a->session;
	int rc = session_check(a, session, out);

	return rc != 0 || refused(out) ? rc : session_end(a, session, false);
}

int session_expire_apply(struct apply *a, const struct cmd_session_expire *m, struct outcome *out)
{
	int rc = session_check(a, m->session, out);

	return rc != 0 || refused(out) ? rc : session_end(a, m->session, true);
}

static int who_check(struct sluice_slice principal, struct sluice_slice via,
		     struct sluice_slice address, struct outcome *out)
{
	if (principal.len <= SESSION_WHO_BYTES_MAX && via.len <= SESSION_WHO_BYTES_MAX &&
	    address.len <= SESSION_ADDRESS_BYTES_MAX)
		return 0;
	return refuse(out, SLUICE_E_LIMIT,
		      "principal, via and address have %zu, %zu and %zu bytes; at most %d, %d and "
		      "%d",
		      principal.len, via.len, address.len, SESSION_WHO_BYTES_MAX,
		      SESSION_WHO_BYTES_MAX, SESSION_ADDRESS_BYTES_MAX);
}

enum { OPEN_FLAGS = SESSION_EPHEMERAL | SESSION_STANDING };

/* Before level 1 unknown flags were left out, and both together were kept. */
static int kind_check(const struct cmd_session_open *m, struct outcome *out)
{
	if ((m->flags & ~OPEN_FLAGS) != 0 || m->flags == OPEN_FLAGS)
		return refuse(out, SLUICE_E_INVAL,
			      "the session's flags are %u; expected %d (ephemeral), %d (standing) "
			      "or 0",
			      m->flags, SESSION_EPHEMERAL, SESSION_STANDING);
	if (m->face >= SESSION_FACE_COUNT)
		return refuse(out, SLUICE_E_INVAL, "face %u is unknown; expected at most %d",
			      m->face, SESSION_FACE_COUNT - 1);
	return 0;
}

static int open_check(const struct apply *a, const struct cmd_session_open *m, struct outcome *out)
{
	const char *why = NULL;
	int rc;

	if (level_is(a, 1)) {
		rc = kind_check(m, out);
		if (rc != 0 || refused(out))
			return rc;
	}
	if (m->name.len > 0) {
		rc = name_check(m->name, &why);
		if (rc != 0)
			return refuse(out, rc, "session name: %s", why);
	}
	if (m->client.len > LIMIT_TEXT_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the client's text is %zu bytes; at most %llu",
			      m->client.len, (unsigned long long)LIMIT_TEXT_BYTES_MAX);
	return who_check(m->principal, m->via, m->address, out);
}

static uint32_t timeout_within(uint32_t timeout_ms)
{
	if (timeout_ms == 0)
		return DEFAULT_TIMEOUT_MS;
	if (timeout_ms < LIMIT_SESSION_TIMEOUT_MS_MIN)
		return (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MIN;
	return timeout_ms > LIMIT_SESSION_TIMEOUT_MS_MAX ? (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MAX
							 : timeout_ms;
}

/* The engine keeps the timeout, and counts sessions by address. */
static int seen_effect(struct apply *a, enum effect_kind kind, uint64_t id,
		       const struct session *session, bool named)
{
	struct effect effect = {.kind = kind,
				.command = a->position,
				.gateway = a->gateway,
				.id = id,
				.lease_ms = session->timeout_ms,
				.count = named,
				.flags = session->flags,
				.name = session->address};
	void *address = effects_alloc(a->effects, session->address.len + 1);

	if (address == NULL)
		return SLUICE_E_NOMEM;
	if (session->address.len > 0)
		memcpy(address, session->address.data, session->address.len);
	effect.name.data = address;
	return effects_add(a->effects, &effect);
}

/* Whoever knows it may resume the session. */
static int secret_answer(struct apply *a, const uint8_t secret[16])
{
	void *copy = effects_alloc(a->effects, 16);

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	a->payload = (struct sluice_slice){memcpy(copy, secret, 16), 16};
	return 0;
}

int session_open_apply(struct apply *a, const struct cmd_session_open *m, struct outcome *out)
{
	struct session session = {.timeout_ms = timeout_within(m->timeout_ms),
				  .opened_ms = a->wall_ms,
				  .flags = m->flags & OPEN_FLAGS,
				  .face = m->face,
				  .name = m->name,
				  .client = m->client,
				  .principal = m->principal,
				  .via = m->via,
				  .address = m->address};
	uint64_t id, older = 0, sessions = 0;
	int rc = open_check(a, m, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = core_session_named(a->txn, a->gateway, m->name, &older);
	if (rc == 0)
		rc = counter_get(a->txn, a->gateway, COUNTER_SESSIONS, &sessions);
	if (rc != 0)
		return rc;
	/* If possible the engine ends another session before; a session that replaces another needs
	 * no room. */
	if (older == 0 && sessions >= LIMIT_SESSIONS_MAX)
		return refuse(out, SLUICE_E_BUSY,
			      "the gateway has %llu sessions of at most %llu; close some, or try "
			      "again later",
			      (unsigned long long)sessions, (unsigned long long)LIMIT_SESSIONS_MAX);
	if (older != 0)
		rc = session_end(a, older, false);
	if (rc == 0)
		rc = counter_next(a, COUNTER_SESSION, &id);
	if (rc == 0 && m->name.len > 0)
		rc = name_put(a, NAME_SESSION, m->name, id);
	if (rc != 0)
		return rc;
	memcpy(session.secret, m->secret, sizeof(session.secret));
	rc = session_put(a, id, &session);
	if (rc == 0)
		rc = counter_add(a, COUNTER_SESSIONS, 1);
	if (rc != 0)
		return rc;
	out->kind = OUT_SESSION;
	out->id = id;
	rc = secret_answer(a, m->secret);
	if (rc != 0)
		return rc;
	return seen_effect(a, FX_SESSION_OPENED, id, &session, m->name.len > 0);
}

/* Sets *io to the new text unless that is empty or the same; true: it was another one. */
static bool text_alter(struct sluice_slice *io, struct sluice_slice text)
{
	if (text.len == 0 || (text.len == io->len && memcmp(text.data, io->data, text.len) == 0))
		return false;
	*io = text;
	return true;
}

/* The same command again changes nothing, so its sender may repeat it. */
int session_alter_apply(struct apply *a, const struct cmd_session_alter *m, struct outcome *out)
{
	struct session session;
	bool owned, altered, moved;
	uint32_t timeout_ms;
	int rc;

	if (!level_is(a, 1))
		return refuse(out, SLUICE_E_UNSUPPORTED,
			      "an alteration needs level 1, and the level is %u", a->core->level);
	rc = session_get(a->txn, a->gateway, a->session, &session);
	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && session.ended))
		return refuse(out, SLUICE_E_SESSION_GONE, "session %llu has ended; open a new one",
			      (unsigned long long)a->session);
	if (rc == 0)
		rc = who_check(m->principal, m->via, m->address, out);
	if (rc != 0 || refused(out))
		return rc;
	owned = session.principal.len > 0;
	altered = text_alter(&session.principal, m->principal);
	if (altered && owned)
		return refuse(out, SLUICE_E_DENIED, "session %llu belongs to another principal",
			      (unsigned long long)a->session);
	out->kind = OUT_SESSION;
	out->id = a->session;
	timeout_ms = m->timeout_ms != 0 ? timeout_within(m->timeout_ms) : session.timeout_ms;
	moved = timeout_ms != session.timeout_ms;
	session.timeout_ms = timeout_ms;
	altered |= text_alter(&session.via, m->via);
	moved |= text_alter(&session.address, m->address);
	/* Before the write: texts are borrowed from the store. */
	if (moved)
		rc = seen_effect(a, FX_SESSION_ALTERED, a->session, &session, session.name.len > 0);
	return rc != 0 || !(altered || moved) ? rc : session_put(a, a->session, &session);
}
