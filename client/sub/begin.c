/* SPDX-License-Identifier: Apache-2.0
 * Reports items that the application begins to the broker, before it receives them. */
#include "client/base/error.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/link/link.h"
#include "client/sub/sub.h"

/* Without memory it is not reported: then the end of its lease does not count against it. */
static void sub_begin(sluice_sub *sub, sluice_token token, uint64_t seq)
{
	if (sub->begun_count == sub->begun_capacity) {
		size_t capacity = sub->begun_capacity == 0 ? 8 : 2 * sub->begun_capacity;
		struct begun *begun = mem_resize(sub->begun, capacity * sizeof(*begun));

		if (begun == NULL)
			return;
		sub->begun = begun;
		sub->begun_capacity = capacity;
	}
	sub->begun[sub->begun_count++] = (struct begun){token, seq};
}

/* Sent before the application has the item: the report must arrive although a worker may crash on
 * the item. */
void sub_begin_now(sluice_sub *sub, sluice_token token, uint64_t seq)
{
	sub_begin(sub, token, seq);
	subs_flush(sub->client); /* earlier acks go first */
	if (!link_push(sub->client))
		client_wake(sub->client);
}

int sluice_item_begin(sluice_sub *sub, sluice_token token, uint64_t seq)
{
	sluice_client *client = sub->client;
	int rc;

	client_lock(client);
	rc = client->closing		     ? SLUICE_E_CLOSED
	     : client->state == STATE_FAILED ? client->fail_code
	     : !sub->reports		     ? SLUICE_E_WRONG_STATE
					     : 0;
	if (rc == 0)
		sub_begin_now(sub, token, seq);
	client_unlock(client);
	return error_set(rc, rc == SLUICE_E_WRONG_STATE
				     ? "the subscription was opened without report_begun"
				     : "");
}
