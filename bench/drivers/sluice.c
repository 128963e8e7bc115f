/* SPDX-License-Identifier: Apache-2.0
 *
 * The sluice driver: connections that publish, put, follow and work, through libsluice's public
 * calls and its own batching.
 *
 * A unit of one message is a publish, which the library gathers with others; a unit of several is a
 * batch with one answer. Acks have no answer each: the accepted ones are read from the queue's
 * counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/drivers/sluice_driver.h"

enum {
	FOLLOW_CREDIT = 20000,
	ENVELOPE_BYTES = 64, /* upper bound of an event without its body in the client's buffer */
	BUFFER_SPARE = 1 << 20,
	NAME_BYTES = 256,
};

struct bench_conn {
	struct bench_conn_spec spec;
	char name[NAME_BYTES];
	struct sluice_fault fault;
	sluice_client *client;
	sluice_sub *sub;
	sluice_message *messages;    /* PUBLISH, PUT: a unit's; owned */
	uint64_t acked_before;	     /* the queue's count when it was opened */
	struct bench_progress now;   /* since open */
	struct bench_progress given; /* of these, returned by poll() */
};

/* ---- callbacks: they run inside of poll() ---- */

static void on_answer(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct bench_conn *conn = user;

	(void)client;
	if (sluice_reply_code(reply) == 0)
		conn->now.answered++;
	else
		sluice_fault_set(&conn->fault, "publish to %s: %s", conn->name,
				 sluice_reply_text(reply));
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	struct bench_conn *conn = user;

	switch (view->kind) {
	case SLUICE_DELIVERY_ITEM:
	case SLUICE_DELIVERY_EVENT:
		conn->now.received++;
		if (conn->spec.on_body != NULL)
			conn->spec.on_body(conn->spec.user, view->body.data, view->body.len);
		if (view->kind == SLUICE_DELIVERY_ITEM) {
			int rc = sluice_item_ack(sub, view->token, view->seq,
						 &SLUICE_CALL(.user = SLUICE_FIRE), NULL);

			if (rc != 0)
				sluice_fault_set(&conn->fault, "ack to %s: %s", conn->name,
						 sluice_error_text(rc));
		}
		return;
	case SLUICE_DELIVERY_GAP:
		sluice_fault_set(&conn->fault, "stream %s: events %llu to %llu are gone",
				 conn->name, (unsigned long long)view->offset,
				 (unsigned long long)view->to_offset - 1);
		return;
	case SLUICE_DELIVERY_END:
		sluice_fault_set(&conn->fault, "%s: the broker ended the subscription: %s",
				 conn->name, view->text != NULL ? view->text : "");
		return;
	case SLUICE_DELIVERY_JOB:
	case SLUICE_DELIVERY_CAUGHT_UP:
		return;
	}
}

/* ---- opening ---- */

static bool publishes(enum bench_role role)
{
	return role == BENCH_PUBLISH || role == BENCH_PUT;
}

static int queue_acked(sluice_client *client, const char *name, uint64_t *ret)
{
	sluice_reply *reply = NULL;
	sluice_queue_info info = SLUICE_QUEUE_INFO();
	int rc = sluice_object_show(client, SLUICE_OBJECT_QUEUE, name, NULL, &reply);

	if (rc != 0)
		return sluice_outcome(rc, reply, "show queue", name);
	if (!sluice_reply_queue(reply, 0, &info)) {
		sluice_reply_free(reply);
		return bench_error("sluice: show queue %s: the reply has no row", name);
	}
	*ret = info.acked;
	sluice_reply_free(reply);
	return 0;
}

static int subscribe(struct bench_conn *conn)
{
	int rc;

	if (conn->spec.role == BENCH_WORK) {
		sluice_consume_spec spec =
			SLUICE_CONSUME_SPEC(.queue = conn->name, .credit = conn->spec.window,
					    .on_delivery = on_delivery, .user = conn);

		if (queue_acked(conn->client, conn->name, &conn->acked_before) != 0)
			return -1;
		rc = sluice_consume(conn->client, &spec, NULL, &conn->sub);
	} else {
		sluice_follow_spec spec =
			SLUICE_FOLLOW_SPEC(.stream = conn->name,
					   .from = conn->spec.role == BENCH_FOLLOW_NEW
							   ? SLUICE_FROM_NEW
							   : SLUICE_FROM_FIRST,
					   .credit = FOLLOW_CREDIT, .on_delivery = on_delivery,
					   .user = conn);

		rc = sluice_follow(conn->client, &spec, NULL, &conn->sub);
	}
	if (rc != 0)
		return bench_error("sluice: subscribe to %s: %s: %s", conn->name,
				   sluice_error_text(rc), sluice_last_error(NULL));
	return 0;
}

static void conn_close(struct bench_conn *conn)
{
	if (conn == NULL)
		return;
	sluice_client_end(conn->client);
	free(conn->messages);
	free(conn);
}

/* The whole window fits into the library's buffer, so a publish never waits and is never refused
 * for lack of room. */
static int publisher_open(const struct bench_server *server, struct bench_conn *conn)
{
	struct sluice_setting settings[] = {{"buffer_bytes",
					     (conn->spec.body_bytes + ENVELOPE_BYTES) *
							     conn->spec.batch *
							     ((uint64_t)conn->spec.window + 1) +
						     BUFFER_SPARE},
					    {NULL, 0}};

	conn->messages = calloc(conn->spec.batch, sizeof(*conn->messages));
	if (conn->messages == NULL)
		return bench_error("sluice: out of memory");
	for (unsigned i = 0; i < conn->spec.batch; i++) {
		conn->messages[i] = SLUICE_MESSAGE(.subject = BENCH_SUBJECT);
		conn->messages[i].stream = conn->spec.role == BENCH_PUBLISH ? conn->name : NULL;
		conn->messages[i].queue = conn->spec.role == BENCH_PUT ? conn->name : NULL;
		conn->messages[i].body.len = conn->spec.body_bytes;
	}
	return sluice_client_begin(server, settings, &conn->fault, &conn->client);
}

static int conn_open(const struct bench_server *server, const struct bench_conn_spec *spec,
		     struct bench_conn **ret)
{
	struct bench_conn *conn = calloc(1, sizeof(*conn));
	int rc;

	if (conn == NULL)
		return bench_error("sluice: out of memory");
	conn->spec = *spec;
	(void)snprintf(conn->name, sizeof(conn->name), "%s", spec->name);
	conn->spec.name = conn->name;
	if (publishes(spec->role)) {
		rc = publisher_open(server, conn);
	} else {
		rc = sluice_client_begin(server, NULL, &conn->fault, &conn->client);
		if (rc == 0)
			rc = subscribe(conn);
	}
	if (rc != 0) {
		conn_close(conn);
		return -1;
	}
	*ret = conn;
	return 0;
}

/* ---- use ---- */

static int conn_send(struct bench_conn *conn, const void *bodies)
{
	/* No deadline: the harness' own timeout is the same for all systems. */
	const sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_answer, .user = conn);
	const char *body = bodies;
	int rc;

	for (unsigned i = 0; i < conn->spec.batch; i++, body += conn->spec.body_bytes)
		conn->messages[i].body.data = body;
	if (conn->spec.batch == 1)
		rc = sluice_publish(conn->client, conn->messages, &call, NULL);
	else
		rc = sluice_publish_batch(conn->client, conn->messages, conn->spec.batch, &call,
					  NULL);
	if (rc != 0)
		return bench_error("sluice: publish to %s: %s", conn->name, sluice_error_text(rc));
	return 0;
}

static int conn_poll(struct bench_conn *conn, int timeout_us, struct bench_progress *io)
{
	/* A blocking call may have received messages already. */
	bool has = conn->now.answered != conn->given.answered ||
		   conn->now.received != conn->given.received;
	int rc = sluice_process(conn->client, has ? 0 : (timeout_us + 999) / 1000);

	if (rc != 0)
		return bench_error("sluice: %s: %s", conn->name, sluice_error_text(rc));
	if (sluice_fault_check(&conn->fault) != 0)
		return -1;
	io->answered += conn->now.answered - conn->given.answered;
	io->received += conn->now.received - conn->given.received;
	conn->given = conn->now;
	return 0;
}

static int conn_fd(const struct bench_conn *conn)
{
	return sluice_fd(conn->client);
}

static int conn_settled(struct bench_conn *conn, uint64_t *ret)
{
	uint64_t acked;

	if (queue_acked(conn->client, conn->name, &acked) != 0)
		return -1;
	*ret = acked - conn->acked_before;
	return sluice_fault_check(&conn->fault);
}

static int prepare(const struct bench_server *server, enum bench_role role, const char *name)
{
	struct sluice_fault fault = {""};
	sluice_client *client = NULL;
	int rc = sluice_client_begin(server, NULL, &fault, &client);

	if (rc == 0)
		rc = role == BENCH_PUT || role == BENCH_WORK
			     ? sluice_queue_make(client, name, false)
			     : sluice_stream_make(client, name, NULL);
	sluice_client_end(client);
	return rc;
}

static const struct bench_driver driver = {
	.name = "sluice",
	.kind = BENCH_OURS,
	.start = sluice_driver_start,
	.age = sluice_driver_age,
	.prepare = prepare,
	.open = conn_open,
	.close = conn_close,
	.send = conn_send,
	.poll = conn_poll,
	.fd = conn_fd,
	.settled = conn_settled,
	.idle = sluice_driver_idle,
	.jobs = sluice_driver_jobs,
};

const struct bench_system bench_sluice_systems[] = {
	{"sluice", "fsync before the reply", "sluiced over its native protocol, by libsluice",
	 &driver, 0},
	{NULL, NULL, NULL, NULL, 0},
};
