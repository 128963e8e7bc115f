/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C through ISA-L, which picks the fastest instructions that the machine has.
 *
 * ISA-L's crc32_iscsi() neither inverts its initial value nor its result, and takes its length as an int. The usual
 * convention (RFC 3720: both inverted), on which crc.h promises its test vector, is made here and nowhere else.
 */
#include "broker/util/crc.h"

#include <isa-l/crc.h>

/* Below INT_MAX, and a multiple of the widths that ISA-L works in. */
#define CRC_CHUNK_BYTES ((size_t)1 << 30)

uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len)
{
	/* ISA-L's prototype lacks the const; it only reads. */
	const unsigned char *next = data;
	uint32_t state = ~crc;

	while (len > 0) {
		size_t chunk = len < CRC_CHUNK_BYTES ? len : CRC_CHUNK_BYTES;

		state = crc32_iscsi((unsigned char *)next, (int)chunk, state);
		next += chunk;
		len -= chunk;
	}
	return ~state;
}

uint32_t crc32c(const void *data, size_t len)
{
	return crc32c_extend(0, data, len);
}
