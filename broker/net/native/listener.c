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

#include "broker/net/protocols.h"
#include "broker/util/invariant.h"
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

/* A smaller payload is copied with its command: for one of this size the copy has memory that is
 * new from the system each time, which costs several times as much as the copy itself. */
enum { TAKEN_BYTES_MIN = 1 << 17 };

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

static int on_publish(struct conn *conn, uint32_t corr, struct sluice_slice body)
{
	struct frame_publish publish = {0};
	struct door_buf *buf = NULL;
	const char *why = "";
	int rc = frame_publish_decode(body, &publish, &why);

	if (rc == SLUICE_E_LIMIT)
		return publish_refuse(conn, corr, &publish, rc, why);
	if (rc != 0)
		return (int)native_fail(conn, rc, "PUBLISH: %s", why);
	if (publish.payload.len >= TAKEN_BYTES_MIN)
		rc = door_buf_take(conn, &buf, &publish.payload);
	if (rc == 0)
		rc = door_publish(conn, native_tag(NATIVE_PUBLISHED, corr), 0, &publish, buf, &why);
	door_buf_unref(buf);
	if (rc == SLUICE_E_BUSY)
		return 1;
	if (rc != 0)
		return publish_refuse(conn, corr, &publish, rc,
				      why[0] != 0 ? why : sluice_error_text(rc));
	return 0;
}

/* ---- ACK, CREDIT ---- */

static int on_ack(struct conn *conn, uint32_t corr, struct sluice_slice body)
{
	struct frame_ack frame;
	struct cmd_ack ack;
	const char *why = "";
	int rc = frame_ack_decode(body, &frame, &why);

	if (rc != 0)
		return (int)native_fail(conn, rc, "ACK: %s", why);
	if (frame.op == ACK_RENEW && corr == 0) {
		acked(conn, corr, SLUICE_E_INVAL, 0, 0,
		      "a renewal needs a correlation: its answer has the new token");
		return 0;
	}
	ack = (struct cmd_ack){.token = frame.token,
			       .op = frame.op,
			       .value_ms = frame.value_ms,
			       .run_count = frame.run_count,
			       .runs = frame.runs,
			       .reason = frame.reason};
	rc = door_ack(conn, native_tag(NATIVE_ACKED, corr), frame.subscription, &ack,
		      corr != 0 ? 0 : DOOR_QUIET);
	if (rc == SLUICE_E_BUSY)
		return 1;
	if (rc != 0)
		acked(conn, corr, rc, 0, 0,
		      rc == SLUICE_E_NOT_FOUND
			      ? "no consumer of this connection has that subscription number"
			      : sluice_error_text(rc));
	return 0;
}

static int on_credit(struct conn *conn, struct sluice_slice body)
{
	struct frame_credit credit;
	const char *why = "";
	int rc = frame_credit_decode(body, &credit, &why);

	if (rc != 0)
		return (int)native_fail(conn, rc, "CREDIT: %s", why);
	rc = door_credit(conn, credit.subscription, credit.more);
	if (rc == SLUICE_E_LIMIT)
		return (int)native_fail(conn, rc, "CREDIT of %u; expected at most %llu",
					credit.more, (unsigned long long)LIMIT_CREDIT_MAX);
	/* NOT_FOUND: it crossed with the end of the subscription. */
	return rc == SLUICE_E_BUSY ? 1 : 0;
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
		door_close(conn, "GOODBYE");
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
	struct native *native = door_state(conn);
	const uint8_t *at = bytes;
	size_t used = 0;

	door_want(conn, 0);
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
			door_want(conn, FRAME_HEADER_BYTES + (size_t)header.body_bytes);
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
		if (!door_may_take(conn))
			break;
	}
	return (long)used;
}

/* ---- the answer of a command ---- */

static void native_reply(struct conn *conn, uint64_t tag, const struct outcome *outcome,
			 struct sluice_slice payload)
{
	const uint32_t corr = (uint32_t)tag;
	uint8_t reply[NATIVE_REPLY_BYTES_MAX];
	struct frame_published answer;

	(void)payload; /* no command of this protocol has one */
	if (outcome->code != 0)
		native_log_refused(conn, corr, outcome->code, outcome->text);
	switch ((enum native_what)(tag >> 32)) {
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
		published(conn, corr, &answer);
		return;
	case NATIVE_ACKED:
		acked(conn, corr, outcome->code, outcome->index, outcome->count, outcome->text);
		return;
	case NATIVE_NOTHING:
	case NATIVE_CLOSED:
		return;
	case NATIVE_REPLY:
		native_frame(conn, FRAME_REPLY, corr, reply, native_reply_encode(reply, outcome));
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
	door_state_set(conn, native);
	return 0;
}

static void native_closed(struct conn *conn)
{
	struct native *native = door_state(conn);

	if (native->hello != NULL)
		sluice__hello__free_unpacked(native->hello, NULL);
	free(native);
}

const struct protocol_ops native_protocol = {
	.name = native_name,
	.accept = native_accept,
	.bytes = native_bytes,
	.stop = native_stop,
	.drained = native_drained,
	.closed = native_closed,
	.reply = native_reply,
	.session = native_session,
	.request = native_in_order,
	.read_done = native_read_done,
	.answer = native_answer,
	.waited = native_waited,
	.effect = native_effect,
	.deliver_segment = native_deliver_segment,
	.gap = native_gap,
	.caught_up = native_caught_up,
	.subscription_end = native_subscription_end,
};
