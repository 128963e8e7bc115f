/* SPDX-License-Identifier: Apache-2.0
 *
 * libsluice: the client library.
 *
 * Modes. own-thread: the library runs one thread per client, callbacks come on it, all calls may be made from any thread.
 *   caller-loop: no thread; the caller waits for sluice_fd() to become readable and calls sluice_process(). Blocking calls then run
 *   the loop themselves until they are answered or their deadline passes; a client is used by one thread at a time. In both modes an
 *   asynchronous call (with a callback) never blocks, whatever the broker does, a stopped broker included.
 * Callbacks. On the loop's thread (own-thread: the library's; caller-loop: the one that is in sluice_process or a blocking call), one after
 *   the other; those that sluice_close() brings, on its thread. They must not block. They may make calls that do not wait (a callback, or SLUICE_FIRE),
 *   close subscriptions and free replies; what would wait (a blocking call, sluice_sub_next with nothing there, flush, wait_connected, process, close)
 *   returns WRONG_STATE. None comes from inside sluice_open(), or from inside a call that does not wait.
 * Threads. What takes a client or a subscription: any thread in own-thread mode, one at a time in caller-loop mode. What takes a config, reply, delivery
 *   or transaction: any thread, one at a time for each object; sluice_reply_ref and _free at any time. The others: any thread.
 * Deadlines. Every call takes one in its sluice_call, sluice_close too. 0 means the client's default (10 s), -1 none.
 *   A call whose connection breaks is sent again after the reconnect if it can be repeated safely (reads, publishes by sequence, job
 *   submit, intent, report, cancel, create with if_not_exists); otherwise it ends with SLUICE_E_UNKNOWN.
 * Reconnect. By itself, with back-off and jitter, on_notice tells: DISCONNECTED, after calls that cannot be repeated ended with UNKNOWN; then
 *   RESUMED, or SESSION_LOST and CONNECTED when the session had ended meanwhile; these come before anything of the new connection. The
 *   session is resumed: leases are kept, subscriptions reopened (followers at the next offset, consumers with what they
 *   hold), unanswered publishes sent again and settled by sequence.
 *   What was lost comes back by itself with a growing wait, and is announced; what ends for good (a HELLO that is refused, a named session that
 *   another client took, a subscription whose queue or stream is gone) says so once, and every call after it.
 * Errors. 0 or a negative code of error.h. Whatever returned one, sluice_last_error() says why as text. A reply has its own code and text, and the
 *   request id. Out of memory is NOMEM, never the end of the process: what was not sent was not done; what comes from the broker waits for memory and is
 *   not dropped; without any the connection is given up and resumed.
 * Memory. Strings and slices passed in are borrowed for the call. What a reply or delivery points to lives as long as it does; both outlive
 *   their client. Pointers must not be NULL where this page does not say that they may; strings inside of a spec may be, and are empty then.
 * Fork. Do not use a client after fork in the child; close nothing there (all descriptors are close-on-exec).
 * Signals. SIGPIPE is never raised (MSG_NOSIGNAL). The library installs no handlers; its thread blocks all signals.
 * Nothing is ever printed.
 */
#ifndef SLUICE_CLIENT_H
#define SLUICE_CLIENT_H

#include <stdbool.h>

#include "sluice/error.h"
#include "sluice/types.h"
#include "sluice/version.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sluice_client sluice_client;
typedef struct sluice_reply sluice_reply;
typedef struct sluice_sub sluice_sub;
typedef struct sluice_delivery sluice_delivery;

/* ---- configuration: properties as strings ---- */
typedef struct sluice_config sluice_config;
SLUICE_API sluice_config *sluice_config_create(void); /* owned; NULL: out of memory. Does not block */
SLUICE_API void sluice_config_destroy(
	sluice_config *config); /* accepts NULL; no client needs it after sluice_open */
/* Keys (value): address ("host:port[,host:port]"; "127.0.0.1:7584"), gateway ("default"), client (shown to admins), session (a session name: opening it
 * ends an older session of that name), session_timeout_ms (30000), mode (own-thread | caller-loop), deadline_ms (10000),
 * connect_timeout_ms (5000), reconnect (yes | no), reconnect_min_ms (50), reconnect_max_ms (5000), buffer_bytes (16777216; publish
 * buffer), buffer_policy (block | fail: BUFFER_FULL at once; asynchronous publishes never block), batch_events (1000), batch_bytes (262144), compress (none | zstd), producer (a producer name: sequence
 * survives the process), lease_extend (yes | no: extend timed leases by itself, so that
 * who works has what it works on), lease_extend_max_ms (how long that goes on after the delivery or the last sluice_lease_extend, for an application that hangs: 0: an hour, or,
 * of a lease under a second, sixteen leases), transport_fd (an already connected socket; the client's once sluice_open succeeded).
 * Copies both strings, does not block. INVAL: sluice_last_error names the key or what the value should have been. */
SLUICE_API int sluice_config_set(sluice_config *config, const char *key, const char *value) SLUICE_MUST_USE;

/* One allocator for everything the library allocates (what libc and zstd need for themselves excepted); before the first other call, not
 * thread-safe. All three functions, or NULL for malloc and its kin. */
typedef struct {
	void *(*alloc)(size_t bytes);
	void *(*resize)(void *old, size_t bytes);
	void (*release)(void *old);
} sluice_allocator;
SLUICE_API void sluice_allocator_set(const sluice_allocator *allocator);

/* ---- life ---- */
typedef enum {
	SLUICE_NOTICE_CONNECTED,
	SLUICE_NOTICE_RESUMED,
	SLUICE_NOTICE_DISCONNECTED,
	SLUICE_NOTICE_SESSION_LOST /* a new session: leases are gone */,
	SLUICE_NOTICE_JOB_CANCEL /* job, token: end it */,
	/* Once for each lease: somebody else may have it now, and what is done with it is refused (STALE_TOKEN). Of a job: job, token. Of items: sub, token, items,
	 * code (STALE_TOKEN: the broker said so; TIMEOUT: it is not extended, by itself or any more). Items count against the credit until they are acked or
	 * nacked all the same. When all leases of the session are gone, SESSION_LOST comes instead. What waits for sluice_sub_next() under a lease that is
	 * over is dropped: it is not handed out, and there is no event when it was all of the lease. */
	SLUICE_NOTICE_LEASE_LOST,
	SLUICE_NOTICE_ERROR /* code, text: an ack or a call made with SLUICE_FIRE was refused */,
	SLUICE_NOTICE_DAMAGED /* code (CORRUPT), text: an item or job is damaged and not delivered */
} sluice_notice_kind;
typedef struct {
	sluice_notice_kind kind;
	int code;
	const char *text;
	const char *job;
	sluice_token token;
	uint64_t session;
	sluice_sub *sub; /* LEASE_LOST of items: whose; as long as it is not closed */
	uint32_t items;	 /* LEASE_LOST of items: how many of the token's were neither acked nor nacked */
} sluice_notice;
/* On the loop's thread. Must not block and must not make blocking calls. The event is borrowed for the callback. */
typedef void sluice_notice_fn(sluice_client *client, const sluice_notice *notice, void *user);

/* Starts connecting and returns at once; config is copied. on_notice may be NULL. In caller-loop mode the loop's first turn connects.
 * An address that is malformed, say, fails the client and not this call: sluice_wait_connected and all calls return why. */
SLUICE_API int sluice_open(const sluice_config *config, sluice_notice_fn *on_notice, void *user,
			   sluice_client **ret) SLUICE_MUST_USE;
/* Waits until connected (or TIMEOUT, CLOSED, or the reason why not: VERSION, DENIED, INVAL, NOT_FOUND, DISCONNECTED; when the time is over
 * and a broker has answered the last try: why it refused, NO_SPACE, BUSY, LIMIT). */
SLUICE_API int sluice_wait_connected(sluice_client *client, int deadline_ms) SLUICE_MUST_USE;
/* Flushes, ends the session when end_session, and frees everything within the deadline, subscriptions too; open calls get CLOSED, and
 * blocking ones of other threads return before it does (none may begin meanwhile). Accepts NULL. Returns 0 or TIMEOUT (unflushed publishes
 * were dropped); the client is gone in any case but one: from a callback it does nothing and returns WRONG_STATE. */
SLUICE_API int sluice_close(sluice_client *client, bool end_session, int deadline_ms);
SLUICE_API uint64_t sluice_session_id(const sluice_client *client); /* 0: not yet. Does not block */
/* Why the last call of this thread that failed did, as text, whatever the call was; until its next failure, so ask right after it. None failed yet: why
 * client is not connected, or "". client may be NULL. Never NULL; borrowed, this thread's. Does not block. */
SLUICE_API const char *sluice_last_error(const sluice_client *client);

/* caller-loop mode only (INVAL otherwise). fd: poll for readability, nothing else; stays the same for life. */
SLUICE_API int sluice_fd(const sluice_client *client);
/* Does what is due, waiting up to timeout_ms (0: not at all) for something. Callbacks come from inside. */
SLUICE_API int sluice_process(sluice_client *client, int timeout_ms);

/* ---- calls ---- */
/* Ends every asynchronous call exactly once, on the loop's thread. The reply is the library's unless sluice_reply_ref() is taken. */
typedef void sluice_done_fn(sluice_client *client, const sluice_reply *reply, void *user);
typedef struct {
	int deadline_ms;      /* 0: default, -1: none */
	sluice_done_fn *done; /* NULL: blocking */
	void *user;
} sluice_call;
/* Every operation ends (..., const sluice_call *call, sluice_reply **ret_reply), and is made in one of three ways:
 * call NULL, or done and user NULL: blocking. Returns the reply's code; *ret_reply (if ret_reply is not NULL) is owned by the caller, set
 *   also when the broker or the library refused. NULL: with the default deadline.
 * done: asynchronous. Returns 0 when accepted (done will be called, once), or a code (done will not).
 * done NULL and user SLUICE_FIRE: nobody waits. Returns 0 when accepted, or a code; a refusal comes as SLUICE_NOTICE_ERROR; of a publish it is counted
 *   (sluice_publish_stats, sluice_flush).
 * ret_reply must be NULL in the last two.
 * A reply that is NULL says that there was no memory for it: all of these take it, as code NOMEM and nothing else. The request may have been done. */
#define SLUICE_FIRE ((void *)1)

/* Of a reply: none of these blocks or fails, a NULL reply has 0, "" or false. Texts are borrowed for the life of the reply. */
SLUICE_API int sluice_reply_code(const sluice_reply *reply);
SLUICE_API const char *sluice_reply_text(const sluice_reply *reply); /* never NULL */
SLUICE_API bool sluice_reply_retriable(const sluice_reply *reply);
SLUICE_API uint64_t sluice_reply_request_id(const sluice_reply *reply); /* request id */
SLUICE_API sluice_index sluice_reply_index(const sluice_reply *reply);
SLUICE_API bool sluice_reply_more(const sluice_reply *reply);
SLUICE_API bool sluice_reply_duplicate(const sluice_reply *reply);
SLUICE_API uint64_t sluice_reply_affected(const sluice_reply *reply);
SLUICE_API uint64_t sluice_reply_offset(const sluice_reply *reply);   /* publish: first offset or item */
SLUICE_API sluice_reply *sluice_reply_ref(const sluice_reply *reply); /* one reference more, owned */
SLUICE_API void sluice_reply_free(sluice_reply *reply);		      /* drops one reference; accepts NULL */
/* The whole reply as JSON, names as in sluice.proto; owned by the reply, made at the first call (one thread at a time); NULL: out of memory. */
SLUICE_API const char *sluice_reply_json(sluice_reply *reply);

/* ---- topology ---- */
typedef struct {
	const char *name;
	const char *const *subjects;		    /* NULL-terminated, or NULL */
	uint64_t max_age_ms, max_bytes, max_events; /* 0: no bound */
	const char *description;
	bool if_not_exists; /* succeeds also if it exists as described here, with these subjects among others; else CONFLICT names the difference */
} sluice_stream_spec;
typedef struct {
	const char *name;
	bool jobs; /* a queue of jobs, instead of items */
	const char *const *subjects;
	uint32_t lease_ms, max_attempts; /* 0: default */
	const char *dead_letter;
	uint64_t max_items;
	bool priority;
	const char *lifecycle;
	const char *description;
	bool if_not_exists;
} sluice_queue_spec;
typedef struct {
	const char *name;
	const char *kind; /* subject | direct | fanout */
	const char *alternate;
	const char *description;
	bool if_not_exists;
} sluice_router_spec;
typedef struct {
	const char *router; /* NULL: the default router */
	const char *pattern;
	const char *target_kind; /* stream | queue | router */
	const char *target;
} sluice_edge;
/* Made in the ways above. _create: EXISTS, unless if_not_exists; with it repeated after a
 * reconnect, without it UNKNOWN when the connection breaks meanwhile. _alter: NOT_FOUND; takes the whole new configuration. _bind, _unbind: idempotent. INVAL and
 * LIMIT name the field. */
SLUICE_API int sluice_stream_create(sluice_client *, const sluice_stream_spec *, const sluice_call *,
				    sluice_reply **);
SLUICE_API int sluice_stream_alter(sluice_client *, const sluice_stream_spec *, const sluice_call *,
				   sluice_reply **);
SLUICE_API int sluice_queue_create(sluice_client *, const sluice_queue_spec *, const sluice_call *,
				   sluice_reply **);
SLUICE_API int sluice_queue_alter(sluice_client *, const sluice_queue_spec *, const sluice_call *,
				  sluice_reply **);
SLUICE_API int sluice_queue_purge(sluice_client *, const char *name, const sluice_call *, sluice_reply **);
SLUICE_API int sluice_router_create(sluice_client *, const sluice_router_spec *, const sluice_call *,
				    sluice_reply **);
SLUICE_API int sluice_router_alter(sluice_client *, const sluice_router_spec *, const sluice_call *,
				   sluice_reply **);
SLUICE_API int sluice_router_bind(sluice_client *, const sluice_edge *, const sluice_call *, sluice_reply **);
SLUICE_API int sluice_router_unbind(sluice_client *, const sluice_edge *, const sluice_call *,
				    sluice_reply **);
/* text: the lifecycle file (client/README.md has its format: "lifecycle NAME", "state A -> B, C", "terminal D", "cancelled D", "failed E"). INVAL names the line. */
SLUICE_API int sluice_lifecycle_create(sluice_client *, const char *text, bool if_not_exists,
				       const sluice_call *, sluice_reply **);
SLUICE_API int sluice_lifecycle_alter(sluice_client *, const char *text, const sluice_call *,
				      sluice_reply **);
typedef enum {
	SLUICE_OBJECT_STREAM,
	SLUICE_OBJECT_QUEUE,
	SLUICE_OBJECT_ROUTER,
	SLUICE_OBJECT_LIFECYCLE
} sluice_object_kind;
/* Of all kinds. delete: NOT_FOUND, IN_USE; what it held is gone, and its subscriptions end. show: one row. list: rows by name behind `after` (NULL: from the
 * first), at most max (0: the broker's default); sluice_reply_more() says whether there are others. INVAL: no such kind. */
SLUICE_API int sluice_object_delete(sluice_client *, sluice_object_kind, const char *name,
				    const sluice_call *, sluice_reply **);
SLUICE_API int sluice_object_show(sluice_client *, sluice_object_kind, const char *name, const sluice_call *,
				  sluice_reply **);
SLUICE_API int sluice_object_list(sluice_client *, sluice_object_kind, const char *after, uint32_t max,
				  const sluice_call *, sluice_reply **);

typedef struct {
	const char *name;
	uint64_t id, first_offset, next_offset, events, bytes, first_time_ms, last_time_ms, max_age_ms,
		max_bytes, max_events;
} sluice_stream_info;
typedef struct {
	const char *name;
	bool jobs;
	uint64_t id, ready, leased, delayed, orphaned, put, acked, dead_lettered, bytes;
	uint32_t lease_ms, max_attempts;
	const char *dead_letter;
	const char *lifecycle; /* jobs: of jobs that name none; "": "airavata" */
} sluice_queue_info;
/* Rows of show, list and peek replies: true and *ret filled (borrowed from the reply), or false beyond the last. */
SLUICE_API bool sluice_reply_stream(const sluice_reply *, size_t i, sluice_stream_info *ret);
SLUICE_API bool sluice_reply_queue(const sluice_reply *, size_t i, sluice_queue_info *ret);
/* A lifecycle, so that a scheduler can look whether it has the states that it will report. */
typedef struct {
	const char *name;
	uint64_t id, jobs;
	const char *cancelled, *failed, *description;
	size_t states; /* the first one is the initial one */
} sluice_lifecycle_info;
typedef struct {
	const char *name;
	bool terminal;
	const char *const *next; /* NULL-terminated: states that it can go to */
} sluice_lifecycle_state;
SLUICE_API bool sluice_reply_lifecycle(const sluice_reply *, size_t i, sluice_lifecycle_info *ret);
/* State number `state` of row i; `next` is good until the next call of this on the reply. False beyond the last, or when there is no memory for
 * the list. One thread at a time. */
SLUICE_API bool sluice_reply_lifecycle_state(sluice_reply *, size_t i, size_t state,
					     sluice_lifecycle_state *ret);

/* ---- publish ---- */
typedef struct {
	const char
		*subject; /* what it is about; routed by the default router unless queue or stream is given */
	const char *queue; /* straight into this queue */
	const char *stream;
	sluice_slice key, id, body;
	const char *const *headers; /* name, value, name, value, NULL; or NULL */
	uint8_t priority;
	bool mandatory;		/* NO_ROUTE when nothing is bound */
	bool relaxed;		/* answered before it is on disk (within 50 ms) */
	sluice_time_ms time_ms; /* 0: now */
} sluice_message;
/* Batched by the library; answered when durable (unless relaxed). Each message ends in exactly one answer: call->done, the return, or with SLUICE_FIRE
 * in the counts. Waits for room in the buffer (buffer_policy), with SLUICE_FIRE too; asynchronous: BUFFER_FULL. What the broker refuses for now
 * (QUEUE_FULL, NO_SPACE, BUSY) is tried again until the message's deadline (with SLUICE_FIRE none unless it is given). */
SLUICE_API int sluice_publish(sluice_client *, const sluice_message *, const sluice_call *, sluice_reply **);
/* 1 to 10,000 messages as one: they are sent, committed and answered as one, whatever batch_events and batch_bytes are, and before what is
 * published later. All or none: what refuses one (a limit, NO_ROUTE, QUEUE_FULL) refuses all, and a batch that is sent again after a reconnect is
 * settled as one. All go to the same queue or stream (or neither) and agree in mandatory and relaxed, else INVAL; subjects may differ.
 * Together with their subjects, keys and headers they may have 17 MB, else LIMIT. One answer, as above: its offset is that of the first message
 * (into one queue or stream by name, the others follow it without a gap), its affected their number; SLUICE_FIRE as above. */
SLUICE_API int sluice_publish_batch(sluice_client *, const sluice_message *messages, size_t count,
				    const sluice_call *, sluice_reply **);
/* Blocks until every publish so far has its answer. Returns the first failure among them since the last flush, or 0. At the deadline: what the broker
 * refuses the oldest of them with for now (QUEUE_FULL), or TIMEOUT; none is dropped. */
SLUICE_API int sluice_flush(sluice_client *, int deadline_ms);
typedef struct {
	uint64_t published, acked, failed, duplicates, resent, buffered_bytes, in_flight;
} sluice_publish_stats;
/* Since sluice_open. Does not block, cannot fail. */
SLUICE_API void sluice_publish_stats_get(sluice_client *, sluice_publish_stats *ret);

/* ---- follow and consume ---- */
typedef enum {
	SLUICE_FROM_FIRST,
	SLUICE_FROM_LAST,
	SLUICE_FROM_OFFSET,
	SLUICE_FROM_TIME,
	SLUICE_FROM_CURSOR,
	SLUICE_FROM_NEW
} sluice_from;
typedef enum {
	SLUICE_DELIVERY_EVENT,
	SLUICE_DELIVERY_ITEM,
	SLUICE_DELIVERY_JOB,
	SLUICE_DELIVERY_CAUGHT_UP,
	SLUICE_DELIVERY_GAP,
	SLUICE_DELIVERY_END
} sluice_delivery_kind;
/* One delivery; fields not of its kind are 0/NULL. Borrowed for the callback, or owned when it came from sluice_sub_next(). */
typedef struct {
	sluice_delivery_kind kind;
	const char *subject;
	sluice_slice key, id, body; /* JOB: body is the payload */
	const char *const *headers; /* name, value, ..., NULL; or NULL */
	sluice_time_ms time_ms;
	uint64_t offset;	  /* EVENT; CAUGHT_UP: next; GAP: first missing */
	uint64_t to_offset;	  /* GAP: next that exists */
	uint64_t seq;		  /* ITEM */
	sluice_token token;	  /* ITEM, JOB */
	uint32_t failed_attempts; /* ITEM: failed attempts before this */
	uint32_t lease_ms;
	const char *job; /* JOB, and below */
	uint32_t attempt;
	const char *owner, *state, *tag, *scheduler_ref;
	bool orphan; /* taken over: look what became of it before anything else */
	bool intent; /* this attempt's intent is recorded, with tag */
	bool cancel;
	bool redelivered;
	uint8_t priority;
	int code; /* SUB_END */
	const char *text;
	const char *source;    /* JOB: that can judge this attempt; "": none was named */
	const char *lifecycle; /* JOB */
	uint64_t
		number; /* JOB: its identity, which its id is not once it was forgotten; 0: the broker does not say */
} sluice_delivery_view;
/* On the loop's thread; must not block. */
typedef void sluice_delivery_fn(sluice_sub *sub, const sluice_delivery_view *delivery, void *user);
typedef struct {
	const char *stream;
	sluice_from from;
	uint64_t offset;
	sluice_time_ms time_ms;
	const char *cursor;
	const char *filter;
	uint32_t
		credit; /* events outstanding; 0: 1,000. The library gives credit back as deliveries are handled */
	sluice_delivery_fn *on_delivery; /* NULL: sluice_sub_next() */
	void *user;
} sluice_follow_spec;
typedef struct {
	const char *queue;
	uint32_t credit;   /* items or jobs held at once; 0: 100. Given back as they are acked or ended */
	uint32_t lease_ms; /* 0: the queue's */
	uint32_t extend_max_ms; /* 0: the client's lease_extend_max_ms */
	bool orphans;		/* jobs: take over orphans, to reconcile them */
	bool session_lease;
	bool manual_credit; /* credit only through sluice_sub_credit() */
	sluice_delivery_fn *on_delivery;
	void *user;
	/* jobs: the source of evidence that the consumer can judge (a spool; a cluster and account), or NULL. Attempts that it intends are
	 * from then on given to consumers of that source alone. The library tells the broker of the source with each opening, and takes it
	 * over from a session that spoke for it before; who was taken over from is ended with CONFLICT at its next reconnect. */
	const char *source;
	/* Items, with on_delivery: an item is begun when sluice_item_begin() names it. Without on_delivery it is begun when sluice_sub_next()
	 * returns it, and this is not looked at. */
	bool report_begun;
} sluice_consume_spec;
/* A subscription is of the stream or queue that has the name when it is opened. Deleted, it ends (SLUICE_DELIVERY_END, code NOT_FOUND, text why): at once,
 * or after a reconnect when it was deleted meanwhile, also if another was created under the name since; then open a new one, from where it suits. So
 * does a follower whose stream ends before what was delivered of it, because the broker's store was put back to an older one.
 *
 * *ret is owned until sluice_sub_close(), or sluice_close(). Blocking: open, or *ret is NULL and the code says why (CLOSED: a delivery's
 * callback closed it already). Asynchronous: done comes
 * when it is open, or with why not, or with TIMEOUT (it still may be opened) or CLOSED; *ret must be closed all the same. Deliveries may come before done. */
SLUICE_API int sluice_follow(sluice_client *, const sluice_follow_spec *, const sluice_call *,
			     sluice_sub **ret);
SLUICE_API int sluice_consume(sluice_client *, const sluice_consume_spec *, const sluice_call *,
			      sluice_sub **ret);
/* Next delivery (owned; sluice_delivery_free), TIMEOUT, or why the subscription ended. INVAL with on_delivery. */
SLUICE_API int sluice_sub_next(sluice_sub *, int deadline_ms, sluice_delivery **ret) SLUICE_MUST_USE;
SLUICE_API const sluice_delivery_view *sluice_delivery_get(const sluice_delivery *);
SLUICE_API void sluice_delivery_free(sluice_delivery *); /* accepts NULL */
/* Does not block. LIMIT: more than CREDIT_MAX in all. */
SLUICE_API int sluice_sub_credit(sluice_sub *, uint32_t more);
/* No callback comes from it any more; a sluice_sub_next() of another thread returns CLOSED. Items and jobs that were not delivered to the application
 * go back to their queue, without an attempt counted (so does sluice_close() with all of its subscriptions). Leases of what was delivered stay until
 * acked, nacked, released or expired. Accepts NULL. 0, or TIMEOUT: the broker did not confirm it; it is gone all the same. In a callback it
 * does not wait. */
SLUICE_API int sluice_sub_close(sluice_sub *, int deadline_ms);
/* Of a consumer: the broker gives it nothing more, what is there already is still handed out (then sluice_sub_next() returns CLOSED), and the call
 * waits until all of it is settled: acked, nacked, released, reported as ended. 0, or TIMEOUT: something is not settled yet; it may be called again,
 * and sluice_sub_close() gives back what was not delivered. In a callback it begins, and does not wait (TIMEOUT). INVAL: a follower. The
 * subscription stays the caller's. */
SLUICE_API int sluice_sub_drain(sluice_sub *sub, int deadline_ms);

/* With SLUICE_FIRE acks are gathered into runs, sent at the end of the loop's turn, and again after a reconnect. STALE_TOKEN: the lease had ended. */
/* Made in the ways above; the subscription is not freed meanwhile. nack: the item comes again after delay_ms, the reason (may be NULL, at most TEXT_BYTES_MAX: LIMIT) is
 * kept with it. extend: the whole lease of the token by lease_ms (0: the queue's); also a sign of life (lease_extend_max_ms). UNKNOWN: the connection
 * broke before the answer. */
SLUICE_API int sluice_item_ack(sluice_sub *, sluice_token token, uint64_t seq, const sluice_call *,
			       sluice_reply **);
SLUICE_API int sluice_item_nack(sluice_sub *, sluice_token token, uint64_t seq, uint32_t delay_ms,
				const char *reason, const sluice_call *, sluice_reply **);
/* Gives the item back unbegun: at once, to its old place, and no attempt is counted. */
SLUICE_API int sluice_item_release(sluice_sub *sub, sluice_token token, uint64_t seq, const sluice_call *call,
				   sluice_reply **reply);
/* The application begins with the item (spec.report_begun; else WRONG_STATE). When a worker dies, or a lease ends, an attempt is counted for what
 * was begun and not settled, and for nothing else. With a callback and without report_begun the broker takes the first item of each grant
 * that is not settled for the begun one. Call it before the work: when it returns, the report is on its way. Does not wait. */
SLUICE_API int sluice_item_begin(sluice_sub *sub, sluice_token token, uint64_t seq);
SLUICE_API int sluice_lease_extend(sluice_sub *, sluice_token token, uint32_t lease_ms, const sluice_call *,
				   sluice_reply **);
/* Of the stream that this client follows under the name, if it does: NOT_FOUND when that one was deleted, though another may have its name. The
 * same holds for sluice_txn_cursor_set(). */
SLUICE_API int sluice_cursor_set(sluice_client *, const char *stream, const char *cursor,
				 uint64_t next_offset, const sluice_call *, sluice_reply **);
SLUICE_API int sluice_cursor_delete(sluice_client *, const char *stream, const char *cursor,
				    const sluice_call *, sluice_reply **);
SLUICE_API int sluice_queue_peek(sluice_client *, const char *queue, const char *state, uint64_t after,
				 uint32_t max, const sluice_call *, sluice_reply **);

/* ---- jobs ---- */
typedef struct {
	const char *job, *queue, *lifecycle, *owner;
	sluice_slice payload;
	uint8_t priority;
} sluice_job_spec;
/* What a word of a scheduler means. */
typedef enum {
	SLUICE_EVIDENCE_NONE,
	SLUICE_EVIDENCE_QUEUED,
	SLUICE_EVIDENCE_ACTIVE,
	SLUICE_EVIDENCE_SUSPENDED,
	SLUICE_EVIDENCE_OK,
	SLUICE_EVIDENCE_FAIL,
	SLUICE_EVIDENCE_CANCEL,
	SLUICE_EVIDENCE_TRANSIENT,
	SLUICE_EVIDENCE_LOST
} sluice_evidence_class;
typedef struct {
	const char *job;
	uint32_t attempt;
	const char *source; /* who says so */
	const char *state;  /* NULL: evidence or reference only */
	sluice_token token; /* 0: not a holder */
	const char *scheduler_ref, *evidence;
	int exit_code;
	sluice_time_ms
		seen_time_ms; /* when the source looked; 0: not told. With it a report that is repeated is known for one */
	bool release;
	/* How it ended, and when, by the source; times later than the broker's clock count as that. */
	bool exited; /* exit_code is one; an exit code of 0 without this says nothing */
	uint32_t signal;
	sluice_evidence_class evidence_class;
	sluice_time_ms started_time_ms, ended_time_ms;
	uint64_t memory_peak_bytes;
	/* Of the job that is meant: an id may be another job's once the first one was forgotten
	 * (NOT_FOUND). 0: whichever has the id now. */
	uint64_t number;
} sluice_job_report_spec;
/* Made in the ways above; all but release and reset are repeated after a reconnect, and settled by the job's id, state and attempt. NOT_FOUND, STALE_TOKEN (the
 * lease is not this client's any more), STALE_ATTEMPT, CANCELLED (intent), WRONG_STATE say what refused it; the reply's text names it. What a report
 * may not do is stored aside: 0, with sluice_reply_disposition() QUARANTINED or PARKED. A terminal report, a release and a refusal give the job's place in
 * the consumer's credit back. */
SLUICE_API int sluice_job_submit(sluice_client *, const sluice_job_spec *, const sluice_call *,
				 sluice_reply **);
SLUICE_API int sluice_job_intent(sluice_client *, const char *job, sluice_token, uint32_t attempt,
				 const char *tag, const sluice_call *, sluice_reply **);
SLUICE_API int sluice_job_report(sluice_client *, const sluice_job_report_spec *, const sluice_call *,
				 sluice_reply **);
SLUICE_API int sluice_job_release(sluice_client *, const char *job, sluice_token, uint32_t delay_ms,
				  const char *reason, const sluice_call *, sluice_reply **);
SLUICE_API int sluice_job_cancel(sluice_client *, const char *job, const char *reason, const sluice_call *,
				 sluice_reply **);
SLUICE_API int sluice_job_reset(sluice_client *, const char *job, bool force, const char *reason,
				const sluice_call *, sluice_reply **);
SLUICE_API int sluice_job_show(sluice_client *, const char *job, bool payload, const sluice_call *,
			       sluice_reply **);
/* Returns when the job is terminal, or TIMEOUT with the job as it is in the reply. number: for the job of that
 * number alone (0: whichever has the id): NOT_FOUND when it was forgotten, also if another one has its id now. */
SLUICE_API int sluice_job_wait(sluice_client *, const char *job, uint64_t number, const sluice_call *,
			       sluice_reply **);
typedef struct {
	uint64_t after_number; /* rows after this job number */
	uint32_t max;
	const char *state, *queue, *claim;
	bool open_only;
	uint64_t
		holder_session; /* only what this session holds, found by its own entries (sluice_session_id() for what the caller's does); 0: any */
} sluice_job_filter;
SLUICE_API int sluice_job_list(sluice_client *, const sluice_job_filter *, const sluice_call *,
			       sluice_reply **);
SLUICE_API int sluice_job_history(sluice_client *, const char *job, const sluice_call *, sluice_reply **);
SLUICE_API int sluice_job_explain(sluice_client *, const char *job, const sluice_call *, sluice_reply **);
SLUICE_API int sluice_quarantine_list(sluice_client *, const char *job, uint64_t after, uint32_t max,
				      const sluice_call *, sluice_reply **);
/* Checks the ledger, by pages; spec may be NULL. */
typedef struct {
	uint64_t after_number; /* 0, or next_number of the call before */
	uint64_t silent_ms;    /* a lease of which nothing was said for so long is a finding; 0: a day */
	uint64_t orphan_ms;    /* an orphan that nobody took for so long; 0: an hour */
} sluice_job_audit_spec;
SLUICE_API int sluice_job_audit(sluice_client *, const sluice_job_audit_spec *, const sluice_call *,
				sluice_reply **);
SLUICE_API int sluice_job_retention_set(sluice_client *, uint64_t keep_ms, const sluice_call *,
					sluice_reply **);
/* A source of evidence was asked (once a poll round and cluster, never once a job): it is the source's heartbeat, which explain and audit go
 * by. The first one makes the source. CONFLICT: another session that lives speaks for it, and take is not set. */
typedef struct {
	const char *source;
	bool ok;	  /* it answered */
	const char *text; /* what it said, or why not */
	bool take;	  /* from the session that spoke for it until now */
} sluice_source_heartbeat_spec;
SLUICE_API int sluice_source_heartbeat(sluice_client *, const sluice_source_heartbeat_spec *,
				       const sluice_call *, sluice_reply **);
/* An id for a job: time-ordered, unique, at most 40 bytes with its NUL. */
SLUICE_API void sluice_job_id_make(char ret[40]);

typedef enum {
	SLUICE_DISPOSITION_APPLIED,
	SLUICE_DISPOSITION_DUPLICATE,
	SLUICE_DISPOSITION_QUARANTINED,
	SLUICE_DISPOSITION_PARKED
} sluice_disposition;
typedef struct {
	const char *job;
	uint64_t number;
	const char *queue, *lifecycle, *state, *claim, *holder, *tag, *scheduler_ref, *owner, *evidence,
		*source;
	bool terminal, cancel, intent;
	uint32_t attempt;
	sluice_token token;
	uint64_t holder_session;
	int exit_code;
	uint8_t priority;
	sluice_time_ms submit_time_ms, change_time_ms;
	sluice_slice payload;
	const char *judge; /* source that can judge this attempt; "": none was named */
	bool exited;	   /* there is an exit code */
	uint32_t signal;
	sluice_evidence_class evidence_class;
	sluice_time_ms seen_time_ms, started_time_ms; /* of the last report that gave them; 0: none did */
	sluice_time_ms
		ended_time_ms; /* at its end: when that happened, by its evidence; where that does not say, when it was seen or recorded */
	uint64_t memory_peak_bytes;
} sluice_job_info;
typedef struct {
	uint64_t number;
	sluice_time_ms time_ms;
	uint32_t attempt;
	const char *event, *from_state, *state, *source, *evidence, *scheduler_ref;
	sluice_token token;
	sluice_index index;
	int exit_code;
	bool exited;
	uint32_t signal;
	sluice_evidence_class evidence_class;
	sluice_time_ms seen_time_ms, started_time_ms, ended_time_ms;
	uint64_t memory_peak_bytes;
} sluice_job_history_row;
typedef struct {
	uint64_t number;
	sluice_time_ms time_ms;
	const char *job, *source, *state, *reason, *evidence;
	uint32_t attempt;
} sluice_quarantine_row;
typedef struct {
	uint64_t jobs, open, ready, leased, orphaned, gated, held, next_number;
} sluice_job_audit_info;
SLUICE_API bool sluice_reply_job(const sluice_reply *, size_t i, sluice_job_info *ret);
SLUICE_API bool sluice_reply_history(const sluice_reply *, size_t i, sluice_job_history_row *ret);
SLUICE_API bool sluice_reply_quarantine(const sluice_reply *, size_t i, sluice_quarantine_row *ret);
SLUICE_API bool sluice_reply_audit(const sluice_reply *, sluice_job_audit_info *ret);
SLUICE_API const char *sluice_reply_line(const sluice_reply *,
					 size_t i); /* explain lines, audit findings; NULL beyond the last */
/* Of a report: what became of it. A report of code 0 that is SLUICE_DISPOSITION_QUARANTINED changed nothing and never will: it is no success. */
SLUICE_API sluice_disposition sluice_reply_disposition(const sluice_reply *);
SLUICE_API const char *sluice_reply_reason(const sluice_reply *); /* why, for people; never NULL */
SLUICE_API const char *sluice_reply_state(
	const sluice_reply *); /* submit, report, cancel: the job's state; never NULL */
SLUICE_API uint32_t sluice_reply_attempt(const sluice_reply *);

/* ---- transactions: built up, sent as one, all or none ---- */
typedef struct sluice_txn sluice_txn;
SLUICE_API sluice_txn *sluice_txn_create(void);	  /* owned; NULL: out of memory */
SLUICE_API void sluice_txn_destroy(sluice_txn *); /* accepts NULL */
/* None blocks. Each copies what it is given; NOMEM; LIMIT beyond TXN_OPS_MAX. Of a message, relaxed and time_ms do not count: all is one commit. */
SLUICE_API int sluice_txn_publish(sluice_txn *, const sluice_message *);
SLUICE_API int sluice_txn_ack(sluice_txn *, const char *queue, sluice_token, uint64_t first_seq,
			      uint32_t count);
SLUICE_API int sluice_txn_nack(sluice_txn *, const char *queue, sluice_token, uint64_t first_seq,
			       uint32_t count, uint32_t delay_ms, const char *reason);
SLUICE_API int sluice_txn_job_submit(sluice_txn *, const sluice_job_spec *);
SLUICE_API int sluice_txn_job_intent(sluice_txn *, const char *job, sluice_token, uint32_t attempt,
				     const char *tag);
SLUICE_API int sluice_txn_job_report(sluice_txn *, const sluice_job_report_spec *);
SLUICE_API int sluice_txn_job_cancel(sluice_txn *, const char *job, const char *reason);
SLUICE_API int sluice_txn_job_reset(sluice_txn *, const char *job, const char *reason);
SLUICE_API int sluice_txn_cursor_set(sluice_txn *, const char *stream, const char *cursor,
				     uint64_t next_offset);
SLUICE_API int sluice_txn_check_job(sluice_txn *, const char *job, const char *state, uint32_t attempt);
/* Deduplicated by the client's producer sequence, so it is settled across reconnects. The transaction stays the caller's. */
SLUICE_API int sluice_txn_commit(sluice_client *, const sluice_txn *, const sluice_call *, sluice_reply **);
SLUICE_API uint32_t sluice_reply_failed_op(const sluice_reply *); /* 1-based; 0: none */

/* ---- status ---- */
/* Reads; made in the ways above, repeated after a reconnect. */
SLUICE_API int sluice_status(sluice_client *, const sluice_call *, sluice_reply **);
/* Ends a session of the gateway, whosever it is: items that it holds by session leases go back, jobs become orphans, its connection is closed.
 * NOT_FOUND, SESSION_GONE: there is none (any more). INVAL: 0, or the client's own, which sluice_close() ends. UNSUPPORTED: an older broker, which
 * would end the client's own, or no connection was made yet (a blocking call waits for it). */
SLUICE_API int sluice_session_close(sluice_client *, uint64_t session, const sluice_call *call,
				    sluice_reply **reply);
SLUICE_API int sluice_session_list(sluice_client *, uint64_t after, uint32_t max, const sluice_call *,
				   sluice_reply **);
SLUICE_API const char *sluice_version(void);

#ifdef __cplusplus
}
#endif

#endif
