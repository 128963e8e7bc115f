/* SPDX-License-Identifier: Apache-2.0
 * Which consumer is served by which batch, and the cost of damage in a batch. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/base/keys.h"
#include "broker/engine/engine_internal.h"
#include "protocol/envelope.h"
#include "tests/unit/engine_rig.h"

/* ---- consumers that may claim different jobs ---- */

static void job_submit(struct rig *rig, const char *id)
{
	Sluice__JobSubmit submit = SLUICE__JOB_SUBMIT__INIT;

	submit.job = (char *)(uintptr_t)id;
	submit.queue = (char *)"jobs";
	submit.owner = (char *)"ada";
	rig_send(rig, COMMAND_JOB_SUBMIT, 0, &submit);
}

static void session_end(struct rig *rig, uint64_t session)
{
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;

	rig_send(rig, COMMAND_SESSION_CLOSE, session, &close);
}

static void open_at(struct rig *rig, uint64_t queue, uint64_t session, uint64_t tag, uint8_t flags,
		    uint32_t credit)
{
	struct consumer_spec spec = {.gateway = 1,
				     .queue = queue,
				     .session = session,
				     .credit = credit,
				     .claim_flags = flags,
				     .sink = &rig->sink,
				     .tag = tag};

	cr_assert_eq(engine_consumer_open(rig->engine, &spec), 0);
	rig_step(rig);
}

/* Idle consumers without orphans were opened before and after the one that accepts orphans; each
 * order, with the batch undone or not. */
Test(demand, an_orphan_is_delivered_beside_idle_consumers_that_take_none)
{
	for (unsigned row = 0; row < 16; row++) {
		bool aborts = row & 1, plain_first = row & 2, plain_last = row & 4, late = row & 8;
		struct rig rig;
		uint64_t queue, holder, other;

		rig_open(&rig, aborts);
		queue = rig_queue(&rig, "jobs", true, false);
		holder = rig_session(&rig);
		other = rig_session(&rig);
		job_submit(&rig, "a");
		open_at(&rig, queue, holder, 1, 0, 1);
		cr_assert_eq(rig.jobs, 1);
		if (plain_first)
			open_at(&rig, queue, other, 2, 0, 10);
		if (!late)
			open_at(&rig, queue, other, 3, CLAIM_ORPHANS, 10);
		if (plain_last)
			open_at(&rig, queue, other, 4, 0, 10);
		session_end(&rig, holder);
		rig_step(&rig);
		if (late)
			open_at(&rig, queue, other, 3, CLAIM_ORPHANS, 10);
		cr_expect_eq(rig.jobs, 2, "row %u", row);
		cr_expect_eq(rig.jobs_tag, 3, "row %u", row);
		/* A ready job is delivered, too, although orphans were announced last. */
		job_submit(&rig, "b");
		rig_step(&rig);
		cr_expect_eq(rig.jobs, 3, "row %u", row);
		rig_close(&rig);
	}
}

Test(demand, nothing_is_granted_once_the_broker_drains)
{
	struct rig rig;
	uint64_t queue, holder;

	rig_open(&rig, false);
	queue = rig_queue(&rig, "jobs", true, false);
	holder = rig_session(&rig);
	open_at(&rig, queue, holder, 1, 0, 10);
	job_submit(&rig, "a");
	rig_step(&rig);
	cr_assert_eq(rig.jobs, 1);
	engine_drain(rig.engine);
	job_submit(&rig, "b");
	rig_step(&rig);
	cr_assert_eq(rig.last.code, 0, "a submit is answered");
	cr_assert_eq(rig.jobs, 1);
	rig_close(&rig);
}

Test(demand, an_orphan_waits_for_a_consumer_that_is_paused_or_without_credit)
{
	struct rig rig;
	uint64_t queue, holder, other;

	rig_open(&rig, false);
	queue = rig_queue(&rig, "jobs", true, false);
	holder = rig_session(&rig);
	other = rig_session(&rig);
	job_submit(&rig, "a");
	job_submit(&rig, "b");
	open_at(&rig, queue, holder, 1, 0, 2);
	cr_assert_eq(rig.jobs, 2);
	open_at(&rig, queue, other, 2, CLAIM_ORPHANS, 1);
	open_at(&rig, queue, other, 3, 0, 10);
	cr_assert_eq(engine_consumer_pause(rig.engine, &rig.sink, 2, true), 0);
	session_end(&rig, holder);
	rig_step(&rig);
	cr_expect_eq(rig.jobs, 2);
	cr_assert_eq(engine_consumer_pause(rig.engine, &rig.sink, 2, false), 0);
	rig_step(&rig);
	cr_expect_eq(rig.jobs, 3);
	cr_assert_eq(engine_consumer_credit(rig.engine, &rig.sink, 2, 5), 0);
	rig_step(&rig);
	cr_expect_eq(rig.jobs, 4);
	cr_expect_eq(rig.jobs_tag, 2);
	rig_close(&rig);
}

/* For each item that becomes ready only one claim finds less than it wanted, however many consumers
 * wait. */
Test(demand, idle_consumers_cost_nothing_for_what_another_takes)
{
	struct rig rig;
	struct engine_facts before, after;
	uint64_t queue, session;

	rig_open(&rig, false);
	queue = rig_queue(&rig, "jobs", true, false);
	session = rig_session(&rig);
	for (uint64_t tag = 1; tag <= 500; tag++)
		open_at(&rig, queue, session, tag, tag % 2 ? CLAIM_ORPHANS : 0, 10);
	engine_facts_get(rig.engine, &before);
	for (int i = 0; i < 100; i++) {
		char id[16];

		snprintf(id, sizeof(id), "j%d", i);
		job_submit(&rig, id);
		rig_step(&rig);
	}
	engine_facts_get(rig.engine, &after);
	cr_expect_eq(rig.jobs, 100);
	cr_expect_eq(after.commands - before.commands, 200, "a submit and a claim each");
	rig_close(&rig);
}

static void put_prioritised(struct rig *rig, unsigned from, unsigned count)
{
	static uint8_t bytes[64 * 1024];
	struct frame_publish f = {.target_kind = PUBLISH_TO_QUEUE, .count = count};
	size_t used = 0;

	for (unsigned i = from; i < from + count; i++) {
		struct envelope envelope = {.body = {"12345678", 8},
					    .priority = (uint8_t)(1 + i * 97 % 255)};

		used += envelope_encode(bytes + used, &envelope);
	}
	f.subject = (struct sluice_slice){"s", 1};
	f.target = (struct sluice_slice){"p", 1};
	f.payload = (struct sluice_slice){bytes, used};
	f.raw_bytes = (uint32_t)used;
	rig_send(rig, COMMAND_PUBLISH, 0, &f);
	rig_step(rig);
	cr_assert_eq(rig->last.code, 0);
}

/* More claims than one batch may make, each cut by the window of its grant: the last claim of a
 * batch announces the rest, too. */
Test(demand, a_consumer_with_credit_is_served_beyond_the_claims_of_one_batch, .timeout = 60)
{
	enum { ITEMS = 60000, AT_ONCE = 1000 };

	for (int aborts = 0; aborts < 2; aborts++) {
		struct engine_facts before, after;
		struct rig rig;
		uint64_t queue, session;

		rig_open(&rig, aborts != 0);
		queue = rig_queue(&rig, "p", false, true);
		session = rig_session(&rig);
		for (unsigned i = 0; i < ITEMS; i += AT_ONCE)
			put_prioritised(&rig, i, AT_ONCE);
		engine_facts_get(rig.engine, &before);
		open_at(&rig, queue, session, 7, 0, 1000000);
		engine_facts_get(rig.engine, &after);
		cr_expect_eq(rig.items, ITEMS);
		cr_expect_gt(after.commands - before.commands, 4096,
			     "more claims than one batch makes");
		cr_expect_gt(after.commits - before.commits, 1);
		rig_close(&rig);
	}
}

/* Answers the claim of the consumer that demand serves next: `count` were granted. Returns its tag;
 * 0: none is served. */
static uint64_t serve(struct demand *demand, uint32_t count)
{
	struct outcome outcome = {.kind = OUT_CLAIMED, .count = count};
	struct command command;
	struct cmd_claim claim;
	struct consumer *consumer = demand_next(demand, &command, &claim);
	uint64_t tag = consumer != NULL ? consumer->key.tag : 0;

	if (consumer != NULL)
		demand_claimed(demand, consumer, &claim, &outcome);
	return tag;
}

Test(demand, an_orphan_wakes_the_consumers_that_judge_its_source)
{
	struct consumer_spec spec = {.gateway = 1, .queue = 5, .credit = 10};
	struct demand demand;

	demand_init(&demand);
	for (uint64_t source = 0; source <= 3; source++) {
		spec.claim_flags = source < 3 ? CLAIM_ORPHANS : 0;
		spec.source = source;
		spec.tag = 10 + source;
		cr_assert_eq(demand_open(&demand, &spec), 0);
	}
	for (int i = 0; i < 3; i++)
		cr_expect_neq(serve(&demand, 0), 0, "nothing is known yet about the queue");
	cr_assert_eq(serve(&demand, 0), 0);
	for (int i = 0; i < 3; i++) {
		demand_queue_ready(&demand, 1, 5, true, 2);
		cr_expect_eq(serve(&demand, 1), 12);
		cr_expect_eq(serve(&demand, 0), 0, "no other consumer claims");
	}
	demand_queue_ready(&demand, 1, 5, true, 7);
	cr_expect_eq(serve(&demand, 0), 0, "no consumer judges its source");
	demand_queue_ready(&demand, 1, 5, true, 0);
	for (int i = 0; i < 3; i++)
		cr_expect_neq(serve(&demand, 0), 0, "one of each class claims what any may have");
	cr_expect_eq(serve(&demand, 0), 0);
	demand_close(&demand, NULL, 12);
	demand_queue_ready(&demand, 1, 5, true, 2);
	cr_expect_eq(serve(&demand, 0), 0);
	demand_queue_ready(&demand, 1, 5, false, 0);
	cr_expect_neq(serve(&demand, 1), 0, "an announcement is for all");
	cr_expect_eq(serve(&demand, 0), 0);
	demand_fini(&demand);
}

Test(demand, a_claim_carries_how_long_its_consumer_extends)
{
	struct consumer_spec spec = {.gateway = 1,
				     .queue = 5,
				     .credit = 10,
				     .lease_ms = 400,
				     .extend_max_ms = 6400};
	struct command command;
	struct cmd_claim claim;
	struct demand demand;

	demand_init(&demand);
	for (uint64_t i = 0; i < 2; i++) {
		spec.tag = 10 + i;
		spec.claim_flags = i == 0 ? 0 : CLAIM_RESUME;
		cr_assert_eq(demand_open(&demand, &spec), 0);
		cr_assert_not_null(demand_next(&demand, &command, &claim));
		cr_expect_eq(claim.flags & CLAIM_RESUME, spec.claim_flags);
		cr_expect_eq(claim.lease_ms, 400);
		cr_expect_eq(claim.extend_max_ms, 6400);
		demand_close(&demand, NULL, spec.tag);
	}
	demand_fini(&demand);
}

/* An undone batch leaves its consumers, and their queues, in the order from before. */
Test(demand, what_is_undone_is_served_again_in_the_same_order)
{
	struct consumer_spec spec = {.gateway = 1, .credit = 5};
	struct claim_note notes[64];
	uint64_t first[64], again;
	struct demand demand;
	unsigned count = 0;

	demand_init(&demand);
	for (uint64_t i = 0; i < 24; i++) {
		spec.queue = 1 + i % 4;
		spec.tag = 100 + i;
		spec.claim_flags = i % 3 == 0 ? CLAIM_ORPHANS : i % 5 == 0 ? CLAIM_RESUME : 0;
		cr_assert_eq(demand_open(&demand, &spec), 0);
	}
	for (int round = 0; round < 3; round++) {
		for (count = 0; count < 20 + (unsigned)round; count++) {
			struct command command;
			struct cmd_claim claim;
			struct consumer *consumer = demand_next(&demand, &command, &claim);
			/* A short claim, a full one, or the end of a resume. */
			struct outcome outcome = {.count = count % 4 == 0 ? 0 : 1, .index = 1};

			cr_assert_not_null(consumer);
			demand_note(consumer, &notes[count]);
			again = consumer->key.tag;
			if (round > 0 && count < 20)
				cr_expect_eq(again, first[count], "claim %u", count);
			first[count] = again;
			demand_claimed(&demand, consumer, &claim, &outcome);
			demand_queue_ready(&demand, 1, claim.queue, false, 0);
		}
		while (count > 0)
			demand_undo(&demand, &notes[--count]);
	}
	demand_fini(&demand);
}

/* ---- damage ---- */

static uint64_t puts_seen;

static int count_puts(void *user, const char *operation)
{
	(void)user;
	puts_seen += strcmp(operation, "put") == 0;
	return 0;
}

/* `bad_every`-th goes to a queue whose record is damaged; 0: none does. */
static void put_among_damaged(struct rig *rig, unsigned count, unsigned bad_every)
{
	struct envelope envelope = {.body = {"x", 1}};
	uint8_t bytes[64];
	struct frame_publish f = {.target_kind = PUBLISH_TO_QUEUE, .count = 1};

	f.subject = (struct sluice_slice){"s", 1};
	f.payload = (struct sluice_slice){bytes, envelope_encode(bytes, &envelope)};
	f.raw_bytes = (uint32_t)f.payload.len;
	puts_seen = 0;
	store_fault_set(rig->store, count_puts, NULL);
	rig->replies = rig->refused = 0;
	for (unsigned i = 1; i <= count; i++) {
		f.target = bad_every != 0 && i % bad_every == 0 ? (struct sluice_slice){"bad", 3}
								: (struct sluice_slice){"good", 4};
		rig_send(rig, COMMAND_PUBLISH, 0, &f);
	}
	rig_step(rig);
	store_fault_set(rig->store, NULL, NULL);
}

Test(damage, many_damaged_commands_in_a_batch_do_not_run_it_as_often, .timeout = 60)
{
	enum { COMMANDS = 4000 };
	static const unsigned every[] = {1, 2, 3, 400, COMMANDS};

	for (size_t row = 0; row < sizeof(every) / sizeof(every[0]); row++) {
		unsigned bad = COMMANDS / every[row];
		struct store_txn *txn = NULL;
		struct rig rig;
		struct key key;
		uint64_t clean, queue;

		rig_open(&rig, false);
		(void)rig_queue(&rig, "good", false, false);
		queue = rig_queue(&rig, "bad", false, false);
		put_among_damaged(&rig, COMMANDS, 0);
		clean = puts_seen;
		cr_assert_eq(rig.replies, COMMANDS);
		key_hot(&key, 1, HOT_QUEUE, queue);
		cr_assert_eq(store_begin(rig.store, &txn), 0);
		cr_assert_eq(store_put(txn, STORE_HOT, key_slice(&key),
				       (struct sluice_slice){"?", 1}),
			     0);
		cr_assert_eq(store_commit(txn), 0);
		put_among_damaged(&rig, COMMANDS, every[row]);
		cr_expect_eq(rig.failed, 0);
		cr_expect_eq(rig.replies, COMMANDS, "each is answered once");
		cr_expect_eq(rig.refused, bad, "the damaged ones are refused");
		cr_expect_lt(puts_seen, 24 * clean, "row %zu: %u damaged cost %.1f times the batch",
			     row, bad, (double)puts_seen / (double)clean);
		rig_close(&rig);
	}
}

/* ---- a session that moved to another connection ---- */

Test(demand, a_session_that_moves_loses_its_consumers_and_no_others)
{
	enum { SESSIONS = 50, EACH = 3 };
	static struct engine_sink sink;
	struct demand demand;
	struct cmd_claim claim;
	struct command command;
	struct consumer *next;

	demand_init(&demand);
	for (uint64_t n = 0; n < SESSIONS * EACH; n++) {
		struct consumer_spec spec = {.gateway = 1 + (uint32_t)(n % 2),
					     .session = 1 + n / 2 % SESSIONS,
					     .sink = &sink,
					     .tag = n,
					     .queue = 1 + n % 7,
					     .credit = 1};

		cr_assert_eq(demand_open(&demand, &spec), 0);
	}
	cr_expect_eq(HASH_COUNT(demand.sessions), 2 * SESSIONS);
	demand_session_moved(&demand, 1, 7);
	demand_session_moved(&demand, 1, 7);
	demand_session_moved(&demand, 3, 7);
	cr_expect_eq(demand.count, SESSIONS * EACH - 2);
	cr_expect_eq(HASH_COUNT(demand.sessions), 2 * SESSIONS - 1);
	while ((next = demand_next(&demand, &command, &claim)) != NULL) {
		struct outcome out = {.kind = OUT_CLAIMED, .count = 1};

		cr_expect(next->spec.gateway != 1 || next->spec.session != 7,
			  "it is not served any more");
		demand_claimed(&demand, next, &claim, &out);
	}
	for (uint64_t session = 1; session <= SESSIONS; session++)
		demand_session_moved(&demand, 2, session);
	cr_expect_eq(demand.count, SESSIONS * EACH / 2 - 2);
	demand_fini(&demand);
}
