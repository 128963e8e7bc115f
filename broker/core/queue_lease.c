/* SPDX-License-Identifier: Apache-2.0
 *
 * What ends a lease: ack, nack, expiry, the end of its session; and extension. Expiry walks grants, not items, and there is one lazy
 * timer per queue: firing looks at the grants and sets the next.
 */
#include "broker/core/queue.h"
#include "protocol/limits.h"

/* ---- back to the queue, or to the dead-letter queue ---- */

/* A dead-letter queue that was deleted is replaced by the gateway's, which always exists. */
static int dead_letter_target(struct apply *a, const struct queue_cell *cell, uint64_t *ret)
{
	struct queue_cell target;
	int rc = queue_cell_get(a->txn, a->gateway, cell->dead_letter, &target);

	*ret = cell->dead_letter;
	if (rc == 0 && !target.deleted)
		return 0;
	if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
		return rc;
	return name_find(a->txn, a->gateway, NAME_QUEUE, slice_text("dead-letter"), ret);
}

static int to_dead_letter(struct apply *a, uint64_t queue, struct queue_cell *cell, uint64_t seq,
			  const struct queue_item *item, struct sluice_slice reason)
{
	struct queue_put_spec spec = {.time_ms = item->put_time_ms,
				      .priority = item->priority,
				      .attempts = item->attempts,
				      .dead_reason = reason};
	char name[QUEUE_NAME_BUF];
	uint8_t *copy;
	uint64_t target, put;
	int rc = dead_letter_target(a, cell, &target);

	if (rc == 0)
		rc = queue_name(a, queue, name);
	if (rc != 0)
		return rc;
	/* The put may move what the store lent. */
	copy = effects_alloc(a->effects, item->body.len);
	if (copy == NULL)
		return SLUICE_E_NOMEM;
	memcpy(copy, item->body.data, item->body.len);
	spec.envelope = (struct sluice_slice){copy, item->body.len};
	spec.dead_from = slice_text(name);
	cell->dead++;
	cell->bytes -= queue_item_bytes(item);
	rc = queue_item_del(a, queue, seq);
	if (rc == 0)
		rc = queue_put(a, target, &spec, &put);
	return rc;
}

int queue_item_back(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint64_t seq,
		    uint32_t delay_ms, struct sluice_slice reason)
{
	struct queue_item item;
	uint8_t *copy;
	size_t bytes;
	int rc = queue_item_get(a->txn, a->gateway, queue, seq, &item);

	/* Damaged: it stays where it is, neither leased nor ready. A TICK that ended here would end here each time, and with it all timers. */
	if (rc == SLUICE_E_CORRUPT)
		return claim_tell_damaged(a, queue, seq);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? SLUICE_E_CORRUPT : rc;
	item.attempts++;
	if (io_cell->dead_letter != 0 && item.attempts >= io_cell->max_attempts)
		return to_dead_letter(a, queue, io_cell, seq, &item, reason);
	/* The same record is about to be written: its strings must not be the store's. */
	bytes = item.dead_from.len + item.dead_reason.len + item.body.len;
	copy = effects_alloc(a->effects, bytes);
	if (copy == NULL)
		return SLUICE_E_NOMEM;
	memcpy(copy, item.dead_from.data, item.dead_from.len);
	item.dead_from.data = copy;
	memcpy(copy + item.dead_from.len, item.dead_reason.data, item.dead_reason.len);
	item.dead_reason.data = copy + item.dead_from.len;
	memcpy(copy + item.dead_from.len + item.dead_reason.len, item.body.data, item.body.len);
	item.body.data = copy + item.dead_from.len + item.dead_reason.len;
	item.last_reason = reason;
	if (delay_ms > 0) {
		item.flags |= ITEM_DELAYED;
		item.due_mono_ms = a->mono_ms + delay_ms;
		io_cell->delayed++;
		rc = queue_item_put(a, queue, seq, &item);
		return rc != 0 ? rc : timer_set(a, item.due_mono_ms, TIMER_ITEM_DUE, queue, seq);
	}
	io_cell->ready++;
	rc = queue_item_put(a, queue, seq, &item);
	return rc != 0 ? rc : ready_put(a, queue, io_cell, item.priority, seq);
}

/* ---- ack, nack, extend ---- */

struct ack_work {
	struct queue_cell cell;
	struct queue_grant grant;
	uint32_t matched;
};

static int ack_one(struct apply *a, const struct cmd_ack *m, struct ack_work *work, uint64_t seq)
{
	struct queue_item item;
	int rc;

	grant_clear(&work->grant, seq);
	work->cell.leased--;
	work->matched++;
	if (m->op == ACK_NACK)
		return queue_item_back(a, m->queue, &work->cell, seq, m->value_ms, m->reason);
	rc = queue_item_get(a->txn, a->gateway, m->queue, seq, &item);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? SLUICE_E_CORRUPT : rc;
	work->cell.bytes -= queue_item_bytes(&item);
	work->cell.acked++;
	return queue_item_del(a, m->queue, seq);
}

static int ack_runs(struct apply *a, const struct cmd_ack *m, struct ack_work *work)
{
	for (size_t i = 0; i < m->run_count; i++) {
		struct frame_run run = frame_run_at(m->runs, i);
		uint64_t end = run.first + run.count;
		uint64_t seq = run.first > work->grant.first ? run.first : work->grant.first;

		/* A run may name more than the grant has: only the grant's window is walked. */
		if (end < run.first || end > work->grant.first + work->grant.bits)
			end = work->grant.first + work->grant.bits;
		for (; seq < end; seq++) {
			int rc = grant_has(&work->grant, seq) ? ack_one(a, m, work, seq) : 0;

			if (rc != 0)
				return rc;
		}
	}
	return 0;
}

static int extend(struct apply *a, const struct cmd_ack *m, struct ack_work *work, struct outcome *out)
{
	uint32_t lease_ms = m->value_ms != 0 ? m->value_ms : work->grant.lease_ms;
	bool cell_changed = false;
	int rc = 0;

	if (lease_ms < LIMIT_LEASE_MS_MIN || lease_ms > LIMIT_LEASE_MS_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the lease is %u ms; expected %llu to %llu", lease_ms,
			      (unsigned long long)LIMIT_LEASE_MS_MIN, (unsigned long long)LIMIT_LEASE_MS_MAX);
	out->count = work->grant.out;
	if (work->grant.kind == GRANT_SESSION)
		return 0;
	work->grant.lease_ms = lease_ms;
	work->grant.deadline_ms = a->mono_ms + lease_ms;
	/* One record; but a lease made shorter needs an earlier look, also by a walk that is past it already. */
	if (work->cell.scan_token != 0 && work->grant.deadline_ms < work->cell.scan_min) {
		work->cell.scan_min = work->grant.deadline_ms;
		cell_changed = true;
	}
	if (work->cell.lease_timer_due == 0 || work->grant.deadline_ms < work->cell.lease_timer_due) {
		rc = queue_lease_arm(a, m->queue, &work->cell, work->grant.deadline_ms);
		cell_changed = true;
	}
	if (rc == 0 && cell_changed)
		rc = queue_cell_put(a, m->queue, &work->cell);
	if (rc != 0)
		return rc;
	return grant_store(a, m->queue, m->token, &work->grant);
}

static bool any_held(const struct cmd_ack *m, const struct queue_grant *grant)
{
	for (size_t i = 0; i < m->run_count; i++) {
		struct frame_run run = frame_run_at(m->runs, i);

		for (uint64_t seq = grant->first; seq < grant->first + grant->bits; seq++)
			if (seq >= run.first && seq - run.first < run.count && grant_has(grant, seq))
				return true;
	}
	return false;
}

int ack_apply(struct apply *a, const struct cmd_ack *m, struct outcome *out)
{
	struct ack_work work = {.matched = 0};
	uint64_t ready_before;
	int rc = queue_cell_get(a->txn, a->gateway, m->queue, &work.cell);

	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && work.cell.deleted))
		return refuse(out, SLUICE_E_NOT_FOUND, "the queue does not exist any more");
	if (rc == 0)
		rc = grant_get(a->txn, a->gateway, m->queue, m->token, &work.grant);
	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && work.grant.session != a->session))
		return refuse(
			out, SLUICE_E_STALE_TOKEN,
			"no lease with token %llu is held by this session: it was acked, expired or taken over",
			(unsigned long long)m->token);
	if (rc != 0)
		return rc;
	out->kind = OUT_ACKED;
	if (m->op == ACK_EXTEND)
		return extend(a, m, &work, out);
	if (m->reason.len > LIMIT_TEXT_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the reason has %zu bytes; expected at most %llu",
			      m->reason.len, (unsigned long long)LIMIT_TEXT_BYTES_MAX);
	if (!any_held(m, &work.grant))
		return refuse(out, SLUICE_E_STALE_TOKEN, "none of these items is still held under token %llu",
			      (unsigned long long)m->token);
	ready_before = work.cell.ready;
	rc = ack_runs(a, m, &work);
	if (rc == 0)
		rc = grant_store(a, m->queue, m->token, &work.grant);
	if (rc == 0)
		rc = queue_cell_put(a, m->queue, &work.cell);
	if (rc == 0 && work.cell.ready > ready_before)
		rc = queue_ready_effect(a, m->queue);
	out->count = work.matched;
	return rc;
}

/* ---- expiry ---- */

int queue_lease_arm(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint64_t deadline_ms)
{
	if (io_cell->lease_timer_due != 0 && io_cell->lease_timer_due <= deadline_ms)
		return 0;
	io_cell->lease_timer_due = deadline_ms;
	return timer_set(a, deadline_ms, TIMER_QUEUE_LEASES, queue, deadline_ms);
}

static struct sluice_slice boot_key(void)
{
	return (struct sluice_slice){"boot_mono_ms", 12};
}

int queue_boot(struct apply *a)
{
	uint8_t bytes[8];

	put_be64(bytes, a->mono_ms);
	return store_put(a->txn, STORE_META, boot_key(), (struct sluice_slice){bytes, sizeof(bytes)});
}

int queue_boot_mono(struct store_txn *txn, uint64_t *ret)
{
	struct sluice_slice value;
	int rc = store_get(txn, STORE_META, boot_key(), &value);

	*ret = 0;
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc == 0 && value.len != 8)
		return SLUICE_E_CORRUPT;
	if (rc == 0)
		*ret = get_be64(value.data);
	return rc;
}

static int grant_return(struct apply *a, uint64_t queue, struct queue_cell *cell,
			const struct queue_grant *grant, const char *reason)
{
	for (uint64_t seq = grant->first; seq < grant->first + grant->bits; seq++) {
		int rc;

		if (!grant_has(grant, seq))
			continue;
		cell->leased--;
		rc = queue_item_back(a, queue, cell, seq, 0, slice_text(reason));
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* Walks the grants from cell->scan_token on until the work is spent. Returns 1 at the end, 0 when there is more, or a failure. */
static int expire_walk(struct apply *a, uint64_t queue, struct queue_cell *cell, uint64_t boot_mono,
		       uint32_t *io_work)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_grant grant;
	struct key key;
	int rc;

	key_two(&key, a->gateway, queue, cell->scan_token);
	rc = store_scan_begin(a->txn, STORE_GRANT, key_slice(&key), &scan);
	while (rc == 0) {
		uint64_t deadline;
		const uint8_t *at;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		at = found.data;
		if (found.len != 20 || get_be32(at) != a->gateway || get_be64(at + 4) != queue) {
			rc = SLUICE_E_NOT_FOUND;
			break;
		}
		if (*io_work == 0) {
			cell->scan_token = get_be64(at + 12);
			rc = 0;
			break;
		}
		(*io_work)--;
		if (rc == 0)
			rc = grant_decode(value, &grant);
		/* It stays, and so do its items: those of the other leases must not wait for ever. */
		if (rc == SLUICE_E_CORRUPT) {
			rc = claim_tell_damaged(a, queue, get_be64(at + 12));
			continue;
		}
		if (rc != 0)
			break;
		if (grant.kind == GRANT_SESSION)
			continue;
		deadline = grant.deadline_ms > boot_mono + grant.lease_ms ? grant.deadline_ms
									  : boot_mono + grant.lease_ms;
		if (deadline > a->mono_ms) {
			if (deadline < cell->scan_min)
				cell->scan_min = deadline;
			continue;
		}
		*io_work -= *io_work < grant.out ? *io_work : grant.out;
		rc = store_scan_del(scan);
		if (rc == 0)
			rc = grant_return(a, queue, cell, &grant, "lease expired");
	}
	if (scan != NULL)
		store_scan_end(scan);
	if (rc == SLUICE_E_NOT_FOUND)
		return 1;
	return rc;
}

int queue_leases_fire(struct apply *a, uint64_t queue, uint64_t sub, uint32_t *io_work)
{
	struct queue_cell cell;
	uint64_t boot_mono, ready_before;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	/* A timer that was replaced by an earlier one. */
	if (cell.deleted || cell.lease_timer_due != sub)
		return 0;
	rc = queue_boot_mono(a->txn, &boot_mono);
	if (rc != 0)
		return rc;
	if (cell.scan_token == 0)
		cell.scan_min = UINT64_MAX;
	ready_before = cell.ready;
	cell.lease_timer_due = 0;
	rc = expire_walk(a, queue, &cell, boot_mono, io_work);
	if (rc < 0)
		return rc;
	if (rc == 0) {
		/* Not through: go on with the next TICK. */
		rc = queue_lease_arm(a, queue, &cell, a->mono_ms);
	} else {
		cell.scan_token = 0;
		rc = cell.scan_min == UINT64_MAX ? 0 : queue_lease_arm(a, queue, &cell, cell.scan_min);
	}
	if (rc == 0)
		rc = queue_cell_put(a, queue, &cell);
	if (rc == 0 && cell.ready > ready_before)
		rc = queue_ready_effect(a, queue);
	return rc;
}

/* Only a purge takes a delayed item away, a damaged one, of which it could not tell that it was delayed: its timer can. */
static int delayed_gone(struct apply *a, uint64_t queue, struct queue_cell *cell)
{
	if (cell->deleted || cell->delayed == 0)
		return 0;
	cell->delayed--;
	return queue_cell_put(a, queue, cell);
}

int queue_item_due_fire(struct apply *a, uint64_t queue, uint64_t seq, uint32_t *io_work)
{
	struct queue_cell cell;
	struct queue_item item;
	uint8_t *copy;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc == 0)
		rc = queue_item_get(a->txn, a->gateway, queue, seq, &item);
	if (rc == SLUICE_E_NOT_FOUND)
		return delayed_gone(a, queue, &cell);
	if (rc != 0)
		return rc;
	if (*io_work > 0)
		(*io_work)--;
	if (cell.deleted || !(item.flags & ITEM_DELAYED))
		return 0;
	if (item.due_mono_ms > a->mono_ms)
		return timer_set(a, item.due_mono_ms, TIMER_ITEM_DUE, queue, seq);
	copy = effects_alloc(a->effects, item.dead_from.len + item.dead_reason.len + item.last_reason.len +
						 item.body.len);
	if (copy == NULL)
		return SLUICE_E_NOMEM;
	for (size_t i = 0; i < 4; i++) {
		struct sluice_slice *part = (struct sluice_slice *[]){&item.dead_from, &item.dead_reason,
								      &item.last_reason, &item.body}[i];

		memcpy(copy, part->data, part->len);
		part->data = copy;
		copy += part->len;
	}
	item.flags &= (uint8_t)~ITEM_DELAYED;
	if (seq < cell.head)
		item.flags |= ITEM_OVERTAKEN;
	item.due_mono_ms = 0;
	cell.delayed--;
	cell.ready++;
	rc = queue_item_put(a, queue, seq, &item);
	/* At or above head it is found in order; below it is an exception. */
	if (rc == 0 && seq < cell.head)
		rc = ready_put(a, queue, &cell, item.priority, seq);
	if (rc == 0)
		rc = queue_cell_put(a, queue, &cell);
	return rc != 0 ? rc : queue_ready_effect(a, queue);
}

int queue_session_ended(struct apply *a, uint64_t session, uint64_t queue, uint64_t token)
{
	struct queue_cell cell;
	struct queue_grant grant;
	struct key key;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	rc = grant_get(a->txn, a->gateway, queue, token, &grant);
	/* Damaged: it stays, with its items, and the session ends. */
	if (rc == SLUICE_E_CORRUPT)
		return claim_tell_damaged(a, queue, token);
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	if (grant.session != session)
		return 0;
	key_two(&key, a->gateway, queue, token);
	rc = store_del(a->txn, STORE_GRANT, key_slice(&key));
	if (rc == 0)
		rc = grant_return(a, queue, &cell, &grant, "session ended");
	if (rc == 0)
		rc = queue_cell_put(a, queue, &cell);
	return rc != 0 ? rc : queue_ready_effect(a, queue);
}
