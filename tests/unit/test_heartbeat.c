/* SPDX-License-Identifier: Apache-2.0
 * Heartbeats: deadlines, which sessions are evicted at a bound, and the short timeout of sessions
 * that were never used. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "broker/engine/engine_internal.h"
#include "protocol/limits.h"

static struct heartbeats heartbeats;
static struct engine_sink sink;
static struct consumer_key lost;

static void begin(void)
{
	memset(&heartbeats, 0, sizeof(heartbeats));
	heartbeats.next_ms = UINT64_MAX;
}

static void end(void)
{
	heartbeats_fini(&heartbeats);
}

TestSuite(heartbeat, .init = begin, .fini = end);

static void add(uint64_t session, uint32_t timeout_ms, const char *address, bool named,
		uint64_t now_ms)
{
	struct session_seen seen = {.gateway = 1,
				    .session = session,
				    .timeout_ms = timeout_ms,
				    .named = named,
				    .address = {address, strlen(address)}};

	cr_assert_eq(heartbeats_add(&heartbeats, &seen, now_ms), 0);
}

/* Opened; then its connection was made and closed. */
static void came_and_went(uint64_t session, uint32_t timeout_ms, const char *address, bool used,
			  uint64_t now_ms)
{
	add(session, timeout_ms, address, false, now_ms);
	heartbeats_attach(&heartbeats, 1, session, &sink, session, &lost);
	heartbeats_detach(&heartbeats, 1, session, &sink, session, 0, used, now_ms);
}

static uint64_t due(uint64_t now_ms)
{
	struct session_timer *timer = heartbeats_due(&heartbeats, now_ms);

	return timer != NULL ? timer->key.session : 0;
}

Test(heartbeat, deadlines_are_in_order_and_attached_sessions_have_none)
{
	static const uint32_t timeouts[] = {7000, 3000, 9000, 1000, 5000, 3000, 8000, 2000};
	uint64_t last = 0;

	for (uint64_t i = 0; i < 8; i++)
		came_and_went(i + 1, timeouts[i], "", true, 0);
	heartbeats_attach(&heartbeats, 1, 4, &sink, 44, &lost);
	cr_expect_eq(heartbeats.next_ms, 2000);
	heartbeats_remove(&heartbeats, 1, 8);
	cr_expect_eq(heartbeats.next_ms, 3000);
	cr_expect_eq(due(2999), 0);
	for (int n = 0; n < 6; n++) {
		uint64_t session = due(10000);

		cr_assert_neq(session, 0);
		cr_expect_geq(timeouts[session - 1], last);
		last = timeouts[session - 1];
	}
	cr_expect_eq(due(UINT64_MAX - 1), 0, "the attached one has no deadline");
	cr_expect_eq(heartbeats.next_ms, UINT64_MAX);
	heartbeats_detach(&heartbeats, 1, 4, &sink, 44, 400, true, 20000);
	cr_expect_eq(heartbeats.next_ms, 20600);
}

Test(heartbeat, many_deadlines_that_change_stay_in_order)
{
	uint64_t random = 88172645463325252ull, last = 0;
	unsigned expired = 0;

	for (uint64_t i = 1; i <= 500; i++)
		came_and_went(i, 1000 + (uint32_t)(i * 7919 % 90000), "", true, 0);
	for (int n = 0; n < 3000; n++) {
		uint64_t session;

		random ^= random << 13, random ^= random >> 7, random ^= random << 17;
		session = 1 + random % 500;
		heartbeats_attach(&heartbeats, 1, session, &sink, session, &lost);
		heartbeats_detach(&heartbeats, 1, session, &sink, session, 0, true, random % 50000);
	}
	for (;;) {
		uint64_t next = heartbeats.next_ms;

		if (next == UINT64_MAX)
			break;
		cr_assert_geq(next, last);
		last = next;
		cr_assert_neq(due(next), 0);
		expired++;
	}
	cr_expect_eq(expired, 500);
}

/* limit: SESSION_UNUSED_MS */
Test(heartbeat, an_unused_session_lasts_a_minute_and_a_used_one_its_whole_timeout)
{
	const uint32_t day = 86400000;

	came_and_went(1, day, "192.0.2.1", false, 0);
	came_and_went(2, day, "192.0.2.1", true, 0);
	came_and_went(3, 5000, "192.0.2.1", false, 0);
	add(4, day, "192.0.2.1", true, 0); /* named */
	heartbeats_attach(&heartbeats, 1, 4, &sink, 4, &lost);
	heartbeats_detach(&heartbeats, 1, 4, &sink, 4, 0, false, 0);
	/* Used by one of its connections, not by the next. */
	add(5, day, "192.0.2.1", false, 0);
	heartbeats_attach(&heartbeats, 1, 5, &sink, 5, &lost);
	heartbeats_detach(&heartbeats, 1, 5, &sink, 5, 0, true, 0);
	heartbeats_attach(&heartbeats, 1, 5, &sink, 6, &lost);
	heartbeats_detach(&heartbeats, 1, 5, &sink, 6, 0, false, 0);
	cr_expect_eq(due(4999), 0);
	cr_expect_eq(due(5000), 3);
	cr_expect_eq(due(LIMIT_SESSION_UNUSED_MS - 1), 0);
	cr_expect_eq(due(LIMIT_SESSION_UNUSED_MS), 1);
	cr_expect_eq(due(day - 1), 0);
	cr_expect_neq(due(day), 0);
	cr_expect_neq(due(day), 0);
	cr_expect_neq(due(day), 0);
}

/* limit: SESSIONS_UNUSED_MAX */
Test(heartbeat, an_address_has_few_unused_sessions)
{
	uint64_t n;

	for (n = 1; n <= LIMIT_SESSIONS_UNUSED_MAX; n++)
		came_and_went(n, 86400000, "192.0.2.1", false, 10);
	came_and_went(n++, 86400000, "192.0.2.2", false, 10);
	came_and_went(n++, 86400000, "", false, 10);
	add(n++, 86400000, "192.0.2.1", true, 10); /* named */
	cr_expect_eq(due(10), 0, "at the bound");
	came_and_went(n++, 86400000, "192.0.2.1", false, 10);
	cr_expect_eq(due(10), 1, "the oldest of the address is evicted");
	cr_expect_eq(due(10), 0);
}

/* A commit may open more than the bound, all of which have a connection. */
Test(heartbeat, a_session_that_was_just_opened_has_a_connection)
{
	enum { MORE = 100 };
	struct session_seen seen = {.gateway = 1,
				    .timeout_ms = 86400000,
				    .opened = true,
				    .address = {"192.0.2.1", 9}};
	const uint64_t count = LIMIT_SESSIONS_UNUSED_MAX + MORE;

	for (uint64_t n = 1; n <= count; n++) {
		seen.session = n;
		cr_assert_eq(heartbeats_add(&heartbeats, &seen, 10), 0);
	}
	cr_expect_eq(due(10), 0, "their connections attach them");
	for (uint64_t n = 1; n <= count / 2; n++)
		heartbeats_attach(&heartbeats, 1, n, &sink, n, &lost);
	/* The others were left by theirs before the answer. */
	came_and_went(count + 1, 86400000, "192.0.2.1", false, 20);
	for (uint64_t n = 1; n <= count / 2; n++)
		heartbeats_detach(&heartbeats, 1, n, &sink, n, 0, false, 20);
	cr_expect_eq(due(20), 0);
	came_and_went(count + 2, 86400000, "192.0.2.1", false, 20000);
	for (uint64_t n = 1; n <= MORE + 2; n++) {
		uint64_t ended = due(20000);

		cr_expect(ended > count / 2 && ended <= count / 2 + MORE + 2,
			  "the oldest end, not %llu", (unsigned long long)ended);
	}
	cr_expect_eq(due(20000), 0);
}

static bool owns_even(void *user, uint32_t gateway, uint64_t session)
{
	(void)user, (void)gateway;
	return session % 2 == 0;
}

/* limit: SESSIONS_ADDRESS_MAX */
Test(heartbeat, an_address_has_a_bounded_number_of_sessions)
{
	struct sluice_slice here = {"192.0.2.1", 9}, there = {"192.0.2.2", 9}, unknown = {NULL, 0};
	struct session_timer *timer;

	for (uint64_t n = 1; n < LIMIT_SESSIONS_ADDRESS_MAX; n++)
		add(n, 30000, "192.0.2.1", true, 0);
	heartbeats_batch(&heartbeats);
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, 0), BOUND_NONE,
		     "the last one within the bound");
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, 0), BOUND_ADDRESS,
		     "counting what the batch opens");
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, there, 0), BOUND_NONE);
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, unknown, 0), BOUND_NONE);
	timer = heartbeats_oldest(&heartbeats, 1, there, owns_even, NULL);
	cr_expect_null(timer, "there is no session");
	timer = heartbeats_oldest(&heartbeats, 1, here, owns_even, NULL);
	cr_assert_not_null(timer);
	cr_expect_eq(timer->key.session, 1, "the oldest that owns nothing");
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, 0), BOUND_NONE,
		     "it makes room for one");
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, 0), BOUND_ADDRESS);
	came_and_went(LIMIT_SESSIONS_ADDRESS_MAX + 1, 30000, "192.0.2.3", false, 0);
	timer = heartbeats_oldest(&heartbeats, 2, unknown, owns_even, NULL);
	cr_expect_null(timer, "another gateway's sessions stay");
}

Test(heartbeat, a_session_that_replaces_another_is_opened_at_a_bound)
{
	struct sluice_slice here = {"192.0.2.1", 9}, there = {"192.0.2.2", 9};
	const uint64_t attached = 1, detached = 2;

	for (uint64_t n = 1; n <= LIMIT_SESSIONS_ADDRESS_MAX; n++)
		add(n, 30000, "192.0.2.1", true, 0);
	heartbeats_attach(&heartbeats, 1, attached, &sink, 9, &lost);
	heartbeats_batch(&heartbeats);
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, 0), BOUND_ADDRESS);
	for (int n = 0; n < 3; n++)
		cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, attached), BOUND_NONE,
			     "however often, the count stays");
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, detached), BOUND_NONE);
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, 77777777), BOUND_ADDRESS,
		     "without sessions there is none");
	/* A session that its successor replaces makes room for no other. */
	for (uint64_t n = 3; n < 100; n++)
		cr_assert_eq(heartbeats_admit(&heartbeats, 1, here, 2 * n), BOUND_NONE);
	for (uint64_t n = 0; n < 100; n++) {
		struct session_timer *timer =
			heartbeats_oldest(&heartbeats, 1, here, owns_even, NULL);

		cr_assert_not_null(timer);
		cr_expect(timer->key.session % 2 == 1 && timer->key.session != attached);
	}
	/* And a session that ends makes room once. */
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, 3), BOUND_NONE);
	for (int n = 1; n < 100; n++)
		cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, 0), BOUND_NONE);
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, here, 3), BOUND_ADDRESS);
	/* Opened from another address it counts for that address. */
	cr_expect_eq(heartbeats_admit(&heartbeats, 1, there, detached), BOUND_NONE);
}

Test(heartbeat, an_unused_session_is_evicted_before_an_older_one)
{
	struct session_timer *timer;

	came_and_went(2, 30000, "a", true, 0);
	came_and_went(3, 30000, "a", true, 0);
	came_and_went(4, 30000, "b", false, 5);
	add(6, 30000, "a", false, 0);
	heartbeats_attach(&heartbeats, 1, 6, &sink, 6, &lost);
	timer = heartbeats_oldest(&heartbeats, 1, (struct sluice_slice){NULL, 0}, owns_even, NULL);
	cr_assert_not_null(timer);
	cr_expect_eq(timer->key.session, 4);
	timer = heartbeats_oldest(&heartbeats, 1, (struct sluice_slice){NULL, 0}, owns_even, NULL);
	cr_assert_not_null(timer);
	cr_expect_eq(timer->key.session, 3, "then one that owns nothing");
	cr_expect_null(heartbeats_oldest(&heartbeats, 1, (struct sluice_slice){NULL, 0}, owns_even,
					 NULL),
		       "never one that owns something or is connected");
}

/* At a bound every opening looks for a session to evict. */
Test(heartbeat, openings_at_a_bound_check_a_bounded_number_of_sessions)
{
	struct sluice_slice unknown = {NULL, 0};
	unsigned found = 0;

	for (uint64_t n = 1; n <= 30000; n++)
		came_and_went(n, 30000, "", true, 0);
	add(30001, 30000, "", true, 0);
	heartbeats_batch(&heartbeats);
	for (int i = 0; i < 1000; i++)
		cr_expect_null(heartbeats_oldest(&heartbeats, 2, unknown, owns_even, NULL));
	cr_expect_leq(heartbeats.checks, 70000);
	cr_expect_null(heartbeats_oldest(&heartbeats, 1, unknown, owns_even, NULL),
		       "of this batch no more");
	heartbeats_batch(&heartbeats);
	for (int i = 0; i < 1000; i++)
		found += heartbeats_oldest(&heartbeats, 1, unknown, owns_even, NULL) != NULL;
	cr_expect_geq(found, 16, "sessions that own nothing are evicted, batch by batch");
	cr_expect_leq(heartbeats.checks, 70000);
}

/* A damaged record of what the session holds refuses its end. */
Test(heartbeat, an_end_that_was_refused_is_tried_again)
{
	came_and_went(1, 1000, "a", false, 0);
	cr_expect_eq(due(1000), 1);
	cr_expect_eq(due(UINT64_MAX - 1), 0, "its end is under way");
	heartbeats_again(&heartbeats, 1, 1, 61000);
	cr_expect_eq(heartbeats.next_ms, 61000);
	cr_expect_eq(due(61000), 1);
	heartbeats_remove(&heartbeats, 1, 1);
	heartbeats_again(&heartbeats, 1, 1, 62000);
	cr_expect_eq(heartbeats.next_ms, UINT64_MAX, "it has ended");
}

Test(heartbeat, a_session_that_is_resumed_while_its_end_is_refused_stays)
{
	came_and_went(1, 1000, "a", true, 0);
	cr_expect_eq(due(1000), 1);
	heartbeats_attach(&heartbeats, 1, 1, &sink, 7, &lost);
	heartbeats_again(&heartbeats, 1, 1, 61000);
	cr_expect_eq(heartbeats.next_ms, UINT64_MAX, "it has a connection");
	heartbeats_detach(&heartbeats, 1, 1, &sink, 7, 0, true, 70000);
	cr_expect_eq(due(71000), 1);
}

/* ---- without a connection ---- */

Test(heartbeat, a_sign_of_life_moves_the_deadline_and_makes_a_session_used)
{
	const uint32_t day = 86400000;

	add(1, day, "a", false, 0);
	heartbeats_touch(&heartbeats, 1, 1, 50);
	cr_expect_eq(heartbeats.peers->unused_count, 0);
	cr_expect_eq(due(LIMIT_SESSION_UNUSED_MS), 0, "it is used");
	cr_expect_eq(heartbeats.next_ms, day + 50);
	heartbeats_touch(&heartbeats, 1, 1, 40);
	cr_expect_eq(heartbeats.next_ms, day + 50, "an older one moves nothing back");
	heartbeats_attach(&heartbeats, 1, 1, &sink, 1, &lost);
	heartbeats_touch(&heartbeats, 1, 1, 100);
	cr_expect_eq(heartbeats.next_ms, UINT64_MAX, "it has a connection");
	heartbeats_detach(&heartbeats, 1, 1, &sink, 1, 0, true, 200);
	cr_expect_eq(due(day + 200), 1);
	heartbeats_touch(&heartbeats, 1, 1, day + 300);
	cr_expect_eq(heartbeats.next_ms, UINT64_MAX, "its end is under way");
	heartbeats_touch(&heartbeats, 1, 2, 0);
	cr_expect_eq(heartbeats.next_ms, UINT64_MAX, "nobody is there");
}

Test(heartbeat, the_least_recently_used_gives_way_and_a_standing_one_never)
{
	struct sluice_slice unknown = {NULL, 0};
	struct session_seen standing = {.gateway = 1,
					.session = 1,
					.timeout_ms = 1000,
					.standing = true,
					.address = {"a", 1}};
	struct session_timer *timer;

	cr_assert_eq(heartbeats_add(&heartbeats, &standing, 0), 0);
	cr_expect_eq(heartbeats.next_ms, UINT64_MAX);
	cr_expect_eq(heartbeats.peers->unused_count, 0);
	add(3, 30000, "a", true, 0);
	add(5, 30000, "a", true, 0);
	heartbeats_touch(&heartbeats, 1, 3, 10);
	heartbeats_touch(&heartbeats, 1, 1, 10);
	timer = heartbeats_oldest(&heartbeats, 1, unknown, owns_even, NULL);
	cr_assert_not_null(timer);
	cr_expect_eq(timer->key.session, 5);
	timer = heartbeats_oldest(&heartbeats, 1, unknown, owns_even, NULL);
	cr_assert_not_null(timer);
	cr_expect_eq(timer->key.session, 3);
	cr_expect_null(heartbeats_oldest(&heartbeats, 1, unknown, owns_even, NULL));
	cr_expect_eq(due(UINT64_MAX - 1), 0);
	heartbeats_attach(&heartbeats, 1, 1, &sink, 1, &lost);
	heartbeats_detach(&heartbeats, 1, 1, &sink, 1, 0, false, 0);
	cr_expect_eq(due(UINT64_MAX - 1), 0);
	heartbeats_remove(&heartbeats, 1, 1);
}

static void alter(uint64_t session, uint32_t timeout_ms, const char *address, uint64_t now_ms)
{
	struct session_seen seen = {.gateway = 1,
				    .session = session,
				    .timeout_ms = timeout_ms,
				    .address = {address, strlen(address)}};

	cr_assert_eq(heartbeats_alter(&heartbeats, &seen, now_ms), 0);
}

Test(heartbeat, an_altered_timeout_holds_at_once_and_at_the_next_loss_of_the_connection)
{
	came_and_went(1, 5000, "a", true, 0);
	alter(1, 60000, "a", 1000);
	cr_expect_eq(due(60999), 0);
	cr_expect_eq(due(61000), 1);
	add(2, 60000, "a", false, 0);
	heartbeats_attach(&heartbeats, 1, 2, &sink, 2, &lost);
	alter(2, 1000, "a", 100);
	cr_expect_eq(due(UINT64_MAX - 1), 0, "it has a connection");
	heartbeats_detach(&heartbeats, 1, 2, &sink, 2, 0, false, 10000);
	cr_expect_eq(due(10999), 0);
	cr_expect_eq(due(11000), 2);
	alter(3, 1000, "a", 0); /* one that has ended meanwhile */
	cr_expect_eq(HASH_COUNT(heartbeats.timers), 2);
}

Test(heartbeat, an_altered_session_is_used_and_counts_by_its_new_address)
{
	came_and_went(1, 30000, "a", false, 0);
	cr_expect_eq(heartbeats.peers->unused_count, 1);
	alter(1, 30000, "b", 1000);
	cr_assert_eq(HASH_COUNT(heartbeats.peers), 1, "no session is left at the old one");
	cr_expect_eq(memcmp(heartbeats.peers->address, "b", 1), 0);
	cr_expect_eq(heartbeats.peers->sessions, 1);
	cr_expect_eq(heartbeats.peers->unused_count, 0);
	cr_expect_eq(due(30999), 0, "the short life of an unused session is over");
	cr_expect_eq(due(31000), 1);
	alter(1, 30000, "c", 31000);
	cr_expect_eq(heartbeats.peers->expiring, 1, "its end is under way");
	cr_expect_eq(due(UINT64_MAX - 1), 0);
	heartbeats_remove(&heartbeats, 1, 1);
	cr_expect_null(heartbeats.peers);
}
