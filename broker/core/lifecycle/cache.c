/* SPDX-License-Identifier: Apache-2.0
 *
 * Machines out of the store, compiled; the writer's cache; and how many jobs use each.
 *
 * The cache is direct-mapped: a slot is a function of (gateway, machine), so that its content never depends
 * on order.
 */
#include <stdlib.h>

#include "broker/core/base/number.h"
#include "broker/core/base/state.h"
#include "broker/core/base/topo.h"
#include "broker/core/lifecycle/lifecycle.h"

enum { CACHE_SLOTS = 64 };

struct machine_cache {
	struct machine *slots[CACHE_SLOTS];
};

void machine_free(struct machine *machine)
{
	if (machine == NULL)
		return;
	sluice__machine_config__free_unpacked(machine->config, NULL);
	free(machine);
}

int machine_cache_create(struct machine_cache **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret != NULL ? 0 : SLUICE_E_NOMEM;
}

void machine_cache_drop(struct machine_cache *cache)
{
	for (size_t i = 0; i < CACHE_SLOTS; i++) {
		machine_free(cache->slots[i]);
		cache->slots[i] = NULL;
	}
}

void machine_cache_destroy(struct machine_cache *cache)
{
	if (cache == NULL)
		return;
	machine_cache_drop(cache);
	free(cache);
}

int machine_load(struct store_txn *txn, uint32_t gateway, uint64_t id, struct machine **ret)
{
	char why[MACHINE_WHY_BYTES];
	ProtobufCMessage *message;
	struct machine *machine;
	int err = topo_find(txn, gateway, TOPO_MACHINE, id, &sluice__machine_config__descriptor, &message);

	if (err != 0)
		return err == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : err;
	machine = malloc(sizeof(*machine));
	if (machine == NULL ||
	    machine_compile(machine, gateway, id, (Sluice__MachineConfig *)message, why) != 0) {
		err = machine == NULL ? SLUICE_E_NOMEM : store_damaged("its content is not valid");
		protobuf_c_message_free_unpacked(message, NULL);
		free(machine);
		return err;
	}
	*ret = machine;
	return 0;
}

int machine_get(struct apply *a, uint64_t id, const struct machine **ret)
{
	struct machine **slot = &a->core->machines->slots[(id + a->gateway * UINT64_C(7)) % CACHE_SLOTS];
	struct machine *machine = *slot;

	if (machine == NULL || machine->id != id || machine->gateway != a->gateway) {
		int err = machine_load(a->txn, a->gateway, id, &machine);

		if (err != 0)
			return err;
		machine_free(*slot);
		*slot = machine;
	}
	*ret = machine;
	return 0;
}

int machine_jobs_read(struct store_txn *txn, uint32_t gateway, uint64_t id, uint64_t *ret)
{
	struct sluice_slice value;
	struct key key;
	int err;

	key_hot(&key, gateway, HOT_MACHINE, id);
	err = store_get(txn, STORE_HOT, key_slice(&key), &value);
	*ret = 0;
	if (err == SLUICE_E_NOT_FOUND)
		return 0;
	return err != 0 ? err : number_decode(value, ret);
}

int machine_jobs_add(struct apply *a, uint64_t id, int64_t delta)
{
	uint8_t buf[NUMBER_BYTES];
	struct key key;
	uint64_t jobs;
	int err = machine_jobs_read(a->txn, a->gateway, id, &jobs);

	if (err != 0)
		return err;
	key_hot(&key, a->gateway, HOT_MACHINE, id);
	return store_put(a->txn, STORE_HOT, key_slice(&key), number_encode(buf, jobs + (uint64_t)delta));
}
