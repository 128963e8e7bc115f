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
};

/* Which grant holds seq: grants are few against items, and one serves up to 1,024 of them. */
static int grant_of(struct peek *peek, uint64_t seq, bool *ret_found)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	*ret_found = peek->grant_token != 0 && grant_has(&peek->grant, seq);
	if (*ret_found || peek->cell.leased == 0)
		return 0;
	key_one(&key, peek->q->gateway, peek->queue);
	rc = store_scan_begin(peek->q->txn, STORE_GRANT, key_slice(&key), &scan);
	while (rc == 0) {
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 || found.len != 20 || memcmp(found.data, key.bytes, 12) != 0)
			break;
		rc = grant_decode(value, &peek->grant);
		if (rc != 0)
			break;
		peek->grant_token = get_be64((const uint8_t *)found.data + 12);
		if (grant_has(&peek->grant, seq)) {
			*ret_found = true;
			break;
		}
	}
	if (!*ret_found)
		peek->grant_token = 0;
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
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

static int peek_row(struct peek *peek, uint64_t seq, const struct queue_item *item, const char *want)
{
	const char *state = "ready";
	Sluice__ItemInfo **rows, *row;
	bool held = false;
	int rc = 0;

	if (item->flags & ITEM_DELAYED)
		state = "delayed";
	else if (seq < peek->cell.head)
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

/* By a purge whose sweep is not through yet. */
static int is_purged(struct peek *peek, uint64_t seq, const struct queue_item *item, bool *ret)
{
	const struct queue_cell *cell = &peek->cell;
	struct sluice_slice value;
	struct key key;
	int rc;

	*ret = cell->sweep_from != cell->sweep_to && !(item->flags & (ITEM_DELAYED | ITEM_OVERTAKEN)) &&
	       seq >= cell->sweep_from && seq < cell->sweep_to;
	if (*ret || cell->sweep_from == cell->sweep_to || item->flags & ITEM_DELAYED)
		return 0;
	key_ready(&key, peek->q->gateway, peek->queue, cell->priority ? item->priority : 0, 0, seq);
	rc = store_get(peek->q->txn, STORE_READY, key_slice(&key), &value);
	if (rc == 0 && value.len != 4)
		return SLUICE_E_CORRUPT;
	if (rc == 0)
		*ret = get_be32(value.data) != cell->purge_generation;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int peek_walk(struct peek *peek, const Sluice__QueuePeek *m, uint32_t max)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_item item;
	struct key key;
	int rc;

	key_two(&key, peek->q->gateway, peek->queue, m->after + 1);
	rc = store_scan_begin(peek->q->txn, STORE_ITEM, key_slice(&key), &scan);
	for (uint32_t looked = 0; rc == 0; looked++) {
		uint64_t seq;
		bool purged;

		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 || found.len != 20 || memcmp(found.data, key.bytes, 12) != 0)
			break;
		if (peek->q->reply->n_items == max || looked == PEEK_LOOKED_AT_MAX) {
			peek->q->reply->more = true;
			break;
		}
		seq = get_be64((const uint8_t *)found.data + 12);
		rc = queue_item_decode(value, &item);
		if (rc == 0)
			rc = is_purged(peek, seq, &item, &purged);
		if (rc == 0 && !purged)
			rc = peek_row(peek, seq, &item, m->state);
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
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
