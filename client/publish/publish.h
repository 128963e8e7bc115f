/* SPDX-License-Identifier: Apache-2.0
 * Publishing: messages are gathered into batches (publish.c), which are sent, answered and retried
 * (outbox.c). */
#ifndef SLUICE_CLIENT_PUBLISH_PUBLISH_H
#define SLUICE_CLIENT_PUBLISH_PUBLISH_H

#include "client/base/client.h"

struct publisher {
	uint64_t producer, secret, session; /* session: that opened it */
	uint32_t epoch;
	bool opening, open;
	/* The session that owned the producer ended: it is opened again, by its secret, with its
	 * numbers. */
	bool again;
	uint64_t open_ms; /* no open before this time */
	/* The broker does not know the producer any more (code of the answer): another one is
	 * opened once all batches in flight are answered. */
	int gone;
	int failed; /* fenced: another client publishes under its name */
	uint64_t next_seq, settled_seq;
	struct batch *batches; /* in order of sequence */
	uint32_t in_flight;
	bool mixed;	      /* subjects change often: per-event subjects */
	uint64_t due_ms;      /* no batch is due before this time */
	bool given_up;	      /* a batch has no callback or waiter left */
	struct batch *spares; /* singly linked: memory of earlier batches */
	uint32_t spare_count;
	uint64_t spare_bytes;
	uint64_t buffered;
	sluice_publish_stats stats;
	int flush_code; /* the first failure since the last flush */
	char flush_text[256];
};

void publish_init(sluice_client *client);
void publish_send(sluice_client *client);
/* Sends what the caller published and waits for, at once if possible, or wakes the loop. */
void publish_push(sluice_client *client);
bool publish_on_answer(sluice_client *client, uint32_t corr, struct sluice_slice body);
bool publish_waits(const sluice_client *client); /* whether a sent batch has no answer yet */
/* The broker has not taken the sent batches, and will not: they are as good as unsent. */
void publish_untaken(sluice_client *client);
void publish_broken(sluice_client *client);
void publish_session_lost(sluice_client *client);
void publish_due(sluice_client *client, uint64_t now, uint64_t *io_next);
void publish_end(sluice_client *client, int code);
void publish_free(sluice_client *client);
bool publish_settled(const sluice_client *client);

#endif
