/* SPDX-License-Identifier: Apache-2.0
 * The bench harness's histogram: the error of a percentile, and its direction. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "bench/harness/hist.h"

static struct hist *hist_new(void)
{
	struct hist *hist = calloc(1, sizeof(*hist));

	cr_assert_not_null(hist);
	return hist;
}

Test(bench_hist, an_empty_one_has_no_percentile)
{
	struct hist *hist = hist_new();

	cr_assert(isnan(hist_percentile_us(hist, 0.5)));
	free(hist);
}

Test(bench_hist, a_percentile_is_never_too_low_and_at_most_a_64th_too_high)
{
	for (uint64_t ns = 1; ns < UINT64_MAX / 8; ns = ns * 5 / 3 + 1) {
		struct hist *hist = hist_new();
		double us = (double)ns / 1000, got;

		hist_add(hist, ns, 3);
		got = hist_percentile_us(hist, 0.999);
		cr_assert(got >= us * 0.999999 && got <= us * (1 + 1.0 / 64),
			  "%llu ns is reported as %f us", (unsigned long long)ns, got);
		free(hist);
	}
}

Test(bench_hist, percentiles_count_the_values_below)
{
	struct hist *hist = hist_new(), *other = hist_new();

	hist_add(hist, 1000, 98);
	hist_add(other, 1000000, 1);
	hist_add(other, 9000000, 1);
	hist_merge(hist, other);
	cr_assert_eq(hist->count, 100);
	cr_assert_lt(hist_percentile_us(hist, 0.98), 1.1);
	cr_assert_float_eq(hist_percentile_us(hist, 0.99), 1000, 16);
	cr_assert_float_eq(hist_percentile_us(hist, 1), 9000, 141);
	free(hist);
	free(other);
}

Test(bench_hist, the_largest_latency_has_a_bucket)
{
	struct hist *hist = hist_new();

	hist_add(hist, UINT64_MAX, 1);
	cr_assert(isfinite(hist_percentile_us(hist, 0.5)));
	free(hist);
}
