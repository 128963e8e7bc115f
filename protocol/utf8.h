/* SPDX-License-Identifier: Apache-2.0
 * UTF-8 as the protocol means it: no overlong forms, no surrogates, nothing beyond U+10FFFF.
 * Pure. */
#ifndef SLUICE_PROTOCOL_UTF8_H
#define SLUICE_PROTOCOL_UTF8_H

#include <stdbool.h>

#include "sluice/types.h"

/* Bytes of the sequence at `at` (left >= 1 bytes are there), 0 when it is none. */
static inline size_t utf8_length(const uint8_t *at, size_t left)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t point;
	size_t len;

	if (at[0] < 0x80)
		return 1;
	len = (at[0] & 0xe0) == 0xc0   ? 2
	      : (at[0] & 0xf0) == 0xe0 ? 3
	      : (at[0] & 0xf8) == 0xf0 ? 4
				       : 0;
	if (len == 0 || len > left)
		return 0;
	point = at[0] & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (at[i] & 0x3f);
	}
	if (point < least[len] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
		return 0;
	return len;
}

/* Whether all of it is UTF-8 without NUL, so that it may stand in a C string. Empty is. */
static inline bool utf8_valid(struct sluice_slice text)
{
	const uint8_t *at = text.data;

	for (size_t i = 0; i < text.len;) {
		size_t len = utf8_length(at + i, text.len - i);

		if (len == 0 || at[i] == 0)
			return false;
		i += len;
	}
	return true;
}

#endif
