/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams: append, retention, reads.
 */
#ifndef SLUICE_CORE_STREAM_STREAM_H
#define SLUICE_CORE_STREAM_STREAM_H

#include "broker/core/base/reply.h"
#include "broker/core/stream/segment.h"
#include "protocol/envelope.h"

/* Appends a run of envelopes to a stream; offset of the first in *ret_offset. */
struct append_spec {
	struct sluice_slice subject;
	struct sluice_slice payload;
	uint8_t codec;
	uint32_t raw_bytes;
	uint32_t count;
	uint64_t time_ms;
	int64_t time_delta_max_ms;
	uint64_t producer;
	uint32_t epoch;
	uint64_t first_seq;
};
int stream_append(struct apply *a, uint64_t stream, const struct append_spec *spec,
		  uint64_t *ret_offset) SLUICE_MUST_USE;

/* ---- cursors ---- */
struct cursor_cell {
	uint64_t offset;
	uint64_t time_ms; /* wall time of the last set */
};
enum { CURSOR_CELL_BYTES = 8 + 8 };
void cursor_cell_encode(uint8_t buf[CURSOR_CELL_BYTES], const struct cursor_cell *cell);
int cursor_cell_decode(struct sluice_slice value,
		       struct cursor_cell *ret) SLUICE_MUST_USE; /* CORRUPT */
int cursor_cell_get(struct store_txn *txn, uint32_t gateway, uint64_t stream, uint64_t cursor,
		    struct cursor_cell *ret) SLUICE_MUST_USE; /* NOT_FOUND */

/* ---- log.c ---- */
/* Stores a segment at the end: sets its times and adds its bytes to the cell, which the caller
 * stores. */
int segment_append(struct apply *a, uint64_t stream, struct log_cell *cell,
		   struct segment_info *info) SLUICE_MUST_USE;
/* Notes that the log grew, for the batch's end. */
int stream_grown(struct apply *a, uint64_t stream) SLUICE_MUST_USE;
/* At the batch's end: FX_LOG_GROWN, once per log. */
int stream_grown_emit(struct core *core, struct store_txn *txn,
		      struct effects *effects) SLUICE_MUST_USE;

/* ---- pending.c: events that core publishes, stored at the end of their command ---- */
int pending_add(struct apply *a, uint64_t stream, const struct envelope *envelope) SLUICE_MUST_USE;
int pending_flush(struct apply *a) SLUICE_MUST_USE;
/* Before another append to the same log. */
int pending_flush_log(struct apply *a, uint64_t stream) SLUICE_MUST_USE;
void pending_drop(struct core *core); /* for a refused transaction, an aborted batch */

/* ---- retention.c ---- */
/* Within *io_work records; sets a timer for the rest. Changes the cell without storing it. */
int retention_run(struct apply *a, uint64_t stream, struct log_cell *cell,
		  uint32_t *io_work) SLUICE_MUST_USE;
enum { RETENTION_WORK_PER_APPEND = 8 };
/* TIMER_STREAM_RETENTION. */
int stream_retention_fire(struct apply *a, uint64_t stream, uint64_t sub, uint32_t *io_work);
/* TIMER_SWEEP, SWEEP_STREAM: records of a deleted stream. */
int stream_sweep(struct apply *a, uint64_t stream, uint32_t *io_work,
		 bool *ret_done) SLUICE_MUST_USE;

int stream_query(struct query *q, const Sluice__Request *request); /* stream_show, stream_list */

#endif
