/* SPDX-License-Identifier: Apache-2.0
 *
 * Retention by events, bytes and age, and the sweep of deleted streams. An append trims part of the
 * excess (more than it added, so a log never outgrows its bounds); the timer does the rest, and
 * age.
 *
 * By events: exact, `first` moves by offset. By bytes: whole segments, but never the last one. By
 * age: whole segments; the age of a segment is the time since its append, which no publisher can
 * set.
 */
#include <stdio.h>

#include "broker/core/base/age.h"
#include "broker/core/base/name.h"
#include "broker/core/base/timer.h"
#include "broker/core/stream/stream.h"

enum { AGE_TIMER_MS_MIN = 100, LOG_KEY_BYTES = 20 };

/* The oldest segment of a log, below `limit`. NOT_FOUND when there is none. */
static int oldest(struct apply *a, uint64_t log, const struct log_cell *cell,
		  struct segment_info *ret)
{
	if (cell->base >= cell->next)
		return SLUICE_E_NOT_FOUND;
	return segment_find(a->txn, a->gateway, log, cell->base, ret);
}

static int segment_drop(struct apply *a, uint64_t log, struct log_cell *cell,
			const struct segment_info *info)
{
	struct key key;

	cell->bytes -= info->stored_bytes;
	cell->base = info->segment.last + 1;
	if (cell->first < cell->base)
		cell->first = cell->base;
	key_two(&key, a->gateway, log, info->segment.base);
	return store_del(a->txn, STORE_LOG, key_slice(&key));
}

static bool is_too_old(const struct apply *a, const struct log_cell *cell,
		       const struct segment_info *info)
{
	return cell->max_age_ms != 0 && age_doubt(a) == 0 &&
	       age_of(a, info->append_ms) >= cell->max_age_ms;
}

static int retention_arm(struct apply *a, uint64_t stream, struct log_cell *cell, uint64_t due)
{
	if (cell->timer_due != 0 && cell->timer_due <= due)
		return 0;
	cell->timer_due = due;
	return timer_set(a, due, TIMER_STREAM_RETENTION, stream, due);
}

/* When the oldest segment gets too old. */
static uint64_t too_old_due(const struct apply *a, const struct log_cell *cell,
			    const struct segment_info *info)
{
	uint64_t age = age_of(a, info->append_ms), doubt = age_doubt(a);
	uint64_t wait = cell->max_age_ms > age ? cell->max_age_ms - age : 0;

	if (doubt != 0 && wait < doubt - a->mono_ms)
		wait = doubt - a->mono_ms;
	if (wait < AGE_TIMER_MS_MIN)
		wait = AGE_TIMER_MS_MIN;
	return a->mono_ms > UINT64_MAX - wait ? UINT64_MAX : a->mono_ms + wait;
}

/* Drops segments beyond the bounds; *ret_rest: there are more. */
static int trim(struct apply *a, uint64_t stream, struct log_cell *cell, uint32_t *io_work,
		bool *ret_rest)
{
	struct segment_info info;
	bool is_first = true;
	int rc = 0;

	*ret_rest = false;
	if (cell->max_events != 0 && cell->next - cell->first > cell->max_events)
		cell->first = cell->next - cell->max_events;
	for (;;) {
		bool over = (cell->max_bytes != 0 && cell->bytes > cell->max_bytes) ||
			    cell->first > cell->base;

		/* With an age bound the oldest segment has to be checked, once per run, if no timer
		 * is set for it. */
		if (!over && (cell->max_age_ms == 0 ||
			      (is_first && cell->timer_due != 0 && cell->timer_due > a->mono_ms)))
			return 0;
		rc = oldest(a, stream, cell, &info);
		if (rc != 0)
			return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
		if (info.segment.last >= cell->first && !is_too_old(a, cell, &info) &&
		    (cell->max_bytes == 0 || cell->bytes <= cell->max_bytes ||
		     info.segment.last + 1 == cell->next))
			return cell->max_age_ms == 0 ? 0
						     : retention_arm(a, stream, cell,
								     too_old_due(a, cell, &info));
		if (*io_work == 0) {
			*ret_rest = true;
			return 0;
		}
		(*io_work)--;
		is_first = false;
		rc = segment_drop(a, stream, cell, &info);
		if (rc != 0)
			return rc;
	}
}

int retention_run(struct apply *a, uint64_t stream, struct log_cell *cell, uint32_t *io_work)
{
	struct effect effect = {.kind = FX_LOG_TRIMMED,
				.command = a->position,
				.gateway = a->gateway,
				.id = stream};
	uint64_t first = cell->first;
	bool rest;
	int rc;

	if (cell->max_events == 0 && cell->max_bytes == 0 && cell->max_age_ms == 0)
		return 0;
	rc = trim(a, stream, cell, io_work, &rest);
	if (rc == 0 && rest)
		rc = retention_arm(a, stream, cell, a->mono_ms);
	if (rc != 0 || cell->first == first)
		return rc;
	effect.offset = cell->first;
	return effects_add(a->effects, &effect);
}

int stream_retention_fire(struct apply *a, uint64_t stream, uint64_t due, uint32_t *io_work)
{
	struct log_cell cell;
	int rc = log_cell_get(a->txn, a->gateway, stream, &cell);

	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	/* Another timer replaced it, or the stream has no bounds any more. */
	if (rc != 0 || cell.deleted || cell.timer_due != due)
		return rc;
	cell.timer_due = 0;
	rc = retention_run(a, stream, &cell, io_work);
	return rc != 0 ? rc : log_cell_put(a, stream, &cell);
}

/* ---- deleted streams ---- */

/* Deletes the records of a table that start with a prefix. *ret_done false: the work is spent. */
static int drop_prefix(struct apply *a, enum store_table table, const struct key *prefix,
		       uint32_t *io_work, bool *ret_done)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	int rc = store_scan_begin(a->txn, table, key_slice(prefix), &scan);

	if (rc != 0)
		return rc;
	*ret_done = false;
	while (rc == 0 && *io_work > 0) {
		rc = store_scan_next(scan, &found, &value);
		if (rc == SLUICE_E_NOT_FOUND ||
		    (rc == 0 && (found.len < prefix->len ||
				 memcmp(found.data, prefix->bytes, prefix->len) != 0))) {
			*ret_done = true;
			rc = 0;
			break;
		}
		if (rc == 0)
			rc = store_scan_del(scan);
		(*io_work)--;
	}
	store_scan_end(scan);
	return rc;
}

int stream_sweep(struct apply *a, uint64_t stream, uint32_t *io_work, bool *ret_done)
{
	char name[CURSOR_NAME_BYTES_MAX];
	struct log_cell cell;
	struct key key;
	int rc = log_cell_get(a->txn, a->gateway, stream, &cell);

	*ret_done = rc == SLUICE_E_NOT_FOUND;
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	key_one(&key, a->gateway, stream);
	rc = drop_prefix(a, STORE_LOG, &key, io_work, ret_done);
	if (rc != 0 || !*ret_done)
		return rc;
	key_name(&key, a->gateway, NAME_CURSOR,
		 cursor_name_encode(name, stream, (struct sluice_slice){NULL, 0}));
	rc = drop_prefix(a, STORE_NAME, &key, io_work, ret_done);
	if (rc != 0 || !*ret_done)
		return rc;
	key_hot(&key, a->gateway, HOT_CURSOR, stream);
	rc = drop_prefix(a, STORE_HOT, &key, io_work, ret_done);
	if (rc != 0 || !*ret_done)
		return rc;
	key_hot(&key, a->gateway, HOT_LOG, stream);
	return store_del(a->txn, STORE_HOT, key_slice(&key));
}
