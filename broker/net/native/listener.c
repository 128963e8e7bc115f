/* SPDX-License-Identifier: Apache-2.0
 *
 * The native listener: frames in. Each frame becomes a command, a read or a change of a
 * subscription. Lengths are checked before memory for them is allocated; before HELLO a connection
 * may send PREAUTH_BYTES_MAX in all. The answer of a command becomes a frame here.
 */
#include "broker/net/native/native.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/conn.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/protocols.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

/* ---- answers ---- */

/* Of a PUBLISHED or ACKED: an outcome's, or one of this file's. */
enum { ANSWER_TEXT_BYTES_MAX = 256 };
static_assert(sizeof(((struct outcome *)0)->text) <= ANSWER_TEXT_BYTES_MAX,
	      "an outcome's text goes into it");

static void published(struct conn *conn, uint32_t corr, const struct frame_published *answer)
{
	uint8_t body[2 + FRAME_PUBLISHED_FIXED_BYTES + ANSWER_TEXT_BYTES_MAX];

	invariant(answer->text.len <= ANSWER_TEXT_BYTES_MAX, "a text of %zu bytes",
		  answer->text.len);
	body[0] = 0;
	body[1] = 1;
	native_frame(conn, FRAME_PUBLISHED, corr, body,
		     2 + frame_published_encode(body + 2, answer));
}

static void acked(struct conn *conn, uint32_t corr, int code, uint64_t index, uint32_t affected,
		  const char *text)
{
	struct frame_acked answer = {.index = index, .affected = affected};
	uint8_t body[FRAME_ACKED_FIXED_BYTES + ANSWER_TEXT_BYTES_MAX];

	answer.code = native_no_memory_is_busy(code, &text);
	answer.text = (struct sluice_slice){text, strlen(text)};
	invariant(answer.text.len <= ANSWER_TEXT_BYTES_MAX, "a text of %zu bytes", answer.text.len);
	native_frame(conn, FRAME_ACKED, corr, body, frame_acked_encode(body, &answer));
}

/* ---- PUBLISH ---- */

static int publish_refuse(struct conn *conn, uint32_t corr, const struct frame_publish *publish,
			  int code, const char *text)
{
	struct frame_published answer = {.producer = publish->producer,
					 .first_seq = publish->first_seq,
					 .count = publish->count,
					 .offset = UINT64_MAX};

	answer.code = native_no_memory_is_busy(code, &text);
	answer.text = (struct sluice_slice){text, strlen(text)};
	published(conn, corr, &answer);
	return 0;
}

/* Checks everything that core relies on, on the I/O thread; a batch whose events have their own
 * subjects is decompressed here too, since core splits it. */
static int publish_prepare(const struct frame_publish *publish, uint8_t **ret_raw,
			   const char **ret_why)
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
		rc = batch_check(raw, publish->count, publish->subject.len > 0, NULL, NULL,
				 ret_why);
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
	rc = conn_submit(conn, &command, block, sizeof(*block) + payload_len, false,
			 NATIVE_PUBLISHED, corr);
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
			 corr != 0 ? NATIVE_ACKED : NATIVE_SILENT_ACK, corr);
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
		return 0; /* crossed with the end of the subscription */
	if (credit.more > LIMIT_CREDIT_MAX)
		return (int)native_fail(conn, SLUICE_E_LIMIT, "CREDIT of %u; expected at most %llu",
					credit.more, (unsigned long long)LIMIT_CREDIT_MAX);
	if (sub->kind == SUB_CONSUME) {
		if (engine_consumer_credit(conn->io->engine, &conn->io->sink, sub->tag,
					   credit.more) == 0)
			return 0;
		conn_block(conn);
		return 1;
	}
	starved = sub->credit == 0;
	sub->credit = sub->credit + credit.more > LIMIT_CREDIT_MAX ? LIMIT_CREDIT_MAX
								   : sub->credit + credit.more;
	/* With credit left the follower is at the end of the stream, or waits for its output: both
	 * continue otherwise. */
	if (starved)
		sub_wants_pump(sub);
	return 0;
}

/* ---- frames in ---- */

static int on_frame(struct native *native, const struct frame_header *header,
		    struct sluice_slice body)
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
		return (int)native_fail(conn, SLUICE_E_PROTOCOL,
					"a second HELLO on one connection");
	default:
		/* An unknown type gets an error, not a closed connection. */
		native_refuse(conn, header->corr, SLUICE_E_UNKNOWN_TYPE, "frame type %u is unknown",
			      header->type);
		return 0;
	}
}

static long native_bytes(struct conn *conn, const void *bytes, size_t len)
{
	struct native *native = conn->state;
	const uint8_t *at = bytes;
	size_t used = 0;

	conn->wanted = 0;
	while (len - used >= FRAME_HEADER_BYTES) {
		struct frame_header header;
		const char *why = "";
		int rc = frame_header_decode(at + used,
					     native->greeted ? LIMIT_FRAME_BYTES_MAX
							     : LIMIT_PREAUTH_BYTES_MAX,
					     &header, &why);

		if (rc != 0)
			return native_fail(conn, rc, "frame: %s", why);
		if (len - used < FRAME_HEADER_BYTES + (size_t)header.body_bytes) {
			conn->wanted = FRAME_HEADER_BYTES + (size_t)header.body_bytes;
			break;
		}
		rc = on_frame(native, &header,
			      (struct sluice_slice){at + used + FRAME_HEADER_BYTES,
						    header.body_bytes});
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

/* ---- the answer of a command ---- */

static void native_reply(struct conn *conn, uint32_t what, uint64_t corr,
			 const struct outcome *outcome)
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
						  .offset = outcome->code == 0 ? outcome->offset
									       : UINT64_MAX,
						  .flags = outcome->duplicate ? PUBLISHED_DUPLICATE
									      : 0,
						  .text = {outcome->text, strlen(outcome->text)}};
		published(conn, (uint32_t)corr, &answer);
		return;
	case NATIVE_ACKED:
		acked(conn, (uint32_t)corr, outcome->code, outcome->index, outcome->count,
		      outcome->text);
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
		native_frame(conn, FRAME_REPLY, (uint32_t)corr, reply,
			     native_reply_encode(reply, outcome));
		return;
	}
}

/* ---- the listener ---- */

static const char *native_name(const struct conn *conn)
{
	(void)conn;
	return "sluice";
}

static int native_accept(struct conn *conn)
{
	struct native *native = calloc(1, sizeof(*native));

	if (native == NULL)
		return SLUICE_E_NOMEM;
	native->conn = conn;
	conn->state = native;
	return 0;
}

static void native_closed(struct conn *conn)
{
	struct native *native = conn->state;

	if (native->hello != NULL)
		sluice__hello__free_unpacked(native->hello, NULL);
	free(native);
}

const struct protocol_ops native_protocol = {
	.name = native_name,
	.accept = native_accept,
	.bytes = native_bytes,
	.closed = native_closed,
	.reply = native_reply,
	.reads_due = native_reads_due,
	.read_done = native_read_done,
	.answer = native_answer,
	.job_wait = native_job_wait,
	.job_ended = native_job_ended,
	.wait_timeout = native_wait_timeout,
	.effect = native_effect,
	.deliver_segment = native_deliver_segment,
	.gap = native_gap,
	.caught_up = native_caught_up,
	.subscription_end = native_subscription_end,
};
