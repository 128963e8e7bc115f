/* SPDX-License-Identifier: Apache-2.0
 * Signals to the processes of held jobs. See job_kill.h. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "job_kill.h"
#include "report.h"

enum { KILL_GRACE_MS = 2000, STUBBORN_KILLS = 3 };

void job_wake_shepherd(const struct job *job)
{
	struct attempt_view view;

	if (job->stage == STAGE_RUNNING && !job->shepherd_lost && job->watch_fd >= 0)
		(void)syscall(SYS_pidfd_send_signal, job->watch_fd, SIGCONT, NULL, 0);
	/* It was stopped before it said that the job had started. */
	if (job->stage == STAGE_SPAWNED && attempt_inspect(job->dir, &view) == 0 &&
	    view.shepherd_lives)
		(void)kill(view.shepherd, SIGCONT);
}

void job_terminate(struct job *job)
{
	bool running = job->stage == STAGE_RUNNING;
	char text[ATTEMPT_ERROR_BYTES + 32];

	/* One that is being started is signalled when it runs: its time to end by itself begins
	 * then. */
	if (running && job->kill_ms == 0)
		job->kill_ms = service_now_ms();
	if (attempt_cancel(job->dir, running ? SIGTERM : 0) != 0) {
		(void)snprintf(text, sizeof(text), "cancel: cannot %s", attempt_error());
		service_log(job->service, SLUICE_LOG_ERROR, "local.cancel", job, text);
	}
}

size_t job_leftovers(const struct job *job, uint32_t attempt, const char *life,
		     char ret_names[LEFTOVER_NAMES_BYTES])
{
	char mark[ATTEMPT_TAG_MAX + 16] = "SLUICE_TAG=";
	struct leftover left[LEFTOVERS_MAX];
	size_t count;

	attempt_tag(job->id, attempt, life, mark + strlen(mark));
	count = leftovers_marked(mark, left);
	leftovers_names(left, count, ret_names);
	for (size_t i = 0; i < count && !job->service->settings.leave_leftovers; i++)
		leftover_kill(&left[i]);
	return count;
}

void job_kill_due(struct job *job, uint64_t now_ms)
{
	const char *why = job->cancel ? "cancelled" : "its timeout has passed";
	char text[ATTEMPT_ERROR_BYTES + 64];
	int rc;

	if (job->kill_ms == 0 || job->kill_ms + KILL_GRACE_MS > now_ms ||
	    job->stage != STAGE_RUNNING)
		return;
	job_wake_shepherd(job);
	rc = job->cancel ? attempt_cancel(job->dir, SIGKILL) : attempt_signal(job->dir, SIGKILL);
	job->kill_ms = now_ms;
	job->kills++;
	if (rc == 0 && job->kills < STUBBORN_KILLS)
		return;
	if (rc == 0)
		(void)snprintf(text, sizeof(text), "%s, but its process does not end by SIGKILL",
			       why);
	else
		(void)snprintf(text, sizeof(text), "%s, but it is not ended: cannot %s", why,
			       attempt_error());
	if ((job->kills & (job->kills - 1)) == 0)
		service_log(job->service, SLUICE_LOG_ERROR, "local.stubborn", job, text);
	report_waiting(job, text);
}
