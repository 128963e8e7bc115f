/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a batch, and dispatch by the command table. Every command of a gateway has the next
 * index of the gateway (epoch 16 bits, counter 48), also a refused one; TICK uses one per gateway
 * in which a timer was due (tick.c), BOOT none.
 */
#include <stdlib.h>

#include "broker/core/base/age.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/meta.h"
#include "broker/core/base/state.h"
#include "broker/core/dispatch/dispatch.h"
#include "broker/core/job/live.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/queue/queue.h"
#include "broker/core/router/image.h"
#include "broker/core/stream/stream.h"
#include "broker/util/invariant.h"
#include "protocol/text.h"

/* ---- create, destroy ---- */

int core_create(struct core **ret)
{
	struct core *core = calloc(1, sizeof(*core));
	int rc;

	if (core == NULL)
		return SLUICE_E_NOMEM;
	core->owned = session_owned_ops;
	rc = lifecycle_cache_create(&core->lifecycles);
	if (rc == 0)
		rc = router_cache_create(&core->routers);
	if (rc != 0) {
		core_destroy(core);
		return rc;
	}
	*ret = core;
	return 0;
}

void core_destroy(struct core *core)
{
	if (core == NULL)
		return;
	lifecycle_cache_destroy(core->lifecycles);
	router_cache_destroy(core->routers);
	for (size_t i = 0; i < PENDING_LOGS_MAX; i++)
		free(core->pending[i].envelopes.data);
	free(core->grown);
	free(core->envelope.data);
	free(core->targets.data);
	free(core->puts.data);
	free(core->answers.data);
	free(core);
}

/* Gives the batch its clock and its number. */
static int batch_open(struct core *core, struct store_txn *txn, struct batch_clock clock)
{
	struct clock_record record;
	int rc = clock_read(txn, &record);

	if (rc != 0)
		return rc;
	/* Stored, so a caller with a wrong clock cannot turn it back. */
	if (clock.mono_ms < record.clock.mono_ms)
		clock.mono_ms = record.clock.mono_ms;
	record = (struct clock_record){clock, record.batch + 1};
	core->clock = clock;
	core->batch = record.batch;
	core->position = 0;
	return clock_write(txn, &record);
}

uint64_t core_batch_number(const struct core *core)
{
	return core->batch;
}

/* ---- batches ---- */

/* A command leaves no pending events to the next. */
static void nothing_pends(const struct core *core)
{
	for (size_t i = 0; i < PENDING_LOGS_MAX; i++)
		invariant(core->pending[i].count == 0, "%u events of stream %llu are not stored",
			  (unsigned)core->pending[i].count, ULL(core->pending[i].stream));
}

int core_batch_begin(struct core *core, struct store_txn *txn, struct batch_clock clock)
{
	int rc = batch_open(core, txn, clock);

	if (rc != 0)
		return rc;
	nothing_pends(core);
	core->grown_count = 0;
	core->work = (struct core_work){0};
	router_cache_begin(core->routers);
	core->aged = false;
	rc = age_read(txn, &core->age);
	return rc != 0 ? rc : core_level_read(txn, &core->level);
}

struct core_work core_batch_work(const struct core *core)
{
	return core->work;
}

int core_batch_end(struct core *core, struct store_txn *txn, struct effects *effects)
{
	nothing_pends(core);
	return stream_grown_emit(core, txn, effects);
}

void core_batch_abort(struct core *core)
{
	pending_drop(core);
	core->grown_count = 0;
	core->fires = false;
	lifecycle_cache_drop(core->lifecycles);
	router_cache_abort(core->routers);
}

static int dispatch(struct apply *a, const struct command *command, struct outcome *out)
{
	switch (command->type) {
#define PB(NAME, number, Message, message_field, permission, headroom, handler, text) \
	case COMMAND_##NAME:                                                          \
		return handler(a, (const Sluice__##Message *)command->message, out);
#define BIN(NAME, number, body_struct, permission, headroom, handler, text) \
	case COMMAND_##NAME:                                                \
		return handler(a, (const struct body_struct *)command->body, out);
#include "broker/core/commands.def"
#undef PB
#undef BIN
	default:
		return refuse(out, SLUICE_E_UNKNOWN_TYPE, "command type %u is unknown",
			      command->type);
	}
}

/* Ages go on with the batch's clock. Not before BOOT, which says what this clock is: how long the
 * broker was away is not time that the wall clock has confirmed. */
static int age_on(struct core *core, struct store_txn *txn)
{
	core->aged = true;
	if (!core->age.doubting && core->age.epoch != UINT64_MAX)
		return 0;
	return age_batch(txn, core->clock, &core->age);
}

/* A command of a gateway. Every gateway has an index, from its first moment on. */
static int command_apply(struct apply *a, const struct command *command, struct outcome *out)
{
	uint64_t last;
	int rc = counter_get(a->txn, a->gateway, COUNTER_INDEX, &last);

	if (rc == 0 && last == 0)
		return refuse(out, SLUICE_E_NOT_FOUND, "gateway number %u does not exist",
			      a->gateway);
	if (rc != 0)
		return rc;
	invariant(last < UINT64_MAX, "the index of gateway %u is used up", a->gateway);
	a->index = out->index = last + 1;
	rc = counter_set(a, COUNTER_INDEX, a->index);
	if (rc == 0)
		rc = dispatch(a, command, out);
	return rc != 0 ? rc : pending_flush(a);
}

int core_apply(struct core *core, struct store_txn *txn, const struct command *command,
	       struct effects *effects)
{
	struct effect reply = {.kind = FX_REPLY, .gateway = command->gateway};
	struct outcome *out = effects_alloc(effects, sizeof(*out));
	struct apply a;
	int rc = 0;

	if (out == NULL)
		return SLUICE_E_NOMEM;
	memset(out, 0, sizeof(*out));
	apply_init(&a, core, txn, effects, command->gateway);
	a.session = command->session;
	a.random = command->random;
	core->position++;
	core->begun = core->work;
	if (!core->aged && command->type != COMMAND_BOOT)
		rc = age_on(core, txn);
	if (rc != 0)
		return rc;
	if (command->type == COMMAND_TICK)
		return tick_apply(&a, command->body, out);
	if (command->type == COMMAND_BOOT)
		rc = boot_apply(&a, command->body, out);
	else
		rc = command_apply(&a, command, out);
	if (rc != 0)
		return rc;
	text_repair(out->text); /* it was formatted into a fixed buffer */
	reply.command = a.position;
	reply.outcome = out;
	reply.payload = a.payload;
	return effects_add(effects, &reply);
}

void core_skip(struct core *core)
{
	core->position++;
}
