/* SPDX-License-Identifier: Apache-2.0
 *
 * The common layer over both implementations: transactions, records through hot cells, scans.
 * Frames and checksums are in store_record.c, the savepoint in store_undo.c, the cells in
 * store_cells.c, loading of cells in store_load.c.
 *
 * Invariants. A pending cell is newer than its record; every read of a hot table other than by key
 * writes that table's pending cells first. A failed write leaves the transaction half-done, and
 * only abort is possible after it: later writes, a rollback and the commit return the same failure.
 */
#include <stdlib.h>
#include <string.h>

#include "broker/store/store_internal.h"
#include "broker/util/invariant.h"

struct store_scan {
	struct store_txn *txn;
	enum store_table table;
	void *cursor;
	bool begun;
	bool ended; /* the table's pages are damaged: the scan cannot continue */
	size_t from_len, last_len;
	uint8_t from[STORE_KEY_BYTES_MAX];
	uint8_t last_key[STORE_KEY_BYTES_MAX];
};

static bool is_hot(enum store_table table)
{
	return store_tables[table].hot;
}

void store_fault_set(struct store *store, store_fault_fn fn, void *user)
{
	store->fault = fn;
	store->fault_user = user;
}

/* ---- cells ---- */

/* Writes a table's pending cells in key order, so that neighbours go to the same pages. */
static int cells_flush(struct store_txn *txn, enum store_table table)
{
	struct cell_list *pending = cells_pending(&txn->store->cells, table);

	for (size_t i = 0; i < pending->count; i++) {
		struct cell *cell = pending->cells[i];
		int rc;

		if (!cell->pending)
			continue;
		invariant(cell->dirty && cell->table == table,
			  "a cell of table %d, dirty %d, is pending in %d", (int)cell->table,
			  cell->dirty, (int)table);
		if (cell->exists)
			rc = record_put(txn, table, cell_key(cell), cell_value(cell));
		else
			rc = record_del(txn, table, cell_key(cell));
		if (rc != 0 && (cell->exists || rc != SLUICE_E_NOT_FOUND))
			return rc;
		cell->pending = false;
	}
	cells_flushed(pending);
	return 0;
}

/* Growth of the records when the cell is written. */
static int64_t cell_growth(const struct cell *cell, struct sluice_slice value, bool exists)
{
	int64_t before = cell->exists ? (int64_t)(cell->key_len + cell->value_len) : 0;

	return (exists ? (int64_t)(cell->key_len + value.len) : 0) - before;
}

static int cell_change(struct store_txn *txn, enum store_table table, struct sluice_slice key,
		       struct sluice_slice value, bool exists)
{
	struct cell *cell;
	int rc = cell_load(txn, table, key, &cell);

	if (rc != 0)
		return rc;
	if (!exists && !cell->exists)
		return SLUICE_E_NOT_FOUND;
	rc = undo_note_cell(txn, cell);
	txn->cell_bytes += cell_growth(cell, value, exists);
	if (rc == 0)
		rc = cell_set(cell, value, exists);
	if (rc == 0)
		rc = cells_dirty(&txn->store->cells, cell);
	return record_wrote(txn, rc);
}

/* ---- records ---- */

/* Whether a write is allowed. */
static int write_check(struct store_txn *txn, const char *operation, struct sluice_slice key)
{
	int rc;

	if (txn->failed != 0)
		return txn->failed;
	if (!txn->write)
		return store_fail(SLUICE_E_INTERNAL, "a write in a read transaction");
	rc = record_key_check(key);
	return rc != 0 ? rc : record_wrote(txn, record_fault(txn, operation));
}

int store_get(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	      struct sluice_slice *ret)
{
	struct cell *cell;
	int rc = record_key_check(key);

	if (rc == 0)
		rc = record_fault(txn, "get");
	if (rc != 0)
		return rc;
	record_read_note(table, key);
	if (!txn->write || !is_hot(table))
		return record_get(txn, table, key, ret);
	rc = cell_load(txn, table, key, &cell);
	if (rc != 0)
		return rc;
	if (!cell->exists)
		return SLUICE_E_NOT_FOUND;
	*ret = cell_value(cell);
	return 0;
}

int store_put(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	      struct sluice_slice value)
{
	int rc = write_check(txn, "put", key);

	if (rc != 0)
		return rc;
	if (is_hot(table))
		return cell_change(txn, table, key, value, true);
	rc = undo_note_record(txn, table, key);
	return rc != 0 ? record_wrote(txn, rc) : record_put(txn, table, key, value);
}

int store_putv(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	       const struct iovec *parts, int part_count)
{
	int rc = write_check(txn, "put", key);

	if (rc == 0 && is_hot(table))
		return store_fail(SLUICE_E_INTERNAL, "putv is not for hot tables");
	if (rc == 0)
		rc = record_wrote(txn, undo_note_record(txn, table, key));
	return rc != 0 ? rc : record_putv(txn, table, key, parts, part_count);
}

int store_del(struct store_txn *txn, enum store_table table, struct sluice_slice key)
{
	int rc = write_check(txn, "del", key);

	if (rc != 0)
		return rc;
	if (is_hot(table))
		return cell_change(txn, table, key, (struct sluice_slice){NULL, 0}, false);
	rc = undo_note_record(txn, table, key);
	return rc != 0 ? record_wrote(txn, rc) : record_del(txn, table, key);
}

/* ---- scans ---- */

int store_scan_begin(struct store_txn *txn, enum store_table table, struct sluice_slice from,
		     struct store_scan **ret)
{
	struct store_scan *scan;
	int rc = from.len == 0 ? 0 : record_key_check(from);

	*ret = NULL;
	if (rc == 0)
		rc = record_fault(txn, "scan");
	if (rc == 0 && txn->write && is_hot(table))
		rc = cells_flush(txn, table);
	if (rc != 0)
		return rc;
	scan = malloc(sizeof(*scan));
	if (scan == NULL)
		return SLUICE_E_NOMEM;
	rc = txn->store->ops->cursor_open(txn->raw, table, &scan->cursor);
	if (rc != 0) {
		free(scan);
		return rc;
	}
	scan->txn = txn;
	scan->table = table;
	scan->begun = scan->ended = false;
	scan->last_len = 0;
	scan->from_len = from.len;
	if (from.len > 0)
		memcpy(scan->from, from.data, from.len);
	*ret = scan;
	return 0;
}

int store_scan_next(struct store_scan *scan, struct sluice_slice *ret_key,
		    struct sluice_slice *ret_value)
{
	const struct raw_ops *ops = scan->txn->store->ops;
	struct sluice_slice record;
	int rc = record_fault(scan->txn, "next");

	if (rc != 0)
		return rc;
	if (scan->ended)
		return SLUICE_E_NOT_FOUND;
	if (!scan->begun)
		rc = ops->cursor_seek(scan->cursor,
				      (struct sluice_slice){scan->from, scan->from_len}, ret_key,
				      &record);
	else
		rc = ops->cursor_next(scan->cursor, ret_key, &record);
	scan->begun = true;
	if (rc != 0) {
		/* A caller that continues after damaged records must not meet a damaged page for
		 * ever. */
		scan->ended = true;
		return rc;
	}
	invariant(ret_key->len <= STORE_KEY_BYTES_MAX, "a key of %zu bytes in table %d",
		  ret_key->len, (int)scan->table);
	scan->txn->read_cost += STORE_READ_COST + record.len;
	scan->last_len = ret_key->len;
	memcpy(scan->last_key, ret_key->data, ret_key->len);
	record_read_note(scan->table, *ret_key);
	return record_unframe(scan->table, *ret_key, record, ret_value);
}

int store_scan_del(struct store_scan *scan)
{
	struct store_txn *txn = scan->txn;
	struct sluice_slice key = {scan->last_key, scan->last_len};
	struct cell *cell;
	int rc = write_check(txn, "del", key);

	if (rc != 0)
		return rc;
	invariant(scan->begun && scan->last_len > 0,
		  "a scan of table %d deletes before its first record", (int)scan->table);
	if (!is_hot(scan->table)) {
		rc = undo_note_record(txn, scan->table, key);
		if (rc == 0)
			rc = txn->store->ops->cursor_del(scan->cursor);
		return record_wrote(txn, rc);
	}
	/* The scan wrote the table's cells first, so cell and record agree; both are removed. */
	rc = cell_change(txn, scan->table, key, (struct sluice_slice){NULL, 0}, false);
	if (rc != 0)
		return rc;
	rc = txn->store->ops->cursor_del(scan->cursor);
	if (rc == 0)
		rc = cell_load(txn, scan->table, key, &cell);
	if (rc == 0)
		cell->pending = false;
	return record_wrote(txn, rc);
}

void store_scan_end(struct store_scan *scan)
{
	if (scan == NULL)
		return;
	scan->txn->store->ops->cursor_close(scan->cursor);
	free(scan);
}

int store_last_le(struct store_txn *txn, enum store_table table, struct sluice_slice key,
		  size_t prefix_bytes, struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	struct sluice_slice record;
	int rc = record_key_check(key);

	if (rc == 0 && prefix_bytes > key.len)
		rc = store_fail(SLUICE_E_INTERNAL, "a prefix that is longer than its key");
	if (rc == 0)
		rc = record_fault(txn, "last_le");
	if (rc == 0 && txn->write && is_hot(table))
		rc = cells_flush(txn, table);
	if (rc == 0)
		rc = txn->store->ops->at_or_before(txn->raw, table, key, ret_key, &record);
	if (rc != 0)
		return rc;
	txn->read_cost += STORE_READ_COST + record.len;
	if (ret_key->len < prefix_bytes || memcmp(ret_key->data, key.data, prefix_bytes) != 0)
		return SLUICE_E_NOT_FOUND;
	record_read_note(table, *ret_key);
	return record_unframe(table, *ret_key, record, ret_value);
}

/* ---- transactions ---- */

static void end(struct store_txn *txn)
{
	invariant(txn->undo == NULL, "a transaction ends with an undo log");
	invariant(!txn->write || txn->store->cells.dirty.count == 0,
		  "%zu cells are dirty at a transaction's end", txn->store->cells.dirty.count);
	if (txn->write)
		(void)pthread_mutex_unlock(&txn->store->writer);
	free(txn);
}

static int begin(struct store *store, bool write, struct store_txn **ret)
{
	struct store_txn *txn = calloc(1, sizeof(*txn));
	int rc;

	if (txn == NULL)
		return SLUICE_E_NOMEM;
	txn->store = store;
	txn->write = write;
	txn->corrupt_before = record_corrupt_answers();
	rc = record_fault(txn, write ? "begin" : "begin_read");
	/* Locked longer than the implementation's lock, because the cells are updated after its
	 * commit. */
	if (rc == 0 && write && pthread_mutex_lock(&store->writer) != 0)
		rc = store_fail(SLUICE_E_INTERNAL,
				"this thread has a write transaction open already");
	if (rc != 0) {
		free(txn);
		return rc;
	}
	/* No state of the previous transaction is left. */
	invariant(!write || store->cells.dirty.count == 0,
		  "%zu cells are dirty and no transaction is open", store->cells.dirty.count);
	rc = store->ops->begin(store->impl, write, &txn->raw);
	if (rc != 0) {
		end(txn);
		return rc;
	}
	*ret = txn;
	return 0;
}

int store_begin(struct store *store, struct store_txn **ret)
{
	return begin(store, true, ret);
}

int store_begin_read(struct store *store, struct store_txn **ret)
{
	return begin(store, false, ret);
}

void store_abort(struct store_txn *txn)
{
	if (txn == NULL)
		return;
	undo_drop(txn);
	if (txn->write)
		cells_abort(&txn->store->cells);
	txn->store->ops->abort(txn->raw);
	end(txn);
}

int store_commit(struct store_txn *txn)
{
	struct store *store = txn->store;
	int rc = txn->failed != 0 ? txn->failed : record_fault(txn, "commit");

	invariant(txn->write, "a read transaction is committed");

	for (int table = 0; rc == 0 && table < STORE_TABLE_COUNT; table++)
		rc = cells_flush(txn, (enum store_table)table);
	if (rc != 0) {
		store_abort(txn);
		return rc;
	}
	undo_drop(txn);
	rc = store->ops->commit(txn->raw);
	if (rc == 0)
		cells_commit(&store->cells);
	else
		cells_abort(&store->cells);
	end(txn);
	return rc;
}

/* ---- life ---- */

int store_wrap(const struct raw_ops *ops, void *impl, const struct store_options *options,
	       struct store **ret)
{
	struct store *store = calloc(1, sizeof(*store));
	pthread_mutexattr_t checked;

	if (store == NULL) {
		ops->close(impl);
		return SLUICE_E_NOMEM;
	}
	(void)pthread_mutexattr_init(&checked);
	(void)pthread_mutexattr_settype(&checked, PTHREAD_MUTEX_ERRORCHECK);
	(void)pthread_mutex_init(&store->writer, &checked);
	(void)pthread_mutexattr_destroy(&checked);
	store->ops = ops;
	store->impl = impl;
	cells_init(&store->cells, options->cell_cache_max != 0 ? options->cell_cache_max : 200000);
	*ret = store;
	return 0;
}

void store_close(struct store *store)
{
	if (store == NULL)
		return;
	cells_fini(&store->cells);
	store->ops->close(store->impl);
	(void)pthread_mutex_destroy(&store->writer);
	free(store);
}

void store_discard(struct store *store)
{
	if (store != NULL && store->ops->discard != NULL)
		store->ops->discard(store->impl);
	store_close(store);
}

void store_facts_get(struct store *store, struct store_facts *ret)
{
	store->ops->facts(store->impl, ret);
}

uint64_t store_txn_bytes(const struct store_txn *txn)
{
	return txn->put_bytes;
}

uint64_t store_txn_read_cost(const struct store_txn *txn)
{
	return txn->read_cost;
}

uint64_t store_txn_damaged(const struct store_txn *txn)
{
	return record_corrupt_answers() - txn->corrupt_before;
}

int64_t store_txn_growth(const struct store_txn *txn)
{
	/* Cells written by a scan count twice. Pages of records in random order are half full at
	 * worst. */
	return txn->store->ops->growth(txn->raw) + (txn->cell_bytes > 0 ? 2 * txn->cell_bytes : 0);
}

int store_reserve_disk(struct store *store, uint64_t bytes, struct store_room *ret)
{
	return store->ops->reserve_disk(store->impl, bytes, ret);
}
