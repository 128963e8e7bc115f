/* SPDX-License-Identifier: Apache-2.0
 * The last report and the sum of the gaps change under one lock: no thread that continues after a
 * gap sees the new time without the gap. */
#include "broker/engine/run_clock.h"

void run_clock_init(struct run_clock *clock)
{
	*clock = (struct run_clock){.lock = PTHREAD_MUTEX_INITIALIZER};
}

void run_clock_fini(struct run_clock *clock)
{
	(void)pthread_mutex_destroy(&clock->lock);
}

static uint64_t report(struct run_clock *clock, uint64_t now_ms, bool first)
{
	uint64_t stopped_ms;

	(void)pthread_mutex_lock(&clock->lock);
	if (now_ms > clock->last_ms && (first || clock->last_ms != 0)) {
		uint64_t gap_ms = clock->last_ms != 0 ? now_ms - clock->last_ms : 0;

		if (gap_ms > REPORT_MS + REPORT_LATE_MS)
			clock->stopped_ms += gap_ms;
		clock->last_ms = now_ms;
	}
	stopped_ms = clock->stopped_ms;
	(void)pthread_mutex_unlock(&clock->lock);
	return stopped_ms;
}

uint64_t run_clock_report(struct run_clock *clock, uint64_t now_ms)
{
	return report(clock, now_ms, true);
}

uint64_t run_clock_check(struct run_clock *clock, uint64_t now_ms)
{
	return report(clock, now_ms, false);
}
