/* SPDX-License-Identifier: Apache-2.0
 *
 * Measures the time in which the process did not run (SIGSTOP, a paused machine): sessions do not
 * expire by it. Threads report at least every REPORT_MS that they run; a larger gap between two
 * reports of any threads is such a time. Any thread.
 */
#ifndef SLUICE_ENGINE_RUN_CLOCK_H
#define SLUICE_ENGINE_RUN_CLOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A gap of more than the sum of both counts. */
enum { REPORT_MS = 100, REPORT_LATE_MS = 1000 };

struct run_clock {
	pthread_mutex_t lock;
	uint64_t last_ms;    /* the last report, by the process's monotone clock; 0: none yet */
	uint64_t stopped_ms; /* sum of the gaps */
};
void run_clock_init(struct run_clock *clock);
void run_clock_fini(struct run_clock *clock);
/* The calling thread runs at now_ms. Returns the sum of the gaps. */
uint64_t run_clock_report(struct run_clock *clock, uint64_t now_ms);
/* The same for a thread that does not report regularly. Before the first run_clock_report() there
 * are no gaps. */
uint64_t run_clock_check(struct run_clock *clock, uint64_t now_ms);

#endif
