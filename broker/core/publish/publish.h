/* SPDX-License-Identifier: Apache-2.0
 * Functions of publish.c for the other files of core. */
#ifndef SLUICE_CORE_PUBLISH_H
#define SLUICE_CORE_PUBLISH_H

#include "broker/core/base/state.h"
#include "protocol/envelope.h"

/* Publishes a batch without deduplication. Refused or done as a whole. delay_ms: of queue items. */
int publish_batch(struct apply *a, const struct frame_publish *m, uint32_t delay_ms,
		  struct outcome *out) SLUICE_MUST_USE;

#endif
