/* SPDX-License-Identifier: Apache-2.0
 *
 * Lazy timers: nothing deletes one ahead of its time; firing checks the record. What fires them is
 * dispatch/tick.c.
 */
#ifndef SLUICE_CORE_BASE_TIMER_H
#define SLUICE_CORE_BASE_TIMER_H

#include "broker/core/base/apply.h"

enum timer_kind {
#define TIMER(NAME, number, fire, text) TIMER_##NAME = number,
#include "broker/core/timers.def"
#undef TIMER
	TIMER_KIND_COUNT
};
int timer_set(struct apply *a, uint64_t due_mono_ms, enum timer_kind kind, uint64_t id,
	      uint64_t sub) SLUICE_MUST_USE;

/* Fires a due timer, which was deleted. *io_work is the budget of records: each subtracts what it used; one
 * that is not done sets a new timer at a->mono_ms. */
typedef int (*timer_fire_fn)(struct apply *a, uint64_t id, uint64_t sub, uint32_t *io_work);
/* What a TIMER_SWEEP timer sweeps (its sub). */
enum sweep_kind {
#define SWEEP(NAME, number, sweep, text) SWEEP_##NAME = number,
#include "broker/core/sweeps.def"
#undef SWEEP
	SWEEP_KIND_COUNT
};

#endif
