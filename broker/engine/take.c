/* SPDX-License-Identifier: Apache-2.0
 * What enters the next batch: sessions that expire, and commands, which are admitted here. */
#include "broker/engine/take.h"

#include <stdlib.h>

#include "broker/engine/engine_internal.h"
#include "broker/util/invariant.h"

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

	/* BUSY: the batch has done enough, and the next one follows at once. */
	heartbeats_again(&expiry->engine->heartbeats, submission->command.gateway,
			 expiry->body.session,
			 expiry->engine->live_ms +
				 (submission->forced_code == SLUICE_E_BUSY ? 0 : EXPIRY_AGAIN_MS));
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

int take_expired(struct engine *engine)
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
	engine->batch.expired = engine->batch.count;
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

/* What depends on the version of this broker is refused before the batch: a newer version that
 * applies the same batch knows the level. */
static int level_admit(const struct command *command)
{
	const Sluice__LevelRaise *raise = (const Sluice__LevelRaise *)command->message;

	return raise->level > CORE_LEVEL ? SLUICE_E_UNSUPPORTED : 0;
}

/* Admission is decided here, before a command enters a batch. bytes_max: of the whole batch. */
int take_lane(struct engine *engine, struct lane *lane, uint64_t bytes_max)
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
		else if (submission->command.type == COMMAND_LEVEL_RAISE)
			refused_code = level_admit(&submission->command);
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
