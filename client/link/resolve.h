/* SPDX-License-Identifier: Apache-2.0
 * Names to addresses without blocking the loop: getaddrinfo on a thread of its own, which wakes the loop. */
#ifndef SLUICE_CLIENT_RESOLVE_H
#define SLUICE_CLIENT_RESOLVE_H

#include <stdbool.h>
#include <sys/socket.h>

struct resolver;

/* True when the look-up has ended: *ret_code 0 with an address, or not 0. */
bool resolver_poll(struct resolver *resolver, struct sockaddr_storage *ret, socklen_t *ret_len,
		   int *ret_code);

#endif
