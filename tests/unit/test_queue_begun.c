/* SPDX-License-Identifier: Apache-2.0
 * What counts as a failed attempt: nacks, and items that were begun when a lease ended; releases
 * and items that were never begun do not count. Also the bounds of commands that return items, and
 * delayed items. */
#include "tests/unit/queue_rig.h"

TestSuite(queue_begun, .init = open_mem, .fini = close_world);

static void configure_dead(const char *name, uint32_t max_attempts, const char *dead_letter)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;

	config.name = (char *)(uintptr_t)name;
	config.max_attempts = max_attempts;
	config.dead_letter = (char *)(uintptr_t)dead_letter;
	create.config = &config;
	world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
}

Test(queue_begun, a_dead_letter_has_all_attempts_again_and_keeps_its_origin)
{
	uint64_t session = world_session(&world, NULL);
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueuePeek peek = SLUICE__QUEUE_PEEK__INIT;
	const Sluice__Reply *reply;
	struct outcome out;

	configure_dead("middle", 3, "");
	configure_dead("first", 5, "middle");
	put("first", 1);
	for (int i = 0; i < 5; i++) {
		out = claim(session, "first", 1, 0, 0);
		ack(session, "first", out.index, ACK_NACK, 0, 1, 1);
	}
	cr_assert_eq(cell("middle").ready, 1);
	for (int i = 0; i < 3; i++) {
		cr_expect_eq(cell("middle").ready, 1, "it has %d attempts", i);
		out = claim(session, "middle", 1, 0, 0);
		ack(session, "middle", out.index, ACK_NACK, 0, 1, 1);
	}
	cr_expect_eq(cell("dead-letter").ready, 1);
	peek.name = (char *)"dead-letter";
	request.op_case = SLUICE__REQUEST__OP_QUEUE_PEEK;
	request.queue_peek = &peek;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_items, 1);
	cr_expect_str_eq(reply->items[0]->dead_from, "first");
}

/* ---- what was never begun is no failed attempt ---- */

Test(queue_begun, a_release_counts_nothing_and_keeps_the_place)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;

	configure("few", 2, false);
	put("few", 3);
	for (int i = 0; i < 5; i++) {
		out = claim(session, "few", 10, 0, 0);
		cr_assert_eq(out.count, 3);
		cr_expect_eq(world_effect(&world, FX_GRANT)->runs[0].first, 1);
		cr_expect_eq(ack(session, "few", out.index, ACK_RELEASE, 0, 1, 1).count, 1);
		cr_expect_eq(ack(session, "few", out.index, ACK_RELEASE, 0, 2, 2).count, 2);
		cr_expect_eq(ack(session, "few", out.index, ACK_RELEASE, 0, 2, 2).code,
			     SLUICE_E_STALE_TOKEN);
	}
	cr_expect_eq(cell("few").ready, 3);
	cr_expect_eq(cell("few").dead, 0);
	for (uint64_t seq = 1; seq <= 3; seq++)
		cr_expect_eq(attempts_of("few", seq), 0);
}

Test(queue_begun, a_release_with_a_delay_counts_nothing)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;

	put("work", 2);
	out = claim(session, "work", 2, 0, 0);
	cr_expect_eq(ack(session, "work", out.index, ACK_RELEASE, 5000, 1, 1).count, 1);
	cr_expect_eq(cell("work").delayed, 1);
	cr_expect_eq(cell("work").leased, 1);
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 0);
	world_wait(&world, 5001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").delayed, 0);
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 1);
	cr_expect_eq(world_effect(&world, FX_GRANT)->runs[0].first, 1);
	cr_expect_eq(attempts_of("work", 1), 0);
}

Test(queue_begun, a_release_without_runs_is_of_the_whole_grant)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;
	struct cmd_ack m = {.queue = queue_id("work"), .op = ACK_RELEASE};

	put("work", 5);
	out = claim(session, "work", 5, 0, 0);
	ack(session, "work", out.index, ACK_DONE, 0, 2, 1);
	m.token = out.index;
	cr_expect_eq(world_apply(&world, COMMAND_ACK, session, &m).count, 4);
	cr_expect_eq(cell("work").ready, 4);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
}

Test(queue_begun, a_lease_that_ends_counts_the_first_item_that_is_still_held_and_no_other)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;

	put("work", 4);
	out = claim(session, "work", 4, 1000, 0);
	ack(session, "work", out.index, ACK_DONE, 0, 1, 1);
	world_wait(&world, 1001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").ready, 3);
	cr_expect_eq(attempts_of("work", 2), 1, "the item that was begun");
	cr_expect_eq(attempts_of("work", 3), 0);
	cr_expect_eq(attempts_of("work", 4), 0);
}

Test(queue_begun, one_poison_item_does_not_dead_letter_those_beside_it)
{
	configure("few", 3, false);
	put("few", 10);
	for (int death = 0; death < 3; death++) {
		uint64_t session = world_session(&world, NULL);
		struct cmd_session_expire expire = {session};

		cr_assert_eq(claim(session, "few", 10, 0, CLAIM_SESSION_LEASE).count, 10);
		world_must(&world, COMMAND_SESSION_EXPIRE, 0, &expire);
	}
	cr_expect_eq(cell("few").dead, 1);
	cr_expect_eq(cell("few").ready, 9);
	for (uint64_t seq = 2; seq <= 10; seq++)
		cr_expect_eq(attempts_of("few", seq), 0);
}

Test(queue_begun, of_a_consumer_that_reports_begun_items_only_those_count)
{
	uint64_t session = world_session(&world, NULL);
	struct cmd_session_expire expire = {session};
	struct outcome one, two;

	put("work", 6);
	one = claim(session, "work", 3, 0, CLAIM_SESSION_LEASE | CLAIM_REPORTS);
	two = claim(session, "work", 3, 0, CLAIM_SESSION_LEASE | CLAIM_REPORTS);
	cr_expect_eq(ack(session, "work", one.index, ACK_BEGUN, 0, 2, 2).count, 2);
	cr_expect_eq(ack(session, "work", one.index, ACK_DONE, 0, 2, 1).count, 1);
	cr_expect_eq(ack(session, "work", one.index, ACK_BEGUN, 0, 2, 1).code,
		     SLUICE_E_STALE_TOKEN);
	cr_expect_eq(ack(session, "work", two.index, ACK_BEGUN, 0, 1, 1).code,
		     SLUICE_E_STALE_TOKEN);
	world_restart(&world);
	world_must(&world, COMMAND_SESSION_EXPIRE, 0, &expire);
	cr_expect_eq(attempts_of("work", 1), 0);
	cr_expect_eq(attempts_of("work", 3), 1, "begun, and a restart does not forget it");
	for (uint64_t seq = 4; seq <= 6; seq++)
		cr_expect_eq(attempts_of("work", seq), 0, "a grant that was never begun");
}

Test(queue_begun, what_is_reported_counts_beside_the_first)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;

	put("work", 3);
	out = claim(session, "work", 3, 1000, 0);
	cr_expect_eq(ack(session, "work", out.index, ACK_BEGUN, 0, 3, 1).count, 1);
	world_wait(&world, 1001);
	world_ticks(&world, 100);
	cr_expect_eq(attempts_of("work", 1), 1);
	cr_expect_eq(attempts_of("work", 2), 0);
	cr_expect_eq(attempts_of("work", 3), 1);
}

Test(queue_begun, the_end_of_a_session_returns_a_bounded_number_at_once)
{
	enum { ITEMS = 3000, AT_ONCE = 128 };
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL);
	struct cmd_session_expire expire = {session};
	uint64_t token = 0;

	put("work", ITEMS);
	for (uint32_t held = 0; held < ITEMS;) {
		struct outcome out = claim(session, "work", 1024, 0, CLAIM_SESSION_LEASE);

		held += out.count;
		token = out.index;
	}
	world_must(&world, COMMAND_SESSION_EXPIRE, 0, &expire);
	cr_expect_eq(cell("work").ready, AT_ONCE);
	cr_expect_eq(cell("work").leased, ITEMS - AT_ONCE);
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, ITEMS, 1).code,
		     SLUICE_E_SESSION_GONE);
	cr_expect_eq(claim(other, "work", 1, 0, 0).count, 1,
		     "returned items can be claimed by others");
	cr_expect_gt(world_ticks(&world, 100), 10);
	cr_expect_eq(cell("work").leased, 1);
	cr_expect_eq(cell("work").ready, ITEMS - 1);
	cr_expect_eq(attempts_of("work", 1), 1);
	cr_expect_eq(attempts_of("work", 129), 0,
		     "cut by the budget: no second item counts as begun");
	cr_expect_eq(attempts_of("work", 1025), 1, "the first of its grant");
	cr_expect_eq(attempts_of("work", 1026), 0);
	cr_expect_eq(world_records(&world, STORE_GRANT), 1);
}

/* Closing the world proves it: the same commands in batches of one, of some and of all leave the
 * same database. */
Test(queue_begun, what_ends_at_once_does_not_depend_on_the_batch)
{
	enum { SESSIONS = 5, ITEMS = 1000 };
	struct cmd_session_expire expire[SESSIONS];

	put("work", SESSIONS * ITEMS);
	for (int i = 0; i < SESSIONS; i++) {
		expire[i].session = world_session(&world, NULL);
		cr_assert_eq(claim(expire[i].session, "work", ITEMS, 0, CLAIM_SESSION_LEASE).count,
			     ITEMS);
	}
	for (int i = 0; i < SESSIONS; i++)
		world_must(&world, COMMAND_SESSION_EXPIRE, 0, &expire[i]);
	cr_expect_eq(cell("work").ready, SESSIONS * 128);
	world_ticks(&world, 1000);
	cr_expect_eq(cell("work").ready, SESSIONS * ITEMS);
}

Test(queue_begun, runs_may_overlap_and_name_what_is_not_held)
{
	uint64_t session = world_session(&world, NULL);
	uint8_t runs[3 * FRAME_RUN_BYTES];
	struct cmd_ack m = {.queue = queue_id("work"),
			    .op = ACK_DONE,
			    .run_count = 3,
			    .runs = runs};

	put("work", 40);
	m.token = claim(session, "work", 40, 0, 0).index;
	put_be64(runs, 5), put_be32(runs + 8, 30);
	put_be64(runs + 12, 1), put_be32(runs + 20, 7);
	put_be64(runs + 24, UINT64_MAX - 3), put_be32(runs + 32, 100);
	cr_expect_eq(world_apply(&world, COMMAND_ACK, session, &m).count, 34);
	cr_expect_eq(cell("work").leased, 6);
}

Test(queue_begun,
     delayed_items_of_an_older_store_are_skipped_in_bounded_claims_and_delivered_when_due)
{
	enum { DELAYED = 600 };
	uint64_t session = world_session(&world, NULL);
	unsigned claims = 0;
	uint32_t got = 0;

	for (uint64_t seq = 1; seq <= DELAYED; seq++) {
		put_delayed(session, 5000);
		as_before("work", seq);
	}
	put("work", 1);
	while (got == 0) {
		got = claim(session, "work", 10, 0, 0).count;
		cr_assert_lt(claims++, 10);
		cr_assert(got > 0 || world_effects(&world, FX_QUEUE_READY) == 1,
			  "it announces the rest");
	}
	cr_expect_eq(claims, 3);
	world_wait(&world, 5001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").delayed, 0);
	cr_expect_eq(cell("work").ready, DELAYED);
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 10);
	/* The moved items needed more claims, so the same commands without the move give another
	 * database. */
	world_discard(&world);
	world_open(&world, WORLD_MEM);
}

Test(queue_begun, a_claim_does_not_read_delayed_items)
{
	uint64_t session = world_session(&world, NULL);

	for (int i = 0; i < 600; i++)
		put_delayed(session, 5000);
	put("work", 1);
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 1, "at once");
	cr_expect_eq(world_effect(&world, FX_GRANT)->runs[0].first, 601);
}

static void fail_once(uint64_t session, const char *name)
{
	struct outcome out;

	put(name, 1);
	out = claim(session, name, 1, 0, 0);
	cr_assert_eq(out.count, 1);
	ack(session, name, out.index, ACK_NACK, 0, 1, cell(name).head - 1);
}

static void delete_queue(const char *name)
{
	Sluice__QueueDelete m = SLUICE__QUEUE_DELETE__INIT;

	m.name = (char *)(uintptr_t)name;
	world_must(&world, COMMAND_QUEUE_DELETE, 0, &m);
	world_ticks(&world, 1000);
}

Test(queue_begun, a_dead_letter_queue_that_is_created_again_is_found_by_its_name)
{
	uint64_t session = world_session(&world, NULL);
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;

	configure_dead("graves", 3, "");
	configure_dead("first", 1, "graves");
	delete_queue("graves");
	fail_once(session, "first");
	cr_expect_eq(cell("dead-letter").ready, 1, "while there is none, the gateway's");
	configure_dead("graves", 3, "");
	fail_once(session, "first");
	cr_expect_eq(cell("graves").ready, 1, "the queue that has the name");
	cr_expect_eq(cell("dead-letter").ready, 1);
	delete_queue("graves");
	config.name = (char *)"graves";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	create.config = &config;
	world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
	fail_once(session, "first");
	cr_expect_eq(cell("dead-letter").ready, 2, "a queue of jobs cannot be one");
	cr_expect_eq(cell("first").dead, 3);
}
