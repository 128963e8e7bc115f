/* SPDX-License-Identifier: Apache-2.0
 * Leases of items: extended after half of their time, while the application is active; their end is
 * reported once. */
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/call/call.h"
#include "client/call/reply.h"
#include "client/sub/sub.h"
#include "protocol/frame.h"

void held_extended(sluice_sub *sub, sluice_token token, uint32_t lease_ms)
{
	struct held *held = held_find(sub, token);

	if (held == NULL || held->lease_ms == 0)
		return;
	if (lease_ms != 0)
		held->lease_ms = lease_ms;
	held->lost = false;
	held_begin(sub, held);
}

/* Once for each lease. Its items stay on account of the credit until the application has acked or
 * nacked them: it is still working on them. The callback may call any function of the
 * subscription. */
void held_lost(sluice_sub *sub, struct held *held, int code, const char *why)
{
	uint32_t undelivered;

	if (held->lost)
		return;
	held->lost = true;
	held->due_ms = UINT64_MAX;
	undelivered = undelivered_drop(sub, held->token, NULL);
	held->out -= undelivered;
	if (held->seen)
		sub_credit_back(sub, undelivered);
	if (held->out == 0) { /* the application had none of its items */
		if (held->seen)
			held_done(sub, held);
		return;
	}
	client_notice(sub->client, &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_LEASE_LOST,
						.code = code, .text = why, .token = held->token,
						.sub = sub, .items = held->out));
}

static void extend_answered(sluice_client *client, struct call *call)
{
	sluice_sub *sub = call->hook_user;
	struct held *held = sub != NULL ? held_find(sub, call->token) : NULL;
	int code = call->reply != NULL ? call->reply->code : SLUICE_E_UNKNOWN;

	(void)client;
	if (held == NULL || code == 0)
		return;
	if (code == SLUICE_E_STALE_TOKEN || code == SLUICE_E_NOT_FOUND)
		held_lost(sub, held, code, call->reply->text);
	else if (!held->lost)
		held_due_set(sub, held, now_ms() + held->lease_ms / 8); /* temporarily refused */
}

/* False: no memory; it is retried. */
static bool held_extend(sluice_sub *sub, struct held *held, uint64_t now)
{
	struct frame_ack frame = {.subscription = sub->number,
				  .op = ACK_EXTEND,
				  .token = held->token,
				  .value_ms = held->lease_ms};
	sluice_call options = SLUICE_CALL(.deadline_ms = -1);
	uint8_t *body = mem_alloc(frame_ack_size(&frame));
	struct call *call = body != NULL
				    ? call_new_frame(sub->client, FRAME_ACK, body,
						     frame_ack_encode(body, &frame, NULL), &options)
				    : NULL;

	if (call == NULL) {
		mem_free(body);
		held->due_ms = now + MEMORY_MS;
		return false;
	}
	call->hook = extend_answered;
	call->hook_user = sub;
	call->token = held->token;
	held_lease(sub, held, now);
	return true;
}

/* Extends leases that are due, and reports those that have ended. The end of an extended lease
 * while there is no connection is reported by the broker, after the reconnect: a broker that was
 * away extends leases by itself. */
void held_due(sluice_sub *sub, uint64_t now)
{
	bool connected = sub->client->state == STATE_READY && sub->opened;
	struct held *held = sub->held;

	sub->due_ms = UINT64_MAX; /* computed below; additions by callbacks lower it, too */
	while (held != NULL && !sub->closing) {
		struct held *next = held->hh.next;
		sluice_token next_token = next != NULL ? next->token : 0;
		bool ended = held->due_ms <= now && held->due_ms == held->ends_ms;

		if (held->due_ms <= now && !ended && connected)
			(void)held_extend(sub, held, now);
		if (held->due_ms > now || !ended) {
			if (connected || held->due_ms > now)
				sub->due_ms =
					held->due_ms < sub->due_ms ? held->due_ms : sub->due_ms;
			held = next;
			continue;
		}
		held_lost(sub, held, SLUICE_E_TIMEOUT,
			  sub->client->config.lease_extend
				  ? "the lease ended: it was extended for as long as it is without "
				    "a word of the application "
				    "(lease_extend_max_ms)"
				  : "the lease ended: it is not extended by itself (lease_extend)");
		held = next_token != 0 ? held_find(sub, next_token) : NULL;
		/* The callback acked it: earlier ones are done already. */
		if (next_token != 0 && held == NULL)
			held = sub->held;
	}
}
