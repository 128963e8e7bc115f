/* SPDX-License-Identifier: Apache-2.0
 * Definitions of streams, queues, routers, edges, lifecycles and gateways: packed protobuf messages
 * in STORE_TOPO. */
#include <stdlib.h>

#include "broker/core/base/topo.h"
#include "broker/util/invariant.h"
#include "protocol/message.h"

int topo_put(struct apply *a, enum topo_kind kind, uint64_t id, const ProtobufCMessage *message)
{
	size_t bytes = protobuf_c_message_get_packed_size(message);
	uint8_t *packed = malloc(bytes + 1);
	struct key key;
	int rc;

	if (packed == NULL)
		return SLUICE_E_NOMEM;
	invariant(id != 0, "a definition of kind %d has number 0", (int)kind);
	(void)protobuf_c_message_pack(message, packed);
	key_topo(&key, a->gateway, (uint8_t)kind, id);
	rc = store_put(a->txn, STORE_TOPO, key_slice(&key), (struct sluice_slice){packed, bytes});
	free(packed);
	return rc;
}

void *record_unpack(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
		    int *ret_rc)
{
	void *message = message_unpack_own(descriptor, bytes, ret_rc);

	if (*ret_rc == SLUICE_E_CORRUPT)
		*ret_rc = store_damaged("its content is not valid");
	return message;
}

int topo_find(struct store_txn *txn, uint32_t gateway, enum topo_kind kind, uint64_t id,
	      const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_topo(&key, gateway, (uint8_t)kind, id);
	rc = store_get(txn, STORE_TOPO, key_slice(&key), &value);
	if (rc != 0)
		return rc;
	*ret = record_unpack(descriptor, value, &rc);
	return rc;
}

int topo_del(struct apply *a, enum topo_kind kind, uint64_t id)
{
	struct key key;

	key_topo(&key, a->gateway, (uint8_t)kind, id);
	return store_del(a->txn, STORE_TOPO, key_slice(&key));
}
