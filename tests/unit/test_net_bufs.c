/* SPDX-License-Identifier: Apache-2.0
 * Memory for input: it grows with what arrives, is bounded for a connection and for all, and a
 * protocol may take it. */
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/bufs.h"
#include "broker/net/conn/conn.h"
#include "broker/net/conn/input.h"
#include "broker/net/conn/sessions.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/net_rig.h"

static struct io *io_of(struct rig *rig)
{
	return &rig->net->ios[0];
}

/* ---- what arrives ---- */

Test(net_bufs, memory_for_a_frame_grows_with_what_has_come)
{
	static uint8_t frame[FRAME_HEADER_BYTES + LARGE_BYTES];
	struct frame_header header = {.body_bytes = LARGE_BYTES, .type = UNKNOWN_TYPE, .corr = 1};
	struct rig rig;
	struct conn *conn;

	greet(&rig);
	conn = io_of(&rig)->conns;
	frame_header_encode(frame, &header);
	for (size_t put = 0, step = FRAME_HEADER_BYTES; put < sizeof(frame);) {
		size_t len = put + step < sizeof(frame) ? step : sizeof(frame) - put;

		feed(&rig, frame + put, len);
		put += len;
		step = put; /* as many again */
		if (step > PIECE_BYTES)
			step = PIECE_BYTES;
		if (put == sizeof(frame))
			break;
		cr_assert_eq(conn->kept_end - conn->kept_start, put);
		cr_assert_leq(conn->kept->capacity, 2 * put + 4096, "%zu bytes for %zu",
			      conn->kept->capacity, put);
		cr_assert_eq(conn->buf_bytes, conn->kept->capacity);
		cr_assert_eq(atomic_load(&rig.net->input), conn->kept->capacity);
	}
	cr_expect_eq(answer(&rig), FRAME_REPLY);
	event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
	turn(&rig);
	cr_expect_eq(conn->buf_bytes, 0);
	cr_expect_eq(atomic_load(&rig.net->input), 0u);
	rig_close(&rig);
}

/* ---- more connections than memory ---- */

enum { MANY = 40, FRAME_BYTES = 1 << 18, MANY_MAX = 2 << 20 };

struct many {
	struct rig rig;
	int fds[MANY];
	size_t sent[MANY];
};

static void many_open(struct many *many)
{
	uint8_t bytes[1024];

	greet(&many->rig);
	many->rig.net->config.input_bytes_max = MANY_MAX;
	for (int i = 0; i < MANY; i++) {
		int pair[2];

		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
					pair),
			     0);
		cr_assert_eq(net_adopt(many->rig.net, &native_protocol, NULL, pair[0]), 0);
		many->fds[i] = pair[1];
		many->sent[i] = 0;
		cr_assert_eq(write(pair[1], plain_hello, sizeof(plain_hello)),
			     (ssize_t)sizeof(plain_hello));
		turns(&many->rig);
		cr_assert_gt(read(pair[1], bytes, sizeof(bytes)), 0);
	}
}

/* Sends on, as far as the sockets accept it, up to so many bytes of each frame. */
static void many_send(struct many *many, size_t upto)
{
	static uint8_t frame[FRAME_HEADER_BYTES + FRAME_BYTES];
	struct frame_header header = {.body_bytes = FRAME_BYTES, .type = UNKNOWN_TYPE, .corr = 1};

	frame_header_encode(frame, &header);
	for (int i = 0; i < MANY; i++) {
		ssize_t put = 0;

		if (many->sent[i] < upto)
			put = send(many->fds[i], frame + many->sent[i], upto - many->sent[i],
				   MSG_NOSIGNAL);
		if (put > 0)
			many->sent[i] += (size_t)put;
	}
	turn(&many->rig);
}

static void many_close(struct many *many)
{
	for (int i = 0; i < MANY; i++)
		(void)close(many->fds[i]);
	rig_close(&many->rig);
}

static void ping(struct rig *rig)
{
	uint8_t bytes[FRAME_HEADER_BYTES];

	(void)frame_put(bytes, FRAME_PING, "", 0);
	feed(rig, bytes, sizeof(bytes));
	cr_assert_eq(answer(rig), FRAME_PONG);
}

Test(net_bufs, parts_of_frames_do_not_exceed_the_bound_of_all)
{
	static struct many many;

	many_open(&many);
	for (int n = 0; n < 200; n++) {
		many_send(&many, FRAME_BYTES / 2);
		/* The bound, what each may have, and the one that may exceed it. */
		cr_assert_leq(atomic_load(&many.rig.net->input),
			      (uint64_t)MANY_MAX + MANY * (INPUT_FAIR_BYTES + 4096) +
				      2 * FRAME_BYTES,
			      "%llu bytes", (unsigned long long)atomic_load(&many.rig.net->input));
	}
	cr_assert(!bufs_room(io_of(&many.rig), 2 * NET_READ_BYTES), "it is used up");
	ping(&many.rig);
	many_close(&many);
}

Test(net_bufs, connections_that_send_on_do_not_wait_for_one_another)
{
	static struct many many;
	int answered = 0;

	many_open(&many);
	for (int n = 0; n < 100; n++)
		many_send(&many, FRAME_BYTES / 2);
	for (int n = 0; n < 3000 && answered < MANY; n++) {
		many_send(&many, FRAME_HEADER_BYTES + FRAME_BYTES);
		event_active(io_of(&many.rig)->timer, EV_TIMEOUT, 0);
		for (int i = 0; i < MANY; i++) {
			uint8_t bytes[1024];

			answered += read(many.fds[i], bytes, sizeof(bytes)) > 0;
		}
	}
	cr_expect_eq(answered, MANY, "%d of the frames were answered", answered);
	many_close(&many);
}

Test(net_bufs, who_holds_memory_and_does_not_send_on_is_closed_when_it_is_used_up)
{
	enum { SECOND = 1000 };
	static struct many many;
	uint64_t now = 1000000;
	unsigned left;
	struct io *io;

	many_open(&many);
	io = io_of(&many.rig);
	conns_press(io, now);
	cr_assert_eq(io->press_ms, 0u, "there is room");
	for (int n = 0; n < 200; n++)
		many_send(&many, FRAME_BYTES / 2);
	left = HASH_CNT(hh, io->conns);
	conns_press(io, now);
	conns_press(io, now + 4 * SECOND);
	turn(&many.rig);
	cr_expect_eq(HASH_CNT(hh, io->conns), left, "not before the time is over");
	for (int n = 1; n < 1000 && !bufs_room(io, 2 * NET_READ_BYTES); n++) {
		conns_press(io, now + (uint64_t)n * 6 * SECOND);
		turns(&many.rig);
	}
	cr_expect(bufs_room(io, 2 * NET_READ_BYTES));
	cr_expect_lt(HASH_CNT(hh, io->conns), left);
	ping(&many.rig);
	many_close(&many);
}

/* ---- the calls of a protocol ---- */

enum { LOW_BYTES = 4 << 20 };

static struct taker {
	struct conn *conn;
	int takes; /* in each call of bytes */
	struct door_buf *bufs[4];
	struct sluice_slice given, parts[4];
	size_t wanted, calls, bytes, sum;
	int rc;
	bool refuses; /* takes nothing of what it is given */
	/* the calls, in order: b bytes, r round, o and i ready, t timer */
	char calls_made[64];
	size_t call_count;
} taker;

static const char *taker_name(const struct conn *conn)
{
	(void)conn;
	return "taker";
}

static int taker_accept(struct conn *conn)
{
	taker.conn = conn;
	return 0;
}

static void note(char what)
{
	if (taker.call_count < sizeof(taker.calls_made) - 1)
		taker.calls_made[taker.call_count++] = what;
}

static void taker_round(struct conn *conn)
{
	cr_expect_eq(conn, taker.conn);
	note('r');
}

static void taker_ready(struct conn *conn, enum door_ready what)
{
	cr_expect_eq(conn, taker.conn);
	note(what == DOOR_READY_OUTPUT ? 'o' : 'i');
	if (what == DOOR_READY_OUTPUT)
		cr_expect_leq(conn_unsent(conn), (size_t)LOW_BYTES, "the low mark");
}

static void taker_timer(struct conn *conn)
{
	cr_expect_eq(conn, taker.conn);
	note('t');
}

static long taker_bytes(struct conn *conn, const void *bytes, size_t len)
{
	note('b');
	taker.calls++;
	taker.given = (struct sluice_slice){bytes, len};
	if (len < taker.wanted) {
		door_want(conn, taker.wanted);
		return 0;
	}
	for (int i = 0; i < taker.takes; i++) {
		taker.parts[i] = (struct sluice_slice){(const uint8_t *)bytes + i, len - (size_t)i};
		taker.rc = door_buf_take(conn, &taker.bufs[i], &taker.parts[i]);
		if (taker.rc != 0)
			return 0;
	}
	if (taker.refuses)
		return 0;
	for (size_t i = 0; i < len; i++)
		taker.sum += ((const uint8_t *)bytes)[i];
	taker.bytes += len;
	return (long)len;
}

static void taker_closed(struct conn *conn)
{
	(void)conn;
}

static const struct protocol_ops taker_protocol = {
	.name = taker_name,
	.accept = taker_accept,
	.bytes = taker_bytes,
	.round = taker_round,
	.ready = taker_ready,
	.timer = taker_timer,
	.closed = taker_closed,
};

static void taker_open(struct rig *rig, struct taker how)
{
	taker = how;
	rig_open_as(rig, &taker_protocol, NULL);
	cr_assert_not_null(taker.conn);
	taker.conn->gateway = 1; /* as after door_enter */
}

static void taker_drop(void)
{
	for (int i = 0; i < taker.takes; i++)
		door_buf_unref(taker.bufs[i]);
}

static void write_all(struct rig *rig, const uint8_t *bytes, size_t len)
{
	cr_assert_eq(write(rig->fd, bytes, len), (ssize_t)len);
	(void)event_base_loop(rig->net->ios[0].base, EVLOOP_NONBLOCK);
}

Test(net_bufs, what_fills_the_threads_buffer_is_taken_and_not_copied)
{
	static uint8_t bytes[NET_READ_BYTES / 2];
	struct rig rig;

	memset(bytes, 7, sizeof(bytes));
	taker_open(&rig, (struct taker){.takes = 2});
	write_all(&rig, bytes, sizeof(bytes));
	cr_assert_eq(taker.calls, 1u);
	cr_assert_eq(taker.bytes, sizeof(bytes));
	cr_expect_eq(taker.bufs[0], taker.bufs[1], "one memory");
	cr_expect_eq(taker.parts[0].data, taker.given.data);
	cr_expect_eq(taker.parts[1].data, (const uint8_t *)taker.given.data + 1);
	cr_expect_eq(taker.conn->buf_bytes, (uint64_t)NET_READ_BYTES, "what is held counts");
	/* The thread reads on into another buffer. */
	taker.takes = 0;
	memset(bytes, 9, sizeof(bytes));
	write_all(&rig, bytes, sizeof(bytes));
	cr_expect_eq(*(const uint8_t *)taker.parts[0].data, 7);
	taker.takes = 2;
	taker_drop();
	cr_expect_eq(taker.conn->buf_bytes, 0u);
	cr_expect_eq(atomic_load(&rig.net->input), 0u);
	rig_close(&rig);
}

Test(net_bufs, what_fills_less_than_a_quarter_is_copied_once)
{
	static uint8_t bytes[NET_READ_BYTES / 4 - 1];
	struct rig rig;

	memset(bytes, 7, sizeof(bytes));
	taker_open(&rig, (struct taker){.takes = 2});
	write_all(&rig, bytes, sizeof(bytes));
	cr_expect_eq(taker.bufs[0], taker.bufs[1], "one copy");
	cr_expect_neq(taker.parts[0].data, taker.given.data);
	cr_expect_eq((const uint8_t *)taker.parts[0].data + 1, taker.parts[1].data);
	cr_expect_eq(taker.conn->buf_bytes, sizeof(bytes));
	cr_expect_eq(memcmp(taker.parts[1].data, bytes, sizeof(bytes) - 1), 0);
	taker_drop();
	cr_expect_eq(taker.conn->buf_bytes, 0u);
	rig_close(&rig);
}

Test(net_bufs, kept_input_that_was_taken_is_not_written_to)
{
	static uint8_t bytes[LARGE_BYTES];
	struct rig rig;

	memset(bytes, 7, sizeof(bytes));
	taker_open(&rig, (struct taker){.takes = 1, .wanted = LARGE_BYTES});
	for (int n = 0; n < 2; n++) {
		size_t before = taker.bytes;

		taker.takes = 1 - n;
		feed(&rig, bytes, sizeof(bytes));
		for (int i = 0; i < 100 && taker.bytes == before; i++)
			turn(&rig);
		cr_assert_eq(taker.bytes, before + LARGE_BYTES);
		memset(bytes, 9, sizeof(bytes));
	}
	cr_expect_eq(taker.parts[0].len, (size_t)LARGE_BYTES);
	for (size_t i = 0; i < LARGE_BYTES; i++)
		cr_assert_eq(((const uint8_t *)taker.parts[0].data)[i], 7);
	taker.takes = 1;
	taker_drop();
	rig_close(&rig);
}

/* limit: CONN_PENDING_BYTES_MAX */
Test(net_bufs, a_connection_has_so_much_memory_and_is_tried_again)
{
	struct door_buf *first, *second;
	uint8_t byte = 1;
	struct rig rig;
	void *bytes;

	taker_open(&rig, (struct taker){.takes = 1});
	cr_expect_eq(door_buf_new(taker.conn, LIMIT_SIZE(CONN_PENDING_BYTES_MAX) + 1, &first,
				  &bytes),
		     SLUICE_E_LIMIT);
	cr_assert_eq(door_buf_new(taker.conn, LIMIT_SIZE(CONN_PENDING_BYTES_MAX) - 1, &first,
				  &bytes),
		     0);
	write_all(&rig, &byte, 1);
	cr_expect_eq(taker.rc, 0, "one byte more is the bound");
	cr_expect_eq(taker.bytes, 1u);
	cr_expect_eq(door_buf_new(taker.conn, 1, &second, &bytes), SLUICE_E_BUSY);
	taker_drop();
	door_buf_unref(first);
	cr_assert_eq(door_buf_new(taker.conn, LIMIT_SIZE(CONN_PENDING_BYTES_MAX) - 1, &first,
				  &bytes),
		     0);
	event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
	turns(&rig);
	cr_assert_eq(door_buf_new(taker.conn, 1, &second, &bytes), 0);
	taker.takes = 0;
	write_all(&rig, &byte, 1);
	turns(&rig);
	cr_expect_eq(taker.bytes, 1u, "it is not read at the bound");
	cr_expect(taker.conn->is_stopped);
	door_buf_unref(second);
	door_buf_unref(first);
	event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
	turns(&rig);
	cr_expect_eq(taker.bytes, 2u, "and again below it");
	rig_close(&rig);
}

Test(net_bufs, memory_of_all_is_bounded)
{
	struct door_buf *first, *second;
	struct rig rig;
	void *bytes;

	taker_open(&rig, (struct taker){.takes = 0});
	rig.net->config.input_bytes_max = 1 << 20;
	cr_assert_eq(door_buf_new(taker.conn, 1 << 20, &first, &bytes), 0);
	cr_expect_eq(door_buf_new(taker.conn, 1, &second, &bytes), SLUICE_E_BUSY);
	door_buf_unref(first);
	cr_assert_eq(door_buf_new(taker.conn, 1, &second, &bytes), 0);
	/* The end of the connection does not free what others hold; it counts until then. */
	(void)shutdown(rig.fd, SHUT_RDWR);
	turns(&rig);
	cr_assert_null(io_of(&rig)->conns);
	cr_expect_eq(atomic_load(&rig.net->input), 1u);
	door_buf_unref(second);
	cr_expect_eq(atomic_load(&rig.net->input), 0u);
	rig_close(&rig);
}

/* ---- PUBLISH ---- */

static void consume_open(struct rig *rig)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__ConsumeOpen open = SLUICE__CONSUME_OPEN__INIT;
	char queue[] = "dead-letter";

	open.queue = queue;
	open.subscription = 1;
	open.credit = 100;
	request.op_case = SLUICE__REQUEST__OP_CONSUME_OPEN;
	request.consume_open = &open;
	ask(rig, 2, &request);
	cr_assert_eq(reply_code(rig, 2), 0);
}

enum { EVENT_BYTES = 150000, EVENTS = 5 };

/* A frame that puts one event into the queue; freed by the caller. */
static uint8_t *publish_frame(uint8_t fill, size_t event_bytes, size_t *ret_len)
{
	uint8_t *frame = malloc(event_bytes + 1024), *payload = malloc(event_bytes + 512),
		*body = malloc(event_bytes);
	struct envelope envelope = {.body = {body, event_bytes}};
	struct frame_publish publish = {.target_kind = PUBLISH_TO_QUEUE,
					.count = 1,
					.subject = {"a.b", 3},
					.target = {"dead-letter", 11}};
	struct frame_header header = {.type = FRAME_PUBLISH, .corr = fill};

	cr_assert(frame != NULL && payload != NULL && body != NULL);
	memset(body, fill, event_bytes);
	publish.payload = (struct sluice_slice){payload, envelope_encode(payload, &envelope)};
	publish.raw_bytes = (uint32_t)publish.payload.len;
	header.body_bytes = (uint32_t)frame_publish_encode(frame + FRAME_HEADER_BYTES, &publish);
	frame_header_encode(frame, &header);
	free(body);
	free(payload);
	*ret_len = FRAME_HEADER_BYTES + header.body_bytes;
	return frame;
}

/* Reads on, turning, until so many bytes have come. */
static void read_all(struct rig *rig, uint8_t *bytes, size_t len)
{
	size_t got = 0;

	for (int n = 0; n < 10000 && got < len; n++) {
		ssize_t more = read(rig->fd, bytes + got, len - got);

		got += more > 0 ? (size_t)more : 0;
		turn(rig);
	}
	cr_assert_eq(got, len);
}

/* The next frames are answers and deliveries; each delivered event is all of one number, which is
 * noted. */
static void deliveries_read(struct rig *rig, unsigned *io_seen, unsigned *io_published)
{
	uint8_t head[FRAME_HEADER_BYTES], *body;
	struct frame_header header;
	struct frame_deliver deliver;
	const char *why = "";

	read_all(rig, head, sizeof(head));
	cr_assert_eq(frame_header_decode(head, LIMIT_FRAME_BYTES_MAX, &header, &why), 0);
	body = malloc(header.body_bytes);
	cr_assert_not_null(body);
	read_all(rig, body, header.body_bytes);
	*io_published += header.type == FRAME_PUBLISHED;
	if (header.type == FRAME_DELIVER) {
		struct sluice_slice rest;

		cr_assert_eq(frame_deliver_decode((struct sluice_slice){body, header.body_bytes},
						  &deliver, &why),
			     0);
		rest = deliver.payload;
		for (uint32_t i = 0; i < deliver.count; i++) {
			struct envelope envelope;
			const uint8_t *at;

			/* u16 attempts, u64 time of the put */
			rest = (struct sluice_slice){(const uint8_t *)rest.data + 10,
						     rest.len - 10};
			cr_assert_eq(envelope_next(&rest, &envelope, &why), 0);
			at = envelope.body.data;
			for (size_t b = 0; b < envelope.body.len; b++)
				cr_assert_eq(at[b], at[0]);
			*io_seen |= 1u << at[0];
		}
	}
	free(body);
}

Test(net_bufs, a_large_payload_goes_to_the_engine_where_it_came_in)
{
	struct rig rig;
	struct conn *conn;
	unsigned seen = 0, published = 0;

	greet(&rig);
	consume_open(&rig);
	conn = io_of(&rig)->conns;
	for (unsigned n = 1; n <= EVENTS; n++) {
		size_t len;
		uint8_t *frame = publish_frame((uint8_t)n, EVENT_BYTES, &len);

		for (size_t put = 0; put < len;) {
			ssize_t more = write(rig.fd, frame + put, len - put);

			put += more > 0 ? (size_t)more : 0;
			(void)event_base_loop(io_of(&rig)->base, EVLOOP_NONBLOCK);
		}
		free(frame);
		cr_assert_eq(conn->pending_count, n);
		cr_assert_not_null(conn->pendings->prev->buf);
		cr_assert_lt(conn->pending_bytes, 1000u * n, "no copy of it: %llu bytes",
			     (unsigned long long)conn->pending_bytes);
		cr_assert_geq(conn->buf_bytes, (uint64_t)n * EVENT_BYTES);
	}
	while (published < EVENTS || seen != (1u << (EVENTS + 1)) - 2)
		deliveries_read(&rig, &seen, &published);
	event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
	turns(&rig);
	cr_expect_eq(conn->buf_bytes, 0u, "each reference was dropped with the answer");
	rig_close(&rig);
}

Test(net_bufs, a_payload_outlives_its_connection_until_the_answer)
{
	struct rig rig;
	size_t len;
	uint8_t *frame = publish_frame(1, EVENT_BYTES, &len);

	greet(&rig);
	for (size_t put = 0; put < len;) {
		ssize_t more = write(rig.fd, frame + put, len - put);

		put += more > 0 ? (size_t)more : 0;
		(void)event_base_loop(io_of(&rig)->base, EVLOOP_NONBLOCK);
	}
	free(frame);
	(void)shutdown(rig.fd, SHUT_RDWR);
	for (int n = 0; n < 100 && io_of(&rig)->conns != NULL; n++)
		(void)event_base_loop(io_of(&rig)->base, EVLOOP_NONBLOCK);
	cr_assert_null(io_of(&rig)->conns);
	cr_assert_not_null(io_of(&rig)->orphans);
	cr_expect_geq(atomic_load(&rig.net->input), (uint64_t)EVENT_BYTES);
	turns(&rig);
	cr_expect_null(io_of(&rig)->orphans);
	cr_expect_eq(atomic_load(&rig.net->input), 0u);
	rig_close(&rig);
}

Test(net_bufs, a_small_payload_is_copied)
{
	struct rig rig;
	size_t len;
	uint8_t *frame = publish_frame(1, 1000, &len);

	greet(&rig);
	write_all(&rig, frame, len);
	free(frame);
	cr_assert_eq(io_of(&rig)->conns->pending_count, 1u);
	cr_expect_null(io_of(&rig)->conns->pendings->buf);
	cr_expect_eq(io_of(&rig)->conns->buf_bytes, 0u);
	rig_close(&rig);
}

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
Test(net_bufs, a_protocol_asks_for_a_frame_at_most)
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
Test(net_bufs, a_request_without_end_is_ended)
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
Test(net_bufs, a_held_connection_is_read_so_far_and_its_end_is_told)
{
	hold_up_to(0, LIMIT_SIZE(PREAUTH_BYTES_MAX));
	hold_up_to(1, LIMIT_SIZE(CONN_HELD_BYTES_MAX));
}

Test(net_bufs, a_held_connection_is_not_read_while_the_broker_drains)
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

Test(net_bufs, the_end_of_a_held_connection_that_sends_nothing_is_told)
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

Test(net_bufs, a_turn_ends_after_its_last_bytes)
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

Test(net_bufs, ready_follows_each_refusal)
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

Test(net_bufs, a_timer_comes_once_and_not_before_its_time)
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

Test(net_bufs, a_silent_peer_has_the_time_that_the_protocol_gives_it)
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
Test(net_bufs, a_connection_that_is_not_read_is_not_silent)
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

Test(net_bufs, time_in_which_the_thread_did_not_run_is_nobodys)
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

Test(net_bufs, a_closed_connection_waits_so_long_for_its_reader)
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

Test(net_bufs, large_parts_are_sent_from_where_they_lie)
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
Test(net_bufs, parts_wait_behind_much_output)
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

Test(net_bufs, parts_arrive_in_order_and_whole_in_any_sizes)
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
