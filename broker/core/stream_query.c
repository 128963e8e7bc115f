/* SPDX-License-Identifier: Apache-2.0
 * stream_show, stream_list. */
#include <stdlib.h>
#include <stdio.h>

#include "broker/core/stream.h"
#include "protocol/limits.h"

/* The edges of the default router that lead to streams, read once per query. */
struct edge_list {
	Sluice__Edge **edges;
	size_t count, capacity;
};

static void edge_list_free(struct edge_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		sluice__edge__free_unpacked(list->edges[i], NULL);
	free(list->edges);
}

static int edge_list_add(struct edge_list *list, struct sluice_slice value)
{
	Sluice__Edge *edge = sluice__edge__unpack(NULL, value.len, value.data);

	if (edge == NULL)
		return SLUICE_E_CORRUPT;
	if (edge->target_kind != SLUICE__TARGET_KIND__TARGET_STREAM || strcmp(edge->router, "default") != 0) {
		sluice__edge__free_unpacked(edge, NULL);
		return 0;
	}
	if (list->count == list->capacity) {
		size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
		Sluice__Edge **edges = realloc(list->edges, capacity * sizeof(*edges));

		if (edges == NULL) {
			sluice__edge__free_unpacked(edge, NULL);
			return SLUICE_E_NOMEM;
		}
		list->edges = edges;
		list->capacity = capacity;
	}
	list->edges[list->count++] = edge;
	return 0;
}

static int edge_list_load(struct query *q, struct edge_list *list)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	key_topo(&key, q->gateway, TOPO_EDGE, 0);
	rc = store_scan_begin(q->txn, STORE_TOPO, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		if (found.len < 5 || memcmp(found.data, key.bytes, 5) != 0)
			break;
		rc = edge_list_add(list, value);
		if (rc != 0)
			break;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int subjects_fill(Sluice__StreamInfo *info, const struct edge_list *list)
{
	size_t count = 0;

	for (size_t i = 0; i < list->count; i++)
		count += strcmp(list->edges[i]->target, info->config->name) == 0;
	info->subjects = calloc(count + 1, sizeof(*info->subjects));
	if (info->subjects == NULL)
		return SLUICE_E_NOMEM;
	for (size_t i = 0; i < list->count; i++) {
		if (strcmp(list->edges[i]->target, info->config->name) != 0)
			continue;
		info->subjects[info->n_subjects] = strdup(list->edges[i]->pattern);
		if (info->subjects[info->n_subjects] == NULL)
			return SLUICE_E_NOMEM;
		info->n_subjects++;
	}
	return 0;
}

static int cursor_row(struct query *q, Sluice__StreamInfo *info, struct sluice_slice name, uint64_t id)
{
	Sluice__CursorInfo *row = malloc(sizeof(*row));
	struct sluice_slice value;
	struct key key;
	int rc;

	if (row == NULL)
		return SLUICE_E_NOMEM;
	sluice__cursor_info__init(row);
	info->cursors[info->n_cursors++] = row;
	row->name = query_text(name);
	if (row->name == NULL)
		return SLUICE_E_NOMEM;
	key_hot_cursor(&key, q->gateway, info->id, id);
	rc = store_get(q->txn, STORE_HOT, key_slice(&key), &value);
	if (rc != 0 || value.len != 16)
		return rc != 0 && rc != SLUICE_E_NOT_FOUND ? rc : SLUICE_E_CORRUPT;
	row->offset = get_be64(value.data);
	row->time_ms = get_be64((const uint8_t *)value.data + 8);
	row->lag = info->next_offset > row->offset ? info->next_offset - row->offset : 0;
	return 0;
}

/* At most LIST_ROWS_MAX cursors; the reply says `more` when there are others. */
static int cursors_fill(struct query *q, Sluice__StreamInfo *info)
{
	char prefix[32];
	size_t prefix_bytes = (size_t)snprintf(prefix, sizeof(prefix), "%llu/", (unsigned long long)info->id);
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	info->cursors = calloc(LIMIT_LIST_ROWS_MAX, sizeof(*info->cursors));
	if (info->cursors == NULL)
		return SLUICE_E_NOMEM;
	key_name(&key, q->gateway, NAME_CURSOR, (struct sluice_slice){prefix, prefix_bytes});
	rc = store_scan_begin(q->txn, STORE_NAME, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		if (found.len < key.len || memcmp(found.data, key.bytes, key.len) != 0)
			break;
		if (info->n_cursors == LIMIT_LIST_ROWS_MAX) {
			q->reply->more = true;
			break;
		}
		if (value.len != 8)
			rc = SLUICE_E_CORRUPT;
		else
			rc = cursor_row(q, info,
					(struct sluice_slice){(const uint8_t *)found.data + key.len,
							      found.len - key.len},
					get_be64(value.data));
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
		return rc == SLUICE_E_NOT_FOUND ? SLUICE_E_CORRUPT : rc;
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
	return rc == SLUICE_E_NOT_FOUND ? SLUICE_E_CORRUPT : rc;
}

/* The reply's array has room. */
static int row_add(struct query *q, uint64_t id, const struct edge_list *edges, bool with_cursors)
{
	Sluice__StreamInfo *info = malloc(sizeof(*info));
	ProtobufCMessage *config = NULL;
	int rc;

	if (info == NULL)
		return SLUICE_E_NOMEM;
	sluice__stream_info__init(info);
	q->reply->streams[q->reply->n_streams++] = info;
	info->id = id;
	rc = topo_find(q->txn, q->gateway, TOPO_STREAM, id, &sluice__stream_config__descriptor, &config);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? SLUICE_E_CORRUPT : rc;
	info->config = (Sluice__StreamConfig *)config;
	rc = log_fill(q, info);
	if (rc == 0)
		rc = subjects_fill(info, edges);
	return rc == 0 && with_cursors ? cursors_fill(q, info) : rc;
}

static int show(struct query *q, const char *name, const struct edge_list *edges)
{
	uint64_t id;
	int rc = name_find(q->txn, q->gateway, NAME_STREAM, slice_text(name), &id);

	if (rc == SLUICE_E_NOT_FOUND)
		return query_refuse(q, rc, "stream '%.200s' does not exist", name);
	if (rc != 0)
		return rc;
	q->reply->streams = calloc(1, sizeof(*q->reply->streams));
	return q->reply->streams == NULL ? SLUICE_E_NOMEM : row_add(q, id, edges, true);
}

static int list_row(struct query *q, uint64_t id, void *edges)
{
	return row_add(q, id, edges, false);
}

static int list(struct query *q, const Sluice__StreamList *m, struct edge_list *edges)
{
	q->reply->streams = calloc(rows_max(m->max), sizeof(*q->reply->streams));
	return q->reply->streams == NULL ? SLUICE_E_NOMEM
					 : name_each(q, NAME_STREAM, m->after, m->max, list_row, edges);
}

int stream_query(struct query *q, const Sluice__Request *request)
{
	struct edge_list edges = {NULL, 0, 0};
	int rc = edge_list_load(q, &edges);

	if (rc == 0 && request->op_case == SLUICE__REQUEST__OP_STREAM_SHOW)
		rc = show(q, request->stream_show->name, &edges);
	else if (rc == 0)
		rc = list(q, request->stream_list, &edges);
	edge_list_free(&edges);
	return rc;
}
