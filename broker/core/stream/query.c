/* SPDX-License-Identifier: Apache-2.0
 * stream_show, stream_list. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/name.h"
#include "broker/core/base/number.h"
#include "broker/core/base/reply.h"
#include "broker/core/base/topo.h"
#include "broker/core/stream/stream.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

/* ---- subjects: the edges from the default router, in the order in which they were made ---- */

struct subject {
	uint64_t edge;
	char *pattern; /* owned */
};
/* Subjects of one stream, gathered over several turns: q->at.state. */
struct subjects {
	struct subject *rows;
	size_t count, capacity;
	bool open; /* the subjects of the reply's last row are incomplete */
	size_t last_len;
	uint8_t last[STORE_KEY_BYTES_MAX]; /* key of the last one */
};

static void subjects_clear(struct subjects *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->rows[i].pattern);
	list->count = list->last_len = 0;
	list->open = false;
}

static void subjects_free(void *state)
{
	struct subjects *list = state;

	subjects_clear(list);
	free(list->rows);
	free(list);
}

static int subject_add(struct subjects *list, uint64_t edge, struct sluice_slice pattern)
{
	if (list->count == list->capacity) {
		size_t capacity = list->capacity == 0 ? 8 : list->capacity * 2;
		struct subject *rows = realloc(list->rows, capacity * sizeof(*rows));

		if (rows == NULL)
			return SLUICE_E_NOMEM;
		list->rows = rows;
		list->capacity = capacity;
	}
	list->rows[list->count] = (struct subject){edge, query_text(pattern)};
	if (list->rows[list->count].pattern == NULL)
		return SLUICE_E_NOMEM;
	list->count++;
	return 0;
}

/* An edge's name begins with its target and its router: a stream's own subjects are adjacent. */
static int subjects_load(struct query *q, uint64_t stream, uint64_t router, struct subjects *list)
{
	const struct edge_name from = {.target_kind = SLUICE__TARGET_KIND__TARGET_STREAM,
				       .target = stream,
				       .router = router};
	uint8_t buf[EDGE_NAME_HEAD_BYTES];
	struct store_scan *scan;
	struct sluice_slice found, value, name;
	struct edge_name edge;
	struct key key;
	uint64_t id;
	int rc;

	key_name(&key, q->gateway, NAME_EDGE, edge_name_encode(buf, &from));
	rc = store_scan_begin(q->txn, STORE_NAME,
			      list->last_len > 0 ? (struct sluice_slice){list->last, list->last_len}
						 : key_slice(&key),
			      &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		if (!key_name_in(found, q->gateway, NAME_EDGE, &name) ||
		    !edge_name_decode(name, &edge) || edge.target_kind != from.target_kind ||
		    edge.target != stream || edge.router != router)
			break;
		if (found.len == list->last_len && memcmp(found.data, list->last, found.len) == 0)
			continue;
		rc = number_read(value, &id) ? subject_add(list, id, edge.pattern)
					     : store_damaged("its content is not valid");
		if (rc != 0)
			break;
		list->last_len = found.len;
		memcpy(list->last, found.data, found.len);
		q->again = query_spent(q);
		if (q->again)
			break;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int subject_order(const void *a, const void *b)
{
	const struct subject *one = a, *other = b;

	return (one->edge > other->edge) - (one->edge < other->edge);
}

/* Moves them to the row. */
static int subjects_give(struct subjects *list, Sluice__StreamInfo *info)
{
	info->subjects = calloc(list->count + 1, sizeof(*info->subjects));
	if (info->subjects == NULL)
		return SLUICE_E_NOMEM;
	if (list->count > 0)
		qsort(list->rows, list->count, sizeof(*list->rows), subject_order);
	for (size_t i = 0; i < list->count; i++)
		info->subjects[info->n_subjects++] = list->rows[i].pattern;
	list->count = 0;
	subjects_clear(list);
	return 0;
}

/* With q->again they are incomplete: the next turn continues with the same row. */
static int subjects_fill(struct query *q, Sluice__StreamInfo *info)
{
	struct subjects *list = q->at.state;
	uint64_t router;
	int rc = name_find(q->txn, q->gateway, NAME_ROUTER, slice_text("default"), &router);

	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	if (list == NULL) {
		list = calloc(1, sizeof(*list));
		if (list == NULL)
			return SLUICE_E_NOMEM;
		q->at.state = list;
		q->at.state_free = subjects_free;
	}
	rc = subjects_load(q, info->id, router, list);
	list->open = rc == 0 && q->again;
	return rc != 0 || q->again ? rc : subjects_give(list, info);
}

/* Whether the last row of the reply is incomplete. */
static bool row_is_open(const struct query *q)
{
	const struct subjects *list = q->at.state;

	return list != NULL && list->open;
}

static int cursor_row(struct query *q, Sluice__StreamInfo *info, struct sluice_slice name,
		      uint64_t id)
{
	Sluice__CursorInfo *row = malloc(sizeof(*row));
	struct cursor_cell cursor;
	int rc;

	if (row == NULL)
		return SLUICE_E_NOMEM;
	sluice__cursor_info__init(row);
	info->cursors[info->n_cursors++] = row;
	row->name = query_text(name);
	if (row->name == NULL)
		return SLUICE_E_NOMEM;
	rc = cursor_cell_get(q->txn, q->gateway, info->id, id, &cursor);
	if (rc != 0)
		return rc != SLUICE_E_NOT_FOUND ? rc : store_damaged("its content is not valid");
	row->offset = cursor.offset;
	row->time_ms = cursor.time_ms;
	row->lag = info->next_offset > row->offset ? info->next_offset - row->offset : 0;
	return 0;
}

/* At most LIST_ROWS_MAX cursors; the reply says `more` when there are others. */
static int cursors_fill(struct query *q, Sluice__StreamInfo *info)
{
	char prefix[CURSOR_NAME_BYTES_MAX];
	struct store_scan *scan;
	struct sluice_slice found, value, name;
	struct key key;
	uint64_t stream, id;
	int rc;

	info->cursors = calloc(LIMIT_LIST_ROWS_MAX, sizeof(*info->cursors));
	if (info->cursors == NULL)
		return SLUICE_E_NOMEM;
	key_name(&key, q->gateway, NAME_CURSOR,
		 cursor_name_encode(prefix, info->id, (struct sluice_slice){NULL, 0}));
	rc = store_scan_begin(q->txn, STORE_NAME, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		if (!key_name_in(found, q->gateway, NAME_CURSOR, &name) ||
		    !cursor_name_decode(name, &stream, &name) || stream != info->id)
			break;
		if (info->n_cursors == LIMIT_LIST_ROWS_MAX) {
			q->reply->more = true;
			break;
		}
		rc = number_read(value, &id) ? cursor_row(q, info, name, id)
					     : store_damaged("its content is not valid");
		if (rc != 0)
			break;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int log_fill(struct query *q, Sluice__StreamInfo *info)
{
	struct segment_info segment;
	struct log_cell cell;
	int rc = log_cell_get(q->txn, q->gateway, info->id, &cell);

	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	info->first_offset = cell.first;
	info->next_offset = cell.next;
	info->events = cell.next - cell.first;
	info->bytes = cell.bytes;
	info->last_time_ms = cell.time_max_ms;
	if (info->events == 0)
		return 0;
	rc = segment_find(q->txn, q->gateway, info->id, cell.first, &segment);
	if (rc == 0)
		info->first_time_ms = segment.segment.time_ms;
	return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
}

/* The reply's array has room for it. */
static int row_add(struct query *q, uint64_t id, bool with_cursors)
{
	Sluice__StreamInfo *info = malloc(sizeof(*info));
	ProtobufCMessage *config = NULL;
	int rc;

	if (info == NULL)
		return SLUICE_E_NOMEM;
	sluice__stream_info__init(info);
	q->reply->streams[q->reply->n_streams++] = info;
	info->id = id;
	rc = topo_find(q->txn, q->gateway, TOPO_STREAM, id, &sluice__stream_config__descriptor,
		       &config);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	info->config = (Sluice__StreamConfig *)config;
	rc = log_fill(q, info);
	if (rc == 0)
		rc = subjects_fill(q, info);
	return rc == 0 && with_cursors && !q->again ? cursors_fill(q, info) : rc;
}

static int show(struct query *q, const char *name)
{
	uint64_t id;
	int rc;

	if (row_is_open(q)) {
		rc = subjects_fill(q, q->reply->streams[0]);
		return rc == 0 && !q->again ? cursors_fill(q, q->reply->streams[0]) : rc;
	}
	rc = name_find(q->txn, q->gateway, NAME_STREAM, slice_text(name), &id);
	if (rc == SLUICE_E_NOT_FOUND)
		return query_refuse(q, rc, "stream '%.200s' does not exist", name);
	if (rc != 0)
		return rc;
	q->reply->streams = calloc(1, sizeof(*q->reply->streams));
	return q->reply->streams == NULL ? SLUICE_E_NOMEM : row_add(q, id, true);
}

static int list_row(struct query *q, uint64_t id, void *user)
{
	(void)user;
	return row_add(q, id, false);
}

static int list(struct query *q, const Sluice__StreamList *m)
{
	if (row_is_open(q)) {
		int rc = subjects_fill(q, q->reply->streams[q->reply->n_streams - 1]);

		if (rc != 0 || q->again)
			return rc;
	}
	if (q->reply->streams == NULL)
		q->reply->streams = calloc(rows_max(m->max), sizeof(*q->reply->streams));
	return q->reply->streams == NULL
		       ? SLUICE_E_NOMEM
		       : name_each(q, NAME_STREAM, m->after, m->max, list_row, NULL);
}

int stream_query(struct query *q, const Sluice__Request *request)
{
	if (request->op_case == SLUICE__REQUEST__OP_STREAM_SHOW)
		return show(q, request->stream_show->name);
	return list(q, request->stream_list);
}
