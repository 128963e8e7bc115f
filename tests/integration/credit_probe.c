/* SPDX-License-Identifier: Apache-2.0
 * credit_probe ADDRESS: a consumer with credit for 5 of 20 items, whose leases of a second it does
 * not extend. When it has 5 it prints "holding" and waits for SIGUSR1 (the connection was cut until
 * the leases expired). It still holds them, so there is no credit for more: it prints "resumed
 * COUNT", the number of all items received until the resume was certainly complete. Then it acks
 * the first 5, whose leases have ended, gets 5 more for them and prints "stale COUNT"; then it acks
 * all further items, and prints "all" when each item was acked under its last lease. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sluice/client.h"

enum { CREDIT = 5, ITEMS = 20, GIVEN_MAX = 1000 };

static struct given {
	sluice_token token;
	uint64_t seq;
} given[GIVEN_MAX];
static atomic_int count;
static volatile sig_atomic_t go;

static void on_signal(int number)
{
	go = number;
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	int at = atomic_load(&count);

	(void)sub;
	(void)user;
	if (view->kind != SLUICE_DELIVERY_ITEM || at == GIVEN_MAX)
		return;
	given[at] = (struct given){view->token, view->seq};
	atomic_store(&count, at + 1);
}

static void wait_for(int least)
{
	while (atomic_load(&count) < least)
		(void)usleep(5000);
}

static void say(const char *text, int number)
{
	(void)printf("%s %d\n", text, number);
	(void)fflush(stdout);
}

/* When these are answered, credit would have been used if it had been given. */
static int rounds(sluice_client *client, const sluice_call *call)
{
	int rc = 0;

	for (int i = 0; i < 5 && rc == 0; i++)
		rc = sluice_status(client, call, NULL);
	return rc;
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	sluice_sub *sub = NULL;
	sluice_call call = SLUICE_CALL(.deadline_ms = 30000);
	int acked = CREDIT, done = 0;

	(void)signal(SIGUSR1, on_signal);
	if (argc != 2 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "100") != 0 ||
	    sluice_config_set(config, "lease_extend", "no") != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0 ||
	    sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "work", .max_attempts = 1000),
				NULL, NULL) != 0)
		return 2;
	for (int i = 0; i < ITEMS; i++)
		if (sluice_publish(client,
				   &SLUICE_MESSAGE(.subject = "x", .queue = "work",
						   .body = {"b", 1}),
				   NULL, NULL) != 0)
			return 2;
	if (sluice_consume(client,
			   &SLUICE_CONSUME_SPEC(.queue = "work", .credit = CREDIT, .lease_ms = 1000,
						.on_delivery = on_delivery),
			   NULL, &sub) != 0)
		return 2;
	wait_for(CREDIT);
	say("holding", CREDIT);
	while (!go)
		(void)usleep(5000);
	if (rounds(client, &call) != 0)
		return 3;
	say("resumed", atomic_load(&count));
	/* The item is now under another session's lease, or under a newer one of this session. */
	for (int i = 0; i < CREDIT; i++)
		if (sluice_item_ack(sub, given[i].token, given[i].seq, &call, NULL) == 0)
			return 3;
	wait_for(2 * CREDIT);
	if (rounds(client, &call) != 0)
		return 3;
	say("stale", atomic_load(&count));
	while (done < ITEMS) {
		wait_for(acked + 1);
		done += sluice_item_ack(sub, given[acked].token, given[acked].seq, &call, NULL) ==
			0;
		acked++;
	}
	say("all", done);
	sluice_config_destroy(config);
	return sluice_close(client, true, 5000) == 0 ? 0 : 4;
}
