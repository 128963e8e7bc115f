/* SPDX-License-Identifier: Apache-2.0
 *
 * Events that core publishes. Their offsets are assigned at once, their envelopes wait until the
 * command ends, so that a command with many of them (a transaction, a tick, a claim) stores one
 * segment per log. Not longer: the contents of a segment must not depend on the distribution of
 * commands over batches.
 */
#include "broker/core/base/state.h"
#include "broker/core/stream/stream.h"
#include "protocol/envelope.h"

static int pending_store(struct apply *a, struct pending_log *pending)
{
	uint32_t work = RETENTION_WORK_PER_APPEND;
	struct segment_info info;
	struct log_cell cell;
	int rc = log_cell_get(a->txn, a->gateway, pending->stream, &cell);

	if (rc != 0)
		return rc;
	info.segment = (struct segment){.base = pending->base,
					.last = pending->base + pending->count - 1,
					.count = pending->count,
					.time_ms = a->wall_ms,
					.time_max_ms = a->wall_ms,
					.codec = BATCH_RAW,
					.raw_bytes = (uint32_t)pending->bytes,
					.payload = {pending->envelopes.data, pending->bytes}};
	pending->count = 0;
	rc = segment_append(a, pending->stream, &cell, &info);
	if (rc == 0)
		rc = retention_run(a, pending->stream, &cell, &work);
	return rc != 0 ? rc : log_cell_put(a, pending->stream, &cell);
}

int pending_flush(struct apply *a)
{
	int rc = 0;

	for (size_t i = 0; i < PENDING_LOGS_MAX && rc == 0; i++) {
		if (a->core->pending[i].count > 0)
			rc = pending_store(a, &a->core->pending[i]);
	}
	return rc;
}

int pending_flush_log(struct apply *a, uint64_t stream)
{
	for (size_t i = 0; i < PENDING_LOGS_MAX; i++) {
		struct pending_log *pending = &a->core->pending[i];

		if (pending->count > 0 && pending->stream == stream &&
		    pending->gateway == a->gateway)
			return pending_store(a, pending);
	}
	return 0;
}

void pending_drop(struct core *core)
{
	for (size_t i = 0; i < PENDING_LOGS_MAX; i++)
		core->pending[i].count = 0;
}

/* The place of a log, or a free one. */
static int pending_place(struct apply *a, uint64_t stream, struct pending_log **ret)
{
	struct pending_log *free_place = NULL;
	int rc;

	for (size_t i = 0; i < PENDING_LOGS_MAX; i++) {
		struct pending_log *pending = &a->core->pending[i];

		if (pending->count > 0 && pending->stream == stream &&
		    pending->gateway == a->gateway) {
			*ret = pending;
			return 0;
		}
		if (pending->count == 0 && free_place == NULL)
			free_place = pending;
	}
	if (free_place == NULL) {
		rc = pending_flush(a);
		if (rc != 0)
			return rc;
		free_place = &a->core->pending[0];
	}
	*ret = free_place;
	return 0;
}

int pending_add(struct apply *a, uint64_t stream, const struct envelope *envelope)
{
	struct pending_log *pending;
	struct log_cell cell;
	int rc = pending_place(a, stream, &pending);

	if (rc == 0 && pending->count > 0 &&
	    (pending->count == PENDING_EVENTS_MAX || pending->bytes >= PENDING_BYTES_MAX))
		rc = pending_store(a, pending);
	if (rc == 0)
		rc = log_cell_get(a->txn, a->gateway, stream, &cell);
	if (rc != 0)
		return rc;
	if (pending->count == 0) {
		pending->gateway = a->gateway;
		pending->stream = stream;
		pending->base = cell.next;
		pending->bytes = 0;
	}
	rc = scratch_reserve(&pending->envelopes, pending->bytes + envelope_size_max(envelope));
	if (rc != 0)
		return rc;
	pending->bytes += envelope_encode(pending->envelopes.data + pending->bytes, envelope);
	pending->count++;
	cell.next++;
	rc = log_cell_put(a, stream, &cell);
	return rc != 0 ? rc : stream_grown(a, stream);
}
