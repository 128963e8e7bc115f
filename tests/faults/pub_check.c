/* SPDX-License-Identifier: Apache-2.0
 * pub_check ADDRESS: follows stream load from its first event to its end and prints each body as a
 * line, in order. */
#include <stdio.h>
#include <stdlib.h>

#include "sluice/client.h"

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	sluice_sub *sub = NULL;
	sluice_delivery *delivery = NULL;
	sluice_delivery_kind kind = SLUICE_DELIVERY_EVENT;
	int rc;

	if (argc != 2 || config == NULL || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0)
		return 2;
	rc = sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = "load", .from = SLUICE_FROM_FIRST),
			   NULL, &sub);
	/* A stream whose creation was never acknowledged may be missing. */
	while (rc == 0 && kind != SLUICE_DELIVERY_CAUGHT_UP) {
		const sluice_delivery_view *view;

		rc = sluice_sub_next(sub, 20000, &delivery);
		if (rc != 0)
			break;
		view = sluice_delivery_get(delivery);
		kind = view->kind;
		if (kind == SLUICE_DELIVERY_EVENT)
			(void)printf("%.*s\n", (int)view->body.len, (const char *)view->body.data);
		else if (kind == SLUICE_DELIVERY_GAP || kind == SLUICE_DELIVERY_END)
			rc = 1;
		sluice_delivery_free(delivery);
	}
	(void)sluice_sub_close(sub, 1000);
	(void)sluice_close(client, true, 1000);
	sluice_config_destroy(config);
	return rc == 0 || rc == SLUICE_E_NOT_FOUND ? 0 : 1;
}
