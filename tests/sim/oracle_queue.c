/* SPDX-License-Identifier: Apache-2.0
 *
 * The queue is a list of items with holders. An item has one holder at a time, until the item is
 * settled or its lease or session ends. Only the holder settles it, with its token. Items are
 * delivered in the order of their puts; a returned one is delivered when it is due. It is returned
 * by a nack or the end of the lease, until it has had all its attempts, and then becomes a dead
 * letter, or by a rejection, which makes it one at once; after an ack it is never delivered again.
 * A renewed item leaves its grant: it has a new lease and a new token. Counts equal the items.
 */
#include <stddef.h>

#include "tests/sim/oracle_internal.h"

static struct item *find(struct oracle *o, uint64_t item)
{
	if (item < ORACLE_ITEMS_MAX) {
		if (item >= o->item_end)
			o->item_end = item + 1;
		return &o->items[item];
	}
	broken(o, "item %llu is above all that were put", U(item));
	return NULL;
}

static bool held_surely(const struct oracle *o, const struct item *x)
{
	if (x->state != ITEM_HELD || x->maybe_acked || x->maybe_nacked || x->maybe_renewed)
		return false;
	return x->session_lease ? session_surely(o, x->session) : o->now_ms < x->mine_until_ms;
}

static bool held_unreceived(const struct oracle *o, const struct item *x)
{
	return o->now_ms < x->unreceived_until_ms ||
	       (x->unreceived_session != 0 && session_maybe(o, x->unreceived_session));
}

static bool held_maybe(const struct oracle *o, const struct item *x)
{
	if (x->state == ITEM_HELD &&
	    (x->session_lease ? session_maybe(o, x->session) : o->now_ms < x->gone_by_ms))
		return true;
	return (x->state == ITEM_WAITS || x->state == ITEM_HELD) && held_unreceived(o, x);
}

/* ---- put ---- */

void oracle_put(struct oracle *o, uint64_t item, uint64_t body, uint32_t losses)
{
	struct item *x = find(o, item);

	note(o, 4, item, body);
	if (x == NULL)
		return;
	if (x->state != ITEM_NONE && x->body != body)
		broken(o, "item %llu was the answer to two puts", U(item));
	for (uint64_t i = 0; i < o->item_end; i++) {
		if (i != item && o->items[i].state != ITEM_NONE && o->items[i].body == body)
			broken(o, "put %llu is in the queue twice", U(body));
	}
	if (body % ORACLE_BODY > o->producers[body / ORACLE_BODY].answered)
		o->producers[body / ORACLE_BODY].answered = body % ORACLE_BODY;
	if (x->state != ITEM_NONE)
		return;
	/* It may have been in the queue before a crash or a broken connection, and may have been
	 * granted without being received. */
	*x = (struct item){.state = ITEM_WAITS, .body = body, .grants_max = losses};
	if (losses > 0) {
		x->unreceived_until_ms = o->loss_ms + o->rules.lease_ms;
		x->unreceived_session = o->unreceived_session;
		x->maybe_purged = o->any_purge;
	}
}

/* ---- grants ---- */

/* A lease that expired since the last time may still be settled, or resumed: the item was not
 * granted again yet. */
static bool not_over(const struct oracle *o, const struct item *x)
{
	return x->state == ITEM_HELD &&
	       (x->session_lease ? session_maybe(o, x->session) : o->before_ms < x->gone_by_ms);
}

static void check_again(struct oracle *o, const struct item *x, const struct oracle_grant *g)
{
	if (g->token < x->token)
		broken(o, "item %llu was redelivered with token %llu, its token is %llu",
		       U(g->item), U(g->token), U(x->token));
	if (g->token == x->token && x->state != ITEM_HELD)
		broken(o, "item %llu was returned, and redelivered to its former session",
		       U(g->item));
	if (g->token == x->token && !not_over(o, x) && !held_maybe(o, x))
		broken(o, "item %llu was redelivered after the end of its lease", U(g->item));
	if (g->token > x->token && x->state != ITEM_NONE && !x->maybe_renewed &&
	    (held_surely(o, x) ||
	     (o->before_ms >= x->unreceived_until_ms && !held_unreceived(o, x))))
		broken(o, "item %llu was redelivered with token %llu, which was never granted",
		       U(g->item), U(g->token));
}

static void check_new(struct oracle *o, const struct item *x, const struct oracle_grant *g)
{
	bool first;

	if (held_surely(o, x))
		broken(o, "item %llu has two holders", U(g->item));
	if (x->state == ITEM_WAITS && o->now_ms < x->not_before_ms)
		broken(o, "item %llu was delivered before its delay was over", U(g->item));
	if (g->token <= x->token || g->token < o->top_token)
		broken(o, "token %llu of item %llu is not above the previous one", U(g->token),
		       U(g->item));
	/* Certainly a first delivery. An item that was returned uncounted has no attempts
	 * either. */
	first = g->attempts == 0 && x->token == 0 && x->grants_max == 0 &&
		(x->state == ITEM_WAITS || o->loss_ms == 0);
	if (o->rules.fifo && first && g->item <= o->first_given)
		broken(o, "item %llu was delivered after item %llu", U(g->item), U(o->first_given));
	if (first)
		o->first_given = g->item;
	o->top_token = g->token;
}

static void learn(struct oracle *o, const struct oracle_grant *g)
{
	uint64_t txn;

	if (body_of_txn(g->body, &txn)) {
		if (txn >= o->txn_end || g->body % ORACLE_TXN_PARTS < o->txns[txn].events)
			broken(o, "item %llu belongs to a transaction that did not put it",
			       U(g->item));
		else
			txn_is_done(o, txn);
	}
	/* Its earlier grants were not received: their number is taken from the delivery. */
	oracle_put(o, g->item, g->body, 0);
	o->items[g->item].grants_max = g->attempts;
}

void oracle_granted(struct oracle *o, const struct oracle_grant *g)
{
	struct item *x = find(o, g->item);
	bool same, known;

	note(o, 5, g->item, g->token);
	if (x == NULL)
		return;
	if (g->again)
		check_again(o, x, g);
	else
		check_new(o, x, g);
	if (x->state == ITEM_NONE)
		learn(o, g);
	if (x->body != g->body)
		broken(o, "item %llu was delivered with another body", U(g->item));
	if (x->state == ITEM_ACKED || x->state == ITEM_PURGED || x->dead)
		broken(o, "item %llu was delivered after its %s", U(g->item),
		       x->dead			? "death"
		       : x->state == ITEM_ACKED ? "ack"
						: "purge");
	same = g->again && g->token == x->token;
	known = same || (g->again && x->maybe_renewed);
	if (g->attempts + known < x->grants_min || g->attempts + same > x->grants_max)
		broken(o, "item %llu was delivered with %u failed attempts, expected %u to %u",
		       U(g->item), g->attempts, x->grants_min, x->grants_max);
	if (g->attempts >= o->rules.attempts_max)
		broken(o, "item %llu was delivered after %u attempts", U(g->item), g->attempts);
	/* Not every end of a grant is a failure: items that were not begun are returned
	 * uncounted. */
	x->begun = same && x->begun;
	x->grants_min = g->attempts + x->begun;
	x->grants_max = g->attempts + 1;
	x->unreceived_session = 0;
	x->maybe_acked = x->maybe_nacked = x->maybe_purged = x->maybe_renewed = false;
	x->again = true;
	x->state = ITEM_HELD;
	x->token = g->token;
	x->session = g->session;
	x->session_lease = g->lease_ms == 0;
	/* a redelivery restarts the lease */
	x->mine_until_ms = x->gone_by_ms = o->now_ms + g->lease_ms;
	x->unreceived_until_ms = 0;
}

void items_resuming(struct oracle *o, uint64_t session)
{
	for (uint64_t i = 0; i < o->item_end; i++) {
		if (o->items[i].session == session)
			o->items[i].again = false;
	}
}

void items_resumed(struct oracle *o, uint64_t session)
{
	for (uint64_t i = 0; i < o->item_end; i++) {
		struct item *x = &o->items[i];

		if (x->session == session && held_surely(o, x) && !x->again)
			broken(o, "session %llu holds item %llu, which was not redelivered",
			       U(session), U(i));
		if (x->unreceived_session == session)
			x->unreceived_session = 0; /* otherwise it would have been redelivered */
	}
	if (o->unreceived_session == session)
		o->unreceived_session = 0;
}

/* ---- settlements ---- */

/* An extension applies to the whole grant: to all its items that are still held. */
static bool extended(struct oracle *o, uint64_t token, uint32_t value_ms, bool done)
{
	bool any = false;

	for (uint64_t i = 0; i < o->item_end; i++) {
		struct item *x = &o->items[i];

		if (x->token != token || !not_over(o, x))
			continue;
		any = true;
		if (x->session_lease)
			continue;
		if (done && !x->maybe_acked && !x->maybe_nacked && !x->maybe_renewed)
			x->mine_until_ms = o->now_ms + value_ms;
		if (x->gone_by_ms < o->now_ms + value_ms)
			x->gone_by_ms = o->now_ms + value_ms;
	}
	return any;
}

static void settle(struct oracle *o, struct item *x, const struct oracle_settlement *s)
{
	/* A failed attempt is counted once, a release never. */
	if (s->how == ORACLE_NACK)
		x->grants_min += !x->begun;
	if (s->how == ORACLE_RELEASE) {
		x->grants_min -= x->begun;
		x->grants_max--;
	}
	/* A dead letter at once, as after its last attempt. */
	if (s->how == ORACLE_REJECT)
		x->grants_min = x->grants_max = o->rules.attempts_max;
	x->begun = false;
	x->state = s->how == ORACLE_ACK ? ITEM_ACKED : ITEM_WAITS;
	x->not_before_ms = s->how == ORACLE_ACK ? 0 : o->now_ms + s->value_ms;
	x->mine_until_ms = x->gone_by_ms = 0;
	x->maybe_acked = x->maybe_nacked = x->maybe_renewed = false;
}

/* The item has a lease of its own from now on, under a new token; the old one is stale for it. */
static void renewed(struct oracle *o, struct item *x, const struct oracle_settlement *s)
{
	if (s->renewed <= o->top_token)
		broken(o, "item %llu was renewed with token %llu, after token %llu", U(s->item),
		       U(s->renewed), U(o->top_token));
	o->top_token = x->token = s->renewed;
	x->maybe_renewed = false;
	if (!x->session_lease && !x->maybe_acked && !x->maybe_nacked)
		x->mine_until_ms = o->now_ms + s->value_ms;
	if (!x->session_lease)
		x->gone_by_ms = o->now_ms + s->value_ms;
}

void oracle_settled(struct oracle *o, const struct oracle_settlement *s, bool done, bool retried)
{
	struct item *x = find(o, s->item);

	note(o, 6 + done, s->item, s->token);
	if (x == NULL)
		return;
	if (!done) {
		if (x->token == s->token && x->session == s->session && held_surely(o, x))
			broken(o, "the holder of item %llu was refused", U(s->item));
		return;
	}
	if (s->how == ORACLE_EXTEND) {
		if (!extended(o, s->token, s->value_ms, true))
			broken(o, "a stale token extended a lease of item %llu", U(s->item));
		return;
	}
	if (s->how == ORACLE_BEGUN) {
		if (x->token != s->token || x->session != s->session || !not_over(o, x))
			broken(o, "a stale token marked item %llu as begun", U(s->item));
		/* from now on the end of the lease is a failed attempt */
		x->grants_min += !x->begun;
		x->begun = true;
		return;
	}
	if (s->how == ORACLE_RENEW) {
		if (x->token != s->token || x->session != s->session || !not_over(o, x))
			broken(o, "a stale token renewed item %llu", U(s->item));
		renewed(o, x, s);
		return;
	}
	/* An unanswered request may have returned it, and another session may hold it by now. */
	if (retried && s->how != ORACLE_ACK && (x->token > s->token || x->state != ITEM_HELD))
		return;
	if (x->token != s->token || x->session != s->session ||
	    (retried ? x->state != ITEM_HELD : !not_over(o, x)))
		broken(o, "a stale token settled item %llu (%d in state %d, token %llu of %llu)",
		       U(s->item), (int)s->how, (int)x->state, U(s->token), U(x->token));
	settle(o, x, s);
	x->not_after_ms = x->not_before_ms;
	if (retried)
		x->not_before_ms = 0; /* it may have been applied earlier: the delay may be over */
}

static void renew_unknown(const struct oracle *o, struct item *x, const struct oracle_settlement *s)
{
	if (x == NULL || x->token != s->token || !not_over(o, x))
		return;
	x->maybe_renewed = true;
	if (!x->session_lease && x->gone_by_ms < o->now_ms + s->value_ms)
		x->gone_by_ms = o->now_ms + s->value_ms;
}

void oracle_settle_unknown(struct oracle *o, const struct oracle_settlement *s)
{
	struct item *x = find(o, s->item);

	note(o, 8, s->item, s->token);
	if (s->how == ORACLE_RENEW) {
		renew_unknown(o, x, s);
		return;
	}
	if (s->how == ORACLE_EXTEND)
		(void)extended(o, s->token, s->value_ms, false);
	else if (s->how != ORACLE_BEGUN && x != NULL && x->token == s->token &&
		 x->state == ITEM_HELD)
		*(s->how == ORACLE_ACK ? &x->maybe_acked : &x->maybe_nacked) = true;
	if (s->how == ORACLE_RELEASE && x != NULL && x->token == s->token && x->begun) {
		x->grants_min--; /* possibly uncounted nevertheless */
		x->begun = false;
	}
	if (s->how == ORACLE_REJECT && x != NULL && x->token == s->token &&
	    x->grants_max < o->rules.attempts_max)
		x->grants_max = o->rules.attempts_max; /* possibly a dead letter */
}

/* ---- purges ---- */

enum readiness { NOT_READY, MAYBE_READY, SURELY_READY };

/* The purge was applied before the deadlines between the previous time and now, or in a later
 * commit of the step, behind them. */
static enum readiness readiness(const struct oracle *o, const struct item *x)
{
	if (x->state != ITEM_WAITS && x->state != ITEM_HELD)
		return NOT_READY;
	if (held_surely(o, x))
		return NOT_READY;
	if (x->state == ITEM_WAITS && o->now_ms < x->not_before_ms)
		return NOT_READY;
	/* An item that was just granted to a connection that breaks is not purged. */
	if (x->maybe_acked || x->maybe_nacked || x->maybe_purged || x->session_lease || o->breaks ||
	    x->grants_max >= o->rules.attempts_max || held_unreceived(o, x) ||
	    o->before_ms < x->unreceived_until_ms || o->before_ms < x->gone_by_ms ||
	    o->before_ms < x->not_after_ms || o->crash_ms == o->now_ms ||
	    (x->unreceived_session != 0 && session_maybe_before(o, x->unreceived_session)))
		return MAYBE_READY;
	return SURELY_READY;
}

void oracle_purged(struct oracle *o, uint64_t count)
{
	uint64_t surely = 0, maybe = 0, known = 0;

	note(o, 12, count, 0);
	for (uint64_t i = 0; i < o->item_end; i++) {
		struct item *x = &o->items[i];
		enum readiness ready = readiness(o, x);

		known += x->state != ITEM_NONE;
		surely += ready == SURELY_READY;
		maybe += ready == MAYBE_READY;
		if (ready == SURELY_READY)
			x->state = ITEM_PURGED;
		else
			x->maybe_purged |= ready == MAYBE_READY;
	}
	maybe += o->put_shown > known ? o->put_shown - known : 0;
	for (uint64_t i = 0; i < o->txn_end; i++)
		maybe += o->txns[i].refused ? 0 : o->txns[i].puts;
	if (count < surely || count > surely + maybe)
		broken(o, "%llu items were purged, expected %llu to %llu", U(count), U(surely),
		       U(surely + maybe));
	o->purged += count;
	o->any_purge = true;
}

void oracle_purge_unknown(struct oracle *o)
{
	note(o, 13, 0, 0);
	for (uint64_t i = 0; i < o->item_end; i++)
		o->items[i].maybe_purged |= readiness(o, &o->items[i]) != NOT_READY;
	o->any_purge = o->purge_unknown = true;
}

/* ---- unreceived deliveries ---- */

void items_unreceived(struct oracle *o, uint64_t session, uint64_t leases_by_session)
{
	uint64_t lease_end = o->now_ms + o->rules.lease_ms;

	if (leases_by_session != 0)
		o->unreceived_session = leases_by_session;
	for (uint64_t i = 0; i < o->item_end; i++) {
		struct item *x = &o->items[i];

		if (x->state != ITEM_WAITS && x->state != ITEM_HELD)
			continue;
		/* A crash restarts the term of all leases, and a resume that of its session's, even
		 * if the answer is not received. */
		if ((session == 0 || x->session == session) && !x->session_lease &&
		    not_over(o, x) && x->gone_by_ms < lease_end)
			x->gone_by_ms = lease_end;
		if (held_surely(o, x)) {
			if (session == 0 && x->mine_until_ms < lease_end)
				x->mine_until_ms = lease_end;
			continue;
		}
		/* A lease that has ended may have been redelivered just before its end. */
		x->mine_until_ms = 0;
		if (x->state == ITEM_WAITS && o->now_ms < x->not_before_ms)
			continue;
		x->grants_max++;
		x->unreceived_until_ms = lease_end;
		if (leases_by_session != 0)
			x->unreceived_session = leases_by_session;
	}
}

/* ---- counts ---- */

struct sums {
	uint64_t put, acked, acked_maybe, held, held_maybe, dead, dead_maybe, delayed;
};

static void sum(const struct oracle *o, const struct item *x, struct sums *sums)
{
	uint64_t txn;
	bool may_be_held = held_maybe(o, x);

	if (x->state == ITEM_NONE)
		return;
	sums->put += !body_of_txn(x->body, &txn);
	sums->acked += x->state == ITEM_ACKED;
	sums->acked_maybe += x->state == ITEM_ACKED || x->maybe_acked;
	sums->held += held_surely(o, x);
	sums->held_maybe += may_be_held;
	sums->delayed += x->state == ITEM_WAITS && o->now_ms < x->not_before_ms &&
			 x->grants_max < o->rules.attempts_max;
	if (x->state == ITEM_ACKED || x->state == ITEM_PURGED)
		return;
	sums->dead += !may_be_held && !x->maybe_acked && !x->maybe_purged &&
		      x->grants_min >= o->rules.attempts_max;
	sums->dead_maybe += !held_surely(o, x) && x->grants_max >= o->rules.attempts_max;
}

static void within(struct oracle *o, const char *what, uint64_t shown, uint64_t min, uint64_t max)
{
	if (shown < min || shown > max)
		broken(o, "%llu items are counted as %s, expected %llu to %llu", U(shown), what,
		       U(min), U(max));
}

void oracle_counts(struct oracle *o, const struct oracle_counts *shown, uint64_t put_unknown)
{
	struct sums s = {0};
	uint64_t gone;

	note(o, 9, shown->put, shown->acked);
	for (uint64_t i = 0; i < o->item_end; i++)
		sum(o, &o->items[i], &s);
	s.put += o->txn_puts_done;
	for (uint64_t i = 0; i < o->txn_end; i++) {
		if (!o->txns[i].done && !o->txns[i].refused)
			put_unknown += o->txns[i].puts;
	}
	within(o, "put", shown->put, s.put, s.put + put_unknown);
	within(o, "acked", shown->acked, s.acked, s.acked_maybe);
	/* Items whose put was never answered may be held too. */
	put_unknown = shown->put;
	for (uint64_t i = 0; i < o->item_end; i++)
		put_unknown -= put_unknown > 0 && o->items[i].state != ITEM_NONE;
	within(o, "leased", shown->leased, s.held, s.held_maybe + put_unknown);
	within(o, "dead", shown->dead, s.dead, s.dead_maybe + put_unknown);
	within(o, "delayed", shown->delayed, s.delayed, shown->put);
	gone = shown->put -
	       (shown->ready + shown->leased + shown->delayed + shown->acked + shown->dead);
	if (o->purge_unknown ? gone < o->purged || gone > shown->put : gone != o->purged)
		broken(o, "the queue's counts do not add up: %llu items are gone, %llu were purged",
		       U(gone), U(o->purged));
	o->purged = gone;
	o->purge_unknown = false;
	o->put_shown = shown->put;
}

/* ---- dead letters, the end ---- */

void oracle_dead_begin(struct oracle *o)
{
	note(o, 10, 0, 0);
	o->dead_listed = 0;
}

void oracle_dead(struct oracle *o, uint64_t body, uint32_t attempts)
{
	struct item *x = NULL;

	note(o, 11, body, attempts);
	o->dead_listed++;
	for (uint64_t i = 0; i < o->item_end && x == NULL; i++) {
		if (o->items[i].state != ITEM_NONE && o->items[i].body == body)
			x = &o->items[i];
	}
	if (x == NULL)
		return; /* its put was never answered; the counts cover it */
	if (x->state == ITEM_ACKED || x->state == ITEM_PURGED || held_surely(o, x))
		broken(o, "put %llu is %s, and also a dead letter", U(body),
		       x->state == ITEM_ACKED	 ? "acked"
		       : x->state == ITEM_PURGED ? "purged"
						 : "held");
	if (attempts != 0 || x->grants_max < o->rules.attempts_max)
		broken(o, "put %llu is a dead letter with %u attempts, after %u grants", U(body),
		       attempts, x->grants_max);
	x->dead = true;
}

void oracle_dead_end(struct oracle *o, uint64_t counted)
{
	if (o->dead_listed != counted)
		broken(o, "%llu dead letters are counted, %llu were read", U(counted),
		       U(o->dead_listed));
}

void oracle_drained(struct oracle *o, const struct oracle_counts *shown)
{
	for (uint64_t i = 0; i < o->item_end; i++) {
		const struct item *x = &o->items[i];

		if ((x->state == ITEM_WAITS || x->state == ITEM_HELD) && !x->maybe_acked &&
		    !x->maybe_purged && !x->dead)
			broken(o, "item %llu was not delivered again", U(i));
	}
	if (shown->ready + shown->leased + shown->delayed != 0)
		broken(o, "the drained queue is not empty");
}
