/* SPDX-License-Identifier: Apache-2.0
 *
 * The lifecycles of the held jobs: the queue's, and those that single jobs were submitted with.
 * Each is read when it is first needed, and again after a report was put into quarantine.
 */
#ifndef SLUICE_LOCAL_LIFECYCLE_CACHE_H
#define SLUICE_LOCAL_LIFECYCLE_CACHE_H

#include "state.h"
#include "lifecycle.h"

/* The job's own lifecycle, or the queue's. */
const struct lifecycle *job_lifecycle(const struct job *job);
/* Stores the answer to `show` of a lifecycle and maps its states; *ret is owned by the service.
 * INVAL: why says what was expected. A setting that does not fit a lifecycle other than the queue's
 * is ignored. */
int lifecycle_cache_put(struct service *service, const sluice_reply *reply, bool is_queues,
			struct cached_lifecycle **ret, char *why, size_t why_bytes);
/* One that was read before; NULL: none of the name. */
struct cached_lifecycle *lifecycle_cache_find(const struct service *service, const char *name);
void lifecycle_cache_free(struct service *service);

#endif
