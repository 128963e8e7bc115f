/* SPDX-License-Identifier: Apache-2.0
 * Names -> numbers. The caller has checked that a name is at most NAME_BYTES_MAX bytes
 * (name_check); a longer one is never found. */
#include <stdio.h>

#include "broker/core/base/name.h"
#include "broker/core/base/number.h"
#include "broker/util/invariant.h"

enum { NAME_KEY_BYTES_MAX = STORE_KEY_BYTES_MAX - KEY_NAME_HEAD_BYTES };

struct sluice_slice cursor_name_encode(char *buf, uint64_t stream, struct sluice_slice name)
{
	char head[20 + 1 + 1];
	size_t bytes = (size_t)snprintf(head, sizeof(head), "%llu/", (unsigned long long)stream);

	memcpy(buf, head, bytes);
	if (name.len > 0)
		memcpy(buf + bytes, name.data, name.len);
	return (struct sluice_slice){buf, bytes + name.len};
}

bool cursor_name_decode(struct sluice_slice name, uint64_t *ret_stream,
			struct sluice_slice *ret_name)
{
	const char *at = name.data, *slash = name.len > 0 ? memchr(at, '/', name.len) : NULL;
	uint64_t stream = 0;

	if (slash == NULL || slash == at || slash - at > 20)
		return false;
	for (const char *digit = at; digit < slash; digit++) {
		if (*digit < '0' || *digit > '9')
			return false;
		stream = stream * 10 + (uint64_t)(*digit - '0');
	}
	*ret_stream = stream;
	*ret_name = (struct sluice_slice){slash + 1, name.len - (size_t)(slash + 1 - at)};
	return true;
}

int name_find(struct store_txn *txn, uint32_t gateway, enum name_kind kind,
	      struct sluice_slice name, uint64_t *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	if (name.len > NAME_KEY_BYTES_MAX)
		return SLUICE_E_NOT_FOUND;
	key_name(&key, gateway, (uint8_t)kind, name);
	rc = store_get(txn, STORE_NAME, key_slice(&key), &value);
	return rc != 0 ? rc : number_decode(value, ret);
}

int name_put(struct apply *a, enum name_kind kind, struct sluice_slice name, uint64_t id)
{
	uint8_t buf[NUMBER_BYTES];
	struct key key;

	if (name.len > NAME_KEY_BYTES_MAX)
		return SLUICE_E_INTERNAL;
	invariant(id != 0, "a name of kind %d stands for number 0", (int)kind);
	key_name(&key, a->gateway, (uint8_t)kind, name);
	return store_put(a->txn, STORE_NAME, key_slice(&key), number_encode(buf, id));
}

int name_del(struct apply *a, enum name_kind kind, struct sluice_slice name)
{
	struct key key;

	if (name.len > NAME_KEY_BYTES_MAX)
		return SLUICE_E_NOT_FOUND;
	key_name(&key, a->gateway, (uint8_t)kind, name);
	return store_del(a->txn, STORE_NAME, key_slice(&key));
}

int core_gateway_find(struct store_txn *txn, struct sluice_slice name, uint32_t *ret)
{
	uint64_t id;
	int rc = name_find(txn, 0, NAME_GATEWAY, name, &id);

	if (rc == 0)
		*ret = (uint32_t)id;
	return rc;
}
