/* SPDX-License-Identifier: Apache-2.0
 * The engine's insides, shared by its files. Everything here belongs to the engine's thread unless it is atomic or the inbox. */
#ifndef SLUICE_ENGINE_INTERNAL_H
#define SLUICE_ENGINE_INTERNAL_H

#include <pthread.h>

#include "broker/util/hash.h"
#include "broker/engine/inbox.h"

/* ---- demand.c: consumers and their credit, queues with something to serve ---- */
struct consumer_key {
	struct engine_sink *sink;
	uint64_t tag;
};
enum consumer_place {
	CONSUMER_IDLE,	   /* nothing is to be claimed for it: no credit, or paused */
	CONSUMER_WILLING,  /* in its queue's list `willing`, and in its class's */
	CONSUMER_RESUMING, /* in its queue's list `resuming` */
	CONSUMER_HELD,	   /* it would be in one of them, but its sink lags: in the sink's list `held` */
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
	bool resume;	       /* what the session holds is to be delivered again first, in steps: */
	uint64_t resume_after; /* as in cmd_claim */
	uint64_t resume_until;
	bool paused;				  /* its connection takes no more now; the credit stays */
	uint8_t place;				  /* enum consumer_place */
	uint64_t turn;				  /* rises along every list: the lowest is served first */
	struct consumer *prev, *next;		  /* in `willing` or `resuming` of its queue, or `held` */
	struct consumer *class_prev, *class_next; /* in `willing` of its class */
	struct demand_sink *from;
	struct demand_queue *queue;
	struct demand_class *class; /* NULL: it takes no orphans */
	struct demand_session *session;
	struct consumer *session_prev, *session_next; /* of its session */
	UT_hash_handle hh;
};
struct queue_key {
	uint64_t gateway; /* wide, so that the key has no padding */
	uint64_t queue;
};
/* Consumers of a queue that may be given the same orphans: those of one source (0: of none). */
struct demand_class {
	struct demand_class *prev, *next; /* of its queue */
	uint64_t source;
	bool orphans; /* false: the last CLAIM of the class took all there were, and none came since */
	struct consumer *willing; /* utlist, by turn */
	size_t consumers;
};
struct demand_queue {
	struct queue_key key;
	bool entries;			     /* false: the last CLAIM took all entries, and none came since */
	bool listed;			     /* in to_serve */
	struct consumer *willing, *resuming; /* utlist, by turn */
	struct demand_class *classes;	     /* utlist */
	size_t consumers;
	struct demand_queue *serve_prev, *serve_next;
	UT_hash_handle hh;
};
struct session_key {
	uint64_t gateway; /* wide, so that the key has no padding */
	uint64_t session;
};
/* A session that has consumers: they go together when it moves to another connection. */
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
	struct demand_sink sinks[SINKS_MAX]; /* those that lagged or had a consumer */
	size_t sink_count;
	uint64_t turns; /* given out */
	size_t count;
};
/* What a consumer and its queue were before a CLAIM, for a batch that is undone. */
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
/* The session has another connection now: nothing is claimed for the consumers of the one before, which would be delivered into the void and
 * held by the session that does not know of it. */
void demand_session_moved(struct demand *demand, uint32_t gateway, uint64_t session);
/* Something can be claimed: an entry, by every consumer, or an orphaned job, by those that take orphans
 * of this source (0: of any). */
void demand_queue_ready(struct demand *demand, uint32_t gateway, uint64_t queue, bool orphan,
			uint64_t source);
void demand_queue_deleted(struct demand *demand, uint32_t gateway, uint64_t queue);
/* Whether nothing is to be claimed for a sink's consumers. Not while claims may be undone. */
void demand_sink_lags(struct demand *demand, const struct engine_sink *sink, bool lags);
/* The next consumer that a CLAIM should be made for, with the command filled in; NULL: nobody. */
struct consumer *demand_next(struct demand *demand, struct command *ret_command, struct cmd_claim *ret_claim);
/* What that CLAIM granted: fewer than asked means that nothing is left that this consumer may
 * have. */
void demand_claimed(struct demand *demand, struct consumer *consumer, const struct cmd_claim *claim,
		    const struct outcome *outcome);
/* The batch was aborted. Notes are taken before each claim, and undone in the opposite order: then
 * everything is as it was, but what was found ready meanwhile stays so. */
void demand_note(const struct consumer *consumer, struct claim_note *ret);
void demand_undo(struct demand *demand, const struct claim_note *note);

/* ---- heartbeat.c: sessions without a connection run out; how many there may be ---- */
struct opening { /* sessions that the batch at hand opens */
	uint64_t batch, count;
};
struct tenant {
	uint64_t gateway;
	uint64_t sessions, expiring;
	struct opening opening;
	UT_hash_handle hh;
};
struct peer { /* an address that sessions were opened from */
	uint64_t sessions, expiring;
	struct opening opening;
	struct beat *unused; /* without a connection, never used; the oldest first */
	uint64_t unused_count;
	UT_hash_handle hh;
	char address[];
};
struct beat {
	struct session_key key;
	uint32_t timeout_ms;
	uint64_t deadline_ms;	  /* durable monotone; while it has a place */
	size_t place;		  /* in the heap; SIZE_MAX: none */
	struct engine_sink *sink; /* of its connection; NULL: it has none */
	uint64_t tag;
	bool used;     /* named, resumed, or its connection did more than open it */
	bool expiring; /* SESSION_EXPIRE is in the batch at hand */
	bool in_unused;
	uint64_t replaced; /* 1 more than the batch in which one is opened that takes its name; 0: none */
	struct tenant *tenant;
	struct peer *peer;	  /* NULL: its address is not known */
	struct beat *prev, *next; /* in detached */
	struct beat *unused_prev, *unused_next;
	UT_hash_handle hh;
};
struct heartbeats {
	struct beat *beats;
	struct beat **heap; /* by deadline_ms */
	size_t heap_count, heap_capacity;
	uint64_t next_ms;      /* the earliest deadline */
	struct beat *detached; /* the one that lost its connection first comes first */
	uint64_t looks;	       /* at sessions that may give way, for the batch at hand */
	struct peer *peers;
	struct tenant *tenants;
	uint64_t batch;
};
struct session_seen {
	uint32_t gateway;
	uint64_t session;
	uint32_t timeout_ms;
	bool named, used;
	struct sluice_slice address; /* empty: not known */
};
/* A session that has no connection yet. NOMEM: it is not there. */
int heartbeats_add(struct heartbeats *heartbeats, const struct session_seen *seen,
		   uint64_t now_ms) SLUICE_MUST_USE;
void heartbeats_remove(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session);
/* True: it was another connection's, which is kicked. */
bool heartbeats_attach(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		       struct engine_sink *sink, uint64_t tag);
void heartbeats_detach(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		       struct engine_sink *sink, uint64_t tag, uint32_t idle_ms, bool used, uint64_t now_ms);
/* One that has run out, marked expiring; NULL: none. */
struct beat *heartbeats_due(struct heartbeats *heartbeats, uint64_t now_ms);
/* After its SESSION_EXPIRE: a session that is still there, because that was refused for damage, is due again then. */
void heartbeats_again(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session, uint64_t due_ms);
enum session_bound { BOUND_NONE, BOUND_ADDRESS, BOUND_GATEWAY };
/* A new batch: what the last one opened is counted by heartbeats_add(). */
void heartbeats_batch(struct heartbeats *heartbeats);
/* Whether one more session may be opened, counting those of the batch at hand; if so, it is one of them. replaced: the one that ends by it, 0: none;
 * where that was counted, the new one is not. */
enum session_bound heartbeats_admit(struct heartbeats *heartbeats, uint32_t gateway,
				    struct sluice_slice address, uint64_t replaced);
/* The one without a connection that gives way at a bound, marked expiring: the oldest that was never used, else the oldest that owns nothing;
 * address empty: of any. Looks at a bounded number. NULL: none. */
struct beat *heartbeats_oldest(struct heartbeats *heartbeats, uint32_t gateway, struct sluice_slice address,
			       bool (*owns)(void *user, uint32_t gateway, uint64_t session), void *user);
void heartbeats_fini(struct heartbeats *heartbeats);

/* ---- headroom.c: admission by class ---- */
enum { HEADROOM_GROWING = 2 }; /* classes that may be refused: publishes, reports */
struct headroom_gate {
	uint32_t publish_stop_percent, report_stop_percent;
	uint64_t reserve_bytes;	   /* what publishes leave to what must always go; reports leave half of it */
	enum headroom_state state; /* by how full map and disk are */
	enum headroom_state room_state; /* by the room that is the store's own */
	uint64_t checked_mono_ms;
	uint64_t map_bytes,
		disk_bytes; /* what the store may fill of each, as of the last facts; UINT64_MAX: not known */
	uint64_t disk_free_bytes; /* for the words */
	uint64_t used_bytes,
		room_bytes; /* of the last look at the room, at least before each batch that may grow the store */
	uint64_t enough_bytes
		[HEADROOM_GROWING]; /* a batch that has put no more needs no closer look for the class */
	bool forced;		    /* publishes stay stopped until there is well room for them */
	uint32_t crossings;	    /* of the batch at hand */
	bool unsupported_told;
	char why[HEADROOM_WHY_BYTES]; /* what is full, and what to do */
};
enum { RESERVE_BYTES_DEFAULT = 32 << 20 };
/* A reserve is at most a twentieth of the map. */
void headroom_init(struct headroom_gate *gate, const struct engine_config *config, uint64_t map_bytes);
enum headroom_state headroom_state(const struct headroom_gate *gate);
void headroom_update(struct headroom_gate *gate, const struct store_facts *facts);
void headroom_fill(struct headroom_gate *gate, uint64_t used_bytes); /* facts are those of the last update */
void headroom_room(struct headroom_gate *gate, const struct store_room *room);
bool headroom_admits(const struct headroom_gate *gate, enum headroom class);
/* The same for a command; a session, which itself grows the store, is let in while a quarter of the reserve is there. */
bool headroom_admits_command(const struct headroom_gate *gate, const struct command *command);
struct engine;
struct submission;
/* Looks at the room that is the store's own, has it made where it is short, and sets the gate by it; `more` bytes are to come on top, 0 at a
 * batch's beginning. IO. */
int headroom_room_look(struct engine *engine, uint64_t more, struct store_room *ret) SLUICE_MUST_USE;
/* After each command, and before the commit: NO_SPACE when what the batch has put so far takes more than the command's class may, so that the
 * batch must be aborted. IO. */
int headroom_batch_check(struct engine *engine, struct store_txn *txn,
			 const struct command *command) SLUICE_MUST_USE;
/* A batch was aborted with NO_SPACE: marks what is refused. At: the command that was one too many; NULL: the commit failed, or what is not a
 * submission. False: nothing is left to refuse. */
bool headroom_refuse(struct engine *engine, struct submission *at);

/* ---- heavy.c: sessions whose commands are large pieces of work take turns with all others ---- */
enum { HEAVY_SESSIONS_MAX = 16 };
struct heavy {
	struct heavy_session {
		uint32_t gateway;
		uint64_t session;
		uint32_t light; /* commands in succession that were */
	} sessions[HEAVY_SESSIONS_MAX];
	size_t count;
	struct heavy_sum {
		uint32_t gateway;
		uint64_t session, work;
	} sums[HEAVY_SESSIONS_MAX]; /* of the commit at hand */
	size_t sum_count;
	bool turn;     /* the batch at hand is for heavy sessions only; otherwise for all others */
	bool was_turn; /* a heavy session did something in it */
	uint32_t last_gateway;
	uint64_t last_session; /* the heavy session that did something last */
};
void heavy_begin(struct heavy *heavy); /* a commit */
/* Work of the open batch so far, in records; about a microsecond each. */
uint64_t heavy_work(const struct engine *engine);
/* After a command that did so much work. True: the commit has enough, the rest is for the next. */
bool heavy_command(struct engine *engine, const struct submission *submission, uint64_t work);
bool heavy_is(const struct heavy *heavy, const struct submission *submission);
/* Before a batch is taken, with all that has arrived in the lanes: whose turn it is. */
void heavy_turn(struct engine *engine);
/* What the batch has not applied goes back to where it was taken from. */
void heavy_return(struct engine *engine);

/* ---- lag.c: releases that sinks have not handled ---- */
/* Looks at each sink, between two batches or two parts of one. True: one lags so far behind that no batch may begin. */
bool lag_look(struct engine *engine);
bool lag_submit_busy(const struct submission *submission);
/* Gives a release to all sinks; takes the caller's reference. */
struct release_impl;
void lag_post(struct engine *engine, struct release_impl *release);

/* ---- batch.c ---- */
struct release_impl {
	struct engine_release public;
	atomic_int refs;
	struct origin *origins;
};
int release_new(struct release_impl **ret) SLUICE_MUST_USE; /* with one reference */
void release_unref(struct release_impl *release);	    /* accepts NULL */
struct batch {
	bool ended_early;		 /* the commit was ended for its work, with more left */
	struct submission **submissions; /* of this batch, in order */
	size_t count, capacity;
	size_t first, end; /* those of them that are committed together; mostly all */
	size_t part_max;   /* so many at most */
	size_t reapplied;  /* commands that were undone and applied again for the damage that others met */
	uint64_t bytes;
	struct release_impl *release; /* being filled */
	struct origin *origins;
	size_t origin_count, origin_capacity;
	struct claim_note *claims; /* of this run */
	size_t claim_count, claim_capacity;
	size_t claim_max;	      /* of this run; the rest is served by the next batch */
	unsigned claim_troubles;      /* claims that met damage when they wrote */
	struct consumer_key *refused; /* consumers that met a damaged record in this batch */
	size_t refused_count, refused_capacity;
	size_t scanned; /* effects that demand was given */
	size_t replies; /* among them */
	uint64_t commands;
};

struct engine {
	struct engine_config config;
	struct store *store;
	struct core *core;
	struct inbox inbox;
	struct taken taken; /* taken from the inbox, not yet in a batch */
	struct demand demand;
	struct heartbeats heartbeats;
	struct headroom_gate gate;
	struct heavy heavy;
	struct batch batch;
	struct engine_sink *sinks[SINKS_MAX];
	bool sink_lags[SINKS_MAX];
	size_t sink_count;
	/* durable mono = process mono + offset; the offset is set once, at create */
	_Atomic int64_t mono_offset_ms;
	uint64_t mono_last_ms;
	uint64_t next_deadline_ms; /* of core's timers */
	uint64_t
		tick_hold_ms; /* no TICK before: it failed on a damaged record, and of no timer that could be put off */
	uint8_t put_off[TIMER_KEY_BYTES]; /* timer that the next TICK puts off, and does nothing else */
	size_t put_off_bytes;
	uint64_t sequence;
	_Atomic uint64_t committing; /* sequence of the last batch whose commit was begun */
	_Atomic uint64_t commits, commands, aborted;
	_Atomic uint64_t consumer_count, attached_count;
	_Atomic int headroom_now;
	pthread_mutex_t headroom_lock;	       /* of headroom_why */
	char headroom_why[HEADROOM_WHY_BYTES]; /* the gate's, for other threads; empty: there is room */
	bool failed;
	pthread_t thread;
	bool thread_runs;
	_Atomic bool stopping;
};

/* Applies what was chosen into engine->batch in one transaction and commits. 0 or a failure that stops the engine. */
int batch_run(struct engine *engine, struct batch_clock clock) SLUICE_MUST_USE;
void batch_release_all(struct engine *engine);
void batch_fini(struct batch *batch);

#endif
