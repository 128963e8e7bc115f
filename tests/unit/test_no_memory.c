/* SPDX-License-Identifier: Apache-2.0
 * The engine's tables when an allocation fails: the n-th is made to fail, by the linker's --wrap,
 * for each n of a call. The call refuses, the tables are as they were, and the process lives. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/apply.h"
#include "broker/core/base/state.h"
#include "broker/core/router/image.h"
#include "broker/core/router/router.h"
#include "broker/engine/engine_internal.h"
#include "tests/unit/core_world.h"

static long left;     /* allocations until one fails; 0: none does */
static bool for_good; /* then all that follow fail, until left is set */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);

static bool fails(void)
{
	if (left == 0 || --left > 0)
		return false;
	left = for_good; /* the next, too */
	return true;
}

void *__wrap_malloc(size_t bytes)
{
	return fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
	return fails() ? NULL : __real_calloc(count, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
	return fails() ? NULL : __real_realloc(old, bytes);
}

/* More entries than a table's first buckets hold, so that the table grows, too. */
enum { ENTRIES = 200, FAILURES_MAX = 16 };

Test(no_memory, a_heartbeat_is_added_completely_or_not_at_all)
{
	struct heartbeats heartbeats = {0};
	unsigned refused = 0;

	for (uint64_t session = 1; session <= ENTRIES; session++) {
		char address[16];
		struct session_seen seen = {.gateway = 1, .session = session, .timeout_ms = 1000};
		int rc = SLUICE_E_NOMEM;

		/* Every second one comes from an address of its own. */
		seen.address.len =
			(size_t)snprintf(address, sizeof(address), "10.0.0.%u", (unsigned)session);
		seen.address.data = address;
		if (session % 2 == 0)
			seen.address.len = 0;
		for (long n = 1; rc != 0 && n < FAILURES_MAX; n++) {
			unsigned before = HASH_COUNT(heartbeats.timers);

			left = n;
			rc = heartbeats_add(&heartbeats, &seen, 5);
			left = 0;
			cr_assert(rc == 0 || rc == SLUICE_E_NOMEM);
			cr_assert_eq(HASH_COUNT(heartbeats.timers), before + (rc == 0));
			refused += rc != 0;
		}
		cr_assert_eq(rc, 0, "session %llu", (unsigned long long)session);
	}
	cr_assert_gt(refused, ENTRIES, "entries, the table and its growth");
	heartbeats_fini(&heartbeats);
}

Test(no_memory, a_consumer_is_opened_completely_or_not_at_all)
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
			unsigned queues = HASH_COUNT(demand.queues),
				 consumers = HASH_COUNT(demand.consumers);
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
	cr_assert_gt(refused, ENTRIES,
		     "consumers, queues, sessions, classes, the tables and their growth");
	for (uint64_t tag = 1; tag <= ENTRIES; tag++)
		demand_close(&demand, &sink, tag);
	cr_assert(demand.queues == NULL && demand.consumers == NULL && demand.sessions == NULL);
	demand_fini(&demand);
}

/* ---- topology, with its image in memory ---- */

static const char *const subjects[] = {"f.a", "f.b", "g.a", "g.b.c", "h"};
enum { SUBJECTS = sizeof(subjects) / sizeof(subjects[0]), ROUTE_TARGETS_MAX = 32 };

/* The routes of a core: from its image, or from a new one. */
static void routes(struct world *world, struct core *core, char ret[4096])
{
	struct store_txn *txn;
	struct apply a;
	size_t at = 0;

	cr_assert_eq(store_begin(world->store, &txn), 0);
	apply_init(&a, core, txn, world->effects, world->gateway);
	for (size_t i = 0; i < SUBJECTS; i++) {
		const struct route_target *targets;
		size_t count;

		cr_assert_eq(router_route(&a, 0,
					  (struct sluice_slice){subjects[i], strlen(subjects[i])},
					  &targets, &count),
			     0);
		cr_assert_leq(count, (size_t)ROUTE_TARGETS_MAX);
		at += (size_t)snprintf(ret + at, 4096 - at, "%s:", subjects[i]);
		for (size_t n = 0; n < count; n++)
			at += (size_t)snprintf(ret + at, 4096 - at, " %u/%llu",
					       (unsigned)targets[n].kind,
					       (unsigned long long)targets[n].id);
		at += (size_t)snprintf(ret + at, 4096 - at, "\n");
	}
	store_abort(txn);
}

static struct submission *submission_of(uint64_t n)
{
	struct submission *submission = calloc(1, sizeof(*submission));

	cr_assert_not_null(submission);
	submission->command.gateway = 1;
	submission->command.session = 1 + n % ENTRIES;
	submission->bytes = 1;
	submission->tag = n;
	return submission;
}

/* The sessions for which there is no memory have one share together: no command is lost, and the
 * order stays. */
Test(no_memory, without_memory_for_shares_commands_are_taken_in_order)
{
	enum { EACH = 10, STEP = 5 };
	static struct engine_sink sink;

	for (long n = 1; n < 3 * ENTRIES; n += 7) {
		uint64_t last[ENTRIES + 1] = {0}, done = 0, sent = 0;
		struct submission *submission;
		struct shares shares;
		struct taken taken;

		shares_init(&shares);
		taken_init(&taken);
		shares.large = true; /* so that shares are made */
		while (done < (uint64_t)ENTRIES * EACH) {
			struct submission *batch[ENTRIES * EACH];
			size_t count = 0, end;

			for (int i = 0; i < ENTRIES && sent < (uint64_t)ENTRIES * EACH; i++) {
				submission = submission_of(sent++);
				submission->tag = sent;
				submission->sink = &sink;
				lane_push(&taken.data, submission);
			}
			left = sent / ENTRIES % 2 == 0 ? 0 : n; /* sometimes there is memory */
			for_good = true;
			shares_choose(&shares, &taken, 20);
			while ((submission = lane_pop(&taken.data)) != NULL)
				batch[count++] = submission;
			cr_assert_gt(count, 0);
			end = (count + 1) / 2;
			for (size_t i = 0; i < end; i++) {
				const uint64_t session = batch[i]->command.session;

				cr_assert_gt(batch[i]->tag, last[session], "n %ld", n);
				last[session] = batch[i]->tag;
				batch[i]->work = i == 0 ? 10000 : STEP;
			}
			shares_charge(&shares, batch, end, 10000);
			for (size_t i = count; i > end; i--)
				shares_return(&shares, &taken, batch[i - 1]);
			left = 0;
			for_good = false;
			for (size_t i = 0; i < end; i++)
				free(batch[i]);
			done += end;
		}
		cr_expect_eq(shares.waiting, 0);
		shares_fini(&shares);
	}
}

/* The command in a batch whose n-th allocation fails, for each n, undone each time: the image that
 * is left equals the store. Returns how often it failed. */
static long fail_each(struct world *world, uint16_t type, const void *body)
{
	const struct command command = {.type = type,
					.gateway = world->gateway,
					.body = body,
					.random = 1};
	char before[4096], after[4096];
	int rc = SLUICE_E_NOMEM;
	long n = 0;

	routes(world, world->core, before);
	while (rc == SLUICE_E_NOMEM) {
		struct store_txn *txn;

		cr_assert_lt(n, 1000L);
		effects_clear(world->effects);
		cr_assert_eq(store_begin(world->store, &txn), 0);
		cr_assert_eq(core_batch_begin(world->core, txn, world->clock), 0);
		left = ++n;
		rc = core_apply(world->core, txn, &command, world->effects);
		left = 0;
		cr_assert(rc == 0 || rc == SLUICE_E_NOMEM, "%s, allocation %ld: %s",
			  command_spec(type)->name, n, sluice_error_name(rc));
		if (rc == 0) {
			const struct effect *reply = world_effect(world, FX_REPLY);

			cr_assert_eq(reply->outcome->code, 0, "%s", reply->outcome->text);
		}
		core_batch_abort(world->core);
		store_abort(txn);
		routes(world, world->core, after);
		cr_assert_str_eq(after, before, "%s, allocation %ld", command_spec(type)->name, n);
	}
	/* And with enough memory it routes as another core does. */
	effects_clear(world->effects);
	world_must(world, type, 0, body);
	routes(world, world->core, before);
	router_cache_drop(world->core->routers);
	routes(world, world->core, after);
	cr_assert_str_eq(after, before, "%s", command_spec(type)->name);
	return n - 1;
}

Test(no_memory, topology_changes_leave_the_image_equal_to_the_store)
{
	Sluice__RouterConfig config = SLUICE__ROUTER_CONFIG__INIT;
	Sluice__RouterCreate create = SLUICE__ROUTER_CREATE__INIT;
	Sluice__RouterDelete delete = SLUICE__ROUTER_DELETE__INIT;
	Sluice__QueueDelete queue_delete = SLUICE__QUEUE_DELETE__INIT;
	Sluice__Edge edge = SLUICE__EDGE__INIT;
	Sluice__RouterBind bind = SLUICE__ROUTER_BIND__INIT;
	Sluice__RouterUnbind unbind = SLUICE__ROUTER_UNBIND__INIT;
	char name[] = "r", queue[8] = "q0", pattern[] = "g.*";
	struct world world;

	world_open(&world, WORLD_MEM);
	config.name = name;
	create.config = &config;
	cr_expect_gt(fail_each(&world, COMMAND_ROUTER_CREATE, &create), 3L);
	for (; queue[1] < '8'; queue[1]++) {
		world_queue(&world, queue, queue[1] % 2 == 0 ? "f.*" : NULL, 0);
		cr_assert_eq(world_bind(&world, "r", queue[1] % 3 == 0 ? ">" : "g.b.*",
					SLUICE__TARGET_KIND__TARGET_QUEUE, queue)
				     .code,
			     0);
	}
	cr_assert_eq(world_bind(&world, "", "g.>", SLUICE__TARGET_KIND__TARGET_ROUTER, "r").code,
		     0);
	cr_assert_eq(world_bind(&world, "", "h", SLUICE__TARGET_KIND__TARGET_ROUTER, "r").code, 0);
	edge.pattern = pattern;
	edge.target_kind = SLUICE__TARGET_KIND__TARGET_QUEUE;
	queue[1] = '1';
	edge.target = queue;
	bind.edge = &edge;
	unbind.edge = &edge;
	cr_expect_gt(fail_each(&world, COMMAND_ROUTER_BIND, &bind), 3L);
	cr_expect_gt(fail_each(&world, COMMAND_ROUTER_UNBIND, &unbind), 3L);
	queue_delete.name = queue;
	cr_expect_gt(fail_each(&world, COMMAND_QUEUE_DELETE, &queue_delete), 3L);
	delete.name = name;
	cr_expect_gt(fail_each(&world, COMMAND_ROUTER_DELETE, &delete), 10L);
	world_close(&world);
}
