/* SPDX-License-Identifier: Apache-2.0
 * The calls by which a protocol steers its connection: bytes that it wants, a hold, turns, times,
 * the end, output in parts. */
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/conn.h"
#include "broker/net/conn/sessions.h"
#include "protocol/limits.h"
#include "tests/unit/net_taker.h"

/* ---- want and hold ---- */

static void wants(struct rig *rig, uint32_t gateway, size_t bytes, bool refused)
{
	uint8_t byte = 1;

	taker_open(rig, (struct taker){.wanted = bytes});
	taker.conn->gateway = gateway;
	write_all(rig, &byte, 1);
	turns(rig);
	cr_expect_eq(io_of(rig)->conns == NULL, refused, "%zu bytes", bytes);
	rig_close(rig);
}

/* limit: PREAUTH_BYTES_MAX, FRAME_BYTES_MAX */
Test(net_turns, a_protocol_asks_for_a_frame_at_most)
{
	const size_t pre = LIMIT_SIZE(PREAUTH_BYTES_MAX) + DOOR_LENGTH_BYTES,
		     frame = LIMIT_SIZE(FRAME_BYTES_MAX) + DOOR_LENGTH_BYTES;
	struct rig rig;

	wants(&rig, 0, pre, false);
	wants(&rig, 0, pre + 1, true);
	wants(&rig, 1, frame, false);
	wants(&rig, 1, frame + 1, true);
}

/* A protocol that never says how much it needs. */
Test(net_turns, a_request_without_end_is_ended)
{
	static uint8_t bytes[LIMIT_SIZE(PREAUTH_BYTES_MAX)];
	struct rig rig;

	taker_open(&rig, (struct taker){.refuses = true});
	taker.conn->gateway = 0;
	feed(&rig, bytes, sizeof(bytes));
	turns(&rig);
	cr_expect_not_null(io_of(&rig)->conns);
	feed(&rig, bytes, DOOR_LENGTH_BYTES);
	turns(&rig);
	cr_expect_null(io_of(&rig)->conns);
	rig_close(&rig);
}

static void hold_up_to(uint32_t gateway, size_t max)
{
	static uint8_t bytes[2 * LIMIT_SIZE(CONN_HELD_BYTES_MAX)];
	struct rig rig;
	size_t sent = 0, calls;

	taker_open(&rig, (struct taker){.takes = 0});
	taker.conn->gateway = gateway;
	door_hold(taker.conn, true);
	for (int n = 0; n < 100; n++) {
		ssize_t put = write(rig.fd, bytes + sent, sizeof(bytes) - sent);

		sent += put > 0 ? (size_t)put : 0;
		(void)event_base_loop(io_of(&rig)->base, EVLOOP_NONBLOCK);
	}
	cr_expect_eq(taker.calls, 0u);
	cr_expect_eq(taker.conn->kept_end - taker.conn->kept_start, max, "%zu are kept",
		     taker.conn->kept_end - taker.conn->kept_start);
	cr_expect(taker.conn->is_stopped, "and no more are read");
	cr_expect_gt(sent, max);
	door_hold(taker.conn, false);
	for (int n = 0; n < 1000 && taker.bytes < sizeof(bytes); n++) {
		ssize_t put = write(rig.fd, bytes + sent, sizeof(bytes) - sent);

		sent += put > 0 ? (size_t)put : 0;
		turn(&rig);
	}
	cr_expect_eq(taker.bytes, sizeof(bytes), "all are given when it is let go");
	/* And its end is told in each state. */
	calls = taker.calls;
	door_hold(taker.conn, true);
	for (int n = 0; n < 100; n++) {
		(void)!write(rig.fd, bytes, sizeof(bytes));
		(void)event_base_loop(io_of(&rig)->base, EVLOOP_NONBLOCK);
	}
	cr_assert(taker.conn->is_stopped);
	event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
	turns(&rig);
	cr_assert_not_null(io_of(&rig)->conns, "its peer is there");
	(void)shutdown(rig.fd, SHUT_WR);
	event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
	turns(&rig);
	cr_expect_null(io_of(&rig)->conns, "it is told that its peer has gone");
	cr_expect_eq(taker.calls, calls);
	rig_close(&rig);
}

/* limit: CONN_HELD_BYTES_MAX, PREAUTH_BYTES_MAX */
Test(net_turns, a_held_connection_is_read_so_far_and_its_end_is_told)
{
	hold_up_to(0, LIMIT_SIZE(PREAUTH_BYTES_MAX));
	hold_up_to(1, LIMIT_SIZE(CONN_HELD_BYTES_MAX));
}

Test(net_turns, a_held_connection_is_not_read_while_the_broker_drains)
{
	uint8_t byte = 1;
	struct rig rig;

	taker_open(&rig, (struct taker){.takes = 0});
	door_hold(taker.conn, true);
	io_of(&rig)->draining = true;
	conn_flow(taker.conn);
	write_all(&rig, &byte, 1);
	cr_expect_eq(taker.conn->received, 0u);
	rig_close(&rig);
}

Test(net_turns, the_end_of_a_held_connection_that_sends_nothing_is_told)
{
	struct rig rig;

	taker_open(&rig, (struct taker){.takes = 0});
	door_hold(taker.conn, true);
	turns(&rig);
	cr_assert_not_null(io_of(&rig)->conns);
	(void)close(rig.fd);
	rig.fd = -1;
	turns(&rig);
	cr_expect_null(io_of(&rig)->conns);
	rig_close(&rig);
}

/* ---- turns, time, the end ---- */

Test(net_turns, a_turn_ends_after_its_last_bytes)
{
	static uint8_t bytes[3 * LIMIT_SIZE(PREAUTH_BYTES_MAX)];
	struct rig rig;

	taker_open(&rig, (struct taker){.takes = 0});
	write_all(&rig, bytes, 100);
	cr_expect_str_eq(taker.calls_made, "br");
	/* What is kept and what follows it are two calls of one turn. */
	taker.wanted = 1000;
	write_all(&rig, bytes, 500);
	cr_expect_str_eq(taker.calls_made, "brbr");
	write_all(&rig, bytes, 2000);
	cr_expect_str_eq(taker.calls_made, "brbrbbr");
	/* What a hold kept back is given in the call that ends it; then the turn of that call ends.
	 */
	door_hold(taker.conn, true);
	write_all(&rig, bytes, 2000);
	cr_expect_str_eq(taker.calls_made, "brbrbbr", "nothing was given");
	door_hold(taker.conn, false);
	event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
	turn(&rig);
	cr_expect_str_eq(taker.calls_made, "brbrbbrbr");
	rig_close(&rig);
}

Test(net_turns, ready_follows_each_refusal)
{
	/* More than half, and what the socket takes at once. */
	static uint8_t bytes[LIMIT_SIZE(OUTBOX_BYTES_MAX) / 2 + LARGE_BYTES], sink[PIECE_BYTES];
	struct door_buf *first, *second;
	void *memory;
	struct rig rig;

	taker_open(&rig, (struct taker){.takes = 0});
	cr_expect_eq(door_write(taker.conn, &(struct sluice_slice){bytes, 1000}, 1), 0);
	turns(&rig);
	cr_expect_str_eq(taker.calls_made, "", "there was room");
	cr_expect_eq(door_write(taker.conn, &(struct sluice_slice){bytes, sizeof(bytes)}, 1),
		     SLUICE_E_BUSY);
	cr_expect(door_is_full(taker.conn));
	io_again(io_of(&rig)); /* written outside of a callback: no round follows by itself */
	turns(&rig);
	cr_expect_str_eq(taker.calls_made, "", "it has not drained");
	for (int n = 0; n < 100000 && taker.call_count == 0; n++) {
		(void)!read(rig.fd, sink, sizeof(sink));
		turn(&rig);
	}
	cr_expect_str_eq(taker.calls_made, "o");
	for (int n = 0; n < 1000; n++) {
		(void)!read(rig.fd, sink, sizeof(sink));
		turn(&rig);
	}
	cr_expect_str_eq(taker.calls_made, "o", "once");
	cr_assert_eq(door_buf_new(taker.conn, LIMIT_SIZE(CONN_PENDING_BYTES_MAX), &first, &memory),
		     0);
	cr_assert_eq(door_buf_new(taker.conn, 1, &second, &memory), SLUICE_E_BUSY);
	door_buf_unref(first);
	event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
	turns(&rig);
	cr_expect_str_eq(taker.calls_made, "oi");
	cr_assert_eq(door_buf_new(taker.conn, 1, &second, &memory), 0);
	door_buf_unref(second);
	rig_close(&rig);
}

static void turns_until(struct rig *rig, uint64_t mono_ms)
{
	while (door_mono_ms() <= mono_ms)
		turn(rig);
	turn(rig);
}

/* The deadlines that have passed are checked. */
static void lives_pass(struct rig *rig)
{
	turns_until(rig, door_mono_ms() + 3 * WHEEL_TICK_MS);
}

Test(net_turns, a_timer_comes_once_and_not_before_its_time)
{
	struct rig rig;
	uint64_t at;

	taker_open(&rig, (struct taker){.takes = 0});
	at = door_mono_ms() + 30;
	door_timer(taker.conn, at);
	while (taker.call_count == 0)
		turn(&rig);
	cr_expect_geq(door_mono_ms(), at);
	cr_expect_str_eq(taker.calls_made, "t");
	turns_until(&rig, at + 50);
	cr_expect_str_eq(taker.calls_made, "t", "once");
	door_timer(taker.conn, door_mono_ms() + 20);
	door_timer(taker.conn, 0);
	turns_until(&rig, door_mono_ms() + 50);
	cr_expect_str_eq(taker.calls_made, "t", "not after 0");
	door_timer(taker.conn, 1); /* it has passed */
	cr_expect_str_eq(taker.calls_made, "t", "not inside the call");
	turns_until(&rig, door_mono_ms() + 1);
	cr_expect_str_eq(taker.calls_made, "tt");
	/* Moved: only the last one counts. */
	door_timer(taker.conn, door_mono_ms() + 10);
	door_timer(taker.conn, door_mono_ms() + 3600000);
	turns_until(&rig, door_mono_ms() + 40);
	cr_expect_str_eq(taker.calls_made, "tt");
	rig_close(&rig);
}

Test(net_turns, a_silent_peer_has_the_time_that_the_protocol_gives_it)
{
	struct rig rig;
	struct conn *conn;
	struct held_session session = {.timeout_ms = 5000};
	uint64_t from;

	taker_open(&rig, (struct taker){.takes = 0});
	conn = taker.conn;
	conn->gateway = 0;
	from = conn->opened_ms;
	cr_expect_null(conn_overdue(conn, from + 10000));
	cr_expect_not_null(conn_overdue(conn, from + 10001));
	cr_expect_leq(conn->due.due_ms, from + 10001);
	/* Bytes do not prolong the time before door_enter, nor does door_idle. */
	conn->active_ms = from + 9000;
	door_idle(conn, 0);
	cr_expect_not_null(conn_overdue(conn, from + 10001));
	cr_expect_leq(conn->due.due_ms, from + 10001);
	conn->gateway = 1;
	cr_expect_null(conn_overdue(conn, from + 86400000), "0: never");
	conn->active_ms = from;
	door_idle(conn, 2000);
	cr_expect_null(conn_overdue(conn, conn->active_ms + 2000));
	cr_expect_not_null(conn_overdue(conn, conn->active_ms + 2001));
	cr_expect_leq(conn->due.due_ms, conn->active_ms + 2001);
	/* The default: the timeout of the attached session, else none. */
	conn->idle_set = false;
	cr_expect_null(conn_overdue(conn, from + 86400000));
	conn->own = &session;
	cr_expect_null(conn_overdue(conn, conn->active_ms + 5000));
	cr_expect_not_null(conn_overdue(conn, conn->active_ms + 5001));
	conn->own = NULL;
	/* The end itself. */
	lives_pass(&rig); /* the thread runs */
	door_idle(conn, 1);
	conn->active_ms -= 60000;
	conn_life_set(conn);
	lives_pass(&rig);
	cr_expect_null(io_of(&rig)->conns);
	rig_close(&rig);
}

/* Who is not read is not silent. */
Test(net_turns, a_connection_that_is_not_read_is_not_silent)
{
	static uint8_t bytes[LIMIT_SIZE(CONN_HELD_BYTES_MAX)];
	struct rig rig;

	taker_open(&rig, (struct taker){.takes = 0});
	door_idle(taker.conn, 1000);
	door_hold(taker.conn, true);
	for (size_t put = 0; put < sizeof(bytes);) {
		ssize_t more = write(rig.fd, bytes + put, sizeof(bytes) - put);

		put += more > 0 ? (size_t)more : 0;
		(void)event_base_loop(io_of(&rig)->base, EVLOOP_NONBLOCK);
	}
	cr_assert(taker.conn->is_stopped);
	lives_pass(&rig); /* the thread runs */
	taker.conn->active_ms -= 60000;
	conn_life_set(taker.conn);
	lives_pass(&rig);
	cr_expect_not_null(io_of(&rig)->conns);
	rig_close(&rig);
}

/* A thread that did not run, as after SIGSTOP. */
static void thread_stood(struct rig *rig, uint64_t ms)
{
	lives_pass(rig);
	io_of(rig)->timer_ms -= ms;
	taker.conn->opened_ms -= ms;
	taker.conn->active_ms -= ms;
	taker.conn->close_by_ms -= ms;
	conn_life_set(taker.conn);
	lives_pass(rig);
}

Test(net_turns, time_in_which_the_thread_did_not_run_is_nobodys)
{
	static uint8_t bytes[LARGE_BYTES];
	struct rig rig;

	taker_open(&rig, (struct taker){.takes = 0});
	taker.conn->gateway = 0;
	thread_stood(&rig, 60000);
	cr_expect_not_null(io_of(&rig)->conns, "10 s to door_enter are left");
	taker.conn->gateway = 1;
	cr_expect_eq(door_write(taker.conn, &(struct sluice_slice){bytes, sizeof(bytes)}, 1), 0);
	door_close(taker.conn, "a test");
	turns(&rig);
	thread_stood(&rig, 60000);
	cr_expect_not_null(io_of(&rig)->conns, "and 5 s to take the output");
	rig_close(&rig);
}

Test(net_turns, a_closed_connection_waits_so_long_for_its_reader)
{
	static uint8_t bytes[LARGE_BYTES];
	struct rig rig;
	struct conn *conn;

	taker_open(&rig, (struct taker){.takes = 0});
	conn = taker.conn;
	cr_expect_eq(door_write(conn, &(struct sluice_slice){bytes, sizeof(bytes)}, 1), 0);
	door_close(conn, "a test");
	turns(&rig);
	cr_assert_not_null(io_of(&rig)->conns);
	cr_expect_leq(conn->due.due_ms, door_mono_ms() + DOOR_CLOSE_MS + 1);
	cr_expect_null(conn_overdue(conn, conn->close_by_ms));
	cr_expect_not_null(conn_overdue(conn, conn->close_by_ms + 1));
	door_close(conn, "again");
	lives_pass(&rig); /* the thread runs */
	conn->close_by_ms -= 2 * DOOR_CLOSE_MS;
	conn_life_set(conn);
	lives_pass(&rig);
	cr_expect_null(io_of(&rig)->conns);
	rig_close(&rig);
}

/* ---- write ---- */

/* A generator of our own: a failure is found again. */
static uint32_t random_next(uint32_t *io)
{
	*io = *io * 1664525u + 1013904223u;
	return *io >> 8;
}

/* Bytes by their position in the whole output. */
static uint8_t byte_at(size_t position)
{
	return (uint8_t)(position * 2654435761u >> 13);
}

Test(net_turns, large_parts_are_sent_from_where_they_lie)
{
	static uint8_t bytes[1 << 19];
	const struct sluice_slice parts[] = {{bytes, 10}, {bytes + 10, sizeof(bytes) - 10}};
	struct rig rig;
	uint8_t got[16];

	taker_open(&rig, (struct taker){.takes = 0});
	cr_assert_eq(door_write(taker.conn, parts, 2), 0);
	cr_expect_eq(recv(rig.fd, got, sizeof(got), 0), (ssize_t)sizeof(got),
		     "they are there before the round ends");
	cr_expect_lt(conn_unsent(taker.conn), sizeof(bytes));
	cr_expect_eq(taker.conn->unsent_answers, conn_unsent(taker.conn));
	cr_expect_eq(atomic_load(&rig.net->unsent), conn_unsent(taker.conn));
	rig_close(&rig);
}

/* More pieces of output than one system call takes lie before the parts. */
Test(net_turns, parts_wait_behind_much_output)
{
	enum { SMALL = 4000, SMALLS = 100, LARGE = 500000 };
	const int room = 1 << 22;
	static uint8_t bytes[LARGE], sink[1 << 16];
	size_t written = 0, seen = 0;
	struct rig rig;

	taker_open(&rig, (struct taker){.takes = 0});
	(void)setsockopt(taker.conn->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	for (int n = 0; n <= SMALLS; n++) {
		size_t len = n < SMALLS ? SMALL : LARGE;

		for (size_t b = 0; b < len; b++)
			bytes[b] = byte_at(written + b);
		written += len;
		cr_assert_eq(door_write(taker.conn, &(struct sluice_slice){bytes, len}, 1), 0);
	}
	for (int n = 0; n < 10000 && seen < written; n++) {
		ssize_t got = read(rig.fd, sink, sizeof(sink));

		for (ssize_t b = 0; b < got; b++)
			cr_assert_eq(sink[b], byte_at(seen + (size_t)b));
		seen += got > 0 ? (size_t)got : 0;
		event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
		turn(&rig);
	}
	cr_expect_eq(seen, written);
	rig_close(&rig);
}

Test(net_turns, parts_arrive_in_order_and_whole_in_any_sizes)
{
	enum { WRITES = 400, PARTS = 5 };
	static uint8_t bytes[PARTS][1 << 18], sink[1 << 16];
	struct sluice_slice parts[PARTS];
	uint32_t seed = 11;
	size_t written = 0, seen = 0, direct = 0;
	struct rig rig;

	taker_open(&rig, (struct taker){.takes = 0});
	for (int n = 0; n < WRITES || seen < written; n++) {
		size_t count = n < WRITES ? random_next(&seed) % (PARTS + 1) : 0, before, more = 0;
		ssize_t got;

		for (size_t i = 0; i < count; i++) {
			size_t len = random_next(&seed) %
				     (random_next(&seed) % 3 == 0 ? sizeof(bytes[i]) : 100);

			for (size_t b = 0; b < len; b++)
				bytes[i][b] = byte_at(written + b);
			written += len;
			more += len;
			parts[i] = (struct sluice_slice){bytes[i], len};
		}
		before = conn_unsent(taker.conn);
		if (count > 0)
			(void)door_write(taker.conn, parts, count);
		direct += conn_unsent(taker.conn) < before + more;
		memset(bytes, 0, sizeof(bytes)); /* the rest was copied */
		for (uint32_t reads = random_next(&seed) % 12; reads > 0 || n >= WRITES; reads--) {
			got = read(rig.fd, sink, sizeof(sink));
			for (ssize_t b = 0; b < got; b++)
				cr_assert_eq(sink[b], byte_at(seen + (size_t)b));
			seen += got > 0 ? (size_t)got : 0;
			if (got <= 0)
				break;
		}
		if (random_next(&seed) % 2 == 0 || n >= WRITES) {
			event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
			turn(&rig);
		}
		cr_assert_not_null(io_of(&rig)->conns);
	}
	cr_expect_eq(seen, written);
	cr_expect_gt(direct, 10u, "%zu writes sent something at once", direct);
	cr_expect_eq(taker.conn->unsent_answers, 0u);
	cr_expect_eq(atomic_load(&rig.net->unsent), 0u);
	rig_close(&rig);
}
