/* SPDX-License-Identifier: Apache-2.0
 * Sets timers. dispatch/tick.c fires them. */
#include "broker/core/base/state.h"
#include "broker/core/base/timer.h"
#include "broker/util/invariant.h"

int timer_set(struct apply *a, uint64_t due_mono_ms, enum timer_kind kind, uint64_t id,
	      uint64_t sub)
{
	struct key key;

	core_worked(a->core, 0);
	invariant(a->gateway != 0, "a timer of kind %d without a gateway", (int)kind);
	key_timer(&key, a->gateway, due_mono_ms, (uint8_t)kind, id, sub);
	return store_put(a->txn, STORE_TIMER, key_slice(&key), (struct sluice_slice){NULL, 0});
}
