/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a process whose state contradicts its own rules.
 */
#include "broker/util/invariant.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/util/log.h"

void invariant_broken(const char *file, int line, const char *function, const char *condition,
		      const char *format, ...)
{
	char values[INVARIANT_TEXT_BYTES_MAX];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(values, sizeof(values), format, args);
	va_end(args);
	log_line(LOG_LEVEL_ERROR,
		 log_id("broker.invariant",
			"an internal invariant is broken; nothing more is committed"),
		 log_str("file", file), log_u64("line", (uint64_t)line),
		 log_str("function", function), log_str("expected", condition),
		 log_str("values", values));
	abort();
}
