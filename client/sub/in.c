/* SPDX-License-Identifier: Apache-2.0
 * Frames of subscriptions: DELIVER becomes deliveries, except entries that the application already
 * has or has finished; NOTICE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/base/error.h"
#include "client/base/hash.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/link/link.h"
#include "client/sub/sub.h"
#include "protocol/envelope.h"
#include "protocol/frame.h"
#include "protocol/limits.h"
#include "sluice.pb-c.h"

enum { HEADERS_MAX = 64, SUBJECT_BYTES = LIMIT_SIZE(SUBJECT_BYTES_MAX) };

/* Headers as terminated strings; they live in buf until the next event. False: no memory. */
static bool headers_of(struct sluice_slice encoded, struct buffer *buf, const char **list,
		       const char *const **ret)
{
	struct sluice_slice name, value;
	size_t pos = 0, count = 0, offsets[2 * HEADERS_MAX];

	*ret = NULL;
	if (encoded.len == 0)
		return true;
	buf->start = buf->end = 0;
	while (count < HEADERS_MAX && envelope_header_next(encoded, &pos, &name, &value) == 1) {
		struct sluice_slice parts[2] = {name, value};

		for (int i = 0; i < 2; i++) {
			uint8_t *at = buffer_room(buf, parts[i].len + 1);

			if (at == NULL)
				return false;
			offsets[2 * count + (size_t)i] = buf->end;
			memcpy(at, parts[i].data, parts[i].len);
			at[parts[i].len] = 0;
			buf->end += parts[i].len + 1;
		}
		count++;
	}
	for (size_t i = 0; i < 2 * count; i++)
		list[i] = (const char *)buf->bytes + offsets[i];
	list[2 * count] = NULL;
	*ret = list;
	return true;
}

static bool give_events(sluice_sub *sub, const struct frame_deliver *frame, struct sluice_slice raw)
{
	const char *list[2 * HEADERS_MAX + 1], *why;
	struct buffer headers = {0};
	char subject[SUBJECT_BYTES + 1];
	/* Cleared once a frame: it is large, and each event sets every member that it has. */
	sluice_delivery_view view = {.size = sizeof(view),
				     .kind = SLUICE_DELIVERY_EVENT,
				     .subject = subject};
	uint32_t run = 0, in_run = 0;
	bool taken = true;

	if (frame->subject.len > SUBJECT_BYTES)
		return true;
	if (frame->subject.len > 0)
		memcpy(subject, frame->subject.data, frame->subject.len);
	subject[frame->subject.len] = 0;
	for (uint32_t i = 0; i < frame->count && taken; i++) {
		struct envelope envelope;
		uint64_t offset = frame->base + i;

		if (envelope_next(&raw, &envelope, &why) != 0)
			break;
		if (frame->run_count > 0) {
			struct frame_run at = frame_run_at(frame->runs, run);

			offset = at.first + in_run;
			if (++in_run == at.count) {
				in_run = 0;
				run++;
			}
			if (run > frame->run_count)
				break;
		}
		if (sub->started && offset < sub->next_offset)
			continue; /* redelivered after a reconnect */
		if (frame->subject.len == 0) {
			if (envelope.subject.len > SUBJECT_BYTES)
				break;
			if (envelope.subject.len > 0)
				memcpy(subject, envelope.subject.data, envelope.subject.len);
			subject[envelope.subject.len] = 0;
		}
		view.key = envelope.key;
		view.id = envelope.id;
		view.body = envelope.body;
		view.time_ms = (uint64_t)((int64_t)frame->time_ms + envelope.time_delta_ms);
		view.offset = offset;
		view.priority = envelope.priority;
		taken = headers_of(envelope.headers, &headers, list, &view.headers) &&
			sub_deliver(sub, &view);
		if (taken) {
			sub->next_offset = offset + 1;
			sub->started = true;
			sub_stream_length(sub, offset + 1);
		}
		if (sub->closing)
			break;
	}
	buffer_free(&headers);
	return taken;
}

/* Whether the frame's items are new to the application; at the first pass over the frame. False in
 * *ret: no memory. */
static bool items_are_new(sluice_sub *sub, const struct frame_deliver *frame, bool *ret)
{
	struct held *known = held_find(sub, frame->token);

	*ret = true;
	/* Redelivered after a reconnect: the application has them. */
	if (known != NULL) {
		held_redelivered(sub, known, frame->count);
		return false;
	}
	if (held_elsewhere(sub, frame->token, NULL)) {
		sub_credit_back(sub, frame->count);
		return false;
	}
	*ret = held_add(sub, frame->token, frame->lease_ms, frame->count);
	return *ret;
}

static bool give_items(sluice_sub *sub, const struct frame_deliver *frame)
{
	sluice_client *client = sub->client;
	const char *list[2 * HEADERS_MAX + 1], *why;
	struct buffer headers = {0};
	struct sluice_slice rest = frame->payload;
	char subject[SUBJECT_BYTES + 1];
	bool again = frame->token <= sub->token_max, taken = true;
	uint32_t at_item = 0;

	if (!client->link->begun && !items_are_new(sub, frame, &taken))
		return taken;
	client->link->begun = true;
	if (!again)
		sub->token_max = frame->token;
	if (frame->token > client->subs->token_max)
		client->subs->token_max = frame->token;
	for (uint16_t r = 0; r < frame->run_count; r++) {
		struct frame_run run = frame_run_at(frame->runs, r);

		for (uint32_t i = 0; i < run.count && rest.len >= 10 && taken; i++) {
			const uint8_t *at = rest.data;
			struct envelope envelope;
			sluice_delivery_view view = {.size = sizeof(view),
						     .kind = SLUICE_DELIVERY_ITEM,
						     .seq = run.first + i,
						     .token = frame->token,
						     .lease_ms = frame->lease_ms};

			view.failed_attempts = (uint32_t)at[0] << 8 | at[1];
			for (int b = 2; b < 10; b++)
				view.time_ms = view.time_ms << 8 | at[b];
			rest = (struct sluice_slice){at + 10, rest.len - 10};
			if (envelope_next(&rest, &envelope, &why) != 0 ||
			    envelope.subject.len > SUBJECT_BYTES)
				break;
			if (envelope.subject.len > 0)
				memcpy(subject, envelope.subject.data, envelope.subject.len);
			if (at_item++ < client->link->taken)
				continue;
			subject[envelope.subject.len] = 0;
			view.subject = subject;
			view.key = envelope.key;
			view.id = envelope.id;
			view.body = envelope.body;
			view.priority = envelope.priority;
			if (again && sub_ack_waits(sub, frame->token, view.seq)) {
				client->link->taken++;
				sub_item_done(sub, frame->token);
				continue;
			}
			/* Also the other ones, when a callback has closed the subscription. */
			if (sub->gives_back) {
				if (!again)
					sub_item_back(sub, frame->token, view.seq);
				client->link->taken++;
				continue;
			}
			taken = headers_of(envelope.headers, &headers, list, &view.headers) &&
				sub_deliver(sub, &view);
			client->link->taken += taken;
		}
	}
	buffer_free(&headers);
	return taken;
}

static bool give_job(sluice_sub *sub, const Sluice__JobDelivery *job)
{
	sluice_delivery_view view = {.size = sizeof(view),
				     .kind = SLUICE_DELIVERY_JOB,
				     .job = job->job,
				     .token = job->token,
				     .attempt = job->attempt,
				     .body = {job->payload.data, job->payload.len},
				     .owner = job->owner,
				     .state = job->state,
				     .tag = job->tag,
				     .scheduler_ref = job->scheduler_ref,
				     .orphan = job->orphan,
				     .intent = job->intent,
				     .cancel = job->cancel,
				     .redelivered = job->redelivered,
				     .priority = (uint8_t)job->priority,
				     .source = job->source,
				     .lifecycle = job->lifecycle,
				     .number = job->number};
	struct held_job *held;

	held = held_job_find(sub, job->job);
	if (held != NULL && held->token == job->token) {
		resume_job_again(sub, held, job);
		return true; /* redelivered after a reconnect: the application has it */
	}
	if (held_elsewhere(sub, job->token, job->job) || held_find(sub, job->token) != NULL) {
		sub_credit_back(sub, 1);
		return true;
	}
	resume_older_lost(sub->client, job->job, job->token);
	if (sub->closing)
		return true;
	held = held_job_add(sub, job->job, job->token, job->number);
	if (held == NULL)
		return false;
	held->cancel = job->cancel;
	if (sub->gives_back) {
		sub_job_back(sub, &view);
		return true;
	}
	if (sub_deliver(sub, &view))
		return true;
	held_job_drop(sub, held); /* it will be redelivered */
	return false;
}

static bool give_jobs(sluice_sub *sub, struct sluice_slice payload)
{
	Sluice__JobDeliveries *list =
		sluice__job_deliveries__unpack(&mem_protobuf, payload.len, payload.data);
	bool taken = true;

	if (list == NULL && mem_lacked())
		return false;
	if (list == NULL) {
		link_broken(sub->client, SLUICE_E_PROTOCOL, "the broker sent malformed jobs");
		return true;
	}
	for (size_t i = sub->client->link->taken; i < list->n_jobs && taken; i++) {
		taken = give_job(sub, list->jobs[i]);
		sub->client->link->taken += taken;
	}
	sluice__job_deliveries__free_unpacked(list, &mem_protobuf);
	return taken;
}

static sluice_sub *sub_by_number(sluice_client *client, uint32_t number)
{
	sluice_sub *sub;

	HASH_FIND(hh, client->subs->all, &number, sizeof(number), sub);
	return sub;
}

static bool give_compressed(sluice_sub *sub, const struct frame_deliver *frame)
{
	const char *why = "";
	uint8_t *raw = NULL;
	int rc = batch_decompress(frame->payload, frame->raw_bytes, &raw, &why);
	bool taken;

	if (rc == SLUICE_E_NOMEM)
		return false;
	if (rc != 0) {
		link_broken(sub->client, SLUICE_E_PROTOCOL, why);
		return true;
	}
	taken = give_events(sub, frame, (struct sluice_slice){raw, frame->raw_bytes});
	free(raw);
	return taken;
}

bool sub_on_deliver(sluice_client *client, struct sluice_slice body)
{
	struct frame_deliver frame;
	const char *why = "";
	sluice_sub *sub;

	if (frame_deliver_decode(body, &frame, &why) != 0) {
		link_broken(client, SLUICE_E_PROTOCOL, why);
		return true;
	}
	sub = sub_by_number(client, frame.subscription);
	if (sub == NULL || sub->closing) {
		sub_undelivered(client, &frame);
		return true;
	}
	if (frame.kind == DELIVER_ITEMS)
		return give_items(sub, &frame);
	if (frame.kind == DELIVER_JOBS)
		return give_jobs(sub, frame.payload);
	return frame.codec == BATCH_RAW ? give_events(sub, &frame, frame.payload)
					: give_compressed(sub, &frame);
}

bool sub_on_notice(sluice_client *client, const Sluice__Notice *notice)
{
	sluice_sub *sub = sub_by_number(client, notice->subscription);
	sluice_delivery_view view = {.size = sizeof(view),
				     .offset = notice->offset,
				     .to_offset = notice->to_offset,
				     .text = notice->text};
	char text[TEXT_MAX];

	switch (notice->kind) {
	case SLUICE__NOTICE_KIND__NOTICE_CAUGHT_UP:
	case SLUICE__NOTICE_KIND__NOTICE_GAP:
		if (sub == NULL)
			return true;
		view.kind = notice->kind == SLUICE__NOTICE_KIND__NOTICE_GAP
				    ? SLUICE_DELIVERY_GAP
				    : SLUICE_DELIVERY_CAUGHT_UP;
		if (!sub_deliver(sub, &view))
			return false;
		if (view.kind != SLUICE_DELIVERY_GAP)
			return true;
		sub->next_offset = notice->to_offset;
		sub_stream_length(sub, notice->to_offset);
		return true;
	case SLUICE__NOTICE_KIND__NOTICE_SUBSCRIPTION_END:
		if (sub != NULL)
			sub_end(sub, notice->code, notice->text);
		return true;
	case SLUICE__NOTICE_KIND__NOTICE_DAMAGED:
		if (sub != NULL)
			resume_damage(sub, notice->offset, notice->token);
		(void)snprintf(text, sizeof(text),
			       "number %llu of queue %s is damaged and not delivered: %s",
			       (unsigned long long)notice->offset, sub != NULL ? sub->name : "",
			       notice->text);
		client_notice(client, &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_DAMAGED,
						   .code = notice->code, .text = text));
		return true;
	case SLUICE__NOTICE_KIND__NOTICE_RESUMED:
		if (sub != NULL && !sub->closing)
			resume_complete(sub);
		return true;
	case SLUICE__NOTICE_KIND__NOTICE_JOB_CANCEL:
		resume_cancel_notified(client, notice->job, notice->token);
		client_notice(client,
			      &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_JOB_CANCEL,
					   .text = "", .job = notice->job, .token = notice->token));
		return true;
	case SLUICE__NOTICE_KIND__NOTICE_LEASE_LOST:
		sub_job_gone(client, notice->job, notice->token);
		client_notice(client,
			      &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_LEASE_LOST,
					   .text = "", .job = notice->job, .token = notice->token));
		return true;
	default:
		return true;
	}
}
