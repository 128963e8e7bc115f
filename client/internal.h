/* SPDX-License-Identifier: Apache-2.0
 *
 * libsluice's insides. One lock per client; the loop holds it while it works and lets go of it only to wait. Callbacks are called with the
 * lock held by the loop's thread (it is recursive), so they may make asynchronous calls; a blocking call from a callback is refused.
 */
#ifndef SLUICE_CLIENT_INTERNAL_H
#define SLUICE_CLIENT_INTERNAL_H

#include <pthread.h>

void *mem_alloc(size_t bytes); /* zeroed */
void mem_free(void *old);
#define uthash_malloc(bytes) mem_alloc(bytes)
#define uthash_free(old, bytes) mem_free(old)
/* An entry that could not be added has no table then (HASHED), where the default is to end the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#define HASHED(entry) ((entry)->hh.tbl != NULL)

#include "protocol/envelope.h"
#include "protocol/frame.h"
#include "protocol/limits.h"
#include "protocol/message_block.h"
#include "sluice.pb-c.h"
#include "sluice/client.h"

enum { TEXT_MAX = 512, INFLIGHT_FRAMES_MAX = 128, CALL_DEADLINE_MS = 10000 };

/* ---- memory: the allocator hook ---- */
void *mem_resize(void *old, size_t bytes);
char *mem_text(const char *text, size_t len); /* a terminated copy */
/* Whether an allocation failed since the last call of it on this thread: tells a message that is malformed from one that there is no memory for. */
bool mem_lacked(void);
extern ProtobufCAllocator mem_protobuf;

/* A growable byte buffer with a read position. */
struct buffer {
	uint8_t *bytes;
	size_t start, end, capacity;
};
uint8_t *buffer_room(struct buffer *buffer, size_t bytes); /* at the end; NULL: no memory */
static inline size_t buffer_len(const struct buffer *buffer)
{
	return buffer->end - buffer->start;
}
void buffer_free(struct buffer *buffer);

/* ---- errors: why this thread's last call that failed did (sluice_last_error) ---- */
int error_set(int code, const char *text); /* returns code; 0 changes nothing; text NULL or "": the code's */
int error_format(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- configuration ---- */
enum client_mode { MODE_OWN_THREAD, MODE_CALLER_LOOP };
struct sluice_config {
	char address[512], client[256];
	char gateway[LIMIT_SIZE(NAME_BYTES_MAX) + 1], session[LIMIT_SIZE(NAME_BYTES_MAX) + 1],
		producer[LIMIT_SIZE(NAME_BYTES_MAX) + 1];
	uint32_t session_timeout_ms, deadline_ms, connect_timeout_ms, reconnect_min_ms, reconnect_max_ms,
		batch_events, lease_extend_max_ms;
	uint64_t buffer_bytes, batch_bytes;
	enum client_mode mode;
	bool reconnect, buffer_block, zstd, lease_extend;
	int transport_fd;
};

/* ---- replies ---- */
struct sluice_reply {
	int refs; /* atomic */
	int code;
	char *text;
	uint64_t request;
	Sluice__Reply *message; /* NULL: an answer without one */
	struct message_block
		*block; /* what all of it lives in but json; NULL: reply and text are allocated */
	uint64_t index, affected, offset;
	bool duplicate;
	char *json;
	const char **spare; /* string arrays handed out */
};
sluice_reply *reply_new(int code, const char *text, size_t text_len);
/* Of a broker's message that lives in block, as the reply does then; takes block on success. NULL: no memory. */
sluice_reply *reply_in_block(struct message_block *block, Sluice__Reply *message);

/* ---- calls ---- */
struct call {
	uint32_t corr;
	uint64_t number;  /* request id: never reused */
	uint8_t frame;	  /* type of its frame: REQUEST, or ACK */
	uint8_t *request; /* packed Request, or the frame's body */
	size_t request_len;
	bool repeatable; /* may be sent again after the connection broke */
	bool sent;
	uint64_t deadline_ms; /* UINT64_MAX: none */
	sluice_done_fn *done;
	void *user;
	bool finished;
	sluice_reply *reply;
	int code;      /* of a waiting publish, also without memory for its reply */
	bool blocking; /* its owner waits and frees it */
	/* internal ends, before done: */
	void (*hook)(sluice_client *client, struct call *call);
	void *hook_user;
	const char *job; /* of a call that may end a lease: the job, behind the request, and its token */
	sluice_token token;
	uint32_t sub_number;	  /* of one that opens a subscription */
	bool closes_session;	  /* names one: a broker that does not know that would end the caller's own */
	bool was_sent;		  /* on an earlier connection: it may have been done */
	struct call *prev, *next; /* in order of making */
	UT_hash_handle hh;
};

/* ---- publishing ---- */
/* Of messages that follow each other and are answered alike: each by itself, or as one. */
struct message_end {
	sluice_done_fn *done; /* NULL: counted only */
	void *user;
	struct call *waiter; /* a blocking publish */
	uint64_t deadline_ms;
	uint32_t count;
	bool whole; /* one answer for all of them */
	bool told;
};
struct batch {
	struct batch *prev, *next;
	uint8_t target_kind, flags, durability;
	char *target, *subject; /* subject NULL: each event has its own */
	struct buffer events;
	uint32_t count, untold; /* messages; of them, without their answer */
	uint32_t end_count, ends_capacity;
	struct message_end *ends;
	uint64_t deadline_ms; /* no end that is not told has an earlier one */
	uint64_t first_seq;
	uint64_t time_ms;
	uint32_t corr; /* of the frame, while it is in flight */
	bool closed;   /* takes no more messages */
	bool in_flight, was_sent;
	bool maybe;	   /* sent on a connection that broke before the answer: it may have been applied */
	uint64_t retry_ms; /* refused for now: not before this */
	int refused;	   /* and certainly not applied */
	int refused_last;  /* the last refusal of it, also when it was sent again since */
	char refused_text[256];
	size_t bytes; /* on account of the buffer */
};
struct publisher {
	uint64_t producer, secret, session; /* session: that opened it */
	uint32_t epoch;
	bool opening, open;
	bool again; /* the session that had it ended: it is opened again, by its secret, with its numbers */
	uint64_t open_ms; /* not to be opened before */
	int gone; /* the broker knows it no more, as this code says: it is opened anew once all that is in flight is answered */
	int failed; /* fenced: another client publishes under its name, and this one no more */
	uint64_t next_seq, settled_seq;
	struct batch *batches; /* in order of sequence */
	uint32_t in_flight;
	bool mixed;	      /* subjects change often: per-event subjects */
	uint64_t due_ms;      /* nothing in the batches is due before */
	bool given_up;	      /* a batch has nobody to tell any more */
	struct batch *spares; /* singly linked: memory of former batches */
	uint32_t spare_count;
	uint64_t spare_bytes;
	uint64_t buffered;
	sluice_publish_stats stats;
	int flush_code; /* the first failure since the last flush */
	char flush_text[256];
};

/* ---- transactions: a producer of their own, one under way at a time, so that each is settled before the next ---- */
struct pending_txn {
	struct pending_txn *prev, *next;
	Sluice__Txn *txn;
	struct call *call; /* once it is sent */
	bool was_sent;	   /* by a session that has ended */
	sluice_done_fn *done;
	void *user;
	uint64_t deadline_ms;
	struct call *waiter;
};
struct transactor {
	uint64_t producer, secret, seq, session; /* session: that opened it */
	uint32_t epoch;
	bool opening, open;
	bool again;	  /* as of the publisher */
	uint64_t open_ms; /* not to be opened before */
	struct pending_txn *waiting;
};

/* ---- subscriptions ---- */
struct held {
	sluice_token token;
	uint64_t due_ms;   /* when to extend it, or, if it is not extended, when it ends; UINT64_MAX: never */
	uint64_t since_ms; /* the application has it, or has extended it itself, since then */
	uint64_t ends_ms;  /* by this client's clock: granted or extended, and a lease later */
	uint32_t lease_ms;
	bool lost;	/* and the application was told so */
	uint32_t out;	/* items of it not acked yet */
	uint32_t asked; /* out when the subscription was opened last */
	bool seen;	/* delivered since then. If not, it stays here even if nothing is out */
	bool over;	/* it did not come again: its end is about to be told */
	UT_hash_handle hh;
};
struct held_job {
	sluice_token token;
	uint64_t number; /* 0: the broker did not say */
	char *job;
	bool seen;    /* as of a grant */
	bool cancel;  /* the application was told */
	bool doubted; /* did not come again, and a call about it had no answer yet, which will tell */
	struct held_job *next_lost;
	UT_hash_handle hh;
};
struct sluice_delivery {
	struct sluice_delivery *prev, *next;
	sluice_delivery_view view;
	uint8_t *bytes; /* what the view points into */
};
struct ack_gather {
	struct ack_gather *prev, *next;
	sluice_token token;
	struct frame_run *runs;
	size_t count, capacity, written;
};
struct begun {
	sluice_token token;
	uint64_t seq;
};
struct sluice_sub {
	sluice_client *client;
	uint32_t number;
	bool follow;
	char *name, *cursor, *filter;
	char *source;	   /* consume; NULL: none */
	bool source_taken; /* the broker knows that this session speaks for it */
	sluice_from from;
	uint64_t offset, time_ms;
	uint32_t credit, lease_ms;
	bool orphans, session_lease, manual_credit;
	sluice_delivery_fn *on_delivery;
	void *user;
	bool opened, ended, closing;
	bool reports;	   /* consume: what is begun is reported */
	bool draining;	   /* no credit is given back any more */
	bool gives_back;   /* what comes still goes back to the broker */
	bool leaves, left; /* the broker was asked to end it: not answered yet; at all */
	unsigned
		waiters; /* threads that wait for it to open or for a delivery: it is freed after they left */
	sluice_sub *next_retired;
	/* An asynchronous open that has no answer yet. */
	sluice_done_fn *open_done;
	void *open_user;
	uint64_t open_deadline_ms, reopen_ms; /* reopen_ms: 0, or when to try again after a refusal for now */
	int end_code;
	char end_text[256];
	uint64_t next_offset; /* follow: where to go on after a reconnect */
	bool started;	      /* follow: next_offset is known */
	uint64_t
		length; /* follow: the stream has had that many, as the broker said or an event or a gap showed */
	uint64_t thing; /* number of the stream or queue, once it was open; 0: the broker does not tell */
	uint32_t owed;	/* credit to give back */
	uint32_t debt;	/* credit that was asked for what other subscriptions hold: that much is kept first */
	struct held *held;
	bool coming;	 /* what its session holds of the queue may still come to it */
	bool keeps;	 /* some of held are done with, and known until it has come to all */
	uint64_t due_ms; /* none of held is due before; it may be earlier than needed */
	uint32_t
		extend_max_ms; /* how long leases are extended without a word of the application; 0: by the length of the lease */
	bool resume_damaged; /* since it was opened, something was damaged that the broker did not name well enough */
	bool resuming;		/* opened without credit: it is given when all that is held has come again */
	sluice_token token_max; /* of the grants that came: a lower one comes again */
	struct held_job *jobs;
	struct begun *begun; /* to be reported with the next flush */
	size_t begun_count, begun_capacity;
	struct sluice_delivery *waiting;
	size_t waiting_count;
	struct ack_gather *acks;
	UT_hash_handle hh;
};

/* ---- the client ---- */
enum client_state {
	STATE_IDLE,
	STATE_RESOLVING,
	STATE_CONNECTING,
	STATE_HELLO,
	STATE_READY,
	STATE_WAITING /* for the next try */,
	STATE_FAILED
};
struct resolver;

/* What the link reports upward. */
struct link_ops {
	/* A frame that is not the link's own. False: there was no memory for it; it comes again. */
	bool (*frame)(sluice_client *client, const struct frame_header *header, struct sluice_slice body);
	/* The broker has said which features it has; nothing was sent to it yet. */
	void (*accepted)(sluice_client *client);
	void (*connected)(sluice_client *client, bool session_lost);
	void (*broken)(sluice_client *client);		 /* the connection ended */
	void (*failed)(sluice_client *client, int code); /* for good: there is no next try */
};

struct sluice_client {
	/* One turn of the loop with the lock held; waits up to timeout_ms. */
	void (*turn)(sluice_client *client, int timeout_ms);
	const struct link_ops *link_ops;
	struct sluice_config config;
	sluice_event_fn *on_event;
	void *user;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool thread_runs, stopping, closing;
	unsigned users; /* threads between lock and unlock, those that wait included */
	int epoll_fd, wake_fd, timer_fd, socket_fd;
	bool wants_write, woken;
	bool again;	   /* a callback made work: the next turn begins with it */
	uint64_t timer_ms; /* when timer_fd wakes the loop; UINT64_MAX: not */
	enum client_state state;
	int fail_code;
	int refused_code; /* of the last try: the broker answered it, with NO_SPACE, say; 0: it did not */
	char error[TEXT_MAX];
	struct resolver *resolver;
	size_t address_index;
	uint64_t attempt; /* of connecting, since the last success */
	uint64_t next_try_ms, connect_deadline_ms, last_in_ms, last_out_ms;
	uint64_t ping_ms;	/* of the last PING; 0: none since the connect */
	uint64_t unanswered_ms; /* of the first PING since something came; 0: none */
	/* Without memory. A frame that cannot be written: the link is given up at the loop's next turn, and resumed. One that came and cannot be taken
	 * stays in `in`, and nothing behind it is read, until stalled_ms. */
	bool lacking, stalled;
	bool knows_begun; /* the broker takes operations 5 and 6 of ACK; one of before would end the connection */
	uint64_t stalled_ms;
	bool begun;	/* of that frame: */
	uint32_t taken; /* how many entries were taken before */
	uint64_t
		retry_ms; /* what lacked memory, or waits for something else, is tried again; UINT64_MAX: nothing */
	uint64_t session_id;
	uint8_t instance[16]; /* random; with tries, the order of this client's connections */
	uint64_t tries;	      /* HELLOs sent, all in all */
	uint8_t secret[16];
	size_t secret_len;
	bool had_session;
	uint32_t heartbeat_ms;
	bool zstd;
	bool closes_sessions; /* session_close may name another one: brokers of before end the caller's own */
	struct buffer in, out;
	uint32_t next_corr;
	uint64_t next_request;
	struct call *calls;    /* by corr, sent or not */
	struct call *ordered;  /* the same, in order */
	struct call *unsent;   /* where to look for one that is not sent: all before it are; NULL: all are */
	uint64_t calls_due_ms; /* no call's deadline is before this */
	struct publisher publisher;
	struct transactor transactor;
	sluice_sub *subs;
	sluice_token token_max; /* of the grants of items that came */
	sluice_sub *retired;	/* closed, while the loop or another thread may still look at them */
	uint32_t next_sub;
	size_t doubts; /* held jobs that are doubted */
};

void client_lock(sluice_client *client);
void client_unlock(sluice_client *client);
/* This thread is in the client's loop from now on; returns whose it was in, for the way back. */
const sluice_client *loop_enter(const sluice_client *client);
bool client_on_loop(const sluice_client *client);
void client_wake(sluice_client *client);		  /* the loop has something to do */
void client_retry(sluice_client *client, uint64_t at_ms); /* the loop turns at that time, too */
uint64_t now_ms(void);
uint64_t deadline_of(const sluice_client *client, int deadline_ms);
extern const char from_a_callback[]; /* why what would wait is refused there */
void client_event(sluice_client *client, const sluice_event *event);
/* Waits, with the lock held, until *flag or the deadline; runs the loop itself in caller-loop mode. False: the deadline passed. */
bool client_wait(sluice_client *client, const bool *flag, uint64_t deadline_ms);
/* One wait: until something changed, or the deadline. The caller looks again. */
void client_wait_turn(sluice_client *client, uint64_t deadline_ms);

/* link/link.c */
void link_start(sluice_client *client);
void link_io(sluice_client *client, uint32_t events);
void link_due(sluice_client *client, uint64_t now);
uint64_t link_next(
	const sluice_client *client); /* when link_due() has something to do while it is connected */
void link_broken(sluice_client *client, int code, const char *why);
void link_flush(sluice_client *client);
bool link_push(
	sluice_client
		*client); /* the same, from any thread: true: all was sent; an error is the loop's to find */
void link_close(sluice_client *client);
/* NULL: there is no connection, or no memory: it is given up then. From any thread. */
uint8_t *link_frame(sluice_client *client, uint8_t type, uint32_t corr, size_t body_bytes);
/* There was no memory for what must not be lost: the connection is given up at the loop's next turn, and what the broker knows comes again with the
 * next one. From any thread. */
void link_lacks(sluice_client *client);
int resolver_start(sluice_client *client, const char *host, const char *port);
void resolver_drop(sluice_client *client);

/* How a call is made: blocking, with a callback, or neither, when a refusal comes as an event. */
static inline bool call_fires(const sluice_call *call)
{
	return call != NULL && call->done == NULL && call->user == SLUICE_FIRE;
}
static inline bool call_blocks(const sluice_call *call)
{
	return call == NULL || (call->done == NULL && call->user != SLUICE_FIRE);
}

/* call/call.c */
void call_nobody(sluice_client *client, const sluice_reply *reply,
		 void *user); /* a sluice_done_fn: of a call that fires */
struct call *call_new_frame(sluice_client *client, uint8_t frame, uint8_t *body, size_t len,
			    const sluice_call *options); /* takes body on success */
struct call *call_new(sluice_client *client, const Sluice__Request *request, bool repeatable,
		      const sluice_call *options);
void call_deadline_set(sluice_client *client, struct call *call, uint64_t deadline_ms);
void call_first(sluice_client *client, struct call *call); /* to be sent before all others */
void calls_send(sluice_client *client);
void calls_due(sluice_client *client, uint64_t now, uint64_t *io_next);
void calls_broken(sluice_client *client); /* sent ones: again, or unknown */
/* After a connect, before anything is sent: ends calls that this broker would take for something else. */
void calls_check(sluice_client *client);
void calls_end(sluice_client *client, int code, const char *text);
void call_finish(sluice_client *client, struct call *call, sluice_reply *reply); /* takes reply */
bool call_on_reply(sluice_client *client, uint32_t corr,
		   struct sluice_slice body); /* false: no memory, again later */
/* ACKED, the answer to a call whose frame is an ACK; corr 0: a refusal that nobody waits for. */
bool call_on_acked(sluice_client *client, uint32_t corr, struct sluice_slice body);
void call_free(struct call *call);
/* Waits for a call that its caller made with the lock held, keeps the lock. The reply's code; *ret_reply as in a blocking call. */
int call_wait(sluice_client *client, struct call *call, sluice_reply **ret_reply);
/* Waits for a call that its caller made with the lock held, or lets it go when it is asynchronous; unlocks. */
int call_settle(sluice_client *client, struct call *call, const sluice_call *options,
		sluice_reply **ret_reply);
/* A refusal by the library itself, as if the broker had answered; asynchronous: the code only. Returns code; why "": the code's text. */
int call_refuse(int code, const char *why, const sluice_call *options, sluice_reply **ret_reply);
/* The tail of every operation: makes the call and waits, or not. */
int call_run(sluice_client *client, const Sluice__Request *request, bool repeatable,
	     const sluice_call *options, sluice_reply **ret_reply);
/* The same; hook sees the finished call first, with the job and token that it is about. */
typedef void call_hook_fn(sluice_client *client, struct call *call);
struct call_about {
	const char *job;
	sluice_token token;
	call_hook_fn *hook;   /* NULL: none */
	uint64_t deadline_ms; /* instead of the options'; 0: theirs */
	bool closes_session;
};
int call_run_about(sluice_client *client, const Sluice__Request *request, bool repeatable,
		   const struct call_about *about, const sluice_call *options, sluice_reply **ret_reply);
/* Asks for a producer, named or of the session's own (""), or, expect not 0, for that one again; opened sees the answer, and *ret_opening is set
 * until then. Without memory nothing is asked and set: it is tried again with the next send. */
void producer_open(sluice_client *client, const char *name, uint64_t expect, uint64_t secret,
		   call_hook_fn *opened, bool *ret_opening);
/* Whether a publish or transaction was refused for its producer, and not for itself: the record was evicted, or belongs to a session that has ended. Another
 * one is opened then. A fenced one with a name is another client's now. */
bool producer_is_gone(const sluice_client *client, int code, uint64_t session, const char *name);
/* At once, or when enough time has passed since the last refusal or eviction; false: not yet, the loop comes back. */
bool producer_may_open(sluice_client *client, uint64_t not_before_ms);
enum {
	PRODUCER_REOPEN_MS = 500,
	MEMORY_MS = 20
}; /* MEMORY_MS: what lacked memory is tried again after this */

/* publish/ */
struct batch *publish_batch_take(
	struct publisher *publisher); /* empty, maybe with a former one's memory; NULL: none */
void publish_spares_free(struct publisher *publisher);		     /* the memory of former batches */
void publish_batch_free(sluice_client *client, struct batch *batch); /* of no list any more */
void publish_send(sluice_client *client);
/* Sends what its caller published and is to wait for, at once if it can, or wakes the loop. */
void publish_push(sluice_client *client);
bool publish_on_answer(sluice_client *client, uint32_t corr, struct sluice_slice body);
void publish_broken(sluice_client *client);
void publish_session_lost(sluice_client *client);
/* How many bytes the next events of a batch have; *io_rest begins behind them. */
size_t publish_events_len(struct sluice_slice *io_rest, uint32_t count);
/* Halves a batch that was refused and so not applied. The numbers stay: the second half is a batch behind it.
 * False: it is one message, or is to be answered as one, or there is no memory. */
bool publish_batch_split(sluice_client *client, struct batch *batch);
bool text_set(char **io,
	      const char *text); /* a copy, or what it is already; NULL stays NULL; false: no memory */
void publish_due(sluice_client *client, uint64_t now, uint64_t *io_next);
void publish_end(sluice_client *client, int code);
void publish_free(sluice_client *client);
bool publish_settled(const sluice_client *client);

/* publish/txn.c */
void txns_send(sluice_client *client);
void txns_session_lost(sluice_client *client);
void txns_due(sluice_client *client, uint64_t now, uint64_t *io_next);
void txns_end(sluice_client *client, int code);

/* sub/ */
void subs_open(sluice_client *client); /* after a connect */
void subs_broken(sluice_client *client, bool session_lost);
/* What was not delivered to the application goes back, and no more comes; waits until the broker has confirmed that. */
void subs_give_back(sluice_client *client, uint64_t deadline_ms);
void subs_flush(sluice_client *client); /* gathered acks, credit owed */
void subs_due(sluice_client *client, uint64_t now, uint64_t *io_next);
/* False: there was no memory for it; the same frame comes again, and client->taken says how much of it was taken. */
bool sub_on_deliver(sluice_client *client, struct sluice_slice body);
bool sub_on_notice(sluice_client *client, const Sluice__Notice *notice);
void subs_end(sluice_client *client, int code);
/* Number of the stream that this client follows under the name; 0: none, or several. */
uint64_t subs_stream_id(const sluice_client *client, const char *name);
/* Closed by the application: no callback comes from it any more. Freed now, or when nobody looks at it any more. */
void sub_retire(sluice_sub *sub);
void sub_free(sluice_sub *sub);
void subs_reap(sluice_client *client); /* of the retired, those that may go; all when the client is closed */
void sub_job_gone(sluice_client *client, const char *job, sluice_token token);

#endif
