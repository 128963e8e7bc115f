/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of the runs. All systems of a scenario have their servers running, each in a directory
 * of its own; then each runs once unmeasured, then all in turn, for the requested number of
 * repeats: disturbances of the machine affect all alike. A row that fails is reported and excluded;
 * the others continue.
 */
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dirs.h"
#include "load.h"

struct plan {
	const struct options *options;
	struct results *results;
	char base[BENCH_PATH_MAX / 2];
	unsigned scenario, scenarios; /* for the progress */
	bool line_open;		      /* the terminal's last line is a progress line */
};

static bool chosen(const char *const *patterns, unsigned count, const char *name)
{
	for (unsigned i = 0; i < count; i++)
		if (fnmatch(patterns[i], name, 0) == 0)
			return true;
	return count == 0;
}

/* ---- progress: on standard error, on a terminal one line that is overwritten ---- */

static void progress(struct plan *plan, const struct row *row, unsigned number, double value)
{
	char text[32];

	if (isatty(STDERR_FILENO) == 0)
		return;
	(void)fprintf(stderr, "\r[%u/%u] %-22s %-16s %s %u/%u  %s %s\033[K", plan->scenario,
		      plan->scenarios, row->scenario, row->system->name,
		      number == 0 ? "warm-up" : "repeat", number, plan->options->repeats,
		      amount_format(text, sizeof(text), value), row->of->unit);
	plan->line_open = true;
}

static void say(struct plan *plan, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct plan *plan, const char *format, ...)
{
	va_list args;

	if (plan->line_open)
		(void)fprintf(stderr, "\r\033[K");
	plan->line_open = false;
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
}

/* ---- rows ---- */

static void row_fail(struct plan *plan, struct row *row)
{
	row->failed = true;
	(void)snprintf(row->error, sizeof(row->error), "%s", bench_last_error());
	if (!interrupted)
		say(plan, "bench: %s, %s: %s (its log: %s)\n", row->scenario, row->system->name,
		    row->error, row->log);
	if (row->server.pid > 0)
		bench_stop(&row->server, SIGKILL);
}

/* An aged store is made once per driver, and copied. */
static int aged_copy(struct plan *plan, const struct row *row)
{
	char master[BENCH_PATH_MAX];
	struct bench_server_spec spec = {.dir = master,
					 .bin = plan->options->bin,
					 .log = row->log,
					 .age_percent = plan->options->smoke ? 25 : 100};

	(void)snprintf(master, sizeof(master), "%s/aged-%s", plan->base, row->system->driver->name);
	if (access(master, F_OK) != 0) {
		if (dir_make(master) != 0)
			return -1;
		if (row->system->driver->age(row->system, &spec) != 0) {
			(void)dir_remove(master);
			return -1;
		}
	}
	return dir_copy(master, row->dir);
}

static int row_start(struct plan *plan, struct row *row)
{
	struct bench_server_spec spec = {.dir = row->dir,
					 .bin = plan->options->bin,
					 .log = row->log};
	const struct bench_driver *driver = row->system->driver;

	if ((row->aged ? aged_copy(plan, row) : dir_make(row->dir)) != 0)
		return -1;
	if (row->of->own_server)
		return 0;
	if (driver->start(row->system, &spec, &row->server) != 0)
		return -1;
	(void)snprintf(row->command, sizeof(row->command), "%s", row->server.command);
	if (driver->prepare(&row->server, BENCH_PUBLISH, BENCH_STREAM) != 0)
		return -1;
	return row->of->queue ? driver->prepare(&row->server, BENCH_PUT, BENCH_QUEUE) : 0;
}

static void row_trial(struct plan *plan, struct row *row, unsigned number)
{
	static const double parts[LATENCIES] = {0.5, 0.99, 0.999};
	struct sample sample = {.value = NAN,
				.ops = NAN,
				.server_cpu_s = NAN,
				.client_cpu_s = NAN,
				.rss_anon = NAN,
				.offered = NAN,
				.achieved = NAN};
	struct trial trial = {.options = plan->options,
			      .scenario = row->of,
			      .system = row->system,
			      .spec = {.dir = row->dir, .bin = plan->options->bin, .log = row->log},
			      .server = row->server,
			      .number = number,
			      .state = row->state,
			      .sample = &sample};
	double peak;
	int rc;

	/* Pending writes of others (a copy, a log that is synced once per second) must not be
	 * charged to this one. */
	dir_sync(plan->base);
	sample.hist = calloc(1, sizeof(*sample.hist));
	if (sample.hist == NULL)
		abort();
	trial.server.system = row->system;
	if (!row->of->own_server)
		peak_start(row->server.pid);
	rc = row->of->run(&trial);
	peak = peak_stop();
	row->server = trial.server;
	if (trial.server.command[0] != 0)
		(void)snprintf(row->command, sizeof(row->command), "%s", trial.server.command);
	if (isnan(sample.rss_anon))
		sample.rss_anon = peak;
	if (rc != 0) {
		row_fail(plan, row);
	} else {
		progress(plan, row, number, sample.value);
		if (number > 0) {
			row->values[row->count] = sample.value;
			row->server_cpu[row->count] = sample.server_cpu_s / sample.ops * 1e6;
			row->client_cpu[row->count] = sample.client_cpu_s / sample.ops * 1e6;
			row->offered[row->count] = sample.offered;
			row->achieved[row->count] = sample.achieved;
			for (unsigned i = 0; i < LATENCIES; i++)
				row->latency[i][row->count] =
					hist_percentile_us(sample.hist, parts[i]);
			row->count++;
			if (isnan(row->rss_peak) || sample.rss_anon > row->rss_peak)
				row->rss_peak = sample.rss_anon;
		}
	}
	free(sample.hist);
}

/* Each repeat has an aged store of its own: otherwise one would fill the free pages of the next. */
static void row_renew(struct plan *plan, struct row *row)
{
	bench_stop(&row->server, SIGTERM);
	if (row->of->stored)
		row->state[0] = 0;
	if (dir_remove(row->dir) != 0 || row_start(plan, row) != 0)
		row_fail(plan, row);
}

/* The output of a failed server is kept with its log, outside of the data. */
static void row_end(struct row *row)
{
	bench_stop(&row->server, SIGTERM);
	(void)dir_remove(row->dir);
}

static struct row *row_new(struct plan *plan, const struct scenario *scenario,
			   const struct bench_system *system, bool aged)
{
	struct row *row = plan->results->count < ROWS_MAX ? calloc(1, sizeof(*row)) : NULL;

	if (row == NULL)
		abort();
	plan->results->rows[plan->results->count++] = row;
	row->of = scenario;
	row->system = system;
	row->aged = aged;
	row->rss_peak = NAN;
	(void)snprintf(row->scenario, sizeof(row->scenario), "%s%s", scenario->name,
		       aged ? "-aged" : "");
	(void)snprintf(row->dir, sizeof(row->dir), "%s/%s-%s", plan->base, row->scenario,
		       system->name);
	(void)snprintf(row->log, sizeof(row->log), "%s/%s.log", plan->options->dir, system->name);
	return row;
}

/* ---- scenarios ---- */

static bool takes_part(const struct plan *plan, const struct scenario *scenario,
		       const struct bench_system *system, bool aged)
{
	return word_in(scenario->systems, system->name) &&
	       chosen(plan->options->systems, plan->options->system_count, system->name) &&
	       !(system->driver->kind == BENCH_PEER && scenario->slow_peers &&
		 plan->options->quick) &&
	       (!aged || system->driver->age != NULL);
}

static bool anyone(const struct plan *plan, const struct scenario *scenario, bool aged)
{
	const struct bench_system *system;

	for (unsigned i = 0; (system = system_at(i)) != NULL; i++)
		if (takes_part(plan, scenario, system, aged))
			return true;
	return false;
}

static void scenario_rows(struct plan *plan, const struct scenario *scenario, bool aged)
{
	unsigned first = plan->results->count, last;
	uint64_t begun = bench_now_ns();
	const struct bench_system *system;

	plan->scenario++;
	for (unsigned i = 0; (system = system_at(i)) != NULL; i++)
		if (takes_part(plan, scenario, system, aged))
			(void)row_new(plan, scenario, system, aged);
	last = plan->results->count;
	for (unsigned i = first; i < last && !interrupted; i++)
		if (row_start(plan, plan->results->rows[i]) != 0)
			row_fail(plan, plan->results->rows[i]);
	for (unsigned number = 0; number <= plan->options->repeats && !interrupted; number++)
		for (unsigned i = first; i < last && !interrupted; i++) {
			struct row *row = plan->results->rows[i];

			if (!row->failed && row->aged && number > 0)
				row_renew(plan, row);
			if (!row->failed)
				row_trial(plan, row, number);
		}
	for (unsigned i = first; i < last; i++)
		row_end(plan->results->rows[i]);
	if (last > first && !interrupted)
		say(plan, "[%u/%u] %-22s %5.1f s: %s\n", plan->scenario, plan->scenarios,
		    plan->results->rows[first]->scenario, (double)(bench_now_ns() - begun) / 1e9,
		    scenario->what);
}

static bool names_scenario(const char *pattern)
{
	char name[80];

	for (unsigned i = 0; i < scenario_count; i++)
		for (int aged = 0; aged <= (scenarios[i].aged ? 1 : 0); aged++) {
			(void)snprintf(name, sizeof(name), "%s%s", scenarios[i].name,
				       aged ? "-aged" : "");
			if (fnmatch(pattern, name, 0) == 0)
				return true;
		}
	return false;
}

static bool names_system(const char *pattern)
{
	const struct bench_system *system;

	for (unsigned i = 0; (system = system_at(i)) != NULL; i++)
		if (fnmatch(pattern, system->name, 0) == 0)
			return true;
	return false;
}

/* A pattern that matches nothing is a typing error, also if others match. */
static bool patterns_name_something(const struct options *options)
{
	for (unsigned i = 0; i < options->only_count; i++)
		if (!names_scenario(options->only[i])) {
			(void)fprintf(stderr,
				      "bench: no scenario is named '%s'; --list has their names\n",
				      options->only[i]);
			return false;
		}
	for (unsigned i = 0; i < options->system_count; i++)
		if (!names_system(options->systems[i])) {
			(void)fprintf(stderr,
				      "bench: no system is named '%s'; --list has their names\n",
				      options->systems[i]);
			return false;
		}
	return true;
}

/* In a virtual machine the first touch of a page is several times slower than later ones: the first
 * system that fills the page cache would be slower than the others. So it is filled once, before
 * any measurement. Errors are ignored: a lack of space is reported later. */
static void memory_touch(const struct plan *plan, unsigned mib)
{
	static char bytes[1 << 20];
	char path[BENCH_PATH_MAX];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/touch", plan->base);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	for (unsigned i = 0; fd >= 0 && i < mib && !interrupted; i++)
		if (write(fd, bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes))
			break;
	if (fd >= 0)
		(void)close(fd);
	(void)unlink(path);
}

int plan_run(const struct options *options, struct results *results)
{
	struct plan plan = {.options = options, .results = results};
	uint64_t start = bench_now_ns();
	char name[80];

	if (!patterns_name_something(options))
		return -1;
	(void)snprintf(plan.base, sizeof(plan.base), "%s/run-%d", options->dir, (int)getpid());
	if (dir_make(options->dir) != 0 || dir_make(plan.base) != 0) {
		(void)fprintf(stderr, "bench: %s\n", bench_last_error());
		return -1;
	}
	if (!options->smoke)
		memory_touch(&plan, options->quick ? 1024 : 4096);
	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < scenario_count; i++)
			for (int aged = 0; aged <= (scenarios[i].aged ? 1 : 0) && !interrupted;
			     aged++) {
				(void)snprintf(name, sizeof(name), "%s%s", scenarios[i].name,
					       aged ? "-aged" : "");
				if (!chosen(options->only, options->only_count, name) ||
				    !anyone(&plan, &scenarios[i], aged != 0))
					continue;
				if (pass == 0)
					plan.scenarios++;
				else
					scenario_rows(&plan, &scenarios[i], aged != 0);
			}
	results->seconds = (double)(bench_now_ns() - start) / 1e9;
	(void)dir_remove(plan.base);
	if (plan.scenarios == 0) {
		(void)fprintf(stderr, "bench: no such scenario, or no such system takes "
				      "part in it; --list has their names\n");
		return -1;
	}
	return 0;
}
