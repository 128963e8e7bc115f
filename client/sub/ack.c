/* SPDX-License-Identifier: Apache-2.0
 * Asynchronous acks are gathered as runs until the end of the loop's turn; and which acks are
 * pending. */
#include <utlist.h>

#include "client/base/memory.h"
#include "client/call/call.h"
#include "client/sub/sub.h"
#include "protocol/frame.h"

/* Whether call is an ack or a nack, not answered yet, of that grant. */
static bool call_acks(const sluice_sub *sub, const struct call *call, sluice_token token,
		      struct frame_ack *ret)
{
	const char *why;

	return call->frame == FRAME_ACK &&
	       frame_ack_decode((struct sluice_slice){call->request, call->request_len}, ret,
				&why) == 0 &&
	       ret->op != ACK_EXTEND && ret->subscription == sub->number && ret->token == token;
}

bool acks_wait(const sluice_sub *sub, sluice_token token)
{
	const struct ack_gather *acks;
	const struct call *call;
	struct frame_ack ack;

	DL_FOREACH(sub->acks, acks)
		if (acks->token == token)
			return true;
	DL_FOREACH(sub->client->calls->ordered, call)
		if (call_acks(sub, call, token, &ack))
			return true;
	return false;
}

/* Acked by the application, and not sent or not answered yet: it is redelivered after a
 * reconnect. */
bool sub_ack_waits(const sluice_sub *sub, sluice_token token, uint64_t seq)
{
	const struct ack_gather *acks;
	const struct call *call;
	struct frame_ack ack;

	DL_FOREACH(sub->acks, acks)
		for (size_t i = 0; acks->token == token && i < acks->count; i++)
			if (seq >= acks->runs[i].first &&
			    seq - acks->runs[i].first < acks->runs[i].count)
				return true;
	DL_FOREACH(sub->client->calls->ordered, call)
		for (uint16_t i = 0; call_acks(sub, call, token, &ack) && i < ack.run_count; i++) {
			struct frame_run run = frame_run_at(ack.runs, i);

			if (seq >= run.first && seq - run.first < run.count)
				return true;
		}
	return false;
}

int sub_gather_ack(sluice_sub *sub, sluice_token token, uint64_t seq)
{
	struct ack_gather *acks = sub->acks != NULL ? sub->acks->prev : NULL;

	if (acks == NULL || acks->token != token) {
		acks = mem_alloc(sizeof(*acks));
		if (acks == NULL)
			return SLUICE_E_NOMEM;
		acks->token = token;
		DL_APPEND(sub->acks, acks);
	}
	if (acks->count > 0 &&
	    acks->runs[acks->count - 1].first + acks->runs[acks->count - 1].count == seq) {
		acks->runs[acks->count - 1].count++;
		return 0;
	}
	if (acks->count == acks->capacity) {
		size_t capacity = acks->capacity == 0 ? 16 : acks->capacity * 2;
		struct frame_run *runs = mem_resize(acks->runs, capacity * sizeof(*runs));

		if (runs == NULL)
			return SLUICE_E_NOMEM;
		acks->runs = runs;
		acks->capacity = capacity;
	}
	acks->runs[acks->count++] = (struct frame_run){seq, 1};
	return 0;
}
