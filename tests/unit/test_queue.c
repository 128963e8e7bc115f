/* SPDX-License-Identifier: Apache-2.0
 * Queues: grants, tokens, acks, expiry, attempts, dead letters, purge, sweep. Each world's end
 * proves determinism as well. */
#include "broker/core/base/keys.h"
#include "broker/core/base/timer.h"
#include "broker/core/session/session.h"
#include "tests/unit/queue_rig.h"

TestSuite(queue, .init = open_mem, .fini = close_world);

Test(queue, claim_grants_in_order_and_ack_removes)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;
	const struct effect *grant;

	put("work", 5);
	out = claim(session, "work", 3, 0, 0);
	cr_expect_eq(out.count, 3);
	grant = world_effect(&world, FX_GRANT);
	cr_assert_not_null(grant);
	cr_expect_eq(grant->run_count, 1);
	cr_expect_eq(grant->runs[0].first, 1);
	cr_expect_eq(grant->token, out.index, "the token is the index of the claim");
	cr_expect_eq(ack(session, "work", out.index, ACK_DONE, 0, 1, 3).count, 3);
	cr_expect_eq(cell("work").ready, 2);
	cr_expect_eq(cell("work").leased, 0);
	cr_expect_eq(cell("work").acked, 3);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0, "a grant with nothing out is gone");
	cr_expect_eq(world_records(&world, STORE_ITEM), 2);
}

/* limit: GRANT_ITEMS_MAX */
Test(queue, a_claim_grants_at_most_the_limit_and_says_that_there_is_more)
{
	uint64_t session = world_session(&world, NULL);

	put("work", (unsigned)LIMIT_GRANT_ITEMS_MAX + 1);
	cr_expect_eq(claim(session, "work", 100000, 0, 0).count, LIMIT_GRANT_ITEMS_MAX);
	cr_expect_eq(world_effects(&world, FX_QUEUE_READY), 1);
	cr_expect_eq(claim(session, "work", 100000, 0, 0).count, 1);
	cr_expect_eq(world_effects(&world, FX_QUEUE_READY), 0);
}

/* limit: LEASE_MS_MIN */
/* limit: LEASE_MS_MAX */
Test(queue, leases_have_bounds)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;

	put("work", 4);
	cr_expect_eq(claim(session, "work", 1, (uint32_t)LIMIT_LEASE_MS_MIN - 1, 0).code,
		     SLUICE_E_LIMIT);
	cr_expect_eq(claim(session, "work", 1, (uint32_t)LIMIT_LEASE_MS_MIN, 0).count, 1);
	cr_expect_eq(claim(session, "work", 1, (uint32_t)LIMIT_LEASE_MS_MAX + 1, 0).code,
		     SLUICE_E_LIMIT);
	out = claim(session, "work", 1, (uint32_t)LIMIT_LEASE_MS_MAX, 0);
	cr_expect_eq(out.count, 1);
	cr_expect_eq(ack(session, "work", out.index, ACK_EXTEND, (uint32_t)LIMIT_LEASE_MS_MAX + 1,
			 0, 0)
			     .code,
		     SLUICE_E_LIMIT);
	cr_expect_eq(ack(session, "work", out.index, ACK_EXTEND, (uint32_t)LIMIT_LEASE_MS_MIN - 1,
			 0, 0)
			     .code,
		     SLUICE_E_LIMIT);
	cr_expect_eq(ack(session, "work", out.index, ACK_EXTEND, (uint32_t)LIMIT_LEASE_MS_MIN, 0, 0)
			     .code,
		     0);
}

Test(queue, a_stale_token_changes_nothing)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL);
	struct outcome first, second;

	put("work", 1);
	first = claim(session, "work", 1, 1000, 0);
	cr_expect_eq(ack(other, "work", first.index, ACK_DONE, 0, 1, 1).code, SLUICE_E_STALE_TOKEN,
		     "another session holds it");
	world_wait(&world, 1001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").ready, 1);
	second = claim(other, "work", 1, 1000, 0);
	cr_expect_eq(second.count, 1);
	cr_expect_gt(second.index, first.index, "tokens only grow");
	cr_expect_eq(ack(session, "work", first.index, ACK_DONE, 0, 1, 1).code,
		     SLUICE_E_STALE_TOKEN);
	cr_expect_eq(ack(session, "work", first.index, ACK_EXTEND, 5000, 1, 1).code,
		     SLUICE_E_STALE_TOKEN);
	cr_expect_eq(cell("work").leased, 1);
	cr_expect_eq(ack(other, "work", second.index, ACK_DONE, 0, 1, 1).code, 0);
	cr_expect_eq(ack(other, "work", second.index, ACK_DONE, 0, 1, 1).code, SLUICE_E_STALE_TOKEN,
		     "an acked item never comes back");
}

Test(queue, extension_rewrites_the_grant_and_expiry_looks_at_it)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;

	put("work", 2);
	out = claim(session, "work", 2, 1000, 0);
	world_wait(&world, 900);
	cr_expect_eq(ack(session, "work", out.index, ACK_EXTEND, 1000, 0, 0).code, 0);
	world_wait(&world, 200);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 2,
		     "the timer fired at 1,000 ms and found the grant extended");
	world_wait(&world, 1000);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 0);
	cr_expect_eq(cell("work").ready, 2);
}

Test(queue, a_returned_item_keeps_its_place_and_counts_its_attempts)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;
	const struct effect *grant;

	put("work", 3);
	out = claim(session, "work", 1, 0, 0);
	cr_expect_eq(ack(session, "work", out.index, ACK_NACK, 0, 1, 1).count, 1);
	out = claim(session, "work", 1, 0, 0);
	grant = world_effect(&world, FX_GRANT);
	cr_assert_not_null(grant);
	cr_expect_eq(grant->runs[0].first, 1, "ahead of what came later");
	cr_expect_eq(get_be16(grant->payload.data), 1, "one failed attempt before this one");
	cr_expect_eq(out.count, 1);
}

Test(queue, a_delayed_item_waits_and_then_comes_first)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;

	put("work", 2);
	out = claim(session, "work", 1, 0, 0);
	ack(session, "work", out.index, ACK_NACK, 500, 1, 1);
	cr_expect_eq(cell("work").delayed, 1);
	out = claim(session, "work", 10, 0, 0);
	cr_expect_eq(out.count, 1);
	cr_expect_eq(world_effect(&world, FX_GRANT)->runs[0].first, 2);
	world_wait(&world, 500);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").delayed, 0);
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 1);
	cr_expect_eq(world_effect(&world, FX_GRANT)->runs[0].first, 1);
}

Test(queue, the_last_attempt_goes_to_the_dead_letter_queue_with_its_story)
{
	uint64_t session = world_session(&world, NULL);
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueuePeek peek = SLUICE__QUEUE_PEEK__INIT;
	const Sluice__Reply *reply;

	configure("twice", 2, false);
	put("twice", 1);
	for (int i = 0; i < 2; i++) {
		struct outcome out = claim(session, "twice", 1, 0, 0);

		cr_assert_eq(out.count, 1);
		ack(session, "twice", out.index, ACK_NACK, 0, 1, 1);
	}
	cr_expect_eq(cell("twice").dead, 1);
	cr_expect_eq(cell("twice").ready + cell("twice").leased, 0);
	cr_expect_eq(cell("dead-letter").ready, 1);
	peek.name = (char *)"dead-letter";
	request.op_case = SLUICE__REQUEST__OP_QUEUE_PEEK;
	request.queue_peek = &peek;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_items, 1);
	cr_expect_str_eq(reply->items[0]->dead_from, "twice");
	cr_expect_str_eq(reply->items[0]->last_reason, "because");
	cr_expect_eq(reply->items[0]->attempts, 0, "it has not failed there");
	cr_expect_str_eq(reply->items[0]->subject, "s");
}

Test(queue, session_leases_last_as_long_as_their_session)
{
	uint64_t session = world_session(&world, NULL);
	struct cmd_session_expire expire = {session};

	put("work", 3);
	cr_expect_eq(claim(session, "work", 2, 0, CLAIM_SESSION_LEASE).count, 2);
	world_wait(&world, 86400000);
	world_ticks(&world, 1000);
	cr_expect_eq(cell("work").leased, 2, "no deadline");
	world_must(&world, COMMAND_SESSION_EXPIRE, 0, &expire);
	world_ticks(&world, 1000);
	cr_expect_eq(cell("work").leased, 0);
	cr_expect_eq(cell("work").ready, 3);
	cr_expect_eq(world_records(&world, STORE_OWNED), 0);
}

Test(queue, resume_delivers_again_what_is_held_and_grants_nothing)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;

	put("work", 4);
	out = claim(session, "work", 3, 0, 0);
	ack(session, "work", out.index, ACK_DONE, 0, 2, 1);
	cr_expect_eq(claim(session, "work", 100, 0, CLAIM_RESUME).count, 2);
	cr_expect_eq(world_effect(&world, FX_GRANT)->token, out.index, "under the same token");
	cr_expect_eq(world_effect(&world, FX_GRANT)->run_count, 2);
	cr_expect_eq(cell("work").ready, 1);
}

/* Redelivers in steps until there is no more; returns how many items came, and how many steps it
 * took. */
static unsigned resume_all(uint64_t session, unsigned *ret_steps)
{
	struct cmd_claim m = {.queue = queue_id("work"), .max = 1024, .flags = CLAIM_RESUME};
	unsigned count = 0;

	*ret_steps = 0;
	do {
		struct outcome out = world_apply(&world, COMMAND_CLAIM, session, &m);
		size_t bytes = 0;

		cr_assert_eq(out.code, 0, "%s", out.text);
		for (size_t i = 0; i < effects_count(world.effects); i++)
			bytes += effects_at(world.effects, i)->payload.len;
		cr_expect_lt(bytes, 3u << 20, "a step is bounded: %zu bytes", bytes);
		if (m.resume_until == 0)
			m.resume_until = out.index;
		m.resume_after = out.id;
		count += out.count;
		++*ret_steps;
	} while (m.resume_after != 0);
	return count;
}

Test(queue, resume_goes_on_in_steps_until_all_that_is_held_was_delivered)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL);
	unsigned steps;

	put("work", 5000);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(claim(session, "work", 1000, 0, 0).count, 1000);
		cr_assert_eq(claim(other, "work", 500, 0, 0).count, 500);
	}
	cr_expect_eq(resume_all(session, &steps), 3000);
	cr_expect_eq(steps, 2, "a step ends behind the grant that fills it");
	cr_expect_eq(resume_all(other, &steps), 1500);
}

Test(queue, resume_leaves_out_what_the_session_is_given_between_its_steps)
{
	uint64_t session = world_session(&world, NULL);
	struct cmd_claim m = {.queue = queue_id("work"), .max = 10, .flags = CLAIM_RESUME};
	struct outcome out;

	put("work", 50);
	claim(session, "work", 10, 0, 0);
	claim(session, "work", 10, 0, 0);
	out = world_apply(&world, COMMAND_CLAIM, session, &m);
	cr_expect_eq(out.count, 10);
	cr_expect_neq(out.id, 0);
	m.resume_after = out.id;
	m.resume_until = out.index;
	cr_assert_eq(claim(session, "work", 10, 0, 0).count, 10, "another consumer of the session");
	out = world_apply(&world, COMMAND_CLAIM, session, &m);
	cr_expect_eq(out.count, 10);
	cr_expect_eq(out.id, 0, "and nothing of the newer grant");
}

Test(queue, resume_delivers_nothing_that_another_session_holds)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL);
	struct outcome mine;

	put("work", 4);
	claim(other, "work", 2, 0, 0);
	mine = claim(session, "work", 1, 0, 0);
	cr_expect_eq(claim(session, "work", 100, 0, CLAIM_RESUME).count, 1);
	cr_expect_eq(world_effects(&world, FX_GRANT), 1);
	cr_expect_eq(world_effect(&world, FX_GRANT)->token, mine.index);
	cr_expect_eq(claim(world_session(&world, NULL), "work", 100, 0, CLAIM_RESUME).count, 0,
		     "who holds nothing is given nothing");
	cr_expect_eq(cell("work").leased, 3, "and the leases are as they were");
}

/* The delivery says that the lease is so long from now on: a holder that extends at half of it must
 * not come too late. */
Test(queue, resume_begins_the_lease_anew)
{
	uint64_t session = world_session(&world, NULL), token;

	put("work", 1);
	token = claim(session, "work", 1, 1000, 0).index;
	world_wait(&world, 800);
	cr_expect_eq(claim(session, "work", 1, 0, CLAIM_RESUME).count, 1);
	cr_expect_eq(world_effect(&world, FX_GRANT)->token, token);
	cr_expect_eq(world_effect(&world, FX_GRANT)->lease_ms, 1000);
	world_wait(&world, 800);
	world_ticks(&world, 1000);
	cr_expect_eq(cell("work").leased, 1, "800 of 1000 ms have passed since");
	world_wait(&world, 200);
	world_ticks(&world, 1000);
	cr_expect_eq(cell("work").leased, 0);
	cr_expect_eq(cell("work").ready, 1);
}

/* More grants than are looked at at once, and another session's among them. */
Test(queue, resume_finds_each_of_many_grants)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL);
	unsigned steps;

	put("work", 300);
	for (int i = 0; i < 300; i++)
		(void)claim(i % 3 == 0 ? other : session, "work", 1, 0, 0);
	cr_expect_eq(resume_all(session, &steps), 200);
	cr_expect_eq(resume_all(other, &steps), 100);
}

Test(queue, priority_goes_before_age)
{
	uint64_t session = world_session(&world, NULL);
	struct envelope envelope = {.body = world_text("urgent"), .priority = 200};
	uint8_t bytes[64];
	struct frame_publish publish = {.target_kind = PUBLISH_TO_QUEUE,
					.count = 1,
					.subject = world_text("s"),
					.target = world_text("ranked")};

	configure("ranked", 0, true);
	put("ranked", 2);
	publish.payload = (struct sluice_slice){bytes, envelope_encode(bytes, &envelope)};
	publish.raw_bytes = (uint32_t)publish.payload.len;
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_expect_eq(claim(session, "ranked", 1, 0, 0).count, 1);
	cr_expect_eq(world_effect(&world, FX_GRANT)->runs[0].first, 3);
	cr_expect_eq(claim(session, "ranked", 10, 0, 0).count, 2);
}

Test(queue, purge_drops_what_is_ready_and_nothing_else)
{
	uint64_t session = world_session(&world, NULL);
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;
	struct outcome out;

	purge.name = (char *)"work";
	put("work", 700);
	out = claim(session, "work", 2, 0, 0);
	ack(session, "work", out.index, ACK_NACK, 0, 1, 1);
	cr_expect_eq(world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge).count, 699);
	cr_expect_eq(cell("work").ready, 0, "marked at once");
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 0);
	put("work", 1);
	cr_expect_geq(world_ticks(&world, 100), 7, "swept in bounded steps");
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 1, "what came after the purge stays");
	cr_expect_eq(ack(session, "work", out.index, ACK_DONE, 0, 2, 1).count, 1,
		     "what was leased stays");
	cr_expect_eq(world_records(&world, STORE_ITEM), 1);
	cr_expect_eq(world_records(&world, STORE_READY), 0);
}

Test(queue, purge_of_a_queue_whose_items_are_all_leased_takes_none_of_them)
{
	uint64_t session = world_session(&world, NULL);
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;
	struct outcome out;

	purge.name = (char *)"work";
	put("work", 3);
	out = claim(session, "work", 3, 0, 0);
	cr_expect_eq(world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge).count, 0);
	put("work", 2);
	world_ticks(&world, 100);
	cr_expect_eq(world_records(&world, STORE_ITEM), 5);
	cr_expect_eq(ack(session, "work", out.index, ACK_NACK, 0, 1, 3).count, 3);
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 3);
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 2, "what came after the purge stays");
}

Test(queue, what_matures_during_a_purge_is_not_swept)
{
	uint64_t session = world_session(&world, NULL);
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;
	struct cmd_tick small = {.work_max = 1};
	struct cmd_claim m = {.queue = queue_id("work"), .max = 10};

	purge.name = (char *)"work";
	put("work", 5);
	put_delayed(session, 1000);
	world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge);
	/* One step of the sweep only: a TICK has no reply to look at. */
	(void)world_apply(&world, COMMAND_TICK, 0, &small);
	world_wait(&world, 1001);
	world_ticks(&world, 1);
	cr_expect_eq(world_records(&world, STORE_ITEM), 1,
		     "the purged are gone, the delayed one is there");
	cr_expect_eq(world_apply(&world, COMMAND_CLAIM, session, &m).count, 1);
}

/* What was purged and not swept yet is dropped on the way, so many a claim; then it says that there
 * is more. */
Test(queue, a_claim_that_meets_nothing_but_what_was_purged_asks_for_another)
{
	uint64_t session = world_session(&world, NULL), token;
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;
	unsigned claims = 0;

	purge.name = (char *)"work";
	put("work", 600);
	token = claim(session, "work", 600, 0, 0).index;
	cr_assert_eq(ack(session, "work", token, ACK_NACK, 0, 1, 599).count, 599);
	world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge);
	cr_assert_eq(ack(session, "work", token, ACK_NACK, 0, 600, 1).count, 1);
	cr_assert_eq(cell("work").ready, 1);
	while (claim(session, "work", 10, 0, 0).count == 0) {
		cr_assert_eq(world_effects(&world, FX_QUEUE_READY), 1, "after %u claims", claims);
		cr_assert_lt(++claims, 10);
	}
	cr_expect_geq(claims, 2);
}

static size_t peeked(const char *state)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueuePeek peek = SLUICE__QUEUE_PEEK__INIT;

	peek.name = (char *)"work";
	peek.state = (char *)(uintptr_t)state;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_PEEK;
	request.queue_peek = &peek;
	return world_query(&world, &request)->n_items;
}

Test(queue, peek_shows_what_a_purge_left_before_its_sweep_is_through)
{
	uint64_t session = world_session(&world, NULL), token;
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;

	purge.name = (char *)"work";
	put("work", 6);
	/* 1 and 2 come back as exceptions, 3 is delayed, 4 leased, 5 and 6 wait in order. */
	token = claim(session, "work", 4, 0, 0).index;
	cr_assert_eq(ack(session, "work", token, ACK_NACK, 0, 1, 2).count, 2);
	cr_assert_eq(ack(session, "work", token, ACK_NACK, 5000, 3, 1).count, 1);
	cr_assert_eq(peeked("ready"), 4);
	world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge);
	cr_expect_eq(peeked("ready"), 0);
	cr_expect_eq(peeked("delayed"), 1);
	cr_expect_eq(peeked("leased"), 1);
	world_ticks(&world, 100);
	cr_expect_eq(peeked(""), 2);
}

Test(queue, a_deleted_queue_is_swept_and_refuses)
{
	uint64_t session = world_session(&world, NULL), id = queue_id("work");
	Sluice__QueueDelete delete = SLUICE__QUEUE_DELETE__INIT;
	struct cmd_claim m = {.queue = id, .max = 1};

	delete.name = (char *)"work";
	put("work", 300);
	claim(session, "work", 5, 0, 0);
	delete.if_empty = true;
	cr_expect_eq(world_apply(&world, COMMAND_QUEUE_DELETE, 0, &delete).code, SLUICE_E_IN_USE);
	delete.if_empty = false;
	world_must(&world, COMMAND_QUEUE_DELETE, 0, &delete);
	cr_expect_eq(world_effects(&world, FX_QUEUE_DELETED), 1);
	cr_expect_eq(world_apply(&world, COMMAND_CLAIM, session, &m).code, SLUICE_E_NOT_FOUND);
	world_ticks(&world, 50);
	cr_expect_eq(world_records(&world, STORE_ITEM), 0);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
	delete.name = (char *)"dead-letter";
	cr_expect_eq(world_apply(&world, COMMAND_QUEUE_DELETE, 0, &delete).code, SLUICE_E_IN_USE);
}

/* What a bad disk does, behind the world's back: the record is there and cannot be read. */
static void damage_key(enum store_table table, const struct key *key)
{
	struct store_txn *txn;

	cr_assert_eq(store_begin(world.store, &txn), 0);
	cr_assert_eq(store_put(txn, table, key_slice(key), (struct sluice_slice){"?", 1}), 0);
	cr_assert_eq(store_commit(txn), 0);
}

static void damage(enum store_table table, uint64_t queue, uint64_t sub)
{
	struct key key;

	key_two(&key, world.gateway, queue, sub);
	damage_key(table, &key);
}

Test(queue, a_deleted_queue_goes_with_its_damaged_records)
{
	uint64_t session = world_session(&world, NULL), id = queue_id("work"), token;
	Sluice__QueueDelete delete = SLUICE__QUEUE_DELETE__INIT;

	delete.name = (char *)"work";
	put("work", 20);
	token = claim(session, "work", 5, 0, 0).index;
	damage(STORE_ITEM, id, 3);
	damage(STORE_ITEM, id, 20);
	damage(STORE_GRANT, id, token);
	world_must(&world, COMMAND_QUEUE_DELETE, 0, &delete);
	world_ticks(&world, 50);
	cr_expect_eq(world_records(&world, STORE_ITEM), 0);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
}

/* What the world's end compares was never damaged: all that was has to be gone by then. */
static void delete_work(void)
{
	Sluice__QueueDelete delete = SLUICE__QUEUE_DELETE__INIT;

	delete.name = (char *)"work";
	world_must(&world, COMMAND_QUEUE_DELETE, 0, &delete);
	world_ticks(&world, 100);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
}

Test(queue, a_damaged_lease_does_not_hold_up_the_expiry_of_the_others)
{
	uint64_t session = world_session(&world, NULL), bad;

	put("work", 4);
	claim(session, "work", 1, 1000, 0);
	bad = claim(session, "work", 2, 1000, 0).index;
	claim(session, "work", 1, 1000, 0);
	damage(STORE_GRANT, queue_id("work"), bad);
	world_wait(&world, 1001);
	world_ticks(&world, 1);
	cr_expect_eq(cell("work").ready, 2);
	cr_expect_eq(cell("work").leased, 2, "its own, of which nobody knows any more");
	cr_expect_eq(claim(session, "work", 10, 1000, 0).count, 2);
	/* The damage moved a timer: the same commands without it give another database. */
	world_discard(&world);
	world_open(&world, WORLD_MEM);
}

Test(queue, a_session_that_holds_a_damaged_lease_ends_and_gives_the_others_back)
{
	uint64_t session = world_session(&world, NULL), bad;
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;

	put("work", 3);
	bad = claim(session, "work", 1, 0, CLAIM_SESSION_LEASE).index;
	claim(session, "work", 2, 0, CLAIM_SESSION_LEASE);
	damage(STORE_GRANT, queue_id("work"), bad);
	world_must(&world, COMMAND_SESSION_CLOSE, session, &close);
	cr_expect_eq(world_effects(&world, FX_SESSION_ENDED), 1);
	cr_expect_eq(world_effects(&world, FX_ITEM_DAMAGED), 1);
	cr_expect_eq(cell("work").ready, 2);
	delete_work();
}

/* Queues with grants before and behind the one that it is, whose tokens are lower and higher. */
Test(queue, a_lease_whose_entry_in_its_session_is_damaged_ends_with_the_session)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL), bad;
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;
	struct key key;

	put("work", 5);
	put("dead-letter", 2);
	claim(other, "work", 1, 0, 0);
	claim(other, "dead-letter", 1, 0, 0);
	bad = claim(session, "work", 2, 0, CLAIM_SESSION_LEASE).index;
	claim(session, "work", 1, 0, CLAIM_SESSION_LEASE);
	claim(other, "dead-letter", 1, 0, 0);
	key_owned(&key, world.gateway, session, OWNED_GRANT, bad);
	damage_key(STORE_OWNED, &key);
	world_must(&world, COMMAND_SESSION_CLOSE, session, &close);
	cr_expect_eq(world_effects(&world, FX_SESSION_ENDED), 1);
	cr_expect_eq(cell("work").ready, 4);
	cr_expect_eq(cell("work").leased, 1);
	world_ticks(&world, 10);
	cr_expect_eq(world_records(&world, STORE_OWNED), 0);
	cr_expect_eq(world_records(&world, STORE_SESSION), 1, "the other's");
}

Test(queue, a_damaged_delayed_item_that_was_purged_is_counted_until_its_time_has_come)
{
	uint64_t session = world_session(&world, NULL);
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;

	put_delayed(session, 5000);
	put_delayed(session, 5000);
	as_before("work", 1);
	as_before("work", 2);
	put("work", 1);
	damage(STORE_ITEM, queue_id("work"), 1);
	purge.name = (char *)"work";
	world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge);
	world_ticks(&world, 100);
	cr_expect_eq(world_records(&world, STORE_ITEM), 1,
		     "the damaged one goes, the other delayed one stays");
	cr_expect_eq(cell("work").delayed, 2);
	world_wait(&world, 5001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").delayed, 0);
	cr_expect_eq(cell("work").ready, 1);
	delete_work();
}

Test(queue, a_purge_takes_damaged_items_that_claims_have_passed_by)
{
	uint64_t session = world_session(&world, NULL), token;
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;

	put("work", 6);
	put_delayed(session, 5000);
	put_delayed(session, 5000);
	damage(STORE_ITEM, queue_id("work"), 2);
	damage(STORE_ITEM, queue_id("work"), QUEUE_DELAYED | 7);
	while (cell("work").leased < 3)
		claim(session, "work", 1, 1000, 0);
	token = claim(session, "work", 1, 60000, 0).index; /* 5 */
	damage(STORE_ITEM, queue_id("work"), 3);	   /* leased */
	cr_assert_eq(cell("work").leased, 4);
	purge.name = (char *)"work";
	world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge);
	world_ticks(&world, 2);
	cr_expect_eq(world_records(&world, STORE_ITEM), 4, "1, 4 and 5 are leased, 8 is delayed");
	cr_expect_eq(world_apply(&world, COMMAND_QUEUE_PURGE, 0, &purge).code, 0, "it has ended");
	world_ticks(&world, 2);
	cr_expect_eq(world_records(&world, STORE_ITEM), 4);
	world_wait(&world, 5001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 1, "leases end, also that of a missing item");
	cr_expect_eq(cell("work").ready, 3, "1, 4 and 8");
	cr_expect_eq(cell("work").delayed, 0);
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 5, 1).count, 1);
	delete_work();
}

Test(queue, a_purge_leaves_damaged_exceptions_to_the_claim_that_counts_them)
{
	for (int priority = 0; priority < 2; priority++) {
		uint64_t session, token;
		Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;

		session = world_session(&world, NULL);
		configure("other", 20, priority);
		purge.name = (char *)"other";
		put("other", 3);
		token = claim(session, "other", 3, 60000, 0).index;
		world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge);
		cr_assert_eq(ack(session, "other", token, ACK_NACK, 0, 1, 2).count, 2);
		damage(STORE_ITEM, queue_id("other"), 1);
		world_ticks(&world, 100);
		cr_expect_eq(world_records(&world, STORE_ITEM), 3);
		cr_expect_eq(cell("other").ready, 2);
		while (cell("other").ready > 0)
			claim(session, "other", 1, 60000, 0);
		cr_expect_eq(cell("other").leased, 2);
		world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge);
		world_ticks(&world, 100);
		cr_expect_eq(world_records(&world, STORE_ITEM), 2, "the damaged one is gone");
		world_discard(&world);
		open_mem();
	}
}

Test(queue, a_restart_gives_timed_leases_one_full_timeout)
{
	uint64_t session = world_session(&world, NULL);

	put("work", 1);
	claim(session, "work", 1, 1000, 0);
	world_wait(&world, 5000);
	world_restart(&world);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 1,
		     "its holder had no chance to extend it while the broker was down");
	world_wait(&world, 1000);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 0);
}

Test(queue, a_lease_made_shorter_behind_the_walk_that_expires_others_expires_in_time)
{
	uint64_t session = world_session(&world, NULL);
	struct cmd_tick tick = {.work_max = 4};
	uint64_t token;

	put("work", 21);
	token = claim(session, "work", 1, 100000, 0).index;
	for (int i = 0; i < 20; i++)
		claim(session, "work", 1, 1000, 0);
	world_wait(&world, 1001);
	world_apply(&world, COMMAND_TICK, 0, &tick);
	cr_assert_neq(cell("work").scan_token, 0,
		      "the walk is under way, and past the first grant");
	cr_assert_gt(cell("work").leased, 1);
	cr_expect_eq(ack(session, "work", token, ACK_EXTEND, 1000, 0, 0).code, 0);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 1);
	world_wait(&world, 1001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 0, "not after the 100 s that it had before");
}

/* The engine names the timer whose work met damage, and by then that timer may not be there any
 * more. */
Test(queue, a_timer_is_put_off_by_a_minute_and_one_that_is_gone_is_nothing_to_put_off)
{
	uint64_t session = world_session(&world, NULL), due;
	struct cmd_tick tick = {.work_max = 0};
	struct key key;

	put("work", 1);
	claim(session, "work", 1, 1000, 0);
	due = cell("work").lease_timer_due;
	key_timer(&key, world.gateway, due, TIMER_QUEUE_LEASES, queue_id("work"), due);
	tick.put_off = key_slice(&key);
	world_wait(&world, 1001);
	world_apply(&world, COMMAND_TICK, 0, &tick);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 1);
	world_apply(&world, COMMAND_TICK, 0, &tick);
	world_wait(&world, 60000);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 0);
}

Test(queue, expiry_is_bounded_work)
{
	uint64_t session = world_session(&world, NULL);

	put("work", 60);
	for (int i = 0; i < 20; i++)
		claim(session, "work", 3, 1000, 0);
	world_wait(&world, 1001);
	cr_expect_geq(world_ticks(&world, 8), 5);
	cr_expect_eq(cell("work").ready, 60);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
}

/* A store of before has delayed items in place. One that is damaged may have been ready or not: the
 * count is right again behind it. */
Test(queue, a_damaged_item_among_delayed_ones_in_place_costs_no_other_item)
{
	for (int which = 0; which < 4; which++) {
		uint64_t session = world_session(&world, NULL), id;
		uint32_t got = 0;

		put_delayed(session, 600000);
		put("work", 1);
		put_delayed(session, 600000);
		put("work", 2);
		id = queue_id("work");
		for (uint64_t seq = 1; seq <= 3; seq += 2)
			as_before("work", seq);
		damage(STORE_ITEM, id, 1 + (uint64_t)which);
		for (int claims = 0; claims < 6; claims++)
			got += claim(session, "work", 1 + (uint32_t)claims % 3, 0, 0).count;
		cr_expect_eq(got, which % 2 == 0 ? 3 : 2, "item %d is damaged", 1 + which);
		cr_expect_eq(cell("work").ready, 0, "item %d is damaged", 1 + which);
		delete_work();
		world_queue(&world, "work", NULL, 0);
	}
	world_discard(&world);
	world_open(&world, WORLD_MEM);
}

Test(queue, peek_names_damaged_items_and_shows_the_others)
{
	static const struct {
		const char *state;
		size_t rows, named;
	} looks[] = {{"", 7, 3}, {"ready", 4, 2}, {"leased", 2, 1}, {"delayed", 4, 3}};
	uint64_t session = world_session(&world, NULL);
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueuePeek peek = SLUICE__QUEUE_PEEK__INIT;
	const Sluice__Reply *reply;

	put("work", 5);
	put_delayed(session, 600000);
	put_delayed(session, 600000);
	claim(session, "work", 2, 0, 0);
	/* Sound: 1 is leased, 3 and 5 are ready, 7 is delayed. */
	damage(STORE_ITEM, queue_id("work"), 2);
	damage(STORE_ITEM, queue_id("work"), 4);
	damage(STORE_ITEM, queue_id("work"), QUEUE_DELAYED | 6);
	peek.name = (char *)"work";
	request.op_case = SLUICE__REQUEST__OP_QUEUE_PEEK;
	request.queue_peek = &peek;
	for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++) {
		size_t named = 0;

		peek.state = (char *)(uintptr_t)looks[i].state;
		reply = world_query(&world, &request);
		cr_assert_eq(reply->code, 0, "%s: %s", looks[i].state, reply->text);
		for (size_t row = 0; row < reply->n_items; row++) {
			const Sluice__ItemInfo *item = reply->items[row];

			if (strncmp(item->last_reason, "damaged: table item, key ", 25) == 0) {
				cr_expect_eq(item->seq % 2, 0);
				cr_expect_str_eq(item->state, "damaged");
				named++;
			} else {
				cr_expect_eq(item->seq % 2, 1);
			}
		}
		cr_expect_eq(named, looks[i].named, "%s: %zu are named", looks[i].state, named);
		cr_expect_eq(reply->n_items, looks[i].rows, "%s: %zu rows", looks[i].state,
			     reply->n_items);
	}
	peek.state = (char *)"";
	peek.max = 1;
	peek.after = 1;
	reply = world_query(&world, &request);
	cr_expect_eq(reply->items[0]->seq, 2, "and a peek goes on behind one");
	peek.after = 2;
	reply = world_query(&world, &request);
	cr_expect_eq(reply->items[0]->seq, 3);
	world_discard(&world);
	open_mem();
}

/* ---- since when it is held ---- */

static const Sluice__ItemInfo *leased_row(void)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueuePeek peek = SLUICE__QUEUE_PEEK__INIT;

	peek.name = (char *)"work";
	peek.state = (char *)"leased";
	request.op_case = SLUICE__REQUEST__OP_QUEUE_PEEK;
	request.queue_peek = &peek;
	return world_query(&world, &request)->items[0];
}

Test(queue, peek_says_how_long_a_lease_is_held_over_its_extensions)
{
	uint64_t session = world_session(&world, NULL), token, id = queue_id("work");
	uint8_t bytes[512];
	struct store_txn *txn;
	struct sluice_slice value;
	struct key key;

	put("work", 1);
	token = claim(session, "work", 1, 60000, 0).index;
	for (uint64_t i = 1; i <= 3; i++) {
		world_wait(&world, 20000);
		cr_assert_eq(ack(session, "work", token, ACK_EXTEND, 60000, 0, 0).code, 0);
		cr_expect_eq(leased_row()->held_ms, i * 20000);
	}
	/* One of an older broker has no such number, and is read all the same. */
	cr_assert_eq(store_begin(world.store, &txn), 0);
	key_two(&key, world.gateway, id, token);
	cr_assert_eq(store_get(txn, STORE_GRANT, key_slice(&key), &value), 0);
	memcpy(bytes, value.data, value.len);
	bytes[8] &= (uint8_t)~16;
	cr_assert_eq(store_put(txn, STORE_GRANT, key_slice(&key),
			       (struct sluice_slice){bytes, value.len - 8}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
	cr_expect_eq(leased_row()->held_ms, 0);
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 1, 1).count, 1);
	world_discard(&world);
	open_mem();
}

/* ---- for how long its consumer extends it by itself ---- */

static struct outcome claim_extended(uint64_t session, uint32_t extend_max_ms, uint8_t flags)
{
	struct cmd_claim m = {.queue = queue_id("work"),
			      .max = 1,
			      .lease_ms = 60000,
			      .flags = flags,
			      .extend_max_ms = extend_max_ms};

	return world_apply(&world, COMMAND_CLAIM, session, &m);
}

static size_t grant_bytes(uint64_t token)
{
	struct sluice_slice value;
	struct store_txn *txn;
	struct key key;
	size_t bytes;

	cr_assert_eq(store_begin_read(world.store, &txn), 0);
	key_two(&key, world.gateway, queue_id("work"), token);
	cr_assert_eq(store_get(txn, STORE_GRANT, key_slice(&key), &value), 0);
	bytes = value.len;
	store_abort(txn);
	return bytes;
}

Test(queue, peek_says_for_how_long_a_lease_is_extended_automatically)
{
	uint64_t session = world_session(&world, NULL), token;

	put("work", 1);
	token = claim_extended(session, 43200000, 0).index;
	cr_assert_eq(leased_row()->extend_max_ms, 43200000);
	world_wait(&world, 20000);
	cr_assert_eq(ack(session, "work", token, ACK_EXTEND, 60000, 0, 0).code, 0);
	cr_expect_eq(leased_row()->extend_max_ms, 43200000, "after an extension");
	cr_expect_eq(leased_row()->held_ms, 20000);
	cr_assert_eq(ack(session, "work", token, ACK_BEGUN, 0, 1, 1).code, 0);
	cr_expect_eq(leased_row()->extend_max_ms, 43200000, "behind what is begun");
	cr_assert_eq(claim(session, "work", 1, 0, CLAIM_RESUME).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 43200000, "after a resume without one");
	cr_assert_eq(claim_extended(session, 1000, CLAIM_RESUME).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 43200000, "of another consumer of the session");
	world_restart(&world);
	cr_expect_eq(leased_row()->extend_max_ms, 43200000, "after a restart");
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 1, 1).count, 1);
}

Test(queue, a_lease_whose_consumer_says_nothing_of_extensions_shows_none_and_costs_nothing)
{
	uint64_t session = world_session(&world, NULL), token;
	size_t bytes;

	put("work", 2);
	token = claim_extended(session, 0, 0).index;
	cr_expect_eq(leased_row()->extend_max_ms, 0);
	bytes = grant_bytes(token);
	/* As one of an older program: a resume tells it. */
	cr_assert_eq(claim_extended(session, 5000, CLAIM_RESUME).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 5000);
	cr_expect_eq(grant_bytes(token), bytes + 4);
	cr_assert_eq(ack(session, "work", token, ACK_DONE, 0, 1, 1).count, 1);
	cr_assert_eq(claim_extended(session, 5000, CLAIM_SESSION_LEASE).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 0, "a session's lease is not extended");
	cr_assert_eq(claim_extended(session, 5000, CLAIM_RESUME).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 0);
}
