/* SPDX-License-Identifier: Apache-2.0
 * TLS on the link's socket. Under the client's lock; nothing blocks. */
#ifndef SLUICE_CLIENT_LINK_TLS_H
#define SLUICE_CLIENT_LINK_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "sluice/error.h"

struct link_tls;
/* The certificates that a client trusts, for all its connections: read for the first one, and for a
 * later one if their files have changed since and can be read. */
struct link_trust;

/* Begins a connection to host (a name or a numeric address), whose certificate must name it (SAN)
 * and lead to one in ca_file, or to one that the system trusts if that is "". *io_trust: NULL at
 * first, made here; always with the same ca_file. why gets the cause of an error. Owned. */
int link_tls_begin(int fd, const char *host, const char *ca_file, struct link_trust **io_trust,
		   struct link_tls **ret, char *why, size_t why_bytes) SLUICE_MUST_USE;
/* 0: done. BUSY: to be called again when the socket is readable, or also writable (*ret_writes).
 * Else: failed, why has the cause. */
int link_tls_handshake(struct link_tls *tls, bool *ret_writes, char *why, size_t why_bytes);
/* As send() and recv() on the socket; at least 16 KiB are asked of recv. */
ssize_t link_tls_send(struct link_tls *tls, const void *bytes, size_t len);
ssize_t link_tls_recv(struct link_tls *tls, void *bytes, size_t len);
void link_trust_free(struct link_trust *trust); /* accepts NULL */
void link_tls_end(struct link_tls *tls);	/* tells the peer, and frees it; accepts NULL */

#endif
