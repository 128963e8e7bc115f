/* SPDX-License-Identifier: Apache-2.0
 * The engine without its thread: batches, releases, demand, heartbeats, a failing store. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/base/keys.h"
#include "broker/core/base/timer.h"
#include "broker/engine/engine_internal.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/engine_rig.h"

Test(engine, what_waits_is_one_batch_and_each_command_has_one_reply)
{
	struct rig rig;

	rig_open(&rig, false);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_expect_eq(rig.releases, 1);
	cr_expect_eq(rig.replies, 100);
	rig_close(&rig);
}

/* limit: ENGINE_BATCH_BYTES_MAX */
Test(engine, a_batch_has_a_bound_and_the_rest_waits_for_the_next)
{
	struct rig rig;
	unsigned count = (unsigned)(LIMIT_ENGINE_BATCH_BYTES_MAX / (1u << 20));

	rig_open(&rig, false);
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(rig_put(&rig, (1u << 20) - 1024), 0);
	rig_step(&rig);
	cr_expect_eq(rig.releases, 1, "up to the bound it is one");
	rig_close(&rig);
	rig_open(&rig, false);
	for (unsigned i = 0; i < count + 1; i++)
		cr_assert_eq(rig_put(&rig, (1u << 20) - 1024), 0);
	rig_step(&rig);
	cr_expect_eq(rig.releases, 2, "beyond it two");
	cr_expect_eq(rig.replies, count + 1);
	rig_close(&rig);
}

static int control_counted(struct rig *rig, size_t counted_bytes)
{
	struct own *own = rig_own(rig, COMMAND_SESSION_OPEN, 0, 0);
	int rc;

	own->open.timeout_ms = 5000;
	own->submission.control = true;
	own->submission.bytes = counted_bytes;
	rc = engine_submit(rig->engine, &own->submission);
	if (rc != 0)
		free(own);
	return rc;
}

/* Commands of 1 MiB. */
Test(engine, control_takes_half_of_a_batch_while_data_waits)
{
	unsigned controls = 30, count = (unsigned)(LIMIT_ENGINE_BATCH_BYTES_MAX >> 20);
	uint64_t wait = 0;
	struct rig rig;

	rig_open(&rig, false);
	for (unsigned i = 0; i < controls; i++)
		cr_assert_eq(control_counted(&rig, 1 << 20), 0);
	for (unsigned i = 0; i < 2 * count - 3; i++)
		cr_assert_eq(rig_put_counted(&rig, 10, 1 << 20), 0);
	for (unsigned n = 1; n <= 3; n++) {
		cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
		cr_expect_eq(rig.singles, n * count / 2, "batch %u: %u publishes", n, rig.singles);
		cr_expect_eq(rig.replies, n * count, "batch %u: %u", n, rig.replies);
	}
	/* Five publishes are left: what they leave is for control, of which six are left. */
	cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	cr_expect_eq(rig.singles, 2 * count - 3);
	cr_expect_eq(rig.replies, 2 * count - 3 + controls);
	rig_close(&rig);
}

/* limit: INBOX_BYTES_MAX */
Test(engine, the_inbox_has_a_bound_and_what_frees_room_twice_of_it)
{
	const size_t part = (size_t)(LIMIT_INBOX_BYTES_MAX / 4);
	struct rig rig;

	rig_open(&rig, false);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(rig_put_counted(&rig, 10, part - SUBMISSION_BYTES), 0);
	cr_expect_eq(rig_put_counted(&rig, 10, 1), SLUICE_E_BUSY);
	for (int i = 0; i < 16; i++)
		cr_assert_eq(control_counted(&rig, part / 4 - SUBMISSION_BYTES), 0);
	cr_expect_eq(control_counted(&rig, 1), SLUICE_E_BUSY);
	rig_step(&rig);
	cr_expect_eq(rig.replies, 20u);
	cr_expect_eq(rig_put_counted(&rig, 10, 1), 0, "room again");
	rig_close(&rig);
}

Test(engine, a_full_inbox_answers_busy_and_gives_the_command_back)
{
	struct rig rig;
	int rc = 0;

	rig_open(&rig, false);
	for (int i = 0; i < 80 && rc == 0; i++)
		rc = rig_put(&rig, (1u << 20) - 1024);
	cr_expect_eq(rc, SLUICE_E_BUSY);
	rig_step(&rig);
	cr_expect_eq(rig_put(&rig, 10), 0, "room again");
	rig_close(&rig);
}

/* limit: COMMAND_BYTES_MAX, FRAME_BYTES_MAX */
Test(engine, a_command_has_a_bound_and_a_publish_a_wider_one)
{
	struct rig rig;
	struct own *own;

	rig_open(&rig, false);
	own = rig_own(&rig, COMMAND_SESSION_OPEN, 0, 0);
	own->open.timeout_ms = 5000;
	own->submission.bytes = LIMIT_COMMAND_BYTES_MAX + 1;
	cr_expect_eq(engine_submit(rig.engine, &own->submission), SLUICE_E_LIMIT);
	own->submission.bytes = LIMIT_COMMAND_BYTES_MAX;
	cr_assert_eq(engine_submit(rig.engine, &own->submission), 0, "it was given back, and fits");
	cr_expect_eq(rig_put_counted(&rig, 10, LIMIT_FRAME_BYTES_MAX + 1), SLUICE_E_LIMIT);
	cr_expect_eq(rig_put_counted(&rig, 10, LIMIT_FRAME_BYTES_MAX), 0);
	rig_step(&rig);
	cr_expect_eq(rig.replies, 2);
	rig_close(&rig);
}

Test(engine, a_publish_is_delivered_by_its_own_commit_and_never_beyond_credit)
{
	for (int aborts = 0; aborts < 2; aborts++) {
		struct rig rig;
		uint64_t session;

		rig_open(&rig, aborts != 0);
		session = rig_session(&rig);
		rig_consume(&rig, session, 3);
		rig_step(&rig);
		rig.releases = 0;
		for (int i = 0; i < 10; i++)
			cr_assert_eq(rig_put(&rig, 10), 0);
		rig_step(&rig);
		cr_expect_eq(rig.releases, 1, "one commit covers put and grant");
		cr_expect_eq(rig.items, 3);
		cr_assert_eq(engine_consumer_credit(rig.engine, &rig.sink, 7, 4), 0);
		rig_step(&rig);
		cr_expect_eq(rig.items, 7);
		cr_assert_eq(engine_consumer_close(rig.engine, &rig.sink, 7), 0);
		cr_assert_eq(engine_consumer_credit(rig.engine, &rig.sink, 7, 4), 0);
		rig_step(&rig);
		cr_expect_eq(rig.items, 7, "closed");
		rig_close(&rig);
	}
}

/* limit: CREDIT_MAX */
Test(engine, credit_beyond_its_bound_is_cut_and_does_not_wrap)
{
	struct rig rig;

	rig_open(&rig, false);
	rig_consume(&rig, rig_session(&rig), (uint32_t)LIMIT_CREDIT_MAX);
	cr_assert_eq(engine_consumer_credit(rig.engine, &rig.sink, 7,
					    UINT32_MAX - (uint32_t)LIMIT_CREDIT_MAX + 1),
		     0);
	rig_step(&rig);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_expect_eq(rig.items, 3);
	rig_close(&rig);
}

Test(engine, what_a_resume_delivers_again_counts_against_the_credit)
{
	for (int aborts = 0; aborts < 2; aborts++) {
		struct rig rig;
		struct consumer_spec spec = {.gateway = 1,
					     .credit = 3,
					     .claim_flags = CLAIM_RESUME,
					     .tag = 8};

		rig_open(&rig, aborts != 0);
		spec.sink = &rig.sink;
		spec.session = rig_session(&rig);
		spec.queue = rig_dead_letter(&rig);
		rig_consume(&rig, spec.session, 2);
		for (int i = 0; i < 7; i++)
			cr_assert_eq(rig_put(&rig, 10), 0);
		rig_step(&rig);
		cr_assert_eq(rig.items, 2);
		cr_assert_eq(engine_consumer_close(rig.engine, &rig.sink, 7), 0);
		rig_step(&rig);
		rig.items = 0;
		cr_assert_eq(engine_consumer_open(rig.engine, &spec), 0);
		rig_step(&rig);
		cr_expect_eq(rig.items, 3, "the two that it holds, and one more");
		cr_assert_eq(engine_consumer_credit(rig.engine, &rig.sink, 8, 1), 0);
		rig_step(&rig);
		cr_expect_eq(rig.items, 4);
		rig_close(&rig);
	}
}

Test(engine, a_detached_session_expires_and_an_attached_one_does_not)
{
	struct rig rig;
	struct store_txn *txn = NULL;
	struct session_ref ref;
	uint64_t session;

	rig_open(&rig, false);
	session = rig_session(&rig);
	cr_assert_eq(engine_session_attach(rig.engine, 1, session, &rig.sink, 1), 0);
	rig_step(&rig);
	rig.now.mono_ms += 3600000;
	rig_step(&rig);
	cr_assert_eq(store_begin_read(rig.store, &txn), 0);
	cr_expect_eq(core_session_find(txn, 1, session, &ref), 0);
	store_abort(txn);
	cr_assert_eq(engine_session_attach(rig.engine, 1, session, &rig.sink, 2), 0);
	cr_assert_eq(engine_session_detach(rig.engine, 1, session, &rig.sink, 1, 0, true), 0);
	rig_step(&rig);
	cr_expect_eq(rig.kicked, 1, "the older connection is notified");
	rig.now.mono_ms += 6000;
	rig_step(&rig);
	cr_assert_eq(store_begin_read(rig.store, &txn), 0);
	cr_expect_eq(core_session_find(txn, 1, session, &ref), 0,
		     "the end of an older connection does not detach the newer");
	store_abort(txn);
	cr_assert_eq(engine_session_detach(rig.engine, 1, session, &rig.sink, 2, 1000, true), 0);
	rig_step(&rig);
	rig.now.mono_ms += 3999;
	rig_step(&rig);
	cr_assert_eq(store_begin_read(rig.store, &txn), 0);
	cr_expect_eq(core_session_find(txn, 1, session, &ref), 0);
	store_abort(txn);
	rig.now.mono_ms += 2;
	rig_step(&rig);
	cr_assert_eq(store_begin_read(rig.store, &txn), 0);
	cr_expect_eq(core_session_find(txn, 1, session, &ref), SLUICE_E_NOT_FOUND);
	store_abort(txn);
	rig_close(&rig);
}

static struct outcome open_from(struct rig *rig, const char *name, const char *address)
{
	struct own *own = rig_own(rig, COMMAND_SESSION_OPEN, 0, 0);

	own->open = (struct cmd_session_open){.timeout_ms = 30000,
					      .name = {name, strlen(name)},
					      .address = {address, strlen(address)}};
	own->submission.control = true;
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
	rig_step(rig);
	return rig->last;
}

/* limit: SESSIONS_ADDRESS_MAX: each is connected, so that no session is evicted. */
Test(engine, a_client_that_opens_its_name_again_needs_no_room, .timeout = 60)
{
	struct outcome ada, again;
	struct rig rig;

	rig_open(&rig, false);
	ada = open_from(&rig, "ada", "192.0.2.1");
	cr_assert_eq(ada.code, 0);
	cr_assert_eq(engine_session_attach(rig.engine, 1, ada.id, &rig.sink, 1), 0);
	for (uint64_t n = 1; n < LIMIT_SESSIONS_ADDRESS_MAX; n++) {
		struct outcome opened = open_from(&rig, "", "192.0.2.1");

		cr_assert_eq(opened.code, 0);
		cr_assert_eq(engine_session_attach(rig.engine, 1, opened.id, &rig.sink, n + 1), 0);
	}
	cr_expect_eq(open_from(&rig, "", "192.0.2.1").code, SLUICE_E_BUSY);
	cr_expect_eq(open_from(&rig, "eve", "192.0.2.1").code, SLUICE_E_BUSY);
	cr_expect_eq(open_from(&rig, "", "192.0.2.2").code, 0);
	again = open_from(&rig, "ada", "192.0.2.1");
	cr_expect_eq(again.code, 0, "%s", again.text);
	cr_expect_eq(rig.sessions_ended, 1u, "the former session");
	cr_assert_eq(engine_session_attach(rig.engine, 1, again.id, &rig.sink, 1), 0);
	cr_expect_eq(open_from(&rig, "", "192.0.2.1").code, SLUICE_E_BUSY,
		     "and there is no more room");
	rig_close(&rig);
}

Test(engine, sessions_that_end_together_end_in_batches_of_256)
{
	struct rig rig;

	rig_open(&rig, false);
	for (int i = 0; i < 600; i++)
		rig_session(&rig);
	rig.releases = 0;
	rig.now.mono_ms += 6000;
	rig_step(&rig);
	cr_expect_eq(rig.sessions_ended, 600, "all of them, without another call");
	cr_expect_eq(rig.sessions_ended_at_once, 256, "not more in one commit");
	cr_expect_eq(rig.releases, 3);
	rig_close(&rig);
}

static int fail_commit(void *user, const char *operation)
{
	return strcmp(operation, "commit") == 0 ? *(int *)user : 0;
}

Test(engine, a_failed_commit_answers_nobody_and_stops)
{
	struct rig rig;
	int code = SLUICE_E_IO;

	rig_open(&rig, false);
	store_fault_set(rig.store, fail_commit, &code);
	cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_expect_eq(rig.failed, SLUICE_E_IO);
	cr_expect_eq(rig.replies, 0, "its outcome is unknown");
	store_fault_set(rig.store, NULL, NULL);
	cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_expect_eq(rig.replies, 0, "and nothing more is acknowledged");
	rig_close(&rig);
}

static unsigned commits_tried;

static int corrupt_commit(void *user, const char *operation)
{
	(void)user;
	if (strcmp(operation, "commit") != 0)
		return 0;
	commits_tried++;
	return SLUICE_E_CORRUPT;
}

/* Damage refuses one command, but only before the commit: then the batch may be what others have.
 */
Test(engine, a_commit_that_meets_damage_refuses_nothing_and_stops)
{
	struct rig rig;

	rig_open(&rig, false);
	commits_tried = 0;
	store_fault_set(rig.store, corrupt_commit, NULL);
	cr_assert_eq(rig_put(&rig, 10), 0);
	cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_expect_eq(rig.failed, SLUICE_E_CORRUPT);
	cr_expect_eq(rig.replies, 0);
	cr_expect_eq(commits_tried, 1, "it is not run again");
	rig_close(&rig);
}

static int no_space_once(void *user, const char *operation)
{
	int *left = user;

	return strcmp(operation, "commit") == 0 && (*left)-- > 0 ? SLUICE_E_NO_SPACE : 0;
}

Test(engine, without_space_publishes_are_refused_and_other_commands_are_not)
{
	struct rig rig;
	int left = 1;

	rig_open(&rig, false);
	store_fault_set(rig.store, no_space_once, &left);
	cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_expect_eq(rig.failed, 0);
	cr_expect_eq(rig.replies, 1);
	cr_expect_eq(rig.last.code, SLUICE_E_NO_SPACE);
	cr_expect_neq(rig_session(&rig), 0, "other commands are accepted");
	rig_close(&rig);
}

/* ---- refusals in their place ---- */

enum { ORDER_COMMANDS = 9 };
static struct {
	size_t count;
	uint64_t tags[ORDER_COMMANDS];
	int codes[ORDER_COMMANDS];
} order;

static void order_post(struct engine_sink *sink, struct engine_release *release)
{
	for (size_t i = 0; i < effects_count(release->effects); i++) {
		const struct effect *effect = effects_at(release->effects, i);

		if (effect->kind != FX_REPLY)
			continue;
		cr_assert_lt(order.count, (size_t)ORDER_COMMANDS);
		order.codes[order.count] = effect->outcome->code;
		order.tags[order.count++] = release->origins[effect->command].tag;
	}
	engine_release_done(((struct rig *)sink)->engine, sink, release);
}

/* Every third is of a type that no command has. */
static void order_check(bool abort_every_batch)
{
	struct rig rig;

	memset(&order, 0, sizeof(order));
	rig_open(&rig, abort_every_batch);
	rig.sink.post = order_post;
	for (uint64_t i = 0; i < ORDER_COMMANDS; i++) {
		struct own *own =
			rig_own(&rig, i % 3 == 0 ? UINT16_MAX : COMMAND_SESSION_OPEN, 0, 0);

		own->open.timeout_ms = 5000;
		own->submission.tag = i;
		cr_assert_eq(engine_submit(rig.engine, &own->submission), 0);
	}
	rig_step(&rig);
	cr_expect_eq(order.count, (size_t)ORDER_COMMANDS);
	for (uint64_t i = 0; i < ORDER_COMMANDS; i++) {
		cr_expect_eq(order.tags[i], i);
		cr_expect_eq(order.codes[i], i % 3 == 0 ? SLUICE_E_UNKNOWN_TYPE : 0);
	}
	rig_close(&rig);
}

Test(engine, a_refusal_is_answered_in_its_place)
{
	order_check(false);
	order_check(true);
}

/* DESIGN 5.3, on a map that a few commits fill, so that periodic checks come too late: commands
 * that free room keep the reserve. */
Test(engine, publishes_leave_the_reserve_and_acks_continue, .timeout = 60)
{
	struct store_options options = {.create = true, .map_bytes = 64u << 20};
	const uint64_t reserve = options.map_bytes / 20;
	char dir[] = "/tmp/sluice-engine-XXXXXX", command[64];
	struct store_room room;
	struct rig rig;
	uint64_t session;
	unsigned taken = 0, rounds = 0;

	memset(&rig, 0, sizeof(rig));
	cr_assert_not_null(mkdtemp(dir));
	cr_assert_eq(store_open_lmdb(dir, &options, &rig.store, NULL), 0);
	rig_start(&rig, false);
	session = rig_session(&rig);
	/* Time stands still: the fill is never checked again, only the room is. */
	do {
		cr_assert_eq(rig_put(&rig, 300000), 0);
		rig_step(&rig);
		taken += rig.last.code == 0;
	} while (rig.last.code == 0 && ++rounds < 1000);
	cr_expect_eq(rig.last.code, SLUICE_E_NO_SPACE);
	cr_expect_gt(taken, 100, "most of the map is used");
	cr_expect_eq(rig.failed, 0, "it is refused, not stopped");
	cr_expect_neq(store_reserve_disk(rig.store, options.map_bytes, &room), 0,
		      "it is all of the map");
	cr_expect_geq(room.ahead_bytes + room.inside_bytes, reserve / 2, "%llu ahead, %llu inside",
		      (unsigned long long)room.ahead_bytes, (unsigned long long)room.inside_bytes);
	rig.now.mono_ms += 1000;
	rig_consume(&rig, session, 100);
	rig_step(&rig);
	cr_expect_gt(rig.items, 50, "and deliveries");
	engine_destroy(rig.engine);
	store_close(rig.store);
	(void)snprintf(command, sizeof(command), "rm -r %s", dir);
	cr_expect_eq(system(command), 0);
}

Test(engine, a_publish_as_large_as_a_batch_does_not_wait_for_the_control_lane_to_be_empty)
{
	struct rig rig;
	struct own *own;
	uint64_t wait = 0;

	rig_open(&rig, false);
	cr_assert_eq(rig_put_counted(&rig, 10, LIMIT_FRAME_BYTES_MAX), 0);
	own = rig_own(&rig, COMMAND_SESSION_OPEN, 0, 0);
	own->open.timeout_ms = 10000;
	own->submission.control = true;
	cr_assert_eq(engine_submit(rig.engine, &own->submission), 0);
	cr_assert_eq(engine_step(rig.engine, rig.now, &wait), 0);
	cr_expect_eq(rig.replies, 2,
		     "control commands that keep coming would hold it, and all publishes behind "
		     "it, for ever");
	rig_close(&rig);
}

/* A delayed item whose record cannot be read, due at once. */
static void damage(struct rig *rig, uint64_t queue, uint64_t seq)
{
	struct store_txn *txn = NULL;
	struct key key;

	cr_assert_eq(store_begin(rig->store, &txn), 0);
	key_two(&key, 1, queue, seq);
	cr_assert_eq(store_put(txn, STORE_ITEM, key_slice(&key), (struct sluice_slice){"?", 1}), 0);
	key_timer(&key, 1, 1, TIMER_ITEM_DUE, queue, seq);
	cr_assert_eq(store_put(txn, STORE_TIMER, key_slice(&key), (struct sluice_slice){NULL, 0}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
}

/* Of delayed items, from now to in_ms. */
/* Items that are claimed for a connection that its session has left would not be received, and the
 * session would hold them without knowing. */
Test(engine, nothing_is_claimed_for_consumers_of_a_connection_that_was_taken_over)
{
	struct rig rig;
	uint64_t session;

	rig_open(&rig, false);
	session = rig_session(&rig);
	cr_assert_eq(engine_session_attach(rig.engine, 1, session, &rig.sink, 1), 0);
	rig_consume(&rig, session, 2);
	rig_step(&rig);
	cr_assert_eq(engine_session_attach(rig.engine, 1, session, &rig.sink, 2), 0);
	rig_step(&rig);
	cr_assert_eq(rig.kicked, 1);
	cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_expect_eq(rig.items, 0);
	rig_consume(&rig, session, 2);
	rig_step(&rig);
	cr_expect_eq(rig.items, 1, "a consumer of the new one is given it");
	rig_close(&rig);
}

static size_t timers_due(struct rig *rig, uint64_t in_ms)
{
	struct batch_clock now;
	struct store_txn *txn = NULL;
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct timer_key timer;
	struct key key;
	size_t count = 0;

	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(core_clock_read(txn, &now), 0);
	key_begin(&key, 1);
	cr_assert_eq(store_scan_begin(txn, STORE_TIMER, key_slice(&key), &scan), 0);
	while (store_scan_next(scan, &found, &value) == 0)
		count += key_timer_decode(found, &timer) && timer.kind == TIMER_ITEM_DUE &&
			 timer.due_mono_ms <= now.mono_ms + in_ms;
	store_scan_end(scan);
	store_abort(txn);
	return count;
}

Test(engine, timers_that_meet_damaged_records_are_put_off_and_the_others_fire, .timeout = 10)
{
	struct rig rig;
	uint64_t session;

	rig_open(&rig, false);
	session = rig_session(&rig);
	cr_assert_eq(engine_session_attach(rig.engine, 1, session, &rig.sink, 1), 0);
	rig_consume(&rig, session, 2);
	cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_assert_eq(rig.items, 1);
	for (uint64_t seq = 1000; seq < 1010; seq++)
		damage(&rig, rig_dead_letter(&rig), seq);
	rig.now.mono_ms += 60000;
	rig_step(&rig);
	cr_expect_eq(rig.failed, 0);
	cr_expect_eq(rig.items, 2, "the lease that ended has no damage");
	cr_expect_eq(timers_due(&rig, 0), 0);
	cr_expect_eq(timers_due(&rig, 60000), 10, "ten are put off");
	rig.now.mono_ms += 60000;
	rig_step(&rig);
	cr_expect_eq(rig.failed, 0, "they are tried again, and put off again");
	cr_expect_eq(timers_due(&rig, 0), 0);
	rig_close(&rig);
}

Test(engine, a_tick_that_is_undone_with_its_batch_is_still_due, .timeout = 10)
{
	struct rig rig;
	uint64_t session;

	rig_open(&rig, true);
	session = rig_session(&rig);
	cr_assert_eq(engine_session_attach(rig.engine, 1, session, &rig.sink, 1), 0);
	rig_consume(&rig, session, 2);
	cr_assert_eq(rig_put(&rig, 10), 0);
	rig_step(&rig);
	cr_assert_eq(rig.items, 1);
	rig.now.mono_ms += 60000;
	rig_step(&rig);
	cr_expect_eq(rig.items, 2, "its lease ended, and there is credit for it again");
	rig_close(&rig);
}

/* The claim passes by the item and succeeds; without damage it would do something else. */
Test(engine, a_commit_that_met_damage_is_counted)
{
	for (int again = 0; again < 2; again++) {
		struct engine_facts facts;
		struct rig rig;
		uint64_t session;

		rig_open(&rig, again == 1);
		session = rig_session(&rig);
		cr_assert_eq(rig_put(&rig, 10), 0);
		cr_assert_eq(rig_put(&rig, 10), 0);
		rig_step(&rig);
		engine_facts_get(rig.engine, &facts);
		cr_expect_eq(facts.commits_damaged, 0);
		damage(&rig, rig_dead_letter(&rig), 1);
		rig_consume(&rig, session, 2);
		rig_step(&rig);
		cr_expect_eq(rig.items, 1, "the other one");
		engine_facts_get(rig.engine, &facts);
		cr_expect_eq(facts.commits_damaged, 1);
		cr_assert_eq(rig_put(&rig, 10), 0);
		rig_step(&rig);
		engine_facts_get(rig.engine, &facts);
		cr_expect_eq(facts.commits_damaged, 1, "the next one met none");
		rig_close(&rig);
	}
}

struct bad_put {
	int after; /* puts that succeed before the failure */
	bool met;
};

static int corrupt_put_once(void *user, const char *operation)
{
	struct bad_put *bad = user;

	if (strcmp(operation, "put") != 0 || bad->met || bad->after-- > 0)
		return 0;
	bad->met = true;
	return SLUICE_E_CORRUPT;
}

/* If a CLAIM reads a damaged record, core refuses it; if any of its writes meets one, the batch is
 * aborted. The first write of a batch is its clock. */
Test(engine, a_consumer_whose_claim_cannot_be_written_is_ended_and_the_batch_continues)
{
	for (int after = 1;; after++) {
		struct bad_put bad = {.after = after};
		struct rig rig;
		uint64_t session;

		rig_open(&rig, false);
		session = rig_session(&rig);
		cr_assert_eq(rig_put(&rig, 10), 0);
		rig_step(&rig);
		rig_consume(&rig, session, 2);
		store_fault_set(rig.store, corrupt_put_once, &bad);
		rig_step(&rig);
		cr_assert_eq(rig.failed, 0, "after %d puts", after);
		if (!bad.met) {
			cr_expect_gt(after, 3, "index, lease, timer");
			cr_expect_eq(rig.items, 1);
			rig_close(&rig);
			return;
		}
		cr_expect_eq(rig.ended, 1, "reported once, after %d puts", after);
		cr_expect_eq(rig.items, 0);
		cr_assert_eq(rig_put(&rig, 10), 0);
		rig_step(&rig);
		cr_expect_eq(rig.ended, 1);
		cr_expect_eq(rig.items, 0, "it is closed");
		rig_consume(&rig, session, 2);
		rig_step(&rig);
		cr_expect_eq(rig.items, 2, "the queue is not");
		rig_close(&rig);
	}
}

/* The releases hold what claims deliver until every thread has handled it. */
Test(engine, submitted_claims_deliver_a_bounded_amount_per_commit)
{
	enum { ITEMS = 40, PER_COMMIT = 17 };
	struct cmd_claim claim = {.max = 1};
	struct rig rig;
	uint64_t session;
	unsigned before;

	for (int abort = 0; abort < 2; abort++) {
		rig_open(&rig, abort != 0);
		session = rig_session(&rig);
		for (int i = 0; i < ITEMS; i++) {
			cr_assert_eq(rig_put(&rig, (1 << 20) - 256), 0);
			rig_step(&rig);
		}
		claim.queue = rig_dead_letter(&rig);
		before = rig.releases;
		for (int i = 0; i < ITEMS; i++)
			rig_send(&rig, COMMAND_CLAIM, session, &claim);
		rig_step(&rig);
		cr_expect_eq(rig.items, ITEMS);
		cr_expect_eq(rig.releases - before, (ITEMS + PER_COMMIT - 1) / PER_COMMIT);
		rig_close(&rig);
	}
}
