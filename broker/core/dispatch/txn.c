/* SPDX-License-Identifier: Apache-2.0
 *
 * Transactions: operations under one savepoint, all or none. The first refusal rolls everything
 * back (store, effects, pending job events) and names its operation. A quarantined report refuses
 * the whole transaction and leaves nothing in the quarantine. The producer's stored answer is
 * written outside the savepoint: it stays in either case.
 */
#include <stdlib.h>

#include "broker/core/base/state.h"
#include "broker/core/job/job.h"
#include "broker/core/publish/producer.h"
#include "broker/core/publish/publish.h"
#include "broker/core/stream/stream.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

/* ---- publish ---- */

static int txn_target(const Sluice__TxnPublish *m, struct frame_publish *ret, struct outcome *out)
{
	bool queue = m->queue[0] != 0, stream = m->stream[0] != 0;

	if (queue && stream)
		return refuse(out, SLUICE_E_INVAL,
			      "queue and stream are both given; expected at most one");
	if (!queue && !stream && m->subject[0] == 0)
		return refuse(out, SLUICE_E_INVAL, "no subject, queue or stream is given");
	ret->target_kind =
		queue ? PUBLISH_TO_QUEUE : (stream ? PUBLISH_TO_STREAM : PUBLISH_TO_SUBJECT);
	ret->target = slice_text(queue ? m->queue : m->stream);
	/* Every event has a subject; for a publish straight to a queue or stream the default is its
	 * name. */
	ret->subject = m->subject[0] != 0 ? slice_text(m->subject) : ret->target;
	if (m->priority > 255)
		return refuse(out, SLUICE_E_INVAL, "priority is %u; expected 0 to 255",
			      m->priority);
	return 0;
}

/* The encoded header map, malloc'd. */
static int txn_headers(const Sluice__TxnPublish *m, uint8_t **ret, size_t *ret_bytes)
{
	struct sluice_slice *names = malloc((m->n_headers + 1) * 2 * sizeof(*names));
	struct sluice_slice *values;

	if (names == NULL)
		return SLUICE_E_NOMEM;
	values = names + m->n_headers;
	for (size_t i = 0; i < m->n_headers; i++) {
		names[i] = slice_text(m->headers[i]->key);
		values[i] = slice_text(m->headers[i]->value);
	}
	*ret_bytes = envelope_headers_encode(NULL, names, values, m->n_headers);
	*ret = malloc(*ret_bytes + 1);
	if (*ret != NULL)
		(void)envelope_headers_encode(*ret, names, values, m->n_headers);
	free(names);
	return *ret == NULL ? SLUICE_E_NOMEM : 0;
}

static int txn_publish_apply(struct apply *a, const Sluice__TxnPublish *m, struct outcome *out)
{
	struct frame_publish publish = {.count = 1, .flags = m->mandatory ? PUBLISH_MANDATORY : 0};
	struct envelope envelope = {.body = {m->body.data, m->body.len},
				    .key = {m->key.data, m->key.len},
				    .id = {m->id.data, m->id.len},
				    .priority = (uint8_t)m->priority};
	uint8_t *headers = NULL, *encoded = NULL;
	int rc = txn_target(m, &publish, out);

	if (rc != 0 || refused(out))
		return rc;
	if (m->n_headers > 0) {
		rc = txn_headers(m, &headers, &envelope.headers.len);
		envelope.headers.data = headers;
	}
	if (rc == 0) {
		encoded = malloc(envelope_size_max(&envelope));
		rc = encoded == NULL ? SLUICE_E_NOMEM : 0;
	}
	if (rc == 0) {
		publish.payload =
			(struct sluice_slice){encoded, envelope_encode(encoded, &envelope)};
		publish.raw_bytes = (uint32_t)publish.payload.len;
		rc = publish_batch(a, &publish, m->delay_ms, out);
	}
	free(headers);
	free(encoded);
	return rc;
}

/* ---- ack, nack ---- */

struct txn_ack {
	const char *queue;
	uint64_t token, first_seq;
	uint32_t count;
	uint8_t op;
	uint32_t delay_ms;
	const char *reason;
};

static int txn_ack_apply(struct apply *a, const struct txn_ack *m, struct outcome *out)
{
	struct cmd_ack ack = {.token = m->token,
			      .op = m->op,
			      .value_ms = m->delay_ms,
			      .run_count = 1,
			      .reason = slice_text(m->reason)};
	uint8_t run[FRAME_RUN_BYTES];
	struct queue_ref queue;
	int rc = core_queue_find(a->txn, a->gateway, slice_text(m->queue), &queue);

	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, rc, "queue '%.200s' does not exist", m->queue);
	if (rc != 0)
		return rc;
	put_be64(run, m->first_seq);
	put_be32(run + 8, m->count);
	ack.queue = queue.id;
	ack.runs = run;
	rc = ack_apply(a, &ack, out);
	/* A late ack alone settles the items that are still held; a transaction requires all of
	 * them. */
	if (rc == 0 && !refused(out) && out->count != m->count)
		return refuse(out, SLUICE_E_STALE_TOKEN,
			      "only %u of %u items are still held under token %llu", out->count,
			      m->count, (unsigned long long)m->token);
	return rc;
}

/* ---- the transaction ---- */

static int op_apply(struct apply *a, const Sluice__TxnOp *op, struct outcome *out)
{
	switch (op->op_case) {
	case SLUICE__TXN_OP__OP_PUBLISH:
		return txn_publish_apply(a, op->publish, out);
	case SLUICE__TXN_OP__OP_ACK:
		return txn_ack_apply(a,
				     &(struct txn_ack){op->ack->queue, op->ack->token,
						       op->ack->first_seq, op->ack->count, ACK_DONE,
						       0, ""},
				     out);
	case SLUICE__TXN_OP__OP_NACK:
		return txn_ack_apply(a,
				     &(struct txn_ack){op->nack->queue, op->nack->token,
						       op->nack->first_seq, op->nack->count,
						       ACK_NACK, op->nack->delay_ms,
						       op->nack->reason},
				     out);
	case SLUICE__TXN_OP__OP_JOB_SUBMIT:
		return job_submit_apply(a, op->job_submit, out);
	case SLUICE__TXN_OP__OP_JOB_INTENT:
		return job_intent_apply(a, op->job_intent, out);
	case SLUICE__TXN_OP__OP_JOB_REPORT:
		return job_report_apply(a, op->job_report, out);
	case SLUICE__TXN_OP__OP_JOB_CANCEL:
		return job_cancel_apply(a, op->job_cancel, out);
	case SLUICE__TXN_OP__OP_JOB_RESET:
		return job_reset_apply(a, op->job_reset, out);
	case SLUICE__TXN_OP__OP_CURSOR_SET:
		return cursor_set_apply(a, op->cursor_set, out);
	case SLUICE__TXN_OP__OP_CHECK_JOB:
		return job_check_apply(a, op->check_job, out);
	default:
		return refuse(out, SLUICE_E_UNKNOWN_TYPE,
			      "the operation is empty or unknown to this broker");
	}
}

/* Single operations are bounded, but a thousand of them may be too much: items that a lease
 * returns, a job's events to many queues. */
static int work_check(struct apply *a, struct outcome *out)
{
	struct core_work work = core_command_work(a->core);

	if (work.steps > LIMIT_ROUTE_STEPS_MAX)
		return refuse(out, SLUICE_E_LIMIT,
			      "finding the targets of the transaction's events took more than %llu "
			      "steps by this "
			      "operation: commit fewer operations at once, or bind fewer patterns",
			      (unsigned long long)LIMIT_ROUTE_STEPS_MAX);
	if (work.records > LIMIT_TXN_RECORDS_MAX)
		return refuse(out, SLUICE_E_LIMIT,
			      "the transaction has put or settled %llu records of queues and "
			      "streams by this "
			      "operation; at most %llu: commit fewer operations at once",
			      (unsigned long long)work.records,
			      (unsigned long long)LIMIT_TXN_RECORDS_MAX);
	return 0;
}

/* Fills out with the first refusal; out->count names its operation, from 1. */
static int ops_apply(struct apply *a, const Sluice__Txn *m, struct outcome *out)
{
	for (size_t i = 0; i < m->n_ops; i++) {
		struct outcome op = {.index = a->index};
		int rc = op_apply(a, m->ops[i], &op);

		if (rc == 0 && !refused(&op))
			rc = work_check(a, &op);
		if (rc != 0)
			return rc;
		if (!refused(&op) && op.kind == OUT_REPORTED &&
		    op.disposition == SLUICE__DISPOSITION__QUARANTINED)
			(void)refuse(&op, SLUICE_E_QUARANTINED,
				     "the report is stale or illegal: %.200s", op.text);
		if (refused(&op)) {
			out->code = op.code;
			out->detail = op.detail;
			out->count = (uint32_t)(i + 1);
			memcpy(out->text, op.text, sizeof(out->text));
			return 0;
		}
	}
	return 0;
}

static int txn_run(struct apply *a, const Sluice__Txn *m, struct outcome *out)
{
	size_t mark = effects_mark(a->effects);
	int rc;

	if (m->n_ops == 0)
		return refuse(out, SLUICE_E_INVAL, "the transaction has no operations");
	if (m->n_ops > LIMIT_TXN_OPS_MAX)
		return refuse(out, SLUICE_E_LIMIT,
			      "the transaction has %zu operations; at most %llu", m->n_ops,
			      (unsigned long long)LIMIT_TXN_OPS_MAX);
	rc = store_savepoint(a->txn);
	if (rc != 0)
		return rc;
	rc = ops_apply(a, m, out);
	a->payload = (struct sluice_slice){NULL, 0}; /* of an operation; a TXN has none */
	/* Pending events belong to the savepoint. */
	if (rc == 0 && !refused(out))
		rc = pending_flush(a);
	if (rc != 0)
		return rc;
	if (!refused(out)) {
		store_release(a->txn);
		return 0;
	}
	pending_drop(a->core);
	effects_rewind(a->effects, mark);
	return store_rollback(a->txn);
}

int txn_apply(struct apply *a, const Sluice__Txn *m, struct outcome *out)
{
	struct producer_call call = {m->producer, m->epoch, m->seq, 1, m->settled_seq};
	int rc;

	out->kind = OUT_TXN;
	if (m->producer == 0)
		return txn_run(a, m, out);
	rc = producer_begin(a, &call, out);
	if (rc != 0 || refused(out) || out->duplicate)
		return rc;
	rc = txn_run(a, m, out);
	return rc != 0 ? rc : producer_end(a, &call, out);
}
