/* SPDX-License-Identifier: Apache-2.0
 * Command line of sluice-floor: one table of numbers with bounds; the other options
 * individually. */
#include "floor.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum option_code {
	OPT_QUICK = 1000,
	OPT_ONLY,
	OPT_DIR,
	OPT_JSON,
	OPT_DURABILITY,
	OPT_REPEATS,
	OPT_SLICE,
	OPT_BACKLOG,
	OPT_RECORDS,
	OPT_TURNOVER,
	OPT_AGE,
	OPT_LIST,
	OPT_HELP,
};

static const struct option long_options[] = {
	{"quick", no_argument, NULL, OPT_QUICK},
	{"only", required_argument, NULL, OPT_ONLY},
	{"dir", required_argument, NULL, OPT_DIR},
	{"json", required_argument, NULL, OPT_JSON},
	{"durability", required_argument, NULL, OPT_DURABILITY},
	{"repeats", required_argument, NULL, OPT_REPEATS},
	{"slice", required_argument, NULL, OPT_SLICE},
	{"backlog", required_argument, NULL, OPT_BACKLOG},
	{"records", required_argument, NULL, OPT_RECORDS},
	{"turnover", required_argument, NULL, OPT_TURNOVER},
	{"age", required_argument, NULL, OPT_AGE},
	{"list", no_argument, NULL, OPT_LIST},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0},
};

/* A number's bounds and its defaults, long and --quick. */
struct number {
	enum option_code code;
	const char *name;
	uint64_t min, max, value, quick_value;
};

enum {
	NUMBER_REPEATS,
	NUMBER_SLICE,
	NUMBER_BACKLOG,
	NUMBER_RECORDS,
	NUMBER_TURNOVER,
	NUMBER_AGE,
	NUMBER_COUNT
};

static const struct number numbers[NUMBER_COUNT] = {
	[NUMBER_REPEATS] = {OPT_REPEATS, "repeats", 1, FLOOR_REPEATS_MAX, 3, 3},
	[NUMBER_SLICE] = {OPT_SLICE, "slice", 10, 60000, 200, 40},
	[NUMBER_BACKLOG] = {OPT_BACKLOG, "backlog", 1000, 50000000, 1000000, 50000},
	[NUMBER_RECORDS] = {OPT_RECORDS, "records", 1000, 20000000, 1000000, 50000},
	[NUMBER_TURNOVER] = {OPT_TURNOVER, "turnover", 2, 10000, 16, 4},
	[NUMBER_AGE] = {OPT_AGE, "age", 100, 100000, 400, 200},
};

void floor_options_usage(void)
{
	printf("sluice-floor: what bare LMDB costs for the layouts that Sluice could use\n\n"
	       "  --quick            small tables and short slices\n"
	       "  --only NAME        a scenario, a family or a shell pattern; may be repeated\n"
	       "  --list             the scenarios\n"
	       "  --dir DIR          parent of the scratch files (default: TMPDIR, or beside the "
	       "program)\n"
	       "  --json FILE        the same results for programs\n"
	       "  --durability WHAT  sync (default), or none: the processor's share without the "
	       "disk's\n");
	static const char *const help[NUMBER_COUNT] = {
		[NUMBER_REPEATS] = "repeats of each scenario",
		[NUMBER_SLICE] = "ms of one repeat",
		[NUMBER_BACKLOG] = "items waiting in the queue scenarios with a backlog",
		[NUMBER_RECORDS] = "rows of the large ledger and name tables",
		[NUMBER_TURNOVER] = "times that the values scenarios replace all live items",
		[NUMBER_AGE] = "transactions of churn that age a store",
	};
	for (size_t i = 0; i < NUMBER_COUNT; i++)
		printf("  --%-8s N       %s: %llu to %llu (default %llu, quick %llu)\n",
		       numbers[i].name, help[i], (unsigned long long)numbers[i].min,
		       (unsigned long long)numbers[i].max, (unsigned long long)numbers[i].value,
		       (unsigned long long)numbers[i].quick_value);
}

static int parse_number(const struct number *number, const char *text, uint64_t *ret)
{
	char *end;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || v < number->min || v > number->max) {
		fprintf(stderr, "sluice-floor: --%s %s: want a whole number from %llu to %llu\n",
			number->name, text, (unsigned long long)number->min,
			(unsigned long long)number->max);
		return 2;
	}
	*ret = v;
	return 0;
}

static int parse_durability(struct floor_options *opt, const char *text)
{
	if (strcmp(text, "sync") != 0 && strcmp(text, "none") != 0) {
		fprintf(stderr, "sluice-floor: --durability %s: want sync or none\n", text);
		return 2;
	}
	opt->sync = strcmp(text, "sync") == 0;
	return 0;
}

static int parse_only(struct floor_options *opt, const char *text)
{
	if (opt->only_count == FLOOR_ONLY_MAX) {
		fprintf(stderr, "sluice-floor: --only: at most %d times\n", FLOOR_ONLY_MAX);
		return 2;
	}
	opt->only[opt->only_count++] = text;
	return 0;
}

/* One option; given[] has 0 where the default holds (no bound admits 0). */
static int parse_option(struct floor_options *opt, int code, const char *text,
			uint64_t given[NUMBER_COUNT])
{
	switch (code) {
	case OPT_QUICK:
		opt->quick = true;
		return 0;
	case OPT_LIST:
		opt->list = true;
		return 0;
	case OPT_HELP:
		opt->help = true;
		return 0;
	case OPT_DIR:
		opt->dir = text;
		return 0;
	case OPT_JSON:
		opt->json_path = text;
		return 0;
	case OPT_ONLY:
		return parse_only(opt, text);
	case OPT_DURABILITY:
		return parse_durability(opt, text);
	default:
		for (size_t i = 0; i < NUMBER_COUNT; i++) {
			if ((int)numbers[i].code == code)
				return parse_number(&numbers[i], text, &given[i]);
		}
		/* getopt_long has printed the error. */
		fprintf(stderr, "sluice-floor: --help lists the options\n");
		return 2;
	}
}

int floor_options_parse(struct floor_options *ret, int argc, char **argv)
{
	struct floor_options opt = {.sync = true};
	uint64_t given[NUMBER_COUNT] = {0};
	int code;

	while ((code = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		int rc = parse_option(&opt, code, optarg, given);
		if (rc)
			return rc;
	}
	if (optind < argc) {
		fprintf(stderr,
			"sluice-floor: %s: no argument is expected; --help lists the options\n",
			argv[optind]);
		return 2;
	}
	for (size_t i = 0; i < NUMBER_COUNT; i++) {
		if (!given[i])
			given[i] = opt.quick ? numbers[i].quick_value : numbers[i].value;
	}
	opt.repeats = (unsigned)given[NUMBER_REPEATS];
	opt.slice_ms = (unsigned)given[NUMBER_SLICE];
	opt.backlog = given[NUMBER_BACKLOG];
	opt.records = given[NUMBER_RECORDS];
	opt.turnover = given[NUMBER_TURNOVER];
	opt.age_rounds = given[NUMBER_AGE];
	*ret = opt;
	return 0;
}
