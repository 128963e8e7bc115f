/* SPDX-License-Identifier: Apache-2.0
 * Connections without threads: the test turns the loop and the engine itself. How often a listener is given the same bytes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/net/io.h"
#include "protocol/frame.h"

enum { LARGE_BYTES = 4 << 20, PIECE_BYTES = 1 << 16, UNKNOWN_TYPE = 200 };

struct rig {
	struct store *store;
	struct engine *engine;
	struct net *net;
	int fd; /* the client's end */
};

static void turn(struct rig *rig)
{
	const struct batch_clock now = {1000, 1700000000000};
	uint64_t wait = 0;

	(void)event_base_loop(rig->net->ios[0].base, EVLOOP_NONBLOCK);
	cr_assert_eq(engine_step(rig->engine, now, &wait), 0);
}

static void rig_open(struct rig *rig, const struct sluice_listener_ops *ops)
{
	struct store_options options = {.create = true};
	struct engine_config engine = {0};
	struct net_config net = {.io_threads = 1};
	int pair[2];

	cr_assert_eq(store_open_mem(&options, &rig->store), 0);
	cr_assert_eq(engine_create(&engine, rig->store, (struct batch_clock){1000, 1700000000000},
				   &rig->engine),
		     0);
	cr_assert_eq(net_create(&net, rig->engine, &rig->net), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	rig->fd = pair[1];
	cr_assert_eq(net_adopt(rig->net, ops, pair[0]), 0);
	turn(rig);
	cr_assert_not_null(rig->net->ios[0].conns, "it is adopted");
}

static void rig_close(struct rig *rig)
{
	(void)close(rig->fd);
	net_stop(rig->net);
	net_destroy(rig->net);
	engine_destroy(rig->engine);
	store_close(rig->store);
}

/* Writes all of it, turning the loop after each piece. */
static void feed(struct rig *rig, const uint8_t *bytes, size_t len)
{
	while (len > 0) {
		ssize_t put = write(rig->fd, bytes, len < PIECE_BYTES ? len : PIECE_BYTES);

		if (put > 0) {
			bytes += put;
			len -= (size_t)put;
		} else {
			cr_assert_eq(errno, EAGAIN);
		}
		turn(rig);
	}
}

/* Turns until a frame's header has come, reads the frame, and returns its type. */
static uint8_t answer(struct rig *rig)
{
	struct frame_header header;
	uint8_t bytes[4096];
	const char *why = "";
	ssize_t got = -1;

	for (int n = 0; n < 1000 && got < FRAME_HEADER_BYTES; n++) {
		turn(rig);
		got = recv(rig->fd, bytes, FRAME_HEADER_BYTES, MSG_PEEK);
	}
	cr_assert_eq(got, FRAME_HEADER_BYTES, "an answer has come");
	cr_assert_eq(frame_header_decode(bytes, sizeof(bytes), &header, &why), 0, "%s", why);
	cr_assert_eq(read(rig->fd, bytes, FRAME_HEADER_BYTES + header.body_bytes),
		     (ssize_t)(FRAME_HEADER_BYTES + header.body_bytes));
	return header.type;
}

Test(net, the_native_listener_asks_for_a_frame_only_when_all_of_it_is_there)
{
	/* version_min and version_max 1 */
	static const uint8_t hello[] = {0, 0, 0, 10, FRAME_HELLO, 0, 0, 0, 0, 0, 8, 1, 16, 1};
	static uint8_t frame[FRAME_HEADER_BYTES + LARGE_BYTES];
	struct frame_header header = {.body_bytes = LARGE_BYTES, .type = UNKNOWN_TYPE, .corr = 1};
	struct rig rig;
	struct conn *conn;

	rig_open(&rig, &native_listener_ops);
	feed(&rig, hello, sizeof(hello));
	cr_assert_eq(answer(&rig), FRAME_WELCOME);
	conn = rig.net->ios[0].conns;
	cr_expect_eq(conn->wanted, 0);
	frame_header_encode(frame, &header);
	feed(&rig, frame, FRAME_HEADER_BYTES);
	cr_expect_eq(conn->wanted, sizeof(frame), "the header says how much: %zu", conn->wanted);
	feed(&rig, frame + FRAME_HEADER_BYTES, LARGE_BYTES);
	cr_expect_eq(answer(&rig), FRAME_REPLY);
	cr_expect_eq(conn->wanted, 0);
	rig_close(&rig);
}

/* ---- a listener that counts ---- */

struct counter {
	struct conn *conn;
	size_t wanted, calls, bytes;
	size_t most; /* taken at once; 0: all */
};
static struct counter counter;

static int counter_accept(const struct sluice_listener_host *host, sluice_conn *conn, void **ret_state)
{
	(void)host;
	counter.conn = (struct conn *)conn;
	*ret_state = &counter;
	return 0;
}

static long counter_bytes(void *state, const void *bytes, size_t len)
{
	(void)state;
	(void)bytes;
	counter.calls++;
	if (len < counter.wanted) {
		counter.conn->wanted = counter.wanted;
		return 0;
	}
	if (counter.most != 0 && len > counter.most)
		len = counter.most;
	counter.bytes += len;
	return (long)len;
}

static void counter_effect(void *state, const struct sluice_listener_effect *effect)
{
	(void)state;
	(void)effect;
}

static void counter_closed(void *state)
{
	(void)state;
}

static const struct sluice_listener_ops counter_ops = {
	.struct_size = sizeof(struct sluice_listener_ops),
	.protocol = "counter",
	.accept = counter_accept,
	.bytes = counter_bytes,
	.effect = counter_effect,
	.closed = counter_closed,
};

static uint8_t zeros[LARGE_BYTES];

Test(net, what_was_asked_for_is_given_once_when_it_is_there)
{
	struct rig rig;

	counter = (struct counter){.wanted = LARGE_BYTES};
	rig_open(&rig, &counter_ops);
	feed(&rig, zeros, LARGE_BYTES);
	for (int n = 0; n < 1000 && counter.bytes < LARGE_BYTES; n++)
		turn(&rig);
	cr_expect_eq(counter.bytes, LARGE_BYTES);
	cr_expect_eq(counter.calls, 2, "its beginning, and all of it: %zu", counter.calls);
	rig_close(&rig);
}

Test(net, what_waits_in_a_socket_is_read_in_large_pieces)
{
	struct rig rig;

	counter = (struct counter){0};
	rig_open(&rig, &counter_ops);
	cr_assert_eq(write(rig.fd, zeros, PIECE_BYTES), PIECE_BYTES);
	for (int n = 0; n < 1000 && counter.bytes < PIECE_BYTES; n++)
		turn(&rig);
	cr_expect_eq(counter.bytes, PIECE_BYTES);
	cr_expect_lt(counter.calls, 5, "not 4 KiB at a time: %zu", counter.calls);
	rig_close(&rig);
}

/* ---- what other threads' connections have unsent ---- */

static _Atomic bool others_run_now, others_stop;

static void *others_run(void *user)
{
	struct net *net = user;

	while (!atomic_load(&others_stop)) {
		atomic_store(&others_run_now, true);
		atomic_fetch_add(&net->unsent, (uint64_t)1 << 40);
		atomic_fetch_sub(&net->unsent, (uint64_t)1 << 40);
	}
	return NULL;
}

Test(net, what_one_look_at_the_bounds_stopped_goes_on_after_another)
{
	enum { TURNS = 20000, TURN_BYTES = 64 };
	pthread_t others;
	struct rig rig;

	counter = (struct counter){.most = 1};
	rig_open(&rig, &counter_ops);
	/* Output that nobody reads: so the bound of all counts for this connection, while others pass it and keep it in turn. */
	conn_write(counter.conn, zeros, sizeof(zeros));
	cr_assert_eq(pthread_create(&others, NULL, others_run, rig.net), 0);
	while (!atomic_load(&others_run_now))
		(void)sched_yield();
	for (int i = 0; i < TURNS; i++) {
		feed(&rig, zeros, TURN_BYTES);
		cr_assert(counter.conn->kept_start == counter.conn->kept_end || counter.conn->is_stopped,
			  "turn %d: it is read from, and nobody takes the %zu bytes that came before", i,
			  counter.conn->kept_end - counter.conn->kept_start);
	}
	atomic_store(&others_stop, true);
	(void)pthread_join(others, NULL);
	event_active(rig.net->ios[0].wake, EV_READ, 0);
	for (int n = 0; n < 1000 && counter.bytes < TURNS * TURN_BYTES; n++)
		turn(&rig);
	cr_expect_eq(counter.bytes, TURNS * TURN_BYTES);
	rig_close(&rig);
}
