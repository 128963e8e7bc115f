/* SPDX-License-Identifier: Apache-2.0
 * Routers: patterns, kinds, alternates, cycles, limits. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "broker/core/base/apply.h"
#include "broker/core/base/name.h"
#include "broker/core/base/state.h"
#include "broker/core/router/image.h"
#include "broker/core/router/router.h"
#include "tests/unit/core_world.h"

enum {
	STREAM = SLUICE__TARGET_KIND__TARGET_STREAM,
	QUEUE = SLUICE__TARGET_KIND__TARGET_QUEUE,
	ROUTER = SLUICE__TARGET_KIND__TARGET_ROUTER
};

static struct outcome router(struct world *world, uint16_t type, const char *name, uint32_t kind,
			     const char *alternate)
{
	Sluice__RouterConfig config = SLUICE__ROUTER_CONFIG__INIT;
	Sluice__RouterCreate create = SLUICE__ROUTER_CREATE__INIT;
	Sluice__RouterAlter alter = SLUICE__ROUTER_ALTER__INIT;

	config.name = (char *)(uintptr_t)name;
	config.kind = (Sluice__RouterKind)kind;
	config.alternate = (char *)(uintptr_t)alternate;
	create.config = &config;
	alter.config = &config;
	return type == COMMAND_ROUTER_CREATE ? world_apply(world, type, 0, &create)
					     : world_apply(world, type, 0, &alter);
}

static struct outcome router_delete(struct world *world, const char *name)
{
	Sluice__RouterDelete delete = SLUICE__ROUTER_DELETE__INIT;

	delete.name = (char *)(uintptr_t)name;
	return world_apply(world, COMMAND_ROUTER_DELETE, 0, &delete);
}

static struct outcome unbind(struct world *world, const char *from, const char *pattern,
			     uint32_t kind, const char *target)
{
	Sluice__Edge edge = SLUICE__EDGE__INIT;
	Sluice__RouterUnbind unbind = SLUICE__ROUTER_UNBIND__INIT;

	edge.router = (char *)(uintptr_t)from;
	edge.pattern = (char *)(uintptr_t)pattern;
	edge.target_kind = (Sluice__TargetKind)kind;
	edge.target = (char *)(uintptr_t)target;
	unbind.edge = &edge;
	return world_apply(world, COMMAND_ROUTER_UNBIND, 0, &unbind);
}

/* Targets of a subject from a router, as "s1 s2 q1". */
static const char *route(struct world *world, const char *name, const char *subject)
{
	static char text[1024];
	const struct route_target *targets;
	struct store_txn *txn;
	struct apply a;
	uint64_t id = 0;
	size_t count;

	text[0] = 0;
	effects_clear(world->effects);
	cr_assert_eq(store_begin(world->store, &txn), 0);
	apply_init(&a, world->core, txn, world->effects, world->gateway);
	if (name != NULL)
		cr_assert_eq(name_find(txn, world->gateway, NAME_ROUTER, world_text(name), &id), 0);
	cr_assert_eq(router_route(&a, id, world_text(subject), &targets, &count), 0);
	for (size_t i = 0; i < count; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%c%llu",
			 i > 0 ? " " : "", "sq"[targets[i].kind],
			 (unsigned long long)targets[i].id);
	store_abort(txn);
	return text;
}

Test(core_router, patterns)
{
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s1", "a.*.c", 0, 0, 0);
	world_stream(&world, "s2", "a.>", 0, 0, 0);
	world_stream(&world, "s3", "a.b.c", 0, 0, 0);
	world_queue(&world, "q2", ">", 0);
	cr_assert_eq(world_bind(&world, "", "*.*.c", STREAM, "s1").code, 0);
	cr_assert_str_eq(route(&world, NULL, "a.b.c"), "s1 s2 s3 q2", "each once, streams first");
	cr_assert_str_eq(route(&world, NULL, "a.b.c"), "s1 s2 s3 q2", "the same from the cache");
	cr_assert_str_eq(route(&world, NULL, "a"), "q2", "'>' is at least one token");
	cr_assert_str_eq(route(&world, NULL, "a.b"), "s2 q2");
	cr_assert_str_eq(route(&world, NULL, "x.y.c"), "s1 q2");
	cr_assert_str_eq(route(&world, NULL, "x.y.c.d"), "q2");
	cr_assert_eq(unbind(&world, "", "*.*.c", STREAM, "s1").code, 0);
	cr_assert_str_eq(route(&world, NULL, "x.y.c"), "q2");
	cr_assert_str_eq(route(&world, NULL, "a.b.c"), "s1 s2 s3 q2");
	world_close(&world);
}

/* The trie against the protocol's own matcher, over every subject and pattern of up to three
 * tokens. */
Test(core_router, the_trie_agrees_with_pattern_matches)
{
	static const char *const tokens[] = {"", "a", "b", "*", ">"};
	static char patterns[128][16];
	size_t count = 0;
	struct world world;
	const char *why;

	world_open(&world, WORLD_MEM);
	for (int i = 0; i < 125; i++) {
		char *pattern = patterns[count];
		char name[16];

		snprintf(pattern, 16, "%s.%s.%s", tokens[i % 5], tokens[i / 5 % 5], tokens[i / 25]);
		while (strlen(pattern) > 0 && pattern[strlen(pattern) - 1] == '.')
			pattern[strlen(pattern) - 1] = 0;
		if (pattern_check(world_text(pattern), &why) != 0)
			continue;
		snprintf(name, sizeof(name), "s%zu", ++count);
		cr_assert_eq(world_stream(&world, name, pattern, 0, 0, 0).code, 0);
	}
	cr_assert_gt(count, 40);
	for (int i = 0; i < 27; i++) {
		char subject[16], expected[1024] = "";

		snprintf(subject, sizeof(subject), "%s.%s.%s", tokens[1 + i % 2], tokens[i / 3 % 3],
			 tokens[i / 9]);
		while (subject[strlen(subject) - 1] == '.')
			subject[strlen(subject) - 1] = 0;
		if (subject_check(world_text(subject), &why) != 0)
			continue;
		for (size_t p = 0; p < count; p++) {
			if (pattern_matches(world_text(patterns[p]), world_text(subject)))
				snprintf(expected + strlen(expected),
					 sizeof(expected) - strlen(expected), "%ss%zu",
					 expected[0] != 0 ? " " : "", p + 1);
		}
		cr_assert_str_eq(route(&world, NULL, subject), expected, "subject %s", subject);
	}
	world_close(&world);
}

Test(core_router, direct_fanout_and_nested)
{
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s1", NULL, 0, 0, 0);
	world_stream(&world, "s2", NULL, 0, 0, 0);
	cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, "d", 1, "").code, 0);
	cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, "f", 2, "").code, 0);
	cr_assert_eq(world_bind(&world, "d", "k.1", STREAM, "s1").code, 0);
	cr_assert_eq(world_bind(&world, "d", "k.*", STREAM, "s2").code, SLUICE_E_INVAL,
		     "a key is not a pattern");
	cr_assert_eq(world_bind(&world, "f", "", STREAM, "s1").code, 0);
	cr_assert_eq(world_bind(&world, "f", "anything", STREAM, "s2").code, 0);
	cr_assert_str_eq(route(&world, "d", "k.1"), "s1");
	cr_assert_str_eq(route(&world, "d", "k.2"), "");
	cr_assert_str_eq(route(&world, "f", "whatever"), "s1 s2");
	cr_assert_eq(world_bind(&world, "default", "via.>", ROUTER, "d").code, 0);
	cr_assert_eq(world_bind(&world, "", "k.>", ROUTER, "d").code, 0);
	cr_assert_eq(world_bind(&world, "", "all", ROUTER, "f").code, 0);
	cr_assert_str_eq(route(&world, NULL, "k.1"), "s1");
	cr_assert_str_eq(route(&world, NULL, "via.1"), "");
	cr_assert_str_eq(route(&world, NULL, "all"), "s1 s2");
	cr_assert_eq(router_delete(&world, "f").code, 0);
	cr_assert_str_eq(route(&world, NULL, "all"), "", "its edges were deleted with it");
	world_close(&world);
}

Test(core_router, alternate)
{
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s1", NULL, 0, 0, 0);
	world_stream(&world, "lost", NULL, 0, 0, 0);
	cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, "unrouted", 2, "").code, 0);
	cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, "r", 0, "nowhere").code,
		     SLUICE_E_NOT_FOUND);
	cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, "r", 0, "unrouted").code, 0);
	cr_assert_eq(world_bind(&world, "r", "a", STREAM, "s1").code, 0);
	cr_assert_str_eq(route(&world, "r", "b"), "");
	cr_assert_eq(world_bind(&world, "unrouted", "", STREAM, "lost").code, 0);
	cr_assert_str_eq(route(&world, "r", "a"), "s1");
	cr_assert_str_eq(route(&world, "r", "b"), "s2");
	cr_assert_eq(router_delete(&world, "unrouted").code, SLUICE_E_IN_USE);
	cr_assert_eq(router(&world, COMMAND_ROUTER_ALTER, "unrouted", 2, "r").code,
		     SLUICE_E_CONFLICT, "a cycle over alternates");
	cr_assert_eq(router(&world, COMMAND_ROUTER_ALTER, "r", 1, "").code, SLUICE_E_CONFLICT,
		     "the kind cannot be changed");
	cr_assert_eq(router(&world, COMMAND_ROUTER_ALTER, "r", 0, "").code, 0);
	cr_assert_str_eq(route(&world, "r", "b"), "");
	cr_assert_eq(router(&world, COMMAND_ROUTER_ALTER, "nobody", 0, "").code,
		     SLUICE_E_NOT_FOUND);
	cr_assert_eq(router_delete(&world, "unrouted").code, 0);
	world_close(&world);
}

Test(core_router, refusals)
{
	Sluice__RouterBind bind = SLUICE__ROUTER_BIND__INIT;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", NULL, 0, 0, 0);
	cr_assert_eq(world_apply(&world, COMMAND_ROUTER_BIND, 0, &bind).code, SLUICE_E_INVAL);
	cr_assert_eq(world_bind(&world, "nobody", "a", STREAM, "s").code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(world_bind(&world, "", "a", STREAM, "nobody").code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(world_bind(&world, "", "a", QUEUE, "s").code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(world_bind(&world, "", "a", 3, "s").code, SLUICE_E_INVAL);
	cr_assert_eq(world_bind(&world, "", "a..b", STREAM, "s").code, SLUICE_E_INVAL);
	cr_assert_eq(unbind(&world, "", "a", STREAM, "s").code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, "", 0, "").code, SLUICE_E_INVAL);
	cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, "r", 7, "").code, SLUICE_E_INVAL);
	cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, "default", 0, "").code, SLUICE_E_EXISTS);
	cr_assert_eq(router_delete(&world, "default").code, SLUICE_E_IN_USE);
	cr_assert_eq(router_delete(&world, "r").code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(world_bind(&world, "", "a", STREAM, "s").code, 0);
	cr_assert_eq(world_effects(&world, FX_TOPOLOGY), 1);
	cr_assert_eq(world_bind(&world, "default", "a", STREAM, "s").code, 0, "idempotent");
	cr_assert_eq(world_effects(&world, FX_TOPOLOGY), 0);
	world_close(&world);
}

Test(core_router, depth_at_its_limit_and_cycles)
{
	struct world world;
	char from[16], to[16];

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", NULL, 0, 0, 0);
	for (unsigned i = 1; i <= LIMIT_ROUTER_DEPTH_MAX + 1; i++) {
		snprintf(from, sizeof(from), "r%u", i);
		cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, from, 2, "").code, 0);
	}
	/* Bound from the middle outwards, so that both directions count. */
	for (unsigned i = 5; i < LIMIT_ROUTER_DEPTH_MAX; i++) {
		snprintf(from, sizeof(from), "r%u", i);
		snprintf(to, sizeof(to), "r%u", i + 1);
		cr_assert_eq(world_bind(&world, from, "", ROUTER, to).code, 0);
	}
	for (unsigned i = 4; i >= 1; i--) {
		snprintf(from, sizeof(from), "r%u", i);
		snprintf(to, sizeof(to), "r%u", i + 1);
		cr_assert_eq(world_bind(&world, from, "", ROUTER, to).code, 0);
	}
	cr_assert_eq(world_bind(&world, "r8", "", STREAM, "s").code, 0);
	cr_assert_str_eq(route(&world, "r1", "x"), "s1", "through all eight");
	/* limit: ROUTER_DEPTH_MAX */
	cr_assert_eq(world_bind(&world, "r8", "", ROUTER, "r9").code, SLUICE_E_LIMIT);
	cr_assert_eq(world_bind(&world, "r9", "", ROUTER, "r1").code, SLUICE_E_LIMIT);
	cr_assert_eq(world_bind(&world, "r4", "x", ROUTER, "r9").code, 0, "a short branch");
	cr_assert_eq(world_bind(&world, "r8", "", ROUTER, "r1").code, SLUICE_E_CONFLICT);
	cr_assert_eq(world_bind(&world, "r3", "", ROUTER, "r3").code, SLUICE_E_CONFLICT);
	world_close(&world);
}

Test(core_router, edges_at_their_limit, .timeout = 100)
{
	char *patterns[100];
	char texts[100][16];
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT;
	Sluice__StreamCreate create = SLUICE__STREAM_CREATE__INIT;
	struct world world;

	world_open(&world, WORLD_MEM);
	config.subjects = patterns;
	config.n_subjects = 100;
	create.config = &config;
	for (unsigned s = 0; s < LIMIT_EDGES_MAX / 100; s++) {
		char name[16];

		snprintf(name, sizeof(name), "s%u", s + 1);
		config.name = name;
		for (unsigned i = 0; i < 100; i++) {
			snprintf(texts[i], sizeof(texts[i]), "p%u.%u", s, i);
			patterns[i] = texts[i];
		}
		world_must(&world, COMMAND_STREAM_CREATE, 0, &create);
	}
	/* limit: EDGES_MAX */
	cr_assert_eq(world_bind(&world, "", "one.more", STREAM, "s1").code, SLUICE_E_LIMIT);
	cr_assert_eq(world_stream(&world, "more", "one.more", 0, 0, 0).code, SLUICE_E_LIMIT);
	cr_assert_eq(world_bind(&world, "", "p0.0", STREAM, "s1").code, 0, "exists already");
	cr_assert_str_eq(route(&world, NULL, "p99.99"), "s100");
	cr_assert_eq(unbind(&world, "", "p0.0", STREAM, "s1").code, 0);
	cr_assert_eq(world_bind(&world, "", "one.more", STREAM, "s1").code, 0);
	cr_assert_str_eq(route(&world, NULL, "one.more"), "s1");
	cr_assert_str_eq(route(&world, NULL, "p0.0"), "");
	world_close(&world);
}

Test(core_router, an_aborted_change_leaves_no_trace_in_the_cache)
{
	struct command command = {.type = COMMAND_ROUTER_BIND};
	Sluice__Edge edge = SLUICE__EDGE__INIT;
	Sluice__RouterBind bind = SLUICE__ROUTER_BIND__INIT;
	struct store_txn *txn;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s1", NULL, 0, 0, 0);
	world_stream(&world, "s2", NULL, 0, 0, 0);
	edge.pattern = (char *)"a";
	edge.target = (char *)"s1";
	bind.edge = &edge;
	command.gateway = world.gateway;
	command.message = &bind.base;
	cr_assert_eq(store_begin(world.store, &txn), 0);
	cr_assert_eq(core_batch_begin(world.core, txn, world.clock), 0);
	cr_assert_eq(core_apply(world.core, txn, &command, world.effects), 0);
	command.type = COMMAND_PUBLISH;
	static struct world_batch batch;
	world_batch_add(&batch, NULL, "x", 0);
	struct frame_publish publish = world_batch_publish(&batch, "a");
	command.body = &publish;
	cr_assert_eq(core_apply(world.core, txn, &command, world.effects), 0);
	store_abort(txn);
	core_batch_abort(world.core);
	/* The next bind gets the version number that the aborted one had. */
	cr_assert_eq(world_bind(&world, "", "a", STREAM, "s2").code, 0);
	cr_assert_str_eq(route(&world, NULL, "a"), "s2");
	world_close(&world);
}

Test(core_router, show_and_list)
{
	Sluice__RouterShow show = SLUICE__ROUTER_SHOW__INIT;
	Sluice__RouterList list = SLUICE__ROUTER_LIST__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;
	const Sluice__Reply *reply;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a.>", 0, 0, 0);
	cr_assert_eq(router(&world, COMMAND_ROUTER_CREATE, "r", 1, "").code, 0);
	cr_assert_eq(world_bind(&world, "r", "k", STREAM, "s").code, 0);
	show.name = (char *)"r";
	request.op_case = SLUICE__REQUEST__OP_ROUTER_SHOW;
	request.router_show = &show;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_routers, 1);
	cr_assert_eq(reply->routers[0]->n_edges, 1);
	cr_assert_str_eq(reply->routers[0]->edges[0]->pattern, "k");
	cr_assert_str_eq(reply->routers[0]->edges[0]->target, "s");
	show.name = (char *)"nobody";
	reply = world_query(&world, &request);
	cr_assert_eq(reply->code, SLUICE_E_NOT_FOUND);
	request.op_case = SLUICE__REQUEST__OP_ROUTER_LIST;
	request.router_list = &list;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_routers, 2);
	cr_assert_str_eq(reply->routers[0]->config->name, "default");
	world_close(&world);
}

/* ---- the image, changed in place ---- */

enum { QUEUES = 8, PATTERNS = 12, STEPS = 1500 };
static const char *const pool[PATTERNS] = {"a",	    "a.b", "a.*", "a.>",   "*.b", ">",
					   "a.b.c", "b.*", "*.*", "a.*.c", "b.>", "*.b.*"};

static bool token_of(const char **io, char ret[8])
{
	size_t len = strcspn(*io, ".");

	if (**io == 0)
		return false;
	memcpy(ret, *io, len);
	ret[len] = 0;
	*io += len + ((*io)[len] == '.');
	return true;
}

/* As SPEC.md defines them: * is one token, > one or more at the end. */
static bool fits(const char *pattern, const char *subject)
{
	char want[8], has[8];

	while (token_of(&pattern, want)) {
		if (!token_of(&subject, has))
			return false;
		if (strcmp(want, ">") == 0)
			return true;
		if (strcmp(want, "*") != 0 && strcmp(want, has) != 0)
			return false;
	}
	return *subject == 0;
}

static struct outcome unbind_one(struct world *world, const char *pattern, const char *queue)
{
	Sluice__Edge edge = SLUICE__EDGE__INIT;
	Sluice__RouterUnbind unbind = SLUICE__ROUTER_UNBIND__INIT;

	edge.pattern = (char *)(uintptr_t)pattern;
	edge.target_kind = SLUICE__TARGET_KIND__TARGET_QUEUE;
	edge.target = (char *)(uintptr_t)queue;
	unbind.edge = &edge;
	return world_apply(world, COMMAND_ROUTER_UNBIND, 0, &unbind);
}

static void queue_again(struct world *world, char *name)
{
	Sluice__QueueDelete delete = SLUICE__QUEUE_DELETE__INIT;

	delete.name = name;
	world_must(world, COMMAND_QUEUE_DELETE, 0, &delete);
	world_queue(world, name, NULL, 0);
}

/* Each command is applied, aborted and applied again; beside it a model that is a table and a
 * loop. */
Test(core_router, an_image_that_is_changed_in_place_routes_as_the_definitions_say)
{
	static const char *const subjects[] = {"a",	"a.b",	 "a.c", "b.b",
					       "a.b.c", "b.b.c", "c",	"a.b.c.d"};
	bool bound[QUEUES][PATTERNS] = {{false}};
	uint64_t count[QUEUES] = {0}, random = 7;
	char names[QUEUES][4];
	struct world world;

	world_open(&world, WORLD_MEM);
	for (size_t q = 0; q < QUEUES; q++) {
		names[q][0] = 'q', names[q][1] = (char)('0' + q), names[q][2] = 0;
		world_queue(&world, names[q], NULL, 0);
	}
	for (int step = 0; step < STEPS; step++) {
		size_t q, p;

		random = random * 6364136223846793005u + 1442695040888963407u;
		q = (random >> 33) % QUEUES;
		p = (random >> 40) % PATTERNS;
		if ((random >> 50) % 16 == 0) {
			queue_again(&world, names[q]);
			memset(bound[q], 0, sizeof(bound[q]));
			count[q] = 0;
		} else if ((random >> 50) % 3 == 0) {
			const char *subject = subjects[(random >> 55) % 8];

			cr_assert_eq(world_publish(&world, subject, "x").code, 0);
			for (q = 0; q < QUEUES; q++) {
				bool reached = false;

				for (p = 0; p < PATTERNS; p++)
					reached =
						reached || (bound[q][p] && fits(pool[p], subject));
				count[q] += reached;
				cr_assert_eq(world_ready(&world, names[q]), count[q],
					     "step %d: %s to %s", step, subject, names[q]);
			}
		} else if (bound[q][p]) {
			cr_assert_eq(unbind_one(&world, pool[p], names[q]).code, 0);
			bound[q][p] = false;
		} else {
			cr_assert_eq(world_bind(&world, "", pool[p],
						SLUICE__TARGET_KIND__TARGET_QUEUE, names[q])
					     .code,
				     0);
			bound[q][p] = true;
		}
	}
	world_close(&world);
}

/* More edges are deleted than exist: the image is sometimes rebuilt, and has the same content. */
Test(core_router, edges_that_are_bound_and_unbound_leave_nothing)
{
	struct world world;

	world_open(&world, WORLD_MEM);
	world_queue(&world, "stays", "k.>", 0);
	world_queue(&world, "q", NULL, 0);
	for (int i = 0; i < 2500; i++) {
		cr_assert_eq(world_bind(&world, "", "k.a", SLUICE__TARGET_KIND__TARGET_QUEUE, "q")
				     .code,
			     0);
		if (i % 100 == 0)
			cr_assert_eq(world_publish(&world, "k.a", "x").code, 0);
		cr_assert_eq(unbind_one(&world, "k.a", "q").code, 0);
	}
	cr_assert_eq(world_publish(&world, "k.a", "x").code, 0);
	cr_assert_eq(world_ready(&world, "q"), 25);
	cr_assert_eq(world_ready(&world, "stays"), 26);
	world_discard(&world);
}

/* 400 edges from each of eight routers to the next: an event visits each router once. */
Test(core_router, many_edges_between_routers_are_no_product)
{
	Sluice__RouterConfig config = SLUICE__ROUTER_CONFIG__INIT;
	Sluice__RouterCreate create = SLUICE__ROUTER_CREATE__INIT;
	char name[4] = "r0", next[4] = "r1", pattern[64];
	struct world world;

	world_open(&world, WORLD_MEM);
	create.config = &config;
	config.name = name;
	for (name[1] = '0'; name[1] < '7'; name[1]++)
		world_must(&world, COMMAND_ROUTER_CREATE, 0, &create);
	world_queue(&world, "q", NULL, 0);
	for (int level = 0; level < 7; level++) {
		name[1] = (char)('0' + level - 1);
		next[1] = (char)('0' + level);
		for (int i = 0; i < 256; i++) {
			pattern[0] = 0;
			for (int bit = 0; bit < 8; bit++)
				strcat(pattern, i >> bit & 1 ? "*." : "a.");
			strcat(pattern, "a");
			cr_assert_eq(world_bind(&world, level == 0 ? "" : name, pattern,
						SLUICE__TARGET_KIND__TARGET_ROUTER, next)
					     .code,
				     0);
		}
	}
	cr_assert_eq(world_bind(&world, "r6", ">", SLUICE__TARGET_KIND__TARGET_QUEUE, "q").code, 0);
	cr_assert_eq(world_publish(&world, "a.a.a.a.a.a.a.a.a", "x").code, 0);
	cr_assert_eq(world_ready(&world, "q"), 1);
	world_discard(&world);
}

/* ---- steps ---- */

enum { BITS = 12, WILD = 1 << BITS };

/* "a.*.a. ... .z": all of them begin like "a.a.a ...", and none ends like it. */
static void wild_pattern(char pattern[64], unsigned i)
{
	pattern[0] = 0;
	for (int bit = 0; bit < BITS; bit++)
		strcat(pattern, i >> bit & 1 ? "*." : "a.");
	strcat(pattern, "z");
}

static void wild_bind(struct world *world)
{
	char pattern[64];

	world_queue(world, "q", NULL, 0);
	for (unsigned i = 0; i < WILD; i++) {
		wild_pattern(pattern, i);
		cr_assert_eq(world_bind(world, "", pattern, QUEUE, "q").code, 0);
	}
}

static struct outcome publish_subjects(struct world *world, unsigned count)
{
	static uint8_t bytes[1 << 16];
	struct frame_publish publish = {.count = count};
	size_t len = 0;

	for (unsigned i = 0; i < count; i++) {
		char subject[64] = "";
		struct envelope envelope = {.body = {"x", 1}};

		for (int bit = 0; bit < BITS; bit++)
			strcat(subject, "a.");
		(void)snprintf(subject + strlen(subject), 16, "%u", i);
		envelope.subject = world_text(subject);
		len += envelope_encode(bytes + len, &envelope);
	}
	publish.raw_bytes = (uint32_t)len;
	publish.payload = (struct sluice_slice){bytes, len};
	return world_apply(world, COMMAND_PUBLISH, 0, &publish);
}

static uint64_t steps_of(struct world *world, const char *subject)
{
	const struct route_target *targets;
	struct store_txn *txn;
	struct apply a;
	uint64_t before;
	size_t count;

	cr_assert_eq(store_begin(world->store, &txn), 0);
	apply_init(&a, world->core, txn, world->effects, world->gateway);
	before = world->core->work.steps;
	cr_assert_eq(router_route(&a, 0, world_text(subject), &targets, &count), 0);
	store_abort(txn);
	return world->core->work.steps - before;
}

static void image_forget(struct world *world)
{
	router_cache_drop(world->core->routers);
}

Test(core_router, patterns_that_begin_like_a_subject_are_work_that_has_a_bound)
{
	const unsigned most = (unsigned)LIMIT_ROUTE_STEPS_MAX / (2 * WILD - 1);
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	wild_bind(&world);
	/* limit: ROUTE_STEPS_MAX */
	out = publish_subjects(&world, most + 1);
	cr_expect_eq(out.code, SLUICE_E_LIMIT, "%d", out.code);
	cr_expect_not_null(strstr(out.text, "steps"), "%s", out.text);
	out = publish_subjects(&world, 2 * most);
	cr_expect_eq(out.code, SLUICE_E_LIMIT);
	out = publish_subjects(&world, most);
	cr_expect_eq(out.code, 0, "%s", out.text);
	world_discard(&world);
}

Test(core_router, operations_of_a_transaction_share_its_steps)
{
	const unsigned each = (unsigned)LIMIT_ROUTE_STEPS_MAX / (2 * WILD - 1);
	Sluice__TxnPublish publish = SLUICE__TXN_PUBLISH__INIT;
	Sluice__TxnOp op = SLUICE__TXN_OP__INIT, *ops[1000];
	Sluice__Txn txn = SLUICE__TXN__INIT;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	wild_bind(&world);
	publish.subject = (char *)"a.a.a.a.a.a.a.a.a.a.a.a.b";
	op.op_case = SLUICE__TXN_OP__OP_PUBLISH;
	op.publish = &publish;
	for (size_t i = 0; i < 1000; i++)
		ops[i] = &op;
	txn.ops = ops;
	txn.n_ops = 1000;
	out = world_apply(&world, COMMAND_TXN, 0, &txn);
	cr_expect_eq(out.code, SLUICE_E_LIMIT, "%s", out.text);
	cr_expect_eq(out.count, each + 1, "operation %u", out.count);
	txn.n_ops = each;
	cr_expect_eq(world_apply(&world, COMMAND_TXN, 0, &txn).code, 0);
	world_discard(&world);
}

/* The same commands must be refused on a broker that has just started, and in a batch that is
 * applied again. */
Test(core_router, steps_are_those_of_what_is_bound)
{
	static const char *const subject = "a.a.a.a.a.a.a.a.a.a.a.a.z";
	char pattern[64];
	struct world world;
	uint64_t steps;

	world_open(&world, WORLD_MEM);
	wild_bind(&world);
	steps = steps_of(&world, subject);
	cr_expect_eq(steps, 2 * WILD - 1 + WILD * 2, "%llu: nodes, and each edge at its own",
		     (unsigned long long)steps);
	cr_expect_eq(steps_of(&world, subject), steps, "remembered");
	image_forget(&world);
	cr_expect_eq(steps_of(&world, subject), steps, "rebuilt");
	for (unsigned i = 0; i < WILD; i++) {
		if (i % 4 == 0)
			continue;
		wild_pattern(pattern, i);
		cr_assert_eq(unbind(&world, "", pattern, QUEUE, "q").code, 0);
	}
	steps = steps_of(&world, subject);
	cr_expect_eq(steps, 2 + (2 * WILD / 4 - 1) + 2 * WILD / 4, "%llu",
		     (unsigned long long)steps);
	image_forget(&world);
	cr_expect_eq(steps_of(&world, subject), steps, "without the deleted edges: %llu",
		     (unsigned long long)steps_of(&world, subject));
	world_discard(&world);
}
