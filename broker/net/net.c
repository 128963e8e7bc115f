/* SPDX-License-Identifier: Apache-2.0
 * The interface of broker/net: creates, starts and stops the threads. io/listen.c opens the
 * ports. */
#include "broker/net/net.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "broker/net/conn/instance.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/state.h"
#include "broker/net/io/io.h"
#include "broker/net/io/listen.h"

static int drain_init(struct net *net)
{
	pthread_condattr_t attributes;
	int rc = pthread_mutex_init(&net->drain_lock, NULL);

	if (rc != 0)
		return SLUICE_E_NOMEM;
	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	rc = pthread_cond_init(&net->drain_done, &attributes);
	(void)pthread_condattr_destroy(&attributes);
	if (rc == 0)
		return 0;
	(void)pthread_mutex_destroy(&net->drain_lock);
	return SLUICE_E_NOMEM;
}

static void drain_fini(struct net *net)
{
	(void)pthread_cond_destroy(&net->drain_done);
	(void)pthread_mutex_destroy(&net->drain_lock);
}

int net_create(const struct net_config *config, struct engine *engine, struct net **ret)
{
	struct net *net = calloc(1, sizeof(*net));

	if (net == NULL)
		return SLUICE_E_NOMEM;
	net->config = *config;
	net->engine = engine;
	net->started_ms = io_now_ms();
	net->io_count = config->io_threads != 0 ? config->io_threads : 1;
	net->ios = calloc(net->io_count, sizeof(*net->ios));
	if (net->ios == NULL || drain_init(net) != 0) {
		free(net->ios);
		free(net);
		return SLUICE_E_NOMEM;
	}
	if (instances_create(&net->instances) != 0) {
		drain_fini(net);
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
		int rc = io_start(&net->ios[i]);

		if (rc != 0)
			return rc;
	}
	return 0;
}

static struct timespec after_ms(uint64_t ms)
{
	struct timespec at;

	(void)clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += (time_t)(ms / 1000);
	at.tv_nsec += (long)(ms % 1000) * 1000000;
	if (at.tv_nsec >= 1000000000) {
		at.tv_sec++;
		at.tv_nsec -= 1000000000;
	}
	return at;
}

/* Until *left is 0, at most so long; returns it. */
static uint32_t wait_for(struct net *net, const uint32_t *left, uint64_t within_ms)
{
	const struct timespec until = after_ms(within_ms);
	uint32_t now;

	(void)pthread_mutex_lock(&net->drain_lock);
	while (*left > 0 &&
	       pthread_cond_timedwait(&net->drain_done, &net->drain_lock, &until) != ETIMEDOUT)
		;
	now = *left;
	(void)pthread_mutex_unlock(&net->drain_lock);
	return now;
}

bool net_drain(struct net *net, uint64_t within_ms)
{
	net->drain_left = net->io_count;
	engine_drain(net->engine);
	for (uint32_t i = 0; i < net->io_count; i++)
		io_drain(&net->ios[i], within_ms);
	return wait_for(net, &net->drain_left, within_ms) == 0;
}

uint32_t net_security_change(struct net *net, uint64_t within_ms)
{
	uint64_t version;

	(void)pthread_mutex_lock(&net->drain_lock);
	version = ++net->security;
	net->security_left = net->io_count;
	(void)pthread_mutex_unlock(&net->drain_lock);
	for (uint32_t i = 0; i < net->io_count; i++)
		io_security(&net->ios[i], version);
	return wait_for(net, &net->security_left, within_ms);
}

void net_stop(struct net *net)
{
	for (uint32_t i = 0; i < net->io_count; i++)
		io_stop(&net->ios[i]);
}

void net_destroy(struct net *net)
{
	if (net == NULL)
		return;
	listeners_close(net);
	for (uint32_t i = 0; i < net->io_count; i++)
		io_fini(&net->ios[i]);
	listeners_free(net);
	free(net->ios);
	instances_destroy(net->instances);
	drain_fini(net);
	free(net);
}

int net_listen(struct net *net, const struct net_listener *row, uint16_t *ret_port,
	       const char **ret_why)
{
	return listener_open(net, row, ret_port, ret_why);
}

int net_adopt(struct net *net, const struct protocol_ops *protocol, const void *listener, int fd)
{
	/* The broker's own plugins are few, and are not refused because of other connections. */
	atomic_fetch_add(&net->connections, 1);
	return io_adopt(net,
			&(struct arrival){.protocol = protocol, .listener = listener, .fd = fd});
}

uint64_t net_connections(const struct net *net)
{
	return atomic_load(&net->connections);
}
