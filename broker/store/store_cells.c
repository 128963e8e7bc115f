/* SPDX-License-Identifier: Apache-2.0
 * Hot cells, see store_cells.h. */
#include "broker/store/store_cells.h"

#include <stdlib.h>
#include <string.h>

void cells_init(struct cells *cells, size_t cache_max)
{
	memset(cells, 0, sizeof(*cells));
	cells->cache_max = cache_max;
}

static void cell_free(struct cell *cell)
{
	free(cell->value);
	free(cell);
}

void cells_remove(struct cells *cells, struct cell *cell)
{
	HASH_DELETE(hh, cells->all, cell);
	cell_free(cell);
}

void cells_fini(struct cells *cells)
{
	struct cell *cell, *next;

	HASH_ITER(hh, cells->all, cell, next)
		cells_remove(cells, cell);
	free(cells->dirty);
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

int cells_dirty(struct cells *cells, struct cell *cell)
{
	cell->written = false;
	if (cell->dirty)
		return 0;
	if (cells->dirty_count == cells->dirty_capacity) {
		size_t capacity = cells->dirty_capacity == 0 ? 256 : cells->dirty_capacity * 2;
		struct cell **dirty = realloc(cells->dirty, capacity * sizeof(struct cell *));

		if (dirty == NULL)
			return SLUICE_E_NOMEM;
		cells->dirty = dirty;
		cells->dirty_capacity = capacity;
	}
	cells->dirty[cells->dirty_count++] = cell;
	cells->sorted = false;
	cell->dirty = true;
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct cell *left = *(struct cell *const *)a, *right = *(struct cell *const *)b;
	size_t len = left->key_len < right->key_len ? left->key_len : right->key_len;
	int order = memcmp(left->key, right->key, len);

	return order != 0 ? order : (left->key_len > right->key_len) - (left->key_len < right->key_len);
}

int cells_sort_dirty(struct cells *cells)
{
	if (!cells->sorted && cells->dirty_count > 1)
		qsort(cells->dirty, cells->dirty_count, sizeof(cells->dirty[0]), compare);
	cells->sorted = true;
	return 0;
}

void cells_commit(struct cells *cells)
{
	struct cell *cell, *next;

	for (size_t i = 0; i < cells->dirty_count; i++) {
		cells->dirty[i]->dirty = false;
		cells->dirty[i]->written = false;
	}
	cells->dirty_count = 0;
	/* The hash is in order of arrival, so the oldest go first; half, so that this is rare. */
	if (HASH_COUNT(cells->all) <= cells->cache_max)
		return;
	HASH_ITER(hh, cells->all, cell, next) {
		if (HASH_COUNT(cells->all) <= cells->cache_max / 2)
			break;
		cells_remove(cells, cell);
	}
}

void cells_abort(struct cells *cells)
{
	for (size_t i = 0; i < cells->dirty_count; i++)
		cells_remove(cells, cells->dirty[i]);
	cells->dirty_count = 0;
}
