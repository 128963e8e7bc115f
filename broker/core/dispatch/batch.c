/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of a batch, and dispatch by the command table. Every command of a gateway has the next
 * index of the gateway (epoch 16 bits, counter 48), also a refused one; TICK uses one per gateway
 * in which a timer was due (tick.c).
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
	if (rc == 0)
		rc = effects_create(&core->bootstrap_effects);
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
	effects_destroy(core->bootstrap_effects);
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

/* ---- bootstrap, boot ---- */

int core_bootstrap(struct core *core, struct store_txn *txn, struct batch_clock clock)
{
	uint8_t format[FORMAT_BYTES];
	struct sluice_slice value;
	uint32_t version;
	uint64_t gateway;
	struct apply a;
	int rc = store_get(txn, STORE_META, format_key(), &value);

	if (rc == 0)
		return format_decode(value, &version) && version == FORMAT_VERSION
			       ? 0
			       : SLUICE_E_SCHEMA;
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = batch_open(core, txn, clock);
	if (rc == 0)
		rc = age_read(txn, &core->age);
	if (rc != 0)
		return rc;
	if (core->age.epoch == UINT64_MAX)
		core->age.epoch = clock.wall_ms - clock.mono_ms;
	apply_init(&a, core, txn, core->bootstrap_effects, 0);
	format_encode(format, FORMAT_VERSION);
	rc = counter_next(&a, COUNTER_GATEWAY, &gateway);
	if (rc == 0) {
		a.gateway = (uint32_t)gateway;
		rc = gateway_install(&a, (struct sluice_slice){"default", 7});
	}
	if (rc == 0)
		rc = store_put(txn, STORE_META, format_key(),
			       (struct sluice_slice){format, sizeof(format)});
	effects_clear(core->bootstrap_effects);
	router_cache_drop(core->routers);
	return rc;
}

int core_boot(struct core *core, struct store_txn *txn, struct batch_clock clock)
{
	struct apply a;
	int rc = batch_open(core, txn, clock);

	if (rc == 0)
		rc = age_read(txn, &core->age);
	if (rc != 0)
		return rc;
	/* Sessions need nothing: the engine keeps their timers, which start anew. */
	apply_init(&a, core, txn, core->bootstrap_effects, 0);
	rc = queue_boot(&a);
	effects_clear(core->bootstrap_effects);
	return rc;
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
	rc = age_read(txn, &core->age);
	if (rc == 0 && (core->age.doubting || core->age.epoch == UINT64_MAX))
		rc = age_batch(txn, core->clock, &core->age);
	return rc;
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

/* Gateways are numbered from 1 and never deleted. */
static int gateway_check(struct apply *a, struct outcome *out)
{
	uint64_t last;
	int rc = counter_get(a->txn, 0, COUNTER_GATEWAY, &last);

	if (rc == 0 && (a->gateway == 0 || a->gateway > last))
		return refuse(out, SLUICE_E_NOT_FOUND, "gateway number %u does not exist",
			      a->gateway);
	return rc;
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
	if (command->type == COMMAND_TICK)
		return tick_apply(&a, command->body, out);
	rc = gateway_check(&a, out);
	if (rc == 0 && !refused(out)) {
		rc = counter_next(&a, COUNTER_INDEX, &a.index);
		out->index = a.index;
		invariant(rc != 0 || a.index > 0, "a command of type %u has no index",
			  command->type);
		if (rc == 0)
			rc = dispatch(&a, command, out);
		if (rc == 0)
			rc = pending_flush(&a);
	}
	if (rc != 0)
		return rc;
	text_repair(out->text); /* it was formatted into a fixed buffer */
	reply.command = a.position;
	reply.outcome = out;
	return effects_add(effects, &reply);
}
