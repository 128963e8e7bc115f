/* SPDX-License-Identifier: Apache-2.0
 * Control messages: input is bounded, its texts are valid, and packing is canonical; JSON is the
 * same each time. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/limits.h"
#include "protocol/message_block.h"
#include "protocol_vectors.h"
#include "sluice.pb-c.h"

/* Unpacked into a block the result is the same: the code, and the message when packed again. */
static void in_a_block(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice bytes,
		       int code, const ProtobufCMessage *message)
{
	struct message_block *block = NULL;
	ProtobufCMessage *same = NULL;
	const char *why = NULL;
	uint8_t *left, *right, *more;
	size_t len;

	cr_assert(message_unpack_block(descriptor, bytes, LIMIT_COMMAND_BYTES_MAX, &block, &same,
				       &why) == code);
	cr_assert((code == 0) == (block != NULL) && (code == 0) == (why == NULL));
	if (code != 0)
		return;
	more = message_block_alloc(block, 3000); /* beyond the first chunk */
	cr_assert(more != NULL && more[0] == 0 && memcmp(more, more + 1, 2999) == 0);
	memset(more, 0xff, 3000);
	len = protobuf_c_message_get_packed_size(message);
	cr_assert(protobuf_c_message_get_packed_size(same) == len);
	left = malloc(len + 1);
	right = malloc(len + 1);
	cr_assert(left != NULL && right != NULL);
	cr_assert(protobuf_c_message_pack(message, left) == len &&
		  protobuf_c_message_pack(same, right) == len);
	cr_assert(memcmp(left, right, len) == 0);
	free(left);
	free(right);
	message_block_free(block);
}

static int unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t len,
		  ProtobufCMessage **ret)
{
	struct sluice_slice copy = slice_copy(bytes, len);
	const char *why = NULL;
	int rc = message_unpack(descriptor, copy, LIMIT_COMMAND_BYTES_MAX, ret, &why);

	cr_assert((rc == 0) == (why == NULL), "%d %s", rc, why);
	in_a_block(descriptor, copy, rc, *ret);
	free((void *)(uintptr_t)copy.data);
	return rc;
}

static int code_of(const ProtobufCMessageDescriptor *descriptor, const void *bytes, size_t len)
{
	ProtobufCMessage *message = NULL;
	int rc = unpack(descriptor, bytes, len, &message);

	if (rc == 0)
		protobuf_c_message_free_unpacked(message, NULL);
	return rc;
}

#define REQUEST(literal) code_of(&sluice__request__descriptor, literal, sizeof(literal) - 1)
#define HELLO(literal) code_of(&sluice__hello__descriptor, literal, sizeof(literal) - 1)

static void vector_again(const char *name, uint8_t type, uint32_t corr,
			 const ProtobufCMessageDescriptor *descriptor, const char *json)
{
	struct sluice_slice body = vector_body(name, type, corr);
	ProtobufCMessage *message = NULL;
	uint8_t again[512];
	char *shown = NULL;
	size_t len;

	cr_assert(unpack(descriptor, body.data, body.len, &message) == 0, "%s", name);
	cr_assert(message_json(message, false, &shown) == 0);
	cr_assert_str_eq(shown, json);
	len = protobuf_c_message_pack(message, again);
	vector_body_equals(name, again, len);
	protobuf_c_message_free_unpacked(message, NULL);
	free(shown);
	free((void *)(uintptr_t)body.data);
}

Test(message, vectors_unpack_show_and_pack)
{
	vector_again("hello", 1, 0, &sluice__hello__descriptor,
		     "{\"version_min\":1,\"version_max\":1,\"client\":\"demo\",\"features\":["
		     "\"zstd\"]}");
	vector_again("request", 2, 2, &sluice__request__descriptor,
		     "{\"queue_create\":{\"config\":{\"name\":\"work\"},\"if_not_exists\":true}}");
	vector_again("reply_error", 66, 3, &sluice__reply__descriptor,
		     "{\"code\":-10,\"text\":\"queue 'w' does not exist\"}");
	vector_again("error", 71, 0, &sluice__failure__descriptor,
		     "{\"code\":-3,\"text\":\"no common version\"}");
	vector_again("notice", 69, 0, &sluice__notice__descriptor,
		     "{\"kind\":\"caught_up\",\"subscription\":1,\"offset\":42}");
}

Test(message, strings_are_utf8_without_nul)
{
	cr_assert(HELLO("\x1a\x02ok") == 0);
	cr_assert(HELLO("\x1a\x02\xc3\xa4") == 0);
	/* session_name */
	cr_assert(HELLO("\x2a\x01\xff") == SLUICE_E_PROTOCOL);
	cr_assert(HELLO("\x2a\x02\xc0\x80") == SLUICE_E_PROTOCOL);
	cr_assert(HELLO("\x2a\x03\xed\xa0\x80") == SLUICE_E_PROTOCOL);
	cr_assert(HELLO("\x2a\x03"
			"a\0b") == SLUICE_E_PROTOCOL);
	cr_assert(HELLO("\x4a\x01\xff") == SLUICE_E_PROTOCOL); /* in a repeated one */
	cr_assert(REQUEST("\xa2\x01\x05\x0a\x03\x0a\x01\xff") == SLUICE_E_PROTOCOL); /* nested */
	cr_assert(HELLO("\x3a\x01\xff") == 0); /* bytes may be anything */
	/* The entry of a map: Txn publish with a header. */
	cr_assert(REQUEST("\x82\x05\x0b\x2a\x09\x0a\x07\x3a\x05\x0a\x01\x61\x12\x00") == 0);
	cr_assert(REQUEST("\x82\x05\x0b\x2a\x09\x0a\x07\x3a\x05\x0a\x01\xff\x12\x00") ==
		  SLUICE_E_PROTOCOL);
}

Test(message, a_refused_string_is_named)
{
	struct sluice_slice bytes = slice_copy("\x2a\x01\xff", 3);
	ProtobufCMessage *message = NULL;
	const char *why = NULL;

	cr_assert(message_unpack(&sluice__hello__descriptor, bytes, 100, &message, &why) ==
		  SLUICE_E_PROTOCOL);
	cr_assert_str_eq(why, "session_name of Hello is not valid UTF-8, or holds a NUL");
	free((void *)(uintptr_t)bytes.data);
}

/* A text in another encoding, or cut inside a character, loses those bytes; the report is
 * accepted. */
Test(message, a_text_for_people_is_repaired)
{
	Sluice__JobReport report = SLUICE__JOB_REPORT__INIT;
	Sluice__Request around = SLUICE__REQUEST__INIT;
	uint8_t packed[64];
	size_t len;
	char evidence[] = "a\xe9"
			  "b\xe2\x82";
	ProtobufCMessage *message = NULL;

	report.job = (char *)(uintptr_t) "j";
	report.evidence = evidence;
	around.op_case = SLUICE__REQUEST__OP_JOB_REPORT;
	around.job_report = &report;
	len = protobuf_c_message_pack(&around.base, packed);
	cr_assert_str_eq(message_text_bad(&around.base), "evidence");
	cr_assert(unpack(&sluice__request__descriptor, packed, len, &message) == 0);
	cr_assert_str_eq(((Sluice__Request *)message)->job_report->evidence, "a?b??");
	cr_assert_null(message_text_bad(message));
	protobuf_c_message_free_unpacked(message, NULL);
	/* A NUL would hide the bytes after it. */
	packed[len - 1] = 0;
	cr_assert(unpack(&sluice__request__descriptor, packed, len, &message) == 0);
	cr_assert_str_eq(((Sluice__Request *)message)->job_report->evidence, "a?b??");
	protobuf_c_message_free_unpacked(message, NULL);
	/* A name is refused instead: two jobs would become one. */
	report.job = evidence;
	len = protobuf_c_message_pack(&around.base, packed);
	cr_assert(unpack(&sluice__request__descriptor, packed, len, &message) == SLUICE_E_PROTOCOL);
}

Test(message, malformed_wire_is_refused)
{
	cr_assert(HELLO("") == 0);
	cr_assert(HELLO("\x08") == SLUICE_E_PROTOCOL);
	cr_assert(HELLO("\x08\x80") == SLUICE_E_PROTOCOL);
	cr_assert(HELLO("\x1a\x05"
			"a") == SLUICE_E_PROTOCOL);
	cr_assert(HELLO("\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01") == SLUICE_E_PROTOCOL);
	cr_assert(HELLO("\x00\x01") == SLUICE_E_PROTOCOL); /* field 0 */
	cr_assert(HELLO("\x0b\x0c") == SLUICE_E_PROTOCOL); /* a group */
	cr_assert(HELLO("\x0e") == SLUICE_E_PROTOCOL);	   /* wire type 6 */
	cr_assert(HELLO("\x18\x01") == SLUICE_E_PROTOCOL); /* a number where a string belongs */
	cr_assert(HELLO("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01") ==
		  SLUICE_E_PROTOCOL); /* 11 bytes */
	cr_assert(HELLO("\x31\x01\x02") == SLUICE_E_PROTOCOL);
	/* session_list; with a bit more in its number, which 32 bits do not have; with a length of
	 * six bytes */
	cr_assert(REQUEST("\xe2\x05\x00") == 0);
	cr_assert(REQUEST("\xe2\x85\x80\x80\x80\x01\x00") == SLUICE_E_PROTOCOL);
	cr_assert(REQUEST("\xe2\x05\x80\x80\x80\x80\x00") == 0);
	cr_assert(REQUEST("\xe2\x05\x80\x80\x80\x80\x80\x00") == SLUICE_E_PROTOCOL);
}

Test(message, every_cut_of_a_vector_is_refused_or_whole)
{
	struct sluice_slice body = vector_body("hello", 1, 0);

	/* The fields end behind bytes 2, 4 and 10; a cut there is a shorter message. */
	for (size_t len = 1; len < body.len; len++)
		cr_assert(code_of(&sluice__hello__descriptor, body.data, len) ==
				  (len == 2 || len == 4 || len == 10 ? 0 : SLUICE_E_PROTOCOL),
			  "%zu", len);
	free((void *)(uintptr_t)body.data);
}

Test(message, unknown_fields_are_dropped_at_every_level)
{
	/* queue_create { config { name: "w", unknown 99: 1 } unknown 98: "x" } unknown 97: fixed
	 * 32 */
	static const char bytes[] = "\xa2\x01\x0c"
				    "\x0a\x06\x0a\x01w\x98\x06\x01"
				    "\x92\x06\x01x"
				    "\x8d\x06\x01\x02\x03\x04";
	static const char canonical[] = "\xa2\x01\x05\x0a\x03\x0a\x01w";
	ProtobufCMessage *message = NULL;
	uint8_t again[64];

	cr_assert(unpack(&sluice__request__descriptor, bytes, sizeof(bytes) - 1, &message) == 0);
	cr_assert(protobuf_c_message_get_packed_size(message) == sizeof(canonical) - 1);
	cr_assert(protobuf_c_message_pack(message, again) == sizeof(canonical) - 1 &&
		  memcmp(again, canonical, sizeof(canonical) - 1) == 0);
	protobuf_c_message_free_unpacked(message, NULL);
}

Test(message, size_limit_at_its_edge)
{
	ProtobufCMessage *message = NULL;
	const char *why = NULL;

	cr_assert(message_unpack(&sluice__hello__descriptor, text("\x08\x01\x10\x01"), 4, &message,
				 &why) == 0);
	protobuf_c_message_free_unpacked(message, NULL);
	cr_assert(message_unpack(&sluice__hello__descriptor, text("\x08\x01\x10\x01"), 3, &message,
				 &why) == SLUICE_E_LIMIT &&
		  why != NULL);
}

Test(message, field_limit_at_its_edge)
{
	size_t fields = LIMIT_MESSAGE_FIELDS_MAX;
	uint8_t *bytes = malloc(2 * (fields + 1));

	cr_assert(bytes != NULL);
	for (size_t i = 0; i <= fields; i++)
		memcpy(bytes + 2 * i, "\x4a\x00", 2); /* one more empty feature */
	/* limit: MESSAGE_FIELDS_MAX */
	cr_assert(code_of(&sluice__hello__descriptor, bytes, 2 * fields) == 0);
	cr_assert(code_of(&sluice__hello__descriptor, bytes, 2 * (fields + 1)) == SLUICE_E_LIMIT);
	free(bytes);
}

/* protobuf-c recurses as deep as its input says. No message of ours contains itself, so the depth
 * is bounded. */
static int depth_of(const ProtobufCMessageDescriptor *descriptor, int above)
{
	int deepest = 0;

	cr_assert(above <= MESSAGE_DEPTH_MAX, "%s is nested too deep or recursive",
		  descriptor->name);
	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		int depth = descriptor->fields[i].type == PROTOBUF_C_TYPE_MESSAGE
				    ? 1 + depth_of(descriptor->fields[i].descriptor, above + 1)
				    : 0;

		deepest = depth > deepest ? depth : deepest;
	}
	return deepest;
}

Test(message, no_message_is_recursive)
{
	cr_assert(depth_of(&sluice__request__descriptor, 0) >= 3);
	cr_assert(depth_of(&sluice__reply__descriptor, 0) >= 2);
	cr_assert(depth_of(&sluice__hello__descriptor, 0) == 0);
}

Test(message, deep_unknown_nesting_costs_nothing)
{
	size_t len = 200000;
	uint8_t *bytes = malloc(len + 8);
	size_t at = len;

	cr_assert(bytes != NULL);
	/* Field 99 within field 99 within ...: built from the inside; lengths as 5-byte varints
	 * would be refused by nobody, 3 are enough. */
	while (at > 8) {
		size_t inner = len - at;

		at -= 5;
		bytes[at] = 0x9a;
		bytes[at + 1] = 0x06;
		bytes[at + 2] = (uint8_t)(inner | 0x80);
		bytes[at + 3] = (uint8_t)(inner >> 7 | 0x80);
		bytes[at + 4] = (uint8_t)(inner >> 14);
	}
	cr_assert(code_of(&sluice__request__descriptor, bytes + at, len - at) == 0);
	free(bytes);
}

static void json_is(const ProtobufCMessage *message, bool all, const char *expected)
{
	char *shown = NULL;

	cr_assert(message_json(message, all, &shown) == 0);
	cr_assert_str_eq(shown, expected);
	free(shown);
}

Test(json, escapes_text_and_writes_other_bytes_as_base64)
{
	Sluice__TxnPublish publish = SLUICE__TXN_PUBLISH__INIT;
	Sluice__Notice notice = SLUICE__NOTICE__INIT;
	uint8_t bytes[] = {0xff, 0x00, 0x01, 0x02};
	char quoted[] = "a\"b\\c\n\t\x01\x7f\xc3\xa4";

	publish.subject = quoted;
	publish.body = (ProtobufCBinaryData){4, bytes};
	publish.key = (ProtobufCBinaryData){1, (uint8_t *)quoted};
	json_is(&publish.base, false,
		"{\"subject\":\"a\\\"b\\\\c\\n\\t\\u0001\\u007f\xc3\xa4\","
		"\"key\":\"a\",\"body_base64\":\"/wABAg==\"}");
	notice.kind = SLUICE__NOTICE_KIND__NOTICE_GAP;
	notice.to_offset = UINT64_MAX;
	notice.code = INT32_MIN;
	json_is(&notice.base, false,
		"{\"kind\":\"gap\",\"to_offset\":18446744073709551615,\"code\":-2147483648}");
	json_is(&notice.base, true,
		"{\"kind\":\"gap\",\"subscription\":0,\"offset\":0,\"to_offset\":"
		"18446744073709551615,"
		"\"code\":-2147483648,\"text\":\"\",\"job\":\"\",\"token\":0}");
	notice.kind = (Sluice__NoticeKind)77;
	notice.to_offset = 0;
	notice.code = 0;
	json_is(&notice.base, false, "{\"kind\":77}");
}

Test(json, shows_lists_maps_and_the_chosen_operation)
{
	/* txn { ops { publish { headers { a: "" } } } ops { check_job { job: "j" } } } */
	static const char bytes[] = "\x82\x05\x12\x2a\x09\x0a\x07\x3a\x05\x0a\x01"
				    "a"
				    "\x12\x00\x2a\x05\x52\x03\x0a\x01j";
	ProtobufCMessage *message = NULL;

	cr_assert(unpack(&sluice__request__descriptor, bytes, sizeof(bytes) - 1, &message) == 0);
	json_is(message, false,
		"{\"txn\":{\"ops\":[{\"publish\":{\"headers\":[{\"key\":\"a\"}]}},"
		"{\"check_job\":{\"job\":\"j\"}}]}}");
	protobuf_c_message_free_unpacked(message, NULL);
}
