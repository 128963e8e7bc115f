/* SPDX-License-Identifier: Apache-2.0
 *
 * Stored segments and the cell of a log. A stream is a log with a definition.
 */
#ifndef SLUICE_CORE_STREAM_SEGMENT_H
#define SLUICE_CORE_STREAM_SEGMENT_H

#include "broker/core/base/state.h"

struct log_cell {
	bool deleted;	/* only sweeping is left to do */
	uint64_t first; /* lowest readable offset */
	uint64_t next;
	uint64_t base;	/* of the oldest stored segment; next when there is none */
	uint64_t bytes; /* of stored segments */
	/* maximum of all events ever appended: seeking by time relies on it */
	uint64_t time_max_ms;
	uint64_t max_age_ms, max_bytes, max_events; /* 0: no bound */
	uint64_t timer_due;			    /* of the retention timer; 0: none is set */
};

enum { LOG_CELL_BYTES = 1 + 9 * 8 };
void log_cell_encode(uint8_t buf[LOG_CELL_BYTES], const struct log_cell *cell);
int log_cell_decode(struct sluice_slice value, struct log_cell *ret) SLUICE_MUST_USE; /* CORRUPT */
int log_cell_get(struct store_txn *txn, uint32_t gateway, uint64_t log,
		 struct log_cell *ret) SLUICE_MUST_USE; /* NOT_FOUND */
int log_cell_put(struct apply *a, uint64_t log, const struct log_cell *cell) SLUICE_MUST_USE;

/* Header: u8 format, u8 flags (0), u8 codec, u8 0, u32 CRC of everything else, u32 count, u32 last
 * - first offset, u64 base of times, u64 largest time, u64 largest time of the log up to here, u64
 * age stamp of the append, u64 producer, u32 epoch, u32 raw bytes, u64 first sequence, u16 subject
 * bytes; subject; payload. */
enum { SEGMENT_HEADER_BYTES = 74, SEGMENT_FORMAT = 1, SEGMENT_CRC_AT = 4 };

struct segment_info {
	struct segment segment;
	uint64_t log_time_max_ms; /* running maximum */
	/* a stamp of age.h; in older versions the wall time, which is a valid stamp */
	uint64_t append_ms;
	uint64_t stored_bytes;
};
/* Only the header; its CRC also covers subject and payload, which follow it. */
void segment_header_encode(uint8_t header[SEGMENT_HEADER_BYTES], const struct segment_info *info);
/* CORRUPT: the length, the format or the CRC is wrong. The caller sets base, which is in the
 * key. */
int segment_decode(struct sluice_slice value, uint64_t base,
		   struct segment_info *ret) SLUICE_MUST_USE;
int segment_put(struct apply *a, uint64_t log, const struct segment_info *info) SLUICE_MUST_USE;
/* As core_segment_read, with the other fields of the header. */
int segment_find(struct store_txn *txn, uint32_t gateway, uint64_t log, uint64_t offset,
		 struct segment_info *ret) SLUICE_MUST_USE;

/* Base + delta, limited to valid times. */
uint64_t time_add(uint64_t base_ms, int64_t delta_ms);

#endif
