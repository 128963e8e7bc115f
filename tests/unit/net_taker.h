/* SPDX-License-Identifier: Apache-2.0
 * A protocol that notes how it is called, and takes memory, asks for bytes or refuses them as the
 * test says. All functions are static, because each test program is one file. */
#ifndef TESTS_UNIT_NET_TAKER_H
#define TESTS_UNIT_NET_TAKER_H

#include "tests/unit/net_rig.h"

static inline struct io *io_of(struct rig *rig)
{
	return &rig->net->ios[0];
}

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

static inline const char *taker_name(const struct conn *conn)
{
	(void)conn;
	return "taker";
}

static inline int taker_accept(struct conn *conn)
{
	taker.conn = conn;
	return 0;
}

static inline void note(char what)
{
	if (taker.call_count < sizeof(taker.calls_made) - 1)
		taker.calls_made[taker.call_count++] = what;
}

static inline void taker_round(struct conn *conn)
{
	cr_expect_eq(conn, taker.conn);
	note('r');
}

static inline void taker_ready(struct conn *conn, enum door_ready what)
{
	cr_expect_eq(conn, taker.conn);
	note(what == DOOR_READY_OUTPUT ? 'o' : 'i');
	if (what == DOOR_READY_OUTPUT)
		cr_expect_leq(conn_unsent(conn), (size_t)LOW_BYTES, "the low mark");
}

static inline void taker_timer(struct conn *conn)
{
	cr_expect_eq(conn, taker.conn);
	note('t');
}

static inline long taker_bytes(struct conn *conn, const void *bytes, size_t len)
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

static inline void taker_closed(struct conn *conn)
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

static inline void taker_open(struct rig *rig, struct taker how)
{
	taker = how;
	rig_open_as(rig, &taker_protocol, NULL);
	cr_assert_not_null(taker.conn);
	taker.conn->gateway = 1; /* as after door_enter */
}

static inline void taker_drop(void)
{
	for (int i = 0; i < taker.takes; i++)
		door_buf_unref(taker.bufs[i]);
}

static inline void write_all(struct rig *rig, const uint8_t *bytes, size_t len)
{
	cr_assert_eq(write(rig->fd, bytes, len), (ssize_t)len);
	(void)event_base_loop(rig->net->ios[0].base, EVLOOP_NONBLOCK);
}

#endif
