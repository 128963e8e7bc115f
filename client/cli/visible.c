/* SPDX-License-Identifier: Apache-2.0
 * See visible.h. One filter below stdio, so that no command can forget it. */
#include "visible.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes of a character by its first one; 0: no character begins so. */
static size_t length_of(unsigned char first)
{
	return first < 0x80   ? 1
	       : first < 0xc2 ? 0
	       : first < 0xe0 ? 2
	       : first < 0xf0 ? 3
	       : first < 0xf5 ? 4
			      : 0;
}

static uint32_t point_of(const unsigned char *at, size_t len)
{
	uint32_t point = len == 1 ? at[0] : at[0] & (0xffu >> (len + 1));

	for (size_t i = 1; i < len; i++)
		point = point << 6 | (at[i] & 0x3f);
	return point;
}

/* Overlong forms, surrogates and values beyond Unicode are not characters. */
static bool is_character(uint32_t point, size_t len)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

	return point >= least[len] && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
}

/* Characters that reorder the text around them. */
static bool turns_direction(uint32_t point)
{
	return (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069) ||
	       point == 0x200e || point == 0x200f;
}

static void put_bytes(FILE *to, const unsigned char *at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		(void)fprintf(to, "\\x%02x", at[i]);
}

static void put_character(FILE *to, const unsigned char *at, size_t len)
{
	uint32_t point = point_of(at, len);

	if (!is_character(point, len))
		put_bytes(to, at, len);
	else if ((point < 0x20 && point != '\n' && point != '\t') || point == 0x7f)
		put_bytes(to, at, 1);
	else if ((point >= 0x80 && point < 0xa0) || turns_direction(point))
		(void)fprintf(to, "\\u%04x", point);
	else
		(void)fwrite(at, 1, len, to);
}

void visible_write(struct visible *visible, FILE *to, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char byte = (unsigned char)bytes[i];

		if (visible->part_bytes > 0 && (byte & 0xc0) != 0x80)
			visible_end(visible, to);
		if (visible->part_bytes == 0 && length_of(byte) == 0) {
			put_bytes(to, &byte, 1);
			continue;
		}
		visible->part[visible->part_bytes++] = byte;
		if (visible->part_bytes == length_of(visible->part[0])) {
			put_character(to, visible->part, visible->part_bytes);
			visible->part_bytes = 0;
		}
	}
}

void visible_end(struct visible *visible, FILE *to)
{
	put_bytes(to, visible->part, visible->part_bytes);
	visible->part_bytes = 0;
}

/* ---- below stdio ---- */

struct terminal {
	struct visible visible;
	FILE *to; /* the unfiltered stream of the descriptor */
};

static ssize_t terminal_write(void *cookie, const char *bytes, size_t len)
{
	struct terminal *terminal = cookie;

	visible_write(&terminal->visible, terminal->to, bytes, len);
	/* An incomplete character is not held back beyond the output that it belongs to. */
	return fflush(terminal->to) == 0 ? (ssize_t)len : 0;
}

static void filter(FILE **io_stream, struct terminal *terminal, int buffering)
{
	FILE *filtered =
		fopencookie(terminal, "w", (cookie_io_functions_t){.write = terminal_write});

	/* Without memory the command continues; it will soon fail. */
	if (filtered == NULL)
		return;
	(void)setvbuf(filtered, NULL, buffering, BUFSIZ);
	terminal->to = *io_stream;
	(void)setvbuf(*io_stream, NULL, _IOFBF, BUFSIZ);
	*io_stream = filtered;
}

void visible_terminals(void)
{
	static struct terminal out, err;

	if (isatty(STDOUT_FILENO) == 1)
		filter(&stdout, &out, _IOLBF);
	if (isatty(STDERR_FILENO) == 1)
		filter(&stderr, &err, _IONBF); /* a question is not followed by a newline */
}
