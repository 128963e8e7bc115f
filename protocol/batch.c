/* SPDX-License-Identifier: Apache-2.0
 * Batches: checked as a whole, compressed as a whole. */
#include "protocol/envelope.h"

#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "protocol/limits.h"
#include "protocol/utf8.h"

static int headers_check(struct sluice_slice headers, const char **ret_why)
{
	struct sluice_slice name, value;
	size_t pos = 0;

	while (envelope_header_next(headers, &pos, &name, &value) == 1) {
		if (!utf8_valid(name) || !utf8_valid(value)) {
			*ret_why = "a header is not valid UTF-8, or holds a NUL";
			return SLUICE_E_PROTOCOL;
		}
	}
	return 0;
}

int batch_check(struct sluice_slice raw, uint32_t count, bool batch_has_subject,
		int64_t *ret_time_min, int64_t *ret_time_max, const char **ret_why)
{
	int64_t min = INT64_MAX, max = INT64_MIN;

	if (count > LIMIT_BATCH_EVENTS_MAX) {
		*ret_why = "more events than BATCH_EVENTS_MAX";
		return SLUICE_E_LIMIT;
	}
	for (uint32_t i = 0; i < count; i++) {
		struct envelope envelope;
		struct sluice_slice body;
		size_t plain = batch_has_subject ? envelope_plain(raw, &body) : 0;
		int rc;

		if (plain > 0) {
			int64_t delta = ((const uint8_t *)raw.data)[1];

			raw = (struct sluice_slice){(const uint8_t *)raw.data + plain,
						    raw.len - plain};
			min = delta < min ? delta : min;
			max = delta > max ? delta : max;
			continue;
		}
		rc = envelope_next(&raw, &envelope, ret_why);

		if (rc == 0 && batch_has_subject && envelope.subject.len > 0) {
			*ret_why = "an event has a subject of its own in a batch that has one";
			rc = SLUICE_E_PROTOCOL;
		}
		if (rc == 0 && envelope.headers.len > 0)
			rc = headers_check(envelope.headers, ret_why);
		if (rc == 0 && !batch_has_subject)
			rc = subject_check(envelope.subject, ret_why);
		if (rc != 0)
			return rc;
		min = envelope.time_delta_ms < min ? envelope.time_delta_ms : min;
		max = envelope.time_delta_ms > max ? envelope.time_delta_ms : max;
	}
	if (raw.len != 0) {
		*ret_why = "bytes follow the last event of the batch";
		return SLUICE_E_PROTOCOL;
	}
	if (ret_time_min != NULL)
		*ret_time_min = min;
	if (ret_time_max != NULL)
		*ret_time_max = max;
	return 0;
}

int batch_decompress(struct sluice_slice payload, uint32_t raw_bytes, uint8_t **ret_raw,
		     const char **ret_why)
{
	uint8_t *raw;
	size_t got;

	if (raw_bytes > LIMIT_BATCH_RAW_BYTES_MAX) {
		*ret_why = "the batch is larger than BATCH_RAW_BYTES_MAX";
		return SLUICE_E_LIMIT;
	}
	/* A frame that says its own size must say the same: no bomb is even begun. */
	if (payload.len == 0 || ZSTD_getFrameContentSize(payload.data, payload.len) != raw_bytes) {
		*ret_why = "the zstd frame's content size is missing or differs from raw bytes";
		return SLUICE_E_PROTOCOL;
	}
	if (ZSTD_findFrameCompressedSize(payload.data, payload.len) != payload.len) {
		*ret_why = "the payload is not exactly one zstd frame";
		return SLUICE_E_PROTOCOL;
	}
	raw = malloc((size_t)raw_bytes + 1);
	if (raw == NULL) {
		*ret_why = "out of memory";
		return SLUICE_E_NOMEM;
	}
	got = ZSTD_decompress(raw, raw_bytes, payload.data, payload.len);
	if (ZSTD_isError(got) && ZSTD_getErrorCode(got) == ZSTD_error_memory_allocation) {
		free(raw);
		*ret_why = "out of memory";
		return SLUICE_E_NOMEM;
	}
	if (ZSTD_isError(got) || got != raw_bytes) {
		free(raw);
		*ret_why = "the zstd frame is damaged";
		return SLUICE_E_PROTOCOL;
	}
	*ret_raw = raw;
	return 0;
}

size_t batch_compress(uint8_t *buf, size_t buf_bytes, struct sluice_slice raw)
{
	size_t bytes = ZSTD_compress(buf, buf_bytes, raw.data, raw.len, 1);

	return ZSTD_isError(bytes) || bytes >= raw.len ? 0 : bytes;
}
