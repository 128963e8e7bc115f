/* SPDX-License-Identifier: Apache-2.0
 * ACK, ACKED and CREDIT: each of them tries the same bytes. */
#include "fuzz.h"
#include "protocol/frame.h"
#include "protocol/limits.h"

static void ack(struct sluice_slice body)
{
	struct frame_run *runs;
	struct frame_ack ack;
	const char *why = NULL;
	uint8_t *bytes;

	if (frame_ack_decode(body, &ack, &why) != 0) {
		REQUIRE(why != NULL);
		return;
	}
	REQUIRE(ack.run_count <= LIMIT_ACK_RUNS_MAX && ack.reason.len <= LIMIT_TEXT_BYTES_MAX &&
		ack_op_known(ack.op));
	runs = exactly(ack.run_count * sizeof(*runs));
	for (size_t i = 0; i < ack.run_count; i++)
		runs[i] = frame_run_at(ack.runs, i);
	REQUIRE(frame_ack_size(&ack) == body.len);
	bytes = exactly(body.len);
	REQUIRE(frame_ack_encode(bytes, &ack, runs) == body.len &&
		memcmp(bytes, body.data, body.len) == 0);
	free(bytes);
	free(runs);
}

static void acked(struct sluice_slice body)
{
	struct frame_acked acked;
	const char *why = NULL;
	uint8_t *bytes;

	if (frame_acked_decode(body, &acked, &why) != 0) {
		REQUIRE(why != NULL);
		return;
	}
	REQUIRE(frame_acked_size(&acked) == body.len);
	bytes = exactly(body.len);
	REQUIRE(frame_acked_encode(bytes, &acked) == body.len &&
		memcmp(bytes, body.data, body.len) == 0);
	free(bytes);
}

static void credit(struct sluice_slice body)
{
	struct frame_credit credit;
	uint8_t bytes[FRAME_CREDIT_BYTES];
	const char *why = NULL;

	if (frame_credit_decode(body, &credit, &why) != 0) {
		REQUIRE(why != NULL && body.len != FRAME_CREDIT_BYTES);
		return;
	}
	frame_credit_encode(bytes, &credit);
	REQUIRE(body.len == sizeof(bytes) && memcmp(bytes, body.data, sizeof(bytes)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sluice_slice body = {data, size};

	ack(body);
	acked(body);
	credit(body);
	return 0;
}
