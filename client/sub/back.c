/* SPDX-License-Identifier: Apache-2.0
 * Items and jobs that were never begun are returned to the broker uncounted when a subscription or
 * the client closes. And the drain: no new entries, only those received. */
#include <utlist.h>

#include "client/base/error.h"
#include "client/base/hash.h"
#include "client/base/loop.h"
#include "client/link/link.h"
#include "client/call/call.h"
#include "client/sub/sub.h"
#include "protocol/frame.h"
#include "sluice.pb-c.h"

/* ---- giving back ---- */

static void release_write(sluice_client *client, uint32_t subscription, sluice_token token,
			  const struct frame_run *runs, uint16_t count)
{
	struct frame_ack frame = {.subscription = subscription,
				  .op = ACK_RELEASE,
				  .token = token,
				  .run_count = count};
	uint8_t *at = client->state == STATE_READY && client->link->supports_begun
			      ? link_frame(client, FRAME_ACK, 0, frame_ack_size(&frame))
			      : NULL;

	if (at != NULL)
		(void)frame_ack_encode(at, &frame, runs);
}

/* The answer is ignored. A job that was begun before stays: only evidence ends it. */
static void job_give_back(sluice_sub *sub, const char *job, sluice_token token, bool begun)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobRelease release = SLUICE__JOB_RELEASE__INIT;
	sluice_call options = SLUICE_CALL(.deadline_ms = -1);

	if (begun || sub->client->state != STATE_READY)
		return;
	release.job = (char *)(uintptr_t)job;
	release.token = token;
	request.op_case = SLUICE__REQUEST__OP_JOB_RELEASE;
	request.job_release = &release;
	(void)call_new(sub->client, &request, false, &options);
}

void sub_item_back(sluice_sub *sub, sluice_token token, uint64_t seq)
{
	struct frame_run run = {seq, 1};

	release_write(sub->client, sub->number, token, &run, 1);
	sub_item_done(sub, token);
}

void sub_job_back(sluice_sub *sub, const sluice_delivery_view *view)
{
	struct held_job *held = held_job_find(sub, view->job);

	job_give_back(sub, view->job, view->token,
		      view->intent || view->orphan || view->redelivered);
	if (held != NULL && held->token == view->token)
		held_job_drop(sub, held);
}

void sub_give_back(sluice_sub *sub)
{
	sluice_delivery *delivery, *next;

	sub->gives_back = true;
	if (sub->follow)
		return;
	DL_FOREACH_SAFE(sub->waiting, delivery, next) {
		const sluice_delivery_view *view = &delivery->view;

		if (view->kind == SLUICE_DELIVERY_ITEM)
			sub_item_back(sub, view->token, view->seq);
		else if (view->kind == SLUICE_DELIVERY_JOB)
			sub_job_back(sub, view);
		else
			continue;
		DL_DELETE(sub->waiting, delivery);
		sub->waiting_count--;
		sluice_delivery_free(delivery);
	}
	(void)pthread_cond_broadcast(&sub->client->changed);
}

void sub_undelivered(sluice_client *client, const struct frame_deliver *frame)
{
	/* The application may have the redelivered entry, also from a subscription that is
	 * closed. */
	if (frame->kind != DELIVER_ITEMS || frame->token <= client->subs->token_max)
		return;
	client->subs->token_max = frame->token;
	release_write(client, frame->subscription, frame->token, NULL, 0);
	held_gone_before(client, NULL, frame->token);
}

/* ---- before the client closes ---- */

static bool all_closed(sluice_client *client)
{
	for (const sluice_sub *sub = client->subs->all; sub != NULL; sub = sub->hh.next)
		if (sub->leaves)
			return false;
	return true;
}

static void left(sluice_client *client, struct call *call)
{
	sluice_sub *sub = call->hook_user;

	if (sub == NULL)
		return;
	sub->leaves = false;
	(void)pthread_cond_broadcast(&client->changed);
}

/* Asks the broker to end the subscription, which stops its deliveries; the answer clears
 * sub->leaves. */
static void leave(sluice_sub *sub)
{
	sluice_call options = SLUICE_CALL(.deadline_ms = -1);
	struct call *call = NULL;

	if (sub->leaves || sub->left || sub->client->state != STATE_READY || !sub->opened ||
	    sub->ended)
		return;
	call = sub_close_call(sub->client, sub->number, &options);
	if (call == NULL)
		return;
	call->hook = left;
	call->hook_user = sub;
	sub->leaves = sub->left = true;
}

void subs_give_back(sluice_client *client, uint64_t deadline_ms)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs->all, sub, next)
		sub->gives_back |= !sub->follow;
	subs_flush(client);
	HASH_ITER(hh, client->subs->all, sub, next) {
		if (sub->follow)
			continue;
		leave(sub);
		/* first, or the broker would grant the returned entries to it again */
		calls_send(client);
		sub_give_back(sub);
	}
	client_wake(client);
	while (!all_closed(client) && client->state == STATE_READY && now_ms() < deadline_ms)
		client_wait_some(client, deadline_ms, 20);
}

/* ---- drain ---- */

static bool settled(const sluice_sub *sub)
{
	if (sub->leaves || sub->waiting_count > 0 || sub->jobs != NULL || sub->acks != NULL)
		return false;
	for (const struct held *held = sub->held; held != NULL; held = held->hh.next)
		if (held->out > 0)
			return false;
	return true;
}

int sluice_sub_drain(sluice_sub *sub, int deadline_ms)
{
	sluice_client *client = sub->client;
	uint64_t deadline = deadline_of(client, deadline_ms);
	int rc = sub->follow ? SLUICE_E_INVAL : 0;

	client_lock(client);
	if (rc == 0 && !sub->draining) {
		sub->draining = true;
		subs_flush(client);
		leave(sub);
	}
	sub->waiters++;
	client_wake(client);
	while (rc == 0 && !settled(sub)) {
		if (sub->ended || sub->closing)
			rc = sub->end_code != 0 ? sub->end_code : SLUICE_E_CLOSED;
		else if (now_ms() >= deadline || client_on_loop(client))
			rc = SLUICE_E_TIMEOUT;
		else
			client_wait_some(client, deadline, 20);
	}
	sub_waiter_leaves(sub);
	client_unlock(client);
	return error_set(rc, rc == SLUICE_E_TIMEOUT ? "something is not settled yet" : "");
}
