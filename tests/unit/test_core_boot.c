/* SPDX-License-Identifier: Apache-2.0
 * A start is commands: BOOT, LEVEL_RAISE; the numbers of gateways; an engine that leads. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/counter.h"
#include "broker/core/base/keys.h"
#include "broker/core/base/meta.h"
#include "broker/core/dispatch/dispatch.h"
#include "tests/unit/core_world.h"
#include "tests/unit/engine_rig.h"

/* ---- levels ---- */

static uint32_t level_of(struct store *store)
{
	struct store_txn *txn;
	uint32_t level = 99;

	cr_assert_eq(store_begin_read(store, &txn), 0);
	cr_assert_eq(core_level_read(txn, &level), 0);
	store_abort(txn);
	return level;
}

static struct outcome level_raise(struct world *world, uint32_t level)
{
	Sluice__LevelRaise raise = SLUICE__LEVEL_RAISE__INIT;

	raise.level = level;
	return world_apply(world, COMMAND_LEVEL_RAISE, 0, &raise);
}

Test(core_level, only_rises_and_only_to_what_is_known)
{
	struct world world;

	world_open_at(&world, WORLD_MEM, 0);
	cr_assert_eq(level_of(world.store), 0);
	cr_assert_eq(level_raise(&world, CORE_LEVEL).code, 0);
	cr_assert_eq(level_of(world.store), (uint32_t)CORE_LEVEL);
	cr_assert_eq(level_raise(&world, CORE_LEVEL).code, 0, "it is there");
	cr_assert_eq(level_raise(&world, 0).code, SLUICE_E_CONFLICT);
	cr_assert_eq(level_of(world.store), (uint32_t)CORE_LEVEL);
	world_restart(&world);
	cr_assert_eq(level_of(world.store), (uint32_t)CORE_LEVEL);
	world_close(&world);
}

/* A version that knows the level would apply it: it is no answer of the rules, so nothing of its
 * batch may be kept. */
Test(core_level, one_that_is_not_known_ends_the_batch)
{
	Sluice__LevelRaise raise = SLUICE__LEVEL_RAISE__INIT;
	struct command command = {.type = COMMAND_LEVEL_RAISE,
				  .gateway = 1,
				  .message = &raise.base};
	struct store_txn *txn = NULL;
	struct world world;

	world_open(&world, WORLD_MEM);
	raise.level = CORE_LEVEL + 1;
	cr_assert_eq(store_begin(world.store, &txn), 0);
	cr_assert_eq(core_batch_begin(world.core, txn, world.clock), 0);
	cr_assert_eq(core_apply(world.core, txn, &command, world.effects), SLUICE_E_SCHEMA);
	store_abort(txn);
	core_batch_abort(world.core);
	effects_clear(world.effects);
	cr_assert_eq(level_of(world.store), (uint32_t)CORE_LEVEL);
	world_close(&world);
}

/* The rules of an aborted batch are forgotten with it. */
Test(core_level, an_abort_takes_it_back)
{
	Sluice__LevelRaise raise = SLUICE__LEVEL_RAISE__INIT;
	Sluice__GatewayCreate create = SLUICE__GATEWAY_CREATE__INIT;
	struct world world;

	world_open_at(&world, WORLD_MEM, 0);
	raise.level = 1;
	cr_assert_eq(world_try(&world, COMMAND_LEVEL_RAISE, &raise).code, 0);
	create.name = (char *)(uintptr_t) "g";
	create.number = 7;
	cr_assert_eq(world_apply(&world, COMMAND_GATEWAY_CREATE, 0, &create).code,
		     SLUICE_E_UNSUPPORTED);
	world_close(&world);
}

static void put_level(struct store *store, struct sluice_slice value)
{
	struct store_txn *txn;

	cr_assert_eq(store_begin(store, &txn), 0);
	cr_assert_eq(store_put(txn, STORE_META, level_key(), value), 0);
	cr_assert_eq(store_commit(txn), 0);
}

static int check(struct store *store)
{
	struct store_txn *txn;
	int rc;

	cr_assert_eq(store_begin_read(store, &txn), 0);
	rc = core_store_check(txn);
	store_abort(txn);
	return rc;
}

Test(core_level, a_store_of_a_newer_level_is_refused)
{
	static const uint8_t newer[] = {0, 0, 0, CORE_LEVEL + 1}, torn[] = {0, 0, 1};
	struct world world;

	world_open(&world, WORLD_MEM);
	cr_assert_eq(check(world.store), 0);
	put_level(world.store, (struct sluice_slice){newer, sizeof(newer)});
	cr_assert_eq(check(world.store), SLUICE_E_SCHEMA);
	put_level(world.store, (struct sluice_slice){torn, sizeof(torn)});
	cr_assert_eq(check(world.store), SLUICE_E_CORRUPT);
	world_discard(&world);
}

/* ---- numbers of gateways ---- */

static struct outcome gateway_create(struct world *world, const char *name, uint32_t number)
{
	Sluice__GatewayCreate create = SLUICE__GATEWAY_CREATE__INIT;

	create.name = (char *)(uintptr_t)name;
	create.number = number;
	return world_apply(world, COMMAND_GATEWAY_CREATE, 0, &create);
}

static uint32_t number_of(struct world *world, const char *name)
{
	struct store_txn *txn;
	uint32_t number = 0;

	cr_assert_eq(store_begin_read(world->store, &txn), 0);
	cr_assert_eq(core_gateway_find(txn, world_text(name), &number), 0);
	store_abort(txn);
	return number;
}

Test(core_gateway_number, may_be_given_and_the_next_are_above_it)
{
	struct world world;

	world_open(&world, WORLD_MEM);
	cr_assert_eq(gateway_create(&world, "one", 1).code, SLUICE_E_EXISTS, "default has it");
	cr_assert_eq(gateway_create(&world, "far", 1000).code, 0);
	cr_assert_eq(number_of(&world, "far"), 1000);
	cr_assert_eq(gateway_create(&world, "same", 1000).code, SLUICE_E_EXISTS);
	cr_assert_eq(gateway_create(&world, "next", 0).code, 0);
	cr_assert_eq(number_of(&world, "next"), 1001);
	cr_assert_eq(gateway_create(&world, "between", 500).code, 0);
	cr_assert_eq(number_of(&world, "between"), 500);
	cr_assert_eq(gateway_create(&world, "far", 2000).code, SLUICE_E_EXISTS, "the name");
	cr_assert_eq(gateway_create(&world, "after", 0).code, 0);
	cr_assert_eq(number_of(&world, "after"), 1002, "a refusal takes no number");
	world.gateway = 499;
	cr_assert_eq(world_publish(&world, "a", "x").code, SLUICE_E_NOT_FOUND, "a gap");
	world.gateway = 500;
	cr_assert_eq(world_stream(&world, "s", "a", 0, 0, 0).code, 0);
	cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	world.gateway = 1;
	world_close(&world);
}

/* limit: GATEWAY_NUMBER_MAX */
Test(core_gateway_number, has_a_largest)
{
	struct world world;

	world_open(&world, WORLD_MEM);
	cr_assert_eq(gateway_create(&world, "g", (uint32_t)LIMIT_GATEWAY_NUMBER_MAX + 1).code,
		     SLUICE_E_LIMIT);
	cr_assert_eq(gateway_create(&world, "g", LIMIT_GATEWAY_NUMBER_MAX).code, 0);
	cr_assert_eq(gateway_create(&world, "h", 0).code, SLUICE_E_LIMIT);
	cr_assert_eq(gateway_create(&world, "h", 2).code, 0);
	world_close(&world);
}

/* Gaps cost nothing, and each gateway has its turn. */
Test(core_gateway_number, timers_fire_beyond_a_gap, .timeout = 10)
{
	static const uint32_t numbers[] = {1, 7, LIMIT_GATEWAY_NUMBER_MAX};
	struct cmd_tick tick = {.work_max = 5};
	struct world world;

	world_open(&world, WORLD_MEM);
	cr_assert_eq(gateway_create(&world, "seven", 7).code, 0);
	cr_assert_eq(gateway_create(&world, "last", LIMIT_GATEWAY_NUMBER_MAX).code, 0);
	for (int i = 0; i < 3; i++) {
		world.gateway = numbers[i];
		world_stream(&world, "s", "a", 0, 0, 1000);
		for (int n = 0; n < 20; n++)
			cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	}
	world_wait(&world, 5000);
	world.gateway = 1;
	for (int i = 0; i < 3; i++)
		world_apply(&world, COMMAND_TICK, 0, &tick);
	for (int i = 0; i < 3; i++) {
		world.gateway = numbers[i];
		cr_assert_eq(world_segments(&world, "s"), 15, "gateway %u", numbers[i]);
	}
	world.gateway = 1;
	(void)world_ticks(&world, 1000);
	for (int i = 0; i < 3; i++) {
		world.gateway = numbers[i];
		cr_assert_eq(world_segments(&world, "s"), 0, "gateway %u", numbers[i]);
	}
	world.gateway = 1;
	world_close(&world);
}

/* ---- open, lead ---- */

static void on_fail(void *user, int code, const char *text)
{
	(void)text;
	*(int *)user = code;
}

static size_t records(struct store *store)
{
	size_t count = 0;

	for (int table = 0; table < STORE_TABLE_COUNT; table++) {
		struct sluice_slice key, value;
		struct store_scan *scan;
		struct store_txn *txn;

		cr_assert_eq(store_begin_read(store, &txn), 0);
		cr_assert_eq(store_scan_begin(txn, (enum store_table)table,
					      (struct sluice_slice){"", 0}, &scan),
			     0);
		while (store_scan_next(scan, &key, &value) == 0)
			count++;
		store_scan_end(scan);
		store_abort(txn);
	}
	return count;
}

static struct batch_clock clock_of(struct store *store)
{
	struct batch_clock clock;
	struct store_txn *txn;

	cr_assert_eq(store_begin_read(store, &txn), 0);
	cr_assert_eq(core_clock_read(txn, &clock), 0);
	store_abort(txn);
	return clock;
}

Test(engine_lead, an_engine_that_does_not_lead_writes_nothing)
{
	struct store_options options = {.create = true};
	struct batch_clock now = {1000, 1700000000000};
	struct engine_config config = {0};
	uint64_t wait = 0;
	struct rig rig = {.now = now};
	int failed = 0;

	config.fail_stop = on_fail;
	config.user = &failed;
	cr_assert_eq(store_open_mem(&options, &rig.store), 0);
	rig_start_open(&rig, &config);
	cr_assert_eq(engine_submit(rig.engine,
				   &rig_own(&rig, COMMAND_SESSION_OPEN, 0, 0)->submission),
		     0);
	cr_assert_eq(engine_step(rig.engine, now, &wait), 0);
	cr_assert_eq(wait, UINT64_MAX);
	cr_assert_eq(records(rig.store), 0u);
	cr_assert_eq(rig.replies, 0u);
	/* The clock is its argument, whatever the store knows. */
	cr_assert_eq(engine_lead(rig.engine, now, &(struct cmd_boot){.offset_ms = 4000}), 0);
	cr_assert_eq(clock_of(rig.store).mono_ms, 5000u);
	cr_assert_eq(level_of(rig.store), (uint32_t)CORE_LEVEL);
	rig_step(&rig);
	cr_assert_eq(rig.replies, 1u, "what waited is answered");
	cr_assert_eq(failed, 0);
	rig_close(&rig);
}

/* Two machines' walls are not subtracted by who takes the lead: an hour of the wall clock is
 * nothing when it was not said. */
Test(engine_lead, an_offset_is_taken_as_it_is)
{
	struct batch_clock later = {77, 1700003600000};
	struct engine_config config = {0};
	struct rig rig;

	rig_open(&rig, true);
	(void)rig_session(&rig);
	engine_destroy(rig.engine);
	rig.now = later;
	rig_start_open(&rig, &config);
	cr_assert_eq(engine_lead(rig.engine, later,
				 &(struct cmd_boot){.offset_ms = 86401000 - 77 + 5}),
		     0);
	cr_assert_eq(clock_of(rig.store).mono_ms, 86401005u);
	cr_assert_eq(clock_of(rig.store).wall_ms, later.wall_ms);
	rig_close(&rig);
}

/* A store that an older version has begun gets the level by itself. */
Test(engine_lead, a_store_from_before_levels_is_raised)
{
	struct world world;
	struct rig rig = {.now = {1000, 1700000000000}};

	world_open_at(&world, WORLD_MEM, 0);
	cr_assert_eq(level_of(world.store), 0u);
	rig.store = world.store;
	rig_start(&rig, true);
	cr_assert_eq(level_of(world.store), (uint32_t)CORE_LEVEL);
	engine_destroy(rig.engine);
	world_discard(&world);
}

Test(engine_lead, a_store_of_a_newer_level_is_not_opened)
{
	static const uint8_t newer[] = {0, 0, 0, CORE_LEVEL + 1};
	struct engine_config config = {0};
	struct engine *engine = NULL;
	struct world world;
	size_t before;

	world_open(&world, WORLD_MEM);
	put_level(world.store, (struct sluice_slice){newer, sizeof(newer)});
	before = records(world.store);
	cr_assert_eq(engine_open(&config, world.store, &engine), SLUICE_E_SCHEMA);
	cr_assert_eq(engine_create(&config, world.store, (struct batch_clock){1, 1}, &engine),
		     SLUICE_E_SCHEMA);
	cr_assert_eq(records(world.store), before);
	world_discard(&world);
}

/* What this version does not know is not in the batch: it takes no index, and the engine goes on.
 */
Test(engine_lead, a_level_that_is_not_known_is_refused_before_the_batch)
{
	Sluice__LevelRaise raise = SLUICE__LEVEL_RAISE__INIT;
	char text[80];
	uint64_t index;
	struct rig rig;

	rig_open(&rig, true);
	(void)rig_session(&rig);
	index = rig.last.index;
	raise.level = CORE_LEVEL + 1;
	rig_send(&rig, COMMAND_LEVEL_RAISE, 0, &raise);
	rig_step(&rig);
	cr_assert_eq(rig.last.code, SLUICE_E_UNSUPPORTED);
	snprintf(text, sizeof(text), "level %d is not known; the newest known level is %d",
		 CORE_LEVEL + 1, CORE_LEVEL);
	cr_assert_str_eq(rig.last.text, text);
	cr_assert_eq(rig.failed, 0);
	(void)rig_session(&rig);
	cr_assert_eq(rig.last.code, 0);
	cr_assert_eq(rig.last.index, index + 1);
	cr_assert_eq(level_of(rig.store), (uint32_t)CORE_LEVEL);
	rig_close(&rig);
}
