/* SPDX-License-Identifier: Apache-2.0
 * sluice-replay: options, the main loop, the end. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "replay.h"

enum { JOBS_DEFAULT_KILLS = 30, KILLS_MAX = 10000, STALL_MS_MAX = 60000 };

static void on_signal(int number)
{
	interrupted = number;
}

/* Called by fail(). */
static void stop_all(struct replay *replay)
{
	procs_stop(replay, false);
	jobs_end(replay);
}

static int usage(FILE *to, int code)
{
	(void)fprintf(to,
		      "usage: ./dev run [--trace FILE.swf[.gz]] [--jobs N] [--speedup X] "
		      "[--kill|--kills N] [--seed N] [--plant lost|double|wrong]\n"
		      "Replays a trace of a real supercomputer through Sluice and compares ledger, "
		      "event stream, processes and trace.\n"
		      "  --trace FILE   another trace in the Standard Workload Format (default: "
		      "the excerpt in tests/data/swf or share/sluice)\n"
		      "  --jobs N       only its first N jobs\n"
		      "  --speedup X    how much faster than real (default 5000; gaps end at 100 "
		      "ms, run times at 2 s)\n"
		      "  --kill         SIGKILL broker and scheduler, at least 30 times each, "
		      "meanwhile\n"
		      "  --kills N      the same, at least N times each\n"
		      "  --seed N       the moments of the kills: the seed that an earlier run "
		      "printed\n"
		      "  --plant WHAT   plant a fault, to see that the comparison finds it\n"
		      "  --no-stay      end at once, also on a terminal\n");
	return code;
}

/* ---- options: each stores its value, or returns false ---- */

static bool number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end = NULL;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && *end == 0 && errno == 0 && *ret >= 1 &&
	       *ret <= max;
}

static bool take_trace(struct options *options, const char *value)
{
	options->trace = value;
	return value[0] != 0;
}

static bool take_bin(struct options *options, const char *value)
{
	options->bin = value;
	return value[0] != 0;
}

static bool take_jobs(struct options *options, const char *value)
{
	uint64_t jobs;

	if (!number(value, UINT32_MAX, &jobs))
		return false;
	options->jobs = (size_t)jobs;
	return true;
}

static bool take_speedup(struct options *options, const char *value)
{
	char *end = NULL;

	options->speedup = strtod(value, &end);
	return end != value && *end == 0 && isfinite(options->speedup) && options->speedup > 0;
}

static bool take_kills(struct options *options, const char *value)
{
	uint64_t kills;

	if (!number(value, KILLS_MAX, &kills))
		return false;
	options->kills = (uint32_t)kills;
	options->kill = true;
	return true;
}

static bool take_seed(struct options *options, const char *value)
{
	return number(value, UINT64_MAX, &options->seed);
}

static bool take_plant(struct options *options, const char *value)
{
	static const char *const names[] =
		{[PLANT_LOST] = "lost", [PLANT_DOUBLE] = "double", [PLANT_WRONG] = "wrong"};

	for (int plant = PLANT_LOST; plant <= PLANT_WRONG; plant++) {
		if (strcmp(value, names[plant]) != 0)
			continue;
		options->plant = (enum plant)plant;
		return true;
	}
	return false;
}

static const struct option_row {
	const char *name, *expected;
	bool (*take)(struct options *options, const char *value);
} option_rows[] = {
	{"--trace", "a file in the Standard Workload Format, plain or gzip", take_trace},
	{"--bin", "a build directory, or the prefix of an installation", take_bin},
	{"--jobs", "a number from 1 to 4294967295", take_jobs},
	{"--speedup", "a number above 0, such as 5000 or 0.5", take_speedup},
	{"--kills", "a number from 1 to 10000", take_kills},
	{"--seed", "a number from 1", take_seed},
	{"--plant", "lost, double or wrong", take_plant},
};

/* value is NULL when the line ends with the option. */
static int option_value(struct options *options, const char *option, const char *value)
{
	for (size_t i = 0; i < sizeof(option_rows) / sizeof(option_rows[0]); i++) {
		const struct option_row *row = &option_rows[i];

		if (strcmp(option, row->name) != 0)
			continue;
		if (value != NULL && row->take(options, value))
			return 0;
		if (value == NULL)
			(void)fprintf(stderr, "sluice-replay: %s needs a value; expected %s\n",
				      option, row->expected);
		else
			(void)fprintf(stderr, "sluice-replay: %s is '%s'; expected %s\n", option,
				      value, row->expected);
		return 2;
	}
	(void)fprintf(stderr, "sluice-replay: '%s' is unknown\n", option);
	return usage(stderr, 2);
}

/* Returns -1 to continue, or the exit code. */
static int parse(struct options *options, int argc, char **argv)
{
	*options = (struct options){.speedup = 5000, .kills = JOBS_DEFAULT_KILLS, .stay = true};
	if (getrandom(&options->seed, sizeof(options->seed), 0) != (ssize_t)sizeof(options->seed))
		options->seed = 1;
	options->seed = options->seed % 1000000000 + 1;
	for (int i = 1; i < argc; i++) {
		int rc = 0;

		if (strcmp(argv[i], "--help") == 0)
			return usage(stdout, 0);
		if (strcmp(argv[i], "--kill") == 0) {
			options->kill = true;
		} else if (strcmp(argv[i], "--no-stay") == 0) {
			options->stay = false;
		} else {
			rc = option_value(options, argv[i], i + 1 < argc ? argv[i + 1] : NULL);
			i++;
		}
		if (rc != 0)
			return rc;
	}
	return -1;
}

/* Sets the folder of the programs, its layout, and the trace: --bin names a build directory or the
 * prefix of an installed tree; without it this program is an installed one, in PREFIX/bin. */
static void find_programs(struct replay *replay)
{
	struct options *options = &replay->options;
	char bin[PATH_BYTES], path[PATH_BYTES + 32], *slash;

	(void)snprintf(path, sizeof(path), "%s",
		       options->bin != NULL ? options->bin : replay->self);
	for (int up = 0; options->bin == NULL && up < 2; up++) {
		slash = strrchr(path, '/');
		if (slash != NULL)
			*slash = 0;
	}
	if (realpath(path, bin) == NULL)
		fail(replay,
		     "--bin: %s: %s; expected a build directory or the prefix of an installation",
		     path, strerror(errno));
	(void)snprintf(path, sizeof(path), "%s/bin/sluiced", bin);
	replay->installed = access(path, X_OK) == 0;
	(void)snprintf(path, sizeof(path), "%s/broker/sluiced", bin);
	if (!replay->installed && access(path, X_OK) != 0)
		fail(replay,
		     "--bin: %s has neither bin/sluiced nor broker/sluiced; ./dev run gives the "
		     "build directory",
		     bin);
	options->bin = strdup(bin);
	if (options->trace != NULL)
		(void)snprintf(options->trace_path, sizeof(options->trace_path), "%s",
			       options->trace);
	else if (replay->installed)
		(void)snprintf(options->trace_path, sizeof(options->trace_path),
			       "%.900s/share/sluice/excerpt.swf", bin);
	else
		(void)snprintf(options->trace_path, sizeof(options->trace_path),
			       "tests/data/swf/excerpt.swf");
}

/* A build directory is the caller's own; an installed tree may belong to another user. */
static const char *work_dir(const struct replay *replay)
{
	const char *temporary = getenv("TMPDIR");

	if (!replay->installed)
		return replay->options.bin;
	return temporary != NULL && temporary[0] == '/' ? temporary : "/tmp";
}

static void prepare(struct replay *replay)
{
	struct options *options = &replay->options;
	char why[512];
	ssize_t len = readlink("/proc/self/exe", replay->self, sizeof(replay->self) - 1);

	if (len < 0)
		fail(replay, "readlink: %s", strerror(errno));
	replay->self[len] = 0;
	find_programs(replay);
	if (swf_read(options->trace_path, options->jobs, &replay->swf, why, sizeof(why)) != 0)
		fail(replay, "%s", why);
	(void)snprintf(replay->dir, sizeof(replay->dir), "%.900s/%srun-XXXXXX", work_dir(replay),
		       replay->installed ? "sluice-" : "");
	if (mkdtemp(replay->dir) == NULL)
		fail(replay, "%s: %s", replay->dir, strerror(errno));
	(void)snprintf(replay->data, sizeof(replay->data), "%.1000s/data", replay->dir);
	(void)snprintf(replay->spool, sizeof(replay->spool), "%.1000s/spool", replay->dir);
	(void)snprintf(replay->starts, sizeof(replay->starts), "%.1000s/starts", replay->dir);
	(void)snprintf(replay->log, sizeof(replay->log), "%.1000s/log", replay->dir);
	(void)mkdir(replay->spool, 0700);
	(void)pthread_mutex_init(&replay->lock, NULL);
	replay->tty = isatty(STDOUT_FILENO) == 1;
	plan_make(replay);
	for (size_t i = 0; i < replay->plan_count; i++) {
		if (replay->plans[i].expect != EXPECT_COMPLETE)
			continue;
		memcpy(replay->sample, replay->plans[i].id, sizeof(replay->sample));
		break;
	}
}

static void introduce(const struct replay *replay)
{
	(void)printf("Replaying %zu jobs of %s, %.0f times faster than real%s.\n",
		     replay->plan_count, replay->options.trace_path, replay->options.speedup,
		     replay->options.kill ? ", while broker and scheduler are killed" : "");
	if (replay->options.kill)
		(void)printf("Seed %llu (--seed repeats it).\n",
			     (unsigned long long)replay->options.seed);
	for (int i = 0; i < SWF_NOTICE_COUNT; i++)
		if (replay->swf.notices[i].count > 0)
			(void)printf("Notice: %s (%zu times, first in line %zu).\n",
				     swf_notice_text((enum swf_notice)i),
				     replay->swf.notices[i].count,
				     replay->swf.notices[i].first_line);
}

/* ---- the loop ---- */

static size_t submit_due(struct replay *replay, size_t from, size_t terminal, uint64_t now)
{
	/* Jobs must remain as long as kills remain. */
	size_t limit = replay->plan_count;

	if (replay->options.kill && !chaos_done(replay)) {
		limit = (size_t)((double)replay->plan_count * chaos_share(replay)) + 24;
		/* Only a job reaches a window: if none is under way, the next one must not wait for
		 * kills. */
		if (terminal >= from && limit <= from)
			limit = from + 1;
	}
	for (; from < replay->plan_count && from < limit &&
	       replay->begin_ms + replay->plans[from].at_ms <= now;
	     from++) {
		struct plan *plan = &replay->plans[from];

		if (replay->options.plant == PLANT_LOST && strcmp(plan->id, replay->sample) == 0)
			continue;
		if (!feed_submit(replay, plan))
			break;
	}
	return from;
}

static void submit_again(struct replay *replay)
{
	for (size_t i = 0; i < replay->plan_count; i++) {
		struct plan *plan = &replay->plans[i];
		bool again;

		(void)pthread_mutex_lock(&replay->lock);
		again = plan->submit_failed;
		plan->submit_failed = false;
		(void)pthread_mutex_unlock(&replay->lock);
		if (again && !feed_submit(replay, plan))
			plan->submit_failed = true;
	}
}

static size_t terminal_now(struct replay *replay)
{
	size_t terminal;

	(void)pthread_mutex_lock(&replay->lock);
	terminal = replay->counts.terminal;
	(void)pthread_mutex_unlock(&replay->lock);
	return terminal;
}

static void run_loop(struct replay *replay)
{
	size_t next = 0, seen = 0,
	       wanted = replay->plan_count - (replay->options.plant == PLANT_LOST ? 1 : 0);
	uint64_t moved = mono_ms();

	replay->begin_ms = moved;
	while (!interrupted) {
		uint64_t now = mono_ms();
		size_t terminal = terminal_now(replay);

		if (terminal != seen)
			moved = now;
		seen = terminal;
		if (seen >= wanted && next >= replay->plan_count &&
		    (!replay->options.kill || chaos_done(replay) || chaos_kills_done(replay)))
			break;
		if (now > moved + STALL_MS_MAX) {
			(void)printf("\n"
				     "No progress for %d s. Present state:\n",
				     STALL_MS_MAX / 1000);
			break;
		}
		next = submit_due(replay, next, terminal, now);
		submit_again(replay);
		feed_cancels(replay);
		if (replay->options.kill)
			chaos_turn(replay, now);
		view_progress(replay, false);
		(void)nanosleep(&(struct timespec){0, 5000000}, NULL);
	}
	view_progress(replay, true);
}

/* A second start that the scheduler does not know of. */
static void plant_double(struct replay *replay)
{
	const char *argv[] = {replay->self,   "--job", replay->starts,
			      replay->sample, "1",     "0",
			      "exit",	      "0",     NULL};
	pid_t pid;

	if (replay->options.plant != PLANT_DOUBLE)
		return;
	pid = fork();
	if (pid == 0) {
		(void)execv(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	(void)waitpid(pid, NULL, 0);
}

static uint64_t events_now(struct replay *replay)
{
	uint64_t events;

	(void)pthread_mutex_lock(&replay->lock);
	events = replay->counts.events;
	(void)pthread_mutex_unlock(&replay->lock);
	return events;
}

/* Waits a moment for terminal events that should not come. */
static void settle(struct replay *replay)
{
	uint64_t until = mono_ms() + 300, events = 0;

	while (mono_ms() < until || events != events_now(replay)) {
		events = events_now(replay);
		(void)nanosleep(&(struct timespec){0, 50000000}, NULL);
	}
}

static void stay(struct replay *replay)
{
	const char *folder = replay->installed ? "bin" : "client/cli";

	(void)printf("\n"
		     "The broker runs at %s until Ctrl-C. Try these commands in "
		     "another terminal:\n"
		     "  export SLUICE_ADDRESS=%s\n"
		     "  export PATH=$PATH:%s/%s\n"
		     "  sluice status\n"
		     "  sluice job ls\n"
		     "  sluice job history %s\n"
		     "  sluice follow jobs --from first --count 10\n",
		     replay->address, replay->address, replay->options.bin, folder, replay->sample);
	(void)fflush(stdout);
	while (!interrupted)
		(void)pause();
}

static void clean(struct replay *replay)
{
	char command[PATH_BYTES + 32];

	/* The path is our own mkdtemp. */
	(void)snprintf(command, sizeof(command), "rm -rf -- '%s'", replay->dir);
	if (strchr(replay->dir, '\'') == NULL && system(command) != 0)
		(void)fprintf(stderr, "sluice-replay: %s could not be removed\n", replay->dir);
}

/* Reads the four accounts and compares them; on a terminal the broker then stays up. True: they
 * agree. */
static bool conclude(struct replay *replay)
{
	bool good, stays;

	plant_double(replay);
	settle(replay);
	verify_read(replay);
	good = view_summary(replay);
	view_explain(replay);
	(void)printf("\nTook %.1f s.%s%s\n", (double)(mono_ms() - replay->begin_ms) / 1000,
		     good ? "" : " Files left for inspection: ", good ? "" : replay->dir);
	stays = good && replay->tty && replay->options.stay && !interrupted;
	feed_close(replay);
	procs_stop(replay, stays);
	if (stays) {
		stay(replay);
		procs_stop(replay, false);
	}
	return good;
}

/* An interrupted run has incomplete accounts. */
static void end_interrupted(struct replay *replay)
{
	(void)printf("\nInterrupted: %zu of %zu jobs had ended. Nothing was compared.\n",
		     terminal_now(replay), replay->plan_count);
	if (replay->client != NULL)
		feed_close(replay);
	procs_stop(replay, false);
}

int main(int argc, char **argv)
{
	static struct replay replay = {.stop = stop_all};
	struct sigaction action = {.sa_handler = on_signal};
	bool good = false;
	int code;

	if (argc > 1 && strcmp(argv[1], "--job") == 0)
		return job_main(argc, argv);
	code = parse(&replay.options, argc, argv);
	if (code >= 0)
		return code;
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGHUP, &action, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	prepare(&replay);
	introduce(&replay);
	broker_start(&replay);
	if (!interrupted)
		feed_open(&replay);
	if (!interrupted)
		scheduler_start(&replay, NULL);
	if (!interrupted)
		run_loop(&replay);
	code = interrupted != 0 ? 128 + interrupted : 0;
	if (code != 0)
		end_interrupted(&replay);
	else
		good = conclude(&replay);
	jobs_end(&replay);
	if (good || code != 0)
		clean(&replay);
	swf_free(&replay.swf);
	free(replay.plans);
	return good || code != 0 ? code : 1;
}
