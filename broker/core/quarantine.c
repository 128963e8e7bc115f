/* SPDX-License-Identifier: Apache-2.0
 *
 * Reports that could not be applied: stale or illegal ones, kept for people to look at, and those that came
 * before their job, which wait here for its submit ("parked").
 *
 * Value: u64 previous parked row of the same job (0: none), u32 bytes of the row, protobuf QuarantineRow, and
 * for a parked one the protobuf JobReport. NAME_PARKED leads from a job id to its newest parked row. Bounded
 * by QUARANTINE_ROWS_MAX rows per gateway: the oldest is dropped and counted, so a chain may end at a row
 * that is gone, never in a hole.
 */
#include <stdlib.h>

#include "broker/core/job_ledger.h"
#include "protocol/limits.h"

enum { HEAD_BYTES = 12, STACK_BYTES = 4096 };

struct quar_value {
	uint64_t previous;
	struct sluice_slice row, report;
};

static int value_decode(struct sluice_slice value, struct quar_value *ret)
{
	const uint8_t *at = value.data;
	size_t row;

	if (value.len < HEAD_BYTES)
		return store_damaged("its content is not valid");
	row = get_be32(at + 8);
	if (row > value.len - HEAD_BYTES)
		return store_damaged("its content is not valid");
	ret->previous = get_be64(at);
	ret->row = (struct sluice_slice){at + HEAD_BYTES, row};
	ret->report = (struct sluice_slice){at + HEAD_BYTES + row, value.len - HEAD_BYTES - row};
	return 0;
}

static int row_parse(struct sluice_slice value, bool *ret_parked, Sluice__QuarantineRow **ret)
{
	struct quar_value parts;
	int err = value_decode(value, &parts);

	if (err != 0)
		return err;
	*ret_parked = parts.report.len > 0;
	*ret = record_unpack(&sluice__quarantine_row__descriptor, parts.row, &err);
	return err;
}

/* What follows from a row's removal: counters, and the name of a chain whose newest row it was. */
static int row_gone(struct apply *a, uint64_t n, bool parked, const char *id)
{
	uint64_t newest;
	int err = counter_add(a, COUNTER_QUAR_ROWS, -1);

	if (err != 0 || !parked)
		return err;
	err = counter_add(a, COUNTER_PARKED, -1);
	if (err == 0)
		err = name_find(a->txn, a->gateway, NAME_PARKED, slice_text(id), &newest);
	if (err == 0 && newest == n)
		err = name_del(a, NAME_PARKED, slice_text(id));
	return err == SLUICE_E_NOT_FOUND ? 0 : err;
}

/* Walks rows from `from` to `to`, removing those of the job (all when it is ""), at most max. */
static int remove_rows(struct apply *a, uint64_t from, uint64_t to, const char *id, uint64_t max,
		       uint64_t *ret_removed, uint64_t *ret_last)
{
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct key key;
	int err;

	*ret_removed = 0;
	key_one(&key, a->gateway, from);
	err = store_scan_begin(a->txn, STORE_QUAR, key_slice(&key), &scan);
	if (err != 0)
		return err;
	while (*ret_removed < max && (err = store_scan_next(scan, &found, &value)) == 0) {
		Sluice__QuarantineRow *row;
		uint64_t n;
		bool parked;

		if (found.len != key.len || memcmp(found.data, key.bytes, 4) != 0)
			break;
		n = get_be64((const uint8_t *)found.data + 4);
		if (n > to)
			break;
		err = row_parse(value, &parked, &row);
		if (err != 0)
			break;
		if (id[0] == '\0' || strcmp(row->job, id) == 0) {
			err = store_scan_del(scan);
			if (err == 0)
				err = row_gone(a, n, parked, row->job);
			++*ret_removed;
			*ret_last = n;
		}
		sluice__quarantine_row__free_unpacked(row, NULL);
		if (err != 0)
			break;
	}
	store_scan_end(scan);
	return err == SLUICE_E_NOT_FOUND ? 0 : err;
}

static int make_room(struct apply *a)
{
	uint64_t rows, first, removed = 0, last = 0;
	int err = counter_get(a->txn, a->gateway, COUNTER_QUAR_ROWS, &rows);

	if (err != 0 || rows < LIMIT_QUARANTINE_ROWS_MAX)
		return err;
	err = counter_get(a->txn, a->gateway, COUNTER_QUAR_FIRST, &first);
	if (err == 0)
		err = remove_rows(a, first, UINT64_MAX, "", 1, &removed, &last);
	if (err != 0 || removed == 0)
		return err;
	err = counter_set(a, COUNTER_QUAR_FIRST, last + 1);
	return err == 0 ? counter_add(a, COUNTER_QUAR_DROPPED, 1) : err;
}

static int row_put(struct apply *a, const Sluice__JobReport *m, const char *reason, bool parked,
		   uint64_t previous, uint64_t *ret_n)
{
	Sluice__QuarantineRow row = SLUICE__QUARANTINE_ROW__INIT;
	uint8_t stack[STACK_BYTES], *buf = stack;
	size_t row_bytes, bytes;
	struct key key;
	uint64_t n;
	int err = make_room(a);

	if (err == 0)
		err = counter_next(a, COUNTER_QUAR, &n);
	if (err == 0)
		err = counter_add(a, COUNTER_QUAR_ROWS, 1);
	if (err != 0)
		return err;
	row.n = n;
	row.time_ms = a->wall_ms;
	row.job = m->job;
	row.attempt = m->attempt;
	row.source = m->source;
	row.state = m->state;
	row.reason = (char *)reason;
	row.evidence = m->evidence;
	row_bytes = sluice__quarantine_row__get_packed_size(&row);
	bytes = HEAD_BYTES + row_bytes + (parked ? sluice__job_report__get_packed_size(m) : 0);
	if (bytes > sizeof(stack)) {
		buf = effects_alloc(a->effects, bytes);
		if (buf == NULL)
			return SLUICE_E_NOMEM;
	}
	put_be64(buf, previous);
	put_be32(buf + 8, (uint32_t)row_bytes);
	sluice__quarantine_row__pack(&row, buf + HEAD_BYTES);
	if (parked)
		sluice__job_report__pack(m, buf + HEAD_BYTES + row_bytes);
	key_one(&key, a->gateway, n);
	*ret_n = n;
	return store_put(a->txn, STORE_QUAR, key_slice(&key), (struct sluice_slice){buf, bytes});
}

int quarantine_put(struct apply *a, const Sluice__JobReport *m, const char *reason)
{
	uint64_t n;

	return row_put(a, m, reason, false, 0, &n);
}

/* ---- parked ---- */

int quarantine_park(struct apply *a, const Sluice__JobReport *m)
{
	Sluice__JobReport report = *m;
	uint64_t previous, n;
	int err = name_find(a->txn, a->gateway, NAME_PARKED, slice_text(m->job), &previous);

	if (err == SLUICE_E_NOT_FOUND) {
		previous = 0;
		err = 0;
	}
	report.base.n_unknown_fields = 0;
	if (err == 0)
		err = row_put(a, &report, "parked", true, previous, &n);
	if (err == 0)
		err = counter_add(a, COUNTER_PARKED, 1);
	return err == 0 ? name_put(a, NAME_PARKED, slice_text(m->job), n) : err;
}

static int value_get(struct apply *a, uint64_t n, struct quar_value *ret)
{
	struct sluice_slice value;
	struct key key;
	int err;

	key_one(&key, a->gateway, n);
	err = store_get(a->txn, STORE_QUAR, key_slice(&key), &value);
	return err == 0 ? value_decode(value, ret) : err;
}

/* The numbers of the chain that ends at `newest`, newest first. Arena memory. */
static int chain_numbers(struct apply *a, uint64_t newest, uint64_t **ret, size_t *ret_count)
{
	struct quar_value value;
	size_t count = 0;
	uint64_t *numbers;
	int err = 0;

	for (uint64_t n = newest; n != 0 && (err = value_get(a, n, &value)) == 0; n = value.previous)
		count++;
	if (err != 0 && err != SLUICE_E_NOT_FOUND)
		return err;
	numbers = effects_alloc(a->effects, count * sizeof(*numbers) + 1);
	if (numbers == NULL)
		return SLUICE_E_NOMEM;
	for (size_t i = 0; i < count; i++) {
		numbers[i] = newest;
		err = value_get(a, newest, &value);
		if (err != 0)
			return err;
		newest = value.previous;
	}
	*ret = numbers;
	*ret_count = count;
	return 0;
}

/* A parked report is one without a lease: its token, from before the job, counts for nothing. */
static int unpark_one(struct apply *a, struct job *job, uint64_t n)
{
	struct outcome ignored = {0};
	Sluice__JobReport *report = NULL;
	struct quar_value value;
	struct key key;
	int err = value_get(a, n, &value);

	if (err == 0)
		report = record_unpack(&sluice__job_report__descriptor, value.report, &err);
	if (err != 0)
		return err;
	report->token = 0;
	report->release = false;
	key_one(&key, a->gateway, n);
	err = store_del(a->txn, STORE_QUAR, key_slice(&key));
	if (err == 0)
		err = row_gone(a, n, true, report->job);
	if (err == 0)
		err = job_report_on(a, job, report, &ignored);
	sluice__job_report__free_unpacked(report, NULL);
	return err;
}

int quarantine_unpark(struct apply *a, struct job *job)
{
	uint64_t parked, newest, *numbers = NULL;
	size_t count = 0;
	int err = counter_get(a->txn, a->gateway, COUNTER_PARKED, &parked);

	if (err != 0 || parked == 0)
		return err;
	err = name_find(a->txn, a->gateway, NAME_PARKED, slice_text(job->id), &newest);
	if (err != 0)
		return err == SLUICE_E_NOT_FOUND ? 0 : err;
	err = chain_numbers(a, newest, &numbers, &count);
	while (err == 0 && count > 0)
		err = unpark_one(a, job, numbers[--count]);
	return err;
}

/* ---- purge, list ---- */

int quarantine_purge_apply(struct apply *a, const Sluice__QuarantinePurge *m, struct outcome *out)
{
	uint64_t removed, last, first;
	int err = job_text_check(out, "job id", m->job, LIMIT_NAME_BYTES_MAX);

	if (err == 0 && !refused(out))
		err = counter_get(a->txn, a->gateway, COUNTER_QUAR_FIRST, &first);
	if (err != 0 || refused(out))
		return err;
	err = remove_rows(a, first, m->up_to != 0 ? m->up_to : UINT64_MAX, m->job, UINT64_MAX, &removed,
			  &last);
	out->kind = OUT_ACKED;
	out->count = (uint32_t)removed;
	return err;
}

int quarantine_list(struct query *q, const Sluice__QuarantineList *m)
{
	uint32_t max = rows_max(m->max);
	struct sluice_slice found, value;
	Sluice__Reply *reply = q->reply;
	struct store_scan *scan;
	struct key from;
	int err;

	if (m->after == UINT64_MAX)
		return 0;
	if (reply->quarantine == NULL) {
		reply->quarantine = calloc(max, sizeof(*reply->quarantine));
		if (reply->quarantine == NULL)
			return SLUICE_E_NOMEM;
		q->at.number = m->after + 1;
	}
	key_one(&from, q->gateway, q->at.number);
	err = store_scan_begin(q->txn, STORE_QUAR, key_slice(&from), &scan);
	if (err != 0)
		return err;
	while ((err = store_scan_next(scan, &found, &value)) == 0) {
		Sluice__QuarantineRow *row;
		bool parked;

		if (found.len != from.len || memcmp(found.data, from.bytes, 4) != 0)
			break;
		err = row_parse(value, &parked, &row);
		if (err != 0)
			break;
		q->at.number = get_be64((const uint8_t *)found.data + 4) + 1;
		if (m->job[0] != '\0' && strcmp(row->job, m->job) != 0) {
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
	return err == SLUICE_E_NOT_FOUND ? 0 : err;
}
