/* SPDX-License-Identifier: Apache-2.0
 * Reads: one read transaction, one request, one packed Reply. Each module answers its own; here is who
 * answers what, and the status. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/apply.h"
#include "broker/util/invariant.h"
#include "protocol/message.h"
#include "protocol/text.h"

typedef int (*query_fn)(struct query *q, const Sluice__Request *request);

static query_fn query_function(const Sluice__Request *request)
{
	switch (request->op_case) {
	case SLUICE__REQUEST__OP_STREAM_SHOW:
	case SLUICE__REQUEST__OP_STREAM_LIST:
		return stream_query;
	case SLUICE__REQUEST__OP_QUEUE_SHOW:
	case SLUICE__REQUEST__OP_QUEUE_LIST:
	case SLUICE__REQUEST__OP_QUEUE_PEEK:
		return queue_query;
	case SLUICE__REQUEST__OP_ROUTER_SHOW:
	case SLUICE__REQUEST__OP_ROUTER_LIST:
		return router_query;
	case SLUICE__REQUEST__OP_MACHINE_SHOW:
	case SLUICE__REQUEST__OP_MACHINE_LIST:
		return machine_query;
	case SLUICE__REQUEST__OP_JOB_SHOW:
	case SLUICE__REQUEST__OP_JOB_LIST:
	case SLUICE__REQUEST__OP_JOB_HISTORY:
	case SLUICE__REQUEST__OP_JOB_EXPLAIN:
	case SLUICE__REQUEST__OP_QUARANTINE_LIST:
	case SLUICE__REQUEST__OP_AUDIT:
		return job_query;
	case SLUICE__REQUEST__OP_SESSION_LIST:
		return session_query;
	case SLUICE__REQUEST__OP_STATUS_GET:
		return status_query;
	default:
		return NULL;
	}
}

bool core_request_is_query(const Sluice__Request *request)
{
	return query_function(request) != NULL;
}

char *query_text(struct sluice_slice text)
{
	size_t size = text_size(text);
	char *copy = malloc(size);

	if (copy != NULL)
		(void)text_make(copy, size, text);
	return copy;
}

int query_refuse(struct query *q, int code, const char *format, ...)
{
	char text[256];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_mend(text);
	q->reply->code = code;
	if (q->reply->text != NULL && q->reply->text != protobuf_c_empty_string)
		free(q->reply->text);
	q->reply->text = strdup(text);
	return q->reply->text == NULL ? SLUICE_E_NOMEM : 0;
}

int core_query(struct store_txn *txn, uint32_t gateway, struct query_clock clock,
	       const Sluice__Request *request, uint8_t **ret, size_t *ret_bytes)
{
	struct query q = {.txn = txn, .gateway = gateway, .clock = clock};
	query_fn answer = query_function(request);
	uint8_t *packed;
	size_t bytes;
	int rc;

	if (answer == NULL)
		return SLUICE_E_UNSUPPORTED;
	q.reply = malloc(sizeof(*q.reply));
	if (q.reply == NULL)
		return SLUICE_E_NOMEM;
	sluice__reply__init(q.reply);
	rc = core_index_read(txn, gateway, &q.reply->index);
	if (rc == 0)
		rc = answer(&q, request);
	if (rc == 0) {
		invariant(message_text_bad(&q.reply->base) == NULL,
			  "%s of the reply to request %d is not text", message_text_bad(&q.reply->base),
			  (int)request->op_case);
		bytes = sluice__reply__get_packed_size(q.reply);
		packed = malloc(bytes + 1);
		if (packed == NULL) {
			rc = SLUICE_E_NOMEM;
		} else {
			(void)sluice__reply__pack(q.reply, packed);
			*ret = packed;
			*ret_bytes = bytes;
		}
	}
	sluice__reply__free_unpacked(q.reply, NULL);
	return rc;
}

static int topo_count(struct query *q, enum topo_kind kind, uint64_t *ret)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	key_topo(&key, q->gateway, (uint8_t)kind, 0);
	rc = store_scan_begin(q->txn, STORE_TOPO, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		if (found.len < 5 || memcmp(found.data, key.bytes, 5) != 0)
			break;
		++*ret;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* The gateway's name, owned. */
static int gateway_name(struct query *q, char **ret)
{
	ProtobufCMessage *message = NULL;
	int rc =
		topo_find(q->txn, 0, TOPO_GATEWAY, q->gateway, &sluice__gateway_create__descriptor, &message);

	if (rc != 0)
		return rc;
	*ret = strdup(((Sluice__GatewayCreate *)message)->name);
	protobuf_c_message_free_unpacked(message, NULL);
	return *ret == NULL ? SLUICE_E_NOMEM : 0;
}

int status_query(struct query *q, const Sluice__Request *request)
{
	Sluice__Status *status = malloc(sizeof(*status));
	int rc;

	if (status == NULL)
		return SLUICE_E_NOMEM;
	sluice__status__init(status);
	q->reply->status = status;
	status->index = q->reply->index;
	status->wall_time_ms = q->clock.wall_ms;
	rc = gateway_name(q, &status->gateway);
	if (rc == 0)
		rc = topo_count(q, TOPO_STREAM, &status->streams);
	if (rc == 0)
		rc = topo_count(q, TOPO_QUEUE, &status->queues);
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
