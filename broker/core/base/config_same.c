/* SPDX-License-Identifier: Apache-2.0
 * if_not_exists promises that the requested object exists, so the existing one must be equal:
 * compared field by field, by the message's descriptor. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/config_same.h"

enum { VALUE_BUF = 64, SAME_SHOWN = 40 };

static const void *member(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	return (const char *)message + field->offset;
}

static size_t repeated_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	size_t count;

	memcpy(&count, (const char *)message + field->quantifier_offset, sizeof(count));
	return count;
}

static const char *text_of(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field)
{
	const char *text;

	memcpy(&text, member(message, field), sizeof(text));
	return text;
}

/* A field that is not repeated; texts of any length. */
static bool values_equal(const ProtobufCMessage *left, const ProtobufCMessage *right,
			 const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		return strcmp(text_of(left, field), text_of(right, field)) == 0;
	case PROTOBUF_C_TYPE_BOOL:
		return *(const protobuf_c_boolean *)member(left, field) ==
		       *(const protobuf_c_boolean *)member(right, field);
	case PROTOBUF_C_TYPE_UINT64:
		return memcmp(member(left, field), member(right, field), sizeof(uint64_t)) == 0;
	default: /* uint32 and enumerations */
		return memcmp(member(left, field), member(right, field), sizeof(uint32_t)) == 0;
	}
}

/* Length of the common prefix of two long texts that need not be shown. */
static size_t shown_from(const ProtobufCMessage *left, const ProtobufCMessage *right,
			 const ProtobufCFieldDescriptor *field)
{
	const char *one, *other;
	size_t same = 0;

	if (field->type != PROTOBUF_C_TYPE_STRING)
		return 0;
	one = text_of(left, field);
	other = text_of(right, field);
	while (one[same] != 0 && one[same] == other[same])
		same++;
	return same < SAME_SHOWN ? 0 : same - SAME_SHOWN / 2;
}

/* The value of a field that is not repeated, as text; a text value from one of its bytes on. */
static void value_text(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		       size_t from, char ret[VALUE_BUF])
{
	const void *at = member(message, field);
	uint64_t wide;
	uint32_t narrow;

	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		(void)snprintf(ret, VALUE_BUF, "'%s%.55s'", from > 0 ? "..." : "",
			       text_of(message, field) + from);
		return;
	case PROTOBUF_C_TYPE_BOOL:
		(void)snprintf(ret, VALUE_BUF, "%s",
			       *(const protobuf_c_boolean *)at ? "true" : "false");
		return;
	case PROTOBUF_C_TYPE_UINT64:
		memcpy(&wide, at, sizeof(wide));
		(void)snprintf(ret, VALUE_BUF, "%llu", (unsigned long long)wide);
		return;
	default: /* uint32 and enumerations */
		memcpy(&narrow, at, sizeof(narrow));
		(void)snprintf(ret, VALUE_BUF, "%u", narrow);
		return;
	}
}

static int messages_equal(const ProtobufCMessage *left, const ProtobufCMessage *right, bool *ret)
{
	size_t bytes = protobuf_c_message_get_packed_size(left);
	uint8_t *packed;

	*ret = false;
	if (bytes != protobuf_c_message_get_packed_size(right))
		return 0;
	packed = malloc(2 * bytes + 1);
	if (packed == NULL)
		return SLUICE_E_NOMEM;
	(void)protobuf_c_message_pack(left, packed);
	(void)protobuf_c_message_pack(right, packed + bytes);
	*ret = memcmp(packed, packed + bytes, bytes) == 0;
	free(packed);
	return 0;
}

/* Repeated messages (a lifecycle's states): finds the first that differs. */
static int repeated_same(const ProtobufCMessage *stored, const ProtobufCMessage *given,
			 const ProtobufCFieldDescriptor *field, const char *what, const char *name,
			 struct outcome *out)
{
	size_t has = repeated_count(stored, field), wants = repeated_count(given, field);
	ProtobufCMessage **left, **right;

	if (has != wants)
		return refuse(out, SLUICE_E_CONFLICT,
			      "%s '%.100s' exists with %zu %s; %zu were given", what, name, has,
			      field->name, wants);
	memcpy(&left, member(stored, field), sizeof(left));
	memcpy(&right, member(given, field), sizeof(right));
	for (size_t i = 0; i < has; i++) {
		bool equal;
		int rc = messages_equal(left[i], right[i], &equal);

		if (rc != 0)
			return rc;
		if (!equal)
			return refuse(out, SLUICE_E_CONFLICT,
				      "%s '%.100s' exists with other %s: number %zu is not as "
				      "given",
				      what, name, field->name, i + 1);
	}
	return 0;
}

int config_same(const ProtobufCMessage *stored, const ProtobufCMessage *given, const char *what,
		const char *name, struct outcome *out)
{
	for (unsigned i = 0; i < given->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &given->descriptor->fields[i];
		char has[VALUE_BUF], wants[VALUE_BUF];
		size_t from;

		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			int rc = field->type == PROTOBUF_C_TYPE_MESSAGE
					 ? repeated_same(stored, given, field, what, name, out)
					 : 0; /* subjects: the router has the edges */

			if (rc != 0 || refused(out))
				return rc;
			continue;
		}
		/* A description that was not given is not compared. */
		if (values_equal(stored, given, field) ||
		    (strcmp(field->name, "description") == 0 && text_of(given, field)[0] == 0))
			continue;
		from = shown_from(stored, given, field);
		value_text(stored, field, from, has);
		value_text(given, field, from, wants);
		return refuse(out, SLUICE_E_CONFLICT, "%s '%.100s' exists with %s %s; given was %s",
			      what, name, field->name, has, wants);
	}
	return 0;
}
