/* SPDX-License-Identifier: Apache-2.0
 * See resolve.h. The thread and the client share the resolver by reference; the last one frees it,
 * so a lookup that hangs blocks no other thread. */
#include "client/link/resolve.h"

#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/link/link.h"

struct resolver {
	atomic_int refs;
	atomic_bool done;
	int wake_fd; /* a duplicate */
	int code;
	char host[300], port[16];
	struct sockaddr_storage addr;
	socklen_t len;
};

static void unref(struct resolver *resolver)
{
	if (atomic_fetch_sub(&resolver->refs, 1) != 1)
		return;
	(void)close(resolver->wake_fd);
	mem_free(resolver);
}

static void *resolve(void *user)
{
	struct resolver *resolver = user;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	uint64_t one = 1;

	resolver->code = getaddrinfo(resolver->host, resolver->port, &hints, &list);
	if (resolver->code == 0) {
		memcpy(&resolver->addr, list->ai_addr, list->ai_addrlen);
		resolver->len = list->ai_addrlen;
		freeaddrinfo(list);
	}
	atomic_store(&resolver->done, true);
	(void)!write(resolver->wake_fd, &one, sizeof(one));
	unref(resolver);
	return NULL;
}

int resolver_start(sluice_client *client, const char *host, const char *port)
{
	struct resolver *resolver = mem_alloc(sizeof(*resolver));
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	if (resolver == NULL)
		return SLUICE_E_NOMEM;
	atomic_init(&resolver->refs, 2);
	(void)snprintf(resolver->host, sizeof(resolver->host), "%s", host);
	(void)snprintf(resolver->port, sizeof(resolver->port), "%s", port);
	resolver->wake_fd = fcntl(client->wake_fd, F_DUPFD_CLOEXEC, 0);
	client->link->resolver = resolver;
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = thread_start(&thread, &attr, resolve, resolver);
	(void)pthread_attr_destroy(&attr);
	if (rc != 0) {
		unref(resolver);
		resolver_drop(client);
		return SLUICE_E_NOMEM;
	}
	return 0;
}

bool resolver_poll(struct resolver *resolver, struct sockaddr_storage *ret, socklen_t *ret_len,
		   int *ret_code)
{
	if (resolver == NULL || !atomic_load(&resolver->done))
		return false;
	*ret_code = resolver->code;
	*ret = resolver->addr;
	*ret_len = resolver->len;
	return true;
}

void resolver_drop(sluice_client *client)
{
	if (client->link->resolver != NULL)
		unref(client->link->resolver);
	client->link->resolver = NULL;
}
