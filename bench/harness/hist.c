/* SPDX-License-Identifier: Apache-2.0
 * Buckets: one per nanosecond below 64, then 64 for each power of two. */
#include "hist.h"

#include <math.h>

static unsigned bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns < (1u << HIST_SUB_BITS))
		return (unsigned)ns;
	shift = 63u - (unsigned)__builtin_clzll(ns) - HIST_SUB_BITS;
	return ((shift + 1) << HIST_SUB_BITS) + (unsigned)(ns >> shift) - (1u << HIST_SUB_BITS);
}

static double upper_end(unsigned bucket)
{
	unsigned shift = bucket >> HIST_SUB_BITS, low = bucket & ((1u << HIST_SUB_BITS) - 1);

	if (shift == 0)
		return (double)bucket;
	return ldexp((double)low + (1u << HIST_SUB_BITS) + 1, (int)shift - 1) - 1;
}

void hist_add(struct hist *hist, uint64_t ns, uint64_t count)
{
	hist->buckets[bucket_of(ns)] += count;
	hist->count += count;
}

void hist_merge(struct hist *hist, const struct hist *other)
{
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		hist->buckets[i] += other->buckets[i];
	hist->count += other->count;
}

double hist_percentile_us(const struct hist *hist, double part)
{
	uint64_t want = (uint64_t)ceil(part * (double)hist->count), seen = 0;

	if (hist->count == 0)
		return NAN;
	if (want == 0)
		want = 1;
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += hist->buckets[i];
		if (seen >= want)
			return upper_end(i) / 1000.0;
	}
	return NAN;
}
