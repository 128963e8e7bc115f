/* SPDX-License-Identifier: Apache-2.0
 * Connections without threads: the test turns the loop and the engine itself. All functions are
 * static, because each test program is one file. */
#ifndef TESTS_UNIT_NET_RIG_H
#define TESTS_UNIT_NET_RIG_H

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/net/conn/conn_io.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/net.h"
#include "protocol/frame.h"
#include "sluice/plugin.h"

enum { LARGE_BYTES = 4 << 20, PIECE_BYTES = 1 << 16, UNKNOWN_TYPE = 200 };

struct rig {
	struct store *store;
	struct engine *engine;
	struct net *net;
	int fd; /* the client's end */
	uint64_t mono_ms;
};

static inline void turn(struct rig *rig)
{
	const struct batch_clock now = {1000 + rig->mono_ms, 1700000000000};
	uint64_t wait = 0;

	(void)event_base_loop(rig->net->ios[0].base, EVLOOP_NONBLOCK);
	cr_assert_eq(engine_step(rig->engine, now, &wait), 0);
}

static uint32_t connections_max; /* of the next rig; 0: the default */

static inline void rig_open_as(struct rig *rig, const struct protocol_ops *protocol,
			       const void *listener)
{
	struct store_options options = {.create = true};
	struct engine_config engine = {0};
	struct net_config net = {.io_threads = 1, .connections_max = connections_max};
	int pair[2];

	rig->mono_ms = 0;
	cr_assert_eq(store_open_mem(&options, &rig->store), 0);
	cr_assert_eq(engine_create(&engine, rig->store, (struct batch_clock){1000, 1700000000000},
				   &rig->engine),
		     0);
	cr_assert_eq(net_create(&net, rig->engine, &rig->net), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	rig->fd = pair[1];
	cr_assert_eq(net_adopt(rig->net, protocol, listener, pair[0]), 0);
	turn(rig);
	cr_assert_not_null(rig->net->ios[0].conns, "it is adopted");
}

static inline void rig_open(struct rig *rig)
{
	rig_open_as(rig, &native_protocol, NULL);
}

static inline void rig_close(struct rig *rig)
{
	(void)close(rig->fd);
	net_stop(rig->net);
	net_destroy(rig->net);
	engine_destroy(rig->engine);
	store_close(rig->store);
}

/* Writes all of it, turning the loop after each piece. */
static inline void feed(struct rig *rig, const uint8_t *bytes, size_t len)
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

/* Turns the loop until a frame's header has arrived, reads the frame, and returns its type. */
static inline uint8_t answer_body(struct rig *rig, struct frame_header *ret, uint8_t body[4096])
{
	struct frame_header header;
	uint8_t bytes[FRAME_HEADER_BYTES];
	const char *why = "";
	ssize_t got = -1;

	for (int n = 0; n < 1000 && got < FRAME_HEADER_BYTES; n++) {
		turn(rig);
		got = recv(rig->fd, bytes, FRAME_HEADER_BYTES, MSG_PEEK);
	}
	cr_assert_eq(got, FRAME_HEADER_BYTES, "an answer arrived");
	cr_assert_eq(frame_header_decode(bytes, 4096, &header, &why), 0, "%s", why);
	cr_assert_leq(header.body_bytes, 4096u);
	cr_assert_eq(read(rig->fd, bytes, FRAME_HEADER_BYTES), (ssize_t)FRAME_HEADER_BYTES);
	cr_assert_eq(read(rig->fd, body, header.body_bytes), (ssize_t)header.body_bytes);
	*ret = header;
	return header.type;
}

static inline uint8_t answer(struct rig *rig)
{
	struct frame_header header;
	uint8_t body[4096];

	return answer_body(rig, &header, body);
}

/* version_min and version_max 1 */
static const uint8_t plain_hello[] = {0, 0, 0, 10, FRAME_HELLO, 0, 0, 0, 0, 0, 8, 1, 16, 1};

static inline void greet(struct rig *rig)
{
	rig_open(rig);
	feed(rig, plain_hello, sizeof(plain_hello));
	cr_assert_eq(answer(rig), FRAME_WELCOME);
}

static inline size_t request_frame(uint8_t *at, uint32_t corr, const Sluice__Request *request)
{
	struct frame_header header = {.type = FRAME_REQUEST, .corr = corr};

	header.body_bytes = (uint32_t)sluice__request__pack(request, at + FRAME_HEADER_BYTES);
	frame_header_encode(at, &header);
	return FRAME_HEADER_BYTES + header.body_bytes;
}

static inline void ask(struct rig *rig, uint32_t corr, const Sluice__Request *request)
{
	uint8_t bytes[4096];

	cr_assert_leq(sluice__request__get_packed_size(request),
		      sizeof(bytes) - FRAME_HEADER_BYTES);
	feed(rig, bytes, request_frame(bytes, corr, request));
}

/* The next frame is the reply to corr; returns its code. */
static inline int reply_code(struct rig *rig, uint32_t corr)
{
	struct frame_header header;
	uint8_t body[4096];
	Sluice__Reply *reply;
	int code;

	cr_assert_eq(answer_body(rig, &header, body), FRAME_REPLY);
	cr_assert_eq(header.corr, corr, "%u", header.corr);
	reply = sluice__reply__unpack(NULL, header.body_bytes, body);
	cr_assert_not_null(reply);
	code = reply->code;
	sluice__reply__free_unpacked(reply, NULL);
	return code;
}

static inline size_t frame_put(uint8_t *at, uint8_t type, const void *body, size_t len)
{
	struct frame_header header = {.body_bytes = (uint32_t)len, .type = type};

	frame_header_encode(at, &header);
	memcpy(at + FRAME_HEADER_BYTES, body, len);
	return FRAME_HEADER_BYTES + len;
}

static inline void turns(struct rig *rig)
{
	for (int n = 0; n < 20; n++)
		turn(rig);
}

#endif
