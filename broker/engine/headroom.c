/* SPDX-License-Identifier: Apache-2.0
 * Headroom by class: publishes stop first, reports later, what frees room never. With hysteresis, so that the answer does not flicker. */
#include "broker/engine/engine_internal.h"

enum { HYSTERESIS_PERCENT = 5 };
/* The disk counts as full when less than this is free: room for what must always go. */
static const uint64_t disk_reserve_bytes = 64ull << 20;

static uint32_t fill_percent(const struct store_facts *facts)
{
	uint64_t map = facts->map_bytes == 0 ? 0 : facts->used_bytes * 100 / facts->map_bytes;
	/* The store's file only grows by what the disk has left: used against used + free. */
	uint64_t room = facts->used_bytes + (facts->disk_free_bytes > disk_reserve_bytes
						     ? facts->disk_free_bytes - disk_reserve_bytes
						     : 0);
	uint64_t disk =
		facts->disk_free_bytes == UINT64_MAX || room == 0 ? 0 : facts->used_bytes * 100 / room;

	return (uint32_t)(map > disk ? map : disk);
}

void headroom_update(struct headroom_gate *gate, const struct store_facts *facts)
{
	uint32_t fill = fill_percent(facts);
	uint32_t report = gate->report_stop_percent, publish = gate->publish_stop_percent;

	if (fill >= report) {
		gate->state = HEADROOM_REPORT_STOPPED;
	} else if (fill >= publish) {
		if (gate->state != HEADROOM_REPORT_STOPPED || fill + HYSTERESIS_PERCENT < report)
			gate->state = HEADROOM_PUBLISH_STOPPED;
	} else if (fill + HYSTERESIS_PERCENT < publish) {
		gate->state = HEADROOM_OK;
	} else if (gate->state == HEADROOM_REPORT_STOPPED && fill + HYSTERESIS_PERCENT < report) {
		gate->state = HEADROOM_PUBLISH_STOPPED;
	}
	if (gate->forced && gate->state == HEADROOM_OK && fill + 2 * HYSTERESIS_PERCENT >= publish)
		gate->state = HEADROOM_PUBLISH_STOPPED;
	else
		gate->forced = false;
}

bool headroom_admits(const struct headroom_gate *gate, enum headroom class)
{
	if (class == HEADROOM_ALWAYS)
		return true;
	if (class == HEADROOM_REPORT)
		return gate->state != HEADROOM_REPORT_STOPPED;
	return gate->state == HEADROOM_OK;
}
