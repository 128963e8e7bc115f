/* SPDX-License-Identifier: Apache-2.0
 * Admission by class. For headroom.c, engine.c, batch.c and struct engine. */
#ifndef SLUICE_ENGINE_HEADROOM_H
#define SLUICE_ENGINE_HEADROOM_H

#include "broker/engine/engine.h"

enum { HEADROOM_GROWING = 2 }; /* classes that may be refused: publishes, reports */
struct headroom_gate {
	uint32_t publish_stop_percent, report_stop_percent;
	/* for what frees room; publishes leave it whole, reports leave half of it */
	uint64_t reserve_bytes;
	enum headroom_state state;	/* by fill of map and disk */
	enum headroom_state room_state; /* by the disk that the store has allocated ahead */
	uint64_t checked_mono_ms;
	/* upper bounds for the store, as of the last facts; UINT64_MAX: not known */
	uint64_t map_bytes, disk_bytes;
	uint64_t disk_free_bytes; /* for the text in why */
	/* measured by the last headroom_room_ensure(), at least before each batch that may grow the
	 * store */
	uint64_t used_bytes, room_bytes;
	/* a batch that has put no more needs no closer check for the class */
	uint64_t enough_bytes[HEADROOM_GROWING];
	bool forced;	    /* publishes stay stopped until there is ample room for them */
	uint32_t crossings; /* commands of the current batch that exceeded the room */
	bool unsupported_logged;
	char why[HEADROOM_WHY_BYTES]; /* what is full, and how to make room */
	/* why headroom_room_ensure() could not allocate; "": it could */
	char room_failure[128];
};
enum { RESERVE_BYTES_DEFAULT = 32 << 20 };
/* The reserve is limited to 1/20 of the map. */
void headroom_init(struct headroom_gate *gate, const struct engine_config *config,
		   uint64_t map_bytes);
enum headroom_state headroom_state(const struct headroom_gate *gate);
void headroom_update(struct headroom_gate *gate, const struct store_facts *facts);
/* The other facts stay those of the last update */
void headroom_fill(struct headroom_gate *gate, uint64_t used_bytes);
void headroom_room(struct headroom_gate *gate, const struct store_room *room);
bool headroom_admits(const struct headroom_gate *gate, enum headroom class);
/* The same for a command. Opening a session grows the store; it is admitted while a quarter of the
 * reserve is left. */
bool headroom_admits_command(const struct headroom_gate *gate, const struct command *command);
/* Measures the disk that the store has allocated, allocates more where it is short, and sets the
 * gate. more: bytes to come on top, 0 at the beginning of a batch. IO. */
int headroom_room_ensure(struct engine *engine, uint64_t more,
			 struct store_room *ret) SLUICE_MUST_USE;
/* After each command and before the commit. NO_SPACE: what the batch has put so far exceeds the
 * room of the command's class, and the batch must be aborted. IO. */
int headroom_batch_check(struct engine *engine, struct store_txn *txn,
			 const struct command *command) SLUICE_MUST_USE;
/* A batch was aborted with NO_SPACE: marks the commands to refuse. at: the command that exceeded
 * the room; NULL: the commit failed, or it was not a submission. False: no command is left to
 * refuse. */
bool headroom_refuse(struct engine *engine, struct submission *at);

#endif
