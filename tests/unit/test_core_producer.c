/* SPDX-License-Identifier: Apache-2.0
 * Producers: exactly-once on retry, epochs, gaps, settling, eviction. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "broker/core/publish/producer_cell.h"
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

/* try: the codec refuses it, so it is applied and aborted. */
static struct outcome send_or_try(const struct producer *producer, const char *subject,
				  uint64_t seq, uint32_t count, bool try)
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

static struct outcome send(const struct producer *producer, const char *subject, uint64_t seq,
			   uint32_t count)
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
	cr_assert_eq(send(&p, "a", 1, 2).code, SLUICE_E_CONFLICT,
		     "another batch under the same number");
	/* The client has the answer to 2: admission refused it. So 3 is next. */
	p.settled = 2;
	cr_assert_eq(send(&p, "a", 3, 2).code, 0);
	cr_assert_eq(send_or_try(&p, "a", 2, 1, true).code, SLUICE_E_INVAL,
		     "settled and sent at once");
	p.settled = 0;
	cr_assert_eq(send(&p, "a", 1, 1).code, SLUICE_E_CONFLICT,
		     "its answer was settled and forgotten");
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
	cr_assert_eq(send(&p, "a", 2, 1).code, 0, "the numbers sent after it are no gap");
	world_stream(&world, "t", "nobody", 0, 0, 0);
	out = send(&p, "nobody", 1, 1);
	cr_assert_eq(out.code, SLUICE_E_NO_ROUTE, "the first answer, even with other bindings");
	cr_assert(out.duplicate);
	/* A temporary refusal leaves the number free. */
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
	cr_assert_eq(world_apply(&world, COMMAND_PRODUCER_CLOSE, 0, &close).code,
		     SLUICE_E_PRODUCER_FENCED);
	close.epoch = 2;
	world_must(&world, COMMAND_PRODUCER_CLOSE, 0, &close);
	cr_assert_eq(world_apply(&world, COMMAND_PRODUCER_CLOSE, 0, &close).code,
		     SLUICE_E_PRODUCER_EVICTED);
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

/* ---- owners ---- */

static struct outcome open_as(struct world *world, uint64_t session, const char *name,
			      uint64_t expect, uint64_t secret)
{
	Sluice__ProducerOpen open = SLUICE__PRODUCER_OPEN__INIT;

	open.name = (char *)(uintptr_t)name;
	open.expect_producer = expect;
	open.secret = secret;
	return world_apply(world, COMMAND_PRODUCER_OPEN, session, &open);
}

static struct outcome send_as(const struct producer *producer, uint64_t session, uint64_t seq,
			      uint32_t count)
{
	static struct world_batch batch;
	struct frame_publish publish;

	batch.used = batch.count = 0;
	for (uint32_t i = 0; i < count; i++)
		world_batch_add(&batch, NULL, "x", 0);
	publish = world_batch_publish(&batch, "a");
	publish.producer = producer->id;
	publish.epoch = producer->epoch;
	publish.first_seq = seq;
	publish.settled_seq = producer->settled;
	return world_apply(producer->world, COMMAND_PUBLISH, session, &publish);
}

static struct outcome txn_as(const struct producer *producer, uint64_t session, uint64_t seq)
{
	Sluice__TxnPublish publish = SLUICE__TXN_PUBLISH__INIT;
	Sluice__TxnOp op = SLUICE__TXN_OP__INIT, *ops[] = {&op};
	Sluice__Txn txn = SLUICE__TXN__INIT;

	publish.subject = (char *)"a";
	op.op_case = SLUICE__TXN_OP__OP_PUBLISH;
	op.publish = &publish;
	txn.producer = producer->id;
	txn.epoch = producer->epoch;
	txn.seq = seq;
	txn.settled_seq = seq - 1;
	txn.ops = ops;
	txn.n_ops = 1;
	return world_apply(producer->world, COMMAND_TXN, session, &txn);
}

static struct outcome close_as(const struct producer *producer, uint64_t session)
{
	Sluice__ProducerClose close = SLUICE__PRODUCER_CLOSE__INIT;

	close.producer = producer->id;
	close.epoch = producer->epoch;
	return world_apply(producer->world, COMMAND_PRODUCER_CLOSE, session, &close);
}

static uint64_t events(struct world *world)
{
	return world_stream_ref(world, "s").next_offset;
}

Test(core_producer, a_session_that_is_not_the_owner_is_refused_and_changes_nothing)
{
	static const char *const names[] = {"", "named"};

	for (size_t n = 0; n < 2; n++) {
		struct world world;
		struct producer p = {.world = &world, .epoch = 1};
		uint64_t owner, stranger;
		struct outcome out;

		world_open(&world, n == 0 ? WORLD_MEM : WORLD_LMDB);
		world_stream(&world, "s", "a", 0, 0, 0);
		owner = world_session(&world, "owner");
		stranger = world_session(&world, NULL);
		p.id = open_as(&world, owner, names[n], 0, 0).id;
		cr_assert_eq(send_as(&p, owner, 1, 1).code, 0);
		for (uint64_t seq = 1; seq <= 3; seq++) {
			p.settled = seq - 1;
			cr_assert_eq(send_as(&p, stranger, seq, 3).code, SLUICE_E_OWNED);
			cr_assert_eq(txn_as(&p, stranger, seq).code, SLUICE_E_OWNED);
		}
		p.settled = 0;
		cr_assert_eq(close_as(&p, stranger).code, SLUICE_E_OWNED);
		cr_assert_eq(send_as(&p, 0, 2, 1).code, SLUICE_E_OWNED, "also without a session");
		cr_assert_eq(events(&world), 1);
		out = send_as(&p, owner, 2, 3);
		cr_assert_eq(out.code, 0, "%s", out.text);
		cr_assert(!out.duplicate && out.offset == 1, "the attempt used no number");
		cr_assert(send_as(&p, owner, 1, 1).duplicate, "and settled nothing");
		world_restart(&world);
		cr_assert_eq(send_as(&p, stranger, 5, 1).code, SLUICE_E_OWNED,
			     "also after a restart");
		cr_assert_eq(send_as(&p, owner, 5, 1).code, 0);
		cr_assert_eq(events(&world), 5);
		world_close(&world);
	}
}

/* A world with two sessions, and a producer that the first has opened. */
static struct outcome opened_by_first(struct world *world, const char *name, struct producer *ret,
				      uint64_t *ret_first, uint64_t *ret_second)
{
	struct outcome out;

	world_open(world, WORLD_MEM);
	world_stream(world, "s", "a", 0, 0, 0);
	*ret_first = world_session(world, NULL);
	*ret_second = world_session(world, NULL);
	out = open_as(world, *ret_first, name, 0, 0);
	*ret = (struct producer){.world = world, .epoch = 1, .id = out.id};
	return out;
}

Test(core_producer, the_secret_takes_it_to_another_session)
{
	struct world world;
	struct producer p, was;
	uint64_t first, second;
	struct outcome out = opened_by_first(&world, "", &p, &first, &second), again;

	cr_assert_neq(out.offset, 0, "its secret");
	cr_assert_eq(send_as(&p, first, 1, 2).code, 0);
	cr_assert_eq(open_as(&world, second, "", p.id, out.offset + 1).code, SLUICE_E_OWNED);
	cr_assert_eq(open_as(&world, second, "", p.id, 0).code, SLUICE_E_OWNED);
	cr_assert_eq(open_as(&world, second, "x", p.id, out.offset).code,
		     SLUICE_E_PRODUCER_EVICTED);
	cr_assert_eq(open_as(&world, second, "", p.id + 1, out.offset).code,
		     SLUICE_E_PRODUCER_EVICTED);
	cr_assert_eq(send_as(&p, first, 3, 1).code, 0, "none of these changed anything");
	was = p;
	again = open_as(&world, second, "", p.id, out.offset);
	cr_assert(again.code == 0 && again.id == p.id && again.epoch == 2 && again.seq == 3, "%s",
		  again.text);
	out = open_as(&world, second, "", p.id, again.offset);
	cr_assert(out.code == 0 && out.epoch == 2, "a repetition changes nothing");
	p.epoch = 2;
	cr_assert(send_as(&p, second, 1, 2).duplicate, "requests in flight are settled");
	cr_assert_eq(send_as(&p, second, 4, 1).code, 0);
	cr_assert_eq(send_as(&was, first, 5, 1).code, SLUICE_E_PRODUCER_FENCED);
	cr_assert_eq(send_as(&p, first, 5, 1).code, SLUICE_E_OWNED,
		     "the epoch alone is not enough");
	cr_assert_eq(events(&world), 4);
	world_close(&world);
}

Test(core_producer, a_name_takes_it_over_and_the_former_owner_cannot)
{
	struct world world;
	struct producer p;
	uint64_t first, second;
	struct outcome out = opened_by_first(&world, "n", &p, &first, &second), other;

	cr_assert_eq(send_as(&p, first, 1, 1).code, 0);
	other = open_as(&world, second, "n", 0, 0);
	cr_assert(other.id == p.id && other.epoch == 2 && other.seq == 1, "%s", other.text);
	cr_assert_eq(send_as(&p, first, 2, 1).code, SLUICE_E_PRODUCER_FENCED);
	cr_assert_eq(open_as(&world, first, "n", p.id, out.offset).code, SLUICE_E_PRODUCER_FENCED,
		     "not with the former secret");
	p.epoch = 2;
	cr_assert_eq(send_as(&p, second, 2, 1).code, 0);
	world_close(&world);
}

/* The layout before producers had owners: without owner and secret. */
Test(core_producer, a_record_without_an_owner_is_the_first_users)
{
	struct world world;
	struct producer p = {.world = &world, .epoch = 1};
	uint64_t first, second;
	struct store_txn *txn;
	struct sluice_slice value;
	uint8_t key[4 + 1 + 8] = {0, 0, 0, 1, 4}, old[256];
	struct outcome out;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	first = world_session(&world, NULL);
	second = world_session(&world, NULL);
	out = open_as(&world, first, "", 0, 0);
	p.id = out.id;
	cr_assert_eq(send_as(&p, first, 1, 2).code, 0);
	key[12] = (uint8_t)p.id;
	cr_assert_eq(store_begin(world.store, &txn), 0);
	cr_assert_eq(store_get(txn, STORE_HOT, (struct sluice_slice){key, sizeof(key)}, &value), 0);
	cr_assert_lt(value.len, sizeof(old));
	memcpy(old, value.data, value.len);
	cr_assert_eq(store_put(txn, STORE_HOT, (struct sluice_slice){key, sizeof(key)},
			       (struct sluice_slice){old, value.len - 16}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
	cr_assert_eq(open_as(&world, second, "", p.id, out.offset).code, SLUICE_E_OWNED,
		     "it has no secret, so none is right");
	cr_assert_eq(open_as(&world, second, "", p.id, 0).code, SLUICE_E_OWNED);
	cr_assert(send_as(&p, second, 1, 2).duplicate, "a retry is answered");
	cr_assert_eq(send_as(&p, second, 3, 1).code, 0);
	cr_assert_eq(send_as(&p, first, 4, 1).code, SLUICE_E_OWNED);
	cr_assert_eq(send_as(&p, second, 4, 1).code, 0);
	world_discard(&world);
}

/* ---- its principal ---- */

static uint64_t session_of(struct world *world, const char *principal)
{
	struct cmd_session_open open = {.principal = world_text(principal)};

	return world_must(world, COMMAND_SESSION_OPEN, 0, &open).id;
}

static size_t cell_bytes(struct world *world, uint64_t producer)
{
	struct sluice_slice value;
	struct store_txn *txn;
	struct key key;

	key_hot(&key, world->gateway, HOT_PRODUCER, producer);
	cr_assert_eq(store_begin_read(world->store, &txn), 0);
	cr_assert_eq(store_get(txn, STORE_HOT, key_slice(&key), &value), 0);
	store_abort(txn);
	return value.len;
}

static const char *principal_of(struct world *world, uint64_t producer)
{
	static char text[256];
	struct producer_cell cell;
	struct sluice_slice value;
	struct store_txn *txn;
	struct key key;

	key_hot(&key, world->gateway, HOT_PRODUCER, producer);
	cr_assert_eq(store_begin_read(world->store, &txn), 0);
	cr_assert_eq(store_get(txn, STORE_HOT, key_slice(&key), &value), 0);
	cr_assert_eq(producer_cell_decode(value, &cell), 0);
	snprintf(text, sizeof(text), "%.*s", (int)cell.principal.len,
		 (const char *)cell.principal.data);
	store_abort(txn);
	return text;
}

Test(core_producer, it_keeps_the_principal_of_the_session_that_owns_it)
{
	struct world world;
	struct producer p = {.world = &world, .epoch = 1};
	uint64_t ada, eve, nobody;
	struct outcome out;

	for (int store = 0; store < 2; store++) {
		world_open(&world, store == 0 ? WORLD_MEM : WORLD_LMDB);
		world_stream(&world, "s", "a", 0, 0, 0);
		ada = session_of(&world, "ada");
		eve = session_of(&world, "eve");
		nobody = session_of(&world, "");
		cr_expect_str_eq(principal_of(&world, open_as(&world, nobody, "", 0, 0).id), "");
		out = open_as(&world, ada, "n", 0, 0);
		p.id = out.id;
		p.epoch = 1;
		cr_expect_str_eq(principal_of(&world, p.id), "ada");
		cr_assert_eq(send_as(&p, ada, 1, 2).code, 0);
		cr_expect_str_eq(principal_of(&world, p.id), "ada", "a publish keeps it");
		cr_assert_eq(open_as(&world, nobody, "n", 0, 0).code, 0);
		cr_expect_str_eq(principal_of(&world, p.id), "ada", "the last one known");
		out = open_as(&world, eve, "n", 0, 0);
		cr_expect_str_eq(principal_of(&world, p.id), "eve");
		cr_assert_eq(open_as(&world, ada, "n", p.id, out.offset).code, 0);
		cr_expect_str_eq(principal_of(&world, p.id), "ada", "by its secret, too");
		world_restart(&world);
		cr_expect_str_eq(principal_of(&world, p.id), "ada");
		world_close(&world);
	}
}

/* A record of format 2 ends with the secret: that of a producer whose principal is not known. */
Test(core_producer, a_record_without_a_principal_gets_one_when_it_is_taken)
{
	struct world world;
	struct producer p = {.world = &world, .epoch = 1};
	struct outcome out;
	uint64_t ada;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	out = open_as(&world, session_of(&world, ""), "", 0, 0);
	p.id = out.id;
	cr_expect_eq(cell_bytes(&world, p.id), 23 + 16);
	ada = session_of(&world, "ada");
	cr_assert_eq(send_as(&p, ada, 1, 1).code, SLUICE_E_OWNED, "its owner is known");
	cr_assert_eq(open_as(&world, ada, "", p.id, out.offset).code, 0);
	cr_expect_str_eq(principal_of(&world, p.id), "ada");
	cr_expect_eq(cell_bytes(&world, p.id), 23 + 16 + 2 + 3);
	world_close(&world);
}

Test(core_producer, before_level_1_no_principal_is_kept)
{
	struct world world;

	world_open_at(&world, WORLD_MEM, 0);
	cr_expect_str_eq(principal_of(&world,
				      open_as(&world, session_of(&world, "ada"), "n", 0, 0).id),
			 "");
	world_close(&world);
}
