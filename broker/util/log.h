/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker's log: one line per fact, logfmt or JSON.
 *
 * A line is a time, a level, a stable message id (what a person searches for and an alert matches
 * on: once released it keeps its meaning) and fields. Only the broker and its plugins log, through
 * this; libraries never print.
 *
 *     log_line(LOG_LEVEL_WARN, log_id("store.headroom", "publishes are refused"),
 *              log_u64("used_bytes", used), log_str("class", "publish"));
 *
 * gives ts=2024-05-01T12:00:00.123Z level=warn id=store.headroom msg="publishes are refused"
 * used_bytes=12 class=publish
 *
 * Any thread may log at any time: a line leaves in one write(2) of at most LOG_LINE_BYTES_MAX
 * bytes, so lines of different threads and processes do not mix. That write may block if the reader
 * of stderr does. Nothing allocates. broker/core must not include this: what the rules have to say
 * is an effect.
 */
#ifndef SLUICE_BROKER_UTIL_LOG_H
#define SLUICE_BROKER_UTIL_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A line with its newline; at most PIPE_BUF, which is what makes one write to a pipe
 * indivisible. */
#define LOG_LINE_BYTES_MAX 4096
/* Bytes of one string value; a longer one is cut and ends in "...". */
#define LOG_VALUE_BYTES_MAX 1024

enum log_level {
	LOG_LEVEL_ERROR, /* an administrator has to act */
	LOG_LEVEL_WARN,	 /* degraded; clears by itself, or needs an administrator soon */
	LOG_LEVEL_INFO,	 /* a change of state worth keeping: start, stop, listen, configuration */
	LOG_LEVEL_DEBUG, /* for the developer */
};

enum log_format {
	LOG_FORMAT_LOGFMT,
	LOG_FORMAT_JSON,
};

enum log_type {
	LOG_TYPE_END, /* closes the list; zero, so that an empty initialiser is one */
	LOG_TYPE_ID,
	LOG_TYPE_STR,
	LOG_TYPE_U64,
	LOG_TYPE_I64,
	LOG_TYPE_BOOL,
};

/* One field of a line. Strings are borrowed until log_write() returns; NULL is written as an empty
 * string. */
struct log_field {
	enum log_type type;
	const char *key; /* letters, digits, '_' and '.'; for LOG_TYPE_ID the message id */
	union {
		const char *str;
		uint64_t u64;
		int64_t i64;
		bool flag;
	} value;
};

/* The first field of every line: a stable id `part.fact` and the same in words. */
static inline struct log_field log_id(const char *id, const char *text)
{
	return (struct log_field){.type = LOG_TYPE_ID, .key = id, .value.str = text};
}

static inline struct log_field log_str(const char *key, const char *value)
{
	return (struct log_field){.type = LOG_TYPE_STR, .key = key, .value.str = value};
}

static inline struct log_field log_u64(const char *key, uint64_t value)
{
	return (struct log_field){.type = LOG_TYPE_U64, .key = key, .value.u64 = value};
}

static inline struct log_field log_i64(const char *key, int64_t value)
{
	return (struct log_field){.type = LOG_TYPE_I64, .key = key, .value.i64 = value};
}

static inline struct log_field log_bool(const char *key, bool value)
{
	return (struct log_field){.type = LOG_TYPE_BOOL, .key = key, .value.flag = value};
}

/* Sets descriptor, minimum level and format. Before the first call: standard error, LOG_LEVEL_INFO,
 * logfmt. Any thread may call it at any time; a line that is being written keeps the old setting.
 * `fd` stays the caller's. */
void log_configure(int fd, enum log_level level, enum log_format format);

/* Whether a line of this level would be written: for callers whose fields are expensive. */
bool log_enabled(enum log_level level);

/* Finds a level or a format by its name in the configuration. 0, or -1 if there is none (*ret
 * untouched). */
__attribute__((warn_unused_result)) int log_level_parse(const char *name, enum log_level *ret);
__attribute__((warn_unused_result)) int log_format_parse(const char *name, enum log_format *ret);

/*
 * Writes one line. `fields` (borrowed) begins with a log_id() and ends with LOG_TYPE_END. A field
 * that no longer fits is left out and the line says `truncated=true`. errno is kept. Failures to
 * write are ignored: there is nowhere to report them.
 */
void log_write(enum log_level level, const struct log_field *fields);

/* Limits a line that others can cause to a number per second. Zeroed except per_second; static
 * storage. */
struct log_rate {
	uint32_t per_second;
	_Atomic uint32_t count;
	_Atomic uint64_t second;
	_Atomic uint64_t left_out;
};
/* True: the line may be written; *ret_left_out lines were left out since the last one that was. Any
 * thread; reads a clock. */
bool log_may(struct log_rate *rate, uint64_t *ret_left_out);

#define log_line(level, ...) \
	log_write((level), (const struct log_field[]){__VA_ARGS__, {.type = LOG_TYPE_END}})

#endif
