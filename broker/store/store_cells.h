/* SPDX-License-Identifier: Apache-2.0
 * Hot cells: the records of hot tables that a write transaction touched, in memory until commit, then cached. Belongs to the writer's thread. */
#ifndef SLUICE_STORE_STORE_CELLS_H
#define SLUICE_STORE_STORE_CELLS_H

#include <uthash.h>

#include "broker/store/store.h"

struct cell {
	enum store_table table;
	bool exists;  /* false: the key has no record */
	bool dirty;
	bool written; /* its present value is in the open transaction already (a scan wanted it) */
	size_t value_len, value_capacity;
	uint8_t *value;
	UT_hash_handle hh;
	size_t key_len;
	uint8_t key[]; /* table number, then the key: the hash's key */
};
struct cells {
	struct cell *all;
	struct cell **dirty;
	size_t dirty_count, dirty_capacity;
	size_t cache_max;
	bool sorted;
};
void cells_init(struct cells *cells, size_t cache_max);
void cells_fini(struct cells *cells);
struct cell *cells_find(struct cells *cells, enum store_table table, struct sluice_slice key);
struct cell *cells_add(struct cells *cells, enum store_table table, struct sluice_slice key); /* NULL: no memory */
void cells_remove(struct cells *cells, struct cell *cell);				       /* one that is not dirty */
int cells_dirty(struct cells *cells, struct cell *cell) SLUICE_MUST_USE;
int cells_sort_dirty(struct cells *cells) SLUICE_MUST_USE;
void cells_commit(struct cells *cells); /* dirty cells become clean; the cache is kept within its bound */
void cells_abort(struct cells *cells);	/* dirty cells are forgotten */
int cell_set(struct cell *cell, struct sluice_slice value, bool exists) SLUICE_MUST_USE;
static inline struct sluice_slice cell_key(const struct cell *cell)
{
	return (struct sluice_slice){cell->key + 1, cell->key_len - 1};
}
static inline struct sluice_slice cell_value(const struct cell *cell)
{
	return (struct sluice_slice){cell->value, cell->value_len};
}

#endif
