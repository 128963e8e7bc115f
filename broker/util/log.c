/* SPDX-License-Identifier: Apache-2.0
 *
 * Formats log lines and writes each with one system call.
 *
 * The settings are three atomics, not a lock: a line that races with log_configure() may use the
 * new format with the old descriptor, which does no harm. A line must never be torn; one bounded
 * write(2) ensures that.
 */
#include "broker/util/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "broker/util/clock.h"

static_assert(LOG_LINE_BYTES_MAX <= PIPE_BUF, "a line must reach a pipe in one piece");

/* Upper bound for the end of a line: the mark of a truncated line, a brace and the newline. */
#define TAIL_BYTES 32

static atomic_int out_fd = STDERR_FILENO;
static atomic_int out_level = LOG_LEVEL_INFO;
static atomic_int out_format = LOG_FORMAT_LOGFMT;

static atomic_uint lost_lines; /* lines that failed since the last one that was written */
static atomic_bool is_cut;     /* the last line was written in part */

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

static const char *const format_names[] = {
	[LOG_FORMAT_LOGFMT] = "logfmt",
	[LOG_FORMAT_JSON] = "json",
};

/* A line under construction. Once `full`, appending has no effect; the start of the field is then
 * restored. */
struct line {
	char text[LOG_LINE_BYTES_MAX];
	size_t len;
	bool full;
	bool json;
};

static void append(struct line *line, const char *text, size_t len)
{
	if (line->full || len > sizeof(line->text) - TAIL_BYTES - line->len) {
		line->full = true;
		return;
	}
	memcpy(line->text + line->len, text, len);
	line->len += len;
}

static void append_text(struct line *line, const char *text)
{
	append(line, text, strlen(text));
}

/*
 * The length of the well-formed UTF-8 sequence at `at` (1 to 4 bytes, overlong forms and surrogates
 * excluded), or 0 if the bytes are not one. A NUL never continues a sequence, so this stays inside
 * a C string.
 */
static size_t utf8_len(const unsigned char *at)
{
	size_t len;
	unsigned low = 0x80, high = 0xBF;

	if (at[0] < 0x80)
		return 1;
	if (at[0] >= 0xC2 && at[0] <= 0xDF) {
		len = 2;
	} else if (at[0] >= 0xE0 && at[0] <= 0xEF) {
		len = 3;
		low = at[0] == 0xE0 ? 0xA0 : low;
		high = at[0] == 0xED ? 0x9F : high;
	} else if (at[0] >= 0xF0 && at[0] <= 0xF4) {
		len = 4;
		low = at[0] == 0xF0 ? 0x90 : low;
		high = at[0] == 0xF4 ? 0x8F : high;
	} else {
		return 0;
	}
	if (at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if ((at[i] & 0xC0) != 0x80)
			return 0;
	}
	return len;
}

/* Writes one character of a quoted string; returns how many bytes of `at` it consumed. */
static size_t append_char(struct line *line, const unsigned char *at)
{
	size_t len = utf8_len(at);
	char escape[8];

	if (len == 0) {
		append_text(line, "\\ufffd");
		return 1;
	}
	if (at[0] == '"' || at[0] == '\\') {
		append(line, (const char[]){'\\', (char)at[0]}, 2);
	} else if (at[0] == '\n') {
		append_text(line, "\\n");
	} else if (at[0] < 0x20 || at[0] == 0x7F) {
		(void)snprintf(escape, sizeof(escape), "\\u%04x", at[0]);
		append_text(line, escape);
	} else {
		append(line, (const char *)at, len);
	}
	return len;
}

static void append_quoted(struct line *line, const char *value)
{
	const unsigned char *at = (const unsigned char *)value;
	size_t taken = 0;

	append_text(line, "\"");
	while (at[taken] != '\0' && taken < LOG_VALUE_BYTES_MAX)
		taken += append_char(line, at + taken);
	if (at[taken] != '\0')
		append_text(line, "...");
	append_text(line, "\"");
}

/* Whether a logfmt value needs no quotes: no reader can take it for anything else. */
static bool is_bare(const char *value)
{
	size_t len = 0;

	for (; value[len] != '\0'; len++) {
		if (value[len] <= ' ' || value[len] >= 0x7F || value[len] == '"' ||
		    value[len] == '=' || value[len] == '\\')
			return false;
	}
	return len > 0 && len <= LOG_VALUE_BYTES_MAX;
}

static void append_key(struct line *line, const char *key)
{
	if (line->json) {
		append_text(line, line->len == 0 ? "{\"" : ",\"");
		append_text(line, key);
		append_text(line, "\":");
	} else {
		if (line->len > 0)
			append_text(line, " ");
		append_text(line, key);
		append_text(line, "=");
	}
}

static void append_str(struct line *line, const char *key, const char *value)
{
	if (value == NULL)
		value = "";
	append_key(line, key);
	if (!line->json && is_bare(value))
		append_text(line, value);
	else
		append_quoted(line, value);
}

static void append_field(struct line *line, const struct log_field *field)
{
	char number[24];

	switch (field->type) {
	case LOG_TYPE_ID:
		append_str(line, "id", field->key);
		append_str(line, "msg", field->value.str);
		return;
	case LOG_TYPE_STR:
		append_str(line, field->key, field->value.str);
		return;
	case LOG_TYPE_U64:
		(void)snprintf(number, sizeof(number), "%" PRIu64, field->value.u64);
		break;
	case LOG_TYPE_I64:
		(void)snprintf(number, sizeof(number), "%" PRId64, field->value.i64);
		break;
	case LOG_TYPE_BOOL:
		(void)snprintf(number, sizeof(number), "%s", field->value.flag ? "true" : "false");
		break;
	case LOG_TYPE_END:
	default:
		assert(!"an unknown type of log field");
		return;
	}
	append_key(line, field->key);
	append_text(line, number);
}

/* RFC 3339 in UTC with milliseconds. gmtime_r() takes no lock on the time zone and allocates
 * nothing. */
static void append_time(struct line *line, int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm parts;
	char date[32], text[48];

	if (gmtime_r(&seconds, &parts) == NULL ||
	    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &parts) == 0)
		return;
	(void)snprintf(text, sizeof(text), "%s.%03dZ", date, (int)(wall_ms % 1000));
	append_str(line, "ts", text);
}

static void finish(struct line *line, bool truncated)
{
	line->full = false;
	if (truncated) {
		const char *mark = line->json ? ",\"truncated\":true" : " truncated=true";

		memcpy(line->text + line->len, mark, strlen(mark));
		line->len += strlen(mark);
	}
	if (line->json)
		line->text[line->len++] = '}';
	line->text[line->len++] = '\n';
}

void log_configure(int fd, enum log_level level, enum log_format format)
{
	atomic_store(&out_fd, fd);
	atomic_store(&out_level, (int)level);
	atomic_store(&out_format, (int)format);
}

bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load(&out_level);
}

static int name_find(const char *const *names, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++) {
		if (strcmp(names[i], name) == 0)
			return (int)i;
	}
	return -1;
}

int log_level_parse(const char *name, enum log_level *ret)
{
	int found = name_find(level_names, sizeof(level_names) / sizeof(level_names[0]), name);

	if (found < 0)
		return -1;
	*ret = (enum log_level)found;
	return 0;
}

int log_format_parse(const char *name, enum log_format *ret)
{
	int found = name_find(format_names, sizeof(format_names) / sizeof(format_names[0]), name);

	if (found < 0)
		return -1;
	*ret = (enum log_format)found;
	return 0;
}

/* False: the disk is full, or the pipe has no reader, for example; the program continues without
 * its log. */
static bool put(const char *text, size_t len)
{
	int fd = atomic_load(&out_fd);
	ssize_t done;

	/* Ends a line that was cut, so that the next one is not read as its rest. */
	if (atomic_load(&is_cut) && write(fd, "\n", 1) == 1)
		atomic_store(&is_cut, false);
	do
		done = write(fd, text, len);
	while (done < 0 && errno == EINTR);
	if (done == (ssize_t)len)
		return true;
	if (done > 0)
		atomic_store(&is_cut, true);
	atomic_fetch_add(&lost_lines, 1);
	return false;
}

void log_write(enum log_level level, const struct log_field *fields)
{
	struct line line;
	bool truncated = false;
	int saved_errno = errno;
	unsigned lost;

	assert(fields[0].type == LOG_TYPE_ID);
	if (!log_enabled(level))
		return;
	line.len = 0;
	line.full = false;
	line.json = atomic_load(&out_format) == LOG_FORMAT_JSON;
	append_time(&line, clock_wall_ms());
	append_str(&line, "level", level_names[level]);
	for (; fields->type != LOG_TYPE_END; fields++) {
		size_t start = line.len;

		append_field(&line, fields);
		if (line.full) {
			line.len = start;
			line.full = false;
			truncated = true;
		}
	}
	finish(&line, truncated);
	if (put(line.text, line.len) && (lost = atomic_exchange(&lost_lines, 0)) > 0)
		log_line(LOG_LEVEL_WARN,
			 log_id("log.lost", "lines of this log could not be written"),
			 log_u64("lines", lost));
	errno = saved_errno;
}

bool log_may(struct log_rate *rate, uint64_t *ret_left_out)
{
	uint64_t now = clock_mono_ns() / 1000000000 + 1, second = atomic_load(&rate->second);

	/* Threads that meet at the end of a second may write a few lines more: the bound protects a
	 * disk. */
	if (second != now && atomic_compare_exchange_strong(&rate->second, &second, now))
		atomic_store(&rate->count, 0);
	if (atomic_fetch_add(&rate->count, 1) >= rate->per_second) {
		atomic_fetch_add(&rate->left_out, 1);
		return false;
	}
	*ret_left_out = atomic_exchange(&rate->left_out, 0);
	return true;
}
