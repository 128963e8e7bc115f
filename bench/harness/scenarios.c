/* SPDX-License-Identifier: Apache-2.0
 * The measurements: one row per scenario in the table at the end. Each runs in the same way for all
 * its systems; a difference between systems belongs in a driver. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dirs.h"
#include "load.h"

enum {
	SMALL_BYTES = 100,
	LARGE_BYTES = 10000,
	RATE = 5000,
	RATE_MS_MIN = 400,
	FOLLOWERS = 10,
	LIFE_COMMANDS = 7, /* submit, claim, intent, four reports */
	FIRST_COUNT =
		20000 /* bodies of the first trial, which determines the number for the next ones */
};

static const struct publish_load one = {BENCH_PUBLISH, 1, 1, SMALL_BYTES};
static const struct publish_load window_1k = {BENCH_PUBLISH, 1000, 1, SMALL_BYTES};
static const struct publish_load window_10k = {BENCH_PUBLISH, 10000, 1, SMALL_BYTES};
static const struct publish_load batches = {BENCH_PUBLISH, 100, 100, SMALL_BYTES};
static const struct publish_load large = {BENCH_PUBLISH, 1000, 1, LARGE_BYTES};
static const struct publish_load put_1k = {BENCH_PUT, 1000, 1, SMALL_BYTES};
static const struct publish_load put_batches = {BENCH_PUT, 100, 100, SMALL_BYTES};
static const struct publish_load paced = {BENCH_PUBLISH, 100000, 1, SMALL_BYTES};

static int run_publish(struct trial *trial)
{
	const struct publish_load *load = trial->scenario->arg;
	int rc = load_publish(trial, load);

	if (strcmp(trial->scenario->unit, "MB/s") == 0)
		trial->sample->value *= (double)load->body_bytes / 1e6;
	return rc;
}

static int run_drain(struct trial *trial)
{
	uint64_t count;
	double seconds;

	if (load_fill(trial, &put_batches, trial->options->preload_max, trial->options->slice_ms,
		      &count) != 0 ||
	    load_read(trial, BENCH_WORK, 1000, SMALL_BYTES, count, &seconds) != 0)
		return -1;
	trial->sample->ops = (double)count;
	trial->sample->value = (double)count / seconds;
	return 0;
}

/* state[0]: bodies per second in the trial before. */
static int run_through(struct trial *trial, const struct publish_load *load, enum bench_role role,
		       unsigned readers)
{
	uint64_t count = FIRST_COUNT;
	double seconds;

	if (trial->state[0] > 0)
		count = (uint64_t)(trial->state[0] * trial->options->slice_ms / 1000);
	if (count < load->window)
		count = load->window;
	if (load_through(trial, load, role, readers, count, &seconds) != 0)
		return -1;
	trial->state[0] = (double)count / seconds;
	trial->sample->ops = (double)count * readers;
	trial->sample->value = trial->sample->ops / seconds;
	return 0;
}

static int run_at_once(struct trial *trial)
{
	return run_through(trial, &put_1k, BENCH_WORK, 1);
}

static int run_fanout(struct trial *trial)
{
	return run_through(trial, &window_1k, BENCH_FOLLOW_NEW, FOLLOWERS);
}

static int run_rate(struct trial *trial)
{
	unsigned ms =
		trial->options->slice_ms > RATE_MS_MIN ? trial->options->slice_ms : RATE_MS_MIN;
	int rc = load_rate(trial, &paced, RATE, ms);

	trial->sample->value = hist_percentile_us(trial->sample->hist, 0.5);
	return rc;
}

/* state[0]: events that are stored. */
static int run_follow(struct trial *trial)
{
	uint64_t count = (uint64_t)trial->state[0];
	double seconds;

	if (count == 0 && load_fill(trial, &batches, trial->options->preload_max,
				    2 * trial->options->slice_ms, &count) != 0)
		return -1;
	trial->state[0] = (double)count;
	if (load_read(trial, BENCH_FOLLOW_ALL, 20000, SMALL_BYTES, count, &seconds) != 0)
		return -1;
	trial->sample->ops = (double)count;
	trial->sample->value = (double)count / seconds;
	return 0;
}

struct jobs_meter {
	struct trial *trial;
	struct meter meter;
};

static void jobs_started(void *user)
{
	struct jobs_meter *jobs = user;

	meter_start(&jobs->meter, &jobs->trial->server);
}

static void jobs_stopped(void *user)
{
	struct jobs_meter *jobs = user;

	meter_stop(&jobs->meter, jobs->trial->sample);
}

/* Systems without jobs store as many records as a life has commands. */
static int run_jobs(struct trial *trial)
{
	struct publish_load records = window_1k;
	struct jobs_meter jobs = {.trial = trial};
	struct bench_jobs_spec spec = {.active = trial->options->jobs_active,
				       .lives = trial->options->job_lives,
				       .warm = trial->options->job_warm,
				       .payload_bytes = SMALL_BYTES,
				       .started = jobs_started,
				       .stopped = jobs_stopped,
				       .user = &jobs};
	struct bench_jobs_result result = {0};

	if (trial->system->driver->jobs == NULL) {
		records.window = spec.active;
		if (load_publish(trial, &records) != 0)
			return -1;
		trial->sample->value /= LIFE_COMMANDS;
		trial->sample->ops /= LIFE_COMMANDS;
		return 0;
	}
	if (trial->system->driver->jobs(&trial->server, &spec, &result) != 0)
		return -1;
	if (result.events != result.events_expected)
		return bench_error("%llu job events arrived; expected %llu",
				   (unsigned long long)result.events,
				   (unsigned long long)result.events_expected);
	trial->sample->ops = (double)result.lives;
	trial->sample->value = (double)result.lives / result.seconds;
	return 0;
}

/* ---- those that start their server themselves ---- */

static int start(struct trial *trial)
{
	return trial->system->driver->start(trial->system, &trial->spec, &trial->server);
}

static int prepare(struct trial *trial, enum bench_role role, const char *name)
{
	return trial->system->driver->prepare(&trial->server, role, name);
}

static int run_idle(struct trial *trial)
{
	int *fds = NULL;

	trial->spec.conns = trial->options->idle + 100;
	if (dir_empty(trial->spec.dir) != 0 || start(trial) != 0)
		return -1;
	/* The peak includes the hellos; the reported figure is the lasting memory. */
	peak_start(trial->server.pid);
	if (trial->system->driver->idle(&trial->server, trial->options->idle, &fds) != 0)
		return -1;
	trial->sample->value = rss_anon_bytes(trial->server.pid) / 1e6;
	trial->sample->rss_anon = peak_stop();
	for (unsigned i = 0; i < trial->options->idle; i++)
		(void)close(fds[i]);
	free(fds);
	bench_stop(&trial->server, SIGTERM);
	return 0;
}

static int timed_start(struct trial *trial)
{
	uint64_t before = bench_now_ns();

	if (start(trial) != 0)
		return -1;
	trial->sample->value = (double)(bench_now_ns() - before) / 1e6;
	return 0;
}

static int run_start_empty(struct trial *trial)
{
	if (dir_empty(trial->spec.dir) != 0 || timed_start(trial) != 0)
		return -1;
	trial->sample->rss_anon = rss_anon_bytes(trial->server.pid);
	bench_stop(&trial->server, SIGTERM);
	return 0;
}

/* state[0]: events that are stored. */
static int run_start_stored(struct trial *trial)
{
	uint64_t count = 0;
	double seconds;

	if (trial->state[0] <= 0) {
		if (start(trial) != 0 || prepare(trial, BENCH_PUBLISH, BENCH_STREAM) != 0 ||
		    load_fill(trial, &batches, trial->options->stored, 600000, &count) != 0)
			return -1;
		bench_stop(&trial->server, SIGTERM);
		if (count < trial->options->stored)
			return bench_error("only %llu events could be stored in time",
					   (unsigned long long)count);
		trial->state[0] = (double)count;
	}
	if (timed_start(trial) != 0)
		return -1;
	trial->sample->rss_anon = rss_anon_bytes(trial->server.pid);
	/* A server is ready when it serves the stored records. */
	if (load_read(trial, BENCH_FOLLOW_ALL, 1000, SMALL_BYTES, 1000, &seconds) != 0)
		return -1;
	bench_stop(&trial->server, SIGTERM);
	return 0;
}

/* state[0]: waiting items. */
static int run_restart(struct trial *trial)
{
	uint64_t count = 0, before;
	double seconds;

	if (trial->server.pid == 0) {
		if (start(trial) != 0 || prepare(trial, BENCH_PUT, BENCH_QUEUE) != 0 ||
		    load_fill(trial, &put_batches, trial->options->preload_max,
			      2 * trial->options->slice_ms, &count) != 0)
			return -1;
		trial->state[0] = (double)count;
	}
	bench_stop(&trial->server, SIGKILL);
	before = bench_now_ns();
	if (start(trial) != 0 || load_read(trial, BENCH_WORK, 1, SMALL_BYTES, 1, &seconds) != 0)
		return -1;
	trial->sample->value = (double)(bench_now_ns() - before) / 1e6;
	trial->sample->rss_anon = rss_anon_bytes(trial->server.pid);
	return 0;
}

#define PEERS "sluice floor-record redis-always redis-everysec"

const struct scenario scenarios[] = {
	{.name = "publish-1",
	 .what = "one event of 100 bytes in flight; floor: a commit and a ping-pong, one after the "
		 "other",
	 .unit = "events/s",
	 .systems = "sluice floor-commit floor-echo floor-record redis-always redis-everysec",
	 .floor = "floor-commit+floor-echo",
	 .run = run_publish,
	 .arg = &one,
	 .floor_ratio = 1 / 1.5},
	{.name = "publish-1k",
	 .what = "1,000 events of 100 bytes in flight",
	 .unit = "events/s",
	 .systems = PEERS,
	 .floor = "floor-record",
	 .aged = true,
	 .run = run_publish,
	 .arg = &window_1k,
	 .floor_ratio = 0.5,
	 .peer_ratio = 3,
	 .peer = "redis-always"},
	{.name = "publish-10k",
	 .what = "10,000 events of 100 bytes in flight",
	 .unit = "events/s",
	 .systems = PEERS,
	 .floor = "floor-record",
	 .aged = true,
	 .run = run_publish,
	 .arg = &window_10k,
	 .floor_ratio = 0.5,
	 .peer_ratio = 3,
	 .peer = "redis-always"},
	{.name = "publish-batch100",
	 .what = "100 batches of 100 events of 100 bytes in flight",
	 .unit = "events/s",
	 .systems = "sluice floor-segment floor-record redis-always redis-everysec",
	 .floor = "floor-segment",
	 .aged = true,
	 .run = run_publish,
	 .arg = &batches,
	 .floor_ratio = 0.4},
	{.name = "publish-10kb",
	 .what = "1,000 events of 10 KB in flight",
	 .unit = "MB/s",
	 .systems = PEERS,
	 .floor = "floor-record",
	 .aged = true,
	 .run = run_publish,
	 .arg = &large,
	 .floor_ratio = 0.5},
	{.name = "queue-drain",
	 .what = "a queue filled before: claim and ack, 1,000 held",
	 .unit = "items/s",
	 .systems = PEERS,
	 .floor = "floor-record",
	 .queue = true,
	 .aged = true,
	 .run = run_drain},
	{.name = "queue-at-once",
	 .what = "put, claim and ack at once, through one connection each, 1,000 in flight and "
		 "held",
	 .unit = "items/s",
	 .systems = PEERS,
	 .floor = "floor-record",
	 .queue = true,
	 .aged = true,
	 .run = run_at_once,
	 .absolute = 300000,
	 .peer_ratio = 2,
	 .peer = "redis-always"},
	{.name = "latency-5k",
	 .what = "p50 from the time an event was to be sent to its follower, at 5,000 a second",
	 .unit = "us",
	 .systems = "sluice floor-record floor-commit floor-echo redis-always redis-everysec",
	 .floor = "floor-record",
	 .lower = true,
	 .aged = true,
	 .run = run_rate,
	 .p50_ratio = 2,
	 .p99_ratio = 4},
	{.name = "follow",
	 .what = "a stream from its first event, published in batches of 100",
	 .unit = "events/s",
	 .systems = "sluice floor-segment floor-record redis-always",
	 .floor = "floor-segment",
	 .aged = true,
	 .stored = true,
	 .run = run_follow},
	{.name = "fanout-10",
	 .what = "one publisher, 1,000 in flight, ten followers with a connection each",
	 .unit = "deliveries/s",
	 .systems = PEERS,
	 .floor = "floor-record",
	 .run = run_fanout},
	{.name = "jobs",
	 .what = "full job lives: submit, claim, intent, QUEUED, ACTIVE, SUSPENDED, COMPLETE; "
		 "floor: seven records a life",
	 .unit = "lives/s",
	 .systems = "sluice floor-record",
	 .floor = "floor-record",
	 .aged = true,
	 .run = run_jobs,
	 .absolute = 10000},
	{.name = "idle",
	 .what = "anonymous memory of the server with idle connections",
	 .unit = "MB",
	 .systems = "sluice floor-record redis-always",
	 .floor = "floor-record",
	 .lower = true,
	 .own_server = true,
	 .run = run_idle,
	 .absolute = 150},
	{.name = "start-empty",
	 .what = "from exec to ready, with no data",
	 .unit = "ms",
	 .systems = "sluice floor-record redis-always",
	 .floor = "floor-record",
	 .lower = true,
	 .own_server = true,
	 .run = run_start_empty,
	 .absolute = 50},
	{.name = "start-stored",
	 .what = "from exec to ready, with stored events",
	 .unit = "ms",
	 .systems = "sluice floor-record redis-always",
	 .floor = "floor-record",
	 .lower = true,
	 .own_server = true,
	 .slow_peers = true,
	 .run = run_start_stored,
	 .absolute = 1000},
	{.name = "restart-kill",
	 .what = "from exec, after SIGKILL with a backlog, to the first item acked",
	 .unit = "ms",
	 .systems = "sluice floor-record redis-always",
	 .floor = "floor-record",
	 .lower = true,
	 .own_server = true,
	 .run = run_restart},
};
const unsigned scenario_count = sizeof(scenarios) / sizeof(scenarios[0]);
