/* SPDX-License-Identifier: Apache-2.0
 * Bounded big-endian reading and writing for the codecs. A reader that runs out sets `bad` and
 * gives zeros from then on, so a decoder checks once at its end. */
#ifndef SLUICE_PROTOCOL_BYTES_H
#define SLUICE_PROTOCOL_BYTES_H

#include <stdbool.h>
#include <string.h>

#include "sluice/types.h"

struct reader {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static inline struct reader reader_of(struct sluice_slice bytes)
{
	/* Never NULL: adding 0 to NULL is undefined. */
	return (struct reader){bytes.data != NULL ? bytes.data : (const void *)"", bytes.len,
			       false};
}
static inline uint64_t read_be(struct reader *reader, size_t bytes)
{
	uint64_t value = 0;

	if (reader->left < bytes) {
		reader->bad = true;
		reader->left = 0;
		return 0;
	}
	for (size_t i = 0; i < bytes; i++)
		value = value << 8 | reader->at[i];
	reader->at += bytes;
	reader->left -= bytes;
	return value;
}
static inline struct sluice_slice read_bytes(struct reader *reader, size_t len)
{
	struct sluice_slice bytes = {reader->at, len};

	if (reader->left < len) {
		reader->bad = true;
		reader->left = 0;
		return (struct sluice_slice){NULL, 0};
	}
	reader->at += len;
	reader->left -= len;
	return bytes;
}
static inline uint8_t *write_be(uint8_t *at, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
	return at + bytes;
}
static inline uint8_t *write_slice(uint8_t *at, struct sluice_slice bytes)
{
	if (bytes.len > 0)
		memcpy(at, bytes.data, bytes.len);
	return at + bytes.len;
}

#endif
