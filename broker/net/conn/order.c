/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of a connection's requests: one that is no command waits until every earlier command
 * of its connection is answered.
 */
#include "broker/net/conn/order.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/conn/conn.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/state.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"
#include "protocol/message.h"

struct deferred {
	struct deferred *prev, *next;
	uint64_t ordinal; /* of the last command before it */
	uint64_t tag;
	size_t len;
	uint8_t bytes[]; /* the packed Request: it takes less memory than an unpacked one */
};

static size_t cost_of(const struct deferred *deferred)
{
	return sizeof(*deferred) + deferred->len;
}

static void unlist(struct conn *conn, struct deferred *deferred)
{
	DL_DELETE(conn->deferred, deferred);
	conn_request_sub(conn, cost_of(deferred));
}

static void run(struct conn *conn, const struct deferred *deferred)
{
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	const char *why = "";
	int rc = message_unpack_block(&sluice__request__descriptor,
				      (struct sluice_slice){deferred->bytes, deferred->len},
				      LIMIT_COMMAND_BYTES_MAX, &block, &message, &why);

	/* It was unpacked before: only memory can be missing. */
	conn->protocol->request(conn, deferred->tag, rc != 0 ? SLUICE_E_NOMEM : 0,
				(const Sluice__Request *)message, &block, deferred->len);
	message_block_free(block);
}

int order_request(struct conn *conn, uint64_t tag, struct sluice_slice body,
		  const Sluice__Request *request, struct message_block **block)
{
	struct deferred *deferred;

	if (conn->pendings == NULL && conn->deferred == NULL) {
		conn->protocol->request(conn, tag, 0, request, block, body.len);
		message_block_free(*block);
		*block = NULL;
		return 0;
	}
	message_block_free(*block);
	*block = NULL;
	deferred = malloc(sizeof(*deferred) + body.len);
	if (deferred == NULL)
		return SLUICE_E_NOMEM;
	*deferred = (struct deferred){.ordinal = conn->ordinal, .tag = tag, .len = body.len};
	memcpy(deferred->bytes, body.data, body.len);
	DL_APPEND(conn->deferred, deferred);
	conn_request_add(conn, cost_of(deferred));
	return 0;
}

void order_due(struct conn *conn)
{
	struct deferred *deferred;

	while ((deferred = conn->deferred) != NULL) {
		if (conn->dead ||
		    (conn->pendings != NULL && conn->pendings->ordinal <= deferred->ordinal))
			return;
		/* The others run when the client has read. */
		if (conn_is_full(conn))
			return;
		unlist(conn, deferred);
		run(conn, deferred);
		free(deferred);
	}
}

void order_drop(struct conn *conn)
{
	while (conn->deferred != NULL) {
		struct deferred *deferred = conn->deferred;

		unlist(conn, deferred);
		free(deferred);
	}
}
