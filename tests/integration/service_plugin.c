/* SPDX-License-Identifier: Apache-2.0
 * A service plugin that behaves correctly or wrongly, as SERVICE_MODE says, to test how the host
 * handles each. */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "sluice/plugin.h"

#define MODE_GOOD 0
#define MODE_NO_RUN 1
#define MODE_INIT_FAILS 2
#define MODE_INIT_POSITIVE 3
#define MODE_NEVER_STOPS 4
#define MODE_ENDS 5

#ifndef SERVICE_MODE
#define SERVICE_MODE MODE_GOOD
#endif

static atomic_int inits, finis;
static const struct sluice_host *hosts[8];

static int service_init(const struct sluice_host *host)
{
	char text[64];
	int at = atomic_fetch_add(&inits, 1);

	(void)snprintf(text, sizeof(text), "init %d", at + 1);
	host->log(host->host, SLUICE_LOG_INFO, "service.init", text);
	hosts[at % 8] = host;
	return SERVICE_MODE == MODE_INIT_FAILS	    ? SLUICE_E_DENIED
	       : SERVICE_MODE == MODE_INIT_POSITIVE ? 7
						    : 0;
}

static void service_fini(void)
{
	/* The host is valid until fini returns; services end in the order in which they began. */
	char text[64];
	int at = atomic_fetch_add(&finis, 1);

	(void)snprintf(text, sizeof(text), "fini %d", at + 1);
	hosts[at % 8]->log(hosts[at % 8]->host, SLUICE_LOG_INFO, "service.fini", text);
}

static void *talk(void *user)
{
	const struct sluice_host *host = user;

	for (int i = 0; i < 100; i++) {
		const char *name = host->setting(host->host, "name");

		host->log(host->host, (enum sluice_log_level)(i % 7), i % 2 ? NULL : "service.talk",
			  i % 3 ? name : NULL);
	}
	(void)host->setting(host->host, NULL);
	return NULL;
}

static int service_run(const struct sluice_host *host, const char *address, int transport_fd,
		       int stop_fd)
{
	pthread_t threads[4];

	(void)address;
	for (int i = 0; i < 4; i++)
		if (pthread_create(&threads[i], NULL, talk, (void *)(uintptr_t)host) != 0)
			return SLUICE_E_NOMEM;
	for (int i = 0; i < 4; i++)
		(void)pthread_join(threads[i], NULL);
	host->log(host->host, SLUICE_LOG_INFO, "service.runs", host->setting(host->host, "name"));
	if (SERVICE_MODE == MODE_ENDS)
		return 0;
	(void)poll(&(struct pollfd){.fd = stop_fd, .events = POLLIN}, 1, -1);
	while (SERVICE_MODE == MODE_NEVER_STOPS)
		(void)pause();
	if (transport_fd >= 0)
		(void)close(transport_fd);
	return 0;
}

static const struct sluice_service_ops ops = {
	.struct_size = sizeof(struct sluice_service_ops),
	.run = SERVICE_MODE == MODE_NO_RUN ? NULL : service_run,
};

const struct sluice_plugin SLUICE_PLUGIN_SYMBOL = {
	.struct_size = sizeof(struct sluice_plugin),
	.abi_major = SLUICE_PLUGIN_ABI_MAJOR,
	.abi_minor = SLUICE_PLUGIN_ABI_MINOR,
	.kind = SLUICE_PLUGIN_SERVICE,
	.name = "service",
	.version = "1",
	.init = service_init,
	.fini = service_fini,
	.ops = &ops,
};
