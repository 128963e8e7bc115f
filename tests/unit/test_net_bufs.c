/* SPDX-License-Identifier: Apache-2.0
 * Memory for input: it grows with what arrives, is bounded for a connection and for all, and a
 * protocol may take it. */
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/bufs.h"
#include "broker/net/conn/conn.h"
#include "broker/net/conn/input.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/net_taker.h"

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
	cr_assert(!input_room(io_of(&many.rig), 2 * NET_READ_BYTES), "it is used up");
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
	for (int n = 1; n < 1000 && !input_room(io, 2 * NET_READ_BYTES); n++) {
		conns_press(io, now + (uint64_t)n * 6 * SECOND);
		turns(&many.rig);
	}
	cr_expect(input_room(io, 2 * NET_READ_BYTES));
	cr_expect_lt(HASH_CNT(hh, io->conns), left);
	ping(&many.rig);
	many_close(&many);
}

/* ---- the calls of a protocol ---- */

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

/* ---- requests that wait ---- */

enum { NAME_BYTES = 1000, REQUESTS = 100 };

/* Lists the queues behind a name, which may be long: its length is checked when its turn comes. */
static size_t list_frame(uint8_t *at, uint32_t corr)
{
	static char after[NAME_BYTES + 1];
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueList list = SLUICE__QUEUE_LIST__INIT;

	memset(after, 'q', NAME_BYTES);
	list.after = after;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_LIST;
	request.queue_list = &list;
	return request_frame(at, corr, &request);
}

/* A command that is not answered, because the engine does not run, and requests behind it. */
static struct conn *requests_wait(struct rig *rig, uint64_t input_max)
{
	static uint8_t bytes[4096 + REQUESTS * (NAME_BYTES + 64)];
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__StreamDelete delete = SLUICE__STREAM_DELETE__INIT;
	struct conn *conn;
	size_t len;
	char none[] = "none";

	greet(rig);
	conn = io_of(rig)->conns;
	rig->net->config.input_bytes_max = input_max;
	delete.name = none;
	request.op_case = SLUICE__REQUEST__OP_STREAM_DELETE;
	request.stream_delete = &delete;
	len = request_frame(bytes, 1, &request);
	for (uint32_t n = 0; n < REQUESTS; n++)
		len += list_frame(bytes + len, 2 + n);
	cr_assert_eq(write(rig->fd, bytes, len), (ssize_t)len);
	for (int n = 0; n < 20; n++)
		(void)event_base_loop(io_of(rig)->base, EVLOOP_NONBLOCK);
	return conn;
}

Test(net_bufs, requests_that_wait_count_as_input_of_all)
{
	struct rig rig;
	struct conn *conn = requests_wait(&rig, 1);
	uint64_t bytes;

	/* Below the bound of a connection one more is taken. */
	cr_expect_geq(conn->request_bytes, (uint64_t)INPUT_FAIR_BYTES);
	cr_expect_lt(conn->request_bytes, (uint64_t)INPUT_FAIR_BYTES + 2 * NAME_BYTES);
	cr_expect(!conn->reading);
	cr_expect_eq(atomic_load(&rig.net->input), conn->request_bytes + conn->buf_bytes);
	bytes = conn->request_bytes;
	conn->request_bytes = INPUT_FAIR_BYTES - 1;
	cr_expect(conn_may_take(conn), "so much each may have");
	conn->request_bytes++;
	cr_expect(!conn_may_take(conn));
	conn->request_bytes = bytes;
	rig.net->config.input_bytes_max = atomic_load(&rig.net->input) - 1;
	cr_expect(!conn_may_take(conn), "one above the bound of all");
	rig.net->config.input_bytes_max++;
	cr_expect(conn_may_take(conn), "at the bound");
	for (int n = 0; n <= REQUESTS; n++)
		cr_expect_eq(answer(&rig), FRAME_REPLY);
	event_active(io_of(&rig)->timer, EV_TIMEOUT, 0);
	turn(&rig);
	cr_expect_eq(conn->request_bytes, 0u);
	cr_expect_eq(atomic_load(&rig.net->input), 0u);
	rig_close(&rig);
}

Test(net_bufs, with_room_many_requests_wait)
{
	struct rig rig;
	struct conn *conn = requests_wait(&rig, 0);

	cr_expect_geq(conn->request_bytes, (uint64_t)REQUESTS * NAME_BYTES);
	cr_expect(conn->reading);
	cr_assert_eq(close(rig.fd), 0);
	rig.fd = -1;
	turns(&rig);
	cr_expect_null(io_of(&rig)->conns);
	cr_expect_eq(atomic_load(&rig.net->input), 0u, "they end with their connection");
	rig_close(&rig);
}

/* Else connections that read nothing would keep the memory of all. */
Test(net_bufs, who_does_not_read_holds_no_requests_while_memory_is_used_up)
{
	static uint8_t answers[LIMIT_SIZE(OUTBOX_BYTES_MAX) / 2 + (1 << 20)];
	const uint64_t now = io_now_ms();
	struct rig rig;
	struct conn *conn = requests_wait(&rig, 1);

	conn_write(conn, answers, sizeof(answers));
	cr_assert(conn_is_full(conn));
	conn->active_ms = now;
	conns_press(conn->io, now);
	conns_press(conn->io, now + 4999);
	cr_expect(!conn->dead, "for less than 5 s");
	conn->io->press_ms = now;
	conns_press(conn->io, now + 4999);
	cr_expect(!conn->dead);
	conn->io->press_ms = now;
	conns_press(conn->io, now + 5000);
	cr_expect(conn->dead);
	rig_close(&rig);
}
