/* SPDX-License-Identifier: Apache-2.0
 *
 * Family queue: put + claim + ack of items in key order, in two layouts.
 *
 * fifo: the item table, one hot cell (head, tail, counts) written once per transaction, and one
 * grant record per claim of up to 100 items with a bitmap of the items that are still held. A claim
 * moves the head; an ack deletes the item and clears a bit; expiry would walk grants.
 *
 * trees: one tree each for item, ready, lease and timer; a claim moves a key from ready to lease
 * and timer, an ack deletes three.
 *
 * Each transaction puts, claims and acks FLOOR_BATCH items. Acked items were claimed by an earlier
 * step, and the last grant always stays half acked, so that both layouts write leases that survive
 * the commit.
 */
#include "floor.h"

#include <stdlib.h>
#include <string.h>

enum {
	QUEUE_ID = 42,
	ITEM_BYTES = 124, /* 24 of ttl, key, attempts, flags; 100 of body */
	GRANT_ITEMS = 100,
	GRANT_BITMAP_BYTES = (GRANT_ITEMS + 7) / 8,
	ACK_LAG = GRANT_ITEMS / 2, /* items claimed but never acked within their transaction */
	CHURN_RECORDS = 100000,
	CHURN_PER_BATCH = 100,
};

struct queue_arg {
	bool trees;
	bool backlog;
	bool churn; /* random-key updates of another table in the same transactions */
};

struct hot {
	uint64_t head, tail, acked, grants;
};

struct grant {
	uint64_t session, kind, deadline, token, first;
	uint8_t bitmap[GRANT_BITMAP_BYTES];
};

struct lease {
	uint64_t session, deadline, token;
};

struct queue_state {
	MDB_dbi item, hot, grant, ready, lease, timer, churn;
	struct hot at;
	uint64_t delivered; /* sum over claimed items, so that reading them is not optimised away */
	uint8_t body[ITEM_BYTES];
};

/* The cursors of one transaction. Each stays near its place, so most moves need no search. */
struct queue_txn {
	MDB_txn *txn;
	MDB_cursor *put, *claim, *ack, *grant, *ready_put, *ready, *lease_put, *lease, *timer_put,
		*timer;
};

static void seq_key(uint8_t key[12], uint64_t seq)
{
	floor_be32(key, QUEUE_ID);
	floor_be64(key + 4, seq);
}

static void ready_key(uint8_t key[13], uint64_t seq)
{
	floor_be32(key, QUEUE_ID);
	key[4] = 255;
	floor_be64(key + 5, seq);
}

/* All items of a transaction fall due together, a little later than those before. */
static void timer_key(uint8_t key[16], uint64_t deadline, uint64_t seq)
{
	floor_be64(key, deadline);
	floor_be64(key + 8, seq);
}

static struct queue_txn queue_begin(struct floor_run *run, const struct queue_arg *arg)
{
	struct queue_state *st = run->state;
	MDB_txn *txn = floor_begin(run->store);
	struct queue_txn q = {
		.txn = txn,
		.put = floor_cursor(txn, st->item),
		.claim = floor_cursor(txn, st->item),
		.ack = floor_cursor(txn, st->item),
	};
	if (arg->trees) {
		q.ready_put = floor_cursor(txn, st->ready);
		q.ready = floor_cursor(txn, st->ready);
		q.lease_put = floor_cursor(txn, st->lease);
		q.lease = floor_cursor(txn, st->lease);
		q.timer_put = floor_cursor(txn, st->timer);
		q.timer = floor_cursor(txn, st->timer);
	} else {
		q.grant = floor_cursor(txn, st->grant);
	}
	return q;
}

static void queue_put(struct queue_state *st, struct queue_txn *q, uint64_t n, bool trees)
{
	uint8_t key[13];
	for (uint64_t i = 0; i < n; i++) {
		uint64_t seq = st->at.tail++;
		seq_key(key, seq);
		floor_be64(st->body, seq);
		floor_cursor_put(q->put, key, 12, st->body, sizeof(st->body));
		if (trees) {
			ready_key(key, seq);
			floor_cursor_put(q->ready_put, key, 13, "", 0);
		}
	}
}

/* Read the item at seq as a delivery would. If the cursor is just before it, one step is enough. */
static void deliver(struct queue_state *st, struct queue_txn *q, uint64_t seq, bool first)
{
	uint8_t key[12];
	MDB_val k = {sizeof(key), key}, v;
	seq_key(key, seq);
	floor_must(mdb_cursor_get(q->claim, &k, &v, first ? MDB_SET_KEY : MDB_NEXT), "claim");
	uint64_t stored = floor_get_be64(v.mv_data);
	if (stored != seq)
		floor_die("claim: item %llu holds %llu", (unsigned long long)seq,
			  (unsigned long long)stored);
	st->delivered += stored + ((const uint8_t *)v.mv_data)[v.mv_size - 1];
}

static void fifo_claim(struct queue_state *st, struct queue_txn *q)
{
	uint8_t key[12];
	for (uint64_t n = 0; n < FLOOR_BATCH; n += GRANT_ITEMS) {
		struct grant grant = {.session = 9,
				      .kind = 1,
				      .deadline = st->at.grants + 30000,
				      .token = st->at.grants,
				      .first = st->at.head};
		for (uint64_t i = 0; i < GRANT_ITEMS; i++) {
			deliver(st, q, st->at.head++, n + i == 0);
			grant.bitmap[i / 8] |= (uint8_t)(1u << i % 8);
		}
		seq_key(key, st->at.grants++);
		floor_cursor_put(q->grant, key, 12, &grant, sizeof(grant));
	}
}

static bool bitmap_empty(const struct grant *grant)
{
	for (size_t i = 0; i < GRANT_BITMAP_BYTES; i++) {
		if (grant->bitmap[i])
			return false;
	}
	return true;
}

/* As the overlay of hot cells does: read a grant once per batch, and write or delete it once. */
static void fifo_ack(struct queue_state *st, struct queue_txn *q, uint64_t until)
{
	uint8_t key[12];
	while (st->at.acked < until) {
		uint64_t number = st->at.acked / GRANT_ITEMS;
		struct grant grant;
		seq_key(key, number);
		MDB_val v = floor_cursor_set(q->grant, key, 12);
		memcpy(&grant, v.mv_data, sizeof(grant));

		uint64_t end =
			grant.first + GRANT_ITEMS < until ? grant.first + GRANT_ITEMS : until;
		for (; st->at.acked < end; st->at.acked++) {
			uint64_t bit = st->at.acked - grant.first;
			seq_key(key, st->at.acked);
			floor_cursor_del_key(q->ack, key, 12);
			grant.bitmap[bit / 8] &= (uint8_t) ~(1u << bit % 8);
		}
		seq_key(key, number);
		if (bitmap_empty(&grant))
			floor_cursor_del_key(q->grant, key, 12);
		else
			floor_cursor_put(q->grant, key, 12, &grant, sizeof(grant));
	}
}

static void trees_claim(struct queue_state *st, struct queue_txn *q)
{
	uint8_t key[16];
	uint64_t deadline = st->at.tail + 30000;
	for (uint64_t n = 0; n < FLOOR_BATCH; n++) {
		MDB_val k, v;
		floor_must(mdb_cursor_get(q->ready, &k, &v, n ? MDB_NEXT : MDB_FIRST), "ready");
		uint64_t seq = floor_get_be64((const uint8_t *)k.mv_data + 5);
		floor_must(mdb_cursor_del(q->ready, 0), "ready");
		deliver(st, q, seq, n == 0);

		struct lease lease = {.session = 9, .deadline = deadline, .token = seq};
		seq_key(key, seq);
		floor_cursor_put(q->lease_put, key, 12, &lease, sizeof(lease));
		timer_key(key, deadline, seq);
		floor_cursor_put(q->timer_put, key, 16, "", 0);
		st->at.head = seq + 1;
	}
}

static void trees_ack(struct queue_state *st, struct queue_txn *q, uint64_t until)
{
	uint8_t key[16];
	for (; st->at.acked < until; st->at.acked++) {
		struct lease lease;
		seq_key(key, st->at.acked);
		MDB_val v = floor_cursor_set(q->lease, key, 12);
		memcpy(&lease, v.mv_data, sizeof(lease));
		floor_must(mdb_cursor_del(q->lease, 0), "lease");
		floor_cursor_del_key(q->ack, key, 12);
		timer_key(key, lease.deadline, st->at.acked);
		floor_cursor_del_key(q->timer, key, 16);
	}
}

static void churn(struct floor_run *run, struct queue_txn *q)
{
	struct queue_state *st = run->state;
	uint8_t key[8];
	for (int i = 0; i < CHURN_PER_BATCH; i++) {
		floor_be64(key, floor_random(&run->rng) % CHURN_RECORDS);
		floor_put(q->txn, st->churn, key, sizeof(key), st->body, sizeof(st->body));
	}
}

static void queue_batch(struct floor_run *run, const struct queue_arg *arg)
{
	struct queue_state *st = run->state;
	struct queue_txn q = queue_begin(run, arg);
	uint64_t claimed = st->at.head;

	queue_put(st, &q, FLOOR_BATCH, arg->trees);
	if (arg->trees) {
		trees_claim(st, &q);
		trees_ack(st, &q, claimed > ACK_LAG ? claimed - ACK_LAG : 0);
	} else {
		fifo_claim(st, &q);
		fifo_ack(st, &q, claimed > ACK_LAG ? claimed - ACK_LAG : 0);
	}
	if (arg->churn)
		churn(run, &q);
	floor_put(q.txn, st->hot, "queue", 5, &st->at, sizeof(st->at));
	floor_commit(q.txn);
}

static void churn_preload(struct floor_run *run)
{
	struct queue_state *st = run->state;
	uint8_t key[8];
	MDB_txn *txn = floor_begin(run->store);
	MDB_cursor *cursor = floor_cursor(txn, st->churn);
	for (uint64_t i = 0; i < CHURN_RECORDS; i++) {
		floor_be64(key, i);
		floor_cursor_put(cursor, key, sizeof(key), st->body, sizeof(st->body));
	}
	floor_commit(txn);
}

static void queue_setup(struct floor_run *run)
{
	const struct queue_arg *arg = run->scenario->arg;
	struct queue_state *st = run->state = floor_alloc(1, sizeof(*st));
	floor_fill(st->body, sizeof(st->body), 1);
	MDB_txn *txn = floor_begin(run->store);
	st->item = floor_table(txn, "item");
	st->hot = floor_table(txn, "hot");
	st->grant = floor_table(txn, "grant");
	st->ready = floor_table(txn, "ready");
	st->lease = floor_table(txn, "lease");
	st->timer = floor_table(txn, "timer");
	st->churn = floor_table(txn, "churn");
	floor_commit(txn);

	floor_store_preload(run->store, true);
	if (arg->churn)
		churn_preload(run);
	for (uint64_t left = arg->backlog ? run->opt->backlog : 0; left;) {
		uint64_t n = left < 50000 ? left : 50000;
		struct queue_txn q = queue_begin(run, arg);
		queue_put(st, &q, n, arg->trees);
		floor_commit(q.txn);
		left -= n;
	}
	floor_store_preload(run->store, false);
}

static void queue_fini(struct floor_run *run)
{
	free(run->state);
}

static void queue_step(struct floor_run *run, double *values)
{
	uint64_t start = floor_now_ns(), now, items = 0;
	do {
		queue_batch(run, run->scenario->arg);
		items += FLOOR_BATCH;
		now = floor_now_ns();
	} while (now - start < run->slice_ns);
	values[0] = (double)items * 1e9 / (double)(now - start);
}

static const struct queue_arg fifo = {.trees = false};
static const struct queue_arg trees = {.trees = true};
static const struct queue_arg fifo_backlog = {.backlog = true};
static const struct queue_arg trees_backlog = {.trees = true, .backlog = true};
static const struct queue_arg fifo_churn = {.churn = true};
static const struct queue_arg trees_churn = {.trees = true, .churn = true};

#define QUEUE(NAME, WHAT, ARG)                                                   \
	{                                                                        \
		.name = NAME, .what = WHAT, .units = {"items/s"}, .arg = &(ARG), \
		.setup = queue_setup, .step = queue_step, .fini = queue_fini     \
	}

static const struct floor_scenario scenarios[] = {
	QUEUE("queue-fifo", "put + claim + ack: item table, hot cell, grant bitmaps", fifo),
	QUEUE("queue-trees", "put + claim + ack: trees for item, ready, lease, timer", trees),
	QUEUE("queue-fifo-backlog", "queue-fifo behind a backlog", fifo_backlog),
	QUEUE("queue-trees-backlog", "queue-trees behind a backlog", trees_backlog),
	QUEUE("queue-fifo-churn", "queue-fifo, 100 random updates beside each 1,000 items",
	      fifo_churn),
	QUEUE("queue-trees-churn", "queue-trees, 100 random updates beside each 1,000 items",
	      trees_churn),
};

const struct floor_family floor_family_queue = {
	"queue",
	scenarios,
	sizeof(scenarios) / sizeof(scenarios[0]),
};
