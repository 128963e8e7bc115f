/* SPDX-License-Identifier: Apache-2.0
 * drain_probe ADDRESS publish|request|untaken: a client of a broker that stops. It prints "ready"
 * and waits for SIGUSR1. Then with
 *   publish, request: it publishes or creates something whose answer is withheld, waits until the
 *     broker is known to stop (a NOTICE JOB_CANCEL behind its NOTICE), and then makes the calls;
 *   untaken: it makes the calls, and closes a subscription, at once.
 * The calls: a publish, a create that cannot be repeated, an ack, a transaction. It prints "asked",
 * then "answered" when all have ended, with one line for each. */
#include <signal.h>

#include "tests/integration/probe.h"

static volatile sig_atomic_t go;
static atomic_int told, broken, resumed, ended;

static void on_signal(int number)
{
	go = number;
}

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)client;
	(void)user;
	if (notice->kind == SLUICE_NOTICE_JOB_CANCEL)
		atomic_store(&told, 1);
	if (notice->kind == SLUICE_NOTICE_DISCONNECTED)
		atomic_fetch_add(&broken, 1);
	if (notice->kind == SLUICE_NOTICE_RESUMED)
		atomic_fetch_add(&resumed, 1);
}

static void on_done(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	(void)printf("%s %s%s\n", (const char *)user, sluice_error_name(sluice_reply_code(reply)),
		     sluice_reply_duplicate(reply) ? " duplicate" : "");
	(void)fflush(stdout);
	atomic_fetch_add(&ended, 1);
}

static void say(const char *what)
{
	(void)printf("%s\n", what);
	(void)fflush(stdout);
}

static char names[][16] = {"outstanding", "publish", "create", "ack", "transaction"};

static sluice_call call_of(int name)
{
	return SLUICE_CALL(.deadline_ms = PATIENCE_MS, .done = on_done, .user = names[name]);
}

static void outstanding(sluice_client *client, bool request)
{
	sluice_call call = call_of(0);

	if (request)
		EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "outstanding"), &call,
					  NULL),
		      0);
	else
		EQUAL(sluice_publish(client,
				     &SLUICE_MESSAGE(.subject = "s.x", .body = {"outstanding", 11}),
				     &call, NULL),
		      0);
	CHECK(reaches(&told, 1));
}

static void commit(sluice_client *client, const char *body, const sluice_call *call)
{
	sluice_txn *txn = sluice_txn_create();

	EQUAL(sluice_txn_publish(txn,
				 &SLUICE_MESSAGE(.subject = "s.x", .body = {body, strlen(body)})),
	      0);
	EQUAL(sluice_txn_commit(client, txn, call, NULL), 0);
	sluice_txn_destroy(txn);
}

static void ask(sluice_client *client, sluice_sub *items, const sluice_delivery_view *item)
{
	const sluice_call publish = call_of(1), create = call_of(2), ack = call_of(3),
			  transaction = call_of(4);

	EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "s.x", .body = {"kept", 4}),
			     &publish, NULL),
	      0);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "new"), &create, NULL), 0);
	EQUAL(sluice_item_ack(items, item->token, item->seq, &ack, NULL), 0);
	commit(client, "in a transaction", &transaction);
}

int main(int argc, char **argv)
{
	sluice_client *client;
	sluice_sub *items = NULL, *events = NULL;
	sluice_delivery *item = NULL;
	bool untaken = argc == 3 && strcmp(argv[2], "untaken") == 0;

	if (argc != 3)
		return 2;
	address = argv[1];
	(void)signal(SIGUSR1, on_signal);
	client = client_of(on_notice, NULL, NULL);
	stream_with(client, "s", "s.x", 1);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "q"), NULL, NULL), 0);
	EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "x", .queue = "q"), NULL, NULL), 0);
	commit(client, "first", NULL);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q", .credit = 5), NULL, &items),
	      0);
	EQUAL(sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = "s"), NULL, &events), 0);
	EQUAL(sluice_sub_next(items, PATIENCE_MS, &item), 0);
	if (item == NULL)
		return 1;
	say("ready");
	while (!go)
		(void)usleep(5000);
	if (!untaken)
		outstanding(client, strcmp(argv[2], "request") == 0);
	ask(client, items, sluice_delivery_get(item));
	say("asked");
	if (untaken)
		EQUAL(sluice_sub_close(events, PATIENCE_MS), 0);
	CHECK(reaches(&ended, untaken ? 4 : 5));
	CHECK(atomic_load(&broken) == 1);
	CHECK(atomic_load(&resumed) == 1);
	say("answered");
	sluice_delivery_free(item);
	(void)sluice_close(client, true, PATIENCE_MS);
	return atomic_load(&failures) == 0 ? 0 : 1;
}
