/* SPDX-License-Identifier: Apache-2.0
 * What was deleted by a mark goes by TICK, within its budget; what is left is due again at once. */
#include "broker/core/base/state.h"

int sweep_fire(struct apply *a, uint64_t id, uint64_t kind, uint32_t *io_work)
{
	bool done = false;
	int rc;

	switch (kind) {
	case SWEEP_STREAM:
		rc = stream_sweep(a, id, io_work, &done);
		break;
	case SWEEP_QUEUE:
		rc = queue_sweep(a, id, io_work, &done);
		break;
	case SWEEP_SESSION:
		rc = session_sweep(a, id, io_work, &done);
		break;
	default:
		return store_damaged("its content is not valid");
	}
	return rc != 0 || done ? rc : timer_set(a, a->mono_ms, TIMER_SWEEP, id, kind);
}
