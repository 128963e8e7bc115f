/* SPDX-License-Identifier: Apache-2.0
 * See oracle.h. Includes nothing of the broker: what is legal is written down here a second time. */
#include "tests/sim/oracle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum item_state { ITEM_NONE, ITEM_WAITS, ITEM_HELD, ITEM_ACKED, ITEM_MAYBE_ACKED };

struct event {
	int producer;
	uint64_t seq;
	bool seen; /* in a read */
	bool told; /* a publisher was told this offset */
};

struct item {
	enum item_state state;
	uint64_t body, token;
	uint64_t mine_until_ms; /* HELD: nobody else gets it before */
	uint64_t
		gone_by_ms; /* HELD: no longer counted as leased after; WAITS: an unheard grant may last until */
	uint64_t not_before_ms; /* nacked with a delay */
	uint32_t heard;		/* how often it was given */
	uint32_t grants_max;	/* and how often it may have been, unheard ones too */
	bool maybe_nacked;	/* HELD, and its holder gave it back without hearing an answer */
};

struct job {
	bool exists, unknown, cancel_asked, terminal, ended_by_reset;
	char state[64];
	uint32_t attempt;
	uint64_t token;
};

struct oracle {
	char why[512];
	bool broken;
	uint64_t hash, now_ms, read_next;
	uint32_t lease_ms, attempts_max;
	uint64_t next_seq[ORACLE_PRODUCERS_MAX];
	uint64_t acked_max[ORACLE_PRODUCERS_MAX];
	uint64_t top_token;
	uint64_t crash_ms; /* the last one */
	struct event events[ORACLE_EVENTS_MAX];
	struct item items[ORACLE_ITEMS_MAX];
	struct job jobs[ORACLE_JOBS_MAX];
};

static void broken(struct oracle *o, const char *format, ...)
{
	va_list args;

	if (o->broken)
		return;
	o->broken = true;
	va_start(args, format);
	vsnprintf(o->why, sizeof(o->why), format, args);
	va_end(args);
}

static void note(struct oracle *o, uint64_t a, uint64_t b, uint64_t c)
{
	const uint64_t parts[] = {a, b, c};

	for (size_t i = 0; i < 3; i++) {
		for (int shift = 0; shift < 64; shift += 8) {
			o->hash ^= parts[i] >> shift & 255;
			o->hash *= 1099511628211u;
		}
	}
}

struct oracle *oracle_create(uint32_t lease_ms, uint32_t attempts_max)
{
	struct oracle *o = calloc(1, sizeof(*o));

	if (o != NULL) {
		o->hash = 14695981039346656037u;
		o->lease_ms = lease_ms;
		o->attempts_max = attempts_max;
	}
	return o;
}

void oracle_destroy(struct oracle *o)
{
	free(o);
}

const char *oracle_why(const struct oracle *o)
{
	return o->broken ? o->why : NULL;
}

uint64_t oracle_hash(const struct oracle *o)
{
	return o->hash;
}

void oracle_time(struct oracle *o, uint64_t now_ms)
{
	note(o, 1, now_ms, 0);
	o->now_ms = now_ms;
}

/* ---- the stream ---- */

void oracle_published(struct oracle *o, int producer, uint64_t seq, uint32_t count, uint64_t offset)
{
	note(o, 2, seq, offset);
	if (offset + count > ORACLE_EVENTS_MAX) {
		broken(o, "publish of producer %d was told offset %llu", producer,
		       (unsigned long long)offset);
		return;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct event *e = &o->events[offset + i];

		if ((e->told || e->seen) && (e->producer != producer || e->seq != seq + i))
			broken(o, "offset %llu was told for two events", (unsigned long long)offset + i);
		*e = (struct event){producer, seq + i, e->seen, true};
	}
	if (seq + count - 1 > o->acked_max[producer])
		o->acked_max[producer] = seq + count - 1;
}

void oracle_read_begin(struct oracle *o)
{
	o->read_next = 0;
	for (int i = 0; i < ORACLE_PRODUCERS_MAX; i++)
		o->next_seq[i] = 1;
}

void oracle_read(struct oracle *o, uint64_t offset, int producer, uint64_t seq)
{
	struct event *e;

	if (offset >= ORACLE_EVENTS_MAX || producer < 0 || producer >= ORACLE_PRODUCERS_MAX) {
		broken(o, "a read shows what nobody published");
		return;
	}
	e = &o->events[offset];
	if (offset != o->read_next)
		broken(o, "a read goes on at offset %llu, not %llu", (unsigned long long)offset,
		       (unsigned long long)o->read_next);
	if (seq != o->next_seq[producer])
		broken(o, "producer %d: event %llu at offset %llu where %llu must be", producer,
		       (unsigned long long)seq, (unsigned long long)offset,
		       (unsigned long long)o->next_seq[producer]);
	if ((e->told || e->seen) && (e->producer != producer || e->seq != seq))
		broken(o, "offset %llu holds another event than was told or read before",
		       (unsigned long long)offset);
	*e = (struct event){producer, seq, true, e->told};
	o->read_next = offset + 1;
	o->next_seq[producer] = seq + 1;
}

void oracle_read_end(struct oracle *o, uint64_t sent_max[ORACLE_PRODUCERS_MAX])
{
	note(o, 3, o->read_next, 0);
	for (uint64_t i = o->read_next; i < ORACLE_EVENTS_MAX; i++) {
		if (o->events[i].seen || o->events[i].told) {
			broken(o, "offset %llu was acknowledged or read and is gone", (unsigned long long)i);
			break;
		}
	}
	for (int p = 0; p < ORACLE_PRODUCERS_MAX; p++) {
		if (o->next_seq[p] <= o->acked_max[p])
			broken(o, "producer %d: acknowledged up to %llu, stored up to %llu", p,
			       (unsigned long long)o->acked_max[p], (unsigned long long)o->next_seq[p] - 1);
		if (o->next_seq[p] > sent_max[p] + 1)
			broken(o, "producer %d: more is stored than was sent", p);
	}
}

/* ---- the queue ---- */

static struct item *find(struct oracle *o, uint64_t item)
{
	if (item < ORACLE_ITEMS_MAX)
		return &o->items[item];
	broken(o, "item %llu is beyond all that were put", (unsigned long long)item);
	return NULL;
}

void oracle_put(struct oracle *o, uint64_t item, uint64_t body, uint32_t crashes)
{
	struct item *x = find(o, item);

	note(o, 4, item, body);
	if (x == NULL)
		return;
	if (x->state != ITEM_NONE && x->body != body)
		broken(o, "item %llu was told for two puts", (unsigned long long)item);
	for (uint64_t i = 0; i < ORACLE_ITEMS_MAX; i++) {
		if (i != item && o->items[i].state != ITEM_NONE && o->items[i].body == body)
			broken(o, "put %llu is in the queue twice", (unsigned long long)body);
	}
	if (x->state == ITEM_NONE)
		*x = (struct item){.state = ITEM_WAITS, .body = body, .grants_max = crashes};
	/* It may have been in the queue before a crash, and given out by what nobody heard. */
	if (crashes > 0 && x->gone_by_ms < o->crash_ms + o->lease_ms)
		x->gone_by_ms = o->crash_ms + o->lease_ms;
}

void oracle_granted(struct oracle *o, uint64_t item, uint64_t body, uint64_t token)
{
	struct item *x = find(o, item);

	note(o, 5, item, token);
	if (x == NULL)
		return;
	if (x->state == ITEM_NONE)
		oracle_put(o, item, body, 0);
	if (x->body != body)
		broken(o, "item %llu came with another body", (unsigned long long)item);
	if (x->state == ITEM_ACKED)
		broken(o, "item %llu came back after its ack", (unsigned long long)item);
	if (x->state == ITEM_HELD && o->now_ms < x->mine_until_ms)
		broken(o, "item %llu has two holders", (unsigned long long)item);
	if (o->now_ms < x->not_before_ms)
		broken(o, "item %llu came before its delay was over", (unsigned long long)item);
	if (token <= x->token || token < o->top_token)
		broken(o, "token %llu of item %llu did not grow", (unsigned long long)token,
		       (unsigned long long)item);
	o->top_token = token;
	x->state = ITEM_HELD;
	x->token = token;
	x->mine_until_ms = o->now_ms + o->lease_ms;
	x->gone_by_ms = x->mine_until_ms;
	x->not_before_ms = 0;
	x->maybe_nacked = false;
	x->grants_max++;
	if (++x->heard > o->attempts_max)
		broken(o, "item %llu was given %u times", (unsigned long long)item, x->heard);
}

/* An extension is of the whole grant: of all items that came with the token and are still held. */
static bool extended(struct oracle *o, uint64_t token, uint32_t value_ms, bool known)
{
	bool any = false;

	for (uint64_t i = 0; i < ORACLE_ITEMS_MAX; i++) {
		struct item *x = &o->items[i];

		if (x->token != token || (x->state != ITEM_HELD && x->state != ITEM_MAYBE_ACKED))
			continue;
		any = true;
		if (known && x->state == ITEM_HELD && !x->maybe_nacked)
			x->mine_until_ms = o->now_ms + value_ms;
		if (x->gone_by_ms < o->now_ms + value_ms)
			x->gone_by_ms = o->now_ms + value_ms;
	}
	return any;
}

void oracle_settled(struct oracle *o, uint64_t item, uint64_t token, enum oracle_settle how,
		    uint32_t value_ms, bool applied)
{
	struct item *x = find(o, item);

	note(o, 6 + applied, item, token);
	if (x == NULL)
		return;
	if (applied && how == ORACLE_EXTEND) {
		if (!extended(o, token, value_ms, true))
			broken(o, "a stale token extended a lease of item %llu", (unsigned long long)item);
		return;
	}
	if (applied && (x->token != token || (x->state != ITEM_HELD && x->state != ITEM_MAYBE_ACKED)))
		broken(o, "a stale token settled item %llu (%d in state %d, token %llu of %llu)",
		       (unsigned long long)item, (int)how, (int)x->state, (unsigned long long)token,
		       (unsigned long long)x->token);
	if (!applied && x->token == token && x->state == ITEM_HELD && o->now_ms < x->mine_until_ms)
		broken(o, "the holder of item %llu was refused", (unsigned long long)item);
	if (!applied)
		return;
	x->maybe_nacked = false;
	x->state = how == ORACLE_ACK ? ITEM_ACKED : ITEM_WAITS;
	x->not_before_ms = how == ORACLE_ACK ? 0 : o->now_ms + value_ms;
	x->mine_until_ms = x->gone_by_ms = 0;
}

void oracle_settle_unknown(struct oracle *o, uint64_t item, uint64_t token, enum oracle_settle how,
			   uint32_t value_ms)
{
	struct item *x = find(o, item);

	note(o, 8, item, token);
	if (how == ORACLE_EXTEND) {
		(void)extended(o, token, value_ms, false);
		return;
	}
	if (x == NULL || x->token != token || x->state != ITEM_HELD)
		return;
	x->mine_until_ms = 0;
	if (how == ORACLE_ACK)
		x->state = ITEM_MAYBE_ACKED;
	else
		x->maybe_nacked = true;
}

void oracle_counts(struct oracle *o, const struct oracle_counts *shown, uint64_t put_unknown)
{
	uint64_t put = 0, acked = 0, maybe = 0, held_min = 0, held_max = 0, doomed = 0;

	for (uint64_t i = 0; i < ORACLE_ITEMS_MAX; i++) {
		const struct item *x = &o->items[i];

		put += x->state != ITEM_NONE;
		acked += x->state == ITEM_ACKED;
		maybe += x->state == ITEM_MAYBE_ACKED;
		held_min += x->state == ITEM_HELD && o->now_ms < x->mine_until_ms;
		held_max += x->state == ITEM_MAYBE_ACKED ||
			    ((x->state == ITEM_HELD || x->state == ITEM_WAITS) && o->now_ms < x->gone_by_ms);
		doomed += x->state != ITEM_ACKED && x->grants_max >= o->attempts_max;
	}
	note(o, 9, shown->put, shown->acked);
	if (shown->put < put || shown->put > put + put_unknown)
		broken(o, "%llu puts are counted, %llu were made", (unsigned long long)shown->put,
		       (unsigned long long)put);
	if (shown->acked < acked || shown->acked > acked + maybe)
		broken(o, "%llu acks are counted, %llu were made", (unsigned long long)shown->acked,
		       (unsigned long long)acked);
	if (shown->leased < held_min || shown->leased > held_max + put_unknown)
		broken(o, "%llu items are counted as leased, between %llu and %llu are",
		       (unsigned long long)shown->leased, (unsigned long long)held_min,
		       (unsigned long long)held_max);
	if (shown->dead > doomed)
		broken(o, "%llu items are dead letters, %llu were tried often enough",
		       (unsigned long long)shown->dead, (unsigned long long)doomed);
	if (shown->put != shown->ready + shown->leased + shown->delayed + shown->acked + shown->dead)
		broken(o, "the queue's counts do not add up");
}

void oracle_drained(struct oracle *o, const struct oracle_counts *shown)
{
	uint64_t lost = 0, last = 0;

	for (uint64_t i = 0; i < ORACLE_ITEMS_MAX; i++) {
		const struct item *x = &o->items[i];

		if ((x->state == ITEM_WAITS || x->state == ITEM_HELD) && x->grants_max < o->attempts_max) {
			lost++;
			last = i;
		}
	}
	if (lost > 0)
		broken(o, "%llu items never came back, item %llu among them", (unsigned long long)lost,
		       (unsigned long long)last);
	if (shown->ready + shown->leased + shown->delayed != 0)
		broken(o, "the drained queue is not empty");
}

/* ---- jobs ---- */

static bool is_terminal(const char *state)
{
	return strcmp(state, "COMPLETE") == 0 || strcmp(state, "CANCELED") == 0 ||
	       strcmp(state, "FAILED") == 0;
}

/* The table of Airavata's states: from every open state to every other but SUBMITTED; QUEUED and SUBMITTED go on only. */
static bool is_legal(const char *from, const char *to)
{
	static const char *const states[] = {"QUEUED", "ACTIVE",    "COMPLETE", "CANCELED",
					     "FAILED", "SUSPENDED", "UNKNOWN",	"NON_CRITICAL_FAIL"};

	if (is_terminal(from) || strcmp(from, to) == 0)
		return false;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		if (strcmp(states[i], to) == 0)
			return true;
	}
	return false;
}

static void job_state(struct job *j, const char *state)
{
	snprintf(j->state, sizeof(j->state), "%s", state);
	j->terminal = is_terminal(state);
}

void oracle_job_submitted(struct oracle *o, int job)
{
	struct job *j = &o->jobs[job];

	note(o, 10, (uint64_t)job, 0);
	if (j->exists)
		return;
	j->exists = true;
	j->attempt = 1;
	job_state(j, "SUBMITTED");
}

void oracle_job_claimed(struct oracle *o, int job, uint64_t token, uint32_t attempt, bool orphan)
{
	struct job *j = &o->jobs[job];

	note(o, 11, (uint64_t)job, token);
	if (j->exists && j->terminal && !j->unknown)
		broken(o, "job %d was given out after its end", job);
	if (token <= j->token)
		broken(o, "token %llu of job %d did not grow", (unsigned long long)token, job);
	if (!j->unknown && attempt != j->attempt)
		broken(o, "job %d came with attempt %u, not %u", job, attempt, j->attempt);
	j->token = token;
	(void)orphan;
}

void oracle_job_reported(struct oracle *o, int job, uint64_t token, uint32_t attempt, const char *state,
			 bool applied)
{
	struct job *j = &o->jobs[job];

	note(o, 12 + applied, (uint64_t)job, token);
	if (!applied)
		return;
	if (token != 0 && token < j->token)
		broken(o, "a stale token changed job %d", job);
	if (!j->unknown && attempt != j->attempt)
		broken(o, "a report on attempt %u changed job %d of attempt %u", attempt, job, j->attempt);
	if (!j->unknown && !is_legal(j->state, state))
		broken(o, "job %d went from %s to %s", job, j->state, state);
	job_state(j, state);
}

void oracle_job_cancelled(struct oracle *o, int job, bool terminal)
{
	struct job *j = &o->jobs[job];

	note(o, 14, (uint64_t)job, terminal);
	j->cancel_asked = true;
	if (!terminal)
		return;
	if (!j->terminal)
		job_state(j, "CANCELED");
}

void oracle_job_reset(struct oracle *o, int job, uint32_t attempt)
{
	struct job *j = &o->jobs[job];

	note(o, 15, (uint64_t)job, attempt);
	if (!j->unknown && attempt != j->attempt + 1)
		broken(o, "a reset of job %d opened attempt %u after %u", job, attempt, j->attempt);
	j->attempt = attempt;
	j->cancel_asked = false;
	job_state(j, "SUBMITTED");
}

void oracle_job_unknown(struct oracle *o, int job)
{
	note(o, 16, (uint64_t)job, 0);
	o->jobs[job].unknown = true;
}

void oracle_job_shown(struct oracle *o, int job, bool exists, const char *state, bool terminal,
		      uint32_t attempt, uint64_t token, const char *claim)
{
	struct job *j = &o->jobs[job];

	note(o, 17, (uint64_t)job, exists ? attempt : 0);
	if (!exists) {
		if (j->exists)
			broken(o, "job %d was accepted and is gone", job);
		return;
	}
	if (j->unknown || !j->exists) {
		if (!j->unknown && !j->exists)
			broken(o, "job %d exists and was not accepted", job);
		if (attempt < j->attempt || (token != 0 && token < j->token) ||
		    (attempt == j->attempt && j->terminal && strcmp(state, j->state) != 0))
			broken(o, "job %d went back in a crash: %s, attempt %u, token %llu; was %s, %u, %llu",
			       job, state, attempt, (unsigned long long)token, j->state, j->attempt,
			       (unsigned long long)j->token);
		j->exists = true;
		j->attempt = attempt;
		j->unknown = false;
		job_state(j, state);
	}
	if (attempt != j->attempt || strcmp(state, j->state) != 0)
		broken(o, "job %d is %s in attempt %u; it was left %s in attempt %u", job, state, attempt,
		       j->state, j->attempt);
	if (terminal != is_terminal(state))
		broken(o, "job %d: %s is shown as %s", job, state, terminal ? "an end" : "open");
	if (!terminal && strcmp(claim, "none") == 0)
		broken(o, "job %d is open and nobody can claim it", job);
	if (terminal && strcmp(claim, "none") != 0)
		broken(o, "job %d has ended and is still %s", job, claim);
}

void oracle_crashed(struct oracle *o)
{
	note(o, 18, 0, 0);
	o->crash_ms = o->now_ms;
	for (uint64_t i = 0; i < ORACLE_ITEMS_MAX; i++) {
		struct item *x = &o->items[i];

		if (x->state == ITEM_NONE || x->state == ITEM_ACKED)
			continue;
		x->gone_by_ms = o->now_ms + o->lease_ms;
		/* An unheard grant: the known token may be stale, and one more attempt counted. */
		if (x->state != ITEM_HELD || o->now_ms >= x->mine_until_ms)
			x->mine_until_ms = 0;
		x->grants_max++;
	}
	for (int i = 0; i < ORACLE_JOBS_MAX; i++) {
		if (o->jobs[i].exists)
			o->jobs[i].unknown = true;
	}
}
