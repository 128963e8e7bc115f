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

static unsigned unseen; /* consumers that the engine never saw */

static void rig_open_bytes(struct rig *rig, uint64_t bytes_max)
{
	memset(rig, 0, sizeof(*rig));
	unseen = 0;
	cr_assert_eq(inbox_init(&rig->inbox, bytes_max), 0);
	taken_init(&rig->taken);
}

static void rig_open(struct rig *rig)
{
	rig_open_bytes(rig, LIMIT_INBOX_BYTES_MAX);
}

static void give(struct rig *rig, struct note note)
{
	bool gone = false;

	note.spec.sink = &rig->sink;
	if (note.close)
		cr_assert_eq(inbox_consumer_close(&rig->inbox, &note, &gone), 0);
	else
		cr_assert_eq(inbox_note(&rig->inbox, &note), 0);
	unseen += gone;
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

static void detach(struct rig *rig, uint64_t session, uint64_t tag)
{
	give(rig, (struct note){.kind = NOTE_SESSION,
				.spec = {.gateway = 1, .session = session, .tag = tag},
				.detach = true});
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
	cr_expect_eq(unseen, 100000u, "%u", unseen);
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

/* limit: INBOX_BYTES_MAX: of notes. What was opened can always be closed. */
Test(notes, what_waits_counts_in_the_inbox)
{
	const uint64_t most = 2 * (1 << 20) / NOTE_BYTES;
	struct note note = {.kind = NOTE_CONSUMER, .open = true};
	struct submission submission = {.bytes = 100};
	struct rig rig;

	rig_open_bytes(&rig, 1 << 20);
	for (uint64_t tag = 1; tag <= most; tag++)
		opened(&rig, tag, 1);
	cr_expect_eq(atomic_load(&rig.inbox.bytes), 2 * (1 << 20));
	note.spec = (struct consumer_spec){.sink = &rig.sink, .tag = most + 1};
	cr_expect_eq(inbox_note(&rig.inbox, &note), SLUICE_E_BUSY, "one more than the bound");
	cr_expect_eq(inbox_put(&rig.inbox, &submission), SLUICE_E_BUSY, "and there is no room");
	credit(&rig, 1, 1);
	pause_set(&rig, 1, true);
	closed(&rig, 2);
	cr_expect_eq(inbox_note(&rig.inbox, &note), 0, "one was taken back");
	cr_assert_eq(take(&rig), most);
	cr_expect_eq(atomic_load(&rig.inbox.bytes), 0);
	/* An inbox that others fill. */
	submission.bytes = 2 * (1 << 20) - SUBMISSION_BYTES;
	submission.control = true;
	cr_assert_eq(inbox_put(&rig.inbox, &submission), 0);
	note = (struct note){.kind = NOTE_CONSUMER,
			     .spec = {.sink = &rig.sink, .tag = 1, .credit = 1}};
	cr_expect_eq(inbox_note(&rig.inbox, &note), SLUICE_E_BUSY, "credit waits");
	note = (struct note){.kind = NOTE_SESSION,
			     .spec = {.sink = &rig.sink, .session = 1},
			     .attach = true};
	cr_expect_eq(inbox_note(&rig.inbox, &note), SLUICE_E_BUSY, "and so does an attach");
	cr_expect_eq(rig.inbox.reserved, most, "and it leaves nothing");
	pause_set(&rig, 1, false);
	detach(&rig, 1, 1);
	closed(&rig, 3);
	inbox_take(&rig.inbox, &rig.taken);
	inbox_answered(&rig.inbox, submission.bytes);
	cr_expect_eq(atomic_load(&rig.inbox.bytes), 3 * NOTE_BYTES);
	inbox_notes_done(&rig.inbox, rig.taken.notes, 2);
	inbox_fini(&rig.inbox);
}

/* ---- sessions: merged notes have the outcome of the separate calls ---- */

static void attach(struct rig *rig, uint64_t session, uint64_t tag)
{
	give(rig, (struct note){.kind = NOTE_SESSION,
				.spec = {.gateway = 1, .session = session, .tag = tag},
				.attach = true});
}

Test(notes, a_session_that_connections_take_from_each_other_is_a_note_of_each_connection)
{
	struct rig rig;

	rig_open(&rig);
	for (uint64_t tag = 1; tag <= 1000; tag++)
		attach(&rig, 5, tag);
	cr_expect_eq(inbox_notes_waiting(&rig.inbox), 1000);
	cr_expect_eq(rig.inbox.reserved, 1000);
	for (uint64_t tag = 1; tag <= 1000; tag++)
		detach(&rig, 5, tag);
	cr_expect_eq(inbox_notes_waiting(&rig.inbox), 1000, "each but the last lost it");
	cr_assert_eq(take(&rig), 1000);
	cr_expect_eq(rig.inbox.reserved, 0);
	cr_expect_eq(rig.inbox.spare_count, 0);
	/* One after the other: no connection loses the session. */
	for (uint64_t tag = 1; tag <= 10000; tag++) {
		attach(&rig, 5, tag);
		detach(&rig, 5, tag);
	}
	cr_expect(only(&rig)->attach && only(&rig)->detach && !only(&rig)->moved);
	cr_expect_eq(only(&rig)->spec.tag, 10000);
	cr_assert_eq(take(&rig), 1);
	cr_expect_eq(rig.inbox.reserved, 0);
	inbox_fini(&rig.inbox);
}

/* limit: SESSION_MOVES_MAX: during one commit each connection takes the session from the one
 * before, which closes. */
Test(notes, closed_connections_that_lost_a_session_are_bounded)
{
	struct note note = {.kind = NOTE_SESSION,
			    .spec = {.gateway = 1, .session = 5},
			    .attach = true};
	struct rig rig;
	uint64_t tag = 1;
	int rc = 0;

	rig_open(&rig);
	note.spec.sink = &rig.sink;
	attach(&rig, 5, tag);
	while (rc == 0 && tag < 2 * LIMIT_SESSION_MOVES_MAX) {
		note.spec.tag = tag + 1;
		rc = inbox_note(&rig.inbox, &note);
		if (rc == 0)
			detach(&rig, 5, tag++);
	}
	cr_expect_eq(rc, SLUICE_E_BUSY);
	cr_expect_eq(inbox_notes_waiting(&rig.inbox), LIMIT_SESSION_MOVES_MAX + 1);
	detach(&rig, 5, tag);
	cr_assert_eq(take(&rig), LIMIT_SESSION_MOVES_MAX + 1);
	cr_expect_eq(rig.inbox.reserved, 0);
	cr_expect_eq(rig.inbox.spare_count, 0);
	attach(&rig, 5, tag + 1);
	cr_assert_eq(take(&rig), 1);
	inbox_fini(&rig.inbox);
}

/* What the engine keeps: the connection that has the session, and those that lost it. */
struct holder {
	uint64_t tag;
	bool lost[64];
};

static void holder_handle(struct holder *holder, const struct note *note)
{
	if (note->attach) {
		if (holder->tag != 0 && holder->tag != note->spec.tag)
			holder->lost[holder->tag] = true;
		holder->tag = note->spec.tag;
	}
	if (note->moved)
		holder->lost[note->spec.tag] = true;
	if (note->detach && holder->tag == note->spec.tag)
		holder->tag = 0;
}

Test(notes, merged_sessions_end_with_the_holder_and_the_losers_that_they_would_have_had)
{
	enum { ROUNDS = 20000, TAGS = 40 };
	uint64_t seed = 3;

	for (int round = 0; round < ROUNDS; round++) {
		struct holder holder = {0}, expected = {0};
		bool is_attached[TAGS] = {false};
		struct note *taken;
		uint64_t next = 1;
		struct rig rig;

		rig_open(&rig);
		for (int n = 0; n <= 12; n++) {
			struct note note = {.kind = NOTE_SESSION,
					    .spec = {.gateway = 1,
						     .session = 9,
						     .sink = &rig.sink}};

			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			if (seed >> 62 == 0 || n == 12) { /* the engine handles the notes */
				size_t closed = 0;

				inbox_take(&rig.inbox, &rig.taken);
				DL_FOREACH(rig.taken.notes, taken) {
					holder_handle(&holder, taken);
					closed += taken->detach;
				}
				inbox_notes_done(&rig.inbox, rig.taken.notes, closed);
				rig.taken.notes = NULL;
				continue;
			}
			note.spec.tag = (seed >> 40) % next;
			note.attach = note.spec.tag == 0 || !is_attached[note.spec.tag];
			note.detach = !note.attach;
			if (note.attach)
				note.spec.tag = next++;
			is_attached[note.spec.tag] = note.attach;
			holder_handle(&expected, &note);
			cr_assert_eq(inbox_note(&rig.inbox, &note), 0);
		}
		cr_assert_eq(holder.tag, expected.tag, "round %d", round);
		for (int tag = 1; tag < TAGS; tag++)
			cr_assert_eq(holder.lost[tag], expected.lost[tag], "round %d: %d", round,
				     tag);
		next = 0;
		for (int tag = 1; tag < TAGS; tag++)
			next += is_attached[tag];
		cr_assert_eq(rig.inbox.reserved, next);
		inbox_fini(&rig.inbox);
	}
}

/* ---- signs of life ---- */

/* limit: SESSION_TOUCHES_MAX */
Test(notes, signs_of_life_are_bounded_and_a_call_beyond_adds_none)
{
	enum { AT_ONCE = 1000 };
	struct session_number sessions[AT_ONCE];
	struct rig rig;
	size_t count = 0;
	int rc;

	rig_open(&rig);
	for (uint64_t i = 0; i < AT_ONCE; i++)
		sessions[i] = (struct session_number){1, i + 1};
	while ((rc = inbox_touch(&rig.inbox, sessions, AT_ONCE, 7)) == 0)
		count += AT_ONCE;
	cr_expect_eq(rc, SLUICE_E_BUSY);
	cr_expect_eq(count, LIMIT_SESSION_TOUCHES_MAX / AT_ONCE * AT_ONCE);
	inbox_take(&rig.inbox, &rig.taken);
	cr_assert_eq(rig.taken.touches.count, count);
	cr_expect_eq(rig.taken.touches.list[count - 1].session, AT_ONCE);
	cr_expect_eq(rig.taken.touches.list[count - 1].at_ms, 7);
	cr_expect_eq(inbox_touch(&rig.inbox, sessions, 1, 8), 0, "again");
	inbox_take(&rig.inbox, &rig.taken);
	cr_expect_eq(rig.taken.touches.count, 1);
	inbox_take(&rig.inbox, &rig.taken);
	cr_expect_eq(rig.taken.touches.count, 0, "the earlier ones were handled");
	taken_fini(&rig.taken);
	inbox_fini(&rig.inbox);
}
