/* SPDX-License-Identifier: Apache-2.0
 * See json.h. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

/* The end of the string that begins at pos. */
static size_t string_end(const char *at, size_t len, size_t pos)
{
	for (pos++; pos < len && at[pos] != '"'; pos++)
		pos += at[pos] == '\\';
	return pos < len ? pos + 1 : len;
}

static size_t value_end(const char *at, size_t len, size_t pos)
{
	int depth = 0;

	while (pos < len) {
		char c = at[pos];

		if (c == '"') {
			pos = string_end(at, len, pos);
			if (depth == 0)
				return pos;
			continue;
		}
		if (depth == 0 && (c == ',' || c == '}' || c == ']'))
			return pos;
		depth += (c == '{' || c == '[') - (c == '}' || c == ']');
		pos++;
		if (depth == 0 && (c == '}' || c == ']'))
			return pos;
	}
	return len;
}

struct json json_of(const char *text)
{
	return (struct json){text, text != NULL ? strlen(text) : 0};
}

bool json_each(struct json list, size_t *io_pos, struct json *ret_name, struct json *ret_value)
{
	size_t pos = *io_pos == 0 ? 1 : *io_pos, end;

	if (list.len < 2 || (list.at[0] != '{' && list.at[0] != '['))
		return false;
	if (pos < list.len && list.at[pos] == ',')
		pos++;
	if (pos >= list.len - 1)
		return false;
	if (list.at[0] == '{') {
		end = string_end(list.at, list.len, pos);
		if (ret_name != NULL)
			*ret_name = (struct json){list.at + pos, end - pos};
		pos = end + 1; /* the colon */
	}
	if (pos >= list.len)
		return false;
	end = value_end(list.at, list.len, pos);
	*ret_value = (struct json){list.at + pos, end - pos};
	*io_pos = end;
	return true;
}

struct json json_get(struct json object, const char *name)
{
	struct json key = {NULL, 0}, value;
	size_t pos = 0, len = strlen(name);

	if (object.len == 0 || object.at[0] != '{')
		return (struct json){NULL, 0};
	while (json_each(object, &pos, &key, &value))
		if (key.len == len + 2 && memcmp(key.at + 1, name, len) == 0)
			return value;
	return (struct json){NULL, 0};
}

/* One \uXXXX as UTF-8; surrogates are not joined, the library writes none. */
static size_t put_code(char *to, const char *hex)
{
	char four[5] = {hex[0], hex[1], hex[2], hex[3], 0};
	unsigned long code = strtoul(four, NULL, 16);

	if (code < 0x80) {
		to[0] = code != 0 ? (char)code : '?'; /* a NUL would end the text */
		return 1;
	}
	if (code < 0x800) {
		to[0] = (char)(0xc0 | (code >> 6));
		to[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	to[0] = (char)(0xe0 | (code >> 12));
	to[1] = (char)(0x80 | ((code >> 6) & 0x3f));
	to[2] = (char)(0x80 | (code & 0x3f));
	return 3;
}

const char *json_plain(struct json value, char *buf, size_t bytes)
{
	static const char plain[] = "bfnrt", codes[] = "\b\f\n\r\t";
	bool quoted = value.len >= 2 && value.at[0] == '"';
	size_t used = 0, stop = quoted ? value.len - 1 : value.len;

	for (size_t i = quoted ? 1 : 0; i < stop && used + 4 < bytes; i++) {
		const char *escape;

		if (!quoted || value.at[i] != '\\' || i + 1 >= stop) {
			buf[used++] = value.at[i];
			continue;
		}
		i++;
		escape = strchr(plain, value.at[i]);
		if (value.at[i] == 'u' && i + 4 < stop) {
			used += put_code(buf + used, value.at + i + 1);
			i += 4;
		} else {
			buf[used++] = escape != NULL ? codes[escape - plain] : value.at[i];
		}
	}
	/* Cuts between characters, not inside one. */
	if (used + 4 >= bytes)
		while (used > 0 && ((unsigned char)buf[used - 1] & 0xc0) == 0x80)
			used--;
	if (used + 4 >= bytes && used > 0 && (unsigned char)buf[used - 1] >= 0xc0)
		used--;
	buf[used] = 0;
	return buf;
}

uint64_t json_number(struct json value)
{
	char text[32];

	return strtoull(json_plain(value, text, sizeof(text)), NULL, 10);
}

/* ---- writing ---- */

/* Length of the well-formed UTF-8 character here; 0: it is not one. */
static size_t utf8_len(const unsigned char *at, size_t left)
{
	static const struct {
		unsigned char first_min, first_max, second_min, second_max, len;
	} rows[] = {{0x00, 0x7f, 0, 0, 1},	 {0xc2, 0xdf, 0x80, 0xbf, 2},
		    {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
		    {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
		    {0xf4, 0xf4, 0x80, 0x8f, 4}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t len = rows[i].len;

		if (at[0] < rows[i].first_min || at[0] > rows[i].first_max)
			continue;
		if (len > left ||
		    (len > 1 && (at[1] < rows[i].second_min || at[1] > rows[i].second_max)))
			return 0;
		for (size_t k = 2; k < len; k++)
			if ((at[k] & 0xc0) != 0x80)
				return 0;
		return len;
	}
	return 0;
}

static bool is_utf8(const unsigned char *at, size_t len)
{
	for (size_t i = 0; i < len;) {
		size_t step = utf8_len(at + i, len - i);

		if (step == 0)
			return false;
		i += step;
	}
	return true;
}

void json_put_text(FILE *file, const void *bytes, size_t len)
{
	const unsigned char *at = bytes;
	bool utf8 = is_utf8(at, len);

	(void)fputc('"', file);
	for (size_t i = 0; i < len; i++) {
		if (at[i] == '"' || at[i] == '\\')
			(void)fprintf(file, "\\%c", at[i]);
		else if (at[i] < 0x20 || at[i] == 0x7f || (at[i] >= 0x80 && !utf8))
			(void)fprintf(file, "\\u%04x", at[i]);
		else
			(void)fputc(at[i], file);
	}
	(void)fputc('"', file);
}

static void put_base64(FILE *file, const unsigned char *at, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i += 3) {
		unsigned group = (unsigned)at[i] << 16;

		if (i + 1 < len)
			group |= (unsigned)at[i + 1] << 8;
		if (i + 2 < len)
			group |= at[i + 2];
		(void)fputc(digits[group >> 18], file);
		(void)fputc(digits[(group >> 12) & 63], file);
		(void)fputc(i + 1 < len ? digits[(group >> 6) & 63] : '=', file);
		(void)fputc(i + 2 < len ? digits[group & 63] : '=', file);
	}
}

void json_put_member(FILE *file, const char *name, const void *bytes, size_t len)
{
	if (is_utf8(bytes, len)) {
		(void)fprintf(file, "\"%s\":", name);
		json_put_text(file, bytes, len);
		return;
	}
	(void)fprintf(file, "\"%s_base64\":\"", name);
	put_base64(file, bytes, len);
	(void)fputc('"', file);
}

/* ---- a list ---- */

int json_list_begin(struct json_list *list, const char *name)
{
	*list = (struct json_list){.name = name};
	list->file = open_memstream(&list->text, &list->len);
	return list->file != NULL ? 0 : SLUICE_E_NOMEM;
}

int json_list_add(struct json_list *list, sluice_reply *page)
{
	const char *text = sluice_reply_json(page);
	struct json rows, row;
	size_t pos = 0;

	if (text == NULL)
		return SLUICE_E_NOMEM;
	rows = json_get(json_of(text), list->name);
	while (json_each(rows, &pos, NULL, &row)) {
		if (list->rows++ > 0)
			(void)fputc(',', list->file);
		(void)fwrite(row.at, 1, row.len, list->file);
	}
	list->index = sluice_reply_index(page);
	return ferror(list->file) ? SLUICE_E_NOMEM : 0;
}

int json_list_end(struct json_list *list, bool print)
{
	int rc = fclose(list->file) == 0 ? 0 : SLUICE_E_NOMEM;

	if (rc == 0 && print)
		(void)printf("{\"%s\":[%s],\"index\":%llu}\n", list->name, list->text,
			     (unsigned long long)list->index);
	free(list->text);
	return rc;
}
