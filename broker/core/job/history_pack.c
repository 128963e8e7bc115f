/* SPDX-License-Identifier: Apache-2.0
 *
 * Encodes a history row field by field: each change of a job makes one, a dozen of its nineteen
 * fields are empty, and protobuf-c would go through all of them twice.
 * tests/unit/test_job_history.c compares the bytes with protobuf-c's.
 */
#include "broker/core/job/history.h"

enum { WIRE_VARINT = 0, WIRE_BYTES = 2 };

static uint8_t *varint(uint8_t *at, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*at++ = (uint8_t)(value | 0x80);
	*at++ = (uint8_t)value;
	return at;
}

/* A default value is omitted. */
static uint8_t *number(uint8_t *at, unsigned field, uint64_t value)
{
	return value == 0 ? at : varint(varint(at, field << 3 | WIRE_VARINT), value);
}

static uint8_t *text(uint8_t *at, unsigned field, const char *value)
{
	size_t len = strlen(value);

	if (len == 0)
		return at;
	at = varint(varint(at, field << 3 | WIRE_BYTES), len);
	memcpy(at, value, len);
	return at + len;
}

static uint64_t zigzag(int32_t value)
{
	return (uint32_t)value << 1 ^ (uint32_t)(value >> 31);
}

size_t job_history_pack_max(const Sluice__JobHistoryRow *row)
{
	return JOB_HISTORY_FIXED_MAX + strlen(row->event) + strlen(row->from_state) +
	       strlen(row->state) + strlen(row->source) + strlen(row->evidence) +
	       strlen(row->scheduler_ref);
}

size_t job_history_pack(uint8_t *buf, const Sluice__JobHistoryRow *row)
{
	uint8_t *at = buf;

	at = number(at, 1, row->n);
	at = number(at, 2, row->time_ms);
	at = number(at, 3, row->attempt);
	at = text(at, 4, row->event);
	at = text(at, 5, row->from_state);
	at = text(at, 6, row->state);
	at = text(at, 7, row->source);
	at = text(at, 8, row->evidence);
	at = number(at, 9, row->token);
	at = number(at, 10, row->index);
	at = number(at, 11, zigzag(row->exit_code));
	at = text(at, 12, row->scheduler_ref);
	at = number(at, 13, row->seen_time_ms);
	at = number(at, 14, row->started_time_ms);
	at = number(at, 15, row->ended_time_ms);
	at = number(at, 16, row->memory_peak_bytes);
	at = number(at, 17, row->signal);
	at = number(at, 18, row->exited ? 1 : 0);
	at = number(at, 19, (uint64_t)(int64_t)(int32_t)row->class_);
	return (size_t)(at - buf);
}
