/* SPDX-License-Identifier: Apache-2.0
 * damage_probe ADDRESS QUEUE: consumes QUEUE through libsluice until it is killed, and prints a
 * line for each callback: "item BODY", "job ID", "error NAME TEXT" (the callback), "end NAME TEXT"
 * (of the delivery callback). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sluice/client.h"

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)client;
	(void)user;
	if (notice->kind == SLUICE_NOTICE_DAMAGED)
		(void)printf("error %s %s\n", sluice_error_name(notice->code), notice->text);
	(void)fflush(stdout);
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	(void)user;
	if (view->kind == SLUICE_DELIVERY_ITEM) {
		(void)printf("item %.*s\n", (int)view->body.len, (const char *)view->body.data);
		(void)sluice_item_ack(sub, view->token, view->seq,
				      &SLUICE_CALL(.user = SLUICE_FIRE), NULL);
	} else if (view->kind == SLUICE_DELIVERY_JOB) {
		(void)printf("job %s\n", view->job);
	} else if (view->kind == SLUICE_DELIVERY_END) {
		(void)printf("end %s %s\n", sluice_error_name(view->code), view->text);
	}
	(void)fflush(stdout);
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_consume_spec spec = SLUICE_CONSUME_SPEC(.credit = 100, .on_delivery = on_delivery);
	sluice_client *client = NULL;
	sluice_sub *sub = NULL;

	if (argc != 3 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "session_timeout_ms", "3000") != 0 ||
	    sluice_open(config, on_notice, NULL, &client) != 0)
		return 2;
	spec.queue = argv[2];
	/* Damage that is found at once may be the answer already; the callback has reported it as
	 * well. */
	(void)printf("consuming: %s\n",
		     sluice_error_name(sluice_consume(client, &spec, NULL, &sub)));
	(void)fflush(stdout);
	(void)pause(); /* until the test has seen the expected lines and ends this process */
	return 0;
}
