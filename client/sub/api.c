/* SPDX-License-Identifier: Apache-2.0
 * The public functions of followers and consumers. */
#include <string.h>
#include <utlist.h>

#include "client/base/error.h"
#include "client/base/hash.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/base/sized.h"
#include "client/link/link.h"
#include "client/call/call.h"
#include "client/sub/sub.h"
#include "protocol/frame.h"
#include "protocol/limits.h"

static sluice_sub *sub_new(sluice_client *client, const char *name, const char *cursor,
			   const char *filter)
{
	sluice_sub *sub = mem_alloc(sizeof(*sub));

	if (sub == NULL)
		return NULL;
	sub->client = client;
	sub->name = mem_text(name, strlen(name));
	sub->cursor = mem_text(cursor != NULL ? cursor : "", cursor != NULL ? strlen(cursor) : 0);
	sub->filter = mem_text(filter != NULL ? filter : "", filter != NULL ? strlen(filter) : 0);
	sub->number = ++client->subs->next_number;
	sub->due_ms = UINT64_MAX;
	if (sub->name != NULL && sub->cursor != NULL && sub->filter != NULL)
		HASH_ADD(hh, client->subs->all, number, sizeof(sub->number), sub);
	if (!HASHED(sub)) {
		sub_free(sub);
		return NULL;
	}
	return sub;
}

/* ---- opening ---- */

/* Waits, with the lock held, until it was open or has ended. One that was open is returned even if
 * it has ended by now: there may be deliveries from before. */
static int open_wait(sluice_sub *sub, uint64_t deadline)
{
	sluice_client *client = sub->client;
	const char *why = "";
	int rc = 0;

	sub->waiters++;
	while (!sub->was_open && !sub->ended && !sub->closing && rc == 0) {
		if (now_ms() >= deadline)
			rc = SLUICE_E_TIMEOUT;
		else
			client_wait_some(client, deadline, 20);
	}
	if (sub->closing) {
		rc = SLUICE_E_CLOSED;
		why = "a callback of the subscription closed it";
	} else if (sub->was_open) {
		rc = 0;
	} else if (sub->ended) {
		rc = sub->end_code;
		why = sub->end_text;
	} else if (rc != 0 && client->state != STATE_READY) {
		why = client->error;
	}
	(void)error_set(rc, why);
	sub->waiters--;
	return rc;
}

/* Opens now when connected (otherwise subs_open does after the connect), and waits for the answer
 * unless done is given. Unlocks. */
static int open_and_wait(sluice_sub *sub, const sluice_call *options, sluice_sub **ret)
{
	sluice_client *client = sub->client;
	uint64_t deadline = deadline_of(client, options != NULL ? options->deadline_ms : 0);
	int rc = client->state == STATE_READY && sub_open_call(sub) == NULL ? SLUICE_E_NOMEM : 0;

	if (rc == SLUICE_E_NOMEM)
		(void)error_set(rc, NULL);
	if (rc == 0 && options != NULL && options->done != NULL) {
		sub->open_done = options->done;
		sub->open_user = options->user;
		sub->open_deadline_ms = deadline;
		client_wake(client);
	} else if (rc == 0) {
		rc = open_wait(sub, deadline);
	}
	*ret = rc == 0 ? sub : NULL;
	if (sub->closing)
		client_wake(client); /* so that it can be freed */
	else if (rc != 0)
		sub_retire(sub);
	client_unlock(client);
	return rc;
}

static const char not_fired[] =
	"a subscription is not opened with SLUICE_FIRE: its end would not be known";

static int enter(sluice_client *client, const sluice_call *call)
{
	char why[TEXT_MAX];
	int rc;

	client_lock(client);
	rc = error_set(call_may(client, call, why, sizeof(why)), why);
	if (rc != 0)
		client_unlock(client);
	return rc;
}

int sluice_follow(sluice_client *client, const sluice_follow_spec *spec, const sluice_call *call,
		  sluice_sub **ret)
{
	sluice_follow_spec own;
	sluice_call own_call;
	sluice_sub *sub;
	int rc;

	*ret = NULL;
	rc = follow_spec_take(&spec, &own);
	if (rc == 0)
		rc = call_take(&call, &own_call);
	if (rc != 0)
		return rc;
	if (spec->stream == NULL || (spec->from == SLUICE_FROM_CURSOR && spec->cursor == NULL))
		return error_set(SLUICE_E_INVAL, spec->stream == NULL
							 ? "a follow needs a stream"
							 : "from a cursor needs the cursor's name");
	if (call_fires(call))
		return error_set(SLUICE_E_INVAL, not_fired);
	rc = enter(client, call);
	if (rc != 0)
		return rc;
	sub = sub_new(client, spec->stream, spec->cursor, spec->filter);
	if (sub == NULL) {
		client_unlock(client);
		return error_set(SLUICE_E_NOMEM, NULL);
	}
	sub->follow = true;
	sub->from = spec->from;
	sub->offset = spec->offset;
	sub->time_ms = spec->time_ms;
	sub->credit = spec->credit != 0 ? spec->credit : 1000;
	sub->on_delivery = spec->on_delivery;
	sub->user = spec->user;
	return open_and_wait(sub, call, ret);
}

int sluice_consume(sluice_client *client, const sluice_consume_spec *spec, const sluice_call *call,
		   sluice_sub **ret)
{
	sluice_consume_spec own;
	sluice_call own_call;
	sluice_sub *sub;
	int rc;

	*ret = NULL;
	rc = consume_spec_take(&spec, &own);
	if (rc == 0)
		rc = call_take(&call, &own_call);
	if (rc != 0)
		return rc;
	if (spec->queue == NULL)
		return error_set(SLUICE_E_INVAL, "a consume needs a queue");
	if (call_fires(call))
		return error_set(SLUICE_E_INVAL, not_fired);
	rc = enter(client, call);
	if (rc != 0)
		return rc;
	sub = sub_new(client, spec->queue, NULL, NULL);
	if (sub == NULL) {
		client_unlock(client);
		return error_set(SLUICE_E_NOMEM, NULL);
	}
	sub->manual_credit = spec->manual_credit;
	sub->credit = spec->credit != 0 || spec->manual_credit ? spec->credit : 100;
	sub->lease_ms = spec->lease_ms;
	sub->extend_max_ms =
		spec->extend_max_ms != 0 ? spec->extend_max_ms : client->config.lease_extend_max_ms;
	sub->orphans = spec->orphans;
	sub->session_lease = spec->session_lease;
	sub->reports = spec->on_delivery == NULL || spec->report_begun;
	if (spec->source != NULL && spec->source[0] != 0) {
		sub->source = mem_text(spec->source, strlen(spec->source));
		if (sub->source == NULL) {
			sub_retire(sub);
			client_unlock(client);
			return SLUICE_E_NOMEM;
		}
	}
	sub->on_delivery = spec->on_delivery;
	sub->user = spec->user;
	return open_and_wait(sub, call, ret);
}

/* ---- closing ---- */

int sluice_sub_credit(sluice_sub *sub, uint32_t more)
{
	int rc = 0;

	client_lock(sub->client);
	/* The broker would close the connection, and again after each reconnect. */
	if (more > LIMIT_CREDIT_MAX || sub->credit > LIMIT_CREDIT_MAX - more) {
		rc = error_format(SLUICE_E_LIMIT, "%u more would be above %llu in all", more,
				  (unsigned long long)LIMIT_CREDIT_MAX);
	} else {
		sub_credit_back(sub, more);
		sub->credit += more;
		client_wake(sub->client);
	}
	client_unlock(sub->client);
	return rc;
}

int sluice_sub_close(sluice_sub *sub, int deadline_ms)
{
	sluice_call options = SLUICE_CALL(.deadline_ms = deadline_ms);
	sluice_client *client;
	struct call *call = NULL;
	int rc = 0;

	if (sub == NULL)
		return 0;
	client = sub->client;
	client_lock(client);
	sub->gives_back = true; /* acks return no credit any more */
	subs_flush(client);
	if (client->state == STATE_READY && sub->opened && !sub->ended && !sub->left)
		call = sub_close_call(client, sub->number, &options);
	calls_send(client); /* first, or the broker would grant the returned entries to it again */
	held_leave(sub);
	sub_give_back(sub);
	sub->closing = true;
	/* Without memory for the call, the end of the connection closes it. */
	if (client->state == STATE_READY && sub->opened && !sub->ended && !sub->left &&
	    call == NULL)
		link_lacks(client);
	/* A callback cannot wait: the broker closes it later. */
	if (call != NULL && !client_on_loop(client))
		rc = call_wait(client, call, NULL);
	sub_open_report(sub, SLUICE_E_CLOSED, "the subscription was closed");
	sub_retire(sub);
	client_unlock(client);
	return rc == SLUICE_E_TIMEOUT ? rc : 0;
}

/* ---- acks ---- */

static int ack_frame(sluice_sub *sub, enum ack_op op, sluice_token token, const uint64_t *seq,
		     uint32_t value_ms, const char *reason, const sluice_call *call,
		     sluice_reply **ret_reply)
{
	sluice_client *client = sub->client;
	struct frame_run run = {seq != NULL ? *seq : 0, 1};
	struct frame_ack frame = {.subscription = sub->number,
				  .op = (uint8_t)op,
				  .token = token,
				  .value_ms = value_ms,
				  .run_count = seq != NULL ? 1 : 0,
				  .reason = {reason, reason != NULL ? strlen(reason) : 0}};
	sluice_call own;
	struct call *made;
	uint8_t *body;
	int rc = call_take(&call, &own);

	if (rc == 0)
		rc = enter(client, call);
	if (rc != 0)
		return call_refuse_set(rc, call, ret_reply);
	if (frame.reason.len > LIMIT_TEXT_BYTES_MAX)
		rc = error_format(SLUICE_E_LIMIT, "the reason has %zu bytes; at most %llu",
				  frame.reason.len, (unsigned long long)LIMIT_TEXT_BYTES_MAX);
	if (rc == 0 && op == ACK_RELEASE && client->state == STATE_READY && sub->opened &&
	    !client->link->supports_begun)
		rc = error_set(SLUICE_E_UNSUPPORTED,
			       "this broker knows no release; nack counts an attempt");
	if (rc == 0 && op == ACK_REJECT && client->state == STATE_READY && !client->link->rejects)
		rc = error_set(SLUICE_E_UNSUPPORTED,
			       "this broker knows no reject; nack counts an attempt");
	subs_flush(client); /* gathered acks go first */
	body = rc == 0 ? mem_alloc(frame_ack_size(&frame)) : NULL;
	made = body != NULL ? call_new_frame(client, FRAME_ACK, body,
					     frame_ack_encode(body, &frame, &run), call)
			    : NULL;
	if (made == NULL) {
		mem_free(body);
		client_unlock(client);
		return call_refuse(rc != 0 ? rc : SLUICE_E_NOMEM,
				   rc != 0 ? sluice_last_error(NULL) : "", call, ret_reply);
	}
	if (seq != NULL)
		sub_item_done(sub, token);
	else
		held_extended(sub, token, value_ms);
	return call_settle(client, made, call, ret_reply);
}

int sluice_item_ack(sluice_sub *sub, sluice_token token, uint64_t seq, const sluice_call *call,
		    sluice_reply **ret_reply)
{
	sluice_call own;
	int rc;

	if (!call_fires(call))
		return ack_frame(sub, ACK_DONE, token, &seq, 0, NULL, call, ret_reply);
	rc = call_take(&call, &own);
	if (rc != 0)
		return call_refuse_set(rc, call, ret_reply);
	if (ret_reply != NULL)
		*ret_reply = NULL;
	client_lock(sub->client);
	rc = sub->client->closing		  ? SLUICE_E_CLOSED
	     : sub->client->state == STATE_FAILED ? sub->client->fail_code
						  : sub_gather_ack(sub, token, seq);
	if (rc == 0)
		sub_item_done(sub, token);
	client_wake(sub->client);
	(void)error_set(rc, NULL);
	client_unlock(sub->client);
	return rc;
}

int sluice_item_nack(sluice_sub *sub, sluice_token token, uint64_t seq, uint32_t delay_ms,
		     const char *reason, const sluice_call *call, sluice_reply **ret_reply)
{
	return ack_frame(sub, ACK_NACK, token, &seq, delay_ms, reason, call, ret_reply);
}

int sluice_item_reject(sluice_sub *sub, sluice_token token, uint64_t seq, const char *reason,
		       const sluice_call *call, sluice_reply **ret_reply)
{
	return ack_frame(sub, ACK_REJECT, token, &seq, 0, reason, call, ret_reply);
}

int sluice_item_release(sluice_sub *sub, sluice_token token, uint64_t seq, const sluice_call *call,
			sluice_reply **ret_reply)
{
	return ack_frame(sub, ACK_RELEASE, token, &seq, 0, NULL, call, ret_reply);
}

int sluice_lease_extend(sluice_sub *sub, sluice_token token, uint32_t lease_ms,
			const sluice_call *call, sluice_reply **ret_reply)
{
	return ack_frame(sub, ACK_EXTEND, token, NULL, lease_ms, NULL, call, ret_reply);
}

int sluice_sub_next(sluice_sub *sub, int deadline_ms, sluice_delivery **ret)
{
	sluice_client *client = sub->client;
	uint64_t deadline = deadline_of(client, deadline_ms);
	int rc = sub->on_delivery != NULL ? SLUICE_E_INVAL : 0;

	client_lock(client);
	sub->waiters++;
	while (sub->waiting == NULL && rc == 0) {
		if (sub->ended || sub->closing || sub->gives_back ||
		    (sub->draining && !sub->leaves))
			rc = sub->end_code != 0 ? sub->end_code : SLUICE_E_CLOSED;
		else if (client_on_loop(client))
			rc = SLUICE_E_WRONG_STATE;
		else if (now_ms() >= deadline)
			rc = SLUICE_E_TIMEOUT;
		else
			client_wait_some(client, deadline, 50);
	}
	if (sub->waiting != NULL) {
		rc = 0;
		*ret = sub->waiting;
		DL_DELETE(sub->waiting, *ret);
		sub->waiting_count--;
		if ((*ret)->view.kind == SLUICE_DELIVERY_EVENT) {
			sub_release(sub, 1);
			if (sub->owed >= sub->credit / 2 || sub->waiting == NULL)
				client_wake(client);
		} else if ((*ret)->view.kind == SLUICE_DELIVERY_ITEM && sub->reports) {
			sub_begin_now(sub, (*ret)->view.token, (*ret)->view.seq);
		}
	}
	(void)error_set(rc, sub->ended && rc == sub->end_code ? sub->end_text : "");
	sub_waiter_leaves(sub);
	client_unlock(client);
	return rc;
}
