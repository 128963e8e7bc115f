/* SPDX-License-Identifier: Apache-2.0
 * What people see of queues: show, list, and peek in every state with holder and age. Reads a snapshot; any thread. */
#include <stdlib.h>

#include "broker/core/queue.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

enum { PEEK_BODY_BYTES_MAX = 1024, PEEK_LOOKED_AT_MAX = 100000 };

/* The reply's array has room. */
static int row_add(struct query *q, uint64_t id, void *user)
{
	struct queue_cell cell;
	ProtobufCMessage *config = NULL;
	Sluice__QueueInfo *info;
	int rc = queue_cell_get(q->txn, q->gateway, id, &cell);

	(void)user;
	if (rc == 0)
		rc = topo_find(q->txn, q->gateway, TOPO_QUEUE, id, &sluice__queue_config__descriptor,
			       &config);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? SLUICE_E_CORRUPT : rc;
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
	q->reply->queues = calloc(rows_max(m->max), sizeof(*q->reply->queues));
	return q->reply->queues == NULL ? SLUICE_E_NOMEM
					: name_each(q, NAME_QUEUE, m->after, m->max, row_add, NULL);
}

/* ---- peek ---- */

struct peek {
	struct query *q;
	uint64_t queue;
	struct queue_cell cell;
	struct queue_grant grant; /* the one found last: neighbours mostly share it */
	uint64_t grant_token;
	uint32_t looked; /* records, of items and grants */
};

/* Looks for the grant of seq among those with tokens from `from` on, below `end`. */
static int grant_among(struct peek *peek, uint64_t seq, uint64_t from, uint64_t end, bool *ret_found)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	key_two(&key, peek->q->gateway, peek->queue, from);
	rc = store_scan_begin(peek->q->txn, STORE_GRANT, key_slice(&key), &scan);
	while (rc == 0 && !*ret_found) {
		uint64_t token;

		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 || found.len != 20 || memcmp(found.data, key.bytes, 12) != 0)
			break;
		token = get_be64((const uint8_t *)found.data + 12);
		if (token >= end)
			break;
		peek->looked++;
		rc = grant_decode(value, &peek->grant);
		if (rc != 0)
			break;
		peek->grant_token = token;
		*ret_found = grant_has(&peek->grant, seq);
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* Which grant holds seq, an item below head that is not ready. Items in order were granted in order, so the search goes on where the last ended. */
static int grant_of(struct peek *peek, uint64_t seq, bool *ret_found)
{
	const uint64_t last = peek->grant_token;
	int rc;

	*ret_found = last != 0 && grant_has(&peek->grant, seq);
	if (*ret_found || peek->cell.leased == 0)
		return 0;
	rc = grant_among(peek, seq, last, UINT64_MAX, ret_found);
	if (rc == 0 && !*ret_found && last != 0)
		rc = grant_among(peek, seq, 0, last, ret_found);
	if (!*ret_found)
		peek->grant_token = 0;
	return rc;
}

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

static int row_fill(struct peek *peek, uint64_t seq, const struct queue_item *item, const char *state,
		    Sluice__ItemInfo *row)
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
	row->last_reason = query_text(item->dead_reason.len > 0 ? item->dead_reason : item->last_reason);
	row->dead_from = query_text(item->dead_from);
	complete = row->state != NULL && row->last_reason != NULL && row->dead_from != NULL;
	if (peek->grant_token != 0 && strcmp(state, "leased") == 0) {
		row->token = peek->grant_token;
		row->holder_session = peek->grant.session;
		rc = session_label(peek->q->txn, peek->q->gateway, row->holder_session, &row->holder);
		if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
			return rc;
		if (peek->grant.kind == GRANT_TIMED && peek->grant.deadline_ms > peek->q->clock.mono_ms)
			row->lease_left_ms = peek->grant.deadline_ms - peek->q->clock.mono_ms;
	}
	if (peek->cell.kind == SLUICE__QUEUE_KIND__QUEUE_JOBS)
		return complete ? 0 : SLUICE_E_NOMEM;
	if (envelope_next(&rest, &envelope, &why) != 0)
		return SLUICE_E_CORRUPT;
	row->subject = query_text(envelope.subject);
	row->body_bytes = envelope.body.len;
	complete = complete && row->subject != NULL &&
		   bytes_copy(&row->key, envelope.key, envelope.key.len) &&
		   bytes_copy(&row->body, envelope.body, PEEK_BODY_BYTES_MAX);
	return complete ? 0 : SLUICE_E_NOMEM;
}

/* excepted: it has an entry in `ready`. */
static int peek_row(struct peek *peek, uint64_t seq, const struct queue_item *item, bool excepted,
		    const char *want)
{
	const char *state = "ready";
	Sluice__ItemInfo **rows, *row;
	bool held = false;
	int rc = 0;

	if (item->flags & ITEM_DELAYED)
		state = "delayed";
	else if (seq < peek->cell.head && !excepted)
		rc = grant_of(peek, seq, &held);
	if (held)
		state = "leased";
	if (rc != 0 || (want[0] != 0 && strcmp(want, state) != 0))
		return rc;
	row = malloc(sizeof(*row));
	if (row == NULL)
		return SLUICE_E_NOMEM;
	sluice__item_info__init(row);
	rc = row_fill(peek, seq, item, state, row);
	rows = rc == 0 ? realloc(peek->q->reply->items, (peek->q->reply->n_items + 1) * sizeof(*rows)) : NULL;
	if (rows == NULL) {
		sluice__item_info__free_unpacked(row, NULL);
		return rc != 0 ? rc : SLUICE_E_NOMEM;
	}
	peek->q->reply->items = rows;
	rows[peek->q->reply->n_items++] = row;
	return 0;
}

/* Whether it has an entry in `ready`, and whether a purge took it whose sweep is not through yet. */
static int look_up(struct peek *peek, uint64_t seq, const struct queue_item *item, bool *ret_excepted,
		   bool *ret_purged)
{
	const struct queue_cell *cell = &peek->cell;
	struct sluice_slice value;
	struct key key;
	int rc;

	*ret_excepted = false;
	*ret_purged = cell->sweep_from != cell->sweep_to &&
		      !(item->flags & (ITEM_DELAYED | ITEM_OVERTAKEN)) && seq >= cell->sweep_from &&
		      seq < cell->sweep_to;
	if (*ret_purged || item->flags & ITEM_DELAYED || seq >= cell->head)
		return 0;
	key_ready(&key, peek->q->gateway, peek->queue, cell->priority ? item->priority : 0, 0, seq);
	rc = store_get(peek->q->txn, STORE_READY, key_slice(&key), &value);
	if (rc == 0 && value.len != 4)
		return SLUICE_E_CORRUPT;
	if (rc == 0) {
		*ret_purged = get_be32(value.data) != cell->purge_generation;
		*ret_excepted = !*ret_purged;
	}
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* The items of one half of the queue's key range, one after the other. */
struct half {
	struct store_scan *scan;
	uint64_t seq; /* of value; UINT64_MAX: there is no more */
	struct sluice_slice value;
};

static int half_next(struct peek *peek, struct half *half, uint64_t place)
{
	struct sluice_slice found;
	const uint8_t *at;
	int rc = store_scan_next(half->scan, &found, &half->value);

	half->seq = UINT64_MAX;
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	peek->looked++;
	at = found.data;
	if (found.len == 20 && get_be32(at) == peek->q->gateway && get_be64(at + 4) == peek->queue &&
	    (get_be64(at + 12) & QUEUE_DELAYED) == place)
		half->seq = get_be64(at + 12) & ~QUEUE_DELAYED;
	return 0;
}

static int half_begin(struct peek *peek, struct half *half, uint64_t place, uint64_t first)
{
	struct key key;
	int rc;

	half->seq = UINT64_MAX;
	if (first >= QUEUE_DELAYED)
		return 0;
	key_two(&key, peek->q->gateway, peek->queue, place | first);
	rc = store_scan_begin(peek->q->txn, STORE_ITEM, key_slice(&key), &half->scan);
	return rc != 0 ? rc : half_next(peek, half, place);
}

/* Both halves at once, in the order of their numbers, so that a number says where to go on. */
static int peek_walk(struct peek *peek, const Sluice__QueuePeek *m, uint32_t max)
{
	struct half ready = {0}, delayed = {0};
	Sluice__Reply *reply = peek->q->reply;
	const uint64_t first = m->after == UINT64_MAX ? m->after : m->after + 1;
	int rc = half_begin(peek, &ready, 0, first);

	if (rc == 0)
		rc = half_begin(peek, &delayed, QUEUE_DELAYED, first);
	while (rc == 0 && (ready.seq != UINT64_MAX || delayed.seq != UINT64_MAX)) {
		bool upper = delayed.seq < ready.seq, excepted, purged;
		struct half *half = upper ? &delayed : &ready;
		struct queue_item item;

		if (reply->n_items == max || peek->looked > PEEK_LOOKED_AT_MAX) {
			reply->more = true;
			break;
		}
		rc = queue_item_decode(half->value, &item);
		if (rc == 0)
			rc = look_up(peek, half->seq, &item, &excepted, &purged);
		if (rc == 0 && !purged)
			rc = peek_row(peek, half->seq, &item, excepted, m->state);
		if (rc == 0)
			rc = half_next(peek, half, upper ? QUEUE_DELAYED : 0);
	}
	if (ready.scan != NULL)
		store_scan_end(ready.scan);
	if (delayed.scan != NULL)
		store_scan_end(delayed.scan);
	return rc;
}

static int peek(struct query *q, const Sluice__QueuePeek *m)
{
	uint32_t max = rows_max(m->max);
	struct peek at = {.q = q};
	int rc;

	if (m->state[0] != 0 && strcmp(m->state, "ready") != 0 && strcmp(m->state, "leased") != 0 &&
	    strcmp(m->state, "delayed") != 0)
		return query_refuse(q, SLUICE_E_INVAL,
				    "state is '%s'; expected ready, leased or delayed, or nothing for all",
				    m->state);
	rc = name_find(q->txn, q->gateway, NAME_QUEUE, slice_text(m->name), &at.queue);
	if (rc == SLUICE_E_NOT_FOUND)
		return query_refuse(q, rc, "queue '%s' does not exist", m->name);
	if (rc == 0)
		rc = queue_cell_get(q->txn, q->gateway, at.queue, &at.cell);
	return rc != 0 ? rc : peek_walk(&at, m, max);
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
