/* SPDX-License-Identifier: Apache-2.0
 * The calls of a protocol: subscriptions. A stream or a queue is found in a snapshot, and the
 * subscription begins; no commit is needed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/answer.h"
#include "broker/net/conn/door.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/sessions.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

#define REFUSE(ret, code, ...) ((void)snprintf((ret)->why, sizeof((ret)->why), __VA_ARGS__), (code))
/* For "%.*s" of a name. */
#define TEXT(slice, max) \
	(int)((slice).len < (max) ? (slice).len : (max)), (const char *)(slice).data

static int fail(struct door_subscribed *ret, int rc)
{
	return REFUSE(ret, rc, "%s",
		      rc == SLUICE_E_NOMEM ? "the broker is out of memory; try again"
					   : sluice_error_text(rc));
}

/* ---- both ---- */

static int bounds_check(const struct conn *conn, uint64_t number, const struct door_sub_spec *spec,
			struct door_subscribed *ret)
{
	if (number == 0)
		return REFUSE(ret, SLUICE_E_INVAL,
			      "subscription number 0; expected one chosen by the client, not 0");
	if (sub_find(conn, number) != NULL)
		return REFUSE(ret, SLUICE_E_EXISTS,
			      "subscription number %llu is in use on this connection", ULL(number));
	if (HASH_CNT(hh_number, conn->subs) >= LIMIT_SUBSCRIPTIONS_MAX)
		return REFUSE(ret, SLUICE_E_LIMIT, "this connection has %llu subscriptions already",
			      ULL(LIMIT_SUBSCRIPTIONS_MAX));
	if (atomic_load_explicit(&conn->io->net->subs, memory_order_relaxed) >=
	    LIMIT_SUBSCRIPTIONS_ALL_MAX)
		return REFUSE(ret, SLUICE_E_LIMIT, "the broker has %llu subscriptions already",
			      ULL(LIMIT_SUBSCRIPTIONS_ALL_MAX));
	if (spec->credit > LIMIT_CREDIT_MAX)
		return REFUSE(ret, SLUICE_E_LIMIT, "credit of %u; expected at most %llu",
			      spec->credit, ULL(LIMIT_CREDIT_MAX));
	return 0;
}

/* For security.c, which asks for the right to it again. */
static bool name_copy(struct sub *sub, struct sluice_slice name)
{
	char *copy = strndup(name.data, name.len);

	sub->name = (struct sluice_slice){copy, name.len};
	return copy != NULL;
}

/* ---- followers ---- */

static int start_offset(struct store_txn *txn, uint32_t gateway, const struct door_sub_spec *spec,
			const struct stream_ref *stream, uint64_t *ret)
{
	int rc = 0;

	switch (spec->from) {
	case SLUICE__FOLLOW_FROM__FROM_FIRST:
		*ret = stream->first_offset;
		break;
	case SLUICE__FOLLOW_FROM__FROM_LAST:
		*ret = stream->next_offset > stream->first_offset ? stream->next_offset - 1
								  : stream->next_offset;
		break;
	case SLUICE__FOLLOW_FROM__FROM_OFFSET:
		*ret = spec->from_offset;
		break;
	case SLUICE__FOLLOW_FROM__FROM_TIME:
		rc = core_stream_seek_time(txn, gateway, stream->log, spec->from_time_ms, ret);
		break;
	case SLUICE__FOLLOW_FROM__FROM_CURSOR:
		rc = core_cursor_find(txn, gateway, stream->id, spec->cursor, ret);
		if (rc == SLUICE_E_NOT_FOUND) {
			*ret = stream->first_offset;
			rc = 0;
		}
		break;
	case SLUICE__FOLLOW_FROM__FROM_NEW:
		*ret = stream->next_offset;
		break;
	default:
		rc = SLUICE_E_INVAL;
		break;
	}
	return rc;
}

static int follow_add(struct conn *conn, uint64_t number, const struct door_sub_spec *spec,
		      const struct stream_ref *stream, const struct door_subscribed *found)
{
	struct sub *sub = calloc(1, sizeof(*sub));
	int rc;

	if (sub == NULL)
		return SLUICE_E_NOMEM;
	sub->kind = DOOR_FOLLOW;
	sub->key = (struct sub_key){conn->gateway, stream->id};
	sub->log = stream->log;
	sub->next = found->start_offset;
	sub->limit = stream->next_offset;
	sub->shows = answer_number(conn, found->number);
	sub->credit = spec->credit;
	sub->raw = spec->raw;
	if (!name_copy(sub, spec->name)) {
		free(sub);
		return SLUICE_E_NOMEM;
	}
	if (spec->filter.len > 0 &&
	    !(spec->filter.len == 1 && *(const char *)spec->filter.data == '>')) {
		sub->filter = strndup(spec->filter.data, spec->filter.len);
		if (sub->filter == NULL) {
			free((void *)(uintptr_t)sub->name.data);
			free(sub);
			return SLUICE_E_NOMEM;
		}
	}
	rc = sub_add(conn, &sub, number);
	if (rc == 0)
		sub_wants_pump(sub_find(conn, number));
	return rc;
}

/* A name is no identity. Offsets of an older stream with the same name mean nothing here: events
 * would be skipped without a notice. */
static int same_check(const char *noun, const struct door_sub_spec *spec, uint64_t id,
		      struct door_subscribed *ret)
{
	if (spec->expected_id == 0 || spec->expected_id == id)
		return 0;
	return REFUSE(ret, SLUICE_E_NOT_FOUND,
		      "%s '%.*s' was deleted and created again: it is number %llu, not %llu", noun,
		      TEXT(spec->name, 150), ULL(id), ULL(spec->expected_id));
}

static int follow(struct conn *conn, uint64_t number, const struct door_sub_spec *spec,
		  struct door_subscribed *ret)
{
	struct store_txn *txn = NULL;
	struct stream_ref stream = {0};
	const char *why = "";
	int rc;

	if (spec->filter.len > 0 && pattern_check(spec->filter, &why) != 0)
		return REFUSE(ret, SLUICE_E_INVAL, "filter: %s", why);
	rc = engine_read_begin(conn->io->engine, &txn, &ret->number);
	if (rc == 0)
		rc = core_stream_find(txn, conn->gateway, spec->name, &stream);
	if (rc == SLUICE_E_NOT_FOUND)
		(void)REFUSE(ret, rc, "stream '%.*s' does not exist", TEXT(spec->name, 200));
	if (rc == 0)
		rc = same_check("stream", spec, stream.id, ret);
	if (rc == 0)
		rc = start_offset(txn, conn->gateway, spec, &stream, &ret->start_offset);
	if (rc == 0)
		rc = core_index_read(txn, conn->gateway, &ret->index);
	store_abort(txn);
	if (rc == 0)
		rc = follow_add(conn, number, spec, &stream, ret);
	if (rc != 0)
		return ret->why[0] != 0 ? rc : fail(ret, rc);
	ret->id = stream.id;
	ret->first_offset = stream.first_offset;
	ret->next_offset = stream.next_offset;
	return 0;
}

/* ---- consumers ---- */

/* The queue and the source that it names, as they are now. */
static int consume_find(struct conn *conn, const struct door_sub_spec *spec,
			struct queue_ref *ret_queue, uint64_t *ret_source,
			struct door_subscribed *ret)
{
	struct store_txn *txn = NULL;
	int rc, source_rc = 0;

	rc = engine_read_begin(conn->io->engine, &txn, &ret->number);
	if (rc == 0)
		rc = core_queue_find(txn, conn->gateway, spec->name, ret_queue);
	if (rc == 0 && spec->source.len > 0)
		source_rc = core_source_find(txn, conn->gateway, spec->source, ret_source);
	if (rc == 0 && source_rc == 0)
		rc = core_index_read(txn, conn->gateway, &ret->index);
	store_abort(txn);
	if (rc != 0)
		return REFUSE(ret, rc, "queue '%.*s' %s", TEXT(spec->name, 200),
			      rc == SLUICE_E_NOT_FOUND ? "does not exist" : "cannot be read");
	if (source_rc != 0)
		return REFUSE(ret, source_rc == SLUICE_E_NOT_FOUND ? SLUICE_E_BUSY : source_rc,
			      "source '%.*s' is not known; expected a source_seen for it first",
			      TEXT(spec->source, 200));
	return same_check("queue", spec, ret_queue->id, ret);
}

static int consume_add(struct conn *conn, uint64_t number, const struct door_sub_spec *spec,
		       const struct queue_ref *queue, uint64_t source, uint64_t session)
{
	struct consumer_spec consumer = {.gateway = conn->gateway,
					 .queue = queue->id,
					 .session = session,
					 .lease_ms = spec->lease_ms,
					 .credit = spec->credit,
					 .claim_flags = spec->claim_flags,
					 .extend_max_ms = spec->extend_max_ms,
					 .source = source,
					 .sink = &conn->io->sink};
	struct sub *sub = calloc(1, sizeof(*sub));
	int rc;

	if (sub == NULL || !name_copy(sub, spec->name)) {
		free(sub);
		return SLUICE_E_NOMEM;
	}
	sub->kind = DOOR_CONSUME;
	sub->key = (struct sub_key){conn->gateway, queue->id};
	sub->queue_kind = queue->kind;
	sub->session = session;
	rc = sub_add(conn, &sub, number);
	return rc != 0 ? rc : sub_consume(sub_find(conn, number), &consumer);
}

static int consume(struct conn *conn, uint64_t number, const struct door_sub_spec *spec,
		   struct door_subscribed *ret)
{
	struct queue_ref queue = {0};
	struct held_session *held;
	uint64_t source = 0;
	int rc;

	held = spec->session != 0 ? session_held(conn, spec->session) : conn->own;
	if (held == NULL && spec->session == 0)
		return REFUSE(ret, SLUICE_E_WRONG_STATE, "a consumer needs a session");
	if (held == NULL)
		return REFUSE(ret, SLUICE_E_DENIED, "this connection does not hold session %llu",
			      ULL(spec->session));
	if (spec->lease_ms != 0 &&
	    (spec->lease_ms < LIMIT_LEASE_MS_MIN || spec->lease_ms > LIMIT_LEASE_MS_MAX))
		return REFUSE(ret, SLUICE_E_LIMIT, "lease_ms is %u; expected 0 or %llu to %llu",
			      spec->lease_ms, ULL(LIMIT_LEASE_MS_MIN), ULL(LIMIT_LEASE_MS_MAX));
	rc = consume_find(conn, spec, &queue, &source, ret);
	if (rc != 0)
		return rc;
	if (spec->items_only && queue.kind != SLUICE__QUEUE_KIND__QUEUE_ITEMS)
		return REFUSE(ret, SLUICE_E_UNSUPPORTED, "queue '%.*s' holds jobs",
			      TEXT(spec->name, 200));
	session_use(held);
	held->used = true;
	rc = consume_add(conn, number, spec, &queue, source, held->session);
	if (rc != 0)
		return fail(ret, rc);
	ret->id = queue.id;
	ret->queue_kind = queue.kind;
	ret->lease_ms = spec->lease_ms != 0 ? spec->lease_ms : queue.lease_ms;
	return 0;
}

/* ---- the calls ---- */

int door_subscribe(struct conn *conn, uint64_t number, const struct door_sub_spec *spec,
		   struct door_subscribed *ret)
{
	int rc;

	*ret = (struct door_subscribed){0};
	rc = conn_may_begin(conn);
	if (rc == SLUICE_E_WRONG_STATE)
		return REFUSE(ret, rc, "a subscription needs a gateway");
	if (rc == 0)
		rc = bounds_check(conn, number, spec, ret);
	if (rc != 0)
		return rc;
	rc = admit(conn, sub_permission(&(struct sub){.kind = spec->kind}), spec->name, 0);
	if (rc != 0)
		return fail(ret, rc);
	return spec->kind == DOOR_FOLLOW ? follow(conn, number, spec, ret)
					 : consume(conn, number, spec, ret);
}

int door_credit(struct conn *conn, uint64_t number, uint32_t more)
{
	struct sub *sub = sub_find(conn, number);
	bool starved;

	if (sub == NULL)
		return SLUICE_E_NOT_FOUND;
	if (more > LIMIT_CREDIT_MAX)
		return SLUICE_E_LIMIT;
	if (sub->kind == DOOR_CONSUME) {
		if (engine_consumer_credit(conn->io->engine, &conn->io->sink, sub->tag, more) == 0)
			return 0;
		conn_block(conn);
		return SLUICE_E_BUSY;
	}
	starved = sub->credit == 0;
	sub->credit = sub->credit + more > LIMIT_CREDIT_MAX ? LIMIT_CREDIT_MAX : sub->credit + more;
	/* With credit left the follower is at the end of the stream, or waits for its output: both
	 * continue otherwise. */
	if (starved)
		sub_wants_pump(sub);
	return 0;
}

int door_unsubscribe(struct conn *conn, uint64_t number)
{
	struct sub *sub = sub_find(conn, number);

	if (sub == NULL || sub->ending)
		return SLUICE_E_NOT_FOUND;
	if (sub->pumped)
		sub->ending = true;
	else
		sub_close(sub);
	return 0;
}

void door_sub_get(const struct sub *sub, struct door_sub *ret)
{
	*ret = (struct door_sub){.conn = sub->conn,
				 .number = sub->number,
				 .kind = sub->kind,
				 .id = sub->key.id,
				 .closed = sub->closed,
				 .next = sub->next,
				 .credit = sub->credit,
				 .raw = sub->raw,
				 .filter = sub->filter};
}

bool door_sub_find(const struct conn *conn, uint64_t number, struct door_sub *ret)
{
	const struct sub *sub = sub_find_settling(conn, number);

	if (sub == NULL)
		return false;
	door_sub_get(sub, ret);
	return true;
}

void door_delivered(struct sub *sub, uint64_t next, uint64_t count)
{
	invariant(sub->kind == DOOR_FOLLOW && next >= sub->next && count <= sub->credit,
		  "subscription %llu at %llu, credit %llu: delivered %llu events up to %llu",
		  ULL(sub->number), ULL(sub->next), ULL(sub->credit), ULL(count), ULL(next));
	sub->next = next;
	sub->credit -= count;
}
