/* SPDX-License-Identifier: Apache-2.0
 * The inbox: submissions of the sinks in two lanes, and notes. Any thread puts, the engine's thread
 * takes. */
#ifndef SLUICE_ENGINE_INBOX_H
#define SLUICE_ENGINE_INBOX_H

#include <assert.h>
#include <pthread.h>

#include "broker/engine/engine.h"

/* Changes of demand and of sessions travel with the control commands, so that they keep their order
 * with them. Pending changes of one consumer are merged into one note: credit is summed, the last
 * pause counts, an open that is closed again leaves nothing. So do those of one connection and
 * session; one that attached and detached is followed by the next in the same note, unless another
 * connection took the session in between. So the number of notes is bounded by consumers, attached
 * sessions, and SESSION_MOVES_MAX of closed connections, for any number of frames and any
 * commit time. Memory for the note is reserved when a consumer opens or a session is attached: no
 * later change fails with NOMEM. */
enum note_kind { NOTE_CONSUMER, NOTE_SESSION };
struct note {
	struct note *prev, *next;
	struct note *bucket_next;
	enum note_kind kind;
	/* CONSUMER: open: all; otherwise sink, tag and credit. SESSION: gateway, session,
	 * sink, tag */
	struct consumer_spec spec;
	/* CONSUMER, in this order */
	bool open, pause, paused, close; /* pause: `paused` is set */
	/* SESSION, in this order */
	bool attach, detach;
	bool moved; /* between the two, another connection took the session */
	uint32_t idle_ms;
	bool used; /* detach: the connection did more than open the session */
};
/* A queue with 100,000 consumers may be deleted: six to a bucket. */
enum { NOTE_BUCKETS = 16384 };
struct note_bucket {
	struct note *first; /* the newest */
	uint64_t take;	    /* of another take: the bucket is empty */
};

/* What is counted for a pending note, and for a submission besides the bytes of its command: this
 * struct, the submitter's own, and the allocator's part. */
enum { NOTE_BYTES = 128, SUBMISSION_BYTES = 256 };
static_assert(sizeof(struct note) <= NOTE_BYTES, "a note is counted as it is");

/* Signs of life of sessions without a connection. */
struct touch {
	uint64_t session, at_ms; /* at_ms: of engine.live_ms */
	uint32_t gateway;
};
struct touches {
	struct touch *list;
	size_t count, capacity;
};

struct lane {
	struct submission *head, **tail;
	uint64_t bytes; /* of its submissions */
};
struct inbox {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct lane control, data;
	struct note *notes;			       /* utlist, in order of arrival */
	struct note_bucket note_buckets[NOTE_BUCKETS]; /* by consumer and by session */
	uint64_t take;				       /* number of the next inbox_take */
	size_t note_count, gone;		       /* gone: that have `moved` */
	struct touches touches;
	struct note *spares; /* by bucket_next; together with pending notes at least `reserved` */
	size_t spare_count, reserved;
	/* of all submissions that are not answered yet, and of the notes that are not done */
	_Atomic uint64_t bytes;
	uint64_t bytes_max;
	bool nudged; /* the engine has to run a round although nothing was put */
	bool stop;
};

int inbox_init(struct inbox *inbox, uint64_t bytes_max) SLUICE_MUST_USE;
void inbox_fini(struct inbox *inbox); /* gives back all submissions */
int inbox_put(struct inbox *inbox,
	      /* BUSY above bytes_max; wakes nobody */
	      struct submission *submission) SLUICE_MUST_USE;
void inbox_wake(struct inbox *inbox);
/* The current or next inbox_wait() returns at once. */
void inbox_nudge(struct inbox *inbox);
/* Adds one change of a consumer or session: copied, or merged into its pending note. NOMEM: of an
 * open or attach only. BUSY: of an attach at SESSION_MOVES_MAX, if another connection's note of the
 * session is pending; above twice bytes_max of an open, an attach, or credit that is not merged.
 * What ends or pauses something is never refused. */
int inbox_note(struct inbox *inbox, const struct note *note) SLUICE_MUST_USE;
/* The same for the close of a consumer. *ret_unseen: its open was pending, and both are gone. */
int inbox_consumer_close(struct inbox *inbox, const struct note *note,
			 bool *ret_unseen) SLUICE_MUST_USE;
/* Adds these signs of life, all of the same moment; all or none. Does not wake the engine,
 * which takes them before it ends a session. BUSY: too many wait; NOMEM. */
int inbox_touch(struct inbox *inbox, const struct session_number *sessions, size_t count,
		uint64_t at_ms) SLUICE_MUST_USE;
/* Gives back notes from inbox_take; `closed` of them closed a consumer or detached a session. */
void inbox_notes_done(struct inbox *inbox, struct note *notes, size_t closed);
size_t inbox_notes_waiting(struct inbox *inbox); /* any thread */
/* Moves all that is pending to the ends of the lanes and of the notes. touches: those before were
 * handled. */
struct taken {
	struct lane control, data;
	struct note *notes;
	struct touches touches;
};
void taken_init(struct taken *taken);
void taken_fini(struct taken *taken); /* the lanes and the notes are empty */
void inbox_take(struct inbox *inbox, struct taken *io_taken);
/* How much control may enter a batch of bytes_max: half of it, and the room that data leaves. */
uint64_t taken_control_max(const struct taken *taken, uint64_t bytes_max);
void inbox_answered(struct inbox *inbox, uint64_t bytes); /* a submission of so many */
/* Waits until something is pending, the inbox is stopped, or wait_ms have passed (UINT64_MAX:
 * without end). */
void inbox_wait(struct inbox *inbox, uint64_t wait_ms);
void inbox_stop(struct inbox *inbox);

void lane_init(struct lane *lane);
void lane_push(struct lane *lane, struct submission *submission);
void lane_push_first(struct lane *lane, struct submission *submission);
struct submission *lane_pop(struct lane *lane); /* NULL when empty */

#endif
