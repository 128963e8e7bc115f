/* SPDX-License-Identifier: Apache-2.0
 * Shared by the files of the common layer: store.c, store_load.c, store_record.c, store_undo.c.
 * Implementations do not include it. */
#ifndef SLUICE_STORE_STORE_INTERNAL_H
#define SLUICE_STORE_STORE_INTERNAL_H

#include <pthread.h>

#include "broker/store/store_cells.h"
#include "broker/store/store_impl.h"

struct table_spec {
	const char *name;
	bool hot;
	bool self_checked;
};
extern const struct table_spec store_tables[STORE_TABLE_COUNT];

struct undo;

struct store {
	const struct raw_ops *ops;
	void *impl;
	pthread_mutex_t writer; /* held while a write transaction is open */
	struct cells cells;	/* the writer's */
	store_fault_fn fault;
	void *fault_user;
};

struct store_txn {
	struct store *store;
	void *raw;
	bool write;
	bool savepoint;
	uint64_t put_bytes;
	uint64_t read_cost;
	int64_t cell_bytes; /* by which cells have grown */
	int failed;	    /* a write failed half-way: all that can follow is abort */
	struct undo *undo;  /* newest first; owned */
};

/* ---- store_record.c: records and their frames; no cells, no undo ---- */

/* What the fault hook wants this operation to answer. */
int record_fault(struct store_txn *txn, const char *operation);
/* LIMIT unless 1 to 511 bytes. */
int record_key_check(struct sluice_slice key);
/* What store_damaged() names: the record that is read, or looked for. */
void record_read_note(enum store_table table, struct sluice_slice key);
/* Checks a record and strips its frame; CORRUPT names it. */
int record_unframe(enum store_table table, struct sluice_slice key, struct sluice_slice record,
		   struct sluice_slice *ret);
int record_get(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	       struct sluice_slice *ret);
/* Both remember a failure in txn->failed. */
int record_putv(struct store_txn *txn, enum store_table table, struct sluice_slice key,
		const struct iovec *parts, int part_count);
int record_put(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	       struct sluice_slice value);
int record_del(struct store_txn *txn, enum store_table table, struct sluice_slice key);
/* Passes rc on; remembers it when it is a failure that leaves the transaction half-done. */
int record_wrote(struct store_txn *txn, int rc);

/* ---- store_load.c ---- */

/* The cell of a key in a hot table, loaded when it is not cached. */
int cell_load(struct store_txn *txn, enum store_table table, struct sluice_slice key, struct cell **ret);

/* ---- store_undo.c ---- */

/* While a savepoint is set: notes what a record of a plain table, or a cell, is before it changes. */
int undo_note_record(struct store_txn *txn, enum store_table table, struct sluice_slice key);
int undo_note_cell(struct store_txn *txn, const struct cell *cell);
void undo_drop(struct store_txn *txn);

#endif
