/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections: buffers, commands on their way, flow control, end of life.
 *
 * Flow: a connection is read from while fewer than INFLIGHT_REQUESTS_MAX commands, less than PENDING_BYTES_MAX and less than half of
 * OUTBOX_BYTES_MAX unsent output are on its account. So a slow reader or a fast publisher is felt by itself only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/net/io.h"
#include "broker/util/log.h"
#include "protocol/limits.h"

enum { PENDING_BYTES_MAX = 32 << 20, READ_BYTES = 1 << 18, LIBEVENT_READ_BYTES = 4096 };

/* For jitter and the like, one for each command: taken from the kernel many at a time. Secrets are not made of it. */
uint64_t random_u64(void)
{
	static __thread uint64_t pool[256 / sizeof(uint64_t)]; /* so much getrandom() gives whole */
	static __thread size_t left;

	if (left == 0) {
		if (getrandom(pool, sizeof(pool), 0) != (ssize_t)sizeof(pool))
			abort(); /* only before the kernel's pool is ready, or on a broken system */
		left = sizeof(pool) / sizeof(pool[0]);
	}
	return pool[--left];
}

struct conn *conn_find(struct io *io, uint64_t id)
{
	struct conn *conn;

	HASH_FIND(hh, io->conns, &id, sizeof(id), conn);
	return conn;
}

struct evbuffer *conn_output(struct conn *conn)
{
	return bufferevent_get_output(conn->bev);
}

size_t conn_unsent(const struct conn *conn)
{
	return evbuffer_get_length(bufferevent_get_output(conn->bev));
}

/* Beyond the bound of all, a connection still gets so much at a time: who reads goes on. */
enum { FAIR_BYTES = 1 << 18 };

bool conn_is_full(const struct conn *conn)
{
	const struct net *net = conn->io->net;
	uint64_t max = net->config.outbox_bytes_max != 0 ? net->config.outbox_bytes_max : 512u << 20;
	size_t unsent = conn_unsent(conn);

	return unsent > LIMIT_OUTBOX_BYTES_MAX / 2 ||
	       (unsent > FAIR_BYTES && atomic_load_explicit(&net->unsent, memory_order_relaxed) > max);
}

static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *user)
{
	struct net *net = user;

	(void)output;
	atomic_fetch_add_explicit(&net->unsent, info->n_added - info->n_deleted, memory_order_relaxed);
}

void conn_write(struct conn *conn, const void *bytes, size_t len)
{
	if (conn->dead)
		return;
	if (bufferevent_write(conn->bev, bytes, len) != 0)
		conn_kill(conn);
}

void conn_kill(struct conn *conn)
{
	if (conn->dead)
		return;
	conn->dead = true;
	conn->dead_next = conn->io->dead;
	conn->io->dead = conn;
	/* The round's end frees it; a callback further up may still hold it. */
	event_active(conn->io->wake, EV_READ, 0);
}

void conn_close_soon(struct conn *conn)
{
	conn->closing = true;
	(void)bufferevent_disable(conn->bev, EV_READ);
	if (conn_unsent(conn) == 0)
		conn_kill(conn);
}

bool conn_may_take(const struct conn *conn)
{
	return !conn->dead && !conn->closing && !conn->held && !conn->blocked &&
	       conn->pending_count < LIMIT_INFLIGHT_REQUESTS_MAX && conn->pending_bytes < PENDING_BYTES_MAX &&
	       !conn_is_full(conn);
}

void conn_flow(struct conn *conn)
{
	bool may = conn_may_take(conn);

	if (may == conn->reading)
		return;
	conn->reading = may;
	if (!may) {
		DL_APPEND2(conn->io->stopped, conn, stopped_prev, stopped_next);
		(void)bufferevent_disable(conn->bev, EV_READ);
		return;
	}
	DL_DELETE2(conn->io->stopped, conn, stopped_prev, stopped_next);
	(void)bufferevent_enable(conn->bev, EV_READ);
	conn_parse(conn);
}

void conn_parse(struct conn *conn)
{
	struct evbuffer *input = bufferevent_get_input(conn->bev);

	while (conn_may_take(conn)) {
		size_t len = evbuffer_get_length(input);
		const unsigned char *bytes;
		long used;

		/* To pull up a large frame at each read of it would copy it again and again. */
		if (len == 0 || len < conn->wanted)
			break;
		bytes = evbuffer_pullup(input, -1);
		if (bytes == NULL) {
			conn_kill(conn);
			return;
		}
		used = conn->ops->bytes(conn->state, bytes, len);
		if (used < 0) {
			conn_close_soon(conn);
			return;
		}
		(void)evbuffer_drain(input, (size_t)used);
		if (used == 0)
			break;
	}
	conn_flow(conn);
}

/* ---- libevent's callbacks ---- */

/* libevent 2.1 reads 4 KiB and goes back to its loop, whatever its maximum is set to: what else has come is read here at once. */
static void read_more(struct bufferevent *bev)
{
	struct evbuffer *input = bufferevent_get_input(bev);
	struct evbuffer_iovec room[2];
	ssize_t got = -1;
	int count;

	if (evbuffer_get_length(input) < LIBEVENT_READ_BYTES)
		return;
	(void)evbuffer_unfreeze(input, 0);
	count = evbuffer_reserve_space(input, READ_BYTES, room, 2);
	if (count > 0)
		got = readv(bufferevent_getfd(bev), (struct iovec *)room, count);
	/* An end or an error is met again by libevent's next read. */
	for (int i = 0; i < count; i++) {
		size_t here = got < 0 ? 0 : (size_t)got < room[i].iov_len ? (size_t)got : room[i].iov_len;

		room[i].iov_len = here;
		got -= (ssize_t)here;
	}
	if (count > 0)
		(void)evbuffer_commit_space(input, room, count);
	(void)evbuffer_freeze(input, 0);
}

static void on_read(struct bufferevent *bev, void *user)
{
	struct conn *conn = user;

	read_more(bev);
	conn->active_ms = io_now_ms();
	conn_parse(conn);
	subs_pump(conn->io);
}

static void on_write(struct bufferevent *bev, void *user)
{
	struct conn *conn = user;
	struct sub *sub, *next;

	(void)bev;
	if (conn->closing && conn_unsent(conn) == 0) {
		conn_kill(conn);
		return;
	}
	if (conn->reads != NULL)
		native_run_reads(conn);
	conn_flow(conn);
	HASH_ITER(hh_number, conn->subs, sub, next) {
		if (sub->kind == SUB_FOLLOW)
			sub_wants_pump(sub);
		else if (sub->paused && !conn_is_full(conn))
			sub->paused = engine_consumer_pause(conn->io->engine, &conn->io->sink, sub->tag,
							    false) != 0;
	}
	if (!conn_is_native(conn) && !conn->dead)
		conn->ops->effect(conn->state,
				  &(struct sluice_listener_effect){.struct_size = sizeof(
									   struct sluice_listener_effect),
								   .kind = SLUICE_FX_WRITABLE});
	subs_pump(conn->io);
}

static void on_event(struct bufferevent *bev, short what, void *user)
{
	(void)bev;
	if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		conn_kill(user);
}

/* ---- life ---- */

struct conn *conn_create(struct io *io, const struct sluice_listener_ops *ops, int fd)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	if (conn == NULL) {
		(void)close(fd);
		return NULL;
	}
	conn->bev = bufferevent_socket_new(io->base, fd, BEV_OPT_CLOSE_ON_FREE);
	if (conn->bev == NULL) {
		(void)close(fd);
		free(conn);
		return NULL;
	}
	conn->id = io->next_id++;
	conn->io = io;
	conn->ops = ops;
	conn->active_ms = io_now_ms();
	conn->reading = true;
	HASH_ADD(hh, io->conns, id, sizeof(conn->id), conn);
	atomic_fetch_add(&io->net->connections, 1);
	bufferevent_setcb(conn->bev, on_read, on_write, on_event, conn);
	bufferevent_setwatermark(conn->bev, EV_WRITE, LIMIT_OUTBOX_BYTES_MAX / 8, 0);
	(void)bufferevent_set_max_single_write(conn->bev, 1 << 18);
	(void)evbuffer_add_cb(bufferevent_get_output(conn->bev), on_output, io->net);
	if (!conn_is_native(conn))
		conn->answers = &foreign_answers;
	if (ops->accept(&foreign_host, (sluice_conn *)conn, &conn->state) != 0) {
		conn_kill(conn);
		return NULL;
	}
	(void)bufferevent_enable(conn->bev, EV_READ | EV_WRITE);
	return conn;
}

static void conn_free(struct conn *conn)
{
	struct io *io = conn->io;
	struct pending *pending, *next_pending;
	struct deferred *deferred, *next_deferred;
	struct waiter *waiter, *next_waiter;
	struct sub *sub, *next_sub;
	uint64_t idle = io_now_ms() - conn->active_ms;

	HASH_ITER(hh_number, conn->subs, sub, next_sub)
		sub_drop(sub);
	DL_FOREACH_SAFE(conn->pendings, pending, next_pending) {
		DL_DELETE(conn->pendings, pending);
		pending->conn = NULL; /* its answer still comes */
		DL_APPEND(io->orphans, pending);
	}
	DL_FOREACH_SAFE(conn->reads, deferred, next_deferred) {
		DL_DELETE(conn->reads, deferred);
		free(deferred->bytes);
		free(deferred);
	}
	DL_FOREACH(io->answers, deferred)
		if (deferred->conn == conn)
			deferred->conn = NULL;
	DL_FOREACH_SAFE(io->waiters, waiter, next_waiter) {
		if (waiter->conn != conn)
			continue;
		DL_DELETE(io->waiters, waiter);
		free(waiter);
	}
	if (conn->blocked)
		DL_DELETE2(io->blocked, conn, blocked_prev, blocked_next);
	if (!conn->reading)
		DL_DELETE2(io->stopped, conn, stopped_prev, stopped_next);
	if (conn->attached && engine_session_detach(io->engine, conn->gateway, conn->session, &io->sink,
						    conn->id, (uint32_t)idle) != 0)
		log_line(LOG_LEVEL_ERROR, log_id("net.no_memory", "no memory to detach a session"),
			 log_u64("session", conn->session));
	if (conn->state != NULL)
		conn->ops->closed(conn->state);
	HASH_DELETE(hh, io->conns, conn);
	atomic_fetch_sub(&io->net->connections, 1);
	/* Freed output is not told. */
	atomic_fetch_sub_explicit(&io->net->unsent, conn_unsent(conn), memory_order_relaxed);
	bufferevent_free(conn->bev);
	free(conn);
}

void conns_reap(struct io *io)
{
	while (io->dead != NULL) {
		struct conn *conn = io->dead;

		io->dead = conn->dead_next;
		conn_free(conn);
	}
}

int conn_attach(struct conn *conn, uint32_t gateway, uint64_t session, uint32_t timeout_ms)
{
	int rc = engine_session_attach(conn->io->engine, gateway, session, &conn->io->sink, conn->id);

	if (rc != 0)
		return rc;
	conn->gateway = gateway;
	conn->session = session;
	conn->session_timeout_ms = timeout_ms;
	conn->attached = true;
	return 0;
}

/* ---- commands ---- */

struct net_submission {
	struct submission submission;
	void *block;
	struct message_block *message_block; /* this submission lies in it */
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

static struct pending *pending_add(struct conn *conn, uint64_t bytes, uint32_t what, uint64_t corr,
				   uint64_t extra)
{
	struct pending *pending = calloc(1, sizeof(*pending));

	if (pending == NULL)
		return NULL;
	pending->conn = conn;
	pending->ordinal = ++conn->ordinal;
	pending->bytes = bytes;
	pending->what = what;
	pending->corr = corr;
	pending->extra = extra;
	DL_APPEND(conn->pendings, pending);
	conn->pending_count++;
	conn->pending_bytes += bytes;
	return pending;
}

static void pending_undo(struct conn *conn, struct pending *pending)
{
	DL_DELETE(conn->pendings, pending);
	conn->pending_count--;
	conn->pending_bytes -= pending->bytes;
	conn->ordinal--;
	free(pending);
}

static void block_on_inbox(struct conn *conn)
{
	if (conn->blocked)
		return;
	conn->blocked = true;
	DL_APPEND2(conn->io->blocked, conn, blocked_prev, blocked_next);
}

static int submit(struct conn *conn, struct net_submission *own, const struct command *command, size_t bytes,
		  bool control, uint32_t what, uint64_t corr, uint64_t extra)
{
	struct pending *pending = pending_add(conn, bytes, what, corr, extra);
	int rc;

	if (pending == NULL) {
		net_submission_destroy(&own->submission);
		return SLUICE_E_NOMEM;
	}
	own->submission.command = *command;
	own->submission.command.gateway = conn->gateway;
	own->submission.command.session = conn->session;
	own->submission.command.random = random_u64();
	own->submission.bytes = bytes;
	own->submission.sink = &conn->io->sink;
	own->submission.tag = (uint64_t)(uintptr_t)pending;
	own->submission.control = control;
	own->submission.destroy = net_submission_destroy;
	rc = engine_submit(conn->io->engine, &own->submission);
	if (rc != 0) {
		pending_undo(conn, pending);
		net_submission_destroy(&own->submission);
		if (rc == SLUICE_E_BUSY)
			block_on_inbox(conn);
	}
	return rc;
}

int conn_submit(struct conn *conn, const struct command *command, void *block, size_t bytes, bool control,
		uint32_t what, uint64_t corr, uint64_t extra)
{
	struct net_submission *own = calloc(1, sizeof(*own));

	if (own == NULL) {
		free(block);
		return SLUICE_E_NOMEM;
	}
	own->block = block;
	return submit(conn, own, command, bytes, control, what, corr, extra);
}

int conn_submit_message(struct conn *conn, uint16_t type, const ProtobufCMessage *message,
			struct message_block **block, size_t bytes, bool control, uint32_t what,
			uint64_t corr)
{
	struct net_submission *own = message_block_alloc(*block, sizeof(*own));
	struct command command = {.type = type, .message = message};
	struct message_block *taken = *block;

	*block = NULL;
	if (own == NULL) {
		message_block_free(taken);
		return SLUICE_E_NOMEM;
	}
	own->message_block = taken;
	return submit(conn, own, &command, bytes, control, what, corr, 0);
}
