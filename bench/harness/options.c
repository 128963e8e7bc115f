/* SPDX-License-Identifier: Apache-2.0
 * The command line, and the meaning of --quick. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

static const char usage[] =
	"usage: sluice-bench [OPTIONS]\n"
	"\n"
	"Measures Sluice, the baseline (bare LMDB) and peers, all with the same load, in one run "
	"on this machine.\n"
	"\n"
	"  --quick            short slices and small backlogs; about 3 minutes (all: about "
	"15)\n"
	"  --only SCENARIO    only this one; a shell pattern; may be repeated\n"
	"  --system SYSTEM    only this one; a shell pattern; may be repeated\n"
	"  --json FILE        all results and runs, as an array of objects ('-': standard output, "
	"and the table on standard error)\n"
	"  --svg DIR          a picture (SVG) of each scenario\n"
	"  --repeats N        measured repeats of each (5 to 100; default 5)\n"
	"  --slice MS         measured time of a timed repeat (default 1000; quick: 200)\n"
	"  --stored N         events of start-stored (default 10000000)\n"
	"  --idle N           connections of idle (default 10000)\n"
	"  --active N         jobs that are under way at once (default 5000)\n"
	"  --dir DIR          the disk that is measured: scratch data, removed at the end "
	"(default: bench-data in the build)\n"
	"  --bin DIR          the build directory (default: where this program is)\n"
	"  --list             scenarios and systems\n"
	"\n"
	"Exit codes: 0, 1 (something could not be measured; it is named), 2 (bad option).\n";

enum { OPT_SYSTEM = 256, OPT_REPEATS, OPT_SLICE, OPT_STORED, OPT_IDLE, OPT_ACTIVE };

static const struct option table[] = {
	{"quick", no_argument, NULL, 'q'},
	{"only", required_argument, NULL, 'o'},
	{"system", required_argument, NULL, OPT_SYSTEM},
	{"json", required_argument, NULL, 'j'},
	{"svg", required_argument, NULL, 's'},
	{"repeats", required_argument, NULL, OPT_REPEATS},
	{"slice", required_argument, NULL, OPT_SLICE},
	{"stored", required_argument, NULL, OPT_STORED},
	{"idle", required_argument, NULL, OPT_IDLE},
	{"active", required_argument, NULL, OPT_ACTIVE},
	{"dir", required_argument, NULL, 'd'},
	{"bin", required_argument, NULL, 'b'},
	{"list", no_argument, NULL, 'l'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static bool number(const char *name, const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (errno == 0 && *text >= '0' && *text <= '9' && *end == 0 && *ret >= min && *ret <= max)
		return true;
	(void)fprintf(stderr, "sluice-bench: --%s '%s': expected a number from %llu to %llu\n",
		      name, text, (unsigned long long)min, (unsigned long long)max);
	return false;
}

static bool pattern(const char **list, unsigned *count, const char *text)
{
	if (*count == PATTERNS_MAX) {
		(void)fprintf(stderr, "sluice-bench: more than %d patterns\n", PATTERNS_MAX);
		return false;
	}
	list[(*count)++] = text;
	return true;
}

static bool one_number(struct options *options, int option)
{
	uint64_t value;

	switch (option) {
	case OPT_REPEATS:
		/* Fewer than five give no range; allowed in a smoke test of the program itself. */
		if (!number("repeats", optarg, options->smoke ? 1 : 5, REPEATS_MAX, &value))
			return false;
		options->repeats = (unsigned)value;
		return true;
	case OPT_SLICE:
		if (!number("slice", optarg, 10, 60000, &value))
			return false;
		options->slice_ms = (unsigned)value;
		return true;
	case OPT_STORED:
		return number("stored", optarg, 1000, 1000000000, &options->stored);
	case OPT_IDLE:
		if (!number("idle", optarg, 1, 18000, &value))
			return false;
		options->idle = (unsigned)value;
		return true;
	default:
		if (!number("active", optarg, 1, 100000, &value))
			return false;
		options->jobs_active = (unsigned)value;
		return true;
	}
}

static void list(void)
{
	const struct bench_system *system;

	(void)printf("scenarios (those marked * also on an aged store, NAME-aged):\n");
	for (unsigned i = 0; i < scenario_count; i++)
		(void)printf("  %-18s%s %s, %s\n", scenarios[i].name, scenarios[i].aged ? "*" : " ",
			     scenarios[i].what, scenarios[i].unit);
	(void)printf("systems:\n");
	for (unsigned i = 0; (system = system_at(i)) != NULL; i++)
		(void)printf("  %-18s  %s (%s)\n", system->name, system->what, system->durability);
}

int options_parse(struct options *options, int argc, char **argv)
{
	int option;

	*options = (struct options){.repeats = 5,
				    .stored = STORED_DEFAULT,
				    .idle = IDLE_DEFAULT,
				    .jobs_active = ACTIVE_DEFAULT};
	options->smoke = getenv("SLUICE_BENCH_SMOKE") != NULL;
	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
		bool ok = true;

		switch (option) {
		case 'q':
			options->quick = true;
			break;
		case 'o':
			ok = pattern(options->only, &options->only_count, optarg);
			break;
		case OPT_SYSTEM:
			ok = pattern(options->systems, &options->system_count, optarg);
			break;
		case 'j':
			options->json = optarg;
			break;
		case 's':
			options->svg = optarg;
			break;
		case 'd':
			options->dir = optarg;
			break;
		case 'b':
			options->bin = optarg;
			break;
		case 'l':
			options->list = true;
			break;
		case 'h':
			(void)fputs(usage, stdout);
			return 1;
		case '?':
			return 2;
		default:
			ok = one_number(options, option);
		}
		if (!ok)
			return 2;
	}
	if (optind < argc) {
		(void)fprintf(stderr, "sluice-bench: '%s' is not an option; --help lists them\n",
			      argv[optind]);
		return 2;
	}
	if (options->list) {
		list();
		return 1;
	}
	if (options->slice_ms == 0)
		options->slice_ms = options->quick ? 200 : 1000;
	options->warm_ms = options->slice_ms / 4;
	options->preload_max = options->quick ? 300000 : 2000000;
	options->job_warm = options->quick ? options->jobs_active : 2 * options->jobs_active;
	options->job_lives = options->quick ? 4 * options->jobs_active : 8 * options->jobs_active;
	return 0;
}
