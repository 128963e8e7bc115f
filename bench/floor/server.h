/* SPDX-License-Identifier: Apache-2.0
 *
 * sluice-floor-server: bare LMDB behind bare sockets. Shared by server.c (options, the loop), server_conn.c
 * (sockets, frames) and server_table.c (records).
 *
 * One thread; nothing blocks but epoll_wait and mdb_txn_commit. A failure of the environment ends the program
 * (floor_die), a client's mistake only its connection. A table's `end` runs ahead of `durable` within a
 * transaction; nothing at or above `durable` is answered or delivered.
 */
#ifndef FLOOR_SERVER_H
#define FLOOR_SERVER_H

#include "floor.h"
#include "wire.h"

enum {
	SERVER_BATCH_BYTES = 16 << 20, /* taken from the sockets for one transaction */
	SERVER_READ_BYTES =
		256 << 10, /* one read: what is put in the store is still in the processor's cache */
	SERVER_PAGE_BYTES = 256 << 10, /* one write to a follower */
	SERVER_TURN_BYTES = 4 << 20,   /* written to a connection before the others have a turn */
	SERVER_TAIL_KEEP = 64 << 10,   /* a connection keeps a buffer up to this size */
	SERVER_EVENTS = 256,
};

#define SERVER_MAP_BYTES ((size_t)64 << 30)

enum server_mode { SERVER_RECORD, SERVER_SEGMENT, SERVER_ECHO };

struct conn;

/* Records by number. [first, first + count) */
struct range {
	uint64_t first, count;
};

struct ranges {
	struct range *at;
	size_t head, end, room; /* at[head] to at[end - 1] */
};

struct table {
	struct table *next;
	struct conn *readers; /* followers and workers */
	MDB_cursor *append;   /* of the transaction under way, or NULL */
	MDB_cursor *erase;    /* the same */
	MDB_dbi dbi;
	uint64_t end;	    /* number of the next record */
	uint64_t durable;   /* `end` at the last commit */
	uint64_t given;	    /* queue: items below it have been delivered, but for `back` */
	struct ranges back; /* queue: what workers held that went away */
	bool queue;
	bool has_new; /* there is something for its readers since the last delivery */
	char name[FLOOR_NAME_BYTES];
};

/* Records of one table as they go over the wire: followers at the same place share them. */
struct page {
	struct table *table;
	uint64_t from, to;
	size_t bytes;
	uint8_t *buf; /* SERVER_PAGE_BYTES, or more for one large record */
	size_t room;
};

struct conn {
	int fd;		      /* -1: closed, and freed at the end of the turn */
	enum floor_role role; /* 0: no hello yet */
	struct table *table;
	struct conn *next_reader;
	struct conn *next_touched; /* in server.touched if `touched`; in server.dead once closed */
	bool touched, want_out, unanswered;
	uint32_t body_bytes;

	/* what comes */
	uint8_t small[sizeof(struct floor_hello)]; /* the begin of a hello, a length or an ack */
	unsigned small_have;
	uint8_t *unit; /* of a unit that has come in part */
	size_t unit_bytes, unit_have, unit_room;
	uint64_t count; /* PUBLISH, PUT: units; WORK: bytes acked */

	/* what goes */
	uint8_t *out;
	size_t out_at, out_end, out_room;
	uint64_t place; /* FOLLOW: the next record to send */

	/* WORK */
	uint64_t window_bytes, sent_bytes, erased_bytes;
	struct ranges held;
};

struct server {
	enum server_mode mode;
	MDB_env *env;
	MDB_txn *txn;	 /* the batch; NULL: nothing has come */
	MDB_txn *reader; /* reset between turns */
	bool reading;
	struct table *tables;
	struct page page;
	int epoll, listener;
	bool deaf; /* no descriptor was left: the listener waits for a connection to close */
	size_t batch_bytes, last_bytes; /* taken for this transaction, for the one before */
	struct conn *touched;		/* to be answered after the commit */
	struct conn *dead;
	uint8_t in[SERVER_READ_BYTES];
};

/* ---- server_table.c ---- */

void server_store_open(struct server *, const char *dir);
/* The table, made if it is not there; lives as long as the server. */
struct table *table_open(struct server *, const char *name, bool queue);
/* Within the batch's transaction, which is begun if need be. */
void table_append(struct server *, struct table *, const void *bytes, size_t len);
/* Deletes what the worker has acked, within the batch's transaction. false: the ack does not fit what was
 * delivered. */
bool table_erase(struct server *, struct conn *worker);
void server_commit(struct server *);
/* server->page becomes records [from, to) of what is durable, to being what fits. false: there is none. */
bool table_page(struct server *, struct table *, uint64_t from);
/* Appends items that a worker may be given to server->page, which begins empty; false: none. They are the
 * worker's then. */
bool table_take(struct server *, struct conn *worker);
/* What a worker holds is to be delivered again. */
void table_give_back(struct conn *worker);
void server_reader_end(struct server *);

/* ---- server_conn.c ---- */

void conn_accept(struct server *);
void conn_event(struct server *, struct conn *, uint32_t events);
/* Before a commit: the deletions that workers have asked for. */
void server_erase(struct server *);
/* After it: answers whoever had a part in it, and delivers what is new. */
void server_answer(struct server *);
/* Frees the connections that were closed in this turn. */
void server_bury(struct server *);

#endif
