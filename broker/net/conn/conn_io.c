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
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/net/conn/internal.h"
#include "broker/net/conn/order.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/reading.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/util/invariant.h"

enum {
	READS_AT_ONCE = 4, /* then other connections are served */
	/* of a buffer for unparsed input; it grows with the bytes that arrive, not with the length
	 * that a frame announces */
	KEPT_BYTES_MIN = 4096,
	WRITE_BYTES_MAX = 1 << 18 /* at once */
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

/* False: the connection has ended. */
static bool write_some(struct conn *conn)
{
	const size_t unsent = conn_unsent(conn);
	int sent;

	if (unsent == 0)
		return true;
	sent = evbuffer_write_atmost(conn->out, conn->fd, WRITE_BYTES_MAX);
	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		conn_kill(conn, "the peer reset it");
		return false;
	}
	if (sent > 0) {
		unsent_sub(conn, (uint64_t)sent);
		/* Estimated as if answers and deliveries were mixed evenly; exact whenever all is
		 * sent. */
		conn->unsent_answers -=
			(size_t)((double)conn->unsent_answers * sent / (double)unsent);
		if ((size_t)sent == unsent)
			conn->unsent_answers = 0;
	}
	return true;
}

/* Waits for the socket only while output is left. */
static void write_wait(struct conn *conn)
{
	bool waits = conn_unsent(conn) > 0;

	if (waits == conn->writing)
		return;
	conn->writing = waits;
	if ((waits ? event_add(conn->writable, NULL) : event_del(conn->writable)) != 0)
		conn_kill(conn, "the loop refused its socket");
}

static void notify_writable(struct conn *conn)
{
	if (conn->protocol->writable != NULL && !conn->dead && conn_unsent(conn) <= LOW_BYTES)
		conn->protocol->writable(conn);
}

static void submitted(struct io *io)
{
	if (io->submitted)
		engine_wake(io->engine);
	io->submitted = false;
}

void conns_flush(struct io *io)
{
	/* One try for each: the loop serves a protocol that writes more when it is writable. */
	struct conn *last = io->unflushed != NULL ? io->unflushed->flush_prev : NULL;

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

/* Space for more bytes after the kept ones; NULL: no memory. */
static uint8_t *kept_room(struct conn *conn, size_t more)
{
	size_t len = kept_len(conn);

	invariant(conn->kept_start <= conn->kept_end && conn->kept_end <= conn->kept_capacity,
		  "connection %llu keeps %zu to %zu of %zu bytes", (unsigned long long)conn->id,
		  conn->kept_start, conn->kept_end, conn->kept_capacity);
	if (conn->kept_capacity - conn->kept_end >= more)
		return conn->kept + conn->kept_end;
	if (conn->kept_start > 0) {
		memmove(conn->kept, conn->kept + conn->kept_start, len);
		conn->kept_start = 0;
		conn->kept_end = len;
	}
	if (conn->kept_capacity - len < more) {
		uint8_t *grown = realloc(conn->kept, len + more);

		if (grown == NULL)
			return NULL;
		conn->kept = grown;
		conn->kept_capacity = len + more;
		if (!conn->keeps)
			DL_APPEND2(conn->io->keeping, conn, keep_prev, keep_next);
		conn->keeps = true;
	}
	return conn->kept + conn->kept_end;
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
			 * that are marked as stopped. */
			conn_stop_reading(conn);
			break;
		}
		used = conn->protocol->bytes(conn, bytes, len);
		if (used > 0 && (size_t)used > len) {
			conn_kill(conn, "its listener took more bytes than there were");
			break;
		}
		if (used < 0)
			conn_close_soon(conn, "its listener ended it");
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
	conn->kept_start =
		conn->kept_end - feed(conn, conn->kept + conn->kept_start, kept_len(conn));
	if (kept_len(conn) == 0)
		conn->kept_start = conn->kept_end = 0;
}

static void feed_fresh(struct conn *conn, const uint8_t *bytes, size_t len)
{
	size_t left = feed(conn, bytes, len);
	uint8_t *room;

	if (left == 0)
		return;
	room = kept_room(conn, left);
	if (room == NULL) {
		conn_kill(conn, "no memory for its input");
		return;
	}
	memcpy(room, bytes + len - left, left);
	conn->kept_end += left;
}

/* How many of the next bytes to append to the kept ones: the rest of a frame whose length is known,
 * up to twice the bytes that are kept. */
static size_t kept_more(const struct conn *conn)
{
	size_t len = kept_len(conn), more = len > KEPT_BYTES_MIN ? len : KEPT_BYTES_MIN;

	if (more < NET_READ_BYTES && conn->wanted > NET_READ_BYTES)
		more = NET_READ_BYTES;
	return conn->wanted > len && conn->wanted - len < more ? conn->wanted - len : more;
}

/* Reads once. False: no more bytes for now. */
static bool read_once(struct conn *conn)
{
	struct io *io = conn->io;
	bool kept = kept_len(conn) > 0;
	struct iovec room[2] = {{NULL, 0}, {io->fresh, NET_READ_BYTES}};
	size_t fresh;
	ssize_t got;

	if (kept) {
		room[0].iov_len = kept_more(conn);
		room[0].iov_base = kept_room(conn, room[0].iov_len);
		if (room[0].iov_base == NULL) {
			conn_kill(conn, "no memory for its input");
			return false;
		}
	}
	got = kept ? readv(conn->fd, room, 2) : read(conn->fd, io->fresh, NET_READ_BYTES);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (got <= 0) {
		conn_kill(conn, got == 0 ? "the peer closed it" : "the peer reset it");
		return false;
	}
	fresh = (size_t)got > room[0].iov_len ? (size_t)got - room[0].iov_len : 0;
	if (kept) {
		conn->kept_end += (size_t)got - fresh;
		feed_kept(conn);
	}
	/* Bytes that follow kept bytes are appended to them. */
	if (fresh > 0 && kept_len(conn) == 0 && !conn->dead && !conn->closing) {
		feed_fresh(conn, io->fresh, fresh);
	} else if (fresh > 0 && !conn->dead && !conn->closing) {
		uint8_t *at = kept_room(conn, fresh);

		if (at == NULL) {
			conn_kill(conn, "no memory for its input");
			return false;
		}
		memcpy(at, io->fresh, fresh);
		conn->kept_end += fresh;
		feed_kept(conn);
	}
	return (size_t)got == room[0].iov_len + NET_READ_BYTES;
}

/* A socket that is closed with bytes in it that were not read resets the connection, and the peer
 * may lose what was sent before. */
static void discard(struct conn *conn)
{
	ssize_t got;

	do
		got = read(conn->fd, conn->io->fresh, NET_READ_BYTES);
	while (got > 0 || (got < 0 && errno == EINTR));
	if (got == 0 || errno != EAGAIN)
		conn_kill(conn, "the peer closed it");
}

void conn_linger(struct conn *conn)
{
	conn->lingering = true;
	if (shutdown(conn->fd, SHUT_WR) != 0 || event_add(conn->readable, NULL) != 0)
		conn_kill(conn, "the peer closed it");
}

static void on_readable(evutil_socket_t fd, short what, void *user)
{
	struct conn *conn = user;

	(void)fd;
	(void)what;
	if (conn->lingering) {
		discard(conn);
		return;
	}
	conn->active_ms = io_now_ms();
	for (int n = 0; n < READS_AT_ONCE && !conn->dead && conn->reading; n++) {
		bool more = read_once(conn);

		conn_flow(conn);
		submitted(conn->io);
		if (!more)
			break;
	}
	subs_pump(conn->io);
	conns_flush(conn->io);
}

void conn_flow(struct conn *conn)
{
	bool may = conn_may_take(conn);

	if (may == conn->reading)
		return;
	conn_reading_set(conn, may);
	if ((may ? event_add(conn->readable, NULL) : event_del(conn->readable)) != 0)
		conn_kill(conn, "the loop refused its socket");
	if (may)
		conn_parse(conn);
}

void conn_parse(struct conn *conn)
{
	if (conn->parsing)
		return; /* an outer call continues */
	if (kept_len(conn) > 0)
		feed_kept(conn);
	conn_flow(conn);
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
	return 0;
}

static void kept_free(struct conn *conn)
{
	if (conn->keeps)
		DL_DELETE2(conn->io->keeping, conn, keep_prev, keep_next);
	conn->keeps = false;
	free(conn->kept);
	conn->kept = NULL;
	conn->kept_start = conn->kept_end = conn->kept_capacity = 0;
}

void conn_shrink(struct conn *conn)
{
	if (kept_len(conn) == 0)
		kept_free(conn);
}

void conn_shut(struct conn *conn)
{
	conn_unlist(conn);
	if (conn->is_stopped)
		DL_DELETE2(conn->io->stopped, conn, stopped_prev, stopped_next);
	if (conn->readable != NULL)
		event_free(conn->readable);
	if (conn->writable != NULL)
		event_free(conn->writable);
	if (conn->out != NULL) {
		unsent_sub(conn, conn_unsent(conn));
		evbuffer_free(conn->out);
	}
	(void)close(conn->fd);
	kept_free(conn);
}
