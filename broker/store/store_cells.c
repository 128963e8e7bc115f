/* SPDX-License-Identifier: Apache-2.0
 *
 * Hot cells, see store_cells.h. The cache is a clock: a cell that was found since the last trim
 * gets a second chance.
 *
 * A command finds several cells, mostly outside of the processor's caches: so the hash is one
 * array, a search touches one place in it and the cell itself, and a short value is stored behind
 * its key.
 */
#include "broker/store/store_cells.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/util/bytes.h"
#include "broker/util/invariant.h"

/* Second chances in one trim, in addition to one for each cell removed: bounds the work of a
 * commit. */
enum { CHANCES_MIN = 64 };

enum { SLOTS_MIN = 256 };

void cells_init(struct cells *cells, size_t cache_max)
{
	memset(cells, 0, sizeof(*cells));
	cells->cache_max = cache_max;
}

/* ---- the hash ---- */

static uint64_t hash_word(uint64_t hash, const uint8_t *at)
{
	hash = (hash ^ get_be64(at)) * 0x9e3779b97f4a7c15u;
	return hash ^ hash >> 32;
}

/* By words; the last one overlaps the one before. Nearly all keys have 12 or 13 bytes. A key's last
 * byte differs most often. The low bits of a product, which choose the slot, depend only on the low
 * bits of its factors: so the words are big-endian. */
static uint32_t key_hash(enum store_table table, struct sluice_slice key)
{
	const uint8_t *at = key.data, *end = at + key.len;
	uint64_t hash = ((uint64_t)table << 32) + key.len;
	uint8_t padded[sizeof(uint64_t)] = {0};

	if (key.len < sizeof(uint64_t)) {
		for (size_t i = 0; i < key.len; i++)
			padded[i] = at[i];
		return (uint32_t)hash_word(hash, padded);
	}
	for (; (size_t)(end - at) > sizeof(uint64_t); at += sizeof(uint64_t))
		hash = hash_word(hash, at);
	return (uint32_t)hash_word(hash, end - sizeof(uint64_t));
}

/* Nearly all keys have 12 or 13 bytes, and the last ones differ most often. */
static bool is_equal(const uint8_t *left, const uint8_t *right, size_t len)
{
	if (len < sizeof(uint64_t) || len > 2 * sizeof(uint64_t))
		return memcmp(left, right, len) == 0;
	return get_be64(left + len - sizeof(uint64_t)) ==
		       get_be64(right + len - sizeof(uint64_t)) &&
	       get_be64(left) == get_be64(right);
}

static bool is_of(const struct cell *cell, enum store_table table, struct sluice_slice key)
{
	return cell->table == table && cell->key_len == key.len + 1 &&
	       is_equal(cell->key + 1, key.data, key.len);
}

/* The caller ensures a free slot. */
static void slot_fill(struct cells *cells, struct cell *cell)
{
	size_t mask = cells->slot_count - 1, i = cell->hash & mask;

	invariant(cells->count < cells->slot_count, "%zu cells in %zu slots", cells->count,
		  cells->slot_count);
	while (cells->slots[i].cell != NULL)
		i = (i + 1) & mask;
	cells->slots[i] = (struct cell_slot){cell->hash, cell};
}

/* Entries displaced by the removed one move back, so that no search ends early. */
static void slot_free(struct cells *cells, const struct cell *cell)
{
	size_t mask = cells->slot_count - 1, hole = cell->hash & mask;

	while (cells->slots[hole].cell != cell) {
		invariant(cells->slots[hole].cell != NULL, "a cell of table %d is in no slot",
			  (int)cell->table);
		hole = (hole + 1) & mask;
	}
	for (size_t i = (hole + 1) & mask; cells->slots[i].cell != NULL; i = (i + 1) & mask) {
		size_t wanted = cells->slots[i].hash & mask;

		if (((i - wanted) & mask) < ((i - hole) & mask))
			continue;
		cells->slots[hole] = cells->slots[i];
		hole = i;
	}
	cells->slots[hole].cell = NULL;
}

/* A quarter of the slots stays free. */
static int slots_grow(struct cells *cells)
{
	size_t count = cells->slot_count == 0 ? SLOTS_MIN : cells->slot_count * 2;
	struct cell_slot *slots;

	if (cells->count < cells->slot_count / 4 * 3)
		return 0;
	slots = calloc(count, sizeof(*slots));
	if (slots == NULL)
		return SLUICE_E_NOMEM;
	free(cells->slots);
	cells->slots = slots;
	cells->slot_count = count;
	for (struct cell *cell = cells->order; cell != NULL; cell = cell->next)
		slot_fill(cells, cell);
	return 0;
}

/* ---- cells ---- */

static uint8_t *room_behind(struct cell *cell)
{
	return cell->key + cell->key_len;
}

static void value_free(struct cell *cell)
{
	if (cell->value != room_behind(cell))
		free(cell->value);
}

void cells_remove(struct cells *cells, struct cell *cell)
{
	invariant(cells->count > 0, "a cell of table %d goes, and there is none", (int)cell->table);
	slot_free(cells, cell);
	if (cells->last == cell)
		cells->last = NULL;
	cells->count--;
	DL_DELETE(cells->order, cell);
	value_free(cell);
	free(cell);
}

void cells_fini(struct cells *cells)
{
	while (cells->order != NULL)
		cells_remove(cells, cells->order);
	free(cells->slots);
	free(cells->dirty.cells);
	for (int i = 0; i < STORE_TABLE_COUNT; i++)
		free(cells->pending[i].cells);
}

struct cell *cells_find(struct cells *cells, enum store_table table, struct sluice_slice key)
{
	size_t mask = cells->slot_count - 1;
	uint32_t hash;

	if (cells->last != NULL && is_of(cells->last, table, key)) {
		cells->last->used = true;
		return cells->last;
	}
	if (cells->slot_count == 0)
		return NULL;
	hash = key_hash(table, key);
	for (size_t i = hash & mask; cells->slots[i].cell != NULL; i = (i + 1) & mask) {
		struct cell *cell = cells->slots[i].cell;

		if (cells->slots[i].hash != hash || !is_of(cell, table, key))
			continue;
		cell->used = true;
		cells->last = cell;
		return cell;
	}
	return NULL;
}

struct cell *cells_add(struct cells *cells, enum store_table table, struct sluice_slice key)
{
	struct cell *cell = slots_grow(cells) == 0
				    ? malloc(sizeof(*cell) + 1 + key.len + CELL_VALUE_BYTES)
				    : NULL;

	if (cell == NULL)
		return NULL;
	memset(cell, 0, sizeof(*cell));
	cell->table = table;
	cell->hash = key_hash(table, key);
	cell->key_len = key.len + 1;
	cell->key[0] = (uint8_t)table;
	memcpy(cell->key + 1, key.data, key.len);
	cell->value = room_behind(cell);
	cell->value_capacity = CELL_VALUE_BYTES;
	slot_fill(cells, cell);
	cells->count++;
	cells->last = cell;
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
		value_free(cell);
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

	return order != 0 ? order
			  : (left->key_len > right->key_len) - (left->key_len < right->key_len);
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
	invariant(list->count < list->capacity, "%zu cells in a list for %zu", list->count,
		  list->capacity);
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
			/* The value differs from the record and the cell is in no list: it cannot
			 * stay in the cache. */
			cells_remove(cells, cell);
			return rc;
		}
		cell->dirty = true;
	}
	invariant(cell->dirty && cells->dirty.count > 0,
		  "a cell of table %d is pending and not dirty", (int)cell->table);
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
	size_t chances =
		cells->count > cells->cache_max ? cells->count - cells->cache_max + CHANCES_MIN : 0;

	while (cells->count > cells->cache_max) {
		struct cell *cell = cells->order;

		invariant(!cell->dirty && !cell->pending,
			  "a cell of table %d is trimmed and not written", (int)cell->table);
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
		struct cell *cell = cells->dirty.cells[i];

		invariant(cell->dirty && !cell->pending,
			  "a cell of table %d is committed dirty %d and not written %d",
			  (int)cell->table, cell->dirty, cell->pending);
		cell->dirty = false;
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
