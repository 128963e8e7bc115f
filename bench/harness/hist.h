/* SPDX-License-Identifier: Apache-2.0
 *
 * Latencies in nanoseconds, counted in buckets of 1/64 of their power of two: a percentile is at
 * most 1.6 % too high and never too low. */
#ifndef BENCH_HIST_H
#define BENCH_HIST_H

#include <stdint.h>

enum { HIST_SUB_BITS = 6, HIST_BUCKETS = (64 - HIST_SUB_BITS + 1) << HIST_SUB_BITS };

struct hist {
	uint64_t count;
	uint64_t buckets[HIST_BUCKETS];
};

void hist_add(struct hist *hist, uint64_t ns, uint64_t count);
void hist_merge(struct hist *hist, const struct hist *other);
/* The smallest bucket's upper end below which `part` (0 to 1) of all values lie, in microseconds;
 * NaN if there are none. */
double hist_percentile_us(const struct hist *hist, double part);

#endif
