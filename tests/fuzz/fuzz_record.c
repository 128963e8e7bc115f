/* SPDX-License-Identifier: Apache-2.0
 * Stored records: no bytes may lead a decoder beyond them. */
#include "broker/core/job/live.h"
#include "broker/core/queue/queue.h"
#include "broker/core/queue/record.h"
#include "fuzz.h"

static void item(struct sluice_slice value)
{
	struct queue_item item;

	if (queue_item_decode(value, &item) != 0)
		return;
	REQUIRE(item.dead_from.len + item.dead_reason.len + item.last_reason.len + item.body.len +
			QUEUE_ITEM_FIXED_BYTES ==
		value.len);
}

static void grant(struct sluice_slice value)
{
	struct queue_grant grant;

	if (grant_decode(value, &grant) != 0)
		return;
	REQUIRE(grant.bits <= sizeof(grant.bitmap) * 8);
}

static void live(struct sluice_slice value)
{
	struct job_live live;

	if (job_live_decode(value, &live) != 0)
		return;
	REQUIRE(live.claim < JOB_CLAIM_COUNT && job_claim_name(live.claim) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *own = exactly(size);

	if (size > 0)
		memcpy(own, data, size);
	item((struct sluice_slice){own, size});
	grant((struct sluice_slice){own, size});
	live((struct sluice_slice){own, size});
	free(own);
	return 0;
}
