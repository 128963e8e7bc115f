/* SPDX-License-Identifier: Apache-2.0
 *
 * CLAIM of items: up to max ready ones become a lease of one session. One claim makes one grant;
 * items that do not fit (a window of GRANT_ITEMS_MAX numbers, CLAIM_BYTES_MAX of bodies) are
 * announced again by FX_QUEUE_READY.
 */
#include "broker/core/queue/pick.h"
#include "broker/core/queue/queue.h"
#include "broker/core/session/session.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

enum { RESUME_AT_ONCE = 64 };

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
	invariant((uint64_t)(at - buffer) == bytes, "queue %llu: %u items of %llu bytes took %zu",
		  ULL(queue), count, ULL(bytes), (size_t)(at - buffer));
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

static int deliver(struct apply *a, uint64_t queue, uint64_t token, uint32_t lease_ms,
		   const uint64_t *seqs, uint32_t count, uint64_t bytes)
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

static int grant_new(struct apply *a, uint64_t queue, struct queue_cell *cell,
		     const struct cmd_claim *m, const struct picked *picked, uint32_t lease_ms)
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

int claim_items(struct apply *a, struct queue_cell *cell, const struct cmd_claim *m,
		struct outcome *out)
{
	struct picked picked;
	uint32_t max = claim_max(m);
	uint32_t lease_ms = m->lease_ms != 0 ? m->lease_ms : cell->lease_ms;
	int rc;

	/* Never more than the count of ready items, which must not fall below 0. */
	if (max > cell->ready)
		max = (uint32_t)cell->ready;
	picked_clear(&picked);
	rc = pick_exceptions(a, m->queue, cell, max, &picked);
	/* Exceptions may be far from head: they get a grant of their own, and the next claim
	 * continues. */
	if (rc == 0 && picked.count == 0)
		rc = pick_in_order(a, m->queue, cell, max, &picked);
	if (rc == 0 && picked.count > 0) {
		invariant(picked.count <= max && picked.count <= cell->ready,
			  "queue %llu: %u items were picked, at most %u were asked for, %llu are "
			  "ready",
			  ULL(m->queue), picked.count, max, ULL(cell->ready));
		cell->ready -= picked.count;
		cell->leased += picked.count;
		rc = grant_new(a, m->queue, cell, m, &picked, lease_ms);
		if (rc == 0)
			rc = deliver(a, m->queue, a->index,
				     m->flags & CLAIM_SESSION_LEASE ? 0 : lease_ms, picked.seq,
				     picked.count, picked.bytes);
	}
	if (rc == 0)
		rc = queue_cell_put(a, m->queue, cell);
	out->count = picked.count;
	if (rc == 0 && picked_progressed(&picked, picked.count) && cell->ready > 0)
		rc = queue_ready_effect(a, m->queue);
	return rc;
}

/* ---- resume: entries that the session holds already ---- */

static int redeliver_grant(struct apply *a, uint64_t queue, uint64_t token,
			   const struct queue_grant *grant, uint32_t *io_count, uint64_t *io_bytes)
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
			rc = claim_report_damaged_grant(a, queue, seq, token);
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
	return deliver(a, queue, token, grant->kind == GRANT_SESSION ? 0 : grant->lease_ms, seqs,
		       count, bytes);
}

/* Tokens of the queue's grants to this session, in order, after m->resume_after. *ret_after: where
 * to continue, 0 when there are no more. */
static int resume_gather(struct apply *a, const struct cmd_claim *m,
			 uint64_t tokens[RESUME_AT_ONCE], size_t *ret_count, uint64_t *ret_after)
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
	for (uint32_t checked = 0; rc == 0; checked++) {
		uint64_t token;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		if (!key_two_in(found, a->gateway, m->queue, &token) || token > until) {
			rc = 0;
			break;
		}
		if (checked == RESUME_CHECK_MAX || *ret_count == RESUME_AT_ONCE) {
			*ret_after = token - 1;
			rc = 0;
			break;
		}
		if (rc == 0)
			rc = grant_decode(value, &grant);
		/* The session of a damaged grant is not known: resume_grant reports it. */
		if (rc == SLUICE_E_CORRUPT || (rc == 0 && grant.session == a->session))
			tokens[(*ret_count)++] = token;
		if (rc == SLUICE_E_CORRUPT)
			rc = 0;
	}
	if (scan != NULL)
		store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* The delivery has the lease's duration from now on, so the lease begins anew. The queue's timer
 * then fires too early, which does no harm. */
static int resume_grant(struct apply *a, const struct cmd_claim *m, uint64_t token,
			uint32_t *io_count, uint64_t *io_bytes)
{
	struct queue_grant grant;
	int rc = grant_get(a->txn, a->gateway, m->queue, token, &grant);

	/* If another session holds this token, the notice has no effect. */
	if (rc == SLUICE_E_CORRUPT)
		return claim_report_damaged_grant(a, m->queue, token, token);
	if (rc == 0 && grant.kind == GRANT_TIMED) {
		/* Another consumer of the session may hold it with its own maximum: that one
		 * stays. */
		if (grant.extend_max_ms == 0)
			grant.extend_max_ms = m->extend_max_ms;
		grant.deadline_ms = a->mono_ms + grant.lease_ms;
		rc = grant_store(a, m->queue, token, &grant);
	}
	return rc != 0 ? rc : redeliver_grant(a, m->queue, token, &grant, io_count, io_bytes);
}

/* One step: grants in the order of their tokens, up to a claim's number of items or bytes. */
int claim_resume(struct apply *a, const struct cmd_claim *m, struct outcome *out)
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
