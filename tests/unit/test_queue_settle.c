/* SPDX-License-Identifier: Apache-2.0
 * ACK operations reject and renew: what they do to items, grants and counts; each refusal. */
#include "tests/unit/queue_rig.h"

TestSuite(queue_settle, .init = open_mem, .fini = close_world);

static struct outcome ack_as(uint64_t session, const char *queue, uint64_t token, enum ack_op op,
			     uint32_t value_ms, struct sluice_slice reason)
{
	struct cmd_ack m = {.queue = queue_id(queue),
			    .token = token,
			    .op = (uint8_t)op,
			    .value_ms = value_ms,
			    .reason = reason};

	return world_apply(&world, COMMAND_ACK, session, &m);
}

static Sluice__ItemInfo dead_letter_row(void)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueuePeek peek = SLUICE__QUEUE_PEEK__INIT;
	const Sluice__Reply *reply;

	peek.name = (char *)"dead-letter";
	request.op_case = SLUICE__REQUEST__OP_QUEUE_PEEK;
	request.queue_peek = &peek;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_items, 1);
	return *reply->items[0];
}

static Sluice__ItemInfo leased_row(uint64_t seq)
{
	static Sluice__ItemInfo none;
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueuePeek peek = SLUICE__QUEUE_PEEK__INIT;
	const Sluice__Reply *reply;

	peek.name = (char *)"work";
	peek.state = (char *)"leased";
	request.op_case = SLUICE__REQUEST__OP_QUEUE_PEEK;
	request.queue_peek = &peek;
	reply = world_query(&world, &request);
	for (size_t i = 0; i < reply->n_items; i++)
		if (reply->items[i]->seq == seq)
			return *reply->items[i];
	cr_assert_fail("item %llu is not leased", (unsigned long long)seq);
	return none;
}

/* ---- reject ---- */

Test(queue_settle, a_rejected_item_is_a_dead_letter_at_once_with_its_reason)
{
	uint64_t session = world_session(&world, NULL), token;
	Sluice__ItemInfo row;

	put("work", 3);
	token = claim(session, "work", 3, 0, 0).index;
	cr_expect_eq(ack(session, "work", token, ACK_REJECT, 0, 2, 1).count, 1);
	cr_expect_eq(cell("work").leased, 2);
	cr_expect_eq(cell("work").ready, 0);
	cr_expect_eq(cell("work").dead, 1);
	cr_expect_eq(cell("dead-letter").ready, 1);
	row = dead_letter_row();
	cr_expect_str_eq(row.dead_from, "work");
	cr_expect_str_eq(row.last_reason, "because");
	cr_expect_eq(row.attempts, 0, "it begins anew there");
	cr_expect_eq(ack(session, "work", token, ACK_REJECT, 0, 2, 1).code, SLUICE_E_STALE_TOKEN,
		     "repeated");
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 1, 3).count, 2, "the others");
	cr_expect_eq(cell("work").bytes, 0);
}

Test(queue_settle, a_rejection_without_a_reason_has_one_and_names_only_what_it_names)
{
	uint64_t session = world_session(&world, NULL), token;

	put("work", 1);
	token = claim(session, "work", 1, 0, 0).index;
	cr_expect_eq(ack_as(session, "work", token, ACK_REJECT, 0, world_text("")).code,
		     SLUICE_E_STALE_TOKEN, "no runs, no items");
	cr_expect_eq(cell("work").leased, 1);
	{
		uint8_t run[FRAME_RUN_BYTES];
		struct cmd_ack m = {.queue = queue_id("work"),
				    .token = token,
				    .op = ACK_REJECT,
				    .run_count = 1,
				    .runs = run};

		put_be64(run, 1);
		put_be32(run + 8, 1);
		cr_expect_eq(world_apply(&world, COMMAND_ACK, session, &m).count, 1);
	}
	cr_expect_str_eq(dead_letter_row().last_reason, "rejected");
}

Test(queue_settle, rejected_items_follow_the_queue_s_own_dead_letter_queue)
{
	uint64_t session = world_session(&world, NULL), token;
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;

	world_queue(&world, "bad", NULL, 0);
	config.name = (char *)"own";
	config.dead_letter = (char *)"bad";
	config.max_attempts = 1000;
	create.config = &config;
	world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
	put("own", 2);
	token = claim(session, "own", 2, 0, CLAIM_SESSION_LEASE).index;
	cr_expect_eq(ack(session, "own", token, ACK_REJECT, 0, 1, 2).count, 2);
	cr_expect_eq(cell("bad").ready, 2);
	cr_expect_eq(cell("dead-letter").ready, 0);
	cr_expect_eq(cell("own").dead, 2);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
	cr_expect_eq(world_records(&world, STORE_OWNED), 0);
	cr_expect_eq(claim(session, "bad", 2, 0, 0).count, 2, "its consumers are notified");
}

Test(queue_settle, a_rejection_is_refused_where_there_is_no_dead_letter_queue_or_no_right)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL), token;
	char reason[LIMIT_SIZE(TEXT_BYTES_MAX) + 1];

	put("dead-letter", 1);
	token = claim(session, "dead-letter", 1, 0, 0).index;
	cr_expect_eq(ack(session, "dead-letter", token, ACK_REJECT, 0, 1, 1).code,
		     SLUICE_E_WRONG_STATE);
	cr_expect_eq(cell("dead-letter").leased, 1, "it stays held");
	cr_expect_eq(ack(session, "dead-letter", token, ACK_DONE, 0, 1, 1).count, 1);
	put("work", 1);
	token = claim(session, "work", 1, 0, 0).index;
	cr_expect_eq(ack(other, "work", token, ACK_REJECT, 0, 1, 1).code, SLUICE_E_STALE_TOKEN);
	cr_expect_eq(ack(session, "work", token + 1, ACK_REJECT, 0, 1, 1).code,
		     SLUICE_E_STALE_TOKEN);
	cr_expect_eq(ack(session, "work", token, ACK_REJECT, 0, 2, 1).code, SLUICE_E_STALE_TOKEN);
	memset(reason, 'r', sizeof(reason));
	cr_expect_eq(ack_as(session, "work", token, ACK_REJECT, 0,
			    (struct sluice_slice){reason, sizeof(reason)})
			     .code,
		     SLUICE_E_LIMIT);
	cr_expect_eq(cell("work").leased, 1);
	cr_expect_eq(cell("work").dead, 0);
}

/* ---- renew ---- */

Test(queue_settle, a_renewed_item_has_a_lease_of_its_own_under_the_answer_s_index)
{
	uint64_t session = world_session(&world, NULL), token;
	struct outcome out;

	put("work", 3);
	token = claim(session, "work", 3, 10000, 0).index;
	world_wait(&world, 8000);
	out = ack(session, "work", token, ACK_RENEW, 60000, 2, 1);
	cr_expect_eq(out.code, 0);
	cr_expect_eq(out.count, 1);
	cr_expect_gt(out.index, token);
	cr_expect_eq(world_effects(&world, FX_GRANT), 0, "it is not delivered again");
	cr_expect_eq(cell("work").leased, 3);
	cr_expect_eq(world_records(&world, STORE_GRANT), 2);
	/* The old token fences the item no longer, the new one no other. */
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 2, 1).code, SLUICE_E_STALE_TOKEN);
	cr_expect_eq(ack(session, "work", out.index, ACK_DONE, 0, 1, 1).code, SLUICE_E_STALE_TOKEN);
	/* The others end when they would have. */
	world_wait(&world, 2001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").ready, 2);
	cr_expect_eq(cell("work").leased, 1);
	world_wait(&world, 50000);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 1);
	cr_expect_eq(ack(session, "work", out.index, ACK_DONE, 0, 2, 1).count, 1);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
}

Test(queue_settle, a_renewed_lease_ends_at_its_own_deadline_and_counts_its_first_item)
{
	uint64_t session = world_session(&world, NULL), token;
	struct outcome out;

	put("work", 4);
	token = claim(session, "work", 4, 60000, 0).index;
	out = ack(session, "work", token, ACK_RENEW, 5000, 3, 2);
	cr_expect_eq(out.count, 2);
	world_wait(&world, 5001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").ready, 2, "shorter than the rest");
	cr_expect_eq(cell("work").leased, 2);
	cr_expect_eq(attempts_of("work", 3), 1, "the one that was worked on");
	cr_expect_eq(attempts_of("work", 4), 0);
	cr_expect_eq(ack(session, "work", out.index, ACK_RENEW, 0, 3, 2).code, SLUICE_E_STALE_TOKEN,
		     "too late");
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 1, 2).count, 2);
}

Test(queue_settle, a_renewal_without_runs_is_of_the_whole_grant_and_of_its_lease)
{
	uint64_t session = world_session(&world, NULL), token;
	struct outcome out;

	put("work", 5);
	token = claim(session, "work", 5, 10000, 0).index;
	ack(session, "work", token, ACK_DONE, 0, 2, 1);
	world_wait(&world, 9000);
	out = ack_as(session, "work", token, ACK_RENEW, 0, world_text(""));
	cr_expect_eq(out.count, 4);
	cr_expect_eq(world_records(&world, STORE_GRANT), 1, "the old one is gone");
	world_wait(&world, 9000);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 4, "10 s from the renewal");
	world_wait(&world, 1001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 0);
}

Test(queue_settle, what_was_begun_stays_begun)
{
	uint64_t session = world_session(&world, NULL), token;

	put("work", 4);
	token = claim(session, "work", 4, 10000, CLAIM_REPORTS).index;
	cr_expect_eq(ack(session, "work", token, ACK_BEGUN, 0, 3, 1).count, 1);
	token = ack(session, "work", token, ACK_RENEW, 10000, 2, 3).index;
	world_restart(&world);
	world_wait(&world, 20001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").ready, 4);
	cr_expect_eq(attempts_of("work", 1), 0);
	cr_expect_eq(attempts_of("work", 2), 0, "its consumer reports what it begins");
	cr_expect_eq(attempts_of("work", 3), 1);
	cr_expect_eq(attempts_of("work", 4), 0);
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 3, 1).code, SLUICE_E_STALE_TOKEN);
}

Test(queue_settle, a_renewed_session_lease_ends_with_its_session)
{
	uint64_t session = world_session(&world, NULL), token, renewed;
	struct cmd_session_expire expire = {session};

	put("work", 3);
	token = claim(session, "work", 3, 0, CLAIM_SESSION_LEASE).index;
	renewed = ack(session, "work", token, ACK_RENEW, 0, 1, 2).index;
	cr_expect_eq(world_records(&world, STORE_OWNED), 2);
	world_wait(&world, 1000000);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 3, "it has no deadline");
	cr_expect_eq(ack(session, "work", renewed, ACK_DONE, 0, 1, 1).count, 1);
	renewed = ack_as(session, "work", token, ACK_RENEW, 0, world_text("")).index;
	cr_expect_eq(world_records(&world, STORE_OWNED), 2, "the first one's entry is gone");
	world_must(&world, COMMAND_SESSION_EXPIRE, 0, &expire);
	cr_expect_eq(cell("work").ready, 2);
	cr_expect_eq(world_records(&world, STORE_OWNED), 0);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
	cr_expect_eq(ack(session, "work", renewed, ACK_RENEW, 0, 3, 1).code, SLUICE_E_STALE_TOKEN);
}

Test(queue_settle, a_resumed_session_gets_renewed_items_with_their_token)
{
	uint64_t session = world_session(&world, NULL), token, renewed;

	put("work", 2);
	token = claim(session, "work", 2, 0, 0).index;
	renewed = ack(session, "work", token, ACK_RENEW, 0, 2, 1).index;
	cr_expect_eq(claim(session, "work", 10, 0, CLAIM_RESUME).count, 2);
	cr_assert_eq(world_effects(&world, FX_GRANT), 2);
	cr_expect_eq(world_effect(&world, FX_GRANT)->token, token);
	cr_expect_eq(ack(session, "work", renewed, ACK_DONE, 0, 2, 1).count, 1);
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 1, 1).count, 1);
}

Test(queue_settle, peek_shows_since_when_a_renewed_item_is_held)
{
	uint64_t session = world_session(&world, NULL), token;

	put("work", 1);
	token = claim(session, "work", 1, 10000, 0).index;
	for (int i = 1; i <= 3; i++) {
		world_wait(&world, 9000);
		token = ack(session, "work", token, ACK_RENEW, 10000, 1, 1).index;
		cr_expect_eq(leased_row(1).held_ms, (uint64_t)i * 9000, "from the first on");
	}
}

Test(queue_settle, a_renewal_is_refused_out_of_bounds_and_by_others)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL), token;

	put("work", 1);
	token = claim(session, "work", 1, 0, 0).index;
	cr_expect_eq(ack(session, "work", token, ACK_RENEW, (uint32_t)LIMIT_LEASE_MS_MIN - 1, 1, 1)
			     .code,
		     SLUICE_E_LIMIT);
	cr_expect_eq(ack(session, "work", token, ACK_RENEW, (uint32_t)LIMIT_LEASE_MS_MAX + 1, 1, 1)
			     .code,
		     SLUICE_E_LIMIT);
	cr_expect_eq(ack(other, "work", token, ACK_RENEW, 0, 1, 1).code, SLUICE_E_STALE_TOKEN);
	cr_expect_eq(ack(session, "work", token, ACK_RENEW, 0, 2, 5).code, SLUICE_E_STALE_TOKEN);
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 1, 1).count, 1,
		     "none of these changed anything");
}

/* A walk over the grants that is under way in steps meets the new grant behind it. */
Test(queue_settle, an_expiry_walk_under_way_finds_a_renewed_lease)
{
	uint64_t session = world_session(&world, NULL), token = 0;
	struct cmd_tick tick = {.work_max = 2};

	put("work", 60);
	for (int i = 0; i < 60; i++)
		token = claim(session, "work", 1, 10000, 0).index;
	world_wait(&world, 10001);
	for (int i = 0; i < 3; i++)
		(void)world_apply(&world, COMMAND_TICK, 0, &tick);
	cr_assert_gt(cell("work").scan_token, 0, "it is under way");
	token = ack(session, "work", token, ACK_RENEW, 5000, 60, 1).index;
	cr_assert_neq(token, 0, "late, but its lease had not been ended");
	world_ticks(&world, 1000);
	cr_expect_eq(cell("work").ready, 59);
	cr_expect_eq(cell("work").leased, 1);
	world_wait(&world, 5001);
	world_ticks(&world, 1000);
	cr_expect_eq(cell("work").ready, 60);
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 60, 1).code, SLUICE_E_STALE_TOKEN);
}

Test(queue_settle, before_level_1_neither_is_done)
{
	uint64_t session, token;

	world_close(&world);
	world_open_at(&world, WORLD_MEM, 0);
	world_queue(&world, "work", NULL, 0);
	session = world_session(&world, NULL);
	put("work", 1);
	token = claim(session, "work", 1, 0, 0).index;
	cr_expect_eq(ack(session, "work", token, ACK_REJECT, 0, 1, 1).code, SLUICE_E_UNSUPPORTED);
	cr_expect_eq(ack(session, "work", token, ACK_RENEW, 0, 1, 1).code, SLUICE_E_UNSUPPORTED);
	cr_expect_eq(cell("work").leased, 1);
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 1, 1).count, 1);
}
