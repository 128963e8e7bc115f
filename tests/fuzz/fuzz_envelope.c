/* SPDX-License-Identifier: Apache-2.0
 * Envelopes, both ways: a decoded envelope encodes to the same bytes, and an encoded event decodes
 * to the same event. */
#include "fuzz.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

enum { PAIRS_MAX = 70000 };

static void headers_again(struct sluice_slice headers)
{
	static struct sluice_slice names[PAIRS_MAX], values[PAIRS_MAX];
	size_t n = 0, pos = 0;
	uint8_t *bytes;
	int rc;

	while ((rc = envelope_header_next(headers, &pos, &names[n], &values[n])) == 1)
		REQUIRE(++n < PAIRS_MAX);
	REQUIRE(rc == 0 && pos == headers.len);
	if (n == 0)
		return;
	bytes = exactly(headers.len);
	REQUIRE(envelope_headers_encode(NULL, names, values, n) == headers.len);
	REQUIRE(envelope_headers_encode(bytes, names, values, n) == headers.len &&
		memcmp(bytes, headers.data, headers.len) == 0);
	free(bytes);
}

static void decode(struct sluice_slice rest)
{
	for (;;) {
		struct sluice_slice from = rest;
		struct envelope envelope;
		const char *why = NULL;
		uint8_t *bytes;

		if (envelope_next(&rest, &envelope, &why) != 0) {
			REQUIRE(why != NULL && same(rest, from));
			return;
		}
		REQUIRE(envelope.encoded.data == from.data &&
			envelope.encoded.len + rest.len == from.len);
		bytes = exactly(envelope_size_max(&envelope));
		REQUIRE(envelope_encode(bytes, &envelope) == envelope.encoded.len &&
			memcmp(bytes, from.data, envelope.encoded.len) == 0);
		free(bytes);
		headers_again(envelope.headers);
	}
}

/* An event made of the input: lengths from its first bytes, contents from the rest. */
static void encode(struct sluice_slice in)
{
	struct envelope envelope = {.time_delta_ms = (int64_t)take_number(&in, 8)}, back;
	struct sluice_slice name, value, rest;
	uint8_t *headers, *bytes;
	const char *why = NULL;

	envelope.priority = (uint8_t)take_number(&in, 1);
	envelope.key = take_bytes(&in, (size_t)take_number(&in, 1));
	envelope.id = take_bytes(&in, (size_t)take_number(&in, 1));
	envelope.subject = take_bytes(&in, (size_t)take_number(&in, 1));
	name = take_bytes(&in, (size_t)take_number(&in, 1));
	value = take_bytes(&in, (size_t)take_number(&in, 2));
	headers = exactly(name.len + value.len + 16);
	if (name.len > 0)
		envelope.headers =
			(struct sluice_slice){headers,
					      envelope_headers_encode(headers, &name, &value, 1)};
	envelope.body = in;
	bytes = exactly(envelope_size_max(&envelope));
	rest = (struct sluice_slice){bytes, envelope_encode(bytes, &envelope)};
	REQUIRE(rest.len <= envelope_size_max(&envelope));
	if (envelope.headers.len <= LIMIT_EVENT_HEADERS_BYTES_MAX) {
		REQUIRE(envelope_next(&rest, &back, &why) == 0 && rest.len == 0);
		REQUIRE(back.time_delta_ms == envelope.time_delta_ms &&
			back.priority == envelope.priority);
		REQUIRE(same(back.body, envelope.body) && same(back.key, envelope.key) &&
			same(back.id, envelope.id));
		REQUIRE(same(back.headers, envelope.headers) &&
			same(back.subject, envelope.subject));
	}
	free(bytes);
	free(headers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	decode((struct sluice_slice){data, size});
	encode((struct sluice_slice){data, size});
	return 0;
}
