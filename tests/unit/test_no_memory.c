/* SPDX-License-Identifier: Apache-2.0
 * The engine's tables when an allocation fails: the n-th is made to fail, by the linker's --wrap, for each n of a call. The call refuses, the tables are
 * as they were, and the process lives. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/engine/engine_internal.h"

static long left; /* allocations until one fails; 0: none does */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);

static bool fails(void)
{
	return left > 0 && --left == 0;
}

void *__wrap_malloc(size_t bytes)
{
	return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return fails() ? NULL : __real_calloc(count, bytes);
}

/* More than a table's first buckets hold, so that they grow, too. */
enum { ENTRIES = 200, FAILURES_MAX = 16 };

Test(no_memory, a_heartbeat_is_refused_and_not_half_there)
{
	struct heartbeats heartbeats = {0};
	unsigned refused = 0;

	for (uint64_t session = 1; session <= ENTRIES; session++) {
		char address[16];
		struct session_seen seen = {.gateway = 1, .session = session, .timeout_ms = 1000};
		int rc = SLUICE_E_NOMEM;

		/* Every second one comes from an address of its own. */
		seen.address.len = (size_t)snprintf(address, sizeof(address), "10.0.0.%u", (unsigned)session);
		seen.address.data = address;
		if (session % 2 == 0)
			seen.address.len = 0;
		for (long n = 1; rc != 0 && n < FAILURES_MAX; n++) {
			unsigned before = HASH_COUNT(heartbeats.beats);

			left = n;
			rc = heartbeats_add(&heartbeats, &seen, 5);
			left = 0;
			cr_assert(rc == 0 || rc == SLUICE_E_NOMEM);
			cr_assert_eq(HASH_COUNT(heartbeats.beats), before + (rc == 0));
			refused += rc != 0;
		}
		cr_assert_eq(rc, 0, "session %llu", (unsigned long long)session);
	}
	cr_assert_gt(refused, ENTRIES, "entries, the table and its growth");
	heartbeats_fini(&heartbeats);
}

Test(no_memory, a_consumer_is_refused_and_not_half_there)
{
	struct demand demand = {0};
	struct engine_sink sink = {0};
	unsigned refused = 0;

	for (uint64_t tag = 1; tag <= ENTRIES; tag++) {
		struct consumer_spec spec = {.sink = &sink,
					     .tag = tag,
					     .gateway = 1,
					     .queue = tag / 2,
					     .session = 1 + tag / 3,
					     .credit = 1,
					     .claim_flags = tag % 3 == 0 ? CLAIM_ORPHANS : 0};
		int rc = SLUICE_E_NOMEM;

		for (long n = 1; rc != 0 && n < FAILURES_MAX; n++) {
			unsigned queues = HASH_COUNT(demand.queues), consumers = HASH_COUNT(demand.consumers);
			unsigned sessions = HASH_COUNT(demand.sessions);

			left = n;
			rc = demand_open(&demand, &spec);
			left = 0;
			cr_assert(rc == 0 || rc == SLUICE_E_NOMEM);
			cr_assert_eq(HASH_COUNT(demand.consumers), consumers + (rc == 0));
			cr_assert(rc == 0 || (HASH_COUNT(demand.queues) == queues &&
					      HASH_COUNT(demand.sessions) == sessions));
			refused += rc != 0;
		}
		cr_assert_eq(rc, 0, "consumer %llu", (unsigned long long)tag);
	}
	cr_assert_gt(refused, ENTRIES, "consumers, queues, sessions, classes, the tables and their growth");
	for (uint64_t tag = 1; tag <= ENTRIES; tag++)
		demand_close(&demand, &sink, tag);
	cr_assert(demand.queues == NULL && demand.consumers == NULL && demand.sessions == NULL);
	demand_fini(&demand);
}
