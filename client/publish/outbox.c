/* SPDX-License-Identifier: Apache-2.0
 *
 * Publishing, output: batches are sent in order, stay until they are answered and are sent again
 * with the same numbers after a reconnect, so that the broker can settle those that were in flight.
 *
 * A retriable refusal (NO_SPACE, BUSY, QUEUE_FULL) has not used the numbers: the batch is retried
 * until its messages' deadlines; expired messages then leave the sequence, and later batches, which
 * cannot have been applied, are renumbered.
 *
 * The cost of a loop turn does not depend on the number of waiting messages: due_ms is the time of
 * the next check.
 */
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/link/link.h"
#include "client/call/call.h"
#include "client/call/reply.h"
#include "client/publish/batch.h"
#include "client/publish/producer.h"
#include "protocol/envelope.h"
#include "protocol/frame.h"
#include "sluice.pb-c.h"

enum {
	INFLIGHT_FRAMES_MAX = 128,
	RETRY_MS = 100,
	GRACE_MS = 1000,
	SEND_FRAMES = 8,
	PUSH_HEAD_BYTES = 1024, /* upper bound of a frame without its events */
};

void publish_init(sluice_client *client)
{
	client->publisher->next_seq = 1;
	client->publisher->due_ms = UINT64_MAX;
}

/* ---- ends ---- */

struct verdict {
	int code;
	const char *text;
	size_t text_len;
	uint64_t index, offset; /* offset: of the batch's first message, or UINT64_MAX */
	bool duplicate;
};

static struct verdict verdict_of(int code, const char *text)
{
	return (struct verdict){.code = code,
				.text = text,
				.text_len = strlen(text),
				.offset = UINT64_MAX};
}

static sluice_reply *reply_of(sluice_client *client, const struct verdict *verdict, uint64_t offset,
			      uint64_t affected)
{
	sluice_reply *reply = reply_new(verdict->code, verdict->text, verdict->text_len);

	if (reply == NULL)
		return NULL;
	reply->index = verdict->index;
	reply->offset = offset;
	reply->affected = affected;
	reply->duplicate = verdict->duplicate;
	reply->request = ++client->calls->next_request;
	return reply;
}

/* The same answer for the next message. A reply that the application has kept is left to it. */
static sluice_reply *reply_next(sluice_client *client, sluice_reply *reply,
				const struct verdict *verdict, uint64_t offset)
{
	if (reply == NULL || __atomic_load_n(&reply->refs, __ATOMIC_ACQUIRE) != 1 ||
	    reply->json != NULL) {
		sluice_reply_free(reply);
		return reply_of(client, verdict, offset, 0);
	}
	reply->offset = offset;
	reply->request = ++client->calls->next_request;
	return reply;
}

static void count_reported(sluice_client *client, uint32_t count, const struct verdict *verdict)
{
	struct publisher *publisher = client->publisher;

	publisher->stats.in_flight -= count;
	if (verdict->code == 0) {
		publisher->stats.acked += count;
		publisher->stats.duplicates += verdict->duplicate ? count : 0;
	} else {
		publisher->stats.failed += count;
		if (publisher->flush_code == 0) {
			publisher->flush_code = verdict->code;
			(void)snprintf(publisher->flush_text, sizeof(publisher->flush_text), "%.*s",
				       (int)(verdict->text_len < 255 ? verdict->text_len : 255),
				       verdict->text);
		}
	}
}

/* Reports the answer to end i of the batch, whose first message is the batch's at-th. A callback
 * may publish, which may move the array, and the end must not be reported twice. */
static void message_end_report(sluice_client *client, struct batch *batch, uint32_t i, uint32_t at,
			       const struct verdict *verdict)
{
	const struct message_end end = batch->ends[i];
	const uint64_t offset = verdict->offset == UINT64_MAX ? UINT64_MAX : verdict->offset + at;
	sluice_reply *reply = NULL;

	if (end.reported)
		return;
	batch->ends[i].reported = true;
	batch->unreported -= end.count;
	if (end.waiter != NULL) {
		count_reported(client, end.count, verdict);
		end.waiter->code = verdict->code;
		end.waiter->reply = reply_of(client, verdict, offset, end.whole ? end.count : 0);
		end.waiter->finished = true;
		(void)pthread_cond_broadcast(&client->changed);
		return;
	}
	if (end.done == NULL || end.whole) {
		count_reported(client, end.count, verdict);
		if (end.done != NULL) {
			reply = reply_of(client, verdict, offset, end.count);
			end.done(client, reply, end.user);
			sluice_reply_free(reply);
		}
		return;
	}
	for (uint32_t k = 0; k < end.count; k++) {
		uint64_t own = offset == UINT64_MAX ? offset : offset + k;

		count_reported(client, 1, verdict);
		reply = reply_next(client, reply, verdict, own);
		end.done(client, reply, end.user);
	}
	sluice_reply_free(reply);
}

static void batch_finish(sluice_client *client, struct batch *batch, const struct verdict *verdict)
{
	uint32_t at = 0;

	DL_DELETE(client->publisher->batches, batch);
	for (uint32_t i = 0; i < batch->end_count; i++) {
		uint32_t count = batch->ends[i].count;

		message_end_report(client, batch, i, at, verdict);
		at += count;
	}
	publish_batch_free(client, batch);
}

bool publish_settled(const sluice_client *client)
{
	return client->publisher->batches == NULL;
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

/* After a producer was opened. A named one may be the producer of the last session: batches that
 * session may have sent, and whose numbers the broker has, keep them, and get their first
 * answers. */
static void renumber_after(struct publisher *publisher, uint64_t last_seq)
{
	struct batch *batch;
	uint64_t seq = last_seq + 1;

	publisher->settled_seq = last_seq;
	DL_FOREACH(publisher->batches, batch) {
		uint64_t last = batch->first_seq + batch->count - 1;

		if (batch->maybe && last <= last_seq) {
			if (batch->first_seq <= publisher->settled_seq)
				publisher->settled_seq = batch->first_seq - 1;
			continue;
		}
		batch->maybe = false;
		batch->first_seq = seq;
		seq += batch->count;
	}
	publisher->next_seq = seq;
}

static void producer_gone(sluice_client *client);

/* The producer could not be opened again: the outcome of sent batches is unknown from now on. */
static void reopen_failed(sluice_client *client, int code)
{
	struct publisher *publisher = client->publisher;

	if (code == SLUICE_E_PRODUCER_FENCED) {
		publish_end(client, code); /* another client publishes under its name */
		return;
	}
	publisher->gone = code;
	producer_gone(client);
}

static void opened(sluice_client *client, struct call *call)
{
	struct publisher *publisher = client->publisher;
	const sluice_reply *reply = call->reply;
	const Sluice__ProducerOpened *producer;
	bool again = publisher->again;

	publisher->opening = false;
	/* the next one after a pause, not at once in a loop */
	publisher->open_ms = now_ms() + PRODUCER_REOPEN_MS;
	if (reply == NULL || reply->code != 0 || reply->message == NULL ||
	    reply->message->producer_opened == NULL) {
		if (reply != NULL && !sluice_error_retriable(reply->code) && again)
			reopen_failed(client, reply->code);
		else if (reply != NULL && !sluice_error_retriable(reply->code))
			publish_end(client, reply->code);
		return;
	}
	producer = reply->message->producer_opened;
	publisher->again = false;
	if (again && producer->producer != publisher->producer) {
		reopen_failed(client,
			      /* a broker without secrets gave another producer */
			      SLUICE_E_PRODUCER_EVICTED);
		return;
	}
	publisher->producer = producer->producer;
	publisher->epoch = producer->epoch;
	publisher->secret = producer->secret;
	publisher->session = client->link->session_id;
	publisher->open = true;
	/* The same producer: its numbers continue, and the broker has kept the answers of sent
	 * batches. */
	if (!again)
		renumber_after(publisher, producer->last_seq);
}

static uint8_t *compressed(const sluice_client *client, const struct batch *batch, size_t *ret_len)
{
	struct sluice_slice raw = {batch->events.bytes + batch->events.start,
				   buffer_len(&batch->events)};
	uint8_t *bytes;

	*ret_len = 0;
	if (!client->link->zstd || raw.len < 256)
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
	struct publisher *publisher = client->publisher;
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
				      .subject = {batch->subject, batch->subject != NULL
									  ? strlen(batch->subject)
									  : 0},
				      .target = {batch->target, strlen(batch->target)},
				      .payload = {batch->events.bytes + batch->events.start,
						  buffer_len(&batch->events)}};

	if (packed != NULL)
		frame.payload = (struct sluice_slice){packed, packed_len};
	batch->corr = link_corr(client);
	at = link_frame(client, FRAME_PUBLISH, batch->corr, frame_publish_size(&frame));
	if (at != NULL)
		(void)frame_publish_encode(at, &frame);
	mem_free(packed);
	if (at == NULL)
		return false;
	publisher->stats.resent += batch->was_sent ? batch->count : 0;
	/* The refusal was of an earlier try: once sent again the batch may be applied, and must
	 * keep its numbers. */
	batch->refused = 0;
	batch->closed = batch->in_flight = batch->was_sent = true;
	publisher->in_flight++;
	return true;
}

void publish_send(sluice_client *client)
{
	struct publisher *publisher = client->publisher;
	struct batch *batch, *next;
	uint64_t now;

	if (client->state != STATE_READY || publisher->batches == NULL || publisher->failed != 0 ||
	    publisher->gone != 0 || publisher->in_flight >= INFLIGHT_FRAMES_MAX)
		return;
	if (!publisher->open) {
		if (!publisher->opening && producer_may_open(client, publisher->open_ms))
			producer_open(client, client->config.producer,
				      publisher->again ? publisher->producer : 0,
				      publisher->again ? publisher->secret : 0, opened,
				      &client->publisher->opening);
		return;
	}
	now = now_ms();
	DL_FOREACH_SAFE(publisher->batches, batch, next) {
		bool full = batch->closed || batch->count >= client->config.batch_events ||
			    buffer_len(&batch->events) >= client->config.batch_bytes;

		if (batch->in_flight)
			continue;
		/* In order: no batch overtakes one that waits for a retry. A batch that is not full
		 * waits for more messages only while enough others are in flight. */
		if (batch->retry_ms > now || publisher->in_flight >= INFLIGHT_FRAMES_MAX ||
		    (!full && publisher->in_flight >= SEND_FRAMES))
			return;
		if (!batch_send(client, batch))
			return;
		if (publisher->batches == NULL)
			return;
	}
}

void publish_push(sluice_client *client)
{
	struct publisher *publisher = client->publisher;
	struct batch *batch = publisher->batches;

	if (client->config.mode == MODE_CALLER_LOOP)
		return; /* a waiting thread turns the loop itself */
	/* The only batch: it is sent from here instead of by the loop's thread. Failures of the
	 * link are left to that thread. */
	if (client->state == STATE_READY && publisher->open && publisher->in_flight == 0 &&
	    batch != NULL && batch->next == NULL && buffer_len(&client->link->out) == 0 &&
	    buffer_room(&client->link->out, buffer_len(&batch->events) + PUSH_HEAD_BYTES) != NULL) {
		publish_send(client);
		if (batch->in_flight && link_push(client) && client->timer_ms <= publisher->due_ms)
			return;
	}
	client_wake(client);
}

/* ---- answers ---- */

/* The broker does not know the producer any more, and nothing is in flight. For batches that may
 * have been sent before, the outcome is unknown and is reported so; the others were certainly not
 * applied, and are sent under another producer. */
static void producer_gone(sluice_client *client)
{
	struct publisher *publisher = client->publisher;
	const bool evicted = publisher->gone == SLUICE_E_PRODUCER_EVICTED;
	const struct verdict unknown =
		verdict_of(evicted ? SLUICE_E_PRODUCER_EVICTED : SLUICE_E_UNKNOWN,
			   evicted ? "the producer's record was evicted while this was under way: "
				     "whether it was applied is not known"
				   : "its session ended while this was under way: whether it was "
				     "applied is not known");
	struct batch *batch, *next,
		*last = publisher->batches != NULL ? publisher->batches->prev : NULL;

	publisher->gone = 0;
	publisher->open = publisher->again = false;
	for (batch = publisher->batches; batch != NULL; batch = next) {
		/* Batches that a callback publishes are not included. */
		next = batch != last ? batch->next : NULL;
		if (batch->maybe)
			batch_finish(client, batch, &unknown);
		else
			batch->was_sent = false;
	}
}

/* Temporarily refused: its numbers are not used; later batches in flight are answered with
 * SEQUENCE_GAP. */
static void refused_for_now(sluice_client *client, struct batch *batch,
			    const struct frame_published *answer)
{
	struct publisher *publisher = client->publisher;

	batch->corr = 0;
	batch->maybe = false;
	/* Without an earlier batch no answer will close the gap: a pause prevents endless immediate
	 * retries. */
	batch->retry_ms = answer->code == SLUICE_E_SEQUENCE_GAP && batch != publisher->batches
				  ? 0
				  : now_ms() + RETRY_MS;
	if (answer->code != SLUICE_E_SEQUENCE_GAP) {
		batch->refused = batch->refused_last = answer->code;
		(void)snprintf(batch->refused_text, sizeof(batch->refused_text), "%.*s",
			       (int)(answer->text.len < 255 ? answer->text.len : 255),
			       (const char *)answer->text.data);
	}
	/* A deadline may have passed while the answer was pending. */
	if (batch->unreported > 0)
		batch->deadline_ms = publisher->due_ms = 0;
	/* A queue with room for part of it can accept that part. */
	if (answer->code == SLUICE_E_QUEUE_FULL && publish_batch_split(client, batch))
		batch->retry_ms = 0;
	if (batch->retry_ms < publisher->due_ms)
		publisher->due_ms = batch->retry_ms;
}

static void answered(sluice_client *client, struct batch *batch,
		     const struct frame_published *answer)
{
	struct publisher *publisher = client->publisher;

	batch->in_flight = false;
	publisher->in_flight--;
	if (producer_is_gone(client, answer->code, publisher->session, client->config.producer)) {
		batch->corr = 0;
		publisher->gone = answer->code;
		return;
	}
	if (answer->code == SLUICE_E_PRODUCER_FENCED) {
		publish_end(client, answer->code);
		return;
	}
	if (sluice_error_retriable(answer->code)) {
		refused_for_now(client, batch, answer);
		return;
	}
	if (batch == publisher->batches)
		publisher->settled_seq = batch->first_seq + batch->count - 1;
	batch_finish(client, batch,
		     &(struct verdict){.code = answer->code,
				       .text = answer->text.data,
				       .text_len = answer->text.len,
				       .index = answer->index,
				       .offset = answer->offset,
				       .duplicate = (answer->flags & PUBLISHED_DUPLICATE) != 0});
}

bool publish_on_answer(sluice_client *client, uint32_t corr, struct sluice_slice body)
{
	struct frame_published answer;
	const char *why = "the broker sent a malformed PUBLISHED";
	uint64_t count;

	if (body.len < 2) {
		link_broken(client, SLUICE_E_PROTOCOL, why);
		return true;
	}
	count = (uint64_t)((const uint8_t *)body.data)[0] << 8 | ((const uint8_t *)body.data)[1];
	body = (struct sluice_slice){(const uint8_t *)body.data + 2, body.len - 2};
	for (uint64_t i = 0; i < count; i++) {
		struct batch *batch;

		if (frame_published_decode(&body, &answer, &why) != 0) {
			link_broken(client, SLUICE_E_PROTOCOL, why);
			return true;
		}
		DL_FOREACH(client->publisher->batches, batch)
			if (batch->in_flight &&
			    (i == 0 ? batch->corr == corr : batch->first_seq == answer.first_seq))
				break;
		if (batch != NULL)
			answered(client, batch, &answer);
	}
	if (client->publisher->gone != 0 && client->publisher->in_flight == 0)
		producer_gone(client);
	return true;
}

/* ---- time ---- */

/* Reports the messages of the batch whose deadlines passed, and updates its next deadline. */
static void report_late(sluice_client *client, struct batch *batch, uint64_t now)
{
	const struct verdict late =
		batch->refused != 0 && !batch->in_flight
			? verdict_of(batch->refused, batch->refused_text)
			: verdict_of(SLUICE_E_UNKNOWN, "no answer came before the deadline; it is "
						       "still being settled");
	/* Refused before, and just being retried: its answer will be more useful than an unknown
	 * outcome. */
	const uint64_t grace =
		batch->in_flight && !batch->maybe && batch->refused_last != 0 ? GRACE_MS : 0;
	uint32_t at = 0;

	batch->deadline_ms = UINT64_MAX;
	for (uint32_t i = 0; i < batch->end_count; i++) {
		const struct message_end *end = &batch->ends[i];
		uint32_t count = end->count;
		uint64_t due = end->deadline_ms < UINT64_MAX - grace ? end->deadline_ms + grace
								     : UINT64_MAX;

		if (!end->reported && due > now)
			batch->deadline_ms = due < batch->deadline_ms ? due : batch->deadline_ms;
		else
			message_end_report(client, batch, i, at, &late);
		at += count;
	}
}

/* Moves the messages whose deadline passed from a batch to `gone`, with their events, which are
 * dropped. */
static void late_move(struct batch *batch, uint64_t now, struct batch *gone)
{
	uint8_t *to = batch->events.bytes + batch->events.start;
	struct sluice_slice rest = {to, buffer_len(&batch->events)};
	uint32_t kept = 0;

	batch->deadline_ms = UINT64_MAX;
	for (uint32_t i = 0; i < batch->end_count; i++) {
		const struct message_end end = batch->ends[i];
		const uint8_t *from = rest.data;
		size_t len = publish_events_len(&rest, end.count);

		if (end.deadline_ms <= now) {
			gone->ends[gone->end_count++] = end;
			gone->count += end.count;
			gone->unreported += end.reported ? 0 : end.count;
			gone->bytes += len;
			continue;
		}
		memmove(to, from, len);
		to += len;
		batch->ends[kept++] = end;
		batch->deadline_ms =
			end.deadline_ms < batch->deadline_ms ? end.deadline_ms : batch->deadline_ms;
	}
	batch->end_count = kept;
	batch->events.end = (size_t)(to - batch->events.bytes);
	batch->count -= gone->count;
	batch->unreported -= gone->unreported;
	batch->bytes -= gone->bytes;
}

/* A message that was never sent is not sent after its end was reported. No later one was sent
 * either: all of them are renumbered. False: no memory. */
static bool drop_unsent(sluice_client *client, struct batch *batch, uint64_t now, bool *ret_gone)
{
	struct publisher *publisher = client->publisher;
	struct batch gone = {.ends = mem_alloc(batch->end_count * sizeof(*gone.ends))};
	const struct verdict late = verdict_of(SLUICE_E_TIMEOUT, "not sent before the deadline");
	uint64_t seq = batch->first_seq;

	if (gone.ends == NULL)
		return false;
	late_move(batch, now, &gone);
	for (struct batch *next = batch; next != NULL; next = next->next) {
		next->first_seq = seq;
		seq += next->count;
	}
	publisher->next_seq = seq;
	publisher->buffered -= gone.bytes;
	publisher->stats.buffered_bytes = publisher->buffered;
	(void)pthread_cond_broadcast(&client->changed); /* there is room now */
	*ret_gone = batch->count == 0;
	if (*ret_gone) {
		DL_DELETE(publisher->batches, batch);
		publish_batch_free(client, batch);
	}
	for (uint32_t i = 0; i < gone.end_count; i++)
		message_end_report(client, &gone, i, 0, &late);
	mem_free(gone.ends);
	return true;
}

static void due_check(sluice_client *client, uint64_t now)
{
	struct publisher *publisher = client->publisher;
	struct batch *batch, *next;

	publisher->due_ms = UINT64_MAX;
	publisher->given_up = false;
	DL_FOREACH_SAFE(publisher->batches, batch, next) {
		bool gone = false;

		if (batch->deadline_ms <= now &&
		    (batch->was_sent || !drop_unsent(client, batch, now, &gone)))
			report_late(client, batch, now);
		if (gone)
			continue;
		if (batch->deadline_ms < publisher->due_ms)
			publisher->due_ms = batch->deadline_ms;
		if (batch->retry_ms > now && batch->retry_ms < publisher->due_ms)
			publisher->due_ms = batch->retry_ms;
		publisher->given_up = publisher->given_up || batch->unreported == 0;
	}
}

/* Expired batches that were certainly not applied leave the sequence, once no later batch is in
 * flight. */
static void drop_given_up(sluice_client *client)
{
	struct publisher *publisher = client->publisher;
	struct batch *batch, *next;
	bool dropped = false;

	DL_FOREACH_SAFE(publisher->batches, batch, next) {
		if (batch->unreported > 0 || (batch->was_sent && batch->refused == 0))
			continue;
		DL_DELETE(publisher->batches, batch);
		publish_batch_free(client, batch);
		dropped = true;
	}
	if (dropped && publisher->open)
		renumber(publisher);
}

void publish_due(sluice_client *client, uint64_t now, uint64_t *io_next)
{
	struct publisher *publisher = client->publisher;

	if (publisher->due_ms <= now)
		due_check(client, now);
	if (publisher->given_up && publisher->in_flight == 0)
		drop_given_up(client);
	if (publisher->due_ms < *io_next)
		*io_next = publisher->due_ms;
}

bool publish_waits(const sluice_client *client)
{
	return client->publisher->in_flight > 0;
}

void publish_untaken(sluice_client *client)
{
	struct publisher *publisher = client->publisher;
	struct batch *batch;

	DL_FOREACH(publisher->batches, batch) {
		/* One that was sent before keeps its numbers. */
		if (batch->in_flight && !batch->maybe && batch->refused_last == 0)
			batch->was_sent = false;
		batch->in_flight = false;
	}
	publisher->in_flight = 0;
}

void publish_broken(sluice_client *client)
{
	struct publisher *publisher = client->publisher;
	struct batch *batch;

	DL_FOREACH(publisher->batches, batch) {
		batch->maybe = batch->maybe || batch->in_flight;
		batch->in_flight = false;
		batch->corr = 0;
	}
	publisher->in_flight = 0;
	/* The answer to the opening was lost with the connection; the call itself is made again. */
	if (publisher->gone != 0)
		producer_gone(client);
}

void publish_session_lost(sluice_client *client)
{
	struct publisher *publisher = client->publisher;

	/* The producer belongs to the session that opened it, and its secret moves it to the
	 * current one. */
	publisher->again = publisher->again || publisher->open;
	publisher->open = false;
}

void publish_end(sluice_client *client, int code)
{
	struct publisher *publisher = client->publisher;
	struct batch *last = publisher->batches != NULL ? publisher->batches->prev : NULL;

	if (publisher->failed == 0 && code == SLUICE_E_PRODUCER_FENCED)
		publisher->failed = code;
	publisher->in_flight = 0;
	/* Batches that a callback publishes are not included: its retry would be ended here again,
	 * for ever. */
	for (bool ended = false; !ended && publisher->batches != NULL;) {
		struct batch *batch = publisher->batches;
		int as = batch->was_sent && batch->refused == 0 && code != publisher->failed
				 ? SLUICE_E_UNKNOWN
				 : code;

		ended = batch == last;
		batch_finish(client, batch,
			     &(struct verdict){.code = as,
					       .text = sluice_error_text(code),
					       .text_len = strlen(sluice_error_text(code)),
					       .offset = UINT64_MAX});
	}
}

void publish_free(sluice_client *client)
{
	struct publisher *publisher = client->publisher;

	publish_end(client, SLUICE_E_CLOSED);
	publish_spares_free(publisher);
}
