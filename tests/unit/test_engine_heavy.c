/* SPDX-License-Identifier: Apache-2.0
 * Commands that are large pieces of work: a commit ends after one, and other sessions have their
 * turn. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/engine_rig.h"

enum { QUEUES = 4, EVENTS = 10000, HEAVY = 6 };

static void queues_make(struct rig *rig)
{
	char *patterns[] = {(char *)"f"};
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	char name[4] = "q0";

	config.name = name;
	config.subjects = patterns;
	config.n_subjects = 1;
	create.config = &config;
	for (; name[1] < '0' + QUEUES; name[1]++)
		rig_send(rig, COMMAND_QUEUE_CREATE, 0, &create);
	rig_step(rig);
}

static void submit(struct rig *rig, uint64_t session, uint32_t events)
{
	struct own *own = rig_own(rig, COMMAND_PUBLISH, session, (size_t)events * 4);

	for (uint32_t i = 0; i < events; i++)
		memcpy(own->bytes + (size_t)i * 4, "\x92\x00\xc4\x00", 4);
	own->publish.count = events;
	own->publish.subject = (struct sluice_slice){"f", 1};
	own->publish.payload = (struct sluice_slice){own->bytes, (size_t)events * 4};
	own->publish.raw_bytes = events * 4;
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
}

Test(engine_heavy, others_wait_for_one_of_many_large_publishes)
{
	for (int aborts = 0; aborts < 2; aborts++) {
		struct rig rig;
		uint64_t wait = 0, offset = 1;
		unsigned replies;

		rig_open(&rig, aborts != 0);
		queues_make(&rig);
		for (int i = 0; i < HEAVY; i++)
			submit(&rig, 11, EVENTS);
		rig.replies = rig.releases = 0;
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
		cr_expect_eq(wait, 0, "more waits");
		cr_expect_eq(rig.releases, 1);
		cr_expect_eq(rig.replies, 1, "a commit ends after a bounded amount of work");
		submit(&rig, 12, 1);
		replies = rig.replies;
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
		cr_expect_eq(rig.replies - replies, 1, "the other's, alone, in the next commit");
		cr_expect_eq(rig.last.count, 1);
		rig_step(&rig);
		cr_expect_eq(rig.replies, HEAVY + 1, "all are done");
		cr_expect_eq(rig.last.count, EVENTS);
		offset = rig.last.offset;
		cr_expect_eq(offset, (uint64_t)(HEAVY - 1) * EVENTS + 2,
			     "in order, none twice: %llu", (unsigned long long)offset);
		rig_close(&rig);
	}
}

Test(engine_heavy, others_wait_for_one_commit_of_many_sessions_with_large_publishes)
{
	enum { SESSIONS = 24, EACH = 4500 };
	struct rig rig;
	unsigned rounds = 0, large = 0;
	uint64_t wait = 0;

	rig_open(&rig, false);
	queues_make(&rig);
	for (uint64_t i = 0; i < 3 * SESSIONS; i++)
		submit(&rig, 100 + i % SESSIONS, EACH);
	/* Each session was heavy once, and more commands of each wait. */
	rig.replies = 0;
	while (rig.replies < SESSIONS + 1)
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	cr_assert_lt(rig.replies, 2 * SESSIONS);
	submit(&rig, 12, 1);
	for (; rig.singles == 0 && rounds < 3 * SESSIONS; rounds++)
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	cr_expect_eq(rounds, 1, "it is in the commit after the current one: %u", rounds);
	/* And they wait for one of its commits: with a new command before each step they have every
	 * other commit. */
	for (rounds = 0; rounds < SESSIONS; rounds++) {
		submit(&rig, 12, 1);
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
		large += rig.last.count == EACH;
	}
	cr_expect_geq(large, SESSIONS / 2 - 1, "large ones: %u", large);
	rig_step(&rig);
	cr_expect_eq(rig.replies, 3 * SESSIONS + 1 + rounds, "all are done");
	rig_close(&rig);
}

Test(engine_heavy, a_small_command_makes_no_room_for_the_next_large_one)
{
	enum { SESSIONS = 8 };
	struct rig rig;
	unsigned rounds = 0;
	uint64_t wait = 0;

	rig_open(&rig, false);
	queues_make(&rig);
	for (uint64_t session = 100; session < 100 + SESSIONS; session++) {
		submit(&rig, session, EVENTS);
		submit(&rig, session, 2);
	}
	rig_step(&rig);
	for (uint64_t session = 100; session < 100 + SESSIONS; session++)
		submit(&rig, session, EVENTS);
	submit(&rig, 12, 1);
	for (; rig.last.count != 1 && rounds < 3 * SESSIONS; rounds++)
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	cr_expect_leq(rounds, 2, "%u commits", rounds);
	rig_step(&rig);
	rig_close(&rig);
}

/* Each is less than half a commit, and many more fit into the inbox. */
Test(engine_heavy, others_wait_for_one_commit_of_many_publishes_that_fan_out)
{
	enum { PUBLISHES = 240, EACH = 500 };
	struct rig rig;
	unsigned rounds = 0;
	uint64_t wait = 0;

	rig_open(&rig, false);
	queues_make(&rig);
	for (int i = 0; i < PUBLISHES; i++)
		submit(&rig, 11, EACH);
	rig.replies = 0;
	cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	cr_expect_lt(rig.replies, 24, "a commit ends after a bounded amount of work");
	submit(&rig, 12, 1);
	for (; rig.last.count != 1 && rounds < PUBLISHES; rounds++)
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	cr_expect_eq(rounds, 1, "%u", rounds);
	rig_step(&rig);
	cr_expect_eq(rig.replies, PUBLISHES + 1);
	rig_close(&rig);
}

Test(engine_heavy, sessions_with_large_publishes_take_turns)
{
	uint64_t wait = 0, latest = 0;
	unsigned rounds = 0;
	struct rig rig;

	rig_open(&rig, false);
	queues_make(&rig);
	submit(&rig, 11, EVENTS);
	submit(&rig, 12, EVENTS);
	rig_step(&rig);
	for (int i = 0; i < 4 * HEAVY; i++)
		submit(&rig, 11, EVENTS);
	submit(&rig, 12, EVENTS - 1);
	for (; latest != EVENTS - 1 && rounds < 4 * HEAVY; rounds++) {
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
		latest = rig.last.count;
	}
	cr_expect_leq(rounds, 2,
		      "a session's only command waits for one commit of the other: %u commits",
		      rounds);
	rig_step(&rig);
	cr_expect_eq(rig.replies, QUEUES + 4 * HEAVY + 3);
	rig_close(&rig);
}

/* In each commit more sessions than the engine counts do little work before one does most of it. */
Test(engine_heavy, one_of_many_sessions_that_did_much_of_a_commit_is_found)
{
	enum { OTHERS = 17, LARGE = 3, PUBLISHES = 120, EACH = 800, LITTLE = 65, COMMIT = 32768 };
	const unsigned others_commits = PUBLISHES * OTHERS * LITTLE * QUEUES / COMMIT + 1;
	uint64_t wait = 0, session = 100;
	unsigned rounds = 0;
	struct rig rig;

	rig_open(&rig, false);
	queues_make(&rig);
	for (int i = 0; i < PUBLISHES; i++) {
		for (int other = 0; other < OTHERS; other++)
			submit(&rig, session++, LITTLE);
		for (int large = 0; large < LARGE; large++)
			submit(&rig, 11, EACH);
	}
	rig.replies = 0;
	cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	cr_expect_lt(rig.replies, 3 * (OTHERS + 1u * LARGE),
		     "a commit ends after a bounded amount of work");
	submit(&rig, 12, 1);
	for (; rig.singles == 0 && rounds < PUBLISHES; rounds++)
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	cr_expect_leq(rounds, 2 * others_commits + 2,
		      "it waits for the others, and for one commit of that "
		      "session between two of theirs: %u, not %u",
		      rounds, 2 * others_commits + 2);
	rig_step(&rig);
	cr_expect_eq(rig.replies, PUBLISHES * (OTHERS + 1u * LARGE) + 1);
	rig_close(&rig);
}

/* Many small ones of one session are a batch as before. */
Test(engine_heavy, light_commands_share_a_commit)
{
	struct rig rig;

	rig_open(&rig, false);
	queues_make(&rig);
	rig.replies = rig.releases = 0;
	for (int i = 0; i < 100; i++)
		submit(&rig, 11 + (uint64_t)(i % 3), 10);
	rig_step(&rig);
	cr_expect_eq(rig.releases, 1);
	cr_expect_eq(rig.replies, 100);
	rig_close(&rig);
}
