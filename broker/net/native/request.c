/* SPDX-License-Identifier: Apache-2.0
 *
 * REQUEST frames: commands go to the engine, reads are answered from a snapshot on this thread. A connection reads its own writes: a
 * read waits until every earlier command of its connection is answered; and its reply waits until the effects of all that the
 * snapshot shows have reached the connection.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/native/native.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "protocol/message.h"

/* ---- requests that are commands ---- */

struct command_row {
	Sluice__Request__OpCase op;
	uint16_t type;
	bool control; /* ahead of publishes */
};

static const struct command_row command_rows[] = {
	{SLUICE__REQUEST__OP_SESSION_CLOSE, COMMAND_SESSION_CLOSE, true},
	{SLUICE__REQUEST__OP_STREAM_CREATE, COMMAND_STREAM_CREATE, true},
	{SLUICE__REQUEST__OP_STREAM_ALTER, COMMAND_STREAM_ALTER, true},
	{SLUICE__REQUEST__OP_STREAM_DELETE, COMMAND_STREAM_DELETE, true},
	{SLUICE__REQUEST__OP_CURSOR_SET, COMMAND_CURSOR_SET, true},
	{SLUICE__REQUEST__OP_CURSOR_DELETE, COMMAND_CURSOR_DELETE, true},
	{SLUICE__REQUEST__OP_QUEUE_CREATE, COMMAND_QUEUE_CREATE, true},
	{SLUICE__REQUEST__OP_QUEUE_ALTER, COMMAND_QUEUE_ALTER, true},
	{SLUICE__REQUEST__OP_QUEUE_DELETE, COMMAND_QUEUE_DELETE, true},
	{SLUICE__REQUEST__OP_QUEUE_PURGE, COMMAND_QUEUE_PURGE, true},
	{SLUICE__REQUEST__OP_ROUTER_CREATE, COMMAND_ROUTER_CREATE, true},
	{SLUICE__REQUEST__OP_ROUTER_ALTER, COMMAND_ROUTER_ALTER, true},
	{SLUICE__REQUEST__OP_ROUTER_DELETE, COMMAND_ROUTER_DELETE, true},
	{SLUICE__REQUEST__OP_ROUTER_BIND, COMMAND_ROUTER_BIND, true},
	{SLUICE__REQUEST__OP_ROUTER_UNBIND, COMMAND_ROUTER_UNBIND, true},
	{SLUICE__REQUEST__OP_MACHINE_CREATE, COMMAND_MACHINE_CREATE, true},
	{SLUICE__REQUEST__OP_MACHINE_ALTER, COMMAND_MACHINE_ALTER, true},
	{SLUICE__REQUEST__OP_MACHINE_DELETE, COMMAND_MACHINE_DELETE, true},
	{SLUICE__REQUEST__OP_PRODUCER_OPEN, COMMAND_PRODUCER_OPEN, true},
	{SLUICE__REQUEST__OP_PRODUCER_CLOSE, COMMAND_PRODUCER_CLOSE, false}, /* behind its publishes */
	{SLUICE__REQUEST__OP_JOB_SUBMIT, COMMAND_JOB_SUBMIT, false},
	{SLUICE__REQUEST__OP_JOB_INTENT, COMMAND_JOB_INTENT, true},
	{SLUICE__REQUEST__OP_JOB_REPORT, COMMAND_JOB_REPORT, true},
	{SLUICE__REQUEST__OP_JOB_RELEASE, COMMAND_JOB_RELEASE, true},
	{SLUICE__REQUEST__OP_JOB_CANCEL, COMMAND_JOB_CANCEL, true},
	{SLUICE__REQUEST__OP_JOB_RESET, COMMAND_JOB_RESET, true},
	{SLUICE__REQUEST__OP_QUARANTINE_PURGE, COMMAND_QUARANTINE_PURGE, true},
	{SLUICE__REQUEST__OP_JOB_RETENTION, COMMAND_JOB_RETENTION, true},
	{SLUICE__REQUEST__OP_TXN, COMMAND_TXN, false},
	{SLUICE__REQUEST__OP_GATEWAY_CREATE, COMMAND_GATEWAY_CREATE, true},
	{SLUICE__REQUEST__OP_SOURCE_SEEN, COMMAND_SOURCE_SEEN, true},
};

static const struct command_row *command_row(Sluice__Request__OpCase op)
{
	for (size_t i = 0; i < sizeof(command_rows) / sizeof(command_rows[0]); i++)
		if (command_rows[i].op == op)
			return &command_rows[i];
	return NULL;
}

/* ---- answers that wait for a release ---- */

void native_answer(struct conn *conn, uint32_t corr, const uint8_t *reply, size_t len)
{
	if (!conn->dead && !conn->closing)
		native_frame(conn, FRAME_REPLY, corr, reply, len);
}

/* What it takes until it is sent, towards the bound of what its connection has under way. */
static size_t answer_cost(const struct deferred *answer)
{
	return sizeof(*answer) + answer->len;
}

void answer_when_released(struct conn *conn, uint32_t corr, uint8_t *reply, size_t len, uint64_t sequence)
{
	struct deferred *answer;

	if (sequence <= conn->io->released) {
		native_answer(conn, corr, reply, len);
		free(reply);
		return;
	}
	answer = calloc(1, sizeof(*answer));
	if (answer == NULL) {
		free(reply);
		conn_kill(conn, "no memory for an answer");
		return;
	}
	*answer = (struct deferred){.sequence = sequence,
				    .conn = conn,
				    .corr = corr,
				    .bytes = reply,
				    .len = len};
	invariant(conn->io->answers == NULL || conn->io->answers->prev->sequence <= sequence,
		  "an answer for release %llu comes behind one for %llu", (unsigned long long)sequence,
		  (unsigned long long)conn->io->answers->prev->sequence);
	DL_APPEND(conn->io->answers, answer);
	DL_APPEND2(conn->answers_due, answer, conn_prev, conn_next);
	conn->pending_count++;
	conn->pending_bytes += answer_cost(answer);
}

static void answer_drop(struct deferred *answer)
{
	struct conn *conn = answer->conn;

	invariant(conn->pending_count > 0 && conn->pending_bytes >= answer_cost(answer),
		  "connection %llu has %llu answers or commands under way, of %llu bytes; one takes %zu",
		  (unsigned long long)conn->id, (unsigned long long)conn->pending_count,
		  (unsigned long long)conn->pending_bytes, answer_cost(answer));
	DL_DELETE(conn->io->answers, answer);
	DL_DELETE2(conn->answers_due, answer, conn_prev, conn_next);
	conn->pending_count--;
	conn->pending_bytes -= answer_cost(answer);
}

void native_answers_flush(struct io *io)
{
	struct deferred *answer;

	/* In order: a later snapshot shows no earlier commit. */
	while ((answer = io->answers) != NULL && answer->sequence <= io->released) {
		struct conn *conn = answer->conn;

		answer_drop(answer);
		native_answer(conn, answer->corr, answer->bytes, answer->len);
		free(answer->bytes);
		free(answer);
		if (conn->reads != NULL)
			native_run_reads(conn);
	}
}

void native_answers_drop(struct conn *conn)
{
	while (conn->answers_due != NULL) {
		struct deferred *answer = conn->answers_due;

		answer_drop(answer);
		free(answer->bytes);
		free(answer);
	}
}

/* ---- status: the core's counts and the engine's facts ---- */

enum { HEADROOM_TEXT_BYTES = HEADROOM_WHY_BYTES + 160 };

/* What is refused, what is full, and what to do. */
static void headroom_text(char buf[HEADROOM_TEXT_BYTES], const struct engine_facts *facts)
{
	static const char *const refused[] = {
		"",
		"publishes are refused, all else goes on",
		("publishes, job submits and reports, and what else makes the store grow are refused; acks, "
		 "cancels, deletes, purges and retention go on"),
	};

	(void)snprintf(buf, HEADROOM_TEXT_BYTES, "%s%s%s", refused[facts->headroom],
		       facts->headroom != HEADROOM_OK && facts->headroom_why[0] != 0 ? ": " : "",
		       facts->headroom != HEADROOM_OK ? facts->headroom_why : "");
}

int native_status_add(struct conn *conn, uint8_t **io_reply, size_t *io_len)
{
	static const char *const headroom[] = {"ok", "publish-stopped", "report-stopped"};
	Sluice__Reply *reply = sluice__reply__unpack(NULL, *io_len, *io_reply);
	struct engine_facts facts;
	Sluice__Status *status;
	uint8_t *bytes;
	char server[] = "sluiced", version[] = SLUICE_VERSION, durability[] = "sync", *old[5];
	char why[HEADROOM_TEXT_BYTES];

	if (reply == NULL || reply->status == NULL) {
		if (reply != NULL)
			sluice__reply__free_unpacked(reply, NULL);
		return reply == NULL ? SLUICE_E_NOMEM : 0;
	}
	status = reply->status;
	engine_facts_get(conn->io->engine, &facts);
	old[0] = status->server;
	old[1] = status->version;
	old[2] = status->durability;
	old[3] = status->headroom;
	old[4] = status->headroom_text;
	headroom_text(why, &facts);
	status->headroom_text = why;
	status->server = server;
	status->version = version;
	status->durability = durability;
	status->headroom = (char *)(uintptr_t)headroom[facts.headroom];
	status->uptime_ms = net_uptime_ms();
	status->connections = net_connections(conn->io->net);
	status->commits = facts.commits;
	status->commands = facts.commands;
	status->store_used_bytes = facts.store.used_bytes;
	status->store_map_bytes = facts.store.map_bytes;
	status->disk_free_bytes = facts.store.disk_free_bytes;
	status->disk_ahead_bytes = facts.store.ahead_bytes;
	status->oldest_reader_ms = facts.store.oldest_reader_ms;
	status->wall_time_ms = engine_clock(conn->io->engine).wall_ms;
	bytes = malloc(sluice__reply__get_packed_size(reply) + 1);
	if (bytes != NULL) {
		free(*io_reply);
		*io_reply = bytes;
		*io_len = sluice__reply__pack(reply, bytes);
	}
	status->server = old[0];
	status->version = old[1];
	status->durability = old[2];
	status->headroom = old[3];
	status->headroom_text = old[4];
	sluice__reply__free_unpacked(reply, NULL);
	return bytes != NULL ? 0 : SLUICE_E_NOMEM;
}

/* ---- reads ---- */

int native_query(struct conn *conn, const Sluice__Request *request, uint8_t **ret_reply, size_t *ret_len,
		 uint64_t *ret_sequence)
{
	struct store_txn *txn = NULL;
	struct batch_clock now = engine_clock(conn->io->engine);
	int rc = engine_read_begin(conn->io->engine, &txn, ret_sequence);

	if (rc != 0)
		return rc;
	rc = core_query(txn, conn->gateway, (struct query_clock){now.mono_ms, now.wall_ms}, request,
			ret_reply, ret_len);
	conn->io->round_cost += store_txn_read_cost(txn);
	store_abort(txn);
	return rc;
}

/* ---- subscriptions ---- */

static int start_offset(struct store_txn *txn, struct conn *conn, const Sluice__FollowOpen *m,
			const struct stream_ref *stream, uint64_t *ret)
{
	int rc = 0;

	switch (m->from) {
	case SLUICE__FOLLOW_FROM__FROM_FIRST:
		*ret = stream->first_offset;
		break;
	case SLUICE__FOLLOW_FROM__FROM_LAST:
		*ret = stream->next_offset > stream->first_offset ? stream->next_offset - 1
								  : stream->next_offset;
		break;
	case SLUICE__FOLLOW_FROM__FROM_OFFSET:
		*ret = m->offset;
		break;
	case SLUICE__FOLLOW_FROM__FROM_TIME:
		rc = core_stream_seek_time(txn, conn->gateway, stream->log, m->time_ms, ret);
		break;
	case SLUICE__FOLLOW_FROM__FROM_CURSOR:
		rc = core_cursor_find(txn, conn->gateway, stream->id,
				      (struct sluice_slice){m->cursor, strlen(m->cursor)}, ret);
		if (rc == SLUICE_E_NOT_FOUND) {
			*ret = stream->first_offset;
			rc = 0;
		}
		break;
	case SLUICE__FOLLOW_FROM__FROM_NEW:
		*ret = stream->next_offset;
		break;
	default:
		rc = SLUICE_E_INVAL;
		break;
	}
	return rc;
}

static bool sub_number_ok(struct conn *conn, uint32_t corr, uint32_t number, uint32_t credit)
{
	if (number == 0)
		native_refuse(conn, corr, SLUICE_E_INVAL,
			      "subscription number 0; expected one chosen by the client, not 0");
	else if (sub_find(conn, number) != NULL)
		native_refuse(conn, corr, SLUICE_E_EXISTS,
			      "subscription number %u is in use on this connection", number);
	else if (HASH_CNT(hh_number, conn->subs) >= LIMIT_SUBSCRIPTIONS_MAX)
		native_refuse(conn, corr, SLUICE_E_LIMIT, "this connection has %llu subscriptions already",
			      (unsigned long long)LIMIT_SUBSCRIPTIONS_MAX);
	else if (credit > LIMIT_CREDIT_MAX)
		native_refuse(conn, corr, SLUICE_E_LIMIT, "credit of %u; expected at most %llu", credit,
			      (unsigned long long)LIMIT_CREDIT_MAX);
	else
		return true;
	return false;
}

static struct sub *follow_new(struct conn *conn, const Sluice__FollowOpen *m, const struct stream_ref *stream,
			      uint64_t start)
{
	struct sub *sub = calloc(1, sizeof(*sub));

	if (sub == NULL)
		return NULL;
	sub->kind = SUB_FOLLOW;
	sub->key = (struct sub_key){conn->gateway, stream->id};
	sub->log = stream->log;
	sub->next = start;
	sub->credit = m->credit;
	sub->raw = m->raw;
	if (m->filter[0] != 0 && strcmp(m->filter, ">") != 0) {
		sub->filter = strdup(m->filter);
		if (sub->filter == NULL) {
			free(sub);
			return NULL;
		}
	}
	if (sub_add(conn, &sub, m->subscription) != 0)
		return NULL;
	return sub_find(conn, m->subscription);
}

/* Refused already: the name means another thing than the one that the client goes on with. */
enum { NOT_THE_SAME = 1 };

/* A name is no identity. Offsets of the stream that had it before mean nothing here: events would be passed over in silence. */
static int stream_same(struct conn *conn, uint32_t corr, const Sluice__FollowOpen *m,
		       const struct stream_ref *stream)
{
	if (m->stream_id == 0 || stream->id == m->stream_id)
		return 0;
	native_refuse(conn, corr, SLUICE_E_NOT_FOUND,
		      "stream '%.150s' was deleted and created again: it is number %llu, not %llu", m->stream,
		      (unsigned long long)stream->id, (unsigned long long)m->stream_id);
	return NOT_THE_SAME;
}

static void follow_open(struct conn *conn, uint32_t corr, const Sluice__FollowOpen *m)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;
	Sluice__FollowOpened opened = SLUICE__FOLLOW_OPENED__INIT;
	struct store_txn *txn = NULL;
	struct stream_ref stream = {0};
	struct sub *sub;
	const char *why = "";
	uint64_t sequence, start = 0;
	int rc;

	if (!sub_number_ok(conn, corr, m->subscription, m->credit))
		return;
	if (m->filter[0] != 0 &&
	    pattern_check((struct sluice_slice){m->filter, strlen(m->filter)}, &why) != 0) {
		native_refuse(conn, corr, SLUICE_E_INVAL, "filter: %s", why);
		return;
	}
	rc = engine_read_begin(conn->io->engine, &txn, &sequence);
	if (rc == 0)
		rc = core_stream_find(txn, conn->gateway, (struct sluice_slice){m->stream, strlen(m->stream)},
				      &stream);
	if (rc == 0)
		rc = stream_same(conn, corr, m, &stream);
	if (rc == 0)
		rc = start_offset(txn, conn, m, &stream, &start);
	store_abort(txn);
	if (rc == NOT_THE_SAME)
		return;
	if (rc == SLUICE_E_NOT_FOUND) {
		native_refuse(conn, corr, rc, "stream '%.200s' does not exist", m->stream);
		return;
	}
	sub = rc == 0 ? follow_new(conn, m, &stream, start) : NULL;
	if (sub == NULL) {
		rc = rc != 0 ? rc : SLUICE_E_NOMEM;
		native_refuse(conn, corr, rc, "%s", sluice_error_text(rc));
		return;
	}
	opened.first_offset = stream.first_offset;
	opened.next_offset = stream.next_offset;
	opened.start_offset = start;
	opened.stream_id = stream.id;
	reply.follow_opened = &opened;
	native_message(conn, FRAME_REPLY, corr, &reply.base);
	sub_wants_pump(sub);
}

/* The queue and the source that it names, as they are now. False: refused. */
static bool consume_find(struct conn *conn, uint32_t corr, const Sluice__ConsumeOpen *m,
			 struct queue_ref *ret_queue, uint64_t *ret_source)
{
	struct store_txn *txn = NULL;
	uint64_t sequence;
	int rc, source_rc = 0;

	rc = engine_read_begin(conn->io->engine, &txn, &sequence);
	if (rc == 0)
		rc = core_queue_find(txn, conn->gateway, (struct sluice_slice){m->queue, strlen(m->queue)},
				     ret_queue);
	if (rc == 0 && m->source[0] != 0)
		source_rc = core_source_find(txn, conn->gateway,
					     (struct sluice_slice){m->source, strlen(m->source)}, ret_source);
	store_abort(txn);
	if (rc != 0)
		native_refuse(conn, corr, rc,
			      rc == SLUICE_E_NOT_FOUND ? "queue '%.200s' does not exist"
						       : "queue '%.200s' cannot be read",
			      m->queue);
	else if (source_rc != 0)
		native_refuse(conn, corr, source_rc == SLUICE_E_NOT_FOUND ? SLUICE_E_BUSY : source_rc,
			      "source '%.200s' is not known; expected a source_seen that names it before",
			      m->source);
	else if (m->queue_id != 0 && m->queue_id != ret_queue->id)
		native_refuse(conn, corr, SLUICE_E_NOT_FOUND,
			      "queue '%.150s' was deleted and created again: it is number %llu, not %llu",
			      m->queue, (unsigned long long)ret_queue->id, (unsigned long long)m->queue_id);
	else
		return true;
	return false;
}

static void consume_open(struct conn *conn, uint32_t corr, const Sluice__ConsumeOpen *m)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;
	Sluice__ConsumeOpened opened = SLUICE__CONSUME_OPENED__INIT;
	struct consumer_spec spec = {.gateway = conn->gateway,
				     .session = conn->session,
				     .lease_ms = m->lease_ms,
				     .credit = m->credit,
				     .extend_max_ms = m->extend_max_ms,
				     .sink = &conn->io->sink};
	struct queue_ref queue = {0};
	struct sub *sub;
	int rc;

	if (!sub_number_ok(conn, corr, m->subscription, m->credit))
		return;
	if (m->lease_ms != 0 && (m->lease_ms < LIMIT_LEASE_MS_MIN || m->lease_ms > LIMIT_LEASE_MS_MAX)) {
		native_refuse(conn, corr, SLUICE_E_LIMIT, "lease_ms is %u; expected 0 or %llu to %llu",
			      m->lease_ms, (unsigned long long)LIMIT_LEASE_MS_MIN,
			      (unsigned long long)LIMIT_LEASE_MS_MAX);
		return;
	}
	if (!consume_find(conn, corr, m, &queue, &spec.source))
		return;
	sub = calloc(1, sizeof(*sub));
	if (sub == NULL) {
		native_refuse(conn, corr, SLUICE_E_BUSY, "the broker is out of memory; try again");
		return;
	}
	sub->kind = SUB_CONSUME;
	sub->key = (struct sub_key){conn->gateway, queue.id};
	sub->queue_kind = queue.kind;
	spec.queue = queue.id;
	spec.claim_flags =
		(uint8_t)((m->orphans ? CLAIM_ORPHANS : 0) | (m->resume ? CLAIM_RESUME : 0) |
			  (m->session_lease ? CLAIM_SESSION_LEASE : 0) | (m->reports ? CLAIM_REPORTS : 0));
	rc = sub_add(conn, &sub, m->subscription);
	if (rc == 0)
		rc = sub_consume(sub_find(conn, m->subscription), &spec);
	if (rc != 0) {
		native_refuse(conn, corr, rc, "%s", sluice_error_text(rc));
		return;
	}
	/* Deliveries come by a release, which this thread handles later: they follow the answer. */
	opened.kind = (Sluice__QueueKind)queue.kind;
	opened.lease_ms = m->lease_ms != 0 ? m->lease_ms : queue.lease_ms;
	opened.queue_id = queue.id;
	reply.consume_opened = &opened;
	native_message(conn, FRAME_REPLY, corr, &reply.base);
}

static void subscription_close(struct conn *conn, uint32_t corr, const Sluice__SubscriptionClose *m)
{
	Sluice__Reply reply = SLUICE__REPLY__INIT;
	struct sub *sub = sub_find_settling(conn, m->subscription);

	if (sub == NULL || (sub->closed && !sub->close_unanswered)) {
		native_refuse(conn, corr, SLUICE_E_NOT_FOUND,
			      "no subscription of this connection has number %u", m->subscription);
		return;
	}
	if (sub->closed)
		sub->close_unanswered = false;
	else
		sub_close(sub);
	native_message(conn, FRAME_REPLY, corr, &reply.base);
}

/* ---- what needs no commit: now, or when the commands before it are answered ---- */

/* takes block, in which request lies. */
static void run_read(struct conn *conn, uint32_t corr, const Sluice__Request *request,
		     struct message_block **block, size_t bytes)
{
	switch (request->op_case) {
	case SLUICE__REQUEST__OP_FOLLOW_OPEN:
		follow_open(conn, corr, request->follow_open);
		break;
	case SLUICE__REQUEST__OP_CONSUME_OPEN:
		consume_open(conn, corr, request->consume_open);
		break;
	case SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE:
		subscription_close(conn, corr, request->subscription_close);
		break;
	default:
		if (reading_start(conn, corr, block, request, bytes) != 0)
			native_refuse(conn, corr, SLUICE_E_BUSY, "the broker is out of memory; try again");
		return;
	}
	message_block_free(*block);
	*block = NULL;
}

static void run_deferred(struct conn *conn, const struct deferred *read)
{
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	const char *why = "";
	int rc = message_unpack_block(&sluice__request__descriptor,
				      (struct sluice_slice){read->bytes, read->len}, LIMIT_COMMAND_BYTES_MAX,
				      &block, &message, &why);

	/* It was unpacked once before. */
	if (rc != 0)
		native_refuse(conn, read->corr, SLUICE_E_BUSY, "the broker is out of memory; try again");
	else
		run_read(conn, read->corr, (const Sluice__Request *)message, &block, read->len);
}

void native_run_reads(struct conn *conn)
{
	struct deferred *read;

	while ((read = conn->reads) != NULL) {
		if (conn->dead || (conn->pendings != NULL && conn->pendings->ordinal <= read->ordinal))
			return;
		/* The rest when the client has read. */
		if (conn_is_full(conn))
			return;
		invariant(conn->pending_count > 0 && conn->pending_bytes >= read->len,
			  "connection %llu: %llu reads or commands under way, of %llu bytes; one takes %zu",
			  ULL(conn->id), ULL(conn->pending_count), ULL(conn->pending_bytes), read->len);
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
	struct deferred *read = calloc(1, sizeof(*read));

	if (read == NULL || (read->bytes = malloc(body.len + 1)) == NULL) {
		free(read);
		native_refuse(conn, corr, SLUICE_E_BUSY, "the broker is out of memory; try again");
		return 0;
	}
	memcpy(read->bytes, body.data, body.len);
	read->len = body.len;
	read->corr = corr;
	read->conn = conn;
	read->ordinal = conn->ordinal;
	DL_APPEND(conn->reads, read);
	conn->pending_count++;
	conn->pending_bytes += read->len;
	return 0;
}

/* What comes behind a close gives items back: they must not be granted to the same consumer. So that ends at once; the answer has its turn. */
static void close_at_once(struct conn *conn, const Sluice__SubscriptionClose *m)
{
	struct sub *sub = sub_find(conn, m->subscription);

	if (sub == NULL || sub->kind != SUB_CONSUME)
		return;
	sub->close_unanswered = true;
	sub_close(sub);
}

int native_request(struct conn *conn, uint32_t corr, struct sluice_slice body)
{
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	const Sluice__Request *request;
	const struct command_row *row;
	const char *why = "";
	int rc;

	if (corr == 0)
		return (int)
			native_fail(conn, SLUICE_E_PROTOCOL,
				    "a REQUEST with correlation 0; expected another number, for its reply");
	rc = message_unpack_block(&sluice__request__descriptor, body, LIMIT_COMMAND_BYTES_MAX, &block,
				  &message, &why);
	if (rc != 0) {
		native_refuse(conn, corr, rc, "REQUEST: %s", why);
		return 0;
	}
	request = (const Sluice__Request *)message;
	row = command_row(request->op_case);
	if (request->op_case == SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE)
		close_at_once(conn, request->subscription_close);
	if (row == NULL) {
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
	rc = conn_submit_message(conn, row->type, &request->job_submit->base, &block, body.len, row->control,
				 row->type == COMMAND_SESSION_CLOSE ? NATIVE_GOODBYE : NATIVE_REPLY, corr);
	if (rc == SLUICE_E_BUSY)
		return 1;
	if (rc != 0)
		native_refuse(conn, corr, rc, "%s", sluice_error_text(rc));
	return 0;
}
