/* SPDX-License-Identifier: Apache-2.0
 * Resolves names without blocking the loop: getaddrinfo on a thread of its own, which wakes the
 * loop. */
#ifndef SLUICE_CLIENT_RESOLVE_H
#define SLUICE_CLIENT_RESOLVE_H

#include <sys/socket.h>

#include "client/base/client.h"

struct resolver;

int resolver_start(sluice_client *client, const char *host, const char *port);
void resolver_drop(sluice_client *client);
/* True when the lookup has ended: *ret_code 0 with an address, or not 0. */
bool resolver_poll(struct resolver *resolver, struct sockaddr_storage *ret, socklen_t *ret_len,
		   int *ret_code);

#endif
