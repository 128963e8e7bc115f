/* SPDX-License-Identifier: Apache-2.0
 * The input of a connection: what is read, what its protocol is given, and what is kept. */
#include "broker/net/conn/input.h"

#include <errno.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/conn/bufs.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/conn/wire.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "protocol/limits.h"

enum {
	KEPT_BYTES_MIN = 4096, /* of a buffer for unparsed input */
	/* Of a connection that keeps a part of a frame while memory for input is used up: its peer
	 * sends INPUT_FAIR_BYTES in this time, or it is closed. */
	PRESS_MS = 5000
};

size_t input_kept(const struct conn *conn)
{
	return conn->kept_end - conn->kept_start;
}

static void kept_set(struct conn *conn, struct door_buf *buf)
{
	if (conn->keeps && buf == NULL)
		DL_DELETE2(conn->io->keeping, conn, keep_prev, keep_next);
	if (!conn->keeps && buf != NULL)
		DL_APPEND2(conn->io->keeping, conn, keep_prev, keep_next);
	conn->kept = buf;
	conn->keeps = buf != NULL;
}

void input_free(struct conn *conn)
{
	door_buf_unref(conn->kept);
	kept_set(conn, NULL);
	conn->kept_start = conn->kept_end = 0;
}

/* The kept bytes at the beginning of a buffer of so many bytes, which nobody else reads. */
static bool kept_move(struct conn *conn, size_t capacity)
{
	size_t len = input_kept(conn);
	struct door_buf *buf = buf_new(conn, capacity);

	if (buf == NULL)
		return false;
	if (len > 0)
		memcpy(buf->bytes, conn->kept->bytes + conn->kept_start, len);
	door_buf_unref(conn->kept);
	kept_set(conn, buf);
	return true;
}

static bool kept_grow(struct conn *conn, size_t capacity)
{
	struct door_buf *grown = buf_grow(conn->kept, capacity);

	if (grown == NULL)
		return false;
	kept_set(conn, grown);
	return true;
}

/* Space for more bytes after the kept ones; NULL: no memory. What a protocol has taken of the
 * buffer is not moved; the bytes behind the kept ones are nobody's. */
static uint8_t *kept_room(struct conn *conn, size_t more)
{
	size_t len = input_kept(conn), capacity = conn->kept != NULL ? conn->kept->capacity : 0;

	invariant(conn->kept_start <= conn->kept_end && conn->kept_end <= capacity,
		  "connection %llu keeps %zu to %zu of %zu bytes", (unsigned long long)conn->id,
		  conn->kept_start, conn->kept_end, capacity);
	if (capacity - conn->kept_end < more) {
		if (conn->kept == NULL || conn->kept->refs > 1) {
			if (!kept_move(conn, len + more))
				return NULL;
		} else {
			memmove(conn->kept->bytes, conn->kept->bytes + conn->kept_start, len);
			if (capacity - len < more && !kept_grow(conn, len + more))
				return NULL;
		}
		conn->kept_start = 0;
		conn->kept_end = len;
	}
	return conn->kept->bytes + conn->kept_end;
}

enum {
	TURN_MS = 2,	       /* for one connection, before the others of its thread are served */
	TURN_CHECK_CALLS = 16, /* between two readings of the clock, */
	TURN_CHECK_BYTES = 1 << 16
};

struct turn {
	uint64_t from_ms;
	unsigned calls;
	size_t bytes;
};

/* One read of a socket can bring 20,000 small requests, each with a read of the store: a bound on
 * bytes does not bound the time. */
static void turn_count(struct conn *conn, struct turn *turn, size_t used)
{
	turn->calls++;
	turn->bytes += used;
	if (turn->calls < TURN_CHECK_CALLS && turn->bytes < TURN_CHECK_BYTES)
		return;
	turn->calls = 0;
	turn->bytes = 0;
	if (io_now_ms() - turn->from_ms <= TURN_MS)
		return;
	conn->turn_over = true;
	io_again(conn->io);
}

/* Passes bytes to the protocol; returns how many are left. */
static size_t feed(struct conn *conn, const uint8_t *bytes, size_t len)
{
	struct turn turn = {.from_ms = io_now_ms()};

	subs_end_of(conn);
	conn->parsing = true;
	while (len > 0 && len >= conn->wanted) {
		long used;

		if (!conn_may_take(conn)) {
			/* Stop reading even if a second check would pass: the total is shared
			 * between threads, and conn_flow() resumes parsing only for connections
			 * that are marked as stopped. The protocol itself ends a hold. */
			if (!conn->held)
				conn_stop_reading(conn);
			break;
		}
		if (conn->protocol->round != NULL && !conn->in_round) {
			conn->in_round = true;
			DL_APPEND2(conn->io->rounds, conn, round_prev, round_next);
		}
		used = conn->protocol->bytes(conn, bytes, len);
		if (used > 0 && (size_t)used > len) {
			conn_kill(conn, "its listener took more bytes than there were");
			break;
		}
		if (used < 0)
			conn_close_soon(conn, "its listener ended it");
		if (used == 0 && len >= conn_frame_max(conn) && conn->wanted <= len &&
		    conn_may_take(conn))
			conn_kill(conn, "its request has no end");
		if (used <= 0)
			break;
		bytes += used;
		len -= (size_t)used;
		turn_count(conn, &turn, (size_t)used);
	}
	conn->parsing = false;
	return conn->dead || conn->closing ? 0 : len;
}

void input_feed(struct conn *conn)
{
	const uint8_t *bytes = conn->kept->bytes + conn->kept_start;

	bufs_give(conn, conn->kept, bytes, input_kept(conn), false);
	conn->kept_start = conn->kept_end - feed(conn, bytes, input_kept(conn));
	bufs_given_end(conn->io);
	if (input_kept(conn) > 0)
		return;
	if (conn->kept->refs > 1)
		input_free(conn); /* what was taken is not written to */
	conn->kept_start = conn->kept_end = 0;
}

static void keep(struct conn *conn, const uint8_t *bytes, size_t len)
{
	uint8_t *room = kept_room(conn, len);

	if (room == NULL) {
		conn_kill(conn, "no memory for its input");
		return;
	}
	memcpy(room, bytes, len);
	conn->kept_end += len;
}

static void feed_fresh(struct conn *conn, size_t len)
{
	struct door_buf *fresh = conn->io->fresh;
	size_t left;

	bufs_give(conn, fresh, fresh->bytes, len, true);
	left = feed(conn, fresh->bytes, len);
	if (left > 0)
		keep(conn, fresh->bytes + len - left, left);
	bufs_given_end(conn->io);
}

/* How many of the next bytes to append to the kept ones: the rest of a frame whose length is known,
 * at most as many as are there. So memory grows with what has arrived, never with what a frame
 * announces. */
static size_t kept_more(const struct conn *conn)
{
	size_t len = input_kept(conn), more = len > KEPT_BYTES_MIN ? len : KEPT_BYTES_MIN;

	if (conn->wanted > len && conn->wanted - len < more)
		return conn->wanted - len;
	if (len < conn_frame_max(conn) && conn_frame_max(conn) - len < more)
		return conn_frame_max(conn) - len;
	return more;
}

/* The connection may keep more than INPUT_FAIR_BYTES: there is memory, or it is the one of its
 * thread that goes on without. */
static bool may_grow(const struct conn *conn)
{
	return conn->io->favoured == conn ||
	       input_room(conn->io, (size_t)NET_READ_BYTES + kept_more(conn));
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Of the bytes that the next read may bring. 0: the connection waits. */
size_t input_max(const struct conn *conn)
{
	size_t len = input_kept(conn), max = SIZE_MAX;

	if (conn->held)
		max = conn->gateway == 0 ? LIMIT_SIZE(PREAUTH_BYTES_MAX)
					 : LIMIT_SIZE(CONN_HELD_BYTES_MAX);
	if (!may_grow(conn))
		max = smaller(max, INPUT_FAIR_BYTES);
	return len < max ? max - len : 0;
}

/* Reads once. False: no more bytes for now. */
bool input_read(struct conn *conn)
{
	struct io *io = conn->io;
	bool kept = input_kept(conn) > 0;
	size_t max = input_max(conn), fresh;
	struct iovec room[2] = {{NULL, 0}, {NULL, 0}};
	ssize_t got;

	if (max == 0)
		return false;
	if (io->fresh == NULL)
		io->fresh = buf_fresh(io);
	if (kept) {
		room[0].iov_len = smaller(kept_more(conn), max);
		room[0].iov_base = kept_room(conn, room[0].iov_len);
	}
	if (io->fresh == NULL || (kept && room[0].iov_base == NULL)) {
		conn_kill(conn, "no memory for its input");
		return false;
	}
	room[1] = (struct iovec){io->fresh->bytes, smaller(NET_READ_BYTES, max - room[0].iov_len)};
	got = kept ? conn->wire->read(conn, room, 2) : conn->wire->read(conn, room + 1, 1);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (got <= 0) {
		conn_kill(conn, got == 0 ? "the peer closed it" : "the peer reset it");
		return false;
	}
	conn->received += (size_t)got;
	fresh = (size_t)got > room[0].iov_len ? (size_t)got - room[0].iov_len : 0;
	if (kept) {
		conn->kept_end += (size_t)got - fresh;
		input_feed(conn);
	}
	/* Bytes that follow kept bytes are appended to them. */
	if (fresh > 0 && !conn->dead && !conn->closing) {
		if (input_kept(conn) == 0) {
			feed_fresh(conn, fresh);
		} else {
			keep(conn, io->fresh->bytes, fresh);
			if (!conn->dead)
				input_feed(conn);
		}
	}
	return (size_t)got == room[0].iov_len + room[1].iov_len;
}

/* ---- memory for all is used up ---- */

static void log_pressed(const struct conn *conn)
{
	static struct log_rate rate = {.per_second = 10};
	char peer[PEER_TEXT_BYTES];
	uint64_t left_out;

	if (log_may(&rate, &left_out))
		log_line(LOG_LEVEL_WARN,
			 log_id("net.input",
				"a connection is closed: memory for input is used up, and the "
				"client does not send the rest of its request, or does not read "
				"the answers to requests before others"),
			 log_u64("thread", (uint64_t)(conn->io - conn->io->net->ios)),
			 log_u64("conn", conn->id), log_str("peer", conn_peer(conn->fd, peer)),
			 log_u64("session", conn_session(conn)),
			 log_u64("kept_bytes", input_kept(conn)),
			 log_u64("wanted_bytes", conn->wanted),
			 log_u64("waiting_bytes", conn->request_bytes),
			 log_u64("unsent_bytes", conn_unsent(conn)), log_u64("left_out", left_out));
}

/* Requests of it wait until it reads, which it does not. */
static bool does_not_read(const struct conn *conn, uint64_t now_ms)
{
	return !conn->dead && conn->request_bytes >= INPUT_FAIR_BYTES && conn_is_full(conn) &&
	       conn->active_ms + PRESS_MS <= now_ms;
}

void conns_press(struct io *io, uint64_t now_ms)
{
	bool first = io->press_ms == 0;
	struct conn *conn;

	if (io->favoured == NULL && input_room(io, 2 * (size_t)NET_READ_BYTES)) {
		io->press_ms = 0;
		return;
	}
	if (!first && now_ms < io->press_ms)
		return;
	io->press_ms = now_ms + PRESS_MS;
	DL_FOREACH2(io->keeping, conn, keep_next)
	{
		uint64_t more = conn->received - conn->received_seen;

		conn->received_seen = conn->received;
		if (first || !conn->reading || conn->dead || input_kept(conn) <= INPUT_FAIR_BYTES ||
		    more >= INPUT_FAIR_BYTES)
			continue;
		log_pressed(conn);
		conn_kill(conn, "it did not send the rest of its request in time");
	}
	DL_FOREACH2(io->stopped, conn, stopped_next)
	{
		if (first || !does_not_read(conn, now_ms))
			continue;
		log_pressed(conn);
		conn_kill(conn, "it did not read answers while requests waited for that");
	}
}

void conn_shrink(struct conn *conn)
{
	if (conn->kept != NULL && input_kept(conn) == 0)
		input_free(conn);
}
