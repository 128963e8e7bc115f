/* SPDX-License-Identifier: Apache-2.0
 * The frame of a batch: its clock, its number, failures of the store; and the list of effects. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/apply.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/keys.h"
#include "broker/core/base/meta.h"
#include "protocol/limits.h"
#include "tests/unit/core_world.h"

Test(core_batch, the_monotone_clock_never_goes_back)
{
	struct batch_clock read = {0, 0};
	struct store_txn *txn;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_wait(&world, 5000);
	world_stream(&world, "s", "a", 0, 0, 0);
	world.clock.mono_ms -= 3000;
	world.clock.wall_ms -= 3000;
	cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	cr_assert_eq(store_begin_read(world.store, &txn), 0);
	cr_assert_eq(core_clock_read(txn, &read), 0);
	store_abort(txn);
	cr_assert_eq(read.mono_ms, 6000);
	cr_assert_eq(read.wall_ms, 1700000002000, "wall time may");
	world_close(&world);
}

static uint64_t number_shown(struct world *world)
{
	struct store_txn *txn;
	uint64_t number = 0;

	cr_assert_eq(store_begin_read(world->store, &txn), 0);
	cr_assert_eq(core_batch_read(txn, &number), 0);
	store_abort(txn);
	return number;
}

static void numbers_grow(enum world_store kind)
{
	struct store_txn *txn, *before;
	struct world world;
	uint64_t number, own;

	world_open(&world, kind);
	number = number_shown(&world);
	cr_assert_eq(number, 2, "BOOT and LEVEL_RAISE");
	cr_assert_neq(world_apply(&world, COMMAND_SESSION_EXPIRE, 0,
				  &(struct cmd_session_expire){99})
			      .code,
		      0);
	cr_assert_eq(number_shown(&world), ++number, "a refusal is committed, too");
	(void)world_session(&world, "s");
	cr_assert_eq(number_shown(&world), ++number, "the clock stood still");
	cr_assert_eq(core_batch_number(world.core), number);
	cr_assert_neq(world_try(&world, COMMAND_SESSION_EXPIRE, &(struct cmd_session_expire){99})
			      .code,
		      0);
	cr_assert_eq(core_batch_number(world.core), number + 1);
	cr_assert_eq(number_shown(&world), number, "an aborted batch leaves nothing");

	cr_assert_eq(store_begin_read(world.store, &before), 0);
	cr_assert_eq(store_begin(world.store, &txn), 0);
	cr_assert_eq(core_batch_begin(world.core, txn, world.clock), 0);
	cr_assert_eq(core_batch_read(txn, &own), 0);
	cr_assert_eq(own, number + 1, "its number is used again");
	cr_assert_eq(core_batch_end(world.core, txn, world.effects), 0);
	cr_assert_eq(store_commit(txn), 0);
	cr_assert_eq(core_batch_read(before, &own), 0);
	cr_assert_eq(own, kind == WORLD_LMDB ? number : number + 1,
		     "a snapshot shows its commit, but mem has none beside a commit");
	store_abort(before);
	number++;

	world_restart(&world);
	cr_assert_gt(number_shown(&world), number);
	number = number_shown(&world);
	(void)world_session(&world, "t");
	cr_assert_eq(number_shown(&world), number + 1);
	world_close(&world);
}

Test(core_batch, each_commit_has_the_next_number)
{
	numbers_grow(WORLD_MEM);
	numbers_grow(WORLD_LMDB);
}

/* Such a record is from before batches had numbers. */
Test(core_batch, a_store_without_numbers_begins_with_one)
{
	static const uint8_t record[CLOCK_1_BYTES] = {0, 0, 0, 0,    0,	   0,	 0x17, 0x70,
						      0, 0, 1, 0x8b, 0xcf, 0xe5, 0x7b, 0x88};
	struct batch_clock clock;
	struct store_txn *txn;
	struct world world;

	world_open(&world, WORLD_MEM);
	cr_assert_eq(store_begin(world.store, &txn), 0);
	cr_assert_eq(store_put(txn, STORE_META, world_text("clock"),
			       (struct sluice_slice){record, sizeof(record)}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
	cr_assert_eq(number_shown(&world), 0);
	cr_assert_eq(store_begin_read(world.store, &txn), 0);
	cr_assert_eq(core_clock_read(txn, &clock), 0);
	store_abort(txn);
	cr_assert_eq(clock.mono_ms, 6000);
	cr_assert_eq(clock.wall_ms, 1700000005000);
	world_wait(&world, 6000);
	(void)world_session(&world, "s");
	cr_assert_eq(number_shown(&world), 1);
	world_discard(&world);
}

/* Between the two lengths, and beyond: damage. */
Test(core_batch, a_clock_of_another_length_is_damaged)
{
	static const uint8_t record[CLOCK_BYTES + 1] = {0};
	struct clock_record read;

	for (size_t len = 0; len <= sizeof(record); len++)
		cr_assert_eq(clock_decode((struct sluice_slice){record, len}, &read) == 0,
			     len == CLOCK_1_BYTES || len == CLOCK_BYTES, "%zu bytes", len);
}

/* The database is compared with others that had other batches. */
Test(core_batch, a_number_is_in_no_digest)
{
	const struct sluice_slice clock = {"clock", 5}, other = {"clocks", 6};
	const struct sluice_slice value = {"0123456789abcdefghijklmn", CLOCK_BYTES};

	cr_assert_eq(core_record_data(STORE_META, clock, value).len, (size_t)CLOCK_1_BYTES);
	cr_assert_eq(core_record_data(STORE_META, clock, (struct sluice_slice){value.data, 16}).len,
		     16u);
	cr_assert_eq(core_record_data(STORE_META, other, value).len, value.len);
	cr_assert_eq(core_record_data(STORE_NAME, clock, value).len, value.len);
}

Test(core_batch, a_store_is_begun_once)
{
	struct world world;
	uint64_t names;

	world_open(&world, WORLD_MEM);
	names = world_records(&world, STORE_NAME);
	world_restart(&world);
	cr_assert_eq(world_records(&world, STORE_NAME), names);
	world_close(&world);
}

static int fail_at(void *user, const char *operation)
{
	int *left = user;

	return (*left)-- == 0 ? SLUICE_E_NO_SPACE : 0;
}

/* Every store call of a command fails once: the command returns the failure, and then applies as if
 * it had never failed. */
Test(core_batch, failures_of_the_store_are_returned)
{
	static struct world_batch batch;
	struct frame_publish publish;
	struct command command = {.type = COMMAND_PUBLISH, .gateway = 1};
	struct store_txn *txn;
	struct world world;
	int rc = 1, calls = 0;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a.>", 2, 0, 0);
	world_queue(&world, "q", "a.x", 0);
	world_batch_add(&batch, "a.x", "1", 0);
	world_batch_add(&batch, "a.y", "2", 0);
	publish = world_batch_publish(&batch, NULL);
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	command.body = &publish;
	for (; rc != 0 && calls < 200; calls++) {
		int left = calls;

		effects_clear(world.effects);
		cr_assert_eq(store_begin(world.store, &txn), 0);
		store_fault_set(world.store, fail_at, &left);
		rc = core_batch_begin(world.core, txn, world.clock);
		if (rc == 0)
			rc = core_apply(world.core, txn, &command, world.effects);
		if (rc == 0)
			rc = core_batch_end(world.core, txn, world.effects);
		store_fault_set(world.store, NULL, NULL);
		cr_assert(rc == 0 || rc == SLUICE_E_NO_SPACE, "call %d: %s", calls,
			  sluice_error_name(rc));
		store_abort(txn);
		core_batch_abort(world.core);
	}
	cr_assert_eq(rc, 0);
	cr_assert_gt(calls, 5);
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_str_eq(world_events(&world, "s"), "a.x=1 a.y=2");
	cr_assert_eq(world_ready(&world, "q"), 2);
	world_close(&world);
}

Test(core_effects, marks_and_arena)
{
	struct effects *effects;
	struct effect effect = {.kind = FX_TOPOLOGY};
	size_t mark;
	char *memory;

	cr_assert_eq(effects_create(&effects), 0);
	for (unsigned i = 0; i < 1000; i++) {
		effect.id = i;
		cr_assert_eq(effects_add(effects, &effect), 0);
		memory = effects_alloc(effects, i + 1);
		cr_assert_not_null(memory);
		cr_assert_eq((uintptr_t)memory % 8, 0);
		memset(memory, (int)i, i + 1);
	}
	memory = effects_alloc(effects, 5 << 20);
	cr_assert_not_null(memory, "larger than a chunk");
	memset(memory, 1, 5 << 20);
	mark = effects_mark(effects);
	cr_assert_eq(effects_add(effects, &effect), 0);
	effects_rewind(effects, mark);
	cr_assert_eq(effects_count(effects), 1000);
	cr_assert_eq(effects_at(effects, 999)->id, 999);
	effects_clear(effects);
	cr_assert_eq(effects_count(effects), 0);
	memory = effects_alloc(effects, 5 << 20);
	cr_assert_not_null(memory);
	memset(memory, 2, 5 << 20);
	cr_assert_null(effects_alloc(effects, SIZE_MAX));
	effects_destroy(effects);
	effects_destroy(NULL);
}

/* For an I/O thread that lags, replies are copied with all that they have. */
Test(core_effects, a_copied_reply_keeps_its_detail_and_its_payload)
{
	struct effects *from, *to;
	struct outcome *outcome;
	const struct effect *copy;
	char *payload;

	cr_assert_eq(effects_create(&from), 0);
	cr_assert_eq(effects_create(&to), 0);
	effects_few(to);
	outcome = effects_alloc(from, sizeof(*outcome));
	payload = effects_alloc(from, 5);
	memset(outcome, 0, sizeof(*outcome));
	outcome->detail = 47;
	memcpy(payload, "bytes", 5);
	cr_assert_eq(effects_add(from, &(struct effect){.kind = FX_REPLY,
							.outcome = outcome,
							.payload = {payload, 5}}),
		     0);
	cr_assert_eq(effects_copy(to, effects_at(from, 0)), 0);
	effects_destroy(from);
	copy = effects_at(to, 0);
	cr_expect_eq(copy->outcome->detail, 47);
	cr_assert_eq(copy->payload.len, 5);
	cr_expect_eq(memcmp(copy->payload.data, "bytes", 5), 0);
	effects_destroy(to);
}
