/* SPDX-License-Identifier: Apache-2.0
 * For every file of the simulator: random numbers from the seed, and the exit on a failure of the
 * simulator itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

void must(int rc, const char *what)
{
	if (rc == 0)
		return;
	fprintf(stderr, "sluice-sim: %s: %s: %s\n", what, sluice_error_name(rc),
		store_last_error());
	exit(2);
}

uint64_t roll(struct sim *s, uint64_t n)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (s->random >> 11) % n;
}

struct sluice_slice text(const char *t)
{
	return (struct sluice_slice){t, strlen(t)};
}
