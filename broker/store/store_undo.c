/* SPDX-License-Identifier: Apache-2.0
 *
 * The savepoint: an undo log with the state of records and cells before each change since it was
 * set; rollback plays it backwards.
 *
 * Records are kept as they are on disk, frame included, unchecked: a damaged record that was
 * deleted is restored as it was. Cells are kept as values and restored as dirty cells, also when a
 * scan has written them through meanwhile.
 */
#include <stdlib.h>
#include <string.h>

#include "broker/store/store_internal.h"
#include "broker/util/invariant.h"

struct undo {
	struct undo *before;
	enum store_table table;
	bool existed;
	size_t key_len, value_len;
	uint8_t bytes[]; /* key, then the old value */
};

static int note(struct store_txn *txn, enum store_table table, struct sluice_slice key,
		bool existed, struct sluice_slice value)
{
	size_t value_len = existed ? value.len : 0;
	struct undo *undo = malloc(sizeof(*undo) + key.len + value_len);

	invariant(txn->write && txn->savepoint, "a change is noted without a savepoint");
	if (undo == NULL)
		return SLUICE_E_NOMEM;
	undo->before = txn->undo;
	undo->table = table;
	undo->existed = existed;
	undo->key_len = key.len;
	undo->value_len = value_len;
	memcpy(undo->bytes, key.data, key.len);
	if (value_len > 0)
		memcpy(undo->bytes + key.len, value.data, value_len);
	txn->undo = undo;
	return 0;
}

int undo_note_record(struct store_txn *txn, enum store_table table, struct sluice_slice key)
{
	struct sluice_slice record = {NULL, 0};
	int rc;

	if (!txn->savepoint)
		return 0;
	rc = txn->store->ops->get(txn->raw, table, key, &record);
	if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
		return rc;
	return note(txn, table, key, rc == 0, record);
}

int undo_note_cell(struct store_txn *txn, const struct cell *cell)
{
	return txn->savepoint
		       ? note(txn, cell->table, cell_key(cell), cell->exists, cell_value(cell))
		       : 0;
}

void undo_drop(struct store_txn *txn)
{
	while (txn->undo != NULL) {
		struct undo *undo = txn->undo;

		txn->undo = undo->before;
		free(undo);
	}
}

static int play(struct store_txn *txn, const struct undo *undo)
{
	struct sluice_slice key = {undo->bytes, undo->key_len},
			    was = {undo->bytes + undo->key_len, undo->value_len};
	const struct raw_ops *ops = txn->store->ops;
	struct cell *cell;
	void *record;
	int rc;

	if (store_tables[undo->table].hot) {
		rc = cell_load(txn, undo->table, key, &cell);
		if (rc == 0)
			rc = cell_set(cell, was, undo->existed);
		return rc != 0 ? rc : cells_dirty(&txn->store->cells, cell);
	}
	if (!undo->existed) {
		rc = ops->del(txn->raw, undo->table, key);
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	}
	rc = ops->put(txn->raw, undo->table, key, was.len, &record);
	if (rc == 0 && was.len > 0)
		memcpy(record, was.data, was.len);
	return rc;
}

int store_savepoint(struct store_txn *txn)
{
	if (txn->savepoint)
		return store_fail(SLUICE_E_INTERNAL, "a savepoint is set already");
	invariant(txn->undo == NULL, "a savepoint begins with an undo log");
	txn->savepoint = true;
	return 0;
}

int store_rollback(struct store_txn *txn)
{
	int rc = txn->failed != 0 ? txn->failed : record_fault(txn, "rollback");

	if (!txn->savepoint)
		return store_fail(SLUICE_E_INTERNAL, "there is no savepoint to roll back to");
	for (const struct undo *undo = txn->undo; undo != NULL && rc == 0; undo = undo->before)
		rc = play(txn, undo);
	store_release(txn);
	return record_wrote(txn, rc);
}

void store_release(struct store_txn *txn)
{
	txn->savepoint = false;
	undo_drop(txn);
}
