/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers that show a commit: they are given behind the last effect of that commit and before the
 * first one of the next. So the event of a change precedes each reply that shows the change, and
 * what begins with a reply (a subscription, a wait) gets each later event. */
#include "broker/net/conn/answer.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/conn/internal.h"
#include "broker/net/conn/order.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/under_way.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/util/invariant.h"

uint64_t answer_number(const struct conn *conn, uint64_t number)
{
	const struct answer *last = conn->answers != NULL ? conn->answers->conn_prev : NULL;

	return last != NULL && last->number > number ? last->number : number;
}

bool answer_is_due(const struct conn *conn, uint64_t number)
{
	/* The others wait, or are just being given. */
	return conn->answers == NULL && number <= conn->io->released;
}

/* Behind those of its number. A later snapshot shows every earlier commit, so it is nearly always
 * the last one. */
static void list_in_order(struct io *io, struct answer *answer)
{
	struct answer *before = io->answers != NULL ? io->answers->prev : NULL;

	while (before != NULL && before->number > answer->number)
		before = before == io->answers ? NULL : before->prev;
	if (before == NULL)
		DL_PREPEND(io->answers, answer);
	else
		DL_APPEND_ELEM(io->answers, before, answer);
}

/* Its memory counts towards the bound of pending work of its connection. takes what->bytes. */
static void keep(struct conn *conn, const struct answer *what, uint64_t number)
{
	struct answer *answer = malloc(sizeof(*answer));

	if (answer == NULL) {
		free(what->bytes);
		conn_kill(conn, "no memory for an answer");
		return;
	}
	*answer = *what;
	answer->conn = conn;
	answer->number = answer_number(conn, number);
	answer->cost += sizeof(*answer);
	list_in_order(conn->io, answer);
	answer->security = under_way_add(conn->io);
	DL_APPEND2(conn->answers, answer, conn_prev, conn_next);
	conn->pending_count++;
	conn->pending_bytes += answer->cost;
}

void answer_when_released(struct conn *conn, uint64_t corr, int code, uint8_t *reply, size_t len,
			  uint64_t number)
{
	if (!answer_is_due(conn, number)) {
		keep(conn,
		     &(struct answer){.corr = corr,
				      .code = code,
				      .bytes = reply,
				      .len = len,
				      .cost = len},
		     number);
		return;
	}
	subs_end_of(conn);
	conn->protocol->answer(conn, corr, code, reply, len);
	free(reply);
}

void answer_wait(struct conn *conn, uint64_t tag, const struct job_waited *waited, uint64_t number)
{
	const size_t text_bytes = strlen(waited->text) + 1;
	uint8_t *bytes;

	if (answer_is_due(conn, number)) {
		subs_end_of(conn);
		conn->protocol->waited(conn, tag, waited);
		return;
	}
	bytes = malloc(waited->len + text_bytes);
	if (bytes == NULL) {
		conn_kill(conn, "no memory for an answer");
		return;
	}
	if (waited->len > 0)
		memcpy(bytes, waited->reply, waited->len);
	memcpy(bytes + waited->len, waited->text, text_bytes);
	keep(conn,
	     &(struct answer){.corr = tag,
			      .code = waited->code,
			      .bytes = bytes,
			      .len = waited->len,
			      .text = (const char *)bytes + waited->len,
			      .cost = waited->len + text_bytes},
	     number);
}

static void give(struct conn *conn, const struct answer *answer)
{
	if (answer->text == NULL)
		conn->protocol->answer(conn, answer->corr, answer->code, answer->bytes,
				       answer->len);
	else
		conn->protocol->waited(conn, answer->corr,
				       &(struct job_waited){.code = answer->code,
							    .text = answer->text,
							    .reply = answer->len > 0 ? answer->bytes
										     : NULL,
							    .len = answer->len});
}

static void answer_drop(struct answer *answer)
{
	struct conn *conn = answer->conn;

	invariant(conn->pending_count > 0 && conn->pending_bytes >= answer->cost,
		  "connection %llu has %llu answers or commands under way, of %llu bytes; one "
		  "takes %zu",
		  (unsigned long long)conn->id, (unsigned long long)conn->pending_count,
		  (unsigned long long)conn->pending_bytes, answer->cost);
	under_way_done(conn->io, answer->security);
	DL_DELETE(conn->io->answers, answer);
	DL_DELETE2(conn->answers, answer, conn_prev, conn_next);
	conn->pending_count--;
	conn->pending_bytes -= answer->cost;
}

void answers_flush(struct io *io)
{
	struct answer *answer;

	while ((answer = io->answers) != NULL && answer->number <= io->released) {
		struct conn *conn = answer->conn;

		answer_drop(answer);
		subs_end_of(conn);
		give(conn, answer);
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
