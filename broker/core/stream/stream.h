/* SPDX-License-Identifier: Apache-2.0
 *
 * A stream's insides, shared by the stream_*.c files. A native stream has one log, whose number is the
 * stream's own.
 *
 * The log's head is a hot cell, with the bounds of the configuration in it, so that an append reads nothing
 * else. Its segments are records of STORE_LOG keyed by their first offset. `first` may lie inside the first
 * segment: a bound on events trims by offset, and a segment goes when it lies wholly below `first`.
 *
 * A segment: the header below, subject, payload as the publisher sent it. Its CRC covers everything but the
 * key, so a segment keeps its bytes wherever its offset is.
 */
#ifndef SLUICE_CORE_STREAM_H
#define SLUICE_CORE_STREAM_H

#include "broker/core/base/state.h"

struct log_cell {
	bool deleted;	/* only sweeping is left */
	uint64_t first; /* lowest offset that is readable */
	uint64_t next;
	uint64_t base;	      /* of the oldest stored segment; next when there is none */
	uint64_t bytes;	      /* of stored segments */
	uint64_t time_max_ms; /* of all events that ever were: seeking by time relies on it */
	uint64_t max_age_ms, max_bytes, max_events; /* 0: no bound */
	uint64_t timer_due;			    /* of the retention timer; 0: none is set */
};

int log_cell_get(struct store_txn *txn, uint32_t gateway, uint64_t log,
		 struct log_cell *ret) SLUICE_MUST_USE; /* NOT_FOUND */
int log_cell_put(struct apply *a, uint64_t log, const struct log_cell *cell) SLUICE_MUST_USE;

/* Header: u8 format, u8 flags (0), u8 codec, u8 0, u32 CRC of everything else, u32 count, u32 last - first
 * offset, u64 base of times, u64 largest time, u64 largest time of the log up to here, u64 age stamp of the
 * append, u64 producer, u32 epoch, u32 raw bytes, u64 first sequence, u16 subject bytes; subject; payload. */
enum { SEGMENT_HEADER_BYTES = 74, SEGMENT_FORMAT = 1, SEGMENT_CRC_AT = 4 };

struct segment_info {
	struct segment segment;
	uint64_t log_time_max_ms; /* running maximum */
	uint64_t append_ms;	  /* a stamp of age.h; of older versions the wall time, which fits */
	uint64_t stored_bytes;
};
/* CORRUPT: the length, the format or the CRC is wrong. base is the caller's: it is in the key. */
int segment_decode(struct sluice_slice value, uint64_t base, struct segment_info *ret) SLUICE_MUST_USE;
int segment_put(struct apply *a, uint64_t log, const struct segment_info *info) SLUICE_MUST_USE;
/* As core_segment_read, with the rest of the header. */
int segment_find(struct store_txn *txn, uint32_t gateway, uint64_t log, uint64_t offset,
		 struct segment_info *ret) SLUICE_MUST_USE;

/* Stores a segment at the end: fills its times and counts its bytes in the cell, which the caller stores. */
int segment_append(struct apply *a, uint64_t stream, struct log_cell *cell,
		   struct segment_info *info) SLUICE_MUST_USE;

/* base + delta, kept within what is a time. */
uint64_t time_add(uint64_t base_ms, int64_t delta_ms);

/* stream_retention.c: within *io_work records; sets the timer for what is left. Changes the cell, does not
 * store it. */
int retention_run(struct apply *a, uint64_t stream, struct log_cell *cell, uint32_t *io_work) SLUICE_MUST_USE;
enum { RETENTION_WORK_PER_APPEND = 8 };

#endif
