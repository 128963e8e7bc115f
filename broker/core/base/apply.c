/* SPDX-License-Identifier: Apache-2.0
 * The context of a command, refusals, and memory that is kept between commands. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/state.h"

int scratch_reserve(struct scratch *scratch, size_t bytes)
{
	size_t capacity = scratch->capacity == 0 ? 1024 : scratch->capacity;
	uint8_t *data;

	if (bytes <= scratch->capacity)
		return 0;
	while (capacity < bytes)
		capacity *= 2;
	data = realloc(scratch->data, capacity);
	if (data == NULL)
		return SLUICE_E_NOMEM;
	scratch->data = data;
	scratch->capacity = capacity;
	return 0;
}

int refuse(struct outcome *out, int code, const char *format, ...)
{
	va_list args;

	out->code = code;
	va_start(args, format);
	(void)vsnprintf(out->text, sizeof(out->text), format, args);
	va_end(args);
	return 0;
}

void apply_init(struct apply *a, struct core *core, struct store_txn *txn, struct effects *effects,
		uint32_t gateway)
{
	*a = (struct apply){.core = core,
			    .txn = txn,
			    .effects = effects,
			    .position = core->position,
			    .gateway = gateway,
			    .mono_ms = core->clock.mono_ms,
			    .wall_ms = core->clock.wall_ms};
}
