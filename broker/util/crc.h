/* SPDX-License-Identifier: Apache-2.0
 *
 * CRC-32C (Castagnoli), the checksum of every record on disk and every frame that carries one.
 *
 * Pure functions: no state, no allocation, any thread, never block; allowed in broker/core.
 */
#ifndef SLUICE_BROKER_UTIL_CRC_H
#define SLUICE_BROKER_UTIL_CRC_H

#include <stddef.h>
#include <stdint.h>

/*
 * The CRC-32C of `len` bytes at `data` (borrowed; may be NULL if len is 0). The ASCII text
 * "123456789" gives 0xE3069283 and an empty buffer gives 0.
 */
uint32_t crc32c(const void *data, size_t len);

/* Continues from `crc`, the result of crc32c() or crc32c_extend() for the bytes before:
 * crc32c_extend(crc32c(a), b) equals crc32c of a followed by b, and an extension of 0 is crc32c()
 * itself. */
uint32_t crc32c_extend(uint32_t crc, const void *data, size_t len);

#endif
