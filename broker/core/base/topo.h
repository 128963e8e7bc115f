/* SPDX-License-Identifier: Apache-2.0
 *
 * Definitions in STORE_TOPO: packed protobuf messages.
 */
#ifndef SLUICE_CORE_BASE_TOPO_H
#define SLUICE_CORE_BASE_TOPO_H

#include "broker/core/base/apply.h"

enum topo_kind {
#define META(name, key, formats, text)
#define HOT(NAME, number, name, layout, formats, text)
#define TOPO(NAME, number, name, message, text) TOPO_##NAME = number,
#define RECORD(name, TABLE, layout, formats, text)
#include "broker/core/records.def"
#undef META
#undef HOT
#undef TOPO
#undef RECORD
	TOPO_TOMB = 7 /* reserved: deleted, being swept by TICK */
};
/* Unpacks the message in the record that the store read last. Owned; NULL with *ret_rc CORRUPT,
 * which names the record's key, or NOMEM. */
void *record_unpack(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
		    int *ret_rc) SLUICE_MUST_USE;
/* Packs / unpacks the definition (a protobuf message). find returns an owned message:
 * protobuf_c_message_free_unpacked. */
int topo_put(struct apply *a, enum topo_kind kind, uint64_t id,
	     const ProtobufCMessage *message) SLUICE_MUST_USE;
int topo_find(struct store_txn *txn, uint32_t gateway, enum topo_kind kind, uint64_t id,
	      const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **ret) SLUICE_MUST_USE;
int topo_del(struct apply *a, enum topo_kind kind, uint64_t id) SLUICE_MUST_USE;

#endif
