/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of answers. The commands of one session in one lane are answered in the order in which
 * they were sent, also those that were refused before core saw them: for lack of room, or because
 * of a damaged record.
 */
#include "tests/sim/oracle_internal.h"

static struct lane *lane_of(struct oracle *o, uint64_t session, bool control)
{
	uint32_t at = (uint32_t)((session * 2 + control) * 0x9e3779b97f4a7c15u >> 40);

	for (;; at++) {
		struct lane *lane = &o->lanes[at % ORACLE_LANES_MAX];

		if (lane->used && (lane->session != session || lane->control != control))
			continue;
		o->lane_count += !lane->used;
		*lane = (struct lane){true, control, session, lane->used ? lane->answered : 0};
		return lane;
	}
}

void oracle_lane_answered(struct oracle *o, uint64_t session, bool control, uint64_t id)
{
	struct lane *lane;

	note(o, 70 + control, session, id);
	if (o->lane_count == ORACLE_LANES_MAX / 2) {
		broken(o, "more lanes than the oracle has room for");
		return;
	}
	lane = lane_of(o, session, control);
	if (id <= lane->answered)
		broken(o, "%s command %llu of session %llu is answered behind %llu",
		       control ? "control" : "data", U(id), U(session), U(lane->answered));
	lane->answered = id;
}
