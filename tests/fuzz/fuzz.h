/* SPDX-License-Identifier: Apache-2.0
 * What each fuzz target includes. A target is one file fuzz_NAME.c with LLVMFuzzerTestOneInput and
 * a line in meson.build. */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluice/types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process, so that libFuzzer keeps the input. */
#define REQUIRE(condition)                                                                 \
	do {                                                                               \
		if (!(condition)) {                                                        \
			(void)fprintf(stderr, "%s:%d: expected: %s\n", __FILE__, __LINE__, \
				      #condition);                                         \
			abort();                                                           \
		}                                                                          \
	} while (0)

/* Memory of exactly this size, so that a sanitizer detects a write or read beyond it. Never
 * NULL. */
static inline void *exactly(size_t size)
{
	void *memory = malloc(size);

	REQUIRE(memory != NULL || size == 0);
	return memory;
}

/* The first n bytes as a big-endian number, removed from the front; 0 when there are fewer. */
static inline uint64_t take_number(struct sluice_slice *io, size_t n)
{
	const uint8_t *at = io->data;
	uint64_t value = 0;

	if (io->len < n) {
		io->len = 0;
		return 0;
	}
	for (size_t i = 0; i < n; i++)
		value = value << 8 | at[i];
	*io = (struct sluice_slice){at + n, io->len - n};
	return value;
}

/* Removes up to n bytes from the front. */
static inline struct sluice_slice take_bytes(struct sluice_slice *io, size_t n)
{
	struct sluice_slice taken = {io->data, n < io->len ? n : io->len};

	*io = (struct sluice_slice){(const uint8_t *)io->data + taken.len, io->len - taken.len};
	return taken;
}

static inline int same(struct sluice_slice a, struct sluice_slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

#endif
