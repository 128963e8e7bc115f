/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking the lead. Whatever a start writes is a command: BOOT, and LEVEL_RAISE, which a broker that
 * is alone submits by itself. Their batch is like every other one, but a refusal or damage in it is
 * a failed start, not one command less.
 */
#include "broker/engine/lead.h"

#include <string.h>

#include "broker/engine/engine_internal.h"
#include "broker/engine/release.h"

/* Whether it was used before the start is not known. */
static int session_arm(void *user, const struct session_row *row)
{
	struct engine *engine = user;
	struct session_seen seen = {.gateway = row->gateway,
				    .session = row->session,
				    .timeout_ms = row->timeout_ms,
				    .used = true,
				    .standing = (row->flags & SESSION_STANDING) != 0,
				    .ends = (row->flags & SESSION_EPHEMERAL) != 0,
				    .address = row->address};

	return heartbeats_add(&engine->heartbeats, &seen, engine->live_ms);
}

/* One command that must not be refused. */
static int apply_one(struct engine *engine, struct store_txn *txn, const struct command *command,
		     struct effects *effects)
{
	const struct effect *last;
	int rc = core_apply(engine->core, txn, command, effects);

	if (rc != 0)
		return rc;
	last = effects_at(effects, effects_count(effects) - 1);
	return last->outcome->code;
}

static int lead_apply(struct engine *engine, struct store_txn *txn, struct batch_clock clock,
		      const struct cmd_boot *boot, struct effects *effects)
{
	Sluice__LevelRaise raise = SLUICE__LEVEL_RAISE__INIT;
	struct command first = {.type = COMMAND_BOOT, .body = boot};
	struct command second = {.type = COMMAND_LEVEL_RAISE, .gateway = 1, .message = &raise.base};
	uint32_t level = 0;
	int rc = core_batch_begin(engine->core, txn, clock);

	raise.level = CORE_LEVEL;
	if (rc == 0)
		rc = apply_one(engine, txn, &first, effects);
	if (rc == 0)
		rc = core_level_read(txn, &level);
	if (rc == 0 && level < raise.level)
		rc = apply_one(engine, txn, &second, effects);
	if (rc == 0)
		rc = core_batch_end(engine->core, txn, effects);
	return rc != 0 ? rc : core_next_deadline(engine->core, txn, &engine->next_deadline_ms);
}

static int lead_run(struct engine *engine, struct batch_clock clock, const struct cmd_boot *boot,
		    bool commit, struct effects *effects)
{
	struct store_txn *txn = NULL;
	int rc = store_begin(engine->store, &txn);

	if (rc != 0)
		return rc;
	rc = lead_apply(engine, txn, clock, boot, effects);
	effects_clear(effects);
	if (rc == 0 && commit)
		rc = core_session_each(txn, session_arm, engine);
	if (rc == 0 && commit)
		return store_commit(txn);
	store_abort(txn);
	core_batch_abort(engine->core);
	return rc;
}

int lead_commit(struct engine *engine, struct batch_clock clock, const struct cmd_boot *boot)
{
	struct effects *effects;
	int rc = effects_create(&effects);

	if (rc != 0)
		return rc;
	if (engine->config.abort_every_batch)
		rc = lead_run(engine, clock, boot, false, effects);
	if (rc == 0)
		rc = lead_run(engine, clock, boot, true, effects);
	effects_destroy(effects);
	return rc;
}
