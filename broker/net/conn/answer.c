/* SPDX-License-Identifier: Apache-2.0
 * Answers that wait for a release: the reply of a read is passed to the protocol when the effects
 * of all commits in its snapshot have reached the connection. */
#include "broker/net/conn/answer.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/net/conn/internal.h"
#include "broker/net/conn/order.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/state.h"
#include "broker/util/invariant.h"

/* Memory until it is sent, counted towards the bound of pending work of its connection. */
static size_t answer_cost(const struct answer *answer)
{
	return sizeof(*answer) + answer->len;
}

void answer_when_released(struct conn *conn, uint32_t corr, uint8_t *reply, size_t len,
			  uint64_t sequence)
{
	struct answer *answer;

	if (sequence <= conn->io->released) {
		conn->protocol->answer(conn, corr, reply, len);
		free(reply);
		return;
	}
	answer = calloc(1, sizeof(*answer));
	if (answer == NULL) {
		free(reply);
		conn_kill(conn, "no memory for an answer");
		return;
	}
	*answer = (struct answer){.sequence = sequence,
				  .conn = conn,
				  .corr = corr,
				  .bytes = reply,
				  .len = len};
	invariant(conn->io->answers == NULL || conn->io->answers->prev->sequence <= sequence,
		  "an answer for release %llu comes behind one for %llu",
		  (unsigned long long)sequence,
		  (unsigned long long)conn->io->answers->prev->sequence);
	DL_APPEND(conn->io->answers, answer);
	DL_APPEND2(conn->answers, answer, conn_prev, conn_next);
	conn->pending_count++;
	conn->pending_bytes += answer_cost(answer);
}

static void answer_drop(struct answer *answer)
{
	struct conn *conn = answer->conn;

	invariant(conn->pending_count > 0 && conn->pending_bytes >= answer_cost(answer),
		  "connection %llu has %llu answers or commands under way, of %llu bytes; one "
		  "takes %zu",
		  (unsigned long long)conn->id, (unsigned long long)conn->pending_count,
		  (unsigned long long)conn->pending_bytes, answer_cost(answer));
	DL_DELETE(conn->io->answers, answer);
	DL_DELETE2(conn->answers, answer, conn_prev, conn_next);
	conn->pending_count--;
	conn->pending_bytes -= answer_cost(answer);
}

void answers_flush(struct io *io)
{
	struct answer *answer;

	/* In order: a later snapshot includes every earlier commit. */
	while ((answer = io->answers) != NULL && answer->sequence <= io->released) {
		struct conn *conn = answer->conn;

		answer_drop(answer);
		conn->protocol->answer(conn, answer->corr, answer->bytes, answer->len);
		free(answer->bytes);
		free(answer);
		order_due(conn);
	}
}

void answers_drop(struct conn *conn)
{
	while (conn->answers != NULL) {
		struct answer *answer = conn->answers;

		answer_drop(answer);
		free(answer->bytes);
		free(answer);
	}
}
