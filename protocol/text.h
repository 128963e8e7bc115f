/* SPDX-License-Identifier: Apache-2.0
 *
 * Text for people out of any bytes: what a scheduler printed, what was cut to fit a buffer, what
 * comes in a fixed frame and is not checked. Everything that ends in a string of a control message
 * goes through here, because one byte that is not UTF-8 makes the whole message unreadable for a
 * strict reader. Pure, thread-safe.
 */
#ifndef SLUICE_PROTOCOL_TEXT_H
#define SLUICE_PROTOCOL_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "sluice/types.h"

/* Writes `from` as text to `to`, size >= 1 bytes with the NUL at the end. Each byte that belongs to
 * no valid UTF-8 character, and each NUL, becomes U+FFFD. What does not fit is cut off between two
 * characters. Returns the bytes of the text, without the NUL. */
size_t text_make(char *to, size_t size, struct sluice_slice from);

/* Bytes that text_make() needs for all of `from`, with the NUL. */
size_t text_size(struct sluice_slice from);

/* Makes valid text of the C string in its place and without a change of its length: each bad byte
 * becomes '?'. A character that was cut at the end is removed. For what was formatted into a fixed
 * buffer. */
void text_repair(char *text);

/* Cuts the C string to at most bytes_max bytes, between two characters. */
void text_cut(char *text, size_t bytes_max);

/* The same for `len` bytes that are no C string: each bad byte and each NUL becomes '?', also at
 * the end. Returns whether there was one. */
bool text_repair_bytes(void *bytes, size_t len);

#endif
