/* SPDX-License-Identifier: Apache-2.0
 * What one command may put: events x queues, bytes x targets, and the records of a transaction. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/core_world.h"

enum {
	EVENTS = 4995,
	REACHED = 5 /* the records that each queue counts besides its items */,
	EVENT_BYTES = 10
};

/* EVENTS events, each with a subject of its own ("f.0000" to "f.9999") or under one. */
struct events {
	uint8_t *bytes;
	struct frame_publish publish;
};

static void events_make(struct events *events, bool own_subjects)
{
	size_t at = 0;

	events->bytes = malloc(EVENTS * 32);
	cr_assert_not_null(events->bytes);
	for (uint32_t i = 0; i < EVENTS; i++) {
		char subject[16];
		struct envelope envelope = {.body = {"x", 1}};

		(void)snprintf(subject, sizeof(subject), "f.%04u", i);
		if (own_subjects)
			envelope.subject = world_text(subject);
		at += envelope_encode(events->bytes + at, &envelope);
	}
	events->publish = (struct frame_publish){.count = EVENTS,
						 .raw_bytes = (uint32_t)at,
						 .subject = world_text(own_subjects ? NULL : "f.x"),
						 .payload = {events->bytes, at}};
}

static void queues_make(struct world *world, const char *prefix, uint32_t count,
			const char *pattern)
{
	for (uint32_t i = 0; i < count; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "%s%u", prefix, i);
		world_queue(world, name, pattern, 0);
	}
}

/* LIMIT, with both factors in the text, and nothing is stored. */
static void refused_whole(struct world *world, const struct outcome *out, const char *events,
			  const char *queues)
{
	cr_assert_eq(out->code, SLUICE_E_LIMIT, "%d %s", out->code, out->text);
	cr_assert(strstr(out->text, events) != NULL && strstr(out->text, queues) != NULL, "%s",
		  out->text);
	cr_assert_eq(world_ready(world, "q0"), 0);
	cr_assert_eq(world_records(world, STORE_ITEM), 0);
}

static void puts_at_their_limit(bool own_subjects)
{
	uint32_t queues = (uint32_t)LIMIT_PUBLISH_PUTS_MAX / (EVENTS + REACHED);
	struct events events;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	events_make(&events, own_subjects);
	queues_make(&world, "q", queues, "f.*");
	/* limit: PUBLISH_PUTS_MAX */
	world_stream(&world, "s", "f.>", 0, 0, 0);
	out = world_apply(&world, COMMAND_PUBLISH, 0, &events.publish);
	refused_whole(&world, &out, "4995 events", "20 queues and 1 streams");
	cr_assert_eq(world_stream_ref(&world, "s").next_offset, 0);
	world_must(&world, COMMAND_STREAM_DELETE, 0,
		   &(Sluice__StreamDelete){.base = PROTOBUF_C_MESSAGE_INIT(
						   &sluice__stream_delete__descriptor),
					   .name = (char *)"s"});
	out = world_apply(&world, COMMAND_PUBLISH, 0, &events.publish);
	cr_assert_eq(out.code, 0, "%s", out.text);
	cr_assert_eq(world_ready(&world, "q0"), EVENTS);
	cr_assert_eq(world_records(&world, STORE_ITEM), LIMIT_PUBLISH_PUTS_MAX - queues * REACHED);
	world_discard(&world); /* the proofs of a world would repeat the commands four times */
	free(events.bytes);
}

Test(core_bounds, puts_of_a_batch_at_their_limit)
{
	puts_at_their_limit(false);
}

Test(core_bounds, puts_of_a_batch_with_subjects_per_event_at_their_limit)
{
	puts_at_their_limit(true);
}

Test(core_bounds, an_item_with_priorities_is_two_records)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	char *patterns[] = {(char *)"f.*"};
	char name[8];
	struct events events;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	events_make(&events, true);
	queues_make(&world, "q", 18, "f.*");
	config.name = name;
	config.priority = true;
	config.subjects = patterns;
	config.n_subjects = 1;
	create.config = &config;
	for (int i = 0; i < 2; i++) {
		(void)snprintf(name, sizeof(name), "p%d", i);
		world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
	}
	out = world_apply(&world, COMMAND_PUBLISH, 0, &events.publish);
	refused_whole(&world, &out, "4995 events", "20 queues");
	world_discard(&world);
	free(events.bytes);
}

/* Few events to many queues: each queue is a page of the store, so ten events to all of them cost
 * half as much again as the same records in few queues. */
Test(core_bounds, queues_count_besides_their_items)
{
	const uint32_t queues = 2000, most = (uint32_t)LIMIT_PUBLISH_PUTS_MAX / queues - REACHED;
	struct events events;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	events_make(&events, false);
	queues_make(&world, "q", queues, "f.*");
	events.publish.count = most + 1;
	events.publish.payload.len = events.publish.payload.len / EVENTS * (most + 1);
	events.publish.raw_bytes = (uint32_t)events.publish.payload.len;
	out = world_apply(&world, COMMAND_PUBLISH, 0, &events.publish);
	refused_whole(&world, &out, "46 events", "2000 queues");
	events.publish.count = most;
	events.publish.payload.len = events.publish.payload.len / (most + 1) * most;
	events.publish.raw_bytes = (uint32_t)events.publish.payload.len;
	out = world_apply(&world, COMMAND_PUBLISH, 0, &events.publish);
	cr_assert_eq(out.code, 0, "%s", out.text);
	cr_assert_eq(world_records(&world, STORE_ITEM), most * queues);
	world_discard(&world);
	free(events.bytes);
}

/* A product of more than 32 bits does not pass the bound. */
Test(core_bounds, many_queues_and_many_events_are_refused_at_once)
{
	struct events events;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	queues_make(&world, "q", 1000, "f.>");
	events_make(&events, false);
	out = world_apply(&world, COMMAND_PUBLISH, 0, &events.publish);
	refused_whole(&world, &out, "4995 events", "1000 queues");
	free(events.bytes);
	events_make(&events, true);
	out = world_apply(&world, COMMAND_PUBLISH, 0, &events.publish);
	refused_whole(&world, &out, "4995 events", "1000 queues");
	world_discard(&world);
	free(events.bytes);
}

Test(core_bounds, bytes_of_a_batch_at_their_limit)
{
	const size_t raw = LIMIT_PUBLISH_PUT_BYTES_MAX / 4;
	uint8_t *zeros = calloc(1, raw), *bytes = malloc(raw + 64);
	struct outcome out;
	struct world world;

	cr_assert(zeros != NULL && bytes != NULL);
	world_open(&world, WORLD_MEM);
	for (int i = 0; i < 4; i++) {
		char name[8];

		(void)snprintf(name, sizeof(name), "s%d", i);
		world_stream(&world, name, "a", 0, 0, 0);
	}
	world_queue(&world, "q0", "b", 0);
	/* limit: PUBLISH_PUT_BYTES_MAX */
	for (size_t over = 2; over-- > 0;) {
		struct envelope envelope = {.body = {zeros, raw - 7 + over}};
		size_t used = envelope_encode(bytes, &envelope);
		struct frame_publish publish = {.count = 1,
						.raw_bytes = (uint32_t)used,
						.subject = world_text("a"),
						.payload = {bytes, used}};

		cr_assert_eq(used, raw + over);
		out = world_apply(&world, COMMAND_PUBLISH, 0, &publish);
		if (over > 0)
			refused_whole(&world, &out, "8912897 bytes", "0 queues and 4 streams");
		else
			cr_assert_eq(out.code, 0, "%s", out.text);
		cr_assert_eq(world_stream_ref(&world, "s3").next_offset, over > 0 ? 0 : 1);
	}
	world_discard(&world);
	free(zeros);
	free(bytes);
}

/* ---- transactions ---- */

static struct outcome txn_of(struct world *world, Sluice__TxnOp *op, size_t count)
{
	Sluice__TxnOp **ops = malloc(count * sizeof(*ops));
	Sluice__Txn txn = SLUICE__TXN__INIT;
	struct outcome out;

	cr_assert_not_null(ops);
	for (size_t i = 0; i < count; i++)
		ops[i] = op;
	txn.ops = ops;
	txn.n_ops = count;
	out = world_apply(world, COMMAND_TXN, 0, &txn);
	free(ops);
	return out;
}

/* An item with a delay is two records: the item and its timer. */
Test(core_bounds, publishes_of_a_transaction_are_one_command)
{
	Sluice__TxnPublish publish = SLUICE__TXN_PUBLISH__INIT;
	Sluice__TxnOp op = SLUICE__TXN_OP__INIT;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_LMDB);
	queues_make(&world, "q", 31, "f.*");
	publish.subject = (char *)"f.a";
	op.op_case = SLUICE__TXN_OP__OP_PUBLISH;
	op.publish = &publish;
	out = txn_of(&world, &op, 1000);
	refused_whole(&world, &out, "the transaction", "20026 records");
	cr_assert_eq(out.count, LIMIT_TXN_RECORDS_MAX / 31 + 1);
	publish.delay_ms = 60000;
	out = txn_of(&world, &op, 1000);
	refused_whole(&world, &out, "the transaction", "20026 records");
	cr_assert_eq(out.count, LIMIT_TXN_RECORDS_MAX / 62 + 1);
	cr_assert_eq(world_records(&world, STORE_TIMER), 0);
	world_discard(&world);
}

/* Jobs' events go to all that is bound to them, and are never refused alone. */
Test(core_bounds, job_events_of_a_transaction_at_their_limit)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	Sluice__JobSubmit submits[500];
	Sluice__TxnOp op[500], *ops[500];
	Sluice__Txn txn = SLUICE__TXN__INIT;
	char ids[500][8];
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_LMDB);
	config.name = (char *)"jobs";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	create.config = &config;
	world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
	queues_make(&world, "q", (uint32_t)LIMIT_TXN_RECORDS_MAX / 500, "job.>");
	for (int i = 0; i < 500; i++) {
		(void)snprintf(ids[i], sizeof(ids[i]), "%d", i);
		sluice__job_submit__init(&submits[i]);
		submits[i].job = ids[i];
		submits[i].queue = (char *)"jobs";
		sluice__txn_op__init(&op[i]);
		op[i].op_case = SLUICE__TXN_OP__OP_JOB_SUBMIT;
		op[i].job_submit = &submits[i];
		ops[i] = &op[i];
	}
	txn.ops = ops;
	txn.n_ops = 500;
	/* limit: TXN_RECORDS_MAX */
	out = world_apply(&world, COMMAND_TXN, 0,
			  &txn); /* each job's entry in its queue is one more */
	cr_assert_eq(out.code, SLUICE_E_LIMIT, "%s", out.text);
	cr_assert_eq(out.count, LIMIT_TXN_RECORDS_MAX / 41 + 1);
	cr_assert_eq(world_records(&world, STORE_ITEM), 0);
	world_must(&world, COMMAND_QUEUE_DELETE, 0,
		   &(Sluice__QueueDelete){.base = PROTOBUF_C_MESSAGE_INIT(
						  &sluice__queue_delete__descriptor),
					  .name = (char *)"q39"});
	out = world_apply(&world, COMMAND_TXN, 0, &txn);
	cr_assert_eq(out.code, 0, "%s", out.text);
	cr_assert_eq(world_records(&world, STORE_ITEM), LIMIT_TXN_RECORDS_MAX);
	world_discard(&world);
}
