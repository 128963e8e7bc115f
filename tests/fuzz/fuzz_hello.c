/* SPDX-License-Identifier: Apache-2.0
 * The watch over the lengths in a TLS handshake: u8 (bit 0: encrypted after a ChangeCipherSpec), u8
 * size of the pieces, the peer's bytes. Its verdict must be that of a parser that has all bytes at
 * once, however they are cut. */
#include "broker/net/conn/hello_check.h"
#include "fuzz.h"
#include "protocol/limits.h"

enum { CIPHER = 20, HANDSHAKE = 22 };

/* Whether a message of these is too long. */
static bool is_too_long(struct sluice_slice messages)
{
	while (messages.len >= 4) {
		uint64_t len;

		(void)take_number(&messages, 1);
		len = take_number(&messages, 3);
		if (len > LIMIT_TLS_HELLO_BYTES_MAX)
			return true;
		(void)take_bytes(&messages, len);
	}
	return false;
}

static bool is_refused(struct sluice_slice bytes, bool encrypts)
{
	uint8_t *messages = exactly(bytes.len);
	size_t len = 0;
	bool refused = bytes.len > 0 && *(const uint8_t *)bytes.data != HANDSHAKE;

	while (!refused && bytes.len >= 5) {
		uint64_t type = take_number(&bytes, 1);
		struct sluice_slice record;

		(void)take_number(&bytes, 2);
		record = take_bytes(&bytes, take_number(&bytes, 2));
		if (type == CIPHER && encrypts)
			break;
		if (type != HANDSHAKE || record.len == 0)
			continue;
		memcpy(messages + len, record.data, record.len);
		len += record.len;
	}
	refused = refused || is_too_long((struct sluice_slice){messages, len});
	free(messages);
	return refused;
}

/* Each piece in memory of its own size. */
static const char *watched(struct sluice_slice bytes, size_t piece, bool encrypts)
{
	struct hello_check check = {0};
	const char *why = NULL;

	while (bytes.len > 0 && why == NULL) {
		struct sluice_slice next = take_bytes(&bytes, piece);
		uint8_t *copy = exactly(next.len);

		memcpy(copy, next.data, next.len);
		why = hello_check(&check, copy, next.len, encrypts);
		free(copy);
		REQUIRE(check.record_have < sizeof(check.record));
		REQUIRE(check.message_have < sizeof(check.message));
		REQUIRE(why != NULL || check.message_left <= LIMIT_TLS_HELLO_BYTES_MAX);
	}
	return why;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sluice_slice bytes = {data, size};
	bool encrypts = (take_number(&bytes, 1) & 1) != 0;
	size_t piece = take_number(&bytes, 1);
	const char *why = watched(bytes, SIZE_MAX, encrypts);

	REQUIRE((why != NULL) == is_refused(bytes, encrypts));
	REQUIRE(watched(bytes, piece != 0 ? piece : 1, encrypts) == why);
	return 0;
}
