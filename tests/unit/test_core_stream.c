/* SPDX-License-Identifier: Apache-2.0
 * Streams: create, alter, delete, append, retention, cursors, seeking. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/core_world.h"

static void walk(enum world_store kind)
{
	struct world world;
	struct outcome out;

	world_open(&world, kind);
	cr_assert_eq(world_stream(&world, "events", "a.>", 0, 0, 0).code, 0);
	out = world_publish(&world, "a.b", "one");
	cr_assert_eq(out.code, 0, "%s", out.text);
	cr_assert_eq(out.kind, OUT_PUBLISHED);
	cr_assert_eq(out.offset, 0);
	cr_assert_eq(world_effects(&world, FX_LOG_GROWN), 1);
	cr_assert_eq(world_effect(&world, FX_LOG_GROWN)->offset, 1);
	out = world_publish(&world, "a.c", "two");
	cr_assert_eq(out.offset, 1);
	cr_assert_eq(world_publish(&world, "b.c", "elsewhere").offset, UINT64_MAX, "nothing is bound to it");
	cr_assert_eq(world_effects(&world, FX_LOG_GROWN), 0);
	cr_assert_str_eq(world_events(&world, "events"), "a.b=one a.c=two");
	world_restart(&world);
	cr_assert_eq(world_publish(&world, "a.d", "three").offset, 2);
	cr_assert_str_eq(world_events(&world, "events"), "a.b=one a.c=two a.d=three");
	world_close(&world);
}

Test(core_stream, publish_and_read_on_mem)
{
	walk(WORLD_MEM);
}

Test(core_stream, publish_and_read_on_lmdb)
{
	walk(WORLD_LMDB);
}
