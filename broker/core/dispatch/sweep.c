/* SPDX-License-Identifier: Apache-2.0
 * Records of objects that are marked as deleted are removed by TICK, within its budget; the rest is
 * due again at once. */
#include "broker/core/base/timer.h"
#include "broker/core/dispatch/dispatch.h"
#include "broker/core/queue/queue.h"
#include "broker/core/stream/stream.h"

typedef int (*sweep_fn)(struct apply *a, uint64_t id, uint32_t *io_work, bool *ret_done);

int sweep_fire(struct apply *a, uint64_t id, uint64_t kind, uint32_t *io_work)
{
	static const sweep_fn sweep_of[SWEEP_KIND_COUNT] = {
#define SWEEP(NAME, number, sweep, text) [number] = sweep,
#include "broker/core/sweeps.def"
#undef SWEEP
	};
	bool done = false;
	int rc;

	if (kind >= SWEEP_KIND_COUNT || sweep_of[kind] == NULL)
		return store_damaged("its content is not valid");
	rc = sweep_of[kind](a, id, io_work, &done);
	return rc != 0 || done ? rc : timer_set(a, a->mono_ms, TIMER_SWEEP, id, kind);
}
