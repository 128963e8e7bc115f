/* SPDX-License-Identifier: Apache-2.0
 *
 * The common layer: record framing with CRC, hot cells, one savepoint, scans, faults.
 *
 * Record on disk: u8 format version | u32 CRC-32C over key and value | value. Self-checked tables: the value as it is.
 *
 * Invariants. A dirty cell's value is newer than its table's. `dirty` lists every dirty cell once. While a savepoint is set, every first
 * change of a record since then has an entry in the undo log, cells and tables alike; rollback plays it backwards.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/store/store_cells.h"
#include "broker/store/store_impl.h"
#include "broker/util/bytes.h"
#include "broker/util/crc.h"

enum { RECORD_VERSION = 1, FRAME_BYTES = 5 };

struct table_spec {
	const char *name;
	bool hot;
	bool self_checked;
};
static const struct table_spec tables[STORE_TABLE_COUNT] = {
#define STORE_TABLE_SPEC(NAME, name, hot, self) {name, hot, self},
	STORE_TABLES(STORE_TABLE_SPEC)
#undef STORE_TABLE_SPEC
};

struct undo {
	struct undo *before;
	enum store_table table;
	bool existed;
	size_t key_len, value_len;
	uint8_t bytes[]; /* key, then the old value (unframed) */
};

struct store {
	const struct raw_ops *ops;
	void *impl;
	struct cells cells;
	store_fault_fn fault;
	void *fault_user;
};

struct store_txn {
	struct store *store;
	void *raw;
	bool write;
	bool savepoint;
	struct undo *undo;
};

struct store_scan {
	struct store_txn *txn;
	enum store_table table;
	void *cursor;
	bool begun;
	size_t from_len;
	uint8_t from[STORE_KEY_BYTES_MAX];
	uint8_t last_key[STORE_KEY_BYTES_MAX];
	size_t last_len;
};

static __thread char last_error[512] = "";

const char *store_last_error(void)
{
	return last_error;
}

int store_fail(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(last_error, sizeof(last_error), format, args);
	va_end(args);
	return code;
}

const char *store_table_name(enum store_table table)
{
	return tables[table].name;
}

static int corrupt(enum store_table table, struct sluice_slice key, const char *what)
{
	char hex[2 * 64 + 1];
	const uint8_t *at = key.data;
	size_t len = key.len < 64 ? key.len : 64;

	for (size_t i = 0; i < len; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", at[i]);
	hex[2 * len] = 0;
	return store_fail(SLUICE_E_CORRUPT, "table %s, key %s%s: %s", tables[table].name, hex, len < key.len ? "..." : "", what);
}

static int fault(struct store *store, const char *operation)
{
	return store->fault == NULL ? 0 : store->fault(store->fault_user, operation);
}

void store_fault_set(struct store *store, store_fault_fn fn, void *user)
{
	store->fault = fn;
	store->fault_user = user;
}

/* ---- framing ---- */

static uint32_t record_crc(struct sluice_slice key, const void *value, size_t len)
{
	return crc32c_extend(crc32c(key.data, key.len), value, len);
}

static int unframe(enum store_table table, struct sluice_slice key, struct sluice_slice record, struct sluice_slice *ret)
{
	const uint8_t *at = record.data;

	if (tables[table].self_checked) {
		*ret = record;
		return 0;
	}
	if (record.len < FRAME_BYTES)
		return corrupt(table, key, "the record is shorter than its frame of 5 bytes");
	if (at[0] != RECORD_VERSION)
		return corrupt(table, key, "the record's format version is not 1");
	if (get_be32(at + 1) != record_crc(key, at + FRAME_BYTES, record.len - FRAME_BYTES))
		return corrupt(table, key, "the CRC does not fit the record");
	*ret = (struct sluice_slice){at + FRAME_BYTES, record.len - FRAME_BYTES};
	return 0;
}

static int raw_putv(struct store_txn *txn, enum store_table table, struct sluice_slice key, const struct iovec *parts, int part_count)
{
	size_t len = 0, frame = tables[table].self_checked ? 0 : FRAME_BYTES;
	void *record;
	uint8_t *at;
	int rc;

	for (int i = 0; i < part_count; i++)
		len += parts[i].iov_len;
	rc = txn->store->ops->put(txn->raw, table, key, frame + len, &record);
	if (rc != 0)
		return rc;
	at = (uint8_t *)record + frame;
	for (int i = 0; i < part_count; i++) {
		if (parts[i].iov_len > 0)
			memcpy(at, parts[i].iov_base, parts[i].iov_len);
		at += parts[i].iov_len;
	}
	if (frame != 0) {
		uint8_t *head = record;

		head[0] = RECORD_VERSION;
		put_be32(head + 1, record_crc(key, head + FRAME_BYTES, len));
	}
	return 0;
}

static int raw_put(struct store_txn *txn, enum store_table table, struct sluice_slice key, struct sluice_slice value)
{
	struct iovec part = {(void *)(uintptr_t)value.data, value.len};

	return raw_putv(txn, table, key, &part, 1);
}

static int raw_get(struct store_txn *txn, enum store_table table, struct sluice_slice key, struct sluice_slice *ret)
{
	struct sluice_slice record;
	int rc = txn->store->ops->get(txn->raw, table, key, &record);

	return rc != 0 ? rc : unframe(table, key, record, ret);
}

/* ---- cells ---- */

/* The cell of a key in a hot table, loaded when it is not cached. */
static int cell_load(struct store_txn *txn, enum store_table table, struct sluice_slice key, struct cell **ret)
{
	struct cells *cells = &txn->store->cells;
	struct cell *cell = cells_find(cells, table, key);
	struct sluice_slice value = {NULL, 0};
	int rc;

	if (cell == NULL) {
		rc = raw_get(txn, table, key, &value);
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

static int cell_flush(struct store_txn *txn, struct cell *cell)
{
	struct sluice_slice key = cell_key(cell);
	int rc;

	if (cell->exists) {
		rc = raw_put(txn, cell->table, key, cell_value(cell));
	} else {
		rc = txn->store->ops->del(txn->raw, cell->table, key);
		if (rc == SLUICE_E_NOT_FOUND)
			rc = 0;
	}
	return rc;
}

/* Writes dirty cells of one table (or all: STORE_TABLE_COUNT) in key order, which keeps the pages together. */
static int cells_flush(struct store_txn *txn, enum store_table table)
{
	struct cells *cells = &txn->store->cells;
	int rc = cells_sort_dirty(cells);

	for (size_t i = 0; rc == 0 && i < cells->dirty_count; i++) {
		struct cell *cell = cells->dirty[i];

		if (table != STORE_TABLE_COUNT && cell->table != table)
			continue;
		if (cell->written)
			continue;
		rc = cell_flush(txn, cell);
		if (rc == 0)
			cell->written = true;
	}
	return rc;
}

/* ---- undo ---- */

static int undo_note(struct store_txn *txn, enum store_table table, struct sluice_slice key, bool existed, struct sluice_slice value)
{
	struct undo *undo = malloc(sizeof(*undo) + key.len + value.len);

	if (undo == NULL)
		return SLUICE_E_NOMEM;
	undo->before = txn->undo;
	undo->table = table;
	undo->existed = existed;
	undo->key_len = key.len;
	undo->value_len = existed ? value.len : 0;
	memcpy(undo->bytes, key.data, key.len);
	if (undo->value_len > 0)
		memcpy(undo->bytes + key.len, value.data, value.len);
	txn->undo = undo;
	return 0;
}

static int undo_note_raw(struct store_txn *txn, enum store_table table, struct sluice_slice key)
{
	struct sluice_slice value = {NULL, 0};
	int rc;

	if (!txn->savepoint)
		return 0;
	rc = raw_get(txn, table, key, &value);
	if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
		return rc;
	return undo_note(txn, table, key, rc == 0, value);
}

static void undo_drop(struct store_txn *txn)
{
	while (txn->undo != NULL) {
		struct undo *undo = txn->undo;

		txn->undo = undo->before;
		free(undo);
	}
}

int store_savepoint(struct store_txn *txn)
{
	if (txn->savepoint)
		return store_fail(SLUICE_E_INTERNAL, "a savepoint is set already");
	txn->savepoint = true;
	return 0;
}

static int undo_play(struct store_txn *txn, const struct undo *undo)
{
	struct sluice_slice key = {undo->bytes, undo->key_len}, value = {undo->bytes + undo->key_len, undo->value_len};
	struct cell *cell;
	int rc;

	if (!tables[undo->table].hot) {
		if (undo->existed)
			return raw_put(txn, undo->table, key, value);
		rc = txn->store->ops->del(txn->raw, undo->table, key);
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	}
	rc = cell_load(txn, undo->table, key, &cell);
	if (rc == 0)
		rc = cell_set(cell, value, undo->existed);
	return rc == 0 ? cells_dirty(&txn->store->cells, cell) : rc;
}

int store_rollback(struct store_txn *txn)
{
	int rc = 0;

	txn->savepoint = false;
	for (const struct undo *undo = txn->undo; undo != NULL && rc == 0; undo = undo->before)
		rc = undo_play(txn, undo);
	undo_drop(txn);
	return rc;
}

void store_release(struct store_txn *txn)
{
	txn->savepoint = false;
	undo_drop(txn);
}

/* ---- records ---- */

int store_get(struct store_txn *txn, enum store_table table, struct sluice_slice key, struct sluice_slice *ret)
{
	struct cell *cell;
	int rc;

	if (!txn->write || !tables[table].hot)
		return raw_get(txn, table, key, ret);
	rc = cell_load(txn, table, key, &cell);
	if (rc != 0)
		return rc;
	if (!cell->exists)
		return SLUICE_E_NOT_FOUND;
	*ret = cell_value(cell);
	return 0;
}

static int cell_change(struct store_txn *txn, enum store_table table, struct sluice_slice key, struct sluice_slice value, bool exists)
{
	struct cell *cell;
	int rc = cell_load(txn, table, key, &cell);

	if (rc != 0)
		return rc;
	if (!exists && !cell->exists)
		return SLUICE_E_NOT_FOUND;
	if (txn->savepoint)
		rc = undo_note(txn, table, key, cell->exists, cell_value(cell));
	if (rc == 0)
		rc = cell_set(cell, value, exists);
	return rc == 0 ? cells_dirty(&txn->store->cells, cell) : rc;
}

int store_put(struct store_txn *txn, enum store_table table, struct sluice_slice key, struct sluice_slice value)
{
	int rc = fault(txn->store, "put");

	if (rc != 0)
		return rc;
	if (tables[table].hot)
		return cell_change(txn, table, key, value, true);
	rc = undo_note_raw(txn, table, key);
	return rc != 0 ? rc : raw_put(txn, table, key, value);
}

int store_putv(struct store_txn *txn, enum store_table table, struct sluice_slice key, const struct iovec *parts, int part_count)
{
	int rc = fault(txn->store, "put");

	if (rc == 0)
		rc = undo_note_raw(txn, table, key);
	return rc != 0 ? rc : raw_putv(txn, table, key, parts, part_count);
}

int store_del(struct store_txn *txn, enum store_table table, struct sluice_slice key)
{
	int rc = fault(txn->store, "del");

	if (rc != 0)
		return rc;
	if (tables[table].hot)
		return cell_change(txn, table, key, (struct sluice_slice){NULL, 0}, false);
	rc = undo_note_raw(txn, table, key);
	return rc != 0 ? rc : txn->store->ops->del(txn->raw, table, key);
}

/* ---- scans ---- */

int store_scan_begin(struct store_txn *txn, enum store_table table, struct sluice_slice from, struct store_scan **ret)
{
	struct store_scan *scan;
	int rc = 0;

	*ret = NULL;
	if (from.len > STORE_KEY_BYTES_MAX)
		return store_fail(SLUICE_E_LIMIT, "a key of %zu bytes", from.len);
	if (txn->write && tables[table].hot)
		rc = cells_flush(txn, table);
	if (rc != 0)
		return rc;
	scan = calloc(1, sizeof(*scan));
	if (scan == NULL)
		return SLUICE_E_NOMEM;
	rc = txn->store->ops->cursor_open(txn->raw, table, &scan->cursor);
	if (rc != 0) {
		free(scan);
		return rc;
	}
	scan->txn = txn;
	scan->table = table;
	scan->from_len = from.len;
	if (from.len > 0)
		memcpy(scan->from, from.data, from.len);
	*ret = scan;
	return 0;
}

int store_scan_next(struct store_scan *scan, struct sluice_slice *ret_key, struct sluice_slice *ret_value)
{
	const struct raw_ops *ops = scan->txn->store->ops;
	struct sluice_slice record;
	int rc;

	if (!scan->begun)
		rc = ops->cursor_seek(scan->cursor, (struct sluice_slice){scan->from, scan->from_len}, ret_key, &record);
	else
		rc = ops->cursor_next(scan->cursor, ret_key, &record);
	scan->begun = true;
	if (rc != 0)
		return rc;
	scan->last_len = ret_key->len;
	memcpy(scan->last_key, ret_key->data, ret_key->len);
	return unframe(scan->table, *ret_key, record, ret_value);
}

int store_scan_del(struct store_scan *scan)
{
	struct store_txn *txn = scan->txn;
	struct sluice_slice key = {scan->last_key, scan->last_len};
	struct cell *cell;
	int rc = fault(txn->store, "del");

	if (rc != 0)
		return rc;
	if (!tables[scan->table].hot) {
		rc = undo_note_raw(txn, scan->table, key);
		return rc != 0 ? rc : txn->store->ops->cursor_del(scan->cursor);
	}
	/* The table was flushed when the scan began, so cell and record agree; both go. */
	rc = cell_change(txn, scan->table, key, (struct sluice_slice){NULL, 0}, false);
	if (rc == 0)
		rc = txn->store->ops->cursor_del(scan->cursor);
	if (rc == 0)
		rc = cell_load(txn, scan->table, key, &cell);
	if (rc == 0)
		cell->written = true;
	return rc;
}

void store_scan_end(struct store_scan *scan)
{
	if (scan == NULL)
		return;
	scan->txn->store->ops->cursor_close(scan->cursor);
	free(scan);
}

int store_last_le(struct store_txn *txn, enum store_table table, struct sluice_slice key, size_t prefix_bytes, struct sluice_slice *ret_key,
		  struct sluice_slice *ret_value)
{
	struct sluice_slice record;
	int rc = txn->write && tables[table].hot ? cells_flush(txn, table) : 0;

	if (rc == 0)
		rc = txn->store->ops->at_or_before(txn->raw, table, key, ret_key, &record);
	if (rc != 0)
		return rc;
	if (ret_key->len < prefix_bytes || memcmp(ret_key->data, key.data, prefix_bytes) != 0)
		return SLUICE_E_NOT_FOUND;
	return unframe(table, *ret_key, record, ret_value);
}

/* ---- transactions ---- */

static int begin(struct store *store, bool write, struct store_txn **ret)
{
	struct store_txn *txn = calloc(1, sizeof(*txn));
	int rc;

	if (txn == NULL)
		return SLUICE_E_NOMEM;
	txn->store = store;
	txn->write = write;
	rc = store->ops->begin(store->impl, write, &txn->raw);
	if (rc != 0) {
		free(txn);
		return rc;
	}
	*ret = txn;
	return 0;
}

int store_begin(struct store *store, struct store_txn **ret)
{
	int rc = fault(store, "begin");

	return rc != 0 ? rc : begin(store, true, ret);
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
	free(txn);
}

int store_commit(struct store_txn *txn)
{
	struct store *store = txn->store;
	int rc = fault(store, "commit");

	if (rc == 0)
		rc = cells_flush(txn, STORE_TABLE_COUNT);
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
	free(txn);
	return rc;
}

/* ---- life ---- */

int store_wrap(const struct raw_ops *ops, void *impl, const struct store_options *options, struct store **ret)
{
	struct store *store = calloc(1, sizeof(*store));

	if (store == NULL) {
		ops->close(impl);
		return SLUICE_E_NOMEM;
	}
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
	free(store);
}

void store_facts_get(struct store *store, struct store_facts *ret)
{
	store->ops->facts(store->impl, ret);
}
