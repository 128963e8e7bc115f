/* SPDX-License-Identifier: Apache-2.0
 * FollowOpen, ConsumeOpen and SubscriptionClose. */
#include "broker/net/native/native.h"

#include <string.h>

static struct sluice_slice slice_of(const char *text)
{
	return (struct sluice_slice){text, strlen(text)};
}

void native_follow_open(struct conn *conn, uint32_t corr, const Sluice__FollowOpen *m)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;
	Sluice__FollowOpened opened = SLUICE__FOLLOW_OPENED__INIT;
	const struct door_sub_spec spec = {.kind = DOOR_FOLLOW,
					   .name = slice_of(m->stream),
					   .expected_id = m->stream_id,
					   .credit = m->credit,
					   .from = (int)m->from,
					   .from_offset = m->offset,
					   .from_time_ms = m->time_ms,
					   .cursor = slice_of(m->cursor),
					   .filter = slice_of(m->filter),
					   .raw = m->raw};
	struct door_subscribed subscribed;
	int rc = door_subscribe(conn, m->subscription, &spec, &subscribed);

	if (rc != 0) {
		native_refuse_shown(conn, corr, subscribed.number, rc, "%s", subscribed.why);
		return;
	}
	opened.first_offset = subscribed.first_offset;
	opened.next_offset = subscribed.next_offset;
	opened.start_offset = subscribed.start_offset;
	opened.stream_id = subscribed.id;
	reply.follow_opened = &opened;
	reply.index = subscribed.index;
	native_reply_shown(conn, corr, subscribed.number, &reply);
}

void native_consume_open(struct conn *conn, uint32_t corr, const Sluice__ConsumeOpen *m)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;
	Sluice__ConsumeOpened opened = SLUICE__CONSUME_OPENED__INIT;
	const struct door_sub_spec spec = {.kind = DOOR_CONSUME,
					   .name = slice_of(m->queue),
					   .expected_id = m->queue_id,
					   .credit = m->credit,
					   .lease_ms = m->lease_ms,
					   .extend_max_ms = m->extend_max_ms,
					   .claim_flags =
						   (uint8_t)((m->orphans ? CLAIM_ORPHANS : 0) |
							     (m->resume ? CLAIM_RESUME : 0) |
							     (m->session_lease ? CLAIM_SESSION_LEASE
									       : 0) |
							     (m->reports ? CLAIM_REPORTS : 0)),
					   .source = slice_of(m->source)};
	struct door_subscribed subscribed;
	int rc = door_subscribe(conn, m->subscription, &spec, &subscribed);

	if (rc != 0) {
		native_refuse_shown(conn, corr, subscribed.number, rc, "%s", subscribed.why);
		return;
	}
	/* Deliveries arrive with a later release than the one that the answer waits for. */
	opened.kind = (Sluice__QueueKind)subscribed.queue_kind;
	opened.lease_ms = subscribed.lease_ms;
	opened.queue_id = subscribed.id;
	reply.consume_opened = &opened;
	reply.index = subscribed.index;
	native_reply_shown(conn, corr, subscribed.number, &reply);
}

void native_subscription_close(struct conn *conn, uint64_t tag, const Sluice__SubscriptionClose *m)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;

	if (tag >> 32 != NATIVE_CLOSED && door_unsubscribe(conn, m->subscription) != 0) {
		native_refuse_shown(conn, (uint32_t)tag, 0, SLUICE_E_NOT_FOUND,
				    "no subscription of this connection has number %u",
				    m->subscription);
		return;
	}
	native_reply_shown(conn, (uint32_t)tag, 0, &reply);
}

bool native_close_at_once(struct conn *conn, const Sluice__SubscriptionClose *m)
{
	struct door_sub sub;

	return door_sub_find(conn, m->subscription, &sub) && sub.kind == DOOR_CONSUME &&
	       !sub.closed && door_unsubscribe(conn, m->subscription) == 0;
}
