/* SPDX-License-Identifier: Apache-2.0
 * Lines of text to the peer. */
#include "tests/line/face/line.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void line_put(struct conn *conn, const void *bytes, size_t len)
{
	/* A peer that does not read is closed at the bound. */
	(void)door_write(conn, &(struct sluice_slice){bytes, len}, 1);
}

void line_say(struct conn *conn, const char *format, ...)
{
	char text[LINE_BYTES_MAX];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (len < 0 || door_is_dead(conn))
		return;
	len = len < (int)sizeof(text) ? len : (int)sizeof(text) - 1;
	text[len] = '\n';
	line_put(conn, text, (size_t)len + 1);
}

void line_answer(struct conn *conn, uint64_t tag, int code, const char *text)
{
	line_say(conn, "%llu %s%s%s", (unsigned long long)tag,
		 code == 0 ? "OK" : sluice_error_name(code), text[0] != 0 ? " " : "", text);
}

/* Of a tag: the answer is text. */
static const uint64_t IS_TEXT = (uint64_t)1 << 63;

void line_answer_shown(struct conn *conn, uint64_t tag, int code, const char *text, uint64_t number)
{
	char *copy;

	if (door_answer_is_due(conn, number)) {
		line_answer(conn, tag, code, text);
		return;
	}
	copy = strdup(text);
	if (copy == NULL)
		door_abort(conn, "no memory for an answer");
	else
		door_answer(conn, tag | IS_TEXT, code, (uint8_t *)copy, strlen(copy) + 1, number);
}

static void hex_put(struct conn *conn, const uint8_t *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	char text[512];

	for (size_t from = 0; from < len; from += sizeof(text) / 2) {
		size_t n = len - from < sizeof(text) / 2 ? len - from : sizeof(text) / 2;

		for (size_t i = 0; i < n; i++) {
			text[2 * i] = digits[bytes[from + i] >> 4];
			text[2 * i + 1] = digits[bytes[from + i] & 15];
		}
		line_put(conn, text, 2 * n);
	}
}

void line_answer_reply(struct conn *conn, uint64_t tag, int code, const uint8_t *reply, size_t len,
		       const char *text)
{
	char head[64];
	int n = snprintf(head, sizeof(head), "%llu %s ", (unsigned long long)tag,
			 code == 0 ? "OK" : sluice_error_name(code));

	line_put(conn, head, (size_t)n);
	if (reply != NULL)
		hex_put(conn, reply, len);
	else
		line_put(conn, "-", 1);
	if (text[0] != 0)
		line_put(conn, " ", 1);
	line_put(conn, text, strlen(text));
	line_put(conn, "\n", 1);
}

void line_due(struct conn *conn, uint64_t tag, int code, const uint8_t *reply, size_t len)
{
	if (door_is_ending(conn))
		return;
	if ((tag & IS_TEXT) != 0 || code != 0)
		line_answer(conn, tag & ~IS_TEXT, code,
			    reply != NULL ? (const char *)reply : sluice_error_text(code));
	else
		line_answer_reply(conn, tag, 0, reply, len, "");
}
