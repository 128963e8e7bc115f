/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine on a store that becomes full: each class of commands is refused from its percentage
 * on, whatever the size of commands and batches, and commands that free room are accepted. The
 * store is a real one, with a small map.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/core/base/apply.h"
#include "broker/engine/engine.h"
#include "protocol/envelope.h"

#define MIB (1ull << 20)
#define MAP_MIB 20ull

struct rig {
	struct engine_sink sink; /* first */
	char dir[64];
	struct store *store;
	struct engine *engine;
	struct batch_clock now;
	unsigned ok, refused; /* publishes */
	struct outcome last;
	bool failed;
};

static void on_post(struct engine_sink *sink, struct engine_release *release)
{
	struct rig *rig = (struct rig *)sink;

	for (size_t i = 0; i < effects_count(release->effects); i++) {
		const struct effect *effect = effects_at(release->effects, i);

		if (effect->kind != FX_REPLY ||
		    release->origins[effect->command].kind != ORIGIN_REQUEST)
			continue;
		rig->last = *effect->outcome;
		rig->ok += effect->outcome->code == 0;
		rig->refused += effect->outcome->code == SLUICE_E_NO_SPACE;
		cr_assert(effect->outcome->code == 0 || effect->outcome->code == SLUICE_E_NO_SPACE,
			  "%s", effect->outcome->text);
	}
	engine_release_done(rig->engine, sink, release);
}

static void on_kick(struct engine_sink *sink, uint64_t tag)
{
	(void)sink;
	(void)tag;
}

static void on_fail(void *user, int code, const char *text)
{
	((struct rig *)user)->failed = true;
	cr_expect_fail("the engine stopped: %d, %s", code, text);
}

static void rig_open(struct rig *rig)
{
	struct store_options options = {.create = true, .map_bytes = MAP_MIB * MIB};
	struct engine_config config = {.fail_stop = on_fail,
				       .user = rig,
				       .inbox_bytes_max = 128u << 20};
	const char *why = "";

	memset(rig, 0, sizeof(*rig));
	(void)snprintf(rig->dir, sizeof(rig->dir), "/tmp/sluice-full-XXXXXX");
	cr_assert_not_null(mkdtemp(rig->dir));
	rig->sink.post = on_post;
	rig->sink.kick = on_kick;
	rig->now = (struct batch_clock){1000, 1700000000000};
	cr_assert_eq(store_open_lmdb(rig->dir, &options, &rig->store, &why), 0, "%s", why);
	cr_assert_eq(engine_create(&config, rig->store, rig->now, &rig->engine), 0);
	cr_assert_eq(engine_sink_add(rig->engine, &rig->sink), 0);
}

static void rig_close(struct rig *rig)
{
	static const char *const names[] = {"data.mdb", "lock.mdb", "sluice.lock"};
	char path[128];

	engine_destroy(rig->engine);
	store_close(rig->store);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", rig->dir, names[i]);
		(void)unlink(path);
	}
	cr_assert_eq(rmdir(rig->dir), 0);
}

static void step(struct rig *rig)
{
	uint64_t wait = 0;

	while (wait == 0 && !rig->failed)
		if (engine_step(rig->engine, rig->now, &wait) != 0)
			return;
	rig->now.mono_ms++;
}

struct own {
	struct submission submission;
	union {
		struct cmd_session_open open;
		struct frame_publish publish;
		Sluice__QueueCreate create;
		Sluice__QueuePurge purge;
		Sluice__JobRetention retention;
	};
	Sluice__QueueConfig config;
	uint8_t bytes[];
};

static void own_free(struct submission *submission)
{
	free(submission);
}

static struct own *own_new(struct rig *rig, uint16_t type, size_t bytes)
{
	struct own *own = calloc(1, sizeof(*own) + bytes);

	cr_assert_not_null(own);
	own->submission.command = (struct command){.type = type, .gateway = 1, .body = &own->open};
	own->submission.bytes = sizeof(*own) + bytes;
	own->submission.sink = &rig->sink;
	own->submission.destroy = own_free;
	own->submission.control = type != COMMAND_PUBLISH;
	return own;
}

static int run(struct rig *rig, struct own *own)
{
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
	step(rig);
	return rig->last.code;
}

/* To a subject, or without one to the queue that every gateway has. */
static void put(struct rig *rig, const char *subject, size_t body_bytes)
{
	static uint8_t body[2 << 20];
	struct envelope envelope = {.body = {body, body_bytes}};
	struct own *own = own_new(rig, COMMAND_PUBLISH, body_bytes + 64);

	own->publish.target_kind = subject != NULL ? PUBLISH_TO_SUBJECT : PUBLISH_TO_QUEUE;
	own->publish.count = 1;
	own->publish.subject = slice_text(subject != NULL ? subject : "s");
	own->publish.target = (struct sluice_slice){"dead-letter", subject != NULL ? 0 : 11};
	own->publish.payload =
		(struct sluice_slice){own->bytes, envelope_encode(own->bytes, &envelope)};
	own->publish.raw_bytes = (uint32_t)own->publish.payload.len;
	cr_assert_eq(engine_submit(rig->engine, &own->submission), 0);
}

/* Of class REPORT. */
static int queue_create(struct rig *rig, char *name, char *subject)
{
	struct own *own = own_new(rig, COMMAND_QUEUE_CREATE, sizeof(char *));
	char **subjects = (char **)(void *)own->bytes;

	sluice__queue_create__init(&own->create);
	sluice__queue_config__init(&own->config);
	own->config.name = name;
	if (subject != NULL) {
		subjects[0] = subject;
		own->config.subjects = subjects;
		own->config.n_subjects = 1;
	}
	own->create.config = &own->config;
	return run(rig, own);
}

static int session_open(struct rig *rig)
{
	struct own *own = own_new(rig, COMMAND_SESSION_OPEN, 0);

	own->open.timeout_ms = 5000;
	return run(rig, own);
}

static int purge(struct rig *rig)
{
	struct own *own = own_new(rig, COMMAND_QUEUE_PURGE, 0);
	static char name[] = "dead-letter";

	sluice__queue_purge__init(&own->purge);
	own->purge.name = name;
	return run(rig, own);
}

static int retention(struct rig *rig)
{
	struct own *own = own_new(rig, COMMAND_JOB_RETENTION, 0);

	sluice__job_retention__init(&own->retention);
	own->retention.keep_ms = 1000;
	return run(rig, own);
}

static uint64_t used(struct rig *rig)
{
	struct store_facts facts;

	store_facts_get(rig->store, &facts);
	return facts.used_bytes;
}

static void expect_stopped(struct rig *rig, uint64_t command_bytes, const char *what)
{
	uint64_t stop = MAP_MIB * MIB / 100 * 80;
	char name[] = "report";

	cr_expect_leq(used(rig), stop + 128 * 1024, "%s: %llu of %llu bytes are used", what,
		      (unsigned long long)used(rig), (unsigned long long)stop);
	/* Half-full pages and the free list are the overhead of a store of many small records. */
	cr_expect_geq(used(rig) + 2 * command_bytes + MAP_MIB * MIB / 20, stop,
		      "%s: stopped at %llu of %llu", what, (unsigned long long)used(rig),
		      (unsigned long long)stop);
	cr_expect_not_null(strstr(rig->last.text, "map_mib"), "%s", rig->last.text);
	cr_expect_eq(queue_create(rig, name, NULL), 0, "%s: reports go on: %s", what,
		     rig->last.text);
	cr_expect_eq(session_open(rig), 0, "%s: a session that frees room is opened: %s", what,
		     rig->last.text);
	cr_expect_eq(retention(rig), 0, "%s: retention can be changed: %s", what, rig->last.text);
}

static void expect_back(struct rig *rig, size_t body_bytes, const char *what)
{
	cr_expect_eq(purge(rig), 0, "%s: %s", what, rig->last.text);
	for (int i = 0; i < 200 && used(rig) > 2 * MIB; i++) {
		rig->now.mono_ms += 1000;
		step(rig);
		(void)usleep(
			10000); /* pages of the last commits are counted in use for half a second */
	}
	put(rig, NULL, body_bytes);
	step(rig);
	cr_expect_eq(rig->last.code, 0, "%s: publishes are accepted again: %s", what,
		     rig->last.text);
}

Test(engine_full, publishes_stop_at_their_percent_whatever_the_size_of_commands_and_batches,
     .timeout = 240)
{
	static const struct {
		size_t body_bytes;
		unsigned at_once;
	} rows[] = {{10, 20000}, {300, 500},   {2100, 16},   {2100, 9000}, {5000, 50},
		    {70000, 1},	 {70000, 300}, {1000000, 1}, {1000000, 40}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char what[64];
		struct rig rig;

		(void)snprintf(what, sizeof(what), "%u times %zu bytes at once", rows[i].at_once,
			       rows[i].body_bytes);
		rig_open(&rig);
		while (rig.refused == 0 && rig.ok < 1000000 && !rig.failed) {
			for (unsigned k = 0; k < rows[i].at_once; k++)
				put(&rig, NULL, rows[i].body_bytes);
			step(&rig);
		}
		cr_expect_gt(rig.refused, 0, "%s", what);
		expect_stopped(&rig, rows[i].body_bytes, what);
		expect_back(&rig, rows[i].body_bytes, what);
		rig_close(&rig);
	}
}

/* A publish to many queues is small when it is admitted and large when it is stored. */
Test(engine_full, a_publish_to_many_queues_is_refused_before_the_store_is_full, .timeout = 120)
{
	struct rig rig;
	char name[16], subject[] = "many";

	rig_open(&rig);
	for (int i = 0; i < 60; i++) {
		(void)snprintf(name, sizeof(name), "q%d", i);
		cr_assert_eq(queue_create(&rig, name, subject), 0);
	}
	rig.ok = 0;
	for (int i = 0; i < 20 && rig.refused == 0; i++) {
		for (int k = 0; k < 10; k++)
			put(&rig, subject, 60000);
		step(&rig);
	}
	cr_expect_gt(rig.ok, 2);
	cr_expect_gt(rig.refused, 0);
	expect_stopped(&rig, 60 * 61440, "60 queues");
	rig_close(&rig);
}

/* A publish that is too large is refused alone, while there is much room for others. */
Test(engine_full, a_publish_that_is_too_large_does_not_stop_the_others, .timeout = 120)
{
	struct rig rig;
	char name[16], subject[] = "many";

	rig_open(&rig);
	for (int i = 0; i < 60; i++) {
		(void)snprintf(name, sizeof(name), "q%d", i);
		cr_assert_eq(queue_create(&rig, name, subject), 0);
	}
	rig.ok = 0;
	for (int i = 0; i < 4; i++) {
		put(&rig, subject, 500000);
		for (int k = 0; k < 20; k++)
			put(&rig, NULL, 1000);
	}
	step(&rig);
	cr_expect_eq(rig.refused, 4);
	cr_expect_eq(rig.ok, 80);
	rig_close(&rig);
}
