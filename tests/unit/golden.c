/* SPDX-License-Identifier: Apache-2.0
 * Golden bytes, see golden.h. */
#include "golden.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/message.h"

enum { LINE_MAX_BYTES = 4096 };

/* ---- files ---- */

static void path_of(char path[256], const char *directory, const char *name)
{
	(void)snprintf(path, 256, "%s/%s.hex", directory, name);
}

static void part_begin(struct golden *golden, const char *line)
{
	struct golden_part *part = &golden->parts[golden->part_count++];

	cr_assert_leq(golden->part_count, (size_t)GOLDEN_PARTS_MAX, "%s: too many parts",
		      golden->path);
	part->format = 1;
	cr_assert(sscanf(line, "> %15[a-z] %u", part->name, &part->format) >= 1, "%s: %s",
		  golden->path, line);
}

/* The bytes of a line, up to its comment. Returns how many. */
static size_t hex_read(struct golden *golden, const char *line, uint8_t *ret, size_t room)
{
	size_t count = 0;

	for (const char *at = line; *at != 0 && *at != '#'; at++) {
		unsigned byte;

		if (isspace((unsigned char)*at))
			continue;
		cr_assert(isxdigit((unsigned char)at[0]) && isxdigit((unsigned char)at[1]) &&
				  count < room,
			  "%s: %s", golden->path, line);
		(void)sscanf(at, "%2x", &byte);
		ret[count++] = (uint8_t)byte;
		at++;
	}
	return count;
}

/* The comment after the bytes: "name: text" is a field, anything else is for people. */
static void field_read(struct golden *golden, struct golden_part *part, const char *comment,
		       struct sluice_slice bytes)
{
	struct golden_field *field = &part->fields[part->field_count];
	size_t name = strspn(comment, "abcdefghijklmnopqrstuvwxyz0123456789_.[]"), len;

	if (name == 0 || comment[name] != ':' || comment[name + 1] != ' ')
		return;
	cr_assert(part->field_count < GOLDEN_FIELDS_MAX && name < sizeof(field->name), "%s: %s",
		  golden->path, comment);
	memcpy(field->name, comment, name);
	comment += name + 2;
	len = strcspn(comment, "\n");
	cr_assert_lt(len, sizeof(field->text), "%s: %s", golden->path, comment);
	memcpy(field->text, comment, len);
	field->bytes = bytes;
	part->field_count++;
}

struct golden *golden_load(const char *directory, const char *name)
{
	struct golden *golden = calloc(1, sizeof(*golden));
	char line[LINE_MAX_BYTES];
	FILE *file;

	cr_assert_not_null(golden);
	path_of(golden->path, directory, name);
	file = fopen(golden->path, "r");
	cr_assert_not_null(file, "%s: there are no golden bytes", golden->path);
	while (fgets(line, sizeof(line), file) != NULL) {
		struct golden_part *part =
			&golden->parts[golden->part_count - (golden->part_count > 0)];
		const char *comment = strchr(line, '#');
		size_t count;

		if (line[0] == '>') {
			part_begin(golden, line);
			continue;
		}
		if (golden->part_count == 0)
			continue;
		count = hex_read(golden, line, part->bytes + part->len,
				 sizeof(part->bytes) - part->len);
		if (comment != NULL)
			field_read(golden, part, comment + 1 + strspn(comment + 1, " "),
				   (struct sluice_slice){part->bytes + part->len, count});
		part->len += count;
	}
	(void)fclose(file);
	cr_assert_gt(golden->part_count, 0, "%s is empty", golden->path);
	return golden;
}

void golden_free(struct golden *golden)
{
	free(golden);
}

/* ---- fields as text ---- */

static uint64_t number_get(const void *at, size_t size)
{
	switch (size) {
	case 1:
		return *(const uint8_t *)at;
	case 2:
		return *(const uint16_t *)at;
	case 4:
		return *(const uint32_t *)at;
	default:
		cr_assert_eq(size, 8);
		return *(const uint64_t *)at;
	}
}

static void number_set(void *at, size_t size, uint64_t number)
{
	switch (size) {
	case 1:
		*(uint8_t *)at = (uint8_t)number;
		break;
	case 2:
		*(uint16_t *)at = (uint16_t)number;
		break;
	case 4:
		*(uint32_t *)at = (uint32_t)number;
		break;
	default:
		cr_assert_eq(size, 8);
		*(uint64_t *)at = number;
		break;
	}
}

static void bytes_text(char text[GOLDEN_TEXT_MAX], struct sluice_slice bytes)
{
	const uint8_t *at = bytes.data;
	bool plain = true;
	size_t used = 0;

	cr_assert_lt(bytes.len * 2 + 3, GOLDEN_TEXT_MAX);
	for (size_t i = 0; i < bytes.len; i++)
		plain = plain && isprint(at[i]) && at[i] != '"';
	if (plain) {
		(void)snprintf(text, GOLDEN_TEXT_MAX, "\"%.*s\"", (int)bytes.len, (const char *)at);
		return;
	}
	used = (size_t)snprintf(text, GOLDEN_TEXT_MAX, "0x");
	for (size_t i = 0; i < bytes.len; i++)
		used += (size_t)snprintf(text + used, GOLDEN_TEXT_MAX - used, "%02x", at[i]);
}

static void message_text(char text[GOLDEN_TEXT_MAX], const ProtobufCMessageDescriptor *descriptor,
			 struct sluice_slice bytes)
{
	ProtobufCMessage *message =
		protobuf_c_message_unpack(descriptor, NULL, bytes.len, bytes.data);
	char *json = NULL;

	cr_assert_not_null(message, "%s: no such message", descriptor->name);
	cr_assert_eq(message_json(message, false, &json), 0);
	(void)snprintf(text, GOLDEN_TEXT_MAX, "%s", json);
	free(json);
	protobuf_c_message_free_unpacked(message, NULL);
}

static void member_text(char text[GOLDEN_TEXT_MAX], const struct golden_member *member,
			const void *structure)
{
	const uint8_t *at = (const uint8_t *)structure + member->offset;
	size_t len = member->size;

	switch (member->type) {
	case GOLDEN_NUMBER:
		(void)snprintf(text, GOLDEN_TEXT_MAX, "%" PRIu64, number_get(at, member->size));
		break;
	case GOLDEN_SIGNED:
		(void)snprintf(text, GOLDEN_TEXT_MAX, "%" PRId32, *(const int32_t *)at);
		break;
	case GOLDEN_SLICE:
		bytes_text(text, *(const struct sluice_slice *)at);
		break;
	case GOLDEN_ARRAY:
		while (len > 0 && at[len - 1] == 0)
			len--;
		bytes_text(text, (struct sluice_slice){at, len});
		break;
	case GOLDEN_MESSAGE:
		message_text(text, member->message, *(const struct sluice_slice *)at);
		break;
	}
}

static const struct golden_field *field_of(const struct golden *golden,
					   const struct golden_part *part, const char *name)
{
	for (size_t i = 0; i < part->field_count; i++)
		if (strcmp(part->fields[i].name, name) == 0)
			return &part->fields[i];
	cr_assert_fail("%s: part %s, format %u: no field %s", golden->path, part->name,
		       part->format, name);
	return NULL;
}

void golden_expect(const struct golden *golden, const struct golden_part *part,
		   const struct golden_member *members, const void *structure)
{
	static char text[GOLDEN_TEXT_MAX];
	size_t count = 0;

	for (; members[count].name != NULL; count++) {
		const struct golden_field *field = field_of(golden, part, members[count].name);

		member_text(text, &members[count], structure);
		cr_assert_str_eq(text, field->text, "%s: part %s, format %u: %s is %s, expected %s",
				 golden->path, part->name, part->format, field->name, text,
				 field->text);
	}
	cr_assert_eq(count, part->field_count, "%s: part %s, format %u: %zu fields, expected %zu",
		     golden->path, part->name, part->format, part->field_count, count);
}

/* Replaces the text by its bytes. */
static struct sluice_slice text_bytes(struct golden_field *field)
{
	size_t len = strlen(field->text), count = 0;

	if (field->text[0] == '"')
		return (struct sluice_slice){field->text + 1, len - 2};
	cr_assert(strncmp(field->text, "0x", 2) == 0 && len % 2 == 0, "%s: %s", field->name,
		  field->text);
	return (struct sluice_slice){field->bytes.data, count = field->bytes.len};
}

void golden_fill(const struct golden *golden, struct golden_part *part,
		 const struct golden_member *members, void *structure)
{
	for (; members->name != NULL; members++) {
		struct golden_field *field =
			(struct golden_field *)(uintptr_t)field_of(golden, part, members->name);
		uint8_t *at = (uint8_t *)structure + members->offset;
		struct sluice_slice bytes;

		switch (members->type) {
		case GOLDEN_NUMBER:
			number_set(at, members->size, strtoull(field->text, NULL, 10));
			break;
		case GOLDEN_SIGNED:
			*(int32_t *)at = (int32_t)strtol(field->text, NULL, 10);
			break;
		case GOLDEN_SLICE:
			*(struct sluice_slice *)at = text_bytes(field);
			break;
		case GOLDEN_ARRAY:
			bytes = text_bytes(field);
			cr_assert_leq(bytes.len, members->size, "%s: %s", golden->path,
				      field->name);
			memset(at, 0, members->size);
			memcpy(at, bytes.data, bytes.len);
			break;
		case GOLDEN_MESSAGE:
			*(struct sluice_slice *)at = field->bytes;
			break;
		}
	}
}

/* ---- bytes ---- */

void golden_bytes(const struct golden *golden, const struct golden_part *part,
		  struct sluice_slice bytes)
{
	static char hex[GOLDEN_BYTES_MAX * 4];
	size_t used = 0;

	for (size_t i = 0; i < bytes.len && used + 4 < sizeof(hex); i++)
		used += (size_t)snprintf(hex + used, sizeof(hex) - used, "%02x ",
					 ((const uint8_t *)bytes.data)[i]);
	cr_assert(bytes.len == part->len && memcmp(bytes.data, part->bytes, part->len) == 0,
		  "%s: part %s, format %u: the encoder writes %s", golden->path, part->name,
		  part->format, hex);
}

struct sluice_slice golden_packed(const ProtobufCMessageDescriptor *descriptor,
				  struct sluice_slice bytes, uint8_t buf[GOLDEN_BYTES_MAX])
{
	ProtobufCMessage *message =
		protobuf_c_message_unpack(descriptor, NULL, bytes.len, bytes.data);
	size_t len;

	cr_assert_not_null(message);
	cr_assert_leq(protobuf_c_message_get_packed_size(message), (size_t)GOLDEN_BYTES_MAX);
	len = protobuf_c_message_pack(message, buf);
	protobuf_c_message_free_unpacked(message, NULL);
	return (struct sluice_slice){buf, len};
}
