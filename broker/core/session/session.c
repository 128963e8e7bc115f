/* SPDX-License-Identifier: Apache-2.0
 * Sessions: a client's durable identity. The entries that a session owns (jobs, session leases) are
 * in `owned` under it. dispatch/session_end.c opens and ends sessions. */
#include <stdlib.h>

#include "broker/core/base/name.h"
#include "broker/core/base/reply.h"
#include "broker/core/session/session.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

enum { SESSION_ENDED = 1 };

/* u8 ended and flags, secret, u32 timeout, u64 opened, u16 name, u16 client, u8 face, u16
 * principal, u16 via, u16 address; texts in that order. A record of format 1 ends with the client's
 * text, so its length never equals that of a current one with the same lengths. */
size_t session_encode(uint8_t buf[SESSION_BYTES_MAX], const struct session *session)
{
	const struct sluice_slice *texts[] = {&session->name, &session->client, &session->principal,
					      &session->via, &session->address};
	uint8_t *at = buf + SESSION_FIXED_BYTES + SESSION_MORE_BYTES;

	buf[0] = (uint8_t)((session->ended ? SESSION_ENDED : 0) | session->flags);
	memcpy(buf + 1, session->secret, 16);
	put_be32(buf + 17, session->timeout_ms);
	put_be64(buf + 21, session->opened_ms);
	put_be16(buf + 29, (uint16_t)session->name.len);
	put_be16(buf + 31, (uint16_t)session->client.len);
	buf[33] = session->face;
	put_be16(buf + 34, (uint16_t)session->principal.len);
	put_be16(buf + 36, (uint16_t)session->via.len);
	put_be16(buf + 38, (uint16_t)session->address.len);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (texts[i]->len > 0)
			memcpy(at, texts[i]->data, texts[i]->len);
		at += texts[i]->len;
	}
	return (size_t)(at - buf);
}

int session_decode(struct sluice_slice value, struct session *ret)
{
	const uint8_t *at = value.data;
	size_t name, client, fixed = SESSION_FIXED_BYTES, more[3] = {0, 0, 0};

	if (value.len < SESSION_FIXED_BYTES)
		return store_damaged("its content is not valid");
	name = get_be16(at + 29);
	client = get_be16(at + 31);
	*ret = (struct session){.ended = (at[0] & SESSION_ENDED) != 0,
				.flags = at[0] & (uint8_t)~SESSION_ENDED};
	if (value.len != SESSION_FIXED_BYTES + name + client) {
		fixed += SESSION_MORE_BYTES;
		if (value.len < fixed)
			return store_damaged("its content is not valid");
		ret->face = at[SESSION_FIXED_BYTES];
		for (size_t i = 0; i < 3; i++)
			more[i] = get_be16(at + SESSION_FIXED_BYTES + 1 + 2 * i);
		if (value.len != fixed + name + client + more[0] + more[1] + more[2])
			return store_damaged("its content is not valid");
	}
	memcpy(ret->secret, at + 1, 16);
	ret->timeout_ms = get_be32(at + 17);
	ret->opened_ms = get_be64(at + 21);
	at += fixed;
	ret->name = (struct sluice_slice){at, name};
	ret->client = (struct sluice_slice){at + name, client};
	at += name + client;
	ret->principal = (struct sluice_slice){at, more[0]};
	ret->via = (struct sluice_slice){at + more[0], more[1]};
	ret->address = (struct sluice_slice){at + more[0] + more[1], more[2]};
	return 0;
}

int session_get(struct store_txn *txn, uint32_t gateway, uint64_t id, struct session *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_one(&key, gateway, id);
	rc = store_get(txn, STORE_SESSION, key_slice(&key), &value);
	return rc != 0 ? rc : session_decode(value, ret);
}

int session_put(struct apply *a, uint64_t id, const struct session *session)
{
	uint8_t buf[SESSION_BYTES_MAX];
	struct key key;
	size_t bytes;

	invariant(id != 0 && session->name.len <= 255 && session->client.len <= 1024,
		  "session %llu: a name of %zu bytes, a client of %zu", ULL(id), session->name.len,
		  session->client.len);
	invariant(!session->ended || session->name.len == 0,
		  "session %llu has ended and has a name", ULL(id));
	bytes = session_encode(buf, session);
	key_one(&key, a->gateway, id);
	return store_put(a->txn, STORE_SESSION, key_slice(&key), (struct sluice_slice){buf, bytes});
}

int session_check(struct apply *a, uint64_t id, struct outcome *out)
{
	struct session session;
	int rc = session_get(a->txn, a->gateway, id, &session);

	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && session.ended))
		return refuse(out, SLUICE_E_SESSION_GONE, "session %llu has ended; open a new one",
			      (unsigned long long)id);
	return rc;
}

/* ---- entries of a session ---- */

int session_own(struct apply *a, uint64_t session, enum owned_kind kind, uint64_t id, uint64_t sub)
{
	uint8_t buf[8];
	struct key key;

	invariant(session != 0, "entry %llu of kind %d is owned by no session", ULL(id), (int)kind);
	key_owned(&key, a->gateway, session, (uint8_t)kind, id);
	return store_put(a->txn, STORE_OWNED, key_slice(&key),
			 (struct sluice_slice){buf, owned_value_encode(buf, &(struct owned_value){
										    .sub = sub})});
}

int session_disown(struct apply *a, uint64_t session, enum owned_kind kind, uint64_t id)
{
	struct key key;
	int rc;

	key_owned(&key, a->gateway, session, (uint8_t)kind, id);
	rc = store_del(a->txn, STORE_OWNED, key_slice(&key));
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* The value of an entry is also stored elsewhere. If it is missing there as well, sub is 0, and its
 * noun reports that where it checks it. */
static int owned_repair(struct apply *a, struct owned_entry *entry)
{
	const struct owned_ops *ops = owned_ops_of(a, entry->kind);
	int rc;

	if (ops == NULL)
		return SLUICE_E_CORRUPT;
	rc = ops->find(a, entry->id, &entry->sub);
	if (rc != 0)
		entry->sub = 0;
	return rc == SLUICE_E_CORRUPT || rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int session_owned_gather(struct apply *a, const struct key *from, uint8_t kind,
			 struct owned_entry *ret, size_t max, size_t *ret_count)
{
	size_t prefix = kind != 0 ? KEY_ONE_BYTES + 1 : KEY_ONE_BYTES;
	struct store_scan *scan;
	struct sluice_slice found, value;
	size_t count = 0;
	int rc = store_scan_begin(a->txn, STORE_OWNED, key_slice(from), &scan);

	if (rc != 0)
		return rc;
	while (count < max) {
		struct owned_key owned;
		struct owned_value entry = {.sub = 0};
		bool damaged;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		if (found.len < prefix || memcmp(found.data, from->bytes, prefix) != 0) {
			rc = 0;
			break;
		}
		if (!key_owned_decode(found, &owned)) {
			rc = store_damaged("its content is not valid");
			break;
		}
		damaged = rc != 0 || !owned_value_decode(value, &entry);
		rc = 0;
		ret[count++] = (struct owned_entry){.kind = owned.kind,
						    .damaged = damaged,
						    .id = owned.id,
						    .sub = entry.sub};
	}
	store_scan_end(scan);
	*ret_count = count;
	rc = rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	for (size_t i = 0; rc == 0 && i < count; i++)
		if (ret[i].damaged)
			rc = owned_repair(a, &ret[i]);
	return rc;
}

int session_owned_each(struct apply *a, uint64_t session, enum owned_kind kind, uint64_t from,
		       uint32_t max,
		       int (*each)(struct apply *a, uint64_t id, uint64_t sub, void *user),
		       void *user)
{
	struct owned_entry entries[OWNED_AT_ONCE];
	size_t count = OWNED_AT_ONCE;

	while (max > 0 && count == OWNED_AT_ONCE) {
		struct key key;
		int rc;

		key_owned(&key, a->gateway, session, (uint8_t)kind, from);
		rc = session_owned_gather(a, &key, (uint8_t)kind, entries,
					  max < OWNED_AT_ONCE ? max : OWNED_AT_ONCE, &count);
		for (size_t i = 0; rc == 0 && i < count; i++)
			rc = each(a, entries[i].id, entries[i].sub, user);
		if (rc != 0)
			return rc;
		if (count == 0 || entries[count - 1].id == UINT64_MAX)
			return 0;
		from = entries[count - 1].id + 1;
		max -= (uint32_t)count;
	}
	return 0;
}

/* ---- reads ---- */

int core_session_named(struct store_txn *txn, uint32_t gateway, struct sluice_slice name,
		       uint64_t *ret)
{
	int rc = name.len > 0 ? name_find(txn, gateway, NAME_SESSION, name, ret)
			      : SLUICE_E_NOT_FOUND;

	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	*ret = 0;
	return 0;
}

int core_session_find(struct store_txn *txn, uint32_t gateway, uint64_t id, struct session_ref *ret)
{
	struct session session;
	int rc = session_get(txn, gateway, id, &session);

	if (rc == 0 && session.ended)
		return SLUICE_E_NOT_FOUND;
	if (rc != 0)
		return rc;
	memcpy(ret->secret, session.secret, sizeof(ret->secret));
	ret->timeout_ms = session.timeout_ms;
	ret->flags = session.flags;
	ret->face = session.face;
	return 0;
}

int core_session_owns(struct store_txn *txn, uint32_t gateway, uint64_t session, bool *ret)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	*ret = false;
	key_one(&key, gateway, session);
	rc = store_scan_begin(txn, STORE_OWNED, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	rc = store_scan_next(scan, &found, &value);
	*ret = rc == 0 && key_is_under(found, gateway, session);
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int core_session_each(struct store_txn *txn, int (*each)(void *user, const struct session_row *row),
		      void *user)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct session session;
	int rc = store_scan_begin(txn, STORE_SESSION, (struct sluice_slice){"", 0}, &scan);

	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		struct one_key id = {0, 0};

		rc = key_one_decode(found, &id) ? session_decode(value, &session)
						: store_damaged("its content is not valid");
		if (rc == 0 && !session.ended)
			rc = each(user,
				  &(struct session_row){id.gateway, id.number, session.timeout_ms,
							session.flags, session.address});
		if (rc != 0)
			break;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* Adds the jobs of a session from q->at.other on; q->again: there may be more. */
static int jobs_held(struct query *q, uint64_t session, uint64_t *io)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	key_owned(&key, q->gateway, session, OWNED_JOB, q->at.other);
	rc = store_scan_begin(q->txn, STORE_OWNED, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		uint64_t job;

		if (!key_owned_in(found, q->gateway, session, OWNED_JOB, &job))
			break;
		++*io;
		q->at.other = job + 1;
		q->again = query_spent(q);
		if (q->again)
			break;
	}
	store_scan_end(scan);
	if (!q->again)
		q->at.other = 0;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int session_row(struct query *q, uint64_t id, const struct session *session)
{
	Sluice__SessionInfo *info = malloc(sizeof(*info));

	if (info == NULL)
		return SLUICE_E_NOMEM;
	sluice__session_info__init(info);
	q->reply->sessions[q->reply->n_sessions++] = info;
	info->id = id;
	info->timeout_ms = session->timeout_ms;
	info->name = query_text(session->name);
	info->client = query_text(session->client);
	info->address = query_text(session->address);
	info->principal = query_text(session->principal);
	info->face = (Sluice__Face)session->face;
	info->ephemeral = (session->flags & SESSION_EPHEMERAL) != 0;
	if (info->name == NULL || info->client == NULL || info->address == NULL ||
	    info->principal == NULL)
		return SLUICE_E_NOMEM;
	return 0;
}

/* The next session's row, from q->at.number on; NOT_FOUND at the end of the list. */
static int session_next(struct query *q, uint32_t max)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct session session;
	struct key key;
	int rc;

	key_one(&key, q->gateway, q->at.number);
	rc = store_scan_begin(q->txn, STORE_SESSION, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		uint64_t id;

		if (!key_one_in(found, q->gateway, &id)) {
			rc = SLUICE_E_NOT_FOUND;
			break;
		}
		rc = session_decode(value, &session);
		if (rc != 0)
			break;
		q->at.number = id + 1;
		q->again = session.ended && query_spent(q);
		if (q->again)
			break;
		if (session.ended)
			continue;
		q->reply->more = q->reply->n_sessions == max;
		rc = q->reply->more ? SLUICE_E_NOT_FOUND : session_row(q, id, &session);
		break;
	}
	store_scan_end(scan);
	return rc;
}

/* Phase 0: the first turn. 1: the next row is due. 2: the jobs of the last row are counted. */
int session_query(struct query *q, const Sluice__Request *request)
{
	const Sluice__SessionList *list = request->session_list;
	uint32_t max = rows_max(list->max);
	Sluice__Reply *reply = q->reply;
	int rc = 0;

	if (list->after == UINT64_MAX)
		return 0;
	if (q->at.phase == 0) {
		reply->sessions = calloc(max, sizeof(*reply->sessions));
		if (reply->sessions == NULL)
			return SLUICE_E_NOMEM;
		q->at.number = list->after + 1;
		q->at.phase = 1;
	}
	while (rc == 0 && !q->again) {
		if (q->at.phase == 1) {
			rc = session_next(q, max);
			if (rc != 0 || q->again)
				break;
			q->at.phase = 2;
		}
		rc = jobs_held(q, reply->sessions[reply->n_sessions - 1]->id,
			       &reply->sessions[reply->n_sessions - 1]->jobs_held);
		if (rc == 0 && !q->again) {
			q->at.phase = 1;
			q->again = query_spent(q);
		}
	}
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int session_holder(struct store_txn *txn, uint32_t gateway, uint64_t id, char **ret_label,
		   char **ret_address)
{
	struct session session;
	int rc = session_get(txn, gateway, id, &session);

	if (rc != 0)
		return rc;
	*ret_label = query_text(session.name.len > 0 ? session.name : session.client);
	*ret_address = query_text(session.address);
	return *ret_label != NULL && *ret_address != NULL ? 0 : SLUICE_E_NOMEM;
}

int session_label(struct store_txn *txn, uint32_t gateway, uint64_t id, char **ret)
{
	struct session session;
	struct sluice_slice label;
	int rc = session_get(txn, gateway, id, &session);

	if (rc != 0)
		return rc;
	label = session.name.len > 0 ? session.name : session.client;
	*ret = query_text(label);
	return *ret != NULL ? 0 : SLUICE_E_NOMEM;
}
