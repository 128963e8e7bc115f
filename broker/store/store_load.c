/* SPDX-License-Identifier: Apache-2.0
 *
 * The cell of a key in a hot table: the cached one, or a new one with the record's value. Used by
 * the operations on records (store.c) and by the savepoint (store_undo.c).
 */
#include "broker/store/store_internal.h"

int cell_load(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	      struct cell **ret)
{
	struct cells *cells = &txn->store->cells;
	struct cell *cell = cells_find(cells, table, key);
	struct sluice_slice value = {NULL, 0};
	int rc;

	if (cell == NULL) {
		rc = record_get(txn, table, key, &value);
		if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
			return rc;
		cell = cells_add(cells, table, key);
		if (cell == NULL || cell_set(cell, value, rc == 0) != 0) {
			if (cell != NULL)
				cells_remove(cells, cell);
			return SLUICE_E_NOMEM;
		}
	}
	*ret = cell;
	return 0;
}
