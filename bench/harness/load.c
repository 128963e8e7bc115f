/* SPDX-License-Identifier: Apache-2.0
 *
 * Load generation, the same for every system. One thread publishes and one reads, each with
 * connections of its own.
 *
 * Closed loop: units are sent in bursts of at most BURST_BODIES bodies while the window has room,
 * and answers are read between bursts, so that a server has work before a large window is full.
 * Stamps are taken once per burst: reading the clock for each body would be a tenth of the load's
 * own cost. Open loop: each unit has a scheduled time, and its latency counts from there, whatever
 * delayed it: if a server stalls, the delay of the units that wait counts, too.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "load.h"

enum { STALL_MS_MAX = 30000 };

int pump_open(struct pump *pump, struct trial *trial, const struct publish_load *load,
	      unsigned stamps)
{
	struct bench_conn_spec spec = {.role = load->role,
				       .name = load->role == BENCH_PUT ? BENCH_QUEUE : BENCH_STREAM,
				       .batch = load->batch,
				       .body_bytes = load->body_bytes,
				       .window = load->window};

	*pump = (struct pump){.driver = trial->system->driver, .load = load, .stamp_count = stamps};
	pump->stamps = calloc(stamps, sizeof(*pump->stamps));
	pump->unit = malloc(load->batch * load->body_bytes);
	if (pump->stamps == NULL || pump->unit == NULL)
		return bench_error("out of memory");
	/* No repetition within a body, which a system could compress. Units that are equal except
	 * for their stamps would favour a system that compresses; no driver here does. */
	for (size_t i = 0; i < load->batch * load->body_bytes; i++)
		pump->unit[i] = (uint8_t)((i * 2654435761u) >> 13);
	return pump->driver->open(&trial->server, &spec, &pump->conn);
}

void pump_close(struct pump *pump)
{
	pump->driver->close(pump->conn);
	free(pump->stamps);
	free(pump->unit);
}

int pump_send(struct pump *pump, unsigned units, uint64_t stamp_ns)
{
	struct stamp *stamp = &pump->stamps[pump->stamp_head++ % pump->stamp_count];

	stamp->ns = stamp_ns;
	stamp->units = units;
	for (unsigned b = 0; b < pump->load->batch; b++)
		memcpy(pump->unit + b * pump->load->body_bytes, &stamp_ns, sizeof(stamp_ns));
	for (unsigned i = 0; i < units; i++)
		if (pump->driver->send(pump->conn, pump->unit) != 0)
			return -1;
	pump->inflight += units;
	pump->sent += units;
	return 0;
}

int pump_take(struct pump *pump, int timeout_us)
{
	struct bench_progress progress = {0};
	uint64_t now, left;

	if (pump->driver->poll(pump->conn, timeout_us, &progress) != 0)
		return -1;
	if (progress.answered == 0)
		return 0;
	if (progress.answered > pump->inflight)
		return bench_error("%llu answers for %llu units",
				   (unsigned long long)progress.answered,
				   (unsigned long long)pump->inflight);
	now = bench_now_ns();
	pump->inflight -= progress.answered;
	pump->answered += progress.answered;
	pump->answered_ns = now;
	for (left = progress.answered; left > 0;) {
		struct stamp *stamp = &pump->stamps[pump->stamp_tail % pump->stamp_count];
		uint64_t units = stamp->units < left ? stamp->units : left;

		if (pump->hist != NULL)
			hist_add(pump->hist, now - stamp->ns, units);
		stamp->units -= units;
		left -= units;
		if (stamp->units == 0)
			pump->stamp_tail++;
	}
	return 0;
}

int pump_drain(struct pump *pump)
{
	uint64_t until = bench_now_ns() + STALL_MS_MAX * 1000000ull, seen = pump->answered;

	while (pump->inflight > 0) {
		if (interrupted)
			return bench_error("interrupted");
		if (pump_take(pump, 100000) != 0)
			return -1;
		if (pump->answered != seen) {
			seen = pump->answered;
			until = bench_now_ns() + STALL_MS_MAX * 1000000ull;
		} else if (bench_now_ns() > until) {
			return bench_error("no answer for %d s, with %llu units in flight",
					   STALL_MS_MAX / 1000, (unsigned long long)pump->inflight);
		}
	}
	return 0;
}

/* One turn of the closed loop. */
static int pump_turn(struct pump *pump, uint64_t units_left)
{
	uint64_t room = pump->load->window - pump->inflight,
		 burst = BURST_BODIES / pump->load->batch > 0 ? BURST_BODIES / pump->load->batch
							      : 1;

	room = room < burst ? room : burst;
	room = room < units_left ? room : units_left;
	if (room > 0 && pump_send(pump, (unsigned)room, bench_now_ns()) != 0)
		return -1;
	if (pump->inflight == pump->load->window) {
		uint64_t before = pump->answered, since = bench_now_ns();

		while (pump->answered == before) {
			if (interrupted)
				return bench_error("interrupted");
			if (pump_take(pump, 100000) != 0)
				return -1;
			if (bench_now_ns() - since > STALL_MS_MAX * 1000000ull)
				return bench_error("no answer for %d s, with a full window of %u",
						   STALL_MS_MAX / 1000, pump->load->window);
		}
		return 0;
	}
	return pump_take(pump, 0);
}

static int publish_timed(struct pump *pump, struct trial *trial)
{
	const struct options *options = trial->options;
	struct meter meter;
	uint64_t start, end, before;

	for (end = bench_now_ns() + options->warm_ms * 1000000ull;
	     bench_now_ns() < end || pump->answered == 0;)
		if (pump_turn(pump, UINT64_MAX) != 0)
			return -1;
	pump->hist = trial->sample->hist;
	/* The measurement begins and ends at an answer: the units sent before the clock started
	 * equal those left in the window at its end. */
	before = pump->answered;
	start = pump->answered_ns;
	meter_start(&meter, &trial->server);
	for (end = start + options->slice_ms * 1000000ull; pump->answered_ns < end;)
		if (pump_turn(pump, UINT64_MAX) != 0)
			return -1;
	meter_stop(&meter, trial->sample);
	pump->hist = NULL;
	trial->sample->ops = (double)(pump->answered - before) * pump->load->batch;
	trial->sample->value = trial->sample->ops * 1e9 / (double)(pump->answered_ns - start);
	return pump_drain(pump);
}

int load_publish(struct trial *trial, const struct publish_load *load)
{
	struct pump pump;
	int rc = pump_open(&pump, trial, load, load->window + 1);

	if (rc == 0)
		rc = publish_timed(&pump, trial);
	pump_close(&pump);
	return rc;
}

int load_fill(struct trial *trial, const struct publish_load *load, uint64_t bodies, unsigned ms,
	      uint64_t *ret)
{
	uint64_t units = (bodies + load->batch - 1) / load->batch,
		 end = bench_now_ns() + ms * 1000000ull;
	struct pump pump;
	int rc = pump_open(&pump, trial, load, load->window + 1);

	while (rc == 0 && pump.sent < units && bench_now_ns() < end)
		rc = pump_turn(&pump, units - pump.sent);
	if (rc == 0)
		rc = pump_drain(&pump);
	*ret = pump.answered * load->batch;
	pump_close(&pump);
	return rc;
}

/* ---- reading ---- */

void reader_body(void *user, const void *body, size_t len)
{
	struct reader *reader = user;
	uint64_t stamp;

	if (reader->hist == NULL || len < sizeof(stamp))
		return;
	memcpy(&stamp, body, sizeof(stamp));
	/* Bodies of one poll share one read of the clock; a body with a later stamp is counted
	 * nevertheless. */
	if (reader->now_ns <= stamp)
		reader->now_ns = bench_now_ns();
	hist_add(reader->hist, reader->now_ns - stamp, 1);
}

int reader_open(struct reader *reader, struct trial *trial, enum bench_role role, unsigned window,
		size_t body_bytes)
{
	struct bench_conn_spec spec = {.role = role,
				       .name = role == BENCH_WORK ? BENCH_QUEUE : BENCH_STREAM,
				       .batch = 1,
				       .body_bytes = body_bytes,
				       .window = window,
				       .on_body = reader_body,
				       .user = reader};

	*reader = (struct reader){.driver = trial->system->driver,
				  .role = role,
				  .hist = reader->hist};
	return reader->driver->open(&trial->server, &spec, &reader->conn);
}

int reader_take(struct reader *reader, int timeout_us)
{
	reader->now_ns = 0;
	return reader->driver->poll(reader->conn, timeout_us, &reader->progress);
}

/* Whether all bodies have been received, and items acked. */
static int reader_done(struct reader *reader, uint64_t count, bool *ret)
{
	uint64_t settled = reader->progress.settled;

	*ret = false;
	if (reader->progress.received < count)
		return 0;
	if (reader->role == BENCH_WORK && reader->driver->settled != NULL) {
		if (reader->driver->settled(reader->conn, &settled) != 0)
			return -1;
	}
	*ret = reader->role != BENCH_WORK || settled >= count;
	return 0;
}

/* Receives on one connection until it has `count` bodies. */
static int reader_run(struct reader *reader, uint64_t count, const atomic_bool *ends)
{
	uint64_t seen = 0, since = bench_now_ns();
	bool done = false;

	while (!done) {
		if (reader_take(reader, reader->progress.received >= count ? 500 : 50000) != 0 ||
		    reader_done(reader, count, &done) != 0)
			return -1;
		if (interrupted || (ends != NULL && atomic_load(ends)))
			return bench_error("interrupted");
		if (reader->progress.received + reader->progress.settled != seen) {
			seen = reader->progress.received + reader->progress.settled;
			since = bench_now_ns();
		} else if (bench_now_ns() - since > STALL_MS_MAX * 1000000ull) {
			return bench_error("nothing arrived for %d s; %llu of %llu bodies were "
					   "received",
					   STALL_MS_MAX / 1000,
					   (unsigned long long)reader->progress.received,
					   (unsigned long long)count);
		}
	}
	reader->done_ns = bench_now_ns();
	return 0;
}

int load_read(struct trial *trial, enum bench_role role, unsigned window, size_t body_bytes,
	      uint64_t count, double *ret_s)
{
	struct reader reader = {0};
	struct meter meter;
	uint64_t start;
	int rc;

	meter_start(&meter, &trial->server);
	start = bench_now_ns();
	rc = reader_open(&reader, trial, role, window, body_bytes);
	if (rc == 0)
		rc = reader_run(&reader, count, NULL);
	meter_stop(&meter, trial->sample);
	*ret_s = (double)(reader.done_ns - start) / 1e9;
	reader.driver->close(reader.conn);
	return rc;
}

/* ---- both at once ---- */

struct crew {
	struct reader *readers;
	unsigned count;
	uint64_t each; /* bodies that each must receive */
	atomic_bool ends;
	int rc;
	char error[512];
};

static int crew_many(struct crew *crew)
{
	struct pollfd fds[READERS_MAX];
	uint64_t since = bench_now_ns();
	unsigned left = crew->count;

	for (unsigned i = 0; i < crew->count; i++)
		fds[i] = (struct pollfd){.fd = crew->readers[i].driver->fd(crew->readers[i].conn),
					 .events = POLLIN};
	while (left > 0) {
		if (atomic_load(&crew->ends) || interrupted)
			return bench_error("interrupted");
		if (poll(fds, crew->count, 100) <= 0) {
			if (bench_now_ns() - since > STALL_MS_MAX * 1000000ull)
				return bench_error("nothing arrived for %d s; %u readers wait",
						   STALL_MS_MAX / 1000, left);
			continue;
		}
		since = bench_now_ns();
		for (unsigned i = 0; i < crew->count; i++) {
			struct reader *reader = &crew->readers[i];

			if (fds[i].revents == 0)
				continue;
			if (reader_take(reader, 0) != 0)
				return -1;
			if (reader->done_ns == 0 && reader->progress.received >= crew->each) {
				reader->done_ns = bench_now_ns();
				left--;
			}
		}
	}
	return 0;
}

static void *crew_run(void *user)
{
	struct crew *crew = user;

	crew->rc = crew->count == 1 ? reader_run(crew->readers, crew->each, &crew->ends)
				    : crew_many(crew);
	if (crew->rc != 0)
		(void)snprintf(crew->error, sizeof(crew->error), "%s", bench_last_error());
	return NULL;
}

static int through(struct trial *trial, struct pump *pump, struct crew *crew, uint64_t units,
		   double *ret_s)
{
	struct meter meter;
	pthread_t thread;
	uint64_t start, last = 0;
	int rc = 0;

	meter_start(&meter, &trial->server);
	start = bench_now_ns();
	if (pthread_create(&thread, NULL, crew_run, crew) != 0)
		return bench_error("cannot make a thread");
	while (rc == 0 && pump->sent < units)
		rc = pump_turn(pump, units - pump->sent);
	if (rc == 0)
		rc = pump_drain(pump);
	atomic_store(&crew->ends, rc != 0);
	(void)pthread_join(thread, NULL);
	if (rc == 0 && crew->rc != 0)
		rc = bench_error("%s", crew->error);
	meter_stop(&meter, trial->sample);
	for (unsigned i = 0; i < crew->count; i++)
		last = crew->readers[i].done_ns > last ? crew->readers[i].done_ns : last;
	*ret_s = (double)(last - start) / 1e9;
	return rc;
}

int load_through(struct trial *trial, const struct publish_load *load, enum bench_role role,
		 unsigned readers, uint64_t count, double *ret_s)
{
	struct reader all[READERS_MAX] = {{0}};
	struct crew crew = {.readers = all,
			    .count = readers,
			    .each = count / load->batch * load->batch};
	struct pump pump;
	int rc = pump_open(&pump, trial, load, load->window + 1);

	for (unsigned i = 0; i < readers && rc == 0; i++) {
		all[i].hist = trial->sample->hist;
		rc = reader_open(&all[i], trial, role, load->window, load->body_bytes);
	}
	if (rc == 0)
		rc = through(trial, &pump, &crew, count / load->batch, ret_s);
	for (unsigned i = 0; i < readers; i++)
		trial->system->driver->close(all[i].conn);
	pump_close(&pump);
	return rc;
}

/* ---- at a rate ---- */

static void wait_until(const struct pump *pump, uint64_t due)
{
	struct pollfd waits = {.fd = pump->driver->fd(pump->conn), .events = POLLIN};
	uint64_t now = bench_now_ns();
	struct timespec left;

	if (now >= due)
		return;
	left = (struct timespec){.tv_sec = (time_t)((due - now) / 1000000000u),
				 .tv_nsec = (long)((due - now) % 1000000000u)};
	(void)ppoll(&waits, waits.fd >= 0 ? 1 : 0, &left, NULL);
}

/* Sends the units that are due, until `units` are sent. */
static int pace(struct pump *pump, double rate, uint64_t units, uint64_t start)
{
	while (pump->sent < units) {
		uint64_t now = bench_now_ns(),
			 due = start + (uint64_t)((double)pump->sent * 1e9 / rate);

		if (interrupted)
			return bench_error("interrupted");
		if (due > now || pump->inflight >= pump->load->window) {
			wait_until(pump, due > now ? due : now + 1000000);
		} else {
			for (; due <= now && pump->inflight < pump->load->window &&
			       pump->sent < units;
			     due = start + (uint64_t)((double)pump->sent * 1e9 / rate))
				if (pump_send(pump, 1, due) != 0)
					return -1;
		}
		if (pump_take(pump, 0) != 0)
			return -1;
	}
	return pump_drain(pump);
}

static int rate_run(struct trial *trial, struct pump *pump, struct crew *crew, double rate,
		    uint64_t units)
{
	struct meter meter;
	pthread_t thread;
	uint64_t start, end;
	int rc;

	meter_start(&meter, &trial->server);
	start = bench_now_ns() + 1000000;
	if (crew->count > 0 && pthread_create(&thread, NULL, crew_run, crew) != 0)
		return bench_error("cannot make a thread");
	/* For this thread only: servers do not inherit it. */
	(void)prctl(PR_SET_TIMERSLACK, 1000ul, 0, 0, 0);
	rc = pace(pump, rate, units, start);
	(void)prctl(PR_SET_TIMERSLACK, 0ul, 0, 0, 0);
	atomic_store(&crew->ends, rc != 0);
	if (crew->count > 0)
		(void)pthread_join(thread, NULL);
	if (rc == 0 && crew->rc != 0)
		rc = bench_error("%s", crew->error);
	meter_stop(&meter, trial->sample);
	end = crew->count > 0 ? crew->readers[0].done_ns : pump->answered_ns;
	trial->sample->ops = (double)units;
	trial->sample->offered = rate;
	trial->sample->achieved = (double)units * 1e9 / (double)(end - start);
	return rc;
}

int load_rate(struct trial *trial, const struct publish_load *load, double rate, unsigned ms)
{
	struct reader reader = {.hist = trial->sample->hist};
	uint64_t units = (uint64_t)(rate * ms / 1000);
	bool follows = !trial->system->driver->answers_only;
	struct crew crew = {.readers = &reader, .count = follows, .each = units};
	struct pump pump;
	int rc = pump_open(&pump, trial, load, load->window + 1);

	if (rc == 0 && follows)
		rc = reader_open(&reader, trial, BENCH_FOLLOW_NEW, load->window, load->body_bytes);
	if (!follows)
		pump.hist = trial->sample->hist;
	if (rc == 0)
		rc = rate_run(trial, &pump, &crew, rate, units);
	if (follows)
		trial->system->driver->close(reader.conn);
	pump_close(&pump);
	return rc;
}
