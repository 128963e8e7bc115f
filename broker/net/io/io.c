/* SPDX-License-Identifier: Apache-2.0
 * An I/O thread: its loop, notes from other threads, the steps of a round, and the deadlines of its
 * connections. */
#include "broker/net/io/io.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/net/conn/bufs.h"
#include "broker/net/conn/conn.h"
#include "broker/net/conn/conn_io.h"
#include "broker/net/conn/input.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/reading.h"
#include "broker/net/conn/security.h"
#include "broker/net/conn/sessions.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/sub.h"
#include "broker/net/conn/wait.h"
#include "broker/net/io/release.h"
#include "broker/util/log.h"
#include "broker/util/memory.h"

/* LATE_MS: a timer that is later means that the thread did not run. */
enum { TIMER_MS = 100, LATE_MS = 1000, DRAIN_STILL_MS = 1000, LINGER_MS = 500 };

/* ---- notes from other threads ---- */

enum io_note_kind { IO_ADOPT, IO_RELEASE, IO_KICK, IO_CONSUMER_CLOSED, IO_DRAIN, IO_SECURITY };
struct io_note {
	struct io_note *next;
	enum io_note_kind kind;
	struct arrival arrival;
	struct engine_release *release;
	uint64_t tag;
};

static int try_note(struct io *io, const struct io_note *note)
{
	struct io_note *copy = malloc(sizeof(*copy));
	uint64_t one = 1;
	bool first;

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	*copy = *note;
	copy->next = NULL;
	(void)pthread_mutex_lock(&io->lock);
	first = io->notes == NULL;
	*io->notes_tail = copy;
	io->notes_tail = &copy->next;
	(void)pthread_mutex_unlock(&io->lock);
	/* The thread takes all notes at once: whoever gave the first one wakes it for all. */
	if (first && write(io->wake_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_line(LOG_LEVEL_ERROR, log_id("net.wake", "an I/O thread could not be woken"),
			 log_str("error", strerror(errno)));
	return 0;
}

/* Dropping a release would leave clients without their answers. */
static void io_note(struct io *io, const struct io_note *note)
{
	if (try_note(io, note) != 0)
		memory_fail_stop("a note to an I/O thread");
}

int io_adopt(struct net *net, const struct arrival *arrival)
{
	struct io *io = &net->ios[atomic_fetch_add(&net->next_io, 1) % net->io_count];
	int rc = try_note(io, &(struct io_note){.kind = IO_ADOPT, .arrival = *arrival});

	if (rc != 0)
		arrival_drop(net, arrival);
	return rc;
}

static void sink_post(struct engine_sink *sink, struct engine_release *release)
{
	io_note((struct io *)sink, &(struct io_note){.kind = IO_RELEASE, .release = release});
}

static void sink_kick(struct engine_sink *sink, uint64_t tag)
{
	io_note((struct io *)sink, &(struct io_note){.kind = IO_KICK, .tag = tag});
}

static void sink_consumer_closed(struct engine_sink *sink, uint64_t tag)
{
	io_note((struct io *)sink, &(struct io_note){.kind = IO_CONSUMER_CLOSED, .tag = tag});
}

/* ---- the round ---- */

static void unblock(struct io *io)
{
	struct conn *conn, *next;

	struct conn *last = io->blocked != NULL ? io->blocked->blocked_prev : NULL;

	/* One try for each: a connection that is blocked again is appended, and waits for the next
	 * round. */
	DL_FOREACH_SAFE2(io->blocked, conn, next, blocked_next)
	{
		DL_DELETE2(io->blocked, conn, blocked_prev, blocked_next);
		conn->blocked = false;
		conn_unblocked(conn);
		if (conn == last)
			break;
	}
}

/* ---- drain ---- */

static void drain_begin(struct io *io, uint64_t within_ms)
{
	struct conn *conn, *next;

	io->draining = true;
	io->drain_moved_ms = io_now_ms();
	HASH_ITER(hh, io->conns, conn, next) {
		if (conn->dead || conn->closing)
			continue;
		conn_flow(conn);
		if (conn->protocol->stop != NULL)
			conn->protocol->stop(conn, within_ms);
	}
}

/* Output that no peer has taken any of for DRAIN_STILL_MS is not waited for. */
static bool has_sent(struct io *io)
{
	uint64_t unsent = 0, now = io_now_ms();

	for (const struct conn *conn = io->conns; conn != NULL; conn = conn->hh.next)
		unsent += conn->dead ? 0 : conn_unsent(conn);
	if (unsent != io->drain_unsent)
		io->drain_moved_ms = now;
	io->drain_unsent = unsent;
	return unsent == 0 || now - io->drain_moved_ms >= DRAIN_STILL_MS;
}

/* Reads wait for commands, and answers for releases: they count as pending work. Waits for a job do
 * not, nor do reads that wait for a peer that takes no output; sent: as of has_sent(). */
static bool has_answered(const struct io *io, bool sent)
{
	if (io->pendings > 0 || io->closings != NULL || io->deleted != NULL)
		return false;
	for (const struct conn *conn = io->conns; conn != NULL; conn = conn->hh.next)
		if (!conn->dead && conn->pending_count > 0 && !(sent && conn_unsent(conn) > 0))
			return false;
	return true;
}

static void drain_tell(struct io *io)
{
	struct conn *conn, *next;

	io->drain_told = true;
	HASH_ITER(hh, io->conns, conn, next)
		if (!conn->dead && !conn->closing && conn->protocol->drained != NULL)
			conn->protocol->drained(conn);
	conns_flush(io);
}

static void drain_check(struct io *io)
{
	struct net *net = io->net;
	struct conn *conn, *next;

	if (!io->draining || io->drained || (!io->lingering && !has_answered(io, has_sent(io))))
		return;
	if (!io->drain_told)
		drain_tell(io);
	if (!io->lingering && !has_sent(io))
		return;
	if (!io->lingering) {
		io->lingering = true;
		io->drain_moved_ms = io_now_ms();
		HASH_ITER(hh, io->conns, conn, next)
			if (!conn->dead)
				conn_linger(conn);
	}
	if (io->conns != NULL && io_now_ms() - io->drain_moved_ms < LINGER_MS)
		return;
	io->drained = true;
	(void)pthread_mutex_lock(&net->drain_lock);
	net->drain_left--;
	(void)pthread_cond_broadcast(&net->drain_done);
	(void)pthread_mutex_unlock(&net->drain_lock);
}

void io_security(struct io *io, uint64_t version)
{
	io_note(io, &(struct io_note){.kind = IO_SECURITY, .tag = version});
}

static void security_check(struct io *io)
{
	struct net *net = io->net;

	if (!security_reports(io))
		return;
	(void)pthread_mutex_lock(&net->drain_lock);
	if (io->security_reported == net->security) {
		net->security_left--;
		(void)pthread_cond_broadcast(&net->drain_done);
	}
	(void)pthread_mutex_unlock(&net->drain_lock);
}

void io_drain(struct io *io, uint64_t within_ms)
{
	io_note(io, &(struct io_note){.kind = IO_DRAIN, .tag = within_ms});
}

static void round_end(struct io *io)
{
	struct conn *conn, *next;

	sessions_close_due(io);
	subs_end(io);
	readings_run(io);
	io->pump_cost = 0;
	subs_pump(io);
	DL_FOREACH2(io->stopped, conn, stopped_next)
	conn->turn_over = false;
	/* A connection whose turn is over again was appended to the list, and waits for the next
	 * round. */
	DL_FOREACH_SAFE2(io->stopped, conn, next, stopped_next)
	if (!conn->dead && !conn->turn_over)
		conn_flow(conn);
	conns_resume(io);
	conns_flush(io);
	conns_handshake(io);
	conns_reap(io);
	sessions_close_due(io);
	drain_check(io);
	security_check(io);
}

static void notes_handle(struct io *io, struct io_note *note)
{
	while (note != NULL) {
		struct io_note *next = note->next;
		struct conn *conn;

		switch (note->kind) {
		case IO_ADOPT:
			if (io->draining)
				arrival_drop(io->net, &note->arrival);
			else
				(void)conn_create(io, &note->arrival);
			break;
		case IO_RELEASE:
			release_handle(io, note->release);
			break;
		case IO_CONSUMER_CLOSED:
			sub_ended(io, note->tag);
			break;
		case IO_KICK:
			conn = conn_find(io, note->tag);
			if (conn != NULL)
				conn_kill(conn, "its session moved to another connection");
			break;
		case IO_SECURITY:
			security_begin(io, note->tag);
			break;
		case IO_DRAIN:
			drain_begin(io, note->tag);
			break;
		}
		free(note);
		note = next;
	}
}

/* Every wake-up of the thread ends with a round. */
static void round_run(struct io *io)
{
	waits_due(io, io_now_ms());
	unblock(io);
	round_end(io);
}

static void on_again(evutil_socket_t fd, short what, void *user)
{
	(void)fd;
	(void)what;
	round_run(user);
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

/* Whether the peer accepted some of the output since the last run of the timer. The kernel's buffer
 * counts: on a slow line it can hold most of a minute's output. */
static bool output_moves(struct conn *conn)
{
	size_t before = conn->unsent_seen;
	int queued = 0;

	if (ioctl(conn->fd, SIOCOUTQ, &queued) != 0)
		queued = 0;
	conn->unsent_seen = conn_unsent(conn) + (size_t)queued;
	return conn->unsent_seen < before;
}

/* A connection is not silent while the broker itself does not read it, or while the peer accepts
 * its output. */
static void lives_extend(struct io *io, uint64_t now)
{
	struct conn *conn;

	DL_FOREACH2(io->stopped, conn, stopped_next)
	if (!conn->dead && ((!conn->closing && !conn_is_full(conn)) || output_moves(conn)))
		conn->active_ms = now;
	DL_FOREACH2(io->starved, conn, stopped_next)
	conn->active_ms = now;
}

static void lives_end(struct io *io, uint64_t now)
{
	struct wheel_entry *due;

	while ((due = wheel_due(&io->lives, now)) != NULL) {
		struct conn *conn = (struct conn *)((char *)due - offsetof(struct conn, due));
		const char *why = conn_overdue(conn, now);

		io->lives_checked++;
		if (why != NULL)
			conn_kill(conn, why);
		else
			conn_life_set(conn);
	}
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Peers were not silent in time in which this thread did not run (SIGSTOP, a paused machine). The
 * deadlines of waiters stay: clients expect their answers by then. */
static void lives_move(struct io *io, uint64_t now)
{
	uint64_t gap = now - io->timer_ms;
	struct conn *conn, *next;

	io->timer_ms = now;
	if (gap <= TIMER_MS + LATE_MS)
		return;
	HASH_ITER(hh, io->conns, conn, next) {
		conn->active_ms = earlier(conn->active_ms + gap, now);
		conn->opened_ms = earlier(conn->opened_ms + gap, now);
		conn->close_by_ms = earlier(conn->close_by_ms + gap, now + DOOR_CLOSE_MS);
	}
}

static void on_timer(evutil_socket_t fd, short what, void *user)
{
	struct io *io = user;
	uint64_t now = io_now_ms();
	struct conn *conn, *next;

	(void)fd;
	(void)what;
	engine_report_running(io->engine, now);
	lives_move(io, now);
	sessions_touch_due(io);
	lives_extend(io, now);
	lives_end(io, now);
	DL_FOREACH_SAFE2(io->keeping, conn, next, keep_next)
	conn_shrink(conn);
	conns_press(io, now);
	conns_ended(io);
	round_run(io);
}

static void *io_run(void *user)
{
	struct io *io = user;

	io->timer_ms = io_now_ms();
	engine_report_running(io->engine, io->timer_ms);
	(void)event_base_loop(io->base, EVLOOP_NO_EXIT_ON_EMPTY);
	return NULL;
}

int io_start(struct io *io)
{
	int rc = pthread_create(&io->thread, NULL, io_run, io);

	if (rc != 0) {
		errno = rc;
		return SLUICE_E_NOMEM;
	}
	io->runs = true;
	return 0;
}

void io_stop(struct io *io)
{
	uint64_t one = 1;

	if (!io->runs)
		return;
	(void)pthread_mutex_lock(&io->lock);
	io->stop = true;
	(void)pthread_mutex_unlock(&io->lock);
	if (write(io->wake_fd, &one, sizeof(one)) < 0)
		return;
	(void)pthread_join(io->thread, NULL);
	io->runs = false;
}

int io_init(struct io *io, struct net *net)
{
	const struct timeval timer = {0, TIMER_MS * 1000};
	struct store_txn *txn = NULL;

	io->sink.post = sink_post;
	io->sink.kick = sink_kick;
	io->sink.consumer_closed = sink_consumer_closed;
	io->net = net;
	io->engine = net->engine;
	io->notes_tail = &io->notes;
	io->next_id = io->next_tag = 1;
	wheel_init(&io->lives, io_now_ms());
	wheel_init(&io->waits, io_now_ms());
	io->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	io->fresh = buf_fresh(io);
	if (io->fresh == NULL || io->wake_fd < 0 || pthread_mutex_init(&io->lock, NULL) != 0)
		return SLUICE_E_NOMEM;
	io->base = event_base_new();
	if (io->base == NULL)
		return SLUICE_E_NOMEM;
	io->wake = event_new(io->base, io->wake_fd, EV_READ | EV_PERSIST, on_wake, io);
	io->timer = event_new(io->base, -1, EV_PERSIST, on_timer, io);
	io->again = evtimer_new(io->base, on_again, io);
	if (io->wake == NULL || io->timer == NULL || io->again == NULL ||
	    event_add(io->wake, NULL) != 0 || event_add(io->timer, &timer) != 0 ||
	    event_add(io->again, &(struct timeval){0, 0}) != 0)
		return SLUICE_E_NOMEM;
	if (engine_read_begin(net->engine, &txn, &io->released) != 0)
		return SLUICE_E_IO;
	store_abort(txn);
	return engine_sink_add(net->engine, &io->sink);
}

void io_fini(struct io *io)
{
	struct conn *conn, *next;
	struct pending *pending, *after_pending;

	io->engine_gone = true;
	HASH_ITER(hh, io->conns, conn, next) {
		conn_kill(conn, "the broker stops");
	}
	while (io->dead != NULL)
		conns_reap(io);
	subs_fini(io);
	sessions_fini(io);
	/* The engine is stopped: no answer comes any more. */
	DL_FOREACH_SAFE(io->orphans, pending, after_pending) {
		DL_DELETE(io->orphans, pending);
		pending_free(pending);
	}
	while (io->notes != NULL) {
		struct io_note *note = io->notes;

		io->notes = note->next;
		if (note->kind == IO_RELEASE)
			engine_release_done(io->engine, &io->sink, note->release);
		if (note->kind == IO_ADOPT)
			(void)close(note->arrival.fd);
		free(note);
	}
	if (io->wake != NULL)
		event_free(io->wake);
	if (io->timer != NULL)
		event_free(io->timer);
	if (io->again != NULL)
		event_free(io->again);
	if (io->base != NULL)
		event_base_free(io->base);
	if (io->wake_fd > 0)
		(void)close(io->wake_fd);
	bufs_fini(io);
	(void)pthread_mutex_destroy(&io->lock);
}
