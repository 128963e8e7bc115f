/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C through ISA-L, which uses the fastest instructions of the processor.
 *
 * ISA-L's crc32_iscsi() inverts neither its initial value nor its result, and takes its length as
 * an int. The usual convention (RFC 3720: both inverted), which the test vector in crc.h follows,
 * is applied only here.
 */
#include "broker/util/crc.h"

#include <isa-l/crc.h>
#include <stdbool.h>
#include <string.h>

/* Below INT_MAX, and a multiple of the widths of ISA-L's loops. */
#define CRC_CHUNK_BYTES ((size_t)1 << 30)

#if defined(__x86_64__)
#define HAS_SHORT 1

/* Most records are short: up to this size the processor's own instruction finishes before ISA-L has
 * begun. */
#define SHORT_BYTES 256

static bool short_works(void)
{
	return __builtin_cpu_supports("sse4.2") != 0;
}

__attribute__((target("sse4.2"))) static uint32_t short_state(uint32_t state,
							      const unsigned char *next, size_t len)
{
	uint64_t wide = state;

	for (; len >= 8; len -= 8, next += 8) {
		uint64_t word;

		memcpy(&word, next, sizeof(word));
		wide = __builtin_ia32_crc32di(wide, word);
	}
	state = (uint32_t)wide;
	if (len & 4) {
		uint32_t word;

		memcpy(&word, next, sizeof(word));
		state = __builtin_ia32_crc32si(state, word);
		next += sizeof(word);
	}
	if (len & 2) {
		uint16_t word;

		memcpy(&word, next, sizeof(word));
		state = __builtin_ia32_crc32hi(state, word);
		next += sizeof(word);
	}
	return len & 1 ? __builtin_ia32_crc32qi(state, *next) : state;
}
#endif

uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len)
{
	/* ISA-L's prototype lacks the const; it only reads. */
	const unsigned char *next = data;
	uint32_t state = ~crc;

#ifdef HAS_SHORT
	if (len <= SHORT_BYTES && short_works())
		return ~short_state(state, next, len);
#endif
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
