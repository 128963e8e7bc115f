/* SPDX-License-Identifier: Apache-2.0
 * Texts around jobs: see text.h. */
#include <assert.h>
#include <stdio.h>

#include "broker/core/base/text.h"
#include "protocol/utf8.h"

static_assert(JOB_TOKEN_BYTES_MAX + 4 /* job. */ + 1 + 63 /* state */ <=
		      LIMIT_SIZE(SUBJECT_BYTES_MAX),
	      "an event's subject fits SUBJECT_BYTES_MAX");

int job_text_check(struct outcome *out, const char *what, const char *text, uint64_t bytes_max)
{
	size_t len = strlen(text);

	if (len > bytes_max)
		return refuse(out, SLUICE_E_LIMIT, "%s has %zu bytes; at most %llu", what, len,
			      (unsigned long long)bytes_max);
	if (!utf8_valid((struct sluice_slice){text, len}))
		return refuse(out, SLUICE_E_INVAL, "%s is not valid UTF-8", what);
	return 0;
}

size_t job_text_token(char *buf, const char *id, uint64_t number)
{
	static const char hex[] = "0123456789ABCDEF";
	static const bool special[256] = {['.'] = true, ['*'] = true, ['>'] = true,
					  ['#'] = true, ['%'] = true, [' '] = true};
	size_t n = 0;

	for (const char *c = id; *c != '\0'; c++) {
		bool escape = special[(uint8_t)*c];

		if (n + (escape ? 3 : 1) > JOB_TOKEN_BYTES_MAX) {
			char text[24];
			int len = snprintf(text, sizeof(text), "#%llu", (unsigned long long)number);

			memcpy(buf, text, (size_t)len);
			return (size_t)len;
		}
		if (escape) {
			buf[n++] = '%';
			buf[n++] = hex[(uint8_t)*c >> 4];
			buf[n++] = hex[(uint8_t)*c & 15];
		} else {
			buf[n++] = *c;
		}
	}
	return n;
}

char *job_text_json(char *at, const char *text)
{
	static const char hex[] = "0123456789abcdef";

	for (const char *c = text; *c != '\0'; c++) {
		uint8_t byte = (uint8_t)*c;

		if (byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7f) {
			*at++ = *c;
		} else if (byte == '"' || byte == '\\') {
			*at++ = '\\';
			*at++ = *c;
		} else if (byte == '\n') {
			*at++ = '\\';
			*at++ = 'n';
		} else {
			memcpy(at, "\\u00", 4);
			at[4] = hex[byte >> 4];
			at[5] = hex[byte & 15];
			at += 6;
		}
	}
	return at;
}
