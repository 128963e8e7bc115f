/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads: one request, one packed Reply, in one or more turns, each with a read transaction of its
 * own. Each module answers its own reads; this file has the table of them, and the status.
 *
 * A module that reaches the bound of a turn after a record notes in q->at where to continue, sets
 * q->again and returns 0; the rows so far stay in q->reply.
 */
#include <stdlib.h>

#include "broker/core/base/counter.h"
#include "broker/core/base/reply.h"
#include "broker/core/base/topo.h"
#include "broker/core/dispatch/dispatch.h"
#include "broker/core/job/job.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/queue.h"
#include "broker/core/router/router.h"
#include "broker/core/session/session.h"
#include "broker/core/stream/stream.h"
#include "broker/util/invariant.h"
#include "protocol/message.h"

typedef int (*query_fn)(struct query *q, const Sluice__Request *request);

/* No default: a request without a row in one of the tables is a compiler warning, and so an
 * error. */
static query_fn query_function(const Sluice__Request *request)
{
	switch (request->op_case) {
#define QUERY(NAME, answer, permission)  \
	case SLUICE__REQUEST__OP_##NAME: \
		return answer;
#include "broker/core/queries.def"
#undef QUERY
#define PB(NAME, number, Message, message, permission, headroom, handler, text) \
	case SLUICE__REQUEST__OP_##NAME:
#define BIN(NAME, number, body_struct, permission, headroom, handler, text)
#include "broker/core/commands.def"
#undef PB
#undef BIN
	case SLUICE__REQUEST__OP_FOLLOW_OPEN:
	case SLUICE__REQUEST__OP_CONSUME_OPEN:
	case SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE:
	case SLUICE__REQUEST__OP_JOB_WAIT:
	case SLUICE__REQUEST__OP__NOT_SET:
	case _SLUICE__REQUEST__OP__CASE_IS_INT_SIZE:
		return NULL;
	}
	return NULL; /* from a newer client */
}

bool core_request_is_query(const Sluice__Request *request)
{
	return query_function(request) != NULL;
}

/* ---- turns ---- */

struct core_read {
	struct query q;
	const Sluice__Request *request;
	query_fn answer;
	uint64_t turns;
};

int core_read_begin(uint32_t gateway, const Sluice__Request *request, struct core_read **ret)
{
	query_fn answer = query_function(request);
	struct core_read *read;

	if (answer == NULL)
		return SLUICE_E_UNSUPPORTED;
	read = calloc(1, sizeof(*read));
	if (read == NULL)
		return SLUICE_E_NOMEM;
	read->q.reply = malloc(sizeof(*read->q.reply));
	if (read->q.reply == NULL) {
		free(read);
		return SLUICE_E_NOMEM;
	}
	sluice__reply__init(read->q.reply);
	read->q.gateway = gateway;
	read->request = request;
	read->answer = answer;
	*ret = read;
	return 0;
}

static int read_pack(const struct core_read *read, uint8_t **ret, size_t *ret_bytes)
{
	size_t bytes = sluice__reply__get_packed_size(read->q.reply);
	uint8_t *packed;

	invariant(message_text_bad(&read->q.reply->base) == NULL,
		  "%s of the reply to request %d is not text",
		  message_text_bad(&read->q.reply->base), (int)read->request->op_case);
	packed = malloc(bytes + 1);
	if (packed == NULL)
		return SLUICE_E_NOMEM;
	(void)sluice__reply__pack(read->q.reply, packed);
	*ret = packed;
	*ret_bytes = bytes;
	return 0;
}

int core_read_turn(struct core_read *read, struct store_txn *txn, struct query_clock clock,
		   uint64_t cost_max, bool *ret_done, uint8_t **ret, size_t *ret_bytes)
{
	struct query *q = &read->q;
	uint64_t cost = store_txn_read_cost(txn);
	int rc = 0;

	q->txn = txn;
	q->clock = clock;
	q->cost_max = cost_max < UINT64_MAX - cost ? cost + cost_max : UINT64_MAX;
	q->again = false;
	if (read->turns++ == 0)
		rc = core_index_read(txn, q->gateway, &q->reply->index);
	if (rc == 0)
		rc = read->answer(q, read->request);
	if (rc != 0)
		return rc;
	*ret_done = !q->again;
	return q->again ? 0 : read_pack(read, ret, ret_bytes);
}

int core_read_code(const struct core_read *read, const char **ret_text)
{
	*ret_text = read->q.reply->text;
	return read->q.reply->code;
}

void core_read_end(struct core_read *read)
{
	if (read == NULL)
		return;
	if (read->q.at.state != NULL)
		read->q.at.state_free(read->q.at.state);
	sluice__reply__free_unpacked(read->q.reply, NULL);
	free(read);
}

int core_query(struct store_txn *txn, uint32_t gateway, struct query_clock clock,
	       const Sluice__Request *request, uint8_t **ret, size_t *ret_bytes)
{
	struct core_read *read;
	bool done = false;
	int rc = core_read_begin(gateway, request, &read);

	if (rc != 0)
		return rc;
	rc = core_read_turn(read, txn, clock, UINT64_MAX, &done, ret, ret_bytes);
	invariant(rc != 0 || done, "a read without a bound on its cost is not done after one turn");
	core_read_end(read);
	return rc;
}

/* From q->at.number on. */
static int topo_count(struct query *q, enum topo_kind kind, uint64_t *io)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	key_topo(&key, q->gateway, (uint8_t)kind, q->at.number);
	rc = store_scan_begin(q->txn, STORE_TOPO, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		uint64_t id;

		if (!key_topo_in(found, q->gateway, (uint8_t)kind, &id))
			break;
		++*io;
		q->at.number = id + 1;
		q->again = query_spent(q);
		if (q->again)
			break;
	}
	store_scan_end(scan);
	if (!q->again)
		q->at.number = 0;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* The gateway's name, owned. */
static int gateway_name(struct query *q, char **ret)
{
	ProtobufCMessage *message = NULL;
	int rc = topo_find(q->txn, 0, TOPO_GATEWAY, q->gateway, &sluice__gateway_create__descriptor,
			   &message);

	if (rc != 0)
		return rc;
	*ret = strdup(((Sluice__GatewayCreate *)message)->name);
	protobuf_c_message_free_unpacked(message, NULL);
	return *ret == NULL ? SLUICE_E_NOMEM : 0;
}

static int status_counts(struct query *q, Sluice__Status *status)
{
	int rc = gateway_name(q, &status->gateway);

	if (rc == 0)
		rc = counter_get(q->txn, q->gateway, COUNTER_SESSIONS, &status->sessions);
	if (rc == 0)
		rc = counter_get(q->txn, q->gateway, COUNTER_JOBS, &status->jobs);
	if (rc == 0)
		rc = counter_get(q->txn, q->gateway, COUNTER_JOBS_OPEN, &status->jobs_open);
	if (rc == 0)
		rc = counter_get(q->txn, q->gateway, COUNTER_QUAR_ROWS, &status->quarantined);
	return rc;
}

/* Phase 0: streams are counted, 1: queues. */
int status_query(struct query *q, const Sluice__Request *request)
{
	Sluice__Status *status = q->reply->status;
	int rc = 0;

	(void)request;
	if (status == NULL) {
		status = malloc(sizeof(*status));
		if (status == NULL)
			return SLUICE_E_NOMEM;
		sluice__status__init(status);
		q->reply->status = status;
		status->index = q->reply->index;
		status->wall_time_ms = q->clock.wall_ms;
		rc = status_counts(q, status);
	}
	if (rc == 0 && q->at.phase == 0) {
		rc = topo_count(q, TOPO_STREAM, &status->streams);
		if (rc != 0 || q->again)
			return rc;
		q->at.phase = 1;
	}
	return rc != 0 ? rc : topo_count(q, TOPO_QUEUE, &status->queues);
}
