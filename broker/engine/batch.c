/* SPDX-License-Identifier: Apache-2.0
 *
 * One batch: apply, claim for consumers that have credit, commit, release. The only place that
 * calls store_commit and the only one that hands effects out, in that order.
 *
 * A run has two phases (run_all). In the first one commands are applied, and can be refused. If it
 * fails, the batch is aborted and run again without the cause of the failure:
 *   NO_SPACE  publishes are refused (then reports); commands that free room are applied. If that
 *             fails too, the engine stops.
 *   CORRUPT   the command that met the damaged record is refused with it (of a CLAIM: its consumer
 *             is closed), a timer is put off; the other commands are applied.
 *   other     the engine stops.
 * The second phase is the commit. Its failure stops the engine: the outcome is unknown, so no
 * command is answered. The one exception is NO_SPACE, after which nothing was written: it is
 * handled as in the first phase. With a journal, where others have the batch before the commit,
 * there will be no exception.
 *
 * Repetition because of damage is bounded: after 4,096 commands and four times the batch were
 * applied again, the rest of the batch is committed in parts of 32, where damage costs at most
 * 32 times the part. So k damaged commands do not cost k times the whole batch.
 *
 * No effect is dropped: demand scans every effect of a batch, also those of its last claim and of
 * its end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/engine/commit_watch.h"
#include "broker/engine/engine_internal.h"
#include "broker/engine/lag.h"
#include "broker/util/memory.h"
#include "broker/util/bytes.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"

/* A batch may apply this many commands again because of damage that others of it met; after that it
 * is committed in parts of PART_COMMANDS. */
enum { REAPPLIED_MIN = 4096, REAPPLIED_TIMES = 4, PART_COMMANDS = 32 };

/* Records that the sessions which expire may cost a batch, up to one session more. Commands wait
 * for them, so they take a part of the batch only. */
enum { EXPIRY_WORK_MAX = 8192 };

/* Claims of one batch that may meet damage on a write; one more ends the claims of this batch. */
enum { CLAIM_FAILURES_MAX = 4 };

/* What they and submitted claims deliver is bounded too: the rest waits in the store, not in
 * memory. */
#define CLAIMED_BYTES_PER_BATCH_MAX (16ull << 20)

static int origin_add(struct batch *batch, struct engine_sink *sink, uint64_t tag,
		      enum origin_kind kind)
{
	if (batch->origin_count == batch->origin_capacity) {
		size_t capacity = batch->origin_capacity == 0 ? 64 : batch->origin_capacity * 2;
		struct origin *origins = realloc(batch->origins, capacity * sizeof(*origins));

		if (origins == NULL)
			return SLUICE_E_NOMEM;
		batch->origins = origins;
		batch->origin_capacity = capacity;
	}
	batch->origins[batch->origin_count++] = (struct origin){sink, tag, (uint8_t)kind};
	return 0;
}

/* ---- apply ---- */

/* Why a run was aborted: the command that failed. */
struct batch_failure {
	struct submission *submission; /* NULL: a TICK or CLAIM */
	size_t position;	       /* of it */
	bool tick;
	struct sluice_slice timer; /* of the TICK */
	struct consumer_key claimer;
};

enum { STEPS_PER_RECORD = 32 };

static uint64_t work_done(const struct engine *engine)
{
	struct core_work work = core_batch_work(engine->core);

	return work.records + work.bytes / BYTES_PER_RECORD + work.steps / STEPS_PER_RECORD;
}

static int add_forced_reply(struct batch *batch, struct engine_sink *sink, uint64_t tag,
			    enum origin_kind kind, int code, const char *text)
{
	struct effect effect = {.kind = FX_REPLY, .command = (uint32_t)batch->origin_count};
	struct outcome *outcome = effects_alloc(batch->release->public.effects, sizeof(*outcome));
	int rc;

	if (outcome == NULL)
		return SLUICE_E_NOMEM;
	memset(outcome, 0, sizeof(*outcome));
	outcome->code = code;
	strncpy(outcome->text, text, sizeof(outcome->text) - 1);
	effect.outcome = outcome;
	rc = origin_add(batch, sink, tag, kind);
	return rc != 0 ? rc : effects_add(batch->release->public.effects, &effect);
}

enum { LEVEL_TEXT_BYTES = 80 };

static const char *refusal_text(const struct engine *engine, const struct submission *submission,
				char buf[LEVEL_TEXT_BYTES])
{
	const struct command *command = &submission->command;

	if (submission->forced_code == SLUICE_E_NO_SPACE && engine->gate.why[0] != 0)
		return engine->gate.why;
	if (submission->forced_code != SLUICE_E_UNSUPPORTED || command->type != COMMAND_LEVEL_RAISE)
		return sluice_error_text(submission->forced_code);
	(void)snprintf(buf, LEVEL_TEXT_BYTES, "level %u is not known; the newest known level is %d",
		       ((const Sluice__LevelRaise *)command->message)->level, CORE_LEVEL);
	return buf;
}

/* The reply of a command that is not applied, in its place among the others. */
static int refuse_submission(struct engine *engine, const struct submission *submission)
{
	char buf[LEVEL_TEXT_BYTES];

	if (submission->sink == NULL)
		return 0;
	core_skip(engine->core);
	return add_forced_reply(&engine->batch, submission->sink, submission->tag, ORIGIN_REQUEST,
				submission->forced_code, refusal_text(engine, submission, buf));
}

/* What the last command delivers to its sender: 0 unless it is a CLAIM. */
static uint64_t delivered_bytes(const struct batch *batch)
{
	const struct effects *effects = batch->release->public.effects;
	uint64_t bytes = 0;

	for (size_t i = effects_count(effects); i > 0; i--) {
		const struct effect *effect = effects_at(effects, i - 1);

		if (effect->command + 1 != batch->origin_count)
			break;
		bytes += effect->payload.len;
	}
	return bytes;
}

static int apply_submissions(struct engine *engine, struct store_txn *txn,
			     struct batch_failure *failure)
{
	struct batch *batch = &engine->batch;
	uint64_t delivered = 0;

	batch->work = 0;
	for (size_t i = batch->first; i < batch->end; i++) {
		struct submission *submission = batch->submissions[i];
		int rc;

		submission->work = 0;
		if (i < batch->expired && submission->forced_code == 0 &&
		    batch->work >= EXPIRY_WORK_MAX)
			submission->forced_code = SLUICE_E_BUSY; /* the next batch */
		if (submission->forced_code != 0) {
			rc = refuse_submission(engine, submission);
			if (rc != 0)
				return rc;
			continue;
		}
		failure->submission = submission;
		failure->position = i;
		rc = origin_add(batch, submission->sink, submission->tag,
				submission->sink == NULL ? ORIGIN_NONE : ORIGIN_REQUEST);
		if (rc == 0)
			rc = core_apply(engine->core, txn, &submission->command,
					batch->release->public.effects);
		if (rc == 0)
			rc = headroom_batch_check(engine, txn, &submission->command);
		if (rc != 0)
			return rc;
		batch->commands++;
		/* Sessions that expire are at the front of the batch, have a bound of their own,
		 * and are never returned to the lanes. */
		submission->work = (int64_t)(work_done(engine) - batch->work);
		batch->work += (uint64_t)submission->work;
		if (submission->command.type == COMMAND_CLAIM)
			delivered += delivered_bytes(batch);
		if ((shares_enough(&engine->shares, batch->work) ||
		     delivered > CLAIMED_BYTES_PER_BATCH_MAX) &&
		    i + 1 < batch->end && batch->submissions[i + 1]->sink != NULL) {
			batch->end = i + 1;
			batch->ended_early = true;
		}
	}
	failure->submission = NULL;
	return 0;
}

static int apply_tick(struct engine *engine, struct store_txn *txn, struct batch_clock clock,
		      struct batch_failure *failure)
{
	struct cmd_tick tick = {.work_max = engine->put_off_bytes > 0
						    ? 0
						    : engine->config.tick_work_max,
				.put_off = {engine->put_off, engine->put_off_bytes}};
	struct command command = {.type = COMMAND_TICK, .body = &tick};
	int rc;

	if (engine->next_deadline_ms > clock.mono_ms || engine->tick_hold_ms > clock.mono_ms)
		return 0;
	failure->tick = true;
	rc = origin_add(&engine->batch, NULL, 0, ORIGIN_NONE);
	if (rc == 0)
		rc = core_apply(engine->core, txn, &command, engine->batch.release->public.effects);
	failure->tick = rc != 0;
	failure->timer = core_tick_timer(engine->core);
	return rc;
}

/* Passes the effects since the last call to demand. *io_bytes grows by the size of their
 * deliveries. */
static void scan_effects(struct engine *engine, uint64_t *io_bytes)
{
	struct batch *batch = &engine->batch;
	const struct effects *effects = batch->release->public.effects;
	size_t count = effects_count(effects);

	invariant(batch->scanned <= count, "%zu effects were scanned of %zu", batch->scanned,
		  count);
	for (; batch->scanned < count; batch->scanned++) {
		const struct effect *effect = effects_at(effects, batch->scanned);

		if (effect->kind == FX_QUEUE_READY)
			demand_queue_ready(&engine->demand, effect->gateway, effect->id,
					   effect->orphan, effect->source);
		batch->replies += effect->kind == FX_REPLY;
		*io_bytes += effect->payload.len;
	}
}

static int claim_note_add(struct batch *batch, const struct consumer *consumer)
{
	if (batch->claim_count == batch->claim_capacity) {
		size_t capacity = batch->claim_capacity == 0 ? 64 : batch->claim_capacity * 2;
		struct claim_note *claims = realloc(batch->claims, capacity * sizeof(*claims));

		if (claims == NULL)
			return SLUICE_E_NOMEM;
		batch->claims = claims;
		batch->claim_capacity = capacity;
	}
	demand_note(consumer, &batch->claims[batch->claim_count++]);
	return 0;
}

static int claim_run(struct engine *engine, struct store_txn *txn, struct consumer *consumer,
		     const struct command *command, const struct cmd_claim *claim)
{
	struct batch *batch = &engine->batch;
	const struct effect *last;
	int rc = claim_note_add(batch, consumer);

	if (rc == 0)
		rc = origin_add(batch, consumer->key.sink, consumer->key.tag, ORIGIN_CONSUMER);
	if (rc == 0)
		rc = core_apply(engine->core, txn, command, batch->release->public.effects);
	if (rc != 0)
		return rc;
	batch->commands++;
	last = effects_at(batch->release->public.effects,
			  effects_count(batch->release->public.effects) - 1);
	invariant(last->kind == FX_REPLY && last->command + 1 == batch->origin_count,
		  "a claim ends with effect %d of command %u, expected the reply of %zu",
		  (int)last->kind, last->command, batch->origin_count - 1);
	demand_claimed(&engine->demand, consumer, claim, last->outcome);
	return 0;
}

/* Effects of the last claim too are scanned before this returns: they may make entries ready. */
static int apply_claims(struct engine *engine, struct store_txn *txn, struct batch_failure *failure)
{
	struct batch *batch = &engine->batch;
	uint64_t bytes = 0;
	struct command command;
	struct cmd_claim claim;
	const bool draining = atomic_load_explicit(&engine->draining, memory_order_relaxed);

	for (;;) {
		struct consumer *consumer;
		int rc;

		scan_effects(engine, &bytes);
		if (draining)
			return 0;
		if (batch->claim_count >= batch->claim_max || bytes > CLAIMED_BYTES_PER_BATCH_MAX)
			return 0;
		consumer = demand_next(&engine->demand, &command, &claim);
		if (consumer == NULL)
			return 0;
		failure->claimer = consumer->key;
		rc = claim_run(engine, txn, consumer, &command, &claim);
		if (rc != 0)
			return rc;
		/* a later failure is not caused by this consumer */
		failure->claimer = (struct consumer_key){0};
	}
}

static void claims_undo(struct engine *engine)
{
	struct batch *batch = &engine->batch;

	while (batch->claim_count > 0)
		demand_undo(&engine->demand, &batch->claims[--batch->claim_count]);
}

/* Core refuses a CLAIM that reads a damaged record. Damage that a write meets ends here: the batch
 * runs again without this claim. */
static int claim_refuse(struct batch *batch, const struct consumer_key *key)
{
	if (batch->refused_count == batch->refused_capacity) {
		size_t capacity = batch->refused_capacity == 0 ? 16 : batch->refused_capacity * 2;
		struct consumer_key *refused = realloc(batch->refused, capacity * sizeof(*refused));

		if (refused == NULL)
			return SLUICE_E_NOMEM;
		batch->refused = refused;
		batch->refused_capacity = capacity;
	}
	batch->refused[batch->refused_count++] = *key;
	return 0;
}

/* Replies to consumers whose claim met damage on a write. Claims have no order: they follow those
 * that succeeded. */
static int add_claim_refusals(struct batch *batch)
{
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < batch->refused_count; i++)
		rc = add_forced_reply(batch, batch->refused[i].sink, batch->refused[i].tag,
				      ORIGIN_CONSUMER, SLUICE_E_CORRUPT,
				      sluice_error_text(SLUICE_E_CORRUPT));
	return rc;
}

/* Each command of the batch, whether applied or refused before, has exactly one reply; a TICK has
 * none. */
static void replies_check(const struct batch *batch)
{
	size_t forced = batch->refused_count;

	for (size_t i = batch->first; i < batch->end; i++) {
		const struct submission *submission = batch->submissions[i];

		forced += submission->forced_code != 0 && submission->sink != NULL;
	}
	invariant(batch->replies == batch->commands + forced,
		  "%zu replies to %llu commands and %zu refusals", batch->replies,
		  (unsigned long long)batch->commands, forced);
	invariant(batch->scanned == effects_count(batch->release->public.effects),
		  "%zu effects were scanned of %zu", batch->scanned,
		  effects_count(batch->release->public.effects));
}

static int apply_all(struct engine *engine, struct store_txn *txn, struct batch_clock clock,
		     struct batch_failure *failure)
{
	uint64_t bytes = 0;
	int rc = core_batch_begin(engine->core, txn, clock);

	if (rc == 0)
		rc = apply_submissions(engine, txn, failure);
	if (rc == 0)
		rc = apply_tick(engine, txn, clock, failure);
	if (rc == 0)
		rc = apply_claims(engine, txn, failure);
	if (rc == 0)
		rc = core_batch_end(engine->core, txn, engine->batch.release->public.effects);
	if (rc == 0)
		rc = core_next_deadline(engine->core, txn, &engine->next_deadline_ms);
	if (rc == 0)
		rc = add_claim_refusals(&engine->batch);
	if (rc != 0)
		return rc;
	scan_effects(engine, &bytes);
	replies_check(&engine->batch);
	return 0;
}

static void run_undo(struct engine *engine)
{
	struct batch *batch = &engine->batch;

	core_batch_abort(engine->core);
	effects_clear(batch->release->public.effects);
	batch->origin_count = 0;
	batch->scanned = batch->replies = 0;
	batch->commands = 0;
	claims_undo(engine);
	atomic_fetch_add(&engine->aborted, 1);
}

/* ---- commit and release ---- */

/* Without its timer a session would never expire, or too early. After a failure here the next start
 * gives it one. */
static void session_seen(struct engine *engine, const struct effect *effect)
{
	struct session_seen seen = {.gateway = effect->gateway,
				    .session = effect->id,
				    .timeout_ms = effect->lease_ms,
				    .named = effect->count != 0,
				    .opened = effect->kind == FX_SESSION_OPENED,
				    .standing = (effect->flags & SESSION_STANDING) != 0,
				    .address = effect->name};
	int rc = effect->kind == FX_SESSION_OPENED
			 ? heartbeats_add(&engine->heartbeats, &seen, engine->live_ms)
			 : heartbeats_alter(&engine->heartbeats, &seen, engine->live_ms);

	if (rc != 0)
		memory_fail_stop("a session's heartbeat");
}

static void handle_committed(struct engine *engine)
{
	const struct effects *effects = engine->batch.release->public.effects;
	size_t count = effects_count(effects);

	for (size_t i = 0; i < count; i++) {
		const struct effect *effect = effects_at(effects, i);

		switch (effect->kind) {
		case FX_SESSION_OPENED:
		case FX_SESSION_ALTERED:
			session_seen(engine, effect);
			break;
		case FX_SESSION_ENDED:
			heartbeats_remove(&engine->heartbeats, effect->gateway, effect->id);
			log_line(LOG_LEVEL_DEBUG, log_id("session.ended", "a session has ended"),
				 log_u64("gateway", effect->gateway),
				 log_u64("session", effect->id));
			break;
		case FX_QUEUE_DELETED:
			demand_queue_deleted(&engine->demand, effect->gateway, effect->id);
			break;
		case FX_ITEM_DAMAGED:
			log_line(LOG_LEVEL_ERROR,
				 log_id("store.corrupt", "a stored record is damaged; operations "
							 "that need it are refused"),
				 log_str("record", effect->name.data));
			break;
		case FX_REPLY:
			invariant(effect->command < engine->batch.origin_count,
				  "a reply to command %u of %zu", effect->command,
				  engine->batch.origin_count);
			if (engine->batch.origins[effect->command].kind == ORIGIN_CONSUMER &&
			    effect->outcome->code == SLUICE_E_CORRUPT)
				log_line(LOG_LEVEL_ERROR,
					 log_id("store.corrupt",
						"a stored record is damaged; operations that need "
						"it are refused"),
					 log_str("record", effect->outcome->text));
			break;
		default:
			break;
		}
	}
}

static void release_post(struct engine *engine)
{
	struct batch *batch = &engine->batch;
	struct release_impl *release = batch->release;

	invariant(batch->scanned == effects_count(release->public.effects),
		  "release %llu: %zu effects were scanned of %zu",
		  ULL(core_batch_number(engine->core)), batch->scanned,
		  effects_count(release->public.effects));
	release->origins = batch->origins;
	release->public.origins = batch->origins;
	release->public.origin_count = batch->origin_count;
	release->public.number = core_batch_number(engine->core);
	release->public.bytes = sizeof(*release) + effects_bytes(release->public.effects) +
				batch->origin_capacity * sizeof(*batch->origins);
	batch->release = NULL;
	batch->origins = NULL;
	batch->origin_count = batch->origin_capacity = 0;
	batch->claim_count = batch->refused_count = 0;
	batch->scanned = batch->replies = 0;
	lag_post(engine, release);
}

/* ---- decisions after an aborted run ---- */

static void log_damage(void)
{
	log_line(LOG_LEVEL_ERROR,
		 log_id("store.corrupt",
			"a stored record is damaged; operations that need it are refused"),
		 log_str("record", store_last_error()));
}

/* Refuses the command that met damage. Once too many commands were applied again, the part ends
 * with it, and the following parts are small. */
static void refuse_command(struct batch *batch, const struct batch_failure *failure)
{
	failure->submission->forced_code = SLUICE_E_CORRUPT;
	batch->reapplied += failure->position - batch->first;
	if (batch->part_max == PART_COMMANDS ||
	    batch->reapplied <= REAPPLIED_MIN + REAPPLIED_TIMES * batch->count)
		return;
	batch->part_max = PART_COMMANDS;
	batch->end = failure->position + 1;
}

/* Puts off the timer that met damage, or all timers if it is not known which one did. */
static void put_off_timer(struct engine *engine, const struct batch_failure *failure,
			  uint64_t mono_ms)
{
	struct timer_ref timer;

	if (!core_timer_read(failure->timer, &timer)) {
		engine->put_off_bytes = 0;
		engine->tick_hold_ms = mono_ms + 60000;
		return;
	}
	memcpy(engine->put_off, failure->timer.data, sizeof(engine->put_off));
	engine->put_off_bytes = sizeof(engine->put_off);
	log_line(LOG_LEVEL_ERROR,
		 log_id("engine.put_off",
			"a timer needs a damaged record; it is retried in a minute"),
		 log_u64("gateway", timer.gateway), log_u64("kind", timer.kind),
		 log_u64("of", timer.id), log_u64("sub", timer.sub));
}

/* Ends the consumer whose claim met damage. The claims before it are made again; after several such
 * failures, none. */
static int refuse_claimer(struct engine *engine, const struct batch_failure *failure, size_t claims)
{
	struct batch *batch = &engine->batch;
	int rc = claim_refuse(batch, &failure->claimer);

	if (rc != 0)
		return rc;
	demand_close(&engine->demand, failure->claimer.sink, failure->claimer.tag);
	batch->claim_max = ++batch->claim_failures > CLAIM_FAILURES_MAX ? 0 : claims - 1;
	return 0;
}

static bool refuse_damaged(struct engine *engine, const struct batch_failure *failure,
			   size_t claims, uint64_t mono_ms)
{
	log_damage();
	if (failure->submission != NULL)
		refuse_command(&engine->batch, failure);
	else if (failure->tick)
		put_off_timer(engine, failure, mono_ms);
	else
		return failure->claimer.sink != NULL &&
		       refuse_claimer(engine, failure, claims) == 0;
	return true;
}

/* Marks what must be refused so that the next run can succeed. claims: number of claims in the
 * undone run. False: nothing is left to refuse. */
static bool refuse_for(struct engine *engine, int rc, const struct batch_failure *failure,
		       size_t claims, struct batch_clock clock)
{
	if (rc == SLUICE_E_CORRUPT)
		return refuse_damaged(engine, failure, claims, clock.mono_ms);
	return rc == SLUICE_E_NO_SPACE && headroom_refuse(engine, failure->submission);
}

/* ---- a run: two phases ---- */

/* The first phase ends with all applied in an open transaction: until then every command can be
 * refused. The second one makes it final. */
struct run {
	struct store_txn *txn;
	struct batch_failure failure;
	struct commit_watch watch;
	bool applied; /* the first phase is over */
};

static int run_begin(struct engine *engine, struct batch_clock clock, struct run *run)
{
	int rc = store_begin(engine->store, &run->txn);

	if (rc != 0)
		return rc;
	rc = apply_all(engine, run->txn, clock, &run->failure);
	if (rc != 0)
		store_abort(run->txn);
	return rc;
}

/* The first phase. After a failure there is no transaction. */
static int run_apply(struct engine *engine, struct batch_clock clock, struct run *run)
{
	const uint64_t deadline_ms = engine->next_deadline_ms;
	int rc;

	memset(run, 0, sizeof(*run));
	commit_watch_begin(&run->watch);
	rc = run_begin(engine, clock, run);
	if (rc != 0 || !engine->config.abort_every_batch)
		return rc;
	store_abort(run->txn);
	run_undo(engine);
	engine->next_deadline_ms = deadline_ms;
	return run_begin(engine, clock, run);
}

/* The second phase. With replicas the batch is in their journal by then: a failure ends the
 * process. */
static int run_commit(struct engine *engine, struct run *run)
{
	int rc;

	run->applied = true;
	engine->batch.damaged = store_txn_damaged(run->txn);
	commit_watch_applied(&run->watch);
	rc = store_commit(run->txn);
	commit_watch_end(&run->watch, engine, rc);
	return rc;
}

/* After a commit that failed: whether the batch may run again, with publishes refused. Only without
 * room, because then nothing was written, and only because nobody but this broker has the batch.
 * After everything else its outcome is unknown. */
static bool commit_refused(struct engine *engine, int rc)
{
	return rc == SLUICE_E_NO_SPACE && headroom_refuse(engine, NULL);
}

/* Runs until a run is committed, or nothing is left to refuse. */
static int run_all(struct engine *engine, struct batch_clock clock)
{
	/* of the committed state: a TICK that is undone is still due */
	const uint64_t deadline_ms = engine->next_deadline_ms;
	struct batch *batch = &engine->batch;
	struct run run;
	size_t claims;
	int rc;

	for (;;) {
		rc = run_apply(engine, clock, &run);
		if (rc == 0)
			rc = run_commit(engine, &run);
		if (rc == 0)
			return 0;
		claims = batch->claim_count;
		run_undo(engine);
		engine->next_deadline_ms = deadline_ms;
		if (run.applied ? !commit_refused(engine, rc)
				: !refuse_for(engine, rc, &run.failure, claims, clock))
			return rc;
	}
}

/* Logged once: what each of them met is logged as store.corrupt, and the status has the count. */
static void count_damaged(struct engine *engine)
{
	if (atomic_fetch_add(&engine->commits_damaged, 1) > 0)
		return;
	log_line(LOG_LEVEL_WARN,
		 log_id("engine.damaged",
			"a commit went around a damaged record: the store differs "
			"from one without this damage; the status counts such "
			"commits from now on"),
		 log_u64("batch", core_batch_number(engine->core)));
}

/* One commit: the submissions from batch->first on, usually all of them. */
static int run_part(struct engine *engine, struct batch_clock clock)
{
	struct batch *batch = &engine->batch;
	int rc = release_new(&batch->release);

	if (rc != 0)
		return rc;
	invariant(batch->claim_count == 0 && batch->refused_count == 0 &&
			  batch->origin_count == 0 && batch->replies == 0,
		  "a batch begins with %zu claims, %zu refusals, %zu commands and %zu replies",
		  batch->claim_count, batch->refused_count, batch->origin_count, batch->replies);
	batch->end = batch->count - batch->first < batch->part_max ? batch->count
								   : batch->first + batch->part_max;
	batch->claim_max = engine->config.claims_max; /* the next batch serves the others */
	batch->claim_failures = 0;
	(void)lag_check(engine);
	rc = run_all(engine, clock);
	if (rc != 0) {
		release_unref(batch->release);
		batch->release = NULL;
		return rc;
	}
	engine->put_off_bytes = 0;
	atomic_fetch_add(&engine->commits, 1);
	atomic_fetch_add(&engine->commands, batch->end - batch->first + batch->claim_count);
	if (batch->damaged > 0)
		count_damaged(engine);
	batch->commands = 0;
	handle_committed(engine);
	release_post(engine);
	return 0;
}

/* Commands that the commit was ended before return to their lanes. */
static void give_back(struct engine *engine)
{
	struct batch *batch = &engine->batch;

	while (batch->count > batch->end) {
		struct submission *submission = batch->submissions[--batch->count];

		submission->forced_code = 0; /* admission decides again */
		batch->bytes -= submission->bytes;
		shares_return(&engine->shares, &engine->taken, submission);
	}
}

int batch_run(struct engine *engine, struct batch_clock clock)
{
	struct batch *batch = &engine->batch;
	int rc = 0;

	batch->first = batch->reapplied = 0;
	batch->part_max = SIZE_MAX;
	do {
		batch->ended_early = false;
		rc = run_part(engine, clock);
		invariant(batch->first <= batch->end && batch->end <= batch->count,
			  "a part from %zu to %zu of %zu", batch->first, batch->end, batch->count);
		if (rc == 0)
			shares_charge(&engine->shares, batch->submissions + batch->first,
				      batch->end - batch->first, batch->work);
		if (rc == 0 && batch->ended_early)
			give_back(engine);
		batch->first = batch->end;
	} while (rc == 0 && batch->first < batch->count);
	return rc;
}

void batch_release_all(struct engine *engine)
{
	struct batch *batch = &engine->batch;
	uint64_t bytes = 0;

	for (size_t i = 0; i < batch->count; i++) {
		bytes += batch->submissions[i]->bytes;
		/* The engine's own were never in the inbox. */
		if (batch->submissions[i]->sink != NULL)
			inbox_answered(&engine->inbox, batch->submissions[i]->bytes);
		if (engine->moved.conns != NULL)
			moved_answered(&engine->moved, batch->submissions[i]);
		batch->submissions[i]->destroy(batch->submissions[i]);
	}
	invariant(bytes == batch->bytes, "a batch of %llu bytes has %llu", ULL(batch->bytes),
		  ULL(bytes));
	batch->count = 0;
	batch->bytes = 0;
}

void batch_fini(struct batch *batch)
{
	free(batch->submissions);
	free(batch->origins);
	free(batch->claims);
	free(batch->refused);
	release_unref(batch->release);
}
