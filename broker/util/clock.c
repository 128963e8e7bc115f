/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the two clocks. A clock that cannot be read is a bug in the build, not an input, so it is
 * asserted.
 */
#include "broker/util/clock.h"

#include <assert.h>
#include <time.h>

uint64_t clock_mono_ns(void)
{
	struct timespec now;
	int rc = clock_gettime(CLOCK_MONOTONIC, &now);

	assert(rc == 0);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int64_t clock_wall_ms(void)
{
	struct timespec now;
	int rc = clock_gettime(CLOCK_REALTIME, &now);

	assert(rc == 0);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
