/* SPDX-License-Identifier: Apache-2.0
 *
 * What sluice-floor-server and its clients say to each other. Numbers are the machine's own: both
 * ends are on it.
 *
 *   client: struct floor_hello, then by role
 *     PUBLISH, PUT  units: u32 bytes, then so many bytes (1 to FLOOR_UNIT_BYTES_MAX)
 *     WORK u64: bytes of items that are done with, since the hello; always the end of an item
 *     FOLLOW        nothing
 *   server: by role
 *     PUBLISH, PUT u64: units since the hello that are durable (echo: that have come); the first
 *       one, 0,
 *                   answers the hello
 *     FOLLOW, WORK records: u32 bytes, then so many bytes. u32 0 and u64 0 answer the hello; u32 0
 *       and u64 a
 *                   WORK's acks: bytes since the hello whose deletion is durable
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
	uint64_t window_bytes; /* WORK: so many bytes of items held at most, but always one item */
	char name[FLOOR_NAME_BYTES]; /* of the log or queue, 0 at its end */
};

_Static_assert(sizeof(struct floor_hello) == 64, "the hello's size is on the wire");

#endif
