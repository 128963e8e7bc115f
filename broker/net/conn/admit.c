/* SPDX-License-Identifier: Apache-2.0
 * Which objects an operation has, and the question to the rule for each. */
#include "broker/net/conn/admit.h"

#include <string.h>

#include "broker/net/conn/internal.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"

static struct sluice_slice text(const char *name)
{
	return (struct sluice_slice){name, strlen(name)};
}

/* A verdict is remembered for the last object only, since most publishers have one subject; and
 * only if it granted. */
static bool is_granted(const struct conn *conn, const char *permission, struct sluice_slice on)
{
	return conn->granted.permission == permission && conn->granted.on_bytes == on.len &&
	       conn->granted.security == conn->io->security &&
	       memcmp(conn->granted.on, on.data, on.len) == 0;
}

static int ask(struct conn *conn, const char *permission, struct sluice_slice on, uint64_t number)
{
	const struct admission *rule = conn->io->net->config.admission;
	const struct admission_question question = {.gateway = conn->gateway,
						    .permission = permission,
						    .on = on,
						    .number = number};
	int rc;

	if (rule == NULL || (on.len > 0 && is_granted(conn, permission, on)))
		return 0;
	rc = rule->may(rule->user, &question);
	if (rc != 0 || on.len == 0 || on.len > sizeof(conn->granted.on))
		return rc != 0 ? SLUICE_E_DENIED : 0;
	conn->granted.permission = permission;
	conn->granted.security = conn->io->security;
	conn->granted.on_bytes = (uint8_t)on.len;
	memcpy(conn->granted.on, on.data, on.len);
	return 0;
}

/* ---- the objects of commands ---- */

static int ask_type(struct conn *conn, enum command_type type, struct sluice_slice on,
		    uint64_t number)
{
	return ask(conn, command_spec((uint16_t)type)->permission, on, number);
}

static struct sluice_slice publish_object(const struct frame_publish *publish)
{
	return publish->target_kind == PUBLISH_TO_SUBJECT ? publish->subject : publish->target;
}

static int ask_publish(struct conn *conn, const struct frame_publish *publish)
{
	struct sluice_slice rest = publish->payload;
	int rc = 0;

	if (publish->target_kind != PUBLISH_TO_SUBJECT || publish->subject.len > 0)
		return ask_type(conn, COMMAND_PUBLISH, publish_object(publish), 0);
	/* Events with subjects of their own: one that is not allowed refuses the batch. The door
	 * has decompressed and checked it. */
	for (uint32_t i = 0; rc == 0 && i < publish->count; i++) {
		struct envelope envelope;
		const char *why;

		if (envelope_next(&rest, &envelope, &why) != 0)
			return SLUICE_E_DENIED;
		rc = ask_type(conn, COMMAND_PUBLISH, envelope.subject, 0);
	}
	return rc;
}

static int ask_txn_publish(struct conn *conn, const Sluice__TxnPublish *m)
{
	return ask_type(conn, COMMAND_PUBLISH,
			text(m->queue[0] != 0	 ? m->queue
			     : m->stream[0] != 0 ? m->stream
						 : m->subject),
			0);
}

static int ask_operation(struct conn *conn, const Sluice__TxnOp *op)
{
	switch (op->op_case) {
	case SLUICE__TXN_OP__OP_PUBLISH:
		return ask_txn_publish(conn, op->publish);
	case SLUICE__TXN_OP__OP_ACK:
		return ask_type(conn, COMMAND_ACK, text(op->ack->queue), 0);
	case SLUICE__TXN_OP__OP_NACK:
		return ask_type(conn, COMMAND_ACK, text(op->nack->queue), 0);
	case SLUICE__TXN_OP__OP_JOB_SUBMIT:
		return ask_type(conn, COMMAND_JOB_SUBMIT, text(op->job_submit->queue), 0);
	case SLUICE__TXN_OP__OP_JOB_INTENT:
		return ask_type(conn, COMMAND_JOB_INTENT, text(op->job_intent->job), 0);
	case SLUICE__TXN_OP__OP_JOB_REPORT:
		return ask_type(conn, COMMAND_JOB_REPORT, text(op->job_report->job), 0);
	case SLUICE__TXN_OP__OP_JOB_CANCEL:
		return ask_type(conn, COMMAND_JOB_CANCEL, text(op->job_cancel->job), 0);
	case SLUICE__TXN_OP__OP_JOB_RESET:
		return ask_type(conn, COMMAND_JOB_RESET, text(op->job_reset->job), 0);
	case SLUICE__TXN_OP__OP_CURSOR_SET:
		return ask_type(conn, COMMAND_CURSOR_SET, text(op->cursor_set->cursor), 0);
	case SLUICE__TXN_OP__OP_CHECK_JOB:
		return ask(conn, "job.show", text(op->check_job->job), 0);
	case SLUICE__TXN_OP__OP__NOT_SET:
	case _SLUICE__TXN_OP__OP__CASE_IS_INT_SIZE:
		break;
	}
	return 0; /* of a newer client: core refuses it */
}

static int ask_txn(struct conn *conn, const Sluice__Txn *txn)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < txn->n_ops; i++)
		rc = ask_operation(conn, txn->ops[i]);
	return rc;
}

/* A client may change the timeout of its session; the rest is for the broker itself to say. */
static int ask_alter(struct conn *conn, const struct cmd_session_alter *alter)
{
	const struct sluice_slice none = {"", 0};

	if (alter->principal.len + alter->via.len + alter->address.len > 0)
		return ask(conn, "internal", none, 0);
	return ask_type(conn, COMMAND_SESSION_ALTER, none, 0);
}

/* The object in the body of a command; a config may be missing, which core refuses. */
#define NAME_OF(Message, member) text(((const Sluice__##Message *)command->message)->member)
#define CONFIG_OF(Message)                                             \
	(((const Sluice__##Message *)command->message)->config != NULL \
		 ? NAME_OF(Message, config->name)                      \
		 : none)
#define EDGE_OF(Message)                                             \
	(((const Sluice__##Message *)command->message)->edge != NULL \
		 ? NAME_OF(Message, edge->router)                    \
		 : none)

static struct sluice_slice object_of_job(const struct command *command)
{
	switch (command->type) {
	case COMMAND_JOB_SUBMIT:
		return NAME_OF(JobSubmit, queue);
	case COMMAND_JOB_INTENT:
		return NAME_OF(JobIntent, job);
	case COMMAND_JOB_REPORT:
		return NAME_OF(JobReport, job);
	case COMMAND_JOB_RELEASE:
		return NAME_OF(JobRelease, job);
	case COMMAND_JOB_CANCEL:
		return NAME_OF(JobCancel, job);
	case COMMAND_JOB_RESET:
		return NAME_OF(JobReset, job);
	default: /* QUARANTINE_PURGE */
		return NAME_OF(QuarantinePurge, job);
	}
}

static struct sluice_slice object_of_topology(const struct command *command)
{
	const struct sluice_slice none = {"", 0};

	switch (command->type) {
	case COMMAND_ROUTER_CREATE:
		return CONFIG_OF(RouterCreate);
	case COMMAND_ROUTER_ALTER:
		return CONFIG_OF(RouterAlter);
	case COMMAND_ROUTER_DELETE:
		return NAME_OF(RouterDelete, name);
	case COMMAND_ROUTER_BIND:
		return EDGE_OF(RouterBind);
	case COMMAND_ROUTER_UNBIND:
		return EDGE_OF(RouterUnbind);
	case COMMAND_LIFECYCLE_CREATE:
		return CONFIG_OF(LifecycleCreate);
	case COMMAND_LIFECYCLE_ALTER:
		return CONFIG_OF(LifecycleAlter);
	default: /* LIFECYCLE_DELETE */
		return NAME_OF(LifecycleDelete, name);
	}
}

static struct sluice_slice object_of(const struct command *command, uint64_t *ret_number)
{
	const struct sluice_slice none = {"", 0};

	/* No default: a command without a case fails the build. */
	switch ((enum command_type)command->type) {
	case COMMAND_SESSION_OPEN:
		return ((const struct cmd_session_open *)command->body)->name;
	case COMMAND_GATEWAY_CREATE:
		return NAME_OF(GatewayCreate, name);
	case COMMAND_STREAM_CREATE:
		return CONFIG_OF(StreamCreate);
	case COMMAND_STREAM_ALTER:
		return CONFIG_OF(StreamAlter);
	case COMMAND_STREAM_DELETE:
		return NAME_OF(StreamDelete, name);
	case COMMAND_CURSOR_SET:
		return NAME_OF(CursorSet, cursor);
	case COMMAND_CURSOR_DELETE:
		return NAME_OF(CursorDelete, cursor);
	case COMMAND_QUEUE_CREATE:
		return CONFIG_OF(QueueCreate);
	case COMMAND_QUEUE_ALTER:
		return CONFIG_OF(QueueAlter);
	case COMMAND_QUEUE_DELETE:
		return NAME_OF(QueueDelete, name);
	case COMMAND_QUEUE_PURGE:
		return NAME_OF(QueuePurge, name);
	case COMMAND_ROUTER_CREATE:
	case COMMAND_ROUTER_ALTER:
	case COMMAND_ROUTER_DELETE:
	case COMMAND_ROUTER_BIND:
	case COMMAND_ROUTER_UNBIND:
	case COMMAND_LIFECYCLE_CREATE:
	case COMMAND_LIFECYCLE_ALTER:
	case COMMAND_LIFECYCLE_DELETE:
		return object_of_topology(command);
	case COMMAND_PRODUCER_OPEN:
		return NAME_OF(ProducerOpen, name);
	case COMMAND_PRODUCER_CLOSE:
		*ret_number = ((const Sluice__ProducerClose *)command->message)->producer;
		return none;
	case COMMAND_CLAIM:
		*ret_number = ((const struct cmd_claim *)command->body)->queue;
		return none;
	case COMMAND_ACK:
		*ret_number = ((const struct cmd_ack *)command->body)->queue;
		return none;
	case COMMAND_JOB_SUBMIT:
	case COMMAND_JOB_INTENT:
	case COMMAND_JOB_REPORT:
	case COMMAND_JOB_RELEASE:
	case COMMAND_JOB_CANCEL:
	case COMMAND_JOB_RESET:
	case COMMAND_QUARANTINE_PURGE:
		return object_of_job(command);
	case COMMAND_SOURCE_SEEN:
		return NAME_OF(SourceSeen, source);
	case COMMAND_PUBLISH:
	case COMMAND_TXN:
	case COMMAND_JOB_RETENTION:
	case COMMAND_SESSION_CLOSE:
	case COMMAND_SESSION_EXPIRE:
	case COMMAND_SESSION_ALTER:
	case COMMAND_TICK:
	case COMMAND_BOOT:
	case COMMAND_LEVEL_RAISE:
		return none;
	}
	return none;
}

int admit_command(struct conn *conn, const struct command *command)
{
	uint64_t number = 0;
	struct sluice_slice on;
	int rc;

	conn->admitted = true;
	if (conn->io->net->config.admission == NULL)
		return 0;
	on = object_of(command, &number);
	if (command->type == COMMAND_PUBLISH)
		rc = ask_publish(conn, command->body);
	else if (command->type == COMMAND_SESSION_ALTER)
		rc = ask_alter(conn, command->body);
	else if (command->type == COMMAND_TXN)
		rc = ask_txn(conn, (const Sluice__Txn *)command->message);
	else
		rc = ask_type(conn, (enum command_type)command->type, on, number);
	conn->admitted = rc == 0;
	return rc;
}

/* ---- reads and the rest ---- */

static struct sluice_slice read_object(const Sluice__Request *request)
{
	switch (request->op_case) {
	case SLUICE__REQUEST__OP_STREAM_SHOW:
		return text(request->stream_show->name);
	case SLUICE__REQUEST__OP_QUEUE_SHOW:
		return text(request->queue_show->name);
	case SLUICE__REQUEST__OP_QUEUE_PEEK:
		return text(request->queue_peek->name);
	case SLUICE__REQUEST__OP_ROUTER_SHOW:
		return text(request->router_show->name);
	case SLUICE__REQUEST__OP_LIFECYCLE_SHOW:
		return text(request->lifecycle_show->name);
	case SLUICE__REQUEST__OP_JOB_SHOW:
		return text(request->job_show->job);
	case SLUICE__REQUEST__OP_JOB_HISTORY:
		return text(request->job_history->job);
	case SLUICE__REQUEST__OP_JOB_EXPLAIN:
		return text(request->job_explain->job);
	default:
		return (struct sluice_slice){"", 0}; /* a list, or facts of the gateway */
	}
}

static const char *read_permission(const Sluice__Request *request)
{
	switch ((int)request->op_case) {
#define QUERY(NAME, answer, permission)  \
	case SLUICE__REQUEST__OP_##NAME: \
		return permission;
#include "broker/core/queries.def"
#undef QUERY
	default:
		return ""; /* no read: core refuses it */
	}
}

int admit_read(struct conn *conn, const Sluice__Request *request)
{
	return admit(conn, read_permission(request), read_object(request), 0);
}

int admit(struct conn *conn, const char *permission, struct sluice_slice on, uint64_t number)
{
	int rc = ask(conn, permission, on, number);

	conn->admitted = rc == 0;
	return rc;
}

void admitted(struct conn *conn, const char *what)
{
	invariant(conn->admitted, "connection %llu: %s was not admitted", ULL(conn->id), what);
	conn->admitted = false;
}

bool admit_again(struct conn *conn, const char *permission, struct sluice_slice on)
{
	return ask(conn, permission, on, 0) == 0;
}
