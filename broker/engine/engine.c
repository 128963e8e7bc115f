/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's loop: handle notes, choose a batch, run it, read the next deadline, wait. Idle, one
 * command costs one commit; no timer waits for more commands.
 */
#include "broker/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/engine/engine_internal.h"
#include "broker/engine/lag.h"
#include "broker/engine/lead.h"
#include "broker/engine/release.h"
#include "broker/util/clock.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "protocol/limits.h"

static uint64_t durable_mono(struct engine *engine, uint64_t process_mono_ms)
{
	uint64_t mono = (uint64_t)((int64_t)process_mono_ms + atomic_load(&engine->mono_offset_ms));

	if (mono < engine->mono_last_ms)
		mono = engine->mono_last_ms;
	engine->mono_last_ms = mono;
	return mono;
}

/* For the sessions, in this round. */
static void time_set(struct engine *engine, struct batch_clock durable, struct batch_clock process)
{
	engine->stopped_ms = run_clock_check(&engine->run_clock, process.mono_ms);
	engine->live_ms = durable.mono_ms - engine->stopped_ms;
}

static struct batch_clock process_clock(void)
{
	return (struct batch_clock){clock_mono_ns() / 1000000, (uint64_t)clock_wall_ms()};
}

/* ---- open, lead ---- */

static void headroom_report(struct engine *engine, enum headroom_state before,
			    const struct store_facts *facts)
{
	enum headroom_state now = headroom_state(&engine->gate);

	atomic_store(&engine->headroom_now, (int)now);
	if (now != HEADROOM_OK || now != before) {
		(void)pthread_mutex_lock(&engine->headroom_lock);
		memcpy(engine->headroom_why, engine->gate.why, sizeof(engine->headroom_why));
		if (now == HEADROOM_OK)
			engine->headroom_why[0] = 0;
		(void)pthread_mutex_unlock(&engine->headroom_lock);
	}
	if (now == before)
		return;
	log_line(now == HEADROOM_OK ? LOG_LEVEL_INFO : LOG_LEVEL_WARN,
		 log_id("engine.headroom",
			now == HEADROOM_OK ? "there is room again" : "the store is filling up"),
		 log_u64("used_bytes", facts->used_bytes), log_u64("map_bytes", facts->map_bytes),
		 log_u64("disk_free_bytes", facts->disk_free_bytes),
		 log_u64("ahead_bytes", facts->ahead_bytes),
		 log_u64("reserve_bytes", engine->gate.reserve_bytes),
		 log_str("why", now == HEADROOM_OK ? "" : engine->gate.why));
}

static int store_check(struct store *store)
{
	struct store_txn *txn = NULL;
	int rc = store_begin_read(store, &txn);

	if (rc == 0)
		rc = core_store_check(txn);
	store_abort(txn);
	return rc;
}

int engine_open(const struct engine_config *config, struct store *store, struct engine **ret)
{
	struct engine *engine = calloc(1, sizeof(*engine));
	int rc;

	if (engine == NULL)
		return SLUICE_E_NOMEM;
	engine->config = *config;
	if (engine->config.batch_bytes_max == 0)
		engine->config.batch_bytes_max = LIMIT_ENGINE_BATCH_BYTES_MAX;
	if (engine->config.inbox_bytes_max == 0)
		engine->config.inbox_bytes_max = LIMIT_INBOX_BYTES_MAX;
	if (engine->config.tick_work_max == 0)
		engine->config.tick_work_max = 1000;
	if (engine->config.claims_max == 0)
		engine->config.claims_max = 4096;
	engine->store = store;
	engine->headroom_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
	engine->next_deadline_ms = UINT64_MAX;
	engine->heartbeats.next_ms = UINT64_MAX;
	run_clock_init(&engine->run_clock);
	demand_init(&engine->demand);
	taken_init(&engine->taken);
	shares_init(&engine->shares);
	rc = inbox_init(&engine->inbox, engine->config.inbox_bytes_max);
	if (rc != 0) {
		run_clock_fini(&engine->run_clock);
		free(engine);
		return rc;
	}
	rc = core_create(&engine->core);
	if (rc == 0)
		rc = store_check(store);
	if (rc != 0) {
		engine_destroy(engine);
		return rc;
	}
	*ret = engine;
	return 0;
}

int engine_lead(struct engine *engine, struct batch_clock now, const struct cmd_boot *boot)
{
	struct batch_clock clock;
	struct store_facts facts;
	struct store_room room;
	int rc;

	invariant(engine->role == ENGINE_OPEN, "an engine takes the lead in role %d",
		  (int)engine->role);
	atomic_store(&engine->mono_offset_ms, (int64_t)boot->offset_ms);
	clock = (struct batch_clock){durable_mono(engine, now.mono_ms), now.wall_ms};
	time_set(engine, clock, now);
	rc = lead_commit(engine, clock, boot);
	if (rc != 0)
		return rc;
	store_facts_get(engine->store, &facts);
	headroom_init(&engine->gate, &engine->config, facts.map_bytes);
	rc = headroom_room_ensure(engine, 0, &room);
	if (rc != 0)
		return rc;
	headroom_update(&engine->gate, &facts);
	headroom_report(engine, HEADROOM_OK, &facts);
	engine->role = ENGINE_LEADS;
	return 0;
}

static int own_clock(const struct engine *engine, struct batch_clock now, struct cmd_boot *ret)
{
	struct store_txn *txn = NULL;
	int rc = store_begin_read(engine->store, &txn);

	if (rc == 0)
		rc = core_boot_clock(txn, now, engine->config.boot_id, ret);
	store_abort(txn);
	return rc;
}

int engine_create(const struct engine_config *config, struct store *store, struct batch_clock now,
		  struct engine **ret)
{
	struct cmd_boot boot;
	int rc = engine_open(config, store, ret);

	if (rc != 0)
		return rc;
	rc = own_clock(*ret, now, &boot);
	if (rc == 0)
		rc = engine_lead(*ret, now, &boot);
	if (rc != 0) {
		engine_destroy(*ret);
		*ret = NULL;
	}
	return rc;
}

static void taken_drop(struct taken *taken)
{
	struct submission *submission;
	struct note *note;

	while ((submission = lane_pop(&taken->control)) != NULL)
		submission->destroy(submission);
	while ((submission = lane_pop(&taken->data)) != NULL)
		submission->destroy(submission);
	while ((note = taken->notes) != NULL) {
		DL_DELETE(taken->notes, note);
		free(note);
	}
	taken_fini(taken);
}

void engine_destroy(struct engine *engine)
{
	struct submission *submission;

	if (engine == NULL)
		return;
	batch_release_all(engine);
	while ((submission = shares_pop(&engine->shares)) != NULL)
		submission->destroy(submission);
	shares_fini(&engine->shares);
	taken_drop(&engine->taken);
	inbox_fini(&engine->inbox);
	demand_fini(&engine->demand);
	heartbeats_fini(&engine->heartbeats);
	moved_fini(&engine->moved);
	run_clock_fini(&engine->run_clock);
	batch_fini(&engine->batch);
	core_destroy(engine->core);
	(void)pthread_mutex_destroy(&engine->headroom_lock);
	free(engine);
}

int engine_sink_add(struct engine *engine, struct engine_sink *sink)
{
	if (engine->sink_count == sizeof(engine->sinks) / sizeof(engine->sinks[0]))
		return SLUICE_E_LIMIT;
	engine->sinks[engine->sink_count++] = sink;
	return 0;
}

/* ---- one round ---- */

static void handle_consumer(struct engine *engine, const struct note *note)
{
	const struct consumer_spec *spec = &note->spec;

	if (note->open) {
		/* No client would receive its deliveries. */
		if (moved_has(&engine->moved, spec->sink, spec->conn))
			return;
		if (demand_open(&engine->demand, spec) != 0)
			log_line(LOG_LEVEL_ERROR,
				 log_id("engine.no_memory", "no memory for a consumer"),
				 log_u64("queue", spec->queue));
	} else if (spec->credit > 0) {
		demand_credit(&engine->demand, spec->sink, spec->tag, spec->credit);
	}
	if (note->pause)
		demand_pause(&engine->demand, spec->sink, spec->tag, note->paused);
	if (!note->close)
		return;
	demand_close(&engine->demand, spec->sink, spec->tag);
	release_consumer_closed(spec->sink, spec->tag);
}

static void handle_session(struct engine *engine, const struct note *note)
{
	const struct consumer_spec *spec = &note->spec;
	struct consumer_key lost;

	if (note->attach && heartbeats_attach(&engine->heartbeats, spec->gateway, spec->session,
					      spec->sink, spec->tag, &lost)) {
		demand_session_moved(&engine->demand, spec->gateway, spec->session);
		moved_add(&engine->moved, lost.sink, lost.tag, spec->gateway, spec->session);
	}
	if (!note->detach)
		return;
	heartbeats_detach(&engine->heartbeats, spec->gateway, spec->session, spec->sink, spec->tag,
			  note->idle_ms, note->used, engine->live_ms);
	if (note->moved)
		moved_gone(&engine->moved, spec->sink, spec->tag, spec->gateway, spec->session);
	else if (engine->moved.conns != NULL)
		moved_detached(&engine->moved, spec->sink, spec->tag, spec->gateway, spec->session);
}

static void count_lane(void *user, const struct lane *lane)
{
	const struct submission *submission;

	LL_FOREACH(lane->head, submission)
		moved_count(user, submission);
}

/* Connections that moved were freed. All that they submitted is in the lanes now. */
static void count_moved(struct engine *engine)
{
	if (!engine->moved.uncounted)
		return;
	count_lane(&engine->moved, &engine->taken.control);
	count_lane(&engine->moved, &engine->taken.data);
	shares_each(&engine->shares, count_lane, &engine->moved);
	moved_counted(&engine->moved);
}

static void handle_touches(struct engine *engine)
{
	const struct touches *touches = &engine->taken.touches;

	for (size_t i = 0; i < touches->count; i++)
		heartbeats_touch(&engine->heartbeats, touches->list[i].gateway,
				 touches->list[i].session, touches->list[i].at_ms);
}

static void handle_notes(struct engine *engine)
{
	size_t closed = 0;
	struct note *note;

	if (engine->taken.notes == NULL)
		return;
	DL_FOREACH(engine->taken.notes, note) {
		if (note->kind == NOTE_CONSUMER)
			handle_consumer(engine, note);
		else
			handle_session(engine, note);
		closed += note->close || note->detach;
	}
	inbox_notes_done(&engine->inbox, engine->taken.notes, closed);
	engine->taken.notes = NULL;
	count_moved(engine);
	atomic_store(&engine->consumer_count, engine->demand.count);
}

static int batch_add(struct batch *batch, struct submission *submission)
{
	if (batch->count == batch->capacity) {
		size_t capacity = batch->capacity == 0 ? 256 : batch->capacity * 2;
		struct submission **list = realloc(batch->submissions, capacity * sizeof(*list));

		if (list == NULL)
			return SLUICE_E_NOMEM;
		batch->submissions = list;
		batch->capacity = capacity;
	}
	batch->submissions[batch->count++] = submission;
	batch->bytes += submission->bytes;
	return 0;
}

/* Bounds the commit when many sessions expire at once, after a restart for example. */
enum { EXPIRIES_PER_BATCH_MAX = 256, EXPIRY_AGAIN_MS = 60000 };

struct expiry {
	struct submission submission;
	struct cmd_session_expire body;
	struct engine *engine;
};

static void expiry_destroy(struct submission *submission)
{
	struct expiry *expiry = (struct expiry *)submission; /* its first member */

	heartbeats_again(&expiry->engine->heartbeats, submission->command.gateway,
			 expiry->body.session, expiry->engine->live_ms + EXPIRY_AGAIN_MS);
	free(expiry);
}

/* In the control lane, in case the commit ends before it: the session's successor is in that lane,
 * too. */
static int batch_add_expiry(struct engine *engine, const struct session_timer *timer)
{
	struct expiry *expiry = calloc(1, sizeof(*expiry));
	int rc;

	if (expiry == NULL)
		return SLUICE_E_NOMEM;
	expiry->body.session = timer->key.session;
	expiry->submission.command = (struct command){.type = COMMAND_SESSION_EXPIRE,
						      .gateway = (uint32_t)timer->key.gateway,
						      .body = &expiry->body};
	expiry->submission.destroy = expiry_destroy;
	expiry->submission.control = true;
	expiry->engine = engine;
	rc = batch_add(&engine->batch, &expiry->submission);
	if (rc != 0)
		free(expiry);
	return rc;
}

static int batch_take_expired(struct engine *engine)
{
	struct session_timer *timer;

	/* The others stay due, and the next batch follows at once. */
	for (int n = 0; n < EXPIRIES_PER_BATCH_MAX &&
			(timer = heartbeats_due(&engine->heartbeats, engine->live_ms)) != NULL;
	     n++) {
		int rc = batch_add_expiry(engine, timer);

		if (rc != 0)
			return rc;
	}
	return 0;
}

/* ---- bounds on the number of sessions ---- */

struct owner_check {
	struct engine *engine;
	struct store_txn *txn;
};

/* A session that cannot be read counts as an owner: it stays. */
static bool session_owns(void *user, uint32_t gateway, uint64_t session)
{
	struct owner_check *check = user;
	bool owns = true;

	if (check->txn == NULL && store_begin_read(check->engine->store, &check->txn) != 0)
		return true;
	return core_session_owns(check->txn, gateway, session, &owns) != 0 || owns;
}

/* A SESSION_OPEN with the name of another session replaces that one. Asked at a bound only; 0 when
 * it cannot be read. */
static uint64_t session_replaced(struct owner_check *check, const struct submission *submission)
{
	const struct cmd_session_open *open = submission->command.body;
	uint64_t older = 0;

	if (open->name.len == 0 ||
	    (check->txn == NULL && store_begin_read(check->engine->store, &check->txn) != 0))
		return 0;
	return core_session_named(check->txn, submission->command.gateway, open->name, &older) == 0
		       ? older
		       : 0;
}

/* At a bound a session that owns nothing ends first, in the same batch. *ret_code: BUSY when there
 * is none. */
static int session_admit(struct engine *engine, const struct submission *submission, int *ret_code)
{
	const struct cmd_session_open *open = submission->command.body;
	struct heartbeats *heartbeats = &engine->heartbeats;
	const uint32_t gateway = submission->command.gateway;
	struct owner_check check = {engine, NULL};
	uint64_t replaced;
	int rc = 0;

	*ret_code = 0;
	if (heartbeats_admit(heartbeats, gateway, open->address, 0) == BOUND_NONE)
		return 0;
	replaced = session_replaced(&check, submission);
	for (int tries = 0; rc == 0 && tries < 2; tries++) { /* both bounds may be reached */
		enum session_bound bound =
			heartbeats_admit(heartbeats, gateway, open->address, replaced);
		struct session_timer *timer;

		if (bound == BOUND_NONE)
			break;
		timer = heartbeats_oldest(heartbeats, gateway,
					  bound == BOUND_ADDRESS ? open->address
								 : (struct sluice_slice){NULL, 0},
					  session_owns, &check);
		if (timer == NULL) {
			*ret_code = SLUICE_E_BUSY;
			break;
		}
		rc = batch_add_expiry(engine, timer);
		if (rc == 0 && tries == 1 &&
		    heartbeats_admit(heartbeats, gateway, open->address, replaced) != BOUND_NONE)
			*ret_code = SLUICE_E_BUSY;
	}
	store_abort(check.txn);
	return rc;
}

/* Admission is decided here, before a command enters a batch. bytes_max: of the whole batch. */
static int batch_take(struct engine *engine, struct lane *lane, uint64_t bytes_max)
{
	struct batch *batch = &engine->batch;
	struct store_room room;
	bool first = true, room_checked = false;

	/* The first of a lane always enters: one that is larger than the room would wait for
	 * ever. */
	for (; lane->head != NULL &&
	       (first || engine->shares.sorted || batch->bytes + lane->head->bytes <= bytes_max);
	     first = false) {
		struct submission *submission = lane->head;
		const struct command_spec *spec = command_spec(submission->command.type);
		int refused_code = 0, rc = 0;

		if (engine->moved.conns != NULL && moved_refuses(&engine->moved, submission))
			refused_code = SLUICE_E_SESSION_GONE;
		else if (submission->command.type == COMMAND_SESSION_OPEN)
			rc = session_admit(engine, submission, &refused_code);
		if (rc == 0)
			rc = batch_add(batch, submission);
		if (rc != 0)
			return rc;
		invariant(lane->head == submission && submission->forced_code == 0,
			  "a submission that was refused with %d is taken",
			  submission->forced_code);
		(void)lane_pop(lane);
		if (spec != NULL && !room_checked &&
		    command_headroom(&submission->command) != HEADROOM_ALWAYS) {
			rc = headroom_room_ensure(engine, 0, &room);
			if (rc != 0)
				return rc;
			room_checked = true;
		}
		if (spec == NULL)
			submission->forced_code = SLUICE_E_UNKNOWN_TYPE;
		else if (!headroom_admits_command(&engine->gate, &submission->command))
			submission->forced_code = SLUICE_E_NO_SPACE;
		if (refused_code != 0)
			submission->forced_code = refused_code;
	}
	return 0;
}

/* Interval of checks while the state is not OK, with or without commands. */
enum { HEADROOM_CHECK_MS = 100, HEADROOM_AGAIN_MS = 1000 };

static int headroom_check(struct engine *engine, uint64_t mono_ms)
{
	struct store_facts facts;
	struct store_room room;
	enum headroom_state before = (enum headroom_state)atomic_load(&engine->headroom_now);
	int rc;

	/* A statvfs and a scan of the free list: often enough to stop in time, rarely enough to
	 * cost little. */
	if (engine->gate.checked_mono_ms + HEADROOM_CHECK_MS > mono_ms &&
	    engine->gate.checked_mono_ms != 0)
		return 0;
	engine->gate.checked_mono_ms = mono_ms;
	rc = headroom_room_ensure(engine, 0, &room);
	if (rc != 0)
		return rc;
	store_facts_get(engine->store, &facts);
	headroom_update(&engine->gate, &facts);
	headroom_report(engine, before, &facts);
	return 0;
}

static bool claims_wait(const struct engine *engine)
{
	return engine->demand.to_serve != NULL &&
	       !atomic_load_explicit(&engine->draining, memory_order_relaxed);
}

static uint64_t next_wait_ms(const struct engine *engine, uint64_t mono_ms)
{
	uint64_t due = engine->next_deadline_ms > engine->tick_hold_ms ? engine->next_deadline_ms
								       : engine->tick_hold_ms;

	if (engine->taken.control.head != NULL || engine->taken.data.head != NULL ||
	    engine->shares.waiting > 0 || claims_wait(engine))
		return 0;
	if (engine->heartbeats.next_ms < UINT64_MAX - engine->stopped_ms &&
	    engine->heartbeats.next_ms + engine->stopped_ms < due)
		due = engine->heartbeats.next_ms + engine->stopped_ms;
	if (headroom_state(&engine->gate) != HEADROOM_OK && due > mono_ms + HEADROOM_AGAIN_MS)
		due = mono_ms + HEADROOM_AGAIN_MS;
	if (due == UINT64_MAX)
		return UINT64_MAX;
	return due > mono_ms ? due - mono_ms : 0;
}

static bool work_waits(const struct engine *engine, uint64_t mono_ms)
{
	return engine->batch.count > 0 || claims_wait(engine) ||
	       (engine->next_deadline_ms <= mono_ms && engine->tick_hold_ms <= mono_ms);
}

static int stop_with(struct engine *engine, int rc)
{
	engine->failed = true;
	if (engine->config.fail_stop != NULL)
		engine->config.fail_stop(engine->config.user, rc, store_last_error());
	return rc;
}

int engine_step(struct engine *engine, struct batch_clock now, uint64_t *ret_wait_ms)
{
	const uint64_t bytes_max = engine->config.batch_bytes_max;
	struct batch_clock clock;
	int rc;

	if (engine->failed)
		return SLUICE_E_IO;
	if (engine->role != ENGINE_LEADS) {
		*ret_wait_ms = UINT64_MAX;
		return 0;
	}
	clock = (struct batch_clock){durable_mono(engine, now.mono_ms), now.wall_ms};
	invariant(engine->batch.count == 0 && engine->batch.bytes == 0,
		  "%zu submissions of the batch before", engine->batch.count);
	time_set(engine, clock, now);
	inbox_take(&engine->inbox, &engine->taken);
	handle_notes(engine);
	handle_touches(engine);
	if (lag_check(engine)) {
		*ret_wait_ms = UINT64_MAX; /* a sink that catches up ends the wait */
		return 0;
	}
	heartbeats_batch(&engine->heartbeats);
	rc = headroom_check(engine, clock.mono_ms);
	if (rc == 0)
		rc = batch_take_expired(engine);
	shares_choose(&engine->shares, &engine->taken, bytes_max);
	if (rc == 0)
		rc = batch_take(engine, &engine->taken.control,
				taken_control_max(&engine->taken, bytes_max));
	if (rc == 0)
		rc = batch_take(engine, &engine->taken.data, bytes_max);
	if (rc == 0 && work_waits(engine, clock.mono_ms))
		rc = batch_run(engine, clock);
	if (rc != 0)
		return stop_with(engine, rc);
	batch_release_all(engine);
	*ret_wait_ms = next_wait_ms(engine, clock.mono_ms);
	return 0;
}

int engine_end_ephemeral(struct engine *engine, struct batch_clock now)
{
	uint64_t wait_ms;
	int rc = 0;

	while (rc == 0 && engine->heartbeats.ending > 0)
		rc = engine_step(engine, now, &wait_ms);
	return rc;
}

/* ---- thread ---- */

static void *run(void *user)
{
	struct engine *engine = user;

	while (!atomic_load(&engine->stopping)) {
		uint64_t wait_ms = 0;

		if (engine_step(engine, process_clock(), &wait_ms) != 0)
			break;
		if (wait_ms > 0)
			inbox_wait(&engine->inbox, wait_ms);
	}
	return NULL;
}

int engine_start(struct engine *engine)
{
	int rc = pthread_create(&engine->thread, NULL, run, engine);

	if (rc != 0) {
		errno = rc;
		return SLUICE_E_NOMEM;
	}
	engine->thread_runs = true;
	return 0;
}

void engine_stop(struct engine *engine)
{
	if (!engine->thread_runs)
		return;
	atomic_store(&engine->stopping, true);
	inbox_stop(&engine->inbox);
	(void)pthread_join(engine->thread, NULL);
	engine->thread_runs = false;
}

void engine_drain(struct engine *engine)
{
	atomic_store(&engine->draining, true);
}

/* ---- calls from other threads ---- */

int engine_submit_quietly(struct engine *engine, struct submission *submission)
{
	/* A publish may be as large as a frame; other commands have a tighter bound. */
	uint64_t max = submission->command.type == COMMAND_PUBLISH ? LIMIT_FRAME_BYTES_MAX
								   : LIMIT_COMMAND_BYTES_MAX;

	if (submission->bytes > max)
		return SLUICE_E_LIMIT;
	submission->forced_code = 0;
	submission->guess = 0;
	if (lag_submit_busy(submission))
		return SLUICE_E_BUSY;
	return inbox_put(&engine->inbox, submission);
}

void engine_wake(struct engine *engine)
{
	inbox_wake(&engine->inbox);
}

int engine_submit(struct engine *engine, struct submission *submission)
{
	int rc = engine_submit_quietly(engine, submission);

	if (rc == 0)
		engine_wake(engine);
	return rc;
}

int engine_consumer_open(struct engine *engine, const struct consumer_spec *spec)
{
	struct note note = {.kind = NOTE_CONSUMER, .spec = *spec, .open = true};

	return inbox_note(&engine->inbox, &note);
}

int engine_consumer_credit(struct engine *engine, struct engine_sink *sink, uint64_t tag,
			   uint32_t more)
{
	struct note note = {.kind = NOTE_CONSUMER,
			    .spec = {.sink = sink, .tag = tag, .credit = more}};

	return inbox_note(&engine->inbox, &note);
}

int engine_consumer_pause(struct engine *engine, struct engine_sink *sink, uint64_t tag,
			  bool paused)
{
	struct note note = {.kind = NOTE_CONSUMER,
			    .spec = {.sink = sink, .tag = tag},
			    .pause = true,
			    .paused = paused};

	return inbox_note(&engine->inbox, &note);
}

int engine_consumer_close(struct engine *engine, struct engine_sink *sink, uint64_t tag)
{
	struct note note = {.kind = NOTE_CONSUMER,
			    .spec = {.sink = sink, .tag = tag},
			    .close = true};
	bool unseen;
	int rc = inbox_consumer_close(&engine->inbox, &note, &unseen);

	if (rc == 0 && unseen)
		release_consumer_closed(sink, tag);
	return rc;
}

int engine_session_attach(struct engine *engine, uint32_t gateway, uint64_t session,
			  struct engine_sink *sink, uint64_t tag)
{
	struct note note =
		{.kind = NOTE_SESSION,
		 .spec = {.gateway = gateway, .session = session, .sink = sink, .tag = tag},
		 .attach = true};
	int rc = inbox_note(&engine->inbox, &note);

	if (rc == 0)
		atomic_fetch_add(&engine->attached_count, 1);
	return rc;
}

int engine_session_detach(struct engine *engine, uint32_t gateway, uint64_t session,
			  struct engine_sink *sink, uint64_t tag, uint32_t idle_ms, bool used)
{
	struct note note =
		{.kind = NOTE_SESSION,
		 .spec = {.gateway = gateway, .session = session, .sink = sink, .tag = tag},
		 .detach = true,
		 .idle_ms = idle_ms,
		 .used = used};

	atomic_fetch_sub(&engine->attached_count, 1);
	return inbox_note(&engine->inbox, &note);
}

int engine_session_touch(struct engine *engine, const struct session_number *sessions, size_t count,
			 uint64_t mono_ms)
{
	uint64_t stopped_ms = run_clock_check(&engine->run_clock, mono_ms);

	return inbox_touch(&engine->inbox, sessions, count,
			   (uint64_t)((int64_t)mono_ms + atomic_load(&engine->mono_offset_ms)) -
				   stopped_ms);
}

void engine_report_running(struct engine *engine, uint64_t mono_ms)
{
	(void)run_clock_report(&engine->run_clock, mono_ms);
}

int engine_read_begin(struct engine *engine, struct store_txn **ret, uint64_t *ret_number)
{
	struct store_txn *txn = NULL;
	int rc = store_begin_read(engine->store, &txn);

	if (rc == 0)
		rc = core_batch_read(txn, ret_number);
	if (rc != 0) {
		store_abort(txn);
		return rc;
	}
	*ret = txn;
	return 0;
}

struct batch_clock engine_clock(const struct engine *engine)
{
	struct batch_clock now = process_clock();

	now.mono_ms = (uint64_t)((int64_t)now.mono_ms + atomic_load(&engine->mono_offset_ms));
	return now;
}

void engine_facts_get(struct engine *engine, struct engine_facts *ret)
{
	ret->commits = atomic_load(&engine->commits);
	ret->commits_damaged = atomic_load(&engine->commits_damaged);
	ret->commands = atomic_load(&engine->commands);
	ret->batches_aborted = atomic_load(&engine->aborted);
	ret->inbox_bytes = atomic_load(&engine->inbox.bytes);
	ret->notes = inbox_notes_waiting(&engine->inbox);
	ret->consumers = atomic_load(&engine->consumer_count);
	ret->sessions_attached = atomic_load(&engine->attached_count);
	ret->headroom = (enum headroom_state)atomic_load(&engine->headroom_now);
	(void)pthread_mutex_lock(&engine->headroom_lock);
	memcpy(ret->headroom_why, engine->headroom_why, sizeof(ret->headroom_why));
	(void)pthread_mutex_unlock(&engine->headroom_lock);
	store_facts_get(engine->store, &ret->store);
}
