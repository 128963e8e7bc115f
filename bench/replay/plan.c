/* SPDX-License-Identifier: Apache-2.0
 * From trace lines to jobs with an expected outcome, and the process that each job is. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "replay.h"

enum { GAP_MS_MAX = 100, RUN_MS_MAX = 2000 };

const char *expect_state(enum expect expect)
{
	return expect == EXPECT_COMPLETE ? "COMPLETE"
	       : expect == EXPECT_FAILED ? "FAILED"
					 : "CANCELED";
}

/* 0 failed, 4 partial and failed: FAILED. 1, 2, 3, and -1 (the trace does not say): the process
 * ends well. 5: cancelled, before its start if it never ran. */
static enum expect expect_of(const struct swf_job *job)
{
	if (job->status == 5)
		return job->run_s > 0 ? EXPECT_CANCELED_RUNNING : EXPECT_CANCELED_WAITING;
	return job->status == 0 || job->status == 4 ? EXPECT_FAILED : EXPECT_COMPLETE;
}

static uint64_t scaled(int64_t seconds, double speedup, uint64_t max_ms)
{
	double ms = seconds <= 0 ? 0 : (double)seconds * 1000 / speedup;

	return ms > (double)max_ms ? max_ms : (uint64_t)ms;
}

void plan_make(struct replay *replay)
{
	uint64_t at_ms = 0;

	replay->plan_count = replay->swf.count;
	replay->plans = calloc(replay->plan_count, sizeof(*replay->plans));
	if (replay->plans == NULL)
		fail(replay, "out of memory");
	for (size_t i = 0; i < replay->plan_count; i++) {
		const struct swf_job *job = &replay->swf.jobs[i];
		struct plan *plan = &replay->plans[i];

		/* The position in the file makes it unique, also if ids of the trace repeat. */
		(void)snprintf(plan->id, sizeof(plan->id), "swf-%" PRId64 "-%zu", job->id, i + 1);
		plan->expect = expect_of(job);
		plan->run_ms = (uint32_t)scaled(job->run_s, replay->options.speedup, RUN_MS_MAX);
		if (i > 0)
			at_ms += scaled(job->submit_s - replay->swf.jobs[i - 1].submit_s,
					replay->options.speedup, GAP_MS_MAX);
		plan->at_ms = at_ms;
	}
}

struct plan *plan_find(struct replay *replay, const char *id)
{
	const char *dash = strrchr(id, '-');
	size_t place = dash != NULL ? strtoul(dash + 1, NULL, 10) : 0;

	if (place == 0 || place > replay->plan_count ||
	    strcmp(replay->plans[place - 1].id, id) != 0)
		return NULL;
	return &replay->plans[place - 1];
}

/* --job STARTS ID ATTEMPT RUN_MS exit CODE | wait: appends one line to STARTS in one write, then
 * works. */
int job_main(int argc, char **argv)
{
	char line[256];
	struct timespec run;
	unsigned long ms;
	int fd, len;

	if (argc < 7)
		return 2;
	len = snprintf(line, sizeof(line), "%s %s %d\n", argv[3], argv[4], (int)getpid());
	fd = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)len) != len)
		return 3;
	(void)close(fd);
	if (strcmp(argv[6], "wait") == 0)
		for (;;)
			(void)pause(); /* until it is cancelled */
	ms = strtoul(argv[5], NULL, 10);
	run = (struct timespec){(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
	while (nanosleep(&run, &run) != 0 && errno == EINTR)
		continue;
	return argc > 7 ? atoi(argv[7]) : 0;
}
