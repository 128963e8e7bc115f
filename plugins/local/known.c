/* SPDX-License-Identifier: Apache-2.0
 *
 * The lifecycles that jobs in hand have: the queue's, and those that single jobs were submitted with. Read when they are
 * needed, and read anew after a report was put into quarantine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "known.h"

struct known_lifecycle {
	struct known_lifecycle *next;
	struct lifecycle lifecycle;
};

const struct lifecycle *job_lifecycle(const struct job *job)
{
	return &(job->known != NULL ? job->known : job->service->known)->lifecycle;
}

struct known_lifecycle *known_find(const struct service *service, const char *name)
{
	struct known_lifecycle *known = service->knowns;

	while (known != NULL && strcmp(known->lifecycle.name, name) != 0)
		known = known->next;
	return known;
}

void known_free_all(struct service *service)
{
	while (service->knowns != NULL) {
		struct known_lifecycle *known = service->knowns;

		service->knowns = known->next;
		lifecycle_free(&known->lifecycle);
		free(known);
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

int known_take(struct service *service, const sluice_reply *reply, bool is_queues,
	       struct known_lifecycle **ret, char *why, size_t why_bytes)
{
	static const char *const none[ROLES] = {NULL};
	struct known_lifecycle *known;
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
	known = known_find(service, read.name);
	if (known == NULL) {
		known = calloc(1, sizeof(*known));
		if (known == NULL) {
			lifecycle_free(&read);
			return SLUICE_E_NOMEM;
		}
		known->next = service->knowns;
		service->knowns = known;
	}
	lifecycle_free(&known->lifecycle);
	known->lifecycle = read;
	*ret = known;
	return 0;
}
