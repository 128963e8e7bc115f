/* SPDX-License-Identifier: Apache-2.0
 * Selects the ready entries of a claim: exceptions first, since they are older, then from head
 * on. */
#include "broker/core/queue/pick.h"
#include "protocol/limits.h"

enum {
	DROP_PURGED_MAX = 256,
	STEP_OVER_MAX = 256 /* delayed items in place */
};

bool picked_progressed(const struct picked *picked, uint32_t taken)
{
	return taken + picked->set_aside + picked->dropped + picked->stepped > 0;
}

void picked_clear(struct picked *picked)
{
	picked->count = picked->set_aside = picked->dropped = picked->stepped = 0;
	picked->bytes = 0;
}

static bool window_has(const struct picked *picked, uint64_t seq)
{
	if (picked->count == 0)
		return true;
	return seq >= picked->seq[0] && seq - picked->seq[0] < LIMIT_GRANT_ITEMS_MAX;
}

static bool bytes_fit(const struct picked *picked, uint64_t body_bytes)
{
	return picked->count == 0 ||
	       picked->bytes + body_bytes + DELIVER_ITEM_PREFIX_BYTES <= CLAIM_BYTES_MAX;
}

static void pick(struct picked *picked, uint64_t seq, uint64_t body_bytes)
{
	picked->seq[picked->count++] = seq;
	picked->bytes += body_bytes + DELIVER_ITEM_PREFIX_BYTES;
}

int claim_report_damaged_grant(struct apply *a, uint64_t queue, uint64_t seq, uint64_t token)
{
	struct effect effect = {.kind = FX_ITEM_DAMAGED,
				.command = a->position,
				.gateway = a->gateway,
				.id = queue,
				.session = a->session,
				.seq = seq,
				.token = token};
	const char *text = store_last_error();
	size_t len = strlen(text);
	void *copy = effects_alloc(a->effects, len + 1);

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	effect.name = (struct sluice_slice){memcpy(copy, text, len + 1), len};
	return effects_add(a->effects, &effect);
}

int claim_report_damaged(struct apply *a, uint64_t queue, uint64_t seq)
{
	return claim_report_damaged_grant(a, queue, seq, 0);
}

/* Never more than the count of ready entries, which must not fall below 0. */
static bool wants_more(const struct picked *picked, const struct queue_cell *cell, uint32_t max)
{
	return picked->count < max && picked->count < cell->ready &&
	       picked->set_aside < SET_ASIDE_MAX;
}

/* A damaged item must not block the following ones. Items picked before it are delivered first;
 * once it is the first, it is skipped: it stays in the store, no longer ready and never granted,
 * and is reported to the consumer. Delayed items are stored elsewhere, except in a store of an
 * older version: so an item in order may not have been counted as ready (ready_bound). In a queue
 * of jobs it counts as delayed from now on, since its job is open, until the job leaves the queue
 * (queue_job_remove). */
static int set_aside(struct apply *a, uint64_t queue, struct queue_cell *cell, uint64_t seq,
		     bool exception, struct picked *picked)
{
	bool jobs = cell->kind == SLUICE__QUEUE_KIND__QUEUE_JOBS;
	bool counted =
		exception || ((jobs || cell->delayed == 0) && cell->ready > cell->exceptions);

	if (cell->ready == 0)
		return store_damaged("its content is not valid");
	picked->set_aside++;
	cell->ready -= counted;
	cell->delayed += jobs;
	return claim_report_damaged(a, queue, seq);
}

/* No more entries can be ready than places are left. At the end of the entries in order the count
 * is exact again. */
static void ready_bound(struct queue_cell *cell, const struct picked *picked)
{
	uint64_t most = cell->exceptions + picked->count + (cell->tail - cell->head);

	if (cell->ready > most)
		cell->ready = most;
}

/* Takes exceptions in order. Purged entries on the way are dropped, a bounded number of them. */
int pick_exceptions(struct apply *a, uint64_t queue, struct queue_cell *cell, uint32_t max,
		    struct picked *picked)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_item item;
	struct ready_key ready;
	struct key key;
	uint32_t generation;
	uint64_t seq;
	int rc;

	if (cell->exceptions == 0)
		return 0;
	key_one(&key, a->gateway, queue);
	rc = store_scan_begin(a->txn, STORE_READY, key_slice(&key), &scan);
	while (rc == 0 && wants_more(picked, cell, max) && picked->dropped < DROP_PURGED_MAX) {
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 || !key_ready_decode(found, &ready) || ready.gateway != a->gateway ||
		    ready.queue != queue)
			break;
		seq = ready.seq;
		if (!ready_decode(value, &generation)) {
			rc = store_damaged("its content is not valid");
		} else if (generation != cell->purge_generation) {
			rc = queue_item_drop(a, queue, cell, seq);
			if (rc == 0)
				rc = store_scan_del(scan);
			picked->dropped++;
		} else {
			rc = queue_item_get(a->txn, a->gateway, queue, seq, &item);
			if (rc == SLUICE_E_CORRUPT && picked->count > 0) {
				rc = 0;
				break;
			}
			if (rc == SLUICE_E_CORRUPT) {
				rc = set_aside(a, queue, cell, seq, true, picked);
			} else if (rc != 0 || !window_has(picked, seq) ||
				   !bytes_fit(picked, item.body.len)) {
				break;
			} else {
				pick(picked, seq, item.body.len);
			}
			if (rc != 0)
				break;
			cell->exceptions--;
			rc = store_scan_del(scan);
		}
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int pick_in_order(struct apply *a, uint64_t queue, struct queue_cell *cell, uint32_t max,
		  struct picked *picked)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_item item;
	struct key key;
	int rc;

	if (cell->head == cell->tail || cell->ready == 0)
		return 0;
	key_two(&key, a->gateway, queue, cell->head);
	rc = store_scan_begin(a->txn, STORE_ITEM, key_slice(&key), &scan);
	while (rc == 0 && wants_more(picked, cell, max) && picked->stepped < STEP_OVER_MAX) {
		uint64_t seq;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc == SLUICE_E_NOT_FOUND) {
			cell->head = cell->tail;
			break;
		}
		/* A damaged record has a key; without one a page of the table is damaged, and the
		 * walk cannot continue. */
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		if (!key_two_in(found, a->gateway, queue, &seq) || seq >= QUEUE_DELAYED) {
			cell->head = cell->tail;
			break;
		}
		if (rc == 0)
			rc = queue_item_decode(value, &item);
		if (rc == SLUICE_E_CORRUPT && picked->count > 0) {
			rc = 0;
			break;
		}
		if (rc == SLUICE_E_CORRUPT) {
			rc = set_aside(a, queue, cell, seq, false, picked);
			if (rc != 0)
				break;
		} else if (!(item.flags & ITEM_DELAYED)) {
			if (!window_has(picked, seq) || !bytes_fit(picked, item.body.len))
				break;
			pick(picked, seq, item.body.len);
		} else {
			picked->stepped++; /* its timer makes it an exception */
		}
		cell->head = seq + 1;
	}
	if (scan != NULL)
		store_scan_end(scan);
	ready_bound(cell, picked);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}
