/* SPDX-License-Identifier: Apache-2.0
 * Publishing, splitting a batch that is too large for now: a queue that has room for part of it can
 * accept one half. */
#include <string.h>
#include <utlist.h>

#include "client/base/memory.h"
#include "client/publish/batch.h"

/* Moves the ends of all but the first `count` messages of the batch to the rest. */
static void ends_split(struct batch *batch, uint32_t count, struct batch *rest)
{
	uint32_t kept = 0, left = count;

	batch->unreported = rest->unreported = 0;
	for (uint32_t i = 0; i < batch->end_count; i++) {
		struct message_end own = batch->ends[i], other = own;

		own.count = own.count < left ? own.count : left;
		other.count -= own.count;
		left -= own.count;
		if (own.count > 0) {
			batch->ends[kept++] = own;
			batch->unreported += own.reported ? 0 : own.count;
		}
		if (other.count > 0) {
			rest->ends[rest->end_count++] = other;
			rest->unreported += other.reported ? 0 : other.count;
		}
	}
	batch->end_count = kept;
}

bool publish_batch_split(sluice_client *client, struct batch *batch)
{
	struct publisher *publisher = client->publisher;
	struct sluice_slice events = {batch->events.bytes + batch->events.start,
				      buffer_len(&batch->events)};
	uint32_t count = batch->count / 2;
	struct batch *rest;
	size_t len;
	uint8_t *at;

	if (count == 0 || batch->ends[0].whole)
		return false;
	rest = publish_batch_take(publisher);
	if (rest == NULL)
		return false;
	len = publish_events_len(&events, count);
	at = buffer_room(&rest->events, events.len);
	if (rest->ends_capacity < batch->end_count) {
		struct message_end *ends = mem_resize(rest->ends, batch->end_count * sizeof(*ends));

		rest->ends = ends != NULL ? ends : rest->ends;
		rest->ends_capacity = ends != NULL ? batch->end_count : rest->ends_capacity;
	}
	if (at == NULL || rest->ends_capacity < batch->end_count ||
	    !text_set(&rest->target, batch->target) || !text_set(&rest->subject, batch->subject)) {
		publish_batch_free(client, rest);
		return false;
	}
	memcpy(at, events.data, events.len);
	rest->events.end += events.len;
	batch->events.end = batch->events.start + len;
	ends_split(batch, count, rest);
	rest->target_kind = batch->target_kind;
	rest->flags = batch->flags;
	rest->durability = batch->durability;
	rest->deadline_ms = batch->deadline_ms;
	rest->time_ms = batch->time_ms;
	rest->count = batch->count - count;
	rest->first_seq = batch->first_seq + count;
	rest->bytes = events.len;
	rest->closed = true;
	rest->was_sent = batch->was_sent;
	rest->refused = batch->refused;
	rest->refused_last = batch->refused_last;
	memcpy(rest->refused_text, batch->refused_text, sizeof(rest->refused_text));
	batch->count = count;
	batch->bytes -= rest->bytes;
	DL_APPEND_ELEM(publisher->batches, batch, rest);
	return true;
}
