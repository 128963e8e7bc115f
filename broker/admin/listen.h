/* SPDX-License-Identifier: Apache-2.0
 * A value of the setting `listen`: where a port is opened. */
#ifndef SLUICE_ADMIN_LISTEN_H
#define SLUICE_ADMIN_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sluice/error.h"

struct listen_at {
	char path[108]; /* of a unix socket; empty: TCP */
	char host[64];	/* numeric, without brackets; localhost is 127.0.0.1 */
	uint16_t port;	/* 0: any free port */
	bool tls;
};

/* Parses ADDRESS:PORT, tls:ADDRESS:PORT or unix:/PATH. INVAL: why says what was expected; *ret is
 * untouched. */
int listen_parse(const char *text, struct listen_at *ret, char *why,
		 size_t why_bytes) SLUICE_MUST_USE;
/* Only programs of this machine reach it. */
bool listen_is_local(const struct listen_at *at);
/* As a client is given it. */
enum { LISTEN_TEXT_BYTES = 128 };
const char *listen_text(const struct listen_at *at, char text[LISTEN_TEXT_BYTES]);

#endif
