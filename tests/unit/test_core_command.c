/* SPDX-License-Identifier: Apache-2.0
 * The command codec: canonical, bounded, the table in order. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/command.h"
#include "broker/util/bytes.h"
#include "protocol/limits.h"

enum { HEAD = 27 };

static struct sluice_slice text(const char *t)
{
	return (struct sluice_slice){t, strlen(t)};
}

static void round_trip(const struct command *command)
{
	size_t bytes = command_size(command), again;
	uint8_t *first = malloc(bytes), *second = malloc(bytes);
	struct command *decoded = NULL, *copy = NULL;
	const char *why = "";

	cr_assert(first != NULL && second != NULL);
	cr_assert_eq(command_encode(first, command), bytes);
	cr_assert_eq(command_decode((struct sluice_slice){first, bytes}, &decoded, &why), 0,
		     "type %u: %s", command->type, why);
	cr_assert_eq(decoded->type, command->type);
	cr_assert_eq(decoded->gateway, command->gateway);
	cr_assert_eq(decoded->session, command->session);
	cr_assert_eq(decoded->random, command->random);
	again = command_encode(second, decoded);
	cr_assert_eq(again, bytes);
	cr_assert_eq(memcmp(first, second, bytes), 0, "type %u has two encodings", command->type);
	cr_assert_eq(command_copy(decoded, &copy), 0);
	command_free(decoded);
	cr_assert_eq(command_encode(second, copy), bytes);
	cr_assert_eq(memcmp(first, second, bytes), 0);
	command_free(copy);
	/* Every cut, and one byte more, is refused without a crash. */
	for (size_t cut = 0; cut < bytes; cut++)
		cr_assert_neq(command_decode((struct sluice_slice){first, cut}, &decoded, &why), 0);
	free(first);
	free(second);
}

/* Fills every field of a message with something that is not its default, two levels deep. */
static ProtobufCMessage *filled(const ProtobufCMessageDescriptor *descriptor, int depth)
{
	ProtobufCMessage *message = calloc(1, descriptor->sizeof_message);

	cr_assert_not_null(message);
	protobuf_c_message_init(descriptor, message);
	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
		char *member = (char *)message + field->offset;
		bool repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
		void *value = NULL;

		if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
			if (*(uint32_t *)((char *)message + field->quantifier_offset) != 0)
				continue;
			*(uint32_t *)((char *)message + field->quantifier_offset) = field->id;
		}
		if (field->type == PROTOBUF_C_TYPE_MESSAGE)
			value = depth == 0 ? NULL : filled(field->descriptor, depth - 1);
		else if (field->type == PROTOBUF_C_TYPE_STRING)
			value = strdup("text");
		if (repeated) {
			void **array;

			if (value == NULL)
				continue;
			array = calloc(1, sizeof(void *));
			cr_assert_not_null(array);
			array[0] = value;
			*(void ***)member = array;
			*(size_t *)((char *)message + field->quantifier_offset) = 1;
			continue;
		}
		switch (field->type) {
		case PROTOBUF_C_TYPE_MESSAGE:
		case PROTOBUF_C_TYPE_STRING:
			*(void **)member = value;
			break;
		case PROTOBUF_C_TYPE_BYTES:
			*(ProtobufCBinaryData *)member =
				(ProtobufCBinaryData){3, (uint8_t *)strdup("abc")};
			break;
		case PROTOBUF_C_TYPE_BOOL:
			*(protobuf_c_boolean *)member = 1;
			break;
		case PROTOBUF_C_TYPE_UINT64:
			*(uint64_t *)member = UINT64_MAX - i;
			break;
		default:
			*(uint32_t *)member = 1;
			break;
		}
	}
	return message;
}

Test(core_command, every_command_round_trips)
{
	struct cmd_tick tick = {77, text("a key of twenty-nine bytes...")};
	struct cmd_boot boot = {1, UINT64_MAX, true, 2, 3};
	struct cmd_session_open open = {text("name"),	   text("client 1.0"), 30000,
					"0123456789abcde", SESSION_EPHEMERAL,  SESSION_FACE_AMQP,
					text("ada"),	   text("10.0.0.1"),   text("2001:db8::7")};
	struct cmd_session_expire expire = {UINT64_MAX};
	struct cmd_session_alter alter = {30000, text("ada"), text("10.0.0.1"),
					  text("2001:db8::7")};
	struct cmd_claim claim = {1, 2, 3, CLAIM_RESUME, 4, UINT64_MAX, 5, 6, 7, 8};
	uint8_t runs[24] = {0, 0, 0, 0, 0, 0, 0, 9,  0, 0, 0, 1,
			    0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2};
	struct cmd_ack ack = {5, 6, ACK_NACK, 100, 2, runs, text("a reason")};
	struct frame_publish publish = {.producer = 9,
					.epoch = 1,
					.first_seq = 1,
					.count = 1,
					.time_ms = 5,
					.raw_bytes = 4,
					.subject = text("a.b"),
					.payload = {"\x92\x00\xc4\x00", 4}};
	size_t count;
	const struct command_spec *specs = command_specs(&count);

	for (size_t i = 0; i < count; i++) {
		struct command command = {.type = specs[i].type,
					  .gateway = 7,
					  .session = 8,
					  .random = UINT64_MAX};

		switch (specs[i].type) {
		case COMMAND_TICK:
			command.body = &tick;
			break;
		case COMMAND_BOOT:
			command.body = &boot;
			break;
		case COMMAND_SESSION_OPEN:
			command.body = &open;
			break;
		case COMMAND_SESSION_EXPIRE:
			command.body = &expire;
			break;
		case COMMAND_SESSION_ALTER:
			command.body = &alter;
			break;
		case COMMAND_CLAIM:
			command.body = &claim;
			break;
		case COMMAND_ACK:
			command.body = &ack;
			break;
		case COMMAND_PUBLISH:
			command.body = &publish;
			break;
		default:
			cr_assert_not_null(specs[i].message, "%s has no body here", specs[i].name);
			command.message = filled(specs[i].message, 2);
			break;
		}
		round_trip(&command);
		if (specs[i].message != NULL) {
			ProtobufCMessage *empty = calloc(1, specs[i].message->sizeof_message);

			protobuf_c_message_free_unpacked((ProtobufCMessage *)(uintptr_t)
								 command.message,
							 NULL);
			cr_assert_not_null(empty);
			protobuf_c_message_init(specs[i].message, empty);
			command.message = empty;
			round_trip(&command);
			free(empty);
		}
	}
}

Test(core_command, the_table_is_sound)
{
	size_t count;
	const struct command_spec *specs = command_specs(&count);

	for (size_t i = 0; i < count; i++) {
		cr_assert_eq(command_spec(specs[i].type), &specs[i]);
		cr_assert(i == 0 || specs[i].type > specs[i - 1].type, "%s: numbers grow",
			  specs[i].name);
		cr_assert_gt(strlen(specs[i].permission), 0);
		for (const char *c = specs[i].name; *c != 0; c++)
			cr_assert((*c >= 'a' && *c <= 'z') || *c == '_', "%s", specs[i].name);
	}
	cr_assert_null(command_spec(0));
	cr_assert_null(command_spec(4));
	cr_assert_null(command_spec(UINT16_MAX));
	cr_assert_str_eq(command_spec(COMMAND_JOB_SUBMIT)->name, "job_submit");
	cr_assert_str_eq(command_spec(COMMAND_PUBLISH)->name, "publish");
	cr_assert_eq(command_spec(COMMAND_ACK)->headroom, HEADROOM_ALWAYS);
}

Test(core_command, a_version_belongs_to_a_level)
{
	cr_assert_eq(command_version(COMMAND_TICK, 0), 1);
	cr_assert_eq(command_version(COMMAND_SESSION_OPEN, 0), 2);
	cr_assert_eq(command_version(COMMAND_CLAIM, 0), 3);
	cr_assert_eq(command_version(COMMAND_CLAIM, UINT32_MAX), 3);
}

static int decode(const uint8_t *body, size_t len, uint16_t type, uint8_t version)
{
	uint8_t bytes[256] = {0};
	struct command *command = NULL;
	const char *why = NULL;
	int rc;

	put_be16(bytes, type);
	bytes[2] = version;
	put_be32(bytes + 3, 1);
	put_be32(bytes + 23, (uint32_t)len);
	memcpy(bytes + HEAD, body, len);
	rc = command_decode((struct sluice_slice){bytes, HEAD + len}, &command, &why);
	cr_assert(rc == 0 || why != NULL, "a refusal has a reason");
	if (rc == 0)
		command_free(command);
	cr_assert_eq(command_decode((struct sluice_slice){bytes, HEAD + len}, &command, NULL), rc,
		     "the reason is optional");
	if (rc == 0)
		command_free(command);
	return rc;
}

/* As a program wrote it before commands had addresses. */
Test(core_command, a_session_open_of_version_1_is_read)
{
	uint8_t bytes[HEAD + 24 + 5] = {0}, again[HEAD + 24 + 5 + 8];
	struct command *command = NULL;
	const struct cmd_session_open *open;
	const char *why = "";

	put_be16(bytes, COMMAND_SESSION_OPEN);
	bytes[2] = 1;
	put_be32(bytes + 3, 1);
	put_be32(bytes + 23, 24 + 5);
	memset(bytes + HEAD, 9, 16);
	put_be32(bytes + HEAD + 16, 5000);
	put_be16(bytes + HEAD + 20, 2);
	put_be16(bytes + HEAD + 22, 3);
	memcpy(bytes + HEAD + 24, "abcde", 5);
	cr_assert_eq(command_decode((struct sluice_slice){bytes, sizeof(bytes)}, &command, &why), 0,
		     "%s", why);
	open = command->body;
	cr_assert(open->timeout_ms == 5000 && open->name.len == 2 && open->client.len == 3 &&
		  open->secret[15] == 9 && memcmp(open->client.data, "cde", 3) == 0);
	cr_assert(open->flags == 0 && open->face == SESSION_FACE_NONE && open->principal.len == 0 &&
		  open->via.len == 0 && open->address.len == 0);
	cr_assert_eq(command_size(command), sizeof(again));
	cr_assert_eq(command_encode(again, command), sizeof(again));
	cr_assert_eq(again[2], 2);
	command_free(command);
	bytes[2] = 2;
	cr_assert_eq(command_decode((struct sluice_slice){bytes, sizeof(bytes)}, &command, &why),
		     SLUICE_E_PROTOCOL, "a body of version 2 is longer");
}

/* u32 timeout, u16 and the principal, two lengths, via, address. */
Test(core_command, a_session_alter_with_wrong_lengths_is_not_read)
{
	uint8_t body[10 + 6] = {0};

	body[5] = 3, memcpy(body + 6, "ada", 3);
	body[10] = 1, body[12] = 2;
	cr_assert_eq(decode(body, sizeof(body), COMMAND_SESSION_ALTER, 1), 0);
	cr_assert_eq(decode(body, sizeof(body) - 1, COMMAND_SESSION_ALTER, 1), SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(body, 9, COMMAND_SESSION_ALTER, 1), SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(body, 0, COMMAND_SESSION_ALTER, 1), SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(body, sizeof(body), COMMAND_SESSION_ALTER, 2), SLUICE_E_VERSION);
	body[5] = 7;
	cr_assert_eq(decode(body, sizeof(body), COMMAND_SESSION_ALTER, 1), SLUICE_E_PROTOCOL,
		     "the other lengths are beyond the body");
	body[4] = 0xff;
	cr_assert_eq(decode(body, sizeof(body), COMMAND_SESSION_ALTER, 1), SLUICE_E_PROTOCOL);
}

/* Older versions are decoded with 0 for the fields that they lack, and encoded in the current
 * version. */
Test(core_command, a_claim_of_version_1_is_read)
{
	uint8_t bytes[HEAD + 33] = {0}, again[HEAD + 55];
	struct command *command = NULL;
	const struct cmd_claim *claim;
	const char *why = "";

	put_be16(bytes, COMMAND_CLAIM);
	bytes[2] = 1;
	put_be32(bytes + 3, 1);
	put_be32(bytes + 23, 33);
	put_be64(bytes + HEAD, 11);
	put_be32(bytes + HEAD + 8, 12);
	bytes[HEAD + 16] = CLAIM_ORPHANS;
	put_be64(bytes + HEAD + 25, 13);
	cr_assert_eq(command_decode((struct sluice_slice){bytes, sizeof(bytes)}, &command, &why), 0,
		     "%s", why);
	claim = command->body;
	cr_assert(claim->queue == 11 && claim->max == 12 && claim->flags == CLAIM_ORPHANS &&
		  claim->resume_until == 13);
	cr_assert(claim->split == 0 && claim->consumer == 0 && claim->source == 0 &&
		  claim->extend_max_ms == 0);
	cr_assert_eq(command_size(command), sizeof(again));
	cr_assert_eq(command_encode(again, command), sizeof(again));
	cr_assert_eq(again[2], 3);
	command_free(command);
	bytes[2] = 2;
	cr_assert_eq(command_decode((struct sluice_slice){bytes, sizeof(bytes)}, &command, &why),
		     SLUICE_E_PROTOCOL, "a body of version 2 is longer");
	bytes[2] = 4;
	cr_assert_eq(command_decode((struct sluice_slice){bytes, sizeof(bytes)}, &command, &why),
		     SLUICE_E_VERSION);
}

Test(core_command, a_claim_of_version_2_is_read)
{
	uint8_t bytes[HEAD + 51] = {0}, again[HEAD + 55];
	struct command *command = NULL;
	const struct cmd_claim *claim;
	const char *why = "";

	put_be16(bytes, COMMAND_CLAIM);
	bytes[2] = 2;
	put_be32(bytes + 3, 1);
	put_be32(bytes + 23, 51);
	put_be64(bytes + HEAD, 11);
	put_be64(bytes + HEAD + 43, 14);
	cr_assert_eq(command_decode((struct sluice_slice){bytes, sizeof(bytes)}, &command, &why), 0,
		     "%s", why);
	claim = command->body;
	cr_assert(claim->queue == 11 && claim->source == 14 && claim->extend_max_ms == 0);
	cr_assert_eq(command_encode(again, command), sizeof(again));
	cr_assert_eq(again[2], 3);
	cr_assert_eq(memcmp(again + HEAD, bytes + HEAD, 51), 0,
		     "the fields that it has are where they were");
	cr_assert_eq(get_be32(again + HEAD + 51), 0);
	command_free(command);
	bytes[2] = 3;
	cr_assert_eq(command_decode((struct sluice_slice){bytes, sizeof(bytes)}, &command, &why),
		     SLUICE_E_PROTOCOL, "a body of version 3 is longer");
}

/* stream_delete: field 1 is the name. */
Test(core_command, only_the_canonical_form_is_accepted)
{
	static const uint8_t good[] = {0x0a, 1, 's'};
	static const uint8_t unknown[] = {0x0a, 1, 's', 0x78, 1};
	static const uint8_t twice[] = {0x0a, 1, 'r', 0x0a, 1, 's'};
	static const uint8_t spelled_default[] = {0x0a, 0};
	static const uint8_t long_varint[] = {0x0a, 0x81, 0x00, 's'};
	static const uint8_t nul[] = {0x0a, 2, 's', 0};
	static const uint8_t cut[] = {0x0a, 5, 's'};

	cr_assert_eq(decode(good, sizeof(good), COMMAND_STREAM_DELETE, 1), 0);
	cr_assert_eq(decode(unknown, sizeof(unknown), COMMAND_STREAM_DELETE, 1), SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(twice, sizeof(twice), COMMAND_STREAM_DELETE, 1), SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(spelled_default, sizeof(spelled_default), COMMAND_STREAM_DELETE, 1),
		     SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(long_varint, sizeof(long_varint), COMMAND_STREAM_DELETE, 1),
		     SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(nul, sizeof(nul), COMMAND_STREAM_DELETE, 1), SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(cut, sizeof(cut), COMMAND_STREAM_DELETE, 1), SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(good, sizeof(good), COMMAND_STREAM_DELETE, 2), SLUICE_E_VERSION);
	cr_assert_eq(decode(good, sizeof(good), 9999, 1), SLUICE_E_UNKNOWN_TYPE);
	cr_assert_eq(decode(good, sizeof(good), COMMAND_TICK, 1), SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(good, sizeof(good), COMMAND_CLAIM, 1), SLUICE_E_PROTOCOL);
	cr_assert_eq(decode(good, sizeof(good), COMMAND_PUBLISH, 1), SLUICE_E_PROTOCOL);
}

Test(core_command, bytes_at_their_limit)
{
	Sluice__JobSubmit submit = SLUICE__JOB_SUBMIT__INIT;
	struct command command = {.type = COMMAND_JOB_SUBMIT, .message = &submit.base},
		       *decoded = NULL;
	uint8_t *payload = calloc(1, LIMIT_COMMAND_BYTES_MAX), *bytes;
	const char *why = NULL;

	cr_assert_not_null(payload);
	/* limit: COMMAND_BYTES_MAX */
	submit.payload = (ProtobufCBinaryData){LIMIT_COMMAND_BYTES_MAX - 5, payload};
	cr_assert_eq(command_size(&command), HEAD + LIMIT_COMMAND_BYTES_MAX);
	bytes = malloc(HEAD + LIMIT_COMMAND_BYTES_MAX + 1);
	cr_assert_not_null(bytes);
	(void)command_encode(bytes, &command);
	cr_assert_eq(command_decode((struct sluice_slice){bytes, HEAD + LIMIT_COMMAND_BYTES_MAX},
				    &decoded, &why),
		     0, "%s", why);
	command_free(decoded);
	submit.payload.len++;
	(void)command_encode(bytes, &command);
	cr_assert_eq(command_decode((struct sluice_slice){bytes,
							  HEAD + LIMIT_COMMAND_BYTES_MAX + 1},
				    &decoded, &why),
		     SLUICE_E_LIMIT);
	free(bytes);
	free(payload);
}
