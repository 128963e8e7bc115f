/* SPDX-License-Identifier: Apache-2.0
 * Subscriptions: followers and consumers. For conn_io.c, conn.c, io/ and the protocols. */
#ifndef SLUICE_NET_SUB_H
#define SLUICE_NET_SUB_H

#include "broker/engine/engine.h"
#include "broker/util/hash.h"

struct conn;
struct io;

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
	/* By the client: kept for what was granted before the engine knew, and for acks; then it is
	 * in conn->closed. */
	bool closed;
	bool close_unanswered;
	/* follow */
	uint64_t log;
	uint64_t next; /* offset */
	uint64_t credit;
	bool raw;
	bool caught_up_sent;
	bool listed;			   /* in io->pumps */
	char *filter;			   /* NULL: all */
	struct sub *pump_prev, *pump_next; /* to be pumped; closed: in conn->closed */
	UT_hash_handle hh_tag;
	UT_hash_handle hh_number; /* in its connection */
};
/* A stream with its followers, or a queue with its consumers: an event of it costs them and no
 * others. */
struct followed {
	struct sub_key key;
	struct sub *subs;
	UT_hash_handle hh;
};

/* The cost of a segment besides its bytes: one that the filter leaves out is read, too. */
enum { SEGMENT_READ_COST = 256 };

/* An open one; NULL: none. */
struct sub *sub_find(struct conn *conn, uint64_t number);
/* A consumer that is open, or that was closed not long ago: its grants may still be settled. */
struct sub *sub_find_settling(struct conn *conn, uint64_t number);
int sub_add(struct conn *conn, struct sub **sub, uint64_t number) SLUICE_MUST_USE; /* takes it */
/* Makes a consumer known to the engine. NOMEM: it is not, and the number is free again. */
int sub_consume(struct sub *sub, struct consumer_spec *spec) SLUICE_MUST_USE;
/* The client closed it. A consumer stays for a while: grants that still come for it were not seen
 * by the client, and go back uncounted. */
void sub_close(struct sub *sub);
void sub_drop(struct sub *sub);

/* The subscriptions of that kind to a stream or queue, a list by peer_next; NULL: none. */
struct sub *subs_of(struct io *io, enum sub_kind kind, uint32_t gateway, uint64_t id);
void subs_log_grown(struct io *io, uint32_t gateway, uint64_t stream);
void sub_wants_pump(struct sub *sub);
void subs_pump(struct io *io);
/* Once the connection is full, nothing more is claimed for any of its consumers; and again once it
 * has drained. */
void subs_pause_if_full(struct conn *conn);
void subs_resume(struct conn *conn);

#endif
