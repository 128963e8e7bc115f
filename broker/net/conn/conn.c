/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections: their life and end, and commands under way. conn_io.c handles their sockets.
 *
 * Flow: a connection is read from while it has fewer than INFLIGHT_REQUESTS_MAX commands, less than
 * CONN_PENDING_BYTES_MAX, and less than half of OUTBOX_BYTES_MAX unsent. So a slow reader or a fast
 * publisher delays only itself.
 */
#include "broker/net/conn/conn.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/answer.h"
#include "broker/net/conn/bufs.h"
#include "broker/net/conn/conn_io.h"
#include "broker/net/conn/instance.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/order.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/reading.h"
#include "broker/net/conn/under_way.h"
#include "broker/net/conn/sessions.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/conn/wait.h"
#include "broker/net/conn/wire.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"

/* ---- the log ---- */

static void log_accepted(const struct conn *conn)
{
	static struct log_rate rate = {.per_second = 100};
	char peer[PEER_TEXT_BYTES];
	uint64_t left_out;

	if (!log_enabled(LOG_LEVEL_DEBUG) || !log_may(&rate, &left_out))
		return;
	log_line(LOG_LEVEL_DEBUG, log_id("net.accepted", "a connection was accepted"),
		 log_u64("thread", (uint64_t)(conn->io - conn->io->net->ios)),
		 log_u64("conn", conn->id), log_str("peer", conn_peer(conn->fd, peer)),
		 log_str("protocol", conn->protocol->name(conn)), log_str("wire", conn->wire->name),
		 log_u64("left_out", left_out));
}

static void log_closed(const struct conn *conn)
{
	static struct log_rate rate = {.per_second = 100};
	char peer[PEER_TEXT_BYTES];
	uint64_t left_out;

	if (!log_enabled(LOG_LEVEL_DEBUG) || !log_may(&rate, &left_out))
		return;
	log_line(LOG_LEVEL_DEBUG, log_id("net.closed", "a connection has ended"),
		 log_u64("thread", (uint64_t)(conn->io - conn->io->net->ios)),
		 log_u64("conn", conn->id), log_str("peer", conn_peer(conn->fd, peer)),
		 log_str("reason", conn->why), log_u64("session", conn_session(conn)),
		 log_u64("ms", io_now_ms() - conn->opened_ms),
		 log_u64("unanswered", conn->pending_count), log_u64("left_out", left_out));
}

/* ---- life ---- */

enum { HELLO_MS = 10000 };

static uint64_t idle_ms(const struct conn *conn)
{
	if (conn->idle_set)
		return conn->idle_ms;
	return conn->own != NULL ? conn->own->timeout_ms : 0;
}

const char *conn_overdue(const struct conn *conn, uint64_t now_ms)
{
	if (conn->closing)
		return conn->close_by_ms < now_ms ? "its output was not read in time" : NULL;
	if (conn->gateway == 0)
		return conn->opened_ms + HELLO_MS < now_ms ? "no HELLO arrived in time" : NULL;
	if (idle_ms(conn) != 0 && conn->active_ms + idle_ms(conn) < now_ms)
		return "the peer was silent for too long";
	return NULL;
}

/* Incoming bytes do not move the deadline: it is checked when it is due, and set anew. */
void conn_life_set(struct conn *conn)
{
	uint64_t due = conn->active_ms + (idle_ms(conn) != 0 ? idle_ms(conn) : HELLO_MS);

	if (conn->closing)
		due = conn->close_by_ms;
	else if (conn->gateway == 0)
		due = conn->opened_ms + HELLO_MS;
	wheel_set(&conn->io->lives, &conn->due, due + 1);
}

/* Without the port: connections from one address are counted together. Of a unix socket: the user.
 */
static void address_set(struct conn *conn)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	char text[PEER_TEXT_BYTES];

	if (getpeername(conn->fd, (struct sockaddr *)&addr, &len) != 0)
		return;
	if (addr.ss_family == AF_INET)
		(void)inet_ntop(AF_INET, &((struct sockaddr_in *)&addr)->sin_addr, conn->address,
				sizeof(conn->address));
	else if (addr.ss_family == AF_INET6)
		(void)inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&addr)->sin6_addr, conn->address,
				sizeof(conn->address));
	else if (addr.ss_family == AF_UNIX && conn->listening != NULL)
		(void)snprintf(conn->address, sizeof(conn->address), "%s",
			       conn_peer(conn->fd, text));
}

/* Of the bounds on connections; listen.c and net.c count them in. */
static void count_out(struct net *net, struct listening *listening)
{
	atomic_fetch_sub(&net->connections, 1);
	if (listening != NULL)
		atomic_fetch_sub(&listening->connections, 1);
}

void arrival_drop(struct net *net, const struct arrival *arrival)
{
	(void)close(arrival->fd);
	count_out(net, arrival->listening);
}

struct conn *conn_create(struct io *io, const struct arrival *arrival)
{
	struct conn *conn = calloc(1, sizeof(*conn));
	bool known = false;

	if (conn == NULL) {
		arrival_drop(io->net, arrival);
		return NULL;
	}
	conn->io = io;
	conn->fd = arrival->fd;
	conn->listening = arrival->listening;
	if (conn_open(conn) == 0) {
		conn->id = io->next_id++;
		conn->protocol = arrival->protocol;
		conn->listener = arrival->listener;
		address_set(conn);
		conn->active_ms = conn->opened_ms = io_now_ms();
		HASH_ADD(hh, io->conns, id, sizeof(conn->id), conn);
		known = HASHED(hh, conn);
	}
	if (!known) {
		conn_shut(conn);
		free(conn);
		count_out(io->net, arrival->listening);
		return NULL;
	}
	conn_life_set(conn);
	log_accepted(conn);
	if (conn->protocol->accept(conn) != 0) {
		conn_kill(conn, "its listener refused it");
		return NULL;
	}
	return conn;
}

static void conn_free(struct conn *conn)
{
	struct io *io = conn->io;
	struct pending *pending, *next_pending;
	struct sub *sub, *next_sub;

	log_closed(conn);
	HASH_ITER(hh_number, conn->subs, sub, next_sub)
		sub_drop(sub);
	while (conn->closed != NULL)
		sub_drop(conn->closed);
	while (conn->ended != NULL)
		sub_drop(conn->ended);
	DL_FOREACH_SAFE(conn->pendings, pending, next_pending) {
		DL_DELETE(conn->pendings, pending);
		conn->pending_count--;
		conn->pending_bytes -= pending->bytes;
		pending->conn = NULL; /* its answer is still to come */
		DL_APPEND(io->orphans, pending);
	}
	order_drop(conn);
	answers_drop(conn);
	readings_drop(conn);
	waits_drop(conn);
	wheel_remove(&io->lives, &conn->due);
	invariant(conn->dead && conn->subs == NULL && conn->waiter_count == 0 &&
			  conn->pending_count == 0 && conn->pending_bytes == 0 && !conn->is_reader,
		  "connection %llu is freed with %llu requests of %llu bytes and %llu waits under "
		  "way",
		  (unsigned long long)conn->id, (unsigned long long)conn->pending_count,
		  (unsigned long long)conn->pending_bytes, (unsigned long long)conn->waiter_count);
	if (conn->blocked)
		DL_DELETE2(io->blocked, conn, blocked_prev, blocked_next);
	sessions_let_go(conn);
	instance_unref(io->net->instances, conn->instance);
	if (conn->state != NULL)
		conn->protocol->closed(conn);
	HASH_DELETE(hh, io->conns, conn);
	count_out(io->net, conn->listening);
	conn_shut(conn);
	free(conn);
}

/* Many may end together, each with a thousand subscriptions: others are served in between. The
 * memory for input of those without is free at once. */
void conns_reap(struct io *io)
{
	enum { SUBS_AT_ONCE = 512 };
	size_t subs = 0;

	while (io->dead != NULL && subs < SUBS_AT_ONCE) {
		struct conn *conn = io->dead;

		io->dead = conn->dead_next;
		subs += HASH_CNT(hh_number, conn->subs) + conn->closed_count;
		conn_free(conn);
	}
	if (io->dead != NULL)
		io_again(io);
}

/* ---- commands ---- */

struct sluice_slice block_put(uint8_t **io_at, struct sluice_slice slice)
{
	uint8_t *at = *io_at;

	if (slice.len > 0)
		memcpy(at, slice.data, slice.len);
	*io_at += slice.len;
	return (struct sluice_slice){at, slice.len};
}

struct net_submission {
	struct submission submission;
	void *block;
	struct message_block *message_block; /* holds this submission */
};

static void net_submission_destroy(struct submission *submission)
{
	struct net_submission *own = (struct net_submission *)submission;

	if (own->message_block != NULL) {
		message_block_free(own->message_block);
		return;
	}
	free(own->block);
	free(own);
}

void pending_free(struct pending *pending)
{
	door_buf_unref(pending->buf);
	free(pending->opening);
	free(pending);
}

static struct pending *pending_add(struct conn *conn, uint64_t bytes, uint64_t tag, bool quiet)
{
	struct pending *pending = calloc(1, sizeof(*pending));

	if (pending == NULL)
		return NULL;
	pending->conn = conn;
	pending->ordinal = ++conn->ordinal;
	pending->bytes = bytes;
	pending->tag = tag;
	pending->quiet = quiet;
	DL_APPEND(conn->pendings, pending);
	conn->pending_count++;
	conn->pending_bytes += bytes;
	conn->io->pendings++;
	pending->security = under_way_add(conn->io);
	return pending;
}

static void pending_undo(struct conn *conn, struct pending *pending)
{
	invariant(conn->pending_count > 0 && conn->pending_bytes >= pending->bytes &&
			  conn->ordinal > 0,
		  "connection %llu: %llu commands under way, of %llu bytes; one takes %llu",
		  ULL(conn->id), ULL(conn->pending_count), ULL(conn->pending_bytes),
		  ULL(pending->bytes));
	DL_DELETE(conn->pendings, pending);
	conn->pending_count--;
	conn->pending_bytes -= pending->bytes;
	conn->ordinal--;
	conn->io->pendings--;
	under_way_done(conn->io, pending->security);
	pending_free(pending);
}

/* In the block, if it is one that can give memory. Takes block. */
static struct net_submission *submission_new(struct door_block block)
{
	struct net_submission *own = block.message != NULL
					     ? message_block_alloc(block.message, sizeof(*own))
					     : calloc(1, sizeof(*own));

	if (own == NULL) {
		message_block_free(block.message);
		free(block.plain);
		return NULL;
	}
	own->block = block.plain;
	own->message_block = block.message;
	return own;
}

/* The session that the command names, or the attached one. */
static uint64_t session_used(struct conn *conn, const struct command *command)
{
	struct held_session *held =
		command->session != 0 ? session_held(conn, command->session) : conn->own;

	if (held == NULL)
		return 0;
	session_use(held);
	held->used |= command->type != COMMAND_SESSION_CLOSE;
	return held->session;
}

/* That of the first command that is under way. */
static uint64_t share_used(struct conn *conn, const struct pending *pending, uint64_t session)
{
	if (conn->pendings == pending)
		conn->share = session != 0 ? session : UINT64_MAX;
	return conn->share;
}

/* About what core gives for one claim, or one item that is larger. It counts before it is there: a
 * thousand claims under way could fill the memory with output that their client does not read. */
enum { CLAIM_OUTPUT_BYTES = 1 << 20 };

static size_t output_expected(const struct command *command)
{
	return command->type == COMMAND_CLAIM ? CLAIM_OUTPUT_BYTES : 0;
}

int conn_submit(struct conn *conn, const struct command *command, struct door_block block,
		size_t bytes, bool control, uint64_t tag, bool quiet)
{
	struct net_submission *own = submission_new(block);
	struct pending *pending =
		own != NULL ? pending_add(conn, bytes - block.buf_bytes + output_expected(command),
					  tag, quiet)
			    : NULL;
	int rc;

	admitted(conn, "a command");
	if (pending == NULL) {
		if (own != NULL)
			net_submission_destroy(&own->submission);
		return SLUICE_E_NOMEM;
	}
	/* The engine has read the command when its answer comes, on this thread. */
	pending->buf = block.buf != NULL ? buf_ref(block.buf) : NULL;
	own->submission.command = *command;
	own->submission.command.gateway = conn->gateway;
	own->submission.command.session = session_used(conn, command);
	own->submission.share = share_used(conn, pending, own->submission.command.session);
	own->submission.command.random = random_u64(conn->io);
	own->submission.bytes = bytes;
	own->submission.sink = &conn->io->sink;
	own->submission.tag = (uint64_t)(uintptr_t)pending;
	own->submission.conn = conn->id;
	own->submission.control = control;
	own->submission.destroy = net_submission_destroy;
	rc = engine_submit_quietly(conn->io->engine, &own->submission);
	conn->io->submitted = conn->io->submitted || rc == 0;
	if (rc != 0) {
		pending_undo(conn, pending);
		net_submission_destroy(&own->submission);
		if (rc == SLUICE_E_BUSY)
			conn_block(conn);
	}
	return rc;
}
