/* SPDX-License-Identifier: Apache-2.0
 * Envelopes and batches: vectors, round trips, one encoding per event, every cut, every limit,
 * wrong zstd frames. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "protocol/limits.h"
#include "protocol_vectors.h"

static void drop(struct sluice_slice slice)
{
	free((void *)(uintptr_t)slice.data);
}

static int next(struct sluice_slice bytes, struct envelope *ret, size_t *ret_left)
{
	struct sluice_slice copy = slice_copy(bytes.data, bytes.len), rest = copy;
	const char *why = NULL;
	int rc = envelope_next(&rest, ret, &why);

	cr_assert((rc == 0) == (why == NULL));
	if (ret_left != NULL)
		*ret_left = rest.len;
	drop(copy); /* the memory behind the slices is not read afterwards */
	return rc;
}

static int code_of(const char *bytes, size_t len)
{
	struct envelope envelope;

	return next((struct sluice_slice){bytes, len}, &envelope, NULL);
}

#define CODE(literal) code_of(literal, sizeof(literal) - 1)

/* The vector stays: *ret points into it. */
static struct sluice_slice vector_again(const char *name, struct envelope *ret)
{
	struct sluice_slice bytes = vector_load(name), rest = bytes;
	uint8_t again[256];
	const char *why = NULL;
	size_t len;

	cr_assert(envelope_next(&rest, ret, &why) == 0 && rest.len == 0, "%s: %s", name, why);
	cr_assert(ret->encoded.len == bytes.len && ret->encoded.data == bytes.data);
	len = envelope_encode(again, ret);
	cr_assert(len == bytes.len && len <= envelope_size_max(ret) &&
			  memcmp(again, bytes.data, len) == 0,
		  "%s", name);
	for (size_t cut = 0; cut < bytes.len; cut++) {
		struct envelope envelope;

		cr_assert(next((struct sluice_slice){bytes.data, cut}, &envelope, NULL) ==
				  SLUICE_E_PROTOCOL,
			  "%s: %zu bytes", name, cut);
	}
	return bytes;
}

Test(envelope, vectors_decode_encode_and_cuts_are_refused)
{
	struct envelope envelope;
	struct sluice_slice name, value, vector = vector_again("envelope_min", &envelope);
	size_t pos = 0;

	cr_assert(envelope.time_delta_ms == 0 && slice_is(envelope.body, "hello") &&
		  envelope.key.len == 0 && envelope.headers.len == 0);
	drop(vector);
	vector = vector_again("envelope_full", &envelope);
	cr_assert(envelope.time_delta_ms == -5 && slice_is(envelope.key, "k1") &&
		  slice_is(envelope.id, "id-7") && envelope.priority == 9);
	cr_assert(slice_is(envelope.subject, "job.4711.active"));
	cr_assert(envelope_header_next(envelope.headers, &pos, &name, &value) == 1 &&
		  slice_is(name, "user") && slice_is(value, "ada"));
	cr_assert(envelope_header_next(envelope.headers, &pos, &name, &value) == 0);
	drop(vector);
	vector = vector_again("envelope_nil", &envelope);
	cr_assert(envelope.time_delta_ms == 1000 && envelope.body.len == 0 &&
		  envelope.id.len == 0 && envelope.headers.len > 0);
	drop(vector);
}

Test(envelope, times_round_trip_at_each_width)
{
	static const int64_t times[] = {0,	127,	128,	    255,	 256,
					65535,	65536,	4294967295, 4294967296,	 INT64_MAX,
					-1,	-32,	-33,	    -128,	 -129,
					-32768, -32769, INT32_MIN,  -2147483649, INT64_MIN};

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		struct envelope envelope = {.time_delta_ms = times[i]}, back;
		uint8_t bytes[32];
		size_t left, len = envelope_encode(bytes, &envelope);

		cr_assert(len <= envelope_size_max(&envelope));
		cr_assert(next((struct sluice_slice){bytes, len}, &back, &left) == 0 && left == 0 &&
				  back.time_delta_ms == times[i],
			  "%lld", (long long)times[i]);
	}
}

Test(envelope, longer_forms_than_needed_are_refused)
{
	cr_assert(CODE("\x92\x00\xc4\x00") == 0);
	cr_assert(CODE("\xdc\x00\x02\x00\xc4\x00") == SLUICE_E_PROTOCOL); /* array 16 */
	cr_assert(CODE("\x92\xcc\x7f\xc4\x00") == SLUICE_E_PROTOCOL);	  /* 127 as uint 8 */
	cr_assert(CODE("\x92\xcd\x00\xff\xc4\x00") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x92\xce\x00\x00\xff\xff\xc4\x00") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x92\xcf\x00\x00\x00\x00\xff\xff\xff\xff\xc4\x00") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x92\xcf\x80\x00\x00\x00\x00\x00\x00\x00\xc4\x00") ==
		  SLUICE_E_PROTOCOL);				      /* over INT64_MAX */
	cr_assert(CODE("\x92\xd0\xff\xc4\x00") == SLUICE_E_PROTOCOL); /* -1 as int 8 */
	cr_assert(CODE("\x92\xd0\x05\xc4\x00") == SLUICE_E_PROTOCOL); /* 5 as int 8 */
	cr_assert(CODE("\x92\xd1\xff\x80\xc4\x00") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x92\x00\xc5\x00\x01x") == SLUICE_E_PROTOCOL); /* 1 byte as bin 16 */
	cr_assert(CODE("\x92\x00\xc6\x00\x00\x00\x01x") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x96\x00\xc4\x00\xc0\xc0\xc0\xd9\x01x") ==
		  SLUICE_E_PROTOCOL); /* 1 byte as str 8 */
	cr_assert(CODE("\x95\x00\xc4\x00\xc0\xc0\xde\x00\x01\xa1x\xa0") ==
		  SLUICE_E_PROTOCOL); /* 1 pair as map 16 */
}

Test(envelope, encoded_defaults_are_refused)
{
	cr_assert(CODE("\x93\x00\xc4\x00\xc0") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x94\x00\xc4\x00\xc4\x01k\xc0") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x95\x00\xc4\x00\xc0\xc0\xc0") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x96\x00\xc4\x00\xc0\xc0\xc0\xc0") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x97\x00\xc4\x00\xc0\xc0\xc0\xc0\xc0") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x97\x00\xc4\x00\xc0\xc0\xc0\xc0\x00") ==
		  SLUICE_E_PROTOCOL); /* priority 0 */
	cr_assert(CODE("\x97\x00\xc4\x00\xc0\xc0\xc0\xc0\xcd\x01\x00") ==
		  SLUICE_E_PROTOCOL); /* priority 256 */
	cr_assert(CODE("\x97\x00\xc4\x00\xc0\xc0\xc0\xc0\xcc\xff") == 0);
	cr_assert(CODE("\x93\x00\xc4\x00\xc4\x00") == SLUICE_E_PROTOCOL);     /* empty key */
	cr_assert(CODE("\x95\x00\xc4\x00\xc0\xc0\x80") == SLUICE_E_PROTOCOL); /* empty map */
	cr_assert(CODE("\x95\x00\xc4\x00\xc0\xc0\x81\xa0\xa1x") ==
		  SLUICE_E_PROTOCOL); /* empty header name */
}

Test(envelope, other_shapes_are_refused)
{
	cr_assert(CODE("\x91\x00") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x98\x00\xc4\x00\xc0\xc0\xc0\xc0\x01\x01") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x92\xc4\x00\x00") == SLUICE_E_PROTOCOL);      /* order */
	cr_assert(CODE("\x92\x00\xa1x") == SLUICE_E_PROTOCOL);	       /* body as str */
	cr_assert(CODE("\x93\x00\xc4\x00\xa1k") == SLUICE_E_PROTOCOL); /* key as str */
	cr_assert(CODE("\x92\xc0\xc4\x00") == SLUICE_E_PROTOCOL);
	cr_assert(CODE("\x92\x00\xc6\xff\xff\xff\xff") ==
		  SLUICE_E_PROTOCOL); /* 4 GiB that do not follow */
	cr_assert(CODE("\x95\x00\xc4\x00\xc0\xc0\xdf\xff\xff\xff\xff") ==
		  SLUICE_E_PROTOCOL); /* map 32 */
}

/* ---- limits ---- */

static int sized(struct envelope envelope)
{
	uint8_t *bytes = malloc(envelope_size_max(&envelope));
	struct envelope back;
	int rc;

	cr_assert(bytes != NULL);
	rc = next((struct sluice_slice){bytes, envelope_encode(bytes, &envelope)}, &back, NULL);
	free(bytes);
	return rc;
}

Test(envelope, limits_at_their_edges)
{
	char *big = malloc(LIMIT_EVENT_BODY_BYTES_MAX + 1);

	cr_assert(big != NULL);
	memset(big, 'b', LIMIT_EVENT_BODY_BYTES_MAX + 1);
	/* limit: EVENT_BODY_BYTES_MAX */
	cr_assert(sized((struct envelope){.body = {big, LIMIT_EVENT_BODY_BYTES_MAX}}) == 0);
	cr_assert(sized((struct envelope){.body = {big, LIMIT_EVENT_BODY_BYTES_MAX + 1}}) ==
		  SLUICE_E_LIMIT);
	/* limit: EVENT_KEY_BYTES_MAX */
	cr_assert(sized((struct envelope){.key = {big, LIMIT_EVENT_KEY_BYTES_MAX}}) == 0);
	cr_assert(sized((struct envelope){.key = {big, LIMIT_EVENT_KEY_BYTES_MAX + 1}}) ==
		  SLUICE_E_LIMIT);
	/* limit: EVENT_ID_BYTES_MAX */
	cr_assert(sized((struct envelope){.id = {big, LIMIT_EVENT_ID_BYTES_MAX}}) == 0);
	cr_assert(sized((struct envelope){.id = {big, LIMIT_EVENT_ID_BYTES_MAX + 1}}) ==
		  SLUICE_E_LIMIT);
	/* limit: SUBJECT_BYTES_MAX */
	cr_assert(sized((struct envelope){.subject = {big, LIMIT_SUBJECT_BYTES_MAX}}) == 0);
	cr_assert(sized((struct envelope){.subject = {big, LIMIT_SUBJECT_BYTES_MAX + 1}}) ==
		  SLUICE_E_LIMIT);
	free(big);
}

/* Headers that encode to exactly `bytes`: one pair "n" -> value; 1 + 2 + 3 (str 16) + value. */
static int with_headers(size_t bytes)
{
	struct sluice_slice name = text("n"), value = {NULL, bytes - 6};
	char *filling = malloc(bytes);
	uint8_t *encoded = malloc(bytes + 8);
	int rc;

	cr_assert(filling != NULL && encoded != NULL);
	memset(filling, 'v', bytes);
	value.data = filling;
	cr_assert(envelope_headers_encode(NULL, &name, &value, 1) == bytes &&
		  envelope_headers_encode(encoded, &name, &value, 1) == bytes);
	rc = sized((struct envelope){.headers = {encoded, bytes}});
	free(filling);
	free(encoded);
	return rc;
}

Test(envelope, headers_limit_at_its_edge)
{
	/* limit: EVENT_HEADERS_BYTES_MAX */
	cr_assert(with_headers(LIMIT_EVENT_HEADERS_BYTES_MAX - 1) == 0);
	/* One byte more would need str 32, which is two bytes longer: the pair alone exceeds
	 * 65,536. */
	{
		struct sluice_slice names[2] = {text("n"), text("m")}, values[2];
		char *filling = malloc(LIMIT_EVENT_HEADERS_BYTES_MAX);
		uint8_t *encoded = malloc(LIMIT_EVENT_HEADERS_BYTES_MAX + 16);

		cr_assert(filling != NULL && encoded != NULL);
		memset(filling, 'v', LIMIT_EVENT_HEADERS_BYTES_MAX);
		for (size_t over = 0; over < 2; over++) {
			size_t len;

			/* 1 + (2 + 3 + a) + (2 + 3 + b) */
			values[0] = (struct sluice_slice){filling, 1000};
			values[1] = (struct sluice_slice){filling, LIMIT_EVENT_HEADERS_BYTES_MAX -
									   1011 + over};
			len = envelope_headers_encode(encoded, names, values, 2);
			cr_assert(len == LIMIT_EVENT_HEADERS_BYTES_MAX + over);
			cr_assert(sized((struct envelope){.headers = {encoded, len}}) ==
				  (over == 0 ? 0 : SLUICE_E_LIMIT));
		}
		free(filling);
		free(encoded);
	}
}

Test(envelope, many_headers_keep_their_order)
{
	static const size_t counts[] = {1, 15, 16, 300};

	for (size_t c = 0; c < 4; c++) {
		struct sluice_slice names[300], values[300], name, value;
		static char texts[300][8];
		static uint8_t encoded[8192];
		size_t n = counts[c], len, pos = 0;

		for (size_t i = 0; i < n; i++) {
			(void)snprintf(texts[i], sizeof(texts[i]), "h%zu", i);
			names[i] = values[n - 1 - i] = text(texts[i]);
		}
		len = envelope_headers_encode(encoded, names, values, n);
		cr_assert(len == envelope_headers_encode(NULL, names, values, n));
		cr_assert(sized((struct envelope){.headers = {encoded, len}}) == 0);
		for (size_t i = 0; i < n; i++) {
			cr_assert(envelope_header_next((struct sluice_slice){encoded, len}, &pos,
						       &name, &value) == 1);
			cr_assert(slice_is(name, texts[i]) && value.len == values[i].len);
		}
		cr_assert(envelope_header_next((struct sluice_slice){encoded, len}, &pos, &name,
					       &value) == 0);
	}
	cr_assert(envelope_headers_encode(NULL, NULL, NULL, 0) == 0);
}

/* ---- batches ---- */

static struct sluice_slice batch_of(uint8_t *buf, uint32_t count, const char *subject)
{
	size_t len = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct envelope envelope = {.time_delta_ms = (int64_t)i - 3,
					    .body = text("b"),
					    .subject = text(subject)};

		len += envelope_encode(buf + len, &envelope);
	}
	return (struct sluice_slice){buf, len};
}

static int check(struct sluice_slice raw, uint32_t count, bool subject)
{
	const char *why = NULL;
	int rc = batch_check(raw, count, subject, NULL, NULL, &why);

	cr_assert((rc == 0) == (why == NULL));
	return rc;
}

Test(batch, holds_exactly_what_it_counts)
{
	static uint8_t buf[1024];
	struct sluice_slice raw = batch_of(buf, 10, "");
	int64_t min, max;
	const char *why = NULL;

	cr_assert(batch_check(raw, 10, true, &min, &max, &why) == 0 && min == -3 && max == 6);
	cr_assert(check(raw, 9, true) == SLUICE_E_PROTOCOL);
	cr_assert(check(raw, 11, true) == SLUICE_E_PROTOCOL);
	cr_assert(check((struct sluice_slice){NULL, 0}, 1, true) == SLUICE_E_PROTOCOL);
	for (size_t cut = 0; cut < raw.len; cut++)
		cr_assert(check((struct sluice_slice){buf, cut}, 10, true) == SLUICE_E_PROTOCOL);
}

/* The fast path through a batch accepts the same events as the slow one. */
Test(envelope, the_fast_path_finds_the_same_events)
{
	static const size_t lens[] = {0, 1, 100, 255, 256, 257, 65535, 65536};
	static const int64_t deltas[] = {0, 1, 127, 128, -1, 70000};
	static uint8_t body[65536], buf[65536 + 64], again[65536 + 64];

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]) * sizeof(deltas) / sizeof(deltas[0]);
	     i++) {
		struct envelope in = {.time_delta_ms = deltas[i % 6], .body = {body, lens[i / 6]}},
				out;
		size_t len = envelope_encode(buf, &in), plain;
		struct sluice_slice rest = {buf, len}, got = {NULL, 0};
		const char *why = NULL;

		plain = envelope_plain(rest, &got);
		cr_assert_eq(plain > 0, in.time_delta_ms >= 0 && in.time_delta_ms < 128 &&
						in.body.len < 65536 && in.body.len > 0);
		if (in.time_delta_ms == 0)
			cr_assert(envelope_plain_encode(again, in.body) == len &&
				  memcmp(again, buf, len) == 0);
		cr_assert_eq(envelope_next(&rest, &out, &why), 0);
		cr_assert(out.time_delta_ms == in.time_delta_ms && out.body.len == in.body.len &&
			  rest.len == 0 && out.encoded.len == len);
		if (plain == 0)
			continue;
		cr_assert(plain == len && got.data == out.body.data && got.len == out.body.len);
		/* Extra bytes after it change nothing; one byte less is refused. */
		cr_assert_eq(envelope_plain((struct sluice_slice){buf, len + 1}, &got), len);
		for (size_t cut = 0; cut<len; cut += len> 512 ? 97 : 1)
			cr_assert_eq(envelope_plain((struct sluice_slice){buf, cut}, &got), 0);
	}
	/* A length that has a shorter form, and other types. */
	memcpy(buf, (const uint8_t[]){0x92, 0, 0xc5, 0, 1, 'x'}, 6);
	cr_assert_eq(envelope_plain((struct sluice_slice){buf, 6}, &(struct sluice_slice){NULL, 0}),
		     0);
	memcpy(buf, (const uint8_t[]){0x93, 0, 0xc4, 1, 'x', 0xc0}, 6);
	cr_assert_eq(envelope_plain((struct sluice_slice){buf, 6}, &(struct sluice_slice){NULL, 0}),
		     0);
	cr_assert_eq(envelope_plain((struct sluice_slice){NULL, 0},
				    &(struct sluice_slice){NULL, 0}),
		     0);
}

Test(batch, has_a_subject_or_its_events_have)
{
	static uint8_t buf[1024];

	cr_assert(check(batch_of(buf, 2, ""), 2, false) == SLUICE_E_INVAL);
	cr_assert(check(batch_of(buf, 2, "a.b"), 2, false) == 0);
	cr_assert(check(batch_of(buf, 2, "a.b"), 2, true) == SLUICE_E_PROTOCOL);
	cr_assert(check(batch_of(buf, 2, "a..b"), 2, false) == SLUICE_E_INVAL);
	cr_assert(check(batch_of(buf, 2, "a.*"), 2, false) == SLUICE_E_INVAL);
}

Test(batch, header_text_is_utf8)
{
	static const char *const bad[] = {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
					  "\xe2\x82"};
	uint8_t encoded[64], buf[128];

	for (size_t i = 0; i < 10; i++) {
		struct sluice_slice good = text("x"), name = i < 5 ? text(bad[i]) : good,
				    value = i < 5 ? good : text(bad[i - 5]);
		struct envelope envelope = {
			.headers = {encoded, envelope_headers_encode(encoded, &name, &value, 1)}};

		cr_assert(check((struct sluice_slice){buf, envelope_encode(buf, &envelope)}, 1,
				true) == SLUICE_E_PROTOCOL,
			  "%zu", i);
	}
}

Test(batch, count_limit_at_its_edge)
{
	uint8_t *buf = malloc(16 * (LIMIT_BATCH_EVENTS_MAX + 1));
	struct sluice_slice raw;

	cr_assert(buf != NULL);
	/* limit: BATCH_EVENTS_MAX */
	raw = batch_of(buf, (uint32_t)LIMIT_BATCH_EVENTS_MAX, "");
	cr_assert(check(raw, (uint32_t)LIMIT_BATCH_EVENTS_MAX, true) == 0);
	raw = batch_of(buf, (uint32_t)LIMIT_BATCH_EVENTS_MAX + 1, "");
	cr_assert(check(raw, (uint32_t)LIMIT_BATCH_EVENTS_MAX + 1, true) == SLUICE_E_LIMIT);
	free(buf);
}

/* ---- zstd ---- */

static int unpack(struct sluice_slice payload, uint32_t raw_bytes, uint8_t **ret)
{
	const char *why = NULL;
	int rc = batch_decompress(payload, raw_bytes, ret, &why);

	cr_assert((rc == 0) == (why == NULL));
	return rc;
}

Test(zstd, round_trip_and_every_cut_is_refused)
{
	static uint8_t buf[4096], packed[4096];
	struct sluice_slice raw = batch_of(buf, 100, "a.b");
	size_t len = batch_compress(packed, sizeof(packed), raw);
	uint8_t *back = NULL;

	cr_assert(len > 0 && len < raw.len);
	cr_assert(unpack((struct sluice_slice){packed, len}, (uint32_t)raw.len, &back) == 0 &&
		  memcmp(back, buf, raw.len) == 0);
	free(back);
	for (size_t cut = 0; cut < len; cut++) {
		struct sluice_slice part = slice_copy(packed, cut);

		cr_assert(unpack(part, (uint32_t)raw.len, &back) == SLUICE_E_PROTOCOL, "%zu", cut);
		drop(part);
	}
}

Test(zstd, frames_with_a_wrong_size_are_refused)
{
	static uint8_t buf[4096], packed[8192];
	struct sluice_slice raw = batch_of(buf, 100, "a.b");
	size_t len = batch_compress(packed, sizeof(packed), raw);
	uint8_t *back = NULL;

	cr_assert(unpack((struct sluice_slice){packed, len}, (uint32_t)raw.len - 1, &back) ==
		  SLUICE_E_PROTOCOL);
	cr_assert(unpack((struct sluice_slice){packed, len}, (uint32_t)raw.len + 1, &back) ==
		  SLUICE_E_PROTOCOL);
	cr_assert(unpack((struct sluice_slice){NULL, 0}, 0, &back) == SLUICE_E_PROTOCOL);
	cr_assert(unpack(raw, (uint32_t)raw.len, &back) == SLUICE_E_PROTOCOL);
	memcpy(packed + len, packed, len); /* two frames */
	cr_assert(unpack((struct sluice_slice){packed, 2 * len}, (uint32_t)raw.len, &back) ==
		  SLUICE_E_PROTOCOL);
	cr_assert(unpack((struct sluice_slice){packed, len + 1}, (uint32_t)raw.len, &back) ==
		  SLUICE_E_PROTOCOL);
	cr_assert(unpack(text("\x50\x2a\x4d\x18"), 0, &back) ==
		  SLUICE_E_PROTOCOL); /* the start of a skippable frame */
}

/* SPEC.md 5: the frame states its content size. Nothing is decompressed to find out. */
Test(zstd, a_frame_without_its_content_size_is_refused)
{
	static uint8_t buf[4096], packed[8192];
	struct sluice_slice raw = batch_of(buf, 100, "a.b");
	ZSTD_CCtx *context = ZSTD_createCCtx();
	uint8_t *back = NULL;
	size_t len;

	cr_assert(context != NULL);
	for (int stated = 0; stated < 2; stated++) {
		(void)ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, stated);
		len = ZSTD_compress2(context, packed, sizeof(packed), raw.data, raw.len);
		cr_assert(!ZSTD_isError(len));
		cr_assert(unpack((struct sluice_slice){packed, len}, (uint32_t)raw.len, &back) ==
			  (stated ? 0 : SLUICE_E_PROTOCOL));
	}
	free(back);
	(void)ZSTD_freeCCtx(context);
}

Test(zstd, raw_size_limit_at_its_edge)
{
	size_t size = LIMIT_BATCH_RAW_BYTES_MAX + 1;
	uint8_t *zeros = calloc(1, size), *packed = malloc(1 << 16), *back = NULL;

	cr_assert(zeros != NULL && packed != NULL);
	/* limit: BATCH_RAW_BYTES_MAX */
	for (size_t over = 0; over < 2; over++) {
		size_t raw_bytes = LIMIT_BATCH_RAW_BYTES_MAX + over;
		size_t len =
			batch_compress(packed, 1 << 16, (struct sluice_slice){zeros, raw_bytes});

		cr_assert(len > 0);
		cr_assert(unpack((struct sluice_slice){packed, len}, (uint32_t)raw_bytes, &back) ==
			  (over == 0 ? 0 : SLUICE_E_LIMIT));
	}
	free(back);
	free(zeros);
	free(packed);
}

Test(zstd, what_does_not_shrink_stays)
{
	static const uint8_t few[] = {1, 2, 3};
	uint8_t packed[64];

	cr_assert(batch_compress(packed, sizeof(packed), (struct sluice_slice){few, sizeof(few)}) ==
		  0);
	cr_assert(batch_compress(packed, 1, (struct sluice_slice){few, sizeof(few)}) == 0);
}
