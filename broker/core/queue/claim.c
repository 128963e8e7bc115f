/* SPDX-License-Identifier: Apache-2.0
 *
 * CLAIM: up to max ready items (or jobs) become a lease of one session. Exceptions first, since
 * they are older, then head onward. One claim makes one grant; what does not fit (a window of
 * GRANT_ITEMS_MAX numbers, CLAIM_BYTES_MAX of bodies) is announced again by FX_QUEUE_READY.
 *
 * A claim that grants fewer than max tells the engine that nothing is left which this consumer
 * could have. So each that stops for another reason (a window, bytes, damage in front of it) has to
 * announce what is left: entries, and orphans if it takes them.
 */
#include "broker/core/base/state.h"
#include "broker/core/queue/queue.h"
#include "protocol/limits.h"

/* A delivery grows to this before it is cut; one item is always granted. Keeps frames far below FRAME_BYTES_MAX. */
enum {
	CLAIM_BYTES_MAX = 1 << 20,
	DELIVER_ITEM_PREFIX_BYTES = 2 + 8,
	DROP_PURGED_MAX = 256,
	STEP_OVER_MAX = 256, /* delayed items that lie in place */
	RESUME_AT_ONCE = 64
};

/* Damaged items that one claim passes by. */
enum { SET_ASIDE_MAX = 64 };

struct picked {
	uint64_t seq[LIMIT_SIZE(GRANT_ITEMS_MAX)];
	uint32_t count;
	uint64_t bytes; /* of the payload */
	uint32_t set_aside;
	uint32_t dropped; /* what was purged and not swept yet */
	uint32_t stepped; /* over what is delayed and lies in place, in a store of before */
};

/* It got on, whether it picked something or not: the next claim goes on there. */
static bool got_on(const struct picked *picked, uint32_t taken)
{
	return taken + picked->set_aside + picked->dropped + picked->stepped > 0;
}

static void picked_clear(struct picked *picked)
{
	picked->count = picked->set_aside = picked->dropped = picked->stepped = 0;
	picked->bytes = 0;
}

static bool window_has(const struct picked *picked, uint64_t seq)
{
	if (picked->count == 0)
		return true;
	return seq >= picked->seq[0] && seq - picked->seq[0] < LIMIT_GRANT_ITEMS_MAX;
}

static bool bytes_fit(const struct picked *picked, uint64_t body_bytes)
{
	return picked->count == 0 ||
	       picked->bytes + body_bytes + DELIVER_ITEM_PREFIX_BYTES <= CLAIM_BYTES_MAX;
}

static void pick(struct picked *picked, uint64_t seq, uint64_t body_bytes)
{
	picked->seq[picked->count++] = seq;
	picked->bytes += body_bytes + DELIVER_ITEM_PREFIX_BYTES;
}

static bool ready_key_of(struct sluice_slice key, uint32_t gateway, uint64_t queue, uint64_t *ret_seq)
{
	const uint8_t *at = key.data;

	if (key.len != 4 + 8 + 1 + 8 + 8 || get_be32(at) != gateway || get_be64(at + 4) != queue)
		return false;
	*ret_seq = get_be64(at + 21);
	return true;
}

/* ---- damage ---- */

static int tell_damaged(struct apply *a, uint64_t queue, uint64_t seq, uint64_t token)
{
	struct effect effect = {.kind = FX_ITEM_DAMAGED,
				.command = a->position,
				.gateway = a->gateway,
				.id = queue,
				.session = a->session,
				.seq = seq,
				.token = token};
	const char *text = store_last_error();
	size_t len = strlen(text);
	void *copy = effects_alloc(a->effects, len + 1);

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	effect.name = (struct sluice_slice){memcpy(copy, text, len + 1), len};
	return effects_add(a->effects, &effect);
}

int claim_tell_damaged(struct apply *a, uint64_t queue, uint64_t seq)
{
	return tell_damaged(a, queue, seq, 0);
}

/* Never more than the count says is ready, so that it stays one. */
static bool wants_more(const struct picked *picked, const struct queue_cell *cell, uint32_t max)
{
	return picked->count < max && picked->count < cell->ready && picked->set_aside < SET_ASIDE_MAX;
}

/*
 * A damaged item may not hold up those behind it. What was picked before it goes out first; then, when it is the first, it is passed by:
 * it stays in the store, no longer ready and never granted, and the consumer that met it is told. What is delayed lies elsewhere, but in a
 * store of before: so in order it may have been one that was not counted as ready (ready_bound). In a queue of
 * jobs it counts as a delayed one from now on, since its job is open, until that leaves the queue (queue_job_remove).
 */
static int set_aside(struct apply *a, uint64_t queue, struct queue_cell *cell, uint64_t seq, bool exception,
		     struct picked *picked)
{
	bool jobs = cell->kind == SLUICE__QUEUE_KIND__QUEUE_JOBS;
	bool counted = exception || ((jobs || cell->delayed == 0) && cell->ready > cell->exceptions);

	if (cell->ready == 0)
		return store_damaged("its content is not valid");
	picked->set_aside++;
	cell->ready -= counted;
	cell->delayed += jobs;
	return claim_tell_damaged(a, queue, seq);
}

/* No more can be ready than places are left for them. At the end of what is in order the count is exact again. */
static void ready_bound(struct queue_cell *cell, const struct picked *picked)
{
	uint64_t most = cell->exceptions + picked->count + (cell->tail - cell->head);

	if (cell->ready > most)
		cell->ready = most;
}

/* Takes exceptions in order. Purged entries on the way are dropped, a bounded number of them. */
static int pick_exceptions(struct apply *a, uint64_t queue, struct queue_cell *cell, uint32_t max,
			   struct picked *picked)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_item item;
	struct key key;
	uint64_t seq;
	int rc;

	if (cell->exceptions == 0)
		return 0;
	key_one(&key, a->gateway, queue);
	rc = store_scan_begin(a->txn, STORE_READY, key_slice(&key), &scan);
	while (rc == 0 && wants_more(picked, cell, max) && picked->dropped < DROP_PURGED_MAX) {
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 || !ready_key_of(found, a->gateway, queue, &seq))
			break;
		if (value.len != 4)
			rc = store_damaged("its content is not valid");
		else if (get_be32(value.data) != cell->purge_generation) {
			rc = queue_item_drop(a, queue, cell, seq);
			if (rc == 0)
				rc = store_scan_del(scan);
			picked->dropped++;
		} else {
			rc = queue_item_get(a->txn, a->gateway, queue, seq, &item);
			if (rc == SLUICE_E_CORRUPT && picked->count > 0) {
				rc = 0;
				break;
			}
			if (rc == SLUICE_E_CORRUPT) {
				rc = set_aside(a, queue, cell, seq, true, picked);
			} else if (rc != 0 || !window_has(picked, seq) || !bytes_fit(picked, item.body.len)) {
				break;
			} else {
				pick(picked, seq, item.body.len);
			}
			if (rc != 0)
				break;
			cell->exceptions--;
			rc = store_scan_del(scan);
		}
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int pick_in_order(struct apply *a, uint64_t queue, struct queue_cell *cell, uint32_t max,
			 struct picked *picked)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_item item;
	struct key key;
	int rc;

	if (cell->head == cell->tail || cell->ready == 0)
		return 0;
	key_two(&key, a->gateway, queue, cell->head);
	rc = store_scan_begin(a->txn, STORE_ITEM, key_slice(&key), &scan);
	while (rc == 0 && wants_more(picked, cell, max) && picked->stepped < STEP_OVER_MAX) {
		const uint8_t *at;
		uint64_t seq;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc == SLUICE_E_NOT_FOUND) {
			cell->head = cell->tail;
			break;
		}
		/* A damaged record is named by its key; without one it is a page of the table, and there is no way on. */
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		at = found.data;
		if (found.len != 20 || get_be32(at) != a->gateway || get_be64(at + 4) != queue ||
		    get_be64(at + 12) >= QUEUE_DELAYED) {
			cell->head = cell->tail;
			break;
		}
		seq = get_be64(at + 12);
		if (rc == 0)
			rc = queue_item_decode(value, &item);
		if (rc == SLUICE_E_CORRUPT && picked->count > 0) {
			rc = 0;
			break;
		}
		if (rc == SLUICE_E_CORRUPT) {
			rc = set_aside(a, queue, cell, seq, false, picked);
			if (rc != 0)
				break;
		} else if (!(item.flags & ITEM_DELAYED)) {
			if (!window_has(picked, seq) || !bytes_fit(picked, item.body.len))
				break;
			pick(picked, seq, item.body.len);
		} else {
			picked->stepped++; /* its timer makes it an exception */
		}
		cell->head = seq + 1;
	}
	if (scan != NULL)
		store_scan_end(scan);
	ready_bound(cell, picked);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* ---- the delivery ---- */

static int payload_write(struct apply *a, uint64_t queue, const uint64_t *seqs, uint32_t count,
			 uint64_t bytes, struct sluice_slice *ret)
{
	uint8_t *buffer = effects_alloc(a->effects, bytes);
	uint8_t *at = buffer;
	struct queue_item item;

	if (buffer == NULL)
		return SLUICE_E_NOMEM;
	for (uint32_t i = 0; i < count; i++) {
		int rc = queue_item_get(a->txn, a->gateway, queue, seqs[i], &item);

		if (rc != 0)
			return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
		put_be16(at, (uint16_t)(item.attempts > UINT16_MAX ? UINT16_MAX : item.attempts));
		put_be64(at + 2, item.put_time_ms);
		memcpy(at + DELIVER_ITEM_PREFIX_BYTES, item.body.data, item.body.len);
		at += DELIVER_ITEM_PREFIX_BYTES + item.body.len;
	}
	invariant((uint64_t)(at - buffer) == bytes, "queue %llu: %u items of %llu bytes took %zu", ULL(queue),
		  count, ULL(bytes), (size_t)(at - buffer));
	*ret = (struct sluice_slice){buffer, (size_t)(at - buffer)};
	return 0;
}

static int runs_write(struct apply *a, const uint64_t *seqs, uint32_t count, struct effect *effect)
{
	struct frame_run *runs = effects_alloc(a->effects, count * sizeof(*runs));
	uint16_t n = 0;

	if (runs == NULL)
		return SLUICE_E_NOMEM;
	for (uint32_t i = 0; i < count; i++) {
		if (n > 0 && runs[n - 1].first + runs[n - 1].count == seqs[i])
			runs[n - 1].count++;
		else
			runs[n++] = (struct frame_run){seqs[i], 1};
	}
	effect->runs = runs;
	effect->run_count = n;
	return 0;
}

static int deliver(struct apply *a, uint64_t queue, uint64_t token, uint32_t lease_ms, const uint64_t *seqs,
		   uint32_t count, uint64_t bytes)
{
	struct effect effect = {.kind = FX_GRANT,
				.command = a->position,
				.gateway = a->gateway,
				.id = queue,
				.session = a->session,
				.token = token,
				.lease_ms = lease_ms,
				.count = count,
				.again = token != a->index};
	int rc = payload_write(a, queue, seqs, count, bytes, &effect.payload);

	if (rc == 0)
		rc = runs_write(a, seqs, count, &effect);
	return rc != 0 ? rc : effects_add(a->effects, &effect);
}

static int grant_new(struct apply *a, uint64_t queue, struct queue_cell *cell, const struct cmd_claim *m,
		     const struct picked *picked, uint32_t lease_ms)
{
	struct queue_grant grant = {.session = a->session,
				    .lease_ms = lease_ms,
				    .since_ms = a->mono_ms,
				    .first = picked->seq[0]};
	int rc = 0;

	for (uint32_t i = 0; i < picked->count; i++)
		grant_set(&grant, picked->seq[i]);
	grant.reports = (m->flags & CLAIM_REPORTS) != 0;
	if (m->flags & CLAIM_SESSION_LEASE) {
		grant.kind = GRANT_SESSION;
		rc = session_own(a, a->session, OWNED_GRANT, a->index, queue);
	} else {
		grant.extend_max_ms = m->extend_max_ms;
		grant.deadline_ms = a->mono_ms + lease_ms;
		rc = queue_lease_arm(a, queue, cell, grant.deadline_ms);
	}
	return rc != 0 ? rc : grant_store(a, queue, a->index, &grant);
}

static int claim_items(struct apply *a, struct queue_cell *cell, const struct cmd_claim *m,
		       struct outcome *out)
{
	struct picked picked;
	uint32_t max = claim_max(m);
	uint32_t lease_ms = m->lease_ms != 0 ? m->lease_ms : cell->lease_ms;
	int rc;

	/* Never more than the count says is ready, so that it stays one. */
	if (max > cell->ready)
		max = (uint32_t)cell->ready;
	picked_clear(&picked);
	rc = pick_exceptions(a, m->queue, cell, max, &picked);
	/* Exceptions may lie far from head: they get a grant of their own, the next claim goes on. */
	if (rc == 0 && picked.count == 0)
		rc = pick_in_order(a, m->queue, cell, max, &picked);
	if (rc == 0 && picked.count > 0) {
		invariant(picked.count <= max && picked.count <= cell->ready,
			  "queue %llu: %u items were picked, at most %u were asked for, %llu are ready",
			  ULL(m->queue), picked.count, max, ULL(cell->ready));
		cell->ready -= picked.count;
		cell->leased += picked.count;
		rc = grant_new(a, m->queue, cell, m, &picked, lease_ms);
		if (rc == 0)
			rc = deliver(a, m->queue, a->index, m->flags & CLAIM_SESSION_LEASE ? 0 : lease_ms,
				     picked.seq, picked.count, picked.bytes);
	}
	if (rc == 0)
		rc = queue_cell_put(a, m->queue, cell);
	out->count = picked.count;
	if (rc == 0 && got_on(&picked, picked.count) && cell->ready > 0)
		rc = queue_ready_effect(a, m->queue);
	return rc;
}

/* ---- resume: what the session holds already ---- */

static int redeliver_grant(struct apply *a, uint64_t queue, uint64_t token, const struct queue_grant *grant,
			   uint32_t *io_count, uint64_t *io_bytes)
{
	uint64_t seqs[LIMIT_SIZE(GRANT_ITEMS_MAX)];
	uint32_t count = 0;
	uint64_t bytes = 0;
	struct queue_item item;

	for (uint64_t seq = grant->first; seq < grant->first + grant->bits; seq++) {
		int rc;

		if (!grant_has(grant, seq))
			continue;
		rc = queue_item_get(a->txn, a->gateway, queue, seq, &item);
		if (rc == SLUICE_E_CORRUPT || rc == SLUICE_E_NOT_FOUND) {
			rc = tell_damaged(a, queue, seq, token);
			if (rc != 0)
				return rc;
			continue;
		}
		if (rc != 0)
			return rc;
		bytes += item.body.len + DELIVER_ITEM_PREFIX_BYTES;
		seqs[count++] = seq;
	}
	if (count == 0)
		return 0;
	*io_count += count;
	*io_bytes += bytes;
	return deliver(a, queue, token, grant->kind == GRANT_SESSION ? 0 : grant->lease_ms, seqs, count,
		       bytes);
}

/* Tokens of the queue's grants to this session, in order, behind m->resume_after. *ret_after: where to go on, 0 when these are all. */
static int resume_gather(struct apply *a, const struct cmd_claim *m, uint64_t tokens[RESUME_AT_ONCE],
			 size_t *ret_count, uint64_t *ret_after)
{
	const uint64_t until = m->resume_until != 0 ? m->resume_until : a->index;
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_grant grant;
	struct key key;
	int rc;

	*ret_count = 0;
	*ret_after = 0;
	key_two(&key, a->gateway, m->queue, m->resume_after + 1);
	rc = store_scan_begin(a->txn, STORE_GRANT, key_slice(&key), &scan);
	for (uint32_t looked_at = 0; rc == 0; looked_at++) {
		uint64_t token;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		if (found.len != 20 || memcmp(found.data, key.bytes, 12) != 0) {
			rc = 0;
			break;
		}
		token = get_be64((const uint8_t *)found.data + 12);
		if (token > until) {
			rc = 0;
			break;
		}
		if (looked_at == RESUME_LOOK_MAX || *ret_count == RESUME_AT_ONCE) {
			*ret_after = token - 1;
			rc = 0;
			break;
		}
		if (rc == 0)
			rc = grant_decode(value, &grant);
		/* Of a damaged one it cannot be known whose it is: resume_grant tells of it. */
		if (rc == SLUICE_E_CORRUPT || (rc == 0 && grant.session == a->session))
			tokens[(*ret_count)++] = token;
		if (rc == SLUICE_E_CORRUPT)
			rc = 0;
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* The delivery says how long the lease is from now on: so it begins anew. The queue's timer comes too early then, which is its way. */
static int resume_grant(struct apply *a, const struct cmd_claim *m, uint64_t token, uint32_t *io_count,
			uint64_t *io_bytes)
{
	struct queue_grant grant;
	int rc = grant_get(a->txn, a->gateway, m->queue, token, &grant);

	/* A session that does not hold this token has no use for the notice, and comes to no
	 * harm by it. */
	if (rc == SLUICE_E_CORRUPT)
		return tell_damaged(a, m->queue, token, token);
	if (rc == 0 && grant.kind == GRANT_TIMED) {
		/* Another consumer of the session may hold it, by its own maximum: that stays. */
		if (grant.extend_max_ms == 0)
			grant.extend_max_ms = m->extend_max_ms;
		grant.deadline_ms = a->mono_ms + grant.lease_ms;
		rc = grant_store(a, m->queue, token, &grant);
	}
	return rc != 0 ? rc : redeliver_grant(a, m->queue, token, &grant, io_count, io_bytes);
}

/* One step: grants in the order of their tokens, until there is a claim's worth of items or bytes. */
static int claim_resume(struct apply *a, const struct cmd_claim *m, struct outcome *out)
{
	uint64_t tokens[RESUME_AT_ONCE], bytes = 0;
	size_t count;
	int rc = resume_gather(a, m, tokens, &count, &out->id);

	for (size_t i = 0; rc == 0 && i < count; i++) {
		if (out->count >= claim_max(m) || bytes >= CLAIM_BYTES_MAX) {
			out->id = tokens[i] - 1;
			break;
		}
		rc = resume_grant(a, m, tokens[i], &out->count, &bytes);
	}
	return rc;
}

/* ---- queues of jobs: the entry is taken off, the lease is the ledger's ---- */

/* Takes one picked entry off the queue and leases its job. */
static int claim_picked_job(struct apply *a, const struct cmd_claim *m, uint64_t seq,
			    struct job_deliveries *deliveries)
{
	struct queue_item item;
	uint64_t job;
	int rc = queue_item_get(a->txn, a->gateway, m->queue, seq, &item);

	if (rc == 0 && item.body.len != 8)
		rc = store_damaged("its content is not valid");
	if (rc != 0)
		return rc;
	job = get_be64(item.body.data);
	rc = queue_item_del(a, m->queue, seq);
	return rc != 0 ? rc : job_claim_ready(a, job, m->source, deliveries);
}

/* Payloads are known only job by job: what does not fit into this delivery goes back to its place, as an exception. */
static int return_picked(struct apply *a, uint64_t queue, struct queue_cell *cell,
			 const struct picked *picked, uint32_t from)
{
	struct queue_item item;
	int rc = 0;

	for (uint32_t i = from; rc == 0 && i < picked->count; i++) {
		rc = queue_item_get(a->txn, a->gateway, queue, picked->seq[i], &item);
		if (rc == 0)
			rc = ready_put(a, queue, cell, item.priority, picked->seq[i]);
	}
	return rc;
}

static int claim_ready_jobs(struct apply *a, const struct cmd_claim *m, uint32_t max,
			    struct job_deliveries *deliveries, uint32_t *io_count)
{
	struct queue_cell cell;
	struct picked picked;
	uint32_t taken = 0;
	int rc = queue_cell_get(a->txn, a->gateway, m->queue, &cell);

	picked_clear(&picked);
	if (rc == 0 && job_deliveries_full(deliveries))
		return cell.ready > 0 ? queue_ready_effect(a, m->queue) : 0; /* orphans have filled it */
	if (rc == 0)
		rc = pick_exceptions(a, m->queue, &cell, max, &picked);
	if (rc == 0 && picked.count == 0)
		rc = pick_in_order(a, m->queue, &cell, max, &picked);
	if (rc == 0) { /* before the ledger's own changes of the cell */
		invariant(picked.count <= max && picked.count <= cell.ready,
			  "queue %llu: %u jobs were picked, at most %u were asked for, %llu are ready",
			  ULL(m->queue), picked.count, max, ULL(cell.ready));
		cell.ready -= picked.count;
		rc = queue_cell_put(a, m->queue, &cell);
	}
	for (; rc == 0 && taken < picked.count && !job_deliveries_full(deliveries); taken++)
		rc = claim_picked_job(a, m, picked.seq[taken], deliveries);
	if (rc == 0)
		rc = queue_cell_get(a->txn, a->gateway, m->queue, &cell);
	if (rc == 0)
		rc = return_picked(a, m->queue, &cell, &picked, taken);
	if (rc != 0)
		return rc;
	cell.ready += picked.count - taken;
	cell.bytes -= (uint64_t)taken * (QUEUE_ITEM_FIXED_BYTES + 8);
	rc = queue_cell_put(a, m->queue, &cell);
	*io_count += taken;
	if (rc == 0 && got_on(&picked, taken) && cell.ready > 0)
		rc = queue_ready_effect(a, m->queue);
	return rc;
}

/* There may be more of all that the claim could take. */
static int announce_rest(struct apply *a, const struct cmd_claim *m)
{
	int rc = queue_ready_effect(a, m->queue);

	return rc == 0 && (m->flags & CLAIM_ORPHANS) ? queue_orphan_effect(a, m->queue, m->source) : rc;
}

/* Orphans first. What it leaves although it grants fewer than were asked for is announced: `max`
 * may be less than that, for damage. */
static int claim_orphans_and_ready(struct apply *a, const struct cmd_claim *m, uint32_t max,
				   struct job_deliveries *deliveries, uint32_t *io_taken)
{
	bool orphans_left = false;
	int rc = 0;

	if (m->flags & CLAIM_ORPHANS)
		rc = job_claim_orphans(a, m, max, deliveries, io_taken, &orphans_left);
	if (rc == 0 && *io_taken < max)
		rc = claim_ready_jobs(a, m, max - *io_taken, deliveries,
				      io_taken); /* announces what it leaves */
	else if (rc == 0 && max < claim_max(m))
		rc = queue_ready_effect(a, m->queue);
	if (rc != 0 || !orphans_left || *io_taken == claim_max(m))
		return rc;
	return queue_orphan_effect(a, m->queue, m->source);
}

static int claim_jobs(struct apply *a, const struct cmd_claim *m, uint32_t max, struct outcome *out)
{
	struct job_deliveries *deliveries = NULL;
	uint32_t taken = 0;
	int rc = job_deliveries_begin(&deliveries), end;

	if (rc != 0)
		return rc;
	if (m->flags & CLAIM_RESUME)
		rc = job_redeliver(a, m, max, deliveries, &taken, &out->id);
	else
		rc = claim_orphans_and_ready(a, m, max, deliveries, &taken);
	end = job_deliveries_end(a, deliveries, m->queue);
	out->count = taken;
	return rc != 0 ? rc : end;
}

/* Sets the first ready entry aside when its job has a damaged record of its own: see set_aside. */
static int pass_by_ready(struct apply *a, uint64_t queue, bool *ret_passed)
{
	struct queue_cell cell;
	struct picked picked;
	struct queue_item item;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	picked_clear(&picked);
	if (rc == 0)
		rc = pick_exceptions(a, queue, &cell, 1, &picked);
	if (rc == 0 && picked.count == 0)
		rc = pick_in_order(a, queue, &cell, 1, &picked);
	if (rc != 0 || picked.count == 0)
		return rc;
	rc = queue_item_get(a->txn, a->gateway, queue, picked.seq[0], &item);
	if (rc != 0 || item.body.len != 8)
		return rc;
	rc = job_tell_if_damaged(a, queue, get_be64(item.body.data), ret_passed);
	if (rc != 0 || !*ret_passed)
		return rc;
	cell.ready--;
	cell.delayed++;
	rc = queue_cell_put(a, queue, &cell);
	return rc == 0 && cell.ready > 0 ? queue_ready_effect(a, queue) : rc;
}

/* After a claim of one job met damage: passes by the job that it came to, if that is what is damaged. */
static int pass_by_job(struct apply *a, const struct cmd_claim *m, bool *ret_passed)
{
	size_t mark = effects_mark(a->effects);
	int rc = store_savepoint(a->txn), undo_rc;

	*ret_passed = false;
	if (rc != 0)
		return rc;
	if (m->flags & CLAIM_ORPHANS)
		rc = job_orphan_pass_by(a, m, ret_passed);
	if (rc == 0 && !*ret_passed)
		rc = pass_by_ready(a, m->queue, ret_passed);
	if (rc == 0 && *ret_passed) {
		store_release(a->txn);
		return 0;
	}
	*ret_passed = false;
	effects_rewind(a->effects, mark);
	undo_rc = store_rollback(a->txn);
	return undo_rc != 0 ? undo_rc : rc == SLUICE_E_CORRUPT || rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* What did not come until here is not held any more: so a client learns of what it lost while it was away. */
static int resumed_effect(struct apply *a, uint64_t queue)
{
	struct effect effect = {.kind = FX_RESUMED,
				.command = a->position,
				.gateway = a->gateway,
				.id = queue,
				.session = a->session};

	return effects_add(a->effects, &effect);
}

static int claim_run(struct apply *a, struct queue_cell *cell, const struct cmd_claim *m, uint32_t max,
		     struct outcome *out)
{
	int rc;

	out->kind = OUT_CLAIMED;
	if (cell->kind == SLUICE__QUEUE_KIND__QUEUE_JOBS)
		rc = claim_jobs(a, m, max, out);
	else
		rc = m->flags & CLAIM_RESUME ? claim_resume(a, m, out) : claim_items(a, cell, m, out);
	return rc == 0 && m->flags & CLAIM_RESUME && out->id == 0 ? resumed_effect(a, m->queue) : rc;
}

/*
 * As claim_run; where it meets a damaged record nothing of it is left, *ret_undone says so, and CORRUPT is returned. A write that met it
 * leaves the transaction half-done, and no rollback mends that: CORRUPT then is the batch's.
 */
static int claim_try(struct apply *a, const struct queue_cell *cell, const struct cmd_claim *m, uint32_t max,
		     struct outcome *out, bool *ret_undone)
{
	const struct outcome before = *out;
	struct queue_cell copy = *cell;
	size_t mark = effects_mark(a->effects);
	int rc = store_savepoint(a->txn), undo_rc;

	*ret_undone = false;
	if (rc != 0)
		return rc;
	rc = claim_run(a, &copy, m, max, out);
	if (rc == 0)
		store_release(a->txn);
	if (rc != SLUICE_E_CORRUPT)
		return rc;
	*out = before;
	pending_drop(a->core);
	effects_rewind(a->effects, mark);
	undo_rc = store_rollback(a->txn);
	*ret_undone = undo_rc == 0;
	return undo_rc != 0 ? undo_rc : rc;
}

/* Whoever is in front of a damaged job is claimed in smaller steps, until it is the first; then it is passed by, and those behind it come. */
static int claim_jobs_around(struct apply *a, const struct queue_cell *cell, const struct cmd_claim *m,
			     struct outcome *out, bool *ret_undone)
{
	bool passed = true;
	int rc = 0;

	for (uint32_t aside = 0; passed; aside++) {
		uint32_t max = claim_max(m);

		while ((rc = claim_try(a, cell, m, max, out, ret_undone)) == SLUICE_E_CORRUPT &&
		       *ret_undone && max > 1)
			max /= 2;
		if (rc != SLUICE_E_CORRUPT || !*ret_undone || m->flags & CLAIM_RESUME)
			return rc;
		if (aside == SET_ASIDE_MAX) {
			out->kind = OUT_CLAIMED;
			return announce_rest(a, m); /* it got on, and the next claim goes on */
		}
		rc = pass_by_job(a, m, &passed);
		if (rc != 0)
			return rc;
	}
	return SLUICE_E_CORRUPT;
}

static int refuse_damaged(struct outcome *out)
{
	return refuse(out, SLUICE_E_CORRUPT, "a stored record is damaged: %s", store_last_error());
}

int claim_apply(struct apply *a, const struct cmd_claim *m, struct outcome *out)
{
	struct queue_cell cell;
	bool undone;
	int rc = session_check(a, a->session, out);

	if (rc == 0 && refused(out))
		return 0;
	if (rc == 0)
		rc = queue_cell_get(a->txn, a->gateway, m->queue, &cell);
	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && cell.deleted))
		return refuse(out, SLUICE_E_NOT_FOUND, "the queue does not exist any more");
	if (rc != 0)
		return rc == SLUICE_E_CORRUPT ? refuse_damaged(out) : rc;
	if (m->lease_ms != 0 && (m->lease_ms < LIMIT_LEASE_MS_MIN || m->lease_ms > LIMIT_LEASE_MS_MAX))
		return refuse(out, SLUICE_E_LIMIT, "lease_ms is %u; expected 0 or %llu to %llu", m->lease_ms,
			      (unsigned long long)LIMIT_LEASE_MS_MIN, (unsigned long long)LIMIT_LEASE_MS_MAX);
	rc = cell.kind == SLUICE__QUEUE_KIND__QUEUE_JOBS ? claim_jobs_around(a, &cell, m, out, &undone)
							 : claim_try(a, &cell, m, claim_max(m), out, &undone);
	return rc == SLUICE_E_CORRUPT && undone ? refuse_damaged(out) : rc;
}
