/* SPDX-License-Identifier: Apache-2.0
 *
 * The timer wheel: a list for each tick modulo WHEEL_SLOTS. An entry lies in the list of the first
 * tick that is not before its deadline, so the list of a tick that has come holds what is due and
 * what is due in a later turn.
 */
#include "broker/net/conn/wheel.h"

#include <string.h>
#include <utlist.h>

#include "broker/util/invariant.h"

void wheel_init(struct wheel *wheel, uint64_t now_ms)
{
	memset(wheel, 0, sizeof(*wheel));
	wheel->tick = now_ms / WHEEL_TICK_MS;
}

static uint64_t tick_of(uint64_t due_ms)
{
	return due_ms / WHEEL_TICK_MS + (due_ms % WHEEL_TICK_MS != 0);
}

static void put(struct wheel *wheel, struct wheel_entry *entry)
{
	uint64_t tick = tick_of(entry->due_ms);

	entry->list = (uint32_t)((tick > wheel->tick ? tick : wheel->tick) % WHEEL_SLOTS);
	DL_APPEND(wheel->lists[entry->list], entry);
}

void wheel_set(struct wheel *wheel, struct wheel_entry *entry, uint64_t due_ms)
{
	wheel_remove(wheel, entry);
	entry->due_ms = due_ms;
	entry->set = true;
	wheel->count++;
	put(wheel, entry);
}

void wheel_remove(struct wheel *wheel, struct wheel_entry *entry)
{
	if (!entry->set)
		return;
	invariant(entry->list <= WHEEL_SLOTS && wheel->count > 0, "list %u, %zu entries",
		  entry->list, wheel->count);
	DL_DELETE(wheel->lists[entry->list], entry);
	entry->set = false;
	wheel->count--;
}

/* Makes the next tick's list the one to check. False: no tick has come. */
static bool turn(struct wheel *wheel, uint64_t now_ms)
{
	uint64_t now = now_ms / WHEEL_TICK_MS;
	struct wheel_entry *entry;

	/* After a long stop one turn visits all entries. */
	if (now >= wheel->tick + WHEEL_SLOTS)
		wheel->tick = now - WHEEL_SLOTS + 1;
	if (wheel->tick > now)
		return false;
	wheel->lists[WHEEL_SLOTS] = wheel->lists[wheel->tick % WHEEL_SLOTS];
	wheel->lists[wheel->tick % WHEEL_SLOTS] = NULL;
	DL_FOREACH(wheel->lists[WHEEL_SLOTS], entry)
		entry->list = WHEEL_SLOTS;
	wheel->tick++;
	return true;
}

struct wheel_entry *wheel_due(struct wheel *wheel, uint64_t now_ms)
{
	do {
		struct wheel_entry *entry;

		while ((entry = wheel->lists[WHEEL_SLOTS]) != NULL) {
			wheel->visited++;
			if (entry->due_ms <= now_ms) {
				wheel_remove(wheel, entry);
				return entry;
			}
			DL_DELETE(wheel->lists[WHEEL_SLOTS], entry);
			put(wheel, entry);
		}
	} while (turn(wheel, now_ms));
	return NULL;
}
