/* SPDX-License-Identifier: Apache-2.0
 * The table of limits as rows. */
#include "protocol/limits.h"

static const struct limit_row rows[] = {
#define LIMIT(name, value, unit, text) {#name, value, unit, text},
#include "protocol/limits.def"
#undef LIMIT
};

const struct limit_row *limit_rows(size_t *ret_count)
{
	*ret_count = sizeof(rows) / sizeof(rows[0]);
	return rows;
}
