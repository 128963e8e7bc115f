/* SPDX-License-Identifier: Apache-2.0
 *
 * protobuf-c has no limit on depth or groups and does not check UTF-8; what comes from outside is
 * looked over first, without allocation, against the descriptor. A bad byte in a text for people is
 * replaced, because an evidence that a scheduler printed in Latin-1 must not cost the report; in a
 * name it is refused, because two names must not become one.
 */
#include "protocol/message.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/bytes.h"
#include "protocol/limits.h"
#include "protocol/message_block.h"
#include "protocol/text.h"
#include "protocol/utf8.h"
#include "sluice.pb-c.h"

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };
enum { VARINT32_BYTES_MAX = 5 };

static bool varint(struct reader *reader, uint64_t *ret)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint8_t byte = (uint8_t)read_be(reader, 1);

		if (reader->bad)
			return false;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*ret = value;
			return true;
		}
	}
	return false;
}

/* What is under way: fields cost 2 bytes of input and up to a hundred of memory each, so they are
 * counted before anything is allocated. */
struct text_check {
	const char *why;
	uint64_t fields;
	bool unknown;	/* there is a field that the descriptor does not have */
	bool bad_texts; /* a text for people has bytes that are not UTF-8 */
	bool repairs;	/* the bytes are the caller's own: bad texts are repaired in place */
};

/* The texts for people: nothing is found by them. */
static bool is_free_text(const ProtobufCMessageDescriptor *descriptor,
			 const ProtobufCFieldDescriptor *field)
{
	static const struct {
		const ProtobufCMessageDescriptor *descriptor;
		const char *field;
	} texts[] = {
		{&sluice__hello__descriptor, "client"},
		{&sluice__job_report__descriptor, "source"},
		{&sluice__job_report__descriptor, "scheduler_ref"},
		{&sluice__job_report__descriptor, "evidence"},
		{&sluice__job_release__descriptor, "reason"},
		{&sluice__job_cancel__descriptor, "reason"},
		{&sluice__job_reset__descriptor, "reason"},
		{&sluice__txn_nack__descriptor, "reason"},
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (texts[i].descriptor == descriptor && strcmp(texts[i].field, field->name) == 0)
			return true;
	}
	return false;
}

/* A static text has no room for the field's name, and a caller's buffer would be one more argument
 * of everything. */
static const char *why_not_text(const ProtobufCMessageDescriptor *descriptor,
				const ProtobufCFieldDescriptor *field)
{
	static _Thread_local char why[128];

	(void)snprintf(why, sizeof(why), "%s of %s is not valid UTF-8, or holds a NUL", field->name,
		       descriptor->short_name);
	return why;
}

static int check_texts(struct text_check *at, const ProtobufCMessageDescriptor *descriptor,
		       struct sluice_slice bytes, int depth);

static int check_bytes(struct text_check *at, const ProtobufCMessageDescriptor *descriptor,
		       const ProtobufCFieldDescriptor *field, struct sluice_slice bytes, int depth)
{
	if (field == NULL)
		return 0;
	if (field->type == PROTOBUF_C_TYPE_STRING && !utf8_valid(bytes)) {
		if (!is_free_text(descriptor, field)) {
			at->why = why_not_text(descriptor, field);
			return SLUICE_E_PROTOCOL;
		}
		at->bad_texts = true;
		if (at->repairs)
			(void)text_repair_bytes((void *)(uintptr_t)bytes.data, bytes.len);
	}
	if (field->type == PROTOBUF_C_TYPE_MESSAGE)
		return check_texts(at, field->descriptor, bytes, depth + 1);
	return 0;
}

static int check_texts(struct text_check *at, const ProtobufCMessageDescriptor *descriptor,
		       struct sluice_slice bytes, int depth)
{
	struct reader reader = reader_of(bytes);

	if (depth > MESSAGE_DEPTH_MAX) {
		at->why = "messages are nested too deep";
		return SLUICE_E_LIMIT;
	}
	at->why = "the message is cut short or malformed";
	while (reader.left > 0) {
		const ProtobufCFieldDescriptor *field;
		uint64_t tag, value;
		int rc;

		if (!varint(&reader, &tag))
			return SLUICE_E_PROTOCOL;
		field = protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3));
		at->unknown = at->unknown || field == NULL;
		if (++at->fields > LIMIT_MESSAGE_FIELDS_MAX) {
			at->why = "the message has more fields than MESSAGE_FIELDS_MAX";
			return SLUICE_E_LIMIT;
		}
		switch (tag & 7) {
		case WIRE_VARINT:
			if (!varint(&reader, &value))
				return SLUICE_E_PROTOCOL;
			break;
		case WIRE_64:
			(void)read_bytes(&reader, 8);
			break;
		case WIRE_32:
			(void)read_bytes(&reader, 4);
			break;
		case WIRE_BYTES:
			if (!varint(&reader, &value) || value > reader.left)
				return SLUICE_E_PROTOCOL;
			rc = check_bytes(at, descriptor, field, read_bytes(&reader, (size_t)value),
					 depth);
			if (rc != 0)
				return rc;
			at->why = "the message is cut short or malformed";
			break;
		default:
			at->why = "the message has a group or an unknown wire type";
			return SLUICE_E_PROTOCOL;
		}
		if (reader.bad || tag >> 3 == 0)
			return SLUICE_E_PROTOCOL;
	}
	return 0;
}

/* ---- unknown fields ---- */

static void strip(ProtobufCMessage *message, bool frees);

static void strip_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
			bool frees)
{
	void *member = (uint8_t *)message + field->offset;

	if (field->type != PROTOBUF_C_TYPE_MESSAGE)
		return;
	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		size_t count = *(const size_t *)(const void *)((const uint8_t *)message +
							       field->quantifier_offset);
		ProtobufCMessage **list = *(ProtobufCMessage ***)member;

		for (size_t i = 0; i < count; i++)
			strip(list[i], frees);
		return;
	}
	if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
	    *(const uint32_t *)(const void *)((const uint8_t *)message +
					      field->quantifier_offset) != field->id)
		return;
	if (*(ProtobufCMessage **)member != NULL)
		strip(*(ProtobufCMessage **)member, frees);
}

static void strip(ProtobufCMessage *message, bool frees)
{
	for (unsigned i = 0; frees && i < message->n_unknown_fields; i++)
		free(message->unknown_fields[i].data);
	if (frees)
		free(message->unknown_fields);
	message->n_unknown_fields = 0;
	message->unknown_fields = NULL;
	for (unsigned i = 0; i < message->descriptor->n_fields; i++)
		strip_field(message, &message->descriptor->fields[i], frees);
}

/* ---- unpacking ---- */

/* A request is one operation out of fifty: protobuf-c would go through all that the message around
 * it could have. True when bytes are that and no more: *ret is the message, NULL when it is not
 * well. */
static bool unpack_alone(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
			 ProtobufCAllocator *allocator, ProtobufCMessage **ret)
{
	struct reader reader = reader_of(bytes);
	const ProtobufCFieldDescriptor *field;
	ProtobufCMessage *message, *inside;
	struct sluice_slice op;
	uint64_t tag, len;
	size_t before;

	/* Longer ones are protobuf-c's to refuse: a field's number would lose its upper bits here,
	 * and be another field's. */
	if (!varint(&reader, &tag) || bytes.len - reader.left > VARINT32_BYTES_MAX ||
	    (tag & 7) != WIRE_BYTES)
		return false;
	before = reader.left;
	if (!varint(&reader, &len) || before - reader.left > VARINT32_BYTES_MAX ||
	    len != reader.left)
		return false;
	field = protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3));
	if (field == NULL || field->type != PROTOBUF_C_TYPE_MESSAGE ||
	    (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0)
		return false;
	*ret = NULL;
	message = allocator->alloc(allocator->allocator_data, descriptor->sizeof_message);
	op = read_bytes(&reader, reader.left);
	inside = message == NULL
			 ? NULL
			 : protobuf_c_message_unpack(field->descriptor, allocator, op.len, op.data);
	if (inside == NULL)
		return true; /* allocator frees nothing one by one */
	protobuf_c_message_init(descriptor, message);
	*(uint32_t *)(void *)((uint8_t *)message + field->quantifier_offset) = field->id;
	*(ProtobufCMessage **)(void *)((uint8_t *)message + field->offset) = inside;
	*ret = message;
	return true;
}

/* protobuf-c says in one way that the bytes are wrong and that there was no memory: this allocator
 * knows which. to: NULL is malloc. */
struct noting {
	const ProtobufCAllocator *to;
	bool failed;
};

static void *noting_alloc(void *user, size_t bytes)
{
	struct noting *noting = user;
	void *memory = noting->to != NULL ? noting->to->alloc(noting->to->allocator_data, bytes)
					  : malloc(bytes);

	noting->failed |= memory == NULL;
	return memory;
}

static void noting_free(void *user, void *memory)
{
	const struct noting *noting = user;

	if (noting->to != NULL)
		noting->to->free(noting->to->allocator_data, memory);
	else
		free(memory);
}

/* 0, NOMEM, or PROTOCOL: the bytes are not such a message. */
static int unpack(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
		  const ProtobufCAllocator *to, bool frees, ProtobufCMessage **ret)
{
	struct noting noting = {.to = to};
	ProtobufCAllocator allocator = {.alloc = noting_alloc,
					.free = noting_free,
					.allocator_data = &noting};
	ProtobufCMessage *message;

	if (frees || !unpack_alone(descriptor, bytes, &allocator, &message))
		message = protobuf_c_message_unpack(descriptor, &allocator, bytes.len, bytes.data);
	if (message == NULL)
		return noting.failed ? SLUICE_E_NOMEM : SLUICE_E_PROTOCOL;
	*ret = message;
	return 0;
}

void *message_unpack_own(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
			 int *ret_rc)
{
	ProtobufCMessage *message = NULL;
	int rc = unpack(descriptor, bytes, NULL, true, &message);

	*ret_rc = rc == SLUICE_E_PROTOCOL ? SLUICE_E_CORRUPT : rc;
	return message;
}

void message_texts_repair(const ProtobufCMessageDescriptor *descriptor, void *bytes, size_t len)
{
	struct text_check at = {.repairs = true};

	(void)check_texts(&at, descriptor, (struct sluice_slice){bytes, len}, 0);
}

/* The rare case: the input is borrowed, so its texts are repaired in a copy. */
static int unpack_repaired(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
			   const ProtobufCAllocator *allocator, bool frees, ProtobufCMessage **ret)
{
	uint8_t *copy = malloc(bytes.len);
	int rc;

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	memcpy(copy, bytes.data, bytes.len);
	message_texts_repair(descriptor, copy, bytes.len);
	rc = unpack(descriptor, (struct sluice_slice){copy, bytes.len}, allocator, frees, ret);
	free(copy);
	return rc;
}

int message_unpack_with(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
			uint64_t max, ProtobufCAllocator *allocator, bool frees,
			ProtobufCMessage **ret, const char **ret_why)
{
	struct text_check at = {0};
	ProtobufCMessage *message = NULL;
	int rc;

	if (bytes.len > max) {
		*ret_why = "the message is larger than its limit";
		return SLUICE_E_LIMIT;
	}
	rc = check_texts(&at, descriptor, bytes, 0);
	if (rc != 0) {
		*ret_why = at.why;
		return rc;
	}
	if (at.bad_texts)
		rc = unpack_repaired(descriptor, bytes, allocator, frees, &message);
	else
		rc = unpack(descriptor, bytes, allocator, frees, &message);
	if (rc != 0) {
		*ret_why = rc == SLUICE_E_NOMEM
				   ? "there is no memory for the message"
				   : "a field of the message has another type than expected";
		return rc;
	}
	/* A walk through all fields that a message could have: a request could have fifty. */
	if (at.unknown)
		strip(message, frees);
	*ret = message;
	return 0;
}

int message_unpack(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
		   uint64_t max, ProtobufCMessage **ret, const char **ret_why)
{
	return message_unpack_with(descriptor, bytes, max, NULL, true, ret, ret_why);
}

/* ---- texts of messages that we made ---- */

static const char *field_text_bad(const ProtobufCMessage *message,
				  const ProtobufCFieldDescriptor *field)
{
	const uint8_t *member = (const uint8_t *)message + field->offset;
	const uint8_t *quantifier = (const uint8_t *)message + field->quantifier_offset;
	bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
	size_t count = repeated ? *(const size_t *)(const void *)quantifier : 1;
	const void *const *list = repeated ? *(const void *const *const *)(const void *)member
					   : (const void *const *)(const void *)member;

	if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
	    *(const uint32_t *)(const void *)quantifier != field->id)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		const char *bad = NULL;

		if (list[i] == NULL)
			continue;
		if (field->type == PROTOBUF_C_TYPE_MESSAGE)
			bad = message_text_bad(list[i]);
		else if (!utf8_valid((struct sluice_slice){list[i], strlen(list[i])}))
			bad = field->name;
		if (bad != NULL)
			return bad;
	}
	return NULL;
}

const char *message_text_bad(const ProtobufCMessage *message)
{
	const char *bad = NULL;

	for (unsigned i = 0; bad == NULL && i < message->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];

		if (field->type == PROTOBUF_C_TYPE_STRING || field->type == PROTOBUF_C_TYPE_MESSAGE)
			bad = field_text_bad(message, field);
	}
	return bad;
}
