/* SPDX-License-Identifier: Apache-2.0
 * Transactions: all or none, over streams, queues, cursors and jobs. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol/limits.h"
#include "tests/unit/core_world.h"

enum { OPS_MAX = 8 };

/* A transaction under construction. */
struct txn {
	Sluice__Txn m;
	Sluice__TxnOp *list[OPS_MAX];
	Sluice__TxnOp ops[OPS_MAX];
	Sluice__TxnPublish publish[OPS_MAX];
	Sluice__TxnAck ack[OPS_MAX];
	Sluice__TxnNack nack[OPS_MAX];
	Sluice__JobSubmit submit[OPS_MAX];
	Sluice__JobReport report[OPS_MAX];
	Sluice__CursorSet cursor[OPS_MAX];
	Sluice__TxnCheckJob check[OPS_MAX];
};

static void txn_init(struct txn *txn)
{
	memset(txn, 0, sizeof(*txn));
	sluice__txn__init(&txn->m);
	txn->m.ops = txn->list;
}

static size_t op_add(struct txn *txn, Sluice__TxnOp__OpCase op)
{
	size_t i = txn->m.n_ops++;

	cr_assert_lt(i, OPS_MAX);
	sluice__txn_op__init(&txn->ops[i]);
	txn->ops[i].op_case = op;
	txn->list[i] = &txn->ops[i];
	return i;
}

static Sluice__TxnPublish *op_publish(struct txn *txn, const char *subject, const char *body)
{
	size_t i = op_add(txn, SLUICE__TXN_OP__OP_PUBLISH);

	sluice__txn_publish__init(&txn->publish[i]);
	txn->publish[i].subject = (char *)(uintptr_t)subject;
	txn->publish[i].body = (ProtobufCBinaryData){strlen(body), (uint8_t *)(uintptr_t)body};
	txn->ops[i].publish = &txn->publish[i];
	return &txn->publish[i];
}

static void op_ack(struct txn *txn, const char *queue, uint64_t token, uint64_t seq, uint32_t count)
{
	size_t i = op_add(txn, SLUICE__TXN_OP__OP_ACK);

	sluice__txn_ack__init(&txn->ack[i]);
	txn->ack[i].queue = (char *)(uintptr_t)queue;
	txn->ack[i].token = token;
	txn->ack[i].first_seq = seq;
	txn->ack[i].count = count;
	txn->ops[i].ack = &txn->ack[i];
}

static void op_nack(struct txn *txn, const char *queue, uint64_t token, uint64_t seq)
{
	size_t i = op_add(txn, SLUICE__TXN_OP__OP_NACK);

	sluice__txn_nack__init(&txn->nack[i]);
	txn->nack[i].queue = (char *)(uintptr_t)queue;
	txn->nack[i].token = token;
	txn->nack[i].first_seq = seq;
	txn->nack[i].count = 1;
	txn->ops[i].nack = &txn->nack[i];
}

static void op_submit(struct txn *txn, const char *job, const char *queue)
{
	size_t i = op_add(txn, SLUICE__TXN_OP__OP_JOB_SUBMIT);

	sluice__job_submit__init(&txn->submit[i]);
	txn->submit[i].job = (char *)(uintptr_t)job;
	txn->submit[i].queue = (char *)(uintptr_t)queue;
	txn->ops[i].job_submit = &txn->submit[i];
}

static Sluice__JobReport *op_report(struct txn *txn, const char *job, uint32_t attempt,
				    const char *state)
{
	size_t i = op_add(txn, SLUICE__TXN_OP__OP_JOB_REPORT);

	sluice__job_report__init(&txn->report[i]);
	txn->report[i].job = (char *)(uintptr_t)job;
	txn->report[i].attempt = attempt;
	txn->report[i].source = (char *)"test";
	txn->report[i].state = (char *)(uintptr_t)state;
	txn->ops[i].job_report = &txn->report[i];
	return &txn->report[i];
}

static void op_cursor(struct txn *txn, const char *stream, uint64_t offset)
{
	size_t i = op_add(txn, SLUICE__TXN_OP__OP_CURSOR_SET);

	sluice__cursor_set__init(&txn->cursor[i]);
	txn->cursor[i].stream = (char *)(uintptr_t)stream;
	txn->cursor[i].cursor = (char *)"c";
	txn->cursor[i].offset = offset;
	txn->ops[i].cursor_set = &txn->cursor[i];
}

static void op_check(struct txn *txn, const char *job, const char *state)
{
	size_t i = op_add(txn, SLUICE__TXN_OP__OP_CHECK_JOB);

	sluice__txn_check_job__init(&txn->check[i]);
	txn->check[i].job = (char *)(uintptr_t)job;
	txn->check[i].state = (char *)(uintptr_t)state;
	txn->ops[i].check_job = &txn->check[i];
}

static struct outcome run(struct world *world, uint64_t session, struct txn *txn)
{
	struct outcome out = world_apply(world, COMMAND_TXN, session, &txn->m);

	cr_assert_eq(out.kind, OUT_TXN);
	return out;
}

static void job_queue(struct world *world)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;

	config.name = (char *)"work";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	create.config = &config;
	world_must(world, COMMAND_QUEUE_CREATE, 0, &create);
}

static uint64_t claim(struct world *world, uint64_t session, const char *queue)
{
	struct cmd_claim claim = {.queue = world_queue_ref(world, queue).id, .max = 10};

	return world_must(world, COMMAND_CLAIM, session, &claim).index;
}

static void consume_transform_publish(enum world_store kind)
{
	struct world world;
	struct outcome out;
	uint64_t session, token;
	struct txn txn;

	world_open(&world, kind);
	job_queue(&world);
	world_stream(&world, "jobs", "job.>", 0, 0, 0);
	world_stream(&world, "out", "out.>", 0, 0, 0);
	world_queue(&world, "in", "in", 0);
	session = world_session(&world, "worker");
	for (int i = 0; i < 3; i++)
		cr_assert_eq(world_publish(&world, "in", "item").code, 0);
	token = claim(&world, session, "in");
	txn_init(&txn);
	op_ack(&txn, "in", token, 1, 2);
	op_nack(&txn, "in", token, 3);
	op_publish(&txn, "out.x", "result");
	op_submit(&txn, "j1", "work");
	op_submit(&txn, "j2", "work");
	op_check(&txn, "j1", "SUBMITTED");
	op_cursor(&txn, "out", 1);
	out = run(&world, session, &txn);
	cr_assert_eq(out.code, 0, "op %u: %s", out.count, out.text);
	cr_assert_str_eq(world_events(&world, "out"), "out.x=result");
	cr_assert_eq(world_ready(&world, "in"), 1, "the nacked one");
	cr_assert_eq(world_ready(&world, "work"), 2);
	cr_assert_eq(world_stream_ref(&world, "jobs").next_offset, 2);
	cr_assert_eq(world_segments(&world, "jobs"), 1, "events of one command are one segment");
	cr_assert_eq(world_effects(&world, FX_LOG_GROWN), 2);
	world_close(&world);
}

Test(core_txn, consume_transform_publish)
{
	consume_transform_publish(WORLD_MEM);
}

Test(core_txn, consume_transform_publish_on_lmdb)
{
	consume_transform_publish(WORLD_LMDB);
}

Test(core_txn, the_last_refusal_undoes_all_before_it)
{
	struct world world;
	struct outcome out;
	uint64_t session, token, records[STORE_TABLE_COUNT];
	struct txn txn;

	world_open(&world, WORLD_MEM);
	job_queue(&world);
	world_stream(&world, "jobs", "job.>", 0, 0, 0);
	world_stream(&world, "out", "out.>", 3, 0, 0);
	world_queue(&world, "in", "in", 0);
	session = world_session(&world, "worker");
	cr_assert_eq(world_publish(&world, "in", "item").code, 0);
	token = claim(&world, session, "in");
	for (int table = 0; table < STORE_TABLE_COUNT; table++)
		records[table] = world_records(&world, (enum store_table)table);
	txn_init(&txn);
	op_submit(&txn, "j1", "work");
	op_ack(&txn, "in", token, 1, 1);
	op_publish(&txn, "out.x", "result");
	op_publish(&txn, "in", "more");
	op_cursor(&txn, "out", 1);
	op_submit(&txn, "j2", "nowhere");
	out = run(&world, session, &txn);
	cr_assert_eq(out.code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(out.count, 6, "the operation that refused");
	cr_assert_eq(effects_count(world.effects), 1 + world_effects(&world, FX_LOG_GROWN),
		     "only the reply");
	for (int table = 0; table < STORE_TABLE_COUNT; table++)
		cr_assert_eq(world_records(&world, (enum store_table)table), records[table], "%s",
			     store_table_name((enum store_table)table));
	cr_assert_eq(world_stream_ref(&world, "jobs").next_offset, 0,
		     "offsets of waiting events are free again");
	txn.m.n_ops = 5;
	cr_assert_eq(run(&world, session, &txn).code, 0, "without it");
	cr_assert_str_eq(world_events(&world, "out"), "out.x=result");
	cr_assert_eq(world_stream_ref(&world, "jobs").next_offset, 1);
	world_close(&world);
}

Test(core_txn, a_quarantined_report_refuses_the_whole_transaction)
{
	struct world world;
	struct outcome out;
	struct txn txn;

	world_open(&world, WORLD_MEM);
	job_queue(&world);
	world_stream(&world, "jobs", "job.>", 0, 0, 0);
	txn_init(&txn);
	op_submit(&txn, "j1", "work");
	op_report(&txn, "j1", 7, "ACTIVE");
	out = run(&world, 0, &txn);
	cr_assert_eq(out.code, SLUICE_E_QUARANTINED, "%s", out.text);
	cr_assert_eq(out.count, 2);
	cr_assert_eq(world_records(&world, STORE_QUAR), 0);
	cr_assert_eq(world_records(&world, STORE_JOB), 0);
	cr_assert_eq(world_records(&world, STORE_LOG), 0);
	world_close(&world);
}

Test(core_txn, all_of_an_acked_run_must_be_held)
{
	struct world world;
	uint64_t session, token;
	struct txn txn;

	world_open(&world, WORLD_MEM);
	world_queue(&world, "in", "in", 0);
	session = world_session(&world, NULL);
	cr_assert_eq(world_publish(&world, "in", "item").code, 0);
	cr_assert_eq(world_publish(&world, "in", "item").code, 0);
	token = claim(&world, session, "in");
	txn_init(&txn);
	op_ack(&txn, "in", token, 1, 3);
	cr_assert_eq(run(&world, session, &txn).code, SLUICE_E_STALE_TOKEN);
	txn_init(&txn);
	op_ack(&txn, "in", token, 1, 1);
	op_ack(&txn, "in", token, 1, 1);
	cr_assert_eq(run(&world, session, &txn).code, SLUICE_E_STALE_TOKEN, "the second of two");
	cr_assert_eq(run(&world, session, &txn).count, 2);
	txn_init(&txn);
	op_ack(&txn, "nowhere", token, 1, 1);
	cr_assert_eq(run(&world, session, &txn).code, SLUICE_E_NOT_FOUND);
	txn_init(&txn);
	op_ack(&txn, "in", token, 1, 2);
	cr_assert_eq(run(&world, session, &txn).code, 0);
	world_close(&world);
}

Test(core_txn, publish_operations)
{
	Sluice__TxnPublish__HeadersEntry header = SLUICE__TXN_PUBLISH__HEADERS_ENTRY__INIT;
	Sluice__TxnPublish__HeadersEntry *headers[] = {&header};
	Sluice__TxnPublish *publish;
	struct world world;
	struct txn txn;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	world_queue(&world, "q", "b", 1);
	header.key = (char *)"trace";
	header.value = (char *)"42";
	txn_init(&txn);
	publish = op_publish(&txn, "a", "body");
	publish->headers = headers;
	publish->n_headers = 1;
	publish->key = (ProtobufCBinaryData){1, (uint8_t *)"k"};
	publish->priority = 255;
	op_publish(&txn, "", "straight")->stream = (char *)"s";
	publish = op_publish(&txn, "c", "later");
	publish->queue = (char *)"q";
	publish->delay_ms = 500;
	cr_assert_eq(run(&world, 0, &txn).code, 0);
	cr_assert_str_eq(world_events(&world, "s"), "a=body s=straight",
			 "the name replaces a missing subject");
	cr_assert_eq(world_ready(&world, "q"), 0);
	world_wait(&world, 500);
	world_ticks(&world, 10);
	cr_assert_eq(world_ready(&world, "q"), 1);
	txn_init(&txn);
	op_publish(&txn, "b", "x");
	cr_assert_eq(run(&world, 0, &txn).code, SLUICE_E_QUEUE_FULL);
	txn_init(&txn);
	op_publish(&txn, "nobody", "x")->mandatory = true;
	cr_assert_eq(run(&world, 0, &txn).code, SLUICE_E_NO_ROUTE);
	txn_init(&txn);
	op_publish(&txn, "", "x");
	cr_assert_eq(run(&world, 0, &txn).code, SLUICE_E_INVAL);
	txn_init(&txn);
	publish = op_publish(&txn, "a", "x");
	publish->queue = (char *)"q";
	publish->stream = (char *)"s";
	cr_assert_eq(run(&world, 0, &txn).code, SLUICE_E_INVAL);
	txn_init(&txn);
	op_publish(&txn, "a", "x")->priority = 256;
	cr_assert_eq(run(&world, 0, &txn).code, SLUICE_E_INVAL);
	txn_init(&txn);
	cr_assert_eq(run(&world, 0, &txn).code, SLUICE_E_INVAL, "no operations");
	op_add(&txn, SLUICE__TXN_OP__OP__NOT_SET);
	cr_assert_eq(run(&world, 0, &txn).code, SLUICE_E_UNKNOWN_TYPE);
	world_close(&world);
}

Test(core_txn, retried_by_sequence_also_after_a_restart)
{
	Sluice__ProducerOpen open = SLUICE__PRODUCER_OPEN__INIT;
	struct outcome first, again;
	struct world world;
	struct txn txn;

	world_open(&world, WORLD_LMDB);
	world_stream(&world, "s", "a", 0, 0, 0);
	txn_init(&txn);
	txn.m.producer = world_must(&world, COMMAND_PRODUCER_OPEN, 0, &open).id;
	txn.m.epoch = 1;
	txn.m.seq = 1;
	op_publish(&txn, "a", "once");
	first = run(&world, 0, &txn);
	cr_assert_eq(first.code, 0, "%s", first.text);
	world_restart(&world);
	again = run(&world, 0, &txn);
	cr_assert_eq(again.code, 0);
	cr_assert(again.duplicate);
	cr_assert_eq(again.index, first.index);
	cr_assert_str_eq(world_events(&world, "s"), "a=once");
	/* A final refusal is remembered with its operation. */
	op_publish(&txn, "nobody", "x")->mandatory = true;
	txn.m.seq = 2;
	cr_assert_eq(run(&world, 0, &txn).code, SLUICE_E_NO_ROUTE);
	world_restart(&world);
	again = run(&world, 0, &txn);
	cr_assert_eq(again.code, SLUICE_E_NO_ROUTE);
	cr_assert(again.duplicate);
	cr_assert_eq(again.count, 2);
	txn.m.seq = 4;
	cr_assert_eq(run(&world, 0, &txn).code, SLUICE_E_SEQUENCE_GAP);
	world_close(&world);
}

Test(core_txn, operations_at_their_limit)
{
	size_t max = LIMIT_TXN_OPS_MAX;
	Sluice__TxnPublish publish = SLUICE__TXN_PUBLISH__INIT;
	Sluice__TxnOp op = SLUICE__TXN_OP__INIT, **ops = malloc((max + 1) * sizeof(*ops));
	Sluice__Txn txn = SLUICE__TXN__INIT;
	struct world world;

	cr_assert_not_null(ops);
	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	publish.subject = (char *)"a";
	op.op_case = SLUICE__TXN_OP__OP_PUBLISH;
	op.publish = &publish;
	for (size_t i = 0; i <= max; i++)
		ops[i] = &op;
	txn.ops = ops;
	txn.n_ops = max + 1;
	/* limit: TXN_OPS_MAX */
	cr_assert_eq(world_apply(&world, COMMAND_TXN, 0, &txn).code, SLUICE_E_LIMIT);
	txn.n_ops = max;
	cr_assert_eq(world_apply(&world, COMMAND_TXN, 0, &txn).code, 0);
	cr_assert_eq(world_stream_ref(&world, "s").next_offset, max);
	world_close(&world);
	free(ops);
}
