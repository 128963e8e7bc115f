/* SPDX-License-Identifier: Apache-2.0
 * The state of connections and their thread that all files above change: flags, lists, unsent
 * output. Nothing here calls a file above it, so all of them may call it. */
#include "broker/net/conn/state.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <utlist.h>

#include "broker/net/conn/bufs.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/sessions.h"
#include "broker/util/clock.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "protocol/limits.h"

/* Above the bound of all connections each may still buffer this much, so that clients that do read
 * make progress. */
enum { FAIR_BYTES = 1 << 18 };

uint64_t io_now_ms(void)
{
	return clock_mono_ns() / 1000000;
}

void io_again(struct io *io)
{
	/* An event that a callback activates runs before the sockets are served again, possibly for
	 * ever; a timer runs after them. io_init has added it once, so the loop has memory for
	 * it. */
	(void)event_add(io->again, &(struct timeval){0, 0});
}

uint64_t random_u64(struct io *io)
{
	if (io->random_count == 0) {
		/* Up to 256 bytes are never cut short. */
		if (getrandom(io->randoms, sizeof(io->randoms), 0) != (ssize_t)sizeof(io->randoms))
			abort(); /* only before the kernel's pool is ready, or on a broken system */
		io->random_count = sizeof(io->randoms) / sizeof(io->randoms[0]);
	}
	return io->randoms[--io->random_count];
}

/* ---- life ---- */

struct conn *conn_find(struct io *io, uint64_t id)
{
	struct conn *conn;

	HASH_FIND(hh, io->conns, &id, sizeof(id), conn);
	return conn;
}

void conn_kill(struct conn *conn, const char *why)
{
	if (conn->dead)
		return;
	if (conn->why == NULL)
		conn->why = why;
	conn->dead = true;
	conn->dead_next = conn->io->dead;
	conn->io->dead = conn;
	(void)event_del(conn->readable);
	(void)event_del(conn->writable);
	/* The end of a round frees it; an outer call may still use it. */
	io_again(conn->io);
}

void conn_close_soon(struct conn *conn, const char *why)
{
	if (conn->why == NULL)
		conn->why = why;
	conn_stop_reading(conn);
	if (!conn->closing && !conn->dead) {
		conn->closing = true;
		conn->close_by_ms = io_now_ms() + DOOR_CLOSE_MS;
		wheel_set(&conn->io->lives, &conn->due, conn->close_by_ms + 1);
	}
	if (conn_unsent(conn) == 0)
		conn_kill(conn, "the output was flushed");
}

/* A socket pair, of which the broker has the other end as well, has no path. */
static void unix_peer(int fd, char text[PEER_TEXT_BYTES])
{
	struct sockaddr_un local = {0};
	socklen_t len = sizeof(local);
	struct ucred peer;
	socklen_t peer_len = sizeof(peer);

	if (getsockname(fd, (struct sockaddr *)&local, &len) == 0 &&
	    len > offsetof(struct sockaddr_un, sun_path) &&
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_len) == 0)
		(void)snprintf(text, PEER_TEXT_BYTES, "uid:%u", (unsigned)peer.uid);
	else
		(void)snprintf(text, PEER_TEXT_BYTES, "local");
}

const char *conn_peer(int fd, char text[PEER_TEXT_BYTES])
{
	struct sockaddr_storage addr = {0};
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&addr;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&addr;
	socklen_t len = sizeof(addr);
	char host[INET6_ADDRSTRLEN] = "";

	static_assert(PEER_TEXT_BYTES >= INET6_ADDRSTRLEN + sizeof("[]:65535"),
		      "an address and its port");
	(void)snprintf(text, PEER_TEXT_BYTES, "-");
	if (getpeername(fd, (struct sockaddr *)&addr, &len) != 0)
		return text;
	if (addr.ss_family == AF_INET &&
	    inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host)) != NULL)
		(void)snprintf(text, PEER_TEXT_BYTES, "%s:%u", host, ntohs(v4->sin_port));
	else if (addr.ss_family == AF_INET6 &&
		 inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host)) != NULL)
		(void)snprintf(text, PEER_TEXT_BYTES, "[%s]:%u", host, ntohs(v6->sin6_port));
	else if (addr.ss_family == AF_UNIX)
		unix_peer(fd, text);
	return text;
}

uint64_t conn_session(const struct conn *conn)
{
	return conn->own != NULL ? conn->own->session : 0;
}

int conn_may_begin(const struct conn *conn)
{
	if (conn->dead || conn->closing)
		return SLUICE_E_CLOSED;
	return conn->gateway == 0 ? SLUICE_E_WRONG_STATE : 0;
}

void conn_block(struct conn *conn)
{
	conn->waits_inbox |= !conn->parsing;
	if (conn->blocked)
		return;
	conn->blocked = true;
	DL_APPEND2(conn->io->blocked, conn, blocked_prev, blocked_next);
}

/* ---- output ---- */

size_t conn_unsent(const struct conn *conn)
{
	return evbuffer_get_length(conn->out);
}

bool conn_is_full(const struct conn *conn)
{
	const struct net *net = conn->io->net;
	uint64_t max =
		net->config.outbox_bytes_max != 0 ? net->config.outbox_bytes_max : 512u << 20;
	size_t unsent = conn_unsent(conn);

	return unsent > LIMIT_OUTBOX_BYTES_MAX / 2 ||
	       (unsent > FAIR_BYTES &&
		atomic_load_explicit(&net->unsent, memory_order_relaxed) > max);
}

bool input_room(const struct io *io, size_t bytes)
{
	uint64_t max = io->net->config.input_bytes_max;

	return atomic_load_explicit(&io->net->input, memory_order_relaxed) + bytes <=
	       (max != 0 ? max : 512u << 20);
}

void conn_request_add(struct conn *conn, size_t bytes)
{
	conn->pending_count++;
	conn->pending_bytes += bytes;
	conn->request_bytes += bytes;
	atomic_fetch_add_explicit(&conn->io->net->input, bytes, memory_order_relaxed);
}

void conn_request_sub(struct conn *conn, size_t bytes)
{
	invariant(conn->pending_count > 0 && conn->pending_bytes >= conn->request_bytes &&
			  conn->request_bytes >= bytes,
		  "connection %llu: %llu requests or commands under way, of %llu bytes, of which "
		  "%llu wait; one takes %zu",
		  (unsigned long long)conn->id, (unsigned long long)conn->pending_count,
		  (unsigned long long)conn->pending_bytes, (unsigned long long)conn->request_bytes,
		  bytes);
	conn->pending_count--;
	conn->pending_bytes -= bytes;
	conn->request_bytes -= bytes;
	atomic_fetch_sub_explicit(&conn->io->net->input, bytes, memory_order_relaxed);
}

/* What waits may be long: its answers are not begun while the peer does not read those before. */
static bool may_wait(const struct conn *conn)
{
	return conn->request_bytes < INPUT_FAIR_BYTES || input_room(conn->io, 0);
}

bool conn_may_take(const struct conn *conn)
{
	return !conn->dead && !conn->closing && !conn->held && !conn->blocked && !conn->turn_over &&
	       !conn->io->draining && conn->pending_count < LIMIT_INFLIGHT_REQUESTS_MAX &&
	       conn->pending_bytes + conn->buf_bytes < LIMIT_CONN_PENDING_BYTES_MAX &&
	       conn->closed_count < LIMIT_CONSUMERS_CLOSING_MAX && may_wait(conn) &&
	       !conn_is_full(conn);
}

void conn_unlist(struct conn *conn)
{
	invariant(!conn->unflushed || conn->flush_prev != NULL,
		  "connection %llu is not in the list of what is unflushed",
		  (unsigned long long)conn->id);
	if (conn->unflushed)
		DL_DELETE2(conn->io->unflushed, conn, flush_prev, flush_next);
	conn->unflushed = false;
}

/* Deliveries pause long before, and requests do not begin while the output is full. So the cause is
 * a plugin's listener that ignores BUSY, or a peer that receives many notices and does not read. */
static void log_output(const struct conn *conn)
{
	static struct log_rate rate = {.per_second = 10};
	char peer[PEER_TEXT_BYTES];
	uint64_t left_out;

	if (log_may(&rate, &left_out))
		log_line(LOG_LEVEL_WARN,
			 log_id("net.output",
				"a connection is closed: the client does not read its answers and "
				"notices"),
			 log_u64("thread", (uint64_t)(conn->io - conn->io->net->ios)),
			 log_u64("conn", conn->id), log_str("peer", conn_peer(conn->fd, peer)),
			 log_u64("session", conn_session(conn)),
			 log_str("protocol", conn->protocol->name(conn)),
			 log_u64("unsent_bytes", conn_unsent(conn)),
			 log_u64("max_bytes", LIMIT_OUTPUT_CLOSE_BYTES_MAX),
			 log_u64("left_out", left_out));
}

void conn_write(struct conn *conn, const void *bytes, size_t len)
{
	if (conn->dead)
		return;
	conn->unsent_answers += conn->delivering ? 0 : len;
	if (conn->unsent_answers > LIMIT_OUTPUT_CLOSE_BYTES_MAX) {
		log_output(conn);
		conn_kill(conn, "it did not read its output");
		return;
	}
	if (evbuffer_add(conn->out, bytes, len) != 0) {
		conn_kill(conn, "no memory for its output");
		return;
	}
	atomic_fetch_add_explicit(&conn->io->net->unsent, len, memory_order_relaxed);
	if (conn->writing || conn->unflushed)
		return;
	conn->unflushed = true;
	DL_APPEND2(conn->io->unflushed, conn, flush_prev, flush_next);
}

/* ---- input ---- */

size_t conn_frame_max(const struct conn *conn)
{
	return DOOR_LENGTH_BYTES +
	       (conn->gateway == 0 ? LIMIT_SIZE(PREAUTH_BYTES_MAX) : LIMIT_SIZE(FRAME_BYTES_MAX));
}

void conn_starve(struct conn *conn, bool starved)
{
	struct io *io = conn->io;

	if (!conn->is_stopped || conn->starved == starved)
		return;
	conn->starved = starved;
	if (starved) {
		DL_DELETE2(io->stopped, conn, stopped_prev, stopped_next);
		DL_APPEND2(io->starved, conn, stopped_prev, stopped_next);
	} else {
		DL_DELETE2(io->starved, conn, stopped_prev, stopped_next);
		DL_APPEND2(io->stopped, conn, stopped_prev, stopped_next);
	}
}

/* A connection that is not read from is in a list; each round scans that of those that do not wait
 * for memory. */
void conn_reading_set(struct conn *conn, bool reading)
{
	struct io *io = conn->io;

	conn->reading = reading;
	if (conn->is_stopped == !reading)
		return;
	conn_starve(conn, false);
	conn->is_stopped = !reading;
	invariant(!reading || conn->stopped_prev != NULL,
		  "connection %llu is not in the list of those that are stopped",
		  (unsigned long long)conn->id);
	if (reading)
		DL_DELETE2(io->stopped, conn, stopped_prev, stopped_next);
	else
		DL_APPEND2(io->stopped, conn, stopped_prev, stopped_next);
}

void conn_stop_reading(struct conn *conn)
{
	conn_reading_set(conn, false);
	(void)event_del(conn->readable);
}
