/* SPDX-License-Identifier: Apache-2.0
 *
 * The lifecycles that jobs in hand have: the queue's, and those that single jobs were submitted with. Read when they are
 * needed, and read anew after a report was put into quarantine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "service.h"

struct machine {
	struct machine *next;
	struct lifecycle lifecycle;
};

const struct lifecycle *machine_lifecycle(const struct machine *machine)
{
	return &machine->lifecycle;
}

const struct lifecycle *job_lifecycle(const struct job *job)
{
	return machine_lifecycle(job->machine != NULL ? job->machine : job->service->machine);
}

struct machine *machine_known(const struct service *service, const char *name)
{
	struct machine *machine = service->machines;

	while (machine != NULL && strcmp(machine->lifecycle.name, name) != 0)
		machine = machine->next;
	return machine;
}

void machines_free(struct service *service)
{
	while (service->machines != NULL) {
		struct machine *machine = service->machines;

		service->machines = machine->next;
		lifecycle_free(&machine->lifecycle);
		free(machine);
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

int machine_take(struct service *service, const sluice_reply *reply, bool is_queues, struct machine **ret,
		 char *why, size_t why_bytes)
{
	static const char *const none[ROLES] = {NULL};
	struct machine *machine;
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
	machine = machine_known(service, read.name);
	if (machine == NULL) {
		machine = calloc(1, sizeof(*machine));
		if (machine == NULL) {
			lifecycle_free(&read);
			return SLUICE_E_NOMEM;
		}
		machine->next = service->machines;
		service->machines = machine;
	}
	lifecycle_free(&machine->lifecycle);
	machine->lifecycle = read;
	*ret = machine;
	return 0;
}
