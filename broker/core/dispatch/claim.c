/* SPDX-License-Identifier: Apache-2.0
 *
 * CLAIM: up to max ready items or jobs become leases of one session.
 *
 * For the engine a claim that grants fewer than max has left nothing that this consumer could have.
 * So a claim that stops for another reason (a window, bytes, damage) has to announce what is left:
 * entries, and orphans if the consumer accepts them.
 */
#include "broker/core/job/job.h"
#include "broker/core/queue/pick.h"
#include "broker/core/queue/queue.h"
#include "broker/core/session/session.h"
#include "broker/core/stream/stream.h"
#include "protocol/limits.h"

/* Entries that were not redelivered until here are not held any more: the client learns which it
 * lost while it was disconnected. */
static int resumed_effect(struct apply *a, uint64_t queue)
{
	struct effect effect = {.kind = FX_RESUMED,
				.command = a->position,
				.gateway = a->gateway,
				.id = queue,
				.session = a->session};

	return effects_add(a->effects, &effect);
}

static int claim_run(struct apply *a, struct queue_cell *cell, const struct cmd_claim *m,
		     uint32_t max, struct outcome *out)
{
	int rc;

	out->kind = OUT_CLAIMED;
	if (cell->kind == SLUICE__QUEUE_KIND__QUEUE_JOBS)
		rc = claim_jobs(a, m, max, out);
	else
		rc = m->flags & CLAIM_RESUME ? claim_resume(a, m, out)
					     : claim_items(a, cell, m, out);
	return rc == 0 && m->flags & CLAIM_RESUME && out->id == 0 ? resumed_effect(a, m->queue)
								  : rc;
}

/* As claim_run. When it meets a damaged record, the claim is undone, *ret_undone is set, and
 * CORRUPT is returned. After a write that met damage the transaction is half-done and cannot be
 * rolled back: CORRUPT then is the batch's. */
static int claim_try(struct apply *a, const struct queue_cell *cell, const struct cmd_claim *m,
		     uint32_t max, struct outcome *out, bool *ret_undone)
{
	const struct outcome before = *out;
	struct queue_cell copy = *cell;
	size_t mark = effects_mark(a->effects);
	int rc = store_savepoint(a->txn), undo_rc;

	*ret_undone = false;
	if (rc != 0)
		return rc;
	rc = claim_run(a, &copy, m, max, out);
	if (rc == 0)
		store_release(a->txn);
	if (rc != SLUICE_E_CORRUPT)
		return rc;
	*out = before;
	pending_drop(a->core);
	effects_rewind(a->effects, mark);
	undo_rc = store_rollback(a->txn);
	*ret_undone = undo_rc == 0;
	return undo_rc != 0 ? undo_rc : rc;
}

/* Halves the claim until the damaged job is first in the queue, then skips it and continues with
 * the jobs after it. */
static int claim_jobs_around(struct apply *a, const struct queue_cell *cell,
			     const struct cmd_claim *m, struct outcome *out, bool *ret_undone)
{
	bool skipped = true;
	int rc = 0;

	for (uint32_t aside = 0; skipped; aside++) {
		uint32_t max = claim_max(m);

		while ((rc = claim_try(a, cell, m, max, out, ret_undone)) == SLUICE_E_CORRUPT &&
		       *ret_undone && max > 1)
			max /= 2;
		if (rc != SLUICE_E_CORRUPT || !*ret_undone || m->flags & CLAIM_RESUME)
			return rc;
		if (aside == SET_ASIDE_MAX) {
			out->kind = OUT_CLAIMED;
			/* the claim made progress; the next one continues */
			return claim_jobs_announce(a, m);
		}
		rc = claim_jobs_skip(a, m, &skipped);
		if (rc != 0)
			return rc;
	}
	return SLUICE_E_CORRUPT;
}

static int refuse_damaged(struct outcome *out)
{
	return refuse(out, SLUICE_E_CORRUPT, "a stored record is damaged: %s", store_last_error());
}

int claim_apply(struct apply *a, const struct cmd_claim *m, struct outcome *out)
{
	struct queue_cell cell;
	bool undone;
	int rc = session_check(a, a->session, out);

	if (rc == 0 && refused(out))
		return 0;
	if (rc == 0)
		rc = queue_cell_get(a->txn, a->gateway, m->queue, &cell);
	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && cell.deleted))
		return refuse(out, SLUICE_E_NOT_FOUND, "the queue does not exist any more");
	if (rc != 0)
		return rc == SLUICE_E_CORRUPT ? refuse_damaged(out) : rc;
	if (m->lease_ms != 0 &&
	    (m->lease_ms < LIMIT_LEASE_MS_MIN || m->lease_ms > LIMIT_LEASE_MS_MAX))
		return refuse(out, SLUICE_E_LIMIT, "lease_ms is %u; expected 0 or %llu to %llu",
			      m->lease_ms, (unsigned long long)LIMIT_LEASE_MS_MIN,
			      (unsigned long long)LIMIT_LEASE_MS_MAX);
	rc = cell.kind == SLUICE__QUEUE_KIND__QUEUE_JOBS
		     ? claim_jobs_around(a, &cell, m, out, &undone)
		     : claim_try(a, &cell, m, claim_max(m), out, &undone);
	return rc == SLUICE_E_CORRUPT && undone ? refuse_damaged(out) : rc;
}
