/* SPDX-License-Identifier: Apache-2.0
 * Log heads and segments: bytes <-> structs, and finding segments by offset and time. */
#include <stdlib.h>

#include "broker/core/base/state.h"
#include "broker/core/stream/segment.h"
#include "broker/util/crc.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"

enum { SEEK_ROUNDS_MAX = 4096 };

/* ---- head ---- */

void log_cell_encode(uint8_t buf[LOG_CELL_BYTES], const struct log_cell *cell)
{
	buf[0] = cell->deleted ? 1 : 0;
	put_be64(buf + 1, cell->first);
	put_be64(buf + 9, cell->next);
	put_be64(buf + 17, cell->base);
	put_be64(buf + 25, cell->bytes);
	put_be64(buf + 33, cell->time_max_ms);
	put_be64(buf + 41, cell->max_age_ms);
	put_be64(buf + 49, cell->max_bytes);
	put_be64(buf + 57, cell->max_events);
	put_be64(buf + 65, cell->timer_due);
}

int log_cell_decode(struct sluice_slice value, struct log_cell *ret)
{
	const uint8_t *at = value.data;

	if (value.len != LOG_CELL_BYTES)
		return store_damaged("its content is not valid");
	*ret = (struct log_cell){.deleted = at[0] != 0,
				 .first = get_be64(at + 1),
				 .next = get_be64(at + 9),
				 .base = get_be64(at + 17),
				 .bytes = get_be64(at + 25),
				 .time_max_ms = get_be64(at + 33),
				 .max_age_ms = get_be64(at + 41),
				 .max_bytes = get_be64(at + 49),
				 .max_events = get_be64(at + 57),
				 .timer_due = get_be64(at + 65)};
	return 0;
}

int log_cell_get(struct store_txn *txn, uint32_t gateway, uint64_t log, struct log_cell *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_hot(&key, gateway, HOT_LOG, log);
	rc = store_get(txn, STORE_HOT, key_slice(&key), &value);
	return rc != 0 ? rc : log_cell_decode(value, ret);
}

int log_cell_put(struct apply *a, uint64_t log, const struct log_cell *cell)
{
	uint8_t buf[LOG_CELL_BYTES];
	struct key key;

	invariant(cell->first <= cell->next && cell->base <= cell->next,
		  "log %llu: first %llu, base %llu, next %llu", ULL(log), ULL(cell->first),
		  ULL(cell->base), ULL(cell->next));
	invariant(cell->bytes >> 63 == 0, "log %llu: %llu bytes", ULL(log), ULL(cell->bytes));
	invariant(!cell->deleted || cell->first == cell->next,
		  "log %llu is deleted: first %llu, next %llu", ULL(log), ULL(cell->first),
		  ULL(cell->next));
	log_cell_encode(buf, cell);
	key_hot(&key, a->gateway, HOT_LOG, log);
	return store_put(a->txn, STORE_HOT, key_slice(&key),
			 (struct sluice_slice){buf, sizeof(buf)});
}

/* ---- segments ---- */

uint64_t time_add(uint64_t base_ms, int64_t delta_ms)
{
	if (delta_ms < 0)
		return base_ms < (uint64_t) - (delta_ms + 1) + 1
			       ? 0
			       : base_ms - ((uint64_t) - (delta_ms + 1) + 1);
	return base_ms > UINT64_MAX - (uint64_t)delta_ms ? UINT64_MAX
							 : base_ms + (uint64_t)delta_ms;
}

static uint32_t segment_crc(const uint8_t *header, struct sluice_slice subject,
			    struct sluice_slice payload)
{
	uint32_t crc = crc32c(header, SEGMENT_CRC_AT);

	crc = crc32c_extend(crc, header + SEGMENT_CRC_AT + 4,
			    SEGMENT_HEADER_BYTES - SEGMENT_CRC_AT - 4);
	crc = crc32c_extend(crc, subject.data, subject.len);
	return crc32c_extend(crc, payload.data, payload.len);
}

void segment_header_encode(uint8_t header[SEGMENT_HEADER_BYTES], const struct segment_info *info)
{
	const struct segment *segment = &info->segment;

	header[0] = SEGMENT_FORMAT;
	header[1] = 0;
	header[2] = segment->codec;
	header[3] = 0;
	put_be32(header + 8, segment->count);
	put_be32(header + 12, (uint32_t)(segment->last - segment->base));
	put_be64(header + 16, segment->time_ms);
	put_be64(header + 24, segment->time_max_ms);
	put_be64(header + 32, info->log_time_max_ms);
	put_be64(header + 40, info->append_ms);
	put_be64(header + 48, segment->producer);
	put_be32(header + 56, segment->epoch);
	put_be32(header + 60, segment->raw_bytes);
	put_be64(header + 64, segment->first_seq);
	put_be16(header + 72, (uint16_t)segment->subject.len);
	put_be32(header + SEGMENT_CRC_AT, segment_crc(header, segment->subject, segment->payload));
}

int segment_decode(struct sluice_slice value, uint64_t base, struct segment_info *ret)
{
	const uint8_t *at = value.data;
	struct segment *segment = &ret->segment;
	size_t subject;

	if (value.len < SEGMENT_HEADER_BYTES || at[0] != SEGMENT_FORMAT || at[1] != 0)
		return store_damaged("its content is not valid");
	subject = get_be16(at + 72);
	if (value.len < SEGMENT_HEADER_BYTES + subject)
		return store_damaged("its content is not valid");
	*segment = (struct segment){.base = base,
				    .last = base + get_be32(at + 12),
				    .count = get_be32(at + 8),
				    .time_ms = get_be64(at + 16),
				    .time_max_ms = get_be64(at + 24),
				    .codec = at[2],
				    .raw_bytes = get_be32(at + 60),
				    .producer = get_be64(at + 48),
				    .epoch = get_be32(at + 56),
				    .first_seq = get_be64(at + 64),
				    .subject = {at + SEGMENT_HEADER_BYTES, subject},
				    .payload = {at + SEGMENT_HEADER_BYTES + subject,
						value.len - SEGMENT_HEADER_BYTES - subject}};
	ret->log_time_max_ms = get_be64(at + 32);
	ret->append_ms = get_be64(at + 40);
	ret->stored_bytes = value.len;
	return get_be32(at + SEGMENT_CRC_AT) == segment_crc(at, segment->subject, segment->payload)
		       ? 0
		       : store_damaged("its content is not valid");
}

int segment_put(struct apply *a, uint64_t log, const struct segment_info *info)
{
	const struct segment *segment = &info->segment;
	uint8_t header[SEGMENT_HEADER_BYTES];
	struct iovec parts[3];
	struct key key;

	invariant(segment->base <= segment->last && segment->last - segment->base <= UINT32_MAX,
		  "log %llu: a segment from %llu to %llu", ULL(log), ULL(segment->base),
		  ULL(segment->last));
	invariant(segment->count > 0 && segment->count - 1 <= segment->last - segment->base,
		  "log %llu: %u events from %llu to %llu", ULL(log), segment->count,
		  ULL(segment->base), ULL(segment->last));
	invariant(segment->subject.len <= UINT16_MAX, "log %llu: a subject of %zu bytes", ULL(log),
		  segment->subject.len);
	segment_header_encode(header, info);
	parts[0] = (struct iovec){header, sizeof(header)};
	parts[1] = (struct iovec){(void *)(uintptr_t)segment->subject.data, segment->subject.len};
	parts[2] = (struct iovec){(void *)(uintptr_t)segment->payload.data, segment->payload.len};
	core_worked(a->core, sizeof(header) + segment->subject.len + segment->payload.len);
	key_two(&key, a->gateway, log, segment->base);
	return store_putv(a->txn, STORE_LOG, key_slice(&key), parts, 3);
}

int segment_find(struct store_txn *txn, uint32_t gateway, uint64_t log, uint64_t offset,
		 struct segment_info *ret)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	uint64_t base;
	int rc;

	key_two(&key, gateway, log, offset);
	rc = store_last_le(txn, STORE_LOG, key_slice(&key), KEY_ONE_BYTES, &found, &value);
	if (rc == 0) {
		if (!key_two_in(found, gateway, log, &base))
			return store_damaged("its content is not valid");
		rc = segment_decode(value, base, ret);
		if (rc != 0 || ret->segment.last >= offset)
			return rc;
	} else if (rc != SLUICE_E_NOT_FOUND) {
		return rc;
	}
	/* That one ends before the offset, or there is none: takes the next one. */
	rc = store_scan_begin(txn, STORE_LOG, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	rc = store_scan_next(scan, &found, &value);
	if (rc == 0 && !key_two_in(found, gateway, log, &base))
		rc = SLUICE_E_NOT_FOUND;
	if (rc == 0)
		rc = segment_decode(value, base, ret);
	store_scan_end(scan);
	return rc;
}

int core_segment_read(struct store_txn *txn, uint32_t gateway, uint64_t log, uint64_t offset,
		      struct segment *ret)
{
	struct segment_info info;
	struct log_cell cell;
	int head, rc = segment_find(txn, gateway, log, offset, &info);

	if (rc == 0)
		*ret = info.segment;
	if (rc != SLUICE_E_NOT_FOUND && (rc != 0 || ret->base <= offset))
		return rc;
	/* From base to next the segments have no gaps. A segment's checksum does not cover its key:
	 * if one is stored under a wrong key, the next one, or the log's end, must not be taken for
	 * it. */
	head = log_cell_get(txn, gateway, log, &cell);
	if (head != 0)
		return head;
	return !cell.deleted && offset >= cell.base && offset < cell.next
		       ? store_damaged("its content is not valid")
		       : rc;
}

/* ---- seek by time ---- */

/* The first event of a segment at or after `from` whose time is not before time_ms; the offset
 * after the segment when there is none. */
static int seek_within(const struct segment *segment, uint64_t from, uint64_t time_ms,
		       uint64_t *ret_offset)
{
	struct sluice_slice rest = segment->payload;
	struct envelope envelope;
	const char *why = NULL;
	uint8_t *raw = NULL;
	uint64_t offset = segment->base;
	int rc = 0;

	if (segment->codec != BATCH_RAW) {
		rc = batch_decompress(segment->payload, segment->raw_bytes, &raw, &why);
		rest = (struct sluice_slice){raw, segment->raw_bytes};
	}
	while (rc == 0 && rest.len > 0) {
		rc = envelope_next(&rest, &envelope, &why);
		if (rc == 0 && offset >= from &&
		    time_add(segment->time_ms, envelope.time_delta_ms) >= time_ms)
			break;
		offset++;
	}
	free(raw);
	*ret_offset = offset;
	return rc == 0 || rc == SLUICE_E_NOMEM ? rc : store_damaged("its content is not valid");
}

/* The running maximum of times grows along the log: the first segment in which it reaches time_ms
 * has the first event that is not before it. */
static int seek_segment(struct store_txn *txn, uint32_t gateway, uint64_t log,
			const struct log_cell *cell, uint64_t time_ms, uint64_t *ret_offset)
{
	uint64_t low = cell->base, high = cell->next;
	struct segment_info info;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		int rc = segment_find(txn, gateway, log, middle, &info);

		if (rc != 0)
			return rc;
		if (info.log_time_max_ms >= time_ms)
			high = info.segment.base < middle ? info.segment.base : middle;
		else
			low = info.segment.last + 1;
	}
	*ret_offset = low;
	return 0;
}

int core_stream_seek_time(struct store_txn *txn, uint32_t gateway, uint64_t log, uint64_t time_ms,
			  uint64_t *ret_offset)
{
	struct segment_info info;
	struct log_cell cell;
	uint64_t offset;
	int rc = log_cell_get(txn, gateway, log, &cell);

	if (rc == 0)
		rc = seek_segment(txn, gateway, log, &cell, time_ms, &offset);
	if (rc != 0)
		return rc;
	if (offset < cell.first)
		offset = cell.first;
	/* More than one round only when the maximum was in a removed segment. Then an earlier
	 * offset is correct, too: no event is skipped. */
	for (int round = 0; round < SEEK_ROUNDS_MAX && offset < cell.next; round++) {
		rc = segment_find(txn, gateway, log, offset, &info);
		if (rc != 0)
			return rc;
		if (info.segment.time_max_ms >= time_ms) {
			rc = seek_within(&info.segment, offset, time_ms, &offset);
			if (rc != 0 || offset <= info.segment.last)
				break;
		}
		offset = info.segment.last + 1;
	}
	if (rc == 0)
		*ret_offset = offset;
	return rc;
}
