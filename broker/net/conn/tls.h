/* SPDX-License-Identifier: Apache-2.0
 * TLS: the certificate and key of a listener. For main.c, by net.h; what lies on a connection is in
 * wire.h. */
#ifndef SLUICE_NET_TLS_H
#define SLUICE_NET_TLS_H

#include "sluice/error.h"

struct tls;

/* Reads a chain of certificates and a key, both PEM. Any number of listeners may have it. Errors:
 * DENIED: others can read the key; INVAL; NOMEM. *ret_why says more, until the next call. Owned. */
int tls_create(const char *certificate_file, const char *key_file, struct tls **ret,
	       const char **ret_why) SLUICE_MUST_USE;
void tls_destroy(struct tls *tls); /* accepts NULL; after the net */

#endif
