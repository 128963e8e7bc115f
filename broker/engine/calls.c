/* SPDX-License-Identifier: Apache-2.0
 * The calls of the engine that other threads may make at any time: commands and notes into the
 * inbox, snapshots, facts. */
#include <pthread.h>
#include <string.h>

#include "broker/engine/engine_internal.h"
#include "broker/engine/lag.h"
#include "broker/engine/release.h"
#include "broker/util/clock.h"
#include "protocol/limits.h"

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
	struct batch_clock now = {clock_mono_ns() / 1000000, (uint64_t)clock_wall_ms()};

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
