/* SPDX-License-Identifier: Apache-2.0
 * The bench harness's table: how it summarizes the runs: medians, floors, and the verdict on a
 * target. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/harness/harness.h"

static const struct bench_driver ours = {.kind = BENCH_OURS}, bare = {.kind = BENCH_FLOOR},
				 other = {.kind = BENCH_PEER};
static const struct bench_system systems[] = {{"sluice", "fsync", "", &ours, 0},
					      {"floor-a", "fsync", "", &bare, 0},
					      {"floor-b", "fsync", "", &bare, 0},
					      {"peer", "fsync", "", &other, 0}};

const struct scenario scenarios[] = {
	{.name = "sum",
	 .unit = "events/s",
	 .floor = "floor-a+floor-b",
	 .floor_ratio = 0.5,
	 .peer = "peer",
	 .peer_ratio = 2},
	{.name = "idle", .unit = "MB", .floor = "floor-a", .lower = true, .absolute = 150},
};
const unsigned scenario_count = 2;

const struct bench_system *system_at(unsigned i)
{
	return i < 4 ? &systems[i] : NULL;
}

static struct results results;
static const struct options options = {.idle = IDLE_DEFAULT, .jobs_active = 1, .stored = 1};

static struct row *row_add(unsigned scenario, unsigned system, bool aged, unsigned count,
			   const double *values)
{
	struct row *row = calloc(1, sizeof(*row));

	cr_assert_not_null(row);
	row->of = &scenarios[scenario];
	row->system = &systems[system];
	row->aged = aged;
	row->rss_peak = NAN;
	(void)snprintf(row->scenario, sizeof(row->scenario), "%s", scenarios[scenario].name);
	for (; row->count < count; row->count++) {
		row->values[row->count] = values[row->count];
		row->offered[row->count] = NAN;
	}
	results.rows[results.count++] = row;
	return row;
}

#define ROW(scenario, system, aged, ...)                                                  \
	row_add(scenario, system, aged, sizeof((double[]){__VA_ARGS__}) / sizeof(double), \
		(double[]){__VA_ARGS__})

static char *table(const struct options *with)
{
	size_t len;
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);

	cr_assert_not_null(out);
	report_table(out, &results, with);
	(void)fclose(out);
	return text;
}

static void told(const char *text, const char *words)
{
	cr_assert_not_null(strstr(text, words), "'%s' is not in:\n%s", words, text);
}

Test(bench_report, a_median_leaves_out_what_is_not_there)
{
	cr_assert(isnan(median_of(NULL, 0)));
	cr_assert(isnan(median_of((double[]){NAN, NAN}, 2)));
	cr_assert_float_eq(median_of((double[]){9, NAN, 1, 5}, 4), 5, 1e-9);
	cr_assert_float_eq(median_of((double[]){4, 1, 3, 2}, 4), 2.5, 1e-9);
}

Test(bench_report, a_floor_of_two_parts_is_the_sum_of_their_times)
{
	const struct row *row = ROW(0, 0, false, 100, 110, 105);
	const struct row *part = ROW(0, 1, false, 300, 300, 300);

	cr_assert(isnan(row_floor(&results, row)), "a part is missing");
	(void)ROW(0, 2, false, 600, 600, 600);
	/* 1/300 s and then 1/600 s: 200 a second. */
	cr_assert_float_eq(row_floor(&results, row), 200, 1e-6);
	cr_assert(isnan(row_floor(&results, part)), "a part is not bound by the sum");
}

Test(bench_report, what_is_not_aged_has_one_figure_for_both_stores)
{
	const struct row *aged = ROW(1, 0, true, 10, 10, 10);
	const struct row *fresh = ROW(1, 0, false, 5, 5, 5);

	(void)ROW(1, 1, false, 4, 4, 4);
	cr_assert_float_eq(row_floor(&results, aged), 4, 1e-9);
	(void)ROW(1, 1, true, 8, 8, 8);
	cr_assert_float_eq(row_floor(&results, aged), 8, 1e-9);
	cr_assert_float_eq(row_floor(&results, fresh), 4, 1e-9);
}

Test(bench_report, targets_are_judged_by_medians)
{
	char *text;

	(void)ROW(0, 0, false, 100, 110, 105);
	(void)ROW(0, 1, false, 300, 300, 300);
	(void)ROW(0, 2, false, 600, 600, 600);
	(void)ROW(0, 3, false, 60, 60, 61);
	text = table(&options);
	told(text, "reached sum                    of the floor                           0.525  "
		   "(at least 0.5)\n");
	told(text, "MISSED  sum                    times peer                              1.75  "
		   "(at least 2)\n");
	told(text, "\n1 targets reached, 1 missed");
	free(text);
}

Test(bench_report, a_verdict_on_uneven_runs_is_marked)
{
	char *text;

	(void)ROW(0, 0, false, 100, 110, 105);
	(void)ROW(0, 1, false, 300, 300, 300);
	(void)ROW(0, 2, false, 600, 300, 600);
	text = table(&options);
	told(text, "(at least 0.5) ~\n");
	free(text);
}

Test(bench_report, less_than_a_target_is_for_has_no_verdict)
{
	const struct options few = {.idle = 60};
	char *text;

	(void)ROW(1, 0, false, 20, 20, 20);
	text = table(&few);
	told(text, "\n0 targets reached, 0 missed");
	free(text);
	text = table(&options);
	told(text, "(at most 150)\n");
	told(text, "\n1 targets reached, 0 missed");
	free(text);
}

Test(bench_report, a_row_that_failed_has_neither_figures_nor_verdict)
{
	struct row *row = ROW(1, 0, false, 20, 20);
	char *text;

	row->failed = true;
	(void)snprintf(row->error, sizeof(row->error), "the connection broke");
	text = table(&options);
	told(text, "failed: the connection broke");
	told(text, "\n0 targets reached, 0 missed");
	free(text);
}

Test(bench_report, amounts_have_three_digits)
{
	static const struct {
		double value;
		const char *text;
	} cases[] = {{NAN, "-"},     {0.0123, "0.0123"}, {7, "7"},	    {99.6, "99.6"},
		     {4321, "4321"}, {12345, "12.3 k"},	 {123456, "123 k"}, {1234567, "1.23 M"}};
	char text[32];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_assert_str_eq(amount_format(text, sizeof(text), cases[i].value), cases[i].text);
}
