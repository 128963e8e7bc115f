/* SPDX-License-Identifier: Apache-2.0
 * Producers: exactly-once on retry, epochs, gaps, settling, eviction. */
#include <criterion/criterion.h>

#include "protocol/limits.h"
#include "tests/unit/core_world.h"

struct producer {
	struct world *world;
	uint64_t id;
	uint32_t epoch;
	uint64_t settled;
};

static struct outcome producer_open(struct world *world, const char *name)
{
	Sluice__ProducerOpen open = SLUICE__PRODUCER_OPEN__INIT;

	open.name = (char *)(uintptr_t)name;
	return world_apply(world, COMMAND_PRODUCER_OPEN, 0, &open);
}

static struct producer producer_new(struct world *world)
{
	struct outcome out = producer_open(world, "");

	cr_assert_eq(out.code, 0);
	cr_assert_eq(out.kind, OUT_PRODUCER);
	cr_assert_eq(out.epoch, 1);
	cr_assert_eq(out.seq, 0);
	return (struct producer){world, out.id, 1, 0};
}

/* try: the codec would not let it through, so it is tried and aborted. */
static struct outcome send_or_try(const struct producer *producer, const char *subject, uint64_t seq,
				  uint32_t count, bool try)
{
	static struct world_batch batch;
	struct frame_publish publish;

	batch.used = batch.count = 0;
	for (uint32_t i = 0; i < count; i++)
		world_batch_add(&batch, NULL, "x", 0);
	publish = world_batch_publish(&batch, subject);
	publish.producer = producer->id;
	publish.epoch = producer->epoch;
	publish.first_seq = seq;
	publish.settled_seq = producer->settled;
	publish.flags = PUBLISH_MANDATORY;
	return try ? world_try(producer->world, COMMAND_PUBLISH, &publish)
		   : world_apply(producer->world, COMMAND_PUBLISH, 0, &publish);
}

static struct outcome send(const struct producer *producer, const char *subject, uint64_t seq, uint32_t count)
{
	return send_or_try(producer, subject, seq, count, false);
}

static void retry(enum world_store kind)
{
	struct world world;
	struct producer p;
	struct outcome first, again;

	world_open(&world, kind);
	world_stream(&world, "s", "a", 0, 0, 0);
	p = producer_new(&world);
	first = send(&p, "a", 1, 3);
	cr_assert_eq(first.code, 0, "%s", first.text);
	cr_assert_eq(send(&p, "a", 4, 1).offset, 3);
	world_restart(&world);
	again = send(&p, "a", 1, 3);
	cr_assert_eq(again.code, 0);
	cr_assert(again.duplicate);
	cr_assert_eq(again.index, first.index);
	cr_assert_eq(again.offset, first.offset);
	cr_assert_eq(again.count, 3);
	cr_assert_str_eq(world_events(&world, "s"), "a=x a=x a=x a=x", "nothing was stored twice");
	world_close(&world);
}

Test(core_producer, a_retry_returns_the_first_answer)
{
	retry(WORLD_MEM);
}

Test(core_producer, a_retry_returns_the_first_answer_on_lmdb)
{
	retry(WORLD_LMDB);
}

Test(core_producer, gaps_and_settled_numbers)
{
	struct world world;
	struct producer p;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	p = producer_new(&world);
	cr_assert_eq(send_or_try(&p, "a", 0, 1, true).code, SLUICE_E_INVAL);
	cr_assert_eq(send(&p, "a", 2, 1).code, SLUICE_E_SEQUENCE_GAP);
	cr_assert_eq(send(&p, "a", 1, 1).code, 0);
	cr_assert_eq(send(&p, "a", 3, 1).code, SLUICE_E_SEQUENCE_GAP);
	cr_assert_eq(send(&p, "a", 1, 2).code, SLUICE_E_CONFLICT, "another batch under the same number");
	/* The client has the answer of 2: admission refused it. So 3 is next. */
	p.settled = 2;
	cr_assert_eq(send(&p, "a", 3, 2).code, 0);
	cr_assert_eq(send_or_try(&p, "a", 2, 1, true).code, SLUICE_E_INVAL, "settled and sent at once");
	p.settled = 0;
	cr_assert_eq(send(&p, "a", 1, 1).code, SLUICE_E_CONFLICT, "its answer was settled and forgotten");
	cr_assert(send(&p, "a", 3, 2).duplicate, "this one is still kept");
	cr_assert_eq(send(&p, "a", 4, 1).code, SLUICE_E_CONFLICT, "inside a batch");
	cr_assert_eq(send_or_try(&p, "a", UINT64_MAX, 1, true).code, SLUICE_E_INVAL);
	world_close(&world);
}

Test(core_producer, final_refusals_take_their_number)
{
	struct world world;
	struct producer p;
	struct outcome out;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	world_queue(&world, "q", "f", 1);
	p = producer_new(&world);
	cr_assert_eq(send(&p, "nobody", 1, 1).code, SLUICE_E_NO_ROUTE);
	cr_assert_eq(send(&p, "a", 2, 1).code, 0, "what was sent behind it is no gap");
	world_stream(&world, "t", "nobody", 0, 0, 0);
	out = send(&p, "nobody", 1, 1);
	cr_assert_eq(out.code, SLUICE_E_NO_ROUTE, "the first answer, whatever is bound now");
	cr_assert(out.duplicate);
	/* A refusal that clears by itself leaves the number free. */
	cr_assert_eq(send(&p, "f", 3, 2).code, SLUICE_E_QUEUE_FULL);
	cr_assert_eq(send(&p, "a", 5, 1).code, SLUICE_E_SEQUENCE_GAP);
	cr_assert_eq(send(&p, "f", 3, 1).code, 0);
	world_close(&world);
}

Test(core_producer, names_keep_number_and_sequence)
{
	Sluice__ProducerClose close = SLUICE__PRODUCER_CLOSE__INIT;
	struct world world;
	struct producer p = {.world = &world, .epoch = 1};
	struct outcome out;
	char name[257] = {0};

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	memset(name, 'p', 256);
	cr_assert_eq(producer_open(&world, name).code, SLUICE_E_LIMIT);
	name[255] = 0;
	out = producer_open(&world, name);
	p.id = out.id;
	cr_assert_eq(send(&p, "a", 1, 5).code, 0);
	world_restart(&world);
	out = producer_open(&world, name);
	cr_assert_eq(out.id, p.id);
	cr_assert_eq(out.epoch, 2);
	cr_assert_eq(out.seq, 5);
	cr_assert_eq(send(&p, "a", 6, 1).code, SLUICE_E_PRODUCER_FENCED, "the older owner");
	p.epoch = 3;
	cr_assert_eq(send(&p, "a", 6, 1).code, SLUICE_E_INVAL, "never given out");
	p.epoch = 2;
	cr_assert(send(&p, "a", 1, 5).duplicate, "also a retry under the new epoch");
	cr_assert_eq(send(&p, "a", 6, 1).code, 0);
	close.producer = p.id;
	close.epoch = 1;
	cr_assert_eq(world_apply(&world, COMMAND_PRODUCER_CLOSE, 0, &close).code, SLUICE_E_PRODUCER_FENCED);
	close.epoch = 2;
	world_must(&world, COMMAND_PRODUCER_CLOSE, 0, &close);
	cr_assert_eq(world_apply(&world, COMMAND_PRODUCER_CLOSE, 0, &close).code, SLUICE_E_PRODUCER_EVICTED);
	cr_assert_eq(send(&p, "a", 7, 1).code, SLUICE_E_PRODUCER_EVICTED);
	cr_assert_neq(producer_open(&world, name).id, p.id, "a name that was closed is new");
	world_close(&world);
}

Test(core_producer, unsettled_answers_at_their_limit)
{
	struct world world;
	struct producer p;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	p = producer_new(&world);
	/* limit: PRODUCER_UNSETTLED_MAX */
	for (uint64_t seq = 1; seq <= LIMIT_PRODUCER_UNSETTLED_MAX; seq++)
		cr_assert_eq(send(&p, "a", seq, 1).code, 0);
	cr_assert_eq(send(&p, "a", LIMIT_PRODUCER_UNSETTLED_MAX + 1, 1).code, SLUICE_E_BUSY);
	p.settled = 1;
	cr_assert_eq(send(&p, "a", LIMIT_PRODUCER_UNSETTLED_MAX + 1, 1).code, 0);
	cr_assert_eq(send(&p, "a", LIMIT_PRODUCER_UNSETTLED_MAX + 2, 1).code, SLUICE_E_BUSY);
	world_close(&world);
}

Test(core_producer, an_idle_one_is_evicted_by_name)
{
	struct world world;
	struct producer used, idle, named = {.world = &world, .epoch = 1};

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	used = producer_new(&world);
	idle = producer_new(&world);
	named.id = producer_open(&world, "kept").id;
	/* limit: PRODUCER_IDLE_MS */
	world_wait(&world, LIMIT_PRODUCER_IDLE_MS - 1);
	cr_assert_eq(world_ticks(&world, 10), 0);
	cr_assert_eq(send(&used, "a", 1, 1).code, 0);
	world_wait(&world, 1);
	cr_assert_gt(world_ticks(&world, 10), 0);
	cr_assert_eq(send(&idle, "a", 1, 1).code, SLUICE_E_PRODUCER_EVICTED);
	cr_assert_eq(send(&used, "a", 2, 1).code, 0);
	world_wait(&world, LIMIT_PRODUCER_IDLE_MS);
	world_ticks(&world, 10);
	cr_assert_eq(send(&used, "a", 3, 1).code, SLUICE_E_PRODUCER_EVICTED);
	cr_assert_eq(send(&named, "a", 1, 1).code, 0, "a name stays");
	cr_assert_eq(world_records(&world, STORE_TIMER), 0);
	world_close(&world);
}
