/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes of releases that sinks have not handled yet; each release counts in full at every sink that
 * has it. A sink handles releases when its loop runs, and meanwhile other sinks' commits continue:
 * without a bound a thread that is busy for seconds could be owed gigabytes.
 *
 * A sink lags from LIMIT_RELEASE_LAG_BYTES_MAX until it is down to half of that. Meanwhile nothing
 * is claimed for its consumers, its submissions are BUSY, and instead of whole releases it receives
 * copies of its own effects and of those that concern every sink, so that deliveries to others
 * neither count at it nor are kept alive by it. So its lag falls by its own work, and other sinks
 * do not wait for it. Effects that concern every sink still arrive, with about 1 KB per commit; at
 * twice the bound no batch begins until the lag has fallen. No sink waits for the engine, so it
 * falls.
 */
#include <stdlib.h>

#include "broker/engine/engine_internal.h"
#include "broker/engine/lag.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "broker/util/memory.h"
#include "protocol/limits.h"

static uint64_t lag_of(const struct engine_sink *sink)
{
	return atomic_load(&sink->lag_bytes);
}

static void log_lag(const struct engine *engine, size_t number, uint64_t lag)
{
	static struct log_rate rate = {.per_second = 1};
	uint64_t left_out;

	if (log_may(&rate, &left_out))
		log_line(LOG_LEVEL_WARN,
			 log_id("engine.lag",
				"an I/O thread cannot keep up with its output; claims for its "
				"consumers are paused"),
			 log_u64("thread", number), log_u64("bytes", lag),
			 log_u64("batch", core_batch_number(engine->core)),
			 log_u64("left_out", left_out));
}

bool lag_check(struct engine *engine)
{
	bool stop = false;

	for (size_t i = 0; i < engine->sink_count; i++) {
		struct engine_sink *sink = engine->sinks[i];
		uint64_t lag = lag_of(sink);

		stop |= lag > 2 * LIMIT_RELEASE_LAG_BYTES_MAX;
		if (!engine->sink_lags[i] && lag > LIMIT_RELEASE_LAG_BYTES_MAX) {
			engine->sink_lags[i] = true;
			demand_sink_lags(&engine->demand, sink, true);
			log_lag(engine, i, lag);
		} else if (engine->sink_lags[i] && lag <= LIMIT_RELEASE_LAG_BYTES_MAX / 2) {
			engine->sink_lags[i] = false;
			demand_sink_lags(&engine->demand, sink, false);
		}
	}
	return stop;
}

/* Commands that free room still pass when publishes do not, as in the inbox. */
bool lag_submit_busy(const struct submission *submission)
{
	return submission->sink != NULL &&
	       lag_of(submission->sink) >
		       (submission->control ? 2 : 1) * LIMIT_RELEASE_LAG_BYTES_MAX;
}

/* ---- releases for a sink that lags ---- */

static bool is_of_sender(const struct effect *effect)
{
	switch (effect->kind) {
	case FX_REPLY:
	case FX_GRANT:
	case FX_JOBS:
	case FX_RESUMED:
	case FX_ITEM_DAMAGED:
		return true;
	default:
		return false;
	}
}

static void copy_own(struct release_impl *copy, const struct engine_release *whole,
		     const struct engine_sink *sink)
{
	struct effects *effects = copy->public.effects;
	size_t count = effects_count(whole->effects), origins = 0;

	/* Thousands of small releases may be pending: unused memory in them would fill the
	 * bound. */
	effects_few(effects);
	copy->origins = malloc((whole->origin_count + 1) * sizeof(*copy->origins));
	if (copy->origins == NULL)
		memory_fail_stop("a release");
	for (size_t i = 0; i < count; i++) {
		struct effect effect = *effects_at(whole->effects, i);

		if (is_of_sender(&effect)) {
			const struct origin *origin = &whole->origins[effect.command];

			if (origin->sink != sink)
				continue;
			/* A command's effects follow each other, its reply last. */
			if (origins == 0 || copy->origins[origins - 1].tag != origin->tag ||
			    copy->origins[origins - 1].kind != origin->kind) {
				invariant(origins < whole->origin_count, "more senders than %zu",
					  whole->origin_count);
				copy->origins[origins++] = *origin;
			}
			effect.command = (uint32_t)(origins - 1);
		}
		if (effects_copy(effects, &effect) != 0)
			memory_fail_stop("a release");
	}
	copy->public.origins = copy->origins;
	copy->public.origin_count = origins;
	copy->public.number = whole->number;
	copy->public.bytes = sizeof(*copy) + effects_bytes(effects) +
			     (whole->origin_count + 1) * sizeof(*copy->origins);
}

static void post(struct engine_sink *sink, struct release_impl *release)
{
	atomic_fetch_add(&release->refs, 1);
	atomic_fetch_add(&sink->lag_bytes, release->public.bytes);
	sink->post(sink, &release->public);
}

void lag_post(struct engine *engine, struct release_impl *release)
{
	for (size_t i = 0; i < engine->sink_count; i++) {
		struct engine_sink *sink = engine->sinks[i];
		struct release_impl *copy;

		if (lag_of(sink) <= LIMIT_RELEASE_LAG_BYTES_MAX) {
			post(sink, release);
			continue;
		}
		if (release_new(&copy) != 0)
			memory_fail_stop("a release");
		copy_own(copy, &release->public, sink);
		post(sink, copy);
		release_unref(copy);
	}
	release_unref(release);
}

/* ---- any thread ---- */

static bool falls_to(uint64_t before, uint64_t after, uint64_t bound)
{
	return before > bound && after <= bound;
}

void engine_release_done(struct engine *engine, struct engine_sink *sink,
			 struct engine_release *release)
{
	uint64_t bytes = release->bytes;
	uint64_t before;

	release_unref((struct release_impl *)release); /* its first member */
	before = atomic_fetch_sub(&sink->lag_bytes, bytes);
	invariant(before >= bytes, "a sink was given %llu bytes, and hands back %llu", ULL(before),
		  ULL(bytes));
	if (falls_to(before, before - bytes, LIMIT_RELEASE_LAG_BYTES_MAX / 2) ||
	    falls_to(before, before - bytes, 2 * LIMIT_RELEASE_LAG_BYTES_MAX))
		inbox_nudge(&engine->inbox);
}
