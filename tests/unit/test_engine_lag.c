/* SPDX-License-Identifier: Apache-2.0
 * A sink that does not handle its releases: their size is bounded, and no other sink waits. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include "broker/engine/engine_internal.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"
#include "tests/unit/engine_rig.h"

enum { KEPT_MAX = 4096, ITEM_BYTES = 1 << 20, MIB = 1 << 20 };

struct slow {
	struct engine_sink sink; /* first */
	struct engine *engine;
	struct engine_release *kept[KEPT_MAX];
	size_t kept_count;
	bool prompt;  /* it handles each at once */
	uint64_t tag; /* of its consumer */
	unsigned items, replies, ended, strange;
	uint64_t number;
};

static void on_kick(struct engine_sink *sink, uint64_t tag)
{
	(void)sink;
	(void)tag;
}

/* In the middle of it, where the item's body is. */
static bool all_zero(struct sluice_slice payload)
{
	for (size_t i = payload.len / 4; i < payload.len / 4 * 3; i++)
		if (((const uint8_t *)payload.data)[i] != 0)
			return false;
	return payload.len > ITEM_BYTES;
}

static void handle(struct slow *slow, struct engine_release *release)
{
	cr_expect_gt(release->number, slow->number, "in order, none twice");
	slow->number = release->number;
	for (size_t i = 0; i < effects_count(release->effects); i++) {
		const struct effect *effect = effects_at(release->effects, i);
		const struct origin *origin;

		slow->ended += effect->kind == FX_SESSION_ENDED;
		if (effect->kind != FX_REPLY && effect->kind != FX_GRANT)
			continue;
		cr_assert_lt((size_t)effect->command, release->origin_count);
		origin = &release->origins[effect->command];
		if (origin->sink != &slow->sink)
			continue;
		slow->replies += effect->kind == FX_REPLY && origin->kind == ORIGIN_REQUEST;
		if (effect->kind != FX_GRANT)
			continue;
		slow->strange += origin->kind != ORIGIN_CONSUMER || origin->tag != slow->tag ||
				 !all_zero(effect->payload);
		slow->items += effect->count;
	}
	engine_release_done(slow->engine, &slow->sink, release);
}

static void on_post(struct engine_sink *sink, struct engine_release *release)
{
	struct slow *slow = (struct slow *)sink;

	if (slow->prompt) {
		handle(slow, release);
		return;
	}
	cr_assert_lt(slow->kept_count, (size_t)KEPT_MAX);
	slow->kept[slow->kept_count++] = release;
}

static void handle_all(struct slow *slow)
{
	for (size_t i = 0; i < slow->kept_count; i++)
		handle(slow, slow->kept[i]);
	slow->kept_count = 0;
}

static void sink_add(struct rig *rig, struct slow *slow, bool prompt, uint64_t tag)
{
	memset(slow, 0, sizeof(*slow));
	slow->sink.post = on_post;
	slow->sink.kick = on_kick;
	slow->engine = rig->engine;
	slow->prompt = prompt;
	slow->tag = tag;
	cr_assert_eq(engine_sink_add(rig->engine, &slow->sink), 0);
}

static void open_all(struct rig *rig, struct slow *slow, struct slow *prompt, bool aborts)
{
	rig_open(rig, aborts);
	sink_add(rig, slow, false, 9);
	sink_add(rig, prompt, true, 7);
}

static void close_all(struct rig *rig, struct slow *slow)
{
	handle_all(slow);
	rig_close(rig);
}

static void consume(struct rig *rig, struct slow *sink, uint64_t session)
{
	struct consumer_spec spec = {.gateway = 1,
				     .queue = rig_dead_letter(rig),
				     .session = session,
				     .credit = 1000,
				     .sink = &sink->sink,
				     .tag = sink->tag};

	cr_assert_eq(engine_consumer_open(rig->engine, &spec), 0);
	rig_step(rig);
}

static void put(struct rig *rig, unsigned items)
{
	for (unsigned n = 0; n < items; n++) {
		cr_assert_eq(rig_put(rig, ITEM_BYTES), 0);
		rig_step(rig);
	}
}

/* limit: RELEASE_LAG_BYTES_MAX: its consumers wait beyond it, and until it is half. */
Test(lag, nothing_is_claimed_for_a_sink_that_lags_and_others_are_served, .timeout = 60)
{
	for (int aborts = 0; aborts < 2; aborts++) {
		static struct slow slow, prompt;
		struct rig rig;
		uint64_t lag;
		size_t half;

		open_all(&rig, &slow, &prompt, aborts != 0);
		consume(&rig, &slow, rig_session(&rig));
		put(&rig, 200);
		lag = atomic_load(&slow.sink.lag_bytes);
		cr_expect_gt(lag, LIMIT_RELEASE_LAG_BYTES_MAX);
		cr_expect_leq(lag, LIMIT_RELEASE_LAG_BYTES_MAX + 4 * MIB, "%llu bytes", ULL(lag));
		/* The next consumer of the same queue receives the rest, which is not counted for
		 * the sink that lags. */
		consume(&rig, &prompt, rig_session(&rig));
		cr_expect_gt(prompt.items, 130u, "%u items", prompt.items);
		put(&rig, 100);
		cr_expect_gt(prompt.items, 230u, "%u items", prompt.items);
		cr_expect_leq(atomic_load(&slow.sink.lag_bytes), lag + MIB, "%llu bytes",
			      ULL(atomic_load(&slow.sink.lag_bytes)));
		/* Between the whole bound and half of it nothing changes. */
		for (half = 0;
		     atomic_load(&slow.sink.lag_bytes) > LIMIT_RELEASE_LAG_BYTES_MAX * 3 / 4;
		     half++)
			handle(&slow, slow.kept[half]);
		memmove(slow.kept, slow.kept + half,
			(slow.kept_count - half) * sizeof(slow.kept[0]));
		slow.kept_count -= half;
		rig_step(&rig);
		lag = slow.items;
		cr_assert_eq(engine_consumer_close(rig.engine, &prompt.sink, prompt.tag), 0);
		put(&rig, 10);
		handle_all(&slow);
		cr_expect_eq(slow.items + prompt.items, 300u,
			     "what came while it lagged waits: %u and %u", slow.items,
			     prompt.items);
		rig_step(&rig);
		handle_all(&slow);
		cr_expect_eq(slow.items + prompt.items, 310u,
			     "and is delivered when it has caught up");
		cr_expect_gt(slow.items, lag);
		cr_expect_eq(slow.strange + prompt.strange, 0u);
		close_all(&rig, &slow);
	}
}

static int submit_as(struct rig *rig, struct engine_sink *sink, bool control)
{
	struct own *own = rig_own(rig, COMMAND_SESSION_OPEN, 0, 0);
	int rc;

	own->open.timeout_ms = 5000;
	own->submission.sink = sink;
	own->submission.control = control;
	rc = engine_submit(rig->engine, &own->submission);
	if (rc != 0)
		free(own);
	else
		rig_step(rig);
	return rc;
}

/* It still receives notices and answers, as copies with the same content. */
Test(lag, a_sink_that_lags_submits_nothing_and_receives_its_notices, .timeout = 60)
{
	static struct slow slow, prompt;
	struct rig rig;
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;
	uint64_t session;

	open_all(&rig, &slow, &prompt, false);
	consume(&rig, &slow, rig_session(&rig));
	cr_assert_eq(submit_as(&rig, &slow.sink, false), 0);
	put(&rig, 100);
	cr_assert_gt(atomic_load(&slow.sink.lag_bytes), LIMIT_RELEASE_LAG_BYTES_MAX);
	cr_expect_eq(submit_as(&rig, &slow.sink, false), SLUICE_E_BUSY);
	cr_expect_eq(submit_as(&rig, &slow.sink, true), 0, "what frees room passes");
	cr_expect_eq(submit_as(&rig, &prompt.sink, false), 0, "and another sink's");
	session = rig_session(&rig);
	rig_send(&rig, COMMAND_SESSION_CLOSE, session, &close);
	rig_step(&rig);
	handle_all(&slow);
	cr_expect_eq(slow.replies, 2u, "%u", slow.replies);
	cr_expect_eq(slow.ended, 1u);
	cr_expect_eq(slow.strange, 0u);
	cr_expect_eq(submit_as(&rig, &slow.sink, false), 0, "and again");
	close_all(&rig, &slow);
}

/* Otherwise a sink that is busy for a second would stop all others, whose commits are small and
 * many. */
Test(lag, small_commits_cost_a_sink_that_lags_little, .timeout = 60)
{
	static struct slow slow, prompt;
	struct rig rig;
	uint64_t lag;

	open_all(&rig, &slow, &prompt, false);
	consume(&rig, &slow, rig_session(&rig));
	put(&rig, 100);
	lag = atomic_load(&slow.sink.lag_bytes);
	cr_assert_gt(lag, LIMIT_RELEASE_LAG_BYTES_MAX);
	for (int n = 0; n < 500; n++)
		(void)rig_session(&rig); /* every sink is notified of each */
	lag = atomic_load(&slow.sink.lag_bytes) - lag;
	cr_expect_lt(lag / 500, 2048u, "%llu bytes for 500 commits", ULL(lag));
	close_all(&rig, &slow);
}

static void *stopper(void *user)
{
	engine_stop(user);
	return NULL;
}

Test(lag, beyond_twice_the_bound_no_batch_begins_until_it_falls, .timeout = 60)
{
	static struct slow slow, prompt;
	struct engine_facts before, after;
	struct rig rig;
	uint64_t wait = 0;
	pthread_t thread;

	open_all(&rig, &slow, &prompt, false);
	(void)rig_session(&rig);
	engine_facts_get(rig.engine, &before);
	/* As if it had received that many bytes. */
	atomic_fetch_add(&slow.sink.lag_bytes, 2 * LIMIT_RELEASE_LAG_BYTES_MAX);
	cr_expect_eq(submit_as(&rig, &slow.sink, true), SLUICE_E_BUSY);
	cr_assert_eq(rig_put(&rig, 10), 0, "another sink's waits in the inbox");
	cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	engine_facts_get(rig.engine, &after);
	cr_expect_eq(after.commits, before.commits);
	cr_expect_eq(wait, UINT64_MAX, "the engine does not loop while it may do nothing");
	cr_expect(!rig.engine->inbox.nudged);
	handle_all(&slow);
	cr_expect(rig.engine->inbox.nudged, "the engine is woken as soon as it may continue");
	rig_step(&rig);
	engine_facts_get(rig.engine, &after);
	cr_expect_eq(after.commits, before.commits + 1);
	/* The stop of the engine does not wait for the sink. */
	atomic_fetch_add(&slow.sink.lag_bytes, 3 * LIMIT_RELEASE_LAG_BYTES_MAX);
	cr_assert_eq(engine_start(rig.engine), 0);
	cr_assert_eq(pthread_create(&thread, NULL, stopper, rig.engine), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	atomic_store(&slow.sink.lag_bytes, 0);
	for (size_t i = 0; i < slow.kept_count; i++)
		atomic_fetch_add(&slow.sink.lag_bytes, slow.kept[i]->bytes);
	close_all(&rig, &slow);
}
