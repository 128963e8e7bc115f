/* SPDX-License-Identifier: Apache-2.0
 * A frame header and a PUBLISH body: a decoded PUBLISH encodes to the same bytes, and keeps its
 * limits. */
#include "fuzz.h"
#include "protocol/frame.h"
#include "protocol/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t again[FRAME_HEADER_BYTES], *bytes;
	struct frame_header header;
	struct frame_publish publish;
	const char *why = NULL;
	struct sluice_slice body = {data, size};

	if (size < FRAME_HEADER_BYTES)
		return 0;
	if (frame_header_decode(data, LIMIT_FRAME_BYTES_MAX, &header, &why) == 0) {
		REQUIRE(header.body_bytes + FRAME_LENGTH_OVERHEAD <= LIMIT_FRAME_BYTES_MAX &&
			header.flags == 0);
		frame_header_encode(again, &header);
		REQUIRE(memcmp(again, data, sizeof(again)) == 0);
	} else {
		REQUIRE(why != NULL);
	}
	/* The body is decoded whatever the header says, so that more inputs reach the decoder. */
	(void)take_bytes(&body, FRAME_HEADER_BYTES);
	why = NULL;
	if (frame_publish_decode(body, &publish, &why) != 0) {
		REQUIRE(why != NULL);
		return 0;
	}
	REQUIRE(publish.count >= 1 && publish.count <= LIMIT_BATCH_EVENTS_MAX &&
		publish.raw_bytes <= LIMIT_BATCH_RAW_BYTES_MAX);
	REQUIRE(publish.subject.len <= LIMIT_SUBJECT_BYTES_MAX &&
		publish.target.len <= LIMIT_NAME_BYTES_MAX);
	REQUIRE(publish.first_seq + publish.count >= publish.first_seq);
	REQUIRE(frame_publish_size(&publish) == body.len);
	bytes = exactly(body.len);
	REQUIRE(frame_publish_encode(bytes, &publish) == body.len &&
		memcmp(bytes, body.data, body.len) == 0);
	free(bytes);
	return 0;
}
