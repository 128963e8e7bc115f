/* SPDX-License-Identifier: Apache-2.0
 *
 * What consumers hold: grants and jobs, which are extended by half of their lease; and acks, which gather until the end of the loop's turn
 * and go out as runs, with the credit that they give back.
 */
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "client/sub/sub.h"

struct held *held_find(sluice_sub *sub, sluice_token token)
{
	struct held *held;

	HASH_FIND(hh, sub->held, &token, sizeof(token), held);
	return held;
}

void held_drop(sluice_sub *sub, struct held *held)
{
	HASH_DELETE(hh, sub->held, held);
	mem_free(held);
}

static bool shares_queue(const sluice_sub *sub, const sluice_sub *other)
{
	return other != sub && !other->follow && strcmp(other->name, sub->name) == 0;
}

static bool comes_to_others(const sluice_sub *sub)
{
	for (const sluice_sub *other = sub->client->subs; other != NULL; other = other->hh.next)
		if (other->coming && shares_queue(sub, other))
			return true;
	return false;
}

/* A consumer of the queue that is being opened is given what the session held then, and that
 * may be on its way still when the ack of it is out and forgotten. */
void held_done(sluice_sub *sub, struct held *held)
{
	if (!sub->coming && !comes_to_others(sub)) {
		held_drop(sub, held);
		return;
	}
	held->due_ms = UINT64_MAX;
	sub->keeps = true;
}

static void kept_drop(sluice_sub *sub)
{
	struct held *held, *next;

	if (!sub->keeps || sub->coming || comes_to_others(sub))
		return;
	sub->keeps = false;
	HASH_ITER(hh, sub->held, held, next)
		if (held->out == 0 && held->seen)
			held_drop(sub, held);
}

/* Without a word of the application a lease is extended for so long: an hour. One of less than a second asks for a quick return, and 16 of it are enough. */
enum { EXTEND_MAX_MS = 3600000, SHORT_LEASE_MS = 1000, SHORT_LEASES_MAX = 16 };

static uint32_t extend_max(const sluice_sub *sub, uint32_t lease_ms)
{
	if (sub->extend_max_ms != 0)
		return sub->extend_max_ms;
	return lease_ms < SHORT_LEASE_MS ? SHORT_LEASES_MAX * lease_ms : EXTEND_MAX_MS;
}

uint32_t held_extend_max(const sluice_sub *sub)
{
	if (sub->session_lease || !sub->client->config.lease_extend)
		return 0;
	return extend_max(sub, sub->lease_ms != 0 ? sub->lease_ms : SHORT_LEASE_MS);
}

static void held_due_set(sluice_sub *sub, struct held *held, uint64_t due_ms)
{
	held->due_ms = due_ms;
	if (due_ms < sub->due_ms)
		sub->due_ms = due_ms;
}

/* A lease begins, or was extended: what is due next. */
static void held_lease(sluice_sub *sub, struct held *held, uint64_t now)
{
	uint64_t stops = held->since_ms + extend_max(sub, held->lease_ms), half = now + held->lease_ms / 2;

	held->ends_ms = now + held->lease_ms;
	held_due_set(sub, held, sub->client->config.lease_extend && stops > half ? half : held->ends_ms);
}

static void held_begin(sluice_sub *sub, struct held *held)
{
	held->due_ms = held->ends_ms = UINT64_MAX; /* of a session: it has no end of its own */
	if (held->lease_ms == 0)
		return;
	held->since_ms = now_ms();
	held_lease(sub, held, held->since_ms);
}

bool held_add(sluice_sub *sub, sluice_token token, uint32_t lease_ms, uint32_t count)
{
	struct held *held = mem_alloc(sizeof(*held));

	if (held == NULL)
		return false;
	held->token = token;
	HASH_ADD(hh, sub->held, token, sizeof(held->token), held);
	if (!HASHED(held)) {
		mem_free(held);
		return false;
	}
	held->lease_ms = lease_ms;
	held->out = held->asked = count;
	held->seen = true;
	held_begin(sub, held);
	return true;
}

void held_gone_before(sluice_client *client, const sluice_sub *from, sluice_token token)
{
	for (sluice_sub *other = client->subs; other != NULL; other = other->hh.next) {
		if (!other->coming || other == from || (from != NULL && !shares_queue(from, other)) ||
		    held_find(other, token) != NULL)
			continue;
		if (held_add(other, token, 0, 0))
			other->keeps = true;
		else
			link_lacks(client); /* with the next connection only what is held comes */
	}
}

void held_leave(const sluice_sub *sub)
{
	for (const struct held *held = sub->held; held != NULL; held = held->hh.next)
		held_gone_before(sub->client, sub, held->token);
	for (const struct held_job *job = sub->jobs; job != NULL; job = job->hh.next)
		held_gone_before(sub->client, sub, job->token);
}

void held_ask(sluice_sub *sub)
{
	struct held *held, *next;

	HASH_ITER(hh, sub->held, held, next) {
		held->asked = held->out;
		held->seen = false;
		if (held->out == 0)
			held_drop(sub, held);
	}
	for (struct held_job *job = sub->jobs; job != NULL; job = job->hh.next) {
		sub->client->doubts -= job->doubted;
		job->seen = job->doubted = false;
	}
	sub->resume_damaged = false;
}

/* The application has them. What it has acked meanwhile was taken off the credit, too; or, of its own credit, was not asked for. */
void held_came(sluice_sub *sub, struct held *held, uint32_t count)
{
	uint32_t had = sub->manual_credit ? held->asked : held->out;

	if (count > had)
		sub_credit_back(sub, count - had);
	held->seen = true;
	if (held->out == 0)
		held_done(sub, held);
}

/* By id: one claim leases many jobs under one token. */
struct held_job *held_job_find(sluice_sub *sub, const char *id)
{
	struct held_job *job;

	HASH_FIND_STR(sub->jobs, id, job);
	return job;
}

struct held_job *held_job_add(sluice_sub *sub, const char *id, sluice_token token, uint64_t number)
{
	size_t len = strlen(id);
	struct held_job *job = mem_alloc(sizeof(*job));

	if (job == NULL || (job->job = mem_text(id, len)) == NULL) {
		mem_free(job);
		return NULL;
	}
	job->token = token;
	job->number = number;
	job->seen = true;
	HASH_ADD_KEYPTR(hh, sub->jobs, job->job, len, job);
	if (HASHED(job))
		return job;
	mem_free(job->job);
	mem_free(job);
	return NULL;
}

void held_job_drop(sluice_sub *sub, struct held_job *job)
{
	sub->client->doubts -= job->doubted;
	HASH_DELETE(hh, sub->jobs, job);
	mem_free(job->job);
	mem_free(job);
}

/* A job that this client held is over: its place in the credit is free. */
void sub_job_gone(sluice_client *client, const char *job, sluice_token token)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs, sub, next) {
		struct held_job *held = held_job_find(sub, job);
		bool seen, waits;

		if (held == NULL || (token != 0 && held->token != token))
			continue;
		seen = held->seen;
		waits = undelivered_drop(sub, held->token, job) != 0;
		held_job_drop(sub, held);
		if (seen && waits)
			sub_credit_back(sub, 1);
		else if (seen)
			sub_release(sub, 1);
	}
}

uint32_t held_by_others(const sluice_sub *sub)
{
	uint32_t count = 0;

	for (const sluice_sub *other = sub->client->subs; other != NULL; other = other->hh.next) {
		if (!shares_queue(sub, other))
			continue;
		count += HASH_COUNT(other->jobs);
		for (const struct held *held = other->held; held != NULL; held = held->hh.next)
			count += held->out;
	}
	return count;
}

/* Whether call is an ack or a nack, not answered yet, of that grant. */
static bool call_acks(const sluice_sub *sub, const struct call *call, sluice_token token,
		      struct frame_ack *ret)
{
	const char *why;

	return call->frame == FRAME_ACK &&
	       frame_ack_decode((struct sluice_slice){call->request, call->request_len}, ret, &why) == 0 &&
	       ret->op != ACK_EXTEND && ret->subscription == sub->number && ret->token == token;
}

static bool acks_wait(const sluice_sub *sub, sluice_token token)
{
	const struct ack_gather *acks;
	const struct call *call;
	struct frame_ack ack;

	DL_FOREACH(sub->acks, acks)
		if (acks->token == token)
			return true;
	DL_FOREACH(sub->client->ordered, call)
		if (call_acks(sub, call, token, &ack))
			return true;
	return false;
}

bool held_elsewhere(sluice_sub *sub, sluice_token token, const char *job)
{
	for (sluice_sub *other = sub->client->subs; other != NULL; other = other->hh.next) {
		const struct held_job *held = NULL;

		if (!shares_queue(sub, other))
			continue;
		if (job == NULL && (held_find(other, token) != NULL || acks_wait(other, token)))
			return true;
		if (job != NULL)
			held = held_job_find(other, job);
		if (held != NULL && held->token == token)
			return true;
	}
	return false;
}

/* ---- acks and credit ---- */

void sub_credit_back(sluice_sub *sub, uint32_t count)
{
	if (sub->draining || sub->gives_back)
		return;
	uint32_t kept = count < sub->debt ? count : sub->debt;

	sub->debt -= kept;
	sub->owed += count - kept;
}

void sub_release(sluice_sub *sub, uint32_t count)
{
	if (!sub->manual_credit)
		sub_credit_back(sub, count);
}

/* Acked by the application, and not sent or not answered yet: it comes again after a reconnect. */
bool sub_ack_waits(const sluice_sub *sub, sluice_token token, uint64_t seq)
{
	const struct ack_gather *acks;
	const struct call *call;
	struct frame_ack ack;

	DL_FOREACH(sub->acks, acks)
		for (size_t i = 0; acks->token == token && i < acks->count; i++)
			if (seq >= acks->runs[i].first && seq - acks->runs[i].first < acks->runs[i].count)
				return true;
	DL_FOREACH(sub->client->ordered, call)
		for (uint16_t i = 0; call_acks(sub, call, token, &ack) && i < ack.run_count; i++) {
			struct frame_run run = frame_run_at(ack.runs, i);

			if (seq >= run.first && seq - run.first < run.count)
				return true;
		}
	return false;
}

/* False: some are left, for the next connection. */
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
	/* A follower's is gathered: while less than a quarter is owed, the broker has enough of it to go on. */
	if (sub->owed == 0 || sub->gives_back || sub->draining || sub->resuming ||
	    (sub->follow && sub->owed < sub->credit / 4))
		return;
	/* While most of it waits for the application, a consumer's is gathered, too: larger grants cost less than many small ones. */
	if (!sub->follow && !sub->manual_credit && sub->waiting_count >= sub->credit / 2 &&
	    sub->owed < sub->credit / 4)
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

		kept_drop(sub);
		if (!sub->opened)
			continue;
		DL_FOREACH_SAFE(sub->acks, acks, after) {
			if (!acks_write(sub, acks))
				return;
			DL_DELETE(sub->acks, acks);
			mem_free(acks->runs);
			mem_free(acks);
		}
		sub_begun_write(sub);
		if (client->state != STATE_READY)
			return;
		credit_write(sub);
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

	if (held == NULL || held->out == 0)
		return;
	held->out--;
	/* Not delivered since the last opening: that credit is whole, and held_came() counts what is taken off it. If it is forgotten before, what
	 * comes is taken for new. */
	if (held->seen)
		sub_release(sub, 1);
	if (held->out == 0)
		held->due_ms = UINT64_MAX;
	if (held->out == 0 && held->seen)
		held_done(sub, held);
}

/* ACKs with a correlation number are calls whose frame is an ACK: their answer comes here. */
bool sub_on_acked(sluice_client *client, uint32_t corr, struct sluice_slice body)
{
	struct frame_acked answer;
	const char *why = "";
	char text[256];
	struct call *call;
	sluice_reply *reply;

	if (frame_acked_decode(body, &answer, &why) != 0) {
		link_broken(client, SLUICE_E_PROTOCOL, why);
		return true;
	}
	if (corr == 0) {
		(void)snprintf(text, sizeof(text), "%.*s",
			       (int)(answer.text.len < 255 ? answer.text.len : 255),
			       (const char *)answer.text.data);
		client_event(client,
			     &(sluice_event){.kind = SLUICE_EVENT_ERROR, .code = answer.code, .text = text});
		return true;
	}
	HASH_FIND(hh, client->calls, &corr, sizeof(corr), call);
	if (call == NULL)
		return true;
	reply = reply_new(answer.code, answer.text.data, answer.text.len);
	if (reply == NULL)
		return false;
	reply->index = answer.index;
	reply->affected = answer.affected;
	reply->offset = UINT64_MAX;
	call_finish(client, call, reply);
	return true;
}

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

/* Once for each lease. The items stay on account of the credit until the application has acked or nacked them: it still has them in hand. The callback
 * may do anything with the subscription. */
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
	if (held->out == 0) { /* the application had none of it */
		if (held->seen)
			held_done(sub, held);
		return;
	}
	client_event(sub->client, &(sluice_event){.kind = SLUICE_EVENT_LEASE_LOST,
						  .code = code,
						  .text = why,
						  .token = held->token,
						  .sub = sub,
						  .items = held->out});
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
		held_due_set(sub, held, now_ms() + held->lease_ms / 8); /* refused for now */
}

/* False: there was no memory for it; it is tried again. */
static bool held_extend(sluice_sub *sub, struct held *held, uint64_t now)
{
	struct frame_ack frame = {.subscription = sub->number,
				  .op = ACK_EXTEND,
				  .token = held->token,
				  .value_ms = held->lease_ms};
	sluice_call options = {.deadline_ms = -1};
	uint8_t *body = mem_alloc(frame_ack_size(&frame));
	struct call *call = body != NULL ? call_new_frame(sub->client, FRAME_ACK, body,
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

/* Extends what is due, and says what has ended. A lease that ends while there is no connection is told by the broker, after the reconnect, if it was to be
 * extended: a broker that was away gives more time. */
static void held_due(sluice_sub *sub, uint64_t now)
{
	bool connected = sub->client->state == STATE_READY && sub->opened;
	struct held *held = sub->held;

	sub->due_ms = UINT64_MAX; /* made anew below; what callbacks add meanwhile lowers it, too */
	while (held != NULL && !sub->closing) {
		struct held *next = held->hh.next;
		sluice_token next_token = next != NULL ? next->token : 0;
		bool ended = held->due_ms <= now && held->due_ms == held->ends_ms;

		if (held->due_ms <= now && !ended && connected)
			(void)held_extend(sub, held, now);
		if (held->due_ms > now || !ended) {
			if (connected || held->due_ms > now)
				sub->due_ms = held->due_ms < sub->due_ms ? held->due_ms : sub->due_ms;
			held = next;
			continue;
		}
		held_lost(
			sub, held, SLUICE_E_TIMEOUT,
			sub->client->config.lease_extend
				? "the lease ended: it was extended for as long as it is without a word of the application "
				  "(lease_extend_max_ms)"
				: "the lease ended: it is not extended by itself (lease_extend)");
		held = next_token != 0 ? held_find(sub, next_token) : NULL;
		if (next_token != 0 && held == NULL)
			held = sub->held; /* the callback acked it: those before it are done already */
	}
}

void subs_due(sluice_client *client, uint64_t now, uint64_t *io_next)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs, sub, next) {
		sub_open_due(sub, now, io_next);
		/* Not each turn: it may hold thousands. */
		if (sub->due_ms <= now)
			held_due(sub, now);
		*io_next = sub->due_ms < *io_next ? sub->due_ms : *io_next;
	}
}
