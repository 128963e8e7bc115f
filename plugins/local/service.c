/* SPDX-License-Identifier: Apache-2.0
 *
 * `local`: the scheduler plugin that runs jobs as processes of this machine. A service: a client of
 * the broker like any other, the same inside the broker and under sluice-plugin. Its settings:
 * README.md.
 *
 * This file is its life: the spool, the client, the loop. The service waits for what can come by
 * itself (broker, queue, lifecycle, a spool that is not mounted or full), at the start and later.
 * What needs a person (a wrong setting, a session that another instance took) ends the service with
 * a code, and its cause is logged.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compare.h"
#include "consumer.h"
#include "job.h"
#include "job_spawn.h"
#include "job_table.h"
#include "lifecycle_cache.h"
#include "settings.h"
#include "sweep.h"

enum {
	TURN_MS = 200,
	BUSY_TURN_MS = 10,
	SPOOL_PAUSE_MS_MIN = 250,
	SPOOL_PAUSE_MS_MAX = 10000,
	CLOSE_MS = 1000
};

/* ---- the spool ---- */

static int spool_open(struct service *service, char *why, size_t why_bytes)
{
	const char *spool = service->settings.spool;
	int rc = 0;

	if (mkdir(spool, 0700) != 0 && errno != EEXIST)
		rc = attempt_fail("create directory", spool);
	if (rc == 0)
		rc = attempt_spool(spool, service->spool_id);
	if (rc == SLUICE_E_CORRUPT)
		(void)snprintf(why, why_bytes,
			       "setting spool is '%.200s': its file `id` is damaged; expected 8 "
			       "hex digits",
			       spool);
	else
		(void)snprintf(why, why_bytes, "setting spool is '%.200s': cannot %s", spool,
			       attempt_error());
	return rc;
}

/* Errors that can pass without a change of settings or rights: no mount yet, no room. */
static bool spool_may_come(int error)
{
	static const int passing[] = {ENOENT, ENOSPC, EDQUOT, EIO,   EMFILE, ENFILE,
				      ENOMEM, ESTALE, EAGAIN, EINTR, ENODEV, EHOSTDOWN};

	for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
		if (passing[i] == error)
			return true;
	return false;
}

/* Until the spool can be used, or never will, or the service is asked to end (then it is
 * stopping). */
static int spool_wait(struct service *service)
{
	struct pollfd stop = {.fd = service->stop_fd, .events = POLLIN};
	const uint64_t from_ms = service_now_ms();
	uint64_t pause_ms = SPOOL_PAUSE_MS_MIN;
	char why[800], last[800] = "";

	for (;;) {
		int rc = spool_open(service, why, sizeof(why));

		if (rc == 0)
			return 0;
		if (rc == SLUICE_E_CORRUPT || !spool_may_come(attempt_errno()) ||
		    (service->settings.give_up_ms > 0 &&
		     service_now_ms() - from_ms >= service->settings.give_up_ms)) {
			service_fail(service, rc, "local.spool", why);
			return rc;
		}
		if (strcmp(why, last) != 0)
			service_log(service, SLUICE_LOG_ERROR, "local.spool", NULL, why);
		memcpy(last, why, sizeof(last));
		if (poll(&stop, 1, (int)pause_ms) > 0) {
			service->stopping = true;
			return 0;
		}
		pause_ms = pause_ms * 2 < SPOOL_PAUSE_MS_MAX ? pause_ms * 2 : SPOOL_PAUSE_MS_MAX;
	}
}

/* ---- the client ---- */

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	struct service *service = user;

	(void)client;
	switch (notice->kind) {
	case SLUICE_NOTICE_JOB_CANCEL:
		job_cancel(service, notice->job, notice->token);
		return;
	case SLUICE_NOTICE_LEASE_LOST:
		job_lease_lost(service, notice->job, notice->token);
		return;
	case SLUICE_NOTICE_CONNECTED:
	case SLUICE_NOTICE_RESUMED:
		/* Notices that were sent into the gap did not arrive. */
		compare_soon(service);
		return;
	case SLUICE_NOTICE_DISCONNECTED:
		service->check_client = true;
		service_log(service, SLUICE_LOG_INFO, "local.disconnected", NULL, notice->text);
		return;
	case SLUICE_NOTICE_SESSION_LOST:
		service_log(service, SLUICE_LOG_WARN, "local.session_lost", NULL, notice->text);
		return;
	case SLUICE_NOTICE_ERROR:
	case SLUICE_NOTICE_DAMAGED:
		service_log(service, SLUICE_LOG_WARN, "local.error", NULL, notice->text);
		return;
	default:
		return;
	}
}

static int watch(struct service *service, int fd, uint64_t what)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = what};

	return epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : SLUICE_E_IO;
}

/* transport_fd: a connected socket, or -1: it connects to the address. */
static int connect_client(struct service *service, int transport_fd)
{
	const struct {
		const char *key, *value;
	} fixed[] = {{"address", service->address},
		     {"mode", "caller-loop"},
		     {"client", "local scheduler"},
		     {"session", service->settings.session},
		     {"reconnect_max_ms", "500"}};
	sluice_config *config = sluice_config_create();
	char number[24];
	int rc = 0;

	if (config == NULL)
		return SLUICE_E_NOMEM;
	for (size_t i = 0; rc == 0 && i < sizeof(fixed) / sizeof(fixed[0]); i++)
		rc = sluice_config_set(config, fixed[i].key, fixed[i].value);
	(void)snprintf(number, sizeof(number), "%" PRIu64, service->settings.session_timeout_ms);
	if (rc == 0)
		rc = sluice_config_set(config, "session_timeout_ms", number);
	(void)snprintf(number, sizeof(number), "%d", transport_fd);
	if (rc == 0 && transport_fd >= 0)
		rc = sluice_config_set(config, "transport_fd", number);
	service->has_transport = transport_fd >= 0;
	if (rc != 0)
		service_fail(service, rc, "local.setting", sluice_last_error(NULL));
	if (rc == 0)
		rc = sluice_open(config, on_notice, service, &service->client);
	sluice_config_destroy(config);
	return rc != 0 ? rc : watch(service, sluice_fd(service->client), 0);
}

static void close_client(struct service *service)
{
	sluice_client *client = service->client;

	service->client = NULL;
	service->sub = NULL;
	service->has_transport = false;
	service->consumer.life++; /* the answers that closing brings count for nothing */
	(void)sluice_close(client, false, CLOSE_MS);
}

/* After a disconnect: replaces a client that does not connect again by itself, after the pause of
 * consumer.c, unless another try would end the same way. */
static void client_check(struct service *service)
{
	char why[256];
	int rc;

	service->check_client = false;
	rc = sluice_wait_connected(service->client, 1);
	/* A client that connects again by itself also says DISCONNECTED; with a given socket it
	 * does not. */
	if (rc == 0 || rc == SLUICE_E_TIMEOUT ||
	    (rc == SLUICE_E_DISCONNECTED && !service->has_transport))
		return;
	(void)snprintf(why, sizeof(why), "%.200s", sluice_last_error(service->client));
	close_client(service);
	consumer_lost(service, rc, why);
}

static void client_turn(struct service *service, uint64_t now_ms)
{
	if (service->client != NULL && service->check_client)
		client_check(service);
	if (service->client == NULL && !service->stopping && service->consumer.due_ms <= now_ms) {
		int rc = connect_client(service, -1);

		if (rc != 0 && !service->stopping)
			consumer_lost(service, rc, "a client cannot be made");
	}
	if (service->client != NULL && !service->stopping)
		(void)sluice_process(service->client, 0);
}

/* ---- the loop ---- */

static void epoll_one(struct service *service, const struct epoll_event *event)
{
	struct job *job;

	if (event->data.u64 == 0) {
		if (service->client != NULL)
			(void)sluice_process(service->client, 0);
		return;
	}
	if (event->data.u64 == 2) {
		service->stopping = true;
		return;
	}
	job = (struct job *)(uintptr_t)(event->data.u64 & ~(uint64_t)1);
	if (event->data.u64 & 1)
		job_handle_starter(job);
	else
		job_handle_exit(job);
}

static void loop(struct service *service)
{
	while (!service->stopping) {
		/* One event a turn: handling it may free what another one points to. */
		struct epoll_event event;
		int count = epoll_wait(service->epoll_fd, &event, 1,
				       sweep_is_busy(service) ? BUSY_TURN_MS : TURN_MS);
		uint64_t now_ms;

		if (count == 1)
			epoll_one(service, &event);
		service_children_reap(service, WNOHANG);
		now_ms = service_now_ms();
		client_turn(service, now_ms);
		if (service->client == NULL)
			continue; /* all of it needs the broker */
		consumer_turn(service, now_ms);
		jobs_due(service, now_ms);
		compare_turn(service, now_ms);
		sweep_turn(service, now_ms);
	}
}

static void source_name(struct service *service)
{
	/* The spool's own name: an attempt can be judged where its files are, and nowhere else. */
	if (service->settings.source[0] != 0)
		(void)snprintf(service->source, sizeof(service->source), "%s",
			       service->settings.source);
	else
		(void)snprintf(service->source, sizeof(service->source), "local:%s",
			       service->spool_id);
}

static int serve(struct service *service, int transport_fd)
{
	int rc;

	source_name(service);
	service->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (service->epoll_fd < 0)
		return SLUICE_E_IO;
	rc = watch(service, service->stop_fd, 2);
	if (rc == 0)
		rc = connect_client(service, transport_fd);
	if (rc == 0)
		loop(service);
	/* Jobs continue under their shepherds; the session stays, so a new instance takes them over
	 * at once. */
	if (service->client != NULL)
		close_client(service);
	while (service->jobs != NULL) {
		service->jobs->calls = 0;
		job_free(service->jobs);
	}
	lifecycle_cache_free(service);
	sweep_end(service);
	service_children_reap(service, 0);
	free(service->starters);
	(void)close(service->epoll_fd);
	return rc;
}

static int local_run(const struct sluice_host *host, const char *address, int transport_fd,
		     int stop_fd)
{
	struct service service = {.host = host, .address = address, .stop_fd = stop_fd};
	int rc = settings_read(&service);

	if (rc == 0)
		rc = spool_wait(&service);
	if (rc != 0 || service.stopping) {
		if (transport_fd >= 0)
			(void)close(transport_fd);
		return rc;
	}
	rc = serve(&service, transport_fd);
	return rc != 0 ? rc : service.result;
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
