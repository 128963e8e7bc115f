/* SPDX-License-Identifier: Apache-2.0
 * The report for programs: an array of objects, one per scenario and system; bench/README.md has
 * the names. Values that do not apply are null. */
#include <jansson.h>
#include <string.h>

#include "harness.h"

static json_t *real(double value)
{
	return isfinite(value) ? json_real(value) : json_null();
}

static json_t *reals(const double *values, unsigned count)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < count; i++)
		(void)json_array_append_new(array, real(values[i]));
	return array;
}

static json_t *row_object(const struct results *results, const struct row *row,
			  const struct options *options)
{
	char detail[64];
	double floor = row_floor(results, row), median = row_median(row), low, high;
	json_t *object = json_object();

	row_range(row, &low, &high);
	(void)json_object_set_new(object, "scenario", json_string(row->scenario));
	(void)json_object_set_new(object, "system", json_string(row->system->name));
	(void)json_object_set_new(object, "durability", json_string(row->system->durability));
	(void)json_object_set_new(object, "store", json_string(row->aged ? "aged" : "fresh"));
	(void)json_object_set_new(object, "unit", json_string(row->of->unit));
	(void)json_object_set_new(object, "median", real(median));
	(void)json_object_set_new(object, "min", real(low));
	(void)json_object_set_new(object, "max", real(high));
	(void)json_object_set_new(object, "runs", reals(row->values, row->count));
	(void)json_object_set_new(object, "p50_us", real(row_latency(row, 0)));
	(void)json_object_set_new(object, "p99_us", real(row_latency(row, 1)));
	(void)json_object_set_new(object, "p999_us", real(row_latency(row, 2)));
	(void)json_object_set_new(object, "server_cpu_s_per_million",
				  real(median_of(row->server_cpu, row->count)));
	(void)json_object_set_new(object, "client_cpu_s_per_million",
				  real(median_of(row->client_cpu, row->count)));
	(void)json_object_set_new(object, "rss_anon_peak_bytes", real(row->rss_peak));
	(void)json_object_set_new(object, "p50_us_runs", reals(row->latency[0], row->count));
	(void)json_object_set_new(object, "p99_us_runs", reals(row->latency[1], row->count));
	(void)json_object_set_new(object, "p999_us_runs", reals(row->latency[2], row->count));
	(void)json_object_set_new(object, "server_cpu_runs", reals(row->server_cpu, row->count));
	(void)json_object_set_new(object, "client_cpu_runs", reals(row->client_cpu, row->count));
	(void)json_object_set_new(object, "offered_per_s",
				  real(median_of(row->offered, row->count)));
	(void)json_object_set_new(object, "achieved_per_s",
				  real(median_of(row->achieved, row->count)));
	(void)json_object_set_new(object, "floor",
				  row->of->floor != NULL ? json_string(row->of->floor)
							 : json_null());
	(void)json_object_set_new(object, "of_floor", real(median / floor));
	(void)json_object_set_new(object, "detail",
				  json_string(row_detail(row, options, detail, sizeof(detail))));
	(void)json_object_set_new(object, "command",
				  row->command[0] != 0 ? json_string(row->command) : json_null());
	(void)json_object_set_new(object, "error",
				  row->failed ? json_string(row->error) : json_null());
	return object;
}

int report_json(const char *path, const struct results *results, const struct options *options)
{
	json_t *array = json_array();
	int rc;

	for (unsigned i = 0; i < results->count; i++)
		(void)json_array_append_new(array, row_object(results, results->rows[i], options));
	if (strcmp(path, "-") == 0)
		rc = json_dumpf(array, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(8));
	else
		rc = json_dump_file(array, path, JSON_INDENT(1) | JSON_REAL_PRECISION(8));
	json_decref(array);
	return rc == 0 ? 0 : bench_error("cannot write the JSON to '%s'", path);
}
