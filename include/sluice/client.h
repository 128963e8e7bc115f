/* SPDX-License-Identifier: Apache-2.0
 *
 * libsluice: the client library of Sluice.
 *
 * This page is the manual. It begins with what holds for all calls; a section for each part of the
 * library follows. Numbers named X_MAX are limits of the protocol (SPEC.md, "Limits").
 *
 * MODES. own-thread: the library runs one thread for each client; callbacks come on that thread.
 *   caller-loop: the library has no thread. The program waits for sluice_fd() to become readable
 *   and calls sluice_process(); a blocking call runs the loop itself until it is answered.
 *
 * THREADS. A function that takes a client or a subscription may be called from any thread in
 *   own-thread mode, and from one thread at a time in caller-loop mode. A function that takes a
 *   config, reply, delivery or transaction may be called from any thread, by one thread at a time
 *   for each object; sluice_reply_ref() and sluice_reply_free() at any time. Functions that take
 *   none of these are thread-safe, unless they say otherwise.
 *
 * BLOCKING. A function blocks only if it takes a deadline, or a sluice_call that makes it blocking
 *   (section 4). Everything else returns at once, whatever the broker does, even if it is stopped.
 *
 * CALLBACKS. They run one after the other on the loop's thread: the library's in own-thread mode;
 *   in caller-loop mode the thread that is in sluice_process() or in a blocking call. The callbacks
 *   that sluice_close() causes run on its thread. None runs inside sluice_open(), or inside a call
 *   that does not block. A callback must not block. It may make asynchronous calls, close
 *   subscriptions and free replies; a call that would have to wait returns WRONG_STATE.
 *
 * DEADLINES. In milliseconds. 0 is the client's default (deadline_ms, 10 s); -1 is none.
 *
 * OWNERSHIP. Strings, slices and structs passed in are borrowed for the call. What a function
 *   returns, or stores through a `ret` parameter, is owned by the program if its comment says
 *   "owned". All else is borrowed: from a reply or delivery for as long as that lives, from a
 *   callback's argument until the callback returns. Replies and deliveries may outlive their
 *   client. A function that fails leaves *ret as it was, unless its comment says otherwise.
 *   Pointers must not be NULL unless a comment says that they may. Strings in a struct may be NULL
 *   and are then empty.
 *
 * ERRORS. Functions return 0 or a negative code of error.h; sluice_last_error() has the reason as
 *   text. A comment lists the codes that are special to its call. Beside them, every call may
 *   return: INVAL (a malformed argument), LIMIT (a limit was exceeded), NOMEM, CLOSED (the client
 *   is closing), WRONG_STATE (would wait in a callback), UNSUPPORTED (the broker is older, or see
 *   STRUCTS); and every call that asks the broker: TIMEOUT, UNKNOWN (the connection broke before
 *   the answer, or the broker does not know whether its commit succeeded), NO_SPACE and BUSY
 *   (refused for now), CORRUPT (a stored record is damaged), and the code with which the client has
 *   failed for good: DISCONNECTED (with reconnect=no), VERSION, DENIED, INVAL, NOT_FOUND,
 *   SESSION_GONE.
 *   Out of memory never ends the process: a request that was not sent was not done; a message from
 *   the broker waits until there is memory, and if that does not help the connection is given up
 *   and resumed.
 *
 * RECONNECT. The library reconnects by itself, with growing pauses, and resumes its session: leases
 *   are kept, subscriptions are reopened (a follower at its next offset, a consumer with what it
 *   holds), unanswered publishes are sent again and settled by sequence number. The program gets
 *   the notices DISCONNECTED, then RESUMED; or SESSION_LOST and CONNECTED, if the session has ended
 *   meanwhile. They come before anything else of the new connection.
 *   A call whose connection breaks is sent again if it can be repeated safely: reads, publishes,
 *   transactions, job submit, intent, report and cancel, binds, alters, and creates with
 *   if_not_exists. Every other call ends with UNKNOWN, before DISCONNECTED.
 *   A broker that is stopped tells its clients first. From then on the library sends it nothing:
 *   what the program calls waits for the next connection, within its deadline, as without one. The
 *   library leaves when the answers to all that it had sent have come, or when the broker closes
 *   the connection. Calls that the broker says it has not taken are sent again, whatever they are.
 *   Some ends are final: a refused HELLO, a session name that another client took over, a
 *   subscription whose queue or stream was deleted. They are reported once, and by every later
 *   call.
 *
 * FORK, SIGNALS, OUTPUT. A child process must not use or close a client of its parent; descriptors
 *   are close-on-exec. The library installs no signal handlers, raises no SIGPIPE, and blocks all
 *   signals on its thread. It prints nothing.
 *
 * STRUCTS. Every struct begins with its size, so that programs and libraries of different versions
 *   work together: later versions append members and change nothing else.
 *   A program makes each struct with the macro of its name, also one that the library fills:
 *
 *       sluice_queue_spec spec = SLUICE_QUEUE_SPEC(.name = "orders", .lease_ms = 60000);
 *       sluice_queue_info info = SLUICE_QUEUE_INFO();
 *       rc = sluice_publish(client, &SLUICE_MESSAGE(.subject = "a.b"), NULL, NULL);
 *
 *   C++ before C++20 makes it empty and assigns (types.h): `auto spec = SLUICE_QUEUE_SPEC();`.
 *   The library reads and writes only `size` bytes of the program's structs. Members that the
 *   program's header does not have count as 0. Members that the library does not have must be 0
 *   in what it reads, or the call returns UNSUPPORTED; it sets them to 0 in what it fills. A size
 *   of 0, or any below that of the struct's first version or above 4,096, is INVAL; the text names
 *   the struct. In structs that the library makes (notices, deliveries) it sets size: SLUICE_HAS()
 *   says whether a member is there.
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

typedef struct sluice_config sluice_config;
typedef struct sluice_client sluice_client;
typedef struct sluice_reply sluice_reply;
typedef struct sluice_sub sluice_sub;
typedef struct sluice_delivery sluice_delivery;
typedef struct sluice_txn sluice_txn;

/* ---- 1. The library -------------------------------------------------------------------------
 *
 * Its version, its allocator, and the text of a thread's last error. */

/* The version of the library that runs, "0.1.0"; version.h has that of the headers. */
SLUICE_API const char *sluice_version(void);

/* Why the last call of this thread that failed did so, whatever the call was. It is kept until the
 * thread's next failure: ask right after it. If none has failed yet: why the client is not
 * connected, or "". client may be NULL. Never NULL; borrowed, valid until this thread's next
 * call. */
SLUICE_API const char *sluice_last_error(const sluice_client *client);

/* All memory of the library comes from these (what libc and zstd need for themselves does not).
 * resize and release get NULL or a block of alloc or resize, as realloc() and free() do. Any thread
 * may call them. */
typedef struct sluice_allocator {
	uint32_t size;
	void *(*alloc)(size_t bytes);
	void *(*resize)(void *old, size_t bytes);
	void (*release)(void *old);
} sluice_allocator;
#define SLUICE_ALLOCATOR(...) SLUICE_MAKE(sluice_allocator, __VA_ARGS__)

/* Sets the allocator; NULL: malloc() and its kin. To be called before every other function, by one
 * thread. Copies the struct. INVAL: a function is missing. */
SLUICE_API int sluice_allocator_set(const sluice_allocator *allocator);

/* ---- 2. Configuration -----------------------------------------------------------------------
 *
 * Properties of a client, as strings, to be set before sluice_open().
 *
 *   address               "host:port", "tls:host:port" or "unix:PATH", several separated by commas
 *                         and tried in turn; "127.0.0.1:7584"
 *   tls                   auto | verify-full | off, for addresses of the first form. auto:
 *                         verify-full for a host that is not loopback; auto. verify-full, and
 *                         "tls:": the broker's certificate has to name the host among its SANs, and
 *                         to lead to one of tls_ca
 *   tls_ca                a file of certificates in PEM that are trusted; "": those that the system
 *                         trusts (OpenSSL's, which SSL_CERT_FILE replaces). Read at the first
 *                         connection, and at a later one if the file has changed: a new CA needs no
 *                         new client. While it cannot be read, what was read last is trusted. TLS
 *                         allocates with malloc(); ""
 *   gateway               name of the gateway, at most 255 bytes; "" is "default"
 *   client                a text for administrators, at most 255 bytes; "libsluice"
 *   session               a session name: opening it ends the older session of that name; none
 *   session_timeout_ms    life of the session without a connection, 1,000 to a day; 30000
 *   mode                  own-thread | caller-loop; own-thread
 *   deadline_ms           of calls that name none, 1 to a day; 10000
 *   connect_timeout_ms    of one attempt to connect, 1 to 600,000; 5000
 *   reconnect             yes | no: the first broken connection is the last; yes
 *   reconnect_min_ms      first pause between attempts, 1 to 600,000; 50
 *   reconnect_max_ms      longest pause between attempts, 1 to 600,000; 5000
 *   buffer_bytes          publishes that have no answer yet, 1,024 to 2^40; 16777216
 *   buffer_policy         block | fail: what a publish does when that is full (section 6); block
 *   batch_events          messages that are sent as one at most, 1 to 10,000; 1000
 *   batch_bytes           the same in bytes, 1 to 16 MiB; 262144
 *   compress              none | zstd; none
 *   producer              a producer name: the sequence of publishes outlives the process; none
 *   lease_extend          yes | no: timed leases are extended until the work is settled; yes
 *   lease_extend_max_ms   for how long after the delivery or the last sluice_lease_extend(), so
 *                         that a program that hangs loses its leases; 0: an hour, or sixteen times
 *                         a lease that is shorter than a second; 0
 *   transport_fd          a connected socket to use instead of address; the client owns it once
 *                         sluice_open() has succeeded; none
 */

/* Owned, with the defaults; NULL: out of memory. */
SLUICE_API sluice_config *sluice_config_create(void);
/* Frees it. NULL is accepted. A client does not need its config after sluice_open(). */
SLUICE_API void sluice_config_destroy(sluice_config *config);
/* Sets one property; copies both strings. INVAL: no such key, or a value that it does not take;
 * sluice_last_error() names the key and what was expected. */
SLUICE_API int sluice_config_set(sluice_config *config, const char *key,
				 const char *value) SLUICE_MUST_USE;

/* ---- 3. Clients -----------------------------------------------------------------------------
 *
 * A client is one session with one broker, over one connection at a time. */

typedef enum sluice_notice_kind {
	/* Connected with a new session. */
	SLUICE_NOTICE_CONNECTED,
	/* Connected again, with the same session. */
	SLUICE_NOTICE_RESUMED,
	/* The connection broke: code, text. The library reconnects, unless it is final. */
	SLUICE_NOTICE_DISCONNECTED,
	/* The session has ended: all of its leases are gone. CONNECTED follows. */
	SLUICE_NOTICE_SESSION_LOST,
	/* A cancel of a job that this client holds: end the work. Has job, token. */
	SLUICE_NOTICE_JOB_CANCEL,
	/* A lease has ended before its work was settled: another client may have it now, and what
	 * is still reported under it is refused (STALE_TOKEN). Once for each lease. Of a job: has
	 * job, token. Of items: sub, token, items, code (STALE_TOKEN: the broker says so; TIMEOUT:
	 * it is not extended any more). Items count against the credit until they are acked or
	 * nacked all the same. Deliveries under such a lease that sluice_sub_next() has not handed
	 * out yet are dropped; there is no notice if these were all of it. If the session has
	 * ended, SESSION_LOST comes instead. */
	SLUICE_NOTICE_LEASE_LOST,
	/* A call made with SLUICE_FIRE was refused. Has code, text. */
	SLUICE_NOTICE_ERROR,
	/* A stored item or job is damaged and was skipped. Has code (CORRUPT), text. */
	SLUICE_NOTICE_DAMAGED
} sluice_notice_kind;

/* Members that a kind does not have are 0 or NULL. */
typedef struct sluice_notice {
	uint32_t size;
	sluice_notice_kind kind;
	int code;
	uint32_t items; /* of the lease, neither acked nor nacked */
	const char *text;
	const char *job;
	sluice_token token;
	uint64_t session; /* the client's, when the notice was made */
	sluice_sub *sub;  /* as long as it is not closed */
} sluice_notice;
typedef void sluice_notice_fn(sluice_client *client, const sluice_notice *notice, void *user);

/* Makes a client, which begins to connect; *ret is owned. Copies config. on_notice may be NULL;
 * user is its last argument. In caller-loop mode the loop's first turn connects. A malformed
 * address does not make this function fail: sluice_wait_connected() and every later call return the
 * error. NOMEM, IO: no thread or descriptor could be made. */
SLUICE_API int sluice_open(const sluice_config *config, sluice_notice_fn *on_notice, void *user,
			   sluice_client **ret) SLUICE_MUST_USE;
/* Blocks until the client is connected. TIMEOUT, CLOSED, the code with which the client failed, or
 * the refusal of the last attempt before the deadline (NO_SPACE, BUSY, LIMIT). */
SLUICE_API int sluice_wait_connected(sluice_client *client, int deadline_ms) SLUICE_MUST_USE;
/* Sends what was published, ends the session if end_session, and frees the client with all of its
 * subscriptions; blocks for at most the deadline. Open calls end with CLOSED; blocking calls of
 * other threads return before this one does, and none may begin meanwhile. NULL is accepted.
 * TIMEOUT: publishes that had no answer were dropped; the client is freed. WRONG_STATE: in a
 * callback; nothing was done. */
SLUICE_API int sluice_close(sluice_client *client, bool end_session, int deadline_ms);
/* The number of the client's session; 0: none yet. */
SLUICE_API uint64_t sluice_session_id(const sluice_client *client);

/* For caller-loop mode; INVAL in the other. The descriptor is the client's and stays the same for
 * its life: wait for it to become readable, do nothing else with it. */
SLUICE_API int sluice_fd(const sluice_client *client);
/* Does what is due, and runs callbacks. Blocks for at most timeout_ms if nothing is due; 0: not at
 * all. INVAL: own-thread mode. WRONG_STATE: in a callback. */
SLUICE_API int sluice_process(sluice_client *client, int timeout_ms);

/* ---- 4. Calls and replies -------------------------------------------------------------------
 *
 * Every operation of the sections below ends with the parameters (call, ret_reply), and is made in
 * one of three ways:
 *
 *   blocking       call is NULL, or has neither done nor user. Returns the reply's code. If
 *                  ret_reply is not NULL, *ret_reply is owned, also when the operation was refused.
 *                  NULL there means that there was no memory for the reply: functions of replies
 *                  take NULL as code NOMEM; the operation may have been done.
 *   asynchronous   call has done. Returns 0: done will be called, exactly once; or a code: it will
 *                  not. ret_reply must be NULL.
 *   fired          call has no done, and user is SLUICE_FIRE. Returns 0 when it is accepted. A
 *                  refusal is a notice (ERROR); that of a publish is counted (sluice_flush(),
 *                  sluice_publish_stats_get()). ret_reply must be NULL. */

/* The reply is borrowed, unless sluice_reply_ref() is called. */
typedef void sluice_done_fn(sluice_client *client, const sluice_reply *reply, void *user);
typedef struct sluice_call {
	uint32_t size;
	int deadline_ms;      /* 0: the client's default; -1: none */
	sluice_done_fn *done; /* NULL: blocking, or fired */
	void *user;	      /* argument of done, or SLUICE_FIRE */
} sluice_call;
#define SLUICE_CALL(...) SLUICE_MAKE(sluice_call, __VA_ARGS__)
#define SLUICE_FIRE ((void *)1)

/* Of every reply. They cannot fail; what a reply does not have is 0, "" or false. Texts are never
 * NULL, and borrowed from the reply. */
SLUICE_API int sluice_reply_code(const sluice_reply *reply);
SLUICE_API const char *sluice_reply_text(const sluice_reply *reply); /* why it was refused */
SLUICE_API bool sluice_reply_retriable(const sluice_reply *reply); /* the same may succeed later */
SLUICE_API uint64_t sluice_reply_request_id(const sluice_reply *reply);
SLUICE_API sluice_index sluice_reply_index(const sluice_reply *reply); /* of the command or read */
SLUICE_API bool sluice_reply_more(const sluice_reply *reply);	       /* a list has more rows */
SLUICE_API bool sluice_reply_duplicate(const sluice_reply *reply);     /* was done before */
SLUICE_API uint64_t
sluice_reply_affected(const sluice_reply *reply); /* number of messages, items */
/* Of a publish: the first offset or item number; UINT64_MAX: it has none. */
SLUICE_API uint64_t sluice_reply_offset(const sluice_reply *reply);
/* One reference more; owned. */
SLUICE_API sluice_reply *sluice_reply_ref(const sluice_reply *reply);
/* Drops one reference. NULL is accepted. */
SLUICE_API void sluice_reply_free(sluice_reply *reply);
/* The whole reply as JSON, with the names of sluice.proto. Made at the first call; borrowed from
 * the reply. NULL: out of memory. */
SLUICE_API const char *sluice_reply_json(sluice_reply *reply);

/* ---- 5. Streams, queues, routers and lifecycles -----------------------------------------------
 *
 * The named objects of a gateway. A stream keeps events, a queue hands out items or jobs, a router
 * leads a subject to both, a lifecycle says which states a job may have.
 *
 * create: EXISTS, if the name is taken. With if_not_exists it succeeds if the object has this
 * configuration (and these subjects, among others); otherwise CONFLICT, the text names the
 * difference. alter: takes the whole new configuration, without subjects; NOT_FOUND, CONFLICT (the
 * kind of an object cannot change). NOT_FOUND also if another object that is named does not exist.
 * Names have at most 255 bytes, descriptions 1,024. */

typedef struct sluice_stream_spec {
	uint32_t size;
	bool if_not_exists;
	const char *name;
	const char *const *subjects; /* patterns bound at its creation, NULL at the end; or NULL */
	const char *description;
	/* What is older, or beyond, is removed; 0: no bound. */
	uint64_t max_age_ms;
	uint64_t max_bytes;
	uint64_t max_events;
} sluice_stream_spec;
#define SLUICE_STREAM_SPEC(...) SLUICE_MAKE(sluice_stream_spec, __VA_ARGS__)

typedef struct sluice_queue_spec {
	uint32_t size;
	uint32_t lease_ms;     /* of what is delivered, 100 to 31 days; 0: 30,000 */
	uint32_t max_attempts; /* failed ones, then the item is dead-lettered; 0: 20 */
	bool jobs;	       /* a queue of jobs, not of items; cannot be altered */
	bool priority;	       /* higher priority first, not in order; cannot be altered */
	bool if_not_exists;
	const char *name;
	const char *const *subjects; /* as of a stream; items only */
	const char *dead_letter;     /* queue for what has failed; NULL: "dead-letter" */
	const char *lifecycle;	     /* of jobs that name none; NULL: "airavata" */
	const char *description;
	uint64_t max_items; /* waiting and leased, then QUEUE_FULL; 0: no bound */
} sluice_queue_spec;
#define SLUICE_QUEUE_SPEC(...) SLUICE_MAKE(sluice_queue_spec, __VA_ARGS__)

typedef struct sluice_router_spec {
	uint32_t size;
	bool if_not_exists;
	const char *name;
	const char *kind;      /* "subject" (patterns), "direct" or "fanout"; NULL: "subject" */
	const char *alternate; /* router for what no edge takes; NULL: none */
	const char *description;
} sluice_router_spec;
#define SLUICE_ROUTER_SPEC(...) SLUICE_MAKE(sluice_router_spec, __VA_ARGS__)

/* An edge leads what matches a pattern from a router to a target. */
typedef struct sluice_edge {
	uint32_t size;
	const char *router; /* NULL: "default" */
	const char *pattern;
	const char *target_kind; /* "stream", "queue" or "router" */
	const char *target;
} sluice_edge;
#define SLUICE_EDGE(...) SLUICE_MAKE(sluice_edge, __VA_ARGS__)

SLUICE_API int sluice_stream_create(sluice_client *client, const sluice_stream_spec *spec,
				    const sluice_call *call, sluice_reply **ret_reply);
SLUICE_API int sluice_stream_alter(sluice_client *client, const sluice_stream_spec *spec,
				   const sluice_call *call, sluice_reply **ret_reply);
SLUICE_API int sluice_queue_create(sluice_client *client, const sluice_queue_spec *spec,
				   const sluice_call *call, sluice_reply **ret_reply);
SLUICE_API int sluice_queue_alter(sluice_client *client, const sluice_queue_spec *spec,
				  const sluice_call *call, sluice_reply **ret_reply);
SLUICE_API int sluice_router_create(sluice_client *client, const sluice_router_spec *spec,
				    const sluice_call *call, sluice_reply **ret_reply);
SLUICE_API int sluice_router_alter(sluice_client *client, const sluice_router_spec *spec,
				   const sluice_call *call, sluice_reply **ret_reply);
/* text is the lifecycle file (client/README.md): "lifecycle NAME", "state A -> B, C", "terminal D",
 * "cancelled D", "failed E", a line each. INVAL names the line. alter: IN_USE, if a state or
 * transition that jobs need would go. */
SLUICE_API int sluice_lifecycle_create(sluice_client *client, const char *text, bool if_not_exists,
				       const sluice_call *call, sluice_reply **ret_reply);
SLUICE_API int sluice_lifecycle_alter(sluice_client *client, const char *text,
				      const sluice_call *call, sluice_reply **ret_reply);
/* Both succeed if it is done already. bind: NOT_FOUND, CONFLICT (a cycle). */
SLUICE_API int sluice_router_bind(sluice_client *client, const sluice_edge *edge,
				  const sluice_call *call, sluice_reply **ret_reply);
SLUICE_API int sluice_router_unbind(sluice_client *client, const sluice_edge *edge,
				    const sluice_call *call, sluice_reply **ret_reply);
/* Removes the items that are ready; the reply has their number (affected). NOT_FOUND, WRONG_STATE
 * (a queue of jobs). */
SLUICE_API int sluice_queue_purge(sluice_client *client, const char *queue, const sluice_call *call,
				  sluice_reply **ret_reply);
/* Shows items without claiming them: the first 1,024 bytes of each, its state and its holder; rows
 * are read from sluice_reply_json(). state: "ready", "leased", "delayed", NULL: all. after: the
 * rows begin after the item with this number. max: 0: 1,000, which is also the most. NOT_FOUND. */
SLUICE_API int sluice_queue_peek(sluice_client *client, const char *queue, const char *state,
				 uint64_t after, uint32_t max, const sluice_call *call,
				 sluice_reply **ret_reply);

typedef enum sluice_object_kind {
	SLUICE_OBJECT_STREAM,
	SLUICE_OBJECT_QUEUE,
	SLUICE_OBJECT_ROUTER,
	SLUICE_OBJECT_LIFECYCLE
} sluice_object_kind;
/* Deletes the object with its contents and ends its subscriptions. NOT_FOUND, IN_USE (a queue with
 * open jobs, a lifecycle with jobs, an object that always exists). */
SLUICE_API int sluice_object_delete(sluice_client *client, sluice_object_kind kind,
				    const char *name, const sluice_call *call,
				    sluice_reply **ret_reply);
/* One row. NOT_FOUND. */
SLUICE_API int sluice_object_show(sluice_client *client, sluice_object_kind kind, const char *name,
				  const sluice_call *call, sluice_reply **ret_reply);
/* Rows in the order of names, behind `after` (NULL: from the first), at most max (0: 1,000, which
 * is also the most); sluice_reply_more() says whether others follow. */
SLUICE_API int sluice_object_list(sluice_client *client, sluice_object_kind kind, const char *after,
				  uint32_t max, const sluice_call *call, sluice_reply **ret_reply);

typedef struct sluice_stream_info {
	uint32_t size;
	const char *name;
	uint64_t id; /* another one for each stream that ever had the name */
	uint64_t first_offset;
	uint64_t next_offset;
	uint64_t events;
	uint64_t bytes;
	sluice_time_ms first_time_ms;
	sluice_time_ms last_time_ms;
	uint64_t max_age_ms;
	uint64_t max_bytes;
	uint64_t max_events;
} sluice_stream_info;
#define SLUICE_STREAM_INFO() SLUICE_MAKE(sluice_stream_info, )

typedef struct sluice_queue_info {
	uint32_t size;
	uint32_t lease_ms;
	uint32_t max_attempts;
	bool jobs;
	const char *name;
	const char *dead_letter;
	const char *lifecycle; /* jobs; "": "airavata" */
	uint64_t id;	       /* as of a stream */
	/* How many there are now. */
	uint64_t ready;
	uint64_t leased;
	uint64_t delayed;
	uint64_t orphaned; /* jobs */
	/* How many there were, ever. */
	uint64_t put;
	uint64_t acked;
	uint64_t dead_lettered;
	uint64_t bytes; /* of what is there now */
} sluice_queue_info;
#define SLUICE_QUEUE_INFO() SLUICE_MAKE(sluice_queue_info, )

typedef struct sluice_lifecycle_info {
	uint32_t size;
	const char *name;
	const char *cancelled; /* state of a job that is cancelled before its intent */
	const char *failed;    /* state of a job that the broker ends as failed */
	const char *description;
	uint64_t id;
	uint64_t jobs;
	size_t states; /* the first one is the initial one */
} sluice_lifecycle_info;
#define SLUICE_LIFECYCLE_INFO() SLUICE_MAKE(sluice_lifecycle_info, )

typedef struct sluice_lifecycle_state {
	uint32_t size;
	bool terminal;
	const char *name;
	const char *const *next; /* states that it can go to, NULL at the end */
} sluice_lifecycle_state;
#define SLUICE_LIFECYCLE_STATE() SLUICE_MAKE(sluice_lifecycle_state, )

/* Row i of a reply. All functions that read rows are alike: they fill *ret, with texts that are
 * borrowed from the reply, and return true; or they return false: there is no row i, or the size of
 * *ret is not valid (sluice_last_error() says so). None blocks. */
SLUICE_API bool sluice_reply_stream(const sluice_reply *reply, size_t i, sluice_stream_info *ret);
SLUICE_API bool sluice_reply_queue(const sluice_reply *reply, size_t i, sluice_queue_info *ret);
SLUICE_API bool sluice_reply_lifecycle(const sluice_reply *reply, size_t i,
				       sluice_lifecycle_info *ret);
/* State number `state` of row i. ret->next is valid until the next call of this function on the
 * reply. False also when there is no memory for it. */
SLUICE_API bool sluice_reply_lifecycle_state(sluice_reply *reply, size_t i, size_t state,
					     sluice_lifecycle_state *ret);

/* ---- 6. Publishing --------------------------------------------------------------------------
 *
 * A message becomes an event in streams and an item in queues. The library sends messages in
 * batches; each message is answered when it is on disk (relaxed ones may be answered before).
 *
 *     rc = sluice_publish(client, &SLUICE_MESSAGE(.subject = "orders.new", .body = {"hello", 5}),
 *                         NULL, NULL);
 *
 * All publishes of a client are kept in order and are stored once, also when they are sent again
 * after a reconnect. */

typedef struct sluice_message {
	uint32_t size;
	uint8_t priority; /* 0 to 255, the highest; for queues with priority */
	bool mandatory;	  /* NO_ROUTE, if nothing is bound to the subject */
	bool relaxed;	  /* answered before it is on disk, which it is within 50 ms */
	/* At most 255 bytes and 32 tokens. Goes through the router "default", unless the message
	 * names a queue or a stream. */
	const char *subject;
	const char *queue;  /* straight into this queue; NULL: not */
	const char *stream; /* straight into this stream; NULL: not */
	sluice_slice key;   /* at most 255 bytes */
	sluice_slice id;    /* at most 255 bytes */
	sluice_slice body;  /* at most 16 MiB */
	/* Name, value, name, value, NULL; at most 64 of them, and 64 KiB. NULL: none. */
	const char *const *headers;
	sluice_time_ms time_ms; /* when it happened; 0: now */
} sluice_message;
#define SLUICE_MESSAGE(...) SLUICE_MAKE(sluice_message, __VA_ARGS__)

/* Publishes one message. If the buffer is full (buffer_bytes), a blocking or fired call waits, or
 * returns BUFFER_FULL with buffer_policy=fail; an asynchronous one returns BUFFER_FULL. A message
 * that is refused for now (QUEUE_FULL, NO_SPACE, BUSY) is tried again until its deadline; if it is
 * fired and names none, for ever. NOT_FOUND (no such queue or stream), NO_ROUTE, QUEUE_FULL,
 * PRODUCER_FENCED (another client publishes under the producer's name), OWNED. */
SLUICE_API int sluice_publish(sluice_client *client, const sluice_message *message,
			      const sluice_call *call, sluice_reply **ret_reply);
/* Publishes 1 to 10,000 messages as one: all or none, with one answer, whatever batch_events and
 * batch_bytes are. The elements of the array all have the size of the first. They go to the same
 * queue or stream, or to none, and agree in mandatory and relaxed, else INVAL; subjects may differ.
 * With subjects, keys and headers they have at most 17 MB, else LIMIT. The reply's offset is that
 * of the first message (the others follow without a gap), its affected their number. Codes as
 * above. */
SLUICE_API int sluice_publish_batch(sluice_client *client, const sluice_message *messages,
				    size_t count, const sluice_call *call,
				    sluice_reply **ret_reply);
/* Blocks until every message so far has its answer. Returns the first failure among them since the
 * last flush, or 0. At the deadline: the code with which the broker refuses the oldest for now
 * (QUEUE_FULL), or TIMEOUT; none is dropped. */
SLUICE_API int sluice_flush(sluice_client *client, int deadline_ms);

/* Messages, since sluice_open(). */
typedef struct sluice_publish_stats {
	uint32_t size;
	uint64_t published;
	uint64_t acked;
	uint64_t failed;
	uint64_t duplicates; /* stored before, and sent again */
	uint64_t resent;
	uint64_t buffered_bytes; /* now */
	uint64_t in_flight;	 /* now, without an answer */
} sluice_publish_stats;
#define SLUICE_PUBLISH_STATS() SLUICE_MAKE(sluice_publish_stats, )
/* Fills *ret. INVAL: its size. */
SLUICE_API int sluice_publish_stats_get(sluice_client *client, sluice_publish_stats *ret);

/* ---- 7. Subscriptions -----------------------------------------------------------------------
 *
 * A follower reads the events of a stream; many may read the same. A consumer takes items or jobs
 * of a queue, each under a lease, and settles them (sections 8 and 9). Deliveries come to a
 * callback, or to sluice_sub_next().
 *
 * A subscription belongs to the stream or queue that has the name when it is opened. When that is
 * deleted the subscription ends (SLUICE_DELIVERY_END, NOT_FOUND), also if another was created under
 * the name, and after a reconnect if it was deleted meanwhile. A follower ends likewise if its
 * stream is shorter than what was delivered, because the broker's store was restored from a
 * copy. */

typedef enum sluice_delivery_kind {
	SLUICE_DELIVERY_EVENT,	   /* an event of a stream */
	SLUICE_DELIVERY_ITEM,	   /* an item of a queue */
	SLUICE_DELIVERY_JOB,	   /* a job of a queue */
	SLUICE_DELIVERY_CAUGHT_UP, /* all events of the stream so far were delivered */
	SLUICE_DELIVERY_GAP,	   /* events were removed before they could be delivered */
	SLUICE_DELIVERY_END	   /* the subscription has ended: code, text */
} sluice_delivery_kind;

/* Members that a kind does not have are 0 or NULL. */
typedef struct sluice_delivery_view {
	uint32_t size;
	sluice_delivery_kind kind;
	const char *subject; /* EVENT, ITEM */
	sluice_slice key;
	sluice_slice id;
	sluice_slice body;	    /* JOB: its payload */
	const char *const *headers; /* name, value, ..., NULL; NULL: none */
	sluice_time_ms time_ms;
	uint64_t offset;    /* EVENT; CAUGHT_UP: the next one; GAP: the first that is missing */
	uint64_t to_offset; /* GAP: the next that exists */
	uint64_t seq;	    /* ITEM: its number */
	sluice_token token; /* ITEM, JOB: of the lease */
	uint32_t lease_ms;  /* ITEM, JOB */
	uint32_t failed_attempts; /* ITEM: before this one */
	bool redelivered;	  /* ITEM, JOB: this session has had it before */
	/* JOB, to the end but code and text. */
	bool orphan; /* taken over: find out what became of it before anything else */
	bool intent; /* this attempt's intent is recorded, with tag */
	bool cancel; /* a cancel was asked for */
	uint8_t priority;
	uint32_t attempt;
	int code; /* END */
	const char *text;
	const char *job;
	const char *owner;
	const char *state;
	const char *tag;
	const char *scheduler_ref;
	const char *source; /* that can judge this attempt; "": none was named */
	const char *lifecycle;
	uint64_t number; /* never another job's, as an id may be later; 0: an older broker */
} sluice_delivery_view;

typedef void sluice_delivery_fn(sluice_sub *sub, const sluice_delivery_view *delivery, void *user);

/* Where a follower begins. */
typedef enum sluice_from {
	SLUICE_FROM_FIRST,  /* with the first event that exists */
	SLUICE_FROM_LAST,   /* with the last one */
	SLUICE_FROM_OFFSET, /* at offset */
	SLUICE_FROM_TIME,   /* with the first one that is not older than time_ms */
	SLUICE_FROM_CURSOR, /* at the cursor's position; without a cursor: at the first event */
	SLUICE_FROM_NEW	    /* with the next one that is stored */
} sluice_from;

typedef struct sluice_follow_spec {
	uint32_t size;
	sluice_from from;
	uint32_t credit; /* events on their way at once, at most CREDIT_MAX; 0: 1,000 */
	const char *stream;
	const char *cursor; /* SLUICE_FROM_CURSOR */
	const char *filter; /* a pattern of subjects; NULL: all */
	uint64_t offset;    /* SLUICE_FROM_OFFSET */
	sluice_time_ms time_ms;
	sluice_delivery_fn *on_delivery; /* NULL: sluice_sub_next() */
	void *user;			 /* argument of on_delivery */
} sluice_follow_spec;
#define SLUICE_FOLLOW_SPEC(...) SLUICE_MAKE(sluice_follow_spec, __VA_ARGS__)

typedef struct sluice_consume_spec {
	uint32_t size;
	/* Items or jobs held at once, at most CREDIT_MAX; 0: 100. What is settled makes room,
	 * unless manual_credit, with which 0 means none and sluice_sub_credit() gives all. */
	uint32_t credit;
	uint32_t lease_ms;	/* 100 to 31 days; 0: the queue's */
	uint32_t extend_max_ms; /* 0: the client's lease_extend_max_ms */
	bool manual_credit;
	bool session_lease; /* items: the lease has no time, it ends with the session */
	bool orphans;	    /* jobs: takes over jobs whose holder is gone, too */
	/* Items, with on_delivery: an item is begun when sluice_item_begin() is called. Without it
	 * the broker takes the first item of each grant that is not settled for the begun one. With
	 * sluice_sub_next() an item is begun when it is handed out, whatever this is. */
	bool report_begun;
	const char *queue;
	sluice_delivery_fn *on_delivery; /* NULL: sluice_sub_next() */
	void *user;			 /* argument of on_delivery */
	/* Jobs: the source of evidence (a spool, a cluster and account) that this consumer can
	 * judge; NULL: none. Attempts that it intends are then given to consumers of that source
	 * alone. The library reports the source at each opening (sluice_source_heartbeat(), take):
	 * another consumer of the source ends with CONFLICT at its next reconnect. */
	const char *source;
} sluice_consume_spec;
#define SLUICE_CONSUME_SPEC(...) SLUICE_MAKE(sluice_consume_spec, __VA_ARGS__)

/* Open a subscription, which the program owns until sluice_sub_close() or sluice_close(). Blocking:
 * 0 and *ret, or a code and *ret NULL: NOT_FOUND, INVAL (the wrong kind of queue or settings),
 * LIMIT (SUBSCRIPTIONS_MAX), BUSY, CLOSED (a callback closed it). One that ends as soon as it is
 * open is opened: its deliveries come, and then its end. Asynchronous: *ret is set at once
 * and has to be closed; done comes when it is open, or has failed, or with TIMEOUT: it may still
 * open. Deliveries may come before done. They cannot be fired (INVAL). */
SLUICE_API int sluice_follow(sluice_client *client, const sluice_follow_spec *spec,
			     const sluice_call *call, sluice_sub **ret);
SLUICE_API int sluice_consume(sluice_client *client, const sluice_consume_spec *spec,
			      const sluice_call *call, sluice_sub **ret);
/* Blocks for the next delivery; *ret is owned. TIMEOUT; the code with which the subscription ended;
 * INVAL: it has a callback. In a callback: WRONG_STATE, if there is none. */
SLUICE_API int sluice_sub_next(sluice_sub *sub, int deadline_ms,
			       sluice_delivery **ret) SLUICE_MUST_USE;
/* Borrowed from the delivery; never NULL. */
SLUICE_API const sluice_delivery_view *sluice_delivery_get(const sluice_delivery *delivery);
/* Frees it, which settles nothing. NULL is accepted. */
SLUICE_API void sluice_delivery_free(sluice_delivery *delivery);
/* Gives credit for more deliveries. LIMIT: above CREDIT_MAX in all. */
SLUICE_API int sluice_sub_credit(sluice_sub *sub, uint32_t more);
/* Closes and frees a subscription; blocks for the broker's answer, but not in a callback. No
 * callback of it comes any more; sluice_sub_next() of another thread returns CLOSED. Items and jobs
 * that were not handed to the program go back to the queue, without an attempt counted. What was
 * handed out stays leased until it is settled or its lease ends. NULL is accepted. TIMEOUT: the
 * broker did not answer; the subscription is freed all the same. */
SLUICE_API int sluice_sub_close(sluice_sub *sub, int deadline_ms);
/* Ends a consumer gently: the broker gives it nothing more, what is there already is still handed
 * out (sluice_sub_next() then returns CLOSED), and the call blocks until all of that is settled.
 * TIMEOUT: not all is settled yet; it may be called again. In a callback it begins the drain and
 * returns TIMEOUT. The subscription stays open for sluice_sub_close(). INVAL: a follower. */
SLUICE_API int sluice_sub_drain(sluice_sub *sub, int deadline_ms);

/* ---- 8. Items and cursors -------------------------------------------------------------------
 *
 * An item is named by the token of its lease and its seq, as they were delivered. A consumer acks
 * what is done, nacks what has failed, releases what it did not begin. A cursor keeps how far a
 * stream was read.
 *
 * The subscription must not be freed during the call. STALE_TOKEN: the lease has ended; another
 * consumer may have the item. UNKNOWN: the connection broke before the answer. */

/* The item is done and leaves the queue. Fired acks are gathered, sent at the end of the loop's
 * turn, and sent again after a reconnect. */
SLUICE_API int sluice_item_ack(sluice_sub *sub, sluice_token token, uint64_t seq,
			       const sluice_call *call, sluice_reply **ret_reply);
/* The attempt has failed: the item comes again after delay_ms, or is dead-lettered if it has had
 * max_attempts. reason (at most 1,024 bytes, may be NULL) is kept with it. */
SLUICE_API int sluice_item_nack(sluice_sub *sub, sluice_token token, uint64_t seq,
				uint32_t delay_ms, const char *reason, const sluice_call *call,
				sluice_reply **ret_reply);
/* No further attempt can succeed: the item is dead-lettered at once, whatever its attempts. reason
 * (at most 1,024 bytes, may be NULL) is kept with it. WRONG_STATE: the queue is the gateway's own
 * dead-letter queue. UNSUPPORTED: an older broker. */
SLUICE_API int sluice_item_reject(sluice_sub *sub, sluice_token token, uint64_t seq,
				  const char *reason, const sluice_call *call,
				  sluice_reply **ret_reply);
/* Gives an item back that was not begun: at once, to its old place, without an attempt counted.
 * UNSUPPORTED: an older broker. */
SLUICE_API int sluice_item_release(sluice_sub *sub, sluice_token token, uint64_t seq,
				   const sluice_call *call, sluice_reply **ret_reply);
/* The program begins to work on the item (report_begun of the spec, else WRONG_STATE). When a
 * consumer dies or a lease ends, an attempt is counted for what was begun and not settled, and for
 * nothing else. To be called before the work; when it returns, the report is on its way. */
SLUICE_API int sluice_item_begin(sluice_sub *sub, sluice_token token, uint64_t seq);
/* Extends the lease of the token, with all of its items, to lease_ms from now; 0: the queue's. It
 * is also the sign of life that lease_extend_max_ms waits for. */
SLUICE_API int sluice_lease_extend(sluice_sub *sub, sluice_token token, uint32_t lease_ms,
				   const sluice_call *call, sluice_reply **ret_reply);

/* Moves a cursor to the next offset to read; it never goes back. Makes it, if it does not exist. If
 * this client follows a stream of that name, that one is meant: NOT_FOUND when it was deleted,
 * though another may have its name. */
SLUICE_API int sluice_cursor_set(sluice_client *client, const char *stream, const char *cursor,
				 uint64_t next_offset, const sluice_call *call,
				 sluice_reply **ret_reply);
/* NOT_FOUND. */
SLUICE_API int sluice_cursor_delete(sluice_client *client, const char *stream, const char *cursor,
				    const sluice_call *call, sluice_reply **ret_reply);

/* ---- 9. Jobs --------------------------------------------------------------------------------
 *
 * The broker keeps a ledger of jobs. A job is submitted under an id and waits in a queue of jobs.
 * Its consumer (a scheduler) records an intent, with a tag to find the work by, before it starts
 * anything; then it reports states until one is terminal. This order is why no attempt is started
 * twice.
 *
 * A job's id may be another job's once the first was forgotten (sluice_job_retention_set()); its
 * number never is. An attempt is one try to run the job; a reset begins the next.
 * NOT_FOUND: there is no such job. STALE_TOKEN: this client does not hold the job any more; it must
 * stop the work and report nothing. Ids and names have at most 255 bytes, other texts 1,024. */

typedef struct sluice_job_spec {
	uint32_t size;
	uint8_t priority; /* 0 to 255, the highest */
	const char *job;  /* its id; sluice_job_id_make() makes one */
	const char *queue;
	const char *lifecycle; /* NULL: the queue's */
	const char *owner;     /* for people and lists */
	sluice_slice payload;  /* at most 1 MiB */
} sluice_job_spec;
#define SLUICE_JOB_SPEC(...) SLUICE_MAKE(sluice_job_spec, __VA_ARGS__)

/* The meaning of a scheduler's word, whatever the lifecycle calls the state. */
typedef enum sluice_evidence_class {
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

/* Times are the source's; later ones than the broker's clock count as that. 0: not known. */
typedef struct sluice_job_report_spec {
	uint32_t size;
	uint32_t attempt;
	uint32_t signal; /* that ended it; 0: none */
	int exit_code;
	bool exited;  /* exit_code is one; an exit code of 0 says nothing without this */
	bool release; /* gives up the lease, as a terminal state does anyway */
	sluice_evidence_class evidence_class;
	const char *job;
	const char *source;	   /* of the report: "local", "slurm:cluster-a" */
	const char *state;	   /* new state; NULL: evidence or reference only */
	const char *scheduler_ref; /* the scheduler's own id; kept when given */
	const char *evidence;	   /* as it was seen, for people; cut after 4,096 bytes */
	sluice_token token;	   /* 0: the reporter does not hold the job */
	/* When the source looked. With it a report that is sent again is known as one. */
	sluice_time_ms seen_time_ms;
	sluice_time_ms started_time_ms;
	sluice_time_ms ended_time_ms;
	uint64_t memory_peak_bytes;
	uint64_t number; /* of the job: NOT_FOUND if another has the id now; 0: whichever has it */
} sluice_job_report_spec;
#define SLUICE_JOB_REPORT_SPEC(...) SLUICE_MAKE(sluice_job_report_spec, __VA_ARGS__)

/* Makes an id for a job: unique, in the order of time; at most 40 bytes with its NUL. */
SLUICE_API void sluice_job_id_make(char ret[40]);
/* Submitting the same again succeeds (sluice_reply_duplicate()). NOT_FOUND (queue or lifecycle),
 * CONFLICT (the id has another content), QUEUE_FULL, INVAL (not a queue of jobs). */
SLUICE_API int sluice_job_submit(sluice_client *client, const sluice_job_spec *spec,
				 const sluice_call *call, sluice_reply **ret_reply);
/* Records that the attempt is about to be started under the tag. Start it after 0 only. CANCELLED,
 * STALE_TOKEN, STALE_ATTEMPT; CONFLICT (the attempt has an intent with another tag). */
SLUICE_API int sluice_job_intent(sluice_client *client, const char *job, sluice_token token,
				 uint32_t attempt, const char *tag, const sluice_call *call,
				 sluice_reply **ret_reply);
/* Reports a state, evidence, or both. A report that does not fit is kept aside: returns 0, and
 * sluice_reply_disposition() says so. Evidence and other texts for people are repaired where they
 * are no UTF-8. STALE_TOKEN, NOT_FOUND (number). */
SLUICE_API int sluice_job_report(sluice_client *client, const sluice_job_report_spec *spec,
				 const sluice_call *call, sluice_reply **ret_reply);
/* Gives the job back before its intent; it is delivered again after delay_ms, without an attempt
 * counted. STALE_TOKEN, WRONG_STATE (an intent is recorded). Is not repeated after a reconnect. */
SLUICE_API int sluice_job_release(sluice_client *client, const char *job, sluice_token token,
				  uint32_t delay_ms, const char *reason, const sluice_call *call,
				  sluice_reply **ret_reply);
/* Ends a job that has no intent; otherwise its holder gets the notice JOB_CANCEL and reports what
 * became of it. */
SLUICE_API int sluice_job_cancel(sluice_client *client, const char *job, const char *reason,
				 const sluice_call *call, sluice_reply **ret_reply);
/* Begins the next attempt of a job that has ended; of any job with force. WRONG_STATE, QUEUE_FULL,
 * LIMIT (no more attempts). Is not repeated after a reconnect. */
SLUICE_API int sluice_job_reset(sluice_client *client, const char *job, bool force,
				const char *reason, const sluice_call *call,
				sluice_reply **ret_reply);
/* One row (sluice_reply_job()), with the payload if that is asked for. */
SLUICE_API int sluice_job_show(sluice_client *client, const char *job, bool payload,
			       const sluice_call *call, sluice_reply **ret_reply);
/* Returns when the job is terminal, or TIMEOUT; the reply has the job as it is then. number: of the
 * job that is meant: NOT_FOUND if it was forgotten; 0: whichever has the id. */
SLUICE_API int sluice_job_wait(sluice_client *client, const char *job, uint64_t number,
			       const sluice_call *call, sluice_reply **ret_reply);

/* Members that are NULL or 0 let every job pass. */
typedef struct sluice_job_filter {
	uint32_t size;
	uint32_t max;	       /* rows; 0: 1,000, which is also the most */
	uint64_t after_number; /* rows behind this job number */
	const char *state;
	const char *queue;
	const char *claim; /* "ready", "gated", "leased", "orphaned", "held" or "none" */
	bool open_only;	   /* not those in a terminal state */
	uint64_t holder_session;
} sluice_job_filter;
#define SLUICE_JOB_FILTER(...) SLUICE_MAKE(sluice_job_filter, __VA_ARGS__)
/* Rows in the order of numbers (sluice_reply_job()). filter may be NULL. A job whose record is
 * damaged has a row all the same, with what can be read; its evidence begins with "damaged:". */
SLUICE_API int sluice_job_list(sluice_client *client, const sluice_job_filter *filter,
			       const sluice_call *call, sluice_reply **ret_reply);
/* The newest 1,000 changes, oldest first (sluice_reply_history()). */
SLUICE_API int sluice_job_history(sluice_client *client, const char *job, const sluice_call *call,
				  sluice_reply **ret_reply);
/* Why the job is in its state and what happens next, in lines for people (sluice_reply_line()). */
SLUICE_API int sluice_job_explain(sluice_client *client, const char *job, const sluice_call *call,
				  sluice_reply **ret_reply);
/* Reports in the quarantine (sluice_reply_quarantine()): of one job, or of all if job is NULL;
 * after row number `after`, at most max (0: 1,000, which is also the most). */
SLUICE_API int sluice_quarantine_list(sluice_client *client, const char *job, uint64_t after,
				      uint32_t max, const sluice_call *call,
				      sluice_reply **ret_reply);

typedef struct sluice_job_audit_spec {
	uint32_t size;
	uint64_t after_number; /* 0: from the first; or next_number of the call before */
	uint64_t silent_ms;    /* a lease without a report for longer is a finding; 0: a day */
	uint64_t orphan_ms;    /* an orphan not claimed for longer is a finding; 0: an hour */
} sluice_job_audit_spec;
#define SLUICE_JOB_AUDIT_SPEC(...) SLUICE_MAKE(sluice_job_audit_spec, __VA_ARGS__)
/* Checks the ledger, one part per call: sluice_reply_audit() has the counts and the number after
 * which the next call continues, sluice_reply_line() the findings. spec may be NULL. */
SLUICE_API int sluice_job_audit(sluice_client *client, const sluice_job_audit_spec *spec,
				const sluice_call *call, sluice_reply **ret_reply);
/* For how long the gateway keeps a job after its end; 0: for ever. The default is 30 days. */
SLUICE_API int sluice_job_retention_set(sluice_client *client, uint64_t keep_ms,
					const sluice_call *call, sluice_reply **ret_reply);

typedef struct sluice_source_heartbeat_spec {
	uint32_t size;
	bool ok;   /* the source answered */
	bool take; /* takes the source over from the session that spoke for it */
	const char *source;
	const char *text; /* its answer, or why there was none */
} sluice_source_heartbeat_spec;
#define SLUICE_SOURCE_HEARTBEAT_SPEC(...) SLUICE_MAKE(sluice_source_heartbeat_spec, __VA_ARGS__)
/* A source of evidence was asked: once for each round of polling, not once for each job. explain
 * and audit go by it. The first one makes the source. CONFLICT: a session that lives speaks for it,
 * and take is not set. */
SLUICE_API int sluice_source_heartbeat(sluice_client *client,
				       const sluice_source_heartbeat_spec *spec,
				       const sluice_call *call, sluice_reply **ret_reply);

typedef struct sluice_job_info {
	uint32_t size;
	uint32_t attempt;
	uint32_t signal; /* signal to evidence_class: as reported last */
	int exit_code;
	bool exited; /* there is an exit code */
	bool terminal;
	bool cancel; /* a cancel was asked for */
	bool intent; /* this attempt has one */
	uint8_t priority;
	sluice_evidence_class evidence_class;
	const char *job;
	const char *queue;
	const char *lifecycle;
	const char *state;
	const char *claim; /* as in sluice_job_filter */
	const char *holder;
	const char *tag;
	const char *scheduler_ref;
	const char *owner;
	const char *evidence;
	const char *source; /* of the last report */
	const char *judge;  /* source that can judge this attempt; "": none was named */
	sluice_slice payload;
	uint64_t number;
	sluice_token token;
	uint64_t holder_session;
	sluice_time_ms submit_time_ms; /* these two by the broker's clock */
	sluice_time_ms change_time_ms;
	sluice_time_ms seen_time_ms; /* these two of the last report that had them; 0: none */
	sluice_time_ms started_time_ms;
	/* At its end: when that happened; if no report says so, when it was seen, or recorded. */
	sluice_time_ms ended_time_ms;
	uint64_t memory_peak_bytes;
} sluice_job_info;
#define SLUICE_JOB_INFO() SLUICE_MAKE(sluice_job_info, )

typedef struct sluice_job_history_row {
	uint32_t size;
	uint32_t attempt;
	uint32_t signal;
	int exit_code;
	bool exited;
	sluice_evidence_class evidence_class;
	/* submit, claim, intent, report, release, cancel, reset, orphan or takeover */
	const char *event;
	const char *from_state;
	const char *state;
	const char *source;
	const char *evidence;
	const char *scheduler_ref;
	uint64_t number; /* of the row */
	sluice_time_ms time_ms;
	sluice_token token;
	sluice_index index;
	sluice_time_ms seen_time_ms;
	sluice_time_ms started_time_ms;
	sluice_time_ms ended_time_ms;
	uint64_t memory_peak_bytes;
} sluice_job_history_row;
#define SLUICE_JOB_HISTORY_ROW() SLUICE_MAKE(sluice_job_history_row, )

typedef struct sluice_quarantine_row {
	uint32_t size;
	uint32_t attempt;
	const char *job;
	const char *source;
	const char *state;
	const char *reason; /* why it was not applied */
	const char *evidence;
	uint64_t number; /* of the row */
	sluice_time_ms time_ms;
} sluice_quarantine_row;
#define SLUICE_QUARANTINE_ROW() SLUICE_MAKE(sluice_quarantine_row, )

typedef struct sluice_job_audit_info {
	uint32_t size;
	/* Jobs of the part that was checked. */
	uint64_t jobs;
	uint64_t open;
	uint64_t ready;
	uint64_t leased;
	uint64_t orphaned;
	uint64_t gated;
	uint64_t held;
	uint64_t next_number; /* after_number of the next call; 0: all were checked */
} sluice_job_audit_info;
#define SLUICE_JOB_AUDIT_INFO() SLUICE_MAKE(sluice_job_audit_info, )

/* Rows, as in section 5. */
SLUICE_API bool sluice_reply_job(const sluice_reply *reply, size_t i, sluice_job_info *ret);
SLUICE_API bool sluice_reply_history(const sluice_reply *reply, size_t i,
				     sluice_job_history_row *ret);
SLUICE_API bool sluice_reply_quarantine(const sluice_reply *reply, size_t i,
					sluice_quarantine_row *ret);
SLUICE_API bool sluice_reply_audit(const sluice_reply *reply, sluice_job_audit_info *ret);
/* Line i of an explanation or of an audit's findings, borrowed from the reply; NULL: none. */
SLUICE_API const char *sluice_reply_line(const sluice_reply *reply, size_t i);

/* What became of a report whose code is 0. */
typedef enum sluice_disposition {
	SLUICE_DISPOSITION_APPLIED,
	SLUICE_DISPOSITION_DUPLICATE,	/* it was applied before */
	SLUICE_DISPOSITION_QUARANTINED, /* it does not fit: it changed nothing and never will */
	SLUICE_DISPOSITION_PARKED	/* there is no such job yet: it waits for its submit */
} sluice_disposition;
SLUICE_API sluice_disposition sluice_reply_disposition(const sluice_reply *reply);
/* Of a report: why it was not applied, for people. Never NULL. */
SLUICE_API const char *sluice_reply_reason(const sluice_reply *reply);
/* Of submit, report, cancel: the job's state. Never NULL. */
SLUICE_API const char *sluice_reply_state(const sluice_reply *reply);
/* Of submit, report, reset: the job's attempt. */
SLUICE_API uint32_t sluice_reply_attempt(const sluice_reply *reply);

/* ---- 10. Transactions -----------------------------------------------------------------------
 *
 * Operations that are gathered, sent as one, and done in one commit: all or none. At most 1,000,
 * and 4 MiB. */

/* Owned; NULL: out of memory. */
SLUICE_API sluice_txn *sluice_txn_create(void);
/* Frees it. NULL is accepted. */
SLUICE_API void sluice_txn_destroy(sluice_txn *txn);
/* Each appends one operation and copies what it is given. They ask no broker: LIMIT, NOMEM, INVAL.
 * relaxed and time_ms of a message do not count. An ack or nack names `count` items from first_seq
 * on, all of which must still be held; queue may be that of any consumer of this session. */
SLUICE_API int sluice_txn_publish(sluice_txn *txn, const sluice_message *message);
SLUICE_API int sluice_txn_ack(sluice_txn *txn, const char *queue, sluice_token token,
			      uint64_t first_seq, uint32_t count);
SLUICE_API int sluice_txn_nack(sluice_txn *txn, const char *queue, sluice_token token,
			       uint64_t first_seq, uint32_t count, uint32_t delay_ms,
			       const char *reason);
SLUICE_API int sluice_txn_job_submit(sluice_txn *txn, const sluice_job_spec *spec);
SLUICE_API int sluice_txn_job_intent(sluice_txn *txn, const char *job, sluice_token token,
				     uint32_t attempt, const char *tag);
SLUICE_API int sluice_txn_job_report(sluice_txn *txn, const sluice_job_report_spec *spec);
SLUICE_API int sluice_txn_job_cancel(sluice_txn *txn, const char *job, const char *reason);
SLUICE_API int sluice_txn_job_reset(sluice_txn *txn, const char *job, const char *reason);
SLUICE_API int sluice_txn_cursor_set(sluice_txn *txn, const char *stream, const char *cursor,
				     uint64_t next_offset);
/* A condition: WRONG_STATE, unless the job is in this state (NULL: any) and attempt (0: any). */
SLUICE_API int sluice_txn_check_job(sluice_txn *txn, const char *job, const char *state,
				    uint32_t attempt);
/* Sends it. The transaction stays the program's and may be changed or destroyed at once. Sent again
 * after a reconnect and done once. Returns the code of the first operation that could not be done;
 * a report that would be quarantined is QUARANTINED here. */
SLUICE_API int sluice_txn_commit(sluice_client *client, const sluice_txn *txn,
				 const sluice_call *call, sluice_reply **ret_reply);
/* Number of the operation that was refused, from 1; 0: none. */
SLUICE_API uint32_t sluice_reply_failed_op(const sluice_reply *reply);

/* ---- 11. Status and sessions ----------------------------------------------------------------
 *
 * For administrators. Replies are read by sluice_reply_json(). */

/* Counts, sizes and health of the broker and gateway. */
SLUICE_API int sluice_status(sluice_client *client, const sluice_call *call,
			     sluice_reply **ret_reply);
/* Sessions behind number `after`, at most max (0: 1,000, which is also the most). */
SLUICE_API int sluice_session_list(sluice_client *client, uint64_t after, uint32_t max,
				   const sluice_call *call, sluice_reply **ret_reply);
/* Ends another session of the gateway: its connection is closed, items under session leases go
 * back, jobs become orphans. NOT_FOUND, SESSION_GONE: there is none, or no more. INVAL: 0, or the
 * client's own, which sluice_close() ends. UNSUPPORTED: an older broker, or there was no connection
 * yet (a blocking call waits for it). */
SLUICE_API int sluice_session_close(sluice_client *client, uint64_t session,
				    const sluice_call *call, sluice_reply **ret_reply);

#ifdef __cplusplus
}
#endif

#endif
