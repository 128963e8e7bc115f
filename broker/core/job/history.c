/* SPDX-License-Identifier: Apache-2.0
 *
 * History: append only, in order of arrival over all jobs; each row points at the previous row of
 * its job, so a job's history is read backwards from its live record. Value: u64 job, u64 previous
 * n, protobuf JobHistoryRow.
 */
#include "broker/core/base/counter.h"
#include "broker/core/base/topo.h"
#include "broker/core/job/history.h"
#include "broker/util/invariant.h"

enum { STACK_BYTES = 2048 };

void job_history_head_encode(uint8_t head[JOB_HISTORY_HEAD_BYTES], uint64_t job, uint64_t previous)
{
	put_be64(head, job);
	put_be64(head + 8, previous);
}

int job_history_decode(struct sluice_slice value, struct job_history_row *ret)
{
	const uint8_t *at = value.data;

	if (value.len < JOB_HISTORY_HEAD_BYTES)
		return store_damaged("its content is not valid");
	ret->job = get_be64(at);
	ret->previous = get_be64(at + 8);
	ret->row = (struct sluice_slice){at + JOB_HISTORY_HEAD_BYTES,
					 value.len - JOB_HISTORY_HEAD_BYTES};
	return 0;
}

int job_history_append(struct apply *a, struct job *job, const char *from,
		       const struct job_fact *fact)
{
	Sluice__JobHistoryRow row = SLUICE__JOB_HISTORY_ROW__INIT;
	uint8_t stack[STACK_BYTES], *buf = stack;
	struct key key;
	size_t bytes;
	uint64_t n;
	int rc = counter_next(a, COUNTER_HIST, &n);

	if (rc != 0)
		return rc;
	invariant(n > job->live.hist_last, "job %llu: row %llu comes behind %llu", ULL(job->number),
		  ULL(n), ULL(job->live.hist_last));
	row.n = n;
	row.time_ms = a->wall_ms;
	row.attempt = job->live.attempt;
	row.event = (char *)fact->event;
	row.from_state = (char *)from;
	row.state = (char *)job_state_name(job);
	row.source = (char *)fact->source;
	row.evidence = (char *)fact->evidence;
	row.scheduler_ref = (char *)fact->scheduler_ref;
	row.token = job->live.token;
	row.index = a->index;
	row.exit_code = fact->exit_code;
	row.seen_time_ms = fact->seen_time_ms;
	row.started_time_ms = fact->started_time_ms;
	row.ended_time_ms = fact->ended_time_ms;
	row.memory_peak_bytes = fact->memory_peak_bytes;
	row.signal = fact->signal;
	row.exited = fact->exited;
	row.class_ = fact->class;
	bytes = JOB_HISTORY_HEAD_BYTES + job_history_pack_max(&row);
	if (bytes > sizeof(stack)) {
		buf = effects_alloc(a->effects, bytes);
		if (buf == NULL)
			return SLUICE_E_NOMEM;
	}
	job_history_head_encode(buf, job->number, job->live.hist_last);
	bytes = JOB_HISTORY_HEAD_BYTES + job_history_pack(buf + JOB_HISTORY_HEAD_BYTES, &row);
	key_one(&key, a->gateway, n);
	job->live.hist_last = n;
	job->live.hist_count++;
	return store_put(a->txn, STORE_HIST, key_slice(&key), (struct sluice_slice){buf, bytes});
}

int job_history_get(struct store_txn *txn, uint32_t gateway, uint64_t n,
		    struct job_history_row *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_one(&key, gateway, n);
	rc = store_get(txn, STORE_HIST, key_slice(&key), &value);
	return rc != 0 ? rc : job_history_decode(value, ret);
}

int job_history_at_or_before(struct store_txn *txn, uint32_t gateway, uint64_t *io_n,
			     struct job_history_row *ret)
{
	struct sluice_slice found = {NULL, 0}, value;
	struct key key;
	int rc;

	key_one(&key, gateway, *io_n);
	rc = store_last_le(txn, STORE_HIST, key_slice(&key), 4, &found, &value);
	if (!key_one_in(found, gateway, io_n))
		*io_n = 0;
	return rc != 0 ? rc : job_history_decode(value, ret);
}

int job_history_load(struct store_txn *txn, uint32_t gateway, uint64_t n,
		     Sluice__JobHistoryRow **ret)
{
	struct job_history_row row;
	int rc;

	*ret = NULL;
	if (n == 0)
		return 0;
	rc = job_history_get(txn, gateway, n, &row);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	*ret = record_unpack(&sluice__job_history_row__descriptor, row.row, &rc);
	return rc;
}

/* ---- a few numbers of a packed row: unpacking would allocate a dozen texts per report ---- */

enum { FIELD_TIME = 2, FIELD_STARTED = 14, FIELD_MEMORY = 16 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* False: cut off. */
static bool varint(struct sluice_slice *io, uint64_t *ret)
{
	const uint8_t *at = io->data;

	*ret = 0;
	for (size_t n = 0; n < io->len && n < 10; n++) {
		*ret |= (uint64_t)(at[n] & 0x7f) << 7 * n;
		if (at[n] < 0x80) {
			*io = (struct sluice_slice){at + n + 1, io->len - n - 1};
			return true;
		}
	}
	return false;
}

static bool skip(struct sluice_slice *io, uint64_t bytes)
{
	if (bytes > io->len)
		return false;
	*io = (struct sluice_slice){(const uint8_t *)io->data + bytes, io->len - bytes};
	return true;
}

static void brief_set(struct job_history_brief *brief, uint64_t field, uint64_t value)
{
	if (field == FIELD_TIME)
		brief->time_ms = value;
	else if (field == FIELD_STARTED)
		brief->started_time_ms = value;
	else if (field == FIELD_MEMORY)
		brief->memory_peak_bytes = value;
}

/* One field; false: cut off. */
static bool brief_next(struct sluice_slice *io, struct job_history_brief *brief)
{
	uint64_t tag, value;

	if (!varint(io, &tag))
		return false;
	switch (tag & 7) {
	case WIRE_VARINT:
		if (!varint(io, &value))
			return false;
		brief_set(brief, tag >> 3, value);
		return true;
	case WIRE_BYTES:
		return varint(io, &value) && skip(io, value);
	case WIRE_64:
		return skip(io, 8);
	default:
		return (tag & 7) == WIRE_32 && skip(io, 4);
	}
}

int job_history_brief(struct store_txn *txn, uint32_t gateway, uint64_t n,
		      struct job_history_brief *ret)
{
	struct job_history_row row;
	struct sluice_slice rest;
	int rc = job_history_get(txn, gateway, n, &row);

	*ret = (struct job_history_brief){0};
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	for (rest = row.row; rest.len > 0;)
		if (!brief_next(&rest, ret))
			return store_damaged("its content is not valid");
	return 0;
}
