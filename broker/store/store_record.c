/* SPDX-License-Identifier: Apache-2.0
 *
 * One record on disk: u8 format version | u32 CRC-32C over key and value | value. Self-checked
 * tables: the value as it is. The CRC covers the key, so that a record under a wrong key is found
 * as well.
 *
 * Owns the last error's text and the last key, per thread. Knows nothing of cells and savepoints.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "broker/store/store_internal.h"
#include "broker/util/bytes.h"
#include "broker/util/crc.h"
#include "broker/util/invariant.h"

enum { RECORD_VERSION = 1, FRAME_BYTES = 5, KEY_BYTES_SHOWN = 64 };

const struct table_spec store_tables[STORE_TABLE_COUNT] = {
#define STORE_TABLE_SPEC(NAME, name, hot, self) {name, hot, self},
	STORE_TABLES(STORE_TABLE_SPEC)
#undef STORE_TABLE_SPEC
};

static __thread char last_error[512] = "";
static __thread uint64_t corrupt_answers;
static __thread struct {
	enum store_table table;
	size_t len;
	uint8_t key[STORE_KEY_BYTES_MAX];
} last_read;

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
	corrupt_answers += code == SLUICE_E_CORRUPT;
	return code;
}

uint64_t record_corrupt_answers(void)
{
	return corrupt_answers;
}

const char *store_table_name(enum store_table table)
{
	return store_tables[table].name;
}

int record_fault(struct store_txn *txn, const char *operation)
{
	struct store *store = txn->store;
	int rc = store->fault == NULL ? 0 : store->fault(store->fault_user, operation);

	corrupt_answers += rc == SLUICE_E_CORRUPT;
	return rc;
}

int record_key_check(struct sluice_slice key)
{
	if (key.len > 0 && key.len <= STORE_KEY_BYTES_MAX)
		return 0;
	return store_fail(SLUICE_E_LIMIT, "a key of %zu bytes; expected 1 to %d", key.len,
			  STORE_KEY_BYTES_MAX);
}

static int corrupt(enum store_table table, struct sluice_slice key, const char *what)
{
	char hex[2 * KEY_BYTES_SHOWN + 1];
	const uint8_t *at = key.data;
	size_t len = key.len < KEY_BYTES_SHOWN ? key.len : KEY_BYTES_SHOWN;

	for (size_t i = 0; i < len; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", at[i]);
	hex[2 * len] = 0;
	return store_fail(SLUICE_E_CORRUPT, "table %s, key %s%s: %s", store_tables[table].name, hex,
			  len < key.len ? "..." : "", what);
}

void record_read_note(enum store_table table, struct sluice_slice key)
{
	last_read.table = table;
	last_read.len = key.len;
	memcpy(last_read.key, key.data, key.len);
}

int store_damaged(const char *what)
{
	return corrupt(last_read.table, (struct sluice_slice){last_read.key, last_read.len}, what);
}

static uint32_t record_crc(struct sluice_slice key, const void *value, size_t len)
{
	return crc32c_extend(crc32c(key.data, key.len), value, len);
}

int record_unframe(enum store_table table, struct sluice_slice key, struct sluice_slice record,
		   struct sluice_slice *ret)
{
	const uint8_t *at = record.data;

	if (store_tables[table].self_checked) {
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

int record_wrote(struct store_txn *txn, int rc)
{
	if (rc != 0 && rc != SLUICE_E_NOT_FOUND && txn->failed == 0)
		txn->failed = rc;
	return rc;
}

int record_putv(struct store_txn *txn, enum store_table table, struct sluice_slice key,
		const struct iovec *parts, int part_count)
{
	size_t len = 0, frame = store_tables[table].self_checked ? 0 : FRAME_BYTES;
	void *record;
	uint8_t *at;
	int rc;

	invariant(txn->write && txn->failed == 0,
		  "a record of table %d is put, write %d, failed %d", (int)table, txn->write,
		  txn->failed);
	for (int i = 0; i < part_count; i++)
		len += parts[i].iov_len;
	rc = record_wrote(txn, txn->store->ops->put(txn->raw, table, key, frame + len, &record));
	if (rc != 0)
		return rc;
	txn->put_bytes += key.len + frame + len;
	at = (uint8_t *)record + frame;
	for (int i = 0; i < part_count; i++) {
		if (parts[i].iov_len > 0)
			memcpy(at, parts[i].iov_base, parts[i].iov_len);
		at += parts[i].iov_len;
	}
	invariant((size_t)(at - (uint8_t *)record) == frame + len,
		  "a record of table %d: %zu bytes of %zu", (int)table,
		  (size_t)(at - (uint8_t *)record), frame + len);
	if (frame != 0) {
		uint8_t *head = record;

		head[0] = RECORD_VERSION;
		put_be32(head + 1, record_crc(key, head + FRAME_BYTES, len));
	}
	return 0;
}

int record_put(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	       struct sluice_slice value)
{
	struct iovec part = {(void *)(uintptr_t)value.data, value.len};

	return record_putv(txn, table, key, &part, 1);
}

int record_get(struct store_txn *txn, enum store_table table, struct sluice_slice key,
	       struct sluice_slice *ret)
{
	struct sluice_slice record;
	int rc = txn->store->ops->get(txn->raw, table, key, &record);

	txn->read_cost += STORE_READ_COST + (rc == 0 ? record.len : 0);
	return rc != 0 ? rc : record_unframe(table, key, record, ret);
}

int record_del(struct store_txn *txn, enum store_table table, struct sluice_slice key)
{
	return record_wrote(txn, txn->store->ops->del(txn->raw, table, key));
}
