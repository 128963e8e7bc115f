/* SPDX-License-Identifier: Apache-2.0
 *
 * Reports that could not be applied: stale or illegal ones, kept for inspection, and those that
 * arrived before their job, which wait here for its submit ("parked").
 *
 * Value: u64 previous row of the same job and kind (0: none), u32 bytes of the row, protobuf
 * QuarantineRow, and for a parked one the protobuf JobReport. NAME_PARKED leads from a job id to
 * its newest parked row, NAME_QUARANTINED to the newest of the others (older versions did not chain
 * those). Bounded by QUARANTINE_ROWS_MAX rows per gateway: the oldest is dropped and counted, so a
 * chain may end at a missing row, but has no gaps. A removed job leaves its rows, but no name: a
 * later job with its id has another chain.
 *
 * A job has parked rows only while it does not exist, or while a timer (TIMER_UNPARK) applies them,
 * a bounded number at a time; until then its reports without a lease are parked behind them, which
 * keeps their order.
 */
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/reply.h"
#include "broker/core/base/text.h"
#include "broker/core/base/topo.h"
#include "broker/core/job/quarantine.h"
#include "broker/core/queue/pick.h"
#include "protocol/limits.h"

enum { STACK_BYTES = 4096, RETRIES_MAX = 64 };

void quarantine_head_encode(uint8_t head[QUARANTINE_HEAD_BYTES], uint64_t previous,
			    size_t row_bytes)
{
	put_be64(head, previous);
	put_be32(head + 8, (uint32_t)row_bytes);
}

int quarantine_value_decode(struct sluice_slice value, struct quarantine_value *ret)
{
	const uint8_t *at = value.data;
	size_t row;

	if (value.len < QUARANTINE_HEAD_BYTES)
		return store_damaged("its content is not valid");
	row = get_be32(at + 8);
	if (row > value.len - QUARANTINE_HEAD_BYTES)
		return store_damaged("its content is not valid");
	ret->previous = get_be64(at);
	ret->row = (struct sluice_slice){at + QUARANTINE_HEAD_BYTES, row};
	ret->report = (struct sluice_slice){at + QUARANTINE_HEAD_BYTES + row,
					    value.len - QUARANTINE_HEAD_BYTES - row};
	return 0;
}

static int row_parse(struct sluice_slice value, bool *ret_parked, Sluice__QuarantineRow **ret)
{
	struct quarantine_value parts;
	int rc = quarantine_value_decode(value, &parts);

	if (rc != 0)
		return rc;
	*ret_parked = parts.report.len > 0;
	*ret = record_unpack(&sluice__quarantine_row__descriptor, parts.row, &rc);
	return rc;
}

static enum name_kind chain_of(bool parked)
{
	return parked ? NAME_PARKED : NAME_QUARANTINED;
}

/* Consequences of a row's removal: counters, and the name of a chain whose newest row it was. */
int quarantine_row_gone(struct apply *a, uint64_t n, bool parked, const char *id)
{
	uint64_t newest;
	int rc = counter_add(a, COUNTER_QUAR_ROWS, -1);

	if (rc == 0 && parked)
		rc = counter_add(a, COUNTER_PARKED, -1);
	if (rc == 0)
		rc = name_find(a->txn, a->gateway, chain_of(parked), slice_text(id), &newest);
	if (rc == 0 && newest == n)
		rc = name_del(a, chain_of(parked), slice_text(id));
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* The scan's next row, and its number; *ret_row is NULL for a damaged row, which is logged: it does
 * not block the others. NOT_FOUND: the gateway has no more. */
int quarantine_scan_row(struct apply *a, struct store_scan *scan, uint64_t *ret_n, bool *ret_parked,
			Sluice__QuarantineRow **ret_row)
{
	struct sluice_slice found = {NULL, 0}, value;
	int rc = store_scan_next(scan, &found, &value);

	*ret_row = NULL;
	*ret_parked = false;
	if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
		return rc;
	if (!key_one_in(found, a->gateway, ret_n))
		return SLUICE_E_NOT_FOUND;
	if (rc == 0)
		rc = row_parse(value, ret_parked, ret_row);
	return rc == SLUICE_E_CORRUPT ? claim_report_damaged(a, 0, *ret_n) : rc;
}

/* Walks the rows from `from` to `to` and deletes those of the job ("": all, also damaged ones), at
 * most max. */
static int remove_rows(struct apply *a, uint64_t from, uint64_t to, const char *id, uint64_t max,
		       uint64_t *ret_removed, uint64_t *ret_last)
{
	struct store_scan *scan;
	struct key key;
	int rc;

	*ret_removed = 0;
	key_one(&key, a->gateway, from);
	rc = store_scan_begin(a->txn, STORE_QUAR, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while (rc == 0 && *ret_removed < max) {
		Sluice__QuarantineRow *row;
		uint64_t n;
		bool parked;

		rc = quarantine_scan_row(a, scan, &n, &parked, &row);
		if (rc == 0 && n <= to &&
		    (id[0] == '\0' || (row != NULL && strcmp(row->job, id) == 0))) {
			rc = store_scan_del(scan);
			/* The job and the kind of a damaged row are not known. */
			if (rc == 0)
				rc = row != NULL ? quarantine_row_gone(a, n, parked, row->job)
						 : counter_add(a, COUNTER_QUAR_ROWS, -1);
			++*ret_removed;
			*ret_last = n;
		}
		sluice__quarantine_row__free_unpacked(row, NULL);
		if (rc == 0 && n > to)
			break;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int make_room(struct apply *a)
{
	uint64_t rows, first, removed = 0, last = 0;
	int rc = counter_get(a->txn, a->gateway, COUNTER_QUAR_ROWS, &rows);

	if (rc != 0 || rows < LIMIT_QUARANTINE_ROWS_MAX)
		return rc;
	rc = counter_get(a->txn, a->gateway, COUNTER_QUAR_FIRST, &first);
	if (rc == 0)
		rc = remove_rows(a, first, UINT64_MAX, "", 1, &removed, &last);
	if (rc != 0 || removed == 0)
		return rc;
	rc = counter_set(a, COUNTER_QUAR_FIRST, last + 1);
	return rc != 0 ? rc : counter_add(a, COUNTER_QUAR_DROPPED, 1);
}

/* The newest row of its chain. */
static int row_put(struct apply *a, const Sluice__JobReport *m, const char *reason, bool parked)
{
	Sluice__QuarantineRow row = SLUICE__QUARANTINE_ROW__INIT;
	uint8_t stack[STACK_BYTES], *buf = stack;
	size_t row_bytes, bytes;
	struct key key;
	uint64_t n, previous = 0;
	int rc = make_room(a);

	if (rc == 0)
		rc = name_find(a->txn, a->gateway, chain_of(parked), slice_text(m->job), &previous);
	if (rc == 0 || rc == SLUICE_E_NOT_FOUND)
		rc = counter_next(a, COUNTER_QUAR, &n);
	if (rc == 0)
		rc = counter_add(a, COUNTER_QUAR_ROWS, 1);
	if (rc != 0)
		return rc;
	row.n = n;
	row.time_ms = a->wall_ms;
	row.job = m->job;
	row.attempt = m->attempt;
	row.source = m->source;
	row.state = m->state;
	row.reason = (char *)reason;
	row.evidence = m->evidence;
	row.seen_time_ms = m->seen_time_ms;
	row_bytes = sluice__quarantine_row__get_packed_size(&row);
	bytes = QUARANTINE_HEAD_BYTES + row_bytes +
		(parked ? sluice__job_report__get_packed_size(m) : 0);
	if (bytes > sizeof(stack)) {
		buf = effects_alloc(a->effects, bytes);
		if (buf == NULL)
			return SLUICE_E_NOMEM;
	}
	quarantine_head_encode(buf, previous, row_bytes);
	sluice__quarantine_row__pack(&row, buf + QUARANTINE_HEAD_BYTES);
	if (parked)
		sluice__job_report__pack(m, buf + QUARANTINE_HEAD_BYTES + row_bytes);
	key_one(&key, a->gateway, n);
	rc = store_put(a->txn, STORE_QUAR, key_slice(&key), (struct sluice_slice){buf, bytes});
	return rc != 0 ? rc : name_put(a, chain_of(parked), slice_text(m->job), n);
}

int quarantine_put(struct apply *a, const Sluice__JobReport *m, const char *reason)
{
	return row_put(a, m, reason, false);
}

int quarantine_value_get(struct apply *a, uint64_t n, struct quarantine_value *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_one(&key, a->gateway, n);
	rc = store_get(a->txn, STORE_QUAR, key_slice(&key), &value);
	return rc != 0 ? rc : quarantine_value_decode(value, ret);
}

/* ---- retries of a report ---- */

/* A chain ends at a missing or damaged row: a report is not refused because of an older one. */
static int chain_end(int rc)
{
	return rc == SLUICE_E_NOT_FOUND || rc == SLUICE_E_CORRUPT ? 0 : rc;
}

static bool row_is(const Sluice__QuarantineRow *row, const Sluice__JobReport *m)
{
	return row->attempt == m->attempt && row->seen_time_ms == m->seen_time_ms &&
	       strcmp(row->source, m->source) == 0 && strcmp(row->state, m->state) == 0 &&
	       strcmp(row->evidence, m->evidence) == 0;
}

int quarantine_find(struct apply *a, const Sluice__JobReport *m, char buf[JOB_REASON_BYTES],
		    bool *ret)
{
	uint64_t rows, n = 0;
	int rc = counter_get(a->txn, a->gateway, COUNTER_QUAR_ROWS, &rows);

	*ret = false;
	if (rc == 0 && rows > 0)
		rc = name_find(a->txn, a->gateway, NAME_QUARANTINED, slice_text(m->job), &n);
	for (int checked = 0; rc == 0 && n != 0 && !*ret && checked < RETRIES_MAX; checked++) {
		Sluice__QuarantineRow *row;
		struct quarantine_value value;

		rc = quarantine_value_get(a, n, &value);
		if (rc != 0)
			break;
		row = record_unpack(&sluice__quarantine_row__descriptor, value.row, &rc);
		*ret = row != NULL && row_is(row, m);
		if (*ret)
			(void)snprintf(buf, JOB_REASON_BYTES, "%s", row->reason);
		sluice__quarantine_row__free_unpacked(row, NULL);
		n = value.previous;
	}
	return chain_end(rc);
}

int quarantine_delete(struct apply *a, const char *id)
{
	uint64_t rows;
	int rc = counter_get(a->txn, a->gateway, COUNTER_QUAR_ROWS, &rows);

	if (rc == 0 && rows > 0)
		rc = name_del(a, NAME_QUARANTINED, slice_text(id));
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* Without a seen time only the newest row can be its first copy: a job may return to a state. */
static int parked_find(struct apply *a, const Sluice__JobReport *report, bool *ret)
{
	const int checks_max = report->seen_time_ms != 0 ? RETRIES_MAX : 1;
	size_t bytes = sluice__job_report__get_packed_size(report);
	uint8_t *packed = effects_alloc(a->effects, bytes + 1);
	uint64_t n;
	int rc = name_find(a->txn, a->gateway, NAME_PARKED, slice_text(report->job), &n);

	*ret = false;
	if (packed == NULL)
		return SLUICE_E_NOMEM;
	(void)sluice__job_report__pack(report, packed);
	for (int checked = 0; rc == 0 && n != 0 && !*ret && checked < checks_max; checked++) {
		struct quarantine_value value;

		rc = quarantine_value_get(a, n, &value);
		if (rc != 0)
			break;
		*ret = value.report.len == bytes && memcmp(value.report.data, packed, bytes) == 0;
		n = value.previous;
	}
	return chain_end(rc);
}

/* ---- parked ---- */

int quarantine_park(struct apply *a, const Sluice__JobReport *m)
{
	Sluice__JobReport report = *m;
	bool known;
	int rc;

	report.base.n_unknown_fields = 0;
	rc = parked_find(a, &report, &known);
	if (rc != 0 || known)
		return rc;
	rc = row_put(a, &report, "parked", true);
	return rc != 0 ? rc : counter_add(a, COUNTER_PARKED, 1);
}

/* The newest parked row of the job; 0: none. */
int quarantine_parked_newest(struct apply *a, const char *id, uint64_t *ret)
{
	uint64_t parked;
	int rc = counter_get(a->txn, a->gateway, COUNTER_PARKED, &parked);

	*ret = 0;
	if (rc == 0 && parked > 0)
		rc = name_find(a->txn, a->gateway, NAME_PARKED, slice_text(id), ret);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int quarantine_waits(struct apply *a, const char *id, bool *ret)
{
	struct quarantine_value value;
	uint64_t newest;
	int rc = quarantine_parked_newest(a, id, &newest);

	*ret = false;
	if (rc != 0 || newest == 0)
		return rc;
	/* A damaged row that was deleted leaves its name. */
	rc = quarantine_value_get(a, newest, &value);
	*ret = rc != SLUICE_E_NOT_FOUND;
	return rc == SLUICE_E_NOT_FOUND || rc == SLUICE_E_CORRUPT ? 0 : rc;
}

/* ---- purge, list ---- */

int quarantine_purge_apply(struct apply *a, const Sluice__QuarantinePurge *m, struct outcome *out)
{
	uint64_t removed, last, first;
	int rc = job_text_check(out, "job id", m->job, LIMIT_NAME_BYTES_MAX);

	if (rc == 0 && !refused(out))
		rc = counter_get(a->txn, a->gateway, COUNTER_QUAR_FIRST, &first);
	if (rc != 0 || refused(out))
		return rc;
	rc = remove_rows(a, first, m->up_to != 0 ? m->up_to : UINT64_MAX, m->job, UINT64_MAX,
			 &removed, &last);
	out->kind = OUT_ACKED;
	out->count = (uint32_t)removed;
	return rc;
}

/* The row of a list for a damaged row: it does not end the list, and its job is not known.
 * Owned. */
static int row_unread(uint64_t n, Sluice__QuarantineRow **ret)
{
	Sluice__QuarantineRow *row = malloc(sizeof(*row));

	if (row == NULL)
		return SLUICE_E_NOMEM;
	sluice__quarantine_row__init(row);
	row->n = n;
	row->reason = strdup("damaged: it cannot be read");
	if (row->reason == NULL) {
		free(row);
		return SLUICE_E_NOMEM;
	}
	*ret = row;
	return 0;
}

int quarantine_list(struct query *q, const Sluice__QuarantineList *m)
{
	uint32_t max = rows_max(m->max);
	struct sluice_slice found, value;
	Sluice__Reply *reply = q->reply;
	struct store_scan *scan;
	struct key from;
	int rc;

	if (m->after == UINT64_MAX)
		return 0;
	if (reply->quarantine == NULL) {
		reply->quarantine = calloc(max, sizeof(*reply->quarantine));
		if (reply->quarantine == NULL)
			return SLUICE_E_NOMEM;
		q->at.number = m->after + 1;
	}
	key_one(&from, q->gateway, q->at.number);
	rc = store_scan_begin(q->txn, STORE_QUAR, key_slice(&from), &scan);
	if (rc != 0)
		return rc;
	for (;;) {
		Sluice__QuarantineRow *row;
		uint64_t n;
		bool parked;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		if (!key_one_in(found, q->gateway, &n)) {
			rc = 0;
			break;
		}
		if (rc == 0)
			rc = row_parse(value, &parked, &row);
		if (rc == SLUICE_E_CORRUPT)
			rc = row_unread(n, &row);
		if (rc != 0)
			break;
		q->at.number = n + 1;
		if (m->job[0] != '\0' && row->job[0] != '\0' && strcmp(row->job, m->job) != 0) {
			sluice__quarantine_row__free_unpacked(row, NULL);
		} else if (reply->n_quarantine == max) {
			sluice__quarantine_row__free_unpacked(row, NULL);
			reply->more = true;
			break;
		} else {
			reply->quarantine[reply->n_quarantine++] = row;
		}
		q->again = query_spent(q);
		if (q->again)
			break;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}
