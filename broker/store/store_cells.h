/* SPDX-License-Identifier: Apache-2.0
 *
 * Hot cells: the records of hot tables that a write transaction touched, in memory until commit, then
 * cached. Belongs to whoever holds the write transaction.
 *
 * Invariants. A clean cell equals its record of the last commit, also when that is "none". `dirty` lists
 * each dirty cell once. A cell that is `pending` (newer than its record in the open transaction) is dirty
 * and in its table's pending list, where it may stand twice.
 */
#ifndef SLUICE_STORE_STORE_CELLS_H
#define SLUICE_STORE_STORE_CELLS_H

#include "broker/store/store.h"

/* Room for the state of a job, the largest of the records that there are many of: see test_job_claims. */
enum { CELL_VALUE_BYTES = 136 };

struct cell {
	enum store_table table;
	bool exists; /* false: the key has no record */
	bool dirty;
	bool pending;
	bool used; /* looked for since the cache was last trimmed */
	uint32_t hash;
	size_t value_len, value_capacity;
	uint8_t *value;		  /* behind the key, until it needs more room */
	struct cell *prev, *next; /* in the order of the cache */
	size_t key_len;
	uint8_t key[]; /* table number, then the key */
};

struct cell_slot {
	uint32_t hash;	   /* of cell, which is not looked at when it differs */
	struct cell *cell; /* NULL: the slot is free */
};

struct cell_list {
	struct cell **cells;
	size_t count, capacity;
	bool disordered;
};

struct cells {
	struct cell_slot *slots; /* open addressing, linear probing; slot_count is 0 or a power of 2 */
	size_t slot_count, count;
	struct cell *last; /* found or added last: what is read is mostly what is written next; may be NULL */
	struct cell *order; /* list: who is looked at first when the cache is trimmed */
	struct cell_list dirty;
	struct cell_list pending[STORE_TABLE_COUNT];
	size_t cache_max;
};

void cells_init(struct cells *cells, size_t cache_max);
void cells_fini(struct cells *cells);
struct cell *cells_find(struct cells *cells, enum store_table table, struct sluice_slice key);
/* A new cell, owned by cells; NULL: no memory. */
struct cell *cells_add(struct cells *cells, enum store_table table, struct sluice_slice key);
void cells_remove(struct cells *cells, struct cell *cell); /* one that is not dirty */
/* The cell changed: makes it dirty and pending. NOMEM leaves it neither; the transaction must then be
 * aborted. */
int cells_dirty(struct cells *cells, struct cell *cell) SLUICE_MUST_USE;
/* The pending cells of one table in key order; walk it, skip those no longer pending, then cells_flushed.
 * Borrowed. */
struct cell_list *cells_pending(struct cells *cells, enum store_table table);
void cells_flushed(struct cell_list *pending);
/* Both trim the cache to its bound: the longest unused go first. */
void cells_commit(struct cells *cells); /* dirty cells become clean */
void cells_abort(struct cells *cells);	/* dirty cells are forgotten */
/* Copies the value in, which may be a part of the old one. */
int cell_set(struct cell *cell, struct sluice_slice value, bool exists) SLUICE_MUST_USE;

static inline struct sluice_slice cell_key(const struct cell *cell)
{
	return (struct sluice_slice){cell->key + 1, cell->key_len - 1};
}

static inline struct sluice_slice cell_value(const struct cell *cell)
{
	/* Never NULL: callers compare and copy empty values like any others. */
	return (struct sluice_slice){cell->value != NULL ? cell->value : (const uint8_t *)"",
				     cell->value_len};
}

#endif
