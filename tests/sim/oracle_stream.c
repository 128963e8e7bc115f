/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams are lists. An event that was answered or read at an offset stays at that offset until
 * retention drops it. The numbers of each producer are 1, 2, 3 ... in order, without a gap or a
 * duplicate. Retention drops events only from the beginning: exactly those that are neither among
 * the last keep_events nor younger than keep_ms. A cursor stays at the offset that was set, and
 * moves backward only on request. A transaction's events and puts are all present or all absent.
 */
#include <stddef.h>

#include "tests/sim/oracle_internal.h"

enum { AGE_SLACK_MS = 100 };

bool body_of_txn(uint64_t body, uint64_t *ret_txn)
{
	*ret_txn = body % ORACLE_BODY / ORACLE_TXN_PARTS;
	return body / ORACLE_BODY == ORACLE_TXN_PRODUCER;
}

static struct producer *producer_of(struct oracle *o, uint64_t body)
{
	if (body / ORACLE_BODY < ORACLE_PRODUCERS_MAX && body % ORACLE_BODY > 0)
		return &o->producers[body / ORACLE_BODY];
	broken(o, "body %llu belongs to no producer", U(body));
	return NULL;
}

void oracle_sent(struct oracle *o, int producer, uint64_t seq, uint32_t count)
{
	struct producer *p = &o->producers[producer];

	note(o, 30, (uint64_t)producer, seq);
	p->sent = seq + count - 1;
	p->last_from = seq;
	p->last_ms = o->now_ms;
}

static uint64_t sent_ms_of(const struct oracle *o, uint64_t body)
{
	const struct producer *p = &o->producers[body / ORACLE_BODY];
	uint64_t txn;

	if (body_of_txn(body, &txn))
		return o->txns[txn].sent_ms;
	return body % ORACLE_BODY >= p->last_from ? p->last_ms : 0;
}

/* The event at an offset becomes known, or must equal the known one. */
static struct event *event_is(struct oracle *o, int stream, uint64_t offset, uint64_t body)
{
	struct event *e = &o->streams[stream].events[offset];

	if (e->body != 0 && e->body != body)
		broken(o, "stream %d: offset %llu contains %llu, and contained %llu before", stream,
		       U(offset), U(body), U(e->body));
	if (e->body == 0)
		*e = (struct event){body, sent_ms_of(o, body), o->now_ms, false};
	return e;
}

void oracle_published(struct oracle *o, int stream, int producer, uint64_t seq, uint32_t count,
		      uint64_t offset)
{
	struct producer *p = &o->producers[producer];

	note(o, 2, seq, offset);
	if (offset + count > ORACLE_EVENTS_MAX) {
		broken(o, "a publish of producer %d was answered with offset %llu", producer,
		       U(offset));
		return;
	}
	for (uint32_t i = 0; i < count; i++)
		event_is(o, stream, offset + i, (uint64_t)producer * ORACLE_BODY + seq + i)
			->answered = true;
	if (seq + count - 1 > p->answered)
		p->answered = seq + count - 1;
}

void oracle_reopened(struct oracle *o, int producer, uint64_t last_seq)
{
	const struct producer *p = &o->producers[producer];

	note(o, 36, (uint64_t)producer, last_seq);
	if (last_seq < p->answered || last_seq > p->sent)
		broken(o,
		       "producer %d was answered last_seq %llu; it had answers up to %llu and sent "
		       "up to %llu",
		       producer, U(last_seq), U(p->answered), U(p->sent));
}

/* ---- reads ---- */

static void check_first(struct oracle *o, int stream, uint64_t first, uint64_t next)
{
	struct stream *s = &o->streams[stream];
	uint64_t keep = o->rules.streams[stream].keep_events,
		 age = o->rules.streams[stream].keep_ms;
	uint64_t bound = keep != 0 && next > keep ? next - keep : 0;

	if (first < s->first || next < s->next)
		broken(o, "stream %d went back: %llu to %llu, was %llu to %llu", stream, U(first),
		       U(next), U(s->first), U(s->next));
	if (first < bound)
		broken(o,
		       "stream %d: offset %llu is still stored, retention keeps %llu and later "
		       "ones",
		       stream, U(first), U(bound));
	for (uint64_t i = s->first > bound ? s->first : bound; i < first; i++) {
		const struct event *e = &s->events[i];

		if (age == 0 || (e->body != 0 && o->now_ms - e->early_ms < age))
			broken(o, "stream %d: offset %llu was dropped too early", stream, U(i));
	}
	for (uint64_t i = first; age != 0 && i < next; i++) {
		const struct event *e = &s->events[i];

		if (e->body != 0 && o->now_ms - e->late_ms >= age + AGE_SLACK_MS)
			broken(o, "stream %d: offset %llu is still stored after its keep time",
			       stream, U(i));
	}
	s->first = first;
	s->next = next;
}

void oracle_read_begin(struct oracle *o, int stream, uint64_t first, uint64_t next)
{
	note(o, 3, first, next);
	o->reading = NULL;
	if (first > next || next > ORACLE_EVENTS_MAX) {
		broken(o, "stream %d has the range %llu to %llu", stream, U(first), U(next));
		return;
	}
	check_first(o, stream, first, next);
	o->reading = &o->streams[stream];
	o->read_next = first;
	for (int i = 0; i < ORACLE_PRODUCERS_MAX; i++)
		o->producers[i].in_read = first == 0 ? 1 : 0;
	for (uint64_t i = 0; i < o->txn_end; i++)
		o->txns[i].in_read = 0;
}

static void read_txn(struct oracle *o, uint64_t offset, uint64_t body)
{
	uint64_t txn = body % ORACLE_BODY / ORACLE_TXN_PARTS, part = body % ORACLE_TXN_PARTS;

	if (txn >= o->txn_end || part != o->txns[txn].in_read || part >= o->txns[txn].events)
		broken(o, "offset %llu: event %llu of transaction %llu is out of order", U(offset),
		       U(part), U(txn));
	else
		o->txns[txn].in_read++;
}

void oracle_read(struct oracle *o, uint64_t offset, uint64_t body)
{
	struct producer *p = producer_of(o, body);
	uint64_t txn, seq = body % ORACLE_BODY;

	if (p == NULL || o->reading == NULL)
		return;
	if (offset != o->read_next || offset >= o->reading->next) {
		broken(o, "a read continues at offset %llu, not %llu", U(offset), U(o->read_next));
		return;
	}
	o->read_next = offset + 1;
	if (body_of_txn(body, &txn)) {
		read_txn(o, offset, body);
	} else {
		if (p->in_read != 0 && seq != p->in_read)
			broken(o, "offset %llu has number %llu of producer %llu, expected %llu",
			       U(offset), U(seq), U(body / ORACLE_BODY), U(p->in_read));
		if (seq > p->sent)
			broken(o, "producer %llu: more events are stored than were sent",
			       U(body / ORACLE_BODY));
		p->in_read = seq + 1;
	}
	if (!o->broken)
		(void)event_is(o, (int)(o->reading - o->streams), offset, body);
}

void oracle_read_end(struct oracle *o)
{
	struct stream *s = o->reading;

	if (s == NULL)
		return;
	if (o->read_next != s->next)
		broken(o, "a read ended at offset %llu, the stream ends at %llu", U(o->read_next),
		       U(s->next));
	for (uint64_t i = s->next; i < ORACLE_EVENTS_MAX && i < s->next + 64; i++) {
		if (s->events[i].body != 0)
			broken(o, "offset %llu was acknowledged or read and is missing", U(i));
	}
	for (uint64_t i = 0; s == &o->streams[0] && i < o->txn_end; i++) {
		struct txn *t = &o->txns[i];

		if (t->in_read != 0 && t->in_read != t->events)
			broken(o, "only %u of %u events of transaction %llu are stored", t->in_read,
			       t->events, U(i));
		if (t->in_read != 0 && t->refused)
			broken(o, "events of transaction %llu are stored, and it was refused",
			       U(i));
		if (t->in_read == 0 && t->events != 0 && t->done)
			broken(o, "transaction %llu is done and its events are missing", U(i));
		if (t->in_read != 0)
			txn_is_done(o, i);
	}
}

/* ---- transactions ---- */

void oracle_txn_sent(struct oracle *o, uint64_t txn, uint32_t events, uint32_t puts)
{
	note(o, 31, txn, events * 16 + puts);
	if (txn >= ORACLE_TXNS_MAX) {
		broken(o, "there are more transactions than the oracle can keep");
		return;
	}
	o->txns[txn] = (struct txn){.events = events, .puts = puts, .sent_ms = o->now_ms};
	if (txn >= o->txn_end)
		o->txn_end = txn + 1;
}

void txn_is_done(struct oracle *o, uint64_t txn)
{
	struct txn *t = &o->txns[txn];

	if (t->refused)
		broken(o, "transaction %llu was refused, and a part of it was applied", U(txn));
	if (t->done)
		return;
	t->done = true;
	o->txn_puts_done += t->puts;
}

void oracle_txn_answered(struct oracle *o, uint64_t txn, bool done)
{
	note(o, 32, txn, done);
	if (done)
		txn_is_done(o, txn);
	else if (o->txns[txn].done)
		broken(o, "transaction %llu is refused, and a part of it was applied", U(txn));
	else
		o->txns[txn].refused = true;
}

/* ---- the cursor ---- */

void oracle_cursor_set(struct oracle *o, uint64_t offset, bool back, bool done)
{
	note(o, 33, offset, (uint64_t)back * 2 + done);
	if (o->cursor_unknown)
		return; /* the next read shows it */
	if (done && !back && offset < o->cursor)
		broken(o, "the cursor was moved from %llu back to %llu", U(o->cursor), U(offset));
	if (!done && (back || offset >= o->cursor) && offset <= o->streams[0].next)
		broken(o, "the cursor was not moved from %llu to %llu", U(o->cursor), U(offset));
	if (done)
		o->cursor = offset;
}

void oracle_cursor_unknown(struct oracle *o, uint64_t offset, bool back)
{
	note(o, 34, offset, back);
	o->cursor_unknown = true;
	o->cursor_back |= back;
}

void oracle_cursor_shown(struct oracle *o, uint64_t offset)
{
	note(o, 35, offset, 0);
	if (o->cursor_unknown ? !o->cursor_back && offset < o->cursor : offset != o->cursor)
		broken(o, "the cursor is at %llu and was set to %llu", U(offset), U(o->cursor));
	o->cursor = offset;
	o->cursor_unknown = o->cursor_back = false;
}
