/* SPDX-License-Identifier: Apache-2.0
 * Names -> numbers. The caller has checked that a name is at most NAME_BYTES_MAX bytes (name_check); a
 * longer one is never found. */
#include "broker/core/apply.h"

enum { NAME_KEY_BYTES_MAX = STORE_KEY_BYTES_MAX - 5 };

int name_find(struct store_txn *txn, uint32_t gateway, enum name_kind kind, struct sluice_slice name,
	      uint64_t *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	if (name.len > NAME_KEY_BYTES_MAX)
		return SLUICE_E_NOT_FOUND;
	key_name(&key, gateway, (uint8_t)kind, name);
	rc = store_get(txn, STORE_NAME, key_slice(&key), &value);
	if (rc != 0)
		return rc;
	if (value.len != 8)
		return SLUICE_E_CORRUPT;
	*ret = get_be64(value.data);
	return 0;
}

int name_put(struct apply *a, enum name_kind kind, struct sluice_slice name, uint64_t id)
{
	uint8_t bytes[8];
	struct key key;

	if (name.len > NAME_KEY_BYTES_MAX)
		return SLUICE_E_INTERNAL;
	put_be64(bytes, id);
	key_name(&key, a->gateway, (uint8_t)kind, name);
	return store_put(a->txn, STORE_NAME, key_slice(&key), (struct sluice_slice){bytes, sizeof(bytes)});
}

int name_del(struct apply *a, enum name_kind kind, struct sluice_slice name)
{
	struct key key;

	if (name.len > NAME_KEY_BYTES_MAX)
		return SLUICE_E_NOT_FOUND;
	key_name(&key, a->gateway, (uint8_t)kind, name);
	return store_del(a->txn, STORE_NAME, key_slice(&key));
}

int name_list(struct query *q, enum name_kind kind, const char *after, uint64_t *ret, size_t max,
	      size_t *ret_count)
{
	size_t after_bytes = strlen(after);
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	size_t count = 0;
	int rc;

	if (after_bytes > NAME_KEY_BYTES_MAX)
		after_bytes = NAME_KEY_BYTES_MAX;
	key_name(&key, q->gateway, (uint8_t)kind, (struct sluice_slice){after, after_bytes});
	rc = store_scan_begin(q->txn, STORE_NAME, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		if (found.len < 5 || memcmp(found.data, key.bytes, 5) != 0)
			break;
		if (found.len == key.len && memcmp(found.data, key.bytes, key.len) == 0 && after_bytes > 0)
			continue;
		if (count == max) {
			q->reply->more = true;
			break;
		}
		if (value.len != 8) {
			rc = SLUICE_E_CORRUPT;
			break;
		}
		ret[count++] = get_be64(value.data);
	}
	store_scan_end(scan);
	*ret_count = count;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}
