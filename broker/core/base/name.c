/* SPDX-License-Identifier: Apache-2.0
 * Names -> numbers. The caller has checked that a name is at most NAME_BYTES_MAX bytes (name_check); a
 * longer one is never found. */
#include "broker/core/base/apply.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

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
		return store_damaged("its content is not valid");
	*ret = get_be64(value.data);
	return 0;
}

int name_put(struct apply *a, enum name_kind kind, struct sluice_slice name, uint64_t id)
{
	uint8_t bytes[8];
	struct key key;

	if (name.len > NAME_KEY_BYTES_MAX)
		return SLUICE_E_INTERNAL;
	invariant(id != 0, "a name of kind %d stands for number 0", (int)kind);
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

int name_each(struct query *q, enum name_kind kind, const char *after, uint32_t max,
	      int (*each)(struct query *q, uint64_t id, void *user), void *user)
{
	const uint32_t rows = rows_max(max);
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	if (q->at.name[0] != 0)
		after = q->at.name;
	if (strlen(after) > LIMIT_NAME_BYTES_MAX)
		return query_refuse(q, SLUICE_E_LIMIT,
				    "after has %zu bytes; expected a name, of at most %llu", strlen(after),
				    (unsigned long long)LIMIT_NAME_BYTES_MAX);
	key_name(&key, q->gateway, (uint8_t)kind, slice_text(after));
	rc = store_scan_begin(q->txn, STORE_NAME, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		if (found.len < 5 || memcmp(found.data, key.bytes, 5) != 0)
			break;
		if (after[0] != 0 && found.len == key.len && memcmp(found.data, key.bytes, key.len) == 0)
			continue;
		if (q->at.number == rows) {
			q->reply->more = true;
			break;
		}
		q->at.number++;
		rc = value.len == 8 && found.len - 5 < sizeof(q->at.name)
			     ? each(q, get_be64(value.data), user)
			     : store_damaged("its content is not valid");
		if (rc != 0)
			break;
		if (query_spent(q)) {
			memcpy(q->at.name, (const uint8_t *)found.data + 5, found.len - 5);
			q->at.name[found.len - 5] = 0;
			q->again = true;
			break;
		}
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}
