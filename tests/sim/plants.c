/* SPDX-License-Identifier: Apache-2.0
 * See plants.h. meson.build has the list of the functions that are wrapped here: WRAP() names each
 * of them again. */
#include "tests/sim/plants.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/base/apply.h"
#include "broker/core/base/keys.h"
#include "broker/core/base/name.h"
#include "broker/core/base/reply.h"
#include "broker/core/base/state.h"
#include "broker/core/job/job.h"
#include "broker/core/job/live.h"
#include "broker/core/job/source.h"
#include "broker/core/publish/producer.h"
#include "broker/core/queue/queue.h"
#include "broker/core/queue/record.h"
#include "broker/core/stream/segment.h"
#include "broker/core/stream/stream.h"
#include "broker/engine/engine_internal.h"
#include "broker/net/conn/answer.h"
#include "broker/net/conn/sub.h"
#include "tests/sim/shadow.h"

/* X(NAME, "name", "what it does") */
#define PLANTS(X)                                                                                  \
	X(NONE, "none", "the broker without a plant")                                              \
	X(LOST_ACK, "lost-ack", "every eighth ack is answered and not applied")                    \
	X(OPEN_FENCE, "open-fence",                                                                \
	  "an ack with an old token settles an item that another session holds")                   \
	X(NO_ATTEMPT, "no-attempt", "a failed attempt is not counted")                             \
	X(DUP_GRANT, "dup-grant", "a returned item stays ready when it is granted")                \
	X(LOST_NACK, "lost-nack", "every eighth returned item is not made ready")                  \
	X(LOST_WAKE, "lost-wake", "a returned item causes no claim")                               \
	X(NO_EXPIRY, "no-expiry", "leases do not end")                                             \
	X(EARLY_EXPIRY, "early-expiry", "leases end after half their time")                        \
	X(SHORT_BOOT, "short-boot", "leases are not extended at a start of the broker")            \
	X(HIDDEN_START, "hidden-start", "a start writes more than its commands say")               \
	X(LOST_RENEW, "lost-renew", "a renewal is answered and not applied")                       \
	X(SHARED_RENEW, "shared-renew", "a renewed item stays held under its old token, too")      \
	X(SHORT_RENEW, "short-renew", "a renewal gives half the lease that was asked for")         \
	X(UNBEGUN_RENEW, "unbegun-renew", "a renewed item is no longer begun")                     \
	X(SOFT_REJECT, "soft-reject", "a rejected item is returned as by a nack")                  \
	X(LOST_REJECT, "lost-reject", "every eighth rejected item is acked")                       \
	X(LOST_DEAD, "lost-dead", "dead letters are put into no queue")                            \
	X(IMMORTAL_LEASE, "immortal-lease", "items stay with a session that has ended")            \
	X(DOUBLE_PUBLISH, "double-publish", "the retry of a publish is stored again")              \
	X(OPEN_EPOCH, "open-epoch", "a publish with an old epoch is accepted")                     \
	X(LOST_EVENT, "lost-event", "every eighth change of a job leaves no event")                \
	X(FALSE_PURGE, "false-purge", "a purge is answered and not applied")                       \
	X(OLD_LEASE, "old-lease", "a redelivery does not restart the lease")                       \
	X(RETENTION, "retention", "a bounded stream keeps one event too few")                      \
	X(CURSOR_BACK, "cursor-back", "a cursor moves back without a request")                     \
	X(TORN_TXN, "torn-txn", "a refused transaction keeps its first operations")                \
	X(LOST_COMMIT, "lost-commit", "a kill loses the last commit")                              \
	X(FAILED_COMMIT, "failed-commit", "a failed commit is answered as a successful one")       \
	X(LOST_INTENT, "lost-intent", "an intent is answered and not recorded")                    \
	X(STALE_REPORT, "stale-report", "a report of an old attempt counts as one of the current") \
	X(OLD_TOKEN, "old-token", "a takeover gets the token of the lease before")                 \
	X(NO_FORGETTING, "no-forgetting", "finished jobs are never deleted")                       \
	X(DEAD_HOLDER, "dead-holder", "a job stays with a session that has ended")                 \
	X(SHARED_EMPTY, "shared-empty",                                                            \
	  "an idle consumer keeps orphans from consumers that accept them")                        \
	X(LOST_ANNOUNCE, "lost-announce", "the announcement of a batch's last claim is ignored")   \
	X(LOST_RESUME, "lost-resume", "a consumer that is resumed is not listed again")            \
	X(LOST_CANCEL, "lost-cancel", "a job's holder is not notified of its cancel")              \
	X(LATE_TIMER, "late-timer", "a due timer fires only with another command")                 \
	X(STRANGERS_ORPHAN, "strangers-orphan", "an orphan goes to a consumer of another source")  \
	X(IDLE_SOURCE, "idle-source", "an orphan of a source causes no claim")                     \
	X(OPEN_SOURCE, "open-source", "a source is taken over without a request")                  \
	X(LOST_ORPHAN, "lost-orphan", "a source does not count the orphans that wait for it")      \
	X(STUCK_DAMAGE, "stuck-damage", "a claim does not skip a damaged job")                     \
	X(BLIND_AUDIT, "blind-audit", "the audit reports nothing")                                 \
	X(LOST_GRANT, "lost-grant", "a lease whose entry is damaged stays with its ended session") \
	X(LOCAL_DAMAGE, "local-damage", "records are damaged in the broker's store only")          \
	X(UNCOUNTED_DAMAGE, "uncounted-damage", "the same, and the store counts no damage")        \
	X(MOVED_APPLIED, "moved-applied",                                                          \
	  "a command of a connection that lost its session is applied")                            \
	X(MOVED_CLOSES, "moved-closes", "a connection closes a session that it has lost")          \
	X(MOVED_FORGOTTEN, "moved-forgotten",                                                      \
	  "waiting commands of a connection that lost its session are applied when it closes")     \
	X(MOVED_UNSEEN, "moved-unseen",                                                            \
	  "commands of a connection that lost its session within one batch are applied")           \
	X(MOVED_CONSUMES, "moved-consumes",                                                        \
	  "items are granted to a connection that lost its session")                               \
	X(ATTACHED_ENDS, "attached-ends", "a session expires while it has a connection")           \
	X(EPHEMERAL_STAYS, "ephemeral-stays", "an ephemeral session survives a start")             \
	X(EPHEMERAL_LATE, "ephemeral-late", "ephemeral sessions end after a start served clients") \
	X(LOST_TOUCH, "lost-touch", "a sign of life is dropped")                                   \
	X(LONG_TOUCH, "long-touch",                                                                \
	  "a session lives longer than its timeout after a sign of life")                          \
	X(STANDING_ENDS, "standing-ends", "a standing session expires")                            \
	X(STOPPED_COUNTS, "stopped-counts",                                                        \
	  "sessions expire by time in which the process did not run")                              \
	X(LATE_REFUSAL, "late-refusal", "refusals before core are answered at the end of a batch") \
	X(LATE_FLUSH, "late-flush", "answers of reads are given when a round ends")                \
	X(LATE_NUMBER, "late-number", "a read counts a commit that began after its snapshot")      \
	X(EARLY_EVENT, "early-event",                                                              \
	  "a follower is given events before the answers of their commit")                         \
	X(EARLY_NUMBER, "early-number",                                                            \
	  "a read has the number of before, two commits came between it and its snapshot")         \
	X(WHOLE_CONTROL, "whole-control", "control fills a commit although data waits")            \
	X(STOPPED_DATA, "stopped-data", "data waits until no control does")                        \
	X(DATA_AHEAD, "data-ahead", "a commit executes data before control")                       \
	X(TURNED_LANE, "turned-lane", "two commands of a lane change their places")                \
	X(OPEN_END, "open-end", "a consumer that was told its end still claims")                   \
	X(LOST_END, "lost-end", "every eighth consumer is not told its end")                       \
	X(DOUBLE_END, "double-end", "every eighth consumer is told its end twice")
enum { LATE_MS = 50 };

enum plant {
#define PLANT_ENUM(NAME, name, text) NAME,
	PLANTS(PLANT_ENUM)
#undef PLANT_ENUM
		PLANT_COUNT
};

static enum plant planted;
static bool kill_planned;
static unsigned claims_max, claims; /* of the current batch */

const char *plants_name(int plant)
{
	static const char *const names[] = {
#define PLANT_NAME(NAME, name, text) name,
		PLANTS(PLANT_NAME)
#undef PLANT_NAME
	};

	return plant >= 0 && plant < PLANT_COUNT ? names[plant] : NULL;
}

const char *plants_text(int plant)
{
	static const char *const texts[] = {
#define PLANT_TEXT(NAME, name, text) text,
		PLANTS(PLANT_TEXT)
#undef PLANT_TEXT
	};

	return plant >= 0 && plant < PLANT_COUNT ? texts[plant] : NULL;
}

int plants_find(const char *name)
{
	for (int i = 0; i < PLANT_COUNT; i++) {
		if (strcmp(plants_name(i), name) == 0)
			return i;
	}
	return -1;
}

void plants_set(int plant)
{
	planted = (enum plant)plant;
	kill_planned = false;
}

bool plants_shadowed(int plant)
{
	return plant == HIDDEN_START || plants_one_sided(plant);
}

bool plants_one_sided(int plant)
{
	return plant == LOCAL_DAMAGE || plant == UNCOUNTED_DAMAGE;
}

void plants_kill_planned(bool planned)
{
	kill_planned = planned;
}

void plants_claims_max(unsigned max)
{
	claims_max = max;
	claims = 0;
}

static bool every_eighth(const struct apply *a)
{
	return a->index % 8 == 0;
}

/* ---- the queue ---- */

static struct {
	const struct apply *a;
	const struct cmd_ack *m;
	uint64_t token, session; /* token of the grant that the ack was applied to; 0: none */
} fence;

WRAP(int, ack_apply, struct apply *a, const struct cmd_ack *m, struct outcome *out)
{
	struct queue_grant grant;
	struct cmd_ack bent;
	int rc;

	if (planted == LOST_ACK && m->op == ACK_DONE && every_eighth(a) &&
	    grant_get(a->txn, a->gateway, m->queue, m->token, &grant) == 0 &&
	    grant.session == a->session && grant_has(&grant, frame_run_at(m->runs, 0).first)) {
		out->kind = OUT_ACKED;
		out->count = 1;
		return 0;
	}
	if (planted == LOST_RENEW && m->op == ACK_RENEW &&
	    grant_get(a->txn, a->gateway, m->queue, m->token, &grant) == 0 &&
	    grant.session == a->session && grant_has(&grant, frame_run_at(m->runs, 0).first)) {
		out->kind = OUT_ACKED;
		out->count = 1;
		return 0;
	}
	if ((planted == SOFT_REJECT || (planted == LOST_REJECT && every_eighth(a))) &&
	    m->op == ACK_REJECT) {
		bent = *m;
		bent.op = planted == SOFT_REJECT ? ACK_NACK : ACK_DONE;
		m = &bent;
	}
	fence.a = a, fence.m = m, fence.token = 0;
	rc = __real_ack_apply(a, m, out);
	fence.a = NULL, fence.token = 0;
	return rc;
}

WRAP(int, grant_get, struct store_txn *txn, uint32_t gateway, uint64_t queue, uint64_t token,
     struct queue_grant *ret)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct key key;
	uint64_t held;
	int rc = __real_grant_get(txn, gateway, queue, token, ret);

	if (planted != OPEN_FENCE || rc != SLUICE_E_NOT_FOUND || fence.a == NULL)
		return rc;
	key_one(&key, gateway, queue);
	rc = store_scan_begin(txn, STORE_GRANT, key_slice(&key), &scan);
	while (rc == 0 && (rc = store_scan_next(scan, &found, &value)) == 0 &&
	       key_two_in(found, gateway, queue, &held)) {
		if (grant_decode(value, ret) != 0 ||
		    !grant_has(ret, frame_run_at(fence.m->runs, 0).first))
			continue;
		fence.token = held;
		fence.session = ret->session;
		ret->session = fence.a->session;
		break;
	}
	if (scan != NULL)
		store_scan_end(scan);
	return fence.token != 0 ? 0 : SLUICE_E_NOT_FOUND;
}

WRAP(int, grant_store, struct apply *a, uint64_t queue, uint64_t token,
     const struct queue_grant *grant)
{
	struct queue_grant bent = *grant;

	if (planted == OLD_LEASE && fence.a == NULL && token != a->index)
		return 0;
	if (fence.a != NULL && fence.m->op == ACK_RENEW) {
		if (planted == SHARED_RENEW && token != a->index)
			return 0;
		if (planted == SHORT_RENEW && token == a->index)
			bent.deadline_ms -= bent.lease_ms / 2;
		if (planted == UNBEGUN_RENEW && token == a->index)
			memset(bent.begun, 0, sizeof(bent.begun));
	}
	if (planted == EARLY_EXPIRY && bent.kind == GRANT_TIMED && token == a->index)
		bent.deadline_ms -= bent.lease_ms / 2;
	if (planted == OPEN_FENCE && fence.token != 0) {
		token = fence.token;
		bent.session = fence.session;
	}
	return __real_grant_store(a, queue, token, &bent);
}

WRAP(int, queue_lease_arm, struct apply *a, uint64_t queue, struct queue_cell *cell,
     uint64_t deadline_ms)
{
	if (planted == EARLY_EXPIRY)
		deadline_ms -= (deadline_ms - a->mono_ms) / 2;
	return __real_queue_lease_arm(a, queue, cell, deadline_ms);
}

WRAP(int, queue_item_put, struct apply *a, uint64_t queue, uint64_t seq,
     const struct queue_item *item)
{
	struct queue_item bent = *item;

	if (planted == NO_ATTEMPT && bent.attempts > 0 && bent.last_reason.len > 0)
		bent.attempts--;
	return __real_queue_item_put(a, queue, seq, &bent);
}

WRAP(int, ready_put, struct apply *a, uint64_t queue, struct queue_cell *cell, uint8_t priority,
     uint64_t seq)
{
	if (planted == LOST_NACK && every_eighth(a))
		return 0;
	return __real_ready_put(a, queue, cell, priority, seq);
}

static const struct store_scan *ready_scan; /* open in a claim */

WRAP(int, store_scan_begin, struct store_txn *txn, enum store_table table, struct sluice_slice from,
     struct store_scan **ret)
{
	int rc = __real_store_scan_begin(txn, table, from, ret);

	if (rc == 0 && table == STORE_READY)
		ready_scan = *ret;
	else if (rc == 0 && ready_scan == *ret)
		ready_scan = NULL;
	return rc;
}

WRAP(int, store_scan_del, struct store_scan *scan)
{
	shadow_wrote('s', STORE_TABLE_COUNT, slice_text(""), slice_text(""));
	return planted == DUP_GRANT && scan == ready_scan ? 0 : __real_store_scan_del(scan);
}

WRAP(int, queue_ready_effect, struct apply *a, uint64_t queue)
{
	return planted == LOST_WAKE ? 0 : __real_queue_ready_effect(a, queue);
}

WRAP(int, queue_leases_fire, struct apply *a, uint64_t queue, uint64_t sub, uint32_t *io_work)
{
	return planted == NO_EXPIRY ? 0 : __real_queue_leases_fire(a, queue, sub, io_work);
}

WRAP(int, queue_boot, struct apply *a)
{
	struct apply own = *a;

	if (planted == HIDDEN_START && !shadow_replays())
		own.mono_ms++;
	return planted == SHORT_BOOT ? 0 : __real_queue_boot(&own);
}

WRAP(int, queue_put, struct apply *a, uint64_t queue, const struct queue_put_spec *spec,
     uint64_t *ret_seq)
{
	if (planted == LOST_DEAD && spec->dead_reason.len > 0) {
		*ret_seq = 0;
		return 0;
	}
	return __real_queue_put(a, queue, spec, ret_seq);
}

WRAP(int, queue_purge_apply, struct apply *a, const Sluice__QueuePurge *m, struct outcome *out)
{
	struct queue_ref queue;
	struct queue_cell cell;

	if (planted != FALSE_PURGE)
		return __real_queue_purge_apply(a, m, out);
	if (core_queue_find(a->txn, a->gateway, slice_text(m->name), &queue) == 0 &&
	    queue_cell_get(a->txn, a->gateway, queue.id, &cell) == 0)
		out->count = (uint32_t)cell.ready;
	return 0;
}

WRAP(int, queue_session_ended, struct apply *a, uint64_t session, uint64_t queue, uint64_t token,
     uint32_t *io_work, bool *ret_done)
{
	*ret_done = true;
	return planted == IMMORTAL_LEASE
		       ? 0
		       : __real_queue_session_ended(a, session, queue, token, io_work, ret_done);
}

/* ---- streams, transactions, commits ---- */

WRAP(int, producer_begin, struct apply *a, const struct producer_call *call, struct outcome *out)
{
	int rc = __real_producer_begin(a, call, out);

	for (uint32_t i = 1;
	     planted == OPEN_EPOCH && rc == 0 && out->code == SLUICE_E_PRODUCER_FENCED; i++) {
		struct producer_call bent = *call;

		bent.epoch += i;
		out->code = 0;
		rc = __real_producer_begin(a, &bent, out);
	}
	if (planted == DOUBLE_PUBLISH && rc == 0 && out->code == 0)
		out->duplicate = false;
	return rc;
}

WRAP(int, retention_run, struct apply *a, uint64_t stream, struct log_cell *cell, uint32_t *io_work)
{
	uint64_t max = cell->max_events;
	int rc;

	if (planted == RETENTION && max > 1)
		cell->max_events--;
	rc = __real_retention_run(a, stream, cell, io_work);
	cell->max_events = max;
	return rc;
}

WRAP(int, cursor_set_apply, struct apply *a, const Sluice__CursorSet *m, struct outcome *out)
{
	Sluice__CursorSet bent = *m;

	bent.back |= planted == CURSOR_BACK;
	return __real_cursor_set_apply(a, &bent, out);
}

WRAP(int, store_rollback, struct store_txn *txn)
{
	if (planted != TORN_TXN)
		return __real_store_rollback(txn);
	store_release(txn);
	return 0;
}

WRAP(int, store_commit, struct store_txn *txn)
{
	int rc;

	if (planted == LOST_COMMIT && kill_planned) {
		store_abort(txn);
		return 0;
	}
	rc = __real_store_commit(txn);
	if (rc == 0)
		shadow_committed();
	return planted == FAILED_COMMIT ? 0 : rc;
}

WRAP(int, store_put, struct store_txn *txn, enum store_table table, struct sluice_slice key,
     struct sluice_slice value)
{
	shadow_wrote('p', table, key, value);
	return __real_store_put(txn, table, key, value);
}

WRAP(int, store_putv, struct store_txn *txn, enum store_table table, struct sluice_slice key,
     const struct iovec *parts, int part_count)
{
	shadow_wrote('v', table, key, slice_text(""));
	for (int i = 0; i < part_count; i++)
		shadow_wrote('+', table, slice_text(""),
			     (struct sluice_slice){parts[i].iov_base, parts[i].iov_len});
	return __real_store_putv(txn, table, key, parts, part_count);
}

WRAP(int, store_del, struct store_txn *txn, enum store_table table, struct sluice_slice key)
{
	shadow_wrote('d', table, key, slice_text(""));
	return __real_store_del(txn, table, key);
}

WRAP(uint64_t, store_txn_damaged, const struct store_txn *txn)
{
	uint64_t damaged = planted == UNCOUNTED_DAMAGE ? 0 : __real_store_txn_damaged(txn);

	shadow_commits(damaged);
	return damaged;
}

/* ---- jobs ---- */

WRAP(int, job_event_publish, struct apply *a, const struct job *job, const char *from,
     const struct job_fact *fact)
{
	return planted == LOST_EVENT && every_eighth(a)
		       ? 0
		       : __real_job_event_publish(a, job, from, fact);
}

static bool in_intent;

WRAP(int, job_intent_apply, struct apply *a, const Sluice__JobIntent *m, struct outcome *out)
{
	int rc;

	in_intent = true;
	rc = __real_job_intent_apply(a, m, out);
	in_intent = false;
	return rc;
}

WRAP(int, job_store, struct apply *a, const struct job *job)
{
	struct job bent = *job;

	if (planted == LOST_INTENT && in_intent) {
		bent.live.flags &= (uint8_t)~JOB_INTENT;
		bent.live.hist_intent = 0;
	}
	return __real_job_store(a, &bent);
}

WRAP(int, job_report_apply, struct apply *a, const Sluice__JobReport *m, struct outcome *out)
{
	Sluice__JobReport bent = *m;
	struct job_live live;
	uint64_t number;

	if (planted == STALE_REPORT && m->attempt != 0 &&
	    name_find(a->txn, a->gateway, NAME_JOB, slice_text(m->job), &number) == 0 &&
	    job_live_get(a->txn, a->gateway, number, &live) == 0) {
		bent.attempt = live.attempt;
		bent.token = 0;
		bent.release = false;
	}
	return __real_job_report_apply(a, &bent, out);
}

WRAP(int, job_make_leased, struct apply *a, struct job *job, uint64_t source)
{
	uint64_t token = job->live.token;
	int rc = __real_job_make_leased(a, job, source);

	if (planted == OLD_TOKEN && token != 0)
		job->live.token = token;
	return rc;
}

WRAP(int, job_retention_fire, struct apply *a, uint64_t job, uint64_t sub, uint32_t *io_work)
{
	return planted == NO_FORGETTING ? 0 : __real_job_retention_fire(a, job, sub, io_work);
}

WRAP(int, job_session_ended, struct apply *a, uint64_t session, uint64_t queue, uint64_t job,
     uint32_t *io_work, bool *ret_done)
{
	return planted == DEAD_HOLDER
		       ? 0
		       : __real_job_session_ended(a, session, queue, job, io_work, ret_done);
}

/* ---- sources ---- */

WRAP(int, job_claim_orphans, struct apply *a, const struct cmd_claim *m, uint32_t max,
     struct job_deliveries *deliveries, uint32_t *ret_count, bool *ret_more)
{
	struct cmd_claim bent = *m;
	int rc = __real_job_claim_orphans(a, m, max, deliveries, ret_count, ret_more);

	for (bent.source = 1;
	     planted == STRANGERS_ORPHAN && rc == 0 && *ret_count == 0 && bent.source <= 2;
	     bent.source++)
		rc = __real_job_claim_orphans(a, &bent, max, deliveries, ret_count, ret_more);
	return rc;
}

WRAP(int, source_seen_apply, struct apply *a, const Sluice__SourceSeen *m, struct outcome *out)
{
	Sluice__SourceSeen bent = *m;

	bent.take |= planted == OPEN_SOURCE;
	return __real_source_seen_apply(a, &bent, out);
}

WRAP(int, source_orphans_add, struct apply *a, uint64_t number, int delta)
{
	return planted == LOST_ORPHAN ? 0 : __real_source_orphans_add(a, number, delta);
}

/* ---- damage ---- */

WRAP(int, job_report_if_damaged, struct apply *a, uint64_t queue, uint64_t job, bool *ret_damaged)
{
	*ret_damaged = false;
	return planted == STUCK_DAMAGE ? 0
				       : __real_job_report_if_damaged(a, queue, job, ret_damaged);
}

WRAP(int, audit_query, struct query *q, const Sluice__Audit *m)
{
	int rc = __real_audit_query(q, m);

	while (planted == BLIND_AUDIT && q->reply->audited != NULL &&
	       q->reply->audited->n_findings > 0)
		free(q->reply->audited->findings[--q->reply->audited->n_findings]);
	return rc;
}

WRAP(int, queue_of_grant, struct apply *a, uint64_t token, uint64_t *ret)
{
	return planted == LOST_GRANT ? SLUICE_E_NOT_FOUND : __real_queue_of_grant(a, token, ret);
}

/* ---- the order of answers ---- */

enum { LATE_MAX = 256 };
static struct effect late[LATE_MAX]; /* of the current batch */
static size_t late_count;
static bool adds_late;

WRAP(int, effects_add, struct effects *effects, const struct effect *effect)
{
	if (planted != LATE_REFUSAL || adds_late || effect->kind != FX_REPLY ||
	    effect->outcome->index != 0 || effect->outcome->code == 0 || late_count == LATE_MAX)
		return __real_effects_add(effects, effect);
	late[late_count++] = *effect;
	return 0;
}

WRAP(int, core_batch_end, struct core *core, struct store_txn *txn, struct effects *effects)
{
	int rc = __real_core_batch_end(core, txn, effects);

	adds_late = true;
	for (size_t i = 0; rc == 0 && i < late_count; i++)
		rc = __real_effects_add(effects, &late[i]);
	late_count = 0;
	return rc;
}

/* As if the thread had slept: a reader of LMDB takes its id, then the root. */
WRAP(int, engine_read_begin, struct engine *engine, struct store_txn **ret, uint64_t *ret_number)
{
	static unsigned count;
	int rc = __real_engine_read_begin(engine, ret, ret_number);

	/* Commands wait for the next commit, so there will be one. */
	if (planted == LATE_NUMBER && atomic_load(&engine->inbox.bytes) > engine->batch.bytes)
		++*ret_number;
	if (planted == EARLY_NUMBER && *ret_number >= 2 && ++count % 4 == 0)
		*ret_number -= 2;
	return rc;
}

WRAP(void, subs_log_grown, struct io *io, uint32_t gateway, uint64_t stream, uint64_t next_offset)
{
	__real_subs_log_grown(io, gateway, stream,
			      planted == EARLY_EVENT ? UINT64_MAX : next_offset);
}

WRAP(void, answers_flush, struct io *io)
{
	if (planted != LATE_FLUSH)
		__real_answers_flush(io);
}

void plants_round_end(struct io *io)
{
	__real_answers_flush(io);
}

/* ---- demand ---- */

WRAP(int, store_begin, struct store *store, struct store_txn **ret)
{
	claims = 0;
	late_count = 0;
	adds_late = false;
	return __real_store_begin(store, ret);
}

WRAP(void, demand_claimed, struct demand *demand, struct consumer *consumer,
     const struct cmd_claim *claim, const struct outcome *outcome)
{
	struct demand_class *class;

	claims++;
	if (planted == SHARED_EMPTY && !(claim->flags & CLAIM_RESUME) &&
	    outcome->count < claim->max) {
		for (class = consumer->queue->classes; class != NULL; class = class->next)
			class->orphans = false;
	}
	__real_demand_claimed(demand, consumer, claim, outcome);
}

WRAP(void, demand_queue_ready, struct demand *demand, uint32_t gateway, uint64_t queue, bool orphan,
     uint64_t source)
{
	if (planted == LOST_ANNOUNCE && claims_max != 0 && claims >= claims_max)
		return;
	if (planted == IDLE_SOURCE && orphan && source != 0)
		return;
	__real_demand_queue_ready(demand, gateway, queue, orphan, source);
}

WRAP(void, demand_pause, struct demand *demand, struct engine_sink *sink, uint64_t tag, bool paused)
{
	if (planted == LOST_RESUME && !paused)
		return;
	__real_demand_pause(demand, sink, tag, paused);
}

WRAP(void, demand_close, struct demand *demand, struct engine_sink *sink, uint64_t tag)
{
	if (planted != OPEN_END)
		__real_demand_close(demand, sink, tag);
}

WRAP(void, release_consumer_closed, struct engine_sink *sink, uint64_t tag)
{
	const bool eighth = tag % 8 == 0;

	if (planted != LOST_END || !eighth)
		__real_release_consumer_closed(sink, tag);
	if (planted == DOUBLE_END && eighth)
		__real_release_consumer_closed(sink, tag);
}

/* ---- lanes ---- */

WRAP(uint64_t, taken_control_max, const struct taken *taken, uint64_t bytes_max)
{
	return planted == WHOLE_CONTROL ? bytes_max : __real_taken_control_max(taken, bytes_max);
}

static void lane_append(struct lane *to, struct lane *from)
{
	struct submission *submission;

	while ((submission = lane_pop(from)) != NULL)
		lane_push(to, submission);
}

static void lanes_swap(struct taken *taken)
{
	struct lane control;

	lane_init(&control);
	lane_append(&control, &taken->control);
	lane_append(&taken->control, &taken->data);
	lane_append(&taken->data, &control);
}

static void lane_turn(struct lane *lane)
{
	struct submission *first = lane_pop(lane);

	if (first != NULL)
		lane_push(lane, first);
}
WRAP(void, inbox_take, struct inbox *inbox, struct taken *io_taken)
{
	__real_inbox_take(inbox, io_taken);
	if (planted == STOPPED_DATA && io_taken->control.head != NULL)
		lane_append(&inbox->data, &io_taken->data);
	if (planted == DATA_AHEAD)
		lanes_swap(io_taken);
	if (planted == TURNED_LANE)
		lane_turn(&io_taken->control);
}

/* ---- holders and timers ---- */

WRAP(int, job_notify_holder, struct apply *a, const struct job *job, enum effect_kind kind)
{
	return planted == LOST_CANCEL && kind == FX_JOB_CANCEL
		       ? 0
		       : __real_job_notify_holder(a, job, kind);
}

WRAP(int, core_next_deadline, struct core *core, struct store_txn *txn, uint64_t *ret_mono_ms)
{
	int rc = __real_core_next_deadline(core, txn, ret_mono_ms);

	if (planted == LATE_TIMER && rc == 0 && *ret_mono_ms != UINT64_MAX)
		*ret_mono_ms += LATE_MS;
	return rc;
}

/* ---- sessions ---- */

WRAP(bool, moved_refuses, const struct moved *moved, const struct submission *submission)
{
	if (planted == MOVED_APPLIED)
		return false;
	if (planted == MOVED_CLOSES && submission->command.type == COMMAND_SESSION_CLOSE)
		return false;
	return __real_moved_refuses(moved, submission);
}

WRAP(void, moved_count, struct moved *moved, const struct submission *submission)
{
	if (planted != MOVED_FORGOTTEN)
		__real_moved_count(moved, submission);
}

WRAP(void, moved_gone, struct moved *moved, struct engine_sink *sink, uint64_t conn,
     uint32_t gateway, uint64_t session)
{
	if (planted != MOVED_UNSEEN)
		__real_moved_gone(moved, sink, conn, gateway, session);
}

WRAP(bool, moved_has, const struct moved *moved, struct engine_sink *sink, uint64_t conn)
{
	return planted != MOVED_CONSUMES && __real_moved_has(moved, sink, conn);
}

enum { LONG_MS = 5000 };
static uint64_t round_ms; /* of the engine's last round, in the time of sessions */

WRAP(struct session_timer *, heartbeats_due, struct heartbeats *heartbeats, uint64_t now_ms)
{
	round_ms = now_ms;
	return __real_heartbeats_due(heartbeats, now_ms);
}

WRAP(bool, heartbeats_attach, struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
     struct engine_sink *sink, uint64_t tag, struct consumer_key *ret_lost)
{
	bool moved = __real_heartbeats_attach(heartbeats, gateway, session, sink, tag, ret_lost);

	if (planted == ATTACHED_ENDS)
		heartbeats_detach(heartbeats, gateway, session, sink, tag, 0, true, round_ms);
	return moved;
}

WRAP(void, heartbeats_touch, struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
     uint64_t at_ms)
{
	if (planted != LOST_TOUCH)
		__real_heartbeats_touch(heartbeats, gateway, session,
					at_ms + (planted == LONG_TOUCH ? LONG_MS : 0));
}

WRAP(int, heartbeats_add, struct heartbeats *heartbeats, const struct session_seen *seen,
     uint64_t now_ms)
{
	struct session_seen bent = *seen;

	bent.standing &= planted != STANDING_ENDS;
	bent.ends &= planted != EPHEMERAL_STAYS;
	return __real_heartbeats_add(heartbeats, &bent, now_ms);
}

WRAP(int, engine_end_ephemeral, struct engine *engine, struct batch_clock now)
{
	return planted == EPHEMERAL_LATE ? 0 : __real_engine_end_ephemeral(engine, now);
}

WRAP(uint64_t, run_clock_check, struct run_clock *clock, uint64_t now_ms)
{
	return planted == STOPPED_COUNTS ? 0 : __real_run_clock_check(clock, now_ms);
}
