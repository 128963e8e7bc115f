/* SPDX-License-Identifier: Apache-2.0
 *
 * A preload: the wall clock is wrong by the amount in the file FALSE_CLOCK, "SECONDS BOOT", read
 * again at every call; the machine's boot has the id BOOT (hexadecimal). The monotone clock is not
 * changed.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INTERPOSED __attribute__((visibility("default")))

static FILE *(*real_fopen)(const char *, const char *);

static void settings(long *ret_seconds, char boot[64])
{
	const char *path = getenv("FALSE_CLOCK");
	FILE *file;

	*ret_seconds = 0;
	(void)strcpy(boot, "0");
	if (real_fopen == NULL)
		*(void **)&real_fopen = dlsym(RTLD_NEXT, "fopen");
	file = path != NULL ? real_fopen(path, "re") : NULL;
	if (file == NULL)
		return;
	if (fscanf(file, "%ld %63s", ret_seconds, boot) != 2)
		*ret_seconds = 0;
	(void)fclose(file);
}

INTERPOSED int clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);
	char boot[64];
	long seconds;
	int rc;

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	rc = real(clock, now);
	if (rc == 0 && clock == CLOCK_REALTIME) {
		settings(&seconds, boot);
		now->tv_sec += seconds;
	}
	return rc;
}

INTERPOSED FILE *fopen(const char *path, const char *mode)
{
	static char boot[64];
	long seconds;

	settings(&seconds, boot);
	if (strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
		return fmemopen(boot, strlen(boot), "r");
	return real_fopen(path, mode);
}
