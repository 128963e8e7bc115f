/* SPDX-License-Identifier: Apache-2.0
 *
 * CLAIM of jobs: jobs that the session already holds (a resume), orphans, ready jobs. The entry of
 * a ready job leaves the queue; lease.c keeps its lease. A damaged job is skipped once it is the
 * first.
 */
#include "broker/core/base/number.h"
#include "broker/core/job/job.h"
#include "broker/core/queue/pick.h"
#include "broker/core/queue/queue.h"
#include "broker/util/invariant.h"

/* Removes one picked entry from the queue and leases its job. */
static int claim_picked_job(struct apply *a, const struct cmd_claim *m, uint64_t seq,
			    struct job_deliveries *deliveries)
{
	struct queue_item item;
	uint64_t job = 0;
	int rc = queue_item_get(a->txn, a->gateway, m->queue, seq, &item);

	if (rc == 0 && !number_read(item.body, &job))
		rc = store_damaged("its content is not valid");
	if (rc != 0)
		return rc;
	rc = queue_item_del(a, m->queue, seq);
	return rc != 0 ? rc : job_claim_ready(a, job, m->source, deliveries);
}

/* The sizes of payloads are known only job by job: jobs that do not fit into this delivery return
 * to their places, as exceptions. */
static int return_picked(struct apply *a, uint64_t queue, struct queue_cell *cell,
			 const struct picked *picked, uint32_t from)
{
	struct queue_item item;
	int rc = 0;

	for (uint32_t i = from; rc == 0 && i < picked->count; i++) {
		rc = queue_item_get(a->txn, a->gateway, queue, picked->seq[i], &item);
		if (rc == 0)
			rc = ready_put(a, queue, cell, item.priority, picked->seq[i]);
	}
	return rc;
}

static int claim_ready_jobs(struct apply *a, const struct cmd_claim *m, uint32_t max,
			    struct job_deliveries *deliveries, uint32_t *io_count)
{
	struct queue_cell cell;
	struct picked picked;
	uint32_t taken = 0;
	int rc = queue_cell_get(a->txn, a->gateway, m->queue, &cell);

	if (rc != 0)
		return rc;
	/* orphans have filled the delivery */
	if (job_deliveries_full(deliveries))
		return cell.ready > 0 ? queue_ready_effect(a, m->queue) : 0;
	picked_clear(&picked);
	rc = pick_exceptions(a, m->queue, &cell, max, &picked);
	if (rc == 0 && picked.count == 0)
		rc = pick_in_order(a, m->queue, &cell, max, &picked);
	if (rc != 0)
		return rc;
	invariant(picked.count <= max && picked.count <= cell.ready,
		  "queue %llu: %u jobs were picked, at most %u were asked for, %llu are ready",
		  ULL(m->queue), picked.count, max, ULL(cell.ready));
	cell.ready -= picked.count;
	rc = queue_cell_put(a, m->queue, &cell); /* before the ledger changes the cell */
	for (; rc == 0 && taken < picked.count && !job_deliveries_full(deliveries); taken++)
		rc = claim_picked_job(a, m, picked.seq[taken], deliveries);
	if (rc == 0)
		rc = queue_cell_get(a->txn, a->gateway, m->queue, &cell);
	if (rc == 0)
		rc = return_picked(a, m->queue, &cell, &picked, taken);
	if (rc != 0)
		return rc;
	cell.ready += picked.count - taken;
	cell.bytes -= (uint64_t)taken * (QUEUE_ITEM_FIXED_BYTES + 8);
	rc = queue_cell_put(a, m->queue, &cell);
	*io_count += taken;
	if (rc == 0 && picked_progressed(&picked, taken) && cell.ready > 0)
		rc = queue_ready_effect(a, m->queue);
	return rc;
}

/* More may be left of all that the claim could take. */
int claim_jobs_announce(struct apply *a, const struct cmd_claim *m)
{
	int rc = queue_ready_effect(a, m->queue);

	return rc == 0 && (m->flags & CLAIM_ORPHANS) ? queue_orphan_effect(a, m->queue, m->source)
						     : rc;
}

/* Orphans first. Jobs that are left although fewer were granted than requested are announced: `max`
 * may be reduced because of damage. */
static int claim_orphans_and_ready(struct apply *a, const struct cmd_claim *m, uint32_t max,
				   struct job_deliveries *deliveries, uint32_t *io_taken)
{
	bool orphans_left = false;
	int rc = 0;

	if (m->flags & CLAIM_ORPHANS)
		rc = job_claim_orphans(a, m, max, deliveries, io_taken, &orphans_left);
	if (rc == 0 && *io_taken < max)
		rc = claim_ready_jobs(a, m, max - *io_taken, deliveries,
				      io_taken); /* announces the jobs that are left */
	else if (rc == 0 && max < claim_max(m))
		rc = queue_ready_effect(a, m->queue);
	if (rc != 0 || !orphans_left || *io_taken == claim_max(m))
		return rc;
	return queue_orphan_effect(a, m->queue, m->source);
}

int claim_jobs(struct apply *a, const struct cmd_claim *m, uint32_t max, struct outcome *out)
{
	struct job_deliveries *deliveries = NULL;
	uint32_t taken = 0;
	int rc = job_deliveries_begin(&deliveries), end;

	if (rc != 0)
		return rc;
	if (m->flags & CLAIM_RESUME)
		rc = job_redeliver(a, m, max, deliveries, &taken, &out->id);
	else
		rc = claim_orphans_and_ready(a, m, max, deliveries, &taken);
	end = job_deliveries_end(a, deliveries, m->queue);
	out->count = taken;
	return rc != 0 ? rc : end;
}

/* Sets the first ready entry aside when a record of its job is damaged: see set_aside. */
static int skip_ready(struct apply *a, uint64_t queue, bool *ret_skipped)
{
	struct queue_cell cell;
	struct picked picked;
	struct queue_item item;
	uint64_t job;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	picked_clear(&picked);
	if (rc == 0)
		rc = pick_exceptions(a, queue, &cell, 1, &picked);
	if (rc == 0 && picked.count == 0)
		rc = pick_in_order(a, queue, &cell, 1, &picked);
	if (rc != 0 || picked.count == 0)
		return rc;
	rc = queue_item_get(a->txn, a->gateway, queue, picked.seq[0], &item);
	if (rc != 0 || !number_read(item.body, &job))
		return rc;
	rc = job_report_if_damaged(a, queue, job, ret_skipped);
	if (rc != 0 || !*ret_skipped)
		return rc;
	cell.ready--;
	cell.delayed++;
	rc = queue_cell_put(a, queue, &cell);
	return rc == 0 && cell.ready > 0 ? queue_ready_effect(a, queue) : rc;
}

/* After a claim of one job met damage: skips the first job of the claim if it is the damaged
 * one. */
int claim_jobs_skip(struct apply *a, const struct cmd_claim *m, bool *ret_skipped)
{
	size_t mark = effects_mark(a->effects);
	int rc = store_savepoint(a->txn), undo_rc;

	*ret_skipped = false;
	if (rc != 0)
		return rc;
	if (m->flags & CLAIM_ORPHANS)
		rc = job_orphan_skip(a, m, ret_skipped);
	if (rc == 0 && !*ret_skipped)
		rc = skip_ready(a, m->queue, ret_skipped);
	if (rc == 0 && *ret_skipped) {
		store_release(a->txn);
		return 0;
	}
	*ret_skipped = false;
	effects_rewind(a->effects, mark);
	undo_rc = store_rollback(a->txn);
	return undo_rc != 0 ? undo_rc : rc == SLUICE_E_CORRUPT || rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}
