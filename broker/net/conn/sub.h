/* SPDX-License-Identifier: Apache-2.0
 * Subscriptions: followers and consumers. For door_sub.c, conn_io.c, conn.c and io/. */
#ifndef SLUICE_NET_SUB_H
#define SLUICE_NET_SUB_H

#include "broker/engine/engine.h"
#include "broker/net/conn/door.h"
#include "broker/util/hash.h"

struct conn;
struct io;

struct sub_key {
	uint64_t gateway;
	uint64_t id; /* of the stream or queue */
};
struct sub {
	uint64_t tag;	 /* unique in the thread: the engine's consumer tag */
	uint64_t number; /* unique in the connection: chosen by the client */
	enum door_sub_kind kind;
	struct conn *conn;
	struct sub_key key;
	struct sluice_slice name;	   /* of the stream or queue; owned */
	struct followed *followed;	   /* while it is open */
	struct sub *peer_prev, *peer_next; /* of the same kind, on the same stream or queue */
	/* ---- of a consumer ---- */
	uint32_t queue_kind;
	bool opened;	   /* the engine has the consumer */
	bool leaving;	   /* closed at the engine: under way until its last event; and */
	uint64_t security; /* what under_way_done is told then */
	uint64_t session;
	/* Closed by the client. In conn->closed: grants that were made before the engine saw the
	 * close may still come. ended: in conn->ended, none comes any more; kept for acks. */
	bool closed, ended;
	/* ---- of a follower ---- */
	uint64_t log;
	uint64_t shows; /* the commit that its answer shows: events follow the answer; 0: none */
	uint64_t next;	/* offset */
	uint64_t limit; /* offset: events from here on are of releases that were not handled */
	uint64_t credit;
	bool raw;
	bool caught_up_sent;
	bool listed;			   /* in io->pumps */
	char *filter;			   /* NULL: all */
	struct sub *pump_prev, *pump_next; /* to be pumped; closed: in that list */
	/* The protocol is called with this follower; it may end it meanwhile. */
	bool pumped;
	bool ending; /* ended, and dropped when the protocol returns */
	/* version of the rules that its right was checked by; security.c */
	uint64_t checked;
	UT_hash_handle hh_tag;
	UT_hash_handle hh_number; /* in its connection */
};
/* A stream with its followers, or a queue with its consumers: an event costs only the subscriptions
 * that it concerns. */
struct followed {
	struct sub_key key;
	struct sub *subs;
	bool deleted;		      /* in io->deleted, and not found by its key any more */
	struct followed *prev, *next; /* in that list */
	UT_hash_handle hh;
};

/* The open subscription with this number; NULL: none. */
struct sub *sub_find(const struct conn *conn, uint64_t number);
/* A consumer that is open or was closed recently: its grants may still be settled. */
struct sub *sub_find_settling(const struct conn *conn, uint64_t number);
int sub_add(struct conn *conn, struct sub **sub, uint64_t number) SLUICE_MUST_USE; /* takes *sub */
/* Opens a consumer at the engine. NOMEM: it was not opened, and the number is free again. */
int sub_consume(struct sub *sub, struct consumer_spec *spec) SLUICE_MUST_USE;
/* The client closed it. A consumer is kept until sub_ended: grants that arrive before that were not
 * seen by the client, and are given back uncounted. After that only its number is known, for
 * items that it was given before. */
void sub_close(struct sub *sub);
/* The engine's last event of a consumer that was closed: all its grants were handled. */
void sub_ended(struct io *io, uint64_t tag);
/* One whose last event has not come is kept for it, without its connection. */
void sub_drop(struct sub *sub);
/* The broker ends it: notifies the protocol, which may end other subscriptions in this call. The
 * caller drops or closes it. */
void sub_end_notify(struct sub *sub, int code, const char *text);
const char *sub_permission(const struct sub *sub); /* that it needs */

/* The subscriptions of that kind to a stream or queue, a list by peer_next; NULL: none. */
struct sub *subs_of(struct io *io, enum door_sub_kind kind, uint32_t gateway, uint64_t id);
/* A release says that the stream ends before this offset now. Its events follow the release. */
void subs_log_grown(struct io *io, uint32_t gateway, uint64_t stream, uint64_t next_offset);
/* A stream or queue was deleted: its subscriptions end, a part of them in each round. Whatever else
 * is given to a connection comes behind the ends of its own. */
void subs_deleted(struct io *io, enum door_sub_kind kind, uint32_t gateway, uint64_t id);
void subs_end(struct io *io);	     /* the part of a round */
void subs_end_of(struct conn *conn); /* all of a connection */
void sub_wants_pump(struct sub *sub);
void subs_pump(struct io *io);
/* When the engine has stopped and no connection is left. */
void subs_fini(struct io *io);
/* Pauses the claims for all consumers of the connection when its output is full; resumes them when
 * it has drained. */
void subs_pause_if_full(struct conn *conn);
void subs_resume(struct conn *conn);

#endif
