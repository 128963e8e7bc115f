/* SPDX-License-Identifier: Apache-2.0
 * Control messages: u8 number of the message type, then its bytes. A message that unpacks packs
 * canonically (packing, unpacking and packing again gives the same bytes), and its JSON is one line
 * and the same both times. */
#include "fuzz.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "protocol/message_block.h"
#include "sluice.pb-c.h"

static uint8_t *pack(const ProtobufCMessage *message, size_t *ret_len)
{
	uint8_t *bytes = exactly(protobuf_c_message_get_packed_size(message));

	*ret_len = protobuf_c_message_pack(message, bytes);
	return bytes;
}

static char *json(const ProtobufCMessage *message)
{
	char *shown = NULL;

	REQUIRE(message_json(message, false, &shown) == 0 && shown[0] == '{' &&
		strchr(shown, '\n') == NULL);
	return shown;
}

/* Unpacked into one block, as the broker unpacks requests: the same code and the same message. */
static void same_in_a_block(const ProtobufCMessageDescriptor *descriptor, struct sluice_slice in,
			    int code, const ProtobufCMessage *message)
{
	struct message_block *block = NULL;
	ProtobufCMessage *other = NULL;
	uint8_t *bytes, *other_bytes;
	const char *why = NULL;
	size_t len, other_len;

	REQUIRE(message_unpack_block(descriptor, in, LIMIT_COMMAND_BYTES_MAX, &block, &other,
				     &why) == code);
	if (code != 0) {
		REQUIRE(why != NULL && block == NULL);
		return;
	}
	bytes = pack(message, &len);
	other_bytes = pack(other, &other_len);
	REQUIRE(len == other_len && memcmp(bytes, other_bytes, len) == 0);
	free(bytes);
	free(other_bytes);
	message_block_free(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const ProtobufCMessageDescriptor *const descriptors[] =
		{&sluice__request__descriptor,	  &sluice__hello__descriptor,
		 &sluice__reply__descriptor,	  &sluice__welcome__descriptor,
		 &sluice__notice__descriptor,	  &sluice__job_deliveries__descriptor,
		 &sluice__job_submit__descriptor, &sluice__txn__descriptor};
	struct sluice_slice in = {data, size};
	const ProtobufCMessageDescriptor *descriptor = descriptors[take_number(&in, 1) % 8];
	ProtobufCMessage *first = NULL, *second = NULL;
	size_t first_len, second_len;
	uint8_t *first_bytes, *second_bytes;
	char *first_json, *second_json, *all = NULL;
	const char *why = NULL;
	int code = message_unpack(descriptor, in, LIMIT_COMMAND_BYTES_MAX, &first, &why);

	same_in_a_block(descriptor, in, code, first);
	if (code != 0) {
		REQUIRE(why != NULL && first == NULL);
		return 0;
	}
	first_bytes = pack(first, &first_len);
	/* Largest growth: a negative enum, which may have 5 bytes and is packed with 10. */
	REQUIRE(first_len <= 3 * in.len);
	REQUIRE(message_unpack(descriptor, (struct sluice_slice){first_bytes, first_len},
			       UINT64_MAX, &second, &why) == 0);
	second_bytes = pack(second, &second_len);
	REQUIRE(first_len == second_len && memcmp(first_bytes, second_bytes, first_len) == 0);
	first_json = json(first);
	second_json = json(second);
	REQUIRE(strcmp(first_json, second_json) == 0);
	REQUIRE(message_json(first, true, &all) == 0 && strlen(all) >= strlen(first_json));
	free(all);
	free(first_json);
	free(second_json);
	free(first_bytes);
	free(second_bytes);
	protobuf_c_message_free_unpacked(first, NULL);
	protobuf_c_message_free_unpacked(second, NULL);
	return 0;
}
