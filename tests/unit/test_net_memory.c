/* SPDX-License-Identifier: Apache-2.0
 * Connections when an allocation fails, in net, protocol, libevent, protobuf-c or zstd: the n-th of
 * a connection's life on its thread fails, for each n. The connection is closed or its request is
 * refused with BUSY; other connections and the broker continue. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/envelope.h"
#include "protocol/message.h"
#include "tests/unit/net_rig.h"

/* ---- an allocator of the whole process that fails ---- */

static long left;   /* allocations until one fails; 0: none does */
static bool counts; /* only what the thread of the connections does */
static bool failed;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_ALLOCATOR 0 /* these functions allocate themselves */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
	__has_feature(memory_sanitizer)
#define OWN_ALLOCATOR 0
#endif
#endif
#ifndef OWN_ALLOCATOR
#define OWN_ALLOCATOR 1
#endif

#if OWN_ALLOCATOR
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);

static bool fails(void)
{
	if (!counts || left == 0 || --left > 0)
		return false;
	failed = true;
	errno = ENOMEM;
	return true;
}

__attribute__((visibility("default"))) void *malloc(size_t bytes)
{
	return fails() ? NULL : __libc_malloc(bytes);
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t bytes)
{
	return fails() ? NULL : __libc_calloc(count, bytes);
}

__attribute__((visibility("default"))) void *realloc(void *old, size_t bytes)
{
	return fails() ? NULL : __libc_realloc(old, bytes);
}
#endif

/* ---- the broker ---- */

static void engine_turn(struct rig *rig)
{
	const struct batch_clock now = {1000, 1700000000000};
	uint64_t wait = 0;

	cr_assert_eq(engine_step(rig->engine, now, &wait), 0);
}

/* A batch without memory ends the process (broker/engine/README.md), so only the loop's allocations
 * fail. */
static void loop_turn(struct rig *rig)
{
	counts = true;
	(void)event_base_loop(rig->net->ios[0].base, EVLOOP_NONBLOCK);
	counts = false;
	engine_turn(rig);
}

struct client {
	int fd;
	bool closed;
	uint8_t in[1 << 16];
	size_t len;
};

static void client_open(struct rig *rig, struct client *client)
{
	int pair[2];

	memset(client, 0, sizeof(*client));
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	client->fd = pair[1];
	cr_assert_eq(net_adopt(rig->net, &native_protocol, NULL, pair[0]), 0);
}

static void client_send(struct client *client, const uint8_t *bytes, size_t len)
{
	ssize_t put = send(client->fd, bytes, len, MSG_NOSIGNAL);

	if (put < 0)
		client->closed = true;
	else
		cr_assert_eq(put, (ssize_t)len);
}

/* Turns until the next frame is there; its type, 0: the broker has closed the connection. */
static uint8_t client_frame(struct rig *rig, struct client *client, uint8_t *ret_body,
			    size_t *ret_len)
{
	for (int n = 0; n < 200; n++) {
		struct frame_header header;
		const char *why = "";
		ssize_t got;

		if (client->len >= FRAME_HEADER_BYTES) {
			cr_assert_eq(frame_header_decode(client->in, sizeof(client->in), &header,
							 &why),
				     0);
			if (client->len >= FRAME_HEADER_BYTES + header.body_bytes) {
				size_t all = FRAME_HEADER_BYTES + header.body_bytes;

				memcpy(ret_body, client->in + FRAME_HEADER_BYTES,
				       header.body_bytes);
				*ret_len = header.body_bytes;
				memmove(client->in, client->in + all, client->len - all);
				client->len -= all;
				return header.type;
			}
		}
		if (client->closed)
			return 0;
		loop_turn(rig);
		got = recv(client->fd, client->in + client->len, sizeof(client->in) - client->len,
			   0);
		if (got > 0)
			client->len += (size_t)got;
		else if (got == 0 || errno != EAGAIN)
			client->closed = true;
	}
	cr_assert_fail("nothing comes, and it is not closed");
	return 0;
}

/* ---- the steps of a connection ---- */

static int32_t code_at(const uint8_t *at)
{
	return (int32_t)((uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 |
			 at[3]);
}

/* The code of an answer; 0: the frame is not an answer. */
static int answer_code(uint8_t type, const uint8_t *body, size_t len)
{
	Sluice__Reply *reply;
	int code;

	switch (type) {
	case FRAME_PUBLISHED:
		return code_at(body + 2);
	case FRAME_ACKED:
		return code_at(body);
	case FRAME_REPLY:
		reply = sluice__reply__unpack(NULL, len, body);
		cr_assert_not_null(reply);
		code = reply->code;
		if (code != 0)
			cr_expect_not_null(strstr(reply->text, "out of memory"), "%s", reply->text);
		sluice__reply__free_unpacked(reply, NULL);
		return code;
	default:
		return 0;
	}
}

static size_t publish_frame(uint8_t *at, bool zstd)
{
	static uint8_t raw[8192], packed[8192];
	static uint8_t zeros[3000];
	struct frame_publish publish = {.target_kind = PUBLISH_TO_QUEUE,
					.count = 2,
					.target = {"dead-letter", 11}};
	struct envelope envelope = {.subject = {"s", 1}, .body = {zeros, sizeof(zeros)}};
	size_t len = envelope_encode(raw, &envelope);

	len += envelope_encode(raw + len, &envelope);
	publish.payload = (struct sluice_slice){raw, len};
	publish.raw_bytes = (uint32_t)len;
	if (zstd) {
		publish.codec = BATCH_ZSTD;
		publish.payload =
			(struct sluice_slice){packed,
					      ZSTD_compress(packed, sizeof(packed), raw, len, 1)};
	}
	len = frame_publish_encode(at + FRAME_HEADER_BYTES, &publish);
	frame_header_encode(at, &(struct frame_header){.body_bytes = (uint32_t)len,
						       .type = FRAME_PUBLISH,
						       .corr = 5});
	return FRAME_HEADER_BYTES + len;
}

enum step {
	HELLO,
	PUBLISH,
	PUBLISH_ZSTD,
	CONSUME,
	DELIVERED,
	ACK,
	CREATE,
	FOLLOW,
	LIST,
	PING,
	STEPS
};

static size_t step_frame(enum step step, uint8_t *at, const struct frame_deliver *delivered)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__ConsumeOpen consume = SLUICE__CONSUME_OPEN__INIT;
	Sluice__FollowOpen follow = SLUICE__FOLLOW_OPEN__INIT;
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT;
	Sluice__StreamCreate create = SLUICE__STREAM_CREATE__INIT;
	Sluice__QueueList list = SLUICE__QUEUE_LIST__INIT;
	struct frame_ack ack = {.subscription = 1,
				.token = delivered->token,
				.op = ACK_DONE,
				.run_count = 1};
	char queue[] = "dead-letter", stream[] = "s", filter[] = "a.*";

	switch (step) {
	case HELLO:
		memcpy(at, plain_hello, sizeof(plain_hello));
		return sizeof(plain_hello);
	case PUBLISH:
	case PUBLISH_ZSTD:
		return publish_frame(at, step == PUBLISH_ZSTD);
	case CONSUME:
		consume.queue = queue;
		consume.subscription = consume.credit = 1;
		request.op_case = SLUICE__REQUEST__OP_CONSUME_OPEN;
		request.consume_open = &consume;
		return request_frame(at, step, &request);
	case ACK: {
		struct frame_run run = frame_run_at(delivered->runs, 0);
		size_t len = frame_ack_encode(at + FRAME_HEADER_BYTES, &ack, &run);

		frame_header_encode(at, &(struct frame_header){.body_bytes = (uint32_t)len,
							       .type = FRAME_ACK,
							       .corr = step});
		return FRAME_HEADER_BYTES + len;
	}
	case CREATE:
		config.name = stream;
		create.config = &config;
		create.if_not_exists = true;
		request.op_case = SLUICE__REQUEST__OP_STREAM_CREATE;
		request.stream_create = &create;
		return request_frame(at, step, &request);
	case FOLLOW:
		follow.stream = stream;
		follow.subscription = 2;
		follow.filter = filter;
		request.op_case = SLUICE__REQUEST__OP_FOLLOW_OPEN;
		request.follow_open = &follow;
		return request_frame(at, step, &request);
	case LIST:
		request.op_case = SLUICE__REQUEST__OP_QUEUE_LIST;
		request.queue_list = &list;
		return request_frame(at, step, &request);
	case PING:
		return frame_put(at, FRAME_PING, at, 0);
	default:
		return 0;
	}
}

static const uint8_t answers[STEPS] = {FRAME_WELCOME, FRAME_PUBLISHED, FRAME_PUBLISHED, FRAME_REPLY,
				       FRAME_DELIVER, FRAME_ACKED,     FRAME_REPLY,	FRAME_REPLY,
				       FRAME_REPLY,   FRAME_PONG};

/* True: all steps succeeded. Otherwise a request was refused for lack of memory, or the connection
 * was closed. */
static bool life(struct rig *rig)
{
	static uint8_t out[1 << 16], body[1 << 16];
	struct frame_deliver delivered = {0};
	struct client client;
	bool well = true, consumes = false;

	client_open(rig, &client);
	for (int step = HELLO; step < STEPS && !client.closed; step++) {
		size_t len, bytes;
		uint8_t type;
		int code;

		if ((step == DELIVERED || step == ACK) && !consumes)
			continue;
		bytes = step_frame((enum step)step, out, &delivered);
		if (bytes > 0)
			client_send(&client, out, bytes);
		type = client_frame(rig, &client, body, &len);
		if (type == 0 || type == FRAME_ERROR)
			break;
		cr_assert_eq(type, answers[step], "step %d is answered with a frame of type %u",
			     step, type);
		code = answer_code(type, body, len);
		cr_assert(code == 0 || code == SLUICE_E_BUSY, "step %d: %s", step,
			  sluice_error_name(code));
		well &= code == 0;
		consumes |= step == CONSUME && code == 0;
		if (step == DELIVERED) {
			static uint8_t kept[1 << 16];
			const char *why = "";

			memcpy(kept, body, len);
			cr_assert_eq(frame_deliver_decode((struct sluice_slice){kept, len},
							  &delivered, &why),
				     0, "%s", why);
		}
		if (step == PING) {
			(void)close(client.fd);
			for (int n = 0; n < 3; n++)
				loop_turn(rig);
			return well;
		}
	}
	(void)close(client.fd);
	for (int n = 0; n < 3; n++)
		loop_turn(rig);
	return false;
}

Test(net_memory, each_allocation_of_a_connection_may_fail, .timeout = 60)
{
	unsigned lives = 0, hurt = 0;
	struct rig rig;

	rig_open(&rig);
	cr_assert(life(&rig), "with enough memory");
	do {
		bool well;

		cr_assert_lt(lives, 2000u);
		left = ++lives;
		failed = false;
		well = life(&rig);
		left = 0;
		hurt += failed && !well;
		cr_assert(failed || well, "it failed without a failing allocation, life %u", lives);
		cr_assert(life(&rig), "after allocation %u failed, other connections see no change",
			  lives);
		cr_assert_eq(net_connections(rig.net), 1u, "%llu connections after life %u",
			     (unsigned long long)net_connections(rig.net), lives);
	} while (failed);
	if (OWN_ALLOCATOR)
		cr_expect_gt(hurt, 20u, "%u of %u lives", hurt, lives);
	cr_expect_eq(atomic_load(&rig.net->unsent), 0u);
	rig_close(&rig);
}

Test(net_memory, a_connection_that_no_thread_can_be_given_is_closed)
{
	int pair[2];
	struct rig rig;
	char byte;

	rig_open(&rig);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	left = 1;
	counts = OWN_ALLOCATOR;
	if (OWN_ALLOCATOR)
		cr_expect_eq(net_adopt(rig.net, &native_protocol, NULL, pair[0]), SLUICE_E_NOMEM);
	else
		(void)close(pair[0]);
	counts = false;
	left = 0;
	cr_expect_eq(read(pair[1], &byte, 1), 0, "its peer is told");
	cr_expect_eq(net_connections(rig.net), 1u);
	(void)close(pair[1]);
	cr_assert(life(&rig), "the broker and its connections go on");
	rig_close(&rig);
}

/* ---- a follower ---- */

static void one_step(struct rig *rig, struct client *client, enum step step)
{
	static uint8_t out[1 << 16], body[1 << 16];
	const struct frame_deliver none = {0};
	size_t len;

	client_send(client, out, step_frame(step, out, &none));
	cr_assert_eq(client_frame(rig, client, body, &len), answers[step]);
	cr_assert_eq(answer_code(answers[step], body, len), 0);
}

static void follow(struct rig *rig, struct client *client)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__FollowOpen open = SLUICE__FOLLOW_OPEN__INIT;
	uint8_t bytes[256], body[4096];
	char stream[] = "s";
	size_t len;

	open.stream = stream;
	open.subscription = 2;
	open.credit = 10;
	request.op_case = SLUICE__REQUEST__OP_FOLLOW_OPEN;
	request.follow_open = &open;
	client_send(client, bytes, request_frame(bytes, FOLLOW, &request));
	cr_assert_eq(client_frame(rig, client, body, &len), FRAME_REPLY);
	cr_assert_eq(answer_code(FRAME_REPLY, body, len), 0);
	cr_assert_eq(client_frame(rig, client, body, &len), FRAME_NOTICE, "it has caught up");
}

struct publishing {
	struct submission submission;
	struct frame_publish publish;
	uint8_t bytes[64];
};

static void publishing_free(struct submission *submission)
{
	free(submission);
}

/* An event that no connection has published. */
static void publish_event(struct rig *rig)
{
	struct envelope envelope = {.subject = {"a.b", 3}, .body = {"x", 1}};
	struct publishing *own = calloc(1, sizeof(*own));

	cr_assert_not_null(own);
	own->publish = (struct frame_publish){.target_kind = PUBLISH_TO_STREAM,
					      .count = 1,
					      .target = {"s", 1}};
	own->publish.payload.data = own->bytes;
	own->publish.payload.len = envelope_encode(own->bytes, &envelope);
	own->publish.raw_bytes = (uint32_t)own->publish.payload.len;
	own->submission.command =
		(struct command){.type = COMMAND_PUBLISH, .gateway = 1, .body = &own->publish};
	own->submission.bytes = sizeof(*own);
	own->submission.destroy = publishing_free;
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
	engine_turn(rig);
}

/* The first allocation of the round that has an event for it is the snapshot. */
Test(net_memory, a_follower_without_a_snapshot_is_served_later)
{
	struct client client;
	uint8_t body[4096];
	struct rig rig;
	size_t len;

	rig_open(&rig);
	client_open(&rig, &client);
	one_step(&rig, &client, HELLO);
	one_step(&rig, &client, CREATE);
	follow(&rig, &client);
	publish_event(&rig);
	left = 1;
	failed = false;
	loop_turn(&rig);
	left = 0;
	cr_assert_eq(failed, OWN_ALLOCATOR != 0);
	io_again(&rig.net->ios[0]);
	cr_assert_eq(client_frame(&rig, &client, body, &len), FRAME_DELIVER);
	(void)close(client.fd);
	rig_close(&rig);
}

/* ---- a foreign consumer ---- */

static const struct sluice_listener_host *foreign_host;
static struct conn *foreign_conn;

static int plain_accept(const struct sluice_listener_host *host, sluice_conn *conn,
			void **ret_state)
{
	foreign_host = host;
	foreign_conn = (struct conn *)conn;
	*ret_state = NULL;
	return 0;
}

static long plain_bytes(void *state, const void *bytes, size_t len)
{
	(void)state;
	(void)bytes;
	return (long)len;
}

static unsigned items;

static void plain_effect(void *state, const struct sluice_listener_effect *effect)
{
	(void)state;
	items += effect->kind == SLUICE_EFFECT_ITEM;
}

static void plain_closed(void *state)
{
	(void)state;
}

Test(net_memory, a_consumer_that_could_not_be_opened_leaves_its_tag_free)
{
	static const struct sluice_listener_ops ops = {
		.struct_size = sizeof(struct sluice_listener_ops),
		.protocol = "plain",
		.accept = plain_accept,
		.bytes = plain_bytes,
		.effect = plain_effect,
		.closed = plain_closed,
	};
	const struct sluice_slice queue = {"dead-letter", 11}, subject = {"s", 1}, body = {"b", 1};
	sluice_conn *handle;
	struct rig rig;
	int rc = SLUICE_E_NOMEM;
	long n = 0;

	rig_open_as(&rig, &foreign_protocol, &ops);
	handle = (sluice_conn *)foreign_conn;
	cr_assert_eq(foreign_host->session(handle, "default", 5000, 1), 0);
	turns(&rig);
	while (rc == SLUICE_E_NOMEM) {
		left = ++n;
		counts = true;
		rc = foreign_host->consume(handle, 7, queue, 100, 0);
		counts = false;
		cr_assert(rc == 0 || rc == SLUICE_E_NOMEM, "allocation %ld: %s", n,
			  sluice_error_name(rc));
		cr_assert_eq(sub_find(foreign_conn, 7) != NULL, rc == 0);
	}
	left = 0;
	if (OWN_ALLOCATOR)
		cr_expect_gt(n, 4L, "%ld", n);
	cr_assert_eq(foreign_host->publish(handle, 2, subject, queue, body), 0);
	turns(&rig);
	cr_expect_eq(items, 1u);
	rig_close(&rig);
}
