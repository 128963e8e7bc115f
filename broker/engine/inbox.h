/* SPDX-License-Identifier: Apache-2.0
 * The inbox: what sinks hand in, in two lanes; any thread puts, the engine's thread takes. */
#ifndef SLUICE_ENGINE_INBOX_H
#define SLUICE_ENGINE_INBOX_H

#include <pthread.h>

#include "broker/engine/engine.h"

/*
 * Demand and session changes travel with the control commands, so that they keep their order with them. What waits of one consumer is
 * one note: credit is summed, the last pause counts, an open that is closed again goes without a trace; and so is what waits of one
 * session. So notes are bounded by consumers and attached sessions, however many frames make them and however long a commit takes.
 * Memory for its note is set aside when a consumer opens or a session is attached: nothing later fails for want of it.
 */
enum note_kind { NOTE_CONSUMER, NOTE_SESSION };
struct note {
	struct note *prev, *next;
	struct note *bucket_next;
	enum note_kind kind;
	struct consumer_spec
		spec; /* CONSUMER: open: all; otherwise sink, tag and credit. SESSION: gateway, session, sink, tag */
	/* CONSUMER, in this order */
	bool open, pause, paused, close; /* pause: `paused` is set */
	/* SESSION, in this order */
	bool attach, detach;
	uint32_t idle_ms;
	bool used; /* detach: the connection did more than open the session */
};
enum { NOTE_BUCKETS = 1024 };

struct lane {
	struct submission *head, **tail;
};
struct inbox {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct lane control, data;
	struct note *notes;			 /* utlist, in order of arrival */
	struct note *note_buckets[NOTE_BUCKETS]; /* by consumer, by session: the newest first */
	size_t note_count;
	struct note *spares; /* by bucket_next; with those that wait never fewer than reserved */
	size_t spare_count, reserved;
	_Atomic uint64_t bytes; /* of all submissions not yet answered */
	uint64_t bytes_max;
	bool nudged; /* something else than what it holds is to be looked at */
	bool stop;
};

int inbox_init(struct inbox *inbox, uint64_t bytes_max) SLUICE_MUST_USE;
void inbox_fini(struct inbox *inbox); /* gives back what is left */
int inbox_put(struct inbox *inbox,
	      struct submission *submission) SLUICE_MUST_USE; /* BUSY beyond bytes_max; wakes nobody */
void inbox_wake(struct inbox *inbox);
/* The next inbox_wait() does not wait, nor does the one under way. */
void inbox_nudge(struct inbox *inbox);
/* One change of a consumer or session, copied and merged into what waits already. NOMEM: of an open or attach only. *ret_gone, when not
 * NULL: the sink and tag of an attach that waited and that this one takes the place of; its sink is NULL otherwise. */
int inbox_note(struct inbox *inbox, const struct note *note, struct consumer_spec *ret_gone) SLUICE_MUST_USE;
/* Gives back notes that inbox_take gave; `closed` of them ended a consumer or a session's attachment. */
void inbox_notes_done(struct inbox *inbox, struct note *notes, size_t closed);
size_t inbox_notes_waiting(struct inbox *inbox); /* any thread */
/* Moves everything that waits behind *io_control, *io_data and *io_notes. */
struct taken {
	struct lane control, data;
	struct note *notes;
};
void taken_init(struct taken *taken);
void inbox_take(struct inbox *inbox, struct taken *io_taken);
void inbox_answered(struct inbox *inbox, uint64_t bytes);
/* Waits until something is there, stop, or wait_ms have passed (UINT64_MAX: without end). */
void inbox_wait(struct inbox *inbox, uint64_t wait_ms);
void inbox_stop(struct inbox *inbox);

void lane_init(struct lane *lane);
void lane_push(struct lane *lane, struct submission *submission);
void lane_push_first(struct lane *lane, struct submission *submission);
struct submission *lane_pop(struct lane *lane); /* NULL when empty */

#endif
