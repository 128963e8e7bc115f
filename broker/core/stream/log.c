/* SPDX-License-Identifier: Apache-2.0
 * Appends segments at the end of a log, and lists the logs that grew in a batch. */
#include <stdlib.h>

#include "broker/core/base/age.h"
#include "broker/core/base/state.h"
#include "broker/core/stream/stream.h"
#include "broker/util/invariant.h"

int segment_append(struct apply *a, uint64_t stream, struct log_cell *cell,
		   struct segment_info *info)
{
	if (info->segment.time_max_ms > cell->time_max_ms)
		cell->time_max_ms = info->segment.time_max_ms;
	info->log_time_max_ms = cell->time_max_ms;
	info->append_ms = age_now(a);
	cell->bytes += SEGMENT_HEADER_BYTES + info->segment.subject.len + info->segment.payload.len;
	return segment_put(a, stream, info);
}

int stream_grown(struct apply *a, uint64_t stream)
{
	struct core *core = a->core;

	/* Usually one of the last few; a duplicate costs only a wake-up. */
	for (size_t i = core->grown_count; i > 0 && core->grown_count - i < 8; i--) {
		if (core->grown[i - 1].stream == stream && core->grown[i - 1].gateway == a->gateway)
			return 0;
	}
	if (core->grown_count == core->grown_capacity) {
		size_t capacity = core->grown_capacity == 0 ? 64 : core->grown_capacity * 2;
		struct grown_log *grown = realloc(core->grown, capacity * sizeof(*grown));

		if (grown == NULL)
			return SLUICE_E_NOMEM;
		core->grown = grown;
		core->grown_capacity = capacity;
	}
	invariant(core->grown_count < core->grown_capacity, "%zu streams grew, room for %zu",
		  core->grown_count, core->grown_capacity);
	core->grown[core->grown_count++] = (struct grown_log){a->gateway, stream};
	return 0;
}

int stream_grown_emit(struct core *core, struct store_txn *txn, struct effects *effects)
{
	for (size_t i = 0; i < core->grown_count; i++) {
		struct effect effect = {.kind = FX_LOG_GROWN,
					.gateway = core->grown[i].gateway,
					.id = core->grown[i].stream};
		struct log_cell cell;
		int rc = log_cell_get(txn, effect.gateway, effect.id, &cell);

		if (rc == SLUICE_E_NOT_FOUND)
			continue;
		effect.offset = cell.next;
		if (rc == 0)
			rc = effects_add(effects, &effect);
		if (rc != 0)
			return rc;
	}
	core->grown_count = 0;
	return 0;
}
