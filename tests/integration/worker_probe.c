/* SPDX-License-Identifier: Apache-2.0
 *
 * worker_probe ADDRESS QUEUE CREDIT END: a worker whose session has a timeout of one second and
 * whose leases last as long as the session. It waits until READY items (environment variable,
 * default 0) are leased, takes one and prints "begun NUMBER". Then, by END:
 *
 *   die       it is killed while it holds the item
 *   ack-die   it acks, waits for the answer, and is killed
 *   close     it acks, closes the subscription and the client; the session stays
 *   leave     it acks and closes only the client
 *   drain     it acks and drains: it acks all items that still come, prints "drained COUNT" and
 *             closes
 *
 * Two do not take an item first:
 *
 *   begin     the callback reports the third item alone as begun, and is killed
 *   callback  the callback of the first item acks it and closes the subscription
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sluice/client.h"

static atomic_bool called;

static void say(const char *text, unsigned long long number)
{
	(void)printf("%s %llu\n", text, number);
	(void)fflush(stdout);
}

static void on_third(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	static int count;

	(void)user;
	if (view->kind != SLUICE_DELIVERY_ITEM || ++count != 3)
		return;
	say("begun", view->seq);
	(void)sluice_item_begin(sub, view->token, view->seq);
	(void)raise(SIGKILL);
}

static void on_item(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	(void)user;
	if (view->kind != SLUICE_DELIVERY_ITEM)
		return;
	(void)sluice_item_ack(sub, view->token, view->seq, &SLUICE_CALL(.user = SLUICE_FIRE), NULL);
	say("begun", view->seq);
	(void)sluice_sub_close(sub, 0);
	atomic_store(&called, true);
}

static int leased(sluice_client *client, const char *queue, unsigned long long want)
{
	for (int tries = 0; tries < 2000; tries++) {
		sluice_queue_info info = SLUICE_QUEUE_INFO();
		sluice_reply *reply = NULL;
		bool enough =
			sluice_object_show(client, SLUICE_OBJECT_QUEUE, queue, NULL, &reply) == 0 &&
			sluice_reply_queue(reply, 0, &info) && info.leased >= want;

		sluice_reply_free(reply);
		if (enough)
			return 0;
		(void)usleep(5000);
	}
	return 1;
}

static int take(sluice_sub *sub, bool ack, unsigned long long *ret_seq)
{
	sluice_delivery *delivery = NULL;
	int rc = sluice_sub_next(sub, 10000, &delivery);

	if (rc != 0)
		return rc;
	*ret_seq = sluice_delivery_get(delivery)->seq;
	if (ack)
		rc = sluice_item_ack(sub, sluice_delivery_get(delivery)->token, *ret_seq, NULL,
				     NULL);
	sluice_delivery_free(delivery);
	return rc;
}

static int drained(sluice_sub *sub)
{
	unsigned long long seq = 0, count = 0;
	int rc = sluice_sub_drain(sub, 1);

	if (rc != 0 && rc != SLUICE_E_TIMEOUT)
		return rc;
	while ((rc = take(sub, true, &seq)) == 0)
		count++;
	if (rc != SLUICE_E_CLOSED || (rc = sluice_sub_drain(sub, 10000)) != 0)
		return rc != 0 ? rc : 1;
	say("drained", count);
	return 0;
}

static int work(sluice_client *client, sluice_sub *sub, const char *end)
{
	unsigned long long seq = 0;
	int rc = take(sub, strcmp(end, "die") != 0, &seq);

	if (rc != 0)
		return rc;
	say("begun", seq);
	if (strcmp(end, "die") == 0 || strcmp(end, "ack-die") == 0)
		(void)raise(SIGKILL);
	if (strcmp(end, "drain") == 0)
		rc = drained(sub);
	if (rc == 0 && strcmp(end, "leave") != 0)
		rc = sluice_sub_close(sub, 10000);
	return rc != 0 ? rc : sluice_close(client, false, 10000);
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	sluice_sub *sub = NULL;
	sluice_consume_spec spec = SLUICE_CONSUME_SPEC(.session_lease = true);
	bool begin = argc == 5 && strcmp(argv[4], "begin") == 0;
	bool callback = begin || (argc == 5 && strcmp(argv[4], "callback") == 0);
	const char *ready = getenv("READY");
	int rc;

	if (argc != 5 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "session_timeout_ms", "1000") != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0)
		return 2;
	sluice_config_destroy(config);
	spec.queue = argv[2];
	spec.credit = (uint32_t)atoi(argv[3]);
	spec.on_delivery = begin ? on_third : callback ? on_item : NULL;
	spec.report_begun = begin;
	rc = sluice_consume(client, &spec, NULL, &sub);
	if (callback) {
		for (int i = 0; i < 2000 && !atomic_load(&called); i++)
			(void)usleep(5000);
		rc = sluice_close(client, false, 10000);
	} else if (rc == 0) {
		say("open", 0);
		rc = leased(client, spec.queue, ready != NULL ? strtoull(ready, NULL, 10) : 0);
		rc = rc != 0 ? rc : work(client, sub, argv[4]);
	}
	if (rc != 0)
		say(sluice_error_text(rc), (unsigned long long)-rc);
	return rc != 0;
}
