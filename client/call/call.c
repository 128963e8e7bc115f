/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls: one REQUEST and its REPLY. A call is listed by correlation number and in order, until it
 * is finished; then its callback is called once, or its waiter is woken. Thousands may be open, so
 * no turn of the loop visits each: it knows the first unsent one, and a lower bound of the
 * deadlines.
 */
#include <stdio.h>
#include <string.h>
#include <utlist.h>

#include "client/base/error.h"
#include "client/base/hash.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/base/sized.h"
#include "client/link/link.h"
#include "client/call/call.h"
#include "client/call/reply.h"
#include "protocol/frame.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "protocol/message_block.h"
#include "protocol/utf8.h"
#include "sluice.pb-c.h"

struct call *call_new_frame(sluice_client *client, uint8_t frame, uint8_t *body, size_t len,
			    const sluice_call *options)
{
	struct call *call = mem_alloc(sizeof(*call));

	if (call == NULL)
		return NULL;
	call->frame = frame;
	call->request = body;
	call->request_len = len;
	call->corr = link_corr(client);
	call->number = ++client->calls->next_request;
	call->done = call_fires(options) ? call_done_ignored
		     : options != NULL	 ? options->done
					 : NULL;
	call->user = options != NULL ? options->user : NULL;
	HASH_ADD(hh, client->calls->by_corr, corr, sizeof(call->corr), call);
	if (!HASHED(call)) {
		mem_free(call);
		return NULL;
	}
	DL_APPEND(client->calls->ordered, call);
	if (client->calls->unsent == NULL)
		client->calls->unsent = call;
	call_deadline_set(client, call,
			  deadline_of(client, options != NULL ? options->deadline_ms : 0));
	client_wake(client);
	return call;
}

void call_deadline_set(sluice_client *client, struct call *call, uint64_t deadline_ms)
{
	call->deadline_ms = deadline_ms;
	if (deadline_ms < client->calls->due_ms)
		client->calls->due_ms = deadline_ms;
}

static void unlist(sluice_client *client, struct call *call)
{
	if (client->calls->unsent == call)
		client->calls->unsent = call->next;
	DL_DELETE(client->calls->ordered, call);
}

void call_first(sluice_client *client, struct call *call)
{
	unlist(client, call);
	DL_PREPEND(client->calls->ordered, call);
	client->calls->unsent = call;
}

/* ---- packing: a request has one operation, so its fifty members need no walk ---- */

/* Fits nearly all operations. */
enum { PACKED_MAX = 1024 };

struct packing {
	ProtobufCBuffer buffer; /* first */
	const ProtobufCMessage *op;
	size_t op_bytes;
	uint8_t head[5 + 10]; /* tag, length */
	size_t head_bytes;
	bool repairs;		    /* a text for people may be invalid UTF-8 */
	uint8_t packed[PACKED_MAX]; /* the operation, if it fits */
};

static void packing_append(ProtobufCBuffer *buffer, size_t len, const uint8_t *bytes)
{
	struct packing *packing = (struct packing *)buffer;

	if (packing->op_bytes <= PACKED_MAX && len <= PACKED_MAX - packing->op_bytes)
		memcpy(packing->packed + packing->op_bytes, bytes, len);
	packing->op_bytes += len;
}

/* protobuf-c walks through all fields of a message, set or not: once to measure it, and once to
 * pack it. Here one walk does both. Two are needed for larger messages, and for transactions: a
 * nested message is preceded by its length. */
static void pack(struct packing *packing, bool measure)
{
	packing->buffer.append = packing_append;
	packing->op_bytes = 0;
	if (measure)
		packing->op_bytes = protobuf_c_message_get_packed_size(packing->op);
	else
		(void)protobuf_c_message_pack_to_buffer(packing->op, &packing->buffer);
	if (measure && packing->op_bytes <= PACKED_MAX)
		(void)protobuf_c_message_pack(packing->op, packing->packed);
}

static bool is_text(const char *string)
{
	return utf8_valid((struct sluice_slice){string, strlen(string)});
}

/* A report must not be refused because of a scheduler's output. Only reports have such texts, and
 * few of them invalid ones. */
static bool may_need_repair(const Sluice__Request *request)
{
	switch (request->op_case) {
	case SLUICE__REQUEST__OP_JOB_REPORT:
		return !is_text(request->job_report->evidence) ||
		       !is_text(request->job_report->source) ||
		       !is_text(request->job_report->scheduler_ref);
	case SLUICE__REQUEST__OP_JOB_RELEASE:
	case SLUICE__REQUEST__OP_JOB_CANCEL:
	case SLUICE__REQUEST__OP_JOB_RESET:
	case SLUICE__REQUEST__OP_TXN:
		return true;
	default:
		return false;
	}
}

static size_t varint_put(uint8_t *at, uint64_t value)
{
	size_t n = 0;

	for (; value >= 0x80; value >>= 7)
		at[n++] = (uint8_t)(value | 0x80);
	at[n++] = (uint8_t)value;
	return n;
}

static size_t packing_begin(struct packing *packing, const Sluice__Request *request)
{
	/* All members of the oneof are message pointers. */
	packing->op = &request->job_submit->base;
	packing->repairs = may_need_repair(request);
	pack(packing, request->op_case == SLUICE__REQUEST__OP_TXN);
	packing->head_bytes = varint_put(packing->head, (uint64_t)request->op_case << 3 |
								2 /* length-delimited */);
	packing->head_bytes += varint_put(packing->head + packing->head_bytes, packing->op_bytes);
	return packing->head_bytes + packing->op_bytes;
}

/* The job's name is stored after the request: handling the answer must not need memory. */
static struct call *call_new_packing(sluice_client *client, const struct packing *packing,
				     bool repeatable, const struct call_about *about,
				     const sluice_call *options)
{
	size_t len = packing->head_bytes + packing->op_bytes,
	       job_bytes = about != NULL && about->hook != NULL ? strlen(about->job) + 1 : 0;
	uint8_t *body = mem_alloc(len + job_bytes);
	struct call *call;

	if (body == NULL)
		return NULL;
	memcpy(body, packing->head, packing->head_bytes);
	if (packing->op_bytes <= PACKED_MAX)
		memcpy(body + packing->head_bytes, packing->packed, packing->op_bytes);
	else
		(void)protobuf_c_message_pack(packing->op, body + packing->head_bytes);
	if (packing->repairs)
		message_texts_repair(packing->op->descriptor, body + packing->head_bytes,
				     packing->op_bytes);
	call = call_new_frame(client, FRAME_REQUEST, body, len, options);
	if (call == NULL) {
		mem_free(body);
		return NULL;
	}
	call->repeatable = repeatable;
	call->closes_session = about != NULL && about->closes_session;
	if (about != NULL && about->deadline_ms != 0)
		call_deadline_set(client, call, about->deadline_ms);
	if (job_bytes > 0) {
		memcpy(body + len, about->job, job_bytes);
		call->job = (const char *)body + len;
		call->token = about->token;
		call->hook = about->hook;
	}
	return call;
}

struct call *call_new(sluice_client *client, const Sluice__Request *request, bool repeatable,
		      const sluice_call *options)
{
	struct packing packing;

	(void)packing_begin(&packing, request);
	return call_new_packing(client, &packing, repeatable, NULL, options);
}

static void call_free(struct call *call)
{
	sluice_reply_free(call->reply);
	mem_free(call->request);
	mem_free(call);
}

void call_finish(sluice_client *client, struct call *call, sluice_reply *reply)
{
	HASH_DELETE(hh, client->calls->by_corr, call);
	unlist(client, call);
	call->finished = true;
	call->reply = reply;
	if (reply != NULL)
		reply->request = call->number;
	if (call->hook != NULL)
		call->hook(client, call);
	if (call->done != NULL)
		call->done(client, call->reply, call->user);
	if (call->blocking)
		(void)pthread_cond_broadcast(&client->changed);
	else
		call_free(call);
}

void call_done_ignored(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)user;
	if (sluice_reply_code(reply) != 0)
		client_notice(client, &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_ERROR,
						   .code = sluice_reply_code(reply),
						   .text = sluice_reply_text(reply)));
}

static void finish_code(sluice_client *client, struct call *call, int code, const char *text)
{
	call_finish(client, call, reply_new(code, text, strlen(text)));
}

void calls_send(sluice_client *client)
{
	if (client->state != STATE_READY)
		return;
	while (client->calls->unsent != NULL) {
		struct call *call = client->calls->unsent;

		if (!call->sent) {
			uint8_t *at =
				link_frame(client, call->frame, call->corr, call->request_len);

			if (at == NULL)
				return;
			memcpy(at, call->request, call->request_len);
			call->sent = true;
		}
		client->calls->unsent = call->next;
	}
}

void calls_due(sluice_client *client, uint64_t now, uint64_t *io_next)
{
	struct call *call, *next;

	if (client->calls->due_ms > now) {
		*io_next = client->calls->due_ms < *io_next ? client->calls->due_ms : *io_next;
		return;
	}
	/* Computed below; additions by callbacks lower it, too. */
	client->calls->due_ms = UINT64_MAX;
	DL_FOREACH_SAFE(client->calls->ordered, call, next) {
		if (call->deadline_ms > now) {
			call_deadline_set(client, call, call->deadline_ms);
			continue;
		}
		finish_code(client, call, SLUICE_E_TIMEOUT,
			    call->sent ? "no reply came before the deadline; the request may have "
					 "been done"
				       : "not connected before the deadline");
	}
	*io_next = client->calls->due_ms < *io_next ? client->calls->due_ms : *io_next;
}

bool calls_wait(const sluice_client *client)
{
	const struct call *call;

	DL_FOREACH(client->calls->ordered, call)
		if (call->sent)
			return true;
	return false;
}

void calls_untaken(sluice_client *client)
{
	struct call *call;

	DL_FOREACH(client->calls->ordered, call)
		call->sent = call->sent && call->one_connection;
	client->calls->unsent = client->calls->ordered;
}

void calls_broken(sluice_client *client)
{
	struct call *call, *next;

	client->calls->unsent = client->calls->ordered;
	DL_FOREACH_SAFE(client->calls->ordered, call, next) {
		if (!call->sent)
			continue;
		call->was_sent = true;
		if (call->repeatable)
			call->sent = false; /* to be sent after the connect */
		else
			finish_code(client, call, SLUICE_E_UNKNOWN,
				    "the connection broke before the reply; whether it was done is "
				    "not known");
	}
}

static const char older_broker[] =
	"the broker did not say that it can end another session than the caller's own: it is an "
	"older one, or there is no connection yet";

void calls_check(sluice_client *client)
{
	struct call *call, *next;

	if (client->link->closes_sessions)
		return;
	DL_FOREACH_SAFE(client->calls->ordered, call, next)
		if (call->closes_session && !call->sent)
			finish_code(client, call, SLUICE_E_UNSUPPORTED, older_broker);
}

void calls_end(sluice_client *client, int code, const char *text)
{
	struct call *call, *next;

	DL_FOREACH_SAFE(client->calls->ordered, call, next)
		finish_code(client, call, code, text);
}

bool call_on_reply(sluice_client *client, uint32_t corr, struct sluice_slice body)
{
	struct call *call;
	struct message_block *block = message_block_new(body.len, &mem_protobuf);
	Sluice__Reply *message =
		block != NULL
			? (Sluice__Reply *)message_block_unpack(block, &sluice__reply__descriptor,
								body)
			: NULL;
	sluice_reply *reply;

	if (message == NULL) {
		message_block_free(block);
		if (mem_lacked())
			return false;
		link_broken(client, SLUICE_E_PROTOCOL, "the broker sent a malformed reply");
		return true;
	}
	HASH_FIND(hh, client->calls->by_corr, &corr, sizeof(corr), call);
	reply = call != NULL ? reply_in_block(block, message) : NULL;
	if (reply == NULL) {
		message_block_free(block);
		return call == NULL; /* its deadline passed meanwhile */
	}
	reply->index = message->index;
	reply->affected = message->affected;
	reply->offset = UINT64_MAX;
	reply->duplicate = (message->job_submitted != NULL && message->job_submitted->duplicate) ||
			   (message->txn_done != NULL && message->txn_done->duplicate) ||
			   (message->job_reported != NULL &&
			    message->job_reported->disposition == SLUICE__DISPOSITION__DUPLICATE);
	call_finish(client, call, reply);
	return true;
}

int call_settle(sluice_client *client, struct call *call, const sluice_call *options,
		sluice_reply **ret_reply)
{
	int code = 0;

	if (call_blocks(options))
		code = call_wait(client, call, ret_reply);
	client_unlock(client);
	return code;
}

int call_wait(sluice_client *client, struct call *call, sluice_reply **ret_reply)
{
	int code;

	call->blocking = true;
	/* calls_due() ends it at its deadline. */
	(void)client_wait(client, &call->finished, UINT64_MAX);
	code = error_set(sluice_reply_code(call->reply), sluice_reply_text(call->reply));
	if (ret_reply != NULL) {
		*ret_reply = call->reply;
		call->reply = NULL;
	}
	call_free(call);
	return code;
}

int call_refuse(int code, const char *why, const sluice_call *options, sluice_reply **ret_reply)
{
	if (ret_reply != NULL)
		*ret_reply = call_blocks(options) ? reply_new(code, why, strlen(why)) : NULL;
	return error_set(code, why);
}

int call_refuse_set(int code, const sluice_call *options, sluice_reply **ret_reply)
{
	return call_refuse(code, sluice_last_error(NULL), options, ret_reply);
}

int call_may(const sluice_client *client, const sluice_call *options, char *why, size_t why_bytes)
{
	why[0] = 0;
	if (client->closing)
		return SLUICE_E_CLOSED;
	if (client->state == STATE_FAILED) {
		(void)snprintf(why, why_bytes, "%s", client->error);
		return client->fail_code;
	}
	if (call_blocks(options) && client_on_loop(client)) {
		(void)snprintf(why, why_bytes, "%s", from_a_callback);
		return SLUICE_E_WRONG_STATE;
	}
	return 0;
}

int call_run_about(sluice_client *client, const Sluice__Request *request, bool repeatable,
		   const struct call_about *about, const sluice_call *options,
		   sluice_reply **ret_reply)
{
	struct call *call = NULL;
	struct packing packing;
	sluice_call own;
	char why[TEXT_MAX];
	size_t bytes;
	int rc = call_take(&options, &own);

	if (rc != 0)
		return call_refuse_set(rc, options, ret_reply);
	if (ret_reply != NULL)
		*ret_reply = NULL;
	client_lock(client);
	rc = call_may(client, options, why, sizeof(why));
	bytes = packing_begin(&packing, request);
	if (rc == 0 && bytes > LIMIT_COMMAND_BYTES_MAX) {
		(void)snprintf(why, sizeof(why), "the request has %zu bytes; at most %zu", bytes,
			       LIMIT_COMMAND_BYTES_MAX);
		rc = SLUICE_E_LIMIT;
	}
	if (rc == 0 && about != NULL && about->closes_session && !client->link->closes_sessions) {
		(void)snprintf(why, sizeof(why), "%s", older_broker);
		rc = SLUICE_E_UNSUPPORTED;
	}
	if (rc == 0) {
		call = call_new_packing(client, &packing, repeatable, about, options);
		rc = call == NULL ? SLUICE_E_NOMEM : 0;
	}
	if (rc != 0) {
		client_unlock(client);
		return call_refuse(rc, why, options, ret_reply);
	}
	return call_settle(client, call, options, ret_reply);
}

int call_run(sluice_client *client, const Sluice__Request *request, bool repeatable,
	     const sluice_call *options, sluice_reply **ret_reply)
{
	return call_run_about(client, request, repeatable, NULL, options, ret_reply);
}

bool call_on_acked(sluice_client *client, uint32_t corr, struct sluice_slice body)
{
	struct frame_acked answer;
	const char *why = "";
	char text[256];
	struct call *call;
	sluice_reply *reply;

	if (frame_acked_decode(body, &answer, &why) != 0) {
		link_broken(client, SLUICE_E_PROTOCOL, why);
		return true;
	}
	if (corr == 0) {
		(void)snprintf(text, sizeof(text), "%.*s",
			       (int)(answer.text.len < 255 ? answer.text.len : 255),
			       (const char *)answer.text.data);
		client_notice(client, &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_ERROR,
						   .code = answer.code, .text = text));
		return true;
	}
	HASH_FIND(hh, client->calls->by_corr, &corr, sizeof(corr), call);
	if (call == NULL)
		return true;
	reply = reply_new(answer.code, answer.text.data, answer.text.len);
	if (reply == NULL)
		return false;
	reply->index = answer.index;
	reply->affected = answer.affected;
	reply->offset = UINT64_MAX;
	call_finish(client, call, reply);
	return true;
}
