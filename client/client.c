/* SPDX-License-Identifier: Apache-2.0
 *
 * The client's life, and a turn of its loop: one epoll descriptor for socket, timer and wake-up. In
 * own-thread mode a thread turns the loop; in caller-loop mode sluice_process() or a blocking call
 * does.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client/base/error.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/link/link.h"
#include "client/call/call.h"
#include "client/publish/publish.h"
#include "client/publish/txn.h"
#include "client/sub/subs.h"
#include "protocol/frame.h"
#include "sluice.pb-c.h"

/* ---- the loop ---- */

static void timer_arm(sluice_client *client, uint64_t due)
{
	struct itimerspec at = {.it_value = {.tv_sec = (time_t)(due / 1000),
					     /* all zero would disarm the timer */
					     .tv_nsec = (long)(due % 1000) * 1000000 + 1}};

	/* The timer is only moved to earlier times: deadlines usually move to later ones, and a
	 * superfluous turn when it fires costs less than updating it each time. */
	if (due >= client->timer_ms)
		return;
	client->timer_ms = due;
	(void)timerfd_settime(client->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

/* Handles deadlines, then sends pending frames. */
static void work(sluice_client *client)
{
	uint64_t now = now_ms(), next = UINT64_MAX;
	bool was_again;

	client->again = false;
	if (client->retry_ms <= now)
		client->retry_ms = UINT64_MAX; /* retried below */
	link_due(client, now);
	calls_due(client, now, &next);
	publish_due(client, now, &next);
	txns_due(client, now, &next);
	subs_due(client, now, &next);
	link_leave(client, now);
	/* A callback created work that this turn may have skipped. The client's own thread then has
	 * another turn at once; the application's loop waits for the descriptor. The sends below
	 * need no turn of their own, unless the connection breaks. */
	was_again = client->again;
	txns_send(client);
	calls_send(client);
	publish_send(client);
	subs_flush(client);
	link_flush(client);
	next = link_next(client) < next ? link_next(client) : next;
	next = client->retry_ms < next ? client->retry_ms : next;
	if (client->config.mode == MODE_CALLER_LOOP &&
	    (was_again || client->link->lacking || (client->again && client->state != STATE_READY)))
		next = now;
	timer_arm(client, next);
}

static void wake_take(sluice_client *client)
{
	uint64_t count;

	client->woken = false;
	(void)!read(client->wake_fd, &count, sizeof(count));
}

static void drain(int fd)
{
	uint64_t count;

	(void)!read(fd, &count, sizeof(count));
}

/* first: whether work came since the last turn. */
static void turn(sluice_client *client, int timeout_ms, bool first)
{
	struct epoll_event events[4];
	const sluice_client *outer;
	int count;

	if (first) {
		outer = loop_enter(client);
		work(client);
		(void)loop_enter(outer);
		/* The cause of the wake-up is handled. */
		if (client->woken)
			wake_take(client);
	}
	client_unlock(client);
	count = epoll_wait(client->epoll_fd, events, 4, timeout_ms);
	client_lock(client);
	outer = loop_enter(client);
	for (int i = 0; i < count; i++) {
		if (events[i].data.fd == client->wake_fd) {
			wake_take(client);
		} else if (events[i].data.fd == client->timer_fd) {
			drain(client->timer_fd);
			client->timer_ms = UINT64_MAX;
		} else if (events[i].data.fd == client->link->socket_fd) {
			link_io(client, events[i].events);
		}
	}
	work(client);
	(void)loop_enter(outer);
	subs_reap(client);
}

static void whole_turn(sluice_client *client, int timeout_ms)
{
	turn(client, timeout_ms, true);
}

static void *run(void *user)
{
	sluice_client *client = user;

	client_lock(client);
	/* A turn ends with work(), under the same lock as the beginning of the next turn. */
	client->again = true;
	while (!client->stopping)
		turn(client, -1, client->again);
	client_unlock(client);
	return NULL;
}

/* ---- reports of the link, in the order in which the parts need them ---- */

/* The broker has answered all that it has taken. link_leave() ends the connection. */
static void drained(sluice_client *client)
{
	if (client->state != STATE_STOPPING)
		return;
	calls_untaken(client);
	publish_untaken(client);
}

static bool on_notice_frame(sluice_client *client, struct sluice_slice body)
{
	Sluice__Notice *notice = sluice__notice__unpack(&mem_protobuf, body.len, body.data);
	bool taken;

	if (notice == NULL && mem_lacked())
		return false;
	if (notice == NULL) {
		link_broken(client, SLUICE_E_PROTOCOL, "the broker sent a malformed NOTICE");
		return true;
	}
	taken = true;
	if (notice->kind == SLUICE__NOTICE_KIND__NOTICE_SHUTDOWN)
		link_stops(client, notice->offset);
	else if (notice->kind == SLUICE__NOTICE_KIND__NOTICE_DRAINED)
		drained(client);
	else
		taken = sub_on_notice(client, notice);
	sluice__notice__free_unpacked(notice, &mem_protobuf);
	return taken;
}

static bool on_frame(sluice_client *client, const struct frame_header *header,
		     struct sluice_slice body)
{
	switch (header->type) {
	case FRAME_REPLY:
		return call_on_reply(client, header->corr, body);
	case FRAME_PUBLISHED:
		return publish_on_answer(client, header->corr, body);
	case FRAME_DELIVER:
		return sub_on_deliver(client, body);
	case FRAME_NOTICE:
		return on_notice_frame(client, body);
	case FRAME_ACKED:
		return call_on_acked(client, header->corr, body);
	default:
		return true; /* fields of later versions */
	}
}

static void on_connected(sluice_client *client, bool session_lost)
{
	if (session_lost) {
		publish_session_lost(client);
		txns_session_lost(client);
		subs_broken(client, true);
		client_notice(client,
			      &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_SESSION_LOST,
					   .code = SLUICE_E_SESSION_GONE,
					   .text = "the session had ended; its leases are gone",
					   .session = client->link->session_id));
	}
	subs_open(client);
}

static bool waits(sluice_client *client)
{
	return calls_wait(client) || publish_waits(client);
}

static void on_broken(sluice_client *client)
{
	calls_broken(client);
	publish_broken(client);
	subs_broken(client, false);
}

static void end_with(sluice_client *client, int code, const char *text)
{
	calls_end(client, code, text);
	publish_end(client, code);
	txns_end(client, code);
	subs_end(client, code);
}

static void on_failed(sluice_client *client, int code)
{
	end_with(client, code, client->error);
}

static const struct link_ops link_ops = {.frame = on_frame,
					 .accepted = calls_check,
					 .connected = on_connected,
					 .waits = waits,
					 .broken = on_broken,
					 .failed = on_failed};

/* ---- life ---- */

static int descriptors_open(sluice_client *client)
{
	struct epoll_event event = {.events = EPOLLIN};

	client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	client->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	client->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (client->epoll_fd < 0 || client->wake_fd < 0 || client->timer_fd < 0)
		return SLUICE_E_IO;
	event.data.fd = client->wake_fd;
	if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->wake_fd, &event) != 0)
		return SLUICE_E_IO;
	event.data.fd = client->timer_fd;
	return epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->timer_fd, &event) != 0
		       ? SLUICE_E_IO
		       : 0;
}

static int locks_init(sluice_client *client)
{
	pthread_mutexattr_t mutex;
	pthread_condattr_t cond;

	if (pthread_mutexattr_init(&mutex) != 0 ||
	    pthread_mutexattr_settype(&mutex, PTHREAD_MUTEX_RECURSIVE) != 0 ||
	    pthread_mutex_init(&client->lock, &mutex) != 0 || pthread_condattr_init(&cond) != 0 ||
	    pthread_condattr_setclock(&cond, CLOCK_MONOTONIC) != 0 ||
	    pthread_cond_init(&client->changed, &cond) != 0)
		return SLUICE_E_NOMEM;
	(void)pthread_mutexattr_destroy(&mutex);
	(void)pthread_condattr_destroy(&cond);
	return 0;
}

static void client_free(sluice_client *client)
{
	link_free(client);
	publish_free(client);
	subs_free(client);
	if (client->epoll_fd >= 0)
		(void)close(client->epoll_fd);
	if (client->wake_fd >= 0)
		(void)close(client->wake_fd);
	if (client->timer_fd >= 0)
		(void)close(client->timer_fd);
	(void)pthread_cond_destroy(&client->changed);
	(void)pthread_mutex_destroy(&client->lock);
	mem_free(client);
}

/* A client with the state of every layer, in one allocation. */
struct whole {
	struct sluice_client client; /* first */
	struct link link;
	struct calls calls;
	struct publisher publisher;
	struct transactor transactor;
	struct subs subs;
};

static sluice_client *client_new(void)
{
	struct whole *whole = mem_alloc(sizeof(*whole));
	sluice_client *client;

	if (whole == NULL)
		return NULL;
	client = &whole->client;
	client->link = &whole->link;
	client->calls = &whole->calls;
	client->publisher = &whole->publisher;
	client->transactor = &whole->transactor;
	client->subs = &whole->subs;
	client->turn = whole_turn;
	client->link->ops = &link_ops;
	client->link->socket_fd = client->epoll_fd = client->wake_fd = client->timer_fd = -1;
	client->timer_ms = client->retry_ms = client->calls->due_ms = UINT64_MAX;
	publish_init(client);
	return client;
}

int sluice_open(const sluice_config *config, sluice_notice_fn *on_notice, void *user,
		sluice_client **ret)
{
	sluice_client *client = client_new();
	int rc;

	if (client == NULL)
		return error_set(SLUICE_E_NOMEM, NULL);
	client->config = *config;
	client->on_notice = on_notice;
	client->user = user;
	if (config->transport_fd >= 0)
		(void)fcntl(config->transport_fd, F_SETFD, FD_CLOEXEC);
	rc = locks_init(client);
	if (rc == 0)
		rc = descriptors_open(client);
	if (rc != 0) {
		int error = errno;

		client_free(client);
		return error_format(rc, "no descriptors or locks for a client: %s",
				    strerror(error));
	}
	/* The first turn of the loop connects: no callback runs before the caller has its
	 * client. */
	client_lock(client);
	client_wake(client);
	if (client->config.mode == MODE_OWN_THREAD) {
		rc = thread_start(&client->thread, NULL, run, client);
		client->thread_runs = rc == 0;
	}
	client_unlock(client);
	if (rc != 0) {
		client_free(client);
		return error_set(SLUICE_E_NOMEM, "no thread for the client's loop");
	}
	*ret = client;
	return 0;
}

/* Waits until every publish is answered and every call has ended, or for the deadline. */
static int drain_all(sluice_client *client, uint64_t deadline)
{
	while (client->state != STATE_FAILED &&
	       (!publish_settled(client) || buffer_len(&client->link->out) > 0)) {
		if (now_ms() >= deadline)
			return SLUICE_E_TIMEOUT;
		client_wake(client);
		client_wait_some(client, deadline, 20);
	}
	return publish_settled(client) ? 0 : SLUICE_E_TIMEOUT;
}

/* Ends every remaining call, publish, transaction and subscription; the loop ends, under this
 * thread's lock. */
static void end_all(sluice_client *client)
{
	const sluice_client *outer;

	/* Callbacks run here as in the loop: blocking calls are refused. */
	outer = loop_enter(client);
	client->closing = true;
	end_with(client, SLUICE_E_CLOSED, "the client was closed");
	(void)loop_enter(outer);
	client->stopping = true;
	client->woken = false;
	client_wake(client);
}

int sluice_close(sluice_client *client, bool end_session, int deadline_ms)
{
	uint64_t deadline;
	int rc;

	if (client == NULL)
		return 0;
	if (client_on_loop(client))
		return error_set(SLUICE_E_WRONG_STATE, from_a_callback);
	deadline = deadline_of(client, deadline_ms);
	client_lock(client);
	subs_give_back(client, deadline);
	rc = drain_all(client, deadline);
	if (end_session && client->state == STATE_READY) {
		Sluice__Request request = SLUICE__REQUEST__INIT;
		Sluice__SessionClose close_session = SLUICE__SESSION_CLOSE__INIT;
		uint64_t now = now_ms();
		sluice_call call =
			SLUICE_CALL(.deadline_ms = deadline == UINT64_MAX ? 1000
						   : deadline > now	  ? (int)(deadline - now)
									  : 1);

		request.op_case = SLUICE__REQUEST__OP_SESSION_CLOSE;
		request.session_close = &close_session;
		client->config.reconnect = false;
		client->on_notice = NULL; /* the end of the client itself is not reported */
		/* Waiting requires that the lock is held only once. */
		client_unlock(client);
		(void)call_run(client, &request, false, &call, NULL);
		client_lock(client);
	}
	end_all(client);
	client_unlock(client);
	if (client->thread_runs)
		(void)pthread_join(client->thread, NULL);
	/* Other threads' blocking calls have their answers now, and are about to return. */
	client_lock(client);
	while (client->users > 1)
		(void)pthread_cond_wait(&client->changed, &client->lock);
	client_unlock(client);
	/* the descriptor was passed, but never used */
	if (client->state == STATE_IDLE && client->config.transport_fd >= 0)
		(void)close(client->config.transport_fd);
	client_free(client);
	return error_set(rc, "not all publishes were answered before the deadline; the others were "
			     "dropped");
}

static const char not_caller_loop[] = "the client's mode is own-thread: it has no descriptor to "
				      "wait for, and turns its loop itself";

int sluice_fd(const sluice_client *client)
{
	return client->config.mode == MODE_CALLER_LOOP ? client->epoll_fd
						       : error_set(SLUICE_E_INVAL, not_caller_loop);
}

int sluice_process(sluice_client *client, int timeout_ms)
{
	if (client->config.mode != MODE_CALLER_LOOP)
		return error_set(SLUICE_E_INVAL, not_caller_loop);
	if (client_on_loop(client))
		return error_set(SLUICE_E_WRONG_STATE, from_a_callback);
	client_lock(client);
	whole_turn(client, timeout_ms);
	client_unlock(client);
	return 0;
}

const char *sluice_version(void)
{
	return SLUICE_VERSION;
}
