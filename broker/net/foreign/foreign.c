/* SPDX-License-Identifier: Apache-2.0
 *
 * The listeners of plugins: the host table of plugin.h over connections, and effects as struct
 * sluice_listener_effect. A plugin's requests become the same commands and subscriptions as those
 * of the native protocol.
 */
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/door.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/protocols.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "sluice/plugin.h"

static const struct sluice_listener_ops *ops_of(const struct conn *conn)
{
	return door_listener(conn);
}

static void give(struct conn *conn, struct sluice_listener_effect effect)
{
	effect.struct_size = sizeof(effect);
	if (effect.text == NULL)
		effect.text = "";
	if (door_is_ending(conn))
		return;
	ops_of(conn)->effect(door_state(conn), &effect);
}

/* ---- bytes ---- */

static int host_write(sluice_conn *handle, const void *bytes, size_t len)
{
	return door_write((struct conn *)handle, &(struct sluice_slice){bytes, len}, 1);
}

static void host_close(sluice_conn *handle, const char *why)
{
	(void)why;
	door_close((struct conn *)handle, "its listener ended it");
}

/* ---- session ---- */

static int host_session(sluice_conn *handle, const char *gateway, uint32_t timeout_ms, uint64_t tag)
{
	struct conn *conn = (struct conn *)handle;
	const struct door_session_spec spec = {.how = DOOR_SESSION_OPEN,
					       .flags = DOOR_SESSION_ATTACH,
					       .face = SESSION_FACE_PLUGIN,
					       .timeout_ms = timeout_ms};
	struct door_session session;
	const char *why;
	int rc = door_enter(conn, (struct sluice_slice){gateway, strlen(gateway)});

	return rc != 0 ? rc : door_session(conn, tag, &spec, &session, &why);
}

/* ---- publish ---- */

static int host_publish(sluice_conn *handle, uint64_t tag, struct sluice_slice subject,
			struct sluice_slice queue, struct sluice_slice body)
{
	struct conn *conn = (struct conn *)handle;
	struct envelope envelope = {.body = body};
	struct frame_publish publish = {.target_kind = queue.len > 0 ? PUBLISH_TO_QUEUE
								     : PUBLISH_TO_SUBJECT,
					.count = 1,
					.subject = subject,
					.target = queue};
	const char *why = "";
	uint8_t *bytes;
	int rc;

	if (body.len > LIMIT_EVENT_BODY_BYTES_MAX)
		return SLUICE_E_LIMIT;
	bytes = malloc(envelope_size_max(&envelope));
	if (bytes == NULL)
		return SLUICE_E_NOMEM;
	publish.payload = (struct sluice_slice){bytes, envelope_encode(bytes, &envelope)};
	publish.raw_bytes = (uint32_t)publish.payload.len;
	rc = door_publish(conn, tag, 0, &publish, NULL, &why);
	free(bytes);
	return rc;
}

/* ---- consume, credit, ack ---- */

static int host_consume(sluice_conn *handle, uint64_t tag, struct sluice_slice queue,
			uint32_t credit, uint32_t lease_ms)
{
	struct conn *conn = (struct conn *)handle;
	/* jobs are for the native protocol: their leases outlive connections */
	const struct door_sub_spec spec = {.kind = DOOR_CONSUME,
					   .name = queue,
					   .credit = credit,
					   .lease_ms = lease_ms,
					   .items_only = true};
	struct door_subscribed subscribed;

	return door_subscribe(conn, tag, &spec, &subscribed);
}

static int host_credit(sluice_conn *handle, uint64_t consumer_tag, uint32_t more)
{
	struct conn *conn = (struct conn *)handle;
	struct door_sub sub;

	if (!door_sub_find(conn, consumer_tag, &sub) || sub.closed)
		return SLUICE_E_NOT_FOUND;
	if (sub.kind == DOOR_FOLLOW &&
	    (more > LIMIT_CREDIT_MAX || sub.credit > LIMIT_CREDIT_MAX - more))
		return SLUICE_E_LIMIT;
	return door_credit(conn, consumer_tag, more);
}

static int host_ack(sluice_conn *handle, uint64_t tag, uint64_t consumer_tag, sluice_token token,
		    uint64_t seq, bool done)
{
	struct conn *conn = (struct conn *)handle;
	uint8_t run[FRAME_RUN_BYTES] = {[FRAME_RUN_BYTES - 1] = 1};
	const struct cmd_ack ack = {.token = token,
				    .op = done ? ACK_DONE : ACK_NACK,
				    .run_count = 1,
				    .runs = run};

	for (int i = 0; i < 8; i++)
		run[i] = (uint8_t)(seq >> (56 - 8 * i));
	return door_ack(conn, tag, consumer_tag, &ack, 0);
}

/* ---- follow, request ---- */

static int host_follow(sluice_conn *handle, uint64_t tag, struct sluice_slice stream,
		       uint64_t offset, uint32_t credit)
{
	struct conn *conn = (struct conn *)handle;
	const struct door_sub_spec spec = {.kind = DOOR_FOLLOW,
					   .name = stream,
					   .credit = credit,
					   .from = SLUICE__FOLLOW_FROM__FROM_OFFSET,
					   .from_offset = offset};
	struct door_subscribed subscribed;

	return door_subscribe(conn, tag, &spec, &subscribed);
}

static void foreign_answer(struct conn *conn, uint64_t tag, int code, const uint8_t *reply,
			   size_t len)
{
	give(conn, (struct sluice_listener_effect){.kind = SLUICE_EFFECT_ANSWER,
						   .tag = tag,
						   .code = code,
						   .text = code != 0 ? sluice_error_text(code) : "",
						   .body = {reply, len}});
}

/* A read, in the native protocol's message; commands of foreign protocols have functions of their
 * own. */
static int host_request(sluice_conn *handle, uint64_t tag, struct sluice_slice bytes)
{
	struct conn *conn = (struct conn *)handle;
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	const char *why = "";
	int rc;

	if (door_is_ending(conn))
		return SLUICE_E_CLOSED;
	if (!door_may_take(conn))
		return SLUICE_E_BUSY; /* WRITABLE follows */
	rc = message_unpack_block(&sluice__request__descriptor, bytes, LIMIT_COMMAND_BYTES_MAX,
				  &block, &message, &why);
	if (rc != 0)
		return rc;
	if (!core_request_is_query((const Sluice__Request *)message)) {
		message_block_free(block);
		return SLUICE_E_UNSUPPORTED;
	}
	return door_read(conn, tag, &block, (const Sluice__Request *)message, bytes.len);
}

static const struct sluice_listener_host foreign_host = {
	.struct_size = sizeof(struct sluice_listener_host),
	.write = host_write,
	.close = host_close,
	.session = host_session,
	.publish = host_publish,
	.consume = host_consume,
	.credit = host_credit,
	.ack = host_ack,
	.follow = host_follow,
	.request = host_request,
};

/* ---- effects ---- */

static void foreign_reply(struct conn *conn, uint64_t tag, const struct outcome *outcome,
			  struct sluice_slice payload)
{
	(void)payload;
	give(conn, (struct sluice_listener_effect){.kind = SLUICE_EFFECT_ANSWER,
						   .tag = tag,
						   .code = outcome->code,
						   .text = outcome->text,
						   .offset = outcome->offset});
	door_hold(conn, false);
}

static void foreign_session(struct conn *conn, uint64_t tag, int code, const char *text,
			    const struct door_session *session)
{
	(void)session;
	give(conn, (struct sluice_listener_effect){.kind = SLUICE_EFFECT_ANSWER,
						   .tag = tag,
						   .code = code,
						   .text = text});
	door_hold(conn, false);
}

static void give_items(struct conn *conn, uint64_t number, const struct effect *effect)
{
	struct sluice_slice rest = effect->payload;

	for (uint16_t r = 0; r < effect->run_count; r++) {
		for (uint32_t i = 0; i < effect->runs[r].count; i++) {
			const uint8_t *at = rest.data;
			struct envelope envelope;
			const char *why = "";
			uint64_t put_time = 0;

			for (int b = 0; b < 8; b++)
				put_time = put_time << 8 | at[2 + b];
			rest = (struct sluice_slice){at + 10, rest.len - 10};
			if (envelope_next(&rest, &envelope, &why) != 0)
				return;
			give(conn,
			     (struct sluice_listener_effect){.kind = SLUICE_EFFECT_ITEM,
							     .tag = number,
							     .token = effect->token,
							     .seq = effect->runs[r].first + i,
							     .attempts =
								     (uint32_t)at[0] << 8 | at[1],
							     .subject = envelope.subject,
							     .key = envelope.key,
							     .body = envelope.body,
							     .time_ms = put_time});
		}
	}
}

static void foreign_subscription_end(struct sub *sub, int code, const char *text)
{
	struct door_sub of;

	door_sub_get(sub, &of);
	give(of.conn, (struct sluice_listener_effect){.kind = SLUICE_EFFECT_ANSWER,
						      .tag = of.number,
						      .code = code,
						      .text = text});
}

static void foreign_effect(struct conn *conn, struct sub *sub, const struct effect *effect)
{
	struct door_sub of = {0};

	if (sub != NULL)
		door_sub_get(sub, &of);
	switch (effect->kind) {
	case FX_GRANT:
		give_items(conn, of.number, effect);
		return;
	case FX_ITEM_DAMAGED:
		give(conn, (struct sluice_listener_effect){.kind = SLUICE_EFFECT_DAMAGED,
							   .tag = of.number,
							   .code = SLUICE_E_CORRUPT,
							   .seq = effect->seq,
							   .text = effect->name.data});
		return;
	case FX_SESSION_ENDED:
		door_close(conn, "its session has ended");
		return;
	default:
		return;
	}
}

static int foreign_deliver_segment(struct sub *sub, const struct segment *segment,
				   uint64_t *io_budget)
{
	struct sluice_slice raw = segment->payload;
	struct door_sub of;
	uint8_t *plain = NULL;
	const char *why = "";
	int rc = 0;

	door_sub_get(sub, &of);
	*io_budget -= *io_budget < segment->raw_bytes + SEGMENT_READ_COST
			      ? *io_budget
			      : segment->raw_bytes + SEGMENT_READ_COST;
	if (segment->codec != BATCH_RAW) {
		rc = batch_decompress(segment->payload, segment->raw_bytes, &plain, &why);
		raw = (struct sluice_slice){plain, segment->raw_bytes};
	}
	for (uint32_t i = 0; rc == 0 && i < segment->count && of.credit > 0; i++) {
		uint64_t offset = segment->base + i;
		struct envelope envelope;

		rc = envelope_next(&raw, &envelope, &why);
		if (rc != 0 || offset < of.next)
			continue;
		of.next = offset + 1;
		of.credit--;
		door_delivered(sub, of.next, 1);
		give(of.conn,
		     (struct sluice_listener_effect){.kind = SLUICE_EFFECT_EVENT,
						     .tag = of.number,
						     .offset = offset,
						     .subject = segment->subject.len > 0
									? segment->subject
									: envelope.subject,
						     .key = envelope.key,
						     .body = envelope.body,
						     .time_ms = segment->time_ms +
								(uint64_t)envelope.time_delta_ms});
	}
	free(plain);
	return rc;
}

/* ---- the table ---- */

static const char *foreign_name(const struct conn *conn)
{
	return ops_of(conn)->protocol;
}

static int foreign_accept(struct conn *conn)
{
	void *state = NULL;
	int rc = ops_of(conn)->accept(&foreign_host, (sluice_conn *)conn, &state);

	door_state_set(conn, state);
	return rc;
}

static long foreign_bytes(struct conn *conn, const void *bytes, size_t len)
{
	return ops_of(conn)->bytes(door_state(conn), bytes, len);
}

static void foreign_closed(struct conn *conn)
{
	ops_of(conn)->closed(door_state(conn));
}

/* WRITABLE follows each BUSY. */
static void foreign_ready(struct conn *conn, enum door_ready what)
{
	(void)what;
	ops_of(conn)
		->effect(door_state(conn),
			 &(struct sluice_listener_effect){.struct_size = sizeof(
								  struct sluice_listener_effect),
							  .kind = SLUICE_EFFECT_WRITABLE});
}

static void foreign_read_done(struct conn *conn, uint64_t corr, const struct read_result *result)
{
	door_answer(conn, corr, result->rc, result->reply, result->len, result->number);
}

const struct protocol_ops foreign_protocol = {
	.name = foreign_name,
	.accept = foreign_accept,
	.bytes = foreign_bytes,
	.ready = foreign_ready,
	.closed = foreign_closed,
	.reply = foreign_reply,
	.session = foreign_session,
	.read_done = foreign_read_done,
	.answer = foreign_answer,
	.effect = foreign_effect,
	.deliver_segment = foreign_deliver_segment,
	.subscription_end = foreign_subscription_end,
};
