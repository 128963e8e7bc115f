/* SPDX-License-Identifier: Apache-2.0
 *
 * The structs of broker/net: a connection, an I/O thread, all threads together. Each group of
 * members names the file that owns it and keeps its invariants. Files above it only remove entries
 * from its lists (release.c: an answered command; io.c: a connection whose turn it is; conn.c: a
 * freed connection), or are named at the member. All members belong to the thread of the connection
 * except the notes (lock) and the counters (atomic). For the files of broker/net.
 */
#ifndef SLUICE_NET_INTERNAL_H
#define SLUICE_NET_INTERNAL_H

#include <pthread.h>

#include <event2/buffer.h>
#include <event2/event.h>

#include "broker/engine/engine.h"
#include "broker/net/conn/config.h"
#include "broker/net/conn/wheel.h"
#include "broker/util/hash.h"

struct answer;
struct closing;
struct deferred;
struct door_buf;
struct followed;
struct held_session;
struct handshake_address;
struct instance;
struct instances;
struct io;
struct io_note;
struct listen_socket;
struct net;
struct pending;
struct protocol_ops;
struct reading;
struct sub;
struct tls;
struct tls_end;
struct waited;
struct waiter;
struct wire_ops;

/* A listening socket, as its connections know it; the rest is in io/listen.c. */
struct listening {
	uint32_t connections_max; /* 0: no bound of its own */
	_Atomic uint64_t connections;
	struct tls *tls; /* NULL: plain */
};

/* A connected socket on its way to its thread. */
struct arrival {
	const struct protocol_ops *protocol;
	const void *listener;
	struct listening *listening; /* that accepted it; NULL: none did (net_adopt) */
	int fd;
};

struct conn {
	/* ---- conn.c ---- */
	uint64_t id;
	struct io *io;
	UT_hash_handle hh; /* in io->conns */
	uint64_t opened_ms;
	char address[48];	       /* of the peer, as text; empty: not known */
	struct wheel_entry due;	       /* when it may have been silent for too long */
	struct held_session *sessions; /* sessions.c; and */
	struct held_session *own;      /* the first one that is attached; NULL: none */
	uint32_t session_count;
	/* of submission.share, while commands are under way: their order is kept over its sessions
	 */
	uint64_t share;
	/* ---- admit.c ---- */
	bool admitted; /* the next call to the engine or the store was asked for */
	struct {       /* the last verdict that granted */
		const char *permission;
		uint64_t security; /* io->security when it was made */
		uint8_t on_bytes;
		uint8_t on[63];
	} granted;
	uint64_t ordinal;	  /* of the last command */
	struct pending *pendings; /* in order */
	/* Commands, reads that wait for them, answers that wait for a release. Each file that lists
	 * one of them counts it here. */
	uint64_t pending_count, pending_bytes;
	/* Of pending_bytes: of requests that wait for commands, or for their turn. They count as
	 * input of all connections, too (state.c). */
	uint64_t request_bytes;

	/* ---- the protocol's ---- */
	const struct protocol_ops *protocol;
	const void *listener;	     /* the listener of its port */
	struct listening *listening; /* that accepted it; NULL: none did */
	void *state;
	uint32_t gateway; /* 0: no HELLO yet */
	bool idle_set;
	uint32_t idle_ms;	   /* while idle_set; 0: no limit */
	struct event *timer;	   /* NULL: never used */
	uint64_t timer_ms;	   /* 0: not set */
	struct instance *instance; /* of its client; NULL: the client sent no instance */
	bool held;		   /* waits for an answer before it parses more */
	/* the protocol needs this number of bytes before it parses again; 0: any number */
	size_t wanted;
	bool delivering; /* writes a delivery: the broker can hold back further ones */

	/* ---- state.c ---- */
	const char *why;      /* reason of its end, for the log; NULL: none yet */
	bool closing;	      /* flush, then close */
	uint64_t close_by_ms; /* while closing */
	bool dead;	      /* freed at the end of the round */
	struct conn *dead_next;
	bool reading;
	bool is_stopped; /* not read from: in io->stopped, or in io->starved */
	bool starved;	 /* in io->starved: there is no memory for its input */
	struct conn *stopped_prev, *stopped_next;
	bool blocked; /* the inbox was full, or there was no memory: the same bytes are tried again
		       */
	struct conn *blocked_prev, *blocked_next;
	bool waits_inbox;  /* blocked outside of `bytes`: told when it is tried again */
	bool waits_output; /* door_write has returned BUSY */
	bool unflushed;	   /* in io->unflushed */
	struct conn *flush_prev, *flush_next;
	/* of the unsent bytes: answers and notices, approximately; output.c subtracts */
	size_t unsent_answers;

	/* ---- conn_io.c ---- */
	int fd;
	struct event *readable, *writable;
	bool in_round; /* in io->rounds: it was given bytes, and its protocol wants to know the end
			*/
	struct conn *round_prev, *round_next;
	bool lingering; /* it is told the end, and what it sends is dropped */
	/* last sign of life: bytes in, or output accepted while the broker does not read (io.c) */
	uint64_t active_ms;
	size_t unsent_seen; /* at the last run of io->timer; io.c */

	/* ---- output.c ---- */
	struct evbuffer *out;
	bool writing; /* waits for its socket */

	/* ---- input.c ---- */
	struct door_buf *kept; /* input that is not parsed yet: kept_start to kept_end */
	size_t kept_start, kept_end;
	uint64_t received;	/* bytes, in all */
	uint64_t received_seen; /* at the last look of conns_press() */
	bool keeps;		/* in io->keeping: it has that buffer */
	struct conn *keep_prev, *keep_next;
	bool parsing; /* the protocol is parsing its bytes */
	/* it continues in the next round, after others were served; io.c resets it */
	bool turn_over;

	/* ---- bufs.c ---- */
	struct door_buf *bufs;
	uint64_t buf_bytes;
	/* ---- wire.c, tls.c ---- */
	const struct wire_ops *wire;
	struct tls_end *tls; /* NULL: plain, or ended */
	bool handshaking;    /* nothing is read or written yet */
	bool wire_waits;     /* the handshake waits until the socket takes bytes */
	bool shake_turn;     /* it is its turn to continue; conn_io.c sets it */

	/* ---- sub.c ---- */
	struct sub *subs; /* by number */
	/* consumers that were closed, the oldest first; no longer in subs */
	struct sub *closed, *ended;
	uint32_t closed_count, ended_count;
	bool subs_paused; /* claims for its consumers are paused until the output drains */

	/* ---- order.c ---- */
	struct deferred *deferred; /* requests that wait for commands, in order */

	/* ---- reading.c ---- */
	struct reading *readings; /* reads under way, in order; the first may be begun */
	bool is_reader;		  /* in io->readers */
	struct conn *reader_prev, *reader_next;

	/* ---- answer.c, wait.c ---- */
	struct answer *answers;
	struct waiter *waiters;
	uint64_t waiter_count;
};

/* Input that a protocol is given now (bufs.h). */
struct given {
	struct conn *conn; /* NULL: none */
	struct door_buf *input;
	const uint8_t *bytes, *at; /* of input, at first; where they lie now */
	size_t len;
	bool fresh;
	struct door_buf *taken; /* NULL: not taken */
};

/* An effect for a session scans one list: the end of ten thousand sessions must not scan every
 * connection for each of them. */
enum { SESSION_LISTS = 1024 };

struct io {
	/* ---- io.c ---- */
	struct engine_sink sink; /* first: a sink is its thread */
	struct net *net;
	struct engine *engine;
	struct event_base *base;
	struct event *wake;  /* eventfd */
	struct event *timer; /* every TIMER_MS: silent connections, input buffers, a round */
	struct event *again; /* another round, after the sockets; state.c arms it */
	int wake_fd;
	pthread_t thread;
	bool runs;
	pthread_mutex_t lock;
	struct io_note *notes, **notes_tail; /* lock */
	bool stop;			     /* lock */
	bool draining;			     /* nothing is read any more */
	bool drained;			     /* they have closed, or had time to */
	bool drain_told;		     /* all is answered, and the peers are told */
	bool lingering;			     /* all is answered and sent; peers are told the end */
	uint64_t drain_unsent, drain_moved_ms; /* unsent output, and when it last changed */
	struct wheel lives; /* of connections: when each is to be checked again; conn.c sets them */
	uint64_t lives_checked; /* for tests: connections that on_timer() checked */
	uint64_t timer_ms;	/* of the last on_timer() */
	/* number of the last release that was handled; at first, of the last commit; release.c */
	uint64_t released;

	/* ---- security.c ---- */
	/* Version of the rules that this thread's verdicts are made of; raised by what takes rights
	 * away; and the last one that it has reported. */
	uint64_t security, security_reported;
	uint64_t under_way, older; /* of those: admitted by an older version */

	/* ---- conn.c ---- */
	struct conn *conns;			      /* by id */
	struct held_session *sessions[SESSION_LISTS]; /* by number */
	struct held_session *next_held;		      /* of the effect for a session under way */
	struct held_session *touched;		      /* signs of life to be given */
	struct closing *closings;		      /* ephemeral sessions without a connection */
	bool engine_gone;	 /* it has stopped: nothing is detached any more */
	struct pending *orphans; /* of closed connections: freed with their answer, or at the end */
	uint64_t pendings;	 /* of all, orphans as well */
	uint64_t next_id;
	/* commands were submitted and the engine is not woken yet; conn_io.c wakes it */
	bool submitted;

	/* ---- state.c ---- */
	struct conn *blocked;
	/* not read from; scanned by each round, independent of the number of idle connections */
	struct conn *stopped;
	struct conn *starved;	/* wait for memory, in order; not scanned by each round */
	struct conn *unflushed; /* have unsent output of this round */
	struct conn *dead;
	uint64_t randoms[32]; /* several are read from the system at once */
	unsigned random_count;

	/* ---- conn_io.c ---- */
	struct conn *rounds;   /* were given bytes in this turn; input.c adds */
	struct conn *favoured; /* may keep input beyond the bound of all; NULL: none */

	/* ---- input.c ---- */
	struct conn *keeping;	/* connections that have an input buffer */
	struct door_buf *fresh; /* NET_READ_BYTES: the bytes of one read of a socket; may be NULL */
	uint64_t press_ms;	/* next look of conns_press(); 0: there is room */

	/* ---- bufs.c ---- */
	struct given given;
	struct door_buf *spares;
	uint32_t spare_count;

	/* ---- handshakes.c ---- */
	struct handshake_address *handshakes;	   /* unfinished ones, by address */
	struct handshake_address *handshake_turns; /* those with some that may continue */
	uint32_t handshake_count;
	uint64_t handshake_number; /* of the last */

	/* ---- sub.c ---- */
	struct sub *subs;	   /* by tag */
	struct followed *followed; /* streams */
	struct followed *consumed; /* queues */
	struct followed *deleted;  /* of both: with subscriptions that are to end */
	struct sub *pumps;
	struct sub *gone; /* consumers without a connection, until their last event */
	uint64_t next_tag;
	uint64_t pump_cost; /* of followers in this round of the loop; io.c resets it */
	/* for tests: subscriptions that events of their stream or queue reached */
	uint64_t subs_visited;

	/* ---- reading.c ---- */
	struct conn *readers;	 /* connections whose first read waits for its turn */
	uint64_t readings_begun; /* reads that keep rows between two turns */
	uint64_t round_cost;	 /* of reads in this round of the loop; wait.c adds its own */

	/* ---- answer.c, wait.c ---- */
	struct answer *answers;	  /* in the order of their numbers, then of arrival */
	struct waited *waited;	  /* jobs, by gateway and id */
	struct wheel waits;	  /* deadlines of waiters */
	uint64_t waiters_visited; /* for tests: the cost of the ends of jobs */
};

struct net {
	struct net_config config;
	struct engine *engine;
	struct io *ios;
	uint32_t io_count;
	uint64_t started_ms;
	_Atomic uint32_t next_io; /* gets the next connection */
	_Atomic uint64_t connections;
	_Atomic uint64_t unsent;       /* of all connections */
	_Atomic uint64_t input;	       /* memory of bufs, of all connections */
	_Atomic uint64_t subs;	       /* of all connections; sub.c */
	struct listen_socket *sockets; /* io/listen.c */
	struct instances *instances;
	/* ---- io.c: the threads that have not drained yet ---- */
	pthread_mutex_t drain_lock;
	pthread_cond_t drain_done;
	uint32_t drain_left;	/* drain_lock */
	uint64_t security;	/* drain_lock; version of the rules */
	uint32_t security_left; /* drain_lock; threads that have not reported it */
};

#endif
