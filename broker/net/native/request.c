/* SPDX-License-Identifier: Apache-2.0
 *
 * REQUEST frames: commands go to the engine, reads are answered from a snapshot on this thread. A
 * connection reads its own writes: a read waits until every earlier command of its connection is
 * answered, and its reply until the effects of all commits in the snapshot have reached it.
 */
#include "broker/net/native/native.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/conn/conn.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/reading.h"
#include "broker/net/conn/state.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"
#include "protocol/message.h"

/* ---- requests that are commands ---- */

/* The command of a request, from the command table: each of its protobuf rows is a request. */
static bool command_of(Sluice__Request__OpCase op, uint16_t *ret_type)
{
	switch (op) {
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

/* True: the lane of publishes, for commands that grow the store like them or have to follow them.
 * All others go ahead of publishes. */
static bool is_data(uint16_t type)
{
	return type == COMMAND_JOB_SUBMIT || type == COMMAND_TXN || type == COMMAND_PRODUCER_CLOSE;
}

/* ---- reads and subscriptions: now, or when the commands before them are answered ---- */

/* takes block, which holds request. */
static void run_read(struct conn *conn, uint32_t corr, const Sluice__Request *request,
		     struct message_block **block, size_t bytes)
{
	switch (request->op_case) {
	case SLUICE__REQUEST__OP_FOLLOW_OPEN:
		native_follow_open(conn, corr, request->follow_open);
		break;
	case SLUICE__REQUEST__OP_CONSUME_OPEN:
		native_consume_open(conn, corr, request->consume_open);
		break;
	case SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE:
		native_subscription_close(conn, corr, request->subscription_close);
		break;
	default:
		if (reading_start(conn, corr, block, request, bytes) != 0)
			native_refuse(conn, corr, SLUICE_E_BUSY,
				      "the broker is out of memory; try again");
		return;
	}
	message_block_free(*block);
	*block = NULL;
}

static void run_deferred(struct conn *conn, const struct deferred_read *read)
{
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	const char *why = "";
	int rc = message_unpack_block(&sluice__request__descriptor,
				      (struct sluice_slice){read->bytes, read->len},
				      LIMIT_COMMAND_BYTES_MAX, &block, &message, &why);

	/* Cannot fail: it was unpacked before. */
	if (rc != 0)
		native_refuse(conn, read->corr, SLUICE_E_BUSY,
			      "the broker is out of memory; try again");
	else
		run_read(conn, read->corr, (const Sluice__Request *)message, &block, read->len);
}

void native_reads_due(struct conn *conn)
{
	struct deferred_read *read;

	while ((read = conn->reads) != NULL) {
		if (conn->dead ||
		    (conn->pendings != NULL && conn->pendings->ordinal <= read->ordinal))
			return;
		/* The others run when the client has read. */
		if (conn_is_full(conn))
			return;
		invariant(conn->pending_count > 0 && conn->pending_bytes >= read->len,
			  "connection %llu: %llu reads or commands under way, of %llu bytes; one "
			  "takes %zu",
			  ULL(conn->id), ULL(conn->pending_count), ULL(conn->pending_bytes),
			  read->len);
		DL_DELETE(conn->reads, read);
		conn->pending_count--;
		conn->pending_bytes -= read->len;
		run_deferred(conn, read);
		free(read->bytes);
		free(read);
	}
}

static int defer_read(struct conn *conn, uint32_t corr, struct sluice_slice body)
{
	struct deferred_read *read = calloc(1, sizeof(*read));

	if (read == NULL || (read->bytes = malloc(body.len + 1)) == NULL) {
		free(read);
		native_refuse(conn, corr, SLUICE_E_BUSY, "the broker is out of memory; try again");
		return 0;
	}
	memcpy(read->bytes, body.data, body.len);
	read->len = body.len;
	read->corr = corr;
	read->ordinal = conn->ordinal;
	DL_APPEND(conn->reads, read);
	conn->pending_count++;
	conn->pending_bytes += read->len;
	return 0;
}

int native_request(struct conn *conn, uint32_t corr, struct sluice_slice body)
{
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	const Sluice__Request *request;
	uint16_t type;
	const char *why = "";
	int rc;

	if (corr == 0)
		return (int)native_fail(conn, SLUICE_E_PROTOCOL,
					"a REQUEST with correlation 0; expected another number, "
					"for its reply");
	rc = message_unpack_block(&sluice__request__descriptor, body, LIMIT_COMMAND_BYTES_MAX,
				  &block, &message, &why);
	if (rc != 0) {
		native_refuse(conn, corr, rc, "REQUEST: %s", why);
		return 0;
	}
	request = (const Sluice__Request *)message;
	if (request->op_case == SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE)
		native_close_at_once(conn, request->subscription_close);
	if (!command_of(request->op_case, &type)) {
		if (request->op_case == SLUICE__REQUEST__OP__NOT_SET)
			native_refuse(conn, corr, SLUICE_E_UNKNOWN_TYPE,
				      "the request has no operation that this broker knows");
		else if (conn->pendings != NULL || conn->reads != NULL)
			rc = defer_read(conn, corr, body);
		else
			run_read(conn, corr, request, &block, body.len);
		message_block_free(block);
		return rc;
	}
	/* The operation goes with the command; all members of the oneof are message pointers. */
	rc = conn_submit_message(conn, type, &request->job_submit->base, &block, body.len,
				 !is_data(type),
				 type == COMMAND_SESSION_CLOSE ? NATIVE_GOODBYE : NATIVE_REPLY,
				 corr);
	if (rc == SLUICE_E_BUSY)
		return 1;
	if (rc != 0)
		native_refuse(conn, corr, rc, "%s", sluice_error_text(rc));
	return 0;
}
