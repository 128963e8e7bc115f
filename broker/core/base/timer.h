/* SPDX-License-Identifier: Apache-2.0
 * Lazy timers: a timer is never deleted before it is due; firing checks the record. dispatch/tick.c
 * fires them. */
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

/* Fires a due timer, which was deleted before. *io_work is a budget of records: a function
 * subtracts its work, and sets a new timer at a->mono_ms if it is not done. */
typedef int (*timer_fire_fn)(struct apply *a, uint64_t id, uint64_t sub, uint32_t *io_work);
/* Kind of a TIMER_SWEEP timer (its sub). */
enum sweep_kind {
#define SWEEP(NAME, number, sweep, text) SWEEP_##NAME = number,
#include "broker/core/sweeps.def"
#undef SWEEP
	SWEEP_KIND_COUNT
};

#endif
