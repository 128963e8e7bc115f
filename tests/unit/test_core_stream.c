/* SPDX-License-Identifier: Apache-2.0
 * Streams: create, alter, delete, append, retention, cursors, seeking. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/core_world.h"

static void walk(enum world_store kind)
{
	struct world world;
	struct outcome out;

	world_open(&world, kind);
	cr_assert_eq(world_stream(&world, "events", "a.>", 0, 0, 0).code, 0);
	out = world_publish(&world, "a.b", "one");
	cr_assert_eq(out.code, 0, "%s", out.text);
	cr_assert_eq(out.kind, OUT_PUBLISHED);
	cr_assert_eq(out.offset, 0);
	cr_assert_eq(world_effects(&world, FX_LOG_GROWN), 1);
	cr_assert_eq(world_effect(&world, FX_LOG_GROWN)->offset, 1);
	out = world_publish(&world, "a.c", "two");
	cr_assert_eq(out.offset, 1);
	cr_assert_eq(world_publish(&world, "b.c", "elsewhere").offset, UINT64_MAX,
		     "nothing is bound to it");
	cr_assert_eq(world_effects(&world, FX_LOG_GROWN), 0);
	cr_assert_str_eq(world_events(&world, "events"), "a.b=one a.c=two");
	world_restart(&world);
	cr_assert_eq(world_publish(&world, "a.d", "three").offset, 2);
	cr_assert_str_eq(world_events(&world, "events"), "a.b=one a.c=two a.d=three");
	world_close(&world);
}

Test(core_stream, publish_and_read_on_mem)
{
	walk(WORLD_MEM);
}

Test(core_stream, publish_and_read_on_lmdb)
{
	walk(WORLD_LMDB);
}

/* ---- commands ---- */

static struct outcome stream_create(struct world *world, const char *name, char **subjects,
				    size_t count, bool if_not_exists, const char *text)
{
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT;
	Sluice__StreamCreate create = SLUICE__STREAM_CREATE__INIT;

	config.name = (char *)(uintptr_t)name;
	config.subjects = subjects;
	config.n_subjects = count;
	config.description = (char *)(uintptr_t)text;
	create.config = &config;
	create.if_not_exists = if_not_exists;
	return world_apply(world, COMMAND_STREAM_CREATE, 0, &create);
}

static struct outcome stream_delete(struct world *world, const char *name)
{
	Sluice__StreamDelete delete = SLUICE__STREAM_DELETE__INIT;

	delete.name = (char *)(uintptr_t)name;
	return world_apply(world, COMMAND_STREAM_DELETE, 0, &delete);
}

static struct outcome cursor_set(struct world *world, const char *stream, const char *cursor,
				 uint64_t offset, bool back)
{
	Sluice__CursorSet set = SLUICE__CURSOR_SET__INIT;

	set.stream = (char *)(uintptr_t)stream;
	set.cursor = (char *)(uintptr_t)cursor;
	set.offset = offset;
	set.back = back;
	return world_apply(world, COMMAND_CURSOR_SET, 0, &set);
}

static const Sluice__StreamInfo *stream_show(struct world *world, const char *name)
{
	Sluice__StreamShow show = SLUICE__STREAM_SHOW__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;
	const Sluice__Reply *reply;

	show.name = (char *)(uintptr_t)name;
	request.op_case = SLUICE__REQUEST__OP_STREAM_SHOW;
	request.stream_show = &show;
	reply = world_query(world, &request);
	return reply->n_streams == 1 ? reply->streams[0] : NULL;
}

Test(core_stream, create_refusals)
{
	char *bad[] = {(char *)"a..b"};
	char *good[] = {(char *)"a.*", (char *)"a.*"};
	Sluice__StreamCreate empty = SLUICE__STREAM_CREATE__INIT;
	char long_text[1100];
	struct world world;

	memset(long_text, 'x', sizeof(long_text));
	long_text[1025] = 0;
	world_open(&world, WORLD_MEM);
	cr_assert_eq(world_apply(&world, COMMAND_STREAM_CREATE, 0, &empty).code, SLUICE_E_INVAL);
	cr_assert_eq(stream_create(&world, "", NULL, 0, false, "").code, SLUICE_E_INVAL);
	cr_assert_eq(stream_create(&world, "s", bad, 1, false, "").code, SLUICE_E_INVAL);
	/* limit: TEXT_BYTES_MAX */
	cr_assert_eq(stream_create(&world, "s", good, 1, false, long_text).code, SLUICE_E_LIMIT);
	long_text[1024] = 0;
	cr_assert_eq(stream_create(&world, "s", good, 2, false, long_text).code, 0,
		     "a pattern twice is one edge");
	cr_assert_eq(stream_create(&world, "s", NULL, 0, false, "").code, SLUICE_E_EXISTS);
	cr_assert_eq(stream_create(&world, "s", NULL, 0, true, "").code, 0);
	cr_assert_eq(stream_show(&world, "s")->n_subjects, 1);
	cr_assert_str_eq(stream_show(&world, "s")->subjects[0], "a.*");
	cr_assert_null(stream_show(&world, "t"));
	world_close(&world);
}

Test(core_stream, names_at_their_limit)
{
	char name[257];
	struct world world;

	world_open(&world, WORLD_LMDB);
	memset(name, 'n', sizeof(name));
	name[LIMIT_NAME_BYTES_MAX + 1] = 0;
	/* limit: NAME_BYTES_MAX */
	cr_assert_eq(world_stream(&world, name, NULL, 0, 0, 0).code, SLUICE_E_LIMIT);
	name[LIMIT_NAME_BYTES_MAX] = 0;
	cr_assert_eq(world_stream(&world, name, "a", 0, 0, 0).code, 0);
	cr_assert_eq(world_publish(&world, "a", "x").offset, 0);
	cr_assert_eq(cursor_set(&world, name, name, 1, false).code, 0);
	cr_assert_eq(stream_show(&world, name)->n_cursors, 1);
	cr_assert_str_eq(stream_show(&world, name)->cursors[0]->name, name);
	world_close(&world);
}

Test(core_stream, alter_replaces_bounds_and_trims)
{
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT;
	Sluice__StreamAlter alter = SLUICE__STREAM_ALTER__INIT;
	char *subjects[] = {(char *)"x"};
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	alter.config = &config;
	cr_assert_eq(world_apply(&world, COMMAND_STREAM_ALTER, 0,
				 &(Sluice__StreamAlter)SLUICE__STREAM_ALTER__INIT)
			     .code,
		     SLUICE_E_INVAL);
	config.name = (char *)"t";
	cr_assert_eq(world_apply(&world, COMMAND_STREAM_ALTER, 0, &alter).code, SLUICE_E_NOT_FOUND);
	config.name = (char *)"s";
	config.n_subjects = 1;
	config.subjects = subjects;
	cr_assert_eq(world_apply(&world, COMMAND_STREAM_ALTER, 0, &alter).code, SLUICE_E_INVAL);
	config.n_subjects = 0;
	for (int i = 0; i < 20; i++)
		cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	config.max_events = 3;
	world_must(&world, COMMAND_STREAM_ALTER, 0, &alter);
	cr_assert_eq(stream_show(&world, "s")->events, 3, "immediately, by offset");
	cr_assert_gt(world_segments(&world, "s"), 3, "the segments go in bounded steps");
	cr_assert_gt(world_ticks(&world, 4), 1);
	cr_assert_eq(world_segments(&world, "s"), 3);
	cr_assert_str_eq(world_events(&world, "s"), "a=x a=x a=x");
	cr_assert_eq(stream_show(&world, "s")->config->max_events, 3);
	world_close(&world);
}

Test(core_stream, delete_goes_by_tick)
{
	Sluice__CursorDelete cursor_delete = SLUICE__CURSOR_DELETE__INIT;
	struct world world;
	uint64_t names;

	world_open(&world, WORLD_MEM);
	names = world_records(&world, STORE_NAME);
	cr_assert_eq(stream_delete(&world, "s").code, SLUICE_E_NOT_FOUND);
	world_stream(&world, "s", "a", 0, 0, 0);
	for (int i = 0; i < 30; i++)
		cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	cr_assert_eq(cursor_set(&world, "s", "c", 5, false).code, 0);
	cr_assert_eq(cursor_set(&world, "s", "d", 5, false).code, 0);
	cr_assert_eq(stream_delete(&world, "s").code, 0);
	cr_assert_eq(world_effects(&world, FX_STREAM_DELETED), 1);
	cr_assert_eq(world_records(&world, STORE_LOG), 30, "marked, not yet swept");
	cr_assert_eq(world_publish(&world, "a", "x").offset, UINT64_MAX, "its edges are gone");
	/* The name is free at once; the sweep of the old one touches only its own. */
	cr_assert_eq(world_stream(&world, "s", "a", 0, 0, 0).code, 0);
	cr_assert_eq(world_publish(&world, "a", "y").offset, 0);
	cr_assert_eq(cursor_set(&world, "s", "c", 1, false).code, 0);
	cr_assert_geq(world_ticks(&world, 10), 3, "10 records a tick");
	cr_assert_eq(world_records(&world, STORE_LOG), 1);
	cr_assert_str_eq(world_events(&world, "s"), "a=y");
	cr_assert_eq(stream_show(&world, "s")->n_cursors, 1);
	cursor_delete.stream = (char *)"s";
	cursor_delete.cursor = (char *)"c";
	world_must(&world, COMMAND_CURSOR_DELETE, 0, &cursor_delete);
	cr_assert_eq(stream_delete(&world, "s").code, 0);
	world_ticks(&world, 1);
	cr_assert_eq(world_records(&world, STORE_LOG), 0);
	cr_assert_eq(world_records(&world, STORE_NAME), names, "nothing is left of it");
	cr_assert_eq(world_records(&world, STORE_TIMER), 0);
	world_close(&world);
}

/* ---- retention ---- */

Test(core_stream, retention_by_events_is_exact)
{
	static struct world_batch batch;
	struct frame_publish publish;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 4, 0, 0);
	for (int i = 0; i < 3; i++)
		world_batch_add(&batch, NULL, i == 0 ? "p" : i == 1 ? "q" : "r", 0);
	publish = world_batch_publish(&batch, "a");
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_eq(world_effects(&world, FX_LOG_TRIMMED), 0);
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_eq(world_effects(&world, FX_LOG_TRIMMED), 1);
	cr_assert_eq(world_effect(&world, FX_LOG_TRIMMED)->offset, 2, "inside a batch");
	cr_assert_str_eq(world_events(&world, "s"), "a=r a=p a=q a=r");
	cr_assert_eq(world_segments(&world, "s"), 2);
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_str_eq(world_events(&world, "s"), "a=r a=p a=q a=r");
	cr_assert_eq(world_segments(&world, "s"), 2, "segments wholly below it were deleted");
	for (int i = 0; i < 50; i++)
		cr_assert_eq(world_publish(&world, "a", "z").code, 0);
	cr_assert_eq(world_segments(&world, "s"), 4, "an append trims at least what it added");
	cr_assert_eq(stream_show(&world, "s")->first_offset, 55);
	world_close(&world);
}

Test(core_stream, retention_by_bytes_keeps_the_last_segment)
{
	char body[501];
	struct world world;

	memset(body, 'b', 500);
	body[500] = 0;
	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 1500, 0);
	for (int i = 0; i < 10; i++)
		cr_assert_eq(world_publish(&world, "a", body).code, 0);
	cr_assert_eq(stream_show(&world, "s")->events, 2);
	cr_assert_leq(stream_show(&world, "s")->bytes, 1500);
	world_stream(&world, "tiny", "b", 0, 1, 0);
	cr_assert_eq(world_publish(&world, "b", body).code, 0);
	cr_assert_eq(world_publish(&world, "b", "last").code, 0);
	cr_assert_str_eq(world_events(&world, "tiny"), "b=last");
	world_close(&world);
}

Test(core_stream, retention_by_age)
{
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 10000);
	cr_assert_eq(world_publish(&world, "a", "1").code, 0);
	world_wait(&world, 6000);
	cr_assert_eq(world_publish(&world, "a", "2").code, 0);
	cr_assert_eq(world_ticks(&world, 100), 0, "nothing is due");
	world_wait(&world, 5000);
	cr_assert_eq(world_ticks(&world, 100), 1);
	cr_assert_str_eq(world_events(&world, "s"), "a=2");
	world_wait(&world, 5000);
	cr_assert_eq(world_ticks(&world, 100), 1);
	cr_assert_str_eq(world_events(&world, "s"), "");
	cr_assert_eq(stream_show(&world, "s")->first_offset, 2);
	cr_assert_eq(world_records(&world, STORE_TIMER), 0, "an empty log has no timer");
	cr_assert_eq(world_publish(&world, "a", "3").offset, 2);
	cr_assert_eq(world_records(&world, STORE_TIMER), 1);
	world_close(&world);
}

Test(core_stream, retention_is_bounded_per_tick)
{
	struct cmd_tick tick = {.work_max = 10};
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 10000);
	for (int i = 0; i < 45; i++)
		cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	world_wait(&world, 20000);
	world_apply(&world, COMMAND_TICK, 0, &tick);
	cr_assert_eq(world_segments(&world, "s"), 35, "ten records of work");
	cr_assert_eq(world_ticks(&world, 10), 4);
	cr_assert_eq(world_segments(&world, "s"), 0);
	world_close(&world);
}

/* ---- cursors ---- */

Test(core_stream, cursors)
{
	Sluice__CursorDelete delete = SLUICE__CURSOR_DELETE__INIT;
	struct store_txn *txn;
	struct world world;
	uint64_t offset = 0;

	world_open(&world, WORLD_MEM);
	cr_assert_eq(cursor_set(&world, "s", "c", 0, false).code, SLUICE_E_NOT_FOUND);
	world_stream(&world, "s", "a", 0, 0, 0);
	for (int i = 0; i < 5; i++)
		cr_assert_eq(world_publish(&world, "a", "x").code, 0);
	cr_assert_eq(cursor_set(&world, "s", "", 0, false).code, SLUICE_E_INVAL);
	cr_assert_eq(cursor_set(&world, "s", "c", 6, false).code, SLUICE_E_INVAL, "behind the end");
	cr_assert_eq(cursor_set(&world, "s", "c", 5, false).code, 0);
	cr_assert_eq(cursor_set(&world, "s", "c", 4, false).code, SLUICE_E_CONFLICT);
	cr_assert_eq(cursor_set(&world, "s", "c", 5, false).code, 0,
		     "the same offset again is not a step back");
	cr_assert_eq(cursor_set(&world, "s", "c", 3, true).code, 0);
	cr_assert_eq(store_begin_read(world.store, &txn), 0);
	cr_assert_eq(core_cursor_find(txn, world.gateway, world_stream_ref(&world, "s").id,
				      world_text("c"), &offset),
		     0);
	cr_assert_eq(core_cursor_find(txn, world.gateway, world_stream_ref(&world, "s").id,
				      world_text("d"), &offset),
		     SLUICE_E_NOT_FOUND);
	store_abort(txn);
	cr_assert_eq(offset, 3);
	cr_assert_eq(stream_show(&world, "s")->cursors[0]->lag, 2);
	delete.stream = (char *)"t";
	delete.cursor = (char *)"c";
	cr_assert_eq(world_apply(&world, COMMAND_CURSOR_DELETE, 0, &delete).code,
		     SLUICE_E_NOT_FOUND);
	delete.stream = (char *)"s";
	world_must(&world, COMMAND_CURSOR_DELETE, 0, &delete);
	cr_assert_eq(world_apply(&world, COMMAND_CURSOR_DELETE, 0, &delete).code,
		     SLUICE_E_NOT_FOUND);
	world_close(&world);
}

/* ---- reads ---- */

static uint64_t seek(struct world *world, uint64_t time_ms)
{
	uint64_t offset = 999;
	struct store_txn *txn;

	cr_assert_eq(store_begin_read(world->store, &txn), 0);
	cr_assert_eq(core_stream_seek_time(txn, world->gateway, world_stream_ref(world, "s").log,
					   time_ms, &offset),
		     0);
	store_abort(txn);
	return offset;
}

/* Times of events: 100 + deltas, out of order inside and across batches. */
Test(core_stream, seek_by_time)
{
	static const int64_t deltas[] = {0, 50, 10, 300, 20, 400, 500};
	static struct world_batch batch;
	struct frame_publish publish;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	cr_assert_eq(seek(&world, 5), 0, "an empty log: its end");
	for (size_t at = 0; at < 7; at += 2) {
		batch.used = batch.count = 0;
		for (size_t i = at; i < at + 2 && i < 7; i++)
			world_batch_add(&batch, NULL, "x", deltas[i]);
		publish = world_batch_publish(&batch, "a");
		publish.time_ms = 100;
		world_must(&world, COMMAND_PUBLISH, 0, &publish);
	}
	for (uint64_t time = 90; time <= 620; time += 5) {
		uint64_t expected = 0;

		while (expected < 7 && 100 + (uint64_t)deltas[expected] < time)
			expected++;
		cr_assert_eq(seek(&world, time), expected, "time %llu: %llu",
			     (unsigned long long)time, (unsigned long long)expected);
	}
	world_close(&world);
}

Test(core_stream, a_compressed_batch_is_stored_as_sent)
{
	static struct world_batch batch;
	static uint8_t compressed[65536];
	struct frame_publish publish;
	struct segment segment;
	struct store_txn *txn;
	struct world world;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	for (int i = 0; i < 100; i++)
		world_batch_add(&batch, NULL, "the same words again and again", i);
	publish = world_batch_publish(&batch, "a");
	publish.codec = BATCH_ZSTD;
	publish.payload.data = compressed;
	publish.payload.len = batch_compress(compressed, sizeof(compressed),
					     (struct sluice_slice){batch.bytes, batch.used});
	publish.time_ms = 5000;
	cr_assert_gt(publish.payload.len, 0);
	world_must(&world, COMMAND_PUBLISH, 0, &publish);
	cr_assert_eq(store_begin_read(world.store, &txn), 0);
	cr_assert_eq(core_segment_read(txn, world.gateway, world_stream_ref(&world, "s").log, 42,
				       &segment),
		     0);
	cr_assert_eq(segment.base, 0);
	cr_assert_eq(segment.last, 99);
	cr_assert_eq(segment.codec, BATCH_ZSTD);
	cr_assert_eq(segment.payload.len, publish.payload.len);
	cr_assert_eq(memcmp(segment.payload.data, compressed, publish.payload.len), 0);
	cr_assert_eq(segment.time_max_ms, 5099);
	store_abort(txn);
	cr_assert_eq(seek(&world, 5050), 50);
	publish.raw_bytes--;
	cr_assert_eq(world_apply(&world, COMMAND_PUBLISH, 0, &publish).code, SLUICE_E_PROTOCOL);
	world_close(&world);
}

Test(core_stream, a_damaged_segment_is_refused)
{
	struct segment segment;
	struct sluice_slice value;
	struct store_txn *txn;
	struct world world;
	uint8_t key[20] = {0}, copy[512];
	size_t len = 1;

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	cr_assert_eq(world_publish(&world, "a", "precious").code, 0);
	key[3] = (uint8_t)world.gateway;
	key[11] = (uint8_t)world_stream_ref(&world, "s").log;
	for (size_t flip = 0; flip < len; flip++) {
		cr_assert_eq(store_begin(world.store, &txn), 0);
		cr_assert_eq(store_get(txn, STORE_LOG, (struct sluice_slice){key, sizeof(key)},
				       &value),
			     0);
		len = value.len;
		cr_assert(len > 80 && len <= sizeof(copy));
		memcpy(copy, value.data, len);
		copy[flip] ^= 0x10;
		cr_assert_eq(store_put(txn, STORE_LOG, (struct sluice_slice){key, sizeof(key)},
				       (struct sluice_slice){copy, len}),
			     0);
		cr_assert_eq(core_segment_read(txn, world.gateway, key[11], 0, &segment),
			     SLUICE_E_CORRUPT, "byte %zu", flip);
		store_abort(txn);
	}
	world_close(&world);
}

/* The checksum does not cover the key: if a segment is stored under another key, it is damage and
 * nothing is skipped. */
Test(core_stream, a_missing_segment_is_damage_and_neither_a_gap_nor_the_end)
{
	struct segment segment;
	struct store_txn *txn;
	struct world world;
	uint8_t key[20] = {0};

	world_open(&world, WORLD_MEM);
	world_stream(&world, "s", "a", 0, 0, 0);
	cr_assert_eq(world_publish(&world, "a", "first").code, 0);
	cr_assert_eq(world_publish(&world, "a", "last").code, 0);
	key[3] = (uint8_t)world.gateway;
	key[11] = (uint8_t)world_stream_ref(&world, "s").log;
	key[19] = 1;
	cr_assert_eq(store_begin(world.store, &txn), 0);
	cr_expect_eq(core_segment_read(txn, world.gateway, key[11], 1, &segment), 0);
	cr_expect_eq(core_segment_read(txn, world.gateway, key[11], 2, &segment),
		     SLUICE_E_NOT_FOUND);
	cr_assert_eq(store_del(txn, STORE_LOG, (struct sluice_slice){key, sizeof(key)}), 0);
	cr_expect_eq(core_segment_read(txn, world.gateway, key[11], 0, &segment), 0);
	cr_expect_eq(core_segment_read(txn, world.gateway, key[11], 1, &segment), SLUICE_E_CORRUPT);
	cr_expect_eq(core_segment_read(txn, world.gateway, key[11], 2, &segment),
		     SLUICE_E_NOT_FOUND);
	store_abort(txn);
	cr_assert_eq(store_begin(world.store, &txn), 0);
	key[19] = 0;
	cr_assert_eq(store_del(txn, STORE_LOG, (struct sluice_slice){key, sizeof(key)}), 0);
	cr_expect_eq(core_segment_read(txn, world.gateway, key[11], 0, &segment), SLUICE_E_CORRUPT);
	cr_expect_eq(core_segment_read(txn, world.gateway, key[11], 1, &segment), 0);
	store_abort(txn);
	world_close(&world);
}

Test(core_stream, lists_continue)
{
	Sluice__StreamList list = SLUICE__STREAM_LIST__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;
	const Sluice__Reply *reply;
	struct world world;
	char name[16];

	world_open(&world, WORLD_MEM);
	/* limit: LIST_ROWS_MAX */
	for (unsigned i = 0; i < LIMIT_LIST_ROWS_MAX + 1; i++) {
		snprintf(name, sizeof(name), "s%05u", i);
		cr_assert_eq(world_stream(&world, name, NULL, 0, 0, 0).code, 0);
	}
	request.op_case = SLUICE__REQUEST__OP_STREAM_LIST;
	request.stream_list = &list;
	list.max = LIMIT_LIST_ROWS_MAX + 5;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_streams, LIMIT_LIST_ROWS_MAX);
	cr_assert(reply->more);
	cr_assert_str_eq(reply->streams[999]->config->name, "s00999");
	list.after = (char *)"s00999";
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_streams, 1);
	cr_assert_not(reply->more);
	list.after = (char *)"";
	list.max = 2;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_streams, 2);
	cr_assert(reply->more);
	world_close(&world);
}
