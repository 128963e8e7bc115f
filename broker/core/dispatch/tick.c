/* SPDX-License-Identifier: Apache-2.0
 *
 * Timers and TICK. A timer is a key without a value, never deleted before it is due: firing checks
 * the record and does nothing when the reason is gone. One TICK does at most work_max records of
 * work over all gateways; the rest stays due, so the engine ticks again at once. Gateways take
 * turns: a tick that ran out of work stores where the next begins.
 *
 * A timer whose work meets a damaged record would block all others for ever: the engine undoes the
 * batch, asks core_tick_timer which timer it was, and has it put off. A timer has only a key, so a
 * timer whose own record is damaged fires like any other.
 */
#include <assert.h>

#include "broker/core/base/counter.h"
#include "broker/core/base/state.h"
#include "broker/core/base/timer.h"
#include "broker/core/dispatch/dispatch.h"
#include "broker/core/job/quarantine.h"
#include "broker/core/publish/producer.h"
#include "broker/core/queue/queue.h"
#include "broker/core/stream/stream.h"

enum { DUE_AT_ONCE = 64, TIMER_PUT_OFF_MS = 60000, DOUBT_CHECK_MS = 60000 };

static_assert((int)TIMER_KEY_BYTES == (int)KEY_TIMER_BYTES, "TICK carries the key of a timer");

static timer_fire_fn fire_function(uint8_t kind)
{
	static const timer_fire_fn fire_of[TIMER_KIND_COUNT] = {
#define TIMER(NAME, number, fire, text) [number] = fire,
#include "broker/core/timers.def"
#undef TIMER
	};

	return kind < TIMER_KIND_COUNT ? fire_of[kind] : NULL;
}

static int timer_next(struct store_scan *scan, struct sluice_slice *ret_key)
{
	struct sluice_slice value, key = {NULL, 0};
	int rc = store_scan_next(scan, &key, &value);

	*ret_key = key;
	return rc == SLUICE_E_CORRUPT && key.len == KEY_TIMER_BYTES ? 0 : rc;
}

/* Up to max due timers, copied: a fire function writes the table, so no scan may be open then. */
static int due_collect(struct apply *a, struct timer_key *ret, size_t max, size_t *ret_count)
{
	struct store_scan *scan;
	struct sluice_slice found;
	struct key key;
	size_t count = 0;
	int rc;

	key_begin(&key, a->gateway);
	rc = store_scan_begin(a->txn, STORE_TIMER, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while (count < max && (rc = timer_next(scan, &found)) == 0) {
		if (!key_timer_decode(found, &ret[count])) {
			rc = store_damaged("its content is not valid");
			break;
		}
		if (ret[count].gateway != a->gateway || ret[count].due_mono_ms > a->mono_ms)
			break;
		count++;
	}
	store_scan_end(scan);
	*ret_count = count;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int timer_fire(struct apply *a, const struct timer_key *timer, uint32_t *io_work)
{
	timer_fire_fn fire = fire_function(timer->kind);
	uint32_t before = *io_work;
	struct key key;
	int rc;

	key_timer(&key, timer->gateway, timer->due_mono_ms, timer->kind, timer->id, timer->sub);
	memcpy(a->core->firing, key.bytes, sizeof(a->core->firing));
	a->core->fires = true;
	rc = store_del(a->txn, STORE_TIMER, key_slice(&key));
	if (rc == 0)
		rc = fire == NULL ? store_damaged("its content is not valid")
				  : fire(a, timer->id, timer->sub, io_work);
	/* A timer without work of its own counts as one, so that a tick always ends. */
	if (*io_work >= before)
		*io_work = before - 1;
	a->core->fires = rc != 0;
	return rc;
}

static int gateway_tick(struct apply *a, uint32_t *io_work)
{
	struct timer_key due[DUE_AT_ONCE];
	size_t count = 0;
	int rc;

	while (*io_work > 0) {
		rc = due_collect(a, due, *io_work < DUE_AT_ONCE ? *io_work : DUE_AT_ONCE, &count);
		if (rc != 0 || count == 0)
			return rc;
		if (a->index == 0) {
			rc = counter_next(a, COUNTER_INDEX, &a->index);
			if (rc != 0)
				return rc;
		}
		for (size_t i = 0; i<count && * io_work> 0; i++) {
			rc = timer_fire(a, &due[i], io_work);
			if (rc != 0)
				return rc;
		}
	}
	return 0;
}

struct sluice_slice core_tick_timer(const struct core *core)
{
	return (struct sluice_slice){core->firing, core->fires ? TIMER_KEY_BYTES : 0};
}

bool core_timer_read(struct sluice_slice key, struct timer_ref *ret)
{
	struct timer_key timer;

	if (!key_timer_decode(key, &timer))
		return false;
	*ret = (struct timer_ref){.gateway = timer.gateway,
				  .kind = timer.kind,
				  .id = timer.id,
				  .sub = timer.sub};
	return true;
}

static int put_off(struct apply *a, struct sluice_slice key)
{
	struct timer_key timer;
	int rc = key_timer_decode(key, &timer) ? store_del(a->txn, STORE_TIMER, key)
					       : SLUICE_E_NOT_FOUND;

	/* The command that set it may have been refused when the batch was run again: then there is
	 * nothing to put off. */
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	a->gateway = timer.gateway;
	return rc != 0 ? rc
		       : timer_set(a, a->mono_ms + TIMER_PUT_OFF_MS, (enum timer_kind)timer.kind,
				   timer.id, timer.sub);
}

/* The first timer of the gateways from this one on, up to the last; NOT_FOUND. Gateways without
 * timers cost nothing: their numbers may have large gaps. */
static int timer_first(struct store_txn *txn, uint64_t gateway, uint64_t last,
		       struct timer_key *ret)
{
	struct store_scan *scan;
	struct sluice_slice found;
	struct key key;
	int rc;

	if (gateway > last)
		return SLUICE_E_NOT_FOUND;
	key_begin(&key, (uint32_t)gateway);
	rc = store_scan_begin(txn, STORE_TIMER, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	rc = timer_next(scan, &found);
	if (rc == 0 && !key_timer_decode(found, ret))
		rc = store_damaged("its content is not valid");
	store_scan_end(scan);
	return rc == 0 && ret->gateway > last ? SLUICE_E_NOT_FOUND : rc;
}

/* The gateways from one number to another, in order. */
static int gateways_tick(struct apply *a, uint64_t from, uint64_t to, uint64_t gateways,
			 uint32_t *io_work)
{
	struct timer_key timer;
	int rc = 0;

	for (; *io_work > 0 && (rc = timer_first(a->txn, from, to, &timer)) == 0;
	     from = timer.gateway + 1ull) {
		struct apply ticked = *a, root = *a;

		ticked.gateway = timer.gateway;
		ticked.index = 0;
		root.gateway = 0;
		rc = gateway_tick(&ticked, io_work);
		if (rc == 0)
			rc = pending_flush(&ticked);
		if (rc == 0 && *io_work == 0)
			rc = counter_set(&root, COUNTER_TICK_FIRST, timer.gateway % gateways);
		if (rc != 0)
			return rc;
	}
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int tick_apply(struct apply *a, const struct cmd_tick *m, struct outcome *out)
{
	uint32_t work = m->work_max;
	uint64_t gateways, first;
	struct apply root = *a;
	int rc;

	if (m->put_off.len > 0) {
		rc = put_off(&root, m->put_off);
		if (rc != 0)
			return rc;
	}
	rc = counter_get(a->txn, 0, COUNTER_GATEWAY, &gateways);
	if (rc == 0)
		rc = counter_get(a->txn, 0, COUNTER_TICK_FIRST, &first);
	if (rc == 0)
		rc = gateways_tick(a, first + 1, gateways, gateways, &work);
	return rc != 0 ? rc : gateways_tick(a, 1, first, gateways, &work);
}

int core_next_deadline(struct core *core, struct store_txn *txn, uint64_t *ret_mono_ms)
{
	/* A clock in doubt is checked, and the time that it was confirmed is stored, also when
	 * nothing else happens. */
	uint64_t gateways,
		earliest = core->age.doubting ? core->clock.mono_ms + DOUBT_CHECK_MS : UINT64_MAX;
	struct timer_key timer = {.gateway = 0};
	int rc = counter_get(txn, 0, COUNTER_GATEWAY, &gateways);

	while (rc == 0 && (rc = timer_first(txn, timer.gateway + 1ull, gateways, &timer)) == 0)
		earliest = timer.due_mono_ms < earliest ? timer.due_mono_ms : earliest;
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	*ret_mono_ms = earliest;
	return 0;
}
