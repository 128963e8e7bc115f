/* SPDX-License-Identifier: Apache-2.0
 * DELIVER, from the client's side. */
#include "fuzz.h"
#include "protocol/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sluice_slice body = {data, size};
	struct frame_deliver deliver;
	struct frame_run *runs;
	const char *why = NULL;
	uint8_t *bytes;
	size_t head;

	if (frame_deliver_decode(body, &deliver, &why) != 0) {
		REQUIRE(why != NULL);
		return 0;
	}
	runs = exactly(deliver.run_count * sizeof(*runs));
	for (size_t i = 0; i < deliver.run_count; i++)
		runs[i] = frame_run_at(deliver.runs, i);
	head = frame_deliver_head_size(&deliver);
	REQUIRE(head + deliver.payload.len == size);
	bytes = exactly(head);
	REQUIRE(frame_deliver_head_encode(bytes, &deliver, runs) == head &&
		memcmp(bytes, data, head) == 0);
	free(bytes);
	free(runs);
	return 0;
}
