/* SPDX-License-Identifier: Apache-2.0
 * Reads of queues: show, list, and peek in every state with holder and age. Reads a snapshot; any
 * thread. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/name.h"
#include "broker/core/base/reply.h"
#include "broker/core/base/topo.h"
#include "broker/core/queue/queue.h"
#include "broker/core/session/session.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

enum { PEEK_BODY_BYTES_MAX = 1024, PEEK_WINDOW = 4096, DAMAGE_TEXT_BYTES = 300 };
static_assert(PEEK_WINDOW > LIMIT_SIZE(LIST_ROWS_MAX),
	      "a window holds all rows of a reply and one more");

/* The reply's array has room for it. */
static int row_add(struct query *q, uint64_t id, void *user)
{
	struct queue_cell cell;
	ProtobufCMessage *config = NULL;
	Sluice__QueueInfo *info;
	int rc = queue_cell_get(q->txn, q->gateway, id, &cell);

	(void)user;
	if (rc == 0)
		rc = topo_find(q->txn, q->gateway, TOPO_QUEUE, id,
			       &sluice__queue_config__descriptor, &config);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	info = malloc(sizeof(*info));
	if (info == NULL) {
		protobuf_c_message_free_unpacked(config, NULL);
		return SLUICE_E_NOMEM;
	}
	sluice__queue_info__init(info);
	q->reply->queues[q->reply->n_queues++] = info;
	info->config = (Sluice__QueueConfig *)config;
	info->id = id;
	info->ready = cell.ready;
	info->leased = cell.leased;
	info->delayed = cell.delayed;
	info->orphaned = cell.orphaned;
	info->put = cell.put;
	info->acked = cell.acked;
	info->dead_lettered = cell.dead;
	info->bytes = cell.bytes;
	info->config->lease_ms = cell.lease_ms;
	info->config->max_attempts = cell.max_attempts;
	return 0;
}

static int show(struct query *q, const char *name)
{
	uint64_t id;
	int rc = name_find(q->txn, q->gateway, NAME_QUEUE, slice_text(name), &id);

	if (rc == SLUICE_E_NOT_FOUND)
		return query_refuse(q, rc, "queue '%s' does not exist", name);
	if (rc != 0)
		return rc;
	q->reply->queues = calloc(1, sizeof(*q->reply->queues));
	return q->reply->queues == NULL ? SLUICE_E_NOMEM : row_add(q, id, NULL);
}

static int list(struct query *q, const Sluice__QueueList *m)
{
	if (q->reply->queues == NULL)
		q->reply->queues = calloc(rows_max(m->max), sizeof(*q->reply->queues));
	return q->reply->queues == NULL ? SLUICE_E_NOMEM
					: name_each(q, NAME_QUEUE, m->after, m->max, row_add, NULL);
}

/* ---- peek ---- */

/* In turns, in three phases, repeated until there are enough rows or the queue is at its end:
 *   PEEK_ITEMS   notes items that may be shown, at most a window of them at a time;
 *   PEEK_GRANTS  decodes each grant once for the window, because only a grant shows whether an item
 *                below the queue's head is leased;
 *   PEEK_ROWS    reads each noted item again for its row, and skips those acked meanwhile. */

enum { PEEK_ITEMS = 1, PEEK_GRANTS, PEEK_ROWS };

struct noted {
	uint64_t seq;
	uint64_t place;	    /* QUEUE_DELAYED: it is in the upper half */
	uint64_t token;	    /* of its grant; 0: none so far */
	bool may_be_leased; /* only its grant can tell */
};
struct peek_state {
	uint64_t queue;
	uint64_t after;	      /* the last item that was walked */
	uint64_t after_token; /* the last grant that was walked */
	size_t count, undecided, row;
	bool ended; /* no item is left after `after` */
	struct noted noted[PEEK_WINDOW];
};
struct peek {
	struct query *q;
	struct peek_state *state;
	struct queue_cell cell;
	struct queue_grant grant; /* the last one found: neighbours often share it */
	uint64_t grant_token;
};

static bool bytes_copy(ProtobufCBinaryData *to, struct sluice_slice from, size_t max)
{
	to->len = from.len < max ? from.len : max;
	to->data = malloc(to->len + 1);
	if (to->data == NULL)
		return false;
	if (to->len > 0)
		memcpy(to->data, from.data, to->len);
	return true;
}

static int row_fill(struct peek *peek, uint64_t seq, const struct queue_item *item,
		    const char *state, Sluice__ItemInfo *row)
{
	struct sluice_slice rest = item->body;
	struct envelope envelope;
	const char *why;
	bool complete;
	int rc;

	row->seq = seq;
	row->attempts = item->attempts;
	row->put_time_ms = item->put_time_ms;
	row->due_in_ms = item->flags & ITEM_DELAYED && item->due_mono_ms > peek->q->clock.mono_ms
				 ? item->due_mono_ms - peek->q->clock.mono_ms
				 : 0;
	row->state = query_text(slice_text(state));
	row->last_reason =
		query_text(item->dead_reason.len > 0 ? item->dead_reason : item->last_reason);
	row->dead_from = query_text(item->dead_from);
	complete = row->state != NULL && row->last_reason != NULL && row->dead_from != NULL;
	if (peek->grant_token != 0 && strcmp(state, "leased") == 0) {
		row->token = peek->grant_token;
		row->holder_session = peek->grant.session;
		if (peek->grant.since_ms != 0 && peek->grant.since_ms < peek->q->clock.mono_ms)
			row->held_ms = peek->q->clock.mono_ms - peek->grant.since_ms;
		rc = session_holder(peek->q->txn, peek->q->gateway, row->holder_session,
				    &row->holder, &row->holder_address);
		if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
			return rc;
		row->extend_max_ms = peek->grant.extend_max_ms;
		if (peek->grant.kind == GRANT_TIMED &&
		    peek->grant.deadline_ms > peek->q->clock.mono_ms)
			row->lease_left_ms = peek->grant.deadline_ms - peek->q->clock.mono_ms;
	}
	if (peek->cell.kind == SLUICE__QUEUE_KIND__QUEUE_JOBS)
		return complete ? 0 : SLUICE_E_NOMEM;
	if (envelope_next(&rest, &envelope, &why) != 0)
		return store_damaged("its content is not valid");
	row->subject = query_text(envelope.subject);
	row->body_bytes = envelope.body.len;
	complete = complete && row->subject != NULL &&
		   bytes_copy(&row->key, envelope.key, envelope.key.len) &&
		   bytes_copy(&row->body, envelope.body, PEEK_BODY_BYTES_MAX);
	return complete ? 0 : SLUICE_E_NOMEM;
}

/* Whether it is one of those in order that a purge removed, and its sweep has not come to yet. */
static bool peek_purged(const struct queue_cell *cell, uint64_t seq, const struct queue_item *item)
{
	return cell->sweep_from != cell->sweep_to &&
	       !(item->flags & (ITEM_DELAYED | ITEM_OVERTAKEN)) && seq >= cell->sweep_from &&
	       seq < cell->sweep_to;
}

/* Whether it has an entry in `ready`, and whether a purge removed it whose sweep has not
 * finished. */
static int look_up(struct peek *peek, uint64_t seq, const struct queue_item *item,
		   bool *ret_excepted, bool *ret_purged)
{
	const struct queue_cell *cell = &peek->cell;
	struct sluice_slice value;
	uint32_t generation;
	struct key key;
	int rc;

	*ret_excepted = false;
	*ret_purged = peek_purged(cell, seq, item);
	if (*ret_purged || item->flags & ITEM_DELAYED || seq >= cell->head)
		return 0;
	key_ready(&key, peek->q->gateway, peek->state->queue, cell->priority ? item->priority : 0,
		  0, seq);
	rc = store_get(peek->q->txn, STORE_READY, key_slice(&key), &value);
	if (rc == 0 && !ready_decode(value, &generation))
		return store_damaged("its content is not valid");
	if (rc == 0) {
		*ret_purged = generation != cell->purge_generation;
		*ret_excepted = !*ret_purged;
	}
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* The items of one half of the queue's key range, in order. */
struct half {
	struct store_scan *scan;
	uint64_t seq; /* of value; UINT64_MAX: the end */
	struct sluice_slice value;
	bool damaged; /* there is no value */
};

static int half_next(struct peek *peek, struct half *half, uint64_t place)
{
	struct sluice_slice found = {NULL, 0};
	uint64_t number;
	int rc = store_scan_next(half->scan, &found, &half->value);

	half->seq = UINT64_MAX;
	half->damaged = rc == SLUICE_E_CORRUPT && found.len > 0;
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0 && !half->damaged)
		return rc;
	if (key_two_in(found, peek->q->gateway, peek->state->queue, &number) &&
	    (number & QUEUE_DELAYED) == place)
		half->seq = number & ~QUEUE_DELAYED;
	return 0;
}

static int half_begin(struct peek *peek, struct half *half, uint64_t place, uint64_t first)
{
	struct key key;
	int rc;

	half->seq = UINT64_MAX;
	if (first >= QUEUE_DELAYED)
		return 0;
	key_two(&key, peek->q->gateway, peek->state->queue, place | first);
	rc = store_scan_begin(peek->q->txn, STORE_ITEM, key_slice(&key), &half->scan);
	return rc != 0 ? rc : half_next(peek, half, place);
}

/* Notes an item unless the filter excludes it. excepted: it has an entry in `ready`. */
static void note_item(struct peek *peek, uint64_t place, uint64_t seq,
		      const struct queue_item *item, bool excepted, const char *want)
{
	struct peek_state *state = peek->state;
	bool delayed = item->flags & ITEM_DELAYED;
	bool may_be_leased =
		!delayed && !excepted && seq < peek->cell.head && peek->cell.leased > 0;

	if (want[0] != 0 && ((strcmp(want, "delayed") == 0) != delayed ||
			     (strcmp(want, "leased") == 0 && !may_be_leased)))
		return;
	state->noted[state->count++] =
		(struct noted){.seq = seq, .place = place, .may_be_leased = may_be_leased};
	state->undecided += may_be_leased;
}

static void note_damaged(struct peek *peek, uint64_t place, uint64_t seq)
{
	struct peek_state *state = peek->state;

	state->noted[state->count++] = (struct noted){.seq = seq, .place = place};
}

/* Both halves at once, in the order of their numbers, so that a number tells where to continue. */
static int peek_walk(struct peek *peek, struct half *ready, struct half *delayed, const char *want,
		     size_t window)
{
	struct peek_state *state = peek->state;
	const bool leased_only = strcmp(want, "leased") == 0;
	int rc = 0;

	for (bool first = true;
	     rc == 0 && state->count < window && (first || !query_spent(peek->q)); first = false) {
		bool upper = delayed->seq < ready->seq, excepted, purged;
		struct half *half = upper ? delayed : ready;
		struct queue_item item;

		/* An item that was never claimed is not leased, nor is any after it. */
		state->ended =
			half->seq == UINT64_MAX || (leased_only && half->seq >= peek->cell.head);
		if (state->ended)
			break;
		state->after = half->seq;
		rc = half->damaged ? SLUICE_E_CORRUPT : queue_item_decode(half->value, &item);
		if (rc == SLUICE_E_CORRUPT) {
			/* Its state is unknown, so no filter excludes it. */
			item = (struct queue_item){.flags = upper ? ITEM_DELAYED : 0};
			if (!peek_purged(&peek->cell, half->seq, &item))
				note_damaged(peek, upper ? QUEUE_DELAYED : 0, half->seq);
			rc = half_next(peek, half, upper ? QUEUE_DELAYED : 0);
			continue;
		}
		if (rc == 0)
			rc = look_up(peek, half->seq, &item, &excepted, &purged);
		if (rc == 0 && !purged)
			note_item(peek, upper ? QUEUE_DELAYED : 0, half->seq, &item, excepted,
				  want);
		if (rc == 0)
			rc = half_next(peek, half, upper ? QUEUE_DELAYED : 0);
	}
	return rc;
}

static int peek_items(struct peek *peek, const Sluice__QueuePeek *m, uint32_t max)
{
	struct query *q = peek->q;
	struct peek_state *state = peek->state;
	struct half ready = {.seq = UINT64_MAX}, delayed = {.seq = UINT64_MAX};
	/* Without a filter by state each noted item is a row, and one more tells that there are
	 * others. */
	size_t window = m->state[0] != 0 ? PEEK_WINDOW : max - q->reply->n_items + 1;
	int rc = half_begin(peek, &ready, 0, state->after + 1);

	if (rc == 0 && (m->state[0] == 0 || strcmp(m->state, "delayed") == 0))
		rc = half_begin(peek, &delayed, QUEUE_DELAYED, state->after + 1);
	if (rc == 0)
		rc = peek_walk(peek, &ready, &delayed, m->state, window);
	if (ready.scan != NULL)
		store_scan_end(ready.scan);
	if (delayed.scan != NULL)
		store_scan_end(delayed.scan);
	if (rc != 0)
		return rc;
	state->after_token = state->row = 0;
	q->at.phase = state->undecided > 0 ? PEEK_GRANTS : PEEK_ROWS;
	return 0;
}

/* Marks the noted items that a grant holds; they are in order. */
static void note_grant(struct peek_state *state, const struct queue_grant *grant, uint64_t token)
{
	size_t low = 0, high = state->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (state->noted[mid].seq < grant->first)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < state->count && state->noted[low].seq - grant->first < grant->bits; low++) {
		struct noted *noted = &state->noted[low];

		if (!noted->may_be_leased || noted->token != 0 || !grant_has(grant, noted->seq))
			continue;
		noted->token = token;
		state->undecided--;
	}
}

static int peek_grants(struct peek *peek)
{
	struct query *q = peek->q;
	struct peek_state *state = peek->state;
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_grant grant;
	struct key key;
	int rc;

	key_two(&key, q->gateway, state->queue, state->after_token + 1);
	rc = store_scan_begin(q->txn, STORE_GRANT, key_slice(&key), &scan);
	while (rc == 0 && state->undecided > 0 && !q->again) {
		uint64_t token;

		rc = store_scan_next(scan, &found, &value);
		if (rc == 0 && !key_two_in(found, q->gateway, state->queue, &token))
			rc = SLUICE_E_NOT_FOUND;
		if (rc == 0)
			rc = grant_decode(value, &grant);
		if (rc != 0)
			break;
		state->after_token = token;
		note_grant(state, &grant, state->after_token);
		q->again = query_spent(q);
	}
	if (scan != NULL)
		store_scan_end(scan);
	if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
		return rc;
	if (rc == SLUICE_E_NOT_FOUND || state->undecided == 0) {
		q->again = false;
		q->at.phase = PEEK_ROWS;
	}
	return 0;
}

/* The grant of a noted item as it is now; often the same as that of the one before. */
static int grant_now(struct peek *peek, const struct noted *noted, bool *ret_held)
{
	int rc;

	*ret_held = false;
	if (noted->token == 0)
		return 0;
	if (peek->grant_token != noted->token) {
		peek->grant_token = 0;
		rc = grant_get(peek->q->txn, peek->q->gateway, peek->state->queue, noted->token,
			       &peek->grant);
		if (rc != 0)
			return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
		peek->grant_token = noted->token;
	}
	*ret_held = grant_has(&peek->grant, noted->seq);
	return 0;
}

/* A damaged item does not end a peek: its row has its number, and the damage as its last
 * reason. */
static int damaged_row(struct peek *peek, uint64_t seq, bool full)
{
	Sluice__Reply *reply = peek->q->reply;
	char text[DAMAGE_TEXT_BYTES];
	Sluice__ItemInfo *row;

	if (full) {
		reply->more = true;
		return 0;
	}
	(void)snprintf(text, sizeof(text), "damaged: %s", store_last_error());
	row = malloc(sizeof(*row));
	if (row == NULL)
		return SLUICE_E_NOMEM;
	sluice__item_info__init(row);
	row->seq = seq;
	row->state = query_text(slice_text("damaged"));
	row->last_reason = query_text(slice_text(text));
	if (row->state == NULL || row->last_reason == NULL) {
		sluice__item_info__free_unpacked(row, NULL);
		return SLUICE_E_NOMEM;
	}
	reply->items[reply->n_items++] = row;
	return 0;
}

/* Adds the row of a noted item; with `full` it only sets `more`. */
static int peek_row(struct peek *peek, const struct noted *noted, const char *want, bool full)
{
	struct query *q = peek->q;
	const char *state = "ready";
	struct queue_item item;
	Sluice__ItemInfo *row;
	bool held;
	int rc = queue_item_get(q->txn, q->gateway, peek->state->queue, noted->place | noted->seq,
				&item);

	/* It became due meanwhile. */
	if (rc == SLUICE_E_NOT_FOUND && noted->place != 0)
		rc = queue_item_get(q->txn, q->gateway, peek->state->queue, noted->seq, &item);
	if (rc == SLUICE_E_CORRUPT)
		return damaged_row(peek, noted->seq, full);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	rc = grant_now(peek, noted, &held);
	if (held)
		state = "leased";
	else if (item.flags & ITEM_DELAYED)
		state = "delayed";
	if (rc != 0 || (want[0] != 0 && strcmp(want, state) != 0))
		return rc;
	if (full) {
		q->reply->more = true;
		return 0;
	}
	row = malloc(sizeof(*row));
	if (row == NULL)
		return SLUICE_E_NOMEM;
	sluice__item_info__init(row);
	rc = row_fill(peek, noted->seq, &item, state, row);
	if (rc != 0) {
		sluice__item_info__free_unpacked(row, NULL);
		return rc == SLUICE_E_CORRUPT ? damaged_row(peek, noted->seq, full) : rc;
	}
	q->reply->items[q->reply->n_items++] = row;
	return 0;
}

/* With all requested rows, the rest of the window tells whether there are more; after the window
 * there may be. */
static int peek_rows(struct peek *peek, const Sluice__QueuePeek *m, uint32_t max, bool *ret_done)
{
	struct query *q = peek->q;
	struct peek_state *state = peek->state;
	int rc = 0;

	while (rc == 0 && state->row < state->count && !q->reply->more && !q->again) {
		rc = peek_row(peek, &state->noted[state->row], m->state, q->reply->n_items == max);
		state->row++;
		q->again = rc == 0 && query_spent(q);
	}
	if (rc != 0)
		return rc;
	*ret_done = q->reply->more ||
		    (state->row == state->count && (state->ended || q->reply->n_items == max));
	if (*ret_done) {
		q->again = false;
		q->reply->more = q->reply->more || !state->ended;
	} else if (state->row == state->count) {
		state->count = state->undecided = 0;
		q->at.phase = PEEK_ITEMS;
	}
	return 0;
}

static int peek_begin(struct query *q, const Sluice__QueuePeek *m, uint32_t max)
{
	struct peek_state *state;
	uint64_t queue;
	int rc;

	if (m->state[0] != 0 && strcmp(m->state, "ready") != 0 && strcmp(m->state, "leased") != 0 &&
	    strcmp(m->state, "delayed") != 0)
		return query_refuse(q, SLUICE_E_INVAL,
				    "state is '%s'; expected ready, leased or delayed, or nothing "
				    "for all",
				    m->state);
	rc = name_find(q->txn, q->gateway, NAME_QUEUE, slice_text(m->name), &queue);
	if (rc == SLUICE_E_NOT_FOUND)
		return query_refuse(q, rc, "queue '%s' does not exist", m->name);
	if (rc != 0 || m->after == UINT64_MAX)
		return rc;
	state = calloc(1, sizeof(*state));
	q->reply->items = calloc(max, sizeof(*q->reply->items));
	q->at.state = state;
	q->at.state_free = free;
	if (state == NULL || q->reply->items == NULL)
		return SLUICE_E_NOMEM;
	state->queue = queue;
	state->after = m->after;
	q->at.phase = PEEK_ITEMS;
	return 0;
}

static int peek(struct query *q, const Sluice__QueuePeek *m)
{
	uint32_t max = rows_max(m->max);
	struct peek at = {.q = q};
	bool done = false;
	int rc = q->at.phase == 0 ? peek_begin(q, m, max) : 0;

	if (rc != 0 || q->at.phase == 0)
		return rc;
	at.state = q->at.state;
	rc = queue_cell_get(q->txn, q->gateway, at.state->queue, &at.cell);
	if (rc == SLUICE_E_NOT_FOUND)
		return 0; /* deleted meanwhile */
	while (rc == 0 && !done && !q->again) {
		if (q->at.phase == PEEK_ITEMS)
			rc = peek_items(&at, m, max);
		else if (q->at.phase == PEEK_GRANTS)
			rc = peek_grants(&at);
		else
			rc = peek_rows(&at, m, max, &done);
		q->again = q->again || (rc == 0 && !done && query_spent(q));
	}
	return rc;
}

int queue_query(struct query *q, const Sluice__Request *request)
{
	switch (request->op_case) {
	case SLUICE__REQUEST__OP_QUEUE_SHOW:
		return show(q, request->queue_show->name);
	case SLUICE__REQUEST__OP_QUEUE_LIST:
		return list(q, request->queue_list);
	case SLUICE__REQUEST__OP_QUEUE_PEEK:
		return peek(q, request->queue_peek);
	default:
		return SLUICE_E_UNSUPPORTED;
	}
}
