/* SPDX-License-Identifier: Apache-2.0
 *
 * REQUEST frames: commands go to the engine, reads are answered from a snapshot on this thread. A
 * connection reads its own writes: a read waits until every earlier command of its connection is
 * answered, and its reply until the effects of all commits in the snapshot have reached it.
 */
#include "broker/net/native/native.h"

#include <string.h>

#include "protocol/limits.h"
#include "protocol/message.h"

/* Sections 11 and 12 of SPEC.md. */
static bool is_topology(uint16_t type)
{
	switch (type) {
	case COMMAND_GATEWAY_CREATE:
	case COMMAND_STREAM_CREATE:
	case COMMAND_STREAM_ALTER:
	case COMMAND_STREAM_DELETE:
	case COMMAND_QUEUE_CREATE:
	case COMMAND_QUEUE_ALTER:
	case COMMAND_QUEUE_DELETE:
	case COMMAND_QUEUE_PURGE:
	case COMMAND_ROUTER_CREATE:
	case COMMAND_ROUTER_ALTER:
	case COMMAND_ROUTER_DELETE:
	case COMMAND_ROUTER_BIND:
	case COMMAND_ROUTER_UNBIND:
	case COMMAND_LIFECYCLE_CREATE:
	case COMMAND_LIFECYCLE_ALTER:
	case COMMAND_LIFECYCLE_DELETE:
		return true;
	default:
		return false;
	}
}

/* True: the lane of publishes, for commands that grow the store like them or have to follow them,
 * and for those that the client wants there. All others go ahead of publishes. */
static bool is_data(const struct native *native, uint16_t type)
{
	return type == COMMAND_JOB_SUBMIT || type == COMMAND_TXN ||
	       type == COMMAND_PRODUCER_CLOSE || (native->topology_data && is_topology(type));
}

static int job_wait(struct conn *conn, uint32_t corr, const Sluice__JobWait *m)
{
	return door_job_wait(conn, corr, (struct sluice_slice){m->job, strlen(m->job)}, m->number,
			     m->timeout_ms);
}

void native_in_order(struct conn *conn, uint64_t tag, int rc, const Sluice__Request *request,
		     struct message_block **block, size_t bytes)
{
	const uint32_t corr = (uint32_t)tag;

	if (rc != 0) {
		native_refuse_shown(conn, corr, 0, rc, "%s", sluice_error_text(rc));
		return;
	}
	switch (request->op_case) {
	case SLUICE__REQUEST__OP_FOLLOW_OPEN:
		native_follow_open(conn, corr, request->follow_open);
		return;
	case SLUICE__REQUEST__OP_CONSUME_OPEN:
		native_consume_open(conn, corr, request->consume_open);
		return;
	case SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE:
		native_subscription_close(conn, tag, request->subscription_close);
		return;
	case SLUICE__REQUEST__OP_JOB_WAIT:
		rc = job_wait(conn, corr, request->job_wait);
		if (rc == SLUICE_E_CLOSED)
			return; /* it came before GOODBYE, after which nothing is answered */
		break;
	default:
		rc = door_read(conn, corr, block, request, bytes);
		break;
	}
	if (rc != 0)
		native_refuse_shown(conn, corr, 0, rc, "%s", sluice_error_text(rc));
}

int native_request(struct conn *conn, uint32_t corr, struct sluice_slice body)
{
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	const Sluice__Request *request;
	struct command command = {0};
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
	if (!door_request_command(request, &type)) {
		const bool closed = request->op_case == SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE &&
				    native_close_at_once(conn, request->subscription_close);

		if (request->op_case == SLUICE__REQUEST__OP__NOT_SET) {
			native_refuse(conn, corr, SLUICE_E_UNKNOWN_TYPE,
				      "the request has no operation that this broker knows");
			message_block_free(block);
			return 0;
		}
		rc = door_in_order(conn, native_tag(closed ? NATIVE_CLOSED : NATIVE_REPLY, corr),
				   body, request, &block);
		if (rc != 0)
			native_refuse_shown(conn, corr, 0, rc, "%s", sluice_error_text(rc));
		return 0;
	}
	command.type = type;
	/* The operation goes with the command; all members of the oneof are message pointers. */
	command.message = &request->job_submit->base;
	rc = door_submit(conn, native_tag(NATIVE_REPLY, corr), &command,
			 (struct door_block){.message = block}, body.len,
			 is_data(door_state(conn), type) ? DOOR_DATA : DOOR_CONTROL, 0);
	if (rc == SLUICE_E_BUSY)
		return 1;
	if (rc != 0)
		native_refuse(conn, corr, rc, "%s", sluice_error_text(rc));
	return 0;
}
