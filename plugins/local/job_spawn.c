/* SPDX-License-Identifier: Apache-2.0
 * Starting shepherds, and watching them and their jobs. See job_spawn.h. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "job_spawn.h"

/* Without memory for it, it is waited for here: it ends at once. */
static void child_add(struct service *service, pid_t pid)
{
	if (service->starter_count == service->starter_capacity) {
		size_t capacity =
			service->starter_capacity == 0 ? 16 : service->starter_capacity * 2;
		pid_t *starters = realloc(service->starters, capacity * sizeof(*starters));

		if (starters == NULL) {
			(void)waitpid(pid, NULL, 0);
			return;
		}
		service->starters = starters;
		service->starter_capacity = capacity;
	}
	service->starters[service->starter_count++] = pid;
}

void service_children_reap(struct service *service, int flags)
{
	for (size_t i = 0; i < service->starter_count;) {
		pid_t got = waitpid(service->starters[i], NULL, flags);

		if (got == 0 || (got < 0 && errno == EINTR))
			i++;
		else
			service->starters[i] = service->starters[--service->starter_count];
	}
}

static int watch_add(struct job *job, int fd, bool starter)
{
	struct epoll_event event = {.events = EPOLLIN,
				    .data.u64 = (uint64_t)(uintptr_t)job | (starter ? 1u : 0u)};

	return epoll_ctl(job->service->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

void job_watch(struct job *job, const struct attempt_view *view)
{
	pid_t pid = view->shepherd_lives ? view->shepherd : view->pid;

	if (job->watch_fd >= 0)
		return;
	job->watch_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (job->watch_fd >= 0 && watch_add(job, job->watch_fd, false) == 0)
		return;
	/* It ended since it was inspected: jobs_due() inspects it again. */
	if (job->watch_fd >= 0)
		(void)close(job->watch_fd);
	job->watch_fd = -1;
}

/* The shepherd's environment, which is the job's too: this process's, and three variables that name
 * the job. SLUICE_TAG comes first: leftovers_marked() finds it there also before a large
 * environment. The list and its first ENV_OWN texts are owned. NULL: no memory. */
enum { ENV_OWN = 3 };

static char **environment_of(const struct job *job)
{
	static const char *const names[ENV_OWN] = {"SLUICE_TAG=", "SLUICE_JOB=", "SLUICE_ATTEMPT="};
	char tag[ATTEMPT_TAG_MAX], number[16];
	const char *values[ENV_OWN] = {tag, job->id, number};
	size_t count = 0, used = 0;
	char **list;

	while (environ[count] != NULL)
		count++;
	list = calloc(count + ENV_OWN + 1, sizeof(*list));
	if (list == NULL)
		return NULL;
	attempt_tag(job->id, job->attempt, job->life, tag);
	(void)snprintf(number, sizeof(number), "%u", job->attempt);
	for (; used < ENV_OWN; used++)
		if (asprintf(&list[used], "%s%s", names[used], values[used]) < 0) {
			list[used] = NULL;
			break;
		}
	if (used < ENV_OWN) {
		while (used > 0)
			free(list[--used]);
		free(list);
		return NULL;
	}
	for (size_t i = 0; i < count; i++)
		if (strncmp(environ[i], names[0], strlen(names[0])) != 0 &&
		    strncmp(environ[i], names[1], strlen(names[1])) != 0 &&
		    strncmp(environ[i], names[2], strlen(names[2])) != 0)
			list[used++] = environ[i];
	return list;
}

static void environment_free(char **list)
{
	for (size_t i = 0; i < ENV_OWN; i++)
		free(list[i]);
	free(list);
}

/* 0, or an errno. */
static int spawn_shepherd(struct job *job, int pipe_fd, pid_t *ret)
{
	static char fd_text[] = "3";
	const struct settings *settings = &job->service->settings;
	char output_max[48], leftovers[24];
	char *argv[] = {(char *)(uintptr_t)settings->shepherd,
			job->dir,
			fd_text,
			output_max,
			leftovers,
			NULL};
	posix_spawn_file_actions_t actions;
	char **env = environment_of(job);
	int rc = env == NULL ? ENOMEM : posix_spawn_file_actions_init(&actions);

	if (rc != 0) {
		if (env != NULL)
			environment_free(env);
		return rc;
	}
	(void)snprintf(output_max, sizeof(output_max), "output_max_kib=%llu",
		       (unsigned long long)settings->output_max_kib);
	(void)snprintf(leftovers, sizeof(leftovers), "leftovers=%s",
		       settings->leave_leftovers ? "leave" : "end");
	/* The pipe is 3 and nothing is open above it: inside the broker LMDB's descriptor would be
	 * inherited. */
	rc = posix_spawn_file_actions_adddup2(&actions, pipe_fd, 3);
	if (rc == 0)
		rc = posix_spawn_file_actions_addclosefrom_np(&actions, 4);
	if (rc == 0)
		rc = posix_spawn(ret, settings->shepherd, &actions, NULL, argv, env);
	(void)posix_spawn_file_actions_destroy(&actions);
	environment_free(env);
	return rc;
}

int job_spawn(struct job *job, const char **ret_step)
{
	int pipe_fds[2], rc;
	pid_t pid;

	*ret_step = "create a pipe to the shepherd";
	if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
		return errno;
	*ret_step = "start the shepherd";
	rc = spawn_shepherd(job, pipe_fds[1], &pid);
	(void)close(pipe_fds[1]);
	if (rc != 0) {
		(void)close(pipe_fds[0]);
		return rc;
	}
	/* It moves to a session of its own at once; its first process is reaped in the loop. */
	child_add(job->service, pid);
	job->starter_fd = pipe_fds[0];
	job->stage = STAGE_SPAWNED;
	if (watch_add(job, job->starter_fd, true) != 0) {
		(void)close(job->starter_fd);
		job->starter_fd = -1;
	}
	return 0;
}
