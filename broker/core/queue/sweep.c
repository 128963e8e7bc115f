/* SPDX-License-Identifier: Apache-2.0
 * The slow part of purge and delete: bounded work per TICK. Claims never see marked records
 * meanwhile. A damaged record is deleted like any other: that is how an administrator removes
 * it. */
#include "broker/core/queue/queue.h"
#include "broker/core/session/session.h"

enum { READS_PER_WORK = 16 };

/* The next record of the queue, also a damaged one; NOT_FOUND after the last. */
static int next_of_queue(struct store_scan *scan, uint32_t gateway, uint64_t queue,
			 struct sluice_slice *ret_key, struct sluice_slice *ret_value,
			 bool *ret_damaged)
{
	struct sluice_slice key = {NULL, 0};
	int rc = store_scan_next(scan, &key, ret_value);

	*ret_key = key;
	*ret_damaged = rc == SLUICE_E_CORRUPT && key.len > 0;
	if (rc != 0 && !*ret_damaged)
		return rc;
	return key_is_under(key, gateway, queue) ? 0 : SLUICE_E_NOT_FOUND;
}

/* Deletes records of a table whose key starts with (gateway, queue). Returns 1 when none is left, 0
 * when the work is spent. */
static int drop_table(struct apply *a, enum store_table table, uint64_t queue, uint32_t *io_work)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_grant grant;
	struct key key;
	int rc;

	key_one(&key, a->gateway, queue);
	rc = store_scan_begin(a->txn, table, key_slice(&key), &scan);
	while (rc == 0 && *io_work > 0) {
		uint64_t token;
		bool damaged;

		rc = next_of_queue(scan, a->gateway, queue, &found, &value, &damaged);
		if (rc != 0)
			break;
		if (table == STORE_GRANT && !damaged &&
		    key_two_in(found, a->gateway, queue, &token)) {
			if (grant_decode(value, &grant) == 0 && grant.kind == GRANT_SESSION)
				rc = session_disown(a, grant.session, OWNED_GRANT, token);
			if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
				break;
		}
		rc = store_scan_del(scan);
		(*io_work)--;
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 1 : rc;
}

static int sweep_deleted(struct apply *a, uint64_t queue, uint32_t *io_work, bool *ret_done)
{
	static const enum store_table tables[] = {STORE_READY, STORE_GRANT, STORE_ITEM};
	struct key key;

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		int rc = drop_table(a, tables[i], queue, io_work);

		if (rc < 0)
			return rc;
		if (rc == 0)
			return 0;
	}
	*ret_done = true;
	key_hot(&key, a->gateway, HOT_QUEUE, queue);
	return store_del(a->txn, STORE_HOT, key_slice(&key));
}

/* Purged exceptions: entries of an older generation, with their items. Returns 1 when all were
 * checked. */
static int sweep_purged_exceptions(struct apply *a, uint64_t queue, struct queue_cell *cell,
				   uint32_t *io_work)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct ready_key ready;
	uint32_t generation;
	struct key key;
	int rc;

	key_ready(&key, a->gateway, queue, (uint8_t)(255 - (cell->sweep_from >> 48 & 0xff)), 0,
		  cell->sweep_from & 0xffffffffffff);
	rc = store_scan_begin(a->txn, STORE_READY, key_slice(&key), &scan);
	while (rc == 0 && *io_work > 0) {
		rc = store_scan_next(scan, &found, &value);
		if (rc == 0 && !key_is_under(found, a->gateway, queue))
			rc = SLUICE_E_NOT_FOUND;
		if (rc != 0)
			break;
		(*io_work)--;
		if (!ready_decode(value, &generation) || !key_ready_decode(found, &ready)) {
			rc = store_damaged("its content is not valid");
			break;
		}
		/* The next TICK continues after it: puts since the purge may be more than one TICK
		 * can check. */
		cell->sweep_from = QUEUE_SWEEP_EXCEPTIONS | (uint64_t)(255 - ready.priority) << 48 |
				   (ready.seq + 1);
		if (generation == cell->purge_generation)
			continue;
		rc = queue_item_drop(a, queue, cell, ready.seq);
		if (rc == 0)
			rc = store_scan_del(scan);
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 1 : rc;
}

/* Items that were ready in order at the purge: in [sweep_from, sweep_to), never granted; delayed
 * ones stay. */
static int sweep_purged_items(struct apply *a, uint64_t queue, struct queue_cell *cell,
			      uint32_t *io_work)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_item item;
	struct key key;
	int rc;

	key_two(&key, a->gateway, queue, cell->sweep_from);
	rc = store_scan_begin(a->txn, STORE_ITEM, key_slice(&key), &scan);
	while (rc == 0 && *io_work > 0) {
		uint64_t seq = 0;
		bool damaged;

		rc = next_of_queue(scan, a->gateway, queue, &found, &value, &damaged);
		if (rc == 0 && !key_two_in(found, a->gateway, queue, &seq))
			rc = store_damaged("its content is not valid");
		else if (rc == 0 && seq >= cell->sweep_to)
			rc = SLUICE_E_NOT_FOUND;
		if (rc != 0)
			break;
		damaged = damaged || queue_item_decode(value, &item) != 0;
		(*io_work)--;
		cell->sweep_from = seq + 1;
		if (!damaged && item.flags & (ITEM_DELAYED | ITEM_OVERTAKEN))
			continue;
		if (!damaged)
			cell->bytes -= queue_item_bytes(&item);
		rc = store_scan_del(scan);
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 1 : rc;
}

/* Whether a claim may still come to the item by its entry in `ready`. Its priority is unknown. */
static int is_exception(struct apply *a, uint64_t queue, const struct queue_cell *cell,
			uint64_t seq, uint32_t *io_work, bool *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc = SLUICE_E_NOT_FOUND;

	*ret = false;
	if (cell->exceptions == 0)
		return 0;
	for (unsigned priority = 0; priority <= (cell->priority ? UINT8_MAX : 0); priority++) {
		key_ready(&key, a->gateway, queue, (uint8_t)priority, 0, seq);
		rc = store_get(a->txn, STORE_READY, key_slice(&key), &value);
		if (rc != SLUICE_E_NOT_FOUND)
			break;
		if (priority % READS_PER_WORK == 0 && *io_work > 0)
			(*io_work)--;
	}
	*ret = rc == 0 || rc == SLUICE_E_CORRUPT;
	return *ret || rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* Damaged items that were in the queue at the purge and that claims skipped, or whose lease or
 * delay cannot end any more as it should: no one else deletes them. A lease of one finds it
 * missing, which is like damaged; the timer of a delayed one corrects its count. Returns 1 at the
 * end of the half. */
static int sweep_damaged_half(struct apply *a, uint64_t queue, struct queue_cell *cell,
			      uint32_t *io_work)
{
	const uint64_t half = cell->sweep_from & QUEUE_SWEEP_DELAYED ? QUEUE_DELAYED : 0;
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_item item;
	struct key key;
	int rc;

	key_two(&key, a->gateway, queue, half | (cell->sweep_from & (QUEUE_SWEEP_DELAYED - 1)));
	rc = store_scan_begin(a->txn, STORE_ITEM, key_slice(&key), &scan);
	while (rc == 0 && *io_work > 0) {
		uint64_t place = 0;
		bool damaged, exception = false;

		rc = next_of_queue(scan, a->gateway, queue, &found, &value, &damaged);
		if (rc == 0 && !key_two_in(found, a->gateway, queue, &place))
			rc = store_damaged("its content is not valid");
		else if (rc == 0 && ((place & QUEUE_DELAYED) != half ||
				     (place & ~QUEUE_DELAYED) >= cell->sweep_to))
			rc = SLUICE_E_NOT_FOUND;
		if (rc != 0)
			break;
		(*io_work)--;
		cell->sweep_from = QUEUE_SWEEP_EXCEPTIONS | QUEUE_SWEEP_DAMAGED |
				   (half != 0 ? QUEUE_SWEEP_DELAYED : 0) |
				   ((place & ~QUEUE_DELAYED) + 1);
		if (!damaged && queue_item_decode(value, &item) == 0)
			continue;
		if (half == 0)
			rc = is_exception(a, queue, cell, place, io_work, &exception);
		if (rc == 0 && !exception)
			rc = store_scan_del(scan);
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 1 : rc;
}

static int sweep_damaged(struct apply *a, uint64_t queue, struct queue_cell *cell,
			 uint32_t *io_work)
{
	int rc = 1;

	if (!(cell->sweep_from & QUEUE_SWEEP_DELAYED))
		rc = sweep_damaged_half(a, queue, cell, io_work);
	if (rc != 1)
		return rc;
	if (!(cell->sweep_from & QUEUE_SWEEP_DELAYED))
		cell->sweep_from =
			QUEUE_SWEEP_EXCEPTIONS | QUEUE_SWEEP_DAMAGED | QUEUE_SWEEP_DELAYED;
	return sweep_damaged_half(a, queue, cell, io_work);
}

int queue_sweep(struct apply *a, uint64_t queue, uint32_t *io_work, bool *ret_done)
{
	struct queue_cell cell;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	*ret_done = rc == SLUICE_E_NOT_FOUND;
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	if (cell.deleted)
		return sweep_deleted(a, queue, io_work, ret_done);
	rc = 1;
	if (!cell.priority && !(cell.sweep_from & QUEUE_SWEEP_EXCEPTIONS))
		rc = sweep_purged_items(a, queue, &cell, io_work);
	if (rc == 1 && !(cell.sweep_from & QUEUE_SWEEP_EXCEPTIONS))
		cell.sweep_from = QUEUE_SWEEP_EXCEPTIONS;
	if (rc == 1 && !(cell.sweep_from & QUEUE_SWEEP_DAMAGED))
		rc = sweep_purged_exceptions(a, queue, &cell, io_work);
	if (rc == 1 && !(cell.sweep_from & QUEUE_SWEEP_DAMAGED))
		cell.sweep_from = QUEUE_SWEEP_EXCEPTIONS | QUEUE_SWEEP_DAMAGED;
	if (rc == 1)
		rc = sweep_damaged(a, queue, &cell, io_work);
	if (rc < 0)
		return rc;
	*ret_done = rc == 1;
	if (*ret_done)
		cell.sweep_from = cell.sweep_to;
	return queue_cell_put(a, queue, &cell);
}
