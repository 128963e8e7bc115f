/* SPDX-License-Identifier: Apache-2.0
 * Batches of messages on their way to the broker. */
#ifndef SLUICE_CLIENT_PUBLISH_BATCH_H
#define SLUICE_CLIENT_PUBLISH_BATCH_H

#include "client/base/memory.h"
#include "client/publish/publish.h"

/* Of messages that follow each other and are answered alike: each by itself, or as one. */
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
	uint32_t count, unreported; /* messages; of them, without their answer */
	uint32_t end_count, ends_capacity;
	struct message_end *ends;
	uint64_t deadline_ms; /* no end that is not told has an earlier one */
	uint64_t first_seq;
	uint64_t time_ms;
	uint32_t corr; /* of the frame, while it is in flight */
	bool closed;   /* takes no more messages */
	bool in_flight, was_sent;
	/* Sent on a connection that broke before the answer: it may have been applied. */
	bool maybe;
	uint64_t retry_ms; /* refused for now: not before this */
	int refused;	   /* and certainly not applied */
	int refused_last;  /* the last refusal of it, also when it was sent again since */
	char refused_text[256];
	size_t bytes; /* on account of the buffer */
};

/* Empty, maybe with a former one's memory; NULL: none. */
struct batch *publish_batch_take(struct publisher *publisher);
void publish_batch_free(sluice_client *client, struct batch *batch); /* of no list any more */
/* The memory of former batches. */
void publish_spares_free(struct publisher *publisher);
/* A copy, or what it is already; NULL stays NULL; false: no memory. */
bool text_set(char **io, const char *text);
/* How many bytes the next events of a batch have; *io_rest begins behind them. */
size_t publish_events_len(struct sluice_slice *io_rest, uint32_t count);

/* split.c. Halves a batch that was refused and so not applied. The numbers stay: the second half
 * is a batch behind it. False: it is one message, or is to be answered as one, or there is no
 * memory. */
bool publish_batch_split(sluice_client *client, struct batch *batch);

#endif
