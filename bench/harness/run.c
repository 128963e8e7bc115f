/* SPDX-License-Identifier: Apache-2.0
 * For each file of the harness, and each driver: the last error, whether the run is interrupted,
 * the clock. Calls no other file. */
#include <stdarg.h>
#include <time.h>

#include "harness.h"

atomic_bool interrupted;

/* One per thread of a load; a trial reports the first that fails. */
static _Thread_local char last_error[512];

int bench_error(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(last_error, sizeof(last_error), format, args);
	va_end(args);
	return -1;
}

const char *bench_last_error(void)
{
	return last_error;
}

bool bench_interrupted(void)
{
	return interrupted;
}

uint64_t bench_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
