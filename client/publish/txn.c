/* SPDX-License-Identifier: Apache-2.0
 *
 * Transactions: built up by the application, sent one at a time under a producer of their own, so
 * that a retry after a broken connection is settled by its sequence number.
 */
#include <string.h>
#include <utlist.h>

#include "client/base/error.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/base/sized.h"
#include "client/link/link.h"
#include "client/call/call.h"
#include "client/call/reply.h"
#include "client/call/request.h"
#include "client/publish/producer.h"
#include "client/publish/txn.h"
#include "client/sub/streams.h"
#include "protocol/limits.h"
#include "sluice.pb-c.h"

struct pending_txn {
	struct pending_txn *prev, *next;
	Sluice__Txn *txn;
	struct call *call; /* set when it is sent */
	bool was_sent;	   /* by a session that has ended */
	sluice_done_fn *done;
	void *user;
	uint64_t deadline_ms;
	struct call *waiter;
};

struct sluice_txn {
	Sluice__Txn *message;
};

/* ---- building ---- */

sluice_txn *sluice_txn_create(void)
{
	sluice_txn *txn = mem_alloc(sizeof(*txn));

	if (txn == NULL)
		return NULL;
	txn->message = mem_alloc(sizeof(*txn->message));
	if (txn->message == NULL) {
		mem_free(txn);
		return NULL;
	}
	sluice__txn__init(txn->message);
	return txn;
}

void sluice_txn_destroy(sluice_txn *txn)
{
	if (txn == NULL)
		return;
	sluice__txn__free_unpacked(txn->message, &mem_protobuf);
	mem_free(txn);
}

/* Adds a deep copy of op, by its own encoding. */
static int add(sluice_txn *txn, const Sluice__TxnOp *op)
{
	size_t len = sluice__txn_op__get_packed_size(op);
	Sluice__TxnOp **ops, *copy;
	uint8_t *packed;

	if (txn->message->n_ops >= LIMIT_TXN_OPS_MAX)
		return error_format(SLUICE_E_LIMIT, "a transaction has at most %llu operations",
				    (unsigned long long)LIMIT_TXN_OPS_MAX);
	packed = mem_alloc(len + 1);
	if (packed == NULL)
		return error_set(SLUICE_E_NOMEM, NULL);
	(void)sluice__txn_op__pack(op, packed);
	copy = sluice__txn_op__unpack(&mem_protobuf, len, packed);
	mem_free(packed);
	ops = copy != NULL ? mem_resize(txn->message->ops, (txn->message->n_ops + 1) * sizeof(*ops))
			   : NULL;
	if (ops == NULL) {
		if (copy != NULL)
			sluice__txn_op__free_unpacked(copy, &mem_protobuf);
		return error_set(SLUICE_E_NOMEM, NULL);
	}
	txn->message->ops = ops;
	ops[txn->message->n_ops++] = copy;
	return 0;
}

#define OP(CASE, member, Message, INIT)               \
	Sluice__TxnOp op = SLUICE__TXN_OP__INIT;      \
	Sluice__##Message m = SLUICE__##INIT##__INIT; \
	op.op_case = SLUICE__TXN_OP__OP_##CASE;       \
	op.member = &m

int sluice_txn_publish(sluice_txn *txn, const sluice_message *message)
{
	sluice_message own;
	int rc = message_take(&message, &own);

	if (rc != 0)
		return rc;

	OP(PUBLISH, publish, TxnPublish, TXN_PUBLISH);
	Sluice__TxnPublish__HeadersEntry entries[64], *list[64];
	size_t count = 0;

	for (; message->headers != NULL && message->headers[2 * count] != NULL; count++) {
		if (count == 64)
			return error_set(SLUICE_E_LIMIT, "a message has at most 64 headers");
		sluice__txn_publish__headers_entry__init(&entries[count]);
		entries[count].key = wire_text(message->headers[2 * count]);
		entries[count].value = wire_text(message->headers[2 * count + 1]);
		list[count] = &entries[count];
	}
	m.subject = wire_text(message->subject);
	m.queue = wire_text(message->queue);
	m.stream = wire_text(message->stream);
	m.key = wire_bytes(message->key);
	m.id = wire_bytes(message->id);
	m.body = wire_bytes(message->body);
	m.headers = list;
	m.n_headers = count;
	m.mandatory = message->mandatory;
	m.priority = message->priority;
	return add(txn, &op);
}

int sluice_txn_ack(sluice_txn *txn, const char *queue, sluice_token token, uint64_t first_seq,
		   uint32_t count)
{
	OP(ACK, ack, TxnAck, TXN_ACK);

	m.queue = wire_text(queue);
	m.token = token;
	m.first_seq = first_seq;
	m.count = count;
	return add(txn, &op);
}

int sluice_txn_nack(sluice_txn *txn, const char *queue, sluice_token token, uint64_t first_seq,
		    uint32_t count, uint32_t delay_ms, const char *reason)
{
	OP(NACK, nack, TxnNack, TXN_NACK);

	m.queue = wire_text(queue);
	m.token = token;
	m.first_seq = first_seq;
	m.count = count;
	m.delay_ms = delay_ms;
	m.reason = wire_text(reason);
	return add(txn, &op);
}

int sluice_txn_job_submit(sluice_txn *txn, const sluice_job_spec *spec)
{
	sluice_job_spec own;
	int rc = job_spec_take(&spec, &own);

	if (rc != 0)
		return rc;

	OP(JOB_SUBMIT, job_submit, JobSubmit, JOB_SUBMIT);

	job_submit_fill(&m, spec);
	return add(txn, &op);
}

int sluice_txn_job_intent(sluice_txn *txn, const char *job, sluice_token token, uint32_t attempt,
			  const char *tag)
{
	OP(JOB_INTENT, job_intent, JobIntent, JOB_INTENT);

	m.job = wire_text(job);
	m.token = token;
	m.attempt = attempt;
	m.tag = wire_text(tag);
	return add(txn, &op);
}

int sluice_txn_job_report(sluice_txn *txn, const sluice_job_report_spec *spec)
{
	sluice_job_report_spec own;
	int rc = job_report_spec_take(&spec, &own);

	if (rc != 0)
		return rc;

	OP(JOB_REPORT, job_report, JobReport, JOB_REPORT);

	job_report_fill(&m, spec);
	return add(txn, &op);
}

int sluice_txn_job_cancel(sluice_txn *txn, const char *job, const char *reason)
{
	OP(JOB_CANCEL, job_cancel, JobCancel, JOB_CANCEL);

	m.job = wire_text(job);
	m.reason = wire_text(reason);
	return add(txn, &op);
}

int sluice_txn_job_reset(sluice_txn *txn, const char *job, const char *reason)
{
	OP(JOB_RESET, job_reset, JobReset, JOB_RESET);

	m.job = wire_text(job);
	m.reason = wire_text(reason);
	return add(txn, &op);
}

int sluice_txn_cursor_set(sluice_txn *txn, const char *stream, const char *cursor,
			  uint64_t next_offset)
{
	OP(CURSOR_SET, cursor_set, CursorSet, CURSOR_SET);

	m.stream = wire_text(stream);
	m.cursor = wire_text(cursor);
	m.offset = next_offset;
	return add(txn, &op);
}

int sluice_txn_check_job(sluice_txn *txn, const char *job, const char *state, uint32_t attempt)
{
	OP(CHECK_JOB, check_job, TxnCheckJob, TXN_CHECK_JOB);

	m.job = wire_text(job);
	m.state = wire_text(state);
	m.attempt = attempt;
	return add(txn, &op);
}

/* ---- sending ---- */

static void finish(sluice_client *client, struct pending_txn *pending, sluice_reply *reply)
{
	DL_DELETE(client->transactor->waiting, pending);
	sluice__txn__free_unpacked(pending->txn, &mem_protobuf);
	if (pending->waiter != NULL) {
		pending->waiter->reply = reply;
		pending->waiter->finished = true;
		(void)pthread_cond_broadcast(&client->changed);
	} else {
		if (pending->done != NULL)
			pending->done(client, reply, pending->user);
		sluice_reply_free(reply);
	}
	mem_free(pending);
}

static void committed(sluice_client *client, struct call *call)
{
	struct transactor *transactor = client->transactor;
	struct pending_txn *pending = call->hook_user;
	int code = call->reply != NULL ? call->reply->code : SLUICE_E_UNKNOWN;
	bool gone = producer_is_gone(client, code, transactor->session, "");

	/* A retriable refusal has not used its number. After a deadline it is not known whether the
	 * number was used: opens another producer. */
	if (code == SLUICE_E_TIMEOUT || code == SLUICE_E_UNKNOWN || gone)
		transactor->open = false;
	else if (!sluice_error_retriable(code))
		transactor->seq++;
	/* Sent once, and refused because of its producer: certainly not applied, so it is sent
	 * again under another. */
	if (gone && !call->was_sent && pending->deadline_ms > now_ms()) {
		pending->call = NULL;
		return;
	}
	/* Sent before, by the session that has ended. */
	if (gone && call->reply != NULL && code != SLUICE_E_PRODUCER_EVICTED)
		call->reply->code = SLUICE_E_UNKNOWN;
	if (call->reply != NULL && code == SLUICE_E_TIMEOUT && call->sent)
		call->reply->code = SLUICE_E_UNKNOWN;
	finish(client, pending, call->reply != NULL ? sluice_reply_ref(call->reply) : NULL);
}

/* Ends the first one, which was sent and whose outcome can no longer be found. Whether its number
 * was used is not known: opens another producer. */
static void sent_unknown(sluice_client *client, const char *text)
{
	struct transactor *transactor = client->transactor;
	struct pending_txn *first = transactor->waiting;

	transactor->again = transactor->open = false;
	if (first != NULL && first->call == NULL && first->was_sent)
		finish(client, first, reply_new(SLUICE_E_UNKNOWN, text, strlen(text)));
}

static void opened(sluice_client *client, struct call *call)
{
	struct transactor *transactor = client->transactor;
	const sluice_reply *reply = call->reply;
	const Sluice__ProducerOpened *producer =
		reply != NULL && reply->message != NULL ? reply->message->producer_opened : NULL;
	bool again = transactor->again;

	transactor->opening = false;
	/* the next one after a pause, not at once in a loop */
	transactor->open_ms = now_ms() + PRODUCER_REOPEN_MS;
	if (again &&
	    ((producer != NULL && producer->producer != transactor->producer) ||
	     (reply != NULL && reply->code != 0 && !sluice_error_retriable(reply->code)))) {
		sent_unknown(client,
			     "its session ended while it was under way, and its producer is gone");
		return;
	}
	if (reply != NULL && reply->code != 0 && !sluice_error_retriable(reply->code) &&
	    transactor->waiting != NULL) {
		finish(client, transactor->waiting,
		       reply_new(reply->code, reply->text, strlen(reply->text)));
		return;
	}
	if (producer == NULL)
		return;
	transactor->session = client->link->session_id;
	transactor->producer = producer->producer;
	transactor->epoch = producer->epoch;
	transactor->secret = producer->secret;
	/* The same producer: a sent transaction keeps its number. */
	if (!again)
		transactor->seq = producer->last_seq + 1;
	transactor->again = false;
	transactor->open = true;
}

void txns_session_lost(sluice_client *client)
{
	struct transactor *transactor = client->transactor;
	struct pending_txn *first = transactor->waiting;

	transactor->again = transactor->again || transactor->open;
	transactor->open = false;
	if (first == NULL || first->call == NULL)
		return;
	/* The request has an old epoch; it is built again with the same number. */
	first->was_sent = first->was_sent || first->call->was_sent;
	first->call->hook = NULL;
	call_finish(client, first->call, NULL);
	first->call = NULL;
}

void txns_send(sluice_client *client)
{
	struct transactor *transactor = client->transactor;
	struct pending_txn *first = transactor->waiting;
	Sluice__Request request = SLUICE__REQUEST__INIT;
	sluice_call options = SLUICE_CALL(.deadline_ms = -1);

	if (client->state != STATE_READY || first == NULL || first->call != NULL)
		return;
	if (!transactor->open) {
		if (!transactor->opening && producer_may_open(client, transactor->open_ms))
			producer_open(client, "", transactor->again ? transactor->producer : 0,
				      transactor->again ? transactor->secret : 0, opened,
				      &client->transactor->opening);
		return;
	}
	first->txn->producer = transactor->producer;
	first->txn->epoch = transactor->epoch;
	first->txn->seq = transactor->seq;
	first->txn->settled_seq = transactor->seq - 1;
	request.op_case = SLUICE__REQUEST__OP_TXN;
	request.txn = first->txn;
	first->call = call_new(client, &request, true, &options);
	if (first->call == NULL) {
		client_retry(client, now_ms() + MEMORY_MS);
		return;
	}
	call_deadline_set(client, first->call, first->deadline_ms);
	first->call->hook = committed;
	first->call->hook_user = first;
	calls_send(client);
}

void txns_due(sluice_client *client, uint64_t now, uint64_t *io_next)
{
	struct pending_txn *pending, *next;

	DL_FOREACH_SAFE(client->transactor->waiting, pending, next) {
		if (pending->call != NULL)
			continue;
		if (pending->deadline_ms <= now && pending->was_sent)
			sent_unknown(client, "no answer came before the deadline");
		else if (pending->deadline_ms <= now)
			finish(client, pending,
			       reply_new(SLUICE_E_TIMEOUT, "not sent before the deadline", 28));
		else if (pending->deadline_ms < *io_next)
			*io_next = pending->deadline_ms;
	}
}

void txns_end(sluice_client *client, int code)
{
	struct pending_txn *pending, *next;

	DL_FOREACH_SAFE(client->transactor->waiting, pending, next)
		if (pending->call == NULL)
			finish(client, pending,
			       reply_new(pending->was_sent ? SLUICE_E_UNKNOWN : code, "", 0));
}

static struct pending_txn *pending_new(sluice_client *client, const sluice_txn *txn,
				       const sluice_call *call)
{
	struct pending_txn *pending = mem_alloc(sizeof(*pending));
	size_t len = sluice__txn__get_packed_size(txn->message);
	uint8_t *packed = mem_alloc(len + 1);

	if (pending != NULL && packed != NULL) {
		(void)sluice__txn__pack(txn->message, packed);
		pending->txn = sluice__txn__unpack(&mem_protobuf, len, packed);
	}
	mem_free(packed);
	if (pending == NULL || pending->txn == NULL) {
		mem_free(pending);
		return NULL;
	}
	for (size_t i = 0; i < pending->txn->n_ops; i++) {
		Sluice__TxnOp *op = pending->txn->ops[i];

		/* As in sluice_cursor_set(). */
		if (op->op_case == SLUICE__TXN_OP__OP_CURSOR_SET)
			op->cursor_set->stream_id = subs_stream_id(client, op->cursor_set->stream);
	}
	pending->deadline_ms = deadline_of(client, call != NULL ? call->deadline_ms : 0);
	pending->done = call_fires(call) ? call_done_ignored : call != NULL ? call->done : NULL;
	pending->user = call != NULL ? call->user : NULL;
	return pending;
}

int sluice_txn_commit(sluice_client *client, const sluice_txn *txn, const sluice_call *call,
		      sluice_reply **ret_reply)
{
	sluice_call own;
	bool async = !call_blocks(call);
	struct call waiter = {0};
	struct pending_txn *pending;
	char why[TEXT_MAX];
	int rc = call_take(&call, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, ret_reply);
	if (ret_reply != NULL)
		*ret_reply = NULL;
	client_lock(client);
	rc = error_set(call_may(client, call, why, sizeof(why)), why);
	if (rc == 0 && sluice__txn__get_packed_size(txn->message) > LIMIT_COMMAND_BYTES_MAX - 64)
		rc = error_format(SLUICE_E_LIMIT, "the transaction has %zu bytes; at most %llu",
				  sluice__txn__get_packed_size(txn->message),
				  (unsigned long long)LIMIT_COMMAND_BYTES_MAX - 64);
	pending = rc == 0 ? pending_new(client, txn, call) : NULL;
	if (pending == NULL) {
		client_unlock(client);
		return call_refuse(rc != 0 ? rc : SLUICE_E_NOMEM,
				   rc != 0 ? sluice_last_error(NULL) : "", call, ret_reply);
	}
	if (!async)
		pending->waiter = &waiter;
	DL_APPEND(client->transactor->waiting, pending);
	client_wake(client);
	if (!async) {
		(void)client_wait(client, &waiter.finished, UINT64_MAX);
		rc = error_set(sluice_reply_code(waiter.reply), sluice_reply_text(waiter.reply));
		if (ret_reply != NULL)
			*ret_reply = waiter.reply;
		else
			sluice_reply_free(waiter.reply);
	}
	client_unlock(client);
	return rc;
}
