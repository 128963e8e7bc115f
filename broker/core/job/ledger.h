/* SPDX-License-Identifier: Apache-2.0
 *
 * What the job_*.c files share: a job in the hands of one command, and the three things that every change is
 * made of: a history row, the end or begin of a claim, an event.
 *
 * A handler loads a struct job, checks, changes it through these calls and ends with job_store(), which
 * writes the live record once. All of it runs on the writer's thread; errors are environment failures unless
 * a call says that it refuses.
 */
#ifndef SLUICE_CORE_JOB_LEDGER_H
#define SLUICE_CORE_JOB_LEDGER_H

#include "broker/core/job/live.h"
#include "broker/core/base/text.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/job/source.h"

enum {
	JOB_ID_BYTES_MAX = 255, /* LIMIT_NAME_BYTES_MAX */
	JOB_REASON_BYTES = 200,
};
#define JOB_KEEP_MS_DEFAULT UINT64_C(2592000000) /* 30 days after their end */
#define JOB_SOURCE_BROKER "broker"		 /* source of what nobody reported */

struct job {
	uint64_t number;
	const char *id; /* the caller's, as long as the struct lives; NULL where only the number is known (no
			   event is published then) */
	struct job_live live;
	const struct machine *machine; /* of machine_get */
};

/* What is recorded about a change. Texts are never NULL. */
struct job_fact {
	const char *event; /* as in JobHistoryRow.event */
	const char *source;
	const char *evidence;
	const char *scheduler_ref;
	int32_t exit_code;
	uint64_t seen_time_ms;
	/* What a report may say besides; see fact_of() in job_report.c. */
	uint64_t started_time_ms, ended_time_ms, memory_peak_bytes;
	uint32_t signal;
	Sluice__EvidenceClass class;
	bool exited;
};

static inline const char *job_state_name(const struct job *job)
{
	return machine_state_name(job->machine, job->live.state);
}
static inline bool job_is_terminal(const struct job *job)
{
	return machine_is_terminal(job->machine, job->live.state);
}
static inline struct job_fact job_fact(const char *event, const char *source, const char *evidence)
{
	return (struct job_fact){.event = event, .source = source, .evidence = evidence, .scheduler_ref = ""};
}

/* ---- job_ledger.c ---- */
/* By id; a job that does not exist is refused NOT_FOUND. */
int job_find(struct apply *a, const char *id, struct job *ret, struct outcome *out) SLUICE_MUST_USE;
/* By number, from inside (claims, timers). CORRUPT when it is not there. */
int job_load(struct apply *a, uint64_t number, struct job *ret) SLUICE_MUST_USE;
int job_store(struct apply *a, const struct job *job) SLUICE_MUST_USE;
/* Fills attempt, state and terminal of an outcome. */
void job_outcome(const struct job *job, enum outcome_kind kind, struct outcome *out);
/* Records a fact that changes no state. */
int job_note(struct apply *a, struct job *job, const struct job_fact *fact) SLUICE_MUST_USE;
/* Moves to `state`, which the caller found legal: history, event, and when it is terminal the end of the
 * claim, retention and waiters. */
int job_move(struct apply *a, struct job *job, uint32_t state, const struct job_fact *fact,
	     bool tell_holder) SLUICE_MUST_USE;
/* Ends what the claim state stands for (queue entry, lease, orphan entry, timer) and leaves claim = NONE.
 * tell_holder: a holder learns that its lease is lost. */
int job_claim_end(struct apply *a, struct job *job, bool tell_holder) SLUICE_MUST_USE;
/* Claim NONE -> READY, with a queue entry. */
int job_make_ready(struct apply *a, struct job *job) SLUICE_MUST_USE;
/* Claim NONE -> GATED until due. */
int job_make_delayed(struct apply *a, struct job *job, uint64_t due_mono_ms) SLUICE_MUST_USE;
/* Claim NONE -> ORPHANED, and consumers that want orphans are woken. */
int job_make_orphan(struct apply *a, struct job *job) SLUICE_MUST_USE;
/* Claim NONE -> LEASED by a->session under a->index. An intent keeps the source that it was recorded for; without one, the attempt is
 * from now on judged by `source`. */
int job_make_leased(struct apply *a, struct job *job, uint64_t source) SLUICE_MUST_USE;
/* FX_JOB_CANCEL or FX_LEASE_LOST to the holder, when its session lives. */
int job_tell_holder(struct apply *a, const struct job *job, enum effect_kind kind) SLUICE_MUST_USE;

/* An orphan whose work may exist goes to the source that can find it; 0: to anybody. */
static inline uint64_t job_orphan_source(const struct job_live *live)
{
	return live->flags & JOB_INTENT ? live->source : 0;
}
static inline void job_key_orphan(struct key *key, uint32_t gateway, uint64_t queue, uint64_t source,
				  uint64_t job)
{
	key_owned(key, gateway, 0, source != 0 ? OWNED_SOURCE_ORPHAN : OWNED_ORPHAN, queue);
	if (source != 0)
		key_u64(key, source);
	key_u64(key, job);
}

/* ---- job_history_pack.c ---- */
/* The row as protobuf; buf has room for job_history_pack_max() bytes. Returns the bytes written. Pure. */
enum { JOB_HISTORY_FIXED_MAX = 19 * (2 + 10) };
size_t job_history_pack_max(const Sluice__JobHistoryRow *row);
size_t job_history_pack(uint8_t *buf, const Sluice__JobHistoryRow *row);

/* ---- job_history.c ---- */
/* Appends a row and links it; from is "" where no state changed. */
int job_history_append(struct apply *a, struct job *job, const char *from,
		       const struct job_fact *fact) SLUICE_MUST_USE;
struct job_history_row {
	uint64_t job;
	uint64_t previous;	 /* n of the job's row before; 0: none */
	struct sluice_slice row; /* protobuf JobHistoryRow */
};
int job_history_get(struct store_txn *txn, uint32_t gateway, uint64_t n,
		    struct job_history_row *ret) SLUICE_MUST_USE;
/* Of all jobs: the last row that is not behind *io_n, which becomes its number, also of a damaged one (CORRUPT; 0 if
 * it is no row that is damaged). NOT_FOUND: there is none. */
int job_history_at_or_before(struct store_txn *txn, uint32_t gateway, uint64_t *io_n,
			     struct job_history_row *ret) SLUICE_MUST_USE;
/* Of a row, without parsing all of it; 0: not in it. */
struct job_history_brief {
	uint64_t time_ms, started_time_ms, memory_peak_bytes;
};
int job_history_brief(struct store_txn *txn, uint32_t gateway, uint64_t n,
		      struct job_history_brief *ret) SLUICE_MUST_USE;
/* Owned, parsed row; NULL in *ret for n = 0. */
int job_history_load(struct store_txn *txn, uint32_t gateway, uint64_t n,
		     Sluice__JobHistoryRow **ret) SLUICE_MUST_USE;

/* ---- job_event.c ---- */
int job_event_publish(struct apply *a, const struct job *job, const char *from,
		      const struct job_fact *fact) SLUICE_MUST_USE;

/* ---- job_claim.c ---- */
/* Records the fact and puts the job back in its queue, at once or after a delay. */
int job_give_back(struct apply *a, struct job *job, uint32_t delay_ms,
		  const struct job_fact *fact) SLUICE_MUST_USE;

/* ---- job_report.c ---- */
/* A report on a job that was found and whose texts were checked. Changes *job without storing it: store it
 * when the outcome is APPLIED. */
int job_report_on(struct apply *a, struct job *job, const Sluice__JobReport *m,
		  struct outcome *out) SLUICE_MUST_USE;

/* ---- quarantine.c ---- */
int quarantine_put(struct apply *a, const Sluice__JobReport *m, const char *reason) SLUICE_MUST_USE;
/* Whether this report is in quarantine already, among the newest of its job: its retry. Then buf
 * gets why. */
int quarantine_find(struct apply *a, const Sluice__JobReport *m, char buf[JOB_REASON_BYTES],
		    bool *ret) SLUICE_MUST_USE;
/* The job of this id is forgotten: what is in quarantine of it is no later job's. */
int quarantine_forget(struct apply *a, const char *id) SLUICE_MUST_USE;
/* Keeps a report until its job is submitted; once, however often it is sent. */
int quarantine_park(struct apply *a, const Sluice__JobReport *m) SLUICE_MUST_USE;
/* Whether reports of the job still wait to be applied. */
int quarantine_waits(struct apply *a, const char *id, bool *ret) SLUICE_MUST_USE;
/* Applies what was parked for a job that was just submitted, in order of arrival, and removes
 * it: at once if it is little, else by TICK. */
int quarantine_unpark(struct apply *a, struct job *job) SLUICE_MUST_USE;
int quarantine_list(struct query *q, const Sluice__QuarantineList *m) SLUICE_MUST_USE;

/* ---- job_retention.c ---- */
int job_retention_arm(struct apply *a, const struct job *job) SLUICE_MUST_USE;

/* ---- job_query.c, job_explain.c, audit.c ---- */
int job_info_make(struct query *q, uint64_t number, bool payload, Sluice__JobInfo **ret) SLUICE_MUST_USE;
int job_explain(struct query *q, const Sluice__JobExplain *m) SLUICE_MUST_USE;
int audit_query(struct query *q, const Sluice__Audit *m) SLUICE_MUST_USE;
/* How long, for people. Returns buf. */
enum { AGE_BYTES = 32 };
const char *job_age(char buf[AGE_BYTES], uint64_t ms);
/* Number of a job; a missing one is refused in the reply (then *ret is 0). */
int job_query_find(struct query *q, const char *id, uint64_t *ret) SLUICE_MUST_USE;

#endif
