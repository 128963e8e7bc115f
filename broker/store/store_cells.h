/* SPDX-License-Identifier: Apache-2.0
 *
 * Hot cells: the records of hot tables that a write transaction touched, in memory until commit,
 * then cached. Owned by the holder of the write transaction.
 *
 * Invariants. A clean cell equals its record of the last commit, also when there is none. `dirty`
 * lists each dirty cell once. A cell that is `pending` (newer than its record in the open
 * transaction) is dirty and in its table's pending list, possibly twice.
 */
#ifndef SLUICE_STORE_STORE_CELLS_H
#define SLUICE_STORE_STORE_CELLS_H

#include "broker/store/store.h"

/* Fits the state of a job, the largest of the frequent records: see test_job_claims. */
enum { CELL_VALUE_BYTES = 136 };

struct cell {
	enum store_table table;
	bool exists; /* false: the key has no record */
	bool dirty;
	bool pending;
	bool used; /* found since the cache was last trimmed */
	uint32_t hash;
	size_t value_len, value_capacity;
	uint8_t *value;		  /* behind the key, until it needs more space */
	struct cell *prev, *next; /* in the order of the cache */
	size_t key_len;
	uint8_t key[]; /* table number, then the key */
};

struct cell_slot {
	uint32_t hash;	   /* of cell; a different hash saves the comparison of keys */
	struct cell *cell; /* NULL: the slot is free */
};

struct cell_list {
	struct cell **cells;
	size_t count, capacity;
	bool disordered;
};

struct cells {
	struct cell_slot
		*slots; /* open addressing, linear probing; slot_count is 0 or a power of 2 */
	size_t slot_count, count;
	/* found or added last: a record that was read is usually written next; may be NULL */
	struct cell *last;
	struct cell *order; /* list: the order in which trimming checks the cells */
	struct cell_list dirty;
	struct cell_list pending[STORE_TABLE_COUNT];
	size_t cache_max;
};

void cells_init(struct cells *cells, size_t cache_max);
void cells_fini(struct cells *cells);
struct cell *cells_find(struct cells *cells, enum store_table table, struct sluice_slice key);
/* A new cell, owned by cells; NULL: no memory. */
struct cell *cells_add(struct cells *cells, enum store_table table, struct sluice_slice key);
void cells_remove(struct cells *cells, struct cell *cell); /* the cell must not be dirty */
/* Marks a changed cell as dirty and pending. NOMEM: it is neither; the transaction must then be
 * aborted. */
int cells_dirty(struct cells *cells, struct cell *cell) SLUICE_MUST_USE;
/* The pending cells of one table in key order: walk the list, skip cells that are no longer
 * pending, then call cells_flushed. Borrowed. */
struct cell_list *cells_pending(struct cells *cells, enum store_table table);
void cells_flushed(struct cell_list *pending);
/* Both trim the cache to its bound: the cells unused for longest go first. */
void cells_commit(struct cells *cells); /* dirty cells become clean */
void cells_abort(struct cells *cells);	/* dirty cells are dropped */
/* Copies the value, which may be a part of the old one. */
int cell_set(struct cell *cell, struct sluice_slice value, bool exists) SLUICE_MUST_USE;

static inline struct sluice_slice cell_key(const struct cell *cell)
{
	return (struct sluice_slice){cell->key + 1, cell->key_len - 1};
}

static inline struct sluice_slice cell_value(const struct cell *cell)
{
	/* Never NULL: callers compare and copy empty values like others. */
	return (struct sluice_slice){cell->value != NULL ? cell->value : (const uint8_t *)"",
				     cell->value_len};
}

#endif
