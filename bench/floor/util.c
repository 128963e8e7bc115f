/* SPDX-License-Identifier: Apache-2.0
 * For both programs of this folder: exit with a reason, the clock, numbers as keys, incompressible
 * bytes. */
#include "floor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void (*cleanup)(void);

void floor_at_death(void (*fn)(void))
{
	cleanup = fn;
}

void floor_die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	if (cleanup)
		cleanup();
	exit(1);
}

void floor_must(int rc, const char *what)
{
	if (rc == 0)
		return;
	const char *hint = rc == MDB_MAP_FULL
				   ? " (reduce --backlog, --records, --slice or the load)"
			   : rc == ENOSPC ? " (use --dir on a larger file system)"
					  : "";
	floor_die("%s: %s%s", what, mdb_strerror(rc), hint);
}

void *floor_alloc(size_t count, size_t size)
{
	void *p = calloc(count, size);
	if (!p)
		floor_die("out of memory (%zu x %zu bytes)", count, size);
	return p;
}

uint64_t floor_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t floor_random(uint64_t *rng)
{
	uint64_t z = *rng += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

void floor_be32(uint8_t *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, sizeof(v));
}

void floor_be64(uint8_t *p, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(p, &v, sizeof(v));
}

uint64_t floor_get_be64(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return __builtin_bswap64(v);
}

void floor_fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i += 8) {
		uint64_t word = floor_random(&seed);
		memcpy(p + i, &word, n - i < 8 ? n - i : 8);
	}
}
