/* SPDX-License-Identifier: Apache-2.0
 * Events that affect sessions, items and jobs together: a session was redelivered its entries, a
 * connection broke, the broker died. A crash gives every session a whole timeout, and ends the
 * ephemeral ones. */
#include "tests/sim/oracle_internal.h"

void oracle_resumed(struct oracle *o, uint64_t session, bool jobs)
{
	note(o, 26, session, jobs);
	if (jobs)
		jobs_resumed(o, session);
	else
		items_resumed(o, session);
}

void oracle_crashed(struct oracle *o, uint64_t leases_by_session)
{
	note(o, 18, leases_by_session, 0);
	o->crash_ms = o->loss_ms = o->now_ms;
	o->breaks = false;
	for (int i = 0; i < ORACLE_CONSUMERS_MAX; i++)
		o->consumers[i].open = false;
	/* First, the holders at the time of the crash. */
	items_unreceived(o, 0, leases_by_session);
	jobs_unreceived(o, 0);
	for (uint32_t i = 0; i < o->session_count; i++) {
		struct session *s = &o->sessions[i];

		if (s->open && !s->attached && s->deadline_ms <= o->now_ms)
			s->maybe_ended = true;
		s->attached = false;
		if (s->kind == ORACLE_FREE)
			s->deadline_ms = o->now_ms + o->rules.session_ms;
		else if (s->kind == ORACLE_EPHEMERAL)
			s->open = false;
	}
}

void oracle_breaks(struct oracle *o)
{
	o->breaks = true;
}

void oracle_lost(struct oracle *o, uint64_t session, bool leases_by_session)
{
	note(o, 19, session, leases_by_session);
	o->breaks = false;
	o->loss_ms = o->now_ms;
	items_unreceived(o, session, leases_by_session ? session : 0);
	jobs_unreceived(o, session);
}
