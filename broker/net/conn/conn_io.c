/* SPDX-License-Identifier: Apache-2.0
 *
 * The socket of a connection: bytes in and out, with as few system calls and copies as possible,
 * and the flow between them.
 *
 * In: one buffer of the thread receives the bytes of a socket, and the protocol parses them there.
 * The connection keeps only bytes that are left: a part of a frame, or bytes that may not be parsed
 * yet. Out: the output of a round is gathered and written at the end of the round; only bytes that
 * the socket does not accept wait until it is writable.
 */
#include "broker/net/conn/conn_io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/net/conn/bufs.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/order.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/reading.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/conn/wire.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "protocol/limits.h"

enum {
	READS_AT_ONCE = 4,	   /* then other connections are served */
	KEPT_BYTES_MIN = 4096,	   /* of a buffer for unparsed input */
	WRITE_BYTES_MAX = 1 << 18, /* at once */
	/* Of parts that are sent from where they lie; fewer are copied and sent with the others of
	 * the round. */
	DIRECT_BYTES_MIN = 1 << 16,
	DIRECT_BYTES_MAX = 1 << 20,
	PIECES_MAX = 128, /* of one system call */
	/* Of a connection that keeps a part of a frame while memory for input is used up: its peer
	 * sends INPUT_FAIR_BYTES in this time, or it is closed. */
	PRESS_MS = 5000
};
/* The low mark: below it a connection that had to wait for its output continues. */
enum { LOW_BYTES = 4 << 20 };

/* ---- out ---- */

static void unsent_sub(struct conn *conn, uint64_t bytes)
{
	uint64_t before =
		atomic_fetch_sub_explicit(&conn->io->net->unsent, bytes, memory_order_relaxed);

	invariant(before >= bytes, "%llu bytes of all are unsent, %llu of connection %llu",
		  (unsigned long long)before, (unsigned long long)bytes,
		  (unsigned long long)conn->id);
}

/* Bytes of the output, at its beginning, were sent. */
static void unsent_drain(struct conn *conn, size_t sent)
{
	const size_t unsent = conn_unsent(conn);

	if (sent == 0)
		return;
	(void)evbuffer_drain(conn->out, sent);
	unsent_sub(conn, sent);
	/* Estimated as if answers and deliveries were mixed evenly; exact whenever all is sent. */
	conn->unsent_answers -=
		(size_t)((double)conn->unsent_answers * (double)sent / (double)unsent);
	if (sent == unsent)
		conn->unsent_answers = 0;
}

/* The pieces of the output, up to so many of them and of bytes; returns their number. */
static int unsent_pieces(const struct conn *conn, struct iovec *pieces, int count, size_t bytes)
{
	int found = evbuffer_peek(conn->out, (ev_ssize_t)bytes, NULL, pieces, count), used = 0;

	for (; used < found && used < count && bytes > 0; used++) {
		if (pieces[used].iov_len > bytes)
			pieces[used].iov_len = bytes;
		bytes -= pieces[used].iov_len;
	}
	return used;
}

/* Sends the pieces, at once and without waiting; returns how many bytes. */
static size_t send_pieces(struct conn *conn, struct iovec *pieces, int count)
{
	ssize_t sent = conn->wire->write(conn, pieces, count);

	if (sent >= 0)
		return (size_t)sent;
	if (errno != EAGAIN && errno != EINTR)
		conn_kill(conn, "the peer reset it");
	return 0;
}

/* False: the connection has ended. */
static bool write_some(struct conn *conn)
{
	struct iovec pieces[PIECES_MAX];
	int count;

	if (conn_unsent(conn) == 0 && !conn->wire_waits)
		return true;
	count = unsent_pieces(conn, pieces, PIECES_MAX, WRITE_BYTES_MAX);
	unsent_drain(conn, send_pieces(conn, pieces, count));
	return !conn->dead;
}

/* ---- out, without a copy ---- */

/* The output, and the parts behind it, as far as the socket takes them now; returns how many bytes
 * of the parts. */
static size_t send_direct(struct conn *conn, const struct sluice_slice *parts, size_t count)
{
	struct iovec pieces[PIECES_MAX];
	const size_t before = conn_unsent(conn);
	int used = unsent_pieces(conn, pieces, PIECES_MAX / 2, DIRECT_BYTES_MAX);
	size_t bytes = 0, sent;

	for (int i = 0; i < used; i++)
		bytes += pieces[i].iov_len;
	if (bytes < before)
		return 0; /* the output alone is more */
	for (size_t i = 0; i < count && used < PIECES_MAX && bytes < DIRECT_BYTES_MAX; i++) {
		size_t len = parts[i].len < DIRECT_BYTES_MAX - bytes ? parts[i].len
								     : DIRECT_BYTES_MAX - bytes;

		pieces[used++] = (struct iovec){(void *)(uintptr_t)parts[i].data, len};
		bytes += len;
	}
	sent = send_pieces(conn, pieces, used);
	unsent_drain(conn, sent < before ? sent : before);
	return sent > before ? sent - before : 0;
}

void conn_write_parts(struct conn *conn, const struct sluice_slice *parts, size_t count)
{
	size_t bytes = 0, sent = 0;

	for (size_t i = 0; i < count; i++)
		bytes += parts[i].len;
	if (bytes >= DIRECT_BYTES_MIN && !conn->writing && !conn->dead)
		sent = send_direct(conn, parts, count);
	for (size_t i = 0; i < count; i++) {
		size_t skipped = sent < parts[i].len ? sent : parts[i].len;

		sent -= skipped;
		if (skipped < parts[i].len)
			conn_write(conn, (const uint8_t *)parts[i].data + skipped,
				   parts[i].len - skipped);
	}
}

/* Waits for the socket only while output is left that it can take. */
static void write_wait(struct conn *conn)
{
	bool waits = conn->wire_waits || (conn_unsent(conn) > 0 && !conn->handshaking);

	if (waits == conn->writing)
		return;
	conn->writing = waits;
	if ((waits ? event_add(conn->writable, NULL) : event_del(conn->writable)) != 0)
		conn_kill(conn, "the loop refused its socket");
}

static void notify_writable(struct conn *conn)
{
	if (!conn->waits_output || conn->dead || conn->closing || conn_unsent(conn) > LOW_BYTES ||
	    conn_is_full(conn))
		return;
	conn->waits_output = false;
	if (conn->protocol->ready != NULL)
		conn->protocol->ready(conn, DOOR_READY_OUTPUT);
}

static void submitted(struct io *io)
{
	if (io->submitted)
		engine_wake(io->engine);
	io->submitted = false;
}

static void round_unlist(struct conn *conn)
{
	if (conn->in_round)
		DL_DELETE2(conn->io->rounds, conn, round_prev, round_next);
	conn->in_round = false;
}

static void rounds_end(struct io *io)
{
	while (io->rounds != NULL) {
		struct conn *conn = io->rounds;

		round_unlist(conn);
		if (!conn->dead && !conn->closing)
			conn->protocol->round(conn);
	}
}

void conns_flush(struct io *io)
{
	/* One try for each: the loop serves a protocol that writes more when it is writable. */
	struct conn *last;

	rounds_end(io);
	last = io->unflushed != NULL ? io->unflushed->flush_prev : NULL;
	submitted(io);
	while (io->unflushed != NULL) {
		struct conn *conn = io->unflushed;

		conn_unlist(conn);
		if (!conn->dead && write_some(conn)) {
			write_wait(conn);
			if (conn_unsent(conn) == 0 && conn->closing)
				conn_kill(conn, "the output was flushed");
			notify_writable(conn);
		}
		if (conn == last)
			break;
	}
	if (io->unflushed != NULL)
		io_again(io);
}

static void drained(struct conn *conn)
{
	struct sub *sub, *next;

	if (conn->closing && conn_unsent(conn) == 0) {
		conn_kill(conn, "the output was flushed");
		return;
	}
	order_due(conn);
	conn_flow(conn);
	HASH_ITER(hh_number, conn->subs, sub, next) {
		if (sub->kind == DOOR_FOLLOW)
			sub_wants_pump(sub);
	}
	subs_resume(conn);
	readings_resume(conn);
	notify_writable(conn);
}

static void on_writable(evutil_socket_t fd, short what, void *user)
{
	struct conn *conn = user;

	(void)fd;
	(void)what;
	if (conn->dead || !write_some(conn))
		return;
	if (conn_unsent(conn) <= LOW_BYTES)
		drained(conn);
	subs_pump(conn->io);
	if (!conn->dead)
		write_wait(conn);
	conns_flush(conn->io);
}

/* ---- in ---- */

static size_t kept_len(const struct conn *conn)
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

static void kept_free(struct conn *conn)
{
	door_buf_unref(conn->kept);
	kept_set(conn, NULL);
	conn->kept_start = conn->kept_end = 0;
}

/* The kept bytes at the beginning of a buffer of so many bytes, which nobody else reads. */
static bool kept_move(struct conn *conn, size_t capacity)
{
	size_t len = kept_len(conn);
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
	size_t len = kept_len(conn), capacity = conn->kept != NULL ? conn->kept->capacity : 0;

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

static void feed_kept(struct conn *conn)
{
	const uint8_t *bytes = conn->kept->bytes + conn->kept_start;

	bufs_give(conn, conn->kept, bytes, kept_len(conn), false);
	conn->kept_start = conn->kept_end - feed(conn, bytes, kept_len(conn));
	bufs_given_end(conn->io);
	if (kept_len(conn) > 0)
		return;
	if (conn->kept->refs > 1)
		kept_free(conn); /* what was taken is not written to */
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
	size_t len = kept_len(conn), more = len > KEPT_BYTES_MIN ? len : KEPT_BYTES_MIN;

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
	       bufs_room(conn->io, (size_t)NET_READ_BYTES + kept_more(conn));
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Of the bytes that the next read may bring. 0: the connection waits. */
static size_t read_max(const struct conn *conn)
{
	size_t len = kept_len(conn), max = SIZE_MAX;

	if (conn->held)
		max = conn->gateway == 0 ? LIMIT_SIZE(PREAUTH_BYTES_MAX)
					 : LIMIT_SIZE(CONN_HELD_BYTES_MAX);
	if (!may_grow(conn))
		max = smaller(max, INPUT_FAIR_BYTES);
	return len < max ? max - len : 0;
}

/* Reads once. False: no more bytes for now. */
static bool read_once(struct conn *conn)
{
	struct io *io = conn->io;
	bool kept = kept_len(conn) > 0;
	size_t max = read_max(conn), fresh;
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
		feed_kept(conn);
	}
	/* Bytes that follow kept bytes are appended to them. */
	if (fresh > 0 && !conn->dead && !conn->closing) {
		if (kept_len(conn) == 0) {
			feed_fresh(conn, fresh);
		} else {
			keep(conn, io->fresh->bytes, fresh);
			if (!conn->dead)
				feed_kept(conn);
		}
	}
	return (size_t)got == room[0].iov_len + room[1].iov_len;
}

/* A socket that is closed with bytes in it that were not read resets the connection, and the peer
 * may lose what was sent before. */
static void discard(struct conn *conn)
{
	uint8_t bytes[1 << 14];
	ssize_t got;

	do
		got = read(conn->fd, bytes, sizeof(bytes));
	while (got > 0 || (got < 0 && errno == EINTR));
	if (got == 0 || errno != EAGAIN)
		conn_kill(conn, "the peer closed it");
}

void conn_linger(struct conn *conn)
{
	conn->lingering = true;
	conn->wire->end(conn);
	if (event_add(conn->readable, NULL) != 0)
		conn_kill(conn, "the peer closed it");
}

static void on_readable(evutil_socket_t fd, short what, void *user)
{
	struct conn *conn = user;
	const bool handshaking = conn->handshaking;

	(void)fd;
	(void)what;
	if (conn->lingering) {
		discard(conn);
		return;
	}
	conn->active_ms = io_now_ms();
	for (int n = 0; !conn->dead && conn->reading; n++) {
		bool more = read_once(conn);

		conn_flow(conn);
		submitted(conn->io);
		/* What is pending is less than a record, and no event announces it. */
		if ((!more || n + 1 >= READS_AT_ONCE) && !conn->wire->pending(conn))
			break;
	}
	/* Output that was written before waits for the end of the handshake. */
	if (handshaking && !conn->dead)
		write_wait(conn);
	subs_pump(conn->io);
	conns_flush(conn->io);
}

/* Whether its socket is read. When there is no memory for all, one connection of the thread goes on
 * nevertheless, and the next one when it has what it waits for: so connections that hold a part of
 * a frame each do not wait for one another. */
static bool may_read(struct conn *conn)
{
	struct io *io = conn->io;

	if (io->favoured == conn && (!conn_may_take(conn) || kept_len(conn) < INPUT_FAIR_BYTES)) {
		io->favoured = NULL;
		if (io->starved != NULL)
			io_again(io);
	}
	if (conn->held)
		return !conn->dead && !conn->closing && !io->draining && read_max(conn) > 0;
	if (!conn_may_take(conn))
		return false;
	if (read_max(conn) > 0)
		return true;
	if (io->favoured == NULL)
		io->favoured = conn;
	return io->favoured == conn;
}

void conn_flow(struct conn *conn)
{
	bool may = may_read(conn);

	if (may != conn->reading) {
		conn_reading_set(conn, may);
		if ((may ? event_add(conn->readable, NULL) : event_del(conn->readable)) != 0)
			conn_kill(conn, "the loop refused its socket");
		if (may && !conn->held)
			conn_parse(conn);
		if (may && conn->reading && !conn->dead && conn->wire->pending(conn))
			event_active(conn->readable, EV_READ, 0);
	}
	if (!conn->reading)
		conn_starve(conn, !conn->held && conn_may_take(conn) && read_max(conn) == 0);
}

void conns_resume(struct io *io)
{
	enum { AT_ONCE = 64 };
	unsigned count = io->favoured == NULL;

	if (io->starved == NULL)
		return;
	while (count < AT_ONCE && bufs_room(io, (count + 2) * (size_t)NET_READ_BYTES))
		count++;
	for (; count > 0 && io->starved != NULL; count--) {
		struct conn *conn = io->starved;

		conn_starve(conn, false);
		conn_flow(conn);
	}
}

void conn_parse(struct conn *conn)
{
	if (conn->parsing)
		return; /* an outer call continues */
	if (kept_len(conn) > 0)
		feed_kept(conn);
	conn_flow(conn);
}

void conn_unblocked(struct conn *conn)
{
	bool waits = conn->waits_inbox;

	conn->waits_inbox = false;
	if (waits && conn->protocol->ready != NULL && !conn->dead && !conn->closing)
		conn->protocol->ready(conn, DOOR_READY_INBOX);
	conn_parse(conn);
}

/* ---- the timer of a protocol ---- */

static void on_conn_timer(evutil_socket_t fd, short what, void *user)
{
	struct conn *conn = user;
	struct io *io = conn->io;
	uint64_t at_ms = conn->timer_ms;

	(void)fd;
	(void)what;
	if (conn->dead || conn->closing || at_ms == 0)
		return;
	/* The loop counts from the time at which it woke. */
	if (io_now_ms() < at_ms) {
		conn_timer(conn, at_ms);
		return;
	}
	conn->timer_ms = 0;
	conn->protocol->timer(conn);
	subs_pump(io);
	conns_flush(io);
}

void conn_timer(struct conn *conn, uint64_t at_ms)
{
	uint64_t now = io_now_ms(), wait;

	invariant(conn->protocol->timer != NULL, "a protocol without it has set a timer");
	conn->timer_ms = at_ms;
	if (at_ms == 0 && conn->timer != NULL)
		(void)event_del(conn->timer);
	if (at_ms == 0)
		return;
	if (conn->timer == NULL)
		conn->timer = evtimer_new(conn->io->base, on_conn_timer, conn);
	/* Rounded up, so that many are served together. */
	wait = at_ms <= now ? 0 : (at_ms + DOOR_TIMER_MS - 1) / DOOR_TIMER_MS * DOOR_TIMER_MS - now;
	if (conn->timer == NULL ||
	    event_add(conn->timer, &(struct timeval){(time_t)(wait / 1000),
						     (suseconds_t)(wait % 1000 * 1000)}) != 0)
		conn_kill(conn, "no memory for its timer");
}

/* ---- the end of a peer that is not read ---- */

static void ended_check(struct conn *const *conns, struct pollfd *fds, nfds_t count)
{
	if (poll(fds, count, 0) <= 0)
		return;
	for (nfds_t i = 0; i < count; i++) {
		if ((fds[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0)
			conn_kill(conns[i], "the peer closed it");
	}
}

void conns_ended(struct io *io)
{
	enum { AT_ONCE = 128 };
	struct conn *conns[AT_ONCE], *conn;
	struct pollfd fds[AT_ONCE];
	nfds_t count = 0;

	DL_FOREACH2(io->stopped, conn, stopped_next)
	{
		if (!conn->held || conn->dead || conn->closing)
			continue;
		conns[count] = conn;
		fds[count++] = (struct pollfd){.fd = conn->fd, .events = POLLRDHUP};
		if (count < AT_ONCE)
			continue;
		ended_check(conns, fds, count);
		count = 0;
	}
	ended_check(conns, fds, count);
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
				"client does not send the rest of its request"),
			 log_u64("thread", (uint64_t)(conn->io - conn->io->net->ios)),
			 log_u64("conn", conn->id), log_str("peer", conn_peer(conn->fd, peer)),
			 log_u64("session", conn_session(conn)),
			 log_u64("kept_bytes", kept_len(conn)),
			 log_u64("wanted_bytes", conn->wanted), log_u64("left_out", left_out));
}

void conns_press(struct io *io, uint64_t now_ms)
{
	bool first = io->press_ms == 0;
	struct conn *conn;

	if (io->favoured == NULL && bufs_room(io, 2 * (size_t)NET_READ_BYTES)) {
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
		if (first || !conn->reading || conn->dead || kept_len(conn) <= INPUT_FAIR_BYTES ||
		    more >= INPUT_FAIR_BYTES)
			continue;
		log_pressed(conn);
		conn_kill(conn, "it did not send the rest of its request in time");
	}
}

/* ---- life ---- */

int conn_open(struct conn *conn)
{
	conn->out = evbuffer_new();
	conn->readable =
		event_new(conn->io->base, conn->fd, EV_READ | EV_PERSIST, on_readable, conn);
	conn->writable =
		event_new(conn->io->base, conn->fd, EV_WRITE | EV_PERSIST, on_writable, conn);
	if (conn->out == NULL || conn->readable == NULL || conn->writable == NULL ||
	    event_add(conn->readable, NULL) != 0)
		return SLUICE_E_NOMEM;
	conn->reading = true;
	conn->wire =
		conn->listening != NULL && conn->listening->tls != NULL ? &wire_tls : &wire_plain;
	return conn->wire->open(conn);
}

void conn_shrink(struct conn *conn)
{
	if (conn->kept != NULL && kept_len(conn) == 0)
		kept_free(conn);
}

void conn_shut(struct conn *conn)
{
	conn_unlist(conn);
	round_unlist(conn);
	if (conn->timer != NULL)
		event_free(conn->timer);
	conn_starve(conn, false);
	if (conn->is_stopped)
		DL_DELETE2(conn->io->stopped, conn, stopped_prev, stopped_next);
	if (conn->readable != NULL)
		event_free(conn->readable);
	if (conn->writable != NULL)
		event_free(conn->writable);
	if (conn->wire != NULL)
		conn->wire->close(conn);
	if (conn->out != NULL) {
		unsent_sub(conn, conn_unsent(conn));
		evbuffer_free(conn->out);
	}
	(void)close(conn->fd);
	kept_free(conn);
	bufs_drop(conn);
	if (conn->io->favoured == conn)
		conn->io->favoured = NULL;
}
