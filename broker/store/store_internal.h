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
	struct cells cells;	/* used by the writer only */
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
	int64_t cell_bytes;	 /* growth of the cells */
	uint64_t corrupt_before; /* record_corrupt_answers() at its beginning */
	int failed;		 /* a write failed half-way: only abort may follow */
	struct undo *undo;	 /* newest first; owned */
};

/* ---- store_record.c: records and their frames; no cells, no undo ---- */

/* The result that the fault hook injects for this operation. */
int record_fault(struct store_txn *txn, const char *operation);
/* Answers of this thread that were CORRUPT. */
uint64_t record_corrupt_answers(void);
/* LIMIT unless the key has 1 to 511 bytes. */
int record_key_check(struct sluice_slice key);
/* Sets the record that store_damaged() names: the one that is read or searched for. */
void record_read_note(enum store_table table, struct sluice_slice key);
/* Checks a record and strips its frame; CORRUPT names it. */
int record_unframe(enum store_table table, struct sluice_slice key, struct sluice_slice record,
		   struct sluice_slice *ret);
int record_get(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	       struct sluice_slice *ret);
/* Both set txn->failed on a failure. */
int record_putv(struct store_txn *txn, enum store_table table, struct sluice_slice key,
		const struct iovec *parts, int part_count);
int record_put(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	       struct sluice_slice value);
int record_del(struct store_txn *txn, enum store_table table, struct sluice_slice key);
/* Returns rc; sets txn->failed when the failure leaves the transaction half-done. */
int record_wrote(struct store_txn *txn, int rc);

/* ---- store_load.c ---- */

/* The cell of a key in a hot table, loaded when it is not cached. */
int cell_load(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	      struct cell **ret);

/* ---- store_undo.c ---- */

/* While a savepoint is set: saves the state of a record of a plain table, or of a cell, before it
 * changes. */
int undo_note_record(struct store_txn *txn, enum store_table table, struct sluice_slice key);
int undo_note_cell(struct store_txn *txn, const struct cell *cell);
void undo_drop(struct store_txn *txn);

#endif
