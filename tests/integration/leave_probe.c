/* SPDX-License-Identifier: Apache-2.0
 * leave_probe ADDRESS [unseen]: two consumers of the queue "work" in one client. The first has
 * credit for 5, takes one ("hand ID") and leaves the others in the library; the second gets the
 * rest, and prints "item ID" for each. When it has 7 the probe prints "holding" and waits for
 * SIGUSR1 and a resumed session, then closes the first consumer and prints "closed".
 *
 * unseen: the first takes nothing, and the second has no credit until another SIGUSR1 after
 * "closed". */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sluice/client.h"

enum { CREDIT = 5, REST = 7 };

static volatile sig_atomic_t go;
static atomic_int resumed, count;

static void on_signal(int number)
{
	(void)number;
	go++;
}

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)client;
	(void)user;
	if (notice->kind == SLUICE_NOTICE_RESUMED)
		atomic_store(&resumed, 1);
}

static void say(const char *text)
{
	(void)printf("%s\n", text);
	(void)fflush(stdout);
}

static void print(const char *what, const sluice_delivery_view *view)
{
	if (view->kind == SLUICE_DELIVERY_JOB)
		(void)printf("%s %s\n", what, view->job);
	else
		(void)printf("%s %.*s\n", what, (int)view->body.len, (const char *)view->body.data);
	(void)fflush(stdout);
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	(void)sub;
	(void)user;
	if (view->kind != SLUICE_DELIVERY_ITEM && view->kind != SLUICE_DELIVERY_JOB)
		return;
	print("item", view);
	atomic_fetch_add(&count, 1);
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_consume_spec spec =
		SLUICE_CONSUME_SPEC(.queue = "work", .credit = CREDIT, .lease_ms = 600000);
	sluice_client *client = NULL;
	sluice_sub *first = NULL, *second = NULL;
	sluice_delivery *delivery = NULL;
	bool unseen = argc == 3 && strcmp(argv[2], "unseen") == 0;

	(void)signal(SIGUSR1, on_signal);
	if (argc < 2 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "100") != 0 ||
	    sluice_open(config, on_notice, NULL, &client) != 0 ||
	    sluice_consume(client, &spec, NULL, &first) != 0 ||
	    (!unseen && sluice_sub_next(first, 30000, &delivery) != 0))
		return 2;
	if (!unseen)
		print("hand", sluice_delivery_get(delivery));
	sluice_delivery_free(delivery);
	spec.credit = unseen ? 0 : 100;
	spec.manual_credit = unseen;
	spec.on_delivery = on_delivery;
	if (sluice_consume(client, &spec, NULL, &second) != 0)
		return 2;
	while (!unseen && atomic_load(&count) < REST)
		(void)usleep(5000);
	say("holding");
	while (!go || !atomic_load(&resumed))
		(void)usleep(5000);
	if (sluice_sub_close(first, 30000) != 0)
		return 3;
	say("closed");
	while (unseen && go < 2)
		(void)usleep(5000);
	if (unseen && sluice_sub_credit(second, 100) != 0)
		return 4;
	(void)pause(); /* until the test ends this process */
	return 0;
}
