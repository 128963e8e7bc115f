/* SPDX-License-Identifier: Apache-2.0
 *
 * Headroom by class: publishes stop first, reports later, commands that free room never. Hysteresis
 * keeps the state from flickering.
 *
 * Two gates; the narrower one counts. By fill: percent of the map, for publishes also of the disk.
 * By room: the store holds disk allocated ahead, a reserve, which no other program can take;
 * publishes leave it whole, reports leave half of it. So a disk that another program fills suddenly
 * stops publishes first, at any percentage.
 *
 * Both gates are checked before a command enters a batch, and after each command for what the batch
 * has put so far: a command that exceeds its room is undone and refused. So no rate of filling and
 * no size of commands or batches carries a class beyond its stop.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/engine/engine_internal.h"
#include "broker/util/log.h"

enum { HYSTERESIS_PERCENT = 5, RESERVE_PER_MAP = 20, CONTIGUOUS_PART = 8, PLENTY = 4 };

/* Upper bounds: pages per byte of records, and what a batch takes in addition to its records. */
enum { PAGES_PER_BYTES = 3, COPIES_PART = 8, ASIDE_BYTES = 256 << 10 };

/* Commands of a batch that are refused one by one when they exceed the room. The next one takes all
 * commands of its class in the batch along, so that the batch is not applied again for each of
 * them. */
enum { CROSSINGS_MAX = 4 };

static uint32_t percent(uint64_t part, uint64_t whole)
{
	return part >= whole ? 100 : (uint32_t)(part / (whole / 100 + 1));
}

static uint64_t share(uint64_t whole, uint32_t percents)
{
	return whole == UINT64_MAX ? UINT64_MAX : whole / 100 * percents;
}

/* ---- by fill ---- */

static uint32_t publish_fill(const struct headroom_gate *gate, uint64_t used)
{
	uint32_t map = percent(used, gate->map_bytes), disk = percent(used, gate->disk_bytes);

	return map > disk ? map : disk;
}

static bool near_stop(const struct headroom_gate *gate)
{
	return publish_fill(gate, gate->used_bytes) + 2 * HYSTERESIS_PERCENT >=
	       gate->publish_stop_percent;
}

/* For the refusal and the log: names the one of map and disk that has less left. */
static void why_set(struct headroom_gate *gate, const char *failure)
{
	uint64_t mib = 1 << 20, used = gate->used_bytes;
	uint64_t map_left = gate->map_bytes > used ? gate->map_bytes - used : 0;

	if (failure != NULL)
		(void)snprintf(gate->why, sizeof(gate->why),
			       "%.120s; free space, or delete, purge or shorten retention",
			       failure);
	/* A quota or a limit of file sizes: free bytes of the disk do not show it. */
	else if (map_left <= gate->disk_free_bytes && gate->room_failure[0] != 0 &&
		 !near_stop(gate))
		(void)snprintf(gate->why, sizeof(gate->why),
			       "the disk is full: %s; free space, or delete, purge or "
			       "shorten retention",
			       gate->room_failure);
	else if (map_left <= gate->disk_free_bytes)
		(void)snprintf(gate->why, sizeof(gate->why),
			       "the map is full: %" PRIu64 " of %" PRIu64
			       " MiB are used (publishes stop at %u %%, reports at %u %%); "
			       "delete, purge or shorten retention, or raise map_mib",
			       used / mib, gate->map_bytes / mib, gate->publish_stop_percent,
			       gate->report_stop_percent);
	else
		(void)snprintf(gate->why, sizeof(gate->why),
			       "the disk is full: it has %" PRIu64
			       " MiB free, the store uses %" PRIu64 " and holds %" PRIu64
			       " for acks and deletes; free space, or delete, purge or "
			       "shorten retention",
			       gate->disk_free_bytes / mib, used / mib, gate->room_bytes / mib);
}

static uint32_t report_fill(const struct headroom_gate *gate, uint64_t used)
{
	return percent(used, gate->map_bytes);
}

/* How much of the store one class may fill. */
static uint64_t fill_max(const struct headroom_gate *gate, enum headroom class)
{
	uint64_t map, disk;

	if (class == HEADROOM_REPORT)
		return share(gate->map_bytes, gate->report_stop_percent);
	map = share(gate->map_bytes, gate->publish_stop_percent);
	disk = share(gate->disk_bytes, gate->publish_stop_percent);
	return map < disk ? map : disk;
}

void headroom_fill(struct headroom_gate *gate, uint64_t used)
{
	enum headroom_state before = gate->state;
	uint32_t publish = publish_fill(gate, used), report = report_fill(gate, used);
	/* Once stopped, the class resumes at a somewhat lower fill. */
	uint32_t publish_slack = gate->state >= HEADROOM_PUBLISH_STOPPED ? HYSTERESIS_PERCENT : 0;
	uint32_t report_slack = gate->state == HEADROOM_REPORT_STOPPED ? HYSTERESIS_PERCENT : 0;

	gate->used_bytes = used;
	gate->forced = gate->forced && near_stop(gate);
	if (report + report_slack >= gate->report_stop_percent)
		gate->state = HEADROOM_REPORT_STOPPED;
	else if (publish + publish_slack >= gate->publish_stop_percent || gate->forced)
		gate->state = HEADROOM_PUBLISH_STOPPED;
	else
		gate->state = HEADROOM_OK;
	if (gate->state > before)
		why_set(gate, NULL);
}

void headroom_update(struct headroom_gate *gate, const struct store_facts *facts)
{
	uint64_t file =
		facts->file_bytes > facts->used_bytes ? facts->file_bytes : facts->used_bytes;
	uint64_t room = file + facts->ahead_bytes + facts->disk_free_bytes;

	gate->map_bytes = facts->map_bytes;
	gate->disk_free_bytes = facts->disk_free_bytes;
	/* For publishes the disk is full when only the reserve is left. */
	if (facts->disk_free_bytes == UINT64_MAX)
		gate->disk_bytes = UINT64_MAX;
	else
		gate->disk_bytes = room > gate->reserve_bytes ? room - gate->reserve_bytes : 0;
	headroom_fill(gate, facts->used_bytes);
}

/* ---- by room ---- */

static uint64_t room_total(const struct store_room *room)
{
	uint64_t total = room->ahead_bytes + room->inside_bytes;

	return total < room->ahead_bytes ? UINT64_MAX : total;
}

/* What one class must leave of the reserve. */
static uint64_t reserve_part(const struct headroom_gate *gate, enum headroom class)
{
	return class == HEADROOM_PUBLISH ? gate->reserve_bytes : gate->reserve_bytes / 2;
}

void headroom_room(struct headroom_gate *gate, const struct store_room *room)
{
	uint64_t reserve = gate->reserve_bytes, total = room_total(room);
	enum headroom_state before = gate->room_state;
	/* Once stopped, the class resumes with somewhat more room. */
	uint64_t wanted = gate->room_state == HEADROOM_OK ? reserve : reserve + reserve / 4;
	bool contiguous;

	gate->room_bytes = total;
	/* Lists of freed pages need contiguous pages: part of the reserve has to be contiguous,
	 * unless plenty of other room is left. */
	contiguous = room->ahead_bytes >= reserve / CONTIGUOUS_PART ||
		     room->inside_bytes >= PLENTY * reserve;
	if (total < reserve / 2)
		gate->room_state = HEADROOM_REPORT_STOPPED;
	else
		gate->room_state =
			total >= wanted && contiguous ? HEADROOM_OK : HEADROOM_PUBLISH_STOPPED;
	if (gate->room_state > before)
		why_set(gate, NULL);
}

/* ---- the gate ---- */

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

bool headroom_admits_command(const struct headroom_gate *gate, const struct command *command)
{
	if (command->type == COMMAND_SESSION_OPEN)
		return gate->room_bytes >= gate->reserve_bytes / 4;
	return headroom_admits(gate, command_headroom(command));
}

void headroom_init(struct headroom_gate *gate, const struct engine_config *config,
		   uint64_t map_bytes)
{
	gate->publish_stop_percent =
		config->publish_stop_percent != 0 ? config->publish_stop_percent : 80;
	gate->report_stop_percent =
		config->report_stop_percent != 0 ? config->report_stop_percent : 95;
	gate->reserve_bytes =
		config->reserve_bytes != 0 ? config->reserve_bytes : RESERVE_BYTES_DEFAULT;
	if (gate->reserve_bytes > map_bytes / RESERVE_PER_MAP)
		gate->reserve_bytes = map_bytes / RESERVE_PER_MAP;
	gate->map_bytes = map_bytes;
	gate->disk_bytes = gate->disk_free_bytes = UINT64_MAX;
}

/* ---- space for a batch ---- */

static void enough_set(struct headroom_gate *gate)
{
	for (int class = HEADROOM_PUBLISH; class < HEADROOM_GROWING; class ++) {
		uint64_t most = fill_max(gate, (enum headroom) class), part;
		uint64_t fill = most > gate->used_bytes ? most - gate->used_bytes : 0, room;

		part = reserve_part(gate, (enum headroom) class);
		room = gate->room_bytes > part ? gate->room_bytes - part : 0;
		fill = fill < room ? fill : room;
		gate->enough_bytes[class] =
			fill > ASIDE_BYTES ? (fill - ASIDE_BYTES) / PAGES_PER_BYTES : 0;
	}
}

int headroom_room_ensure(struct engine *engine, uint64_t more, struct store_room *ret)
{
	struct headroom_gate *gate = &engine->gate;
	/* Half of the reserve on top, for a batch: the reserve is whole after it as well. */
	int rc = store_reserve_disk(engine->store,
				    gate->reserve_bytes + gate->reserve_bytes / 2 + more, ret);

	if (rc == SLUICE_E_UNSUPPORTED && !gate->unsupported_logged) {
		gate->unsupported_logged = true;
		log_line(LOG_LEVEL_WARN,
			 log_id("engine.no_reserve",
				"the file system cannot allocate space in advance: another "
				"program that fills the disk can stop the broker"));
	}
	if (rc != 0 && rc != SLUICE_E_NO_SPACE && rc != SLUICE_E_UNSUPPORTED)
		return rc;
	(void)snprintf(gate->room_failure, sizeof(gate->room_failure), "%.120s",
		       rc == SLUICE_E_NO_SPACE ? store_last_error() : "");
	headroom_room(gate, ret);
	headroom_fill(gate, ret->used_bytes);
	if (more == 0) {
		gate->crossings = 0;
		enough_set(gate);
	}
	return 0;
}

static int crossed(struct headroom_gate *gate)
{
	why_set(gate, NULL);
	return SLUICE_E_NO_SPACE;
}

int headroom_batch_check(struct engine *engine, struct store_txn *txn,
			 const struct command *command)
{
	struct headroom_gate *gate = &engine->gate;
	uint64_t put = store_txn_bytes(txn), grown, part, need;
	enum headroom class;
	struct store_room room;
	int64_t growth;
	int rc;

	/* Nearly all commands end here, before their class is read. */
	if (put <= gate->enough_bytes[HEADROOM_PUBLISH] &&
	    put <= gate->enough_bytes[HEADROOM_REPORT])
		return 0;
	class = command_headroom(command);
	if (class == HEADROOM_ALWAYS || put <= gate->enough_bytes[class])
		return 0;
	growth = store_txn_growth(txn);
	grown = growth > 0 ? (uint64_t)growth : 0;
	if (gate->used_bytes + grown > fill_max(gate, class))
		return crossed(gate);
	/* Also copies of pages that change. */
	need = grown + put / COPIES_PART + ASIDE_BYTES;
	part = reserve_part(gate, class);
	if (gate->room_bytes < part || gate->room_bytes - part < need) {
		rc = headroom_room_ensure(engine, need, &room);
		if (rc != 0)
			return rc;
		if (gate->room_bytes < part || gate->room_bytes - part < need)
			return crossed(gate);
	}
	return 0;
}

/* Refuses commands of the class, and of classes that stop before it, from index `from` on. */
static bool refuse_class(struct batch *batch, size_t from, enum headroom class)
{
	bool marked = false;

	for (size_t i = from; i < batch->end; i++) {
		struct submission *submission = batch->submissions[i];

		if (submission->forced_code != 0 || command_headroom(&submission->command) > class)
			continue;
		submission->forced_code = SLUICE_E_NO_SPACE;
		marked = true;
	}
	return marked;
}

bool headroom_refuse(struct engine *engine, struct submission *at)
{
	struct headroom_gate *gate = &engine->gate;
	struct batch *batch = &engine->batch;
	size_t from = batch->first;

	if (at == NULL || command_headroom(&at->command) == HEADROOM_ALWAYS) {
		/* The store had less room than expected. */
		gate->forced = true;
		headroom_fill(gate, gate->used_bytes);
		if (gate->state == HEADROOM_OK)
			gate->state = HEADROOM_PUBLISH_STOPPED;
		why_set(gate, store_last_error());
		return refuse_class(batch, from, HEADROOM_PUBLISH) ||
		       refuse_class(batch, from, HEADROOM_REPORT);
	}
	why_set(gate, NULL);
	at->forced_code = SLUICE_E_NO_SPACE;
	if (near_stop(gate))
		gate->forced = true;
	if (!near_stop(gate) && ++gate->crossings <= CROSSINGS_MAX)
		return true; /* a single command was too large */
	while (from < batch->end && batch->submissions[from] != at)
		from++;
	(void)refuse_class(batch, from, command_headroom(&at->command));
	return true;
}
