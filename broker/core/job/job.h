/* SPDX-License-Identifier: Apache-2.0
 * Jobs: the ledger and its transitions. One section per file. */
#ifndef SLUICE_CORE_JOB_JOB_H
#define SLUICE_CORE_JOB_JOB_H

#include "broker/core/base/reply.h"
#include "broker/core/job/live.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/session/session.h"

enum {
	JOB_ID_BYTES_MAX = 255, /* LIMIT_NAME_BYTES_MAX */
	JOB_REASON_BYTES = 200,
};
#define JOB_KEEP_MS_DEFAULT UINT64_C(2592000000) /* 30 days after their end */
#define JOB_SOURCE_BROKER "broker"		 /* source of facts that no report caused */

struct job {
	uint64_t number;
	/* the caller's, valid as long as the struct; NULL when only the number is known (then no
	 * event is published) */
	const char *id;
	struct job_live live;
	const struct lifecycle *lifecycle; /* of lifecycle_get */
};

/* What is recorded about a change. Texts are never NULL. */
struct job_fact {
	const char *event; /* as in JobHistoryRow.event */
	const char *source;
	const char *evidence;
	const char *scheduler_ref;
	int32_t exit_code;
	uint64_t seen_time_ms;
	/* Additional data of a report; see fact_of() in report.c. */
	uint64_t started_time_ms, ended_time_ms, memory_peak_bytes;
	uint32_t signal;
	Sluice__EvidenceClass class;
	bool exited;
};

static inline const char *job_state_name(const struct job *job)
{
	return lifecycle_state_name(job->lifecycle, job->live.state);
}
static inline bool job_is_terminal(const struct job *job)
{
	return lifecycle_is_terminal(job->lifecycle, job->live.state);
}
static inline struct job_fact job_fact(const char *event, const char *source, const char *evidence)
{
	return (struct job_fact){.event = event,
				 .source = source,
				 .evidence = evidence,
				 .scheduler_ref = ""};
}

/* An orphan whose work may exist waits for the source that can find it; 0: for any consumer. */
static inline uint64_t job_orphan_source(const struct job_live *live)
{
	return live->flags & JOB_INTENT ? live->source : 0;
}
static inline void job_key_orphan(struct key *key, uint32_t gateway, uint64_t queue,
				  uint64_t source, uint64_t job)
{
	key_orphan(key, gateway, source != 0 ? OWNED_SOURCE_ORPHAN : OWNED_ORPHAN, queue, source,
		   job);
}
/* Whether the key is that of an orphan of the queue that waits for the source (0: for any
 * consumer). */
static inline bool job_key_orphan_in(struct sluice_slice key, uint32_t gateway, uint64_t queue,
				     uint64_t source, uint64_t *ret_job)
{
	struct orphan_key orphan;

	if (!key_orphan_decode(key, &orphan) || orphan.gateway != gateway ||
	    orphan.kind != (source != 0 ? OWNED_SOURCE_ORPHAN : OWNED_ORPHAN) ||
	    orphan.queue != queue || orphan.source != source)
		return false;
	*ret_job = orphan.job;
	return true;
}

/* ---- ledger.c ---- */
/* By id; a missing job is refused with NOT_FOUND. */
int job_find(struct apply *a, const char *id, struct job *ret, struct outcome *out) SLUICE_MUST_USE;
/* By number, inside core (claims, timers). CORRUPT when it does not exist. */
int job_load(struct apply *a, uint64_t number, struct job *ret) SLUICE_MUST_USE;
int job_store(struct apply *a, const struct job *job) SLUICE_MUST_USE;
/* Fills attempt, state and terminal of an outcome. */
void job_outcome(const struct job *job, enum outcome_kind kind, struct outcome *out);
/* Records a fact that changes no state. */
int job_note(struct apply *a, struct job *job, const struct job_fact *fact) SLUICE_MUST_USE;
/* Moves to `state`, which the caller has checked: history, event, and for a terminal state the end
 * of the claim, retention and waiters. */
int job_move(struct apply *a, struct job *job, uint32_t state, const struct job_fact *fact,
	     bool notify_holder) SLUICE_MUST_USE;
/* Ends the current claim (queue entry, lease, orphan entry, timer) and sets claim = NONE.
 * notify_holder: the holder is notified that its lease is lost. */
int job_claim_end(struct apply *a, struct job *job, bool notify_holder) SLUICE_MUST_USE;
/* Claim NONE -> READY, with a queue entry. */
int job_make_ready(struct apply *a, struct job *job) SLUICE_MUST_USE;
/* Claim NONE -> GATED until due. */
int job_make_delayed(struct apply *a, struct job *job, uint64_t due_mono_ms) SLUICE_MUST_USE;
/* Claim NONE -> ORPHANED; notifies consumers that accept orphans. */
int job_make_orphan(struct apply *a, struct job *job) SLUICE_MUST_USE;
/* Claim NONE -> LEASED by a->session under a->index. An attempt that has an intent keeps the source
 * of the intent; otherwise it is judged by `source` from now on. */
int job_make_leased(struct apply *a, struct job *job, uint64_t source) SLUICE_MUST_USE;
/* FX_JOB_CANCEL or FX_LEASE_LOST to the holder, when its session lives. */
int job_notify_holder(struct apply *a, const struct job *job,
		      enum effect_kind kind) SLUICE_MUST_USE;

/* ---- event.c ---- */
int job_event_publish(struct apply *a, const struct job *job, const char *from,
		      const struct job_fact *fact) SLUICE_MUST_USE;

/* ---- lease.c: jobs of a claim, for claim.c ---- */
/* Leases one ready job (its entry was removed from the queue) to a->session and source under token
 * a->index and appends its delivery. */
struct job_deliveries; /* builder of JobDeliveries in the effects arena */
int job_claim_ready(struct apply *a, uint64_t job, uint64_t source,
		    struct job_deliveries *deliveries) SLUICE_MUST_USE;
/* Reports (claim_report_damaged) whether a record that belongs to this job alone is damaged: its
 * live record, its payload, its history. Reads only. */
int job_report_if_damaged(struct apply *a, uint64_t queue, uint64_t job,
			  bool *ret_damaged) SLUICE_MUST_USE;
/* If the first orphan of the claim is damaged: reports it and offers it to no consumer any more; it
 * stays an orphan. */
int job_orphan_skip(struct apply *a, const struct cmd_claim *m, bool *ret_skipped) SLUICE_MUST_USE;
/* Takes over up to max orphaned jobs of the claim's queue: first those of its own source, then
 * those of none. *ret_more: stopped at max or at the size of the deliveries, so there may be
 * more. */
int job_claim_orphans(struct apply *a, const struct cmd_claim *m, uint32_t max,
		      struct job_deliveries *deliveries, uint32_t *ret_count,
		      bool *ret_more) SLUICE_MUST_USE;
/* Redelivers the session's jobs of the queue for the claim's source (CLAIM_RESUME). One step, up to
 * max jobs; damaged ones are reported and left out. *ret_after: the job to continue after, 0 when
 * there are no more. */
int job_redeliver(struct apply *a, const struct cmd_claim *m, uint32_t max,
		  struct job_deliveries *deliveries, uint32_t *ret_count,
		  uint64_t *ret_after) SLUICE_MUST_USE;
int job_deliveries_begin(struct job_deliveries **ret) SLUICE_MUST_USE;
/* Whether the claim has enough bytes: the next claim continues. */
bool job_deliveries_full(const struct job_deliveries *deliveries);
int job_deliveries_end(struct apply *a, struct job_deliveries *deliveries,
		       uint64_t queue); /* adds FX_JOBS when not empty; frees */
/* Both for owned.def (struct owned_ops): the queue of a job; the end of its holder, which makes it
 * an orphan. */
int job_queue_find(struct apply *a, uint64_t job, uint64_t *ret) SLUICE_MUST_USE;
int job_session_ended(struct apply *a, uint64_t session, uint64_t queue, uint64_t job,
		      uint32_t *io_work, bool *ret_done) SLUICE_MUST_USE;
/* Records the fact and returns the job to its queue, at once or after a delay. */
int job_give_back(struct apply *a, struct job *job, uint32_t delay_ms,
		  const struct job_fact *fact) SLUICE_MUST_USE;
int job_release_due_fire(struct apply *a, uint64_t job, uint64_t sub,
			 uint32_t *io_work); /* TIMER_JOB_RELEASE_DUE */

/* ---- claim.c: CLAIM of jobs, for dispatch/claim.c ---- */
int claim_jobs(struct apply *a, const struct cmd_claim *m, uint32_t max,
	       struct outcome *out) SLUICE_MUST_USE;
/* After a claim that took or skipped something: adds FX_QUEUE_READY for what is left, so that the
 * next claim continues. */
int claim_jobs_announce(struct apply *a, const struct cmd_claim *m) SLUICE_MUST_USE;
/* If the first job of the claim is damaged, this claim and all later ones skip it. */
int claim_jobs_skip(struct apply *a, const struct cmd_claim *m, bool *ret_skipped) SLUICE_MUST_USE;

/* ---- report.c ---- */
/* A report on a job that was found; its texts were checked. Changes *job without storing it: store
 * it when the outcome is APPLIED. */
int job_report_on(struct apply *a, struct job *job, const Sluice__JobReport *m,
		  struct outcome *out) SLUICE_MUST_USE;

/* ---- retention.c, retention_due.c ---- */
int job_retention_arm(struct apply *a, const struct job *job) SLUICE_MUST_USE;
/* How long finished jobs are kept; 0: for ever. */
int job_retention_keep_ms(struct apply *a, uint64_t *ret) SLUICE_MUST_USE;
/* When a finished job is to be deleted, on the monotone clock. */
uint64_t job_retention_due(const struct apply *a, const struct job_live *live, uint64_t keep_ms);
int job_retention_fire(struct apply *a, uint64_t job, uint64_t sub,
		       uint32_t *io_work); /* TIMER_JOB_RETENTION */

/* ---- work.c: the operation of a transaction that has no command of its own ---- */
int job_check_apply(struct apply *a, const Sluice__TxnCheckJob *m, struct outcome *out);

/* ---- query.c, info.c, explain.c, audit.c ---- */
int job_query(struct query *q, const Sluice__Request *request); /* job_*, audit, quarantine_list */
int job_info_make(struct query *q, uint64_t number, bool payload,
		  Sluice__JobInfo **ret) SLUICE_MUST_USE;
int job_explain(struct query *q, const Sluice__JobExplain *m) SLUICE_MUST_USE;
int audit_query(struct query *q, const Sluice__Audit *m) SLUICE_MUST_USE;
/* An age as text. Returns buf. */
enum { AGE_BYTES = 32 };
const char *job_age(char buf[AGE_BYTES], uint64_t ms);
/* Number of a job; a missing one is refused in the reply (then *ret is 0). */
int job_query_find(struct query *q, const char *id, uint64_t *ret) SLUICE_MUST_USE;

#endif
