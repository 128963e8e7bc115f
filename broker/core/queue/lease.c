/* SPDX-License-Identifier: Apache-2.0
 *
 * Ends of a lease: ack, nack, reject, release, expiry, the end of its session; extension and
 * renewal. Expiry walks grants, not items, with one lazy timer per queue: firing checks the grants
 * and sets the next.
 *
 * An item that was never begun has no failed attempt: a nack counts as one; an expiry or the end of
 * a session counts for begun items only (grant_was_begun); a release never does. A rejection is the
 * last attempt, whatever their number.
 */
#include "broker/core/base/age.h"
#include "broker/core/base/name.h"
#include "broker/core/base/number.h"
#include "broker/core/base/timer.h"
#include "broker/core/base/topo.h"
#include "broker/core/queue/pick.h"
#include "broker/core/queue/queue.h"
#include "broker/core/session/session.h"
#include "protocol/limits.h"

/* ---- back to the queue, or to the dead-letter queue ---- */

/* The queue that has the configured name now; NOT_FOUND when there is none, or it does not accept
 * items. */
static int dead_letter_named(struct apply *a, uint64_t queue, uint64_t *ret)
{
	struct queue_cell target;
	ProtobufCMessage *found;
	int rc = topo_find(a->txn, a->gateway, TOPO_QUEUE, queue, &sluice__queue_config__descriptor,
			   &found);

	if (rc != 0)
		return rc;
	rc = name_find(a->txn, a->gateway, NAME_QUEUE,
		       slice_text(((Sluice__QueueConfig *)found)->dead_letter), ret);
	protobuf_c_message_free_unpacked(found, NULL);
	if (rc == 0)
		rc = queue_cell_get(a->txn, a->gateway, *ret, &target);
	if (rc == 0 &&
	    (target.deleted || target.kind != SLUICE__QUEUE_KIND__QUEUE_ITEMS || *ret == queue))
		rc = SLUICE_E_NOT_FOUND;
	return rc;
}

/* Configured by name. A deleted queue is replaced by a later one with the same name; while there is
 * none, by the gateway's, which always exists. */
static int dead_letter_target(struct apply *a, uint64_t queue, struct queue_cell *cell,
			      uint64_t *ret)
{
	struct queue_cell target;
	int rc = queue_cell_get(a->txn, a->gateway, cell->dead_letter, &target);

	*ret = cell->dead_letter;
	if (rc == 0 && !target.deleted)
		return 0;
	if (rc == 0 || rc == SLUICE_E_NOT_FOUND)
		rc = dead_letter_named(a, queue, ret);
	if (rc == 0)
		cell->dead_letter = *ret;
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	return name_find(a->txn, a->gateway, NAME_QUEUE, slice_text("dead-letter"), ret);
}

/* It begins there without attempts: otherwise its first failure in a dead-letter queue with a
 * maximum would remove it. Its origin stays that of its first death. */
static int to_dead_letter(struct apply *a, uint64_t queue, struct queue_cell *cell, uint64_t seq,
			  struct queue_item *item, struct sluice_slice reason)
{
	struct queue_put_spec spec = {.time_ms = item->put_time_ms,
				      .priority = item->priority,
				      .dead_reason = reason};
	char name[QUEUE_NAME_BUF];
	uint64_t target, put;
	int rc = dead_letter_target(a, queue, cell, &target);

	if (rc == 0)
		rc = queue_name(a, queue, name);
	/* The put may invalidate slices borrowed from the store. */
	if (rc == 0)
		rc = queue_item_keep(a, item);
	if (rc != 0)
		return rc;
	spec.envelope = item->body;
	spec.dead_from = item->dead_from.len > 0 ? item->dead_from : slice_text(name);
	cell->dead++;
	cell->bytes -= queue_item_bytes(item);
	rc = queue_item_del(a, queue, seq);
	if (rc == 0)
		rc = queue_put(a, target, &spec, &put);
	return rc;
}

/* The item's strings must not be borrowed from the store. */
static int item_delay(struct apply *a, uint64_t queue, struct queue_cell *cell, uint64_t seq,
		      struct queue_item *item, uint32_t delay_ms)
{
	int rc = queue_item_del(a, queue, seq);

	item->flags |= ITEM_DELAYED;
	item->due_mono_ms = a->mono_ms + delay_ms;
	cell->delayed++;
	if (rc == 0)
		rc = queue_item_put(a, queue, QUEUE_DELAYED | seq, item);
	return rc != 0 ? rc : timer_set(a, item->due_mono_ms, TIMER_ITEM_DUE, queue, seq);
}

/* After a failed attempt; final: whatever the number of attempts, it was the last one. */
static int item_back(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint64_t seq,
		     uint32_t delay_ms, struct sluice_slice reason, bool final)
{
	struct queue_item item;
	int rc = queue_item_get(a->txn, a->gateway, queue, seq, &item);

	/* Damaged: it stays, neither leased nor ready. A TICK that failed here would fail here each
	 * time, and block all timers. */
	if (rc == SLUICE_E_NOT_FOUND) /* a purge deletes damaged items */
		rc = store_damaged("it is missing");
	if (rc == SLUICE_E_CORRUPT)
		return claim_report_damaged(a, queue, seq);
	if (rc != 0)
		return rc;
	item.attempts++;
	if (io_cell->dead_letter != 0 && (final || item.attempts >= io_cell->max_attempts))
		return to_dead_letter(a, queue, io_cell, seq, &item, reason);
	item.last_reason = (struct sluice_slice){NULL, 0};
	rc = queue_item_keep(a, &item);
	if (rc != 0)
		return rc;
	item.last_reason = reason;
	if (delay_ms > 0)
		return item_delay(a, queue, io_cell, seq, &item, delay_ms);
	io_cell->ready++;
	rc = queue_item_put(a, queue, seq, &item);
	return rc != 0 ? rc : ready_put(a, queue, io_cell, item.priority, seq);
}

int queue_item_back(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint64_t seq,
		    uint32_t delay_ms, struct sluice_slice reason)
{
	return item_back(a, queue, io_cell, seq, delay_ms, reason, false);
}

int queue_item_unbegun(struct apply *a, uint64_t queue, struct queue_cell *io_cell, uint64_t seq,
		       uint32_t delay_ms)
{
	struct queue_item item;
	int rc = queue_item_get(a->txn, a->gateway, queue, seq, &item);

	if (rc == SLUICE_E_NOT_FOUND) /* a purge deletes damaged items */
		rc = store_damaged("it is missing");
	if (rc == SLUICE_E_CORRUPT)
		return claim_report_damaged(a, queue, seq);
	if (rc != 0)
		return rc;
	if (delay_ms > 0) {
		rc = queue_item_keep(a, &item);
		return rc != 0 ? rc : item_delay(a, queue, io_cell, seq, &item, delay_ms);
	}
	io_cell->ready++;
	return ready_put(a, queue, io_cell, item.priority, seq);
}

/* ---- ack, nack, reject, release, begun, extend, renew ---- */

struct ack_work {
	struct queue_cell cell;
	struct queue_grant grant;
	uint8_t named[LIMIT_SIZE(GRANT_ITEMS_MAX) / 8]; /* held items that the runs name */
	uint32_t matched;
};

static void bits_set(uint8_t *bitmap, uint64_t from, uint64_t end)
{
	while (from < end) {
		if (from % 8 == 0 && end - from >= 8) {
			memset(bitmap + from / 8, 0xff, (end - from) / 8);
			from += (end - from) / 8 * 8;
		} else {
			bitmap[from / 8] |= (uint8_t)(1u << (from % 8));
			from++;
		}
	}
}

/* The cost is the sum of runs and items, not their product: runs may be arbitrary, also name
 * nothing that is held. False: no held item is named. */
static bool named_held(const struct cmd_ack *m, struct ack_work *work)
{
	const struct queue_grant *grant = &work->grant;
	bool any = false;

	memset(work->named, 0, sizeof(work->named));
	for (size_t i = 0; i < m->run_count; i++) {
		struct frame_run run = frame_run_at(m->runs, i);
		uint64_t end = run.first + run.count, last = grant->first + grant->bits;
		uint64_t from = run.first > grant->first ? run.first : grant->first;

		if (end < run.first || end > last)
			end = last;
		if (from < end)
			bits_set(work->named, from - grant->first, end - grant->first);
	}
	if ((m->op == ACK_RELEASE || m->op == ACK_RENEW) && m->run_count == 0)
		memset(work->named, 0xff, sizeof(work->named));
	for (size_t i = 0; i < sizeof(work->named); i++) {
		work->named[i] &= grant->bitmap[i];
		any |= work->named[i] != 0;
	}
	return any;
}

static int ack_one(struct apply *a, const struct cmd_ack *m, struct ack_work *work, uint64_t seq)
{
	struct queue_item item;
	int rc;

	work->matched++;
	if (m->op == ACK_BEGUN) {
		grant_begin(&work->grant, seq);
		return 0;
	}
	grant_clear(&work->grant, seq);
	work->cell.leased--;
	if (m->op == ACK_NACK)
		return queue_item_back(a, m->queue, &work->cell, seq, m->value_ms, m->reason);
	if (m->op == ACK_REJECT)
		return item_back(a, m->queue, &work->cell, seq, 0,
				 m->reason.len > 0 ? m->reason : slice_text("rejected"), true);
	if (m->op == ACK_RELEASE)
		return queue_item_unbegun(a, m->queue, &work->cell, seq, m->value_ms);
	rc = queue_item_get(a->txn, a->gateway, m->queue, seq, &item);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	work->cell.bytes -= queue_item_bytes(&item);
	work->cell.acked++;
	return queue_item_del(a, m->queue, seq);
}

static int ack_named(struct apply *a, const struct cmd_ack *m, struct ack_work *work)
{
	for (uint32_t bit = 0; bit < work->grant.bits; bit++) {
		int rc;

		if (work->named[bit / 8] == 0) {
			bit |= 7;
			continue;
		}
		if ((work->named[bit / 8] >> (bit % 8) & 1) == 0)
			continue;
		rc = ack_one(a, m, work, work->grant.first + bit);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* The lease that an extension or a renewal asks for; refuses one that is out of bounds. */
static uint32_t lease_asked(const struct cmd_ack *m, const struct queue_grant *grant,
			    struct outcome *out)
{
	uint32_t lease_ms = m->value_ms != 0 ? m->value_ms : grant->lease_ms;

	if (lease_ms < LIMIT_LEASE_MS_MIN || lease_ms > LIMIT_LEASE_MS_MAX)
		(void)refuse(out, SLUICE_E_LIMIT, "the lease is %u ms; expected %llu to %llu",
			     lease_ms, (unsigned long long)LIMIT_LEASE_MS_MIN,
			     (unsigned long long)LIMIT_LEASE_MS_MAX);
	return lease_ms;
}

static int extend(struct apply *a, const struct cmd_ack *m, struct ack_work *work,
		  struct outcome *out)
{
	uint32_t lease_ms = lease_asked(m, &work->grant, out);
	bool cell_changed = false;
	int rc = 0;

	if (refused(out))
		return 0;
	out->count = work->grant.out;
	if (work->grant.kind == GRANT_SESSION)
		return 0;
	work->grant.lease_ms = lease_ms;
	work->grant.deadline_ms = a->mono_ms + lease_ms;
	/* Costs one record; but a shortened lease needs an earlier check, also by a walk that has
	 * passed it already. */
	if (work->cell.scan_token != 0 && work->grant.deadline_ms < work->cell.scan_min) {
		work->cell.scan_min = work->grant.deadline_ms;
		cell_changed = true;
	}
	if (work->cell.lease_timer_due == 0 ||
	    work->grant.deadline_ms < work->cell.lease_timer_due) {
		rc = queue_lease_arm(a, m->queue, &work->cell, work->grant.deadline_ms);
		cell_changed = true;
	}
	if (rc == 0 && cell_changed)
		rc = queue_cell_put(a, m->queue, &work->cell);
	if (rc != 0)
		return rc;
	return grant_store(a, m->queue, m->token, &work->grant);
}

/* Moves the named items to another grant. At least one is named. */
static void grant_move(struct ack_work *work, struct queue_grant *to)
{
	struct queue_grant *from = &work->grant;

	for (uint32_t bit = 0; bit < from->bits; bit++) {
		const uint64_t seq = from->first + bit;
		bool begun;

		if ((work->named[bit / 8] >> (bit % 8) & 1) == 0)
			continue;
		begun = (from->begun[bit / 8] >> (bit % 8) & 1) != 0;
		if (work->matched++ == 0)
			to->first = seq;
		grant_clear(from, seq);
		grant_set(to, seq);
		if (begun)
			grant_begin(to, seq);
	}
}

/* The named items leave their grant for one of their own. Its token is the command's index, which
 * the answer has. The items are still held since when they were. The expiry walk meets the new
 * grant, whose token is the largest, also if it is under way. */
static int renew(struct apply *a, const struct cmd_ack *m, struct ack_work *work,
		 struct outcome *out)
{
	struct queue_grant renewed = {.session = work->grant.session,
				      .kind = work->grant.kind,
				      .lease_ms = lease_asked(m, &work->grant, out),
				      .since_ms = work->grant.since_ms,
				      .extend_max_ms = work->grant.extend_max_ms,
				      .reports = work->grant.reports};
	int rc;

	if (refused(out))
		return 0;
	grant_move(work, &renewed);
	out->count = work->matched;
	if (renewed.kind == GRANT_SESSION) {
		rc = session_own(a, a->session, OWNED_GRANT, a->index, m->queue);
	} else {
		renewed.deadline_ms = a->mono_ms + renewed.lease_ms;
		rc = queue_lease_arm(a, m->queue, &work->cell, renewed.deadline_ms);
		if (rc == 0)
			rc = queue_cell_put(a, m->queue, &work->cell);
	}
	if (rc == 0)
		rc = grant_store(a, m->queue, a->index, &renewed);
	return rc != 0 ? rc : grant_store(a, m->queue, m->token, &work->grant);
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
		return refuse(out, SLUICE_E_STALE_TOKEN,
			      "no lease with token %llu is held by this session: it was acked, "
			      "expired or taken over",
			      (unsigned long long)m->token);
	if (rc != 0)
		return rc;
	/* The end of a session returns its items in steps: those left here belong to it no longer.
	 * A timed lease continues to its deadline. */
	if (work.grant.kind == GRANT_SESSION) {
		rc = session_check(a, a->session, out);
		if (rc != 0 || refused(out))
			return rc;
	}
	if ((m->op == ACK_REJECT || m->op == ACK_RENEW) && !level_is(a, 1))
		return refuse(out, SLUICE_E_UNSUPPORTED,
			      "reject and renew need level 1, and the level is %u", a->core->level);
	out->kind = OUT_ACKED;
	if (m->op == ACK_EXTEND)
		return extend(a, m, &work, out);
	if (m->reason.len > LIMIT_TEXT_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT,
			      "the reason has %zu bytes; expected at most %llu", m->reason.len,
			      (unsigned long long)LIMIT_TEXT_BYTES_MAX);
	if (!named_held(m, &work))
		return refuse(out, SLUICE_E_STALE_TOKEN,
			      "none of these items is still held under token %llu",
			      (unsigned long long)m->token);
	if (m->op == ACK_RENEW)
		return renew(a, m, &work, out);
	/* Only the gateway's own: what is in it has nowhere else to go. */
	if (m->op == ACK_REJECT && work.cell.dead_letter == 0)
		return refuse(out, SLUICE_E_WRONG_STATE,
			      "this queue has no dead-letter queue: its items can be acked or "
			      "nacked");
	ready_before = work.cell.ready;
	rc = ack_named(a, m, &work);
	if (rc == 0)
		rc = grant_store(a, m->queue, m->token, &work.grant);
	if (rc == 0 && m->op != ACK_BEGUN)
		rc = queue_cell_put(a, m->queue, &work.cell);
	if (rc == 0 && work.cell.ready > ready_before)
		rc = queue_ready_effect(a, m->queue);
	out->count = work.matched;
	return rc;
}

/* ---- expiry ---- */

int queue_lease_arm(struct apply *a, uint64_t queue, struct queue_cell *io_cell,
		    uint64_t deadline_ms)
{
	if (deadline_ms < io_cell->scan_not_before)
		deadline_ms = io_cell->scan_not_before;
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
	uint8_t buf[NUMBER_BYTES];

	return store_put(a->txn, STORE_META, boot_key(), number_encode(buf, a->mono_ms));
}

int queue_boot_mono(struct store_txn *txn, uint64_t *ret)
{
	struct sluice_slice value;
	int rc = store_get(txn, STORE_META, boot_key(), &value);

	*ret = 0;
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	return rc != 0 ? rc : number_decode(value, ret);
}

/* Returns up to *io_max items of an ended lease, and removes them from it. Begun items count a
 * failed attempt. */
static int grant_return(struct apply *a, uint64_t queue, struct queue_cell *cell,
			struct queue_grant *grant, const char *reason, uint32_t *io_max)
{
	uint64_t first_held = UINT64_MAX;

	for (uint64_t seq = grant->first; grant->out > 0 && seq < grant->first + grant->bits;
	     seq++) {
		bool begun;
		int rc;

		if (!grant_has(grant, seq))
			continue;
		if (*io_max == 0)
			break;
		--*io_max;
		if (first_held == UINT64_MAX)
			first_held = seq;
		begun = grant_was_begun(grant, seq, first_held);
		grant_clear(grant, seq);
		cell->leased--;
		rc = begun ? queue_item_back(a, queue, cell, seq, 0, slice_text(reason))
			   : queue_item_unbegun(a, queue, cell, seq, 0);
		if (rc != 0)
			return rc;
	}
	grant->reports = true; /* for the remaining items: the first one was found */
	return 0;
}

enum { GRANT_CHECKS_PER_WORK = 8, WALK_PAUSE_DIVISOR = 50, WALK_PAUSE_MS_MAX = 5000 };

/* There is no index of deadlines: a walk checks every grant of the queue. A pause after it,
 * proportional to the number of grants, bounds its cost: with very many leases in a queue a lease
 * ends up to an eighth of its duration later, at most 5 s. */
static uint64_t walk_pause_ms(const struct queue_cell *cell)
{
	uint64_t rest = cell->leased / WALK_PAUSE_DIVISOR;

	if (rest > cell->lease_ms / 8)
		rest = cell->lease_ms / 8;
	return rest < WALK_PAUSE_MS_MAX ? rest : WALK_PAUSE_MS_MAX;
}

/* Walks the grants from cell->scan_token on until the work is spent. Returns 1 at the end, 0 when
 * there are more, or a failure. */
static int expire_walk(struct apply *a, uint64_t queue, struct queue_cell *cell, uint64_t boot_mono,
		       uint32_t *io_work)
{
	struct store_scan *scan = NULL;
	struct sluice_slice found, value;
	struct queue_grant grant;
	struct key key;
	uint32_t checked = 0, all;
	int rc;

	key_two(&key, a->gateway, queue, cell->scan_token);
	rc = store_scan_begin(a->txn, STORE_GRANT, key_slice(&key), &scan);
	while (rc == 0) {
		uint64_t deadline, token;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		if (!key_two_in(found, a->gateway, queue, &token)) {
			rc = SLUICE_E_NOT_FOUND;
			break;
		}
		if (*io_work == 0) {
			cell->scan_token = token;
			rc = 0;
			break;
		}
		/* A check costs less than a written record. */
		if (++checked % GRANT_CHECKS_PER_WORK == 0)
			(*io_work)--;
		if (rc == 0)
			rc = grant_decode(value, &grant);
		/* It stays, with its items: those of other leases must not wait for ever. */
		if (rc == SLUICE_E_CORRUPT) {
			rc = claim_report_damaged(a, queue, token);
			continue;
		}
		if (rc != 0)
			break;
		if (grant.kind == GRANT_SESSION)
			continue;
		deadline = grant.deadline_ms > boot_mono + grant.lease_ms
				   ? grant.deadline_ms
				   : boot_mono + grant.lease_ms;
		if (deadline > a->mono_ms) {
			if (deadline < cell->scan_min)
				cell->scan_min = deadline;
			continue;
		}
		*io_work -= *io_work < grant.out ? *io_work : grant.out;
		rc = store_scan_del(scan);
		all = UINT32_MAX;
		if (rc == 0)
			rc = grant_return(a, queue, cell, &grant, "lease expired", &all);
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
	/* The timer was replaced by an earlier one. */
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
		/* Not finished: continues with the next TICK. */
		rc = queue_lease_arm(a, queue, &cell, a->mono_ms);
	} else {
		cell.scan_token = 0;
		cell.scan_not_before = a->mono_ms + walk_pause_ms(&cell);
		rc = cell.scan_min == UINT64_MAX ? 0
						 : queue_lease_arm(a, queue, &cell, cell.scan_min);
	}
	if (rc == 0)
		rc = queue_cell_put(a, queue, &cell);
	if (rc == 0 && cell.ready > ready_before)
		rc = queue_ready_effect(a, queue);
	return rc;
}

/* Only a purge deletes a delayed item, a damaged one whose delay it could not read: its timer
 * corrects the count. */
static int delayed_gone(struct apply *a, uint64_t queue, struct queue_cell *cell)
{
	if (cell->deleted || cell->delayed == 0)
		return 0;
	cell->delayed--;
	return queue_cell_put(a, queue, cell);
}

/* The record of a delayed item is in the upper half; in a store of an older version, in place. */
static int delayed_get(struct apply *a, uint64_t queue, uint64_t seq, struct queue_item *ret,
		       uint64_t *ret_place)
{
	int rc = queue_item_get(a->txn, a->gateway, queue, QUEUE_DELAYED | seq, ret);

	*ret_place = QUEUE_DELAYED | seq;
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	*ret_place = seq;
	return queue_item_get(a->txn, a->gateway, queue, seq, ret);
}

int queue_item_due_fire(struct apply *a, uint64_t queue, uint64_t seq, uint32_t *io_work)
{
	struct queue_cell cell;
	struct queue_item item;
	uint64_t place;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc == 0)
		rc = delayed_get(a, queue, seq, &item, &place);
	if (rc == SLUICE_E_NOT_FOUND)
		return delayed_gone(a, queue, &cell);
	if (rc != 0)
		return rc;
	if (*io_work > 0)
		(*io_work)--;
	if (cell.deleted || !(item.flags & ITEM_DELAYED))
		return 0;
	if (age_due_doubted(a, item.due_mono_ms))
		return timer_set(a, age_doubt(a), TIMER_ITEM_DUE, queue, seq);
	if (age_due(a, item.due_mono_ms) > a->mono_ms)
		return timer_set(a, age_due(a, item.due_mono_ms), TIMER_ITEM_DUE, queue, seq);
	rc = queue_item_keep(a, &item);
	if (rc != 0)
		return rc;
	item.flags &= (uint8_t)~ITEM_DELAYED;
	if (seq < cell.head)
		item.flags |= ITEM_OVERTAKEN;
	item.due_mono_ms = 0;
	cell.delayed--;
	cell.ready++;
	if (place != seq)
		rc = queue_item_del(a, queue, place);
	if (rc == 0)
		rc = queue_item_put(a, queue, seq, &item);
	/* At or above head it is found in order; below head it is an exception. */
	if (rc == 0 && seq < cell.head)
		rc = ready_put(a, queue, &cell, item.priority, seq);
	if (rc == 0)
		rc = queue_cell_put(a, queue, &cell);
	return rc != 0 ? rc : queue_ready_effect(a, queue);
}

/* The first grant of queue `from` or a later one whose token is at or after `token`; NOT_FOUND. */
static int grant_seek(struct apply *a, uint64_t from, uint64_t token, uint64_t *ret_queue,
		      uint64_t *ret_token)
{
	struct sluice_slice found = {NULL, 0}, value;
	struct store_scan *scan;
	struct two_key grant;
	struct key key;
	int rc;

	key_two(&key, a->gateway, from, token);
	rc = store_scan_begin(a->txn, STORE_GRANT, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	rc = store_scan_next(scan, &found, &value);
	if (rc == SLUICE_E_CORRUPT && found.len == KEY_TWO_BYTES)
		rc = 0;
	if (rc == 0 && (!key_two_decode(found, &grant) || grant.gateway != a->gateway))
		rc = SLUICE_E_NOT_FOUND;
	if (rc == 0) {
		*ret_queue = grant.of;
		*ret_token = grant.number;
	}
	store_scan_end(scan);
	return rc;
}

int queue_of_grant(struct apply *a, uint64_t token, uint64_t *ret)
{
	uint64_t from = 0, queue, found;
	int rc;

	/* At most two reads per queue. */
	while ((rc = grant_seek(a, from, token, &queue, &found)) == 0) {
		if (found == token) {
			*ret = queue;
			return 0;
		}
		from = queue > from ? queue : queue + 1;
	}
	return rc;
}

int queue_session_ended(struct apply *a, uint64_t session, uint64_t queue, uint64_t token,
			uint32_t *io_work, bool *ret_done)
{
	struct queue_cell cell;
	struct queue_grant grant;
	struct key key;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	*ret_done = true;
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	rc = grant_get(a->txn, a->gateway, queue, token, &grant);
	/* Damaged: it stays, with its items, and the session ends. */
	if (rc == SLUICE_E_CORRUPT)
		return claim_report_damaged(a, queue, token);
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	if (grant.session != session)
		return 0;
	rc = grant_return(a, queue, &cell, &grant, "session ended", io_work);
	if (rc != 0)
		return rc;
	*ret_done = grant.out == 0;
	key_two(&key, a->gateway, queue, token);
	/* The caller removes it from the session's entries when all is returned. */
	rc = *ret_done ? store_del(a->txn, STORE_GRANT, key_slice(&key))
		       : grant_store(a, queue, token, &grant);
	if (rc == 0)
		rc = queue_cell_put(a, queue, &cell);
	return rc != 0 ? rc : queue_ready_effect(a, queue);
}
