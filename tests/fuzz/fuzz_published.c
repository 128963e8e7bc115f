/* SPDX-License-Identifier: Apache-2.0
 * PUBLISHED: answers one after the other. */
#include "fuzz.h"
#include "protocol/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sluice_slice rest = {data, size};

	(void)take_number(&rest, 2);
	for (;;) {
		struct sluice_slice from = rest;
		struct frame_published answer;
		const char *why = NULL;
		uint8_t *bytes;
		size_t len;

		if (frame_published_decode(&rest, &answer, &why) != 0) {
			REQUIRE(why != NULL && same(rest, from));
			return 0;
		}
		len = from.len - rest.len;
		REQUIRE(len == frame_published_size(&answer) && len >= FRAME_PUBLISHED_FIXED_BYTES);
		bytes = exactly(len);
		REQUIRE(frame_published_encode(bytes, &answer) == len &&
			memcmp(bytes, from.data, len) == 0);
		free(bytes);
	}
}
