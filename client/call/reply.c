/* SPDX-License-Identifier: Apache-2.0
 * Replies and their contents. */
#include <stdlib.h>
#include <string.h>

#include "client/base/memory.h"
#include "client/base/sized.h"
#include "client/call/reply.h"
#include "protocol/message.h"
#include "protocol/message_block.h"
#include "sluice.pb-c.h"

sluice_reply *reply_new(int code, const char *text, size_t text_len)
{
	sluice_reply *reply = mem_alloc(sizeof(*reply));

	if (reply == NULL)
		return NULL;
	reply->refs = 1;
	reply->code = code;
	if (text_len == 0 && code != 0) {
		text = sluice_error_text(code);
		text_len = strlen(text);
	}
	reply->text = mem_text(text, text_len);
	if (reply->text == NULL) {
		mem_free(reply);
		return NULL;
	}
	return reply;
}

sluice_reply *reply_in_block(struct message_block *block, Sluice__Reply *message)
{
	sluice_reply *reply = message_block_alloc(block, sizeof(*reply));

	if (reply == NULL)
		return NULL;
	reply->refs = 1;
	reply->block = block;
	reply->message = message;
	reply->code = message->code;
	reply->text = message->text;
	/* The code's own text is static. */
	if (reply->text[0] == 0 && reply->code != 0)
		reply->text = (char *)(uintptr_t)sluice_error_text(reply->code);
	return reply;
}

/* NULL: the reply has none, or there was no memory for it. */
static const Sluice__Reply *body(const sluice_reply *reply)
{
	return reply != NULL ? reply->message : NULL;
}

sluice_reply *sluice_reply_ref(const sluice_reply *reply)
{
	sluice_reply *own = (sluice_reply *)(uintptr_t)reply;

	if (own == NULL)
		return NULL;
	__atomic_add_fetch(&own->refs, 1, __ATOMIC_RELAXED);
	return own;
}

void sluice_reply_free(sluice_reply *reply)
{
	if (reply == NULL || __atomic_sub_fetch(&reply->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	mem_free(reply->json);
	mem_free(reply->spare);
	if (reply->block != NULL) {
		message_block_free(reply->block);
		return;
	}
	mem_free(reply->text);
	mem_free(reply);
}

int sluice_reply_code(const sluice_reply *reply)
{
	return reply != NULL ? reply->code : SLUICE_E_NOMEM;
}

const char *sluice_reply_text(const sluice_reply *reply)
{
	return reply != NULL ? reply->text : sluice_error_text(SLUICE_E_NOMEM);
}

bool sluice_reply_retriable(const sluice_reply *reply)
{
	return sluice_error_retriable(sluice_reply_code(reply));
}

uint64_t sluice_reply_request_id(const sluice_reply *reply)
{
	return reply != NULL ? reply->request : 0;
}

sluice_index sluice_reply_index(const sluice_reply *reply)
{
	return reply != NULL ? reply->index : 0;
}

bool sluice_reply_more(const sluice_reply *reply)
{
	return body(reply) != NULL && body(reply)->more;
}

bool sluice_reply_duplicate(const sluice_reply *reply)
{
	return reply != NULL && reply->duplicate;
}

uint64_t sluice_reply_affected(const sluice_reply *reply)
{
	return reply != NULL ? reply->affected : 0;
}

uint64_t sluice_reply_offset(const sluice_reply *reply)
{
	return reply != NULL ? reply->offset : UINT64_MAX;
}

/* JSON for an answer of the library itself, to a publish or an ack, in the form of the broker's
 * replies. */
static int json_of_bare(const sluice_reply *reply, char **ret)
{
	Sluice__Reply bare = SLUICE__REPLY__INIT;

	bare.code = reply->code;
	bare.text = reply->text;
	bare.index = reply->index;
	bare.affected = reply->affected;
	return message_json(&bare.base, false, ret);
}

const char *sluice_reply_json(sluice_reply *reply)
{
	char *text = NULL;
	int rc;

	if (reply == NULL || reply->json != NULL)
		return reply != NULL ? reply->json : NULL;
	rc = reply->message != NULL ? message_json(&reply->message->base, false, &text)
				    : json_of_bare(reply, &text);
	if (rc == 0)
		reply->json = mem_text(text, strlen(text)); /* a copy in the allocator's memory */
	free(text);
	return reply->json;
}

/* ---- rows ---- */

/* Row i of a list of the reply; NULL: none. */
#define ROW(reply, list, i) \
	(body(reply) != NULL && (i) < (reply)->message->n_##list ? (reply)->message->list[i] : NULL)

bool sluice_reply_stream(const sluice_reply *reply, size_t i, sluice_stream_info *ret)
{
	const Sluice__StreamInfo *row = ROW(reply, streams, i);

	if (row == NULL || row->config == NULL)
		return false;

	const sluice_stream_info own = {.size = sizeof(own),
					.name = row->config->name,
					.id = row->id,
					.first_offset = row->first_offset,
					.next_offset = row->next_offset,
					.events = row->events,
					.bytes = row->bytes,
					.first_time_ms = row->first_time_ms,
					.last_time_ms = row->last_time_ms,
					.max_age_ms = row->config->max_age_ms,
					.max_bytes = row->config->max_bytes,
					.max_events = row->config->max_events};

	return stream_info_fill(ret, &own);
}

bool sluice_reply_queue(const sluice_reply *reply, size_t i, sluice_queue_info *ret)
{
	const Sluice__QueueInfo *row = ROW(reply, queues, i);

	if (row == NULL || row->config == NULL)
		return false;

	const sluice_queue_info own = {.size = sizeof(own),
				       .name = row->config->name,
				       .jobs = row->config->kind == SLUICE__QUEUE_KIND__QUEUE_JOBS,
				       .id = row->id,
				       .ready = row->ready,
				       .leased = row->leased,
				       .delayed = row->delayed,
				       .orphaned = row->orphaned,
				       .put = row->put,
				       .acked = row->acked,
				       .dead_lettered = row->dead_lettered,
				       .bytes = row->bytes,
				       .lease_ms = row->config->lease_ms,
				       .max_attempts = row->config->max_attempts,
				       .dead_letter = row->config->dead_letter,
				       .lifecycle = row->config->lifecycle};

	return queue_info_fill(ret, &own);
}

bool sluice_reply_job(const sluice_reply *reply, size_t i, sluice_job_info *ret)
{
	const Sluice__JobInfo *row = ROW(reply, jobs, i);

	if (row == NULL && i == 0 && body(reply) != NULL && reply->message->explained != NULL)
		row = reply->message->explained->job;
	if (row == NULL)
		return false;

	const sluice_job_info own = {.size = sizeof(own),
				     .job = row->job,
				     .number = row->number,
				     .queue = row->queue,
				     .lifecycle = row->lifecycle,
				     .state = row->state,
				     .claim = row->claim,
				     .holder = row->holder,
				     .tag = row->tag,
				     .scheduler_ref = row->scheduler_ref,
				     .owner = row->owner,
				     .evidence = row->evidence,
				     .source = row->source,
				     .terminal = row->terminal,
				     .cancel = row->cancel,
				     .intent = row->intent,
				     .attempt = row->attempt,
				     .token = row->token,
				     .holder_session = row->holder_session,
				     .exit_code = row->exit_code,
				     .priority = (uint8_t)row->priority,
				     .submit_time_ms = row->submit_time_ms,
				     .change_time_ms = row->change_time_ms,
				     .payload = {row->payload.data, row->payload.len},
				     .judge = row->judge,
				     .exited = row->exited,
				     .signal = row->signal,
				     .evidence_class = (sluice_evidence_class)row->class_,
				     .seen_time_ms = row->seen_time_ms,
				     .started_time_ms = row->started_time_ms,
				     .ended_time_ms = row->ended_time_ms,
				     .memory_peak_bytes = row->memory_peak_bytes};

	return job_info_fill(ret, &own);
}

bool sluice_reply_history(const sluice_reply *reply, size_t i, sluice_job_history_row *ret)
{
	const Sluice__JobHistoryRow *row = ROW(reply, history, i);

	if (row == NULL)
		return false;

	const sluice_job_history_row own = {.size = sizeof(own),
					    .number = row->n,
					    .time_ms = row->time_ms,
					    .attempt = row->attempt,
					    .event = row->event,
					    .from_state = row->from_state,
					    .state = row->state,
					    .source = row->source,
					    .evidence = row->evidence,
					    .scheduler_ref = row->scheduler_ref,
					    .token = row->token,
					    .index = row->index,
					    .exit_code = row->exit_code,
					    .exited = row->exited,
					    .signal = row->signal,
					    .evidence_class = (sluice_evidence_class)row->class_,
					    .seen_time_ms = row->seen_time_ms,
					    .started_time_ms = row->started_time_ms,
					    .ended_time_ms = row->ended_time_ms,
					    .memory_peak_bytes = row->memory_peak_bytes};

	return job_history_row_fill(ret, &own);
}

bool sluice_reply_quarantine(const sluice_reply *reply, size_t i, sluice_quarantine_row *ret)
{
	const Sluice__QuarantineRow *row = ROW(reply, quarantine, i);

	if (row == NULL)
		return false;

	const sluice_quarantine_row own = {.size = sizeof(own),
					   .number = row->n,
					   .time_ms = row->time_ms,
					   .job = row->job,
					   .source = row->source,
					   .state = row->state,
					   .reason = row->reason,
					   .evidence = row->evidence,
					   .attempt = row->attempt};

	return quarantine_row_fill(ret, &own);
}

bool sluice_reply_audit(const sluice_reply *reply, sluice_job_audit_info *ret)
{
	const Sluice__Audited *row = body(reply) != NULL ? reply->message->audited : NULL;

	if (row == NULL)
		return false;

	const sluice_job_audit_info own = {.size = sizeof(own),
					   .jobs = row->jobs,
					   .open = row->open,
					   .ready = row->ready,
					   .leased = row->leased,
					   .orphaned = row->orphaned,
					   .gated = row->gated,
					   .held = row->held,
					   .next_number = row->next_number};

	return job_audit_info_fill(ret, &own);
}

const char *sluice_reply_line(const sluice_reply *reply, size_t i)
{
	if (body(reply) == NULL)
		return NULL;
	if (reply->message->explained != NULL)
		return i < reply->message->explained->n_lines ? reply->message->explained->lines[i]
							      : NULL;
	if (reply->message->audited != NULL)
		return i < reply->message->audited->n_findings
			       ? reply->message->audited->findings[i]
			       : NULL;
	return NULL;
}

sluice_disposition sluice_reply_disposition(const sluice_reply *reply)
{
	if (body(reply) == NULL || reply->message->job_reported == NULL)
		return SLUICE_DISPOSITION_APPLIED;
	return (sluice_disposition)reply->message->job_reported->disposition;
}

const char *sluice_reply_reason(const sluice_reply *reply)
{
	const Sluice__Reply *message = body(reply);

	return message != NULL && message->job_reported != NULL ? message->job_reported->reason
								: "";
}

bool sluice_reply_lifecycle(const sluice_reply *reply, size_t i, sluice_lifecycle_info *ret)
{
	const Sluice__LifecycleInfo *row = ROW(reply, lifecycles, i);

	if (row == NULL || row->config == NULL)
		return false;

	const sluice_lifecycle_info own = {.size = sizeof(own),
					   .name = row->config->name,
					   .id = row->id,
					   .jobs = row->jobs,
					   .cancelled = row->config->cancelled,
					   .failed = row->config->failed,
					   .description = row->config->description,
					   .states = row->config->n_states};

	return lifecycle_info_fill(ret, &own);
}

bool sluice_reply_lifecycle_state(sluice_reply *reply, size_t i, size_t state,
				  sluice_lifecycle_state *ret)
{
	sluice_lifecycle_info info = SLUICE_LIFECYCLE_INFO();
	const Sluice__LifecycleState *row;
	const char **next;

	if (!sluice_reply_lifecycle(reply, i, &info) || state >= info.states)
		return false;
	row = reply->message->lifecycles[i]->config->states[state];
	next = mem_resize(reply->spare, (row->n_next + 1) * sizeof(*next));
	if (next == NULL)
		return false;
	reply->spare = next;
	for (size_t n = 0; n < row->n_next; n++)
		next[n] = row->next[n];
	next[row->n_next] = NULL;

	const sluice_lifecycle_state own = {.size = sizeof(own),
					    .name = row->name,
					    .terminal = row->terminal,
					    .next = next};

	return lifecycle_state_fill(ret, &own);
}

const char *sluice_reply_state(const sluice_reply *reply)
{
	const Sluice__Reply *message = body(reply);

	if (message == NULL)
		return "";
	if (message->job_submitted != NULL)
		return message->job_submitted->state;
	if (message->job_reported != NULL)
		return message->job_reported->state;
	if (message->job_cancelled != NULL)
		return message->job_cancelled->state;
	return "";
}

uint32_t sluice_reply_attempt(const sluice_reply *reply)
{
	const Sluice__Reply *message = body(reply);

	if (message == NULL)
		return 0;
	if (message->job_submitted != NULL)
		return message->job_submitted->attempt;
	if (message->job_reported != NULL)
		return message->job_reported->attempt;
	return message->job_reset != NULL ? message->job_reset->attempt : 0;
}

uint32_t sluice_reply_failed_op(const sluice_reply *reply)
{
	return body(reply) != NULL && reply->message->txn_done != NULL
		       ? reply->message->txn_done->failed_op
		       : 0;
}
