/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of answers. The commands of one session in one lane are answered in the order in which
 * they were sent, also those that were refused before core saw them: for lack of room, or because
 * of a damaged record.
 *
 * A thread gives the effects of one commit after the other. The answer of a read that shows a
 * commit is given after the last effect of that commit, and before any effect of the next one.
 * Answers of reads of one connection come in the order of the reads.
 */
#include <string.h>

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

/* ---- a thread ---- */

static uint64_t index_after(const struct thread *t, uint64_t release)
{
	return t->index[release % ORACLE_RELEASES_MAX];
}

void oracle_thread_began(struct oracle *o, uint64_t index)
{
	note(o, 72, index, 0);
	memset(&o->thread, 0, sizeof(o->thread));
	o->thread.index[0] = index;
}

void oracle_thread_posted(struct oracle *o, uint64_t index)
{
	struct thread *t = &o->thread;

	note(o, 73, index, 0);
	if (t->posted + 1 - t->handled == ORACLE_RELEASES_MAX)
		broken(o, "more releases than the oracle has room for");
	else
		t->index[++t->posted % ORACLE_RELEASES_MAX] = index;
}

void oracle_thread_due(struct oracle *o, uint64_t key)
{
	struct thread *t = &o->thread;

	note(o, 74, key, 0);
	if (t->due_count == ORACLE_DUE_MAX)
		broken(o, "more effects are due than the oracle has room for");
	else
		t->due[t->due_count++] = (struct due){key, t->posted};
}

/* The effects of the release before are all given. */
void oracle_thread_handles(struct oracle *o)
{
	struct thread *t = &o->thread;

	note(o, 75, 0, 0);
	for (uint32_t i = 0; i < t->due_count; i++) {
		if (t->due[i].release <= t->handled)
			broken(o, "effect %llu of release %llu is missing", U(t->due[i].key),
			       U(t->due[i].release));
	}
	t->handled++;
}

void oracle_thread_given(struct oracle *o, uint64_t key)
{
	struct thread *t = &o->thread;

	note(o, 76, key, 0);
	for (uint32_t i = 0; i < t->due_count; i++) {
		if (t->due[i].key != key)
			continue;
		if (t->due[i].release != t->handled)
			broken(o, "effect %llu of release %llu comes with release %llu", U(key),
			       U(t->due[i].release), U(t->handled));
		t->due[i] = t->due[--t->due_count];
		return;
	}
	broken(o, "effect %llu is given and was not due", U(key));
}

void oracle_thread_shown(struct oracle *o, int conn, uint64_t id, uint64_t index)
{
	struct thread *t = &o->thread;

	note(o, 77, (uint64_t)conn, id);
	note(o, 77, (uint64_t)conn, index);
	if (id != 0 && id <= t->conns[conn].read)
		broken(o, "read %llu of connection %d is answered behind %llu", U(id), conn,
		       U(t->conns[conn].read));
	t->conns[conn].read = id != 0 ? id : t->conns[conn].read;
	if (index == 0)
		return;
	if (index < t->conns[conn].index)
		broken(o, "connection %d is shown index %llu after %llu", conn, U(index),
		       U(t->conns[conn].index));
	t->conns[conn].index = index;
	if (index != index_after(t, t->handled))
		broken(o, "a reply shows index %llu among the effects of index %llu", U(index),
		       U(index_after(t, t->handled)));
	for (uint32_t i = 0; i < t->due_count; i++) {
		if (t->due[i].release <= t->handled)
			broken(o,
			       "a reply shows index %llu, and effect %llu of it is still to come",
			       U(index), U(t->due[i].key));
	}
}

void oracle_thread_at_rest(struct oracle *o, uint64_t unanswered)
{
	const struct thread *t = &o->thread;

	if (t->handled != t->posted || t->due_count > 0)
		broken(o, "the thread has nothing to do, and %u effects of %llu releases are due",
		       t->due_count, U(t->posted - t->handled));
	if (unanswered > 0)
		broken(o, "the thread has nothing to do, and %llu requests wait", U(unanswered));
}
