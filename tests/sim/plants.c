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
#include "tests/sim/plants_internal.h"
#include "tests/sim/shadow.h"

enum plant planted;
static bool kill_planned;

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
