/* SPDX-License-Identifier: Apache-2.0
 * Plants of the engine and of what is above it; plants.c has those of core and store. */
#include "broker/core/job/job.h"
#include "broker/engine/engine_internal.h"
#include "broker/engine/release.h"
#include "broker/net/conn/answer.h"
#include "broker/net/conn/sub.h"
#include "tests/sim/plants_internal.h"

enum { LATE_MS = 50 };

static unsigned claims_max, claims; /* of the current batch */

void plants_claims_max(unsigned max)
{
	claims_max = max;
	claims = 0;
}

/* ---- the order of answers ---- */

enum { LATE_MAX = 256 };
static struct effect late[LATE_MAX]; /* of the current batch */
static size_t late_count;
static bool adds_late;

WRAP(int, effects_add, struct effects *effects, const struct effect *effect)
{
	if (planted != LATE_REFUSAL || adds_late || effect->kind != FX_REPLY ||
	    effect->outcome->index != 0 || effect->outcome->code == 0 || late_count == LATE_MAX)
		return __real_effects_add(effects, effect);
	late[late_count++] = *effect;
	return 0;
}

WRAP(int, core_batch_end, struct core *core, struct store_txn *txn, struct effects *effects)
{
	int rc = __real_core_batch_end(core, txn, effects);

	adds_late = true;
	for (size_t i = 0; rc == 0 && i < late_count; i++)
		rc = __real_effects_add(effects, &late[i]);
	late_count = 0;
	return rc;
}

/* As if the thread had slept: a reader of LMDB takes its id, then the root. */
WRAP(int, engine_read_begin, struct engine *engine, struct store_txn **ret, uint64_t *ret_number)
{
	static unsigned count;
	int rc = __real_engine_read_begin(engine, ret, ret_number);

	/* Commands wait for the next commit, so there will be one. */
	if (planted == LATE_NUMBER && atomic_load(&engine->inbox.bytes) > engine->batch.bytes)
		++*ret_number;
	if (planted == EARLY_NUMBER && *ret_number >= 2 && ++count % 4 == 0)
		*ret_number -= 2;
	return rc;
}

WRAP(void, subs_log_grown, struct io *io, uint32_t gateway, uint64_t stream, uint64_t next_offset)
{
	__real_subs_log_grown(io, gateway, stream,
			      planted == EARLY_EVENT ? UINT64_MAX : next_offset);
}

WRAP(void, answers_flush, struct io *io)
{
	if (planted != LATE_FLUSH)
		__real_answers_flush(io);
}

void plants_round_end(struct io *io)
{
	__real_answers_flush(io);
}

/* ---- demand ---- */

WRAP(int, store_begin, struct store *store, struct store_txn **ret)
{
	claims = 0;
	late_count = 0;
	adds_late = false;
	return __real_store_begin(store, ret);
}

WRAP(void, demand_claimed, struct demand *demand, struct consumer *consumer,
     const struct cmd_claim *claim, const struct outcome *outcome)
{
	struct demand_class *class;

	claims++;
	if (planted == SHARED_EMPTY && !(claim->flags & CLAIM_RESUME) &&
	    outcome->count < claim->max) {
		for (class = consumer->queue->classes; class != NULL; class = class->next)
			class->orphans = false;
	}
	__real_demand_claimed(demand, consumer, claim, outcome);
}

WRAP(void, demand_queue_ready, struct demand *demand, uint32_t gateway, uint64_t queue, bool orphan,
     uint64_t source)
{
	if (planted == LOST_ANNOUNCE && claims_max != 0 && claims >= claims_max)
		return;
	if (planted == IDLE_SOURCE && orphan && source != 0)
		return;
	__real_demand_queue_ready(demand, gateway, queue, orphan, source);
}

WRAP(void, demand_pause, struct demand *demand, struct engine_sink *sink, uint64_t tag, bool paused)
{
	if (planted == LOST_RESUME && !paused)
		return;
	__real_demand_pause(demand, sink, tag, paused);
}

WRAP(void, demand_close, struct demand *demand, struct engine_sink *sink, uint64_t tag)
{
	if (planted != OPEN_END)
		__real_demand_close(demand, sink, tag);
}

WRAP(void, release_consumer_closed, struct engine_sink *sink, uint64_t tag)
{
	const bool eighth = tag % 8 == 0;

	if (planted != LOST_END || !eighth)
		__real_release_consumer_closed(sink, tag);
	if (planted == DOUBLE_END && eighth)
		__real_release_consumer_closed(sink, tag);
}

/* ---- lanes ---- */

WRAP(uint64_t, taken_control_max, const struct taken *taken, uint64_t bytes_max)
{
	return planted == WHOLE_CONTROL ? bytes_max : __real_taken_control_max(taken, bytes_max);
}

static void lane_append(struct lane *to, struct lane *from)
{
	struct submission *submission;

	while ((submission = lane_pop(from)) != NULL)
		lane_push(to, submission);
}

static void lanes_swap(struct taken *taken)
{
	struct lane control;

	lane_init(&control);
	lane_append(&control, &taken->control);
	lane_append(&taken->control, &taken->data);
	lane_append(&taken->data, &control);
}

static void lane_turn(struct lane *lane)
{
	struct submission *first = lane_pop(lane);

	if (first != NULL)
		lane_push(lane, first);
}
WRAP(void, inbox_take, struct inbox *inbox, struct taken *io_taken)
{
	__real_inbox_take(inbox, io_taken);
	if (planted == STOPPED_DATA && io_taken->control.head != NULL)
		lane_append(&inbox->data, &io_taken->data);
	if (planted == DATA_AHEAD)
		lanes_swap(io_taken);
	if (planted == TURNED_LANE)
		lane_turn(&io_taken->control);
}

/* ---- holders and timers ---- */

WRAP(int, job_notify_holder, struct apply *a, const struct job *job, enum effect_kind kind)
{
	return planted == LOST_CANCEL && kind == FX_JOB_CANCEL
		       ? 0
		       : __real_job_notify_holder(a, job, kind);
}

WRAP(int, core_next_deadline, struct core *core, struct store_txn *txn, uint64_t *ret_mono_ms)
{
	int rc = __real_core_next_deadline(core, txn, ret_mono_ms);

	if (planted == LATE_TIMER && rc == 0 && *ret_mono_ms != UINT64_MAX)
		*ret_mono_ms += LATE_MS;
	return rc;
}

/* ---- sessions ---- */

WRAP(bool, moved_refuses, const struct moved *moved, const struct submission *submission)
{
	if (planted == MOVED_APPLIED)
		return false;
	if (planted == MOVED_CLOSES && submission->command.type == COMMAND_SESSION_CLOSE)
		return false;
	return __real_moved_refuses(moved, submission);
}

WRAP(void, moved_count, struct moved *moved, const struct submission *submission)
{
	if (planted != MOVED_FORGOTTEN)
		__real_moved_count(moved, submission);
}

WRAP(void, moved_gone, struct moved *moved, struct engine_sink *sink, uint64_t conn,
     uint32_t gateway, uint64_t session)
{
	if (planted != MOVED_UNSEEN)
		__real_moved_gone(moved, sink, conn, gateway, session);
}

WRAP(bool, moved_has, const struct moved *moved, struct engine_sink *sink, uint64_t conn)
{
	return planted != MOVED_CONSUMES && __real_moved_has(moved, sink, conn);
}

enum { LONG_MS = 5000 };
static uint64_t round_ms; /* of the engine's last round, in the time of sessions */

WRAP(struct session_timer *, heartbeats_due, struct heartbeats *heartbeats, uint64_t now_ms)
{
	round_ms = now_ms;
	return __real_heartbeats_due(heartbeats, now_ms);
}

WRAP(bool, heartbeats_attach, struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
     struct engine_sink *sink, uint64_t tag, struct consumer_key *ret_lost)
{
	bool moved = __real_heartbeats_attach(heartbeats, gateway, session, sink, tag, ret_lost);

	if (planted == ATTACHED_ENDS)
		heartbeats_detach(heartbeats, gateway, session, sink, tag, 0, true, round_ms);
	return moved;
}

WRAP(void, heartbeats_touch, struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
     uint64_t at_ms)
{
	if (planted != LOST_TOUCH)
		__real_heartbeats_touch(heartbeats, gateway, session,
					at_ms + (planted == LONG_TOUCH ? LONG_MS : 0));
}

WRAP(int, heartbeats_add, struct heartbeats *heartbeats, const struct session_seen *seen,
     uint64_t now_ms)
{
	struct session_seen bent = *seen;

	bent.standing &= planted != STANDING_ENDS;
	bent.ends &= planted != EPHEMERAL_STAYS;
	return __real_heartbeats_add(heartbeats, &bent, now_ms);
}

WRAP(int, engine_end_ephemeral, struct engine *engine, struct batch_clock now)
{
	return planted == EPHEMERAL_LATE ? 0 : __real_engine_end_ephemeral(engine, now);
}

WRAP(uint64_t, run_clock_check, struct run_clock *clock, uint64_t now_ms)
{
	return planted == STOPPED_COUNTS ? 0 : __real_run_clock_check(clock, now_ms);
}
