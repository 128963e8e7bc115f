/* SPDX-License-Identifier: Apache-2.0
 * sluice-bench: measures Sluice, the floor and peers with the same load. Wiring only; harness.h has
 * the reading order. */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "dirs.h"
#include "harness.h"

static void on_signal(int signal)
{
	(void)signal;
	interrupted = true;
}

/* Where this program is: BUILD/bench/harness/sluice-bench. */
static bool own_paths(struct options *options, char *bin, char *dir)
{
	char self[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (len <= 0)
		return false;
	self[len] = 0;
	if (options->bin == NULL) {
		(void)snprintf(bin, PATH_MAX, "%s/../..", dirname(self));
		options->bin = bin;
	}
	if (realpath(options->bin, self) == NULL) {
		(void)fprintf(stderr, "sluice-bench: there is no build directory '%s'\n",
			      options->bin);
		return false;
	}
	(void)snprintf(bin, PATH_MAX, "%s", self);
	options->bin = bin;
	if (options->dir == NULL)
		(void)snprintf(dir, PATH_MAX, "%.4000s/bench-data", bin);
	else
		(void)snprintf(dir, PATH_MAX, "%s", options->dir);
	options->dir = dir;
	/* Servers have other working directories. */
	if (dir_make(dir) != 0 || realpath(dir, self) == NULL ||
	    strlen(self) > BENCH_PATH_MAX / 4) {
		(void)fprintf(stderr, "sluice-bench: '%s' cannot be a scratch directory\n", dir);
		return false;
	}
	(void)snprintf(dir, PATH_MAX, "%s", self);
	return true;
}

/* Output for the table: standard error if the JSON is written to standard output. */
static FILE *for_people(const struct options *options)
{
	return options->json != NULL && strcmp(options->json, "-") == 0 ? stderr : stdout;
}

/* Reports an output that cannot be written before the run of a quarter of an hour, not after it. */
static bool outputs_writable(const struct options *options)
{
	struct stat folder;
	FILE *file;

	if (options->svg != NULL &&
	    (dir_make(options->svg) != 0 || stat(options->svg, &folder) != 0 ||
	     !S_ISDIR(folder.st_mode) || access(options->svg, W_OK | X_OK) != 0)) {
		(void)fprintf(stderr,
			      "sluice-bench: --svg '%s': not a directory that can be written to\n",
			      options->svg);
		return false;
	}
	if (options->json == NULL || strcmp(options->json, "-") == 0)
		return true;
	file = fopen(options->json, "ae");
	if (file == NULL) {
		(void)fprintf(stderr, "sluice-bench: --json '%s': %s\n", options->json,
			      strerror(errno));
		return false;
	}
	(void)fclose(file);
	return true;
}

static void heading(const struct options *options, FILE *out)
{
	enum { TMPFS = 0x01021994 };
	struct utsname system;
	struct statfs disk;

	if (uname(&system) == 0)
		(void)fprintf(out, "%s %s, %ld processors, %u repeats of %u ms\n", system.sysname,
			      system.release, sysconf(_SC_NPROCESSORS_ONLN), options->repeats,
			      options->slice_ms);
	if (statfs(options->dir, &disk) == 0 && disk.f_type == TMPFS)
		(void)fprintf(out, "The scratch directory is on a tmpfs, where a sync costs "
				   "nothing: these are not figures of durable systems. "
				   "Choose another with --dir.\n");
	(void)fflush(out);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	static char bin[PATH_MAX], dir[PATH_MAX];
	static struct results results;
	struct options options;
	struct rlimit files;
	int rc = options_parse(&options, argc, argv), failed = 0;

	if (rc != 0)
		return rc == 1 ? 0 : 2;
	if (!own_paths(&options, bin, dir) || !outputs_writable(&options))
		return 2;
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	heading(&options, for_people(&options));
	if (plan_run(&options, &results) != 0)
		return 2;
	if (interrupted) {
		(void)fprintf(stderr, "\nsluice-bench: interrupted; servers are stopped and data "
				      "is removed\n");
		return 130;
	}
	report_table(for_people(&options), &results, &options);
	if (options.json != NULL && report_json(options.json, &results, &options) != 0)
		failed = 1;
	if (options.svg != NULL && report_svg(options.svg, &results) != 0)
		failed = 1;
	if (failed)
		(void)fprintf(stderr, "sluice-bench: %s\n", bench_last_error());
	for (unsigned i = 0; i < results.count; i++) {
		failed |= results.rows[i]->failed;
		free(results.rows[i]);
	}
	return failed;
}
