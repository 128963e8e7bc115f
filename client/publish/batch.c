/* SPDX-License-Identifier: Apache-2.0
 * Batches: their memory, which is kept for later ones within a bound, and their parts. */
#include <string.h>

#include "client/base/memory.h"
#include "client/publish/batch.h"
#include "protocol/envelope.h"

enum { SPARES_MAX = 64, SPARE_BYTES_MAX = 4 << 20 };

bool text_set(char **io, const char *text)
{
	if (text == NULL) {
		mem_free(*io);
		*io = NULL;
		return true;
	}
	if (*io != NULL && strcmp(*io, text) == 0)
		return true;
	mem_free(*io);
	*io = mem_text(text, strlen(text));
	return *io != NULL;
}

size_t publish_events_len(struct sluice_slice *io_rest, uint32_t count)
{
	size_t before = io_rest->len;
	struct envelope envelope;
	const char *why;

	while (count-- > 0 && envelope_next(io_rest, &envelope, &why) == 0)
		;
	return before - io_rest->len;
}

struct batch *publish_batch_take(struct publisher *publisher)
{
	struct batch *batch = publisher->spares;

	if (batch == NULL)
		return mem_alloc(sizeof(*batch));
	publisher->spares = batch->next;
	publisher->spare_count--;
	publisher->spare_bytes -= batch->events.capacity;
	batch->next = NULL;
	return batch;
}

static void batch_destroy(struct batch *batch)
{
	buffer_free(&batch->events);
	mem_free(batch->target);
	mem_free(batch->subject);
	mem_free(batch->ends);
	mem_free(batch);
}

/* Keeps its memory for the next one, within a bound. */
static void batch_spare(struct publisher *publisher, struct batch *batch)
{
	struct batch kept = {.target = batch->target,
			     .subject = batch->subject,
			     .events = batch->events,
			     .ends = batch->ends,
			     .ends_capacity = batch->ends_capacity};

	if (publisher->spare_count == SPARES_MAX ||
	    publisher->spare_bytes + kept.events.capacity > SPARE_BYTES_MAX) {
		batch_destroy(batch);
		return;
	}
	kept.events.start = kept.events.end = 0;
	kept.next = publisher->spares;
	*batch = kept;
	publisher->spares = batch;
	publisher->spare_count++;
	publisher->spare_bytes += kept.events.capacity;
}

void publish_batch_free(sluice_client *client, struct batch *batch)
{
	struct publisher *publisher = client->publisher;

	publisher->buffered -= batch->bytes;
	publisher->stats.buffered_bytes = publisher->buffered;
	batch_spare(publisher, batch);
	/* Wakes threads that wait for room in the buffer, or for a flush. */
	(void)pthread_cond_broadcast(&client->changed);
}

void publish_spares_free(struct publisher *publisher)
{
	while (publisher->spares != NULL) {
		struct batch *batch = publisher->spares;

		publisher->spares = batch->next;
		batch_destroy(batch);
	}
}
