/* SPDX-License-Identifier: Apache-2.0
 *
 * An I/O thread's insides: its connections, what they wait for, and their subscriptions. Everything here is touched by that thread
 * only, but for the inbox (lock) and the counters (atomic).
 */
#ifndef SLUICE_NET_IO_H
#define SLUICE_NET_IO_H

#include <pthread.h>

#include <event2/buffer.h>
#include <event2/event.h>

#include "broker/net/conn/instance.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/net.h"
#include "broker/net/conn/wheel.h"
#include "broker/util/hash.h"
#include "protocol/message_block.h"
#include "sluice.pb-c.h"

struct io;
struct conn;

/* ---- pending: one command on its way to the engine ---- */
struct pending {
	struct conn *conn; /* NULL: it was closed meanwhile */
	uint64_t ordinal;  /* of its connection's commands */
	uint64_t bytes;
	uint64_t corr;
	uint32_t what;	/* the protocol's own */
	uint64_t extra; /* the protocol's own (a producer number) */
	struct pending *prev, *next;
};

/* ---- subscriptions ---- */
enum sub_kind { SUB_FOLLOW, SUB_CONSUME };
struct sub_key {
	uint64_t gateway;
	uint64_t id; /* of the stream or queue */
};
struct sub {
	uint64_t tag;	 /* unique in the thread: the engine's consumer tag */
	uint64_t number; /* unique in the connection: chosen by the client */
	enum sub_kind kind;
	struct conn *conn;
	struct sub_key key;
	struct sub *peer_prev, *peer_next; /* of the same kind, on the same stream or queue */
	/* consume */
	uint32_t queue_kind;
	bool opened; /* the engine knows it */
	bool closed; /* by the client: kept for what was granted before the engine knew, and for acks; then in conn->closed */
	bool close_unanswered;
	/* follow */
	uint64_t log;
	uint64_t next; /* offset */
	uint64_t credit;
	bool raw;
	bool caught_up_said;
	bool listed;			   /* in io->pumps */
	char *filter;			   /* NULL: all */
	struct sub *pump_prev, *pump_next; /* to be pumped; closed: in conn->closed */
	UT_hash_handle hh_tag;
	UT_hash_handle hh_number; /* in its connection */
};
/* A stream with its followers, or a queue with its consumers: what happens to it costs them and no others. */
struct followed {
	struct sub_key key;
	struct sub *subs;
	UT_hash_handle hh;
};

/* ---- deferred: a read or an answer that must wait ---- */
struct deferred {
	struct deferred *prev, *next;
	struct deferred *conn_prev, *conn_next; /* answer: of its connection */
	uint64_t ordinal;			/* read: runs when every command before it is answered */
	uint64_t sequence;			/* answer: goes when this release was handled */
	struct conn *conn;
	uint32_t corr;
	uint8_t *bytes; /* read: the packed Request; answer: the packed Reply */
	size_t len;
};

struct reading;
/* Waits for the end of a job: wait.c */
struct waited;
struct waiter {
	struct wheel_entry due; /* first: the wheel gives it back */
	struct waiter *prev, *next;
	struct waiter *conn_prev, *conn_next;
	struct waited *waited;
	struct conn *conn;
	uint32_t corr;
	uint64_t number; /* of the job: its id may be another's when the answer is made */
};

struct conn {
	uint64_t id;
	struct io *io;
	/* conn_io.c */
	int fd;
	struct event *readable, *writable;
	struct evbuffer *out;
	uint8_t *kept; /* what came and is not used yet: kept_start to kept_end of it */
	size_t kept_start, kept_end, kept_capacity;
	bool keeps; /* in io->keeping: it holds that buffer */
	struct conn *keep_prev, *keep_next;
	size_t told;	 /* of what is unsent: answers and notices, about */
	bool delivering; /* what is written is a delivery, which the broker itself holds back */
	bool parsing;	 /* the listener is given bytes */
	bool writing;	 /* waits for its socket */
	bool unflushed;	 /* in io->unflushed */
	struct conn *flush_prev, *flush_next;

	const struct protocol_ops *protocol;
	const void *listener; /* the protocol's own: what its port was opened with */
	void *state;	      /* the protocol's own */
	uint32_t gateway;     /* 0: no HELLO yet */
	uint64_t session;
	struct instance *instance; /* of its client; NULL: it does not say */
	uint32_t session_timeout_ms;
	bool attached;
	bool used;	  /* its session did more than to be opened */
	char address[48]; /* of the peer, as text; empty: not known */
	const char *why;  /* it ends; NULL: it does not */
	uint64_t opened_ms;
	bool closing; /* flush, then close */
	bool dead;    /* freed at the end of the round */
	bool blocked; /* the inbox was full, or there was no memory: the same bytes are tried again */
	bool held;    /* the protocol waits for an answer before it parses on */
	bool reading;
	size_t wanted; /* the listener is not asked before so many bytes are there; 0: any number will do */
	uint64_t active_ms; /* last sign of life: bytes in, or output taken while nothing is read */
	size_t unsent_seen; /* at the last beat */
	uint64_t preauth_bytes;
	uint64_t ordinal;
	uint64_t pending_count,
		pending_bytes; /* commands, reads that wait for them, answers that wait for a release */
	uint64_t waiter_count;
	struct pending *pendings; /* in order */
	struct deferred *reads;	  /* in order */
	struct deferred *answers_due;
	struct reading *readings; /* reading.c: reads under way, in order; the first may be begun */
	bool is_reader;		  /* in io->readers */
	struct conn *reader_prev, *reader_next;
	struct waiter *waiters;
	struct wheel_entry due; /* when it may have been silent for too long */
	struct sub *closed;	/* consumers, the oldest first; no longer in subs */
	uint32_t closed_count;
	struct sub *subs; /* by number */
	bool subs_paused; /* the engine claims nothing for its consumers until the output drains */
	struct conn *blocked_prev, *blocked_next;
	struct conn *stopped_prev, *stopped_next; /* in io->stopped while is_stopped */
	bool is_stopped;
	bool turn_over;				  /* it goes on in the next round, when others were served */
	struct conn *session_prev, *session_next; /* while session is not 0 */
	struct conn *dead_next;
	UT_hash_handle hh;
};

enum io_note_kind { IO_ADOPT, IO_RELEASE, IO_KICK };
struct io_note {
	struct io_note *next;
	enum io_note_kind kind;
	int fd;
	const struct protocol_ops *protocol;
	const void *listener;
	struct engine_release *release;
	uint64_t tag;
};

/* An effect for a session looks at one list: the end of ten thousand sessions must not look at each connection for each. */
enum { SESSION_LISTS = 1024 };

struct io {
	struct engine_sink sink; /* first: a sink is its thread */
	struct net *net;
	struct engine *engine;
	struct event_base *base;
	struct event *wake;  /* eventfd */
	struct event *beat;  /* heartbeats, waiters' deadlines, blocked connections */
	struct event *again; /* another round, when the sockets were looked at */
	int wake_fd;
	pthread_t thread;
	bool runs;
	pthread_mutex_t lock;
	struct io_note *notes, **notes_tail;
	bool stop;
	struct pending *orphans; /* of closed connections: freed when their answer comes, or at the end */

	struct conn *conns;		      /* by id */
	struct conn *sessions[SESSION_LISTS]; /* those that have one, by its number */
	struct conn *blocked;
	struct conn *
		stopped; /* those that are not read from: what a round looks at, however many idle ones there are */
	struct conn *keeping;	/* those that hold a buffer of input */
	struct conn *unflushed; /* have output that this round wrote */
	struct conn *dead;
	uint8_t *fresh;	      /* NET_READ_BYTES: what one read of a socket brings */
	bool submitted;	      /* the engine is not woken yet for what it was given */
	uint64_t randoms[32]; /* asked for together */
	unsigned random_count;
	struct sub *subs;	   /* by tag */
	struct followed *followed; /* streams */
	struct followed *consumed; /* queues */
	struct sub *pumps;
	struct conn *readers;	  /* connections whose first read has a turn to come */
	uint64_t readings_begun;  /* reads that keep rows between two turns */
	uint64_t round_cost;	  /* what reads have cost in this round of the loop */
	uint64_t pump_cost;	  /* and followers */
	struct deferred *answers; /* waiting for a release, in order of arrival */
	struct waited *waited;	  /* jobs, by gateway and id */
	struct wheel waits;	  /* deadlines of waiters */
	struct wheel lives;	  /* of connections: when each is to be looked at again */
	uint64_t lives_visited;	  /* for tests: connections that a beat looked at */
	uint64_t waiters_visited; /* for tests: what the ends of jobs have cost */
	uint64_t next_id, next_tag;
	uint64_t released; /* sequence of the last release handled */
};

struct net {
	struct net_config config;
	struct engine *engine;
	struct io *ios;
	uint32_t io_count;
	_Atomic uint32_t next_io;
	_Atomic uint64_t connections;
	_Atomic uint64_t unsent; /* of all connections */
	struct listening *listening;
	struct instances *instances;
};

/* ---- state.c ---- */
void conn_unlist(struct conn *conn); /* no longer in io->unflushed */
void conn_reading_set(struct conn *conn, bool reading);

/* ---- conn_io.c ---- */
enum { NET_READ_BYTES = 1 << 18 };
int conn_open(struct conn *conn) SLUICE_MUST_USE; /* over conn->fd; conn_shut is due whatever it returns */
void conn_shut(struct conn *conn);		  /* closes the socket, drops what was not sent */
void conn_stop_reading(struct conn *conn);
void conn_rest(struct conn *conn); /* now and then: without input under way it holds no buffer for it */
/* What the round submitted wakes the engine and what it wrote goes out: every callback of the loop ends with it. */
void conns_flush(struct io *io);

/* ---- conn.c ---- */
struct conn *conn_create(struct io *io, const struct protocol_ops *protocol, const void *listener,
			 int fd); /* NULL: closed already */
struct conn *conn_find(struct io *io, uint64_t id);
void conn_write(struct conn *conn, const void *bytes, size_t len);
size_t conn_unsent(const struct conn *conn);
/* No more output for now: its own bound is reached, or that of all connections and it has more than a little. on_write asks again. */
bool conn_is_full(const struct conn *conn);
/* The bytes that a listener has just refused to take are given to it again soon, whether others come or not. */
void conn_block(struct conn *conn);
/* why: of static storage, for the log; the first one stays. */
void conn_close_soon(struct conn *conn, const char *why); /* after what was written is flushed */
void conn_kill(struct conn *conn, const char *why);	  /* now: freed at the end of the round */
void conn_parse(struct conn *conn); /* feeds the listener what is buffered, unless held, blocked or dead */
bool conn_may_take(
	const struct conn *conn);  /* one more frame: what is pending and unsent is within the bounds */
void conn_flow(struct conn *conn); /* reading on or off, by what is pending and unsent */
void conns_reap(struct io *io);
/* Sends a command to the engine for this connection. takes the body block (malloc'd; also freed on error) that command's slices and struct live
 * in. BUSY: the connection is blocked and will be given the same bytes again. */
int conn_submit(struct conn *conn, const struct command *command, void *block, size_t bytes, bool control,
		uint32_t what, uint64_t corr, uint64_t extra) SLUICE_MUST_USE;
/* The same for a protobuf message that lives in block, which is taken (also on error). */
int conn_submit_message(struct conn *conn, uint16_t type, const ProtobufCMessage *message,
			struct message_block **block, size_t bytes, bool control, uint32_t what,
			uint64_t corr) SLUICE_MUST_USE;
/* Its time limit has changed, or begins: 10 s until HELLO, then its session's timeout. */
uint64_t conn_life_ms(const struct conn *conn); /* 0: none yet */
void conn_life_set(struct conn *conn);
int conn_attach(struct conn *conn, uint32_t gateway, uint64_t session, uint32_t timeout_ms) SLUICE_MUST_USE;
/* The peer's address for the log, "-" when it has none. Asks the system: not for the usual path. */
enum { PEER_TEXT_BYTES = 64 };
const char *conn_peer(int fd, char text[PEER_TEXT_BYTES]);
uint64_t random_u64(struct io *io);
struct conn **conn_session_list(struct io *io, uint64_t session);

/* ---- sub.c: followers and consumers ---- */
enum {
	SEGMENT_READ_COST = 256
}; /* of a segment, besides its bytes: one that the filter leaves out is read, too */
/* An open one; NULL: none. */
struct sub *sub_find(struct conn *conn, uint64_t number);
/* A consumer that is open, or that was closed not long ago: its grants may still be settled. */
struct sub *sub_find_settling(struct conn *conn, uint64_t number);
/* The client closed it. A consumer stays for a while: what it is given still, nobody was told of, and it goes back uncounted. */
void sub_close(struct sub *sub);
int sub_add(struct conn *conn, struct sub **sub, uint64_t number) SLUICE_MUST_USE; /* takes it */
void sub_drop(struct sub *sub);
/* Has the engine know a consumer. NOMEM: it does not, and the number is free again. */
int sub_consume(struct sub *sub, struct consumer_spec *spec) SLUICE_MUST_USE;
void subs_log_grown(struct io *io, uint32_t gateway, uint64_t stream);
/* The subscriptions of that kind to a stream or queue, a list by peer_next; NULL: none. */
struct sub *subs_of(struct io *io, enum sub_kind kind, uint32_t gateway, uint64_t id);
void sub_wants_pump(struct sub *sub);
/* Once the connection is full, nothing more is claimed for any of its consumers; and again once it has drained. */
void subs_pause_if_full(struct conn *conn);
void subs_resume(struct conn *conn);
void subs_pump(struct io *io);

/* ---- reading.c: reads in turns ---- */
/* Answers a read, now or in turns; each exactly once. takes block, in which request lies. corr: the correlation number, or a foreign
 * listener's tag. NOMEM: it is not answered. */
int reading_start(struct conn *conn, uint64_t corr, struct message_block **block,
		  const Sluice__Request *request, size_t bytes) SLUICE_MUST_USE;
void readings_run(struct io *io);	 /* once a round */
void readings_resume(struct conn *conn); /* its output has drained */
void readings_drop(struct conn *conn);

/* ---- answer.c: replies that wait for a release ---- */
/* Gives a packed Reply to conn->protocol->answer, now or when the release of `sequence` was handled.
 * takes reply. */
void answer_when_released(struct conn *conn, uint32_t corr, uint8_t *reply, size_t len, uint64_t sequence);
void answers_flush(struct io *io); /* those whose release was handled */
void answers_drop(struct conn *conn);

/* ---- wait.c: waits for the end of a job ---- */
/* The job as it is in a snapshot of this moment; ret->reply is the caller's. */
void job_show(struct conn *conn, const char *job, struct job_shown *ret);
/* conn->protocol->job_ended or wait_timeout is called once, unless the connection ends before. number:
 * of the job. timeout_ms 0: none. NOMEM. */
int wait_add(struct conn *conn, uint32_t corr, const char *job, uint64_t number,
	     uint64_t timeout_ms) SLUICE_MUST_USE;
const char *wait_job(const struct waiter *waiter); /* the id of its job */
void waits_job_ended(struct io *io, const struct effect *effect);
void waits_due(struct io *io, uint64_t now_ms);
void waits_drop(struct conn *conn);

/* For another thread's loop; copied. */
void io_note(struct io *io, const struct io_note *note);
int io_init(struct io *io, struct net *net) SLUICE_MUST_USE;
void *io_run(void *user); /* a thread's function; user: its struct io */
void io_fini(struct io *io);
/* release.c */
void release_handle(struct io *io, struct engine_release *release);
/* listen.c */
void listeners_close(struct net *net);
/* Another round is due at once, after what the sockets have. */
void io_again(struct io *io);
uint64_t io_now_ms(void);

#endif
