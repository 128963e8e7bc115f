/* SPDX-License-Identifier: Apache-2.0
 * Queues: grants, tokens, acks, expiry, attempts, dead letters, purge, sweep. Each world's end
 * proves determinism as well. */
#include "broker/core/base/keys.h"
#include "broker/core/base/timer.h"
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
	cr_expect_eq(world_records(&world, STORE_GRANT), 0, "a grant without items is deleted");
	cr_expect_eq(world_records(&world, STORE_ITEM), 2);
}

/* limit: GRANT_ITEMS_MAX */
Test(queue, a_claim_grants_at_most_the_limit_and_announces_the_rest)
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

Test(queue, extension_rewrites_the_grant_and_expiry_reads_it)
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
	cr_expect_eq(grant->runs[0].first, 1, "before later items");
	cr_expect_eq(get_be16(grant->payload.data), 1, "one failed attempt before this one");
	cr_expect_eq(out.count, 1);
}

Test(queue, a_delayed_item_waits_and_is_then_delivered_first)
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

Test(queue, the_last_attempt_goes_to_the_dead_letter_queue_with_origin_and_reason)
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

Test(queue, purge_drops_ready_items_and_no_others)
{
	uint64_t session = world_session(&world, NULL);
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;
	struct outcome out;

	purge.name = (char *)"work";
	put("work", 700);
	out = claim(session, "work", 2, 0, 0);
	ack(session, "work", out.index, ACK_NACK, 0, 1, 1);
	cr_expect_eq(world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge).count, 699);
	cr_expect_eq(cell("work").ready, 0, "purged at once");
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 0);
	put("work", 1);
	cr_expect_geq(world_ticks(&world, 100), 7, "swept in bounded steps");
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 1, "items put after the purge stay");
	cr_expect_eq(ack(session, "work", out.index, ACK_DONE, 0, 2, 1).count, 1,
		     "leased items stay");
	cr_expect_eq(world_records(&world, STORE_ITEM), 1);
	cr_expect_eq(world_records(&world, STORE_READY), 0);
}

Test(queue, a_purge_drops_no_leased_item)
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
	cr_expect_eq(claim(session, "work", 10, 0, 0).count, 2, "items put after the purge stay");
}

Test(queue, an_item_whose_delay_ends_during_a_purge_is_not_swept)
{
	uint64_t session = world_session(&world, NULL);
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;
	struct cmd_tick small = {.work_max = 1};
	struct cmd_claim m = {.queue = queue_id("work"), .max = 10};

	purge.name = (char *)"work";
	put("work", 5);
	put_delayed(session, 1000);
	world_must(&world, COMMAND_QUEUE_PURGE, 0, &purge);
	/* One step of the sweep only: a TICK has no reply to check. */
	(void)world_apply(&world, COMMAND_TICK, 0, &small);
	world_wait(&world, 1001);
	world_ticks(&world, 1);
	cr_expect_eq(world_records(&world, STORE_ITEM), 1,
		     "the purged items are deleted, the delayed one is not");
	cr_expect_eq(world_apply(&world, COMMAND_CLAIM, session, &m).count, 1);
}

/* A claim drops a bounded number of purged items that are not swept yet, and then announces the
 * rest. */
Test(queue, a_claim_that_meets_only_purged_items_announces_the_rest)
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

Test(queue, a_lease_made_shorter_after_the_scan_of_expiry_expires_in_time)
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
		      "the scan has begun, and is past the first grant");
	cr_assert_gt(cell("work").leased, 1);
	cr_expect_eq(ack(session, "work", token, ACK_EXTEND, 1000, 0, 0).code, 0);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 1);
	world_wait(&world, 1001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").leased, 0, "not after the 100 s that it had before");
}

/* The engine names the timer whose work met damage; that timer may have been deleted since. */
Test(queue, a_timer_is_put_off_by_a_minute_and_a_deleted_one_is_not)
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
