/* SPDX-License-Identifier: Apache-2.0
 *
 * A ledger for tests: a world (core_world.h) with a queue of jobs, a stream of their events and a
 * session. Closing it proves what a world proves, over every job command of the test: canonical
 * encoding, and an equal database when batches are aborted and applied again, when the commands are
 * put into other batches, and on LMDB.
 *
 * Failures of the environment fail the test at once; refusals are outcomes. */
#ifndef SLUICE_TESTS_JOB_RIG_H
#define SLUICE_TESTS_JOB_RIG_H

#include "tests/unit/core_world.h"

#define RIG_QUEUE "work"
#define RIG_STREAM "jobs"

struct rig {
	struct world world;
	uint64_t queue;
	uint64_t session;		   /* the one that most calls act for */
	const Sluice__Reply *reply;	   /* of the last query; the world's */
	Sluice__JobDeliveries *deliveries; /* of the last claim; never NULL after one */
};

void rig_open(
	struct rig *rig); /* with queue "work" of jobs, stream "jobs" on job.>, and a session */
void rig_close(struct rig *rig); /* with the audit and the proofs */

/* One command in its own committed batch. */
struct outcome rig_apply(struct rig *rig, uint16_t type, uint64_t session, const void *body);
uint64_t rig_session(struct rig *rig);
void rig_session_end(struct rig *rig, uint64_t session);
/* Moves both clocks and ticks until nothing is due. */
void rig_advance(struct rig *rig, uint64_t ms);

struct outcome rig_submit(struct rig *rig, const char *id);
/* The command of rig_submit, to be altered; it points to id. */
Sluice__JobSubmit rig_submit_of(const char *id);
/* Claims up to max; flags: enum claim_flag. Returns how many; they are in rig->deliveries. */
size_t rig_claim(struct rig *rig, uint64_t session, uint32_t max, uint8_t flags);
/* The same for a source's number. */
size_t rig_claim_for(struct rig *rig, uint64_t session, uint32_t max, uint8_t flags,
		     uint64_t source);
struct outcome rig_intent(struct rig *rig, const char *id, uint64_t token, uint32_t attempt,
			  const char *tag);
struct outcome rig_report(struct rig *rig, const char *id, uint64_t token, uint32_t attempt,
			  const char *state);
/* A report about attempt 1 that names its source; it points to id and state. seen_ms: 0, it does
 * not say when the state was seen. */
void rig_report_fill(Sluice__JobReport *m, const char *id, const char *state, uint64_t seen_ms);
struct outcome rig_release(struct rig *rig, const char *id, uint64_t token, uint32_t delay_ms);
struct outcome rig_cancel(struct rig *rig, const char *id);
struct outcome rig_reset(struct rig *rig, const char *id, bool force);

/* Runs a read; the reply is in rig->reply. */
const Sluice__Reply *rig_query(struct rig *rig, const Sluice__Request *request);
const Sluice__JobInfo *rig_show(struct rig *rig,
				const char *id);     /* fails the test when there is no such job */
bool rig_missing(struct rig *rig, const char *id);   /* JOB_SHOW finds no such job */
size_t rig_history(struct rig *rig, const char *id); /* rows are in rig->reply->history */
size_t rig_quarantine(struct rig *rig, const char *id); /* rows are in rig->reply->quarantine */
/* Fails the test when the audit finds anything; the counts are in rig->reply->audited. */
void rig_audit(struct rig *rig);
/* The counts of the queue "work". */
const Sluice__QueueInfo *rig_queue_show(struct rig *rig);
size_t rig_effects(const struct rig *rig, enum effect_kind kind); /* of the last command */
uint64_t rig_events(struct rig *rig);				  /* events of the stream so far */

#endif
