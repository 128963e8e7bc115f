/* SPDX-License-Identifier: Apache-2.0
 * A subscription after its opening: its end, a broken connection, its memory. It outlives
 * connections. */
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "client/base/hash.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/call/call.h"
#include "client/call/reply.h"
#include "client/sub/sub.h"

void sub_end(sluice_sub *sub, int code, const char *text)
{
	sluice_delivery_view view = {.size = sizeof(view),
				     .kind = SLUICE_DELIVERY_END,
				     .code = code,
				     .text = text};

	if (sub->ended)
		return;
	sub->ended = true;
	sub->coming = false;
	sub->end_code = code;
	(void)snprintf(sub->end_text, sizeof(sub->end_text), "%s", text);
	sub_open_report(sub, code, text);
	if (sub->on_delivery != NULL && !sub->closing)
		sub->on_delivery(sub, &view, sub->user);
	(void)pthread_cond_broadcast(&sub->client->changed);
}

void sub_stream_length(sluice_sub *sub, uint64_t length)
{
	if (length > sub->length)
		sub->length = length;
}

void subs_broken(sluice_client *client, bool session_lost)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs->all, sub, next) {
		struct held *held, *after;
		struct held_job *job, *next_job;

		sub->opened = sub->coming = false;
		sub->leaves = sub->left = false;
		if (!session_lost)
			continue;
		sub->begun_count = 0;
		(void)undelivered_drop(sub, 0, NULL);
		/* A new session holds no entries of the old one's. */
		HASH_ITER(hh, sub->held, held, after)
			held_drop(sub, held);
		HASH_ITER(hh, sub->jobs, job, next_job)
			held_job_drop(sub, job);
	}
}

void subs_end(sluice_client *client, int code)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs->all, sub, next)
		sub_end(sub, code, sluice_error_text(code));
}

void sub_free(sluice_sub *sub)
{
	struct held *held, *next_held;
	struct held_job *job, *next_job;
	struct ack_gather *acks, *next_acks;
	sluice_delivery *delivery, *next;

	HASH_ITER(hh, sub->held, held, next_held)
		held_drop(sub, held);
	HASH_ITER(hh, sub->jobs, job, next_job)
		held_job_drop(sub, job);
	DL_FOREACH_SAFE(sub->acks, acks, next_acks) {
		mem_free(acks->runs);
		mem_free(acks);
	}
	DL_FOREACH_SAFE(sub->waiting, delivery, next)
		sluice_delivery_free(delivery);
	mem_free(sub->begun);
	mem_free(sub->name);
	mem_free(sub->cursor);
	mem_free(sub->source);
	mem_free(sub->filter);
	mem_free(sub);
}

void sub_open_report(sluice_sub *sub, int code, const char *text)
{
	sluice_done_fn *done = sub->open_done;
	sluice_reply *reply;

	(void)pthread_cond_broadcast(&sub->client->changed);
	if (done == NULL)
		return;
	sub->open_done = NULL;
	reply = reply_new(code, text, strlen(text));
	done(sub->client, reply, sub->open_user);
	sluice_reply_free(reply);
}

void sub_retire(sluice_sub *sub)
{
	sluice_client *client = sub->client;
	struct call *call;

	DL_FOREACH(client->calls->ordered, call)
		if (call->hook_user == sub)
			call->hook_user = NULL;
	HASH_DELETE(hh, client->subs->all, sub);
	sub->closing = true;
	sub->next_retired = client->subs->retired;
	client->subs->retired = sub;
	(void)pthread_cond_broadcast(&client->changed); /* for threads in sluice_sub_next() */
	if (!client_on_loop(client))
		subs_reap(client);
}

void subs_reap(sluice_client *client)
{
	sluice_sub **at = &client->subs->retired;

	while (*at != NULL) {
		sluice_sub *sub = *at;

		if (sub->waiters > 0) {
			at = &sub->next_retired;
			continue;
		}
		*at = sub->next_retired;
		sub_free(sub);
	}
}

void subs_free(sluice_client *client)
{
	while (client->subs->all != NULL)
		sub_retire(client->subs->all);
	subs_reap(client);
}

void sub_waiter_leaves(sluice_sub *sub)
{
	if (--sub->waiters == 0 && sub->closing)
		client_wake(sub->client);
}
