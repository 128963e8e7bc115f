/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine with wrong clocks: a wall clock that jumps ahead or back, at a start or while the
 * engine runs, deletes nothing too early and keeps nothing without an end. Streams, jobs,
 * producers, delayed items.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/base/apply.h"
#include "broker/core/base/keys.h"
#include "broker/core/job/live.h"
#include "broker/engine/engine.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

static const uint64_t second = 1000, minute = 60000, hour = 3600000, day = 86400000,
		      year = 31536000000;

struct rig {
	struct engine_sink sink; /* first */
	struct store *store;
	struct engine *engine;
	struct batch_clock now;
	uint64_t boot_id;
	struct outcome last;
};

static void on_post(struct engine_sink *sink, struct engine_release *release)
{
	struct rig *rig = (struct rig *)sink;

	for (size_t i = 0; i < effects_count(release->effects); i++) {
		const struct effect *effect = effects_at(release->effects, i);

		if (effect->kind == FX_REPLY &&
		    release->origins[effect->command].kind == ORIGIN_REQUEST)
			rig->last = *effect->outcome;
	}
	engine_release_done(rig->engine, sink, release);
}

static void on_kick(struct engine_sink *sink, uint64_t tag)
{
	(void)sink;
	(void)tag;
}

static void on_fail(void *user, int code, const char *text)
{
	(void)user;
	cr_assert_fail("the engine stopped: %d, %s", code, text);
}

static void step(struct rig *rig)
{
	uint64_t wait = 0;

	while (wait == 0)
		cr_assert_eq(engine_step(rig->engine, rig->now, &wait), 0);
}

/* Advances both clocks in steps, and drives the engine after each. */
static void pass(struct rig *rig, uint64_t ms)
{
	uint64_t part = ms / 20 + 1;

	for (uint64_t done = 0; done < ms; done += part) {
		if (part > ms - done)
			part = ms - done;
		rig->now.mono_ms += part;
		rig->now.wall_ms += part;
		step(rig);
	}
}

static void start(struct rig *rig)
{
	struct engine_config config = {.fail_stop = on_fail, .user = rig, .boot_id = rig->boot_id};

	cr_assert_eq(engine_create(&config, rig->store, rig->now, &rig->engine), 0);
	cr_assert_eq(engine_sink_add(rig->engine, &rig->sink), 0);
	step(rig);
}

static void stop(struct rig *rig)
{
	engine_destroy(rig->engine);
	rig->engine = NULL;
}

/* The machine boots: the monotone clock starts again, and the wall clock has the given time. */
static void reboot(struct rig *rig, uint64_t wall_ms)
{
	if (rig->engine != NULL)
		stop(rig);
	rig->boot_id++;
	rig->now = (struct batch_clock){5000, wall_ms};
	start(rig);
}

struct own {
	struct submission submission;
	union {
		struct frame_publish publish;
		Sluice__StreamCreate stream_create;
		Sluice__QueueCreate queue_create;
		Sluice__JobSubmit submit;
		Sluice__JobCancel cancel;
		Sluice__ProducerOpen producer;
		Sluice__JobRelease release;
		struct cmd_session_open session;
		struct cmd_claim claim;
	};
	Sluice__StreamConfig stream;
	Sluice__QueueConfig queue;
	char *subjects[1];
	uint8_t bytes[256];
};

static void own_free(struct submission *submission)
{
	free(submission);
}

static struct own *own_new(struct rig *rig, uint16_t type)
{
	struct own *own = calloc(1, sizeof(*own));

	cr_assert_not_null(own);
	own->submission.command =
		(struct command){.type = type, .gateway = 1, .random = 7, .body = &own->publish};
	own->submission.bytes = sizeof(*own);
	own->submission.sink = &rig->sink;
	own->submission.destroy = own_free;
	return own;
}

static void run(struct rig *rig, struct own *own)
{
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
	step(rig);
	cr_assert_eq(rig->last.code, 0, "%s", rig->last.text);
}

static void publish(struct rig *rig)
{
	struct own *own = own_new(rig, COMMAND_PUBLISH);
	struct envelope envelope = {.body = {"x", 1}};

	own->publish.target_kind = PUBLISH_TO_SUBJECT;
	own->publish.count = 1;
	own->publish.subject = slice_text("ev.a");
	own->publish.payload =
		(struct sluice_slice){own->bytes, envelope_encode(own->bytes, &envelope)};
	own->publish.raw_bytes = (uint32_t)own->publish.payload.len;
	run(rig, own);
}

static void stream_create(struct rig *rig, uint64_t max_age_ms)
{
	static char name[] = "s", subject[] = "ev.>";
	struct own *own = own_new(rig, COMMAND_STREAM_CREATE);

	sluice__stream_create__init(&own->stream_create);
	sluice__stream_config__init(&own->stream);
	own->stream.name = name;
	own->stream.max_age_ms = max_age_ms;
	own->subjects[0] = subject;
	own->stream.subjects = own->subjects;
	own->stream.n_subjects = 1;
	own->stream_create.config = &own->stream;
	run(rig, own);
}

static uint64_t events(struct rig *rig)
{
	struct store_txn *txn = NULL;
	struct stream_ref ref;

	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(core_stream_find(txn, 1, slice_text("s"), &ref), 0);
	store_abort(txn);
	return ref.next_offset - ref.first_offset;
}

static void job_that_has_ended(struct rig *rig)
{
	static char queue[] = "runs", id[] = "j";
	struct own *own = own_new(rig, COMMAND_QUEUE_CREATE);

	sluice__queue_create__init(&own->queue_create);
	sluice__queue_config__init(&own->queue);
	own->queue.name = queue;
	own->queue.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	own->queue_create.config = &own->queue;
	run(rig, own);
	own = own_new(rig, COMMAND_JOB_SUBMIT);
	sluice__job_submit__init(&own->submit);
	own->submit.job = id;
	own->submit.queue = queue;
	run(rig, own);
	own = own_new(rig, COMMAND_JOB_CANCEL);
	sluice__job_cancel__init(&own->cancel);
	own->cancel.job = id;
	run(rig, own);
}

/* A job that its holder released, to be ready after that delay. */
static void job_that_waits(struct rig *rig, uint32_t delay_ms)
{
	static char queue[] = "runs", id[] = "later";
	struct own *own = own_new(rig, COMMAND_JOB_SUBMIT);
	struct queue_ref ref;
	struct store_txn *txn;
	uint64_t session;

	sluice__job_submit__init(&own->submit);
	own->submit.job = id;
	own->submit.queue = queue;
	run(rig, own);
	own = own_new(rig, COMMAND_SESSION_OPEN);
	own->session = (struct cmd_session_open){.timeout_ms = 30000};
	run(rig, own);
	session = rig->last.id;
	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(core_queue_find(txn, 1, slice_text(queue), &ref), 0);
	store_abort(txn);
	own = own_new(rig, COMMAND_CLAIM);
	own->submission.command.session = session;
	own->claim = (struct cmd_claim){.queue = ref.id, .max = 1};
	run(rig, own);
	own = own_new(rig, COMMAND_JOB_RELEASE);
	own->submission.command.session = session;
	sluice__job_release__init(&own->release);
	own->release.job = id;
	own->release.token = rig->last.index;
	own->release.delay_ms = delay_ms;
	run(rig, own);
}

/* The claim of the job with that number, as a read shows it; the audit must report nothing. */
static const char *claim_of(struct rig *rig, uint64_t number)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__Audit audit = SLUICE__AUDIT__INIT;
	struct query_clock clock = {0, rig->now.wall_ms};
	struct batch_clock last;
	struct store_txn *txn;
	struct job_live live;
	Sluice__Reply *reply;
	uint8_t *packed;
	size_t bytes;

	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(job_live_get(txn, 1, number, &live), 0);
	cr_assert_eq(core_clock_read(txn, &last), 0);
	clock.mono_ms = last.mono_ms;
	request.op_case = SLUICE__REQUEST__OP_AUDIT;
	request.audit = &audit;
	cr_assert_eq(core_query(txn, 1, clock, &request, &packed, &bytes), 0);
	store_abort(txn);
	reply = sluice__reply__unpack(NULL, bytes, packed);
	cr_assert_not_null(reply);
	cr_expect_eq(reply->audited->n_findings, 0, "%s",
		     reply->audited->n_findings > 0 ? reply->audited->findings[0] : "");
	sluice__reply__free_unpacked(reply, NULL);
	free(packed);
	return job_claim_name(live.claim);
}

static void producer_open(struct rig *rig)
{
	struct own *own = own_new(rig, COMMAND_PRODUCER_OPEN);

	sluice__producer_open__init(&own->producer);
	run(rig, own);
}

static uint64_t records(struct rig *rig, enum store_table table, uint8_t hot_kind)
{
	struct sluice_slice key, value;
	struct store_txn *txn = NULL;
	struct store_scan *scan;
	struct hot_key hot;
	uint64_t count = 0;

	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(store_scan_begin(txn, table, (struct sluice_slice){"", 0}, &scan), 0);
	while (store_scan_next(scan, &key, &value) == 0)
		count += table != STORE_HOT || (key_hot_decode(key, &hot) && hot.kind == hot_kind);
	store_scan_end(scan);
	store_abort(txn);
	return count;
}

static uint64_t jobs(struct rig *rig)
{
	return records(rig, STORE_JOB, 0);
}

static uint64_t producers(struct rig *rig)
{
	return records(rig, STORE_HOT, HOT_PRODUCER);
}

/* One event that is kept for a week, a job that has ended, a producer. */
static void open_with(struct rig *rig, uint64_t wall_ms, uint64_t max_age_ms)
{
	struct store_options options = {.create = true};

	memset(rig, 0, sizeof(*rig));
	rig->sink.post = on_post;
	rig->sink.kick = on_kick;
	rig->boot_id = 100;
	rig->now = (struct batch_clock){7777, wall_ms};
	cr_assert_eq(store_open_mem(&options, &rig->store), 0);
	start(rig);
	stream_create(rig, max_age_ms);
	publish(rig);
	job_that_has_ended(rig);
	producer_open(rig);
	pass(rig, minute);
}

static void close(struct rig *rig)
{
	stop(rig);
	store_close(rig->store);
}

static void expect_all(struct rig *rig, uint64_t wanted_events, const char *when)
{
	cr_expect_eq(events(rig), wanted_events, "%s: events", when);
	cr_expect_eq(jobs(rig), 1, "%s: jobs", when);
	cr_expect_eq(producers(rig), 1, "%s: producers", when);
}

#define WALL (1750000000000u)

/* One event, and another after a start with this clock. */
static void open_and_start_at(struct rig *rig, uint64_t wall_ms)
{
	open_with(rig, WALL, 7 * day);
	reboot(rig, wall_ms);
	publish(rig);
}

/* Retention deletes all `count` of them a week after they were put. */
static void expect_gone_in_time(struct rig *rig, uint64_t count)
{
	pass(rig, 6 * day);
	cr_expect_eq(events(rig), count, "too early");
	pass(rig, day);
	cr_expect_eq(events(rig), 0, "and they are deleted after a week");
	close(rig);
}

Test(engine_clock, a_start_with_a_clock_ahead_by_years_forgets_nothing)
{
	struct rig rig;

	open_and_start_at(&rig, WALL + 20 * year);
	pass(&rig, 10 * minute);
	expect_all(&rig, 2, "while it is ahead");
	reboot(&rig, WALL + 20 * minute);
	pass(&rig, 2 * hour);
	expect_all(&rig, 2, "when it is right again");
	publish(&rig);
	expect_gone_in_time(&rig, 3);
}

/* Corrected while it runs, for example by an NTP client. */
Test(engine_clock, a_clock_that_is_put_right_soon_after_the_start_forgets_nothing)
{
	struct rig rig;

	open_and_start_at(&rig, WALL + 20 * year);
	pass(&rig, 5 * minute);
	rig.now.wall_ms -= 20 * year;
	pass(&rig, hour);
	expect_all(&rig, 2, "corrected");
	expect_gone_in_time(&rig, 2);
}

Test(engine_clock, a_long_absence_is_believed_once_the_clock_has_stood)
{
	struct rig rig;

	open_and_start_at(&rig, WALL + 8 * day);
	pass(&rig, 10 * minute);
	expect_all(&rig, 2, "in doubt");
	pass(&rig, 10 * minute);
	cr_expect_eq(events(&rig), 1, "events older than a week are deleted, newer ones are not");
	cr_expect_eq(producers(&rig), 0, "so is the idle producer");
	close(&rig);
}

Test(engine_clock, a_clock_stands_over_starts_too)
{
	struct rig rig;
	uint64_t wall = WALL + 8 * day;

	open_with(&rig, WALL, 7 * day);
	for (int i = 0; i < 4; i++) {
		reboot(&rig, wall);
		cr_expect_eq(events(&rig), 1, "start %d", i);
		pass(&rig, 5 * minute);
		wall += hour;
	}
	reboot(&rig, wall);
	pass(&rig, minute);
	cr_expect_eq(events(&rig), 0);
	close(&rig);
}

Test(engine_clock, a_released_job_waits_for_its_delay_whatever_the_clock_at_a_start)
{
	struct rig rig;

	open_with(&rig, WALL, 7 * day);
	job_that_waits(&rig, (uint32_t)(6 * hour));
	reboot(&rig, WALL + 20 * year);
	pass(&rig, 5 * minute);
	cr_expect_str_eq(claim_of(&rig, 2), "gated", "in doubt");
	rig.now.wall_ms -= 20 * year;
	pass(&rig, 10 * minute);
	cr_expect_str_eq(claim_of(&rig, 2), "gated", "corrected");
	pass(&rig, 5 * hour);
	cr_expect_str_eq(claim_of(&rig, 2), "gated", "before its time");
	pass(&rig, hour);
	cr_expect_str_eq(claim_of(&rig, 2), "ready", "in its time");
	close(&rig);
	open_with(&rig, WALL, 7 * day);
	job_that_waits(&rig, (uint32_t)(6 * hour));
	reboot(&rig, WALL + 8 * day);
	pass(&rig, 10 * minute);
	cr_expect_str_eq(claim_of(&rig, 2), "gated", "in doubt");
	pass(&rig, 10 * minute);
	cr_expect_str_eq(claim_of(&rig, 2), "ready",
			 "the clock has stood: the broker was down for that time");
	close(&rig);
}

/* While the machine runs its monotone clock says how long the broker was away. */
Test(engine_clock, a_start_within_the_machines_boot_does_not_ask_the_wall_clock)
{
	static const int64_t jumps[] = {20, -20};

	for (size_t i = 0; i < 2; i++) {
		struct rig rig;

		open_with(&rig, WALL, 7 * day);
		stop(&rig);
		rig.now.mono_ms += 2 * minute;
		rig.now.wall_ms += (uint64_t)(jumps[i] * (int64_t)year);
		start(&rig);
		pass(&rig, hour);
		expect_all(&rig, 1, "after a jump");
		stop(&rig);
		rig.now.mono_ms += 8 * day;
		start(&rig);
		pass(&rig, minute);
		cr_expect_eq(events(&rig), 0, "what the monotone clock says is believed at once");
		close(&rig);
	}
}

Test(engine_clock, a_jump_while_it_runs_forgets_nothing_and_holds_nothing)
{
	static const int64_t jumps[] = {20, -20};

	for (size_t i = 0; i < 2; i++) {
		struct rig rig;

		open_with(&rig, WALL, 7 * day);
		rig.now.wall_ms += (uint64_t)(jumps[i] * (int64_t)year);
		publish(&rig);
		pass(&rig, 3 * hour);
		expect_all(&rig, 2, "while it is wrong");
		rig.now.wall_ms -= (uint64_t)(jumps[i] * (int64_t)year);
		pass(&rig, 3 * hour);
		expect_all(&rig, 2, "when it is right again");
		pass(&rig, 7 * day);
		cr_expect_eq(events(&rig), 0, "they are deleted when they are due");
		close(&rig);
	}
}

/* limit: CLOCK_TRUST_MS */
Test(engine_clock, an_absence_within_the_bound_is_believed_at_once)
{
	for (uint64_t more = 0; more < 2; more++) {
		struct rig rig;

		open_with(&rig, WALL, 10 * minute);
		/* The last commit was a minute and some parts of one ago: the bound is met from a
		 * fresh one. */
		publish(&rig);
		reboot(&rig, rig.now.wall_ms + LIMIT_CLOCK_TRUST_MS + more);
		pass(&rig, second);
		cr_expect_eq(events(&rig), more == 0 ? 0 : 2, "%d beyond", (int)more);
		close(&rig);
	}
}

/* limit: CLOCK_STAND_MS */
Test(engine_clock, the_clock_has_to_stand_for_its_time)
{
	struct rig rig;

	open_with(&rig, WALL, 7 * day);
	reboot(&rig, WALL + 8 * day);
	rig.now.mono_ms += LIMIT_CLOCK_STAND_MS - 1;
	rig.now.wall_ms += LIMIT_CLOCK_STAND_MS - 1;
	publish(&rig);
	cr_expect_eq(events(&rig), 2);
	rig.now.mono_ms += 2;
	rig.now.wall_ms += 2;
	publish(&rig);
	pass(&rig, second);
	cr_expect_eq(events(&rig), 2, "the first is deleted");
	close(&rig);
}

/* The first start ever has a clock behind by decades, the next one a right one. */
Test(engine_clock, a_first_start_in_the_past_forgets_nothing_at_once)
{
	struct rig rig;

	open_with(&rig, WALL - 50 * year, 7 * day);
	reboot(&rig, WALL);
	publish(&rig);
	pass(&rig, 10 * minute);
	expect_all(&rig, 2, "in doubt");
	close(&rig);
}
