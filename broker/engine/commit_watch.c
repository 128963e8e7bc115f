/* SPDX-License-Identifier: Apache-2.0
 * Slow commits. */
#include "broker/engine/commit_watch.h"

#include "broker/util/clock.h"
#include "broker/util/log.h"

void commit_watch_begin(struct commit_watch *watch)
{
	watch->began_ns = watch->applied_ns = clock_mono_ns();
}

void commit_watch_applied(struct commit_watch *watch)
{
	watch->applied_ns = clock_mono_ns();
}

void commit_watch_end(const struct commit_watch *watch, const struct engine *engine, int rc)
{
	static struct log_rate rate = {.per_second = 1};
	const struct batch *batch = &engine->batch;
	uint64_t now = clock_mono_ns(), left_out;
	const struct submission *largest = NULL;
	const struct command_spec *spec;

	if ((now - watch->began_ns) / 1000000 < SLOW_COMMIT_MS || !log_may(&rate, &left_out))
		return;
	for (size_t i = batch->first; i < batch->end; i++)
		if (largest == NULL || batch->submissions[i]->bytes > largest->bytes)
			largest = batch->submissions[i];
	spec = largest != NULL ? command_spec(largest->command.type) : NULL;
	log_line(LOG_LEVEL_WARN, log_id("engine.slow_commit", "a commit took long"),
		 log_u64("ms", (now - watch->began_ns) / 1000000),
		 log_u64("apply_ms", (watch->applied_ns - watch->began_ns) / 1000000),
		 log_u64("sync_ms", (now - watch->applied_ns) / 1000000),
		 log_u64("batch", core_batch_number(engine->core)),
		 log_u64("commands", batch->end - batch->first),
		 log_u64("claims", batch->claim_count),
		 log_str("largest", spec != NULL ? spec->name : ""),
		 log_u64("largest_bytes", largest != NULL ? largest->bytes : 0),
		 log_i64("code", rc), log_u64("left_out", left_out));
}
