/* SPDX-License-Identifier: Apache-2.0
 *
 * `local`: the scheduler plugin that runs jobs as processes of this machine. A service: a client of the
 * broker like any other, the same inside the broker and under sluice-plugin.
 *
 * Settings: queue (runs), spool (where attempts live; needed), slots (64), session (local; a second instance
 * of the name takes over), session_timeout_ms (5000), source (local), shepherd (path; default beside this
 * plugin), keep_ms (604800000, a week: how long the files of attempts stay whose job is at its end), pause (intent | start | record: for fault rigs).
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "service.h"

enum { TURN_MS = 200 };

static const char *setting(const struct sluice_host *host, const char *key, const char *fallback)
{
	const char *value = host->setting(host->host, key);

	return value != NULL ? value : fallback;
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *delivery, void *user)
{
	struct service *service = user;

	(void)sub;
	if (delivery->kind == SLUICE_DELIVERY_JOB) {
		job_taken(service, delivery);
	} else if (delivery->kind == SLUICE_DELIVERY_END && !service->stopping) {
		service_log(service, SLUICE_LOG_ERROR, "local.queue_gone", NULL, delivery->text);
		service->stopping = true;
	}
}

static void on_event(sluice_client *client, const sluice_event *event, void *user)
{
	struct service *service = user;

	(void)client;
	switch (event->kind) {
	case SLUICE_EVENT_JOB_CANCEL:
		job_cancel(service, event->job, event->token);
		return;
	case SLUICE_EVENT_LEASE_LOST:
		job_lease_lost(service, event->job, event->token);
		return;
	case SLUICE_EVENT_DISCONNECTED:
		service_log(service, SLUICE_LOG_INFO, "local.disconnected", NULL, event->text);
		return;
	case SLUICE_EVENT_SESSION_LOST:
		service_log(service, SLUICE_LOG_WARN, "local.session_lost", NULL, event->text);
		return;
	case SLUICE_EVENT_ERROR:
	case SLUICE_EVENT_DAMAGED:
		service_log(service, SLUICE_LOG_WARN, "local.error", NULL, event->text);
		return;
	default:
		return;
	}
}

static bool keep_read(struct service *service)
{
	const char *text = setting(service->host, "keep_ms", "604800000");
	char *end = NULL;

	errno = 0;
	service->sweep.keep_ms = strtoull(text, &end, 10);
	if (text[0] >= '0' && text[0] <= '9' && *end == 0 && errno == 0)
		return true;
	service_log(service, SLUICE_LOG_ERROR, "local.setting", NULL,
		    "setting keep_ms; expected a number of milliseconds from 0");
	return false;
}

static int spool_open(struct service *service)
{
	int rc = 0;

	if (mkdir(service->spool, 0700) != 0 && errno != EEXIST)
		rc = SLUICE_E_IO;
	if (rc == 0)
		rc = attempt_spool(service->spool, service->spool_id);
	if (rc != 0)
		service_log(service, SLUICE_LOG_ERROR, "local.spool", NULL,
			    rc == SLUICE_E_CORRUPT ? "the spool's file `id` is damaged; expected 8 hex digits"
						   : strerror(errno));
	return rc;
}

static int settings_read(struct service *service)
{
	const struct sluice_host *host = service->host;
	const char *shepherd = host->setting(host->host, "shepherd"), *pause = setting(host, "pause", "");
	Dl_info info;

	if (host->setting(host->host, "spool") == NULL) {
		service_log(service, SLUICE_LOG_ERROR, "local.setting", NULL,
			    "setting spool is missing; expected a directory");
		return SLUICE_E_INVAL;
	}
	(void)snprintf(service->spool, sizeof(service->spool), "%s", setting(host, "spool", ""));
	(void)snprintf(service->queue, sizeof(service->queue), "%s", setting(host, "queue", "runs"));
	(void)snprintf(service->source, sizeof(service->source), "%s", setting(host, "source", "local"));
	if (shepherd != NULL) {
		(void)snprintf(service->shepherd, sizeof(service->shepherd), "%s", shepherd);
	} else if (dladdr((void *)(uintptr_t)settings_read, &info) != 0) {
		const char *slash = strrchr(info.dli_fname, '/');

		(void)snprintf(service->shepherd, sizeof(service->shepherd), "%.*ssluice-shepherd",
			       slash != NULL ? (int)(slash - info.dli_fname + 1) : 0, info.dli_fname);
	}
	if (!keep_read(service))
		return SLUICE_E_INVAL;
	service->pause = strcmp(pause, "intent") == 0	? WINDOW_INTENT
			 : strcmp(pause, "start") == 0	? WINDOW_START
			 : strcmp(pause, "record") == 0 ? WINDOW_RECORD
							: WINDOW_NONE;
	if (pause[0] != 0 && service->pause == WINDOW_NONE) {
		service_log(service, SLUICE_LOG_ERROR, "local.setting", NULL,
			    "setting pause; expected intent, start or record");
		return SLUICE_E_INVAL;
	}
	if (access(service->shepherd, X_OK) != 0) {
		service_log(service, SLUICE_LOG_ERROR, "local.shepherd", NULL,
			    "sluice-shepherd is not found beside the plugin; set `shepherd` to its path");
		return SLUICE_E_NOT_FOUND;
	}
	return spool_open(service);
}

static int connect_client(struct service *service, const char *address, int transport_fd)
{
	const struct sluice_host *host = service->host;
	sluice_config *config = sluice_config_create();
	char fd[16];
	int rc;

	if (config == NULL)
		return SLUICE_E_NOMEM;
	(void)snprintf(fd, sizeof(fd), "%d", transport_fd);
	rc = sluice_config_set(config, "address", address);
	if (rc == 0)
		rc = sluice_config_set(config, "mode", "caller-loop");
	if (rc == 0)
		rc = sluice_config_set(config, "client", "local scheduler");
	if (rc == 0)
		rc = sluice_config_set(config, "session", setting(host, "session", "local"));
	if (rc == 0)
		rc = sluice_config_set(config, "session_timeout_ms",
				       setting(host, "session_timeout_ms", "5000"));
	if (rc == 0)
		rc = sluice_config_set(config, "reconnect_max_ms", "500");
	if (rc == 0 && transport_fd >= 0)
		rc = sluice_config_set(config, "transport_fd", fd);
	if (rc == 0)
		rc = sluice_open(config, on_event, service, &service->client);
	else
		service_log(service, SLUICE_LOG_ERROR, "local.setting", NULL, sluice_last_error(NULL));
	sluice_config_destroy(config);
	return rc;
}

static void ignore(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	(void)reply;
	(void)user;
}

static int consume(struct service *service)
{
	sluice_consume_spec spec = {.queue = service->queue,
				    .credit = (uint32_t)strtoul(setting(service->host, "slots", "64"), NULL,
								10),
				    .orphans = true,
				    .on_delivery = on_delivery,
				    .user = service};
	sluice_call call = {.deadline_ms = -1, .done = ignore};

	if (spec.credit == 0) {
		service_log(service, SLUICE_LOG_ERROR, "local.setting", NULL,
			    "setting slots; expected a number from 1");
		return SLUICE_E_INVAL;
	}
	return sluice_consume(service->client, &spec, &call, &service->sub);
}

static void epoll_one(struct service *service, const struct epoll_event *event)
{
	struct job *job;

	if (event->data.u64 == 0) {
		(void)sluice_process(service->client, 0);
		return;
	}
	if (event->data.u64 == 2) {
		service->stopping = true;
		return;
	}
	job = (struct job *)(uintptr_t)(event->data.u64 & ~(uint64_t)1);
	if (event->data.u64 & 1)
		job_starter_said(job);
	else
		job_watch_ended(job);
}

static int watch(struct service *service, int fd, uint64_t what)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = what};

	return epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : SLUICE_E_IO;
}

void service_child(struct service *service, pid_t pid)
{
	if (service->starter_count == service->starter_capacity) {
		size_t capacity = service->starter_capacity == 0 ? 16 : service->starter_capacity * 2;
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

static void children_reap(struct service *service, int flags)
{
	for (size_t i = 0; i < service->starter_count;) {
		pid_t got = waitpid(service->starters[i], NULL, flags);

		if (got == 0 || (got < 0 && errno == EINTR))
			i++;
		else
			service->starters[i] = service->starters[--service->starter_count];
	}
}

static void loop(struct service *service)
{
	while (!service->stopping) {
		/* One event a turn: handling it may free what another one points to. */
		struct epoll_event event;
		int count = epoll_wait(service->epoll_fd, &event, 1, TURN_MS);

		if (count == 1)
			epoll_one(service, &event);
		children_reap(service, WNOHANG);
		(void)sluice_process(service->client, 0);
		jobs_due(service, service_now_ms());
		sweep_turn(service, service_now_ms());
	}
}

static int local_run(const struct sluice_host *host, const char *address, int transport_fd, int stop_fd)
{
	struct service service = {.host = host, .stop_fd = stop_fd};
	int rc = settings_read(&service);

	if (rc != 0)
		return rc;
	service.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (service.epoll_fd < 0)
		return SLUICE_E_IO;
	rc = connect_client(&service, address, transport_fd);
	if (rc == 0)
		rc = watch(&service, sluice_fd(service.client), 0);
	if (rc == 0)
		rc = watch(&service, stop_fd, 2);
	if (rc == 0)
		rc = consume(&service);
	if (rc == 0) {
		service_log(&service, SLUICE_LOG_INFO, "local.ready", NULL, service.queue);
		loop(&service);
	}
	/* Jobs go on under their shepherds; the session stays, so a new instance takes them over at once. */
	(void)sluice_close(service.client, false, 1000);
	while (service.jobs != NULL) {
		service.jobs->calls = 0;
		job_free(service.jobs);
	}
	sweep_end(&service);
	children_reap(&service, 0);
	free(service.starters);
	(void)close(service.epoll_fd);
	return rc;
}

static const struct sluice_service_ops ops = {.struct_size = sizeof(struct sluice_service_ops),
					      .run = local_run};

const struct sluice_plugin SLUICE_PLUGIN_SYMBOL = {
	.struct_size = sizeof(struct sluice_plugin),
	.abi_major = SLUICE_PLUGIN_ABI_MAJOR,
	.abi_minor = SLUICE_PLUGIN_ABI_MINOR,
	.kind = SLUICE_PLUGIN_SERVICE,
	.name = "local",
	.version = "0.1.0",
	.ops = &ops,
};
