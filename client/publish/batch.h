/* SPDX-License-Identifier: Apache-2.0
 * Batches of messages on their way to the broker. */
#ifndef SLUICE_CLIENT_PUBLISH_BATCH_H
#define SLUICE_CLIENT_PUBLISH_BATCH_H

#include "client/base/memory.h"
#include "client/publish/publish.h"

/* Consecutive messages with a common answer: one for each, or one for all. */
struct message_end {
	sluice_done_fn *done; /* NULL: counted only */
	void *user;
	struct call *waiter; /* a blocking publish */
	uint64_t deadline_ms;
	uint32_t count;
	bool whole; /* one answer for all of them */
	bool reported;
};
struct batch {
	struct batch *prev, *next;
	uint8_t target_kind, flags, durability;
	char *target, *subject; /* subject NULL: each event has its own */
	struct buffer events;
	uint32_t count, unreported; /* messages; those whose answer was not reported */
	uint32_t end_count, ends_capacity;
	struct message_end *ends;
	uint64_t deadline_ms; /* a lower bound of the deadlines of unreported ends */
	uint64_t first_seq;
	uint64_t time_ms;
	uint32_t corr; /* of the frame, while it is in flight */
	bool closed;   /* accepts no more messages */
	bool in_flight, was_sent;
	/* Sent on a connection that broke before the answer: it may have been applied. */
	bool maybe;
	uint64_t retry_ms; /* temporarily refused: not to be sent before this time */
	int refused;	   /* and certainly not applied */
	int refused_last;  /* its last refusal, also if it was sent again since */
	char refused_text[256];
	size_t bytes; /* counted in the buffer */
};

/* An empty batch, possibly with the memory of an earlier one; NULL: no memory. */
struct batch *publish_batch_take(struct publisher *publisher);
void publish_batch_free(sluice_client *client, struct batch *batch); /* must not be in a list */
/* Frees the memory of earlier batches. */
void publish_spares_free(struct publisher *publisher);
/* Copies text unless *io equals it already; NULL stays NULL. False: no memory. */
bool text_set(char **io, const char *text);
/* Size of the next events of a batch; *io_rest is advanced past them. */
size_t publish_events_len(struct sluice_slice *io_rest, uint32_t count);

/* split.c: halves a batch that was refused and so not applied. The sequence numbers stay: the
 * second half becomes a batch after it. False: it is one message, needs one answer, or there is no
 * memory. */
bool publish_batch_split(sluice_client *client, struct batch *batch);

#endif
