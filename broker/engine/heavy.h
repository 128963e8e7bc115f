/* SPDX-License-Identifier: Apache-2.0
 * Sessions whose commands are large pieces of work take turns with all others.
 * For heavy.c, engine.c, batch.c and struct engine. */
#ifndef SLUICE_ENGINE_HEAVY_H
#define SLUICE_ENGINE_HEAVY_H

#include "broker/engine/engine.h"

enum { HEAVY_SESSIONS_MAX = 16 };
struct heavy {
	struct heavy_session {
		uint32_t gateway;
		uint64_t session;
		uint32_t light; /* commands in succession that were */
	} sessions[HEAVY_SESSIONS_MAX];
	size_t count;
	struct heavy_sum {
		uint32_t gateway;
		uint64_t session, work;
	} sums[HEAVY_SESSIONS_MAX]; /* of the commit at hand */
	size_t sum_count;
	bool turn;     /* the batch at hand is for heavy sessions only; otherwise for all others */
	bool was_turn; /* a heavy session did something in it */
	uint32_t last_gateway;
	uint64_t last_session; /* the heavy session that did something last */
};
void heavy_begin(struct heavy *heavy); /* a commit */
/* Work of the open batch so far, in records; about a microsecond each. */
uint64_t heavy_work(const struct engine *engine);
/* After a command that did so much work. True: the commit has enough, the rest is for the next. */
bool heavy_command(struct engine *engine, const struct submission *submission, uint64_t work);
bool heavy_is(const struct heavy *heavy, const struct submission *submission);
/* Before a batch is taken, with all that has arrived in the lanes: whose turn it is. */
void heavy_turn(struct engine *engine);
/* What the batch has not applied goes back to where it was taken from. */
void heavy_return(struct engine *engine);

#endif
