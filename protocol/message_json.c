/* SPDX-License-Identifier: Apache-2.0
 * Any message as one line of JSON, for people and scripts. */
#include "protocol/message.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/utf8.h"

struct text {
	char *bytes;
	size_t len, capacity;
	bool bad; /* out of memory */
};

static void text_add(struct text *text, const char *bytes, size_t len)
{
	if (text->bad)
		return;
	if (text->len + len + 1 > text->capacity) {
		size_t capacity = (text->len + len + 1) * 2;
		char *grown = realloc(text->bytes, capacity);

		if (grown == NULL) {
			text->bad = true;
			return;
		}
		text->bytes = grown;
		text->capacity = capacity;
	}
	memcpy(text->bytes + text->len, bytes, len);
	text->len += len;
	text->bytes[text->len] = 0;
}

static void __attribute__((format(printf, 2, 3)))
text_print(struct text *text, const char *format, ...)
{
	char small[64];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(small, sizeof(small), format, args);
	va_end(args);
	text_add(text, small, len > 0 ? (size_t)len : 0);
}

static void put_text(struct text *text, const char *bytes, size_t len)
{
	text_add(text, "\"", 1);
	for (size_t i = 0, step; i < len; i += step) {
		unsigned char c = (unsigned char)bytes[i];

		step = utf8_length((const uint8_t *)bytes + i, len - i);
		if (step == 0) {
			step = 1;
			text_add(text, "\xef\xbf\xbd",
				 3); /* U+FFFD: an older broker checked less */
		} else if (c == '"' || c == '\\')
			text_print(text, "\\%c", c);
		else if (c == '\n')
			text_add(text, "\\n", 2);
		else if (c == '\t')
			text_add(text, "\\t", 2);
		else if (c < 0x20 || c == 0x7f)
			text_print(text, "\\u%04x", c);
		else
			text_add(text, bytes + i, step);
	}
	text_add(text, "\"", 1);
}

static void put_base64(struct text *text, const uint8_t *at, size_t len)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	text_add(text, "\"", 1);
	for (size_t i = 0; i < len; i += 3) {
		uint32_t bits = (uint32_t)at[i] << 16 |
				(i + 1 < len ? (uint32_t)at[i + 1] << 8 : 0) |
				(i + 2 < len ? at[i + 2] : 0u);
		char out[4] = {alphabet[bits >> 18], alphabet[bits >> 12 & 63],
			       i + 1 < len ? alphabet[bits >> 6 & 63] : '=',
			       i + 2 < len ? alphabet[bits & 63] : '='};

		text_add(text, out, sizeof(out));
	}
	text_add(text, "\"", 1);
}

/* Length of what all names of the enum begin with, up to its last '_'. */
static size_t enum_prefix(const ProtobufCEnumDescriptor *descriptor)
{
	const char *first = descriptor->values[0].name;
	size_t prefix = 0;

	for (size_t i = 0; descriptor->n_values > 1 && first[i] != 0; i++) {
		for (unsigned k = 1; k < descriptor->n_values; k++)
			if (strncmp(first, descriptor->values[k].name, i + 1) != 0)
				return prefix;
		if (first[i] == '_')
			prefix = i + 1;
	}
	return prefix;
}

/* QUEUE_JOBS -> "jobs": lower case, without what all names of the enum begin with. */
static void put_enum(struct text *text, const ProtobufCEnumDescriptor *descriptor, int value)
{
	const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value(descriptor, value);

	if (found == NULL) {
		text_print(text, "%d", value);
		return;
	}
	text_add(text, "\"", 1);
	for (const char *at = found->name + enum_prefix(descriptor); *at != 0; at++) {
		char lower = (char)tolower((unsigned char)*at);

		text_add(text, &lower, 1);
	}
	text_add(text, "\"", 1);
}

static void put_message(struct text *text, const ProtobufCMessage *message, bool all);

static void put_value(struct text *text, const ProtobufCFieldDescriptor *field, const void *member,
		      bool all)
{
	const ProtobufCBinaryData *binary;
	const char *string;

	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		text_print(text, "%" PRId32, *(const int32_t *)member);
		break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		text_print(text, "%" PRIu32, *(const uint32_t *)member);
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		text_print(text, "%" PRId64, *(const int64_t *)member);
		break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		text_print(text, "%" PRIu64, *(const uint64_t *)member);
		break;
	case PROTOBUF_C_TYPE_BOOL:
		text_print(text, *(const protobuf_c_boolean *)member ? "true" : "false");
		break;
	case PROTOBUF_C_TYPE_FLOAT:
		text_print(text, "%.9g", (double)*(const float *)member);
		break;
	case PROTOBUF_C_TYPE_DOUBLE:
		text_print(text, "%.17g", *(const double *)member);
		break;
	case PROTOBUF_C_TYPE_ENUM:
		put_enum(text, field->descriptor, *(const int *)member);
		break;
	case PROTOBUF_C_TYPE_STRING:
		string = *(char *const *)member;
		put_text(text, string != NULL ? string : "", string != NULL ? strlen(string) : 0);
		break;
	case PROTOBUF_C_TYPE_BYTES:
		binary = member;
		if (utf8_valid((struct sluice_slice){binary->data, binary->len}))
			put_text(text, (const char *)binary->data, binary->len);
		else
			put_base64(text, binary->data, binary->len);
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		put_message(text, *(ProtobufCMessage *const *)member, all);
		break;
	}
}

static size_t element_bytes(ProtobufCType type)
{
	switch (type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return 4;
	}
}

static bool is_default(const ProtobufCFieldDescriptor *field, const void *member)
{
	static const uint8_t zero[8];
	const char *string;

	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		string = *(char *const *)member;
		return string == NULL || string[0] == 0;
	case PROTOBUF_C_TYPE_BYTES:
		return ((const ProtobufCBinaryData *)member)->len == 0;
	case PROTOBUF_C_TYPE_MESSAGE:
		return *(ProtobufCMessage *const *)member == NULL;
	default:
		return memcmp(member, zero, element_bytes(field->type)) == 0;
	}
}

static void put_name(struct text *text, const ProtobufCFieldDescriptor *field, const void *member,
		     bool *io_first)
{
	const ProtobufCBinaryData *binary = member;

	if (!*io_first)
		text_add(text, ",", 1);
	*io_first = false;
	text_add(text, "\"", 1);
	text_add(text, field->name, strlen(field->name));
	if (field->type == PROTOBUF_C_TYPE_BYTES && field->label != PROTOBUF_C_LABEL_REPEATED &&
	    !utf8_valid((struct sluice_slice){binary->data, binary->len}))
		text_add(text, "_base64", 7);
	text_add(text, "\":", 2);
}

static void put_field(struct text *text, const ProtobufCMessage *message,
		      const ProtobufCFieldDescriptor *field, bool all, bool *io_first)
{
	const uint8_t *base = (const uint8_t *)message;
	const void *member = base + field->offset;

	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		size_t count = *(const size_t *)(const void *)(base + field->quantifier_offset);
		const uint8_t *list = *(uint8_t *const *)member;

		if (count == 0 && !all)
			return;
		put_name(text, field, member, io_first);
		text_add(text, "[", 1);
		for (size_t i = 0; i < count; i++) {
			if (i > 0)
				text_add(text, ",", 1);
			put_value(text, field, list + i * element_bytes(field->type), all);
		}
		text_add(text, "]", 1);
		return;
	}
	if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
	    *(const uint32_t *)(const void *)(base + field->quantifier_offset) != field->id)
		return;
	if (is_default(field, member) && (!all || field->type == PROTOBUF_C_TYPE_MESSAGE))
		return;
	put_name(text, field, member, io_first);
	put_value(text, field, member, all);
}

static void put_message(struct text *text, const ProtobufCMessage *message, bool all)
{
	bool first = true;

	text_add(text, "{", 1);
	for (unsigned i = 0; i < message->descriptor->n_fields; i++)
		put_field(text, message, &message->descriptor->fields[i], all, &first);
	text_add(text, "}", 1);
}

int message_json(const ProtobufCMessage *message, bool all, char **ret)
{
	struct text text = {0};

	put_message(&text, message, all);
	if (text.bad) {
		free(text.bytes);
		return SLUICE_E_NOMEM;
	}
	*ret = text.bytes;
	return 0;
}
