/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening a subscription, at first and after each reconnect: a follower continues at the next
 * offset, a consumer requests the entries that its session still holds (and drops those that the
 * application already has).
 */
#include <utlist.h>

#include "client/base/hash.h"
#include "client/base/loop.h"
#include "client/link/link.h"
#include "client/call/call.h"
#include "client/call/reply.h"
#include "client/sub/sub.h"
#include "protocol/limits.h"
#include "sluice.pb-c.h"

/* The same stream lacks events that it had: an older store was restored. The events at these
 * offsets are others. */
static bool went_back(const sluice_sub *sub, const Sluice__FollowOpened *opened)
{
	return opened != NULL && opened->next_offset < sub->length;
}

static void follow_opened(sluice_sub *sub, const Sluice__FollowOpened *opened)
{
	sub->thing = opened->stream_id;
	sub_stream_length(sub, opened->next_offset);
	if (sub->started)
		return;
	sub->next_offset = opened->start_offset;
	sub->started = true;
}

static void opened(sluice_client *client, struct call *call)
{
	sluice_sub *sub = call->hook_user;
	const sluice_reply *reply = call->reply;
	const Sluice__Reply *message;

	if (sub == NULL && reply != NULL && reply->code == 0)
		sub_unwanted(client, call);
	if (sub == NULL)
		return;
	if (reply == NULL || reply->code != 0)
		sub->coming = false;
	if (reply == NULL) {
		/* It was dropped unsent, or the connection broke; or there was no memory for the
		 * code. */
		if (client->state == STATE_READY && !sub->opened && sub->reopen_ms == 0)
			sub->reopen_ms = now_ms() + MEMORY_MS;
		return;
	}
	if (reply->code != 0) {
		if (!sluice_error_retriable(reply->code))
			sub_end(sub, reply->code, reply->text);
		else if (client->state == STATE_READY)
			sub->reopen_ms = now_ms() + MEMORY_MS;
		return;
	}
	message = reply->message;
	if (message != NULL && went_back(sub, message->follow_opened)) {
		sub_unwanted(client, call);
		sub_end(sub, SLUICE_E_NOT_FOUND,
			"the stream is shorter than it was: the broker's store is an older one");
		return;
	}
	sub->opened = sub->was_open = true;
	sub->due_ms = 0; /* leases whose extension was due meanwhile */
	if (message != NULL && message->follow_opened != NULL)
		follow_opened(sub, message->follow_opened);
	if (message != NULL && message->consume_opened != NULL) {
		sub->thing = message->consume_opened->queue_id;
		/* Brokers that report the number also support begin and release. */
		client->link->supports_begun = sub->thing != 0;
		sub->coming &= sub->thing != 0; /* older brokers do not report RESUMED */
	}
	sub_open_report(sub, 0, "");
}

/* The source of a consumer: registered, or permanently refused. After a temporary refusal, the
 * opening will show the result. */
static void source_answered(sluice_client *client, struct call *call)
{
	sluice_sub *sub = call->hook_user;
	const sluice_reply *reply = call->reply;

	(void)client;
	if (sub == NULL || reply == NULL)
		return;
	/* An older broker knows no sources: it gives orphans to each consumer that accepts them. */
	if (reply->code == 0 || reply->code == SLUICE_E_UNKNOWN_TYPE)
		sub->source_taken = true;
	else if (!sluice_error_retriable(reply->code))
		sub_end(sub, reply->code, reply->text);
}

static bool source_send(sluice_sub *sub)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__SourceSeen seen = SLUICE__SOURCE_SEEN__INIT;
	sluice_call options = SLUICE_CALL(.deadline_ms = -1);
	char text[] = "a consumer is opened";
	struct call *call;

	seen.source = sub->source;
	seen.ok = true;
	seen.text = text;
	seen.take = !sub->source_taken;
	request.op_case = SLUICE__REQUEST__OP_SOURCE_SEEN;
	request.source_seen = &seen;
	call = call_new(sub->client, &request, false, &options);
	if (call == NULL)
		return false;
	call->one_connection = true;
	call->hook = source_answered;
	call->hook_user = sub;
	return true;
}

/* The broker subtracts redeliveries, so a consumer's credit includes its held entries. */
static uint32_t credit_now(const sluice_sub *sub)
{
	uint64_t held = HASH_COUNT(sub->jobs);

	if (sub->follow)
		return sub->waiting_count < sub->credit ? sub->credit - (uint32_t)sub->waiting_count
							: 1;
	if (sub->draining)
		return 0; /* only held entries are redelivered */
	if (!sub->manual_credit)
		return sub->credit;
	for (const struct held *grant = sub->held; grant != NULL; grant = grant->hh.next)
		held += grant->out;
	return sub->credit + (uint32_t)held;
}

/* A queue that was open before has leases that may not be redelivered, and entries of them that the
 * application has count as well. So no credit is requested until they are known (resume_complete).
 * Brokers that report the queue's number also report RESUMED. */
static bool credit_waits(const sluice_sub *sub)
{
	return !sub->follow && sub->thing != 0;
}

struct call *sub_open_call(sluice_sub *sub)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__FollowOpen follow = SLUICE__FOLLOW_OPEN__INIT;
	Sluice__ConsumeOpen consume = SLUICE__CONSUME_OPEN__INIT;
	sluice_call options = SLUICE_CALL(.deadline_ms = -1);
	struct call *call;

	sub->owed = 0;
	sub->reopen_ms = 0;
	sub->resuming = credit_waits(sub);
	sub->debt = sub->follow || sub->resuming ? 0 : held_by_others(sub);
	held_ask(sub);
	if (sub->source != NULL && !source_send(sub)) {
		sub->reopen_ms = now_ms() + MEMORY_MS;
		return NULL;
	}
	if (sub->follow) {
		follow.stream = sub->name;
		follow.subscription = sub->number;
		follow.filter = sub->filter;
		follow.cursor = sub->cursor;
		follow.raw = true;
		follow.credit = credit_now(sub);
		follow.from = sub->started ? SLUICE__FOLLOW_FROM__FROM_OFFSET
					   : (Sluice__FollowFrom)sub->from;
		follow.offset = sub->started ? sub->next_offset : sub->offset;
		follow.time_ms = sub->time_ms;
		follow.stream_id = sub->thing;
		request.op_case = SLUICE__REQUEST__OP_FOLLOW_OPEN;
		request.follow_open = &follow;
	} else {
		consume.queue = sub->name;
		consume.subscription = sub->number;
		consume.credit = sub->resuming ? 0 : credit_now(sub);
		if (sub->debt > LIMIT_CREDIT_MAX - consume.credit)
			sub->debt = (uint32_t)LIMIT_CREDIT_MAX - consume.credit;
		consume.credit += sub->debt;
		consume.lease_ms = sub->lease_ms;
		consume.extend_max_ms = held_extend_max(sub);
		consume.queue_id = sub->thing;
		consume.orphans = sub->orphans;
		consume.resume = true;
		consume.session_lease = sub->session_lease;
		consume.reports = sub->reports;
		consume.source = sub->source != NULL ? sub->source : consume.source;
		request.op_case = SLUICE__REQUEST__OP_CONSUME_OPEN;
		request.consume_open = &consume;
	}
	/* Not repeated automatically: subs_open makes a new one after each connect, with the state
	 * at that time. */
	call = call_new(sub->client, &request, false, &options);
	if (call != NULL) {
		call->one_connection = true;
		call->hook = opened;
		call->hook_user = sub;
		call->sub_number = sub->number;
		sub->coming = !sub->follow;
	} else {
		sub->reopen_ms = now_ms() + MEMORY_MS;
	}
	return call;
}

/* An opening that was not sent on the last connection: on the new one the broker would refuse the
 * second of the two. */
static void unsent_drop(const sluice_sub *sub)
{
	struct call *call, *next;

	DL_FOREACH_SAFE(sub->client->calls->ordered, call, next) {
		if ((call->hook != opened && call->hook != source_answered) ||
		    call->hook_user != sub || call->sent)
			continue;
		call->hook = NULL;
		call_finish(sub->client, call, NULL);
	}
}

void subs_open(sluice_client *client)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs->all, sub, next) {
		struct call *call;

		unsent_drop(sub);
		call = sub->ended || sub->closing || sub->opened ? NULL : sub_open_call(sub);
		if (call == NULL)
			continue;
		/* Ahead of acks and others, which need the subscription. Not one with a source: the
		 * broker opens it after all earlier frames, so that redelivered jobs reflect the
		 * pending reports. */
		if (sub->source == NULL)
			call_first(client, call);
	}
}

struct call *sub_close_call(sluice_client *client, uint32_t number, const sluice_call *options)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__SubscriptionClose message = SLUICE__SUBSCRIPTION_CLOSE__INIT;
	struct call *call;

	message.subscription = number;
	request.op_case = SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE;
	request.subscription_close = &message;
	call = call_new(client, &request, false, options);
	if (call != NULL)
		call->one_connection = true;
	return call;
}

void sub_unwanted(sluice_client *client, const struct call *call)
{
	sluice_call options = SLUICE_CALL(.deadline_ms = -1);

	if (sub_close_call(client, call->sub_number, &options) == NULL)
		link_lacks(client); /* its deliveries would have no consumer */
}
