/* SPDX-License-Identifier: Apache-2.0
 *
 * Effects: the consequences of a batch, as data. The engine releases them after the commit; those
 * of an aborted batch are cleared. They own their bytes (one arena per list): nothing points into
 * the store. Not thread-safe; a list moves between threads as a whole.
 */
#ifndef SLUICE_CORE_EFFECTS_H
#define SLUICE_CORE_EFFECTS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/frame.h"

enum effect_kind {
	FX_REPLY, /* to the sender of the command */
	/* to the sender of the CLAIM, before its REPLY: items under one grant */
	FX_GRANT,
	FX_JOBS, /* to the sender of the CLAIM: jobs (protobuf JobDeliveries in payload) */
	/* to the sender of the CLAIM: all that its session held of queue id was redelivered */
	FX_RESUMED,
	/* to the sender of the CLAIM: item seq of queue id cannot be read and is not delivered;
	 * text names the record */
	FX_ITEM_DAMAGED,
	FX_QUEUE_READY, /* a queue has something to claim: an entry, or (orphan) an orphaned job */
	FX_LOG_GROWN,	/* a stream's log grew */
	FX_LOG_TRIMMED, /* retention or deletion moved its first offset */
	FX_STREAM_DELETED,
	FX_QUEUE_DELETED,
	FX_SESSION_OPENED,
	FX_SESSION_ENDED,
	FX_JOB_CANCEL,	    /* to the session that holds the job */
	FX_LEASE_LOST,	    /* to the session that held the job */
	FX_JOB_TERMINAL,    /* for waiters */
	FX_TOPOLOGY,	    /* routers, edges, streams or queues of the gateway changed */
	FX_SESSION_ALTERED, /* for the engine: its timeout or address is another one */
};

enum outcome_kind {
	OUT_NONE,
	OUT_SESSION,
	OUT_PRODUCER,
	OUT_PUBLISHED,
	OUT_ACKED,
	OUT_SUBMITTED,
	OUT_REPORTED,
	OUT_CANCELLED,
	OUT_RESET,
	OUT_TXN,
	OUT_CLAIMED
};

/* The answer to one command. code 0: done. Otherwise a refusal: text has the reason and what was
 * expected. */
struct outcome {
	int32_t code;
	uint16_t kind;	     /* enum outcome_kind, for code 0 (and OUT_TXN always) */
	bool duplicate;	     /* repeats the first answer */
	uint8_t disposition; /* REPORTED: Sluice__Disposition */
	bool terminal;	     /* CANCELLED, REPORTED: the job's state is */
	/* a finer code beside the code, in the numbers of the protocol whose rules the command
	 * follows; 0: none */
	uint16_t detail;
	uint32_t attempt; /* SUBMITTED, REPORTED, RESET */
	uint32_t count;	  /* PUBLISHED events; ACKED/affected; CLAIMED granted; TXN: failed op
			     (1-based) */
	uint32_t epoch;	  /* PRODUCER */
	uint64_t index;	  /* of the command; for a duplicate, of the first */
	/* SESSION, PRODUCER, SUBMITTED number; CLAIMED by RESUME: continue after this; 0: done */
	uint64_t id;
	uint64_t seq;	 /* PRODUCER last_seq; PUBLISHED first_seq */
	uint64_t offset; /* PUBLISHED: first offset or item; ~0 none. PRODUCER: its secret */
	char state[64];	 /* SUBMITTED, REPORTED, CANCELLED */
	char text[256];
};
/* Each command has one, and some copy it: what does not fit belongs into the reply's payload. */
static_assert(sizeof(struct outcome) == 376, "an outcome stays small");

struct effect {
	enum effect_kind kind;
	uint32_t command; /* position of its command in the batch (REPLY, GRANT, JOBS) */
	uint32_t gateway;
	uint64_t id;	    /* queue, stream, session or job number */
	uint64_t session;   /* JOB_CANCEL, LEASE_LOST: the holder */
	uint64_t token;	    /* GRANT, JOB_CANCEL, LEASE_LOST; ITEM_DAMAGED: of the lease it is held
			       under; 0: none */
	uint64_t offset;    /* LOG_GROWN: next; LOG_TRIMMED: first */
	uint32_t lease_ms;  /* GRANT; SESSION_OPENED, SESSION_ALTERED: timeout */
	uint32_t count;	    /* GRANT, JOBS; SESSION_OPENED: 1 if it has a name */
	uint16_t run_count; /* GRANT */
	uint8_t flags;	    /* SESSION_OPENED, SESSION_ALTERED: enum session_flag */
	bool lapsed;	    /* SESSION_ENDED: it expired, without a connection for too long */
	bool orphan;	    /* QUEUE_READY: only for consumers that accept orphans */
	uint64_t source;    /* QUEUE_READY: only for consumers of this source; 0: any */
	bool again;	    /* GRANT: redelivered to a session that holds it */
	const struct frame_run *runs;
	/* GRANT: as in a DELIVER frame of items; JOBS: JobDeliveries; REPLY: what the answer has
	 * beside its outcome: SESSION_OPEN, its secret; empty for all others */
	struct sluice_slice payload;
	uint64_t seq;		       /* ITEM_DAMAGED */
	struct sluice_slice name;      /* JOB_*: job id; ITEM_DAMAGED: text, with a NUL behind it;
					  SESSION_OPENED, SESSION_ALTERED: address */
	const struct outcome *outcome; /* REPLY */
};

struct effects;

int effects_create(struct effects **ret) SLUICE_MUST_USE;
/* For a new list that will be kept for a while with few effects: begins with little memory. */
void effects_few(struct effects *effects);
void effects_destroy(struct effects *effects); /* accepts NULL */
void effects_clear(struct effects *effects);   /* keeps memory for the next batch */
size_t effects_count(const struct effects *effects);
const struct effect *effects_at(const struct effects *effects, size_t i);

/* For core. Errors: NOMEM. effect_add copies *effect; slices and pointers in it must be arena
 * memory of this list or static. */
int effects_add(struct effects *effects, const struct effect *effect) SLUICE_MUST_USE;
void *effects_alloc(struct effects *effects,
		    size_t bytes); /* from the arena, 8-aligned; NULL: out of memory */
/* Adds an effect of another list, with copies of the memory it points to. */
int effects_copy(struct effects *effects, const struct effect *other) SLUICE_MUST_USE;
size_t effects_bytes(const struct effects *effects); /* size of its memory */
/* Position marks, for refusals inside a transaction: drops all effects added since the mark. */
size_t effects_mark(const struct effects *effects);
void effects_rewind(struct effects *effects, size_t mark);

#endif
