/* SPDX-License-Identifier: Apache-2.0
 * See payload_bytes.h. The private characters are U+10FE80 to U+10FEFF: F4 8F BA 80 to F4 8F BB
 * BF. */
#include "payload_bytes.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PRIVATE_BYTES = 4 };

/* Bytes of the UTF-8 character here, 0: it is none. */
static size_t character(const uint8_t *at, size_t left)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t len = at[0] < 0x80	      ? 1
		     : (at[0] & 0xe0) == 0xc0 ? 2
		     : (at[0] & 0xf0) == 0xe0 ? 3
		     : (at[0] & 0xf8) == 0xf0 ? 4
					      : 0;
	uint32_t point;

	if (len < 2 || len > left)
		return len == 1 ? 1 : 0;
	point = at[0] & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (at[i] & 0x3f);
	}
	return point < least[len] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff) ? 0
											      : len;
}

static bool is_private(const uint8_t *at)
{
	return at[0] == 0xf4 && at[1] == 0x8f && (at[2] == 0xba || at[2] == 0xbb);
}

static char *hide(char *to, uint8_t byte)
{
	to[0] = (char)0xf4;
	to[1] = (char)0x8f;
	to[2] = (char)(byte < 0xc0 ? 0xba : 0xbb);
	to[3] = (char)(0x80 | (byte & 0x3f));
	return to + PRIVATE_BYTES;
}

/* The number of an escape \uXXXX at `at`; -1: it is another. */
static long escape(const char *at, size_t left)
{
	char digits[5] = "", *end;
	long number;

	if (left < 6 || at[0] != '\\' || at[1] != 'u')
		return -1;
	memcpy(digits, at + 2, 4);
	if (strspn(digits, "0123456789abcdefABCDEF") != 4)
		return -1;
	number = strtol(digits, &end, 16);
	return number;
}

/* An escape, or two that are one character; the bytes of it that were read. */
static size_t take_escape(const char *at, size_t left, char **io_to)
{
	long first = escape(at, left), second;
	size_t used = left < 2 ? left : 2;

	if (first >= 0)
		used = 6;
	if (first >= 0xdc80 && first <= 0xdcff) {
		*io_to = hide(*io_to, (uint8_t)first);
		return used;
	}
	second = first >= 0xd800 && first < 0xdc00 ? escape(at + 6, left - 6) : -1;
	if (second >= 0xdc00 && second < 0xe000) {
		used = 12;
		/* \udbff\ude80 to \udbff\udeff are the private ones. */
		if (first == 0xdbff && second >= 0xde80 && second <= 0xdeff) {
			*io_to = hide(*io_to, 0xf4);
			*io_to = hide(*io_to, 0x8f);
			*io_to = hide(*io_to, second < 0xdec0 ? 0xba : 0xbb);
			*io_to = hide(*io_to, (uint8_t)(0x80 | (second & 0x3f)));
			return used;
		}
	}
	memcpy(*io_to, at, used);
	*io_to += used;
	return used;
}

char *payload_bytes_hide(const char *text, size_t len, size_t *ret_len)
{
	/* At most one byte becomes four, and twelve sixteen. */
	char *hidden = malloc(len * PRIVATE_BYTES + 1), *to = hidden;

	for (size_t i = 0; hidden != NULL && i < len;) {
		const uint8_t *at = (const uint8_t *)text + i;
		size_t step;

		if (*at == '\\') {
			i += take_escape(text + i, len - i, &to);
			continue;
		}
		step = character(at, len - i);
		if (step == 0 || (step == PRIVATE_BYTES && is_private(at))) {
			to = hide(to, *at);
			i++;
			continue;
		}
		memcpy(to, at, step);
		to += step;
		i += step;
	}
	if (hidden != NULL)
		*ret_len = (size_t)(to - hidden);
	return hidden;
}

void payload_bytes_restore(char *string)
{
	char *to = string;

	for (const uint8_t *at = (const uint8_t *)string; *at != 0;) {
		if (is_private(at)) {
			*to++ = (char)(0x80 | (at[2] == 0xbb ? 0x40 : 0) | (at[3] & 0x3f));
			at += PRIVATE_BYTES;
		} else {
			*to++ = (char)*at++;
		}
	}
	*to = 0;
}
