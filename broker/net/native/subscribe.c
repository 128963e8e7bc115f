/* SPDX-License-Identifier: Apache-2.0
 * FollowOpen, ConsumeOpen and SubscriptionClose: a stream or a queue is found in a snapshot, and
 * the subscription begins. No commit is needed. */
#include "broker/net/native/native.h"

#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/internal.h"
#include "broker/net/conn/sub.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

static int start_offset(struct store_txn *txn, struct conn *conn, const Sluice__FollowOpen *m,
			const struct stream_ref *stream, uint64_t *ret)
{
	int rc = 0;

	switch (m->from) {
	case SLUICE__FOLLOW_FROM__FROM_FIRST:
		*ret = stream->first_offset;
		break;
	case SLUICE__FOLLOW_FROM__FROM_LAST:
		*ret = stream->next_offset > stream->first_offset ? stream->next_offset - 1
								  : stream->next_offset;
		break;
	case SLUICE__FOLLOW_FROM__FROM_OFFSET:
		*ret = m->offset;
		break;
	case SLUICE__FOLLOW_FROM__FROM_TIME:
		rc = core_stream_seek_time(txn, conn->gateway, stream->log, m->time_ms, ret);
		break;
	case SLUICE__FOLLOW_FROM__FROM_CURSOR:
		rc = core_cursor_find(txn, conn->gateway, stream->id,
				      (struct sluice_slice){m->cursor, strlen(m->cursor)}, ret);
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

static bool sub_number_ok(struct conn *conn, uint32_t corr, uint32_t number, uint32_t credit)
{
	if (number == 0)
		native_refuse(conn, corr, SLUICE_E_INVAL,
			      "subscription number 0; expected one chosen by the client, not 0");
	else if (sub_find(conn, number) != NULL)
		native_refuse(conn, corr, SLUICE_E_EXISTS,
			      "subscription number %u is in use on this connection", number);
	else if (HASH_CNT(hh_number, conn->subs) >= LIMIT_SUBSCRIPTIONS_MAX)
		native_refuse(conn, corr, SLUICE_E_LIMIT,
			      "this connection has %llu subscriptions already",
			      (unsigned long long)LIMIT_SUBSCRIPTIONS_MAX);
	else if (credit > LIMIT_CREDIT_MAX)
		native_refuse(conn, corr, SLUICE_E_LIMIT, "credit of %u; expected at most %llu",
			      credit, (unsigned long long)LIMIT_CREDIT_MAX);
	else
		return true;
	return false;
}

static struct sub *follow_new(struct conn *conn, const Sluice__FollowOpen *m,
			      const struct stream_ref *stream, uint64_t start)
{
	struct sub *sub = calloc(1, sizeof(*sub));

	if (sub == NULL)
		return NULL;
	sub->kind = SUB_FOLLOW;
	sub->key = (struct sub_key){conn->gateway, stream->id};
	sub->log = stream->log;
	sub->next = start;
	sub->credit = m->credit;
	sub->raw = m->raw;
	if (m->filter[0] != 0 && strcmp(m->filter, ">") != 0) {
		sub->filter = strdup(m->filter);
		if (sub->filter == NULL) {
			free(sub);
			return NULL;
		}
	}
	if (sub_add(conn, &sub, m->subscription) != 0)
		return NULL;
	return sub_find(conn, m->subscription);
}

/* Refused already: the name belongs to another stream than the client followed. */
enum { NOT_THE_SAME = 1 };

/* A name is no identity. Offsets of an older stream with the same name mean nothing here: events
 * would be skipped without a notice. */
static int stream_same(struct conn *conn, uint32_t corr, const Sluice__FollowOpen *m,
		       const struct stream_ref *stream)
{
	if (m->stream_id == 0 || stream->id == m->stream_id)
		return 0;
	native_refuse(conn, corr, SLUICE_E_NOT_FOUND,
		      "stream '%.150s' was deleted and created again: it is number %llu, not %llu",
		      m->stream, (unsigned long long)stream->id, (unsigned long long)m->stream_id);
	return NOT_THE_SAME;
}

void native_follow_open(struct conn *conn, uint32_t corr, const Sluice__FollowOpen *m)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;
	Sluice__FollowOpened opened = SLUICE__FOLLOW_OPENED__INIT;
	struct store_txn *txn = NULL;
	struct stream_ref stream = {0};
	struct sub *sub;
	const char *why = "";
	uint64_t sequence, start = 0;
	int rc;

	if (!sub_number_ok(conn, corr, m->subscription, m->credit))
		return;
	if (m->filter[0] != 0 &&
	    pattern_check((struct sluice_slice){m->filter, strlen(m->filter)}, &why) != 0) {
		native_refuse(conn, corr, SLUICE_E_INVAL, "filter: %s", why);
		return;
	}
	rc = engine_read_begin(conn->io->engine, &txn, &sequence);
	if (rc == 0)
		rc = core_stream_find(txn, conn->gateway,
				      (struct sluice_slice){m->stream, strlen(m->stream)}, &stream);
	if (rc == 0)
		rc = stream_same(conn, corr, m, &stream);
	if (rc == 0)
		rc = start_offset(txn, conn, m, &stream, &start);
	store_abort(txn);
	if (rc == NOT_THE_SAME)
		return;
	if (rc == SLUICE_E_NOT_FOUND) {
		native_refuse(conn, corr, rc, "stream '%.200s' does not exist", m->stream);
		return;
	}
	sub = rc == 0 ? follow_new(conn, m, &stream, start) : NULL;
	if (sub == NULL) {
		rc = rc != 0 ? rc : SLUICE_E_NOMEM;
		native_refuse(conn, corr, rc, "%s", sluice_error_text(rc));
		return;
	}
	opened.first_offset = stream.first_offset;
	opened.next_offset = stream.next_offset;
	opened.start_offset = start;
	opened.stream_id = stream.id;
	reply.follow_opened = &opened;
	native_message(conn, FRAME_REPLY, corr, &reply.base);
	sub_wants_pump(sub);
}

/* The queue and the source that it names, as they are now. False: refused. */
static bool consume_find(struct conn *conn, uint32_t corr, const Sluice__ConsumeOpen *m,
			 struct queue_ref *ret_queue, uint64_t *ret_source)
{
	struct store_txn *txn = NULL;
	uint64_t sequence;
	int rc, source_rc = 0;

	rc = engine_read_begin(conn->io->engine, &txn, &sequence);
	if (rc == 0)
		rc = core_queue_find(txn, conn->gateway,
				     (struct sluice_slice){m->queue, strlen(m->queue)}, ret_queue);
	if (rc == 0 && m->source[0] != 0)
		source_rc = core_source_find(txn, conn->gateway,
					     (struct sluice_slice){m->source, strlen(m->source)},
					     ret_source);
	store_abort(txn);
	if (rc != 0)
		native_refuse(conn, corr, rc,
			      rc == SLUICE_E_NOT_FOUND ? "queue '%.200s' does not exist"
						       : "queue '%.200s' cannot be read",
			      m->queue);
	else if (source_rc != 0)
		native_refuse(conn, corr,
			      source_rc == SLUICE_E_NOT_FOUND ? SLUICE_E_BUSY : source_rc,
			      "source '%.200s' is not known; expected a source_seen for it "
			      "first",
			      m->source);
	else if (m->queue_id != 0 && m->queue_id != ret_queue->id)
		native_refuse(conn, corr, SLUICE_E_NOT_FOUND,
			      "queue '%.150s' was deleted and created again: it is number %llu, "
			      "not %llu",
			      m->queue, (unsigned long long)ret_queue->id,
			      (unsigned long long)m->queue_id);
	else
		return true;
	return false;
}

void native_consume_open(struct conn *conn, uint32_t corr, const Sluice__ConsumeOpen *m)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;
	Sluice__ConsumeOpened opened = SLUICE__CONSUME_OPENED__INIT;
	struct consumer_spec spec = {.gateway = conn->gateway,
				     .session = conn->session,
				     .lease_ms = m->lease_ms,
				     .credit = m->credit,
				     .extend_max_ms = m->extend_max_ms,
				     .sink = &conn->io->sink};
	struct queue_ref queue = {0};
	struct sub *sub;
	int rc;

	if (!sub_number_ok(conn, corr, m->subscription, m->credit))
		return;
	if (m->lease_ms != 0 &&
	    (m->lease_ms < LIMIT_LEASE_MS_MIN || m->lease_ms > LIMIT_LEASE_MS_MAX)) {
		native_refuse(conn, corr, SLUICE_E_LIMIT,
			      "lease_ms is %u; expected 0 or %llu to %llu", m->lease_ms,
			      (unsigned long long)LIMIT_LEASE_MS_MIN,
			      (unsigned long long)LIMIT_LEASE_MS_MAX);
		return;
	}
	if (!consume_find(conn, corr, m, &queue, &spec.source))
		return;
	sub = calloc(1, sizeof(*sub));
	if (sub == NULL) {
		native_refuse(conn, corr, SLUICE_E_BUSY, "the broker is out of memory; try again");
		return;
	}
	sub->kind = SUB_CONSUME;
	sub->key = (struct sub_key){conn->gateway, queue.id};
	sub->queue_kind = queue.kind;
	spec.queue = queue.id;
	spec.claim_flags =
		(uint8_t)((m->orphans ? CLAIM_ORPHANS : 0) | (m->resume ? CLAIM_RESUME : 0) |
			  (m->session_lease ? CLAIM_SESSION_LEASE : 0) |
			  (m->reports ? CLAIM_REPORTS : 0));
	rc = sub_add(conn, &sub, m->subscription);
	if (rc == 0)
		rc = sub_consume(sub_find(conn, m->subscription), &spec);
	if (rc != 0) {
		native_refuse(conn, corr, rc, "%s", sluice_error_text(rc));
		return;
	}
	/* Deliveries arrive with a release, which this thread handles later: they follow the
	 * answer. */
	opened.kind = (Sluice__QueueKind)queue.kind;
	opened.lease_ms = m->lease_ms != 0 ? m->lease_ms : queue.lease_ms;
	opened.queue_id = queue.id;
	reply.consume_opened = &opened;
	native_message(conn, FRAME_REPLY, corr, &reply.base);
}

void native_subscription_close(struct conn *conn, uint32_t corr, const Sluice__SubscriptionClose *m)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;
	struct sub *sub = sub_find_settling(conn, m->subscription);

	if (sub == NULL || (sub->closed && !sub->close_unanswered)) {
		native_refuse(conn, corr, SLUICE_E_NOT_FOUND,
			      "no subscription of this connection has number %u", m->subscription);
		return;
	}
	if (sub->closed)
		sub->close_unanswered = false;
	else
		sub_close(sub);
	native_message(conn, FRAME_REPLY, corr, &reply.base);
}

void native_close_at_once(struct conn *conn, const Sluice__SubscriptionClose *m)
{
	struct sub *sub = sub_find(conn, m->subscription);

	if (sub == NULL || sub->kind != SUB_CONSUME)
		return;
	sub->close_unanswered = true;
	sub_close(sub);
}
