/* SPDX-License-Identifier: Apache-2.0
 *
 * fill_queue ADDRESS MIB: puts 64 KiB items until one is refused (or MIB are stored), acks them all
 * while the store is full, and then puts one more until it is accepted. Prints "put=N unknown=N
 * refused=NAME acked=N again=NAME".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sluice/client.h"

enum { BODY_BYTES = 65536 };
static char body[BODY_BYTES];

static int put(sluice_client *client, int deadline_ms)
{
	sluice_message message =
		SLUICE_MESSAGE(.subject = "fill", .queue = "fill", .body = {body, sizeof(body)});

	return sluice_publish(client, &message, &SLUICE_CALL(.deadline_ms = deadline_ms), NULL);
}

static unsigned long ack_all(sluice_client *client)
{
	sluice_sub *sub = NULL;
	sluice_delivery *delivery = NULL;
	unsigned long acked = 0;

	if (sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "fill", .credit = 50), NULL,
			   &sub) != 0)
		return 0;
	while (sluice_sub_next(sub, 3000, &delivery) == 0) {
		const sluice_delivery_view *view = sluice_delivery_get(delivery);

		if (view->kind == SLUICE_DELIVERY_ITEM &&
		    sluice_item_ack(sub, view->token, view->seq, &SLUICE_CALL(.deadline_ms = 10000),
				    NULL) == 0)
			acked++;
		sluice_delivery_free(delivery);
	}
	(void)sluice_sub_close(sub, 1000);
	return acked;
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	unsigned long count = 0, unknown = 0,
		      limit = argc > 2 ? strtoul(argv[2], NULL, 10) * 16 : 0, acked;
	int rc = 0, again = SLUICE_E_NO_SPACE;

	if (argc != 3 || config == NULL || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0)
		return 2;
	if (sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "fill", .if_not_exists = true),
				NULL, NULL) != 0)
		return 2;
	/* UNKNOWN: at the deadline an attempt was in flight, which may have put it. */
	while (count < limit && ((rc = put(client, 1500)) == 0 || rc == SLUICE_E_UNKNOWN)) {
		count += rc == 0;
		unknown += rc != 0;
	}
	acked = ack_all(client);
	for (int i = 0; i < 20 && again != 0; i++)
		again = put(client, 1000);
	(void)printf("put=%lu unknown=%lu refused=%s acked=%lu again=%s\n", count, unknown,
		     sluice_error_name(rc), acked, sluice_error_name(again));
	(void)sluice_close(client, true, 1000);
	sluice_config_destroy(config);
	return 0;
}
