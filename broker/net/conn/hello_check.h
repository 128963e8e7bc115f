/* SPDX-License-Identifier: Apache-2.0
 *
 * The length that the peer of a TLS handshake announces for its messages. OpenSSL allocates by that
 * length before the message is there: 11 bytes would hold 200 KiB. So the bytes on their way to it
 * are watched, and a message that is too long ends the handshake before it is announced to it.
 */
#ifndef SLUICE_NET_HELLO_CHECK_H
#define SLUICE_NET_HELLO_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed before its first use. */
struct hello_check {
	uint8_t record[5], message[4]; /* headers, as far as they are there */
	uint8_t record_have, message_have;
	uint16_t record_left;
	uint32_t message_left;
	bool begun, done;
};

/* Why the bytes are refused, of static storage; NULL: they are not. encrypts_soon: what follows a
 * ChangeCipherSpec is encrypted (TLS 1.2), so nothing is checked from there on. */
const char *hello_check(struct hello_check *check, const uint8_t *bytes, size_t len,
			bool encrypts_soon);

#endif
