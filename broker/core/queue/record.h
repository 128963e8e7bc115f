/* SPDX-License-Identifier: Apache-2.0
 *
 * Records of queues: the cell of counts, items, grants (leases), entries in `ready`.
 */
#ifndef SLUICE_CORE_QUEUE_RECORD_H
#define SLUICE_CORE_QUEUE_RECORD_H

#include "broker/core/base/state.h"
#include "broker/util/invariant.h"

struct queue_cell {
	uint8_t kind;	  /* Sluice__QueueKind */
	uint8_t priority; /* a priority queue */
	uint8_t deleted;  /* only sweeping is left to do */
	uint32_t lease_ms;
	uint32_t max_attempts;
	uint64_t max_items; /* 0: no bound */
	/* queue number; 0: none (for the gateway's dead-letter queue itself) */
	uint64_t dead_letter;
	uint64_t head; /* first sequence number that was not granted in FIFO order */
	uint64_t tail; /* next to be assigned */
	uint64_t ready, leased, delayed, orphaned;
	uint64_t exceptions; /* entries in `ready` of this purge generation */
	uint64_t put, acked, dead, bytes;
	uint64_t lease_timer_due;      /* 0: no timer is set */
	uint64_t scan_token;	       /* expiry continues after this grant; 0: from the first */
	uint64_t scan_min;	       /* earliest deadline that this expiry walk has found */
	uint64_t sweep_from, sweep_to; /* range of purged items that are still to be removed */
	/* time of the next expiry walk: large numbers of grants are not walked for each deadline */
	uint64_t scan_not_before;
	uint32_t purge_generation; /* entries in `ready` with an older one are purged */
};

enum {
	QUEUE_ITEM_FIXED_BYTES = 28,
	QUEUE_GRANT_BYTES_MAX = 32 + 2 * (1024 / 8) + 16,
	QUEUE_DEFAULT_LEASE_MS = 30000,
	QUEUE_DEFAULT_ATTEMPTS = 20
};

/* 1: the format without scan_not_before; it can be read. */
enum { QUEUE_CELL_1_BYTES = 3 + 3 * 4 + 18 * 8, QUEUE_CELL_BYTES = QUEUE_CELL_1_BYTES + 8 };
void queue_cell_encode(uint8_t buf[QUEUE_CELL_BYTES], const struct queue_cell *cell);
int queue_cell_decode(struct sluice_slice value,
		      struct queue_cell *ret) SLUICE_MUST_USE; /* CORRUPT */
int queue_cell_get(struct store_txn *txn, uint32_t gateway, uint64_t queue,
		   struct queue_cell *ret) SLUICE_MUST_USE; /* NOT_FOUND */
int queue_cell_put(struct apply *a, uint64_t queue, const struct queue_cell *cell) SLUICE_MUST_USE;

/* The record of a delayed item has this added to its number until it is due. */
#define QUEUE_DELAYED (1ull << 63)

/* A sweep scans the items in order first, then the exceptions: sweep_from is this bit, 255 -
 * priority << 48 and the next number. */
#define QUEUE_SWEEP_EXCEPTIONS (1ull << 63)
/* With it, a purge scans for damaged items that no claim can reach: both bits, the half of the
 * queue's items (QUEUE_SWEEP_DELAYED: the upper one), and the next number. */
#define QUEUE_SWEEP_DAMAGED (1ull << 62)
#define QUEUE_SWEEP_DELAYED (1ull << 61)

/* OVERTAKEN: it was due only after head had passed it, so it is an exception and not counted by a
 * purge in order. */
enum item_flag { ITEM_DELAYED = 1, ITEM_OVERTAKEN = 2 };
struct queue_item {
	uint64_t put_time_ms;
	uint32_t attempts;
	uint8_t priority;
	uint8_t flags;
	uint64_t due_mono_ms; /* delayed */
	struct sluice_slice dead_from, dead_reason, last_reason;
	struct sluice_slice body; /* envelope; a job's number (u64) in a queue of jobs */
};
/* The part of fixed size; the three texts and the body follow it. */
void queue_item_head_encode(uint8_t head[QUEUE_ITEM_FIXED_BYTES], const struct queue_item *item);
int queue_item_decode(struct sluice_slice value,
		      struct queue_item *ret) SLUICE_MUST_USE; /* CORRUPT */
int queue_item_put(struct apply *a, uint64_t queue, uint64_t seq,
		   const struct queue_item *item) SLUICE_MUST_USE;
/* Borrowed until the next write. */
int queue_item_get(struct store_txn *txn, uint32_t gateway, uint64_t queue, uint64_t seq,
		   struct queue_item *ret) SLUICE_MUST_USE;
int queue_item_del(struct apply *a, uint64_t queue, uint64_t seq) SLUICE_MUST_USE;
/* Copies the strings of an item to the effects' memory, so that the store may be written. NOMEM. */
int queue_item_keep(struct apply *a, struct queue_item *io_item) SLUICE_MUST_USE;
/* The same for a purged item: a damaged one is deleted too, but its share of io_cell->bytes
 * stays. */
int queue_item_drop(struct apply *a, uint64_t queue, struct queue_cell *io_cell,
		    uint64_t seq) SLUICE_MUST_USE;
uint64_t queue_item_bytes(const struct queue_item *item);

enum grant_kind { GRANT_TIMED = 0, GRANT_SESSION = 1 };
struct queue_grant {
	uint64_t session;
	uint8_t kind;
	uint64_t deadline_ms; /* durable monotone; timed */
	uint32_t lease_ms;
	uint64_t since_ms;	/* durable monotone time of the grant; 0: not known */
	uint32_t extend_max_ms; /* timed: as in cmd_claim */
	uint64_t first;		/* sequence number of bit 0 */
	uint16_t bits;		/* up to LIMIT_GRANT_ITEMS_MAX */
	uint16_t out;		/* bits that are set */
	bool reports;	/* the consumer reports the items that it begins: others were not begun */
	bool any_begun; /* a bit of begun is set */
	uint8_t bitmap[LIMIT_SIZE(GRANT_ITEMS_MAX) / 8];
	uint8_t begun[LIMIT_SIZE(GRANT_ITEMS_MAX) / 8]; /* reported by the consumer */
};
static inline bool grant_has(const struct queue_grant *grant, uint64_t seq)
{
	return seq >= grant->first && seq - grant->first < grant->bits &&
	       (grant->bitmap[(seq - grant->first) / 8] >> ((seq - grant->first) % 8) & 1) != 0;
}
/* Whether the end of the lease counts as a failed attempt of this item. Begun items: those that the
 * consumer reported; for a consumer that does not report, the first item still held (`first_held`),
 * because items are processed in order. */
static inline bool grant_was_begun(const struct queue_grant *grant, uint64_t seq,
				   uint64_t first_held)
{
	uint64_t bit = seq - grant->first;

	return (grant->begun[bit / 8] >> (bit % 8) & 1) != 0 ||
	       (!grant->reports && seq == first_held);
}
void grant_set(struct queue_grant *grant, uint64_t seq);
void grant_begin(struct queue_grant *grant, uint64_t seq); /* marks a held item as begun */
void grant_clear(struct queue_grant *grant, uint64_t seq);
/* Returns the bytes written. */
size_t grant_encode(uint8_t buf[QUEUE_GRANT_BYTES_MAX], const struct queue_grant *grant);
int grant_decode(struct sluice_slice value, struct queue_grant *ret) SLUICE_MUST_USE;
int grant_get(struct store_txn *txn, uint32_t gateway, uint64_t queue, uint64_t token,
	      struct queue_grant *ret) SLUICE_MUST_USE;
/* Writes the grant, or deletes it when no item is left. */
int grant_store(struct apply *a, uint64_t queue, uint64_t token,
		const struct queue_grant *grant) SLUICE_MUST_USE;

enum { READY_BYTES = 4 };
void ready_encode(uint8_t buf[READY_BYTES], uint32_t purge_generation);
/* False: the length is wrong. */
bool ready_decode(struct sluice_slice value, uint32_t *ret_purge_generation);
/* Adds an entry to `ready` in the current purge generation. */
int ready_put(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint8_t priority,
	      uint64_t seq) SLUICE_MUST_USE;

#endif
