/* SPDX-License-Identifier: Apache-2.0
 * Routers and their edges: functions for streams and queues. */
#ifndef SLUICE_CORE_ROUTER_ROUTER_H
#define SLUICE_CORE_ROUTER_ROUTER_H

#include "broker/core/base/reply.h"

enum { ROUTER_DEFAULT = 1 };

/* Both for a new stream or queue in the default router: check before the first write, then add the
 * edges. */
int router_subjects_check(struct apply *a, char *const *patterns, size_t count,
			  struct outcome *out) SLUICE_MUST_USE;
int router_subjects_bind(struct apply *a, char *const *patterns, size_t count, uint32_t target_kind,
			 uint64_t target) SLUICE_MUST_USE;
/* For if_not_exists: refuses CONFLICT unless each pattern is bound to the target in the default
 * router. The target may have other edges: binds are separate calls. */
int router_subjects_bound(struct apply *a, char *const *patterns, size_t count,
			  uint32_t target_kind, uint64_t target, const char *name,
			  struct outcome *out) SLUICE_MUST_USE;
/* Removes every edge to a stream or queue that is deleted. */
int router_drop_target(struct apply *a, uint32_t target_kind, uint64_t target) SLUICE_MUST_USE;

/* The default router of a new gateway: number ROUTER_DEFAULT, kind subject. */
int router_install_default(struct apply *a) SLUICE_MUST_USE;

int router_query(struct query *q, const Sluice__Request *request); /* router_show, router_list */

#endif
