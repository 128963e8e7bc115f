/* SPDX-License-Identifier: Apache-2.0
 * Listening sockets. For net.c. */
#ifndef SLUICE_NET_LISTEN_H
#define SLUICE_NET_LISTEN_H

#include <stdint.h>

#include "sluice/error.h"

struct net;
struct protocol_ops;

/* As net_listen of net.h. */
int listener_open(struct net *net, const struct protocol_ops *protocol, const void *listener,
		  const char *address, uint16_t port, uint16_t *ret_port,
		  const char **ret_why) SLUICE_MUST_USE;
void listeners_close(struct net *net);

#endif
