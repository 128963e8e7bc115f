/* SPDX-License-Identifier: Apache-2.0
 *
 * Timers and TICK. A timer is a key without a value, never deleted ahead of its time: firing looks at the
 * record and does nothing when the reason is gone. One TICK does at most work_max records of work over all
 * gateways; what is left stays due, so the engine ticks again at once. Gateways take turns: a tick that ran
 * out of work says where the next begins.
 *
 * A timer whose work meets a damaged record would hold up all others for ever: the engine undoes the batch, asks core_tick_timer which one it
 * was, and has it put off. A timer's key is all that it says, so one whose own record is damaged fires like any other.
 */
#include "broker/core/base/counter.h"
#include "broker/core/base/state.h"
#include "broker/core/base/timer.h"
#include "broker/core/dispatch/dispatch.h"
#include "broker/core/job/quarantine.h"
#include "broker/core/publish/producer.h"
#include "broker/core/queue/queue.h"
#include "broker/core/stream/stream.h"

enum { DUE_AT_ONCE = 64, TIMER_PUT_OFF_MS = 60000, DOUBT_LOOK_MS = 60000 };

struct due_timer {
	uint8_t key[TIMER_KEY_BYTES];
};

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
	return rc == SLUICE_E_CORRUPT && key.len == TIMER_KEY_BYTES ? 0 : rc;
}

/* Copies the keys of up to max due timers: a fire function writes the table, so no scan may be open then. */
static int due_collect(struct apply *a, struct due_timer *ret, size_t max, size_t *ret_count)
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
		if (found.len != TIMER_KEY_BYTES) {
			rc = store_damaged("its content is not valid");
			break;
		}
		if (get_be32(found.data) != a->gateway ||
		    get_be64((const uint8_t *)found.data + 4) > a->mono_ms)
			break;
		memcpy(ret[count++].key, found.data, TIMER_KEY_BYTES);
	}
	store_scan_end(scan);
	*ret_count = count;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int timer_fire(struct apply *a, const struct due_timer *timer, uint32_t *io_work)
{
	timer_fire_fn fire = fire_function(timer->key[12]);
	uint32_t before = *io_work;
	int rc;

	memcpy(a->core->firing, timer->key, TIMER_KEY_BYTES);
	a->core->fires = true;
	rc = store_del(a->txn, STORE_TIMER, (struct sluice_slice){timer->key, TIMER_KEY_BYTES});
	if (rc == 0)
		rc = fire == NULL ? store_damaged("its content is not valid")
				  : fire(a, get_be64(timer->key + 13), get_be64(timer->key + 21), io_work);
	/* A timer without work of its own costs one, so that a tick always ends. */
	if (*io_work >= before)
		*io_work = before - 1;
	a->core->fires = rc != 0;
	return rc;
}

static int gateway_tick(struct apply *a, uint32_t *io_work)
{
	struct due_timer due[DUE_AT_ONCE];
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

static int put_off(struct apply *a, struct sluice_slice timer)
{
	const uint8_t *key = timer.data;
	int rc = store_del(a->txn, STORE_TIMER, timer);

	/* What set it may have been refused when the batch was run again: then there is nothing to put off. */
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	a->gateway = get_be32(key);
	return rc != 0 ? rc
		       : timer_set(a, a->mono_ms + TIMER_PUT_OFF_MS, (enum timer_kind)key[12],
				   get_be64(key + 13), get_be64(key + 21));
}

int tick_apply(struct apply *a, const struct cmd_tick *m, struct outcome *out)
{
	uint32_t work = m->work_max;
	uint64_t gateways, first;
	struct apply root = *a;
	int rc;

	if (m->put_off.len == TIMER_KEY_BYTES) {
		rc = put_off(&root, m->put_off);
		if (rc != 0)
			return rc;
	}
	root.gateway = 0;
	rc = counter_get(a->txn, 0, COUNTER_GATEWAY, &gateways);
	if (rc == 0)
		rc = counter_get(a->txn, 0, COUNTER_TICK_FIRST, &first);
	for (uint64_t i = 0; rc == 0 && i < gateways && work > 0; i++) {
		struct apply ticked = *a;

		ticked.gateway = (uint32_t)(1 + (first + i) % gateways);
		ticked.index = 0;
		rc = gateway_tick(&ticked, &work);
		if (rc == 0)
			rc = pending_flush(&ticked);
		if (rc == 0 && work == 0)
			rc = counter_set(&root, COUNTER_TICK_FIRST, (first + i + 1) % gateways);
	}
	return rc;
}

int core_next_deadline(struct core *core, struct store_txn *txn, uint64_t *ret_mono_ms)
{
	/* A clock in doubt is looked at, and how long it has stood is kept, also when nothing else happens. */
	uint64_t gateways, earliest = core->age.doubting ? core->clock.mono_ms + DOUBT_LOOK_MS : UINT64_MAX;
	int rc = counter_get(txn, 0, COUNTER_GATEWAY, &gateways);

	for (uint64_t gateway = 1; rc == 0 && gateway <= gateways; gateway++) {
		struct store_scan *scan;
		struct sluice_slice found;
		struct key key;

		key_begin(&key, (uint32_t)gateway);
		rc = store_scan_begin(txn, STORE_TIMER, key_slice(&key), &scan);
		if (rc != 0)
			return rc;
		rc = timer_next(scan, &found);
		if (rc == 0 && found.len != TIMER_KEY_BYTES)
			rc = store_damaged("its content is not valid");
		if (rc == 0 && get_be32(found.data) == gateway) {
			uint64_t due = get_be64((const uint8_t *)found.data + 4);

			earliest = due < earliest ? due : earliest;
		}
		store_scan_end(scan);
		rc = rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	}
	if (rc == 0)
		*ret_mono_ms = earliest;
	return rc;
}
