/* SPDX-License-Identifier: Apache-2.0
 * Create unless it exists: the existing one must have the requested properties. */
#include <criterion/criterion.h>

#include "tests/unit/core_world.h"

static void conflict(const struct outcome *out, const char *field, const char *has,
		     const char *wants)
{
	cr_assert_eq(out->code, SLUICE_E_CONFLICT, "%d %s", out->code, out->text);
	cr_assert(strstr(out->text, field) != NULL && strstr(out->text, has) != NULL &&
			  strstr(out->text, wants) != NULL,
		  "%s", out->text);
}

/* name(world, config): creates one unless it exists. */
#define CREATES(name, Type, type, TYPE)                                                       \
	static struct outcome name(struct world *world, const Sluice__##Type##Config *config) \
	{                                                                                     \
		Sluice__##Type##Create create;                                                \
                                                                                              \
		sluice__##type##_create__init(&create);                                       \
		create.config = (Sluice__##Type##Config *)(uintptr_t)config;                  \
		create.if_not_exists = true;                                                  \
		return world_apply(world, COMMAND_##TYPE##_CREATE, 0, &create);               \
	}

CREATES(stream, Stream, stream, STREAM)
CREATES(queue, Queue, queue, QUEUE)
CREATES(router, Router, router, ROUTER)
CREATES(lifecycle, Lifecycle, lifecycle, LIFECYCLE)

Test(core_same, streams)
{
	char *patterns[] = {(char *)"a.>", (char *)"b"};
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT, other;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	config.name = (char *)"s";
	config.max_events = 10;
	config.description = (char *)"text";
	config.subjects = patterns;
	config.n_subjects = 1;
	cr_assert_eq(stream(&world, &config).code, 0);
	cr_assert_eq(stream(&world, &config).code, 0, "the same");
	other = config;
	other.description = (char *)"";
	other.n_subjects = 0;
	cr_assert_eq(stream(&world, &other).code, 0,
		     "properties that were not requested may differ");
	other.max_events = 11;
	out = stream(&world, &other);
	conflict(&out, "max_events", "10", "11");
	other = config;
	other.max_age_ms = 5000;
	out = stream(&world, &other);
	conflict(&out, "max_age_ms", "0", "5000");
	other = config;
	other.max_bytes = UINT64_C(1) << 40;
	out = stream(&world, &other);
	conflict(&out, "max_bytes", "0", "1099511627776");
	other = config;
	other.description = (char *)"another";
	out = stream(&world, &other);
	conflict(&out, "description", "'text'", "'another'");
	other = config;
	other.n_subjects = 2;
	out = stream(&world, &other);
	conflict(&out, "subjects", "'b'", "not bound");
	cr_assert_eq(world_bind(&world, "", "b", SLUICE__TARGET_KIND__TARGET_STREAM, "s").code, 0);
	cr_assert_eq(stream(&world, &other).code, 0);
	cr_assert_eq(stream(&world, &config).code, 0, "and one edge more is no conflict");
	world_close(&world);
}

Test(core_same, queues)
{
	char *patterns[] = {(char *)"q"};
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT, other;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	config.name = (char *)"q";
	cr_assert_eq(queue(&world, &config).code, 0);
	other = config;
	other.lease_ms = 30000;
	other.max_attempts = 20;
	other.dead_letter = (char *)"dead-letter";
	other.lifecycle = (char *)"airavata";
	cr_assert_eq(queue(&world, &other).code, 0, "the defaults, named");
	other.lease_ms = 31000;
	out = queue(&world, &other);
	conflict(&out, "lease_ms", "30000", "31000");
	other = config;
	other.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	out = queue(&world, &other);
	conflict(&out, "kind", "0", "1");
	other = config;
	other.priority = true;
	out = queue(&world, &other);
	conflict(&out, "priority", "false", "true");
	other = config;
	other.max_items = 3;
	out = queue(&world, &other);
	conflict(&out, "max_items", "0", "3");
	other = config;
	other.max_attempts = 2;
	out = queue(&world, &other);
	conflict(&out, "max_attempts", "20", "2");
	other = config;
	other.dead_letter = (char *)"elsewhere";
	out = queue(&world, &other);
	conflict(&out, "dead_letter", "'dead-letter'", "'elsewhere'");
	other = config;
	other.subjects = patterns;
	other.n_subjects = 1;
	out = queue(&world, &other);
	conflict(&out, "subjects", "'q'", "not bound");
	cr_assert_eq(queue(&world, &config).code, 0, "none of these changed it");
	world_close(&world);
}

/* Names have up to 255 bytes, and may differ in the last one only. */
Test(core_same, long_texts_are_compared_to_their_ends)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT, other;
	char one[256], two[256];
	struct outcome out;
	struct world world;

	memset(one, 'd', sizeof(one));
	memcpy(one + 250, "-one", 5);
	memcpy(two, one, sizeof(two));
	memcpy(two + 250, "-two", 5);
	world_open(&world, WORLD_MEM);
	world_queue(&world, one, NULL, 0);
	world_queue(&world, two, NULL, 0);
	config.name = (char *)"q";
	config.dead_letter = one;
	cr_assert_eq(queue(&world, &config).code, 0);
	cr_assert_eq(queue(&world, &config).code, 0);
	other = config;
	other.dead_letter = two;
	out = queue(&world, &other);
	conflict(&out, "dead_letter", "d-one'", "d-two'");
	world_close(&world);
}

Test(core_same, routers)
{
	Sluice__RouterConfig config = SLUICE__ROUTER_CONFIG__INIT, other;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	config.name = (char *)"r";
	cr_assert_eq(router(&world, &config).code, 0);
	cr_assert_eq(router(&world, &config).code, 0);
	other = config;
	other.kind = SLUICE__ROUTER_KIND__ROUTER_FANOUT;
	out = router(&world, &other);
	conflict(&out, "kind", "0", "2");
	other = config;
	other.alternate = (char *)"default";
	out = router(&world, &other);
	conflict(&out, "alternate", "''", "'default'");
	world_close(&world);
}

Test(core_same, lifecycles)
{
	char *to_b[] = {(char *)"B", (char *)"C"}, *to_c[] = {(char *)"C"};
	Sluice__LifecycleState a = SLUICE__LIFECYCLE_STATE__INIT, b = a, c = a, less = a;
	Sluice__LifecycleState *states[] = {&a, &b, &c}, *others[] = {&less, &b, &c};
	Sluice__LifecycleConfig config = SLUICE__LIFECYCLE_CONFIG__INIT, other;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	a.name = less.name = (char *)"A";
	a.next = to_b;
	a.n_next = 2;
	less.next = to_b;
	less.n_next = 1;
	b.name = (char *)"B";
	b.next = to_c;
	b.n_next = 1;
	c.name = (char *)"C";
	c.terminal = true;
	config.name = (char *)"m";
	config.states = states;
	config.n_states = 3;
	config.cancelled = config.failed = (char *)"C";
	out = lifecycle(&world, &config);
	cr_assert_eq(out.code, 0, "%s", out.text);
	cr_assert_eq(lifecycle(&world, &config).code, 0);
	other = config;
	other.states = others;
	out = lifecycle(&world, &other);
	conflict(&out, "states", "number 1", "not as given");
	cr_assert_eq(lifecycle(&world, &config).code, 0);
	world_close(&world);
}
