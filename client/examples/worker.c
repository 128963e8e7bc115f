/* SPDX-License-Identifier: Apache-2.0
 *
 * Takes items from queue "work", one at a time, works on each and acknowledges it.
 *
 *   cc worker.c $(pkg-config --cflags --libs sluice) -o worker
 *   ./worker 127.0.0.1:7584 10       # ends after 10 s without an item, or on SIGTERM
 *
 * An item is leased: if this process dies, another worker gets the item when the lease ends. While
 * the application holds the item, the library extends the lease by itself, for at most an hour
 * after the last sign of life (lease_extend_max_ms). sluice_lease_extend() is a sign of life: long
 * work calls it.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sluice/client.h>

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

static int work(sluice_sub *sub, const sluice_delivery_view *item)
{
	int rc = sluice_lease_extend(sub, item->token, 60000, NULL,
				     NULL); /* between two steps of it */

	if (rc == 0 && item->body.len == 4 && memcmp(item->body.data, "fail", 4) == 0)
		rc = SLUICE_E_INVAL;
	if (rc == 0)
		(void)printf("%.*s is done\n", (int)item->body.len, (const char *)item->body.data);
	return rc;
}

static int handle(sluice_sub *sub, const sluice_delivery_view *item)
{
	int rc = work(sub, item);

	if (rc == 0)
		rc = sluice_item_ack(sub, item->token, item->seq, NULL, NULL);
	else if (rc != SLUICE_E_STALE_TOKEN) /* back into the queue; an attempt is counted */
		rc = sluice_item_nack(sub, item->token, item->seq, 100, sluice_error_text(rc), NULL,
				      NULL);
	/* The lease has ended and another worker may have the item: stop working on it and take the
	 * next. */
	return rc == SLUICE_E_STALE_TOKEN ? 0 : rc;
}

static int consume(sluice_client *client, int idle_seconds_max)
{
	const sluice_consume_spec spec =
		SLUICE_CONSUME_SPEC(.queue = "work", .credit = 1); /* holds one at a time */
	sluice_sub *sub = NULL;
	int idle = 0, rc = sluice_consume(client, &spec, NULL, &sub);

	while (rc == 0 && !stop && idle < idle_seconds_max) {
		sluice_delivery *item = NULL;

		rc = sluice_sub_next(sub, 1000, &item); /* a second, so that a signal is seen */
		idle = rc == SLUICE_E_TIMEOUT ? idle + 1 : 0;
		if (rc == SLUICE_E_TIMEOUT)
			rc = 0;
		else if (rc == 0 && sluice_delivery_get(item)->kind == SLUICE_DELIVERY_ITEM)
			rc = handle(sub, sluice_delivery_get(item));
		sluice_delivery_free(item);
	}
	/* Items that were not handed out yet go back, without an attempt counted. */
	(void)sluice_sub_close(sub, 5000);
	return rc;
}

int main(int argc, char **argv)
{
	const struct sigaction action = {.sa_handler = on_signal};
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	int rc = config != NULL ? 0 : SLUICE_E_NOMEM;

	(void)sigaction(SIGTERM, &action, NULL);
	if (rc == 0)
		rc = sluice_config_set(config, "address", argc > 1 ? argv[1] : "127.0.0.1:7584");
	if (rc == 0)
		rc = sluice_open(config, NULL, NULL, &client);
	if (rc == 0)
		rc = consume(client, argc > 2 ? atoi(argv[2]) : 10);
	if (rc != 0)
		(void)fprintf(stderr, "worker: %s\n", sluice_error_text(rc));
	(void)sluice_close(client, true, 5000);
	sluice_config_destroy(config);
	return sluice_error_exit_code(rc);
}
