/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled lifecycles from the store; the writer's cache; the number of jobs of each.
 *
 * The cache is direct-mapped: a slot is a function of (gateway, lifecycle), so that its contents
 * never depend on order.
 */
#include <stdlib.h>

#include "broker/core/base/number.h"
#include "broker/core/base/state.h"
#include "broker/core/base/topo.h"
#include "broker/core/lifecycle/lifecycle.h"

enum { CACHE_SLOTS = 64 };

struct lifecycle_cache {
	struct lifecycle *slots[CACHE_SLOTS];
};

void lifecycle_free(struct lifecycle *lifecycle)
{
	if (lifecycle == NULL)
		return;
	sluice__lifecycle_config__free_unpacked(lifecycle->config, NULL);
	free(lifecycle);
}

int lifecycle_cache_create(struct lifecycle_cache **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret != NULL ? 0 : SLUICE_E_NOMEM;
}

void lifecycle_cache_drop(struct lifecycle_cache *cache)
{
	for (size_t i = 0; i < CACHE_SLOTS; i++) {
		lifecycle_free(cache->slots[i]);
		cache->slots[i] = NULL;
	}
}

void lifecycle_cache_destroy(struct lifecycle_cache *cache)
{
	if (cache == NULL)
		return;
	lifecycle_cache_drop(cache);
	free(cache);
}

int lifecycle_load(struct store_txn *txn, uint32_t gateway, uint64_t id, struct lifecycle **ret)
{
	char why[LIFECYCLE_WHY_BYTES];
	ProtobufCMessage *message;
	struct lifecycle *lifecycle;
	int rc = topo_find(txn, gateway, TOPO_LIFECYCLE, id, &sluice__lifecycle_config__descriptor,
			   &message);

	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	lifecycle = malloc(sizeof(*lifecycle));
	if (lifecycle == NULL || lifecycle_compile(lifecycle, gateway, id,
						   (Sluice__LifecycleConfig *)message, why) != 0) {
		rc = lifecycle == NULL ? SLUICE_E_NOMEM : store_damaged("its content is not valid");
		protobuf_c_message_free_unpacked(message, NULL);
		free(lifecycle);
		return rc;
	}
	*ret = lifecycle;
	return 0;
}

int lifecycle_get(struct apply *a, uint64_t id, const struct lifecycle **ret)
{
	struct lifecycle **slot =
		&a->core->lifecycles->slots[(id + a->gateway * UINT64_C(7)) % CACHE_SLOTS];
	struct lifecycle *lifecycle = *slot;

	if (lifecycle == NULL || lifecycle->id != id || lifecycle->gateway != a->gateway) {
		int rc = lifecycle_load(a->txn, a->gateway, id, &lifecycle);

		if (rc != 0)
			return rc;
		lifecycle_free(*slot);
		*slot = lifecycle;
	}
	*ret = lifecycle;
	return 0;
}

int lifecycle_jobs_read(struct store_txn *txn, uint32_t gateway, uint64_t id, uint64_t *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_hot(&key, gateway, HOT_LIFECYCLE, id);
	rc = store_get(txn, STORE_HOT, key_slice(&key), &value);
	*ret = 0;
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	return rc != 0 ? rc : number_decode(value, ret);
}

int lifecycle_jobs_add(struct apply *a, uint64_t id, int64_t delta)
{
	uint8_t buf[NUMBER_BYTES];
	struct key key;
	uint64_t jobs;
	int rc = lifecycle_jobs_read(a->txn, a->gateway, id, &jobs);

	if (rc != 0)
		return rc;
	key_hot(&key, a->gateway, HOT_LIFECYCLE, id);
	return store_put(a->txn, STORE_HOT, key_slice(&key),
			 number_encode(buf, jobs + (uint64_t)delta));
}
