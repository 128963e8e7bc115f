/* SPDX-License-Identifier: Apache-2.0
 * Effects for subscriptions and sessions as DELIVER and NOTICE frames, and stored segments for
 * followers. A grant to a consumer that its client has closed is given back. */
#include "broker/net/native/native.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/envelope.h"
#include "protocol/limits.h"

static void damaged_notice(struct conn *conn, uint32_t number, const struct effect *effect)
{
	Sluice__Notice notice = SLUICE__NOTICE__INIT;

	notice.kind = SLUICE__NOTICE_KIND__NOTICE_DAMAGED;
	notice.subscription = number;
	notice.offset = effect->seq;
	notice.token = effect->token;
	notice.code = SLUICE_E_CORRUPT;
	notice.text = (char *)(uintptr_t)effect->name.data;
	native_message(conn, FRAME_NOTICE, 0, &notice.base);
}

static void deliver_frame(struct conn *conn, const struct frame_deliver *deliver,
			  const struct frame_run *runs)
{
	size_t head = frame_deliver_head_size(deliver);
	uint8_t small[1024], *bytes = small;
	struct frame_header header = {.body_bytes = (uint32_t)(head + deliver->payload.len),
				      .type = FRAME_DELIVER};

	if (FRAME_HEADER_BYTES + head > sizeof(small)) {
		bytes = malloc(FRAME_HEADER_BYTES + head);
		if (bytes == NULL) {
			door_abort(conn, "no memory for a frame");
			return;
		}
	}
	frame_header_encode(bytes, &header);
	(void)frame_deliver_head_encode(bytes + FRAME_HEADER_BYTES, deliver, runs);
	(void)door_write(conn,
			 (const struct sluice_slice[]){{bytes, FRAME_HEADER_BYTES + head},
						       deliver->payload},
			 2);
	if (bytes != small)
		free(bytes);
}

static void job_notice(struct conn *conn, const struct effect *effect)
{
	Sluice__Notice notice = SLUICE__NOTICE__INIT;
	char job[LIMIT_SIZE(NAME_BYTES_MAX) + 1];
	size_t len = effect->name.len < sizeof(job) - 1 ? effect->name.len : sizeof(job) - 1;

	memcpy(job, effect->name.data, len);
	job[len] = 0;
	notice.kind = effect->kind == FX_JOB_CANCEL ? SLUICE__NOTICE_KIND__NOTICE_JOB_CANCEL
						    : SLUICE__NOTICE_KIND__NOTICE_LEASE_LOST;
	notice.job = job;
	notice.token = effect->token;
	native_message(conn, FRAME_NOTICE, 0, &notice.base);
}

/* ---- grants to a consumer that the client has closed: it has not seen them, so none is begun
 * ---- */

static int items_give_back(struct conn *conn, uint64_t number, const struct effect *effect)
{
	const struct cmd_ack ack = {.token = effect->token, .op = ACK_RELEASE};

	return door_ack(conn, native_tag(NATIVE_NOTHING, 0), number, &ack, DOOR_QUIET);
}

struct job_release_block {
	Sluice__JobRelease release;
	char job[];
};

static int job_give_back(struct conn *conn, const Sluice__JobDelivery *job)
{
	size_t len = strlen(job->job) + 1;
	struct job_release_block *block = malloc(sizeof(*block) + len);
	struct command command = {.type = COMMAND_JOB_RELEASE};

	if (block == NULL)
		return SLUICE_E_NOMEM;
	sluice__job_release__init(&block->release);
	block->release.job = memcpy(block->job, job->job, len);
	block->release.token = job->token;
	command.message = &block->release.base;
	return door_submit(conn, native_tag(NATIVE_NOTHING, 0), &command,
			   (struct door_block){.plain = block}, sizeof(*block) + len, DOOR_CONTROL,
			   DOOR_QUIET);
}

/* A grant that cannot be given back now stays leased until its lease or the session ends. */
static void give_back(struct conn *conn, uint64_t number, const struct effect *effect)
{
	Sluice__JobDeliveries *list;

	if (effect->kind == FX_GRANT && effect->again)
		return; /* the client may be working on it */
	if (effect->kind == FX_GRANT) {
		(void)items_give_back(conn, number, effect);
		return;
	}
	if (effect->kind != FX_JOBS)
		return;
	list = sluice__job_deliveries__unpack(NULL, effect->payload.len, effect->payload.data);
	if (list == NULL)
		return;
	for (size_t i = 0; i < list->n_jobs; i++)
		if (!list->jobs[i]->intent && !list->jobs[i]->redelivered)
			(void)job_give_back(conn, list->jobs[i]);
	sluice__job_deliveries__free_unpacked(list, NULL);
}

/* The session lapsed while this connection resumed it: the client opens another, possibly with the
 * same name. SESSION_GONE would report that another client has the name. */
static void session_ended(struct conn *conn, const struct effect *effect)
{
	if (effect->lapsed)
		(void)native_fail(conn, SLUICE_E_TIMEOUT,
				  "the session's timeout expired while this connection was "
				  "resuming "
				  "it; open another session");
	else
		(void)native_fail(conn, SLUICE_E_SESSION_GONE,
				  "the session has ended: it was closed, or another client opened "
				  "its name");
}

void native_effect(struct conn *conn, struct sub *sub, const struct effect *effect)
{
	struct frame_deliver deliver = {.count = effect->count,
					.payload = effect->payload,
					.raw_bytes = (uint32_t)effect->payload.len};
	struct door_sub of = {0};

	if (door_is_ending(conn))
		return;
	if (sub != NULL)
		door_sub_get(sub, &of);
	if (of.closed) {
		give_back(conn, of.number, effect);
		return;
	}
	switch (effect->kind) {
	case FX_GRANT:
		deliver.kind = DELIVER_ITEMS;
		deliver.token = effect->token;
		deliver.lease_ms = effect->lease_ms;
		deliver.run_count = effect->run_count;
		break;
	case FX_JOBS:
		deliver.kind = DELIVER_JOBS;
		break;
	case FX_JOB_CANCEL:
	case FX_LEASE_LOST:
		job_notice(conn, effect);
		return;
	case FX_SESSION_ENDED:
		session_ended(conn, effect);
		return;
	case FX_RESUMED:
		native_notice(conn, SLUICE__NOTICE_KIND__NOTICE_RESUMED, of.number, 0, 0, 0, "");
		return;
	case FX_ITEM_DAMAGED:
		damaged_notice(conn, (uint32_t)of.number, effect);
		return;
	default:
		return;
	}
	deliver.subscription = (uint32_t)of.number;
	deliver_frame(conn, &deliver, effect->runs);
}

/* ---- followers ---- */

void native_gap(struct sub *sub, uint64_t to_offset)
{
	struct door_sub of;

	door_sub_get(sub, &of);
	native_notice(of.conn, SLUICE__NOTICE_KIND__NOTICE_GAP, of.number, of.next, to_offset, 0,
		      "");
}

void native_caught_up(struct sub *sub)
{
	struct door_sub of;

	door_sub_get(sub, &of);
	native_notice(of.conn, SLUICE__NOTICE_KIND__NOTICE_CAUGHT_UP, of.number, of.next, 0, 0, "");
}

void native_subscription_end(struct sub *sub, int code, const char *text)
{
	struct door_sub of;

	door_sub_get(sub, &of);
	native_notice(of.conn, SLUICE__NOTICE_KIND__NOTICE_SUBSCRIPTION_END, of.number, of.next, 0,
		      code, text);
}

static void segment_whole(struct sub *sub, const struct door_sub *of, const struct segment *segment)
{
	struct frame_deliver deliver = {.subscription = (uint32_t)of->number,
					.kind = DELIVER_EVENTS,
					.codec = segment->codec,
					.base = segment->base,
					.count = segment->count,
					.time_ms = segment->time_ms,
					.raw_bytes = segment->raw_bytes,
					.subject = segment->subject,
					.payload = segment->payload};

	deliver_frame(of->conn, &deliver, NULL);
	door_delivered(sub, segment->last + 1, segment->count);
}

/* Part of a segment: from next on, filtered, as far as the credit goes. */
static int segment_part(struct sub *sub, const struct door_sub *of, const struct segment *segment,
			struct sluice_slice raw)
{
	struct sluice_slice filter = {of->filter, of->filter != NULL ? strlen(of->filter) : 0};
	struct frame_deliver deliver = {.subscription = (uint32_t)of->number,
					.kind = DELIVER_EVENTS,
					.base = segment->base,
					.time_ms = segment->time_ms,
					.subject = segment->subject};
	struct frame_run *runs = malloc(segment->count * sizeof(*runs));
	uint8_t *bytes = malloc(raw.len + 1);
	uint64_t at = of->next;
	size_t len = 0;
	int rc = runs == NULL || bytes == NULL ? SLUICE_E_NOMEM : 0;

	for (uint32_t i = 0; rc == 0 && i < segment->count && deliver.count < of->credit; i++) {
		uint64_t offset = segment->base + i;
		struct envelope envelope;
		const char *why = "";

		rc = envelope_next(&raw, &envelope, &why);
		if (rc != 0 || offset < at)
			continue;
		at = offset + 1;
		if (of->filter != NULL &&
		    !pattern_matches(filter, segment->subject.len > 0 ? segment->subject
								      : envelope.subject))
			continue;
		memcpy(bytes + len, envelope.encoded.data, envelope.encoded.len);
		len += envelope.encoded.len;
		if (deliver.run_count > 0 &&
		    runs[deliver.run_count - 1].first + runs[deliver.run_count - 1].count == offset)
			runs[deliver.run_count - 1].count++;
		else
			runs[deliver.run_count++] = (struct frame_run){offset, 1};
		deliver.count++;
	}
	if (rc == 0 && deliver.count > 0) {
		deliver.payload = (struct sluice_slice){bytes, len};
		deliver.raw_bytes = (uint32_t)len;
		deliver_frame(of->conn, &deliver, runs);
	}
	door_delivered(sub, at, deliver.count);
	free(runs);
	free(bytes);
	return rc;
}

int native_deliver_segment(struct sub *sub, const struct segment *segment, uint64_t *io_budget)
{
	const uint64_t cost = segment->payload.len + SEGMENT_READ_COST;
	struct door_sub of;
	bool all;
	uint8_t *raw = NULL;
	const char *why = "";
	int rc;

	door_sub_get(sub, &of);
	all = of.filter == NULL ||
	      (segment->subject.len > 0 &&
	       pattern_matches((struct sluice_slice){of.filter, strlen(of.filter)},
			       segment->subject));
	*io_budget -= *io_budget < cost ? *io_budget : cost;
	if (of.filter != NULL && segment->subject.len > 0 && !all) {
		door_delivered(sub, segment->last + 1, 0);
		return 0;
	}
	if (all && of.next <= segment->base && of.credit >= segment->count &&
	    (segment->codec == BATCH_RAW || of.raw)) {
		segment_whole(sub, &of, segment);
		return 0;
	}
	if (segment->codec == BATCH_RAW)
		return segment_part(sub, &of, segment, segment->payload);
	rc = batch_decompress(segment->payload, segment->raw_bytes, &raw, &why);
	if (rc == 0)
		rc = segment_part(sub, &of, segment,
				  (struct sluice_slice){raw, segment->raw_bytes});
	free(raw);
	return rc;
}
