/* SPDX-License-Identifier: Apache-2.0
 * Used by all files of the run: the clock, random numbers from the seed, the signal that ended the
 * run, and the exit on a failure. Calls no other file: replay->stop stops the caller's
 * processes. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "replay.h"

volatile sig_atomic_t interrupted;

uint64_t mono_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* splitmix64: small, and the same everywhere for a seed. */
uint64_t rand_next(struct replay *replay)
{
	static uint64_t state;
	uint64_t z;

	if (state == 0)
		state = replay->options.seed;
	z = state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void fail(struct replay *replay, const char *format, ...)
{
	va_list args;

	(void)fputs(replay->tty ? "\nsluice-replay: " : "sluice-replay: ", stderr);
	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fputc('\n', stderr);
	if (replay->stop != NULL)
		replay->stop(replay);
	exit(1);
}
