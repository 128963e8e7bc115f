/* SPDX-License-Identifier: Apache-2.0
 * What the tests of queues share: one world with the queue "work", and short forms of the commands.
 * Included once by each test program. */
#ifndef SLUICE_TESTS_QUEUE_RIG_H
#define SLUICE_TESTS_QUEUE_RIG_H

#include <criterion/criterion.h>
#include <stdio.h>

#include "broker/core/base/keys.h"
#include "broker/core/queue/queue.h"
#include "broker/core/queue/record.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/core_world.h"

static struct world world;

static inline void open_mem(void)
{
	world_open(&world, WORLD_MEM);
	world_queue(&world, "work", NULL, 0);
}

static inline void close_world(void)
{
	world_close(&world);
}

static inline uint64_t queue_id(const char *name)
{
	return world_queue_ref(&world, name).id;
}

static inline void put(const char *queue, unsigned count)
{
	for (unsigned i = 0; i < count;) {
		struct world_batch batch = {.count = 0};
		struct frame_publish publish;
		char body[16];

		for (; i < count && batch.count < 500; i++) {
			snprintf(body, sizeof(body), "b%u", i);
			world_batch_add(&batch, NULL, body, 0);
		}
		publish = world_batch_publish(&batch, "s");
		publish.target_kind = PUBLISH_TO_QUEUE;
		publish.target = world_text(queue);
		world_must(&world, COMMAND_PUBLISH, 0, &publish);
	}
}

static inline void put_delayed(uint64_t session, uint32_t delay_ms)
{
	Sluice__Txn txn = SLUICE__TXN__INIT;
	Sluice__TxnOp op = SLUICE__TXN_OP__INIT, *ops[] = {&op};
	Sluice__TxnPublish publish = SLUICE__TXN_PUBLISH__INIT;

	publish.queue = (char *)"work";
	publish.delay_ms = delay_ms;
	op.op_case = SLUICE__TXN_OP__OP_PUBLISH;
	op.publish = &publish;
	txn.ops = ops;
	txn.n_ops = 1;
	world_must(&world, COMMAND_TXN, session, &txn);
}

static inline struct outcome claim(uint64_t session, const char *queue, uint32_t max,
				   uint32_t lease_ms, uint8_t flags)
{
	struct cmd_claim m = {.queue = queue_id(queue),
			      .max = max,
			      .lease_ms = lease_ms,
			      .flags = flags};

	return world_apply(&world, COMMAND_CLAIM, session, &m);
}

static inline struct outcome ack(uint64_t session, const char *queue, uint64_t token,
				 enum ack_op op, uint32_t value_ms, uint64_t first, uint32_t count)
{
	uint8_t run[FRAME_RUN_BYTES];
	struct cmd_ack m = {queue_id(queue),	  token, (uint8_t)op, value_ms, 1, run,
			    world_text("because")};

	put_be64(run, first);
	put_be32(run + 8, count);
	return world_apply(&world, COMMAND_ACK, session, &m);
}

static inline struct queue_cell cell(const char *name)
{
	struct store_txn *txn;
	struct queue_cell ret;

	cr_assert_eq(store_begin_read(world.store, &txn), 0);
	cr_assert_eq(queue_cell_get(txn, world.gateway, queue_id(name), &ret), 0);
	store_abort(txn);
	return ret;
}

static inline void configure(const char *name, uint32_t max_attempts, bool priority)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;

	config.name = (char *)(uintptr_t)name;
	config.max_attempts = max_attempts;
	config.priority = priority;
	create.config = &config;
	world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
}

static inline uint32_t attempts_of(const char *queue, uint64_t seq)
{
	struct store_txn *txn;
	struct queue_item item;
	int rc;

	cr_assert_eq(store_begin_read(world.store, &txn), 0);
	rc = queue_item_get(txn, world.gateway, queue_id(queue), seq, &item);
	store_abort(txn);
	cr_assert_eq(rc, 0, "item %llu of %s", (unsigned long long)seq, queue);
	return item.attempts;
}

/* Older stores have a delayed item under the same key as a ready one. */
static inline void as_before(const char *queue, uint64_t seq)
{
	uint64_t id = queue_id(queue);
	struct store_txn *txn;
	struct sluice_slice value;
	struct key key;
	uint8_t copy[512];

	cr_assert_eq(store_begin(world.store, &txn), 0);
	key_two(&key, world.gateway, id, QUEUE_DELAYED | seq);
	cr_assert_eq(store_get(txn, STORE_ITEM, key_slice(&key), &value), 0);
	cr_assert_leq(value.len, sizeof(copy));
	memcpy(copy, value.data, value.len);
	cr_assert_eq(store_del(txn, STORE_ITEM, key_slice(&key)), 0);
	key_two(&key, world.gateway, id, seq);
	cr_assert_eq(store_put(txn, STORE_ITEM, key_slice(&key),
			       (struct sluice_slice){copy, value.len}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
}

#endif
