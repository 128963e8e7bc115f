/* SPDX-License-Identifier: Apache-2.0
 *
 * Headroom by class: publishes stop first, reports later, what frees room never. With hysteresis, so that the answer does not flicker.
 *
 * Two gates, and the narrower one counts. By fill: percents of map and disk, looked at now and then; it stops in good time. By room: the
 * store holds disk allocated ahead, a reserve, which no other program can take. What grows the store is admitted only while the reserve is
 * whole, so a disk that is filled at once, or a map that fills faster than anyone looks, leaves the reserve to acks, deletes and expiry.
 */
#include "broker/engine/engine_internal.h"
#include "broker/util/log.h"

enum { HYSTERESIS_PERCENT = 5, RESERVE_PER_MAP = 20, CONTIGUOUS_PART = 8, PLENTY = 4 };

static uint32_t percent(uint64_t part, uint64_t whole)
{
	return part >= whole ? 100 : (uint32_t)(part / (whole / 100 + 1));
}

static uint32_t fill_percent(const struct headroom_gate *gate, const struct store_facts *facts)
{
	uint64_t file = facts->file_bytes > facts->used_bytes ? facts->file_bytes : facts->used_bytes;
	uint64_t room = file + facts->ahead_bytes + facts->disk_free_bytes;
	uint32_t map = percent(facts->used_bytes, facts->map_bytes), disk;

	if (facts->disk_free_bytes == UINT64_MAX)
		return map;
	/* The disk is full for publishes when what is left is the reserve. */
	disk = room > gate->reserve_bytes ? percent(facts->used_bytes, room - gate->reserve_bytes) : 100;
	return map > disk ? map : disk;
}

void headroom_update(struct headroom_gate *gate, const struct store_facts *facts)
{
	uint32_t fill = fill_percent(gate, facts);
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

void headroom_room(struct headroom_gate *gate, const struct store_room *room)
{
	uint64_t reserve = gate->reserve_bytes;
	uint64_t total = room->ahead_bytes + room->inside_bytes;
	/* Having stopped, it wants somewhat more to go on. */
	uint64_t wanted = gate->room_state == HEADROOM_OK ? reserve : reserve + reserve / 4;
	bool contiguous;

	if (total < room->ahead_bytes)
		total = UINT64_MAX;
	/* Lists of freed pages want pages in a row: some of the reserve is to be such, unless there is plenty of the other kind. */
	contiguous = room->ahead_bytes >= reserve / CONTIGUOUS_PART || room->inside_bytes >= PLENTY * reserve;
	if (total < reserve / 2)
		gate->room_state = HEADROOM_REPORT_STOPPED;
	else
		gate->room_state = total >= wanted && contiguous ? HEADROOM_OK : HEADROOM_PUBLISH_STOPPED;
}

enum headroom_state headroom_state(const struct headroom_gate *gate)
{
	return gate->room_state > gate->state ? gate->room_state : gate->state;
}

bool headroom_admits(const struct headroom_gate *gate, enum headroom class)
{
	enum headroom_state state = headroom_state(gate);

	if (class == HEADROOM_ALWAYS)
		return true;
	if (class == HEADROOM_REPORT)
		return state != HEADROOM_REPORT_STOPPED;
	return state == HEADROOM_OK;
}

void headroom_init(struct headroom_gate *gate, const struct engine_config *config, uint64_t map_bytes)
{
	gate->publish_stop_percent = config->publish_stop_percent != 0 ? config->publish_stop_percent : 80;
	gate->report_stop_percent = config->report_stop_percent != 0 ? config->report_stop_percent : 95;
	gate->reserve_bytes = config->reserve_bytes != 0 ? config->reserve_bytes : RESERVE_BYTES_DEFAULT;
	if (gate->reserve_bytes > map_bytes / RESERVE_PER_MAP)
		gate->reserve_bytes = map_bytes / RESERVE_PER_MAP;
}

int headroom_room_look(struct engine *engine, uint64_t more, struct store_room *ret)
{
	struct headroom_gate *gate = &engine->gate;
	/* A batch on top of the reserve, so that it is whole after it as well. */
	int rc = store_reserve_disk(engine->store, gate->reserve_bytes + gate->reserve_bytes / 2 + more, ret);

	if (rc == SLUICE_E_UNSUPPORTED && !gate->unsupported_told) {
		gate->unsupported_told = true;
		log_line(
			LOG_LEVEL_WARN,
			log_id("engine.no_reserve",
			       "the file system cannot allocate ahead: another program that fills the disk at once can stop the broker"));
	}
	if (rc != 0 && rc != SLUICE_E_NO_SPACE && rc != SLUICE_E_UNSUPPORTED)
		return rc;
	headroom_room(gate, ret);
	return 0;
}

int headroom_batch_fits(struct engine *engine, uint64_t put_bytes)
{
	uint64_t reserve = engine->gate.reserve_bytes, need = put_bytes * 2, total;
	struct store_room room;
	int rc;

	/* Pages are half full at the worst. What a batch may take without a look is known to be there. */
	if (need <= reserve / 4)
		return 0;
	rc = headroom_room_look(engine, need, &room);
	if (rc != 0)
		return rc;
	total = room.ahead_bytes + room.inside_bytes;
	return total < room.ahead_bytes || total >= need + reserve / 2 ? 0 : SLUICE_E_NO_SPACE;
}
