/* SPDX-License-Identifier: Apache-2.0
 * Control messages: u8 which message, then its bytes. What unpacks packs canonically (packing, unpacking and
 * packing again gives the same bytes), and its JSON is one line and the same both times. */
#include "fuzz.h"
#include "protocol/limits.h"
#include "protocol/message.h"
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

	REQUIRE(message_json(message, false, &shown) == 0 && shown[0] == '{' && strchr(shown, '\n') == NULL);
	return shown;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const ProtobufCMessageDescriptor *const descriptors[] = {&sluice__request__descriptor,
									&sluice__hello__descriptor,
									&sluice__reply__descriptor,
									&sluice__welcome__descriptor,
									&sluice__notice__descriptor,
									&sluice__job_deliveries__descriptor,
									&sluice__job_submit__descriptor,
									&sluice__txn__descriptor};
	struct sluice_slice in = {data, size};
	const ProtobufCMessageDescriptor *descriptor = descriptors[take_number(&in, 1) % 8];
	ProtobufCMessage *first = NULL, *second = NULL;
	size_t first_len, second_len;
	uint8_t *first_bytes, *second_bytes;
	char *first_json, *second_json, *all = NULL;
	const char *why = NULL;

	if (message_unpack(descriptor, in, LIMIT_COMMAND_BYTES_MAX, &first, &why) != 0) {
		REQUIRE(why != NULL && first == NULL);
		return 0;
	}
	first_bytes = pack(first, &first_len);
	REQUIRE(first_len <=
		3 * in.len); /* the worst: a negative enum, which 5 bytes can say and 10 are written for */
	REQUIRE(message_unpack(descriptor, (struct sluice_slice){first_bytes, first_len}, UINT64_MAX, &second,
			       &why) == 0);
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
