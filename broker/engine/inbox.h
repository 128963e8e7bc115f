/* SPDX-License-Identifier: Apache-2.0
 * The inbox: what sinks hand in, in two lanes; any thread puts, the engine's thread takes. */
#ifndef SLUICE_ENGINE_INBOX_H
#define SLUICE_ENGINE_INBOX_H

#include <pthread.h>

#include "broker/engine/engine.h"

/* Demand and session changes travel with the control commands, so that they keep their order with them. */
enum note_kind {
	NOTE_CONSUMER_OPEN,
	NOTE_CONSUMER_CREDIT,
	NOTE_CONSUMER_PAUSE,
	NOTE_CONSUMER_CLOSE,
	NOTE_SESSION_ATTACH,
	NOTE_SESSION_DETACH
};
struct note {
	struct note *next;
	enum note_kind kind;
	struct consumer_spec spec; /* CREDIT: sink, tag, credit; SESSION_*: gateway, session, sink, tag */
	uint32_t idle_ms;
};

struct lane {
	struct submission *head, **tail;
};
struct inbox {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct lane control, data;
	struct note *notes, **notes_tail;
	_Atomic uint64_t bytes; /* of all submissions not yet answered */
	uint64_t bytes_max;
	bool stop;
};

int inbox_init(struct inbox *inbox, uint64_t bytes_max) SLUICE_MUST_USE;
void inbox_fini(struct inbox *inbox); /* gives back what is left */
int inbox_put(struct inbox *inbox,
	      struct submission *submission) SLUICE_MUST_USE; /* BUSY beyond bytes_max; wakes nobody */
void inbox_wake(struct inbox *inbox);
int inbox_note(struct inbox *inbox, const struct note *note) SLUICE_MUST_USE; /* copies it */
/* Moves everything that waits behind *io_control, *io_data and *io_notes. */
struct taken {
	struct lane control, data;
	struct note *notes, **notes_tail;
};
void taken_init(struct taken *taken);
void inbox_take(struct inbox *inbox, struct taken *io_taken);
void inbox_answered(struct inbox *inbox, uint64_t bytes);
/* Waits until something is there, stop, or wait_ms have passed (UINT64_MAX: without end). */
void inbox_wait(struct inbox *inbox, uint64_t wait_ms);
void inbox_stop(struct inbox *inbox);

void lane_push(struct lane *lane, struct submission *submission);
struct submission *lane_pop(struct lane *lane); /* NULL when empty */

#endif
