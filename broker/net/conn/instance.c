/* SPDX-License-Identifier: Apache-2.0
 * Clients by their ids, under one lock. INSTANCES_MAX clients without a connection are kept; beyond
 * that the one that has been without for longest is dropped. */
#include "broker/net/conn/instance.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/util/hash.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

struct instance {
	uint8_t id[INSTANCE_BYTES];
	uint64_t attempt; /* the last accepted one */
	uint64_t conns;
	struct instance *prev, *next; /* while conns is 0 */
	UT_hash_handle hh;
};

struct instances {
	pthread_mutex_t lock;
	struct instance *all;
	struct instance *gone; /* utlist, in the order in which they lost their connection */
	size_t gone_count;
};

int instances_create(struct instances **ret)
{
	struct instances *instances = calloc(1, sizeof(*instances));

	if (instances == NULL || pthread_mutex_init(&instances->lock, NULL) != 0) {
		free(instances);
		return SLUICE_E_NOMEM;
	}
	*ret = instances;
	return 0;
}

static void instance_drop(struct instances *instances, struct instance *instance)
{
	invariant(instance->conns == 0 && instances->gone_count > 0,
		  "an instance with %llu connections, %zu gone",
		  (unsigned long long)instance->conns, instances->gone_count);
	DL_DELETE(instances->gone, instance);
	instances->gone_count--;
	HASH_DELETE(hh, instances->all, instance);
	free(instance);
}

void instances_destroy(struct instances *instances)
{
	if (instances == NULL)
		return;
	while (instances->gone != NULL)
		instance_drop(instances, instances->gone);
	invariant(instances->all == NULL, "%u instances still have connections",
		  HASH_COUNT(instances->all));
	(void)pthread_mutex_destroy(&instances->lock);
	free(instances);
}

/* Counts one more connection; NULL: no memory. */
static struct instance *ref(struct instances *instances, const uint8_t *id)
{
	struct instance *instance;

	HASH_FIND(hh, instances->all, id, INSTANCE_BYTES, instance);
	if (instance == NULL) {
		instance = calloc(1, sizeof(*instance));
		if (instance == NULL)
			return NULL;
		memcpy(instance->id, id, INSTANCE_BYTES);
		HASH_ADD(hh, instances->all, id, INSTANCE_BYTES, instance);
		if (!HASHED(hh, instance)) {
			free(instance);
			return NULL;
		}
	} else if (instance->conns == 0) {
		DL_DELETE(instances->gone, instance);
		instances->gone_count--;
	}
	instance->conns++;
	return instance;
}

static void unref(struct instances *instances, struct instance *instance)
{
	invariant(instance->conns > 0, "an instance without connections, last attempt %llu",
		  (unsigned long long)instance->attempt);
	if (--instance->conns > 0)
		return;
	DL_APPEND(instances->gone, instance);
	instances->gone_count++;
	if (instance->attempt == 0)
		instance_drop(instances, instance); /* none was accepted */
	else if (instances->gone_count > LIMIT_INSTANCES_MAX)
		instance_drop(instances, instances->gone);
}

int instance_enter(struct instances *instances, const uint8_t *id, uint64_t attempt,
		   struct instance **ret, uint64_t *ret_last)
{
	struct instance *instance;

	(void)pthread_mutex_lock(&instances->lock);
	instance = ref(instances, id);
	if (instance != NULL && instance->attempt < attempt) {
		*ret = instance;
		return 0;
	}
	if (instance != NULL) {
		*ret_last = instance->attempt;
		unref(instances, instance);
	}
	(void)pthread_mutex_unlock(&instances->lock);
	return instance == NULL ? SLUICE_E_NOMEM : SLUICE_E_WRONG_STATE;
}

void instance_leave(struct instances *instances, struct instance *instance, uint64_t attempt,
		    bool taken)
{
	if (taken)
		instance->attempt = attempt;
	else
		unref(instances, instance);
	(void)pthread_mutex_unlock(&instances->lock);
}

void instance_unref(struct instances *instances, struct instance *instance)
{
	if (instance == NULL)
		return;
	(void)pthread_mutex_lock(&instances->lock);
	unref(instances, instance);
	(void)pthread_mutex_unlock(&instances->lock);
}
