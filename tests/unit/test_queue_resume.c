/* SPDX-License-Identifier: Apache-2.0
 * Redelivery to a session that resumes: what it holds, in bounded steps, and nothing else. */
#include "tests/unit/queue_rig.h"

TestSuite(queue_resume, .init = open_mem, .fini = close_world);

Test(queue_resume, resume_redelivers_held_items_and_grants_nothing)
{
	uint64_t session = world_session(&world, NULL);
	struct outcome out;

	put("work", 4);
	out = claim(session, "work", 3, 0, 0);
	ack(session, "work", out.index, ACK_DONE, 0, 2, 1);
	cr_expect_eq(claim(session, "work", 100, 0, CLAIM_RESUME).count, 2);
	cr_expect_eq(world_effect(&world, FX_GRANT)->token, out.index, "under the same token");
	cr_expect_eq(world_effect(&world, FX_GRANT)->run_count, 2);
	cr_expect_eq(cell("work").ready, 1);
}

/* Redelivers in steps until there is no more; returns the numbers of items and of steps. */
static unsigned resume_all(uint64_t session, unsigned *ret_steps)
{
	struct cmd_claim m = {.queue = queue_id("work"), .max = 1024, .flags = CLAIM_RESUME};
	unsigned count = 0;

	*ret_steps = 0;
	do {
		struct outcome out = world_apply(&world, COMMAND_CLAIM, session, &m);
		size_t bytes = 0;

		cr_assert_eq(out.code, 0, "%s", out.text);
		for (size_t i = 0; i < effects_count(world.effects); i++)
			bytes += effects_at(world.effects, i)->payload.len;
		cr_expect_lt(bytes, 3u << 20, "a step is bounded: %zu bytes", bytes);
		if (m.resume_until == 0)
			m.resume_until = out.index;
		m.resume_after = out.id;
		count += out.count;
		++*ret_steps;
	} while (m.resume_after != 0);
	return count;
}

Test(queue_resume, resume_continues_in_steps_until_all_held_items_are_delivered)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL);
	unsigned steps;

	put("work", 5000);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(claim(session, "work", 1000, 0, 0).count, 1000);
		cr_assert_eq(claim(other, "work", 500, 0, 0).count, 500);
	}
	cr_expect_eq(resume_all(session, &steps), 3000);
	cr_expect_eq(steps, 2, "a step ends after the grant that fills it");
	cr_expect_eq(resume_all(other, &steps), 1500);
}

Test(queue_resume, resume_leaves_out_items_granted_between_its_steps)
{
	uint64_t session = world_session(&world, NULL);
	struct cmd_claim m = {.queue = queue_id("work"), .max = 10, .flags = CLAIM_RESUME};
	struct outcome out;

	put("work", 50);
	claim(session, "work", 10, 0, 0);
	claim(session, "work", 10, 0, 0);
	out = world_apply(&world, COMMAND_CLAIM, session, &m);
	cr_expect_eq(out.count, 10);
	cr_expect_neq(out.id, 0);
	m.resume_after = out.id;
	m.resume_until = out.index;
	cr_assert_eq(claim(session, "work", 10, 0, 0).count, 10, "another consumer of the session");
	out = world_apply(&world, COMMAND_CLAIM, session, &m);
	cr_expect_eq(out.count, 10);
	cr_expect_eq(out.id, 0, "and no items of the newer grant");
}

Test(queue_resume, resume_delivers_nothing_that_another_session_holds)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL);
	struct outcome mine;

	put("work", 4);
	claim(other, "work", 2, 0, 0);
	mine = claim(session, "work", 1, 0, 0);
	cr_expect_eq(claim(session, "work", 100, 0, CLAIM_RESUME).count, 1);
	cr_expect_eq(world_effects(&world, FX_GRANT), 1);
	cr_expect_eq(world_effect(&world, FX_GRANT)->token, mine.index);
	cr_expect_eq(claim(world_session(&world, NULL), "work", 100, 0, CLAIM_RESUME).count, 0,
		     "a session that holds nothing receives nothing");
	cr_expect_eq(cell("work").leased, 3, "and the leases are as they were");
}

/* A delivery gives the lease's whole term: a holder that extends at half of it must not be too
 * late. */
Test(queue_resume, resume_restarts_the_lease)
{
	uint64_t session = world_session(&world, NULL), token;

	put("work", 1);
	token = claim(session, "work", 1, 1000, 0).index;
	world_wait(&world, 800);
	cr_expect_eq(claim(session, "work", 1, 0, CLAIM_RESUME).count, 1);
	cr_expect_eq(world_effect(&world, FX_GRANT)->token, token);
	cr_expect_eq(world_effect(&world, FX_GRANT)->lease_ms, 1000);
	world_wait(&world, 800);
	world_ticks(&world, 1000);
	cr_expect_eq(cell("work").leased, 1, "800 of 1000 ms have passed since");
	world_wait(&world, 200);
	world_ticks(&world, 1000);
	cr_expect_eq(cell("work").leased, 0);
	cr_expect_eq(cell("work").ready, 1);
}

/* More grants than one step checks, with another session's among them. */
Test(queue_resume, resume_finds_each_of_many_grants)
{
	uint64_t session = world_session(&world, NULL), other = world_session(&world, NULL);
	unsigned steps;

	put("work", 300);
	for (int i = 0; i < 300; i++)
		(void)claim(i % 3 == 0 ? other : session, "work", 1, 0, 0);
	cr_expect_eq(resume_all(session, &steps), 200);
	cr_expect_eq(resume_all(other, &steps), 100);
}
