/* SPDX-License-Identifier: Apache-2.0
 *
 * A release: the effects of one batch and the senders of its commands, shared by all sinks and
 * freed with the last reference.
 */
#include "broker/engine/release.h"

#include <stdlib.h>

#include "broker/util/invariant.h"

void release_unref(struct release_impl *release)
{
	int refs;

	if (release == NULL)
		return;
	refs = atomic_fetch_sub(&release->refs, 1);
	invariant(refs > 0, "release %llu is given back with %d references",
		  ULL(release->public.number), refs);
	if (refs > 1)
		return;
	effects_destroy(release->public.effects);
	free(release->origins);
	free(release);
}

int release_new(struct release_impl **ret)
{
	struct release_impl *release = calloc(1, sizeof(*release));
	int rc;

	if (release == NULL)
		return SLUICE_E_NOMEM;
	rc = effects_create(&release->public.effects);
	if (rc != 0) {
		free(release);
		return rc;
	}
	atomic_init(&release->refs, 1);
	*ret = release;
	return 0;
}

void release_consumer_closed(struct engine_sink *sink, uint64_t tag)
{
	if (sink->consumer_closed != NULL)
		sink->consumer_closed(sink, tag);
}
