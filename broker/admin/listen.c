/* SPDX-License-Identifier: Apache-2.0
 * See listen.h. */
#include "broker/admin/listen.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char UNIX[] = "unix:", TLS[] = "tls:";

/* 0 to 65535, digits only; 0 lets the kernel choose. */
static bool port_parse(const char *text, uint16_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	unsigned long port = strtoul(text, NULL, 10);

	*ret = (uint16_t)port;
	return digits > 0 && digits <= 5 && text[digits] == 0 && port <= UINT16_MAX;
}

static int path_parse(const char *text, struct listen_at *ret, char *why, size_t why_bytes)
{
	const char *path = text + sizeof(UNIX) - 1;
	size_t len = strlen(path);

	/* One that begins with '/' is never an abstract address, which has no owner and no mode. */
	if (path[0] != '/' || len >= sizeof(ret->path)) {
		(void)snprintf(why, why_bytes,
			       "listen is '%.200s'; expected unix:/PATH, at most %zu bytes of path",
			       text, sizeof(ret->path) - 1);
		return SLUICE_E_INVAL;
	}
	*ret = (struct listen_at){.port = 0};
	memcpy(ret->path, path, len + 1);
	return 0;
}

int listen_parse(const char *text, struct listen_at *ret, char *why, size_t why_bytes)
{
	struct listen_at at = {.tls = strncmp(text, TLS, sizeof(TLS) - 1) == 0};
	const char *host = at.tls ? text + sizeof(TLS) - 1 : text, *colon = strrchr(host, ':');
	size_t len = colon != NULL ? (size_t)(colon - host) : 0;

	if (strncmp(text, UNIX, sizeof(UNIX) - 1) == 0)
		return path_parse(text, ret, why, why_bytes);
	if (colon == NULL || len == 0 || len + 1 > sizeof(at.host) ||
	    !port_parse(colon + 1, &at.port)) {
		(void)snprintf(why, why_bytes,
			       "listen is '%.200s'; expected ADDRESS:PORT, such as 127.0.0.1:7584 "
			       "or [::1]:7584, tls:ADDRESS:PORT, or unix:/PATH",
			       text);
		return SLUICE_E_INVAL;
	}
	if (host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	memcpy(at.host, host, len);
	at.host[len] = 0;
	/* As clients resolve it, independent of /etc/hosts. */
	if (strcmp(at.host, "localhost") == 0)
		(void)snprintf(at.host, sizeof(at.host), "127.0.0.1");
	*ret = at;
	return 0;
}

bool listen_is_local(const struct listen_at *at)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (at->path[0] != 0)
		return true;
	if (inet_pton(AF_INET, at->host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, at->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

const char *listen_text(const struct listen_at *at, char text[LISTEN_TEXT_BYTES])
{
	if (at->path[0] != 0)
		(void)snprintf(text, LISTEN_TEXT_BYTES, "%s%s", UNIX, at->path);
	else
		(void)snprintf(text, LISTEN_TEXT_BYTES, "%s%s:%u", at->tls ? TLS : "", at->host,
			       at->port);
	return text;
}
