/* SPDX-License-Identifier: Apache-2.0
 * Counters: u64 hot cells, one per gateway and kind. */
#include "broker/core/base/counter.h"
#include "broker/core/base/number.h"
#include "broker/util/invariant.h"

int counter_get(struct store_txn *txn, uint32_t gateway, enum counter counter, uint64_t *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_hot(&key, gateway, HOT_COUNTER, (uint64_t)counter);
	rc = store_get(txn, STORE_HOT, key_slice(&key), &value);
	if (rc == SLUICE_E_NOT_FOUND) {
		*ret = 0;
		return 0;
	}
	if (rc != 0)
		return rc;
	return number_decode(value, ret);
}

int counter_set(struct apply *a, enum counter counter, uint64_t value)
{
	uint8_t buf[NUMBER_BYTES];
	struct key key;

	key_hot(&key, a->gateway, HOT_COUNTER, (uint64_t)counter);
	return store_put(a->txn, STORE_HOT, key_slice(&key), number_encode(buf, value));
}

int counter_next(struct apply *a, enum counter counter, uint64_t *ret)
{
	uint64_t value;
	int rc = counter_get(a->txn, a->gateway, counter, &value);

	if (rc != 0)
		return rc;
	invariant(value < UINT64_MAX, "counter %d of gateway %u is used up", (int)counter,
		  a->gateway);
	rc = counter_set(a, counter, value + 1);
	if (rc == 0)
		*ret = value + 1;
	return rc;
}

int counter_add(struct apply *a, enum counter counter, int64_t delta)
{
	uint64_t value;
	int rc = counter_get(a->txn, a->gateway, counter, &value);

	if (rc != 0)
		return rc;
	invariant(delta >= 0 || value >= (uint64_t)-delta,
		  "counter %d of gateway %u: %llu and %lld", (int)counter, a->gateway, ULL(value),
		  (long long)delta);
	return counter_set(a, counter, value + (uint64_t)delta);
}
