/* SPDX-License-Identifier: Apache-2.0
 * Hot cells, see store_cells.h. The cache is a clock: a cell that was looked for since the last trim gets
 * a second chance. */
#include "broker/store/store_cells.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Second chances in one trim, beyond one for each cell that goes: bounds what a commit has to do here. */
enum { CHANCES_MIN = 64 };

void cells_init(struct cells *cells, size_t cache_max)
{
	memset(cells, 0, sizeof(*cells));
	cells->cache_max = cache_max;
}

void cells_remove(struct cells *cells, struct cell *cell)
{
	HASH_DELETE(hh, cells->all, cell);
	DL_DELETE(cells->order, cell);
	free(cell->value);
	free(cell);
}

void cells_fini(struct cells *cells)
{
	while (cells->order != NULL)
		cells_remove(cells, cells->order);
	free(cells->dirty.cells);
	for (int i = 0; i < STORE_TABLE_COUNT; i++)
		free(cells->pending[i].cells);
}

static size_t key_make(uint8_t buf[1 + STORE_KEY_BYTES_MAX], enum store_table table, struct sluice_slice key)
{
	buf[0] = (uint8_t)table;
	memcpy(buf + 1, key.data, key.len);
	return key.len + 1;
}

struct cell *cells_find(struct cells *cells, enum store_table table, struct sluice_slice key)
{
	uint8_t buf[1 + STORE_KEY_BYTES_MAX];
	size_t len = key_make(buf, table, key);
	struct cell *cell;

	HASH_FIND(hh, cells->all, buf, len, cell);
	if (cell != NULL)
		cell->used = true;
	return cell;
}

struct cell *cells_add(struct cells *cells, enum store_table table, struct sluice_slice key)
{
	struct cell *cell = malloc(sizeof(*cell) + 1 + key.len);

	if (cell == NULL)
		return NULL;
	memset(cell, 0, sizeof(*cell));
	cell->table = table;
	cell->key_len = key_make(cell->key, table, key);
	HASH_ADD_KEYPTR(hh, cells->all, cell->key, cell->key_len, cell);
	DL_APPEND(cells->order, cell);
	return cell;
}

int cell_set(struct cell *cell, struct sluice_slice value, bool exists)
{
	if (value.len > cell->value_capacity) {
		uint8_t *grown = malloc(value.len);

		/* Not realloc: the new value may be part of the old one. */
		if (grown == NULL)
			return SLUICE_E_NOMEM;
		memcpy(grown, value.data, value.len);
		free(cell->value);
		cell->value = grown;
		cell->value_capacity = value.len;
	} else if (value.len > 0) {
		memmove(cell->value, value.data, value.len);
	}
	cell->value_len = value.len;
	cell->exists = exists;
	return 0;
}

static int compare_cells(const struct cell *left, const struct cell *right)
{
	size_t len = left->key_len < right->key_len ? left->key_len : right->key_len;
	int order = memcmp(left->key, right->key, len);

	return order != 0 ? order : (left->key_len > right->key_len) - (left->key_len < right->key_len);
}

static int compare(const void *a, const void *b)
{
	return compare_cells(*(struct cell *const *)a, *(struct cell *const *)b);
}

static int list_add(struct cell_list *list, struct cell *cell)
{
	if (list->count == list->capacity) {
		size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
		struct cell **grown = realloc(list->cells, capacity * sizeof(struct cell *));

		if (grown == NULL)
			return SLUICE_E_NOMEM;
		list->cells = grown;
		list->capacity = capacity;
	}
	list->cells[list->count++] = cell;
	return 0;
}

int cells_dirty(struct cells *cells, struct cell *cell)
{
	struct cell_list *pending = &cells->pending[cell->table];
	int rc;

	if (!cell->dirty) {
		rc = list_add(&cells->dirty, cell);
		if (rc != 0) {
			/* It differs from its record now, and no list knows it: it may not stay. */
			cells_remove(cells, cell);
			return rc;
		}
		cell->dirty = true;
	}
	if (cell->pending)
		return 0;
	rc = list_add(pending, cell);
	if (rc != 0)
		return rc;
	cell->pending = true;
	if (pending->count > 1 && compare_cells(pending->cells[pending->count - 2], cell) > 0)
		pending->disordered = true;
	return 0;
}

struct cell_list *cells_pending(struct cells *cells, enum store_table table)
{
	struct cell_list *pending = &cells->pending[table];

	if (pending->disordered)
		qsort(pending->cells, pending->count, sizeof(pending->cells[0]), compare);
	pending->disordered = false;
	return pending;
}

void cells_flushed(struct cell_list *pending)
{
	pending->count = 0;
	pending->disordered = false;
}

static void trim(struct cells *cells)
{
	size_t count = HASH_COUNT(cells->all);
	size_t chances = count > cells->cache_max ? count - cells->cache_max + CHANCES_MIN : 0;

	while (HASH_COUNT(cells->all) > cells->cache_max) {
		struct cell *cell = cells->order;

		if (!cell->used || chances == 0) {
			cells_remove(cells, cell);
			continue;
		}
		chances--;
		cell->used = false;
		DL_DELETE(cells->order, cell);
		DL_APPEND(cells->order, cell);
	}
}

void cells_commit(struct cells *cells)
{
	for (size_t i = 0; i < cells->dirty.count; i++) {
		cells->dirty.cells[i]->dirty = false;
		cells->dirty.cells[i]->pending = false;
	}
	cells->dirty.count = 0;
	for (int i = 0; i < STORE_TABLE_COUNT; i++)
		cells_flushed(&cells->pending[i]);
	trim(cells);
}

void cells_abort(struct cells *cells)
{
	for (int i = 0; i < STORE_TABLE_COUNT; i++)
		cells_flushed(&cells->pending[i]);
	for (size_t i = 0; i < cells->dirty.count; i++)
		cells_remove(cells, cells->dirty.cells[i]);
	cells->dirty.count = 0;
	trim(cells);
}
