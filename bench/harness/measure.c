/* SPDX-License-Identifier: Apache-2.0
 * Processor time of server and client, and the server's anonymous memory: the kernel can reclaim
 * pages that LMDB maps from its file, but not anonymous ones. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "harness.h"

enum { PEAK_EVERY_MS = 10 };

static double clock_s(clockid_t clock)
{
	struct timespec at;

	if (clock_gettime(clock, &at) != 0)
		return NAN;
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static double process_s(pid_t pid)
{
	clockid_t clock;

	if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0)
		return NAN;
	return clock_s(clock);
}

void meter_start(struct meter *meter, const struct bench_server *server)
{
	meter->pid = server->pid;
	meter->server_cpu = process_s(meter->pid);
	meter->client_cpu = clock_s(CLOCK_PROCESS_CPUTIME_ID);
}

void meter_stop(struct meter *meter, struct sample *sample)
{
	sample->server_cpu_s = process_s(meter->pid) - meter->server_cpu;
	sample->client_cpu_s = clock_s(CLOCK_PROCESS_CPUTIME_ID) - meter->client_cpu;
}

double rss_anon_bytes(pid_t pid)
{
	char path[64], line[256];
	double bytes = NAN;
	FILE *file;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = pid > 0 ? fopen(path, "re") : NULL;
	if (file == NULL)
		return NAN;
	while (fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, "RssAnon:", 8) == 0)
			bytes = strtod(line + 8, NULL) * 1024;
	(void)fclose(file);
	return bytes;
}

static struct {
	pthread_t thread;
	bool running;
	atomic_bool ends;
	pid_t pid;
	double bytes;
} peak;

static void peak_sample(void)
{
	double now = rss_anon_bytes(peak.pid);

	if (isnan(peak.bytes) || now > peak.bytes)
		peak.bytes = now;
}

static void *peak_watch(void *unused)
{
	const struct timespec every = {.tv_nsec = PEAK_EVERY_MS * 1000000};

	(void)unused;
	while (!atomic_load(&peak.ends)) {
		peak_sample();
		(void)nanosleep(&every, NULL);
	}
	return NULL;
}

void peak_start(pid_t pid)
{
	peak.pid = pid;
	peak.bytes = NAN;
	atomic_store(&peak.ends, false);
	peak.running = pid > 0 && pthread_create(&peak.thread, NULL, peak_watch, NULL) == 0;
}

double peak_stop(void)
{
	if (!peak.running)
		return NAN;
	atomic_store(&peak.ends, true);
	(void)pthread_join(peak.thread, NULL);
	peak_sample();
	peak.running = false;
	peak_sample(); /* a short trial may be over before the thread has run */
	return peak.bytes;
}
