/* SPDX-License-Identifier: Apache-2.0
 *
 * Publishing, input: messages are gathered into batches with consecutive sequence numbers. outbox.c
 * sends the batches and settles them.
 *
 * Target and subject of consecutive equal messages are checked once, when their batch is opened.
 * Messages with the same kind of answer share one end with a count, so that a message without a
 * waiter of its own costs little more than its bytes.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#include "client/base/error.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/base/sized.h"
#include "client/call/call.h"
#include "client/publish/batch.h"
#include "protocol/envelope.h"
#include "protocol/frame.h"
#include "protocol/limits.h"

enum {
	NEAR_MS = 1000, /* closer deadlines use the exact clock */
	COARSE_MS = 10, /* maximum lag of the coarse clock */
	HEADERS_MAX = 64,
	MANY_HEAD_BYTES = 1024
};

static uint64_t wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* As deadline_of, late by up to COARSE_MS: distant deadlines do not justify reading the exact clock
 * for each message. */
static uint64_t deadline_about(const sluice_client *client, int deadline_ms)
{
	struct timespec now;

	if (deadline_ms == 0 && client->config.deadline_ms >= NEAR_MS)
		deadline_ms = client->config.deadline_ms > INT32_MAX
				      ? -1
				      : (int)client->config.deadline_ms;
	if (deadline_ms < NEAR_MS)
		return deadline_of(client, deadline_ms);
	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000 +
	       (uint32_t)deadline_ms + COARSE_MS;
}

/* ---- checks ---- */

static uint8_t target_kind(const sluice_message *message)
{
	return message->queue != NULL	 ? PUBLISH_TO_QUEUE
	       : message->stream != NULL ? PUBLISH_TO_STREAM
					 : PUBLISH_TO_SUBJECT;
}

static const char *target_of(const sluice_message *message)
{
	return message->queue != NULL	 ? message->queue
	       : message->stream != NULL ? message->stream
					 : "";
}

static int subject_refuse(const sluice_message *message, char *ret_why, size_t why_bytes)
{
	const char *subject = message->subject != NULL ? message->subject : "", *why = "";
	int rc = subject_check((struct sluice_slice){subject, strlen(subject)}, &why);

	if (rc != 0)
		(void)snprintf(ret_why, why_bytes, "subject '%.260s': %s", subject, why);
	return rc;
}

/* Checks subject and target: the broker would refuse the frame because of them, each time that the
 * batch is sent again. */
static int names_check(const sluice_message *message, char *ret_why, size_t why_bytes)
{
	const char *target = target_of(message), *why = "";
	int rc = subject_refuse(message, ret_why, why_bytes);

	if (rc != 0 || target_kind(message) == PUBLISH_TO_SUBJECT)
		return rc;
	rc = name_check((struct sluice_slice){target, strlen(target)}, &why);
	if (rc != 0)
		(void)snprintf(ret_why, why_bytes, "%s '%.260s': %s",
			       message->queue != NULL ? "queue" : "stream", target, why);
	return rc;
}

static int part_refuse(const char *name, size_t len, size_t max, char *ret_why, size_t why_bytes)
{
	(void)snprintf(ret_why, why_bytes, "the %s has %zu bytes; at most %zu", name, len, max);
	return SLUICE_E_LIMIT;
}

static int parts_check(const sluice_message *message, char *ret_why, size_t why_bytes)
{
	if (message->headers != NULL)
		for (size_t i = 0; message->headers[i] != NULL; i += 2)
			if (message->headers[i + 1] == NULL) {
				(void)snprintf(ret_why, why_bytes, "header '%.60s' has no value",
					       message->headers[i]);
				return SLUICE_E_INVAL;
			}
	if (message->body.len > LIMIT_EVENT_BODY_BYTES_MAX)
		return part_refuse("body", message->body.len, LIMIT_EVENT_BODY_BYTES_MAX, ret_why,
				   why_bytes);
	if (message->key.len > LIMIT_EVENT_KEY_BYTES_MAX)
		return part_refuse("key", message->key.len, LIMIT_EVENT_KEY_BYTES_MAX, ret_why,
				   why_bytes);
	if (message->id.len > LIMIT_EVENT_ID_BYTES_MAX)
		return part_refuse("id", message->id.len, LIMIT_EVENT_ID_BYTES_MAX, ret_why,
				   why_bytes);
	return 0;
}

/* ---- envelopes ---- */

static int headers_encode(const sluice_message *message, uint8_t **ret, size_t *ret_len)
{
	struct sluice_slice names[HEADERS_MAX], values[HEADERS_MAX];
	size_t count = 0, bytes;

	while (message->headers[2 * count] != NULL) {
		const char *name = message->headers[2 * count],
			   *value = message->headers[2 * count + 1];

		if (count == HEADERS_MAX)
			return SLUICE_E_LIMIT;
		names[count] = (struct sluice_slice){name, strlen(name)};
		values[count] = (struct sluice_slice){value, strlen(value)};
		count++;
	}
	bytes = envelope_headers_encode(NULL, names, values, count);
	if (bytes > LIMIT_EVENT_HEADERS_BYTES_MAX)
		return SLUICE_E_LIMIT;
	if (bytes == 0)
		return 0;
	*ret = mem_alloc(bytes);
	if (*ret == NULL)
		return SLUICE_E_NOMEM;
	*ret_len = envelope_headers_encode(*ret, names, values, count);
	return 0;
}

static bool is_plain(const sluice_message *message, const struct batch *batch)
{
	return batch->subject != NULL && message->headers == NULL && message->key.len == 0 &&
	       message->id.len == 0 && message->priority == 0 && message->time_ms == 0;
}

static int envelope_add_full(const sluice_message *message, struct batch *batch)
{
	struct envelope envelope = {.body = message->body,
				    .key = message->key,
				    .id = message->id,
				    .priority = message->priority};
	uint8_t *headers = NULL, *at;
	int rc = 0;

	if (message->headers != NULL)
		rc = headers_encode(message, &headers, &envelope.headers.len);
	if (rc != 0)
		return rc;
	envelope.headers.data = headers;
	if (message->time_ms != 0)
		envelope.time_delta_ms = (int64_t)(message->time_ms - batch->time_ms);
	if (batch->subject == NULL)
		envelope.subject =
			(struct sluice_slice){message->subject, strlen(message->subject)};
	at = buffer_room(&batch->events, envelope_size_max(&envelope));
	if (at != NULL)
		batch->events.end += envelope_encode(at, &envelope);
	mem_free(headers);
	return at != NULL ? 0 : SLUICE_E_NOMEM;
}

static int envelope_add(const sluice_message *message, struct batch *batch)
{
	uint8_t *at;

	if (!is_plain(message, batch))
		return envelope_add_full(message, batch);
	at = buffer_room(&batch->events, ENVELOPE_PLAIN_HEAD_MAX + message->body.len);
	if (at == NULL)
		return SLUICE_E_NOMEM;
	batch->events.end += envelope_plain_encode(at, message->body);
	return 0;
}

/* ---- gathering ---- */

static bool same_target(const struct batch *batch, const sluice_message *message)
{
	return batch->target_kind == target_kind(message) &&
	       batch->flags == (message->mandatory ? PUBLISH_MANDATORY : 0) &&
	       batch->durability == (message->relaxed ? DURABILITY_RELAXED : DURABILITY_SYNC) &&
	       strcmp(batch->target, target_of(message)) == 0;
}

/* Without checking its subject, if each event has its own; that one must be valid then. */
static bool batch_takes(const sluice_client *client, const struct batch *batch,
			const sluice_message *message)
{
	return !batch->closed && message->subject != NULL && same_target(batch, message) &&
	       (batch->subject == NULL || strcmp(batch->subject, message->subject) == 0) &&
	       batch->count < client->config.batch_events &&
	       buffer_len(&batch->events) + message->body.len <
		       client->config.batch_bytes + (batch->count == 0 ? message->body.len : 0);
}

static struct batch *batch_new(sluice_client *client, const sluice_message *message, bool mixed)
{
	struct batch *batch = publish_batch_take(client->publisher);

	if (batch == NULL)
		return NULL;
	batch->target_kind = target_kind(message);
	batch->flags = message->mandatory ? PUBLISH_MANDATORY : 0;
	batch->durability = message->relaxed ? DURABILITY_RELAXED : DURABILITY_SYNC;
	batch->time_ms = wall_ms();
	batch->deadline_ms = UINT64_MAX;
	DL_APPEND(client->publisher->batches, batch);
	if (!text_set(&batch->target, target_of(message)) ||
	    !text_set(&batch->subject, mixed ? NULL : message->subject)) {
		DL_DELETE(client->publisher->batches, batch);
		publish_batch_free(client, batch);
		return NULL;
	}
	return batch;
}

/* The open batch if it accepts the message, or a new one; the message's names are valid then. */
static int batch_for(sluice_client *client, const sluice_message *message, struct batch **ret,
		     char *ret_why, size_t why_bytes)
{
	struct publisher *publisher = client->publisher;
	struct batch *last = publisher->batches != NULL ? publisher->batches->prev : NULL;
	int rc;

	*ret = last;
	if (last != NULL && batch_takes(client, last, message))
		return last->subject != NULL ? 0 : subject_refuse(message, ret_why, why_bytes);
	rc = names_check(message, ret_why, why_bytes);
	if (rc != 0)
		return rc;
	if (last != NULL && !last->closed) {
		/* Small batches that were closed because of another subject: from now on events
		 * carry their own. */
		publisher->mixed = last->subject != NULL && last->count < 8 &&
						   strcmp(last->subject, message->subject) != 0
					   ? true
				   : last->subject == NULL ? publisher->mixed
							   : false;
		last->closed = true;
	}
	*ret = batch_new(client, message, publisher->mixed);
	return *ret != NULL ? 0 : SLUICE_E_NOMEM;
}

static int end_add(struct batch *batch, const struct message_end *end)
{
	struct message_end *last = batch->end_count > 0 ? &batch->ends[batch->end_count - 1] : NULL;

	if (last != NULL && !last->reported && last->done == end->done && last->user == end->user &&
	    last->waiter == NULL && end->waiter == NULL && !last->whole && !end->whole &&
	    last->deadline_ms == end->deadline_ms) {
		last->count += end->count;
		return 0;
	}
	if (batch->end_count == batch->ends_capacity) {
		uint32_t capacity = batch->ends_capacity == 0 ? 16 : batch->ends_capacity * 2;
		struct message_end *ends = mem_resize(batch->ends, capacity * sizeof(*ends));

		if (ends == NULL)
			return SLUICE_E_NOMEM;
		batch->ends = ends;
		batch->ends_capacity = capacity;
	}
	batch->ends[batch->end_count++] = *end;
	return 0;
}

/* Accounts for messages whose envelopes were added after `before` bytes of the batch. */
static int batch_grow(sluice_client *client, struct batch *batch, size_t before,
		      const struct message_end *end)
{
	struct publisher *publisher = client->publisher;
	size_t bytes = buffer_len(&batch->events) - before;
	int rc = end_add(batch, end);

	if (rc != 0)
		return rc;
	if (batch->count == 0)
		batch->first_seq = publisher->next_seq;
	batch->count += end->count;
	batch->unreported += end->count;
	batch->bytes += bytes;
	if (end->deadline_ms < batch->deadline_ms)
		batch->deadline_ms = end->deadline_ms;
	if (end->deadline_ms < publisher->due_ms)
		publisher->due_ms = end->deadline_ms;
	publisher->next_seq += end->count;
	publisher->buffered += bytes;
	publisher->stats.buffered_bytes = publisher->buffered;
	publisher->stats.published += end->count;
	publisher->stats.in_flight += end->count;
	return 0;
}

static void batch_cut(sluice_client *client, struct batch *batch, size_t before)
{
	batch->events.end = batch->events.start + before;
	if (batch->count > 0)
		return;
	DL_DELETE(client->publisher->batches, batch);
	publish_batch_free(client, batch);
}

static int gather(sluice_client *client, const sluice_message *message,
		  const struct message_end *end, char *ret_why, size_t why_bytes)
{
	struct batch *batch;
	size_t before;
	int rc = batch_for(client, message, &batch, ret_why, why_bytes);

	if (rc != 0)
		return rc;
	before = buffer_len(&batch->events);
	rc = envelope_add(message, batch);
	if (rc == 0)
		rc = batch_grow(client, batch, before, end);
	if (rc != 0)
		batch_cut(client, batch, before);
	return rc;
}

/* Waits for room in the buffer, by policy. A message above the whole bound fits into an empty
 * one. */
static int room_wait(sluice_client *client, size_t bytes, uint64_t deadline_ms, bool may_wait)
{
	struct publisher *publisher = client->publisher;

	while (publisher->buffered != 0 &&
	       publisher->buffered + bytes > client->config.buffer_bytes) {
		if (!client->config.buffer_block || !may_wait)
			return SLUICE_E_BUFFER_FULL;
		if (client->closing || client->state == STATE_FAILED)
			return SLUICE_E_CLOSED;
		if (now_ms() >= deadline_ms)
			return SLUICE_E_TIMEOUT;
		client_wait_some(client, deadline_ms, 20);
	}
	return 0;
}

/* ---- calls ---- */

/* Whether a publish may begin, with the reason if not; a refusal is reported as call requests. */
static int begin(sluice_client *client, const sluice_call *call, struct message_end *end,
		 char *ret_why, size_t why_bytes)
{
	bool fire = call_fires(call);

	if (client->closing)
		return SLUICE_E_CLOSED;
	if (client->publisher->failed != 0) {
		(void)snprintf(ret_why, why_bytes, "another client has opened the producer '%s'",
			       client->config.producer);
		return client->publisher->failed;
	}
	if (client->state == STATE_FAILED) {
		(void)snprintf(ret_why, why_bytes, "%s", client->error);
		return client->fail_code;
	}
	end->deadline_ms = fire && call->deadline_ms == 0
				   ? UINT64_MAX
				   : deadline_about(client, call != NULL ? call->deadline_ms : 0);
	if (call != NULL && !fire) {
		end->done = call->done;
		end->user = call->user;
	}
	return 0;
}

static int publish_locked(sluice_client *client, const sluice_message *message,
			  const sluice_call *call, struct call *waiter, char *ret_why,
			  size_t why_bytes)
{
	struct message_end end = {.waiter = waiter, .count = 1};
	int rc = begin(client, call, &end, ret_why, why_bytes);

	/* An asynchronous call never blocks: a full buffer is reported to it. */
	if (rc == 0)
		rc = room_wait(client, message->body.len, end.deadline_ms,
			       end.done == NULL && !client_on_loop(client));
	if (rc == 0)
		rc = gather(client, message, &end, ret_why, why_bytes);
	return rc;
}

/* Sends the published messages and waits for their answer; the lock is held. */
static int answer_wait(sluice_client *client, struct call *waiter, sluice_reply **ret_reply)
{
	int rc;

	publish_push(client);
	(void)client_wait(client, &waiter->finished, UINT64_MAX);
	rc = waiter->reply != NULL || ret_reply != NULL ? sluice_reply_code(waiter->reply)
							: waiter->code;
	(void)error_set(rc, sluice_reply_text(waiter->reply));
	if (ret_reply != NULL)
		*ret_reply = waiter->reply;
	else
		sluice_reply_free(waiter->reply);
	return rc;
}

static int publish_blocking(sluice_client *client, const sluice_message *message,
			    const sluice_call *call, sluice_reply **ret_reply)
{
	struct call waiter = {0};
	char why[TEXT_MAX];
	int rc;

	why[0] = 0;
	if (ret_reply != NULL)
		*ret_reply = NULL;
	client_lock(client);
	rc = parts_check(message, why, sizeof(why));
	if (rc == 0 && client_on_loop(client)) {
		client_unlock(client);
		return call_refuse(SLUICE_E_WRONG_STATE, from_a_callback, call, ret_reply);
	}
	if (rc == 0)
		rc = publish_locked(client, message, call, &waiter, why, sizeof(why));
	if (rc == 0) {
		rc = answer_wait(client, &waiter, ret_reply);
		client_unlock(client);
		return rc;
	}
	client_unlock(client);
	return call_refuse(rc, why, call, ret_reply);
}

int sluice_publish(sluice_client *client, const sluice_message *message, const sluice_call *call,
		   sluice_reply **ret_reply)
{
	sluice_message own;
	sluice_call own_call;
	char why[TEXT_MAX];
	int rc = message_take(&message, &own);

	if (rc == 0)
		rc = call_take(&call, &own_call);
	if (rc != 0)
		return call_refuse_set(rc, call, ret_reply);
	if (call_blocks(call))
		return publish_blocking(client, message, call, ret_reply);
	why[0] = 0;
	rc = parts_check(message, why, sizeof(why));
	if (rc == 0) {
		client_lock(client);
		rc = publish_locked(client, message, call, NULL, why, sizeof(why));
		if (rc == 0)
			client_wake(client);
		client_unlock(client);
	}
	if (rc != 0)
		return call_refuse(rc, why, call, ret_reply);
	if (ret_reply != NULL)
		*ret_reply = NULL;
	return 0;
}

/* ---- many as one ---- */

static bool same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Checks that need no batch. *ret_mixed: the subjects differ; *ret_bytes: of the bodies. */
static int many_check(const sluice_message *messages, size_t count, bool *ret_mixed,
		      size_t *ret_bytes, char *ret_why, size_t why_bytes)
{
	const sluice_message *first = messages;

	*ret_mixed = false;
	*ret_bytes = 0;
	if (count == 0 || count > LIMIT_BATCH_EVENTS_MAX) {
		(void)snprintf(ret_why, why_bytes, "%zu messages; expected 1 to %llu", count,
			       (unsigned long long)LIMIT_BATCH_EVENTS_MAX);
		return count == 0 ? SLUICE_E_INVAL : SLUICE_E_LIMIT;
	}
	for (size_t i = 0; i < count; i++) {
		const sluice_message *message = &messages[i];
		int rc = parts_check(message, ret_why, why_bytes);

		if (rc == 0 && i > 0 && !same_text(message->subject, message[-1].subject)) {
			*ret_mixed = true;
			rc = subject_refuse(message, ret_why, why_bytes);
		}
		if (rc != 0)
			return rc;
		if (!same_text(message->queue, first->queue) ||
		    !same_text(message->stream, first->stream) ||
		    message->mandatory != first->mandatory || message->relaxed != first->relaxed) {
			(void)snprintf(ret_why, why_bytes,
				       "message %zu differs from the first in queue, stream, "
				       "mandatory or relaxed",
				       i);
			return SLUICE_E_INVAL;
		}
		*ret_bytes += message->body.len;
	}
	return names_check(first, ret_why, why_bytes);
}

static int many_add(const sluice_message *messages, size_t count, struct batch *batch)
{
	for (size_t i = 0; i < count; i++) {
		int rc = envelope_add(&messages[i], batch);

		if (rc != 0)
			return rc;
		/* The rest is for the frame's own fields, subject and target. */
		if (buffer_len(&batch->events) > LIMIT_BATCH_RAW_BYTES_MAX - MANY_HEAD_BYTES)
			return SLUICE_E_LIMIT;
	}
	return 0;
}

static int many_locked(sluice_client *client, const sluice_message *messages, size_t count,
		       const sluice_call *call, struct call *waiter, char *ret_why,
		       size_t why_bytes)
{
	struct publisher *publisher = client->publisher;
	struct message_end end = {.waiter = waiter, .count = (uint32_t)count, .whole = true};
	struct batch *batch;
	size_t bytes;
	bool mixed;
	int rc = many_check(messages, count, &mixed, &bytes, ret_why, why_bytes);

	if (rc == 0)
		rc = begin(client, call, &end, ret_why, why_bytes);
	if (rc == 0)
		rc = room_wait(client, bytes, end.deadline_ms,
			       end.done == NULL && !client_on_loop(client));
	if (rc != 0)
		return rc;
	if (publisher->batches != NULL)
		publisher->batches->prev->closed = true;
	batch = batch_new(client, messages, mixed);
	if (batch == NULL)
		return SLUICE_E_NOMEM;
	rc = many_add(messages, count, batch);
	if (rc == 0)
		rc = batch_grow(client, batch, 0, &end);
	if (rc != 0)
		batch_cut(client, batch, 0);
	else
		batch->closed = true;
	return rc;
}

static const sluice_message *message_at(const sluice_message *messages, uint32_t size, size_t i)
{
	return (const sluice_message *)(const void *)((const uint8_t *)messages + i * size);
}

/* A program's array has elements of the size in its header. *ret_copy: converted to this library's
 * size if they differ; NULL: the array is used as it is. */
static int many_take(const sluice_message **io, size_t count, sluice_message **ret_copy)
{
	const sluice_message *message = *io;
	sluice_message own;
	uint32_t size;
	int rc;

	*ret_copy = NULL;
	if (count == 0 || count > LIMIT_BATCH_EVENTS_MAX)
		return 0; /* many_check will refuse it */
	size = message->size;
	rc = message_take(&message, &own);
	if (rc == 0 && size % _Alignof(sluice_message) != 0)
		rc = error_format(SLUICE_E_INVAL, "sluice_message has a size of %u, which none has",
				  size);
	for (size_t i = 1; i < count && rc == 0; i++) {
		message = message_at(*io, size, i);
		if (message->size != size)
			rc = error_format(SLUICE_E_INVAL,
					  "message %zu has a size of %u; expected that of the "
					  "first, %u",
					  i, message->size, size);
	}
	if (rc != 0 || size == sizeof(own))
		return rc;
	*ret_copy = mem_alloc(count * sizeof(**ret_copy));
	if (*ret_copy == NULL)
		return error_set(SLUICE_E_NOMEM, NULL);
	for (size_t i = 0; i < count && rc == 0; i++) {
		message = message_at(*io, size, i);
		rc = message_take(&message, &(*ret_copy)[i]);
	}
	*io = *ret_copy;
	return rc;
}

static int publish_many(sluice_client *client, const sluice_message *messages, size_t count,
			const sluice_call *call, sluice_reply **ret_reply)
{
	struct call waiter = {0};
	char why[TEXT_MAX];
	bool waits = call_blocks(call);
	int rc;

	why[0] = 0;
	if (ret_reply != NULL)
		*ret_reply = NULL;
	client_lock(client);
	if (waits && client_on_loop(client)) {
		client_unlock(client);
		return call_refuse(SLUICE_E_WRONG_STATE, from_a_callback, call, ret_reply);
	}
	rc = many_locked(client, messages, count, call, waits ? &waiter : NULL, why, sizeof(why));
	if (rc == 0 && waits) {
		rc = answer_wait(client, &waiter, ret_reply);
		client_unlock(client);
		return rc;
	}
	if (rc == 0)
		client_wake(client);
	client_unlock(client);
	return rc != 0 ? call_refuse(rc, why, call, ret_reply) : 0;
}

int sluice_publish_batch(sluice_client *client, const sluice_message *messages, size_t count,
			 const sluice_call *call, sluice_reply **ret_reply)
{
	sluice_message *copy = NULL;
	sluice_call own;
	int rc = call_take(&call, &own);

	if (rc == 0)
		rc = many_take(&messages, count, &copy);
	rc = rc != 0 ? call_refuse_set(rc, call, ret_reply)
		     : publish_many(client, messages, count, call, ret_reply);
	mem_free(copy);
	return rc;
}

/* ---- all of them ---- */

/* The deadline has passed: reports why the oldest batch still waits. */
static int flush_late(const sluice_client *client)
{
	const struct batch *oldest = client->publisher->batches;

	return oldest->refused_last != 0
		       ? error_set(oldest->refused_last, oldest->refused_text)
		       : error_set(SLUICE_E_TIMEOUT,
				   client->state == STATE_READY ? NULL : client->error);
}

int sluice_flush(sluice_client *client, int deadline_ms)
{
	uint64_t deadline = deadline_of(client, deadline_ms);
	int rc = 0;

	client_lock(client);
	if (client_on_loop(client)) {
		client_unlock(client);
		return error_set(SLUICE_E_WRONG_STATE, from_a_callback);
	}
	while (client->publisher->batches != NULL && rc == 0) {
		if (client->state == STATE_FAILED)
			rc = error_set(client->fail_code, client->error);
		else if (now_ms() >= deadline)
			rc = flush_late(client);
		else
			client_wait_some(client, deadline, 50);
	}
	if (rc == 0) {
		rc = error_set(client->publisher->flush_code, client->publisher->flush_text);
		client->publisher->flush_code = 0;
	}
	client_unlock(client);
	return rc;
}

int sluice_publish_stats_get(sluice_client *client, sluice_publish_stats *ret)
{
	bool filled;

	client_lock(client);
	filled = publish_stats_fill(ret, &client->publisher->stats);
	client_unlock(client);
	return filled ? 0 : SLUICE_E_INVAL;
}
