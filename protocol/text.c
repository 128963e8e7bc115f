/* SPDX-License-Identifier: Apache-2.0
 * See text.h. */
#include "protocol/text.h"

#include <string.h>

#include "protocol/utf8.h"

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
enum { REPLACEMENT_BYTES = sizeof(replacement) - 1 };

/* Bytes of the character at `at`, 0 when it is none that a C string can hold. */
static size_t character(const uint8_t *at, size_t left)
{
	return at[0] == 0 ? 0 : utf8_length(at, left);
}

size_t text_size(struct sluice_slice from)
{
	const uint8_t *at = from.data;
	size_t size = 1;

	for (size_t i = 0; i < from.len;) {
		size_t len = character(at + i, from.len - i);

		size += len != 0 ? len : REPLACEMENT_BYTES;
		i += len != 0 ? len : 1;
	}
	return size;
}

size_t text_make(char *to, size_t size, struct sluice_slice from)
{
	const uint8_t *at = from.data;
	size_t used = 0;

	for (size_t i = 0; i < from.len;) {
		size_t len = character(at + i, from.len - i);
		size_t bytes = len != 0 ? len : REPLACEMENT_BYTES;

		if (used + bytes > size - 1)
			break;
		memcpy(to + used, len != 0 ? (const void *)(at + i) : replacement, bytes);
		used += bytes;
		i += len != 0 ? len : 1;
	}
	to[used] = '\0';
	return used;
}

bool text_repair_bytes(void *bytes, size_t len)
{
	uint8_t *at = bytes;
	bool bad = false;

	for (size_t i = 0; i < len;) {
		size_t step = character(at + i, len - i);

		if (step == 0) {
			at[i] = '?';
			bad = true;
			step = 1;
		}
		i += step;
	}
	return bad;
}

void text_cut(char *text, size_t bytes_max)
{
	size_t len = strlen(text), begin = bytes_max;

	if (len <= bytes_max)
		return;
	/* Back over continuation bytes, to the byte that begins the character which the cut would
	 * go through. */
	while (begin > 0 && bytes_max - begin < 3 && ((uint8_t)text[begin] & 0xc0) == 0x80)
		begin--;
	text[utf8_length((const uint8_t *)text + begin, len - begin) > bytes_max - begin
		     ? begin
		     : bytes_max] = '\0';
}

void text_repair(char *text)
{
	size_t len = strlen(text), tail = 0;

	while (tail < 3 && tail < len && ((uint8_t)text[len - 1 - tail] & 0xc0) == 0x80)
		tail++;
	if (tail < len && (uint8_t)text[len - 1 - tail] >= 0xc0 &&
	    utf8_length((uint8_t *)text + len - 1 - tail, tail + 1) == 0) {
		len -= tail + 1;
		text[len] = '\0';
	}
	(void)text_repair_bytes(text, len);
}
