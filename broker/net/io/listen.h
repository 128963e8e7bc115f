/* SPDX-License-Identifier: Apache-2.0
 * Listening sockets. For net.c. */
#ifndef SLUICE_NET_LISTEN_H
#define SLUICE_NET_LISTEN_H

#include <stdint.h>

#include "sluice/error.h"

struct net;
struct net_listener;

/* As net_listen of net.h. */
int listener_open(struct net *net, const struct net_listener *row, uint16_t *ret_port,
		  const char **ret_why) SLUICE_MUST_USE;
/* Accepts no more. Before the threads' loops are freed. */
void listeners_close(struct net *net);
void listeners_free(struct net *net); /* after their connections */

#endif
