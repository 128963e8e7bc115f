/* SPDX-License-Identifier: Apache-2.0
 *
 * Ports and connections. N I/O threads with one event_base each; a connection stays on its thread.
 * Each port speaks one protocol; main.c opens the ports.
 */
#ifndef SLUICE_NET_NET_H
#define SLUICE_NET_NET_H

#include "broker/engine/engine.h"
#include "broker/net/conn/config.h"
#include "broker/net/conn/tls.h"
#include "broker/net/protocols.h"

struct net;

/* Registers its sinks with the engine, so it must run before engine_start. borrows engine. */
int net_create(const struct net_config *config, struct engine *engine,
	       struct net **ret) SLUICE_MUST_USE;
int net_start(struct net *net) SLUICE_MUST_USE;
/* Before engine_stop: accepts and reads nothing more, tells the clients, and waits until all that
 * was read is answered and sent, at most so long. False: something was not. Blocks; once. */
bool net_drain(struct net *net, uint64_t within_ms);
/* Closes listeners and connections and ends the threads. The engine must have been stopped
 * before. */
void net_stop(struct net *net);
void net_destroy(struct net *net); /* accepts NULL; after net_stop */

/* Opens the listening socket of a row. *ret_port gets the bound port. Errors: INVAL (address),
 * IN_USE, IO; *ret_why says more. Before net_start. borrows the row for the call. */
int net_listen(struct net *net, const struct net_listener *row, uint16_t *ret_port,
	       const char **ret_why) SLUICE_MUST_USE;
/* Adds a connected socket as if it had been accepted (in-process transports). takes the descriptor.
 * Any thread. NOMEM: the descriptor is closed. */
int net_adopt(struct net *net, const struct protocol_ops *protocol, const void *listener,
	      int fd) SLUICE_MUST_USE;

/* The rules of net_config.admission have changed, and something was taken away. Each thread judges
 * by them from now on and ends the subscriptions that lost their right; waits until all that it has
 * sent under older rules is answered, and nothing is claimed any more for those consumers, at most
 * so long. Returns how many threads have not reported. Blocks: not on an I/O thread or the
 * engine's; one call at a time. */
uint32_t net_security_change(struct net *net, uint64_t within_ms);

uint64_t net_connections(const struct net *net); /* any thread */

#endif
