/* SPDX-License-Identifier: Apache-2.0
 *
 * See lifecycle_cache.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lifecycle_cache.h"

struct cached_lifecycle {
	struct cached_lifecycle *next;
	struct lifecycle lifecycle;
};

const struct lifecycle *job_lifecycle(const struct job *job)
{
	return &(job->lifecycle != NULL ? job->lifecycle : job->service->queue_lifecycle)
			->lifecycle;
}

struct cached_lifecycle *lifecycle_cache_find(const struct service *service, const char *name)
{
	struct cached_lifecycle *cached = service->lifecycles;

	while (cached != NULL && strcmp(cached->lifecycle.name, name) != 0)
		cached = cached->next;
	return cached;
}

void lifecycle_cache_free(struct service *service)
{
	while (service->lifecycles != NULL) {
		struct cached_lifecycle *cached = service->lifecycles;

		service->lifecycles = cached->next;
		lifecycle_free(&cached->lifecycle);
		free(cached);
	}
}

static int reply_read(const sluice_reply *reply, struct lifecycle *ret)
{
	sluice_reply *own = sluice_reply_ref((sluice_reply *)(uintptr_t)reply);
	const char *text = own != NULL ? sluice_reply_json(own) : NULL;
	int rc = text != NULL ? lifecycle_read(text, ret) : SLUICE_E_NOMEM;

	sluice_reply_free(own);
	/* The broker sends no broken ones. */
	return rc == SLUICE_E_INVAL ? SLUICE_E_PROTOCOL : rc;
}

int lifecycle_cache_put(struct service *service, const sluice_reply *reply, bool is_queues,
			struct cached_lifecycle **ret, char *why, size_t why_bytes)
{
	static const char *const none[ROLES] = {NULL};
	struct cached_lifecycle *cached;
	struct lifecycle read;
	int rc = reply_read(reply, &read);

	(void)snprintf(why, why_bytes, "the lifecycle cannot be read: %s", sluice_error_text(rc));
	if (rc != 0)
		return rc;
	rc = lifecycle_map(&read, service->settings.roles, why, why_bytes);
	if (rc != 0 && !is_queues)
		rc = lifecycle_map(&read, none, why, why_bytes);
	if (rc != 0) {
		lifecycle_free(&read);
		return rc;
	}
	cached = lifecycle_cache_find(service, read.name);
	if (cached == NULL) {
		cached = calloc(1, sizeof(*cached));
		if (cached == NULL) {
			lifecycle_free(&read);
			return SLUICE_E_NOMEM;
		}
		cached->next = service->lifecycles;
		service->lifecycles = cached;
	}
	lifecycle_free(&cached->lifecycle);
	cached->lifecycle = read;
	*ret = cached;
	return 0;
}
