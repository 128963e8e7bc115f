/* SPDX-License-Identifier: Apache-2.0
 *
 * Listening and talking. N I/O threads with one event_base each; a connection stays on its thread. All listeners, the native one too, enter
 * through net_listen() with a struct sluice_listener_ops (include/sluice/plugin.h).
 */
#ifndef SLUICE_NET_NET_H
#define SLUICE_NET_NET_H

#include "broker/engine/engine.h"
#include "sluice/plugin.h"

struct net;

struct net_config {
	uint32_t io_threads;	   /* 0: 1 */
	uint32_t connections_max;  /* 0: 20,000 */
	uint64_t outbox_bytes_max; /* unread output of all connections together; 0: 512 MiB */
	bool zstd;		   /* announced in HELLO */
};

/* Registers its sinks with the engine; so before engine_start. borrows engine. */
int net_create(const struct net_config *config, struct engine *engine, struct net **ret) SLUICE_MUST_USE;
int net_start(struct net *net) SLUICE_MUST_USE;
/* Closes listeners and connections and ends the threads. The engine must have been stopped before. */
void net_stop(struct net *net);
void net_destroy(struct net *net); /* accepts NULL; after net_stop */

/* Opens a listening socket. address is numeric. *ret_port gets the port that was bound (for port 0). borrows ops for the net's
 * life. Errors: INVAL (address), IN_USE, IO; *ret_why says more. Before net_start. */
int net_listen(struct net *net, const struct sluice_listener_ops *ops, const char *address, uint16_t port,
	       uint16_t *ret_port, const char **ret_why) SLUICE_MUST_USE;
/* Hands in a connected socket, as if it had been accepted (in-process transports). takes the descriptor. Any thread. */
int net_adopt(struct net *net, const struct sluice_listener_ops *ops, int fd) SLUICE_MUST_USE;

/* The native protocol's listener. */
extern const struct sluice_listener_ops native_listener_ops;

uint64_t net_connections(const struct net *net); /* any thread */
uint64_t net_uptime_ms(void);			 /* since net_create; any thread */

#endif
