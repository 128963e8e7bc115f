/* SPDX-License-Identifier: Apache-2.0
 *
 * Publishing: messages gather into batches with consecutive sequence numbers; batches stay until answered and are sent again, with the
 * same numbers, after a reconnect, so the broker settles what was in flight.
 *
 * A refusal that is retriable (NO_SPACE, BUSY, QUEUE_FULL) has not used the numbers: the batch is tried again until its messages'
 * deadlines; what is given up then leaves the sequence, and later batches, which cannot have been applied, are numbered anew.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#include "client/internal.h"

enum { RETRY_MS = 100, SEND_FRAMES = 8 };

static uint64_t wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- ends ---- */

static void end_tell(sluice_client *client, struct message_end *end, int code, const char *text,
		     size_t text_len, uint64_t index, uint64_t offset, bool duplicate)
{
	struct publisher *publisher = &client->publisher;
	sluice_reply *reply = NULL;

	if (end->told)
		return;
	end->told = true;
	publisher->stats.in_flight--;
	if (code == 0) {
		publisher->stats.acked++;
		publisher->stats.duplicates += duplicate;
	} else {
		publisher->stats.failed++;
		if (publisher->flush_code == 0)
			publisher->flush_code = code;
	}
	if (end->done == NULL && end->waiter == NULL)
		return;
	reply = reply_new(code, text, text_len);
	if (reply != NULL) {
		reply->index = index;
		reply->offset = offset;
		reply->duplicate = duplicate;
		reply->request = ++client->next_request;
	}
	if (end->done != NULL) {
		end->done(client, reply, end->user);
		sluice_reply_free(reply);
	} else {
		end->waiter->reply = reply;
		end->waiter->finished = true;
		(void)pthread_cond_broadcast(&client->changed);
	}
}

static void batch_free(sluice_client *client, struct batch *batch)
{
	client->publisher.buffered -= batch->bytes;
	client->publisher.stats.buffered_bytes = client->publisher.buffered;
	buffer_free(&batch->events);
	mem_free(batch->target);
	mem_free(batch->subject);
	mem_free(batch->ends);
	mem_free(batch);
	(void)pthread_cond_broadcast(&client->changed); /* who waits for room in the buffer, or for a flush */
}

static void batch_finish(sluice_client *client, struct batch *batch, int code, const char *text,
			 size_t text_len, uint64_t index, uint64_t offset, bool duplicate)
{
	DL_DELETE(client->publisher.batches, batch);
	for (uint32_t i = 0; i < batch->count; i++)
		end_tell(client, &batch->ends[i], code, text, text_len, index,
			 offset == UINT64_MAX ? offset : offset + i, duplicate);
	batch_free(client, batch);
}

bool publish_settled(const sluice_client *client)
{
	return client->publisher.batches == NULL;
}

/* ---- gathering ---- */

int publish_envelope(const sluice_message *message, bool with_subject, uint64_t base_ms, struct buffer *to)
{
	struct envelope envelope = {.body = message->body,
				    .key = message->key,
				    .id = message->id,
				    .priority = message->priority};
	struct sluice_slice names[64], values[64];
	size_t header_count = 0, header_bytes;
	uint8_t *headers = NULL, *at;

	while (message->headers != NULL && message->headers[2 * header_count] != NULL) {
		if (header_count == 64)
			return SLUICE_E_LIMIT;
		names[header_count] = (struct sluice_slice){message->headers[2 * header_count],
							    strlen(message->headers[2 * header_count])};
		values[header_count] = (struct sluice_slice){message->headers[2 * header_count + 1],
							     strlen(message->headers[2 * header_count + 1])};
		header_count++;
	}
	header_bytes = envelope_headers_encode(NULL, names, values, header_count);
	if (header_bytes > LIMIT_EVENT_HEADERS_BYTES_MAX)
		return SLUICE_E_LIMIT;
	if (header_bytes > 0) {
		headers = mem_alloc(header_bytes);
		if (headers == NULL)
			return SLUICE_E_NOMEM;
		envelope.headers =
			(struct sluice_slice){headers,
					      envelope_headers_encode(headers, names, values, header_count)};
	}
	if (message->time_ms != 0)
		envelope.time_delta_ms = (int64_t)(message->time_ms - base_ms);
	if (with_subject)
		envelope.subject = (struct sluice_slice){message->subject, strlen(message->subject)};
	at = buffer_room(to, envelope_size_max(&envelope));
	if (at != NULL)
		to->end += envelope_encode(at, &envelope);
	mem_free(headers);
	return at != NULL ? 0 : SLUICE_E_NOMEM;
}

static uint8_t target_kind(const sluice_message *message)
{
	return message->queue != NULL	 ? PUBLISH_TO_QUEUE
	       : message->stream != NULL ? PUBLISH_TO_STREAM
					 : PUBLISH_TO_SUBJECT;
}

static const char *target_of(const sluice_message *message)
{
	return message->queue != NULL ? message->queue : message->stream != NULL ? message->stream : "";
}

/* What the broker would refuse as a frame, and so without end: a batch is sent again after each reconnect. */
static int message_check(const sluice_message *message, char *ret_why, size_t why_bytes)
{
	const struct {
		const char *name;
		size_t len, max;
	} parts[] = {{"body", message->body.len, LIMIT_EVENT_BODY_BYTES_MAX},
		     {"key", message->key.len, LIMIT_EVENT_KEY_BYTES_MAX},
		     {"id", message->id.len, LIMIT_EVENT_ID_BYTES_MAX}};
	const char *subject = message->subject != NULL ? message->subject : "", *what = "subject", *why = "";
	int rc = subject_check((struct sluice_slice){subject, strlen(subject)}, &why);

	if (rc == 0 && target_kind(message) != PUBLISH_TO_SUBJECT) {
		what = message->queue != NULL ? "queue" : "stream";
		rc = name_check((struct sluice_slice){target_of(message), strlen(target_of(message))}, &why);
	}
	if (rc != 0) {
		(void)snprintf(ret_why, why_bytes, "%s '%.260s': %s", what,
			       what[1] == 'u' && what[0] == 's' ? subject : target_of(message), why);
		return rc;
	}
	for (size_t i = 0; message->headers != NULL && message->headers[i] != NULL; i += 2)
		if (message->headers[i + 1] == NULL) {
			(void)snprintf(ret_why, why_bytes, "header '%.60s' has no value",
				       message->headers[i]);
			return SLUICE_E_INVAL;
		}
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (parts[i].len > parts[i].max) {
			(void)snprintf(ret_why, why_bytes, "the %s has %zu bytes; at most %zu", parts[i].name,
				       parts[i].len, parts[i].max);
			return SLUICE_E_LIMIT;
		}
	return 0;
}

static bool batch_takes(const sluice_client *client, const struct batch *batch, const sluice_message *message)
{
	uint8_t flags = message->mandatory ? PUBLISH_MANDATORY : 0;

	return !batch->closed && batch->target_kind == target_kind(message) && batch->flags == flags &&
	       batch->durability == (message->relaxed ? DURABILITY_RELAXED : DURABILITY_SYNC) &&
	       strcmp(batch->target, target_of(message)) == 0 &&
	       (batch->subject == NULL || strcmp(batch->subject, message->subject) == 0) &&
	       batch->count < client->config.batch_events &&
	       buffer_len(&batch->events) + message->body.len <
		       client->config.batch_bytes + (batch->count == 0 ? message->body.len : 0);
}

static struct batch *batch_new(sluice_client *client, const sluice_message *message)
{
	struct batch *batch = mem_alloc(sizeof(*batch));

	if (batch == NULL)
		return NULL;
	batch->target_kind = target_kind(message);
	batch->flags = message->mandatory ? PUBLISH_MANDATORY : 0;
	batch->durability = message->relaxed ? DURABILITY_RELAXED : DURABILITY_SYNC;
	batch->target = mem_text(target_of(message), strlen(target_of(message)));
	batch->subject =
		client->publisher.mixed ? NULL : mem_text(message->subject, strlen(message->subject));
	batch->time_ms = wall_ms();
	if (batch->target == NULL || (batch->subject == NULL && !client->publisher.mixed)) {
		mem_free(batch->target);
		mem_free(batch);
		return NULL;
	}
	DL_APPEND(client->publisher.batches, batch);
	return batch;
}

static struct batch *batch_for(sluice_client *client, const sluice_message *message)
{
	struct publisher *publisher = &client->publisher;
	struct batch *last = publisher->batches != NULL ? publisher->batches->prev : NULL;

	if (last != NULL && batch_takes(client, last, message))
		return last;
	if (last != NULL && !last->closed) {
		/* Small batches that were closed by another subject: from now on events carry their own. */
		publisher->mixed = last->subject != NULL && last->count < 8 &&
						   strcmp(last->subject, message->subject) != 0
					   ? true
				   : last->subject == NULL ? publisher->mixed
							   : false;
		last->closed = true;
	}
	return batch_new(client, message);
}

static int end_add(struct batch *batch, const struct message_end *end)
{
	if (batch->count == batch->ends_capacity) {
		uint32_t capacity = batch->ends_capacity == 0 ? 16 : batch->ends_capacity * 2;
		struct message_end *ends = mem_resize(batch->ends, capacity * sizeof(*ends));

		if (ends == NULL)
			return SLUICE_E_NOMEM;
		batch->ends = ends;
		batch->ends_capacity = capacity;
	}
	batch->ends[batch->count++] = *end;
	return 0;
}

static int gather(sluice_client *client, const sluice_message *message, const struct message_end *end)
{
	struct publisher *publisher = &client->publisher;
	struct batch *batch = batch_for(client, message);
	size_t before;
	int rc;

	if (batch == NULL)
		return SLUICE_E_NOMEM;
	before = buffer_len(&batch->events);
	rc = publish_envelope(message, batch->subject == NULL, batch->time_ms, &batch->events);
	if (rc == 0) {
		rc = end_add(batch, end);
		if (rc != 0)
			batch->events.end = batch->events.start + before;
	}
	if (rc != 0) {
		if (batch->count == 0) {
			DL_DELETE(publisher->batches, batch);
			batch_free(client, batch);
		}
		return rc;
	}
	if (batch->count == 1) {
		batch->first_seq = publisher->next_seq;
	}
	publisher->next_seq++;
	batch->bytes += buffer_len(&batch->events) - before;
	publisher->buffered += buffer_len(&batch->events) - before;
	publisher->stats.buffered_bytes = publisher->buffered;
	publisher->stats.published++;
	publisher->stats.in_flight++;
	return 0;
}

/* Room in the buffer, by policy. One message always fits into an empty one. */
static int room_wait(sluice_client *client, size_t bytes, uint64_t deadline_ms, bool may_wait)
{
	struct publisher *publisher = &client->publisher;

	while (publisher->buffered != 0 && publisher->buffered + bytes > client->config.buffer_bytes) {
		uint64_t now = now_ms();

		if (!client->config.buffer_block || !may_wait)
			return SLUICE_E_BUFFER_FULL;
		if (client->closing || client->state == STATE_FAILED)
			return SLUICE_E_CLOSED;
		if (now >= deadline_ms)
			return SLUICE_E_TIMEOUT;
		client_wait_turn(client, deadline_ms < now + 20 ? deadline_ms : now + 20);
	}
	return 0;
}

static int publish_locked(sluice_client *client, const sluice_message *message, const sluice_call *call,
			  struct call *waiter)
{
	bool fire = call != NULL && call->done == NULL && call->user == SLUICE_FIRE;
	struct message_end end = {.waiter = waiter};
	int rc;

	if (client->closing)
		return SLUICE_E_CLOSED;
	if (client->publisher.failed != 0)
		return client->publisher.failed;
	if (client->state == STATE_FAILED)
		return client->fail_code;
	end.deadline_ms = fire && call->deadline_ms == 0
				  ? UINT64_MAX
				  : deadline_of(client, call != NULL ? call->deadline_ms : 0);
	if (call != NULL && !fire) {
		end.done = call->done;
		end.user = call->user;
	}
	/* An asynchronous call never blocks: it is told that the buffer is full. */
	rc = room_wait(client, message->body.len, end.deadline_ms,
		       end.done == NULL && !client_on_loop(client));
	if (rc == 0)
		rc = gather(client, message, &end);
	if (rc == 0)
		client_wake(client);
	return rc;
}

int sluice_publish(sluice_client *client, const sluice_message *message, const sluice_call *call,
		   sluice_reply **ret_reply)
{
	bool waits = call == NULL || (call->done == NULL && call->user != SLUICE_FIRE);
	struct call waiter = {0};
	char why[TEXT_MAX] = "";
	int rc = message_check(message, why, sizeof(why));

	if (ret_reply != NULL)
		*ret_reply = NULL;
	if (rc != 0)
		return call_refuse(rc, why, call, ret_reply);
	client_lock(client);
	if (waits && client_on_loop(client)) {
		client_unlock(client);
		return SLUICE_E_WRONG_STATE;
	}
	rc = publish_locked(client, message, call, waits ? &waiter : NULL);
	if (rc == 0 && waits) {
		(void)client_wait(client, &waiter.finished, UINT64_MAX);
		rc = waiter.reply != NULL ? waiter.reply->code : SLUICE_E_NOMEM;
		if (ret_reply != NULL)
			*ret_reply = waiter.reply;
		else
			sluice_reply_free(waiter.reply);
	}
	client_unlock(client);
	return rc;
}

int sluice_flush(sluice_client *client, int deadline_ms)
{
	uint64_t deadline = deadline_of(client, deadline_ms);
	int rc = 0;

	client_lock(client);
	if (client_on_loop(client)) {
		client_unlock(client);
		return SLUICE_E_WRONG_STATE;
	}
	while (client->publisher.batches != NULL && rc == 0) {
		uint64_t now = now_ms();

		if (client->state == STATE_FAILED)
			rc = client->fail_code;
		else if (now >= deadline)
			rc = SLUICE_E_TIMEOUT;
		else
			client_wait_turn(client, deadline < now + 50 ? deadline : now + 50);
	}
	if (rc == 0) {
		rc = client->publisher.flush_code;
		client->publisher.flush_code = 0;
	}
	client_unlock(client);
	return rc;
}

void sluice_publish_stats_get(sluice_client *client, sluice_publish_stats *ret)
{
	client_lock(client);
	*ret = client->publisher.stats;
	client_unlock(client);
}

/* ---- sending ---- */

static void renumber(struct publisher *publisher)
{
	uint64_t seq = publisher->settled_seq + 1;
	struct batch *batch;

	DL_FOREACH(publisher->batches, batch) {
		batch->first_seq = seq;
		seq += batch->count;
	}
	publisher->next_seq = seq;
}

static void opened(sluice_client *client, struct call *call)
{
	struct publisher *publisher = &client->publisher;
	const sluice_reply *reply = call->reply;

	publisher->opening = false;
	if (reply == NULL || reply->code != 0 || reply->message == NULL ||
	    reply->message->producer_opened == NULL) {
		if (reply != NULL && !sluice_error_retriable(reply->code))
			publish_end(client, reply->code);
		return;
	}
	publisher->producer = reply->message->producer_opened->producer;
	publisher->epoch = reply->message->producer_opened->epoch;
	publisher->settled_seq = reply->message->producer_opened->last_seq;
	publisher->open = true;
	renumber(publisher);
}

static void producer_open(sluice_client *client)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__ProducerOpen open = SLUICE__PRODUCER_OPEN__INIT;
	sluice_call options = {.deadline_ms = -1};
	struct call *call;

	open.name = client->config.producer;
	request.op_case = SLUICE__REQUEST__OP_PRODUCER_OPEN;
	request.producer_open = &open;
	call = call_new(client, &request, true, &options);
	if (call == NULL)
		return;
	call->hook = opened;
	client->publisher.opening = true;
	calls_send(client);
}

static uint8_t *compressed(const sluice_client *client, const struct batch *batch, size_t *ret_len)
{
	struct sluice_slice raw = {batch->events.bytes + batch->events.start, buffer_len(&batch->events)};
	uint8_t *bytes;

	*ret_len = 0;
	if (!client->zstd || raw.len < 256)
		return NULL;
	bytes = mem_alloc(raw.len + 512);
	if (bytes != NULL)
		*ret_len = batch_compress(bytes, raw.len + 512, raw);
	if (*ret_len == 0) {
		mem_free(bytes);
		return NULL;
	}
	return bytes;
}

static bool batch_send(sluice_client *client, struct batch *batch)
{
	struct publisher *publisher = &client->publisher;
	size_t packed_len;
	uint8_t *packed = compressed(client, batch, &packed_len), *at;
	struct frame_publish frame = {.target_kind = batch->target_kind,
				      .durability = batch->durability,
				      .codec = packed != NULL ? BATCH_ZSTD : BATCH_RAW,
				      .flags = batch->flags,
				      .producer = publisher->producer,
				      .epoch = publisher->epoch,
				      .first_seq = batch->first_seq,
				      .settled_seq = publisher->settled_seq,
				      .count = batch->count,
				      .time_ms = batch->time_ms,
				      .raw_bytes = (uint32_t)buffer_len(&batch->events),
				      .subject = {batch->subject,
						  batch->subject != NULL ? strlen(batch->subject) : 0},
				      .target = {batch->target, strlen(batch->target)},
				      .payload = {batch->events.bytes + batch->events.start,
						  buffer_len(&batch->events)}};

	if (packed != NULL)
		frame.payload = (struct sluice_slice){packed, packed_len};
	do {
		batch->corr = ++client->next_corr;
	} while (batch->corr == 0);
	at = link_frame(client, FRAME_PUBLISH, batch->corr, frame_publish_size(&frame));
	if (at != NULL)
		(void)frame_publish_encode(at, &frame);
	mem_free(packed);
	if (at == NULL)
		return false;
	publisher->stats.resent += batch->was_sent ? batch->count : 0;
	batch->refused =
		0; /* said of an earlier try: once sent again it may have been applied, and must keep its numbers */
	batch->closed = batch->in_flight = batch->was_sent = true;
	publisher->in_flight++;
	return true;
}

void publish_send(sluice_client *client)
{
	struct publisher *publisher = &client->publisher;
	uint64_t now = now_ms();
	struct batch *batch, *next;

	if (client->state != STATE_READY || publisher->batches == NULL || publisher->failed != 0)
		return;
	if (!publisher->open) {
		if (!publisher->opening)
			producer_open(client);
		return;
	}
	DL_FOREACH_SAFE(publisher->batches, batch, next) {
		bool full = batch->closed || batch->count >= client->config.batch_events ||
			    buffer_len(&batch->events) >= client->config.batch_bytes;

		if (batch->in_flight)
			continue;
		/* In order: nothing passes a batch that waits to be tried again. A batch that is not full waits for company only while enough is on
		 * its way anyhow. */
		if (batch->retry_ms > now || publisher->in_flight >= INFLIGHT_FRAMES_MAX ||
		    (!full && publisher->in_flight >= SEND_FRAMES))
			return;
		if (!batch_send(client, batch))
			return;
		if (publisher->batches == NULL)
			return;
	}
}

/* ---- answers ---- */

static void unsend_from(struct publisher *publisher, struct batch *batch)
{
	for (; batch != NULL; batch = batch->next) {
		if (batch->in_flight)
			publisher->in_flight--;
		batch->in_flight = false;
		batch->corr = 0;
	}
}

static void answered(sluice_client *client, struct batch *batch, const struct frame_published *answer)
{
	struct publisher *publisher = &client->publisher;

	if (answer->code == SLUICE_E_PRODUCER_EVICTED || answer->code == SLUICE_E_PRODUCER_FENCED) {
		publish_end(client, answer->code);
		return;
	}
	batch->in_flight = false;
	publisher->in_flight--;
	if (sluice_error_retriable(answer->code)) {
		/* Its numbers are not used; what was sent behind it comes back as SEQUENCE_GAP. */
		batch->corr = 0;
		/* With nothing before it a gap closes by no answer of ours: not at once again, for ever. */
		batch->retry_ms = answer->code == SLUICE_E_SEQUENCE_GAP && batch != publisher->batches
					  ? 0
					  : now_ms() + RETRY_MS;
		if (answer->code != SLUICE_E_SEQUENCE_GAP) {
			batch->refused = answer->code;
			(void)snprintf(batch->refused_text, sizeof(batch->refused_text), "%.*s",
				       (int)(answer->text.len < 255 ? answer->text.len : 255),
				       (const char *)answer->text.data);
		}
		return;
	}
	if (batch == publisher->batches)
		publisher->settled_seq = batch->first_seq + batch->count - 1;
	batch_finish(client, batch, answer->code, answer->text.data, answer->text.len, answer->index,
		     answer->offset, (answer->flags & PUBLISHED_DUPLICATE) != 0);
}

void publish_on_answer(sluice_client *client, uint32_t corr, struct sluice_slice body)
{
	struct frame_published answer;
	const char *why = "the broker sent a malformed PUBLISHED";
	uint64_t count;

	if (body.len < 2) {
		link_broken(client, SLUICE_E_PROTOCOL, why);
		return;
	}
	count = (uint64_t)((const uint8_t *)body.data)[0] << 8 | ((const uint8_t *)body.data)[1];
	body = (struct sluice_slice){(const uint8_t *)body.data + 2, body.len - 2};
	for (uint64_t i = 0; i < count; i++) {
		struct batch *batch;

		if (frame_published_decode(&body, &answer, &why) != 0) {
			link_broken(client, SLUICE_E_PROTOCOL, why);
			return;
		}
		DL_FOREACH(client->publisher.batches, batch)
			if (batch->in_flight &&
			    (i == 0 ? batch->corr == corr : batch->first_seq == answer.first_seq))
				break;
		if (batch != NULL)
			answered(client, batch, &answer);
	}
}

/* ---- time ---- */

static void tell_late(sluice_client *client, struct batch *batch, uint64_t now, uint64_t *io_next)
{
	static const char late[] = "no answer came before the deadline; it is still being settled";

	for (uint32_t i = 0; i < batch->count; i++) {
		struct message_end *end = &batch->ends[i];

		if (end->told)
			continue;
		if (end->deadline_ms > now) {
			*io_next = end->deadline_ms < *io_next ? end->deadline_ms : *io_next;
			continue;
		}
		if (batch->refused != 0 && !batch->in_flight)
			end_tell(client, end, batch->refused, batch->refused_text,
				 strlen(batch->refused_text), 0, UINT64_MAX, false);
		else if (batch->was_sent)
			end_tell(client, end, SLUICE_E_UNKNOWN, late, sizeof(late) - 1, 0, UINT64_MAX, false);
		else
			end_tell(client, end, SLUICE_E_TIMEOUT, "not sent before the deadline", 28, 0,
				 UINT64_MAX, false);
	}
}

static bool all_told(const struct batch *batch)
{
	for (uint32_t i = 0; i < batch->count; i++)
		if (!batch->ends[i].told)
			return false;
	return true;
}

void publish_due(sluice_client *client, uint64_t now, uint64_t *io_next)
{
	struct publisher *publisher = &client->publisher;
	struct batch *batch, *next;
	bool dropped = false;

	DL_FOREACH_SAFE(publisher->batches, batch, next) {
		tell_late(client, batch, now, io_next);
		if (batch->retry_ms > now && batch->retry_ms < *io_next)
			*io_next = batch->retry_ms;
		/* Given up, and certainly not applied: it leaves the sequence, once nothing behind it is on its way. */
		if (publisher->in_flight == 0 && all_told(batch) &&
		    (!batch->was_sent || batch->refused != 0)) {
			DL_DELETE(publisher->batches, batch);
			batch_free(client, batch);
			dropped = true;
		}
	}
	if (dropped && publisher->open)
		renumber(publisher);
}

void publish_broken(sluice_client *client)
{
	unsend_from(&client->publisher, client->publisher.batches);
	client->publisher.in_flight = 0;
	/* An answer to the opening is lost with the connection; the call itself is made again. */
}

void publish_end(sluice_client *client, int code)
{
	struct publisher *publisher = &client->publisher;
	const char *text = sluice_error_text(code);
	struct batch *last = publisher->batches != NULL ? publisher->batches->prev : NULL;

	if (publisher->failed == 0 && (code == SLUICE_E_PRODUCER_EVICTED || code == SLUICE_E_PRODUCER_FENCED))
		publisher->failed = code;
	publisher->in_flight = 0;
	/* What a callback publishes anew is not of this end: a retry from there would be ended here again, for ever. */
	for (bool ended = false; !ended && publisher->batches != NULL;) {
		struct batch *batch = publisher->batches;
		int as = batch->was_sent && batch->refused == 0 && code != publisher->failed
				 ? SLUICE_E_UNKNOWN
				 : code;

		ended = batch == last;
		batch_finish(client, batch, as, text, strlen(text), 0, UINT64_MAX, false);
	}
}

void publish_free(sluice_client *client)
{
	publish_end(client, SLUICE_E_CLOSED);
}
