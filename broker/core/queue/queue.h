/* SPDX-License-Identifier: Apache-2.0
 * Queues of items, and entries of queues of jobs: puts, leases, reads. */
#ifndef SLUICE_CORE_QUEUE_QUEUE_H
#define SLUICE_CORE_QUEUE_QUEUE_H

#include "broker/core/base/reply.h"
#include "broker/core/queue/record.h"

/* Notifies consumers: an entry of the queue can be claimed; or an orphaned job of it, by those that
 * accept orphans of this source (0: of any). */
int queue_ready_effect(struct apply *a, uint64_t queue) SLUICE_MUST_USE;
int queue_orphan_effect(struct apply *a, uint64_t queue, uint64_t source) SLUICE_MUST_USE;

/* The name, terminated; empty when the queue was deleted meanwhile. */
enum { QUEUE_NAME_BUF = LIMIT_SIZE(NAME_BYTES_MAX) + 1 };
int queue_name(struct apply *a, uint64_t queue, char ret[QUEUE_NAME_BUF]) SLUICE_MUST_USE;

/* Creates the gateway's dead-letter queue; called by gateway_create. */
int queue_install_dead_letter(struct apply *a) SLUICE_MUST_USE;
struct queue_put_spec {
	struct sluice_slice envelope; /* encoded, with its subject and absolute: its time delta is
					 relative to time_ms */
	uint64_t time_ms;
	uint8_t priority;
	uint32_t delay_ms;
	/* name of the queue it was dead-lettered from, and the reason; empty: not dead */
	struct sluice_slice dead_from;
	struct sluice_slice dead_reason;
	uint32_t attempts;
};
/* Checks for room for count more records before the first write, so that a batch is refused as a
 * whole. Refuses NOT_FOUND, INVAL (the wrong kind), QUEUE_FULL. */
int queue_room_check(struct apply *a, uint64_t queue, Sluice__QueueKind kind, uint32_t count,
		     struct outcome *out) SLUICE_MUST_USE;
/* The same, and how many records each of them takes: 1, with priorities 2. */
int queue_room_check_records(struct apply *a, uint64_t queue, Sluice__QueueKind kind,
			     uint32_t count, uint32_t *ret_records,
			     struct outcome *out) SLUICE_MUST_USE;
int queue_put(struct apply *a, uint64_t queue, const struct queue_put_spec *spec,
	      uint64_t *ret_seq) SLUICE_MUST_USE;
/* Puts many events into one queue, in order; number of the first in *ret_seq. */
struct queue_put_event {
	size_t at, bytes; /* its envelope in the run's bytes, as in queue_put_spec */
	uint8_t priority;
};
struct queue_put_run {
	const struct queue_put_event *events;
	uint32_t count; /* at least 1 */
	const uint8_t *bytes;
	uint64_t time_ms;
	uint32_t delay_ms;
};
int queue_put_run(struct apply *a, uint64_t queue, const struct queue_put_run *run,
		  uint64_t *ret_seq) SLUICE_MUST_USE;
/* Queues of jobs: entries that refer to a job. The queue has an entry only while the job is
 * ready. */
int queue_job_put(struct apply *a, uint64_t queue, uint64_t job, uint8_t priority,
		  uint64_t *ret_seq) SLUICE_MUST_USE;
int queue_job_remove(struct apply *a, uint64_t queue, uint64_t seq,
		     uint8_t priority) SLUICE_MUST_USE;
/* Changes the counts of leased and orphaned jobs in the queue's cell. */
int queue_job_count(struct apply *a, uint64_t queue, int leased_delta,
		    int orphaned_delta) SLUICE_MUST_USE;

/* ---- claim.c: CLAIM of items, for dispatch/claim.c ---- */
int claim_items(struct apply *a, struct queue_cell *cell, const struct cmd_claim *m,
		struct outcome *out) SLUICE_MUST_USE;
/* One step of CLAIM_RESUME; out->id: where the next step continues, 0: this was the last. */
int claim_resume(struct apply *a, const struct cmd_claim *m, struct outcome *out) SLUICE_MUST_USE;

/* ---- lease.c ---- */
/* Returns an item after a failed attempt, which is counted: to the dead-letter queue at the queue's
 * maximum, else ready again (delayed by delay_ms). The caller updates cell->leased. */
int queue_item_back(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint64_t seq,
		    uint32_t delay_ms, struct sluice_slice reason) SLUICE_MUST_USE;
/* Returns an item that was never begun: ready at its old place (delayed by delay_ms). */
int queue_item_unbegun(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint64_t seq,
		       uint32_t delay_ms) SLUICE_MUST_USE;
int queue_lease_arm(struct apply *a, uint64_t queue, struct queue_cell *io_cell,
		    uint64_t deadline_ms) SLUICE_MUST_USE;
/* Monotone time of the last boot: leases granted before it run from there at the earliest. */
int queue_boot_mono(struct store_txn *txn, uint64_t *ret) SLUICE_MUST_USE;

/* At boot: timed leases run from now at the earliest (no scan). Called by BOOT. */
int queue_boot(struct apply *a) SLUICE_MUST_USE;
/* The queue of a grant from its token alone: a scan of each queue that has grants. NOT_FOUND. */
int queue_of_grant(struct apply *a, uint64_t token, uint64_t *ret) SLUICE_MUST_USE;
/* The session that held the grant has ended: returns items, up to *io_work records, which is
 * reduced by them; *ret_done: all are returned. */
int queue_session_ended(struct apply *a, uint64_t session, uint64_t queue, uint64_t token,
			uint32_t *io_work, bool *ret_done) SLUICE_MUST_USE;
int queue_leases_fire(struct apply *a, uint64_t queue, uint64_t sub,
		      uint32_t *io_work); /* TIMER_QUEUE_LEASES */
int queue_item_due_fire(struct apply *a, uint64_t queue, uint64_t seq,
			uint32_t *io_work); /* TIMER_ITEM_DUE */

/* ---- sweep.c ---- */
/* TIMER_SWEEP, SWEEP_QUEUE: records of a deleted queue, or of a purge. */
int queue_sweep(struct apply *a, uint64_t queue, uint32_t *io_work, bool *ret_done) SLUICE_MUST_USE;

int queue_query(struct query *q,
		const Sluice__Request *request); /* queue_show, queue_list, queue_peek */

#endif
