/* SPDX-License-Identifier: Apache-2.0
 * See engine_rig.h. */
#include "tests/unit/engine_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/envelope.h"

static void on_post(struct engine_sink *sink, struct engine_release *release)
{
	struct rig *rig = (struct rig *)sink;
	unsigned sessions_ended = 0;

	rig->releases++;
	for (size_t i = 0; i < effects_count(release->effects); i++) {
		const struct effect *effect = effects_at(release->effects, i);

		if (effect->kind == FX_REPLY &&
		    release->origins[effect->command].kind == ORIGIN_REQUEST) {
			rig->replies++;
			rig->last = *effect->outcome;
			rig->singles += effect->outcome->kind == OUT_PUBLISHED &&
					effect->outcome->count == 1;
			rig->refused += effect->outcome->code == SLUICE_E_CORRUPT;
		}
		if (effect->kind == FX_JOBS) {
			rig->jobs += effect->count;
			rig->jobs_tag = release->origins[effect->command].tag;
		}
		if (effect->kind == FX_REPLY &&
		    release->origins[effect->command].kind == ORIGIN_CONSUMER &&
		    effect->outcome->code == SLUICE_E_CORRUPT) {
			cr_expect_eq(release->origins[effect->command].tag, 7);
			rig->ended++;
		}
		sessions_ended += effect->kind == FX_SESSION_ENDED;
		if (effect->kind == FX_GRANT) {
			rig->grants++;
			rig->items += effect->count;
		}
	}
	rig->sessions_ended += sessions_ended;
	if (sessions_ended > rig->sessions_ended_at_once)
		rig->sessions_ended_at_once = sessions_ended;
	engine_release_done(rig->engine, sink, release);
}

static void on_kick(struct engine_sink *sink, uint64_t tag)
{
	(void)tag;
	((struct rig *)sink)->kicked++;
}

static void on_fail(void *user, int code, const char *text)
{
	(void)text;
	((struct rig *)user)->failed = code;
}

void rig_start(struct rig *rig, bool abort_every_batch)
{
	struct engine_config config = {.abort_every_batch = abort_every_batch,
				       .fail_stop = on_fail,
				       .user = rig,
				       .inbox_bytes_max = 64u << 20};

	rig->sink.post = on_post;
	rig->sink.kick = on_kick;
	rig->now = (struct batch_clock){1000, 1700000000000};
	cr_assert_eq(engine_create(&config, rig->store, rig->now, &rig->engine), 0);
	cr_assert_eq(engine_sink_add(rig->engine, &rig->sink), 0);
}

void rig_start_open(struct rig *rig, const struct engine_config *config)
{
	rig->sink.post = on_post;
	rig->sink.kick = on_kick;
	cr_assert_eq(engine_open(config, rig->store, &rig->engine), 0);
	cr_assert_eq(engine_sink_add(rig->engine, &rig->sink), 0);
}

void rig_open(struct rig *rig, bool abort_every_batch)
{
	struct store_options options = {.create = true};

	memset(rig, 0, sizeof(*rig));
	cr_assert_eq(store_open_mem(&options, &rig->store), 0);
	rig_start(rig, abort_every_batch);
}

void rig_close(struct rig *rig)
{
	engine_destroy(rig->engine);
	store_close(rig->store);
}

void rig_step(struct rig *rig)
{
	uint64_t wait = 0;

	while (wait == 0)
		if (engine_step(rig->engine, rig->now, &wait) != 0)
			return;
}

static void own_free(struct submission *submission)
{
	free(submission);
}

struct own *rig_own(struct rig *rig, uint16_t type, uint64_t session, size_t bytes)
{
	struct own *own = calloc(1, sizeof(*own) + bytes);

	cr_assert_not_null(own);
	own->submission.command = (struct command){.type = type, .gateway = 1, .session = session};
	own->submission.command.body = &own->open;
	own->submission.bytes = sizeof(*own) + bytes;
	own->submission.sink = &rig->sink;
	own->submission.destroy = own_free;
	return own;
}

uint64_t rig_session(struct rig *rig)
{
	struct own *own = rig_own(rig, COMMAND_SESSION_OPEN, 0, 0);

	own->open.timeout_ms = 5000;
	own->submission.control = true;
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
	rig_step(rig);
	cr_assert_eq(rig->last.code, 0);
	return rig->last.id;
}

int rig_put_counted(struct rig *rig, size_t body_bytes, uint64_t counted_bytes)
{
	static uint8_t body[1 << 20];
	struct envelope envelope = {.body = {body, body_bytes}};
	struct own *own = rig_own(rig, COMMAND_PUBLISH, 0, body_bytes + 64);
	int rc;

	own->publish.target_kind = PUBLISH_TO_QUEUE;
	own->publish.count = 1;
	own->publish.subject = (struct sluice_slice){"s", 1};
	own->publish.target = (struct sluice_slice){"dead-letter", 11};
	own->publish.payload =
		(struct sluice_slice){own->bytes, envelope_encode(own->bytes, &envelope)};
	own->publish.raw_bytes = (uint32_t)own->publish.payload.len;
	if (counted_bytes != 0)
		own->submission.bytes = counted_bytes;
	rc = engine_submit(rig->engine, &own->submission);
	if (rc != 0)
		free(own);
	return rc;
}

int rig_put(struct rig *rig, size_t body_bytes)
{
	return rig_put_counted(rig, body_bytes, 0);
}

uint64_t rig_dead_letter(struct rig *rig)
{
	struct store_txn *txn = NULL;
	struct queue_ref ref;

	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(core_queue_find(txn, 1, (struct sluice_slice){"dead-letter", 11}, &ref), 0);
	store_abort(txn);
	return ref.id;
}

void rig_consume(struct rig *rig, uint64_t session, uint32_t credit)
{
	struct consumer_spec spec = {.gateway = 1,
				     .queue = rig_dead_letter(rig),
				     .session = session,
				     .credit = credit,
				     .sink = &rig->sink,
				     .tag = 7};

	cr_assert_eq(engine_consumer_open(rig->engine, &spec), 0);
}

struct copied {
	struct submission submission;
	struct command *command;
};

static void copied_free(struct submission *submission)
{
	struct copied *copied = (struct copied *)submission;

	command_free(copied->command);
	free(copied);
}

void rig_send(struct rig *rig, uint16_t type, uint64_t session, const void *body)
{
	struct command command = {.type = type, .gateway = 1, .session = session, .body = body};
	struct copied *copied = calloc(1, sizeof(*copied));

	cr_assert_not_null(copied);
	cr_assert_eq(command_copy(&command, &copied->command), 0);
	copied->submission.command = *copied->command;
	copied->submission.bytes = command_size(&command);
	copied->submission.sink = &rig->sink;
	copied->submission.control = type != COMMAND_PUBLISH;
	copied->submission.destroy = copied_free;
	cr_assert_eq(engine_submit(rig->engine, &copied->submission), 0);
}

uint64_t rig_queue(struct rig *rig, const char *name, bool jobs, bool priority)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	struct store_txn *txn = NULL;
	struct queue_ref ref;

	config.name = (char *)(uintptr_t)name;
	config.kind = jobs ? SLUICE__QUEUE_KIND__QUEUE_JOBS : SLUICE__QUEUE_KIND__QUEUE_ITEMS;
	config.priority = priority;
	create.config = &config;
	rig_send(rig, COMMAND_QUEUE_CREATE, 0, &create);
	rig_step(rig);
	cr_assert_eq(rig->last.code, 0);
	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(core_queue_find(txn, 1, (struct sluice_slice){name, strlen(name)}, &ref), 0);
	store_abort(txn);
	return ref.id;
}
