/* SPDX-License-Identifier: Apache-2.0
 * Admission: nothing reaches the engine or the store unasked, and a rule is asked for the right
 * permission and object. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/conn.h"
#include "broker/net/io/io.h"
#include "protocol/envelope.h"
#include "tests/unit/net_rig.h"

/* ---- a rule that notes what it is asked ---- */

struct noted {
	char permission[32], on[64];
};
struct rule {
	bool deny;
	const char *deny_on; /* only this object; NULL: all */
	unsigned asked;
	struct noted last;
};

static int may(void *user, const struct admission_question *question)
{
	struct rule *rule = user;
	size_t len = question->on.len < sizeof(rule->last.on) - 1 ? question->on.len
								  : sizeof(rule->last.on) - 1;

	rule->asked++;
	(void)snprintf(rule->last.permission, sizeof(rule->last.permission), "%s",
		       question->permission);
	memcpy(rule->last.on, question->on.data, len);
	rule->last.on[len] = 0;
	if (!rule->deny || (rule->deny_on != NULL && strcmp(rule->deny_on, rule->last.on) != 0))
		return 0;
	return SLUICE_E_DENIED;
}

static struct rule rule;
static const struct admission admission = {.may = may, .user = &rule};

static void ruled(struct rig *rig)
{
	memset(&rule, 0, sizeof(rule));
	greet(rig);
	rig->net->config.admission = &admission;
}

static uint64_t commands(struct rig *rig)
{
	struct engine_facts facts;

	engine_facts_get(rig->engine, &facts);
	return facts.commands;
}

/* A request with an empty message in it, and the number 1 for what is subscribed. freed by the
 * caller with free(*ret_message). */
static bool request_of(const ProtobufCFieldDescriptor *field, Sluice__Request *ret,
		       ProtobufCMessage **ret_message)
{
	const ProtobufCMessageDescriptor *descriptor = field->descriptor;
	const ProtobufCFieldDescriptor *number =
		protobuf_c_message_descriptor_get_field_by_name(descriptor, "subscription");
	ProtobufCMessage *message = malloc(descriptor->sizeof_message);

	cr_assert_not_null(message);
	protobuf_c_message_init(descriptor, message);
	if (number != NULL)
		*(uint32_t *)(void *)((char *)message + number->offset) = 1;
	sluice__request__init(ret);
	ret->op_case = (Sluice__Request__OpCase)field->id;
	memcpy((char *)ret + field->offset, &message, sizeof(message));
	*ret_message = message;
	return field->id != SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE; /* takes nothing */
}

Test(net_door, nothing_reaches_the_engine_unasked)
{
	const ProtobufCMessageDescriptor *descriptor = &sluice__request__descriptor;
	struct rig rig;
	uint64_t before;

	ruled(&rig);
	rule.deny = true;
	before = commands(&rig);
	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		Sluice__Request request;
		ProtobufCMessage *message;
		bool asks = request_of(&descriptor->fields[i], &request, &message);
		unsigned asked = rule.asked;

		if (request.op_case == SLUICE__REQUEST__OP_TXN) {
			/* Its operations are what is asked for; without any there is nothing. */
			free(message);
			continue;
		}
		ask(&rig, i + 1, &request);
		cr_assert_eq(reply_code(&rig, i + 1), asks ? SLUICE_E_DENIED : SLUICE_E_NOT_FOUND,
			     "%s", descriptor->fields[i].name);
		cr_assert_eq(rule.asked, asked + asks, "%s", descriptor->fields[i].name);
		free(message);
	}
	cr_assert_eq(commands(&rig), before, "the engine has seen none of them");
	rig_close(&rig);
}

Test(net_door, a_transaction_is_asked_for_by_its_operations)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__Txn txn = SLUICE__TXN__INIT;
	Sluice__TxnOp ops[2] = {SLUICE__TXN_OP__INIT, SLUICE__TXN_OP__INIT}, *list[2];
	Sluice__TxnPublish publish = SLUICE__TXN_PUBLISH__INIT;
	Sluice__JobCancel cancel = SLUICE__JOB_CANCEL__INIT;
	char subject[] = "a.b", job[] = "j1";
	struct rig rig;
	uint64_t before;

	ruled(&rig);
	publish.subject = subject;
	cancel.job = job;
	ops[0].op_case = SLUICE__TXN_OP__OP_PUBLISH;
	ops[0].publish = &publish;
	ops[1].op_case = SLUICE__TXN_OP__OP_JOB_CANCEL;
	ops[1].job_cancel = &cancel;
	list[0] = &ops[0];
	list[1] = &ops[1];
	txn.n_ops = 2;
	txn.ops = list;
	request.op_case = SLUICE__REQUEST__OP_TXN;
	request.txn = &txn;
	rule.deny = true;
	rule.deny_on = job;
	before = commands(&rig);
	ask(&rig, 1, &request);
	cr_assert_eq(reply_code(&rig, 1), SLUICE_E_DENIED);
	cr_assert_eq(rule.asked, 2u);
	cr_assert_str_eq(rule.last.permission, "job.cancel");
	cr_assert_str_eq(rule.last.on, "j1");
	cr_assert_eq(commands(&rig), before);
	rig_close(&rig);
}

/* ---- PUBLISH: granted verdicts are remembered, and each event of a batch is asked for ---- */

static size_t publish_frame(uint8_t frame[512 + FRAME_HEADER_BYTES], const char *subject,
			    const char *own_1, const char *own_2)
{
	struct envelope envelope = {.body = {"x", 1}};
	uint8_t events[256], body[512];
	struct frame_publish batch = {.count = own_1 != NULL ? 2 : 1,
				      .subject = {subject, strlen(subject)}};
	struct frame_header header = {.type = FRAME_PUBLISH, .corr = 9};
	size_t len = 0;

	for (uint32_t i = 0; i < batch.count; i++) {
		const char *own = own_1 == NULL ? "" : i == 0 ? own_1 : own_2;

		envelope.subject = (struct sluice_slice){own, strlen(own)};
		len += envelope_encode(events + len, &envelope);
	}
	batch.payload = (struct sluice_slice){events, len};
	batch.raw_bytes = (uint32_t)len;
	header.body_bytes = (uint32_t)frame_publish_encode(body, &batch);
	frame_header_encode(frame, &header);
	memcpy(frame + FRAME_HEADER_BYTES, body, header.body_bytes);
	return FRAME_HEADER_BYTES + header.body_bytes;
}

static void publish(struct rig *rig, const char *subject, const char *own_1, const char *own_2)
{
	uint8_t frame[512 + FRAME_HEADER_BYTES];

	feed(rig, frame, publish_frame(frame, subject, own_1, own_2));
}

/* Without a turn of the engine. */
static void write_publish(struct rig *rig, const char *subject)
{
	uint8_t frame[512 + FRAME_HEADER_BYTES];
	size_t len = publish_frame(frame, subject, NULL, NULL);

	cr_assert_eq(write(rig->fd, frame, len), (ssize_t)len);
}

static int32_t published(struct rig *rig)
{
	struct frame_header header;
	struct frame_published answer;
	struct sluice_slice rest;
	uint8_t body[4096];
	const char *why = "";

	cr_assert_eq(answer_body(rig, &header, body), FRAME_PUBLISHED);
	rest = (struct sluice_slice){body + 2, header.body_bytes - 2};
	cr_assert_eq(frame_published_decode(&rest, &answer, &why), 0, "%s", why);
	return answer.code;
}

Test(net_door, a_publish_is_asked_for_by_its_subjects)
{
	struct rig rig;

	ruled(&rig);
	publish(&rig, "a.b", NULL, NULL);
	cr_assert_eq(published(&rig), 0);
	cr_assert_str_eq(rule.last.permission, "publish");
	cr_assert_str_eq(rule.last.on, "a.b");
	publish(&rig, "a.b", NULL, NULL);
	cr_assert_eq(published(&rig), 0);
	cr_assert_eq(rule.asked, 1u, "the verdict was remembered");
	rig.net->ios[0].security++;
	rule.deny = true;
	publish(&rig, "a.b", NULL, NULL);
	cr_assert_eq(published(&rig), SLUICE_E_DENIED, "not over a change of the rules");
	publish(&rig, "a.b", NULL, NULL);
	cr_assert_eq(published(&rig), SLUICE_E_DENIED, "a refusal is not remembered");
	cr_assert_eq(rule.asked, 3u);
	rule.deny_on = "y.2";
	publish(&rig, "", "y.1", "y.2");
	cr_assert_eq(published(&rig), SLUICE_E_DENIED, "one subject refuses the batch");
	rig_close(&rig);
}

Test(net_door, only_the_broker_itself_says_whose_session_it_is)
{
	struct cmd_session_alter alter = {.timeout_ms = 60000};
	struct command command = {.type = COMMAND_SESSION_ALTER, .body = &alter};
	struct rig rig;

	ruled(&rig);
	cr_assert_eq(admit_command(rig.net->ios[0].conns, &command), 0);
	cr_assert_str_eq(rule.last.permission, "session");
	for (int i = 0; i < 3; i++) {
		struct sluice_slice *members[] = {&alter.principal, &alter.via, &alter.address};

		alter = (struct cmd_session_alter){.timeout_ms = 60000};
		*members[i] = (struct sluice_slice){"ada", 3};
		cr_assert_eq(admit_command(rig.net->ios[0].conns, &command), 0);
		cr_assert_str_eq(rule.last.permission, "internal");
	}
	rig_close(&rig);
}

Test(net_door, a_verdict_is_of_the_gateway_that_it_was_made_in)
{
	const struct sluice_slice on = {"a.b", 3};
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__GatewayCreate create = SLUICE__GATEWAY_CREATE__INIT;
	char name[] = "other";
	struct conn *conn;
	struct rig rig;
	int pair[2];

	ruled(&rig);
	create.name = name;
	request.op_case = SLUICE__REQUEST__OP_GATEWAY_CREATE;
	request.gateway_create = &create;
	ask(&rig, 1, &request);
	cr_assert_eq(reply_code(&rig, 1), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(net_adopt(rig.net, &native_protocol, NULL, pair[0]), 0);
	turn(&rig);
	conn = conn_find(&rig.net->ios[0], 2);
	cr_assert_not_null(conn);
	cr_assert_eq(door_enter(conn, (struct sluice_slice){"default", 7}), 0);
	cr_assert_eq(admit(conn, "publish", on, 0), 0);
	rule.asked = 0;
	cr_assert_eq(door_enter(conn, (struct sluice_slice){"default", 7}), 0);
	cr_assert_eq(admit(conn, "publish", on, 0), 0);
	cr_assert_eq(rule.asked, 0u, "it is still there");
	rule.deny = true;
	cr_assert_eq(door_enter(conn, (struct sluice_slice){name, strlen(name)}), 0);
	cr_assert_eq(admit(conn, "publish", on, 0), SLUICE_E_DENIED);
	(void)close(pair[1]);
	rig_close(&rig);
}

Test(net_door, a_protocol_sends_none_of_the_brokers_own_commands)
{
	const uint16_t types[] = {COMMAND_TICK, COMMAND_BOOT, COMMAND_SESSION_EXPIRE, 999};
	struct rig rig;

	ruled(&rig);
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		const struct command command = {.type = types[i]};

		cr_expect_eq(door_submit(rig.net->ios[0].conns, 1, &command, (struct door_block){0},
					 1, DOOR_DATA, 0),
			     SLUICE_E_UNKNOWN_TYPE, "%u", types[i]);
	}
	cr_expect_eq(rule.asked, 0u);
	rig_close(&rig);
}

/* ---- what nobody asked for ---- */

Test(net_door, a_command_that_was_not_asked_for_ends_the_process)
{
	static const struct rlimit no_core = {0, 0};
	const struct command command = {.type = COMMAND_TICK};
	struct rig rig;
	int status = 0;
	pid_t child;

	greet(&rig);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)signal(SIGABRT, SIG_DFL);
		_exit(conn_submit(rig.net->ios[0].conns, &command, (struct door_block){0}, 1, true,
				  0, false));
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %#x",
		  (unsigned)status);
	rig_close(&rig);
}

/* ---- a change of the rules ---- */

static void consume(struct rig *rig, uint32_t subscription, uint32_t corr)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__ConsumeOpen open = SLUICE__CONSUME_OPEN__INIT;
	char queue[] = "dead-letter";

	open.queue = queue;
	open.subscription = subscription;
	open.credit = 10;
	request.op_case = SLUICE__REQUEST__OP_CONSUME_OPEN;
	request.consume_open = &open;
	ask(rig, corr, &request);
	cr_assert_eq(reply_code(rig, corr), 0);
}

/* The version of the rules that the thread has reported. */
static uint64_t reported(struct rig *rig)
{
	return rig->net->ios[0].security_reported;
}

Test(net_door, a_change_of_the_rules_ends_what_lost_its_right)
{
	struct rig rig;
	struct frame_header header;
	uint8_t body[4096];

	ruled(&rig);
	consume(&rig, 1, 1);
	io_security(&rig.net->ios[0], 1);
	turns(&rig);
	cr_assert_eq(reported(&rig), 1u);
	cr_assert_not_null(rig.net->ios[0].conns->subs, "it still has its right");
	rule.deny = true;
	io_security(&rig.net->ios[0], 2);
	cr_assert_eq(answer_body(&rig, &header, body), FRAME_NOTICE);
	turns(&rig);
	cr_assert_null(rig.net->ios[0].conns->subs);
	cr_assert_eq(reported(&rig), 2u, "after the consumer's last event");
	rig_close(&rig);
}

Test(net_door, a_change_of_the_rules_ends_the_waits_for_a_job_that_may_not_be_seen)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__JobSubmit submit = SLUICE__JOB_SUBMIT__INIT;
	Sluice__JobWait wait = SLUICE__JOB_WAIT__INIT;
	char queue[] = "jobs", jobs[2][3] = {"j1", "j2"};
	struct rig rig;

	ruled(&rig);
	config.name = submit.queue = queue;
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	create.config = &config;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_CREATE;
	request.queue_create = &create;
	ask(&rig, 1, &request);
	cr_assert_eq(reply_code(&rig, 1), 0);
	for (uint32_t n = 0; n < 2; n++) {
		submit.job = wait.job = jobs[n];
		request.op_case = SLUICE__REQUEST__OP_JOB_SUBMIT;
		request.job_submit = &submit;
		ask(&rig, 2 + n, &request);
		cr_assert_eq(reply_code(&rig, 2 + n), 0);
		request.op_case = SLUICE__REQUEST__OP_JOB_WAIT;
		request.job_wait = &wait;
		ask(&rig, 10 + n, &request);
	}
	turns(&rig);
	cr_assert_eq(rig.net->ios[0].conns->waiter_count, 2u);
	rule.deny = true;
	rule.deny_on = jobs[1];
	io_security(&rig.net->ios[0], 1);
	cr_assert_eq(reply_code(&rig, 11), SLUICE_E_DENIED);
	turns(&rig);
	cr_assert_eq(rig.net->ios[0].conns->waiter_count, 1u, "the other one stays");
	cr_assert_eq(reported(&rig), 1u);
	rig_close(&rig);
}

/* The engine may claim for a consumer until it has handled its close, whatever becomes of the
 * connection. */
Test(net_door, a_change_is_reported_after_the_last_event_of_a_consumer_without_connection)
{
	for (int closed_before = 0; closed_before < 2; closed_before++) {
		struct rig rig;

		ruled(&rig);
		consume(&rig, 1, 1);
		rule.deny = true;
		if (closed_before == 1) {
			cr_assert_eq(close(rig.fd), 0);
			for (int n = 0; n < 10; n++)
				(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
		}
		io_security(&rig.net->ios[0], 1);
		(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
		if (closed_before == 0)
			cr_assert_eq(close(rig.fd), 0);
		rig.fd = -1;
		for (int n = 0; n < 10; n++)
			(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
		cr_assert_null(rig.net->ios[0].conns, "its connection is gone");
		cr_expect_eq(reported(&rig), 0u, "the engine has not seen that it is closed");
		turns(&rig);
		cr_expect_eq(reported(&rig), 1u);
		cr_expect_eq(rig.net->ios[0].under_way, 0u);
		cr_expect_null(rig.net->ios[0].gone);
		rig_close(&rig);
	}
}

/* Nothing that was asked for before the change is applied after the report. */
Test(net_door, a_change_is_reported_when_what_was_sent_before_is_answered)
{
	struct rig rig;

	ruled(&rig);
	publish(&rig, "a.b", NULL, NULL);
	cr_assert_eq(published(&rig), 0);
	/* A publish that the engine has not taken yet. */
	write_publish(&rig, "a.b");
	(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
	cr_assert_eq(rig.net->ios[0].under_way, 1u);
	rule.deny = true;
	io_security(&rig.net->ios[0], 1);
	(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
	cr_assert_eq(reported(&rig), 0u, "the publish is under way");
	/* One that comes after the change is refused, although the older one is under way. */
	write_publish(&rig, "a.b");
	(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
	cr_assert_eq(rig.net->ios[0].under_way, 1u);
	cr_assert_eq(published(&rig), SLUICE_E_DENIED);
	cr_assert_eq(published(&rig), 0, "the older one was admitted");
	turns(&rig);
	cr_assert_eq(reported(&rig), 1u);
	rig_close(&rig);
}
