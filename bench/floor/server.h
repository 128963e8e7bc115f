/* SPDX-License-Identifier: Apache-2.0
 *
 * sluice-floor-server: bare LMDB behind bare sockets. Shared by server.c (options, the loop),
 * server_conn.c (sockets, frames) and server_table.c (records).
 *
 * One thread; nothing blocks but epoll_wait and mdb_txn_commit. A failure of the environment ends
 * the program (floor_die), a client's mistake only its connection. A table's `end` runs ahead of
 * `durable` within a transaction; nothing at or above `durable` is answered or delivered.
 */
#ifndef FLOOR_SERVER_H
#define FLOOR_SERVER_H

#include "floor.h"
#include "wire.h"

enum {
	SERVER_BATCH_BYTES = 16 << 20, /* read from the sockets for one transaction */
	/* one read: the bytes put into the store are still in the processor's cache */
	SERVER_READ_BYTES = 256 << 10,
	SERVER_PAGE_BYTES = 256 << 10, /* one write to a follower */
	SERVER_TURN_BYTES = 4 << 20, /* written to a connection before the others get their turn */
	SERVER_TAIL_KEEP = 64 << 10, /* a connection keeps a buffer up to this size */
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
	MDB_cursor *append;   /* of the current transaction, or NULL */
	MDB_cursor *erase;    /* the same */
	MDB_dbi dbi;
	uint64_t end;	    /* number of the next record */
	uint64_t durable;   /* `end` at the last commit */
	uint64_t given;	    /* queue: items below it have been delivered, except those in `back` */
	struct ranges back; /* queue: to be delivered again: their worker has gone */
	bool queue;
	bool has_new; /* records for its readers were added since the last delivery */
	char name[FLOOR_NAME_BYTES];
};

/* Records of one table as sent: followers at the same position share them. */
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

	/* ---- input ---- */
	/* the beginning of a hello, a length or an ack */
	uint8_t small[sizeof(struct floor_hello)];
	unsigned small_have;
	uint8_t *unit; /* of a unit that was received in part */
	size_t unit_bytes, unit_have, unit_room;
	uint64_t count; /* PUBLISH, PUT: units; WORK: bytes acked */

	/* ---- output ---- */
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
	MDB_txn *txn;	 /* the batch; NULL: nothing was received */
	MDB_txn *reader; /* reset between turns */
	bool reading;
	struct table *tables;
	struct page page;
	int epoll, listener;
	bool deaf; /* no descriptor was left: the listener waits until a connection closes */
	size_t batch_bytes, last_bytes; /* bytes in this transaction, and in the one before */
	struct conn *touched;		/* to be answered after the commit */
	struct conn *dead;
	uint8_t in[SERVER_READ_BYTES];
};

/* ---- server_table.c ---- */

void server_store_open(struct server *, const char *dir);
/* The table, created if it does not exist; lives as long as the server. */
struct table *table_open(struct server *, const char *name, bool queue);
/* Within the batch's transaction, which is begun if necessary. */
void table_append(struct server *, struct table *, const void *bytes, size_t len);
/* Deletes the items that the worker has acked, within the batch's transaction. false: the ack does
 * not match the deliveries. */
bool table_erase(struct server *, struct conn *worker);
void server_commit(struct server *);
/* server->page becomes the durable records [from, to), as far as they fit. false: there is none. */
bool table_page(struct server *, struct table *, uint64_t from);
/* Appends items for a worker to server->page, which begins empty; false: none. The worker holds
 * them then. */
bool table_take(struct server *, struct conn *worker);
/* The items that a worker holds are to be delivered again. */
void table_give_back(struct conn *worker);
void server_reader_end(struct server *);

/* ---- server_conn.c ---- */

void conn_accept(struct server *);
void conn_event(struct server *, struct conn *, uint32_t events);
/* Before a commit: the deletions that workers have requested. */
void server_erase(struct server *);
/* After a commit: answers its senders, and delivers new records. */
void server_answer(struct server *);
/* Frees the connections that were closed in this turn. */
void server_bury(struct server *);

#endif
