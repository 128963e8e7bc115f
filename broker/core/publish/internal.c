/* SPDX-License-Identifier: Apache-2.0
 * Events that core publishes: routed by the default router; streams store them at the end of the
 * command (stream/pending.c). */
#include "broker/core/base/state.h"
#include "broker/core/publish/internal.h"
#include "broker/core/queue/queue.h"
#include "broker/core/router/image.h"
#include "broker/core/stream/stream.h"
#include "protocol/envelope.h"

int publish_internal(struct apply *a, struct sluice_slice subject, struct sluice_slice key,
		     struct sluice_slice body)
{
	struct envelope envelope = {.body = body, .key = key, .subject = subject};
	const struct route_target *targets;
	size_t count;
	int rc = router_route(a, 0, subject, &targets, &count);

	for (size_t i = 0; rc == 0 && i < count; i++) {
		struct scratch *scratch = &a->core->envelope;
		struct queue_put_spec spec = {.time_ms = a->wall_ms};
		uint64_t seq;

		if (targets[i].kind == SLUICE__TARGET_KIND__TARGET_STREAM) {
			rc = pending_add(a, targets[i].id, &envelope);
			continue;
		}
		rc = scratch_reserve(scratch, envelope_size_max(&envelope));
		if (rc != 0)
			break;
		spec.envelope = (struct sluice_slice){scratch->data,
						      envelope_encode(scratch->data, &envelope)};
		rc = queue_put(a, targets[i].id, &spec, &seq);
	}
	return rc;
}
