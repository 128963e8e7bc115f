/* SPDX-License-Identifier: Apache-2.0
 * Frames: the vectors that SPEC.md shows are what the codecs read and write; every cut and every
 * impossible field is refused. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/limits.h"
#include "protocol_vectors.h"

#define TIME_MS 1700000000000u
#define TOKEN 0x1000000000008u

static void drop(struct sluice_slice slice)
{
	free((void *)(uintptr_t)slice.data);
}

/* ---- header ---- */

static int header_of(uint32_t length, uint8_t flags, uint64_t max, struct frame_header *ret)
{
	uint8_t bytes[FRAME_HEADER_BYTES] = {(uint8_t)(length >> 24),
					     (uint8_t)(length >> 16),
					     (uint8_t)(length >> 8),
					     (uint8_t)length,
					     9,
					     flags,
					     0,
					     0,
					     1,
					     2};
	const char *why = NULL;
	int rc = frame_header_decode(bytes, max, ret, &why);

	cr_assert(rc == 0 || why != NULL);
	return rc;
}

Test(frame_header, length_has_a_floor_and_the_ceiling_of_its_phase)
{
	struct frame_header header;

	cr_assert(header_of(0, 0, LIMIT_FRAME_BYTES_MAX, &header) == SLUICE_E_PROTOCOL);
	cr_assert(header_of(5, 0, LIMIT_FRAME_BYTES_MAX, &header) == SLUICE_E_PROTOCOL);
	cr_assert(header_of(6, 0, LIMIT_FRAME_BYTES_MAX, &header) == 0);
	cr_assert(header.body_bytes == 0 && header.type == 9 && header.corr == 0x102);
	/* limit: FRAME_BYTES_MAX */
	cr_assert(header_of((uint32_t)LIMIT_FRAME_BYTES_MAX, 0, LIMIT_FRAME_BYTES_MAX, &header) ==
		  0);
	cr_assert(header.body_bytes == LIMIT_FRAME_BYTES_MAX - 6);
	cr_assert(header_of((uint32_t)LIMIT_FRAME_BYTES_MAX + 1, 0, LIMIT_FRAME_BYTES_MAX,
			    &header) == SLUICE_E_LIMIT);
	cr_assert(header_of(UINT32_MAX, 0, LIMIT_FRAME_BYTES_MAX, &header) == SLUICE_E_LIMIT);
	/* limit: PREAUTH_BYTES_MAX */
	cr_assert(header_of((uint32_t)LIMIT_PREAUTH_BYTES_MAX, 0, LIMIT_PREAUTH_BYTES_MAX,
			    &header) == 0);
	cr_assert(header_of((uint32_t)LIMIT_PREAUTH_BYTES_MAX + 1, 0, LIMIT_PREAUTH_BYTES_MAX,
			    &header) == SLUICE_E_LIMIT);
}

Test(frame_header, flags_are_refused)
{
	struct frame_header header;

	for (unsigned bit = 0; bit < 8; bit++)
		cr_assert(header_of(6, (uint8_t)(1u << bit), LIMIT_FRAME_BYTES_MAX, &header) ==
			  SLUICE_E_PROTOCOL);
}

Test(frame_header, control_frames_are_as_the_specification_shows_them)
{
	drop(vector_body("ping", FRAME_PING, 1));
	drop(vector_body("hello", FRAME_HELLO, 0));
	drop(vector_body("welcome", FRAME_WELCOME, 0));
	drop(vector_body("request", FRAME_REQUEST, 2));
	drop(vector_body("reply", FRAME_REPLY, 2));
	drop(vector_body("error", FRAME_ERROR, 0));
	drop(vector_body("notice", FRAME_NOTICE, 0));
}

/* ---- PUBLISH ---- */

static int publish_decode(struct sluice_slice body, struct frame_publish *ret)
{
	const char *why = NULL;
	int rc = frame_publish_decode(body, ret, &why);

	cr_assert((rc == 0) == (why == NULL), "%d %s", rc, why);
	return rc;
}

static void publish_equals(const char *name, const struct frame_publish *publish)
{
	uint8_t bytes[4096];

	cr_assert(frame_publish_size(publish) <= sizeof(bytes));
	cr_assert(frame_publish_encode(bytes, publish) == frame_publish_size(publish));
	vector_body_equals(name, bytes, frame_publish_size(publish));
}

Test(publish, vectors_decode_and_encode)
{
	struct sluice_slice one = vector_body("publish", FRAME_PUBLISH, 4),
			    batch = vector_body("publish_batch", FRAME_PUBLISH, 5),
			    zstd = vector_body("publish_zstd", FRAME_PUBLISH, 6);
	struct frame_publish publish;
	uint8_t *raw = NULL;
	const char *why = NULL;

	cr_assert(publish_decode(one, &publish) == 0);
	cr_assert(publish.target_kind == PUBLISH_TO_SUBJECT &&
		  publish.durability == DURABILITY_SYNC && publish.codec == BATCH_RAW);
	cr_assert(publish.producer == 0 && publish.first_seq == 0 && publish.count == 1 &&
		  publish.time_ms == 0 && publish.flags == 0);
	cr_assert(slice_is(publish.subject, "job.1.queued") && publish.target.len == 0);
	cr_assert(batch_check(publish.payload, publish.count, true, NULL, NULL, &why) == 0, "%s",
		  why);
	publish_equals("publish", &publish);

	cr_assert(publish_decode(batch, &publish) == 0);
	cr_assert(publish.flags == PUBLISH_MANDATORY && publish.producer == 9 &&
		  publish.epoch == 1 && publish.first_seq == 41);
	cr_assert(publish.settled_seq == 40 && publish.count == 2 && publish.time_ms == TIME_MS &&
		  publish.raw_bytes == 31);
	cr_assert(batch_check(publish.payload, publish.count, false, NULL, NULL, &why) == 0, "%s",
		  why);
	publish_equals("publish_batch", &publish);

	cr_assert(publish_decode(zstd, &publish) == 0);
	cr_assert(publish.target_kind == PUBLISH_TO_QUEUE &&
		  publish.durability == DURABILITY_RELAXED && publish.codec == BATCH_ZSTD);
	cr_assert(slice_is(publish.target, "work") && slice_is(publish.subject, "put") &&
		  publish.raw_bytes == 180);
	publish_equals("publish_zstd", &publish);
	cr_assert(batch_decompress(publish.payload, publish.raw_bytes, &raw, &why) == 0, "%s", why);
	cr_assert(batch_check((struct sluice_slice){raw, 180}, 20, true, NULL, NULL, &why) == 0,
		  "%s", why);
	free(raw);
	drop(one);
	drop(batch);
	drop(zstd);
}

Test(publish, every_cut_of_the_head_is_refused)
{
	struct sluice_slice body = vector_body("publish_zstd", FRAME_PUBLISH, 6);
	size_t head = FRAME_PUBLISH_FIXED_BYTES + strlen("put") + strlen("work");

	for (size_t len = 0; len < head; len++) {
		struct sluice_slice cut = slice_copy(body.data, len);
		struct frame_publish publish;

		cr_assert(publish_decode(cut, &publish) == SLUICE_E_PROTOCOL, "%zu bytes", len);
		drop(cut);
	}
	drop(body);
}

static struct frame_publish good_publish(void)
{
	static const uint8_t payload[] = {0x92, 0x00, 0xc4, 0x00};

	return (struct frame_publish){.producer = 7,
				      .epoch = 1,
				      .first_seq = 1,
				      .count = 1,
				      .raw_bytes = sizeof(payload),
				      .subject = text("a"),
				      .payload = {payload, sizeof(payload)}};
}

static int publish_through(const struct frame_publish *publish)
{
	uint8_t *bytes = malloc(frame_publish_size(publish));
	struct frame_publish back;
	int rc;

	cr_assert(bytes != NULL);
	rc = publish_decode((struct sluice_slice){bytes, frame_publish_encode(bytes, publish)},
			    &back);
	free(bytes);
	return rc;
}

#define REFUSED(code, change)                                            \
	do {                                                             \
		struct frame_publish p = good_publish();                 \
		change;                                                  \
		cr_assert(publish_through(&p) == (code), "%s", #change); \
	} while (0)

Test(publish, impossible_fields_are_refused)
{
	REFUSED(0, (void)p);
	REFUSED(SLUICE_E_PROTOCOL, p.target_kind = 3);
	REFUSED(SLUICE_E_PROTOCOL, p.durability = 2);
	REFUSED(SLUICE_E_PROTOCOL, p.codec = 2);
	REFUSED(SLUICE_E_PROTOCOL, p.flags = 2);
	REFUSED(SLUICE_E_PROTOCOL, p.count = 0);
	REFUSED(SLUICE_E_PROTOCOL, p.first_seq = 0);
	REFUSED(SLUICE_E_PROTOCOL, p.producer = 0);
	REFUSED(SLUICE_E_PROTOCOL, p.raw_bytes++);
	REFUSED(SLUICE_E_PROTOCOL, p.target_kind = PUBLISH_TO_QUEUE);
	REFUSED(SLUICE_E_PROTOCOL, p.target = text("q"));
	REFUSED(SLUICE_E_PROTOCOL, p.first_seq = UINT64_MAX);
	REFUSED(0, (p.target_kind = PUBLISH_TO_STREAM, p.target = text("s")));
	REFUSED(0, p.subject = text(""));
	REFUSED(0, (p.producer = 0, p.epoch = 0, p.first_seq = 0));
	REFUSED(0, (p.codec = BATCH_ZSTD, p.raw_bytes = 100));
}

Test(publish, limits_at_their_edges)
{
	static char long_text[300];

	memset(long_text, 'x', sizeof(long_text) - 1);
	/* limit: BATCH_EVENTS_MAX */
	REFUSED(0, p.count = (uint32_t)LIMIT_BATCH_EVENTS_MAX);
	REFUSED(SLUICE_E_LIMIT, p.count = (uint32_t)LIMIT_BATCH_EVENTS_MAX + 1);
	/* limit: BATCH_RAW_BYTES_MAX */
	REFUSED(0, (p.codec = BATCH_ZSTD, p.raw_bytes = (uint32_t)LIMIT_BATCH_RAW_BYTES_MAX));
	REFUSED(SLUICE_E_LIMIT,
		(p.codec = BATCH_ZSTD, p.raw_bytes = (uint32_t)LIMIT_BATCH_RAW_BYTES_MAX + 1));
	/* limit: SUBJECT_BYTES_MAX */
	REFUSED(0, p.subject = ((struct sluice_slice){long_text, LIMIT_SUBJECT_BYTES_MAX}));
	REFUSED(SLUICE_E_LIMIT,
		p.subject = ((struct sluice_slice){long_text, LIMIT_SUBJECT_BYTES_MAX + 1}));
	/* limit: NAME_BYTES_MAX */
	REFUSED(0, (p.target_kind = 1,
		    p.target = (struct sluice_slice){long_text, LIMIT_NAME_BYTES_MAX}));
	REFUSED(SLUICE_E_LIMIT,
		(p.target_kind = 1,
		 p.target = (struct sluice_slice){long_text, LIMIT_NAME_BYTES_MAX + 1}));
}

/* ---- PUBLISHED ---- */

Test(published, vector_of_two_answers_decodes_and_encodes)
{
	struct sluice_slice body = vector_body("published", FRAME_PUBLISHED, 5),
			    rest = {(const uint8_t *)body.data + 2, body.len - 2};
	struct frame_published first, second;
	const char *why = NULL;
	uint8_t bytes[256] = {0, 2};
	size_t len = 2;

	cr_assert(frame_published_decode(&rest, &first, &why) == 0 &&
		  frame_published_decode(&rest, &second, &why) == 0 && rest.len == 0);
	cr_assert(first.code == 0 && first.first_seq == 41 && first.count == 2 &&
		  first.index == 0x1000000000006 && first.offset == 100);
	cr_assert(second.code == SLUICE_E_NO_ROUTE && second.first_seq == 43 &&
		  second.offset == UINT64_MAX && slice_is(second.text, "nothing is bound"));
	len += frame_published_encode(bytes + len, &first);
	len += frame_published_encode(bytes + len, &second);
	cr_assert(len == 2 + frame_published_size(&first) + frame_published_size(&second));
	vector_body_equals("published", bytes, len);
	drop(body);
	body = vector_body("published_duplicate", FRAME_PUBLISHED, 9);
	rest = (struct sluice_slice){(const uint8_t *)body.data + 2, body.len - 2};
	cr_assert(frame_published_decode(&rest, &first, &why) == 0 &&
		  first.flags == PUBLISHED_DUPLICATE);
	drop(body);
}

Test(published, every_cut_is_refused)
{
	struct sluice_slice body = vector_body("published", FRAME_PUBLISHED, 5);
	size_t first = FRAME_PUBLISHED_FIXED_BYTES, all = body.len - 2;

	for (size_t len = 0; len < all; len++) {
		struct sluice_slice cut = slice_copy((const uint8_t *)body.data + 2, len),
				    rest = cut;
		struct frame_published answer;
		const char *why = NULL;
		int rc = frame_published_decode(&rest, &answer, &why);

		if (len >= first && rc == 0)
			rc = rest.len == 0 && len == first
				     ? SLUICE_E_PROTOCOL
				     : frame_published_decode(&rest, &answer, &why);
		cr_assert(rc == SLUICE_E_PROTOCOL, "%zu bytes", len);
		drop(cut);
	}
	drop(body);
}

/* ---- DELIVER ---- */

static int deliver_decode(struct sluice_slice body, struct frame_deliver *ret)
{
	const char *why = NULL;
	int rc = frame_deliver_decode(body, ret, &why);

	cr_assert((rc == 0) == (why == NULL));
	return rc;
}

static void deliver_equals(const char *name, const struct frame_deliver *deliver)
{
	struct frame_run runs[8];
	uint8_t bytes[1024];
	size_t head;

	for (size_t i = 0; i < deliver->run_count; i++)
		runs[i] = frame_run_at(deliver->runs, i);
	head = frame_deliver_head_encode(bytes, deliver, runs);
	cr_assert(head == frame_deliver_head_size(deliver));
	memcpy(bytes + head, deliver->payload.data, deliver->payload.len);
	vector_body_equals(name, bytes, head + deliver->payload.len);
}

Test(deliver, vectors_decode_and_encode)
{
	struct sluice_slice events = vector_body("deliver_events", FRAME_DELIVER, 0),
			    items = vector_body("deliver_items", FRAME_DELIVER, 0),
			    jobs = vector_body("deliver_jobs", FRAME_DELIVER, 0), rest;
	struct frame_deliver deliver;
	struct envelope envelope;
	const char *why = NULL;

	cr_assert(deliver_decode(events, &deliver) == 0);
	cr_assert(deliver.subscription == 1 && deliver.kind == DELIVER_EVENTS &&
		  deliver.base == 100 && deliver.count == 2);
	cr_assert(deliver.time_ms == TIME_MS && deliver.run_count == 2 &&
		  slice_is(deliver.subject, "job.1.active"));
	cr_assert(frame_run_at(deliver.runs, 0).first == 100 &&
		  frame_run_at(deliver.runs, 1).first == 102 &&
		  frame_run_at(deliver.runs, 1).count == 1);
	cr_assert(batch_check(deliver.payload, 2, true, NULL, NULL, &why) == 0);
	deliver_equals("deliver_events", &deliver);

	cr_assert(deliver_decode(items, &deliver) == 0);
	cr_assert(deliver.kind == DELIVER_ITEMS && deliver.token == TOKEN &&
		  deliver.lease_ms == 30000 && deliver.subject.len == 0);
	cr_assert(deliver.raw_bytes == deliver.payload.len);
	rest = (struct sluice_slice){(const uint8_t *)deliver.payload.data + 10,
				     deliver.payload.len - 10};
	cr_assert(envelope_next(&rest, &envelope, &why) == 0 && slice_is(envelope.body, "one") &&
		  slice_is(envelope.subject, "put"));
	deliver_equals("deliver_items", &deliver);

	cr_assert(deliver_decode(jobs, &deliver) == 0 && deliver.kind == DELIVER_JOBS &&
		  deliver.count == 1 && deliver.run_count == 0);
	deliver_equals("deliver_jobs", &deliver);
	drop(events);
	drop(items);
	drop(jobs);
}

Test(deliver, every_cut_of_the_head_is_refused)
{
	struct sluice_slice body = vector_body("deliver_events", FRAME_DELIVER, 0);
	size_t head = FRAME_DELIVER_FIXED_BYTES + 2 * FRAME_RUN_BYTES + strlen("job.1.active");

	for (size_t len = 0; len < head; len++) {
		struct sluice_slice cut = slice_copy(body.data, len);
		struct frame_deliver deliver;

		cr_assert(deliver_decode(cut, &deliver) == SLUICE_E_PROTOCOL, "%zu bytes", len);
		drop(cut);
	}
	drop(body);
}

Test(deliver, impossible_fields_are_refused)
{
	struct sluice_slice body = vector_body("deliver_events", FRAME_DELIVER, 0);
	uint8_t *bytes = (uint8_t *)(uintptr_t)body.data;
	struct frame_deliver deliver;

	bytes[4] = 3;
	cr_assert(deliver_decode(body, &deliver) == SLUICE_E_PROTOCOL);
	bytes[4] = 0;
	bytes[5] = 2;
	cr_assert(deliver_decode(body, &deliver) == SLUICE_E_PROTOCOL);
	bytes[5] = 1;
	memset(bytes + 38, 0xff, 4); /* raw bytes */
	cr_assert(deliver_decode(body, &deliver) == SLUICE_E_LIMIT);
	drop(body);
}

/* ---- ACK, ACKED, CREDIT ---- */

static int ack_decode(struct sluice_slice body, struct frame_ack *ret)
{
	const char *why = NULL;
	int rc = frame_ack_decode(body, ret, &why);

	cr_assert((rc == 0) == (why == NULL));
	return rc;
}

/* The body stays: *ret points into it. */
static struct sluice_slice ack_vector(const char *name, uint32_t corr, struct frame_ack *ret)
{
	struct sluice_slice body = vector_body(name, FRAME_ACK, corr);
	struct frame_run runs[8];
	uint8_t bytes[256];
	size_t len;

	cr_assert(ack_decode(body, ret) == 0);
	for (size_t i = 0; i < ret->run_count; i++)
		runs[i] = frame_run_at(ret->runs, i);
	len = frame_ack_encode(bytes, ret, runs);
	cr_assert(len == frame_ack_size(ret));
	vector_body_equals(name, bytes, len);
	for (size_t cut = 0; cut < body.len; cut++) {
		struct sluice_slice part = slice_copy(body.data, cut);
		struct frame_ack ack;

		cr_assert(ack_decode(part, &ack) == SLUICE_E_PROTOCOL, "%s: %zu bytes", name, cut);
		drop(part);
	}
	return body;
}

Test(ack, vectors_decode_encode_and_cuts_are_refused)
{
	struct frame_ack ack;
	struct sluice_slice body = ack_vector("ack", 0, &ack);

	cr_assert(ack.subscription == 2 && ack.op == ACK_DONE && ack.token == TOKEN &&
		  ack.run_count == 2 && frame_run_at(ack.runs, 1).first == 9);
	drop(body);
	body = ack_vector("ack_nack", 10, &ack);
	cr_assert(ack.op == ACK_NACK && ack.value_ms == 1000 && slice_is(ack.reason, "no disk"));
	drop(body);
	body = ack_vector("ack_extend", 11, &ack);
	cr_assert(ack.op == ACK_EXTEND && ack.value_ms == 60000 && ack.run_count == 0);
	drop(body);
	body = ack_vector("ack_reject", 12, &ack);
	cr_assert(ack.op == ACK_REJECT && ack.value_ms == 0 && slice_is(ack.reason, "not a PDF") &&
		  frame_run_at(ack.runs, 0).first == 7);
	drop(body);
	body = ack_vector("ack_renew", 13, &ack);
	cr_assert(ack.op == ACK_RENEW && ack.value_ms == 60000 &&
		  frame_run_at(ack.runs, 0).first == 9);
	drop(body);
}

static int ack_through(uint16_t runs, size_t reason_len, uint8_t op, size_t extra)
{
	struct frame_run *run_array = calloc(runs + 1u, sizeof(*run_array));
	char *reason = malloc(reason_len + 1);
	struct frame_ack ack = {.subscription = 1,
				.op = op,
				.run_count = runs,
				.reason = {reason, reason_len}},
			 back;
	uint8_t *bytes = malloc(frame_ack_size(&ack) + extra);
	int rc;

	cr_assert(run_array != NULL && reason != NULL && bytes != NULL);
	memset(reason, 'r', reason_len);
	memset(bytes + frame_ack_encode(bytes, &ack, run_array), 0, extra);
	rc = ack_decode((struct sluice_slice){bytes, frame_ack_size(&ack) + extra}, &back);
	free(run_array);
	free(reason);
	free(bytes);
	return rc;
}

Test(ack, limits_at_their_edges)
{
	/* limit: ACK_RUNS_MAX */
	cr_assert(ack_through((uint16_t)LIMIT_ACK_RUNS_MAX, 0, ACK_DONE, 0) == 0);
	cr_assert(ack_through((uint16_t)LIMIT_ACK_RUNS_MAX + 1, 0, ACK_DONE, 0) == SLUICE_E_LIMIT);
	/* limit: TEXT_BYTES_MAX */
	cr_assert(ack_through(1, LIMIT_TEXT_BYTES_MAX, ACK_NACK, 0) == 0);
	cr_assert(ack_through(1, LIMIT_TEXT_BYTES_MAX + 1, ACK_NACK, 0) == SLUICE_E_LIMIT);
	for (uint8_t op = 0; op < 7; op++)
		cr_assert(ack_through(1, 1, op, 0) == 0, "operation %u", op);
	cr_assert(ack_through(1, 0, 7, 0) == SLUICE_E_PROTOCOL);
	cr_assert(ack_through(1, 0, 255, 0) == SLUICE_E_PROTOCOL);
	cr_assert(ack_through(1, 0, ACK_DONE, 1) == SLUICE_E_PROTOCOL);
}

Test(acked, vectors_decode_encode_and_cuts_are_refused)
{
	static const struct {
		const char *name;
		uint32_t corr;
		int code;
		uint32_t affected;
		const char *text;
	} rows[] = {{"acked", 10, 0, 1, ""},
		    {"acked_error", 0, SLUICE_E_STALE_TOKEN, 0, "the lease is no longer held"}};

	for (size_t i = 0; i < 2; i++) {
		struct sluice_slice body = vector_body(rows[i].name, FRAME_ACKED, rows[i].corr);
		struct frame_acked acked;
		const char *why = NULL;
		uint8_t bytes[128];

		cr_assert(frame_acked_decode(body, &acked, &why) == 0);
		cr_assert(acked.code == rows[i].code && acked.affected == rows[i].affected &&
			  slice_is(acked.text, rows[i].text));
		cr_assert(frame_acked_encode(bytes, &acked) == frame_acked_size(&acked));
		vector_body_equals(rows[i].name, bytes, frame_acked_size(&acked));
		for (size_t len = 0; len < body.len; len++) {
			struct sluice_slice cut = slice_copy(body.data, len);

			cr_assert(frame_acked_decode(cut, &acked, &why) == SLUICE_E_PROTOCOL);
			drop(cut);
		}
		drop(body);
	}
}

Test(credit, vector_decodes_encodes_and_other_lengths_are_refused)
{
	struct sluice_slice body = vector_body("credit", FRAME_CREDIT, 0),
			    longer = slice_copy("123456789", 9);
	struct frame_credit credit;
	const char *why = NULL;
	uint8_t bytes[FRAME_CREDIT_BYTES];

	cr_assert(frame_credit_decode(body, &credit, &why) == 0 && credit.subscription == 2 &&
		  credit.more == 100);
	frame_credit_encode(bytes, &credit);
	vector_body_equals("credit", bytes, sizeof(bytes));
	for (size_t len = 0; len < FRAME_CREDIT_BYTES; len++) {
		struct sluice_slice cut = slice_copy(body.data, len);

		cr_assert(frame_credit_decode(cut, &credit, &why) == SLUICE_E_PROTOCOL);
		drop(cut);
	}
	cr_assert(frame_credit_decode(longer, &credit, &why) == SLUICE_E_PROTOCOL);
	drop(longer);
	drop(body);
}
