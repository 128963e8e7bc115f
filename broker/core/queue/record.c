/* SPDX-License-Identifier: Apache-2.0
 * Queue records: cell, item, grant, ready entry; bytes <-> structs. Layouts are in one function
 * pair each, big-endian, packed. */
#include <assert.h>

#include "broker/core/base/state.h"
#include "broker/core/queue/record.h"
#include "broker/core/session/session.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

/* ---- cell ---- */

static const size_t cell_u64_offsets[] = {
	offsetof(struct queue_cell, max_items),
	offsetof(struct queue_cell, dead_letter),
	offsetof(struct queue_cell, head),
	offsetof(struct queue_cell, tail),
	offsetof(struct queue_cell, ready),
	offsetof(struct queue_cell, leased),
	offsetof(struct queue_cell, delayed),
	offsetof(struct queue_cell, orphaned),
	offsetof(struct queue_cell, exceptions),
	offsetof(struct queue_cell, put),
	offsetof(struct queue_cell, acked),
	offsetof(struct queue_cell, dead),
	offsetof(struct queue_cell, bytes),
	offsetof(struct queue_cell, lease_timer_due),
	offsetof(struct queue_cell, scan_token),
	offsetof(struct queue_cell, scan_min),
	offsetof(struct queue_cell, sweep_from),
	offsetof(struct queue_cell, sweep_to),
	offsetof(struct queue_cell, scan_not_before),
};
enum {
	CELL_U64_COUNT = sizeof(cell_u64_offsets) / sizeof(cell_u64_offsets[0]),
	/* in cells written before scan_not_before existed */
	CELL_U64_COUNT_FIRST = CELL_U64_COUNT - 1,
	CELL_FIXED = 3 + 4 * 3
};

static_assert(CELL_FIXED + 8 * CELL_U64_COUNT == QUEUE_CELL_BYTES &&
		      CELL_FIXED + 8 * CELL_U64_COUNT_FIRST == QUEUE_CELL_1_BYTES,
	      "the cell is on disk: its sizes are fixed");

void queue_cell_encode(uint8_t buf[QUEUE_CELL_BYTES], const struct queue_cell *cell)
{
	buf[0] = cell->kind;
	buf[1] = cell->priority;
	buf[2] = cell->deleted;
	put_be32(buf + 3, cell->lease_ms);
	put_be32(buf + 7, cell->max_attempts);
	put_be32(buf + 11, cell->purge_generation);
	for (size_t i = 0; i < CELL_U64_COUNT; i++) {
		uint64_t number;

		memcpy(&number, (const char *)cell + cell_u64_offsets[i], sizeof(number));
		put_be64(buf + CELL_FIXED + 8 * i, number);
	}
}

int queue_cell_decode(struct sluice_slice value, struct queue_cell *ret)
{
	const uint8_t *at = value.data;
	size_t count;

	if (value.len != QUEUE_CELL_BYTES && value.len != QUEUE_CELL_1_BYTES)
		return store_damaged("its content is not valid");
	count = (value.len - CELL_FIXED) / 8;
	ret->scan_not_before = 0;
	ret->kind = at[0];
	ret->priority = at[1];
	ret->deleted = at[2];
	ret->lease_ms = get_be32(at + 3);
	ret->max_attempts = get_be32(at + 7);
	ret->purge_generation = get_be32(at + 11);
	for (size_t i = 0; i < count; i++) {
		uint64_t number = get_be64(at + CELL_FIXED + 8 * i);

		memcpy((char *)ret + cell_u64_offsets[i], &number, sizeof(number));
	}
	return 0;
}

int queue_cell_get(struct store_txn *txn, uint32_t gateway, uint64_t queue, struct queue_cell *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_hot(&key, gateway, HOT_QUEUE, queue);
	rc = store_get(txn, STORE_HOT, key_slice(&key), &value);
	return rc != 0 ? rc : queue_cell_decode(value, ret);
}

/* Checks without reading the items: a count that fell below zero is nearly 2^64. */
static void cell_check(uint64_t queue, const struct queue_cell *cell)
{
	invariant(cell->kind <= SLUICE__QUEUE_KIND__QUEUE_JOBS && cell->priority <= 1 &&
			  cell->deleted <= 1,
		  "queue %llu: kind %u, priority %u, deleted %u", ULL(queue), cell->kind,
		  cell->priority, cell->deleted);
	invariant(!cell->priority || cell->head == cell->tail,
		  "queue %llu has priorities: head %llu, tail %llu", ULL(queue), ULL(cell->head),
		  ULL(cell->tail));
	/* At the end of the entries in order counts are not checked: records lost to damage leave
	 * them too high. */
	invariant(cell->head == cell->tail ||
			  cell->ready - cell->exceptions <= cell->tail - cell->head,
		  "queue %llu: ready %llu, exceptions %llu, head %llu, tail %llu", ULL(queue),
		  ULL(cell->ready), ULL(cell->exceptions), ULL(cell->head), ULL(cell->tail));
	invariant(cell->sweep_from <= cell->sweep_to || (cell->sweep_from & QUEUE_SWEEP_EXCEPTIONS),
		  "queue %llu: swept from %llu to %llu", ULL(queue), ULL(cell->sweep_from),
		  ULL(cell->sweep_to));
	invariant(cell->sweep_to <= cell->tail, "queue %llu: swept to %llu, tail %llu", ULL(queue),
		  ULL(cell->sweep_to), ULL(cell->tail));
	invariant(cell->tail < QUEUE_DELAYED, "queue %llu: tail %llu", ULL(queue), ULL(cell->tail));
	invariant(cell->head <= cell->tail, "queue %llu: head %llu, tail %llu",
		  (unsigned long long)queue, (unsigned long long)cell->head,
		  (unsigned long long)cell->tail);
	invariant(cell->exceptions <= cell->ready, "queue %llu: %llu exceptions, %llu ready",
		  (unsigned long long)queue, (unsigned long long)cell->exceptions,
		  (unsigned long long)cell->ready);
	invariant(((cell->ready | cell->leased | cell->delayed | cell->orphaned | cell->bytes) >>
		   63) == 0,
		  "queue %llu: ready %llu, leased %llu, delayed %llu, orphaned %llu, bytes %llu",
		  (unsigned long long)queue, (unsigned long long)cell->ready,
		  (unsigned long long)cell->leased, (unsigned long long)cell->delayed,
		  (unsigned long long)cell->orphaned, (unsigned long long)cell->bytes);
}

int queue_cell_put(struct apply *a, uint64_t queue, const struct queue_cell *cell)
{
	uint8_t bytes[QUEUE_CELL_BYTES];
	struct key key;

	cell_check(queue, cell);
	queue_cell_encode(bytes, cell);
	key_hot(&key, a->gateway, HOT_QUEUE, queue);
	return store_put(a->txn, STORE_HOT, key_slice(&key),
			 (struct sluice_slice){bytes, sizeof(bytes)});
}

/* ---- item: u64 put time, u32 attempts, u8 priority, u8 flags, u16 dead_from, u16 dead_reason, u16
 * last_reason, u64 due; strings; body ---- */

void queue_item_head_encode(uint8_t head[QUEUE_ITEM_FIXED_BYTES], const struct queue_item *item)
{
	put_be64(head, item->put_time_ms);
	put_be32(head + 8, item->attempts);
	head[12] = item->priority;
	head[13] = item->flags;
	put_be16(head + 14, (uint16_t)item->dead_from.len);
	put_be16(head + 16, (uint16_t)item->dead_reason.len);
	put_be16(head + 18, (uint16_t)item->last_reason.len);
	put_be64(head + 20, item->due_mono_ms);
}

int queue_item_decode(struct sluice_slice value, struct queue_item *ret)
{
	const uint8_t *at = value.data;
	size_t from, reason, last;

	if (value.len < QUEUE_ITEM_FIXED_BYTES)
		return store_damaged("its content is not valid");
	from = get_be16(at + 14);
	reason = get_be16(at + 16);
	last = get_be16(at + 18);
	if (QUEUE_ITEM_FIXED_BYTES + from + reason + last > value.len)
		return store_damaged("its content is not valid");
	ret->put_time_ms = get_be64(at);
	ret->attempts = get_be32(at + 8);
	ret->priority = at[12];
	ret->flags = at[13];
	ret->due_mono_ms = get_be64(at + 20);
	at += QUEUE_ITEM_FIXED_BYTES;
	ret->dead_from = (struct sluice_slice){at, from};
	ret->dead_reason = (struct sluice_slice){at + from, reason};
	ret->last_reason = (struct sluice_slice){at + from + reason, last};
	at += from + reason + last;
	ret->body = (struct sluice_slice){at, value.len - QUEUE_ITEM_FIXED_BYTES - from - reason -
						      last};
	return 0;
}

int queue_item_put(struct apply *a, uint64_t queue, uint64_t seq, const struct queue_item *item)
{
	uint8_t fixed[QUEUE_ITEM_FIXED_BYTES];
	struct iovec parts[5];
	struct key key;

	invariant(seq != 0, "queue %llu: an item without a number", ULL(queue));
	invariant(item->dead_from.len <= UINT16_MAX && item->dead_reason.len <= UINT16_MAX &&
			  item->last_reason.len <= UINT16_MAX,
		  "queue %llu, item %llu: texts of %zu, %zu and %zu bytes", ULL(queue), ULL(seq),
		  item->dead_from.len, item->dead_reason.len, item->last_reason.len);
	invariant((item->flags & ITEM_DELAYED) == 0 || item->due_mono_ms != 0,
		  "queue %llu, item %llu is delayed until 0", ULL(queue), ULL(seq));
	queue_item_head_encode(fixed, item);
	parts[0] = (struct iovec){fixed, sizeof(fixed)};
	parts[1] = (struct iovec){(void *)(uintptr_t)item->dead_from.data, item->dead_from.len};
	parts[2] = (struct iovec){(void *)(uintptr_t)item->dead_reason.data, item->dead_reason.len};
	parts[3] = (struct iovec){(void *)(uintptr_t)item->last_reason.data, item->last_reason.len};
	parts[4] = (struct iovec){(void *)(uintptr_t)item->body.data, item->body.len};
	core_worked(a->core, sizeof(fixed) + item->body.len);
	key_two(&key, a->gateway, queue, seq);
	return store_putv(a->txn, STORE_ITEM, key_slice(&key), parts, 5);
}

int queue_item_get(struct store_txn *txn, uint32_t gateway, uint64_t queue, uint64_t seq,
		   struct queue_item *ret)
{
	struct key key;
	struct sluice_slice value;
	int rc;

	key_two(&key, gateway, queue, seq);
	rc = store_get(txn, STORE_ITEM, key_slice(&key), &value);
	return rc != 0 ? rc : queue_item_decode(value, ret);
}

int queue_item_del(struct apply *a, uint64_t queue, uint64_t seq)
{
	struct key key;

	core_worked(a->core, 0);
	key_two(&key, a->gateway, queue, seq);
	return store_del(a->txn, STORE_ITEM, key_slice(&key));
}

int queue_item_keep(struct apply *a, struct queue_item *io_item)
{
	struct sluice_slice *parts[] = {&io_item->dead_from, &io_item->dead_reason,
					&io_item->last_reason, &io_item->body};
	uint8_t *copy =
		effects_alloc(a->effects, io_item->dead_from.len + io_item->dead_reason.len +
						  io_item->last_reason.len + io_item->body.len);

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		if (parts[i]->len > 0)
			memcpy(copy, parts[i]->data, parts[i]->len);
		parts[i]->data = copy;
		copy += parts[i]->len;
	}
	return 0;
}

int queue_item_drop(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint64_t seq)
{
	struct queue_item item;
	int rc = queue_item_get(a->txn, a->gateway, queue, seq, &item);

	if (rc == 0)
		io_cell->bytes -= queue_item_bytes(&item);
	return rc == 0 || rc == SLUICE_E_CORRUPT ? queue_item_del(a, queue, seq) : rc;
}

uint64_t queue_item_bytes(const struct queue_item *item)
{
	return QUEUE_ITEM_FIXED_BYTES + item->body.len;
}

/* ---- grant: u64 session, u8 kind and bits, u64 deadline, u32 lease, u64 first, u16 bits, u16 out,
 * bitmap, with GRANT_BEGUN another of the same size: what is begun, with GRANT_SINCE u64 since
 * when, with GRANT_EXTEND_MAX u32 ms ---- */

enum { GRANT_FIXED_BYTES = 8 + 1 + 8 + 4 + 8 + 2 + 2 };
/* Beside the kind; 128 is reserved for a list of numbers instead of the bitmap. */
enum {
	GRANT_EXTEND_MAX = 8,
	GRANT_SINCE = 16,
	GRANT_REPORTS = 32,
	GRANT_BEGUN = 64,
	GRANT_KIND_MASK = 7
};

static_assert(GRANT_FIXED_BYTES + 2 * (LIMIT_SIZE(GRANT_ITEMS_MAX) / 8) + 8 + 4 <=
		      QUEUE_GRANT_BYTES_MAX,
	      "room for all fields");

void grant_set(struct queue_grant *grant, uint64_t seq)
{
	uint64_t bit = seq - grant->first;

	invariant(bit < LIMIT_GRANT_ITEMS_MAX && !grant_has(grant, seq),
		  "item %llu in a grant from %llu", ULL(seq), ULL(grant->first));
	grant->bitmap[bit / 8] |= (uint8_t)(1u << (bit % 8));
	grant->out++;
	if (bit >= grant->bits)
		grant->bits = (uint16_t)(bit + 1);
}

void grant_begin(struct queue_grant *grant, uint64_t seq)
{
	uint64_t bit = seq - grant->first;

	invariant(grant_has(grant, seq), "item %llu is begun, and not in the grant from %llu",
		  ULL(seq), ULL(grant->first));
	grant->begun[bit / 8] |= (uint8_t)(1u << (bit % 8));
	grant->any_begun = true;
}

void grant_clear(struct queue_grant *grant, uint64_t seq)
{
	uint64_t bit = seq - grant->first;

	invariant(grant_has(grant, seq) && grant->out > 0,
		  "item %llu is not out in the grant from %llu of %u bits, %u out",
		  (unsigned long long)seq, (unsigned long long)grant->first, grant->bits,
		  grant->out);
	grant->bitmap[bit / 8] &= (uint8_t) ~(1u << (bit % 8));
	grant->begun[bit / 8] &= (uint8_t) ~(1u << (bit % 8));
	grant->out--;
}

size_t grant_encode(uint8_t buf[QUEUE_GRANT_BYTES_MAX], const struct queue_grant *grant)
{
	size_t map = (grant->bits + 7u) / 8, size = GRANT_FIXED_BYTES + map;

	put_be64(buf, grant->session);
	buf[8] = (uint8_t)(grant->kind | (grant->reports ? GRANT_REPORTS : 0) |
			   (grant->any_begun ? GRANT_BEGUN : 0) |
			   (grant->since_ms != 0 ? GRANT_SINCE : 0) |
			   (grant->extend_max_ms != 0 ? GRANT_EXTEND_MAX : 0));
	put_be64(buf + 9, grant->deadline_ms);
	put_be32(buf + 17, grant->lease_ms);
	put_be64(buf + 21, grant->first);
	put_be16(buf + 29, grant->bits);
	put_be16(buf + 31, grant->out);
	memcpy(buf + GRANT_FIXED_BYTES, grant->bitmap, map);
	if (grant->any_begun) {
		memcpy(buf + size, grant->begun, map);
		size += map;
	}
	if (grant->since_ms != 0) {
		put_be64(buf + size, grant->since_ms);
		size += 8;
	}
	if (grant->extend_max_ms != 0) {
		put_be32(buf + size, grant->extend_max_ms);
		size += 4;
	}
	return size;
}

int grant_decode(struct sluice_slice value, struct queue_grant *ret)
{
	const uint8_t *at = value.data;
	size_t bytes, since, extend_max;

	if (value.len < GRANT_FIXED_BYTES)
		return store_damaged("its content is not valid");
	ret->session = get_be64(at);
	ret->kind = at[8] & GRANT_KIND_MASK;
	ret->reports = (at[8] & GRANT_REPORTS) != 0;
	ret->any_begun = (at[8] & GRANT_BEGUN) != 0;
	ret->deadline_ms = get_be64(at + 9);
	ret->lease_ms = get_be32(at + 17);
	ret->first = get_be64(at + 21);
	ret->bits = get_be16(at + 29);
	ret->out = get_be16(at + 31);
	bytes = (ret->bits + 7u) / 8;
	since = GRANT_FIXED_BYTES + bytes * (ret->any_begun ? 2 : 1);
	extend_max = since + (at[8] & GRANT_SINCE ? 8 : 0);
	if (ret->kind > GRANT_SESSION || bytes > sizeof(ret->bitmap) ||
	    value.len != extend_max + (at[8] & GRANT_EXTEND_MAX ? 4u : 0u))
		return store_damaged("its content is not valid");
	memset(ret->bitmap, 0, sizeof(ret->bitmap));
	memcpy(ret->bitmap, at + GRANT_FIXED_BYTES, bytes);
	memset(ret->begun, 0, sizeof(ret->begun));
	if (ret->any_begun)
		memcpy(ret->begun, at + GRANT_FIXED_BYTES + bytes, bytes);
	ret->since_ms = at[8] & GRANT_SINCE ? get_be64(at + since) : 0;
	ret->extend_max_ms = at[8] & GRANT_EXTEND_MAX ? get_be32(at + extend_max) : 0;
	return 0;
}

int grant_get(struct store_txn *txn, uint32_t gateway, uint64_t queue, uint64_t token,
	      struct queue_grant *ret)
{
	struct key key;
	struct sluice_slice value;
	int rc;

	key_two(&key, gateway, queue, token);
	rc = store_get(txn, STORE_GRANT, key_slice(&key), &value);
	return rc != 0 ? rc : grant_decode(value, ret);
}

/* `out` is the number of set bits, and only held items can be begun. */
static void bits_check(uint64_t queue, uint64_t token, const struct queue_grant *grant)
{
	uint64_t bits, begun;
	int out = 0;

	for (size_t i = 0; i * 64 < grant->bits; i++) {
		memcpy(&bits, grant->bitmap + i * 8, sizeof(bits));
		memcpy(&begun, grant->begun + i * 8, sizeof(begun));
		out += __builtin_popcountll(bits);
		invariant((begun & ~bits) == 0, "queue %llu, grant %llu: what is not out is begun",
			  ULL(queue), ULL(token));
	}
	invariant(out == grant->out, "queue %llu, grant %llu: %d bits are set, %u are out",
		  ULL(queue), ULL(token), out, grant->out);
}

int grant_store(struct apply *a, uint64_t queue, uint64_t token, const struct queue_grant *grant)
{
	uint8_t bytes[QUEUE_GRANT_BYTES_MAX];
	size_t size;
	struct key key;

	invariant(grant->bits <= LIMIT_GRANT_ITEMS_MAX && grant->out <= grant->bits,
		  "queue %llu, grant %llu: %u out of %u", ULL(queue), ULL(token), grant->out,
		  grant->bits);
	invariant(grant->session != 0 && token != 0 && token <= a->index,
		  "queue %llu: grant %llu of session %llu, at index %llu", ULL(queue), ULL(token),
		  ULL(grant->session), ULL(a->index));
	key_two(&key, a->gateway, queue, token);
	if (grant->out == 0) {
		if (grant->kind == GRANT_SESSION) {
			int rc = session_disown(a, grant->session, OWNED_GRANT, token);

			if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
				return rc;
		}
		return store_del(a->txn, STORE_GRANT, key_slice(&key));
	}
	bits_check(queue, token, grant);
	size = grant_encode(bytes, grant);
	return store_put(a->txn, STORE_GRANT, key_slice(&key), (struct sluice_slice){bytes, size});
}

/* ---- ready: the value is the purge generation ---- */

void ready_encode(uint8_t buf[READY_BYTES], uint32_t purge_generation)
{
	put_be32(buf, purge_generation);
}

bool ready_decode(struct sluice_slice value, uint32_t *ret_purge_generation)
{
	if (value.len != READY_BYTES)
		return false;
	*ret_purge_generation = get_be32(value.data);
	return true;
}

int ready_put(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint8_t priority,
	      uint64_t seq)
{
	struct key key;
	uint8_t generation[READY_BYTES];

	invariant(seq < io_cell->tail, "queue %llu: item %llu comes back, tail %llu", ULL(queue),
		  ULL(seq), ULL(io_cell->tail));
	ready_encode(generation, io_cell->purge_generation);
	key_ready(&key, a->gateway, queue, io_cell->priority ? priority : 0, 0, seq);
	io_cell->exceptions++;
	core_worked(a->core, 0);
	return store_put(a->txn, STORE_READY, key_slice(&key),
			 (struct sluice_slice){generation, sizeof(generation)});
}
