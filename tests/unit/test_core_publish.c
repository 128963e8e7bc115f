/* SPDX-License-Identifier: Apache-2.0
 * Publishing: targets, runs, room, and batches that are refused as a whole. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/core_world.h"

enum { STREAM = SLUICE__TARGET_KIND__TARGET_STREAM, QUEUE = SLUICE__TARGET_KIND__TARGET_QUEUE };

static struct outcome publish_to(struct world *world, uint8_t kind, const char *target,
				 const char *subject, const char *body)
{
	static struct world_batch batch;
	struct frame_publish publish;

	batch.used = batch.count = 0;
	world_batch_add(&batch, NULL, body, 0);
	publish = world_batch_publish(&batch, subject);
	publish.target_kind = kind;
	publish.target = world_text(target);
	return world_apply(world, COMMAND_PUBLISH, 0, &publish);
}

/* A claim's grant as text: "subject=body@put time ...", one for each envelope. */
static const char *claim(struct world *world, const char *queue)
{
	static char text[4096];
	struct cmd_claim command = {.queue = world_queue_ref(world, queue).id, .max = 100};
	const struct effect *grant;
	struct sluice_slice rest;

	text[0] = 0;
	world_must(world, COMMAND_CLAIM, world_session(world, NULL), &command);
	grant = world_effect(world, FX_GRANT);
	if (grant == NULL)
		return text;
	rest = grant->payload;
	for (uint32_t i = 0; i < grant->count; i++) {
		struct envelope envelope;
		const char *why = "";
		uint64_t put_ms = 0;

		for (int byte = 0; byte < 8; byte++)
			put_ms = put_ms << 8 | ((const uint8_t *)rest.data)[2 + byte];
		rest = (struct sluice_slice){(const uint8_t *)rest.data + 10, rest.len - 10};
		cr_assert_eq(envelope_next(&rest, &envelope, &why), 0, "%s", why);
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%.*s=%.*s@%llu",
			 i > 0 ? " " : "", (int)envelope.subject.len,
			 (const char *)envelope.subject.data, (int)envelope.body.len,
			 (const char *)envelope.body.data,
			 (unsigned long long)(put_ms + (uint64_t)envelope.time_delta_ms));
	}
	cr_assert_eq(rest.len, 0);
	return text;
}

Test(core_publish, to_subject_stream_and_queue)
{
	struct world world;
	struct outcome out;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a.*", 0, 0, 0);
	world_queue(&world, "q", "a.>", 0);
	out = world_publish(&world, "a.b", "both");
	cr_assert_eq(out.offset, 0, "the stream's, which comes first");
	cr_assert_eq(world_effects(&world, FX_QUEUE_READY), 1);
	out = world_publish(&world, "a.b.c", "queue only");
	cr_assert_eq(out.offset, 2, "the item's number");
	out = publish_to(&world, PUBLISH_TO_QUEUE, "q", "x.y", "straight");
	cr_assert_eq(out.code, 0, "%s", out.text);
	out = publish_to(&world, PUBLISH_TO_STREAM, "s", "x.y", "straight");
	cr_assert_eq(out.offset, 1);
	cr_assert_eq(publish_to(&world, PUBLISH_TO_QUEUE, "s", "x.y", "x").code,
		     SLUICE_E_NOT_FOUND);
	cr_assert_eq(publish_to(&world, PUBLISH_TO_STREAM, "q", "x.y", "x").code,
		     SLUICE_E_NOT_FOUND);
	cr_assert_str_eq(world_events(&world, "s"), "a.b=both x.y=straight");
	cr_assert_str_eq(claim(&world, "q"), "a.b=both@1700000000000 a.b.c=queue "
					     "only@1700000000000 x.y=straight@1700000000000");
	world_close(&world);
}

Test(core_publish, a_queue_of_jobs_takes_no_items)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	struct world world;

	world_open(&world, WORLD_MEM);
	config.name = (char *)"jobs";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	create.config = &config;
	world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
	cr_assert_eq(publish_to(&world, PUBLISH_TO_QUEUE, "jobs", "a", "x").code, SLUICE_E_INVAL);
	cr_assert_eq(world_bind(&world, "", "a", QUEUE, "jobs").code, SLUICE_E_INVAL);
	world_close(&world);
}

Test(core_publish, times_and_priorities_go_with_the_items)
{
	static struct world_batch batch;
	struct frame_publish publish;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_queue(&world, "q", "a", 0);
	world_batch_add(&batch, NULL, "early", -5);
	world_batch_add(&batch, NULL, "late", 70);
	publish = world_batch_publish(&batch, "a");
	publish.time_ms = 1000000;
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_str_eq(claim(&world, "q"), "a=early@999995 a=late@1000070");
	world_close(&world);
}

Test(core_publish, subjects_per_event_are_cut_into_runs)
{
	static struct world_batch batch;
	struct frame_publish publish;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a.>", 0, 0, 0);
	world_stream(&world, "t", "*.x", 0, 0, 0);
	world_queue(&world, "q", "b.>", 0);
	world_batch_add(&batch, "a.1", "1", 0);
	world_batch_add(&batch, "a.2", "2", 0);
	world_batch_add(&batch, "a.x", "3", 0);
	world_batch_add(&batch, "b.x", "4", 0);
	world_batch_add(&batch, "c.y", "5", 0);
	world_batch_add(&batch, "a.3", "6", 0);
	publish = world_batch_publish(&batch, NULL);
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_str_eq(world_events(&world, "s"), "a.1=1 a.2=2 a.x=3 a.3=6");
	cr_assert_eq(world_segments(&world, "s"), 3);
	cr_assert_str_eq(world_events(&world, "t"), "a.x=3 b.x=4");
	cr_assert_str_eq(claim(&world, "q"), "b.x=4@1700000000000");
	/* All of one set of targets: one segment, as sent. */
	batch.used = batch.count = 0;
	world_batch_add(&batch, "a.1", "7", 0);
	world_batch_add(&batch, "a.2", "8", 0);
	publish = world_batch_publish(&batch, NULL);
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_eq(world_segments(&world, "s"), 4);
	/* mandatory: refused as a whole */
	world_batch_add(&batch, "nobody", "9", 0);
	publish = world_batch_publish(&batch, NULL);
	publish.flags = PUBLISH_MANDATORY;
	cr_assert_eq(world_apply(&world, COMMAND_PUBLISH, 0, &publish).code, SLUICE_E_NO_ROUTE);
	cr_assert_eq(world_segments(&world, "s"), 4);
	world_close(&world);
}

Test(core_publish, compressed_to_a_queue_is_unpacked)
{
	static struct world_batch batch;
	static uint8_t compressed[65536];
	struct frame_publish publish;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	world_queue(&world, "q", "a", 0);
	for (int i = 0; i < 30; i++)
		world_batch_add(&batch, NULL, "the same words again and again", 0);
	publish = world_batch_publish(&batch, "a");
	publish.codec = BATCH_ZSTD;
	publish.payload.len = batch_compress(compressed, sizeof(compressed), publish.payload);
	publish.payload.data = compressed;
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_eq(world_ready(&world, "q"), 30);
	cr_assert_eq(world_segments(&world, "s"), 1);
	/* A damaged frame. */
	compressed[publish.payload.len / 2] ^= 0xff;
	compressed[publish.payload.len - 2] ^= 0xff;
	cr_assert_eq(world_apply(&world, COMMAND_PUBLISH, 0, &publish).code, SLUICE_E_PROTOCOL);
	world_close(&world);
}

Test(core_publish, a_full_queue_refuses_the_whole_batch)
{
	static struct world_batch batch;
	struct frame_publish publish;
	struct outcome out;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a.>", 0, 0, 0);
	world_queue(&world, "q", "a.x", 3);
	world_queue(&world, "wide", "a.>", 0);
	for (int i = 0; i < 4; i++)
		world_batch_add(&batch, NULL, "i", 0);
	publish = world_batch_publish(&batch, "a.x");
	out = world_apply(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_eq(out.code, SLUICE_E_QUEUE_FULL);
	cr_assert_str_eq(out.text, "queue 'q' holds 0 of at most 3", "of three that it goes to");
	batch.used = batch.count = 0;
	for (int i = 0; i < 4; i++)
		world_batch_add(&batch, "a.x", "i", 0);
	world_batch_add(&batch, "a.y", "i", 0);
	publish = world_batch_publish(&batch, NULL);
	cr_assert_eq(world_apply(&world, COMMAND_PUBLISH, 0, &publish).code, SLUICE_E_QUEUE_FULL);
	cr_assert_str_eq(world_events(&world, "s"), "", "nothing was written");
	cr_assert_eq(world_ready(&world, "wide"), 0);
	batch.used = batch.count = 0;
	for (int i = 0; i < 3; i++)
		world_batch_add(&batch, NULL, "i", 0);
	publish = world_batch_publish(&batch, "a.x");
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_eq(world_publish(&world, "a.x", "one more").code, SLUICE_E_QUEUE_FULL);
	cr_assert_eq(world_publish(&world, "a.y", "elsewhere").code, 0);
	world_close(&world);
}

Test(core_publish, malformed_batches_are_refused)
{
	static struct world_batch batch;
	struct frame_publish publish, bad;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	world_batch_add(&batch, NULL, "x", 0);
	publish = world_batch_publish(&batch, "a");
	bad = publish;
	bad.count = 0;
	cr_assert_eq(world_try(&world, COMMAND_PUBLISH, &bad).code, SLUICE_E_INVAL);
	bad.count = 2;
	cr_assert_eq(world_try(&world, COMMAND_PUBLISH, &bad).code, SLUICE_E_PROTOCOL);
	bad = publish;
	bad.payload.len--;
	bad.raw_bytes--;
	cr_assert_eq(world_try(&world, COMMAND_PUBLISH, &bad).code, SLUICE_E_PROTOCOL);
	bad = publish;
	bad.raw_bytes++;
	cr_assert_eq(world_try(&world, COMMAND_PUBLISH, &bad).code, SLUICE_E_PROTOCOL);
	bad = publish;
	bad.subject = world_text("a.*");
	cr_assert_eq(world_try(&world, COMMAND_PUBLISH, &bad).code, SLUICE_E_INVAL);
	bad.subject = world_text(NULL);
	cr_assert_eq(world_try(&world, COMMAND_PUBLISH, &bad).code, SLUICE_E_INVAL,
		     "neither batch nor event has a subject");
	bad = publish;
	bad.flags = PUBLISH_MANDATORY;
	bad.subject = world_text("nobody");
	cr_assert_eq(world_try(&world, COMMAND_PUBLISH, &bad).code, SLUICE_E_NO_ROUTE);
	cr_assert_eq(world_records(&world, STORE_LOG), 0);
	world_close(&world);
}

/* The smallest events: [0, ""]. */
static struct frame_publish many(uint8_t *bytes, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		memcpy(bytes + (size_t)i * 4, "\x92\x00\xc4\x00", 4);
	return (struct frame_publish){.count = count,
				      .raw_bytes = count * 4,
				      .subject = world_text("a"),
				      .payload = {bytes, (size_t)count * 4}};
}

Test(core_publish, batch_events_at_their_limit)
{
	uint8_t *bytes = malloc((LIMIT_BATCH_EVENTS_MAX + 1) * 4);
	struct frame_publish publish;
	struct world world;

	cr_assert_not_null(bytes);
	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	world_queue(&world, "q", "a", 0);
	/* limit: BATCH_EVENTS_MAX */
	publish = many(bytes, (uint32_t)LIMIT_BATCH_EVENTS_MAX + 1);
	cr_assert_eq(world_try(&world, COMMAND_PUBLISH, &publish).code, SLUICE_E_LIMIT);
	publish = many(bytes, (uint32_t)LIMIT_BATCH_EVENTS_MAX);
	cr_assert_eq(world_apply(&world, COMMAND_PUBLISH, 0, &publish).code, 0);
	cr_assert_eq(world_ready(&world, "q"), LIMIT_BATCH_EVENTS_MAX);
	world_close(&world);
	free(bytes);
}

Test(core_publish, batch_bytes_at_their_limit)
{
	size_t body = LIMIT_BATCH_RAW_BYTES_MAX - LIMIT_EVENT_BODY_BYTES_MAX - 2 * 7;
	uint8_t *bytes = calloc(1, LIMIT_BATCH_RAW_BYTES_MAX + 16);
	size_t sizes[2] = {LIMIT_EVENT_BODY_BYTES_MAX, body};
	struct frame_publish publish = {.count = 2,
					.subject = world_text("a"),
					.payload = {bytes, 0}};
	struct world world;
	struct envelope envelope = {.body = {bytes, 0}};
	uint8_t *zeros = calloc(1, LIMIT_EVENT_BODY_BYTES_MAX);

	cr_assert(bytes != NULL && zeros != NULL);
	for (int i = 0; i < 2; i++) {
		envelope.body = (struct sluice_slice){zeros, sizes[i]};
		publish.payload.len += envelope_encode(bytes + publish.payload.len, &envelope);
	}
	cr_assert_eq(publish.payload.len, LIMIT_BATCH_RAW_BYTES_MAX, "%zu", publish.payload.len);
	publish.raw_bytes = (uint32_t)publish.payload.len;
	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	/* limit: BATCH_RAW_BYTES_MAX */
	for (size_t over = 0; over < 2; over++) {
		publish.raw_bytes = (uint32_t)(LIMIT_BATCH_RAW_BYTES_MAX + over);
		publish.payload.len = publish.raw_bytes;
		cr_assert_eq(world_try(&world, COMMAND_PUBLISH, &publish).code,
			     over ? SLUICE_E_LIMIT : 0);
	}
	world_close(&world);
	free(bytes);
	free(zeros);
}
