/* SPDX-License-Identifier: Apache-2.0
 *
 * The door of broker/net: the threads are made, started and stopped here. Ports are io/listen.c's.
 */
#include "broker/net/net.h"

#include <stdlib.h>
#include <unistd.h>

#include "broker/net/conn/internal.h"

static uint64_t started_ms; /* written once, by net_create, before any thread of it runs */

uint64_t net_uptime_ms(void)
{
	return io_now_ms() - started_ms;
}

int net_create(const struct net_config *config, struct engine *engine, struct net **ret)
{
	struct net *net = calloc(1, sizeof(*net));

	if (net == NULL)
		return SLUICE_E_NOMEM;
	net->config = *config;
	net->engine = engine;
	started_ms = io_now_ms();
	net->io_count = config->io_threads != 0 ? config->io_threads : 1;
	net->ios = calloc(net->io_count, sizeof(*net->ios));
	if (net->ios == NULL || instances_create(&net->instances) != 0) {
		free(net->ios);
		free(net);
		return SLUICE_E_NOMEM;
	}
	for (uint32_t i = 0; i < net->io_count; i++) {
		int rc = io_init(&net->ios[i], net);

		if (rc != 0) {
			net_destroy(net);
			return rc;
		}
	}
	*ret = net;
	return 0;
}

int net_start(struct net *net)
{
	for (uint32_t i = 0; i < net->io_count; i++) {
		if (pthread_create(&net->ios[i].thread, NULL, io_run, &net->ios[i]) != 0)
			return SLUICE_E_NOMEM;
		net->ios[i].runs = true;
	}
	return 0;
}

void net_stop(struct net *net)
{
	uint64_t one = 1;

	for (uint32_t i = 0; i < net->io_count; i++) {
		struct io *io = &net->ios[i];

		if (!io->runs)
			continue;
		(void)pthread_mutex_lock(&io->lock);
		io->stop = true;
		(void)pthread_mutex_unlock(&io->lock);
		if (write(io->wake_fd, &one, sizeof(one)) < 0)
			continue;
		(void)pthread_join(io->thread, NULL);
		io->runs = false;
	}
}

void net_destroy(struct net *net)
{
	if (net == NULL)
		return;
	listeners_close(net);
	for (uint32_t i = 0; i < net->io_count; i++)
		io_fini(&net->ios[i]);
	free(net->ios);
	instances_destroy(net->instances);
	free(net);
}

uint64_t net_connections(const struct net *net)
{
	return atomic_load(&net->connections);
}
