/* SPDX-License-Identifier: Apache-2.0
 * pair_probe ADDRESS: two consumers of one queue in one client, each with credit for 5 of 12 items.
 * When both have their items it prints "holding" and waits for SIGUSR1 (the broker was killed and
 * restarted, and the session resumed), then acks all. Items are printed as "item BODY CONSUMER";
 * the other two items must arrive then, and none twice. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sluice/client.h"

enum { CREDIT = 5, ITEMS = 12 };

struct given {
	sluice_token token;
	uint64_t seq;
};
static struct consumer {
	struct given given[64];
	atomic_int count;
} consumers[2];
static volatile sig_atomic_t go;
static atomic_int resumed;

static void on_signal(int number)
{
	go = number;
}

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)client;
	(void)user;
	if (notice->kind == SLUICE_NOTICE_RESUMED)
		atomic_store(&resumed, 1);
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	struct consumer *consumer = user;
	int at = atomic_load(&consumer->count);

	(void)sub;
	if (view->kind != SLUICE_DELIVERY_ITEM || at == 64)
		return;
	(void)printf("item %.*s %d\n", (int)view->body.len, (const char *)view->body.data,
		     (int)(consumer - consumers));
	(void)fflush(stdout);
	consumer->given[at] = (struct given){view->token, view->seq};
	atomic_store(&consumer->count, at + 1);
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	sluice_sub *subs[2] = {NULL, NULL};
	char body[8];

	(void)signal(SIGUSR1, on_signal);
	if (argc != 2 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "100") != 0 ||
	    sluice_open(config, on_notice, NULL, &client) != 0 ||
	    sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "work"), NULL, NULL) != 0)
		return 2;
	for (int i = 0; i < ITEMS; i++) {
		(void)snprintf(body, sizeof(body), "%d", i);
		if (sluice_publish(client,
				   &SLUICE_MESSAGE(.subject = "x", .queue = "work",
						   .body = {body, strlen(body)}),
				   NULL, NULL) != 0)
			return 2;
	}
	for (int i = 0; i < 2; i++)
		if (sluice_consume(client,
				   &SLUICE_CONSUME_SPEC(.queue = "work", .credit = CREDIT,
							.lease_ms = 600000,
							.on_delivery = on_delivery,
							.user = &consumers[i]),
				   NULL, &subs[i]) != 0)
			return 2;
	while (atomic_load(&consumers[0].count) < CREDIT ||
	       atomic_load(&consumers[1].count) < CREDIT)
		(void)usleep(5000);
	(void)printf("holding\n");
	(void)fflush(stdout);
	while (!go || !atomic_load(&resumed))
		(void)usleep(5000);
	/* When this is answered, the redeliveries to the resumed consumers have been handled. */
	for (int i = 0; i < 3; i++)
		if (sluice_status(client, &SLUICE_CALL(.deadline_ms = 30000), NULL) != 0)
			return 3;
	(void)printf("resumed\n");
	(void)fflush(stdout);
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < CREDIT; k++)
			(void)sluice_item_ack(subs[i], consumers[i].given[k].token,
					      consumers[i].given[k].seq,
					      &SLUICE_CALL(.user = SLUICE_FIRE), NULL);
	while (atomic_load(&consumers[0].count) + atomic_load(&consumers[1].count) < ITEMS)
		(void)usleep(5000);
	(void)printf("all\n");
	(void)fflush(stdout);
	(void)pause(); /* until the test ends this process */
	return 0;
}
