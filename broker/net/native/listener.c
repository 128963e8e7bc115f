/* SPDX-License-Identifier: Apache-2.0
 *
 * The native listener: frames in. Each frame becomes a command, a read or a change of a subscription. Lengths are checked before
 * anything of that size is kept; before HELLO a connection may send PREAUTH_BYTES_MAX in all.
 */
#include "broker/net/native/native.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/util/log.h"
#include "protocol/envelope.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "protocol/text.h"
#include "sluice/version.h"

/* ---- frames out ---- */

void native_frame(struct conn *conn, uint8_t type, uint32_t corr, const void *body, size_t len)
{
	uint8_t small[FRAME_HEADER_BYTES + NATIVE_REPLY_BYTES_MAX];
	struct frame_header header = {.body_bytes = (uint32_t)len, .type = type, .corr = corr};
	/* A copy costs less than a second write. */
	bool together = len <= sizeof(small) - FRAME_HEADER_BYTES;

	frame_header_encode(small, &header);
	if (together && len > 0)
		memcpy(small + FRAME_HEADER_BYTES, body, len);
	conn_write(conn, small, FRAME_HEADER_BYTES + (together ? len : 0));
	if (!together)
		conn_write(conn, body, len);
}

/* Most replies are small: one write, and no memory for them. */
void native_message(struct conn *conn, uint8_t type, uint32_t corr, const ProtobufCMessage *message)
{
	uint8_t small[1024], *bytes = small;
	size_t len = protobuf_c_message_get_packed_size(message);
	struct frame_header header = {.body_bytes = (uint32_t)len, .type = type, .corr = corr};

	invariant(message_text_bad(message) == NULL, "%s of %s is not text", message_text_bad(message),
		  message->descriptor->name);
	if (FRAME_HEADER_BYTES + len > sizeof(small)) {
		bytes = malloc(FRAME_HEADER_BYTES + len);
		if (bytes == NULL) {
			conn_kill(conn, "no memory for a frame");
			return;
		}
	}
	frame_header_encode(bytes, &header);
	(void)protobuf_c_message_pack(message, bytes + FRAME_HEADER_BYTES);
	conn_write(conn, bytes, FRAME_HEADER_BYTES + len);
	if (bytes != small)
		free(bytes);
}

/* A session that was taken over is no failure of its connection. */
static void log_failure(const struct conn *conn, int code, const char *text)
{
	static struct log_rate rate = {.per_second = 10};
	enum log_level level = code == SLUICE_E_SESSION_GONE ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN;
	char peer[PEER_TEXT_BYTES];
	uint64_t left_out;

	if (!log_enabled(level) || !log_may(&rate, &left_out))
		return;
	log_line(level, log_id("net.refused", "a connection is ended with an ERROR"),
		 log_u64("thread", (uint64_t)(conn->io - conn->io->net->ios)), log_u64("conn", conn->id),
		 log_str("peer", conn_peer(conn->fd, peer)), log_u64("session", conn->session),
		 log_str("code", sluice_error_name(code)), log_str("text", text),
		 log_u64("left_out", left_out));
}

void native_log_refused(const struct conn *conn, uint64_t corr, int code, const char *text)
{
	static struct log_rate rate = {.per_second = 20};
	uint64_t left_out;

	if (!log_enabled(LOG_LEVEL_DEBUG) || !log_may(&rate, &left_out))
		return;
	log_line(LOG_LEVEL_DEBUG, log_id("request.refused", "a request was refused"),
		 log_u64("thread", (uint64_t)(conn->io - conn->io->net->ios)), log_u64("conn", conn->id),
		 log_u64("session", conn->session), log_u64("corr", corr),
		 log_str("code", sluice_error_name(code)), log_str("text", text),
		 log_u64("left_out", left_out));
}

long native_fail(struct conn *conn, int code, const char *format, ...)
{
	Sluice__Failure failure = SLUICE__FAILURE__INIT;
	char text[256];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_mend(text);
	failure.code = code;
	failure.text = text;
	log_failure(conn, code, text);
	native_message(conn, FRAME_ERROR, 0, &failure.base);
	conn_close_soon(conn, "an ERROR was sent");
	return -1;
}

/* One policy for want of memory: what was not accepted is refused, and may be tried again. */
static int no_memory_is_busy(int code, const char **io_text)
{
	if (code != SLUICE_E_NOMEM)
		return code;
	*io_text = "the broker is out of memory; try again";
	return SLUICE_E_BUSY;
}

void native_refuse(struct conn *conn, uint32_t corr, int code, const char *format, ...)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;
	const char *no_memory = NULL;
	char text[320];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	code = no_memory_is_busy(code, &no_memory);
	if (no_memory != NULL)
		(void)snprintf(text, sizeof(text), "%s", no_memory);
	text_mend(text);
	reply.code = code;
	reply.text = text;
	native_log_refused(conn, corr, code, text);
	native_message(conn, FRAME_REPLY, corr, &reply.base);
}

/* Of a PUBLISHED or ACKED: an outcome's, or one of this file's. */
enum { ANSWER_TEXT_BYTES_MAX = 256 };
static_assert(sizeof(((struct outcome *)0)->text) <= ANSWER_TEXT_BYTES_MAX, "an outcome's text goes into it");

static void published(struct conn *conn, uint32_t corr, const struct frame_published *answer)
{
	uint8_t body[2 + FRAME_PUBLISHED_FIXED_BYTES + ANSWER_TEXT_BYTES_MAX];

	invariant(answer->text.len <= ANSWER_TEXT_BYTES_MAX, "a text of %zu bytes", answer->text.len);
	body[0] = 0;
	body[1] = 1;
	native_frame(conn, FRAME_PUBLISHED, corr, body, 2 + frame_published_encode(body + 2, answer));
}

static void acked(struct conn *conn, uint32_t corr, int code, uint64_t index, uint32_t affected,
		  const char *text)
{
	struct frame_acked answer = {.index = index, .affected = affected};
	uint8_t body[FRAME_ACKED_FIXED_BYTES + ANSWER_TEXT_BYTES_MAX];

	answer.code = no_memory_is_busy(code, &text);
	answer.text = (struct sluice_slice){text, strlen(text)};
	invariant(answer.text.len <= ANSWER_TEXT_BYTES_MAX, "a text of %zu bytes", answer.text.len);
	native_frame(conn, FRAME_ACKED, corr, body, frame_acked_encode(body, &answer));
}

/* ---- PUBLISH ---- */

static int publish_refuse(struct conn *conn, uint32_t corr, const struct frame_publish *publish, int code,
			  const char *text)
{
	struct frame_published answer = {.producer = publish->producer,
					 .first_seq = publish->first_seq,
					 .count = publish->count,
					 .offset = UINT64_MAX};

	answer.code = no_memory_is_busy(code, &text);
	answer.text = (struct sluice_slice){text, strlen(text)};
	published(conn, corr, &answer);
	return 0;
}

/* Everything that core may rely on is checked here, on the I/O thread; a batch whose events have their own subjects
 * is decompressed here too, since core splits it. */
static int publish_prepare(const struct frame_publish *publish, uint8_t **ret_raw, const char **ret_why)
{
	struct sluice_slice raw = publish->payload;
	int rc = 0;

	*ret_raw = NULL;
	if (publish->subject.len > 0)
		rc = subject_check(publish->subject, ret_why);
	if (rc == 0 && publish->target_kind != PUBLISH_TO_SUBJECT)
		rc = name_check(publish->target, ret_why);
	if (rc == 0 && publish->codec == BATCH_ZSTD) {
		rc = batch_decompress(publish->payload, publish->raw_bytes, ret_raw, ret_why);
		raw = (struct sluice_slice){*ret_raw, publish->raw_bytes};
	}
	if (rc == 0)
		rc = batch_check(raw, publish->count, publish->subject.len > 0, NULL, NULL, ret_why);
	return rc;
}

struct publish_block {
	struct frame_publish publish;
	uint8_t bytes[];
};

static int on_publish(struct conn *conn, uint32_t corr, struct sluice_slice body)
{
	struct frame_publish publish = {0};
	struct publish_block *block;
	struct command command = {.type = COMMAND_PUBLISH};
	uint8_t *raw = NULL;
	const char *why = "";
	bool use_raw;
	size_t payload_len;
	uint8_t *at;
	int rc = frame_publish_decode(body, &publish, &why);

	if (rc == SLUICE_E_LIMIT)
		return publish_refuse(conn, corr, &publish, rc, why);
	if (rc != 0)
		return (int)native_fail(conn, rc, "PUBLISH: %s", why);
	rc = publish_prepare(&publish, &raw, &why);
	if (rc != 0) {
		free(raw);
		return publish_refuse(conn, corr, &publish, rc, why);
	}
	use_raw = raw != NULL && publish.subject.len == 0;
	payload_len = use_raw ? publish.raw_bytes : publish.payload.len;
	block = malloc(sizeof(*block) + publish.subject.len + publish.target.len + payload_len);
	if (block == NULL) {
		free(raw);
		return publish_refuse(conn, corr, &publish, SLUICE_E_BUSY,
				      "the broker is out of memory; try again");
	}
	block->publish = publish;
	at = block->bytes;
	memcpy(at, publish.subject.data, publish.subject.len);
	block->publish.subject.data = at;
	at += publish.subject.len;
	memcpy(at, publish.target.data, publish.target.len);
	block->publish.target.data = at;
	at += publish.target.len;
	memcpy(at, use_raw ? raw : publish.payload.data, payload_len);
	block->publish.payload = (struct sluice_slice){at, payload_len};
	if (use_raw)
		block->publish.codec = BATCH_RAW;
	free(raw);
	command.body = &block->publish;
	rc = conn_submit(conn, &command, block, sizeof(*block) + payload_len, false, NATIVE_PUBLISHED, corr,
			 publish.producer);
	if (rc == SLUICE_E_BUSY)
		return 1;
	if (rc != 0)
		return publish_refuse(conn, corr, &publish, rc, sluice_error_text(rc));
	return 0;
}

/* ---- ACK, CREDIT ---- */

struct ack_block {
	struct cmd_ack ack;
	uint8_t bytes[];
};

static int on_ack(struct conn *conn, uint32_t corr, struct sluice_slice body)
{
	struct frame_ack frame;
	struct ack_block *block;
	struct command command = {.type = COMMAND_ACK};
	const char *why = "";
	struct sub *sub;
	size_t run_bytes;
	int rc = frame_ack_decode(body, &frame, &why);

	if (rc != 0)
		return (int)native_fail(conn, rc, "ACK: %s", why);
	sub = sub_find_settling(conn, frame.subscription);
	if (sub == NULL || sub->kind != SUB_CONSUME) {
		acked(conn, corr, SLUICE_E_NOT_FOUND, 0, 0,
		      "no consumer of this connection has that subscription number");
		return 0;
	}
	run_bytes = (size_t)frame.run_count * FRAME_RUN_BYTES;
	block = malloc(sizeof(*block) + run_bytes + frame.reason.len);
	if (block == NULL) {
		acked(conn, corr, SLUICE_E_BUSY, 0, 0, "the broker is out of memory; try again");
		return 0;
	}
	block->ack = (struct cmd_ack){.queue = sub->key.id,
				      .token = frame.token,
				      .op = frame.op,
				      .value_ms = frame.value_ms,
				      .run_count = frame.run_count};
	if (run_bytes > 0)
		memcpy(block->bytes, frame.runs, run_bytes);
	block->ack.runs = block->bytes;
	if (frame.reason.len > 0)
		memcpy(block->bytes + run_bytes, frame.reason.data, frame.reason.len);
	block->ack.reason = (struct sluice_slice){block->bytes + run_bytes, frame.reason.len};
	command.body = &block->ack;
	rc = conn_submit(conn, &command, block, sizeof(*block) + run_bytes + frame.reason.len, true,
			 corr != 0 ? NATIVE_ACKED : NATIVE_SILENT_ACK, corr, 0);
	if (rc == SLUICE_E_BUSY)
		return 1;
	if (rc != 0)
		acked(conn, corr, rc, 0, 0, sluice_error_text(rc));
	return 0;
}

static int on_credit(struct conn *conn, struct sluice_slice body)
{
	struct frame_credit credit;
	const char *why = "";
	struct sub *sub;
	bool starved;
	int rc = frame_credit_decode(body, &credit, &why);

	if (rc != 0)
		return (int)native_fail(conn, rc, "CREDIT: %s", why);
	sub = sub_find(conn, credit.subscription);
	if (sub == NULL)
		return 0; /* crossed with its end */
	if (credit.more > LIMIT_CREDIT_MAX)
		return (int)native_fail(conn, SLUICE_E_LIMIT, "CREDIT of %u; expected at most %llu",
					credit.more, (unsigned long long)LIMIT_CREDIT_MAX);
	if (sub->kind == SUB_CONSUME) {
		if (engine_consumer_credit(conn->io->engine, &conn->io->sink, sub->tag, credit.more) == 0)
			return 0;
		conn_block(conn);
		return 1;
	}
	starved = sub->credit == 0;
	sub->credit =
		sub->credit + credit.more > LIMIT_CREDIT_MAX ? LIMIT_CREDIT_MAX : sub->credit + credit.more;
	/* With credit left it has all that there is, or waits for its output: either is told by other ways. */
	if (starved)
		sub_wants_pump(sub);
	return 0;
}

/* ---- frames in ---- */

static int on_frame(struct native *native, const struct frame_header *header, struct sluice_slice body)
{
	struct conn *conn = native->conn;

	if (!native->greeted) {
		if (header->type != FRAME_HELLO)
			return (int)native_fail(conn, SLUICE_E_PROTOCOL,
						"the first frame has type %u; expected HELLO (%d)",
						header->type, FRAME_HELLO);
		return native_hello(native, body);
	}
	switch (header->type) {
	case FRAME_PUBLISH:
		return on_publish(conn, header->corr, body);
	case FRAME_ACK:
		return on_ack(conn, header->corr, body);
	case FRAME_CREDIT:
		return on_credit(conn, body);
	case FRAME_REQUEST:
		return native_request(conn, header->corr, body);
	case FRAME_PING:
		native_frame(conn, FRAME_PONG, header->corr, NULL, 0);
		return 0;
	case FRAME_GOODBYE:
		conn_close_soon(conn, "GOODBYE");
		return -1;
	case FRAME_HELLO:
		return (int)native_fail(conn, SLUICE_E_PROTOCOL, "a second HELLO on one connection");
	default:
		/* An unknown type gets an error, not a closed connection. */
		native_refuse(conn, header->corr, SLUICE_E_UNKNOWN_TYPE, "frame type %u is unknown",
			      header->type);
		return 0;
	}
}

static long native_bytes(void *state, const void *bytes, size_t len)
{
	struct native *native = state;
	struct conn *conn = native->conn;
	const uint8_t *at = bytes;
	size_t used = 0;

	conn->wanted = 0;
	while (len - used >= FRAME_HEADER_BYTES) {
		struct frame_header header;
		const char *why = "";
		int rc =
			frame_header_decode(at + used,
					    native->greeted ? LIMIT_FRAME_BYTES_MAX : LIMIT_PREAUTH_BYTES_MAX,
					    &header, &why);

		if (rc != 0)
			return native_fail(conn, rc, "frame: %s", why);
		if (len - used < FRAME_HEADER_BYTES + (size_t)header.body_bytes) {
			conn->wanted = FRAME_HEADER_BYTES + (size_t)header.body_bytes;
			break;
		}
		rc = on_frame(native, &header,
			      (struct sluice_slice){at + used + FRAME_HEADER_BYTES, header.body_bytes});
		if (rc < 0)
			return -1;
		if (rc > 0)
			break;
		used += FRAME_HEADER_BYTES + (size_t)header.body_bytes;
		if (!conn_may_take(conn))
			break;
	}
	return (long)used;
}

/* ---- answers ---- */

static void on_reply(struct conn *conn, uint32_t what, uint64_t corr, const struct outcome *outcome)
{
	uint8_t reply[NATIVE_REPLY_BYTES_MAX];
	struct frame_published answer;

	if (outcome->code != 0 && what != NATIVE_WELCOME)
		native_log_refused(conn, corr, outcome->code, outcome->text);
	switch (what) {
	case NATIVE_PUBLISHED:
		answer = (struct frame_published){.code = outcome->code,
						  .first_seq = outcome->seq,
						  .count = outcome->count,
						  .index = outcome->index,
						  .offset = outcome->code == 0 ? outcome->offset : UINT64_MAX,
						  .flags = outcome->duplicate ? PUBLISHED_DUPLICATE : 0,
						  .text = {outcome->text, strlen(outcome->text)}};
		published(conn, (uint32_t)corr, &answer);
		return;
	case NATIVE_ACKED:
		acked(conn, (uint32_t)corr, outcome->code, outcome->index, outcome->count, outcome->text);
		return;
	case NATIVE_SILENT_ACK:
		if (outcome->code != 0)
			acked(conn, 0, outcome->code, outcome->index, 0, outcome->text);
		return;
	case NATIVE_WELCOME:
		native_welcome(conn, outcome);
		return;
	case NATIVE_NOTHING:
		return;
	case NATIVE_GOODBYE:
	case NATIVE_REPLY:
		native_frame(conn, FRAME_REPLY, (uint32_t)corr, reply, native_reply_encode(reply, outcome));
		return;
	}
}

const struct answer_ops native_answers = {.reply = on_reply};

/* ---- effects of subscriptions and sessions ---- */

void native_notice(struct conn *conn, Sluice__NoticeKind kind, const struct sub *sub, uint64_t offset,
		   uint64_t to_offset, int code, const char *text)
{
	Sluice__Notice notice = SLUICE__NOTICE__INIT;

	notice.kind = kind;
	notice.subscription = sub != NULL ? (uint32_t)sub->number : 0;
	notice.offset = offset;
	notice.to_offset = to_offset;
	notice.code = code;
	notice.text = (char *)(uintptr_t)text;
	native_message(conn, FRAME_NOTICE, 0, &notice.base);
}

static void damaged_notice(struct conn *conn, const struct sub *sub, const struct effect *effect)
{
	Sluice__Notice notice = SLUICE__NOTICE__INIT;

	notice.kind = SLUICE__NOTICE_KIND__NOTICE_DAMAGED;
	notice.subscription = sub != NULL ? (uint32_t)sub->number : 0;
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
			conn_kill(conn, "no memory for a frame");
			return;
		}
	}
	frame_header_encode(bytes, &header);
	(void)frame_deliver_head_encode(bytes + FRAME_HEADER_BYTES, deliver, runs);
	conn->delivering = true;
	conn_write(conn, bytes, FRAME_HEADER_BYTES + head);
	conn_write(conn, deliver->payload.data, deliver->payload.len);
	conn->delivering = false;
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

/* ---- what a consumer was given that the client has closed: it was not told of it, so nothing of it is begun ---- */

struct release_block {
	struct cmd_ack ack;
};

static int items_give_back(struct conn *conn, const struct sub *sub, const struct effect *effect)
{
	struct release_block *block = calloc(1, sizeof(*block));
	struct command command = {.type = COMMAND_ACK};

	if (block == NULL)
		return SLUICE_E_NOMEM;
	block->ack = (struct cmd_ack){.queue = sub->key.id, .token = effect->token, .op = ACK_RELEASE};
	command.body = &block->ack;
	return conn_submit(conn, &command, block, sizeof(*block), true, NATIVE_NOTHING, 0, 0);
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
	return conn_submit(conn, &command, block, sizeof(*block) + len, true, NATIVE_NOTHING, 0, 0);
}

/* What cannot be given back now stays leased, until its lease or the session ends. */
static void give_back(struct conn *conn, const struct sub *sub, const struct effect *effect)
{
	Sluice__JobDeliveries *list;

	if (effect->kind == FX_GRANT && effect->again)
		return; /* the client may have it in hand */
	if (effect->kind == FX_GRANT) {
		(void)items_give_back(conn, sub, effect);
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

/* One that lapsed while this connection took it up is nobody's: a client opens another, also one with a name. SESSION_GONE would say that
 * somebody else has the name now. */
static void session_ended(struct conn *conn, const struct effect *effect)
{
	if (effect->lapsed)
		(void)native_fail(
			conn, SLUICE_E_TIMEOUT,
			"the session had no connection for longer than its timeout, and ended while this one "
			"took it up; open another");
	else
		(void)native_fail(conn, SLUICE_E_SESSION_GONE,
				  "the session has ended: it was closed, or another client opened its name");
}

void native_effect(struct conn *conn, struct sub *sub, const struct effect *effect)
{
	struct frame_deliver deliver = {.count = effect->count,
					.payload = effect->payload,
					.raw_bytes = (uint32_t)effect->payload.len};

	if (conn->dead || conn->closing)
		return;
	if (sub != NULL && sub->closed) {
		give_back(conn, sub, effect);
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
	case FX_STREAM_DELETED:
	case FX_QUEUE_DELETED:
		native_notice(conn, SLUICE__NOTICE_KIND__NOTICE_SUBSCRIPTION_END, sub, 0, 0,
			      SLUICE_E_NOT_FOUND, "it was deleted");
		sub_drop(sub);
		return;
	case FX_RESUMED:
		native_notice(conn, SLUICE__NOTICE_KIND__NOTICE_RESUMED, sub, 0, 0, 0, "");
		return;
	case FX_ITEM_DAMAGED:
		damaged_notice(conn, sub, effect);
		return;
	case FX_REPLY:
		/* Of a CLAIM, which is the engine's own; but where a damaged record is in the way, nothing more comes. */
		if (effect->outcome->code != SLUICE_E_CORRUPT)
			return;
		native_notice(conn, SLUICE__NOTICE_KIND__NOTICE_SUBSCRIPTION_END, sub, 0, 0, SLUICE_E_CORRUPT,
			      effect->outcome->text);
		sub_drop(sub);
		return;
	default:
		return;
	}
	deliver.subscription = (uint32_t)sub->number;
	deliver_frame(conn, &deliver, effect->runs);
	subs_pause_if_full(conn);
}

/* ---- segments to followers ---- */

static void segment_whole(struct sub *sub, const struct segment *segment)
{
	struct frame_deliver deliver = {.subscription = (uint32_t)sub->number,
					.kind = DELIVER_EVENTS,
					.codec = segment->codec,
					.base = segment->base,
					.count = segment->count,
					.time_ms = segment->time_ms,
					.raw_bytes = segment->raw_bytes,
					.subject = segment->subject,
					.payload = segment->payload};

	deliver_frame(sub->conn, &deliver, NULL);
	invariant(sub->next <= segment->last, "subscription %llu is at %llu, and is given up to %llu",
		  ULL(sub->number), ULL(sub->next), ULL(segment->last));
	sub->credit -= segment->count < sub->credit ? segment->count : sub->credit;
	sub->next = segment->last + 1;
}

/* Some of a segment: from next on, what the filter takes, as far as the credit goes. */
static int segment_part(struct sub *sub, const struct segment *segment, struct sluice_slice raw)
{
	struct sluice_slice filter = {sub->filter, sub->filter != NULL ? strlen(sub->filter) : 0};
	struct frame_deliver deliver = {.subscription = (uint32_t)sub->number,
					.kind = DELIVER_EVENTS,
					.base = segment->base,
					.time_ms = segment->time_ms,
					.subject = segment->subject};
	struct frame_run *runs = malloc(segment->count * sizeof(*runs));
	uint8_t *bytes = malloc(raw.len + 1);
	size_t len = 0;
	int rc = runs == NULL || bytes == NULL ? SLUICE_E_NOMEM : 0;

	for (uint32_t i = 0; rc == 0 && i < segment->count && sub->credit > 0; i++) {
		uint64_t offset = segment->base + i;
		struct envelope envelope;
		const char *why = "";

		rc = envelope_next(&raw, &envelope, &why);
		if (rc != 0 || offset < sub->next)
			continue;
		sub->next = offset + 1;
		if (sub->filter != NULL &&
		    !pattern_matches(filter, segment->subject.len > 0 ? segment->subject : envelope.subject))
			continue;
		memcpy(bytes + len, envelope.encoded.data, envelope.encoded.len);
		len += envelope.encoded.len;
		if (deliver.run_count > 0 &&
		    runs[deliver.run_count - 1].first + runs[deliver.run_count - 1].count == offset)
			runs[deliver.run_count - 1].count++;
		else
			runs[deliver.run_count++] = (struct frame_run){offset, 1};
		deliver.count++;
		sub->credit--;
	}
	if (rc == 0 && deliver.count > 0) {
		deliver.payload = (struct sluice_slice){bytes, len};
		deliver.raw_bytes = (uint32_t)len;
		deliver_frame(sub->conn, &deliver, runs);
	}
	free(runs);
	free(bytes);
	return rc;
}

int native_deliver_segment(struct sub *sub, const struct segment *segment, uint64_t *io_budget)
{
	struct sluice_slice filter = {sub->filter, sub->filter != NULL ? strlen(sub->filter) : 0};
	const uint64_t cost = segment->payload.len + SEGMENT_READ_COST;
	bool all = sub->filter == NULL ||
		   (segment->subject.len > 0 && pattern_matches(filter, segment->subject));
	uint8_t *raw = NULL;
	const char *why = "";
	int rc;

	*io_budget -= *io_budget < cost ? *io_budget : cost;
	if (sub->filter != NULL && segment->subject.len > 0 && !all) {
		sub->next = segment->last + 1;
		return 0;
	}
	if (all && sub->next <= segment->base && sub->credit >= segment->count &&
	    (segment->codec == BATCH_RAW || sub->raw)) {
		segment_whole(sub, segment);
		return 0;
	}
	if (segment->codec == BATCH_RAW)
		return segment_part(sub, segment, segment->payload);
	rc = batch_decompress(segment->payload, segment->raw_bytes, &raw, &why);
	if (rc == 0)
		rc = segment_part(sub, segment, (struct sluice_slice){raw, segment->raw_bytes});
	free(raw);
	return rc;
}

/* ---- the door ---- */

static int native_accept(const struct sluice_listener_host *host, sluice_conn *handle, void **ret_state)
{
	struct native *native = calloc(1, sizeof(*native));

	(void)host;
	if (native == NULL)
		return SLUICE_E_NOMEM;
	native->conn = (struct conn *)handle;
	native->conn->answers = &native_answers;
	*ret_state = native;
	return 0;
}

static void native_closed(void *state)
{
	struct native *native = state;

	if (native->hello != NULL)
		sluice__hello__free_unpacked(native->hello, NULL);
	free(native);
}

static void native_foreign_effect(void *state, const struct sluice_listener_effect *effect)
{
	(void)state;
	(void)effect; /* the native listener hears effects as they are: native_effect() */
}

const struct sluice_listener_ops native_listener_ops = {
	.struct_size = sizeof(struct sluice_listener_ops),
	.protocol = "sluice",
	.default_port = SLUICE_DEFAULT_PORT,
	.accept = native_accept,
	.bytes = native_bytes,
	.effect = native_foreign_effect,
	.closed = native_closed,
};

bool conn_is_native(const struct conn *conn)
{
	return conn->ops == &native_listener_ops;
}
