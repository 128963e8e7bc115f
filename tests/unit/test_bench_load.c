/* SPDX-License-Identifier: Apache-2.0
 * The bench harness's load, with a simulated driver: what is counted, from when, and how many
 * requests may be in flight. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/harness/load.h"

enum { BODY_BYTES = 100, STALL_MS = 100, ROOM = 4096 };

/* One server for all connections of a test. */
static struct {
	uint64_t sent, answered, inflight_max, stall_at;
	unsigned answers_extra, batch;
	uint8_t stored[ROOM][BODY_BYTES]; /* the bodies, if they fit */
	bool stalled, refuses, lazy;
} server;

struct bench_conn {
	struct bench_conn_spec spec;
	uint64_t read;
};

static int fake_open(const struct bench_server *unused, const struct bench_conn_spec *spec,
		     struct bench_conn **ret)
{
	(void)unused;
	*ret = calloc(1, sizeof(**ret));
	cr_assert_not_null(*ret);
	(*ret)->spec = *spec;
	return 0;
}

static void fake_close(struct bench_conn *conn)
{
	free(conn);
}

static void stall(void)
{
	const struct timespec time = {.tv_nsec = STALL_MS * 1000000};

	server.stalled = true;
	(void)nanosleep(&time, NULL);
}

static int fake_send(struct bench_conn *conn, const void *bodies)
{
	cr_assert_eq(conn->spec.batch, server.batch);
	if (server.stall_at != 0 && server.sent + 1 == server.stall_at)
		stall();
	for (unsigned i = 0; i < conn->spec.batch && server.sent * conn->spec.batch + i < ROOM; i++)
		memcpy(server.stored[server.sent * conn->spec.batch + i],
		       (const uint8_t *)bodies + (size_t)i * BODY_BYTES, BODY_BYTES);
	server.sent++;
	if (server.sent - server.answered > server.inflight_max)
		server.inflight_max = server.sent - server.answered;
	return 0;
}

/* Answers half of the requests in flight, but at least one; a lazy server answers only while the
 * load waits. */
static int fake_poll(struct bench_conn *conn, int timeout_us, struct bench_progress *io)
{
	uint64_t some = (server.sent - server.answered + 1) / 2;

	if (server.refuses)
		return bench_error("the disk is full");
	if (server.lazy && timeout_us == 0)
		return 0;
	if (conn->spec.role == BENCH_FOLLOW_ALL) {
		for (; conn->read < server.sent * server.batch; conn->read++, io->received++)
			if (conn->spec.on_body != NULL)
				conn->spec.on_body(conn->spec.user, server.stored[conn->read],
						   BODY_BYTES);
		return 0;
	}
	server.answered += some;
	io->answered += some + server.answers_extra;
	return 0;
}

static int fake_fd(const struct bench_conn *conn)
{
	(void)conn;
	return -1;
}

static const struct bench_driver fake = {.name = "fake",
					 .answers_only = true,
					 .open = fake_open,
					 .close = fake_close,
					 .send = fake_send,
					 .poll = fake_poll,
					 .fd = fake_fd};
static const struct bench_system fake_system = {"fake", "none", "a few numbers", &fake, 0};
static const struct options options = {.slice_ms = 20, .warm_ms = 5};

static struct trial trial_of(struct sample *sample)
{
	*sample = (struct sample){.value = NAN, .ops = NAN, .hist = calloc(1, sizeof(struct hist))};
	cr_assert_not_null(sample->hist);
	return (struct trial){.options = &options, .system = &fake_system, .sample = sample};
}

Test(bench_load, a_closed_loop_fills_its_window_and_no_more)
{
	const struct publish_load load = {BENCH_PUBLISH, 300, 10, BODY_BYTES};
	struct sample sample;
	struct trial trial = trial_of(&sample);

	server.batch = 10;
	server.lazy = true;
	cr_assert_eq(load_publish(&trial, &load), 0);
	cr_assert_eq(server.inflight_max, 300);
	cr_assert_eq(server.answered, server.sent, "at its end a run has nothing in flight");
	/* Units have latencies and bodies are counted; answers outside the measured time are
	 * neither. */
	cr_assert_float_eq(sample.ops, (double)sample.hist->count * 10, 0.5);
	cr_assert_lt(sample.ops, (double)server.sent * 10);
	cr_assert_gt(sample.value, 0);
	free(sample.hist);
}

Test(bench_load, a_fill_publishes_the_number_that_was_asked_for)
{
	const struct publish_load load = {BENCH_PUBLISH, 7, 100, BODY_BYTES};
	struct sample sample;
	struct trial trial = trial_of(&sample);
	uint64_t count = 0;

	server.batch = 100;
	cr_assert_eq(load_fill(&trial, &load, 1234, 60000, &count), 0);
	cr_assert_eq(count, 1300, "whole units");
	cr_assert_eq(server.sent, 13);
	cr_assert_eq(sample.hist->count, 0, "a fill is not measured");
	free(sample.hist);
}

Test(bench_load, an_open_loop_charges_a_stall_to_all_that_were_due_in_it)
{
	/* 1,000 a second for 400 ms; the server accepts nothing for 100 of them: so a quarter of
	 * all requests waits, evenly from 100 ms down to 0, or longer on a busy machine. Measured
	 * from the time of sending, only one would have waited. */
	const struct publish_load load = {BENCH_PUBLISH, 100000, 1, BODY_BYTES};
	struct sample sample;
	struct trial trial = trial_of(&sample);

	server.batch = 1;
	server.stall_at = 100;
	cr_assert_eq(load_rate(&trial, &load, 1000, 400), 0);
	cr_assert(server.stalled);
	cr_assert_eq(server.sent, 400);
	cr_assert_eq(sample.hist->count, 400);
	cr_assert_geq(hist_percentile_us(sample.hist, 0.99), 90000);
	cr_assert_geq(hist_percentile_us(sample.hist, 0.90), 50000);
	free(sample.hist);
}

Test(bench_load, a_rate_that_is_not_reached_is_reported)
{
	/* 200 in 200 ms were offered; the last one takes another 100 ms. */
	const struct publish_load load = {BENCH_PUBLISH, 100000, 1, BODY_BYTES};
	struct sample sample;
	struct trial trial = trial_of(&sample);

	server.batch = 1;
	server.stall_at = 200;
	cr_assert_eq(load_rate(&trial, &load, 1000, 200), 0);
	cr_assert_float_eq(sample.offered, 1000, 0.01);
	cr_assert_leq(sample.achieved, 200 / 0.299);
	cr_assert_float_eq(sample.ops, 200, 0.01);
	free(sample.hist);
}

Test(bench_load, answers_to_what_was_not_sent_are_an_error)
{
	const struct publish_load load = {BENCH_PUBLISH, 4, 1, BODY_BYTES};
	struct sample sample;
	struct trial trial = trial_of(&sample);

	server.batch = 1;
	server.answers_extra = 1;
	cr_assert_eq(load_publish(&trial, &load), -1);
	cr_assert_not_null(strstr(bench_last_error(), "answers for"), "%s", bench_last_error());
	free(sample.hist);
}

Test(bench_load, what_a_server_refuses_ends_the_run)
{
	const struct publish_load load = {BENCH_PUBLISH, 4, 1, BODY_BYTES};
	struct sample sample;
	struct trial trial = trial_of(&sample);

	server.batch = 1;
	server.refuses = true;
	cr_assert_eq(load_publish(&trial, &load), -1);
	cr_assert_str_eq(bench_last_error(), "the disk is full");
	free(sample.hist);
}

Test(bench_load, a_reader_counts_each_body_that_carries_a_stamp)
{
	struct hist *hist = calloc(1, sizeof(*hist));
	struct reader reader = {.hist = hist};
	uint8_t body[BODY_BYTES] = {0};
	uint64_t stamp = bench_now_ns();

	cr_assert_not_null(hist);
	memcpy(body, &stamp, sizeof(stamp));
	reader_body(&reader, body, sizeof(body));
	/* Stamped after the clock was read for this poll, as a fast publisher may do. */
	stamp = bench_now_ns();
	memcpy(body, &stamp, sizeof(stamp));
	reader_body(&reader, body, sizeof(body));
	cr_assert_eq(hist->count, 2);
	cr_assert_lt(hist_percentile_us(hist, 1), 3600e6, "no latency is negative");
	free(hist);
}

Test(bench_load, what_is_stored_is_read_with_its_stamps)
{
	const struct publish_load load = {BENCH_PUBLISH, 7, 100, BODY_BYTES};
	struct sample sample;
	struct trial trial = trial_of(&sample);
	uint64_t count = 0, stamp = 0, before = bench_now_ns();
	double seconds = -1;

	server.batch = 100;
	cr_assert_eq(load_fill(&trial, &load, 1000, 60000, &count), 0);
	cr_assert_eq(load_read(&trial, BENCH_FOLLOW_ALL, 10, BODY_BYTES, count, &seconds), 0);
	cr_assert_geq(seconds, 0);
	cr_assert_eq(sample.hist->count, 0, "a replay has no latency");
	for (unsigned i = 0; i < 1000; i++) {
		memcpy(&stamp, server.stored[i], sizeof(stamp));
		cr_assert(stamp >= before && stamp <= bench_now_ns(), "body %u", i);
	}
	free(sample.hist);
}
