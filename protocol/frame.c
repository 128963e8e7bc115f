/* SPDX-License-Identifier: Apache-2.0
 * Frames: bytes <-> structs. Layouts are in frame.h and SPEC.md; each decoder checks every limit
 * before it returns 0. */
#include "protocol/frame.h"

#include "protocol/bytes.h"
#include "protocol/limits.h"

static int bad(const char **ret_why, const char *why)
{
	*ret_why = why;
	return SLUICE_E_PROTOCOL;
}

static int beyond(const char **ret_why, const char *why)
{
	*ret_why = why;
	return SLUICE_E_LIMIT;
}

int frame_header_decode(const uint8_t *buf, uint64_t frame_bytes_max, struct frame_header *ret,
			const char **ret_why)
{
	struct reader reader = {buf, FRAME_HEADER_BYTES, false};
	uint64_t length = read_be(&reader, 4);

	if (length < FRAME_LENGTH_OVERHEAD)
		return bad(ret_why,
			   "the length is shorter than type, flags and correlation (6 bytes)");
	if (length > frame_bytes_max)
		return beyond(ret_why, "the length is over FRAME_BYTES_MAX, or PREAUTH_BYTES_MAX "
				       "before WELCOME");
	ret->body_bytes = (uint32_t)length - FRAME_LENGTH_OVERHEAD;
	ret->type = (uint8_t)read_be(&reader, 1);
	ret->flags = (uint8_t)read_be(&reader, 1);
	ret->corr = (uint32_t)read_be(&reader, 4);
	if (ret->flags != 0)
		return bad(ret_why, "flags are not 0, the only value in version 1");
	return 0;
}

void frame_header_encode(uint8_t *buf, const struct frame_header *header)
{
	buf = write_be(buf, header->body_bytes + FRAME_LENGTH_OVERHEAD, 4);
	buf = write_be(buf, header->type, 1);
	buf = write_be(buf, header->flags, 1);
	(void)write_be(buf, header->corr, 4);
}

/* ---- PUBLISH ---- */

int frame_publish_check(const struct frame_publish *publish, const char **ret_why)
{
	if (publish->target_kind > PUBLISH_TO_STREAM)
		return bad(ret_why, "the target kind is not 0 (subject), 1 (queue) or 2 (stream)");
	if (publish->durability > DURABILITY_RELAXED)
		return bad(ret_why, "the durability is not 0 (sync) or 1 (relaxed)");
	if (publish->codec > BATCH_ZSTD)
		return bad(ret_why, "the codec is not 0 (none) or 1 (zstd)");
	if ((publish->flags & ~PUBLISH_MANDATORY) != 0)
		return bad(ret_why, "unknown publish flags are set");
	if (publish->count == 0)
		return bad(ret_why, "the batch has no events");
	if (publish->producer != 0 && publish->first_seq == 0)
		return bad(ret_why, "a producer's sequence starts at 1");
	if (publish->producer == 0 &&
	    (publish->first_seq != 0 || publish->settled_seq != 0 || publish->epoch != 0))
		return bad(ret_why, "a sequence is given without a producer");
	if (publish->first_seq + publish->count < publish->first_seq)
		return bad(ret_why, "the sequence numbers overflow");
	if ((publish->target_kind == PUBLISH_TO_SUBJECT) != (publish->target.len == 0))
		return bad(ret_why,
			   "a target name goes with target kinds 1 and 2, and only with them");
	if (publish->codec == BATCH_RAW && publish->raw_bytes != publish->payload.len)
		return bad(ret_why, "raw bytes differ from the length of an uncompressed payload");
	if (publish->count > LIMIT_BATCH_EVENTS_MAX)
		return beyond(ret_why, "more events than BATCH_EVENTS_MAX");
	if (publish->subject.len > LIMIT_SUBJECT_BYTES_MAX)
		return beyond(ret_why, "the subject is longer than SUBJECT_BYTES_MAX");
	if (publish->target.len > LIMIT_NAME_BYTES_MAX)
		return beyond(ret_why, "the target's name is longer than NAME_BYTES_MAX");
	if (publish->raw_bytes > LIMIT_BATCH_RAW_BYTES_MAX)
		return beyond(ret_why, "the batch is larger than BATCH_RAW_BYTES_MAX");
	return 0;
}

int frame_publish_decode(struct sluice_slice body, struct frame_publish *ret, const char **ret_why)
{
	struct reader reader = reader_of(body);
	size_t subject_len, target_len;

	ret->target_kind = (uint8_t)read_be(&reader, 1);
	ret->durability = (uint8_t)read_be(&reader, 1);
	ret->codec = (uint8_t)read_be(&reader, 1);
	ret->flags = (uint8_t)read_be(&reader, 1);
	ret->producer = read_be(&reader, 8);
	ret->epoch = (uint32_t)read_be(&reader, 4);
	ret->first_seq = read_be(&reader, 8);
	ret->settled_seq = read_be(&reader, 8);
	ret->count = (uint32_t)read_be(&reader, 4);
	ret->time_ms = read_be(&reader, 8);
	ret->raw_bytes = (uint32_t)read_be(&reader, 4);
	subject_len = (size_t)read_be(&reader, 2);
	target_len = (size_t)read_be(&reader, 2);
	ret->subject = read_bytes(&reader, subject_len);
	ret->target = read_bytes(&reader, target_len);
	if (reader.bad)
		return bad(ret_why, "the frame ends inside its fixed fields, subject or target");
	ret->payload = read_bytes(&reader, reader.left);
	return frame_publish_check(ret, ret_why);
}

size_t frame_publish_size(const struct frame_publish *publish)
{
	return FRAME_PUBLISH_FIXED_BYTES + publish->subject.len + publish->target.len +
	       publish->payload.len;
}

size_t frame_publish_encode(uint8_t *buf, const struct frame_publish *publish)
{
	uint8_t *at = buf;

	at = write_be(at, publish->target_kind, 1);
	at = write_be(at, publish->durability, 1);
	at = write_be(at, publish->codec, 1);
	at = write_be(at, publish->flags, 1);
	at = write_be(at, publish->producer, 8);
	at = write_be(at, publish->epoch, 4);
	at = write_be(at, publish->first_seq, 8);
	at = write_be(at, publish->settled_seq, 8);
	at = write_be(at, publish->count, 4);
	at = write_be(at, publish->time_ms, 8);
	at = write_be(at, publish->raw_bytes, 4);
	at = write_be(at, publish->subject.len, 2);
	at = write_be(at, publish->target.len, 2);
	at = write_slice(at, publish->subject);
	at = write_slice(at, publish->target);
	at = write_slice(at, publish->payload);
	return (size_t)(at - buf);
}

/* ---- PUBLISHED ---- */

int frame_published_decode(struct sluice_slice *io_body, struct frame_published *ret,
			   const char **ret_why)
{
	struct reader reader = reader_of(*io_body);
	size_t text_len;

	ret->code = (int32_t)(uint32_t)read_be(&reader, 4);
	ret->producer = 0;
	ret->first_seq = read_be(&reader, 8);
	ret->count = (uint32_t)read_be(&reader, 4);
	ret->index = read_be(&reader, 8);
	ret->offset = read_be(&reader, 8);
	ret->flags = (uint8_t)read_be(&reader, 1);
	text_len = (size_t)read_be(&reader, 2);
	ret->text = read_bytes(&reader, text_len);
	if (reader.bad)
		return bad(ret_why, "the answer to a publish is cut short");
	*io_body = (struct sluice_slice){reader.at, reader.left};
	return 0;
}

size_t frame_published_size(const struct frame_published *published)
{
	return FRAME_PUBLISHED_FIXED_BYTES + published->text.len;
}

size_t frame_published_encode(uint8_t *buf, const struct frame_published *published)
{
	uint8_t *at = buf;

	at = write_be(at, (uint32_t)published->code, 4);
	at = write_be(at, published->first_seq, 8);
	at = write_be(at, published->count, 4);
	at = write_be(at, published->index, 8);
	at = write_be(at, published->offset, 8);
	at = write_be(at, published->flags, 1);
	at = write_be(at, published->text.len, 2);
	at = write_slice(at, published->text);
	return (size_t)(at - buf);
}

/* ---- DELIVER ---- */

struct frame_run frame_run_at(const uint8_t *runs, size_t i)
{
	struct reader reader = {runs + i * FRAME_RUN_BYTES, FRAME_RUN_BYTES, false};
	struct frame_run run;

	run.first = read_be(&reader, 8);
	run.count = (uint32_t)read_be(&reader, 4);
	return run;
}

int frame_deliver_decode(struct sluice_slice body, struct frame_deliver *ret, const char **ret_why)
{
	struct reader reader = reader_of(body);
	size_t subject_len;
	struct sluice_slice runs;

	ret->subscription = (uint32_t)read_be(&reader, 4);
	ret->kind = (uint8_t)read_be(&reader, 1);
	ret->codec = (uint8_t)read_be(&reader, 1);
	ret->base = read_be(&reader, 8);
	ret->token = read_be(&reader, 8);
	ret->count = (uint32_t)read_be(&reader, 4);
	ret->lease_ms = (uint32_t)read_be(&reader, 4);
	ret->time_ms = read_be(&reader, 8);
	ret->raw_bytes = (uint32_t)read_be(&reader, 4);
	ret->run_count = (uint16_t)read_be(&reader, 2);
	subject_len = (size_t)read_be(&reader, 2);
	runs = read_bytes(&reader, (size_t)ret->run_count * FRAME_RUN_BYTES);
	ret->runs = runs.data;
	ret->subject = read_bytes(&reader, subject_len);
	if (reader.bad)
		return bad(ret_why, "the delivery ends inside its fixed fields, runs or subject");
	ret->payload = read_bytes(&reader, reader.left);
	if (ret->kind > DELIVER_JOBS)
		return bad(ret_why, "the kind is not 0 (events), 1 (items) or 2 (jobs)");
	if (ret->codec > BATCH_ZSTD)
		return bad(ret_why, "the codec is not 0 (none) or 1 (zstd)");
	if (ret->raw_bytes > LIMIT_BATCH_RAW_BYTES_MAX)
		return beyond(ret_why, "the delivery is larger than BATCH_RAW_BYTES_MAX");
	return 0;
}

size_t frame_deliver_head_size(const struct frame_deliver *deliver)
{
	return FRAME_DELIVER_FIXED_BYTES + (size_t)deliver->run_count * FRAME_RUN_BYTES +
	       deliver->subject.len;
}

static uint8_t *runs_write(uint8_t *at, const struct frame_run *runs, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		at = write_be(at, runs[i].first, 8);
		at = write_be(at, runs[i].count, 4);
	}
	return at;
}

size_t frame_deliver_head_encode(uint8_t *buf, const struct frame_deliver *deliver,
				 const struct frame_run *run_array)
{
	uint8_t *at = buf;

	at = write_be(at, deliver->subscription, 4);
	at = write_be(at, deliver->kind, 1);
	at = write_be(at, deliver->codec, 1);
	at = write_be(at, deliver->base, 8);
	at = write_be(at, deliver->token, 8);
	at = write_be(at, deliver->count, 4);
	at = write_be(at, deliver->lease_ms, 4);
	at = write_be(at, deliver->time_ms, 8);
	at = write_be(at, deliver->raw_bytes, 4);
	at = write_be(at, deliver->run_count, 2);
	at = write_be(at, deliver->subject.len, 2);
	at = runs_write(at, run_array, deliver->run_count);
	at = write_slice(at, deliver->subject);
	return (size_t)(at - buf);
}

/* ---- ACK, ACKED, CREDIT ---- */

int frame_ack_check(uint8_t op, uint16_t run_count, struct sluice_slice reason,
		    const char **ret_why)
{
	if (!ack_op_known(op))
		return bad(ret_why, "the operation is not 0 (ack), 1 (nack), 2 (extend), 3 "
				    "(reject), 4 (renew), 5 (release) or 6 (begun)");
	if (run_count > LIMIT_ACK_RUNS_MAX)
		return beyond(ret_why, "more runs than ACK_RUNS_MAX");
	if (reason.len > LIMIT_TEXT_BYTES_MAX)
		return beyond(ret_why, "the reason is longer than TEXT_BYTES_MAX");
	return 0;
}

int frame_ack_decode(struct sluice_slice body, struct frame_ack *ret, const char **ret_why)
{
	struct reader reader = reader_of(body);
	size_t reason_len;
	struct sluice_slice runs;

	ret->subscription = (uint32_t)read_be(&reader, 4);
	ret->op = (uint8_t)read_be(&reader, 1);
	ret->token = read_be(&reader, 8);
	ret->value_ms = (uint32_t)read_be(&reader, 4);
	reason_len = (size_t)read_be(&reader, 2);
	ret->run_count = (uint16_t)read_be(&reader, 2);
	runs = read_bytes(&reader, (size_t)ret->run_count * FRAME_RUN_BYTES);
	ret->runs = runs.data;
	ret->reason = read_bytes(&reader, reason_len);
	if (reader.bad || reader.left != 0)
		return bad(ret_why, "the length does not fit the runs and the reason");
	return frame_ack_check(ret->op, ret->run_count, ret->reason, ret_why);
}

size_t frame_ack_size(const struct frame_ack *ack)
{
	return FRAME_ACK_FIXED_BYTES + (size_t)ack->run_count * FRAME_RUN_BYTES + ack->reason.len;
}

size_t frame_ack_encode(uint8_t *buf, const struct frame_ack *ack,
			const struct frame_run *run_array)
{
	uint8_t *at = buf;

	at = write_be(at, ack->subscription, 4);
	at = write_be(at, ack->op, 1);
	at = write_be(at, ack->token, 8);
	at = write_be(at, ack->value_ms, 4);
	at = write_be(at, ack->reason.len, 2);
	at = write_be(at, ack->run_count, 2);
	at = runs_write(at, run_array, ack->run_count);
	at = write_slice(at, ack->reason);
	return (size_t)(at - buf);
}

int frame_acked_decode(struct sluice_slice body, struct frame_acked *ret, const char **ret_why)
{
	struct reader reader = reader_of(body);
	size_t text_len;

	ret->code = (int32_t)(uint32_t)read_be(&reader, 4);
	ret->index = read_be(&reader, 8);
	ret->affected = (uint32_t)read_be(&reader, 4);
	text_len = (size_t)read_be(&reader, 2);
	ret->text = read_bytes(&reader, text_len);
	if (reader.bad || reader.left != 0)
		return bad(ret_why, "the length of the answer to an ack does not fit");
	return 0;
}

size_t frame_acked_size(const struct frame_acked *acked)
{
	return FRAME_ACKED_FIXED_BYTES + acked->text.len;
}

size_t frame_acked_encode(uint8_t *buf, const struct frame_acked *acked)
{
	uint8_t *at = buf;

	at = write_be(at, (uint32_t)acked->code, 4);
	at = write_be(at, acked->index, 8);
	at = write_be(at, acked->affected, 4);
	at = write_be(at, acked->text.len, 2);
	at = write_slice(at, acked->text);
	return (size_t)(at - buf);
}

int frame_credit_decode(struct sluice_slice body, struct frame_credit *ret, const char **ret_why)
{
	struct reader reader = reader_of(body);

	if (body.len != FRAME_CREDIT_BYTES)
		return bad(ret_why, "the body does not have 8 bytes");
	ret->subscription = (uint32_t)read_be(&reader, 4);
	ret->more = (uint32_t)read_be(&reader, 4);
	return 0;
}

void frame_credit_encode(uint8_t *buf, const struct frame_credit *credit)
{
	buf = write_be(buf, credit->subscription, 4);
	(void)write_be(buf, credit->more, 4);
}
