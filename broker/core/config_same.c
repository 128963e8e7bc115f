/* SPDX-License-Identifier: Apache-2.0
 * "Create unless it exists" promises that what is asked for is there, so what exists must be the same: field by
 * field, by the message's own description. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/apply.h"

enum { VALUE_BUF = 64 };

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

/* The value of a field that is not repeated, for people. */
static void value_text(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
		       char ret[VALUE_BUF])
{
	const void *at = member(message, field);
	uint64_t wide;
	uint32_t narrow;
	const char *text;

	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		memcpy(&text, at, sizeof(text));
		(void)snprintf(ret, VALUE_BUF, "'%.60s'", text);
		return;
	case PROTOBUF_C_TYPE_BOOL:
		(void)snprintf(ret, VALUE_BUF, "%s", *(const protobuf_c_boolean *)at ? "true" : "false");
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

/* Repeated messages (a machine's states): which is the first that differs. */
static int repeated_same(const ProtobufCMessage *stored, const ProtobufCMessage *given,
			 const ProtobufCFieldDescriptor *field, const char *what, const char *name,
			 struct outcome *out)
{
	size_t has = repeated_count(stored, field), wants = repeated_count(given, field);
	ProtobufCMessage **left, **right;

	if (has != wants)
		return refuse(out, SLUICE_E_CONFLICT, "%s '%.100s' exists with %zu %s; %zu were given", what,
			      name, has, field->name, wants);
	memcpy(&left, member(stored, field), sizeof(left));
	memcpy(&right, member(given, field), sizeof(right));
	for (size_t i = 0; i < has; i++) {
		bool equal;
		int rc = messages_equal(left[i], right[i], &equal);

		if (rc != 0)
			return rc;
		if (!equal)
			return refuse(out, SLUICE_E_CONFLICT,
				      "%s '%.100s' exists with other %s: number %zu is not as given", what,
				      name, field->name, i + 1);
	}
	return 0;
}

int config_same(const ProtobufCMessage *stored, const ProtobufCMessage *given, const char *what,
		const char *name, struct outcome *out)
{
	for (unsigned i = 0; i < given->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &given->descriptor->fields[i];
		char has[VALUE_BUF], wants[VALUE_BUF];

		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			int rc = field->type == PROTOBUF_C_TYPE_MESSAGE
					 ? repeated_same(stored, given, field, what, name, out)
					 : 0; /* subjects: edges are the router's */

			if (rc != 0 || refused(out))
				return rc;
			continue;
		}
		value_text(stored, field, has);
		value_text(given, field, wants);
		/* A text for people that was not given asks for nothing. */
		if (strcmp(field->name, "description") == 0 && strcmp(wants, "''") == 0)
			continue;
		if (strcmp(has, wants) != 0)
			return refuse(out, SLUICE_E_CONFLICT, "%s '%.100s' exists with %s %s; given was %s",
				      what, name, field->name, has, wants);
	}
	return 0;
}
