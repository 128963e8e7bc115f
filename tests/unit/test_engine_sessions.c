/* SPDX-License-Identifier: Apache-2.0
 * Sessions in the engine: connections that lost theirs to another, sessions without a connection,
 * the ephemeral ones at a start, and time in which the process did not run. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "broker/engine/engine_internal.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/engine_rig.h"

enum { TIMEOUT_MS = 5000 }; /* of rig_session() */

static bool lives(struct rig *rig, uint64_t session)
{
	struct store_txn *txn = NULL;
	struct session_ref ref;
	int rc;

	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	rc = core_session_find(txn, 1, session, &ref);
	store_abort(txn);
	return rc == 0;
}

static void later(struct rig *rig, uint64_t ms)
{
	rig->now.mono_ms += ms;
	rig_step(rig);
}

static uint64_t open_with(struct rig *rig, uint8_t flags)
{
	struct own *own = rig_own(rig, COMMAND_SESSION_OPEN, 0, 0);

	own->open.timeout_ms = TIMEOUT_MS;
	own->open.flags = flags;
	own->submission.control = true;
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
	rig_step(rig);
	cr_assert_eq(rig->last.code, 0);
	return rig->last.id;
}

static void attach(struct rig *rig, uint64_t session, uint64_t conn)
{
	cr_assert_eq(engine_session_attach(rig->engine, 1, session, &rig->sink, conn), 0);
}

static void detach(struct rig *rig, uint64_t session, uint64_t conn)
{
	cr_assert_eq(engine_session_detach(rig->engine, 1, session, &rig->sink, conn, 0, true), 0);
}

/* A publish of that connection, of so many bytes for the engine. */
static void publish(struct rig *rig, uint64_t session, uint64_t conn, uint64_t counted_bytes)
{
	struct envelope envelope = {.body = {"x", 1}};
	struct own *own = rig_own(rig, COMMAND_PUBLISH, session, 64);

	own->publish.target_kind = PUBLISH_TO_QUEUE;
	own->publish.count = 1;
	own->publish.subject = (struct sluice_slice){"s", 1};
	own->publish.target = (struct sluice_slice){"dead-letter", 11};
	own->publish.payload =
		(struct sluice_slice){own->bytes, envelope_encode(own->bytes, &envelope)};
	own->publish.raw_bytes = (uint32_t)own->publish.payload.len;
	own->submission.bytes = counted_bytes;
	own->submission.conn = conn;
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
}

/* Puts that were applied. */
static uint64_t count_put(struct rig *rig)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueShow show = SLUICE__QUEUE_SHOW__INIT;
	struct store_txn *txn = NULL;
	Sluice__Reply *reply;
	uint8_t *bytes = NULL;
	size_t len = 0;
	uint64_t put;

	show.name = (char *)(uintptr_t) "dead-letter";
	request.op_case = SLUICE__REQUEST__OP_QUEUE_SHOW;
	request.queue_show = &show;
	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(core_query(txn, 1, (struct query_clock){rig->now.mono_ms, rig->now.wall_ms},
				&request, &bytes, &len),
		     0);
	store_abort(txn);
	reply = sluice__reply__unpack(NULL, len, bytes);
	cr_assert(reply != NULL && reply->n_queues == 1);
	put = reply->queues[0]->put;
	sluice__reply__free_unpacked(reply, NULL);
	free(bytes);
	return put;
}

/* ---- connections that lost their session ---- */

Test(engine_sessions, a_connection_that_lost_its_session_is_refused_until_it_is_freed)
{
	for (int aborts = 0; aborts < 2; aborts++) {
		struct rig rig;
		uint64_t session;

		rig_open(&rig, aborts != 0);
		session = rig_session(&rig);
		attach(&rig, session, 1);
		publish(&rig, session, 1, 100);
		rig_step(&rig);
		cr_expect_eq(count_put(&rig), 1);
		publish(&rig, session, 1, 100); /* enters a batch after the attach */
		attach(&rig, session, 2);
		publish(&rig, session, 1, 100);
		rig.replies = 0;
		rig_step(&rig);
		cr_expect_eq(rig.replies, 2, "each is answered");
		cr_expect_eq(rig.last.code, SLUICE_E_SESSION_GONE);
		cr_expect_eq(count_put(&rig), 1, "and not applied");
		cr_expect_eq(rig.kicked, 1);
		publish(&rig, session, 2, 100);
		rig_step(&rig);
		cr_expect_eq(rig.last.code, 0, "the other one is heard");
		cr_expect_eq(count_put(&rig), 2);
		publish(&rig, session, 1, 100);
		detach(&rig, session, 1);
		rig_step(&rig);
		cr_expect_eq(rig.last.code, SLUICE_E_SESSION_GONE);
		cr_expect_eq(count_put(&rig), 2);
		cr_expect_null(rig.engine->moved.conns, "it is forgotten");
		cr_expect_eq(rig.failed, 0);
		rig_close(&rig);
	}
}

/* limit: ENGINE_BATCH_BYTES_MAX: one command a batch. */
Test(engine_sessions, what_waits_of_a_connection_is_refused_after_it_was_freed)
{
	struct rig rig;
	uint64_t session, waits;

	rig_open(&rig, false);
	session = rig_session(&rig);
	attach(&rig, session, 1);
	rig_step(&rig);
	for (int i = 0; i < 3; i++)
		publish(&rig, session, 1, LIMIT_ENGINE_BATCH_BYTES_MAX);
	attach(&rig, session, 2);
	detach(&rig, session, 1);
	publish(&rig, session, 2, 100);
	rig.replies = 0;
	cr_assert_eq(engine_step(rig.engine, rig.now, &waits), 0);
	cr_expect_eq(rig.replies, 1);
	cr_expect_not_null(rig.engine->moved.conns, "two more wait");
	rig_step(&rig);
	cr_expect_eq(rig.replies, 4);
	cr_expect_eq(count_put(&rig), 1, "only that of the second connection");
	cr_expect_null(rig.engine->moved.conns);
	rig_close(&rig);
}

Test(engine_sessions, a_connection_that_came_and_lost_its_session_between_two_batches_is_refused)
{
	struct rig rig;
	uint64_t session;

	rig_open(&rig, false);
	session = rig_session(&rig);
	attach(&rig, session, 1);
	publish(&rig, session, 1, 100);
	attach(&rig, session, 2);
	publish(&rig, session, 2, 100);
	detach(&rig, session, 1);
	attach(&rig, session, 3);
	publish(&rig, session, 3, 100);
	rig_step(&rig);
	cr_expect_eq(count_put(&rig), 1, "the last one's");
	detach(&rig, session, 2);
	rig_step(&rig);
	cr_expect_null(rig.engine->moved.conns);
	/* One after the other: what was sent before the end is done. */
	publish(&rig, session, 3, 100);
	detach(&rig, session, 3);
	attach(&rig, session, 4);
	publish(&rig, session, 4, 100);
	detach(&rig, session, 4);
	attach(&rig, session, 5);
	rig_step(&rig);
	cr_expect_eq(count_put(&rig), 3);
	cr_expect_null(rig.engine->moved.conns);
	rig_close(&rig);
}

static void close_of(struct rig *rig, uint64_t by, uint64_t session, uint64_t conn, bool by_sink)
{
	static Sluice__SessionClose body;
	struct own *own = rig_own(rig, COMMAND_SESSION_CLOSE, by, 0);

	sluice__session_close__init(&body);
	body.session = session;
	own->submission.command.body = &body;
	own->submission.control = true;
	own->submission.conn = conn;
	own->submission.by_sink = by_sink;
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
	rig_step(rig);
}

Test(engine_sessions, the_sink_closes_what_a_connection_that_lost_a_session_did_not_lose)
{
	struct rig rig;
	uint64_t lost, kept;

	rig_open(&rig, false);
	lost = rig_session(&rig);
	kept = open_with(&rig, SESSION_EPHEMERAL);
	attach(&rig, lost, 1);
	attach(&rig, kept, 1);
	rig_step(&rig);
	attach(&rig, lost, 2);
	close_of(&rig, lost, 0, 1, true);
	cr_expect_eq(rig.last.code, SLUICE_E_SESSION_GONE);
	close_of(&rig, kept, lost, 1, true);
	cr_expect_eq(rig.last.code, SLUICE_E_SESSION_GONE);
	cr_expect(lives(&rig, lost), "it belongs to another connection");
	close_of(&rig, lost, kept, 1, false);
	cr_expect_eq(rig.last.code, SLUICE_E_SESSION_GONE, "a client's command");
	cr_expect(lives(&rig, kept));
	close_of(&rig, lost, kept, 1, true);
	cr_expect_eq(rig.last.code, 0);
	cr_expect(!lives(&rig, kept));
	detach(&rig, kept, 1);
	rig_step(&rig);
	cr_expect_not_null(rig.engine->moved.conns, "it has not detached what it lost");
	detach(&rig, lost, 1);
	rig_step(&rig);
	cr_expect_null(rig.engine->moved.conns);
	cr_expect_eq(rig.kicked, 1);
	rig_close(&rig);
}

Test(engine_sessions, a_connection_that_lost_its_session_opens_no_consumer)
{
	struct consumer_spec spec = {.gateway = 1, .credit = 5, .tag = 9, .conn = 1};
	struct rig rig;

	rig_open(&rig, false);
	spec.sink = &rig.sink;
	spec.queue = rig_dead_letter(&rig);
	spec.session = rig_session(&rig);
	attach(&rig, spec.session, 1);
	rig_step(&rig);
	attach(&rig, spec.session, 2);
	cr_assert_eq(engine_consumer_open(rig.engine, &spec), 0);
	cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_expect_eq(rig.items, 0, "no client would receive it");
	cr_assert_eq(engine_consumer_close(rig.engine, &rig.sink, 9), 0);
	spec.conn = 2;
	spec.tag = 10;
	cr_assert_eq(engine_consumer_open(rig.engine, &spec), 0);
	rig_step(&rig);
	cr_expect_eq(rig.items, 1);
	rig_close(&rig);
}

/* ---- sessions without a connection ---- */

static int touch(struct rig *rig, uint64_t session)
{
	struct session_number number = {1, session};

	return engine_session_touch(rig->engine, &number, 1, rig->now.mono_ms);
}

Test(engine_sessions, one_without_a_connection_lives_by_signs_of_life)
{
	struct rig rig;
	uint64_t session;

	rig_open(&rig, false);
	session = rig_session(&rig);
	for (int i = 0; i < 4; i++) {
		later(&rig, TIMEOUT_MS - 1);
		cr_assert_eq(touch(&rig, session), 0);
		rig_step(&rig);
	}
	later(&rig, TIMEOUT_MS - 1);
	cr_expect(lives(&rig, session));
	later(&rig, 1);
	cr_expect(!lives(&rig, session), "a whole timeout after the last one");
	cr_expect_eq(touch(&rig, session), 0, "in vain");
	cr_expect_eq(touch(&rig, 777), 0);
	rig_step(&rig);
	cr_expect_eq(rig.failed, 0);
	rig_close(&rig);
}

/* The engine sleeps until a deadline: it wakes for none. */
Test(engine_sessions, a_sign_of_life_counts_from_when_it_was_given)
{
	struct rig rig;
	uint64_t session, wait_ms = 0;

	rig_open(&rig, false);
	session = rig_session(&rig);
	rig.now.mono_ms += 1000;
	cr_assert_eq(touch(&rig, session), 0);
	rig.now.mono_ms += TIMEOUT_MS - 1000;
	cr_assert_eq(engine_step(rig.engine, rig.now, &wait_ms), 0);
	cr_expect(lives(&rig, session));
	cr_expect_eq(wait_ms, 1000);
	later(&rig, 999);
	cr_expect(lives(&rig, session));
	later(&rig, 1);
	cr_expect(!lives(&rig, session));
	rig_close(&rig);
}

Test(engine_sessions, a_standing_one_lives_until_it_is_closed_also_over_a_start)
{
	struct rig rig;
	struct store *store;
	uint64_t standing, free_one;

	rig_open(&rig, false);
	standing = open_with(&rig, SESSION_STANDING);
	free_one = open_with(&rig, 0);
	later(&rig, 86400000);
	cr_expect(lives(&rig, standing) && !lives(&rig, free_one));
	free_one = open_with(&rig, 0);
	later(&rig, TIMEOUT_MS - 1);
	engine_destroy(rig.engine);
	store = rig.store;
	memset(&rig, 0, sizeof(rig));
	rig.store = store;
	rig_start(&rig, false);
	later(&rig, TIMEOUT_MS - 1);
	cr_expect(lives(&rig, free_one), "a start gives it a whole timeout");
	later(&rig, 1);
	cr_expect(!lives(&rig, free_one));
	later(&rig, 86400000);
	cr_expect(lives(&rig, standing));
	close_of(&rig, standing, 0, 0, false);
	cr_expect(!lives(&rig, standing));
	rig_close(&rig);
}

/* ---- many at once ---- */

Test(engine_sessions, ten_thousand_that_expire_at_once_delay_no_command, .timeout = 60)
{
	enum { COUNT = 10000 };
	uint64_t wait_ms = 0, opened = 0;
	struct rig rig;

	rig_open(&rig, false);
	for (int i = 0; i < COUNT; i++) {
		struct own *own = rig_own(&rig, COMMAND_SESSION_OPEN, 0, 0);

		own->open.timeout_ms = TIMEOUT_MS;
		own->submission.control = true;
		cr_assert_eq(engine_submit(rig.engine, &own->submission), 0);
	}
	rig_step(&rig);
	rig.now.mono_ms += TIMEOUT_MS;
	rig.releases = 0;
	while (rig.sessions_ended < COUNT) {
		unsigned replies = rig.replies;

		cr_assert_eq(rig_put(&rig, 10), 0);
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait_ms), 0);
		cr_expect_eq(rig.replies, replies + 1, "each commit answers what has come");
		opened++;
	}
	cr_expect_eq(rig.sessions_ended_at_once, 256);
	cr_expect_eq(rig.releases, (COUNT + 255) / 256);
	cr_expect_eq(count_put(&rig), opened);
	rig_close(&rig);
}

/* Each entry of theirs is work of the commit that ends them: the others wait for a part of it. */
Test(engine_sessions, those_that_own_much_and_expire_at_once_delay_no_command, .timeout = 60)
{
	enum { MANY = 40, EACH = 128 };
	uint64_t sessions[MANY], wait = 0;
	struct cmd_claim claim = {.max = 1, .flags = CLAIM_SESSION_LEASE};

	for (int aborts = 0; aborts < 2; aborts++) {
		struct rig rig;

		rig_open(&rig, aborts != 0);
		claim.queue = rig_dead_letter(&rig);
		for (int i = 0; i < MANY; i++) {
			sessions[i] = rig_session(&rig);
			attach(&rig, sessions[i], (uint64_t)i + 1);
			for (int n = 0; n < EACH; n++)
				cr_assert_eq(rig_put(&rig, 1), 0);
			rig_step(&rig);
			for (int n = 0; n < EACH; n++)
				rig_send(&rig, COMMAND_CLAIM, sessions[i], &claim);
			rig_step(&rig);
		}
		cr_assert_eq(rig.items, MANY * EACH);
		for (int i = 0; i < MANY; i++)
			detach(&rig, sessions[i], (uint64_t)i + 1);
		rig_step(&rig);
		rig.now.mono_ms += TIMEOUT_MS;
		rig.replies = 0;
		cr_assert_eq(rig_put(&rig, 1), 0);
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
		cr_expect_eq(rig.replies, 1, "a command is answered beside them");
		cr_expect_eq(wait, 0, "the next batch follows at once");
		cr_expect_gt(rig.sessions_ended, 0u);
		cr_expect_lt(rig.sessions_ended, (unsigned)MANY, "not all in one commit");
		rig_step(&rig);
		cr_expect_eq(rig.sessions_ended, (unsigned)MANY, "each, once");
		for (int i = 0; i < MANY; i++)
			cr_expect(!lives(&rig, sessions[i]));
		rig_close(&rig);
	}
}

/* ---- ephemeral ones at a start ---- */

static void start_again(struct rig *rig)
{
	struct store *store = rig->store;

	engine_destroy(rig->engine);
	memset(rig, 0, sizeof(*rig));
	rig->store = store;
	rig_start(rig, false);
}

/* A consumer of the dead-letter queue whose leases last as long as the session. */
static void hold(struct rig *rig, uint64_t session, uint64_t conn)
{
	struct consumer_spec spec = {.gateway = 1,
				     .queue = rig_dead_letter(rig),
				     .session = session,
				     .credit = 10,
				     .claim_flags = CLAIM_SESSION_LEASE,
				     .sink = &rig->sink,
				     .tag = 7,
				     .conn = conn};

	cr_assert_eq(engine_consumer_open(rig->engine, &spec), 0);
	rig_step(rig);
}

Test(engine_sessions, no_ephemeral_one_survives_a_start, .timeout = 60)
{
	enum { COUNT = 1000 };
	struct rig rig;
	uint64_t first, kept;

	rig_open(&rig, false);
	kept = rig_session(&rig);
	first = open_with(&rig, SESSION_EPHEMERAL);
	for (int i = 1; i < COUNT; i++)
		(void)open_with(&rig, SESSION_EPHEMERAL);
	cr_assert_eq(rig_put(&rig, 10), 0);
	attach(&rig, first, 1);
	hold(&rig, first, 1);
	cr_assert_eq(rig.items, 1);
	start_again(&rig);
	cr_assert_eq(engine_end_ephemeral(rig.engine, rig.now), 0);
	cr_expect_eq(rig.sessions_ended, COUNT);
	cr_expect_eq(rig.sessions_ended_at_once, 256);
	cr_expect_eq(rig.releases, (COUNT + 255) / 256);
	cr_expect(lives(&rig, kept) && !lives(&rig, first));
	hold(&rig, kept, 0);
	cr_expect_eq(rig.items, 1, "what it held is ready");
	cr_assert_eq(engine_end_ephemeral(rig.engine, rig.now), 0, "nothing is left to do");
	rig_close(&rig);
}

/* Its client was killed: the sink closes its session, and then detaches it. */
Test(engine_sessions, what_an_ephemeral_one_held_is_given_to_another_by_the_commit_that_ends_it)
{
	struct rig rig;
	uint64_t dead, other;

	rig_open(&rig, false);
	dead = open_with(&rig, SESSION_EPHEMERAL);
	other = rig_session(&rig);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(rig_put(&rig, 10), 0);
	attach(&rig, dead, 1);
	hold(&rig, dead, 1);
	cr_assert_eq(rig.items, 10);
	cr_assert_eq(engine_consumer_close(rig.engine, &rig.sink, 7), 0);
	hold(&rig, other, 0);
	rig.releases = rig.items = 0;
	close_of(&rig, dead, 0, 1, true);
	cr_expect_eq(rig.releases, 1);
	cr_expect_eq(rig.items, 10);
	detach(&rig, dead, 1);
	rig_step(&rig);
	cr_expect(!lives(&rig, dead));
	rig_close(&rig);
}

/* A record that a session holds is damaged: its end is refused, and the start goes on. */
static int corrupt_delete(void *user, const char *operation)
{
	(void)user;
	return strcmp(operation, "del") == 0 ? SLUICE_E_CORRUPT : 0;
}

Test(engine_sessions, a_start_does_not_hang_on_an_ephemeral_one_that_cannot_end, .timeout = 60)
{
	struct rig rig;
	uint64_t session;

	rig_open(&rig, false);
	session = open_with(&rig, SESSION_EPHEMERAL);
	start_again(&rig);
	store_fault_set(rig.store, corrupt_delete, NULL);
	cr_assert_eq(engine_end_ephemeral(rig.engine, rig.now), 0);
	cr_expect(lives(&rig, session));
	store_fault_set(rig.store, NULL, NULL);
	later(&rig, 60000);
	cr_expect(!lives(&rig, session), "it is tried again");
	rig_close(&rig);
}

/* ---- time in which the process did not run ---- */

static void run_on(struct rig *rig, uint64_t ms)
{
	for (; ms > 0; ms -= 100) {
		rig->now.mono_ms += 100;
		engine_report_running(rig->engine, rig->now.mono_ms);
		rig_step(rig);
	}
}

Test(engine_sessions, no_session_ends_by_a_minute_in_which_the_process_did_not_run)
{
	struct rig rig;
	uint64_t touched, detached, wait_ms = 0;

	rig_open(&rig, false);
	engine_report_running(rig.engine, rig.now.mono_ms);
	touched = rig_session(&rig);
	detached = rig_session(&rig);
	attach(&rig, detached, 1);
	run_on(&rig, TIMEOUT_MS - 1000);
	cr_assert_eq(touch(&rig, touched), 0); /* before the stop, and not handled yet */
	detach(&rig, detached, 1);
	rig.now.mono_ms += 60000;
	cr_assert_eq(engine_step(rig.engine, rig.now, &wait_ms), 0);
	cr_expect(lives(&rig, touched) && lives(&rig, detached));
	run_on(&rig, TIMEOUT_MS - 100);
	cr_expect(lives(&rig, touched) && lives(&rig, detached));
	rig.now.mono_ms += 60000; /* again, seen by another thread first */
	engine_report_running(rig.engine, rig.now.mono_ms);
	cr_assert_eq(engine_step(rig.engine, rig.now, &wait_ms), 0);
	cr_expect(lives(&rig, touched) && lives(&rig, detached));
	run_on(&rig, 200);
	cr_expect(!lives(&rig, touched) && !lives(&rig, detached), "its timeout runs on");
	rig_close(&rig);
}

Test(engine_sessions, a_report_that_is_less_than_a_second_late_counts_as_time)
{
	struct run_clock clock;

	run_clock_init(&clock);
	cr_expect_eq(run_clock_check(&clock, 1000000), 0, "no report yet");
	cr_expect_eq(run_clock_report(&clock, 2000000), 0);
	cr_expect_eq(run_clock_check(&clock, 2000000 + REPORT_MS + REPORT_LATE_MS), 0);
	cr_expect_eq(run_clock_report(&clock, 2000001), 0, "a clock that was read before");
	cr_expect_eq(run_clock_check(&clock, 2002201), REPORT_MS + REPORT_LATE_MS + 1);
	cr_expect_eq(run_clock_report(&clock, 2002201), REPORT_MS + REPORT_LATE_MS + 1, "once");
	run_clock_fini(&clock);
}
