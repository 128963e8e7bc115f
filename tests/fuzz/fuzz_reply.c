/* SPDX-License-Identifier: Apache-2.0
 *
 * Replies: for all texts in commands, every answer and every reply to a read is valid for a strict
 * reader. The input is a list of steps: u8 kind, u16 length, bytes; see step(). After the last step
 * everything is read.
 */
#include "broker/core/base/state.h"
#include "broker/core/core.h"
#include "broker/store/store.h"
#include "fuzz.h"
#include "broker/util/bytes.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "protocol/utf8.h"

struct world {
	struct store *store;
	struct core *core;
	struct effects *effects;
	struct batch_clock clock;
	uint32_t gateway;
	uint64_t session, token;
};

static struct sluice_slice text(const char *string)
{
	return (struct sluice_slice){string, strlen(string)};
}

static bool is_text(const char *string)
{
	return utf8_valid(text(string));
}

/* One command in a batch of its own; its outcome. */
static struct outcome apply(struct world *world, uint16_t type, const void *body)
{
	struct command command = {.type = type,
				  .gateway = world->gateway,
				  .session = world->session,
				  .random = 1};
	struct outcome out = {0};
	struct store_txn *txn;

	command.body = body;
	effects_clear(world->effects);
	world->clock.mono_ms++;
	REQUIRE(store_begin(world->store, &txn) == 0);
	REQUIRE(core_batch_begin(world->core, txn, world->clock) == 0);
	REQUIRE(core_apply(world->core, txn, &command, world->effects) == 0);
	REQUIRE(core_batch_end(world->core, txn, world->effects) == 0);
	REQUIRE(store_commit(txn) == 0);
	for (size_t i = 0; i < effects_count(world->effects); i++) {
		const struct effect *effect = effects_at(world->effects, i);

		if (effect->kind == FX_GRANT)
			world->token = effect->token;
		if (effect->kind != FX_REPLY)
			continue;
		out = *effect->outcome;
		REQUIRE(is_text(out.text) && is_text(out.state));
	}
	return out;
}

static void read_all(struct world *world, Sluice__Request__OpCase op, void *message)
{
	struct query_clock clock = {world->clock.mono_ms, world->clock.wall_ms};
	Sluice__Request request = SLUICE__REQUEST__INIT;
	ProtobufCMessage *reply = NULL;
	const char *why = NULL;
	struct store_txn *txn;
	uint8_t *packed = NULL;
	size_t bytes = 0;

	request.op_case = op;
	request.job_show = message; /* all members of the oneof are message pointers */
	REQUIRE(store_begin_read(world->store, &txn) == 0);
	REQUIRE(core_query(txn, world->gateway, clock, &request, &packed, &bytes) == 0);
	store_abort(txn);
	REQUIRE(message_unpack(&sluice__reply__descriptor, (struct sluice_slice){packed, bytes},
			       LIMIT_FRAME_BYTES_MAX, &reply, &why) == 0);
	protobuf_c_message_free_unpacked(reply, NULL);
	free(packed);
}

#define READ(OP, Type, INIT, ...)                                   \
	do {                                                        \
		Sluice__##Type m = SLUICE__##INIT##__INIT;          \
		__VA_ARGS__;                                        \
		read_all(world, SLUICE__REQUEST__OP_##OP, &m.base); \
	} while (0)

static void read_everything(struct world *world)
{
	static char queue[] = "q", job[] = "job";

	READ(QUEUE_PEEK, QueuePeek, QUEUE_PEEK, m.name = queue);
	READ(QUEUE_LIST, QueueList, QUEUE_LIST, (void)m);
	READ(SESSION_LIST, SessionList, SESSION_LIST, (void)m);
	READ(JOB_LIST, JobList, JOB_LIST, (void)m);
	READ(JOB_SHOW, JobShow, JOB_SHOW, m.job = job; m.payload = true);
	READ(JOB_HISTORY, JobHistory, JOB_HISTORY, m.job = job);
	READ(JOB_EXPLAIN, JobExplain, JOB_EXPLAIN, m.job = job);
	READ(QUARANTINE_LIST, QuarantineList, QUARANTINE_LIST, (void)m);
	READ(AUDIT, Audit, AUDIT, (void)m);
	READ(STATUS_GET, StatusGet, STATUS_GET, (void)m);
}

/* Creates what a queue of items and a job need before their texts are tried. */
static void begin(struct world *world)
{
	struct cmd_session_open open = {.name = text("holder"),
					.client = text("fuzz"),
					.timeout_ms = 30000};
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	Sluice__JobSubmit submit = SLUICE__JOB_SUBMIT__INIT;
	struct store_txn *txn;

	memset(world, 0, sizeof(*world));
	world->clock = (struct batch_clock){1000, 1700000000000};
	REQUIRE(store_open_mem(&(struct store_options){.create = true}, &world->store) == 0);
	REQUIRE(core_create(&world->core) == 0 && effects_create(&world->effects) == 0);
	REQUIRE(store_begin(world->store, &txn) == 0);
	REQUIRE(core_batch_begin(world->core, txn, world->clock) == 0);
	REQUIRE(core_apply(world->core, txn,
			   &(struct command){.type = COMMAND_BOOT, .body = &(struct cmd_boot){0}},
			   world->effects) == 0);
	REQUIRE(core_batch_end(world->core, txn, world->effects) == 0);
	REQUIRE(core_gateway_find(txn, text("default"), &world->gateway) == 0);
	REQUIRE(store_commit(txn) == 0);
	world->session = apply(world, COMMAND_SESSION_OPEN, &open).id;
	config.name = (char *)(uintptr_t) "q";
	config.max_attempts = 2;
	create.config = &config;
	(void)apply(world, COMMAND_QUEUE_CREATE, &create);
	config.name = (char *)(uintptr_t) "j";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	(void)apply(world, COMMAND_QUEUE_CREATE, &create);
	submit.job = (char *)(uintptr_t) "job";
	submit.queue = (char *)(uintptr_t) "j";
	(void)apply(world, COMMAND_JOB_SUBMIT, &submit);
}

/* An item is put, claimed and given back with these bytes as its reason. */
static void give_back(struct world *world, struct sluice_slice reason)
{
	struct envelope envelope = {.body = text("body")};
	uint8_t bytes[64], run[12];
	struct frame_publish publish = {.count = 1,
					.subject = text("s"),
					.target_kind = PUBLISH_TO_QUEUE,
					.target = text("q")};
	struct cmd_claim claim = {.max = 1};
	struct cmd_ack ack = {.op = ACK_NACK,
			      .value_ms = 1000,
			      .run_count = 1,
			      .runs = run,
			      .reason = reason};
	struct store_txn *txn;
	struct queue_ref ref;

	if (reason.len > LIMIT_TEXT_BYTES_MAX)
		ack.reason.len = LIMIT_TEXT_BYTES_MAX;
	publish.payload = (struct sluice_slice){bytes, envelope_encode(bytes, &envelope)};
	publish.raw_bytes = (uint32_t)publish.payload.len;
	REQUIRE(store_begin_read(world->store, &txn) == 0);
	REQUIRE(core_queue_find(txn, world->gateway, text("q"), &ref) == 0);
	store_abort(txn);
	claim.queue = ack.queue = ref.id;
	(void)apply(world, COMMAND_PUBLISH, &publish);
	world->token = 0;
	(void)apply(world, COMMAND_CLAIM, &claim);
	ack.token = world->token;
	for (size_t i = 0; i < effects_count(world->effects); i++) {
		const struct effect *effect = effects_at(world->effects, i);

		if (effect->kind == FX_GRANT) {
			put_be64(run, effect->runs[0].first);
			put_be32(run + 8, 1);
		}
	}
	if (world->token != 0)
		REQUIRE(apply(world, COMMAND_ACK, &ack).code == 0);
}

/* As the listener does: unpacked with invalid texts repaired, then applied. */
static void message(struct world *world, uint16_t type, struct sluice_slice bytes)
{
	const struct command_spec *spec = command_spec(type);
	ProtobufCMessage *unpacked = NULL;
	const char *why = NULL;

	if (spec == NULL || spec->message == NULL)
		return;
	if (message_unpack(spec->message, bytes, LIMIT_COMMAND_BYTES_MAX, &unpacked, &why) != 0) {
		REQUIRE(why != NULL && is_text(why));
		return;
	}
	(void)apply(world, type, unpacked);
	protobuf_c_message_free_unpacked(unpacked, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sluice_slice left = {data, size};
	struct world world;

	begin(&world);
	while (left.len > 3) {
		uint8_t what = (uint8_t)take_number(&left, 1);
		struct sluice_slice bytes = take_bytes(&left, (size_t)take_number(&left, 2));

		if (what % 3 == 0) {
			give_back(&world, bytes);
		} else if (what % 3 == 1 && bytes.len >= 2) {
			uint16_t type = (uint16_t)take_number(&bytes, 2);

			message(&world, type, bytes);
		} else {
			struct cmd_session_open open = {.client = bytes, .timeout_ms = 30000};

			(void)apply(&world, COMMAND_SESSION_OPEN, &open);
		}
	}
	read_everything(&world);
	effects_destroy(world.effects);
	core_destroy(world.core);
	store_close(world.store);
	return 0;
}
