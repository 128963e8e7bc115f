/* SPDX-License-Identifier: Apache-2.0
 *
 * The structs that broker/net is made of: a connection, an I/O thread, all threads together. Each
 * group of members names the file that owns it and keeps its invariants. Files above it only take
 * entries out of its lists (release.c: a command that was answered; io.c: a connection whose turn
 * it is; conn.c: one that is freed), or are named at the member. Everything belongs to the thread
 * of the connection but the notes (lock) and the counters (atomic). For the files of broker/net.
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
struct deferred_read;
struct followed;
struct instance;
struct instances;
struct io;
struct io_note;
struct listening;
struct net;
struct pending;
struct protocol_ops;
struct reading;
struct sub;
struct waited;
struct waiter;

struct conn {
	/* ---- conn.c ---- */
	uint64_t id;
	struct io *io;
	UT_hash_handle hh; /* in io->conns */
	uint64_t opened_ms;
	char address[48];			  /* of the peer, as text; empty: not known */
	struct wheel_entry due;			  /* when it may have been silent for too long */
	struct conn *session_prev, *session_next; /* while session is not 0 */
	uint64_t session;
	bool attached;
	uint64_t ordinal;	  /* of the last command */
	struct pending *pendings; /* in order */
	/* Commands, reads that wait for them, answers that wait for a release. Each file that lists
	 * one of them counts it here. */
	uint64_t pending_count, pending_bytes;

	/* ---- the protocol's ---- */
	const struct protocol_ops *protocol;
	const void *listener; /* what its port was opened with */
	void *state;
	uint32_t gateway; /* 0: no HELLO yet */
	uint32_t session_timeout_ms;
	struct instance *instance; /* of its client; NULL: the client names none */
	bool used;		   /* its session did more than to be opened; conn.c and sub.c set it */
	bool held;		   /* waits for an answer before it parses on */
	size_t wanted;	 /* it is not asked before this number of bytes is there; 0: any number will do */
	bool delivering; /* writes a delivery, which the broker itself holds back */
	struct deferred_read *reads; /* in order; counted above; conn.c frees what is left */

	/* ---- state.c ---- */
	const char *why; /* it ends; NULL: it does not */
	bool closing;	 /* flush, then close */
	bool dead;	 /* freed at the end of the round */
	struct conn *dead_next;
	bool reading;
	bool is_stopped; /* not read from: in io->stopped */
	struct conn *stopped_prev, *stopped_next;
	bool blocked; /* the inbox was full, or there was no memory: the same bytes are tried again */
	struct conn *blocked_prev, *blocked_next;
	bool unflushed; /* in io->unflushed */
	struct conn *flush_prev, *flush_next;
	size_t unsent_answers; /* of what is unsent: answers and notices, about; conn_io.c takes off */

	/* ---- conn_io.c ---- */
	int fd;
	struct event *readable, *writable;
	struct evbuffer *out;
	uint8_t *kept; /* input that is not used yet: kept_start to kept_end of it */
	size_t kept_start, kept_end, kept_capacity;
	bool keeps; /* in io->keeping: it holds that buffer */
	struct conn *keep_prev, *keep_next;
	bool parsing;	    /* the protocol is given bytes */
	bool writing;	    /* waits for its socket */
	bool turn_over;	    /* it continues in the next round, when others were served; io.c resets it */
	uint64_t active_ms; /* last sign of life: bytes in, or output taken while nothing is read (io.c) */
	size_t unsent_seen; /* at the last timer; io.c */

	/* ---- sub.c ---- */
	struct sub *subs;   /* by number */
	struct sub *closed; /* consumers, the oldest first; no longer in subs */
	uint32_t closed_count;
	bool subs_paused; /* the engine claims nothing for its consumers until the output drains */

	/* ---- reading.c ---- */
	struct reading *readings; /* reads under way, in order; the first may be begun */
	bool is_reader;		  /* in io->readers */
	struct conn *reader_prev, *reader_next;

	/* ---- answer.c, wait.c ---- */
	struct answer *answers;
	struct waiter *waiters;
	uint64_t waiter_count;
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
	struct event *timer; /* heartbeats, deadlines of waiters, blocked connections */
	struct event *again; /* another round, after the sockets; state.c arms it */
	int wake_fd;
	pthread_t thread;
	bool runs;
	pthread_mutex_t lock;
	struct io_note *notes, **notes_tail; /* lock */
	bool stop;			     /* lock */
	struct wheel lives;	/* of connections: when each is to be checked again; conn.c sets them */
	uint64_t lives_checked; /* for tests: connections that a timer checked */
	uint64_t released;	/* sequence of the last release handled; release.c */

	/* ---- conn.c ---- */
	struct conn *conns;		      /* by id */
	struct conn *sessions[SESSION_LISTS]; /* those that have one, by its number */
	struct pending *orphans; /* of closed connections: freed with their answer, or at the end */
	uint64_t next_id;
	bool submitted; /* the engine is not woken yet for the commands it was given; conn_io.c wakes it */

	/* ---- state.c ---- */
	struct conn *blocked;
	struct conn *stopped;	/* not read from: scanned by each round, however many idle ones there are */
	struct conn *unflushed; /* have output that this round wrote */
	struct conn *dead;
	uint64_t randoms[32]; /* asked for together */
	unsigned random_count;

	/* ---- conn_io.c ---- */
	struct conn *keeping; /* those that hold a buffer of input */
	uint8_t *fresh;	      /* NET_READ_BYTES: the bytes of one read of a socket */

	/* ---- sub.c ---- */
	struct sub *subs;	   /* by tag */
	struct followed *followed; /* streams */
	struct followed *consumed; /* queues */
	struct sub *pumps;
	uint64_t next_tag;
	uint64_t pump_cost; /* of followers in this round of the loop; io.c resets it */

	/* ---- reading.c ---- */
	struct conn *readers;	 /* connections whose first read has a turn to come */
	uint64_t readings_begun; /* reads that keep rows between two turns */
	uint64_t round_cost;	 /* of reads in this round of the loop; wait.c adds its own */

	/* ---- answer.c, wait.c ---- */
	struct answer *answers;	  /* in order of arrival */
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
	_Atomic uint64_t unsent; /* of all connections */
	struct listening *listening;
	struct instances *instances;
};

#endif
