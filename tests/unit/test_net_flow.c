/* SPDX-License-Identifier: Apache-2.0
 * Bounds of a connection on its way to the engine and back: consumers that are closed, what is
 * unanswered, and many subscriptions. The test turns the loop and the engine itself. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/queue/record.h"
#include "broker/net/conn/answer.h"
#include "broker/net/conn/door.h"
#include "broker/net/conn/output.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/net_rig.h"

/* ---- consumers that are closed ---- */

/* Turns the loop, and not the engine. */
static void loop(struct rig *rig)
{
	for (int n = 0; n < 20; n++)
		(void)event_base_loop(rig->net->ios[0].base, EVLOOP_NONBLOCK);
}

static size_t close_frame(uint8_t *at, uint32_t number)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__SubscriptionClose close = SLUICE__SUBSCRIPTION_CLOSE__INIT;

	close.subscription = number;
	request.op_case = SLUICE__REQUEST__OP_SUBSCRIPTION_CLOSE;
	request.subscription_close = &close;
	return request_frame(at, number, &request);
}

static uint64_t queue_make(struct rig *rig, const char *name)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	struct store_txn *txn = NULL;
	struct queue_ref ref = {0};

	config.name = (char *)(uintptr_t)name;
	create.config = &config;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_CREATE;
	request.queue_create = &create;
	ask(rig, 9, &request);
	cr_assert_eq(reply_code(rig, 9), 0);
	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(core_queue_find(txn, 1, (struct sluice_slice){name, strlen(name)}, &ref), 0);
	store_abort(txn);
	return ref.id;
}

static void consume_make(struct conn *conn, const char *queue, uint64_t number, uint32_t credit)
{
	struct door_sub_spec spec = {.kind = DOOR_CONSUME,
				     .name = {queue, strlen(queue)},
				     .credit = credit};
	struct door_subscribed ret;

	cr_assert_eq(door_subscribe(conn, number, &spec, &ret), 0, "%s", ret.why);
}

static struct queue_cell cell_of(struct rig *rig, uint64_t queue)
{
	struct store_txn *txn = NULL;
	struct queue_cell cell;

	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(queue_cell_get(txn, 1, queue, &cell), 0);
	store_abort(txn);
	return cell;
}

static size_t put_frame(uint8_t *at, const char *queue, const void *body, size_t len)
{
	static uint8_t bytes[(8 << 20) + 256];
	struct envelope envelope = {.body = {body, len}};
	struct frame_publish publish = {.target_kind = PUBLISH_TO_QUEUE,
					.count = 1,
					.subject = {"s", 1},
					.target = {queue, strlen(queue)}};
	struct frame_header header = {.type = FRAME_PUBLISH, .corr = 1};

	cr_assert_leq(len + 128, sizeof(bytes));
	publish.payload = (struct sluice_slice){bytes, envelope_encode(bytes, &envelope)};
	publish.raw_bytes = (uint32_t)publish.payload.len;
	header.body_bytes = (uint32_t)frame_publish_encode(at + FRAME_HEADER_BYTES, &publish);
	frame_header_encode(at, &header);
	return FRAME_HEADER_BYTES + header.body_bytes;
}

/* However many: each stays until the engine's last event of it is handled. */
Test(net, what_is_granted_while_consumers_are_closed_goes_back)
{
	enum { CONSUMERS = 200 };
	uint64_t queue, wait = 0;
	uint8_t bytes[1024];
	struct queue_cell cell;
	struct sub *sub, *next;
	struct conn *conn;
	struct rig rig;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	queue = queue_make(&rig, "q");
	for (int n = 0; n < CONSUMERS; n++) {
		feed(&rig, bytes, put_frame(bytes, "q", "x", 1));
		cr_assert_eq(answer(&rig), FRAME_PUBLISHED);
	}
	for (uint64_t n = 1; n <= CONSUMERS; n++)
		consume_make(conn, "q", n, 1);
	cr_assert_eq(engine_step(rig.engine, (struct batch_clock){1000, 1700000000000}, &wait), 0);
	cell = cell_of(&rig, queue);
	cr_assert_eq(cell.leased, CONSUMERS, "this thread has not handled the grants yet");
	HASH_ITER(hh_number, conn->subs, sub, next)
		sub_close(sub);
	cr_expect_eq(conn->closed_count, CONSUMERS);
	turns(&rig);
	cell = cell_of(&rig, queue);
	cr_expect_eq(cell.leased, 0, "%llu are leased", ULL(cell.leased));
	cr_expect_eq(cell.ready, CONSUMERS);
	cr_expect_eq(conn->closed_count, 0);
	cr_expect_eq(conn->ended_count, LIMIT_CONSUMERS_ENDED_MAX);
	cr_expect_eq(recv(rig.fd, bytes, sizeof(bytes), 0), -1, "nobody is told");
	rig_close(&rig);
}

static int settle_code(struct rig *rig, uint32_t number)
{
	struct frame_ack ack = {.subscription = number, .token = 1, .op = ACK_RELEASE};
	struct frame_header header = {.type = FRAME_ACK, .corr = 5};
	struct frame_acked acked;
	uint8_t bytes[256], body[4096];
	const char *why = "";

	header.body_bytes = (uint32_t)frame_ack_encode(bytes + FRAME_HEADER_BYTES, &ack, NULL);
	frame_header_encode(bytes, &header);
	feed(rig, bytes, FRAME_HEADER_BYTES + header.body_bytes);
	cr_assert_eq(answer_body(rig, &header, body), FRAME_ACKED);
	cr_assert_eq(frame_acked_decode((struct sluice_slice){body, header.body_bytes}, &acked,
					&why),
		     0);
	return acked.code;
}

/* limit: CONSUMERS_CLOSING_MAX, CONSUMERS_ENDED_MAX */
Test(net, consumers_that_are_closed_are_bounded)
{
	static uint8_t bytes[LIMIT_SIZE(CONSUMERS_CLOSING_MAX) * 64];
	const uint32_t most = LIMIT_CONSUMERS_CLOSING_MAX;
	struct frame_header header;
	uint8_t body[4096];
	size_t len = 0;
	struct conn *conn;
	struct rig rig;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	(void)queue_make(&rig, "q");
	for (uint64_t n = 1; n <= most; n++)
		consume_make(conn, "q", n, 0);
	turns(&rig);
	for (uint32_t n = 1; n < most; n++)
		len += close_frame(bytes + len, n);
	cr_assert_eq(write(rig.fd, bytes, len), (ssize_t)len);
	loop(&rig);
	cr_expect_eq(conn->closed_count, most - 1);
	cr_expect(conn->reading, "one more may be closed");
	len = close_frame(bytes, most);
	len += frame_put(bytes + len, FRAME_PING, "", 0);
	cr_assert_eq(write(rig.fd, bytes, len), (ssize_t)len);
	loop(&rig);
	cr_expect_eq(conn->closed_count, most);
	cr_expect(!conn->reading, "it is not read from");
	for (uint32_t n = 1; n <= most; n++) {
		uint8_t at[FRAME_HEADER_BYTES];

		cr_assert_eq(read(rig.fd, at, sizeof(at)), (ssize_t)sizeof(at));
		cr_assert_eq(at[4], FRAME_REPLY);
	}
	cr_expect_eq(recv(rig.fd, body, sizeof(body), MSG_PEEK), -1, "and PING has no answer");
	turns(&rig);
	cr_expect_eq(conn->closed_count, 0);
	cr_expect(conn->reading);
	cr_assert_eq(answer_body(&rig, &header, body), FRAME_PONG);
	cr_expect_eq(settle_code(&rig, most - LIMIT_CONSUMERS_ENDED_MAX), SLUICE_E_NOT_FOUND);
	cr_expect_eq(settle_code(&rig, most - LIMIT_CONSUMERS_ENDED_MAX + 1), SLUICE_E_STALE_TOKEN);
	cr_expect_eq(settle_code(&rig, most), SLUICE_E_STALE_TOKEN);
	rig_close(&rig);
}

/* A number may name several that were closed: the last one counts, wherever it waits. */
Test(net, a_number_that_was_used_again_is_of_the_last_that_was_closed)
{
	struct conn *conn;
	uint64_t queue, other;
	struct rig rig;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	queue = queue_make(&rig, "q");
	other = queue_make(&rig, "other");
	consume_make(conn, "q", 7, 0);
	turns(&rig);
	sub_close(sub_find(conn, 7));
	/* The engine never sees this one, so it ends at once. */
	consume_make(conn, "other", 7, 0);
	sub_close(sub_find(conn, 7));
	loop(&rig);
	cr_assert_eq(conn->closed_count, 1);
	cr_assert_eq(conn->ended_count, 1);
	cr_expect_eq(sub_find_settling(conn, 7)->key.id, other);
	turns(&rig);
	cr_assert_eq(conn->ended_count, 2);
	consume_make(conn, "q", 7, 0);
	turns(&rig);
	sub_close(sub_find(conn, 7));
	cr_expect_eq(sub_find_settling(conn, 7)->key.id, queue);
	rig_close(&rig);
}

/* ---- what is under way ---- */

/* limit: CONN_PENDING_BYTES_MAX */
Test(net, a_connection_is_not_read_while_too_much_of_it_is_unanswered)
{
	enum { BODY_BYTES = 8 << 20, PUBLISHES = 8 };
	static uint8_t frame[BODY_BYTES + 1024], body[BODY_BYTES];
	size_t len, at = 0;
	unsigned fed = 0;
	struct conn *conn;
	struct rig rig;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	(void)queue_make(&rig, "q");
	len = put_frame(frame, "q", body, BODY_BYTES);
	for (int idle = 0; idle < 100 && fed < PUBLISHES; idle++) {
		ssize_t put = write(rig.fd, frame + at, len - at);

		if (put > 0) {
			idle = 0;
			at += (size_t)put;
		}
		if (at == len) {
			at = 0;
			fed++;
		}
		(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
	}
	cr_expect_lt(fed, (unsigned)PUBLISHES);
	/* A frame more, and the memory that frames came in. */
	cr_expect_geq(conn->pending_bytes + conn->buf_bytes, LIMIT_CONN_PENDING_BYTES_MAX);
	cr_expect_lt(conn->pending_bytes + conn->buf_bytes,
		     LIMIT_CONN_PENDING_BYTES_MAX + 2 * LIMIT_FRAME_BYTES_MAX);
	cr_expect_leq(conn->pending_count, 4, "%llu are taken", ULL(conn->pending_count));
	cr_expect(!conn->reading);
	feed(&rig, frame + at, len - at);
	for (unsigned n = 0; n <= fed; n++)
		cr_expect_eq(answer(&rig), FRAME_PUBLISHED);
	cr_expect_eq(conn->pending_bytes, 0);
	conn->pending_bytes = LIMIT_CONN_PENDING_BYTES_MAX - 1;
	cr_expect(conn_may_take(conn), "below the bound");
	conn->pending_bytes++;
	cr_expect(!conn_may_take(conn), "at the bound");
	conn->pending_bytes = 0;
	rig_close(&rig);
}

/* ---- deliveries that are paused ---- */

/* Reads so much of what the broker sends, turning the loop. */
static void read_off(struct rig *rig, size_t bytes)
{
	static uint8_t part[1 << 16];

	while (bytes > 0) {
		ssize_t got = read(rig->fd, part, bytes < sizeof(part) ? bytes : sizeof(part));

		if (got > 0)
			bytes -= (size_t)got;
		else
			cr_assert_eq(errno, EAGAIN);
		turn(rig);
	}
}

/* Its output has to fall to the low mark; below the bound requests are taken again before that. */
Test(net, a_consumer_that_is_opened_while_others_are_paused_is_paused, .timeout = 60)
{
	enum { BODY_BYTES = 8 << 20, ITEMS = 3 };
	static uint8_t frame[BODY_BYTES + 1024], body[BODY_BYTES];
	struct conn *conn;
	struct rig rig;
	uint64_t late;
	size_t len;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	(void)queue_make(&rig, "large");
	late = queue_make(&rig, "late");
	for (int n = 0; n < ITEMS; n++) {
		feed(&rig, frame, put_frame(frame, "large", body, BODY_BYTES));
		cr_assert_eq(answer(&rig), FRAME_PUBLISHED);
	}
	len = put_frame(frame, "late", "x", 1);
	feed(&rig, frame, len);
	cr_assert_eq(answer(&rig), FRAME_PUBLISHED);
	consume_make(conn, "large", 1, ITEMS);
	turns(&rig);
	cr_assert(conn->subs_paused && conn_is_full(conn));
	read_off(&rig, BODY_BYTES + BODY_BYTES / 2);
	cr_assert(conn->subs_paused && !conn_is_full(conn), "between the bound and the low mark");
	consume_make(conn, "late", 2, 1);
	turns(&rig);
	cr_expect_eq(cell_of(&rig, late).leased, 0);
	read_off(&rig, BODY_BYTES);
	turns(&rig);
	cr_expect(!conn->subs_paused);
	cr_expect_eq(cell_of(&rig, late).leased, 1);
	rig_close(&rig);
}

/* Above the bound of all connections, at which this one may have FAIR_BYTES. What is sent from
 * where it lies may take the output below it with nothing left that waits for the socket. */
Test(net, deliveries_go_on_when_all_was_sent_at_once)
{
	enum { OUTPUT_BYTES = (1 << 18) + 1, PART_BYTES = 1 << 16 };
	static const uint8_t zeros[OUTPUT_BYTES];
	const struct sluice_slice part = {zeros, PART_BYTES};
	const int room = 1 << 20;
	struct conn *conn;
	struct rig rig;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	cr_assert_eq(setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)), 0);
	(void)queue_make(&rig, "q");
	consume_make(conn, "q", 1, 1);
	turns(&rig);
	rig.net->config.outbox_bytes_max = 1;
	conn_write(conn, zeros, OUTPUT_BYTES);
	subs_pause_if_full(conn);
	cr_assert(conn->subs_paused);
	conn_write_parts(conn, &part, 1);
	conns_flush(conn->io);
	read_off(&rig, OUTPUT_BYTES + PART_BYTES);
	turns(&rig);
	cr_expect(!conn->subs_paused, "%zu bytes are unsent", conn_unsent(conn));
	rig_close(&rig);
}

/* limit: INFLIGHT_REQUESTS_MAX, OUTBOX_BYTES_MAX */
Test(net, a_connection_is_read_below_each_of_its_bounds)
{
	static uint8_t bytes[LIMIT_SIZE(OUTBOX_BYTES_MAX) / 2];
	struct conn *conn;
	struct rig rig;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	conn->pending_count = LIMIT_INFLIGHT_REQUESTS_MAX - 1;
	cr_expect(conn_may_take(conn));
	conn->pending_count++;
	cr_expect(!conn_may_take(conn));
	conn->pending_count = 0;
	/* Of all connections together: above it each may have 256 KiB. */
	rig.net->config.outbox_bytes_max = 1;
	conn_write(conn, bytes, 1 << 18);
	cr_expect(conn_may_take(conn));
	conn_write(conn, bytes, 1);
	cr_expect(!conn_may_take(conn));
	rig.net->config.outbox_bytes_max = (1 << 18) + 1;
	cr_expect(conn_may_take(conn), "at the bound of all");
	rig.net->config.outbox_bytes_max--;
	cr_expect(!conn_may_take(conn), "one above it");
	rig.net->config.outbox_bytes_max = 0;
	conn_write(conn, bytes, sizeof(bytes) - conn_unsent(conn));
	cr_expect(conn_may_take(conn));
	conn_write(conn, bytes, 1);
	cr_expect(!conn_may_take(conn));
	rig_close(&rig);
}

/* ---- many subscriptions ---- */

/* limit: SUBSCRIPTIONS_ALL_MAX */
Test(net, subscriptions_of_all_connections_are_bounded)
{
	struct door_sub_spec spec = {.kind = DOOR_CONSUME, .name = {"q", 1}};
	struct door_subscribed ret;
	struct conn *conn;
	struct rig rig;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	(void)queue_make(&rig, "q");
	/* As if others had so many. */
	atomic_fetch_add(&rig.net->subs, LIMIT_SUBSCRIPTIONS_ALL_MAX - 1);
	cr_expect_eq(door_subscribe(conn, 1, &spec, &ret), 0);
	cr_expect_eq(door_subscribe(conn, 2, &spec, &ret), SLUICE_E_LIMIT);
	turns(&rig);
	cr_assert_eq(door_unsubscribe(conn, 1), 0);
	turns(&rig);
	cr_assert_eq(conn->ended_count, 1u);
	cr_expect_eq(door_subscribe(conn, 2, &spec, &ret), SLUICE_E_LIMIT, "it is still known");
	sub_drop(conn->ended);
	cr_expect_eq(door_subscribe(conn, 2, &spec, &ret), 0);
	atomic_fetch_sub(&rig.net->subs, LIMIT_SUBSCRIPTIONS_ALL_MAX - 1);
	conn_kill(conn, "the test ends it");
	turns(&rig);
	cr_expect_eq(atomic_load(&rig.net->subs), 0u);
	rig_close(&rig);
}

enum { CONNS = 98, SUBS_EACH = 1024 };

/* notices: to this connection, which come before the answer. */
static void queue_delete(struct rig *rig, const char *name, unsigned notices)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueDelete delete = SLUICE__QUEUE_DELETE__INIT;

	delete.name = (char *)(uintptr_t)name;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_DELETE;
	request.queue_delete = &delete;
	ask(rig, 10, &request);
	while (notices-- > 0)
		cr_expect_eq(answer(rig), FRAME_NOTICE);
	cr_assert_eq(reply_code(rig, 10), 0);
}

/* Connections beside the rig's own. */
static void conns_make(struct rig *rig, int fds[CONNS])
{
	for (int i = 0; i < CONNS; i++) {
		int pair[2];

		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
					pair),
			     0);
		fds[i] = pair[1];
		cr_assert_eq(net_adopt(rig->net, &native_protocol, NULL, pair[0]), 0);
	}
	turn(rig);
	for (int i = 0; i < CONNS; i++)
		cr_assert_eq(write(fds[i], plain_hello, sizeof(plain_hello)),
			     (ssize_t)sizeof(plain_hello));
	turns(rig);
	cr_assert_eq(HASH_COUNT(rig->net->ios[0].conns), CONNS + 1u);
}

/* One turn of the loop, at most one round of each of its events. */
static void loop_once(struct rig *rig)
{
	(void)event_base_loop(rig->net->ios[0].base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

/* The type of the next frame; no turn of the loop. */
static uint8_t arrived(struct rig *rig)
{
	struct frame_header header;
	uint8_t bytes[4096];
	const char *why = "";

	cr_assert_eq(read(rig->fd, bytes, FRAME_HEADER_BYTES), (ssize_t)FRAME_HEADER_BYTES);
	cr_assert_eq(frame_header_decode(bytes, sizeof(bytes), &header, &why), 0, "%s", why);
	cr_assert_eq(read(rig->fd, bytes, header.body_bytes), (ssize_t)header.body_bytes);
	return header.type;
}

enum { SUBS_A_TURN = 1024 }; /* that end in one turn of the loop, at most */

/* Whoever is told something is told of its own ends before. */
Test(net, a_deletion_ends_a_part_of_its_subscriptions_in_each_round, .timeout = 60)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueDelete delete = SLUICE__QUEUE_DELETE__INIT;
	struct conn *own, *conn, *next;
	struct followed *deleted;
	uint8_t bytes[256];
	int fds[CONNS];
	struct rig rig;
	struct io *io;
	size_t len;

	greet(&rig);
	io = &rig.net->ios[0];
	own = io->conns;
	(void)queue_make(&rig, "many");
	conns_make(&rig, fds);
	HASH_ITER(hh, io->conns, conn, next) {
		for (uint64_t n = 1; conn != own && n <= SUBS_EACH; n++)
			consume_make(conn, "many", n, 0);
	}
	for (uint64_t n = 1; n <= 3; n++)
		consume_make(own, "many", n, 0);
	turns(&rig);
	io->subs_visited = 0;
	delete.name = (char *)(uintptr_t) "many";
	request.op_case = SLUICE__REQUEST__OP_QUEUE_DELETE;
	request.queue_delete = &delete;
	len = request_frame(bytes, 10, &request);
	cr_assert_eq(write(rig.fd, bytes, len), (ssize_t)len);
	turn(&rig);
	loop_once(&rig);
	deleted = io->deleted;
	cr_assert_not_null(deleted, "not all have ended");
	cr_expect_leq(io->subs_visited, SUBS_A_TURN, "%llu", ULL(io->subs_visited));
	for (int n = 0; n < 3; n++)
		cr_expect_eq(arrived(&rig), FRAME_NOTICE);
	cr_expect_eq(arrived(&rig), FRAME_REPLY, "behind its own, before those of others");
	len = frame_put(bytes, FRAME_PING, "", 0);
	cr_assert_eq(write(rig.fd, bytes, len), (ssize_t)len);
	loop_once(&rig);
	cr_expect_eq(arrived(&rig), FRAME_PONG);
	cr_expect_not_null(io->deleted, "others are still to end");
	/* A request of one of them is a reason for the ends of all its own. */
	conn = deleted->subs->peer_prev->conn;
	cr_assert_eq(HASH_CNT(hh_number, conn->subs), (unsigned)SUBS_EACH);
	conn_parse(conn);
	cr_expect_eq(HASH_CNT(hh_number, conn->subs), (unsigned)SUBS_EACH, "it has sent nothing");
	answer_when_released(conn, 1, 0, NULL, 0, 0);
	cr_expect_eq(HASH_CNT(hh_number, conn->subs), 0u);
	turns(&rig);
	cr_expect_null(io->deleted);
	cr_expect_eq(io->subs_visited, CONNS * SUBS_EACH + 3u);
	for (int i = 0; i < CONNS; i++)
		(void)close(fds[i]);
	rig_close(&rig);
}

Test(net, of_many_connections_that_end_a_part_is_freed_in_each_round, .timeout = 60)
{
	enum { LARGE = 10 };
	struct conn *own, *conn, *next;
	unsigned large = 0;
	int fds[CONNS];
	struct rig rig;
	struct io *io;

	greet(&rig);
	io = &rig.net->ios[0];
	own = io->conns;
	(void)queue_make(&rig, "many");
	conns_make(&rig, fds);
	HASH_ITER(hh, io->conns, conn, next) {
		if (conn == own || large++ >= LARGE)
			continue;
		for (uint64_t n = 1; n <= SUBS_EACH; n++)
			consume_make(conn, "many", n, 0);
	}
	turns(&rig);
	for (int i = 0; i < CONNS; i++)
		(void)close(fds[i]);
	for (int n = 0; n < 1000 && HASH_COUNT(io->conns) > 1; n++) {
		uint64_t before = HASH_CNT(hh_tag, io->subs), after;

		loop_once(&rig);
		after = HASH_CNT(hh_tag, io->subs);
		/* The one with which a round has enough is freed whole. */
		cr_expect_leq(before - after, 2u * (512 + SUBS_EACH), "%llu", ULL(before - after));
	}
	cr_expect_eq(HASH_COUNT(io->conns), 1u);
	cr_expect_null(io->subs);
	turns(&rig);
	rig_close(&rig);
}

/* 100,352 consumers of one queue, and one of another. */
Test(net, a_deletion_costs_its_own_subscriptions_and_no_others, .timeout = 60)
{
	struct engine_facts facts;
	struct conn *own, *conn, *next;
	int fds[CONNS];
	struct rig rig;
	struct io *io;

	greet(&rig);
	io = &rig.net->ios[0];
	own = io->conns;
	(void)queue_make(&rig, "many");
	(void)queue_make(&rig, "one");
	conns_make(&rig, fds);
	HASH_ITER(hh, io->conns, conn, next) {
		for (uint64_t n = 1; conn != own && n <= SUBS_EACH; n++)
			consume_make(conn, "many", n, 0);
	}
	consume_make(own, "one", 1, 0);
	turns(&rig);
	engine_facts_get(rig.engine, &facts);
	cr_assert_eq(facts.consumers, CONNS * SUBS_EACH + 1u);
	io->subs_visited = 0;
	queue_delete(&rig, "one", 1);
	turns(&rig);
	cr_expect_eq(io->subs_visited, 1, "%llu", ULL(io->subs_visited));
	queue_delete(&rig, "many", 0);
	turns(&rig);
	cr_expect_eq(io->subs_visited, CONNS * SUBS_EACH + 1u);
	engine_facts_get(rig.engine, &facts);
	cr_expect_eq(facts.consumers, 0);
	cr_expect_eq(facts.notes, 0);
	cr_expect_eq(facts.inbox_bytes, 0);
	cr_expect_null(io->subs);
	for (int i = 0; i < CONNS; i++)
		(void)close(fds[i]);
	rig_close(&rig);
}
