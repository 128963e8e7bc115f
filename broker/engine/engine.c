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
#include "broker/engine/take.h"
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
		rc = take_expired(engine);
	shares_choose(&engine->shares, &engine->taken, bytes_max);
	if (rc == 0)
		rc = take_lane(engine, &engine->taken.control,
			       taken_control_max(&engine->taken, bytes_max));
	if (rc == 0)
		rc = take_lane(engine, &engine->taken.data, bytes_max);
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
