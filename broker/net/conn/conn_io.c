/* SPDX-License-Identifier: Apache-2.0
 *
 * The socket of a connection: bytes in (input.c) and out (output.c), with as few system calls and
 * copies as possible, and the flow between them.
 *
 * In: one buffer of the thread receives the bytes of a socket, and the protocol parses them there.
 * The connection keeps only bytes that are left: a part of a frame, or bytes that may not be parsed
 * yet. Out: the output of a round is gathered and written at the end of the round; only bytes that
 * the socket does not accept wait until it is writable.
 */
#include "broker/net/conn/conn_io.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/net/conn/bufs.h"
#include "broker/net/conn/handshakes.h"
#include "broker/net/conn/input.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/order.h"
#include "broker/net/conn/output.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/reading.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/conn/wire.h"
#include "broker/util/invariant.h"

enum { READS_AT_ONCE = 4 }; /* then other connections are served */
/* The low mark: below it a connection that had to wait for its output continues. */
enum { LOW_BYTES = 4 << 20 };

/* ---- out ---- */

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
		if (!conn->dead && output_send(conn)) {
			output_wait(conn);
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
	if (conn->dead || !output_send(conn))
		return;
	if (conn_unsent(conn) <= LOW_BYTES)
		drained(conn);
	subs_pump(conn->io);
	if (!conn->dead)
		output_wait(conn);
	conns_flush(conn->io);
}

/* ---- in ---- */

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
		bool more = input_read(conn);

		conn_flow(conn);
		submitted(conn->io);
		/* What is pending is less than a record, and no event announces it. */
		if ((!more || n + 1 >= READS_AT_ONCE) && !conn->wire->pending(conn))
			break;
	}
	/* Output that was written before waits for the end of the handshake. */
	if (handshaking && !conn->dead)
		output_wait(conn);
	subs_pump(conn->io);
	conns_flush(conn->io);
}

void conns_handshake(struct io *io)
{
	struct handshake *next = handshake_turn(io);
	struct conn *conn = next != NULL ? next->conn : NULL;

	if (io->handshake_turns != NULL)
		io_again(io);
	if (conn == NULL || conn->dead || !conn->reading)
		return;
	if (event_add(conn->readable, NULL) != 0) {
		conn_kill(conn, "the loop refused its socket");
		return;
	}
	conn->shake_turn = true;
	on_readable(conn->fd, EV_READ, conn);
	conn->shake_turn = false;
}

/* Whether its socket is read. When there is no memory for all, one connection of the thread goes on
 * nevertheless, and the next one when it has what it waits for: so connections that hold a part of
 * a frame each do not wait for one another. */
static bool may_read(struct conn *conn)
{
	struct io *io = conn->io;

	if (io->favoured == conn && (!conn_may_take(conn) || input_kept(conn) < INPUT_FAIR_BYTES)) {
		io->favoured = NULL;
		if (io->starved != NULL)
			io_again(io);
	}
	if (conn->held)
		return !conn->dead && !conn->closing && !io->draining && input_max(conn) > 0;
	if (!conn_may_take(conn))
		return false;
	if (input_max(conn) > 0)
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
		conn_starve(conn, !conn->held && conn_may_take(conn) && input_max(conn) == 0);
}

void conns_resume(struct io *io)
{
	enum { AT_ONCE = 64 };
	unsigned count = io->favoured == NULL;

	if (io->starved == NULL)
		return;
	while (count < AT_ONCE && input_room(io, (count + 2) * (size_t)NET_READ_BYTES))
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
	if (input_kept(conn) > 0)
		input_feed(conn);
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
	output_free(conn);
	(void)close(conn->fd);
	input_free(conn);
	bufs_drop(conn);
	if (conn->io->favoured == conn)
		conn->io->favoured = NULL;
}
