/* SPDX-License-Identifier: Apache-2.0
 * All systems that can be measured: the rows of all compiled drivers. */
#include <string.h>

#include "harness.h"

/* A new driver is a file in bench/drivers and a line here. */
static const struct bench_system *const drivers[] = {
	bench_sluice_systems,
	bench_floor_systems,
#ifdef BENCH_HAVE_REDIS
	bench_redis_systems,
#endif
};

const struct bench_system *system_at(unsigned i)
{
	for (unsigned d = 0; d < sizeof(drivers) / sizeof(drivers[0]); d++)
		for (const struct bench_system *system = drivers[d]; system->name != NULL; system++)
			if (i-- == 0)
				return system;
	return NULL;
}

bool word_in(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = words; (at = strstr(at, word)) != NULL; at += len)
		if ((at == words || at[-1] == ' ') && (at[len] == 0 || at[len] == ' '))
			return true;
	return false;
}
