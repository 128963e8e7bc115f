/* SPDX-License-Identifier: Apache-2.0
 * Frames that a turn of the loop sends for subscriptions: gathered acks, reports of begun items,
 * credit. */
#include <utlist.h>

#include "client/base/hash.h"
#include "client/base/memory.h"
#include "client/link/link.h"
#include "client/sub/sub.h"
#include "protocol/frame.h"
#include "protocol/limits.h"

/* False: some are left for the next connection. */
static bool acks_write(sluice_sub *sub, struct ack_gather *acks)
{
	while (acks->written < acks->count) {
		size_t from = acks->written;
		size_t count = acks->count - from < LIMIT_ACK_RUNS_MAX ? acks->count - from
								       : (size_t)LIMIT_ACK_RUNS_MAX;
		struct frame_ack frame = {.subscription = sub->number,
					  .op = ACK_DONE,
					  .token = acks->token,
					  .run_count = (uint16_t)count};
		uint8_t *at = link_frame(sub->client, FRAME_ACK, 0, frame_ack_size(&frame));

		if (at == NULL)
			return false;
		(void)frame_ack_encode(at, &frame, acks->runs + from);
		acks->written += count;
	}
	return true;
}

static void credit_write(sluice_sub *sub)
{
	struct frame_credit frame = {sub->number, sub->owed};
	uint8_t *at;

	/* In larger steps: a frame for each event would cost more than the event. */
	/* A follower's credit is gathered: while less than a quarter is owed, the broker has enough
	 * to continue. */
	if (sub->owed == 0 || sub->gives_back || sub->draining || sub->resuming ||
	    (sub->follow && sub->owed < sub->credit / 4))
		return;
	/* While most of it waits for the application, a consumer's credit is gathered, too: larger
	 * grants cost less than many small ones. */
	if (!sub->follow && !sub->manual_credit && sub->waiting_count >= sub->credit / 2 &&
	    sub->owed < sub->credit / 4)
		return;
	at = link_frame(sub->client, FRAME_CREDIT, 0, FRAME_CREDIT_BYTES);
	if (at == NULL)
		return;
	frame_credit_encode(at, &frame);
	sub->owed = 0;
}

static void begun_write(sluice_sub *sub)
{
	for (size_t i = 0; i < sub->begun_count && sub->client->link->supports_begun; i++) {
		struct frame_run run = {sub->begun[i].seq, 1};
		struct frame_ack frame = {.subscription = sub->number,
					  .op = ACK_BEGUN,
					  .token = sub->begun[i].token,
					  .run_count = 1};
		uint8_t *at = link_frame(sub->client, FRAME_ACK, 0, frame_ack_size(&frame));

		if (at == NULL)
			return; /* the link is broken: repeated with the next */
		(void)frame_ack_encode(at, &frame, &run);
	}
	sub->begun_count = 0;
}

void subs_flush(sluice_client *client)
{
	sluice_sub *sub, *next;

	if (client->state != STATE_READY)
		return;
	HASH_ITER(hh, client->subs->all, sub, next) {
		struct ack_gather *acks, *after;

		held_kept_drop(sub);
		if (!sub->opened)
			continue;
		DL_FOREACH_SAFE(sub->acks, acks, after) {
			if (!acks_write(sub, acks))
				return;
			DL_DELETE(sub->acks, acks);
			mem_free(acks->runs);
			mem_free(acks);
		}
		begun_write(sub);
		if (client->state != STATE_READY)
			return;
		credit_write(sub);
	}
}
