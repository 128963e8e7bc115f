/* SPDX-License-Identifier: Apache-2.0
 * The calls of a protocol: what belongs to the connection itself, commands, reads. door_sub.c has
 * subscriptions, door_session.c gateways and sessions. */
#include "broker/net/conn/door.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/answer.h"
#include "broker/net/conn/conn.h"
#include "broker/net/conn/conn_io.h"
#include "broker/net/conn/output.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/order.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/reading.h"
#include "broker/net/conn/sessions.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

/* ---- the connection ---- */

void *door_state(const struct conn *conn)
{
	return conn->state;
}

void door_state_set(struct conn *conn, void *state)
{
	conn->state = state;
}

const void *door_listener(const struct conn *conn)
{
	return conn->listener;
}

bool door_is_ending(const struct conn *conn)
{
	return conn->dead || conn->closing;
}

bool door_is_dead(const struct conn *conn)
{
	return conn->dead;
}

void door_facts(const struct conn *conn, struct door_facts *ret)
{
	*ret = (struct door_facts){.thread = (uint64_t)(conn->io - conn->io->net->ios),
				   .id = conn->id,
				   .gateway = conn->gateway,
				   .session = conn_session(conn),
				   .session_timeout_ms =
					   conn->own != NULL ? conn->own->timeout_ms : 0,
				   .zstd = conn->io->net->config.zstd};
}

const char *door_peer(const struct conn *conn, char text[DOOR_PEER_BYTES])
{
	static_assert((int)DOOR_PEER_BYTES == (int)PEER_TEXT_BYTES, "conn_peer fills it");
	return conn_peer(conn->fd, text);
}

uint64_t door_wall_ms(const struct conn *conn)
{
	return engine_clock(conn->io->engine).wall_ms;
}

uint64_t door_index(const struct conn *conn)
{
	struct store_txn *txn = NULL;
	uint64_t number, index = 0;

	if (engine_read_begin(conn->io->engine, &txn, &number) != 0)
		return 0;
	if (core_index_read(txn, conn->gateway, &index) != 0)
		index = 0;
	store_abort(txn);
	return index;
}

/* ---- output and input ---- */

int door_write(struct conn *conn, const struct sluice_slice *parts, size_t count)
{
	conn_write_parts(conn, parts, count);
	if (conn->dead)
		return SLUICE_E_CLOSED;
	if (!conn_is_full(conn))
		return 0;
	conn->waits_output = true;
	return SLUICE_E_BUSY;
}

bool door_is_full(const struct conn *conn)
{
	return conn_is_full(conn);
}

void door_close(struct conn *conn, const char *why)
{
	conn_close_soon(conn, why);
}

void door_abort(struct conn *conn, const char *why)
{
	conn_kill(conn, why);
}

void door_idle(struct conn *conn, uint32_t silence_ms)
{
	conn->idle_set = true;
	conn->idle_ms = silence_ms;
	if (!conn->dead)
		conn_life_set(conn);
}

void door_timer(struct conn *conn, uint64_t at_mono_ms)
{
	if (!door_is_ending(conn))
		conn_timer(conn, at_mono_ms);
}

uint64_t door_mono_ms(void)
{
	return io_now_ms();
}

void door_want(struct conn *conn, size_t bytes)
{
	conn->wanted = bytes;
	if (bytes > conn_frame_max(conn))
		conn_kill(conn, "its protocol asks for more than a frame");
}

void door_hold(struct conn *conn, bool on)
{
	conn->held = on;
	if (!on)
		conn_parse(conn);
	else if (!conn->parsing)
		conn_flow(conn); /* it may have been stopped for another reason */
}

bool door_may_take(struct conn *conn)
{
	bool may = conn_may_take(conn);

	if (!may && !conn->parsing)
		conn_block(conn); /* so that it is told when to try again */
	return may;
}

/* ---- commands ---- */

/* Whether the connection may send commands and requests. */
static int ready(const struct conn *conn, uint64_t session)
{
	int rc = conn_may_begin(conn);

	if (rc == 0 && session != 0 && session_held(conn, session) == NULL)
		rc = SLUICE_E_DENIED;
	return rc;
}

static void block_free(struct door_block *block)
{
	free(block->plain);
	message_block_free(block->message);
	*block = (struct door_block){0};
}

int door_submit(struct conn *conn, uint64_t tag, const struct command *command,
		struct door_block block, size_t bytes, enum door_lane lane, unsigned flags)
{
	const struct command_spec *spec = command_spec(command->type);
	int rc;

	invariant(command->type != COMMAND_PUBLISH, "a PUBLISH that door_publish has not checked");
	rc = ready(conn, command->session);
	if (rc == 0 && (spec == NULL || strcmp(spec->permission, "internal") == 0))
		rc = SLUICE_E_UNKNOWN_TYPE; /* or the broker's own */
	if (rc == 0)
		rc = admit_command(conn, command);
	if (rc != 0) {
		block_free(&block);
		return rc;
	}
	return conn_submit(conn, command, block, bytes, lane == DOOR_CONTROL, tag,
			   (flags & DOOR_QUIET) != 0);
}

/* Checks everything that core relies on, on the I/O thread; a batch whose events have their own
 * subjects is decompressed here too, since core splits it. */
static int publish_prepare(const struct frame_publish *publish, uint8_t **ret_raw,
			   const char **ret_why)
{
	struct sluice_slice raw = publish->payload;
	int rc = frame_publish_check(publish, ret_why);

	*ret_raw = NULL;
	if (rc == 0 && publish->subject.len > 0)
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

/* A copy in one piece of memory, with the payload or without. */
static struct publish_block *publish_copy(const struct frame_publish *publish, bool payload)
{
	struct publish_block *block =
		malloc(sizeof(*block) + publish->subject.len + publish->target.len +
		       (payload ? publish->payload.len : 0));
	uint8_t *at;

	if (block == NULL)
		return NULL;
	at = block->bytes;
	block->publish = *publish;
	block->publish.subject = block_put(&at, publish->subject);
	block->publish.target = block_put(&at, publish->target);
	if (payload)
		block->publish.payload = block_put(&at, publish->payload);
	return block;
}

int door_publish(struct conn *conn, uint64_t tag, uint64_t session,
		 const struct frame_publish *publish, struct door_buf *buf, const char **ret_why)
{
	struct frame_publish plain = *publish;
	struct command command = {.type = COMMAND_PUBLISH, .session = session};
	struct door_block block = {.buf = buf, .buf_bytes = publish->payload.len};
	struct publish_block *copy;
	uint8_t *raw = NULL;
	int rc = ready(conn, session);

	*ret_why = "";
	if (rc != 0)
		return rc;
	rc = publish_prepare(publish, &raw, ret_why);
	if (rc != 0) {
		free(raw);
		return rc;
	}
	if (raw != NULL && publish->subject.len == 0) {
		/* core splits the batch: it is given what was decompressed */
		plain.payload = (struct sluice_slice){raw, publish->raw_bytes};
		plain.codec = BATCH_RAW;
		block.buf = NULL;
	}
	if (block.buf == NULL)
		block.buf_bytes = 0;
	copy = publish_copy(&plain, block.buf == NULL);
	free(raw);
	if (copy == NULL)
		return SLUICE_E_NOMEM;
	command.body = &copy->publish;
	rc = admit_command(conn, &command);
	if (rc != 0) {
		free(copy);
		return rc;
	}
	block.plain = copy;
	return conn_submit(conn, &command, block, sizeof(*copy) + plain.payload.len, false, tag,
			   false);
}

struct ack_block {
	struct cmd_ack ack;
	uint8_t bytes[];
};

int door_ack(struct conn *conn, uint64_t tag, uint64_t number, const struct cmd_ack *ack,
	     unsigned flags)
{
	const struct sub *sub = sub_find_settling(conn, number);
	const size_t run_bytes = (size_t)ack->run_count * FRAME_RUN_BYTES;
	struct command command = {.type = COMMAND_ACK};
	struct ack_block *block;
	const char *why;
	uint8_t *at;
	int rc = ready(conn, 0);

	if (rc == 0)
		rc = frame_ack_check(ack->op, ack->run_count, ack->reason, &why);
	if (rc != 0)
		return rc;
	if (sub == NULL || sub->kind != DOOR_CONSUME)
		return SLUICE_E_NOT_FOUND;
	block = malloc(sizeof(*block) + run_bytes + ack->reason.len);
	if (block == NULL)
		return SLUICE_E_NOMEM;
	command.session = session_held(conn, sub->session) != NULL ? sub->session : 0;
	block->ack = *ack;
	block->ack.queue = sub->key.id;
	at = block->bytes;
	block->ack.runs = block_put(&at, (struct sluice_slice){ack->runs, run_bytes}).data;
	block->ack.reason = block_put(&at, ack->reason);
	command.body = &block->ack;
	rc = admit_command(conn, &command);
	if (rc != 0) {
		free(block);
		return rc;
	}
	return conn_submit(conn, &command, (struct door_block){.plain = block},
			   sizeof(*block) + run_bytes + ack->reason.len, true, tag,
			   (flags & DOOR_QUIET) != 0);
}

/* From the command table: each of its protobuf rows is a request. */
bool door_request_command(const Sluice__Request *request, uint16_t *ret_type)
{
	switch (request->op_case) {
#define PB(NAME, number, Message, message, permission, headroom, handler, text) \
	case SLUICE__REQUEST__OP_##NAME:                                        \
		*ret_type = COMMAND_##NAME;                                     \
		return true;
#define BIN(NAME, number, body_struct, permission, headroom, handler, text)
#include "broker/core/commands.def"
#undef PB
#undef BIN
	default:
		return false;
	}
}

/* ---- reads and answers ---- */

bool door_answer_is_due(const struct conn *conn, uint64_t number)
{
	return answer_is_due(conn, number);
}

void door_answer(struct conn *conn, uint64_t tag, int code, uint8_t *reply, size_t len,
		 uint64_t number)
{
	answer_when_released(conn, tag, code, reply, len, number);
}

int door_in_order(struct conn *conn, uint64_t tag, struct sluice_slice body,
		  const Sluice__Request *request, struct message_block **block)
{
	int rc = ready(conn, 0);

	if (rc == 0)
		return order_request(conn, tag, body, request, block);
	message_block_free(*block);
	*block = NULL;
	return rc;
}

int door_read(struct conn *conn, uint64_t tag, struct message_block **block,
	      const Sluice__Request *request, size_t bytes)
{
	int rc = conn->gateway == 0 ? SLUICE_E_WRONG_STATE : 0;

	if (rc == 0 && request->op_case == SLUICE__REQUEST__OP_JOB_WAIT)
		rc = SLUICE_E_UNSUPPORTED;
	if (rc == 0)
		rc = admit_read(conn, request);
	if (rc == 0)
		return reading_start(conn, tag, block, request, bytes);
	message_block_free(*block);
	*block = NULL;
	return rc;
}

int door_job_wait(struct conn *conn, uint64_t tag, struct sluice_slice job, uint64_t number,
		  uint64_t timeout_ms)
{
	const struct wait_spec spec = {.job = job, .number = number, .timeout_ms = timeout_ms};
	int rc = ready(conn, 0);

	/* Its answer comes by a call of the table that this protocol does not have. */
	if (rc == 0 && conn->protocol->waited == NULL)
		rc = SLUICE_E_UNSUPPORTED;
	if (rc == 0)
		rc = admit(conn, "job.show", job, 0);
	return rc == 0 ? reading_wait(conn, tag, &spec) : rc;
}
