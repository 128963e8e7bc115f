/* SPDX-License-Identifier: Apache-2.0
 * late_probe ADDRESS: consumes from the queue "first" and opens a consumer of "second" in the
 * callback of the first item. The connection breaks right after that item, so the request is made
 * but not sent. Events are printed as "open CODE", "item BODY" and "end CODE", and "done" when both
 * items have arrived. */
#include <stdio.h>

#include "sluice/client.h"

static sluice_client *client;
static sluice_sub *first, *second;
static int items;

static void on_open(sluice_client *of, const sluice_reply *reply, void *user)
{
	(void)of;
	(void)user;
	(void)printf("open %s\n", sluice_error_name(sluice_reply_code(reply)));
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *view, void *user);

static int consume(const char *queue, sluice_sub **ret)
{
	return sluice_consume(client,
			      &SLUICE_CONSUME_SPEC(.queue = queue, .credit = 1, .lease_ms = 600000,
						   .on_delivery = on_delivery),
			      &SLUICE_CALL(.deadline_ms = -1, .done = on_open), ret);
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	(void)sub;
	(void)user;
	if (view->kind == SLUICE_DELIVERY_END)
		(void)printf("end %s\n", sluice_error_name(view->code));
	if (view->kind != SLUICE_DELIVERY_ITEM)
		return;
	(void)printf("item %.*s\n", (int)view->body.len, (const char *)view->body.data);
	(void)fflush(stdout);
	if (++items == 1 && consume("second", &second) != 0)
		(void)printf("not opened\n");
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	int rc = 0;

	if (argc != 2 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "mode", "caller-loop") != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "100") != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0 ||
	    sluice_wait_connected(client, 30000) != 0)
		return 2;
	sluice_config_destroy(config);
	if (consume("first", &first) != 0)
		return 2;
	while (items < 2)
		(void)sluice_process(client, 20);
	/* When these are answered, everything sent before has arrived. */
	for (int i = 0; i < 3 && rc == 0; i++)
		rc = sluice_status(client, &SLUICE_CALL(.deadline_ms = 30000), NULL);
	(void)printf("done\n");
	(void)sluice_close(client, true, 2000);
	return rc == 0 ? 0 : 3;
}
