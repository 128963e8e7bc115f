/* SPDX-License-Identifier: Apache-2.0
 *
 * Subscriptions: followers and consumers. They outlive connections: a follower goes on at the next offset, a consumer asks for what its
 * session still holds (and drops what the application has already).
 *
 * Held grants are extended by half of their lease. Acks gather until the end of the loop's turn and go out as runs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "client/internal.h"
#include "client/sub.h"

/* ---- deliveries to the application ---- */

static void release(sluice_sub *sub, uint32_t count)
{
	if (!sub->manual_credit)
		sub->owed += count;
}

void sub_deliver(sluice_sub *sub, const sluice_delivery_view *view)
{
	sluice_delivery *delivery;

	if (sub->closing)
		return;
	if (sub->manual_credit && (view->kind == SLUICE_ITEM || view->kind == SLUICE_JOB) && sub->credit > 0)
		sub->credit--;
	if (sub->on_delivery != NULL) {
		sub->on_delivery(sub, view, sub->user);
		if (view->kind == SLUICE_EVENT)
			release(sub, 1);
		return;
	}
	delivery = delivery_copy(view);
	if (delivery == NULL)
		return; /* its lease runs out; an event is read again after the next reconnect */
	if (sub->waiting == NULL)
		(void)pthread_cond_broadcast(&sub->client->changed);
	DL_APPEND(sub->waiting, delivery);
	sub->waiting_count++;
}

int sluice_sub_next(sluice_sub *sub, int deadline_ms, sluice_delivery **ret)
{
	sluice_client *client = sub->client;
	uint64_t deadline = deadline_of(client, deadline_ms);
	int rc = sub->on_delivery != NULL ? SLUICE_E_INVAL : 0;

	client_lock(client);
	sub->waiters++;
	while (sub->waiting == NULL && rc == 0) {
		uint64_t now = now_ms();

		if (sub->ended || sub->closing)
			rc = sub->end_code != 0 ? sub->end_code : SLUICE_E_CLOSED;
		else if (client_on_loop(client))
			rc = SLUICE_E_WRONG_STATE;
		else if (now >= deadline)
			rc = SLUICE_E_TIMEOUT;
		else
			client_wait_turn(client, deadline < now + 50 ? deadline : now + 50);
	}
	if (sub->waiting != NULL) {
		rc = 0;
		*ret = sub->waiting;
		DL_DELETE(sub->waiting, *ret);
		sub->waiting_count--;
		if ((*ret)->view.kind == SLUICE_EVENT) {
			release(sub, 1);
			if (sub->owed >= sub->credit / 2 || sub->waiting == NULL)
				client_wake(client);
		}
	}
	sub_error_set(rc, sub->ended && rc == sub->end_code ? sub->end_text : "");
	if (--sub->waiters == 0 && sub->closing)
		client_wake(client); /* it can be freed */
	client_unlock(client);
	return rc;
}

/* ---- held leases ---- */

static struct held *held_find(sluice_sub *sub, sluice_token token)
{
	struct held *held;

	HASH_FIND(hh, sub->held, &token, sizeof(token), held);
	return held;
}

static void held_drop(sluice_sub *sub, struct held *held)
{
	HASH_DELETE(hh, sub->held, held);
	mem_free(held);
}

static void held_add(sluice_sub *sub, sluice_token token, uint32_t lease_ms, uint32_t count)
{
	struct held *held = mem_alloc(sizeof(*held));

	if (held == NULL)
		return;
	held->token = token;
	held->lease_ms = lease_ms;
	held->out = count;
	held->extend_ms =
		lease_ms != 0 && sub->client->config.lease_extend ? now_ms() + lease_ms / 2 : UINT64_MAX;
	HASH_ADD(hh, sub->held, token, sizeof(held->token), held);
}

/* By id: one claim leases many jobs under one token. */
static struct held_job *job_find(sluice_sub *sub, const char *id)
{
	struct held_job *job;

	HASH_FIND_STR(sub->jobs, id, job);
	return job;
}

static void job_drop(sluice_sub *sub, struct held_job *job)
{
	HASH_DELETE(hh, sub->jobs, job);
	mem_free(job->job);
	mem_free(job);
}

/* A job that this client held is over: its place in the credit is free. */
void sub_job_gone(sluice_client *client, const char *job, sluice_token token)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs, sub, next) {
		struct held_job *held, *after;

		HASH_ITER(hh, sub->jobs, held, after) {
			if (strcmp(held->job, job) != 0 || (token != 0 && held->token != token))
				continue;
			job_drop(sub, held);
			release(sub, 1);
		}
	}
}

/* ---- frames in ---- */

enum { HEADERS_MAX = 64, SUBJECT_BYTES = 255 /* LIMIT_SUBJECT_BYTES_MAX */ };

/* Headers as terminated strings; they live in buf until the next event. */
static const char *const *headers_of(struct sluice_slice encoded, struct buffer *buf, const char **list)
{
	struct sluice_slice name, value;
	size_t pos = 0, count = 0, offsets[2 * HEADERS_MAX];

	if (encoded.len == 0)
		return NULL;
	buf->start = buf->end = 0;
	while (count < HEADERS_MAX && envelope_header_next(encoded, &pos, &name, &value) == 1) {
		struct sluice_slice parts[2] = {name, value};

		for (int i = 0; i < 2; i++) {
			uint8_t *at = buffer_room(buf, parts[i].len + 1);

			if (at == NULL)
				return NULL;
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
	return list;
}

static void give_events(sluice_sub *sub, const struct frame_deliver *frame, struct sluice_slice raw)
{
	const char *list[2 * HEADERS_MAX + 1], *why;
	struct buffer headers = {0};
	char subject[SUBJECT_BYTES + 1];
	uint32_t run = 0, in_run = 0;

	for (uint32_t i = 0; i < frame->count; i++) {
		struct envelope envelope;
		struct sluice_slice of;
		uint64_t offset = frame->base + i;
		sluice_delivery_view view = {.kind = SLUICE_EVENT};

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
			continue; /* sent again after a reconnect */
		of = frame->subject.len > 0 ? frame->subject : envelope.subject;
		if (of.len > SUBJECT_BYTES)
			break;
		memcpy(subject, of.data, of.len);
		subject[of.len] = 0;
		sub->next_offset = offset + 1;
		sub->started = true;
		view.subject = subject;
		view.key = envelope.key;
		view.id = envelope.id;
		view.body = envelope.body;
		view.headers = headers_of(envelope.headers, &headers, list);
		view.time_ms = (uint64_t)((int64_t)frame->time_ms + envelope.time_delta_ms);
		view.offset = offset;
		view.priority = envelope.priority;
		sub_deliver(sub, &view);
		if (sub->closing)
			break;
	}
	buffer_free(&headers);
}

/* Acked by the application, and not sent yet: it comes again after a reconnect. */
static bool ack_waits(const sluice_sub *sub, sluice_token token, uint64_t seq)
{
	const struct ack_gather *acks;

	DL_FOREACH(sub->acks, acks)
		for (size_t i = 0; acks->token == token && i < acks->count; i++)
			if (seq >= acks->runs[i].first && seq - acks->runs[i].first < acks->runs[i].count)
				return true;
	return false;
}

static void give_items(sluice_sub *sub, const struct frame_deliver *frame)
{
	const char *list[2 * HEADERS_MAX + 1], *why;
	struct buffer headers = {0};
	struct sluice_slice rest = frame->payload;
	char subject[SUBJECT_BYTES + 1];
	struct held *known = held_find(sub, frame->token);

	/* Delivered again after a reconnect: the application has them. */
	if (known != NULL)
		return;
	held_add(sub, frame->token, frame->lease_ms, frame->count);
	for (uint16_t r = 0; r < frame->run_count; r++) {
		struct frame_run run = frame_run_at(frame->runs, r);

		for (uint32_t i = 0; i < run.count && rest.len >= 10; i++) {
			const uint8_t *at = rest.data;
			struct envelope envelope;
			sluice_delivery_view view = {.kind = SLUICE_ITEM,
						     .seq = run.first + i,
						     .token = frame->token,
						     .lease_ms = frame->lease_ms};

			view.attempts = (uint32_t)at[0] << 8 | at[1];
			for (int b = 2; b < 10; b++)
				view.time_ms = view.time_ms << 8 | at[b];
			rest = (struct sluice_slice){at + 10, rest.len - 10};
			if (envelope_next(&rest, &envelope, &why) != 0 ||
			    envelope.subject.len > SUBJECT_BYTES)
				break;
			if (envelope.subject.len > 0)
				memcpy(subject, envelope.subject.data, envelope.subject.len);
			subject[envelope.subject.len] = 0;
			view.subject = subject;
			view.key = envelope.key;
			view.id = envelope.id;
			view.body = envelope.body;
			view.priority = envelope.priority;
			view.headers = headers_of(envelope.headers, &headers, list);
			if (ack_waits(sub, frame->token, view.seq)) {
				sub_item_done(sub, frame->token);
				continue;
			}
			sub_deliver(sub, &view);
			if (sub->closing)
				break;
		}
	}
	buffer_free(&headers);
}

static void give_job(sluice_sub *sub, const Sluice__JobDelivery *job)
{
	sluice_delivery_view view = {.kind = SLUICE_JOB,
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
				     .priority = (uint8_t)job->priority};
	struct held_job *held;

	held = job_find(sub, job->job);
	if (held != NULL && held->token == job->token)
		return; /* delivered again after a reconnect: the application has it */
	if (held != NULL)
		job_drop(sub, held);
	held = mem_alloc(sizeof(*held));
	if (held == NULL || (held->job = mem_text(job->job, strlen(job->job))) == NULL) {
		mem_free(held);
		return;
	}
	held->token = job->token;
	HASH_ADD_KEYPTR(hh, sub->jobs, held->job, strlen(held->job), held);
	sub_deliver(sub, &view);
}

static void give_jobs(sluice_sub *sub, struct sluice_slice payload)
{
	Sluice__JobDeliveries *list =
		sluice__job_deliveries__unpack(&mem_protobuf, payload.len, payload.data);

	if (list == NULL) {
		link_broken(sub->client, SLUICE_E_PROTOCOL, "the broker sent malformed jobs");
		return;
	}
	for (size_t i = 0; i < list->n_jobs && !sub->closing; i++)
		give_job(sub, list->jobs[i]);
	sluice__job_deliveries__free_unpacked(list, &mem_protobuf);
}

static sluice_sub *sub_by_number(sluice_client *client, uint32_t number)
{
	sluice_sub *sub;

	HASH_FIND(hh, client->subs, &number, sizeof(number), sub);
	return sub;
}

void sub_on_deliver(sluice_client *client, struct sluice_slice body)
{
	struct frame_deliver frame;
	const char *why = "";
	uint8_t *raw = NULL;
	sluice_sub *sub;

	if (frame_deliver_decode(body, &frame, &why) != 0) {
		link_broken(client, SLUICE_E_PROTOCOL, why);
		return;
	}
	sub = sub_by_number(client, frame.subscription);
	if (sub == NULL || sub->closing)
		return;
	if (frame.kind == DELIVER_ITEMS) {
		give_items(sub, &frame);
	} else if (frame.kind == DELIVER_JOBS) {
		give_jobs(sub, frame.payload);
	} else if (frame.codec == BATCH_RAW) {
		give_events(sub, &frame, frame.payload);
	} else if (batch_decompress(frame.payload, frame.raw_bytes, &raw, &why) == 0) {
		give_events(sub, &frame, (struct sluice_slice){raw, frame.raw_bytes});
		free(raw);
	} else {
		link_broken(client, SLUICE_E_PROTOCOL, why);
	}
}

static void end(sluice_sub *sub, int code, const char *text)
{
	sluice_delivery_view view = {.kind = SLUICE_SUB_END, .code = code, .text = text};

	if (sub->ended)
		return;
	sub->ended = true;
	sub->end_code = code;
	(void)snprintf(sub->end_text, sizeof(sub->end_text), "%s", text);
	sub_open_tell(sub, code, text);
	if (sub->on_delivery != NULL && !sub->closing)
		sub->on_delivery(sub, &view, sub->user);
	(void)pthread_cond_broadcast(&sub->client->changed);
}

void sub_on_notice(sluice_client *client, const Sluice__Notice *notice)
{
	sluice_sub *sub = sub_by_number(client, notice->subscription);
	sluice_delivery_view view = {.offset = notice->offset,
				     .to_offset = notice->to_offset,
				     .text = notice->text};

	switch (notice->kind) {
	case SLUICE__NOTICE_KIND__NOTICE_CAUGHT_UP:
	case SLUICE__NOTICE_KIND__NOTICE_GAP:
		if (sub == NULL)
			return;
		view.kind = notice->kind == SLUICE__NOTICE_KIND__NOTICE_GAP ? SLUICE_GAP : SLUICE_CAUGHT_UP;
		if (view.kind == SLUICE_GAP)
			sub->next_offset = notice->to_offset;
		sub_deliver(sub, &view);
		return;
	case SLUICE__NOTICE_KIND__NOTICE_SUBSCRIPTION_END:
		if (sub != NULL)
			end(sub, notice->code, notice->text);
		return;
	case SLUICE__NOTICE_KIND__NOTICE_JOB_CANCEL:
		client_event(client, &(sluice_event){.kind = SLUICE_EVENT_JOB_CANCEL,
						     .text = "",
						     .job = notice->job,
						     .token = notice->token});
		return;
	case SLUICE__NOTICE_KIND__NOTICE_LEASE_LOST:
		sub_job_gone(client, notice->job, notice->token);
		client_event(client, &(sluice_event){.kind = SLUICE_EVENT_LEASE_LOST,
						     .text = "",
						     .job = notice->job,
						     .token = notice->token});
		return;
	default:
		return;
	}
}

/* ---- opening ---- */

static void opened(sluice_client *client, struct call *call)
{
	sluice_sub *sub = call->hook_user;
	const sluice_reply *reply = call->reply;

	if (sub == NULL && reply != NULL && reply->code == 0)
		sub_unwanted(client, call);
	if (sub == NULL || reply == NULL)
		return;
	if (reply->code != 0) {
		if (!sluice_error_retriable(reply->code))
			end(sub, reply->code, reply->text);
		else if (client->state == STATE_READY)
			sub->reopen_ms = now_ms() + REOPEN_MS;
		return;
	}
	sub->opened = true;
	if (sub->follow && !sub->started && reply->message != NULL && reply->message->follow_opened != NULL) {
		sub->next_offset = reply->message->follow_opened->start_offset;
		sub->started = true;
	}
	sub_open_tell(sub, 0, "");
}

/* The broker takes off what it delivers again, so a consumer's credit counts what it holds. */
static uint32_t credit_now(const sluice_sub *sub)
{
	uint64_t held = HASH_COUNT(sub->jobs);

	if (sub->follow)
		return sub->waiting_count < sub->credit ? sub->credit - (uint32_t)sub->waiting_count : 1;
	if (!sub->manual_credit)
		return sub->credit;
	for (const struct held *grant = sub->held; grant != NULL; grant = grant->hh.next)
		held += grant->out;
	return sub->credit + (uint32_t)held;
}

struct call *sub_open_call(sluice_sub *sub)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__FollowOpen follow = SLUICE__FOLLOW_OPEN__INIT;
	Sluice__ConsumeOpen consume = SLUICE__CONSUME_OPEN__INIT;
	sluice_call options = {.deadline_ms = -1};
	struct call *call;

	sub->owed = 0;
	sub->reopen_ms = 0;
	if (sub->follow) {
		follow.stream = sub->name;
		follow.subscription = sub->number;
		follow.filter = sub->filter;
		follow.cursor = sub->cursor;
		follow.raw = true;
		follow.credit = credit_now(sub);
		follow.from = sub->started ? SLUICE__FOLLOW_FROM__FROM_OFFSET : (Sluice__FollowFrom)sub->from;
		follow.offset = sub->started ? sub->next_offset : sub->offset;
		follow.time_ms = sub->time_ms;
		request.op_case = SLUICE__REQUEST__OP_FOLLOW_OPEN;
		request.follow_open = &follow;
	} else {
		consume.queue = sub->name;
		consume.subscription = sub->number;
		consume.credit = credit_now(sub);
		consume.lease_ms = sub->lease_ms;
		consume.orphans = sub->orphans;
		consume.resume = true;
		consume.session_lease = sub->session_lease;
		request.op_case = SLUICE__REQUEST__OP_CONSUME_OPEN;
		request.consume_open = &consume;
	}
	/* Not repeated by itself: subs_open makes a new one after each connect, with what is right then. */
	call = call_new(sub->client, &request, false, &options);
	if (call != NULL) {
		call->hook = opened;
		call->hook_user = sub;
	}
	return call;
}

void subs_open(sluice_client *client)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs, sub, next) {
		struct call *call = sub->ended || sub->closing || sub->opened ? NULL : sub_open_call(sub);

		if (call == NULL)
			continue;
		/* Ahead of acks and the like, which need the subscription. */
		DL_DELETE(client->ordered, call);
		DL_PREPEND(client->ordered, call);
	}
}

void subs_broken(sluice_client *client, bool session_lost)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs, sub, next) {
		struct held *held, *after;
		struct held_job *job, *next_job;

		sub->opened = false;
		if (!session_lost)
			continue;
		/* A new session holds nothing of the old one's. */
		HASH_ITER(hh, sub->held, held, after)
			held_drop(sub, held);
		HASH_ITER(hh, sub->jobs, job, next_job)
			job_drop(sub, job);
	}
}

void subs_end(sluice_client *client, int code)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs, sub, next)
		end(sub, code, sluice_error_text(code));
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
		job_drop(sub, job);
	DL_FOREACH_SAFE(sub->acks, acks, next_acks) {
		mem_free(acks->runs);
		mem_free(acks);
	}
	DL_FOREACH_SAFE(sub->waiting, delivery, next)
		sluice_delivery_free(delivery);
	mem_free(sub->name);
	mem_free(sub->cursor);
	mem_free(sub->filter);
	mem_free(sub);
}

/* ---- acks ---- */

static void acks_write(sluice_sub *sub, const struct ack_gather *acks)
{
	for (size_t from = 0; from < acks->count; from += LIMIT_ACK_RUNS_MAX) {
		size_t count = acks->count - from < LIMIT_ACK_RUNS_MAX ? acks->count - from
								       : (size_t)LIMIT_ACK_RUNS_MAX;
		struct frame_ack frame = {.subscription = sub->number,
					  .op = ACK_DONE,
					  .token = acks->token,
					  .run_count = (uint16_t)count};
		uint8_t *at = link_frame(sub->client, FRAME_ACK, 0, frame_ack_size(&frame));

		if (at == NULL)
			return;
		(void)frame_ack_encode(at, &frame, acks->runs + from);
	}
}

static void credit_write(sluice_sub *sub)
{
	struct frame_credit frame = {sub->number, sub->owed};
	uint8_t *at;

	/* In larger steps: a frame for each event would cost more than the event. */
	if (sub->owed == 0 || (sub->follow && sub->owed < sub->credit / 4 && sub->waiting_count > 0))
		return;
	at = link_frame(sub->client, FRAME_CREDIT, 0, FRAME_CREDIT_BYTES);
	if (at == NULL)
		return;
	frame_credit_encode(at, &frame);
	sub->owed = 0;
}

void subs_flush(sluice_client *client)
{
	sluice_sub *sub, *next;

	if (client->state != STATE_READY)
		return;
	HASH_ITER(hh, client->subs, sub, next) {
		struct ack_gather *acks, *after;

		if (!sub->opened)
			continue;
		DL_FOREACH_SAFE(sub->acks, acks, after) {
			acks_write(sub, acks);
			if (client->state != STATE_READY)
				return;
			DL_DELETE(sub->acks, acks);
			mem_free(acks->runs);
			mem_free(acks);
		}
		credit_write(sub);
		if (client->state != STATE_READY)
			return;
	}
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
	if (acks->count > 0 && acks->runs[acks->count - 1].first + acks->runs[acks->count - 1].count == seq) {
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

void sub_item_done(sluice_sub *sub, sluice_token token)
{
	struct held *held = held_find(sub, token);

	if (held == NULL)
		return;
	if (--held->out == 0)
		held_drop(sub, held);
	release(sub, 1);
}

/* ACKs with a correlation number are calls whose frame is an ACK: their answer comes here. */
void sub_on_acked(sluice_client *client, uint32_t corr, struct sluice_slice body)
{
	struct frame_acked answer;
	const char *why = "";
	char text[256];
	struct call *call;
	sluice_reply *reply;

	if (frame_acked_decode(body, &answer, &why) != 0) {
		link_broken(client, SLUICE_E_PROTOCOL, why);
		return;
	}
	if (corr == 0) {
		(void)snprintf(text, sizeof(text), "%.*s",
			       (int)(answer.text.len < 255 ? answer.text.len : 255),
			       (const char *)answer.text.data);
		client_event(client,
			     &(sluice_event){.kind = SLUICE_EVENT_ERROR, .code = answer.code, .text = text});
		return;
	}
	HASH_FIND(hh, client->calls, &corr, sizeof(corr), call);
	if (call == NULL)
		return;
	reply = reply_new(answer.code, answer.text.data, answer.text.len);
	if (reply != NULL) {
		reply->index = answer.index;
		reply->affected = answer.affected;
		reply->offset = UINT64_MAX;
	}
	call_finish(client, call, reply);
}

void subs_due(sluice_client *client, uint64_t now, uint64_t *io_next)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs, sub, next) {
		struct held *held, *after;

		sub_open_due(sub, now, io_next);
		HASH_ITER(hh, sub->held, held, after) {
			struct frame_ack frame = {.subscription = sub->number,
						  .op = ACK_EXTEND,
						  .token = held->token,
						  .value_ms = held->lease_ms};
			uint8_t *at;

			if (held->extend_ms > now || !sub->opened || client->state != STATE_READY) {
				*io_next = held->extend_ms < *io_next && sub->opened ? held->extend_ms
										     : *io_next;
				continue;
			}
			at = link_frame(client, FRAME_ACK, 0, frame_ack_size(&frame));
			if (at == NULL)
				return;
			(void)frame_ack_encode(at, &frame, NULL);
			held->extend_ms = now + held->lease_ms / 2;
			*io_next = held->extend_ms < *io_next ? held->extend_ms : *io_next;
		}
	}
}
