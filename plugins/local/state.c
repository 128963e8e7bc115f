/* SPDX-License-Identifier: Apache-2.0
 * See state.h. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "state.h"

uint64_t service_now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void service_log(struct service *service, enum sluice_log_level level, const char *id,
		 const struct job *job, const char *text)
{
	char line[1024];

	(void)snprintf(line, sizeof(line), "%s%s%s", job != NULL ? job->id : "",
		       job != NULL ? ": " : "", text);
	service->host->log(service->host->host, level, id, line);
}

void service_fail(struct service *service, int code, const char *id, const char *text)
{
	if (service->stopping)
		return;
	service_log(service, SLUICE_LOG_ERROR, id, NULL, text);
	service->result = code != 0 ? code : SLUICE_E_INTERNAL;
	service->stopping = true;
}

void window_pause(struct job *job, enum window window, const char *name)
{
	char note[ATTEMPT_PATH_MAX];
	int fd;

	if (job->service->settings.pause != window)
		return;
	(void)snprintf(note, sizeof(note), "%s/paused", job->service->settings.spool);
	fd = open(note, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0) {
		(void)dprintf(fd, "%s %d %s\n", name, (int)getpid(), job->id);
		(void)close(fd);
	}
	(void)raise(SIGSTOP);
}
