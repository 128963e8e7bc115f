/* SPDX-License-Identifier: Apache-2.0
 *
 * REPLY frames of commands: from an outcome to bytes. The Reply around an outcome's message is
 * written here, member by member: protobuf-c would go through its two dozen members twice for each
 * reply. tests/unit compares the bytes with protobuf-c's.
 */
#include <assert.h>
#include <string.h>

#include "broker/net/native/native.h"

/* For the numbers of an outcome and the heads of its fields. */
enum { NUMBERS_BYTES_MAX = 128 };
static_assert(2 * sizeof(((struct outcome *)0)->text) + sizeof(((struct outcome *)0)->state) +
			      NUMBERS_BYTES_MAX <=
		      NATIVE_REPLY_BYTES_MAX,
	      "a text may be in it twice: the Reply's own, and the reason of a report");

union reply_parts {
	ProtobufCMessage base;
	Sluice__ProducerOpened producer;
	Sluice__JobSubmitted submitted;
	Sluice__JobReported reported;
	Sluice__JobCancelled cancelled;
	Sluice__JobResetDone reset;
	Sluice__TxnDone txn;
};

enum {
	FIELD_CODE = 1,
	FIELD_TEXT = 2,
	FIELD_INDEX = 3,
	FIELD_DETAIL = 5,
	FIELD_PRODUCER_OPENED = 15,
	FIELD_JOB_SUBMITTED = 20,
	FIELD_JOB_REPORTED = 21,
	FIELD_JOB_CANCELLED = 22,
	FIELD_JOB_RESET = 23,
	FIELD_TXN_DONE = 30,
	FIELD_AFFECTED = 33,
	WIRE_VARINT = 0,
	WIRE_BYTES = 2
};

/* The outcome's own message and its field in the Reply; 0: it has none. */
static unsigned part_from(const struct outcome *outcome, union reply_parts *parts)
{
	char *state = (char *)(uintptr_t)outcome->state;

	switch (outcome->kind) {
	case OUT_PRODUCER:
		sluice__producer_opened__init(&parts->producer);
		parts->producer.producer = outcome->id;
		parts->producer.epoch = outcome->epoch;
		parts->producer.last_seq = outcome->seq;
		parts->producer.secret = outcome->offset;
		return FIELD_PRODUCER_OPENED;
	case OUT_SUBMITTED:
		sluice__job_submitted__init(&parts->submitted);
		parts->submitted.number = outcome->id;
		parts->submitted.duplicate = outcome->duplicate;
		parts->submitted.attempt = outcome->attempt;
		parts->submitted.state = state;
		return FIELD_JOB_SUBMITTED;
	case OUT_REPORTED:
		sluice__job_reported__init(&parts->reported);
		parts->reported.disposition = (Sluice__Disposition)outcome->disposition;
		parts->reported.attempt = outcome->attempt;
		parts->reported.terminal = outcome->terminal;
		parts->reported.state = state;
		parts->reported.reason = (char *)(uintptr_t)outcome->text;
		return FIELD_JOB_REPORTED;
	case OUT_CANCELLED:
		sluice__job_cancelled__init(&parts->cancelled);
		parts->cancelled.terminal = outcome->terminal;
		parts->cancelled.state = state;
		return FIELD_JOB_CANCELLED;
	case OUT_RESET:
		sluice__job_reset_done__init(&parts->reset);
		parts->reset.attempt = outcome->attempt;
		return FIELD_JOB_RESET;
	case OUT_TXN:
		sluice__txn_done__init(&parts->txn);
		parts->txn.failed_op = outcome->code != 0 ? outcome->count : 0;
		parts->txn.duplicate = outcome->duplicate;
		return FIELD_TXN_DONE;
	default:
		return 0;
	}
}

static uint8_t *varint(uint8_t *at, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*at++ = (uint8_t)(value | 0x80);
	*at++ = (uint8_t)value;
	return at;
}

static uint8_t *tag(uint8_t *at, unsigned field, unsigned wire)
{
	return varint(at, field << 3 | wire);
}

/* A default value is omitted. */
static uint8_t *number(uint8_t *at, unsigned field, uint64_t value)
{
	return value == 0 ? at : varint(tag(at, field, WIRE_VARINT), value);
}

size_t native_reply_encode(uint8_t buf[NATIVE_REPLY_BYTES_MAX], const struct outcome *outcome)
{
	size_t text = strlen(outcome->text);
	union reply_parts parts;
	unsigned part = part_from(outcome, &parts);
	uint8_t *at = buf;

	/* sint32: zigzag */
	at = number(at, FIELD_CODE, (uint32_t)outcome->code << 1 ^ (uint32_t)(outcome->code >> 31));
	if (text > 0) {
		at = varint(tag(at, FIELD_TEXT, WIRE_BYTES), text);
		memcpy(at, outcome->text, text);
		at += text;
	}
	at = number(at, FIELD_INDEX, outcome->index);
	at = number(at, FIELD_DETAIL, outcome->detail);
	if (part != 0) {
		at = varint(tag(at, part, WIRE_BYTES),
			    protobuf_c_message_get_packed_size(&parts.base));
		at += protobuf_c_message_pack(&parts.base, at);
	}
	if (outcome->kind == OUT_ACKED)
		at = number(at, FIELD_AFFECTED, outcome->count);
	return (size_t)(at - buf);
}
