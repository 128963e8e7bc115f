/* SPDX-License-Identifier: Apache-2.0
 *
 * The lifecycles of the jobs in hand: the queue's, and those that single jobs were submitted with.
 * Each is read when it is first needed, and again after a report was put into quarantine.
 */
#ifndef SLUICE_LOCAL_KNOWN_H
#define SLUICE_LOCAL_KNOWN_H

#include "state.h"
#include "lifecycle.h"

/* The job's own lifecycle, or the queue's. */
const struct lifecycle *job_lifecycle(const struct job *job);
/* Stores the answer to `show` of a lifecycle and maps its states; *ret is owned by the service.
 * INVAL: why says what was expected. A setting that does not fit a lifecycle other than the queue's
 * is ignored. */
int known_take(struct service *service, const sluice_reply *reply, bool is_queues,
	       struct known_lifecycle **ret, char *why, size_t why_bytes);
/* One that was read before; NULL: none of the name. */
struct known_lifecycle *known_find(const struct service *service, const char *name);
void known_free_all(struct service *service);

#endif
