/* SPDX-License-Identifier: Apache-2.0
 * Admission by class. For headroom.c, engine.c, batch.c and struct engine. */
#ifndef SLUICE_ENGINE_HEADROOM_H
#define SLUICE_ENGINE_HEADROOM_H

#include "broker/engine/engine.h"

enum { HEADROOM_GROWING = 2 }; /* classes that may be refused: publishes, reports */
struct headroom_gate {
	uint32_t publish_stop_percent, report_stop_percent;
	uint64_t reserve_bytes;	   /* what publishes leave to what must always go; reports leave half of it */
	enum headroom_state state; /* by how full map and disk are */
	enum headroom_state room_state; /* by the room that is the store's own */
	uint64_t checked_mono_ms;
	uint64_t map_bytes,
		disk_bytes; /* what the store may fill of each, as of the last facts; UINT64_MAX: not known */
	uint64_t disk_free_bytes; /* for the words */
	uint64_t used_bytes,
		room_bytes; /* of the last look at the room, at least before each batch that may grow the store */
	uint64_t enough_bytes
		[HEADROOM_GROWING]; /* a batch that has put no more needs no closer look for the class */
	bool forced;		    /* publishes stay stopped until there is well room for them */
	uint32_t crossings;	    /* of the batch at hand */
	bool unsupported_logged;
	char why[HEADROOM_WHY_BYTES]; /* what is full, and what to do */
	char room_failure[128];	      /* why the last look found no room to allocate; "": it did */
};
enum { RESERVE_BYTES_DEFAULT = 32 << 20 };
/* A reserve is at most a twentieth of the map. */
void headroom_init(struct headroom_gate *gate, const struct engine_config *config, uint64_t map_bytes);
enum headroom_state headroom_state(const struct headroom_gate *gate);
void headroom_update(struct headroom_gate *gate, const struct store_facts *facts);
void headroom_fill(struct headroom_gate *gate, uint64_t used_bytes); /* facts are those of the last update */
void headroom_room(struct headroom_gate *gate, const struct store_room *room);
bool headroom_admits(const struct headroom_gate *gate, enum headroom class);
/* The same for a command; a session, which itself grows the store, is let in while a quarter of the
 * reserve is there. */
bool headroom_admits_command(const struct headroom_gate *gate, const struct command *command);
/* Looks at the room that is the store's own, has it made where it is short, and sets the gate by
 * it; `more` bytes are to come on top, 0 at a batch's beginning. IO. */
int headroom_room_ensure(struct engine *engine, uint64_t more, struct store_room *ret) SLUICE_MUST_USE;
/* After each command, and before the commit: NO_SPACE when what the batch has put so far takes more
 * than the command's class may, so that the batch must be aborted. IO. */
int headroom_batch_check(struct engine *engine, struct store_txn *txn,
			 const struct command *command) SLUICE_MUST_USE;
/* A batch was aborted with NO_SPACE: marks what is refused. At: the command that was one too many;
 * NULL: the commit failed, or what is not a submission. False: nothing is left to refuse. */
bool headroom_refuse(struct engine *engine, struct submission *at);

#endif
