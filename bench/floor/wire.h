/* SPDX-License-Identifier: Apache-2.0
 *
 * The protocol between sluice-floor-server and its clients. Numbers are in the byte order of the
 * machine, since both ends are on it.
 *
 * The client sends struct floor_hello, then by role:
 *
 *   PUBLISH, PUT  units: u32 length in bytes (1 to FLOOR_UNIT_BYTES_MAX), then the bytes
 *   WORK          u64: bytes of the items finished since the hello; always the end of an item
 *   FOLLOW        nothing
 *
 * The server sends, by role:
 *
 *   PUBLISH, PUT  u64: durable units since the hello (mode echo: received units); the first one, 0,
 *                 answers the hello
 *   FOLLOW, WORK  records: u32 length in bytes, then the bytes. u32 0 and u64 0 answer the hello;
 *                 u32 0 and a u64 answer the acks of WORK: bytes since the hello whose deletion is
 *                 durable
 */
#ifndef FLOOR_WIRE_H
#define FLOOR_WIRE_H

#include <stdint.h>

enum {
	FLOOR_UNIT_BYTES_MAX = 17 << 20,
	FLOOR_NAME_BYTES = 48,
};

enum floor_role {
	FLOOR_PUBLISH = 1,
	FLOOR_PUT,
	FLOOR_FOLLOW_NEW,
	FLOOR_FOLLOW_ALL,
	FLOOR_WORK,
};

struct floor_hello {
	uint32_t role;
	uint32_t body_bytes;   /* mode record: of the records in a unit; 0: it is one record */
	uint64_t window_bytes; /* WORK: limit on bytes of held items; one item is always allowed */
	char name[FLOOR_NAME_BYTES]; /* of the log or queue, 0 at its end */
};

_Static_assert(sizeof(struct floor_hello) == 64, "the hello's size is on the wire");

#endif
