/* SPDX-License-Identifier: Apache-2.0
 *
 * The I/O threads: loops, listening sockets, and the dispatch of releases to connections.
 */
#include "broker/net/conn/internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/util/clock.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "broker/util/memory.h"

enum { BEAT_MS = 100 };

uint64_t io_now_ms(void)
{
	return clock_mono_ns() / 1000000;
}

static uint64_t started_ms; /* written once, by net_create, before any thread of it runs */

uint64_t net_uptime_ms(void)
{
	return io_now_ms() - started_ms;
}

/* ---- notes from other threads ---- */

void io_note(struct io *io, const struct io_note *note)
{
	struct io_note *copy = malloc(sizeof(*copy));
	uint64_t one = 1;

	/* A release that is dropped would leave clients without their answers. */
	if (copy == NULL)
		memory_fail_stop("a note to an I/O thread");
	*copy = *note;
	copy->next = NULL;
	(void)pthread_mutex_lock(&io->lock);
	*io->notes_tail = copy;
	io->notes_tail = &copy->next;
	(void)pthread_mutex_unlock(&io->lock);
	if (write(io->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_line(LOG_LEVEL_ERROR, log_id("net.wake", "an I/O thread could not be woken"),
			 log_str("error", strerror(errno)));
}

static void sink_post(struct engine_sink *sink, struct engine_release *release)
{
	io_note((struct io *)sink, &(struct io_note){.kind = IO_RELEASE, .release = release});
}

static void sink_kick(struct engine_sink *sink, uint64_t tag)
{
	io_note((struct io *)sink, &(struct io_note){.kind = IO_KICK, .tag = tag});
}

/* ---- releases ---- */

static void reply_one(struct io *io, const struct origin *origin, const struct effect *effect)
{
	struct pending *pending = (struct pending *)(uintptr_t)origin->tag;
	struct conn *conn = pending->conn;

	invariant(pending->prev != NULL && (conn == NULL || (conn->io == io && conn->pending_count > 0 &&
							     conn->pending_bytes >= pending->bytes)),
		  "an answer for connection %llu, which has %llu commands of %llu bytes under way",
		  conn != NULL ? (unsigned long long)conn->id : 0,
		  conn != NULL ? (unsigned long long)conn->pending_count : 0,
		  conn != NULL ? (unsigned long long)conn->pending_bytes : 0);
	if (conn == NULL) {
		DL_DELETE(io->orphans, pending);
	} else {
		DL_DELETE(conn->pendings, pending);
		conn->pending_count--;
		conn->pending_bytes -= pending->bytes;
		conn->answers->reply(conn, pending->what, pending->corr, effect->outcome);
		if (conn->reads != NULL)
			native_run_reads(conn);
	}
	free(pending);
}

static void consumer_one(struct io *io, const struct origin *origin, const struct effect *effect)
{
	struct sub *sub;

	HASH_FIND(hh_tag, io->subs, &origin->tag, sizeof(origin->tag), sub);
	if (sub == NULL)
		return;
	if (conn_is_native(sub->conn))
		native_effect(sub->conn, sub, effect);
	else
		foreign_effect(sub->conn, sub, effect);
}

static void to_session(struct io *io, const struct effect *effect, uint64_t session)
{
	struct conn *conn, *next;

	DL_FOREACH_SAFE2(*conn_session_list(io, session), conn, next, session_next)
	{
		if (conn->dead || conn->session != session || conn->gateway != effect->gateway)
			continue;
		if (conn_is_native(conn))
			native_effect(conn, NULL, effect);
		else
			foreign_effect(conn, NULL, effect);
	}
}

static void to_subscribers(struct io *io, const struct effect *effect, enum sub_kind kind)
{
	struct sub *sub, *next;

	/* The last one that is dropped takes the list with it: what follows it is read before. */
	for (sub = subs_of(io, kind, effect->gateway, effect->id); sub != NULL; sub = next) {
		next = sub->peer_next;
		if (conn_is_native(sub->conn))
			native_effect(sub->conn, sub, effect);
		else
			foreign_effect(sub->conn, sub, effect);
	}
}

static void dispatch(struct io *io, const struct engine_release *release, const struct effect *effect)
{
	const struct origin *origin;

	switch (effect->kind) {
	case FX_REPLY:
	case FX_GRANT:
	case FX_JOBS:
	case FX_RESUMED:
	case FX_ITEM_DAMAGED:
		invariant(effect->command < release->origin_count, "an effect of command %u of %zu",
			  effect->command, release->origin_count);
		origin = &release->origins[effect->command];
		if (origin->sink != &io->sink)
			return;
		if (origin->kind == ORIGIN_CONSUMER)
			consumer_one(io, origin, effect);
		else if (effect->kind == FX_REPLY)
			reply_one(io, origin, effect);
		return;
	case FX_LOG_GROWN:
		subs_log_grown(io, effect->gateway, effect->id);
		return;
	case FX_STREAM_DELETED:
		to_subscribers(io, effect, SUB_FOLLOW);
		return;
	case FX_QUEUE_DELETED:
		to_subscribers(io, effect, SUB_CONSUME);
		return;
	case FX_JOB_CANCEL:
	case FX_LEASE_LOST:
		to_session(io, effect, effect->session);
		return;
	case FX_SESSION_ENDED:
		to_session(io, effect, effect->id);
		return;
	case FX_JOB_TERMINAL:
		native_job_ended(io, effect);
		return;
	case FX_QUEUE_READY:
	case FX_LOG_TRIMMED:
	case FX_SESSION_OPENED:
	case FX_TOPOLOGY:
		return;
	}
}

static void release_handle(struct io *io, struct engine_release *release)
{
	size_t count = effects_count(release->effects);

	invariant(release->sequence > io->released, "release %llu comes behind %llu",
		  (unsigned long long)release->sequence, (unsigned long long)io->released);
	for (size_t i = 0; i < count; i++)
		dispatch(io, release, effects_at(release->effects, i));
	io->released = release->sequence;
	engine_release_done(io->engine, &io->sink, release);
}

/* ---- the round ---- */

static void unblock(struct io *io)
{
	struct conn *conn, *next;

	struct conn *last = io->blocked != NULL ? io->blocked->blocked_prev : NULL;

	/* One try for each: who is blocked again goes to the end of the list, and this thread has others to serve. */
	DL_FOREACH_SAFE2(io->blocked, conn, next, blocked_next)
	{
		DL_DELETE2(io->blocked, conn, blocked_prev, blocked_next);
		conn->blocked = false;
		conn_parse(conn);
		if (conn == last)
			break;
	}
}

static void round_end(struct io *io)
{
	struct conn *conn, *next;

	native_answers_flush(io);
	readings_run(io);
	io->pump_cost = 0;
	subs_pump(io);
	DL_FOREACH2(io->stopped, conn, stopped_next)
	conn->turn_over = false;
	/* Whose turn is over again is at the end of the list again, and waits for the next round. */
	DL_FOREACH_SAFE2(io->stopped, conn, next, stopped_next)
	if (!conn->dead && !conn->turn_over)
		conn_flow(conn);
	conns_flush(io);
	conns_reap(io);
}

static void notes_handle(struct io *io, struct io_note *note)
{
	while (note != NULL) {
		struct io_note *next = note->next;
		struct conn *conn;

		switch (note->kind) {
		case IO_ADOPT:
			(void)conn_create(io, note->ops, note->fd);
			break;
		case IO_RELEASE:
			release_handle(io, note->release);
			break;
		case IO_KICK:
			conn = conn_find(io, note->tag);
			if (conn != NULL)
				conn_kill(conn, "its session is another connection's now");
			break;
		}
		free(note);
		note = next;
	}
}

/* What every round of a thread does, whatever it was woken for. */
static void round_run(struct io *io)
{
	native_waits_due(io, io_now_ms());
	unblock(io);
	round_end(io);
}

static void on_again(evutil_socket_t fd, short what, void *user)
{
	(void)fd;
	(void)what;
	round_run(user);
}

void io_again(struct io *io)
{
	/* An event that a callback makes active runs before the sockets are looked at again, and could go on doing so; a timer runs after
	 * them. io_init has added it once, so the loop has room for it. */
	(void)event_add(io->again, &(struct timeval){0, 0});
}

static void on_wake(evutil_socket_t fd, short what, void *user)
{
	struct io *io = user;
	struct io_note *notes;
	uint64_t count;
	bool stop;

	(void)what;
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	(void)pthread_mutex_lock(&io->lock);
	notes = io->notes;
	io->notes = NULL;
	io->notes_tail = &io->notes;
	stop = io->stop;
	(void)pthread_mutex_unlock(&io->lock);
	notes_handle(io, notes);
	round_run(io);
	if (stop)
		(void)event_base_loopbreak(io->base);
}

/* Whether the peer took some of the output since the last beat; the kernel's buffer can be most of what a slow line takes in a minute. */
static bool output_moves(struct conn *conn)
{
	size_t before = conn->unsent_seen;
	int queued = 0;

	if (ioctl(conn->fd, SIOCOUTQ, &queued) != 0)
		queued = 0;
	conn->unsent_seen = conn_unsent(conn) + (size_t)queued;
	return conn->unsent_seen < before;
}

/* What is not read cannot be heard: while the broker itself keeps the connection from being read, or while the peer takes its output, it is
 * not silent. */
static void lives_extend(struct io *io, uint64_t now)
{
	struct conn *conn;

	DL_FOREACH2(io->stopped, conn, stopped_next)
	if (!conn->dead && ((!conn->closing && !conn_is_full(conn)) || output_moves(conn)))
		conn->active_ms = now;
}

static void lives_end(struct io *io, uint64_t now)
{
	struct wheel_entry *due;

	while ((due = wheel_due(&io->lives, now)) != NULL) {
		struct conn *conn = (struct conn *)((char *)due - offsetof(struct conn, due));
		uint64_t limit = conn_life_ms(conn);

		io->lives_visited++;
		if (limit != 0 && conn->active_ms + limit < now)
			conn_kill(conn, conn->gateway == 0 ? "no HELLO came in time"
							   : "the peer was silent for too long");
		else
			conn_life_set(conn);
	}
}

static void on_beat(evutil_socket_t fd, short what, void *user)
{
	struct io *io = user;
	uint64_t now = io_now_ms();
	struct conn *conn, *next;

	(void)fd;
	(void)what;
	lives_extend(io, now);
	lives_end(io, now);
	DL_FOREACH_SAFE2(io->keeping, conn, next, keep_next)
	conn_rest(conn);
	round_run(io);
}

static void *io_run(void *user)
{
	struct io *io = user;

	(void)event_base_loop(io->base, EVLOOP_NO_EXIT_ON_EMPTY);
	return NULL;
}

/* ---- life ---- */

static int io_init(struct io *io, struct net *net)
{
	const struct timeval beat = {0, BEAT_MS * 1000};

	io->sink.post = sink_post;
	io->sink.kick = sink_kick;
	io->net = net;
	io->engine = net->engine;
	io->notes_tail = &io->notes;
	io->next_id = io->next_tag = 1;
	wheel_init(&io->lives, io_now_ms());
	wheel_init(&io->waits, io_now_ms());
	io->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	io->fresh = malloc(NET_READ_BYTES);
	if (io->fresh == NULL || io->wake_fd < 0 || pthread_mutex_init(&io->lock, NULL) != 0)
		return SLUICE_E_NOMEM;
	io->base = event_base_new();
	if (io->base == NULL)
		return SLUICE_E_NOMEM;
	io->wake = event_new(io->base, io->wake_fd, EV_READ | EV_PERSIST, on_wake, io);
	io->beat = event_new(io->base, -1, EV_PERSIST, on_beat, io);
	io->again = evtimer_new(io->base, on_again, io);
	if (io->wake == NULL || io->beat == NULL || io->again == NULL || event_add(io->wake, NULL) != 0 ||
	    event_add(io->beat, &beat) != 0 || event_add(io->again, &(struct timeval){0, 0}) != 0)
		return SLUICE_E_NOMEM;
	return engine_sink_add(net->engine, &io->sink);
}

int net_create(const struct net_config *config, struct engine *engine, struct net **ret)
{
	struct net *net = calloc(1, sizeof(*net));

	if (net == NULL)
		return SLUICE_E_NOMEM;
	net->config = *config;
	net->engine = engine;
	started_ms = io_now_ms();
	net->io_count = config->io_threads != 0 ? config->io_threads : 1;
	net->ios = calloc(net->io_count, sizeof(*net->ios));
	if (net->ios == NULL || instances_create(&net->instances) != 0) {
		free(net->ios);
		free(net);
		return SLUICE_E_NOMEM;
	}
	for (uint32_t i = 0; i < net->io_count; i++) {
		int rc = io_init(&net->ios[i], net);

		if (rc != 0) {
			net_destroy(net);
			return rc;
		}
	}
	*ret = net;
	return 0;
}

int net_start(struct net *net)
{
	for (uint32_t i = 0; i < net->io_count; i++) {
		if (pthread_create(&net->ios[i].thread, NULL, io_run, &net->ios[i]) != 0)
			return SLUICE_E_NOMEM;
		net->ios[i].runs = true;
	}
	return 0;
}

void net_stop(struct net *net)
{
	uint64_t one = 1;

	for (uint32_t i = 0; i < net->io_count; i++) {
		struct io *io = &net->ios[i];

		if (!io->runs)
			continue;
		(void)pthread_mutex_lock(&io->lock);
		io->stop = true;
		(void)pthread_mutex_unlock(&io->lock);
		if (write(io->wake_fd, &one, sizeof(one)) < 0)
			continue;
		(void)pthread_join(io->thread, NULL);
		io->runs = false;
	}
}

static void io_fini(struct io *io)
{
	struct conn *conn, *next;
	struct pending *pending, *after_pending;

	HASH_ITER(hh, io->conns, conn, next) {
		conn->attached = false;
		conn_kill(conn, "the broker stops");
	}
	conns_reap(io);
	/* The engine is stopped: no answer comes any more. */
	DL_FOREACH_SAFE(io->orphans, pending, after_pending) {
		DL_DELETE(io->orphans, pending);
		free(pending);
	}
	while (io->notes != NULL) {
		struct io_note *note = io->notes;

		io->notes = note->next;
		if (note->kind == IO_RELEASE)
			engine_release_done(io->engine, &io->sink, note->release);
		if (note->kind == IO_ADOPT)
			(void)close(note->fd);
		free(note);
	}
	if (io->wake != NULL)
		event_free(io->wake);
	if (io->beat != NULL)
		event_free(io->beat);
	if (io->again != NULL)
		event_free(io->again);
	if (io->base != NULL)
		event_base_free(io->base);
	if (io->wake_fd > 0)
		(void)close(io->wake_fd);
	free(io->fresh);
	(void)pthread_mutex_destroy(&io->lock);
}

void net_destroy(struct net *net)
{
	if (net == NULL)
		return;
	listeners_close(net);
	for (uint32_t i = 0; i < net->io_count; i++)
		io_fini(&net->ios[i]);
	free(net->ios);
	instances_destroy(net->instances);
	free(net);
}
