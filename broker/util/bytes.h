/* SPDX-License-Identifier: Apache-2.0
 *
 * Big-endian integers in byte buffers, at any alignment.
 *
 * Keys are compared as bytes by the store, so every integer in a key is big-endian: byte order is
 * then number order. The same form is used on disk and on the wire. The caller guarantees that the
 * buffer is long enough; nothing here allocates, blocks or keeps a pointer, so all of it may be
 * called from any thread and from broker/core.
 */
#ifndef SLUICE_BROKER_UTIL_BYTES_H
#define SLUICE_BROKER_UTIL_BYTES_H

#include <stdint.h>

/* Each put_ writes exactly width/8 bytes at `at`; each get_ reads that number. */

static inline void put_be16(void *at, uint16_t value)
{
	uint8_t *byte = at;

	byte[0] = (uint8_t)(value >> 8);
	byte[1] = (uint8_t)value;
}

static inline uint16_t get_be16(const void *at)
{
	const uint8_t *byte = at;

	return (uint16_t)((unsigned)byte[0] << 8 | byte[1]);
}

static inline void put_be32(void *at, uint32_t value)
{
	uint8_t *byte = at;

	byte[0] = (uint8_t)(value >> 24);
	byte[1] = (uint8_t)(value >> 16);
	byte[2] = (uint8_t)(value >> 8);
	byte[3] = (uint8_t)value;
}

static inline uint32_t get_be32(const void *at)
{
	const uint8_t *byte = at;

	return (uint32_t)byte[0] << 24 | (uint32_t)byte[1] << 16 | (uint32_t)byte[2] << 8 | byte[3];
}

static inline void put_be64(void *at, uint64_t value)
{
	put_be32(at, (uint32_t)(value >> 32));
	put_be32((uint8_t *)at + 4, (uint32_t)value);
}

static inline uint64_t get_be64(const void *at)
{
	return (uint64_t)get_be32(at) << 32 | get_be32((const uint8_t *)at + 4);
}

#endif
