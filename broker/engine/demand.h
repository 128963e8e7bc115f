/* SPDX-License-Identifier: Apache-2.0
 * Consumers with their credit, and the queues that have something to claim. For demand.c,
 * heartbeat.h (a session's key), batch.c, lag.c and struct engine. */
#ifndef SLUICE_ENGINE_DEMAND_H
#define SLUICE_ENGINE_DEMAND_H

#include "broker/engine/engine.h"
#include "broker/util/hash.h"

struct consumer_key {
	struct engine_sink *sink;
	uint64_t tag;
};
enum consumer_place {
	CONSUMER_IDLE,	   /* no claims: no credit, or paused */
	CONSUMER_WILLING,  /* in its queue's list `willing`, and in its class's */
	CONSUMER_RESUMING, /* in its queue's list `resuming` */
	/* would be willing or resuming, but its sink lags: in the sink's list `held` */
	CONSUMER_HELD,
};
enum { SINKS_MAX = 64 };
struct demand_sink {
	const struct engine_sink *sink;
	bool lags;	       /* nothing is claimed for its consumers */
	struct consumer *held; /* utlist */
};
struct consumer {
	struct consumer_key key;
	struct consumer_spec spec;
	bool resume;	       /* the session's held entries are redelivered first, in steps: */
	uint64_t resume_after; /* as in cmd_claim */
	uint64_t resume_until;
	/* its connection accepts no more deliveries now; the credit stays */
	bool paused;
	uint8_t place; /* enum consumer_place */
	/* ascending in every list: the lowest is served first */
	uint64_t turn;
	struct consumer *prev, *next; /* in `willing` or `resuming` of its queue, or `held` */
	struct consumer *class_prev, *class_next; /* in `willing` of its class */
	struct demand_sink *from;
	struct demand_queue *queue;
	struct demand_class *class; /* NULL: it does not accept orphans */
	struct demand_session *session;
	struct consumer *session_prev, *session_next; /* of its session */
	UT_hash_handle hh;
};
struct queue_key {
	uint64_t gateway; /* 64 bits, so that the key has no padding */
	uint64_t queue;
};
/* Consumers of a queue that accept the same orphans: those of one source (0: of none). */
struct demand_class {
	struct demand_class *prev, *next; /* of its queue */
	uint64_t source;
	/* false: the last CLAIM of the class took all orphans, and none was added since */
	bool orphans;
	struct consumer *willing; /* utlist, by turn */
	size_t consumers;
};
struct demand_queue {
	struct queue_key key;
	/* false: the last CLAIM took all entries, and none was added since */
	bool entries;
	bool listed;			     /* in to_serve */
	struct consumer *willing, *resuming; /* utlist, by turn */
	struct demand_class *classes;	     /* utlist */
	size_t consumers;
	struct demand_queue *serve_prev, *serve_next;
	UT_hash_handle hh;
};
struct session_key {
	uint64_t gateway; /* 64 bits, so that the key has no padding */
	uint64_t session;
};
/* A session that has consumers: they are removed together when it moves to another connection. */
struct demand_session {
	struct session_key key;
	struct consumer *consumers; /* utlist */
	UT_hash_handle hh;
};
struct demand {
	struct consumer *consumers;
	struct demand_session *sessions;
	struct demand_queue *queues;
	struct demand_queue *to_serve;
	struct demand_sink sinks[SINKS_MAX]; /* sinks that lagged or had a consumer */
	size_t sink_count;
	uint64_t turns; /* last turn that was assigned */
	size_t count;
};
/* State of a consumer and its queue before a CLAIM, restored if the batch is undone. */
struct claim_note {
	struct consumer_key key;
	uint32_t credit;
	bool resume;
	uint64_t resume_after, resume_until;
	uint64_t turn;
	bool entries, orphans;
};
void demand_init(struct demand *demand);
void demand_fini(struct demand *demand);
int demand_open(struct demand *demand, const struct consumer_spec *spec) SLUICE_MUST_USE;
void demand_credit(struct demand *demand, struct engine_sink *sink, uint64_t tag, uint32_t more);
void demand_pause(struct demand *demand, struct engine_sink *sink, uint64_t tag, bool paused);
void demand_close(struct demand *demand, struct engine_sink *sink, uint64_t tag);
/* The session moved to another connection: stops claims for the consumers of the previous one.
 * Their deliveries could reach no client, and the session would hold entries unknown to it. */
void demand_session_moved(struct demand *demand, uint32_t gateway, uint64_t session);
/* Something can be claimed: an entry, by every consumer, or an orphaned job, by consumers that
 * accept orphans of this source (0: of any). */
void demand_queue_ready(struct demand *demand, uint32_t gateway, uint64_t queue, bool orphan,
			uint64_t source);
void demand_queue_deleted(struct demand *demand, uint32_t gateway, uint64_t queue);
/* Sets whether claims for a sink's consumers are suspended. Not while claims may be undone. */
void demand_sink_lags(struct demand *demand, const struct engine_sink *sink, bool lags);
/* The next consumer to make a CLAIM for, with the command filled in; NULL: none. */
struct consumer *demand_next(struct demand *demand, struct command *ret_command,
			     struct cmd_claim *ret_claim);
/* Reports what that CLAIM granted: fewer than requested means that nothing is left for this
 * consumer. */
void demand_claimed(struct demand *demand, struct consumer *consumer, const struct cmd_claim *claim,
		    const struct outcome *outcome);
/* The batch was aborted. A note is taken before each claim; the notes are undone in reverse order,
 * which restores the state before, except that what became ready meanwhile stays ready. */
void demand_note(const struct consumer *consumer, struct claim_note *ret);
void demand_undo(struct demand *demand, const struct claim_note *note);

#endif
