/* SPDX-License-Identifier: Apache-2.0
 * Events that core publishes itself. */
#ifndef SLUICE_CORE_PUBLISH_INTERNAL_H
#define SLUICE_CORE_PUBLISH_INTERNAL_H

#include "broker/core/base/apply.h"

/* One event of core (job events): subject, key and JSON body; routed by the default router; never
 * refused. */
int publish_internal(struct apply *a, struct sluice_slice subject, struct sluice_slice key,
		     struct sluice_slice body) SLUICE_MUST_USE;

#endif
