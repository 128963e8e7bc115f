/* SPDX-License-Identifier: Apache-2.0
 * See hello_check.h. A stream of records (type, version, u16 length), those of type 22 a stream of
 * messages (type, u24 length). */
#include "broker/net/conn/hello_check.h"

#include <string.h>

#include "protocol/limits.h"

enum { RECORD_CIPHER = 20, RECORD_HANDSHAKE = 22 };

/* Fills a header; returns how many bytes it took. */
static size_t fill(uint8_t *header, uint8_t size, uint8_t *io_have, const uint8_t *bytes,
		   size_t len)
{
	size_t lacks = (size_t)(size - *io_have), taken = len < lacks ? len : lacks;

	memcpy(header + *io_have, bytes, taken);
	*io_have = (uint8_t)(*io_have + taken);
	return taken;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Bytes of a record of the handshake, at least one. */
static const char *on_messages(struct hello_check *check, const uint8_t *bytes, size_t len)
{
	while (len > 0) {
		size_t taken = smaller(len, check->message_left);

		if (taken == 0) {
			taken = fill(check->message, sizeof(check->message), &check->message_have,
				     bytes, len);
			if (check->message_have == sizeof(check->message)) {
				check->message_have = 0;
				check->message_left = (uint32_t)check->message[1] << 16 |
						      (uint32_t)check->message[2] << 8 |
						      check->message[3];
			}
			if (check->message_left > LIMIT_TLS_HELLO_BYTES_MAX)
				return "a message of the handshake is too long";
		} else {
			check->message_left -= (uint32_t)taken;
		}
		bytes += taken;
		len -= taken;
	}
	return NULL;
}

const char *hello_check(struct hello_check *check, const uint8_t *bytes, size_t len,
			bool encrypts_soon)
{
	const char *why = NULL;

	while (len > 0 && !check->done && why == NULL) {
		size_t taken = smaller(len, check->record_left);

		if (taken == 0) {
			taken = fill(check->record, sizeof(check->record), &check->record_have,
				     bytes, len);
			if (!check->begun && check->record[0] != RECORD_HANDSHAKE)
				why = "these are no bytes of TLS";
			check->begun = true;
			if (check->record_have == sizeof(check->record)) {
				check->record_have = 0;
				check->record_left =
					(uint16_t)(check->record[3] << 8 | check->record[4]);
				check->done = check->record[0] == RECORD_CIPHER && encrypts_soon;
			}
		} else {
			if (check->record[0] == RECORD_HANDSHAKE)
				why = on_messages(check, bytes, taken);
			check->record_left = (uint16_t)(check->record_left - taken);
		}
		bytes += taken;
		len -= taken;
	}
	return why;
}
