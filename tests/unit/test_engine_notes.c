/* SPDX-License-Identifier: Apache-2.0
 * Changes of consumers and sessions on their way to the engine: their number is bounded however
 * often they are called, and merged notes have the outcome of the separate calls. */
#include <criterion/criterion.h>
#include <utlist.h>

#include "broker/engine/engine_internal.h"
#include "protocol/limits.h"

struct rig {
	struct inbox inbox;
	struct taken taken;
	struct engine_sink sink;
};

static unsigned kicked;
static uint64_t kicked_tag;

static void on_kick(struct engine_sink *sink, uint64_t tag)
{
	(void)sink;
	kicked++;
	kicked_tag = tag;
}

static void rig_open(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->sink.kick = on_kick;
	kicked = 0;
	cr_assert_eq(inbox_init(&rig->inbox, 1 << 20), 0);
	taken_init(&rig->taken);
}

static void give(struct rig *rig, struct note note)
{
	struct consumer_spec gone;

	note.spec.sink = &rig->sink;
	cr_assert_eq(inbox_note(&rig->inbox, &note, &gone), 0);
	if (gone.sink != NULL)
		gone.sink->kick(gone.sink, gone.tag);
}

static void opened(struct rig *rig, uint64_t tag, uint32_t credit)
{
	give(rig, (struct note){.kind = NOTE_CONSUMER,
				.spec = {.tag = tag, .credit = credit},
				.open = true});
}

static void credit(struct rig *rig, uint64_t tag, uint32_t more)
{
	give(rig, (struct note){.kind = NOTE_CONSUMER, .spec = {.tag = tag, .credit = more}});
}

static void pause_set(struct rig *rig, uint64_t tag, bool paused)
{
	give(rig, (struct note){.kind = NOTE_CONSUMER,
				.spec = {.tag = tag},
				.pause = true,
				.paused = paused});
}

static void closed(struct rig *rig, uint64_t tag)
{
	give(rig, (struct note){.kind = NOTE_CONSUMER, .spec = {.tag = tag}, .close = true});
}

/* Takes the waiting notes, and returns the memory as the engine does. */
static size_t take(struct rig *rig)
{
	struct note *note;
	size_t count = 0, ended = 0;

	inbox_take(&rig->inbox, &rig->taken);
	DL_FOREACH(rig->taken.notes, note) {
		count++;
		ended += note->close || note->detach;
	}
	inbox_notes_done(&rig->inbox, rig->taken.notes, ended);
	rig->taken.notes = NULL;
	return count;
}

static const struct note *only(struct rig *rig)
{
	cr_assert_eq(inbox_notes_waiting(&rig->inbox), 1, "%zu notes",
		     inbox_notes_waiting(&rig->inbox));
	return rig->inbox.notes;
}

Test(notes, a_million_credits_of_one_consumer_are_one_note)
{
	struct rig rig;

	rig_open(&rig);
	opened(&rig, 7, 1);
	cr_assert_eq(take(&rig), 1);
	for (int n = 0; n < 1000000; n++)
		credit(&rig, 7, 1);
	cr_expect_eq(only(&rig)->spec.credit, 1000000);
	credit(&rig, 7, UINT32_MAX);
	cr_expect_eq(only(&rig)->spec.credit, LIMIT_CREDIT_MAX,
		     "the sum is cut at the bound and does not wrap");
	for (int n = 0; n < 1000; n++)
		pause_set(&rig, 7, n % 2 == 0);
	cr_expect(only(&rig)->pause && !only(&rig)->paused, "the last one counts");
	closed(&rig, 7);
	credit(&rig, 7, 1);
	closed(&rig, 7);
	cr_expect(only(&rig)->close);
	cr_assert_eq(take(&rig), 1);
	cr_expect_eq(rig.inbox.spare_count, 0, "nothing is kept for a closed consumer");
	cr_expect_eq(rig.inbox.reserved, 0);
	inbox_fini(&rig.inbox);
}

Test(notes, a_consumer_that_the_engine_never_saw_leaves_nothing)
{
	struct rig rig;

	rig_open(&rig);
	for (uint64_t tag = 1; tag <= 100000; tag++) {
		opened(&rig, tag, 1);
		credit(&rig, tag, 5);
		closed(&rig, tag);
	}
	cr_expect_eq(inbox_notes_waiting(&rig.inbox), 0);
	cr_expect_eq(rig.inbox.spare_count, 0);
	/* Notes of other consumers stay, in order. */
	opened(&rig, 1, 1);
	opened(&rig, 2, 2);
	opened(&rig, 3, 3);
	closed(&rig, 2);
	cr_assert_eq(inbox_notes_waiting(&rig.inbox), 2);
	cr_expect_eq(rig.inbox.notes->spec.tag, 1);
	cr_expect_eq(rig.inbox.notes->next->spec.tag, 3);
	cr_expect_eq(take(&rig), 2);
	inbox_fini(&rig.inbox);
}

Test(notes, a_note_of_an_open_consumer_needs_no_memory)
{
	struct rig rig;

	rig_open(&rig);
	for (uint64_t tag = 1; tag <= 100; tag++)
		opened(&rig, tag, 1);
	cr_assert_eq(take(&rig), 100);
	cr_expect_eq(rig.inbox.spare_count, 100, "one for each is set aside: %zu",
		     rig.inbox.spare_count);
	for (uint64_t tag = 1; tag <= 100; tag++)
		credit(&rig, tag, 1);
	cr_expect_eq(rig.inbox.spare_count, 0);
	for (uint64_t tag = 1; tag <= 100; tag++)
		closed(&rig, tag);
	cr_expect_eq(inbox_notes_waiting(&rig.inbox), 100);
	cr_assert_eq(take(&rig), 100);
	cr_expect_eq(rig.inbox.spare_count, 0);
	inbox_fini(&rig.inbox);
}

/* ---- sessions: merged notes have the outcome of the separate calls ---- */

static void attach(struct rig *rig, uint64_t session, uint64_t tag)
{
	give(rig, (struct note){.kind = NOTE_SESSION,
				.spec = {.gateway = 1, .session = session, .tag = tag},
				.attach = true});
}

static void detach(struct rig *rig, uint64_t session, uint64_t tag)
{
	give(rig, (struct note){.kind = NOTE_SESSION,
				.spec = {.gateway = 1, .session = session, .tag = tag},
				.detach = true});
}

Test(notes, a_session_that_connections_take_from_each_other_is_one_note)
{
	struct rig rig;

	rig_open(&rig);
	for (uint64_t tag = 1; tag <= 10000; tag++)
		attach(&rig, 5, tag);
	cr_expect_eq(only(&rig)->spec.tag, 10000);
	cr_expect_eq(kicked, 9999, "each was notified: %u", kicked);
	cr_expect_eq(kicked_tag, 9999);
	for (uint64_t tag = 1; tag <= 10000; tag++)
		detach(&rig, 5, tag);
	cr_expect(only(&rig)->attach && only(&rig)->detach);
	cr_assert_eq(take(&rig), 1);
	cr_expect_eq(rig.inbox.reserved, 0);
	/* One after the other: no connection has to be notified. */
	kicked = 0;
	for (uint64_t tag = 1; tag <= 10000; tag++) {
		attach(&rig, 5, tag);
		detach(&rig, 5, tag);
	}
	cr_expect_eq(inbox_notes_waiting(&rig.inbox), 1);
	cr_expect_eq(kicked, 0);
	cr_assert_eq(take(&rig), 1);
	cr_expect_eq(rig.inbox.reserved, 0);
	inbox_fini(&rig.inbox);
}

/* What the engine keeps: the connection that has the session. */
static void holder_hear(uint64_t *holder, const struct note *note, bool kicks[])
{
	if (note->attach) {
		if (*holder != 0 && *holder != note->spec.tag)
			kicks[*holder] = true;
		*holder = note->spec.tag;
	}
	if (note->detach && *holder == note->spec.tag)
		*holder = 0;
}

Test(notes, merged_sessions_end_with_the_holder_that_they_would_have_had)
{
	enum { ROUNDS = 20000, TAGS = 40 };
	uint64_t seed = 3;

	for (int round = 0; round < ROUNDS; round++) {
		bool kicks[TAGS] = {false}, expected_kicks[TAGS] = {false},
		     is_attached[TAGS] = {false};
		uint64_t holder = 0, expected = 0, next = 1;
		struct rig rig;

		rig_open(&rig);
		for (int n = 0; n < 12; n++) {
			struct note note = {.kind = NOTE_SESSION,
					    .spec = {.gateway = 1,
						     .session = 9,
						     .sink = &rig.sink}};
			struct consumer_spec gone;

			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			if (seed >> 62 == 0) { /* the engine handles the notes */
				struct note *heard;

				inbox_take(&rig.inbox, &rig.taken);
				DL_FOREACH(rig.taken.notes, heard)
					holder_hear(&holder, heard, kicks);
				inbox_notes_done(&rig.inbox, rig.taken.notes, 0);
				rig.taken.notes = NULL;
				continue;
			}
			note.spec.tag = (seed >> 40) % next;
			note.attach = note.spec.tag == 0 || !is_attached[note.spec.tag];
			note.detach = !note.attach;
			if (note.attach)
				note.spec.tag = next++;
			is_attached[note.spec.tag] = note.attach;
			holder_hear(&expected, &note, expected_kicks);
			cr_assert_eq(inbox_note(&rig.inbox, &note, &gone), 0);
			if (gone.sink != NULL)
				kicks[gone.tag] = true;
		}
		inbox_take(&rig.inbox, &rig.taken);
		for (struct note *heard = rig.taken.notes; heard != NULL; heard = heard->next)
			holder_hear(&holder, heard, kicks);
		inbox_notes_done(&rig.inbox, rig.taken.notes, 0);
		cr_assert_eq(holder, expected, "round %d", round);
		/* A notification of a closed connection is harmless; an open one must be
		 * notified. */
		for (int tag = 1; tag < TAGS; tag++)
			cr_assert(kicks[tag] || !expected_kicks[tag] || !is_attached[tag],
				  "round %d: %d", round, tag);
		inbox_fini(&rig.inbox);
	}
}
