/* SPDX-License-Identifier: Apache-2.0
 * The table of limits as constants (LIMIT_NAME) and as rows for documents and tests. */
#ifndef SLUICE_PROTOCOL_LIMITS_H
#define SLUICE_PROTOCOL_LIMITS_H

#include <stddef.h>
#include <stdint.h>

/* Constants, not an enum: some values exceed int. */
#define LIMIT(name, value, unit, text) \
	static const uint64_t LIMIT_##name __attribute__((unused)) = value;
#include "protocol/limits.def"
#undef LIMIT

/* The same as a constant expression, for the bounds of arrays and for static_assert:
 * LIMIT_SIZE(NAME_BYTES_MAX). */
#define LIMIT(name, value, unit, text) typedef char limit_array_##name[value];
#include "protocol/limits.def"
#undef LIMIT
#define LIMIT_SIZE(name) sizeof(limit_array_##name)

struct limit_row {
	const char *name;
	uint64_t value;
	const char *unit;
	const char *text;
};

/* The rows in file order; *ret_count rows, static storage. Thread-safe. */
const struct limit_row *limit_rows(size_t *ret_count);

#endif
