/* SPDX-License-Identifier: Apache-2.0
 * The configuration of broker/net. For net.h and struct net. */
#ifndef SLUICE_NET_CONFIG_H
#define SLUICE_NET_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

struct admission;
struct protocol_ops;
struct tls;

/* A row of the table of listeners: a listening socket and what its connections speak. */
struct net_listener {
	const struct protocol_ops *protocol; /* protocols.h, with what it says of */
	const void *listener;		     /* its listener; borrowed for the net's life */
	const char *address;		     /* numeric, such as 127.0.0.1 or ::1 */
	uint16_t port;			     /* 0: any free port */
	const char *path;		     /* of a unix socket, instead of both; NULL: none */
	struct tls *tls;		     /* tls.h; NULL: plain; borrowed for the net's life */
	uint32_t connections_max;	     /* of this listener; 0: only that of the net */
};

struct net_config {
	uint32_t io_threads;	   /* 0: 1 */
	uint32_t connections_max;  /* 0: 20,000 */
	uint64_t outbox_bytes_max; /* unread output of all connections together; 0: 512 MiB */
	uint64_t input_bytes_max;  /* memory for input of all connections together; 0: 512 MiB */
	bool zstd;		   /* announced in HELLO */
	const struct admission *admission; /* NULL: everything is allowed; borrowed */
};

#endif
