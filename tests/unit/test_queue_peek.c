/* SPDX-License-Identifier: Apache-2.0
 * QUEUE_PEEK: the rows during a purge, how long leases are held and extended. */
#include "tests/unit/queue_rig.h"

TestSuite(queue_peek, .init = open_mem, .fini = close_world);

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

Test(queue_peek, peek_shows_only_what_a_purge_left_before_its_sweep_ends)
{
	uint64_t session = world_session(&world, NULL), token;
	Sluice__QueuePurge purge = SLUICE__QUEUE_PURGE__INIT;

	purge.name = (char *)"work";
	put("work", 6);
	/* 1 and 2 are returned as exceptions, 3 is delayed, 4 is leased, 5 and 6 wait in order. */
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

/* ---- how long a lease is held ---- */

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

Test(queue_peek, peek_shows_how_long_a_lease_is_held_over_its_extensions)
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
	/* A grant of an older broker has no such number, and is read with 0. */
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

/* ---- how long a lease is extended automatically ---- */

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

Test(queue_peek, peek_shows_how_long_a_lease_is_extended_automatically)
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
	cr_expect_eq(leased_row()->extend_max_ms, 43200000, "with a begun item");
	cr_assert_eq(claim(session, "work", 1, 0, CLAIM_RESUME).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 43200000, "after a resume without one");
	cr_assert_eq(claim_extended(session, 1000, CLAIM_RESUME).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 43200000, "of another consumer of the session");
	world_restart(&world);
	cr_expect_eq(leased_row()->extend_max_ms, 43200000, "after a restart");
	cr_expect_eq(ack(session, "work", token, ACK_DONE, 0, 1, 1).count, 1);
}

Test(queue_peek, a_lease_without_extensions_shows_none_and_needs_no_bytes)
{
	uint64_t session = world_session(&world, NULL), token;
	size_t bytes;

	put("work", 2);
	token = claim_extended(session, 0, 0).index;
	cr_expect_eq(leased_row()->extend_max_ms, 0);
	bytes = grant_bytes(token);
	/* As with an older program: a resume reports the bound. */
	cr_assert_eq(claim_extended(session, 5000, CLAIM_RESUME).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 5000);
	cr_expect_eq(grant_bytes(token), bytes + 4);
	cr_assert_eq(ack(session, "work", token, ACK_DONE, 0, 1, 1).count, 1);
	cr_assert_eq(claim_extended(session, 5000, CLAIM_SESSION_LEASE).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 0, "a session's lease is not extended");
	cr_assert_eq(claim_extended(session, 5000, CLAIM_RESUME).count, 1);
	cr_expect_eq(leased_row()->extend_max_ms, 0);
}
