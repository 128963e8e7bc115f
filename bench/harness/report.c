/* SPDX-License-Identifier: Apache-2.0
 * The table as text, and the evaluation of the figures: the baseline that applies to a row, and the
 * targets. */
#include <stdlib.h>
#include <string.h>

#include "harness.h"

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double median_of(const double *values, unsigned count)
{
	double sorted[REPEATS_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		if (!isnan(values[i]))
			sorted[n++] = values[i];
	if (n == 0)
		return NAN;
	qsort(sorted, n, sizeof(sorted[0]), compare);
	return n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double row_median(const struct row *row)
{
	return median_of(row->values, row->count);
}

void row_range(const struct row *row, double *ret_low, double *ret_high)
{
	*ret_low = *ret_high = row->count > 0 ? row->values[0] : NAN;
	for (unsigned i = 1; i < row->count; i++) {
		*ret_low = row->values[i] < *ret_low ? row->values[i] : *ret_low;
		*ret_high = row->values[i] > *ret_high ? row->values[i] : *ret_high;
	}
}

double row_latency(const struct row *row, unsigned which)
{
	return median_of(row->latency[which], row->count);
}

const char *row_detail(const struct row *row, const struct options *options, char *text,
		       size_t bytes)
{
	if (strcmp(row->of->name, "jobs") == 0)
		(void)snprintf(text, bytes, "%u active", options->jobs_active);
	else if (strcmp(row->of->name, "idle") == 0)
		(void)snprintf(text, bytes, "%u connections", options->idle);
	else if (strcmp(row->of->name, "start-stored") == 0)
		(void)snprintf(text, bytes, "%llu events", (unsigned long long)options->stored);
	else
		text[0] = 0;
	return text;
}

static const struct row *row_find(const struct results *results, const struct row *like,
				  const char *system)
{
	for (unsigned i = 0; i < results->count; i++)
		if (results->rows[i]->of == like->of && results->rows[i]->aged == like->aged &&
		    strcmp(results->rows[i]->system->name, system) == 0)
			return results->rows[i];
	return NULL;
}

static double median_named(const struct results *results, const struct row *like, const char *name,
			   size_t len)
{
	char system[64];
	const struct row *row;

	(void)snprintf(system, sizeof(system), "%.*s", (int)len, name);
	row = row_find(results, like, system);
	if (row == NULL && like->aged) {
		/* A system that is not aged has one figure for both stores. */
		struct row fresh = {.of = like->of};

		row = row_find(results, &fresh, system);
	}
	return row != NULL ? row_median(row) : NAN;
}

double row_floor(const struct results *results, const struct row *row)
{
	const char *floor = row->of->floor, *plus;
	size_t len;

	if (floor == NULL)
		return NAN;
	plus = strchr(floor, '+');
	if (plus == NULL)
		return median_named(results, row, floor, strlen(floor));
	/* A part of a summed baseline is not compared with the sum. */
	len = (size_t)(plus - floor);
	if (strcmp(row->system->name, plus + 1) == 0 ||
	    (strncmp(row->system->name, floor, len) == 0 && row->system->name[len] == 0))
		return NAN;
	/* A sequence: times are added; rates are their inverse. */
	return 1 / (1 / median_named(results, row, floor, len) +
		    1 / median_named(results, row, plus + 1, strlen(plus + 1)));
}

/* ---- the table ---- */

/* Repeats that differ by more are marked. */
#define UNEVEN 1.5

static bool uneven(const struct row *row)
{
	double low, high;

	row_range(row, &low, &high);
	return high > UNEVEN * low;
}

const char *amount_format(char *text, size_t bytes, double value)
{
	if (isnan(value))
		(void)snprintf(text, bytes, "-");
	else if (value >= 1e6)
		(void)snprintf(text, bytes, "%.2f M", value / 1e6);
	else if (value >= 1e5)
		(void)snprintf(text, bytes, "%.0f k", value / 1e3);
	else if (value >= 1e4)
		(void)snprintf(text, bytes, "%.1f k", value / 1e3);
	else if (value >= 100)
		(void)snprintf(text, bytes, "%.0f", value);
	else
		(void)snprintf(text, bytes, "%.3g", value);
	return text;
}

static void table_row(FILE *out, const struct results *results, const struct row *row)
{
	char text[9][32], of_floor[32] = "-", range[72];
	double floor = row_floor(results, row), median = row_median(row);
	double low, high;

	if (row->failed || row->count == 0) {
		(void)fprintf(out, "  %-15s failed: %s\n", row->system->name, row->error);
		return;
	}
	row_range(row, &low, &high);
	(void)snprintf(range, sizeof(range), "%s..%s%s", amount_format(text[0], 32, low),
		       amount_format(text[1], 32, high), uneven(row) ? " ~" : "");
	if (!isnan(floor) && row->of->lower)
		(void)snprintf(of_floor, sizeof(of_floor), "%.2fx", median / floor);
	else if (!isnan(floor))
		(void)snprintf(of_floor, sizeof(of_floor), "%.0f %%", 100 * median / floor);
	(void)fprintf(out, "  %-15s %9s  %-21s %7s %8s %8s %8s %7s %7s %8s\n", row->system->name,
		      amount_format(text[2], 32, median), range, of_floor,
		      amount_format(text[3], 32, row_latency(row, 0)),
		      amount_format(text[4], 32, row_latency(row, 1)),
		      amount_format(text[5], 32, row_latency(row, 2)),
		      amount_format(text[6], 32, median_of(row->server_cpu, row->count)),
		      amount_format(text[7], 32, median_of(row->client_cpu, row->count)),
		      amount_format(text[8], 32, row->rss_peak / 1e6));
	if (!isnan(median_of(row->offered, row->count)))
		(void)fprintf(out, "  %-15s offered %s/s, achieved %s/s\n", "",
			      amount_format(text[0], 32, median_of(row->offered, row->count)),
			      amount_format(text[1], 32, median_of(row->achieved, row->count)));
}

static void table_head(FILE *out, const struct row *row, const struct options *options)
{
	char detail[64];

	(void)row_detail(row, options, detail, sizeof(detail));
	(void)fprintf(out, "\n%s (%s%s): %s%s%s%s\n", row->scenario, row->of->unit,
		      row->of->lower ? ", less is better" : "", row->of->what,
		      detail[0] != 0 ? "; " : "", detail, row->aged ? "; on an aged store" : "");
	(void)fprintf(out, "  %-15s %9s  %-21s %7s %8s %8s %8s %7s %7s %8s\n", "system", "median",
		      "range", "floor", "p50 us", "p99 us", "p99.9 us", "srv s/M", "cli s/M",
		      "anon MB");
}

/* ---- targets ---- */

struct verdicts {
	FILE *out;
	unsigned reached, missed;
	bool doubtful; /* the current row, or the figure it is compared with, is uneven */
};

static void verdict(struct verdicts *verdicts, const struct row *row, const char *what, double is,
		    double wanted, bool at_most)
{
	bool ok = at_most ? is <= wanted : is >= wanted;
	char text[2][32];

	if (isnan(is) || wanted <= 0)
		return;
	if (verdicts->reached + verdicts->missed == 0)
		(void)fprintf(verdicts->out, "\ntargets\n");
	verdicts->reached += ok;
	verdicts->missed += !ok;
	(void)fprintf(verdicts->out, "  %-7s %-22s %-34s %9s  (%s %s)%s\n",
		      ok ? "reached" : "MISSED", row->scenario, what,
		      amount_format(text[0], 32, is), at_most ? "at most" : "at least",
		      amount_format(text[1], 32, wanted), verdicts->doubtful ? " ~" : "");
}

/* Whether the run had the size that the target is defined for. */
static bool asked_in_full(const struct row *row, const struct options *options)
{
	if (strcmp(row->of->name, "jobs") == 0)
		return options->jobs_active >= ACTIVE_DEFAULT;
	if (strcmp(row->of->name, "idle") == 0)
		return options->idle >= IDLE_DEFAULT;
	return strcmp(row->of->name, "start-stored") != 0 || options->stored >= STORED_DEFAULT;
}

static bool doubtful(const struct results *results, const struct row *row)
{
	for (unsigned i = 0; i < results->count; i++) {
		const struct row *other = results->rows[i];
		const char *name = other->system->name;

		if (other->of == row->of && other->aged == row->aged && uneven(other) &&
		    (other == row ||
		     (row->of->floor != NULL && strstr(row->of->floor, name) != NULL) ||
		     (row->of->peer != NULL && strcmp(row->of->peer, name) == 0)))
			return true;
	}
	return false;
}

static void row_verdicts(struct verdicts *verdicts, const struct results *results,
			 const struct row *row, const struct options *options)
{
	const struct scenario *of = row->of;
	double median = row_median(row), floor = row_floor(results, row);
	const struct row *bare = of->floor != NULL ? row_find(results, row, of->floor) : NULL;
	char what[64];

	verdicts->doubtful = doubtful(results, row);
	verdict(verdicts, row, "of the floor", median / floor, of->floor_ratio, of->lower);
	if (of->peer != NULL) {
		(void)snprintf(what, sizeof(what), "times %s", of->peer);
		verdict(verdicts, row, what,
			median / median_named(results, row, of->peer, strlen(of->peer)),
			of->peer_ratio, of->lower);
	}
	if (asked_in_full(row, options))
		verdict(verdicts, row, of->unit, median, of->absolute, of->lower);
	if (bare != NULL) {
		verdict(verdicts, row, "p50, times the floor's",
			row_latency(row, 0) / row_latency(bare, 0), of->p50_ratio, true);
		verdict(verdicts, row, "p99, times the floor's",
			row_latency(row, 1) / row_latency(bare, 1), of->p99_ratio, true);
	}
}

static bool scenario_seen(const struct results *results, const struct scenario *scenario)
{
	for (unsigned i = 0; i < results->count; i++)
		if (results->rows[i]->of == scenario)
			return true;
	return false;
}

void report_table(FILE *out, const struct results *results, const struct options *options)
{
	struct verdicts verdicts = {.out = out};

	for (unsigned i = 0; i < results->count; i++) {
		const struct row *row = results->rows[i];

		if (i == 0 || strcmp(row->scenario, results->rows[i - 1]->scenario) != 0)
			table_head(out, row, options);
		table_row(out, results, row);
	}
	(void)fprintf(out, "\nfloor: the median relative to (less is better: a multiple of) the "
			   "baseline of the row\n");
	for (unsigned i = 0; i < scenario_count; i++)
		if (scenarios[i].floor != NULL && scenario_seen(results, &scenarios[i]))
			(void)fprintf(out, "  %-22s %s\n", scenarios[i].name, scenarios[i].floor);
	(void)fprintf(out,
		      "srv s/M, cli s/M: seconds of processor time, server and client, for a "
		      "million of what is counted\n"
		      "  (deliveries, lives; events, where the figure is MB/s or us)\n"
		      "anon MB: the server's anonymous memory, peak\n"
		      "~: the repeats differ by more than half; another load was on the machine, "
		      "or the system is uneven\n"
		      "\nservers (an example of each)\n");
	for (unsigned s = 0; system_at(s) != NULL; s++)
		for (unsigned i = 0; i < results->count; i++)
			if (results->rows[i]->system == system_at(s) &&
			    results->rows[i]->command[0] != 0) {
				(void)fprintf(out, "  %-15s %s: %s\n", system_at(s)->name,
					      system_at(s)->durability, results->rows[i]->command);
				break;
			}
	for (unsigned i = 0; i < results->count; i++)
		if (results->rows[i]->system->driver->kind == BENCH_OURS &&
		    !results->rows[i]->failed)
			row_verdicts(&verdicts, results, results->rows[i], options);
	(void)fprintf(out, "\n%u targets reached, %u missed, %.0f s\n", verdicts.reached,
		      verdicts.missed, results->seconds);
}
