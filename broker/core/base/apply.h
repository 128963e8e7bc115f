/* SPDX-License-Identifier: Apache-2.0
 *
 * For the handlers inside core: the context of one command, and how handlers refuse.
 *
 * A handler validates fully before its first write, or is run under a savepoint (TXN and CLAIM always are). It returns 0, or an environment
 * failure that aborts the batch. A refusal is `return refuse(out, CODE, "text", ...)`, which returns 0 after filling
 * the outcome; the handler must not have written anything then.
 */
#ifndef SLUICE_CORE_APPLY_H
#define SLUICE_CORE_APPLY_H

#include "broker/core/core.h"
#include "broker/core/base/keys.h"
#include "protocol/limits.h"

struct apply {
	struct core *core;
	struct store_txn *txn;
	struct effects *effects;
	uint32_t position; /* of the command in the batch */
	uint32_t gateway;
	uint64_t session;
	uint64_t random;
	uint64_t index; /* of this command: tokens, history */
	uint64_t mono_ms;
	uint64_t wall_ms;
};

/* Fills the outcome of a refusal and returns 0. */
int refuse(struct outcome *out, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static inline bool refused(const struct outcome *out)
{
	return out->code != 0;
}

static inline struct sluice_slice slice_text(const char *text)
{
	return (struct sluice_slice){text, strlen(text)};
}

/* One handler per command of commands.def. PB handlers get their message struct, BIN handlers their body struct. */
#define PB(NAME, number, Message, message, permission, headroom, handler, text) \
	int handler(struct apply *a, const Sluice__##Message *m, struct outcome *out);
#define BIN(NAME, number, body_struct, permission, headroom, handler, text) \
	int handler(struct apply *a, const struct body_struct *m, struct outcome *out);
#include "broker/core/commands.def"
#undef PB
#undef BIN

/* ---- counter.c: numbers in order of arrival, per gateway, in hot cells ---- */
enum counter {
	COUNTER_INDEX = 1,
	COUNTER_STREAM,
	COUNTER_QUEUE,
	COUNTER_ROUTER,
	COUNTER_EDGE,
	COUNTER_MACHINE,
	COUNTER_JOB,
	COUNTER_SESSION,
	COUNTER_PRODUCER,
	COUNTER_HIST,
	COUNTER_QUAR,
	COUNTER_CURSOR,
	COUNTER_TOPO_VERSION,
	COUNTER_QUAR_FIRST,
	COUNTER_QUAR_DROPPED,
	COUNTER_JOBS_OPEN,
	COUNTER_GATEWAY /* under gateway 0 */,
	COUNTER_JOB_KEEP_MS /* + 1; 0: the default */,
	COUNTER_JOBS,
	COUNTER_QUAR_ROWS,
	COUNTER_PARKED /* rows of quar that wait for their job */,
	COUNTER_TICK_FIRST /* under gateway 0: gateway - 1 that the next TICK begins with */,
	COUNTER_SESSIONS /* open now */,
	COUNTER_EDGES /* now */,
	COUNTER_SOURCE = 34
};
int counter_next(struct apply *a, enum counter counter, uint64_t *ret) SLUICE_MUST_USE; /* first is 1 */
int counter_get(struct store_txn *txn, uint32_t gateway, enum counter counter,
		uint64_t *ret) SLUICE_MUST_USE; /* 0 when unset */
int counter_set(struct apply *a, enum counter counter, uint64_t value) SLUICE_MUST_USE;
int counter_add(struct apply *a, enum counter counter, int64_t delta) SLUICE_MUST_USE;

/* ---- name.c: names -> numbers ---- */
enum name_kind {
	NAME_STREAM = 1,
	NAME_QUEUE,
	NAME_ROUTER,
	NAME_MACHINE,
	NAME_JOB,
	NAME_SESSION,
	NAME_PRODUCER,
	NAME_CURSOR /* "<stream id>/<name>" */,
	NAME_GATEWAY /* under gateway 0 */,
	NAME_PARKED /* job id -> its newest parked row */,
	NAME_EDGE /* target kind u8, target u64, router u64, pattern -> edge */,
	NAME_SOURCE = 20,
	NAME_QUARANTINED = 30 /* job id -> its newest row in quarantine that is not parked */
};
int name_find(struct store_txn *txn, uint32_t gateway, enum name_kind kind, struct sluice_slice name,
	      uint64_t *ret) SLUICE_MUST_USE;
int name_put(struct apply *a, enum name_kind kind, struct sluice_slice name, uint64_t id) SLUICE_MUST_USE;
int name_del(struct apply *a, enum name_kind kind, struct sluice_slice name) SLUICE_MUST_USE;

/* ---- topo.c: definitions in STORE_TOPO ---- */
enum topo_kind {
	TOPO_STREAM = 1,
	TOPO_QUEUE,
	TOPO_ROUTER,
	TOPO_EDGE,
	TOPO_MACHINE,
	TOPO_GATEWAY /* under gateway 0 */,
	TOPO_TOMB /* deleted, being swept by TICK */
};
/* Unpacks the message in a stored record: the one that the store read last. Owned; NULL with *ret_rc CORRUPT, which names the record, or NOMEM. */
void *record_unpack(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
		    int *ret_rc) SLUICE_MUST_USE;
/* Packs / unpacks the definition (a protobuf message). find returns an owned message: protobuf_c_message_free_unpacked. */
int topo_put(struct apply *a, enum topo_kind kind, uint64_t id,
	     const ProtobufCMessage *message) SLUICE_MUST_USE;
int topo_find(struct store_txn *txn, uint32_t gateway, enum topo_kind kind, uint64_t id,
	      const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **ret) SLUICE_MUST_USE;
int topo_del(struct apply *a, enum topo_kind kind, uint64_t id) SLUICE_MUST_USE;
/* Call after any change of streams, queues, routers or edges: raises the version that caches compare, adds FX_TOPOLOGY. */
int topo_changed(struct apply *a) SLUICE_MUST_USE;
/* router_cache.c: the image, which has the change, goes along from one version to the next. */
void router_image_follow(struct apply *a, uint64_t before, uint64_t now);

/* ---- config_same.c ---- */
/* For if_not_exists: refuses CONFLICT, with the first field in which the definition that exists differs from the one that was given, and both
 * values. Fields that list texts (subjects) are not compared, nor a description that was not given. */
int config_same(const ProtobufCMessage *stored, const ProtobufCMessage *given, const char *what,
		const char *name, struct outcome *out) SLUICE_MUST_USE;

/* ---- timer.c: lazy timers; firing checks the record ---- */
enum timer_kind {
	TIMER_QUEUE_LEASES = 1,
	TIMER_ITEM_DUE,
	TIMER_STREAM_RETENTION,
	TIMER_JOB_RETENTION,
	TIMER_SWEEP,
	TIMER_JOB_RELEASE_DUE,
	TIMER_PRODUCER_IDLE,
	TIMER_UNPARK = 28 /* job number, row: its parked reports from that row on are to be applied */
};
int timer_set(struct apply *a, uint64_t due_mono_ms, enum timer_kind kind, uint64_t id,
	      uint64_t sub) SLUICE_MUST_USE;
/* Called by tick_apply (timer.c) for each due timer after it was deleted. *io_work is the budget of records: each subtracts what it
 * used; one that is not done sets a new timer at a->mono_ms. */
typedef int (*timer_fire_fn)(struct apply *a, uint64_t id, uint64_t sub, uint32_t *io_work);
int queue_leases_fire(struct apply *a, uint64_t queue, uint64_t sub, uint32_t *io_work);   /* queue_lease.c */
int queue_item_due_fire(struct apply *a, uint64_t queue, uint64_t seq, uint32_t *io_work); /* queue_lease.c */
int stream_retention_fire(struct apply *a, uint64_t stream, uint64_t sub,
			  uint32_t *io_work); /* stream_retention.c */
int job_retention_fire(struct apply *a, uint64_t job, uint64_t sub, uint32_t *io_work); /* job_retention.c */
int sweep_fire(struct apply *a, uint64_t id, uint64_t kind,
	       uint32_t *io_work); /* topo_sweep.c: rest of a deleted stream or queue, or a purge */
int job_release_due_fire(struct apply *a, uint64_t job, uint64_t sub, uint32_t *io_work);    /* job_claim.c */
int producer_idle_fire(struct apply *a, uint64_t producer, uint64_t sub, uint32_t *io_work); /* producer.c */
int quarantine_unpark_fire(struct apply *a, uint64_t job, uint64_t from,
			   uint32_t *io_work); /* quarantine.c */

/* ---- session.c ---- */
enum owned_kind {
	OWNED_JOB = 1,
	OWNED_GRANT = 2 /* session leases only; id = token, sub = queue */,
	OWNED_ORPHAN = 4 /* session 0: key queue, job; the orphaned jobs of a queue that anybody may take */,
	OWNED_SOURCE_ORPHAN =
		10 /* session 0: key queue, source, job; those that only their source may take */
};
int session_check(struct apply *a, uint64_t session,
		  struct outcome *out) SLUICE_MUST_USE; /* refuses SESSION_GONE */
int session_own(struct apply *a, uint64_t session, enum owned_kind kind, uint64_t id,
		uint64_t sub) SLUICE_MUST_USE;
int session_disown(struct apply *a, uint64_t session, enum owned_kind kind, uint64_t id) SLUICE_MUST_USE;
/* Calls each owned entry of a session with an id from `from` on, at most max; each may disown the entry it was given. What it returns
 * other than 0 ends the walk and is returned. */
int session_owned_each(struct apply *a, uint64_t session, enum owned_kind kind, uint64_t from, uint32_t max,
		       int (*each)(struct apply *a, uint64_t id, uint64_t sub, void *user),
		       void *user) SLUICE_MUST_USE;
/* Its name, or what its client called itself, for people; malloc'd. NOT_FOUND when it is no more. Any transaction. */
int session_label(struct store_txn *txn, uint32_t gateway, uint64_t session, char **ret) SLUICE_MUST_USE;
/* The same, and the address that it was opened from; both malloc'd, also when the other could not be. */
int session_holder(struct store_txn *txn, uint32_t gateway, uint64_t session, char **ret_label,
		   char **ret_address) SLUICE_MUST_USE;
/* What a session's end means for what it owns (called by session.c for each entry, which it then removes). */
int job_session_ended(struct apply *a, uint64_t session, uint64_t queue,
		      uint64_t job); /* job_claim.c: orphan */
/* The queue of a grant of which only the token is known: a look at each queue that has grants. NOT_FOUND. */
int queue_of_grant(struct apply *a, uint64_t token, uint64_t *ret) SLUICE_MUST_USE;
/* queue_lease.c: items go back, up to *io_work, which is what is left of it then; *ret_done: all have */
int queue_session_ended(struct apply *a, uint64_t session, uint64_t queue, uint64_t token, uint32_t *io_work,
			bool *ret_done);

/* ---- router.c ---- */
struct route_target {
	uint32_t kind; /* Sluice__TargetKind: stream or queue */
	uint64_t id;
};
/* Targets of a subject from a router (0: the default router), streams first, each once, in id order. Borrowed until the next call.
 * none: 0 targets (after alternates). */
int router_route(struct apply *a, uint64_t router, struct sluice_slice subject,
		 const struct route_target **ret, size_t *ret_count) SLUICE_MUST_USE;

/* Checks (before the first write) and adds the edges of a new stream or queue in the default router. */
int router_subjects_check(struct apply *a, char *const *patterns, size_t count,
			  struct outcome *out) SLUICE_MUST_USE;
int router_subjects_bind(struct apply *a, char *const *patterns, size_t count, uint32_t target_kind,
			 uint64_t target) SLUICE_MUST_USE;
/* For if_not_exists: refuses CONFLICT unless each pattern is bound to the target in the default router. It may have others: who binds apart
 * creates apart. */
int router_subjects_bound(struct apply *a, char *const *patterns, size_t count, uint32_t target_kind,
			  uint64_t target, const char *name, struct outcome *out) SLUICE_MUST_USE;
/* Removes every edge to a stream or queue that is being deleted. */
int router_drop_target(struct apply *a, uint32_t target_kind, uint64_t target) SLUICE_MUST_USE;

/* ---- publish.c / stream.c ---- */
/* One event from inside core (job events): subject, key and JSON body; routed by the default router; never refused. */
int publish_internal(struct apply *a, struct sluice_slice subject, struct sluice_slice key,
		     struct sluice_slice body) SLUICE_MUST_USE;
/* Appends a run of envelopes to a stream; offset of the first in *ret_offset. */
struct append_spec {
	struct sluice_slice subject;
	struct sluice_slice payload;
	uint8_t codec;
	uint32_t raw_bytes;
	uint32_t count;
	uint64_t time_ms;
	int64_t time_delta_max_ms;
	uint64_t producer;
	uint32_t epoch;
	uint64_t first_seq;
};
int stream_append(struct apply *a, uint64_t stream, const struct append_spec *spec,
		  uint64_t *ret_offset) SLUICE_MUST_USE;

/* ---- queue*.c ---- */
/* At boot: timed leases count from now at the earliest (no scan). Called by core_boot. */
int queue_boot(struct apply *a) SLUICE_MUST_USE;
/* Sweeping: called by sweep_fire for TIMER_SWEEP timers that queue.c set (sub = SWEEP_QUEUE). *ret_done false: set the timer again. */
enum sweep_kind { SWEEP_STREAM = 1, SWEEP_QUEUE = 2, SWEEP_SESSION = 3 };
int queue_sweep(struct apply *a, uint64_t queue, uint32_t *io_work, bool *ret_done) SLUICE_MUST_USE;
/* The gateway's dead-letter queue, by gateway_create. */
int queue_install_dead_letter(struct apply *a) SLUICE_MUST_USE;
struct queue_put_spec {
	struct sluice_slice
		envelope; /* encoded, with its subject and absolute: its time delta is relative to time_ms */
	uint64_t time_ms;
	uint8_t priority;
	uint32_t delay_ms;
	struct sluice_slice
		dead_from; /* name of the queue it was dead-lettered from, and why; empty: not dead */
	struct sluice_slice dead_reason;
	uint32_t attempts;
};
/* Room for count more, checked apart, so that a batch is refused before its first write. Refuses NOT_FOUND, INVAL (the wrong kind),
 * QUEUE_FULL. */
int queue_room_check(struct apply *a, uint64_t queue, Sluice__QueueKind kind, uint32_t count,
		     struct outcome *out) SLUICE_MUST_USE;
/* The same, and how many records each of them is: 1, with priorities 2. */
int queue_room_look(struct apply *a, uint64_t queue, Sluice__QueueKind kind, uint32_t count,
		    uint32_t *ret_records, struct outcome *out) SLUICE_MUST_USE;
int queue_put(struct apply *a, uint64_t queue, const struct queue_put_spec *spec,
	      uint64_t *ret_seq) SLUICE_MUST_USE;
/* Many events into one queue, in order; number of the first in *ret_seq. */
struct queue_put_event {
	size_t at, bytes; /* its envelope in the run's bytes, as in queue_put_spec */
	uint8_t priority;
};
struct queue_put_run {
	const struct queue_put_event *events;
	uint32_t count; /* at least 1 */
	const uint8_t *bytes;
	uint64_t time_ms;
	uint32_t delay_ms;
};
int queue_put_run(struct apply *a, uint64_t queue, const struct queue_put_run *run,
		  uint64_t *ret_seq) SLUICE_MUST_USE;
/* Job queues: entries that name a job. The queue holds an entry only while the job is ready. */
int queue_job_put(struct apply *a, uint64_t queue, uint64_t job, uint8_t priority,
		  uint64_t *ret_seq) SLUICE_MUST_USE;
int queue_job_remove(struct apply *a, uint64_t queue, uint64_t seq, uint8_t priority) SLUICE_MUST_USE;
/* Counts of jobs that are leased or orphaned, kept in the queue's cell. */
int queue_job_count(struct apply *a, uint64_t queue, int leased_delta, int orphaned_delta) SLUICE_MUST_USE;

/* ---- job_claim.c: called by claim_apply (queue_claim.c) for queues of jobs ---- */
/* Leases one ready job (its entry was taken off the queue) to a->session and source under token a->index and appends its delivery. */
struct job_deliveries; /* builder of JobDeliveries in the effects arena */
int job_claim_ready(struct apply *a, uint64_t job, uint64_t source,
		    struct job_deliveries *deliveries) SLUICE_MUST_USE;
/* Tells (claim_tell_damaged) when a record that is this job's alone is damaged: its live record, its payload, its history. Reads only. */
int job_tell_if_damaged(struct apply *a, uint64_t queue, uint64_t job, bool *ret_damaged) SLUICE_MUST_USE;
/* The first orphan that the claim comes to, if it is damaged, is told and no longer offered to anybody; it stays one. */
int job_orphan_pass_by(struct apply *a, const struct cmd_claim *m, bool *ret_passed) SLUICE_MUST_USE;
/* A step of RESUME looks at so many of a session's jobs or of a queue's grants, whosever they are. */
enum { RESUME_LOOK_MAX = 4096 };
static inline uint32_t claim_max(const struct cmd_claim *m)
{
	return m->max < LIMIT_GRANT_ITEMS_MAX ? m->max : (uint32_t)LIMIT_GRANT_ITEMS_MAX;
}
/* Takes over up to max orphaned jobs of the claim's queue: its own source's, then those that anybody
 * may take. *ret_more: it stopped for max or for the size of the deliveries, so there may be others. */
int job_claim_orphans(struct apply *a, const struct cmd_claim *m, uint32_t max,
		      struct job_deliveries *deliveries, uint32_t *ret_count, bool *ret_more) SLUICE_MUST_USE;
/* Tells that an item, a lease or a job of the queue is damaged and left as it is: a CLAIM the consumer that it is for, any other command
 * the broker's log. store_last_error() has just named the record. */
int claim_tell_damaged(struct apply *a, uint64_t queue, uint64_t seq) SLUICE_MUST_USE;
/* Redelivers what the session holds of the queue for the claim's source (CLAIM_RESUME). One step of it, up to max jobs; damaged ones are told and left out; *ret_after: the job to go on behind, 0 when there is no more. */
int job_redeliver(struct apply *a, const struct cmd_claim *m, uint32_t max, struct job_deliveries *deliveries,
		  uint32_t *ret_count, uint64_t *ret_after) SLUICE_MUST_USE;
int job_deliveries_begin(struct job_deliveries **ret) SLUICE_MUST_USE;
/* The claim has enough bytes: stop, the rest is claimed by the next. */
bool job_deliveries_full(const struct job_deliveries *deliveries);
int job_deliveries_end(struct apply *a, struct job_deliveries *deliveries,
		       uint64_t queue); /* adds FX_JOBS when not empty; frees */

/* ---- txn.c runs handlers of operations; these are the ones that have no command of their own ---- */
int txn_publish_apply(struct apply *a, const Sluice__TxnPublish *m, struct outcome *out);
int job_check_apply(struct apply *a, const Sluice__TxnCheckJob *m, struct outcome *out);

/* ---- query: each module answers its reads into reply (fields allocated with malloc, freed by the caller through the free_unpacked call) ---- */
struct query_at {
	uint32_t phase;
	uint64_t number, other;
	uint64_t of; /* whose rows they are, where that is a number */
	char name[LIMIT_SIZE(NAME_BYTES_MAX) + 1];
	void *state; /* more than that; owned */
	void (*state_free)(void *state);
};
struct query {
	struct store_txn *txn;
	uint32_t gateway;
	struct query_clock clock;
	Sluice__Reply *reply; /* code, text, rows: those of all turns so far */
	uint64_t cost_max;    /* of txn: beyond it the turn ends */
	bool again;	      /* the answer is not complete: another turn, on another snapshot */
	struct query_at at;   /* where that one goes on; zero in the first */
};
/* To be asked behind each record: so each turn gets on. */
bool query_spent(const struct query *q);
/* How many rows a list that asks for max gives: 0 is the broker's choice. */
static inline uint32_t rows_max(uint32_t max)
{
	return max == 0 || max > LIMIT_LIST_ROWS_MAX ? (uint32_t)LIMIT_LIST_ROWS_MAX : max;
}
/* Calls each with the numbers of the names after `after` (name.c), in name order, at most rows_max(max) times, and then
 * q->reply->more when there are others. What each returns ends it; NOT_FOUND may not be that. */
int name_each(struct query *q, enum name_kind kind, const char *after, uint32_t max,
	      int (*each)(struct query *q, uint64_t id, void *user), void *user) SLUICE_MUST_USE;
/* A text of a reply row, by text_make() (protocol/text.h): whatever bytes are stored, a reader can decode the row.
 * Terminated, malloc'd. NULL: out of memory. */
char *query_text(struct sluice_slice text);
int query_refuse(struct query *q, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int stream_query(struct query *q, const Sluice__Request *request);  /* stream_show, stream_list */
int queue_query(struct query *q, const Sluice__Request *request);   /* queue_show, queue_list, queue_peek */
int router_query(struct query *q, const Sluice__Request *request);  /* router_show, router_list */
int machine_query(struct query *q, const Sluice__Request *request); /* machine_show, machine_list */
int job_query(struct query *q,
	      const Sluice__Request
		      *request); /* job_show, job_list, job_history, job_explain, audit, quarantine_list */
int session_query(struct query *q, const Sluice__Request *request); /* session_list */
int status_query(struct query *q,
		 const Sluice__Request *request); /* status_get: counts; the rest is the engine's */

#endif
