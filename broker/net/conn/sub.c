/* SPDX-License-Identifier: Apache-2.0
 *
 * Subscriptions: consumers (the engine keeps their credit) and followers, which read their stream
 * from short snapshots on the I/O thread. A follower is pumped while it has credit and its
 * connection takes output; at the end of the stream it is sent CAUGHT_UP once and then waits for
 * FX_LOG_GROWN. No snapshot is held across a socket write.
 */
#include "broker/net/conn/sub.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/under_way.h"
#include "broker/net/conn/state.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "protocol/limits.h"

/* Bytes of one snapshot for one follower before the next one's turn. */
enum { PUMP_BYTES = 1 << 20 };
/* Bytes for all followers before the sockets are served again; a turn costs TURN_COST at least. */
enum { PUMP_ROUND_BYTES = 4 << 20, TURN_COST = 1024 };

const char *sub_permission(const struct sub *sub)
{
	return sub->kind == DOOR_FOLLOW ? "stream.read" : "queue.claim";
}

struct sub *sub_find(const struct conn *conn, uint64_t number)
{
	struct sub *sub;

	HASH_FIND(hh_number, conn->subs, &number, sizeof(number), sub);
	return sub;
}

/* The one of that number that was closed last. */
static struct sub *list_last(struct sub *list, uint64_t number)
{
	struct sub *sub = list != NULL ? list->pump_prev : NULL;

	while (sub != NULL && sub->number != number)
		sub = sub == list ? NULL : sub->pump_prev;
	return sub;
}

struct sub *sub_find_settling(const struct conn *conn, uint64_t number)
{
	struct sub *sub = sub_find(conn, number), *ended;

	if (sub != NULL)
		return sub;
	sub = list_last(conn->closed, number);
	ended = list_last(conn->ended, number);
	return sub == NULL || (ended != NULL && ended->tag > sub->tag) ? ended : sub;
}

static void sub_free(struct sub *sub)
{
	free(sub->filter);
	free((void *)(uintptr_t)sub->name.data);
	free(sub);
}

static struct followed **followed_table(struct io *io, enum door_sub_kind kind)
{
	return kind == DOOR_FOLLOW ? &io->followed : &io->consumed;
}

static struct followed *followed_find(struct io *io, enum door_sub_kind kind,
				      const struct sub_key *key)
{
	struct followed *followed;

	HASH_FIND(hh, *followed_table(io, kind), key, sizeof(*key), followed);
	return followed;
}

struct sub *subs_of(struct io *io, enum door_sub_kind kind, uint32_t gateway, uint64_t id)
{
	struct sub_key key = {gateway, id};
	struct followed *followed = followed_find(io, kind, &key);

	return followed != NULL ? followed->subs : NULL;
}

static int followed_add(struct io *io, struct sub *sub)
{
	struct followed **table = followed_table(io, sub->kind);
	struct followed *followed = followed_find(io, sub->kind, &sub->key);

	if (followed == NULL) {
		followed = calloc(1, sizeof(*followed));
		if (followed == NULL)
			return SLUICE_E_NOMEM;
		followed->key = sub->key;
		HASH_ADD(hh, *table, key, sizeof(followed->key), followed);
		if (!HASHED(hh, followed)) {
			free(followed);
			return SLUICE_E_NOMEM;
		}
	}
	DL_APPEND2(followed->subs, sub, peer_prev, peer_next);
	sub->followed = followed;
	return 0;
}

static void followed_remove(struct io *io, struct sub *sub)
{
	struct followed **table = followed_table(io, sub->kind), *followed = sub->followed;

	invariant(followed != NULL && followed->subs != NULL,
		  "subscription %llu of kind %d is not listed with its stream or queue %llu",
		  (unsigned long long)sub->tag, (int)sub->kind, (unsigned long long)sub->key.id);
	DL_DELETE2(followed->subs, sub, peer_prev, peer_next);
	sub->followed = NULL;
	if (followed->subs != NULL)
		return;
	if (followed->deleted)
		DL_DELETE(io->deleted, followed);
	else
		HASH_DELETE(hh, *table, followed);
	free(followed);
}

int sub_add(struct conn *conn, struct sub **sub, uint64_t number)
{
	struct sub *own = *sub;
	struct io *io = conn->io;

	*sub = NULL;
	admitted(conn, "a subscription");
	invariant(!conn->dead && sub_find(conn, number) == NULL,
		  "connection %llu: subscription %llu is there already, or the connection is not",
		  (unsigned long long)conn->id, (unsigned long long)number);
	own->conn = conn;
	own->number = number;
	own->tag = io->next_tag++;
	if (followed_add(io, own) != 0) {
		sub_free(own);
		return SLUICE_E_NOMEM;
	}
	HASH_ADD(hh_number, conn->subs, number, sizeof(own->number), own);
	if (HASHED(hh_number, own)) {
		HASH_ADD(hh_tag, io->subs, tag, sizeof(own->tag), own);
		if (HASHED(hh_tag, own)) {
			atomic_fetch_add_explicit(&io->net->subs, 1, memory_order_relaxed);
			return 0;
		}
		HASH_DELETE(hh_number, conn->subs, own);
	}
	followed_remove(io, own);
	sub_free(own);
	return SLUICE_E_NOMEM;
}

/* Closes the consumer at the engine, which may be about to claim for it: under way until its last
 * event. */
static void consumer_end(struct sub *sub)
{
	struct io *io = sub->conn->io;

	followed_remove(io, sub);
	if (!sub->opened)
		return;
	if (engine_consumer_close(io->engine, &io->sink, sub->tag) != 0) {
		log_line(LOG_LEVEL_ERROR, log_id("net.no_memory", "no memory to close a consumer"));
		return;
	}
	sub->leaving = true;
	sub->security = under_way_add(io);
}

static void left(struct io *io, struct sub *sub)
{
	if (sub->leaving)
		under_way_done(io, sub->security);
	sub->leaving = false;
}

/* Without its connection. The engine reports the last events in the order of the closes, so it is
 * usually the first of the list. */
static void gone_ended(struct io *io, uint64_t tag)
{
	struct sub *sub;

	DL_FOREACH2(io->gone, sub, pump_next)
	{
		if (sub->tag != tag)
			continue;
		DL_DELETE2(io->gone, sub, pump_prev, pump_next);
		left(io, sub);
		sub_free(sub);
		return;
	}
}

void subs_fini(struct io *io)
{
	struct sub *sub, *next;

	DL_FOREACH_SAFE2(io->gone, sub, next, pump_next)
	sub_free(sub);
	io->gone = NULL;
}

void sub_drop(struct sub *sub)
{
	struct conn *conn = sub->conn;
	struct io *io = conn->io;

	invariant((sub->closed || sub_find(conn, sub->number) == sub) &&
			  (!sub->listed || sub->kind == DOOR_FOLLOW),
		  "connection %llu does not know its subscription %llu of kind %d",
		  (unsigned long long)conn->id, (unsigned long long)sub->number, (int)sub->kind);
	if (!sub->closed)
		HASH_DELETE(hh_number, conn->subs, sub);
	if (!sub->ended)
		HASH_DELETE(hh_tag, io->subs, sub);
	if (sub->ended) {
		DL_DELETE2(conn->ended, sub, pump_prev, pump_next);
		conn->ended_count--;
	} else if (sub->closed) {
		DL_DELETE2(conn->closed, sub, pump_prev, pump_next);
		conn->closed_count--;
	} else if (sub->kind == DOOR_FOLLOW) {
		followed_remove(io, sub);
		if (sub->listed)
			DL_DELETE2(io->pumps, sub, pump_prev, pump_next);
	} else {
		consumer_end(sub);
	}
	atomic_fetch_sub_explicit(&io->net->subs, 1, memory_order_relaxed);
	if (!sub->leaving) {
		sub_free(sub);
		return;
	}
	sub->conn = NULL;
	DL_APPEND2(io->gone, sub, pump_prev, pump_next);
}

/* Fails only for a consumer that was never opened: nothing is claimed for it. */
static void pause_one(struct sub *sub, bool paused)
{
	struct io *io = sub->conn->io;

	if (engine_consumer_pause(io->engine, &io->sink, sub->tag, paused) != 0)
		conn_kill(sub->conn, "no memory to pause a consumer");
}

int sub_consume(struct sub *sub, struct consumer_spec *spec)
{
	int rc;

	spec->tag = sub->tag;
	spec->conn = sub->conn->id;
	rc = engine_consumer_open(sub->conn->io->engine, spec);
	sub->opened = rc == 0;
	if (rc != 0)
		sub_drop(sub);
	else if (sub->conn->subs_paused)
		pause_one(sub, true); /* with the others, until the output drains */
	return rc;
}

void sub_close(struct sub *sub)
{
	struct conn *conn = sub->conn;

	if (sub->kind != DOOR_CONSUME) {
		sub_drop(sub);
		return;
	}
	consumer_end(sub);
	HASH_DELETE(hh_number, conn->subs, sub);
	sub->closed = true;
	DL_APPEND2(conn->closed, sub, pump_prev, pump_next);
	conn->closed_count++;
}

void sub_ended(struct io *io, uint64_t tag)
{
	struct conn *conn;
	struct sub *sub;

	HASH_FIND(hh_tag, io->subs, &tag, sizeof(tag), sub);
	if (sub == NULL) { /* its queue or its connection is gone */
		gone_ended(io, tag);
		return;
	}
	conn = sub->conn;
	invariant(sub->closed && !sub->ended && conn->closed_count > 0,
		  "subscription %llu of connection %llu ends, and was not closed", ULL(sub->number),
		  ULL(conn->id));
	HASH_DELETE(hh_tag, io->subs, sub);
	DL_DELETE2(conn->closed, sub, pump_prev, pump_next);
	conn->closed_count--;
	sub->ended = true;
	left(io, sub);
	DL_APPEND2(conn->ended, sub, pump_prev, pump_next);
	if (++conn->ended_count > LIMIT_CONSUMERS_ENDED_MAX)
		sub_drop(conn->ended);
}

/* ---- the end of a stream or queue ---- */

void subs_deleted(struct io *io, enum door_sub_kind kind, uint32_t gateway, uint64_t id)
{
	struct sub_key key = {gateway, id};
	struct followed *followed = followed_find(io, kind, &key);

	if (followed == NULL)
		return;
	HASH_DELETE(hh, *followed_table(io, kind), followed);
	followed->deleted = true;
	DL_APPEND(io->deleted, followed);
}

static void deleted_end(struct sub *sub)
{
	sub->conn->io->subs_visited++;
	sub_end_notify(sub, SLUICE_E_NOT_FOUND, "it was deleted");
	sub_drop(sub);
}

void subs_end(struct io *io)
{
	enum { AT_ONCE = 256 };

	for (int n = 0; n < AT_ONCE && io->deleted != NULL; n++)
		deleted_end(io->deleted->subs);
	if (io->deleted != NULL)
		io_again(io);
}

static struct sub *deleted_of(struct conn *conn)
{
	struct sub *sub, *next;

	HASH_ITER(hh_number, conn->subs, sub, next) {
		if (sub->followed->deleted && !sub->ending)
			return sub;
	}
	return NULL;
}

void subs_end_of(struct conn *conn)
{
	struct sub *sub;

	/* From the first one each time: a protocol may end others of them meanwhile. */
	while (conn->io->deleted != NULL && (sub = deleted_of(conn)) != NULL)
		deleted_end(sub);
}

/* ---- followers ---- */

void sub_wants_pump(struct sub *sub)
{
	invariant(sub->kind == DOOR_FOLLOW, "subscription %llu is no follower",
		  (unsigned long long)sub->tag);
	if (sub->listed || sub->credit == 0 || sub->conn->dead || sub->conn->closing)
		return;
	sub->listed = true;
	DL_APPEND2(sub->conn->io->pumps, sub, pump_prev, pump_next);
}

static void pause_all(struct conn *conn, bool paused)
{
	struct sub *sub, *next;

	conn->subs_paused = paused;
	HASH_ITER(hh_number, conn->subs, sub, next) {
		if (sub->kind == DOOR_CONSUME)
			pause_one(sub, paused);
	}
}

void subs_pause_if_full(struct conn *conn)
{
	if (!conn->subs_paused && conn_is_full(conn))
		pause_all(conn, true);
}

void subs_resume(struct conn *conn)
{
	if (conn->subs_paused && !conn_is_full(conn))
		pause_all(conn, false);
}

void subs_log_grown(struct io *io, uint32_t gateway, uint64_t stream, uint64_t next_offset)
{
	struct sub *subs = subs_of(io, DOOR_FOLLOW, gateway, stream), *sub;

	DL_FOREACH2(subs, sub, peer_next)
	{
		io->subs_visited++;
		if (next_offset > sub->limit)
			sub->limit = next_offset;
		sub_wants_pump(sub);
	}
}

/* Retention may have removed the next events of the follower. */
static void send_gap(struct sub *sub, uint64_t to)
{
	if (sub->conn->protocol->gap != NULL)
		sub->conn->protocol->gap(sub, to);
	sub->next = to;
}

static void send_caught_up(struct sub *sub)
{
	if (sub->caught_up_sent)
		return;
	sub->caught_up_sent = true;
	if (sub->conn->protocol->caught_up != NULL)
		sub->conn->protocol->caught_up(sub);
}

void sub_end_notify(struct sub *sub, int code, const char *text)
{
	sub->ending = true;
	if (!sub->conn->dead && !sub->conn->closing)
		sub->conn->protocol->subscription_end(sub, code, text);
}

static void end_damaged(struct sub *sub, int rc)
{
	log_line(LOG_LEVEL_ERROR,
		 log_id("store.corrupt",
			"a stored record is damaged; the subscription of its follower is "
			"ended"),
		 log_str("record", store_last_error()));
	sub_end_notify(sub, rc, store_last_error());
	sub_drop(sub);
}

/* Returns true when there may be more right now. */
static bool pump_in(struct sub *sub, struct store_txn *txn, uint64_t *io_budget, int *ret_rc)
{
	while (sub->credit > 0 && *io_budget > 0) {
		struct segment segment;
		int rc = core_segment_read(txn, (uint32_t)sub->key.gateway, sub->log, sub->next,
					   &segment);

		/* The snapshot may be newer than the last release that was handled: an answer to
		 * the publisher in it comes first. */
		if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && segment.base >= sub->limit)) {
			send_caught_up(sub);
			return false;
		}
		if (rc != 0) {
			*ret_rc = rc;
			return false;
		}
		if (segment.base > sub->next)
			send_gap(sub, segment.base);
		if (sub->ending)
			return false;
		sub->conn->delivering = true;
		rc = sub->conn->protocol->deliver_segment(sub, &segment, io_budget);
		sub->conn->delivering = false;
		if (rc != 0) {
			conn_kill(sub->conn, "a stored segment could not be delivered");
			return false;
		}
		if (sub->ending || conn_is_full(sub->conn))
			return false; /* continues when the output has drained */
	}
	return sub->credit > 0;
}

void subs_pump(struct io *io)
{
	/* Each listed follower gets one turn; one with more to read is listed again, for the next
	 * round. */
	struct sub *last = io->pumps != NULL ? io->pumps->pump_prev : NULL;
	bool more = false;

	while (io->pumps != NULL) {
		struct sub *sub = io->pumps;
		const bool was_last = sub == last;
		struct store_txn *txn = NULL;
		uint64_t number, budget = PUMP_BYTES;
		bool again;
		int rc = 0;

		if (io->pump_cost >= PUMP_ROUND_BYTES) {
			more = true;
			break;
		}
		invariant(sub->listed && sub->conn->io == io,
			  "follower %llu is in the list of another thread",
			  (unsigned long long)sub->tag);
		DL_DELETE2(io->pumps, sub, pump_prev, pump_next);
		sub->listed = false;
		if (sub->conn->dead || sub->followed->deleted || conn_is_full(sub->conn) ||
		    sub->shows > io->released) {
			/* The next release is followed by a round. */
			if (sub->shows > io->released)
				sub_wants_pump(sub);
			if (was_last)
				break;
			continue;
		}
		rc = engine_read_begin(io->engine, &txn, &number);
		if (rc == SLUICE_E_NOMEM) {
			sub_wants_pump(sub); /* with the next round, at most TIMER_MS from now */
			break;
		}
		if (rc != 0) {
			conn_kill(sub->conn, "the store cannot be read");
			break;
		}
		sub->pumped = true;
		again = pump_in(sub, txn, &budget, &rc);
		sub->pumped = false;
		store_abort(txn);
		io->pump_cost += PUMP_BYTES - budget + TURN_COST;
		if (sub->ending) {
			sub_drop(sub);
		} else if (rc != 0) {
			end_damaged(sub, rc);
		} else if (again) {
			sub_wants_pump(sub);
			more = true;
		}
		if (was_last)
			break;
	}
	if (more)
		io_again(io);
}
