/* SPDX-License-Identifier: Apache-2.0
 * Batches as a PUBLISH carries them: u8 flags (1 zstd, 2 a subject for all), u16 count, u32 raw
 * bytes, payload. */
#include "fuzz.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

static void walk(struct sluice_slice raw, uint32_t count, bool has_subject)
{
	int64_t min = 0, max = 0;
	const char *why = NULL;
	size_t bytes = 0;

	if (batch_check(raw, count, has_subject, &min, &max, &why) != 0) {
		REQUIRE(why != NULL);
		return;
	}
	REQUIRE(count <= LIMIT_BATCH_EVENTS_MAX && (count == 0 || min <= max));
	for (struct sluice_slice rest = raw; rest.len > 0; count--) {
		struct envelope envelope;

		REQUIRE(envelope_next(&rest, &envelope, &why) == 0 && count > 0);
		REQUIRE((envelope.subject.len == 0) == has_subject);
		REQUIRE(envelope.time_delta_ms >= min && envelope.time_delta_ms <= max);
		REQUIRE(has_subject || subject_check(envelope.subject, &why) == 0);
		bytes += envelope.encoded.len;
	}
	REQUIRE(count == 0 && bytes == raw.len);
}

/* A batch that is compressed here decompresses to the same bytes. */
static void pack(struct sluice_slice raw)
{
	size_t room = raw.len + 512, len;
	uint8_t *packed = exactly(room), *back = NULL;
	const char *why = NULL;

	len = batch_compress(packed, room, raw);
	REQUIRE(len < raw.len || len == 0);
	if (len > 0) {
		REQUIRE(batch_decompress((struct sluice_slice){packed, len}, (uint32_t)raw.len,
					 &back, &why) == 0);
		REQUIRE(memcmp(back, raw.data, raw.len) == 0);
		free(back);
	}
	free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sluice_slice in = {data, size};
	uint8_t flags = (uint8_t)take_number(&in, 1);
	uint32_t count = (uint32_t)take_number(&in, 2);
	uint32_t raw_bytes = (uint32_t)take_number(&in, 4);
	uint8_t *raw = NULL;
	const char *why = NULL;

	if (!(flags & 1)) {
		walk(in, count, (flags & 2) != 0);
		pack(in);
		return 0;
	}
	if (batch_decompress(in, raw_bytes, &raw, &why) != 0) {
		REQUIRE(why != NULL && raw == NULL);
		return 0;
	}
	REQUIRE(raw_bytes <= LIMIT_BATCH_RAW_BYTES_MAX);
	walk((struct sluice_slice){raw, raw_bytes}, count, (flags & 2) != 0);
	free(raw);
	return 0;
}
