/* SPDX-License-Identifier: Apache-2.0
 * Damaged items, grants and session entries: claims, expiry, purge, deletion and peek continue
 * after them. */
#include "broker/core/session/session.h"
#include "tests/unit/queue_rig.h"

TestSuite(queue_damage, .init = open_mem, .fini = close_world);

/* As a bad disk does, outside of the world's commands: the record exists and cannot be read. */
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

Test(queue_damage, a_deleted_queue_is_swept_with_its_damaged_records)
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

/* The world's replays have no damage, so the damaged records must be deleted before its end. */
static void delete_work(void)
{
	Sluice__QueueDelete delete = SLUICE__QUEUE_DELETE__INIT;

	delete.name = (char *)"work";
	world_must(&world, COMMAND_QUEUE_DELETE, 0, &delete);
	world_ticks(&world, 100);
	cr_expect_eq(world_records(&world, STORE_GRANT), 0);
}

Test(queue_damage, a_damaged_lease_does_not_delay_the_expiry_of_others)
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
	cr_expect_eq(cell("work").leased, 2,
		     "those of the damaged lease, whose items nobody knows");
	cr_expect_eq(claim(session, "work", 10, 1000, 0).count, 2);
	/* The damage moved a timer: the same commands without it give another database. */
	world_discard(&world);
	world_open(&world, WORLD_MEM);
}

Test(queue_damage, a_session_that_holds_a_damaged_lease_ends_and_returns_the_others)
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

/* Other queues have grants before and after this one, with lower and higher tokens. */
Test(queue_damage, a_lease_whose_entry_in_its_session_is_damaged_ends_with_the_session)
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

Test(queue_damage, a_purged_damaged_delayed_item_is_counted_until_it_is_due)
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
		     "the damaged item is deleted, the other delayed one stays");
	cr_expect_eq(cell("work").delayed, 2);
	world_wait(&world, 5001);
	world_ticks(&world, 100);
	cr_expect_eq(cell("work").delayed, 0);
	cr_expect_eq(cell("work").ready, 1);
	delete_work();
}

Test(queue_damage, a_purge_drops_damaged_items_that_claims_have_skipped)
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
	cr_expect_eq(world_apply(&world, COMMAND_QUEUE_PURGE, 0, &purge).code, 0,
		     "the first purge has ended");
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

Test(queue_damage, a_purge_leaves_damaged_exceptions_to_the_claim_that_counts_them)
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
		cr_expect_eq(world_records(&world, STORE_ITEM), 2, "the damaged one is deleted");
		world_discard(&world);
		open_mem();
	}
}

/* An older store has delayed items under the same keys as ready ones. A damaged one may have been
 * either: after it the count is right again. */
Test(queue_damage, a_damaged_item_among_older_delayed_ones_affects_no_other)
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

Test(queue_damage, peek_names_damaged_items_and_shows_the_others)
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
	cr_expect_eq(reply->items[0]->seq, 2, "and a peek continues after a damaged item");
	peek.after = 2;
	reply = world_query(&world, &request);
	cr_expect_eq(reply->items[0]->seq, 3);
	world_discard(&world);
	open_mem();
}
