/* SPDX-License-Identifier: Apache-2.0
 *
 * The formats on disk never change: each kind of record that core writes (broker/core/records.def)
 * has golden bytes in tests/data/records, of its key and of each format of its value. They are
 * decoded to the fields beside them; and those fields, in the newest format, are encoded to exactly
 * these bytes.
 *
 * A row of records.def needs its codec here, or this does not compile, and its file, or the test
 * fails. The tests of core prove that no record without a row is written (core_world.c).
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "broker/core/base/age.h"
#include "broker/core/base/meta.h"
#include "broker/core/base/name.h"
#include "broker/core/base/number.h"
#include "broker/core/base/topo.h"
#include "broker/core/job/history.h"
#include "broker/core/job/live.h"
#include "broker/core/job/quarantine.h"
#include "broker/core/job/source.h"
#include "broker/core/publish/producer_cell.h"
#include "broker/core/queue/record.h"
#include "broker/core/session/session.h"
#include "broker/core/stream/segment.h"
#include "broker/core/stream/stream.h"
#include "golden.h"

static size_t append(uint8_t *buf, size_t at, struct sluice_slice bytes)
{
	cr_assert_leq(at + bytes.len, (size_t)GOLDEN_BYTES_MAX);
	if (bytes.len > 0)
		memcpy(buf + at, bytes.data, bytes.len);
	return at + bytes.len;
}

/* ---- keys: layout by layout ---- */

struct layout {
	const struct golden_member *members;
	bool (*decode)(struct sluice_slice key, void *ret);
	void (*encode)(struct key *ret, const void *key);
	bool any_length; /* it ends with a text */
};

#define LAYOUT(shape, any, ENCODE, ...)                                                 \
	static const struct golden_member shape##_members[] = {__VA_ARGS__, {0}};       \
	static bool read_key_##shape(struct sluice_slice key, void *ret)                \
	{                                                                               \
		return key_##shape##_decode(key, ret);                                  \
	}                                                                               \
	static void write_key_##shape(struct key *ret, const void *key)                 \
	{                                                                               \
		const struct shape##_key *k = key;                                      \
                                                                                        \
		ENCODE;                                                                 \
	}                                                                               \
	static const struct layout shape##_layout = {shape##_members, read_key_##shape, \
						     write_key_##shape, any};

/* Table meta: a text alone. */
struct meta_key {
	struct sluice_slice text;
};
static bool key_meta_decode(struct sluice_slice key, struct meta_key *ret)
{
	ret->text = key;
	return true;
}
static void key_meta(struct key *ret, struct sluice_slice text)
{
	ret->len = 0;
	key_bytes(ret, text);
}

/* Names that consist of other names. */
struct cursor_name_key {
	uint32_t gateway;
	uint64_t stream;
	struct sluice_slice name;
};
static bool key_cursor_name_decode(struct sluice_slice key, struct cursor_name_key *ret)
{
	struct name_key name;

	if (!key_name_decode(key, &name) || name.kind != NAME_CURSOR)
		return false;
	ret->gateway = name.gateway;
	return cursor_name_decode(name.name, &ret->stream, &ret->name);
}
static void key_cursor_name(struct key *ret, const struct cursor_name_key *key)
{
	char buf[CURSOR_NAME_BYTES_MAX];

	key_name(ret, key->gateway, NAME_CURSOR, cursor_name_encode(buf, key->stream, key->name));
}

struct edge_name_key {
	uint32_t gateway;
	struct edge_name name;
};
static bool key_edge_name_decode(struct sluice_slice key, struct edge_name_key *ret)
{
	struct name_key name;

	if (!key_name_decode(key, &name) || name.kind != NAME_EDGE)
		return false;
	ret->gateway = name.gateway;
	return edge_name_decode(name.name, &ret->name);
}
static void key_edge_name(struct key *ret, const struct edge_name_key *key)
{
	uint8_t buf[EDGE_NAME_BYTES_MAX];

	key_name(ret, key->gateway, NAME_EDGE, edge_name_encode(buf, &key->name));
}

LAYOUT(meta, true, key_meta(ret, k->text), S(meta_key, text))
LAYOUT(one, false, key_one(ret, k->gateway, k->number), N(one_key, gateway), N(one_key, number))
LAYOUT(two, false, key_two(ret, k->gateway, k->of, k->number), N(two_key, gateway), N(two_key, of),
       N(two_key, number))
LAYOUT(hot, false, key_hot(ret, k->gateway, (enum hot_kind)k->kind, k->id), N(hot_key, gateway),
       N(hot_key, kind), N(hot_key, id))
LAYOUT(hot_cursor, false, key_hot_cursor(ret, k->gateway, k->stream, k->cursor),
       N(hot_cursor_key, gateway), N(hot_cursor_key, stream), N(hot_cursor_key, cursor))
LAYOUT(name, true, key_name(ret, k->gateway, k->kind, k->name), N(name_key, gateway),
       N(name_key, kind), S(name_key, name))
LAYOUT(cursor_name, true, key_cursor_name(ret, k), N(cursor_name_key, gateway),
       N(cursor_name_key, stream), S(cursor_name_key, name))
LAYOUT(edge_name, true, key_edge_name(ret, k), N(edge_name_key, gateway),
       N(edge_name_key, name.target_kind), N(edge_name_key, name.target),
       N(edge_name_key, name.router), S(edge_name_key, name.pattern))
LAYOUT(topo, false, key_topo(ret, k->gateway, k->kind, k->id), N(topo_key, gateway),
       N(topo_key, kind), N(topo_key, id))
LAYOUT(ready, false, key_ready(ret, k->gateway, k->queue, k->priority, k->tag, k->seq),
       N(ready_key, gateway), N(ready_key, queue), N(ready_key, priority), N(ready_key, tag),
       N(ready_key, seq))
LAYOUT(timer, false, key_timer(ret, k->gateway, k->due_mono_ms, k->kind, k->id, k->sub),
       N(timer_key, gateway), N(timer_key, due_mono_ms), N(timer_key, kind), N(timer_key, id),
       N(timer_key, sub))
LAYOUT(owned, false, key_owned(ret, k->gateway, k->session, k->kind, k->id), N(owned_key, gateway),
       N(owned_key, session), N(owned_key, kind), N(owned_key, id))
LAYOUT(orphan, false, key_orphan(ret, k->gateway, k->kind, k->queue, k->source, k->job),
       N(orphan_key, gateway), N(orphan_key, kind), N(orphan_key, queue), N(orphan_key, source),
       N(orphan_key, job))

/* ---- values: kind by kind ---- */

struct codec {
	const struct golden_member *members;
	int (*decode)(const struct golden_part *key, struct sluice_slice value, void *ret);
	size_t (*encode)(uint8_t *buf, const void *record);
};
/* Large enough for any of the structs below. */
union record {
	uint8_t bytes[2048];
	uint64_t align;
};

/* decode and encode have their parameters from here: key, value, ret; buf, record as r. */
#define CODEC(name, structure, DECODE, ENCODE, ...)                                      \
	static_assert(sizeof(struct structure) <= sizeof(union record),                  \
		      "a record of " #name " fits");                                     \
	static const struct golden_member name##_values[] = {__VA_ARGS__, {0}};          \
	static int read_##name(const struct golden_part *key, struct sluice_slice value, \
			       void *user)                                               \
	{                                                                                \
		struct structure *ret = user;                                            \
                                                                                         \
		(void)key, (void)ret;                                                    \
		return DECODE;                                                           \
	}                                                                                \
	static size_t write_##name(uint8_t *buf, const void *record)                     \
	{                                                                                \
		const struct structure *r = record;                                      \
                                                                                         \
		(void)buf, (void)r;                                                      \
		return ENCODE;                                                           \
	}                                                                                \
	static const struct codec name##_codec = {name##_values, read_##name, write_##name};

struct number {
	uint64_t number;
	uint32_t version;
	uint8_t nothing;
};
#define NUMBER_CODEC(name)                                                                         \
	CODEC(name, number, number_decode(value, &ret->number), number_encode(buf, r->number).len, \
	      N(number, number))
/* The record is its key alone. */
#define EMPTY_CODEC(name) CODEC(name, number, value.len == 0 ? 0 : SLUICE_E_CORRUPT, 0, {0})

NUMBER_CODEC(boot)
NUMBER_CODEC(counter)
NUMBER_CODEC(lifecycle_jobs)
NUMBER_CODEC(name)
NUMBER_CODEC(name_of_cursor)
NUMBER_CODEC(name_of_edge)
EMPTY_CODEC(timer)
EMPTY_CODEC(orphan)

CODEC(format, number, format_decode(value, &ret->version) ? 0 : SLUICE_E_CORRUPT,
      (format_encode(buf, r->version), FORMAT_BYTES), N(number, version))
CODEC(level, number, level_decode(value, &ret->version),
      (level_encode(buf, r->version), LEVEL_BYTES), N(number, version))
CODEC(ready, number, ready_decode(value, &ret->version) ? 0 : SLUICE_E_CORRUPT,
      (ready_encode(buf, r->version), READY_BYTES), N(number, version))
CODEC(clock, clock_record, clock_decode(value, ret), (clock_encode(buf, r), CLOCK_BYTES),
      N(clock_record, clock.mono_ms), N(clock_record, clock.wall_ms), N(clock_record, batch))
CODEC(age, age, age_decode(value, ret), age_encode(buf, r), N(age, epoch), N(age, boot_id),
      N(age, boot_offset), N(age, doubting), N(age, at_mono), N(age, claim_ms), N(age, stood_ms),
      N(age, seen_mono), N(age, seen_wall), N(age, shift_count), N(age, shifts[0].at_mono),
      N(age, shifts[0].by_ms), N(age, shifts[1].at_mono), N(age, shifts[1].by_ms))
CODEC(log_cell, log_cell, log_cell_decode(value, ret), (log_cell_encode(buf, r), LOG_CELL_BYTES),
      N(log_cell, deleted), N(log_cell, first), N(log_cell, next), N(log_cell, base),
      N(log_cell, bytes), N(log_cell, time_max_ms), N(log_cell, max_age_ms), N(log_cell, max_bytes),
      N(log_cell, max_events), N(log_cell, timer_due))
CODEC(queue_cell, queue_cell, queue_cell_decode(value, ret),
      (queue_cell_encode(buf, r), QUEUE_CELL_BYTES), N(queue_cell, kind), N(queue_cell, priority),
      N(queue_cell, deleted), N(queue_cell, lease_ms), N(queue_cell, max_attempts),
      N(queue_cell, purge_generation), N(queue_cell, max_items), N(queue_cell, dead_letter),
      N(queue_cell, head), N(queue_cell, tail), N(queue_cell, ready), N(queue_cell, leased),
      N(queue_cell, delayed), N(queue_cell, orphaned), N(queue_cell, exceptions),
      N(queue_cell, put), N(queue_cell, acked), N(queue_cell, dead), N(queue_cell, bytes),
      N(queue_cell, lease_timer_due), N(queue_cell, scan_token), N(queue_cell, scan_min),
      N(queue_cell, sweep_from), N(queue_cell, sweep_to), N(queue_cell, scan_not_before))
CODEC(cursor_cell, cursor_cell, cursor_cell_decode(value, ret),
      (cursor_cell_encode(buf, r), CURSOR_CELL_BYTES), N(cursor_cell, offset),
      N(cursor_cell, time_ms))
CODEC(source, source, source_decode(value, ret), source_encode(buf, r), N(source, session),
      N(source, seen_ms), N(source, ok_ms), N(source, orphans), N(source, waiting_ms),
      S(source, name), S(source, text))
CODEC(grant, queue_grant, grant_decode(value, ret), grant_encode(buf, r), N(queue_grant, session),
      N(queue_grant, kind), N(queue_grant, deadline_ms), N(queue_grant, lease_ms),
      N(queue_grant, since_ms), N(queue_grant, extend_max_ms), N(queue_grant, first),
      N(queue_grant, bits), N(queue_grant, out), N(queue_grant, reports), N(queue_grant, any_begun),
      A(queue_grant, bitmap), A(queue_grant, begun))
CODEC(live, job_live, job_live_decode(value, ret), (job_live_encode(buf, r), JOB_LIVE_BYTES),
      N(job_live, state), N(job_live, claim), N(job_live, flags), N(job_live, priority),
      N(job_live, attempt), N(job_live, lifecycle), N(job_live, queue), N(job_live, token),
      N(job_live, holder), N(job_live, entry), N(job_live, due_mono_ms), N(job_live, source),
      N(job_live, seen), N(job_live, hist_last), N(job_live, hist_intent), N(job_live, hist_ref),
      N(job_live, hist_report), N(job_live, changed_ms), N(job_live, gates_unmet),
      N(job_live, gates_open), N(job_live, share_tag), N(job_live, waits_in),
      N(job_live, hist_count))
CODEC(session, session, session_decode(value, ret), session_encode(buf, r), N(session, ended),
      N(session, flags), N(session, face), A(session, secret), N(session, timeout_ms),
      N(session, opened_ms), S(session, name), S(session, client), S(session, principal),
      S(session, via), S(session, address))

CODEC(owned, owned_value, owned_value_decode(value, ret) ? 0 : SLUICE_E_CORRUPT,
      owned_value_encode(buf, r), N(owned_value, sub), S(owned_value, more))

/* A producer with two answers. */
struct producer {
	struct producer_cell cell;
	struct producer_answer answers[2];
};
static int producer_get(struct sluice_slice value, struct producer *ret)
{
	int rc = producer_cell_decode(value, &ret->cell);

	for (size_t i = 0; rc == 0 && i < ret->cell.answer_count; i++) {
		cr_assert_lt(i, 2u);
		producer_answer_decode(ret->cell.answers + i * PRODUCER_ANSWER_BYTES,
				       &ret->answers[i]);
	}
	return rc;
}
static size_t producer_put(uint8_t *buf, const struct producer *producer)
{
	struct producer_cell cell = producer->cell;
	uint8_t answer[PRODUCER_ANSWER_BYTES];

	/* The first answer is kept, the other one is new. */
	producer_answer_encode(answer, &producer->answers[0]);
	cell.answers = answer;
	cell.answer_count = 1;
	return producer_cell_encode(buf, &cell, &producer->answers[1]);
}
CODEC(producer_cell, producer, producer_get(value, ret), producer_put(buf, r),
      N(producer, cell.epoch), N(producer, cell.last_seq), N(producer, cell.used_mono_ms),
      N(producer, cell.answer_count), S(producer, cell.name), N(producer, cell.owner),
      N(producer, cell.secret), S(producer, cell.principal), N(producer, answers[0].first_seq),
      N(producer, answers[0].count), SIGNED(producer, answers[0].code),
      N(producer, answers[0].index), N(producer, answers[0].offset), N(producer, answers[0].failed),
      N(producer, answers[1].first_seq), N(producer, answers[1].count),
      SIGNED(producer, answers[1].code), N(producer, answers[1].index),
      N(producer, answers[1].offset), N(producer, answers[1].failed))

static int segment_get(const struct golden_part *key, struct sluice_slice value,
		       struct segment_info *ret)
{
	struct two_key two;

	cr_assert(key_two_decode((struct sluice_slice){key->bytes, key->len}, &two));
	return segment_decode(value, two.number, ret);
}
static size_t segment_write(uint8_t *buf, const struct segment_info *info)
{
	segment_header_encode(buf, info);
	return append(buf, append(buf, SEGMENT_HEADER_BYTES, info->segment.subject),
		      info->segment.payload);
}
CODEC(segment, segment_info, segment_get(key, value, ret), segment_write(buf, r),
      N(segment_info, segment.base), N(segment_info, segment.last), N(segment_info, segment.count),
      N(segment_info, segment.time_ms), N(segment_info, segment.time_max_ms),
      N(segment_info, segment.codec), N(segment_info, segment.raw_bytes),
      N(segment_info, segment.producer), N(segment_info, segment.epoch),
      N(segment_info, segment.first_seq), S(segment_info, segment.subject),
      S(segment_info, segment.payload), N(segment_info, log_time_max_ms),
      N(segment_info, append_ms))

static size_t item_write(uint8_t *buf, const struct queue_item *item)
{
	size_t at = QUEUE_ITEM_FIXED_BYTES;

	queue_item_head_encode(buf, item);
	at = append(buf, at, item->dead_from);
	at = append(buf, at, item->dead_reason);
	at = append(buf, at, item->last_reason);
	return append(buf, at, item->body);
}
CODEC(item, queue_item, queue_item_decode(value, ret), item_write(buf, r),
      N(queue_item, put_time_ms), N(queue_item, attempts), N(queue_item, priority),
      N(queue_item, flags), N(queue_item, due_mono_ms), S(queue_item, dead_from),
      S(queue_item, dead_reason), S(queue_item, last_reason), S(queue_item, body))

static size_t job_write(uint8_t *buf, const struct job_record *record)
{
	static uint8_t packed[GOLDEN_BYTES_MAX];
	struct job_record copy = *record;

	copy.meta = golden_packed(&sluice__job_submit__descriptor, record->meta, packed);
	job_record_head_encode(buf, &copy);
	return append(buf, append(buf, JOB_RECORD_HEAD_BYTES, copy.meta), copy.payload);
}
CODEC(job, job_record, job_record_decode(value, ret), job_write(buf, r), N(job_record, submit_ms),
      N(job_record, index), M(job_record, meta, sluice__job_submit__descriptor),
      S(job_record, payload))

/* A row is packed by core itself. */
static size_t history_write(uint8_t *buf, const struct job_history_row *record)
{
	Sluice__JobHistoryRow *row =
		sluice__job_history_row__unpack(NULL, record->row.len, record->row.data);
	size_t bytes;

	cr_assert_not_null(row);
	cr_assert_leq(JOB_HISTORY_HEAD_BYTES + job_history_pack_max(row), (size_t)GOLDEN_BYTES_MAX);
	job_history_head_encode(buf, record->job, record->previous);
	bytes = JOB_HISTORY_HEAD_BYTES + job_history_pack(buf + JOB_HISTORY_HEAD_BYTES, row);
	sluice__job_history_row__free_unpacked(row, NULL);
	return bytes;
}
CODEC(history, job_history_row, job_history_decode(value, ret), history_write(buf, r),
      N(job_history_row, job), N(job_history_row, previous),
      M(job_history_row, row, sluice__job_history_row__descriptor))

static size_t quarantine_write(uint8_t *buf, const struct quarantine_value *record)
{
	static uint8_t packed[GOLDEN_BYTES_MAX], report[GOLDEN_BYTES_MAX];
	struct sluice_slice row =
		golden_packed(&sluice__quarantine_row__descriptor, record->row, packed);

	quarantine_head_encode(buf, record->previous, row.len);
	return append(buf, append(buf, QUARANTINE_HEAD_BYTES, row),
		      golden_packed(&sluice__job_report__descriptor, record->report, report));
}
CODEC(quarantine, quarantine_value, quarantine_value_decode(value, ret), quarantine_write(buf, r),
      N(quarantine_value, previous), M(quarantine_value, row, sluice__quarantine_row__descriptor),
      M(quarantine_value, report, sluice__job_report__descriptor))

/* Definitions are a message each. */
struct definition {
	struct sluice_slice message;
};
#define TOPO(NAME, number, name, type, text)                                     \
	CODEC(name, definition, (ret->message = value, 0),                       \
	      golden_packed(&sluice__##type##__descriptor, r->message, buf).len, \
	      M(definition, message, sluice__##type##__descriptor))
#define META(name, key, formats, text)
#define HOT(NAME, number, name, layout, formats, text)
#define RECORD(name, TABLE, layout, formats, text)
#include "broker/core/records.def"
#undef TOPO
#undef META
#undef HOT
#undef RECORD

/* ---- all of them ---- */

static const struct row {
	const char *name;
	const struct layout *layout;
	const struct codec *codec;
	unsigned formats;
	const char *meta; /* the key of a record of table meta */
	uint8_t kind;	  /* of a key in hot and topo; 0: any */
} rows[] = {
#define META(name, key, formats, text) {#name, &meta_layout, &name##_codec, formats, key, 0},
#define HOT(NAME, number, name, layout, formats, text) \
	{#name, &layout##_layout, &name##_codec, formats, NULL, number},
#define TOPO(NAME, number, name, type, text) {#name, &topo_layout, &name##_codec, 1, NULL, number},
#define RECORD(name, TABLE, layout, formats, text) \
	{#name, &layout##_layout, &name##_codec, formats, NULL, 0},
#include "broker/core/records.def"
#undef TOPO
#undef META
#undef HOT
#undef RECORD
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

/* Calls check for the key and the value of each record of each kind. */
static void each(void (*check)(const struct row *row, struct golden *golden,
			       struct golden_part *key, struct golden_part *value))
{
	for (size_t i = 0; i < ROWS; i++) {
		struct golden *golden = golden_load(RECORD_DATA, rows[i].name);

		cr_assert_eq(golden->part_count % 2, 0, "%s: a key and a value each", golden->path);
		for (size_t at = 0; at < golden->part_count; at += 2) {
			cr_assert_str_eq(golden->parts[at].name, "key", "%s", golden->path);
			cr_assert_str_eq(golden->parts[at + 1].name, "value", "%s", golden->path);
			check(&rows[i], golden, &golden->parts[at], &golden->parts[at + 1]);
		}
		golden_free(golden);
	}
}

static struct sluice_slice bytes_of(const struct golden_part *part)
{
	return (struct sluice_slice){part->bytes, part->len};
}

static void key_is_golden(const struct row *row, struct golden *golden, struct golden_part *key,
			  struct golden_part *value)
{
	union record decoded = {{0}}, filled = {{0}};
	struct key encoded;

	(void)value;
	cr_assert(row->layout->decode(bytes_of(key), &decoded), "%s: the key is not of its layout",
		  golden->path);
	golden_expect(golden, key, row->layout->members, &decoded);
	golden_fill(golden, key, row->layout->members, &filled);
	row->layout->encode(&encoded, &filled);
	golden_bytes(golden, key, key_slice(&encoded));
	cr_assert(row->kind == 0 || key->bytes[4] == row->kind, "%s: the key is of kind %u",
		  golden->path, key->bytes[4]);
	cr_assert(row->meta == NULL || (key->len == strlen(row->meta) &&
					memcmp(key->bytes, row->meta, key->len) == 0),
		  "%s: the key is not %s", golden->path, row->meta);
}

Test(core_golden, each_key_has_its_golden_bytes)
{
	each(key_is_golden);
}

static void value_is_golden(const struct row *row, struct golden *golden, struct golden_part *key,
			    struct golden_part *value)
{
	static uint8_t encoded[GOLDEN_BYTES_MAX + QUEUE_GRANT_BYTES_MAX + SESSION_BYTES_MAX];
	static union record decoded, filled;

	memset(&decoded, 0, sizeof(decoded));
	memset(&filled, 0, sizeof(filled));
	cr_assert(value->format >= 1 && value->format <= row->formats, "%s: format %u of %u",
		  golden->path, value->format, row->formats);
	cr_assert_eq(row->codec->decode(key, bytes_of(value), &decoded), 0,
		     "%s: format %u is not decoded", golden->path, value->format);
	golden_expect(golden, value, row->codec->members, &decoded);
	if (value->format != row->formats)
		return;
	golden_fill(golden, value, row->codec->members, &filled);
	golden_bytes(golden, value,
		     (struct sluice_slice){encoded, row->codec->encode(encoded, &filled)});
}

Test(core_golden, each_record_has_its_golden_bytes)
{
	each(value_is_golden);
}

Test(core_golden, each_format_of_each_record_has_golden_bytes)
{
	for (size_t i = 0; i < ROWS; i++) {
		struct golden *golden = golden_load(RECORD_DATA, rows[i].name);

		for (unsigned format = 1; format <= rows[i].formats; format++) {
			bool found = false;

			for (size_t at = 1; at < golden->part_count; at += 2)
				found = found || golden->parts[at].format == format;
			cr_assert(found, "%s: no record of format %u", golden->path, format);
		}
		golden_free(golden);
	}
}

static void other_lengths_are_refused(const struct row *row, struct golden *golden,
				      struct golden_part *key, struct golden_part *value)
{
	static union record decoded;

	(void)value;
	if (row->layout->any_length)
		return;
	for (size_t len = 0; len <= key->len + 1; len++) {
		/* A copy of exactly this length, so that a sanitizer detects a read beyond it. */
		uint8_t *copy = calloc(1, len + (len == 0));

		cr_assert_not_null(copy);
		memcpy(copy, key->bytes, len < key->len ? len : key->len);
		cr_assert_eq(row->layout->decode((struct sluice_slice){copy, len}, &decoded),
			     len == key->len ||
				     (len == KEY_ORPHAN_BYTES && row->layout == &orphan_layout),
			     "%s: a key of %zu bytes", golden->path, len);
		free(copy);
	}
}

Test(core_golden, a_key_of_another_length_is_refused)
{
	each(other_lengths_are_refused);
}

static void cuts_are_harmless(const struct row *row, struct golden *golden, struct golden_part *key,
			      struct golden_part *value)
{
	static union record decoded;

	(void)golden;
	for (size_t len = 0; len < value->len; len++) {
		uint8_t *copy = malloc(len + (len == 0));

		cr_assert_not_null(copy);
		memcpy(copy, value->bytes, len);
		(void)row->codec->decode(key, (struct sluice_slice){copy, len}, &decoded);
		free(copy);
	}
}

Test(core_golden, a_record_that_was_cut_is_read_within_its_bytes)
{
	each(cuts_are_harmless);
}
