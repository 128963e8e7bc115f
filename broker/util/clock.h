/* SPDX-License-Identifier: Apache-2.0
 *
 * The only place of the broker that reads a clock.
 *
 * Time is an input of core: broker/core must not include this (the include check refuses it); the
 * engine reads the clock once per batch and passes it on. Neither function blocks; both may be
 * called from any thread.
 */
#ifndef SLUICE_BROKER_UTIL_CLOCK_H
#define SLUICE_BROKER_UTIL_CLOCK_H

#include <stdint.h>

/* Nanoseconds since an arbitrary point; never goes back, not comparable across reboots
 * (CLOCK_MONOTONIC). */
uint64_t clock_mono_ns(void);

/* Milliseconds since 1970-01-01 UTC; an administrator may set it back or forward
 * (CLOCK_REALTIME). */
int64_t clock_wall_ms(void);

#endif
