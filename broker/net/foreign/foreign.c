/* SPDX-License-Identifier: Apache-2.0
 *
 * The listeners of plugins: the host table of plugin.h over connections, and effects as struct
 * sluice_listener_effect. A plugin's requests become the same commands and subscriptions as those
 * of the native protocol.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "broker/net/conn/conn.h"
#include "broker/net/conn/conn_io.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/reading.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/protocols.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "sluice/plugin.h"

enum foreign_what { FOREIGN_ANSWER = 1, FOREIGN_SESSION, FOREIGN_REPLY };

static const struct sluice_listener_ops *ops_of(const struct conn *conn)
{
	return conn->listener;
}

static void give(struct conn *conn, struct sluice_listener_effect effect)
{
	effect.struct_size = sizeof(effect);
	if (effect.text == NULL)
		effect.text = "";
	if (conn->dead || conn->closing)
		return;
	conn->delivering = effect.kind == SLUICE_EFFECT_ITEM || effect.kind == SLUICE_EFFECT_EVENT;
	ops_of(conn)->effect(conn->state, &effect);
	conn->delivering = false;
}

/* A listener may continue after it has closed the connection: nothing begins any more. */
static bool is_ending(const struct conn *conn)
{
	return conn->dead || conn->closing;
}

/* ---- bytes ---- */

static int host_write(sluice_conn *handle, const void *bytes, size_t len)
{
	struct conn *conn = (struct conn *)handle;

	conn_write(conn, bytes, len);
	if (conn->dead)
		return SLUICE_E_CLOSED;
	return conn_is_full(conn) ? SLUICE_E_BUSY : 0;
}

static void host_close(sluice_conn *handle, const char *why)
{
	(void)why;
	conn_close_soon((struct conn *)handle, "its listener ended it");
}

/* ---- session ---- */

struct session_block {
	struct cmd_session_open open;
	char address[sizeof(((struct conn *)NULL)->address)];
};

static int host_session(sluice_conn *handle, const char *gateway, uint32_t timeout_ms, uint64_t tag)
{
	struct conn *conn = (struct conn *)handle;
	struct session_block *block;
	struct command command = {.type = COMMAND_SESSION_OPEN};
	struct store_txn *txn = NULL;
	uint64_t sequence;
	uint32_t number = 0;
	int rc;

	if (is_ending(conn))
		return SLUICE_E_CLOSED;
	rc = engine_read_begin(conn->io->engine, &txn, &sequence);
	if (rc == 0)
		rc = core_gateway_find(txn, (struct sluice_slice){gateway, strlen(gateway)},
				       &number);
	store_abort(txn);
	if (rc != 0)
		return rc;
	block = calloc(1, sizeof(*block));
	if (block == NULL)
		return SLUICE_E_NOMEM;
	if (getrandom(block->open.secret, sizeof(block->open.secret), 0) !=
	    (ssize_t)sizeof(block->open.secret)) {
		free(block);
		return SLUICE_E_INTERNAL;
	}
	if (timeout_ms < LIMIT_SESSION_TIMEOUT_MS_MIN)
		timeout_ms = (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MIN;
	if (timeout_ms > LIMIT_SESSION_TIMEOUT_MS_MAX)
		timeout_ms = (uint32_t)LIMIT_SESSION_TIMEOUT_MS_MAX;
	block->open.timeout_ms = timeout_ms;
	block->open.face = SESSION_FACE_PLUGIN;
	memcpy(block->address, conn->address, sizeof(block->address));
	block->open.address = (struct sluice_slice){block->address, strlen(block->address)};
	conn->gateway = number;
	conn->session_timeout_ms = timeout_ms;
	conn_life_set(conn);
	command.body = &block->open;
	return conn_submit(conn, &command, block, sizeof(*block), true, FOREIGN_SESSION, tag);
}

/* ---- publish ---- */

struct publish_block {
	struct frame_publish publish;
	uint8_t bytes[];
};

static int host_publish(sluice_conn *handle, uint64_t tag, struct sluice_slice subject,
			struct sluice_slice queue, struct sluice_slice body)
{
	struct conn *conn = (struct conn *)handle;
	struct envelope envelope = {.body = body};
	struct publish_block *block;
	struct command command = {.type = COMMAND_PUBLISH};
	const char *why = "";
	size_t bytes;
	int rc = subject_check(subject, &why);

	if (is_ending(conn))
		return SLUICE_E_CLOSED;
	if (conn->gateway == 0)
		return SLUICE_E_WRONG_STATE;
	if (rc == 0 && queue.len > 0)
		rc = name_check(queue, &why);
	if (rc == 0 && body.len > LIMIT_EVENT_BODY_BYTES_MAX)
		rc = SLUICE_E_LIMIT;
	if (rc != 0)
		return rc;
	bytes = sizeof(*block) + subject.len + queue.len + envelope_size_max(&envelope);
	block = calloc(1, bytes);
	if (block == NULL)
		return SLUICE_E_NOMEM;
	memcpy(block->bytes, subject.data, subject.len);
	if (queue.len > 0)
		memcpy(block->bytes + subject.len, queue.data, queue.len);
	block->publish.target_kind = queue.len > 0 ? PUBLISH_TO_QUEUE : PUBLISH_TO_SUBJECT;
	block->publish.count = 1;
	block->publish.subject = (struct sluice_slice){block->bytes, subject.len};
	block->publish.target = (struct sluice_slice){block->bytes + subject.len, queue.len};
	block->publish.payload.data = block->bytes + subject.len + queue.len;
	block->publish.payload.len =
		envelope_encode(block->bytes + subject.len + queue.len, &envelope);
	block->publish.raw_bytes = (uint32_t)block->publish.payload.len;
	command.body = &block->publish;
	return conn_submit(conn, &command, block, bytes, false, FOREIGN_ANSWER, tag);
}

/* ---- consume, credit, ack ---- */

static int host_consume(sluice_conn *handle, uint64_t tag, struct sluice_slice queue,
			uint32_t credit, uint32_t lease_ms)
{
	struct conn *conn = (struct conn *)handle;
	struct consumer_spec spec = {.gateway = conn->gateway,
				     .session = conn->session,
				     .lease_ms = lease_ms,
				     .credit = credit,
				     .sink = &conn->io->sink};
	struct store_txn *txn = NULL;
	struct queue_ref ref = {0};
	struct sub *sub;
	uint64_t sequence;
	int rc;

	if (is_ending(conn))
		return SLUICE_E_CLOSED;
	if (!conn->attached)
		return SLUICE_E_WRONG_STATE;
	if (credit > LIMIT_CREDIT_MAX ||
	    (lease_ms != 0 && (lease_ms < LIMIT_LEASE_MS_MIN || lease_ms > LIMIT_LEASE_MS_MAX)))
		return SLUICE_E_LIMIT;
	if (sub_find(conn, tag) != NULL)
		return SLUICE_E_EXISTS;
	rc = engine_read_begin(conn->io->engine, &txn, &sequence);
	if (rc == 0)
		rc = core_queue_find(txn, conn->gateway, queue, &ref);
	store_abort(txn);
	if (rc == 0 && ref.kind != SLUICE__QUEUE_KIND__QUEUE_ITEMS)
		rc = SLUICE_E_UNSUPPORTED; /* jobs are for the native protocol: their leases outlive
					      connections */
	if (rc != 0)
		return rc;
	sub = calloc(1, sizeof(*sub));
	if (sub == NULL)
		return SLUICE_E_NOMEM;
	sub->kind = SUB_CONSUME;
	spec.queue = ref.id;
	sub->key = (struct sub_key){conn->gateway, ref.id};
	rc = sub_add(conn, &sub, tag);
	if (rc != 0)
		return rc;
	return sub_consume(sub_find(conn, tag), &spec);
}

static int host_credit(sluice_conn *handle, uint64_t consumer_tag, uint32_t more)
{
	struct conn *conn = (struct conn *)handle;
	struct sub *sub = sub_find(conn, consumer_tag);

	if (sub == NULL)
		return SLUICE_E_NOT_FOUND;
	if (sub->kind == SUB_CONSUME)
		return engine_consumer_credit(conn->io->engine, &conn->io->sink, sub->tag, more);
	if (more > LIMIT_CREDIT_MAX || sub->credit > LIMIT_CREDIT_MAX - more)
		return SLUICE_E_LIMIT;
	sub->credit += more;
	sub_wants_pump(sub);
	return 0;
}

struct ack_block {
	struct cmd_ack ack;
	uint8_t run[FRAME_RUN_BYTES];
};

static int host_ack(sluice_conn *handle, uint64_t tag, uint64_t consumer_tag, sluice_token token,
		    uint64_t seq, bool done)
{
	struct conn *conn = (struct conn *)handle;
	struct sub *sub = sub_find(conn, consumer_tag);
	struct command command = {.type = COMMAND_ACK};
	struct ack_block *block;

	if (is_ending(conn))
		return SLUICE_E_CLOSED;
	if (sub == NULL || sub->kind != SUB_CONSUME)
		return SLUICE_E_NOT_FOUND;
	block = calloc(1, sizeof(*block));
	if (block == NULL)
		return SLUICE_E_NOMEM;
	for (int i = 0; i < 8; i++)
		block->run[i] = (uint8_t)(seq >> (56 - 8 * i));
	block->run[11] = 1;
	block->ack = (struct cmd_ack){.queue = sub->key.id,
				      .token = token,
				      .op = done ? ACK_DONE : ACK_NACK,
				      .run_count = 1,
				      .runs = block->run};
	block->ack.reason = (struct sluice_slice){"", 0};
	command.body = &block->ack;
	return conn_submit(conn, &command, block, sizeof(*block), true, FOREIGN_ANSWER, tag);
}

/* ---- follow, request ---- */

static int host_follow(sluice_conn *handle, uint64_t tag, struct sluice_slice stream,
		       uint64_t offset, uint32_t credit)
{
	struct conn *conn = (struct conn *)handle;
	struct store_txn *txn = NULL;
	struct stream_ref ref = {0};
	struct sub *sub;
	uint64_t sequence;
	int rc;

	if (is_ending(conn))
		return SLUICE_E_CLOSED;
	if (conn->gateway == 0)
		return SLUICE_E_WRONG_STATE;
	if (credit > LIMIT_CREDIT_MAX)
		return SLUICE_E_LIMIT;
	if (sub_find(conn, tag) != NULL)
		return SLUICE_E_EXISTS;
	rc = engine_read_begin(conn->io->engine, &txn, &sequence);
	if (rc == 0)
		rc = core_stream_find(txn, conn->gateway, stream, &ref);
	store_abort(txn);
	if (rc != 0)
		return rc;
	sub = calloc(1, sizeof(*sub));
	if (sub == NULL)
		return SLUICE_E_NOMEM;
	sub->kind = SUB_FOLLOW;
	sub->key = (struct sub_key){conn->gateway, ref.id};
	sub->log = ref.log;
	sub->next = offset;
	sub->credit = credit;
	rc = sub_add(conn, &sub, tag);
	if (rc == 0)
		sub_wants_pump(sub_find(conn, tag));
	return rc;
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

	if (is_ending(conn))
		return SLUICE_E_CLOSED;
	if (conn->pending_count >= LIMIT_INFLIGHT_REQUESTS_MAX)
		return SLUICE_E_BUSY;
	rc = message_unpack_block(&sluice__request__descriptor, bytes, LIMIT_COMMAND_BYTES_MAX,
				  &block, &message, &why);
	if (rc != 0)
		return rc;
	if (!core_request_is_query((const Sluice__Request *)message)) {
		message_block_free(block);
		return SLUICE_E_UNSUPPORTED;
	}
	return reading_start(conn, tag, &block, (const Sluice__Request *)message, bytes.len);
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

static void foreign_reply(struct conn *conn, uint32_t what, uint64_t corr,
			  const struct outcome *outcome)
{
	int code = outcome->code;

	if (what == FOREIGN_SESSION && code == 0)
		code = conn_attach(conn, conn->gateway, outcome->id, conn->session_timeout_ms);
	give(conn, (struct sluice_listener_effect){.kind = SLUICE_EFFECT_ANSWER,
						   .tag = corr,
						   .code = code,
						   .text = outcome->text,
						   .offset = outcome->offset});
	conn_parse(conn);
}

static void give_items(struct conn *conn, const struct sub *sub, const struct effect *effect)
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
							     .tag = sub->number,
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
	give(sub->conn, (struct sluice_listener_effect){.kind = SLUICE_EFFECT_ANSWER,
							.tag = sub->number,
							.code = code,
							.text = text});
}

static void foreign_effect(struct conn *conn, struct sub *sub, const struct effect *effect)
{
	switch (effect->kind) {
	case FX_GRANT:
		give_items(conn, sub, effect);
		subs_pause_if_full(conn);
		return;
	case FX_ITEM_DAMAGED:
		give(conn, (struct sluice_listener_effect){.kind = SLUICE_EFFECT_DAMAGED,
							   .tag = sub->number,
							   .code = SLUICE_E_CORRUPT,
							   .seq = effect->seq,
							   .text = effect->name.data});
		return;
	case FX_SESSION_ENDED:
		conn_close_soon(conn, "its session has ended");
		return;
	case FX_STREAM_DELETED:
	case FX_QUEUE_DELETED:
		foreign_subscription_end(sub, SLUICE_E_NOT_FOUND, "it was deleted");
		sub_drop(sub);
		return;
	case FX_REPLY:
		if (effect->outcome->code != SLUICE_E_CORRUPT)
			return; /* of a CLAIM: the engine's own */
		foreign_subscription_end(sub, SLUICE_E_CORRUPT, effect->outcome->text);
		sub_drop(sub);
		return;
	default:
		return;
	}
}

static int foreign_deliver_segment(struct sub *sub, const struct segment *segment,
				   uint64_t *io_budget)
{
	struct sluice_slice raw = segment->payload;
	uint8_t *plain = NULL;
	const char *why = "";
	int rc = 0;

	*io_budget -= *io_budget < segment->raw_bytes + SEGMENT_READ_COST
			      ? *io_budget
			      : segment->raw_bytes + SEGMENT_READ_COST;
	if (segment->codec != BATCH_RAW) {
		rc = batch_decompress(segment->payload, segment->raw_bytes, &plain, &why);
		raw = (struct sluice_slice){plain, segment->raw_bytes};
	}
	for (uint32_t i = 0; rc == 0 && i < segment->count && sub->credit > 0; i++) {
		uint64_t offset = segment->base + i;
		struct envelope envelope;

		rc = envelope_next(&raw, &envelope, &why);
		if (rc != 0 || offset < sub->next)
			continue;
		sub->next = offset + 1;
		sub->credit--;
		give(sub->conn,
		     (struct sluice_listener_effect){.kind = SLUICE_EFFECT_EVENT,
						     .tag = sub->number,
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
	return ops_of(conn)->accept(&foreign_host, (sluice_conn *)conn, &conn->state);
}

static long foreign_bytes(struct conn *conn, const void *bytes, size_t len)
{
	return ops_of(conn)->bytes(conn->state, bytes, len);
}

static void foreign_closed(struct conn *conn)
{
	ops_of(conn)->closed(conn->state);
}

static void foreign_writable(struct conn *conn)
{
	ops_of(conn)
		->effect(conn->state,
			 &(struct sluice_listener_effect){.struct_size = sizeof(
								  struct sluice_listener_effect),
							  .kind = SLUICE_EFFECT_WRITABLE});
}

static void foreign_read_done(struct conn *conn, uint64_t corr, const struct read_result *result)
{
	foreign_answer(conn, corr, result->rc, result->reply, result->len);
	free(result->reply);
}

const struct protocol_ops foreign_protocol = {
	.name = foreign_name,
	.accept = foreign_accept,
	.bytes = foreign_bytes,
	.writable = foreign_writable,
	.closed = foreign_closed,
	.reply = foreign_reply,
	.read_done = foreign_read_done,
	.effect = foreign_effect,
	.deliver_segment = foreign_deliver_segment,
	.subscription_end = foreign_subscription_end,
};
