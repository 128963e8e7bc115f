/* SPDX-License-Identifier: Apache-2.0
 *
 * The results: a table as text and JSON for programs. Medians, because one slow fsync of a shared
 * disk is not caused by the layout. Each row also has the cost of a minimal commit at that time
 * (the probe), because writes of other programs can slow down a whole minute: only rows with
 * similar probes are comparable.
 */
#include "floor.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A row whose probe is this many times the best of the run gets a mark. */
#define PROBE_DISTURBED 2.0

struct summary {
	double median, min, max;
};

void floor_report_add(struct floor_report *report, const struct floor_row *row)
{
	assert(report->count < FLOOR_ROWS_MAX && row->count > 0 && row->count <= FLOOR_REPEATS_MAX);
	report->rows[report->count++] = *row;
}

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static struct summary summarise(const double *values, unsigned count)
{
	double sorted[FLOOR_REPEATS_MAX];
	memcpy(sorted, values, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), compare_double);
	unsigned mid = count / 2;
	return (struct summary){
		.median = count % 2 ? sorted[mid] : (sorted[mid - 1] + sorted[mid]) / 2,
		.min = sorted[0],
		.max = sorted[count - 1],
	};
}

double floor_median(const double *values, unsigned count)
{
	return summarise(values, count).median;
}

static double best_probe(const struct floor_report *report)
{
	double best = report->count ? report->rows[0].probe_us : 0;
	for (size_t i = 1; i < report->count; i++) {
		if (report->rows[i].probe_us < best)
			best = report->rows[i].probe_us;
	}
	return best;
}

static void print_value(double v)
{
	printf(" %11.*f", v >= 1000 || v <= -1000 ? 0 : v >= 100 || v <= -100 ? 1 : 2, v);
}

void floor_report_print(const struct floor_report *report)
{
	double quiet = best_probe(report) * PROBE_DISTURBED;
	printf("%-26s %-5s %-18s %11s %11s %11s %9s\n", "scenario", "store", "unit", "median",
	       "min", "max", "probe us");
	for (size_t i = 0; i < report->count; i++) {
		const struct floor_row *row = &report->rows[i];
		struct summary s = summarise(row->values, row->count);
		printf("%-26s %-5s %-18s", row->scenario, row->store, row->unit);
		print_value(s.median);
		print_value(s.min);
		print_value(s.max);
		printf(" %9.0f%s\n", row->probe_us, row->probe_us > quiet ? " !" : "");
	}
	puts("\nprobe us: a minimal commit at that time; !: other programs used the disk");
}

/* No string in a report needs escaping: all come from the tables in this program. */
static void json_row(FILE *out, const struct floor_row *row, bool last)
{
	struct summary s = summarise(row->values, row->count);
	fprintf(out,
		"    {\"scenario\": \"%s\", \"store\": \"%s\", \"unit\": \"%s\", \"median\": %.6g, "
		"\"min\": %.6g, \"max\": %.6g, \"probe_us\": %.6g, \"values\": [",
		row->scenario, row->store, row->unit, s.median, s.min, s.max, row->probe_us);
	for (unsigned i = 0; i < row->count; i++)
		fprintf(out, "%s%.6g", i ? ", " : "", row->values[i]);
	fprintf(out, "]}%s\n", last ? "" : ",");
}

void floor_report_json(const struct floor_report *report, const struct floor_options *opt,
		       const struct floor_age *age, const char *path)
{
	FILE *out = fopen(path, "we");
	if (!out)
		floor_die("--json %s: %s", path, strerror(errno));
	fprintf(out,
		"{\n  \"program\": \"sluice-floor\",\n  \"lmdb\": \"%d.%d.%d\",\n  \"cores\": "
		"%ld,\n",
		MDB_VERSION_MAJOR, MDB_VERSION_MINOR, MDB_VERSION_PATCH,
		sysconf(_SC_NPROCESSORS_ONLN));
	fprintf(out,
		"  \"durability\": \"%s\",\n  \"quick\": %s,\n  \"slice_ms\": %u,\n  \"repeats\": "
		"%u,\n",
		opt->sync ? "sync" : "none", opt->quick ? "true" : "false", opt->slice_ms,
		opt->repeats);
	fprintf(out, "  \"backlog\": %llu,\n  \"records\": %llu,\n  \"turnover\": %llu,\n",
		(unsigned long long)opt->backlog, (unsigned long long)opt->records,
		(unsigned long long)opt->turnover);
	fprintf(out,
		"  \"aged\": {\"file_bytes\": %llu, \"live_bytes\": %llu, \"free_pages\": %llu, "
		"\"free_runs\": %llu},\n  \"rows\": [\n",
		(unsigned long long)age->file_bytes, (unsigned long long)age->live_bytes,
		(unsigned long long)age->free_pages, (unsigned long long)age->free_runs);
	for (size_t i = 0; i < report->count; i++)
		json_row(out, &report->rows[i], i + 1 == report->count);
	fputs("  ]\n}\n", out);
	if (ferror(out) | fclose(out))
		floor_die("--json %s: %s", path, strerror(errno));
}
